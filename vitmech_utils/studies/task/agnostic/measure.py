"""Orders of heads by shift in three tasks: painted chirps, sweeps, real chirps; fine-tuned, and before fine-tuning.

The untuned backbone gives no answers by itself. A linear probe of its CLS token, fitted to each task, gives it some;
what its heads then share between tasks was there before any of them was trained for.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.estimates import fast_dtype
from vitmech_utils.heads.linearized import predict_linearized
from vitmech_utils.heads.probes import fit_ridge
from vitmech_utils.heads.rank_agreement import depth_alone, disattenuated_correlation
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.studies.task.measure import Shifts, WithoutHeads, decorated, relative_shifts, titled

PAINTED, SWEEPS, REAL = "painted chirps", "type and direction", "real chirps"
TUNED, UNTUNED, KEPT = "fine-tuned for both", "untuned backbone", "untuned and fine-tuned"
REAL_CHAPTER = "11_real_spectrograms"
REAL_NAMES = {TUNED: "tuned", UNTUNED: "probed"}
"""What chapter 11 calls the shifts of heads on real chirps."""

REFERENCE = 24
"""Training figures whose mean stands in for a head, of those that probes are fitted to."""

ByTask = Mapping[str, Mapping[str, Shifts]]
"""Shifts by `TUNED` or `UNTUNED`, then by task."""


@checked_arguments()
def shifts(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    reference: Float[Tensor, "other ..."] | None = None,
) -> Shifts:
    """How far each head's mean ablation moves the answers, linearized (`relative_shifts`); heads in order of layers.

    Means are those of the `reference` images, else of the images themselves.
    """
    how = {} if reference is None else {"reference": reference}
    return relative_shifts(
        predict_linearized(model, pixel_values, "mean", batch=16, dtype=fast_dtype(model), **how)
    )


@checked_arguments()
def under_probe(untuned: ChirpRegressor, figures: Mapping[str, Tensor], batch: int = 16) -> ChirpRegressor:
    """The same backbone with a linear probe as its head, fitted to the CLS tokens and labels of some figures."""
    device = next(untuned.parameters()).device
    with torch.inference_mode():
        read = [
            untuned.backbone(pixel_values=part.to(device)).last_hidden_state[:, 0].float().cpu()
            for part in figures["pixel_values"].split(batch)
        ]
    labels = figures["labels"].double().numpy()
    weights, bias = fit_ridge(torch.cat(read).double().numpy(), labels)
    untuned.head = _linear(weights, bias).to(device)
    return untuned


def _linear(weights: Float[ndarray, "feature target"], bias: Float[ndarray, " target"]) -> nn.Linear:
    layer = nn.Linear(*weights.shape)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights.T))
        layer.bias.copy_(torch.from_numpy(bias))
    return layer.requires_grad_(False)


@checked_arguments()
def untuned_shifts(
    regressor: ChirpRegressor, real: Mapping[str, Shifts], probe_images: int
) -> dict[str, Shifts]:
    """Shifts of all heads of the backbone before any fine-tuning, by painted task, under a probe for each.

    The same whichever training's `regressor` is asked: its adapter is left out. Probes are fitted to `probe_images`
    training figures; `real` says how many images are taken.
    """
    untuned = regressor.without_adapter().to(regressor.device)
    fitted = {PAINTED: decorated(probe_images, "train"), SWEEPS: titled(probe_images, "none", "train")}
    return {
        task: shifts(
            under_probe(untuned, fitted[task]), pixel_values, fitted[task]["pixel_values"][:REFERENCE]
        )
        for task, pixel_values in _figures(real).items()
    }


@checked_arguments()
def by_task(
    found: Mapping[str, WithoutHeads], real: Mapping[str, Shifts], untuned: Mapping[str, Shifts], heads: int
) -> dict[str, dict[str, Float[ndarray, "swept shown"]]]:
    """Shifts by task, of the fine-tuned networks and of the untuned backbone under probes, of the same heads.

    `found` are the networks "regressor" and "clean" without each of some heads, whose layers have `heads` each; `real`
    holds what chapter 11 measured on real chirps of all heads, `untuned` the `untuned_shifts`. As many painted chirps
    are taken as real ones, or both as few as there are of the other: the first.
    """
    swept = found["regressor"].losses
    rows = swept.layers * heads + swept.heads
    on_real = {kind: np.asarray(real[name], float)[rows] for kind, name in REAL_NAMES.items()}
    by_kind = {
        TUNED: {PAINTED: found["regressor"].shifts, SWEEPS: found["clean"].shifts, REAL: on_real[TUNED]},
        UNTUNED: {task: one[rows] for task, one in untuned.items()} | {REAL: on_real[UNTUNED]},
    }
    images = min(one.shape[1] for by_one in by_kind.values() for one in by_one.values())
    return {kind: {task: one[:, :images] for task, one in by_one.items()} for kind, by_one in by_kind.items()}


def _figures(real: Mapping[str, Shifts]) -> dict[str, Tensor]:
    count = real[REAL_NAMES[TUNED]].shape[1]
    return {
        PAINTED: decorated(count)["pixel_values"],
        SWEEPS: titled(count, "none")["pixel_values"],
    }


@checked_arguments()
def shared_orders(found: ByTask, heads: int, draws: int = 2000) -> pd.DataFrame:
    """How much of their order of heads every two tasks share, and each task with its own untuned backbone.

    `heads` is their number per layer. Returns kind, first, second, images, heads (in all); between, ceiling and share,
    each with _low and _high (over heads; see `heads.rank_agreement`); depth: what is left of between when heads change
    places within their layers.
    """
    pairs = [
        (kind, (one, found[kind][one]), (other, found[kind][other]))
        for kind in (TUNED, UNTUNED)
        for one, other in itertools.combinations(found[kind], 2)
    ]
    pairs += [(KEPT, (task, found[UNTUNED][task]), (task, found[TUNED][task])) for task in found[TUNED]]
    rows = []
    for kind, (first, one), (second, other) in pairs:
        order = disattenuated_correlation(one[None], other[None], draws)
        layers = np.repeat(np.arange(len(one) // heads), heads)
        depth = depth_alone(one[None], other[None], layers, draws)
        row = {"kind": kind, "first": first, "second": second, "images": one.shape[1], "heads": len(one)}
        for part in ("between", "ceiling", "share"):
            value = getattr(order, part)
            row |= {part: value.value, f"{part}_low": value.low, f"{part}_high": value.high}
        rows.append(row | {"depth": depth.value})
    return pd.DataFrame(rows)
