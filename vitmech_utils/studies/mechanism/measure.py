"""How one head reads a chirp: which head, who reads it, what it asks and writes, and an account of it put to the test.

Heads are pairs of layer and head, both 0-based; places are in seconds and hertz, on the axes of the plot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.chirps import DURATION, LABEL_NAMES, LABEL_STD, MAX_FREQUENCY
from vitmech_utils.data.dataset import REGIONS, ChirpDataset, stack
from vitmech_utils.heads.attention import patch_coverage, unit_scale
from vitmech_utils.heads.changes import baseline_loss, mean_changes
from vitmech_utils.heads.constants import HeadConstants
from vitmech_utils.heads.estimates import fast_dtype
from vitmech_utils.heads.hooks import Head, change_heads
from vitmech_utils.heads.linearized import predict_linearized
from vitmech_utils.heads.one_head import (
    HeadReading,
    Pointed,
    head_gradients,
    logit_shares,
    point_heads,
    value_writes,
)
from vitmech_utils.heads.paths import MLP, READOUT, PathPredictions, paths_from, paths_into
from vitmech_utils.heads.probes import explained_variance, ridge_probe, token_states
from vitmech_utils.heads.replacements import averaged_references, evaluating
from vitmech_utils.heads.replay import predict
from vitmech_utils.heads.sets import predict_without_sets
from vitmech_utils.intervals import joint_interval, ratio_intervals
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.profile_sections import Mechanism
from vitmech_utils.profiles import Profile
from vitmech_utils.statistics import Interval, effect_sizes

SEED = 2700
"""The chapter's own stream of held-out figures; the first look that shaped the account was at another stream."""
CANDIDATES = 4
"""How many heads, the first by linearized effect, are ablated exactly before the strongest is named."""
BACKGROUND_PATCHES = 8
"""Patches of each image without any chirp whose values are looked at, too."""
ON_CHIRP = 0.05  # part of a patch that the chirp covers, from which on the patch shows it
IN_PLOT = 0.5  # part of a patch that lies in the plot, from which on it is background and no decoration
PLACES = ("seconds", "hertz")
PLACE_OF = dict(zip(LABEL_NAMES, ("seconds", "hertz", "hertz"), strict=True))
"""Which coordinate of a place each target should follow."""
KINDS = ("CLS", "chirp", "background", "decorations")
STRONGEST, CONTROL = "strongest", "control"


@dataclass(frozen=True)
class Parts:
    """Three sets of held-out images: to choose a head by, to fit the account on, and to judge it by."""

    choice: Mapping[str, Tensor]
    fit: Mapping[str, Tensor]
    test: Mapping[str, Tensor]


@checked_arguments()
def held_out_parts(plan: Mechanism) -> Parts:
    """The images of this chapter, none of them in two parts."""
    counts = plan.choice_images, plan.images, plan.images
    figures = ChirpDataset(sum(counts), seed=SEED, style="published", split="held-out")
    every = stack(figures, len(figures))
    stops = np.cumsum(counts)
    return Parts(
        *(
            {name: every[name][stop - count : stop] for name in every}
            for stop, count in zip(stops, counts, strict=True)
        )
    )


@checked_arguments()
def seeds_of(profile: Profile) -> list[int]:
    """Which trainings are asked: this profile's first one, then the further ones."""
    first = profile.seeds[0]
    return [first, *(seed for seed in profile.mechanism.further if seed != first)]


# Where patches are, and what they show


