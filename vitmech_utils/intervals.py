"""Intervals for means, and ratios of means, of values with heavy tails: several methods, one call each.

Which of them covers what, at how many images, is measured by `benchmarks/coverage.py`. Each function takes rows
of values over the same images, so that one resampling serves all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.special import ndtr, ndtri
from scipy.stats import beta, f
from scipy.stats import t as student

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.statistics import Interval, check_settings, percentile_bounds

JOINT_METHODS = ("percentile", "corrected", "reflected", "normal")
METHODS = (
    "percentile", "t", "log-t", "transformed-t", "lengthened-t", "padded-t", "studentized", "bca", "likelihood",
)  # fmt: skip
METHOD = "padded-t"
"""What the library uses where no other is asked for: of all, the one that covers best (`benchmarks/coverage.py`)."""
Bounds = tuple[Float[ndarray, " row"], Float[ndarray, " row"]]

# Elements of the largest temporary array (draws x images); bounds memory to about 130 MB.
_BLOCK = 2**24
# Halvings of the bracket in which the likelihood's bounds are found.
_HALVINGS = 60
# What rounding leaves of nothing, relative to the values that it came from.
_ROUNDING = 1e-9


@checked_arguments(finite=("values",))
def mean_intervals(
    values: Float[ndarray, "row image"],
    method: str = METHOD,
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Bounds:
    """Bounds of the mean of each row over images; methods and errors as in `ratio_intervals`."""
    return ratio_intervals(values, np.ones(values.shape[1]), method, draws, confidence, seed)


@checked_arguments(finite=("above", "below"))
def ratio_intervals(
    above: Float[ndarray, "row image"],
    below: Float[ndarray, " image"] | Float[ndarray, "row image"],
    method: str = METHOD,
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Bounds:
    """Bounds of each row's mean over the mean of `below` (one row for all, or a row each), on the same images.

    - `percentile`: quantiles of bootstrap draws.
    - `log-t`: Student's on the logarithm, for what cannot be negative; NaN where the estimate is not positive.
    - `t`: Student's, by the delta method.
    - `transformed-t`: Student's, rid of skewness by a cubic (Hall 1992, J. R. Statist. Soc. B 54, 221).
    - `lengthened-t`: of both bounds of the two before, the one further out. Few images tell skewness badly: where the
      values are skewed, Student's bound is too near on one side; where they are not, the cubic's is.
    - `padded-t`: the same with a standard error that counts the value furthest out twice, as if one like it had not
      been drawn yet. Among many values that are about alike it changes nothing; where single ones decide, much.
    - `studentized`: quantiles of the bootstrap draws' distance from the estimate, each in its own standard errors
      (Efron and Tibshirani 1993, section 12.5).
    - `bca`: quantiles corrected for bias and acceleration (ibid., section 14.3).
    - `likelihood`: empirical likelihood (Owen 1988), for a ratio that of its influence values (Jing, Yuan and Zhou
      2009), calibrated by F(1, n - 1); never outside the range of the data.

    `draws` and `seed` are those of the bootstrap. A row whose values are all alike (proportional to `below`) has an
    interval of no width; a single image has none, its bounds are NaN. Raises `ValueError` for an unknown method,
    draws below 1, or a confidence outside (0, 1).
    """
    check_settings(draws, confidence)
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    if above.shape[1] < 2:
        return np.full(len(above), np.nan), np.full(len(above), np.nan)
    value, error, influence = standard_errors(above, below)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if method in ("percentile", "studentized", "bca"):
            drawn, errors = _draws(above, np.atleast_2d(below), draws, seed)
            if method == "percentile":
                return percentile_bounds(drawn, confidence)
            if method == "studentized":
                bounds = _studentized(value, error, drawn, errors, confidence)
            else:
                acceleration = (influence**3).sum(1) / (6 * (influence**2).sum(1) ** 1.5)
                bounds = corrected_percentiles(value, drawn, confidence, acceleration)
        elif method == "likelihood":
            bounds = _likelihood(influence, confidence)
            bounds = value + bounds[0], value + bounds[1]
        else:
            bounds = _student(value, error, influence, method, confidence)
    low, high = (np.where(_alike(error, value), value, bound) for bound in bounds)
    return low, high


@checked_arguments(finite=("changed", "baseline"))
def effect_intervals(
    changed: Float[ndarray, "test image"],
    baseline: Float[ndarray, " image"],
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    relative: bool = True,
    method: str = METHOD,
) -> Bounds:
    """Bounds of `statistics.effect_sizes`, paired: baseline and changed losses are of the same images.

    `method`, `draws` and `seed` are those of `ratio_intervals`; a single image has no interval, its bounds are NaN.
    """
    check_settings(draws, confidence)
    if not relative:
        return mean_intervals(changed - baseline, method, draws, confidence, seed)
    low, high = ratio_intervals(changed, baseline, method, draws, confidence, seed)
    return 100 * (low - 1), 100 * (high - 1)


@checked_arguments(finite=("above", "below", "baseline"))
def ratio_of_effects(
    above: Float[ndarray, " image"],
    below: Float[ndarray, " image"],
    baseline: Float[ndarray, " image"],
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    method: str = METHOD,
) -> Interval:
    """How many times as large the effect of `above` is as that of `below`, all losses per image, on the same images.

    Where the lower effect is not clearly above zero the ratio has no bounds: they are infinite.
    """
    first, second = above - baseline, below - baseline
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(first.mean() / second.mean())
    (least,), (most,) = mean_intervals(second[None], method, draws, confidence, seed)
    if not (least > 0 or most < 0):
        return Interval(value, -np.inf, np.inf)
    (low,), (high,) = ratio_intervals(first[None], second, method, draws, confidence, seed)
    return Interval(value, float(low), float(high))


@checked_arguments(finite=("values",))
def mean_interval(
    values: Float[ndarray, " item"],
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    method: str = METHOD,
) -> Interval:
    """Mean of `values` with its interval over the items; `method`, `draws` and `seed` as in `ratio_intervals`."""
    (low,), (high,) = mean_intervals(values[None], method, draws, confidence, seed)
    return Interval(float(values.mean()), float(low), float(high))


@checked_arguments(finite=("values",))
def joint_interval(
    values: Float[ndarray, "row image"],
    statistic: Callable[[Float[ndarray, "draw row"]], Float[ndarray, " draw"]],
    method: str = "percentile",
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """A number made of all rows' means at once, such as a count, a difference or a rank correlation, with its interval.

    `statistic` turns means [draw, row] into one number a draw; every draw takes the same images for all rows. Methods:
    `percentile`, quantiles of the draws; `corrected`, those quantiles moved by the draws' bias; `reflected`, quantiles
    of the distance from the estimate, reflected (the basic bootstrap); `normal`, the estimate less the draws' bias,
    and their standard deviation. Source: Davison and Hinkley 1997, chapter 5. Draws that have no value are left out.

    Raises `ValueError` for an unknown method, draws below 1, or a confidence outside (0, 1).
    """
    check_settings(draws, confidence)
    if method not in JOINT_METHODS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join(JOINT_METHODS)}")
    value = float(statistic(values.mean(1)[None])[0])
    drawn = np.concatenate(
        [statistic(weights @ values.T) for weights in redrawn(values.shape[1], draws, seed)]
    )
    drawn = drawn[np.isfinite(drawn)].astype(float)[:, None]
    if np.isnan(value) or not drawn.size or values.shape[1] < 2:
        return Interval(value, np.nan, np.nan)
    if method == "corrected":
        low, high = corrected_percentiles(np.array([value]), drawn, confidence)
    elif method == "normal":
        reach, middle = ndtri((1 + confidence) / 2) * drawn.std(0), 2 * value - drawn.mean(0)
        low, high = middle - reach, middle + reach
    else:
        low, high = percentile_bounds(drawn, confidence)
        if method == "reflected":
            low, high = 2 * value - high, 2 * value - low
    return Interval(value, float(low[0]), float(high[0]))


@checked_arguments()
def share_intervals(found: Bool[ndarray, "row image"], confidence: float = 0.95) -> Bounds:
    """Bounds of the share of images for which `found` holds, at any number of images (Clopper and Pearson 1934)."""
    count, images = found.sum(1), found.shape[1]
    tail = (1 - confidence) / 2
    low = np.where(count == 0, 0.0, beta.ppf(tail, count, images - count + 1))
    high = np.where(count == images, 1.0, beta.ppf(1 - tail, count + 1, images - count))
    return low, high


@checked_arguments()
def divided(
    above: Float[ndarray, " row"], low: Float[ndarray, " row"], high: Float[ndarray, " row"], below: Interval
) -> Bounds:
    """Bounds of `above` / `below`, two estimates from different images, from the bounds of each; `below` is positive.

    Squares of distances add up, those of `below` on the logarithm (Zou and Donner 2008). Where some images are common
    to both, the bounds are a little too wide.
    """
    ratio = above / below.value
    down, up = np.log(below.value / below.low), np.log(below.high / below.value)
    less = np.hypot((above - low) / below.value, ratio * np.where(ratio > 0, up, down))
    more = np.hypot((high - above) / below.value, ratio * np.where(ratio > 0, down, up))
    return ratio - less, ratio + more


@checked_arguments(finite=("above", "below"))
def standard_errors(
    above: Float[ndarray, "row image"], below: Float[ndarray, " image"] | Float[ndarray, "row image"]
) -> tuple[Float[ndarray, " row"], Float[ndarray, " row"], Float[ndarray, "row image"]]:
    """Each row's ratio of means, its standard error by the delta method, and each image's influence on it."""
    below = np.atleast_2d(below)
    value = above.mean(1) / below.mean(1)
    influence = (above - value[:, None] * below) / below.mean(1, keepdims=True)
    images = above.shape[1]
    return value, np.sqrt((influence**2).sum(1) / (images - 1) / images), influence


@checked_arguments()
def corrected_percentiles(
    value: Float[ndarray, " row"],
    drawn: Float[ndarray, "draw row"],
    confidence: float = 0.95,
    acceleration: Float[ndarray, " row"] | float = 0.0,
) -> Bounds:
    """Quantiles of bootstrap draws at levels that undo the draws' bias, and their acceleration where it is known."""
    # Ties count as half, else draws that repeat the estimate would look like a bias.
    lower = ((drawn < value).mean(0) + (drawn <= value).mean(0)) / 2
    least = 1 / (2 * len(drawn))
    bias = ndtri(np.clip(lower, least, 1 - least))
    ordered = np.sort(drawn, axis=0)
    bounds = []
    for tail in ((1 - confidence) / 2, (1 + confidence) / 2):
        moved = bias + ndtri(tail)
        place = ndtr(bias + moved / (1 - acceleration * moved)) * (len(drawn) - 1)
        below = np.floor(np.nan_to_num(place)).astype(int)
        two = np.take_along_axis(ordered, np.stack([below, np.minimum(below + 1, len(drawn) - 1)]), axis=0)
        bounds.append(two[0] + (place - below) * (two[1] - two[0]))
    return bounds[0], bounds[1]


