"""Linearized outputs: known answers, finite differences, sets, precision, and what must be refused."""

import itertools

import numpy as np
import pytest
import torch
from heads_zoo import FAMILIES, HEADS, IMAGES, LAYERS, TARGETS, WIDTH, Reader, pictures, zoo
from test_heads_hooks import assert_same_weights, hooks_left, state

from vitmech_utils.heads.ablation import effects, predict_without_heads
from vitmech_utils.heads.hooks import change_heads
from vitmech_utils.heads.linearized import (
    MOST_OUTPUTS,
    linearized_sets,
    margin,
    predict_linearized,
    random_projection,
)
from vitmech_utils.heads.pruning import prune_heads
from vitmech_utils.heads.replacements import replacement
from vitmech_utils.heads.sets import predict_without_sets, set_effects, singles
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.statistics import rank_correlation
from vitmech_utils.tasks import margin_cross_entropy

MODES = ("zero", "mean", "resample", "qkv-weights")


def straight(family: str = "vit") -> Reader:
    """A model whose outputs are a straight line in every gate: no norms, no MLPs, equal attention to all tokens."""
    model = zoo(family)
    with torch.no_grad():
        for block in find_blocks(model).blocks:
            for projection in (block.query, block.key):
                projection.weight.zero_()
                projection.bias.zero_()
            last = [module for module in block.block.modules() if isinstance(module, torch.nn.Linear)][-1]
            last.weight.zero_()
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.LayerNorm):
                setattr(module, name, torch.nn.Identity())
    return model


