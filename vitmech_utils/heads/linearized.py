"""All heads' predictions at once: the model's outputs, linearized in the head gates, one backward pass per output.

`first_order` differentiates the loss, and at a good model's minimum that slope is nothing. The outputs have a slope
there as everywhere: p + J takes the place of the prediction without the head, and the loss is the true one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.ablation import HeadPredictions, chosen_heads
from vitmech_utils.heads.check import check_heads
from vitmech_utils.heads.constants import (
    HeadConstants,
    HeadNoise,
    Reference,
    head_outputs,
    matched_noise,
)
from vitmech_utils.heads.hooks import change_heads
from vitmech_utils.heads.replacements import (
    HOOK_MODES,
    REFERRING,
    another_image,
    check_mode,
    check_model,
    evaluating,
    replacement,
    shown_modes,
)
from vitmech_utils.heads.replay import Replay, ReplayError, computing, predict
from vitmech_utils.heads.sets import Head, SetPredictions, checked_set, task_of
from vitmech_utils.model.anatomy import Anatomy
from vitmech_utils.model.half_attention import keeping_weights

MOST_OUTPUTS = 32
"""Beyond so many outputs, a backward pass for each costs more than ablating every head exactly."""
METHOD = "linearized"

# What is linearized, from the model's outputs for the images numbered by the slice: [image, quantity].
Reading = Callable[[Tensor, slice], Tensor]


@checked_arguments(least={"batch": 1})
def predict_linearized(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."] | Iterable[Tensor],
    mode: str = "mean",
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    reference: Reference | None = None,
    donors: Tensor | Iterable[Tensor] | None = None,
    reading: Reading | None = None,
    dtype: torch.dtype | None = None,
    batch: int = 16,
    seed: int = 0,
) -> HeadPredictions:
    """Predict every image without each of the heads, to first order in the head's gate.

    A gate slides a head's output from its own (0) to what `mode` puts there (1). The prediction without the head is
    p + J, with J the slope of the prediction in the gate at 0: the inner product of what the head's output changes by
    and the prediction's gradient at that output. One forward pass, and one backward pass per output, give it for all
    heads at once; `resample` adds a forward pass of the donors. It is exact where the prediction is a straight line in
    the gate. Modes and their arguments are those of `sweep`, without `published-code`.

    `pixel_values` (and with it `donors`) may also be an iterable of such arrays, each held no longer than needed; mode
    `mean` then asks for `reference`, `resample` for `donors`. `batch` bounds the images whose activations are held at
    once, hence the memory. `reading` turns the model's outputs into what is linearized (`margin`,
    `random_projection`); without it, the outputs themselves. `dtype` torch.bfloat16 multiplies matrices in it
    (autocast), for processors that have it; activations between blocks keep the model's precision.

    Returns predictions as `predict_without_heads` does, float64 on the CPU, `method` "linearized";
    `linearized_sets` makes those of sets of heads from them at no further cost. Raises what `sweep` does, and
    `ValueError` for more than `MOST_OUTPUTS` outputs. Source: the linear model inside a generalized Gauss-Newton step
    (Schraudolph 2002); the slope of the loss itself is `first_order`.
    """
    found = predict_linearized_modes(
        model, pixel_values, [mode], layers=layers, heads=heads, reference=reference, donors=donors,
        reading=reading, dtype=dtype, batch=batch, seed=seed,
    )  # fmt: skip
    return found[mode]


@checked_arguments()
def predict_linearized_modes(
    model: nn.Module,
    pixel_values: Float[Tensor, "image 3 height width"] | Iterable[Tensor],
    modes: Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    reference: Reference | None = None,
    donors: Tensor | Iterable[Tensor] | None = None,
    constants: HeadConstants | None = None,
    reading: Reading | None = None,
    dtype: torch.dtype | None = None,
    batch: int = 16,
    seed: int = 0,
) -> dict[str, HeadPredictions]:
    """`predict_linearized` by several modes for the price of one: the gradients are the same for all.

    `reference` and `donors` are for those of the modes that use them: `reference` are images for modes `mean` and
    `noise`, or what was computed from them: `HeadConstants` for `mean` alone, `HeadNoise`, whose means serve `mean`,
    where `noise` is among the modes. Mode `optimal` takes its `constants`.
    """
    anatomy = check_model(model)
    if not modes:
        raise ValueError("modes is empty, expected one mode or more")
    if constants is None and isinstance(reference, HeadConstants) and "optimal" in modes:
        constants, reference = reference, None
    means = reference.means if isinstance(reference, HeadNoise) and "noise" in modes else reference
    used = {"mean": means, "noise": reference, "optimal": constants}
    for mode in modes:
        _check_settings(
            mode, dtype, batch, pixel_values, used.get(mode), donors if mode == "resample" else None
        )
    for name, value, wanted in (
        ("reference", reference, ("mean", "noise")),
        ("donors", donors, ("resample",)),
        ("constants", constants, ("optimal",)),
    ):
        if value is not None and not set(wanted) & set(modes):
            raise ValueError(
                f"{name} was given for mode {', '.join(map(repr, modes))}, but only mode {shown_modes(wanted)} uses it"
            )
    tests = chosen_heads(anatomy, layers, heads)
    layer, head = (np.array(column, dtype=np.int64) for column in zip(*tests, strict=True))
    if reference is None:
        used |= dict.fromkeys(("mean", "noise"), pixel_values)
    baselines: list[Tensor] = []
    slopes: dict[str, list[Tensor]] = {mode: [] for mode in modes}
    fixed: dict[str, Sequence[Tensor]] = {}
    noise: HeadNoise | None = None
    run: Replay | None = None
    start = 0
    with evaluating(model), frozen(model), torch.no_grad(), ExitStack() as precision:
        for images, others in _batches(model, pixel_values, donors, "resample" in modes, batch, seed):
            if start == 0:
                # In the model's own precision, before its blocks compute in another.
                check_heads(model, images[:1])
                precision.enter_context(blocks_in(dtype, anatomy))
                run = _replay(model, anatomy, images[:1])
                for mode in modes:
                    if mode == "noise":
                        given = used[mode]
                        noise = (
                            given
                            if isinstance(given, HeadNoise)
                            else matched_noise(model, given, batch, seed)
                        )
                    elif mode != "resample":
                        given = {"reference": used[mode]} if mode in used else {}
                        fixed[mode] = replacement(model, anatomy, images, mode, batch=batch, **given)(0, 1)
            place = slice(start, start + len(images))
            with nullcontext() if run is None else run.last_block_for_cls():
                ends = dict(fixed)
                if others is not None:
                    ends["resample"] = head_outputs(model, others)
                if noise is not None:
                    ends["noise"] = noise.draw(images)
                baseline, found = _linearize(
                    model, anatomy, images, ends, {one for one, _ in tests}, reading, place
                )
            baselines.append(_finite(baseline, start))
            for mode, slope in found.items():
                slopes[mode].append(slope[layer, :, head])
            start = place.stop
    if not baselines:
        raise ValueError("pixel_values yields no images, expected at least one")
    baseline = torch.cat(baselines)
    # What a reading makes of the outputs is no longer what the model's own task is about.
    own = task_of(model) if reading is None else {}
    return {
        mode: HeadPredictions(
            baseline, baseline + torch.cat(slopes[mode], 1), layer, head, mode, METHOD, **own
        )
        for mode in modes
    }


@checked_arguments()
def linearized_sets(predictions: HeadPredictions, sets: Sequence[Iterable[Head]]) -> SetPredictions:
    """Predict without whole sets of heads from linearized predictions without single ones: p + the sum of their J.

    A set holds pairs of layer and head, 0-based; the empty set gives the baseline. What heads do together beyond the
    sum of their slopes is not in it. Raises `ValueError` for predictions of another method, a head named twice, or one
    that the predictions lack.
    """
    if predictions.method != METHOD:
        raise ValueError(
            f"these predictions were made by {predictions.method!r}, expected {METHOD!r}: sets of heads that are "
            "ablated exactly do not add up; use predict_without_sets"
        )
    chosen = tuple(checked_set(pairs) for pairs in sets)
    places = {pair: i for i, pair in enumerate(zip(predictions.layers, predictions.heads, strict=True))}
    missing = sorted(set().union(*chosen) - set(places))
    if missing:
        raise ValueError(f"no prediction without {missing[:3]} (layer, head): linearize these heads, too")
    slopes = predictions.ablated - predictions.baseline
    member = torch.zeros(len(chosen), len(slopes), dtype=slopes.dtype)
    for row, heads in enumerate(chosen):
        member[row, [places[pair] for pair in heads]] = 1
    ablated = predictions.baseline + torch.einsum("st,tio->sio", member, slopes)
    return SetPredictions(
        predictions.baseline, ablated, chosen, predictions.mode, METHOD, predictions.task, predictions.targets
    )


@checked_arguments()
def margin(labels: Tensor) -> Reading:
    """Linearize the margin of each image's own class over all others: one backward pass for any number of classes.

    The margin is m = z_label - logsumexp(other logits), [image, 1]; the cross-entropy is softplus(-m), in nats, which
    `tasks.margin_cross_entropy` gives. `labels` [image] are class numbers, 0-based. Raises `ValueError` for labels that
    are not.
    """
    if labels.ndim != 1 or labels.is_floating_point():
        raise ValueError(
            f"labels has shape {tuple(labels.shape)} and dtype {labels.dtype}, expected one class number per image "
            "([image], integers)"
        )

    def read(outputs: Tensor, images: slice) -> Float[Tensor, "image 1"]:
        own = labels[images].to(outputs.device)[:, None]
        classes = outputs.shape[1]
        if classes < 2 or len(own) != len(outputs) or own.min() < 0 or own.max() >= classes:
            raise ValueError(
                f"{len(labels)} labels from {int(labels.min())} to {int(labels.max())} do not fit images "
                f"{images.start} to {images.stop - 1} and {classes} logits, expected one class number per image, each "
                f"between 0 and {classes - 1}, and two classes or more"
            )
        others = outputs.scatter(1, own, -torch.inf).logsumexp(1, keepdim=True)
        return outputs.gather(1, own) - others

    return read


@checked_arguments()
def random_projection(outputs: int, directions: int = 8, seed: int = 0) -> Reading:
    """Linearize random sums of many outputs: their mean square is unbiased for the outputs' squared length.

    Reads [image, direction], each the sum of all `outputs` with signs drawn from `seed`: for a change d of the
    outputs, the mean over directions of (its reading)^2 has the expectation |d|^2 and a relative standard deviation of
    at most sqrt(2 / directions). Labels that go with it are read alike. Source: Hutchinson 1990.
    """
    if not 1 <= directions <= MOST_OUTPUTS:
        raise ValueError(
            f"directions is {directions}, expected 1 to {MOST_OUTPUTS}: each costs a backward pass"
        )
    signs = torch.from_numpy(np.random.default_rng(seed).choice([-1.0, 1.0], size=(outputs, directions)))

    def read(found: Tensor, _images: slice) -> Float[Tensor, "image direction"]:
        flat = found.flatten(1)
        if flat.shape[1] != outputs:
            raise ValueError(
                f"the model has {flat.shape[1]} outputs, expected the {outputs} that are projected"
            )
        return flat @ signs.to(flat)

    return read


def head_gradients(
    model: nn.Module,
    images: Float[Tensor, "image ..."],
    layers: Iterable[int],
    reading: Reading | None = None,
    place: slice | None = None,
) -> tuple[Float[Tensor, "image output"], dict[int, Tensor], Iterator[dict[int, Tensor]]]:
    """One batch's outputs, what heads of `layers` write, and output by output the gradients at what they write.

    Both dictionaries hold [image, token, head, size] by layer. Call it with the model's weights frozen and its modules
    in evaluation; the graph is freed after the last output.
    """
    lowest, *higher = sorted(layers)
    own: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[[Tensor], Tensor]:
        def pass_on(present: Tensor) -> Tensor:
            # Nothing below the lowest layer is asked for, so the graph begins at its heads.
            own[layer] = present.detach().requires_grad_() if layer == lowest else present
            return own[layer]

        return pass_on

    with torch.enable_grad(), change_heads(model, {layer: keep(layer) for layer in (lowest, *higher)}):
        outputs = _read(predict(model, images), reading, place or slice(0, len(images)))

    def gradients() -> Iterator[dict[int, Tensor]]:
        count = outputs.shape[1]
        for output in range(count):
            # Images do not meet in the model, so one pass for all of them gives each image's own gradient.
            column = torch.zeros_like(outputs)
            column[:, output] = 1
            found = torch.autograd.grad(
                outputs, list(own.values()), column, retain_graph=output + 1 < count, materialize_grads=True
            )
            yield dict(zip(own, found, strict=True))

    return outputs, own, gradients()


def _linearize(
    model: nn.Module,
    anatomy: Anatomy,
    images: Float[Tensor, "image ..."],
    ends: Mapping[str, Sequence[Tensor]],
    layers: Iterable[int],
    reading: Reading | None,
    place: slice,
) -> tuple[Float[Tensor, "image output"], dict[str, Float[Tensor, "layer image head output"]]]:
    """The outputs of one batch, and by mode their slopes in the gates of `layers` (zero elsewhere); float64, CPU."""
    outputs, own, gradients = head_gradients(model, images, layers, reading, place)
    gains = {
        mode: {
            layer: single(new[layer][:, : heads.shape[1]] - heads.detach()) for layer, heads in own.items()
        }
        for mode, new in ends.items()
    }
    shape = anatomy.layers, len(images), anatomy.heads, outputs.shape[1]
    slopes = {mode: single(outputs).new_zeros(shape) for mode in ends}
    for output, by_layer in enumerate(gradients):
        for layer, gradient in by_layer.items():
            for mode, slope in slopes.items():
                slope[layer, ..., output] = (gains[mode][layer] * single(gradient)).sum((1, 3))
    found = {mode: slope.cpu().double() for mode, slope in slopes.items()}
    return outputs.detach().cpu().double(), found


def _read(outputs: Tensor, reading: Reading | None, place: slice) -> Float[Tensor, "image output"]:
    """What is to be linearized, of a number of columns that is worth a backward pass each."""
    found = outputs if reading is None else reading(outputs, place)
    if found.ndim != 2 or len(found) != place.stop - place.start:
        raise ValueError(
            f"there are outputs of shape {tuple(found.shape)} to linearize, expected [image, output]: pass a reading "
            "that turns them into a few numbers per image"
        )
    if found.shape[1] > MOST_OUTPUTS:
        raise ValueError(
            f"there are {found.shape[1]} outputs to linearize, each of which costs a backward pass, expected at most "
            f"{MOST_OUTPUTS}: for a cross-entropy pass reading=margin(labels), which needs one pass, for a squared "
            f"error reading=random_projection({found.shape[1]}), or ablate exactly (predict_without_heads)"
        )
    if not found.requires_grad:
        raise ValueError(
            "the outputs carry no gradient back to the heads (detached, or computed without gradients), so there is "
            "nothing to linearize; ablate exactly (predict_without_heads)"
        )
    return found


def _batches(
    model: nn.Module,
    pixel_values: Tensor | Iterable[Tensor],
    donors: Tensor | Iterable[Tensor] | None,
    resampled: bool,
    batch: int,
    seed: int,
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Batches of images on the model's device and in its dtype, each with its donors where they are resampled."""
    mode = "resample" if resampled else "zero"
    weight = next(model.parameters())
    cycle = None
    if isinstance(pixel_values, Tensor):
        if resampled and donors is None:
            cycle = another_image(len(pixel_values), seed)
        parts = [(pixel_values, donors)]
    elif donors is None:
        parts = ((part, None) for part in pixel_values)
    else:
        parts = zip(pixel_values, donors, strict=True)
    for images, others in parts:
        check_mode(mode, images, others, None)
        for start in range(0, len(images), batch):
            place = slice(start, start + batch)
            given = images[cycle[place]] if cycle is not None else None if others is None else others[place]
            yield images[place].to(weight), None if given is None else given.to(weight)


