"""What others' machines do with a clone: hosted checks, images, Binder, Colab, and makes that wait for each other."""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
import venv
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from small_book import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import how_long

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PYTHON_RANGE = SpecifierSet(
    tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def steps(workflow: dict) -> list[dict]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_make_alone_and_may_do_little(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"]
    calls = [step["run"] for step in steps(workflow) if "run" in step]
    assert calls
    for call in calls:
        words = call.split()
        assert words[0] == "make"
        assert words[-1] == "PYTHON=python"
        goals = " ".join(words[1:-1]).replace("${{ matrix.goal }}", "")
        assert set(goals.split()) <= TARGETS, call
    for job in workflow["jobs"].values():
        assert set(job.get("strategy", {}).get("matrix", {}).get("goal", [])) <= TARGETS
    for step in steps(workflow):
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False


def test_the_tests_run_on_the_three_pythons() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))
    matrix = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert matrix == ["3.11", "3.12", "3.13"]
    assert all(PYTHON_RANGE.contains(version) for version in matrix)


def releases(path: Path) -> dict[str, str]:
    lines = [line.split(" ")[0] for line in path.read_text(encoding="utf-8").splitlines()]
    found = [line.split("==") for line in lines if re.match(r"[A-Za-z0-9]", line)]
    return {canonicalize_name(name): version for name, version in found}


@pytest.mark.parametrize("name", ["requirements", "requirements-cluster"])
def test_every_locked_release_has_its_hashes_but_torch(name: str) -> None:
    locked, hashed = ROOT / f"{name}.lock", ROOT / f"{name}-hashes.lock"
    wanted = releases(locked)
    wanted.pop("torch", None)  # its builds differ from platform to platform
    assert releases(hashed) == wanted, "an edit to a lock wants `make hashes`"
    blocks = re.split(r"\n(?=\S)", hashed.read_text(encoding="utf-8").strip())
    assert len(blocks) == len(wanted)
    for block in blocks:
        assert re.fullmatch(r"\S+==\S+(?: ; [^\n\\]+)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+", block), (
            block[:200]
        )


def test_make_installs_by_hash() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^LOCKED := .*--require-hashes", text, re.MULTILINE)
    installs = [
        line
        for line in text.splitlines()
        if re.search(r"-r requirements\S*\.lock", line) and "install" in line
    ]
    assert installs
    assert all("$(LOCKED)" in line and "-hashes.lock" in line for line in installs)


def test_the_image_is_built_from_the_lock_and_kubernetes_names_it() -> None:
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    version = re.search(r"^FROM docker\.io/library/python:(\d+\.\d+)-", text, re.MULTILINE).group(1)
    assert PYTHON_RANGE.contains(version)
    goals = re.search(r"&& PIP_NO_CACHE_DIR=1 make ([a-z ]+)$", text, re.MULTILINE).group(1).split()
    assert {"env", "cluster"} <= set(goals) <= TARGETS
    profile = ROOT / "profiles" / "kubernetes" / "config.yaml"
    assert "Containerfile" in profile.read_text(encoding="utf-8")
    assert yaml.safe_load(profile.read_text())["container-image"].split("/")[-1].startswith("vitmech:")
    (volume,) = yaml.safe_load(profile.read_text())["kubernetes-persistent-volumes"]
    assert re.search(r"^WORKDIR (\S+)$", text, re.MULTILINE).group(1) == volume.split(":")[1]
    assert not re.search(r"VENV=(\S+)", text).group(1).startswith(volume.split(":")[1] + "/")


def test_binder_installs_from_the_lock() -> None:
    script = ROOT / "binder" / "postBuild"
    subprocess.run(["sh", "-n", script], check=True)
    text = script.read_text(encoding="utf-8")
    assert "--require-hashes -r requirements-hashes.lock" in text
    entries = yaml.safe_load((ROOT / "binder" / "environment.yml").read_text(encoding="utf-8"))[
        "dependencies"
    ]
    assert PYTHON_RANGE.contains(
        next(entry for entry in entries if entry.startswith("python=")).split("=")[1]
    )


