"""pyproject.toml, requirements.lock and environment.yml say the same."""

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from small_book import ROOT

from vitmech_utils import __version__

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NOT_LOCKED = {"torchvision"}  # as torch, built per platform; only own models of other libraries want it
EXTRAS = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
LOCK_LINES = [
    line
    for name in ("requirements.lock", "requirements-cluster.lock")
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines()
    if line.strip() and not line.startswith("#")
]
LOCK = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in LOCK_LINES}


@pytest.mark.parametrize("line", LOCK_LINES)
def test_every_lock_line_is_exact(line: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!_-]+", line), (
        line
    )  # no ranges, no local builds, no addresses


def test_the_locks_name_each_package_once() -> None:
    assert len(LOCK) == len(LOCK_LINES)


@pytest.mark.parametrize("line", [*PROJECT["dependencies"], *EXTRAS])
def test_the_lock_lies_in_the_ranges_of_pyproject(line: str) -> None:
    requirement = Requirement(line)
    assert requirement.specifier, f"{line}: no range"
    version = LOCK.get(canonicalize_name(requirement.name))
    if requirement.name in NOT_LOCKED:
        assert version is None
        return
    assert version, f"{requirement.name} is not in requirements.lock"
    assert requirement.specifier.contains(version, prereleases=True), f"{line}, but the lock has {version}"


def test_environment_uses_the_lock_and_a_supported_python() -> None:
    entries = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    pip = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    assert pip == ["-r requirements.lock", "-e ."]
    python = next(e for e in entries if isinstance(e, str) and e.startswith("python="))
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.partition("=")[2])
    for entry in entries:  # a version said twice would drift
        if isinstance(entry, str) and not entry.startswith("python="):
            assert re.fullmatch(r"[a-z0-9-]+", entry), f"{entry}: the version belongs in requirements.lock"


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation.get("version", __version__)) == __version__


def test_pre_commit_keeps_what_nbval_compares() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0][
        "hooks"
    ]
    strip = next(hook["entry"] for hook in hooks if hook["id"] == "nbstripout")
    assert "--keep-count" in strip
    assert {hook["language"] for hook in hooks} == {"system"}  # nothing is fetched at commit time
