"""Record what a run took, for `make book` to say how long it will take: python -m vitmech_utils.pipeline.seconds RUN.

`profiles/seconds.json` then holds the CPU seconds of every chapter of that run's profile. Those of the environment and
of the pages are given with `--environment` and `--book`, or stay as they are.
"""

import argparse
import json
import sys
from pathlib import Path

from vitmech_utils.artefacts import write_json
from vitmech_utils.pipeline.execute import chapters
from vitmech_utils.profiles import ProfileError, repository_root
from vitmech_utils.runs.manifests import RunError, read_manifest

RECORD = Path("profiles", "seconds.json")
OVERHEAD = 4.0
"""CPU seconds that a chapter costs beside its kernel: Snakemake, and a runner that checks and writes the page."""


def record(root: Path, run: Path, environment: float | None = None, book: float | None = None) -> dict:
    """Return the record with a run's times in it; raises `RunError` where a chapter is missing or untimed."""
    file = root / RECORD
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    manifests = {name: read_manifest(run / name, f"run `vitmech run {name[:2]}`") for name in chapters(root)}
    (profile,) = {manifest["profile"]["name"] for manifest in manifests.values()} or {""}
    if timeless := [name for name, manifest in manifests.items() if not manifest.get("cpu_seconds")]:
        raise RunError(
            f"{run}: {', '.join(timeless)}: run before chapters recorded their CPU time; run them again"
        )
    seconds = {name: round(manifest["cpu_seconds"] + OVERHEAD, 1) for name, manifest in manifests.items()}
    device = next(iter(manifests.values()))["device"]
    return {
        "machine": f"{device['cores']} cores of {device['name']}",
        "environment": environment if environment is not None else before.get("environment", 0.0),
        "book": book if book is not None else before.get("book", 0.0),
        "chapters": {**before.get("chapters", {}), profile: seconds},
    }


def main(arguments: list[str] | None = None) -> int:
    """Write the record; the exit status is 1 where the run does not hold what it needs."""
    parser = argparse.ArgumentParser(
        prog="vitmech_utils.pipeline.seconds", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("run", type=Path, help="a finished run's folder, such as results/quick")
    parser.add_argument("--environment", type=float, help="CPU seconds that `make env` took, packages cached")
    parser.add_argument("--book", type=float, help="CPU seconds that `vitmech book` took")
    options = parser.parse_args(arguments)
    try:
        root = repository_root()
        write_json(root / RECORD, record(root, options.run.resolve(), options.environment, options.book))
    except (RunError, ProfileError) as error:
        print(f"vitmech_utils.pipeline.seconds: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
