"""Attacks on chosen pixels: known optima, what must stay as it was, and what is refused."""

import math
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch
from heads_zoo import HEADS, LAYERS, PIXELS, TARGETS, pictures, zoo
from test_heads_hooks import assert_same_weights, hooks_left, state
from torch import nn

from vitmech_utils.data.dataset import ChirpDataset, stack
from vitmech_utils.data.regions import REGIONS
from vitmech_utils.heads import attacks
from vitmech_utils.heads.attacks import LEVELS, attack, gradient_error, random_noise
from vitmech_utils.heads.attention_shares import attention_statistics
from vitmech_utils.heads.choices import heads_looking_at, other_heads
from vitmech_utils.heads.hooks import change_heads
from vitmech_utils.heads.patching import patch_heads
from vitmech_utils.heads.replacements import mean_outputs
from vitmech_utils.heads.replay import computing, predict
from vitmech_utils.intervals import mean_interval
from vitmech_utils.model.backbones import tiny
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.attacks.figure_changes import (
    DECORATIONS,
    NATURAL,
    choose_pixels,
    occlude,
    region_mask,
)
from vitmech_utils.studies.attacks.figure_changes import (
    TARGETS as ATTACKED,
)
from vitmech_utils.studies.attacks.measure import (
    OWN,
    RANDOM,
    Clean,
    ablation_table,
    apart,
    attack_effects,
    beyond_ablation,
    carried_by_head,
    changes_without,
    clean_figures,
    excess_effect,
    mean_changes,
    plot_edges,
    predictions,
    with_ablation,
    worst_draw,
)
from vitmech_utils.tasks import squared_error

SQUARED = squared_error()
SIDE, IMAGES = 5, 3


class Linear(nn.Module):
    """Three weighted sums of all pixels: what an attack can reach at most is known."""

    def __init__(self, seed: int = 0, side: int = SIDE) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(TARGETS, 3, side, side, dtype=torch.float64))
        self.dropout = nn.Dropout(0.5)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return torch.einsum("tchw,nchw->nt", self.weight, self.dropout(pixel_values))


@pytest.fixture
def grey() -> tuple[torch.Tensor, torch.Tensor]:
    """Images far from black and white, so that only the budget binds, and labels far from any prediction."""
    generator = torch.Generator().manual_seed(1)
    pixels = 0.4 + 0.2 * torch.rand(IMAGES, 3, SIDE, SIDE, generator=generator, dtype=torch.float64)
    return pixels, torch.full((IMAGES, TARGETS), -50.0, dtype=torch.float64)


def one_pixel_less(images: int = IMAGES, side: int = SIDE) -> torch.Tensor:
    mask = torch.zeros(images, side, side, dtype=torch.bool)
    mask[:, 1:3, 2:] = True
    return mask


def test_it_reaches_the_optimum_of_a_linear_model(grey):
    """With labels far below, each error grows with its sum: the optimum of one target is budget times sum |weight|."""
    pixels, labels = grey
    model, mask = Linear().eval(), one_pixel_less()
    with torch.no_grad():
        model.weight[1:] = 0.0
    found = attack(model, pixels, labels, mask, 8.0, steps=3)
    gain = 8.0 / LEVELS * model.weight[0].detach().abs()[:, mask[0]].sum()
    assert torch.allclose(
        found.predictions[:, 0] - found.clean[:, 0], gain.expand(IMAGES), rtol=0, atol=1e-12
    )
    assert found.pixels.tolist() == [6] * IMAGES
    assert found.passes == 1 + 4
    noise = random_noise(model, pixels, labels, mask, 8.0, draws=20)
    assert (noise[..., 0] <= found.predictions[:, 0] + 1e-12).all()


