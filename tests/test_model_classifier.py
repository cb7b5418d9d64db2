"""The other task: labels of sweeps, titles that tell or lie, a classifier that is saved, trained and told apart."""

import math

import numpy as np
import pytest
import torch

from vitmech_utils.data.chirps import Chirp
from vitmech_utils.data.dataset import ChirpDataset
from vitmech_utils.data.regions import REGIONS
from vitmech_utils.data.sweep_labels import TITLES, SweepDataset, bend, sweep_labels
from vitmech_utils.heads.pruning import PruningError, load_pruned, prune_heads, recovering, save_pruned
from vitmech_utils.model.classifier import SweepClassifier, accuracies, fine_tune_classifier, start_head
from vitmech_utils.model.regressor import AdapterError, ChirpRegressor
from vitmech_utils.profiles import load_profile


@pytest.fixture(scope="module")
def pixels():
    return torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def test_labels_tell_type_and_direction():
    assert sweep_labels(Chirp(1.0, 20.0, 60.0, 10.0, "exponential")).tolist() == [1, 1]
    assert sweep_labels(Chirp(1.0, 60.0, 20.0, 10.0, "linear")).tolist() == [0, 0]
    dataset = SweepDataset(60, seed=3)
    labels = np.stack([dataset[i]["labels"].numpy() for i in range(4)])
    assert labels.dtype == np.float32
    chirps = [dataset.chirp(i) for i in range(60)]
    assert labels.tolist() == [
        [float(c.sweep == "exponential"), float(c.end_freq > c.start_freq)] for c in chirps[:4]
    ]
    shares = np.mean([sweep_labels(c) for c in chirps], axis=0)
    assert ((shares > 0.3) & (shares < 0.7)).all()


def test_a_bend_is_the_farthest_distance_of_both_paths():
    chirp = Chirp(0.0, 10.0, 90.0, 20.0, "linear")
    low, high, count = int(10 * 1.28), int(90 * 1.28), int(20 * 128 / 60)
    steps = np.arange(count) / count
    expected = np.abs(low + (high - low) * steps - low * (high / low) ** steps).max()
    assert math.isclose(bend(chirp), expected, rel_tol=1e-9)
    assert math.isclose(bend(Chirp(0.0, 10.0, 90.0, 20.0, "exponential")), expected, rel_tol=1e-9)
    assert bend(Chirp(0.0, 50.0, 50.2, 20.0, "linear")) == 0


@pytest.mark.parametrize("title", TITLES)
def test_titles_tell_lie_or_are_missing(title):
    dataset, published = SweepDataset(8, title, seed=1), ChirpDataset(8, seed=1)
    for i in range(8):
        sweep, other = published.chirp(i).sweep, {"linear": "exponential", "exponential": "linear"}
        expected = {
            "published": published.title(i),
            "none": "",
            "plain": "Synthetic Spectrogram",
            "swapped": f"Synthetic Spectrogram {i + 1} ({other[sweep]} chirp)",
            "other number": f"Synthetic Spectrogram {i + 1 + 7919} ({sweep} chirp)",
        }
        assert dataset.title(i) == expected[title]
    assert dataset.settings()["title"] == title


def test_twins_differ_in_the_title_alone():
    ours, theirs = SweepDataset(1, "swapped", seed=1)[0], ChirpDataset(1, seed=1)[0]
    differ = (ours["pixel_values"] != theirs["pixel_values"]).any(0)
    assert differ.any()
    rows = (theirs["regions"] == REGIONS.index("title")).any(1).nonzero().flatten()
    assert differ.any(1).nonzero().min() >= rows.min() - 2
    assert differ.any(1).nonzero().max() <= rows.max() + 2


def test_an_unknown_title_is_refused():
    with pytest.raises(ValueError, match=r"title is 'honest', expected one of published, none"):
        SweepDataset(3, "honest")