def slopes(predictions):
    return predictions.ablated - predictions.baseline


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_exact_for_a_model_that_is_linear_in_its_gates(family, mode):
    model, (pixels, _) = straight(family), pictures()
    ours, exact = predict_linearized(model, pixels, mode), predict_without_heads(model, pixels, mode)
    assert slopes(exact).abs().max() > 1e-3
    assert ours.method == "linearized"
    torch.testing.assert_close(ours.ablated, exact.ablated, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours.baseline, exact.baseline, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(ours.layers, exact.layers)
    np.testing.assert_array_equal(ours.heads, exact.heads)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_slope_is_that_of_a_small_step(family, mode):
    model, (pixels, _) = zoo(family), pictures()
    ours = slopes(predict_linearized(model, pixels, mode))
    ends = replacement(model, find_blocks(model), pixels, mode)(0, IMAGES)
    step = 1e-5
    for layer, head in itertools.product(range(LAYERS), range(HEADS)):
        found = []
        for way in (step, -step):

            def slid(present, end=ends[layer][:, :, head], way=way):
                return present + way * (end - present)

            with torch.no_grad(), change_heads(model, {(layer, head): slid}):
                found.append(model(pixels))
        by_hand = (found[0] - found[1]) / (2 * step)
        torch.testing.assert_close(ours[layer * HEADS + head], by_hand, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_both_ways_to_attend_give_the_same(attention):
    pixels, _ = pictures()
    one, other = (predict_linearized(zoo("dinov2", way), pixels) for way in (attention, "sdpa"))
    torch.testing.assert_close(one.ablated, other.ablated, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", MODES)
def test_sets_are_the_sum_of_their_heads(mode):
    model, (pixels, labels) = zoo("deit"), pictures()
    single = predict_linearized(model, pixels, mode)
    sets = [[], [(0, 1)], [(2, 2), (0, 0), (4, 1)], find_blocks(model).pairs]
    found = linearized_sets(single, sets)
    assert (found.method, found.mode) == ("linearized", mode)
    assert found.sets[2] == {(2, 2), (0, 0), (4, 1)}
    torch.testing.assert_close(found.ablated[0], single.baseline)
    torch.testing.assert_close(found.ablated[1], single.ablated[1])
    by_hand = single.baseline + slopes(single)[[2 * HEADS + 2, 0, 4 * HEADS + 1]].sum(0)
    torch.testing.assert_close(found.ablated[2], by_hand)
    torch.testing.assert_close(found.ablated[3], single.baseline + slopes(single).sum(0))
    alone = linearized_sets(single, singles(find_blocks(model).pairs))
    table = set_effects(found, labels, alone, ["none", "one", "three", "all"], bootstrap=20)
    assert list(table["heads"]) == [0, 1, 3, LAYERS * HEADS]


def test_heads_of_one_layer_add_up_where_the_model_is_linear():
    model, (pixels, _) = straight(), pictures()
    sets = [[(2, 0), (2, 2)], [(4, 0), (4, 1), (4, 2)]]
    ours = linearized_sets(predict_linearized(model, pixels, "zero"), sets)
    exact = predict_without_sets(model, pixels, sets, "zero")
    torch.testing.assert_close(ours.ablated, exact.ablated, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", MODES)
def test_the_size_of_a_batch_and_how_images_come_change_nothing(mode):
    model, (pixels, _) = zoo("timm"), pictures(7)
    given = {"mean": {"reference": pixels[:3]}, "resample": {"donors": pixels.flip(0)}}.get(mode, {})
    whole = predict_linearized(model, pixels, mode, batch=7, **given)
    small = predict_linearized(model, pixels, mode, batch=2, **given)
    streamed = given | ({"donors": iter(pixels.flip(0).split(3))} if mode == "resample" else {})
    parts = predict_linearized(model, iter(pixels.split(3)), mode, batch=2, **streamed)
    for other in (small, parts):
        torch.testing.assert_close(other.ablated, whole.ablated, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(other.baseline, whole.baseline, rtol=1e-9, atol=1e-9)
    if mode == "resample":
        drawn = [predict_linearized(model, pixels, mode, batch=batch, seed=3).ablated for batch in (2, 7)]
        torch.testing.assert_close(*drawn, rtol=1e-9, atol=1e-9)


def test_some_layers_and_heads_are_rows_of_all():
    model, (pixels, labels) = zoo("dinov2-registers"), pictures()
    everything = predict_linearized(model, pixels)
    some = predict_linearized(model, pixels, layers=[3, 1], heads=[2, 0])
    assert list(zip(some.layers, some.heads, strict=True)) == [(3, 2), (3, 0), (1, 2), (1, 0)]
    rows = [3 * HEADS + 2, 3 * HEADS, HEADS + 2, HEADS]
    torch.testing.assert_close(some.ablated, everything.ablated[rows], rtol=1e-9, atol=1e-9)
    assert list(effects(some, labels, bootstrap=20)["layer"]) == [3, 3, 1, 1]


@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_is_close(family):
    model, (pixels, _) = zoo(family).float(), pictures(dtype=torch.float32)
    exact = predict_linearized(model, pixels, "zero")
    autocast = predict_linearized(model, pixels, "zero", dtype=torch.bfloat16)
    copied = predict_linearized(zoo(family).bfloat16(), pixels, "zero")
    scale = slopes(exact).square().mean().sqrt()
    for other, tolerance in ((autocast, 0.03), (copied, 0.06)):
        assert (slopes(other) - slopes(exact)).square().mean().sqrt() < tolerance * scale
        assert (
            rank_correlation(*(slopes(x).square().mean((1, 2)).numpy() for x in (other, exact))).value > 0.98
        )
    assert not torch.equal(autocast.ablated, exact.ablated)


@pytest.mark.parametrize("mode", ["zero", "mean", "qkv-weights"])
def test_half_precision_needs_no_look_in_full_precision_first(mode):
    model, (pixels, _) = zoo("vit").float(), pictures(dtype=torch.float32)
    first = predict_linearized(model, pixels, mode, dtype=torch.bfloat16)
    again = predict_linearized(model, pixels, mode, dtype=torch.bfloat16)
    assert torch.equal(first.ablated, again.ablated)


def test_float32_is_float64_but_for_rounding():
    pixels, _ = pictures()
    wide = predict_linearized(zoo("vit"), pixels)
    narrow = predict_linearized(zoo("vit").float(), pixels)
    torch.testing.assert_close(narrow.ablated, wide.ablated, rtol=1e-4, atol=1e-5)


def test_gates_that_change_nothing_have_no_slope_at_all():
    model, (pixels, _) = zoo("vit").float(), pictures(dtype=torch.float32)
    assert (slopes(predict_linearized(model, pixels, "resample", donors=pixels)) == 0).all()
    anatomy = find_blocks(model)
    with torch.no_grad():
        anatomy.blocks[1].output.weight[:, anatomy.columns(2)] = 0
        value = anatomy.blocks[3].value
        value.weight[anatomy.columns(0)] = 0
        value.bias[anatomy.columns(0)] = 0
    for mode in ("zero", "qkv-weights"):
        found = slopes(predict_linearized(model, pixels, mode))
        silent = [HEADS + 2, 3 * HEADS]
        assert (found[silent] == 0).all()
        assert (found[[i for i in range(LAYERS * HEADS) if i not in silent]] != 0).all()


def test_heads_that_were_pruned_have_no_row():
    model, (pixels, _) = zoo("dinov2"), pictures()
    gone = {(0, 0), (0, 1), (0, 2), (2, 1)}
    ours = predict_linearized(prune_heads(model, gone), pixels, "zero")
    assert set(zip(ours.layers, ours.heads, strict=True)) == set(find_blocks(model).pairs) - gone
    with change_heads(model, dict.fromkeys(gone, 0.0)):
        masked = predict_linearized(model, pixels, "zero")
    kept = [(layer, head) not in gone for layer, head in zip(masked.layers, masked.heads, strict=True)]
    torch.testing.assert_close(ours.ablated, masked.ablated[kept], rtol=1e-9, atol=1e-9)


class Averaging(torch.nn.Module):
    """Reads the mean of all tokens, so that the last block is needed whole."""

    def __init__(self, reader: Reader):
        super().__init__()
        self.backbone, self.head = reader.backbone, reader.head

    def forward(self, pixel_values):
        return self.head(self.backbone(pixel_values).last_hidden_state.mean(1))


@pytest.mark.parametrize("mode", MODES)
def test_a_model_that_reads_more_than_the_cls_token_is_linearized_too(mode):
    model, (pixels, _) = Averaging(straight("dinov2")), pictures()
    ours, exact = predict_linearized(model, pixels, mode), predict_without_heads(model, pixels, mode)
    torch.testing.assert_close(ours.ablated, exact.ablated, rtol=1e-9, atol=1e-9)


def classifier(classes: int) -> Reader:
    model = zoo("vit")
    torch.manual_seed(1)
    model.head = torch.nn.Linear(WIDTH, classes).double()
    return model


def test_a_margin_stands_for_the_cross_entropy_and_needs_one_pass():
    model, (pixels, _) = classifier(101), pictures(7)
    labels = torch.tensor([3, 0, 100, 7, 7, 50, 99])
    ours = predict_linearized(model, pixels, "zero", reading=margin(labels), batch=3)
    assert ours.baseline.shape == (7, 1)
    with torch.no_grad():
        truth = torch.nn.functional.cross_entropy(model(pixels), labels, reduction="none")
        torch.testing.assert_close(
            margin_cross_entropy().loss(ours.baseline, None)[:, 0], truth, rtol=1e-9, atol=1e-9
        )
        step = 1e-6
        with change_heads(model, {(2, 1): lambda present: (1 - step) * present}):
            moved = torch.nn.functional.cross_entropy(model(pixels), labels, reduction="none")
    slope = (
        margin_cross_entropy().loss(ours.baseline + step * slopes(ours)[2 * HEADS + 1], None)[:, 0] - truth
    ) / step
    torch.testing.assert_close(slope, (moved - truth) / step, rtol=1e-3, atol=1e-6)


def test_a_random_projection_keeps_squared_lengths():
    outputs = 47
    model, (pixels, _) = classifier(outputs), pictures()
    exact = slopes(
        predict_linearized(model, pixels, "zero", reading=lambda found, _: found[:, :MOST_OUTPUTS])
    )
    rest = slopes(predict_linearized(model, pixels, "zero", reading=lambda found, _: found[:, MOST_OUTPUTS:]))
    length = exact.square().sum(-1) + rest.square().sum(-1)
    draws = [
        slopes(predict_linearized(model, pixels, "zero", reading=random_projection(outputs, 31, seed)))
        for seed in range(4)
    ]
    found = torch.cat(draws, -1).square().mean(-1)
    assert ((found / length - 1).abs() < 5 * np.sqrt(2 / (4 * 31))).all()
    assert abs((found / length).mean() - 1) < 0.1


def test_nothing_is_left_behind():
    model, (pixels, _) = zoo("deit"), pictures()
    model.train()
    model.head.weight.requires_grad_(False)
    before = state(model)
    predict_linearized(model, pixels, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="expected one class number per image"):
        predict_linearized(model, pixels, reading=margin(torch.tensor([9] * IMAGES)))
    assert_same_weights(model, before)
    assert hooks_left(model) == 0
    assert model.training
    assert not model.head.weight.requires_grad
    assert model.head.bias.requires_grad
    assert all(weight.grad is None for weight in model.parameters())
    assert not any("forward" in vars(module) for module in model.modules())


class Detached(torch.nn.Module):
    """A model that lets no gradient through."""

    def __init__(self, reader: Reader):
        super().__init__()
        self.inner = reader

    def forward(self, pixel_values):
        return self.inner(pixel_values).detach()


def test_what_cannot_be_linearized_is_refused():
    model, (pixels, _) = zoo("vit"), pictures()
    many = MOST_OUTPUTS + 1
    with pytest.raises(ValueError, match=rf"{many} outputs.*margin\(labels\).*random_projection\({many}\)"):
        predict_linearized(classifier(many), pixels)
    with pytest.raises(ValueError, match="carry no gradient"):
        predict_linearized(Detached(model), pixels)
    with pytest.raises(ValueError, match=r"shape \(5,\) to linearize"):
        predict_linearized(model, pixels, reading=lambda found, _: found[:, 0])
    with pytest.raises(ValueError, match="mode is 'published-code'"):
        predict_linearized(model, pixels, "published-code")
    with pytest.raises(ValueError, match="batch is 0"):
        predict_linearized(model, pixels, batch=0)
    with pytest.raises(ValueError, match=r"dtype is torch\.int8"):
        predict_linearized(model, pixels, dtype=torch.int8)
    with pytest.raises(IndexError, match="layer 5 does not exist"):
        predict_linearized(model, pixels, layers=[5])
    with pytest.raises(IndexError, match="head 3 does not exist"):
        predict_linearized(model, pixels, heads=[3])
    with pytest.raises(ValueError, match="no head to ablate"):
        predict_linearized(model, pixels, heads=[])
    with pytest.raises(ValueError, match="needs reference"):
        predict_linearized(model, iter([pixels]), "mean")
    with pytest.raises(ValueError, match="needs donors"):
        predict_linearized(model, iter([pixels]), "resample")
    with pytest.raises(ValueError, match="donors was given for mode 'zero'"):
        predict_linearized(model, iter([pixels]), "zero", donors=iter([pixels]))
    with pytest.raises(ValueError, match="4 donors for 5 images"):
        predict_linearized(model, iter([pixels]), "resample", donors=iter([pixels[:4]]))
    with pytest.raises(ValueError, match="yields no images"):
        predict_linearized(model, iter([]), "zero")
    with pytest.raises(ValueError, match=r"pixel_values has shape \(0, 3, 22, 22\)"):
        predict_linearized(model, pixels[:0], "zero")
    pixels[3, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"not finite for image\(s\) \[3\]"):
        predict_linearized(model, pixels, "zero", batch=2)


def test_sets_that_do_not_fit_are_refused():
    model, (pixels, _) = zoo("vit"), pictures()
    found = predict_linearized(model, pixels, layers=[1])
    with pytest.raises(ValueError, match=r"no prediction without \[\(2, 0\)\]"):
        linearized_sets(found, [[(1, 0), (2, 0)]])
    with pytest.raises(ValueError, match="layer 1, head 0 twice"):
        linearized_sets(found, [[(1, 0), (1, 0)]])
    with pytest.raises(ValueError, match="made by 'replay', expected 'linearized'"):
        linearized_sets(predict_without_heads(model, pixels), [[(1, 0)]])


def test_readings_that_do_not_fit_are_refused():
    model, (pixels, _) = zoo("vit"), pictures()
    with pytest.raises(ValueError, match=r"dtype torch\.float64, expected one class number"):
        margin(torch.zeros(3).double())
    with pytest.raises(ValueError, match="4 labels from 0 to 0 do not fit images 0 to 4"):
        predict_linearized(model, pixels, reading=margin(torch.zeros(4, dtype=torch.long)))
    with pytest.raises(ValueError, match="directions is 0"):
        random_projection(7, 0)
    with pytest.raises(ValueError, match=f"has {TARGETS} outputs, expected the 7"):
        predict_linearized(model, pixels, reading=random_projection(7))
