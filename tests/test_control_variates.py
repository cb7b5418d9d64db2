"""Cheap values put right by exact ones: no bias, intervals that cover, and what must be refused."""

from pathlib import Path

import numpy as np
import pytest
from heads_zoo import TARGETS, pictures, zoo
from safetensors.numpy import load_file
from test_changes import NAMES

from vitmech_utils.heads.ablation import predict_without_heads
from vitmech_utils.heads.changes import ALL, changes, effect_table
from vitmech_utils.heads.control_variates import (
    Selection,
    allocate,
    corrected_values,
    image_sizes,
    select_images,
)
from vitmech_utils.heads.linearized import predict_linearized
from vitmech_utils.intervals import mean_intervals
from vitmech_utils.tasks import squared_error

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def population():
    """Effects of three heads on the 5,000 published held-out readings, exact and as a cheap estimate has them.

    The readings' errors are real. What heads do to them is resampled from exact ablations of 96 images, and
    grows with the reading's error; the cheap estimate is off by some percent, by more where a head does more.
    """
    score = load_file(ROOT / "published" / "02_lora_fine_tuning" / "predictions.safetensors")
    error = (score["predictions"] - score["labels"]).astype(float)
    stored = load_file(ROOT / "benchmarks" / "exact_predictions.safetensors")
    rng = np.random.default_rng(0)
    heads = [3, 34, 58]
    moves = (stored["ablated_mean"][heads] - stored["baseline_mean"])[:, rng.integers(96, size=len(error))]
    moves *= 1 + np.abs(error).mean(1, keepdims=True)
    cheap_moves = moves * (1 + 0.1 * rng.standard_normal(moves.shape) - 0.3 * np.abs(moves))
    exact, cheap = (((error + d) ** 2 - error**2).mean(-1) for d in (moves, cheap_moves))
    return cheap, exact


def estimates(population, *, images: int, few: int, repeats: int, by_size: bool, fitted: bool):
    cheap, exact = population
    rng = np.random.default_rng(1)
    for repeat in range(repeats):
        part = rng.integers(cheap.shape[1], size=images)
        sizes = image_sizes(cheap[:, part]) if by_size else np.ones(images)
        selection = select_images(sizes, few, seed=repeat)
        yield corrected_values(
            cheap[:, part], exact[:, part[selection.images]], selection, fitted=fitted, seed=repeat
        )


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("by_size", [False, True])
def test_there_is_no_bias_and_intervals_cover(population, by_size, fitted):
    _, exact = population
    truth = exact.mean(1)
    means, held = [], np.zeros(len(truth))
    repeats = 300
    for values in estimates(population, images=1499, few=97, repeats=repeats, by_size=by_size, fitted=fitted):
        low, high = mean_intervals(values)
        held += (low <= truth) & (truth <= high)
        means.append(values.mean(1))
    error = np.std(means, axis=0) / np.sqrt(repeats)
    assert (np.abs(np.mean(means, axis=0) - truth) < 4 * error).all()
    assert (held / repeats > 0.92).all()


def test_it_is_worth_many_times_its_exact_images(population):
    _, exact = population
    alone = exact.std(1) / np.sqrt(97)
    spread = {
        by_size: np.std(
            [
                v.mean(1)
                for v in estimates(
                    population, images=1499, few=97, repeats=200, by_size=by_size, fitted=False
                )
            ],
            axis=0,
        )
        for by_size in (False, True)
    }
    assert (spread[False] < 0.6 * alone).all()
    assert (spread[True] < spread[False]).all()


def test_a_worthless_cheap_value_costs_width_alone(population):
    _, exact = population
    noise = np.random.default_rng(5).permuted(exact, axis=1)
    means = [
        values.mean(1)
        for values in estimates((noise, exact), images=499, few=101, repeats=300, by_size=True, fitted=True)
    ]
    error = np.std(means, axis=0) / np.sqrt(len(means))
    assert (np.abs(np.mean(means, axis=0) - exact.mean(1)) < 4 * error).all()


def test_cheap_values_that_are_exact_leave_nothing_to_correct():
    values = np.random.default_rng(0).lognormal(size=(3, 53))
    selection = select_images(image_sizes(values), 11)
    for fitted in (False, True):
        found = corrected_values(values, values[:, selection.images], selection, fitted=fitted)
        np.testing.assert_allclose(found, values)


