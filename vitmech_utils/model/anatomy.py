"""Where a vision transformer keeps its heads: blocks, projections and sizes, whatever the family calls them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.model.open_attention import can_open, opened
from vitmech_utils.model.told_heads import RECORD, Heads

QUERY, KEY, VALUE, OUTPUT = (
    ("q_proj", "query"),
    ("k_proj", "key"),
    ("v_proj", "value"),
    ("o_proj", "out_proj", "proj"),
)
COUNTS = ("num_attention_heads", "num_heads", "n_heads", "heads")
"""What attention modules call the number of their heads."""
SINGLE, SEVERAL = (
    ("cls_token", "class_token", "class_embedding", "distillation_token", "dist_token"),
    ("register_tokens", "reg_token", "registers"),
)
"""What families call the parameters that become tokens before the patches, by ones and by several."""


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
    """A query, key or value projection: a whole linear layer, or some rows of a fused one (timm, torch)."""

    linear: nn.Module
    rows: slice

    @property
    def packed(self) -> bool:
        """Whether the weights are parameters of torch's attention itself, which no hook sees at work."""
        return isinstance(self.linear, nn.MultiheadAttention)

    @property
    def weight(self) -> torch.Tensor:
        """The projection's weight [heads * head_size, hidden], a view into the layer's own."""
        return (self.linear.in_proj_weight if self.packed else self.linear.weight)[self.rows]

    @property
    def bias(self) -> torch.Tensor | None:
        """The projection's bias [heads * head_size], a view, or None where the layer has none."""
        bias = self.linear.in_proj_bias if self.packed else self.linear.bias
        return None if bias is None else bias[self.rows]


@dataclass(frozen=True)
class AttentionBlock:
    """One layer. Columns `[i*d : (i+1)*d]` of the input of `output` are what head `numbers.kept[i]` writes.

    `query`, `key` and `value` are None where nothing tells them (`Heads` without their patterns); `softmax` is the
    module whose output are the attention weights, where one was told.
    """

    index: int
    name: str
    block: nn.Module
    attention: nn.Module
    query: Projection | None
    key: Projection | None
    value: Projection | None
    output: nn.Module
    numbers: HeadNumbers
    softmax: nn.Module | None = None

    @property
    def parts(self) -> tuple[Projection, Projection, Projection] | None:
        """The query, key and value projections; None where they are not known."""
        return None if self.query is None else (self.query, self.key, self.value)

    def known_parts(self, what: str) -> tuple[Projection, Projection, Projection]:
        """The query, key and value projections; `AnatomyError` where `what` needs them and nothing tells them."""
        if self.parts is None:
            raise AnatomyError(
                f"{self.name}: {what} needs its query, key and value projections, and nothing tells them; pass their "
                "patterns to Heads(query=..., key=..., value=...)"
            )
        return self.parts


