"""Chapter 04's sweeps, what the heads' effects add up to per layer, and how layers compare: claims C1 and C2."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.special import ndtri
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.chirps import LABEL_NAMES
from vitmech_utils.data.dataset import ChirpDataset, held_out, stack, training_figures
from vitmech_utils.heads import estimates
from vitmech_utils.heads.ablation import HeadPredictions, effects, first_order, predict_without_heads
from vitmech_utils.heads.attention import attention_maps
from vitmech_utils.heads.changes import ALL, BREAKING, baseline_loss, mean_changes
from vitmech_utils.heads.constants import HeadConstants, HeadNoise
from vitmech_utils.heads.estimates import Estimate
from vitmech_utils.heads.optimal import optimal_constants
from vitmech_utils.heads.replacements import averaged_references
from vitmech_utils.heads.sets import predict_without_sets
from vitmech_utils.heads.stopping import LEAST_IMAGES, sweep_until
from vitmech_utils.intervals import (
    effect_intervals,
    joint_interval,
    mean_intervals,
    ratio_intervals,
    ratio_of_effects,
)
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.model.scores import held_out_losses
from vitmech_utils.profile_sections import Ablation, Trainings
from vitmech_utils.statistics import Interval, effect_sizes, rank_correlation, spearman
from vitmech_utils.studies.coverage import method_for
from vitmech_utils.tasks import Loss, Task

# The study's figures, percent of the baseline's MSE (arXiv 2503.18762): layers 1-3, and layer 6.
STUDY_EARLY, STUDY_EARLY_DEVIATION = 0.11, 0.09
STUDY_LATE, STUDY_LATE_DEVIATION = 0.34, 0.02
EARLY, LATE = (0, 1, 2), (5,)
MODES = ("mean", "zero", "resample", "noise", "optimal", "qkv-weights")
# What the benchmark of intervals calls the quantities of this chapter.
EARLY_COVERED = "C1: mean effect of layers 1-3"
RATIO_COVERED = {what: f"C2: layer 6 over layers 1-3, {what}" for what in ("effect", "shift")}
LAYER_COVERED = {what: f"mean {what} of a layer" for what in ("effect", "shift")}
RANKS_COVERED = {
    what: f"rank correlation of the heads' {what}s with another mode's" for what in ("effect", "shift")
}
REACH = float(ndtri(0.975))
JOINT = 64  # images on which sets of heads are ablated together, at most


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
    """The images of the controls: those to predict, others whose outputs make up the means, and undecorated twins."""

    pixels: Float[Tensor, "image 3 height width"]
    labels: Float[Tensor, "image target"]
    reference: Float[Tensor, "other 3 height width"]
    twins: Float[Tensor, "twin 3 height width"]


@checked_arguments()
def material(images: int, twins: int) -> Material:
    """Held-out images with standardized labels (float64), 16 training images or more, and twins of the first images."""
    data = held_out(images)
    return Material(
        data["pixel_values"],
        data["labels"].double(),
        training_figures(max(16, twins))["pixel_values"],
        held_out(twins, "bare")["pixel_values"],
    )


@checked_arguments()
def shape_of(model: nn.Module) -> tuple[int, int]:
    """How many layers a model has, and heads in each; `ValueError` where the compared layers are not among them."""
    shape = find_blocks(model).shape
    if shape[0] <= max(EARLY + LATE):
        raise ValueError(
            f"this chapter compares layers 1-3 with layer {LATE[0] + 1}, but this model has {shape[0]} layers, "
            f"expected at least {LATE[0] + 1}: `vitmech study` ablates every head of a model of any depth"
        )
    return shape


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
    """The modes that are ablated exactly on more images, and those on fewer."""
    main = [mode for mode in asked if mode in ("mean", "zero", "qkv-weights")] or ["mean"]
    return main, [mode for mode in MODES if mode not in main]


@checked_arguments()
def held_out_figures(numbers: Int[ndarray, " image"], style: str = "published") -> dict[str, Tensor]:
    """The held-out figures with these numbers, as one batch."""
    return stack(ChirpDataset(int(numbers.max()) + 1, style=style, split="held-out"), numbers.tolist())


@checked_arguments()
def estimate_modes(
    model: nn.Module,
    images: int,
    exact: Mapping[str, int],
    batch: int = 32,
    reference: int = 24,
    constants: HeadConstants | None = None,
    every: Mapping[str, int] | None = None,
) -> dict[str, Estimate]:
    """Changes without each head on the first held-out images: to first order on all, exactly on some, by mode.

    Means and noise are those of `reference` training images, donors the images' undecorated twins, `constants` are for
    mode `optimal`. Modes that `every` names take the heads of one layer in so many alone, the last layer among them
    (`compared_layers`). Kept in single precision; first-order changes in bfloat16 where that is fast (`fast_dtype`),
    which the exact ones correct.
    """
    every = every or {}

    def draw(numbers: Int[ndarray, " image"]) -> tuple[Tensor, Tensor]:
        data = held_out_figures(numbers)
        return data["pixel_values"], data["labels"].double()

    found: dict[str, Estimate] = {}
    made = averaged(model, exact, reference)
    for step in dict.fromkeys(every.get(mode, 1) for mode in exact):
        few = {mode: count for mode, count in exact.items() if every.get(mode, 1) == step}
        extra: dict[str, Any] = {}
        if asked := [mode for mode in ("noise", "mean") if mode in few]:
            extra["reference"] = made[asked[0]]
        if "optimal" in few:
            extra["constants"] = constants
        if "resample" in few:
            extra["donors"] = lambda numbers: held_out_figures(numbers, "bare")["pixel_values"]
        found |= estimates.estimate_modes(
            model,
            draw,
            images,
            few,
            task=model.task,
            layers=compared_layers(find_blocks(model).every(step)) if step > 1 else None,
            exact_batch=batch,
            dtype=estimates.fast_dtype(model),
            **extra,
        )
    return {mode: found[mode].single() for mode in exact}


@checked_arguments()
def averaged(model: nn.Module, modes: Iterable[str], reference: int) -> dict[str, HeadConstants | HeadNoise]:
    """What modes `mean` and `noise`, as far as asked for, make of the first `reference` training images."""
    wanted = {"mean", "noise"} & set(modes)
    return (
        averaged_references(model, training_figures(reference)["pixel_values"], wanted, 8) if wanted else {}
    )


@checked_arguments()
def compared_layers(some: Sequence[int]) -> list[int]:
    """Some layers (0-based, in order), and one more of each group that the claims compare where they hold none."""
    missing = [group[-1] for group in (EARLY, LATE) if not set(group) & set(some)]
    return sorted({*some, *missing})


@checked_arguments()
def fitted_constants(model: nn.Module, images: int, reference: int = 24) -> HeadConstants:
    """Mode `optimal`'s constants, fitted on `images` training images after the `reference` first."""
    fit = training_figures(reference + images)
    pixels, labels = (fit[key][reference:] for key in ("pixel_values", "labels"))
    return optimal_constants(model, pixels, labels.double(), model.task, dtype=estimates.fast_dtype(model))


