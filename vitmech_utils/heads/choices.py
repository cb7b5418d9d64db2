"""Choose heads: those that look at some regions, and random others to hold them against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from torch import nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.attention_shares import AttentionStatistics
from vitmech_utils.heads.hooks import Head
from vitmech_utils.model.anatomy import find_blocks


@checked_arguments()
def heads_looking_at(statistics: AttentionStatistics, regions: Sequence[str], most: int) -> pd.DataFrame:
    """The heads whose CLS query looks at some regions clearly more than their area would have it, at most `most`.

    Lift is that of the regions together; a head is taken if its interval (Poisson bootstrap over images) lies above 1.
    Returns layer, head (0-based), lift, low, high, images, the largest lift first; no rows where there is no such head.
    Raises `ValueError` for an unknown region or fewer than one head.
    """
    if most < 1:
        raise ValueError(f"most is {most}, expected at least 1 head")
    if unknown := [name for name in regions if name not in statistics.names]:
        raise ValueError(f"unknown region {unknown[0]!r}, expected one of {', '.join(statistics.names)}")
    variant, chosen = 0, [statistics.names.index(name) for name in regions]
    # [replicate, sinks, variant, layer, head, region]: sinks kept, regions summed.
    share, area = (
        statistics.replicates[field][:, 0, variant][..., chosen].sum(-1) for field in ("share", "area")
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        lift = np.nan_to_num(share / area)  # a head without attention on patches looks at nothing
    low, high = np.quantile(lift[1:], [0.025, 0.975], axis=0)
    layer, head = (axis.ravel() for axis in np.indices(lift.shape[1:]))
    table = pd.DataFrame(
        {
            "layer": layer, "head": head, "lift": lift[0].ravel(), "low": low.ravel(), "high": high.ravel(),
            "images": statistics.images,
        }
    )  # fmt: skip
    table = table[table["low"] > 1].sort_values("lift", ascending=False, kind="stable")
    return table.head(most).reset_index(drop=True)


@checked_arguments()
def other_heads(
    model: nn.Module,
    heads: Collection[Head],
    sets: int,
    rng: np.random.Generator,
    same_layers: bool = False,
) -> list[list[Head]]:
    """Draw `sets` random sets of as many heads as `heads`, from all others; `ValueError` where these are too few.

    `same_layers` takes as many from each layer as `heads` has there: depth alone may decide what heads carry. What a
    layer has too few others for is drawn from all layers.
    """
    rest = [pair for pair in find_blocks(model).pairs if pair not in set(heads)]
    if len(rest) < len(heads):
        raise ValueError(
            f"{len(heads)} heads leave {len(rest)} others, expected at least as many: name fewer heads"
        )
    wanted = Counter(layer for layer, _ in heads) if same_layers else Counter()
    drawn = []
    for _ in range(sets):
        order = [rest[place] for place in rng.permutation(len(rest))]
        first = [
            pair
            for layer, count in wanted.items()
            for pair in [pair for pair in order if pair[0] == layer][:count]
        ]
        others = [pair for pair in order if pair not in set(first)]
        drawn.append(sorted([*first, *others][: len(heads)]))
    return drawn
