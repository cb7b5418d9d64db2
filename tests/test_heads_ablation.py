import copy

import numpy as np
import pandas as pd
import pytest
import torch
from heads_zoo import FAMILIES, HEADS, IMAGES, LAYERS, SIZE, TARGETS, WIDTH, Reader, pictures, zoo
from peft import LoraConfig, get_peft_model
from test_heads_hooks import assert_same_weights, hooks_left, state
from torch import nn

from vitmech_utils.heads.ablation import agreement, effects, predict_without_heads, sweep
from vitmech_utils.heads.optimal import optimal_constants
from vitmech_utils.heads.replacements import MODES, another_image
from vitmech_utils.heads.replay import Replay
from vitmech_utils.model.anatomy import AnatomyError, find_blocks
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.tasks import squared_error

EVERY_HEAD = [(layer, head) for layer in range(LAYERS) for head in range(HEADS)]


def by_hand(model: Reader, pixels, new=None):
    """A transformers ViT written out in plain operations; `new(layer, heads)` may change what heads write."""
    vit, written = model.backbone, []
    hidden = vit.embeddings(pixels)
    for index, layer in enumerate(vit.layers):
        attention, normed = layer.attention, layer.layernorm_before(hidden)
        query, key, value = (
            projection(normed).reshape(*normed.shape[:2], HEADS, SIZE)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        logits = torch.einsum("iqhd,ikhd->ihqk", query, key) / SIZE**0.5
        heads = torch.einsum("ihqk,ikhd->iqhd", logits.softmax(-1), value)
        written.append(heads)
        if new is not None:
            heads = new(index, heads)
        hidden = hidden + heads.reshape(*normed.shape) @ attention.o_proj.weight.T + attention.o_proj.bias
        inner = layer.mlp.fc1(layer.layernorm_after(hidden))
        hidden = hidden + layer.mlp.fc2(torch.nn.functional.gelu(inner))
    return model.head(vit.layernorm(hidden)[:, 0]), written


def one_head(layer, head, value):
    def new(index, heads):
        heads = heads.clone()
        if index == layer:
            heads[:, :, head] = value
        return heads

    return new


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
@pytest.mark.parametrize("mode", ["zero", "mean", "resample", "qkv-weights"])
@torch.no_grad()
def test_every_mode_equals_a_forward_pass_written_out_by_hand(mode, batch):
    model, (pixels, _) = zoo("vit"), pictures()
    baseline, heads = by_hand(model, pixels)
    found = predict_without_heads(model, pixels, mode, batch=batch, seed=3)
    assert found.method == "replay"
    torch.testing.assert_close(found.baseline, baseline, rtol=0, atol=1e-12)
    for test, (layer, head) in enumerate(EVERY_HEAD):
        if mode == "qkv-weights":
            zeroed = copy.deepcopy(model)
            attention = zeroed.backbone.layers[layer].attention
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
                projection.weight[head * SIZE : (head + 1) * SIZE] = 0
            expected, _ = by_hand(zeroed, pixels)
        else:
            value = {
                "zero": 0.0,
                "mean": heads[layer][:, :, head].mean(0),
                "resample": heads[layer][another_image(IMAGES, 3)][:, :, head],
            }[mode]
            expected, _ = by_hand(model, pixels, one_head(layer, head, value))
        torch.testing.assert_close(found.ablated[test], expected, rtol=0, atol=1e-12)
        assert (found.ablated[test] - baseline).abs().max() > 1e-4


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_replay_equals_plain_hooks_in_every_family(family, attention):
    model, (pixels, _) = zoo(family, attention), pictures()
    for mode in ("zero", "mean", "resample", "qkv-weights"):
        fast, slow = (predict_without_heads(model, pixels, mode, replay=replay) for replay in (True, False))
        assert (fast.method, slow.method) == ("replay", "hook")
        torch.testing.assert_close(fast.ablated, slow.ablated, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_qkv_weights_is_what_zeroed_weights_give_in_every_family(family):
    model, (pixels, _) = zoo(family), pictures()
    found = predict_without_heads(model, pixels, "qkv-weights")
    zeroed = copy.deepcopy(model)
    block = find_blocks(zeroed).blocks[1]
    for projection in (block.query, block.key, block.value):
        projection.weight[2 * SIZE : 3 * SIZE] = 0
    torch.testing.assert_close(found.ablated[EVERY_HEAD.index((1, 2))], zeroed(pixels), rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_shortcuts_are_taken_in_every_family(family):
    model, (pixels, _) = zoo(family), pictures()
    with torch.inference_mode():
        run = Replay(model, find_blocks(model), pixels)
    assert run._cls_tail
    assert run._cls_attention_known


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("family", FAMILIES)
def test_lower_precision_gives_the_same_within_its_noise(family, dtype):
    model, (pixels, _) = zoo(family), pictures()
    exact = predict_without_heads(model, pixels, "zero")
    rough = predict_without_heads(model.to(dtype), pixels, "zero")
    assert rough.method == "replay"
    relative = (rough.ablated - exact.ablated).norm() / exact.ablated.norm()
    assert relative < {torch.bfloat16: 0.15, torch.float16: 0.02, torch.float32: 1e-5}[dtype]


class MeanOfTokens(Reader):
    def forward(self, pixel_values):
        return self.head(self.backbone(pixel_values).last_hidden_state.mean(1))


class Rescaled(nn.Module):
    """An attention that does something after its output projection, as none of the known families does."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args, **kwargs):
        out, weights = self.inner(*args, **kwargs)
        return out * 1.5, weights


def test_a_model_that_reads_all_tokens_is_swept_exactly_too():
    model, (pixels, _) = zoo("dinov2"), pictures()
    model.__class__ = MeanOfTokens
    fast, slow = (predict_without_heads(model, pixels, "zero", replay=replay) for replay in (True, False))
    assert fast.method == "replay"
    torch.testing.assert_close(fast.ablated, slow.ablated, rtol=0, atol=1e-12)


def test_a_model_with_unknown_blocks_falls_back_to_plain_hooks():
    model, (pixels, _) = zoo("vit"), pictures()
    layer = model.backbone.layers[2]
    layer.attention = Rescaled(layer.attention)
    assert predict_without_heads(model, pixels, "zero").method == "hook"


@torch.no_grad()
def test_a_planted_head_is_the_only_one_that_counts():
    model, (pixels, _) = zoo("vit"), pictures(40)
    anatomy = find_blocks(model)
    for layer, head in EVERY_HEAD:
        if (layer, head) != (2, 1):
            anatomy.blocks[layer].output.weight[:, anatomy.columns(head)] = 0
    labels = model(pixels) + 0.1 * pictures(40, seed=1)[1]
    table = sweep(model, pixels, labels, "zero").set_index(["layer", "head"])
    others = table.drop((2, 1))
    assert table.loc[(2, 1), "effect"] > 10
    assert table.loc[(2, 1), "low"] > 0
    assert others["effect"].abs().max() < 1e-9
    assert (others["q_value"] > 0.5).all()


@torch.no_grad()
def test_duplicated_heads_share_the_effect_and_make_up_for_each_other():
    """Two heads that write the same half: one alone loses half of it, both together all."""
    model, (pixels, _) = zoo("vit"), pictures(7)
    layer = model.backbone.layers[4]
    attention = layer.attention
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        projection.weight[SIZE : 2 * SIZE] = projection.weight[:SIZE]
        projection.bias[SIZE : 2 * SIZE] = projection.bias[:SIZE]
    attention.o_proj.weight[:, SIZE : 2 * SIZE] = attention.o_proj.weight[:, :SIZE]
    table = sweep(model, pixels, model(pixels) + 0.5, "zero").set_index(["layer", "head"])
    assert table.loc[(4, 0), "mse"] == pytest.approx(table.loc[(4, 1), "mse"], abs=1e-12)
    # The twin takes over: once its columns are doubled, the first head is not missed at all.
    before = model(pixels)
    attention.o_proj.weight[:, SIZE : 2 * SIZE] *= 2
    attention.o_proj.weight[:, :SIZE] = 0
    torch.testing.assert_close(model(pixels), before, rtol=0, atol=1e-12)
    assert sweep(model, pixels, before + 0.5, "zero").set_index(["layer", "head"]).loc[
        (4, 0), "effect"
    ] == pytest.approx(0, abs=1e-9)


@torch.no_grad()
def test_merged_lora_gives_what_hooks_on_the_unmerged_model_give():
    plain = zoo("vit")
    plain.backbone = get_peft_model(plain.backbone, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    for name, weight in plain.named_parameters():
        if "lora_" in name:
            weight.copy_(0.3 * torch.randn_like(weight))
    pixels, _ = pictures()
    merged = copy.deepcopy(plain)
    merged.backbone = merged.backbone.merge_and_unload()
    with pytest.raises(ValueError, match=r"unmerged LoRA adapter.*merged\(\)"):
        predict_without_heads(plain, pixels)
    found = predict_without_heads(merged, pixels, "zero")
    from vitmech_utils.heads.hooks import change_heads

    for test, (layer, head) in enumerate(EVERY_HEAD):
        with change_heads(plain, {(layer, head): 0.0}):
            torch.testing.assert_close(found.ablated[test], plain(pixels), rtol=0, atol=1e-10)


@pytest.mark.parametrize("mode", MODES)
def test_weights_hooks_and_modes_are_as_before(mode):
    model, (pixels, labels) = zoo("dinov2-registers"), pictures()
    model.train()
    model.backbone.eval()
    before = state(model)
    given = {"reference": optimal_constants(model, pixels, labels)} if mode == "optimal" else {}
    sweep(model, pixels, labels, mode, bootstrap=11, **given)
    assert_same_weights(model, before)
    assert hooks_left(model) == 0
    assert not any("forward" in vars(module) for module in model.modules())
    assert model.training
    assert not model.backbone.training


def test_outcomes_do_not_depend_on_the_batch():
    model, (pixels, labels) = zoo("vit"), pictures(7)
    tables = [sweep(model, pixels, labels, "mean", batch=batch) for batch in (1, 5, 100)]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], rtol=1e-9)


def test_the_table_of_effects_is_the_formula():
    model, (pixels, labels) = zoo("vit"), pictures(13)
    found = predict_without_heads(model, pixels, "zero")
    table = sweep(model, pixels, labels, "zero", squared_error(("a", "b", "c")), seed=5)
    assert list(table["layer"]) == [layer for layer, _ in EVERY_HEAD]
    assert list(table["head"]) == [head for _, head in EVERY_HEAD]
    before, after = ((x - labels).square() for x in (found.baseline, found.ablated))
    assert table["baseline_mse"].iloc[0] == pytest.approx(before.mean().item())
    np.testing.assert_allclose(table["mse"], after.mean((1, 2)))
    np.testing.assert_allclose(table["effect"], 100 * (after.mean((1, 2)) / before.mean() - 1))
    np.testing.assert_allclose(table["effect_b"], 100 * (after[..., 1].mean(1) / before[:, 1].mean() - 1))
    assert ((table["low"] <= table["effect"]) & (table["effect"] <= table["high"])).all()
    assert (table["q_value"] >= table["p_value"]).all()
    pd.testing.assert_frame_equal(table, effects(found, labels, squared_error(("a", "b", "c")), seed=5))


def test_layers_and_heads_limit_the_sweep():
    model, (pixels, labels) = zoo("vit"), pictures()
    whole = sweep(model, pixels, labels, "zero").set_index(["layer", "head"])
    part = sweep(model, pixels, labels, "zero", layers=[4, 1], heads=[2]).set_index(["layer", "head"])
    assert list(part.index) == [(4, 2), (1, 2)]
    np.testing.assert_allclose(part["effect"], whole.loc[part.index, "effect"])


def test_donors_can_be_other_pictures_and_the_own_picture_changes_nothing():
    model, (pixels, labels) = zoo("vit"), pictures()
    twins, _ = pictures(seed=9)
    itself = predict_without_heads(model, pixels, "resample", donors=pixels)
    torch.testing.assert_close(itself.ablated, itself.baseline.expand_as(itself.ablated), rtol=0, atol=1e-12)
    table = sweep(model, pixels, labels, "resample", donors=twins)
    assert table["effect"].abs().max() > 0.01
    assert all(donor != image for image, donor in enumerate(another_image(7, 0).tolist()))


def test_agreement_between_modes_is_a_rank_correlation():
    model, (pixels, labels) = zoo("vit"), pictures()
    joined = pd.concat(
        [sweep(model, pixels, labels, mode, bootstrap=50) for mode in ("zero", "qkv-weights", "mean")]
    )
    table = agreement(joined, bootstrap=50)
    assert list(zip(table["first"], table["second"], strict=True)) == [
        ("zero", "qkv-weights"), ("zero", "mean"), ("qkv-weights", "mean"),
    ]  # fmt: skip
    wide = joined.pivot(index=["layer", "head"], columns="mode", values="effect")
    assert table["correlation"].iloc[1] == pytest.approx(wide["zero"].corr(wide["mean"], method="spearman"))
    assert (table["heads"] == LAYERS * HEADS).all()


def test_the_chirp_regressor_is_swept_as_it_is():
    model = ChirpRegressor.tiny(layers=2, heads=3)
    pixels, labels = torch.rand(3, 3, 224, 224), torch.randn(3, 3)
    table = sweep(model, pixels, labels, "zero", bootstrap=20)
    assert {"effect_start_time", "low_start_freq", "high_end_freq"} <= set(table.columns)
    assert len(table) == 6


PIXELS, LABELS = pictures()
NOT_A_NUMBER = PIXELS.clone()
NOT_A_NUMBER[3, 0, 0, 0] = float("nan")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mode": "knockout"}, ValueError, "mode is 'knockout', expected one of zero, mean"),
        ({"pixel_values": PIXELS[:0], "labels": LABELS[:0]}, ValueError, "at least one image"),
        ({"labels": LABELS[:4]}, ValueError, r"labels has shape \(4, 3\), expected \(5, 3\)"),
        ({"pixel_values": NOT_A_NUMBER}, ValueError, r"pixel_values: not finite .* image\(s\) \[3\]"),
        ({"layers": [5]}, IndexError, "layer 5 does not exist"),
        ({"heads": [0, 3]}, IndexError, "head 3 does not exist"),
        ({"layers": []}, ValueError, "no head to ablate"),
        ({"batch": 0}, ValueError, "batch is 0"),
        ({"bootstrap": 0}, ValueError, "bootstrap is 0"),
        ({"confidence": 1.0}, ValueError, "confidence is 1.0"),
        ({"mode": "resample", "donors": PIXELS[:2]}, ValueError, "2 donors for 5 images"),
        ({"mode": "zero", "donors": PIXELS}, ValueError, "donors was given for mode 'zero'"),
        ({"mode": "mean", "reference": PIXELS[:, :, :4]}, ValueError, r"reference has shape"),
        (
            {"mode": "resample", "pixel_values": PIXELS[:1], "labels": LABELS[:1]},
            ValueError,
            "needs donors, or at least two",
        ),
    ],
)
def test_bad_input_is_refused_before_any_forward_pass(arguments, error, message):
    model = zoo("vit")
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model was run"))
    with pytest.raises(error, match=message):
        sweep(model, **({"pixel_values": PIXELS, "labels": LABELS} | arguments))


def test_predictions_that_are_not_finite_are_refused():
    model = zoo("vit")
    with torch.no_grad():
        model.head.bias[1] = float("nan")
    with pytest.raises(ValueError, match="predictions are not finite"):
        sweep(model, PIXELS, LABELS)


def test_a_model_without_heads_is_refused():
    with pytest.raises(AnatomyError, match="no attention blocks"):
        sweep(nn.Sequential(nn.Flatten(), nn.Linear(3 * 22 * 22, TARGETS)).double(), PIXELS, LABELS)


def test_the_zoo_has_distinct_sizes():
    assert len({LAYERS, HEADS, SIZE, WIDTH}) == 4
