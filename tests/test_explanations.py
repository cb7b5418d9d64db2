"""Maps of a whole prediction: against the library's own attentions and gradients, against sums, and by known orders."""

import numpy as np
import pytest
import torch
from heads_zoo import pictures as zoo_pictures
from heads_zoo import zoo
from test_heads_hooks import hooks_left
from torch import nn
from transformers import AttentionInterface, ViTConfig, ViTModel

from vitmech_utils.heads.explanations import (
    attention_relevance,
    average_precision,
    mass_on,
    pixel_relevance,
    predict_without_patches,
    ranks,
)

SIDE, PATCH, GRID, LAYERS, HEADS = 32, 8, 4, 3, 2


class Reader(nn.Module):
    """A small ViT under two numbers."""

    def __init__(self, attention: str = "eager") -> None:
        super().__init__()
        torch.manual_seed(0)
        config = ViTConfig(
            hidden_size=16, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=32,
            image_size=SIDE, patch_size=PATCH, attn_implementation=attention, initializer_range=0.3,
        )  # fmt: skip
        self.backbone = ViTModel(config, add_pooling_layer=False)
        self.head = nn.Linear(16, 2)

    def forward(self, pixel_values: torch.Tensor, **more: bool) -> torch.Tensor:
        self.found = self.backbone(pixel_values, **more)
        return self.head(self.found.last_hidden_state[:, 0])


class Everywhere(Reader):
    """One that answers at every token."""

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(pixel_values).last_hidden_state)


@pytest.fixture
def model() -> Reader:
    return Reader().eval()


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def patches(values: torch.Tensor) -> torch.Tensor:
    return values.unflatten(-1, (GRID, PATCH)).unflatten(-3, (GRID, PATCH)).sum((-3, -1))


def test_relevance_through_attention_is_that_of_the_library_s_own_attentions(model, pictures) -> None:
    found = attention_relevance(model, pictures, batch=2)
    assert found.shape == (3, 2, GRID, GRID)
    assert not hooks_left(model)
    said = model(pictures, output_attentions=True)
    weights = model.found.attentions
    for output in range(2):
        slopes = torch.autograd.grad(said[:, output].sum(), weights, retain_graph=True)
        carried = torch.eye(1 + GRID**2).expand(3, -1, -1)
        for weight, slope in zip(weights, slopes, strict=True):
            carried = carried + (weight * slope).abs().mean(1) @ carried
        expected = carried[:, 0, 1:].unflatten(1, (GRID, GRID))
        torch.testing.assert_close(found[:, output], expected.detach(), rtol=1e-4, atol=1e-6)


def test_one_step_is_the_gradient_times_the_difference(model, pictures) -> None:
    reference = pictures.mean(0)
    found = pixel_relevance(model, pictures, reference, batch=2)
    place = pictures.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(place)[:, 1].sum(), place)
    expected = patches((slope * (pictures - reference)).sum(1))
    torch.testing.assert_close(found[:, 1], expected.detach(), rtol=1e-4, atol=1e-6)


def test_integrated_gradients_add_up_to_the_output_s_difference(pictures) -> None:
    model = Reader().eval().double()
    pictures = pictures.double()
    reference = torch.zeros_like(pictures[0])
    difference = (model(pictures) - model(reference[None])).detach()
    few, many = (
        pixel_relevance(model, pictures, reference, steps=steps).sum((-2, -1)).double() - difference
        for steps in (4, 256)
    )
    assert many.abs().max() < 5e-3 * difference.abs().max()
    assert many.abs().max() < few.abs().max()


def test_bfloat16_gives_nearly_the_same_and_is_refused_where_gradients_are_held(model, pictures) -> None:
    reference = pictures.mean(0)
    exact, half = (
        pixel_relevance(model, pictures, reference, steps=4, dtype=dtype) for dtype in (None, torch.bfloat16)
    )
    assert half.dtype == torch.float32
    assert not torch.equal(half, exact)
    assert (half - exact).norm() < 0.1 * exact.norm()
    with pytest.raises(ValueError, match="conserve"):
        pixel_relevance(model, pictures, reference, conserve=True, dtype=torch.bfloat16)


