"""What the published procedure does to a model, step by step, and what each step does to its outcome."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.dataset import unstandardize
from vitmech_utils.heads import published_code as published
from vitmech_utils.heads.attention import attention_maps
from vitmech_utils.heads.changes import baseline_loss, mean_changes
from vitmech_utils.heads.hooks import capture_heads
from vitmech_utils.heads.replacements import constant_output
from vitmech_utils.intervals import joint_interval, mean_interval
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.model.scores import held_out_losses
from vitmech_utils.statistics import Interval, rank_correlation, spearman

NOISE = 1e-4
"""By how much predictions may differ from one batch size to another."""
QUERIES: dict[str, str | int] = {"CLS": "cls", "corner patch": 0, "mean of patches": "patches"}
"""Whose attention can be drawn: what the regression head reads, what the published overlay shows, and all patches'."""

Predictions = Float[Tensor, "*scenario image target"]


@checked_arguments()
@torch.inference_mode()
def predictions(
    model: nn.Module, pixel_values: Float[Tensor, "image 3 height width"], batch: int = 16
) -> Float[Tensor, "image target"]:
    """Standardized predictions, float64 on the processor."""
    device = next(model.parameters()).device
    return torch.cat([model(part.to(device)).logits.double().cpu() for part in pixel_values.split(batch)])


@checked_arguments()
def zeroed_rows(model: nn.Module, layer: int = 0) -> list[int]:
    """The rows of a layer's query weight that are zero when the procedure has gone through all its 'heads'."""
    block = find_blocks(copy.deepcopy(model)).blocks[layer]
    before = block.query.weight.detach().clone()
    for number in range(find_blocks(model).heads):
        published.zero_rows(block, number)
    return (block.query.weight != before).any(1).nonzero().flatten().tolist()


# What is put back


@checked_arguments()
def moved(change: Predictions) -> bool:
    """True if any prediction differs by more than the noise of another batch size."""
    return bool((change.abs() > NOISE).any())


@checked_arguments()
def layer_orders(layers: int) -> dict[str, list[int]]:
    """The order in which the procedure visits the layers, and two others."""
    order = np.arange(layers)
    return {
        "published": order.tolist(),
        "reversed": order[::-1].tolist(),
        "random": np.random.default_rng(0).permutation(order).tolist(),
    }


@checked_arguments()
def other_orders(
    model: nn.Module,
    pixel_values: Float[Tensor, "image 3 height width"],
    batch: int,
    orders: Mapping[str, Sequence[int]],
) -> dict[str, Float[Tensor, "layer head image target"]]:
    """The scenarios' predictions in every order but the published one."""
    return {
        name: published.published_procedure(model, pixel_values, batch, order=list(order))[1]
        for name, order in orders.items()
        if name != "published"
    }


@checked_arguments()
def whole_loss(reading: Mapping[str, Float[ndarray, "image target"]]) -> Interval:
    """The model's MSE on the whole held-out set (standardized labels): what this chapter's effects are percent of.

    `reading` holds the set's `predictions` and `labels`, as chapter 02 keeps them; chapter 04 divides by the same.
    """
    return baseline_loss(held_out_losses(reading))


@checked_arguments()
def changes_by_layer(
    scenarios: Mapping[str, Float[Tensor, "layer head image target"]],
    baseline: Float[Tensor, "image target"],
    labels: Float[Tensor, "image target"],
) -> dict[str, Float[ndarray, "layer image"]]:
    """By how much each image's squared error changes in a layer's scenarios, mean over 'heads', in each order."""
    usual = (baseline - labels).square().mean(-1).numpy()
    return {
        name: (found - labels).square().mean(-1).numpy().mean(1) - usual for name, found in scenarios.items()
    }


@checked_arguments()
def drift(
    changes: Mapping[str, Float[ndarray, "layer image"]], whole: Interval, orders: Mapping[str, Sequence[int]]
) -> pd.DataFrame:
    """The outcome by layer in each order: order, layer, its position in the order, effect, low, high, images.

    `changes` are those of `changes_by_layer`; effects are in percent of `whole`, the loss on the held-out set. An error
    cannot fall by more than all of it, so an interval of it ends at -100 %.
    """
    rows = []
    for name, found in changes.items():
        position = np.argsort(orders[name])
        effects, lows, highs = mean_changes(found, whole)
        for layer, (effect, low, high) in enumerate(zip(effects, lows, highs, strict=True)):
            least = max(low, min(effect, -100.0))
            rows.append((name, layer, int(position[layer]), effect, least, high, found.shape[1]))
    return pd.DataFrame(rows, columns=["order", "layer", "position", "effect", "low", "high", "images"])