@dataclass(frozen=True)
class Anatomy:
    """All layers of a vision transformer, in order, and the sizes that they share.

    `heads` is how many heads a layer has before any pruning: the width of the layer x head grid in which tables and
    arrays number heads. `blocks[layer].numbers` tells which of them a layer still has. `prefix` is the number of tokens
    before the patches and `patch` the side of a patch in pixels, as names and shapes tell (0: they tell none);
    `heads.check` finds both by running the model.
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
    """Find the attention blocks of a vision transformer, told (`tell_heads`) or by the names that families use.

    Known are those of transformers, timm, torchvision and torch, and modules that name their parts alike. Looks through
    any wrapper (`ChirpRegressor`, peft), in the order of execution. torch's own attention is run open from then on
    (`open_attention`): the same weights and results. Raises `AnatomyError` where nothing, or nothing consistent, is
    found, and for compiled modules.
    """
    modules = dict(model.named_modules())
    _refuse_compiled(model, modules)
    told = next(((name, m) for name, m in modules.items() if isinstance(vars(m).get(RECORD), Heads)), None)
    if told is not None:
        found, heads = _told(*told), vars(told[1])[RECORD]
    else:
        found, heads = _guessed(modules), None
    if not found:
        raise AnatomyError(
            f"no attention blocks found in {type(model).__name__}: expected modules with query, key, value and "
            "output projections as families of transformers, timm and torch name them. Tell them: "
            "tell_heads(model, Heads(output='blocks.*.attn.proj', count=12))"
        )
    groups = {_list_of(name, modules) for name in found}
    config = _configured(model)
    counts = {name: _count(modules[name], parts[3], heads, config) for name, parts in found.items()}
    if len(groups) > 1:
        groups = sorted(
            groups, key=lambda name: ("vision" not in name, "decoder" in name or "ema" in name, name)
        )
        raise AnatomyError(
            f"{type(model).__name__} holds {len(groups)} lists of attention blocks ({', '.join(groups[:4])}): "
            "a copy (EMA) or a second encoder? Pass the one that is meant, or tell it: "
            f"tell_heads(model, Heads(output='{groups[0]}.*...'))"
        )
    _refuse_stages(model, found, counts, modules)
    first = next(iter(found))
    record = getattr(modules[first], "head_numbers", None)
    size = found[first][3].in_features // counts[first] if record is None else record.size
    every = HeadNumbers(tuple(range(counts[first])), counts[first], size)
    blocks = []
    for name, (*parts, output, softmax) in found.items():
        parent, attention = _enclosing_block(name, modules), modules[name]
        numbers = getattr(attention, "head_numbers", every)
        width = output.in_features
        if width != numbers.width or (numbers.of, numbers.size) != (every.of, every.size):
            raise AnatomyError(
                f"{parent}: its output projection reads {width} columns, expected {len(numbers.kept)} heads x "
                f"{numbers.size} as in the first block; remove heads with vitmech_utils.heads.pruning.prune_heads, "
                "which leaves a record of each layer's heads"
            )
        blocks.append(
            AttentionBlock(len(blocks), parent, modules[parent], attention, *parts, output, numbers, softmax)
        )
    prefix = heads.prefix if heads is not None and heads.prefix is not None else _prefix(model, modules)
    patch = heads.patch if heads is not None and heads.patch is not None else _patch(modules, config)
    family = getattr(config, "model_type", "timm" if _is_timm(model) else type(model).__name__)
    return Anatomy(tuple(blocks), every.of, every.size, patch, prefix, family)


_Found = tuple[Projection | None, Projection | None, Projection | None, nn.Module, nn.Module | None]


def _guessed(modules: dict[str, nn.Module]) -> dict[str, _Found]:
    found = {}
    for name, module in modules.items():
        if (parts := _projections(module)) is not None and _enclosed(name, modules):
            found[name] = (*parts, None)
    return found


def _told(root: str, model: nn.Module) -> dict[str, _Found]:
    heads, modules = vars(model)[RECORD], dict(model.named_modules())
    outputs = heads.matching(heads.output, modules)
    lists = {
        name: [modules[m] for m in heads.matching(pattern, modules)]
        if (pattern := getattr(heads, name))
        else None
        for name in ("query", "key", "value", "attention")
    }
    found: dict[str, _Found] = {}
    for i, name in enumerate(outputs):
        output, parts = modules[name], [None, None, None]
        if isinstance(modules.get(parent := name.rpartition(".")[0]), nn.MultiheadAttention):
            opened(modules[parent])
        if not isinstance(output, nn.Linear):
            raise AnatomyError(
                f"{name} is {type(output).__name__}, expected the output projection, an nn.Linear"
            )
        if all(lists[part] is not None for part in ("query", "key", "value")):
            linears = [lists[part][i] for part in ("query", "key", "value")]
            fused = linears[0] is linears[1] is linears[2]
            third = linears[0].weight.shape[0] // 3 if fused else None
            parts = [
                Projection(
                    linear, slice(j * third, (j + 1) * third) if fused else slice(0, linear.weight.shape[0])
                )
                for j, linear in enumerate(linears)
            ]
        softmax = None if lists["attention"] is None else lists["attention"][i]
        while parent and isinstance(modules[parent], nn.Sequential | nn.ModuleList):
            parent = parent.rpartition(".")[0]
        found[".".join(part for part in (root, parent) if part)] = (*parts, output, softmax)
    if len(found) != len(outputs):
        raise AnatomyError(
            f"{heads.output!r} matches several modules of one attention, expected one of each layer"
        )
    return found


def _refuse_compiled(model: nn.Module, modules: dict[str, nn.Module]) -> None:
    for name, module in modules.items():
        kind = type(module).__name__
        if kind == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None:
            how = (
                "pass the plain module (compiled._orig_mod)"
                if kind == "OptimizedModule"
                else "do without .compile()"
            )
            what = "is compiled (torch.compile)"
        elif isinstance(module, torch.jit.ScriptModule):
            how, what = "pass the module that it was made from", "is a TorchScript module"
        elif kind in ("DataParallel", "DistributedDataParallel"):
            how, what = "pass its .module", f"is wrapped in {kind}"
        else:
            continue
        where = f"{type(model).__name__}{f'.{name}' if name else ''}"
        raise AnatomyError(f"{where} {what}, and hooks set on it change nothing or other copies; {how}")


def _refuse_stages(
    model: nn.Module, found: dict[str, _Found], counts: dict[str, int], modules: dict[str, nn.Module]
) -> None:
    whole = {name for name in found if not hasattr(modules[name], "head_numbers")}
    sizes = [(counts[name], found[name][3].in_features) for name in found if name in whole]
    if len(set(sizes)) > 1 and len(whole) == len(found):
        heads = sorted({count for count, _ in sizes})
        raise AnatomyError(
            f"{type(model).__name__} has stages of different heads ({', '.join(map(str, heads))} per layer, widths "
            f"{', '.join(map(str, sorted({width for _, width in sizes})))}): hierarchical models such as Swin, Hiera, "
            "PVT and SegFormer have no layer x head grid, and are not analysed"
        )


def _projections(
    module: nn.Module,
) -> tuple[Projection | None, Projection | None, Projection | None, nn.Module] | None:
    if can_open(module):
        third = module.embed_dim
        parts = [Projection(module, slice(i * third, (i + 1) * third)) for i in range(3)]
        return *parts, opened(module).out_proj
    fused, output = getattr(module, "qkv", None), _child(module, OUTPUT)
    if isinstance(fused, nn.Module) and output is not None:
        return *_thirds(fused), output
    # transformers before 5.20 nests query/key/value one module deeper than the output projection.
    inner = _child(module, ("attention", "self")) or module
    if inner is not module and _projections(inner) is not None:
        return None  # the layer around an attention that is whole by itself
    if output is None and hasattr(module, "output"):
        output = getattr(module.output, "dense", None)
    found = [_child(inner, names) for names in (QUERY, KEY, VALUE)]
    if output is None or not hasattr(output, "in_features") or any(linear is None for linear in found):
        return None
    if not all(hasattr(linear, "weight") for linear in found):
        return None, None, None, output
    return (*(Projection(linear, slice(0, linear.weight.shape[0])) for linear in found), output)


def _thirds(fused: nn.Module) -> list[Projection | None]:
    if not hasattr(fused, "weight"):
        return [None, None, None]
    third = fused.weight.shape[0] // 3
    return [Projection(fused, slice(i * third, (i + 1) * third)) for i in range(3)]


def _child(module: nn.Module, names: tuple[str, ...]) -> nn.Module | None:
    return next(
        (child for name in names if isinstance(child := getattr(module, name, None), nn.Module)), None
    )


def _enclosing_block(name: str, modules: dict[str, nn.Module]) -> str:
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        inner, outer = ".".join(parts[:end]), ".".join(parts[: end - 1])
        if isinstance(modules.get(outer), nn.ModuleList | nn.Sequential) and not isinstance(
            modules.get(inner), nn.ModuleList
        ):
            return inner
    for end in range(len(parts) - 1, 0, -1):  # a list of lists, as in hand-written models
        if isinstance(modules.get(".".join(parts[: end - 1])), nn.ModuleList | nn.Sequential):
            return ".".join(parts[:end])
    raise AnatomyError(f"{name}: an attention module that lies in no list of blocks")


def _enclosed(name: str, modules: dict[str, nn.Module]) -> bool:
    """Whether a module lies in a list of blocks; a pooling head's attention does not."""
    parts = name.split(".")
    return any(
        isinstance(modules.get(".".join(parts[:end])), nn.ModuleList | nn.Sequential)
        for end in range(len(parts))
    )


