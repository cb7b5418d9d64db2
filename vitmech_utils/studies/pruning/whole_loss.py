"""Changes of the error in percent of the whole model's loss on all held-out images, as other chapters give effects.

The images that pruned models are tested on are few. A change in percent of their own error is a quotient of two means
that one image can decide; the loss on thousands of images divides it once and for all.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.intervals import mean_interval
from vitmech_utils.model.scores import held_out_losses
from vitmech_utils.statistics import Interval

Answers = Float[ndarray, "image target"]
KINDS = {"": "unpruned", "_same_training": None}
"""Endings of the columns of effects, and the model that each is held against; None for the control."""


@checked_arguments()
def held_out(reading: Mapping[str, Float[ndarray, "held_out target"]]) -> Float[ndarray, "held_out target"]:
    """The whole model's losses on all held-out images, from chapter 02's answers and labels."""
    return held_out_losses(reading)


@checked_arguments()
def in_percent(
    table: pd.DataFrame,
    predictions: Mapping[str, Answers],
    labels: Answers,
    held_out: Float[ndarray, "held_out target"],
    control: str,
    bootstrap: int,
) -> pd.DataFrame:
    """A table of `measure.trial_table` with its effects in percent of the loss on the held-out images.

    Effects are those of paired differences, image by image, with intervals as `mean_interval` has them; `held_out` are
    the whole model's losses, `control` is the model that recovered ones are held against.
    """
    table = table.copy()
    for kind, against in KINDS.items():
        asked = table[f"effect{kind}"].notna()
        for place, name in table.loc[asked, "name"].items():
            pair = predictions[name], predictions[against or control]
            found = _change(*pair, labels, held_out, bootstrap)
            table.loc[place, [f"effect{kind}", f"low{kind}", f"high{kind}"]] = (
                found.value,
                found.low,
                found.high,
            )
    return table


@checked_arguments()
def rescaled(
    table: pd.DataFrame,
    unpruned: Answers,
    labels: Answers,
    held_out: Float[ndarray, "held_out target"],
) -> pd.DataFrame:
    """The mean effects of a table, from percent of the test images' own error to percent of the held-out loss."""
    factor = float(np.mean((unpruned - labels) ** 2)) / float(held_out.mean())
    return table.assign(effect=table["effect"] * factor)[
        [*table.columns.drop(["low", "high"], errors="ignore")]
    ]


@checked_arguments()
def long_in_percent(
    kept: Mapping[str, Answers], reading: Mapping[str, Answers], bootstrap: int
) -> pd.DataFrame:
    """The longer recovery as one row: name, images, effect, low, high against the model as it was, in percent of the
    loss on the held-out images; the same with _same_training against the whole model trained as long, and with _control
    of that one.

    `kept` are the answers of the pruned model, then of the control, on the images that the model as it was was read on:
    `reading` holds its `predictions` and the `labels`. No row where `kept` is empty.
    """
    if not kept:
        return pd.DataFrame()
    unpruned, labels, whole = reading["predictions"], reading["labels"], held_out_losses(reading)
    name, control = kept
    row: dict[str, str | float] = {"name": name, "images": len(labels)}
    for kind, pair in {
        "": (kept[name], unpruned),
        "_same_training": (kept[name], kept[control]),
        "_control": (kept[control], unpruned),
    }.items():
        found = _change(*pair, labels, whole, bootstrap)
        row |= {f"effect{kind}": found.value, f"low{kind}": found.low, f"high{kind}": found.high}
    return pd.DataFrame([row])


@checked_arguments()
def apart(
    answers: Answers,
    others: Answers,
    labels: Answers,
    held_out: Float[ndarray, "held_out target"],
    bootstrap: int,
) -> Interval:
    """By how much more one model's loss is than another's on the same images, in percent of the held-out loss."""
    return _change(answers, others, labels, held_out, bootstrap)


def _change(
    answers: Answers, against: Answers, labels: Answers, held_out: ndarray, bootstrap: int
) -> Interval:
    """By how much the loss grows from one model's answers to another's, in percent of the held-out loss."""
    answers, against, labels = (np.asarray(each, float) for each in (answers, against, labels))
    change = ((answers - labels) ** 2 - (against - labels) ** 2).mean(1)
    return mean_interval(100 / float(held_out.mean()) * change, bootstrap)
