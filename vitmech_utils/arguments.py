"""Arguments of public functions, held against their annotations: a wrong kind is a documented error that names it.

Those of the command line, too: whatever a command refuses is explained in a sentence.
"""

import argparse
import contextlib
import functools
import inspect
import math
import os
import re
import reprlib
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

F = TypeVar("F", bound=Callable[..., Any])
MOST_LOOKED_AT = 10_000  # members of a sequence whose kinds are looked at
FLOATING, WHOLE = {"Float", "Float32", "Float64"}, {"Int", "Int64", "Integer", "UInt8", "Int16"}


class Kind(typing.NamedTuple):
    """What an annotation accepts: a test of a value, and the words for it; whether tensors reach it as arrays."""

    accepts: Callable[[Any], bool]
    words: str
    is_array: bool = False


class Checks(typing.NamedTuple):
    """What a checked function refuses, and with which error; it stands at the function as `checks`."""

    error: type[Exception]
    kinds: Callable[[], dict[str, Kind]]
    finite: frozenset[str]
    least: dict[str, int]


def checked_arguments(
    error: type[Exception] = ValueError,
    *,
    finite: Collection[str] = (),
    least: Mapping[str, int] = types.MappingProxyType({}),
) -> Callable[[F], F]:
    """Let a function raise `error` for an argument that is not of its annotation's kind, before anything is done.

    Names, kinds and number types are looked at, shapes and ranges are the function's own. A whole number of any kind
    passes for an `int` and reaches the function as one, a tensor or a column of a table for an array; True and False
    are no numbers, and neither is NaN. Arrays and tensors named in `finite` hold finite numbers alone, numbers named in
    `least` are of at least that size. A table without a column that the function reads is told by that column's name,
    with `error`, too.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        names = list(signature.parameters)
        where = function.__qualname__.removesuffix(".__init__")
        if unknown := {*finite, *least} - set(names):
            raise TypeError(f"{where} has no {', '.join(sorted(unknown))}")

        @functools.cache
        def kinds() -> dict[
            str, Kind
        ]:  # on the first call: annotations may name what is defined further down
            found = {name: _kind(hint) for name, hint in _hints(function).items() if name in names}
            return {name: kind for name, kind in found.items() if kind is not None}

        @functools.cache
        def axes() -> dict[str, str]:  # what an array's first axis counts
            shapes = {name: getattr(hint, "dim_str", "").split() for name, hint in _hints(function).items()}
            return {name: shape[0] for name, shape in shapes.items() if shape and shape[0].isidentifier()}

        def checked(name: str, value: Any) -> Any:
            kind = kinds().get(name)
            if isinstance(value, np.generic):
                value = _plain(value)
            if kind is not None and not kind.accepts(value):
                raise error(f"{where}: {name} is {shown(value)}, expected {kind.words}")
            if kind is not None and kind.is_array and _is_column(value):
                value = value.to_numpy()
            if kind is not None and kind.is_array and _is_tensor(value):
                value = value.detach().cpu()
                value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
            if name in least and value is not None and not value >= least[name]:
                raise error(f"{where}: {name} is {shown(value)}, expected at least {least[name]}")
            if name in finite and value is not None:
                check_finite(f"{where}: {name}", value, error, axes().get(name, "row"))
            return value

        @functools.wraps(function)
        def call(*arguments: Any, **keywords: Any) -> Any:
            # Too many arguments, or unknown ones, are the function's own TypeError.
            positional = [checked(*each) for each in zip(names, arguments, strict=False)]
            named = {name: checked(name, value) for name, value in keywords.items()}
            try:
                return function(*positional, *arguments[len(names) :], **named)
            except KeyError as missing:
                tables = dict(zip(names, positional, strict=False)) | named
                if (told := _missing_column(missing, tables)) is None:
                    raise
                raise error(f"{where}: {told}") from missing

        call.checks = Checks(error, kinds, frozenset(finite), dict(least))  # type: ignore[attr-defined]
        return typing.cast(F, call)

    return decorate


def check_finite(name: str, values: Any, error: type[Exception] = ValueError, axis: str = "row") -> None:
    """Raise `error` for NaN or infinities in an array or tensor; the message names the first rows that hold them.

    `axis` is what its first axis counts.
    """
    fine = values.isfinite() if _is_tensor(values) else np.isfinite(np.asarray(values))
    if fine.all():
        return
    broken = (~fine).reshape(len(values), -1).any(1).nonzero() if fine.ndim else ()
    rows = (broken.flatten() if _is_tensor(values) else broken[0]).tolist() if fine.ndim else []
    place = f" in {axis}(s) {rows[:5]}" if rows else ""
    raise error(f"{name}: not finite (NaN or infinite){place}, expected finite numbers")


def check_table(
    name: str,
    table: Any,
    columns: Sequence[str],
    *,
    key: Sequence[str] = (),
    finite: Sequence[str] = (),
    error: type[Exception] = ValueError,
) -> None:
    """Raise `error` for a table that lacks one of `columns`, names a `key` twice, or has no number in `finite`."""
    if not (hasattr(table, "columns") and hasattr(table, "itertuples")):
        raise error(f"{name} is {shown(table)}, expected a table with the columns {', '.join(columns)}")
    wanted = [*columns, *(column for column in (*key, *finite) if column not in columns)]
    if absent := [column for column in wanted if column not in table.columns]:
        raise error(
            f"{name} lacks {', '.join(absent)}; it has the columns {', '.join(map(str, table.columns))[:500]}"
        )
    if twice := [column for column in wanted if list(table.columns).count(column) > 1]:
        raise error(f"{name} has the column {twice[0]} more than once")

    def row(place: int) -> str:
        return ", ".join(f"{column} {table[column].iloc[place]}" for column in key) or f"row {place}"

    if key and (again := table.duplicated(list(key)).to_numpy()).any():
        raise error(f"{name}: {row(int(again.argmax()))} stands there more than once")
    for column in finite:
        values = table[column].to_numpy()
        if values.dtype.kind not in "iuf":
            raise error(f"{name}: {column} holds {values.dtype}, expected numbers")
        if (broken := ~np.isfinite(values)).any():
            place = int(broken.argmax())
            raise error(f"{name}: {column} is {values[place]} at {row(place)}, expected finite numbers")


def check_fields(value: Any, error: type[Exception] = ValueError) -> None:
    """Raise `error` for a field of a dataclass that is not of its annotation's kind; for its `__post_init__`.

    NaN passes for a number: a class that checks its numbers' ranges says better what is wrong with it.
    """
    for name, kind in _field_kinds(type(value)).items():
        found = _plain(getattr(value, name))
        if not kind.accepts(0.5 if isinstance(found, float) and math.isnan(found) else found):
            raise error(f"{type(value).__name__}.{name} is {shown(found)}, expected {kind.words}")


def shown(value: Any) -> str:
    """A value as it is written in code, of a length that a message can hold; of an array, its kind and shape."""
    if isinstance(value, np.ndarray) or _is_tensor(value):
        return f"an array of {str(value.dtype).removeprefix('torch.')} with shape {tuple(value.shape)}"
    short = reprlib.Repr()
    short.maxstring = short.maxother = 80
    return short.repr(value)


def at_least(least: int) -> Callable[[str], int]:
    """A type for argparse: whole numbers in ASCII digits, of at least this size."""

    def whole(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text) >= least):
            raise argparse.ArgumentTypeError(f"{shown(text)}, expected a whole number of at least {least}")
        return int(text)

    return whole


def exit_status(program: str, command: Callable[[], int], refusals: tuple[type[Exception], ...]) -> int:
    """Run a command of the command line: its own exit status, or 1 where it raises one of `refusals`, or an `OSError`.

    These are reported in a sentence on standard error, as are an interruption from the keyboard (status 130) and a
    reader of the output that has gone.
    """
    try:
        status = command()
        sys.stdout.flush()
        return status
    except refusals as error:
        said, status = str(error), 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is flushed at exit, either
        said, status = "nobody reads its output any more, so it stopped", 1
    except OSError as error:  # a full or read-only disk, a folder of someone else, a file in a folder's place
        said, status = f"{error.filename or 'cannot be done'}: {error.strerror or error}", 1
    except KeyboardInterrupt:
        said, status = "interrupted; what was whole before still stands", 130
    print(f"{program}: {said}", file=sys.stderr)
    return status


@functools.cache
def _field_kinds(kind: type) -> dict[str, Kind]:
    hints = typing.get_type_hints(kind)
    found = {field.name: _kind(hints[field.name]) for field in fields(kind)}
    return {name: each for name, each in found.items() if each is not None}


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """A function's annotations, without those that name what is imported for type checkers alone."""
    try:
        return typing.get_type_hints(function)
    except NameError:
        pass
    inner = inspect.unwrap(function)
    found = {}
    for name, hint in inner.__annotations__.items():
        with contextlib.suppress(NameError):
            found[name] = eval(hint, inner.__globals__) if isinstance(hint, str) else hint
    return found


