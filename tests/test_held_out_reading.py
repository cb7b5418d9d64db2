"""Answers that lie beside an adapter are believed only where computing some of them anew gives the same."""

from pathlib import Path

import numpy as np
import pytest

from vitmech_utils.data.dataset import ChirpDataset
from vitmech_utils.model import scores
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.model.scores import predict_dataset, read_held_out, save_answers


@pytest.fixture(scope="module")
def model() -> ChirpRegressor:
    return ChirpRegressor.tiny(seed=0, layers=2, heads=2).eval()


@pytest.fixture(scope="module")
def images() -> ChirpDataset:
    return ChirpDataset(6, seed=0, split="held-out")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "LOOKED_AT", 2)


def kept(folder: Path, model: ChirpRegressor, images: ChirpDataset, **changes: float) -> np.ndarray:
    """Keep answers that tell from computed ones in what is not looked at, and change what is."""
    answers, labels = (array.copy() for array in predict_dataset(model, images))
    answers[2:] += 7.0
    answers[0] += changes.get("answer", 0.0)
    labels[1] += changes.get("label", 0.0)
    save_answers(folder, answers, labels)
    return answers


@pytest.mark.usefixtures("few")
class TestReading:
    def test_answers_that_agree_are_taken_over(self, tmp_path, model, images) -> None:
        answers = kept(tmp_path, model, images, answer=1e-4)
        assert np.array_equal(read_held_out(model, images, tmp_path)["predictions"], answers)

    def test_more_are_kept_than_are_asked_for(self, tmp_path, model, images) -> None:
        answers = kept(tmp_path, model, images)
        fewer = ChirpDataset(4, seed=0, split="held-out")
        assert np.array_equal(read_held_out(model, fewer, tmp_path)["predictions"], answers[:4])

    @pytest.mark.parametrize("changes", [{"answer": 0.01}, {"label": 1e-6}], ids=["answers", "labels"])
    def test_others_are_computed_anew(self, tmp_path, model, images, changes) -> None:
        kept(tmp_path, model, images, **changes)
        found, computed = read_held_out(model, images, tmp_path), predict_dataset(model, images)
        assert np.array_equal(found["predictions"], computed[0])
        assert np.array_equal(found["labels"], computed[1])

    def test_fewer_than_are_asked_for_are_not_enough(self, tmp_path, model, images) -> None:
        kept(tmp_path, model, ChirpDataset(4, seed=0, split="held-out"))
        assert np.array_equal(
            read_held_out(model, images, tmp_path)["predictions"], predict_dataset(model, images)[0]
        )

    def test_without_a_folder_or_its_answers_all_are_computed(self, tmp_path, model, images) -> None:
        computed = predict_dataset(model, images)[0]
        for folder in (None, tmp_path):
            assert np.array_equal(read_held_out(model, images, folder)["predictions"], computed)
