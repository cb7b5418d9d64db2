"""A backbone of one's own without a pooler, from its folder to the chapters that train and analyse it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import vitmech
from safetensors.torch import load_file
from transformers import ViTConfig, ViTForImageClassification

from vitmech_utils.model.backbones import load_backbone
from vitmech_utils.model.lora import weights_fingerprint
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.studies.ablation.measure import shape_of

pytestmark = [pytest.mark.pipeline, pytest.mark.alone, pytest.mark.slow]
SMALL = {
    "adapter": "train", "train.images": 8, "train.batch_size": 2, "train.steps": 2, "train.every": 1,
    "train.eval_images": 4, "attention.images": 2, "gallery.images": 2, "gallery.picker_images": 1,
    "ablation.images": 2, "ablation.exact_images": 2, "ablation.other_exact_images": 2,
    "ablation.control_images": 2, "ablation.optimal_images": 4, "device": "cpu",
}  # fmt: skip


def test_chapters_train_and_analyse_a_checkpoint_without_pooler(tmp_path: Path) -> None:
    """A classifier's checkpoint, as google/vit-base-patch16-224 is one: in shape but for its size."""
    torch.manual_seed(0)
    config = ViTConfig(hidden_size=24, num_hidden_layers=6, num_attention_heads=3, intermediate_size=24,
                       image_size=224, patch_size=32)  # fmt: skip
    origin = ViTForImageClassification(config)
    origin.save_pretrained(tmp_path / "mine")
    assert not any("pooler" in name for name in load_file(tmp_path / "mine" / "model.safetensors"))
    run = tmp_path / "run"
    values = [part for name, value in SMALL.items() for part in ("-p", f"{name}={value}")]
    for chapter in ("02", "03", "04"):
        done = vitmech("run", chapter, "-p", f"backbone={tmp_path / 'mine'}", *values, "--run-dir", run)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        (folder,) = run.glob(f"{chapter}_*")
        assert json.loads((folder / "manifest.json").read_text())["profile"]["values"]["backbone"] == str(
            tmp_path / "mine"
        )
    # Nothing is drawn at random: what is read back are the folder's own weights, whatever the seed.
    adapter = run / "02_lora_fine_tuning" / "adapter"
    torch.manual_seed(1)
    one = ChirpRegressor.load(adapter)
    torch.manual_seed(2)
    assert weights_fingerprint(one) == weights_fingerprint(ChirpRegressor.load(adapter))
    backbone = load_backbone(str(tmp_path / "mine"))
    assert backbone.pooler is None
    held = origin.vit.state_dict()
    assert backbone.state_dict().keys() == held.keys()
    for name, weight in backbone.state_dict().items():
        assert torch.equal(weight, held[name]), name


def test_a_backbone_without_the_compared_layers_is_refused_in_words() -> None:
    with pytest.raises(
        ValueError, match="compares layers 1-3 with layer 6, but this model has 5 layers, expected at least 6"
    ):
        shape_of(ChirpRegressor.tiny(layers=5))
    assert shape_of(ChirpRegressor.tiny(layers=6, heads=2)) == (6, 2)
