"""Where a vision transformer keeps its heads: blocks, projections and sizes, whatever the family calls them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

QUERY, KEY, VALUE, OUTPUT = (
    ("q_proj", "query"),
    ("k_proj", "key"),
    ("v_proj", "value"),
    ("o_proj", "out_proj", "proj"),
)


class AnatomyError(ValueError):
    """The model has no attention blocks that this package recognizes."""


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
    """One layer. Columns `[h*d : (h+1)*d]` of the input of `output` are head h's output."""

    index: int
    name: str
    block: nn.Module
    attention: nn.Module
    query: Projection
    key: Projection
    value: Projection
    output: nn.Module


@dataclass(frozen=True)
class Anatomy:
    """All layers of a vision transformer, in order, and the sizes that they share."""

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

    def columns(self, head: int) -> slice:
        """Columns of the output projection's input that belong to `head` (0-based)."""
        if not 0 <= head < self.heads:
            raise IndexError(f"head {head} does not exist: this model has heads 0 to {self.heads - 1}")
        return slice(head * self.head_size, (head + 1) * self.head_size)

    def grid(self, image_size: int) -> int:
        """Patches along one side of a square image of `image_size` pixels."""
        return image_size // self.patch


def find_blocks(model: nn.Module) -> Anatomy:
    """Find the attention blocks of a transformers ViT, DeiT or DINOv2, or of a timm ViT.

    Looks through any wrapper (`ChirpRegressor`, peft), in the order of execution. Raises
    `AnatomyError` where nothing, or nothing consistent, is found.
    """
    modules = dict(model.named_modules())
    blocks = []
    for name, module in modules.items():
        projections = _projections(module)
        if projections is None:
            continue
        parent = _enclosing_block(name, modules)
        blocks.append(AttentionBlock(len(blocks), parent, modules[parent], module, *projections))
    if not blocks:
        raise AnatomyError(
            f"no attention blocks found in {type(model).__name__}: expected modules with query, key, value and "
            "output projections as in transformers' ViT, DeiT and DINOv2, or timm's VisionTransformer"
        )
    heads, head_size, prefix, patch = _sizes(model, blocks[0])
    for block in blocks:
        width = block.output.in_features
        if width != heads * head_size:
            raise AnatomyError(
                f"{block.name}: its output projection reads {width} columns, expected {heads} heads x {head_size} "
                "as in the first block; heads of unequal number per layer need the pruned model's own head counts"
            )
    family = getattr(_configured(model), "model_type", "timm")
    return Anatomy(tuple(blocks), heads, head_size, patch, prefix, family)


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


def _sizes(model: nn.Module, first: AttentionBlock) -> tuple[int, int, int, int]:
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
        heads, prefix, patch = first.attention.num_heads, timm.num_prefix_tokens, timm.patch_embed.patch_size
    patch = patch if isinstance(patch, int) else patch[0]
    return heads, first.output.in_features // heads, prefix, patch
