"""What a head is about: a class from measured attention, with its evidence and how far to trust it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.optimize import nnls

from vitmech_utils.arguments import check_fields, check_table, checked_arguments
from vitmech_utils.heads.attention_shares import AttentionStatistics
from vitmech_utils.heads.attention_tables import SINKS
from vitmech_utils.heads.sinks import Sinks

CLASSES = ("monosemantic", "polysemantic", "diffuse", "positional", "sink")


@dataclass(frozen=True)
class Thresholds:
    """Where the classes part: shares in [0, 1] but for `information` (nats); `sensitivity` shows what moving them does.

    sink: attention on CLS, registers and sink patches from which a head is a sink. information: distance from even
    attention (Kullback-Leibler divergence over regions) from which it is about anything. part: share of that
    distance that makes a region one of the head's. follow: how much of the lift must move with a thing that is
    moved. position: part of the maps' variance explained by position alone that makes a head positional. Raises
    ValueError for other numbers.
    """

    sink: float = 0.75
    information: float = 0.3
    part: float = 0.25
    follow: float = 0.3
    position: float = 0.5

    def __post_init__(self) -> None:
        check_fields(self)
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < (math.inf if field.name == "information" else 1 + 1e-12):
                raise ValueError(
                    f"threshold {field.name} is {value}, expected a share in [0, 1] (information: nats)"
                )


@dataclass(frozen=True)
class _Measured:
    """Everything the rule looks at; the first axis counts bootstrap replicates, 0 is the estimate."""

    weights: Float[ndarray, "replicate layer head region"]
    area: Float[ndarray, "replicate layer head region"]
    entropy: Float[ndarray, "replicate layer head"]
    valid: Float[ndarray, "replicate layer head"]
    position: Float[ndarray, "layer head"]
    sink: Float[ndarray, "layer head"]
    follow: Float[ndarray, "layer head region"]
    present: Bool[ndarray, "layer head"]
    names: tuple[str, ...]


@checked_arguments()
def classify(
    statistics: AttentionStatistics,
    twins: pd.DataFrame | None = None,
    sinks: Sinks | None = None,
    thresholds: Thresholds = Thresholds(),
    *,
    query: str | None = None,
    weighting: str = "raw",
    without_sinks: bool = False,
) -> pd.DataFrame:
    """Give each head one of `CLASSES`, the regions it is about, evidence in words and numbers, and a confidence.

    The shares of a head are first unmixed: `weight` of a region is the part of attention that goes to it once what
    falls on neighbours in shared patches is accounted for (non-negative least squares on the profiles of
    `statistics`). Even attention has weights equal to area shares; a region's part of `information`
    is `weight * log(weight / area share)`, in nats, where that is positive: much attention on a small thing
    counts for more than on a large one. In this order a head is a `sink` (`sinks`, or else CLS and registers),
    `monosemantic` or `polysemantic` (one or more regions hold a `part` of the information, and follow when moved,
    by `twins`, the table of `twin_effects`), `positional` (position explains its maps), else `diffuse`.
    `query` is by default what the answer reads.
    `confidence` is the share of bootstrap replicates over images that give the same class and regions. Layers and
    heads are 0-based. Raises ValueError for twins of heads or regions that `statistics` do not hold, or named twice.
    """
    query = statistics.variants[0][0] if query is None else query
    return _classified(_measure(statistics, twins, sinks, (query, weighting), without_sinks), thresholds)


def _classified(measured: _Measured, thresholds: Thresholds) -> pd.DataFrame:
    kind, chosen = _rule(measured, thresholds)
    same = (kind == kind[0]) & (chosen == chosen[0]).all(-1)
    confidence = same[1:].mean(0) if len(same) > 1 else np.full(same.shape[1:], np.nan)
    gains = _information(measured)[0]
    rows = []
    for layer, head in np.argwhere(measured.present).tolist():
        order = np.argsort(-gains[layer, head], kind="stable")
        name = CLASSES[kind[0, layer, head]]
        regions = [measured.names[r] for r in order if chosen[0, layer, head, r]]
        top, second = order[:2]
        rows.append(
            {
                "layer": layer,
                "head": head,
                "class": name,
                "regions": " + ".join(regions),
                "confidence": confidence[layer, head],
                "top_region": measured.names[top],
                "top_weight": measured.weights[0, layer, head, top],
                "top_area": measured.area[0, layer, head, top],
                "top_follow": measured.follow[layer, head, top],
                "second_region": measured.names[second],
                "second_weight": measured.weights[0, layer, head, second],
                "information": gains[layer, head].sum(),
                "sink_share": measured.sink[layer, head],
                "position_share": measured.position[layer, head],
                "map_entropy": measured.entropy[0, layer, head],
                "evidence": _evidence(measured, layer, head, name, order),
                "reason": _reason(measured, layer, head, int(top), confidence[layer, head]),
            }
        )
    return pd.DataFrame(rows)


@checked_arguments()
def sensitivity(
    statistics: AttentionStatistics,
    twins: pd.DataFrame | None = None,
    sinks: Sinks | None = None,
    thresholds: Thresholds = Thresholds(),
    grid: Iterable[float] = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9),
) -> pd.DataFrame:
    """Count heads per class while one threshold at a time runs over `grid`: threshold, value, class, heads."""
    measured = _first(_measure(statistics, twins, sinks, statistics.variants[0], False))
    rows = []
    for field in fields(Thresholds):
        for value in grid:
            kind, _ = _rule(measured, replace(thresholds, **{field.name: value}))
            counts = np.bincount(kind[0][measured.present], minlength=len(CLASSES))
            rows += [
                {"threshold": field.name, "value": value, "class": name, "heads": int(count)}
                for name, count in zip(CLASSES, counts, strict=True)
            ]
    return pd.DataFrame(rows)


REASONABLE = {
    "sink": (0.6, 0.9),
    "information": (0.15, 0.5),
    "part": (0.15, 0.4),
    "follow": (0.2, 0.5),
    "position": (0.35, 0.65),
}
"""Between which values one may well put each threshold; a claim about classes is to hold over all of them."""


@checked_arguments()
def classes_over_thresholds(
    statistics: AttentionStatistics, twins: pd.DataFrame | None = None, sinks: Sinks | None = None
) -> pd.DataFrame:
    """Classify with the usual thresholds, then with one of them at a time at either end of what is `REASONABLE`.

    Returns the rows of `classify` one under the other, with threshold and value ("none" and NaN for the usual ones).
    """
    measured = _measure(statistics, twins, sinks, (statistics.variants[0][0], "raw"), False)
    parts = [_classified(measured, Thresholds()).assign(threshold="none", value=math.nan)]
    for name, ends in REASONABLE.items():
        for value in ends:
            moved = replace(Thresholds(), **{name: value})
            parts.append(_classified(measured, moved).assign(threshold=name, value=value))
    return pd.concat(parts, ignore_index=True)


@checked_arguments()
def unmix(
    shares: Float[ndarray, "*head region"], profiles: Float[ndarray, "region region"]
) -> Float[ndarray, "*head region"]:
    """Weights w >= 0 with sum 1 whose mixture of profiles comes nearest to the shares (least squares).

    A head that attends to region r alone has shares `profiles[r]` and gets w = 1 at r; even attention gets the area
    shares. Regions in no image (NaN profiles) get 0, heads without shares (NaN) all 0.
    """
    present = np.isfinite(profiles).all(1)
    weights = np.zeros(shares.shape)
    basis = profiles[present][:, :].T
    for place in np.ndindex(shares.shape[:-1]):
        if np.isfinite(shares[place]).all():
            found, _ = nnls(basis, shares[place])
            weights[place][present] = found / max(found.sum(), 1e-12)
    return weights


@checked_arguments()
def class_changes(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Join two tables of `classify`: class and regions before and after, and whether each changed.

    `changed` is true where the class or the set of regions differs. Layers and heads are 0-based.
    """
    columns = ["layer", "head", "class", "regions", "confidence", "top_region", "top_weight"]
    for name, table in {"before": before, "after": after}.items():
        check_table(name, table, columns, key=("layer", "head"))
    joined = before[columns].merge(
        after[columns], on=["layer", "head"], suffixes=("_before", "_after"), validate="1:1"
    )
    regions = [
        joined[f"regions_{when}"].str.split(" + ", regex=False).map(frozenset) for when in ("before", "after")
    ]
    joined["changed"] = (joined["class_before"] != joined["class_after"]) | (regions[0] != regions[1])
    return joined


