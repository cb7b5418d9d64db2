"""Shapley values of heads: what a head adds on average, over all orders in which the heads could be taken away."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitmech_utils.data.chirps import LABEL_NAMES
from vitmech_utils.heads.replacements import check_images, check_model
from vitmech_utils.heads.sets import Heads, predict_tests
from vitmech_utils.statistics import check_settings, effect_intervals


def shapley_values(
    model: nn.Module,
    pixel_values: Float[Tensor, "image 3 height width"],
    labels: Float[Tensor, "image target"],
    mode: str = "mean",
    *,
    permutations: int,
    reference: Tensor | None = None,
    donors: Tensor | None = None,
    batch: int = 32,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Estimate the Shapley value of every head for the squared error, by sampling orders.

    In each order the heads are ablated one after the other until none is left, and each head is charged with the
    change of the error when its turn comes. Every order is also run backwards (antithetic), and each such couple
    meets one image, the images taking turns, so that orders and images are averaged over together. On every image the
    values add up exactly to the error without all heads minus the error with all: nothing is lost or counted twice.

    Returns one row per head: layer, head (0-based), mode, images, permutations, shapley (percent of the baseline's
    MSE; positive where the head lowers the error), low, high (bootstrap over images with their orders; NaN for a
    single one). Cost: two passes per head and permutation. Errors as in `predict_without_sets`, `ValueError` for no
    permutation.
    Source: Shapley 1953; sampling by permutations: Castro, Gomez and Tejada 2009; for heads: Held and Yang 2023.
    """
    check_settings(bootstrap, confidence)
    anatomy = check_model(model)
    check_images(pixel_values, labels, len(LABEL_NAMES))
    if permutations < 1:
        raise ValueError(f"permutations is {permutations}, expected at least 1, or 2 for an interval")
    pairs, images = anatomy.pairs, len(pixel_values)
    rng = np.random.default_rng([seed, permutations])
    orders: list[tuple[int, np.ndarray]] = []
    for number in range(permutations):
        order = rng.permutation(len(pairs))
        orders += [(number % images, order), (number % images, order[::-1])]
    tests: list[tuple[int, Heads]] = []
    for image, order in orders:
        tests += [
            (image, frozenset(pairs[place] for place in order[:gone])) for gone in range(1, len(pairs) + 1)
        ]
    baseline, outcome, _ = predict_tests(
        model, pixel_values, tests, mode,
        reference=reference, donors=donors, batch=batch, seed=seed,
    )  # fmt: skip
    truth = labels.cpu().double()
    start = (baseline - truth).square().mean(1)
    chains = outcome.reshape(len(orders), len(pairs), -1)
    value = torch.zeros(images, len(pairs), dtype=torch.float64)
    visits = torch.zeros(images, dtype=torch.float64)
    for (image, order), chain in zip(orders, chains, strict=True):
        errors = torch.cat([start[image : image + 1], (chain - truth[image]).square().mean(1)])
        value[image, torch.from_numpy(order.copy())] += errors.diff()
        visits[image] += 1
    seen = visits > 0
    charged = (value[seen] / visits[seen, None]).T.numpy()
    own = start[seen].numpy()
    low, high = effect_intervals(own + charged, own, bootstrap, confidence, seed)
    return pd.DataFrame(
        {
            "layer": [layer for layer, _ in pairs],
            "head": [head for _, head in pairs],
            "mode": mode,
            "images": int(seen.sum()),
            "permutations": permutations,
            "shapley": 100 * charged.mean(1) / own.mean(),
            "low": low,
            "high": high,
        }
    )
