"""What a chirp regressor predicts on a data set, and how well: Pearson's r, MSE, and the error in seconds and hertz."""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch.utils.data import DataLoader, Dataset

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.chirps import LABEL_NAMES, LABEL_STD, LABEL_UNITS
from vitmech_utils.model.regressor import ChirpRegressor


@checked_arguments()
def predict(
    regressor: ChirpRegressor, images: Dataset, batch_size: int = 32
) -> tuple[Float[np.ndarray, "image 3"], Float[np.ndarray, "image 3"]]:
    """Standardized predictions and labels of a data set, in its order, on the regressor's own device."""
    predictions, labels = [], []
    with torch.inference_mode():
        for batch in DataLoader(images, batch_size=batch_size):
            predictions.append(
                regressor(batch["pixel_values"].to(regressor.device)).logits.float().cpu().numpy()
            )
            labels.append(batch["labels"].numpy())
    return np.concatenate(predictions), np.concatenate(labels)


@checked_arguments()
def correlations(
    predictions: Float[np.ndarray, "image 3"], labels: Float[np.ndarray, "image 3"]
) -> dict[str, float]:
    """Pearson r per target, keyed `r_<target>`; a constant prediction has none and counts as 0."""
    result = {}
    for i, name in enumerate(LABEL_NAMES):
        constant = np.ptp(predictions[:, i]) == 0
        result[f"r_{name}"] = 0.0 if constant else float(np.corrcoef(predictions[:, i], labels[:, i])[0, 1])
    return result


@checked_arguments()
def score(
    predictions: Float[np.ndarray, "image 3"], labels: Float[np.ndarray, "image 3"], confidence: float = 0.95
) -> pd.DataFrame:
    """One row per target: Pearson r with its Fisher interval, standardized MSE, RMSE in seconds or hertz, images."""
    from scipy.stats import pearsonr

    rows = []
    for i, name in enumerate(LABEL_NAMES):
        fit = pearsonr(predictions[:, i], labels[:, i])
        interval = fit.confidence_interval(confidence)
        mse = float(np.mean((predictions[:, i] - labels[:, i]) ** 2))
        rows.append(
            {
                "target": name,
                "r": float(fit.statistic),
                "low": float(interval.low),
                "high": float(interval.high),
                "mse": mse,
                "rmse": float(np.sqrt(mse) * LABEL_STD[i]),
                "unit": LABEL_UNITS[i],
                "images": len(labels),
            }
        )
    return pd.DataFrame(rows)
