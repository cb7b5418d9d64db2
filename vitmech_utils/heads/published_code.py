"""What the study's published analysis code does, retold in plain steps so that each can be looked at.

The steps are those of the PyPI package `vision-mech-interp-attn-head` 0.1.8 (MIT) and its documented use,
in our own words. Chapter 06 runs them; nothing else in the book relies on them but the ablation mode
`published-code`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.replacements import check_linear
from vitmech_utils.heads.replay import Replay, predict
from vitmech_utils.model.anatomy import AttentionBlock, find_blocks

# The statistics by which the analysis normalizes pixels, and which the training never used.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The documented baseline loss of the published analysis.
DOCUMENTED_BASELINE = 2465.65


@checked_arguments()
def zero_rows(block: AttentionBlock, row: int) -> None:
    """Set one row of the query, key and value weights to zero, in place; the biases stay.

    The published code calls the row's index "head". A row is one of a head's `head_size` dimensions.
    """
    with torch.no_grad():
        for projection in (block.key, block.value, block.query):
            projection.weight[row] = 0


@checked_arguments(finite=("pixel_values",), least={"batch": 1})
def literal_procedure(
    model: nn.Module, pixel_values: Float[Tensor, "image ..."], batch: int = 32
) -> tuple[Float[Tensor, "image target"], Float[Tensor, "layer head image target"]]:
    """The published loop, step by step: predict a batch, then zero the row, and never put anything back.

    Changes `model`'s weights: pass a copy. Returns the predictions before, and those of each scenario.
    """
    anatomy = find_blocks(model)
    baseline = torch.cat([predict(model, part) for part in pixel_values.split(batch)])
    scenarios = torch.empty(anatomy.layers, anatomy.heads, *baseline.shape, dtype=torch.float64)
    for layer, block in enumerate(anatomy.blocks):
        for head in range(anatomy.heads):
            predictions = []
            for part in pixel_values.split(batch):
                predictions.append(predict(model, part))
                zero_rows(block, head)
            scenarios[layer, head] = torch.cat(predictions)
    return baseline.cpu().double(), scenarios


@checked_arguments(finite=("pixel_values",), least={"batch": 1})
def published_procedure(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    batch: int = 32,
    order: Sequence[int] | None = None,
) -> tuple[Float[Tensor, "image target"], Float[Tensor, "layer head image target"]]:
    """The outcome of `literal_procedure`, about twice as fast and on a copy: `model` keeps its weights.

    `order` visits the layers (0-based) in another order than the published one; results stay in place:
    `[layer, head]`. While one layer's rows are zeroed the layers before it stand still, so their part of
    the forward pass is run once; each layer begins with the pass that the one before it ended with. The first
    `batch` images of a scenario meet the weights as the scenario before left them, the others the weights with
    this scenario's row zeroed.
    """
    model = copy.deepcopy(model)
    anatomy = find_blocks(model)
    if anatomy.pruned:
        raise ValueError(
            "the published procedure zeroes rows of head 0 and knows no pruned heads: run it on the unpruned model"
        )
    for block in anatomy.blocks:
        check_linear(block, "the published procedure")
    order = range(anatomy.layers) if order is None else order
    if sorted(order) != list(range(anatomy.layers)):
        raise ValueError(f"order is {list(order)}, expected each layer from 0 to {anatomy.layers - 1} once")
    weight = next(model.parameters())
    untouched = [
        [p.weight[: anatomy.heads].clone() for p in (block.query, block.key, block.value)]
        for block in anatomy.blocks
    ]
    baseline, scenarios = [], []
    with torch.inference_mode():
        for start in range(0, len(pixel_values), batch):
            for block, rows in zip(anatomy.blocks, untouched, strict=True):
                _put_back(block, rows)
            part = pixel_values[start : start + batch].to(dtype=weight.dtype, device=weight.device)
            run = Replay(model, anatomy, part)
            baseline.append(run.predictions)
            found = torch.empty(anatomy.layers, anatomy.heads, *run.predictions.shape, dtype=torch.float64)
            for layer in order:
                states = [run.predictions]
                for head in range(anatomy.heads):
                    zero_rows(anatomy.blocks[layer], head)
                    states.append(run.rerun(layer, keep=head == anatomy.heads - 1))
                found[layer] = torch.stack(states[:-1] if start == 0 else states[1:]).cpu().double()
            scenarios.append(found)
    return torch.cat(baseline).cpu().double(), torch.cat(scenarios, dim=2)


@dataclass(frozen=True)
class LoadingReport:
    """What the documented loading step finds: names of weights that match, and that stay without a partner."""

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


@checked_arguments()
def documented_loading(trained: nn.Module, fresh: nn.Module, backbone: str = "backbone") -> LoadingReport:
    """Load `trained`'s weights into `fresh` as documented: rename, then ignore whatever does not match.

    Both carry LoRA adapters, so their backbone's weights are named `<backbone>.base_model.model.*`. The
    documented step takes `base_model.model.` out of the saved names and loads with `strict=False`, so that
    no backbone or adapter weight finds its partner. Changes `fresh`. (The study's `vit.` is our `backbone.`.)
    """
    wrapped = f"{backbone}.base_model.model."
    renamed = {
        name.replace(wrapped, f"{backbone}.", 1): weight for name, weight in trained.state_dict().items()
    }
    outcome = fresh.load_state_dict(renamed, strict=False)
    unexpected = set(outcome.unexpected_keys)
    matched = tuple(name for name in renamed if name not in unexpected)
    return LoadingReport(matched, tuple(outcome.missing_keys), tuple(outcome.unexpected_keys))


@dataclass(frozen=True)
class MixedUnits:
    """Mean squared errors against raw seconds and hertz, averaged over targets, in s^2 and Hz^2 mixed."""

    predicting_nothing: float
    perfect_but_standardized: float
    predicting_the_mean: float


@checked_arguments(finite=("mean", "std"))
def mixed_units(mean: ArrayLike, std: ArrayLike) -> MixedUnits:
    """What three predictors score when standardized outputs meet raw labels of this mean and deviation.

    With y = mean + std z: always 0 scores E[y^2] = mean^2 + std^2; a perfect standardized predictor, which
    says z, scores mean^2 + (std - 1)^2; always the raw mean scores std^2.
    """
    mean, std = np.asarray(mean, float), np.asarray(std, float)
    scores = (mean**2 + std**2, mean**2 + (std - 1) ** 2, std**2)
    return MixedUnits(*(float(score.mean()) for score in scores))


@checked_arguments(finite=("pixel_values",))
def imagenet_normalized(
    pixel_values: Float[Tensor, "image ..."],
) -> Float[Tensor, "image ..."]:
    """Pixels as the published analysis feeds them: (pixels / 255 - mean) / deviation of ImageNet."""
    mean, std = (pixel_values.new_tensor(x)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
    return (pixel_values - mean) / std


def _put_back(block: AttentionBlock, rows: list[Tensor]) -> None:
    for projection, saved in zip((block.query, block.key, block.value), rows, strict=True):
        projection.weight[: len(saved)] = saved
