"""How many images are enough: interval width against images, and a sweep that stops when it knows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.ablation import losses_without_heads
from vitmech_utils.heads.effects import Losses
from vitmech_utils.statistics import effect_intervals
from vitmech_utils.tasks import Loss, Task

# A percentile bootstrap over fewer images than this is too narrow to be trusted with a decision to stop.
LEAST_IMAGES = 16


@checked_arguments(finite=("changed", "baseline"), least={"repeats": 1})
def interval_widths(
    changed: Float[ndarray, "test image"],
    baseline: Float[ndarray, " image"],
    counts: Sequence[int],
    bootstrap: int = 1000,
    confidence: float = 0.95,
    repeats: int = 8,
    seed: int = 0,
    relative: bool = True,
) -> pd.DataFrame:
    """Half-width of the heads' effect intervals for smaller and smaller numbers of images.

    `changed` and `baseline` are losses per image; effects are in percent or, not `relative`, in their unit. Each count
    takes `repeats` random subsets. Returns images, median and widest half-width over the heads, each the mean over
    subsets.
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
            low, high = effect_intervals(
                changed[:, part], baseline[part], bootstrap, confidence, seed, relative
            )
            halves.append((high - low) / 2)
        rows.append((count, np.median(halves, axis=1).mean(), np.max(halves, axis=1).mean()))
    return pd.DataFrame(rows, columns=["images", "median_half_width", "widest_half_width"])


@checked_arguments()
def images_needed(widths: pd.DataFrame, half_width: float, column: str = "widest_half_width") -> int:
    """Images until `column` falls under `half_width`, by the law width ~ 1 / sqrt(images)."""
    if half_width <= 0:
        raise ValueError(f"half_width is {half_width}, expected percent (or a loss) above 0")
    constant = (widths[column] * np.sqrt(widths["images"])).iloc[-1]
    return max(2, int(np.ceil((constant / half_width) ** 2)))


@checked_arguments()
def sweep_until(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor | None]],
    half_width: float,
    mode: str = "zero",
    task: Task | str | Loss | None = None,
    *,
    most: int = 4096,
    bootstrap: int = 1000,
    confidence: float = 0.95,
    **settings,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sweep batch after batch of (pixel_values, labels) until every head's interval half-width is small enough.

    `half_width` is in percent of the baseline, or in the task's unit. `labels` and `task` as in `sweep`. Stops after
    `most` images or the last batch in any case. Modes that look at all images at once (`mean`, `resample`) need a fixed
    `reference` or are drawn within each batch; `published-code` never stops changing weights and is refused. `settings`
    go to `losses_without_heads`. Returns the effects, as of `sweep`, and the history: images, widest_half_width, done.

    Looking again and again makes intervals a little optimistic; with the first look at no fewer than
    `LEAST_IMAGES` images the loss of coverage is small (Chow and Robbins 1965). Raises `ValueError`.
    """
    if half_width <= 0:
        raise ValueError(f"half_width is {half_width}, expected percent (or a loss) above 0, such as 1.0")
    if mode == "published-code":
        raise ValueError("mode 'published-code' accumulates changes; sweep it over a fixed set of images")
    parts: list[Losses] = []
    history: list[tuple[int, float, bool]] = []
    table, seen = None, 0
    for pixel_values, labels in batches:
        parts.append(losses_without_heads(model, pixel_values, labels, mode, task, **settings))
        seen += len(pixel_values)
        if seen < LEAST_IMAGES:
            continue
        table = _joined(parts).table(bootstrap, confidence)
        widest = float((table["high"] - table["low"]).max() / 2)
        history.append((seen, widest, widest < half_width))
        if widest < half_width or seen >= most:
            break
    if table is None:
        raise ValueError(f"the batches hold {seen} images, expected at least {LEAST_IMAGES}")
    return table, pd.DataFrame(history, columns=["images", "widest_half_width", "done"])


def _joined(parts: list[Losses]) -> Losses:
    return replace(
        parts[0],
        without=np.concatenate([part.without for part in parts], axis=1),
        baseline=np.concatenate([part.baseline for part in parts]),
    )
