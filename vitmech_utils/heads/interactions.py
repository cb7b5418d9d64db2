"""Pairs of heads: what two of them do together beyond what each does alone, exactly and to second order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.constants import Reference
from vitmech_utils.heads.effects import Losses
from vitmech_utils.heads.first_order import GatedLoss, check_gated, open_gates, slope_sizes
from vitmech_utils.heads.hooks import Head, HeadSet, check_layer
from vitmech_utils.heads.replacements import check_model, evaluating, replacement
from vitmech_utils.heads.sets import losses_for, losses_without_sets, predict_tests, singles
from vitmech_utils.intervals import effect_intervals
from vitmech_utils.model.anatomy import Anatomy
from vitmech_utils.statistics import adjust, check_settings, paired_p_values
from vitmech_utils.tasks import Loss, Task

KEYS = ["layer_a", "head_a", "layer_b", "head_b"]


@checked_arguments(least={"batch": 1})
def second_order(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    labels: Tensor | None,
    mode: str = "mean",
    task: Task | str | Loss | None = None,
    *,
    heads: Sequence[Head] | None = None,
    reference: Reference | None = None,
    donors: Tensor | None = None,
    batch: int = 4,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Estimate the interaction of pairs of heads from the loss's second derivatives with respect to head gates.

    A gate slides a head's output from its own (0) to what `mode` replaces it by (1), as in `first_order`. With
    E(S) the squared error without the heads in S, the interaction of a and b is E(ab) - E(a) - E(b) + E(); it is the
    integral of the mixed second derivative over both gates, and the estimate is that derivative where both are 0.
    It is exact where the error is a quadratic form of the gates.

    `heads` (pairs of layer and head, 0-based; default: all) are those whose pairs with every head are wanted: each
    costs one more backward pass. Returns one row per pair, a before b: layer_a, head_a, layer_b, head_b (0-based),
    mode, images, estimate (percent of the baseline's loss, or in the task's unit), low, high (paired bootstrap over
    images). `labels`, `task` and errors as in `sweep`. Source: the Hessian over gates is Hassibi and Stork's (1993) for
    weights, here for heads, off its diagonal.
    """
    check_settings(bootstrap, confidence)
    anatomy, gated = check_gated(model, pixel_values, labels, mode, task, donors, reference)
    rows = list(anatomy.pairs if heads is None else dict.fromkeys(heads))
    for layer, head in rows:
        anatomy.columns(head, check_layer(anatomy, layer))
    weight = next(model.parameters())
    new = replacement(
        model, anatomy, pixel_values, mode, reference=reference, donors=donors, batch=batch, seed=seed
    )
    parts, errors = [], []
    # The fused attention kernels have no second derivative; plain matrix products have.
    with evaluating(model), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        for start in range(0, len(pixel_values), batch):
            images = pixel_values[start : start + batch].to(weight)
            ends = [end.clone() for end in new(start, start + len(images))]
            hessian, error = _hessian(model, anatomy, images, gated, start, ends, rows)
            parts.append(hessian)
            errors.append(error)
    return _table(
        np.concatenate(parts, 1), np.concatenate(errors), anatomy, rows, mode, gated.task.relative, bootstrap,
        confidence, seed,
    )  # fmt: skip


