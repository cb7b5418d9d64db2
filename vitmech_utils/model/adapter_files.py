"""The files of an adapter folder, read as what strangers wrote: each held against what a model of this kind saves."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vitmech_utils.model.lora import AdapterError, LoraSettings, check_keys, lora_config, same_targets
from vitmech_utils.strict_text import LARGEST_JSON, read_json

SETTINGS, CONFIG = "regressor.json", "adapter_config.json"
ADAPTER, HEAD = "adapter_model.safetensors", "head.safetensors"
TRAINING, CARD = "training.json", "README.md"
LARGEST_TRAINING = 2**24  # bytes: it holds a history
# What peft notes of where a configuration comes from; none of it changes what a model computes.
NOTES = {"base_model_name_or_path", "inference_mode", "peft_version", "revision", "auto_mapping"}


def read_object(path: Path, largest: int = LARGEST_JSON, unknown: bool = False) -> dict[str, Any]:
    """The keys and values of a folder's JSON file; `unknown` admits NaN. Raises AdapterError that names both."""
    try:
        found = read_json(path, largest, unknown)
    except (ValueError, OSError) as error:
        raise AdapterError(
            f"{path.parent}: damaged adapter ({path.name}: {error}). Restore it, or train it again."
        ) from error
    if not isinstance(found, dict):
        raise _disagreement(path, f"it holds {type(found).__name__}", "keys and values")
    return found


def read_settings(folder: Path) -> dict[str, Any]:
    """What a regressor's settings file says, all keys there and of their kinds. Raises AdapterError."""
    path = folder / SETTINGS
    found = {"task": "regression"} | read_object(path)
    kinds = {"task": str, "backbone": str, "backbone_fingerprint": str, "labels": list, "lora": dict}
    for key, kind in kinds.items():
        if not isinstance(found.get(key), kind) or not found[key]:
            raise _disagreement(path, f"{key} is {_shown(found.get(key))}", f"a {kind.__name__}")
    if not re.fullmatch(r"[0-9a-f]{64}", found["backbone_fingerprint"]):
        raise _disagreement(
            path, f"backbone_fingerprint is {_shown(found['backbone_fingerprint'])}", "64 hex digits"
        )
    return found


def check_settings(folder: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise AdapterError unless the settings say of images and labels what the loading class means by them."""
    for key, value in expected.items():
        if not _alike(found.get(key), value):
            raise _disagreement(
                folder / SETTINGS, f"{key} is {_shown(found.get(key))}", f"{value} as this version has it"
            )


def lora_of(folder: Path, found: Mapping[str, Any]) -> LoraSettings:
    """The LoRA settings in a settings file. Raises AdapterError."""
    told = found["lora"]
    if set(told) != {"r", "alpha", "dropout"}:
        raise _disagreement(folder / SETTINGS, f"lora has {sorted(told)}", "r, alpha and dropout")
    try:
        return LoraSettings(**told)
    except ValueError as error:
        raise AdapterError(f"{folder}: {SETTINGS}: {error}") from error


def check_config(model: nn.Module, found: Mapping[str, Any], lora: LoraSettings, where: Path | str) -> None:
    """Raise AdapterError unless a peft configuration is the one that these settings make for this model.

    A key that the installed peft does not know passes where it switches nothing on.
    """
    expected = lora_config(model, lora).to_dict()
    for key in sorted((set(expected) | set(found)) - NOTES):
        if key not in found:
            if key in ("r", "lora_alpha", "lora_dropout", "target_modules", "peft_type"):
                raise _disagreement(where, f"{key} is missing", _shown(_plain(expected[key])))
        elif key not in expected:
            if found[key]:
                raise _disagreement(
                    where, f"{key} is {_shown(found[key])}", "no such setting: the installed peft has none"
                )
        elif key == "target_modules" and _names(found[key]):
            if not same_targets(found[key], expected[key]):
                raise _disagreement(
                    where,
                    f"{key} is {_shown(found[key])}",
                    f"{_shown(_plain(expected[key]))} or their other names",
                )
        elif not _alike(_plain(found[key]), _plain(expected[key])):
            raise _disagreement(
                where,
                f"{key} is {_shown(found[key])}",
                f"{_shown(_plain(expected[key]))}, as {SETTINGS} has it",
            )


def read_weights(
    path: Path, expected: Mapping[str, Tensor], name_here: Callable[[str], str] = str
) -> dict[str, Tensor]:
    """The weights of a safetensors file, which must be those of `expected` by name and shape, and finite numbers.

    `name_here` takes a name in the file to that in `expected`. Names and shapes are compared before any weight is read.
    Raises AdapterError.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = {name_here(name): name for name in file.keys()}  # noqa: SIM118
            if len(names) < len(file.keys()):
                raise _disagreement(path, "it holds a weight under two names", "one name for each")
            check_keys(path, set(expected), set(names))
            for name in sorted(names):
                shape = tuple(file.get_slice(names[name]).get_shape())
                if shape != tuple(expected[name].shape):
                    raise AdapterError(
                        f"{path}: its weights do not fit: {name} has shape {shape}, expected "
                        f"{tuple(expected[name].shape)}. It belongs to another backbone or another rank."
                    )
            weights = {name: file.get_tensor(names[name]) for name in sorted(names)}
    except (SafetensorError, OSError) as error:
        raise AdapterError(
            f"{path.parent}: damaged adapter ({path.name}: {error}). Restore it, or train it again."
        ) from error
    check_weights(path, weights)
    return weights


def check_weights(where: Path | str, weights: Mapping[str, Tensor]) -> None:
    """Raise AdapterError unless all weights are finite floating-point numbers."""
    for name, weight in weights.items():
        if not weight.is_floating_point():
            raise _disagreement(where, f"{name} holds {weight.dtype} values", "floating-point numbers")
        if not torch.isfinite(weight).all():
            raise _disagreement(where, f"{name} holds values that are not finite", "finite numbers")


def _disagreement(where: Path | str, found: str, expected: str) -> AdapterError:
    return AdapterError(
        f"{where}: {found}, expected {expected}. Restore the folder, or train the adapter again."
    )


def _names(value: Any) -> bool:
    return isinstance(value, set | list) and all(isinstance(one, str) for one in value)


def _plain(value: Any) -> Any:
    """A value of a peft configuration as JSON has it, sets in order."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, set | frozenset | list | tuple) and all(isinstance(one, str) for one in value):
        return sorted(value)
    return value


def _alike(one: Any, other: Any) -> bool:
    """Equal, numbers up to rounding; True is no 1 here."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-9)
    return type(one) is type(other) and one == other


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
