"""Recoveries that are kept: read back exactly, refused where they do not belong, and how chapter 08 holds them."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from vitmech_utils.data.dataset import ChirpDataset
from vitmech_utils.heads.pruning import prune_heads, recovering
from vitmech_utils.heads.recoveries import belongs, load_recovery, read_recovery, save_recovery
from vitmech_utils.model.adapter_files import AdapterError
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.model.scores import ANSWERS, LOOKED_AT, kept_reading, save_answers
from vitmech_utils.profiles import load_profile
from vitmech_utils.recoveries import answer
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.pruning import judge, measure, plots, whole_loss
from vitmech_utils.studies.verdicts import Judgement

GONE = [(0, 0), (0, 1), (1, 1)]
PIXELS = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def whole() -> ChirpRegressor:
    return ChirpRegressor.tiny(layers=2, heads=2).merged()


def trained(whole: ChirpRegressor, gone=GONE) -> ChirpRegressor:
    """As if a recovery had moved every weight that it may move."""
    model = recovering(prune_heads(whole, gone) if gone else whole)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return model.eval()


@pytest.mark.parametrize("gone", [GONE, []])
def test_what_is_kept_comes_back_exactly(whole, tmp_path, gone):
    model = trained(whole, gone)
    folder = save_recovery(model, whole, gone, tmp_path / "kept", {"steps": 3})
    assert read_recovery(folder)["training"] == {"steps": 3}
    assert belongs(folder, whole)
    found = load_recovery(folder, whole)
    assert found.is_merged
    with torch.no_grad():
        expected = model.merged()(PIXELS).logits
        assert torch.equal(found(PIXELS).logits, expected)
        assert (expected - whole(PIXELS).logits).abs().max() > 1e-3


def test_what_does_not_belong_is_refused(whole, tmp_path):
    folder = save_recovery(trained(whole), whole, GONE, tmp_path / "kept")
    other = ChirpRegressor.tiny(seed=1, layers=2, heads=2).merged()
    assert not belongs(folder, other)
    assert not belongs(tmp_path / "nothing", whole)
    with pytest.raises(AdapterError, match="Train one for it"):
        load_recovery(folder, other)
    with pytest.raises(AdapterError, match="no longer exists"):
        save_recovery(trained(whole).merged(), whole, GONE, tmp_path / "merged")
    with pytest.raises(AdapterError, match="would keep"):
        save_recovery(trained(whole), whole, GONE[:1], tmp_path / "others")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "mine.txt").write_text("mine")
    with pytest.raises(AdapterError):
        save_recovery(trained(whole), whole, GONE, tmp_path / "foreign")


def test_damage_is_refused_by_name(whole, tmp_path):
    folder = save_recovery(trained(whole), whole, GONE, tmp_path / "kept")
    weights = load_file(folder / "head.safetensors")
    broken = {name: weight * float("nan") for name, weight in weights.items()}
    save_file(broken, folder / "head.safetensors")
    with pytest.raises(AdapterError, match="not finite"):
        load_recovery(folder, whole)
    record = json.loads((folder / "recovery.json").read_text())
    (folder / "recovery.json").write_text(json.dumps(record | {"heads_gone": [[0, "1"]]}))
    with pytest.raises(AdapterError, match="pairs of layer and head"):
        read_recovery(folder)
    (folder / "head.safetensors").unlink()
    with pytest.raises(AdapterError, match="it lacks head"):
        belongs(folder, whole)


def test_chapter_08_holds_it_against_the_whole_model_trained_as_long(whole, tmp_path):
    labels = np.random.default_rng(0).normal(size=(40, 3))
    unpruned, control, less = (labels + value for value in (1.0, 0.8, 1.2))
    kept = {"layers-1-3": less, "unpruned": control}
    table = whole_loss.long_in_percent(kept, {"predictions": unpruned, "labels": labels}, 50)
    assert table["effect"].item() == pytest.approx(44)
    assert table["effect_control"].item() == pytest.approx(-36)
    assert table["effect_same_training"].item() == pytest.approx(80)
    assert table["images"].item() == 40
    said = plots.long_recovery(table, [{"steps": 2000, "images_visited": 32000}] * 2)
    assert "2,000 steps on 32,000 images" in said
    assert set(judge.OPTIONAL["long_recovery"]) <= set(table)
    folders = measure.recovery_folders(tmp_path, 0)
    assert measure.long_recoveries(whole, folders, ChirpDataset(1)) == {}
    assert measure.recovery_trainings(folders) == []
    assert "python -m vitmech_utils.recoveries" in plots.long_recovery(pd.DataFrame(), [])


def test_its_answers_are_kept_beside_it_and_believed_after_a_look(tmp_path):
    ChirpRegressor.build("tiny").save(tmp_path / "adapter")
    whole = ChirpRegressor.load(tmp_path / "adapter").merged()
    folder = save_recovery(trained(whole), whole, GONE, tmp_path / "kept")
    images = ChirpDataset(LOOKED_AT + 2, seed=0, split="held-out")
    profile = load_profile("quick", {"train.eval_images": len(images)})
    assert answer(profile, tmp_path / "adapter", folder) == folder / ANSWERS
    kept = kept_reading(folder)
    assert measure.long_recoveries(whole, {"kept": folder}, images)["kept"] == pytest.approx(
        kept["predictions"]
    )
    for place in (
        LOOKED_AT + 1,
        0,
    ):  # one that is taken over, one that is computed anew and found to be wrong
        changed = kept["predictions"].copy()
        changed[place] += 1
        save_answers(folder, changed, kept["labels"])
        found = measure.long_recoveries(whole, {"kept": folder}, images)["kept"]
        assert found == pytest.approx(changed if place else kept["predictions"], abs=1e-4)
    save_recovery(trained(whole), whole, GONE, folder)
    assert not (folder / ANSWERS).exists(), "answers of another training"


def test_a_longer_training_goes_on_where_it_was_stopped(whole, tmp_path):
    profile = load_profile("quick", {"pruning.long_recovery_steps": 2, "pruning.recovery_batch": 2})
    recipe = measure.long_recipe(profile)
    once = measure.further_training(whole, GONE, profile, recipe, tmp_path / "checkpoints")
    again = measure.further_training(whole, GONE, profile, recipe, tmp_path / "checkpoints")
    assert once.history["step"].max() == 2
    with torch.no_grad():
        assert torch.equal(once.regressor.eval()(PIXELS).logits, again.regressor.eval()(PIXELS).logits)


def test_the_verdict_tells_the_recovery_that_decides() -> None:
    bounds = {"effect": 50.0, "low": 40.0, "high": 60.0}
    same = {
        f"{name}_same_training": value for name, value in {"effect": 9.0, "low": 8.0, "high": 10.0}.items()
    }
    names = ("early", "early, recovered", "kept")
    table = pd.DataFrame([{"name": name, "images": 64, **bounds, **same} for name in names])
    judgement = Judgement("does not hold", "the error grows")
    speedups, keeping = {1: Interval(1.1, 1.0, 1.2)}, pd.Series([1e9, -1e9])
    short = plots.verdict(judgement, table, pd.DataFrame(), "early", speedups, 18, "kept", keeping)
    assert "after recovery by +9.0 % [+8.0, +10.0]" in short
    longer = pd.DataFrame([{"images": 500, **bounds, **{name: value / 3 for name, value in same.items()}}])
    long = plots.verdict(judgement, table, longer, "early", speedups, 18, "kept", keeping)
    assert "after the longer one by +3.0 % [+2.7, +3.3], and by +50.0 % [+40.0, +60.0] against" in long
    assert "(on 500 images)" in long
    assert (
        "the error changes by +50.0 % [+40.0, +60.0], and of 2 random sets that keep theirs 1 do less harm"
        in long
    )
