"""What of a model can be analysed, found by running it: each layer verified, or refused with the reason.

Names and shapes tell where heads should be. Whether they are there, what the attention weights are, which tokens are
patches and which token the answer reads, is told here by a few images' forward passes, once per model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import pandas as pd
import torch
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.projections import (
    Projections,
    mean_of_queries,
    one_query,
    watch_block,
    without_gradients,
)
from vitmech_utils.heads.replay import answer
from vitmech_utils.heads.softmax import Seen, watch_softmax
from vitmech_utils.model.anatomy import Anatomy, AnatomyError, AttentionBlock, find_blocks

TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""How far a value may lie from the model's own, relative to its largest: above rounding, below any missed operation."""
MOVED = {torch.float64: 1e-10, torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""By how much an answer moves, relative to its largest value, that reads a changed token."""
USUAL_SIDE = 224
MOST_TRIED = 16
"""Tokens before the patches that are tried one by one."""
__all__ = [
    "HeadCheck", "LayerCheck", "answer", "check_heads", "image_size", "mean_of_queries", "one_image", "one_query",
    "remember", "watch_projections",
]  # fmt: skip


@dataclass(frozen=True)
class LayerCheck:
    """One layer: what is wrong with its ablation or its maps (empty: verified), and where its maps come from."""

    layer: int
    name: str
    heads: int
    ablation: str
    maps: str
    source: str


@dataclass(frozen=True)
class HeadCheck:
    """What was found of a model. Prints as a table.

    `anatomy` has the number of tokens before the patches as they were found (any that come after the patches count
    among them), and `order` puts the model's tokens accordingly (None: they stand so). `reads` are the tokens, in that
    order, whose last state the answer depends on: numbers of tokens before the patches, and `patches` where it depends
    on them; None where the model gives no answer (a bare backbone). `trouble` is what is wrong with maps of all layers.
    """

    anatomy: Anatomy
    layers: tuple[LayerCheck, ...]
    grid: tuple[int, int] | None
    order: Tensor | None
    reads: tuple[int | str, ...] | None
    trouble: str
    repeatable: bool

    @property
    def query(self) -> tuple[int, ...] | slice:
        """The query tokens of the default map: what the answer reads; of a bare backbone CLS, or else the patches."""
        prefix = self.anatomy.prefix
        patches = slice(prefix, None)
        if self.reads is None:
            return (0,) if prefix else patches
        own = tuple(token for token in self.reads if isinstance(token, int))
        if "patches" not in self.reads:
            return own or ((0,) if prefix else patches)
        if not own:
            return patches
        return own + tuple(range(prefix, prefix + self.grid[0] * self.grid[1])) if self.grid else patches

    @property
    def token_counts(self) -> tuple[int, int]:
        """Numbers of tokens that are no patches, and of patches, of the image that was checked."""
        rows, columns = self.grid or (0, 0)
        return self.anatomy.prefix, rows * columns

    @property
    def query_name(self) -> str:
        """What the default query is called in tables: `cls` where it is the first token alone, else `read`."""
        return "cls" if self.query == (0,) else "read"

    @property
    def refused(self) -> bool:
        """Whether any layer's heads cannot be ablated."""
        return any(layer.ablation for layer in self.layers) or not self.repeatable

    def table(self) -> pd.DataFrame:
        """One row per layer (0-based): layer, name, heads, ablation, maps, each `verified` or the reason against."""
        return pd.DataFrame(
            {
                "layer": [one.layer for one in self.layers],
                "name": [one.name for one in self.layers],
                "heads": [one.heads for one in self.layers],
                "ablation": [one.ablation or self._unsteady or "verified" for one in self.layers],
                "maps": [
                    one.maps or self.trouble or self._unsteady or f"verified ({one.source})"
                    for one in self.layers
                ],
            }
        )

    def require_ablation(self) -> None:
        """Raise `AnatomyError` where a layer's heads cannot be ablated, naming it and the reason."""
        if self._unsteady:
            raise AnatomyError(self._unsteady)
        for layer in self.layers:
            if layer.ablation:
                raise AnatomyError(f"{layer.name}: {layer.ablation}")

    def require_maps(self) -> None:
        """Raise `AnatomyError` where attention maps would not be the model's own, naming the layer and the reason."""
        if self._unsteady:
            raise AnatomyError(self._unsteady)
        if self.trouble:
            raise AnatomyError(f"no attention maps: {self.trouble}")
        for layer in self.layers:
            if layer.maps:
                raise AnatomyError(f"{layer.name}: no attention maps: {layer.maps}")

    @property
    def _unsteady(self) -> str:
        if self.repeatable:
            return ""
        return (
            "two passes of the same image give different answers: the model shuffles its tokens, or draws numbers in "
            "evaluation mode (masked autoencoders do); pass the model that is used for analysis, such as its encoder "
            "without masking"
        )

    @property
    def facts(self) -> dict[str, str]:
        """What was found of the model as a whole, in words."""
        rows, columns = self.grid or (0, 0)
        prefix = self.anatomy.prefix
        if self.reads is None:
            reads = "not known"
        elif not self.reads:
            reads = "none of the tokens that were tried"
        else:
            own = [token for token in self.reads if token != "patches"]
            names = ["CLS" if token == 0 else f"token {token}" for token in own]
            if len(own) > 3:
                names = [f"{len(own)} tokens that are no patches"]
            reads = " and ".join([*names, *(["the patches"] if "patches" in self.reads else [])])
        default = "CLS" if self.query_name == "cls" else "the mean over what the answer reads"
        if self.query == slice(prefix, None):
            default = "the mean over all patches"
        last = "" if self.order is None else " (some stand after the patches)"
        return {
            "family": self.anatomy.family,
            "layers x heads": f"{self.anatomy.layers} x {self.anatomy.heads}, of {self.anatomy.head_size} dimensions",
            "tokens": f"{prefix} before {rows} x {columns} patches{last}" if self.grid else "not told apart",
            "patch": f"{self.anatomy.patch} pixels" if self.anatomy.patch else "not square, or not known",
            "the answer reads": reads,
            "default query of maps": default,
        }

    def __str__(self) -> str:
        width = max(len(name) for name in self.facts)
        lines = [f"{name.ljust(width)}  {fact}" for name, fact in self.facts.items()]
        rows = self.table()
        same = rows[["ablation", "maps"]].drop_duplicates()
        if len(same) == 1:
            first = same.iloc[0]
            lines.append(f"{'every layer'.ljust(width)}  ablation {first.ablation}; maps {first.maps}")
        else:
            lines.append(rows.to_string(index=False))
        return "\n".join(lines)


_REMEMBERED: WeakKeyDictionary[nn.Module, tuple[tuple, HeadCheck]] = WeakKeyDictionary()


@checked_arguments()
def check_heads(model: nn.Module, pixel_values: Tensor | None = None) -> HeadCheck:
    """Find by running `model` what of it can be analysed; remembered until its modules or weights change.

    Every function that reads or changes heads asks this first. It needs one image: the first of `pixel_values`
    [image, channel, height, width], or random pixels of the size that the configuration tells. Verified are, per layer:
    it ran once, its output projection reads [image, token, heads x size] and is linear in its weight, and what the
    heads write is their attention weights times their values, block by block of columns; and of the model: two passes
    agree, and which tokens are patches (a patch of the image is changed, and the token that changes is looked for), and
    which tokens' last state moves the answer.

    Raises `AnatomyError` where no attention blocks are found or the model does not run on images alone.
    """
    known = _known(model)
    if known is not None:
        return known
    anatomy = find_blocks(model)
    image = one_image(model, anatomy, pixel_values)
    found = _examine(model, anatomy, image)
    _REMEMBERED[model] = (_state(model), found)
    return found


@checked_arguments()
def remember(model: nn.Module, found: HeadCheck) -> None:
    """Let a check hold for a model that was proven to compute the same: a pruned copy."""
    _REMEMBERED[model] = (_state(model), found)


@checked_arguments()
@contextmanager
def watch_projections(
    model: nn.Module, receive: Callable[[Projections], None], pixel_values: Tensor | None = None
) -> Iterator[HeadCheck]:
    """While active, every forward pass hands each layer's `Projections` to `receive`, in layer order.

    They come from the query, key and value projections where these were proven to tell the attention weights, and
    else from the softmax itself, whatever kernel computes it. Yields the check, whose `anatomy` tells the order of
    tokens. Nothing is kept here: what `receive` does not store is freed layer by layer. Raises `AnatomyError` where
    the maps would not be the model's own.
    """
    found = check_heads(model, pixel_values)
    found.require_maps()
    # A model's modules are found anew, since the check may be that of a pruned copy's whole model.
    blocks = find_blocks(model).blocks

    def forward(projections: Projections) -> None:
        receive(projections.ordered(found.order))

    def traced(block: AttentionBlock, seen: Seen, written: Tensor) -> None:
        if seen.written() is None:
            raise AnatomyError(f"{block.name}: its softmax was seen in the check, but not in this pass")
        forward(seen.projections(block))

    by_softmax = [block for block, one in zip(blocks, found.layers, strict=True) if one.source == "softmax"]
    with ExitStack() as stack:
        for block, one in zip(blocks, found.layers, strict=True):
            if one.source != "softmax":
                stack.enter_context(watch_block(block, forward))
        if by_softmax:
            stack.enter_context(watch_softmax(by_softmax, traced))
        yield replace(found, anatomy=replace(found.anatomy, blocks=blocks))


def _known(model: nn.Module) -> HeadCheck | None:
    kept = _REMEMBERED.get(model)
    return kept[1] if kept is not None and kept[0] == _state(model) else None


def _state(model: nn.Module) -> tuple:
    """What a check depends on: modules, weights (by identity and version), and the attention kernel asked for."""
    parts: list = []
    for module in model.modules():
        parts.append(type(module))
        parts.extend(
            (id(value), _version(value)) for value in module._parameters.values() if value is not None
        )
        if (config := getattr(module, "config", None)) is not None:
            parts.append(getattr(config, "_attn_implementation", None))
        if "fused_attn" in vars(module):
            parts.append(module.fused_attn)
    return tuple(parts)


def _version(value: Tensor) -> int:
    return -1 if value.is_inference() else value._version


@checked_arguments()
def one_image(model: nn.Module, anatomy: Anatomy, pixel_values: Tensor | None) -> Tensor:
    """The first of some images, or random pixels of the size that the model tells; `AnatomyError` if it tells none."""
    weight = next(model.parameters())
    if pixel_values is not None and pixel_values.is_floating_point() and pixel_values.isfinite().all():
        return pixel_values[:1].to(weight)
    sizes = [size] if (size := image_size(model)) else []
    generator = torch.Generator().manual_seed(0)
    if sizes and max(sizes[0]) > USUAL_SIDE and anatomy.patch:
        usual = USUAL_SIDE // anatomy.patch * anatomy.patch
        sizes.insert(0, (usual, usual))
    for size in sizes:
        image = torch.rand(1, _channels(model), *size, generator=generator).to(weight)
        try:
            with without_gradients(model):
                model(image)
        except Exception:
            continue
        return image
    if not sizes:
        raise AnatomyError(
            f"{type(model).__name__} does not tell the size of its images: call check_heads(model, pixel_values) once, "
            "and what it finds is remembered"
        )
    return image


@checked_arguments()
def image_size(model: nn.Module) -> tuple[int, int] | None:
    """The height and width of images that a model says it takes, of the outermost module that says so."""
    for module in model.modules():
        config = getattr(module, "config", None)
        inner = (getattr(config, name, None) for name in ("vision_config", "backbone_config"))
        for holder in (module, config, *inner):
            for name in ("image_size", "img_size", "input_size"):
                size = getattr(holder, name, None)
                if isinstance(size, int) and size > 0:
                    return size, size
                if (
                    isinstance(size, tuple | list)
                    and len(size) == 2
                    and all(isinstance(n, int) for n in size)
                ):
                    return tuple(size)
        if type(module).__name__ == "ChirpRegressor" or hasattr(type(module), "trained_for"):
            return USUAL_SIDE, USUAL_SIDE
    return None


def _channels(model: nn.Module) -> int:
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    return 3 if first is None else first.in_channels


def _examine(model: nn.Module, anatomy: Anatomy, image: Tensor) -> HeadCheck:
    with without_gradients(model):
        looks = _look(model, anatomy, image)
        layers = tuple(_judge(block, look) for block, look in zip(anatomy.blocks, looks, strict=True))
        if any(layer.ablation for layer in layers):
            return HeadCheck(anatomy, layers, None, None, None, "", True)
        tokens = looks[0].tokens
        grid, order, prefix, repeatable, trouble = _tokens(model, anatomy, image, tokens)
        patch = anatomy.patch
        if grid is not None:
            side = (image.shape[-2] // grid[0], image.shape[-1] // grid[1])
            patch = side[0] if side[0] == side[1] else 0
            anatomy = replace(anatomy, prefix=prefix)
        if grid is not None and not patch:
            trouble = f"patches are {side[0]} x {side[1]} pixels, and maps are drawn of square ones"
        anatomy = replace(anatomy, patch=patch)
        reads, same = _reads(model, anatomy, image, tokens, order, grid, looks[0].answer)
    return HeadCheck(anatomy, layers, grid, order, reads, trouble, repeatable and same)


class _SeenEnough(BaseException):
    """Ends a pass of which only the beginning is wanted; no error, so that no model catches it for one."""


class _Look:
    """What one layer did in the first pass."""

    def __init__(self) -> None:
        self.ran = 0
        self.written: Tensor | None = None
        self.put_out: Tensor | None = None
        self.seen: Seen | None = None
        self.projections: Projections | None = None
        self.answer: Tensor | None = None

    @property
    def tokens(self) -> int:
        return self.written.shape[1]


def _look(model: nn.Module, anatomy: Anatomy, image: Tensor) -> list[_Look]:
    looks = [_Look() for _ in anatomy.blocks]

    def traced(block: AttentionBlock, seen: Seen, written: Tensor) -> None:
        look = looks[block.index]
        look.ran, look.seen, look.written = look.ran + 1, seen, written

    def projected(block: AttentionBlock):
        def hook(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
            looks[block.index].put_out = output

        return hook

    def received(projections: Projections) -> None:
        looks[projections.layer].projections = projections

    with ExitStack() as stack:
        stack.enter_context(watch_softmax(list(anatomy.blocks), traced))
        for block in anatomy.blocks:
            stack.callback(block.output.register_forward_hook(projected(block)).remove)
            if block.parts is not None and not any(part.packed for part in block.parts):
                stack.enter_context(watch_block(block, received))
        try:
            output = model(image)
        except Exception as error:
            raise AnatomyError(
                f"{type(model).__name__} does not run on images of shape {tuple(image.shape)} alone "
                f"({_first_line(error)}); pass the part that takes pixel_values, such as .vision_model or .encoder, or "
                "images of the size that it takes: check_heads(model, pixel_values)"
            ) from error
    # What a bare backbone pools is nobody's answer yet: its default query stays CLS.
    looks[0].answer = None if getattr(output, "pooler_output", None) is answer(output) else answer(output)
    return looks


def _judge(block: AttentionBlock, look: _Look) -> LayerCheck:
    name, count = block.name, len(block.numbers.kept)

    def found(ablation: str = "", maps: str = "", source: str = "") -> LayerCheck:
        return LayerCheck(block.index, name, count, ablation, maps or ablation, source)

    if look.ran != 1:
        return found(
            f"its output projection ran {look.ran} times in one pass of the model, expected once: "
            + (
                "a copy that is not used (EMA)?"
                if look.ran == 0
                else "a model that looks twice (siamese, recurrent)?"
            )
            + " Pass the part that runs once, or tell the heads that do: tell_heads(model, Heads(output=...))"
        )
    written = look.written
    if written.ndim != 3 or written.shape[0] != 1 or written.shape[2] != block.numbers.width:
        return found(
            f"its output projection reads {tuple(written.shape)} for one image, expected [1, token, "
            f"{block.numbers.width}]: attention in windows (SAM, Swin) has no heads over the whole image"
        )
    weight = getattr(block.output, "weight", None)
    if weight is None or not _close(
        nn.functional.linear(written, weight, block.output.bias), look.put_out, written.dtype
    ):
        return found(
            f"its output projection ({type(block.output).__name__}) does more than multiply with its weight: an "
            "adapter that is not merged? Merge it (merge_and_unload() on a peft model), or fold it into the weight"
        )
    if not count:
        return found(source="projections")
    own = written.unflatten(-1, (count, block.numbers.size)).transpose(1, 2)
    seen = look.seen
    if seen.softmaxes > 1:
        return found(
            maps=f"it computes {seen.softmaxes} softmaxes, and what its heads attend to is made of several"
        )
    if seen.trouble:
        return found(maps=seen.trouble[0])
    traced = seen.written()
    if traced is not None and traced.shape == own.shape and not _close(traced, own, written.dtype):
        flat = traced.permute(0, 2, 3, 1).flatten(2)  # columns by dimension first, heads second
        if _close(flat, written, written.dtype):
            return found(
                "its output projection reads the dimensions of all heads in turn, so no block of columns is a head; "
                "reorder the columns of its weight to [head, dimension]"
            )
        return found(
            maps="what its heads write is not their attention weights times their values: a norm, gate or mixing of "
            "heads stands between"
        )
    direct = look.projections
    half = written.dtype in (torch.float16, torch.bfloat16)
    if direct is not None and not half:
        computed = direct.scores(slice(None)).softmax(-1) @ direct.value
        if _close(computed.to(own.dtype), own, torch.float32):
            return found(source="projections")
    if traced is not None and traced.shape == own.shape:
        return found(source="softmax")
    return found(
        maps="its attention weights were not seen: neither do its projections tell them, nor did a softmax of torch "
        "run (a kernel of another library? use eager or sdpa attention)"
    )


def _tokens(
    model: nn.Module, anatomy: Anatomy, image: Tensor, tokens: int
) -> tuple[tuple[int, int] | None, Tensor | None, int, bool, str]:
    """Grid, order of tokens, tokens that are no patches, whether two passes agree, and what keeps maps from being."""
    height, width = image.shape[-2:] if image.ndim == 4 else (0, 0)
    if image.ndim != 4:
        return None, None, anatomy.prefix, True, f"its input is {tuple(image.shape)} and no image"
    guesses = _grids(anatomy, tokens, height, width)
    for rows, columns in guesses:
        places = [(0, 0), (rows - 1, columns - 1), (rows // 2, (columns - 1) // 3)]
        changed, same = _changed_tokens(model, anatomy, image, (rows, columns), places)
        if not same:
            return (rows, columns), None, anatomy.prefix, False, ""
        if changed is None:  # a model that is blind to these patches: what names and shapes tell must do
            if tokens == anatomy.prefix + rows * columns:
                return (rows, columns), None, anatomy.prefix, True, ""
            continue
        expected = [row * columns + column for row, column in places]
        starts = {place - at for place, at in zip(changed, expected, strict=True)}
        if len(starts) == 1 and (start := starts.pop()) >= 0 and start + rows * columns <= tokens:
            others = tokens - rows * columns
            if start == others:
                return (rows, columns), None, others, True, ""
            order = [
                *range(start),
                *range(start + rows * columns, tokens),
                *range(start, start + rows * columns),
            ]
            return (rows, columns), torch.tensor(order), others, True, ""
    return (
        None, None, anatomy.prefix, True,
        f"its {tokens} tokens are no row-major grid of patches of a {height} x {width} image with some tokens before "
        "or after; tell the patch: tell_heads(model, Heads(..., patch=16))",
    )  # fmt: skip


def _grids(anatomy: Anatomy, tokens: int, height: int, width: int) -> list[tuple[int, int]]:
    """Grids that fit into so many tokens: of the patch that is told, or else of every one that leaves few tokens."""
    told = [(height // p, width // p) for p in (anatomy.patch,) if p and not (height % p or width % p)]
    few = max(8, anatomy.prefix + 8)
    every = [
        (rows, columns)
        for rows in range(min(height, tokens), 0, -1)
        for columns in range(min(width, tokens // rows), 0, -1)
        if not (height % rows or width % columns) and 0 <= tokens - rows * columns <= few
    ]
    every.sort(
        key=lambda grid: (
            height * grid[1] != width * grid[0],
            abs(tokens - grid[0] * grid[1] - anatomy.prefix),
        )
    )
    return [grid for grid in dict.fromkeys(told + every) if grid[0] * grid[1] <= tokens][:6]


def _changed_tokens(
    model: nn.Module, anatomy: Anatomy, image: Tensor, grid: tuple[int, int], places: list[tuple[int, int]]
) -> tuple[list[int] | None, bool]:
    """Which token enters the first layer otherwise where one patch of the image is changed; and do passes agree."""
    height, width = image.shape[-2] // grid[0], image.shape[-1] // grid[1]
    batch = image.repeat(2 + len(places), 1, 1, 1)
    for number, (row, column) in enumerate(places, start=2):
        part = batch[number, :, row * height : (row + 1) * height, column * width : (column + 1) * width]
        part.copy_(part.flip(-1) * 0.5 + 1.0)
    entered: list[Tensor] = []

    def hook(_module: nn.Module, args: tuple, kwargs: dict) -> None:
        given = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        found = next((value for value in given if value.ndim == 3), None)
        if found is not None and not entered:
            entered.append(found)
            raise _SeenEnough

    handle = anatomy.blocks[0].attention.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        model(batch)
    except _SeenEnough:  # the layers above do not matter here, and cost most of the pass
        pass
    finally:
        handle.remove()
    if not entered or entered[0].shape[0] != len(batch):
        return None, True
    moved = (entered[0][1:] - entered[0][:1]).float().abs().amax(-1)
    scale = entered[0].float().abs().max().clamp_min(1e-6)
    if moved[0].max() > TOLERANCE[image.dtype] * scale:
        return None, False
    found = []
    for row in moved[1:]:
        if row.max() <= MOVED[image.dtype] * scale:
            return None, True
        found.append(int(row.argmax()))
    return found, True


def _reads(
    model: nn.Module,
    anatomy: Anatomy,
    image: Tensor,
    tokens: int,
    order: Tensor | None,
    grid: tuple[int, int] | None,
    before: Tensor | None,
) -> tuple[tuple[int | str, ...] | None, bool]:
    """Tokens whose last state moves the answer, in the order of the check; and whether the answer is the same again."""
    if before is None or not before.is_floating_point():
        return None, True
    if grid is None:
        return None, True
    prefix, count = anatomy.prefix, grid[0] * grid[1]
    # Tokens after the patches (of detections) are many and alike: two of them speak for all.
    front = prefix if order is None else next((i for i, t in enumerate(order.tolist()) if t != i), prefix)
    behind = [front, prefix - 1] if front < prefix else []
    tried = [*range(min(front, MOST_TRIED)), *behind, prefix, prefix + count // 2, tokens - 1]
    own = tried if order is None else [int(order[token]) for token in tried]
    generator = torch.Generator().manual_seed(1)
    last = anatomy.blocks[-1].output

    def push(_module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
        changed = output.clone()
        size = output.float().abs().amax().clamp_min(1e-3).to(output.dtype)
        for row, token in enumerate(own, start=1):
            noise = torch.randn(output.shape[-1], generator=generator).to(output)
            changed[row, token] += size * noise
        return changed

    handle = last.register_forward_hook(push)
    try:
        after = answer(model(image.repeat(1 + len(own), *[1] * (image.ndim - 1))))
    finally:
        handle.remove()
    if after is None or len(after) != 1 + len(own):
        return None, True
    scale = before.float().abs().max().clamp_min(1e-6)
    apart = (after[:1] - before).float().abs().max()
    same = not bool(apart > 10 * TOLERANCE[image.dtype] * scale)  # what is not a number is told elsewhere
    hidden = before.ndim == 3 and before.shape[1] == tokens
    if hidden:  # its answer is its tokens
        return None, same
    moved = (after[1:] - after[:1]).float().abs().flatten(1).amax(1) > MOVED[image.dtype] * scale
    singles = len(tried) - 3 - len(behind)
    found: list[int | str] = [
        token for token, hit in zip(tried[:singles], moved[:singles], strict=True) if hit
    ]
    if bool(moved[singles : singles + len(behind)].any()):
        found.extend(range(front, prefix))
    if bool(moved[-3:].any()):
        found.append("patches")
    return tuple(found), same


def _close(found: Tensor, own: Tensor, dtype: torch.dtype) -> bool:
    if found.shape != own.shape:
        return False
    scale = own.float().abs().max().clamp_min(1e-6)
    return bool((found - own).float().abs().max() <= TOLERANCE[dtype] * scale)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
