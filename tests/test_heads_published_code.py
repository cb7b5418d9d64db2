import copy
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from heads_zoo import HEADS, LAYERS, pictures, zoo
from peft import LoraConfig, get_peft_model
from test_heads_hooks import assert_same_weights, state

from vitmech_utils.data.chirps import LABEL_MEAN, LABEL_STD
from vitmech_utils.heads import published_code
from vitmech_utils.heads.ablation import sweep
from vitmech_utils.model.anatomy import find_blocks

PYTHON = os.environ.get("VITMECH_PUBLISHED_PYTHON")


def test_a_row_is_zeroed_and_always_within_the_first_head():
    model = zoo("vit")
    anatomy, before = find_blocks(model), state(model)
    published_code.zero_rows(anatomy.blocks[1], 2)
    changed = [name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])]
    assert sorted(name.rsplit(".", 2)[-2] for name in changed) == ["k_proj", "q_proj", "v_proj"]
    assert all(name.endswith("weight") for name in changed)
    for name in changed:
        rows = (model.state_dict()[name] != before[name]).any(1).nonzero().flatten().tolist()
        assert rows == [2]


@pytest.mark.parametrize("family", ["vit", "dinov2", "timm"])
@pytest.mark.parametrize("batch", [2, 32])
def test_the_quick_procedure_is_the_literal_one_and_keeps_the_weights(family, batch):
    model, (pixels, _) = zoo(family), pictures()
    before = state(model)
    baseline, scenarios = published_code.published_procedure(model, pixels, batch)
    assert_same_weights(model, before)
    with torch.no_grad():
        expected = published_code.literal_procedure(copy.deepcopy(model), pixels, batch)
    torch.testing.assert_close(baseline, expected[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(scenarios, expected[1], rtol=0, atol=1e-12)


def test_the_first_batch_runs_one_step_behind_and_nothing_is_restored():
    model, (pixels, _) = zoo("vit"), pictures()
    baseline, scenarios = published_code.published_procedure(model, pixels, batch=2)
    torch.testing.assert_close(scenarios[0, 0, :2], baseline[:2], rtol=0, atol=1e-12)
    assert (scenarios[0, 0, 2:] - baseline[2:]).abs().max() > 1e-6
    for block in find_blocks(model).blocks:
        for row in range(HEADS):
            published_code.zero_rows(block, row)
    with torch.no_grad():
        torch.testing.assert_close(scenarios[-1, -1, 2:], model(pixels)[2:], rtol=0, atol=1e-12)


def test_another_order_of_layers_ends_in_the_same_weights():
    model, (pixels, _) = zoo("vit"), pictures()
    _, forward = published_code.published_procedure(model, pixels, batch=1)
    _, backward = published_code.published_procedure(model, pixels, batch=1, order=[4, 3, 2, 1, 0])
    torch.testing.assert_close(backward[0, -1, 1:], forward[-1, -1, 1:], rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="each layer from 0 to 4 once"):
        published_code.published_procedure(model, pixels, order=[0, 0, 1, 2, 3])


def test_it_is_a_mode_of_the_sweep():
    model, (pixels, labels) = zoo("vit"), pictures()
    table = sweep(model, pixels, labels, "published-code", batch=2)
    _, scenarios = published_code.published_procedure(model, pixels, batch=2)
    np.testing.assert_allclose(table["mse"], (scenarios - labels).square().mean((2, 3)).flatten())
    assert len(table) == LAYERS * HEADS


def test_the_documented_loading_matches_the_head_alone():
    def wrapped(seed: int):
        model = zoo("vit", seed=seed)
        model.backbone = get_peft_model(model.backbone, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
        return model

    trained, fresh = wrapped(0), wrapped(1)
    before = state(fresh)
    report = published_code.documented_loading(trained, fresh)
    assert sorted(report.matched) == ["head.bias", "head.weight"]
    assert len(report.missing) == len(report.unexpected) == len(trained.state_dict()) - 2
    for name, weight in fresh.state_dict().items():
        source = trained.state_dict() if name.startswith("head.") else before
        assert torch.equal(weight, source[name])


def test_the_documented_baseline_lies_where_mixed_units_put_it():
    scores = published_code.mixed_units(LABEL_MEAN, LABEL_STD)
    assert scores.predicting_nothing == pytest.approx(2488, abs=5)
    assert scores.perfect_but_standardized == pytest.approx(2441, abs=5)
    assert scores.predicting_the_mean == pytest.approx(654, abs=5)
    assert scores.perfect_but_standardized < published_code.DOCUMENTED_BASELINE < scores.predicting_nothing


def test_mixed_units_by_simulation():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((200_000, 2))
    y = z * [2.0, 3.0] + [5.0, 7.0]
    scores = published_code.mixed_units([5.0, 7.0], [2.0, 3.0])
    assert scores.predicting_nothing == pytest.approx((y**2).mean(), rel=0.01)
    assert scores.perfect_but_standardized == pytest.approx(((y - z) ** 2).mean(), rel=0.01)
    assert scores.predicting_the_mean == pytest.approx(((y - [5.0, 7.0]) ** 2).mean(), rel=0.01)


def test_imagenet_normalization():
    grey = torch.full((1, 3, 2, 2), 0.5)
    normalized = published_code.imagenet_normalized(grey)
    np.testing.assert_allclose(normalized[0, :, 0, 0], [(0.5 - m) / s for m, s in zip(
        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)], rtol=1e-5)  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(
    not PYTHON, reason="VITMECH_PUBLISHED_PYTHON names no environment with the published package"
)
def test_the_published_package_itself_gives_the_same(tmp_path):
    """Same random weights in its model and in ours: every scenario's predictions and losses agree."""
    script = Path(__file__).with_name("run_published_package.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([PYTHON, script, tmp_path], check=True, env=environment, timeout=600)
    model, inputs = _ours(tmp_path)
    settings = json.loads((tmp_path / "settings.json").read_text())
    baseline, scenarios = published_code.published_procedure(model, inputs["pixels"], settings["batch"])
    np.testing.assert_allclose(baseline, inputs["baseline"], atol=2e-5)
    np.testing.assert_allclose(scenarios.flatten(0, 1), inputs["scenarios"], atol=2e-5)
    losses = [
        np.mean([((p - t) ** 2).mean() for p, t in zip(
            scenario.split(settings["batch"]), inputs["labels"].split(settings["batch"]), strict=True)])
        for scenario in scenarios.flatten(0, 1)
    ]  # fmt: skip
    np.testing.assert_allclose(losses, inputs["losses"], rtol=1e-5)
    assert len(losses) == settings["layers"] * settings["heads"]


def _ours(folder: Path):
    from heads_zoo import Reader
    from safetensors.torch import load_file
    from torch import nn
    from transformers import ViTConfig, ViTModel

    settings = json.loads((folder / "settings.json").read_text())
    model = Reader(ViTModel(ViTConfig(**settings["config"]), add_pooling_layer=False))
    model.head = nn.Sequential(
        nn.Linear(settings["config"]["hidden_size"], 256),
        nn.ReLU(),
        nn.Linear(256, 128),
        nn.ReLU(),
        nn.Linear(128, 3),
    )
    names = {
        "encoder.layer.": "layers.",
        "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj",
        "attention.attention.value": "attention.v_proj",
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
    }
    weights = {}
    for name, weight in load_file(folder / "weights.safetensors").items():
        for old, new in names.items():
            name = name.replace(old, new)
        name = name.replace("output.dense", "mlp.fc2") if "layers." in name else name
        weights[name] = weight
    model.load_state_dict(weights, strict=True)
    return model.eval(), load_file(folder / "run.safetensors")
