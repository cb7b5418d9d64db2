"""Adapters as others find them: peft alone loads every published one, and its card says what its record says."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from small_book import ROOT

from vitmech_utils.data.dataset import ChirpDataset, stack
from vitmech_utils.model import cards
from vitmech_utils.model.adapter_files import CARD
from vitmech_utils.model.backbones import load_backbone
from vitmech_utils.model.classifier import SweepClassifier
from vitmech_utils.model.lora import AdapterError
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.runs.standing import adapter_digest

PUBLISHED = ROOT / "published" / "adapters"
KEPT = sorted(path.parent for path in PUBLISHED.rglob("adapter_model.safetensors"))
FOLDERS = [folder for folder in KEPT if not (folder / "recovery.json").is_file()]  # these go on pruned models
NAMES = [folder.relative_to(PUBLISHED).as_posix() for folder in FOLDERS]
SETTINGS = {
    "task": "regression",
    "backbone": "dinov2-small",
    "backbone_fingerprint": "0" * 64,
    "image_size": 224,
}
SETTINGS |= {"labels": ["start_time"], "lora": {"r": 8, "alpha": 16, "dropout": 0.1}}


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return stack(ChirpDataset(2, split="held-out"), 2)["pixel_values"]


def test_there_are_published_adapters() -> None:
    assert {"seed-0", "bare-seed-0", "seed-2"} <= set(NAMES)


def test_recoveries_get_no_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = [folder for folder in KEPT if folder not in FOLDERS]
    assert {folder.parent.name for folder in kept} == {"recoveries"}
    shutil.copytree(kept[0].parent, tmp_path / "recoveries")
    assert cards.main([str(tmp_path)]) == 1
    assert "no adapter folder" in capsys.readouterr().err


@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_peft_alone_loads_it_whole_onto_the_backbone(folder: Path, recwarn: pytest.WarningsRecorder) -> None:
    model = PeftModel.from_pretrained(load_backbone(), str(folder))
    told = [str(warning.message) for warning in recwarn]
    assert not [text for text in told if "adapter" in text.lower() or "missing" in text.lower()]
    moved = [value for name, value in model.named_parameters() if "lora_B" in name]
    assert len(moved) == 24  # query and value of twelve layers
    assert all(value.abs().max() > 0 for value in moved)  # fresh ones are zero


@pytest.mark.parametrize(
    ("name", "kind"), [("seed-0", ChirpRegressor), ("classifier-titled-seed-0", SweepClassifier)]
)
def test_the_card_s_code_predicts_what_the_package_predicts(
    name: str, kind: type, images: torch.Tensor
) -> None:
    folder = PUBLISHED / name
    (code,) = re.findall(r"```python\n(.*?)```", (folder / CARD).read_text(encoding="utf-8"), re.DOTALL)
    said = {"folder": str(folder), "images": images}
    exec(code, said)
    with torch.no_grad():
        expected = kind.load(folder)(images).logits
    torch.testing.assert_close(said["answers"], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_every_published_card_is_the_one_that_its_records_make(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "adapter"
    shutil.copytree(folder, copy)
    text = cards.write_card(copy).read_text(encoding="utf-8")
    assert (folder / CARD).read_text(encoding="utf-8") == text, (
        "python -m vitmech_utils.model.cards published/adapters"
    )
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    for row in record["score"]:
        value = row["r"] if "r" in row else row["accuracy"]
        assert f"| {row['target']} | {value:,.4g} |" in text
    assert f"| seed | {record['seed']} |" in text
    for heading in ("## Use", "## Training", "## Scores", "## Limits", "## Licence"):
        assert text.count(heading) == 1


def test_saving_writes_the_card_and_saving_again_replaces_it(tmp_path: Path) -> None:
    model = ChirpRegressor.build("tiny")
    folder = model.save(tmp_path / "adapter")
    assert "No record of it was kept." in (folder / CARD).read_text(encoding="utf-8")
    model.save(folder, training={"seed": 7, "steps": 3, "batch_size": 5})
    text = (folder / CARD).read_text(encoding="utf-8")
    assert "| seed | 7 |" in text
    assert "| images visited | 15 |" in text
    assert "None was recorded." in text


def test_a_card_is_no_part_of_what_a_run_read(tmp_path: Path) -> None:
    folder = ChirpRegressor.build("tiny").save(tmp_path / "adapter")
    before = adapter_digest(folder)
    (folder / CARD).write_text("edited", encoding="utf-8")
    assert adapter_digest(folder) == before


def test_records_cannot_write_markup_or_settings_into_a_card() -> None:
    hostile = "x\n---\nlicense: none <script>alert(1)</script> | [a](javascript:b) `"
    score = [{"target": hostile, "r": 0.5, "unit": hostile}]
    training = {"profile": hostile, "figures": hostile, "hardware": hostile, "score": score}
    text = cards.card({**SETTINGS, "backbone": hostile, "labels": [hostile]}, training)
    assert text.count("---\n") == 2
    assert "\nlicense: none" not in text
    for mark in ("<script", "](javascript", "(1)"):
        assert mark not in text
    assert "\nbase_model: owner/name\n" in cards.card({**SETTINGS, "backbone": "owner/name"}, None)


def test_folders_without_adapters_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cards.main([str(tmp_path)]) == 1
    assert "no adapter folder" in capsys.readouterr().err
    with pytest.raises(AdapterError):
        cards.write_card(tmp_path)
