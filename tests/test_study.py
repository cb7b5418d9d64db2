"""A study of a toy classifier from files, end to end: what is read, measured, kept and refused."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import transformers as T
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from vitmech_utils.cli import main
from vitmech_utils.data.own_images import ImagesError, read_images, read_recipe
from vitmech_utils.data.own_masks import read_masks
from vitmech_utils.heads.ablation import sweep
from vitmech_utils.heads.pruning import prune_heads
from vitmech_utils.model.backbones import BackboneError
from vitmech_utils.model.lora import AdapterError
from vitmech_utils.model.own_models import load_own_model
from vitmech_utils.model.told_heads import Heads
from vitmech_utils.study import Study, StudyError

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ("cross", "disk", "square")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a classifier, its base, images by class, masks and COCO annotations."""
    root = tmp_path_factory.mktemp("toy")
    rng = np.random.default_rng(0)
    coco: dict = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "object"}]}
    for kind in CLASSES:
        (root / "val" / kind).mkdir(parents=True)
        (root / "masks" / kind).mkdir(parents=True)
        for number in range(24):
            picture = np.clip(rng.normal(30, 10, (40, 48, 3)), 0, 255).astype(np.uint8)
            mask = np.zeros((40, 48), np.uint8)
            y, x = (int(place) for place in rng.integers(4, 26, 2))
            mask[y : y + 8, x : x + 10] = 1
            picture[mask > 0] = (200, 60 * CLASSES.index(kind), 20)
            name = f"{kind}/{number}.png"
            Image.fromarray(picture).save(root / "val" / name)
            if number:
                Image.fromarray(mask).save(root / "masks" / name)
            coco["images"].append({"id": len(coco["images"]), "file_name": name, "width": 48, "height": 40})
            coco["annotations"].append(
                {"id": len(coco["annotations"]), "image_id": len(coco["images"]) - 1, "category_id": 1,
                 "bbox": [x, y, 10, 8]}
            )  # fmt: skip
    (root / "coco.json").write_text(json.dumps(coco))
    torch.manual_seed(0)
    names = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: i for i, name in enumerate(CLASSES)}}
    config = T.ViTConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48,
                         image_size=32, patch_size=8, initializer_range=0.3, **names)  # fmt: skip
    model = T.ViTForImageClassification(config)
    model.save_pretrained(root / "base")
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    model.save_pretrained(root / "tuned")
    return root


def study(toy: Path, folder: Path, **settings: object) -> Study:
    given = {"labels": "folders", "task": "cross-entropy", "folder": folder, "progress": False} | settings
    return Study(toy / "tuned", toy / "val", **given)


def test_folders_are_read_as_the_model_names_its_classes(toy: Path, tmp_path: Path) -> None:
    made = study(toy, tmp_path)
    assert made.labels.tolist() == [0] * 24 + [1] * 24 + [2] * 24
    assert made.images.facts["labels"] == "3 classes by folder, numbered by the model's own names"
    picture = Image.open(toy / "val" / "disk" / "3.png").resize((32, 32), Image.Resampling.BILINEAR)
    expected = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
    assert torch.allclose(made.images.pixels[24 + made.images.names[24:].index("disk/3.png")], expected)


def test_few_images_are_ablated_exactly_and_the_parts_are_kept(toy: Path, tmp_path: Path) -> None:
    made = study(toy, tmp_path, limit=12)
    expected = sweep(made.model, made.images.pixels, made.labels, "mean", "cross-entropy")
    pd.testing.assert_frame_equal(made.ablate(), expected, check_exact=False, rtol=1e-6, atol=1e-9)
    parts = sorted((tmp_path / "parts").iterdir())
    assert len(parts) == 2
    again = study(toy, tmp_path, limit=12)
    parts[0].write_bytes(b"cut short")
    stamp = parts[1].stat().st_mtime_ns
    pd.testing.assert_frame_equal(again.ablate(), made.ablate())
    assert parts[1].stat().st_mtime_ns == stamp
    assert parts[0].stat().st_size > 100
    other = study(toy, tmp_path, limit=12, seed=1)
    other.ablate()
    assert len(list((tmp_path / "parts").iterdir())) == 4