@checked_arguments()
def exact_images(plan: Ablation) -> dict[str, int]:
    """How many images are ablated exactly by every mode: more by the profile's own."""
    main, others = main_modes(plan.modes)
    return dict.fromkeys(main, plan.exact_images) | dict.fromkeys(others, plan.other_exact_images)


@checked_arguments()
def swept_every(plan: Ablation) -> dict[str, int]:
    """Of which layers every mode ablates the heads: of all (1) by the profile's own, of one in so many by others."""
    main, others = main_modes(plan.modes)
    return dict.fromkeys(main, 1) | dict.fromkeys(others, plan.other_sweep_every)


@checked_arguments()
def reading_limit(labels: Float[ndarray, "image target"]) -> float:
    """The squared error from which a reading counts as broken: a tenth of a guess's."""
    return BREAKING * float(((labels - labels.mean(0)) ** 2).mean())


@checked_arguments()
def sweep_table(
    found: Mapping[str, Estimate],
    held_out: Float[ndarray, "held_out target"],
    limit: float,
    draws: int = 2000,
) -> pd.DataFrame:
    """One row per mode and head: `changes.effect_table` of the mean over targets, and the effect on each target.

    The effect's bounds are called low and high, those of a target effect_T, low_T and high_T.
    """
    parts = []
    for one in found.values():
        table = one.table(held_out, limit, draws=draws)
        whole = table[table["target"] == ALL].drop(columns="target").reset_index(drop=True)
        whole = whole.rename(columns={"low_effect": "low", "high_effect": "high"})
        for target in one.cheap.targets:
            part = table[table["target"] == target].reset_index(drop=True)
            for name, column in (("effect", "effect"), ("low", "low_effect"), ("high", "high_effect")):
                whole[f"{name}_{target}"] = part[column]
        parts.append(whole)
    return pd.concat(parts, ignore_index=True)


