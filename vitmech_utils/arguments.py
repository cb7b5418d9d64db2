"""Arguments of public functions, held against their annotations: a wrong kind is a documented error that names it.

Those of the command line, too: whatever a command refuses is explained in a sentence.
"""

import argparse
import functools
import inspect
import math
import os
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
    """What an annotation accepts: a test of a value, and the words for it."""

    accepts: Callable[[Any], bool]
    words: str


def checked_arguments(error: type[Exception] = ValueError) -> Callable[[F], F]:
    """Let a function raise `error` for an argument that is not of its annotation's kind, before anything is done.

    Names, kinds and number types are looked at, shapes and ranges are the function's own. A whole number of any kind
    passes for an `int` and reaches the function as one; True and False are no numbers, and neither is NaN.
    """

    def decorate(function: F) -> F:
        names = list(inspect.signature(function).parameters)
        where = function.__qualname__.removesuffix(".__init__")

        @functools.cache
        def kinds() -> dict[
            str, Kind
        ]:  # on the first call: annotations may name what is defined further down
            hints = typing.get_type_hints(function)
            found = {name: _kind(hint) for name, hint in hints.items() if name in names}
            return {name: kind for name, kind in found.items() if kind is not None}

        def checked(name: str, value: Any) -> Any:
            kind = kinds().get(name)
            if isinstance(value, np.generic):
                value = _plain(value)
            if kind is not None and not kind.accepts(value):
                raise error(f"{where}: {name} is {shown(value)}, expected {kind.words}")
            return value

        @functools.wraps(function)
        def call(*arguments: Any, **keywords: Any) -> Any:
            # Too many arguments, or unknown ones, are the function's own TypeError.
            positional = [checked(*each) for each in zip(names, arguments, strict=False)]
            named = {name: checked(name, value) for name, value in keywords.items()}
            return function(*positional, *arguments[len(names) :], **named)

        return typing.cast(F, call)

    return decorate


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
    return Kind(lambda value: any(kind.accepts(value) for kind in kinds), " or ".join(words))


def _container_kind(origin: Any, inner: tuple) -> Kind | None:
    if origin is Callable or origin is type:
        return Kind(callable, "a function")
    if issubclass(origin, Mapping):
        return Kind(lambda value: isinstance(value, Mapping), "keys and values")
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
            if isinstance(value, str | bytes) or not isinstance(value, Iterable):
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
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes)


def _array_kind(hint: Any) -> Kind:
    """An array of jaxtyping: NumPy's or torch's, of numbers as the annotation has them; shapes are not looked at."""
    numbers = hint.__name__.partition("[")[0]

    def accepts(value: Any) -> bool:
        if not isinstance(value, hint.array_type):
            return False
        kind = _number_kind(value)
        if numbers in FLOATING:
            return kind == "f" or (kind in "iu" and isinstance(value, np.ndarray))
        return kind in {"Bool": "b"}.get(numbers, "iu" if numbers in WHOLE else "biuf")

    named = {"Bool": "True and False"} | dict.fromkeys(FLOATING, "floating-point numbers")
    named |= dict.fromkeys(WHOLE, "whole numbers")
    package = "a NumPy array" if hint.array_type is np.ndarray else "a torch tensor"
    return Kind(accepts, f"{package} of {named.get(numbers, 'numbers')}")


def _is_tensor(value: Any) -> bool:
    """Whether a value is a tensor of torch, which is not imported for this."""
    return type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "is_floating_point")


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
    type(None): Kind(lambda value: value is None, "None"),
}