def _list_of(name: str, modules: dict[str, nn.Module]) -> str:
    """The outermost list that numbers a model's blocks, by name."""
    parts = name.split(".")
    numbered = [end for end, part in enumerate(parts) if part.isdigit() or isinstance(
        modules.get(".".join(parts[:end])), nn.ModuleList | nn.Sequential)]  # fmt: skip
    return ".".join(parts[: numbered[0]]) if numbered else ""


def _configured(model: nn.Module):
    """The configuration of the innermost transformers model, or None (timm has none); of two towers, the vision one."""
    from transformers import PreTrainedModel

    inner = next((m for m in model.modules() if isinstance(m, PreTrainedModel)), None)
    if inner is None:
        return None
    config = inner.config
    for name in ("vision_config", "backbone_config", "encoder"):
        if not hasattr(config, "num_attention_heads") and hasattr(getattr(config, name, None), "to_dict"):
            return getattr(config, name)
    return config


def _is_timm(model: nn.Module) -> bool:
    return any(hasattr(m, "num_prefix_tokens") for m in model.modules())


def _count(attention: nn.Module, output: nn.Module, heads: Heads | None, config: object) -> int:
    """How many heads a layer has before pruning: as its record, its own attribute or the configuration tells."""
    if (record := getattr(attention, "head_numbers", None)) is not None:
        return record.of
    if heads is not None and heads.count is not None:
        told = heads.count
    else:
        own = (getattr(m, name, None) for m in (attention, *attention.children()) for name in COUNTS)
        told = next((n for n in own if isinstance(n, int) and not isinstance(n, bool) and n > 0), None)
        told = told or getattr(config, "num_attention_heads", None)
    if not isinstance(told, int) or told < 1:
        raise AnatomyError(
            f"{type(attention).__name__} does not tell how many heads it has; tell it: tell_heads(model, "
            "Heads(output=..., count=12))"
        )
    if output.in_features % told:
        raise AnatomyError(
            f"an output projection that reads {output.in_features} columns cannot have {told} heads of one size; "
            "tell the number: tell_heads(model, Heads(output=..., count=...))"
        )
    return told