@checked_arguments()
def follows(
    changes: Mapping[str, Float[ndarray, "layer image"]], orders: Mapping[str, Sequence[int]], bootstrap: int
) -> dict[str, Interval]:
    """Mean rank correlation, over the orders, of the outcome with the `position` in them, and with the `layer`.

    Intervals redraw images, the same for all layers and orders. `closer` is by how much the first, whatever its sign,
    is larger than the second.
    """
    layers = len(next(iter(changes.values())))
    places = {
        "position": [np.argsort(orders[name]) for name in changes],
        "layer": [np.arange(layers)] * len(changes),
    }

    def mean(means: Float[ndarray, "draw row"], key: str) -> Float[ndarray, " draw"]:
        parts = np.split(means, len(changes), axis=1)
        found = [
            spearman(part, np.broadcast_to(place.astype(float), part.shape))
            for part, place in zip(parts, places[key], strict=True)
        ]
        return np.mean(found, axis=0)

    def closer(means: Float[ndarray, "draw row"]) -> Float[ndarray, " draw"]:
        return np.abs(mean(means, "position")) - np.abs(mean(means, "layer"))

    rows = np.concatenate(list(changes.values()))
    found = {
        key: joint_interval(rows, lambda means, key=key: mean(means, key), draws=bootstrap) for key in places
    }
    return found | {"closer": joint_interval(rows, closer, draws=bootstrap)}


@checked_arguments()
def published_heatmap(
    scenarios: Float[Tensor, "layer head image target"],
    baseline: Float[Tensor, "image target"],
    labels: Float[Tensor, "image target"],
    whole: Interval,
) -> pd.DataFrame:
    """The procedure's heatmap as a table: layer, head (0-based; rather a row of head 1), effect, images.

    Effects are in percent of `whole`, the loss on the held-out set, as are those of chapter 04.
    """
    layers, heads, images = scenarios.shape[:3]
    errors = (scenarios - labels).square().mean(-1).numpy().reshape(-1, images)
    usual = (baseline - labels).square().mean(-1).numpy()
    return pd.DataFrame(
        {
            "layer": np.repeat(np.arange(layers), heads),
            "head": np.tile(np.arange(heads), layers),
            "effect": 100 * (errors - usual).mean(1) / whole.value,
            "images": images,
        }
    )


@checked_arguments()
def likeness_of_heatmaps(ours: pd.DataFrame, theirs: pd.DataFrame, bootstrap: int) -> Interval:
    """Rank correlation of two tables of effects, with its interval over heads."""
    both = ours.merge(theirs, on=["layer", "head"], suffixes=("_ours", "_theirs"))
    return rank_correlation(both["effect_ours"].to_numpy(), both["effect_theirs"].to_numpy(), bootstrap)


@checked_arguments()
def likeness_within_layers(ours: pd.DataFrame, theirs: pd.DataFrame, bootstrap: int) -> Interval:
    """The same for the order of heads within their layers, which depth cannot explain."""
    both = ours.merge(theirs, on=["layer", "head"], suffixes=("_ours", "_theirs"))
    ranks = both.groupby("layer")[["effect_ours", "effect_theirs"]].rank(pct=True)
    return rank_correlation(ranks["effect_ours"].to_numpy(), ranks["effect_theirs"].to_numpy(), bootstrap)


# What is loaded, compared and fed


@dataclass(frozen=True)
class Loaded:
    """What the documented loading step leads to: names that match or do not, and the model's predictions."""

    matched: tuple[str, ...]
    unexpected: tuple[str, ...]
    predictions: Float[Tensor, "image target"]

    @property
    def inside(self) -> list[str]:
        """The names that match in the backbone or its adapters."""
        return [name for name in self.matched if not name.startswith("head.")]


@checked_arguments()
def as_documented(
    adapter: Path, backbone: str, pixel_values: Float[Tensor, "image 3 height width"], device: torch.device
) -> Loaded:
    """Load a trained adapter into a fresh model as documented, and predict with it."""
    fresh = ChirpRegressor.build(backbone, seed=1)
    report = published.documented_loading(ChirpRegressor.load(adapter), fresh)
    found = predictions(fresh.merged().to(device), pixel_values)
    return Loaded(report.matched, report.unexpected, found)


@checked_arguments()
def squared_errors(
    predicted: Mapping[str, Float[Tensor, "image target"]],
    labels: Float[Tensor, "image target"],
    bootstrap: int,
) -> dict[str, Interval]:
    """The MSE of several predictions of the same images, with its interval over images."""
    return {
        name: mean_interval((found - labels).square().mean(1).numpy(), bootstrap)
        for name, found in predicted.items()
    }


