"""Folders that are replaced whole or not at all, and only where they hold nothing but what was written here before."""

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

MARK = ".vitmech"
"""The file by which folders are known that were made here, and may be replaced or removed."""
LEFT_BY_SYSTEMS = {".DS_Store", "Thumbs.db", "desktop.ini", ".directory"}  # by file managers, in any folder
SHOWN = 5  # names that an error lists
_TRIES = 100
_HERE, _SWAP = -100, 2  # AT_FDCWD; RENAME_EXCHANGE, which macOS calls RENAME_SWAP


def is_companion(name: str) -> bool:
    """Whether a file is one that systems leave beside others: macOS' `._NAME` on foreign disks, `.DS_Store`, ..."""
    return name.startswith("._") or name in LEFT_BY_SYSTEMS


def write_folder(
    folder: Path | str,
    fill: Callable[[Path], object],
    names: Collection[str],
    marks: Collection[str],
    error: type[Exception],
) -> Path:
    """Let `fill` write a new folder beside `folder`, then put it in the place of what is there; returns `folder`.

    What is there is replaced where it is empty, or holds files called `names` alone, all of `marks` among them: where
    an earlier call wrote it. Anything else, and the working folder, is refused with `error`, and left as it is. At any
    instant there is the old folder or the new one, whole (see `put_in_place`). Files get the mode that the user's
    umask leaves of 0666.
    """
    folder = Path(folder)
    place = restore_folder(folder.absolute()).resolve()
    refuse_foreign(folder, names, marks, error)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".saving-") as scratch:
        ready = Path(scratch) / "ready"
        ready.mkdir()
        fill(ready)
        open_to_umask(ready)
        refuse_foreign(folder, names, marks, error)  # again: writing takes a while
        put_in_place(ready, place)
    return folder


def replace_folder(new: Path, target: Path, mark: str = MARK) -> Path:
    """Put the finished folder `new` in the place of `target`, whole or not at all, and return it.

    Only a folder that carries our own mark, a file of that name in it, is replaced; an empty one, too. Raises
    `FileExistsError` for a folder without the mark. Both must lie on one file system.
    """
    restore_folder(target)
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise FileExistsError(errno.EEXIST, "not a folder that may be replaced", str(target))
    if target.is_dir() and any(target.iterdir()) and not (target / mark).is_file():
        raise FileExistsError(
            errno.EEXIST, f"holds files but no {mark}, so it was not made here and is left alone", str(target)
        )
    if not (new / mark).is_file():
        raise FileNotFoundError(errno.ENOENT, f"has no {mark}", str(new))
    return put_in_place(new, target)


def put_in_place(new: Path, target: Path) -> Path:
    """Give a finished folder its name; what had the name is removed after that. Returns `target`.

    Where the system can exchange two folders, there is no instant without one at `target`. Elsewhere a kill between two
    renames leaves the old one where `restore_folder` finds it.
    """
    last = _last_good(target)
    _remove(last)
    for _ in range(_TRIES):
        if target.is_dir() and _exchange(new, target):
            _remove(new)  # by now the old one
            return target
        if target.is_dir():
            target.rename(last)
        try:
            new.rename(target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # someone restored the last one in between
                continue
            restore_folder(target)
            raise
        _remove(last)
        return target
    raise OSError(errno.EBUSY, "others keep writing it", str(target))


def restore_folder(target: Path) -> Path:
    """Bring back the last good folder where a kill came between two renames of `put_in_place`; returns `target`."""
    if not target.exists():
        with contextlib.suppress(
            OSError
        ):  # there is none, another process was faster, or nothing may be written
            _last_good(target).rename(target)
    return target


def temporary_beside(path: Path, prefix: str = ".", suffix: str | None = None) -> Path:
    """Make an empty file beside `path`, of a free name and the mode that the user's umask leaves of 0666.

    The name starts with `prefix`, which hides it, and ends as `path` does, or with `suffix`.
    """
    for _ in range(_TRIES):
        found = path.with_name(f"{prefix}{secrets.token_hex(6)}{path.suffix if suffix is None else suffix}")
        with contextlib.suppress(FileExistsError):
            os.close(os.open(found, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            return found
    raise OSError(errno.EBUSY, "no free name beside it", str(path))


def open_to_umask(folder: Path) -> None:
    """Give every file under `folder` the mode that a new one has: what the user's umask leaves of 0666.

    safetensors and what else writes by way of a temporary file leave 0600, so that nobody else of a group may read.
    """
    model = temporary_beside(folder)
    mode = model.stat().st_mode & 0o777
    model.unlink()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)


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
    """Make a folder, or mark one that was made here, so that it may be replaced or removed; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text(
        "Made by vitmech, which may replace or remove this folder.\n", encoding="utf-8"
    )
    return folder


def _last_good(target: Path) -> Path:
    return target.with_name(f".{target.name}.last-good")


def _remove(folder: Path) -> None:
    """Delete a folder of ours; under another name first, so that nothing half deleted can come back."""
    rubbish = folder.with_name(f"{folder.name}.rubbish")
    shutil.rmtree(rubbish, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.rename(rubbish)
    shutil.rmtree(rubbish, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step; False where the system or the file system cannot."""
    names = os.fsencode(one), os.fsencode(other)
    library = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
    if hasattr(library, "renameat2"):  # Linux
        return library.renameat2(_HERE, names[0], _HERE, names[1], _SWAP) == 0
    if hasattr(library, "renamex_np"):  # macOS
        return library.renamex_np(*names, _SWAP) == 0
    return False


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
