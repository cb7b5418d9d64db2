"""What heads are judged by: a task gives every image a loss per target, whatever outputs and labels look like.

A task may also split what a change of the answer does: loss after - loss before = shift + alignment. The shift is a
divergence of the new answer from the old one: never negative, and free of the truth. The alignment is the old answer's
error times what moves; for squared errors, with e = p - y and d = p' - p, they are d^2 and 2 e d. Source: the
three-point identity of Bregman divergences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]
Shift = Callable[[Tensor, Tensor, Tensor], Tensor]
Check = Callable[[Tensor, Tensor], None]


@dataclass(frozen=True)
class Task:
    """A loss with a name for each of its targets, and how its changes are reported.

    `loss` maps outputs [*set, image, ...] and labels [image, ...] to [*set, image, target] and can be differentiated.
    `targets` name the columns of tables; empty, they are numbered (`output_0`). Effects are percent of the unchanged
    model's loss where `relative`, else in `unit`. `chance` is the loss of a guess, `regions` are the names of the
    numbers in region maps. Where `own_answer`, the unchanged model's own outputs take the place of labels. `check`
    refuses (`ValueError`) outputs of some images and labels of all that do not fit. `shift` maps the outputs before
    [image, ...] and after [*set, image, ...] a change, and the labels (which may leave places out), to how far the
    answer moves [*set, image, target], `guess` labels to the least mean loss of an answer that is the same for all
    images.
    """

    name: str
    targets: tuple[str, ...]
    loss: Loss
    unit: str = "loss"
    relative: bool = False
    chance: float | None = None
    regions: tuple[str, ...] = ()
    own_answer: bool = False
    check: Check | None = None
    shift: Shift | None = None
    guess: Callable[[Tensor], float] | None = None

    @property
    def column(self) -> str:
        """What tables call the loss: `mse` where it is one, else `loss`."""
        return "mse" if self.unit == "MSE" else "loss"

    def __call__(self, outputs: Tensor, labels: Tensor) -> Float[Tensor, "*set image target"]:
        """The loss of each image and target; in the widest floating point there is, dense outputs in their own."""
        # [set, image, target] are few numbers, maps of every class are not.
        dense = outputs.ndim > 3
        outputs = outputs.float() if dense and outputs.element_size() < 4 else outputs
        outputs = outputs if dense else to_float64(outputs)
        if labels.is_floating_point():
            labels = labels.to(outputs.dtype)
        return to_float64(self.loss(outputs, labels.to(outputs.device)))

    def fitted(self, outputs: Float[Tensor, "some ..."], labels: Tensor | None = None) -> Task:
        """This task for a model that gives such outputs, tried on the first image; unnamed targets get their numbers.

        Raises `ValueError` where outputs and labels do not fit each other or the task.
        """
        if self.own_answer:
            labels = outputs
        elif labels is None:
            raise ValueError(
                f"the task {self.name!r} needs labels; pass them, or task='divergence', which needs none"
            )
        if self.check is not None:
            self.check(outputs, labels)
        task = replace(self, loss=_over_sets(self.loss, outputs.ndim)) if self.check is None else self
        try:
            found = task(outputs[:1].detach(), labels[:1])
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            raise ValueError(
                f"the task {self.name!r} gives no loss of outputs {_shape(outputs)} and labels {_shape(labels)}: "
                f"{error}"
            ) from error
        targets = self.targets or tuple(f"output_{number}" for number in range(found.shape[1]))
        if len(targets) != found.shape[1]:
            raise ValueError(
                f"the task {self.name!r} has {found.shape[1]} target(s) here, expected {len(targets)} "
                f"({', '.join(targets)}): name as many as there are, or none"
            )
        return replace(task, targets=targets)


def find(task: Task | str | Loss | None = None, model: object = None, labels: Tensor | None = None) -> Task:
    """The task that is asked for: a `Task`, a preset's name, or a function of outputs and labels.

    A function returns the losses [image] or [image, target]. None is the model's own (`model.task`). Of a model that
    names none the labels decide: class numbers [image] mean cross-entropy, [image, h, w] per-pixel cross-entropy, and
    numbers [image, target] squared error. Raises `ValueError` for an unknown name, and where the labels could mean
    several things (all of them 0 or 1) or nothing.
    """
    if task is None:
        own = getattr(model, "task", None)
        return own if isinstance(own, Task) else _told_by(labels)
    if isinstance(task, Task):
        return task
    if isinstance(task, str):
        if (preset := PRESETS.get(_plain(task))) is None:
            raise ValueError(f"task is {task!r}, expected one of {', '.join(PRESETS)}, a Task, or a function")
        return preset()
    return Task(getattr(task, "__name__", type(task).__name__), (), task)


def squared_error(
    targets: Sequence[str] = (), chance: float | None = None, regions: Sequence[str] = ()
) -> Task:
    """Squared error of numbers [image, target], or of maps [image, h, w] and [image, target, h, w], averaged over each.

    `chance` is 1 for standardized labels.
    """

    def check(outputs: Tensor, labels: Tensor) -> None:
        _same_shape(outputs, labels, tuple(targets))

    return Task(
        "squared error", tuple(targets), _squares, "MSE", True, chance, tuple(regions), check=check,
        shift=lambda before, after, _labels: _squares(after, before),
        guess=lambda labels: float(labels.double().var(0, correction=0).mean()),
    )  # fmt: skip


def cross_entropy() -> Task:
    """Cross-entropy of logits [image, class], in nats; labels are class numbers [image], 0-based."""

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        return -_picked(outputs.log_softmax(-1), labels)

    return Task(
        "cross-entropy", ("class",), loss, "nats", check=_class_numbers,
        shift=lambda before, after, _labels: _divergence_of_classes(after, before),
        guess=lambda labels: _entropy(torch.bincount(labels.long()).double() / len(labels)),
    )  # fmt: skip


def margin_cross_entropy() -> Task:
    """Cross-entropy of margins [image, 1] as `heads.linearized.margin` reads them, in nats: labels are in them already.

    Its shift is that of the probability of the own class alone, not of the shares of the others.
    """
    return Task(
        "cross-entropy of margins", ("class",), lambda margins, _labels: functional.softplus(-margins), "nats",
        check=lambda _margins, _labels: None,
        shift=lambda before, after, _labels: _divergence_of_targets(after, before),
    )  # fmt: skip


def binary_cross_entropy(targets: Sequence[str] = ()) -> Task:
    """Binary cross-entropy of logits [image, target], in nats; labels are 0 or 1, and several may hold at once."""

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        truth = _as_columns(labels).to(outputs.dtype).expand_as(outputs)
        return functional.binary_cross_entropy_with_logits(outputs, truth, reduction="none")

    def check(outputs: Tensor, labels: Tensor) -> None:
        _same_shape(outputs, labels, tuple(targets))
        if other := labels[(labels != 0) & (labels != 1)].flatten()[:1].tolist():
            raise ValueError(f"labels hold {other[0]:g}, expected 0 or 1 for each target of {_PER_CLASS}")

    def guess(labels: Tensor) -> float:
        ones = _as_columns(labels).double().mean(0)
        return _entropy(torch.stack([ones, 1 - ones])) / len(ones)

    return Task(
        _PER_CLASS, tuple(targets), loss, "nats", chance=math.log(2), check=check, guess=guess,
        shift=lambda before, after, _labels: _divergence_of_targets(after, before),
    )  # fmt: skip


def pixel_cross_entropy(ignored: int = -100) -> Task:
    """Cross-entropy of logits [image, class, h, w], averaged over pixels, in nats.

    Labels are class numbers [image, h, w], 0-based; pixels labelled `ignored` do not count.
    """

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        index = torch.where(labels != ignored, labels, 0).long().unsqueeze(-3)
        index = index.expand(*outputs.shape[:-3], *index.shape[-3:])
        return averaged(-outputs.log_softmax(-3).gather(-3, index).squeeze(-3), labels)

    def shift(before: Tensor, after: Tensor, labels: Tensor) -> Tensor:
        old, new = before.log_softmax(-3), after.log_softmax(-3)
        return averaged((old.exp() * (old - new)).sum(-3), labels)

    def averaged(values: Tensor, labels: Tensor) -> Tensor:
        counted = labels != ignored
        return ((values * counted).sum((-2, -1)) / counted.sum((-2, -1))).unsqueeze(-1)

    def guess(labels: Tensor) -> float:
        shares = [torch.bincount(each[each != ignored].flatten().long(), minlength=1) for each in labels]
        most = max(map(len, shares))
        mean = torch.stack(
            [functional.pad(each / each.sum(), (0, most - len(each))) for each in shares]
        ).mean(0)
        return _entropy(mean.double())

    def check(outputs: Tensor, labels: Tensor) -> None:
        wanted = "[image, class, h, w] with labels [image, h, w]"
        if outputs.ndim != 4 or labels.shape[1:] != outputs.shape[2:] or outputs.shape[1] < 2:
            raise ValueError(
                f"outputs have shape {_shape(outputs)} and labels {_shape(labels)}, expected {wanted}, two classes or "
                "more: resize one to the other (labels: nearest neighbour)"
            )
        counted = labels != ignored
        _check_range(labels[counted], outputs.shape[1])
        if empty := (~counted.flatten(1).any(1)).nonzero().flatten().tolist():
            raise ValueError(
                f"labels of image(s) {empty[:5]} hold {ignored} alone, expected pixels that count"
            )

    name = "per-pixel cross-entropy" + ("" if ignored == -100 else f" without {ignored}")
    return Task(name, ("pixels",), loss, "nats", check=check, shift=shift, guess=guess)


def logit_difference(other: int | None = None) -> Task:
    """By how much the right class's logit falls short of another one's; negative where it is ahead.

    Labels are class numbers [image], against the class `other` or else the best of all others, or pairs [image, 2] of
    the right class and the one to hold against it.
    """

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        if labels.ndim == 2:
            return _picked(outputs, labels[:, 1]) - _picked(outputs, labels[:, 0])
        right = _index(outputs, labels)
        if other is None:
            rival = outputs.scatter(-1, right, -torch.inf).amax(-1, keepdim=True)
        else:
            rival = outputs[..., other : other + 1]
        return rival - outputs.gather(-1, right)

    def check(outputs: Tensor, labels: Tensor) -> None:
        if labels.ndim == 2 and labels.shape[1] == 2:
            _class_numbers(outputs, labels[:, 0])
            _class_numbers(outputs, labels[:, 1])
            return
        _class_numbers(outputs, labels)
        if other is not None and (not 0 <= other < outputs.shape[1] or (labels == other).any()):
            raise ValueError(
                f"the other class is {other}, expected one of 0 to {outputs.shape[1] - 1} that is no image's own: "
                "leave these images out, or pass other=None"
            )

    name = "logit difference" + ("" if other is None else f" from class {other}")
    return Task(name, ("class",), loss, "logits", check=check)


def divergence(of: Literal["softmax", "sigmoid", "numbers"] = "softmax") -> Task:
    """How far the outputs move from the unchanged model's own: no labels needed, and none are looked at.

    Of `softmax` logits [image, class, ...]: the Kullback-Leibler divergence in nats, averaged over positions; of
    `sigmoid` logits [image, target]: the same per target; of `numbers` [image, target]: the squared distance.
    """
    if of not in _DIVERGENCES:
        raise ValueError(f"of is {of!r}, expected one of {', '.join(_DIVERGENCES)}")
    loss, targets, unit = _DIVERGENCES[of]
    name = "divergence" + ("" if of == "softmax" else f" of {of}")
    return Task(
        name, targets, loss, unit, own_answer=True, check=lambda outputs, _own: _check_own(outputs, of),
        shift=lambda before, after, _labels: loss(after, before),
    )  # fmt: skip


def named(name: str, targets: Sequence[str] = ()) -> Task | None:
    """The preset of exactly this name, with these targets; None where there is none."""
    preset = PRESETS.get(_plain(name))
    return None if preset is None or preset().name != name else replace(preset(), targets=tuple(targets))


def widest_float(device: torch.device | str) -> torch.dtype:
    """float64, or float32 on Apple's GPUs (`mps`), which have nothing wider."""
    return torch.float32 if torch.device(device).type == "mps" else torch.float64