def test_the_loss_is_binary_cross_entropy(pixels):
    model = SweepClassifier.build("tiny", seed=1)
    labels = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    with torch.inference_mode():
        output = model(pixels, labels)
    told = torch.sigmoid(output.logits)
    expected = -(labels * told.log() + (1 - labels) * (1 - told).log()).mean()
    assert output.logits.shape == (2, 2)
    assert torch.isclose(output.loss, expected, atol=1e-6)


def test_accuracies_count_signs():
    logits, labels = np.array([[2.0, -1.0], [-0.1, 3.0]]), np.array([[1.0, 0.0], [1.0, 1.0]])
    assert accuracies(logits, labels) == {"accuracy_type": 0.5, "accuracy_direction": 1.0}


def test_a_classifier_saved_and_loaded_is_the_same_and_no_regressor(pixels, tmp_path):
    model = SweepClassifier.build("tiny", seed=2)
    folder = model.save(tmp_path / "classifier")
    again = SweepClassifier.load(folder)
    with torch.inference_mode():
        assert torch.equal(again(pixels).logits, model(pixels).logits)
    assert isinstance(again.merged(), SweepClassifier)
    with pytest.raises(
        AdapterError, match=r"trained for classification, and a ChirpRegressor is for regression"
    ):
        ChirpRegressor.load(folder)
    regressor = ChirpRegressor.build("tiny").save(tmp_path / "regressor")
    with pytest.raises(
        AdapterError, match=r"trained for regression, and a SweepClassifier is for classification"
    ):
        SweepClassifier.load(regressor)


def test_a_pruned_classifier_comes_back_onto_its_origin(pixels, tmp_path):
    model = SweepClassifier.build("tiny", seed=2).merged()
    pruned = prune_heads(model, {(0, 1), (3, 2)})
    folder = save_pruned(pruned, tmp_path / "pruned", origin=model)
    with pytest.raises(PruningError, match="expected its unpruned model as `origin`"):
        load_pruned(folder)
    again = load_pruned(folder, origin=model)
    with torch.inference_mode():
        assert torch.equal(again(pixels).logits, pruned(pixels).logits)
        assert torch.allclose(recovering(pruned)(pixels).logits, pruned(pixels).logits, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_both_classifiers_see_the_same_chirps_and_are_judged(tmp_path, precision):
    values = {"task.steps": 2, "task.batch_size": 2, "task.every": 1, "task.images": 4, "backbone": "tiny"}
    profile = load_profile("quick", {**values, "train.precision": precision})
    for title in ("published", "none"):
        training = fine_tune_classifier(profile, 0, title, tmp_path / title, "cpu")
        assert isinstance(training.regressor, SweepClassifier)
        assert {"held_out_loss", "accuracy_type", "accuracy_direction"} <= set(training.history)
        assert training.history["accuracy_direction"].dropna().between(0, 1).all()


def test_a_head_finds_what_frozen_tokens_tell():
    class Bright(torch.utils.data.Dataset):
        """Images whose brightness and colour are the two labels."""

        def __len__(self):
            return 24

        def __getitem__(self, i):
            first, second = float(i % 2), float(i // 2 % 2)
            pixels = torch.full((3, 224, 224), 0.2 + 0.6 * first)
            pixels[0] += 0.2 * second
            return {"pixel_values": pixels, "labels": torch.tensor([first, second])}

    model = SweepClassifier.build("tiny", seed=4)
    backbone = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    start_head(model, Bright(), seed=1)
    again = SweepClassifier.build("tiny", seed=4)
    start_head(again, Bright(), seed=1)
    images = torch.stack([Bright()[i]["pixel_values"] for i in range(4)])
    with torch.inference_mode():
        told = model(images).logits
        assert torch.equal(told, again(images).logits)
    assert ((told > 0) == torch.tensor([[False, False], [True, False], [False, True], [True, True]])).all()
    assert all(torch.equal(value, backbone[name]) for name, value in model.backbone.state_dict().items())