@checked_arguments()
def by_mode(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """A table's rows of each mode, numbered from 0."""
    return {mode: part.reset_index(drop=True) for mode, part in table.groupby("mode", sort=False)}


@checked_arguments()
def layer_means(found: Mapping[str, Estimate], held_out: Float[ndarray, "held_out target"]) -> pd.DataFrame:
    """The mean change of each layer's heads, ablated one at a time, in percent of the held-out loss.

    Returns mode, layer (0-based), effect with low and high, shift with low_shift and high_shift, deviation (of the
    effects over heads) and largest (the head of largest effect, 0-based).
    """
    whole, parts = baseline_loss(held_out), []
    for mode, one in found.items():
        layers = np.array([next(iter(heads))[0] for heads in one.cheap.sets])
        numbers = np.unique(layers)
        single = one.values("effect").mean(1) * 100 / whole.value
        columns: dict[str, Any] = {"layer": numbers, "mode": mode}
        for what, ends in (("effect", ""), ("shift", "_shift")):
            values = one.values(what)
            rows = np.stack([values[layers == layer].mean(0) for layer in numbers])
            how = method_for(LAYER_COVERED[what], one.images)
            columns[what], columns[f"low{ends}"], columns[f"high{ends}"] = mean_changes(
                rows, whole, method=how
            )
        columns["deviation"] = [
            single[layers == layer].std(ddof=1) if (layers == layer).sum() > 1 else 0.0 for layer in numbers
        ]
        columns["largest"] = [int(single[layers == layer].argmax()) for layer in numbers]
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


@checked_arguments()
def layer_comparison(
    found: Mapping[str, Estimate], held_out: Float[ndarray, "held_out target"]
) -> pd.DataFrame:
    """Heads of layers 1-3 against those of layer 6, ablated one at a time: mode, quantity, value, low, high, images.

    Quantities: `early`, `late` (percent of the held-out loss) and their `ratio`, by effect; `early_shift`,
    `late_shift`, `ratio_shift` by shift.
    """
    whole, rows = baseline_loss(held_out), []
    for mode, one in found.items():
        layers = np.array([next(iter(heads))[0] for heads in one.cheap.sets])
        for what, ends in (("effect", ""), ("shift", "_shift")):
            values = one.values(what)
            early, late = (values[np.isin(layers, group)].mean(0) for group in (EARLY, LATE))
            how = method_for(EARLY_COVERED if what == "effect" else LAYER_COVERED[what], one.images)
            means = zip(*mean_changes(np.stack([early, late]), whole, method=how), strict=True)
            low, high = ratio_intervals(late[None], early, method_for(RATIO_COVERED[what], one.images))
            ratio = late.mean() / early.mean(), float(low[0]), float(high[0])
            for name, numbers in zip(("early", "late", "ratio"), (*means, ratio), strict=True):
                rows.append((mode, f"{name}{ends}", *map(float, numbers), one.images, one.exact.images))
    return pd.DataFrame(rows, columns=["mode", "quantity", "value", "low", "high", "images", "exact_images"])


@checked_arguments()
def intervals(comparison: pd.DataFrame) -> dict[str, dict[str, Interval]]:
    """The intervals that `layer_comparison` tabulates, by mode and quantity."""
    found: dict[str, dict[str, Interval]] = {}
    for row in comparison.itertuples():
        found.setdefault(row.mode, {})[row.quantity] = Interval(row.value, row.low, row.high)
    return found


@checked_arguments()
def mode_agreement(found: Mapping[str, Estimate], draws: int = 2000) -> pd.DataFrame:
    """How alike two modes order the heads that both ablate, by effect and by shift, on the images that both have.

    Returns first, second, quantity, correlation (Spearman's, over heads), low, high (the images drawn anew, the same
    for both modes) and images.
    """
    rows = []
    for (first, one), (second, other) in itertools.combinations(found.items(), 2):
        count = min(one.images, other.images)
        both = [
            [place for place, heads in enumerate(each.cheap.sets) if heads in among.cheap.sets]
            for each, among in ((one, other), (other, one))
        ]
        for what in ("effect", "shift"):
            values = np.concatenate(
                [each.values(what)[rows, :count] for each, rows in zip((one, other), both, strict=True)]
            )
            heads = len(values) // 2
            same = joint_interval(
                values,
                lambda means, heads=heads: spearman(means[:, :heads], means[:, heads:]),
                method_for(RANKS_COVERED[what], count),
                draws=draws,
            )
            rows.append((first, second, what, same.value, same.low, same.high, count))
    columns = ["first", "second", "quantity", "correlation", "low", "high", "images"]
    return pd.DataFrame(rows, columns=columns)


@checked_arguments()
def approximations(
    model: nn.Module,
    found: Mapping[str, Estimate],
    held_out: Float[ndarray, "held_out target"],
    reference: int = 24,
    constants: HeadConstants | None = None,
) -> pd.DataFrame:
    """Three measures of the same heads on the same images, those that every mode ablated exactly.

    Modes are made as in `estimate_modes`.

    Returns mode, layer, head (0-based), images, exact, linearized and slope (the mean growth of the loss, exact, from
    linearized outputs, and by the slope of the loss itself, in percent of the held-out loss), and by_image, the
    correlation over images of exact and linearized growth.
    """
    parts, percent = [], 100 / baseline_loss(held_out).value
    given = averaged(model, found, reference) | ({"optimal": constants} if "optimal" in found else {})
    for mode, one in found.items():
        cheap, exact = one.pair()
        chosen = one.selection.images
        data = held_out_figures(chosen)
        extra: dict[str, Any] = {"reference": given[mode]} if mode in given else {}
        if mode == "resample":
            extra["donors"] = held_out_figures(chosen, "bare")["pixel_values"]
        slope = first_order(
            model, data["pixel_values"], data["labels"].double(), mode, batch=8, bootstrap=100, **extra
        )
        cheap = cheap[:, chosen]
        own = float(one.exact.baseline.mean())
        layers, heads = zip(*(next(iter(heads)) for heads in one.cheap.sets), strict=True)
        slope = slope.set_index(["layer", "head"])["effect"].loc[list(zip(layers, heads, strict=True))]
        with np.errstate(invalid="ignore"):
            by_image = [
                np.corrcoef(a, b)[0, 1] if a.std() and b.std() else np.nan
                for a, b in zip(cheap, exact, strict=True)
            ]
        parts.append(
            pd.DataFrame(
                {
                    "mode": mode, "layer": layers, "head": heads, "images": len(chosen),
                    "exact": exact.mean(1) * percent, "linearized": cheap.mean(1) * percent,
                    "slope": slope.to_numpy() / 100 * own * percent, "by_image": by_image,
                }
            )
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


@checked_arguments()
def approximation_ranks(table: pd.DataFrame, draws: int = 2000) -> pd.DataFrame:
    """How well linearized outputs and the loss's slope order the heads: mode, measure, correlation, low, high, images.

    Spearman's correlation with the exact effects; the heads are drawn anew.
    """
    rows = []
    for mode, part in by_mode(table).items():
        for measure in ("linearized", "slope"):
            found = rank_correlation(part["exact"].to_numpy(), part[measure].to_numpy(), draws)
            rows.append((mode, measure, *vars(found).values(), int(part["images"].iloc[0])))
    return pd.DataFrame(rows, columns=["mode", "measure", "correlation", "low", "high", "images"])


@checked_arguments()
def hook_seconds(model: nn.Module, images: Material, batch: int = 32) -> float:
    """Processor seconds an image for exact ablation of every head by plain hooks, a full pass each.

    Timed on one head of each layer: a full pass takes as long whichever head is muted.
    """
    pixels, heads = images.pixels[:1], find_blocks(model).heads
    predict_without_heads(model, pixels, "zero", layers=[0], heads=[0], batch=batch, replay=False)  # warm
    began = time.process_time()
    predict_without_heads(model, pixels, "zero", heads=[heads - 1], batch=batch, replay=False)
    return heads * (time.process_time() - began)


@checked_arguments()
def precision_and_cost(
    found: Mapping[str, Estimate], held_out: Float[ndarray, "held_out target"], hooks: float
) -> pd.DataFrame:
    """What an interval costs: exact images alone against linearized ones that exact images correct.

    `hooks` are the `hook_seconds` of one image. Returns one row per mode: images, exact_images, cheap_seconds,
    exact_seconds and hook_seconds (processor seconds an image: linearized, exact by replay, exact by plain hooks),
    seconds (of the whole estimate), half_width (percent of the held-out loss, of the median head), half_width_exact and
    half_width_hooks (what as many processor seconds buy with exact images alone, by replay and by hooks), widest and
    widest_exact (of the widest head), and cheaper and cheaper_hooks (how many times as long exact images alone take for
    the median head's interval).
    """
    percent, rows = 100 / float(held_out.mean()), []
    for mode, one in found.items():
        exact = one.pair()[1]
        chosen, probability = one.selection.images, one.selection.probability
        weight = 1 / probability[chosen]
        weight = weight / weight.sum()
        spread = ((exact - (exact @ weight)[:, None]) ** 2) @ weight
        per_cheap, per_exact = one.cheap_seconds / one.images, one.exact_seconds / len(chosen)
        seconds = one.cheap_seconds + one.exact_seconds
        low, high = mean_intervals(
            one.values(), "t"
        )  # Student's on both sides: what is compared is the spread
        ours = (high - low) / 2 * percent
        alone = (
            REACH * np.sqrt(spread / max(seconds / per_exact, 1)) * percent if per_exact else np.nan * ours
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            cheaper = float(np.nanmedian((alone / ours) ** 2))
            slower = hooks / per_exact if per_exact else np.nan
        rows.append(
            {
                "mode": mode, "images": one.images, "exact_images": len(chosen), "cheap_seconds": per_cheap,
                "exact_seconds": per_exact, "hook_seconds": hooks, "seconds": seconds,
                "half_width": float(np.median(ours)), "half_width_exact": float(np.median(alone)),
                "half_width_hooks": float(np.median(alone) * np.sqrt(slower)), "widest": float(ours.max()),
                "widest_exact": float(alone.max()), "cheaper": cheaper, "cheaper_hooks": cheaper * slower,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


@checked_arguments()
def heads_of(rows: pd.DataFrame) -> list[tuple[int, int]]:
    """Pairs of layer and head, 0-based, of a table's rows."""
    return list(zip(rows["layer"].tolist(), rows["head"].tolist(), strict=True))


@checked_arguments()
def joint_effects(
    model: nn.Module,
    images: Material,
    sets: Mapping[str, pd.DataFrame],
    held_out: Float[ndarray, "held_out target"],
    batch: int = 32,
) -> pd.DataFrame:
    """Zero sets of heads together, on the first images: set, images, effect with low and high, sum_of_single.

    Effects are in percent of the held-out loss. Each set is named and holds rows of a table of single effects (layer,
    head, effect).
    """
    few = min(len(images.pixels), JOINT)
    found = predict_without_sets(
        model, images.pixels[:few], [heads_of(rows) for rows in sets.values()], "zero", batch=batch
    )
    effect, low, high = mean_changes(found.losses(images.labels[:few]).of(), baseline_loss(held_out))
    return pd.DataFrame(
        {
            "set": list(sets),
            "images": few,
            "effect": effect,
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
    model: ChirpRegressor, images: Material, count: int, layers: Sequence[int], batch: int = 32
) -> pd.DataFrame:
    """The effects of zero ablation in a model's untrained twin, on the first images, in some layers (0-based)."""
    found = predict_without_heads(
        model.untrained_twin(), images.pixels[:count], "zero", layers=layers, batch=batch
    )
    return effects(found, images.labels[:count])


@checked_arguments()
def estimate_again(
    models: Mapping[str, Callable[[], nn.Module]], plan: Trainings, batch: int = 32, reference: int = 24
) -> dict[str, dict[str, Estimate]]:
    """The changes without each head in further trainings, by training and mode, on the same first held-out images."""
    exact = dict.fromkeys(plan.modes, plan.exact_images)
    return {
        name: estimate_modes(load(), plan.images, exact, batch, reference) for name, load in models.items()
    }


@checked_arguments()
def sweep_again(
    found: Mapping[str, Estimate], reading: Mapping[str, Float[ndarray, "held_out target"]], draws: int = 2000
) -> pd.DataFrame:
    """The `sweep_table` of another training, by its own loss: `reading` holds its `predictions` and the `labels`."""
    return sweep_table(found, held_out_losses(reading), reading_limit(reading["labels"]), draws)


@checked_arguments()
def values_of(found: Mapping[str, Mapping[str, Estimate]], mode: str) -> dict[str, dict[str, Any]]:
    """By training and quantity (effect, shift) one value per head and image, of one mode."""
    return {
        name: {what: one[mode].values(what) for what in ("effect", "shift")} for name, one in found.items()
    }


@checked_arguments()
def stopping(
    model: nn.Module,
    half_width: float,
    most: int,
    held_out: Float[ndarray, "held_out target"],
    size: int = 8,
) -> pd.DataFrame:
    """The history of a zero-ablation sweep of the last layer that stops where its widest interval is narrow enough.

    Widths are in percent of the held-out loss.
    """
    most = max(LEAST_IMAGES, most)
    stream = ChirpDataset(most, seed=1, split="held-out")
    parts = (stack(stream, range(start, min(start + size, most))) for start in range(0, most, size))
    batches = ((part["pixel_values"], part["labels"].double()) for part in parts)
    last = find_blocks(model).layers - 1
    return sweep_until(
        model, batches, half_width=half_width, mode="zero", held_out=held_out, layers=[last], most=most
    )[1]


@checked_arguments()
def predicted_without(
    model: nn.Module, images: Material, head: tuple[int, int], mode: str
) -> dict[str, Tensor]:
    """Standardized predictions of the controls' images with all heads (`baseline`) and `without` one, and `labels`."""
    extra = {"reference": images.reference} if mode == "mean" else {}
    layer, number = head
    found = predict_without_heads(model, images.pixels, mode, layers=[layer], heads=[number], **extra)
    return {"baseline": found.baseline, "without": found.ablated[0], "labels": images.labels}


@checked_arguments()
def failure_signatures(
    model: nn.Module,
    images: Material,
    found: Estimate,
    layers: pd.DataFrame,
    place: int,
    reading: Mapping[str, Float[ndarray, "held_out target"]],
) -> pd.DataFrame:
    """Signs that would make the sweep meaningless: sign, found, would be alarming.

    `found` and `layers` (its `layer_means`) are those of one mode; `place` is that of the head of largest effect;
    `reading` holds the `predictions` and `labels` of the held-out set.
    """
    layer, head = next(iter(found.cheap.sets[place]))
    early = layers["layer"].isin(EARLY)
    maps = attention_maps(model, images.pixels[:4]).flatten(-2).double()
    maps = maps / maps.sum(-1, keepdim=True)
    entropy = -(maps * maps.clamp_min(1e-12).log()).sum(-1).mean(0) / np.log(maps.shape[-1])
    spreads = (reading["predictions"].std(0) / reading["labels"].std(0)).tolist()
    signs = [
        (
            f"variance across images: error grows without L{layer + 1}H{head + 1} on this share of images",
            (found.pair()[0][place] > 0).mean(),
            "about 0.5",
        ),
        (
            "early layers: mean shift of layers 1-3 over that of the rest",
            layers.loc[early, "shift"].mean() / layers.loc[~early, "shift"].mean(),
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
