"""Which heads go: those of least effect, at random, or in rounds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from torch import nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.hooks import Head
from vitmech_utils.heads.pruning import prune_heads
from vitmech_utils.model.anatomy import find_blocks


@checked_arguments()
def least_effect(table: pd.DataFrame, count: int, magnitude: bool = False) -> set[Head]:
    """The `count` heads of least `effect` in a table of `sweep` (exact) or `first_order` (estimated).

    Effects are signed: heads whose removal lowers the error go first. With `magnitude`, those that change it least
    either way. Equal effects go by layer, then head. Raises `ValueError` for a count
    that the table cannot give, a head with several rows, or an effect that is not a number.
    """
    _check_count(count, len(table))
    if table.duplicated(["layer", "head"]).any():
        raise ValueError(
            "a head has several rows in this table, expected one mode of one sweep: filter it first"
        )
    if not np.isfinite(table["effect"]).all():
        raise ValueError("some effects are not finite, expected percent: rank heads by a complete sweep")
    keys = pd.DataFrame({"layer": table["layer"], "head": table["head"]})
    keys["effect"] = table["effect"].abs() if magnitude else table["effect"]
    first = keys.sort_values(["effect", "layer", "head"]).head(count)
    return {(int(layer), int(head)) for layer, head in zip(first["layer"], first["head"], strict=True)}


@checked_arguments()
def at_random(model: nn.Module, count: int, draws: int, rng: np.random.Generator) -> list[set[Head]]:
    """`draws` random sets of `count` heads of `model`, each head of a set drawn once, all alike likely."""
    pairs = find_blocks(model).pairs
    _check_count(count, len(pairs))
    return [{pairs[place] for place in rng.choice(len(pairs), count, replace=False)} for _ in range(draws)]


@checked_arguments()
def in_rounds(
    model: nn.Module,
    count: int,
    rounds: int,
    rank: Callable[[nn.Module], pd.DataFrame],
    magnitude: bool = False,
) -> set[Head]:
    """`count` heads chosen in `rounds` rounds, the heads that are left ranked anew after each removal.

    `rank` tabulates the effects of the heads of the pruned model that it is given, for instance
    `lambda pruned: first_order(pruned, pixel_values, labels)`. Rounds differ in size by one head at most; one round
    is `least_effect`. Heads that stand in for each other part the two ways: only the rounds notice that the last of
    them must stay. Raises `ValueError` for more rounds than heads, else as `least_effect`.
    """
    _check_count(count, len(find_blocks(model).pairs))
    if not 1 <= rounds <= count:
        raise ValueError(f"rounds is {rounds}, expected between 1 and the {count} heads that are to go")
    chosen: set[Head] = set()
    for step in np.array_split(np.arange(count), rounds):
        chosen |= least_effect(rank(prune_heads(model, chosen)), len(step), magnitude)
    return chosen


def _check_count(count: int, available: int) -> None:
    if not 1 <= count < available:
        raise ValueError(
            f"count is {count}, expected between 1 and {available - 1}: of {available} heads one must stay"
        )
