"""Adversarial changes of chosen pixels: projected gradient ascent on a model's own input, and noise of the same size.

Budgets are the largest change of a pixel's channel, in units of 1/255; pixels lie in [0, 1], as data sets give them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils import tasks
from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.linearized import blocks_in
from vitmech_utils.heads.replacements import check_images, check_merged, evaluating
from vitmech_utils.heads.replay import predict
from vitmech_utils.heads.sets import LossesFor
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.tasks import Loss, Task, to_float64, widest_float

LEVELS = 255
"""Budgets count in steps of an 8-bit pixel, of which [0, 1] holds so many."""
OVERSHOOT = 2.5
"""All steps together reach this many budgets far, so that each pixel can cross its whole range (Madry et al. 2018)."""


@dataclass(frozen=True)
class Attack:
    """Attacked images, and what the model says of them and of the clean ones.

    `pixel_values` lie within `budget` (in 1/255) of the clean ones and in [0, 1]; `pixels` counts, per image, those
    that could be changed. `passes` is the number of forward passes that an image took.
    """

    pixel_values: Float[Tensor, "image ..."]
    predictions: Float[Tensor, "image ..."]
    clean: Float[Tensor, "image ..."]
    budget: float
    pixels: Int[ndarray, " image"]
    passes: int


@checked_arguments(least={"steps": 1, "restarts": 1, "batch": 1})
def attack(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    labels: Tensor | None,
    mask: Bool[Tensor, "mask mask_height mask_width"],
    budget: float,
    task: Task | str | Loss | None = None,
    *,
    steps: int = 10,
    restarts: int = 1,
    batch: int = 8,
    seed: int = 0,
    clean: Float[Tensor, "label ..."] | None = None,
    dtype: torch.dtype | None = None,
) -> Attack:
    """Raise the loss on each image by changing only the pixels in `mask`, each channel by at most `budget`.

    `model` returns predictions (or an output with `logits`), its LoRA adapters merged, and may stand under
    `change_heads`; `labels` and `task` are as in `ablation.sweep`, and the loss is the sum over the targets. Each of
    `restarts` begins at a random point within the budget and takes `steps` of `OVERSHOOT * budget / steps` along the
    sign of the gradient, clipped to the budget and to [0, 1]. The worst image that was seen is kept, the clean one
    included, so an attack never lowers a loss. Random numbers depend on (`seed`, image, restart) alone, not on `batch`.
    A budget of 0 returns the clean images after one pass. The model's mode, weights and gradients stay as they were;
    outside the mask images are bit-identical. `clean` are this model's predictions of the unchanged images where they
    are known: that saves a pass. With `dtype` torch.bfloat16 the search multiplies matrices in it (`blocks_in`), and
    one more pass in the model's own precision judges what it found: `predictions` are always the model's own.

    Raises `ValueError` before any pass: images that are empty, not finite or outside [0, 1], labels that do not match,
    a mask of another shape or without a pixel in some image, a budget outside [0, 255], counts below 1, an unmerged
    adapter; and later for predictions that are not finite or do not fit labels and task. Sources: Goodfellow et al.
    2015 (the sign of the gradient), Madry et al. 2018 (projection, random starts), Brown et al. 2017 (changes confined
    to a part of the image).
    """
    _check(model, pixel_values, labels, mask, budget, steps=steps, restarts=restarts, batch=batch)
    restarts = restarts if budget else 0
    judge = LossesFor(tasks.find(task, model, labels), labels)
    settings = budget / LEVELS, steps, restarts, seed, dtype
    found, predictions, unchanged = [], [], []
    with evaluating(model):
        for start in range(0, len(pixel_values), batch):
            part = slice(start, start + batch)
            said = None if clean is None else clean[part]
            parts = _attack(model, pixel_values[part], judge, mask[part], said, start, *settings)
            for kept, new in zip((found, predictions, unchanged), parts, strict=True):
                kept.append(new)
    return Attack(
        torch.cat(found), torch.cat(predictions), torch.cat(unchanged), float(budget), _count(mask),
        (clean is None) + restarts * (steps + 1) + (restarts > 0 and dtype is not None),
    )  # fmt: skip


@checked_arguments(least={"batch": 1})
@torch.no_grad()
def random_noise(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    labels: Tensor | None,
    mask: Bool[Tensor, "mask mask_height mask_width"],
    budget: float,
    *,
    draws: int = 1,
    batch: int = 8,
    seed: int = 0,
) -> Float[Tensor, "draw image ..."]:
    """Predictions when every channel of the pixels in `mask` moves by `budget` up or down, at random; the control.

    The same norm on the same pixels as an attack has, without its gradient; pixels stay in [0, 1]. Random numbers
    depend on (`seed`, image, draw) alone. Arguments and errors as in `attack`; `labels` are only checked.
    """
    _check(model, pixel_values, labels, mask, budget, draws=draws, batch=batch)
    weight = next(model.parameters())
    found = []
    with evaluating(model):
        for start in range(0, len(pixel_values), batch):
            clean = pixel_values[start : start + batch].to(weight)
            where = mask[start : start + batch, None].to(weight.device)
            drawn = []
            for draw in range(draws):
                noise = _noise(
                    clean, (seed, 1, draw), start, lambda rng, size: rng.integers(2, size=size) * 2.0 - 1
                )
                changed = torch.where(where, (clean + noise * (budget / LEVELS)).clamp_(0, 1), clean)
                drawn.append(_finite(predict(model, changed), start))
            found.append(torch.stack(drawn))
    return torch.cat(found, 1)


@checked_arguments()
def gradient_error(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    labels: Tensor | None,
    task: Task | str | Loss | None = None,
    *,
    directions: int = 8,
    step: float = 1e-6,
    seed: int = 0,
) -> float:
    """How far the gradient that `attack` climbs lies from central differences: the largest relative deviation.

    Slopes of the loss along random directions in the image, by the gradient and by two passes each. Give the
    model in float64, where a right gradient leaves less than about a millionth. Errors as in `attack`.
    """
    mask = torch.ones(len(pixel_values), *pixel_values.shape[2:], dtype=torch.bool)
    _check(model, pixel_values, labels, mask, 0.0, directions=directions)
    weight = next(model.parameters())
    clean, numbers = pixel_values.to(weight), torch.arange(len(pixel_values))
    judge = LossesFor(tasks.find(task, model, labels), labels)
    rng = np.random.default_rng(seed)
    with evaluating(model):
        point = clean.clone().requires_grad_(True)
        with torch.enable_grad():
            said = predict(model, point)
            own = said.detach()
            judge.begin(own, 1)
            (slope,) = torch.autograd.grad(judge(said, own, numbers).sum(), point)
        worst = 0.0
        with torch.no_grad():
            for _ in range(directions):
                along = torch.from_numpy(rng.standard_normal(tuple(clean.shape))).to(weight)
                ends = [
                    judge(predict(model, clean + sign * step * along), own, numbers).sum() for sign in (1, -1)
                ]
                measured, told = (ends[0] - ends[1]).item() / (2 * step), (slope * along).sum().item()
                worst = max(worst, abs(measured - told) / max(abs(measured), abs(told), 1e-300))
    return worst


def _attack(
    model: nn.Module,
    pixel_values: Tensor,
    judge: LossesFor,
    mask: Tensor,
    said: Tensor | None,
    first: int,
    reach: float,
    steps: int,
    restarts: int,
    seed: int,
    dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attack one batch whose first image is number `first`: images, predictions, clean predictions, on the CPU."""
    weight = next(model.parameters())
    clean, where = pixel_values.to(weight), mask[:, None].to(weight.device)
    numbers = torch.arange(first, first + len(clean))
    if said is None:
        with torch.no_grad():
            said = predict(model, clean)
    unchanged = _finite(said, first)
    predictions = unchanged.to(weight.device, widest_float(weight.device))
    own = predictions
    if first == 0:
        judge.begin(own, 1)
    before, kept = judge(own, own, numbers).sum(1), clean.clone()
    worst = before
    searching = None if dtype is None else find_blocks(model)
    low, high = (clean - reach).clamp_(min=0), (clean + reach).clamp_(max=1)
    for restart in range(restarts):
        start = _noise(clean, (seed, 0, restart), first, lambda rng, size: rng.uniform(-1, 1, size=size))
        changed = torch.where(where, (clean + reach * start).clamp_(low, high), clean)
        for step in range(steps + 1):
            climbing = step < steps
            with torch.set_grad_enabled(climbing), blocks_in(dtype, searching):
                changed.requires_grad_(climbing)
                said = predict(model, changed)
                error = judge(said, own, numbers).sum(1)
            _finite(said.detach(), first)
            better = error.detach() > worst
            worst = torch.where(better, error.detach(), worst)
            predictions = torch.where(_like(better, own), to_float64(said.detach()), predictions)
            kept[better] = changed.detach()[better]
            if climbing:
                (slope,) = torch.autograd.grad(error.sum(), changed)
                moved = (
                    changed.detach().add_(slope.sign_(), alpha=OVERSHOOT * reach / steps).clamp_(low, high)
                )
                changed = torch.where(where, moved, clean)
    if restarts and dtype is not None:
        with torch.no_grad():
            said = predict(model, kept)
        _finite(said, first)
        better = judge(said, own, numbers).sum(1) > before
        predictions = torch.where(_like(better, own), to_float64(said), own)
        kept = torch.where(_like(better, kept), kept, clean)
    found = torch.where(mask[:, None], kept.to(device="cpu", dtype=pixel_values.dtype), pixel_values.cpu())
    return found, predictions.cpu().double(), unchanged


