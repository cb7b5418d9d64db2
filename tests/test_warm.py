"""Chapters in forks of a process that has imported already: the same pages, the same ends."""

import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path

import pytest
from small_book import ROOT, write_notebook
from test_faults import WAITS, is_alive, kernel_at_work, leftovers, wait_for

from vitmech_utils.pipeline import warm
from vitmech_utils.pipeline.execute import run_chapter
from vitmech_utils.pipeline.warm import server

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.alone,
    pytest.mark.skipif(not server.forks_are_safe(), reason="chapters are forked on Linux without a GPU"),
]
LOOKS = (
    "import os, sys\n"
    'chapter.save_json({"count": 16}, "numbers")\n'
    'print("forked:", "vitmech_utils.pipeline.warm.server" in " ".join(sys.orig_argv), os.environ.get("SAID"))'
)
UNDER = [sys.executable, "-m", "vitmech_utils.pipeline.warm.server", "--threads", "1"]


def start(root: Path, *command: str, **environment: str) -> subprocess.Popen:
    """Start a command as a shell would, in a session of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    given = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    hearing = functools.partial(
        signal.signal, signal.SIGINT, signal.SIG_DFL
    )  # `make test` runs us in the background
    return subprocess.Popen(command, cwd=root, env=given, start_new_session=True, preexec_fn=hearing, **pipes)


def ask(root: Path, *arguments: str, **environment: str) -> subprocess.Popen:
    """Start a `vitmech` command that is handed over where something serves."""
    return start(root, sys.executable, "-m", "vitmech_utils", *arguments, **environment)


@pytest.fixture(scope="module")
def served() -> Iterator[dict[str, str]]:
    """The environment of a command below a serving process."""
    shell = [*UNDER, "sh", "-c", f'echo "${warm.SOCKET}"; read ended']
    environment = {key: value for key, value in os.environ.items() if key != warm.SOCKET}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = subprocess.Popen(shell, cwd=ROOT, env=environment, **pipes)
    where = running.stdout.readline().strip()
    assert Path(where).is_socket()
    yield {warm.SOCKET: where, **{f"{name}_THREADS": "1" for name in server.THREADS}}
    running.communicate("over\n", timeout=60)
    assert running.returncode == 0
    assert not Path(where).parent.exists()


def printed(run: Path) -> str:
    """What the first chapter printed."""
    notebook = json.loads((run / "01_first" / "01_first.ipynb").read_text())
    return "".join(
        line
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        for line in output.get("text", [])
    )


def without_seconds(run: Path) -> dict[str, str]:
    """The files of the first chapter, less its manifest, which holds times."""
    files = sorted((run / "01_first").iterdir())
    return {path.name: path.read_text() for path in files if path.name != "manifest.json"}


@pytest.fixture
def looking(small: Path) -> Path:
    write_notebook(small / "notebooks" / "01_first.ipynb", "01_first", [LOOKS])
    return small


def test_a_fork_makes_the_page_that_a_process_makes(looking: Path, served: dict[str, str]) -> None:
    run = looking / "results" / "quick"
    forked = ask(looking, "run", "01", **served, SAID="so")
    said, complaint = forked.communicate(timeout=120)
    assert forked.returncode == 0, complaint
    assert "01_first.ipynb" in said
    assert "forked: True so" in printed(run)
    page = without_seconds(run)
    alone = ask(looking, "run", "01", SAID="so", **{warm.SOCKET: ""})
    assert alone.wait(timeout=120) == 0
    assert "forked: False so" in printed(run)
    same = {
        name: text.replace("forked: False", "forked: True") for name, text in without_seconds(run).items()
    }
    assert same == page


def test_other_settings_and_other_commands_are_not_handed_over(looking: Path, served: dict[str, str]) -> None:
    for different in ({"OMP_NUM_THREADS": "2"}, {"PYTHONWARNINGS": "error::SyntaxWarning"}):
        done = ask(looking, "run", "01", **{**served, **different})
        assert done.wait(timeout=120) == 0
        assert "forked: False" in printed(looking / "results" / "quick")
    environment = {**os.environ, **served}
    asked = [sys.executable, "-c", "from vitmech_utils.pipeline import warm; print(warm.hand_over(['book']))"]
    assert subprocess.check_output(asked, env=environment, cwd=ROOT, text=True) == "None\n"


def test_statuses_and_complaints_come_back(small: Path, served: dict[str, str]) -> None:
    for arguments, status, word in ((["run", "99"], 1, "unknown chapter"), (["run"], 2, "required: chapter")):
        refused = ask(small, *arguments, **served)
        _, complaint = refused.communicate(timeout=60)
        assert refused.returncode == status
        assert word in complaint


def test_code_is_imported_from_where_the_asking_process_would(
    small: Path, served: dict[str, str], tmp_path: Path
) -> None:
    other = tmp_path / "other" / "vitmech_utils"
    other.mkdir(parents=True)
    for name in ("__init__.py", "cli.py"):
        (other / name).write_text(
            'def main(arguments):\n    print("another house", arguments)\n    return 7\n'
        )
    for name in ("__main__.py", "pipeline"):
        (other / name).symlink_to(ROOT / "vitmech_utils" / name)
    asked = start(
        small,
        sys.executable,
        "-m",
        "vitmech_utils",
        "run",
        "01",
        **{**served, "PYTHONPATH": str(other.parent)},
    )
    said, complaint = asked.communicate(timeout=60)
    assert (asked.returncode, said) == (7, "another house ['run', '01']\n"), complaint


def test_a_killed_kernel_is_told(small: Path, served: dict[str, str]) -> None:
    write_notebook(small / "notebooks" / "01_first.ipynb", "01_first", [WAITS])
    asked = ask(small, "run", "01", **served)
    os.kill(kernel_at_work(small), signal.SIGKILL)
    _, complaint = asked.communicate(timeout=60)
    assert asked.returncode == 1
    assert "its kernel died" in complaint
    assert leftovers(small / "results" / "quick") == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_who_is_asked_ends_with_who_asks(small: Path, served: dict[str, str], how: signal.Signals) -> None:
    write_notebook(small / "notebooks" / "01_first.ipynb", "01_first", [WAITS])
    asked = ask(small, "run", "01", **served)
    kernel = kernel_at_work(small)
    asked.send_signal(how)
    asked.communicate(timeout=60)
    assert asked.returncode != 0
    wait_for(lambda: not is_alive(kernel), "the end of the kernel", 30)
    (small / "notebooks" / "go").touch()
    again = ask(small, "run", "01", **served)
    _, complaint = again.communicate(timeout=60)
    assert again.returncode == 0, complaint
    assert leftovers(small / "results" / "quick") == []


def test_a_killed_runner_is_told_and_its_kernel_ends(small: Path, served: dict[str, str]) -> None:
    write_notebook(small / "notebooks" / "01_first.ipynb", "01_first", [WAITS])
    asked = ask(small, "run", "01", **served)
    kernel = kernel_at_work(small)
    status = Path(f"/proc/{kernel}/status").read_text()
    runner = int(status.partition("PPid:")[2].split()[0])
    os.kill(runner, signal.SIGKILL)
    _, complaint = asked.communicate(timeout=60)
    assert asked.returncode == 1
    assert "run the same command again" in complaint
    wait_for(lambda: not is_alive(kernel), "the end of the kernel", 30)


def test_where_nothing_serves_the_work_is_done_here(looking: Path, tmp_path: Path) -> None:
    done = ask(looking, "run", "01", **{warm.SOCKET: str(tmp_path / "gone")})
    assert done.wait(timeout=120) == 0
    assert "forked: False" in printed(looking / "results" / "quick")


def test_the_status_is_the_command_s() -> None:
    done = subprocess.run([*UNDER, "sh", "-c", "exit 3"], cwd=ROOT, check=False)
    assert done.returncode == 3


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_what_serves_ends_with_who_started_it(tmp_path: Path, how: signal.Signals) -> None:
    command = f'echo "$$ ${warm.SOCKET}" > {tmp_path}/where; exec sleep 60'
    running = subprocess.Popen([*UNDER, "sh", "-c", command], cwd=ROOT)
    wait_for(lambda: (tmp_path / "where").is_file() and (tmp_path / "where").read_text(), "the start")
    told, where = (tmp_path / "where").read_text().split()
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    running.send_signal(how)
    running.wait(timeout=60)
    if how == signal.SIGTERM:
        assert running.returncode == 128 + how
        assert not Path(where).parent.exists()
    else:  # nobody could tell the command
        os.kill(int(told), signal.SIGKILL)
    for child in map(int, children):
        wait_for(lambda child=child: not is_alive(child), "the end of the command and of what served", 60)


def test_a_kernel_that_imported_ahead_is_the_chapter_s(small: Path) -> None:
    asks = 'import sys\nprint("ahead:", "wait_ahead" in " ".join(sys.orig_argv), "torch" in sys.modules)'
    write_notebook(small / "notebooks" / "01_first.ipynb", "01_first", [asks])
    done = ask(small, "run", "01", **{warm.SOCKET: ""})
    _, complaint = done.communicate(timeout=120)
    assert done.returncode == 0, complaint
    assert "ahead: True True" in printed(small / "results" / "quick")


def test_one_that_ended_while_it_imported_is_done_without(small: Path) -> None:
    def ended() -> None:
        mine, its = Pipe()
        its.close()
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait()
        warm.keep_spare(process, mine)

    write_notebook(small / "notebooks" / "01_first.ipynb", "01_first", [LOOKS])
    assert run_chapter(small, "01_first", "quick", {}, ahead=ended)
    assert "forked: False" in printed(small / "results" / "quick")
    assert not warm.has_spare()


def test_what_imports_ahead_for_nothing_ends_with_who_started_it() -> None:
    code = (
        "from vitmech_utils.pipeline import warm; from vitmech_utils.pipeline.warm.ahead import start_ahead;"
        "start_ahead(); start_ahead(); print(warm.take_spare()[0].pid, warm.has_spare())"
    )
    number, more = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split()
    assert more == "False", "the second call starts none"
    wait_for(lambda: not is_alive(int(number)), "the end of what waits", 60)
