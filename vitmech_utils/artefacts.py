"""Artefacts: files that are whole or absent, their hashes, and values made ready for JSON."""

import contextlib
import errno
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from vitmech_utils.own_folders import temporary_beside

MANIFEST = "manifest.json"


class RunError(RuntimeError):
    """A run folder that is missing, unfinished, stale, mixed or damaged; the message says how to repair it."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file beside `path`, then rename it: `path` is whole or untouched.

    Its mode is what the user's umask leaves of 0666. A full disk is an `OSError` that names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    mode = temporary.stat().st_mode
    try:
        write(temporary)
        temporary.chmod(mode)  # safetensors writes a file of its own, which nobody else may read
        temporary.replace(path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return path


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
