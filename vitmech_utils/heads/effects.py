"""What single heads do to a loss, in its own unit: nats for a classifier, MSE for a regressor.

A percentage would not do here: the cross-entropy of a question that a model answers for sure is next to nothing, and
any change of next to nothing is a huge percentage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from vitmech_utils.data.chirps import LABEL_NAMES
from vitmech_utils.data.sweep_labels import TARGETS
from vitmech_utils.heads.ablation import HeadPredictions
from vitmech_utils.heads.replacements import check_images
from vitmech_utils.model.scores import cross_entropies
from vitmech_utils.statistics import adjust, check_settings, paired_p_values

ALL = "all"
"""The name of the mean over a model's targets."""
_DRAWS_AT_ONCE = 500


@dataclass(frozen=True)
class LossChanges:
    """By how much each image's loss grows without each head, per target; negative where it falls.

    `changes[i]` belongs to layer `layers[i]` and head `heads[i]` (0-based); `baseline` is the loss with all heads. The
    unit is the loss's: nats for a classifier, squared standardized error for a regressor.
    """

    changes: Float[ndarray, "test image target"]
    baseline: Float[ndarray, "image target"]
    layers: Int[ndarray, " test"]
    heads: Int[ndarray, " test"]
    targets: tuple[str, ...]
    mode: str

    def of(self, target: str = ALL) -> Float[ndarray, "test image"]:
        """The changes of one target, or of the mean over all; `ValueError` for a target that the model has not."""
        return self.changes.mean(2) if target == ALL else self.changes[..., self._place(target)]

    def effects(self, bootstrap: int = 2000, confidence: float = 0.95, seed: int = 0) -> pd.DataFrame:
        """One row per target and head: the mean change of the loss, and how sure it is.

        Returns target (`all` is their mean), layer, head (0-based), mode, images, baseline_loss, effect, low, high
        (paired bootstrap over images; all three in the loss's unit), p_value (paired sign-flip test), q_value
        (Benjamini-Hochberg over the heads of a target).
        """
        check_settings(bootstrap, confidence)
        parts = []
        for target in (ALL, *self.targets):
            changes = self.of(target)
            drawn = np.concatenate(
                [weights @ changes.T for weights in _redrawn(changes.shape[1], bootstrap, seed)]
            )
            low, high = np.quantile(drawn, _tails(confidence), axis=0)
            p_values = paired_p_values(changes, bootstrap, seed)
            parts.append(
                pd.DataFrame(
                    {
                        "target": target, "layer": self.layers, "head": self.heads, "mode": self.mode,
                        "images": changes.shape[1], "baseline_loss": self._baseline(target),
                        "effect": changes.mean(1), "low": low, "high": high, "p_value": p_values,
                        "q_value": adjust(p_values),
                    }
                )
            )  # fmt: skip
        return pd.concat(parts, ignore_index=True)

    def by_layer(self, bootstrap: int = 2000, confidence: float = 0.95, seed: int = 0) -> pd.DataFrame:
        """One row per target and layer: what its heads do on average, and how much of all harm is theirs.

        Returns target, layer (0-based), images, effect, low, high (mean over the layer's heads, in the loss's unit) and
        share, share_low, share_high: the layer's part of the positive effects of all heads, in [0, 1], not a number
        where no head has one. Intervals are a paired bootstrap over images.
        """
        check_settings(bootstrap, confidence)
        names = np.unique(self.layers)
        member = (self.layers == names[:, None]).astype(float)
        parts = []
        for target in (ALL, *self.targets):
            changes = self.of(target)
            means, shares = [], []
            for weights in _redrawn(changes.shape[1], bootstrap, seed):
                single = weights @ changes.T
                means.append(single @ (member / member.sum(1, keepdims=True)).T)
                shares.append(_shares(single, member))
            single = changes.mean(1)[None]
            low, high = np.quantile(np.concatenate(means), _tails(confidence), axis=0)
            share_low, share_high = _known_quantiles(np.concatenate(shares), _tails(confidence))
            parts.append(
                pd.DataFrame(
                    {
                        "target": target, "layer": names, "images": changes.shape[1],
                        "effect": (single @ (member / member.sum(1, keepdims=True)).T)[0], "low": low, "high": high,
                        "share": _shares(single, member)[0], "share_low": share_low, "share_high": share_high,
                    }
                )
            )  # fmt: skip
        return pd.concat(parts, ignore_index=True)

    def _place(self, target: str) -> int:
        if target not in self.targets:
            raise ValueError(f"target is {target!r}, expected {ALL} or one of {', '.join(self.targets)}")
        return self.targets.index(target)

    def _baseline(self, target: str) -> float:
        return float(self.baseline.mean() if target == ALL else self.baseline[:, self._place(target)].mean())


def class_changes(
    predictions: HeadPredictions, labels: Float[Tensor, "image target"], targets: Sequence[str] = TARGETS
) -> LossChanges:
    """Changes of a classifier's cross-entropies in nats, from `ablation.predict_without_heads`; each label is 0 or 1.

    Raises `ValueError` for labels or targets that do not fit the predictions.
    """
    _check_targets(predictions, labels, targets)
    before = cross_entropies(predictions.baseline, labels)
    after = cross_entropies(predictions.ablated, labels)
    return _changes(predictions, after, before, targets)


def error_changes(
    predictions: HeadPredictions, labels: Float[Tensor, "image target"], targets: Sequence[str] = LABEL_NAMES
) -> LossChanges:
    """Changes of a regressor's squared errors on standardized labels (dimensionless); errors as in `class_changes`."""
    _check_targets(predictions, labels, targets)
    truth = labels.cpu().double()
    before, after = (
        (found - truth).square().numpy() for found in (predictions.baseline, predictions.ablated)
    )
    return _changes(predictions, after, before, targets)


def _changes(
    predictions: HeadPredictions, after: ndarray, before: ndarray, targets: Sequence[str]
) -> LossChanges:
    return LossChanges(
        after - before, before, predictions.layers, predictions.heads, tuple(targets), predictions.mode
    )


def _check_targets(predictions: HeadPredictions, labels: Tensor, targets: Sequence[str]) -> None:
    if predictions.baseline.shape[1] != len(targets):
        raise ValueError(
            f"the model predicts {predictions.baseline.shape[1]} target(s), expected {len(targets)} "
            f"({', '.join(targets)}): name the targets that it was made for"
        )
    check_images(predictions.baseline[..., None, None], labels, len(targets))


def _redrawn(images: int, draws: int, seed: int) -> Iterator[Float[ndarray, "draw image"]]:
    """Weights of images drawn with replacement, each row adding up to 1; the same for every target."""
    rng = np.random.default_rng(seed)
    for start in range(0, draws, _DRAWS_AT_ONCE):
        size = min(_DRAWS_AT_ONCE, draws - start)
        yield rng.multinomial(images, np.full(images, 1 / images), size=size) / images


def _shares(
    single: Float[ndarray, "draw test"], member: Float[ndarray, "layer test"]
) -> Float[ndarray, "draw layer"]:
    harm = np.clip(single, 0, None)
    with np.errstate(invalid="ignore"):
        return (harm @ member.T) / harm.sum(1, keepdims=True)


def _known_quantiles(drawn: Float[ndarray, "draw layer"], tails: list[float]) -> Float[ndarray, "2 layer"]:
    known = drawn[np.isfinite(drawn).all(1)]
    return np.quantile(known, tails, axis=0) if len(known) else np.full((2, drawn.shape[1]), np.nan)


def _tails(confidence: float) -> list[float]:
    return [(1 - confidence) / 2, (1 + confidence) / 2]
