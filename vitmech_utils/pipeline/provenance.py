"""Where a figure comes from, in plain words: profile, hardware, day, duration, code version."""

import re
from datetime import datetime
from typing import Any

_MARKUP = re.compile(r"[^\w\s.,:;/@+()-]|_")
COUNTED = {"03": ("attention",), "04": ("ablation",), "10": ("attention",)}
"""The chapters that take a profile's images for attention or for ablation; all others say themselves what they take."""


def banner(manifest: dict[str, Any], advice: str = "") -> str:
    """Write the provenance of a page in plain words, as MyST; a quick run is labelled as one.

    `advice` is a sentence on what to do where the page is older than its code.
    """
    profile = manifest["profile"]["name"]
    quick = profile == "quick"
    title = "A quick run: few images, wide intervals" if quick else "How this page was made"
    kind = "warning" if quick else "note"
    caution = (
        "It shows that everything works; for verdicts read the published run (`make site`) or use `PROFILE=laptop`. "
        if quick
        else ""
    )
    return (
        f"```{{admonition}} {title}\n:class: {kind} provenance\n"
        f"{caution}Profile {inline_code(profile)} ({literal(manifest['profile']['values']['backbone'])}"
        f"{_counts(manifest)}), computed on {hardware(manifest)} on {day(manifest)}, "
        f"in {duration(manifest['wall_seconds'])} and "
        f"{manifest['peak_memory_mib'] / 1024:.1f} GiB of memory, by code version {version(manifest)}."
        f"{_drawn(manifest)}{' ' + advice if advice else ''}\n```"
    )


def literal(text: object) -> str:
    """A value as text that no markup can leave: MyST's own characters and HTML's are escaped, lines joined."""
    return _MARKUP.sub(lambda match: f"&#{ord(match[0])};", " ".join(str(text).split()))


def inline_code(text: object) -> str:
    """A value as code within a line: its fence is longer than any run of backticks in it, and it stays on one line."""
    line = " ".join(str(text).split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    return (
        f"{fence} {line} {fence}" if line[:1] == "`" or line[-1:] == "`" else f"{fence}{line or ' '}{fence}"
    )


def _counts(manifest: dict[str, Any]) -> str:
    values = manifest["profile"]["values"]
    told = [
        f"{literal(values[key]['images'])} images for {key}"
        for key in COUNTED.get(manifest["chapter"][:2], ())
    ]
    return f"; {', '.join(told)}" if told else ""


def _drawn(manifest: dict[str, Any]) -> str:
    drawn = manifest.get("drawn")
    if not drawn:
        return ""
    return f" The page was drawn again from what that run kept on {day(drawn)}, by code version {version(drawn)}."


def hardware(manifest: dict[str, Any]) -> str:
    """Say in plain words what a chapter ran on."""
    device = manifest["device"]
    name = literal(device["name"])
    cores = f"{device['cores']} core{'s' if device['cores'] != 1 else ''}"
    if device["type"] == "cpu":
        return f"{cores} of a processor ({name}), no GPU"
    return f"one GPU ({name}) and {cores}"


def day(manifest: dict[str, Any]) -> str:
    """The day a chapter was run, or its page drawn, UTC."""
    return f"{datetime.fromisoformat(manifest['started']):%d %B %Y}".lstrip("0")


def duration(seconds: float) -> str:
    """Write seconds as people do: `42 s`, `12 min 5 s`, `3 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def version(manifest: dict[str, Any]) -> str:
    """Name the code: package version and commit, local changes admitted."""
    code = manifest["code"]
    commit = (
        f" (commit {literal(code['commit'][:9])}{', with local changes' if code['modified'] else ''})"
        if code["commit"]
        else ""
    )
    return f"{literal(code['version'])}{commit}"