def test_a_straight_line_between_cheap_and_exact_is_found():
    cheap = np.random.default_rng(0).lognormal(size=(3, 53))
    exact = 5 + cheap * np.array([[0.5], [2.0], [-1.0]])
    selection = select_images(image_sizes(cheap), 17)
    found = corrected_values(cheap, exact[:, selection.images], selection, fitted=True)
    np.testing.assert_allclose(found, exact)


def test_all_images_picked_give_the_exact_values():
    rng = np.random.default_rng(0)
    cheap, exact = rng.normal(size=(2, 3, 29))
    selection = select_images(image_sizes(cheap), 29)
    np.testing.assert_array_equal(selection.images, np.arange(29))
    np.testing.assert_allclose(selection.probability, 1)
    for fitted in (False, True):
        np.testing.assert_allclose(corrected_values(cheap, exact, selection, fitted=fitted), exact)


@pytest.mark.parametrize("few", [1, 2, 7])
def test_a_coefficient_that_nothing_tells_is_one(few):
    rng = np.random.default_rng(0)
    cheap, exact = np.full((2, 31), 0.25), rng.normal(size=(2, 31))
    selection = select_images(np.ones(31), few)
    found = corrected_values(cheap, exact[:, selection.images], selection, fitted=True)
    assert np.isfinite(found).all()
    if few < 3:
        plain = corrected_values(cheap, exact[:, selection.images], selection)
        np.testing.assert_allclose(found, plain)
    nothing = corrected_values(np.zeros((2, 31)), exact[:, selection.images], selection)
    np.testing.assert_allclose(nothing.mean(1), exact[:, selection.images].mean(1))


def test_images_are_picked_as_often_as_their_probability_says():
    sizes = np.concatenate([np.full(20, 0.1), np.linspace(0.2, 1, 20), [50.0, 30.0]])
    picked, repeats = np.zeros(42), 4000
    for seed in range(repeats):
        selection = select_images(sizes, 9, seed=seed)
        assert len(set(selection.images)) == len(selection.images) == 9
        picked[selection.images] += 1
    assert selection.probability.sum() == pytest.approx(9)
    np.testing.assert_array_equal(selection.probability[-2:], 1)
    assert (np.diff(selection.probability[20:40]) > 0).all()
    assert selection.probability.min() > 0.3 * 9 / 42 / 2
    np.testing.assert_allclose(picked / repeats, selection.probability, atol=0.035)


def test_sizes_weigh_rows_alike_and_know_nothing_where_all_is_nothing():
    cheap = np.array([[0.0, 1.0, -2.0], [0.0, 1000.0, 2000.0], [0.0, 0.0, 0.0]])
    found = image_sizes(cheap)
    assert found[0] == 0
    assert found[2] == pytest.approx(2 * found[1])
    np.testing.assert_array_equal(image_sizes(np.zeros((2, 3))), 1)


def test_an_allocation_is_narrowest_for_its_cost(population):
    cheap, exact = population
    goal = 0.002
    plan = allocate(cheap[:, :500], exact[:, :500], cost_cheap=4, cost_exact=30, half_width=goal)
    assert plan.half_width == goal
    assert plan.cost < plan.cost_exact / 2
    assert 2 <= plan.exact < plan.cheap
    again = allocate(cheap[:, :500], exact[:, :500], cost_cheap=4, cost_exact=30, budget=plan.cost)
    assert again.half_width == pytest.approx(goal, rel=0.02)
    assert again.cheap == pytest.approx(plan.cheap, rel=0.02)
    four = allocate(cheap[:, :500], exact[:, :500], cost_cheap=4, cost_exact=30, half_width=goal / 2)
    assert four.cheap == pytest.approx(4 * plan.cheap, rel=0.02)
    # What is promised is what is got, where the pilot has seen the tail.
    plan = allocate(cheap, exact, cost_cheap=4, cost_exact=30, budget=10_000)
    means = [
        values.mean(1)
        for values in estimates(
            population, images=plan.cheap, few=plan.exact, repeats=200, by_size=True, fitted=False
        )
    ]
    assert 1.96 * np.std(means, axis=0).max() == pytest.approx(plan.half_width, rel=0.25)