def _prefix(model: nn.Module, modules: dict[str, nn.Module]) -> int:
    """Tokens before the patches, by the parameters that become tokens; each kind once, where a model has copies."""
    if timm := next(
        (m for m in modules.values() if isinstance(getattr(m, "num_prefix_tokens", None), int)), None
    ):
        return timm.num_prefix_tokens
    kinds: dict[str, int] = {}
    for name, value in model.named_parameters():
        last = name.rpartition(".")[2]
        if "decoder" in name or last in kinds:
            continue
        if last in SINGLE:
            kinds[last] = 1
        elif last in SEVERAL:
            kinds[last] = value.shape[-2]
    return sum(kinds.values())


def _patch(modules: dict[str, nn.Module], config: object) -> int:
    """The side of a patch in pixels; 0 where nothing tells it, or where patches are not square."""
    known = getattr(config, "patch_size", None)
    if known is None:
        holder = next(
            (m for m in modules.values() if hasattr(getattr(m, "patch_embed", None), "patch_size")), None
        )
        known = None if holder is None else holder.patch_embed.patch_size
    if known is None:
        known = next(
            (
                m.kernel_size
                for m in modules.values()
                if isinstance(m, nn.Conv2d) and m.kernel_size == m.stride
            ),
            None,
        )
    if isinstance(known, int):
        return known
    sides = set(known) if isinstance(known, tuple | list) else set()
    return int(sides.pop()) if len(sides) == 1 else 0
