"""Chapter 04's sweeps, what the heads' effects add up to per layer, and how layers compare: claims C1 and C2."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.chirps import LABEL_NAMES
from vitmech_utils.data.dataset import ChirpDataset, held_out, stack
from vitmech_utils.heads.ablation import HeadPredictions, effects, first_order, predict_without_heads
from vitmech_utils.heads.attention import attention_maps
from vitmech_utils.heads.sets import predict_without_sets
from vitmech_utils.heads.stopping import LEAST_IMAGES, interval_widths, sweep_until
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.statistics import (
    Interval,
    effect_intervals,
    effect_sizes,
    rank_correlation,
    ratio_of_effects,
)
from vitmech_utils.tasks import Loss, Task

# The study's figures, percent of the baseline's MSE (arXiv 2503.18762): layers 1-3, and layer 6.
STUDY_EARLY, STUDY_EARLY_DEVIATION = 0.11, 0.09
STUDY_LATE, STUDY_LATE_DEVIATION = 0.34, 0.02
EARLY, LATE = (0, 1, 2), (5,)
MODES = ("mean", "zero", "resample", "qkv-weights")
JOINT = 16  # images on which sets of heads are ablated together, at most


@checked_arguments()
def layer_effects(
    predictions: HeadPredictions,
    labels: Tensor | None,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    *,
    task: Task | str | Loss | None = None,
) -> pd.DataFrame:
    """The mean effect of each layer's heads, ablated one at a time.

    Returns layer (0-based), effect (percent or the task's unit, mean over the layer's heads), low, high (paired
    bootstrap over images), deviation (standard deviation over heads), largest (the head with the largest effect,
    0-based). `task` as in `Answers.losses`.
    """
    losses = predictions.losses(labels, task)
    changed, baseline = losses.mean()
    layers = np.unique(predictions.layers)
    means = np.stack([changed[predictions.layers == layer].mean(0) for layer in layers])
    single = effect_sizes(changed, baseline, losses.relative)
    low, high = effect_intervals(means, baseline, bootstrap, confidence, seed, losses.relative)
    by_layer = [single[predictions.layers == layer] for layer in layers]
    return pd.DataFrame(
        {
            "layer": layers,
            "mode": predictions.mode,
            "effect": effect_sizes(means, baseline, losses.relative),
            "low": low,
            "high": high,
            "deviation": [effects.std(ddof=1) if effects.size > 1 else 0.0 for effects in by_layer],
            "largest": [
                predictions.heads[predictions.layers == layer][effects.argmax()]
                for layer, effects in zip(layers, by_layer, strict=True)
            ],
        }
    )


@checked_arguments()
def compare_layers(
    predictions: HeadPredictions,
    labels: Tensor | None,
    early: Sequence[int] = EARLY,
    late: Sequence[int] = LATE,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    *,
    task: Task | str | Loss | None = None,
) -> dict[str, Interval]:
    """Mean single-head effect of two groups of layers (0-based), in the task's unit, and their ratio late / early.

    Returns the intervals `early`, `late` and `ratio`. The defaults are the study's: layers 1-3 and layer 6.
    """
    losses = predictions.losses(labels, task)
    changed, baseline = losses.mean()
    groups = {
        name: changed[np.isin(predictions.layers, layers)].mean(0)
        for name, layers in (("early", early), ("late", late))
    }
    found = {}
    for name, errors in groups.items():
        low, high = effect_intervals(errors[None], baseline, bootstrap, confidence, seed, losses.relative)
        size = effect_sizes(errors[None], baseline, losses.relative)
        found[name] = Interval(float(size[0]), float(low[0]), float(high[0]))
    ratio = ratio_of_effects(groups["late"], groups["early"], baseline, bootstrap, confidence, seed)
    return found | {"ratio": ratio}


# Chapter 04's sweeps, in its order


@dataclass(frozen=True)
class Material:
    """The images of the sweeps: those to predict, others whose outputs make up the means, and undecorated twins."""

    pixels: Float[Tensor, "image 3 height width"]
    labels: Float[Tensor, "image target"]
    reference: Float[Tensor, "other 3 height width"]
    twins: Float[Tensor, "twin 3 height width"]


@checked_arguments()
def material(images: int, twins: int) -> Material:
    """Held-out images with standardized labels (float64), 16 training images or more, and twins of the first images."""
    data, others = held_out(images), max(16, twins)
    reference = stack(ChirpDataset(others, seed=0, split="train"), others)["pixel_values"]
    return Material(
        data["pixel_values"], data["labels"].double(), reference, held_out(twins, "bare")["pixel_values"]
    )


@checked_arguments()
def against_hooks(model: nn.Module, pixel_values: Float[Tensor, "image 3 height width"]) -> dict[str, Any]:
    """Hold the fast sweep against a plain hook and a full pass, on the last head of three layers.

    Returns the names of both methods (`fast`, `slow`) and whether their predictions are the `same`.
    """
    anatomy = find_blocks(model)
    last = anatomy.layers - 1
    probe = {"layers": [0, anatomy.layers // 2, last], "heads": [anatomy.heads - 1]}
    fast, slow = (
        predict_without_heads(model, pixel_values, "zero", replay=replay, **probe) for replay in (True, False)
    )
    same = torch.allclose(fast.ablated, slow.ablated, atol=1e-4)
    return {"fast": fast.method, "slow": slow.method, "same": same}


@checked_arguments()
def main_modes(asked: Sequence[str]) -> tuple[list[str], list[str]]:
    """The modes that are swept on all images, and those that are swept on a part of them."""
    main = [mode for mode in asked if mode in ("mean", "zero", "qkv-weights")] or ["mean"]
    return main, [mode for mode in MODES if mode not in main]


@checked_arguments()
def predict_mode(
    model: nn.Module, images: Material, mode: str, count: int, batch: int = 32
) -> HeadPredictions:
    """Predict the first `count` images without each head; means and donors come from `images`."""
    extra = {"mean": {"reference": images.reference}, "resample": {"donors": images.twins[:count]}}
    return predict_without_heads(model, images.pixels[:count], mode, batch=batch, **extra.get(mode, {}))


@checked_arguments()
def predict_modes(
    model: nn.Module, images: Material, asked: Sequence[str], batch: int = 32
) -> dict[str, HeadPredictions]:
    """Predict without each head in every mode: the main ones on all images, the others on as many as have twins."""
    main, others = main_modes(asked)
    counts = dict.fromkeys(main, len(images.pixels)) | dict.fromkeys(others, len(images.twins))
    return {mode: predict_mode(model, images, mode, count, batch) for mode, count in counts.items()}


@checked_arguments()
def as_arrays(swept: Mapping[str, HeadPredictions]) -> dict[str, Tensor]:
    """The predictions of every mode: `baseline_<mode>` [image, target] and `ablated_<mode>` [head, image, target]."""
    return {
        f"{name}_{mode}": getattr(found, name)
        for mode, found in swept.items()
        for name in ("baseline", "ablated")
    }


@checked_arguments()
def all_effects(
    swept: Mapping[str, HeadPredictions], labels: Float[Tensor, "image target"], bootstrap: int
) -> pd.DataFrame:
    """The table of effects of each mode, one under the other."""
    parts = [effects(found, labels[: len(found.baseline)], bootstrap=bootstrap) for found in swept.values()]
    return pd.concat(parts, ignore_index=True)


@checked_arguments()
def by_mode(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """A table's rows of each mode, numbered from 0."""
    return {mode: part.reset_index(drop=True) for mode, part in table.groupby("mode", sort=False)}


