"""One head taken apart: known queries, keys and values, the exact split of logits, gradients, and pointing."""

import numpy as np
import pytest
import torch
from heads_zoo import FAMILIES, HEADS, IMAGES, LAYERS, SIZE, TARGETS, pictures, zoo
from test_heads_hooks import hooks_left

from vitmech_utils.heads.hooks import capture_heads, change_heads
from vitmech_utils.heads.one_head import (
    HeadReading,
    head_gradients,
    logit_shares,
    point_head,
    point_heads,
    read_head,
    read_heads,
    value_writes,
)
from vitmech_utils.heads.replay import ReplayError

HEAD = (LAYERS - 2, 1)


def reading(query, key, value=None) -> HeadReading:
    value = key if value is None else value
    return HeadReading(query, key, value, torch.zeros(len(query), 1, dtype=query.dtype))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_read_gives_what_the_head_writes(family):
    model, (pixels, _) = zoo(family), pictures()
    found = read_head(model, pixels, HEAD, batch=2)
    with torch.no_grad(), capture_heads(model) as written:
        answer = model(pixels)
    torch.testing.assert_close(found.output, written[HEAD[0]][:, :, HEAD[1]], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.predictions, answer)
    torch.testing.assert_close(found.weights.sum(-1), torch.ones_like(found.weights[..., 0]))
    assert found.query.shape[0] == IMAGES
    assert found.query.shape[-1] == SIZE
    assert not hooks_left(model)


def test_logits_of_place_alone_and_of_content_alone():
    torch.manual_seed(0)
    query = torch.randn(1, 7, 5, dtype=torch.float64).expand(11, 7, 5)
    fixed = torch.randn(1, 7, 5, dtype=torch.float64).expand(11, 7, 5)
    by_place = reading(query, fixed)
    assert logit_shares(by_place, by_place) == pytest.approx({"place": 1, "content": 0, "query content": 0})
    moving = torch.randn(11, 7, 5, dtype=torch.float64)
    moving = moving - moving.mean(0)
    by_content = reading(query, moving)
    assert logit_shares(by_content, by_content) == pytest.approx(
        {"place": 0, "content": 1, "query content": 0}
    )


def test_shares_are_those_of_a_hand_made_split_and_sum_to_one():
    torch.manual_seed(1)
    own, other = (reading(*torch.randn(2, 5, 7, 3, dtype=torch.float64)) for _ in range(2))
    found = logit_shares(own, other, tokens=slice(2, None))
    query, key = other.query.mean(0), other.key.mean(0)
    parts = {"place": [], "content": [], "query content": []}
    for i in range(5):
        parts["place"].append(query @ key.T)
        parts["content"].append(query @ (own.key[i] - key).T)
        parts["query content"].append((own.query[i] - query) @ own.key[i].T)
    parts = {name: np.array([part.numpy()[:, 2:] for part in found]) for name, found in parts.items()}
    parts = {name: part - part.mean(2, keepdims=True) for name, part in parts.items()}
    whole = sum(parts.values())
    expected = {name: (part * whole).sum() / (whole**2).sum() for name, part in parts.items()}
    assert found == pytest.approx(expected)
    assert sum(found.values()) == pytest.approx(1)


def test_shuffled_places_explain_nothing():
    torch.manual_seed(2)
    query = torch.randn(1, 1, 5, dtype=torch.float64).expand(3, 401, 5)
    places = torch.randn(1, 401, 5, dtype=torch.float64).expand(3, 401, 5)
    own = reading(query, places)
    shuffled = logit_shares(own, own, rng=np.random.default_rng(0))
    assert abs(shuffled["place"]) < 0.15
    assert sum(shuffled.values()) == pytest.approx(1)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_finite_differences_of_what_the_head_writes(family):
    model, (pixels, _) = zoo(family), pictures()
    gradients = head_gradients(model, pixels, HEAD, batch=2)
    step = 1e-6 * torch.randn(SIZE, dtype=torch.float64)
    with torch.no_grad():
        for token in (0, 3):

            def moved(sign, token=token):
                def change(present):
                    new = present.clone()
                    new[:, token] += sign * step
                    return new

                with change_heads(model, {HEAD: change}):
                    return model(pixels)

            slope = (moved(1) - moved(-1)) / 2
            torch.testing.assert_close(gradients[:, :, token] @ step, slope, rtol=1e-4, atol=1e-12)
    assert gradients.shape[:2] == (IMAGES, TARGETS)
    assert not hooks_left(model)


