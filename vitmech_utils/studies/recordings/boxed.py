"""What chapter 11 asks of real chirps: do heads look at the boxes, is the model right there, and which heads matter?

Recordings are the sampling unit: intervals and permutations move all pictures of a recording together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.chirp_dataset import unstandardize
from vitmech_utils.data.chirps import LABEL_NAMES, LABEL_UNITS
from vitmech_utils.data.recordings.seizures import ColourScale, Seizures, plot_of
from vitmech_utils.data.regions import REGIONS
from vitmech_utils.heads.attention import ByImage, lift_over_blocks
from vitmech_utils.heads.attention_shares import patch_coverage
from vitmech_utils.heads.estimates import fast_dtype
from vitmech_utils.heads.hooks import Head
from vitmech_utils.heads.linearized import predict_linearized
from vitmech_utils.heads.rank_agreement import depth_alone, disattenuated_correlation
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.statistics import FALSE_DISCOVERIES, Count, Interval, adjust, spearman
from vitmech_utils.studies.recordings.folds import (
    KeptFold,
    RealImages,
    features,
    on_own_axes,
    probe,
)

CHIRP = REGIONS.index("chirp")
ROUNDING = 1e-9
KINDS = ("decorated", "own pixels")
"""The kinds of real picture: drawn as figures of the recipe, and as they are."""
DRAWS = 2000
ASKED = {"start_time": "start time", "start_freq": "lower frequency", "end_freq": "upper frequency"}


@checked_arguments()
def read_back(found: Seizures, scale: ColourScale) -> dict[str, float]:
    """How well colours become numbers again.

    Keys: pictures, recordings, boxes, colours; exact (share of pixels whose colour is one of the map's), lowest and
    highest (shares of pixels at its ends, which only bound the number), difference (mean over pixels and channels
    between the picture and its numbers painted again, of 255), kept (median correlation of a picture's numbers with
    those of the grid that it is drawn from as a decorated figure).
    """
    exact, lowest, highest, differences, kept = [], [], [], [], []
    for picture in found.pictures:
        pixels = plot_of(picture.image)
        numbers = scale.read(pixels)
        exact.append(scale.exact(pixels).mean())
        lowest.append((numbers == 0).mean())
        highest.append((numbers == 1).mean())
        differences.append(np.abs(scale.paint(numbers).astype(float) - pixels).mean())
        grid = picture.grid(scale)[::-1]
        rows, columns = ((np.arange(size) + 0.5) * len(grid) // size for size in numbers.shape)
        again = grid[rows.astype(int)][:, columns.astype(int)]
        kept.append(np.corrcoef(again.ravel(), numbers.ravel())[0, 1])
    return {
        "pictures": len(found.pictures),
        "recordings": len(set(found.recordings)),
        "boxes": sum(len(picture.boxes) for picture in found.pictures),
        "left_out": len(found.left_out),
        "colours": len(scale.colours),
        "exact": float(np.mean(exact)),
        "lowest": float(np.mean(lowest)),
        "highest": float(np.mean(highest)),
        "difference": float(np.mean(differences)),
        "kept": float(np.median(kept)),
    }


# a) Do heads look at the boxes?


@checked_arguments()
def other_recordings(recordings: Sequence[str], draws: int, seed: int = 0) -> Int[ndarray, "draw picture"]:
    """For each draw and picture, a picture of another recording; recordings change places as wholes.

    A draw shifts a random order of the recordings by a random number of places, so that none keeps its own. Raises
    ValueError for a single recording.
    """
    names, of = np.unique(np.asarray(recordings, dtype=str), return_inverse=True)
    if len(names) < 2:
        raise ValueError(
            f"all pictures are of recording {names[0]}, expected two or more to exchange boxes between"
        )
    members = [np.flatnonzero(of == number) for number in range(len(names))]
    rank = np.array([int((of[:place] == of[place]).sum()) for place in range(len(of))])
    rng = np.random.default_rng(seed)
    found = np.empty((draws, len(of)), dtype=np.int64)
    for draw in range(draws):
        order = rng.permutation(len(names))
        to = np.empty_like(order)
        to[order] = np.roll(order, int(rng.integers(1, len(names))))
        found[draw] = [
            members[to[one]][place % len(members[to[one]])] for one, place in zip(of, rank, strict=True)
        ]
    return found


@checked_arguments(least={"draws": 1})
def box_looks(read: ByImage, images: RealImages, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """Every head's lift on the boxes, and on boxes of other recordings.

    One row per head (layer, head, 0-based): lift (mean attention share over mean area share) with low and high (95 %,
    drawing recordings), others (mean lift over draws of other recordings' boxes), p (one-sided, from the same draws)
    and q (adjusted over all heads; Benjamini and Hochberg), recordings, pictures.
    """
    shares, areas = _crossed(read, images)
    own = np.arange(len(images))
    exchanged = other_recordings(images.recordings, draws, seed)
    layers, heads = read.maps.shape[1:3]
    lifts = _lift(shares, areas, own)
    null = np.stack([_lift(shares, areas, places) for places in exchanged])
    p_values = (1 + (null >= lifts).sum(0)) / (1 + draws)
    rows = []
    for place in range(layers * heads):
        bounds = lift_over_blocks(shares[own, own, place], areas, list(images.recordings), seed=seed)
        rows.append(
            {
                "layer": place // heads,
                "head": place % heads,
                "lift": bounds.value,
                "low": bounds.low,
                "high": bounds.high,
                "others": float(null[:, place].mean()),
                "p": float(p_values[place]),
            }
        )
    table = pd.DataFrame(rows)
    return table.assign(
        q=adjust(table["p"].to_numpy()), recordings=len(set(images.recordings)), pictures=len(images)
    )


@checked_arguments()
def all_looks(read: Mapping[str, ByImage], images: Mapping[str, RealImages], seed: int = 0) -> pd.DataFrame:
    """`box_looks` of every kind of picture, named in the column `images`."""
    return pd.concat(
        [box_looks(found, images[kind], seed=seed).assign(images=kind) for kind, found in read.items()],
        ignore_index=True,
    )


def _crossed(
    read: ByImage, images: RealImages
) -> tuple[Float[ndarray, "picture box head"], Float[ndarray, " box"]]:
    """The attention share of every picture's heads on the boxes of every picture, and the boxes' area shares."""
    patches = read.maps.shape[-1]
    side = images.regions.shape[-1] // round(patches**0.5)
    coverage = patch_coverage(images.regions, side, int(max(images.regions.max(), CHIRP)) + 1)[:, CHIRP]
    flat = coverage.flatten(1).double().numpy()
    maps = read.maps.reshape(len(read.maps), -1, patches)
    return np.einsum("ihp,jp->ijh", maps, flat, optimize=True), flat.mean(1)


def _lift(
    shares: Float[ndarray, "picture box head"],
    areas: Float[ndarray, " box"],
    places: Int[ndarray, " picture"],
) -> Float[ndarray, " head"]:
    return shares[np.arange(len(places)), places].mean(0) / areas[places].mean()


@checked_arguments()
def looks_at_boxes(looks: pd.DataFrame, heads: Sequence[Head]) -> Count:
    """Count, of some heads, those that look at the boxes: more than evenly, and more than at others' boxes.

    As measured: lift above 1 and p of at most 0.05. For sure: the lift's interval above 1 and q of at most 0.05. At
    most: the lift's interval reaches above 1, and the lift is above that on others' boxes.
    """
    table = looks.set_index(["layer", "head"]).loc[list(heads)] if len(heads) else looks.iloc[:0]
    found = (table["lift"] > 1) & (table["p"] <= FALSE_DISCOVERIES)
    sure = found & (table["low"] > 1) & (table["q"] <= FALSE_DISCOVERIES)
    more = table["lift"] > table["others"] * (1 + ROUNDING)
    may = found | ((table["high"] > 1) & more)
    return Count(int(found.sum()), int(sure.sum()), int(may.sum()), len(table))


# b) Does the model read them?


@checked_arguments()
def over_recordings(
    statistic: Callable[[Int[ndarray, " picture"]], Float[ndarray, "..."] | float],
    recordings: Sequence[str],
    draws: int = DRAWS,
    seed: int = 0,
) -> Float[ndarray, "draw ..."]:
    """A statistic of the pictures of recordings drawn with replacement; it takes places of pictures."""
    names, of = np.unique(np.asarray(recordings, dtype=str), return_inverse=True)
    members = [np.flatnonzero(of == number) for number in range(len(names))]
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(names), size=(draws, len(names)))
    return np.stack([statistic(np.concatenate([members[one] for one in row])) for row in drawn])


@checked_arguments()
def in_order(answers: Float[ndarray, "picture 3"]) -> Float[ndarray, "picture 3"]:
    """Start time, and the lower and the upper of two frequencies: a box does not say at which a track starts."""
    return np.column_stack([answers[:, 0], answers[:, 1:].min(1), answers[:, 1:].max(1)])


@checked_arguments()
def readings(answers: Mapping[str, Float[ndarray, "picture 3"]], images: RealImages) -> pd.DataFrame:
    """What a model for the recipe's figures says of real chirps, by kind of picture (`answers`, standardized).

    One row per kind and target: correlation (rank) with low and high (drawing recordings); rmse where the answer is
    taken for a place on the axis, rmse_ticks where it is taken for the hertz at its ticks, and that of always saying
    the mean; unit. In seconds and hertz of the recordings' own axes. The plot of a picture's own pixels lies elsewhere
    in the picture than in a figure of the recipe, so that errors there hold this shift, too.
    """
    truth = on_own_axes(unstandardize(images.labels.numpy().astype(float)))
    rows = []
    for kind, standardized in answers.items():
        said = unstandardize(standardized.astype(float))
        by_place, by_ticks = in_order(on_own_axes(said)), in_order(said)
        for number, target in enumerate(LABEL_NAMES):
            pair = by_place[:, number], truth[:, number]

            def ranks(places: ndarray, pair: tuple[ndarray, ndarray] = pair) -> float:
                return float(spearman(pair[0][None, places], pair[1][None, places])[0])

            low, high = np.nanquantile(over_recordings(ranks, images.recordings), [0.025, 0.975])
            rows.append(
                {
                    "images": kind,
                    "target": target,
                    "correlation": ranks(np.arange(len(images))),
                    "low": float(low),
                    "high": float(high),
                    "rmse": _rmse(by_place[:, number], truth[:, number]),
                    "rmse_ticks": _rmse(by_ticks[:, number], truth[:, number]),
                    "rmse_mean": float(truth[:, number].std()),
                    "unit": LABEL_UNITS[number],
                    "pictures": len(images),
                    "recordings": len(set(images.recordings)),
                }
            )
    return pd.DataFrame(rows)


def _rmse(said: Float[ndarray, " picture"], true: Float[ndarray, " picture"]) -> float:
    return float(np.sqrt(np.mean((said - true) ** 2)))


# c) After fine-tuning on them


@dataclass(frozen=True)
class OutOfFold:
    """Standardized answers to every picture by models that never saw its recording."""

    tuned: Float[ndarray, "picture 3"]
    probed: Float[ndarray, "picture 3"]
    mean: Float[ndarray, "picture 3"]


@checked_arguments()
def out_of_fold(
    kept: Sequence[KeptFold], images: RealImages, read_features: Float[ndarray, "picture feature"]
) -> OutOfFold:
    """The published folds' answers, those of a linear probe on frozen features, and the mean, by the same folds."""
    answers = {name: answer for fold in kept for name, answer in fold.answers.items()}
    labels = images.labels.numpy().astype(np.float64)
    probed, mean = np.empty_like(labels), np.empty_like(labels)
    for one in kept:
        parts = one.parts(images)
        weights, bias = probe(read_features, labels, parts)
        probed[parts.test] = read_features[parts.test] @ weights.T + bias
        mean[parts.test] = labels[np.concatenate([parts.train, parts.chosen_by])].mean(0)
    return OutOfFold(np.stack([answers[name] for name in images.names]).astype(np.float64), probed, mean)


@checked_arguments()
def fold_scores(found: OutOfFold, images: RealImages) -> pd.DataFrame:
    """How well each model reads recordings that it never saw.

    One row per model and target: rmse in own seconds and hertz; gain with low and high: by how much of the mean's
    squared error the model's is smaller (1: perfect, 0: no better, below: worse; intervals draw recordings). Of model
    "fine-tuned less probe" the gain is the difference of the two, on the same draws.
    """
    truth = unstandardize(images.labels.numpy().astype(float))
    models = {"fine-tuned": found.tuned, "linear probe": found.probed, "the mean": found.mean}
    said = {name: on_own_axes(unstandardize(answers)) for name, answers in models.items()}
    errors = {name: (answers - on_own_axes(truth)) ** 2 for name, answers in said.items()}

    def gains(places: ndarray) -> ndarray:
        mean = errors["the mean"][places].mean(0)
        of = [1 - errors[name][places].mean(0) / mean for name in ("fine-tuned", "linear probe")]
        return np.stack([*of, of[0] - of[1]])

    drawn = np.nanquantile(over_recordings(gains, images.recordings), [0.025, 0.975], axis=0)
    values = gains(np.arange(len(images)))
    rows = []
    for number, name in enumerate(("fine-tuned", "linear probe", "fine-tuned less probe")):
        for target in range(values.shape[1]):
            error = np.sqrt(errors[name][:, target].mean()) if name in errors else np.nan
            rows.append(
                {
                    "model": name,
                    "target": LABEL_NAMES[target],
                    "rmse": float(error),
                    "unit": LABEL_UNITS[target],
                    "gain": float(values[number, target]),
                    "low": float(drawn[0, number, target]),
                    "high": float(drawn[1, number, target]),
                }
            )
    return pd.DataFrame(rows)


@checked_arguments()
def shifts(
    model: nn.Module, pixel_values: torch.Tensor, spread: Float[ndarray, "3"]
) -> Float[ndarray, "head image"]:
    """How far each head's mean ablation moves each answer, linearized: squared, over the variance of the labels.

    `spread` are the labels' standard deviations; targets are averaged, heads are in order of layers.
    """
    found = predict_linearized(model, pixel_values, "mean", batch=16, dtype=fast_dtype(model))
    moved = (found.ablated - found.baseline).numpy() / spread
    return (moved**2).mean(-1)


@dataclass(frozen=True)
class RealShifts:
    """Shifts of heads [head, image]: of the painted chirps' model on painted ones, and on real ones of each model."""

    painted: Float[ndarray, "head image"]
    on_real: Float[ndarray, "head image"]
    tuned: Float[ndarray, "head image"]
    probed: Float[ndarray, "head image"]
    fold: Int[ndarray, " image"]


@checked_arguments()
def all_shifts(
    model: ChirpRegressor,
    painted: torch.Tensor,
    kept: Sequence[KeptFold],
    images: RealImages,
    read_features: Float[ndarray, "picture feature"],
    count: int,
    most: int,
) -> RealShifts:
    """Shifts on at most `most` real pictures (two of a fold at least), each by the model that never saw it.

    `count` folds are taken, the first that have pictures to test.

    `probed` is the frozen backbone under the fold's linear probe: what the shared start makes of real chirps.
    """
    spread = images.labels.numpy().std(0).clip(1e-3)
    labels = images.labels.numpy().astype(np.float64)
    frozen = model.without_adapter().to(model.device)
    kept = [one for one in kept if len(one.parts(images).test) > 1][:count]
    size = max(2, most // len(kept))
    tuned, probed, on_real, fold = [], [], [], []
    for number, one in enumerate(kept):
        parts = one.parts(images)
        places = np.linspace(0, len(parts.test) - 1, min(size, len(parts.test))).astype(int)
        chosen = images.at(parts.test[places])
        weights, bias = probe(read_features, labels, parts)
        frozen.head = _linear(weights, bias).to(model.device)
        regressor = one.regressor().merged().to(model.device)
        for of, found in ((regressor, tuned), (frozen, probed), (model, on_real)):
            found.append(shifts(of, chosen.pixel_values, spread))
        fold += [number] * len(chosen)
    return RealShifts(
        shifts(model, painted, np.ones(3)),
        *(np.concatenate(found, axis=1) for found in (on_real, tuned, probed)),
        np.array(fold),
    )


def _linear(weights: Float[ndarray, "target feature"], bias: Float[ndarray, " target"]) -> nn.Linear:
    layer = nn.Linear(weights.shape[1], weights.shape[0])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights))
        layer.bias.copy_(torch.from_numpy(bias))
    return layer.requires_grad_(False)


COMPARED = {
    "fine-tuned on real chirps": "tuned",
    "frozen backbone, linear probe": "probed",
    "painted chirps' model on real ones": "on_real",
}
"""What the heads' order of the painted chirps' model is held against, on real chirps."""


@checked_arguments()
def orders(found: RealShifts, heads: int, seed: int = 0) -> pd.DataFrame:
    """How much of the painted chirps' model's order of heads another one shares on real chirps.

    One row per entry of `COMPARED`: between, ceiling, share, each with _low and _high (drawing heads; see
    `heads.rank_agreement`), depth (what is left of between when heads change places within their layers), images, and
    folds: the mean rank correlation of two folds' orders (NaN but for the fine-tuned models). `heads` is their number
    per layer.
    """
    rows = []
    for name, field in COMPARED.items():
        other = getattr(found, field)
        count = min(found.painted.shape[1], other.shape[1])
        picked = np.linspace(0, other.shape[1] - 1, count).astype(int)  # of every fold
        first, second = found.painted[None, :, :count], other[None][:, :, picked]
        shared = disattenuated_correlation(first, second, seed=seed)
        layers = np.repeat(np.arange(first.shape[1] // heads), heads)
        depth = depth_alone(first, second, layers, seed=seed)
        row = {"compared": name, "images": count, "depth": depth.value, "folds": np.nan}
        for part in ("between", "ceiling", "share"):
            one = getattr(shared, part)
            row |= {part: one.value, f"{part}_low": one.low, f"{part}_high": one.high}
        if field == "tuned":
            row["folds"] = _between_folds(other, found.fold)
        rows.append(row)
    return pd.DataFrame(rows)


def _between_folds(values: Float[ndarray, "head image"], fold: Int[ndarray, " image"]) -> float:
    means = np.stack([values[:, fold == number].mean(1) for number in np.unique(fold)])
    one, two = np.triu_indices(len(means), 1)
    return float(spearman(means[one], means[two]).mean()) if len(one) else float("nan")


@checked_arguments()
def shared_order(table: pd.DataFrame) -> Interval:
    """The share of the order that fine-tuning on real chirps has in common with that on painted ones."""
    row = table.set_index("compared").loc["fine-tuned on real chirps"]
    return Interval(float(row["share"]), float(row["share_low"]), float(row["share_high"]))


@checked_arguments()
def frozen_features(model: ChirpRegressor, images: RealImages) -> Float[ndarray, "picture feature"]:
    """What the pre-trained backbone gives a head to read, of every picture."""
    return features(model.without_adapter().to(model.device), images).numpy()
