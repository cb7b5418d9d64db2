"""The effect of every single head on the task, exactly: ablate, predict, compare on the same images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitmech_utils.arguments import check_table, checked_arguments
from vitmech_utils.heads.constants import Reference
from vitmech_utils.heads.effects import Losses, effects, losses_of
from vitmech_utils.heads.first_order import first_order
from vitmech_utils.heads.hooks import Head, check_layer
from vitmech_utils.heads.published_code import published_procedure
from vitmech_utils.heads.replacements import check_mode, check_model, check_shape, evaluating, verify
from vitmech_utils.heads.sets import (
    HeadPredictions,
    every_test,
    losses_for,
    predict_tests,
    singles,
    task_of,
)
from vitmech_utils.model.anatomy import Anatomy
from vitmech_utils.statistics import check_settings, rank_correlation
from vitmech_utils.tasks import Loss, Task

__all__ = [
    "HeadPredictions", "agreement", "effects", "first_order", "losses_without_heads", "predict_without_heads", "sweep",
]  # fmt: skip


@checked_arguments(least={"batch": 1})
def sweep(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    labels: Tensor | None,
    mode: str = "mean",
    task: Task | str | Loss | None = None,
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    reference: Reference | None = None,
    donors: Tensor | None = None,
    batch: int = 32,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Ablate every head by itself and tabulate its effect on the loss.

    `model` returns a tensor (or an output with `logits`), its LoRA adapters merged; `labels` [image, ...] are what
    `task` asks for (`tasks.find`; by default the model's own). `mode` is `zero`, `mean` (over `reference`), `resample`
    (from `donors`), `qkv-weights` or `published-code`. `layers` and `heads` (0-based) limit the sweep; heads that were
    pruned have no rows. `batch` bounds the (head, image) pairs held at once, hence the memory: losses are computed
    batch by batch, and no outputs are kept (but in mode `published-code`).

    Returns one row per head: layer, head (0-based), mode, images, the loss without it and baseline_ with all (`mse`,
    `baseline_mse` for a squared error, else `loss`, `baseline_loss`), effect (positive where the loss grows without the
    head; percent of the baseline, or in the task's unit), low, high (paired bootstrap over images), p_value (paired
    sign-flip test), q_value (Benjamini-Hochberg over the rows), and loss, baseline, effect, low and high once more for
    each target T, with `_T` after their names.

    Raises, before any sweeping: `ValueError` (empty or mismatched images, outputs and labels that do not fit the task,
    values or predictions that are not finite, unknown mode or task, unmerged adapter), `IndexError` (layer or head),
    `AnatomyError`.
    """
    check_settings(bootstrap, confidence)
    found = losses_without_heads(
        model, pixel_values, labels, mode, task,
        layers=layers, heads=heads, reference=reference, donors=donors, batch=batch, seed=seed,
    )  # fmt: skip
    return found.table(bootstrap, confidence, seed)


@checked_arguments(least={"batch": 1})
def losses_without_heads(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    labels: Tensor | None,
    mode: str = "mean",
    task: Task | str | Loss | None = None,
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    reference: Reference | None = None,
    donors: Tensor | None = None,
    batch: int = 32,
    seed: int = 0,
    replay: bool = True,
) -> Losses:
    """The loss of every image without each of the heads, which `sweep` tabulates; arguments and errors as there."""
    anatomy = check_model(model)
    keep = losses_for(model, pixel_values, labels, task)
    if mode == "published-code":
        found = predict_without_heads(model, pixel_values, mode, layers=layers, heads=heads, batch=batch)
        return found.losses(labels, keep.task)
    chosen = chosen_heads(anatomy, layers, heads)
    tests = every_test(singles(chosen), len(pixel_values))
    baseline, outcome, _ = predict_tests(
        model, pixel_values, tests, mode,
        reference=reference, donors=donors, batch=batch, seed=seed, replay=replay, keep=keep, anatomy=anatomy,
    )  # fmt: skip
    without = outcome.unflatten(0, (len(chosen), len(pixel_values)))
    return losses_of(keep.task, without, baseline, tuple(singles(chosen)), mode)


