"""One head taken apart: what its queries ask, what its keys answer, what its values write, and where it can be pointed.

Heads are pairs of layer and head, both 0-based; tokens stand as the model has them (CLS first).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.hooks import Head, capture_heads, change_heads
from vitmech_utils.heads.replacements import check_model, evaluating, verify
from vitmech_utils.heads.replay import TOLERANCE, Replay, ReplayError, predict
from vitmech_utils.model.anatomy import Anatomy, AnatomyError, Projection
from vitmech_utils.tasks import to_float64


@dataclass(frozen=True)
class HeadReading:
    """What one head compares and moves, for every image and token, and the model's answer on the same images."""

    query: Float[Tensor, "image token size"]
    key: Float[Tensor, "image token size"]
    value: Float[Tensor, "image token size"]
    predictions: Float[Tensor, "image ..."]

    @property
    def scores(self) -> Float[Tensor, "image query token"]:
        """What the softmax turns into weights."""
        return self.query @ self.key.transpose(1, 2) * self.query.shape[-1] ** -0.5

    @property
    def weights(self) -> Float[Tensor, "image query token"]:
        """Attention weights; each row sums to 1."""
        return self.scores.softmax(-1)

    @property
    def output(self) -> Float[Tensor, "image token size"]:
        """What the head writes at every token, before the output projection."""
        return self.weights @ self.value

    def mean_weights(self, prefix: int) -> Float[Tensor, "image patch"]:
        """Attention of all queries alike, over the patches alone; each row sums to 1."""
        mean = self.weights.mean(1)[:, prefix:]
        return mean / mean.sum(1, keepdim=True)

    def __getitem__(self, images: slice) -> HeadReading:
        """The same of some of the images."""
        return replace(self, **{field.name: getattr(self, field.name)[images] for field in fields(self)})


@checked_arguments(finite=("pixel_values",), least={"batch": 1})
def read_head(
    model: nn.Module, pixel_values: Float[Tensor, "image ..."], head: Head, batch: int = 16
) -> HeadReading:
    """Queries, keys and values of one head for every token, in the model's dtype, on the CPU; see `read_heads`."""
    return read_heads(model, pixel_values, [head], batch)[head]


@checked_arguments(finite=("pixel_values",), least={"batch": 1})
def read_heads(
    model: nn.Module, pixel_values: Float[Tensor, "image ..."], heads: Iterable[Head], batch: int = 16
) -> dict[Head, HeadReading]:
    """Queries, keys and values of some heads for every token, in the model's dtype, on the CPU; one pass for all.

    What is returned is held against what the heads write: raises `AnatomyError` where a softmax of queries times keys
    does not give it (rotary positions, a bias), `IndexError` for a head that is not there.
    """
    anatomy = check_model(model)
    columns = {head: anatomy.columns(head[1], head[0]) for head in dict.fromkeys(heads)}
    layers = sorted({layer for layer, _ in columns})
    weight = next(model.parameters())
    verify(model, pixel_values)
    parts: dict[Head, list[HeadReading]] = {head: [] for head in columns}
    with evaluating(model), torch.inference_mode(), capture_heads(model, layers) as written:
        for images in pixel_values.split(batch):
            with _read(anatomy, layers) as read:
                answer = predict(model, images.to(weight))
            for head in columns:
                parts[head].append(_part(anatomy, head, read, answer, written[head[0]]))
    return {head: _joined(found) for head, found in parts.items()}


def _part(
    anatomy: Anatomy, head: Head, read: Mapping[int, Mapping[str, Tensor]], answer: Tensor, written: Tensor
) -> HeadReading:
    """One head's part of what its block read, held against what all heads of the block wrote."""
    layer, number = head
    query, key, value = (
        read[layer][name][..., anatomy.columns(number, layer)] for name in ("query", "key", "value")
    )
    part, own = HeadReading(query, key, value, answer), written[:, :, number]
    if (part.output - own).abs().max() > TOLERANCE[own.dtype] * own.abs().max().clamp_min(1e-6):
        raise AnatomyError(
            f"{anatomy.blocks[layer].name}: softmax of queries times keys does not give what head {number} writes "
            "(rotary positions, a bias, another scale?), so it cannot be taken apart this way"
        )
    return part


def _joined(parts: list[HeadReading]) -> HeadReading:
    return HeadReading(
        **{
            field.name: torch.cat([getattr(part, field.name) for part in parts]).cpu()
            for field in fields(HeadReading)
        }
    )