def test_everything_vendored_is_listed_with_its_licence() -> None:
    listed = {}
    for line in (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
            if len(cells) < 6:  # what is fetched, and does not lie here
                continue
            listed[cells[0]] = cells[4]
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    tracked = done.stdout.splitlines()
    if not tracked:
        pytest.skip("not a git clone")
    for licence in listed.values():
        assert licence in tracked
        assert len((ROOT / licence).read_text(encoding="utf-8")) > 1000
    licences = [
        path for path in tracked if re.search(r"(^|/)(LICEN[CS]E|COPYING)[^/]*$", path) and "/" in path
    ]
    minified = [path for path in tracked if re.search(r"(\.min\.js|\.woff2?|\.ttf|mml-chtml\.js)$", path)]
    for path in [*licences, *minified]:
        assert any(path.startswith(f"{folder}/") for folder in listed), (
            f"{path} is in no folder of THIRD_PARTY.md"
        )


def test_a_running_kernel_finds_the_clone_without_a_restart(tmp_path: Path) -> None:
    """What Colab does: a clone beside a kernel whose environment does not know the package yet."""
    clone = tmp_path / "clone"
    for name in ("vitmech_utils", "tools", "notebooks"):
        shutil.copytree(
            ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, clone / name)
    venv.create(tmp_path / "env", symlinks=True)
    purelib = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "env")}))
    (purelib / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    kernel = (
        "import importlib.util, runpy\n"
        "assert importlib.util.find_spec('vitmech_utils') is None\n"
        f"runpy.run_path({str(clone / 'tools' / 'hosted_notebook.py')!r}, run_name='__main__')\n"
        "from vitmech_utils.data.chirps import sample_chirp\n"
        "print(sample_chirp(0, 0).start_time >= 0)\n"
    )
    done = subprocess.run(
        [tmp_path / "env" / "bin" / "python", "-c", kernel],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PIP_NO_BUILD_ISOLATION": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "True"
    assert f"from {clone}" in done.stdout


def test_of_two_makes_the_second_waits(tmp_path: Path) -> None:
    call = [sys.executable, str(ROOT / "tools" / "one_at_a_time.py"), "lock"]
    first = subprocess.Popen(
        [*call, "sh", "-c", "touch begun; until test -e go; do sleep 0.05; done; echo 1 >> order"],
        cwd=tmp_path,
    )
    while not (tmp_path / "begun").exists():
        time.sleep(0.02)
    second = subprocess.Popen(
        [*call, "sh", "-c", "echo 2 >> order"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    assert "another make is at work" in second.stderr.readline()
    time.sleep(0.3)
    assert second.poll() is None
    (tmp_path / "go").touch()
    assert (first.wait(20), second.wait(20)) == (0, 0)
    second.stderr.close()
    assert (tmp_path / "order").read_text().split() == ["1", "2"]


def test_a_killed_make_holds_nobody_up(tmp_path: Path) -> None:
    call = [sys.executable, str(ROOT / "tools" / "one_at_a_time.py"), "lock"]
    first = subprocess.Popen([*call, "sleep", "600"], cwd=tmp_path)
    while not (tmp_path / "lock").exists():
        time.sleep(0.02)
    time.sleep(0.3)
    first.kill()
    first.wait()
    assert subprocess.run([*call, "true"], cwd=tmp_path, timeout=20, check=False).returncode == 0


def test_make_takes_the_lock_and_hands_its_goals_on(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements.lock"):
        shutil.copy2(ROOT / name, tmp_path / name)
    shutil.copytree(
        ROOT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__", "node_modules")
    )
    (tmp_path / "results" / "quick").mkdir(parents=True)
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        ["make", "clean", f"PYTHON={sys.executable}"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "results" / "quick").exists()
    assert (tmp_path / ".make" / "lock").exists()


def write_seconds(root: Path, chapter: str, **values: object) -> None:
    folder = root / "results" / "quick" / chapter
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(values))


def test_how_long_goes_by_this_clone_s_last_run(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    for name in ("01_first", "02_second"):
        (tmp_path / "notebooks" / f"{name}.ipynb").touch()
        write_seconds(tmp_path, name, cpu_seconds=300.0)
    record = json.loads(how_long.RECORD.read_text())
    said = how_long.message("quick", True, tmp_path, cores=2)
    assert f"about {round((300 + record['book']) / 60)} minutes on 2 cores, by its last run here" in said
    said = how_long.message("quick", False, tmp_path, cores=1)
    assert f"about {round((600 + record['book'] + record['environment']) / 60)} minutes on 1 core, " in said
    assert "the environment included" in said


def test_how_long_admits_what_it_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_first.ipynb").touch()
    write_seconds(tmp_path, "01_first", wall_seconds=3)
    assert "has not been timed" in how_long.message("quick", True, tmp_path, cores=2)


def test_the_recorded_times_are_of_every_chapter() -> None:
    record = json.loads(how_long.RECORD.read_text())
    assert set(record["chapters"]["quick"]) == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert all(seconds > 0 for seconds in record["chapters"]["quick"].values())
    assert "minute" in how_long.message("quick", False, cores=2)