@checked_arguments()
def patch_places(regions: Tensor, patch: int) -> Float[Tensor, "patch place"]:
    """The time (seconds) and frequency (hertz) at the middle of each patch, by the plot's axes, also outside of it.

    The plot is where the region maps [image, row, column] show background or chirp in any image. Raises `ValueError`
    where none does.
    """
    inside = ((regions == REGIONS.index("plot background")) | (regions == REGIONS.index("chirp"))).any(0)
    if not inside.any():
        raise ValueError("the region maps show no plot, expected background or chirp in at least one image")
    rows, columns = (inside.any(axis).nonzero().flatten() for axis in (1, 0))
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    middle = [(torch.arange(side // patch, dtype=torch.float64) + 0.5) * patch for side in regions.shape[-2:]]
    hertz = (bottom - middle[0]) / (bottom - top) * MAX_FREQUENCY
    seconds = (middle[1] - left) / (right - left) * DURATION
    return torch.stack([part.flatten() for part in torch.meshgrid(hertz, seconds, indexing="ij")][::-1], 1)


@checked_arguments()
def patch_kinds(regions: Tensor, patch: int) -> dict[str, Bool[Tensor, "image patch"]]:
    """What each patch shows: the chirp, background (in the plot, none of the chirp), or decorations and margin."""
    cover = patch_coverage(regions, patch, len(REGIONS)).flatten(2)
    chirp = cover[:, REGIONS.index("chirp")]
    in_plot = chirp + cover[:, REGIONS.index("plot background")]
    on_chirp = chirp >= ON_CHIRP
    return {
        "chirp": on_chirp,
        "background": (chirp == 0) & (in_plot > IN_PLOT),
        "decorations": ~on_chirp & (in_plot <= IN_PLOT),
    }


@checked_arguments()
def attended(reading: HeadReading, places: Tensor) -> Float[Tensor, "image place"]:
    """Where a head looks, all queries alike: the mean place of its attention on patches, in seconds and hertz."""
    prefix = reading.key.shape[1] - len(places)
    return reading.mean_weights(prefix).double() @ places


# Which head


@checked_arguments()
def strongest_head(
    model: nn.Module,
    images: Mapping[str, Tensor],
    reference: Float[Tensor, "other 3 height width"] | HeadConstants,
    whole: Float[ndarray, "held_out target"],
    batch: int,
) -> pd.DataFrame:
    """The leading heads by linearized effect, ablated exactly: the largest exact effect is the strongest head's.

    One row per candidate, strongest first, and one for the control: of the other heads of the strongest's layer, the
    one with the middle linearized effect. Columns: role (strongest, candidate, control), layer, head, effect, low,
    high (percent of the mean of `whole`, the losses on the held-out set; mean ablation over `reference`, exact) and
    linearized (percent of these images' loss).
    """
    pixels, labels = images["pixel_values"], images["labels"]
    means = averaged_references(model, reference, ["mean"], batch)["mean"]
    how = {"reference": means, "batch": batch}
    linear = predict_linearized(model, pixels, "mean", dtype=fast_dtype(model), **how).losses(labels)
    without, baseline = linear.mean()
    ranked = pd.DataFrame(
        {"layer": linear.layers, "head": linear.heads, "linearized": effect_sizes(without, baseline)}
    ).sort_values("linearized", ascending=False)

    def exactly(chosen: pd.DataFrame) -> pd.DataFrame:
        sets = [[head] for head in zip(chosen["layer"], chosen["head"], strict=True)]
        predicted = predict_without_sets(model, pixels, sets, "mean", **how)
        losses = predicted.losses(labels)
        value, low, high = mean_changes(losses.of(), baseline_loss(whole))
        return chosen.assign(effect=value, low=low, high=high)

    found = exactly(ranked.head(CANDIDATES)).sort_values("effect", ascending=False, ignore_index=True)
    strongest = found.iloc[0]
    others = ranked[(ranked["layer"] == strongest["layer"]) & (ranked["head"] != strongest["head"])]
    control = exactly(others.iloc[[len(others) // 2]])
    roles = [STRONGEST, *["candidate"] * (len(found) - 1), CONTROL]
    return pd.concat([found, control], ignore_index=True).assign(role=roles, images=len(pixels))


@checked_arguments()
def head_of(table: pd.DataFrame, role: str = STRONGEST) -> Head:
    """The head of a role in the table of `strongest_head`."""
    row = table[table["role"] == role].iloc[0]
    return int(row["layer"]), int(row["head"])


# Who reads it


@checked_arguments()
def effects_by_reader(
    model: nn.Module,
    head: Head,
    images: Mapping[str, Tensor],
    reference: Float[Tensor, "other 3 height width"] | HeadConstants,
    kinds: Mapping[str, Tensor],
    whole: Float[ndarray, "held_out target"],
    batch: int,
) -> pd.DataFrame:
    """What ablating the head costs if only some tokens receive its mean: CLS, chirp, background, decorations, or all.

    A head writes to every token. Returns where, effect, low, high (percent of the mean of `whole`, the losses on the
    held-out set) and `tokens`, how many on average.
    """
    pixels, labels = images["pixel_values"], images["labels"]
    prefix = find_blocks(model).prefix
    patches = kinds["chirp"].shape[1]
    masks = {"CLS": torch.zeros(len(pixels), prefix + patches, dtype=torch.bool)}
    masks["CLS"][:, 0] = True
    for name, kind in kinds.items():
        masks[name] = torch.cat([torch.zeros(len(pixels), prefix, dtype=torch.bool), kind], 1)
    masks["all tokens"] = torch.ones_like(masks["CLS"])
    means = averaged_references(model, reference, ["mean"], batch)["mean"].like(model)
    mean = means[head[0]][:, :, head[1]]
    weight = next(model.parameters())
    changed: dict[str, list[Tensor]] = {name: [] for name in masks}
    baseline = []
    with evaluating(model), torch.inference_mode():
        for start in range(0, len(pixels), batch):
            place = slice(start, start + batch)
            part = pixels[place].to(weight)
            baseline.append(predict(model, part).cpu())
            for name, mask in masks.items():
                here = mask[place, :, None].to(weight.device)
                with change_heads(model, {head: lambda own, here=here: torch.where(here, mean, own)}):
                    changed[name].append(predict(model, part).cpu())
    own = ((torch.cat(baseline) - labels) ** 2).mean(1).double().numpy()
    losses = np.stack(
        [((torch.cat(part) - labels) ** 2).mean(1).double().numpy() for part in changed.values()]
    )
    value, low, high = mean_changes(losses - own, baseline_loss(whole))
    return pd.DataFrame(
        {
            "where": list(masks), "tokens": [float(mask.sum(1).float().mean()) for mask in masks.values()],
            "effect": value, "low": low, "high": high, "images": len(pixels),
        }
    )  # fmt: skip


# What queries ask and keys answer


@checked_arguments()
def attention_by_kind(reading: HeadReading, kinds: Mapping[str, Tensor]) -> pd.DataFrame:
    """Attention from queries of each kind to keys of each kind: query, key, share.

    Patches on the chirp's rim are of no kind, so a query's shares sum to nearly 1.
    """
    weights = reading.weights.double()
    prefix = weights.shape[1] - kinds["chirp"].shape[1]
    ends = {"CLS": torch.zeros(weights.shape[:2], dtype=torch.bool)}
    ends["CLS"][:, :prefix] = True
    for name, kind in kinds.items():
        ends[name] = torch.cat([torch.zeros(len(kind), prefix, dtype=torch.bool), kind], 1)
    rows = []
    for query, asks in ends.items():
        mean = weights[asks]  # [query, token]
        for key, answers in ends.items():
            of_query = answers.double()[:, None].expand_as(weights)[asks]
            share = float((mean * of_query).sum(1).mean()) if len(mean) else float("nan")
            rows.append({"query": query, "key": key, "share": share})
    return pd.DataFrame(rows)


@checked_arguments()
def logit_parts(reading: HeadReading, reference: HeadReading, prefix: int, seed: int) -> pd.DataFrame:
    """What the logits over the patches are made of, and the same with places shuffled. Columns: part, share, shuffled.

    The mean query and key of each place are those of other images; the patches follow `prefix` other tokens.
    """
    tokens = slice(prefix, None)
    own = logit_shares(reading, reference, tokens)
    control = logit_shares(reading, reference, tokens, np.random.default_rng([SEED, seed]))
    return pd.DataFrame({"part": list(own), "share": own.values(), "shuffled": control.values()})


# What values write


@checked_arguments()
def patch_writes(
    model: nn.Module,
    head: Head,
    images: Mapping[str, Tensor],
    reading: HeadReading,
    places: Tensor,
    kinds: Mapping[str, Tensor],
    batch: int,
    seed: int,
) -> pd.DataFrame:
    """What a unit of attention on a patch writes onto the answer, against what the head writes now, to first order.

    Every patch that shows the chirp, and `BACKGROUND_PATCHES` of each image that do not. Columns: image, kind, patch,
    seconds and hertz of the patch relative to where the head looks, and per target the write in its unit.
    """
    gradients = head_gradients(model, images["pixel_values"], head, batch)
    writes = value_writes(reading, gradients).double() * torch.from_numpy(LABEL_STD)
    prefix = writes.shape[1] - len(places)
    now = torch.einsum("ij,ijt->it", reading.weights.mean(1).double(), writes)
    writes = writes[:, prefix:] - now[:, None]
    away = places[None] - attended(reading, places)[:, None]
    rng = np.random.default_rng([SEED, seed, 1])
    parts = []
    for image in range(len(writes)):
        for kind, count in (("chirp", None), ("background", BACKGROUND_PATCHES)):
            chosen = kinds[kind][image].nonzero().flatten().numpy()
            if count is not None:
                chosen = rng.choice(chosen, min(count, len(chosen)), replace=False)
            parts.append(
                pd.DataFrame(
                    {
                        "image": image, "kind": kind, "patch": chosen,
                        **{name: away[image, chosen, place].numpy() for place, name in enumerate(PLACES)},
                        **{name: writes[image, chosen, target].numpy() for target, name in enumerate(LABEL_NAMES)},
                    }
                )
            )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


# The account: the answer follows the place that the head looks at


@checked_arguments()
def pointed_at(images: Mapping[str, Tensor], places: Tensor, seed: int) -> Int[Tensor, " image"]:
    """A patch of each image without chirp, drawn at random."""
    side = images["regions"].shape[-1] // round(len(places) ** 0.5)
    background = patch_kinds(images["regions"], side)["background"]
    rng = np.random.default_rng([SEED, seed, 2])
    return torch.tensor([int(rng.choice(row.nonzero().flatten().numpy())) for row in background])


@checked_arguments()
def pointing(
    pointed: Pointed, chosen: Int[Tensor, " image"], images: Mapping[str, Tensor], places: Tensor
) -> pd.DataFrame:
    """Where the answer goes when a head is pointed, with all its queries, at the patches `chosen` (`pointed_at`).

    One row per image: patch, seconds and hertz from where the head looked to where it is pointed, its attended place,
    the true place (start time, mean of start and end frequency), and per target the shift of the answer in its unit.
    """
    reading, answer = pointed.reading, pointed.predictions
    shift = (answer - reading.predictions).double().numpy() * LABEL_STD
    looked = attended(reading, places)
    away = (places[chosen] - looked).numpy()
    truth = images["labels"].double().numpy() * LABEL_STD
    return pd.DataFrame(
        {
            "patch": chosen.numpy(),
            **{name: away[:, place] for place, name in enumerate(PLACES)},
            **{f"attended_{name}": looked[:, place].numpy() for place, name in enumerate(PLACES)},
            **{f"shift_{name}": shift[:, target] for target, name in enumerate(LABEL_NAMES)},
            **{f"label_{name}": truth[:, target] for target, name in enumerate(LABEL_NAMES)},
        }
    )


@checked_arguments()
def fit_account(table: pd.DataFrame) -> Float[ndarray, "term target"]:
    """Least squares of the shifts on how far the head was moved: rows for seconds, hertz and a constant."""
    design = np.c_[table[list(PLACES)].to_numpy(), np.ones(len(table))]
    shifts = table[[f"shift_{name}" for name in LABEL_NAMES]].to_numpy()
    return np.linalg.lstsq(design, shifts, rcond=None)[0]


@checked_arguments()
def predict_shifts(
    account: Float[ndarray, "term target"], table: pd.DataFrame
) -> Float[ndarray, "image target"]:
    """The shifts that the account predicts of other images, in the targets' units."""
    return np.c_[table[list(PLACES)].to_numpy(), np.ones(len(table))] @ account


@checked_arguments()
def judge_account(
    account: Float[ndarray, "term target"], table: pd.DataFrame, bootstrap: int
) -> pd.DataFrame:
    """How well the account predicts the shifts of images that it was not fitted on.

    One row per target: correlation of predicted and measured shift (low, high), and `slope` (low_slope, high_slope),
    the shift of the answer per second or hertz that the head was moved along the target's own axis, fitted anew on
    these images; intervals are a bootstrap over images. `moved` is the standard deviation of the measured shift, in the
    target's unit.
    """
    predicted = predict_shifts(account, table)
    away = table[list(PLACES)].to_numpy()
    rows = []
    for target, name in enumerate(LABEL_NAMES):
        shift = table[f"shift_{name}"].to_numpy()
        found = correlation_interval(predicted[:, target], shift, bootstrap)
        own = PLACES.index(PLACE_OF[name])
        slope = slope_interval(away[:, own], away[:, 1 - own], shift, bootstrap)
        rows.append(
            {
                "target": name, "correlation": found.value, "low": found.low, "high": found.high,
                "slope": slope.value, "low_slope": slope.low, "high_slope": slope.high,
                "moved": float(shift.std()), "images": len(table),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


@checked_arguments(finite=("along", "across", "shift"))
def slope_interval(
    along: Float[ndarray, " image"],
    across: Float[ndarray, " image"],
    shift: Float[ndarray, " image"],
    bootstrap: int,
) -> Interval:
    """Least squares slope of `shift` on `along`, `across` held fixed, with a bootstrap interval over images."""

    def statistic(means: Float[ndarray, "draw row"]) -> Float[ndarray, " draw"]:
        a, b, s, aa, bb, ab, sa, sb = means.T
        aa, bb, ab, sa, sb = aa - a * a, bb - b * b, ab - a * b, sa - s * a, sb - s * b
        with np.errstate(invalid="ignore", divide="ignore"):
            return (sa * bb - sb * ab) / (aa * bb - ab * ab)

    a, b, s = (values - values.mean() for values in (along, across, shift))
    return joint_interval(np.stack([a, b, s, a * a, b * b, a * b, s * a, s * b]), statistic, draws=bootstrap)


@checked_arguments()
def follows_truth(table: pd.DataFrame, bootstrap: int) -> pd.DataFrame:
    """How well the place that a head looks at tells each label. Columns: target, correlation, low, high, images."""
    rows = []
    for name in LABEL_NAMES:
        looked, truth = table[f"attended_{PLACE_OF[name]}"], table[f"label_{name}"]
        found = correlation_interval(looked.to_numpy(), truth.to_numpy(), bootstrap)
        rows.append(
            {
                "target": name,
                "correlation": found.value,
                "low": found.low,
                "high": found.high,
                "images": len(table),
            }
        )
    return pd.DataFrame(rows)


@checked_arguments(finite=("first", "second"))
def correlation_interval(
    first: Float[ndarray, " image"], second: Float[ndarray, " image"], bootstrap: int
) -> Interval:
    """Pearson's correlation with a percentile bootstrap interval over images."""

    def statistic(means: Float[ndarray, "draw row"]) -> Float[ndarray, " draw"]:
        x, y, xy, xx, yy = means.T
        with np.errstate(invalid="ignore", divide="ignore"):
            return (xy - x * y) / np.sqrt((xx - x * x) * (yy - y * y))

    first, second = first - first.mean(), second - second.mean()
    rows = np.stack([first, second, first * second, first**2, second**2])
    return joint_interval(rows, statistic, draws=bootstrap)


# What is readable where, and the head's paths


@checked_arguments()
def probes(model: nn.Module, images: int, batch: int, bootstrap: int) -> pd.DataFrame:
    """How well a ridge probe reads each label, after each layer, from CLS and from the mean over patches.

    Fitted on half of the images and judged on the others. Columns: where, depth (0 before the first layer), target, r2,
    low, high (bootstrap over the judged images), shuffled (r2 of a probe fitted on shuffled labels) and images.
    """
    figures = ChirpDataset(2 * images, seed=SEED + 1, style="published", split="held-out")
    every = stack(figures, len(figures))
    labels = every["labels"].double().numpy()
    fit, test = slice(0, images), slice(images, None)
    shuffled = labels[fit][np.random.default_rng([SEED, images]).permutation(images)]
    rows = []
    for where, states in token_states(model, every["pixel_values"], batch).items():
        for depth in range(states.shape[1]):
            known = states[:, depth].double().numpy()
            predicted = ridge_probe(known[fit], labels[fit], known[test])
            control = explained_variance(labels[test], ridge_probe(known[fit], shuffled, known[test]))
            for target, name in enumerate(LABEL_NAMES):
                found = _r2_interval(labels[test, target], predicted[:, target], bootstrap)
                rows.append(
                    {
                        "where": where, "depth": depth, "target": name, "r2": found.value, "low": found.low,
                        "high": found.high, "shuffled": control[target], "images": images,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


@checked_arguments()
def paths(
    model: nn.Module, head: Head, images: Mapping[str, Tensor], reference: Tensor, batch: int
) -> pd.DataFrame:
    """What part of the head's whole effect on the answer each path carries, from earlier parts or to later ones.

    The share of a path is its shift of the answer projected on that of ablating the whole head, over all targets; for
    parts that neither add to each other's effect nor cancel it, shares sum to 1. Columns: direction (into, from), part,
    layer, head (`paths.MLP` for an MLP), share, low, high, images.
    """
    pixels = images["pixel_values"]
    found: dict[str, Callable[..., PathPredictions]] = {"into": paths_into, "from": paths_from}
    tables = []
    for direction, trace in found.items():
        traced = trace(model, pixels, head, reference, batch)
        if not traced.parts:
            continue
        whole = (traced.whole - traced.baseline).numpy()
        shifts = (traced.changed - traced.baseline).numpy()
        above, below = (shifts * whole).sum(2), (whole**2).sum(1)
        low, high = ratio_intervals(above, below)
        tables.append(
            pd.DataFrame(
                {
                    "direction": direction, "part": [part_name(part) for part in traced.parts],
                    "layer": [part[0] for part in traced.parts], "head": [part[1] for part in traced.parts],
                    "share": above.mean(1) / below.mean(), "low": low, "high": high, "images": len(pixels),
                }
            )
        )  # fmt: skip
    return pd.concat(tables, ignore_index=True)


@checked_arguments()
def part_name(part: Head) -> str:
    """A part of the model in words, counted from 1."""
    if part == READOUT:
        return "straight to the readout"
    return f"MLP {part[0] + 1}" if part[1] == MLP else f"layer {part[0] + 1}, head {part[1] + 1}"


def _r2_interval(truth: ndarray, predicted: ndarray, bootstrap: int) -> Interval:
    def statistic(means: Float[ndarray, "draw row"]) -> Float[ndarray, " draw"]:
        error, mean, square = means.T
        with np.errstate(invalid="ignore", divide="ignore"):
            return 1 - error / (square - mean**2)

    return joint_interval(np.stack([(truth - predicted) ** 2, truth, truth**2]), statistic, draws=bootstrap)


# All of it, for one training and for several


@dataclass(frozen=True)
class Studied:
    """One training's tables by name, and what its first figure shows: `map` [row, column], attention in [0, 1]."""

    tables: Mapping[str, pd.DataFrame]
    shown: Mapping[str, ndarray]


@checked_arguments()
def study_head(
    model: nn.Module,
    parts: Parts,
    plan: Mechanism,
    whole: Float[ndarray, "held_out target"],
    batch: int,
    bootstrap: int,
    seed: int,
) -> Studied:
    """Name the strongest head of a training and its control, and put the account of both to the test.

    `whole` are the training's losses on the held-out set.
    """
    means = averaged_references(model, parts.fit["pixel_values"], ["mean"], batch)["mean"]
    chosen = strongest_head(model, parts.choice, means, whole, batch)
    anatomy = find_blocks(model)
    places = patch_places(parts.test["regions"], anatomy.patch)
    kinds = patch_kinds(parts.test["regions"], anatomy.patch)
    tables: dict[str, list[pd.DataFrame]] = {"account": [], "follows": [], "pointed": []}
    heads = {role: head_of(chosen, role) for role in (STRONGEST, CONTROL)}
    at = pointed_at(parts.fit, places, seed), pointed_at(parts.test, places, seed + 1)
    fits, tests = (
        point_heads(model, part["pixel_values"], heads.values(), anatomy.prefix + chosen, batch)
        for part, chosen in zip((parts.fit, parts.test), at, strict=True)
    )
    for role, head in heads.items():
        fit, test = fits[head].reading, tests[head].reading
        tried = pointing(fits[head], at[0], parts.fit, places)
        account = fit_account(tried)
        pointed = pointing(tests[head], at[1], parts.test, places)
        predicted = predict_shifts(account, pointed)
        pointed = pointed.assign(
            **{f"predicted_{name}": predicted[:, i] for i, name in enumerate(LABEL_NAMES)}
        )
        marks = {"role": role, "layer": head[0], "head": head[1]}
        tables["account"].append(judge_account(account, pointed, bootstrap).assign(**marks))
        tables["follows"].append(follows_truth(pointed, bootstrap).assign(**marks))
        tables["pointed"].append(pointed.assign(**marks))
        if role == STRONGEST:
            own = {
                "readers": effects_by_reader(
                    model, head, _few(parts.test, plan.path_images), means,
                    {name: kind[: plan.path_images] for name, kind in kinds.items()}, whole, batch,
                ),
                "asked": attention_by_kind(test, kinds),
                "logits": logit_parts(test, fit, test.key.shape[1] - len(places), seed),
                "writes": patch_writes(model, head, parts.test, test, places, kinds, batch, seed),
            }  # fmt: skip
            looked = test[:1].mean_weights(test.key.shape[1] - len(places))[0]
            shown = {"map": unit_scale(looked.unflatten(0, (round(len(places) ** 0.5), -1))).float().numpy()}
    joined = {name: pd.concat(part, ignore_index=True) for name, part in tables.items()}
    return Studied({"heads": chosen, **joined, **own}, shown)


@checked_arguments()
def joined(studied: Mapping[str, Studied], name: str) -> pd.DataFrame:
    """One table of every training, which its column `training` names."""
    return pd.concat(
        [one.tables[name].assign(training=training) for training, one in studied.items()], ignore_index=True
    )


@checked_arguments()
def traced_paths(
    model: nn.Module, heads: pd.DataFrame, parts: Parts, plan: Mechanism, batch: int
) -> pd.DataFrame:
    """The paths of the strongest head of a table, on some of the images to judge by, means being of those to fit on."""
    few = _few(parts.test, plan.path_images)
    return paths(model, head_of(heads), few, parts.fit["pixel_values"][: plan.path_images], batch)


def _few(images: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    return {name: values[:count] for name, values in images.items()}
