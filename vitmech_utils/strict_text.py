"""Text that others wrote, read in one way only: numbers, JSON and YAML, each of a size that is known before."""

import json
import math
import re
from pathlib import Path
from typing import Any

import yaml

LARGEST_JSON = 2**20  # bytes; settings have about a thousand
LARGEST_YAML = 2**16  # characters: a pure Python parser takes a second for them
DEEPEST = 32  # sections within sections
_NUMBER = re.compile(
    r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf(?:inity)?|nan)", re.ASCII | re.IGNORECASE
)


def number(text: str) -> float:
    """A decimal number in ASCII digits, spaces around it aside; NaN and infinities pass, for the caller to refuse.

    Raises ValueError for what only Python takes for a number: underscores between digits, digits of other scripts.
    """
    bare = text.strip(" ")
    if not _NUMBER.fullmatch(bare):
        raise ValueError(f"{text!r} is not a number with a decimal point")
    return float(bare)


def whole_number(text: str) -> int:
    """A whole number in ASCII digits, spaces around it aside. Raises ValueError for any other text."""
    bare = text.strip(" ")
    if not re.fullmatch(r"\d{1,18}", bare, re.ASCII):
        raise ValueError(f"{text!r} is not a whole number")
    return int(bare)


def read_json(path: Path, largest: int = LARGEST_JSON, unknown: bool = False) -> Any:
    """The value of a JSON file of at most `largest` bytes.

    Raises ValueError (without the path) for a larger file, bytes that are not UTF-8, a key that stands twice in one
    object, numbers that are not finite, and nesting without end. With `unknown`, NaN may stand for a number that was
    not taken, as pandas writes it.
    """
    if (size := path.stat().st_size) > largest:
        raise ValueError(f"it has {size:,} bytes, expected at most {largest:,}")
    return parse_json(path.read_text(encoding="utf-8"), unknown)


def parse_json(text: str, unknown: bool = False) -> Any:
    """The value of a JSON text. Raises ValueError as `read_json` does."""
    try:
        return json.loads(
            text,
            object_pairs_hook=_once,
            parse_constant=_finite_or_nan if unknown else _finite_number,
            parse_float=_finite_number,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands there more than once")
        found[key] = value
    return found


def _finite_number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it holds {text}, expected finite numbers")
    return value


def _finite_or_nan(text: str) -> float:
    return math.nan if text == "NaN" else _finite_number(text)


def parse_yaml(text: str) -> Any:
    """The value of a YAML text of plain keys and values, numbers as JSON has them, `true`, `false` and `null`.

    All else is text: `yes`, `010`, `1_000` and `1:30`, which YAML 1.1 takes for true, 8, 1000 and 90. Raises ValueError
    for more than `LARGEST_YAML` characters, keys that stand twice, aliases (they multiply), tags, and deep nesting.
    """
    if len(text) > LARGEST_YAML:
        raise ValueError(f"it has {len(text):,} characters, expected at most {LARGEST_YAML:,}")
    try:
        return yaml.load(text, Loader=_Strict)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error) or "it is nested too deeply") from error


class _Strict(yaml.SafeLoader):
    """YAML's safe loader without aliases, tags, merge keys and repeated keys."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 (yaml's own way to tell them)
    depth = 0

    def compose_node(self, parent, index):
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise self._refusal("aliases are not read: write the value where it belongs", event)
        if event.tag not in (None, "!"):
            raise self._refusal(f"the tag {event.tag!r} is not read: write the plain value", event)
        if self.depth == DEEPEST:
            raise self._refusal(f"nested more than {DEEPEST} deep", event)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node, deep=False):
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=deep)
            if not isinstance(key, str):
                raise self._refusal(f"the key {key!r} is no text", key_node)
            if key in found:
                raise self._refusal(f"the key {key!r} stands there more than once", key_node)
            found[key] = self.construct_object(value_node, deep=deep)
        return found

    def _refusal(self, what: str, place) -> yaml.MarkedYAMLError:
        return yaml.MarkedYAMLError(problem=what, problem_mark=place.start_mark)


_Strict.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(?:null|~|)$"), ["n", "~", ""])
_Strict.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(?:true|false)$"), ["t", "f"])
_Strict.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})$"), list("-+0123456789")
)
_Strict.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$"),
    list("-+0123456789."),
)
