"""What chapter 02 computes: trainings of every seed with their records, the controls, and the study's figure."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.dataset import ChirpDataset
from vitmech_utils.model.finetune import Training, fine_tune_profile, recipe_settings
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.model.scores import predict_dataset, score
from vitmech_utils.profiles import Profile

STUDY = 0.9841  # Pearson r of the start time, arXiv 2503.22713
REHEARSED = 100  # images that a rehearsal is judged on, at most
CONTROLLED = 200  # images that the controls are judged on, at most


@checked_arguments()
def parameter_counts(regressor: ChirpRegressor) -> dict[str, int]:
    """How many parameters are frozen, and how many train: those of the adapters and those of the head."""
    frozen = sum(p.numel() for p in regressor.parameters() if not p.requires_grad)
    trainable = {name: p.numel() for name, p in regressor.named_parameters() if p.requires_grad}
    lora = sum(count for name, count in trainable.items() if "lora_" in name)
    return {
        "frozen backbone": frozen,
        "LoRA adapters": lora,
        "regression head": sum(trainable.values()) - lora,
    }


@checked_arguments()
def changes_nothing(regressor: ChirpRegressor, pixel_values: Float[Tensor, "image 3 height width"]) -> bool:
    """Whether a fresh adapter leaves the pre-trained model's predictions as they are, to the bit."""
    with torch.inference_mode():
        return torch.equal(regressor.without_adapter()(pixel_values).logits, regressor(pixel_values).logits)


@checked_arguments()
def fine_tune_seeds(
    profile: Profile, checkpoints: Path, device: torch.device
) -> dict[int, tuple[Training, dict]]:
    """Fine-tune from each of the profile's seeds: the training and its record, the score on test images included.

    Where the profile takes the published adapter this is a rehearsal of a few steps, judged on fewer images.
    """
    rehearsal = profile.adapter == "published"
    recipe = profile.rehearsal() if rehearsal else profile
    images = min(profile.train.eval_images, REHEARSED) if rehearsal else profile.train.eval_images
    judged = ChirpDataset(images, seed=0, split="held-out")
    done = {}
    for seed in profile.seeds:
        training = fine_tune_profile(recipe, seed, checkpoints / f"seed-{seed}", device)
        settings = recipe_settings(recipe)
        found = score(*predict_dataset(training.regressor, judged)).to_dict("records")
        done[seed] = training, training.record(profile, seed, **settings, score=found)
    return done


@checked_arguments()
def save_trainings(trained: Mapping[int, tuple[Training, dict]], folder: Path | None) -> list[dict]:
    """Save each seed's adapter with its record (unless there is no folder) and return the records.

    The first seed's adapter goes to `adapter`, another's to `adapter-seed-<seed>`.
    """
    for place, (seed, (training, record)) in enumerate(trained.items()):
        if folder:
            name = f"adapter-seed-{seed}" if place else "adapter"
            training.regressor.save(folder / name, training=record)
    return [record for _, record in trained.values()]


@checked_arguments()
def controls(
    tuned: ChirpRegressor,
    backbone: str,
    seed: int,
    predictions: Float[ndarray, "image target"],
    labels: Float[ndarray, "image target"],
) -> pd.DataFrame:
    """Models that must do worse, on the first test images: model, MSE, spread (of predictions over labels), images.

    `predictions` and `labels` are the fine-tuned model's, standardized, on the whole test set.
    """
    few = ChirpDataset(min(len(labels), CONTROLLED), seed=0, split="held-out")
    predictions, labels = predictions[: len(few)], labels[: len(few)]
    others = {
        "adapter taken out": tuned.without_adapter().to(tuned.device),
        "fresh model": ChirpRegressor.build(backbone, seed=seed).to(tuned.device),
    }
    found = {
        "fine-tuned": predictions,
        **{name: predict_dataset(model, few)[0] for name, model in others.items()},
        "the mean": np.zeros_like(labels),
    }
    return pd.DataFrame(
        {
            "model": name,
            "MSE": ((values - labels) ** 2).mean(),
            "spread": (values.std(axis=0) / labels.std(axis=0)).mean(),
            "images": len(labels),
        }
        for name, values in found.items()
    )


@checked_arguments()
def against_study(start: Mapping[str, float]) -> str:
    """How the start time's correlation (r, low, high) stands to the study's figure."""
    if start["low"] >= STUDY:
        return "reaches the published figure"
    if start["high"] < STUDY:
        return "stays below the published figure"
    return "cannot be distinguished from the published figure at this sample size"


@checked_arguments()
def shifts_alike(model: nn.Module, pixel_values: Float[Tensor, "1 3 height width"], by: float = 0.1) -> bool:
    """Whether adding a constant to every pixel changes the patch embedding by the same vector in every patch."""
    embed = next(part for part in model.modules() if isinstance(part, nn.Conv2d))
    with torch.inference_mode():
        change = (embed(pixel_values + by) - embed(pixel_values)).flatten(2)
    return torch.allclose(change, change[..., :1].expand_as(change), atol=1e-4)
