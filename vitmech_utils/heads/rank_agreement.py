"""How much of their order of heads two models share, beyond what too few images blur in each of them.

Two orders that are measured on few images differ by chance alone. So each model is also held against itself, on other
images: what it keeps of its own order is the ceiling of what another model could keep of it. The quotient is Spearman's
correction for attenuation (Spearman 1904), here of rank correlations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.statistics import Interval, check_settings

SPLITS = 8
"""Random splits of the images in two halves, over which correlations are averaged."""
BLOCK = 512
"""Bootstrap draws that are counted at a time."""

Measured = Float[ndarray, "..."]  # [quantity, head, image]; what else it may be is told by an error


@dataclass(frozen=True)
class SharedOrder:
    """Rank correlations over heads with bootstrap intervals over heads.

    `between` holds one model's order on half of the images against the other's on the other half, in [-1, 1];
    `ceiling` is what both keep of their own between halves (the geometric mean of the two); `share` is the quotient, 1
    where two models differ by no more than one model does from itself, and possibly above it by chance. Not a number
    where a model keeps nothing of its own order. `images` are those of a half.
    """

    between: Interval
    ceiling: Interval
    share: Interval
    images: int


@checked_arguments(finite=("first", "second"), least={"splits": 1})
def disattenuated_correlation(
    first: Measured,
    second: Measured,
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    splits: int = SPLITS,
) -> SharedOrder:
    """Compare the orders of the same heads in two models, image by image measured on the same images.

    `first` and `second` are [quantity, head, image]: one quantity (a head's change of the loss), or several, whose
    correlations are averaged (attention shares of each region). Each bootstrap draw takes the same heads of both.
    Raises `ValueError` for shapes that differ, fewer than two images or fewer than three heads.
    """
    check_settings(draws, confidence)
    if first.ndim != 3 or first.shape != second.shape:
        raise ValueError(
            f"got shapes {first.shape} and {second.shape}, expected two equal ones [quantity, head, image]"
        )
    quantities, heads, images = first.shape
    if images < 2 or heads < 3 or not quantities:
        raise ValueError(
            f"got {quantities} quantities of {heads} heads on {images} images, expected at least 1, 3 and 2"
        )
    rng = np.random.default_rng(seed)
    counts = _counts(np.vstack([np.arange(heads), rng.integers(heads, size=(draws, heads))]))
    half = images // 2
    total = np.zeros((3, draws + 1))
    for _ in range(splits):
        order = rng.permutation(images)
        parts = order[:half], order[half : 2 * half]
        for place in range(quantities):
            halves = [found[place][:, part].mean(1) for found in (first, second) for part in parts]
            for block in range(0, draws + 1, BLOCK):  # so few that they stay in the processor's cache
                total[:, block : block + BLOCK] += _three(halves, counts[:, block : block + BLOCK])
    between, own_first, own_second = total / (splits * quantities)
    with np.errstate(invalid="ignore"):
        ceiling = np.sqrt(np.where((own_first > 0) & (own_second > 0), own_first * own_second, np.nan))
    return SharedOrder(
        *(_interval(found, confidence) for found in (between, ceiling, between / ceiling)), images=half
    )


@checked_arguments(finite=("first", "second"))
def permutation_null(
    first: Float[ndarray, "quantity head"],
    second: Float[ndarray, "other place"],
    layers: Int[ndarray, " layer"] | None = None,
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The rank correlation that is left when the second model's heads change places at random: mean and range.

    With `layers` heads change places within their layer alone, so that what is left is due to depth; without, nothing
    should be left. All quantities of a head move together. Raises `ValueError` for shapes that do not fit.
    """
    check_settings(draws, confidence)
    if first.shape != second.shape or (layers is not None and len(layers) != first.shape[1]):
        raise ValueError(
            f"got shapes {first.shape} and {second.shape}, expected two equal ones [quantity, head]; with layers, "
            "one per head"
        )
    rng = np.random.default_rng(seed)
    keys = rng.random((draws, first.shape[1]))
    if layers is None:
        moved = keys.argsort(1)
    else:
        to = np.argsort(layers, kind="stable")  # places, layer by layer
        moved = np.empty(keys.shape, dtype=int)
        moved[:, to] = np.lexsort((keys, np.broadcast_to(layers, keys.shape)))
    found = np.zeros(draws)
    once = np.ones((first.shape[1], 1))  # permuted heads are all drawn, and keep their ranks
    for one, two in zip(first, second, strict=True):
        ranks = [_drawn_ranks(side, once)[:, 0] for side in (one, two)]
        size = np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
        found += _quotient(ranks[1][moved] @ ranks[0], np.full(draws, size))
    found /= len(first)
    low, high = np.nanquantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(np.nanmean(found)), float(low), float(high))


