"""Trials of pruned models: effects and correlations by hand, the front of a plane, what is timed, and what is drawn."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from heads_zoo import pictures, zoo
from matplotlib.colors import to_rgba

from vitmech_utils.heads.pruning import prune_heads
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.studies.pruning import measure as pruning_trials
from vitmech_utils.studies.pruning import plots as pruning_plots
from vitmech_utils.studies.pruning.measure import loss_change, pareto_front, timings, trials, well_fitted

LABELS = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, -1.0], [2.0, 3.0, 0.0], [3.0, 2.0, 1.0], [-1.0, -2.0, 0.5]])


def test_effects_are_those_of_the_same_images() -> None:
    near, far = LABELS + 0.1, LABELS.copy()
    far[0] += 1.0
    found = trials(
        {"whole": near, "same": near.copy(), "pruned": far}, LABELS, "whole", 200, task=ChirpRegressor.task
    )
    rows = found.set_index("name")
    assert rows.loc["whole", "mse"] == pytest.approx(0.01)
    assert rows.loc["pruned", "mse"] == pytest.approx(1 / 5)
    assert rows.loc["pruned", "effect"] == pytest.approx(1900)
    assert list(rows.loc["same", ["effect", "low", "high"]]) == [0, 0, 0]
    assert rows.loc["pruned", "low"] < 1900 < rows.loc["pruned", "high"]
    assert rows.loc["whole", "r_start_time"] == pytest.approx(1)
    assert rows.loc["pruned", "r_start_time"] == pytest.approx(np.corrcoef(far[:, 0], LABELS[:, 0])[0, 1])
    assert rows.loc["pruned", "r_low_end_freq"] < rows.loc["pruned", "r_end_freq"]
    assert (rows["images"] == 5).all()


def test_seven_targets_and_class_numbers_keep_all_their_columns() -> None:
    rng = np.random.default_rng(0)
    seven = rng.normal(size=(11, 7))
    columns = trials({"whole": seven}, seven + 0.1 * rng.normal(size=(11, 7)), "whole", 20).columns
    assert [name for name in columns if name.startswith("r_output")] == [f"r_output_{n}" for n in range(7)]
    logits, classes = rng.normal(size=(11, 5)), rng.integers(5, size=11)
    rows = trials({"whole": logits, "less": logits / 2}, classes, "whole", 20).set_index("name")
    told = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert rows.loc["whole", "loss"] == pytest.approx(-told[np.arange(11), classes].mean())
    assert rows.loc["less", "effect"] == pytest.approx(rows.loc["less", "loss"] - rows.loc["whole", "loss"])


def test_other_images_and_missing_baselines_are_refused() -> None:
    with pytest.raises(ValueError, match="baseline 'whole' has no predictions, expected one of"):
        trials({"pruned": LABELS}, LABELS, "whole")
    with pytest.raises(ValueError, match=r"'pruned' predicts an array of shape \(4, 3\), expected \(5, 3\)"):
        trials({"whole": LABELS, "pruned": LABELS[:4]}, LABELS, "whole")


def test_a_change_of_the_mse_is_alike_on_images_of_unlike_baselines() -> None:
    truth = np.random.default_rng(0).normal(size=(40, 3))
    for baseline in (0.0, 0.5):
        found = loss_change(truth + np.sqrt(0.09 + baseline**2), truth + baseline, truth, 200)
        assert (found.value, found.low, found.high) == pytest.approx((0.09, 0.09, 0.09))
    one = truth.copy()
    one[0] += 2.0
    found = loss_change(one, truth, truth, 500)
    assert found.value == pytest.approx(4 / 40)
    assert found.low < 4 / 40 < found.high


def test_images_on_which_a_model_guesses_no_better_than_the_mean_are_not_read() -> None:
    truth = np.zeros((5, 3))
    predicted = truth + 0.1
    predicted[1], predicted[3] = 1.1, 0.9
    assert well_fitted(predicted, truth).tolist() == [True, False, True, True, True]


@pytest.mark.parametrize(("unread", "left"), [(0, 4), (1, 3), (2, 4), (4, 4)])
def test_no_image_is_left_out_where_half_of_them_are_unread(unread: int, left: int) -> None:
    predicted = np.zeros((4, 3))
    predicted[:unread] = 3.0
    assert well_fitted(predicted, np.zeros((4, 3))).sum() == left


def test_what_no_other_model_beats() -> None:
    seconds = np.array([1.0, 2.0, 2.0, 3.0, 1.0])
    error = np.array([5.0, 4.0, 6.0, 4.0, 5.0])
    # The third is slower and worse than the first, the fourth slower than the second; twins do not beat each other.
    assert pareto_front(seconds, error).tolist() == [True, True, False, False, True]


@pytest.fixture
def models():
    model = zoo("vit")
    return {"whole": model, "pruned": prune_heads(model, {(0, 0)}), "masked": model}, pictures(images=2)[0]


def test_each_model_is_timed_where_it_is_asked_for(models) -> None:
    table, reason = timings(*models, 2, large=["whole", "pruned"], compiled=["whole"], batch=5)
    counts = table.groupby(["batch", "model"]).size().to_dict()
    assert counts == {
        (1, "whole"): 2, (1, "pruned"): 2, (1, "masked"): 2, (5, "whole"): 2, (5, "pruned"): 2
    }  # fmt: skip
    assert not table["compiled"].any()
    assert set(table["device"]) == {"cpu"}
    assert "2 repeats" in reason


@pytest.mark.parametrize("error", [RuntimeError("InvalidCxxCompiler: none"), FileNotFoundError("g++")])
def test_a_machine_that_cannot_compile_says_so_and_times_the_rest(models, monkeypatch, error) -> None:
    def latency(*args, compiled=False, **options):
        if compiled:
            raise error
        return real(*args, **options)

    real = pruning_trials.latency
    monkeypatch.setattr(pruning_trials, "latency", latency)
    repeats = pruning_trials.COMPILED_FROM
    table, reason = timings(*models, repeats, large=["whole"], compiled=["whole"], batch=2)
    assert len(table) == 3 * repeats + repeats
    assert f"cannot compile them ({type(error).__name__}); a C++ compiler is needed" in reason


def test_compiled_models_are_timed_at_each_batch_size(models, monkeypatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda run: run)
    repeats = pruning_trials.COMPILED_FROM
    table, reason = timings(*models, repeats, large=["whole"], compiled=["pruned"], batch=2)
    assert reason == ""
    compiled = table[table["compiled"]]
    assert compiled.groupby(["model", "batch"]).size().to_dict() == {
        ("pruned", 1): repeats,
        ("pruned", 2): repeats,
    }


def test_hollow_marks_are_recovered_models_and_bars_end_at_their_bounds() -> None:
    table = pd.DataFrame(
        [
            ("a", "a", "layers 1-3", 3, False, 12.0, 8.0, 20.0, 5.0, 4.0, 7.0),
            ("a, recovered", "a", "layers 1-3", 3, True, 2.0, 1.0, 3.0, 5.0, 4.0, 7.0),
        ],
        columns=["name", "base", "choice", "heads", "recovered", "effect", "low", "high",
                 "milliseconds", "time_low", "time_high"],
    )  # fmt: skip
    figure, ax = plt.subplots()
    pruning_plots.pareto(ax, table, 2, ["a, recovered"])
    marks = [line for line in ax.lines if line.get_marker() == "D"]
    assert [to_rgba(mark.get_markerfacecolor()) for mark in marks] == [to_rgba("#D55E00"), to_rgba("white")]
    assert [text.get_text() for text in ax.texts] == ["3"]
    ends = {tuple(map(tuple, bar.get_segments()[0])) for bar in ax.collections}
    assert {((4, 12), (7, 12)), ((5, 8), (5, 20)), ((4, 2), (7, 2)), ((5, 1), (5, 3))} <= ends
    figure, ax = plt.subplots()
    pruning_plots.work_bars(ax, {"FLOPs": 0.4}, 0.25)
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([10, 30, 60])
    figure = pruning_plots.chosen_grids({"first order": {(0, 1), (2, 0)}}, 3, 2)
    assert figure.axes[0].images[0].get_array().tolist() == [[0, 1], [0, 0], [1, 0]]
    plt.close("all")
