"""Pairs of heads: second derivatives against differences, exact interactions against hooks by hand."""

import numpy as np
import pytest
import torch
from heads_zoo import FAMILIES, HEADS, LAYERS, TARGETS, pictures, zoo
from test_heads_hooks import assert_same_weights, hooks_left, state

from vitmech_utils.heads.hooks import change_heads
from vitmech_utils.heads.interactions import KEYS, exact_interactions, second_order
from vitmech_utils.model.anatomy import find_blocks

PAIRS = [((0, 1), (2, 0)), ((1, 0), (1, 2)), ((4, 2), (3, 1)), ((4, 0), (4, 1))]


def error(model, pixels, labels, factors) -> float:
    """Mean squared error with heads scaled by hand."""
    changes = {head: (lambda present, factor=factor: factor * present) for head, factor in factors.items()}
    with torch.no_grad(), change_heads(model, changes):
        return (model(pixels) - labels).square().mean().item()


@pytest.mark.parametrize("family", FAMILIES)
def test_estimates_are_the_mixed_differences_of_small_steps(family):
    model, (pixels, labels) = zoo(family), pictures()
    table = second_order(model, pixels, labels, "zero", batch=3, bootstrap=10).set_index(KEYS)
    baseline, step = error(model, pixels, labels, {}), 1e-3
    for first, second in PAIRS:
        a, b = sorted((first, second))

        def at(x, y, a=a, b=b):
            return error(model, pixels, labels, {a: 1 - x, b: 1 - y})

        mixed = (at(step, step) - at(step, -step) - at(-step, step) + at(-step, -step)) / (4 * step**2)
        assert table.loc[(*a, *b), "estimate"] == pytest.approx(100 * mixed / baseline, rel=1e-3, abs=1e-6)
    heads = LAYERS * HEADS
    assert len(table) == heads * (heads - 1) // 2


@pytest.mark.parametrize("family", FAMILIES)
def test_the_attention_implementation_does_not_matter(family):
    """Within float32: the eager softmax of transformers computes in it whatever the model's dtype."""
    (pixels, labels), pairs = pictures(), [(0, 1), (3, 2)]
    eager, fused = (
        second_order(zoo(family, attention), pixels, labels, heads=pairs, bootstrap=10)
        for attention in ("eager", "sdpa")
    )
    scale = fused["estimate"].abs().max()
    np.testing.assert_allclose(eager["estimate"], fused["estimate"], rtol=0, atol=1e-5 * scale)


def test_exact_interactions_are_four_errors_by_hand():
    model, (pixels, labels) = zoo("dinov2"), pictures()
    table = exact_interactions(model, pixels, labels, PAIRS, "zero", bootstrap=100)
    baseline = error(model, pixels, labels, {})
    for row, (first, second) in zip(table.itertuples(), PAIRS, strict=True):
        assert (row.layer_a, row.head_a) == min(first, second)
        both, one, other = (
            error(model, pixels, labels, dict.fromkeys(heads, 0.0))
            for heads in ((first, second), (first,), (second,))
        )
        assert row.interaction == pytest.approx(100 * (both - one - other + baseline) / baseline)
        assert row.low <= row.interaction <= row.high
    assert (table["q_value"] >= table["p_value"]).all()


def test_both_agree_where_the_error_is_a_quadratic_form():
    """Two heads of the last layer, no MLP and no norm after it: predictions are linear in their gates."""
    model, (pixels, labels) = zoo("vit"), pictures()
    model.backbone.layernorm = torch.nn.Identity()
    with torch.no_grad():
        model.backbone.layers[4].mlp.fc2.weight.zero_()
    pairs = [((4, 0), (4, 1)), ((4, 0), (4, 2)), ((4, 1), (4, 2))]
    for mode in ("zero", "mean"):
        exact = exact_interactions(model, pixels, labels, pairs, mode, bootstrap=10)
        estimate = second_order(model, pixels, labels, mode, heads=[(4, 0), (4, 1)], bootstrap=10)
        both = exact.merge(estimate, on=KEYS)
        assert len(both) == 3
        np.testing.assert_allclose(both["estimate"], both["interaction"], rtol=1e-6)
        assert both["interaction"].abs().max() > 1e-3


def test_heads_that_write_the_same_stand_in_for_each_other():
    """Heads 0 and 1 of the last layer write one constant, and what reads it saturates: either of them is enough."""
    model, (pixels, _) = zoo("vit"), pictures()
    block = find_blocks(model).blocks[4]
    size = find_blocks(model).head_size
    with torch.no_grad():
        for layer in model.backbone.layers:
            layer.mlp.fc2.weight.zero_()
            layer.mlp.fc2.bias.zero_()
        block.value.weight[: 2 * size].zero_()
        block.value.bias[: 2 * size] = 1.0
        block.output.weight.zero_()
        block.output.weight[0, :size] = 100.0
        block.output.weight[0, size : 2 * size] = 100.0
    model.backbone.layernorm = torch.nn.Identity()
    model.head = torch.nn.Sequential(torch.nn.Tanh(), torch.nn.Linear(21, TARGETS, dtype=torch.float64))
    with torch.no_grad():
        model.head[1].weight.zero_()
        model.head[1].weight[:, 0] = 1.0
        labels = model(pixels) + 0.1
    table = exact_interactions(model, pixels, labels, [((4, 0), (4, 1))], "zero", bootstrap=10)
    assert table["interaction"].item() > 100


def test_chosen_rows_are_those_of_the_whole_table():
    model, (pixels, labels) = zoo("deit"), pictures()
    whole = second_order(model, pixels, labels, "mean", bootstrap=10).set_index(KEYS)
    some = second_order(model, pixels, labels, "mean", heads=[(2, 1), (0, 0)], bootstrap=10).set_index(KEYS)
    assert len(some) == 2 * (LAYERS * HEADS - 1) - 1
    np.testing.assert_allclose(some["estimate"], whole.loc[some.index, "estimate"], rtol=1e-9, atol=1e-12)


def test_nothing_is_left_behind():
    model, (pixels, labels) = zoo("vit"), pictures()
    before = state(model)
    second_order(model, pixels, labels, heads=[(0, 0)], bootstrap=10)
    exact_interactions(model, pixels, labels, PAIRS[:1], bootstrap=10)
    assert_same_weights(model, before)
    assert hooks_left(model) == 0
    assert all(weight.grad is None for weight in model.parameters())


def test_wrong_pairs_and_modes_are_refused():
    model, (pixels, labels) = zoo("vit"), pictures()
    with pytest.raises(ValueError, match="one head twice"):
        exact_interactions(model, pixels, labels, [((0, 0), (0, 0))])
    with pytest.raises(ValueError, match="has no gates"):
        second_order(model, pixels, labels, "published-code")
    with pytest.raises(IndexError, match="layer 9 does not exist"):
        second_order(model, pixels, labels, heads=[(9, 0)])
    with pytest.raises(IndexError, match="head 7 does not exist"):
        exact_interactions(model, pixels, labels, [((0, 0), (1, 7))])
