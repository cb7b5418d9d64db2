"""Figures that explain: what they draw can be worked out by hand."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from vitmech_utils.heads.sets import predict_without_sets
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.studies.semantics import plots as semantics
from vitmech_utils.studies.task import plots as task
from vitmech_utils.studies.together import plots as together
from vitmech_utils.studies.together.measure import gate_surface

A, B = (0, 0), (1, 1)


def test_the_corners_of_the_gates_surface_are_the_errors_of_zero_ablation() -> None:
    small = ChirpRegressor.tiny(seed=0, layers=2, heads=2).double()
    picture = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)).double()
    truth = torch.zeros(1, 3, dtype=torch.float64)
    found = predict_without_sets(small, picture, [[A], [B], [A, B]], "zero", replay=False)
    (alone_a, alone_b, both), whole = found.losses(truth).mean()
    surface = gate_surface(small, picture, truth, (A, B), steps=3)
    corners = surface[[0, -1, 0, -1], [0, 0, -1, -1]]
    np.testing.assert_allclose(
        corners, [float(each.mean()) for each in (whole, alone_a, alone_b, both)], rtol=1e-8
    )


def test_the_shapley_values_of_the_example_add_up() -> None:
    figure = together.shapley_orders()
    alone, charged = ([bar.get_height() for bar in bars] for bars in figure.axes[1].containers)
    np.testing.assert_allclose(alone, [0, 0, 4])
    np.testing.assert_allclose(charged, [5, 5, 4])
    plt.close(figure)


def test_unmixing_shows_the_shares_that_the_weights_make() -> None:
    profiles = np.array([[0.3, 0.7, 0.0], [0.05, 0.9, 0.05], [0.0, 0.1, 0.9]])
    figure = semantics.unmixing(profiles, np.array([0.6, 0.4, 0.0]))
    np.testing.assert_allclose([bar.get_height() for bar in figure.axes[0].containers[0]], [0.2, 0.78, 0.02])
    plt.close(figure)


def test_a_share_is_the_filled_part_of_its_ceiling() -> None:
    row = {"what": "other: two", "quantity": "effect", "share": 0.5, "between": 0.3, "ceiling": 0.6}
    unknown = row | {"share": np.nan, "ceiling": np.nan, "quantity": "attention"}
    figure = task.ceilings(pd.DataFrame([row, unknown]))
    ax = figure.axes[0]
    widths = [bars[0].get_width() for bars in ax.containers]
    np.testing.assert_allclose(widths, [0.6, 0.3, 0.0, 0.3])
    assert [text.get_text() for text in ax.texts] == ["share 0.50", "share unknown"]
    plt.close(figure)