@checked_arguments()
def redrawn(images: int, draws: int, seed: int) -> Iterator[Float[ndarray, "draw image"]]:
    """The share of each image in each bootstrap draw: `draws` times `images` with replacement, in blocks."""
    rng = np.random.default_rng(seed)
    size = max(1, _BLOCK // images)
    for start in range(0, draws, size):
        rows = min(size, draws - start)
        # Counting drawn numbers is ten times as fast as rng.multinomial.
        drawn = rng.integers(images, size=(rows, images)) + images * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images) / images


def _draws(
    above: Float[ndarray, "row image"], below: Float[ndarray, "some image"], draws: int, seed: int
) -> tuple[Float[ndarray, "draw row"], Float[ndarray, "draw row"]]:
    """Each bootstrap draw's ratios and their standard errors; every row sees the same images."""
    squares, products, of_below = (above**2).T, (above * below).T, (below**2).T
    ratios, errors = [], []
    for weights in redrawn(above.shape[1], draws, seed):
        scale = weights @ below.T
        ratio = weights @ above.T / scale
        spread = weights @ squares - 2 * ratio * (weights @ products) + ratio**2 * (weights @ of_below)
        ratios.append(ratio)
        errors.append(np.sqrt(np.clip(spread, 0, None) / (above.shape[1] - 1)) / np.abs(scale))
    return np.concatenate(ratios), np.concatenate(errors)


