"""The rule on heads as task-agnostic feature extractors (Q9), written before the chapter measured any shift for it."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.figures.tables import listed
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.rows import Row, numbers
from vitmech_utils.studies.task.agnostic.measure import TUNED, UNTUNED
from vitmech_utils.studies.verdicts import FAILS, HALF, HOLDS, IN_PART, MOST, NONE, Judgement, undecided

QUESTION = "Heads as task-agnostic feature extractors: do three tasks need the same ones?"
COLUMNS = (
    *("kind", "first", "second", "images", "heads", "depth"),
    *(f"{part}{end}" for part in ("between", "ceiling", "share") for end in ("", "_low", "_high")),
)


@dataclass(frozen=True)
class Shared:
    """What two tasks share of their order of heads: rank correlation, ceiling, their quotient, and depth's part."""

    between: Interval
    ceiling: Interval
    share: Interval
    depth: float

    @property
    def beyond_depth(self) -> bool:
        """Whether the tasks clearly have more in common than heads that change places within their layers."""
        return self.between.low > self.depth


@checked_arguments()
def heads_serve_any_task(tuned: Mapping[str, Shared], untuned: Mapping[str, Shared]) -> Judgement:
    """Q9. Holds if for every two of the tasks the fine-tuned models clearly share *most* of what a model keeps of its
    own order of heads by shift, and clearly more than depth alone gives. Holds in part if for every two they clearly
    share more than *half* of it, or *most* for some two, in both cases clearly more than depth alone gives. Does not
    hold if for every two they clearly share no more than *half*. Otherwise it is undecided; so it is where a model's
    own order is not clearly above *none*. Whether the untuned backbone's heads are shared as much says who made them
    so: fine-tuning, or what was there before.

    Both map a pair of tasks to what they share; `untuned` is the backbone under linear probes of the same tasks.
    """
    if not tuned:
        return undecided("no order of heads was measured")
    if blurred := [pair for pair, found in tuned.items() if not found.ceiling.low > NONE]:
        return undecided(
            f"a model's own order of heads is not known well enough ({listed(blurred, '; ')}): on other images it is "
            f"not clearly above {NONE:g}"
        )
    told = "; ".join(f"{pair} {found.share.value:.2f}" for pair, found in tuned.items())
    words = f"of what a model keeps of its own order of heads, tasks share: {told}{_before(tuned, untuned)}"
    most = [pair for pair, found in tuned.items() if found.share.low >= MOST and found.beyond_depth]
    half = [pair for pair, found in tuned.items() if found.share.low > HALF and found.beyond_depth]
    if len(most) == len(tuned):
        return Judgement(HOLDS, words)
    if most or len(half) == len(tuned):
        return Judgement(IN_PART, words)
    if all(found.share.high <= HALF for found in tuned.values()):
        return Judgement(FAILS, words)
    # Intervals are over heads: more images would not make them narrower.
    return undecided(f"{words}{_by_depth(tuned)}", "heads")


def _by_depth(tuned: Mapping[str, Shared]) -> str:
    """Which tasks share no more, for sure, than depth alone gives."""
    told = listed(
        f"{pair} correlate by {found.between:.2f}, by depth alone by {found.depth:.2f}"
        for pair, found in tuned.items()
        if not found.beyond_depth
    )
    return f"; not clearly more than depth gives: {told}" if told else ""


def _before(tuned: Mapping[str, Shared], untuned: Mapping[str, Shared]) -> str:
    """What the untuned backbone shares, beside what the fine-tuned models do."""
    pairs = [(found.share, untuned[pair].share) for pair, found in tuned.items() if pair in untuned]
    if not pairs:
        return ""
    more = sum(own.low > before.high for own, before in pairs)
    less = sum(own.high < before.low for own, before in pairs)
    shares = ", ".join(f"{before.value:.2f}" for _, before in pairs)
    if less == len(pairs):
        return f"; the untuned backbone shares more ({shares}), so fine-tuning parts the tasks' heads"
    if more == len(pairs):
        return (
            f"; the untuned backbone shares less ({shares}), so fine-tuning brings the tasks' heads together"
        )
    if not more:
        return (
            f"; the untuned backbone does not clearly share less ({shares}), so they may have shared it before any "
            "fine-tuning"
        )
    return f"; the untuned backbone under linear probes shares {shares}"


RULES = {"Q9": heads_serve_any_task}


@checked_arguments()
def gathered(table: pd.DataFrame, kind: str) -> dict[str, Shared]:
    """What the rule reads of one kind, from a table of `measure.shared_orders`."""
    return {
        f"{row['first']} and {row['second']}": Shared(
            *(
                Interval(float(row[part]), float(row[f"{part}_low"]), float(row[f"{part}_high"]))
                for part in ("between", "ceiling", "share")
            ),
            float(row["depth"]),
        )
        for _, row in table[table["kind"] == kind].iterrows()
    }


@checked_arguments()
def by_table(table: pd.DataFrame) -> Judgement:
    """Q9 by a table of `measure.shared_orders`."""
    return heads_serve_any_task(gathered(table, TUNED), gathered(table, UNTUNED))


@checked_arguments()
def row(table: pd.DataFrame, chapter: str) -> Row:
    """The scoreboard's row, from a table of `measure.shared_orders`."""
    tuned, untuned = gathered(table, TUNED), gathered(table, UNTUNED)
    least = min(tuned, key=lambda pair: tuned[pair].share.value)
    images = int(table["images"].min())
    return Row(
        id="Q9",
        claim=f"{QUESTION} (arXiv 2504.09393 says so.)",
        study="left open",
        ours="of what a model keeps of its own order of heads by shift, two tasks share: "
        + "; ".join(f"{pair} {found.share:.2f}" for pair, found in tuned.items()),
        sample=f"{int(table['heads'].max())} heads, {images} images a task, mean ablation, linearized",
        control="the untuned backbone under linear probes: "
        + "; ".join(f"{pair} {found.share:.2f}" for pair, found in untuned.items())
        + "; rank correlation by depth alone: "
        + ", ".join(f"{found.depth:.2f}" for found in tuned.values()),
        would_change="Tasks that have less in common than three ways to read a chirp; more real recordings.",
        chapter=chapter,
        figure="fig-three-tasks",
        images=images,
        **numbers(tuned[least].share, "share"),
        **vars(heads_serve_any_task(tuned, untuned)),
    )
