"""All heads' effects at once, to first order: one forward and one backward pass through head gates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils import tasks
from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.constants import Reference
from vitmech_utils.heads.hooks import change_heads
from vitmech_utils.heads.replacements import (
    HOOK_MODES,
    check_images,
    check_mode,
    check_model,
    evaluating,
    replacement,
)
from vitmech_utils.heads.replay import predict
from vitmech_utils.intervals import effect_intervals
from vitmech_utils.model.anatomy import Anatomy
from vitmech_utils.statistics import check_settings
from vitmech_utils.tasks import Loss, Task


@checked_arguments(least={"batch": 1})
def first_order(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    labels: Tensor | None,
    mode: str = "zero",
    task: Task | str | Loss | None = None,
    *,
    reference: Reference | None = None,
    donors: Tensor | None = None,
    batch: int = 16,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Estimate the effect of ablating every head from the gradient of the loss with respect to head gates.

    A gate g slides a head's output from its own (g = 0) to what `mode` replaces it by (g = 1); the estimate
    is the slope at g = 0 of the loss, averaged over the targets. It is exact where the loss is a straight line in g,
    and misses saturation, heads that stand in for each other, and effects that start with g squared (a head whose
    removal only adds error to a model that fits perfectly). Modes as in `sweep`, without `published-code`; `labels` and
    `task` as there, but for the divergence from the model's own answer, which has no slope there.

    Returns layer, head (0-based), mode, images, baseline_mse (or baseline_loss), effect (percent of the baseline, or in
    the task's unit), low, high (paired bootstrap over images), and importance, in the same unit: the mean over images
    of the slope's size, by which Michel et al. 2019 rank heads (section 5). Slopes of both signs cancel in the effect,
    not in the importance. Errors as in `sweep`. Attribution patching: Nanda 2023; Syed et al. 2023.
    """
    check_settings(bootstrap, confidence)
    anatomy, gated = check_gated(model, pixel_values, labels, mode, task, donors, reference)
    if gated.own_answer:
        raise ValueError(
            f"the task {gated.name!r} is flat at the model's own answer, so that no slope gives an effect: ablate "
            "exactly (sweep), or pass a task with labels"
        )
    weight = next(model.parameters())
    new = replacement(
        model, anatomy, pixel_values, mode, reference=reference, donors=donors, batch=batch, seed=seed
    )
    slopes, errors = [], []
    with evaluating(model), torch.enable_grad():
        for start in range(0, len(pixel_values), batch):
            images = pixel_values[start : start + batch].to(device=weight.device, dtype=weight.dtype)
            ends = [end.clone() for end in new(start, start + len(images))]
            with open_gates(model, anatomy, images, ends) as gates:
                error = gated.of(model, images, start)
            (slope,) = torch.autograd.grad(error.sum(), gates)
            slopes.append(slope[:, :, 0, :, 0].cpu().double().numpy())
            errors.append(error.detach().cpu().double().numpy())
    slope, error = np.concatenate(slopes, axis=1), np.concatenate(errors)
    return _table(slope, error, anatomy, mode, gated.task, bootstrap, confidence, seed)


def _table(
    slope: Float[ndarray, "layer image head"],
    error: Float[ndarray, " image"],
    anatomy: Anatomy,
    mode: str,
    task: Task,
    bootstrap: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    per_head = slope.transpose(0, 2, 1)[anatomy.present]
    low, high = effect_intervals(error + per_head, error, bootstrap, confidence, seed, task.relative)
    layer, head = anatomy.present.nonzero()
    return pd.DataFrame(
        {
            "layer": layer,
            "head": head,
            "mode": mode,
            "images": len(error),
            f"baseline_{task.column}": error.mean(),
            "effect": slope_sizes(per_head, error, task.relative),
            "low": low,
            "high": high,
            "importance": slope_sizes(abs(per_head), error, task.relative),
        }
    )


@checked_arguments()
def slope_sizes(
    slope: Float[ndarray, "test image"], error: Float[ndarray, " image"], relative: bool
) -> Float[ndarray, " test"]:
    """Mean slopes, in percent of the mean loss where `relative`, else in its unit."""
    return 100 * slope.mean(1) / error.mean() if relative else slope.mean(1)


class GatedLoss:
    """The loss of single images as a function of what the model computes, averaged over the targets."""

    def __init__(self, task: Task, labels: Tensor | None) -> None:
        self.task, self.labels, self._fitted = task, labels, False

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task.name

    @property
    def own_answer(self) -> bool:
        """Whether the unchanged model's outputs take the place of labels."""
        return self.task.own_answer

    def fit(self, outputs: Tensor) -> None:
        """Refuse outputs that do not fit labels and task, with `ValueError`."""
        if not self._fitted:
            self.task, self._fitted = self.task.fitted(outputs.detach(), self.labels), True

    def of(self, model: nn.Module, images: Tensor, start: int) -> Float[Tensor, " image"]:
        """The losses of these images, the first of which is number `start`, in the widest floating point."""
        outputs = predict(model, images)
        self.fit(outputs)
        truth = outputs.detach() if self.own_answer else self.labels[start : start + len(images)]
        return self.task(outputs, truth).mean(1)


@checked_arguments()
def check_gated(
    model: nn.Module,
    pixel_values: Tensor,
    labels: Tensor | None,
    mode: str,
    task: Task | str | Loss | None,
    donors: Tensor | None,
    reference: Reference | None,
) -> tuple[Anatomy, GatedLoss]:
    """Check all that an estimate by gates is given, before any work; errors as in `sweep`."""
    anatomy = check_model(model)
    check_images(pixel_values, labels)
    check_mode(mode, pixel_values, donors, reference)
    if mode not in HOOK_MODES:
        raise ValueError(f"mode {mode!r} has no gates to slide, expected one of {', '.join(HOOK_MODES)}")
    gated = GatedLoss(tasks.find(task, model, labels), labels)
    if mode not in (
        "zero",
        "qkv-weights",
    ):  # these run the model over all images before the first loss is known
        weight = next(model.parameters())
        with evaluating(model), torch.no_grad():
            gated.fit(predict(model, pixel_values[:1].to(weight)))
    return anatomy, gated


@contextmanager
def open_gates(
    model: nn.Module, anatomy: Anatomy, images: Tensor, ends: Sequence[Tensor]
) -> Iterator[Float[Tensor, "layer image 1 head 1"]]:
    """Put a gate at every head: at 0, where all start, it writes its own output, at 1 `ends[layer]`."""
    gates = torch.zeros(
        anatomy.layers, len(images), 1, anatomy.heads, 1,
        dtype=images.dtype, device=images.device, requires_grad=True,
    )  # fmt: skip
    with change_heads(model, {layer: _slide(gates[layer], end) for layer, end in enumerate(ends)}):
        yield gates


def _slide(gate: Tensor, end: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda present: present + gate * (end - present)
