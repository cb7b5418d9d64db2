"""Uncertainty of paired comparisons: bootstrap intervals, permutation tests, false discovery control."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.stats import false_discovery_control, pearsonr, quantile, rankdata

from vitmech_utils.arguments import checked_arguments

SURE = 0.95
"""The share of redrawn sets of images from which something counts as sure."""
FALSE_DISCOVERIES = 0.05
"""The usual rate, for heads that are named one by one out of many."""
MOST_DRAWS = 10_000_000
# Elements of the largest temporary array (draws x images); bounds memory to about 130 MB.
_BLOCK = 2**24
# Up to this many images every sign pattern is enumerated (2^12 = 4096), so the test is exact.
_ENUMERATED = 12


def unsigned_zero(spec: str) -> str:
    """A format specification that shows what rounds to zero without a minus: `+.1f` makes -0.01 a +0.0."""
    return spec if "z" in spec else re.sub(r"^([-+ ]?)(.*[eEfFgG%])$", r"\1z\2", spec)


@dataclass(frozen=True)
class Count:
    """How many heads of `total` are of a kind: as classified, for sure at least, and at most."""

    value: int
    low: int
    high: int
    total: int

    def __format__(self, spec: str) -> str:
        return f"{self.value} of {self.total} [{self.low}, {self.high}]"


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the distance between the bounds."""
        return (self.high - self.low) / 2

    def __format__(self, spec: str) -> str:
        """The value and its bounds in brackets; "unknown" where there is no value."""
        spec = spec or ".2f"
        if self.value != self.value:
            return "unknown"
        spec = unsigned_zero(spec)
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def check_settings(draws: int, confidence: float) -> None:
    """Refuse fewer than one draw or more than `MOST_DRAWS`, or a confidence outside (0, 1), with `ValueError`."""
    if not 1 <= draws <= MOST_DRAWS:
        raise ValueError(
            f"bootstrap is {draws}, expected at least 1 draw (2000 is usual), at most {MOST_DRAWS:,}"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a number between 0 and 1, such as 0.95")


@checked_arguments()
def check_paired(changed: ndarray, baseline: ndarray) -> None:
    """Refuse, with `ValueError`, rows of values that are not of the same images as the baseline, or of none."""
    if changed.ndim != 2 or baseline.ndim != 1 or changed.shape[1] != baseline.size or not baseline.size:
        raise ValueError(
            f"got shapes {changed.shape} and {baseline.shape}, expected [test, image] and [image] of the same images, "
            "at least one"
        )


@checked_arguments(finite=("changed", "baseline"))
def percent_effect(
    changed: Float[ndarray, "test image"], baseline: Float[ndarray, " image"]
) -> Float[ndarray, " test"]:
    """Change of the mean loss in percent of the same images' baseline, signed."""
    check_paired(changed, baseline)
    return 100 * (changed.mean(1) / baseline.mean() - 1)


@checked_arguments(finite=("changed", "baseline"))
def effect_sizes(
    changed: Float[ndarray, "test image"], baseline: Float[ndarray, " image"], relative: bool = True
) -> Float[ndarray, " test"]:
    """Change of the mean loss: in percent of the baseline (`percent_effect`), or, not `relative`, in its own unit."""
    check_paired(changed, baseline)
    return percent_effect(changed, baseline) if relative else changed.mean(1) - baseline.mean()


@checked_arguments()
def percentile_bounds(
    drawn: Float[ndarray, " draw *item"], confidence: float = 0.95
) -> tuple[Float[ndarray, " *item"], Float[ndarray, " *item"]]:
    """Bounds of the central `confidence` of bootstrap draws, for every item; draws that are NaN are left out.

    NaN for an item without any draw. With NaNs this is as `numpy.nanquantile`, without its loop over the items.
    """
    if not np.isnan(drawn).any():
        low, high = np.quantile(drawn, _tails(confidence), axis=0)
    else:
        tails = np.reshape(_tails(confidence), (2, *[1] * (drawn.ndim - 1)))
        low, high = quantile(drawn, tails, axis=0, nan_policy="omit")
    return low, high


@checked_arguments(finite=("differences",))
def paired_p_values(
    differences: Float[ndarray, "test image"], draws: int = 2000, seed: int = 0
) -> Float[ndarray, " test"]:
    """Two-sided p-values of "the mean difference is zero", by flipping the signs of whole images.

    If a head does nothing, an image's error with and without it may trade places, so every sign pattern
    is equally likely. Exact (all patterns) up to 12 images, drawn at random above. All tests share the
    patterns. Source: Fisher's randomization test; see Good 2005, section 3.2.
    """
    if differences.ndim != 2 or not differences.shape[1]:
        raise ValueError(
            f"differences has shape {differences.shape}, expected [test, image] with at least one image"
        )
    images = differences.shape[1]
    observed = np.abs(differences.mean(1))
    # Patterns that tie with the observed one must count, whatever the order of summation.
    bar = observed * (1 - 1e-12) - 1e-300
    if images <= _ENUMERATED:
        bits = (np.arange(2**images)[:, None] >> np.arange(images)) & 1
        means = np.abs((1.0 - 2.0 * bits) @ differences.T / images)
        return (means >= bar).mean(0)
    rng = np.random.default_rng(seed)
    as_extreme = np.zeros(len(differences))
    for size in _blocks(draws, images):
        signs = rng.choice([-1.0, 1.0], size=(size, images))
        as_extreme += (np.abs(signs @ differences.T / images) >= bar).sum(0)
    return (as_extreme + 1) / (draws + 1)


@checked_arguments(finite=("p_values",))
def adjust(p_values: Float[ndarray, " test"]) -> Float[ndarray, " test"]:
    """Benjamini-Hochberg adjusted p-values: among tests below 0.05, about 5 % are false discoveries."""
    return false_discovery_control(p_values, method="bh")


@checked_arguments(finite=("values",))
def median_interval(
    values: Float[ndarray, " item"], draws: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Median of `values` with its percentile bootstrap interval over the items."""
    return ratio_of_medians(values, np.ones_like(values), draws, confidence, seed)


@checked_arguments(finite=("above", "below"))
def ratio_of_medians(
    above: Float[ndarray, " item"],
    below: Float[ndarray, " item"],
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Median of `above` over median of `below`, with a percentile bootstrap interval over the items, in pairs.

    Each draw takes the same items of both, so that what disturbs both alike cancels.
    """
    check_settings(draws, confidence)
    _check_items(above, below)
    chosen = np.random.default_rng(seed).integers(above.size, size=(draws, above.size))
    low, high = np.quantile(
        np.median(above[chosen], axis=1) / np.median(below[chosen], axis=1), _tails(confidence)
    )
    return Interval(float(np.median(above) / np.median(below)), float(low), float(high))


@checked_arguments(finite=("first", "second"))
def correlation(
    first: Float[ndarray, " item"], second: Float[ndarray, " item"], confidence: float = 0.95
) -> Interval:
    """Pearson's correlation, in [-1, 1], with its Fisher interval."""
    fit = pearsonr(first, second)
    interval = fit.confidence_interval(confidence)
    return Interval(float(fit.statistic), float(interval.low), float(interval.high))


@checked_arguments(finite=("first", "second"))
def rank_correlation(
    first: Float[ndarray, " item"],
    second: Float[ndarray, " item"],
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Spearman's rank correlation, in [-1, 1], with its percentile bootstrap interval over the items.

    Not a number where one side is constant. Raises `ValueError` for unequal lengths or fewer than three items.
    """
    check_settings(draws, confidence)
    if first.size != second.size or first.size < 3:
        raise ValueError(
            f"got {first.size} and {second.size} values, expected two equal numbers of at least 3"
        )
    rng = np.random.default_rng(seed)
    chosen = rng.integers(first.size, size=(draws, first.size))
    drawn = spearman(first[chosen], second[chosen])
    value = float(spearman(first[None], second[None])[0])
    if np.isnan(value):
        return Interval(value, value, value)
    low, high = np.nanquantile(drawn, _tails(confidence))
    return Interval(value, float(low), float(high))


@checked_arguments(finite=("changed", "baseline"))
def effect_draws(
    changed: Float[ndarray, "test image"],
    baseline: Float[ndarray, " image"],
    draws: int,
    seed: int = 0,
    relative: bool = True,
) -> Float[ndarray, "draw test"]:
    """`effect_sizes` of images drawn with replacement, the same ones for the baseline and for every test."""
    check_paired(changed, baseline)
    rng = np.random.default_rng(seed)
    images = baseline.size
    stacked = np.vstack([baseline, changed]).T
    effects = []
    for size in _blocks(draws, images):
        counts = rng.multinomial(images, np.full(images, 1 / images), size=size).astype(float)
        means = counts @ stacked
        if relative:
            with np.errstate(divide="ignore", invalid="ignore"):
                effects.append(100 * (means[:, 1:] / means[:, :1] - 1))
        else:
            effects.append((means[:, 1:] - means[:, :1]) / images)
    return np.concatenate(effects)


def _check_items(*columns: ndarray) -> None:
    """Refuse columns of no or unequal numbers of items."""
    if len({column.shape for column in columns}) != 1 or columns[0].ndim != 1 or not columns[0].size:
        shapes = ", ".join(str(column.shape) for column in columns)
        raise ValueError(f"got shapes {shapes}, expected one dimension of as many items each, at least one")


def _tails(confidence: float) -> list[float]:
    return [(1 - confidence) / 2, (1 + confidence) / 2]


@checked_arguments()
def spearman(
    first: Float[ndarray, "draw item"], second: Float[ndarray, "draw item"]
) -> Float[ndarray, " draw"]:
    """Rank correlation of each pair of rows; not a number where one of them is constant."""
    a, b = (rankdata(x, axis=1) for x in (first, second))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))


def _blocks(draws: int, images: int) -> list[int]:
    size = max(1, _BLOCK // max(images, 1))
    return [min(size, draws - start) for start in range(0, draws, size)]
