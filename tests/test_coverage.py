"""The benchmark of intervals counts what it says it counts."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from small_book import ROOT

from vitmech_utils.intervals import METHOD
from vitmech_utils.studies import coverage as chosen

SCRIPT = ROOT / "benchmarks" / "coverage.py"


@pytest.fixture
def coverage(monkeypatch: pytest.MonkeyPatch):
    """The script as a module, under a name of its own: there is a package called coverage."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    spec = importlib.util.spec_from_file_location("coverage_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_a_method_that_covers_and_one_that_does_not_are_told_apart(coverage):
    rng = np.random.default_rng(0)
    skewed = np.exp(2 * rng.standard_normal((3, 4001)))
    table = coverage.coverage(coverage.Mean("skewed", skewed), (31,), 100).set_index("method")
    assert list(table.index) == list(coverage.METHODS)
    assert table.loc["percentile", "covered"] < 85
    assert table.loc["padded-t", "covered"] > table.loc["percentile", "covered"] + 5
    assert (table["too_low"] > table["too_high"]).all()
    even = coverage.coverage(coverage.Mean("even", 7 + rng.standard_normal((2, 4001))), (31,), 100)
    assert even.set_index("method").loc["t", "covered"] > 90
    assert (even["half_width"].between(0.03, 0.08)).all()


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch):
    """A made-up table in place of the measured one; what it says of a quantity is remembered."""

    def put(*rows: tuple) -> None:
        columns = ["quantity", "images", "method", "covered", "half_width"]
        monkeypatch.setattr(chosen, "measured", lambda: pd.DataFrame(rows, columns=columns))

    return put


def test_the_method_is_the_usual_one_or_the_narrowest_that_covers(tables):
    tables(
        ("a shift", 20, METHOD, 90, 1.0), ("a shift", 20, "t", 91, 0.9), ("a shift", 20, "log-t", 92, 0.5),
        ("a shift", 100, METHOD, 92, 1.0), ("a shift", 100, "t", 94, 0.9), ("a shift", 100, "log-t", 93, 0.5),
        ("a shift", 500, METHOD, 93, 1.0), ("a shift", 500, "t", 95, 0.9), ("a shift", 500, "log-t", 99, 0.5),
    )  # fmt: skip
    assert [chosen.method_for("a shift", images) for images in (4, 20, 99, 100, 499, 5000)] == [
        "log-t", "log-t", "log-t", "log-t", "log-t", METHOD,
    ]  # fmt: skip
    assert chosen.least_images("a shift") == 100
    with pytest.raises(KeyError, match="no coverage was measured for 'an area'"):
        chosen.least_images("an area")


def test_what_may_be_negative_gets_no_logarithm(tables):
    tables(
        ("an effect", 20, METHOD, 90, 1.0), ("an effect", 20, "log-t", 99, 0.5),
        ("an effect", 100, METHOD, 94, 1.0), ("an effect", 100, "log-t", 99, 0.5),
    )  # fmt: skip
    assert {chosen.method_for("an effect", images) for images in (20, 100)} == {METHOD}
    assert chosen.least_images("an effect") == 100


def test_the_measured_table_serves_what_rules_rest_on():
    for quantity in chosen.quantities():
        rows = chosen.measured()[chosen.measured()["quantity"] == quantity]
        assert rows["covered"].between(0, 100).all()
        assert chosen.method_for(quantity, 1000) in set(rows["method"])


def test_a_population_without_spread_is_always_covered(coverage):
    one = np.ones((1, 101))
    for quantity in (
        coverage.Mean("alike", one),
        coverage.Mean("alike", 2 * one, one),
        coverage.Share("never", one < 0),
        coverage.Joint("none", one, lambda means: (means > 2).sum(1).astype(float)),
        coverage.Corrected("same", one, one, by_size=True, fitted=True),
    ):
        assert (coverage.coverage(quantity, (7,), 3)["covered"] == 100).all()


@pytest.mark.slow
def test_the_script_leaves_rows_and_the_whole_table(tmp_path):
    rows, table = tmp_path / "rows.json", tmp_path / "table.json"
    command = [sys.executable, SCRIPT, "--quick", "--repeats", "2", "--rows", rows, "--table", table]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    kept = json.loads(rows.read_text())
    assert kept["title"] == "Intervals"
    assert {row["unit"] for row in kept["rows"]} == {"%"}
    everything = json.loads(table.read_text())
    assert everything["population"] == 96
    assert {row["images"] for row in everything["rows"]} == {20, 24}
    assert "loss of the whole model" in done.stdout
