"""All heads' effects at once, to first order: one forward and one backward pass through head gates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils.data.chirps import LABEL_NAMES
from vitmech_utils.heads.gates import check_gated, error_of, open_gates
from vitmech_utils.heads.replacements import evaluating, replacement
from vitmech_utils.model.anatomy import Anatomy
from vitmech_utils.statistics import effect_intervals


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