def test_conserved_relevance_is_the_gradient_with_attention_and_spread_held(pictures) -> None:
    def held(module, query, key, value, mask, scaling=None, **_more):
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        weights = (query @ key.transpose(-1, -2) * scale).softmax(-1).detach()
        return (weights @ value).transpose(1, 2).contiguous(), weights

    AttentionInterface.register("held", held)
    reference = pictures.mean(0)
    found = pixel_relevance(Reader().eval(), pictures, reference, conserve=True)
    other = Reader("held").eval()

    def norm(module: nn.LayerNorm, inputs: tuple, _output: torch.Tensor) -> torch.Tensor:
        (given,) = inputs
        spread = (given.var(-1, unbiased=False, keepdim=True) + module.eps).sqrt().detach()
        return (given - given.mean(-1, keepdim=True)) / spread * module.weight + module.bias

    for module in other.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_hook(norm)
    place = pictures.clone().requires_grad_()
    for output in range(2):
        (slope,) = torch.autograd.grad(other(place)[:, output].sum(), place)
        expected = patches((slope * (pictures - reference)).sum(1))
        torch.testing.assert_close(found[:, output], expected.detach(), rtol=1e-3, atol=1e-5)
    plain = pixel_relevance(Reader().eval(), pictures, reference)
    assert not torch.allclose(found, plain, rtol=0.05)


@pytest.mark.parametrize("family", ["vit", "dinov2", "timm"])
def test_every_way_leaves_a_model_as_it_was(family) -> None:
    model, (images, _) = zoo(family), zoo_pictures()
    before = model(images)
    for found in (
        attention_relevance(model, images),
        pixel_relevance(model, images, images[0], conserve=True),
    ):
        assert torch.isfinite(found).all()
    assert not hooks_left(model)
    torch.testing.assert_close(model(images), before)


def test_average_precision_by_hand() -> None:
    maps = torch.tensor([[[0.9, 0.8], [0.7, 0.1]]]).expand(4, 2, 2)
    shown = torch.tensor(
        [[[1, 0], [0, 0]], [[0, 0], [0, 1]], [[0, 1], [1, 0]], [[0, 0], [0, 0]]], dtype=torch.bool
    )
    found = average_precision(maps, shown)
    np.testing.assert_allclose(found[:3], [1, 1 / 4, (1 / 2 + 2 / 3) / 2])
    assert found[3].isnan()
    flat = average_precision(torch.ones(1, 2, 2), shown[:1])
    assert float(flat[0]) == pytest.approx(1 / 4)


def test_average_precision_of_random_maps_is_the_share_that_is_shown() -> None:
    random = torch.Generator().manual_seed(0)
    shown = torch.zeros(400, 10, 10, dtype=torch.bool)
    shown[:, :2] = True
    found = average_precision(torch.rand(400, 10, 10, generator=random), shown)
    assert (
        0.2 < float(found.mean()) < 0.27
    )  # a little above the share: few patches, and the first ranks weigh more


def test_mass_leaves_out_what_is_below_zero() -> None:
    maps = torch.tensor([[[3.0, 1.0], [-5.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    covered = torch.tensor([[[0.5, 0.0], [1.0, 1.0]]]).expand(2, 2, 2)
    found = mass_on(maps, covered)
    assert float(found[0]) == pytest.approx(1.5 / 4)
    assert found[1].isnan()


def test_patches_go_in_their_order_and_all_of_them_give_the_donor(model, pictures) -> None:
    donors = pictures.roll(1, 0)
    maps = torch.arange(GRID**2, dtype=torch.float32).unflatten(0, (GRID, GRID)).expand(3, -1, -1)
    found = predict_without_patches(model, pictures, donors, maps, [0, 1, GRID**2], batch=2)
    with torch.inference_mode():
        torch.testing.assert_close(found[0], model(pictures))
        torch.testing.assert_close(found[2], model(donors))
        last = pictures.clone()
        last[:, :, -PATCH:, -PATCH:] = donors[:, :, -PATCH:, -PATCH:]
        torch.testing.assert_close(found[1], model(last))
    assert ranks(torch.zeros(1, 2, 2)).tolist() == [[0, 1, 2, 3]]


def test_what_does_not_fit_is_refused(model, pictures) -> None:
    with pytest.raises(ValueError, match="reference has shape"):
        pixel_relevance(model, pictures, pictures[0, :, :16])
    maps = torch.zeros(3, GRID, GRID)
    with pytest.raises(ValueError, match="expected 0 to 16 patches"):
        predict_without_patches(model, pictures, pictures, maps, [17])
    with pytest.raises(ValueError, match="donors have shape"):
        predict_without_patches(model, pictures, pictures[:2], maps, [1])
    with pytest.raises(ValueError, match="expected the same"):
        average_precision(maps, torch.zeros(3, 2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="expected the same"):
        mass_on(maps, torch.zeros(3, 2, 2))
    with pytest.raises(ValueError, match=r"expected \[image, output\]"):
        pixel_relevance(Everywhere().eval(), pictures, pictures[0])
