"""The whole recipe: linearize many images, ablate few exactly, one table."""

import numpy as np
import pytest
import torch
from heads_zoo import HEADS, LAYERS, TARGETS, pictures, zoo
from test_changes import NAMES

from vitmech_utils.heads import constants
from vitmech_utils.heads.ablation import predict_without_heads
from vitmech_utils.heads.changes import ALL, changes, effect_table
from vitmech_utils.heads.constants import matched_noise, mean_constants
from vitmech_utils.heads.estimates import estimate, estimate_modes, estimate_until
from vitmech_utils.heads.replacements import averaged_references
from vitmech_utils.heads.sets import predict_without_sets
from vitmech_utils.intervals import mean_intervals
from vitmech_utils.tasks import squared_error

TASK = squared_error(NAMES)

MANY = 211
PIXELS, LABELS = pictures(MANY)
REFERENCE, _ = pictures(7, seed=5)
DONORS, _ = pictures(MANY, seed=6)


def draw(numbers):
    return PIXELS[numbers], LABELS[numbers]


def exact(model, mode, **given):
    return changes(predict_without_heads(model, PIXELS, mode, **given), LABELS, TASK)


@pytest.mark.parametrize(
    ("mode", "given", "plain"),
    [
        ("zero", {}, {}),
        ("qkv-weights", {}, {}),
        ("mean", {"reference": REFERENCE}, {"reference": REFERENCE}),
        ("resample", {"donors": lambda numbers: DONORS[numbers]}, {"donors": DONORS}),
    ],
)
def test_all_images_ablated_exactly_give_the_exact_table(mode, given, plain):
    model = zoo("vit")
    found = estimate(model, draw, MANY, MANY, mode, task=TASK, **given)
    held_out = np.ones((5, TARGETS))
    ours = found.table(held_out, 0.5, draws=20)
    theirs = effect_table(exact(model, mode, **plain), held_out, 0.5, draws=20)
    for name in ("shift", "effect", "low_effect", "high_effect", "shift_whole", "broken"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(
        found.values("shift", "two"), exact(model, mode, **plain).of("two").shift[..., 0]
    )


def test_reference_images_are_read_once_for_mean_and_noise(monkeypatch):
    model, read = zoo("vit"), []
    own = constants.head_outputs
    monkeypatch.setattr(constants, "head_outputs", lambda *given: read.append(len(given[1])) or own(*given))
    few, how = {"mean": 9, "noise": 9, "zero": 9}, {"task": TASK, "batch": 4}
    found = estimate_modes(model, draw, 30, few, reference=REFERENCE, **how)
    assert read == [4, 3]
    monkeypatch.undo()
    made = averaged_references(model, REFERENCE, few, batch=4)
    assert sorted(made) == ["mean", "noise"]
    again = estimate_modes(model, draw, 30, few, reference=made["noise"], **how)
    for mode, given in (("mean", mean_constants), ("noise", matched_noise)):
        alone = estimate(model, draw, 30, 9, mode, reference=given(model, REFERENCE, 4), **how)
        for one in (found, again):
            np.testing.assert_array_equal(one[mode].values(), alone.values())
    assert averaged_references(model, None, ["zero"]) == {}


def test_references_that_do_not_fit_their_modes_are_refused():
    model = zoo("vit")
    means = mean_constants(model, REFERENCE)
    assert averaged_references(model, means, ["mean"]) == {"mean": means}
    with pytest.raises(ValueError, match=r"reference is HeadConstants, expected images .* 'mean' or 'noise'"):
        averaged_references(model, means, ["noise", "mean"])
    with pytest.raises(ValueError, match="reference is NoneType"):
        averaged_references(model, None, ["mean"])
    with pytest.raises(ValueError, match="not finite"):
        averaged_references(model, REFERENCE * torch.nan, ["mean"])


def test_few_exact_images_come_close_to_all():
    model = zoo("dinov2")
    truth = exact(model, "zero").of(ALL).effect[..., 0].mean(1)
    found = estimate(model, draw, MANY, 53, "zero", task=TASK, batch=17, fitted=True, seed=3)
    assert found.exact.images == 53
    assert found.cheap.images == MANY
    np.testing.assert_allclose(found.exact.baseline, found.cheap.baseline[found.selection.images], rtol=1e-9)
    table = found.table(np.ones((5, TARGETS)), 0.5, draws=20)
    table = table[table["target"] == ALL]
    width = (table["high_effect"] - table["low_effect"]) / 200
    assert (np.abs(table["effect"] / 100 - truth) < 2 * width).all()
    assert np.corrcoef(table["effect"], truth)[0, 1] > 0.99
    assert (table["method"] == "linearized and replay").all()
    assert list(zip(table["layer"], table["head"], strict=True)) == [
        (layer, head) for layer in range(LAYERS) for head in range(HEADS)
    ]


def test_a_pilot_on_images_of_its_own_decides_how_many():
    model = zoo("vit")
    held_out = np.ones((5, TARGETS))
    asked = {"task": TASK, "layers": [1, 4], "batch": 32}
    seen = []

    def watched(numbers):
        seen.append(set(numbers.tolist()))
        return draw(numbers)

    found, plan = estimate_until(model, watched, 30.0, held_out, "zero", pilot=31, most=MANY - 31, **asked)
    assert plan.half_width == pytest.approx(0.3)
    assert found.cheap.images == min(plan.cheap, MANY - 31)
    judged = set().union(*seen[2:])
    assert not judged & set(range(31))
    assert found.cheap.sets == tuple(frozenset({(layer, head)}) for layer in (1, 4) for head in range(HEADS))
    loose, wide = estimate_until(model, draw, 60.0, held_out, "zero", pilot=31, most=MANY - 31, **asked)
    assert wide.cheap == pytest.approx(plan.cheap / 4, abs=2)
    assert loose.exact.images <= found.exact.images


def test_what_cannot_be_estimated_is_refused():
    model = zoo("vit")
    with pytest.raises(ValueError, match="needs reference images"):
        estimate(model, draw, 5, 2, task=TASK)
    with pytest.raises(ValueError, match="needs donors"):
        estimate(model, draw, 5, 2, "resample", task=TASK)
    with pytest.raises(ValueError, match="few is 6 for mode 'zero' and many is 5"):
        estimate(model, draw, 5, 6, "zero", task=TASK)
    with pytest.raises(ValueError, match="mode is 'published-code'"):
        estimate(model, draw, 5, 2, "published-code", task=TASK)
    assert torch.is_grad_enabled()


def test_sets_of_heads_are_put_right_like_single_ones():
    model = zoo("vit")
    some = [[(0, 0), (2, 1)], [(1, 1)], [(layer, 0) for layer in range(LAYERS)]]
    whole = changes(predict_without_sets(model, PIXELS, some, "mean", reference=REFERENCE), LABELS, TASK)
    given = {"task": TASK, "reference": REFERENCE, "sets": some}
    found = estimate(model, draw, MANY, MANY, **given)
    np.testing.assert_allclose(found.values(), whole.of(ALL).effect[..., 0])
    assert found.cheap.sets == whole.sets
    np.testing.assert_allclose(found.losses().changes, whole.effect)
    np.testing.assert_allclose(found.losses().baseline, whole.baseline)
    few = estimate(model, draw, MANY, 40, **given, seed=4)
    truth, (low, high) = whole.of(ALL).effect[..., 0].mean(1), mean_intervals(few.values())
    assert ((low < truth) & (truth < high)).all()
    np.testing.assert_allclose(few.losses().of(), few.values())


def test_sets_beside_layers_or_none_are_refused():
    for given in ({"sets": [[(0, 0)]], "layers": [0]}, {"sets": []}):
        with pytest.raises(ValueError, match="expected sets alone, one or more"):
            estimate(zoo("vit"), draw, 5, 5, "zero", task=TASK, **given)