KILLED = """
import os, signal, sys
from vitmech_utils import study
from vitmech_utils.cli import main

exact, asked = study.losses_without_heads, []

def dies_in_the_second_layer(*arguments, **settings):
    asked.append(settings["layers"])
    if len(asked) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return exact(*arguments, **settings)

study.losses_without_heads = dies_in_the_second_layer
main(sys.argv[1:])
"""


def test_a_study_that_was_killed_takes_finished_layers_over(toy: Path, tmp_path: Path) -> None:
    def asked(folder: str) -> list[str]:
        return ["study", str(toy / "tuned"), str(toy / "val"), "--labels", "folders", "--limit", "72", "--out",
                str(tmp_path / folder)]  # fmt: skip

    killed = subprocess.run([sys.executable, "-c", KILLED, *asked("killed")], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "report.html").exists()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed" / "parts").iterdir()}
    assert sorted(path.stem.split("-", 1)[1] for path in kept) == ["mean-000", "mean-linearized"]
    assert main(asked("killed")) == 0
    assert main(asked("whole")) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    seconds = json.loads((tmp_path / "killed" / "study.json").read_text())["seconds"]
    assert "exact effects" in seconds
    assert "linearized effects" not in seconds
    own, whole = (
        pd.read_csv(tmp_path / name / "tables" / "effects.csv", dtype={"mode": str})
        for name in ("killed", "whole")
    )
    pd.testing.assert_frame_equal(own, whole, check_exact=False, rtol=1e-4, atol=1e-6)


