"""Adapters side by side: every kind and seed of a profile, resumed where they stopped, scored; and hard images."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from vitmech_utils import adapters
from vitmech_utils.data.chirps import HARD_DURATIONS, LABEL_NAMES
from vitmech_utils.data.dataset import ChirpDataset
from vitmech_utils.data.sweep_labels import SweepDataset
from vitmech_utils.data.waveforms import Waveform
from vitmech_utils.model.classifier import SweepClassifier
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.model.scores import correlation_draws, score, unread
from vitmech_utils.profiles import load_profile

TINY = {
    "backbone": "tiny",
    "seeds": "[0, 3]",
    "train.steps": 2,
    "train.batch_size": 2,
    "train.images": 4,
    "train.every": 1,
    "train.eval_images": 5,
    "train.hard_share": 0.5,
    "task.steps": 2,
    "task.batch_size": 2,
    "task.every": 1,
}
OPTIONS = [f"-p{key}={value}" for key, value in TINY.items()]
NAMES = ["bare-seed-0", "classifier-untitled-seed-3"]


def test_a_profile_names_every_kind_and_seed():
    assert list(adapters.adapters(load_profile("quick", {"seeds": [0, 3]}))) == [
        f"{kind}seed-{seed}"
        for seed in (0, 3)
        for kind in ("", "bare-", "classifier-titled-", "classifier-untitled-")
    ]


@pytest.fixture(autouse=True)
def _run_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VITMECH_RUN_DIR", str(tmp_path / "run"))


@pytest.fixture(scope="module")
def two_trained(tmp_path_factory):
    """A folder with two small trainings of different kinds, and the call that made it."""
    folder, kept = (tmp_path_factory.mktemp(name) for name in ("trained", "kept"))
    call = ["--out", str(folder), "--at-once", "2", "--workers", "1", f"--kept={kept}", *OPTIONS]
    call += ["--only", *NAMES]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITMECH_RUN_DIR", str(kept / "run"))
        assert adapters.main(call) == 0
    return folder, call


def test_adapters_are_trained_side_by_side_and_once(two_trained, capsys):
    tmp_path, call = two_trained
    ChirpRegressor.load(tmp_path / NAMES[0])
    SweepClassifier.load(tmp_path / NAMES[1])
    record = json.loads((tmp_path / NAMES[0] / "training.json").read_text())
    assert record["images_visited"] == 4
    assert record["hard_share"] == 0.5
    assert [row["target"] for row in record["score"]] == list(LABEL_NAMES)
    assert record["unread"]["images"] == 5
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert adapters.main(call) == 0
    assert made == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert "2 of 2 adapters" in capsys.readouterr().out


def test_one_that_fails_costs_the_others_nothing(tmp_path, capsys):
    (tmp_path / "seed-0").write_text("in the way")
    names = ["seed-0", "bare-seed-0"]
    assert adapters.main(["--out", str(tmp_path), *OPTIONS, "--only", *names]) == 1
    said = capsys.readouterr().out
    assert "seed-0: failed, " in said
    assert "1 of 2 adapters" in said


def test_unknown_adapters_are_refused(tmp_path, capsys):
    assert adapters.main(["--out", str(tmp_path), "--only", "seed-9"]) == 1
    assert "seed-9: expected some of seed-0, bare-seed-0" in capsys.readouterr().err


def test_hard_images_are_a_share_and_the_others_stay():
    plain, hard = ChirpDataset(400, seed=2), ChirpDataset(400, seed=2, hard_share=0.25)
    chosen = [index for index in range(400) if hard.is_hard(index)]
    assert 0.18 < len(chosen) / 400 < 0.32
    low, high = HARD_DURATIONS
    assert all(low <= hard.chirp(index).duration <= high for index in chosen)
    for index in range(40):
        if index not in chosen:
            assert hard.chirp(index) == plain.chirp(index)
            assert np.array_equal(hard.grid(index), plain.grid(index))
    noisy = [hard.grid(index).std() for index in chosen]
    assert np.mean(noisy) > np.mean([plain.grid(index).std() for index in chosen])
    for index in chosen[:5]:
        assert hard.chirp(index).start_time == plain.chirp(index).start_time
    bare, titled = (
        ChirpDataset(400, seed=2, style="bare", hard_share=0.25),
        SweepDataset(400, "none", seed=2, hard_share=0.25),
    )
    for index in chosen[:3]:
        assert bare.chirp(index) == titled.chirp(index) == hard.chirp(index)
        assert np.array_equal(bare.grid(index), hard.grid(index))
        assert np.array_equal(titled.grid(index), hard.grid(index))
    assert hard.settings()["hard_share"] == 0.25
    assert "hard_share" not in plain.settings()


@pytest.mark.parametrize(
    "wrong",
    [
        {"hard_share": 1.5},
        {"hard_share": 0.1, "split": "held-out"},
        {"hard_share": 0.1, "source": Waveform()},
    ],
)
def test_hard_images_are_for_training_alone(wrong):
    with pytest.raises(ValueError, match="hard_share"):
        ChirpDataset(4, **wrong)


def test_intervals_of_r_come_from_draws_of_the_images():
    rng = np.random.default_rng(0)
    labels = rng.normal(size=(300, 3)).astype(np.float32)
    read = (labels + 0.1 * rng.normal(size=labels.shape)).astype(np.float32)
    read[0] = -3 * labels[0]  # one image that is not read at all
    drawn = correlation_draws(read, labels, 50, seed=1)
    rng = np.random.default_rng(1)
    for row in drawn[:3]:
        chosen = rng.integers(300, size=300)
        expected = [np.corrcoef(read[chosen, i], labels[chosen, i])[0, 1] for i in range(3)]
        np.testing.assert_allclose(row, expected, rtol=1e-6)
    table = score(read, labels, bootstrap=200)
    assert (table["low"] < table["r"]).all()
    assert (table["r"] <= table["high"]).all()
    assert unread(read, labels)[0]
    assert unread(labels, labels).sum() == 0
    assert list(unread(np.full((2, 3), [[0.3], [0.33]]), np.zeros((2, 3)))) == [False, True]


def test_answers_computed_in_bfloat16_are_computed_anew_once(two_trained, tmp_path, capsys):
    names = NAMES
    for name in names:
        shutil.copytree(two_trained[0] / name, tmp_path / name)
    right = {name: load_file(tmp_path / name / "answers.safetensors")["answers"] for name in names}
    for name in names:
        folder = tmp_path / name
        for file in ("score.json", "training.json"):
            told = json.loads((folder / file).read_text())
            (folder / file).write_text(
                json.dumps(told | {"score_precision": "bfloat16", "score": [{"images": 5}]})
            )
        save_file({"answers": right[name] + 1}, folder / "answers.safetensors")
    capsys.readouterr()
    assert adapters.main(["--rescore", str(tmp_path)]) == 0
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == names
    for name in names:
        answers = load_file(tmp_path / name / "answers.safetensors")["answers"]
        np.testing.assert_allclose(answers, right[name], atol=1e-5)
        told, record = (
            json.loads((tmp_path / name / file).read_text()) for file in ("score.json", "training.json")
        )
        assert told["score"] == record["score"]
        assert [row["images"] for row in told["score"]] == [5] * len(told["score"])
        assert record["history"], "the record of the training stays"
        assert (told["score_precision"], record["score_precision"]) == ("float32", "float32")
        assert "Computed in float32" in (tmp_path / name / "README.md").read_text()
    assert adapters.main(["--rescore", str(tmp_path)]) == 0
    assert not capsys.readouterr().out
    assert adapters.main(["--rescore", str(tmp_path), "--only", "seed-9"]) == 1
    assert adapters.main(["--rescore", str(tmp_path / "nothing")]) == 1
