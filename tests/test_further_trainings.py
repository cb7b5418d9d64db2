"""What chapters 05, 09 and 12 ask of further trainings: quick asks none, so it is run here, on tiny models."""

import numpy as np
import pandas as pd
import pytest

from vitmech_utils.data.dataset import held_out, training_figures
from vitmech_utils.model.classifier import SweepClassifier
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.profiles import load_profile, repository_root
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.semantics import judge as semantics_judge
from vitmech_utils.studies.semantics import measure as semantics
from vitmech_utils.studies.task import again
from vitmech_utils.studies.task import judge as task_judge
from vitmech_utils.studies.together import judge as together_judge
from vitmech_utils.studies.together import measure as together
from vitmech_utils.studies.trainings import plots as trainings
from vitmech_utils.studies.verdicts import FAILS, HOLDS, IN_PART, UNKNOWN, Judgement

PROFILE = load_profile("quick", root=repository_root())
LAYERS, HEADS = 3, 2


@pytest.fixture(scope="module")
def regressor() -> ChirpRegressor:
    return ChirpRegressor.tiny(seed=0, layers=LAYERS, heads=HEADS).eval()


@pytest.fixture(scope="module")
def twelve() -> dict:
    """The three networks of a training, tiny ones."""
    return {
        "leak": lambda: SweepClassifier.build("tiny", seed=0).merged().eval(),
        "clean": lambda: SweepClassifier.build("tiny", seed=1).merged().eval(),
        "regressor": lambda: ChirpRegressor.build("tiny", seed=0).merged().eval(),
    }


def heads_table() -> pd.DataFrame:
    rows = [(layer, head, "diffuse", "") for layer in range(LAYERS) for head in range(HEADS)]
    return pd.DataFrame(rows, columns=["layer", "head", "class", "regions"])


@pytest.fixture(scope="module")
def together_claim(regressor: ChirpRegressor) -> pd.DataFrame:
    plan = PROFILE.together.model_copy(update={"images": 4, "exact_images": 4, "permutations": 4})
    more = PROFILE.trainings.model_copy(update={"images": 4, "exact_images": 4})
    whole = np.ones((5, 3))
    return together.asked_again(regressor, whole, heads_table(), plan, more, 8, 50)


@pytest.fixture(scope="module")
def task_claim(twelve: dict) -> pd.DataFrame:
    plan = PROFILE.task.model_copy(update={"images": 8, "sweep_every": 4})
    more = PROFILE.trainings.model_copy(update={"attention_images": 6, "images": 3, "exact_images": 2})
    found = again.without_heads(twelve, plan, more, 16)
    assert {one.losses.of().shape[1] for one in found.values()} == {3}
    return again.asked_again(twelve, found, plan, more, 16, 50)


class TestHeadsTogether:
    def test_it_has_the_rows_that_the_rule_reads(self, together_claim: pd.DataFrame) -> None:
        found = together_claim.set_index("quantity")
        assert int(found.loc["layers that differ from the sum", "of"]) == LAYERS
        assert int(found.loc["random sets that differ from the sum", "of"]) == 0
        assert (together_claim["images"] == 4).all()
        assert "rank correlation" not in found.index  # Shapley values of other trainings cost too much

    def test_four_images_are_too_few(self, together_claim: pd.DataFrame) -> None:
        assert together_judge.by_claim(together_claim).lacks == "images"

    def test_all_images_ablated_exactly_give_the_sets_exactly(self, regressor: ChirpRegressor) -> None:
        plan = PROFILE.together.model_copy(update={"images": 4, "exact_images": 4})
        heads, kinds = (
            together.heads_of(heads_table()),
            {"layer": together.named_groups(heads_table())["layer"]},
        )
        reference = training_figures(3)["pixel_values"]
        found = together.estimated(regressor, heads, kinds, plan, reference, 8)
        data = together.held_out_figures(np.arange(4))
        sets = [[head] for head in heads] + together.members(kinds)
        exact = together.predict_without_sets(
            regressor, data["pixel_values"], sets, "mean", reference=reference, replay=False
        ).losses(data["labels"].double())
        np.testing.assert_allclose(found.losses().of().mean(1), exact.of().mean(1), rtol=1e-3, atol=1e-5)

    def test_the_rule_reads_a_claim_as_the_chapter_does(self) -> None:
        rows = [
            ("layers that differ from the sum", 7.0, np.nan, np.nan, 12, 300),
            ("rank correlation", 0.5, 0.4, 0.6, 72, 40),
        ]
        columns = ["quantity", "value", "low", "high", "of", "images"]
        claim = pd.DataFrame(rows, columns=columns)
        assert together_judge.by_claim(claim) == together_judge.single_ablations_miss(
            7, 12, Interval(0.5, 0.4, 0.6), 40
        )
        assert together_judge.by_claim(claim).verdict == HOLDS
        by_layers = claim[:1]
        assert together_judge.by_claim(by_layers) == together_judge.single_ablations_miss(7, 12, None, 300)
        alike = claim.assign(value=[0.0, 0.95], low=[np.nan, 0.92], high=[np.nan, 0.98])
        assert together_judge.by_claim(alike).verdict == FAILS


