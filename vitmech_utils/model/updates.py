"""How far fine-tuning moved each head: norms of the LoRA update of its query and value weights."""

from __future__ import annotations

import pandas as pd
from peft.tuners.lora import LoraLayer

from vitmech_utils.model.anatomy import Projection, find_blocks
from vitmech_utils.model.regressor import AdapterError, ChirpRegressor


def update_norms(regressor: ChirpRegressor) -> pd.DataFrame:
    """Frobenius norm of each head's LoRA update, absolute and relative to the norm of the weights that it changes.

    One row per layer and head (0-based) and projection (`query`, `value`): columns layer, head, projection, norm,
    relative. Head h's part of a projection is its rows `[h*d : (h+1)*d]`. Raises `AdapterError` for a merged model.
    """
    if regressor.is_merged:
        raise AdapterError(
            "this regressor is merged: its LoRA update is no longer separate; pass the unmerged one"
        )
    anatomy = find_blocks(regressor)
    rows = []
    for block in anatomy.blocks:
        for name in ("query", "value"):
            projection: Projection = getattr(block, name)
            if not isinstance(projection.linear, LoraLayer):
                continue
            update = projection.linear.get_delta_weight("default").detach()
            for head in range(anatomy.heads):
                part = anatomy.columns(head)
                norm = float(update[part].norm())
                relative = norm / float(projection.weight[part].norm())
                rows.append((block.index, head, name, norm, relative))
    return pd.DataFrame(rows, columns=["layer", "head", "projection", "norm", "relative"])
