"""Whether a finished run may be read: what it kept must stand, and its page may wait to be drawn again."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitmech_utils.artefacts import digest, file_hash
from vitmech_utils.profiles import Profile
from vitmech_utils.runs.code import KINDS, code_of
from vitmech_utils.runs.manifests import RunError, all_outputs, check_outputs, read_manifest
from vitmech_utils.runs.sections import differing_values


@dataclass(frozen=True)
class Standing:
    """A finished chapter whose kept values stand, and what changed since that its page shows.

    `saves_stand` says whether the tables and numbers that it saves when the page is drawn are still what they were.
    """

    manifest: dict[str, Any]
    changed: tuple[str, ...] = ()
    saves_stand: bool = True

    @property
    def verb(self) -> str:
        """The command that draws the page: `redraw`, or `run` where nothing was kept, and drawing is computing."""
        return "redraw" if self.manifest["computed"] else "run"

    @property
    def to_redraw(self) -> str:
        """Why the page is to be drawn again; empty where it stands."""
        if self.changed:
            return f"{', '.join(self.changed)} changed since"
        return "" if self.manifest.get("executed") else "it has no page yet"


def check_chapter(run: Path, name: str, root: Path, profile: Profile) -> dict[str, Any]:
    """Return the manifest of a finished chapter whose artefacts stand; raises as `standing_of` does."""
    return standing_of(run, name, root, profile).manifest


def standing_of(
    run: Path, name: str, root: Path, profile: Profile, reading: tuple[str, ...] = ()
) -> Standing:
    """Hold a finished chapter against what it reads of the profile, the code and its own inputs.

    Raises `RunError` when the chapter is missing, damaged, of another profile, or stale: when the code that computes,
    or something that it read, is another one now. The message names what to run.
    """
    again = f"run `{command('run', name, run, root, profile)}` first"
    folder = run / name
    if name in reading:
        raise RunError(f"{folder}: {' reads '.join((*reading, name))}; {again}")
    manifest = read_manifest(folder, again)
    if differing := differing_values(manifest["profile"], profile, root / "notebooks" / f"{name}.ipynb"):
        raise RunError(
            f"{folder} was made with other profile values ({differing}); {again} with the same values"
        )
    check_outputs(folder, manifest, again)
    changes = code_changes(manifest, root)
    if changes["computes"]:
        raise RunError(f"{folder} is stale: {', '.join(changes['computes'])} changed since; {again}")
    showing, read_otherwise = [*changes["saves"], *changes["shows"]], []
    for source, recorded in manifest["inputs"].items():
        if "path" in recorded:  # an adapter from published/
            if adapter_digest(root / recorded["path"]) != recorded["digest"]:
                raise RunError(f"{folder} is stale: the adapter in {recorded['path']} changed since; {again}")
            continue
        there = all_outputs(standing_of(run, source, root, profile, (*reading, name)).manifest)
        other = sorted(file for file, value in recorded["files"].items() if there.get(file) != value)
        if other and recorded["computes"]:
            raise RunError(
                f"{folder} is stale: {source} was run again since, with another {other[0]}; {again}"
            )
        read_otherwise += [f"{source}/{file}" for file in other]
    changed = tuple(dict.fromkeys([*showing, *read_otherwise]))
    return Standing(manifest, changed, saves_stand=not changes["saves"] and not read_otherwise)


def code_changes(manifest: dict[str, Any], root: Path) -> dict[str, list[str]]:
    """Name the files of today's code that a run was not made by, under the kind that they are of."""
    name = manifest["chapter"]
    then, now = manifest["code"], code_of(root / "notebooks" / f"{name}.ipynb")
    known: dict[str, str] = {}
    changed: dict[str, list[str]] = {}
    for kind in KINDS:
        known |= then["modules"][kind]
        changed[kind] = sorted(
            path for path, value in now["modules"][kind].items() if known.get(path) != value
        )
        if now["notebook"] and (then["notebook"] or {}).get(kind) != now["notebook"][kind]:
            changed[kind].insert(0, f"notebooks/{name}.ipynb")
    return changed


def command(verb: str, name: str, run: Path, root: Path, profile: Profile) -> str:
    """The command that runs (or redraws) a chapter in this run folder."""
    elsewhere = (
        "" if run == (root / "results" / profile.name).resolve() else f" --run-dir {shlex.quote(str(run))}"
    )
    return f"vitmech {verb} {name[:2]} --profile {profile.name}{elsewhere}"


def adapter_digest(folder: Path) -> str:
    """One hash over the files of an adapter folder; its card, which says what they hold, is none of them."""
    files = (path for path in sorted(folder.glob("*")) if path.is_file() and path.name != "README.md")
    return digest({path.name: file_hash(path) for path in files})
