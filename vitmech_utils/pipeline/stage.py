"""Stage the book: a run folder's executed notebooks, checked and labelled, beside the prose pages."""

import copy
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml
from pydantic import ValidationError

from vitmech_utils.artefacts import MANIFEST
from vitmech_utils.own_folders import clear_made, mark_made, refuse_unmarked, replace_folder, restore_folder
from vitmech_utils.pipeline.benchmarks import fill_benchmarks
from vitmech_utils.pipeline.launch import add_launch_buttons
from vitmech_utils.pipeline.made_pages import fill_made
from vitmech_utils.pipeline.pictures import ARGUMENT, argument, show_argument
from vitmech_utils.pipeline.provenance import banner, day, duration, hardware, inline_code, literal, version
from vitmech_utils.profiles import Profile
from vitmech_utils.report.notebook_data import share_notebook_data
from vitmech_utils.runs.code import read_notebook
from vitmech_utils.runs.manifests import RunError, all_outputs, check_outputs, read_manifest
from vitmech_utils.runs.sections import sections_read, values_read
from vitmech_utils.runs.standing import code_changes, command, standing_of

PROSE = ("_config.yml", "_toc.yml", "book")
IMAGES = (".png", ".svg", ".jpg")
RECORD = "built.json"
"""Beside a built book: what it was built from."""
TOKEN = re.compile(r"\{\{\s*run:([^}]+?)\s*\}\}")


def stage(root: Path, run: Path, target: Path) -> dict[str, dict[str, Any]]:
    """Fill `target` with the book's sources: prose, staged notebooks, the run's figures. Returns the manifests.

    `target` is replaced whole, or left as it was; what is there and was not staged is refused (`RunError`). A page that
    is to be drawn again is staged and says so.
    Raises `RunError` when a chapter is missing, failed, stale, or does not belong with the others. Only `published/`
    may lack chapters. They are left out of the contents, with the list items that point at them; other chapters name
    them without a link.
    """
    manifests, absent = checked_book(root, run)
    states = {name: state(root, run, manifest) for name, manifest in manifests.items()}
    fresh = target.with_name(f"{target.name}.partial")
    for folder in (target, fresh):
        adopt_old_build(root, folder)
        refuse_unmarked(folder, RunError)
    clear_made(fresh, RunError)
    mark_made(fresh)
    for entry in PROSE:
        source = root / entry
        if source.is_dir():
            shutil.copytree(
                source, fresh / entry, ignore=shutil.ignore_patterns("_build", "__pycache__", ".*")
            )
        else:
            shutil.copy2(source, fresh / entry)
    _leave_out(fresh, absent)
    add_launch_buttons(fresh / "_config.yml", root)
    for name, manifest in manifests.items():
        notebook = read_notebook(run / name / f"{name}.ipynb")
        path = fresh / "notebooks" / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        page = labelled(notebook, manifest, states[name].advice)
        _unlink(page, root, absent)
        share_notebook_data(page)
        nbformat.write(page, path)
        figures = fresh / "book" / "run" / name
        for figure in sorted(p for p in (run / name).rglob("*") if p.suffix in IMAGES):
            figures.mkdir(parents=True, exist_ok=True)
            shutil.copy2(figure, figures / figure.name)
        show_argument(notebook, figures)
    for page in (fresh / "book").glob("*.md"):
        text = fill_benchmarks(page.read_text(encoding="utf-8"), root)
        text = fill_made(text, root, run, page.parent)
        page.write_text(_fill(text, page.name, run, manifests, states), encoding="utf-8")
    replace_folder(fresh, target)
    return manifests


def adopt_old_build(root: Path, folder: Path) -> None:
    """Mark what earlier versions built and left unmarked: beside a record of it, or in the clone's `book/_build`."""
    ours = (folder.parent / RECORD).is_file() or folder.resolve().is_relative_to(
        (root / "book" / "_build").resolve()
    )
    if folder.is_dir() and ours:
        mark_made(folder)


