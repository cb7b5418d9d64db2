"""Where a figure comes from, in plain words: profile, hardware, day, duration, code version."""

from datetime import datetime
from typing import Any


def banner(manifest: dict[str, Any]) -> str:
    """Write the provenance of a page in plain words, as MyST; a quick run is labelled as one."""
    profile = manifest["profile"]["name"]
    quick = profile == "quick"
    title = "A quick run: few images, wide intervals" if quick else "How this page was made"
    images = {
        key: value["images"]
        for key, value in manifest["profile"]["values"].items()
        if isinstance(value, dict)
    }
    kind = "warning" if quick else "note"
    caution = (
        "It shows that everything works; for verdicts read the published run (`make site`) or use `PROFILE=laptop`. "
        if quick
        else ""
    )
    return (
        f"```{{admonition}} {title}\n:class: {kind} provenance\n"
        f"{caution}Profile `{profile}` ({manifest['profile']['values']['backbone']}; "
        f"{images['attention']} images for attention, {images['ablation']} for ablation), computed on "
        f"{hardware(manifest)} on {day(manifest)}, in {duration(manifest['wall_seconds'])} and "
        f"{manifest['peak_memory_mib'] / 1024:.1f} GiB of memory, by code version {version(manifest)}.\n```"
    )


def hardware(manifest: dict[str, Any]) -> str:
    """Say in plain words what a chapter ran on."""
    device = manifest["device"]
    cores = f"{device['cores']} core{'s' if device['cores'] != 1 else ''}"
    if device["type"] == "cpu":
        return f"{cores} of a processor ({device['name']}), no GPU"
    return f"one GPU ({device['name']}) and {cores}"


def day(manifest: dict[str, Any]) -> str:
    """The day a chapter was run, UTC."""
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
        f" (commit {code['commit'][:9]}{', with local changes' if code['modified'] else ''})"
        if code["commit"]
        else ""
    )
    return f"{code['version']}{commit}"