@checked_arguments(finite=("first", "second"), least={"splits": 1})
def depth_alone(
    first: Measured,
    second: Measured,
    layers: Int[ndarray, " layer"],
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    splits: int = SPLITS,
) -> Interval:
    """What `between` of `disattenuated_correlation` would be, did two models share nothing but what depth gives.

    `permutation_null` within layers, one model's order on half of the images against the other's on the other half,
    both ways and in so many random splits: few images blur it as they blur `between`. Arguments and errors as there,
    with one of `layers` per head.
    """
    if first.ndim != 3 or first.shape != second.shape or first.shape[2] < 2:
        raise ValueError(
            f"got shapes {first.shape} and {second.shape}, expected two equal ones [quantity, head, image], with two "
            "images or more"
        )
    rng = np.random.default_rng(seed)
    half = first.shape[2] // 2
    pairs = []
    for _ in range(splits):
        order = rng.permutation(first.shape[2])
        one, two = order[:half], order[half : 2 * half]
        pairs += [
            (first[:, :, here].mean(2), second[:, :, there].mean(2))
            for here, there in ((one, two), (two, one))
        ]
    sides = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return permutation_null(*sides, layers, draws, confidence, seed)


def _counts(chosen: Int[ndarray, "draw head"]) -> Float[ndarray, "head draw"]:
    """How often every head was drawn."""
    draws, heads = chosen.shape
    places = chosen + heads * np.arange(draws)[:, None]
    return np.ascontiguousarray(
        np.bincount(places.ravel(), minlength=draws * heads).reshape(draws, heads).T, dtype=float
    )


def _drawn_ranks(
    values: Float[ndarray, " head"], counts: Float[ndarray, "head draw"]
) -> Float[ndarray, "head draw"]:
    """Centred ranks of the heads' values among those drawn; equal values share the middle of their ranks.

    The order of the values is the same in every draw, so that counting those below does instead of sorting anew.
    """
    below = (values < values[:, None]) + 0.5 * (values == values[:, None])
    return below @ counts - len(values) / 2


def _three(
    halves: list[Float[ndarray, " head"]], counts: Float[ndarray, "head draw"]
) -> Float[ndarray, "3 draw"]:
    """Correlations between, within the first and within the second model, of their `halves` in a row."""
    ranks = [_drawn_ranks(values, counts) for values in halves]
    weighed = [counts * one for one in ranks]
    squares = [_summed(one, two) for one, two in zip(weighed, ranks, strict=True)]

    def along(one: int, two: int) -> Float[ndarray, " draw"]:
        return _quotient(_summed(weighed[one], ranks[two]), np.sqrt(squares[one] * squares[two]))

    return np.stack([(along(0, 3) + along(1, 2)) / 2, along(0, 1), along(2, 3)])


def _summed(one: Float[ndarray, "head draw"], two: Float[ndarray, "head draw"]) -> Float[ndarray, " draw"]:
    return np.einsum("hd,hd->d", one, two)


def _quotient(crossed: Float[ndarray, " draw"], size: Float[ndarray, " draw"]) -> Float[ndarray, " draw"]:
    """Correlation of centred ranks, draw by draw; 0 where one side is constant and so has no order."""
    return np.divide(crossed, size, out=np.zeros(len(crossed)), where=size > 0)


def _interval(found: Float[ndarray, " draw"], confidence: float) -> Interval:
    """The first entry is the estimate, the others are bootstrap draws; unknown where the estimate or all draws are."""
    known = found[1:][np.isfinite(found[1:])]
    if not np.isfinite(found[0]) or not len(known):
        return Interval(np.nan, np.nan, np.nan)
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(found[0]), float(low), float(high))
