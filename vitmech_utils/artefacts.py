"""Artefacts: files that are whole or absent, their hashes, and values made ready for JSON."""

import contextlib
import ctypes
import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

MANIFEST = "manifest.json"
MARK = ".vitmech"
"""The file by which folders that are made here, and may be replaced, are known."""
_TRIES = 100
_HERE, _SWAP = -100, 2  # AT_FDCWD; RENAME_EXCHANGE, which macOS calls RENAME_SWAP


class RunError(RuntimeError):
    """A run folder that is missing, unfinished, stale, mixed or damaged; the message says what mends it."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file beside `path`, then rename it: `path` is whole or untouched.

    A full disk is an `OSError` that names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _umask() -> int:
    mask = os.umask(0o077)  # it can only be read by setting it
    os.umask(mask)
    return mask


def write_json(path: Path, value: Any) -> Path:
    """Write sorted, indented JSON atomically; NaN and infinities are refused (`ValueError`)."""
    text = json_text(value)
    return write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def json_text(value: Any) -> str:
    """The one form in which JSON is written here: sorted, indented, a newline at the end."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"


def home_folder() -> Path | None:
    """The user's home; None where there is none, or where it is `/`, as in some containers."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home if len(home.parts) > 1 else None


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def text_hash(path: Path) -> str:
    """SHA-256 of a text file, hex; the same whatever ends its lines, as a checkout on Windows may have it."""
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


@contextlib.contextmanager
def waiting_lock(path: Path, say: Callable[[], object]) -> Iterator[None]:
    """Hold a lock between processes; `say` is called where another one has it, and then it waits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def mark_folder(folder: Path) -> None:
    """Say of a folder that it was made here and may be replaced."""
    (folder / MARK).write_text("Made by vitmech, which may replace this folder.\n", encoding="utf-8")


def replace_folder(new: Path, target: Path, mark: str = MARK) -> Path:
    """Put the finished folder `new` in the place of `target`, whole or not at all, and return it.

    Only a folder that carries our own mark, a file of that name in it, is replaced; an empty one, too. Where the
    system can exchange two folders, there is no instant without one at `target`. Elsewhere a kill between two renames
    leaves the old one where `restore_folder` finds it. Raises `FileExistsError` for a folder without the mark.
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


def restore_folder(target: Path) -> None:
    """Bring back the last good folder where a kill came between the two renames of `replace_folder`."""
    if not target.exists():
        with contextlib.suppress(OSError):
            _last_good(target).rename(target)


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


def folder_hashes(folder: Path) -> dict[str, str]:
    """Hash every file under `folder`, keyed by its path in POSIX form; hidden files and the manifest are left out."""
    return {
        path.relative_to(folder).as_posix(): file_hash(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name != MANIFEST
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def digest(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form, hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def to_numpy(value: Any) -> np.ndarray:
    """Turn a tensor on any device, or anything array-like, into an array."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def to_plain(value: Any) -> Any:
    """Turn nested containers of NumPy and torch values into JSON's own types; NaN and infinities become None."""
    if isinstance(value, dict):
        return {str(key): to_plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(inner) for inner in value]
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "detach"):
        return to_plain(to_numpy(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