@checked_arguments()
def layer_means(
    swept: Mapping[str, HeadPredictions], labels: Float[Tensor, "image target"], bootstrap: int
) -> pd.DataFrame:
    """`layer_effects` of each mode, one under the other."""
    parts = [layer_effects(found, labels[: len(found.baseline)], bootstrap) for found in swept.values()]
    return pd.concat(parts, ignore_index=True)


@checked_arguments()
def layer_comparison(
    swept: Mapping[str, HeadPredictions], labels: Float[Tensor, "image target"], bootstrap: int
) -> pd.DataFrame:
    """`compare_layers` of each mode as a table: mode, quantity, value, low, high."""
    found = {
        mode: compare_layers(predictions, labels[: len(predictions.baseline)], bootstrap=bootstrap)
        for mode, predictions in swept.items()
    }
    return pd.DataFrame(
        {"mode": mode, "quantity": name, "value": it.value, "low": it.low, "high": it.high}
        for mode, intervals in found.items()
        for name, it in intervals.items()
    )


@checked_arguments()
def intervals(comparison: pd.DataFrame) -> dict[str, dict[str, Interval]]:
    """The intervals that `layer_comparison` tabulates, by mode and quantity."""
    found: dict[str, dict[str, Interval]] = {}
    for row in comparison.itertuples():
        found.setdefault(row.mode, {})[row.quantity] = Interval(row.value, row.low, row.high)
    return found