def test_valid_pixels_bound_the_optimum(grey):
    """From white, pixels can only darken: weights that ask for more light gain nothing."""
    _, labels = grey
    model, mask = Linear().eval(), one_pixel_less()
    with torch.no_grad():
        model.weight[1:] = 0.0
    white = torch.ones(IMAGES, 3, SIDE, SIDE, dtype=torch.float64)
    found = attack(model, white, labels, mask, 20.0, steps=4)
    gain = 20.0 / LEVELS * (-model.weight[0].detach()).clamp(min=0)[:, mask[0]].sum()
    assert torch.allclose(
        found.predictions[:, 0] - found.clean[:, 0], gain.expand(IMAGES), rtol=0, atol=1e-12
    )
    assert found.pixel_values.max() <= 1


def test_a_region_that_the_model_ignores_cannot_be_attacked(grey):
    pixels, labels = grey
    model, mask = Linear().eval(), one_pixel_less()
    with torch.no_grad():
        model.weight[:, :, mask[0]] = 0.0
    found = attack(model, pixels, labels, mask, 255.0, steps=2, restarts=2)
    assert torch.equal(found.predictions, found.clean)
    assert torch.equal(found.pixel_values, pixels)


@pytest.mark.parametrize("budget", [0.0, 1.0, 16.0, 255.0])
def test_changes_stay_within_mask_budget_and_valid_pixels(budget):
    model, (pixels, labels) = zoo("vit"), pictures()
    pixels[0, :, 0] = 0.0
    pixels[1, :, 1] = 1.0
    mask = torch.rand(pixels[:, 0].shape, generator=torch.Generator().manual_seed(2)) < 0.3
    found = attack(model, pixels, labels, mask, budget, steps=2, restarts=2, seed=7)
    outside = ~mask[:, None].expand_as(pixels)
    assert torch.equal(found.pixel_values[outside], pixels[outside])
    assert (found.pixel_values - pixels).abs().max() <= budget / LEVELS + 1e-12
    assert found.pixel_values.min() >= 0
    assert found.pixel_values.max() <= 1
    before, after = SQUARED(found.clean, labels).numpy(), SQUARED(found.predictions, labels).numpy()
    assert (after.sum(1) >= before.sum(1)).all()
    assert (after.sum(1) > before.sum(1)).all() == (budget > 0)
    again = predictions(model, found.pixel_values)
    assert torch.allclose(again, found.predictions, rtol=0, atol=1e-12)
    known = attack(model, pixels, labels, mask, budget, steps=2, restarts=2, seed=7, clean=found.clean)
    assert torch.equal(known.pixel_values, found.pixel_values)
    assert known.passes == found.passes - 1


@pytest.mark.parametrize("family", ["vit", "dinov2", "timm"])
def test_a_search_in_bfloat16_is_judged_in_the_model_s_own_precision_and_finds_as_much(family):
    model, (pixels, labels) = zoo(family).float(), pictures()
    pixels = pixels.float()
    mask = torch.rand(pixels[:, 0].shape, generator=torch.Generator().manual_seed(2)) < 0.3
    found, exact = (
        attack(model, pixels, labels, mask, 16.0, steps=3, seed=7, dtype=dtype)
        for dtype in (torch.bfloat16, None)
    )
    before, after, wanted = (
        SQUARED(said, labels).sum(1) for said in (found.clean, found.predictions, exact.predictions)
    )
    assert (after >= before).all()
    assert (after - before).sum() > 0.8 * (wanted - before).sum() > 0
    assert torch.allclose(predictions(model, found.pixel_values), found.predictions, rtol=0, atol=1e-5)
    assert torch.equal(found.clean, exact.clean)
    assert (found.pixel_values - pixels).abs().max() <= 16 / LEVELS + 1e-6
    assert found.passes == exact.passes + 1