@dataclass(frozen=True)
class State:
    """How a chapter's page stands to today's code: in a word or two; what changed where it does not, and the command
    that draws it again."""

    name: str
    changed: str = ""
    again: str = ""

    @property
    def plain(self) -> str:
        """A sentence of advice for the terminal; empty where there is nothing to do."""
        return self._sentence(self.changed, f"`{self.again}`")

    @property
    def advice(self) -> str:
        """The same for a page: no markup leaves its place."""
        return self._sentence(literal(self.changed), inline_code(self.again))

    def _sentence(self, changed: str, again: str) -> str:
        return f"Its page is older than its code: {changed}. {again} draws it again." if self.changed else ""


def state(root: Path, run: Path, manifest: dict[str, Any]) -> State:
    """Compare a chapter of a run with today's code."""
    chapter = manifest["chapter"]
    if _is_published(root, run):
        changes = code_changes(manifest, root)
        if changes["computes"]:
            return State("older than its code")
        return State("to redraw" if changes["saves"] or changes["shows"] else "up to date")
    profile = _profile(manifest, run / chapter)
    there = standing_of(run, chapter, root, profile)
    if not there.to_redraw:
        return State("up to date")
    again = command(there.verb, chapter, run, root, profile)
    return State("to redraw", there.to_redraw, again)


def checked_book(root: Path, run: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the manifests of the book's chapters, and those that a published run leaves out; raises as `stage`."""
    restore_folder(run)
    names = [Path(entry).name for entry in toc_files(root) if entry.startswith("notebooks/")]
    absent = [name for name in names if _is_published(root, run) and not (run / name).is_dir()]
    return checked_run(root, run, [name for name in names if name not in absent]), absent


def toc_files(root: Path) -> list[str]:
    """List the book's pages, in order, as `_toc.yml` names them."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    groups = [*toc.get("parts", []), toc]
    return [toc["root"], *(entry["file"] for group in groups for entry in group.get("chapters", []))]


def labelled(notebook: Any, manifest: dict[str, Any], advice: str = "") -> Any:
    """Return a copy of an executed notebook with its provenance under the title and its set-up folded."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook["cells"]:
        tags = set(cell["metadata"].get("tags", []))
        if "injected-parameters" in tags:  # the provenance gives the values in words
            tags.add("remove-cell")
        elif cell["cell_type"] == "code" and ("parameters" in tags or "open_chapter(" in cell["source"]):
            tags.add("hide-input")
        if tags:
            cell["metadata"]["tags"] = sorted(tags)
    first = notebook["cells"][0]
    lines = first["source"].splitlines(keepends=True)
    title = next((number for number, line in enumerate(lines) if line.startswith("# ")), None)
    if first["cell_type"] != "markdown" or title is None:
        raise RunError(
            f"{manifest['chapter']}: its first cell holds no `# Title`, so the page would have no name"
        )
    head, rest = lines[: title + 1], "".join(lines[title + 1 :]).lstrip("\n")
    cells = [
        _markdown("".join(head).rstrip("\n"), "title"),
        _markdown(banner(manifest, advice), "provenance"),
    ]
    if rest:
        cells.append(nbformat.from_dict({**first, "source": rest}))
    if shown := argument(notebook, manifest["chapter"]):
        cells.append(_markdown(shown, ARGUMENT))
    notebook["cells"] = [*cells, *notebook["cells"][1:]]
    return notebook


def checked_run(root: Path, run: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """Return the manifests of a run's chapters; raises `RunError` unless all are whole and belong together."""
    manifests = {name: _checked(root, run, name) for name in names}
    _refuse_mixed(run, manifests, root)
    return manifests


def _is_published(root: Path, run: Path) -> bool:
    return run.resolve() == (root / "published").resolve()


def _leave_out(book: Path, absent: list[str]) -> None:
    """Take chapters out of the contents, and list items that point at them out of the prose."""
    if not absent:
        return
    toc = yaml.safe_load((book / "_toc.yml").read_text(encoding="utf-8"))
    for group in (*toc.get("parts", []), toc):
        if "chapters" in group:
            group["chapters"] = [
                entry for entry in group["chapters"] if Path(entry["file"]).name not in absent
            ]
    if not _number_themselves(toc):
        for group in toc.get("parts", []):
            group.pop("numbered", None)  # a chapter would stand under another one's number
    if "parts" in toc:
        toc["parts"] = [group for group in toc["parts"] if group["chapters"]]
    (book / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), encoding="utf-8")
    for page in (book / "book").glob("*.md"):
        lines = page.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not any(f"notebooks/{name}.ipynb" in line for name in absent)]
        page.write_text("".join(kept), encoding="utf-8")


