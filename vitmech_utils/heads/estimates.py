"""Effects of all heads as narrow as is asked for: linearized on many images, exact on those that matter most."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils import tasks
from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.ablation import predict_without_heads
from vitmech_utils.heads.changes import ALL, Changes, changes, effect_table
from vitmech_utils.heads.control_variates import (
    Allocation,
    Selection,
    allocate,
    corrected_values,
    image_sizes,
    select_images,
)
from vitmech_utils.heads.linearized import predict_linearized
from vitmech_utils.tasks import Loss, Task

Draw = Callable[[Int[ndarray, " image"]], tuple[Tensor, Tensor]]
"""Gives the pixel values and the labels of the images with these numbers."""


@dataclass(frozen=True)
class Estimate:
    """Changes of many images to first order, and the exact ones of those that `selection` names among them."""

    cheap: Changes
    exact: Changes
    selection: Selection
    fitted: bool = False

    def values(self, what: str = "effect", target: str = ALL) -> Float[ndarray, "test image"]:
        """One value per head and image with the mean of the exact `shift`, `alignment` or `effect` of a target.

        Layers, differences, orders and counts are made of these rows: see `intervals`.
        """
        cheap, exact = (getattr(changed.of(target), what)[..., 0] for changed in (self.cheap, self.exact))
        return corrected_values(cheap, exact, self.selection, fitted=self.fitted)

    def table(self, held_out: Float[ndarray, "held_out target"], limit: float, **settings) -> pd.DataFrame:
        """The heads' changes with their intervals: columns and settings as in `effect_table`."""
        return effect_table(
            self.cheap, held_out, limit, exact=self.exact, selection=self.selection, fitted=self.fitted, **settings
        )  # fmt: skip


@checked_arguments(least={"batch": 1})
def estimate(
    model: nn.Module,
    draw: Draw,
    many: int,
    few: int,
    mode: str = "mean",
    *,
    reference: Tensor | None = None,
    donors: Callable[[Int[ndarray, " image"]], Tensor] | None = None,
    task: Task | str | Loss | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
    batch: int = 16,
    exact_batch: int = 32,
    even: float = 0.3,
    fitted: bool = False,
    seed: int = 0,
) -> Estimate:
    """Linearize the images numbered 0 to `many` - 1, and ablate each head exactly on `few` of them.

    `draw` gives pixel values and labels of images by their numbers, `donors` those that mode `resample` takes from;
    images are drawn in batches and not kept. The few are picked by what linearizing says of the loss's growth
    (`select_images`, with its `even`). `batch` and `exact_batch` bound what is held at once, `dtype` is that of
    `predict_linearized`, `fitted` that of `corrected_values`; the rest is as in `sweep`, whose errors it raises.
    Mode `mean` asks for `reference`, `resample` for `donors`.
    """
    if mode == "mean" and reference is None:
        raise ValueError("mode 'mean' needs reference images here: the images themselves are not kept")
    if mode == "resample" and donors is None:
        raise ValueError("mode 'resample' needs donors here: the images themselves are not kept")
    if not 1 <= few <= many:
        raise ValueError(f"few is {few} and many is {many}, expected 1 <= few <= many")
    given = {"layers": layers, "heads": heads} | ({"reference": reference} if mode == "mean" else {})
    labels: list[Tensor] = []

    def pictures() -> Iterator[Tensor]:
        for start in range(0, many, batch):
            pixels, truth = draw(np.arange(start, min(start + batch, many)))
            labels.append(truth)
            yield pixels

    others = None
    if donors is not None:
        others = (donors(np.arange(start, min(start + batch, many))) for start in range(0, many, batch))
    linear = predict_linearized(model, pictures(), mode, donors=others, dtype=dtype, batch=batch, **given)
    judge = tasks.find(task, model, torch.cat(labels))
    cheap = changes(linear, torch.cat(labels), judge)
    selection = select_images(image_sizes(cheap.of(ALL).effect[..., 0]), few, even=even, seed=seed)
    pixels, truth = draw(selection.images)
    others = None if donors is None else donors(selection.images)
    ablated = predict_without_heads(model, pixels, mode, donors=others, batch=exact_batch, **given)
    return Estimate(cheap, changes(ablated, truth, judge), selection, fitted)


@checked_arguments()
def estimate_until(
    model: nn.Module,
    draw: Draw,
    half_width: float,
    held_out: Float[ndarray, "held_out target"],
    mode: str = "mean",
    *,
    pilot: int = 64,
    most: int = 5000,
    **settings,
) -> tuple[Estimate, Allocation]:
    """As many images, and exact ones among them, as bring every head's interval to `half_width` at the least cost.

    `half_width` is in percent of the mean of `held_out` (see `effect_table`), or in the loss's unit. A pilot on images
    of its own, numbered 0 to `pilot` - 1, is predicted both ways and tells how many it takes (`allocate`); the
    estimate is made from the next images, at most `most`, so that choosing and judging share none. Costs are counted
    in forward passes. Returns the estimate and the allocation, whose half-width is the one that the pilot promises;
    what was reached stands in `Estimate.table`. `settings` and errors are those of `estimate`.
    """
    first = estimate(model, draw, pilot, pilot, mode, **settings)
    cheap, exact = (changed.of(ALL).effect[..., 0] for changed in (first.cheap, first.exact))
    goal = half_width * held_out.mean() / 100 if first.cheap.relative else half_width
    # Ablating exactly runs half the layers anew for each head, on average; linearizing, all of them per output.
    plan = allocate(
        cheap, exact, cost_cheap=1 + len(first.cheap.targets), cost_exact=1 + len(cheap) / 2, half_width=goal,
        even=settings.get("even", 0.3),
    )  # fmt: skip
    many = min(plan.cheap, most)
    few = min(many, max(2, round(plan.exact * many / plan.cheap)))
    donors = settings.pop("donors", None)
    if donors is not None:
        settings["donors"] = lambda numbers: donors(numbers + pilot)
    return estimate(model, lambda numbers: draw(numbers + pilot), many, few, mode, **settings), plan