def test_kept_parts_of_another_answer_task_or_heads_are_not_taken_over(toy: Path, tmp_path: Path) -> None:
    def effects(folder: Path, **settings: object) -> pd.DataFrame:
        return study(toy, folder, limit=6, **settings).ablate()

    def first(out: object) -> Tensor:
        return out.logits[:, :2]

    def last(out: object) -> Tensor:
        return out.logits[:, 1:]

    def once(outputs: Tensor, labels: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(outputs, labels, reduction="none")

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        return 2 * once(outputs, labels)

    once.__name__ = loss.__name__
    six = Heads(output="vit.layers.*.attention.o_proj", count=6)
    for changes in (
        ({"output": first, "labels": None, "task": None}, {"output": last, "labels": None, "task": None}),
        ({"task": once}, {"task": loss}),
        ({}, {"heads": six}),
    ):
        for own in changes:
            pd.testing.assert_frame_equal(
                effects(tmp_path / "kept", **own), effects(tmp_path / "fresh", **own)
            )
            shutil.rmtree(tmp_path / "fresh")


@pytest.mark.parametrize("mode", ["zero", "mean", "resample"])
def test_many_images_are_linearized_and_put_right_by_exact_ones(toy: Path, tmp_path: Path, mode: str) -> None:
    made = study(toy, tmp_path, mode=mode)
    assert len(made.images) == 72
    exact = sweep(made.model, made.images.pixels, made.labels, mode, "cross-entropy")
    table = made.ablate()
    inside = (exact["effect"] >= table["low"] - 1e-3) & (exact["effect"] <= table["high"] + 1e-3)
    assert inside.mean() >= 0.8
    assert table["baseline_loss"].to_numpy() == pytest.approx(exact["baseline_loss"].to_numpy())


def test_pngs_and_boxes_tell_the_same_regions(toy: Path, tmp_path: Path) -> None:
    by_mask = study(toy, tmp_path, masks=toy / "masks", regions={1: "object"})
    by_box = study(toy, tmp_path, masks=toy / "coco.json")
    assert by_mask.regions.names == by_box.regions.names == ("background", "object")
    known = torch.from_numpy(by_mask.regions.known)
    assert int(known.sum()) == 69
    assert torch.equal(by_mask.regions.maps[known], by_box.regions.maps[known])
    assert by_mask.regions.facts["masks"].startswith("69 of 72 images have one; none for cross/0.png")


def test_the_report_is_one_file_without_network_and_the_tables_lie_beside_it(
    toy: Path, tmp_path: Path
) -> None:
    made = study(toy, tmp_path, masks=toy / "masks", regions={1: "object"}, base=toy / "base")
    assert made.estimate()["total"] > 0
    page = made.report().read_text()
    assert not re.search(r'(?:src|href)="https?:', page)
    assert "The grid of effects" in page
    assert "moved in any twin" not in page
    strongest = made.ablate()["effect"].abs().idxmax()
    layer, head = (made.ablate()[name][strongest] + 1 for name in ("layer", "head"))
    assert (
        f'<td class="number">{layer}</td><td class="number">{head}</td>'
        in page.split("The strongest heads")[1]
    )
    assert "data-vm-host" in page
    headings = re.findall(r"<h2>([^<]*)</h2>", page)
    assert headings == [
        "The model, and what was checked", "Score", "What each head does", "The strongest heads", "Layers",
        "Every head, to look at", "Regions", "Classes", "Base against tuned", "Pruning",
        "What could not be said, and why", "The code that repeats it",
    ]  # fmt: skip
    tables = {path.name for path in (tmp_path / "tables").iterdir()}
    assert tables == {"effects.csv", "layers.csv", "regions.csv", "classes.csv", "origin.csv", "pruning.csv"}
    saved = pd.read_csv(tmp_path / "tables" / "effects.csv")
    assert saved["effect"].to_numpy() == pytest.approx(made.ablate()["effect"].to_numpy())


def test_names_in_the_report_are_escaped(toy: Path, tmp_path: Path) -> None:
    made = study(toy, tmp_path, limit=4, masks=toy / "coco.json", regions={1: "<script>alert(1)</script>"})
    assert "<script>alert(1)" not in made.report().read_text()


def test_pruning_keeps_to_the_limit_and_equals_ablation(toy: Path, tmp_path: Path) -> None:
    made = study(toy, tmp_path, limit=24)
    pruned, curve = made.prune(loss=0.5)
    removed = int(curve[curve["growth"] <= 0.5]["removed"].max())
    assert curve["milliseconds"].notna().all()
    expected = prune_heads(made.model, made._cheapest(removed)) if removed else made.model
    with torch.no_grad():
        assert torch.equal(pruned(made.images.pixels).logits, expected(made.images.pixels).logits)


def test_what_is_measured_on_some_images_is_measured_on_some_of_each_class(toy: Path, tmp_path: Path) -> None:
    made = study(toy, tmp_path)
    pixels, labels = made._part(6)
    assert labels.bincount().tolist() == [2, 2, 2]
    assert torch.equal(pixels[0], made.images.pixels[0])
    assert torch.equal(pixels[-1], made.images.pixels[-1])
    curve = made.pruning_curve()
    pixels, labels = made._part(32)
    with torch.no_grad():
        whole = torch.nn.functional.cross_entropy(made.model(pixels).logits, labels)
    assert curve["loss"][0] == pytest.approx(float(whole), rel=1e-5)


def test_without_labels_the_divergence_from_the_own_answer_is_measured(toy: Path, tmp_path: Path) -> None:
    made = study(toy, tmp_path, labels=None, task=None, limit=6)
    assert made.task.name == "divergence"
    assert (made.ablate()["effect"] >= -1e-12).all()
    with pytest.raises(StudyError, match="pass masks="):
        made.classes()
    with pytest.raises(StudyError, match="pass base="):
        made.origin()


def test_tensors_data_sets_loaders_and_pictures_are_taken(toy: Path) -> None:
    recipe = read_recipe(None, (32, 32))
    pixels, labels = torch.rand(5, 3, 32, 32), torch.arange(5) % 3
    assert torch.equal(read_images(pixels, recipe, labels).labels, labels)
    items = [{"pixel_values": image, "labels": label} for image, label in zip(pixels, labels, strict=True)]

    class Items(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: int) -> dict:
            return items[index]

    for source in (Items(), torch.utils.data.DataLoader(Items(), 2)):
        found = read_images(source, recipe)
        assert torch.equal(found.pixels, pixels)
        assert torch.equal(found.labels, labels)
    pictures = [Image.new("L", (50, 40), shade) for shade in (0, 255)]
    assert read_images(pictures, recipe).pixels.amax((1, 2, 3)).tolist() == [0, 1]
    assert "normalized, it seems" in read_images(pixels - 0.5, recipe).facts["values"]


def test_a_processor_s_configuration_is_followed(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32},
                    "do_normalize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 3})
    )  # fmt: skip
    recipe = read_recipe(tmp_path, (224, 224))
    assert (recipe.size, recipe.shortest, recipe.resample) == ((32, 32), 40, 3)
    found = recipe.values(recipe.place(Image.new("RGB", (100, 80), (255, 0, 0))))
    assert found[:, 0, 0].tolist() == [1, -1, -1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": torch.full((72, 32, 32), 3), "regions": {1: "object"}}, "masks hold 3, which has no name"),
        ({"masks": torch.zeros(72, 16, 16, dtype=torch.long)}, r"masks have shape \(72, 16, 16\), expected"),
        ({"masks": torch.zeros(72, 32, 32)}, "expected whole numbers"),
        ({"masks": torch.zeros(72, 32, 32, dtype=torch.long)}, "have no names: pass regions="),
        ({"masks": lambda _name: None, "regions": {1: "object"}}, "none of 72 images has one"),
    ],
)
def test_masks_that_do_not_fit_are_refused(toy: Path, tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(ImagesError, match=message):
        study(toy, tmp_path, **change)


def test_files_that_are_no_images_or_masks_are_refused_by_name(toy: Path, tmp_path: Path) -> None:
    recipe = read_recipe(None, (32, 32))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.png").write_bytes(b"no picture")
    with pytest.raises(ImagesError, match=r"one.png: no picture that can be read"):
        read_images(tmp_path, recipe, "folders")
    Image.new("RGB", (48, 40)).save(tmp_path / "a" / "one.png")
    (tmp_path / "b").mkdir()
    with pytest.raises(ImagesError, match=r"b: no image in this class's folder"):
        read_images(tmp_path, recipe, "folders")
    (tmp_path / "b").rmdir()
    with pytest.raises(ImagesError, match=r"the folder 'a' is no class of the model|1 folders"):
        read_images(tmp_path, recipe, "folders", CLASSES)
    images = read_images(tmp_path / "a", recipe)
    (tmp_path / "masks").mkdir()
    for picture, message in (
        (Image.new("RGB", (48, 40)), "a mask in RGB, expected one number per pixel"),
        (Image.new("L", (40, 40)), "40 x 40 pixels, but its image has 48 x 40"),
    ):
        picture.save(tmp_path / "masks" / "one.png")
        with pytest.raises(ImagesError, match=message):
            read_masks(tmp_path / "masks", images, recipe, {1: "object"})
    deep = Image.fromarray(np.full((40, 48), 300, np.uint16))
    deep.save(tmp_path / "masks" / "one.png")
    assert read_masks(tmp_path / "masks", images, recipe, {300: "object"}).maps.unique().tolist() == [1]
    palette = Image.new("P", (48, 40), 2)
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette.save(tmp_path / "masks" / "one.png")
    assert read_masks(tmp_path / "masks", images, recipe, {2: "object"}).maps.unique().tolist() == [1]


def test_polygons_are_painted_overlaps_counted_and_run_lengths_refused(tmp_path: Path) -> None:
    recipe = read_recipe(None, (32, 32))
    Image.new("RGB", (32, 32)).save(tmp_path / "one.png")
    images = read_images(tmp_path, recipe)
    outline = [4, 4, 19, 4, 19, 19, 4, 19]
    coco = {
        "images": [{"id": 7, "file_name": "one.png", "width": 32, "height": 32}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "segmentation": [outline]},
            {"id": 2, "image_id": 7, "category_id": 5, "bbox": [10, 10, 8, 8]},
        ],
        "categories": [{"id": 1, "name": "wide"}, {"id": 5, "name": "narrow"}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    found = read_masks(tmp_path / "coco.json", images, recipe)
    assert found.names == ("background", "wide", "narrow")
    assert torch.bincount(found.maps.flatten()).tolist() == [1024 - 256, 256 - 64, 64]
    assert found.facts["annotations"] == "2 painted, 1 over others (the later one wins)"
    coco["annotations"][0]["segmentation"] = {"counts": "abc", "size": [32, 32]}
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    with pytest.raises(ImagesError, match="annotation 1 is run-length encoded"):
        read_masks(tmp_path / "coco.json", images, recipe)


def test_models_are_loaded_strictly_and_adapters_merged(toy: Path, tmp_path: Path) -> None:
    import peft

    base = T.ViTForImageClassification.from_pretrained(toy / "base")
    wrapped = peft.get_peft_model(base, peft.LoHaConfig(target_modules=["q_proj"], r=2, init_weights=False))
    wrapped.save_pretrained(tmp_path / "adapter")
    pixels = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = wrapped.eval()(pixels).logits
        assert torch.allclose(
            load_own_model((toy / "base", tmp_path / "adapter"))(pixels).logits, expected, atol=1e-5
        )
    with pytest.raises(AdapterError, match="an adapter alone"):
        load_own_model(tmp_path / "adapter")
    with pytest.raises(BackboneError, match=r"no config\.json"):
        load_own_model(tmp_path)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((toy / "tuned" / name).read_bytes())
    state = {
        key: value
        for key, value in load_file(tmp_path / "model.safetensors").items()
        if "classifier" not in key
    }
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=r"lacks.* classifier.bias"):
        load_own_model(tmp_path)


def test_a_function_of_the_output_is_the_answer_or_is_refused(toy: Path, tmp_path: Path) -> None:
    pixels = torch.rand(6, 3, 32, 32)
    model = T.ViTModel.from_pretrained(toy / "base", add_pooling_layer=False).eval()
    made = Study(model, pixels, output=lambda out: out.last_hidden_state[:, 0], folder=tmp_path, progress=False,
                 task="divergence")  # fmt: skip
    assert made.check().reads == (0,)

    def tokens(out: object) -> Tensor:
        return out.last_hidden_state[0]

    with pytest.raises(ValueError, match="output= gives"):
        Study(model, pixels, output=tokens, folder=tmp_path)


def test_seconds_of_parts_leave_out_the_parts_that_these_ask_for(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts add up to no more than the whole, also where a part is computed inside of another."""
    made = Study(toy / "tuned", torch.rand(4, 3, 32, 32), folder=tmp_path, progress=False, task="divergence")
    clock = iter([0.0, 1.0, 4.0, 10.0, 20.0, 25.0])
    monkeypatch.setattr("vitmech_utils.study.time.perf_counter", lambda: next(clock))
    with made._timed("pruning"), made._timed("effects"):
        pass
    with made._timed("effects"):
        pass
    assert made.timings == {"pruning": 7.0, "effects": 8.0}


def test_the_commands_check_and_study(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["check", str(toy / "tuned"), str(toy / "val")]) == 0
    assert "ablation verified; maps verified" in capsys.readouterr().out
    asked = ["study", str(toy / "tuned"), str(toy / "val"), "--labels", "folders", "--limit", "6", "--out",
             str(tmp_path / "out"), "--masks", str(toy / "masks"), "--regions", "1=object"]  # fmt: skip
    assert main(asked) == 0
    told = capsys.readouterr().out
    assert "this will take about" in told
    assert (tmp_path / "out" / "report.html").is_file()
    assert main([*asked, "--regions", "object"]) == 1
    assert "expected such as 1=object" in capsys.readouterr().err
    assert main(["check", str(tmp_path / "nowhere"), str(toy / "val")]) == 1
    assert main(["study", str(toy / "tuned"), str(toy / "val" / "disk"), "--labels", "folders"]) == 1
    assert "holds no folders" in capsys.readouterr().err
