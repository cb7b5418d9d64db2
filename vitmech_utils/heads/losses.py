"""Losses that split what a change of the answer does: how far the answer moves, and whether towards the truth.

For every loss here, loss after - loss before = shift + alignment. The shift is a divergence of the new answer from the
old one: never negative, and free of the truth. The alignment is the old answer's error times what moves; for squared
errors, with e = p - y and d = p' - p, they are d^2 and 2 e d. Source: the three-point identity of Bregman divergences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import log_softmax, softplus

from vitmech_utils.heads.linearized import margin_loss

Before = Float[Tensor, "image output"]
Outputs = Float[Tensor, "*set image output"]
Losses = Float[Tensor, "*set image target"]


@dataclass(frozen=True)
class Loss:
    """A loss, and what a change of the outputs adds to it without regard to the truth.

    `value(outputs, labels)` and `shift(before, after)` give [*set, image, target]; `guess(labels)` is the least mean
    loss of an answer that is the same for all images. `relative` losses are told in percent of the baseline's mean,
    others in `unit`.
    """

    name: str
    unit: str
    relative: bool
    value: Callable[[Tensor, Tensor], Losses]
    shift: Callable[[Tensor, Tensor], Losses]
    guess: Callable[[Tensor], float]


def _entropy(shares: Tensor) -> float:
    return float(-torch.xlogy(shares, shares).sum())


def _class_loss(outputs: Outputs, labels: Tensor) -> Losses:
    index = labels.long()[..., None].expand(*outputs.shape[:-1], 1)
    return -log_softmax(outputs, -1).gather(-1, index)


def _class_shift(before: Before, after: Outputs) -> Losses:
    old, new = log_softmax(before, -1), log_softmax(after, -1)
    return (old.exp() * (old - new)).sum(-1, keepdim=True)


def _class_guess(labels: Tensor) -> float:
    return _entropy(torch.bincount(labels.long()).double() / len(labels))


def _binary_shift(before: Before, after: Outputs) -> Losses:
    return torch.sigmoid(before) * (before - after) + softplus(after) - softplus(before)


def _binary_guess(labels: Tensor) -> float:
    ones = labels.double().mean(0)
    return _entropy(torch.stack([ones, 1 - ones])) / len(ones)


def _no_guess(_labels: Tensor) -> float:
    raise ValueError(
        "a margin has no guess of its own: name the limit in nats, such as a tenth of log(classes)"
    )


SQUARED = Loss(
    "squared error", "MSE", True,
    value=lambda outputs, labels: (outputs - labels).square(),
    shift=lambda before, after: (after - before).square(),
    guess=lambda labels: float(labels.double().var(0, correction=0).mean()),
)  # fmt: skip
"""Squared errors of numbers; labels [image, target]."""
BINARY = Loss(
    "binary cross-entropy", "nats", False,
    value=lambda outputs, labels: softplus(outputs) - labels * outputs,
    shift=_binary_shift,
    guess=_binary_guess,
)  # fmt: skip
"""Cross-entropy of each logit with a label of 0 or 1, as in multi-label classifiers; labels [image, target]."""
CATEGORICAL = Loss("cross-entropy", "nats", False, _class_loss, _class_shift, _class_guess)
"""Cross-entropy of all logits with one class; labels [image] are class numbers, and there is one target."""
MARGIN = Loss(
    "cross-entropy", "nats", False,
    value=lambda outputs, _labels: margin_loss(outputs),
    shift=_binary_shift,
    guess=_no_guess,
)  # fmt: skip
"""The same cross-entropy from margins (`linearized.margin`), which know the labels already.

Its shift is that of the probability of the own class alone, not of the shares of the others.
"""