def test_a_cheap_value_that_is_worth_nothing_is_given_little(population):
    _, exact = population
    noise = np.random.default_rng(5).permuted(exact, axis=1)
    plan = allocate(noise, exact, cost_cheap=4, cost_exact=30, half_width=0.005)
    assert plan.exact > 0.5 * plan.cheap
    assert plan.cost > plan.cost_exact


def test_the_table_is_put_right_in_every_column():
    model, (pixels, labels) = zoo("vit"), pictures(37)
    linear = changes(predict_linearized(model, pixels, "zero"), labels, squared_error(NAMES))
    everything = changes(predict_without_heads(model, pixels, "zero"), labels, squared_error(NAMES))
    held_out, limit = np.ones((101, TARGETS)), 0.5
    whole = effect_table(everything, held_out, limit, draws=50)
    selection = select_images(np.ones(37), 37)
    same = effect_table(linear, held_out, limit, exact=everything, selection=selection, draws=50)
    for name in (
        "shift",
        "alignment",
        "effect",
        "low_effect",
        "effect_whole",
        "high_effect_whole",
        "broken",
        "mended",
    ):
        np.testing.assert_allclose(same[name], whole[name], atol=1e-9)
    assert (same["method"] == "linearized and replay").all()
    assert (same["images"] == 37).all()
    selection = select_images(image_sizes(linear.of(ALL).effect[..., 0]), 19, seed=1)
    exact = changes(
        predict_without_heads(model, pixels[selection.images], "zero"),
        labels[selection.images],
        squared_error(NAMES),
    )
    table = effect_table(linear, held_out, limit, exact=exact, selection=selection, fitted=True, draws=50)
    assert (table["exact_images"] == 19).all()
    assert table["broken"].between(0, 1).all()
    assert (table["low_broken"] <= table["high_broken"]).all()
    unchanged = table[(table["target"] == ALL) & (table["low_mended"] == 0) & (table["mended"] == 0)]
    assert (unchanged["high_mended"] > 0).all()
    cheap = effect_table(linear, held_out, limit, draws=50)
    assert (cheap["exact_images"] == 0).all()
    with pytest.raises(ValueError, match="of other images than the selection names"):
        effect_table(linear, held_out, limit, exact=exact.on(np.arange(19)[::-1]), selection=selection)
    with pytest.raises(ValueError, match="exact changes of 18 images for a selection of 19"):
        effect_table(linear, held_out, limit, exact=exact.on(slice(18)), selection=selection)
    with pytest.raises(ValueError, match="other targets than the cheap ones"):
        effect_table(linear.of("one"), held_out[:, :1], limit, exact=exact, selection=selection)
    with pytest.raises(ValueError, match="or neither"):
        effect_table(linear, held_out, limit, exact=exact)


def test_what_does_not_fit_is_refused():
    values = np.ones((2, 31))
    selection = select_images(np.ones(31), 7)
    with pytest.raises(ValueError, match="made among 31 images, but there are cheap values of 30"):
        corrected_values(values[:, :30], values[:, :7], selection)
    with pytest.raises(ValueError, match=r"shape \(2, 6\), expected \(2, 7\)"):
        corrected_values(values, values[:, :6], selection)
    for images in ([31, 32], [-1, 3], [3, 3]):
        outside = Selection(np.array(images), selection.probability)
        with pytest.raises(ValueError, match="not among the 31 that have cheap values"):
            corrected_values(values, values[:, :2], outside)
    with pytest.raises(ValueError, match="had no chance"):
        corrected_values(values, values[:, :7], Selection(selection.images, np.zeros(31)))
    with pytest.raises(ValueError, match="count is 32, expected 1 to 31"):
        select_images(np.ones(31), 32)
    with pytest.raises(ValueError, match="negative or non-finite"):
        select_images(np.array([1.0, np.nan]), 1)
    with pytest.raises(ValueError, match=r"even is 0\.0"):
        select_images(np.ones(3), 1, even=0.0)
    pilot = {"cost_cheap": 1.0, "cost_exact": 9.0}
    with pytest.raises(ValueError, match="of at least two images"):
        allocate(values[:, :1], values[:, :1], **pilot, budget=1.0)
    with pytest.raises(ValueError, match="either half_width or budget"):
        allocate(values, values, **pilot)
    with pytest.raises(ValueError, match=r"half_width is 0\.0"):
        allocate(values, values, **pilot, half_width=0.0)
