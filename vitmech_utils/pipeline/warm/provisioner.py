"""A kernel that is a fork of a process with everything imported: Jupyter's interface to how kernels are launched."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import LocalProvisioner

from vitmech_utils.pipeline import warm


class WarmProvisioner(LocalProvisioner):
    """Launches a kernel in the process that waits for it, and, where none does, as any other kernel."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Launch the kernel; `cmd` is [python, -m, ipykernel_launcher, arguments...]."""
        spare = warm.take_spare()
        if spare is None:
            return await super().launch_kernel(cmd, **kwargs)
        process, connection = spare
        folder, environment = str(kwargs.get("cwd") or Path.cwd()), dict(kwargs.get("env") or os.environ)
        # The process to end with, which a kernel otherwise reads from its environment when it is imported.
        arguments = [*cmd[2:], f"--IPKernelApp.parent_handle={os.getpid()}"]
        asked = {"arguments": arguments, "folder": folder, "environment": environment}
        try:
            with connection:
                connection.send_bytes(json.dumps(asked).encode())
        except OSError:  # it ended while it imported
            return await super().launch_kernel(cmd, **kwargs)
        self.process = _Forked(process) if isinstance(process, int) else process
        self.pid = self.pgid = self.process.pid
        self.cwd = folder
        return self.connection_info


class _Forked:
    """A child process with as much of `subprocess.Popen` as a provisioner asks for."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        end = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None and (end is None or time.monotonic() < end):
            time.sleep(0.05)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
