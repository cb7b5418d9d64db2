"""Run a command while holding a lock file, `one_at_a_time.py LOCK COMMAND ...`; a second one waits for the first.

The system drops the lock when the command ends, however it ends. Where it has no such locks, the command just runs.
"""

import os
import sys
from pathlib import Path


def main(lock: str, *command: str) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        os.execvp(command[0], command)
    Path(lock).parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(lock, os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"another make is at work in {Path.cwd()}; waiting for it to end", file=sys.stderr, flush=True)
        fcntl.flock(handle, fcntl.LOCK_EX)
    os.set_inheritable(handle, True)  # the command holds it from here on
    os.execvp(command[0], command)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"{__doc__.splitlines()[0]}")
    main(*sys.argv[1:])
