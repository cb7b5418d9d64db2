"""The scoreboard's rows for what the study did not test (C7, C8) and leaves open (Q1-Q7), judged where a run can."""

from vitmech_utils.figures.tables import word
from vitmech_utils.report import claims_travel
from vitmech_utils.runs.manifests import RunError
from vitmech_utils.statistics import Interval
from vitmech_utils.studies import verdicts
from vitmech_utils.studies.origin import judge as verdicts_origin
from vitmech_utils.studies.pruning import judge as verdicts_pruning
from vitmech_utils.studies.rows import Row, numbers, open_row
from vitmech_utils.studies.tables import (
    ABLATION,
    ATTACKS,
    ORIGIN,
    PRUNING,
    RECORDINGS,
    SEMANTICS,
    TASK,
    TOGETHER,
    JudgedRun,
    how_to_mend,
)
from vitmech_utils.studies.verdicts import Count, Judgement

EARLY_CHOICE = "layers 1-3"
_SPECIALIZATION = "Fine-tuning drives the specialization."
_GONE = "Can the heads of layers 1-3 be pruned for good, accuracy kept and inference faster?"
_INHERITED = (
    "Are the text and edge detectors inherited from pre-training? (If not, they emerge in fine-tuning.)"
)
_UNDECORATED = "Do they also exist where a ViT was fine-tuned on spectrograms without decoration?"


def beyond(run: JudgedRun) -> list[Row]:
    """One row per untested claim and open question; open where the run lacks the chapter that judges it."""
    changes = run.tables["class_changes"]
    before, after = (
        int(changes[f"regions_{when}"].str.contains("chirp").sum()) for when in ("before", "after")
    )
    kept = int((~changes["changed"]).sum())
    look = (
        f"{kept} of {len(changes)} heads {word(kept, 'keeps', 'keep')} class and regions; {before} "
        f"{word(before, 'looks', 'look')} at the chirp before fine-tuning, {after} after it"
    )
    found = [verdicts.text_or_edge_detectors(run.tables[name]) for name in ("pretrained_classes", "classes")]
    detectors = (
        f"in layers 1-4, {found[0]} heads {word(found[0].value, 'is such a detector', 'are such detectors')} before "
        f"fine-tuning, {found[1]} after it"
    )
    top = run.tables["head_sets"].iloc[0]
    together = (
        f"the {top['set']} heads together: {top['effect']:+,.0f} % [{top['low']:+,.0f}, {top['high']:+,.0f}]; "
        f"their single effects add up to {top['sum_of_single']:+,.0f} %"
    )
    here = SEMANTICS, "fig-inherited"
    if run.has(ORIGIN):
        c7, q3, q4 = _c7(run), _q3(run), _q4(run)
    else:
        c7 = open_row("C7", _SPECIALIZATION, look, "not tested", *here)
        q3, q4 = open_row("Q3", _INHERITED, detectors, "left open", *here), open_row("Q4", _UNDECORATED)
    return [
        c7,
        claims_travel.c8(run)
        if run.has(ATTACKS)
        else open_row("C8", claims_travel.SURFACE, study="not tested"),
        _q1(run) if run.has(PRUNING) else open_row("Q1", _GONE),
        claims_travel.q2(run) if run.has(RECORDINGS) else open_row("Q2", claims_travel.REAL),
        q3,
        q4,
        claims_travel.q5(run) if run.has(TASK) else open_row("Q5", claims_travel.OTHER_TASK),
        claims_travel.q6(run) if run.has(ATTACKS) else open_row("Q6", claims_travel.ADVERSARIAL),
        claims_travel.q7(run)
        if run.has(TOGETHER)
        else open_row(
            "Q7", claims_travel.TOGETHER_QUESTION, together, "left open", ABLATION, "fig-head-sets"
        ),
    ]


def pruned_for_good(run: JudgedRun) -> list[str]:
    """What claim C1's single effects are to be held against: the same heads removed together, for good."""
    if not run.has(PRUNING):
        return []
    row = _pruned(run, recovered=False)
    effect = _interval(row)
    return [
        f"all {int(row['heads'])} of them pruned for good, together: {effect:+.0f} % on {int(row['images'])} images"
    ]


def _c7(run: JudgedRun) -> Row:
    made = verdicts_origin.made_by_fine_tuning(_moves(run, "pre-trained", "fine-tuned"))
    return _origin_row(
        run,
        made,
        verdicts_origin.fine_tuning_drives(made, _images(run)),
        id="C7",
        claim=_SPECIALIZATION,
        study="not tested",
        ours=f"{made} heads that are about something {word(made.value, 'was', 'were')} not about it before",
        would_change=f"Other heads than these, or surer ones: more than {verdicts.HALF:.0%} of them for part of the "
        f"claim, {verdicts.MOST:.0%} for all of it.",
        figure="fig-fates",
    )


