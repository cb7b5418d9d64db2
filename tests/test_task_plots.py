"""Figures of another task: they draw what their tables hold, and say where something is unknown."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import SymLogNorm

from vitmech_utils.data.sweep_labels import TARGETS, TITLES
from vitmech_utils.studies.task import plots as task_plots


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def drawn(ax) -> list[float]:
    """Where an axis has marks, horizontally."""
    return [float(x) for line in ax.containers for x in line.lines[0].get_xdata()]


def test_accuracies_have_a_mark_per_model_and_title() -> None:
    rows = [
        (model, title, target, 0.1 * place, 0.0, 1.0)
        for model in ("leak", "clean")
        for place, title in enumerate(TITLES)
        for target in TARGETS
    ]
    table = pd.DataFrame(rows, columns=["model", "title", "target", "accuracy", "low", "high"])
    figure = task_plots.accuracies(table, TITLES, TARGETS)
    for ax in figure.axes:
        assert sorted(drawn(ax)) == pytest.approx(sorted([0.1 * place for place in range(5)] * 2))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(TITLES)


def test_every_bend_is_in_the_histogram_zeros_too() -> None:
    _, ax = plt.subplots()
    task_plots.bend_histogram(ax, [0.0, 0.0, 0.05, 0.5, 2.0, 31.0], 1.0)
    assert sum(bar.get_height() for bar in ax.patches) == 6


def test_an_unknown_share_is_said() -> None:
    table = pd.DataFrame(
        {
            "what": ["other task", "shortcut"],
            "quantity": ["effect", "effect"],
            "share": [0.4, np.nan],
            "low": [0.2, np.nan],
            "high": [0.5, np.nan],
        }
    )
    _, ax = plt.subplots()
    task_plots.order_forest(ax, table, (0.5, 0.8))
    assert [text.get_text() for text in ax.texts] == ["by effect: unknown"]


def test_one_large_head_leaves_the_other_effects_in_percent_their_colours() -> None:
    layer, head = (axis.ravel() for axis in np.indices((12, 6)))
    effect = np.random.default_rng(0).uniform(-5, 30, len(layer))
    effect[20] = 500.0
    grid = pd.DataFrame({"layer": layer, "head": head, "effect": effect})
    figure = task_plots.effect_grids(
        {"one": grid, "two": grid}, {"one": "effect (nats)", "two": "effect (%)"}
    )
    plain, percent = (ax.images[0].norm for ax in figure.axes[:2])
    assert isinstance(percent, SymLogNorm)
    assert not isinstance(plain, SymLogNorm)
    shown = np.abs(np.asarray(percent(effect)) - 0.5)
    assert shown[np.abs(effect) > 2].min() > 0.1
    assert shown.argmax() == 20


def test_layers_and_grids_count_from_one() -> None:
    layer, head = (axis.ravel() for axis in np.indices((3, 2)))
    grid = pd.DataFrame({"layer": layer, "head": head, "effect": layer - 1.0})
    figure = task_plots.effect_grids({"one": grid, "two": grid}, {"one": "nats", "two": "MSE"})
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["1", "2", "3"]
    shares = pd.DataFrame({"layer": range(3), "share": 0.3, "share_low": 0.2, "share_high": 0.4})
    _, axes = plt.subplots(2, 1)
    task_plots.layer_shares(axes, {("leak", "type"): shares, ("regressor", "all"): shares})
    assert list(axes[0].get_xticks()) == [1, 2, 3]
    assert [ax.get_title(loc="left") or ax.get_title() for ax in axes] == ["leak model", "regressor"]
