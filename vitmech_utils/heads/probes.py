"""What is linearly readable where: ridge regressions from the residual stream, judged on other images."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.attention import patch_grid
from vitmech_utils.heads.replacements import check_model, evaluating, verify
from vitmech_utils.heads.replay import predict

PENALTIES = tuple(10.0**power for power in range(-4, 5))
"""Ridge penalties that are tried, per image and with features of unit variance."""


@checked_arguments(finite=("pixel_values",), least={"batch": 1})
def token_states(
    model: nn.Module, pixel_values: Float[Tensor, "image ..."], batch: int = 16
) -> dict[str, Float[Tensor, "image depth hidden"]]:
    """The residual stream before the first layer (depth 0) and after each one, at CLS and averaged over the patches.

    Returns `CLS` and `patches`, float32 on the CPU. Raises `AnatomyError` for a model without recognizable blocks.
    """
    anatomy = check_model(model)
    found = verify(model, pixel_values)
    prefix = found.anatomy.prefix
    patches = int(np.prod(patch_grid(pixel_values, found.anatomy)))
    weight = next(model.parameters())
    states: list[tuple[Tensor, Tensor]] = []
    parts: dict[str, list[Tensor]] = {"CLS": [], "patches": []}

    def note(hidden: Tensor) -> None:
        hidden = hidden.float()
        states.append((hidden[:, 0], hidden[:, prefix : prefix + patches].mean(1)))

    def before(_module: nn.Module, args: tuple, kwargs: dict) -> None:
        note(args[0] if args else kwargs["hidden_states"])

    def after(_module: nn.Module, _inputs: tuple, output: Tensor | tuple) -> None:
        note(output[0] if isinstance(output, tuple) else output)

    handles = [anatomy.blocks[0].block.register_forward_pre_hook(before, with_kwargs=True)]
    handles += [block.block.register_forward_hook(after) for block in anatomy.blocks]
    try:
        with evaluating(model), torch.inference_mode():
            for images in pixel_values.split(batch):
                states.clear()
                predict(model, images.to(weight))
                for name, column in zip(parts, zip(*states, strict=True), strict=True):
                    parts[name].append(torch.stack(column, 1).cpu())
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.cat(part) for name, part in parts.items()}


@checked_arguments(finite=("features", "targets", "new_features"))
def ridge_probe(
    features: Float[ndarray, "image feature"],
    targets: Float[ndarray, "labelled target"],
    new_features: Float[ndarray, "other new_feature"],
) -> Float[ndarray, "other target"]:
    """Fit a ridge regression per target and predict other images with it.

    Features are centred and scaled to unit variance on the images of the fit (a constant one is left out). The penalty
    is, for each target, that of `PENALTIES` with the smallest leave-one-out error, which for ridge has a closed form:
    e_i / (1 - H_ii) (Allen 1974). Raises `ValueError` for fewer than three images or sizes that do not fit.
    """
    if len(features) != len(targets) or len(features) < 3 or features.shape[1:] != new_features.shape[1:]:
        raise ValueError(
            f"features have shape {features.shape}, targets {targets.shape} and new features {new_features.shape}, "
            "expected as many images of the first two, three or more, and the same features"
        )
    weights, bias = fit_ridge(features, targets)
    return bias + new_features @ weights


@checked_arguments(finite=("features", "targets"))
def fit_ridge(
    features: Float[ndarray, "image feature"], targets: Float[ndarray, "labelled target"]
) -> tuple[Float[ndarray, "feature target"], Float[ndarray, " target"]]:
    """The weights and biases of `ridge_probe`, for features as they are. Raises `ValueError` as it does."""
    if len(features) != len(targets) or len(features) < 3:
        raise ValueError(
            f"features have shape {features.shape} and targets {targets.shape}, expected as many images of both, three "
            "or more"
        )
    middle, spread = features.mean(0), features.std(0)
    kept = spread > 1e-12 * np.abs(middle).max(initial=1.0)
    scaled = (features[:, kept] - middle[kept]) / spread[kept]
    mean = targets.mean(0)
    left, singular, right = np.linalg.svd(scaled.astype(np.float64), full_matrices=False)
    projected = left.T @ (targets - mean)
    images = len(features)
    errors, weights = [], []
    for penalty in PENALTIES:
        shrunk = singular**2 / (singular**2 + penalty * images)
        residual = targets - mean - left @ (shrunk[:, None] * projected)
        # The mean is fitted, too: it takes 1 / images of every image's own weight.
        leverage = (left**2 * shrunk).sum(1) + 1 / images
        errors.append(((residual / (1 - leverage)[:, None]) ** 2).mean(0))
        weights.append(right.T @ ((singular / (singular**2 + penalty * images))[:, None] * projected))
    best = np.argmin(errors, axis=0)
    found = np.zeros((features.shape[1], targets.shape[1]))
    found[kept] = np.stack([weights[row][:, target] for target, row in enumerate(best)], 1)
    found[kept] /= spread[kept, None]
    return found, mean - middle @ found


@checked_arguments(finite=("truth", "predicted"))
def explained_variance(
    truth: Float[ndarray, "image target"], predicted: Float[ndarray, "image target"]
) -> Float[ndarray, " target"]:
    """R² of predictions: 1 less the squared error over the variance of the truth; at most 1."""
    return 1 - ((truth - predicted) ** 2).mean(0) / truth.var(0)
