"""Shared orders of heads: known answers with and without noise, what depth explains, and shapes that do not fit."""

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from vitmech_utils.heads.rank_agreement import depth_alone, disattenuated_correlation, permutation_null

RNG = np.random.default_rng(0)
HEADS, IMAGES = 60, 40


def noisy(order: np.ndarray, noise: float, seed: int, images: int = IMAGES) -> np.ndarray:
    """One quantity [1, head, image]: the order, and noise of every image's own."""
    return order[None, :, None] + noise * np.random.default_rng(seed).normal(size=(1, len(order), images))


def test_the_same_order_is_shared_in_full_whatever_the_noise():
    order = RNG.normal(size=HEADS)
    blurred = disattenuated_correlation(noisy(order, 5.0, 1), noisy(order, 5.0, 2), draws=500)
    assert blurred.between.value < 0.8  # what a plain correlation would say
    assert blurred.share.value == pytest.approx(1, abs=0.2)
    assert blurred.share.low < 1 < blurred.share.high
    sharp = disattenuated_correlation(noisy(order, 0.0, 1), noisy(order, 0.0, 2), draws=50)
    assert (sharp.between.value, sharp.ceiling.value, sharp.share.value) == pytest.approx((1, 1, 1))
    assert sharp.images == IMAGES // 2


def test_another_order_shares_what_the_true_orders_share():
    first = RNG.normal(size=400)
    second = 0.6 * first + 0.8 * RNG.normal(size=400)
    true = spearmanr(first, second).statistic
    found = disattenuated_correlation(noisy(first, 4.0, 3), noisy(second, 4.0, 4), draws=300)
    assert found.between.value < 0.8 * true
    assert found.share.value == pytest.approx(true, abs=0.12)
    assert found.share.low < true < found.share.high
    reverse = disattenuated_correlation(noisy(first, 0.0, 1), noisy(-first, 0.0, 2), draws=50)
    assert reverse.share.value == pytest.approx(-1)


def test_noise_alone_has_no_ceiling():
    nothing = np.zeros(HEADS)
    found = disattenuated_correlation(noisy(nothing, 1.0, 5), noisy(nothing, 1.0, 6), draws=200)
    assert abs(found.between.value) < 0.3
    assert not found.ceiling.low > 0.3
    constant = disattenuated_correlation(np.zeros((1, 9, 4)), np.zeros((1, 9, 4)), draws=20)
    assert constant.between.value == 0
    assert np.isnan([constant.ceiling.value, constant.share.value, constant.share.low]).all()


def test_counted_ranks_are_those_of_heads_drawn_and_sorted_anew():
    rng = np.random.default_rng(7)
    first = np.round(rng.normal(size=(2, 12, 1)) + rng.normal(size=(2, 12, 10)), 0)  # many equal values
    second = np.round(first + rng.normal(size=first.shape), 0)
    found = disattenuated_correlation(first, second, draws=600, seed=5, splits=3)

    rng = np.random.default_rng(5)
    chosen = np.vstack([np.arange(12), rng.integers(12, size=(600, 12))])
    between = np.zeros(601)
    for _ in range(3):
        order = rng.permutation(10)
        for one, two in zip(first, second, strict=True):
            for mine, other in ((order[:5], order[5:]), (order[5:], order[:5])):
                ranks = [
                    rankdata(found[:, part].mean(1)[chosen], axis=1)
                    for found, part in ((one, mine), (two, other))
                ]
                between += [np.corrcoef(*pair)[0, 1] for pair in zip(*ranks, strict=True)]
    between /= 12
    low, high = np.quantile(between[1:], [0.025, 0.975])
    assert vars(found.between) == pytest.approx({"value": between[0], "low": low, "high": high}, abs=1e-12)


def test_quantities_are_averaged():
    one, two = RNG.normal(size=(2, HEADS))
    both = np.concatenate([noisy(one, 0, 1), noisy(two, 0, 1)])
    half = np.concatenate([noisy(one, 0, 1), noisy(-two, 0, 1)])
    assert disattenuated_correlation(both, both, draws=20).between.value == pytest.approx(1)
    assert disattenuated_correlation(both, half, draws=20).between.value == pytest.approx(0)


def test_the_same_seed_gives_the_same_answer():
    order = RNG.normal(size=HEADS)
    pair = noisy(order, 1.0, 1), noisy(order, 1.0, 2)
    assert disattenuated_correlation(*pair, draws=50, seed=3) == disattenuated_correlation(
        *pair, draws=50, seed=3
    )
    assert disattenuated_correlation(*pair, draws=50, seed=3) != disattenuated_correlation(
        *pair, draws=50, seed=4
    )


def test_heads_that_change_places_keep_what_depth_explains():
    layers = np.repeat(np.arange(12), 5)
    deep = layers + 0.01 * RNG.normal(size=60)
    order = np.array([7, 3, 11, 0, 5, 9, 1, 10, 2, 8, 4, 6] * 5)  # layers need not stand in order
    for values, where in ((deep, layers), (deep[np.argsort(order)], layers[np.argsort(order)])):
        within = permutation_null(values[None], values[None], where, draws=200)
        assert within.low > 0.95
    assert permutation_null(deep[None], deep[None], draws=500).value == pytest.approx(0, abs=0.05)
    flat = RNG.normal(size=60)
    assert abs(permutation_null(flat[None], flat[None], layers, draws=300).value) < 0.35


def test_depth_alone_is_blurred_by_few_images_as_the_correlation_is():
    layers = np.repeat(np.arange(12), 5)
    deep = layers.astype(float)
    few, many = ((noisy(deep, 6.0, 1, images), noisy(deep, 6.0, 2, images)) for images in (4, 4000))
    for pair in (few, many):
        between = disattenuated_correlation(*pair, draws=50).between.value
        assert depth_alone(*pair, layers, draws=200).value == pytest.approx(between, abs=0.08)
    whole = permutation_null(few[0].mean(2), few[1].mean(2), layers, draws=200).value
    assert depth_alone(*few, layers, draws=200).value < whole - 0.05, "halves are blurred more than all"
    with pytest.raises(ValueError, match="two images or more"):
        depth_alone(few[0][:, :, :1], few[1][:, :, :1], layers)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ((1, 5, 4), (1, 5, 3), r"got shapes \(1, 5, 4\) and \(1, 5, 3\), expected two equal ones"),
        ((5, 4), (5, 4), r"expected two equal ones \[quantity, head, image\]"),
        ((1, 2, 4), (1, 2, 4), "1 quantities of 2 heads on 4 images, expected at least 1, 3 and 2"),
        ((1, 5, 1), (1, 5, 1), "5 heads on 1 images"),
    ],
)
def test_what_does_not_fit_is_refused(first, second, message):
    with pytest.raises(ValueError, match=message):
        disattenuated_correlation(np.zeros(first), np.zeros(second))


def test_layers_and_draws_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="one per head"):
        permutation_null(np.zeros((1, 5)), np.zeros((1, 5)), np.zeros(4, dtype=int))
    with pytest.raises(ValueError, match="bootstrap is 0"):
        disattenuated_correlation(np.zeros((1, 5, 4)), np.zeros((1, 5, 4)), draws=0)
