"""How far fine-tuning moved each head: norms of the change of its query and value weights."""

import pandas as pd
import torch
from jaxtyping import Float
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.model.anatomy import HeadNumbers, Projection, find_blocks


@checked_arguments()
def update_norms(tuned: nn.Module, pretrained: nn.Module) -> pd.DataFrame:
    """Frobenius norm of each head's update, absolute and relative to the pre-trained weights that it changes.

    Both models carry plain weights (merge LoRA adapters first); the difference is then the update B A * alpha / r.
    One row per layer, head (0-based) and projection (`query`, `value`): columns layer, head, projection, norm,
    relative (dimensionless). Head h's part of a projection is its rows `[h*d : (h+1)*d]`. Pruned heads have no rows.
    Raises ValueError for an unmerged model, and where the two models differ in layers, heads or head size.
    """
    if any(isinstance(module, LoraLayer) for module in (*tuned.modules(), *pretrained.modules())):
        raise ValueError(
            "a model carries an unmerged LoRA adapter, expected plain weights: call merged() on it first"
        )
    one, other = find_blocks(tuned), find_blocks(pretrained)
    sizes = [(anatomy.layers, anatomy.heads, anatomy.head_size) for anatomy in (one, other)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"the models have {sizes[0]} and {sizes[1]} (layers, heads, head size), expected the same: "
            "compare a fine-tuned model with the backbone that it was made from"
        )
    rows = []
    for block, origin in zip(one.blocks, other.blocks, strict=True):
        for name in ("query", "value"):
            before = _own_heads(getattr(origin, name), origin.numbers, block.numbers)
            moved = _own_heads(getattr(block, name), block.numbers, block.numbers) - before
            norms = torch.linalg.vector_norm(moved, dim=(1, 2))
            relative = norms / torch.linalg.vector_norm(before, dim=(1, 2)).clamp_min(1e-12)
            rows += [
                (block.index, head, name, float(norms[place]), float(relative[place]))
                for place, head in enumerate(block.numbers.kept)
            ]
    return pd.DataFrame(rows, columns=["layer", "head", "projection", "norm", "relative"])


def _own_heads(
    projection: Projection, numbers: HeadNumbers, wanted: HeadNumbers
) -> Float[Tensor, "head size column"]:
    """The rows of `wanted` heads of a projection that holds those of `numbers`."""
    gone = sorted(set(wanted.kept) - set(numbers.kept))
    if gone:
        raise ValueError(
            f"the pre-trained model lacks heads {gone} that the tuned one has: pass the unpruned one"
        )
    rows = projection.weight.detach().float().unflatten(0, (len(numbers.kept), numbers.size))
    return wanted.pick(numbers.spread(rows, 0), 0)
