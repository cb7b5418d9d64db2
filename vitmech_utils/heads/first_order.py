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

from vitmech_utils.data.chirps import LABEL_NAMES
from vitmech_utils.heads.hooks import change_heads
from vitmech_utils.heads.replacements import (
    HOOK_MODES,
    check_images,
    check_mode,
    check_model,
    evaluating,
    replacement,
)
from vitmech_utils.heads.replay import predict, to_float64
from vitmech_utils.model.anatomy import Anatomy
from vitmech_utils.statistics import check_settings, effect_intervals


def first_order(
    model: nn.Module,
    pixel_values: Float[Tensor, "image 3 height width"],
    labels: Float[Tensor, "label target"],
    mode: str = "zero",
    *,
    reference: Tensor | None = None,
    donors: Tensor | None = None,
    targets: Sequence[str] = LABEL_NAMES,
    batch: int = 16,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Estimate the effect of ablating every head from the gradient of the error with respect to head gates.

    A gate g slides a head's output from its own (g = 0) to what `mode` replaces it by (g = 1); the estimate
    is the error's slope at g = 0. It is exact where the error is a straight line in g, and misses
    saturation, heads that stand in for each other, and effects that start with g squared (a head whose
    removal only adds error to a model that fits perfectly). Modes as in `sweep`, without `published-code`.

    Returns layer, head (0-based), mode, images, baseline_mse, effect (percent of the baseline), low, high
    (paired bootstrap over images). Errors as in `sweep`. Source: Michel et al. 2019, section 5 (there the
    absolute value, here signed); attribution patching: Nanda 2023; Syed et al. 2023.
    """
    anatomy = check_gated(
        model, pixel_values, labels, mode, targets, donors, reference, bootstrap, confidence
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
                error = error_of(model, images, labels[start : start + batch])
            (slope,) = torch.autograd.grad(error.sum(), gates)
            slopes.append(slope[:, :, 0, :, 0].cpu().double().numpy())
            errors.append(error.detach().cpu().double().numpy())
    slope, error = np.concatenate(slopes, axis=1), np.concatenate(errors)
    return _table(slope, error, anatomy, mode, bootstrap, confidence, seed)


def _table(
    slope: Float[ndarray, "layer image head"],
    error: Float[ndarray, " image"],
    anatomy: Anatomy,
    mode: str,
    bootstrap: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    per_head = slope.transpose(0, 2, 1)[anatomy.present]
    low, high = effect_intervals(error + per_head, error, bootstrap, confidence, seed)
    layer, head = anatomy.present.nonzero()
    return pd.DataFrame(
        {
            "layer": layer,
            "head": head,
            "mode": mode,
            "images": len(error),
            "baseline_mse": error.mean(),
            "effect": 100 * per_head.mean(1) / error.mean(),
            "low": low,
            "high": high,
        }
    )


def check_gated(
    model: nn.Module,
    pixel_values: Tensor,
    labels: Tensor,
    mode: str,
    targets: Sequence[str],
    donors: Tensor | None,
    reference: Tensor | None,
    bootstrap: int,
    confidence: float,
) -> Anatomy:
    """Check all that an estimate by gates is given, before any work; errors as in `sweep`."""
    check_settings(bootstrap, confidence)
    anatomy = check_model(model)
    check_images(pixel_values, labels, len(targets))
    check_mode(mode, pixel_values, donors, reference)
    if mode not in HOOK_MODES:
        raise ValueError(f"mode {mode!r} has no gates to slide, expected one of {', '.join(HOOK_MODES)}")
    return anatomy


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


def error_of(
    model: nn.Module, images: Tensor, truth: Float[Tensor, "image target"]
) -> Float[Tensor, " image"]:
    """Each image's squared error, averaged over the targets, in the widest floating point that there is."""
    return (to_float64(predict(model, images)) - to_float64(truth.to(images.device))).square().mean(1)


def _slide(gate: Tensor, end: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda present: present + gate * (end - present)