@checked_arguments()
def shared_effects(
    swept: Mapping[str, HeadPredictions], labels: Float[Tensor, "image target"]
) -> pd.DataFrame:
    """Effects in every mode on the images that all modes share, one mode under the other."""
    count = min(len(found.baseline) for found in swept.values())
    cut = {mode: found.on(slice(count)) for mode, found in swept.items()}
    return all_effects(cut, labels, bootstrap=100)


@checked_arguments()
def estimates(model: nn.Module, images: Material, modes: Sequence[str], bootstrap: int) -> pd.DataFrame:
    """First-order estimates of the effects in some modes, one under the other."""
    parts = []
    for mode in modes:
        extra = {"reference": images.reference} if mode == "mean" else {}
        parts.append(
            first_order(model, images.pixels, images.labels, mode, batch=8, bootstrap=bootstrap, **extra)
        )
    return pd.concat(parts, ignore_index=True)


@checked_arguments()
def widths(
    predictions: HeadPredictions, labels: Float[Tensor, "image target"], bootstrap: int
) -> pd.DataFrame:
    """`interval_widths` for all images, half of them, a quarter and an eighth."""
    counts = sorted({max(2, len(labels) // parts) for parts in (8, 4, 2, 1)})
    return interval_widths(*predictions.losses(labels).mean(), counts, bootstrap=min(bootstrap, 1000))


@checked_arguments()
def stopping(model: nn.Module, half_width: float, most: int, bootstrap: int, size: int = 8) -> pd.DataFrame:
    """The history of a zero-ablation sweep of the last layer that stops where its widest interval is narrow enough."""
    stream = ChirpDataset(64, seed=1, split="held-out")
    parts = (stack(stream, range(start, start + size)) for start in range(0, len(stream), size))
    batches = ((part["pixel_values"], part["labels"].double()) for part in parts)
    last = find_blocks(model).layers - 1
    return sweep_until(
        model, batches, half_width=half_width, mode="zero", layers=[last],
        most=max(LEAST_IMAGES, min(len(stream), most)), bootstrap=bootstrap,
    )[1]  # fmt: skip


@checked_arguments()
def heads_of(rows: pd.DataFrame) -> list[tuple[int, int]]:
    """Pairs of layer and head, 0-based, of a table's rows."""
    return list(zip(rows["layer"].tolist(), rows["head"].tolist(), strict=True))


@checked_arguments()
def joint_effects(
    model: nn.Module,
    images: Material,
    sets: Mapping[str, pd.DataFrame],
    bootstrap: int,
    batch: int = 32,
) -> pd.DataFrame:
    """Zero sets of heads together, on the first images: set, effect (percent) with low and high, sum_of_single.

    Each set is named and holds rows of a table of single effects (layer, head, effect).
    """
    few = min(len(images.pixels), JOINT)
    found = predict_without_sets(
        model, images.pixels[:few], [heads_of(rows) for rows in sets.values()], "zero", batch=batch
    )
    errors, baseline = found.losses(images.labels[:few]).mean()
    low, high = effect_intervals(errors, baseline, bootstrap)
    return pd.DataFrame(
        {
            "set": list(sets),
            "effect": effect_sizes(errors, baseline),
            "low": low,
            "high": high,
            "sum_of_single": [rows["effect"].sum() for rows in sets.values()],
        }
    )


@checked_arguments()
def compared_sets(single: pd.DataFrame, draws: int = 8) -> dict[str, pd.DataFrame]:
    """A tenth of all heads, several times: those of largest single effects, of smallest, and drawn at random."""
    size = max(1, len(single) // 10)
    rng = np.random.default_rng(0)
    order = single["effect"].sort_values(ascending=False).index
    sets = {f"top {size}": order[:size], f"bottom {size}": order[-size:]}
    sets |= {f"random {i + 1}": rng.choice(single.index, size, replace=False) for i in range(draws)}
    return {name: single.loc[chosen] for name, chosen in sets.items()}


@checked_arguments()
def untrained_effects(
    model: ChirpRegressor, images: Material, count: int, bootstrap: int, batch: int = 32
) -> pd.DataFrame:
    """The effects of zero ablation in a model's untrained twin, on the first images."""
    found = predict_mode(model.untrained_twin(), images, "zero", count, batch)
    return effects(found, images.labels[:count], bootstrap=bootstrap)


@checked_arguments()
def seed_agreement(
    models: Mapping[int, Callable[[], nn.Module]],
    single: pd.DataFrame,
    images: Material,
    bootstrap: int,
    batch: int = 32,
) -> pd.DataFrame:
    """Rank correlation of zero ablation's effects (`single`) with those of other trainings: seed, value, low, high."""
    rows = []
    for seed, load in models.items():
        found = predict_mode(load(), images, "zero", len(images.twins), batch)
        again = effects(found, images.labels[: len(images.twins)], bootstrap=100)
        same = rank_correlation(single["effect"].to_numpy(), again["effect"].to_numpy(), bootstrap)
        rows.append((seed, same.value, same.low, same.high))
    return pd.DataFrame(rows, columns=["seed", "value", "low", "high"])


@checked_arguments()
def failure_signatures(
    model: nn.Module,
    images: Material,
    found: HeadPredictions,
    layers: pd.DataFrame,
    place: int,
) -> pd.DataFrame:
    """Signs that would make the sweep meaningless: sign, found, would be alarming.

    `found` and `layers` (its `layer_effects`) are those of one mode; `place` is that of the head of largest effect.
    """
    name = f"L{found.layers[place] + 1}H{found.heads[place] + 1}"
    changed, baseline = found.losses(images.labels).mean()
    early = layers["layer"].isin(EARLY)
    maps = attention_maps(model, images.pixels[:4]).flatten(-2).double()
    maps = maps / maps.sum(-1, keepdim=True)
    entropy = -(maps * maps.clamp_min(1e-12).log()).sum(-1).mean(0) / np.log(maps.shape[-1])
    spreads = (found.baseline.std(0) / images.labels.std(0)).tolist()
    signs = [
        (
            f"variance across images: error grows without {name} on this share of images",
            (changed[place] > baseline).mean(),
            "about 0.5",
        ),
        (
            "early layers: mean effect of layers 1-3 over that of the rest",
            layers.loc[early, "effect"].mean() / layers.loc[~early, "effect"].mean(),
            "above 1",
        ),
        (
            "uniform maps: heads whose CLS map has more than 0.98 of the largest entropy",
            (entropy > 0.98).double().mean().item(),
            "near 1",
        ),
    ]
    clustering = "clustering at the mean: spread of the predictions over that of the labels, "
    targets = [target.replace("_", " ").replace("freq", "frequency") for target in LABEL_NAMES]
    signs += [
        (clustering + target, spread, "well below 1") for target, spread in zip(targets, spreads, strict=True)
    ]
    return pd.DataFrame(signs, columns=["sign", "found", "would be alarming"])