@checked_arguments()
def table_of(errors: Mapping[str, Interval]) -> pd.DataFrame:
    """The MSE of several models as a table: model, mse, low, high."""
    rows = [(name, found.value, found.low, found.high) for name, found in errors.items()]
    return pd.DataFrame(rows, columns=["model", "mse", "low", "high"])


@checked_arguments()
def in_raw_units(
    predicted: Float[Tensor, "image target"], labels: Float[Tensor, "image target"], bootstrap: int
) -> dict[str, Interval]:
    """The MSE against raw labels of standardized outputs (`mixed`), and of outputs brought back (`proper`)."""
    raw = torch.as_tensor(unstandardize(labels.numpy()))
    mixed = (predicted - raw).square().mean(1).numpy()
    proper = np.square(unstandardize(predicted.numpy()) - raw.numpy()).mean(1)
    return {"mixed": mean_interval(mixed, bootstrap), "proper": mean_interval(proper, bootstrap)}


@checked_arguments()
def normalized(model: nn.Module, pixel_values: Float[Tensor, "image 3 height width"]) -> dict[str, Tensor]:
    """Predictions from pixels as the analysis feeds them, and the ranges of pixels as trained and as analysed."""
    fed = published.imagenet_normalized(pixel_values)
    return {
        "predictions": predictions(model, fed),
        "trained_on": torch.stack([pixel_values.min(), pixel_values.max()]),
        "analysed": torch.stack([fed.min(), fed.max()]),
    }


# Whose attention is drawn, and what zeroed weights leave behind


@checked_arguments()
def views(
    model: nn.Module, pixel_values: Float[Tensor, "image 3 height width"]
) -> dict[str, Float[Tensor, "image layer head row column"]]:
    """Every head's map for each of `QUERIES`."""
    device = next(model.parameters()).device
    return {name: attention_maps(model, pixel_values.to(device), query) for name, query in QUERIES.items()}


@checked_arguments()
def likeness(
    maps: Mapping[str, Float[Tensor, "image layer head row column"]],
) -> dict[str, Float[ndarray, " image"]]:
    """Each image's mean rank correlation with the map of CLS over layers and heads, for every other query."""

    def alike(first: Tensor, second: Tensor) -> float:
        a, b = (found.flatten(-2).flatten(0, 1).double().cpu().numpy() for found in (first, second))
        return np.nanmean(spearman(a, b))  # a map that is constant has no order

    return {
        name: np.array([alike(*both) for both in zip(maps["CLS"], found, strict=True)])
        for name, found in maps.items()
        if name != "CLS"
    }


@checked_arguments()
def over_images(likeness: Mapping[str, Float[ndarray, " image"]], bootstrap: int) -> dict[str, Interval]:
    """The mean of `likeness` with its interval over images, which ends where correlations do."""
    found = {name: mean_interval(values, bootstrap) for name, values in likeness.items()}
    return {name: Interval(one.value, max(one.low, -1.0), min(one.high, 1.0)) for name, one in found.items()}


@checked_arguments()
def bias_is_left(
    model: nn.Module, pixel_values: Float[Tensor, "image 3 height width"], layer: int, head: int
) -> bool:
    """Whether a head without query, key and value weights still says its value bias, at every token of every image."""
    anatomy, twin = find_blocks(model), copy.deepcopy(model)
    block, own = find_blocks(twin).blocks[layer], anatomy.columns(head)
    with torch.no_grad():
        for projection in (block.query, block.key, block.value):
            projection.weight[own] = 0
    with torch.inference_mode(), capture_heads(twin, [layer]) as left:
        twin(pixel_values.to(next(model.parameters()).device))
    bias = constant_output(anatomy.blocks[layer], anatomy)[0, 0, head]
    return torch.allclose(left[layer][:, :, head], bias, atol=NOISE)


@checked_arguments()
def constant_shares(
    model: nn.Module, pixel_values: Float[Tensor, "image 3 height width"]
) -> Float[ndarray, "layer head"]:
    """Length of what a head adds without weights, over the mean length of what it adds with them.

    After the output projection, over tokens and images.
    """
    anatomy = find_blocks(model)
    with torch.inference_mode(), capture_heads(model) as whole:
        model(pixel_values.to(next(model.parameters()).device))
    share = np.empty((anatomy.layers, anatomy.heads))
    for layer, block in enumerate(anatomy.blocks):
        columns = block.output.weight.unflatten(1, (anatomy.heads, anatomy.head_size))
        constant = torch.einsum("ohd,hd->ho", columns, constant_output(block, anatomy)[0, 0]).norm(dim=1)
        written = torch.einsum("ohd,bthd->btho", columns, whole[layer]).norm(dim=-1).mean((0, 1))
        share[layer] = (constant / written.clamp_min(1e-12)).detach().cpu()
    return share
