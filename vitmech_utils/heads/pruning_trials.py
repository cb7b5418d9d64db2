"""Compare models that lost heads with the one that did not: error on the same images, and time in turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils.heads.costs import latency
from vitmech_utils.model.regressor_score import score
from vitmech_utils.statistics import Interval, effect_intervals, mean_interval, percent_effect

COMPILED_FROM = 10
"""Repeats from which on compiled models are timed too: compiling takes longer than a few passes ever save."""
GUESS = 1.0
"""The MSE of a model that always predicts the mean, on standardized labels."""


def trials(
    predictions: Mapping[str, Float[ndarray, "image target"]],
    labels: Float[ndarray, "image target"],
    baseline: str,
    bootstrap: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Tabulate models by their predictions of the same images, standardized like the labels.

    Returns one row per model: name, mse, effect (change of the MSE in percent of the model `baseline`), low, high
    (paired bootstrap over images), r_T, r_low_T, r_high_T for each target T (Pearson's r and its Fisher interval), and
    images. Raises `ValueError` where the baseline is missing or a model predicts other images.
    """
    if baseline not in predictions:
        raise ValueError(
            f"baseline {baseline!r} has no predictions, expected one of {sorted(predictions)}: predict with it too"
        )
    other = [name for name, found in predictions.items() if found.shape != labels.shape]
    if other:
        raise ValueError(
            f"{other[0]!r} predicts an array of shape {predictions[other[0]].shape}, expected {labels.shape} as the "
            "labels have: predict the same images with every model"
        )
    truth = labels.astype(float)
    errors = {name: ((found - truth) ** 2).mean(1) for name, found in predictions.items()}
    every = np.stack(list(errors.values()))
    low, high = effect_intervals(every, errors[baseline], bootstrap, seed=seed)
    effect = percent_effect(every, errors[baseline])
    rows = []
    for place, (name, found) in enumerate(predictions.items()):
        row = {
            "name": name,
            "mse": errors[name].mean(),
            "effect": effect[place],
            "low": low[place],
            "high": high[place],
        }
        for target in score(found, labels).itertuples():
            row |= {
                f"r_{target.target}": target.r,
                f"r_low_{target.target}": target.low,
                f"r_high_{target.target}": target.high,
            }
        rows.append(row | {"images": len(labels)})
    return pd.DataFrame(rows)


def mse_change(
    predicted: Float[ndarray, "image target"],
    baseline: Float[ndarray, "image target"],
    labels: Float[ndarray, "image target"],
    bootstrap: int = 2000,
    seed: int = 0,
) -> Interval:
    """By how much the MSE of the same images grows from one model's predictions to another's, in its own unit.

    Other than a percentage it can be held against that of other images, on which the baseline's MSE is another one.
    The interval is a paired bootstrap over images; all arrays are standardized.
    """
    truth = labels.astype(float)
    return mean_interval(((predicted - truth) ** 2 - (baseline - truth) ** 2).mean(1), bootstrap, seed=seed)


def readable(
    predicted: Float[ndarray, "image target"], labels: Float[ndarray, "image target"]
) -> Bool[ndarray, " image"]:
    """The images that a model reads: its squared error, over the targets, is below that of a guess (`GUESS`).

    The others hold most of the MSE however few they are. Where they are no exception, but half of the images or more,
    no image is left out.
    """
    read = ((predicted - labels.astype(float)) ** 2).mean(1) < GUESS
    return read if 2 * read.sum() > len(read) else np.ones_like(read)


def timings(
    models: Mapping[str, nn.Module],
    pixel_values: Float[Tensor, "image 3 height width"],
    repeats: int,
    *,
    large: Sequence[str],
    compiled: Sequence[str],
    batch: int = 32,
) -> tuple[pd.DataFrame, str]:
    """Time all models image by image, those named `large` in batches too, those named `compiled` once more compiled.

    The models go to the device of `pixel_values`, which are repeated where there are fewer than `batch` of them.
    Returns the rows of `latency` with a column device, and why no compiled model was timed ("" where some were):
    fewer than `COMPILED_FROM` repeats, or a machine that cannot compile.
    """
    images = pixel_values.repeat(-(-batch // len(pixel_values)), 1, 1, 1)[:batch]
    placed = {name: model.to(images.device) for name, model in models.items()}
    parts = [
        latency(placed, images, (1,), repeats),
        latency({name: placed[name] for name in large}, images, (batch,), repeats, warm_up=1),
    ]
    missing = f"compiling takes longer than the {repeats} repeats of this profile could ever gain"
    if repeats >= COMPILED_FROM:
        rows, missing = _compiled({name: placed[name] for name in compiled}, images, (1, batch), repeats)
        parts += rows
    return pd.concat(parts, ignore_index=True).assign(device=images.device.type), missing


def _compiled(
    models: Mapping[str, nn.Module], images: Tensor, batches: Sequence[int], repeats: int
) -> tuple[list[pd.DataFrame], str]:
    """Timings batch by batch, or none and the reason. Torch forgets its work in between: it would keep only eight
    versions of one function, and run others uncompiled without a word."""
    rows = []
    try:
        for batch in batches:
            torch.compiler.reset()
            rows.append(latency(models, images, (batch,), repeats, compiled=True))
    except (RuntimeError, OSError) as error:  # what torch raises where there is no compiler, or an unfit one
        return [], f"this machine cannot compile them ({type(error).__name__}); a C++ compiler is needed"
    finally:
        torch.compiler.reset()
    return rows, ""


def undominated(
    seconds: Float[ndarray, " model"], error: Float[ndarray, " model"]
) -> Bool[ndarray, " model"]:
    """Which models no other one beats: none is as fast and as exact as they are, and better in one of the two."""
    no_slower = seconds[:, None] <= seconds[None]
    no_worse = error[:, None] <= error[None]
    better = (seconds[:, None] < seconds[None]) | (error[:, None] < error[None])
    return ~(no_slower & no_worse & better).any(0)
