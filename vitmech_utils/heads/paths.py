"""Path patching: which earlier parts one head depends on, and which later parts depend on it (Wang et al. 2023).

A path leads from one part of the model (a head, or a layer's MLP) straight into another through the residual stream:
what lies between keeps what it wrote on the unchanged image. The part at its end is computed anew from what it then
reads, and everything after that part follows. Layers and heads are 0-based.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.direct import DirectReplay
from vitmech_utils.heads.hooks import Head
from vitmech_utils.heads.replacements import check_model, evaluating, mean_outputs, verify
from vitmech_utils.model.anatomy import Anatomy

MLP = -1
"""Stands in the place of a head's number for the MLP of its layer."""
READOUT: Head = (-1, MLP)
"""The end of the path that leads straight into the last hidden state that is read."""


@dataclass(frozen=True)
class PathPredictions:
    """Answers with one path at a time changed, and with the head's whole output changed.

    `parts` names the other end of each path: (layer, head), (layer, `MLP`), or `READOUT`. `whole` is what the model
    says when the head itself is replaced by its mean and everything after it follows.
    """

    baseline: Float[Tensor, "image target"]
    changed: Float[Tensor, "path image target"]
    whole: Float[Tensor, "image target"]
    parts: tuple[Head, ...]


@checked_arguments(finite=("pixel_values", "reference"), least={"batch": 1})
def paths_into(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    head: Head,
    reference: Float[Tensor, "other ..."],
    batch: int = 8,
) -> PathPredictions:
    """Predict with every earlier head and MLP replaced by its mean over `reference`, in what `head` alone reads of it.

    Heads of the same layer cannot be read by it and have no path. Cost: one layer and what follows it per path. Raises
    `ReplayError` for a model whose blocks cannot be resumed, `IndexError` for a head that is not there.
    """
    anatomy = _checked(model, pixel_values, head)
    senders = [(layer, one) for layer in range(head[0]) for one in (*anatomy.blocks[layer].numbers.kept, MLP)]

    def changed(run: PathReplay, means: _Means) -> Iterator[Tensor]:
        for layer, one in senders:
            yield run.through_head(run.sent((layer, one), means), head)

    return _predicted(model, anatomy, pixel_values, head, reference, batch, tuple(senders), changed)


@checked_arguments(finite=("pixel_values", "reference"), least={"batch": 1})
def paths_from(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    head: Head,
    reference: Float[Tensor, "other ..."],
    batch: int = 8,
) -> PathPredictions:
    """Predict with `head` replaced by its mean over `reference`, in what one later head or MLP alone reads of it.

    The last path leads straight into the answer (`READOUT`; what `predict_directly` gives). Errors as in `paths_into`.
    """
    anatomy = _checked(model, pixel_values, head)
    receivers = [(head[0], MLP)]
    for layer in range(head[0] + 1, anatomy.layers):
        receivers += [(layer, one) for one in (*anatomy.blocks[layer].numbers.kept, MLP)]

    def changed(run: PathReplay, means: _Means) -> Iterator[Tensor]:
        sent = run.sent(head, means)
        for layer, one in receivers:
            if one == MLP:
                yield run.through_mlp(sent, layer)
            else:
                yield run.through_head(sent, (layer, one))
        yield run.straight(sent)

    parts = (*receivers, READOUT)
    return _predicted(model, anatomy, pixel_values, head, reference, batch, parts, changed)


@dataclass(frozen=True)
class _Means:
    """What every head and every MLP writes on average, per token position."""

    heads: list[Float[Tensor, "1 token head size"]]
    mlps: list[Float[Tensor, "1 token hidden"]]


