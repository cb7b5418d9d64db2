"""The same backbone, adapters and head shape for another task: the type and the direction of a sweep."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.kept import KeptImages
from vitmech_utils.data.regions import REGIONS
from vitmech_utils.data.sweep_labels import TARGETS, SweepDataset
from vitmech_utils.model.finetune import Recipe, Training, fine_tune
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.model.scores import told_right
from vitmech_utils.profiles import Profile
from vitmech_utils.tasks import Task, binary_cross_entropy

HEAD_IMAGES, HEAD_STEPS, HEAD_BATCH = 512, 1000, 64
"""Images whose CLS tokens the head is fitted to before the adapters move, and the steps that this takes."""


class SweepClassifier(ChirpRegressor):
    """A ViT with LoRA adapters that names a sweep's type and direction: logits above 0 say exponential, rising.

    It is built, saved, loaded and merged as a `ChirpRegressor` is, and every analysis of heads takes it. Labels are
    0 or 1; the loss is the mean binary cross-entropy of both, in nats.
    """

    task: ClassVar[Task] = replace(binary_cross_entropy(TARGETS), regions=REGIONS)
    trained_for: ClassVar[str] = "classification"

    @staticmethod
    def distance(logits: Float[Tensor, "image target"], labels: Float[Tensor, "image target"]) -> Tensor:
        """What the training minimizes: the mean binary cross-entropy, in nats."""
        return nn.functional.binary_cross_entropy_with_logits(logits, labels)

    @classmethod
    def label_settings(cls) -> dict:
        """What the saved settings say of the labels: which class a 1 stands for."""
        return {"label_one": {"type": "exponential", "direction": "rising"}}


@checked_arguments()
def fine_tune_classifier(
    profile: Profile,
    seed: int,
    title: Literal["published", "none"],
    checkpoints: Path | str,
    device: torch.device | str,
    workers: int | None = None,
    kept: Path | str | None = None,
) -> Training:
    """Fine-tune a classifier by the profile's `task` section on fresh chirps under one title, in `train`'s precision.

    First the head alone is fitted to the pre-trained CLS tokens of the first training images, then adapters and head
    are trained together (linear probing, then fine-tuning; Kumar et al. 2022): from a random head, a few hundred images
    do not suffice to find what the title says.

    Two trainings that differ in the title alone see the same chirps, noise included, in the same order, from the same
    initial weights. They are judged on the same held-out chirps, each under its own title.
    """
    plan = profile.task
    model = SweepClassifier.build(profile.backbone, seed=seed).to(device)
    hard = profile.train.hard_share
    images = SweepDataset(plan.steps * plan.batch_size, title, seed=seed, split="train", hard_share=hard)
    judged = min(plan.images, profile.train.validation_images)
    validation = SweepDataset(judged, title, seed=1, split="held-out")
    drawn = images if kept is None else KeptImages(images, kept)
    start_head(model, Subset(images, range(min(len(images), HEAD_IMAGES))), seed)
    recipe = Recipe(
        steps=plan.steps,
        batch_size=plan.batch_size,
        learning_rate=plan.learning_rate,
        warmup_steps=min(10, plan.steps // 2),
        every=plan.every,
        precision=profile.train.precision,
    )
    return fine_tune(model, drawn, validation, recipe, checkpoints, accuracies, workers)


@checked_arguments()
def start_head(model: ChirpRegressor, images: Dataset, seed: int = 0) -> None:
    """Fit the head, in place, to the CLS tokens that the backbone gives these images as it is; the backbone stays.

    The tokens are computed once. `HEAD_STEPS` steps of AdamW on `HEAD_BATCH` of them each, drawn from `seed`.
    """
    features, labels = (found.float().to(model.device) for found in cls_features(model, images))
    draws = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.head.parameters(), lr=1e-3, weight_decay=0.01)
    for _ in range(HEAD_STEPS):
        chosen = torch.randint(len(features), (HEAD_BATCH,), generator=draws).to(model.device)
        loss = model.distance(model.head(features[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@checked_arguments()
def accuracies(
    logits: Float[ndarray, "image target"], labels: Float[ndarray, "image target"]
) -> dict[str, float]:
    """The share of images answered right, per target, keyed `accuracy_<target>`; a logit above zero says 1."""
    right = told_right(logits, labels)
    return {f"accuracy_{name}": float(right[:, i].mean()) for i, name in enumerate(TARGETS)}


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
    weight, bias = ridge_regression(features, labels)
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
def ridge_regression(
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
