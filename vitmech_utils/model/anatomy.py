"""Where a vision transformer keeps its heads: blocks, projections and sizes, whatever the family calls them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from vitmech_utils.arguments import checked_arguments

QUERY, KEY, VALUE, OUTPUT = (
    ("q_proj", "query"),
    ("k_proj", "key"),
    ("v_proj", "value"),
    ("o_proj", "out_proj", "proj"),
)


class AnatomyError(ValueError):
    """The model has no attention blocks that this package recognizes."""


@dataclass(frozen=True)
class HeadNumbers:
    """Which heads a layer has: `kept`, their numbers (0-based) before any pruning, in the order of their columns.

    `of` is how many the layer had, `size` the width of each. Pruning (`heads.pruning`) leaves this record on the
    attention module as `head_numbers`, so that a head keeps its number in every table, map and grid.
    """

    kept: tuple[int, ...]
    of: int
    size: int

    @property
    def complete(self) -> bool:
        """Whether every head is there."""
        return self.kept == tuple(range(self.of))

    @property
    def width(self) -> int:
        """Columns that the layer's output projection reads."""
        return len(self.kept) * self.size

    def spread(self, values: torch.Tensor, dim: int) -> torch.Tensor:
        """Put the layer's own heads at their numbers along `dim`; zero where a head is gone. A view if complete."""
        if self.complete:
            return values
        shape = list(values.shape)
        shape[dim] = self.of
        return values.new_zeros(shape).index_copy(dim, self._index(values), values)

    def pick(self, values: torch.Tensor, dim: int) -> torch.Tensor:
        """Take the layer's own heads out of an array of all numbers along `dim`; undoes `spread`."""
        return values if self.complete else values.index_select(dim, self._index(values))

    def _index(self, values: torch.Tensor) -> torch.Tensor:
        return torch.tensor(self.kept, dtype=torch.long, device=values.device)


@dataclass(frozen=True)
class Projection:
    """A query, key or value projection: a whole linear layer, or some rows of a fused one (timm)."""

    linear: nn.Module
    rows: slice

    @property
    def weight(self) -> torch.Tensor:
        """The projection's weight [heads * head_size, hidden], a view into the layer's own."""
        return self.linear.weight[self.rows]

    @property
    def bias(self) -> torch.Tensor | None:
        """The projection's bias [heads * head_size], a view, or None where the layer has none."""
        return None if self.linear.bias is None else self.linear.bias[self.rows]


@dataclass(frozen=True)
class AttentionBlock:
    """One layer. Columns `[i*d : (i+1)*d]` of the input of `output` are what head `numbers.kept[i]` writes."""

    index: int
    name: str
    block: nn.Module
    attention: nn.Module
    query: Projection
    key: Projection
    value: Projection
    output: nn.Module
    numbers: HeadNumbers