def _replay(model: nn.Module, anatomy: Anatomy, image: Tensor) -> Replay | None:
    """A pass that knows whether the last block can be run for the CLS token alone; None where blocks do not resume."""
    try:
        return Replay(model, anatomy, image)
    except ReplayError:
        return None


def _check_settings(
    mode: str,
    dtype: torch.dtype | None,
    batch: int,
    pixel_values: Tensor | Iterable[Tensor],
    reference: Reference | None,
    donors: Tensor | Iterable[Tensor] | None,
) -> None:
    if mode not in HOOK_MODES:
        raise ValueError(
            f"mode is {mode!r}, expected one of {', '.join(HOOK_MODES)}: no other has gates to slide"
        )
    if dtype not in (None, torch.bfloat16, torch.float16):
        raise ValueError(
            f"dtype is {dtype}, expected torch.bfloat16, torch.float16, or None for the model's own"
        )
    if batch < 1:
        raise ValueError(f"batch is {batch}, expected at least 1 image")
    if isinstance(pixel_values, Tensor):
        if pixel_values.ndim != 4 or len(pixel_values) == 0:
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)}, expected [image, channel, height, width] with "
                "at least one image"
            )
        check_mode(mode, pixel_values, donors, reference)
        return
    for wanted, name, given in ((REFERRING, "reference", reference), (("resample",), "donors", donors)):
        if mode in wanted and given is None:
            raise ValueError(f"mode {mode!r} over images that come one batch after another needs {name}")
        if mode not in wanted and given is not None:
            raise ValueError(
                f"{name} was given for mode {mode!r}, but only mode {shown_modes(wanted)} uses it"
            )