def _measure(
    statistics: AttentionStatistics,
    twins: pd.DataFrame | None,
    sinks: Sinks | None,
    variant: tuple[str, str],
    without_sinks: bool,
) -> _Measured:
    if variant not in statistics.variants:
        raise ValueError(f"query and weighting are {variant}, expected one of {statistics.variants}")
    share = statistics.replicates["share"]
    if without_sinks and share.shape[1] < 2:
        raise ValueError(
            "statistics hold no rows without sinks: compute them with attention_statistics(..., sinks=mask)"
        )
    at, which = int(without_sinks), statistics.variants.index(variant)
    pick = {name: array[:, at, which] for name, array in statistics.replicates.items()}
    weights = np.stack([unmix(s, p) for s, p in zip(pick["share"], statistics.profiles, strict=True)])
    heads = statistics.heads.query(
        f"query == {variant[0]!r} and weighting == {variant[1]!r} and sinks == {SINKS[at]!r}"
    )
    shape = weights.shape[1:3]
    present = np.zeros(shape, dtype=bool)
    present[heads["layer"], heads["head"]] = True
    return _Measured(
        weights=weights,
        area=np.nan_to_num(pick["area"]),
        entropy=pick["map_entropy"][..., 0],
        valid=pick["valid"][..., 0],
        position=_grid(heads, "position_share", shape),
        sink=sinks.share if sinks is not None else _grid(heads, "prefix_share", shape),
        follow=_follow(twins, shape, statistics.names),
        present=present,
        names=statistics.names,
    )


