"""How many images are enough: interval width against images, and a sweep that stops when it knows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils import tasks
from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.ablation import losses_without_heads
from vitmech_utils.heads.changes import ALL, baseline_loss, mean_changes
from vitmech_utils.heads.control_variates import allocate
from vitmech_utils.heads.effects import Losses
from vitmech_utils.heads.linearized import MOST_OUTPUTS, margin, predict_linearized
from vitmech_utils.heads.replacements import another_image
from vitmech_utils.heads.replay import predict
from vitmech_utils.intervals import effect_intervals
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.statistics import Interval
from vitmech_utils.tasks import Loss, Task

# An interval over fewer images than this is too narrow to be trusted with a decision to stop.
LEAST_IMAGES = 16
# The share of exact images that goes to all images alike, whatever the first-order changes say of them.
_EVEN = 0.3
# What a backward pass to the heads alone costs, in forward passes.
_BACKWARD = 1.3


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
    held_out: Float[ndarray, "held_out target"] | None = None,
    pilot: int = 32,
    most: int = 4096,
    bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    **settings,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sweep batch after batch of (pixel_values, labels) until every head's interval half-width is small enough.

    `half_width` is in percent of the baseline, or in the task's unit. The baseline is the loss of the images swept so
    far, which a few of them may decide, or that of the unchanged model on a larger set, `held_out`, per image and
    target; with it, effects and intervals, of each target by its own loss, are those of `mean_changes`. `labels` and
    `task` as in `sweep`. The first `pilot` images are ablated exactly, and to first order where outputs are few enough
    (`predict_linearized`). They tell whether it is cheaper to go on with first-order changes of all images that exact
    ones of some put right (`control_variates`), and of which part; without pilot or such outputs all images are ablated
    exactly. Stops after `most` images or the last batch in any case. Modes that look at all images at once (`mean`,
    `resample`) need a fixed `reference` or are drawn within each batch; `published-code` never stops changing weights
    and is refused. `settings` go to `losses_without_heads`.

    Returns the effects, as of `sweep`, and the history: images, exact_images (those ablated exactly),
    widest_half_width, done. Looking again and again makes intervals a little optimistic; with the first look at no
    fewer than `LEAST_IMAGES` images the loss of coverage is small (Chow and Robbins 1965). Raises `ValueError`, also
    for a held-out loss of other targets.
    """
    if half_width <= 0:
        raise ValueError(f"half_width is {half_width}, expected percent (or a loss) above 0, such as 1.0")
    if mode == "published-code":
        raise ValueError("mode 'published-code' accumulates changes; sweep it over a fixed set of images")
    whole = None if held_out is None else baseline_loss(held_out, confidence)
    found = _Sweep(model, mode, task, half_width, pilot, settings, np.random.default_rng(seed), whole)
    history: list[tuple[int, int, float, bool]] = []
    table = None
    for pixel_values, labels in batches:
        found.add(pixel_values, labels)
        if held_out is not None and (targets := found.losses().targets) and held_out.shape[1] != len(targets):
            raise ValueError(
                f"held_out has the loss of {held_out.shape[1]} targets, expected {len(targets)}, one of each: "
                f"{', '.join(targets)}"
            )
        if found.images < LEAST_IMAGES:
            continue
        table = _table(found.losses(), held_out, bootstrap, confidence)
        widest = float((table["high"] - table["low"]).max() / 2)
        history.append((found.images, found.exact_images, widest, widest < half_width))
        if widest < half_width or found.images >= most:
            break
    if table is None:
        raise ValueError(f"the batches hold {found.images} images, expected at least {LEAST_IMAGES}")
    return table, pd.DataFrame(history, columns=["images", "exact_images", "widest_half_width", "done"])


def _table(
    losses: Losses, held_out: Float[ndarray, "held_out target"] | None, bootstrap: int, confidence: float
) -> pd.DataFrame:
    """The effects, as of `sweep`; in percent of the larger set's loss, each target's own, where that is known."""
    table = losses.table(bootstrap, confidence)
    if held_out is None:
        return table
    for target, place in ((ALL, slice(None)), *((name, [i]) for i, name in enumerate(losses.targets))):
        whole = baseline_loss(held_out[:, place], confidence)
        found = mean_changes(losses.of(target), whole, losses.relative, confidence=confidence)
        for name, values in zip(("effect", "low", "high"), found, strict=True):
            table[name if target == ALL else f"{name}_{target}"] = values
    return table