@checked_arguments()
def logit_shares(
    reading: HeadReading,
    reference: HeadReading,
    tokens: slice = slice(1, None),
    rng: np.random.Generator | None = None,
) -> dict[str, float]:
    """How much of the variance of a head's logits over the keys of each query is place, and how much content.

    A query and a key are each the mean over the images of `reference` at that token, plus the rest. A logit is then,
    exactly, the sum of three products: mean query by mean key (`place`: the position embedding, and whatever else all
    images have there), mean query by the key's rest (`content`), and the query's rest by the key (`query content`).
    Each part's share is its covariance with the logit over the keys `tokens` over the logit's variance, all queries
    together; shares sum to 1, and one may be negative. With `rng` the mean keys are shuffled among the `tokens`: a
    control under which `place` should explain nothing. Raises `ValueError` where the readings differ in tokens.
    """
    if reading.key.shape[1:] != reference.key.shape[1:]:
        raise ValueError(
            f"the readings are of {reading.key.shape[1]} and {reference.key.shape[1]} tokens, expected the same model"
        )
    mean_query, mean_key = (to_float64(values).mean(0) for values in (reference.query, reference.key))
    mean_key = mean_key[tokens]
    if rng is not None:
        mean_key = mean_key[torch.from_numpy(rng.permutation(len(mean_key)))]
    sums = dict.fromkeys(("place", "content", "query content"), 0.0)
    total = 0.0
    for query, key in zip(reading.query, reading.key, strict=True):
        query, key = to_float64(query), to_float64(key)[tokens]
        parts = {
            "place": mean_query @ mean_key.T,
            "content": mean_query @ (key - mean_key).T,
            "query content": (query - mean_query) @ key.T,
        }
        centred = {name: part - part.mean(1, keepdim=True) for name, part in parts.items()}
        whole = sum(centred.values())
        total += float((whole * whole).sum())
        for name, part in centred.items():
            sums[name] += float((part * whole).sum())
    return {name: value / total if total else float("nan") for name, value in sums.items()}


@checked_arguments(finite=("pixel_values",), least={"batch": 1})
def head_gradients(
    model: nn.Module, pixel_values: Float[Tensor, "image ..."], head: Head, batch: int = 16
) -> Float[Tensor, "image target token size"]:
    """The gradient of each number of the answer in what one head writes at each token: the readout, linearized.

    It goes through all that follows the head: later layers, the final norm and the regression head. In the model's
    dtype, on the CPU. Raises `ValueError` where the answer is not [image, target].
    """
    anatomy = check_model(model)
    anatomy.columns(head[1], head[0])
    weight = next(model.parameters())
    verify(model, pixel_values)
    found = []
    with evaluating(model), torch.enable_grad(), _frozen(model):
        for images in pixel_values.split(batch):
            kept: list[Tensor] = []

            def keep(present: Tensor, kept: list[Tensor] = kept) -> Tensor:
                kept.append(present.detach().requires_grad_())
                return kept[0]

            with change_heads(model, {head: keep}):
                answer = predict(model, images.to(weight))
            if answer.ndim != 2:
                raise ValueError(
                    f"the answer has shape {tuple(answer.shape)}, expected [image, target]: a few numbers per image"
                )
            targets = range(answer.shape[1])
            gradients = [
                torch.autograd.grad(answer[:, target].sum(), kept[0], retain_graph=target + 1 < len(targets))[
                    0
                ]
                for target in targets
            ]
            found.append(torch.stack(gradients, 1).cpu())
    return torch.cat(found)


@checked_arguments()
def value_writes(
    reading: HeadReading, gradients: Float[Tensor, "image target token size"]
) -> Float[Tensor, "image token target"]:
    """What one unit of attention on each key token writes onto the answer, to first order, if every query paid it.

    The key token's value times the readout's linearized directions (`head_gradients`), summed over the queries.
    """
    if gradients.shape[0] != reading.value.shape[0] or gradients.shape[-1] != reading.value.shape[-1]:
        raise ValueError(
            f"gradients have shape {tuple(gradients.shape)}, expected {reading.value.shape[0]} images and a last axis "
            f"of {reading.value.shape[-1]}: of the same head on the same images"
        )
    return torch.einsum("ijd,itd->ijt", reading.value, gradients.sum(2))


@checked_arguments(finite=("pixel_values",), least={"batch": 1})
def point_head(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    head: Head,
    reading: HeadReading,
    tokens: Int[Tensor, " chosen"],
    batch: int = 16,
) -> Float[Tensor, "image ..."]:
    """Predict images while every query of one head pays all its attention to one token, `tokens[i]` of image i.

    Exact, not to first order. `reading` is that head's on the same images (`read_head`). The values stay as they are:
    only where the head looks is changed. Raises `ValueError` for a token that the images lack.
    """
    if len(tokens) != len(pixel_values) or len(reading.value) != len(pixel_values):
        raise ValueError(
            f"{len(pixel_values)} images, {len(reading.value)} readings and {len(tokens)} tokens, expected as many of "
            "each"
        )
    _check_tokens(tokens, reading.value.shape[1])
    weight = next(model.parameters())
    moved = reading.value[torch.arange(len(tokens)), tokens][:, None]
    with evaluating(model), torch.inference_mode():
        found = []
        for start in range(0, len(pixel_values), batch):
            place = slice(start, start + batch)
            with change_heads(model, {head: moved[place]}):
                found.append(predict(model, pixel_values[place].to(weight)).cpu())
    return torch.cat(found)


