"""Say, before anything is installed, how long `make book` will take: how_long.py --profile NAME --environment FILE

From the times of this clone's last run of the profile where there is one, else from those of the run that was
recorded in profiles/seconds.json. Needs nothing but Python.
"""

import argparse
import json
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "profiles" / "seconds.json"
"""CPU seconds of the parts of `make book`, by profile; written by `python -m vitmech_utils.pipeline.seconds`."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--profile", required=True)
    options.add_argument(
        "--environment", type=Path, required=True, help="a file that is there when it is installed"
    )
    asked = options.parse_args()
    print(message(asked.profile, asked.environment.is_file()), flush=True)


def message(profile: str, installed: bool, root: Path = ROOT, cores: int | None = None) -> str:
    """The sentence; `cores` defaults to those that this process may use."""
    cores = cores or (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    chapters = sorted(path.stem for path in (root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    here = {name: seconds for name in chapters if (seconds := _recorded(root / "results" / profile / name))}
    environment = 0 if installed else record["environment"]
    known = {**record["chapters"].get(profile, {}), **here}
    if not set(chapters) <= set(known):
        return f"Profile {profile} has not been timed on such a machine; each chapter says its time when it is done."
    seconds = environment + record["book"] + _side_by_side([known[name] for name in chapters], cores)
    whose = "its last run here" if set(here) == set(chapters) else f"a run on {record['machine']}"
    where = f"on {cores} core{'s' * (cores > 1)}, by {whose}"
    rest = "" if installed else ", the environment included, downloads not"
    time = _words(seconds)
    return f"{len(chapters)} chapters on profile {profile}: about {time} {where}{rest}; what is up to date is skipped."


def _side_by_side(seconds: list[float], cores: int) -> float:
    """Chapters wait for each other in places: no more than three are ever at work at once."""
    return max(max(seconds), sum(seconds) / min(cores, 3))


def _recorded(folder: Path) -> float | None:
    try:
        return float(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["cpu_seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _words(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} minute{'s' * (minutes > 1)}" if minutes < 120 else f"{minutes / 60:.0f} hours"


if __name__ == "__main__":
    main()