def _finite(baseline: Float[Tensor, "image output"], start: int) -> Float[Tensor, "image output"]:
    broken = (~torch.isfinite(baseline)).any(1).nonzero().flatten().tolist()
    if broken:
        raise ValueError(
            f"the unchanged model's predictions are not finite for image(s) {[start + i for i in broken][:5]}; "
            "check the images and the model's weights, or run it in float32"
        )
    return baseline


def single(values: Tensor) -> Tensor:
    """In float32 at least: sums over tokens of what half precision holds."""
    return values.float() if values.element_size() < 4 else values


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Take no gradient of any weight for a while: the graph then keeps far less, and begins at the heads."""
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in trainable:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trainable:
            weight.requires_grad_(True)


@contextmanager
def blocks_in(dtype: torch.dtype | None, anatomy: Anatomy | None) -> Iterator[None]:
    """Let the blocks multiply matrices in `dtype`; what comes before and after them keeps the model's precision.

    Attention keeps its weights for the backward pass where that is faster (`keeping_weights`). None changes nothing.
    """
    with ExitStack() as stack:
        if dtype is not None:
            stack.enter_context(keeping_weights())
        for block in anatomy.blocks if dtype is not None else ():
            cast = torch.autocast(block.output.weight.device.type, dtype)
            stack.enter_context(computing(block.block, cast(block.block.forward)))
        yield
