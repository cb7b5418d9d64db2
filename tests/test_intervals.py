"""Intervals of means and ratios: known answers, equivariance, coverage, and what has no interval."""

import numpy as np
import pytest
from scipy import optimize, stats

from vitmech_utils.intervals import (
    JOINT_METHODS,
    METHODS,
    corrected_percentiles,
    joint_interval,
    mean_intervals,
    ratio_intervals,
    redrawn,
    share_intervals,
    standard_errors,
)
from vitmech_utils.statistics import spearman

ROWS, IMAGES = 3, 41


def heavy(rows: int = ROWS, images: int = IMAGES, seed: int = 0):
    return np.random.default_rng(seed).lognormal(sigma=1.2, size=(rows, images))


@pytest.mark.parametrize("method", METHODS)
def test_bounds_enclose_the_estimate_and_follow_the_scale(method):
    values, below = heavy(), heavy(1, seed=1)[0]
    for found, by in ((mean_intervals, ()), (ratio_intervals, (below,))):
        low, high = found(values, *by, method, draws=499)
        estimate = values.mean(1) / (by[0].mean() if by else 1)
        assert low.shape == high.shape == (ROWS,)
        assert (low < estimate).all()
        assert (estimate < high).all()
        again = found(1000 * values, *by, method, draws=499)
        np.testing.assert_allclose(again, (1000 * low, 1000 * high), rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_rows_do_not_meet_and_a_mean_is_a_ratio_to_one(method):
    values = heavy()
    together = mean_intervals(values, method, draws=299)
    alone = [mean_intervals(row[None], method, draws=299) for row in values]
    np.testing.assert_allclose(together, np.concatenate(alone, axis=1), rtol=1e-9)
    own = ratio_intervals(values, np.full_like(values, 2.0), method, draws=299)
    np.testing.assert_allclose(2 * np.array(own), together, rtol=1e-9)


def test_student_s_interval_is_scipy_s():
    low, high = mean_intervals(heavy(), "t")
    for row, bounds in zip(heavy(), zip(low, high, strict=True), strict=True):
        np.testing.assert_allclose(bounds, stats.ttest_1samp(row, 0).confidence_interval(0.95))
    low, high = mean_intervals(heavy(), "log-t")
    np.testing.assert_allclose(low * high, heavy().mean(1) ** 2)


def test_bca_is_scipy_s():
    values, below = heavy(), heavy(1, seed=1)[0]
    ours = ratio_intervals(values, below, "bca", draws=9999)
    for row, low, high in zip(values, *ours, strict=True):
        theirs = stats.bootstrap(
            (row, below), lambda a, b, axis=-1: a.mean(axis) / b.mean(axis), paired=True, vectorized=True,
            method="BCa", n_resamples=9999, rng=np.random.default_rng(7),
        ).confidence_interval  # fmt: skip
        np.testing.assert_allclose((low, high), theirs, rtol=0.05)


def test_the_likelihood_is_as_large_as_allowed_at_its_bounds():
    row = heavy(1)[0]
    allowed = stats.f.ppf(0.95, 1, IMAGES - 1)
    for bound in np.ravel(mean_intervals(row[None], "likelihood")):
        moved = row - bound
        # Owen 1988: weights 1 / (n (1 + lambda (x - mean))), with lambda such that their mean is the bound.
        edges = -1 / moved.max() + 1e-9, -1 / moved.min() - 1e-9
        slope = optimize.brentq(lambda at, moved=moved: (moved / (1 + at * moved)).sum(), *edges)
        assert 2 * np.log1p(slope * moved).sum() == pytest.approx(allowed, rel=1e-6)
    low, high = mean_intervals(np.array([[0.0, 0.0, 0.0, 1.0]]), "likelihood")
    assert 0 < low[0] < 0.25 < high[0] < 1


def test_the_cubic_takes_skewness_away_and_leaves_what_has_none():
    even = np.concatenate([np.arange(7.0), -np.arange(7.0)])[None]
    np.testing.assert_allclose(mean_intervals(even, "transformed-t"), mean_intervals(even, "t"), atol=1e-12)
    low, high = mean_intervals(heavy(), "transformed-t")
    plain_low, plain_high = mean_intervals(heavy(), "t")
    assert (low > plain_low).all()
    assert (high > plain_high).all()
    np.testing.assert_array_equal(mean_intervals(heavy(), "lengthened-t"), (plain_low, high))
    mirrored = mean_intervals(-heavy(), "transformed-t")
    np.testing.assert_allclose(mirrored, (-high, -low))


def covered(method: str, draw, truth: float, repeats: int = 400) -> float:
    rng = np.random.default_rng(0)
    low, high = mean_intervals(draw(rng, repeats), method, draws=399)
    return float(((low <= truth) & (truth <= high)).mean())


@pytest.mark.parametrize("method", METHODS)
def test_all_cover_where_values_are_normal(method):
    def normal(rng, repeats):
        return 3 + rng.standard_normal((repeats, 61))

    assert 0.91 < covered(method, normal, 3.0) < 0.975


def test_the_correction_for_skewness_covers_where_percentiles_do_not():
    def skewed(rng, repeats):
        return rng.lognormal(sigma=1.5, size=(repeats, 97))

    found = {method: covered(method, skewed, np.exp(1.125)) for method in METHODS}
    assert found["percentile"] < 0.88
    assert found["transformed-t"] > 0.91
    assert found["studentized"] > 0.89
    assert found["padded-t"] >= max(found.values())
    assert found["padded-t"] >= found["lengthened-t"] >= found["transformed-t"]


def test_the_padded_interval_is_that_of_one_more_value_as_far_out_as_the_last():
    row = heavy(1)[0]
    out = np.abs(row - row.mean()).max()
    error = np.sqrt((((row - row.mean()) ** 2).sum() + out**2) / (IMAGES - 1) / IMAGES)
    low, high = mean_intervals(row[None], "padded-t")
    reach = stats.t.ppf(0.975, IMAGES - 1) * error
    assert low[0] == pytest.approx(
        row.mean() - reach
    )  # the cubic lengthens the other side of what leans to the right
    assert high[0] > row.mean() + reach
    even = np.tile([0.0, 1.0], 500)[None]
    padded, plain = (np.ptp(mean_intervals(even, method)) for method in ("padded-t", "lengthened-t"))
    assert padded == pytest.approx(plain * np.sqrt(1001 / 1000))


def test_the_padded_interval_covers_where_single_values_decide():
    def rare(rng, repeats):
        return rng.lognormal(sigma=2.0, size=(repeats, 200)) * rng.choice([-0.2, 1.0], size=(repeats, 200))

    truth = 0.4 * np.exp(2.0)
    assert covered("padded-t", rare, truth) > covered("lengthened-t", rare, truth) + 0.005


def test_the_lengthened_interval_covers_where_the_cubic_is_misled():
    """Heavy tails on both sides: the skewness of a sample is chance."""

    def balanced(rng, repeats):
        return rng.standard_t(1.8, size=(repeats, 97))

    guarded = covered("lengthened-t", balanced, 0.0)
    assert guarded > 0.94
    assert covered("transformed-t", balanced, 0.0) < guarded - 0.02


@pytest.mark.parametrize("method", METHODS)
def test_values_that_are_alike_have_no_width(method):
    below = heavy(1)[0]
    for low, high in (
        mean_intervals(np.full((1, 7), 0.3), method, draws=50),
        mean_intervals(np.zeros((1, 7)), method, draws=50),
        ratio_intervals(3 * below[None], below, method, draws=50),
    ):
        np.testing.assert_allclose(low, high, atol=1e-12)
    assert np.isnan(mean_intervals(np.ones((2, 1)), method)).all()


def test_the_logarithm_of_a_negative_estimate_is_not_a_number():
    assert np.isnan(mean_intervals(-heavy(), "log-t")).all()


def test_the_error_of_a_ratio_is_that_of_repeated_samples():
    rng = np.random.default_rng(0)
    above, below = rng.gamma(5, size=(4000, 101)), rng.gamma(7, size=(4000, 101))
    value, error, influence = standard_errors(above, below)
    assert value.std() == pytest.approx(np.median(error), rel=0.05)
    np.testing.assert_allclose(influence.mean(1), 0, atol=1e-12)


def test_shares_are_clopper_and_pearson_s():
    found = np.zeros((3, 29), dtype=bool)
    found[1, :4], found[2] = True, True
    low, high = share_intervals(found)
    for count, bounds in zip((0, 4, 29), zip(low, high, strict=True), strict=True):
        theirs = stats.binomtest(count, 29).proportion_ci(method="exact")
        np.testing.assert_allclose(bounds, (theirs.low, theirs.high), atol=1e-12)


def test_draws_that_lie_off_the_estimate_are_moved_back():
    rng = np.random.default_rng(0)
    drawn = rng.normal((0.0, 0.5), size=(20_001, 2))
    low, high = corrected_percentiles(np.zeros(2), drawn)
    np.testing.assert_allclose([low[0], high[0]], [-1.96, 1.96], atol=0.08)
    np.testing.assert_allclose([low[1], high[1]], [-2.46, 1.46], atol=0.1)


def test_every_draw_takes_as_many_images_as_there_are():
    drawn = np.concatenate(list(redrawn(13, 7, seed=0)))
    assert drawn.shape == (7, 13)
    np.testing.assert_allclose(drawn.sum(1), 1)
    np.testing.assert_allclose(drawn * 13, np.round(drawn * 13))


def test_unknown_methods_and_settings_are_refused():
    with pytest.raises(ValueError, match="method is 'basic', expected one of percentile, t, log-t"):
        mean_intervals(heavy(), "basic")
    with pytest.raises(ValueError, match="bootstrap is 0"):
        mean_intervals(heavy(), "bca", draws=0)
    with pytest.raises(ValueError, match="confidence is 95"):
        mean_intervals(heavy(), confidence=95.0)


@pytest.mark.parametrize("method", JOINT_METHODS)
def test_a_number_of_all_rows_is_drawn_jointly(method):
    """The difference of two rows that share their noise is known far better than either."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=199)
    values = np.stack([noise, noise + 0.5 + 0.01 * rng.normal(size=199)])
    found = joint_interval(values, lambda means: means[:, 1] - means[:, 0], method, draws=499)
    assert found.value == pytest.approx(np.diff(values.mean(1))[0])
    assert found.low < 0.5 < found.high
    assert found.half_width == pytest.approx(1.96 * 0.01 / 199**0.5, rel=0.15)


def test_joint_draws_follow_a_mean_s_own():
    low, high = mean_intervals(heavy(1), "percentile", draws=299)
    found = joint_interval(heavy(1), lambda means: means[:, 0], "percentile", draws=299)
    np.testing.assert_allclose((found.low, found.high), (low[0], high[0]))
    mirrored = joint_interval(heavy(1), lambda means: means[:, 0], "reflected", draws=299)
    np.testing.assert_allclose(
        (mirrored.low, mirrored.high), (2 * found.value - high[0], 2 * found.value - low[0])
    )


def test_an_order_that_noise_blurs_is_corrected_upwards():
    """Redrawn means are noisier than the means, so their order agrees less with the truth's than theirs."""
    rng = np.random.default_rng(0)
    truth = np.linspace(0, 1, 31)
    values = truth[:, None] + rng.normal(size=(31, 47)) * 2

    def order(means):
        return spearman(means, np.broadcast_to(truth, means.shape))

    plain, corrected = (
        joint_interval(values, order, method, draws=999) for method in ("percentile", "corrected")
    )
    assert corrected.low > plain.low
    assert corrected.high > plain.high
    blank = joint_interval(values, lambda means: np.full(len(means), np.nan), draws=9)
    assert np.isnan([blank.value, blank.low, blank.high]).all()
    with pytest.raises(ValueError, match="method is 'bca', expected one of percentile, corrected"):
        joint_interval(values, order, "bca")