def _missing_column(missing: KeyError, given: Mapping[str, Any]) -> str | None:
    """What to say where a `KeyError` is about a column that a table among the arguments lacks; None where it is not."""
    asked = missing.args[0] if missing.args else None
    tables = {name: value for name, value in given.items() if type(value).__name__ == "DataFrame"}
    several = isinstance(asked, str) and ("not in index" in asked or "in the [columns]" in asked)
    named = re.findall(r"'([^']*)'", asked.partition("dtype")[0]) if several else [asked]
    for name, table in tables.items():
        absent = [each for each in named if isinstance(each, str) and each not in table.columns]
        if absent:
            has = ", ".join(map(str, table.columns))[:500]
            return f"{name} lacks {', '.join(absent)}; it has the columns {has}"
    return None


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's."""
    return value.item() if isinstance(value, np.generic) and value.dtype.kind in "biuf" else value


def _kind(hint: Any) -> Kind | None:
    """What an annotation accepts; None where it says nothing, or nothing that is looked at."""
    if hint is Any:
        return None
    if hint in _SIMPLE:
        return _SIMPLE[hint]
    if hasattr(hint, "array_type"):
        return _array_kind(hint)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _either([_kind(each) for each in inner])
    if origin is typing.Literal:
        return _either([_SIMPLE.get(each) for each in dict.fromkeys(map(type, inner))])
    if origin is not None:
        return _container_kind(origin, inner)
    if isinstance(hint, type) and hint.__name__ == "Dataset":  # torch's; a list of items serves as well
        return Kind(lambda value: isinstance(value, hint) or _has_items(value), "a data set")
    if getattr(hint, "_is_protocol", False):
        return None
    if isinstance(hint, type) and hint is not object:
        return Kind(lambda value: isinstance(value, hint), f"a {hint.__name__}")
    return None


