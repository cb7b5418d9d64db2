"""Which file beside a recording is its annotation: found whatever its case or Unicode form, or named as unread."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from vitmech_utils.data.recordings.boxes import is_raven, same_name
from vitmech_utils.own_folders import is_companion

READ = (".txt", ".tsv")
"""Endings of files that are read, as Raven's tables or Audacity's labels."""
UNREAD = (
    ".csv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".textgrid", ".eaf", ".trs", ".lab", ".label", ".labels",
    ".srt", ".vtt", ".ebl", ".ann", ".annot", ".annotation", ".annotations", ".svl", ".sel", ".selection",
    ".selections", ".table", ".jams", ".rttm", ".ctm", ".stm", ".mlf", ".seg", ".tg", ".mat", ".xls", ".xlsx", ".ods",
)  # fmt: skip
"""Endings of other programs' annotations: such a file beside a recording is a problem, not silence."""
BETWEEN = re.compile(
    r"(\.(table|selections?|birdnet|raven|audacity|results?|labels?|annotations?|\d{1,4}))*", re.ASCII
)
"""What Raven, BirdNET and Audacity put between a recording's name and the ending."""
GLANCE = 4096  # bytes by which a file is recognized as an annotation
TIMES = re.compile(r"\s*[-+]?\d[\d.,]*\t\s*[-+]?\d")
STARTS, ENDS = (
    ("begin", "start", "onset", "tmin", "xmin"),
    ("end", "stop", "offset", "tmax", "xmax", "duration"),
)


def find_annotations(
    recordings: Sequence[Path], entries: Iterable[Path]
) -> tuple[dict[Path, Path], list[str]]:
    """The annotation of each recording that has one, and what else looks like one and is not read, in words.

    `NAME.txt` belongs to `NAME.wav`, and so do `NAME.wav.txt`, `NAME.Table.1.selections.txt`,
    `NAME.BirdNET.selection.table.txt` and the like, also as `.tsv` and in capitals. A recording with two of them is a
    problem, and so are one that two recordings could own, one of no recording here, and one in another format.
    """
    found: dict[Path, list[Path]] = {}
    problems = []
    for path in entries:
        if path in recordings or is_companion(path.name):
            continue
        owners, rest = _owners(path.name, recordings)
        ending = path.suffix.lower()
        named = bool(BETWEEN.fullmatch(rest.removesuffix(ending))) and ending in (*READ, *UNREAD)
        if len(owners) == 1 and named and ending in READ:
            found.setdefault(owners[0], []).append(path)
        elif owners and (named or _looks_like_one(path)):
            problems.append(_unread(path, owners, ending))
        elif not owners and ending in ("", *READ, *UNREAD) and _looks_like_one(path):
            problems.append(
                f"{path.name} looks like annotations, but of no recording here: name it as its recording, with the "
                "ending .txt, or move it away"
            )
    for owner, several in found.items():
        if len(several) > 1:
            names = " and ".join(sorted(path.name for path in several))
            problems.append(f"{owner.name} has several annotations, {names}: join them, or leave one there")
    return {owner: several[0] for owner, several in found.items()}, problems


def _owners(name: str, recordings: Sequence[Path]) -> tuple[list[Path], str]:
    """The recordings whose name a file's name starts with, the longest such name alone, and the rest of the name."""
    whole = same_name(name)
    starts: dict[str, list[Path]] = {}
    for recording in recordings:
        for start in {same_name(recording.name), same_name(recording.stem)}:
            if whole.startswith(start) and not whole[len(start) : len(start) + 1].isalnum():
                starts.setdefault(start, []).append(recording)
    if not starts:
        return [], ""
    longest = max(starts, key=len)
    owners = starts[longest]
    if len(owners) > 1:  # names that differ in case or form alone: the one that is spelt alike, if one is
        alike = [path for path in owners if name.startswith((path.name, f"{path.stem}."))]
        owners = alike if len(alike) == 1 else owners
    return owners, whole[len(longest) :]


def _unread(path: Path, owners: list[Path], ending: str) -> str:
    names = " or ".join(sorted(owner.name for owner in owners))
    if len(owners) > 1:
        return f"{path.name} could be of {names}: name it as the recording with its ending, as {owners[0].name}.txt"
    if ending in READ:
        return (
            f"{path.name} looks like the annotation of {names}, but is not named as one: name it {names}.txt, or move "
            "it away"
        )
    return (
        f"{path.name} looks like the annotation of {names}, and is not read: save it as a Raven selection table or as "
        f"Audacity labels ({names}.txt), or move it away"
    )


def _looks_like_one(path: Path) -> bool:
    """Whether a file starts as a table of times: Raven's or another header, or two numbers with a tab between."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            start = file.read(GLANCE)
    except OSError:
        return False
    coding = "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    lines = start.decode(coding, errors="replace").lstrip().splitlines()
    if not lines:
        return False
    words = [word.strip(' "').lower() for word in re.split(r"[\t,;]", lines[0])]
    table = any(word.startswith(STARTS) for word in words) and any(word.startswith(ENDS) for word in words)
    return bool(is_raven(lines[0]) or TIMES.match(lines[0]) or table)
