"""Chapter 15's maps of a whole prediction, by method, and how far each finds the chirp and what the answer rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.dataset import REGIONS, held_out, training_figures
from vitmech_utils.heads.attention import attention_maps, rollout
from vitmech_utils.heads.attention_shares import patch_coverage
from vitmech_utils.heads.estimates import fast_dtype
from vitmech_utils.heads.explanations import (
    attention_relevance,
    average_precision,
    mass_on,
    pixel_relevance,
    predict_without_patches,
)
from vitmech_utils.heads.replay import predict
from vitmech_utils.intervals import mean_interval
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.statistics import Interval

REFERENCES = 64  # training figures whose mean is the picture that pixels are held against
STEPS, FEW_STEPS, ENOUGH = 32, 8, 16  # of integrated gradients; the first from so many images on
SHARES = (0.02, 0.05, 0.1, 0.2, 0.4)  # of the patches that are taken away
TAKEN = 0.02  # of them, where one number is to say it: about as many as show the chirp

METHODS = (
    "attention",
    "attention by effect",
    "rollout",
    "attention relevance",
    "gradient",
    "integrated gradients",
    "conserved relevance",
)
PICTURE, PLACE, RANDOM, MASK = "the picture alone", "the place alone", "random", "the mask itself"
CONTROLS = (PICTURE, PLACE, RANDOM, MASK)
COMPARED = (*METHODS, *CONTROLS)
UNTRAINED = ("attention", "rollout", "attention relevance", "gradient", "conserved relevance")
"""Methods whose maps of an untrained network are held against those of the trained one."""

Maps = dict[str, Float[Tensor, "image row column"]]


@dataclass(frozen=True)
class Explained:
    """The pictures that are explained, and what is known of them.

    `covered` is the share of each patch that the chirp holds, `reference` the mean training figure, `place` how much of
    each patch the chirp of a training figure holds on average; `donors` are other held-out pictures.
    """

    pixels: Float[Tensor, "image 3 height width"]
    donors: Float[Tensor, "image 3 height width"]
    covered: Float[Tensor, "image row column"]
    reference: Float[Tensor, "3 height width"]
    place: Float[Tensor, "row column"]

    @property
    def shown(self) -> Tensor:
        """The patches that show the chirp: those that hold any of it."""
        return self.covered > 0

    def sizes(self) -> dict[str, float]:
        """How many patches show the chirp, mean over pictures (`chirp`), and how many `patches` a picture has."""
        return {"chirp": float(self.shown.sum((1, 2)).double().mean()), "patches": self.covered[0].numel()}


@checked_arguments(least={"images": 1})
def explained(model: nn.Module, images: int) -> Explained:
    """The first held-out figures; the donor of each is the one after it."""
    patch = find_blocks(model).patch
    data, known = held_out(images + 1), training_figures(REFERENCES)
    covered, place = (
        patch_coverage(part["regions"], patch, len(REGIONS))[:, REGIONS.index("chirp")]
        for part in (data, known)
    )
    return Explained(
        data["pixel_values"][:images],
        data["pixel_values"][1:],
        covered[:images],
        known["pixel_values"].mean(0),
        place.mean(0),
    )


@checked_arguments()
def shifts_of(sweep: pd.DataFrame, mode: str = "mean") -> Float[ndarray, "layer head"]:
    """How far each head's removal moves the answer, from chapter 04's sweep; never below zero."""
    rows = sweep[sweep["mode"] == mode]
    return rows.pivot(index="layer", columns="head", values="shift").to_numpy(float).clip(0)


@checked_arguments(least={"images": 1})
def steps_of(images: int) -> int:
    """Steps of integrated gradients: `STEPS`, on fewer than `ENOUGH` images `FEW_STEPS`, which add up less well."""
    return STEPS if images >= ENOUGH else FEW_STEPS


@checked_arguments(least={"batch": 1, "steps": 1})
def integrated_gradients(
    model: nn.Module, shown: Explained, steps: int, batch: int = 8
) -> Float[Tensor, "image output row column"]:
    """Integrated gradients of every output, with their signs, from the mean training figure to each picture.

    In bfloat16 where that is fast (`fast_dtype`): steps leave far more of the sum open than rounding does.
    """
    return pixel_relevance(model, shown.pixels, shown.reference, steps, batch=batch, dtype=fast_dtype(model))


@checked_arguments(least={"batch": 1})
def maps_of(
    model: nn.Module,
    shown: Explained,
    weights: Float[ndarray, "layer head"],
    integrated: Float[Tensor, "image output row column"],
    batch: int = 8,
) -> Maps:
    """One map an image, float32, by every one of `METHODS`: the higher a patch, the more it is said to matter.

    Attention is that of the last layer, mean over heads; by effect, that of all heads, each weighted by `weights`, how
    far its removal moves the answer. `integrated` are the `integrated_gradients`. What is signed counts by its size;
    outputs are averaged.
    """
    maps = _cheap_maps(model, shown, batch)
    attention = attention_maps(model, shown.pixels, batch=batch)
    known = torch.as_tensor(weights, dtype=attention.dtype)
    maps["attention by effect"] = torch.einsum("ilhrc,lh->irc", attention, known)
    maps["integrated gradients"] = _sizes(integrated)
    return {name: maps[name] for name in METHODS}


@checked_arguments(least={"batch": 1})
def untrained_maps(model: ChirpRegressor, shown: Explained, batch: int = 8) -> Maps:
    """The maps of a network with random weights, by the methods of `UNTRAINED`."""
    return _cheap_maps(model.untrained_twin(), shown, batch)


def _cheap_maps(model: nn.Module, shown: Explained, batch: int) -> Maps:
    pixels, reference = shown.pixels, shown.reference
    return {
        "attention": attention_maps(model, pixels, batch=batch)[:, -1].mean(1),
        "rollout": rollout(model, pixels, batch=batch)[:, -1],
        "attention relevance": _sizes(attention_relevance(model, pixels, batch=batch)),
        "gradient": _sizes(pixel_relevance(model, pixels, reference, batch=batch)),
        "conserved relevance": _sizes(pixel_relevance(model, pixels, reference, conserve=True, batch=batch)),
    }


def _sizes(maps: Float[Tensor, "image output row column"]) -> Float[Tensor, "image row column"]:
    return maps.abs().mean(1)


@checked_arguments()
def controls(shown: Explained, seed: int = 0) -> Maps:
    """Orders of the patches that ask no model.

    How far the picture differs there from the mean training figure, where chirps lie as a rule, chance, and the chirp's
    exact mask.
    """
    chance = torch.rand(shown.covered.shape, generator=torch.Generator().manual_seed(seed))
    rows, columns = shown.place.shape
    far = (shown.pixels - shown.reference).abs().mean(1)
    far = far.unflatten(-1, (columns, -1)).unflatten(-3, (rows, -1)).mean((-3, -1))
    return {
        PICTURE: far,
        PLACE: shown.place.expand_as(shown.covered).clone(),
        RANDOM: chance,
        # Of equal patches, such as those without any chirp, chance says which comes first.
        MASK: shown.covered + 1e-6 * chance,
    }


@checked_arguments()
def found_chirp(maps: Maps, shown: Explained) -> dict[str, dict[str, Float[ndarray, " image"]]]:
    """By method, per image: average `precision` for the patches that show the chirp, and the map's `mass` on these."""
    return {
        "precision": {name: average_precision(each, shown.shown).numpy() for name, each in maps.items()},
        "mass": {name: mass_on(each, shown.shown.float()).numpy() for name, each in maps.items()},
    }


