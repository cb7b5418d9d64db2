"""Chapter 06's study: what follows a planted cause, and what a head without weights leaves behind."""

import numpy as np
import pandas as pd
import pytest
import torch

from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.published_code import measure, plots

LAYERS, HEADS, IMAGES = 5, 3, 7
ORDERS = measure.layer_orders(LAYERS)


@pytest.fixture(scope="module")
def model() -> ChirpRegressor:
    return ChirpRegressor.tiny(seed=1, layers=2, heads=HEADS)


def scenarios(cause: str) -> dict[str, torch.Tensor]:
    """Predictions whose error grows with the layer, or with its position in the order."""
    found = {}
    for name, order in ORDERS.items():
        place = torch.arange(LAYERS) if cause == "layer" else torch.tensor(np.argsort(order))
        found[name] = (1.0 + place.double()).sqrt()[:, None, None, None].expand(LAYERS, HEADS, IMAGES, 3)
    return found


@pytest.mark.parametrize("cause", ["layer", "position"])
def test_the_outcome_follows_its_planted_cause(cause: str) -> None:
    labels = torch.zeros(IMAGES, 3, dtype=torch.float64)
    drift = measure.drift(scenarios(cause), labels + 1, labels, ORDERS, 20)
    follows = measure.follows(drift)
    assert follows[cause] == pytest.approx(1)
    assert abs(follows["position" if cause == "layer" else "layer"]) < 1
    assert drift["effect"].max() == pytest.approx(100 * (LAYERS - 1)), (
        "squared errors from 1 to the number of layers"
    )
    assert plots.what_it_follows(follows) == ("the layer" if cause == "layer" else "the place in the order")


def test_the_heatmap_has_a_row_per_layer_and_head_in_order() -> None:
    labels = torch.zeros(IMAGES, 3, dtype=torch.float64)
    found = (
        torch.arange(LAYERS * HEADS).double().sqrt().reshape(LAYERS, HEADS, 1, 1).expand(-1, -1, IMAGES, 3)
    )
    table = measure.published_heatmap(found, labels + 1, labels)
    assert table["layer"].tolist() == [layer for layer in range(LAYERS) for _ in range(HEADS)]
    assert table["head"].tolist() == list(range(HEADS)) * LAYERS
    assert table["effect"].tolist() == pytest.approx([100 * (n - 1) for n in range(LAYERS * HEADS)])


def test_the_procedure_zeroes_one_row_of_its_first_head_for_every_head(model) -> None:
    before = find_blocks(model).blocks[0].query.weight.clone()
    assert measure.zeroed_rows(model) == list(range(HEADS))
    assert torch.equal(find_blocks(model).blocks[0].query.weight, before), "on a copy"


def test_what_is_left_without_weights_is_the_value_bias(model) -> None:
    pixels = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert measure.bias_is_left(model, pixels, 1, 2)
    share = measure.constant_shares(model, pixels)
    assert share.shape == (2, HEADS)
    with torch.no_grad():
        block = find_blocks(model).blocks[0]
        saved = block.value.bias.clone()
        block.value.bias.zero_()
        assert (measure.constant_shares(model, pixels)[0] == 0).all(), "no bias, nothing left"
        block.value.bias.copy_(saved)


def test_like_maps_are_alike_and_reversed_ones_are_not() -> None:
    maps = torch.arange(24.0).reshape(1, 2, 3, 2, 2)
    found = measure.likeness({"CLS": maps, "corner patch": 2 * maps, "mean of patches": -maps})
    assert found == pytest.approx({"corner patch": 1, "mean of patches": -1})


def test_the_verdict_has_eight_rows_with_their_figures() -> None:
    interval = Interval(1.5, 1.0, 2.0)
    text = plots.verdict(
        {"layers": 2, "heads": 3, "head_size": 4},
        {"position": 0.9, "layer": 0.1},
        matched=0,
        units={"mixed": interval, "proper": interval},
        pixels={"trained_on": interval, "normalized": interval},
        corner=0.25,
        constant=0.5,
    )
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 8
    assert "follows the place in the order: +0.90 place, +0.10 layer" in lines[4]
    assert "0 backbone weights matched" in lines[5]
    assert "rank correlation 0.25 with CLS" in lines[8]
    assert isinstance(plots.loading(pd.DataFrame({"mse": [1.0], "low": [0.5], "high": [2.0]})).to_html(), str)