@dataclass(frozen=True)
class Anatomy:
    """All layers of a vision transformer, in order, and the sizes that they share.

    `heads` is how many heads a layer has before any pruning: the width of the layer x head grid in which tables and
    arrays number heads. `blocks[layer].numbers` tells which of them a layer still has.
    """

    blocks: tuple[AttentionBlock, ...]
    heads: int
    head_size: int
    patch: int
    prefix: int
    family: str

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.blocks)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of layers and of heads per layer: the layer x head grid of tables and figures."""
        return self.layers, self.heads

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers of layers, of heads per layer, and of dimensions per head, by name."""
        return {"layers": self.layers, "heads": self.heads, "head_size": self.head_size}

    @checked_arguments()
    def every(self, step: int) -> list[int]:
        """Every `step`-th layer, 0-based and in order, the last one among them; `step` 1 gives all."""
        return list(range(self.layers - 1, -1, -step))[::-1]

    @property
    def pruned(self) -> bool:
        """Whether any head is gone."""
        return not all(block.numbers.complete for block in self.blocks)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Every (layer, head), 0-based, that the model has."""
        return [(block.index, head) for block in self.blocks for head in block.numbers.kept]

    @property
    def present(self) -> np.ndarray:
        """Which heads of the grid the model has: bool [layer, head]."""
        grid = np.zeros((self.layers, self.heads), dtype=bool)
        for pair in self.pairs:
            grid[pair] = True
        return grid

    def columns(self, head: int, layer: int | None = None) -> slice:
        """Columns of the output projection's input that belong to `head` (0-based) of `layer`.

        Without `layer`: the columns in every layer of a model that has all its heads. Raises `IndexError` for a
        head that does not exist or is gone, and for a pruned model without `layer`.
        """
        if not 0 <= head < self.heads:
            raise IndexError(f"head {head} does not exist: this model has heads 0 to {self.heads - 1}")
        if layer is None and self.pruned:
            raise IndexError("this model is pruned: a head's columns differ per layer; name the layer")
        kept = self.blocks[layer or 0].numbers.kept
        if head not in kept:
            left = ", ".join(map(str, kept)) or "none"
            raise IndexError(f"head {head} of layer {layer} was pruned; heads left in this layer: {left}")
        place = kept.index(head)
        return slice(place * self.head_size, (place + 1) * self.head_size)

    @checked_arguments()
    def grid(self, image_size: int) -> int:
        """Patches along one side of a square image of `image_size` pixels."""
        return image_size // self.patch


@checked_arguments(AnatomyError)
def find_blocks(model: nn.Module) -> Anatomy:
    """Find the attention blocks of a transformers ViT, DeiT or DINOv2, or of a timm ViT.

    Looks through any wrapper (`ChirpRegressor`, peft), in the order of execution. Raises
    `AnatomyError` where nothing, or nothing consistent, is found.
    """
    modules = dict(model.named_modules())
    found = {name: parts for name, module in modules.items() if (parts := _projections(module)) is not None}
    if not found:
        raise AnatomyError(
            f"no attention blocks found in {type(model).__name__}: expected modules with query, key, value and "
            "output projections as in transformers' ViT, DeiT and DINOv2, or timm's VisionTransformer"
        )
    first = next(iter(found))
    every, prefix, patch = _sizes(model, modules[first], found[first][-1])
    blocks = []
    for name, parts in found.items():
        parent, attention = _enclosing_block(name, modules), modules[name]
        numbers = getattr(attention, "head_numbers", every)
        width = parts[-1].in_features
        if width != numbers.width or (numbers.of, numbers.size) != (every.of, every.size):
            raise AnatomyError(
                f"{parent}: its output projection reads {width} columns, expected {len(numbers.kept)} heads x "
                f"{numbers.size} as in the first block; remove heads with vitmech_utils.heads.pruning.prune_heads, "
                "which leaves a record of each layer's heads"
            )
        blocks.append(AttentionBlock(len(blocks), parent, modules[parent], attention, *parts, numbers))
    family = getattr(_configured(model), "model_type", "timm")
    return Anatomy(tuple(blocks), every.of, every.size, patch, prefix, family)


def _projections(module: nn.Module) -> tuple[Projection, Projection, Projection, nn.Module] | None:
    fused, output = getattr(module, "qkv", None), _child(module, OUTPUT)
    if fused is not None and output is not None:
        third = fused.weight.shape[0] // 3
        parts = [Projection(fused, slice(i * third, (i + 1) * third)) for i in range(3)]
        return parts[0], parts[1], parts[2], output
    # transformers before 5.20 nests query/key/value one module deeper than the output projection.
    inner = getattr(module, "attention", module)
    if output is None and hasattr(module, "output"):
        output = getattr(module.output, "dense", None)
    found = [_child(inner, names) for names in (QUERY, KEY, VALUE)]
    if output is None or any(linear is None for linear in found):
        return None
    return (*(Projection(linear, slice(0, linear.weight.shape[0])) for linear in found), output)


def _child(module: nn.Module, names: tuple[str, ...]) -> nn.Module | None:
    return next(
        (child for name in names if isinstance(child := getattr(module, name, None), nn.Module)), None
    )


def _enclosing_block(name: str, modules: dict[str, nn.Module]) -> str:
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        if isinstance(modules.get(".".join(parts[: end - 1])), nn.ModuleList | nn.Sequential):
            return ".".join(parts[:end])
    raise AnatomyError(f"{name}: an attention module that lies in no list of blocks")


def _configured(model: nn.Module):
    """The configuration of the innermost transformers model, or None (timm has none)."""
    from transformers import PreTrainedModel

    inner = next((m for m in model.modules() if isinstance(m, PreTrainedModel)), None)
    return None if inner is None else inner.config


def _sizes(model: nn.Module, first: nn.Module, output: nn.Module) -> tuple[HeadNumbers, int, int]:
    """All heads that a layer has before pruning, the prefix tokens, and the patch size in pixels."""
    record = getattr(first, "head_numbers", None)
    config = _configured(model)
    if config is not None:
        prefix = 1 + getattr(config, "num_register_tokens", 0) + (config.model_type == "deit")
        heads, patch = config.num_attention_heads, config.patch_size
    else:
        timm = next((m for m in model.modules() if hasattr(m, "num_prefix_tokens")), None)
        if timm is None:
            raise AnatomyError(
                f"{type(model).__name__} has attention blocks, but no configuration that tells its heads"
            )
        heads = first.num_heads if record is None else record.of
        prefix, patch = timm.num_prefix_tokens, timm.patch_embed.patch_size
    patch = patch if isinstance(patch, int) else patch[0]
    size = output.in_features // heads if record is None else record.size
    return HeadNumbers(tuple(range(heads)), heads, size), prefix, patch
