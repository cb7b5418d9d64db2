"""Run all benchmarks, one after another, and keep their rows in one record; `make bench` calls this.

    python benchmarks/run.py [--fetch]                          # measure in full, into published/benchmarks.json
    python benchmarks/run.py --quick                            # small sizes, into results/benchmarks-quick.json
    python benchmarks/run.py benchmarks/images.py --out FILE    # some of them, into a file of your own

Every benchmark is a process of its own. Its rows are checked before they are taken; one that fails, runs too long or
leaves unsound rows is recorded as failed, costs the others nothing, and makes the exit status 1. The record is
written once, at the end, whole. `--fetch` first installs the rivals, without what they depend on, into results/rivals;
a rival that is not there becomes a row that says so.
"""

import argparse
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from measuring import device
from pydantic import ValidationError
from rivals import PACKAGES

from vitmech_utils.artefacts import write_json
from vitmech_utils.pipeline.benchmarks import RECORD, Benchmark, Record, as_table
from vitmech_utils.runs.manifests import code_version, machine, package_versions

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "benchmarks"
SCRIPTS = tuple(
    HERE / f"{name}.py"
    for name in ("images", "ablation", "attention", "together", "throughput", "picker", "coverage")
)
RIVALS = ROOT / "results" / "rivals"
QUICK_RECORD = ROOT / "results" / "benchmarks-quick.json"
REASON_LENGTH = 200


def main() -> int:
    """Run, write the record, print the table; 1 where a benchmark failed."""
    options = _options()
    # As by Ctrl-C: the benchmark that runs ends with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started, clock = datetime.now(UTC), time.perf_counter()
    if options.fetch:
        fetch_rivals()
    code = code_version(ROOT)  # before a benchmark writes its own record into the clone
    found = tuple(run_script(script, options) for script in options.scripts)
    record = Record(
        sizes="quick" if options.quick else "full",
        started=started.isoformat(timespec="seconds"),
        wall_seconds=round(time.perf_counter() - clock, 1),
        code=code,
        device=machine(device().type),
        packages={**package_versions(), **rival_versions()},
        benchmarks=found,
    )
    write_json(options.out, json.loads(record.model_dump_json()))
    failed = [benchmark.name for benchmark in found if benchmark.failed]
    print(f"\n{as_table(record)}\n\nwritten: {options.out}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def run_script(script: Path, options: argparse.Namespace) -> Benchmark:
    """Run one benchmark in its own process and take its rows if they are sound."""
    print(f"\n== {script.stem}", flush=True)
    clock = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        rows, errors = Path(folder) / "rows.json", Path(folder) / "errors"
        command = [sys.executable, str(script), "--rows", str(rows), *(["--quick"] if options.quick else [])]
        if script.stem == "images" and options.out == ROOT / RECORD:  # what chapter 1 shows comes from here
            command += ["--json", str(HERE / "images.json")]
        status = _call(command, errors, 60 * options.minutes)
        text = errors.read_text(encoding="utf-8", errors="replace")
        print(text, end="", file=sys.stderr, flush=True)
        taken = round(time.perf_counter() - clock, 1)
        failed = _why_it_failed(status, text, options.minutes)
        if not failed:
            try:
                content = {
                    "name": script.stem,
                    "seconds": taken,
                    **json.loads(rows.read_text(encoding="utf-8")),
                }
                return Benchmark.model_validate_json(json.dumps(content))
            except FileNotFoundError:
                failed = "it left no rows"
            except (ValidationError, ValueError, TypeError) as error:
                failed = f"its rows are unsound: {_first_words(error)}"
    print(f"{script.stem} failed: {failed}", file=sys.stderr, flush=True)
    return Benchmark(name=script.stem, title=script.stem, seconds=taken, failed=failed)


def fetch_rivals() -> None:
    """Install the rivals' own files under results/rivals; what cannot be had is said and left out."""
    for package in PACKAGES:
        name, _, version = package.partition("==")
        if rival_versions().get(name) == version:
            continue
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ]
        done = subprocess.run(
            [*command, "--upgrade", "--target", str(RIVALS), package],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            print(f"{package} cannot be fetched: {_last_line(done.stderr)}", file=sys.stderr, flush=True)


def rival_versions() -> dict[str, str]:
    """The rivals that are installed, under results/rivals or in this environment, and their versions."""
    names = [package.partition("==")[0] for package in PACKAGES]
    found = {
        name: next(iter(importlib.metadata.distributions(name=name, path=[str(RIVALS), *sys.path])), None)
        for name in names
    }
    return {name: distribution.version for name, distribution in found.items() if distribution}


def _call(command: list[str], errors: Path, limit: float) -> int | None:
    """Run a command with the rivals in reach, all its children ended with it; its exit status, None past `limit`."""
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(RIVALS)]))
    with errors.open("wb") as stream:
        process = subprocess.Popen(
            command, stderr=stream, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, start_new_session=True
        )
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _why_it_failed(status: int | None, errors: str, minutes: float) -> str:
    if status is None:
        return f"it ran longer than {minutes:g} minutes"
    return f"exit status {status}: {_last_line(errors)}" if status else ""


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else "no message").replace(f"{ROOT}{os.sep}", "")[:REASON_LENGTH]


def _first_words(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"[:REASON_LENGTH]
    return str(error)[:REASON_LENGTH]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scripts", nargs="*", type=Path, help="benchmarks to run (default: all)")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that everything works")
    parser.add_argument("--fetch", action="store_true", help="install the rivals under results/rivals first")
    parser.add_argument("--out", type=Path, help="the record to write")
    parser.add_argument("--minutes", type=float, default=15, help="limit for each benchmark (default: 15)")
    options = parser.parse_args()
    missing = [str(script) for script in options.scripts if not script.is_file()]
    if missing:
        parser.error(f"no such benchmark: {', '.join(missing)}")
    if options.scripts and not options.out:
        parser.error("some benchmarks alone make no record of the suite: name a file of your own by --out")
    options.scripts = [script.resolve() for script in options.scripts] or list(SCRIPTS)
    options.out = (options.out or (QUICK_RECORD if options.quick else ROOT / RECORD)).absolute()
    return options


if __name__ == "__main__":
    sys.exit(main())
