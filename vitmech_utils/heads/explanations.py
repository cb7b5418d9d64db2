"""Maps that explain a whole prediction, patch by patch, and how well they do: to be held against exact region masks.

Two families. From attention: relevance carried through attention weights and their gradients (Chefer et al. 2021).
From pixels: gradient times difference to a reference, integrated gradients (Sundararajan et al. 2017), and the same
gradient with attention weights and the norms' spreads held fixed, so that relevance is conserved where layers are
(Ali et al. 2022). Attention itself and its rollout are in `heads.attention`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.attention import patch_grid
from vitmech_utils.heads.check import watch_projections
from vitmech_utils.heads.hooks import change_heads
from vitmech_utils.heads.linearized import blocks_in, frozen
from vitmech_utils.heads.projections import Projections
from vitmech_utils.heads.replacements import check_model, evaluating, verify
from vitmech_utils.heads.replay import predict
from vitmech_utils.model.anatomy import Anatomy, AttentionBlock

Maps = Float[Tensor, "image output row column"]


@checked_arguments(finite=("pixel_values",), least={"batch": 1})
def attention_relevance(model: nn.Module, pixel_values: Float[Tensor, "image ..."], batch: int = 4) -> Maps:
    """How much each patch is relevant to each output, through attention weights and their gradients.

    Relevance starts as the identity and is carried layer by layer: R becomes R + E[|A * dy/dA|] R, the mean over heads
    (Chefer et al. 2021, eq. 5 and 6, with absolute values in place of positive parts, since a number may be moved
    either way). Read at the tokens that the answer reads. Float32 on the CPU. Raises `AnatomyError` where the model's
    attention weights are not known, `ValueError` for an answer that is not [image, output].
    """
    verify(model, pixel_values)
    weight = next(model.parameters())
    found: list[Tensor] = []
    with evaluating(model), frozen(model):
        for images in pixel_values.split(batch):
            seen: dict[int, Projections] = {}
            written: dict[int, Tensor] = {}

            def keep(layer: int, written: dict[int, Tensor] = written) -> Callable[[Tensor], Tensor]:
                def pass_on(present: Tensor) -> Tensor:
                    written[layer] = present if present.requires_grad else present.detach().requires_grad_()
                    return written[layer]

                return pass_on

            with ExitStack() as stack:
                stack.enter_context(torch.enable_grad())
                check = stack.enter_context(
                    watch_projections(
                        model, lambda one, seen=seen: seen.__setitem__(one.layer, one), pixel_values
                    )
                )
                layers = range(check.anatomy.layers)
                stack.enter_context(change_heads(model, {layer: keep(layer) for layer in layers}))
                outputs = _numbers(predict(model, images.to(weight)))
            rows = check.query if isinstance(check.query, slice) else list(check.query)
            carried = _carried(outputs, seen, written, check.order)
            found.append(carried[:, :, rows, check.anatomy.prefix :].mean(2).cpu())
    return torch.cat(found).unflatten(-1, patch_grid(pixel_values, check.anatomy))


def _carried(
    outputs: Float[Tensor, "image output"],
    seen: dict[int, Projections],
    written: dict[int, Tensor],
    order: Tensor | None,
) -> Float[Tensor, "image output token token"]:
    """Relevance of every token to every token after the last layer, output by output."""
    tokens = seen[0].tokens
    carried = []
    for gradients in _by_output(outputs, list(written.values())):
        relevance = torch.eye(tokens, device=outputs.device).expand(len(outputs), -1, -1)
        for layer, gradient in zip(written, gradients, strict=True):
            parts = seen[layer]
            if not parts.numbers.kept:
                continue
            # A head writes A v, so the gradient at a weight is that at what is written, along the value.
            gradient = gradient if order is None else gradient.index_select(1, order.to(gradient.device))
            by_head = parts.numbers.pick(gradient, 2).float().transpose(1, 2)
            slope = by_head @ parts.value.transpose(-1, -2)
            step = (parts.scores(slice(None)).softmax(-1) * slope).abs().mean(1)
            relevance = relevance + step @ relevance
        carried.append(relevance)
    return torch.stack(carried, 1)


@checked_arguments(finite=("pixel_values", "reference"), least={"batch": 1, "steps": 1})
def pixel_relevance(
    model: nn.Module,
    pixel_values: Float[Tensor, "image channel height width"],
    reference: Float[Tensor, "own_channel own_height own_width"],
    steps: int = 1,
    conserve: bool = False,
    batch: int = 8,
    dtype: torch.dtype | None = None,
) -> Maps:
    """How much each patch moves each output away from what it is for a `reference` picture, to first order.

    The gradient times the difference to the reference, summed over a patch's pixels and channels. With one step the
    gradient is that of the picture itself; with more, the mean over as many places between reference and picture, in
    the middle of equal parts: integrated gradients, whose sum over patches approaches the output's own difference.
    `conserve` holds attention weights and the spread within layer norms fixed while gradients are taken. `dtype`
    torch.bfloat16 multiplies matrices in it, without `conserve`. Float32 on the CPU. Raises `ValueError` for a
    reference of another size, for an answer that is not [image, output], and for `dtype` beside `conserve`.
    """
    if reference.shape != pixel_values.shape[1:]:
        raise ValueError(
            f"reference has shape {tuple(reference.shape)}, expected that of an image, {tuple(pixel_values.shape[1:])}"
        )
    if conserve and dtype is not None:
        raise ValueError(f"conserve was given with dtype {dtype}, expected the model's own precision (None)")
    anatomy = check_model(model)
    verify(model, pixel_values)
    rows, columns = patch_grid(pixel_values, anatomy)
    weight = next(model.parameters())
    found = []
    with evaluating(model), frozen(model), blocks_in(dtype, anatomy):
        for images in pixel_values.split(batch):
            images, start = images.to(weight), reference.to(weight)
            total: Tensor | None = None
            for step in range(steps):
                part = 1.0 if steps == 1 else (step + 0.5) / steps
                place = (start + part * (images - start)).detach().requires_grad_()
                with torch.enable_grad(), _conserving(model, anatomy, place, conserve):
                    outputs = _numbers(predict(model, place))
                gradient = torch.stack([one for (one,) in _by_output(outputs, [place])], 1)
                total = gradient / steps if total is None else total + gradient / steps
            moved = (total * (images - start)[:, None]).sum(2)
            patches = moved.unflatten(-1, (columns, -1)).unflatten(-3, (rows, -1)).sum((-3, -1))
            found.append(patches.float().cpu())
    return torch.cat(found)


@contextmanager
def _conserving(model: nn.Module, anatomy: Anatomy, images: Tensor, conserve: bool) -> Iterator[None]:
    """While active, gradients pass values and residuals, no attention weights, and norms as if of fixed spread."""
    if not conserve:
        yield
        return
    weights: dict[int, Tensor] = {}
    values: dict[int, Tensor] = {}

    def receive(parts: Projections) -> None:
        weights[parts.layer] = parts.scores(slice(None)).softmax(-1)

    def by_values(block: AttentionBlock) -> Callable[[Tensor], Tensor]:
        def pass_on(present: Tensor) -> Tensor:
            numbers, order = block.numbers, check.order
            value = values.pop(block.index).unflatten(-1, (len(numbers.kept), numbers.size)).transpose(1, 2)
            value = value if order is None else value.index_select(2, order.to(value.device))
            mixed = weights.pop(block.index).to(value) @ value
            mixed = mixed if order is None else mixed.index_select(2, order.argsort().to(value.device))
            # The numbers stay those of the model's own kernel; gradients are those of the product.
            again = numbers.spread(mixed, 1).transpose(1, 2)
            return again + (present - again).detach()

        return pass_on

    def hold(norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        (given,) = inputs
        centred = given - given.mean(-1, keepdim=True)
        spread = (centred.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt().detach()
        again = centred / spread * norm.weight + norm.bias
        return again + (output - again).detach()

    def note(block: AttentionBlock) -> torch.utils.hooks.RemovableHandle:
        *_, part = block.known_parts("conserving relevance")

        def hook(_linear: nn.Module, _inputs: tuple, output: Tensor) -> None:
            values[block.index] = output[..., part.rows]

        return part.linear.register_forward_hook(hook)

    blocks = [block for block in anatomy.blocks if block.numbers.kept]
    handles = [note(block) for block in blocks]
    handles += [
        module.register_forward_hook(hold)
        for module in model.modules()
        if isinstance(module, nn.LayerNorm) and module.elementwise_affine and module.bias is not None
    ]
    try:
        with (
            watch_projections(model, receive, images.detach()) as check,
            change_heads(model, {block.index: by_values(block) for block in blocks}),
        ):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _numbers(answer: Tensor) -> Float[Tensor, "image output"]:
    if answer.ndim != 2:
        raise ValueError(
            f"the answer has shape {tuple(answer.shape)}, expected [image, output]: a few numbers per image"
        )
    return answer


def _by_output(outputs: Float[Tensor, "image output"], places: list[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """The gradients of each output at some places; images do not meet in the model, so one pass serves all of them."""
    count = outputs.shape[1]
    for output in range(count):
        yield torch.autograd.grad(
            outputs[:, output].sum(), places, retain_graph=output + 1 < count, materialize_grads=True
        )


# How well a map explains


@checked_arguments(finite=("maps",))
def average_precision(
    maps: Float[Tensor, "image row column"], shown: Bool[Tensor, "other own_row own_column"]
) -> Float[Tensor, " image"]:
    """How far the patches that show something come first when a map orders them: 1 if all do, their share by chance.

    The mean, over those patches, of the share of them among all that rank as high or higher; patches of equal score
    share a rank. NaN for an image that shows nothing. Raises `ValueError` for shapes that differ.
    """
    if maps.shape != shown.shape:
        raise ValueError(
            f"maps have shape {tuple(maps.shape)}, shown {tuple(shown.shape)}, expected the same"
        )
    scores, wanted = maps.flatten(1).double(), shown.flatten(1)
    as_high = scores[:, None, :] >= scores[:, :, None]  # [image, patch, others]
    above, hits = as_high.sum(-1), (as_high & wanted[:, None, :]).sum(-1)
    precision = torch.where(wanted, hits / above, 0.0)
    count = wanted.sum(1)
    return torch.where(count > 0, precision.sum(1) / count.clamp_min(1), torch.nan)


@checked_arguments(finite=("maps",))
def mass_on(
    maps: Float[Tensor, "image row column"], covered: Float[Tensor, "other own_row own_column"]
) -> Float[Tensor, " image"]:
    """The share of a map's sum, no score below zero, that lies on what covers [0, 1] of each patch; NaN of no sum."""
    if maps.shape != covered.shape:
        raise ValueError(
            f"maps have shape {tuple(maps.shape)}, covered {tuple(covered.shape)}, expected the same"
        )
    scores = maps.double().clamp_min(0).flatten(1)
    return (scores * covered.double().flatten(1)).sum(1) / scores.sum(1)


