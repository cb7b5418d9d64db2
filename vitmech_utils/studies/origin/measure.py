"""Where heads come from: one network's heads held against another's, head by head, on the same images."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import t as student

from vitmech_utils.heads.attention_shares import AttentionStatistics
from vitmech_utils.heads.attention_tables import SINKS
from vitmech_utils.statistics import adjust, percentile_bounds

TEXTS = ("title", "axis label", "tick label", "colour-bar label")
GROUPS: dict[str, tuple[str, ...]] = {
    "chirp": ("chirp",),
    "text": TEXTS,
    "edge": ("frame",),
    "colour bar": ("colour bar",),
    "background": ("plot background", "margin"),
}
"""What a head can be about, in the words of the study's claims, and the regions that count as it."""
SUBJECTS = (*GROUPS, "several things", "nothing")


def lift_changes(
    before: AttentionStatistics, after: AttentionStatistics, confidence: float = 0.95
) -> pd.DataFrame:
    """How each head's lift on each region differs between two networks, with paired intervals over images.

    Both must come from `attention_statistics` on the same images with the same seed and number of replicates: each
    bootstrap replicate then redraws the same images for both. One row per layer, head (0-based) and region that the
    images have: lift_before, lift_after (dimensionless; 1 is an even look), doublings (log2 of after / before) with
    low and high, p_value (two-sided, Student's t with the replicates' spread) and q_value (Benjamini-Hochberg over
    all rows). Where the replicates do not vary, as with a single image, the p-value is 1. CLS queries, raw weights,
    sinks kept. Raises `ValueError` where the two do not belong together.
    """
    for what in ("names", "images", "grid"):
        if getattr(before, what) != getattr(after, what):
            raise ValueError(
                f"the two differ in {what} ({getattr(before, what)} and {getattr(after, what)}), expected statistics "
                "of the same images"
            )
    one, other = (_lifts(statistics) for statistics in (before, after))
    if one.shape != other.shape:
        raise ValueError(
            f"the two hold replicates x layers x heads x regions {one.shape} and {other.shape}, expected one shape"
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        doublings = np.log2(other / one)
    doublings[~np.isfinite(doublings)] = np.nan  # no attention on one side: no ratio
    told = np.isfinite(doublings[0]) & (np.isfinite(doublings[1:]).sum(0) > 1)
    spread, low, high = (np.full(told.shape, np.nan) for _ in range(3))
    spread[told] = np.nanstd(doublings[1:, told], axis=0, ddof=1)
    low[told], high[told] = percentile_bounds(doublings[1:, told], confidence)
    rows = []
    for layer, head, region in np.argwhere(np.isfinite(doublings[0])).tolist():
        place = (layer, head, region)
        rows.append(
            (layer, head, before.names[region], one[0][place], other[0][place], doublings[0][place],
             low[place], high[place], _p_value(doublings[0][place], spread[place], before.images))
        )  # fmt: skip
    columns = ["layer", "head", "region", "lift_before", "lift_after", "doublings", "low", "high", "p_value"]
    table = pd.DataFrame(rows, columns=columns)
    table["q_value"] = adjust(table["p_value"].to_numpy()) if len(table) else []
    return table


def subjects(classes: pd.DataFrame) -> pd.Series:
    """What each head of a table of `classify` is about: one of `SUBJECTS`, in the table's order.

    A mono- or polysemantic head whose regions all lie in one group of `GROUPS` is about that group, with regions of
    several groups about "several things"; heads of every other class are about "nothing".
    """
    group_of = {region: name for name, regions in GROUPS.items() for region in regions}

    def subject(kind: str, regions: str) -> str:
        if kind not in ("monosemantic", "polysemantic") or not regions:
            return "nothing"
        found = {group_of[region] for region in regions.split(" + ")}
        return found.pop() if len(found) == 1 else "several things"

    named = [
        subject(kind, regions) for kind, regions in zip(classes["class"], classes["regions"], strict=True)
    ]
    return pd.Series(named, index=classes.index, name="subject")


def transitions(before: pd.DataFrame, after: pd.DataFrame, sure: float = 0.95) -> pd.DataFrame:
    """Pair two tables of `classify`: one row per head with its subject and class before and after.

    Columns: layer, head (0-based), class_before, class_after, regions_before, regions_after, subject_before,
    subject_after, sure (both classes keep in at least this share of redrawn sets of images).
    """
    columns = ["layer", "head", "class", "regions", "confidence"]
    named = [table[columns].assign(subject=subjects(table)) for table in (before, after)]
    joined = named[0].merge(
        named[1], on=["layer", "head"], suffixes=("_before", "_after"), validate="one_to_one"
    )
    joined["sure"] = (joined["confidence_before"] >= sure) & (joined["confidence_after"] >= sure)
    return joined.drop(columns=["confidence_before", "confidence_after"])


def about(regions: pd.Series, group: str) -> pd.Series:
    """Whether each head's `regions`, as `classify` writes them, hold one of a group of `GROUPS`."""
    wanted = set(GROUPS[group])
    return regions.map(lambda text: bool(wanted & set(text.split(" + "))))


def fates(moves: pd.DataFrame) -> pd.DataFrame:
    """Count, for each group of `GROUPS`, what became of the heads that are about it, from a table of `transitions`.

    A head counts for every group that one of its regions belongs to, so a polysemantic head may count for several.
    Columns: subject, before, after, kept, appeared, vanished, and the same three for heads whose classes are sure
    both times (kept_sure, appeared_sure, vanished_sure). kept + vanished = before, kept + appeared = after.
    """
    rows = []
    for name in GROUPS:
        was, is_now = (about(moves[f"regions_{when}"], name) for when in ("before", "after"))
        parts = {"kept": was & is_now, "appeared": ~was & is_now, "vanished": was & ~is_now}
        counts = {key: int(part.sum()) for key, part in parts.items()}
        certain = {f"{key}_sure": int((part & moves["sure"]).sum()) for key, part in parts.items()}
        rows.append(
            {"subject": name, "before": int(was.sum()), "after": int(is_now.sum()), **counts, **certain}
        )
    return pd.DataFrame(rows)


def total_change(changes: pd.DataFrame) -> pd.DataFrame:
    """One number for how much each head's attention changed: mean absolute doublings over the regions.

    From a table of `lift_changes`; columns layer, head, change. Regions to which a head gave nothing on either side
    (no finite number of doublings) are left out.
    """
    sizes = changes.assign(change=changes["doublings"].abs())
    return sizes.groupby(["layer", "head"], as_index=False)["change"].mean()


def _lifts(statistics: AttentionStatistics) -> np.ndarray:
    kept = SINKS.index("kept")
    share, area = (statistics.replicates[name][:, kept, 0] for name in ("share", "area"))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(area > 0, share / area, np.nan)


def _p_value(value: float, spread: float, images: int) -> float:
    if images < 2 or not spread > 0:  # nothing varies, or nothing is known of how it does: no evidence
        return 1.0
    widened = spread * np.sqrt(images / (images - 1))  # the bootstrap's spread is that of a sample of itself
    return float(2 * student.sf(abs(value) / widened, images - 1))
