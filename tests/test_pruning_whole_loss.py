"""Chapter 08's changes of the error in percent of the held-out loss: by hand, and never of few images' own error."""

import numpy as np
import pandas as pd
import pytest

from vitmech_utils.studies.pruning import whole_loss

LABELS = np.zeros((4, 3))
HELD_OUT = np.full((100, 3), 0.5)


def answers(*errors: float) -> np.ndarray:
    """One squared error an image."""
    return np.sqrt(np.array(errors))[:, None].repeat(3, 1)


FOUND = {
    "unpruned": answers(1, 1, 1, 1), "pruned": answers(2, 2, 2, 2), "pruned, recovered": answers(2, 1, 2, 1),
    "trained on": answers(1, 1, 1, 1),
}  # fmt: skip


def test_effects_are_differences_over_the_held_out_loss() -> None:
    table = pd.DataFrame({"name": [*FOUND]})
    for kind in ("", "_same_training"):
        table[[f"effect{kind}", f"low{kind}", f"high{kind}"]] = np.nan if kind else 7.0
    table.loc[table["name"].isin(["pruned, recovered", "trained on"]), "effect_same_training"] = 7.0
    found = whole_loss.in_percent(table, FOUND, LABELS, HELD_OUT, "trained on", 200).set_index("name")
    assert found.loc["unpruned", ["effect", "low", "high"]].tolist() == [0, 0, 0]
    assert found.loc["pruned", "effect"] == pytest.approx(200)
    assert found.loc["pruned", ["low", "high"]].tolist() == pytest.approx([200, 200])
    assert found.loc["pruned, recovered", "effect_same_training"] == pytest.approx(100)
    assert found.loc["pruned, recovered", "low_same_training"] < 100
    assert found.loc[["unpruned", "pruned"], "effect_same_training"].isna().all()
    assert table.loc[1, "effect"] == 7.0, "the table given stays as it was"


def test_means_of_draws_are_rescaled_and_their_own_intervals_left_out() -> None:
    table = pd.DataFrame({"draw": ["draw 1"], "effect": [50.0], "low": [1.0], "high": [99.0]})
    found = whole_loss.rescaled(table, FOUND["unpruned"], LABELS, HELD_OUT)
    assert found.to_dict("list") == {"draw": ["draw 1"], "effect": [100.0]}


def test_a_longer_recovery_stands_against_three_models() -> None:
    kept = {"early gone": answers(3, 3, 3, 3), "whole": answers(2, 2, 2, 2)}
    reading = {"predictions": FOUND["unpruned"], "labels": LABELS}
    row = whole_loss.long_in_percent(kept, reading, 100).iloc[0]
    assert (row["name"], row["images"]) == ("early gone", 4)
    assert [row[f"effect{kind}"] for kind in ("", "_same_training", "_control")] == pytest.approx(
        [200, 100, 100]
    )
    assert whole_loss.long_in_percent({}, reading, 100).empty


def test_the_held_out_losses_are_those_of_chapter_02() -> None:
    reading = {"predictions": answers(4, 9), "labels": np.zeros((2, 3))}
    np.testing.assert_allclose(whole_loss.held_out(reading), [[4] * 3, [9] * 3])
