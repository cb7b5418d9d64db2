"""Attention weights where they are computed: the softmax of each layer, or the fused kernel that stands for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.projections import Projections
from vitmech_utils.model.anatomy import AttentionBlock

_SOFTMAX = {torch.softmax, functional.softmax, Tensor.softmax, torch.nn.functional.softmax}
_CASTS = {Tensor.to, Tensor.type_as, Tensor.float, Tensor.contiguous, functional.dropout}
_PRODUCTS = {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm}


@dataclass
class Seen:
    """What one layer's attention computed in a pass: as [image, own_head, token, ...], in the model's own format.

    `weights` were seen leaving a softmax, or else `query`, `key`, `bias` and `scale` entering a fused kernel; `value`
    is what they were multiplied with (None: not seen). `softmaxes` counts how many there were.
    """

    softmaxes: int = 0
    query: Tensor | None = None
    key: Tensor | None = None
    value: Tensor | None = None
    bias: Tensor | None = None
    scale: float | None = None
    weights: Tensor | None = None
    trouble: list[str] = field(default_factory=list)

    def written(self) -> Tensor | None:
        """Weights times values, [image, own_head, token, width]; None where either was not seen."""
        if self.value is None:
            return None
        if self.weights is not None:
            return self.weights.to(self.value.dtype) @ self.value
        if self.query is None:
            return None
        scores = self.query @ self.key.transpose(-1, -2) * self.scale
        return (scores if self.bias is None else scores + self.bias).softmax(-1) @ self.value

    def projections(self, block: AttentionBlock) -> Projections:
        """The same as `Projections`, float32."""
        query, key, value, bias, weights = (
            None if part is None else part.detach().float()
            for part in (self.query, self.key, self.value, self.bias, self.weights)
        )
        return Projections(block.index, query, key, value, block.numbers, bias, self.scale, weights)


@checked_arguments()
@contextmanager
def watch_softmax(
    blocks: list[AttentionBlock], receive: Callable[[AttentionBlock, Seen, Tensor], None]
) -> Iterator[None]:
    """While active, every forward pass hands `receive` what each layer's attention computed, and what it wrote.

    The softmax of a layer is the one that runs between the call of its attention module and that of its output
    projection, whose input [image, token, width] is the third argument. Works with eager attention, fused kernels of
    torch and modules of one's own; a kernel of another library leaves `Seen` empty.
    """
    tracer = _Tracer()
    handles = []

    def enter(block: AttentionBlock):
        def hook(_module: nn.Module, _args: tuple) -> None:
            tracer.start(block)

        return hook

    def leave(block: AttentionBlock):
        def hook(_module: nn.Module, args: tuple) -> None:
            receive(block, tracer.finish(), args[0])

        return hook

    def told(_module: nn.Module, _args: tuple, output: Tensor) -> None:
        tracer.weights_seen(output)

    try:
        for block in blocks:
            handles.append(block.attention.register_forward_pre_hook(enter(block)))
            handles.append(block.output.register_forward_pre_hook(leave(block)))
            if block.softmax is not None:
                handles.append(block.softmax.register_forward_hook(told))
        with tracer:
            yield
    finally:
        for handle in handles:
            handle.remove()


class _Tracer(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self._seen: Seen | None = None
        self._heads = 0
        self._told = False

    def start(self, block: AttentionBlock) -> None:
        self._seen, self._heads, self._told = Seen(), len(block.numbers.kept), block.softmax is not None

    def finish(self) -> Seen:
        seen, self._seen = self._seen or Seen(), None
        return seen

    def weights_seen(self, weights: Tensor) -> None:
        """Take what a told module puts out for the attention weights."""
        if self._seen is not None:
            self._seen.weights, self._seen.softmaxes = self._by_head(weights), self._seen.softmaxes + 1

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        seen = self._seen
        if seen is None:
            return result
        if func is functional.scaled_dot_product_attention:
            self._fused(*args, **kwargs)
        elif func in _SOFTMAX and not self._told:
            found = self._by_head(result)
            if found is not None:
                seen.softmaxes += 1
                seen.weights, seen.value = found, None
        elif seen.weights is not None and seen.value is None:
            if func in _CASTS and self._are_weights(args[0]):
                seen.weights = self._by_head(result)
            else:
                self._product(func, args)
        return result

    def _fused(
        self, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
    ) -> None:
        seen = self._seen
        seen.softmaxes += 1
        if is_causal or enable_gqa or query.ndim != 4 or query.shape[2] != key.shape[2]:
            seen.trouble.append(
                "its attention is causal, shared between heads, or not from all tokens to all"
            )
            return
        seen.query, seen.key, seen.value = (part.detach() for part in (query, key, value))
        seen.scale = query.shape[-1] ** -0.5 if scale is None else scale
        if attn_mask is not None:
            bias = attn_mask.detach()
            if bias.dtype == torch.bool:
                bias = torch.zeros_like(bias, dtype=query.dtype).masked_fill(~bias, -torch.inf)
            seen.bias = bias[(None,) * (4 - bias.ndim)]

    def _product(self, func, args: tuple) -> None:
        if func is torch.einsum:
            operands = [part for part in args if isinstance(part, Tensor)]
        elif func in _PRODUCTS:
            operands = list(args)
        else:
            return
        if len(operands) != 2:
            return
        left, right = operands
        if self._are_weights(left):
            value = self._by_head(right)
            tokens = self._seen.weights.shape[-1]
            if value is not None and value.shape[2] == tokens:
                self._seen.value = value

    def _are_weights(self, values: Tensor) -> bool:
        own = self._seen.weights
        return (
            isinstance(values, Tensor)
            and values.data_ptr() == own.data_ptr()
            and values.numel() == own.numel()
        )

    def _by_head(self, values: Tensor) -> Tensor | None:
        """[image, head, token, ...], of a tensor that may have images and heads joined; None for another one."""
        if values.ndim == 4 and values.shape[1] == self._heads:
            return values.detach()
        if values.ndim == 3 and self._heads and values.shape[0] % self._heads == 0:
            return values.detach().unflatten(0, (-1, self._heads))
        return None
