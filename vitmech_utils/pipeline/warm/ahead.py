"""A kernel that imports while its runner still does, where no serving process has imported for both.

What runs one chapter needs papermill, and the chapter's kernel torch and transformers: seconds each, side by side here.
"""

import importlib
import json
import os
import subprocess
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from vitmech_utils.pipeline import warm
from vitmech_utils.pipeline.warm.server import become_kernel

NEEDED = (
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "torch",
    "transformers.models.dinov2.modeling_dinov2",
    "safetensors.torch",
    "scipy.stats",
    "pandas",
    "pydantic",
    "matplotlib.pyplot",
)
"""What nearly every chapter imports."""


def start_ahead() -> None:
    """Start a process that imports, and waits to become this one's next kernel; not where one waits already.

    Nor where processes inherit no open files (Windows). It ends with this one.
    """
    if os.name != "posix" or warm.has_spare():
        return
    mine, its = Pipe()
    with its:
        code = f"from {__name__} import wait_ahead; wait_ahead({its.fileno()})"
        given = {"pass_fds": (its.fileno(),), "stdin": subprocess.DEVNULL, "start_new_session": True}
        process = subprocess.Popen([sys.executable, "-P", "-c", code], **given)
    warm.keep_spare(process, mine)


def wait_ahead(descriptor: int) -> None:
    """Import, then become the kernel that is asked for at the other end of a pipe; end where that is closed."""
    connection, path = Connection(descriptor), [*sys.path]
    for name in NEEDED:
        importlib.import_module(name)
    try:
        asked = json.loads(connection.recv_bytes())
    except (EOFError, OSError):
        return
    connection.close()
    become_kernel(asked, path)
