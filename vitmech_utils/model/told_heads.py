"""Telling a model's heads by name patterns, for modules whose names and sizes nobody could guess."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from typing import Any

from torch import nn

from vitmech_utils.arguments import checked_arguments

RECORD = "told_heads"
"""The attribute under which a module keeps what it was told; copies of the module keep it too."""


@dataclass(frozen=True)
class Heads:
    """Where a model keeps its heads: patterns of module names, as `named_modules` gives them.

    `output` matches every layer's output projection, in order (`*` stands for anything): an `nn.Linear` that reads
    all heads of the layer side by side. `count` is the number of heads of a layer; without it an attribute `num_heads`,
    `num_attention_heads`, `heads` or `n_heads` of the module around the projection tells it. `query`, `key` and `value`
    match linear layers, or one fused layer may be named by all three (its rows are thirds, in this order). `attention`
    matches modules whose output are the attention weights [image, head, token, token], such as a dropout; without it
    the softmax is found where it is computed. `prefix` is the number of tokens before the patches, `patch` the side of
    a patch in pixels; both are found where they are not told.
    """

    output: str
    count: int | None = None
    prefix: int | None = None
    attention: str | None = None
    query: str | None = None
    key: str | None = None
    value: str | None = None
    patch: int | None = None

    def __post_init__(self) -> None:
        for name in ("output", "attention", "query", "key", "value"):
            pattern = getattr(self, name)
            if pattern is not None and (not isinstance(pattern, str) or not pattern):
                raise ValueError(f"{name} is {pattern!r}, expected a pattern such as 'blocks.*.attn.proj'")
        for name, least in (("count", 1), ("prefix", 0), ("patch", 1)):
            number = getattr(self, name)
            if number is not None and (
                not isinstance(number, int) or isinstance(number, bool) or number < least
            ):
                raise ValueError(f"{name} is {number!r}, expected a whole number from {least}, or None")

    def matching(self, pattern: str, modules: dict[str, Any]) -> list[str]:
        """Names that match a pattern, sorted by the numbers in them."""
        found = [name for name in modules if fnmatch.fnmatchcase(name, pattern)]
        return sorted(found, key=_by_number)


@checked_arguments()
def tell_heads(model: nn.Module, heads: Heads) -> nn.Module:
    """Tell where `model` keeps its heads, and return it; every function of the package then finds them there.

    The names in `heads` are relative to `model`, which may be wrapped afterwards. Raises `ValueError` where a pattern
    matches no module, or the query, key and value patterns not one for each output projection.
    """
    if not isinstance(heads, Heads):
        raise ValueError(f"heads is {heads!r}, expected Heads(output='blocks.*.attn.proj', ...)")
    modules = dict(model.named_modules())
    outputs = heads.matching(heads.output, modules)
    if not outputs:
        linears = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
        likely = sorted({re.sub(r"\d+", "*", name) for name in linears})
        raise ValueError(
            f"output: no module matches {heads.output!r}; linear layers of this model: "
            f"{', '.join(likely[:12]) or 'none'}"
        )
    for name in ("attention", "query", "key", "value"):
        pattern = getattr(heads, name)
        if pattern is not None and (count := len(heads.matching(pattern, modules))) != len(outputs):
            raise ValueError(
                f"{name}: {pattern!r} matches {count} modules, expected {len(outputs)}, one for each of "
                f"{heads.output!r}"
            )
    setattr(model, RECORD, heads)
    return model


def _by_number(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in name.split(".")]