def _has_items(value: Any) -> bool:
    return _is_sequence(value) or (
        hasattr(value, "__getitem__")
        and hasattr(value, "__len__")
        and not isinstance(value, str | bytes | Mapping)
    )


def _either(kinds: Iterable[Kind | None]) -> Kind | None:
    kinds = list(kinds)
    if any(kind is None for kind in kinds):
        return None
    words = list(dict.fromkeys(kind.words for kind in kinds))
    return Kind(
        lambda value: any(kind.accepts(value) for kind in kinds),
        " or ".join(words),
        any(kind.is_array for kind in kinds) and not any("torch" in kind.words for kind in kinds),
    )


def _container_kind(origin: Any, inner: tuple) -> Kind | None:
    if origin is Callable or origin is type:
        return Kind(callable, "a function")
    if issubclass(origin, Mapping):
        return Kind(
            lambda value: isinstance(value, Mapping) or type(value).__name__ == "Series", "keys and values"
        )
    if issubclass(origin, tuple) and Ellipsis not in inner:
        members = [_kind(each) for each in inner]
        words = ", ".join("anything" if kind is None else kind.words for kind in members)

        def accepts(value: Any) -> bool:
            return (
                _is_sequence(value)
                and len(value) == len(members)
                and all(
                    kind is None or kind.accepts(_plain(one))
                    for kind, one in zip(members, value, strict=True)
                )
            )

        return Kind(accepts, f"({words})")
    if issubclass(origin, Iterable):
        member = _kind(inner[0]) if inner else None
        sized = issubclass(origin, Collection)

        def accepts_all(value: Any) -> bool:
            if isinstance(value, str | bytes) or not isinstance(value, Iterable) or _is_one_number(value):
                return False
            if sized and not (_is_sequence(value) or isinstance(value, Collection)):
                return False
            if member is None or not isinstance(value, Collection) or len(value) > MOST_LOOKED_AT:
                return True
            return all(member.accepts(_plain(one)) for one in value)

        of = f", each {member.words}" if member is not None else ""
        return Kind(accepts_all, f"several{of}")
    return Kind(lambda value: isinstance(value, origin), f"a {origin.__name__}")