def to_float64(tensor: Tensor) -> Tensor:
    """The tensor in the widest floating point of its device."""
    return tensor.to(widest_float(tensor.device))


_PER_CLASS = "binary cross-entropy"
PRESETS: dict[str, Callable[[], Task]] = {
    "squared error": squared_error,
    "cross-entropy": cross_entropy,
    _PER_CLASS: binary_cross_entropy,
    "per-pixel cross-entropy": pixel_cross_entropy,
    "logit difference": logit_difference,
    "divergence": divergence,
}
"""The tasks that `find` knows by name."""


def _divergence_of_classes(outputs: Tensor, own: Tensor) -> Tensor:
    classes = 1 - own.ndim
    before, after = own.log_softmax(classes), outputs.log_softmax(classes)
    apart = (before.exp() * (before - after)).sum(classes)
    return apart.unsqueeze(-1) if own.ndim == 2 else apart.flatten(2 - own.ndim).mean(-1, keepdim=True)


def _divergence_of_targets(outputs: Tensor, own: Tensor) -> Tensor:
    return own.sigmoid() * (own - outputs) + functional.softplus(outputs) - functional.softplus(own)


def _squares(outputs: Tensor, labels: Tensor) -> Tensor:
    error = (outputs - _as_columns(labels)).square()
    if labels.ndim == 3:  # one map
        return error.mean((-2, -1)).unsqueeze(-1)
    return error if labels.ndim < 3 else error.flatten(2 - labels.ndim).mean(-1)


