"""The serving side: imports what all chapters need, and forks for each command that asks.

python -m vitmech_utils.pipeline.warm.server --threads 1 snakemake --cores 2 ...
"""

import argparse
import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import recv_handle
from pathlib import Path

from vitmech_utils.pipeline import warm

NEEDED = (
    "torch",
    "transformers.models.dinov2.modeling_dinov2",
    "transformers.trainer",
    "peft",
    "safetensors.torch",
    "scipy.stats",
    "scipy.signal",
    "pandas",
    "pyarrow.parquet",
    "pydantic",
    "yaml",
    "matplotlib.pyplot",
    "PIL.Image",
    "papermill",
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
)
"""What chapters and their runner import. Not the backend of a kernel's figures: imported, it hooks into the kernel."""
THREADS = ("OMP_NUM", "GOTO_NUM", "OPENBLAS_NUM", "MKL_NUM", "VECLIB_MAXIMUM", "NUMEXPR_NUM")
"""Variables in which Snakemake says how many threads a job has, less their common end."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command beside a serving process, and end that with it; returns the command's exit status."""
    parser = argparse.ArgumentParser(prog="python -m vitmech_utils.pipeline.warm.server", description=__doc__)
    parser.add_argument(
        "--threads", type=int, required=True, help="threads of each process below the command"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the command, with its arguments")
    options = parser.parse_args(arguments)
    os.environ.update({f"{name}_THREADS": str(options.threads) for name in THREADS})
    if not forks_are_safe():
        return _wait(subprocess.Popen(options.command))
    with tempfile.TemporaryDirectory(prefix="vitmech-") as folder:
        server, alive = _start(Path(folder) / "socket")
        try:
            environment = {**os.environ, warm.SOCKET: f"{folder}/socket"}
            status = _wait(subprocess.Popen(options.command, env=environment))
        finally:
            os.close(alive)
            server.wait()
    return status


def _wait(running: subprocess.Popen) -> int:
    """Wait for the command, which is told what this process is told, and answers Ctrl-C itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _: running.send_signal(number))
    status = running.wait()
    return status if status >= 0 else 128 - status


def forks_are_safe() -> bool:
    """Whether a process with torch imported may fork: on Linux, and not where the driver of CUDA or ROCm is loaded."""
    drivers = ("/dev/nvidiactl", "/dev/kfd")
    return sys.platform == "linux" and not any(Path(path).exists() for path in drivers)


def _start(where: Path) -> tuple[subprocess.Popen, int]:
    """The serving process, listening before it has imported, and what is to be closed to end it."""
    ends, alive = os.pipe()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(where))
        listening.listen(64)
        code = f"from {warm.__name__}.server import serve; serve({listening.fileno()}, {ends})"
        given = {"pass_fds": (listening.fileno(), ends), "stdin": subprocess.DEVNULL}
        server = subprocess.Popen([sys.executable, "-c", code], **given)
    os.close(ends)
    return server, alive


def serve(listening: int, ends: int) -> None:
    """Import, then fork for each command that asks on a socket, until the other end of a pipe is closed."""
    # A terminal's Ctrl-C reaches every process: the command ends itself, and this one with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    read = warm.read_once()  # before libraries write some of it themselves
    for name in NEEDED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    door = socket.socket(fileno=listening)
    while ends not in wait([door, ends]):
        connection = Connection(door.accept()[0].detach())
        if os.fork() == 0:
            door.close()
            os.close(ends)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.exit(_run(connection, read))
        connection.close()
        while _reap(os.WNOHANG):
            pass
    while _reap(0):
        pass


def _reap(how: int) -> bool:
    """Let one child that ended go, so that its seconds count; tells whether there was one."""
    try:
        return os.waitpid(-1, how)[0] != 0
    except ChildProcessError:
        return False


def _run(connection: Connection, read: dict[str, str]) -> int:
    """Do what is asked, as the process that asks would: its folder, environment, search path and streams."""
    asked = json.loads(connection.recv_bytes())
    if asked["read_once"] != read:
        connection.send_bytes(b"no")
        return 0
    connection.send_bytes(b"yes")
    for stream in (1, 2):
        taken = recv_handle(connection)
        os.dup2(taken, stream)
        os.close(taken)
    _become("vitmech", asked, asked["path"])
    waiting = _fork_kernel(connection, asked["path"])
    done = threading.Event()
    threading.Thread(target=_end_with, args=(connection, done), daemon=True).start()
    importlib.import_module(warm.__name__).keep_spare(*waiting)
    try:
        status = importlib.import_module("vitmech_utils.cli").main(asked["arguments"])
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    done.set()
    with contextlib.suppress(OSError):  # of one that is gone
        connection.send_bytes(str(status).encode())
    return status


def _become(name: str, asked: dict, path: list[str]) -> None:
    """Take over a folder, an environment and a search path, and forget this package, so that it is found by them."""
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv[:] = [name, *asked["arguments"]]
    sys.path[:] = path
    for module in [module for module in sys.modules if module.partition(".")[0] == "vitmech_utils"]:
        del sys.modules[module]
    sys.path_importer_cache.clear()
    importlib.invalidate_caches()
    importlib.import_module("numpy").random.seed()


def _end_with(connection: Connection, done: threading.Event) -> None:
    """End this process, as SIGTERM would, when the one that asked ends before it: nothing else is ever sent."""
    try:
        connection.recv_bytes()
    except (EOFError, OSError):
        if not done.is_set():
            os.kill(os.getpid(), signal.SIGTERM)


def _fork_kernel(connection: Connection, path: list[str]) -> tuple[int, Connection]:
    """Fork once more, before any thread: a process that waits to become the kernel, with a session of its own."""
    mine, its = Pipe()
    process = os.fork()
    if process:
        its.close()
        mine.recv_bytes()
        return process, mine
    connection.close()
    mine.close()
    os.setsid()
    its.send_bytes(b"waiting")
    try:
        asked = json.loads(its.recv_bytes())
    except EOFError:
        os._exit(0)
    its.close()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    become_kernel(asked, path[1:])
    sys.exit(0)


def become_kernel(asked: dict, path: list[str]) -> None:
    """Be the kernel that is asked for until it ends, in this process, which has imported.

    `asked` has arguments (its name first), folder and environment; `path` is where it finds modules.
    """
    # ipykernel sets this variable, but matplotlib, which reads it, has been imported already.
    if "MPLBACKEND" not in asked["environment"]:
        sys.modules["matplotlib"].rcParams["backend"] = "module://matplotlib_inline.backend_inline"
    _become(asked["arguments"][0], {**asked, "arguments": asked["arguments"][1:]}, path)
    importlib.import_module("ipykernel.kernelapp").launch_new_instance()


if __name__ == "__main__":
    sys.exit(main())
