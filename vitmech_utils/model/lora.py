"""LoRA adapters on query and value of a backbone, and the fingerprint that tells backbones apart."""

from __future__ import annotations

import hashlib
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.model.anatomy import find_blocks

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
