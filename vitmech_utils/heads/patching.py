"""Activation patching: some heads write what they write on another image (Zhang and Nanda 2024)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitmech_utils.heads.hooks import Head, change_heads
from vitmech_utils.heads.replacements import evaluating, head_outputs
from vitmech_utils.heads.replay import predict


def patch_heads(
    model: nn.Module,
    pixel_values: Float[Tensor, "image 3 height width"],
    donors: Float[Tensor, "donor 3 height width"],
    sets: Sequence[Collection[Head]],
    batch: int = 8,
) -> Float[Tensor, "set image target"]:
    """Predict images while, set by set, some heads write what they write on another image, `donors[i]` for image i.

    With clean images as donors of attacked ones: what is left of an attack once these heads do not see it (activation
    patching; Zhang and Nanda 2024). Raises `ValueError` where images and donors differ in shape.
    """
    if donors.shape != pixel_values.shape:
        raise ValueError(
            f"donors have shape {tuple(donors.shape)}, expected {tuple(pixel_values.shape)}: one donor per image"
        )
    weight = next(model.parameters())
    found: list[list[Tensor]] = [[] for _ in sets]
    with evaluating(model), torch.inference_mode():
        for images, other in zip(pixel_values.split(batch), donors.split(batch), strict=True):
            written = head_outputs(model, other)
            for heads, parts in zip(sets, found, strict=True):
                with change_heads(
                    model, {(layer, head): written[layer][:, :, head] for layer, head in heads}
                ):
                    parts.append(predict(model, images.to(weight)).cpu().double())
    return torch.stack([torch.cat(parts) for parts in found])
