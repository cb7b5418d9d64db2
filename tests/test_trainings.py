"""Several trainings side by side: heads found again under other numbers, orders and classes beside their ceilings."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from vitmech_utils.artefacts import RunError
from vitmech_utils.data.dataset import ChirpDataset
from vitmech_utils.model import scores
from vitmech_utils.profiles import ProfileError, load_profile, parse_override, repository_root
from vitmech_utils.runs.run_folders import published_adapter
from vitmech_utils.studies.trainings import judge, measure, plots
from vitmech_utils.studies.verdicts import FAILS, HOLDS, IN_PART, UNKNOWN, Judgement

LAYERS, HEADS = 6, 6
LAYER, HEAD = (axis.ravel() for axis in np.indices((LAYERS, HEADS)))


def looks(shares: np.ndarray) -> pd.DataFrame:
    table = pd.DataFrame(shares, columns=[f"region {number}" for number in range(shares.shape[1])])
    return table.assign(layer=LAYER, head=HEAD)


@pytest.fixture
def model() -> tuple[np.ndarray, np.ndarray]:
    """Attention shares and effects on three targets of heads that all differ."""
    rng = np.random.default_rng(0)
    return rng.dirichlet(np.ones(5), LAYERS * HEADS), rng.normal(size=(LAYERS * HEADS, 3))


def test_heads_are_found_under_other_numbers(model) -> None:
    shares, effects = model
    order = np.random.default_rng(1).permutation(
        len(shares)
    )  # head order[i] of the first is head i of the second
    place = measure.matched_heads(shares, shares[order])
    assert (order[place] == np.arange(len(shares))).all()
    tables = {"seed 0": looks(shares), "seed 1": looks(shares[order])}
    found = measure.matching(tables, {"seed 0": effects, "seed 1": effects[order]}, draws=200)
    by = found.set_index("matched_by")
    assert by.loc["attention", "agreement"] == pytest.approx(1)
    assert by.loc["effect", "agreement"] == pytest.approx(0, abs=1e-9)
    for name in ("attention", "effect"):
        row = by.loc[name]
        assert row["agreement"] > row["high"] > row["by_chance"] > row["low"]
        assert row["by_number"] < row["high"], "the numbers say nothing here"
        assert row["same_head"] == np.mean(order == np.arange(len(order)))
    assert np.isnan(by.loc["both", "agreement"])


def test_a_training_is_matched_to_itself_by_number(model) -> None:
    shares, effects = model
    tables = {name: looks(shares) for name in ("seed 0", "seed 1", "seed 2")}
    found = measure.matching(tables, dict.fromkeys(tables, effects), draws=20)
    assert found["second"].tolist() == ["seed 1"] * 3 + ["seed 2"] * 3
    assert (found[["same_head", "same_layer"]] == 1).all(axis=None)


def test_strangers_agree_no_more_than_chance(model) -> None:
    shares, effects = model
    rng = np.random.default_rng(7)
    other = rng.dirichlet(np.ones(5), LAYERS * HEADS), rng.normal(size=effects.shape)
    found = measure.matching(
        {"seed 0": looks(shares), "seed 1": looks(other[0])},
        {"seed 0": effects, "seed 1": other[1]},
        draws=300,
    ).set_index("matched_by")
    row = found.loc["attention"]
    assert row["low"] <= row["agreement"] <= row["high"]


def test_other_numbers_of_heads_are_refused(model) -> None:
    with pytest.raises(ValueError, match=r"got \(36, 5\) and \(35, 5\), expected two equal shapes"):
        measure.matched_heads(model[0], model[0][1:])


def test_an_assignment_is_the_best_of_all() -> None:
    rng = np.random.default_rng(3)
    one, other = rng.normal(size=(2, 5, 2))
    distance = np.linalg.norm(one[:, None] - other[None], axis=-1)
    best = min(itertools.permutations(range(5)), key=lambda order: distance[range(5), order].sum())
    assert measure.matched_heads(one, other).tolist() == list(best)


def test_orders_are_held_against_what_a_training_keeps_of_its_own() -> None:
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(40, 1))
    noisy = {f"seed {n}": {"effect": signal + rng.normal(size=(40, 300))} for n in range(2)}
    noisy["seed 2"] = {"effect": rng.normal(size=(40, 1)) + rng.normal(size=(40, 200))}
    found = measure.order_agreement(noisy, draws=100).set_index(["first", "second"])
    assert found.loc[("seed 0", "seed 1"), "share"] == pytest.approx(1, abs=0.05)
    assert abs(found.loc[("seed 0", "seed 2"), "share"]) < 0.5
    assert found["images"].tolist() == [300, 200, 200]
    assert measure.order_agreement({"seed 0": noisy["seed 0"]}).empty


def classes(kinds: list[str], regions: str = "") -> pd.DataFrame:
    return pd.DataFrame({"layer": LAYER, "head": HEAD, "class": kinds, "regions": regions})


def test_classes_are_counted_beside_other_images_and_chance() -> None:
    one = classes(["sink", "diffuse", "positional"] * 12)
    moved = classes(["diffuse", "sink", "positional"] * 12)
    found = measure.class_agreement({"seed 0": one, "seed 1": moved}, (one, one), draws=500)
    assert found["second"].tolist() == ["seed 0, other images", "seed 1"]
    assert found["same_class"].tolist() == [36, 12]
    assert found.loc[0, "by_chance"] == pytest.approx(12, abs=0.5)  # two of each kind in a layer of six
    assert found.loc[0, "at_most"] < 36
    other = measure.class_agreement(
        {"seed 0": one, "seed 1": classes(list(one["class"]), "chirp")}, (one, one)
    )
    assert other.loc[1, ["same_class", "same_regions"]].tolist() == [36, 0]


def test_verdicts_of_all_trainings_make_one_table() -> None:
    said = {"seed 0": (HOLDS, FAILS), "seed 1": (HOLDS, HOLDS), "seed 2": (HOLDS, UNKNOWN)}
    judged = {
        name: {
            claim: Judgement(verdict, "so", "images" if verdict == UNKNOWN else "") for claim, verdict in both
        }
        for name, both in {name: zip(("C1", "C2"), pair, strict=True) for name, pair in said.items()}.items()
    }
    table = judge.verdicts_table(judged, {"seed 0": 1000, "seed 1": 500, "seed 2": 500})
    assert table["claim"].tolist() == ["C1"] * 3 + ["C2"] * 3
    assert {claim: one.verdict for claim, one in judge.over_all(table).items()} == {
        "C1": HOLDS,
        "C2": IN_PART,
    }
    text = plots.verdicts(table)
    assert "| C2 | does not hold | holds | undecided (too few images) | holds in part |" in text
    assert "seed 0 (1,000 images)" in text
    assert plots.verdicts(judge.verdicts_table({"seed 0": judged["seed 0"]}, {"seed 0": 9})) == plots.ALONE


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_published_answers_are_those_that_the_score_is_of(seed: int) -> None:
    folder = repository_root() / published_adapter(seed)
    found = scores.kept_reading(folder)
    rows = pd.DataFrame(json.loads((folder / "score.json").read_text())["score"])
    for place, r in enumerate(rows["r"]):
        assert np.corrcoef(found["predictions"][:, place], found["labels"][:, place])[0, 1] == pytest.approx(
            r, abs=1e-4
        )
        assert rows["low"][place] >= 0.9841, "what the study's model reaches"
    assert (found["labels"][3] == ChirpDataset(4, split="held-out")[3]["labels"].numpy()).all()


def test_answers_are_kept_and_their_absence_is_named(tmp_path) -> None:
    with pytest.raises(RunError, match=r"answers.safetensors is not there"):
        scores.kept_reading(tmp_path)
    scores.save_answers(tmp_path, np.ones((2, 3), np.float32), np.zeros((2, 3), np.float32))
    assert load_file(tmp_path / scores.ANSWERS)["answers"].shape == (2, 3)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"trainings.seeds": "[0]"}, "expected others than the first of seeds, 0"),
        ({"trainings.seeds": "[1, 1]"}, "expected each once"),
        ({"trainings.exact_images": 99999}, "expected at most images"),
    ],
)
def test_trainings_that_do_not_fit_are_refused(values, said) -> None:
    told = dict(parse_override(f"{key}={value}") for key, value in values.items())
    with pytest.raises(ProfileError, match=said):
        load_profile("laptop", told)
