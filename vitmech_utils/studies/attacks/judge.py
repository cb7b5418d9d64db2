"""Rules on attacks through a figure's decorations (C8, Q6). Written before any figure of chapter 10 was seen.

Pure functions of measured values, like the rules in `verdicts`, and with their limits. All intervals are in percent of
the MSE of the same, unchanged images.
"""

from collections.abc import Mapping

from vitmech_utils.statistics import Interval
from vitmech_utils.studies.verdicts import (
    FAILS,
    HALF,
    HARDLY,
    HOLDS,
    IN_PART,
    UNKNOWN,
    Judgement,
    too_few,
)


def decorations_are_an_attack_surface(
    attacked: Mapping[str, Interval], carried: Mapping[str, Interval], images: int
) -> Judgement:
    """C8. A decoration counts if an attack on its pixels raises the error, beyond the worst of as many random draws
    there, clearly by more than *hardly*, and if the heads that look at it carry clearly more of that attack than as
    many random heads. Holds if more than *half* of the decorations count, in part if any does. Does not hold if no
    attack clearly does more than *hardly*, or if, wherever one does, random heads clearly carry more of it. Otherwise
    it cannot be told.
    """
    if judgement := too_few(images):
        return judgement
    if not attacked:
        return Judgement(UNKNOWN, "no decoration was attacked")
    open_to = [name for name, effect in attacked.items() if effect.low > HARDLY]
    through = [name for name in open_to if name in carried and carried[name].low > 0]
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
        return Judgement(
            UNKNOWN,
            f"{len(open_to)} of {total} decorations can be attacked; that their own heads carry it does not show",
        )
    return Judgement(UNKNOWN, f"the intervals of the attacks reach across {HARDLY:g} %")


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
    clearly does more than the attack. Otherwise it cannot be told.
    """
    if judgement := too_few(images):
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
    return Judgement(UNKNOWN, f"the intervals reach across zero or {HARDLY:g} %")


RULES = {"C8": decorations_are_an_attack_surface, "Q6": attacks_find_what_ablation_misses}


def _named(names: list[str]) -> str:
    return ", ".join(names)