def test_what_the_model_s_own_precision_does_not_confirm_is_not_kept(monkeypatch):
    """The search is told that every change is worse, and climbs the wrong way: the clean images come back."""
    model, (pixels, _) = zoo("vit").float(), pictures()
    pixels = pixels.float()
    mask = torch.ones_like(pixels[:, 0], dtype=torch.bool)
    own = model.forward

    @contextmanager
    def misled(_dtype, _anatomy):
        with computing(model, lambda images: 1000 + own(images)):
            yield

    monkeypatch.setattr(attacks, "blocks_in", misled)
    labels = predictions(model, pixels) + 10  # every answer is too low, and the search raises it
    found = attack(model, pixels, labels, mask, 4.0, steps=2, dtype=torch.bfloat16)
    assert torch.equal(found.pixel_values, pixels)
    assert torch.equal(found.predictions, found.clean)
    honest = attack(model, pixels, labels, mask, 4.0, steps=2)
    assert not torch.equal(honest.pixel_values, pixels)


def test_a_budget_of_zero_gives_the_clean_error_in_one_pass():
    model, (pixels, labels) = zoo("vit"), pictures()
    mask = torch.ones_like(pixels[:, 0], dtype=torch.bool)
    found = attack(model, pixels, labels, mask, 0.0, steps=3, restarts=2)
    assert found.passes == 1
    assert torch.equal(found.pixel_values, pixels)
    assert torch.equal(found.predictions, found.clean)
    assert torch.allclose(found.clean, predictions(model, pixels))
    noise = random_noise(model, pixels, labels, mask, 0.0, draws=2)
    assert torch.allclose(noise, found.clean.expand(2, -1, -1))


def test_results_depend_on_the_seed_and_not_on_the_batch():
    model, (pixels, labels) = zoo("dinov2"), pictures()
    mask = torch.rand(pixels[:, 0].shape, generator=torch.Generator().manual_seed(3)) < 0.5
    settings = {"steps": 2, "restarts": 2, "seed": 5}
    whole = attack(model, pixels, labels, mask, 8.0, batch=5, **settings)
    for batch in (1, 2):
        parts = attack(model, pixels, labels, mask, 8.0, batch=batch, **settings)
        assert torch.allclose(parts.pixel_values, whole.pixel_values, rtol=0, atol=1e-12)
        noise = random_noise(model, pixels, labels, mask, 8.0, draws=2, batch=batch, seed=5)
        assert torch.allclose(noise, random_noise(model, pixels, labels, mask, 8.0, draws=2, seed=5))
    other = attack(model, pixels, labels, mask, 8.0, **(settings | {"seed": 6}))
    assert not torch.equal(other.pixel_values, whole.pixel_values)


def test_more_restarts_never_do_less():
    model, (pixels, labels) = zoo("vit"), pictures()
    mask = torch.ones_like(pixels[:, 0], dtype=torch.bool)
    errors = [
        SQUARED(attack(model, pixels, labels, mask, 8.0, steps=2, restarts=n).predictions, labels).sum(1)
        for n in (1, 3)
    ]
    assert (errors[1] >= errors[0]).all()


def test_weights_gradients_mode_and_hooks_stay(grey):
    pixels, labels = grey
    model = Linear().train()
    model.weight.grad = torch.full_like(model.weight, 3.0)
    before = model.weight.detach().clone()
    found = attack(model, pixels, labels, one_pixel_less(), 4.0, steps=2)
    assert model.training
    assert model.dropout.training
    assert torch.equal(model.weight, before)
    assert (model.weight.grad == 3.0).all()
    assert model.weight.requires_grad
    assert not found.pixel_values.requires_grad
    assert torch.allclose(found.clean, predictions(model.eval(), pixels))  # no dropout
    vit, (pixels, labels) = zoo("vit"), pictures()
    weights = state(vit)
    attack(vit, pixels, labels, torch.ones_like(pixels[:, 0], dtype=torch.bool), 4.0, steps=1)
    assert_same_weights(vit, weights)
    assert not hooks_left(vit)


