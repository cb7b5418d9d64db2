"""What all benchmarks share: turns taken in pairs, rows held against targets, and one command line."""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from vitmech_utils.artefacts import write_json
from vitmech_utils.pipeline.benchmarks import Row, in_words, judge

Measure = Callable[[argparse.Namespace], list[Row]]
ADAPTER = Path(__file__).resolve().parents[1] / "published" / "adapters" / "seed-0"


def take_turns(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Let every way run once in each round and return what each one gave, round by round.

    A way returns its own measure, such as seconds. Every other round goes in reverse, so that a machine that grows
    slower or faster favours no side. Values at the same place belong to the same round.
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name in list(ways)[:: 1 if turn % 2 == 0 else -1]:
            found[name].append(ways[name]())
    return found


def seconds(call: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """Seconds of a call: of processor time, which other programs disturb less, or of another clock."""
    start = clock()
    call()
    return clock() - start


def ratios(numerator: Sequence[float], denominator: Sequence[float]) -> list[float]:
    """Ratios within rounds: both sides met the same machine."""
    return [one / other for one, other in zip(numerator, denominator, strict=True)]


def row(
    what: str,
    values: Sequence[float],
    unit: str,
    *,
    against: str = "",
    how: str = "",
    at_least: float | None = None,
    at_most: float | None = None,
) -> Row:
    """The median of repeated measurements, with their range where there are several, held against its target."""
    figure = float(statistics.median(values))
    several = len(values) > 1
    return Row(
        what=what, against=against, unit=unit, how=how,
        figure=figure, repeats=len(values),
        low=float(min(values)) if several else None, high=float(max(values)) if several else None,
        at_least=at_least, at_most=at_most, met=judge(figure, at_least, at_most),
    )  # fmt: skip


def not_measured(
    what: str, unit: str, reason: str, *, against: str = "", at_least: float | None = None
) -> Row:
    """A row without a figure: what is missing here, and so what its target stays open for."""
    return Row(what=what, against=against, unit=unit, not_measured=reason, at_least=at_least)


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wall_clock() -> float:
    """Seconds of wall time, once everything that the GPU was told to do is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def start(
    script: str,
    title: str,
    measure: Measure,
    full: dict[str, int],
    quick: dict[str, int],
    extend: Callable[[argparse.ArgumentParser], object] = lambda parser: None,
) -> None:
    """Run a benchmark from the command line: an option for every size, `--quick`, and `--rows` to keep the rows.

    `script` is its docstring; `full` and `quick` hold the same sizes, at least 1 each; `extend` adds options.
    """
    parser = argparse.ArgumentParser(description=script, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, size in full.items():
        parser.add_argument(
            f"--{name}", type=_count, help=f"default: {size}; {quick[name]} with --quick", metavar="N"
        )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes: shows that it works, measures little"
    )
    parser.add_argument("--rows", type=Path, metavar="FILE", help="also keep the rows as JSON")
    extend(parser)
    options = parser.parse_args()
    for name, size in (quick if options.quick else full).items():
        if getattr(options, name) is None:
            setattr(options, name, size)
    rows = measure(options)
    print("\n".join(map(as_line, rows)))
    if options.rows:
        content = [json.loads(found.model_dump_json()) for found in rows]
        write_json(options.rows, {"title": title, "rows": content})


def as_line(found: Row) -> str:
    """A row for the terminal."""
    name = found.what + (f", against {found.against}" if found.against else "")
    if found.not_measured:
        return f"{name}: not measured: {found.not_measured}"
    spread = f" ({in_words(found.low)} to {in_words(found.high)})" if found.low is not None else ""
    verdict = {None: "", True: ", target met", False: ", TARGET NOT MET"}[found.met]
    return f"{name}: {in_words(found.figure)} {found.unit}{spread}{verdict}"


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number of at least 1")
    return int(text)
