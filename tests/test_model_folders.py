"""Folders of models that others wrote: what they say is compared, or refused with the folder's name."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bad_inputs import outcome
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from vitmech_utils.heads.pruning import PruningError, load_pruned, prune_heads, save_pruned
from vitmech_utils.model.backbones import BackboneError, load_backbone, tiny
from vitmech_utils.model.classifier import SweepClassifier
from vitmech_utils.model.lora import AdapterError, LoraSettings
from vitmech_utils.model.regressor import ChirpRegressor, read_training

SETTINGS, CONFIG = "regressor.json", "adapter_config.json"
ADAPTER, HEAD = "adapter_model.safetensors", "head.safetensors"
NO_OBJECTS = ("", "[]", "{}", "null", "[" * 100_000)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**6) | st.floats(-2, 2) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    regressor = ChirpRegressor.build("tiny")
    with torch.no_grad():
        for name, weight in regressor.named_parameters():
            if "lora_" in name:
                weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    return regressor.save(tmp_path_factory.mktemp("good") / "adapter", training={"steps": 3})


@pytest.fixture(scope="module")
def told_by_good(good: Path, pixels: Tensor) -> Tensor:
    return predictions(ChirpRegressor.load(good), pixels)


def predictions(model: torch.nn.Module, pixels: Tensor) -> Tensor:
    with torch.inference_mode():
        return model(pixels).logits


def changed(good: Path, place: Path, change: Callable[[Path], object]) -> Path:
    shutil.copytree(good, place)
    change(place)
    return place


def edit(name: str, **values: object) -> Callable[[Path], object]:
    """Change keys of a JSON file; `...` takes a key away."""

    def change(folder: Path) -> None:
        found = {**json.loads((folder / name).read_text()), **values}
        kept = {key: value for key, value in found.items() if value is not ...}
        (folder / name).write_text(json.dumps(kept))

    return change


def reweigh(name: str, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Callable[[Path], object]:
    return lambda folder: save_file(change(load_file(folder / name)), folder / name)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("r", 4),
        ("lora_alpha", 64),
        ("lora_alpha", True),
        ("lora_dropout", 0.5),
        ("use_rslora", True),
        ("use_dora", True),
        ("alpha_pattern", {".*": 1}),
        ("rank_pattern", {"q_proj": 2}),
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", "olora"),
        ("init_lora_weights", False),
        ("target_modules", ["q_proj"]),
        ("target_modules", ".*q_proj"),
        ("target_modules", "("),
        ("target_parameters", ["x"]),
        ("modules_to_save", ["layernorm"]),
        ("layers_to_transform", [0]),
        ("layer_replication", [[0, 2]]),
        ("bias", "all"),
        ("bias", "x"),
        ("fan_in_fan_out", True),
        ("peft_type", "IA3"),
        ("peft_type", "NEW"),
        ("task_type", "SEQ_CLS"),
        ("a_setting_to_come", True),
        ("r", ...),
        ("lora_alpha", ...),
        ("target_modules", ...),
    ],
)
def test_a_peft_configuration_that_is_not_the_recorded_one_is_refused(
    good: Path, tmp_path: Path, key: str, value: object
) -> None:
    folder = changed(good, tmp_path / "bad", edit(CONFIG, **{key: value}))
    with pytest.raises(AdapterError, match=key) as error:
        ChirpRegressor.load(folder)
    assert f"{folder / CONFIG}: " in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        edit(CONFIG, peft_version="0.1", base_model_name_or_path="elsewhere", revision="main"),
        edit(CONFIG, megatron_core=..., velora_config=..., use_qalora=...),  # of an older peft
        edit(CONFIG, a_setting_to_come=None, another={}),  # of a newer one, switched off
        edit(SETTINGS, versions={"torch": "1.0"}),
        edit(SETTINGS, task=...),  # what the first adapters did not tell
        lambda folder: (folder / "README.md").write_text("mine"),
    ],
)
def test_what_changes_nothing_is_no_matter(
    good: Path, tmp_path: Path, pixels: Tensor, told_by_good: Tensor, change: Callable[[Path], object]
) -> None:
    folder = changed(good, tmp_path / "same", change)
    assert torch.equal(predictions(ChirpRegressor.load(folder), pixels), told_by_good)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (edit(SETTINGS, backbone_fingerprint=...), "backbone_fingerprint"),
        (edit(SETTINGS, backbone_fingerprint=None), "backbone_fingerprint"),
        (edit(SETTINGS, backbone_fingerprint="abc"), "64 hex digits"),
        (edit(SETTINGS, backbone_fingerprint="0" * 64), "was trained on backbone 'tiny'"),
        (edit(SETTINGS, backbone=None), "backbone is None"),
        (edit(SETTINGS, backbone="./nowhere"), "could not be loaded"),
        (edit(SETTINGS, backbone="a\0b"), "backbone is"),
        (edit(SETTINGS, labels=["end_freq", "start_freq", "start_time"]), "labels is"),
        (edit(SETTINGS, label_std=[1, 1, 1]), "label_std is"),
        (edit(SETTINGS, label_mean=[22.5, 50.0]), "label_mean is"),
        (edit(SETTINGS, image_size=448), "image_size is 448"),
        (edit(SETTINGS, image_size=True), "image_size is True"),
        (edit(SETTINGS, task="classification"), "trained for classification"),
        (edit(SETTINGS, lora={}), "lora is {}"),
        (edit(SETTINGS, lora={"r": 8, "alpha": 16}), "lora has"),
        (edit(SETTINGS, lora={"r": 0, "alpha": 16, "dropout": 0.1}), "r is 0"),
        (edit(SETTINGS, lora={"r": 10**9, "alpha": 16, "dropout": 0.1}), "expected a whole number from 1"),
        (edit(SETTINGS, lora={"r": 4, "alpha": 16, "dropout": 0.1}), "r is 8, expected 4"),
        (edit(SETTINGS, lora={"r": 8, "alpha": 32, "dropout": 0.1}), "lora_alpha is 16, expected 32"),
        (reweigh(HEAD, lambda all: {k: v * float("nan") for k, v in all.items()}), "not finite"),
        (reweigh(ADAPTER, lambda all: {k: v / 0 for k, v in all.items()}), "not finite"),
        (reweigh(HEAD, lambda all: {k: (v * 100).to(torch.int8) for k, v in all.items()}), "torch.int8"),
        (reweigh(HEAD, lambda all: {k: v[:1].clone() for k, v in all.items()}), "has shape"),
        (reweigh(ADAPTER, lambda all: {k: v.T.contiguous() for k, v in all.items()}), "has shape"),
        (reweigh(HEAD, lambda all: {**all, "more": torch.ones(1)}), "have no counterpart"),
        (reweigh(HEAD, lambda all: {"0.weight": all["0.weight"]}), "weights are missing"),
        (lambda folder: (folder / HEAD).write_bytes((folder / HEAD).read_bytes()[:-5]), "damaged adapter"),
        (lambda folder: (folder / ADAPTER).write_bytes(b"\xff" * 64), "damaged adapter"),
        (lambda folder: (folder / ADAPTER).write_bytes(b""), "damaged adapter"),
        *((lambda folder, name=name, text=text: (folder / name).write_text(text), name)
          for name in (SETTINGS, CONFIG)
          for text in (*NO_OBJECTS, '{"r": NaN}', '{"r": 8, "r": 8}', "9" * 5000, "x" * 2**21)),
    ],
)  # fmt: skip
def test_a_damaged_or_disagreeing_adapter_is_refused_with_its_folder(
    good: Path, tmp_path: Path, change: Callable[[Path], object], told: str
) -> None:
    folder = changed(good, tmp_path / "bad", change)
    _, words = outcome(lambda: ChirpRegressor.load(folder), AdapterError, BackboneError)
    assert words is not None
    assert str(folder) in words
    assert told in words
    assert len(words) < 1000


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_adapter_is_the_same_or_refused_with_its_folder(
    good: Path,
    pixels: Tensor,
    told_by_good: Tensor,
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
) -> None:
    name = data.draw(st.sampled_from([SETTINGS, CONFIG, ADAPTER, HEAD]))

    def change(folder: Path) -> None:
        path = folder / name
        if name.endswith(".json") and data.draw(st.booleans()):
            keys = sorted(json.loads(path.read_text()))
            edit(name, **{data.draw(st.sampled_from(keys)): data.draw(JSON)})(folder)
            return
        content = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, min(len(content), 4000) - 1))
        kind = data.draw(st.sampled_from(["byte", "cut", "insert"]))
        if kind == "byte":
            content[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del content[at:]
        else:
            content[at:at] = data.draw(st.binary(max_size=9))
        path.write_bytes(content)

    folder = changed(good, tmp_path_factory.mktemp("any") / "adapter", change)
    model, told = outcome(lambda: ChirpRegressor.load(folder), AdapterError, BackboneError)
    if told is not None:
        assert str(folder) in told
        return
    with torch.inference_mode():
        now = model(pixels).logits
    # A weight or two may be another one: no file tells what they were. Whatever settings say leaves predictions alone.
    assert torch.isfinite(now).all()
    assert name in (ADAPTER, HEAD) or torch.equal(now, told_by_good)


def test_records_of_a_training_are_read_as_strictly(good: Path, tmp_path: Path) -> None:
    assert read_training(good) == {"steps": 3}
    history = changed(
        good, tmp_path / "history", lambda folder: (folder / "training.json").write_text('{"loss": NaN}')
    )
    assert math.isnan(read_training(history)["loss"])  # what was not taken at a step
    for text in ("{", "[]", '{"a": 1, "a": 2}', '{"loss": Infinity}', "\xff"):
        folder = changed(
            good,
            tmp_path / str(len(text)) / text[:1].encode().hex(),
            lambda folder, text=text: (folder / "training.json").write_text(text, encoding="latin-1"),
        )
        with pytest.raises(AdapterError, match=r"training\.json"):
            read_training(folder)
        shutil.rmtree(folder)


def test_what_load_refuses_is_not_saved_either(tmp_path: Path) -> None:
    regressor = ChirpRegressor.build(tiny(layers=1, heads=2))
    with torch.no_grad():
        regressor.head[0].bias[3] = float("inf")
    with pytest.raises(AdapterError, match=r"0\.bias holds values that are not finite"):
        regressor.save(tmp_path / "a")
    other = ChirpRegressor.build(tiny(layers=1, heads=2))
    other.backbone.peft_config["default"].use_rslora = True
    with pytest.raises(AdapterError, match="use_rslora is True, expected False"):
        other.save(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_classifier_s_settings_are_compared_as_well(tmp_path: Path) -> None:
    folder = SweepClassifier.build("tiny").save(tmp_path / "c")
    SweepClassifier.load(folder)
    edit(SETTINGS, label_one={"type": "linear", "direction": "rising"})(folder)
    with pytest.raises(AdapterError, match="label_one is"):
        SweepClassifier.load(folder)


@pytest.mark.parametrize(
    "wrong",
    [
        {"r": 0},
        {"r": True},
        {"r": 5000},
        {"alpha": 0},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"dropout": float("nan")},
    ],
)
def test_lora_settings_out_of_range_are_refused_by_name(wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"LoRA's {next(iter(wrong))} is"):
        LoraSettings(**wrong)


class TestPruned:
    @pytest.fixture(scope="class")
    @staticmethod
    def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
        whole = ChirpRegressor.tiny(layers=2, heads=3)
        pruned = prune_heads(whole, [(0, 1), (1, 0), (1, 2)])
        return save_pruned(pruned, tmp_path_factory.mktemp("pruned") / "good", origin=whole)

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (edit("pruned.json", kept=...), "kept"),
            (edit("pruned.json", kept=[[0, 2], [1], [0]]), "num_hidden_layers"),
            (edit("pruned.json", kept=[[0, 2], [7]]), "expected heads from 0 to 2"),
            (edit("pruned.json", kept=[[2, 0], [1]]), "in order"),
            (edit("pruned.json", kept=[[0, 2], [True]]), "in layer 1"),
            (edit("pruned.json", kept=[[]] * 5000), "5000 layers"),
            (edit("pruned.json", kept=[[0], [1]]), "do not fit"),
            (edit("pruned.json", heads="3"), "heads"),
            (edit("pruned.json", heads=5), "speaks of 2 layers x 5 heads"),
            (edit("pruned.json", fingerprint=None), "fingerprint"),
            (edit("pruned.json", config=[]), "config"),
            (edit("pruned.json", config={}), "num_hidden_layers"),
            (edit("pruned.json", config={"model_type": "new", "num_hidden_layers": 2}), "describes no model"),
            (edit("pruned.json", backbone=3), "backbone"),
            (reweigh("model.safetensors", lambda all: {k: v * float("nan") for k, v in all.items()}), "not finite"),
            (reweigh("model.safetensors", lambda all: {k: v.to(torch.int8) for k, v in all.items()}), "no weights"),
            (reweigh("model.safetensors", lambda all: {k: v + 1 for k, v in all.items()}), "not those that were saved"),
            *((lambda folder, text=text: (folder / "pruned.json").write_text(text), "pruned.json|damaged")
              for text in (*NO_OBJECTS, '{"heads": 1, "heads": 1}')),
        ],
    )  # fmt: skip
    def test_a_damaged_folder_is_refused_with_its_name(
        self, saved: Path, tmp_path: Path, change: Callable[[Path], object], told: str
    ) -> None:
        folder = changed(saved, tmp_path / "bad", change)
        with pytest.raises(PruningError, match=told) as error:
            load_pruned(folder)
        assert str(folder) in str(error.value)

    def test_a_record_that_asks_for_all_memory_is_refused(self, saved: Path, tmp_path: Path) -> None:
        for number, values in enumerate(
            ({"hidden_size": 30_000}, {"intermediate_size": 10**9}, {"num_hidden_layers": 10**9})
        ):
            config = json.loads((saved / "pruned.json").read_text())["config"] | values
            folder = changed(saved, tmp_path / str(number), edit("pruned.json", config=config))
            with pytest.raises(PruningError, match="describes no model"):
                load_pruned(folder)

    @settings(max_examples=40, deadline=None)
    @given(data=st.data())
    def test_any_record_is_the_same_or_refused(
        self, saved: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        record = json.loads((saved / "pruned.json").read_text())
        top = data.draw(st.booleans())
        keys = sorted(record if top else record["config"])
        value = {data.draw(st.sampled_from(keys)): data.draw(JSON)}
        change = edit("pruned.json", **(value if top else {"config": record["config"] | value}))
        folder = changed(saved, tmp_path_factory.mktemp("any") / "pruned", change)
        model, told = outcome(lambda: load_pruned(folder), PruningError)
        assert model is not None if told is None else str(folder) in told


@pytest.mark.parametrize(
    "config",
    ["", "[]", "{}", '{"model_type": "vit", "hidden_size": "x"}', '{"model_type": "vit", "hidden_size": 10000000}',
     '{"model_type": "vit", "num_hidden_layers": 1000000000}', '{"model_type": "vit", "num_attention_heads": 0}',
     '{"model_type": ["vit"]}', '{"model_type": "new"}', "[" * 100_000, '{"model_type": "vit", "model_type": "vit"}'],
)  # fmt: skip
def test_a_backbone_s_folder_that_is_none_is_refused_in_a_sentence(tmp_path: Path, config: str) -> None:
    tiny(layers=1, heads=2).save_pretrained(tmp_path / "b")
    (tmp_path / "b" / "config.json").write_text(config)
    with pytest.raises(BackboneError, match="this local folder could not be loaded") as error:
        load_backbone(str(tmp_path / "b"))
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("name", [None, 3, "", "a\0b", "x" * 5000, b"tiny", ["tiny"]])
def test_what_names_no_backbone_is_refused(name: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BackboneError, match="backbone"):
        load_backbone(name)