def test_an_attack_sees_changed_heads_and_its_gradient_too():
    """With all heads of all layers fixed, no token hears of another: only the CLS token's own path is left."""
    model, (pixels, labels) = zoo("vit"), pictures()
    mask = torch.ones_like(pixels[:, 0], dtype=torch.bool)
    means = mean_outputs(model, pixels)
    everyone = [(layer, head) for layer in range(LAYERS) for head in range(HEADS)]
    with change_heads(model, mean_changes(means, everyone)):
        deaf = attack(model, pixels, labels, mask, 16.0, steps=2)
    assert torch.allclose(deaf.predictions, deaf.clean, rtol=0, atol=1e-9)
    assert SQUARED(attack(model, pixels, labels, mask, 16.0, steps=2).predictions, labels).mean() > (
        SQUARED(deaf.clean, labels).mean()
    )


@pytest.mark.parametrize("family", ["vit", "dinov2", "timm"])
def test_the_gradient_is_that_of_finite_differences(family):
    assert gradient_error(zoo(family), *pictures()) < 1e-6


def test_a_wrong_gradient_is_found():
    class Detached(Linear):
        def forward(self, pixel_values):
            return super().forward(pixel_values) + super().forward(pixel_values).detach()

    pixels, labels = pictures(IMAGES)
    assert gradient_error(Detached(side=PIXELS).eval(), pixels, labels) > 0.1


def broken(**changes):
    pixels, labels = pictures(IMAGES)
    mask = torch.ones(IMAGES, PIXELS, PIXELS, dtype=torch.bool)
    return {"pixel_values": pixels, "labels": labels, "mask": mask, "budget": 8.0} | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": -1.0}, r"budget is -1.0, expected 0 to 255"),
        ({"budget": 256.0}, r"budget is 256.0, expected 0 to 255"),
        ({"budget": float("nan")}, r"budget is nan"),
        ({"steps": 0}, r"steps is 0, expected at least 1"),
        ({"restarts": 0}, r"restarts is 0"),
        ({"batch": 0}, r"batch is 0"),
        ({"labels": torch.zeros(IMAGES + 1, TARGETS)}, r"labels has shape \(4, 3\), expected \(3, 3\)"),
        (
            {"mask": torch.ones(IMAGES, PIXELS, 2, dtype=torch.bool)},
            r"mask is torch.bool of shape \(3, 22, 2\), exp",
        ),
        (
            {"mask": torch.zeros(IMAGES, PIXELS, PIXELS, dtype=torch.bool)},
            r"no pixel to change in image\(s\) \[0, 1",
        ),
        ({"pixel_values": 2 * pictures(IMAGES)[0]}, r"expected pixels in \[0, 1\]"),
        ({"pixel_values": pictures(IMAGES)[0] - 0.5}, r"expected pixels in \[0, 1\]"),
    ],
)
def test_bad_input_is_refused_with_what_was_expected(changes, message):
    with pytest.raises(ValueError, match=message):
        attack(zoo("vit"), **broken(**changes))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_images_that_are_not_finite_are_refused_by_number(value):
    pixels, _ = pictures(IMAGES)
    pixels[1, 0, 0, 0] = value
    for function in (attack, random_noise):
        with pytest.raises(ValueError, match=r"pixel_values: not finite .* image\(s\) \[1\]"):
            function(zoo("vit"), **broken(pixel_values=pixels))


def test_predictions_that_are_not_finite_are_refused():
    model = zoo("vit")
    with torch.no_grad():
        model.head.bias[0] = float("nan")
    with pytest.raises(ValueError, match=r"predictions are not finite for image\(s\) \[0, 1, 2\]"):
        attack(model, **broken())


def test_an_unmerged_adapter_is_refused():
    model = ChirpRegressor.build(tiny(0, 2, 2), seed=0)
    pixels, labels = torch.full((1, 3, 224, 224), 0.5), torch.zeros(1, 3)
    mask = torch.ones(1, 224, 224, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"unmerged LoRA adapter, expected plain weights: call merged\(\)"):
        attack(model, pixels, labels, mask, 1.0)


# Which pixels


