"""The study of one head: places by the axes, kinds of patches, slopes and correlations, and a planted pointer."""

import numpy as np
import pandas as pd
import pytest
import torch

from vitmech_utils.data.chirps import LABEL_NAMES, LABEL_STD
from vitmech_utils.data.dataset import REGIONS, ChirpDataset, stack
from vitmech_utils.heads.one_head import HeadReading
from vitmech_utils.heads.paths import MLP, READOUT
from vitmech_utils.profiles import load_profile
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.mechanism import judge, measure, plots

NUMBER = {name: REGIONS.index(name) for name in REGIONS}


def regions() -> torch.Tensor:
    """One map of 6 x 8 pixels: a plot of 4 x 4 pixels from row 2 and column 2 on, with a chirp in its first column."""
    found = torch.full((1, 6, 8), NUMBER["margin"], dtype=torch.uint8)
    found[:, 2:, 2:6] = NUMBER["plot background"]
    found[:, 2:4, 2] = NUMBER["chirp"]
    return found


def test_places_are_read_off_the_plots_axes():
    places = measure.patch_places(regions(), 2).unflatten(0, (3, 4))
    np.testing.assert_allclose(places[0, :, 0], [-15, 15, 45, 75])  # 60 s over two patches
    np.testing.assert_allclose(places[:, 0, 1], [125, 75, 25])  # 100 Hz over two patches, from the bottom up
    with pytest.raises(ValueError, match="show no plot"):
        measure.patch_places(torch.zeros(1, 4, 4, dtype=torch.uint8), 2)


def test_places_of_real_figures_find_the_chirp():
    images = stack(ChirpDataset(6, seed=3, split="held-out"), 6)
    places = measure.patch_places(images["regions"], 14)
    kinds = measure.patch_kinds(images["regions"], 14)
    labels = images["labels"].numpy() * LABEL_STD + np.array([22.5, 50, 50])
    for chirp, (start, low, high) in zip(kinds["chirp"], labels, strict=True):
        seconds, hertz = places[chirp].T
        assert start - 6 < seconds.min()  # a patch is wider than 6 s
        assert seconds.max() < start + 15 + 6
        assert min(low, high) - 9 < hertz.mean() < max(low, high) + 9


def test_each_patch_is_of_one_kind_at_most():
    kinds = measure.patch_kinds(regions(), 2)
    assert kinds["chirp"][0].nonzero().flatten().tolist() == [5]
    assert kinds["background"][0].nonzero().flatten().tolist() == [6, 9, 10]
    assert int(sum(kind.int() for kind in kinds.values()).max()) == 1


def test_where_a_head_looks_leaves_cls_out():
    value = torch.zeros(1, 3, 2, dtype=torch.float64)
    logits = torch.log(torch.tensor([0.5, 0.1, 0.4], dtype=torch.float64)) * 2**0.5
    key = torch.stack([logits, torch.zeros(3, dtype=torch.float64)], 1)[None]
    query = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(1, 3, 2)
    reading = HeadReading(query, key, value, torch.zeros(1, 3))
    places = torch.tensor([[10.0, 50.0], [20.0, 100.0]], dtype=torch.float64)
    np.testing.assert_allclose(measure.attended(reading, places), [[18, 90]])


def pointed(images: int = 60, noise: float = 0.0, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"seconds": rng.normal(0, 20, images), "hertz": rng.normal(0, 30, images)})
    for name, (a, b, c) in zip(LABEL_NAMES, [(0.3, 0.05, 1), (0.1, 0.4, -2), (0.0, 0.2, 0)], strict=True):
        exact = a * table["seconds"] + b * table["hertz"] + c
        table[f"shift_{name}"] = exact + noise * rng.normal(size=images)
    return table


def test_a_planted_account_is_found_and_tells_other_images():
    table = pointed()
    account = measure.fit_account(table[:20])
    np.testing.assert_allclose(account, [[0.3, 0.1, 0.0], [0.05, 0.4, 0.2], [1, -2, 0]], atol=1e-12)
    found = measure.judge_account(account, table[20:], 200).set_index("target")
    np.testing.assert_allclose(found["slope"], [0.3, 0.4, 0.2])
    np.testing.assert_allclose(found[["correlation", "low", "high"]], 1)
    np.testing.assert_allclose(found[["low_slope", "high_slope"]].to_numpy().T, [[0.3, 0.4, 0.2]] * 2)


