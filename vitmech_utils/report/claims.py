"""The scoreboard: a run's artefacts turned into one row per claim of the study, and per question it leaves open."""

from pathlib import Path
from typing import Any

import pandas as pd

from vitmech_utils.figures.tables import word
from vitmech_utils.report.claims_beyond import beyond, pruned_for_good
from vitmech_utils.runs.manifests import RunError
from vitmech_utils.studies import verdicts
from vitmech_utils.studies.ablation.measure import EARLY, LATE, STUDY_EARLY, STUDY_EARLY_DEVIATION, STUDY_LATE
from vitmech_utils.studies.attacks import judge as verdicts_attacks
from vitmech_utils.studies.origin import judge as verdicts_origin
from vitmech_utils.studies.pruning import judge as verdicts_pruning
from vitmech_utils.studies.recordings import judge as verdicts_recordings
from vitmech_utils.studies.rows import Row, by, numbers
from vitmech_utils.studies.tables import ABLATION, SEMANTICS, JudgedRun, how_to_mend, read_judged
from vitmech_utils.studies.task import judge as verdicts_task
from vitmech_utils.studies.together import judge as verdicts_together
from vitmech_utils.studies.verdicts import Count

STUDY = "arXiv 2503.18762"  # where every claim, and every figure in the column `study`, comes from
_MODULES = (
    verdicts,
    verdicts_attacks,
    verdicts_origin,
    verdicts_pruning,
    verdicts_recordings,
    verdicts_task,
    verdicts_together,
)
RULES = dict(sorted((name, rule) for module in _MODULES for name, rule in module.RULES.items()))
LIMITS = {name: limit for module in _MODULES for name, limit in getattr(module, "LIMITS", {}).items()}


def scoreboard(run: str | Path) -> pd.DataFrame:
    """Judge a run folder: one row per claim C1-C8 and per open question, with the columns of `Row`.

    `run` holds the chapters' folders, such as `published/` or `results/laptop`. `frame.attrs` names the profile, says
    whether it is the quick one, and lists the claims that chapter 05 judged otherwise, by older rules. Raises
    `RunError` when a chapter or a table is missing, changed since its run, without a column or a row, or when the
    chapters are of different profiles; the message names the chapter to run.
    """
    artefacts = read_judged(Path(run))
    rows = [
        _c1(artefacts),
        _c2(artefacts),
        _c3(artefacts),
        _c4(artefacts),
        _c5(artefacts),
        _c6(artefacts),
        *beyond(artefacts),
    ]
    frame = pd.DataFrame([vars(row) for row in rows]).astype({"images": "Int64"})
    name = artefacts.profile["name"]
    frame.attrs = {
        "profile": name,
        "quick": name == "quick",
        "judged_otherwise": _judged_otherwise(frame, artefacts.tables["claims_c3_c6"]),
    }
    return frame


def _judged_otherwise(board: pd.DataFrame, chapter: pd.DataFrame) -> list[str]:
    joined = board.merge(chapter, left_on="id", right_on="claim", suffixes=("", "_then"))
    return joined[joined["verdict"] != joined["verdict_then"]]["id"].tolist()


def _signed(effect: float) -> str:
    """An effect with its sign; next to zero, as many places as its first digit needs."""
    return f"{effect:+.2f}" if abs(effect) >= 0.1 or not effect else f"{effect:+.1g}"


def _c1(run: JudgedRun) -> Row:
    early = run.interval("claims_c1_c2", mode=run.mode, quantity="early")
    sweep = run.swept(run.mode)
    images, heads = int(sweep["images"].iloc[0]), int(sweep["layer"].isin(EARLY).sum())
    untrained = run.tables["untrained"]
    others = [mode for mode in run.tables["claims_c1_c2"]["mode"].unique() if mode != run.mode]
    controls = [
        f"untrained network, {by(untrained)}: {_signed(untrained[untrained['layer'].isin(EARLY)]['effect'].mean())} %",
        *(
            f"this model by {mode} ablation: {run.interval('claims_c1_c2', mode=mode, quantity='early'):+.2f} %"
            for mode in others
        ),
        *pruned_for_good(run),
    ]
    return Row(
        id="C1",
        claim="Heads of layers 1-3 hardly matter to the task.",
        study=f"MSE {STUDY_EARLY:+.2f} % on average, standard deviation {STUDY_EARLY_DEVIATION:.2f} %",
        ours=f"MSE {early:+.2f} % on average",
        sample=f"{images} images, {heads} heads, {run.mode} ablation",
        control="; ".join(controls),
        would_change=f"More images, until the interval lies on one side of ±{verdicts.HARDLY:g} %.",
        chapter=ABLATION,
        figure="fig-layer-effects",
        images=images,
        **numbers(early, "%"),
        **vars(verdicts.early_heads_hardly_matter(early, verdicts.heads_beyond(sweep), images)),
    )


