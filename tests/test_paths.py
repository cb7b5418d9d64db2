"""Path patching against an independent implementation by hooks, and sums that are known in linear models."""

import pytest
import torch
from heads_zoo import HEADS, LAYERS, pictures, zoo
from test_heads_hooks import hooks_left
from test_heads_linearized import straight

from vitmech_utils.heads.direct import predict_directly
from vitmech_utils.heads.hooks import capture_heads, change_heads
from vitmech_utils.heads.paths import MLP, READOUT, paths_from, paths_into
from vitmech_utils.heads.replacements import mean_outputs
from vitmech_utils.heads.sets import predict_without_sets
from vitmech_utils.model.anatomy import find_blocks

FAMILIES = ("vit", "dinov2", "timm")
HEAD = (LAYERS - 3, 1)


class SameNorm(torch.nn.Module):
    """Stands where a norm stood, and changes nothing."""

    def forward(self, hidden):
        return hidden


def last_linear(block):
    return [module for module in block.block.modules() if isinstance(module, torch.nn.Linear)][-1]


def forced(model, pixels, sender, receiver, means):
    """The answer by path patching as its authors describe it: two passes with everything else frozen by hooks."""
    blocks = find_blocks(model).blocks
    clean, handles = {}, []
    for block in blocks:
        for module in (block.output, last_linear(block)):
            handles.append(module.register_forward_hook(lambda m, _i, out: clean.__setitem__(m, out)))
    with capture_heads(model) as heads:
        model(pixels)
    for handle in handles:
        handle.remove()
    layer, one = sender
    columns = slice(7 * one, 7 * one + 7)
    handles = []
    with torch.no_grad():
        shift = (means[layer][:, :, one] - heads[layer][:, :, one]) @ blocks[layer].output.weight[
            :, columns
        ].T
    frozen = dict(clean)
    frozen[blocks[layer].output] = clean[blocks[layer].output] + shift
    end, part = receiver
    free = {last_linear(blocks[end])} if part == MLP else set()
    for block in blocks[: end + 1]:
        for module in (block.output, last_linear(block)):
            attention_of_end = block.index == end and module is block.output and part != MLP
            if module not in free and not attention_of_end:
                handles.append(module.register_forward_hook(lambda m, _i, _o: frozen[m]))
    seen = {}
    handles.append(last_linear(blocks[end]).register_forward_hook(lambda _m, _i, out: seen.update(mlp=out)))
    handles.append(
        blocks[end].output.register_forward_pre_hook(lambda _m, inputs: seen.update(heads=inputs[0]))
    )
    model(pixels)
    for handle in handles:
        handle.remove()
    if part == MLP:
        handle = last_linear(blocks[end]).register_forward_hook(lambda _m, _i, _o: seen["mlp"])
        answer = model(pixels)
        handle.remove()
        return answer
    with change_heads(model, {(end, part): seen["heads"][..., 7 * part : 7 * part + 7]}):
        return model(pixels)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_paths_are_those_of_two_passes_with_everything_else_frozen(family):
    model, (pixels, _) = zoo(family), pictures()
    means = mean_outputs(model, pixels)
    into, out = paths_into(model, pixels, HEAD, pixels, 2), paths_from(model, pixels, HEAD, pixels, 2)
    for part, changed in zip(into.parts, into.changed, strict=True):
        if part[1] != MLP:
            torch.testing.assert_close(changed, forced(model, pixels, part, HEAD, means))
    for part, changed in zip(out.parts, out.changed, strict=True):
        if part != READOUT:
            torch.testing.assert_close(changed, forced(model, pixels, HEAD, part, means))
    assert (into.changed - into.baseline).abs().amax((1, 2)).min() > 1e-9
    assert (out.changed - out.baseline).abs().amax((1, 2)).min() > 1e-9
    assert len(into.parts) == HEAD[0] * (HEADS + 1)
    assert len(out.parts) == 1 + (LAYERS - 1 - HEAD[0]) * (HEADS + 1) + 1
    assert not hooks_left(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_whole_and_the_straight_path_are_what_other_functions_say(family):
    model, (pixels, _) = zoo(family), pictures()
    out = paths_from(model, pixels, HEAD, pixels, 3)
    exact = predict_without_sets(model, pixels, [[HEAD]], "mean")
    torch.testing.assert_close(out.whole, exact.ablated[0])
    directly = predict_directly(model, pixels, "mean")
    place = directly.sets.index(frozenset([HEAD]))
    torch.testing.assert_close(out.changed[-1], directly.ablated[place])
    assert out.parts[-1] == READOUT


def test_in_a_linear_model_the_paths_add_up_to_the_whole():
    model, (pixels, _) = straight("vit"), pictures()
    for block in find_blocks(model).blocks:
        for name, child in list(block.block.named_children()):
            if isinstance(child, torch.nn.Identity):
                setattr(block.block, name, SameNorm())
    out = paths_from(model, pixels, HEAD, pixels)
    shifts = out.changed - out.baseline
    assert (out.whole - out.baseline).abs().max() > 1e-3
    torch.testing.assert_close(shifts.sum(0), out.whole - out.baseline)
    mlps = [row for row, (_layer, part) in enumerate(out.parts[:-1]) if part == MLP]
    torch.testing.assert_close(shifts[mlps], torch.zeros_like(shifts[mlps]))


@torch.no_grad()
def test_a_sender_whose_mlp_writes_the_same_everywhere_has_no_path():
    model, (pixels, _) = zoo("vit"), pictures()
    blocks = find_blocks(model).blocks
    last_linear(blocks[0]).weight.zero_()
    into = paths_into(model, pixels, HEAD, pixels)
    shifts = (into.changed - into.baseline).abs().amax((1, 2))
    assert shifts[into.parts.index((0, MLP))] < 1e-12
    assert shifts[into.parts.index((1, MLP))] > 1e-9


def test_the_first_layer_has_nothing_before_it():
    model, (pixels, _) = zoo("vit"), pictures()
    assert paths_into(model, pixels, (0, 1), pixels).parts == ()