class PathReplay(DirectReplay):
    """A replay of some images that can send a change of one part into another part alone."""

    def sent(self, part: Head, means: _Means) -> Float[Tensor, "image token hidden"]:
        """What the residual stream lacks and gets once this part writes its mean."""
        layer, one = part
        if one == MLP:
            return means.mlps[layer] - self.mlp_output(layer)
        difference = means.heads[layer][:, :, one] - self.heads[layer][:, :, one]
        return self._scales[layer] * self._projected(layer, one, difference)

    def mlp_output(self, layer: int) -> Float[Tensor, "image token hidden"]:
        """What a layer's MLP adds to the residual stream."""
        block = self.anatomy.blocks[layer]
        own = block.numbers.pick(self.heads[layer], 2).flatten(2)
        return self._after(layer) - self._inputs[layer] - self._scales[layer] * block.output(own)

    def through_head(self, sent: Tensor, head: Head) -> Float[Tensor, "image target"]:
        """The answer where one head alone reads the residual stream with `sent` added."""
        layer, one = head
        seen: list[Tensor] = []
        handle = self.anatomy.blocks[layer].output.register_forward_pre_hook(
            lambda _module, inputs: seen.append(inputs[0])
        )
        try:
            self._run(layer, self._inputs[layer] + sent)
        finally:
            handle.remove()
        numbers = self.anatomy.blocks[layer].numbers
        new = numbers.spread(seen[0].unflatten(-1, (len(numbers.kept), numbers.size)), 2)[:, :, one]
        change = self._projected(layer, one, new - self.heads[layer][:, :, one])
        return self.resume(layer, self._every(change), change)

    def through_mlp(self, sent: Tensor, layer: int) -> Float[Tensor, "image target"]:
        """The answer where one layer's MLP alone reads `sent`, also what a head of the same layer sends.

        That layer's attention keeps what it wrote on the unchanged image, so it makes no difference to the MLP whether
        `sent` enters the residual stream before or after it.
        """
        block = self.anatomy.blocks[layer]
        own = block.output(block.numbers.pick(self.heads[layer], 2).flatten(2))
        hidden = self._run(layer, self._inputs[layer] + sent, own) - sent
        return self._from(layer + 1, hidden)

    def straight(self, sent: Tensor) -> Float[Tensor, "image target"]:
        """The answer with `sent` added to the last hidden state alone."""
        return self._tail(self._cls + sent[:, :1])

    def whole(self, head: Head, means: _Means) -> Float[Tensor, "image target"]:
        """The answer with the head replaced by its mean, everything after it following."""
        layer, one = head
        change = self._projected(layer, one, means.heads[layer][:, :, one] - self.heads[layer][:, :, one])
        return self.resume(layer, self._every(change), change)

    def _projected(self, layer: int, one: int, difference: Tensor) -> Tensor:
        """One head's output times its columns of the output projection."""
        columns = self.anatomy.columns(one, layer)
        return nn.functional.linear(difference, self.anatomy.blocks[layer].output.weight[:, columns])

    def _after(self, layer: int) -> Tensor:
        """The residual stream after a layer."""
        return self._inputs[layer + 1] if layer < self._last else self._run(layer, self._inputs[layer])

    def _from(self, layer: int, hidden: Tensor) -> Tensor:
        for later in range(layer, self._last):
            hidden = self._run(later, hidden)
        if layer <= self._last:
            return self._finish(hidden)
        return self._tail(hidden[:, :1] if self._cls_tail else hidden)

    @staticmethod
    def _every(change: Tensor) -> Tensor:
        return torch.arange(len(change), device=change.device)


def _checked(model: nn.Module, pixel_values: Tensor, head: Head) -> Anatomy:
    anatomy = check_model(model)
    anatomy.columns(head[1], head[0])
    verify(model, pixel_values)
    return anatomy


def _predicted(
    model: nn.Module,
    anatomy: Anatomy,
    pixel_values: Tensor,
    head: Head,
    reference: Tensor,
    batch: int,
    parts: tuple[Head, ...],
    changed: Callable[[PathReplay, _Means], Iterator[Tensor]],
) -> PathPredictions:
    weight = next(model.parameters())
    baselines, found, wholes = [], [], []
    with evaluating(model), torch.inference_mode():
        means = _means(model, anatomy, reference, batch)
        for images in pixel_values.split(batch):
            run = PathReplay(model, anatomy, images.to(weight))
            run.check()
            baselines.append(run.predictions)
            wholes.append(run.whole(head, means))
            found.append(torch.stack(list(changed(run, means))) if parts else run.predictions[None][:0])
    return PathPredictions(
        torch.cat(baselines).cpu().double(),
        torch.cat(found, 1).cpu().double(),
        torch.cat(wholes).cpu().double(),
        parts,
    )


def _means(model: nn.Module, anatomy: Anatomy, reference: Tensor, batch: int) -> _Means:
    weight = next(model.parameters())
    sums: list[Tensor] = []
    for images in reference.split(batch):
        run = PathReplay(model, anatomy, images.to(weight))
        added = [run.mlp_output(layer).sum(0, keepdim=True) for layer in range(anatomy.layers)]
        sums = [a + b for a, b in zip(sums, added, strict=True)] if sums else added
    return _Means(mean_outputs(model, reference, batch), [total / len(reference) for total in sums])
