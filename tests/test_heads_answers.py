"""What a model answers without heads and sets of them, against ablation itself, in float64."""

import numpy as np
import pytest
import torch
from heads_zoo import HEADS, LAYERS, pictures, zoo

from vitmech_utils.heads.ablation import predict_without_heads
from vitmech_utils.heads.answers import head_answers, keep_classes, leading_classes, sets_to_try
from vitmech_utils.heads.linearized import predict_linearized
from vitmech_utils.heads.sets import predict_without_sets
from vitmech_utils.model.anatomy import find_blocks

SETS = [[(0, 0), (1, 1)], [(1, 0)]]


def test_answers_are_those_of_full_passes_and_unknown_where_none_was_made() -> None:
    model, (pixels, _) = zoo("vit"), pictures()
    found = head_answers(model, pixels, "mean", sets=SETS, exact=1, tried=2)
    slow = predict_without_heads(model, pixels, "mean", replay=False, reference=pixels)
    slow_one = predict_without_heads(model, pixels[:1], "mean", replay=False, reference=pixels)
    together = predict_without_sets(model, pixels, SETS, "mean", replay=False, reference=pixels)
    np.testing.assert_allclose(found["whole"], slow.baseline, atol=1e-10)
    for place, (layer, head) in enumerate(zip(slow_one.layers, slow_one.heads, strict=True)):
        np.testing.assert_allclose(found["without"][0, layer, head], slow_one.ablated[place, 0], atol=1e-10)
    assert found["without"][1:].isnan().all()
    np.testing.assert_allclose(found["without_sets"][:, :2], together.ablated[:, :2], atol=1e-10)
    assert found["without_sets"][:, 2:].isnan().all()
    assert found["sets"].nonzero().tolist() == [[0, 0, 0], [0, 1, 1], [1, 1, 0]]


def test_slopes_are_derivatives_of_the_answer() -> None:
    model, (pixels, _) = zoo("vit"), pictures()
    found = head_answers(model, pixels, "zero", exact=0)
    linear = predict_linearized(model, pixels, "zero")
    assert found["slopes"].shape == (len(pixels), LAYERS, HEADS, linear.baseline.shape[1])
    for place, (layer, head) in enumerate(zip(linear.layers, linear.heads, strict=True)):
        expected = linear.ablated[place] - linear.baseline
        np.testing.assert_allclose(found["slopes"][:, layer, head], expected, atol=1e-12)


def test_sets_to_try_are_layers_and_random_sets_of_each_size() -> None:
    anatomy = find_blocks(zoo("vit"))
    sets = sets_to_try(anatomy, draws=3, seed=1)
    assert sets[:LAYERS] == [[(layer, head) for head in range(HEADS)] for layer in range(LAYERS)]
    sizes = [len(heads) for heads in sets[LAYERS:]]
    assert sizes == [size for size in (1, 2, 4, 8, 16) if size <= LAYERS * HEADS // 2 for _ in range(3)]
    assert all(len(set(heads)) == len(heads) for heads in sets)
    assert sets == sets_to_try(anatomy, draws=3, seed=1)


def test_folded_classes_keep_their_probabilities() -> None:
    logits = torch.randn(4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kept = leading_classes(logits, torch.tensor([2, 2, 7, 0]), most=4)
    assert {0, 2, 7} <= set(kept)
    assert len(kept) == 4
    folded = keep_classes(kept, 9)(logits)
    whole = logits.softmax(-1)
    np.testing.assert_allclose(folded.softmax(-1)[:, :4], whole[:, kept], atol=1e-12)
    rest = [number for number in range(9) if number not in kept]
    np.testing.assert_allclose(folded.softmax(-1)[:, 4], whole[:, rest].sum(-1), atol=1e-12)
    assert torch.equal(keep_classes(range(9), 9)(logits), logits)


def test_a_fold_is_applied_to_every_answer() -> None:
    model, (pixels, _) = zoo("vit"), pictures()
    plain = head_answers(model, pixels, "zero", sets=SETS)
    folded = head_answers(model, pixels, "zero", sets=SETS, fold=lambda outputs: outputs[..., :1] * 2)
    for name in ("whole", "without", "without_sets"):
        np.testing.assert_allclose(folded[name], plain[name][..., :1] * 2, atol=1e-10)


def test_a_reference_that_no_mode_uses_and_many_outputs_are_refused() -> None:
    model, (pixels, _) = zoo("vit"), pictures()
    with pytest.raises(ValueError, match="only mode 'mean' uses it"):
        head_answers(model, pixels, "zero", reference=pixels)
    with pytest.raises(ValueError, match=r"there are answers of shape \(1, 99\).*pass a fold"):
        head_answers(model, pixels, "zero", fold=lambda outputs: outputs[..., :1].repeat(1, 99))