@checked_arguments(least={"batch": 1})
def predict_without_heads(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    mode: str = "mean",
    *,
    task: Task | str | Loss | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    reference: Reference | None = None,
    donors: Tensor | None = None,
    batch: int = 32,
    seed: int = 0,
    replay: bool = True,
) -> HeadPredictions:
    """Predict every image without each of the heads; arguments and errors as in `sweep`.

    `replay=False` runs full passes through plain hooks: the slow reference, which is also taken where a model cannot be
    resumed at its blocks. `task`, by default the model's own, is what `effects` judges the predictions by. Raises
    `ValueError` for outputs too large to be kept: `losses_without_heads` keeps none.
    """
    anatomy = check_model(model)
    check_mode(mode, pixel_values, donors, reference)
    chosen = chosen_heads(anatomy, layers, heads)
    tests = every_test(singles(chosen), len(pixel_values))
    layer, head = (np.array(column, dtype=np.int64) for column in zip(*chosen, strict=True))
    if mode == "published-code":
        check_shape(pixel_values)
        if batch < 1:
            raise ValueError(f"batch is {batch}, expected at least 1 image")
        verify(model, pixel_values)
        with evaluating(model), torch.inference_mode():
            baseline, every = published_procedure(model, pixel_values, batch)
        ablated, method = torch.stack([every[pair] for pair in chosen]), "published-code"
    else:
        baseline, outcome, method = predict_tests(
            model, pixel_values, tests, mode,
            reference=reference, donors=donors, batch=batch, seed=seed, replay=replay, anatomy=anatomy,
        )  # fmt: skip
        ablated = outcome.unflatten(0, (len(chosen), len(pixel_values)))
    return HeadPredictions(baseline, ablated, layer, head, mode, method, **task_of(model, task))


@checked_arguments()
def chosen_heads(
    anatomy: Anatomy, layers: Sequence[int] | None = None, heads: Sequence[int] | None = None
) -> list[Head]:
    """Every (layer, head), 0-based, of these layers and heads (default: all) that was not pruned; at least one.

    Raises `IndexError` for a layer or head out of range, `ValueError` where nothing is left.
    """
    chosen_layers = [
        check_layer(anatomy, layer) for layer in (range(anatomy.layers) if layers is None else layers)
    ]
    numbers = list(range(anatomy.heads) if heads is None else heads)
    for head in numbers:
        if not 0 <= head < anatomy.heads:
            raise IndexError(f"head {head} does not exist: this model has heads 0 to {anatomy.heads - 1}")
    kept = set(anatomy.pairs)
    tests = [(layer, head) for layer in chosen_layers for head in numbers if (layer, head) in kept]
    if not tests:
        raise ValueError(
            "no head to ablate: layers and heads need at least one number each, or None for all, and must name "
            "heads that were not pruned"
        )
    return tests


@checked_arguments()
def agreement(table: pd.DataFrame, bootstrap: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Rank correlation of the heads' effects between each two modes of one or more joined sweeps.

    Returns first, second (mode), correlation (Spearman, -1 to 1), low, high (bootstrap over heads), heads.
    """
    check_table("table", table, ("layer", "head", "mode", "effect"), key=("layer", "head", "mode"))
    check_table("table", table, (), finite=("effect",))
    wide = table.pivot(index=["layer", "head"], columns="mode", values="effect").dropna()
    modes = [mode for mode in table["mode"].unique() if mode in wide]
    rows = []
    for i, first in enumerate(modes):
        for second in modes[i + 1 :]:
            found = rank_correlation(wide[first].to_numpy(), wide[second].to_numpy(), bootstrap, seed=seed)
            rows.append((first, second, found.value, found.low, found.high, len(wide)))
    return pd.DataFrame(rows, columns=["first", "second", "correlation", "low", "high", "heads"])
