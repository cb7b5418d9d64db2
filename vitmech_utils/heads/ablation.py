"""The effect of every single head on the task, exactly: ablate, predict, compare on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils.data.chirps import LABEL_NAMES
from vitmech_utils.heads.first_order import first_order
from vitmech_utils.heads.hooks import change_heads, check_layer
from vitmech_utils.heads.published_code import published_procedure
from vitmech_utils.heads.replacements import (
    check_images,
    check_mode,
    check_model,
    evaluating,
    replacement,
)
from vitmech_utils.heads.replay import Replay, can_replay, predict
from vitmech_utils.model.anatomy import Anatomy
from vitmech_utils.statistics import (
    adjust,
    check_settings,
    effect_intervals,
    paired_p_values,
    percent_effect,
    rank_correlation,
)

__all__ = ["HeadPredictions", "agreement", "effects", "first_order", "predict_without_heads", "sweep"]


@dataclass(frozen=True)
class HeadPredictions:
    """Predictions with every head in place and with each one ablated, on the same images.

    `ablated[i]` belongs to layer `layers[i]` and head `heads[i]` (0-based). `method` tells how they were
    computed: `replay` (prefix once, suffix alone), `hook` (one full pass per head), `published-code`, or `linearized`
    (to first order, `heads.linearized`).
    """

    baseline: Float[Tensor, "image target"]
    ablated: Float[Tensor, "test image target"]
    layers: Int[ndarray, " test"]
    heads: Int[ndarray, " test"]
    mode: str
    method: str


def sweep(
    model: nn.Module,
    pixel_values: Float[Tensor, "image 3 height width"],
    labels: Float[Tensor, "label target"],
    mode: str = "mean",
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    reference: Tensor | None = None,
    donors: Tensor | None = None,
    targets: Sequence[str] = LABEL_NAMES,
    batch: int = 32,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Ablate every head by itself and tabulate its effect on the mean squared error.

    `model` returns standardized predictions (or an output with `logits`), its LoRA adapters merged; `labels`
    are standardized too. `mode` is `zero`, `mean` (over `reference`), `resample` (from `donors`),
    `qkv-weights` or `published-code`. `layers` and `heads` (0-based) limit the sweep; heads that
    were pruned have no rows. `batch` bounds the
    (head, image) pairs held at once, hence the memory.

    Returns one row per head: layer, head (0-based), mode, images, mse, baseline_mse, effect (percent of
    the baseline, positive where the error grows without the head), low, high (paired bootstrap over images),
    p_value (paired sign-flip test), q_value (Benjamini-Hochberg over the rows), and mse_T, baseline_mse_T,
    effect_T, low_T, high_T for each target T.

    Raises, before any sweeping: `ValueError` (empty or mismatched images, values or predictions that are not
    finite, unknown mode, unmerged adapter), `IndexError` (layer or head), `AnatomyError`.
    """
    check_settings(bootstrap, confidence)
    check_model(model)
    check_images(pixel_values, labels, len(targets))
    predictions = predict_without_heads(
        model, pixel_values, mode,
        layers=layers, heads=heads, reference=reference, donors=donors, batch=batch, seed=seed,
    )  # fmt: skip
    return effects(predictions, labels, targets, bootstrap, confidence, seed)


