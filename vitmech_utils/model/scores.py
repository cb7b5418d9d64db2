"""What a model predicts on a data set, and how well: r, MSE, seconds and hertz; accuracy and cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from safetensors.numpy import load_file, save_file
from scipy.stats import binomtest
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.artefacts import RunError, write_atomically
from vitmech_utils.data.chirps import LABEL_NAMES, LABEL_STD, LABEL_UNITS
from vitmech_utils.data.sweep_labels import TARGETS
from vitmech_utils.devices import drawing_workers
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.statistics import Interval, correlation

CHIRP_TARGETS = {
    name: (float(std), unit) for name, std, unit in zip(LABEL_NAMES, LABEL_STD, LABEL_UNITS, strict=True)
}
"""What a `ChirpRegressor` predicts: the standard deviation of each label, and its unit."""
ANSWERS = "answers.safetensors"
"""The file in an adapter's folder with its answers on the first held-out images."""
LOOKED_AT = 64
"""How many of the answers beside an adapter are computed anew before the rest are believed."""
SAME = 1e-3
"""How far an answer may be from the one that is kept, in standard deviations of its label: rounding elsewhere."""
UNREAD = 0.1
"""An image whose squared error, averaged over the targets, is more than this is unread; always guessing costs 1."""


@checked_arguments()
def predict_dataset(
    regressor: ChirpRegressor,
    images: Dataset | Sequence[Mapping[str, Tensor]],
    batch_size: int = 32,
    workers: int | None = None,
) -> tuple[Float[np.ndarray, "image target"], Float[np.ndarray, "image target"]]:
    """Standardized predictions and labels of a data set, in its order, on the regressor's own device.

    `workers` processes draw the images; by default none beside a processor that predicts, some beside a GPU.
    """
    workers = drawing_workers(regressor.device) if workers is None else workers
    predictions, labels = [], []
    with torch.inference_mode():
        for batch in DataLoader(images, batch_size=batch_size, num_workers=workers):
            pixels = batch["pixel_values"].to(regressor.device)
            if pixels.dtype == torch.uint8:  # in parts
                pixels = images.compose(pixels)
            predictions.append(regressor(pixels).logits.float().cpu().numpy())
            labels.append(batch["labels"].numpy())
    return np.concatenate(predictions), np.concatenate(labels)


@checked_arguments()
def save_answers(
    folder: Path, answers: Float[ndarray, "image target"], labels: Float[ndarray, "image target"]
) -> Path:
    """Keep a model's answers on the first held-out images, and their labels, beside its adapter, as `ANSWERS`."""
    return write_atomically(
        folder / ANSWERS, lambda path: save_file({"answers": answers, "labels": labels}, path)
    )


@checked_arguments()
def kept_reading(folder: Path) -> dict[str, Float[ndarray, "image target"]]:
    """A regressor's standardized `predictions` of the first held-out images, kept beside it, and their `labels`.

    Raises `RunError` where its adapter's folder keeps none.
    """
    path = folder / ANSWERS
    if not path.is_file():
        raise RunError(
            f"{path} is not there: a further training is judged by its own loss on the held-out images; restore it, or "
            "train that adapter again (chapter 02, or python -m vitmech_utils.adapters)"
        )
    found = load_file(path)
    return {"predictions": found["answers"], "labels": found["labels"]}


@checked_arguments()
def read_held_out(
    regressor: ChirpRegressor, images: Dataset, adapter: Path | None = None
) -> dict[str, Float[ndarray, "image target"]]:
    """A regressor's standardized `predictions` of held-out images, and their `labels`.

    Where the folder of its `adapter` keeps its answers on these images, the first `LOOKED_AT` are computed anew: if the
    labels are the same and no answer is more than `SAME` away, the rest are taken from there. Else all are computed.
    """
    few = Subset(images, range(min(LOOKED_AT, len(images))))
    if adapter is not None and (adapter / ANSWERS).is_file() and len(few) < len(images):
        kept = {name: values[: len(images)] for name, values in kept_reading(adapter).items()}
        predictions, labels = predict_dataset(regressor, few)
        if (
            len(kept["labels"]) == len(images)
            and np.array_equal(kept["labels"][: len(few)], labels)
            and np.abs(kept["predictions"][: len(few)] - predictions).max() < SAME
        ):
            return kept
    return dict(zip(("predictions", "labels"), predict_dataset(regressor, images), strict=True))