def test_attention_times_writes_is_gradient_times_output():
    model, (pixels, _) = zoo("dinov2"), pictures()
    found, gradients = read_head(model, pixels, HEAD), head_gradients(model, pixels, HEAD)
    # Equal rows: only then does one unit of attention mean the same at every query.
    flat = HeadReading(torch.zeros_like(found.query), found.key, found.value, found.predictions)
    writes = value_writes(found, gradients)
    by_attention = torch.einsum("ij,ijt->it", flat.weights[:, 0], writes)
    torch.testing.assert_close(by_attention, torch.einsum("ikd,itkd->it", flat.output, gradients))


def test_a_pointed_head_writes_the_value_it_points_at():
    model, (pixels, _) = zoo("vit"), pictures()
    found = read_head(model, pixels, HEAD)
    tokens = torch.tensor([0, 1, 2, 3, 4])
    answer = point_head(model, pixels, HEAD, found, tokens, batch=2)
    for i, token in enumerate(tokens):
        with torch.no_grad(), change_heads(model, {HEAD: found.value[i, token]}):
            torch.testing.assert_close(answer[i : i + 1], model(pixels[i : i + 1]))
    assert not torch.allclose(answer, found.predictions)


def test_pointing_where_the_head_looks_alone_changes_nothing():
    model, (pixels, _) = zoo("vit"), pictures()
    found = read_head(model, pixels, HEAD)
    same = HeadReading(found.query, found.key, found.value[:, :1].expand_as(found.value), found.predictions)
    with torch.no_grad(), change_heads(model, {HEAD: same.output}):
        expected = model(pixels)
    pointed = point_head(model, pixels, HEAD, same, torch.full((IMAGES,), 2))
    torch.testing.assert_close(pointed, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_pointed_in_one_pass_are_those_pointed_by_a_hook_each(family):
    model, (pixels, _) = zoo(family), pictures()
    heads = [HEAD, (0, 0), (LAYERS - 1, HEADS - 1), (LAYERS - 1, 0)]
    tokens = torch.tensor([4, 0, 1, 3, 2])
    together = point_heads(model, pixels, heads, tokens, batch=2)
    read = read_heads(model, pixels, heads, batch=3)
    assert list(together) == heads
    for head in heads:
        alone = read_head(model, pixels, head)
        for name in ("query", "key", "value", "predictions"):
            torch.testing.assert_close(getattr(together[head].reading, name), getattr(alone, name))
            torch.testing.assert_close(getattr(read[head], name), getattr(alone, name))
        expected = point_head(model, pixels, head, alone, tokens)
        torch.testing.assert_close(together[head].predictions, expected, rtol=1e-9, atol=1e-11)
        assert not torch.allclose(expected, alone.predictions)
    assert not hooks_left(model)


def test_heads_of_blocks_that_cannot_be_resumed_are_pointed_by_hooks(monkeypatch):
    model, (pixels, _), tokens = zoo("vit"), pictures(), torch.tensor([4, 0, 1, 3, 2])
    expected = point_heads(model, pixels, [HEAD], tokens)[HEAD]

    def refuse(*_arguments):
        raise ReplayError("not here")

    monkeypatch.setattr("vitmech_utils.heads.one_head.Replay", refuse)
    found = point_heads(model, pixels, [HEAD], tokens, batch=2)[HEAD]
    torch.testing.assert_close(found.predictions, expected.predictions)
    torch.testing.assert_close(found.reading.value, expected.reading.value)


def test_what_does_not_fit_is_refused():
    model, (pixels, _) = zoo("vit"), pictures()
    found = read_head(model, pixels, HEAD)
    with pytest.raises(IndexError, match=f"head {HEADS} does not exist"):
        read_head(model, pixels, (0, HEADS))
    with pytest.raises(ValueError, match="tokens go from 0 to 99"):
        point_head(model, pixels, HEAD, found, torch.tensor([0, 1, 2, 3, 99]))
    with pytest.raises(ValueError, match="expected as many of each"):
        point_head(model, pixels, HEAD, found, torch.tensor([0]))
    with pytest.raises(ValueError, match="tokens go from 0 to 99"):
        point_heads(model, pixels, [HEAD], torch.tensor([0, 1, 2, 3, 99]))
    with pytest.raises(ValueError, match="expected as many of each"):
        point_heads(model, pixels, [HEAD], torch.tensor([0]))
    with pytest.raises(ValueError, match="of the same head on the same images"):
        value_writes(found, torch.zeros(1, 2, 3, 4))
    with pytest.raises(ValueError, match="expected the same model"):
        logit_shares(found, reading(*torch.zeros(2, 2, 3, SIZE)))
