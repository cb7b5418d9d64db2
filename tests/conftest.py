"""Shared fixtures: a small book, and the one real run and book that the end-to-end tests look at."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import filelock
import pytest
import small_book
import torchvision_here  # noqa: F401  # before transformers, which looks for torchvision

ROOT = small_book.ROOT
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NEEDS_BROWSER = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


ALL = os.environ.get("VITMECH_TESTS") == "all"
"""Whether what repeats other tests at length is run, too: `make test-all`."""
SECONDS = ROOT / "results" / ".test_seconds.json"
MARKS = {"pipeline", "browser", "slow"}
_seconds: dict[str, dict] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    """Note how long each test took, what it waits for from fixtures included."""
    report = yield
    marks = sorted(MARKS & {mark.name for mark in item.iter_markers()})
    noted = _seconds.setdefault(item.nodeid, {"seconds": 0.0, "marks": marks})
    noted["seconds"] = round(noted["seconds"] + call.duration, 3)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Add the times to those of earlier calls: `make check` chooses by them, `tools/slowest_tests.py` lists them."""
    if not _seconds or not SECONDS.parent.is_dir():
        return
    with filelock.FileLock(f"{SECONDS}.lock"):
        try:
            before = json.loads(SECONDS.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = {}
        SECONDS.write_text(json.dumps({**before, **_seconds}, indent=1, sort_keys=True), encoding="utf-8")


def vitmech(*arguments: object, root: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Call the command line as a user does, in a process of its own; below `make test`, in a fork that has imported."""
    command = [sys.executable, "-m", "vitmech_utils", *map(str, arguments)]
    return _call(command, root, environment)


def snakemake(*arguments: object, root: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Call Snakemake as the Makefile does."""
    options = ["--cores", "2", "--nolock", "--rerun-incomplete"]
    command = [sys.executable, "-m", "snakemake", *options, *map(str, arguments)]
    return _call(command, root, environment)


def _call(command: list[str], root: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("VITMECH_RUN")}
    path = os.pathsep.join([str(ROOT), inherited.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    env = {**inherited, "PYTHONPATH": path, **environment}
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A small book of three chapters that run in no time."""
    return small_book.make(tmp_path / "clone")


@pytest.fixture(scope="session")
def quick_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real series, once, on the quick profile, through Snakemake, in a run folder of its own.

    One thread a chapter: two chapters side by side take less time than two threads in each.
    """
    run = tmp_path_factory.mktemp("quick") / "run"
    settings = ["profile=quick", f"run_dir={run}", "set=", "threads=1"]
    done = snakemake("--quiet", "rules", "host", "--config", *settings)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
    return run


@pytest.fixture(scope="session")
def built_book(quick_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The HTML book of that run; returns its folder."""
    out = tmp_path_factory.mktemp("book")
    done = vitmech("book", "--run-dir", quick_run, "--out", out)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
    return out / "html"


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """Chromium, headless; asks nothing of the outside by itself."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()
