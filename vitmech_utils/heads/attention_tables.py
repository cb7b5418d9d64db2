"""From running sums to tables: estimates, intervals, tests, and a reason for every number that cannot be given."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control
from scipy.stats import t as student

from vitmech_utils.heads.attention_sums import RunningSums
from vitmech_utils.statistics import percentile_bounds

SINKS = ("kept", "removed")
_SAME = 1e-7  # a share difference below this is float32 rounding: the region stood in the same place


def region_table(
    sums: RunningSums, variants: Sequence[tuple[str, str]], regions: Sequence[str]
) -> pd.DataFrame:
    """One row per layer, head (0-based), query, weighting, sinks and region; `reason` explains every NaN."""
    fields = {
        name: sums.mean(name) for name in ("share", "area", "ceiling", "shuffled", "entropy", "present")
    }
    share, area, ceiling = (fields[name] for name in ("share", "area", "ceiling"))
    with np.errstate(invalid="ignore", divide="ignore"):
        lift = np.where(area > 0, share / area, np.nan)
        focus = np.where(ceiling > area, (share - area) / (ceiling - area), np.nan)
    excess = share[0] - fields["shuffled"][0]
    has_shuffles = sums.shuffles > 0 and sums.images > 1
    p_value = _paired_t(excess, sums) if has_shuffles else np.full(excess.shape, np.nan)
    columns = {
        "attention_share": share[0],
        **_interval("attention", share, sums),
        "area_share": area[0],
        "ceiling": ceiling[0],
        "lift": lift[0],
        **_interval("lift", lift, sums),
        "focus": focus[0],
        **_interval("focus", focus, sums),
        "entropy": fields["entropy"][0],
        "map_entropy": np.broadcast_to(sums.mean("map_entropy")[0], excess.shape),
        "shuffled_share": fields["shuffled"][0] if has_shuffles else np.full(excess.shape, np.nan),
        "excess": excess if has_shuffles else np.full(excess.shape, np.nan),
        "p_value": p_value,
        "images": fields["present"][0].round().astype(int),
    }
    table = _long(columns, variants, regions)
    table["q_value"] = table.groupby(["query", "weighting", "sinks"])["p_value"].transform(adjusted)
    table["reason"] = _region_reasons(table, sums, np.broadcast_to(sums.mean("valid")[0], excess.shape))
    return table


def head_table(sums: RunningSums, variants: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """One row per layer, head (0-based), query, weighting and sinks: entropies, prefix and position shares."""
    entropy, prefix = sums.mean("map_entropy"), sums.mean("prefix_share")
    columns = {
        "map_entropy": entropy[0],
        **_interval("map_entropy", entropy, sums),
        "query_entropy": sums.mean("query_entropy")[0],
        "prefix_share": prefix[0],
        **_interval("prefix", prefix, sums),
        "position_share": sums.position_share()[..., None],
        "images": sums.mean("valid")[0].round().astype(int),
    }
    table = _long(columns, variants, ("",)).drop(columns="region")
    reasons = np.where(table["images"] == 0, "no attention on patches", "")
    if sums.images == 1:
        reasons = _append(reasons, np.ones(len(table), bool), "single image: no interval, no position share")
    else:
        reasons = _append(
            reasons, (table["images"] == 1).to_numpy(), "attention on patches in one image only"
        )
    if sums.replicates == 0:
        reasons = _append(reasons, np.ones(len(table), bool), "no bootstrap: no interval")
    table["reason"] = reasons
    return table


def adjusted(p_values: pd.Series) -> pd.Series:
    """Benjamini-Hochberg adjusted p-values; those that are NaN stay out of the family and NaN."""
    known = p_values.notna()
    result = pd.Series(np.nan, index=p_values.index)
    if known.any():
        result[known] = false_discovery_control(p_values[known].to_numpy(), method="bh")
    return result


def _interval(name: str, replicates: np.ndarray, sums: RunningSums) -> dict[str, np.ndarray]:
    empty = np.full(replicates.shape[1:], np.nan)
    if sums.replicates == 0 or sums.images == 1:
        return {f"{name}_low": empty, f"{name}_high": empty}
    known = np.isfinite(replicates[0])
    low, high = empty.copy(), empty.copy()
    if known.any():
        low[known], high[known] = percentile_bounds(replicates[1:, known])  # NaN where no image counts
    return {f"{name}_low": low, f"{name}_high": high}


def _paired_t(excess: np.ndarray, sums: RunningSums) -> np.ndarray:
    count = sums.mean("valid")[0]
    error = np.sqrt(sums.difference_variance() / np.maximum(count, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        p_value = 2 * student.sf(np.abs(excess) / error, np.maximum(count - 1, 1))
    p_value = np.where((np.abs(excess) < _SAME) & (error < _SAME), 1.0, p_value)
    return np.where((count > 2) & np.isfinite(excess), p_value, np.nan)


def _long(
    columns: dict[str, np.ndarray], variants: Sequence[tuple[str, str]], regions: Sequence[str]
) -> pd.DataFrame:
    shape = next(iter(columns.values())).shape  # [sinks, variant, layer, head, region]
    sinks, variant, layer, head, region = (index.ravel() for index in np.indices(shape))
    names = {
        "layer": layer,
        "head": head,
        "query": np.array([query for query, _ in variants])[variant],
        "weighting": np.array([weighting for _, weighting in variants])[variant],
        "sinks": np.array(SINKS)[sinks],
        "region": np.array(regions)[region],
    }
    return pd.DataFrame(names | {name: values.ravel() for name, values in columns.items()})


def _region_reasons(table: pd.DataFrame, sums: RunningSums, valid: np.ndarray) -> np.ndarray:
    everything = np.ones(len(table), bool)
    silent = valid.ravel() == 0
    absent = (table["images"].to_numpy() == 0) & ~silent
    reasons = np.where(silent, "no attention on patches", "")
    reasons = _append(reasons, absent, "region in no image: no lift, focus or entropy")
    known = ~silent & ~absent
    reasons = _append(
        reasons,
        known & table["entropy"].isna().to_numpy(),
        "no attention in the region, or it lies in one patch: no entropy",
    )
    reasons = _append(
        reasons, known & table["focus"].isna().to_numpy(), "the region covers all patches alike: no focus"
    )
    if sums.images == 1:
        return _append(reasons, everything, "single image: no interval, no shuffled regions")
    if sums.replicates == 0:
        reasons = _append(reasons, everything, "no bootstrap: no interval")
    if sums.shuffles == 0:
        return _append(reasons, everything, "no shuffled regions asked for")
    return _append(
        reasons,
        ~silent & table["p_value"].isna().to_numpy(),
        "attention on patches in fewer than three images: no test",
    )


def _append(reasons: np.ndarray, where: np.ndarray, text: str) -> np.ndarray:
    return np.array(
        [
            (f"{old}; {text}" if old else text) if add else old
            for old, add in zip(reasons, where, strict=True)
        ],
        dtype=object,
    )
