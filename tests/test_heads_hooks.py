import copy

import pytest
import torch
from heads_zoo import FAMILIES, HEADS, IMAGES, LAYERS, SIZE, WIDTH, pictures, zoo
from torch import nn

from vitmech_utils.heads.hooks import HeadHookError, capture_heads, change_heads
from vitmech_utils.model.anatomy import AnatomyError, find_blocks


def hooks_left(model: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())


def state(model: nn.Module) -> dict:
    return copy.deepcopy(model.state_dict())


def assert_same_weights(model: nn.Module, before: dict) -> None:
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]), name


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_captured_heads_times_output_columns_are_what_attention_adds(family, attention):
    model, (pixels, _) = zoo(family, attention), pictures()
    block = find_blocks(model).blocks[2]
    written = []
    handle = block.output.register_forward_hook(lambda _m, _i, output: written.append(output))
    with capture_heads(model) as heads:
        model(pixels)
    handle.remove()
    assert sorted(heads) == list(range(LAYERS))
    assert heads[2].shape[0] == IMAGES
    assert heads[2].shape[2:] == (HEADS, SIZE)
    by_hand = block.output.bias.clone()
    for head in range(HEADS):
        by_hand = by_hand + heads[2][:, :, head] @ block.output.weight[:, head * SIZE : (head + 1) * SIZE].T
    torch.testing.assert_close(written[0], by_hand, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_zeroing_a_head_equals_zeroing_its_output_columns(family):
    model, (pixels, _) = zoo(family), pictures()
    pruned = copy.deepcopy(model)
    find_blocks(pruned).blocks[3].output.weight[:, 2 * SIZE : 3 * SIZE] = 0
    with change_heads(model, {(3, 2): 0.0}):
        masked = model(pixels)
    torch.testing.assert_close(masked, pruned(pixels), rtol=0, atol=1e-12)
    assert (masked - model(pixels)).abs().max() > 1e-3


@torch.no_grad()
def test_numbers_tensors_and_functions_reach_the_named_head_alone():
    model, (pixels, _) = zoo("dinov2"), pictures()
    tensor = torch.randn(SIZE, dtype=torch.float64)
    with capture_heads(model) as before:
        model(pixels)
    before = {layer: heads.clone() for layer, heads in before.items()}
    changes = {(0, 1): 2.5, (0, 2): tensor, (4, 0): lambda present: -3 * present}
    with change_heads(model, changes), capture_heads(model) as after:
        model(pixels)
    assert torch.equal(after[0][:, :, 0], before[0][:, :, 0])
    assert (after[0][:, :, 1] == 2.5).all()
    assert torch.equal(after[0][:, :, 2], tensor.expand_as(after[0][:, :, 2]))
    with change_heads(model, {(0, 1): 2.5, (0, 2): tensor}), capture_heads(model) as untripled:
        model(pixels)
    torch.testing.assert_close(after[4][:, :, 0], -3 * untripled[4][:, :, 0])


@torch.no_grad()
def test_a_whole_layer_can_be_changed():
    model, (pixels, _) = zoo("vit"), pictures()
    with change_heads(model, {1: 0.0}):
        whole = model(pixels)
    with change_heads(model, {(1, head): 0.0 for head in range(HEADS)}):
        each = model(pixels)
    assert torch.equal(whole, each)


@torch.no_grad()
def test_contexts_nest_and_the_inner_one_sees_the_outer_change():
    model, (pixels, _) = zoo("vit"), pictures()
    with change_heads(model, {(1, 1): 1.0}):
        with change_heads(model, {(1, 1): lambda present: present + 2.0}), capture_heads(model) as heads:
            model(pixels)
        assert (heads[1][:, :, 1] == 3.0).all()
        with capture_heads(model, layers=[1]) as heads:
            model(pixels)
        assert list(heads) == [1]
        assert (heads[1][:, :, 1] == 1.0).all()
    assert hooks_left(model) == 0


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("context", [lambda m: capture_heads(m), lambda m: change_heads(m, {(0, 0): 0.0})])
def test_hooks_go_on_exceptions_and_weights_stay(context):
    model, (pixels, _) = zoo("deit"), pictures()
    before = state(model)

    def interrupted() -> None:
        with context(model):
            model(pixels)
            raise StoppedError

    with pytest.raises(StoppedError):
        interrupted()
    assert hooks_left(model) == 0
    assert_same_weights(model, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_every_precision_keeps_its_dtype(family, attention, dtype):
    model, (pixels, _) = zoo(family, attention).to(dtype), pictures(dtype=dtype)
    new = torch.full((SIZE,), 0.5, dtype=torch.float64)
    with change_heads(model, {(2, 1): new}), capture_heads(model) as heads:
        output = model(pixels)
    assert heads[2].dtype == output.dtype == dtype
    assert (heads[2][:, :, 1] == 0.5).all()
    assert output.isfinite().all()


def test_gradients_flow_through_a_change():
    model, (pixels, _) = zoo("vit"), pictures()
    gate = torch.ones((), dtype=torch.float64, requires_grad=True)
    with change_heads(model, {(2, 1): lambda present: gate * present}):
        model(pixels).sum().backward()
    assert gate.grad.abs() > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({(5, 0): 0.0}, "layer 5 does not exist: this model has layers 0 to 4"),
        ({(-1, 0): 0.0}, "layer -1 does not exist"),
        ({(0, 3): 0.0}, "head 3 does not exist: this model has heads 0 to 2"),
    ],
)
def test_out_of_range_is_refused_before_any_hook(changes, message):
    model = zoo("vit")
    with pytest.raises(IndexError, match=message), change_heads(model, changes):
        pytest.fail("the context was entered")
    assert hooks_left(model) == 0


def test_a_shape_that_does_not_fit_is_named():
    model, (pixels, _) = zoo("vit"), pictures()
    with (
        change_heads(model, {(0, 1): torch.zeros(WIDTH)}),
        pytest.raises(HeadHookError, match=r"layer 0, head 1.*\(21,\)"),
    ):
        model(pixels)


def test_a_model_without_attention_is_refused():
    with pytest.raises(AnatomyError, match="no attention blocks"), capture_heads(nn.Linear(2, 3)):
        pytest.fail("the context was entered")