def _q3(run: JudgedRun) -> Row:
    shared = verdicts_origin.detectors_shared(_moves(run, "pre-trained", "fine-tuned"))
    return _origin_row(
        run,
        shared,
        verdicts_origin.detectors_are_inherited(shared, _images(run)),
        id="Q3",
        claim=_INHERITED,
        study="left open",
        ours=f"{shared} detectors of layers 1-4 {word(shared.value, 'was one', 'were detectors')} before fine-tuning",
        would_change="More images, so that the classes of the detectors are sure.",
        figure="fig-four-networks",
    )


def _q4(run: JudgedRun) -> Row:
    shared = verdicts_origin.detectors_shared(_moves(run, "bare", "fine-tuned"))
    recipe = run.tables["recipe"]
    matched = bool((recipe["fine-tuned"] == recipe["bare"]).all())
    return _origin_row(
        run,
        shared,
        verdicts_origin.detectors_need_no_decorations(shared, _images(run), matched),
        id="Q4",
        claim=_UNDECORATED,
        study="left open",
        ours=f"{shared} detectors of layers 1-4 {word(shared.value, 'is one', 'are detectors')} in the network that "
        "saw bare figures alone",
        would_change="Two trainings that differ in their figures alone; more images, so that the classes of the "
        "detectors are sure; more seeds.",
        figure="fig-four-networks",
    )


def _origin_row(run: JudgedRun, found: Count, judgement: Judgement, **texts: str) -> Row:
    """A row that chapter 07 judges: what its rows share, and the texts of this one."""
    return Row(
        **texts,
        sample=f"{_images(run)} images",
        control=_by_chance(run),
        chapter=ORIGIN,
        images=_images(run),
        **numbers(found, "heads"),
        **vars(judgement),
    )


def _q1(run: JudgedRun) -> Row:
    plain, after = _pruned(run, recovered=False), _pruned(run, recovered=True)
    error, recovered = _interval(plain), _interval(after, "_same_training")
    times = run.tables["timings_summary"]
    own = times[
        (times["model"] == plain["name"]) & ~times["compiled"] & (times["device"] == times["device"].iloc[-1])
    ]
    speedups = {
        int(row["batch"]): Interval(*(float(row[f"speedup{end}"]) for end in ("", "_low", "_high")))
        for _, row in own.iterrows()
    }
    drawn = run.tables["random_sets"]["effect"]
    images = int(plain["images"])
    return Row(
        id="Q1",
        claim=_GONE,
        study="left open",
        ours=f"error {error:+.0f} %, after recovery {recovered:+.1f} %; "
        + ", ".join(f"{factor} times as fast at batch size {batch}" for batch, factor in speedups.items()),
        sample=f"{images} images, {int(plain['heads'])} heads removed",
        control=f"as many heads at random, {len(drawn)} draws: {drawn.min():+.0f} to {drawn.max():+.0f} %; "
        "the recovered model is held against the whole one given the same training",
        would_change="A longer recovery that brings the error back; hardware on which attention takes more time.",
        chapter=PRUNING,
        figure="fig-pareto",
        images=images,
        **numbers(error, "%"),
        **vars(verdicts_pruning.early_heads_can_go(error, recovered, list(speedups.values()), images)),
    )


def _moves(run: JudgedRun, before: str, after: str):
    table = run.tables["transitions"]
    found = table[(table["before"] == before) & (table["after"] == after)]
    if found.empty:
        raise RunError(
            f"{run.folder / ORIGIN}/transitions.parquet: no heads from {before} to {after}; "
            f"{how_to_mend(ORIGIN, run.folder)}"
        )
    return found


def _by_chance(run: JudgedRun) -> str:
    table = run.tables["by_chance"]
    other = table["subject_before"] != table["subject_after"]
    heads = f"{int(other.sum())} of {len(table)} heads {word(int(other.sum()), 'is', 'are')}"
    return (
        f"the pre-trained network on other images: {heads} about something else, "
        f"{int((other & table['sure']).sum())} of them for sure"
    )


def _interval(row, kind: str = "") -> Interval:
    return Interval(*(float(row[f"{key}{kind}"]) for key in ("effect", "low", "high")))


def _images(run: JudgedRun) -> int:
    return int(run.profile["values"]["origin"]["images"])


def _pruned(run: JudgedRun, recovered: bool):
    table = run.tables["pruned"]
    found = table[(table["choice"] == EARLY_CHOICE) & (table["recovered"] == recovered)]
    if len(found) != 1:
        raise RunError(
            f"{run.folder / PRUNING}/pruned.parquet: {len(found)} rows for {EARLY_CHOICE}, recovered {recovered}, "
            f"expected one; {how_to_mend(PRUNING, run.folder)}"
        )
    return found.iloc[0]