@checked_arguments(finite=("pixel_values", "donors", "maps"), least={"batch": 1})
def predict_without_patches(
    model: nn.Module,
    pixel_values: Float[Tensor, "image channel height width"],
    donors: Float[Tensor, "donor channel height width"],
    maps: Float[Tensor, "mapped row column"],
    counts: Sequence[int],
    batch: int = 16,
) -> Float[Tensor, "count image output"]:
    """Predict every image with its `count` patches of highest score taken from its donor, for each of `counts`.

    Donors are other pictures of the same kind, so that what is put in could have stood there. Of equal scores the
    earlier patch goes first. In the model's dtype, on the CPU. Raises `ValueError` for shapes that do not fit and
    counts that no picture has.
    """
    anatomy = check_model(model)
    grid = patch_grid(pixel_values, anatomy)
    if donors.shape != pixel_values.shape or maps.shape != (len(pixel_values), *grid):
        raise ValueError(
            f"donors have shape {tuple(donors.shape)} and maps {tuple(maps.shape)}, expected "
            f"{tuple(pixel_values.shape)} and {(len(pixel_values), *grid)}"
        )
    patches = grid[0] * grid[1]
    if wrong := [count for count in counts if not 0 <= count <= patches]:
        raise ValueError(f"counts has {wrong[0]}, expected 0 to {patches} patches")
    weight = next(model.parameters())
    order = ranks(maps)
    found = []
    with evaluating(model), torch.inference_mode():
        for count in counts:
            taken = (order < count).unflatten(1, grid)
            pixels = taken.repeat_interleave(anatomy.patch, 1).repeat_interleave(anatomy.patch, 2)[:, None]
            mixed = torch.where(pixels, donors, pixel_values)
            said = [_numbers(predict(model, part.to(weight))).cpu() for part in mixed.split(batch)]
            found.append(torch.cat(said))
    return torch.stack(found)


@checked_arguments(finite=("maps",))
def ranks(maps: Float[Tensor, "image row column"]) -> Int[Tensor, "image patch"]:
    """The place of each patch, row by row, when they are ordered by score: 0 for the highest, of equals the earlier."""
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1)
