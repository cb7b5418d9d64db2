"""Compare models that lost heads with the one that did not: error on the same images, and time in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils.heads.costs import latency
from vitmech_utils.heads.hooks import Head, check_layer
from vitmech_utils.heads.pruning import prune_heads
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.model.scores import score
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


def well_fitted(
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


def pareto_front(
    seconds: Float[ndarray, " model"], error: Float[ndarray, " model"]
) -> Bool[ndarray, " model"]:
    """Which models no other one beats: none is as fast and as exact as they are, and better in one of the two."""
    no_slower = seconds[:, None] <= seconds[None]
    no_worse = error[:, None] <= error[None]
    better = (seconds[:, None] < seconds[None]) | (error[:, None] < error[None])
    return ~(no_slower & no_worse & better).any(0)


def of_layers(model: nn.Module, layers: Iterable[int]) -> set[Head]:
    """All heads that `model` has in these layers (0-based). Raises `IndexError` for a layer that does not exist."""
    anatomy = find_blocks(model)
    wanted = {check_layer(anatomy, layer) for layer in layers}
    return {pair for pair in anatomy.pairs if pair[0] in wanted}


def least_effect(table: pd.DataFrame, count: int, magnitude: bool = False) -> set[Head]:
    """The `count` heads of least `effect` in a table of `sweep` (exact) or `first_order` (estimated).

    Effects are signed: heads whose removal lowers the error go first. With `magnitude`, those that change it least
    either way (Michel et al. 2019 rank by it). Equal effects go by layer, then head. Raises `ValueError` for a count
    that the table cannot give, a head with several rows, or an effect that is not a number.
    """
    _check_count(count, len(table))
    if table.duplicated(["layer", "head"]).any():
        raise ValueError(
            "a head has several rows in this table, expected one mode of one sweep: filter it first"
        )
    if not np.isfinite(table["effect"]).all():
        raise ValueError("some effects are not finite, expected percent: rank heads by a complete sweep")
    keys = pd.DataFrame({"layer": table["layer"], "head": table["head"]})
    keys["effect"] = table["effect"].abs() if magnitude else table["effect"]
    first = keys.sort_values(["effect", "layer", "head"]).head(count)
    return {(int(layer), int(head)) for layer, head in zip(first["layer"], first["head"], strict=True)}


def at_random(model: nn.Module, count: int, draws: int, rng: np.random.Generator) -> list[set[Head]]:
    """`draws` random sets of `count` heads of `model`, each head of a set drawn once, all alike likely."""
    pairs = find_blocks(model).pairs
    _check_count(count, len(pairs))
    return [{pairs[place] for place in rng.choice(len(pairs), count, replace=False)} for _ in range(draws)]


def in_rounds(
    model: nn.Module,
    count: int,
    rounds: int,
    rank: Callable[[nn.Module], pd.DataFrame],
    magnitude: bool = False,
) -> set[Head]:
    """`count` heads chosen in `rounds` rounds, the heads that are left ranked anew after each removal.

    `rank` tabulates the effects of the heads of the pruned model that it is given, for instance
    `lambda pruned: first_order(pruned, pixel_values, labels)`. Rounds differ in size by one head at most; one round
    is `least_effect`. Heads that stand in for each other part the two ways: only the rounds notice that the last of
    them must stay. Raises `ValueError` for more rounds than heads, else as `least_effect`.
    """
    _check_count(count, len(find_blocks(model).pairs))
    if not 1 <= rounds <= count:
        raise ValueError(f"rounds is {rounds}, expected between 1 and the {count} heads that are to go")
    chosen: set[Head] = set()
    for step in np.array_split(np.arange(count), rounds):
        chosen |= least_effect(rank(prune_heads(model, chosen)), len(step), magnitude)
    return chosen


def _check_count(count: int, available: int) -> None:
    if not 1 <= count < available:
        raise ValueError(
            f"count is {count}, expected between 1 and {available - 1}: of {available} heads one must stay"
        )