def _studentized(
    value: Float[ndarray, " row"],
    error: Float[ndarray, " row"],
    drawn: Float[ndarray, "draw row"],
    errors: Float[ndarray, "draw row"],
    confidence: float,
) -> Bounds:
    # A draw of one image again and again has no standard error, and says nothing.
    distance = np.where(errors > _ROUNDING * error, (drawn - value) / errors, np.nan)
    least, most = percentile_bounds(distance, confidence)
    return value - most * error, value - least * error


def _student(
    value: Float[ndarray, " row"],
    error: Float[ndarray, " row"],
    influence: Float[ndarray, "row image"],
    method: str,
    confidence: float,
) -> Bounds:
    images = influence.shape[1]
    reach = student.ppf((1 + confidence) / 2, images - 1)
    if method == "padded-t":
        error = np.hypot(error, np.abs(influence).max(1) / np.sqrt((images - 1) * images))
    straight = value - reach * error, value + reach * error
    if method == "t":
        return straight
    if method == "log-t":
        factor = np.exp(reach * error / np.where(value > 0, value, np.nan))
        return value / factor, value * factor
    skewness = (influence**3).mean(1) / (influence**2).mean(1) ** 1.5 / np.sqrt(images)
    bent = value - error * _bent(reach, skewness), value - error * _bent(-reach, skewness)
    return (
        bent
        if method == "transformed-t"
        else (np.minimum(straight[0], bent[0]), np.maximum(straight[1], bent[1]))
    )