def _unlink(notebook: dict[str, Any], root: Path, absent: list[str]) -> None:
    """Let a notebook's text name chapters that were left out by their titles instead of linking to them."""
    for name in absent:
        first = read_notebook(root / "notebooks" / f"{name}.ipynb").cells[0]
        title = next(line for line in first.source.splitlines() if line.startswith("# "))[2:]
        link = re.compile(rf"\[([^\]]*)\]\({name}\.ipynb(?:#[^)]*)?\)")

        def said(match: re.Match[str], title: str = title) -> str:
            return match[1] or f"*{title}* (a chapter that this run leaves out)"

        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = link.sub(said, cell["source"])


def _checked(root: Path, run: Path, name: str) -> dict[str, Any]:
    frozen = _is_published(root, run)
    again = (
        "restore published/ (git checkout -- published)"
        if frozen
        else f"run `vitmech run {name[:2]} --run-dir {run}` with the profile of the other chapters"
    )
    manifest = read_manifest(run / name, again)
    profile = None if frozen else _profile(manifest, run / name, again)
    if profile:  # the published run may be older than the code; it is held against itself alone
        there = standing_of(run, name, root, profile)
    check_outputs(run / name, manifest, again)
    if not manifest.get("executed"):
        if profile:
            again = f"draw it with `{command(there.verb, name, run, root, profile)}`"
        raise RunError(f"{run / name}: no executed notebook (the chapter ran outside `vitmech run`); {again}")
    notebook = read_notebook(run / name / manifest["executed"]["file"])
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    if any(output["output_type"] == "error" for output in outputs):
        raise RunError(f"{run / name}: its executed notebook holds an error; {again}")
    return manifest


def _profile(manifest: dict[str, Any], folder: Path, again: str = "run it again") -> Profile:
    try:
        profile = Profile.model_validate(manifest["profile"]["values"])
    except ValidationError as error:
        keys = ", ".join(sorted({".".join(map(str, problem["loc"])) for problem in error.errors()}))
        raise RunError(f"{folder}: made with profile values of another version ({keys}); {again}") from error
    if profile.hash != manifest["profile"]["hash"]:
        raise RunError(f"{folder}: its profile's values are not those of its hash; {again}")
    return profile


def _refuse_mixed(run: Path, manifests: dict[str, dict[str, Any]], root: Path) -> None:
    versions = {name: manifest["code"]["version"] for name, manifest in manifests.items()}
    if len(set(versions.values())) > 1:
        listed = ", ".join(f"{name}: {value[:9]}" for name, value in versions.items())
        raise RunError(
            f"{run}: chapters were made with different package version ({listed}); run `vitmech run all` on it"
        )
    read: dict[str, tuple[str, Any]] = {}
    several = len({manifest["profile"]["hash"] for manifest in manifests.values()}) > 1
    for name, manifest in manifests.items() if several else ():
        sections = sections_read(root / "notebooks" / f"{name}.ipynb")
        for key, value in values_read(manifest["profile"]["values"], sections).items():
            other, seen = read.setdefault(key, (name, value))
            if seen != value:
                raise RunError(
                    f"{run}: {other} and {name} were made with different profile values ({key}); run `vitmech run all` "
                    "on it"
                )
    modules: dict[str, tuple[str, str]] = {}
    for name, manifest in manifests.items():
        for path, value in manifest["code"]["modules"]["computes"].items():
            other, seen = modules.setdefault(path, (name, value))
            if seen != value:
                raise RunError(
                    f"{run}: {other} and {name} were made with different versions of {path}; run both again"
                )
        for source, expected in manifest["inputs"].items():
            there = all_outputs(manifests[source]) if source in manifests else {}
            if there and any(there.get(file) != value for file, value in expected.get("files", {}).items()):
                raise RunError(
                    f"{run}: {name} read another result of {source} than the one there; run {name[:2]} again"
                )