@pytest.fixture(scope="module")
def figures() -> dict[str, torch.Tensor]:
    return stack(ChirpDataset(2, seed=0, split="held-out"), 2)


@pytest.mark.parametrize("target", ATTACKED)
def test_as_many_pixels_are_chosen_within_the_target(figures, target):
    few, more = (choose_pixels(figures["regions"], target, pixels, seed=3) for pixels in (10, 15))
    names = [REGIONS[number] for number in figures["regions"][few].unique()]
    assert set(names) <= set(ATTACKED[target])
    assert few.sum((1, 2)).tolist() == [10, 10]
    assert (few & ~more).sum() == 0
    assert torch.equal(few, choose_pixels(figures["regions"], target, 10, seed=3))
    assert not torch.equal(few, choose_pixels(figures["regions"], target, 10, seed=4))
    alone = choose_pixels(figures["regions"][:1], target, 10, seed=3)
    assert torch.equal(alone[0], few[0])


def test_a_small_target_gives_all_that_it_has(figures):
    mask = choose_pixels(figures["regions"], "chirp", 100_000)
    assert torch.equal(mask, region_mask(figures["regions"], "chirp"))


def test_pixels_that_cannot_be_chosen_are_refused(figures):
    with pytest.raises(ValueError, match=r"unknown region 'logo', expected one of title, labels, colour bar"):
        choose_pixels(figures["regions"], "logo", 10)
    with pytest.raises(ValueError, match=r"pixels is 0, expected at least 1"):
        choose_pixels(figures["regions"], "title", 0)
    bare = stack(ChirpDataset(1, seed=0, style="bare", split="held-out"), 1)
    with pytest.raises(ValueError, match=r"'title' has no pixel in image\(s\) \[0\]: their style draws none"):
        choose_pixels(bare["regions"], "title", 10)


def test_an_occluded_target_is_white_and_nothing_else_changes(figures):
    for target in DECORATIONS:
        changed, mask = occlude(figures, target), region_mask(figures["regions"], target)[:, None]
        assert (changed[mask.expand_as(changed)] == 1).all()
        assert torch.equal(
            changed[~mask.expand_as(changed)], figures["pixel_values"][~mask.expand_as(changed)]
        )


@pytest.mark.parametrize("style", NATURAL.values(), ids=NATURAL)
def test_every_natural_change_draws_the_same_chirp_otherwise(style, figures):
    changed = stack(ChirpDataset(1, seed=0, style=style, split="held-out"), 1)
    assert torch.equal(changed["labels"], figures["labels"][:1])
    assert not torch.equal(changed["pixel_values"], figures["pixel_values"][:1])


# What an attack goes through


def test_heads_that_look_at_a_region_are_found_and_ordered():
    model, (pixels, _) = zoo("vit"), pictures()
    regions = torch.zeros(pixels[:, 0].shape, dtype=torch.uint8)
    regions[:, :11, :11] = 1
    regions[:, 11:, 11:] = 2
    statistics = attention_statistics(
        model, {"pixel_values": pixels, "regions": regions}, regions=("rest", "corner", "end")
    )
    found = heads_looking_at(statistics, ["corner"], 4)
    single = statistics.regions.query(
        "query == 'cls' and weighting == 'raw' and sinks == 'kept' and region == 'corner'"
    ).set_index(["layer", "head"])
    assert len(found) <= 4
    assert (found["low"] > 1).all()
    assert found["lift"].is_monotonic_decreasing
    assert (found["images"] == len(pixels)).all()
    for row in found.itertuples():
        assert row.lift == pytest.approx(single.loc[(row.layer, row.head), "lift"], rel=1e-6)
    both = heads_looking_at(statistics, ["corner", "end"], LAYERS * HEADS)
    assert (both["lift"] <= 2 + 1e-6).all()  # together they cover half of the image
    with pytest.raises(ValueError, match=r"unknown region 'logo', expected one of rest, corner, end"):
        heads_looking_at(statistics, ["logo"], 1)
    with pytest.raises(ValueError, match=r"most is 0"):
        heads_looking_at(statistics, ["corner"], 0)


