"""The chirp regressor: LoRA starts as the identity, merging keeps predictions, adapters load strictly."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.model.backbones import tiny
from vitmech_utils.model.lora import update_norms
from vitmech_utils.model.regressor import (
    AdapterError,
    ChirpRegressor,
    LoraSettings,
    read_training,
    seconds_and_hertz,
)

HIDDEN, RANK, LAYERS = 48, 8, 12


@pytest.fixture
def pixels():
    return torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def trained():
    """A regressor whose LoRA matrices are no longer zero."""
    regressor = ChirpRegressor.build("tiny")
    generator = torch.Generator().manual_seed(1)
    for name, weight in regressor.named_parameters():
        if "lora_" in name:
            weight.data.normal_(0, 0.3, generator=generator)
    return regressor


def predictions(regressor, pixels):
    with torch.inference_mode():
        return regressor(pixels).logits


def test_only_adapter_and_head_are_trained():
    regressor = ChirpRegressor.build("tiny")
    trained = {n: p.numel() for n, p in regressor.named_parameters() if p.requires_grad}
    lora = sum(count for name, count in trained.items() if "lora_" in name)
    head = HIDDEN * 256 + 256 + 256 * 128 + 128 + 128 * 3 + 3
    assert lora == LAYERS * 2 * 2 * RANK * HIDDEN
    assert sum(trained.values()) == lora + head


def test_fresh_adapter_changes_nothing(pixels):
    with torch.inference_mode():
        plain = tiny()(pixel_values=pixels).last_hidden_state
        wrapped = ChirpRegressor.build("tiny").backbone(pixel_values=pixels).last_hidden_state
    assert torch.equal(plain, wrapped)


def test_merging_keeps_predictions_and_the_original(trained, pixels):
    before = predictions(trained, pixels)
    merged = trained.merged()
    assert merged.is_merged
    assert not trained.is_merged
    assert torch.allclose(predictions(merged, pixels), before, atol=1e-5)
    assert torch.equal(predictions(trained, pixels), before)
    assert not any("lora" in name for name, _ in merged.named_modules())


def test_without_adapter_is_the_pretrained_backbone(trained, pixels):
    plain = trained.without_adapter()
    with torch.inference_mode():
        expected = tiny()(pixel_values=pixels).last_hidden_state
        assert torch.equal(plain.backbone(pixel_values=pixels).last_hidden_state, expected)
    assert not torch.allclose(predictions(plain, pixels), predictions(trained, pixels), atol=1e-4)


def test_the_untrained_twin_has_the_same_form_and_other_weights(trained, pixels):
    twin, again = (trained.merged().untrained_twin(seed=3) for _ in range(2))
    assert (find_blocks(twin).layers, find_blocks(twin).heads) == (LAYERS, 12)
    assert torch.equal(predictions(twin, pixels), predictions(again, pixels))
    assert not torch.allclose(predictions(twin, pixels), predictions(trained, pixels), atol=1e-4)


def test_saved_and_loaded_regressor_is_the_same(trained, pixels, tmp_path):
    folder = trained.save(tmp_path / "adapter")
    assert torch.equal(predictions(ChirpRegressor.load(folder), pixels), predictions(trained, pixels))
    assert not list(tmp_path.glob(".saving-*"))
    assert {p.suffix for p in folder.iterdir()} <= {".safetensors", ".json", ".md"}
    settings = json.loads((folder / "regressor.json").read_text())
    assert settings["backbone"] == "tiny"
    assert settings["label_mean"] == [22.5, 50.0, 50.0]
    assert settings["lora"] == {"r": 8, "alpha": 16, "dropout": 0.1}


@pytest.mark.parametrize(
    ("query", "value"),
    [("attention.attention.query", "attention.attention.value"), ("attention.q_proj", "attention.v_proj")],
)
def test_an_adapter_of_another_release_of_transformers_is_read(trained, pixels, tmp_path, query, value):
    folder = trained.save(tmp_path / "adapter")
    path, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    linear = find_blocks(trained).blocks[0]
    names = {id(module): name for name, module in trained.backbone.base_model.model.named_modules()}
    renamed = {}
    for key, tensor in load_file(path).items():
        for projection, new in ((linear.query, query), (linear.value, value)):
            own = names[id(projection.linear)].partition(".0.")[2]
            key = key.replace(f".{own}.", f".{new}.")
        renamed[key] = tensor
    save_file(renamed, path, metadata={"format": "pt"})
    settings = json.loads(config.read_text())
    settings["target_modules"] = [query.rpartition(".")[2], value.rpartition(".")[2]]
    config.write_text(json.dumps(settings))
    assert torch.equal(predictions(ChirpRegressor.load(folder), pixels), predictions(trained, pixels))


def test_adapter_of_another_backbone_is_refused_and_both_are_named(trained, tmp_path):
    folder = trained.save(tmp_path / "adapter")
    other = tmp_path / "other-vit"
    tiny(seed=9).save_pretrained(other)
    with pytest.raises(AdapterError, match=r"trained on backbone 'tiny'.*other-vit' was loaded"):
        ChirpRegressor.load(folder, backbone=str(other))


def test_incomplete_folder_is_refused(trained, tmp_path):
    folder = trained.save(tmp_path / "adapter")
    (folder / "head.safetensors").unlink()
    with pytest.raises(AdapterError, match=r"lacks head\.safetensors.*vitmech run 02"):
        ChirpRegressor.load(folder)


def test_truncated_adapter_is_refused(trained, tmp_path):
    folder = trained.save(tmp_path / "adapter")
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(AdapterError, match="damaged adapter"):
        ChirpRegressor.load(folder)


def test_adapter_that_misses_a_layer_is_refused(trained, tmp_path):
    folder = trained.save(tmp_path / "adapter")
    path = folder / "adapter_model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if ".5." not in k}, path)
    with pytest.raises(AdapterError, match="weights are missing"):
        ChirpRegressor.load(folder)


def test_merged_regressor_cannot_be_saved_as_an_adapter(trained, tmp_path):
    with pytest.raises(AdapterError, match="merged"):
        trained.merged().save(tmp_path / "adapter")
    assert list(tmp_path.iterdir()) == []


def test_wrong_image_size_is_refused():
    with pytest.raises(ValueError, match=r"\(1, 3, 128, 128\), expected \[image, 3, 224, 224\]"):
        ChirpRegressor.tiny()(torch.rand(1, 3, 128, 128))


def test_loss_is_the_mean_squared_error(pixels):
    regressor = ChirpRegressor.tiny()
    labels = torch.tensor([[0.0, 1.0, -1.0], [2.0, 0.5, 0.25]])
    expected = ((predictions(regressor, pixels) - labels) ** 2).mean()
    assert torch.isclose(regressor(pixels, labels).loss, expected)


def test_seconds_and_hertz_undo_the_standardization():
    assert torch.allclose(seconds_and_hertz(torch.zeros(2, 3)), torch.tensor([22.5, 50.0, 50.0]).expand(2, 3))
    assert seconds_and_hertz(torch.ones(3))[0].item() == pytest.approx(22.5 + 45 / 12**0.5)


def test_head_alone_can_be_trained():
    regressor = ChirpRegressor.build("tiny", lora=None)
    assert all(name.startswith("head.") for name, p in regressor.named_parameters() if p.requires_grad)
    assert LoraSettings().r == RANK


def test_training_record_travels_with_the_adapter(trained, tmp_path):
    folder = trained.save(tmp_path / "adapter", training={"steps": 3})
    assert read_training(folder) == {"steps": 3}
    with pytest.raises(AdapterError, match="without a record"):
        read_training(trained.save(tmp_path / "other"))


def test_update_norms_are_those_of_the_merged_minus_the_plain_weights(trained):
    table = update_norms(trained.merged(), trained.without_adapter()).set_index(
        ["layer", "head", "projection"]
    )
    assert len(table) == LAYERS * 12 * 2
    merged, plain = trained.merged().backbone.state_dict(), tiny().state_dict()
    name = "layers.7.attention.v_proj.weight"
    change = (merged[name] - plain[name])[5 * 4 : 6 * 4].norm().item()
    assert table.loc[(7, 5, "value"), "norm"] == pytest.approx(change, rel=1e-4)
    assert table.loc[(7, 5, "value"), "relative"] == pytest.approx(
        change / plain[name][20:24].norm().item(), rel=1e-4
    )


def test_update_norms_are_those_of_the_head_that_was_changed():
    before, after = tiny(layers=2, heads=3), tiny(layers=2, heads=3)
    block = find_blocks(after).blocks[1]
    with torch.no_grad():
        block.query.weight[4:8] += 2.0
        block.value.weight[8:12, 0] += 3.0
    table = update_norms(after, before)
    moved = table[table["norm"] > 0]
    assert moved[["layer", "head", "projection"]].to_numpy().tolist() == [[1, 1, "query"], [1, 2, "value"]]
    assert moved["norm"].tolist() == pytest.approx([2.0 * (4 * 12) ** 0.5, 3.0 * 4**0.5], abs=1e-5)


def test_update_norms_refuse_unmerged_models_and_models_of_other_sizes(trained):
    with pytest.raises(ValueError, match="unmerged"):
        update_norms(trained, trained.without_adapter())
    with pytest.raises(ValueError, match="layers, heads"):
        update_norms(tiny(layers=2, heads=3), tiny(layers=2, heads=2))
