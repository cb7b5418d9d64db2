"""What a head's output is replaced by: the ablation modes, one function each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.check import HeadCheck, check_heads
from vitmech_utils.heads.constants import (
    HeadConstants,
    HeadNoise,
    Reference,
    head_outputs,
    matched_noise,
    mean_constants,
)
from vitmech_utils.heads.effects import check_finite, check_labels
from vitmech_utils.model.anatomy import Anatomy, AnatomyError, AttentionBlock, find_blocks

HOOK_MODES = ("zero", "mean", "resample", "noise", "optimal", "qkv-weights")
MODES = (*HOOK_MODES, "published-code")
REFERRING = ("mean", "noise", "optimal")
"""The modes whose outputs come from a reference: images, or what was computed from them."""

# For images start..stop: one new output per layer, each broadcasting to [image, token, head, head_size].
Replacement = Callable[[int, int], list[Tensor]]


@checked_arguments(least={"batch": 1})
def replacement(
    model: nn.Module,
    anatomy: Anatomy,
    pixel_values: Float[Tensor, "image ..."],
    mode: str,
    *,
    reference: Reference | None = None,
    donors: Float[Tensor, "image ..."] | None = None,
    batch: int = 32,
    seed: int = 0,
) -> Replacement:
    """Prepare `mode`'s new head outputs.

    `zero`: nothing. `mean`: the mean over `reference` (default: the images themselves), per token position.
    `resample`: the same head's output on a donor image, `donors[i]` for image i (default: another of the
    images, no image its own donor); give the undecorated twins to remove only what decoration adds.
    `noise`: Gaussian noise with the mean and covariance of the head's outputs on `reference` (`matched_noise`).
    `optimal`: the constants that cost least, `optimal_constants`, which are the `reference`.
    `qkv-weights`: what the head writes when its query, key and value weights are zero and its biases are
    kept. Source of the modes: Michel et al. 2019 (zero); Zhang and Nanda 2024 (mean, resample); Li and Janson 2024
    (optimal).
    """
    verify(model, pixel_values)
    if mode == "zero":
        nothing = torch.zeros(1, 1, anatomy.heads, anatomy.head_size, **_like(model))
        return lambda _start, _stop: [nothing] * anatomy.layers
    if mode == "qkv-weights":
        constants = [constant_output(block, anatomy) for block in anatomy.blocks]
        return lambda _start, _stop: constants
    if mode in ("mean", "optimal"):
        if not isinstance(reference, HeadConstants):
            reference = mean_constants(model, pixel_values if reference is None else reference, batch)
        constants = fitting(reference, anatomy).like(model)
        return lambda _start, _stop: constants
    if mode == "noise":
        if not isinstance(reference, HeadNoise):
            reference = matched_noise(model, pixel_values if reference is None else reference, batch, seed)
        fitting(reference.means, anatomy)
        noise = reference
        return lambda start, stop: noise.draw(pixel_values[start:stop].to(**_like(model)))
    source = pixel_values[another_image(len(pixel_values), seed)] if donors is None else donors

    def resampled(start: int, stop: int) -> list[Tensor]:
        return head_outputs(model, source[start:stop])

    return resampled


@checked_arguments(least={"batch": 1})
def mean_outputs(
    model: nn.Module, pixel_values: Tensor, batch: int = 32
) -> list[Float[Tensor, "1 token head size"]]:
    """Every head's mean output over images, per token position, one array per layer (see `mean_constants`)."""
    return mean_constants(model, pixel_values, batch).like(model)


@checked_arguments(least={"batch": 1})
def averaged_references(
    model: nn.Module, reference: Reference | None, modes: Iterable[str], batch: int = 32
) -> dict[str, HeadConstants | HeadNoise]:
    """What `reference` gives those of modes `mean` and `noise` that are among `modes`: images are read once for both.

    What was computed from images before is handed on: `HeadConstants` to `mean`, `HeadNoise` to `noise` and, with its
    means, to `mean`. Raises `ValueError` for no reference, or for constants where noise is asked for, and what
    `check_model` raises.
    """
    wanted = [mode for mode in ("mean", "noise") if mode in modes]
    if not wanted:
        return {}
    if reference is None or ("noise" in wanted and isinstance(reference, HeadConstants)):
        raise ValueError(
            f"reference is {type(reference).__name__}, expected images or what was computed from them for mode "
            f"{shown_modes(wanted)}"
        )
    if isinstance(reference, Tensor):
        check_model(model)
        check_finite("reference", reference)
        with evaluating(model):
            read = matched_noise if "noise" in wanted else mean_constants
            reference = read(model, reference, batch)
    means = reference.means if isinstance(reference, HeadNoise) else reference
    return {mode: means if mode == "mean" else reference for mode in wanted}


@checked_arguments()
def fitting(constants: HeadConstants, anatomy: Anatomy) -> HeadConstants:
    """Constants that have the shape of a model's heads, else `ValueError`."""
    shapes = {tuple(output.shape[2:]) for output in constants.outputs}
    if len(constants.outputs) != anatomy.layers or shapes != {(anatomy.heads, anatomy.head_size)}:
        raise ValueError(
            f"these constants are for {len(constants.outputs)} layers of {sorted(shapes)} heads and sizes, and the "
            f"model has {anatomy.layers} of {(anatomy.heads, anatomy.head_size)}: compute them for this model"
        )
    return constants