def test_random_sets_are_as_large_and_hold_other_heads():
    model, mine = zoo("vit"), [(0, 0), (4, 2), (1, 1)]
    sets = other_heads(model, mine, 5, np.random.default_rng(0))
    assert len(sets) == 5
    for heads in sets:
        assert len(set(heads)) == 3
        assert not set(heads) & set(mine)
    matched = other_heads(model, [(0, 0), (0, 1), (4, 2)], 5, np.random.default_rng(0), same_layers=True)
    assert all((0, 2) in heads for heads in matched)  # the one other head of layer 0
    assert all(1 <= sum(layer == 4 for layer, _ in heads) <= 2 for heads in matched)
    assert all(len(set(heads)) == 3 for heads in matched)
    assert other_heads(model, mine, 2, np.random.default_rng(1)) == other_heads(
        model, mine, 2, np.random.default_rng(1)
    )
    everyone = [(layer, head) for layer in range(LAYERS) for head in range(HEADS)]
    with pytest.raises(ValueError, match=r"14 heads leave 1 others"):
        other_heads(model, everyone[1:], 1, np.random.default_rng(0))


def test_heads_that_write_as_on_the_clean_image_undo_what_went_through_them():
    model, (pixels, _) = zoo("vit"), pictures()
    changed = pixels.clone()
    changed[:, :, :11, :11] = 0.0
    everyone = [(layer, head) for layer in range(LAYERS) for head in range(HEADS)]
    none, one, every = patch_heads(model, changed, pixels, [[], [(2, 1)], everyone], batch=2)
    attacked, clean = predictions(model, changed), predictions(model, pixels)
    assert torch.allclose(none, attacked, rtol=0, atol=1e-12)
    assert torch.allclose(every, clean, rtol=0, atol=1e-12)  # CLS hears of pixels through heads alone
    assert not torch.allclose(one, attacked, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"donors have shape \(1, 3, 22, 22\), expected \(5, 3, 22, 22\)"):
        patch_heads(model, changed, pixels[:1], [[]])


def clean_with(errors: list[list[float]]) -> Clean:
    """Clean predictions with such squared errors."""
    said = torch.tensor(errors, dtype=torch.float64).sqrt()
    return Clean(said, torch.zeros_like(said), "squared error", ("start_time", "start_freq", "end_freq"))


