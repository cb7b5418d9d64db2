"""A SLURM of one node, started for a test: its own munge, controller and node daemon, all in one folder."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "squeue", "sinfo", "srun")
SETTINGS = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,batch_sched_delay=1
MpiDefault=none
ReturnToService=2
MinJobAge=300
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Say why SLURM cannot be started here, or None where it can."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"no SLURM on this machine: {', '.join(absent)} not found (Debian: slurm-wlm, munge)"
    return None if os.geteuid() == 0 else "SLURM's daemons are started as root only"


@contextlib.contextmanager
def single_node(folder: Path) -> Iterator[dict[str, str]]:
    """Start SLURM in `folder`; yields the environment in which its commands find it. Ends what it started."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    host = socket.gethostname().partition(".")[0]
    settings = SETTINGS.format(host=host, folder=folder, ports=_free_ports(2), cores=os.cpu_count())
    (folder / "slurm.conf").write_text(settings)
    subprocess.run(["mungekey", "--create", f"--keyfile={folder / 'munge.key'}"], check=True)
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    munge = [f"--{name}-file={folder / f'munge.{name}'}" for name in ("key", "pid", "log", "seed")]
    commands = (
        ["munged", "--foreground", "--force", f"--socket={folder / 'munge.socket'}", *munge],
        ["slurmctld", "-D"],
        ["slurmd", "-D"],
    )
    with contextlib.ExitStack() as stack:
        for command in commands:
            log = stack.enter_context((folder / f"{command[0]}.out").open("w"))
            process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True
            )
            stack.callback(_end, process)
            if command[0] == "munged":
                _await(lambda: (folder / "munge.socket").exists(), folder)
        idle = ["sinfo", "--noheader", "--format=%T"]
        _await(
            lambda: "idle" in subprocess.run(idle, env=environment, capture_output=True, text=True).stdout,
            folder,
        )
        path = os.pathsep.join([str(_srun_that_finds_it(folder)), os.environ["PATH"]])
        yield {"SLURM_CONF": environment["SLURM_CONF"], "PATH": path}


def _srun_that_finds_it(folder: Path) -> Path:
    """A folder for the PATH: Snakemake's job step clears SLURM_CONF, since a real cluster has it in /etc/slurm."""
    (folder / "bin").mkdir()
    script = folder / "bin" / "srun"
    script.write_text(f'#!/bin/sh\nSLURM_CONF={folder / "slurm.conf"} exec {shutil.which("srun")} "$@"\n')
    script.chmod(0o755)
    return script.parent


def _await(ready: Callable[[], bool], folder: Path, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            logs = "\n".join(
                f"{path.name}: {path.read_text()[-1500:]}" for path in folder.glob("*.[lo][ou][gt]")
            )
            raise TimeoutError(f"SLURM did not start in {seconds:.0f} s\n{logs}")
        time.sleep(0.2)


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
