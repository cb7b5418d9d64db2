"""The same backbone, adapters and head shape for another task: the type and the direction of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.sweep_labels import TARGETS, SweepDataset
from vitmech_utils.model.classifier_score import told_right
from vitmech_utils.model.finetune import Recipe, Training, fine_tune
from vitmech_utils.model.readout import cls_features
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.profiles import Profile

VALIDATION = 96
"""Held-out images by which a training is judged while it goes on."""
HEAD_IMAGES, HEAD_STEPS, HEAD_BATCH = 512, 1000, 64
"""Images whose CLS tokens the head is fitted to before the adapters move, and the steps that this takes."""


class SweepClassifier(ChirpRegressor):
    """A ViT with LoRA adapters that tells a sweep's type and direction: logits above 0 say exponential, rising.

    It is built, saved, loaded and merged as a `ChirpRegressor` is, and every analysis of heads takes it. Labels are
    0 or 1; the loss is the mean binary cross-entropy of both, in nats.
    """

    task: ClassVar[str] = "classification"
    targets: ClassVar[tuple[str, ...]] = TARGETS

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
) -> Training:
    """Fine-tune a classifier by the profile's `task` section on fresh chirps under one title.

    First the head alone is fitted to the pre-trained CLS tokens of the first training images, then adapters and head
    are trained together (linear probing, then fine-tuning; Kumar et al. 2022): from a random head, a few hundred images
    do not suffice to find what the title tells.

    Two trainings that differ in the title alone see the same chirps, noise included, in the same order, from the same
    initial weights. They are judged on the same held-out chirps, each under its own title.
    """
    plan = profile.task
    model = SweepClassifier.build(profile.backbone, seed=seed).to(device)
    images = SweepDataset(plan.steps * plan.batch_size, title, seed=seed, split="train")
    validation = SweepDataset(min(plan.images, VALIDATION), title, seed=1, split="held-out")
    start_head(model, Subset(images, range(min(len(images), HEAD_IMAGES))), seed)
    recipe = Recipe(
        steps=plan.steps,
        batch_size=plan.batch_size,
        learning_rate=plan.learning_rate,
        warmup_steps=min(10, plan.steps // 2),
        every=plan.every,
    )
    return fine_tune(model, images, validation, recipe, checkpoints, metrics=accuracies)


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
    """The share of images told right, per target, keyed `accuracy_<target>`; a logit above zero says 1."""
    right = told_right(logits, labels)
    return {f"accuracy_{name}": float(right[:, i].mean()) for i, name in enumerate(TARGETS)}