class TestAnotherTask:
    def test_it_has_every_kind_that_the_rule_reads(self, task_claim: pd.DataFrame) -> None:
        assert set(task_judge.READ) <= set(task_claim["kind"])
        assert set(task_claim[task_claim["kind"] == "shared"]["quantity"]) == {"effect", "attention"}
        assert len(task_claim[task_claim["kind"] == "control"]) == 4
        assert (task_claim["images"] == 6).all()

    def test_six_images_are_too_few(self, task_claim: pd.DataFrame) -> None:
        assert task_judge.by_claim(task_claim).lacks == "images"

    def test_untrained_networks_do_not_show_the_shortcut(self, task_claim: pd.DataFrame) -> None:
        found = task_judge.by_claim(task_claim.assign(images=500))
        assert found.verdict == UNKNOWN
        assert "the planted shortcut does not clearly show" in found.reason


class TestClasses:
    def test_halves_are_classified_apart(self, regressor: ChirpRegressor) -> None:
        images = held_out(4)
        found = semantics.examine(regressor, images)
        halves = semantics.classed_halves(regressor, images, found)
        assert halves.groupby("half").size().tolist() == [LAYERS * HEADS] * 2
        last = semantics.examine_again(regressor, images, semantics.make_twins(2), 2, 2)
        assert len(last.classes) == LAYERS * HEADS
        half = halves[halves["half"] == 1].reset_index(drop=True)
        np.testing.assert_allclose(half["map_entropy"], last.classes["map_entropy"], rtol=1e-6)

    def test_the_chirp_s_weight_is_a_share(self, regressor: ChirpRegressor) -> None:
        focus = semantics.chirp_focus(semantics.examine(regressor, held_out(3)))
        assert list(focus.columns) == ["layer", "head", "chirp_weight"]
        assert focus["chirp_weight"].between(0, 1).all()

    def test_a_training_is_judged_as_the_chapter_s_own(self) -> None:
        classes = pd.DataFrame(
            [
                (layer, head, "monosemantic", "chirp", 1.0, 0.5, "none", np.nan)
                for layer in range(12)
                for head in range(6)
            ],
            columns=["layer", "head", "class", "regions", "confidence", "map_entropy", "threshold", "value"],
        )
        sweep = classes[["layer", "head"]].assign(mode="mean", effect=5.0, low=4.0, high=6.0, images=500)
        link = Interval(0.6, 0.5, 0.7), Interval(0.1, -0.1, 0.3)
        counts, judged = semantics_judge.judged(classes, classes, sweep, link, 100)
        assert {name: one.verdict for name, one in judged.items()} == {
            "C3": HOLDS, "C4": FAILS, "C5": FAILS, "C6": IN_PART
        }  # fmt: skip
        assert counts["C3"].value == 36


def test_one_claim_in_each_training_by_its_own_table() -> None:
    def rule(table: pd.DataFrame) -> Judgement:
        return Judgement(HOLDS if table["value"].iloc[0] > 0 else FAILS, "so it is")

    own, others = (
        pd.DataFrame({"value": [1.0], "images": [200]}),
        pd.DataFrame({"value": [1.0, -1.0], "images": [96, 50], "training": ["seed 1", "seed 2"]}),
    )
    table = trainings.by_claims("Q5", rule, own, others, 0)
    assert table["training"].tolist() == ["seed 0", "seed 1", "seed 2"]
    assert table["verdict"].tolist() == [HOLDS, HOLDS, FAILS]
    assert table["images"].tolist() == [200, 96, 50]
    alone = trainings.by_claims("Q5", rule, own, others[:0], 0)
    assert alone["training"].tolist() == ["seed 0"]


@pytest.mark.parametrize(
    ("agreement", "said"),
    [
        ([0.4, 0.5], "no better partners"),
        ([0.9, 0.8], "finds better partners"),
        ([0.4, 0.8], "depends on what"),
    ],
)
def test_what_matching_found_is_said(agreement: list[float], said: str) -> None:
    table = pd.DataFrame(
        {"first": "seed 0", "second": "seed 1", "matched_by": ["attention", "effect", "both"], "same_head": 0.5,
         "same_layer": 0.6, "agreement": [*agreement, np.nan], "by_number": 0.7, "by_chance": 0.3, "low": 0.2,
         "high": 0.6, "heads": 72}
    )  # fmt: skip
    text = trainings.matches(table)
    assert said in text
    assert f"({agreement[0]:.2f} against 0.70 in the first)" in text
    assert f"In {sum(value > 0.6 for value in agreement)} of 2" in text
