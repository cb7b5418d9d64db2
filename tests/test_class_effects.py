"""Effects in a loss's own unit: against brute force, known answers, and labels that do not fit."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from vitmech_utils.heads.ablation import HeadPredictions, effects, predict_without_heads
from vitmech_utils.heads.effects import ALL, loss_changes
from vitmech_utils.heads.hooks import change_heads
from vitmech_utils.heads.replacements import mean_outputs
from vitmech_utils.model.classifier import SweepClassifier
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.model.scores import cross_entropies, score_classes, told_right, wilson

LABELS = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.rand(3, 3, 224, 224, generator=torch.Generator().manual_seed(0)).double()


@pytest.fixture(scope="module")
def model() -> SweepClassifier:
    return SweepClassifier.build("tiny", seed=3).merged().double()


def made_up(changes: list[list[float]], layers: list[int]) -> HeadPredictions:
    """Logits of one target whose cross-entropies grow by `changes` [head, image], from ln 2 and a label of 1."""
    wanted = np.log(2) + np.array(changes)
    logits = -np.log(np.expm1(wanted))
    count = len(layers)
    return HeadPredictions(
        torch.zeros(wanted.shape[1], 1, dtype=torch.float64),
        torch.from_numpy(logits[..., None]),
        np.array(layers),
        np.arange(count),
        "mean",
        "replay",
        "binary cross-entropy",
        ("type",),
    )


def test_changes_are_those_of_hooks_and_of_the_definition(model, pixels):
    found = loss_changes(
        predict_without_heads(model, pixels, "mean", layers=[2, 11], heads=[0, 5], batch=4), LABELS
    )
    means = mean_outputs(model, pixels)
    loss = nn.BCEWithLogitsLoss(reduction="none")
    truth = LABELS.double()
    with torch.inference_mode():
        before = loss(model(pixels).logits, truth)
        for place, (layer, head) in enumerate(((2, 0), (2, 5), (11, 0), (11, 5))):
            with change_heads(model, {(layer, head): means[layer][:, :, head]}):
                after = loss(model(pixels).logits, truth)
            assert np.allclose(found.changes[place], (after - before).numpy(), atol=1e-8)
    assert np.allclose(found.baseline, before.numpy(), atol=1e-8)
    table = found.by_target(bootstrap=200).set_index(["target", "layer", "head"])
    assert len(table) == 3 * 4
    assert table.loc[("type", 2, 5), "effect"] == pytest.approx(found.changes[1, :, 0].mean())
    assert table.loc[(ALL, 11, 0), "effect"] == pytest.approx(found.changes[2].mean())
    assert (table["images"] == 3).all()
    assert table.loc[("direction", 2, 0), "baseline_loss"] == pytest.approx(before[:, 1].mean().item())


def test_errors_of_a_regressor_are_those_of_the_sweep(pixels):
    model = ChirpRegressor.build("tiny", seed=1).merged().double()
    labels = torch.randn(3, 3, generator=torch.Generator().manual_seed(1))
    predictions = predict_without_heads(model, pixels, "mean", layers=[4], batch=12)
    ours = loss_changes(predictions, labels).by_target(bootstrap=200, seed=5).query("target == 'all'")
    theirs = effects(predictions, labels, bootstrap=200, seed=5)
    assert np.allclose(ours["effect"], theirs["mse"] - theirs["baseline_mse"])
    assert np.allclose(ours["p_value"], theirs["p_value"])
    assert np.allclose(ours["q_value"], theirs["q_value"])


def test_intervals_hold_the_mean_and_p_values_tell_noise_from_effect():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 40)) * 0.1
    found = loss_changes(made_up([(0.3 + noise[0]).tolist(), noise[1].tolist()], [0, 1]), torch.ones(40, 1))
    table = found.by_target(bootstrap=1000).query("target == 'type'")
    assert ((table["low"] < table["effect"]) & (table["effect"] < table["high"])).all()
    for row, values in zip(table.itertuples(), found.of("type"), strict=True):
        error = 1.96 * values.std() / math.sqrt(40)
        assert 1 < (row.high - row.low) / (2 * error) < 1.2  # a little longer: Student's, and padded
    assert table["low"].iloc[0] > 0.2
    assert table["q_value"].iloc[0] < 0.01
    assert table["q_value"].iloc[1] > 0.01
    assert (table["q_value"] >= table["p_value"]).all()


def test_layers_share_the_harm():
    found = loss_changes(made_up([[0.3, 0.3], [0.1, 0.1], [-0.2, -0.2]], [0, 1, 1]), torch.ones(2, 1))
    table = found.by_layer(bootstrap=100).query("target == 'type'")
    assert table["share"].tolist() == pytest.approx([0.75, 0.25])
    assert table["effect"].tolist() == pytest.approx([0.3, -0.05])
    assert table["share_low"].tolist() == pytest.approx([0.75, 0.25])  # both images are alike
    idle = loss_changes(made_up([[-0.1, -0.2], [-0.2, -0.1]], [0, 1]), torch.ones(2, 1))
    assert idle.by_layer(bootstrap=100)["share"].isna().all()


def test_what_does_not_fit_is_refused(model, pixels):
    predictions = predict_without_heads(model, pixels, "zero", layers=[0], heads=[0])
    with pytest.raises(ValueError, match=r"labels hold 0.3, expected 0 or 1 for each target"):
        loss_changes(predictions, torch.full((3, 2), 0.3))
    with pytest.raises(ValueError, match=r"labels has shape \(2, 2\), expected \(3, 2\): one row per image"):
        loss_changes(predictions, LABELS[:2])
    with pytest.raises(ValueError, match=r"labels has shape \(3, 3\), but .* expected labels \(3, 2\)"):
        loss_changes(predictions, torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"predicts 2 target\(s\), expected 3 \(start_time"):
        loss_changes(predictions, torch.zeros(3, 2), ChirpRegressor.task)
    with pytest.raises(ValueError, match="labels: not finite"):
        loss_changes(predictions, LABELS * math.nan)
    with pytest.raises(ValueError, match="target is 'colour', expected all or one of type, direction"):
        loss_changes(predictions, LABELS).of("colour")
    with pytest.raises(ValueError, match="bootstrap is 0"):
        loss_changes(predictions, LABELS).by_target(bootstrap=0)


def test_cross_entropies_are_nats_and_sets_may_stand_in_front():
    logits = torch.tensor([[[0.0, 30.0], [2.0, -1.0]]])
    labels = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    found = cross_entropies(logits, labels)
    assert found.shape == (1, 2, 2)
    assert found[0].ravel().tolist() == pytest.approx(
        [math.log(2), 0.0, math.log1p(math.exp(2)), math.log1p(math.exp(-1))], abs=1e-9
    )
    with pytest.raises(ValueError, match=r"labels have shape \(1, 2\), logits \(1, 2, 2\)"):
        cross_entropies(logits, labels[:1])
    with pytest.raises(ValueError, match="logits are not finite"):
        cross_entropies(logits * math.nan, labels)


def test_scores_have_wilsons_intervals():
    # Wilson's interval of 9 of 10, from the formula.
    z, share, count = 1.959963984540054, 0.9, 10
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    found = wilson(np.arange(10) > 0)
    assert (found.value, found.low, found.high) == pytest.approx((0.9, middle - reach, middle + reach))
    assert 0 < wilson(np.ones(5, dtype=bool)).low < wilson(np.ones(5, dtype=bool)).high == 1
    with pytest.raises(ValueError, match="no images"):
        wilson(np.zeros(0, dtype=bool))
    logits = np.array([[2.0, -1.0], [-0.1, 3.0]])
    labels = np.array([[1.0, 0.0], [1.0, 1.0]])
    table = score_classes(logits, labels)
    assert table["accuracy"].tolist() == [0.5, 1.0]
    assert table["images"].tolist() == [2, 2]
    assert told_right(logits, labels).tolist() == [[True, True], [False, True]]