def _is_sequence(value: Any) -> bool:
    return (
        isinstance(value, Sequence | np.ndarray)
        and not isinstance(value, str | bytes)
        and not _is_one_number(value)
    )


def _is_one_number(value: Any) -> bool:
    """Whether a value is an array or a tensor without axes, which has no members."""
    return getattr(value, "ndim", 1) == 0


def _array_kind(hint: Any) -> Kind:
    """An array of jaxtyping: NumPy's or torch's, of numbers as the annotation has them; shapes are not looked at."""
    numbers = hint.__name__.partition("[")[0]
    of_numpy = hint.array_type is np.ndarray

    def accepts(value: Any) -> bool:
        if not isinstance(value, hint.array_type) and not (
            of_numpy and (_is_tensor(value) or _is_column(value))
        ):
            return False
        kind = _number_kind(value)
        if numbers in FLOATING:
            return kind == "f" or (kind in "iu" and not _is_tensor(value))
        return kind in {"Bool": "b"}.get(numbers, "iu" if numbers in WHOLE else "biuf")

    named = {"Bool": "True and False"} | dict.fromkeys(FLOATING, "floating-point numbers")
    named |= dict.fromkeys(WHOLE, "whole numbers")
    package = "a NumPy array" if of_numpy else "a torch tensor"
    return Kind(accepts, f"{package} of {named.get(numbers, 'numbers')}", of_numpy)


def _is_tensor(value: Any) -> bool:
    """Whether a value is a tensor of torch, which is not imported for this."""
    return type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "is_floating_point")


def _is_column(value: Any) -> bool:
    """Whether a value is a column of a table of pandas, which is not imported for this, as NumPy holds it."""
    return type(value).__name__ == "Series" and isinstance(getattr(value, "dtype", None), np.dtype)


def _number_kind(value: Any) -> str:
    """NumPy's letter for the kind of numbers in an array or a tensor."""
    if not _is_tensor(value):
        return value.dtype.kind
    if value.is_floating_point():
        return "f"
    return "c" if value.is_complex() else "b" if str(value.dtype) == "torch.bool" else "i"


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)


_SIMPLE: dict[Any, Kind] = {
    bool: Kind(lambda value: isinstance(value, bool), "True or False"),
    int: Kind(lambda value: isinstance(value, Integral) and not isinstance(value, bool), "a whole number"),
    float: Kind(_is_number, "a number"),
    Real: Kind(_is_number, "a number"),
    str: Kind(lambda value: isinstance(value, str), "text"),
    Path: Kind(lambda value: isinstance(value, Path), "a path"),
    np.ndarray: Kind(
        lambda value: isinstance(value, np.ndarray) or _is_tensor(value) or _is_column(value),
        "a NumPy array",
        True,
    ),
    type(None): Kind(lambda value: value is None, "None"),
}
