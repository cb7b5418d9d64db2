"""Pruned for good equals masked; a pruned model goes through every tool, keeps its numbers, and survives saving."""

import copy
import json

import numpy as np
import pytest
import torch
import transformers
from heads_zoo import FAMILIES, GRID, HEADS, LAYERS, PIXELS, SIZE, pictures, zoo
from peft import LoraConfig, get_peft_model
from test_heads_hooks import assert_same_weights, state
from test_model_finetune import RECIPE, Breaking, KilledError, Stripes
from torch import nn

from vitmech_utils.heads import pruning
from vitmech_utils.heads.ablation import predict_without_heads, sweep
from vitmech_utils.heads.attention import attention_maps, attention_statistics, patch_query_maps, rollout
from vitmech_utils.heads.first_order import first_order
from vitmech_utils.heads.hooks import capture_heads, change_heads
from vitmech_utils.heads.pruning import (
    PruningError,
    load_pruned,
    prune_heads,
    recovering,
    save_pruned,
)
from vitmech_utils.heads.replay import predict
from vitmech_utils.heads.semantics import classify, sensitivity
from vitmech_utils.heads.sinks import find_sinks
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.model.backbones import tiny
from vitmech_utils.model.finetune import fine_tune
from vitmech_utils.model.lora import update_norms
from vitmech_utils.model.regressor import AdapterError, ChirpRegressor, weights_fingerprint
from vitmech_utils.report.picker import HeadPicker

# One head of a layer, two that are no neighbours, whole layers (first, middle, last).
SETS = {
    "one": {(1, 1)},
    "scattered": {(0, 0), (0, 2), (2, 1), (4, 0)},
    "first layer": {(0, head) for head in range(HEADS)},
    "whole layers": {(2, head) for head in range(HEADS)} | {(3, 0), (4, 1)},
    "last layer": {(4, head) for head in range(HEADS)} | {(1, 2)},
    "all but one": {(layer, head) for layer in range(LAYERS) for head in range(HEADS)} - {(1, 2)},
}
MIXED = {(0, 0), (0, 1), (0, 2), (2, 1), (3, 0), (3, 2)}
LEFT = [(layer, head) for layer in range(LAYERS) for head in range(HEADS) if (layer, head) not in MIXED]


def masked(model, heads, pixels):
    with torch.no_grad(), change_heads(model, dict.fromkeys(heads, 0.0)):
        return model(pixels)


