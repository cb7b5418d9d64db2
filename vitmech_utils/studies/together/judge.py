"""The rule on heads taken together: do single ablations miss what several heads do at once (Q7)?

Written before any figure of chapter 09 was seen.
"""

import pandas as pd

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.figures.tables import word
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.rows import Row, numbers, open_row
from vitmech_utils.studies.tables import BOUNDS, JudgedRun
from vitmech_utils.studies.verdicts import (
    EFFECT,
    FAILS,
    HALF,
    HOLDS,
    IN_PART,
    Judgement,
    too_few,
    undecided,
)

CHAPTER = "09_heads_together"
TABLES = {
    "groups": ("set", "kind", "effect", "low_effect", "high_effect", "sum_of_single", "excess"),
    "claim_q7": ("quantity", "value", *BOUNDS, "of", "images"),
}
TOGETHER_QUESTION = "Several heads ablated together: do single ablations miss what they do?"

ALIKE = 0.9
KEPT = 100.0
LIMITS = {
    "alike (share of the order that is kept)": (
        ALIKE,
        "two orders of heads of which each explains four fifths of the other's ranks; what one says of the first "
        "heads, the other says as well",
    ),
    "performance kept (percent)": (
        KEPT,
        "an error that has not doubled: predictions are off by at most one and a half times as many seconds or hertz",
    ),
}


@checked_arguments()
def single_ablations_miss(differing: int, layers: int, ranks: Interval | None, images: int) -> Judgement:
    """Q7. Holds if in more than half of the layers the heads, ablated together, change the error clearly otherwise than
    their single effects add up to (false discoveries limited), and the order of heads by single effect is clearly not
    alike the order by Shapley value, measured by what either order keeps of itself on other images. Holds in part if
    one of the two is so. Does not hold if no layer differs clearly and the two orders are clearly alike. Otherwise it
    is undecided. Where no Shapley values were measured, it holds in part or is undecided.
    """
    if judgement := too_few(images, EFFECT):
        return judgement
    often, reordered = differing > HALF * layers, ranks is not None and ranks.high < ALIKE
    where = (
        f"in {differing} of {layers} layers the heads together differ clearly from the sum of their effects"
    )
    order = "no order by Shapley value was measured"
    if ranks is not None:
        order = (
            f"the order by Shapley value is {'clearly another one' if reordered else 'not clearly another one'} "
            f"(of what either keeps of its own order on other images, the two share {ranks:.2f})"
        )
    if often and reordered:
        return Judgement(HOLDS, f"{where}, and {order}")
    if often or reordered:
        return Judgement(IN_PART, f"{where}; {order}")
    if differing == 0 and ranks is not None and ranks.low > ALIKE:
        return Judgement(FAILS, f"{where}, and both orders of heads are clearly alike")
    return undecided(f"{where}; {order}")


@checked_arguments()
def by_claim(claim: pd.DataFrame) -> Judgement:
    """Q7 by a table of `measure.claim`."""
    found = claim.set_index("quantity")
    differing, order = found.loc["layers that differ from the sum"], None
    if "rank correlation" in found.index:
        order = Interval(*found.loc["rank correlation", ["value", *BOUNDS]].astype(float))
    return single_ablations_miss(
        int(differing["value"]), int(differing["of"]), order, int(found["images"].min())
    )


RULES = {"Q7": single_ablations_miss}


@checked_arguments()
def rows(run: JudgedRun) -> dict[str, Row]:
    """The scoreboard's rows of this chapter; open where the run lacks it."""
    return {"Q7": _q7(run) if run.has(CHAPTER) else _first_look(run)}


def _q7(run: JudgedRun) -> Row:
    """What heads do together, judged by chapter 09's tables."""
    counted = run.tables["claim_q7"].set_index("quantity")
    differ, by_chance = (
        counted.loc[f"{kind} that differ from the sum"] for kind in ("layers", "random sets")
    )
    ranks = run.interval("claim_q7", quantity="rank correlation")
    images = int(counted["images"].min())
    layers = run.tables["groups"].query("kind == 'layer'")
    worst = layers.loc[layers["excess"].abs().idxmax()]
    return Row(
        id="Q7",
        claim=TOGETHER_QUESTION,
        study="left open",
        ours=f"in {int(differ['value'])} of {int(differ['of'])} layers the heads together clearly differ from the sum "
        f"of their single effects, most in {worst['set']}: {worst['effect']:+,.0f} % [{worst['low_effect']:+,.0f}, "
        f"{worst['high_effect']:+,.0f}] against {worst['sum_of_single']:+,.0f} %; of what either "
        f"keeps of its own order of heads on other images, single effects and Shapley values share {ranks:.2f}",
        sample=f"{int(differ['images'])} images for groups, {int(counted.loc['rank correlation', 'images'])} orders of "
        "all heads for Shapley values, mean ablation",
        control=f"of {int(by_chance['of'])} random sets as large as a layer, {int(by_chance['value'])} "
        f"{word(int(by_chance['value']), 'differs', 'differ')} clearly" + _beyond(run),
        would_change="More images, until the intervals of the excess and of what both orders share lie on one side.",
        chapter=CHAPTER,
        figure="fig-groups",
        images=images,
        **numbers(ranks, "share"),
        **vars(single_ablations_miss(int(differ["value"]), int(differ["of"]), ranks, images)),
    )


def _beyond(run: JudgedRun) -> str:
    """The rank test of layers against random sets, and the ceiling of the orders; nothing where a run has neither."""
    table = run.tables["claim_q7"].set_index("quantity")
    if "ceiling" not in table.index:
        return ""
    layers = table.loc["layers beyond the random sets"]
    between, ceiling = (
        run.interval("claim_q7", quantity=name) for name in ("rank correlation between halves", "ceiling")
    )
    return (
        f"; {int(layers['value'])} of {int(layers['of'])} layers lie beyond 95 % of the random sets; the rank "
        f"correlation between halves of the images is {between:.2f}, of {ceiling:.2f} that each order keeps of itself"
    )


def _first_look(run: JudgedRun) -> Row:
    top = run.tables["head_sets"].iloc[0]
    together = (
        f"the {top['set']} heads together: {top['effect']:+,.0f} % [{top['low']:+,.0f}, {top['high']:+,.0f}]; "
        f"their single effects add up to {top['sum_of_single']:+,.0f} %"
    )
    return open_row(
        "Q7", TOGETHER_QUESTION, together, "left open", run.chapter_of("head_sets"), "fig-head-sets"
    )
