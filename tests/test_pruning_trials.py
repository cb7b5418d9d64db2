"""Trials of pruned models: effects and correlations by hand, the front of a plane, what is timed, and what is drawn."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from heads_zoo import pictures, zoo
from matplotlib.colors import to_rgba

from vitmech_utils.heads.ablation import sweep
from vitmech_utils.heads.costs import Costs
from vitmech_utils.heads.pruning import mean_writings, prune_heads, prune_keeping_means
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.runs import kept
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.pruning import measure as pruning_trials
from vitmech_utils.studies.pruning import plots as pruning_plots
from vitmech_utils.studies.pruning.measure import (
    choose,
    error_and_time,
    loss_change,
    pareto_front,
    removed_by_hand,
    single_effects,
    timings,
    trial_table,
    trials,
    well_fitted,
)

LABELS = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, -1.0], [2.0, 3.0, 0.0], [3.0, 2.0, 1.0], [-1.0, -2.0, 0.5]])


def test_effects_of_single_heads_are_exact_where_all_images_are_and_estimates_where_few_are() -> None:
    model = ChirpRegressor.tiny(seed=0, layers=3, heads=2).double()
    generator = torch.Generator().manual_seed(1)
    images = {
        "pixel_values": torch.rand(8, 3, 224, 224, generator=generator).double(),
        "labels": torch.randn(8, 3, generator=generator),
    }
    exact = sweep(model, images["pixel_values"], images["labels"].double(), "zero", bootstrap=200)
    found = single_effects(model, images, 8, 4, 200)
    assert [*zip(found["layer"], found["head"], strict=True)] == [
        *zip(exact["layer"], exact["head"], strict=True)
    ]
    np.testing.assert_allclose(found["effect"], exact["effect"], rtol=1e-6, atol=1e-9)
    fewer = single_effects(model, images, 3, 4, 200)
    assert set(fewer["images"]) == {8}
    assert set(fewer.columns) == set(exact.columns)
    held = (fewer["low"] <= exact["effect"]) & (exact["effect"] <= fewer["high"])
    assert held.sum() >= 5, "of six heads, by three exact images"
    with pytest.raises(ValueError, match="exact is 0, expected at least 1"):
        single_effects(model, images, 0, 4, 200)


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


def test_choices_are_named_by_kind_and_size() -> None:
    one, two = {(0, 1)}, {(0, 1), (2, 0)}
    choices = pruning_trials.Choices(
        {("least effect", 1): one, ("least effect", 2): two, ("random", 2): two}, [two]
    )
    assert choices.named == {"least effect (1)": one, "least effect (2)": two, "random (2)": two}
    assert choices.of_size(2) == {"least effect": two, "random": two}


def test_choices_are_kept_and_read_back_as_they_were(tmp_path) -> None:
    choices = pruning_trials.Choices({("least effect", 2): {(0, 1), (2, 0)}}, [{(1, 1)}, set()])
    assert kept.load(kept.save(tmp_path, "choices", choices)) == choices


def test_heads_are_chosen_in_five_ways_and_three_sizes() -> None:
    model = ChirpRegressor.tiny(seed=0, layers=3, heads=2)
    images = {"pixel_values": torch.rand(2, 3, 224, 224), "labels": torch.randn(2, 3)}
    early = {(0, 0), (0, 1)}
    single = pd.DataFrame(
        [(layer, head) for layer in range(3) for head in range(2)], columns=["layer", "head"]
    )
    single["effect"] = [0.1, 6.0, -0.2, 3.0, 0.0, -9.0]
    found = choose(model, early, single, images, random_sets=3, rounds=2, bootstrap=10, seed=0)
    sizes = {("layers 1-3", 2), ("least effect", 1), ("least effect", 2), ("least effect", 4)}
    sizes |= {("first order", 2), ("in rounds", 2), ("in rounds", 4), ("random", 2)}
    assert set(found.sets) == sizes
    assert all(len(heads) == size for (_, size), heads in found.sets.items())
    assert found.sets["least effect", 2] == {(2, 0), (0, 0)}, "the least change, up or down"
    assert len(found.draws) == 3
    assert found.sets["random", 2] == found.draws[0]


def test_a_removal_is_what_muting_is_and_saves_what_is_counted_by_hand() -> None:
    found = removed_by_hand({(0, 0), (0, 1), (0, 2), (0, 3), (2, 1)})
    assert found["same"]
    assert found["flops"][0] == found["flops"][1] > 0
    assert found["parameters"][0] == found["parameters"][1] > 0


def test_trials_tell_where_a_recovered_model_comes_from() -> None:
    rng = np.random.default_rng(0)
    labels = rng.normal(size=(9, 3))
    scales = {"unpruned": 0.1, "few (2)": 0.5}
    near = {name: labels + rng.normal(scale=scale, size=labels.shape) for name, scale in scales.items()}
    after = {"few (2), recovered": labels + 0.2, "unpruned, trained on": labels + 0.1}
    costs = Costs(parameters=7, attention_parameters=3, flops=11, attention_flops=5)
    table = trial_table(
        near,
        after,
        labels,
        bases={"few (2), recovered": "few (2)", "unpruned, trained on": "unpruned"},
        named={"few (2)": {(0, 0), (0, 1)}},
        counted={"unpruned": costs, "few (2)": costs},
        control="unpruned, trained on",
        bootstrap=20,
    ).set_index("name")
    assert table["choice"].tolist() == ["unpruned", "few", "few", "unpruned"]
    assert table["recovered"].tolist() == [False, False, True, True]
    assert table["heads"].tolist() == [0, 2, 2, 0]
    assert table.loc["few (2), recovered", "effect_same_training"] == pytest.approx(300)
    assert np.isnan(table.loc["few (2)", "effect_same_training"])


def test_error_and_time_are_joined_per_batch_with_the_front() -> None:
    table = pd.DataFrame(
        {"name": ["a", "a2", "b"], "base": ["a", "a", "b"], "choice": "x", "heads": 1, "images": 5,
         "recovered": [False, True, False], "effect": 0.0, "low": 0.0, "high": 0.0, "mse": [1.0, 0.5, 2.0]}
    )  # fmt: skip
    times = pd.DataFrame(
        {"model": ["a", "b"], "batch": 2, "seconds": [0.2, 0.4], "low": [0.1, 0.3], "high": [0.3, 0.5],
         "speedup": 1.0, "speedup_low": 1.0, "speedup_high": 1.0}
    )  # fmt: skip
    plane = error_and_time(table, times).set_index("name")
    assert plane["milliseconds"].tolist() == [100.0, 100.0, 200.0]
    assert plane["pareto_front"].tolist() == [False, True, False]


def test_the_random_sets_that_do_less_harm_are_counted_and_those_outdone_named() -> None:
    table = pd.DataFrame(
        {"choice": ["layers 1-3", "first order", "random"], "effect": [1.0, 9.0, 5.0], "images": 7,
         "recovered": False}
    )  # fmt: skip
    assert pruning_plots.against_random(table, pd.Series([2.0, 5.0, 8.0]), pd.Series([3.0])) == (
        "Of 3 random sets of as many heads, so many do less harm on the same 7 images: none than layers 1-3, "
        "all 3 than first order. More than half of them outdo: first order."
    )
    kept = pd.concat([table, table.iloc[:1].assign(choice="layers 1-3, means kept")])
    told = pruning_plots.against_random(kept, pd.Series([2.0, 5.0, 8.0]), pd.Series([-1.0, 3.0]))
    assert told.endswith(
        "of the first 2 random sets so many do less harm than *layers 1-3, means kept*: 1; in the median they "
        "change the error by +1 % (-1 to +3)."
    )


def test_random_sets_are_tried_with_and_without_their_means() -> None:
    model = ChirpRegressor.tiny(seed=0, layers=3, heads=2)
    images = {"pixel_values": torch.rand(3, 3, 224, 224), "labels": torch.randn(3, 3)}
    draws = [{(0, 0), (2, 1)}, {(1, 0)}]
    whole = pruning_trials.predicted(model, images)
    means = mean_writings(model, images["pixel_values"])
    bare = pruning_trials.random_trials(model, draws, images, {"unpruned": whole}, 10)
    keeping = pruning_trials.random_trials(model, draws, images, {"unpruned": whole}, 10, means)
    asked = pruning_trials.predicted(prune_keeping_means(model, draws[0], means), images)
    truth = images["labels"].numpy()
    assert keeping["mse"].iloc[0] == pytest.approx(((asked - truth) ** 2).mean())
    assert bare["draw"].tolist() == keeping["draw"].tolist() == ["draw 1", "draw 2"]
    assert bare["removed"].tolist() == ["L1H1 L3H2", "L2H1"]
    assert not np.allclose(bare["mse"], keeping["mse"], rtol=1e-6)


def test_every_size_is_judged_in_the_title_of_the_sizes() -> None:
    rows = [("in rounds", 2, 9.0, 8.0, 10.0), ("in rounds", 4, 9.0, 1.0, 20.0)]
    rows += [("least effect", 2, 3.0, 2.0, 4.0), ("least effect", 4, 11.0, 5.0, 30.0)]
    table = pd.DataFrame(rows, columns=["choice", "heads", "effect", "low", "high"])
    apart = {2: Interval(6.0, 4.0, 8.0), 4: Interval(-2.0, -9.0, 3.0)}
    figure = pruning_plots.pruned_sizes(table.assign(recovered=False, images=5, name="x"), apart)
    told = "In rounds, against least effect: clearly worse with 2, not clearly better with 4 heads removed"
    assert figure.get_suptitle() == told
    plt.close("all")
    words = pruning_plots.rounds(apart, Interval(-5.0, -7.0, -1.0), 2)
    assert "-5.0 % [-7.0, -1.0], clearly less harm (2 heads)" in words
    assert "+6.0 % [+4.0, +8.0], clearly more harm (2 heads)" in words
    assert "-2.0 % [-9.0, +3.0], not clearly less harm (4 heads)" in words


def test_a_choice_says_how_badly_its_effects_are_known() -> None:
    single = pd.DataFrame(
        {"layer": [0, 0, 1], "head": [0, 1, 0], "low": [-1.0, 2.0, -3.0], "high": [1.0, 5.0, 4.0]}
    )
    told = pruning_plots.how_known(single, {(0, 0), (0, 1)})
    assert "the intervals of 2 of all 3 heads, and of 1 of the 2 heads of least effect, include zero" in told


def test_the_control_of_a_choice_is_in_percent_of_the_held_out_loss() -> None:
    row = {"one": Interval(0.02, 0.01, 0.04), "other": Interval(0.0, -0.002, 0.002)}
    told = pruning_plots.choice_control({"layers 1-3": row}, {"one": 0.1, "other": 0.2}, 0.02)
    assert "| layers 1-3 | +100 % [+50, +200] | +0.0 % [-10.0, +10.0] |" in told


def test_a_speed_above_its_ceiling_is_said() -> None:
    within, beyond = {1: Interval(1.15, 1.05, 1.2)}, {1: Interval(1.15, 1.12, 1.2)}
    assert pruning_plots._beyond(within, 1.2) == ""
    assert "within its interval" in pruning_plots._beyond(within, 1.11)
    assert "clearly exceeds" in pruning_plots._beyond(beyond, 1.11)
