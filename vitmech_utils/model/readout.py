"""A linear readout on a frozen backbone: what its CLS token tells about the chirp without any fine-tuning."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.model.regressor import ChirpRegressor

PENALTIES = tuple(10.0**power for power in range(-6, 4))


@checked_arguments()
def with_readout(regressor: ChirpRegressor, images: Dataset, batch_size: int = 32) -> ChirpRegressor:
    """A copy of a merged regressor whose head is the ridge regression of the labels on its CLS token.

    The backbone stays as it is, so that whatever the copy predicts is what the backbone offers linearly. `images`
    yields `pixel_values` [3, 224, 224] and standardized `labels` [3]. Raises `ValueError` for an unmerged regressor
    and for fewer than two images.
    """
    if not regressor.is_merged:
        raise ValueError("this regressor carries a LoRA adapter: call merged() first")
    features, labels = cls_features(regressor, images, batch_size)
    if len(labels) < 2:
        raise ValueError(f"{len(labels)} images, expected at least 2 to fit a readout on")
    weight, bias = ridge(features, labels)
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict({"weight": weight.float(), "bias": bias.float()})
    twin = copy.deepcopy(regressor)
    twin.head = nn.Sequential(linear.to(regressor.device))
    return twin.requires_grad_(False).eval()


@checked_arguments()
def cls_features(
    regressor: ChirpRegressor, images: Dataset, batch_size: int = 32
) -> tuple[Float[Tensor, "image hidden"], Float[Tensor, "image target"]]:
    """The CLS token after the last layer, and the standardized labels, of every image: float64, on the CPU."""
    features, labels = [], []
    with torch.inference_mode():
        for batch in DataLoader(images, batch_size=batch_size):
            hidden = regressor.backbone(
                pixel_values=batch["pixel_values"].to(regressor.device)
            ).last_hidden_state
            features.append(hidden[:, 0].cpu().double())
            labels.append(batch["labels"].double())
    return torch.cat(features), torch.cat(labels)


@checked_arguments()
def ridge(
    features: Float[Tensor, "image feature"], labels: Float[Tensor, "image target"]
) -> tuple[Float[Tensor, "target feature"], Float[Tensor, " target"]]:
    """Weight and bias of the ridge regression whose penalty has the least leave-one-out error, for each target.

    Penalties are `PENALTIES` times the features' mean squared singular value; the leave-one-out error has a closed
    form in the singular value decomposition (Golub, Heath and Wahba 1979). The bias is not penalized. Raises ValueError
    for arrays that do not fit each other, hold no image, or values that are not finite.
    """
    if features.ndim != 2 or labels.ndim != 2 or len(features) != len(labels) or not features.numel():
        raise ValueError(
            f"features have shape {tuple(features.shape)} and labels {tuple(labels.shape)}, expected one row per image"
        )
    if not (torch.isfinite(features).all() and torch.isfinite(labels).all()):
        raise ValueError("features or labels are not finite, expected finite numbers")
    middle, mean = features.mean(0), labels.mean(0)
    left, singular, right = torch.linalg.svd(features - middle, full_matrices=False)
    along = left.T @ (labels - mean)
    scale = singular.square().mean().clamp_min(torch.finfo(singular.dtype).tiny)
    errors, solutions = [], []
    for penalty in PENALTIES:
        shrink = singular.square() / (singular.square() + penalty * scale)
        residual = labels - mean - left @ (shrink[:, None] * along)
        leverage = left.square() @ shrink + 1 / len(labels)
        errors.append((residual / (1 - leverage).clamp_min(1e-9)[:, None]).square().mean(0))
        inverse = singular / (singular.square() + penalty * scale)
        solutions.append((right.T @ (inverse[:, None] * along)).T)
    best = torch.stack(errors).argmin(0)
    weight = torch.stack([solutions[int(at)][target] for target, at in enumerate(best)])
    return weight, mean - weight @ middle
