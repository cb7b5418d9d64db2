"""What the heads' effects add up to per layer, and how layers compare: the study's claims C1 and C2."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from vitmech_utils.heads.ablation import HeadPredictions
from vitmech_utils.statistics import Interval, effect_intervals, effect_sizes, ratio_of_effects
from vitmech_utils.tasks import Loss, Task

# The study's figures, percent of the baseline's MSE (arXiv 2503.18762): layers 1-3, and layer 6.
STUDY_EARLY, STUDY_EARLY_DEVIATION = 0.11, 0.09
STUDY_LATE, STUDY_LATE_DEVIATION = 0.34, 0.02
EARLY, LATE = (0, 1, 2), (5,)


def layer_effects(
    predictions: HeadPredictions,
    labels: Tensor | None,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    *,
    task: Task | str | Loss | None = None,
) -> pd.DataFrame:
    """The mean effect of each layer's heads, ablated one at a time.

    Returns layer (0-based), effect (percent or the task's unit, mean over the layer's heads), low, high (paired
    bootstrap over images), deviation (standard deviation over heads), largest (the head with the largest effect,
    0-based). `task` as in `Answers.losses`.
    """
    losses = predictions.losses(labels, task)
    changed, baseline = losses.mean()
    layers = np.unique(predictions.layers)
    means = np.stack([changed[predictions.layers == layer].mean(0) for layer in layers])
    single = effect_sizes(changed, baseline, losses.relative)
    low, high = effect_intervals(means, baseline, bootstrap, confidence, seed, losses.relative)
    by_layer = [single[predictions.layers == layer] for layer in layers]
    return pd.DataFrame(
        {
            "layer": layers,
            "mode": predictions.mode,
            "effect": effect_sizes(means, baseline, losses.relative),
            "low": low,
            "high": high,
            "deviation": [effects.std(ddof=1) if effects.size > 1 else 0.0 for effects in by_layer],
            "largest": [
                predictions.heads[predictions.layers == layer][effects.argmax()]
                for layer, effects in zip(layers, by_layer, strict=True)
            ],
        }
    )


def compare_layers(
    predictions: HeadPredictions,
    labels: Tensor | None,
    early: Sequence[int] = EARLY,
    late: Sequence[int] = LATE,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    *,
    task: Task | str | Loss | None = None,
) -> dict[str, Interval]:
    """Mean single-head effect of two groups of layers (0-based), in the task's unit, and their ratio late / early.

    Returns the intervals `early`, `late` and `ratio`. The defaults are the study's: layers 1-3 and layer 6.
    """
    losses = predictions.losses(labels, task)
    changed, baseline = losses.mean()
    groups = {
        name: changed[np.isin(predictions.layers, layers)].mean(0)
        for name, layers in (("early", early), ("late", late))
    }
    found = {}
    for name, errors in groups.items():
        low, high = effect_intervals(errors[None], baseline, bootstrap, confidence, seed, losses.relative)
        size = effect_sizes(errors[None], baseline, losses.relative)
        found[name] = Interval(float(size[0]), float(low[0]), float(high[0]))
    ratio = ratio_of_effects(groups["late"], groups["early"], baseline, bootstrap, confidence, seed)
    return found | {"ratio": ratio}
