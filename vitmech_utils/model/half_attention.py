"""Attention in half precision whose weights are kept: on processors, where fused kernels compute them anew backwards.

A fused kernel saves memory: its backward pass makes the attention weights a second time, and on a processor its
products in half precision are no faster than in single. One backward pass per output pays for that each time. Kept
weights make every backward pass four plain products.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

LARGEST = 1 << 27
"""Bytes of one layer's attention weights beyond which the fused kernel is taken after all."""
_HALF = (torch.bfloat16, torch.float16)


@contextmanager
def keeping_weights() -> Iterator[None]:
    """While active, `scaled_dot_product_attention` of half-precision tensors on a processor keeps its weights.

    Scores and softmax are float32; the weights are rounded to half precision as the fused kernel rounds them. Calls
    with a mask, with dropout, causal ones, of other shapes or formats, of more than `LARGEST` bytes of weights, and
    those on other devices go to the kernel as before. Gradients can be taken once, not of gradients.
    """
    with _Kept():
        yield


class _Kept(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention and _fits(*args, **kwargs):
            return attention(*args[:3], kwargs.get("scale"))
        return func(*args, **kwargs)


def attention(
    query: Float[Tensor, "image head token size"],
    key: Float[Tensor, "image head token size"],
    value: Float[Tensor, "image head token size"],
    scale: float | None = None,
) -> Float[Tensor, "image head token size"]:
    """softmax(q k^T scale) v, its weights kept for the backward pass; `scale` is 1 / sqrt(size) where none is given."""
    return _Attention.apply(query, key, value, query.shape[-1] ** -0.5 if scale is None else scale)


def _fits(*given, **named) -> bool:
    """Whether a call asks for nothing but three tensors of one shape in half precision, on a processor."""
    if len(given) != 3 or not all(isinstance(part, Tensor) for part in given):
        return False
    query, key, value = given
    plain = named.get("attn_mask") is None and not named.get("dropout_p") and not named.get("is_causal")
    return (
        query.device.type == "cpu"
        and query.dtype in _HALF
        and query.dtype == key.dtype == value.dtype
        and query.ndim == 4
        and query.shape == key.shape == value.shape
        and query.shape[:3].numel() * query.shape[2] * query.element_size() <= LARGEST
        and plain
    )


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        shape = query.shape
        query, key, value = (part.flatten(0, 1) for part in (query, key, value))
        with torch.autocast(query.device.type, enabled=False):
            # Autocast would round the scores, and with them what an exponential makes of the error.
            scores = torch.bmm(query.float() * scale, key.float().transpose(1, 2))
        weights = scores.softmax(-1).to(query.dtype)
        ctx.save_for_backward(query, key, value, weights)
        ctx.scale = scale
        return torch.bmm(weights, value).view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value, weights = ctx.saved_tensors
        shape = gradient.shape
        gradient = gradient.flatten(0, 1)
        of_value = torch.bmm(weights.transpose(1, 2), gradient)
        of_weights = torch.bmm(gradient, value.transpose(1, 2))
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        of_query = torch.bmm(of_scores, key) * ctx.scale
        of_key = torch.bmm(of_scores.transpose(1, 2), query) * ctx.scale
        return of_query.view(shape), of_key.view(shape), of_value.view(shape), None