def _c2(run: JudgedRun) -> Row:
    found = {
        key: run.interval("claims_c1_c2", mode=run.mode, quantity=key) for key in ("early", "late", "ratio")
    }
    images = int(run.swept(run.mode)["images"].iloc[0])
    untrained = run.tables["untrained"]
    early, late = (untrained[untrained["layer"].isin(layers)]["effect"].mean() for layers in (EARLY, LATE))
    others = [mode for mode in run.tables["claims_c1_c2"]["mode"].unique() if mode != run.mode]
    ratios = [
        f"this model by {mode} ablation: {run.interval('claims_c1_c2', mode=mode, quantity='ratio'):.1f} times"
        for mode in others
    ]
    return Row(
        id="C2",
        claim="Deeper heads matter about three times as much: layer 6 against layers 1-3.",
        study=f"MSE {STUDY_LATE:+.2f} % in layer 6, {STUDY_LATE / STUDY_EARLY:.1f} times that of layers 1-3",
        ours=f"{found['ratio']:.1f} times; layer 6 by {found['late']:+.2f} %",
        sample=f"{images} images, {run.mode} ablation",
        control="; ".join(
            [
                f"untrained network, {by(untrained)}: layers 1-3 {_signed(early)} %, layer 6 {_signed(late)} %",
                *ratios,
            ]
        ),
        would_change="More images, until the early layers' own effect and the ratio are known well enough.",
        chapter=ABLATION,
        figure="fig-layer-effects",
        images=images,
        **numbers(found["ratio"], "times"),
        **vars(verdicts.deeper_heads_matter_more(found["ratio"], found["early"], images)),
    )


def _c3(run: JudgedRun) -> Row:
    count, control = _counted(run, verdicts.about_chirp_alone)
    return Row(
        id="C3",
        claim="Layers 6-11 are monosemantic: their heads attend to the chirp alone.",
        study="by eye, from maps",
        ours=f"{count} heads {_are(count)} about the chirp alone",
        sample=f"{run.semantics_images} images",
        control=control,
        would_change=f"More heads of these layers with the chirp as their only region: more than {verdicts.HALF:.0%} "
        f"for part of the claim, {verdicts.MOST:.0%} for all of it.",
        chapter=SEMANTICS,
        figure="fig-classes",
        images=run.semantics_images,
        **numbers(count, "heads"),
        **vars(verdicts.layers_attend_to_chirp_alone(count, run.semantics_images)),
    )


def _c4(run: JudgedRun) -> Row:
    count, control = _counted(run, verdicts.text_or_edge_detectors)
    sweep = run.swept(run.focus_mode)
    images = min(run.semantics_images, int(sweep["images"].iloc[0]))
    try:
        effects = verdicts.detector_effects(run.tables["classes"], sweep)
    except ValueError as error:
        raise RunError(
            f"{run.folder}: chapters 04 and 05 do not fit each other ({error}); {how_to_mend(SEMANTICS, run.folder)}"
        ) from error
    listed = ", ".join(f"{effect:+.2f} %" for effect in effects) or "none"
    return Row(
        id="C4",
        claim="Some heads of layers 1-4 are monosemantic but irrelevant to the task: text and edge detectors.",
        study="by eye, from maps",
        ours=f"{count} heads {word(count.value, 'is such a detector', 'are such detectors')}; effects of the sure "
        f"ones: {listed}",
        sample=f"{run.semantics_images} images for the classes, {int(sweep['images'].iloc[0])} for the effects, "
        f"{run.focus_mode} ablation",
        control=control,
        would_change=f"More images, until each detector's interval lies on one side of ±{verdicts.HARDLY:g} %.",
        chapter=SEMANTICS,
        figure="fig-classes",
        images=images,
        **numbers(count, "heads"),
        **vars(verdicts.some_detectors_are_irrelevant(count, effects, images)),
    )


def _c5(run: JudgedRun) -> Row:
    count, control = _counted(run, verdicts.polysemantic_or_diffuse)
    classes = run.tables["classes"]
    wider = verdicts.last_layer_spreads_wider(classes)
    entropy = classes[classes["layer"] == classes["layer"].max()]["map_entropy"].mean()
    return Row(
        id="C5",
        claim="The last layer is polysemantic: diffuse attention over irrelevant regions.",
        study="by eye, from maps",
        ours=f"{count} heads {_are(count)} polysemantic or diffuse; mean map entropy {entropy:.2f} of its maximum",
        sample=f"{run.semantics_images} images",
        control=control,
        would_change="More images, so that no head's class depends on which are drawn; or other heads that are sure.",
        chapter=SEMANTICS,
        figure="fig-classes",
        images=run.semantics_images,
        **numbers(count, "heads"),
        **vars(verdicts.last_layer_is_polysemantic(count, wider, run.semantics_images)),
    )


def _c6(run: JudgedRun) -> Row:
    mode = run.focus_mode
    overall, within = (
        run.interval("importance_and_focus", mode=mode, heads=heads)
        for heads in ("all heads", "within layers")
    )
    table = run.tables["importance_and_focus"]
    p_value = table[(table["mode"] == mode) & (table["heads"] == "all heads")]["p_value"].iloc[0]
    images = min(run.semantics_images, int(run.swept(mode)["images"].iloc[0]))
    return Row(
        id="C6",
        claim="The more a head looks at the chirp, the more the task needs it.",
        study="implied, no figure",
        ours=f"rank correlation {overall:.2f} over all heads",
        sample=f"{len(run.tables['classes'])} heads, {images} images, {mode} ablation",
        control=f"within layers, where depth cannot make it: {within:.2f}; heads shuffled at random: p = {p_value:.3f}",
        would_change="A correlation within layers whose interval excludes zero; more heads or a second model.",
        chapter=SEMANTICS,
        figure="fig-importance",
        images=images,
        **numbers(overall, "rank correlation"),
        **vars(verdicts.importance_grows_with_focus(overall, within, images)),
    )


def _are(count: Count) -> str:
    return word(count.value, "is", "are")


def _counted(run: JudgedRun, count: Any) -> tuple[Count, str]:
    """Count heads of a kind in this model, and say how many random and pre-trained weights give."""
    control = (
        f"random weights: {count(run.tables['untrained_classes'])}; "
        f"before fine-tuning: {count(run.tables['pretrained_classes'])}"
    )
    return count(run.tables["classes"]), control
