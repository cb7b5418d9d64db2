"""The rule on heads taken together: do single ablations miss what several heads do at once (Q7)?

Written before any figure of chapter 09 was seen.
"""

from vitmech_utils.statistics import Interval
from vitmech_utils.studies.verdicts import FAILS, HALF, HOLDS, IN_PART, UNKNOWN, Judgement, too_few

ALIKE = 0.9
KEPT = 100.0
LIMITS = {
    "alike (rank correlation)": (
        ALIKE,
        "two orders of heads of which each explains four fifths of the other's ranks; what one says of the first "
        "heads, the other says as well",
    ),
    "performance kept (percent)": (
        KEPT,
        "an error that has not doubled: predictions are off by at most one and a half times as many seconds or hertz",
    ),
}


def single_ablations_miss(differing: int, layers: int, ranks: Interval, images: int) -> Judgement:
    """Q7. Holds if in more than half of the layers the heads, ablated together, change the error clearly otherwise than
    their single effects add up to (false discoveries limited), and the order of heads by single effect is clearly not
    alike the order by Shapley value. Holds in part if one of the two is so. Does not hold if no layer differs clearly
    and the two orders are clearly alike. Otherwise it cannot be told.
    """
    if judgement := too_few(images):
        return judgement
    often, reordered = differing > HALF * layers, ranks.high < ALIKE
    where = (
        f"in {differing} of {layers} layers the heads together differ clearly from the sum of their effects"
    )
    order = (
        f"the order by Shapley value is {'clearly another one' if reordered else 'not clearly another one'} "
        f"(rank correlation {ranks:.2f})"
    )
    if often and reordered:
        return Judgement(HOLDS, f"{where}, and {order}")
    if often or reordered:
        return Judgement(IN_PART, f"{where}; {order}")
    if differing == 0 and ranks.low > ALIKE:
        return Judgement(FAILS, f"{where}, and both orders of heads are clearly alike")
    return Judgement(UNKNOWN, f"{where}; {order}")


RULES = {"Q7": single_ablations_miss}
