"""The scoreboard's rows on whether the findings travel, break, or hide behind each other (C8, Q2, Q5, Q6, Q7)."""

from vitmech_utils.figures.tables import word
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.attacks import judge as verdicts_attacks
from vitmech_utils.studies.recordings import judge as verdicts_recordings
from vitmech_utils.studies.rows import Row, numbers
from vitmech_utils.studies.tables import ATTACKS, RECORDINGS, TASK, TOGETHER, JudgedRun
from vitmech_utils.studies.task import judge as verdicts_task
from vitmech_utils.studies.together import judge as verdicts_together
from vitmech_utils.studies.verdicts import Count

REAL = "Does the specialization hold on real spectrograms?"
SURFACE = "Heads for extraneous features are an attack surface."
ADVERSARIAL = (
    "Do adversarial changes of the extraneous regions lower accuracy although ablation says that their heads do not "
    "matter?"
)
OTHER_TASK = "Another task: does the specialization belong to the architecture or to the task?"
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
        control=f"of {int(by_chance['of'])} random sets as large as a layer, {int(by_chance['value'])} "
        f"{word(int(by_chance['value']), 'differs', 'differ')} clearly",
        would_change="More images, until the intervals of the excess and of the rank correlation lie on one side.",
        chapter=TOGETHER,
        figure="fig-groups",
        images=images,
        **numbers(ranks, "rank correlation"),
        **vars(
            verdicts_together.single_ablations_miss(int(differ["value"]), int(differ["of"]), ranks, images)
        ),
    )


def c8(run: JudgedRun) -> Row:
    """What attacks through decorations do and which heads carry them, judged by chapter 10's table."""
    attacked, carried, same = (_attacks(run, kind) for kind in ("attacked", "carried", "carried_same_layers"))
    images = _attacked_images(run)
    told = [
        f"{name} {effect:+,.0f} % beyond noise"
        + (
            f", its heads carry {carried[name]:+,.1f} percentage points more than random ones"
            if name in carried
            else ""
        )
        for name, effect in attacked.items()
    ]
    layers = ", ".join(f"{name} {effect:+,.1f}" for name, effect in same.items()) or "none measured"
    return Row(
        id="C8",
        claim=SURFACE,
        study="not tested",
        ours="; ".join(told),
        sample=_attack_size(run),
        control="the worst of as many random draws on the same pixels is taken off every attack; more than random "
        f"heads of the same layers carry, in percentage points: {layers}",
        would_change="A stronger attack on a decoration that held; more images, so that what its heads carry can be "
        "told from what random heads carry.",
        chapter=ATTACKS,
        figure="fig-carried",
        images=images,
        **numbers(_largest(attacked), "%"),
        **vars(verdicts_attacks.decorations_are_an_attack_surface(attacked, carried, images)),
    )


def q6(run: JudgedRun) -> Row:
    """What attacks find that ablation misses, judged by chapter 10's table."""
    attacked, ablated, more = (_attacks(run, kind) for kind in ("attacked", "ablated", "beyond_ablation"))
    images = _attacked_images(run)
    told = [
        f"{name}: attack {effect:+,.0f} %"
        + (f", its heads ablated {ablated[name]:+,.0f} %" if name in ablated else ", no head looks at it")
        for name, effect in attacked.items()
    ]
    return Row(
        id="Q6",
        claim=ADVERSARIAL,
        study="left open",
        ours="; ".join(told),
        sample=_attack_size(run),
        control="the worst of as many random draws of the same budget on the same pixels is taken off every attack",
        would_change="A decoration whose heads are idle for sure and whose pixels are open to attack; another budget.",
        chapter=ATTACKS,
        figure="fig-vulnerability",
        images=images,
        **numbers(_largest(attacked), "%"),
        **vars(verdicts_attacks.attacks_find_what_ablation_misses(attacked, ablated, more, images)),
    )