@pytest.mark.parametrize("heads", SETS.values(), ids=SETS)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_pruned_equals_masked(family, attention, heads):
    model, (pixels, _) = zoo(family, attention), pictures()
    before = state(model)
    pruned = prune_heads(model, heads)
    expected = masked(model, heads, pixels)
    torch.testing.assert_close(pruned(pixels), expected, rtol=0, atol=1e-10)
    assert (expected - model(pixels)).abs().max() > 1e-3
    assert_same_weights(model, before)
    single, images = pruned.float(), pixels.float()
    torch.testing.assert_close(single(images), masked(model.float(), heads, images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_head_count_is_stale_and_the_matrices_shrink(family):
    model = zoo(family)
    pruned = prune_heads(model, MIXED)
    anatomy = find_blocks(pruned)
    assert (anatomy.heads, anatomy.head_size, anatomy.pairs) == (HEADS, SIZE, LEFT)
    for block in anatomy.blocks:
        kept = len(block.numbers.kept)
        for part in (block.query, block.key, block.value):
            assert part.weight.shape == (kept * SIZE, HEADS * SIZE)
            assert len(part.bias) == kept * SIZE
        assert block.output.weight.shape == (HEADS * SIZE, kept * SIZE)
        assert block.output.in_features == kept * SIZE
        counts = {name: value for name, value in vars(block.attention).items() if name.startswith("num_")}
        assert all(value == kept for value in counts.values()), counts
        widths = [
            vars(block.attention)[n] for n in ("attn_dim", "all_head_size") if n in vars(block.attention)
        ]
        assert all(width == kept * SIZE for width in widths)
    size = sum(weight.numel() for weight in pruned.parameters())
    per_head = 4 * SIZE * HEADS * SIZE + 3 * SIZE
    norm = 2 * HEADS * SIZE  # the norm in front of the attention that layer 0 lost
    assert size == sum(weight.numel() for weight in model.parameters()) - len(MIXED) * per_head - norm


@torch.no_grad()
def test_pruning_in_rounds_keeps_the_original_numbers():
    model, (pixels, _) = zoo("dinov2"), pictures()
    rounds = prune_heads(prune_heads(model, {(1, 0), (2, 2)}), {(1, 2), (2, 0), (0, 1)})
    at_once = prune_heads(model, {(1, 0), (2, 2), (1, 2), (2, 0), (0, 1)})
    assert find_blocks(rounds).blocks[1].numbers.kept == (1,)
    assert torch.equal(rounds(pixels), at_once(pixels))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_heads_keep_their_number_in_hooks(family):
    model, (pixels, _) = zoo(family), pictures()
    pruned = prune_heads(model, MIXED)
    with change_heads(model, dict.fromkeys(MIXED, 0.0)), capture_heads(model) as expected:
        model(pixels)
    with capture_heads(pruned) as found:
        pruned(pixels)
    for layer in range(LAYERS):
        torch.testing.assert_close(found[layer], expected[layer], rtol=0, atol=1e-10)
    with change_heads(pruned, {(3, 1): 0.5, 2: lambda heads: 2 * heads, 0: 7.0}):
        changed = pruned(pixels)
    double = {(2, head): lambda present: 2 * present for head in (0, 2)}
    with change_heads(model, dict.fromkeys(MIXED, 0.0) | {(3, 1): 0.5} | double):
        torch.testing.assert_close(changed, model(pixels), rtol=0, atol=1e-10)
    with pytest.raises(IndexError, match="head 1 of layer 2 was pruned; heads left in this layer: 0, 2"):
        change_heads(pruned, {(2, 1): 0.0}).__enter__()
    with pytest.raises(IndexError, match="layer 0 was pruned; heads left in this layer: none"):
        change_heads(pruned, {(0, 1): 0.0}).__enter__()


@torch.no_grad()
def test_further_sets_need_not_be_held_against_ablation(monkeypatch):
    model, (pixels, _), asked = zoo("vit"), pictures(), []
    monkeypatch.setattr(pruning, "_hold_against_ablation", lambda *_: asked.append(True))
    held, free = prune_heads(model, MIXED), prune_heads(model, MIXED, hold=False)
    assert asked == [True]
    torch.testing.assert_close(free(pixels), held(pixels), rtol=0, atol=0)
    torch.testing.assert_close(free(pixels), masked(model, MIXED, pixels), rtol=0, atol=1e-10)


@pytest.mark.parametrize("heads", [MIXED, SETS["last layer"]], ids=["mixed", "last layer"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_sweep_of_a_pruned_model_is_that_of_the_masked_one(family, heads):
    model, (pixels, _) = zoo(family), pictures()
    pruned = prune_heads(model, heads)
    left = find_blocks(pruned).pairs
    for mode in ("zero", "mean", "resample", "qkv-weights"):
        found = predict_without_heads(pruned, pixels, mode)
        slow = predict_without_heads(pruned, pixels, mode, replay=False)
        assert (found.method, slow.method) == ("replay", "hook")
        assert list(zip(found.layers, found.heads, strict=True)) == left
        torch.testing.assert_close(found.ablated, slow.ablated, rtol=0, atol=1e-10)
        if mode == "zero":
            expected = torch.stack([masked(model, heads | {pair}, pixels) for pair in left])
            torch.testing.assert_close(found.ablated, expected, rtol=0, atol=1e-10)


def test_tables_have_rows_for_the_heads_that_are_left():
    model, (pixels, labels) = prune_heads(zoo("vit"), MIXED), pictures()
    for table in (
        sweep(model, pixels, labels, bootstrap=20),
        sweep(model, pixels, labels, "zero", layers=[2, 3], heads=[1], bootstrap=20),
        first_order(model, pixels, labels, bootstrap=20),
    ):
        pairs = list(zip(table["layer"], table["head"], strict=True))
        assert pairs == (LEFT if len(table) > 1 else [(3, 1)])
        assert np.isfinite(table["effect"]).all()
    with pytest.raises(ValueError, match="must name heads that were not pruned"):
        sweep(model, pixels, labels, layers=[0])
    with pytest.raises(ValueError, match="knows no pruned heads"):
        sweep(model, pixels, labels, "published-code")


def test_first_order_of_a_pruned_model_is_that_of_the_masked_one():
    model, (pixels, labels) = zoo("dinov2"), pictures()
    found = first_order(prune_heads(model, MIXED), pixels, labels, bootstrap=20)
    with change_heads(model, dict.fromkeys(MIXED, 0.0)):
        expected = first_order(model, pixels, labels, bootstrap=20)
    expected = expected.set_index(["layer", "head"]).loc[LEFT].reset_index()
    np.testing.assert_allclose(found["effect"], expected["effect"], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_of_what_is_left_is_that_of_the_masked_model(family):
    model, (pixels, _) = zoo(family), pictures()
    pruned = prune_heads(model, MIXED)
    generator = torch.Generator().manual_seed(3)
    regions = torch.randint(0, 3, (len(pixels), PIXELS, PIXELS), generator=generator)
    batch = {"pixel_values": pixels, "regions": regions}
    present = find_blocks(pruned).present
    settings = {"regions": ("a", "b", "c"), "replicates": 8, "shuffles": 2}
    with change_heads(model, dict.fromkeys(MIXED, 0.0)):
        maps = {query: attention_maps(model, pixels, query) for query in ("cls", "patches", 2)}
        queries = patch_query_maps(model, pixels[:1])
        statistics = attention_statistics(model, batch, **settings)
    for query, expected in maps.items():
        found = attention_maps(pruned, pixels, query)
        torch.testing.assert_close(found[:, present], expected[:, present], rtol=0, atol=1e-6)
        assert (found[:, ~present] == 0).all()
    torch.testing.assert_close(patch_query_maps(pruned, pixels[:1])[present], queries[present])
    assert rollout(pruned, pixels).isfinite().all()
    found = attention_statistics(pruned, batch, **settings)
    for one, other in ((found.regions, statistics.regions), (found.heads, statistics.heads)):
        other = other[present[other["layer"], other["head"]]].reset_index(drop=True)
        for column in set(one.columns) - {"q_value", "reason", "p_value"}:
            if one[column].dtype.kind == "f":
                np.testing.assert_allclose(one[column], other[column], rtol=1e-4, atol=1e-5, err_msg=column)
            else:
                assert list(one[column]) == list(other[column]), column
        assert list(one["reason"]) == list(other["reason"])
    assert found.regions["q_value"].notna().any()


def test_classes_sinks_and_picker_take_a_pruned_model():
    model, (pixels, labels) = prune_heads(zoo("vit"), MIXED), pictures()
    sinks = find_sinks(model, {"one": pixels, "noise": torch.rand_like(pixels)})
    assert not sinks.mask[~torch.from_numpy(find_blocks(model).present)].any()
    batch = {"pixel_values": pixels, "regions": torch.randint(0, 2, (len(pixels), PIXELS, PIXELS))}
    statistics = attention_statistics(
        model, batch, sinks=sinks.mask, regions=("a", "b"), replicates=8, shuffles=0
    )
    table = classify(statistics, sinks=sinks)
    assert list(zip(table["layer"], table["head"], strict=True)) == LEFT
    counted = sensitivity(statistics).groupby(["threshold", "value"])["heads"].sum()
    assert (counted == len(LEFT)).all()
    effects = sweep(model, pixels, labels, bootstrap=20)
    grid = np.full((LAYERS, HEADS), np.nan)
    grid[effects["layer"], effects["head"]] = effects["effect"]
    maps = attention_maps(model, pixels).numpy()
    images = (pixels.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)
    picker = HeadPicker(maps, images, effect=grid)
    assert maps.shape[-2:] == (GRID, GRID)
    assert "text/html" in picker._repr_mimebundle_()[0]


def test_updates_of_a_pruned_model_are_those_of_the_heads_that_are_left():
    pretrained, tuned = zoo("vit"), zoo("vit", seed=1)
    whole = update_norms(tuned, pretrained).set_index(["layer", "head", "projection"])
    found = update_norms(prune_heads(tuned, MIXED), pretrained).set_index(["layer", "head", "projection"])
    assert sorted({index[:2] for index in found.index}) == LEFT
    np.testing.assert_allclose(found, whole.loc[found.index])
    with pytest.raises(ValueError, match="lacks heads"):
        update_norms(tuned, prune_heads(pretrained, MIXED))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_any_pruned_model_is_saved_and_read_back_on_its_original(family, tmp_path):
    model, (pixels, _) = zoo(family), pictures()
    pruned = prune_heads(model, MIXED)
    save_pruned(pruned, tmp_path / "pruned", origin=model)
    assert {path.name for path in tmp_path.iterdir()} == {"pruned"}
    loaded = load_pruned(tmp_path / "pruned", origin=model)
    assert torch.equal(loaded(pixels), pruned(pixels))
    assert find_blocks(loaded).pairs == LEFT
    with pytest.raises(PruningError, match="expected its unpruned model as `origin`"):
        load_pruned(tmp_path / "pruned")
    with pytest.raises(PruningError, match="pruned from a model with fingerprint"):
        load_pruned(tmp_path / "pruned", origin=zoo(family, seed=1))


TINY = {(0, head) for head in range(12)} | {(1, 3), (1, 7), (11, 0), (5, 11)}


@torch.no_grad()
def test_a_pruned_regressor_is_read_back_by_itself(tmp_path):
    model = ChirpRegressor.tiny()
    pruned = prune_heads(model, TINY)
    save_pruned(pruned, tmp_path / "pruned", origin=model)
    save_pruned(pruned, tmp_path / "pruned", origin=weights_fingerprint(model))  # over the first one
    loaded = load_pruned(tmp_path / "pruned")
    pixels = torch.rand(2, 3, 224, 224)
    assert torch.equal(loaded(pixels).logits, pruned(pixels).logits)
    assert (loaded.backbone_name, loaded.fingerprint) == (model.backbone_name, model.fingerprint)
    torch.testing.assert_close(
        loaded(pixels).logits, masked(model, TINY, pixels).logits, rtol=1e-5, atol=1e-5
    )
    record = json.loads((tmp_path / "pruned" / "pruned.json").read_text())
    assert record["origin_fingerprint"] == weights_fingerprint(model)


SMALL = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 24}
PATCHES = {"image_size": 56, "patch_size": 14}


def _two_towers(kind: str) -> nn.Module:
    text = SMALL | {"num_hidden_layers": 2, "vocab_size": 50}
    config = getattr(transformers, f"{kind}Config")(vision_config=SMALL | PATCHES, text_config=text)
    return getattr(transformers, f"{kind}ForImageClassification")(config)


def _depths() -> nn.Module:
    inner = transformers.Dinov2Config(
        **SMALL | {"num_hidden_layers": 4}, **PATCHES, out_indices=[1, 2, 3, 4], reshape_hidden_states=False
    )
    return transformers.DepthAnythingForDepthEstimation(
        transformers.DepthAnythingConfig(
            backbone_config=inner, patch_size=14, reassemble_hidden_size=24, neck_hidden_sizes=[8] * 4,
            fusion_hidden_size=8, head_hidden_size=4,
        )
    )  # fmt: skip


def _spectrograms() -> nn.Module:
    return transformers.ASTForAudioClassification(
        transformers.ASTConfig(
            **SMALL, max_length=64, num_mel_bins=32, patch_size=16, frequency_stride=16, time_stride=16
        )
    )


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: _two_towers("CLIP"), (3, 56, 56)),
        (lambda: _two_towers("Siglip"), (3, 56, 56)),
        (_depths, (3, 56, 56)),
        (_spectrograms, (64, 32)),
    ],
    ids=["CLIP", "SigLIP", "Depth Anything", "AST"],
)
@torch.no_grad()
def test_models_that_count_their_layers_elsewhere_are_read_back_from_the_folder_alone(make, shape, tmp_path):
    torch.manual_seed(0)
    model, image = make().eval(), torch.rand(1, *shape)
    pruned = prune_heads(model, [(0, 1), (2, 0), (2, 1), (2, 2)], pixel_values=image)
    folder = save_pruned(pruned, tmp_path / "pruned", origin=model)
    loaded = load_pruned(folder)
    assert type(loaded) is type(model)
    assert torch.equal(predict(loaded, image), predict(pruned, image))
    record = json.loads((folder / "pruned.json").read_text())
    config = record["config"]
    holder = config.get("vision_config") or config.get("backbone_config") or config
    holder["num_hidden_layers"] = 10**9
    (folder / "pruned.json").write_text(json.dumps(record))
    with pytest.raises(PruningError, match="asks for 1000000000 layers, expected at most 1000"):
        load_pruned(folder)
    holder["num_hidden_layers"] = 5
    (folder / "pruned.json").write_text(json.dumps(record))
    with pytest.raises(PruningError, match="describes 5 layers of attention, and the record of heads"):
        load_pruned(folder)


def test_damaged_and_missing_files_are_refused(tmp_path):
    model = ChirpRegressor.tiny()
    folder = save_pruned(prune_heads(model, TINY), tmp_path / "pruned", origin=model)
    weights, record = folder / "model.safetensors", folder / "pruned.json"
    whole, text = weights.read_bytes(), record.read_text()
    for content, message in (
        (whole[: len(whole) // 2], "damaged"),
        (whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:], "not those that were saved"),
    ):
        weights.write_bytes(content)
        with pytest.raises(PruningError, match=message):
            load_pruned(folder)
    weights.write_bytes(whole)
    record.write_text(text[:100])
    with pytest.raises(PruningError, match="damaged"):
        load_pruned(folder)
    other = json.loads(text)
    other["kept"][3] = [0, 1]
    record.write_text(json.dumps(other))
    with pytest.raises(PruningError, match="do not fit its record"):
        load_pruned(folder)
    record.unlink()
    with pytest.raises(PruningError, match=r"lacks pruned\.json"):
        load_pruned(folder)


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ([(0, 1), (2, 0), (0, 1)], r"\(0, 1\) named more than once"),
        ([(5, 0)], r"\(5, 0\) not in this model, expected layers 0 to 4 and heads 0 to 2"),
        ([(0, -1)], r"\(0, -1\) not in this model"),
        ([(a, b) for a in range(LAYERS) for b in range(HEADS)], "all 15 heads .* at least one to stay"),
    ],
)
def test_heads_that_cannot_go_are_refused(heads, message):
    with pytest.raises(PruningError, match=message):
        prune_heads(zoo("vit"), heads)


