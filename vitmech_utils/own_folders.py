"""Folders that are replaced whole or not at all, and only where they hold nothing but what was written here before."""

import contextlib
import ctypes
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

MARK = ".vitmech"  # a file that tells a folder of made pages from one that somebody else filled
LEFT_BY_SYSTEMS = {".DS_Store", "Thumbs.db", "desktop.ini", ".directory"}  # by file managers, in any folder
SHOWN = 5  # names that an error lists


def is_companion(name: str) -> bool:
    """Whether a file is one that systems leave beside others: macOS' `._NAME` on foreign disks, `.DS_Store`, ..."""
    return name.startswith("._") or name in LEFT_BY_SYSTEMS


def replace_folder(
    folder: Path | str,
    fill: Callable[[Path], object],
    names: Collection[str],
    marks: Collection[str],
    error: type[Exception],
) -> Path:
    """Let `fill` write a new folder beside `folder`, then put it in the place of what is there; returns `folder`.

    What is there is replaced where it is empty, or holds files called `names` alone, all of `marks` among them: where
    an earlier call wrote it. Anything else, and the working folder, is refused with `error`, and left as it is. At any
    instant there is the old folder or the new one, whole (where the system can exchange two names in one step; else the
    old one waits under a name of its own, and `restored` brings it back).
    """
    folder = Path(folder)
    place = restored(folder.absolute()).resolve()
    refuse_foreign(folder, names, marks, error)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".saving-") as scratch:
        ready = Path(scratch) / "ready"
        ready.mkdir()
        fill(ready)
        refuse_foreign(folder, names, marks, error)  # again: writing takes a while
        put_in_place(ready, place)
    return folder


def refuse_foreign(
    folder: Path, names: Collection[str], marks: Collection[str], error: type[Exception]
) -> None:
    """Raise `error` where a folder holds anything but files of these names, or lacks one of `marks`, or is in use."""
    place = folder.absolute().resolve()
    if not place.exists():
        return
    if not place.is_dir():
        raise error(f"{folder} is a file, expected a folder: name another place")
    if Path.cwd().resolve().is_relative_to(place):
        raise error(f"{folder} is the working folder, or holds it: name a folder inside it")
    found = sorted(path for path in place.iterdir() if not is_companion(path.name))
    others = [
        path.name for path in found if path.name not in names or not path.is_file() or path.is_symlink()
    ]
    absent = sorted(set(marks) - {path.name for path in found})
    if others or (found and absent):
        why = f"holds {_listed(others)}" if others else f"lacks {_listed(absent)}"
        raise error(
            f"{folder} {why}, so it was not written here, and nothing in it was touched: name a new or empty folder"
        )


def clear_made(folder: Path, error: type[Exception]) -> None:
    """Remove a folder of made pages with all that it holds. Raises `error` where it isn't empty and carries no mark."""
    refuse_unmarked(folder, error)
    if folder.exists():
        shutil.rmtree(folder)


def refuse_unmarked(folder: Path, error: type[Exception]) -> None:
    """Raise `error` unless a folder is absent, empty, or carries the mark of `mark_made`."""
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_symlink() or not folder.is_dir():
        raise error(f"{folder} is no folder of its own: remove it, or name another place")
    found = sorted(path.name for path in folder.iterdir() if not is_companion(path.name))
    if found and MARK not in found:
        raise error(
            f"{folder} holds {_listed(found)} and no mark ({MARK}) of this program, and nothing in it was touched: "
            "name another place, or remove it if it was made by an earlier version"
        )


def mark_made(folder: Path) -> Path:
    """Make a folder that may be removed again, with all that it holds."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text("made by vitmech, and removed by it\n", encoding="utf-8")
    return folder


def put_in_place(ready: Path, place: Path) -> None:
    """Give a whole folder its name; what had the name is removed after that. Both must lie on one file system."""
    if not place.exists():
        ready.rename(place)
        return
    if not _exchange(ready, place):
        before = _waiting(place)
        shutil.rmtree(before, ignore_errors=True)
        place.rename(before)
        try:
            ready.rename(place)
        except OSError:
            before.rename(place)
            raise
        before.rename(ready)
    shutil.rmtree(ready)


def restored(place: Path) -> Path:
    """Bring back a folder that a kill left without its name between two steps of `put_in_place`; returns `place`."""
    before = _waiting(place)
    if before.is_dir() and not place.exists():
        with contextlib.suppress(OSError):  # another process was faster, or may not write here
            before.rename(place)
    return place


def _waiting(place: Path) -> Path:
    return place.with_name(f".vitmech-before-{place.name}")


def _exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two folders in one step; False where the system or its disk cannot."""
    libc = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
    try:
        if sys.platform == "linux":
            here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
            return libc.renameat2(here, os.fsencode(one), here, os.fsencode(other), swap) == 0
        if sys.platform == "darwin":
            return libc.renamex_np(os.fsencode(one), os.fsencode(other), 2) == 0  # RENAME_SWAP
    except AttributeError:  # a C library from before it
        pass
    return False


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