def q2(run: JudgedRun) -> Row:
    """Whether chirp heads keep to the chirp in real spectrograms, judged by chapter 11's table."""
    table = run.tables["claim_q2"]
    kept = {
        row.kind: Count(int(row.kept), int(row.low), int(row.high), int(row.heads))
        for row in table.itertuples()
    }
    pieces = {row.kind: int(row.pieces) for row in table.itertuples()}
    recordings = int(table["recordings"].iloc[0])
    controls = [
        f"{row.pair}, {row.asked}: {row.lift:.2f} [{row.low:.2f}, {row.high:.2f}]"
        for row in run.tables["controls"].itertuples()
    ]
    least = min(kept.values(), key=lambda count: count.value / max(count.total, 1))
    return Row(
        id="Q2",
        claim=REAL,
        study="left open",
        ours="; ".join(
            f"{kind}: {count} chirp heads {word(count.value, 'is', 'are')} about the chirp there, too"
            for kind, count in kept.items()
        ),
        sample=f"{recordings} recordings; "
        + ", ".join(
            f"{row.kind}: {row.windows} windows, {row.pieces} without overlap" for row in table.itertuples()
        ),
        control=f"lift of the same heads on the chirp's place: {'; '.join(controls)}",
        would_change="More recordings, from more places and more events, and chirps whose tracks are known exactly.",
        chapter=RECORDINGS,
        figure="fig-real-lifts",
        images=int(table["windows"].min()),
        **numbers(least, "heads"),
        **vars(verdicts_recordings.specialization_holds_on_real_ones(kept, pieces, recordings)),
    )


def q5(run: JudgedRun) -> Row:
    """Whether two tasks need the same heads, judged by chapter 12's table."""
    control, shared, ceilings, trainings, within = (
        _by_quantity(run, kind)
        for kind in ("control", "shared", "ceiling", "another training", "heads permuted within layers")
    )
    first = run.tables["claim_q5"].iloc[0]
    images = int(first["images"])
    alike = "; ".join(f"by {name} {_known(share)}" for name, share in shared.items())
    told = {
        "the planted shortcut": control,
        "the same question in two trainings shares": trainings,
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
            f"{words} " + ", ".join(f"{name}: {_known(found)}" for name, found in part.items())
            for words, part in told.items()
        ),
        would_change="More images for the order by effect, tasks that have less in common, or a network trained from "
        "random weights: here the architecture comes with its pre-training.",
        chapter=TASK,
        figure="fig-shared-orders",
        images=images,
        **numbers(shared["effect"], "share"),
        **vars(
            verdicts_task.specialization_is_of_the_architecture(control, shared, ceilings, trainings, images)
        ),
    )


def _known(found: Interval) -> str:
    return f"{found:.2f}" if found.value == found.value else "unknown"


def _by_quantity(run: JudgedRun, kind: str) -> dict[str, Interval]:
    table = run.tables["claim_q5"]
    rows = table[table["kind"] == kind]
    return {
        row.quantity: Interval(float(row.value), float(row.low), float(row.high)) for row in rows.itertuples()
    }


def _attacks(run: JudgedRun, quantity: str) -> dict[str, Interval]:
    table = run.tables["claims_c8_q6"]
    rows = table[table["quantity"] == quantity]
    return {
        row.target: Interval(float(row.value), float(row.low), float(row.high)) for row in rows.itertuples()
    }


def _attacked_images(run: JudgedRun) -> int:
    return int(run.tables["claims_c8_q6"]["images"].min())


def _attack_size(run: JudgedRun) -> str:
    row = run.tables["claims_c8_q6"].iloc[0]
    pixels = f"changes of up to {row['budget']:g}/255 on {int(row['pixels'])} pixels of each region"
    return f"{int(row['images'])} images, {pixels}"


def _largest(found: dict[str, Interval]) -> Interval:
    return max(found.values(), key=lambda effect: effect.value)
