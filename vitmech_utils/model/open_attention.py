"""torch's own MultiheadAttention, run open: the same weights and the same result, by modules that hooks can see."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class OpenAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` whose output projection is called as a module.

    torch's own forward pass hands weights to one fused function, so that no hook ever sees what a head writes. This
    class has the same parameters and computes the same numbers. It is put on a module in its place (`opened`), which
    keeps weights, names and state dict as they are.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As in `nn.MultiheadAttention`; masked, unbatched and cross-attention calls go its own way."""
        plain = (
            query is key
            and key is value
            and query.ndim == 3
            and key_padding_mask is None
            and attn_mask is None
        )
        if not plain or is_causal or (self.training and self.dropout > 0):
            return super().forward(
                query, key, value, key_padding_mask=key_padding_mask, need_weights=need_weights,
                attn_mask=attn_mask, average_attn_weights=average_attn_weights, is_causal=is_causal,
            )  # fmt: skip
        tokens = query if self.batch_first else query.transpose(0, 1)
        joined = nn.functional.linear(tokens, self.in_proj_weight, self.in_proj_bias)
        split = joined.unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        q, k, v = split.unbind(0)
        weights = None
        if need_weights:
            weights = torch.softmax(q @ k.transpose(-1, -2) * self.head_dim**-0.5, dim=-1)
            written = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            written = nn.functional.scaled_dot_product_attention(q, k, v)
        out = self.out_proj(written.transpose(1, 2).flatten(2))
        return (out if self.batch_first else out.transpose(0, 1)), weights


def can_open(module: nn.Module) -> bool:
    """Whether a module is torch's attention of the plain kind: one size for all, no extra keys."""
    return (
        isinstance(module, nn.MultiheadAttention)
        and module._qkv_same_embed_dim
        and module.bias_k is None
        and not module.add_zero_attn
    )


def opened(module: nn.MultiheadAttention) -> nn.MultiheadAttention:
    """The same module, run open from now on."""
    if type(module) is nn.MultiheadAttention:
        module.__class__ = OpenAttention
    return module
