"""Remove heads, and keep what they wrote on average: a constant, which the output projection's bias holds for free."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitmech_utils.heads.hooks import capture_heads
from vitmech_utils.heads.pruning import Head, PruningError, prune_heads
from vitmech_utils.heads.replacements import evaluating
from vitmech_utils.heads.replay import predict
from vitmech_utils.model.anatomy import find_blocks


@torch.no_grad()
def prune_keeping_means(
    model: nn.Module,
    heads: Iterable[Head],
    pixel_values: Float[Tensor, "image 3 height width"],
    batch: int = 16,
) -> nn.Module:
    """A copy of `model` without these heads, as `prune_heads` makes it, whose biases hold the means of what they wrote.

    Means are taken over the tokens and images of `pixel_values`; what a head writes differently from token to token
    is lost. It computes what replacing each head's output by its mean computes. Raises as `prune_heads`, and
    `PruningError` for an output projection without a bias.
    """
    heads = list(heads)
    pruned = prune_heads(model, heads)
    parts = zip(find_blocks(model).blocks, find_blocks(pruned).blocks, strict=True)
    means = _means(model, pixel_values, batch)
    for layer, (whole, less) in enumerate(parts):
        for head in (head for of, head in heads if of == layer):
            if less.output.bias is None:
                raise PruningError(f"{less.name}: its output projection has no bias that could hold a mean")
            place = whole.numbers.kept.index(head) * whole.numbers.size
            columns = whole.output.weight[:, place : place + whole.numbers.size]
            less.output.bias += columns @ means[layer][head]
    return pruned


def _means(model: nn.Module, pixel_values: Tensor, batch: int) -> list[Float[Tensor, "head size"]]:
    """What each head writes on average, layer by layer; heads by their numbers in the unpruned model."""
    weight, sums = next(model.parameters()), None
    with evaluating(model):
        for images in pixel_values.split(batch):
            with capture_heads(model) as found:
                predict(model, images.to(device=weight.device, dtype=weight.dtype))
            each = [found[layer].mean(1).sum(0) for layer in range(len(found))]
            sums = each if sums is None else [one + other for one, other in zip(sums, each, strict=True)]
    return [total / len(pixel_values) for total in sums]