@checked_arguments()
def correlations(
    predictions: Float[np.ndarray, "image target"],
    labels: Float[np.ndarray, "image target"],
    targets: Sequence[str] = LABEL_NAMES,
) -> dict[str, float]:
    """Pearson r per target, keyed `r_<target>`; a constant prediction has none and counts as 0.

    Raises `ValueError` for other than one name per target.
    """
    _check_targets(targets, predictions, labels)
    result = {}
    for i, name in enumerate(targets):
        constant = np.ptp(predictions[:, i]) == 0
        result[f"r_{name}"] = 0.0 if constant else float(np.corrcoef(predictions[:, i], labels[:, i])[0, 1])
    return result


@checked_arguments()
def unread(
    predictions: Float[np.ndarray, "image target"], labels: Float[np.ndarray, "image target"]
) -> Bool[np.ndarray, " image"]:
    """Which images are not read: squared error, averaged over the targets, above `UNREAD`."""
    return ((predictions.astype(np.float64) - labels) ** 2).mean(1) > UNREAD


@checked_arguments()
def correlation_draws(
    predictions: Float[np.ndarray, "image target"],
    labels: Float[np.ndarray, "image target"],
    draws: int,
    seed: int = 0,
) -> Float[np.ndarray, "draw target"]:
    """Pearson r of each target on `draws` sets of images drawn with replacement, the same ones for every target.

    From sums alone: a set is the number of times that each image is in it. A draw without spread has r nan.
    """
    count = len(labels)
    rng = np.random.default_rng(seed)
    x, y = (value.astype(np.float64) - value.mean(0, dtype=np.float64) for value in (predictions, labels))
    moments = np.concatenate([x, y, x * x, y * y, x * y], axis=1)
    found = []
    for _ in range(draws):
        times = np.bincount(rng.integers(count, size=count), minlength=count)
        mean_x, mean_y, xx, yy, xy = (times @ moments / count).reshape(5, -1)
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append((xy - mean_x * mean_y) / np.sqrt((xx - mean_x**2) * (yy - mean_y**2)))
    return np.array(found)


@checked_arguments()
def score(
    predictions: Float[np.ndarray, "image target"],
    labels: Float[np.ndarray, "image target"],
    confidence: float = 0.95,
    bootstrap: int = 0,
    targets: Mapping[str, tuple[float, str]] = CHIRP_TARGETS,
) -> pd.DataFrame:
    """One row per target: target, r (Pearson) with low and high, standardized mse, rmse in its unit, unit, images.

    The interval is Fisher's, which takes labels and errors for normal, or with `bootstrap` draws of the images the
    percentile one, which a few unread images make as wide as it is. `targets` names, for every target in order, the
    standard deviation that its labels were divided by, and the unit of that: by default those of chirps, in seconds and
    hertz. Raises `ValueError` for other than one per target.
    """
    _check_targets(targets, predictions, labels)
    tails = (1 - confidence) / 2, (1 + confidence) / 2
    drawn = correlation_draws(predictions, labels, bootstrap) if bootstrap else None
    rows = []
    for i, (name, (spread, unit)) in enumerate(targets.items()):
        fisher = correlation(predictions[:, i], labels[:, i], confidence)
        low, high = (fisher.low, fisher.high) if drawn is None else np.nanquantile(drawn[:, i], tails)
        mse = float(np.mean((predictions[:, i] - labels[:, i]) ** 2))
        rows.append(
            {
                "target": name,
                "r": fisher.value,
                "low": float(low),
                "high": float(high),
                "mse": mse,
                "rmse": float(np.sqrt(mse) * spread),
                "unit": unit,
                "images": len(labels),
            }
        )
    return pd.DataFrame(rows)