def test_other_models_adapters_and_gone_heads_are_refused():
    model = zoo("vit")
    with pytest.raises(PruningError, match=r"chosen on a model with fingerprint .*choose them anew"):
        prune_heads(zoo("vit", seed=1), {(0, 0)}, made_for=weights_fingerprint(model))
    assert not find_blocks(prune_heads(model, set(), made_for=weights_fingerprint(model))).pruned
    with pytest.raises(PruningError, match=r"\(0, 0\) already pruned"):
        prune_heads(prune_heads(model, {(0, 0)}), {(0, 0)})
    with pytest.raises(ValueError, match="unmerged LoRA adapter"):
        prune_heads(get_peft_model(zoo("vit"), LoraConfig(target_modules=["q_proj"])), {(0, 0)})
    with pytest.raises(ValueError, match="unmerged LoRA adapter"):
        prune_heads(ChirpRegressor.build("tiny"), {(0, 0)})
    with pytest.raises(PruningError, match="carries a LoRA adapter already"):
        recovering(ChirpRegressor.build("tiny"))


def test_a_gated_attention_is_refused():
    model = zoo("timm")
    model.backbone.blocks[1].attn.gate = nn.Linear(HEADS * SIZE, HEADS * SIZE)
    with pytest.raises(PruningError, match="normalizes or gates"):
        prune_heads(model.double(), {(1, 0)})


