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
    changes = measure.changes_by_layer(scenarios(cause), labels + 1, labels)
    drift = measure.drift(changes, Interval(2.0, 2.0, 2.0), ORDERS)
    follows = measure.follows(changes, ORDERS, 20)
    assert follows[cause].value == pytest.approx(1)
    assert abs(follows["position" if cause == "layer" else "layer"].value) < 1
    assert drift["effect"].max() == pytest.approx(100 * (LAYERS - 1) / 2), (
        "squared errors from 1 to the number of layers, in percent of a held-out loss of 2"
    )
    assert set(drift["images"]) == {IMAGES}
    assert f"({IMAGES} images)" in plots.orders(drift, follows).get_suptitle()
    assert plots.what_it_follows(follows) == ("the layer" if cause == "layer" else "the place in the order")


def test_what_is_followed_is_named_only_where_an_interval_says_so() -> None:
    for low, high, words in (
        (0.1, 0.9, "the place in the order"),
        (-0.9, -0.1, "the layer"),
        (-0.1, 0.9, "neither"),
    ):
        assert plots.what_it_follows({"closer": Interval(0.0, low, high)}).startswith(words)


def test_a_single_image_has_no_intervals_and_decides_nothing() -> None:
    labels = torch.zeros(1, 3, dtype=torch.float64)
    found = {name: some[:, :, :1] for name, some in scenarios("position").items()}
    changes = measure.changes_by_layer(found, labels + 1, labels)
    follows = measure.follows(changes, ORDERS, 20)
    drift = measure.drift(changes, Interval(1.0, 0.9, 1.1), ORDERS)
    assert drift["low"].isna().all()
    assert plots.what_it_follows(follows) == "neither for sure"
    assert "(1 image)" in plots.orders(drift, follows).get_suptitle()
    assert "0 of 15 single changes" in plots.orders_text(drift, follows)


def test_no_interval_says_that_an_error_falls_by_more_than_all_of_it() -> None:
    changes = {"published": np.array([[-3.0, 3.0, 0.5], [0.1, 0.2, 0.3]])}
    drift = measure.drift(changes, Interval(1.0, 0.9, 1.1), {"published": [0, 1]})
    assert drift["low"].tolist()[0] == -100
    assert drift["effect"].between(drift["low"], drift["high"]).all()


def test_the_heatmap_has_a_row_per_layer_and_head_in_order() -> None:
    labels = torch.zeros(IMAGES, 3, dtype=torch.float64)
    found = (
        torch.arange(LAYERS * HEADS).double().sqrt().reshape(LAYERS, HEADS, 1, 1).expand(-1, -1, IMAGES, 3)
    )
    table = measure.published_heatmap(found, labels + 1, labels, Interval(2.0, 1.0, 3.0))
    assert table["layer"].tolist() == [layer for layer in range(LAYERS) for _ in range(HEADS)]
    assert table["head"].tolist() == list(range(HEADS)) * LAYERS
    assert table["effect"].tolist() == pytest.approx([50 * (n - 1) for n in range(LAYERS * HEADS)])


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
    assert {name: values.shape for name, values in found.items()} == dict.fromkeys(found, (1,))
    assert {name: values.item() for name, values in found.items()} == pytest.approx(
        {"corner patch": 1, "mean of patches": -1}
    )
    several = {"corner patch": np.array([0.9, 0.99, 0.2])}
    interval = measure.over_images(several, 100)["corner patch"]
    assert interval.value == pytest.approx(several["corner patch"].mean())
    assert -1 <= interval.low < interval.value < interval.high == 1


def test_the_verdict_has_eight_rows_with_their_figures() -> None:
    interval = Interval(1.5, 1.0, 2.0)
    follows = {
        "position": Interval(0.9, 0.8, 1.0), "layer": Interval(0.1, 0.0, 0.2), "closer": Interval(0.8, 0.7, 0.9)
    }  # fmt: skip
    text = plots.verdict(
        {"layers": 2, "heads": 3, "head_size": 4},
        follows,
        matched=0,
        units={"mixed": interval, "proper": interval},
        pixels={"trained_on": interval, "normalized": interval},
        corner=Interval(0.25, 0.1, 0.4),
        constant=0.5,
    )
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 8
    assert (
        "follows the place in the order: +0.90 [+0.80, +1.00] place, +0.10 [+0.00, +0.20] layer" in lines[4]
    )
    assert "0 backbone weights matched" in lines[5]
    assert "rank correlation 0.25 [0.10, 0.40] with CLS" in lines[8]
    assert isinstance(plots.loading(pd.DataFrame({"mse": [1.0], "low": [0.5], "high": [2.0]})).to_html(), str)
