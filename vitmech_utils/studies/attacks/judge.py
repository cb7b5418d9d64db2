"""Rules on attacks through a figure's decorations (C8, Q6). Written before any figure of chapter 10 was seen.

Pure functions of measured values, like the rules in `verdicts`, and with their limits. All intervals are in percent of
the held-out set's MSE.
"""

from collections.abc import Mapping

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.rows import Row, numbers, open_row
from vitmech_utils.studies.tables import BOUNDS, JudgedRun
from vitmech_utils.studies.verdicts import (
    EFFECT,
    FAILS,
    HALF,
    HARDLY,
    HOLDS,
    IN_PART,
    UNKNOWN,
    Judgement,
    too_few,
    undecided,
)

CHAPTER = "10_attacks_through_decorations"
TABLES = {"claims_c8_q6": ("target", "quantity", "value", *BOUNDS, "heads", "images", "budget", "pixels")}
SURFACE = "Heads for extraneous features are an attack surface."
ADVERSARIAL = (
    "Do adversarial changes of the extraneous regions lower accuracy although ablation says that their heads do not "
    "matter?"
)


RARE = 0.05
"""The share of random sets of heads that may carry as much of an attack as a decoration's own heads."""


@checked_arguments()
def decorations_are_an_attack_surface(
    attacked: Mapping[str, Interval],
    carried: Mapping[str, Interval],
    images: int,
    ranks: Mapping[str, Interval] | None = None,
) -> Judgement:
    """C8. A decoration counts if an attack on its pixels raises the error, beyond the worst of as many random draws
    there, clearly by more than *hardly*, and if the heads that look at it carry more of that attack than random heads
    do: clearly more than as many of them on average, and as much as no more than one in twenty sets of them (a rank
    test; a run without one is judged by the average alone). Holds if more than *half* of the decorations count, in part
    if any does. Does not hold if no attack clearly does more than *hardly*, or if, wherever one does, random heads
    clearly carry more of it. Otherwise it is undecided.
    """
    if judgement := too_few(images, EFFECT):
        return judgement
    if not attacked:
        return Judgement(UNKNOWN, "no decoration was attacked")
    open_to = [name for name, effect in attacked.items() if effect.low > HARDLY]
    more = [name for name in open_to if name in carried and carried[name].low > 0]
    through = [name for name in more if ranks is None or (name in ranks and ranks[name].value <= RARE)]
    beside = [name for name in open_to if name in carried and carried[name].high < 0]
    total = len(attacked)
    if through:
        found = f"{len(open_to)} of {total} decorations can be attacked; in {_named(through)} their own heads carry it"
        return Judgement(HOLDS if len(through) > HALF * total else IN_PART, found)
    if all(effect.high < HARDLY for effect in attacked.values()):
        return Judgement(FAILS, f"no attack on a decoration does more than {HARDLY:g} % beyond random noise")
    shut = sum(effect.high < HARDLY for effect in attacked.values())
    if open_to and len(beside) == len(open_to) and len(open_to) + shut == total:
        return Judgement(
            FAILS,
            f"{len(open_to)} of {total} decorations can be attacked, but other heads than theirs carry it",
        )
    if open_to:
        return undecided(
            f"{len(open_to)} of {total} decorations can be attacked; that their own heads carry it does not show",
        )
    return undecided(f"the intervals of the attacks reach across {HARDLY:g} %")


