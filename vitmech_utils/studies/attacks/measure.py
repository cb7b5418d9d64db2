"""What an attack goes through: the heads that look at a target, the model without them, and tables of the harm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils.data.chirps import LABEL_NAMES
from vitmech_utils.heads.attention_shares import VARIANTS, AttentionStatistics
from vitmech_utils.heads.hooks import Head
from vitmech_utils.heads.replacements import evaluating
from vitmech_utils.heads.replay import predict
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.statistics import Interval, effect_intervals, percent_effect


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
    variant, chosen = VARIANTS.index(("cls", "raw")), [statistics.names.index(name) for name in regions]
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


def mean_changes(
    means: Sequence[Float[Tensor, "1 token head size"]], heads: Collection[Head]
) -> dict[Head, Tensor]:
    """Changes for `change_heads` that mean-ablate `heads`; `means` are those of `mean_outputs`, one per layer."""
    return {(layer, head): means[layer][:, :, head].clone() for layer, head in heads}


@torch.no_grad()
def predictions(
    model: nn.Module, pixel_values: Float[Tensor, "image 3 height width"], batch: int = 8
) -> Float[Tensor, "image target"]:
    """Predictions in float64 on the CPU, dropout off; under `change_heads` those of the changed model."""
    weight = next(model.parameters())
    with evaluating(model):
        return torch.cat(
            [predict(model, part.to(weight)).cpu().double() for part in pixel_values.split(batch)]
        )


def worst_draw(
    drawn: Float[ndarray, "draw image target"], clean: Float[ndarray, "image target"]
) -> Float[ndarray, "image target"]:
    """Per image the squared errors of the draw that sums up highest, the clean ones among them, as an attack keeps."""
    every = np.concatenate([clean[None], drawn])
    return every[every.sum(2).argmax(0), np.arange(len(clean))]


def attack_effects(
    errors: Mapping[str, Float[ndarray, "changed target"]],
    clean: Float[ndarray, "image target"],
    bootstrap: int = 2000,
    seed: int = 0,
    targets: Sequence[str] = LABEL_NAMES,
) -> pd.DataFrame:
    """Tabulate squared errors of changed images against the clean ones', which every row shares.

    One row per name: name, images, mse, clean_mse, effect (percent of the clean MSE), low, high (paired bootstrap over
    images), and effect_T, low_T, high_T in percent of each target's own clean MSE. Raises `ValueError` for errors of
    other images.
    """
    if other := [name for name, found in errors.items() if found.shape != clean.shape]:
        raise ValueError(
            f"{other[0]!r} has errors of shape {errors[other[0]].shape}, expected {clean.shape} as the clean ones have"
        )
    every = np.stack(list(errors.values()))
    columns = {
        "name": list(errors),
        "images": len(clean),
        "mse": every.mean((1, 2)),
        "clean_mse": clean.mean(),
    }
    parts = {"": (every.mean(2), clean.mean(1))}
    parts |= {f"_{name}": (every[..., place], clean[:, place]) for place, name in enumerate(targets)}
    for suffix, (changed, baseline) in parts.items():
        low, high = effect_intervals(changed, baseline, bootstrap, seed=seed)
        columns |= {
            f"effect{suffix}": percent_effect(changed, baseline),
            f"low{suffix}": low,
            f"high{suffix}": high,
        }
    return pd.DataFrame(columns)


def excess_effect(
    more: Float[ndarray, "image target"],
    less: Float[ndarray, "image target"],
    clean: Float[ndarray, "image target"],
    bootstrap: int = 2000,
    seed: int = 0,
) -> Interval:
    """By how much one squared error exceeds another, in percent of the clean MSE, paired by image."""
    changed, baseline = (clean + more - less).mean(1)[None], clean.mean(1)
    low, high = effect_intervals(changed, baseline, bootstrap, seed=seed)
    return Interval(float(percent_effect(changed, baseline)[0]), float(low[0]), float(high[0]))
