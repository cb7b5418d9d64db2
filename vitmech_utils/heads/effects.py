"""What ablated heads do to a task's loss, tabulated: in percent of the baseline or in the loss's own unit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from vitmech_utils import tasks
from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.hooks import HeadSet
from vitmech_utils.intervals import effect_intervals
from vitmech_utils.statistics import adjust, check_settings, effect_draws, effect_sizes, paired_p_values
from vitmech_utils.tasks import Loss, Task

ALL = "all"
"""The name of the mean over a model's targets."""


@dataclass(frozen=True)
class Losses:
    """The loss of every image with all heads, and without each set of heads, per target.

    `without[i]` belongs to `sets[i]`, pairs of layer and head (0-based). Effects are percent of the baseline where
    `relative`, else in `unit`: the cross-entropy of a question that a model answers for sure is next to nothing, and
    any change of next to nothing is a huge percentage.
    """

    without: Float[ndarray, "set image target"]
    baseline: Float[ndarray, "image target"]
    sets: tuple[HeadSet, ...]
    targets: tuple[str, ...]
    mode: str
    unit: str
    relative: bool

    def __getitem__(self, part: slice) -> Losses:
        """A range of the sets, on the same images."""
        return replace(self, without=self.without[part], sets=self.sets[part])

    def on(self, images: slice) -> Losses:
        """The same sets on a range of the images."""
        return replace(self, without=self.without[:, images], baseline=self.baseline[images])

    @property
    def changes(self) -> Float[ndarray, "set image target"]:
        """By how much each image's loss grows without each set, in its unit; negative where it falls."""
        return self.without - self.baseline

    @property
    def layers(self) -> Int[ndarray, " set"]:
        """The layer (0-based) of each set; `ValueError` for a set of several heads."""
        return self._numbers()[:, 0]

    @property
    def heads(self) -> Int[ndarray, " set"]:
        """The number (0-based) of each set's head; `ValueError` for a set of several heads."""
        return self._numbers()[:, 1]

    def of(self, target: str = ALL) -> Float[ndarray, "set image"]:
        """The changes of one target, or of the mean over all; `ValueError` for a target that the model has not."""
        without, baseline = self.mean(target)
        return without - baseline

    def mean(self, target: str = ALL) -> tuple[Float[ndarray, "set image"], Float[ndarray, " image"]]:
        """The losses without each set and with all heads, of one target or averaged over all."""
        if target == ALL:
            return self.without.mean(2), self.baseline.mean(1)
        if target not in self.targets:
            raise ValueError(f"target is {target!r}, expected {ALL} or one of {', '.join(self.targets)}")
        place = self.targets.index(target)
        return self.without[..., place], self.baseline[:, place]

    def table(self, bootstrap: int = 2000, confidence: float = 0.95, seed: int = 0) -> pd.DataFrame:
        """One row per head; columns as in `ablation.sweep`."""
        check_settings(bootstrap, confidence)
        settings = bootstrap, confidence, seed
        columns: dict[str, object] = {}
        for suffix, target in (("", ALL), *((f"_{name}", name) for name in self.targets)):
            without, baseline = self.mean(target)
            columns |= {
                f"{self._column}{suffix}": without.mean(1),
                f"baseline_{self._column}{suffix}": baseline.mean(),
                **{f"{name}{suffix}": found for name, found in self._estimates(target, *settings).items()},
            }
            if target == ALL:
                columns |= self._tests(target, bootstrap, seed)
        return pd.DataFrame(self._named() | columns)

    def by_target(self, bootstrap: int = 2000, confidence: float = 0.95, seed: int = 0) -> pd.DataFrame:
        """One row per target and head: the mean change of the loss, and how sure it is.

        Returns target (`all` is their mean), layer, head (0-based), mode, images, baseline_loss, effect, low, high
        (paired bootstrap over images), p_value (paired sign-flip test), q_value (Benjamini-Hochberg over the heads of a
        target).
        """
        check_settings(bootstrap, confidence)
        parts = [
            pd.DataFrame(
                {
                    "target": target,
                    **self._named(),
                    "baseline_loss": float(self.mean(target)[1].mean()),
                    **self._estimates(target, bootstrap, confidence, seed),
                    **self._tests(target, bootstrap, seed),
                }
            )
            for target in (ALL, *self.targets)
        ]
        return pd.concat(parts, ignore_index=True)

    def by_layer(self, bootstrap: int = 2000, confidence: float = 0.95, seed: int = 0) -> pd.DataFrame:
        """One row per target and layer: what its heads do on average, and how much of all harm is theirs.

        Returns target, layer (0-based), images, effect, low, high (mean over the layer's heads) and share, share_low,
        share_high: the layer's part of the positive effects of all heads, in [0, 1], not a number where no head has
        one. Intervals are a paired bootstrap over images.
        """
        check_settings(bootstrap, confidence)
        names = np.unique(self.layers)
        member = (self.layers == names[:, None]).astype(float)
        average, tails = (member / member.sum(1, keepdims=True)).T, _tails(confidence)
        parts = []
        for target in (ALL, *self.targets):
            without, baseline = self.mean(target)
            single = effect_sizes(without, baseline, self.relative)[None]
            drawn = effect_draws(without, baseline, bootstrap, seed, self.relative)
            low, high = np.quantile(drawn @ average, tails, axis=0)
            share_low, share_high = _known_quantiles(_shares(drawn, member), tails)
            parts.append(
                pd.DataFrame(
                    {
                        "target": target, "layer": names, "images": baseline.size,
                        "effect": (single @ average)[0], "low": low, "high": high,
                        "share": _shares(single, member)[0], "share_low": share_low, "share_high": share_high,
                    }
                )
            )  # fmt: skip
        return pd.concat(parts, ignore_index=True)

    @property
    def _column(self) -> str:
        return "mse" if self.unit == "MSE" else "loss"

    def _numbers(self) -> Int[ndarray, "set 2"]:
        several = [sorted(heads) for heads in self.sets if len(heads) != 1]
        if several:
            raise ValueError(
                f"{several[0]} is no single head, expected sets of one: tabulate groups with sets.set_effects"
            )
        return np.array([next(iter(heads)) for heads in self.sets], dtype=np.int64).reshape(-1, 2)

    def _named(self) -> dict[str, object]:
        return {"layer": self.layers, "head": self.heads, "mode": self.mode, "images": len(self.baseline)}

    def _estimates(
        self, target: str, bootstrap: int, confidence: float, seed: int
    ) -> dict[str, Float[ndarray, " set"]]:
        without, baseline = self.mean(target)
        low, high = effect_intervals(without, baseline, bootstrap, confidence, seed, self.relative)
        return {"effect": effect_sizes(without, baseline, self.relative), "low": low, "high": high}

    def _tests(self, target: str, bootstrap: int, seed: int) -> dict[str, Float[ndarray, " set"]]:
        p_values = paired_p_values(self.of(target), bootstrap, seed)
        return {"p_value": p_values, "q_value": adjust(p_values)}


