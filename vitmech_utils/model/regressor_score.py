"""What a chirp regressor predicts on a data set, and how well: Pearson's r, MSE, and the error in seconds and hertz."""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch.utils.data import DataLoader, Dataset

from vitmech_utils.data.chirps import LABEL_NAMES, LABEL_STD, LABEL_UNITS
from vitmech_utils.devices import drawing_workers
from vitmech_utils.model.regressor import ChirpRegressor

UNREAD = 0.1
"""An image whose squared error, averaged over the targets, is more than this is unread; always guessing costs 1."""


def predict(
    regressor: ChirpRegressor, images: Dataset, batch_size: int = 32, workers: int | None = None
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


def correlations(
    predictions: Float[np.ndarray, "image 3"], labels: Float[np.ndarray, "image 3"]
) -> dict[str, float]:
    """Pearson r per target, keyed `r_<target>`; a constant prediction has none and counts as 0."""
    result = {}
    for i, name in enumerate(LABEL_NAMES):
        constant = np.ptp(predictions[:, i]) == 0
        result[f"r_{name}"] = 0.0 if constant else float(np.corrcoef(predictions[:, i], labels[:, i])[0, 1])
    return result


def unread(
    predictions: Float[np.ndarray, "image 3"], labels: Float[np.ndarray, "image 3"]
) -> Bool[np.ndarray, " image"]:
    """Which images are not read: squared error, averaged over the targets, above `UNREAD`."""
    return ((predictions.astype(np.float64) - labels) ** 2).mean(1) > UNREAD


def correlation_draws(
    predictions: Float[np.ndarray, "image 3"], labels: Float[np.ndarray, "image 3"], draws: int, seed: int = 0
) -> Float[np.ndarray, "draw 3"]:
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


def score(
    predictions: Float[np.ndarray, "image 3"],
    labels: Float[np.ndarray, "image 3"],
    confidence: float = 0.95,
    bootstrap: int = 0,
) -> pd.DataFrame:
    """One row per target: Pearson r with its interval, standardized MSE, RMSE in seconds or hertz, images.

    The interval is Fisher's, which takes labels and errors for normal, or with `bootstrap` draws of the images the
    percentile one, which a few unread images make as wide as it is.
    """
    from scipy.stats import pearsonr

    tails = (1 - confidence) / 2, (1 + confidence) / 2
    drawn = correlation_draws(predictions, labels, bootstrap) if bootstrap else None
    rows = []
    for i, name in enumerate(LABEL_NAMES):
        fit = pearsonr(predictions[:, i], labels[:, i])
        fisher = fit.confidence_interval(confidence)
        low, high = (fisher.low, fisher.high) if drawn is None else np.nanquantile(drawn[:, i], tails)
        mse = float(np.mean((predictions[:, i] - labels[:, i]) ** 2))
        rows.append(
            {
                "target": name,
                "r": float(fit.statistic),
                "low": float(low),
                "high": float(high),
                "mse": mse,
                "rmse": float(np.sqrt(mse) * LABEL_STD[i]),
                "unit": LABEL_UNITS[i],
                "images": len(labels),
            }
        )
    return pd.DataFrame(rows)
