"""What taking heads away does to each image's answer and loss: shift, alignment, effect, broken and mended readings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.stats import spearmanr
from torch import Tensor

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.control_variates import Selection, corrected_values
from vitmech_utils.heads.effects import ALL, Answers
from vitmech_utils.heads.hooks import HeadSet
from vitmech_utils.heads.linearized import METHOD
from vitmech_utils.intervals import METHOD as INTERVAL
from vitmech_utils.intervals import divided, mean_intervals, ratio_intervals, share_intervals
from vitmech_utils.statistics import Interval, adjust, paired_p_values
from vitmech_utils.tasks import Loss, Task

BREAKING = 0.1
"""Readings break where their loss passes this share of a guess's."""
# From how many images on, and under which rank correlation of their losses, two lists of images differ.
_TELLING, _SAME_IMAGES = 12, 0.5


@dataclass(frozen=True)
class Changes:
    """What happens to each image without each head, or set of heads, per target, in the loss's unit.

    `shift` is how far the answer moves, `effect` by how much the loss grows (negative where it falls), their
    difference `alignment` whether the answer moves away from the truth; `baseline` is the loss with all heads.
    `sets[i]` holds the heads, pairs of layer and head (0-based), that row i goes without.
    """

    shift: Float[ndarray, "test image target"]
    effect: Float[ndarray, "test image target"]
    baseline: Float[ndarray, "image target"]
    sets: tuple[HeadSet, ...]
    targets: tuple[str, ...]
    task: str
    unit: str
    relative: bool
    mode: str
    method: str

    @property
    def alignment(self) -> Float[ndarray, "test image target"]:
        """Where the answer moves: above zero away from the truth, below zero towards it."""
        return self.effect - self.shift

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self.baseline)

    def on(self, images: slice | Int[ndarray, " some"] | Bool[ndarray, " image"]) -> Changes:
        """The same rows on some of the images."""
        return replace(
            self,
            shift=self.shift[:, images],
            effect=self.effect[:, images],
            baseline=self.baseline[images],
        )

    def of(self, target: str) -> Changes:
        """One target alone, or `all`: the mean over the targets, as one. `ValueError` for one that is not there."""
        if target != ALL and target not in self.targets:
            raise ValueError(f"target is {target!r}, expected {ALL} or one of {', '.join(self.targets)}")
        places = slice(None) if target == ALL else [self.targets.index(target)]
        shift, effect, baseline = (
            values[..., places].mean(-1, keepdims=True) for values in (self.shift, self.effect, self.baseline)
        )
        return replace(self, shift=shift, effect=effect, baseline=baseline, targets=(target,))

    def broken(self, limit: float) -> Bool[ndarray, "test image"]:
        """Readings whose loss (mean over targets) passes `limit` without the heads, and not with them."""
        before, after = self._losses()
        return (before <= limit) & (after > limit)

    def mended(self, limit: float) -> Bool[ndarray, "test image"]:
        """Readings whose loss (mean over targets) passes `limit` with the heads, and not without them."""
        before, after = self._losses()
        return (before > limit) & (after <= limit)

    def whole(self, limit: float) -> Bool[ndarray, "test image"]:
        """Readings whose loss (mean over targets) passes `limit` neither with the heads nor without them."""
        before, after = self._losses()
        return (before <= limit) & (after <= limit)

    def _losses(self) -> tuple[Float[ndarray, " image"], Float[ndarray, "test image"]]:
        before = self.baseline.mean(-1)
        return before, before + self.effect.mean(-1)


@checked_arguments()
def changes(
    predictions: Answers, labels: Tensor | None = None, task: Task | str | Loss | None = None
) -> Changes:
    """What exact or linearized predictions without heads say of each image; `labels` and `task` as in `Answers.losses`.

    Raises `ValueError` for labels or a task that do not fit, or a task without a shift.
    """
    fitted, truth = predictions.judged(labels, task)
    if fitted.shift is None:
        raise ValueError(
            f"the task {fitted.name!r} has no shift, expected one with `shift`: how far an answer moves"
        )
    losses = predictions.losses(truth, fitted)
    before, after = (found.cpu().double() for found in (predictions.baseline, predictions.ablated))
    shift = fitted.shift(before, after, truth.cpu())
    return Changes(
        shift.numpy(),
        losses.changes,
        losses.baseline,
        losses.sets,
        fitted.targets,
        fitted.name,
        fitted.unit,
        fitted.relative,
        predictions.mode,
        predictions.method,
    )


