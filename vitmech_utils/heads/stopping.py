"""How many images are enough: interval width against images, and a sweep that stops when it knows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils.heads.ablation import HeadPredictions, effects, predict_without_heads
from vitmech_utils.statistics import effect_intervals

# A percentile bootstrap over fewer images than this is too narrow to be trusted with a decision to stop.
LEAST_IMAGES = 16


def interval_widths(
    changed: Float[ndarray, "test image"],
    baseline: Float[ndarray, " image"],
    counts: Sequence[int],
    bootstrap: int = 1000,
    confidence: float = 0.95,
    repeats: int = 8,
    seed: int = 0,
) -> pd.DataFrame:
    """Half-width of the heads' effect intervals (percent) for smaller and smaller numbers of images.

    `changed` and `baseline` are squared errors per image. Each count takes `repeats` random subsets. Returns
    images, median and widest half-width over the heads, each the mean over subsets.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for count in counts:
        if not 2 <= count <= baseline.size:
            raise ValueError(
                f"{count} images asked for, expected between 2 and the {baseline.size} that were swept"
            )
        halves = []
        for _ in range(1 if count == baseline.size else repeats):
            part = rng.permutation(baseline.size)[:count]
            low, high = effect_intervals(changed[:, part], baseline[part], bootstrap, confidence, seed)
            halves.append((high - low) / 2)
        rows.append((count, np.median(halves, axis=1).mean(), np.max(halves, axis=1).mean()))
    return pd.DataFrame(rows, columns=["images", "median_half_width", "widest_half_width"])


def images_needed(widths: pd.DataFrame, half_width: float, column: str = "widest_half_width") -> int:
    """Images until `column` falls under `half_width` (percent), by the law width ~ 1 / sqrt(images)."""
    if half_width <= 0:
        raise ValueError(f"half_width is {half_width}, expected percent above 0")
    constant = (widths[column] * np.sqrt(widths["images"])).iloc[-1]
    return max(2, int(np.ceil((constant / half_width) ** 2)))


def sweep_until(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    half_width: float,
    mode: str = "zero",
    *,
    most: int = 4096,
    bootstrap: int = 1000,
    confidence: float = 0.95,
    **settings,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sweep batch after batch of (pixel_values, labels) until every head's interval half-width is small enough.

    `half_width` is in percent of the baseline. Stops after `most` images or the last batch in any case. Modes
    that look at all images at once (`mean`, `resample`) need a fixed `reference` or are drawn within each
    batch; `published-code` never stops changing weights and is refused. `settings` go to
    `predict_without_heads`. Returns the effects, as of `sweep`, and the history: images, widest_half_width, done.

    Looking again and again makes intervals a little optimistic; with the first look at no fewer than
    `LEAST_IMAGES` images the loss of coverage is small (Chow and Robbins 1965). Raises `ValueError`.
    """
    if half_width <= 0:
        raise ValueError(f"half_width is {half_width}, expected percent above 0, such as 1.0")
    if mode == "published-code":
        raise ValueError("mode 'published-code' accumulates changes; sweep it over a fixed set of images")
    parts: list[HeadPredictions] = []
    truths: list[Tensor] = []
    history: list[tuple[int, float, bool]] = []
    table = None
    for pixel_values, labels in batches:
        parts.append(predict_without_heads(model, pixel_values, mode, **settings))
        truths.append(labels)
        truth = torch.cat(truths)
        if len(truth) < LEAST_IMAGES:
            continue
        table = effects(_joined(parts), truth, bootstrap=bootstrap, confidence=confidence)
        widest = float((table["high"] - table["low"]).max() / 2)
        history.append((len(truth), widest, widest < half_width))
        if widest < half_width or len(truth) >= most:
            break
    if table is None:
        seen = sum(len(truth) for truth in truths)
        raise ValueError(f"the batches hold {seen} images, expected at least {LEAST_IMAGES}")
    return table, pd.DataFrame(history, columns=["images", "widest_half_width", "done"])


def _joined(parts: list[HeadPredictions]) -> HeadPredictions:
    first = parts[0]
    return HeadPredictions(
        torch.cat([part.baseline for part in parts]),
        torch.cat([part.ablated for part in parts], dim=1),
        first.layers,
        first.heads,
        first.mode,
        first.method,
    )