class _Sweep:
    """What has been swept so far: exactly, or to first order with some images put right."""

    def __init__(
        self,
        model: nn.Module,
        mode: str,
        task: Task | str | Loss | None,
        half_width: float,
        pilot: int,
        settings: dict[str, Any],
        rng: np.random.Generator,
        whole: Interval | None = None,
    ) -> None:
        self.model, self.mode, self.task, self.half_width = model, mode, task, half_width
        self.pilot, self.settings, self.rng, self.whole = pilot, settings, rng, whole
        self.images = self.exact_images = 0
        self._parts: list[Losses] = []
        self._pilot: list[tuple[Losses, Losses]] = []
        self._share: float | None = None  # of images ablated exactly; None where all are
        self._linear = pilot > 0

    def add(self, pixel_values: Tensor, labels: Tensor | None) -> None:
        """Sweep a batch."""
        given = self._given(pixel_values)
        piloting = self.images < self.pilot and self._linear
        if self._share is None:
            exact = losses_without_heads(self.model, pixel_values, labels, self.mode, self.task, **given)
            self._parts.append(exact)
            self.exact_images += len(pixel_values)
            if piloting and (cheap := self._to_first_order(pixel_values, labels, given)) is not None:
                self._pilot.append((cheap, exact))
        else:
            self._parts.append(self._corrected(pixel_values, labels, given))
        self.images += len(pixel_values)
        if piloting and self.images >= self.pilot and self._pilot:
            self._plan()

    def losses(self) -> Losses:
        """The losses of all images so far; their means are unbiased."""
        return replace(
            self._parts[0],
            without=np.concatenate([part.without for part in self._parts], axis=1),
            baseline=np.concatenate([part.baseline for part in self._parts]),
        )

    def _given(self, pixel_values: Tensor) -> dict[str, Any]:
        """The settings for a batch, with means and donors that do not depend on which images are ablated exactly."""
        given = dict(self.settings)
        if self.mode == "mean":
            given.setdefault("reference", pixel_values)
        if self.mode == "resample" and given.get("donors") is None and len(pixel_values) > 1:
            given["donors"] = pixel_values[another_image(len(pixel_values), given.get("seed", 0))]
        return given

    def _to_first_order(
        self, pixel_values: Tensor, labels: Tensor | None, given: dict[str, Any]
    ) -> Losses | None:
        """The losses by linearized outputs; None where this model or task has none that are worth it."""
        judge = tasks.find(self.task, self.model, labels)
        known = {
            name: given[name] for name in ("layers", "heads", "reference", "donors", "seed") if name in given
        }
        with torch.inference_mode():
            outputs = predict(self.model, pixel_values[:1].to(next(self.model.parameters())))
        if outputs.ndim != 2 or judge.own_answer:
            self._linear = False
        elif judge.name == tasks.cross_entropy().name and labels is not None:
            known["reading"], judge = margin(labels), tasks.margin_cross_entropy()
        elif outputs.shape[1] > MOST_OUTPUTS:
            self._linear = False
        if not self._linear:
            return None
        found = predict_linearized(self.model, pixel_values, self.mode, **known)
        return found.losses(torch.zeros(len(pixel_values)) if "reading" in known else labels, judge)

    def _plan(self) -> None:
        """Decide from the pilot how large a part of the images is ablated exactly."""
        cheap, exact = (
            np.concatenate([pair[place].of() for pair in self._pilot], axis=1) for place in (0, 1)
        )
        baseline = np.concatenate([pair[1].mean()[1] for pair in self._pilot])
        relative, whole = self._pilot[0][1].relative, self.whole.value if self.whole else baseline.mean()
        goal = self.half_width * whole / 100 if relative else self.half_width
        layers = np.array([next(iter(heads))[0] for heads in self._pilot[0][1].sets])
        blocks = find_blocks(self.model).layers
        plan = allocate(
            cheap,
            exact,
            # In forward passes: exactly, all layers from the head's on; linearized, back to the lowest, per target.
            cost_cheap=1 + _BACKWARD * len(self._pilot[0][0].targets) * (1 - layers.min() / blocks),
            cost_exact=1 + (1 - layers / blocks).sum(),
            half_width=goal,
            even=_EVEN,
        )
        if plan.cost < plan.cost_exact:
            self._share = plan.exact / plan.cheap
            self._scale = np.sqrt((cheap**2).mean(1, keepdims=True))
            self._size = float(self._sizes(cheap).mean())

    def _sizes(self, cheap: Float[ndarray, "test image"]) -> Float[ndarray, " image"]:
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.where(self._scale > 0, cheap / self._scale, 0)
        return np.sqrt((relative**2).mean(0))

    def _corrected(self, pixel_values: Tensor, labels: Tensor | None, given: dict[str, Any]) -> Losses:
        """A batch to first order, put right by exact losses of images that each had a known chance."""
        cheap = self._to_first_order(pixel_values, labels, given)
        sizes = self._sizes(cheap.of()) / self._size if self._size > 0 else np.ones(len(pixel_values))
        probability = np.clip(self._share * (_EVEN + (1 - _EVEN) * sizes), 0, 1)
        chosen = np.flatnonzero(self.rng.random(len(pixel_values)) < probability)
        changes = cheap.changes.copy()
        if len(chosen):
            part = {**given, "donors": given["donors"][chosen]} if "donors" in given else given
            some = None if labels is None else labels[chosen]
            exact = losses_without_heads(self.model, pixel_values[chosen], some, self.mode, self.task, **part)
            weight = 1 / probability[chosen][:, None]
            changes[:, chosen] += (exact.changes - changes[:, chosen]) * weight
            self.exact_images += len(chosen)
        return replace(self._parts[0], without=cheap.baseline + changes, baseline=cheap.baseline)
