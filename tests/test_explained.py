"""Chapter 15: maps against exact masks, and what removing their highest patches does, by known answers."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from vitmech_utils.heads.attention import attention_maps
from vitmech_utils.heads.replay import predict
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.explained import measure, plots


@pytest.fixture(scope="module")
def model() -> ChirpRegressor:
    return ChirpRegressor.tiny(layers=2, heads=3)


@pytest.fixture(scope="module")
def shown(model: ChirpRegressor) -> measure.Explained:
    return measure.explained(model, 3)


@pytest.fixture(scope="module")
def maps(model: ChirpRegressor, shown: measure.Explained) -> measure.Maps:
    parts = measure.integrated_gradients(model, shown, 2)
    return measure.maps_of(model, shown, np.ones((2, 3)), parts) | measure.controls(shown)


def test_pictures_donors_and_masks_belong_together(shown: measure.Explained) -> None:
    assert len(shown.pixels) == len(shown.donors) == len(shown.covered) == 3
    torch.testing.assert_close(shown.donors[:2], shown.pixels[1:])
    assert not torch.equal(shown.donors[2], shown.pixels[2])
    assert shown.shown.flatten(1).any(1).all()
    assert shown.place.max() < 1


def test_every_method_gives_one_map_an_image(model, shown, maps) -> None:
    assert list(maps) == list(measure.COMPARED)
    assert all(each.shape == shown.covered.shape for each in maps.values())
    attention = attention_maps(model, shown.pixels)
    torch.testing.assert_close(maps["attention"], attention[:, -1].mean(1))
    torch.testing.assert_close(maps["attention by effect"], attention.sum((1, 2)))
    one = np.zeros((2, 3))
    one[0, 1] = 2.0
    parts = measure.integrated_gradients(model, shown, 1)
    only = measure.maps_of(model, shown, one, parts)
    torch.testing.assert_close(only["attention by effect"], 2 * attention[:, 0, 1])
    torch.testing.assert_close(only["integrated gradients"], parts.abs().mean(1))


def test_heads_count_by_their_shifts() -> None:
    rows = [
        ("mean", 1, 0, 3.0),
        ("mean", 0, 0, 1.0),
        ("mean", 0, 1, -2.0),
        ("mean", 1, 1, 4.0),
        ("zero", 0, 0, 9.0),
    ]
    sweep = pd.DataFrame(rows, columns=["mode", "layer", "head", "shift"])
    np.testing.assert_array_equal(measure.shifts_of(sweep), [[1.0, 0.0], [3.0, 4.0]])


def test_the_mask_finds_every_patch_and_chance_their_share(shown, maps) -> None:
    found = measure.found_chirp(maps, shown)
    assert found["precision"][measure.MASK] == pytest.approx(1.0)
    assert found["mass"][measure.MASK] == pytest.approx(1.0, abs=1e-3)
    share = float(shown.shown.float().mean())
    assert found["mass"][measure.RANDOM].mean() == pytest.approx(share, rel=0.35)
    assert found["precision"][measure.RANDOM].max() < 0.5


def test_the_answer_moves_as_far_as_by_hand(model, shown, maps) -> None:
    distances = measure.moved(model, maps, shown)
    with torch.no_grad():
        whole, other = predict(model, shown.pixels), predict(model, shown.donors)
    by_hand = (other - whole).square().mean(-1).sqrt()
    np.testing.assert_allclose(distances["everything"][0], by_hand, rtol=1e-4)
    assert distances["attention"].shape == (len(measure.SHARES), 3)
    place = maps[measure.PLACE][0].flatten().topk(round(measure.TAKEN * shown.covered[0].numel())).indices
    patch = shown.pixels.shape[-1] // shown.covered.shape[-1]
    mixed = shown.pixels.clone()
    for number in place.tolist():
        row, column = (patch * each for each in divmod(number, shown.covered.shape[-1]))
        there = (..., slice(row, row + patch), slice(column, column + patch))
        mixed[there] = shown.donors[there]
    with torch.no_grad():
        expected = (predict(model, mixed) - whole).square().mean(-1).sqrt()[0]
    found = distances[measure.PLACE][measure.SHARES.index(measure.TAKEN), 0]
    assert found == pytest.approx(float(expected), rel=1e-3)


def test_scores_compare_image_by_image(model, shown, maps) -> None:
    found, distances = measure.found_chirp(maps, shown), measure.moved(model, maps, shown)
    table = measure.scores(found, distances).set_index(["measure", "method"])
    row = table.loc[("precision", "rollout")]
    values = found["precision"]
    assert row["value"] == pytest.approx(values["rollout"].mean())
    assert row["over_random"] == pytest.approx((values["rollout"] - values[measure.RANDOM]).mean())
    assert row["low_random"] <= row["over_random"] <= row["high_random"]
    assert table.loc[("moved", measure.PICTURE), "over_picture"] == 0
    curves = measure.curves(distances)
    assert len(curves) == len(measure.COMPARED) * len(measure.SHARES)
    last = curves[(curves["method"] == "rollout") & (curves["share"] == measure.SHARES[-1])].iloc[0]
    more = distances["rollout"][-1] - distances[measure.PICTURE][-1]
    assert last["over_picture"] == pytest.approx(more.mean())
    assert measure.everything(distances).value == pytest.approx(distances["everything"].mean())


def test_an_untrained_network_is_another_one_and_a_network_is_like_itself(model, shown, maps) -> None:
    itself = measure.alike(maps, {name: maps[name] for name in measure.UNTRAINED})
    assert itself["correlation"].to_numpy() == pytest.approx(1.0)
    other = measure.alike(maps, measure.untrained_maps(model, shown))
    assert list(other["method"]) == list(measure.UNTRAINED)
    assert (other["correlation"] < 1).all()
    untrained = measure.untrained_maps(model, shown)
    table = measure.without_training(maps, untrained, shown).set_index("method")
    pd.testing.assert_series_equal(table["correlation"], other.set_index("method")["correlation"])
    own, others = (measure.found_chirp(each, shown)["precision"]["rollout"] for each in (maps, untrained))
    assert table.loc["rollout", "precision_untrained"] == pytest.approx(others.mean())
    assert table.loc["rollout", "more_trained"] == pytest.approx((own - others).mean())
    assert table["like_picture"].between(-1, 1).all()


def test_integrated_gradients_add_up_with_enough_steps(model, shown) -> None:
    few, many = (
        measure.sums_to_the_difference(model, shown, measure.integrated_gradients(model, shown, steps))[
            "error"
        ]
        for steps in (1, 40)
    )
    assert many < few
    assert many < 0.05
    assert measure.steps_of(measure.ENOUGH) == measure.STEPS > measure.steps_of(2)


@pytest.fixture(scope="module")
def table(model: ChirpRegressor, shown: measure.Explained, maps: measure.Maps) -> pd.DataFrame:
    return measure.scores(measure.found_chirp(maps, shown), measure.moved(model, maps, shown))


class TestWords:
    def test_what_is_better_than_the_picture_is_named(self, table, shown) -> None:
        better = table.assign(low_picture=1.0, high_picture=2.0)
        worse = table.assign(low_picture=-2.0, high_picture=-1.0)
        assert set(plots.better(better, "precision")) == set(measure.METHODS)
        assert plots.better(worse, "precision") == []
        size, most = shown.sizes(), Interval(1.0, 0.9, 1.1)
        assert size["chirp"] == pytest.approx(float(shown.shown.sum()) / 3)
        curves = pd.DataFrame({"method": measure.MASK, "share": [0.1, 0.2, 0.4], "over_picture": 0.5,
                               "low_picture": [0.1, -0.1, -0.2], "high_picture": 1.0})  # fmt: skip
        assert "All seven" in plots.said(better, curves, size, most)
        text = plots.said(worse, curves, size, most)
        assert "None of the seven" in text
        assert "From 20% of the patches on, not even the mask" in text
        assert "not even" not in plots.said(worse, curves.assign(low_picture=0.1), size, most)

    def test_every_figure_and_sentence_is_made_of_the_tables(self, model, shown, maps, table) -> None:
        found = measure.found_chirp(maps, shown)
        curves = measure.curves(measure.moved(model, maps, shown))
        alike = measure.without_training(maps, measure.untrained_maps(model, shown), shown)
        one = {name: each[0].numpy() for name, each in maps.items()}
        precision = {name: float(values[0]) for name, values in found["precision"].items()}
        picture = shown.pixels[0].permute(1, 2, 0).numpy()
        drawn = (plots.summary(table), plots.deletion(curves), plots.gallery(picture, one, precision))
        for figure in drawn:
            assert figure.axes[0].get_title()
            plt.close(figure)
        assert len(plots.table(table).data) == len(measure.COMPARED)
        assert plots.what_you_know(table, alike).startswith("1. Of the maps")
        assert len(plots.untrained(alike).data) == len(measure.UNTRAINED)
        assert "random weights" in plots.untrained_text(alike)
        assert "the same without any training" in plots.untrained_text(alike.assign(low=0.6, high=0.9))
        assert "correlate negatively" in plots.untrained_text(alike.assign(low=-0.9, high=-0.6))
        assert plots.outcome(table, alike).startswith("Of these, the first came about for")
        sums = {"error": 0.5, "low": 0.4, "high": 0.6, "difference": 1.0}
        assert "8 steps" in plots.added_up(sums, 8)
        assert "do not suffice" in plots.added_up(sums, 8)
        assert "That is enough" in plots.added_up(sums | {"error": 0.05, "low": 0.04, "high": 0.06}, 8)
