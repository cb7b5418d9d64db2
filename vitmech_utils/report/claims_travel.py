"""The scoreboard's rows on whether the findings travel, break, or hide behind each other (C8, Q2, Q6, Q7)."""

from vitmech_utils.report import verdicts_together
from vitmech_utils.report.claim_rows import Row, numbers
from vitmech_utils.report.claim_tables import TOGETHER, JudgedRun

TOGETHER_QUESTION = "Several heads ablated together: do single ablations miss what they do?"


def q7(run: JudgedRun) -> Row:
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
        f"{worst['high_effect']:+,.0f}] against {worst['sum_of_single']:+,.0f} %; rank correlation of single effect "
        f"and Shapley value {ranks:.2f}",
        sample=f"{int(differ['images'])} images for groups, {int(counted.loc['rank correlation', 'images'])} orders of "
        "all heads for Shapley values, mean ablation",
        control=f"of {int(by_chance['of'])} random sets as large as a layer, {int(by_chance['value'])} differ clearly",
        would_change="More images, until the intervals of the excess and of the rank correlation lie on one side.",
        chapter=TOGETHER,
        figure="fig-groups",
        images=images,
        **numbers(ranks, "rank correlation"),
        **vars(
            verdicts_together.single_ablations_miss(int(differ["value"]), int(differ["of"]), ranks, images)
        ),
    )
