"""Values that a chapter keeps: written in the form that their type asks for, and read back in the same types.

A table is a parquet file; arrays, tensors and dataclasses of them are a safetensors file, whose one entry of metadata
holds what is plain; everything else is JSON. Nothing is pickled.
"""

import dataclasses
import importlib
import io
import json
import re
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vitmech_utils.artefacts import to_numpy, to_plain, write_atomically, write_json
from vitmech_utils.runs.manifests import PACKAGE, RunError

SUFFIXES = (".parquet", ".safetensors", ".json")
_METADATA = "vitmech"
_PLAIN = (type(None), bool, int, float, str)
_NAME = re.compile(r"\w[\w.-]*")


def save(folder: Path, name: str, value: Any) -> Path:
    """Write a value as `<name>.parquet`, `<name>.safetensors` or `<name>.json`, by its type; returns the path.

    Raises `TypeError` for what none of them holds, `ValueError` for a name that is no plain file name, or a table
    with an index of its own.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"name is {name!r}, expected letters, digits, dots, dashes and underscores")
    if isinstance(value, pd.DataFrame):
        return save_table(folder / f"{name}.parquet", value)
    if _has_arrays(value):
        return _save_arrays(folder / f"{name}.safetensors", value)
    return write_json(folder / f"{name}.json", to_plain(value))


def find(folder: Path, name: str) -> Path | None:
    """The file that holds a kept value; None where there is none."""
    return next((path for path in paths(folder, name) if path.is_file()), None)


def paths(folder: Path, name: str) -> list[Path]:
    """The files that a kept value may be in."""
    return [folder / f"{name}{suffix}" for suffix in SUFFIXES]


def load(path: Path) -> Any:
    """Read what `save` wrote; raises `RunError` where the file is not of that form."""
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    return _load_arrays(path)


def save_table(path: Path, frame: pd.DataFrame) -> Path:
    """Write a table without its row numbers; `ValueError` for an index that holds more than those."""
    index = frame.index
    if isinstance(index, pd.MultiIndex) or index.name is not None or not pd.api.types.is_integer_dtype(index):
        raise ValueError(f"{path.name}: the table's index would be lost; make it columns with reset_index()")
    return write_atomically(path, lambda temporary: frame.to_parquet(temporary, index=False))


def _has_arrays(value: Any) -> bool:
    """Tell whether a value is to come back as arrays: it is one, a dataclass, or a container of nothing else."""
    if dataclasses.is_dataclass(value) or isinstance(value, pd.DataFrame | np.ndarray) or _is_tensor(value):
        return True
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return bool(parts) and all(map(_has_arrays, parts))


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")  # without torch there are no tensors
    return torch is not None and isinstance(value, torch.Tensor)


def _save_arrays(path: Path, value: Any) -> Path:
    arrays: dict[str, Any] = {}
    metadata = {_METADATA: json.dumps(_encode(value, "", arrays), sort_keys=True)}
    if any(_is_tensor(array) for array in arrays.values()):
        import torch
        from safetensors.torch import save_file

        arrays = {
            key: array.detach().cpu().contiguous().clone()
            if _is_tensor(array)
            else torch.from_numpy(np.array(array, order="C"))
            for key, array in arrays.items()
        }
    else:
        from safetensors.numpy import save_file

        arrays = {key: np.array(array, order="C") for key, array in arrays.items()}
    return write_atomically(path, lambda temporary: save_file(arrays, temporary, metadata=metadata))


def _encode(value: Any, place: str, arrays: dict[str, Any]) -> Any:
    """Describe a value in JSON, and put the arrays in it aside under the names that say where they stand."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, np.generic):
        return _encode(value.item(), place, arrays)
    if isinstance(value, type):
        raise TypeError(f"{place or 'the value'}: a {type(value).__name__} cannot be kept")
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value)]
        return {
            "class": f"{type(value).__module__}.{_importable(value)}",
            "fields": {name: _encode(getattr(value, name), _within(place, name), arrays) for name in fields},
        }
    if isinstance(value, dict):
        return {
            "dict": [
                [_encode(key, place, arrays), _encode(inner, _within(place, key), arrays)]
                for key, inner in value.items()
            ]
        }
    if isinstance(value, set | frozenset):
        return {type(value).__name__: [_encode(inner, place, arrays) for inner in sorted(value)]}
    if isinstance(value, list | tuple):
        return {
            "list" if isinstance(value, list) else "tuple": [
                _encode(inner, _within(place, number), arrays) for number, inner in enumerate(value)
            ]
        }
    kind, array = _as_array(value, place)
    name = place or "value"
    if name in arrays:
        raise ValueError(f"two arrays would be called {name!r}; name them otherwise")
    arrays[name] = array
    return {kind: name}


def _as_array(value: Any, place: str) -> tuple[str, Any]:
    if _is_tensor(value):
        return "tensor", value
    if isinstance(value, pd.DataFrame):
        return "table", np.frombuffer(value.to_parquet(), dtype=np.uint8)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return "array", to_numpy(value)
    what = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
    raise TypeError(f"{place or 'the value'}: {what} cannot be kept")


def _importable(value: Any) -> str:
    kind = type(value)
    if kind.__module__.partition(".")[0] != PACKAGE or "." in kind.__qualname__:
        raise TypeError(f"{kind.__qualname__} is no class of {PACKAGE}, so it could not be read back")
    return kind.__qualname__


def _within(place: str, key: Any) -> str:
    return f"{place}.{key}" if place else str(key)


def _load_arrays(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            tree = json.loads((file.metadata() or {})[_METADATA])
        tensors = '"tensor"' in json.dumps(tree)
        with safe_open(path, framework="pt" if tensors else "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        return _decode(tree, arrays)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise RunError(f"{path}: not as it was kept ({error}); run its chapter again") from error


def _decode(tree: Any, arrays: dict[str, Any]) -> Any:
    if not isinstance(tree, dict):
        return tree
    if "class" in tree:
        return _rebuild(tree["class"], {key: _decode(part, arrays) for key, part in tree["fields"].items()})
    ((kind, content),) = tree.items()
    if kind in _CONTAINERS:
        return _CONTAINERS[kind](_decode(part, arrays) for part in content)
    if kind == "dict":
        return {_decode(key, arrays): _decode(part, arrays) for key, part in content}
    array = arrays[content]
    if kind == "tensor":
        return array
    array = to_numpy(array)
    return pd.read_parquet(io.BytesIO(array.tobytes())) if kind == "table" else array


_CONTAINERS: dict[str, Callable[[Any], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}


def _rebuild(where: str, values: dict[str, Any]) -> Any:
    module, _, name = where.rpartition(".")
    if module.partition(".")[0] != PACKAGE:
        raise ValueError(f"{where} is no class of {PACKAGE}")
    kind = getattr(importlib.import_module(module), name)
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__module__ == module):
        raise ValueError(f"{where} is no dataclass")
    expected = {field.name for field in dataclasses.fields(kind)}
    if set(values) != expected:
        raise ValueError(f"{where} has the fields {', '.join(sorted(expected))}, not {', '.join(values)}")
    hints = typing.get_type_hints(kind)
    for field, value in values.items():
        if not _fits(value, hints[field]):
            raise TypeError(f"{where}.{field} is a {type(value).__name__}, expected {hints[field]}")
    return kind(**values)


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether a value is of an annotated type; of a container, the container alone is looked at."""
    origin = typing.get_origin(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in typing.get_args(hint))
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if hint is float:
        return isinstance(value, int | float)
    return isinstance(value, origin or (type(None) if hint is None else hint))
