"""The benchmarks' record: rows of one form, held against their targets, and the table that the book shows."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vitmech_utils.pipeline.provenance import day, duration, hardware, literal, version
from vitmech_utils.runs.manifests import RunError

RECORD = Path("published", "benchmarks.json")
NO_RECORD = (
    "```{note}\nNo full measurement has been kept yet. `make bench` makes one, best on an idle machine.\n```"
)
GPU_RECORD = Path("benchmarks", "gpu.json")
NO_GPU_RECORD = "```{note}\nNothing has been measured on a GPU yet.\n```"
TOKEN = re.compile(r"\{\{\s*benchmarks\s*\}\}")
GPU_TOKEN = re.compile(r"\{\{\s*gpu benchmarks\s*\}\}")
BY_IMAGES = re.compile(r"(?P<kind>.+?): (?P<what>.+), (?P<images>\d+) images")
"""What a row says that is one of a series by the number of images."""
Number = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Row(_Strict):
    """One figure: what was measured, against what, and whether it meets its target.

    `figure` is the median of `repeats` measurements and `low` to `high` their whole range, or the middle 90 % of
    them where `spread` says so, all in `unit`. `not_measured` says why there is no figure. `how` names sizes and
    threads. A row that contradicts itself is refused.
    """

    what: Text
    against: str = ""
    unit: Text
    figure: Number | None = None
    low: Number | None = None
    high: Number | None = None
    repeats: Annotated[int, Field(ge=1)] = 1
    spread: Literal["range", "middle 90 %"] = "range"
    at_least: Number | None = None
    at_most: Number | None = None
    met: bool | None = None
    how: str = ""
    not_measured: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> "Row":
        if (self.figure is None) != bool(self.not_measured):
            raise ValueError("a row has either a figure or the reason why it was not measured")
        if (self.low is None) != (self.high is None):
            raise ValueError("low and high come together")
        if self.low is not None and not (self.figure is not None and self.low <= self.figure <= self.high):
            raise ValueError(f"the figure {self.figure} lies outside {self.low} to {self.high}")
        if self.met != judge(self.figure, self.at_least, self.at_most):
            raise ValueError(f"met is {self.met}, which is not what figure and target say")
        return self


class Benchmark(_Strict):
    """What one script found; `failed` says what went wrong where it left no rows."""

    name: Text
    title: Text
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    rows: tuple[Row, ...] = ()
    failed: str = ""

    @model_validator(mode="after")
    def _rows_or_failed(self) -> "Benchmark":
        if bool(self.rows) == bool(self.failed):
            raise ValueError(f"{self.name}: a benchmark has either rows or the reason why it failed")
        return self


class Record(_Strict):
    """One call of the whole suite: its rows, and once for all of them the machine, the versions and the day."""

    format: Literal[1] = 1
    sizes: Literal["full", "quick"]
    started: Text
    wall_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    code: dict[str, Any]
    device: dict[str, Any]
    packages: dict[str, str]
    benchmarks: Annotated[tuple[Benchmark, ...], Field(min_length=1)]


def judge(figure: float | None, at_least: float | int | None, at_most: float | int | None) -> bool | None:
    """Whether a figure meets its bounds; None where there is no figure or no bound."""
    if figure is None or (at_least is None and at_most is None):
        return None
    return (at_least is None or figure >= at_least) and (at_most is None or figure <= at_most)


def read_record(path: Path) -> Record:
    """Read the suite's record; raises `RunError` where it is missing or contradicts itself."""
    if not path.is_file():
        raise RunError(f"{path}: not there; measure with `make bench`, or git checkout -- {RECORD}")
    try:
        return Record.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RunError(f"{path}: {where}: {first['msg']}; measure again with `make bench`") from error


def fill_benchmarks(text: str, root: Path) -> str:
    """Put the record of the last `make bench` in the place of `{{ benchmarks }}`, or say that there is none yet.

    And in the place of `{{ gpu benchmarks }}` that of `benchmarks/gpu.py`. Other pages stay as they are. Raises
    `RunError` for a record that contradicts itself.
    """
    for token, path, missing in ((TOKEN, RECORD, NO_RECORD), (GPU_TOKEN, GPU_RECORD, NO_GPU_RECORD)):
        if token.search(text):
            page = _page_of(root / path) if (root / path).is_file() else missing
            text = token.sub(lambda _, page=page: page, text)
    return text


def _page_of(path: Path) -> str:
    record = read_record(path)
    return as_page(record) if path.name != GPU_RECORD.name else f"{_provenance(record)}\n\n{as_table(record)}"


def as_page(record: Record) -> str:
    """The record as MyST: where it comes from, the table of rows, the versions."""
    packages = ["| package | version |", "|---|---|"]
    packages += [f"| {literal(name)} | {literal(number)} |" for name, number in record.packages.items()]
    return "\n\n".join([_provenance(record), as_table(record), "## Versions", "\n".join(packages)])


