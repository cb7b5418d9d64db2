"""How well a classifier tells: the loss of each answer, the share told right, and how sure that share is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.stats import binomtest
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.sweep_labels import TARGETS
from vitmech_utils.statistics import Interval


@checked_arguments()
def cross_entropies(
    logits: Float[Tensor, "*set image target"], labels: Float[Tensor, "label target"]
) -> Float[ndarray, "*set image target"]:
    """The binary cross-entropy of every answer, in nats (0 or more), float64; each label is 0 or 1.

    A model that knows nothing and says so pays ln 2 for each. Raises `ValueError` for labels of another shape or other
    values, such as a regressor's standardized ones, and for logits that are not finite.
    """
    said, truth = (torch.as_tensor(found).detach().cpu().double() for found in (logits, labels))
    if truth.ndim != 2 or said.shape[-2:] != truth.shape:
        raise ValueError(
            f"labels have shape {tuple(truth.shape)}, logits {tuple(said.shape)}; expected labels [image, target] and "
            "logits that end in the same: one row per image, one column per target"
        )
    if other := truth[(truth != 0) & (truth != 1)].tolist():
        raise ValueError(
            f"labels hold {other[0]:g}, expected 0 or 1: take those of a SweepDataset, a regressor's are standardized"
        )
    if not torch.isfinite(said).all():
        raise ValueError(
            "logits are not finite, expected finite numbers: check the weights, or run in float32"
        )
    return nn.functional.binary_cross_entropy_with_logits(
        said, truth.expand_as(said), reduction="none"
    ).numpy()


@checked_arguments()
def told_right(
    logits: Float[ndarray, "*set image target"], labels: Float[ndarray, "image target"]
) -> Bool[ndarray, "*set image target"]:
    """Whether each answer is right; a logit above zero says 1."""
    return (np.asarray(logits) > 0) == (np.asarray(labels) > 0.5)


@checked_arguments()
def wilson(right: Bool[ndarray, " image"], confidence: float = 0.95) -> Interval:
    """A share in [0, 1] with Wilson's score interval over the images. Raises `ValueError` for no images.

    Source: Wilson 1927.
    """
    count = int(np.size(right))
    if not count:
        raise ValueError("no images, expected at least one to give a share of")
    test = binomtest(int(np.sum(right)), count)
    low, high = test.proportion_ci(confidence, method="wilson")
    return Interval(float(test.statistic), float(low), float(high))


@checked_arguments()
def score(
    logits: Float[ndarray, "image target"],
    labels: Float[ndarray, "image target"],
    targets: Sequence[str] = TARGETS,
) -> pd.DataFrame:
    """One row per target: target, accuracy, low, high (Wilson, 95 %), cross_entropy (nats), images.

    Errors as in `cross_entropies`.
    """
    losses = cross_entropies(torch.as_tensor(logits), torch.as_tensor(labels))
    right = told_right(logits, labels)
    shares = [wilson(right[:, place]) for place in range(len(targets))]
    return pd.DataFrame(
        {
            "target": list(targets),
            "accuracy": [share.value for share in shares],
            "low": [share.low for share in shares],
            "high": [share.high for share in shares],
            "cross_entropy": losses.mean(0),
            "images": len(losses),
        }
    )
