"""Which of a profile's values a chapter reads: its sections belong to some chapters, all else to every one."""

import ast
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from vitmech_utils.profile_sections import Section
from vitmech_utils.profiles import Profile
from vitmech_utils.runs.code import module_files, notebook_source

SECTIONS = frozenset(
    name
    for name, field in Profile.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
)
"""The parts of a profile that are tables of their own."""
_PROFILES = ("profiles.py", "profile_sections.py")  # they define all sections, and read none
_HANDED_ON = {"further_seeds": {"trainings"}, "rehearsal": {"train", "task"}}
"""Methods of a profile that read a section."""
PROFILES = frozenset({"profile", "recipe"})
"""What a profile is called where its sections are read: models, too, have a `task`, and blocks an `attention`."""


def sections_read(notebook: Path) -> frozenset[str]:
    """The sections that a chapter's code, or code of the package that it imports, reads of a profile.

    A profile is what is called one (`PROFILES`), and whatever a call returns: rather one section too many. A notebook
    that is not there reads all.
    """
    if not notebook.is_file():
        return SECTIONS
    source = notebook_source(notebook)
    files = [path for path in module_files(source) if path.suffix == ".py" and path.name not in _PROFILES]
    return _sections_in(source).union(*(_sections_of(path, path.stat().st_mtime_ns) for path in files))


def values_read(values: Mapping[str, Any], sections: Iterable[str]) -> dict[str, Any]:
    """A profile's values without the sections that are not read."""
    return {key: value for key, value in values.items() if key not in SECTIONS or key in set(sections)}


def differing_values(made: Mapping[str, Any], profile: Profile, notebook: Path) -> str:
    """How what a chapter reads of a profile differs from the values that its run was made with; empty if not at all.

    `made` is a manifest's profile. Values that contradict their own hash are another profile's, too.
    """
    if made["hash"] == profile.hash:
        return ""
    then, now = made["values"], profile.model_dump(mode="json")
    if then == now:
        return "another hash"
    sections = sections_read(notebook)
    return _differing(values_read(then, sections), values_read(now, sections))


def _differing(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> str:
    parts = []
    for key in sorted({*old, *new}):
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            parts.append(_differing(before, now, f"{prefix}{key}."))
        elif before != now:
            parts.append(f"{prefix}{key}: {before} then, {now} now")
    return ", ".join(part for part in parts if part)


@cache
def _sections_of(path: Path, _changed: int) -> frozenset[str]:
    """The sections that a file reads, found once for each state of it: chapters have most modules in common."""
    return _sections_in(path.read_text(encoding="utf-8"))


def _sections_in(text: str) -> frozenset[str]:
    found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)]
    names = {node.attr for node in found if owner(node) in PROFILES | {""}}
    handed_on = (_HANDED_ON[node.attr] for node in found if node.attr in _HANDED_ON)
    return frozenset(SECTIONS & names.union(*handed_on))


def owner(attribute: ast.Attribute) -> str:
    """What the thing is called that an attribute is one of, by its last name; empty for what has none, as a call."""
    of = attribute.value
    if isinstance(of, ast.Attribute):
        return of.attr
    return of.id if isinstance(of, ast.Name) else ""
