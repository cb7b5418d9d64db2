"""Attention in half precision whose weights are kept: the fused kernel's numbers, where it is asked for only."""

import pytest
import torch
from heads_zoo import pictures, zoo
from torch.nn.functional import scaled_dot_product_attention

from vitmech_utils.heads.linearized import predict_linearized
from vitmech_utils.model import half_attention
from vitmech_utils.model.half_attention import attention, keeping_weights


def parts(dtype=torch.bfloat16, images=2, tokens=33, requires_grad=True):
    generator = torch.Generator().manual_seed(0)
    drawn = [3 * torch.randn(images, tokens, 4, 16, generator=generator) for _ in range(3)]
    return [part.transpose(1, 2).to(dtype).requires_grad_(requires_grad) for part in drawn]


def gradients(compute, inputs, weight):
    output = compute(*inputs)
    return [output, *torch.autograd.grad(output, inputs, weight.to(output.dtype))]


def off(found, exact):
    return float((found.detach().double() - exact.detach()).norm() / exact.detach().norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [None, 0.1])
def test_answers_and_gradients_are_nearly_those_of_float64_and_no_worse_than_the_fused_kernel_s(scale, dtype):
    given = parts(dtype)
    exact_inputs = [part.detach().double().requires_grad_() for part in given]
    weight = torch.randn(given[0].shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    exact = gradients(
        lambda q, k, v: scaled_dot_product_attention(q, k, v, scale=scale), exact_inputs, weight
    )
    ours = gradients(lambda q, k, v: attention(q, k, v, scale), given, weight)
    fused = gradients(lambda q, k, v: scaled_dot_product_attention(q, k, v, scale=scale), given, weight)
    for own, kernel, truth in zip(ours, fused, exact, strict=True):
        assert own.dtype == dtype
        assert own.shape == truth.shape
        assert off(own, truth) < 0.01
        assert off(own, truth) < 2 * off(kernel, truth)


def test_autocast_does_not_round_the_scores():
    given = parts(requires_grad=False)
    given[0] = given[0] * 4  # scores of some tens, of which half precision keeps no digit behind the point
    exact = scaled_dot_product_attention(*(part.double() for part in given))
    with torch.autocast("cpu", torch.bfloat16):
        assert off(attention(*given), exact) < 0.01


def test_only_plain_calls_in_half_precision_are_taken(monkeypatch):
    taken = []
    own = attention
    monkeypatch.setattr(half_attention, "attention", lambda *given: taken.append(1) or own(*given))
    q, k, v = parts()
    mask = torch.ones(33, 33, dtype=torch.bool)
    with keeping_weights():
        scaled_dot_product_attention(q, k, v)
        scaled_dot_product_attention(q, k, v, attn_mask=None, dropout_p=0.0, scale=0.2, is_causal=False)
        assert len(taken) == 2
        scaled_dot_product_attention(q, k, v, mask)
        scaled_dot_product_attention(q, k, v, attn_mask=mask)
        scaled_dot_product_attention(q, k, v, dropout_p=0.5)
        scaled_dot_product_attention(q, k, v, is_causal=True)
        scaled_dot_product_attention(q[:, :, :1], k, v)
        scaled_dot_product_attention(query=q, key=k, value=v)
        scaled_dot_product_attention(*(part.float() for part in (q, k, v)))
        assert len(taken) == 2
        monkeypatch.setattr(half_attention, "LARGEST", 2 * 4 * 33 * 33 * 2 - 1)
        scaled_dot_product_attention(q, k, v)
        assert len(taken) == 2
    monkeypatch.undo()
    scaled_dot_product_attention(q, k, v)
    assert len(taken) == 2


@pytest.mark.parametrize("family", ["vit", "dinov2"])
def test_linearizing_in_bfloat16_keeps_weights_and_stays_near_float32(family, monkeypatch):
    taken = []
    own = attention
    monkeypatch.setattr(half_attention, "attention", lambda *given: taken.append(1) or own(*given))
    model, (pixels, _) = zoo(family).float(), pictures(6, seed=2)
    pixels = pixels.float()
    exact = predict_linearized(model, pixels, "zero")
    assert not taken
    half = predict_linearized(model, pixels, "zero", dtype=torch.bfloat16)
    assert taken
    change, truth = half.ablated - half.baseline, exact.ablated - exact.baseline
    assert off(change, truth) < 0.1