def _bent(quantile: float, skewness: Float[ndarray, " row"]) -> Float[ndarray, " row"]:
    """The t whose skewness a cubic takes away to leave `quantile`; `skewness` is that of the mean."""
    straight = np.abs(skewness) < _ROUNDING
    slant = np.where(straight, 1, skewness)
    return np.where(straight, quantile, 3 / slant * (np.cbrt(1 + slant * (quantile - slant / 6)) - 1))


def _likelihood(values: Float[ndarray, "row image"], confidence: float) -> Bounds:
    """Means that an empirical likelihood allows: of all weights that keep it, those that tilt the mean furthest."""
    images = values.shape[1]
    allowed = f.ppf(confidence, 1, images - 1)
    bounds = []
    for way in (-1, 1):
        tilted = way * values
        most, spread = tilted.max(1, keepdims=True), tilted.std(1, keepdims=True)
        # Weights in proportion to 1 / (c - x): the nearer c to the largest x, the more the mean is tilted.
        near, far = np.full((len(values), 1), -30.0), np.full((len(values), 1), 30.0)
        for _ in range(_HALVINGS):
            middle = (near + far) / 2
            weights = 1 / (most + spread * np.exp(middle) - tilted)
            weights /= weights.sum(1, keepdims=True)
            lost = -2 * np.log(images * weights).sum(1, keepdims=True)
            near, far = np.where(lost > allowed, middle, near), np.where(lost > allowed, far, middle)
        bounds.append(way * (weights * tilted).sum(1))
    return bounds[0], bounds[1]


def _alike(error: Float[ndarray, " row"], value: Float[ndarray, " row"]) -> Bool[ndarray, " row"]:
    return error <= _ROUNDING * np.abs(value)
