"""Start many chapters without importing the same libraries for each: by fork from one process that has imported them.

    python -m vitmech_utils.pipeline.warm.server --threads 1 snakemake --cores 2

imports torch, transformers and the like once beside that command. Every `vitmech run` and `vitmech redraw` below it,
and its kernel, is a fork of the importing process; this package itself is imported anew in each. On Linux, without a
GPU (whose driver bears no fork); elsewhere, and where variables that libraries read once differ, each imports its own.

Here is the asking side, which imports nothing heavy.
"""

import json
import os
import sys
from multiprocessing.connection import Client, Connection
from multiprocessing.reduction import send_handle
from pathlib import Path
from subprocess import Popen

SOCKET = "VITMECH_WARM"
"""The environment variable that names the serving process's socket."""
COMMANDS = ("run", "redraw")
"""Commands that are handed over: those that start a kernel."""
READ_ONCE = (
    *("PYTHON", "LD_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "NUMEXPR_", "TORCH_", "PYTORCH_"),
    *("HF_", "TRANSFORMERS_", "MPL"),
)
"""How variables begin that an interpreter or a library reads once: who asks must have them as the server has."""
Spare = tuple[int | Popen, Connection]
"""A process that waits to become a kernel (a fork by its id, a child by itself), and what wakes it."""
_spare: Spare | None = None


def read_once() -> dict[str, str]:
    """This process's settings that a fork could not change any more; of the search path each fork takes its own."""
    names = [name for name in os.environ if name.startswith(READ_ONCE) and name != "PYTHONPATH"]
    return {"prefix": sys.prefix, **{name: os.environ[name] for name in sorted(names)}}


def hand_over(arguments: list[str]) -> int | None:
    """Have a command done by a fork of the serving process; returns its exit status (None: not served, do it here)."""
    where = os.environ.get(SOCKET)
    if not where or not arguments or arguments[0] not in COMMANDS:
        return None
    asked = {
        "arguments": arguments,
        "folder": str(Path.cwd()),
        "path": sys.path,
        "environment": dict(os.environ),
    }
    served = False
    try:
        with Client(where, "AF_UNIX") as connection:
            connection.send_bytes(json.dumps({**asked, "read_once": read_once()}).encode())
            if connection.recv_bytes() != b"yes":
                return None
            served = True
            for stream in (1, 2):
                send_handle(connection, stream, None)
            return int(connection.recv_bytes())
    except (OSError, EOFError):
        if not served:
            return None
    print("vitmech: the process that did this was ended; run the same command again", file=sys.stderr)
    return 1


def keep_spare(process: int | Popen, connection: Connection) -> None:
    """Keep a process that waits to become this one's kernel, and the connection that wakes it: see `Spare`."""
    global _spare
    _spare = (process, connection)


def take_spare() -> Spare | None:
    """The waiting process, given away once."""
    global _spare
    spare, _spare = _spare, None
    return spare


def has_spare() -> bool:
    """Whether a process waits to become a kernel."""
    return _spare is not None
