"""From tables of heads to the arrays that the head picker takes."""

import numpy as np
import pandas as pd


def head_facts(classes: pd.DataFrame, effects: pd.DataFrame) -> dict[str, object]:
    """What tables of `classify` and `sweep` (one mode) say of heads, as arguments of `HeadPicker`.

    Effects with their intervals, map entropies, classes and their evidence, [layer, head] each. Effects are NaN for
    heads that were not ablated; a head may not occur twice.
    """
    layers, heads = int(classes["layer"].max()) + 1, int(classes["head"].max()) + 1

    def grid(table: pd.DataFrame, column: str) -> np.ndarray:
        wide = table.pivot(index="layer", columns="head", values=column)
        return wide.reindex(index=range(layers), columns=range(heads)).to_numpy()

    names = {"effect": "effect", "effect_low": "low", "effect_high": "high"}
    return {name: grid(effects, column) for name, column in names.items()} | {
        "entropy": grid(classes, "map_entropy"),
        "entropy_unit": "of its maximum",
        "head_class": grid(classes, "class").tolist(),
        "evidence": grid(classes, "evidence").tolist(),
    }
