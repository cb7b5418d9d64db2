import numpy as np
import pytest
import torch
from heads_zoo import FAMILIES, HEADS, LAYERS, TARGETS, pictures, zoo
from test_heads_hooks import assert_same_weights, hooks_left, state

from vitmech_utils.heads.ablation import sweep
from vitmech_utils.heads.first_order import first_order
from vitmech_utils.heads.hooks import change_heads
from vitmech_utils.heads.stopping import images_needed, interval_widths, sweep_until
from vitmech_utils.statistics import rank_correlation


@pytest.mark.parametrize("mode", ["zero", "mean", "resample", "qkv-weights"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_slope_is_that_of_a_small_step(family, mode):
    model, (pixels, labels) = zoo(family), pictures()
    table = first_order(model, pixels, labels, mode, batch=2 if mode == "zero" else 5).set_index(
        ["layer", "head"]
    )
    if mode != "zero":
        assert table["effect"].abs().max() > 0.1
        return
    step = 1e-6
    with torch.no_grad():
        baseline = (model(pixels) - labels).square().mean()
        for layer, head in [(0, 0), (2, 1), (4, 2)]:
            with change_heads(model, {(layer, head): lambda present: (1 - step) * present}):
                slope = ((model(pixels) - labels).square().mean() - baseline) / step
            assert table.loc[(layer, head), "effect"] == pytest.approx(
                100 * (slope / baseline).item(), rel=1e-3
            )


def test_slopes_of_both_signs_cancel_in_the_effect_and_not_in_the_importance():
    model, (pixels, labels) = zoo("vit"), pictures()
    table = first_order(model, pixels, labels)
    single = [
        first_order(model, pixels[[i]], labels[[i]], bootstrap=100, batch=1) for i in range(len(pixels))
    ]
    slopes = np.stack([found["effect"] * found["baseline_mse"] for found in single])
    baseline = table["baseline_mse"].iloc[0]
    np.testing.assert_allclose(table["effect"], slopes.mean(0) / baseline, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(table["importance"], abs(slopes).mean(0) / baseline, rtol=1e-9)
    assert (table["importance"] > table["effect"].abs() + 1e-9).any(), "on some heads images disagree"


def test_it_is_exact_where_the_error_is_a_straight_line():
    """Last layer without a norm after it, huge labels: the squared error is all but linear in each gate."""
    model, (pixels, _) = zoo("vit"), pictures()
    model.backbone.layernorm = torch.nn.Identity()
    with torch.no_grad():
        model.backbone.layers[4].mlp.fc2.weight.zero_()
    labels = torch.full((len(pixels), TARGETS), 1e6, dtype=torch.float64)
    exact = sweep(model, pixels, labels, "zero", layers=[4])["effect"].to_numpy()
    estimate = first_order(model, pixels, labels).query("layer == 4")["effect"].to_numpy()
    np.testing.assert_allclose(estimate, exact, rtol=1e-3)


def test_it_misses_what_starts_with_the_square():
    """A model that fits its labels perfectly has no slope, though every head counts."""
    model, (pixels, _) = zoo("vit"), pictures()
    with torch.no_grad():
        labels = model(pixels) + 1e-9
    assert (
        first_order(model, pixels, labels)["effect"].abs().max()
        < 1e-3 * sweep(model, pixels, labels, "zero")["effect"].abs().max()
    )


def test_its_order_resembles_the_exact_one_for_gentle_heads():
    model, (pixels, labels) = zoo("dinov2"), pictures(7)
    with torch.no_grad():
        for layer in model.backbone.encoder.layer:
            layer.layer_scale1.lambda1.mul_(0.05)
    exact, estimate = sweep(model, pixels, labels, "zero"), first_order(model, pixels, labels)
    assert rank_correlation(exact["effect"].to_numpy(), estimate["effect"].to_numpy()).value > 0.9


def test_nothing_is_left_behind():
    model, (pixels, labels) = zoo("deit"), pictures()
    before = state(model)
    first_order(model, pixels, labels)
    assert_same_weights(model, before)
    assert hooks_left(model) == 0
    assert all(weight.grad is None for weight in model.parameters())


def test_published_code_has_no_gates():
    with pytest.raises(ValueError, match="'published-code' has no gates"):
        first_order(zoo("vit"), *pictures(), "published-code")


def test_intervals_narrow_with_the_square_root_of_images():
    rng = np.random.default_rng(0)
    baseline = rng.exponential(size=400)
    changed = baseline + 0.3 * rng.standard_normal((5, 400))
    widths = interval_widths(changed, baseline, [25, 100, 400], bootstrap=300)
    ratio = widths["median_half_width"].iloc[0] / widths["median_half_width"].iloc[2]
    assert 3 < ratio < 5
    assert images_needed(widths, widths["widest_half_width"].iloc[-1] / 2) == pytest.approx(1600, abs=1)
    with pytest.raises(ValueError, match="401 images"):
        interval_widths(changed, baseline, [401])


def stream(count: int):
    return (pictures(4, seed=seed) for seed in range(count))


def test_the_sweep_stops_when_every_interval_is_narrow_enough():
    model = zoo("vit")
    wide, history = sweep_until(model, stream(12), half_width=1e-9, bootstrap=100)
    assert list(history["images"]) == list(range(16, 49, 4))
    assert not history["done"].any()
    assert (wide["images"] == 48).all()
    goal = history["widest_half_width"].iloc[3] * 1.0001
    table, early = sweep_until(model, stream(12), half_width=goal, bootstrap=100)
    assert early["done"].iloc[-1]
    assert len(early) <= 4
    assert ((table["high"] - table["low"]) / 2 < goal).all()
    assert len(table) == LAYERS * HEADS
    _, capped = sweep_until(model, stream(12), half_width=1e-9, most=20, bootstrap=100)
    assert capped["images"].iloc[-1] == 20


@pytest.mark.parametrize(("family", "mode"), [("vit", "zero"), ("vit", "resample"), ("deit", "mean")])
def test_after_a_pilot_few_images_are_ablated_exactly_and_put_the_others_right(family, mode):
    model, extra = zoo(family), {"reference": pictures(7, seed=999)[0]} if mode == "mean" else {}
    table, history = sweep_until(model, stream(48), half_width=1e-9, mode=mode, bootstrap=100, **extra)
    assert (table["images"] == 192).all()
    assert history["exact_images"].iloc[4] == 32  # the pilot
    assert 32 < history["exact_images"].iloc[-1] < 96
    again, all_exact = sweep_until(model, stream(48), 1e-9, mode, pilot=0, bootstrap=100, **extra)
    assert (all_exact["exact_images"] == all_exact["images"]).all()
    half = (table["high"] - table["low"]) / 2
    # The same images, so that what differs is what the exact ones could not put right.
    assert ((table["effect"] - again["effect"]).abs() < 1.5 * half).all()
    assert ((table["effect"] - again["effect"]).abs() > 1e-9).any()
    assert half.median() < 3 * ((again["high"] - again["low"]) / 2).median()


def test_widths_may_be_in_percent_of_the_loss_on_a_larger_set():
    model = zoo("vit")
    own, history = sweep_until(model, stream(5), half_width=1e-9, pilot=0)
    held_out = np.full((50, 3), [2.0, 4.0, 6.0])
    table, wide = sweep_until(model, stream(5), half_width=1e-9, pilot=0, held_out=held_out)
    np.testing.assert_allclose(table["effect"], own["effect"] * own["baseline_mse"] / 4)
    names = [column.removeprefix("effect_") for column in own if column.startswith("effect_")]
    for target, loss in zip(names, (2, 4, 6), strict=True):
        own_unit = own[f"effect_{target}"] * own[f"baseline_mse_{target}"]
        np.testing.assert_allclose(table[f"effect_{target}"], own_unit / loss)
    assert (table["low"] < table["effect"]).all()
    assert (table["effect"] < table["high"]).all()
    widest = float((table["high"] - table["low"]).max() / 2)
    assert wide["widest_half_width"].iloc[-1] == pytest.approx(widest)
    _, sooner = sweep_until(model, stream(5), half_width=1.01 * widest, pilot=0, held_out=held_out * 10)
    assert sooner["done"].iloc[0]
    assert len(sooner) < len(history)


def test_bad_stopping_rules_are_refused():
    with pytest.raises(ValueError, match="half_width is 0"):
        sweep_until(zoo("vit"), stream(1), half_width=0.0)
    with pytest.raises(ValueError, match="hold 4 images, expected at least 16"):
        sweep_until(zoo("vit"), stream(1), half_width=1.0)
    with pytest.raises(ValueError, match="the loss of 2 targets, expected 3"):
        sweep_until(zoo("vit"), stream(1), half_width=1.0, held_out=np.ones((9, 2)))
    with pytest.raises(ValueError, match="accumulates"):
        sweep_until(zoo("vit"), stream(1), half_width=1.0, mode="published-code")