def _like(chosen: Tensor, values: Tensor) -> Tensor:
    """One truth value an image, of as many axes as these values have."""
    return chosen.reshape(-1, *[1] * (values.ndim - 1))


def _noise(
    images: Tensor,
    key: tuple[int, ...],
    first: int,
    draw: Callable[[np.random.Generator, tuple[int, ...]], ndarray],
) -> Tensor:
    """One array of random numbers per image, each from the image's own number."""
    shape = tuple(images.shape[1:])
    drawn = [draw(np.random.default_rng([*key, first + place]), shape) for place in range(len(images))]
    return torch.from_numpy(np.stack(drawn)).to(images)


def _count(mask: Tensor) -> Int[ndarray, " image"]:
    return mask.flatten(1).sum(1).cpu().numpy()


def _finite(predictions: Tensor, first: int) -> Tensor:
    broken = (~torch.isfinite(predictions)).flatten(1).any(1).nonzero().flatten().tolist()
    if broken:
        raise ValueError(
            f"the model's predictions are not finite for image(s) {[first + place for place in broken][:5]}; check its "
            "weights, or run it in float32"
        )
    return predictions.cpu().double()


def _check(
    model: nn.Module, pixel_values: Tensor, labels: Tensor | None, mask: Tensor, budget: float, **counts: int
) -> None:
    check_merged(model)  # an attack needs no heads, only plain weights
    check_images(pixel_values, labels)
    low, high = pixel_values.min().item(), pixel_values.max().item()
    if low < 0 or high > 1:
        raise ValueError(
            f"pixel_values lie in [{low:g}, {high:g}], expected pixels in [0, 1] as ChirpDataset gives them: an attack "
            "could not keep others valid"
        )
    if mask.dtype != torch.bool or mask.shape != (len(pixel_values), *pixel_values.shape[2:]):
        expected = (len(pixel_values), *pixel_values.shape[2:])
        raise ValueError(
            f"mask is {mask.dtype} of shape {tuple(mask.shape)}, expected bool of shape {expected}: one map per image, "
            "as choose_pixels makes it"
        )
    if empty := np.flatnonzero(_count(mask) == 0).tolist():
        raise ValueError(
            f"mask has no pixel to change in image(s) {empty[:5]}: leave these images out, or name another region"
        )
    if not (math.isfinite(budget) and 0 <= budget <= LEVELS):
        raise ValueError(
            f"budget is {budget}, expected 0 to {LEVELS}: the largest change of a pixel, in 1/{LEVELS}"
        )
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}, expected at least 1")