@checked_arguments(least={"batch": 1})
def exact_interactions(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    labels: Tensor | None,
    pairs: Sequence[tuple[Head, Head]],
    mode: str = "mean",
    task: Task | str | Loss | None = None,
    *,
    reference: Reference | None = None,
    donors: Tensor | None = None,
    batch: int = 32,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure the interaction of each pair by ablating both, each alone, and none, on the same images.

    `pairs` holds two different heads each, (layer, head), 0-based. Columns as in `second_order`, with `interaction` for
    the estimate, and p_value (sign flips) and q_value (Benjamini-Hochberg over the pairs). Positive: the two stand in
    for each other, so that together they hurt more than their sum; negative: the second adds less once the first is
    gone. `labels` and `task` as in `sweep`, errors as in `predict_without_sets`, `ValueError` for a pair of one head.
    """
    for first, second in pairs:
        if tuple(first) == tuple(second):
            raise ValueError(f"the pair {first}, {second} is one head twice, expected two different heads")
    ordered = [tuple(sorted((tuple(a), tuple(b)))) for a, b in pairs]
    alone = sorted({head for pair in ordered for head in pair})
    sets = [[head] for head in alone] + [list(pair) for pair in ordered]
    found = losses_without_sets(
        model, pixel_values, labels, sets, mode,
        task=task, reference=reference, donors=donors, batch=batch, seed=seed,
    )  # fmt: skip
    errors, baseline = found.mean()
    place = {head: number for number, head in enumerate(alone)}
    first, second = ([place[pair[side]] for pair in ordered] for side in (0, 1))
    mixed = errors[len(alone) :] - errors[first] - errors[second] + baseline
    low, high = effect_intervals(baseline + mixed, baseline, bootstrap, confidence, seed, found.relative)
    p_values = paired_p_values(mixed, bootstrap, seed)
    frame = pd.DataFrame([(*a, *b) for a, b in ordered], columns=KEYS)
    return frame.assign(
        mode=mode,
        images=baseline.size,
        interaction=slope_sizes(mixed, baseline, found.relative),
        low=low,
        high=high,
        p_value=p_values,
        q_value=adjust(p_values),
    )


def _hessian(
    model: nn.Module,
    anatomy: Anatomy,
    images: Tensor,
    gated: GatedLoss,
    start: int,
    ends: list[Tensor],
    rows: list[Head],
) -> tuple[Float[ndarray, "row image layer head"], Float[ndarray, " image"]]:
    with open_gates(model, anatomy, images, ends) as gates:
        error = gated.of(model, images, start)
    (slope,) = torch.autograd.grad(error.sum(), gates, create_graph=True)
    found = []
    for layer, head in rows:
        # Images do not meet in the model, so the sum over images gives each image's own second derivatives.
        (row,) = torch.autograd.grad(slope[layer, :, 0, head, 0].sum(), gates, retain_graph=True)
        found.append(row[:, :, 0, :, 0].permute(1, 0, 2).cpu().double().numpy())
    return np.stack(found), error.detach().cpu().double().numpy()


def _table(
    hessian: Float[ndarray, "row image layer head"],
    error: Float[ndarray, " image"],
    anatomy: Anatomy,
    rows: list[Head],
    mode: str,
    relative: bool,
    bootstrap: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    seen: dict[tuple[Head, Head], ndarray] = {}
    for row, own in zip(hessian, rows, strict=True):
        for other in anatomy.pairs:
            if other != tuple(own):
                first, second = sorted((tuple(own), other))
                seen.setdefault((first, second), row[:, other[0], other[1]])
    order = sorted(seen)
    mixed = np.stack([seen[pair] for pair in order])
    low, high = effect_intervals(error + mixed, error, bootstrap, confidence, seed, relative)
    frame = pd.DataFrame([(*a, *b) for a, b in order], columns=KEYS)
    return frame.assign(
        mode=mode, images=error.size, estimate=slope_sizes(mixed, error, relative), low=low, high=high
    )


@checked_arguments(least={"permutations": 1, "batch": 1})
def shapley_values(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    labels: Tensor | None,
    mode: str = "mean",
    task: Task | str | Loss | None = None,
    *,
    permutations: int,
    reference: Reference | None = None,
    donors: Tensor | None = None,
    batch: int = 32,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Estimate the Shapley value of every head for the loss, averaged over the targets, by sampling orders.

    In each order the heads are ablated one after the other until none is left, and each head is charged with the
    change of the loss when its turn comes. Every order is also run backwards (antithetic), and each such couple
    meets one image, the images taking turns, so that orders and images are averaged over together. On every image the
    values add up exactly to the loss without all heads minus the loss with all: nothing is lost or counted twice.

    Returns one row per head: layer, head (0-based), mode, images, permutations, shapley (percent of the baseline's
    loss, or in the task's unit; positive where the head lowers the loss), low, high (bootstrap over images with their
    orders; NaN for a single one). Cost: two passes per head and permutation. `labels` and `task` as in `sweep`, errors
    as in `predict_without_sets`, `ValueError` for no permutation. Source: Shapley 1953; sampling by permutations:
    Castro, Gomez and Tejada 2009; for heads: Held and Yang 2023.
    """
    check_settings(bootstrap, confidence)
    found = shapley_charges(
        model, pixel_values, labels, mode, task,
        permutations=permutations, reference=reference, donors=donors, batch=batch, seed=seed,
    )  # fmt: skip
    charged, own = found.of(), found.mean()[1]
    low, high = effect_intervals(own + charged, own, bootstrap, confidence, seed, found.relative)
    return pd.DataFrame(
        {
            "layer": found.layers,
            "head": found.heads,
            "mode": mode,
            "images": len(own),
            "permutations": permutations,
            "shapley": slope_sizes(charged, own, found.relative),
            "low": low,
            "high": high,
        }
    )


@checked_arguments()
def shapley_charges(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    labels: Tensor | None,
    mode: str = "mean",
    task: Task | str | Loss | None = None,
    *,
    permutations: int,
    reference: Reference | None = None,
    donors: Tensor | None = None,
    batch: int = 32,
    seed: int = 0,
) -> Losses:
    """What each head is charged with on each image that an order met; arguments and errors as in `shapley_values`.

    Returned as losses of single heads, averaged over the targets: the baseline's plus the charge.
    """
    anatomy = check_model(model)
    keep = losses_for(model, pixel_values, labels, task)
    if permutations < 1:
        raise ValueError(f"permutations is {permutations}, expected at least 1, or 2 for an interval")
    pairs, images = anatomy.pairs, len(pixel_values)
    rng = np.random.default_rng([seed, permutations])
    orders: list[tuple[int, np.ndarray]] = []
    for number in range(permutations):
        order = rng.permutation(len(pairs))
        orders += [(number % images, order), (number % images, order[::-1])]
    tests: list[tuple[int, HeadSet]] = []
    for image, order in orders:
        tests += [
            (image, frozenset(pairs[place] for place in order[:gone])) for gone in range(1, len(pairs) + 1)
        ]
    baseline, outcome, _ = predict_tests(
        model, pixel_values, tests, mode,
        reference=reference, donors=donors, batch=batch, seed=seed, keep=keep,
    )  # fmt: skip
    start = baseline.mean(1)
    chains = outcome.mean(1).reshape(len(orders), len(pairs))
    value = torch.zeros(images, len(pairs), dtype=torch.float64)
    visits = torch.zeros(images, dtype=torch.float64)
    for (image, order), chain in zip(orders, chains, strict=True):
        value[image, torch.from_numpy(order.copy())] += torch.cat([start[image : image + 1], chain]).diff()
        visits[image] += 1
    seen = visits > 0
    charged, own = (value[seen] / visits[seen, None]).T.numpy(), start[seen].numpy()
    return Losses(
        (own + charged)[..., None],
        own[:, None],
        tuple(singles(pairs)),
        ("loss",),
        mode,
        keep.task.unit,
        keep.task.relative,
    )