def _entropy(shares: Tensor) -> float:
    return float(-torch.xlogy(shares, shares).sum())


_DIVERGENCES: dict[str, tuple[Loss, tuple[str, ...], str]] = {
    "softmax": (_divergence_of_classes, ("answer",), "nats"),
    "sigmoid": (_divergence_of_targets, (), "nats"),
    "numbers": (lambda outputs, own: (outputs - own).square(), (), "squared distance"),
}


def _told_by(labels: Tensor | None) -> Task:
    help_ = f"pass task=, one of {', '.join(PRESETS)}, a Task, or a function (outputs, labels) -> [image]"
    if labels is None:
        raise ValueError(f"the model names no task, and there are no labels: {help_}")
    whole = not labels.is_floating_point()
    binary = bool(((labels == 0) | (labels == 1)).all())
    if whole and labels.dtype != torch.bool and labels.ndim in (1, 3):
        return cross_entropy() if labels.ndim == 1 else pixel_cross_entropy()
    if not whole and not binary and labels.ndim in (1, 2):
        return squared_error()
    held = "all 0 or 1" if binary else f"{labels.dtype}"
    raise ValueError(
        f"the model names no task, and labels of shape {_shape(labels)}, {held}, do not imply one: {help_}"
    )


def _over_sets(loss: Loss, axes: int) -> Loss:
    """A user's loss of single images, [image] or [image, target], for outputs of `axes` axes with sets before them."""

    def every(outputs: Tensor, labels: Tensor) -> Tensor:
        sets = outputs.shape[: outputs.ndim - axes]
        flat = outputs.flatten(0, len(sets))
        rows = labels.expand(*sets, *labels.shape).flatten(0, len(sets))
        found = loss(flat, rows)
        if not isinstance(found, Tensor) or found.shape[:1] != flat.shape[:1] or found.ndim > 2:
            what = _shape(found) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"it returned {what} for {len(flat)} image(s), expected a tensor [image] or [image, target]: of a "
                "torch loss pass reduction='none'"
            )
        return _as_columns(found).unflatten(0, (*sets, outputs.shape[len(sets)]))

    return every