def _fill(
    text: str, page: str, run: Path, manifests: dict[str, dict[str, Any]], states: dict[str, State]
) -> str:
    def value(match: re.Match[str]) -> str:
        where = match.group(1)
        if where == "status":
            return _status(manifests, states)
        if where == "trace":
            return _trace(manifests)
        if where == "banner":
            return banner(next(iter(manifests.values())))
        chapter, artefact, *keys = where.split("/")
        found: Any = _read_json(run, chapter, artefact, page)
        form = ""
        for key in keys:
            key, _, form = key.partition(":")
            try:
                found = found[int(key)] if isinstance(found, list) else found[key]
            except (KeyError, IndexError, ValueError, TypeError) as error:
                raise RunError(
                    f"book/{page}: {{{{ run:{where} }}}}: no {key!r} in {chapter}/{artefact}.json"
                ) from error
        try:
            shown = format(found, form)
        except (ValueError, TypeError) as error:
            raise RunError(
                f"book/{page}: {{{{ run:{where} }}}}: {chapter}/{artefact}.json holds {str(found)[:80]!r} there, which "
                f"{form!r} cannot write"
            ) from error
        return literal(shown) if isinstance(found, str) else shown

    return TOKEN.sub(value, text)


def _read_json(run: Path, chapter: str, artefact: str, page: str) -> Any:
    path = run / chapter / (MANIFEST if artefact == "manifest" else f"{artefact}.json")
    if not path.is_file():
        raise RunError(f"book/{page} wants {path}, which the run did not leave")
    return json.loads(path.read_text(encoding="utf-8"))


def _status(manifests: dict[str, dict[str, Any]], states: dict[str, State]) -> str:
    rows = [
        "| chapter | profile | run on | day | time | CPU time | memory | code | page |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, manifest in manifests.items():
        memory = f"{manifest['peak_memory_mib'] / 1024:.1f} GiB"
        wall = duration(manifest["wall_seconds"])
        cpu = duration(manifest["cpu_seconds"]) if manifest.get("cpu_seconds") else "not recorded"
        cells = [
            f"[](../notebooks/{name}.ipynb)",
            literal(manifest["profile"]["name"]),
            hardware(manifest),
            day(manifest),
        ]
        page = states[name].name + (
            f", drawn again on {day(manifest['drawn'])}" if manifest.get("drawn") else ""
        )
        rows.append(f"| {' | '.join([*cells, wall, cpu, memory, version(manifest), page])} |")
    return "\n".join(rows)


def _trace(manifests: dict[str, dict[str, Any]], most: int = 4) -> str:
    """Where each chapter's time went: the kept results that took longest, and all the rest, in seconds."""
    traced = {name: manifest for name, manifest in manifests.items() if manifest.get("trace")}
    if not traced:
        return "This run was made before chapters kept a trace of their time."
    rows = ["| chapter | CPU time | of it for | the rest: imports, figures, text |", "|---|---|---|---|"]
    for name, manifest in traced.items():
        took = {key: seconds["cpu"] for key, seconds in manifest["trace"].items()}
        longest = sorted(took, key=took.__getitem__, reverse=True)[:most]
        listed = [f"`{key}` {duration(took[key])}" for key in longest]
        others = len(took) - len(longest)
        if others:
            listed.append(f"{others} more {duration(sum(took.values()) - sum(took[key] for key in longest))}")
        rest = duration(max(manifest["cpu_seconds"] - sum(took.values()), 0))
        total = duration(manifest["cpu_seconds"])
        rows.append(f"| [](../notebooks/{name}.ipynb) | {total} | {', '.join(listed)} | {rest} |")
    whole = duration(sum(manifest["cpu_seconds"] for manifest in traced.values()))
    return "\n".join([*rows, f"\nAll chapters together took {whole} of processor time."])


def _markdown(source: str, cell_id: str) -> Any:
    return nbformat.v4.new_markdown_cell(source, id=f"staged-{cell_id}")


def _number_themselves(toc: dict[str, Any]) -> bool:
    """Whether counting the numbered chapters gives each the number in its file's name."""
    numbered = [part for part in toc.get("parts", []) if part.get("numbered")]
    names = [Path(entry["file"]).name for part in numbered for entry in part["chapters"]]
    return all(name.startswith(f"{number:02}_") for number, name in enumerate(names, start=1))
