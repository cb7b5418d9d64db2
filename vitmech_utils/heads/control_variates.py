"""Many images for the price of few: cheap values of many images, put right by exact values of some of them.

For each of many images there is a cheap value c (linearized); for those that chance has picked, each with a known
probability, an exact value x. Then

    u = b c + (x - b c) / probability   where the image was picked,   u = b c   elsewhere

has the mean of x, whatever c is worth: the cheap value decides the width of the interval, never its centre. A row of u
goes where a row of exact values would: into means, ratios, layers, counts. Sources: Cochran 1977, sections 9A and
12 (unequal probabilities, double sampling); Angelopoulos et al. 2023 and Zrnic and Candes 2024 (the same with a model's
predictions for c).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.special import ndtri

from vitmech_utils.arguments import checked_arguments

# Exact images below which no line is fitted.
_FEWEST = 3
# What rounding leaves of nothing, relative to the values that it came from.
_ROUNDING = 1e-12
# Ratios of exact to cheap images that an allocation tries.
_RATIOS = np.geomspace(1e-3, 1, 121)


@dataclass(frozen=True)
class Selection:
    """Which of many images are predicted exactly: `images`, their numbers in order, and each image's `probability`."""

    images: Int[ndarray, " chosen"]
    probability: Float[ndarray, " image"]


@dataclass(frozen=True)
class Allocation:
    """How many images to predict cheaply, and how many of them exactly; what that costs, and what it buys.

    `half_width` is that of the widest row's interval, `cost` in the unit of the costs given, and `cost_exact` what the
    same width costs with exact values alone.
    """

    cheap: int
    exact: int
    half_width: float
    cost: float
    cost_exact: float


@checked_arguments(finite=("cheap",))
def image_sizes(cheap: Float[ndarray, "row image"]) -> Float[ndarray, " image"]:
    """How much each image seems to matter: the root mean square of its rows, each in units of its own.

    Exact values are worth most where the cheap ones are large, since that is where these err. Rows of nothing count
    for nothing; where all are nothing, all images are of size 1.
    """
    scale = np.sqrt((cheap**2).mean(1, keepdims=True))
    told = scale[:, 0] > 0
    if not told.any():
        return np.ones(cheap.shape[1])
    return np.sqrt(((cheap[told] / scale[told]) ** 2).mean(0))


@checked_arguments()
def select_images(
    sizes: Float[ndarray, " image"], count: int, *, even: float = 0.3, seed: int = 0
) -> Selection:
    """Pick `count` images, each with a probability in proportion to its size, or certainly where that exceeds one.

    The share `even` of the picks goes to all images alike, so that none is left out: an image that counts more than it
    seems then has a weight of at most 1 / `even` times the equal one. Sizes that are all alike pick with equal
    probabilities. Source: systematic sampling from a random order (Madow 1949; Hartley and Rao 1962).

    Raises `ValueError` for a count outside 1 to the number of images, sizes that are negative or not finite, `even`
    outside (0, 1].
    """
    images = sizes.size
    if not 1 <= count <= images:
        raise ValueError(f"count is {count}, expected 1 to {images}, the number of images")
    if not (np.isfinite(sizes).all() and (sizes >= 0).all()):
        raise ValueError("sizes hold negative or non-finite values, expected finite ones of at least 0")
    if not 0 < even <= 1:
        raise ValueError(f"even is {even}, expected above 0 and at most 1")
    share = np.full(images, 1 / images) if sizes.sum() == 0 else sizes / sizes.sum()
    probability = _inclusion(even / images + (1 - even) * share, count)
    rng = np.random.default_rng([seed, images, count])
    certain = np.flatnonzero(probability == 1)
    order = rng.permutation(np.flatnonzero(probability < 1))
    # The others lie end to end in a random order, each as long as its probability; every unit has one tick.
    ticks = rng.uniform() + np.arange(count - certain.size)
    picked = np.searchsorted(np.cumsum(probability[order]), ticks, side="right").clip(max=order.size - 1)
    return Selection(np.sort(np.concatenate([certain, order[picked]])), probability)


@checked_arguments(finite=("cheap", "exact"))
def corrected_values(
    cheap: Float[ndarray, "row image"],
    exact: Float[ndarray, "row chosen"],
    selection: Selection,
    *,
    fitted: bool = False,
    folds: int = 5,
    seed: int = 0,
) -> Float[ndarray, "row image"]:
    """One value per row and image whose mean over images estimates the exact mean without bias.

    `exact[:, j]` belongs to image `selection.images[j]` of `cheap`. With `fitted`, the cheap values of a fold of images
    are first given the slope and the intercept that fit the exact ones of the other folds best, which keeps the
    estimate free of bias; a slope that nothing tells (fewer than three exact images, cheap values that are all alike)
    is 1. Without, the slope is 1 and the intercept is none.

    Returns [row, image], for `mean_intervals` and `ratio_intervals`, which then hold both what cheap values of few
    images and exact values of fewer leave open. Raises `ValueError` for exact values of images that are not among the
    cheap ones, or that could not have been picked.
    """
    _check(cheap, exact, selection)
    chosen, probability = selection.images, selection.probability
    fold = np.random.default_rng([seed, cheap.shape[1]]).permutation(cheap.shape[1]) % folds
    straight = np.array(cheap, dtype=float)
    if fitted:
        for part in range(folds):
            others = fold[chosen] != part
            slope, start = _fit(cheap[:, chosen[others]], exact[:, others], probability[chosen[others]])
            members = fold == part
            straight[:, members] = start[:, None] + slope[:, None] * cheap[:, members]
    values = straight.copy()
    values[:, chosen] += (exact - straight[:, chosen]) / probability[chosen]
    return values


