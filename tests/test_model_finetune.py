"""Fine-tuning: it learns, resumes to the same bytes, and is scored by known formulas."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset
from transformers.trainer_pt_utils import safe_globals

from vitmech_utils.artefacts import folder_hashes, write_json
from vitmech_utils.data.dataset import ChirpDataset
from vitmech_utils.model import finetune
from vitmech_utils.model.finetune import Recipe, fine_tune, fine_tune_profile
from vitmech_utils.model.regressor import ChirpRegressor, Prediction
from vitmech_utils.model.scores import correlations, predict_dataset, score
from vitmech_utils.profiles import load_profile


class Stripes(Dataset):
    """Images whose three colour channels carry the three labels as brightness: an easy task of known answer."""

    def __init__(self, size, seed):
        self.labels = torch.randn(size, 3, generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        pixels = (0.5 + 0.15 * self.labels[i])[:, None, None].expand(3, 224, 224).contiguous()
        return {
            "pixel_values": pixels,
            "labels": self.labels[i],
            "regions": torch.zeros(224, 224, dtype=torch.uint8),
        }


class KilledError(Exception):
    """What ends a training that reads `Breaking`."""


class Breaking(Stripes):
    """Stripes that end a training by `RECIPE` in the middle of step 7, after the checkpoint of step 4."""

    visits = 0

    def __getitem__(self, i):
        self.visits += 1
        if self.visits > 7 * 6:
            raise KilledError
        return super().__getitem__(i)


RECIPE = Recipe(steps=12, batch_size=7, every=4, learning_rate=3e-3, warmup_steps=1, precision="float32")
both_precisions = pytest.mark.parametrize("precision", ["float32", "bfloat16"])


def weights(regressor):
    return {name: p.detach().clone() for name, p in regressor.named_parameters() if p.requires_grad}


@both_precisions
def test_training_lowers_the_held_out_loss_and_leaves_the_backbone_alone(tmp_path, precision):
    regressor, recipe = ChirpRegressor.build("tiny"), replace(RECIPE, precision=precision)
    frozen = {n: p.clone() for n, p in regressor.named_parameters() if not p.requires_grad}
    training = fine_tune(regressor, Stripes(84, 0), Stripes(21, 1), recipe, tmp_path / "checkpoints")
    losses = training.history["held_out_loss"].dropna()
    assert losses.iloc[-1] < 0.9 * losses.iloc[0]
    assert list(training.history.loc[training.history["held_out_loss"].notna(), "step"]) == [4, 8, 12]
    assert all(torch.equal(p, frozen[n]) for n, p in training.regressor.named_parameters() if n in frozen)


@both_precisions
def test_a_trained_regressor_predicts_in_float32_and_its_copies_by_themselves(tmp_path, precision):
    recipe = replace(RECIPE, precision=precision)
    trained = fine_tune(
        ChirpRegressor.build("tiny"), Stripes(84, 0), Stripes(7, 1), recipe, tmp_path
    ).regressor
    images = torch.stack([Stripes(5, 2)[i]["pixel_values"] for i in range(5)])
    with torch.inference_mode():
        read = trained(images).logits
        assert torch.equal(read, ChirpRegressor.load(trained.save(tmp_path / "adapter"))(images).logits)
        assert torch.allclose(read, trained.merged()(images).logits, atol=1e-5)
        assert not torch.allclose(read, trained.without_adapter()(images).logits, atol=1e-3)


@both_precisions
def test_killed_training_resumes_to_the_same_weights(tmp_path, precision):
    whole, recipe = ChirpRegressor.build("tiny"), replace(RECIPE, precision=precision)
    fine_tune(whole, Stripes(84, 0), Stripes(21, 1), recipe, tmp_path / "whole")

    with pytest.raises(KilledError):
        fine_tune(ChirpRegressor.build("tiny"), Breaking(84, 0), Stripes(21, 1), recipe, tmp_path / "parts")
    for start in (5, 6):  # the first goes on from step 4, the second finds the training finished
        resumed = ChirpRegressor.build(
            "tiny", seed=start
        )  # its weights must come from the checkpoint, not from here
        training = fine_tune(resumed, Stripes(84, 0), Stripes(21, 1), recipe, tmp_path / "parts")
        for name, weight in weights(whole).items():
            assert torch.equal(weights(resumed)[name], weight), name
        assert list(training.history.loc[training.history["held_out_loss"].notna(), "step"]) == [4, 8, 12]
    before = json.loads((tmp_path / "parts" / "checkpoint-12" / "elapsed.json").read_text())["seconds"]
    assert training.seconds > before > 0


def test_a_checkpoint_holds_tensors_and_plain_values_and_is_open_to_the_umask(tmp_path):
    fine_tune(ChirpRegressor.build("tiny"), Stripes(84, 0), Stripes(21, 1), RECIPE, tmp_path)
    found = [path for path in (tmp_path / "checkpoint-12").iterdir() if path.is_file()]
    assert {path.suffix for path in found} == {".safetensors", ".json", ".pt", ".pth"}
    for path in found:
        if path.suffix in (".pt", ".pth"):  # else it would hold other objects than these
            with safe_globals():
                torch.load(path, weights_only=True)
    plain = tmp_path / "plain"
    plain.touch()
    assert {path.stat().st_mode for path in found} == {plain.stat().st_mode}


SHORT = {
    "backbone": "tiny",
    "train.images": 24,
    "train.batch_size": 4,
    "train.every": 2,
    "train.eval_images": 4,
}


@both_precisions
def test_a_restart_begins_the_schedule_again_on_images_not_seen_yet(tmp_path, monkeypatch, precision):
    short = {**SHORT, "train.precision": precision}
    asked = []

    class Noted(ChirpDataset):
        def __getitem__(self, index):
            if self.split == "train":
                asked.append(index)
            return super().__getitem__(index)

    monkeypatch.setattr(finetune, "ChirpDataset", Noted)
    profile = load_profile("quick", {**short, "train.steps": 6, "train.restart": 4})
    training = fine_tune_profile(profile, 0, tmp_path / "whole", "cpu")
    assert sorted(asked[:16]) == list(range(16))
    assert sorted(asked[16:24]) == list(range(16, 24))
    history = training.history
    assert list(history.loc[history["held_out_loss"].notna(), "step"]) == [2, 4, 6]
    rates = history.set_index("step")["learning_rate"]
    assert rates[4] < rates[6]
    assert training.seconds > 0

    first = load_profile("quick", {**short, "train.images": 16, "train.steps": 4})
    alone = fine_tune_profile(first, 0, tmp_path / "first", "cpu")
    cycle = ChirpRegressor.build(
        "tiny"
    )  # the checkpoint of the first cycle is what a training without restart gives
    recipe = Recipe(4, 4, every=2, precision=precision)
    fine_tune(cycle, Stripes(16, 0), Stripes(4, 1), recipe, tmp_path / "whole" / "from-step-0")
    for name, weight in weights(alone.regressor).items():
        assert torch.equal(weights(cycle)[name], weight), name

    del asked[:]
    again = fine_tune_profile(profile, 0, tmp_path / "whole", "cpu")  # both cycles are found finished
    assert not asked
    for name, weight in weights(training.regressor).items():
        assert torch.equal(weights(again.regressor)[name], weight), name


@both_precisions
def test_a_training_too_short_for_its_restart_has_none(tmp_path, precision):
    profile = load_profile(
        "quick", {**SHORT, "train.precision": precision, "train.steps": 2, "train.restart": 4}
    )
    assert list(fine_tune_profile(profile, 0, tmp_path, "cpu").history["step"]) == [1, 2]
    assert not list(tmp_path.glob("from-step-*"))


def test_a_prediction_is_made_anew_from_a_mapping_of_its_parts():
    loss, logits = torch.tensor(2.0), torch.ones(5, 3)
    for parts in ({"loss": loss, "logits": logits}, {"logits": logits}):
        again = Prediction(parts)
        assert list(again) == list(parts)
        assert all(again[name] is value for name, value in parts.items())
        assert again.loss is parts.get("loss")


def test_merged_regressor_is_not_trainable(tmp_path):
    with pytest.raises(ValueError, match="merged"):
        fine_tune(ChirpRegressor.tiny(), Stripes(7, 0), Stripes(7, 1), RECIPE, tmp_path)


def test_predictions_do_not_depend_on_the_batch():
    regressor = ChirpRegressor.tiny()
    one, labels = predict_dataset(regressor, Stripes(5, 0), batch_size=1)
    two, _ = predict_dataset(regressor, Stripes(5, 0), batch_size=3)
    assert one.shape == labels.shape == (5, 3)
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_score_knows_a_perfect_and_a_constant_prediction():
    labels = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    shifted = labels + np.array([0.0, 1.0, 0.0], dtype=np.float32)
    table = score(shifted, labels).set_index("target")
    assert table.loc["start_freq", "r"] == pytest.approx(1.0)
    assert table.loc["start_freq", "mse"] == pytest.approx(1.0)
    assert table.loc["start_freq", "rmse"] == pytest.approx(100 / 12**0.5, rel=1e-4)
    assert table.loc["start_time", "mse"] == 0
    assert (table["images"] == 50).all()
    assert correlations(np.ones((50, 3)), labels) == {"r_start_time": 0, "r_start_freq": 0, "r_end_freq": 0}


def test_scores_know_any_number_of_targets_by_their_names_and_units():
    rng = np.random.default_rng(0)
    labels = rng.normal(size=(40, 7))
    said = labels + 0.1 * rng.normal(size=(40, 7))
    targets = {f"angle {place}": (float(place + 1), "degrees") for place in range(7)}
    table = score(said, labels, bootstrap=50, targets=targets).set_index("target")
    assert list(table.index) == list(targets)
    for place, (name, (spread, _)) in enumerate(targets.items()):
        assert table.loc[name, "r"] == pytest.approx(np.corrcoef(said[:, place], labels[:, place])[0, 1])
        rmse = spread * np.sqrt(((said[:, place] - labels[:, place]) ** 2).mean())
        assert table.loc[name, "rmse"] == pytest.approx(rmse)
    assert (table["unit"] == "degrees").all()
    assert list(correlations(said[:, :1], labels[:, :1], ["angle"])) == ["r_angle"]
    with pytest.raises(ValueError, match=r"shape \(40, 7\).*one column for each of start_time"):
        score(said, labels)


def test_study_recipe_has_the_published_numbers():
    recipe = Recipe.study()
    assert (recipe.learning_rate, recipe.batch_size, recipe.patience) == (1e-4, 32, 4)
    assert recipe.schedule == "reduce_lr_on_plateau"
    assert (recipe.steps, recipe.every) == (250_000, 2_500)


def whole_checkpoint(folder: Path, step: int, best: int | None = None) -> Path:
    """A checkpoint in miniature, its last file written last."""
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"weights of step %d" % step)
    chosen = f"elsewhere/checkpoint-{best}" if best else None
    (path / "trainer_state.json").write_text(json.dumps({"best_model_checkpoint": chosen}))
    write_json(path / finetune.ELAPSED, {"seconds": 1.0, "files": folder_hashes(path)})
    return path


@pytest.mark.parametrize("file", ["model.safetensors", "trainer_state.json", finetune.ELAPSED])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, file: str, damage: str) -> None:
    whole, newer = whole_checkpoint(tmp_path, 9), whole_checkpoint(tmp_path, 10)
    foreign = tmp_path / "checkpoint-old"
    foreign.mkdir()
    assert finetune._last_whole_checkpoint(tmp_path, put_aside=False) == newer
    path = newer / file
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert finetune._last_whole_checkpoint(tmp_path, put_aside=True) == whole
    assert not newer.exists()
    assert foreign.is_dir()


def test_a_checkpoint_whose_best_one_is_damaged_is_not_gone_on_from(tmp_path: Path) -> None:
    first, best = whole_checkpoint(tmp_path, 1), whole_checkpoint(tmp_path, 2)
    whole_checkpoint(tmp_path, 3, best=2)
    (best / "model.safetensors").write_bytes(b"other")
    assert finetune._last_whole_checkpoint(tmp_path, put_aside=True) == first
