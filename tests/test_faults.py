"""Faults on purpose: whatever breaks, nothing whole is lost, nothing half-written stays, the next call goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import vitmech
from small_book import ROOT, write_notebook

from vitmech_utils.artefacts import folder_hashes

pytestmark = [pytest.mark.pipeline, pytest.mark.alone, pytest.mark.slow]
TINY = 1  # MiB, of the disk that is filled
WAITS = (
    'chapter.save_json(1, "half")\n'
    'import os, pathlib, time\npathlib.Path("pid").write_text(str(os.getpid()))\n'
    'time.sleep(0 if pathlib.Path("go").exists() else 120)'
)


def start(root: Path, *arguments: object) -> subprocess.Popen:
    """Start a `vitmech` command and leave it running."""
    command = [sys.executable, "-m", "vitmech_utils.cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=root, env=environment, start_new_session=True, **pipes)


def wait_for(ready: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"{what} took more than {seconds:.0f} s"
        time.sleep(0.1)


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.is_file() and "State:\tZ" not in status.read_text()


def leftovers(run: Path) -> list[str]:
    """What is half-written: hidden folders that a chapter fills, scratch notebooks, temporary files."""
    kinds = (".*.partial", ".*.finished", ".*.last-good", ".*.rubbish", ".scratch/*", "*/.*.*")
    found = [path for kind in kinds for path in run.glob(kind)]
    return [path.relative_to(run).as_posix() for path in found if path.parent.name != ".locks"]


def kernel_at_work(root: Path) -> int:
    path = root / "notebooks" / "pid"
    wait_for(lambda: path.is_file() and path.read_text(), "the start of chapter 01")
    return int(path.read_text())


def test_a_killed_kernel_is_told_and_the_next_call_ends_with_the_same_bytes(small: Path) -> None:
    source = small / "notebooks" / "01_first.ipynb"
    write_notebook(source, "01_first", [WAITS, 'chapter.save_json({"count": 16}, "numbers")'])
    runner = start(small, "run", "01")
    os.kill(kernel_at_work(small), signal.SIGKILL)
    _, complaint = runner.communicate(timeout=120)
    assert runner.returncode == 1
    assert "its kernel died" in complaint
    run = small / "results" / "quick"
    assert not (run / "01_first").exists()
    assert leftovers(run) == []
    (small / "notebooks" / "go").touch()
    assert vitmech("run", "01", root=small).returncode == 0
    first = folder_hashes(run / "01_first")
    assert not (run / "01_first.failed.ipynb").exists()
    assert vitmech("run", "01", root=small).returncode == 0
    assert folder_hashes(run / "01_first") == first


def test_a_killed_runner_s_kernel_ends_and_frees_the_chapter(small: Path) -> None:
    source = small / "notebooks" / "01_first.ipynb"
    write_notebook(source, "01_first", [WAITS, 'chapter.save_json({"count": 16}, "numbers")'])
    runner = start(small, "run", "01")
    kernel = kernel_at_work(small)
    runner.kill()  # as `kill -9`
    runner.communicate()
    wait_for(lambda: not is_alive(kernel), "the end of the orphaned kernel", 30)
    (small / "notebooks" / "go").touch()
    done = vitmech("run", "01", root=small)
    assert done.returncode == 0, done.stderr
    assert leftovers(small / "results" / "quick") == []


def test_two_runners_on_one_folder_do_the_work_once(small: Path) -> None:
    source = small / "notebooks" / "01_first.ipynb"
    write_notebook(source, "01_first", [WAITS, 'chapter.save_json({"count": 16}, "numbers")'])
    first = start(small, "run", "01", "--if-stale")
    kernel_at_work(small)
    second = start(small, "run", "01", "--if-stale")
    line = second.stdout.readline()
    assert "another `vitmech run` is at work on it" in line
    os.kill(first.pid, signal.SIGSTOP)  # it changes nothing: the second waits for as long as the first lives
    assert second.poll() is None
    os.kill(first.pid, signal.SIGCONT)
    first.send_signal(signal.SIGTERM)  # and a first one that is ended leaves the work to the second
    first.communicate(timeout=60)
    (small / "notebooks" / "go").touch()
    out, complaint = second.communicate(timeout=120)
    assert second.returncode == 0, complaint
    assert "up to date" not in out
    third = vitmech("run", "01", "--if-stale", root=small)
    assert "up to date" in third.stdout


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB, mounted for the test."""
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("only root on Linux mounts a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={TINY}m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"this machine mounts no small disk: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(
    "save",
    [
        'chapter.save_json(list(range(10**6)), "numbers")',
        'import numpy as np\nchapter.save_arrays({"a": np.zeros(10**6)}, "numbers")',
        "import numpy as np, pandas as pd\n"
        'chapter.save_table(pd.DataFrame(np.random.default_rng(0).random((10**5, 3)), columns=list("abc")), "numbers")',
    ],
    ids=["json", "safetensors", "parquet"],
)
def test_a_full_disk_is_named_and_leaves_what_was_whole(small: Path, full_disk: Path, save: str) -> None:
    run = full_disk / "run"
    assert vitmech("run", "01", "--run-dir", run, root=small).returncode == 0
    before = {path.name: path.read_bytes() for path in (run / "01_first").iterdir()}
    source = small / "notebooks" / "01_first.ipynb"
    good = source.read_text()
    write_notebook(source, "01_first", [save])
    done = vitmech("run", "01", "--run-dir", run, root=small)
    assert done.returncode == 1
    assert f"the disk of {run} is full" in done.stderr
    assert "run the same command again" in done.stderr
    assert {path.name: path.read_bytes() for path in (run / "01_first").iterdir()} == before
    assert leftovers(run) == []
    source.write_text(good)
    again = vitmech("run", "01", "--if-stale", "--run-dir", run, root=small)
    assert again.stdout == "01_first: up to date\n"


def test_a_training_killed_in_the_middle_goes_on_to_the_same_adapter(small: Path) -> None:
    """kill -9 between two checkpoints, and a half-written newer checkpoint beside: the bytes are those of one go."""
    cells = [
        "import os, pathlib, signal\nfrom transformers import Trainer, TrainerCallback\n"
        "import vitmech_utils.model.finetune as finetune",
        "class Killed(TrainerCallback):\n"
        "    def on_step_end(self, args, state, control, **kwargs):\n"
        '        if state.global_step == 3 and pathlib.Path("kill").exists():\n'
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "finetune._Progress = Killed",
        'training = finetune.fine_tune_profile(chapter.profile, 0, chapter.checkpoints / "seed-0", chapter.device)\n'
        'training.regressor.save(chapter.folder / "adapter")\n'
        'chapter.save_json(int(training.history["step"].max()), "steps")',
    ]
    write_notebook(small / "notebooks" / "01_first.ipynb", "01_first", cells)
    values = ["-p", "backbone=tiny", "-p", "train.images=16", "-p", "train.batch_size=4", "-p", "device=cpu"]
    flag = small / "notebooks" / "kill"
    flag.touch()
    killed = vitmech("run", "01", *values, root=small)
    assert killed.returncode == 1
    assert "its kernel died" in killed.stderr
    run = small / "results" / "quick"
    (checkpoints,) = run.glob(".checkpoints/01_first-*/seed-0")
    assert [path.name for path in checkpoints.iterdir()] == ["checkpoint-2"]
    (checkpoints / "checkpoint-3").mkdir()
    (checkpoints / "checkpoint-3" / "model.safetensors").write_bytes(b"cut short")
    flag.unlink()
    done = vitmech("run", "01", *values, root=small)
    assert done.returncode == 0, done.stderr
    assert not checkpoints.exists()
    whole = vitmech("run", "01", *values, "--run-dir", "whole", root=small)
    assert whole.returncode == 0, whole.stderr
    adapters = [folder_hashes(folder / "01_first" / "adapter") for folder in (run, small / "whole")]
    assert adapters[0] == adapters[1]
    assert {"adapter_model.safetensors", "head.safetensors"} <= adapters[0].keys()
    assert json.loads((run / "01_first" / "steps.json").read_text()) == 4
    outputs = json.loads((run / "01_first" / "manifest.json").read_text())["outputs"]
    assert not any("checkpoint" in name for name in outputs)