def test_recovery_starts_where_the_pruned_model_stands_and_lowers_its_error(tmp_path):
    model = ChirpRegressor.build(tiny(), lora=None)
    pruned = prune_heads(model, TINY)
    before = copy.deepcopy(pruned.state_dict())
    regressor = recovering(pruned)
    pixels = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(regressor(pixels).logits, pruned(pixels).logits)
    training = fine_tune(regressor, Stripes(84, 0), Stripes(21, 1), RECIPE, tmp_path / "checkpoints")
    losses = training.history["held_out_loss"].dropna()
    assert losses.iloc[-1] < 0.9 * losses.iloc[0]
    merged = training.regressor.merged()
    assert find_blocks(merged).pairs == find_blocks(pruned).pairs
    assert_same_weights(pruned, before)
    with pytest.raises(AdapterError, match="this regressor is pruned"):
        training.regressor.save(tmp_path / "adapter")
    save_pruned(merged, tmp_path / "recovered", origin=model)
    with torch.no_grad():
        assert torch.equal(load_pruned(tmp_path / "recovered")(pixels).logits, merged(pixels).logits)


def test_a_killed_recovery_resumes_to_the_same_weights(tmp_path):
    pruned = prune_heads(ChirpRegressor.tiny(), TINY)
    whole = recovering(pruned)
    fine_tune(whole, Stripes(84, 0), Stripes(21, 1), RECIPE, tmp_path / "whole")

    with pytest.raises(KilledError):
        fine_tune(recovering(pruned), Breaking(84, 0), Stripes(21, 1), RECIPE, tmp_path / "broken")
    resumed = recovering(pruned)
    fine_tune(resumed, Stripes(84, 0), Stripes(21, 1), RECIPE, tmp_path / "broken")
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name