@checked_arguments(finite=("cheap", "exact"))
def allocate(
    cheap: Float[ndarray, "row image"],
    exact: Float[ndarray, "row image"],
    *,
    cost_cheap: float | int,
    cost_exact: float | int,
    half_width: float | int | None = None,
    budget: float | int | None = None,
    even: float = 0.3,
    confidence: float = 0.95,
) -> Allocation:
    """Decide how many images to predict cheaply and how many of them exactly, from a pilot of equally likely images.

    Either `half_width`, which the interval of every row is to reach at the least cost, or `budget`, which is to give
    the narrowest widest interval. Costs are those of one image, all rows together, in any one unit. `even` is that of
    `select_images`. A pilot of few images has seen little of a heavy tail, and promises too much.

    Raises `ValueError` for fewer than two images, arrays that do not match, costs or goals that are not above 0.
    """
    if cheap.shape != exact.shape or cheap.shape[1] < 2:
        raise ValueError(
            f"the pilot has cheap values of shape {cheap.shape} and exact ones of {exact.shape}, expected the same "
            "[row, image], of at least two images"
        )
    if (half_width is None) == (budget is None):
        raise ValueError("expected either half_width or budget, and not both")
    for name, number in (
        ("cost_cheap", cost_cheap), ("cost_exact", cost_exact), ("half_width", half_width), ("budget", budget)
    ):  # fmt: skip
        if number is not None and not number > 0:
            raise ValueError(f"{name} is {number}, expected a number above 0")
    images = cheap.shape[1]
    sizes = image_sizes(cheap)
    share = even / images + (1 - even) * sizes / sizes.sum()
    spread = exact.var(1, ddof=1)
    squares = (exact - cheap) ** 2
    reach = ndtri((1 + confidence) / 2)
    # The variance that one image brings, of the widest row, for each ratio of exact images to cheap ones.
    widest = np.array(
        [
            (spread + ((1 / _inclusion(share, ratio * images) - 1) * squares).mean(1)).max()
            for ratio in _RATIOS
        ]
    )
    price = widest * (cost_cheap + _RATIOS * cost_exact)
    best = int(price.argmin())
    if half_width is None:
        half_width = float(reach * np.sqrt(price[best] / budget))
    count = max(2, int(np.ceil(widest[best] * (reach / half_width) ** 2)))
    few = max(2, int(np.ceil(_RATIOS[best] * count)))
    return Allocation(
        cheap=count,
        exact=few,
        half_width=float(half_width),
        cost=float(count * cost_cheap + few * cost_exact),
        cost_exact=float(spread.max() * (reach / half_width) ** 2 * cost_exact),
    )


def _inclusion(share: Float[ndarray, " image"], count: float | int) -> Float[ndarray, " image"]:
    """Probabilities in proportion to `share` that add up to `count`, none above 1."""
    certain = np.zeros(share.size, dtype=bool)
    probability = count * share
    while (probability[~certain] > 1).any():
        certain |= probability > 1
        probability = (count - certain.sum()) * share / share[~certain].sum()
    return np.where(certain, 1.0, probability)


def _fit(
    cheap: Float[ndarray, "row some"], exact: Float[ndarray, "row some"], probability: Float[ndarray, " some"]
) -> tuple[Float[ndarray, " row"], Float[ndarray, " row"]]:
    """The slope and intercept that leave the least variance to the picked images; 1 and none where nothing tells."""
    weight = (1 - probability) / probability**2
    if cheap.shape[1] < _FEWEST or weight.sum() <= 0:
        return np.ones(len(cheap)), np.zeros(len(cheap))
    weight = weight / weight.sum()
    middle, level = cheap @ weight, exact @ weight
    apart = cheap - middle[:, None]
    spread = apart**2 @ weight
    told = spread > _ROUNDING * middle**2
    shared = ((exact - level[:, None]) * apart) @ weight
    slope = np.where(told, shared / np.where(told, spread, 1), 1.0)
    return slope, level - slope * middle


def _check(cheap: ndarray, exact: ndarray, selection: Selection) -> None:
    images, chosen = cheap.shape[1], selection.images
    if selection.probability.size != images:
        raise ValueError(
            f"the selection was made among {selection.probability.size} images, but there are cheap values of "
            f"{images}: exact values put cheap ones right only on images that have both"
        )
    if exact.shape != (len(cheap), chosen.size):
        raise ValueError(
            f"exact values have shape {exact.shape}, expected ({len(cheap)}, {chosen.size}): a row for each cheap "
            "one, a column for each selected image"
        )
    if (
        chosen.size == 0
        or chosen.min() < 0
        or chosen.max() >= images
        or len(set(chosen.tolist())) < chosen.size
    ):
        raise ValueError(
            f"the selected images are not among the {images} that have cheap values, each at most once and at least "
            "one: exact values of other images say nothing of the cheap ones' errors"
        )
    if not ((selection.probability > 0) & (selection.probability <= 1)).all():
        raise ValueError(
            "some images had no chance to be picked, expected a probability above 0, and at most 1, for each"
        )
