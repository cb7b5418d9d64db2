"""Orders of heads by shift in three tasks: painted chirps, sweeps, real chirps; fine-tuned, and before fine-tuning.

The untuned backbone gives no answers by itself. A linear probe of its CLS token, fitted to each task, gives it some;
what its heads then share between tasks was there before any of them was trained for.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

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
from vitmech_utils.heads.rank_agreement import disattenuated_correlation, permutation_null
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.studies.task.measure import decorated, titled

PAINTED, SWEEPS, REAL = "painted chirps", "type and direction", "real chirps"
TUNED, UNTUNED, KEPT = "fine-tuned for both", "untuned backbone", "untuned and fine-tuned"
REAL_CHAPTER = "11_real_spectrograms"
REAL_NAMES = {TUNED: "tuned", UNTUNED: "probed"}
"""What chapter 11 calls the shifts of heads on real chirps."""

Shifts = Float[ndarray, "head image"]
ByTask = Mapping[str, Mapping[str, Shifts]]
"""Shifts by `TUNED` or `UNTUNED`, then by task."""


@checked_arguments()
def shifts(model: nn.Module, pixel_values: Float[Tensor, "image ..."]) -> Shifts:
    """How far each head's mean ablation moves the answers, linearized: squared, over the variance of each answer.

    Averaged over answers; heads in order of layers.
    """
    found = predict_linearized(model, pixel_values, "mean", batch=16, dtype=fast_dtype(model))
    spread = found.baseline.numpy().std(0).clip(1e-12)
    return (((found.ablated - found.baseline).numpy() / spread) ** 2).mean(-1)


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
        task: shifts(under_probe(untuned, fitted[task]), pixel_values)
        for task, pixel_values in _figures(real).items()
    }


@checked_arguments()
def by_task(
    load: Mapping[str, Callable[[], nn.Module]], real: Mapping[str, Shifts], untuned: Mapping[str, Shifts]
) -> dict[str, dict[str, Shifts]]:
    """Shifts of all heads by task, of the fine-tuned networks and of the untuned backbone under probes.

    `load` gives the networks "regressor" and "clean", `real` holds what chapter 11 measured on real chirps, `untuned`
    the `untuned_shifts`. As many painted chirps are taken as real ones, the first held-out figures of this chapter.
    """
    networks = {PAINTED: load["regressor"], SWEEPS: load["clean"]}
    tuned = {task: shifts(networks[task](), pixel_values) for task, pixel_values in _figures(real).items()}
    found = {TUNED: tuned, UNTUNED: dict(untuned)}
    for kind, name in REAL_NAMES.items():
        found[kind][REAL] = np.asarray(real[name], float)
    return found


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
    each with _low and _high (over heads; see `heads.rank_agreement`); depth: the rank correlation that is left when
    heads change places within their layers.
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
        depth = permutation_null(one.mean(1)[None], other.mean(1)[None], layers, draws)
        row = {"kind": kind, "first": first, "second": second, "images": one.shape[1], "heads": len(one)}
        for part in ("between", "ceiling", "share"):
            value = getattr(order, part)
            row |= {part: value.value, f"{part}_low": value.low, f"{part}_high": value.high}
        rows.append(row | {"depth": depth.value})
    return pd.DataFrame(rows)