def test_intervals_hold_a_slope_beneath_noise_as_often_as_they_say():
    truth, held = np.array([0.3, 0.4, 0.2]), []
    for seed in range(60):
        table = pointed(images=80, noise=5.0, seed=seed)
        found = measure.judge_account(measure.fit_account(table[:40]), table[40:], 400)
        held.append((found["low_slope"] < truth) & (truth < found["high_slope"]))
        assert (found["low"] <= found["correlation"]).all()
        assert (found["high"] < 1).all()
    assert 0.86 < np.mean(held) < 0.99


def test_the_slope_and_the_correlation_are_those_of_numpy():
    rng = np.random.default_rng(4)
    along, across = rng.normal(size=(2, 30))
    shift = 2 * along - across + rng.normal(size=30)
    fitted = np.linalg.lstsq(np.c_[along, across, np.ones(30)], shift, rcond=None)[0]
    assert measure.slope_interval(along, across, shift, 100).value == pytest.approx(fitted[0])
    assert measure.correlation_interval(along, shift, 100).value == pytest.approx(
        np.corrcoef(along, shift)[0, 1]
    )


def test_parts_share_no_image_and_further_trainings_are_asked_once():
    profile = load_profile("quick")
    plan = profile.mechanism
    parts = measure.held_out_parts(plan)
    every = torch.cat([part["pixel_values"] for part in (parts.choice, parts.fit, parts.test)])
    assert len(every) == plan.choice_images + 2 * plan.images
    assert len(torch.unique(every.flatten(1), dim=0)) == len(every)
    more = load_profile("quick", {"mechanism.further": [0, 2]})
    assert measure.seeds_of(more) == [0, 2]


def test_parts_of_the_model_are_named_from_one():
    assert measure.part_name((9, 4)) == "layer 10, head 5"
    assert measure.part_name((0, MLP)) == "MLP 1"
    assert measure.part_name(READOUT) == "straight to the readout"


def test_tables_name_every_training_and_the_head_found_in_it():
    rows = [
        {"role": "strongest", "layer": 9, "head": 4, "effect": 50.0, "low": 40.0, "high": 60.0, "images": 8},
        {"role": "control", "layer": 9, "head": 0, "effect": 1.0, "low": 0.0, "high": 2.0, "images": 8},
    ]
    studied = {
        name: measure.Studied({"heads": pd.DataFrame(rows)}, {}) for name in ("training 0", "training 1")
    }
    table = measure.joined(studied, "heads")
    assert list(table["training"]) == ["training 0"] * 2 + ["training 1"] * 2
    text = plots.opening(table)
    assert text.count("layer 10, head 5") == 2
    assert measure.head_of(table, "control") == (9, 0)


def test_the_reason_names_what_passes_where_and_which_bound_fails():
    def of(low, slope=0.3):
        return (
            Interval(0.9, low, 0.95),
            Interval(slope, slope - 0.1, slope + 0.1),
            Interval(0.0, -0.05, 0.05),
        )

    found = {
        "training 0": {"start_time": of(0.797), "start_freq": of(0.85)},
        "training 1": {"start_time": of(0.85, 0.1), "start_freq": of(0.5, 0.1)},
    }
    assert judge.passing(found) == {"training 0": ["start_freq"], "training 1": []}
    passes, low, near = judge.answer_follows(found, judge.ENOUGH_IMAGES).reason.split("; ")
    assert passes.endswith(": start frequency in training 0 (correlation 0.900 [0.850, 0.950])")
    assert "1 of 4" in passes
    assert low.endswith(
        "above 0.8, fails for start time in training 0 (0.797), start frequency in training 1 (0.500)"
    )
    assert near.count("in training 1 (0.100 [0.000, 0.200], control 0.000 [-0.050, 0.050])") == 2
    assert judge._weakest(found, judge.passing(found))[:2] == ("training 0", "start_freq")