def _as_columns(values: Tensor) -> Tensor:
    return values.unsqueeze(1) if values.ndim == 1 else values


def _index(outputs: Tensor, labels: Tensor) -> Tensor:
    return labels.long().expand(outputs.shape[:-1]).unsqueeze(-1)


def _picked(outputs: Tensor, labels: Tensor) -> Float[Tensor, "*set image 1"]:
    return outputs.gather(-1, _index(outputs, labels))


def _plain(name: str) -> str:
    """A preset's name however it is written: `cross_entropy` and `Cross entropy` are `cross-entropy`."""
    flat = "".join(character for character in name.lower() if character.isalpha())
    return next((known for known in PRESETS if "".join(filter(str.isalpha, known)) == flat), name)


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _same_shape(outputs: Tensor, labels: Tensor, targets: tuple[str, ...]) -> None:
    columns = _as_columns(labels)
    if columns.shape[1:] != outputs.shape[1:]:
        raise ValueError(
            f"labels has shape {_shape(labels)}, but the model's outputs are {_shape(outputs)[1:]} per image, expected "
            f"labels {(len(labels), *outputs.shape[1:])}: one for each output. Is another task meant?"
        )
    if targets and columns.ndim == 2 and columns.shape[1] != len(targets):
        raise ValueError(
            f"the model predicts {columns.shape[1]} target(s), expected {len(targets)} ({', '.join(targets)}): name "
            "the targets that it was made for"
        )


def _class_numbers(outputs: Tensor, labels: Tensor) -> None:
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise ValueError(
            f"outputs have shape {_shape(outputs)}, expected logits [image, class] of two or more"
        )
    if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(
            f"labels has shape {_shape(labels)} and dtype {labels.dtype}, expected one class number per image "
            f"({(len(labels),)}, integers): of one-hot labels pass labels.argmax(1)"
        )
    _check_range(labels, outputs.shape[1])


def _check_range(labels: Tensor, classes: int) -> None:
    if labels.is_floating_point() or (
        labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes
    ):
        raise ValueError(
            f"labels are {labels.dtype} from {labels.min():g} to {labels.max():g}, expected integers from 0 to "
            f"{classes - 1}: the model has {classes} classes"
        )


def _check_own(outputs: Tensor, of: str) -> None:
    wrong = outputs.ndim < 2 or outputs.shape[1] < 2 if of == "softmax" else outputs.ndim != 2
    if wrong:
        wanted = "[image, class, ...] of two classes or more" if of == "softmax" else "[image, target]"
        raise ValueError(
            f"outputs have shape {_shape(outputs)}, expected {wanted} for the divergence of {of}; "
            f"others: {', '.join(_DIVERGENCES)}"
        )
