"""Gates that slide every head's output from its own to a replacement, for derivatives with respect to heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitmech_utils.heads.hooks import change_heads
from vitmech_utils.heads.precision import wide
from vitmech_utils.heads.replacements import HOOK_MODES, check_images, check_mode, check_model
from vitmech_utils.heads.replay import predict
from vitmech_utils.model.anatomy import Anatomy
from vitmech_utils.statistics import check_settings


def check_gated(
    model: nn.Module,
    pixel_values: Tensor,
    labels: Tensor,
    mode: str,
    targets: Sequence[str],
    donors: Tensor | None,
    reference: Tensor | None,
    bootstrap: int,
    confidence: float,
) -> Anatomy:
    """Check all that an estimate by gates is given, before any work; errors as in `sweep`."""
    check_settings(bootstrap, confidence)
    anatomy = check_model(model)
    check_images(pixel_values, labels, len(targets))
    check_mode(mode, pixel_values, donors, reference)
    if mode not in HOOK_MODES:
        raise ValueError(f"mode {mode!r} has no gates to slide, expected one of {', '.join(HOOK_MODES)}")
    return anatomy


@contextmanager
def open_gates(
    model: nn.Module, anatomy: Anatomy, images: Tensor, ends: Sequence[Tensor]
) -> Iterator[Float[Tensor, "layer image 1 head 1"]]:
    """Put a gate at every head: at 0, where all start, it writes its own output, at 1 `ends[layer]`."""
    gates = torch.zeros(
        anatomy.layers, len(images), 1, anatomy.heads, 1,
        dtype=images.dtype, device=images.device, requires_grad=True,
    )  # fmt: skip
    with change_heads(model, {layer: _slide(gates[layer], end) for layer, end in enumerate(ends)}):
        yield gates


def error_of(
    model: nn.Module, images: Tensor, truth: Float[Tensor, "image target"]
) -> Float[Tensor, " image"]:
    """Each image's squared error, averaged over the targets, in the widest floating point that there is."""
    return (wide(predict(model, images)) - wide(truth.to(images.device))).square().mean(1)


def _slide(gate: Tensor, end: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda present: present + gate * (end - present)
