"""Several trainings of one model: the verdicts on each, and how alike their heads are.

Chapters measure a training with the functions that they measure the first one with, on fewer images (the profile's
section `trainings`). Trainings are called by `named`; a mapping's first one is the one that the chapter is about.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.attention_shares import AttentionStatistics
from vitmech_utils.heads.rank_agreement import disattenuated_correlation


@checked_arguments()
def named(seed: int) -> str:
    """What a training is called after its seed."""
    return f"seed {seed}"


@checked_arguments()
def joined(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Tables of several trainings in one, with a column training; of none, a table without rows."""
    parts = [table.assign(training=name) for name, table in tables.items()]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"training": []}, dtype=str)


@checked_arguments()
def apart(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The tables that `joined` put together, by training and in its order, numbered from 0."""
    return {
        name: part.drop(columns="training").reset_index(drop=True)
        for name, part in table.groupby("training", sort=False)
    }


@checked_arguments()
def of_each(ask: Callable[[int], pd.DataFrame], seeds: Sequence[int]) -> pd.DataFrame:
    """What `ask` finds in the training of each seed, in one table with a column training."""
    return joined({named(seed): ask(seed) for seed in seeds})


# Orders


@checked_arguments()
def order_agreement(
    values: Mapping[str, Mapping[str, Float[ndarray, "head image"]]], draws: int = 2000
) -> pd.DataFrame:
    """How much of their order of heads every two trainings share, beside what each keeps of its own.

    `values` hold by training and quantity one value per head and image, on the same images: the first ones that both
    have are taken. Returns first, second, quantity, between with its bounds (rank correlation between halves of the
    images), ceiling (what a training keeps of itself between halves), share (their quotient) with low and high, images.
    """
    rows = []
    for (first, one), (second, other) in itertools.combinations(values.items(), 2):
        for what in one:
            count = min(one[what].shape[1], other[what].shape[1])
            pair = (np.asarray(found[what][None, :, :count], float) for found in (one, other))
            order = disattenuated_correlation(*pair, draws)
            rows.append(
                {
                    "first": first, "second": second, "quantity": what, "images": 2 * order.images,
                    "between": order.between.value, "low_between": order.between.low,
                    "high_between": order.between.high, "ceiling": order.ceiling.value,
                    "share": order.share.value, "low": order.share.low, "high": order.share.high,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


@checked_arguments()
def class_agreement(
    classes: Mapping[str, pd.DataFrame],
    halves: tuple[pd.DataFrame, pd.DataFrame] | None,
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """In how many heads every two trainings have the same class, and the same class and regions.

    `classes` are tables of `semantics.classify` for the same heads, `halves` those of the first training from either
    half of its images: what it keeps of itself, the first row, left out without them. Returns first, second,
    same_class, same_regions (heads), by_chance (the class, when heads change places within their layers: mean over
    `draws`), at_most (95 % of those), heads.
    """
    name, rng, rows = next(iter(classes)), np.random.default_rng(seed), []
    pairs = [((name, f"{name}, other images"), halves)] if halves else []
    pairs += [
        ((first, second), (one, other))
        for (first, one), (second, other) in itertools.combinations(classes.items(), 2)
    ]
    for (first, second), (one, other) in pairs:
        both = one.merge(other, on=["layer", "head"], suffixes=("", "_other"))
        same = both["class"] == both["class_other"]
        alike = same & (both["regions"] == both["regions_other"])
        labels, against = both["class"].to_numpy(), both["class_other"].to_numpy()
        moved = [
            int((labels == against[_within_layers(both["layer"].to_numpy(), rng)]).sum())
            for _ in range(draws)
        ]
        counts = int(same.sum()), int(alike.sum()), float(np.mean(moved)), float(np.quantile(moved, 0.95))
        rows.append((first, second, *counts, len(both)))
    columns = ["first", "second", "same_class", "same_regions", "by_chance", "at_most", "heads"]
    return pd.DataFrame(rows, columns=columns)


def _within_layers(layers: Int[ndarray, " head"], rng: np.random.Generator) -> Int[ndarray, " head"]:
    """Places of heads after a change of places within layers."""
    moved = np.empty(len(layers), dtype=int)
    moved[np.argsort(layers, kind="stable")] = np.lexsort((rng.random(len(layers)), layers))
    return moved


# Heads matched by what they do


@checked_arguments()
def attention_profiles(statistics: AttentionStatistics) -> pd.DataFrame:
    """Where every head's attention goes: layer, head, and its share of each region and of CLS and registers."""
    share, prefix = (statistics.replicates[name][0, 0, 0] for name in ("share", "prefix_share"))
    layer, head = (axis.ravel() for axis in np.indices(share.shape[:2]))
    columns = {name: share[..., place].ravel() for place, name in enumerate(statistics.names)}
    return pd.DataFrame({"layer": layer, "head": head, **columns, "first tokens": prefix[..., 0].ravel()})


@checked_arguments()
def target_effects(sweeps: Mapping[str, pd.DataFrame]) -> dict[str, Float[ndarray, "head target"]]:
    """By training the effects of its heads on each target, in the order of layer and head."""
    return {
        name: table.sort_values(["layer", "head"]).filter(regex="^effect_(?!whole)").to_numpy(float)
        for name, table in sweeps.items()
    }


@checked_arguments()
def matched_heads(
    first: Float[ndarray, "head feature"], second: Float[ndarray, "other feature_too"]
) -> Int[ndarray, " head"]:
    """For each head of the first training the head of the second that does most nearly the same, each taken once.

    The assignment of least total distance (Euclidean). Raises `ValueError` for other heads or features.
    """
    if first.shape != second.shape:
        raise ValueError(
            f"got {first.shape} and {second.shape}, expected two equal shapes [head, feature]: the same heads"
        )
    return linear_sum_assignment(np.linalg.norm(first[:, None] - second[None], axis=-1))[1]


@checked_arguments()
def matching(
    looks: Mapping[str, pd.DataFrame],
    effects: Mapping[str, Float[ndarray, "head quantity"]],
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Match the heads of the first training to those of each other one, by attention, by effect and by both.

    Numbers of heads need not correspond between trainings. `looks` are `attention_profiles`, `effects` one row per
    head, in the same order (layer, head), of its effects on each target. Shares enter by their square roots, effects by
    their ranks, so that each of the two counts alike in a match by both.

    A match by one thing is judged by the other one: `agreement` is the rank correlation of the mean effects of matched
    heads (or, matched by effect, minus the mean distance of their attention, so that more is better), `by_number` the
    same of heads with the same number, `by_chance` with `low` and `high` the same of matched heads that then change
    places within their layers. Matched by both, nothing is left to judge by. Returns first, second, matched_by,
    same_head, same_layer (shares of heads), agreement, by_number, by_chance, low, high, heads.
    """
    (own, ours), *others = looks.items()
    rng, rows = np.random.default_rng(seed), []
    layers = ours["layer"].to_numpy()
    for name, theirs in others:
        seen = [np.sqrt(_shares(table)) for table in (ours, theirs)]
        done = [_ranked(effects[each]) for each in (own, name)]
        sizes = [each.mean(1) for each in (effects[own], effects[name])]
        both = [np.hstack([a, b / np.sqrt(b.shape[1])]) for a, b in zip(seen, done, strict=True)]
        judges = {
            "attention": lambda place, sizes=sizes: _ranks_agree(sizes[0], sizes[1][place]),
            "effect": lambda place, seen=seen: (
                -float(np.linalg.norm(seen[0] - seen[1][place], axis=1).mean())
            ),
        }
        for by, features in {"attention": seen, "effect": done, "both": both}.items():
            place = matched_heads(*features)
            kept = float((place == np.arange(len(place))).mean()), float((layers[place] == layers).mean())
            found = [np.nan] * 5
            if judge := judges.get(by):
                chance = [judge(place[_within_layers(layers, rng)]) for _ in range(draws)]
                bounds = np.quantile(chance, [0.025, 0.975])
                found = [judge(place), judge(np.arange(len(place))), np.mean(chance), *bounds]
            rows.append((own, name, by, *kept, *map(float, found), len(place)))
    columns = ["first", "second", "matched_by", "same_head", "same_layer"]
    return pd.DataFrame(
        rows, columns=[*columns, "agreement", "by_number", "by_chance", "low", "high", "heads"]
    )


def _shares(look: pd.DataFrame) -> Float[ndarray, "head region"]:
    return np.clip(look.drop(columns=["layer", "head"]).to_numpy(float), 0, None)


def _ranked(effects: Float[ndarray, "head quantity"]) -> Float[ndarray, "head quantity"]:
    return rankdata(effects, axis=0) / len(effects)


def _ranks_agree(one: Float[ndarray, " head"], other: Float[ndarray, " head"]) -> float:
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])
