"""Inherited or emergent: what fine-tuning did to each head's weights, and whether its class changed."""

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitmech_utils.model.anatomy import Anatomy, find_blocks


def head_updates(tuned: nn.Module, pretrained: nn.Module) -> pd.DataFrame:
    """How far each head's query and value projections moved: Frobenius norms of the head's own rows.

    Both models carry plain weights (merge LoRA adapters first); the difference is then the LoRA update B A * alpha / r.
    Columns: layer, head (0-based), query_update and value_update, both also relative to the pre-trained rows' norm
    (dimensionless). Raises ValueError where the two models differ in layers, heads or sizes.
    """
    one, other = find_blocks(tuned), find_blocks(pretrained)
    sizes = [(anatomy.layers, anatomy.heads, anatomy.head_size) for anatomy in (one, other)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"the models have {sizes[0]} and {sizes[1]} (layers, heads, head size), expected the same: "
            "compare a fine-tuned model with the backbone that it was made from"
        )
    rows = []
    for block, origin in zip(one.blocks, other.blocks, strict=True):
        row = {}
        for name in ("query", "value"):
            before = getattr(origin, name).weight.detach().float()
            moved = _per_head(getattr(block, name).weight.detach().float() - before, one)
            row[f"{name}_update"] = moved
            row[f"{name}_relative"] = moved / _per_head(before, one).clamp_min(1e-12)
        rows += [
            {"layer": block.index, "head": head, **{key: float(norms[head]) for key, norms in row.items()}}
            for head in range(one.heads)
        ]
    return pd.DataFrame(rows)


def class_changes(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Join two tables of `classify`: class and regions before and after, and whether each changed.

    `changed` is true where the class or the set of regions differs. Layers and heads are 0-based.
    """
    columns = ["layer", "head", "class", "regions", "confidence", "top_region", "top_weight"]
    joined = before[columns].merge(
        after[columns], on=["layer", "head"], suffixes=("_before", "_after"), validate="1:1"
    )
    regions = [
        joined[f"regions_{when}"].str.split(" + ", regex=False).map(frozenset) for when in ("before", "after")
    ]
    joined["changed"] = (joined["class_before"] != joined["class_after"]) | (regions[0] != regions[1])
    return joined


def _per_head(weight: Float[Tensor, "row column"], anatomy: Anatomy) -> Float[Tensor, " head"]:
    return torch.linalg.vector_norm(weight.unflatten(0, (anatomy.heads, anatomy.head_size)), dim=(1, 2))
