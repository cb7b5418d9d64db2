"""LoRA adapters on query and value of a backbone, and the fingerprint that distinguishes backbones."""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.model.anatomy import QUERY, VALUE, HeadNumbers, Projection, find_blocks

ADAPTED = re.compile(
    r"(?P<before>base_model\.model\.).*?\.(?P<layer>\d+)\..*\b"
    rf"(?P<projection>{'|'.join((*QUERY, *VALUE))})\.(?P<matrix>lora_[AB]\.weight)"
)

HIGHEST_RANK = 4096


class AdapterError(RuntimeError):
    """An adapter folder is incomplete, damaged, or made for another backbone."""


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adaptation (Hu et al. 2021) of query and value, with the study's numbers as defaults.

    Raises ValueError for a rank that is no whole number from 1 to 4096, a scale that is not above 0, or a dropout
    outside [0, 1).
    """

    r: int = 8
    alpha: int = 16
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if isinstance(self.r, bool) or not isinstance(self.r, int) or not 1 <= self.r <= HIGHEST_RANK:
            raise ValueError(f"LoRA's r is {self.r!r}, expected a whole number from 1 to {HIGHEST_RANK}")
        for name, expected in (("alpha", "a number above 0"), ("dropout", "a share in [0, 1)")):
            value = getattr(self, name)
            known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not known or not (value > 0 if name == "alpha" else 0 <= value < 1):
                raise ValueError(f"LoRA's {name} is {value!r}, expected {expected}")


STUDY = LoraSettings()


@checked_arguments()
def weights_fingerprint(model: nn.Module) -> str:
    """SHA-256 over the shapes and values of all weights, whatever their names (these change between releases)."""
    digests = []
    for value in model.state_dict().values():
        digest = hashlib.sha256(str(tuple(value.shape)).encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        digests.append(digest.hexdigest())
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


@checked_arguments()
def lora_config(model: nn.Module, lora: LoraSettings) -> LoraConfig:
    """The peft configuration that adapts query and value of every block that has heads.

    Raises `AdapterError` where one linear layer makes both.
    """
    names = {id(module): name for name, module in model.named_modules()}
    blocks = [block for block in find_blocks(model).blocks if block.numbers.kept]
    linears = [projection.linear for b in blocks for projection in (b.query, b.value)]
    if len({id(linear) for linear in linears}) < len(linears):
        raise AdapterError(
            "query and value share one linear layer in this backbone; LoRA on both alone is not possible"
        )
    targets = sorted({names[id(linear)].rsplit(".", 1)[-1] for linear in linears})
    return LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, bias="none", target_modules=targets
    )  # fmt: skip


def name_for(model: nn.Module) -> Callable[[str], str]:
    """What takes an adapter's name for a weight to the one by this model's own name of its query or value projection.

    Releases of transformers name them differently (`attention.attention.query` before 5.20, `attention.q_proj` since),
    and an adapter is read under all of them. What is no query or value of a numbered layer keeps its name.
    """
    names = {id(module): name for name, module in model.named_modules()}
    blocks = find_blocks(model).blocks
    linears = [(names[id(block.query.linear)], names[id(block.value.linear)]) for block in blocks]

    def renamed(key: str) -> str:
        found = ADAPTED.fullmatch(key)
        if not found or int(found["layer"]) >= len(linears):
            return key
        linear = linears[int(found["layer"])][found["projection"] in VALUE]
        return f"{found['before']}{linear}.{found['matrix']}"

    return renamed


def same_targets(one: Collection[str], other: Collection[str]) -> bool:
    """Whether two lists of projections name query and value, be it as different releases of transformers do."""
    kinds = [
        [name if name not in (*QUERY, *VALUE) else name in QUERY for name in names] for names in (one, other)
    ]
    return len(kinds[0]) == len(kinds[1]) and all(kind in kinds[1] for kind in kinds[0])


def wrap(model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    """The model with fresh adapters beside its weights."""
    config.base_model_name_or_path = model.name_or_path or None
    with warnings.catch_warnings():  # peft asks transformers 5.23 for a property that is about to be renamed
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        return get_peft_model(model, config)


def settings_of(config: LoraConfig) -> LoraSettings:
    """The settings that a peft configuration was made with."""
    return LoraSettings(r=config.r, alpha=config.lora_alpha, dropout=config.lora_dropout)


def check_keys(path: Path, expected: set[str], found: set[str]) -> None:
    """Raise `AdapterError` unless a file holds exactly the weights expected."""
    if expected != found:
        raise AdapterError(
            f"{path}: {len(expected - found)} weights are missing (first: {sorted(expected - found)[:2]}) and "
            f"{len(found - expected)} have no counterpart (first: {sorted(found - expected)[:2]}). "
            "It belongs to another backbone or another version of it."
        )


@checked_arguments()
def update_norms(tuned: nn.Module, pretrained: nn.Module) -> pd.DataFrame:
    """Frobenius norm of each head's update, absolute and relative to the pre-trained weights that it changes.

    Both models carry plain weights (merge LoRA adapters first); the difference is then the update B A * alpha / r.
    One row per layer, head (0-based) and projection (`query`, `value`): columns layer, head, projection, norm,
    relative (dimensionless). Head h's part of a projection is its rows `[h*d : (h+1)*d]`. Pruned heads have no rows.
    Raises ValueError for an unmerged model, and where the two models differ in layers, heads or head size.
    """
    if any(isinstance(module, LoraLayer) for module in (*tuned.modules(), *pretrained.modules())):
        raise ValueError(
            "a model carries an unmerged LoRA adapter, expected plain weights: call merged() on it first"
        )
    one, other = find_blocks(tuned), find_blocks(pretrained)
    sizes = [(anatomy.layers, anatomy.heads, anatomy.head_size) for anatomy in (one, other)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"the models have {sizes[0]} and {sizes[1]} (layers, heads, head size), expected the same: "
            "compare a fine-tuned model with the backbone that it was made from"
        )
    rows = []
    for block, origin in zip(one.blocks, other.blocks, strict=True):
        for name in ("query", "value"):
            before = _own_heads(getattr(origin, name), origin.numbers, block.numbers)
            moved = _own_heads(getattr(block, name), block.numbers, block.numbers) - before
            norms = torch.linalg.vector_norm(moved, dim=(1, 2))
            relative = norms / torch.linalg.vector_norm(before, dim=(1, 2)).clamp_min(1e-12)
            rows += [
                (block.index, head, name, float(norms[place]), float(relative[place]))
                for place, head in enumerate(block.numbers.kept)
            ]
    return pd.DataFrame(rows, columns=["layer", "head", "projection", "norm", "relative"])


def _own_heads(
    projection: Projection, numbers: HeadNumbers, wanted: HeadNumbers
) -> Float[Tensor, "head size column"]:
    """The rows of `wanted` heads of a projection that holds those of `numbers`."""
    gone = sorted(set(wanted.kept) - set(numbers.kept))
    if gone:
        raise ValueError(
            f"the pre-trained model lacks heads {gone} that the tuned one has: pass the unpruned one"
        )
    rows = projection.weight.detach().float().unflatten(0, (len(numbers.kept), numbers.size))
    return wanted.pick(numbers.spread(rows, 0), 0)