@checked_arguments()
def attacks_find_what_ablation_misses(
    attacked: Mapping[str, Interval],
    ablated: Mapping[str, Interval],
    beyond: Mapping[str, Interval],
    images: int,
) -> Judgement:
    """Q6. Holds if there is a decoration whose heads, ablated together, change the error for sure by less than
    *hardly*, while an attack on its pixels, beyond the worst of as many random draws there, raises it clearly by more
    than *hardly*. Holds in part if attacks on some decoration do more than *hardly* and clearly more than ablating its
    heads. Does not hold if no attack on a decoration clearly does more than *hardly*, or if for each ablating its heads
    clearly does more than the attack. Otherwise it is undecided.
    """
    if judgement := too_few(images, EFFECT):
        return judgement
    if not attacked:
        return Judgement(UNKNOWN, "no decoration was attacked")
    open_to = [name for name, effect in attacked.items() if effect.low > HARDLY]
    idle = [
        name
        for name in open_to
        if name in ablated and ablated[name].low > -HARDLY and ablated[name].high < HARDLY
    ]
    if idle:
        return Judgement(
            HOLDS,
            f"ablating the heads of {_named(idle)} changes the error by less than {HARDLY:g} %, the attack there does",
        )
    more = [name for name in open_to if name in beyond and beyond[name].low > 0]
    if more:
        return Judgement(
            IN_PART,
            f"in {_named(more)} the attack does clearly more than ablating the heads, but these heads are not shown "
            "to be idle",
        )
    if all(effect.high < HARDLY for effect in attacked.values()):
        return Judgement(FAILS, f"no attack on a decoration does more than {HARDLY:g} % beyond random noise")
    if all(name in beyond and beyond[name].high < 0 for name in attacked):
        return Judgement(
            FAILS, "ablating a decoration's heads does clearly more than the attack, for every decoration"
        )
    matter = [name for name, effect in ablated.items() if effect.low > HARDLY]
    known = f"ablating the heads of {_named(matter)} clearly costs more than {HARDLY:g} %: these do matter; "
    if not matter:
        return undecided(f"the intervals reach across zero or {HARDLY:g} %")
    if len(matter) == len(ablated):
        return undecided(f"{known}what attacks do beyond that has intervals that reach across zero")
    return undecided(f"{known}of the others the intervals reach across zero or {HARDLY:g} %")


RULES = {"C8": decorations_are_an_attack_surface, "Q6": attacks_find_what_ablation_misses}


def _named(names: list[str]) -> str:
    return ", ".join(names)


@checked_arguments()
def rows(run: JudgedRun) -> dict[str, Row]:
    """The scoreboard's rows of this chapter; open where the run lacks it."""
    if not run.has(CHAPTER):
        return {"C8": open_row("C8", SURFACE, study="not tested"), "Q6": open_row("Q6", ADVERSARIAL)}
    return {"C8": _c8(run), "Q6": _q6(run)}


def _c8(run: JudgedRun) -> Row:
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
    ranks = _attacks(run, "carried_rank")
    tested = ", ".join(f"{name} {found.value:.2g}" for name, found in ranks.items())
    return Row(
        id="C8",
        claim=SURFACE,
        study="not tested",
        ours="; ".join(told),
        sample=_attack_size(run),
        control="the worst of as many random draws on the same pixels is taken off every attack; more than random "
        f"heads of the same layers carry, in percentage points: {layers}"
        + (f"; p-values of rank tests among random sets: {tested}" if tested else ""),
        would_change="A stronger attack on a decoration that held; more images, so that what its heads carry can be "
        "distinguished from what random heads carry.",
        chapter=CHAPTER,
        figure="fig-carried",
        images=images,
        **numbers(_largest(attacked), "%"),
        **vars(decorations_are_an_attack_surface(attacked, carried, images, ranks or None)),
    )


def _q6(run: JudgedRun) -> Row:
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
        sample=_attack_size(run) + _ablation_size(run),
        control="the worst of as many random draws of the same budget on the same pixels is taken off every attack",
        would_change="A decoration whose heads are idle for sure and whose pixels are open to attack; another budget.",
        chapter=CHAPTER,
        figure="fig-vulnerability",
        images=images,
        **numbers(_largest(attacked), "%"),
        **vars(attacks_find_what_ablation_misses(attacked, ablated, more, images)),
    )


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


def _ablation_size(run: JudgedRun) -> str:
    """On how many images heads are ablated, where a run has others for that than for its attacks."""
    images = run.tables["claims_c8_q6"].get("ablation_images")
    return "" if images is None else f"; heads are ablated on {int(images.iloc[0]):,} other images"


def _largest(found: dict[str, Interval]) -> Interval:
    return max(found.values(), key=lambda effect: effect.value)