@checked_arguments()
def cross_entropies(
    logits: Float[Tensor, "*set image target"], labels: Float[Tensor, "label target"]
) -> Float[ndarray, "*set image target"]:
    """The binary cross-entropy of every answer, in nats (0 or more), float64; each label is 0 or 1.

    A model that knows nothing and says so pays ln 2 for each. Raises `ValueError` for labels of another shape or other
    values, such as a regressor's standardized ones, and for logits that are not finite.
    """
    said, truth = (torch.as_tensor(found).detach().cpu().double() for found in (logits, labels))
    if truth.ndim != 2 or said.shape[-2:] != truth.shape:
        raise ValueError(
            f"labels have shape {tuple(truth.shape)}, logits {tuple(said.shape)}; expected labels [image, target] and "
            "logits that end in the same: one row per image, one column per target"
        )
    if other := truth[(truth != 0) & (truth != 1)].tolist():
        raise ValueError(
            f"labels hold {other[0]:g}, expected 0 or 1: take those of a SweepDataset, a regressor's are standardized"
        )
    if not torch.isfinite(said).all():
        raise ValueError(
            "logits are not finite, expected finite numbers: check the weights, or run in float32"
        )
    return nn.functional.binary_cross_entropy_with_logits(
        said, truth.expand_as(said), reduction="none"
    ).numpy()


@checked_arguments()
def told_right(
    logits: Float[ndarray, "*set image target"], labels: Float[ndarray, "image target"]
) -> Bool[ndarray, "*set image target"]:
    """Whether each answer is right; a logit above zero says 1."""
    return (np.asarray(logits) > 0) == (np.asarray(labels) > 0.5)


@checked_arguments()
def wilson(right: Bool[ndarray, " image"], confidence: float = 0.95) -> Interval:
    """A share in [0, 1] with Wilson's score interval over the images. Raises `ValueError` for no images.

    Source: Wilson 1927.
    """
    count = int(np.size(right))
    if not count:
        raise ValueError("no images, expected at least one to give a share of")
    test = binomtest(int(np.sum(right)), count)
    low, high = test.proportion_ci(confidence, method="wilson")
    return Interval(float(test.statistic), float(low), float(high))


@checked_arguments()
def score_classes(
    logits: Float[ndarray, "image target"],
    labels: Float[ndarray, "image target"],
    targets: Sequence[str] = TARGETS,
) -> pd.DataFrame:
    """One row per target: target, accuracy, low, high (Wilson, 95 %), cross_entropy (nats), images.

    Errors as in `cross_entropies`.
    """
    losses = cross_entropies(torch.as_tensor(logits), torch.as_tensor(labels))
    right = told_right(logits, labels)
    shares = [wilson(right[:, place]) for place in range(len(targets))]
    return pd.DataFrame(
        {
            "target": list(targets),
            "accuracy": [share.value for share in shares],
            "low": [share.low for share in shares],
            "high": [share.high for share in shares],
            "cross_entropy": losses.mean(0),
            "images": len(losses),
        }
    )


def _check_targets(
    targets: Mapping[str, object] | Sequence[str],
    predictions: Float[ndarray, "image target"],
    labels: Float[ndarray, "image target"],
) -> None:
    if predictions.shape != labels.shape or predictions.shape[1] != len(targets):
        raise ValueError(
            f"predictions have shape {predictions.shape} and labels {labels.shape}, expected both "
            f"[image, {len(targets)}]: one column for each of {', '.join(targets)}; name others by targets="
        )


def held_out_losses(reading: Mapping[str, Float[ndarray, "image target"]]) -> Float[ndarray, "image target"]:
    """The squared errors of the whole model on the held-out set: of its `predictions` and the `labels`.

    Effects are percentages of their mean, never of the loss of the few images at hand.
    """
    return (reading["predictions"].astype(float) - reading["labels"].astype(float)) ** 2
