"""For tests that feed bad inputs: what a call gives, or what it says where it refuses."""

import math
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vitmech_utils.data.recordings.boxes import Box


def outcome(call: Callable[[], Any], *refusals: type[Exception]) -> tuple[Any, str | None]:
    """A call's value, or the words of the documented error that it raises; any other error goes through."""
    try:
        return call(), None
    except refusals as error:
        return None, str(error)


class Work(NamedTuple):
    """What a program said, and what it took: bytes that it read, and its memory at most, in KiB."""

    told: list[str]
    read: int
    memory: int


def work_of(code: str, arguments: Sequence[object] = (), address_space: int = 2**33) -> Work:
    """Run a program within an address space, and two minutes of a processor, which only one without end would take.

    What it reads counts from where the code itself begins, so that the libraries which it imports first don't.
    """
    begin, _, rest = code.partition("\n# begin\n")
    whole = (
        "import resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({address_space}, {address_space}))\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (120, 120))\n"
        "def taken(path, name):\n"
        "    lines = open(path).read().splitlines()\n"
        "    return int(next(line.split()[1] for line in lines if line.startswith(name)))\n"
        f"{begin}\nbefore = taken('/proc/self/io', 'rchar')\n{rest}\n"
        "print(taken('/proc/self/io', 'rchar') - before)\nprint(taken('/proc/self/status', 'VmHWM'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", whole, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *told, read, memory = done.stdout.splitlines()
    return Work(told, int(read), int(memory))


def write_audacity(boxes: Iterable[Box], path: Path) -> Path:
    """Write boxes as Audacity exports labels: a second line holds the band of those that have one."""
    rows = []
    for box in boxes:
        rows.append(f"{box.start!r}\t{box.end!r}\t{box.label}")
        if math.isfinite(box.high):
            rows.append(f"\\\t{box.low!r}\t{box.high!r}")
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path
