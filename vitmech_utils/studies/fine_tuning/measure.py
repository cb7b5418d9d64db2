"""What chapter 02 computes: trainings of every seed with their records, the controls, and the study's figure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
from vitmech_utils.model.scores import predict_dataset, save_answers, score, unread, wilson
from vitmech_utils.profiles import Profile

STUDY = 0.9841  # Pearson r of the start time, arXiv 2503.22713
EARLIER = "published/adapters/earlier_recipe.json"
"""The record of a training by the recipe without hard images, from the clone's root."""
DRAWS = 2000
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
) -> dict[int, tuple[Training, dict, Float[ndarray, "both image target"]]]:
    """Fine-tune from each of the profile's seeds: the training, its record, and its answers on the test images.

    The record holds the score; the labels come after the answers.

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
        answers, labels = predict_dataset(training.regressor, judged)
        found = score(answers, labels).to_dict("records")
        done[seed] = (
            training,
            training.record(profile, seed, **settings, score=found),
            np.stack([answers, labels]),
        )
    return done


@checked_arguments()
def save_trainings(
    trained: Mapping[int, tuple[Training, dict, Float[ndarray, "both image target"]]], folder: Path | None
) -> list[dict]:
    """Save each seed's adapter with its record and answers (unless there is no folder) and return the records.

    The first seed's adapter goes to `adapter`, another's to `adapter-seed-<seed>`.
    """
    for place, (seed, (training, record, answers)) in enumerate(trained.items()):
        if folder:
            name = f"adapter-seed-{seed}" if place else "adapter"
            training.regressor.save(folder / name, training=record)
            save_answers(folder / name, *answers)
    return [record for _, record, _ in trained.values()]


@checked_arguments()
def with_unread(
    record: Mapping[str, Any],
    predictions: Float[ndarray, "image target"],
    labels: Float[ndarray, "image target"],
) -> dict[str, Any]:
    """A training's record with the score, its intervals by bootstrap, and the share of unread images of these answers.

    Both are standardized.
    """
    found = score(predictions, labels, bootstrap=DRAWS).to_dict("records")
    share = vars(wilson(unread(predictions, labels))) | {"images": len(labels)}
    return {**record, "score": found, "unread": share}


@checked_arguments()
def compared_recipes(records: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """What each training cost and how well it reads: a row per name of a record that says how many images are unread.

    Columns: training, hard_share, images_visited, device, seconds, r_T with low_T and high_T for every target, unread
    with low and high (shares of the test images), images.
    """
    rows = []
    for name, record in records.items():
        if "unread" not in record:
            continue
        row: dict[str, Any] = {
            "training": name,
            "hard_share": record.get("hard_share", 0.0),
            "images_visited": record.get("images_visited", record["steps"] * record["batch_size"]),
            "device": record.get("hardware", record["device"]),
            "seconds": record["wall_seconds"],
            "unread": record["unread"]["value"],
            "low": record["unread"]["low"],
            "high": record["unread"]["high"],
            "images": record["unread"]["images"],
        }
        for one in record["score"]:
            row |= {f"{key}_{one['target']}": one[key] for key in ("r", "low", "high")}
        rows.append(row)
    return pd.DataFrame(rows)


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