@checked_arguments()
def constant_output(block, anatomy: Anatomy) -> Float[Tensor, "1 1 head size"]:
    """What heads write whose query, key and value weights are zero: their value bias, at every token.

    With only the biases left all attention logits of a head are equal, so it averages equal values.
    """
    attention = block.attention
    normalized = not isinstance(getattr(attention, "norm", None), nn.Identity | None)
    if normalized or getattr(attention, "gate", None) is not None:
        raise AnatomyError(
            f"{block.name}: its attention normalizes or gates the heads' outputs, so that zeroed weights leave "
            "no constant; use the modes zero, mean or resample"
        )
    check_linear(block, "mode qkv-weights")
    numbers = block.numbers
    bias = block.value.weight.new_zeros(numbers.width) if block.value.bias is None else block.value.bias
    return numbers.spread(bias.detach().reshape(1, 1, len(numbers.kept), numbers.size), 2)


@checked_arguments()
def another_image(images: int, seed: int) -> Tensor:
    """A random assignment image -> other image in which each is used once (one random cycle)."""
    order = np.random.default_rng([seed, images]).permutation(images)
    donor = np.empty(images, dtype=np.int64)
    donor[order] = np.roll(order, 1)
    return torch.from_numpy(donor)


@checked_arguments()
def check_model(model: nn.Module) -> Anatomy:
    """Find `model`'s heads without running it: `verify` follows once the arguments are known to be sound.

    Refuses unmerged adapters with `ValueError`, other models with `AnatomyError`.
    """
    check_merged(model)
    return find_blocks(model)


@checked_arguments()
def verify(model: nn.Module, pixel_values: Tensor | None = None) -> HeadCheck:
    """What `check_heads` finds of a model, on the first of these images; `AnatomyError` where heads are not as read."""
    found = check_heads(model, pixel_values)
    found.require_ablation()
    return found


@checked_arguments()
def check_merged(model: nn.Module) -> None:
    """Refuse a model with adapters that are not merged into its weights, with `ValueError`."""
    for name, module in model.named_modules():
        if not any(base.__name__ == "BaseTunerLayer" for base in type(module).__mro__):
            continue
        if module.active_adapters and not module.merged:
            kind = type(module).__module__.split(".")[-2].replace("lora", "LoRA")
            raise ValueError(
                f"{name} carries an unmerged {kind} adapter, expected plain weights: call merged() on the "
                "ChirpRegressor (or merge_and_unload() on a peft model) first"
            )


@checked_arguments()
def check_linear(block: AttentionBlock, what: str) -> None:
    """Refuse a layer whose query, key or value does more than multiply with its weight, with `ValueError`."""
    for name, part in zip(("query", "key", "value"), block.known_parts(what), strict=True):
        if part.packed or not block.numbers.kept:
            continue
        weight = part.linear.weight
        probe = torch.linspace(-1, 1, weight.shape[1], dtype=weight.dtype, device=weight.device)[None, None]
        with torch.no_grad():
            own, plain = part.linear(probe), nn.functional.linear(probe, weight, part.linear.bias)
        if not torch.allclose(own, plain, rtol=1e-2, atol=1e-3 * float(plain.abs().max())):
            raise ValueError(
                f"{block.name}: its {name} projection ({type(part.linear).__name__}) does more than multiply with its "
                f"weight, so {what} would not be what it says: merge what was added to it into the weight"
            )


@checked_arguments()
def shown_modes(modes: Sequence[str]) -> str:
    """Modes in words: 'mean', 'noise' or 'optimal'."""
    *first, last = (repr(mode) for mode in modes)
    return f"{', '.join(first)} or {last}" if first else last


def check_images(pixel_values: Tensor, labels: Tensor | None = None) -> None:
    """Refuse an empty set, a wrong shape, labels of another number of images, or values that are not finite."""
    check_shape(pixel_values)
    if labels is not None:
        check_labels(labels, len(pixel_values))
    check_finite("pixel_values", pixel_values)


def check_shape(pixel_values: Tensor) -> None:
    """Refuse what is no batch of images, with `ValueError`."""
    if pixel_values.ndim not in (3, 4) or len(pixel_values) == 0:  # spectrograms have no channels
        raise ValueError(
            f"pixel_values has shape {tuple(pixel_values.shape)}, expected [image, channel, height, width] with "
            "at least one image"
        )


def check_mode(
    mode: str,
    pixel_values: Tensor,
    donors: Tensor | None,
    reference: Reference | None,
) -> None:
    """Refuse an unknown mode, or donors and reference images that do not fit it, with `ValueError`."""
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}, expected one of {', '.join(MODES)}")
    if mode == "optimal" and not isinstance(reference, HeadConstants):
        raise ValueError(
            "mode 'optimal' needs reference=optimal_constants(model, other images, their labels)"
        )
    for name, images, belongs in (("donors", donors, ("resample",)), ("reference", reference, REFERRING)):
        if images is None:
            continue
        if mode not in belongs:
            raise ValueError(
                f"{name} was given for mode {mode!r}, but only mode {shown_modes(belongs)} uses it"
            )
        if isinstance(images, HeadConstants | HeadNoise):
            if isinstance(images, HeadNoise) != (mode == "noise"):
                raise ValueError(f"{name} is {type(images).__name__}, which is not for mode {mode!r}")
            continue
        if images.shape[1:] != pixel_values.shape[1:] or len(images) == 0:
            raise ValueError(
                f"{name} has shape {tuple(images.shape)}, expected images of {tuple(pixel_values.shape[1:])}"
            )
        check_finite(name, images)
    if donors is not None and len(donors) != len(pixel_values):
        raise ValueError(f"{len(donors)} donors for {len(pixel_values)} images, expected one donor per image")
    if mode == "resample" and donors is None and len(pixel_values) < 2:
        raise ValueError(
            "mode 'resample' needs donors, or at least two images that can be each other's donor"
        )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off for a while; every module gets its own mode back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _like(model: nn.Module) -> dict:
    weight = next(model.parameters())
    return {"dtype": weight.dtype, "device": weight.device}