def predict_without_heads(
    model: nn.Module,
    pixel_values: Float[Tensor, "image 3 height width"],
    mode: str = "mean",
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    reference: Tensor | None = None,
    donors: Tensor | None = None,
    batch: int = 32,
    seed: int = 0,
    replay: bool = True,
) -> HeadPredictions:
    """Predict every image without each of the heads; arguments and errors as in `sweep`.

    `replay=False` runs one full pass per head through a plain hook: the slow reference, which is also taken
    where a model cannot be resumed at its blocks.
    """
    anatomy = check_model(model)
    check_mode(mode, pixel_values, donors, reference)
    if batch < 1:
        raise ValueError(f"batch is {batch}, expected at least 1 (head, image) pair")
    tests = chosen_heads(anatomy, layers, heads)
    layer_index, head_index = (np.array(column, dtype=np.int64) for column in zip(*tests, strict=True))
    with evaluating(model), torch.inference_mode():
        if mode == "published-code":
            baseline, every = published_procedure(model, pixel_values, batch)
            ablated = torch.stack([every[layer, head] for layer, head in tests])
            return HeadPredictions(baseline, ablated, layer_index, head_index, mode, "published-code")
        new = replacement(
            model, anatomy, pixel_values, mode, reference=reference, donors=donors, batch=batch, seed=seed
        )
        group = max(1, batch // len(np.unique(head_index)))
        replay = replay and can_replay(model, anatomy, _on_model(model, pixel_values[:1]))
        baselines, parts = [], []
        for start in range(0, len(pixel_values), group):
            images = _on_model(model, pixel_values[start : start + group])
            new_heads = new(start, start + len(images))
            run = _replayed if replay else _hooked
            baseline, part = run(model, anatomy, images, new_heads, tests, batch)
            baselines.append(_finite(baseline, start))
            parts.append(part)
    return HeadPredictions(
        torch.cat(baselines),
        torch.cat(parts, 1),
        layer_index,
        head_index,
        mode,
        "replay" if replay else "hook",
    )


def chosen_heads(
    anatomy: Anatomy, layers: Sequence[int] | None = None, heads: Sequence[int] | None = None
) -> list[tuple[int, int]]:
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


def effects(
    predictions: HeadPredictions,
    labels: Float[Tensor, "image target"],
    targets: Sequence[str] = LABEL_NAMES,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Tabulate effects with intervals and p-values from predictions; columns as in `sweep`."""
    truth = labels.cpu().double()
    before = (predictions.baseline - truth).square().numpy()
    after = (predictions.ablated - truth).square().numpy()
    low, high = effect_intervals(after.mean(2), before.mean(1), bootstrap, confidence, seed)
    p_values = paired_p_values(after.mean(2) - before.mean(1), bootstrap, seed)
    columns = {
        "layer": predictions.layers,
        "head": predictions.heads,
        "mode": predictions.mode,
        "images": len(truth),
        "mse": after.mean((1, 2)),
        "baseline_mse": before.mean(),
        "effect": percent_effect(after.mean(2), before.mean(1)),
        "low": low,
        "high": high,
        "p_value": p_values,
        "q_value": adjust(p_values),
    }
    for index, target in enumerate(targets):
        low, high = effect_intervals(after[..., index], before[:, index], bootstrap, confidence, seed)
        columns |= {
            f"mse_{target}": after[..., index].mean(1),
            f"baseline_mse_{target}": before[:, index].mean(),
            f"effect_{target}": percent_effect(after[..., index], before[:, index]),
            f"low_{target}": low,
            f"high_{target}": high,
        }
    return pd.DataFrame(columns)


def agreement(table: pd.DataFrame, bootstrap: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Rank correlation of the heads' effects between each two modes of one or more joined sweeps.

    Returns first, second (mode), correlation (Spearman, -1 to 1), low, high (bootstrap over heads), heads.
    """
    wide = table.pivot(index=["layer", "head"], columns="mode", values="effect").dropna()
    modes = [mode for mode in table["mode"].unique() if mode in wide]
    rows = []
    for i, first in enumerate(modes):
        for second in modes[i + 1 :]:
            found = rank_correlation(wide[first].to_numpy(), wide[second].to_numpy(), bootstrap, seed=seed)
            rows.append((first, second, found.value, found.low, found.high, len(wide)))
    return pd.DataFrame(rows, columns=["first", "second", "correlation", "low", "high", "heads"])


def _replayed(
    model: nn.Module, anatomy: Anatomy, images: Tensor, new: list[Tensor], tests: list, batch: int
) -> tuple[Tensor, Tensor]:
    run = Replay(model, anatomy, images)
    count = len(images)
    ablated = torch.empty(len(tests), *run.predictions.shape, dtype=torch.float64)
    pairs = [(test, image) for test in range(len(tests)) for image in range(count)]
    by_layer: dict[int, list[tuple[int, int]]] = {}
    for test, image in pairs:
        by_layer.setdefault(tests[test][0], []).append((test, image))
    for layer, members in by_layer.items():
        difference = new[layer] - run.heads[layer]
        # Each head's columns of the output projection: [head, size, hidden].
        block, numbers = anatomy.blocks[layer], anatomy.blocks[layer].numbers
        columns = numbers.spread(block.output.weight.T.unflatten(0, (len(numbers.kept), numbers.size)), 0)
        for start in range(0, len(members), batch):
            part = members[start : start + batch]
            image = torch.tensor([i for _, i in part], device=images.device)
            head = torch.tensor([tests[t][1] for t, _ in part], device=images.device)
            change = torch.bmm(difference[image, :, head], columns[head])
            outcome = run.resume(layer, image, change).cpu().double()
            for row, (test, member) in enumerate(part):
                ablated[test, member] = outcome[row]
    return run.predictions, ablated


def _hooked(
    model: nn.Module, anatomy: Anatomy, images: Tensor, new: list[Tensor], tests: list, batch: int
) -> tuple[Tensor, Tensor]:
    baseline = predict(model, images)
    ablated = []
    for layer, head in tests:
        with change_heads(model, {(layer, head): new[layer][:, :, head]}):
            ablated.append(predict(model, images).cpu().double())
    return baseline, torch.stack(ablated)


def _finite(baseline: Tensor, start: int) -> Tensor:
    broken = (~torch.isfinite(baseline)).any(1).nonzero().flatten().tolist()
    if broken:
        raise ValueError(
            f"the unchanged model's predictions are not finite for image(s) {[start + i for i in broken][:5]}; "
            "check its weights, or run it in float32"
        )
    return baseline.cpu().double()


def _on_model(model: nn.Module, images: Tensor) -> Tensor:
    weight = next(model.parameters())
    return images.to(device=weight.device, dtype=weight.dtype)