@checked_arguments(finite=("held_out",))
def baseline_loss(
    held_out: Float[ndarray, "image target"] | Float[ndarray, " image"], confidence: float = 0.95
) -> Interval:
    """Mean loss of the whole model on the whole held-out set, with its interval: what effects are a percentage of."""
    values = held_out.reshape(len(held_out), -1).mean(1)[None]
    low, high = mean_intervals(values, confidence=confidence)
    return Interval(float(values.mean()), float(low[0]), float(high[0]))


@checked_arguments()
def mean_changes(
    values: Float[ndarray, "row image"],
    whole: Interval,
    relative: bool = True,
    method: str = INTERVAL,
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[Float[ndarray, " row"], Float[ndarray, " row"], Float[ndarray, " row"]]:
    """The mean over images of each row of changes, with its bounds: in percent of `whole`, or in the loss's unit.

    `whole` is the `baseline_loss` of the held-out set, whose own error the bounds allow for; `method` and what follows
    are those of `mean_intervals`.
    """
    return _of_whole(
        _mean(values, np.ones_like(values), method, draws, confidence, seed), whole if relative else None
    )


@checked_arguments(finite=("held_out",))
def effect_table(
    found: Changes,
    held_out: Float[ndarray, "held_out target"],
    limit: float,
    *,
    exact: Changes | None = None,
    selection: Selection | None = None,
    fitted: bool = False,
    names: Sequence[str] | None = None,
    method: str = INTERVAL,
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Tabulate shift, alignment, effect, the effect on readings that stay whole, and broken and mended readings.

    `held_out` is the loss of the unchanged model on the whole held-out set, per image and target: thousands of images,
    not the few at hand, since all percentages are of its mean. `limit` is the loss from which a reading is broken, such
    as `BREAKING * task.guess(labels)`. Where `found` is of linearized predictions, `exact` may hold the exact changes
    of the images in `selection`, in its order: all columns are then put right by them (`corrected_values`, which
    tells of `fitted`).

    Returns one row per head (columns layer and head, 0-based; for sets: set, by `names`, and heads, their number) for
    target `all`, the mean over the targets, and for each target by itself: target, mode, method, images, exact_images
    (those predicted exactly), baseline_loss, low_baseline_loss, high_baseline_loss (the held-out mean), then with
    low_T and high_T: shift, alignment, effect (means over images), shift_whole and effect_whole (over readings that
    stay whole, NaN where none does), in percent of baseline_loss or in the loss's own unit, and broken and mended
    (shares of the images, in [0, 1]); p_value (paired sign flips of the effect) and q_value (Benjamini-Hochberg over
    the rows of a target).

    `method`, `draws` and `seed` are those of `mean_intervals`; percentages allow for the errors of both means. Raises
    `ValueError` for a held-out loss of other targets, a limit that is not above 0, exact changes of other rows, targets
    or images, or without a selection.
    """
    _check(found, held_out, limit, exact, selection)
    parts = []
    for target, place in ((ALL, slice(None)), *((name, [i]) for i, name in enumerate(found.targets))):
        whole = baseline_loss(held_out[:, place], confidence)
        values = seen = _per_image(found.of(target), limit)
        if exact is not None:
            seen = _per_image(exact.of(target), limit)
            values = {
                name: corrected_values(values[name], seen[name], selection, fitted=fitted, seed=seed)
                for name in values
            }
        columns: dict[str, object] = {"target": target} | _rows(found.sets, names) | {
            "mode": found.mode,
            "method": found.method if exact is None else f"{found.method} and {exact.method}",
            "images": found.images,
            "exact_images": exact.images if exact is not None else found.images * (found.method != METHOD),
            "baseline_loss": whole.value, "low_baseline_loss": whole.low, "high_baseline_loss": whole.high,
        }  # fmt: skip
        for name in ("shift", "alignment", "effect", "shift_whole", "effect_whole"):
            weight = values["whole"] if name.endswith("_whole") else np.ones_like(values["whole"])
            value, low, high = _of_whole(
                _mean(values[name], weight, method, draws, confidence, seed),
                whole if found.relative else None,
            )
            columns |= {name: value, f"low_{name}": low, f"high_{name}": high}
        for name in ("broken", "mended"):
            low, high = share_intervals(seen[name] > 0, confidence)
            value = values[name].mean(1)
            if exact is not None:
                # Counts of picked images alone say what no picked image shows; else the means of all are sharper.
                wide_low, wide_high = mean_intervals(values[name], method, draws, confidence, seed)
                none = np.ptp(values[name], axis=1) == 0
                low, high = np.where(none, low, wide_low), np.where(none, high, wide_high)
            value, low, high = (np.clip(share, 0, 1) for share in (value, low, high))
            columns |= {name: value, f"low_{name}": low, f"high_{name}": high}
        p_values = paired_p_values(values["effect"], draws, seed)
        parts.append(pd.DataFrame(columns | {"p_value": p_values, "q_value": adjust(p_values)}))
    return pd.concat(parts, ignore_index=True)


def _per_image(one: Changes, limit: float) -> dict[str, Float[ndarray, "test image"]]:
    """What the table averages, of the changes of one target."""
    effect, stays = one.effect[..., 0], one.whole(limit).astype(float)
    return {
        "shift": one.shift[..., 0],
        "alignment": one.alignment[..., 0],
        "effect": effect,
        "shift_whole": one.shift[..., 0] * stays,
        "effect_whole": effect * stays,
        "whole": stays,
        "broken": one.broken(limit).astype(float),
        "mended": one.mended(limit).astype(float),
    }


def _check(
    found: Changes, held_out: ndarray, limit: float, exact: Changes | None, selection: Selection | None
) -> None:
    if held_out.shape[1] != len(found.targets):
        raise ValueError(
            f"the held-out loss has {held_out.shape[1]} targets, expected the {len(found.targets)} of the changes"
        )
    if not limit > 0:
        raise ValueError(f"limit is {limit}, expected a loss above 0 from which a reading counts as broken")
    if (exact is None) != (selection is None):
        raise ValueError("expected exact changes and the selection of their images, or neither")
    if exact is None:
        return
    for name in ("sets", "targets", "mode", "task"):
        if getattr(exact, name) != getattr(found, name):
            raise ValueError(f"the exact changes have other {name} than the cheap ones, expected the same")
    if exact.images != len(selection.images):
        raise ValueError(f"exact changes of {exact.images} images for a selection of {len(selection.images)}")
    before = [one.baseline.mean(1) for one in (exact, found.on(selection.images))]
    # Precision moves losses a little; those of other images have nothing to do with each other.
    if exact.images >= _TELLING and spearmanr(*before).statistic < _SAME_IMAGES:
        raise ValueError(
            "the exact changes are of other images than the selection names: their losses differ"
        )


def _mean(
    values: Float[ndarray, "test image"],
    weight: Float[ndarray, "test image"],
    method: str,
    draws: int,
    confidence: float,
    seed: int,
) -> tuple[Float[ndarray, " test"], Float[ndarray, " test"], Float[ndarray, " test"]]:
    """Weighted means with their bounds; NaN without weight."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value = values.mean(1) / weight.mean(1)
        return value, *ratio_intervals(values, weight, method, draws, confidence, seed)


Bounded = tuple[Float[ndarray, " row"], Float[ndarray, " row"], Float[ndarray, " row"]]


def _of_whole(found: Bounded, whole: Interval | None) -> Bounded:
    """Values and bounds in percent of the whole set's loss; as they are where there is none."""
    if whole is None:
        return found
    value, low, high = found
    low, high = (100 * bound for bound in divided(value, low, high, whole))
    return 100 * value / whole.value, low, high


def _rows(sets: Sequence[HeadSet], names: Sequence[str] | None) -> dict[str, object]:
    if names is not None:
        return {"set": list(names), "heads": [len(heads) for heads in sets]}
    if any(len(heads) != 1 for heads in sets):
        raise ValueError("these changes are of sets of heads, expected a name for each in names")
    layer, head = zip(*(next(iter(heads)) for heads in sets), strict=True)
    return {"layer": layer, "head": head}
