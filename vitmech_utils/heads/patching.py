"""Activation patching: some heads write what they write on another image (Zhang and Nanda 2024)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.constants import head_outputs
from vitmech_utils.heads.hooks import Head, change_heads
from vitmech_utils.heads.replacements import evaluating, verify
from vitmech_utils.heads.replay import predict
from vitmech_utils.heads.sets import losses_for
from vitmech_utils.tasks import Loss, Task


@checked_arguments(finite=("pixel_values", "donors"), least={"batch": 1})
def patch_heads(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    donors: Float[Tensor, "donor 3 height width"],
    sets: Sequence[Collection[Head]],
    batch: int = 8,
) -> Float[Tensor, "set image ..."]:
    """Predict images while, set by set, some heads write what they write on another image, `donors[i]` for image i.

    With clean images as donors of attacked ones: what is left of an attack once these heads do not see it (activation
    patching; Zhang and Nanda 2024). Raises `ValueError` where images and donors differ in shape.
    """
    return _patched(model, pixel_values, donors, sets, batch, lambda outputs, _images: outputs)


@checked_arguments(finite=("pixel_values", "donors"), least={"batch": 1})
def patched_losses(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    donors: Float[Tensor, "donor 3 height width"],
    sets: Sequence[Collection[Head]],
    labels: Tensor | None,
    task: Task | str | Loss | None = None,
    batch: int = 8,
) -> Float[Tensor, "set image target"]:
    """The losses of what `patch_heads` predicts, computed batch by batch; `labels` and `task` as in `sweep`.

    Without labels (divergence) they are held against what the unchanged model says of the same images.
    """
    keep = losses_for(model, pixel_values, labels, task)
    weight = next(model.parameters())

    def loss(outputs: Tensor, place: slice) -> Tensor:
        own = outputs
        if keep.task.own_answer:
            own = predict(model, pixel_values[place].to(weight))
        return keep(outputs, own, torch.arange(place.start, place.start + len(outputs)))

    with evaluating(model), torch.inference_mode():
        keep.begin(predict(model, pixel_values[:1].to(weight)), len(sets))
    return _patched(model, pixel_values, donors, sets, batch, loss)


def _patched(
    model: nn.Module,
    pixel_values: Tensor,
    donors: Tensor,
    sets: Sequence[Collection[Head]],
    batch: int,
    keep: Callable[[Tensor, slice], Tensor],
) -> Tensor:
    if donors.shape != pixel_values.shape:
        raise ValueError(
            f"donors have shape {tuple(donors.shape)}, expected {tuple(pixel_values.shape)}: one donor per image"
        )
    verify(model, pixel_values)
    weight = next(model.parameters())
    found: list[list[Tensor]] = [[] for _ in sets]
    with evaluating(model), torch.inference_mode():
        for start in range(0, len(pixel_values), batch):
            place = slice(start, start + batch)
            written = head_outputs(model, donors[place])
            for heads, parts in zip(sets, found, strict=True):
                with change_heads(
                    model, {(layer, head): written[layer][:, :, head] for layer, head in heads}
                ):
                    said = predict(model, pixel_values[place].to(weight))
                parts.append(keep(said, place).cpu().double())
    return torch.stack([torch.cat(parts) for parts in found])