def _grid(heads: pd.DataFrame, column: str, shape: tuple[int, int]) -> Float[ndarray, "layer head"]:
    grid = np.full(shape, np.nan)
    grid[heads["layer"], heads["head"]] = heads[column]
    return grid


def _first(measured: _Measured) -> _Measured:
    return replace(
        measured, **{name: getattr(measured, name)[:1] for name in ("weights", "area", "entropy", "valid")}
    )


def _follow(twins: pd.DataFrame | None, shape: tuple[int, int], names: tuple[str, ...]) -> ndarray:
    follow = np.full((*shape, len(names)), np.nan)
    if twins is not None:
        check_table("twins", twins, ("layer", "head", "change", "region", "follow"))
        moved = twins[twins["change"].map(str).str.endswith(" moved")]
        check_table("twins", moved, (), key=("layer", "head", "region"))
        for column, allowed in (("layer", range(shape[0])), ("head", range(shape[1])), ("region", names)):
            for value in moved[column].unique():
                if value not in allowed:
                    words = (
                        f"0 to {len(allowed) - 1}"
                        if isinstance(allowed, range)
                        else f"one of {', '.join(names)}"
                    )
                    raise ValueError(f"twins: {column} is {value}, expected {words}")
        for row in moved.itertuples():
            follow[row.layer, row.head, names.index(row.region)] = row.follow
    return follow


def _rule(measured: _Measured, limits: Thresholds) -> tuple[ndarray, ndarray]:
    """Class numbers [replicate, layer, head] and the chosen regions [replicate, layer, head, region]."""
    gains = _information(measured)
    total = gains.sum(-1, keepdims=True)
    stays = np.nan_to_num(measured.follow, nan=1.0) < limits.follow
    chosen = (gains > 0) & (gains >= limits.part * total) & (total >= limits.information) & ~stays
    count = chosen.sum(-1)
    place = np.broadcast_to(measured.position >= limits.position, count.shape)
    sink = np.broadcast_to(measured.sink >= limits.sink, count.shape)
    conditions = {"sink": sink, "monosemantic": count == 1, "polysemantic": count > 1, "positional": place}
    numbers = [CLASSES.index(name) for name in conditions]
    names = np.select(list(conditions.values()), numbers, CLASSES.index("diffuse"))
    about = np.isin(names, [CLASSES.index("monosemantic"), CLASSES.index("polysemantic")])
    return names, chosen & about[..., None]


def _information(measured: _Measured) -> Float[ndarray, "replicate layer head region"]:
    """What each region adds to the divergence from even attention, in nats; 0 where it gets less than its area."""
    weights, area = measured.weights, measured.area
    above = (weights > area) & (area > 0) & (measured.valid > 0)[..., None]
    ratio = np.where(above, weights, 1) / np.where(above, area, 1)
    return np.where(above, weights * np.log(ratio), 0.0)


def _evidence(measured: _Measured, layer: int, head: int, name: str, order: ndarray) -> str:
    if not measured.valid[0, layer, head]:
        return f"no attention on patches; {measured.sink[layer, head]:.0%} on CLS, registers and sinks"
    if name == "sink":
        return (
            f"{measured.sink[layer, head]:.0%} of attention on CLS, registers and sink patches in every look"
        )
    parts = []
    for region in order[:2]:
        weight, area = measured.weights[0, layer, head, region], measured.area[0, layer, head, region]
        follow = measured.follow[layer, head, region]
        if weight > area:
            moves = "not moved in any twin" if np.isnan(follow) else f"follows by {follow:.2f} when moved"
            parts.append(f"{weight:.0%} on {measured.names[region]} ({area:.1%} of area; {moves})")
    position = measured.position[layer, head]
    if not np.isnan(position):
        parts.append(f"position explains {position:.0%} of its maps")
    parts.append(f"map entropy {measured.entropy[0, layer, head]:.2f}")
    return "; ".join(parts)


def _reason(measured: _Measured, layer: int, head: int, top: int, confidence: float) -> str:
    reasons = []
    if not measured.valid[0, layer, head]:
        reasons.append("no attention on patches: no entropy, no position share")
    elif np.isnan(measured.position[layer, head]):
        reasons.append("a single image: no position share")
    if np.isnan(measured.follow[layer, head, top]):
        reasons.append(f"{measured.names[top]} is moved in no twin: no follow")
    if np.isnan(confidence):
        reasons.append("no bootstrap: no confidence")
    return "; ".join(reasons)