@dataclass(frozen=True)
class Pointed:
    """What one head compares and moves, and what the model says where it is pointed at one token of each image."""

    reading: HeadReading
    predictions: Float[Tensor, "image ..."]


@checked_arguments(finite=("pixel_values",), least={"batch": 1})
def point_heads(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    heads: Iterable[Head],
    tokens: Int[Tensor, " chosen"],
    batch: int = 16,
) -> dict[Head, Pointed]:
    """`read_heads`, and `point_head` of each of them alone, at the same tokens: in one pass, resumed at each layer.

    Where the blocks cannot be resumed, each head takes a pass of its own. Errors are those of both functions.
    """
    anatomy, heads = check_model(model), list(dict.fromkeys(heads))
    layers = sorted({layer for layer, _ in heads})
    weight = next(model.parameters())
    verify(model, pixel_values)
    if len(tokens) != len(pixel_values):
        raise ValueError(f"{len(pixel_values)} images and {len(tokens)} tokens, expected as many of each")
    readings: dict[Head, list[HeadReading]] = {head: [] for head in heads}
    said: dict[Head, list[Tensor]] = {head: [] for head in heads}
    with evaluating(model), torch.inference_mode():
        for images, chosen in zip(pixel_values.split(batch), tokens.split(batch), strict=True):
            try:
                with _read(anatomy, layers) as read:
                    run = Replay(model, anatomy, images.to(weight))
            except ReplayError:
                return _point_each(model, pixel_values, heads, tokens, batch)
            for head in heads:
                part = _part(anatomy, head, read, run.predictions, run.heads[head[0]])
                _check_tokens(chosen, part.value.shape[1])
                readings[head].append(part)
                said[head].append(_resumed(run, anatomy, head, part, chosen).cpu())
    return {head: Pointed(_joined(readings[head]), torch.cat(said[head])) for head in heads}


def _point_each(
    model: nn.Module, pixel_values: Tensor, heads: list[Head], tokens: Tensor, batch: int
) -> dict[Head, Pointed]:
    readings = read_heads(model, pixel_values, heads, batch)
    return {
        head: Pointed(one, point_head(model, pixel_values, head, one, tokens, batch))
        for head, one in readings.items()
    }


def _resumed(run: Replay, anatomy: Anatomy, head: Head, part: HeadReading, tokens: Tensor) -> Tensor:
    """What the model says of a pass's images where one head of it writes the value of one token everywhere."""
    layer, number = head
    block, every = anatomy.blocks[layer], torch.arange(len(tokens), device=part.value.device)
    pointed = run.heads[layer].clone()
    pointed[:, :, number] = part.value[every, tokens.to(every.device)][:, None]
    before, after = (
        block.output(block.numbers.pick(each, 2).flatten(2)) for each in (run.heads[layer], pointed)
    )
    return run.resume(layer, every, after - before)


def _check_tokens(tokens: Tensor, count: int) -> None:
    if int(tokens.min()) < 0 or int(tokens.max()) >= count:
        raise ValueError(
            f"tokens go from {int(tokens.min())} to {int(tokens.max())}, expected 0 to {count - 1}"
        )


@contextmanager
def _read(anatomy: Anatomy, layers: Iterable[int]) -> Iterator[dict[int, dict[str, Tensor]]]:
    """Queries, keys and values [image, token, width] of blocks, as their projections first make them in a pass."""
    read: dict[int, dict[str, Tensor]] = {layer: {} for layer in layers}

    def hook(found: dict[str, Tensor], parts: Mapping[str, Projection]) -> Callable:
        def keep(linear: nn.Module, _inputs: tuple, output: Tensor) -> None:
            for name, part in parts.items():
                if part.linear is linear:
                    found.setdefault(name, output.detach()[..., part.rows])

        return keep

    with ExitStack() as stack:
        for layer, found in read.items():
            known = anatomy.blocks[layer].known_parts("taking a head apart")
            parts = dict(zip(("query", "key", "value"), known, strict=True))
            for linear in {id(part.linear): part.linear for part in parts.values()}.values():
                stack.callback(linear.register_forward_hook(hook(found, parts)).remove)
        yield read


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in trainable:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trainable:
            weight.requires_grad_(True)
