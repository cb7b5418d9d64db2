"""Heads removed with their means kept: what replacing their output by its mean computes."""

import pytest
import torch
from heads_zoo import FAMILIES, HEADS, pictures, zoo

from vitmech_utils.heads.hooks import capture_heads, change_heads
from vitmech_utils.heads.pruning import PruningError, mean_writings, prune_heads, prune_keeping_means
from vitmech_utils.model.anatomy import find_blocks

GONE = [(0, head) for head in range(HEADS)] + [(2, 1), (4, 0), (4, 2)]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_it_computes_what_means_in_place_of_the_heads_compute(family) -> None:
    model, (pixels, _) = zoo(family), pictures()
    with capture_heads(model) as found:
        model(pixels)
    means = {(layer, head): found[layer][:, :, head].mean((0, 1)) for layer, head in GONE}
    with change_heads(model, means):
        expected = model(pixels)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for batch in (1, 16):
        kept = prune_keeping_means(model, GONE, mean_writings(model, pixels, batch))
        torch.testing.assert_close(kept(pixels), expected, rtol=0, atol=1e-10)
    assert (expected - prune_heads(model, GONE)(pixels)).abs().max() > 1e-4
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@torch.no_grad()
def test_it_goes_on_from_a_pruned_model() -> None:
    model, (pixels, _) = zoo("dinov2"), pictures()
    less = prune_heads(model, {(2, 0)})
    with capture_heads(less) as found:
        less(pixels)
    with change_heads(less, {(2, 1): found[2][:, :, 1].mean((0, 1))}):
        expected = less(pixels)
    kept = prune_keeping_means(less, [(2, 1)], mean_writings(less, pixels))
    assert find_blocks(kept).blocks[2].numbers.kept == (2,)
    torch.testing.assert_close(kept(pixels), expected, rtol=0, atol=1e-10)


def test_means_of_another_model_and_of_no_image_are_refused() -> None:
    model, (pixels, _) = zoo("dinov2"), pictures()
    with pytest.raises(PruningError, match="means of 1 layers"):
        prune_keeping_means(model, [(2, 1)], mean_writings(model, pixels)[:1])
    with pytest.raises(ValueError, match="at least one image"):
        mean_writings(model, pixels[:0])