def test_harm_is_in_percent_of_the_clean_error():
    clean = clean_with([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    losses = clean.errors
    np.testing.assert_allclose(losses, [[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    table = attack_effects(
        {"same": losses, "twice": 2 * losses, "first": losses * [4.0, 1.0, 1.0]}, clean, 200
    ).set_index("name")
    assert table["effect"].tolist() == pytest.approx([0.0, 100.0, 100.0])
    assert table.loc["twice", ["low", "high"]].tolist() == pytest.approx([100.0, 100.0])
    assert table.loc["first", "effect_start_time"] == pytest.approx(300.0)
    assert table.loc["first", "effect_end_freq"] == pytest.approx(0.0)
    assert (table["images"] == 2).all()
    assert table.loc["twice", "mse"] == pytest.approx(2 * table.loc["twice", "clean_mse"])
    with pytest.raises(ValueError, match=r"'one' has losses of shape \(1, 3\), expected \(2, 3\)"):
        attack_effects({"one": losses[:1]}, clean)


def test_harm_to_a_classifier_is_in_nats():
    logits, classes = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64), torch.tensor([0, 1])
    clean = Clean(logits, classes, "cross-entropy", ("class",))
    by_hand = [math.log1p(math.exp(-2.0)), math.log1p(math.exp(-1.0))]
    assert clean.errors[:, 0].tolist() == pytest.approx(by_hand, abs=1e-12)
    flipped = clean.losses(-logits)  # the other class is ahead by as much: each loss grows by that lead
    table = attack_effects({"flipped": flipped}, clean, 200)
    assert table["effect"].tolist() == pytest.approx([1.5])
    assert table["effect_class"].tolist() == pytest.approx([1.5])
    assert table["clean_loss"].item() == pytest.approx(sum(by_hand) / 2)
    assert table["loss"].item() == pytest.approx(sum(by_hand) / 2 + 1.5)
    assert table["low"].item() <= 1.5 <= table["high"].item()  # two images leave much open
    assert excess_effect(flipped, clean.errors, clean, 200).value == pytest.approx(1.5)


def test_clean_figures_are_judged_by_the_model_s_own_task():
    model, (pixels, _) = zoo("vit"), pictures()
    classes = torch.arange(len(pixels)) % 3
    clean = clean_figures(model, {"pixel_values": pixels, "labels": classes})
    assert (clean.preset, clean.targets) == ("cross-entropy", ("class",))
    assert clean.errors.shape == (len(pixels), 1)
    with pytest.raises(ValueError, match="'hinge' is no preset"):
        _ = Clean(clean.predictions, classes, "hinge").errors


def test_the_excess_is_paired():
    clean = clean_with([[1.0, 1.0, 1.0], [3.0, 3.0, 3.0]])
    found = excess_effect(3 * clean.errors, 2.5 * clean.errors, clean, 200)
    assert (found.value, found.low, found.high) == pytest.approx((50.0, 50.0, 50.0))


def test_the_worst_draw_is_picked_per_image_and_never_below_the_clean_one():
    clean = np.array([[1.0, 1.0, 1.0], [9.0, 0.0, 0.0]])
    drawn = np.array([[[2.0, 0.0, 0.0], [1.0, 1.0, 1.0]], [[0.0, 5.0, 0.0], [4.0, 4.0, 0.5]]])
    assert worst_draw(drawn, clean).tolist() == [[0.0, 5.0, 0.0], [9.0, 0.0, 0.0]]


def test_the_plot_moves_where_it_lies_elsewhere_not_where_its_frame_is_gone() -> None:
    regions = torch.full((2, 40, 50), REGIONS.index("margin"), dtype=torch.uint8)
    regions[:, 10:30, 12:42] = REGIONS.index("plot background")
    regions[1, 20, 15:30] = REGIONS.index("chirp")
    assert plot_edges(regions).tolist() == [10, 29, 12, 41]


def test_what_a_head_carries_is_what_goes_when_it_alone_sees_the_clean_image():
    model, generator = (
        ChirpRegressor.tiny(seed=0, layers=3, heads=2).double(),
        torch.Generator().manual_seed(1),
    )
    pixels, noise = (torch.rand(6, 3, 224, 224, generator=generator).double() for _ in range(2))
    attacked = pixels + 0.01 * (noise - 0.5)
    with torch.no_grad():
        clean = Clean(predict(model, pixels), torch.full((6, 3), 2.0).double())
        harmed = clean.losses(predict(model, attacked))
    found = carried_by_head(model, pixels, {"title": attacked}, clean, 50)
    heads = list(zip(found["layer"], found["head"], strict=True))
    assert heads == [(layer, head) for layer in range(3) for head in range(2)]
    rest = clean.losses(patch_heads(model, attacked, pixels, [[head] for head in heads]))
    np.testing.assert_allclose(found["carries"], 100 * (harmed - rest).mean((1, 2)) / clean.loss, rtol=0.02)
    assert (found["low"] <= found["carries"]).all()
    assert (found["carries"] <= found["high"]).all()
    assert set(found["images"]) == {6}


# What ablating the heads that look at a region does, on images that no attack has seen


def test_heads_are_ablated_together_on_images_that_follow_the_attacked_ones():
    model = ChirpRegressor.tiny(seed=0, layers=3, heads=2).double()
    heads = {"title": [(0, 0), (2, 1)], "chirp": [(1, 1)], "frame": []}
    random = {"title": [[(0, 1), (1, 0)], [(1, 1), (2, 0)]], "chirp": [[(0, 0)]], "frame": []}
    reference = stack(ChirpDataset(3, seed=4, split="held-out"), 3)["pixel_values"].double()
    found = changes_without(model, heads, random, reference, first=2, many=3, exact=3, batch=4)
    assert list(found) == [("title", OWN), ("chirp", OWN), ("title", RANDOM)], (
        "random ones for decorations alone"
    )

    data = stack(ChirpDataset(5, seed=0, split="held-out"), [2, 3, 4])
    pixels, labels, means = (
        data["pixel_values"].double(),
        data["labels"].double(),
        mean_outputs(model, reference),
    )

    def grown(chosen):
        whole = predictions(model, pixels)
        with change_heads(model, mean_changes(means, chosen)):
            return ((predictions(model, pixels) - labels) ** 2 - (whole - labels) ** 2).numpy()

    # All are exact here, so that nothing is left of the estimate but the exact mean.
    for key, by_hand in {
        ("title", OWN): grown(heads["title"]),
        ("chirp", OWN): grown(heads["chirp"]),
        ("title", RANDOM): (grown(random["title"][0]) + grown(random["title"][1])) / 2,
    }.items():
        np.testing.assert_allclose(found[key].mean(0), by_hand.mean(0), rtol=1e-4, atol=1e-7)

    held_out = np.random.default_rng(0).exponential(1.0, (4000, 3))
    clean = Clean(predictions(model, pixels), labels, "squared error", ("a", "b", "c"), held_out)
    table = ablation_table(found, heads, clean, 3, 200)
    assert table["heads"].tolist() == [2, 1, 2]
    assert set(table["images"]) == set(table["exact_images"]) == {3}
    own = 100 * grown(heads["title"])
    assert table["effect"][0] == pytest.approx(own.mean() / held_out.mean(), rel=1e-4)
    assert table["effect_b"][0] == pytest.approx(own[:, 1].mean() / held_out[:, 1].mean(), rel=1e-4)
    assert (table["low"] <= table["effect"]).all()
    assert (table["effect"] <= table["high"]).all()
    excess = {"title": Interval(5.0, 4.0, 7.0), "chirp": Interval(1.0, 0.0, 2.0)}
    more = beyond_ablation(excess, table)
    assert list(more) == ["title"], "a decoration that heads look at"
    assert more["title"].value == pytest.approx(5.0 - table["effect"][0])


def test_the_difference_of_estimates_from_other_images_holds_the_truth():
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        one, other = rng.exponential(2.0, 40), rng.normal(0.5, 1.0, 300)
        found = apart(mean_interval(one, 400), mean_interval(other, 400))
        assert found.low <= found.value <= found.high
        held += found.low <= 1.5 <= found.high
    assert held / 400 >= 0.93
    exact = Interval(2.0, 2.0, 2.0)
    assert apart(exact, exact) == Interval(0.0, 0.0, 0.0)


def test_what_heads_carry_is_held_against_their_effects_on_more_images():
    carried = pd.DataFrame(
        {"layer": [0, 1], "head": [1, 0], "images": 6, "target": "title", "carries": [3.0, 4.0]}
    )
    sweep = pd.DataFrame(
        {"layer": [1, 0, 1, 0], "head": [0, 1, 0, 1], "mode": ["mean", "mean", "zero", "zero"], "images": 500}
    ).assign(effect=[7.0, 8.0, 1.0, 2.0])
    found = with_ablation(carried, sweep)
    assert found["ablation"].tolist() == [8.0, 7.0]
    assert set(found["ablation_images"]) == {500}
    assert found["images"].tolist() == [6, 6]
    fewer = with_ablation(carried, sweep.iloc[1:])
    assert fewer["head"].tolist() == [1], "a head that the sweep left out has no effect"