@checked_arguments(least={"batch": 1})
def moved(
    model: nn.Module, maps: Maps, shown: Explained, batch: int = 16
) -> dict[str, Float[ndarray, "share image"]]:
    """How far the answer moves without the patches that a map puts first, by method, for each of `SHARES`.

    Root mean square over outputs, in standard deviations of the labels; `everything` has one row, with every patch
    taken from the donor.
    """
    patches = shown.covered[0].numel()
    counts = [round(share * patches) for share in SHARES]
    whole = _answers(model, shown.pixels, batch)

    def distance(answers: Tensor) -> Float[ndarray, "share image"]:
        return (answers - whole).square().mean(-1).sqrt().numpy()

    without = {
        name: distance(predict_without_patches(model, shown.pixels, shown.donors, each, counts, batch))
        for name, each in maps.items()
    }
    return without | {"everything": distance(_answers(model, shown.donors, batch)[None])}


def _answers(model: nn.Module, pixels: Tensor, batch: int) -> Float[Tensor, "image output"]:
    weight = next(model.parameters())
    with torch.inference_mode():
        return torch.cat([predict(model, part.to(weight)).cpu() for part in pixels.split(batch)]).double()


@checked_arguments()
def alike(maps: Maps, others: Maps) -> pd.DataFrame:
    """How alike two networks' maps of the same pictures are: method, correlation, low, high.

    Spearman's correlation over patches, mean over images.
    """
    rows = []
    for name, other in others.items():
        pairs = zip(maps[name].flatten(1), other.flatten(1), strict=True)
        found = mean_interval(np.array([_spearman(one, two) for one, two in pairs]))
        rows.append((name, found.value, found.low, found.high))
    return pd.DataFrame(rows, columns=["method", "correlation", "low", "high"])