def as_table(record: Record) -> str:
    """All rows as a Markdown table of three columns; failed benchmarks have a row that says so.

    What was measured at several numbers of images stands in a table of its own below, a column for each number.
    """
    lines = ["| what, against what | result | target |", "|---|---|---|"]
    series: dict[str, list[tuple[str, int, Row]]] = {}
    for benchmark in record.benchmarks:
        if benchmark.failed:
            cells = (f"**{benchmark.title}**", f"**failed**: {benchmark.failed}", "")
            lines.append(_line(cells))
        for row in benchmark.rows:
            if named := BY_IMAGES.fullmatch(row.what):
                series.setdefault(named["kind"], []).append((named["what"], int(named["images"]), row))
                continue
            against = f", against {row.against}" if row.against else ""
            lines.append(_line((f"**{row.what}**{against}", _result(row), _target(row))))
    tables = ["\n".join(lines)] if lines[2:] else []
    return "\n\n".join([*tables, *(_by_images(kind, rows) for kind, rows in series.items())])


def _by_images(kind: str, rows: list[tuple[str, int, Row]]) -> str:
    """A table of one kind of rows: what was measured downwards, numbers of images across."""
    numbers = sorted({images for _, images, _ in rows})
    first = rows[0][2]
    rival = next((row.against.rpartition(" (")[0] for _, _, row in rows if row.against), "")
    bracket = f"; in brackets: {rival}" if rival else ""
    lines = [
        f"**{kind}**, in {first.unit}, by the number of images{bracket}. "
        f"Bold: the target ({_target(first).partition(':')[0]}) is not met.",
        "",
        _line(("what", "how", *map(str, numbers))),
        _line(("---",) * (2 + len(numbers))),
    ]
    for what in dict.fromkeys(what for what, _, _ in rows):
        found = {images: row for name, images, row in rows if name == what}
        how = next((row.how for row in found.values() if row.how), "")
        lines.append(_line((what, how, *(_in_short(found.get(number)) for number in numbers))))
    return "\n".join(lines)


def _in_short(row: Row | None) -> str:
    if row is None or row.figure is None:
        return "not measured"
    bracket = row.against.rpartition("(")[2].rstrip("% )") if row.against else ""
    figure = f"**{in_words(row.figure)}**" if row.met is False else in_words(row.figure)
    return f"{figure} ({bracket})" if bracket else figure


def in_words(value: float) -> str:
    """Three significant digits, more only for whole numbers."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _provenance(record: Record) -> str:
    facts = {"device": record.device, "started": record.started, "code": record.code}
    quick = record.sizes == "quick"
    kind, title = ("warning", "A quick call: small sizes") if quick else ("note", "How this table was made")
    caution = (
        "It shows that every benchmark works; read no figure from it. `make bench` measures in full. "
        if quick
        else ""
    )
    failed = [benchmark.title for benchmark in record.benchmarks if benchmark.failed]
    missed = _missed([row for benchmark in record.benchmarks for row in benchmark.rows])
    said = (f" Failed: {', '.join(failed)}." if failed else "") + (
        f" Targets not met: {'; '.join(missed)}." if missed else ""
    )
    return (
        f"```{{admonition}} {title}\n:class: {kind} provenance\n"
        f"{caution}Measured on {hardware(facts)} on {day(facts)}, in "
        f"{duration(record.wall_seconds)}, by code version {version(facts)}.{said}\n```"
    )


def _missed(rows: list[Row]) -> list[str]:
    """What misses its target; of rows by the number of images their kind, and how many of it."""
    kinds = [(named["kind"] if (named := BY_IMAGES.fullmatch(row.what)) else "", row) for row in rows]
    said = [row.what for kind, row in kinds if not kind and row.met is False]
    for kind in dict.fromkeys(kind for kind, row in kinds if kind and row.met is False):
        own = [row.met for other, row in kinds if other == kind]
        said.append(f"{kind}, in {own.count(False)} of {len(own)} cases")
    return said


def _result(row: Row) -> str:
    if row.not_measured:
        return f"not measured: {row.not_measured}"
    found = f"{in_words(row.figure)} {row.unit}"
    if row.low is not None:
        spread = "" if row.spread == "range" else f", {row.spread}"
        found += f" ({in_words(row.low)} to {in_words(row.high)} in {row.repeats}{spread})"
    return f"{found}; {row.how}" if row.how else found


def _target(row: Row) -> str:
    bounds = (("at least", row.at_least), ("at most", row.at_most))
    wanted = " and ".join(f"{word} {in_words(bound)}" for word, bound in bounds if bound is not None)
    if not wanted:
        return "none set"
    return f"{wanted}: {'open' if row.met is None else 'met' if row.met else '**not met**'}"


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "/").split()) for cell in cells) + " |"