class Answers:
    """What predictions without heads have in common; `losses` holds them against labels."""

    baseline: Tensor
    ablated: Tensor
    sets: tuple[HeadSet, ...]
    mode: str
    method: str
    task: str
    targets: tuple[str, ...]

    def on(self, images: slice) -> Answers:
        """The same heads on a range of the images."""
        return replace(self, baseline=self.baseline[images], ablated=self.ablated[:, images])

    def losses(self, labels: Tensor | None = None, task: Task | str | Loss | None = None) -> Losses:
        """The losses of these predictions; `task` as in `tasks.find`, by default that of the model that made them.

        Raises `ValueError` where predictions and labels do not fit the task, or the model's is no preset.
        """
        fitted, truth = self.judged(labels, task)
        without, baseline = (fitted(found, truth).cpu().double() for found in (self.ablated, self.baseline))
        return losses_of(fitted, without, baseline, self.sets, self.mode)

    def judged(
        self, labels: Tensor | None = None, task: Task | str | Loss | None = None
    ) -> tuple[Task, Tensor]:
        """The task that these predictions are held against, and the labels for it; errors as in `losses`."""
        chosen = self._task(labels) if task is None else tasks.find(task)
        if labels is not None:
            check_labels(labels, len(self.baseline))
        fitted = chosen.fitted(self.baseline, labels)
        return fitted, self.baseline if fitted.own_answer else labels

    def _task(self, labels: Tensor | None) -> Task:
        if not self.task:
            return tasks.find(None, None, labels)
        if (found := tasks.named(self.task, self.targets)) is None:
            raise ValueError(f"the model's task {self.task!r} is no preset, pass it: task=model.task")
        return found


@checked_arguments()
def effects(
    predictions: Answers,
    labels: Tensor | None = None,
    task: Task | str | Loss | None = None,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Tabulate effects with intervals and p-values from predictions; columns as in `ablation.sweep`."""
    return predictions.losses(labels, task).table(bootstrap, confidence, seed)


@checked_arguments()
def loss_changes(
    predictions: Answers, labels: Tensor | None = None, task: Task | str | Loss | None = None
) -> Losses:
    """Changes of the loss in its own unit, whether or not the task gives them in percent; errors as in `losses`."""
    return replace(predictions.losses(labels, task), relative=False)


@checked_arguments()
def losses_of(task: Task, without: Tensor, baseline: Tensor, sets: tuple[HeadSet, ...], mode: str) -> Losses:
    """Losses under a fitted task's names; `ValueError` where those of the unchanged model are not finite."""
    broken = (~baseline.isfinite()).any(1).nonzero().flatten().tolist()
    if broken:
        raise ValueError(
            f"the unchanged model's loss ({task.name}) is not finite for image(s) {broken[:5]}; check the labels and "
            "the model's outputs"
        )
    return Losses(without.numpy(), baseline.numpy(), sets, task.targets, mode, task.unit, task.relative)


def check_labels(labels: Tensor, images: int) -> None:
    """Refuse labels of another number of images, or that are not finite, with `ValueError`."""
    if labels.ndim == 0 or len(labels) != images:
        raise ValueError(
            f"labels has shape {tuple(labels.shape)}, expected {(images, *labels.shape[1:])}: one row per image"
        )
    check_finite("labels", labels)


def check_finite(name: str, values: Tensor) -> None:
    """Refuse values that are not finite, with `ValueError` that names their images."""
    broken = (~torch.isfinite(values)).reshape(len(values), -1).any(1).nonzero().flatten().tolist()
    if broken:
        raise ValueError(
            f"{name}: not finite (NaN or infinite) in image(s) {broken[:5]}, expected finite numbers"
        )


def _shares(
    single: Float[ndarray, "draw test"], member: Float[ndarray, "layer test"]
) -> Float[ndarray, "draw layer"]:
    harm = np.clip(single, 0, None)
    with np.errstate(invalid="ignore"):
        return (harm @ member.T) / harm.sum(1, keepdims=True)


def _known_quantiles(drawn: Float[ndarray, "draw layer"], tails: list[float]) -> Float[ndarray, "2 layer"]:
    known = drawn[np.isfinite(drawn).all(1)]
    return np.quantile(known, tails, axis=0) if len(known) else np.full((2, drawn.shape[1]), np.nan)


def _tails(confidence: float) -> list[float]:
    return [(1 - confidence) / 2, (1 + confidence) / 2]
