"""Classes, twins and changes of heads: planted heads whose class is known, thresholds, inherited or emergent."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from test_attention import attention_statistics, pictures, planted, random_images

from vitmech_utils.data.regions import REGIONS
from vitmech_utils.data.style import Style
from vitmech_utils.heads.attention_shares import AttentionStatistics
from vitmech_utils.heads.semantics import (
    CLASSES,
    Thresholds,
    class_changes,
    classes_over_thresholds,
    classify,
    sensitivity,
    unmix,
)
from vitmech_utils.heads.sinks import find_sinks
from vitmech_utils.statistics import Count
from vitmech_utils.studies.semantics import judge, plots
from vitmech_utils.studies.semantics.measure import (
    CHANGES,
    Change,
    examine,
    importance_and_focus,
    lifts,
    make_twins,
    surest_and_doubtful,
    twin_effects,
    unmixed,
)

NAMES = ("thing", "other", "rest")
AREA = np.array([0.05, 0.05, 0.9])


def made_up(shares: list[list[float]], entropy: float = 0.9, position: float = 0.0) -> AttentionStatistics:
    """Statistics of a layer of heads with given region shares, in all replicates; each region fills whole patches."""
    heads = len(shares)
    full = np.broadcast_to(np.array(shares)[None, None, None, None], (11, 1, 4, 1, heads, 3))
    per_head = np.ones((11, 1, 4, 1, heads, 1))
    rows = [
        {"layer": 0, "head": head, "query": "cls", "weighting": "raw", "sinks": "kept", "position_share": position,
         "prefix_share": 0.1}
        for head in range(heads)
    ]  # fmt: skip
    return AttentionStatistics(
        regions=pd.DataFrame(),
        heads=pd.DataFrame(rows),
        mean_weights=np.zeros(0),
        replicates={
            "share": full,
            "area": np.broadcast_to(AREA, full.shape),
            "map_entropy": per_head * entropy,
            "prefix_share": per_head * 0.1,
            "valid": per_head * 10,
        },
        images=10,
        prefix=1,
        grid=(4, 5),
        profiles=np.broadcast_to(np.eye(3), (11, 3, 3)),
        names=NAMES,
    )


def moved(follow: dict[str, float], heads: int) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"change": f"{region} moved", "region": region, "layer": 0, "head": head, "follow": value}
            for region, value in follow.items()
            for head in range(heads)
        ]
    )


def test_unmix_recovers_a_mixture_and_gives_even_attention_its_areas() -> None:
    rng = np.random.default_rng(0)
    coverage = rng.dirichlet(np.ones(4), 60).T  # [region, patch]
    overlap = coverage @ coverage.T
    profiles = overlap / overlap.sum(1, keepdims=True)
    weights = np.array([[0.7, 0.3, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    np.testing.assert_allclose(unmix(weights @ profiles, profiles), weights, atol=1e-9)
    np.testing.assert_allclose(unmix(coverage.mean(1)[None], profiles)[0], coverage.mean(1), atol=1e-9)


def test_unmix_leaves_absent_regions_and_silent_heads_at_zero() -> None:
    profiles = np.full((3, 3), np.nan)
    profiles[:2] = [[1.0, 0, 0], [0, 1.0, 0]]
    shares = np.array([[0.25, 0.75, 0.0], [np.nan, np.nan, np.nan]])
    np.testing.assert_allclose(unmix(shares, profiles), [[0.25, 0.75, 0], [0, 0, 0]])


def test_each_class_is_given_where_it_belongs() -> None:
    shares = [[0.8, 0.05, 0.15], [0.4, 0.4, 0.2], [0.05, 0.05, 0.9]]
    table = classify(made_up(shares))
    assert table["class"].tolist() == ["monosemantic", "polysemantic", "diffuse"]
    assert table["regions"].tolist() == ["thing", "thing + other", ""]
    assert table["confidence"].tolist() == [1, 1, 1]
    assert classify(made_up(shares, position=0.8))["class"].tolist()[2] == "positional"
    assert classify(made_up(shares), thresholds=Thresholds(sink=0.1))["class"].tolist() == ["sink"] * 3


def test_a_head_that_stays_when_the_thing_moves_is_not_about_it() -> None:
    shares = [[0.8, 0.05, 0.15]]
    assert classify(made_up(shares, position=0.9), moved({"thing": 0.9}, 1))["class"].item() == "monosemantic"
    assert classify(made_up(shares, position=0.9), moved({"thing": 0.0}, 1))["class"].item() == "positional"


def test_removals_say_nothing_about_following() -> None:
    removed = moved({"thing": 0.0}, 1).assign(change="thing removed")
    assert classify(made_up([[0.8, 0.05, 0.15]]), removed)["class"].item() == "monosemantic"


def test_confidence_counts_the_replicates_that_agree() -> None:
    statistics = made_up([[0.8, 0.05, 0.15]])
    share = statistics.replicates["share"].copy()
    share[1:4] = [0.05, 0.05, 0.9]
    table = classify(replace(statistics, replicates=statistics.replicates | {"share": share}))
    assert table["confidence"].item() == pytest.approx(0.7)


def test_every_nan_of_a_class_table_has_its_reason() -> None:
    table = classify(made_up([[0.8, 0.05, 0.15]], position=float("nan")))
    has_nan = table.drop(columns="reason").isna().any(axis=1)
    assert has_nan.all()
    assert "no position share" in table["reason"].item()
    assert "moved in no twin" in table["reason"].item()


def test_sensitivity_counts_every_head_once() -> None:
    table = sensitivity(made_up([[0.8, 0.05, 0.15], [0.4, 0.4, 0.2]]), grid=(0.1, 0.5, 1.0))
    assert (table.groupby(["threshold", "value"])["heads"].sum() == 2).all()
    assert set(table["class"]) == set(CLASSES)
    part = table.query("threshold == 'part' and value == 1.0").set_index("class")["heads"]
    assert part["polysemantic"] == 0


def test_heads_are_classified_at_either_end_of_every_threshold() -> None:
    statistics = made_up([[0.8, 0.05, 0.15], [0.64, 0.35, 0.01]])
    every = classes_over_thresholds(statistics)
    usual = every[every["threshold"] == "none"].drop(columns=["threshold", "value"])
    pd.testing.assert_frame_equal(usual, classify(statistics))
    assert every.groupby("threshold")["value"].nunique().drop("none").eq(2).all()
    strict = every.query("threshold == 'part' and value == 0.4").reset_index(drop=True)
    pd.testing.assert_frame_equal(
        strict.drop(columns=["threshold", "value"]), classify(statistics, thresholds=Thresholds(part=0.4))
    )


@pytest.mark.parametrize("settings", [{"sink": 1.2}, {"part": -0.1}, {"information": -1.0}])
def test_thresholds_out_of_range_are_refused(settings: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Thresholds(**settings)


def test_classify_refuses_what_the_statistics_do_not_hold() -> None:
    with pytest.raises(ValueError, match="expected one of"):
        classify(made_up([[0.8, 0.1, 0.1]]), query="patch")
    with pytest.raises(ValueError, match="no rows without sinks"):
        classify(made_up([[0.8, 0.1, 0.1]]), without_sinks=True)


def test_planted_chirp_head_is_monosemantic_and_follows() -> None:
    places = [(1, 2), (5, 5), (3, 0), (6, 1), (2, 4), (4, 3)]
    model = planted()
    before = pictures(places)
    shifted = pictures([((row + 3) % 7, column) for row, column in places])
    change = {"chirp moved": Change(("chirp",), "moved")}
    effects = twin_effects(model, {"chirp moved": (before, shifted)}, change, regions=REGIONS)
    head = effects.query("layer == 0 and head == 1").iloc[0]
    assert head.follow == pytest.approx(1, abs=1e-3)
    assert head.low <= head.follow <= head.high
    assert effects.query("layer == 0 and head == 0")["follow"].item() == pytest.approx(0, abs=1e-4)
    table = classify(attention_statistics(model, before), effects)
    first = table.query("layer == 0 and head == 1").iloc[0]
    assert (first["class"], first["regions"]) == ("monosemantic", "chirp")
    assert table.query("layer == 0 and head == 0")["class"].item() == "diffuse"


def test_planted_place_head_is_positional_or_sink_but_never_about_a_thing() -> None:
    images = random_images(6)
    images["regions"][:] = REGIONS.index("plot background")
    images["regions"][:, 64:96, 96:128] = REGIONS.index("title")  # patch 17 = row 2, column 3
    model = planted(patch=17)
    still = classify(attention_statistics(model, images)).query("layer == 0 and head == 1").iloc[0]
    assert (still["class"], still["regions"]) == ("monosemantic", "title")  # what statistics alone would say
    elsewhere = {name: tensor.clone() for name, tensor in images.items()}
    elsewhere["regions"] = images["regions"].roll(64, dims=1)
    effects = twin_effects(
        model,
        {"title moved": (images, elsewhere)},
        {"title moved": Change(("title",), "moved")},
        regions=REGIONS,
    )
    moved_table = classify(attention_statistics(model, images), effects)
    assert moved_table.query("layer == 0 and head == 1")["class"].item() == "positional"
    sinks = find_sinks(model, {"a": images["pixel_values"], "b": torch.zeros(2, 3, 224, 224)})
    with_sinks = classify(attention_statistics(model, images), effects, sinks)
    assert with_sinks.query("layer == 0 and head == 1")["class"].item() == "sink"


def test_removal_leaves_the_new_place_empty_with_its_reason() -> None:
    before = pictures([(1, 2), (5, 5)])
    after = {"pixel_values": torch.zeros_like(before["pixel_values"]), "regions": before["regions"]}
    effects = twin_effects(
        planted(), {"gone": (before, after)}, {"gone": Change(("chirp",), "removed")}, regions=REGIONS
    )
    head = effects.query("layer == 0 and head == 1").iloc[0]
    assert np.isnan(head.lift_after)
    assert "removed" in head.reason
    assert head.follow == pytest.approx(1 - 1 / 49, abs=0.02)
    has_nan = effects.drop(columns="reason").isna().any(axis=1)
    assert (effects.loc[has_nan, "reason"] != "").all()


def test_twins_differ_only_in_what_is_changed() -> None:
    changes = {name: CHANGES[name] for name in ("chirp removed", "chirp moved", "title removed")}
    twins = make_twins(2, changes=changes)
    before, after = twins["title removed"]
    differs = (before["pixel_values"] != after["pixel_values"]).any(1)
    title = before["regions"] == REGIONS.index("title")
    assert differs[title].float().mean() > 0.9
    rows = differs.any(2).any(0).nonzero().flatten()
    assert rows.max() <= title.any(2).any(0).nonzero().max() + 2
    chirp = REGIONS.index("chirp")
    before, after = twins["chirp moved"]
    assert not torch.equal(before["regions"] == chirp, after["regions"] == chirp)
    assert (after["regions"] == chirp).any()
    outside = (before["regions"] == REGIONS.index("margin")) & (after["regions"] == REGIONS.index("margin"))
    # Colours are scaled to each image's own range, so a few pixels beside the colour bar's tick labels may differ.
    differs = (before["pixel_values"] != after["pixel_values"]).any(1)[outside]
    assert differs.float().mean() < 0.02
    assert Style.published == CHANGES["chirp moved"].after


def test_class_changes_compare_sets_of_regions() -> None:
    before = classify(made_up([[0.4, 0.4, 0.2], [0.8, 0.05, 0.15]]))
    after = classify(made_up([[0.4, 0.4, 0.2], [0.05, 0.05, 0.9]]))
    after.loc[0, "regions"] = "other + thing"
    assert class_changes(before, after)["changed"].tolist() == [False, True]


def test_examining_a_network_is_all_its_steps_in_one() -> None:
    places = [(1, 2), (4, 3), (5, 5)]
    images, model = pictures(places), planted()
    found = examine(model, images, seed=3, regions=REGIONS)
    assert found.effects is None
    assert found.classes.equals(classify(found.statistics, None, found.sinks))
    own = attention_statistics(model, images, sinks=found.sinks.mask, seed=3)
    assert own.regions.equals(found.statistics.regions)
    chirp = found.statistics.regions.query(
        "query == 'cls' and weighting == 'raw' and sinks == 'kept' and region == 'chirp'"
    )
    lift = lifts(found.statistics)[..., REGIONS.index("chirp")]
    assert lift[0, 1] > 10
    np.testing.assert_allclose(lift.ravel(), chirp.sort_values(["layer", "head"])["lift"])
    assert np.isnan(lifts(found.statistics)[..., REGIONS.index("title")]).all()
    assert unmixed(found.statistics)[0, 1].argmax() == REGIONS.index("chirp")


def test_depth_alone_makes_no_correlation_within_layers() -> None:
    heads = pd.DataFrame(
        [(layer, head) for layer in range(5) for head in range(7)], columns=["layer", "head"]
    )
    noise = np.random.default_rng(0).permutation(len(heads)) / 1000
    focus = heads.assign(chirp_weight=heads["layer"] + noise)
    sweep = heads.assign(mode="zero", effect=10.0 * heads["layer"] - 0.001 * heads["head"])
    table = importance_and_focus(focus, pd.concat([sweep, sweep.assign(mode="mean")]), 50)
    assert list(table["mode"]) == ["mean", "mean", "zero", "zero"]
    assert list(table["heads"]) == ["all heads", "within layers"] * 2
    assert (table["correlation"][table["heads"] == "all heads"] > 0.9).all()
    assert (table["correlation"][table["heads"] == "within layers"].abs() < 0.5).all()


def test_the_surest_heads_are_about_something_and_doubtful_ones_need_not_be() -> None:
    kinds = ["sink", "monosemantic", "polysemantic", "diffuse", "monosemantic"]
    classes = pd.DataFrame(
        {"layer": 0, "head": range(5), "class": kinds, "confidence": [1.0, 0.9, 0.8, 0.1, 0.9]}
    )
    listed = surest_and_doubtful(classes.assign(information=[5, 1, 4, 0, 3]), count=2)
    assert list(listed["head_name"]) == ["L1H5", "L1H2", "L1H4", "L1H3"]
    assert list(listed["kind"]) == ["strongest", "strongest", "most doubtful", "most doubtful"]


def test_focus_on_what_no_twin_moves_is_counted_apart_and_said() -> None:
    table = pd.DataFrame(
        {
            "layer": [0, 1, 1, 1],
            "class": ["monosemantic", "monosemantic", "monosemantic", "diffuse"],
            "regions": ["margin", "plot background", "chirp", ""],
        }
    )
    assert judge.about_what_no_twin_moves(table).tolist() == [True, True, False, False]
    assert judge.last_layer_untested(table) == 1
    found = judge.last_layer_is_polysemantic(Count(1, 1, 1, 3), True, 10**6, untested=1)
    assert "1 is about what no twin moves" in found.reason
    assert "without it, 1 of the 3" in found.reason
    assert "no twin" not in judge.last_layer_is_polysemantic(Count(1, 1, 1, 3), True, 10**6).reason
    text = plots.untested(table)
    assert "Of 3 monosemantic heads, **2** are" in text
    assert "1 heads" not in text.split("Without")[0]


def test_the_modes_that_no_rule_asks_are_said_with_intervals() -> None:
    rows = [(mode, "all heads", 0.5, 0.25, 0.75) for mode in ("mean", "zero")]
    table = pd.DataFrame(rows, columns=["mode", "heads", "correlation", "low", "high"])
    assert judge.other_modes(table, "mean") == "zero +0.50 [+0.25, +0.75]"
