"""Parts of prose pages that are made, not written: the scoreboard, the opening picker, the reference, the citation."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from vitmech_utils.artefacts import write_json
from vitmech_utils.pipeline.api import reference
from vitmech_utils.pipeline.foundations import foundations
from vitmech_utils.runs.manifests import RunError

OPENING_MAPS = ("03_attention_maps", "picker.safetensors")
"""Chapter and file of the maps that the opening page's picker shows."""
PICKER_FILE, PICKER_IMAGES = "opening_picker.html", 3
SCOREBOARD_FILE = "scoreboard.json"
_HOST = re.compile(r"vm-[0-9a-f]{12}")


def fill_made(text: str, root: Path, run: Path, folder: Path) -> str:
    """Put made parts in the place of their marks, such as `run:scoreboard` between double braces.

    What a part needs beside the page (JSON, the picker) is written into `folder`. Raises `RunError` when the run
    does not hold what a part is made from.
    """
    return _MARK.sub(lambda match: _PARTS[match[1]](root, run, folder), text)


def citation(file: Path) -> str:
    """Write how to cite, as MyST, from a `CITATION.cff`: the book as text and BibTeX, then the works it names."""
    cited = yaml.safe_load(file.read_text(encoding="utf-8"))
    entries = [
        f"@software{{vitmech,\n  title = {{{cited['title']}}},\n  author = {{{_authors(cited, ' and ', '{}')}}},\n"
        f"  version = {{{cited['version']}}},\n  license = {{{cited['license']}}}\n}}",
        *(
            f"@{each['type']}{{{each['authors'][0]['family-names'].lower()}{each['year']}{'abcdef'[place]},\n"
            f"  title = {{{each['title']}}},\n  author = {{{_authors(each, ' and ', '{}')}}},\n"
            f"  year = {{{each['year']}}},\n  url = {{{each['url']}}}\n}}"
            for place, each in enumerate(cited["references"])
        ),
    ]
    listed = "\n".join(
        f"- {_authors(each, '; ')} ({each['year']}). *{each['title']}.* <{each['url']}>"
        for each in cited["references"]
    )
    return (
        f"{cited['message']}\n\n> {_authors(cited, '; ')}. *{cited['title']}.* Version {cited['version']}, "
        f"{cited['license']} licence.\n\n{listed}\n\n```bibtex\n" + "\n\n".join(entries) + "\n```"
    )


def _authors(entry: dict, between: str, guard: str = "") -> str:
    """Join authors; `guard` is the pair of marks that keeps BibTeX from taking a group's name apart."""
    names = [
        f"{guard[:1]}{each['name']}{guard[1:]}"
        if "name" in each
        else f"{each['family-names']}, {each['given-names']}"
        for each in entry["authors"]
    ]
    return between.join(names)


def _scoreboard(root: Path, run: Path, folder: Path) -> str:
    from vitmech_utils.pipeline.scoreboard_page import as_json, full
    from vitmech_utils.report.claims import scoreboard  # torch comes with it: only for pages that ask

    board = scoreboard(run)
    write_json(folder / SCOREBOARD_FILE, as_json(board))
    return full(board)


def _scoreboard_short(root: Path, run: Path, folder: Path) -> str:
    from vitmech_utils.pipeline.scoreboard_page import short
    from vitmech_utils.report.claims import scoreboard

    return short(scoreboard(run))


def _rules(root: Path, run: Path, folder: Path) -> str:
    from vitmech_utils.pipeline.scoreboard_page import rules

    return rules()


def _picker(root: Path, run: Path, folder: Path) -> str:
    """Make a small picker from the run: few images, both networks, effects and classes."""
    from safetensors.numpy import load_file

    from vitmech_utils.data.dataset import ChirpDataset, stack
    from vitmech_utils.report.picker import HeadPicker

    paths = [
        run.joinpath(*OPENING_MAPS),
        run / "04_head_ablation" / "sweep.parquet",
        run / "05_mono_or_polysemantic" / "classes.parquet",
    ]
    for path in paths:
        if not path.is_file():
            raise RunError(f"the opening picker wants {path}; run `vitmech run {path.parent.name[:2]}`")
    maps = load_file(paths[0])["maps"].astype(np.float32)[:, :PICKER_IMAGES]
    sweep, classes = (pd.read_parquet(path).sort_values(["layer", "head"]) for path in paths[1:])
    sweep = sweep[sweep["mode"] == pd.read_parquet(paths[1])["mode"].iloc[0]]
    count, shape = maps.shape[1], maps.shape[2:4]
    pixels = stack(ChirpDataset(count, seed=0, style="published", split="held-out"), count)["pixel_values"]
    grids = {name: sweep[name].to_numpy().reshape(shape) for name in ("effect", "low", "high")}
    page = HeadPicker(
        maps,
        (pixels * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy(),
        variants=("fine-tuned", "pre-trained"),
        image_labels=[f"chirp {index + 1}" for index in range(count)],
        effect=grids["effect"],
        effect_low=grids["low"],
        effect_high=grids["high"],
        head_class=classes["class"].to_numpy().reshape(shape).tolist(),
        evidence=classes["evidence"].to_numpy().reshape(shape).tolist(),
        title="Pick a head",
        name="opening",
    ).html()
    # A page's sources must not differ from build to build, and one picker needs no random name.
    (folder / PICKER_FILE).write_text(_HOST.sub("vm-opening", page), encoding="utf-8")
    return f"```{{raw}} html\n:file: {PICKER_FILE}\n```"


_PARTS: dict[str, Callable[[Path, Path, Path], str]] = {
    "scoreboard": _scoreboard,
    "scoreboard-short": _scoreboard_short,
    "verdict-rules": _rules,
    "foundations": lambda root, run, folder: foundations(run),
    "picker": _picker,
    "api": lambda root, run, folder: reference(),
    "citation": lambda root, run, folder: citation(root / "CITATION.cff"),
}
_MARK = re.compile(r"\{\{\s*run:(" + "|".join(_PARTS) + r")\s*\}\}")
