"""Archives from a package index: held against a hash before a byte of them is read, members read up to a size."""

import gzip
import hashlib
import io
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path


def fetch_archive(requirement: str, sha256: str, folder: Path, refuse: Callable[[str], Exception]) -> Path:
    """Download one archive with pip into an empty `folder`, without its dependencies, and return it.

    pip holds it against its SHA-256 (hex) before anything else is done with it, and so does this function; of a source
    archive pip then asks for its metadata, which runs its setup.py. Raises what `refuse` makes of a reason: that pip
    could not download it, or another hash.
    """
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--disable-pip-version-check", "--dest", str(folder), "-r", str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = [path for path in folder.iterdir() if path != wanted]
    if done.returncode or len(archives) != 1:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise refuse(f"pip could not download {requirement} ({reason})")
    with archives[0].open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        raise refuse(f"{archives[0].name} has SHA-256 {found}, expected {sha256}")
    return archives[0]


def read_members(
    archive: Path, pattern: str, most: int, refuse: Callable[[str], Exception]
) -> dict[str, bytes]:
    """The files of a wheel or a source archive whose paths `pattern` matches in full, by its first group.

    Only regular files are read, each of at most `most` bytes: raises what `refuse` makes of one that has more, whatever
    the archive says of its size.
    """
    files: dict[str, bytes] = {}
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for member in wheel.infolist():
                if found := re.fullmatch(pattern, member.filename):
                    with wheel.open(member) as stream:
                        files[found.group(1)] = _bounded(stream, member.filename, most, refuse)
        return files
    with tarfile.open(archive) as sources:
        for entry in sources:
            found = re.fullmatch(pattern, entry.name)
            if found and entry.isreg() and (stream := sources.extractfile(entry)) is not None:
                files[found.group(1)] = _bounded(stream, entry.name, most, refuse)
    return files


def read_gzip(path: Path, most: int, refuse: Callable[[str], Exception]) -> bytes:
    """The content of a gzip file of at most `most` bytes; raises what `refuse` makes of one that has more."""
    with gzip.open(path) as stream:
        return _bounded(stream, path.name, most, refuse)


def _bounded(stream: io.BufferedIOBase, name: str, most: int, refuse: Callable[[str], Exception]) -> bytes:
    content = stream.read(most + 1)
    if len(content) > most:
        raise refuse(f"{name} has more than {most:,} bytes")
    return content
