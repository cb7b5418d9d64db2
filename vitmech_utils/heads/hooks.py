"""Read and change what single heads write: forward pre-hooks on each layer's output projection.

The columns `[h*d : (h+1)*d]` of that projection's input are head h's output. Nothing else in a
transformer block belongs to one head alone, so everything the book does to a head is done here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.model.anatomy import Anatomy, HeadNumbers, find_blocks

Head = tuple[int, int]
"""A head: its layer and its number in it, both 0-based."""
HeadSet = frozenset[Head]
"""Heads that are ablated together."""
Change = float | Tensor | Callable[[Tensor], Tensor]


class HeadHookError(RuntimeError):
    """A change that cannot be made: wrong shape, or a model that never reached the changed layer."""


@checked_arguments()
@contextmanager
def capture_heads(model: nn.Module, layers: Iterable[int] | None = None) -> Iterator[dict[int, Tensor]]:
    """Collect every head's output while the context is open.

    Yields a dict, filled by each forward pass: layer (0-based) -> [image, token, head, head_size], in the
    model's dtype, a view that keeps its gradient (a pruned layer: a copy, zero where a head is gone). Later passes
    overwrite earlier ones. `layers` limits what is kept. The hooks are removed on leaving, also after an
    exception; contexts may be nested, and an inner one sees what an outer `change_heads` wrote.

    Raises `AnatomyError` for a model without recognizable blocks, `IndexError` for a layer out of range.
    """
    anatomy = find_blocks(model)
    captured: dict[int, Tensor] = {}

    def keep(layer: int):
        def hook(_module: nn.Module, inputs: tuple) -> None:
            captured[layer] = split_heads(inputs[0], anatomy.blocks[layer].numbers)

        return hook

    chosen = range(anatomy.layers) if layers is None else [check_layer(anatomy, layer) for layer in layers]
    with _installed(model, {layer: keep(layer) for layer in chosen}, anatomy):
        yield captured


@checked_arguments()
@contextmanager
def change_heads(model: nn.Module, changes: Mapping[tuple[int, int] | int, Change]) -> Iterator[None]:
    """Replace heads' outputs while the context is open; the weights are never touched.

    `changes` maps `(layer, head)`, both 0-based, to the head's new output: a number, a tensor that
    broadcasts to [image, token, head_size], or a function of the present output that returns one. A key
    `layer` alone stands for all its heads: [image, token, head, head_size]. New values are cast to the
    model's dtype and device. The hooks are removed on leaving, also after an exception; contexts may be
    nested, and the inner change is applied to what the outer one left. A whole layer is always asked for with
    all its original heads; what is written for heads that were pruned goes nowhere.

    Raises `AnatomyError`, `IndexError` for a layer or head out of range or pruned, `HeadHookError` for a shape that
    does not fit (from within the forward pass that meets it).
    """
    anatomy = find_blocks(model)
    by_layer: dict[int, list[tuple[int | None, Change]]] = {}
    for key, change in changes.items():
        layer, head = key if isinstance(key, tuple) else (key, None)
        check_layer(anatomy, layer)
        if head is not None:
            anatomy.columns(head, layer)
        by_layer.setdefault(layer, []).append((head, change))

    def write(layer: int, wanted: list[tuple[int | None, Change]]):
        def hook(_module: nn.Module, inputs: tuple) -> tuple:
            numbers = anatomy.blocks[layer].numbers
            heads = split_heads(inputs[0], numbers).clone()
            for head, change in wanted:
                target = heads if head is None else heads[:, :, head]
                new = _new_value(change, target, layer, head)
                heads = (
                    new
                    if head is None
                    else torch.cat([heads[:, :, :head], new.unsqueeze(2), heads[:, :, head + 1 :]], dim=2)
                )
            return (numbers.pick(heads, 2).flatten(2), *inputs[1:])

        return hook

    with _installed(model, {layer: write(layer, wanted) for layer, wanted in by_layer.items()}, anatomy):
        yield


def split_heads(
    joined: Float[Tensor, "image token width"], numbers: HeadNumbers
) -> Float[Tensor, "image token head size"]:
    """View an output projection's input as one slice per head, by original number; zero where a head is gone."""
    return numbers.spread(joined.unflatten(-1, (len(numbers.kept), numbers.size)), 2)


def check_layer(anatomy: Anatomy, layer: int) -> int:
    """Return `layer` (0-based) or raise `IndexError` with the allowed range."""
    if not 0 <= layer < anatomy.layers:
        raise IndexError(f"layer {layer} does not exist: this model has layers 0 to {anatomy.layers - 1}")
    return layer


def _new_value(change: Change, present: Tensor, layer: int, head: int | None) -> Tensor:
    new = change(present) if callable(change) else change
    new = torch.as_tensor(new, dtype=present.dtype, device=present.device)
    try:
        return new.expand_as(present)
    except RuntimeError as error:
        where = f"layer {layer}" + ("" if head is None else f", head {head}")
        raise HeadHookError(
            f"{where}: the new output has shape {tuple(new.shape)}, expected one that broadcasts to "
            f"{tuple(present.shape)} ([image, token, " + ("head, " if head is None else "") + "head_size])"
        ) from error


@contextmanager
def _installed(model: nn.Module, hooks: Mapping[int, Callable], anatomy: Anatomy) -> Iterator[None]:
    """Hooks on output projections; `HeadHookError` at the end where the model ran and one of them did not."""
    handles, ran, reached = [], [False], set()

    def note(_module: nn.Module, _inputs: tuple, _output: object) -> None:
        ran[0] = True

    def noting(layer: int, hook: Callable):
        def both(module: nn.Module, inputs: tuple):
            reached.add(layer)
            return hook(module, inputs)

        return both

    try:
        for layer, hook in hooks.items():
            block = anatomy.blocks[layer]
            handles.append(block.output.register_forward_pre_hook(noting(layer, hook)))
        handles.append(model.register_forward_hook(note))
        yield
        if ran[0] and (never := sorted(set(hooks) - reached)):
            raise HeadHookError(
                f"the model ran without its {anatomy.blocks[never[0]].name}: nothing was read or changed there. Is it "
                "a copy (EMA), or is this layer skipped? Tell the heads that run: tell_heads(model, Heads(...))"
            )
    finally:
        for handle in handles:
            handle.remove()
