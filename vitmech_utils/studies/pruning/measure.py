"""Compare models that lost heads with the one that did not: error on the same images, and time in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils import tasks
from vitmech_utils.heads.costs import latency
from vitmech_utils.heads.hooks import Head, check_layer
from vitmech_utils.heads.pruning import prune_heads
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.statistics import Interval, correlation, effect_intervals, effect_sizes, mean_interval
from vitmech_utils.tasks import Loss, Task

COMPILED_FROM = 10
"""Repeats from which on compiled models are timed too: compiling takes longer than a few passes ever save."""
STANDARDIZED = tasks.squared_error(chance=1.0)
"""Squared error on standardized labels, of which a model that always predicts the mean has an MSE of 1."""


def trials(
    predictions: Mapping[str, Float[ndarray, "image ..."]],
    labels: ndarray,
    baseline: str,
    bootstrap: int = 2000,
    seed: int = 0,
    task: Task | str | Loss | None = None,
) -> pd.DataFrame:
    """Tabulate models by their predictions of the same images.

    `task` as in `tasks.find`; without one, labels that are numbers mean squared error. Returns one row per model: name,
    mse (or loss), effect (its change from the model `baseline`, in percent or in the task's unit), low, high (paired
    bootstrap over images), for each target T its loss_T or, of squared errors, r_T, r_low_T, r_high_T (Pearson's r and
    its Fisher interval), and images. Raises `ValueError` where the baseline is missing, a model predicts other images,
    or predictions and labels do not fit.
    """
    if baseline not in predictions:
        raise ValueError(
            f"baseline {baseline!r} has no predictions, expected one of {sorted(predictions)}: predict with it too"
        )
    expected = predictions[baseline].shape
    other = [name for name, found in predictions.items() if found.shape != expected]
    if other or len(labels) != expected[0]:
        name = other[0] if other else baseline
        raise ValueError(
            f"{name!r} predicts an array of shape {predictions[name].shape}, expected "
            f"{(len(labels), *expected[1:])}: predict the same images with every model"
        )
    judge = _fitted(task, predictions[baseline], labels)
    losses = {name: _losses(judge, found, labels) for name, found in predictions.items()}
    every, whole = np.stack([found.mean(1) for found in losses.values()]), losses[baseline].mean(1)
    low, high = effect_intervals(every, whole, bootstrap, seed=seed, relative=judge.relative)
    effect = effect_sizes(every, whole, judge.relative)
    rows = []
    for place, (name, found) in enumerate(predictions.items()):
        row = {"name": name, judge.column: every[place].mean()}
        row |= {"effect": effect[place], "low": low[place], "high": high[place]}
        for number, target in enumerate(judge.targets):
            if judge.unit == "MSE" and found.ndim == 2:
                r = correlation(found[:, number], labels.reshape(len(labels), -1)[:, number])
                row |= {f"r_{target}": r.value, f"r_low_{target}": r.low, f"r_high_{target}": r.high}
            else:
                row[f"{judge.column}_{target}"] = losses[name][:, number].mean()
        rows.append(row | {"images": len(labels)})
    return pd.DataFrame(rows)


def loss_change(
    predicted: Float[ndarray, "image ..."],
    baseline: Float[ndarray, "image ..."],
    labels: ndarray,
    bootstrap: int = 2000,
    seed: int = 0,
    task: Task | str | Loss | None = None,
) -> Interval:
    """By how much the loss of the same images grows from one model's predictions to another's, in its own unit.

    Other than a percentage it can be held against that of other images, on which the baseline's loss is another one.
    The interval is a paired bootstrap over images; `task` as in `trials`.
    """
    judge = _fitted(task, baseline, labels)
    change = _losses(judge, predicted, labels) - _losses(judge, baseline, labels)
    return mean_interval(change.mean(1), bootstrap, seed=seed)


def well_fitted(
    predicted: Float[ndarray, "image ..."], labels: ndarray, task: Task | str | Loss = STANDARDIZED
) -> Bool[ndarray, " image"]:
    """The images that a model reads: its loss, over the targets, is below that of a guess (`task.chance`).

    The others hold most of the loss however few they are. Where they are no exception, but half of the images or more,
    no image is left out. Raises `ValueError` for a task that tells no chance.
    """
    judge = _fitted(task, predicted, labels)
    if judge.chance is None:
        raise ValueError(
            f"the task {judge.name!r} does not tell the loss of a guess, expected one with `chance`"
        )
    read = _losses(judge, predicted, labels).mean(1) < judge.chance
    return read if 2 * read.sum() > len(read) else np.ones_like(read)


def _fitted(task: Task | str | Loss | None, predicted: ndarray, labels: ndarray) -> Task:
    truth = torch.as_tensor(labels)
    return tasks.find(task, labels=truth).fitted(torch.as_tensor(predicted), truth)


def _losses(task: Task, predicted: ndarray, labels: ndarray) -> Float[ndarray, "image target"]:
    return task(torch.as_tensor(predicted), torch.as_tensor(labels)).numpy()


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