@checked_arguments()
def without_training(maps: Maps, twin: Maps, shown: Explained) -> pd.DataFrame:
    """What an untrained network's maps (`twin`) share with the trained one's, and how well they find the chirp.

    Returns `alike` of the two, and with low_ and high_: like_picture (Spearman's correlation of the trained network's
    maps with the picture alone), precision_untrained (the untrained maps' average precision) and more_trained (by how
    much the trained ones' is larger, image by image).
    """
    table = alike(maps, twin)
    for name in table["method"]:
        pairs = zip(maps[name].flatten(1), maps[PICTURE].flatten(1), strict=True)
        trained, untrained = (average_precision(each[name], shown.shown).numpy() for each in (maps, twin))
        known = np.isfinite(untrained)
        for kind, end, values in (
            ("like", "picture", np.array([_spearman(one, two) for one, two in pairs])),
            ("precision", "untrained", untrained[known]),
            ("more", "trained", (trained - untrained)[known]),
        ):
            found = mean_interval(values)
            columns = [f"{kind}_{end}", f"low_{end}", f"high_{end}"]
            table.loc[table["method"] == name, columns] = _bounds(found)
    return table


def _spearman(one: Tensor, other: Tensor) -> float:
    ranked = torch.stack([values.argsort().argsort().double() for values in (one, other)])
    return float(torch.corrcoef(ranked)[0, 1])


@checked_arguments()
def scores(
    found: Mapping[str, Mapping[str, Float[ndarray, " image"]]],
    distances: Mapping[str, Float[ndarray, "share image"]],
) -> pd.DataFrame:
    """One row per measure and method: method, measure, value, low, high, images, and the same over three controls.

    Measures: `precision` and `mass` in [0, 1], and `moved`, how far the answer moves without `TAKEN` of the patches, in
    standard deviations of the labels. over_picture, over_place and over_random with low_ and high_ are the mean
    differences to these controls, image by image.
    """
    measures = {name: dict(values) for name, values in found.items()}
    measures["moved"] = {name: distances[name][SHARES.index(TAKEN)] for name in COMPARED}
    rows = []
    for measure, values in measures.items():
        for name in COMPARED:
            known = np.isfinite(values[name])
            columns = {"method": name, "measure": measure, **vars(mean_interval(values[name][known]))}
            columns["images"] = int(known.sum())
            for short, control in (("picture", PICTURE), ("place", PLACE), ("random", RANDOM)):
                more = difference(values[name], values[control])
                columns |= {f"over_{short}": more.value, f"low_{short}": more.low, f"high_{short}": more.high}
            rows.append(columns)
    return pd.DataFrame(rows)


@checked_arguments()
def difference(one: Float[ndarray, " image"], other: Float[ndarray, " image"]) -> Interval:
    """The mean difference over the images that both know."""
    known = np.isfinite(one) & np.isfinite(other)
    return mean_interval((one - other)[known])


@checked_arguments()
def curves(distances: Mapping[str, Float[ndarray, "share image"]]) -> pd.DataFrame:
    """How far answers move the more patches go: method, share, value, low, high, as in `moved`.

    over_picture, low_picture and high_picture are how much further than in the order of the picture alone.
    """
    rows = []
    for name in COMPARED:
        for share, values, others in zip(SHARES, distances[name], distances[PICTURE], strict=True):
            found, more = mean_interval(values), difference(values, others)
            rows.append((name, share, *_bounds(found), *_bounds(more)))
    columns = ["method", "share", "value", "low", "high", "over_picture", "low_picture", "high_picture"]
    return pd.DataFrame(rows, columns=columns)


@checked_arguments()
def everything(distances: Mapping[str, Float[ndarray, "share image"]]) -> Interval:
    """How far answers move where every patch is taken from the other picture."""
    return mean_interval(distances["everything"][0])


def _bounds(found: Interval) -> tuple[float, float, float]:
    return found.value, found.low, found.high


@checked_arguments()
def sums_to_the_difference(
    model: nn.Module, shown: Explained, integrated: Float[Tensor, "image output row column"]
) -> dict[str, float]:
    """How far integrated gradients add up: `error` with `low` and `high`, in parts of the mean `difference`.

    Both are means of absolute values over images and outputs.
    """
    difference = _answers(model, shown.pixels, len(shown.pixels)) - _answers(model, shown.reference[None], 1)
    size = float(difference.abs().mean())
    off = (integrated.sum((-2, -1)).double() - difference).abs().mean(1).numpy() / size
    error, low, high = _bounds(mean_interval(off))
    return {"error": error, "low": low, "high": high, "difference": size}
