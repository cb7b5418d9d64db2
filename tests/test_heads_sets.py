"""Sets of heads: known answers, the slow reference, and what must be refused."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import torch
from heads_zoo import FAMILIES, HEADS, LAYERS, pictures, zoo
from test_heads_hooks import assert_same_weights, hooks_left, state

from vitmech_utils.heads.ablation import predict_without_heads
from vitmech_utils.heads.direct import direct_effects, predict_directly
from vitmech_utils.heads.hooks import change_heads
from vitmech_utils.heads.interactions import shapley_values
from vitmech_utils.heads.pruning import prune_heads
from vitmech_utils.heads.replay import Replay, ReplayError
from vitmech_utils.heads.sets import groups, predict_tests, predict_without_sets, set_effects, singles
from vitmech_utils.model.anatomy import find_blocks

SETS = [[], [(0, 1)], [(1, 0), (1, 2)], [(2, 2), (0, 0), (4, 1)], [(4, 0), (4, 1), (4, 2)], [(3, 1), (4, 2)]]


@pytest.mark.parametrize("mode", ["zero", "mean", "resample", "qkv-weights"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_replay_gives_what_hooks_on_the_whole_model_give(family, mode):
    model, (pixels, _) = zoo(family), pictures()
    fast = predict_without_sets(model, pixels, SETS, mode, batch=4)
    slow = predict_without_sets(model, pixels, SETS, mode, batch=4, replay=False)
    assert (fast.method, slow.method) == ("replay", "hook")
    torch.testing.assert_close(fast.ablated, slow.ablated, rtol=1e-9, atol=1e-9)
    assert torch.equal(fast.baseline, slow.baseline)
    torch.testing.assert_close(fast.ablated[0], fast.baseline)
    part = fast[2:4]
    assert part.sets == (frozenset(SETS[2]), frozenset(SETS[3]))
    assert torch.equal(part.ablated, fast.ablated[2:4])
    fewer = part.on(slice(1, 3))
    assert torch.equal(fewer.ablated, fast.ablated[2:4, 1:3])
    assert torch.equal(fewer.baseline, fast.baseline[1:3])


def test_zeroing_a_set_is_zeroing_its_heads_by_hand():
    model, (pixels, _) = zoo("dinov2"), pictures()
    found = predict_without_sets(model, pixels, SETS, "zero").ablated
    for heads, ours in zip(SETS, found, strict=True):
        with torch.no_grad(), change_heads(model, dict.fromkeys(heads, 0.0)):
            torch.testing.assert_close(model(pixels), ours, rtol=1e-9, atol=1e-9)


def test_sets_of_one_head_are_the_sweep():
    model, (pixels, _) = zoo("vit"), pictures()
    alone = predict_without_heads(model, pixels, "mean")
    found = predict_without_sets(model, pixels, singles(find_blocks(model).pairs), "mean")
    torch.testing.assert_close(found.ablated, alone.ablated, rtol=1e-9, atol=1e-9)


def test_single_images_meet_single_sets_in_the_order_asked_for():
    model, (pixels, _) = zoo("deit"), pictures()
    whole = predict_without_sets(model, pixels, SETS)
    tests = [(3, frozenset(SETS[5])), (0, frozenset()), (4, frozenset(SETS[2])), (0, frozenset(SETS[5]))]
    _, found, _ = predict_tests(model, pixels, tests, batch=2)
    expected = torch.stack([whole.ablated[5, 3], whole.baseline[0], whole.ablated[2, 4], whole.ablated[5, 0]])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("batch", [2, 5, 32])
@pytest.mark.parametrize("family", ["vit", "dinov2"])
def test_sets_that_begin_alike_run_as_one_up_to_where_they_differ(family, batch, monkeypatch):
    model, (pixels, _) = zoo(family), pictures(3)
    pairs = find_blocks(model).pairs
    order = np.random.default_rng(0).permutation(len(pairs))
    chain = [[pairs[place] for place in order[:gone]] for gone in range(2, len(pairs) + 1)]
    sets = [*chain, chain[4], []]
    rows = []
    run = Replay._run
    monkeypatch.setattr(
        Replay,
        "_run",
        lambda self, layer, hidden, *rest: rows.append(len(hidden)) or run(self, layer, hidden, *rest),
    )
    fast = predict_without_sets(model, pixels, sets, "mean", batch=batch)
    slow = predict_without_sets(model, pixels, sets, "mean", batch=batch, replay=False)
    torch.testing.assert_close(fast.ablated, slow.ablated, rtol=1e-9, atol=1e-9)
    assert torch.equal(fast.ablated[4], fast.ablated[len(chain)])
    prefixes = {
        (layer, frozenset(head for head in heads if head[0] <= layer))
        for heads in chain
        for layer in range(min(heads)[0], LAYERS)
    }
    checked = (
        LAYERS + 1
    )  # the pass of one image that is held against the model's own, and the short last block's
    assert sum(rows) <= len(pixels) * len(prefixes) + checked + len(pixels)
    assert max(rows) <= max(batch, len(pixels))


def test_more_images_than_fit_at_once_change_nothing():
    model, (pixels, _) = zoo("vit"), pictures(19)
    mean = {"reference": pixels[:3]}
    whole, small = (
        predict_without_sets(model, pixels, SETS, "mean", batch=batch, **mean) for batch in (19, 3)
    )
    torch.testing.assert_close(whole.ablated, small.ablated, rtol=1e-9, atol=1e-9)


def test_what_a_pruned_model_has_left_can_still_be_taken():
    model, (pixels, labels) = zoo("dinov2"), pictures()
    gone = {(0, 0), (0, 1), (0, 2), (2, 1)}
    pruned = prune_heads(model, gone)
    found = predict_without_sets(pruned, pixels, [[(1, 1), (2, 0)]], "zero")
    with torch.no_grad(), change_heads(model, dict.fromkeys({*gone, (1, 1), (2, 0)}, 0.0)):
        torch.testing.assert_close(model(pixels), found.ablated[0], rtol=1e-9, atol=1e-9)
    table = shapley_values(pruned, pixels, labels, "zero", permutations=2, bootstrap=10)
    assert len(table) == LAYERS * HEADS - len(gone)
    assert len(predict_directly(pruned, pixels).sets) == LAYERS * HEADS - len(gone)
    with pytest.raises(IndexError, match="was pruned"):
        predict_without_sets(pruned, pixels, [[(2, 1)]])


def test_nothing_is_left_behind():
    model, (pixels, labels) = zoo("deit"), pictures()
    model.train()
    before = state(model)
    predict_without_sets(model, pixels, SETS)
    predict_directly(model, pixels)
    shapley_values(model, pixels, labels, permutations=2, bootstrap=10)
    assert_same_weights(model, before)
    assert hooks_left(model) == 0
    assert model.training


def test_wrong_sets_are_refused():
    model, (pixels, labels) = zoo("vit"), pictures()
    with pytest.raises(ValueError, match="layer 1, head 2 twice"):
        predict_without_sets(model, pixels, [[(1, 2), (1, 2)]])
    with pytest.raises(IndexError, match="layer 5 does not exist: this model has layers 0 to 4"):
        predict_without_sets(model, pixels, [[(5, 0)]])
    with pytest.raises(IndexError, match="head 3 does not exist"):
        predict_without_sets(model, pixels, [[(0, 3)]])
    with pytest.raises(ValueError, match="mode is 'published-code'"):
        predict_without_sets(model, pixels, [[(0, 0)]], "published-code")
    with pytest.raises(ValueError, match="batch is 0"):
        predict_without_sets(model, pixels, [[(0, 0)]], batch=0)
    with pytest.raises(ValueError, match="permutations is 0"):
        shapley_values(model, pixels, labels, permutations=0)


def test_effects_and_excess_are_what_their_names_say():
    model, (pixels, labels) = zoo("vit"), pictures()
    sets = [[(1, 0), (1, 2)], [(0, 1)]]
    joint = predict_without_sets(model, pixels, sets, "zero")
    alone = predict_without_sets(model, pixels, singles([(0, 1), (1, 0), (1, 2)]), "zero")
    table = set_effects(joint, labels, alone, ["two", "one"], bootstrap=200).set_index("set")
    errors, base = alone.losses(labels).mean()
    by_hand = 100 * ((errors[1] + errors[2]).mean() / base.mean() - 2)
    assert table.loc["two", "sum_of_single"] == pytest.approx(by_hand)
    assert table.loc["two", "excess"] == pytest.approx(table.loc["two", "effect"] - by_hand)
    assert table.loc["one", "excess"] == pytest.approx(0, abs=1e-9)
    assert table.loc["one", "p_value"] == 1
    assert (table["low_excess"] <= table["excess"] + 1e-9).all()
    assert list(table["heads"]) == [2, 1]
    with pytest.raises(ValueError, match=r"no single effect of \[\(1, 2\)\]"):
        set_effects(
            joint, labels, predict_without_sets(model, pixels, singles([(0, 1), (1, 0)])), ["two", "one"]
        )


def test_heads_are_grouped_by_what_a_table_says_of_them():
    table = pd.DataFrame(
        [(0, 0, "title + margin"), (0, 1, ""), (1, 0, "chirp"), (1, 1, "title")],
        columns=["layer", "head", "regions"],
    )
    assert groups(table, "regions") == {
        "chirp": {(1, 0)},
        "margin": {(0, 0)},
        "title": {(0, 0), (1, 1)},
    }


def brute_force(model, pixels, labels) -> dict[tuple[int, int], float]:
    """Shapley values of zero ablation, over all orders of all heads, in percent of the baseline."""
    pairs = find_blocks(model).pairs

    def error(heads):
        with torch.no_grad(), change_heads(model, dict.fromkeys(heads, 0.0)):
            return (model(pixels) - labels).square().mean().item()

    known = {}
    value = dict.fromkeys(pairs, 0.0)
    orders = list(permutations(pairs))
    for order in orders:
        gone, before = frozenset(), None
        for head in order:
            for heads in (gone, gone | {head}):
                if heads not in known:
                    known[heads] = error(heads)
            value[head] += (known[gone | {head}] - known[gone]) / len(orders)
            gone, before = gone | {head}, known[gone | {head}]
    assert before == known[frozenset(pairs)]
    return {head: 100 * found / known[frozenset()] for head, found in value.items()}


def test_shapley_values_are_those_over_all_orders():
    model, (pixels, labels) = zoo("vit", layers=2, heads=2, size=5), pictures(1)
    exact = brute_force(model, pixels, labels)
    table = shapley_values(model, pixels, labels, "zero", permutations=400, bootstrap=10)
    scale = max(abs(value) for value in exact.values())
    for row in table.itertuples():
        assert row.shapley == pytest.approx(exact[row.layer, row.head], abs=0.05 * scale)
    assert table["shapley"].sum() == pytest.approx(sum(exact.values()))


def test_shapley_values_add_up_to_what_all_heads_do():
    model, (pixels, labels) = zoo("dinov2"), pictures()
    table = shapley_values(model, pixels, labels, "mean", permutations=len(pixels), bootstrap=100)
    everything = predict_without_sets(model, pixels, [find_blocks(model).pairs], "mean")
    errors, base = everything.losses(labels).mean()
    assert table["shapley"].sum() == pytest.approx(100 * (errors[0].mean() / base.mean() - 1))
    assert (table["low"] <= table["high"]).all()
    assert (table["images"] == len(pixels)).all()


def test_a_head_that_writes_nothing_is_worth_nothing():
    model, (pixels, labels) = zoo("vit"), pictures()
    block = find_blocks(model).blocks[2]
    size = find_blocks(model).head_size
    with torch.no_grad():
        block.output.weight[:, size : 2 * size].zero_()
    table = shapley_values(model, pixels, labels, "zero", permutations=3, bootstrap=10)
    assert table.query("layer == 2 and head == 1")["shapley"].item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_of_the_last_layer_without_mlp_acts_directly_alone(family):
    model, (pixels, labels) = zoo(family), pictures()
    block = find_blocks(model).blocks[-1].block
    last_linear = [module for module in block.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        last_linear.weight.zero_()
        last_linear.bias.zero_()
    total = predict_without_sets(model, pixels, singles(find_blocks(model).pairs), "mean")
    table = direct_effects(total, predict_directly(model, pixels, "mean"), labels, bootstrap=50)
    last, others = table[table["layer"] == LAYERS - 1], table[table["layer"] < LAYERS - 1]
    np.testing.assert_allclose(last["effect_direct"], last["effect_total"], rtol=1e-8)
    assert (others["effect_later"].abs() > 1e-3).any()


def test_direct_effects_are_a_change_of_the_last_hidden_state_by_hand():
    model, (pixels, _) = zoo("vit"), pictures()
    anatomy = find_blocks(model)
    found = predict_directly(model, pixels, "zero")
    layer, head, size = 1, 2, anatomy.head_size
    kept = {}

    def keep(_module, inputs):
        kept["heads"] = inputs[0]

    handle = anatomy.blocks[layer].output.register_forward_pre_hook(keep)
    with torch.no_grad():
        model(pixels)
        handle.remove()
        part = slice(head * size, (head + 1) * size)
        lost = kept["heads"][:, 0, part] @ anatomy.blocks[layer].output.weight[:, part].T

        def less(_module, inputs):
            hidden = inputs[0].clone()
            hidden[:, 0] -= lost
            return (hidden,)

        handle = model.backbone.layernorm.register_forward_pre_hook(less)
        by_hand = model(pixels)
        handle.remove()
    ours = found.ablated[found.sets.index(frozenset({(layer, head)}))]
    torch.testing.assert_close(ours, by_hand, rtol=1e-9, atol=1e-9)


def test_direct_effects_refuse_what_they_cannot_split():
    model, (pixels, labels) = zoo("vit"), pictures()
    total, direct = (
        predict_without_sets(model, pixels, singles(find_blocks(model).pairs), "zero"),
        predict_directly(model, pixels, "mean"),
    )
    with pytest.raises(ValueError, match="of other heads, images or modes"):
        direct_effects(total, direct, labels)
    with pytest.raises(ValueError, match=r"labels has shape \(4, 3\), expected \(5, 3\)"):
        direct_effects(total, total, labels[:4])

    class Averaging(torch.nn.Module):
        """Reads the mean of all tokens, not the CLS token."""

        def __init__(self, reader):
            super().__init__()
            self.backbone, self.head = reader.backbone, reader.head

        def forward(self, pixel_values):
            return self.head(self.backbone(pixel_values).last_hidden_state.mean(1))

    with pytest.raises(ReplayError, match="more than the CLS token"):
        predict_directly(Averaging(model), pixels)
