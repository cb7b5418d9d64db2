import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from vitmech_utils.intervals import effect_intervals, mean_interval, ratio_of_effects, redrawn
from vitmech_utils.statistics import (
    Interval,
    adjust,
    paired_p_values,
    percent_effect,
    percentile_bounds,
    rank_correlation,
)


def test_effect_is_the_change_of_the_mean_in_percent():
    baseline, changed = np.array([1.0, 3.0]), np.array([[1.0, 3.0], [2.0, 4.0], [0.0, 1.0]])
    np.testing.assert_allclose(percent_effect(changed, baseline), [0.0, 50.0, -75.0])


def test_a_constant_ratio_has_an_interval_of_no_width():
    baseline = np.random.default_rng(0).exponential(size=17)
    low, high = effect_intervals(np.stack([baseline * 1.25]), baseline, draws=101)
    np.testing.assert_allclose([low[0], high[0]], 25.0)


def test_the_bootstrap_is_the_one_written_out_with_a_loop():
    rng = np.random.default_rng(1)
    baseline, changed = rng.exponential(size=11), rng.exponential(size=(3, 11))
    low, high = effect_intervals(changed, baseline, draws=53, confidence=0.9, seed=7, method="percentile")
    counts = (np.concatenate(list(redrawn(11, 53, 7))) * 11).round().astype(int)
    drawn = []
    for draw in counts:
        chosen = np.repeat(np.arange(11), draw)
        drawn.append([100 * (row[chosen].mean() / baseline[chosen].mean() - 1) for row in changed])
    np.testing.assert_allclose([low, high], np.quantile(drawn, [0.05, 0.95], axis=0))


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng, covered = np.random.default_rng(2), 0
    for trial in range(200):
        baseline = rng.exponential(size=60)
        changed = baseline + 0.2 + 0.3 * rng.standard_normal(60)
        low, high = effect_intervals(changed[None], baseline, draws=300, seed=trial)
        covered += low[0] <= 20.0 <= high[0]
    assert 0.88 <= covered / 200 <= 0.99


def test_sign_flips_are_enumerated_for_few_images():
    differences = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, -1.0, 1.0, -1.0]])
    np.testing.assert_allclose(paired_p_values(differences), [2 / 16, 1.0])


def test_p_values_are_uniform_without_and_small_with_an_effect():
    rng = np.random.default_rng(3)
    nothing = paired_p_values(rng.standard_normal((400, 40)), draws=500)
    assert 0.02 < (nothing < 0.05).mean() < 0.09
    assert paired_p_values(rng.standard_normal((1, 40)) + 1, draws=500)[0] == pytest.approx(1 / 501)


def test_benjamini_hochberg_by_hand():
    np.testing.assert_allclose(adjust(np.array([0.01, 0.04, 0.03, 0.5])), [0.04, 0.16 / 3, 0.16 / 3, 0.5])


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 40), st.integers(0, 99))
def test_rank_correlation_is_scipys_and_ignores_monotone_changes(size, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, size))
    found = rank_correlation(a, b, draws=50, seed=seed)
    assert found.value == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)
    assert rank_correlation(np.exp(a), b, draws=50, seed=seed) == found


def test_rank_correlation_of_a_constant_is_no_number():
    assert np.isnan(rank_correlation(np.ones(5), np.arange(5.0), draws=5).value)


def test_mean_interval_holds_the_mean():
    found = mean_interval(np.array([1.0, 2.0, 4.0]), draws=200)
    assert found.low <= found.value <= found.high
    assert f"{found:.1f}".startswith("2.3 [")


@pytest.mark.parametrize(
    ("draws", "confidence", "message"), [(0, 0.9, "at least 1"), (10, 1.5, "between 0 and 1")]
)
def test_settings_out_of_range_are_refused(draws, confidence, message):
    with pytest.raises(ValueError, match=message):
        effect_intervals(np.ones((1, 3)), np.ones(3), draws, confidence)


def test_the_ratio_of_effects_is_a_ratio_of_effects():
    baseline = np.random.default_rng(0).exponential(size=19)
    found = ratio_of_effects(baseline * 1.3, baseline * 1.1, baseline, draws=50)
    np.testing.assert_allclose([found.value, found.low, found.high], 3.0)


@given(seed=st.integers(0, 10_000), missing=st.sampled_from([0.0, 0.1, 0.6]))
@settings(max_examples=30, deadline=None)
def test_percentile_bounds_leave_missing_draws_out_as_numpy_does(seed, missing):
    rng = np.random.default_rng(seed)
    drawn = rng.normal(size=(41, 3, 2))
    drawn[rng.random(drawn.shape) < missing] = np.nan
    drawn[0] = 0.0  # at least one draw for each item
    low, high = percentile_bounds(drawn, 0.9)
    expected = np.nanquantile(drawn, [0.05, 0.95], axis=0)
    np.testing.assert_allclose([low, high], expected, rtol=1e-14)


def test_percentile_bounds_of_an_item_without_a_draw_are_no_numbers():
    low, high = percentile_bounds(np.array([[1.0, np.nan], [3.0, np.nan]]))
    assert np.isnan(low[1])
    assert np.isnan(high[1])
    assert 1 <= low[0] < high[0] <= 3


def test_a_single_image_has_an_effect_and_no_interval():
    low, high = effect_intervals(np.array([[2.0], [1.0]]), np.array([1.0]))
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_an_interval_without_a_value_is_unknown_in_words() -> None:
    assert f"{Interval(np.nan, np.nan, np.nan):.2f}" == "unknown"
    assert f"{Interval(0.5, 0.25, 0.75):+.1f}" == "+0.5 [+0.2, +0.8]"
