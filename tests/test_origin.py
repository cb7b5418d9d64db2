"""Comparing two networks head by head: planted changes are found, none are invented; and the linear readout."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from vitmech_utils.data.dataset import ChirpDataset, stack
from vitmech_utils.data.regions import REGIONS
from vitmech_utils.heads.attention import attention_statistics
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.model.classifier import cls_features, ridge_regression, with_readout
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.studies.origin import measure
from vitmech_utils.studies.origin.measure import (
    GROUPS,
    SUBJECTS,
    apart,
    clear_changes,
    fates,
    in_brief,
    joined,
    lift_changes,
    recipe_table,
    subjects,
    total_change,
    transitions,
)

IMAGES = stack(ChirpDataset(6, seed=5, split="held-out"), 6)


def statistics(model: nn.Module, images=IMAGES, seed: int = 0, replicates: int = 100):
    return attention_statistics(model, images, replicates=replicates, seed=seed)


def table(*heads: tuple[str, str, float]) -> pd.DataFrame:
    """A table of classes: one head of layer 0 after the other."""
    frame = pd.DataFrame(heads, columns=["class", "regions", "confidence"])
    return frame.assign(layer=0, head=range(len(heads)))


@pytest.fixture(scope="module")
def pair() -> tuple[ChirpRegressor, ChirpRegressor]:
    """Two networks that differ in the query weights of one head: layer 1, head 2 of the second asks 8 times as hard."""
    one, other = ChirpRegressor.tiny(3, layers=3, heads=4), ChirpRegressor.tiny(3, layers=3, heads=4)
    anatomy = find_blocks(other)
    with torch.no_grad():
        anatomy.blocks[1].query.weight[anatomy.columns(2)] *= 8
    return one, other


def test_a_network_does_not_differ_from_itself(pair) -> None:
    found = lift_changes(statistics(pair[0]), statistics(pair[0]))
    assert (found[["doublings", "low", "high"]] == 0).all(axis=None)
    assert (found["p_value"] == 1).all()
    assert len(found) == 3 * 4 * found["region"].nunique()
    assert total_change(found)["change"].max() == 0


def test_a_planted_change_is_found_where_it_was_planted_and_not_before(pair) -> None:
    found = lift_changes(*(statistics(model) for model in pair))
    assert (found[found["layer"] == 0]["doublings"].abs() < 1e-6).all()
    by_head = total_change(found[found["layer"] == 1]).set_index("head")["change"]
    assert by_head.idxmax() == 2
    assert (by_head.drop(2) < 1e-6).all()


def test_doublings_are_those_of_the_tables_of_lifts(pair) -> None:
    one, other = (statistics(model) for model in pair)
    found = lift_changes(one, other).set_index(["layer", "head", "region"])
    where = "query == 'cls' and weighting == 'raw' and sinks == 'kept'"
    lifts = [s.regions.query(where).set_index(["layer", "head", "region"])["lift"] for s in (one, other)]
    expected = np.log2(lifts[1] / lifts[0])[found.index]
    np.testing.assert_allclose(found["doublings"], expected, atol=1e-6)


def test_a_paired_interval_is_narrower_than_two_unpaired_ones(pair) -> None:
    one, other = (statistics(model) for model in pair)
    paired = lift_changes(one, other)
    unpaired = lift_changes(one, statistics(pair[1], seed=1))
    for found in (paired, unpaired):
        found["width"] = found["high"] - found["low"]
    assert paired["width"].median() < 0.8 * unpaired["width"].median()


def test_one_image_or_a_missing_replicate_is_no_evidence(pair) -> None:
    single = {name: tensor[:1] for name, tensor in IMAGES.items()}
    found = lift_changes(*(statistics(model, single) for model in pair))
    assert found["doublings"].abs().max() > 0.01
    assert (found["p_value"] == 1).all()
    one, other = (statistics(model) for model in pair)
    share = other.replicates["share"]
    share[1:, ..., REGIONS.index("title")] = 0  # as a head that looks there in no redrawn set of images
    title = lift_changes(one, other).set_index("region").loc["title"]
    assert (title["p_value"] == 1).all()
    assert title[["low", "high"]].isna().all(axis=None)


def test_statistics_of_other_images_or_networks_are_refused(pair) -> None:
    few = {name: tensor[:4] for name, tensor in IMAGES.items()}
    with pytest.raises(ValueError, match=r"differ in images \(6 and 4\).*same images"):
        lift_changes(statistics(pair[0]), statistics(pair[0], few))
    smaller = ChirpRegressor.tiny(3, layers=2, heads=4)
    with pytest.raises(ValueError, match=r"expected one shape"):
        lift_changes(statistics(pair[0]), statistics(smaller))


def test_subjects_name_what_a_head_is_about() -> None:
    assert set().union(*GROUPS.values()) == set(REGIONS)
    heads = table(
        ("monosemantic", "chirp", 1.0),
        ("polysemantic", "title + colour-bar label", 1.0),
        ("polysemantic", "title + frame", 1.0),
        ("monosemantic", "frame", 1.0),
        ("sink", "", 1.0),
        ("positional", "", 1.0),
    )
    found = subjects(heads).tolist()
    assert found == ["chirp", "text", "several things", "edge", "nothing", "nothing"]
    assert set(found) <= set(SUBJECTS)


def test_fates_balance_and_know_what_is_sure() -> None:
    before = table(
        ("monosemantic", "title", 1.0),
        ("monosemantic", "title", 0.6),
        ("monosemantic", "title", 1.0),
        ("sink", "", 1.0),
        ("sink", "", 1.0),
    )
    after = table(
        ("monosemantic", "tick label", 1.0),
        ("monosemantic", "title", 1.0),
        ("sink", "", 1.0),
        ("monosemantic", "title", 1.0),
        ("monosemantic", "chirp", 0.9),
    )
    found = fates(transitions(before, after)).set_index("subject")
    assert found.loc["text", ["before", "after", "kept", "appeared", "vanished"]].tolist() == [3, 3, 2, 1, 1]
    assert found.loc["text", ["kept_sure", "appeared_sure", "vanished_sure"]].tolist() == [1, 1, 1]
    assert found.loc["chirp", ["appeared", "appeared_sure"]].tolist() == [1, 0]
    assert (found["kept"] + found["vanished"] == found["before"]).all()
    assert (found["kept"] + found["appeared"] == found["after"]).all()


def test_a_head_about_several_things_counts_for_each() -> None:
    both, one = table(("polysemantic", "title + frame", 1.0)), table(("monosemantic", "frame", 1.0))
    found = fates(transitions(both, one)).set_index("subject")
    assert found.loc["text", ["before", "vanished"]].tolist() == [1, 1]
    assert found.loc["edge", ["before", "kept"]].tolist() == [1, 1]


def test_a_head_that_stands_twice_is_refused() -> None:
    twice = pd.concat([table(("sink", "", 1.0))] * 2)
    with pytest.raises(pd.errors.MergeError):
        transitions(twice, twice)


def test_ridge_finds_a_planted_linear_map_and_does_not_follow_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 12, generator=generator, dtype=torch.float64)
    planted = torch.randn(3, 12, generator=generator, dtype=torch.float64)
    weight, bias = ridge_regression(features, features @ planted.T + 5)
    torch.testing.assert_close(weight, planted, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(bias, torch.full((3,), 5.0, dtype=torch.float64), atol=1e-3, rtol=1e-3)
    noise = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    shrunk, _ = ridge_regression(features, noise)
    free = torch.linalg.lstsq(features - features.mean(0), noise - noise.mean(0)).solution.T
    assert (shrunk.norm(dim=1) < 0.5 * free.norm(dim=1)).all()


def test_the_penalty_has_the_least_leave_one_out_error() -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(15, 30, generator=generator, dtype=torch.float64)  # more features than images
    labels = features[:, :3] + torch.randn(15, 3, generator=generator, dtype=torch.float64)
    weight, bias = ridge_regression(features, labels)
    assert torch.isfinite(weight).all()
    assert (features @ weight.T + bias - labels).square().mean() < labels.var()


def test_a_readout_reads_more_than_the_mean_and_leaves_the_backbone_alone() -> None:
    model = ChirpRegressor.tiny(0, layers=2, heads=4)
    train = ChirpDataset(60, seed=0)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    readout = with_readout(model, train)
    features, labels = cls_features(model, train)
    predicted = features @ readout.head[0].weight.double().T + readout.head[0].bias.double()
    assert (predicted - labels).square().mean() < labels.var(0).mean()
    pixels = stack(train, 2)["pixel_values"]
    with torch.inference_mode():
        torch.testing.assert_close(readout(pixels).logits.double(), predicted[:2], atol=1e-4, rtol=1e-4)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_a_readout_refuses_what_it_cannot_be_fitted_on() -> None:
    model = ChirpRegressor.tiny(0, layers=2, heads=4)
    with pytest.raises(ValueError, match="1 images, expected at least 2"):
        with_readout(model, ChirpDataset(1, seed=0))
    with pytest.raises(ValueError, match=r"merged\(\)"):
        with_readout(ChirpRegressor.build("tiny", seed=0), ChirpDataset(4, seed=0))


def test_tables_of_networks_are_joined_and_taken_apart_in_order() -> None:
    tables = {
        "fine-tuned": table(("sink", "", 0.9), ("diffuse", "", 0.5)),
        "bare": table(("monosemantic", "title", 1.0)),
    }
    again = apart(joined(tables))
    assert list(again) == ["fine-tuned", "bare"]
    for name, frame in tables.items():
        pd.testing.assert_frame_equal(again[name], frame)


def test_clear_changes_are_counted_up_and_down_and_zero_where_there_are_none() -> None:
    rows = [
        ("chirp", 2.0, 0.01),
        ("chirp", 1.0, 0.01),
        ("chirp", -1.0, 0.04),
        ("title", -3.0, 0.06),
        ("margin", 1.0, 0),
    ]
    one = pd.DataFrame(rows, columns=["region", "doublings", "q_value"])
    counts = clear_changes({"one": one, "none": one.assign(q_value=1.0)}).set_index(["region", "direction"])
    assert counts.loc[("chirp", "more")].tolist() == [2, 0]
    assert counts.loc[("chirp", "less")].tolist() == [1, 0]
    assert counts["one"].sum() == 3, (
        "a region that is not compared does not count, nor does an unclear change"
    )


def test_trainings_are_compared_by_what_they_must_share_and_not_by_precision() -> None:
    record = {
        "steps": 7,
        "batch_size": 4,
        "distinct_images": 28,
        "seed": 0,
        "history": [{"learning_rate": None}],
    }
    record["history"] += [{"learning_rate": 1e-3}, {"learning_rate": 5e-4}]
    other = record | {"restart": 3, "precision": "bfloat16"}
    both = {"bare": in_brief(other), "fine-tuned": in_brief(record)}
    table_of_both = recipe_table(both)
    assert list(table_of_both) == ["fine-tuned", "bare"]
    assert table_of_both.loc["largest learning rate"].tolist() == [1e-3, 1e-3]
    differing = table_of_both.index[table_of_both["fine-tuned"] != table_of_both["bare"]]
    assert list(differing) == ["restart at step"]
    assert [both[name]["precision"] for name in table_of_both] == ["not recorded", "bfloat16"]


def test_trainings_are_held_against_each_other_and_each_against_its_bare_one() -> None:
    one = pd.DataFrame({"layer": [0, 0], "head": [0, 1], "class": ["sink", "diffuse"], "regions": ["", ""]})
    other = one.assign(**{"class": ["sink", "sink"]})
    classes = {"seed 0": {"fine-tuned": one, "bare": other}, "seed 1": {"fine-tuned": one, "bare": one}}
    table = measure.class_agreements(classes)
    assert table["first"].tolist() == ["seed 0", "seed 0", "seed 1"]
    assert table["second"].tolist() == ["seed 1", "seed 0, bare figures", "seed 1, bare figures"]
    assert table["same_class"].tolist() == [2, 1, 2]
