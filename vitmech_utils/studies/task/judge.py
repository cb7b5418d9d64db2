"""The rule on another task: is layer-wise specialization of the architecture or of the task (Q5)?

Written before any figure of chapter 12 was seen. It uses the limits of `LIMITS`. All networks of the chapter
share their pre-trained weights, so *architecture* stands for both, which no fine-tuning can separate.
"""

from collections.abc import Mapping

import pandas as pd

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.rows import Row, numbers, open_row
from vitmech_utils.studies.tables import BOUNDS, JudgedRun
from vitmech_utils.studies.task.agnostic import judge as agnostic
from vitmech_utils.studies.verdicts import (
    FAILS,
    HALF,
    HOLDS,
    IN_PART,
    MOST,
    NONE,
    ON_CHIRP,
    UNKNOWN,
    Judgement,
    too_few,
    undecided,
)

CHAPTER = "12_another_task"
TABLES = {"claim_q5": ("kind", "quantity", "value", *BOUNDS, "images", "sweep_images", "heads")}
OPTIONAL = {"shared_by_tasks": agnostic.COLUMNS}
OTHER_TASK = "Another task: does the specialization belong to the architecture or to the task?"


@checked_arguments()
def specialization_is_of_the_architecture(
    control: Mapping[str, Interval],
    shared: Mapping[str, Interval],
    ceilings: Mapping[str, Interval],
    trainings: Mapping[str, Interval],
    untuned: Mapping[str, Interval],
    images: int,
) -> Judgement:
    """Q5. Of the architecture (holds) if between the two tasks the orders of heads, by effect and by attention,
    both clearly keep *most* of what a model keeps of its own order on other images; in part if one of them
    clearly keeps more than *half*. By attention only what the tasks share beyond their common start counts: not
    where a network shares as much of its order with the backbone before any fine-tuning. Of the task (does not
    hold) if both clearly keep no more than *half*, while for the same question another training clearly keeps
    more. Otherwise it is undecided; so it is if the planted shortcut does not clearly show in everything that
    it must show in, or if a model's own order, on other images, is not clearly above *none*.

    `control` are the planted shortcut's effects, each to lie above zero; `shared`, `ceilings` and `trainings`
    name the same orders, `untuned` networks whose order by attention is compared with the untuned backbone's. How few
    images an order rests on needs no limit of its own: the ceiling shows it.
    """
    if judgement := too_few(images, ON_CHIRP):
        return judgement
    if not control or not shared:
        return Judgement(UNKNOWN, "no planted shortcut or no order of heads was measured")
    if hidden := [name for name, effect in control.items() if not effect.low > 0]:
        return undecided(f"the planted shortcut does not clearly show in: {', '.join(hidden)}")
    if blurred := [name for name in shared if name not in ceilings or not ceilings[name].low > NONE]:
        return undecided(
            f"a model's own order of heads by {' and by '.join(blurred)} is not known well enough: on other images it "
            f"is not clearly above {NONE:g}",
        )
    told = "; ".join(f"by {name} the tasks share {part:.2f} of it" for name, part in shared.items())
    told = f"of what a model keeps of its own order of heads: {told}"
    started = [name for name, found in untuned.items() if not found.high < shared["attention"].value]
    start = (
        "; by attention a network shares as much with the backbone before any fine-tuning" if started else ""
    )
    if started:
        shared = {name: part for name, part in shared.items() if name != "attention"}
        if not shared:
            return undecided(f"{told}{start}")
    if not started and all(part.low >= MOST for part in shared.values()):
        return Judgement(HOLDS, f"{told}; that is most of it, so it belongs to the architecture")
    if kept := [name for name, part in shared.items() if part.low > HALF]:
        lost = [name for name, part in shared.items() if part.high <= HALF]
        rest = f", no more than half by {' and by '.join(lost)}" if lost else ""
        return Judgement(IN_PART, f"{told}; clearly more than half by {' and by '.join(kept)}{rest}{start}")
    if all(part.high <= HALF for part in shared.values()):
        unlike = [name for name in shared if name not in trainings or not trainings[name].low > HALF]
        if unlike:
            return undecided(
                f"{told}; but by {' and by '.join(unlike)} another training for the same question may keep as little",
                "trainings",
            )
        return Judgement(
            FAILS, f"{told}; another training for the same question keeps more: it is the task's"
        )
    return undecided(f"{told}: more or less than half of it{start}")


@checked_arguments()
def by_claim(claim: pd.DataFrame) -> Judgement:
    """Q5 by a table of `measure.Judged.table`, with the images that it rests on."""
    read = (_intervals(claim, kind) for kind in READ)
    return specialization_is_of_the_architecture(*read, int(claim["images"].iloc[0]))


READ = ("control", "shared", "ceiling", "another training", "attention before fine-tuning")
"""The kinds of a claim's rows that the rule reads, in its order."""
RULES = {"Q5": specialization_is_of_the_architecture, **agnostic.RULES}


@checked_arguments()
def rows(run: JudgedRun) -> dict[str, Row]:
    """The scoreboard's rows of this chapter; open where the run lacks it."""
    three = run.tables.get("shared_by_tasks")
    return {
        "Q5": _q5(run) if run.has(CHAPTER) else open_row("Q5", OTHER_TASK),
        "Q9": open_row("Q9", agnostic.QUESTION) if three is None else agnostic.row(three, CHAPTER),
    }


def _q5(run: JudgedRun) -> Row:
    """Whether two tasks need the same heads, judged by chapter 12's table."""
    control, shared, ceilings, trainings, untuned, within = (
        _by_quantity(run, kind)
        for kind in (
            *READ, "heads permuted within layers",
        )
    )  # fmt: skip
    first = run.tables["claim_q5"].iloc[0]
    images = int(first["images"])
    alike = "; ".join(f"by {name} {share:.2f}" for name, share in shared.items())
    told = {
        "the planted shortcut": control,
        "the same question in two trainings shares": trainings,
        "by attention, shared with the untuned backbone": untuned,
        "heads permuted within layers correlate by": within,
    }
    return Row(
        id="Q5",
        claim=f"{OTHER_TASK} (It holds if it is the architecture's.)",
        study="left open",
        ours=f"of what a model keeps of its own order of heads on other images, the regressor shares with the clean "
        f"classifier: {alike}",
        sample=f"{int(first['heads'])} heads; {images} images for attention and for the shortcut, "
        f"{int(first['sweep_images'])} for effects, mean ablation",
        control="; ".join(
            f"{words} " + ", ".join(f"{name}: {found:.2f}" for name, found in part.items())
            for words, part in told.items()
            if part
        ),
        would_change="More images for the order by effect, tasks that have less in common, or a network trained from "
        "random weights: here the architecture comes with its pre-training.",
        chapter=CHAPTER,
        figure="fig-shared-orders",
        images=images,
        **numbers(shared["effect"], "share"),
        **vars(specialization_is_of_the_architecture(control, shared, ceilings, trainings, untuned, images)),
    )


def _by_quantity(run: JudgedRun, kind: str) -> dict[str, Interval]:
    return _intervals(run.tables["claim_q5"], kind)


def _intervals(table: pd.DataFrame, kind: str) -> dict[str, Interval]:
    rows = table[table["kind"] == kind]
    return {
        row.quantity: Interval(float(row.value), float(row.low), float(row.high)) for row in rows.itertuples()
    }
