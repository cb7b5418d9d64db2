"""Arguments of another kind, NaN, misspelt columns and names: refused by name, before anything is done."""

import ast
import importlib
import inspect
import math
import pkgutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
import torch
from bad_inputs import outcome
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

import vitmech_utils
from vitmech_utils import intervals, statistics
from vitmech_utils.arguments import (
    at_least,
    check_finite,
    check_table,
    checked_arguments,
    shown,
)
from vitmech_utils.figures import tables
from vitmech_utils.figures.plots import to_grid
from vitmech_utils.heads.ablation import agreement, sweep
from vitmech_utils.heads.attention import attention_maps, attention_statistics, by_image, rollout
from vitmech_utils.heads.costs import summary
from vitmech_utils.heads.rank_agreement import disattenuated_correlation
from vitmech_utils.heads.semantics import Thresholds, class_changes, classify
from vitmech_utils.heads.sets import groups
from vitmech_utils.heads.sinks import find_sinks
from vitmech_utils.model.regressor import ChirpRegressor

NAN = float("nan")
STRANGE = (
    None, True, "text", b"bytes", 3, -2, 2.5, NAN, math.inf, 1j, object(), [], ["x"], [None], {}, {"a": 1}, {1, 2},
    np.array([b"ab"]), np.array(["ab"]), np.array([None]), np.array([1j]), np.array([True]), np.zeros(3),
    torch.zeros(2), torch.tensor([1, 2]), pd.DataFrame({"a": [1]}), Path("x"), len,
)  # fmt: skip
# Where a public function is checked by what it calls, or is called once for each layer of each batch.
UNCHECKED = {
    "heads.projections", "heads.replay", "heads.attention_tables", "studies.rows", "studies.tables",
    "statistics.check_settings", "statistics.check_paired", "heads.effects.check_labels", "heads.effects.check_finite",
    "heads.replacements.check_images", "heads.replacements.check_shape", "heads.replacements.check_mode",
    "heads.constants.head_outputs", "heads.linearized.head_gradients", "heads.linearized.single",
    "heads.linearized.frozen", "heads.linearized.blocks_in",
    "heads.replacements.evaluating", "heads.first_order.open_gates",
    "statistics.unsigned_zero", "studies.recordings.folds.main", "heads.hooks.check_layer", "heads.hooks.split_heads",
}  # fmt: skip
ANALYSIS = ("statistics", "intervals", "heads.", "studies.", "figures.")


def public_functions() -> Iterator[tuple[str, Callable]]:
    """Every public function of the modules that analyse and draw, with its dotted name."""
    for module in pkgutil.walk_packages(vitmech_utils.__path__, "vitmech_utils."):
        short = module.name.removeprefix("vitmech_utils.")
        if not f"{short}.".startswith(ANALYSIS) and short not in ANALYSIS:
            continue
        found = importlib.import_module(module.name)
        for name, function in vars(found).items():
            own = getattr(function, "__module__", None) == module.name
            if own and inspect.isfunction(function) and not name.startswith("_"):
                yield f"{short}.{name}", function


FUNCTIONS = dict(public_functions())


def takes_anything(name: str, function: Callable) -> bool:
    inner = inspect.unwrap(function)
    return (
        name in UNCHECKED
        or name.rpartition(".")[0] in UNCHECKED
        or not set(inner.__annotations__) - {"return"}
    )


def test_every_public_function_checks_its_arguments() -> None:
    open_ones = [
        name
        for name, each in FUNCTIONS.items()
        if not hasattr(each, "checks") and not takes_anything(name, each)
    ]
    assert not open_ones
    assert len(FUNCTIONS) > 400


def test_every_public_function_refuses_values_of_another_kind_by_name() -> None:
    """Every parameter that has a kind, every strange value that is not of it: some tens of thousands of tries."""
    refused, accepted = 0, []
    for name, function in FUNCTIONS.items():
        if not hasattr(function, "checks"):
            continue
        for parameter, kind in function.checks.kinds().items():
            for value in STRANGE:
                if kind.accepts(value):
                    continue
                _, told = outcome(lambda: function(**{parameter: value}), function.checks.error)  # noqa: B023
                if told is None or f"{function.__name__}: {parameter} is " not in told or len(told) > 1000:
                    accepted.append((name, parameter, value, told))
                refused += 1
    assert not accepted
    assert refused > 20_000


def test_arrays_that_must_be_finite_are_refused_by_name_and_place() -> None:
    tried = 0
    for function in FUNCTIONS.values():
        for parameter in getattr(function, "checks", ((), (), ()))[2]:
            hint = inspect.unwrap(function).__annotations__[parameter]
            for bad in (NAN, math.inf, -math.inf):
                values = torch.zeros(2, 3, 4, 4) if "Tensor" in str(hint) else np.zeros((2, 3, 4, 4))
                values[1, 2] = bad
                with pytest.raises(function.checks.error, match=rf"{parameter}: not finite .*\(s\) \[1\]"):
                    function(**{parameter: values})
                tried += 1
        for parameter, least in getattr(function, "checks", ((), (), (), {}))[3].items():
            with pytest.raises(
                function.checks.error, match=f"{parameter} is {least - 1}, expected at least {least}"
            ):
                function(**{parameter: least - 1})
            tried += 1
    assert tried > 100


@checked_arguments(finite=("values",), least={"draws": 1})
def example(
    values: Float[ndarray, " image"],
    draws: int = 1,
    name: str | None = None,
    mode: Literal["a", "b"] = "a",
    pairs: Sequence[tuple[int, int]] = (),
    table: pd.DataFrame | None = None,
    more: Mapping[str, float] | None = None,
) -> str:
    return f"{draws} {name}" if table is None else str(table["effect"].sum() + table[["low"]].size)


def test_what_fits_reaches_the_function_as_it_is() -> None:
    assert example(np.zeros(2), np.int64(3), "x") == "3 x"
    assert example(np.zeros(2), draws=2, pairs=[(1, np.int64(2))], more=pd.Series({"a": 1.0})) == "2 None"
    assert example(values=np.array([1, 2])) == "1 None"
    assert example(torch.zeros(2, dtype=torch.bfloat16)) == "1 None"  # as an array
    assert example(pd.Series([1.0, 2.0])) == "1 None"
    assert example.__name__ == "example"
    table = pd.DataFrame({"effect": [1.5], "low": [0.0]})
    assert example(np.zeros(1), table=table) == "2.5"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"values": [1.0]}, r"example: values is \[1.0\], expected a NumPy array of floating-point numbers"),
        ({"values": np.array([b"x"])}, "values is an array of |S1 with shape"),
        ({"values": np.array([1.0, NAN])}, r"example: values: not finite .* in image\(s\) \[1\]"),
        ({"values": np.zeros(1), "draws": True}, "draws is True, expected a whole number"),
        ({"values": np.zeros(1), "draws": 1.0}, "draws is 1.0"),
        ({"values": np.zeros(1), "draws": 0}, "draws is 0, expected at least 1"),
        ({"values": np.zeros(1), "name": 3}, "name is 3, expected text or None"),
        ({"values": np.zeros(1), "mode": 3}, "mode is 3, expected text"),
        ({"values": np.zeros(1), "pairs": [(1, 2, 3)]}, "pairs is"),
        ({"values": np.zeros(1), "pairs": "ab"}, "pairs is 'ab'"),
        ({"values": np.zeros(1), "table": {"effect": [1]}}, "table is {'effect': .*}, expected a DataFrame or None"),
        ({"values": np.zeros(1), "table": pd.DataFrame({"efect": [1.0]})}, "table lacks effect; .* columns efect"),
        ({"values": np.zeros(1), "table": pd.DataFrame({"effect": [1.0]})}, "table lacks low; .* columns effect"),
    ],
)  # fmt: skip
def test_what_does_not_is_told_by_its_name(arguments: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        example(**arguments)


def test_other_errors_of_a_function_are_its_own() -> None:
    @checked_arguments()
    def fails(table: pd.DataFrame, key: str) -> int:
        return {"a": 1}[key]

    with pytest.raises(KeyError):
        fails(pd.DataFrame({"b": [1]}), "b")
    with pytest.raises(TypeError, match="unexpected keyword argument 'tabel'"):
        fails(pd.DataFrame(), "a", tabel=1)
    with pytest.raises(TypeError, match="has no other"):
        checked_arguments(finite=("other",))(fails)


def test_tables_are_refused_by_column_row_and_key() -> None:
    table = pd.DataFrame({"layer": [0, 0], "head": [0, 1], "effect": [1.0, 2.0]})
    key = ("layer", "head")
    check_table("sweep", table, key, key=key, finite=("effect",))
    for changed, told in (
        (table.drop(columns="head"), "sweep lacks head; it has the columns layer, effect"),
        (table.assign(head=0), "sweep: layer 0, head 0 stands there more than once"),
        (table.assign(effect=[1.0, NAN]), "sweep: effect is nan at layer 0, head 1, expected finite"),
        (table.assign(effect=[math.inf, 1.0]), "sweep: effect is inf at layer 0, head 0"),
        (table.assign(effect=["1", "2"]), "sweep: effect holds .*, expected numbers"),
        (table.set_axis(["layer", "head", "head"], axis=1), "sweep lacks effect"),
        (table.assign(more=1).set_axis(["layer", "head", "effect", "head"], axis=1), "the column head more than once"),
        ({"layer": [0]}, "sweep is {'layer': .*}, expected a table with the columns layer, head"),
        (None, "sweep is None"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=told):
            check_table("sweep", changed, key, key=key, finite=("effect",))


def test_finite_and_whole_numbers_and_what_a_message_shows() -> None:
    check_finite("x", np.zeros((0, 3)))
    check_finite("x", torch.zeros(2, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match=r"x: not finite \(NaN or infinite\), expected"):
        check_finite("x", np.float64(NAN))
    assert at_least(1)("3") == 3
    for text in ("0", "-1", "1.0", "\u0663", "", "1_0", "9" * 30):
        with pytest.raises(Exception, match="expected a whole number of at least 1"):
            at_least(1)(text)
    assert shown("x" * 5000).startswith("'xxx")
    assert len(shown("x" * 5000)) < 100
    assert shown(torch.zeros(2, 3)) == "an array of float32 with shape (2, 3)"


@pytest.fixture(scope="module")
def model() -> ChirpRegressor:
    return ChirpRegressor.tiny(layers=2, heads=2)


@pytest.fixture(scope="module")
def images() -> dict[str, Tensor]:
    regions = (torch.arange(224 * 224).view(224, 224) // 5600).to(torch.uint8)[None].repeat(2, 1, 1) % 9
    pixels = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    return {"pixel_values": pixels, "regions": regions}


class TestImages:
    @pytest.mark.parametrize("bad", [NAN, math.inf])
    def test_no_measure_takes_images_that_are_not_finite(
        self, model: ChirpRegressor, images: dict[str, Tensor], bad: float
    ) -> None:
        pixels, labels = images["pixel_values"], torch.zeros(2, 3)
        broken = pixels.clone()
        broken[1, 0, 5, 5] = bad
        calls: dict[str, Callable[[], object]] = {
            "attention_maps": lambda: attention_maps(model, broken),
            "rollout": lambda: rollout(model, broken),
            "attention_statistics": lambda: attention_statistics(
                model, images | {"pixel_values": broken}, replicates=2
            ),
            "by_image": lambda: by_image(model, {"pixel_values": broken}),
            "find_sinks": lambda: find_sinks(model, {"a": pixels, "b": broken}),
            "sweep": lambda: sweep(model, broken, labels, bootstrap=2),
            "reference": lambda: sweep(model, pixels, labels, reference=broken, bootstrap=2),
            "donors": lambda: sweep(model, pixels, labels, mode="resample", donors=broken, bootstrap=2),
        }
        for name, call in calls.items():
            with pytest.raises(ValueError, match=r"not finite .* in image\(s\) \[1\]"):
                pytest.fail(f"{name}: accepted ({call()})")

    def test_pixels_from_0_to_255_are_no_pixel_values(
        self, model: ChirpRegressor, images: dict[str, Tensor]
    ) -> None:
        bytes_of = (images["pixel_values"] * 255).to(torch.uint8)
        for call in (attention_maps, rollout):
            with pytest.raises(
                ValueError, match=r"pixel_values is an array of uint8 .* floating-point numbers"
            ):
                call(model, bytes_of)
        with pytest.raises(ValueError, match="pixel_values is an array of uint8"):
            sweep(model, bytes_of, torch.zeros(2, 3), bootstrap=2)

    def test_misspelt_settings_and_names_are_told(
        self, model: ChirpRegressor, images: dict[str, Tensor]
    ) -> None:
        with pytest.raises(TypeError, match="'replicats'"):
            attention_statistics(model, images, replicats=3)
        with pytest.raises(ValueError, match="mode is 'maen', expected one of"):
            sweep(model, images["pixel_values"], torch.zeros(2, 3), mode="maen")
        with pytest.raises(ValueError, match=r"images hold \['pixels'\], expected 'pixel_values'"):
            by_image(model, {"pixels": images["pixel_values"]})


class TestClasses:
    @pytest.mark.parametrize("value", [NAN, math.inf, -0.1])
    def test_thresholds_are_numbers(self, value: float) -> None:
        for name in ("part", "sink", "information", "follow", "position"):
            with pytest.raises(ValueError, match=f"threshold {name} is "):
                Thresholds(**{name: value})

    def test_twins_name_heads_and_regions_that_are_there(
        self, model: ChirpRegressor, images: dict[str, Tensor]
    ) -> None:
        found = attention_statistics(model, images, replicates=3)
        names = found.names
        good = {
            "layer": [0, 1],
            "head": [0, 1],
            "change": ["chirp moved"] * 2,
            "region": [names[1]] * 2,
            "follow": 0.0,
        }
        twins = pd.DataFrame(good)
        assert len(classify(found, twins)) == 4
        for changed, told in (
            (twins.assign(layer=[-1, 0]), "twins: layer is -1, expected 0 to 1"),
            (twins.assign(layer=[0, 2]), "twins: layer is 2"),
            (twins.assign(head=[0, -1]), "twins: head is -1, expected 0 to 1"),
            (twins.assign(region=["chrip"] * 2), "twins: region is chrip, expected one of"),
            (twins.assign(layer=0, head=0), "stands there more than once"),
            (twins.rename(columns={"follow": "folow"}), "twins lacks follow"),
        ):
            with pytest.raises(ValueError, match=told):
                classify(found, changed)
        classes = classify(found)
        with pytest.raises(ValueError, match="after: layer 0, head 0 stands there more than once"):
            class_changes(classes, pd.concat([classes, classes.head(1)]))
        with pytest.raises(ValueError, match="before lacks regions"):
            class_changes(classes.drop(columns="regions"), classes)


class TestNumbers:
    """Known answers of wrong input: the same sentence, whichever function it reaches."""

    VALUES = np.array([1.0, 2.0, 4.0])

    @pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0, 95.0, NAN])
    def test_a_confidence_is_between_0_and_1(self, confidence: float) -> None:
        for call in (
            lambda: statistics.median_interval(self.VALUES, confidence=confidence),
            lambda: statistics.rank_correlation(self.VALUES, self.VALUES, confidence=confidence),
            lambda: intervals.mean_intervals(self.VALUES[None], confidence=confidence),
        ):
            with pytest.raises(ValueError, match="confidence is"):
                call()

    def test_draws_are_some_and_not_without_end(self) -> None:
        for draws in (0, -1, 10**9):
            with pytest.raises(ValueError, match=f"bootstrap is {draws}"):
                statistics.median_interval(self.VALUES, draws=draws)

    def test_nothing_and_what_is_not_finite_are_refused(self) -> None:
        for call in (
            lambda: statistics.median_interval(np.zeros(0)),
            lambda: statistics.median_interval(np.zeros(0)),
            lambda: statistics.effect_draws(np.zeros((2, 0)), np.zeros(0), 5),
        ):
            with pytest.raises(ValueError, match="got "):
                call()
        with pytest.raises(ValueError, match=r"expected \[test, image\] with at least one image"):
            statistics.paired_p_values(np.zeros((2, 0)))
        with pytest.raises(ValueError, match="between 0 and 1"):
            statistics.adjust(np.array([0.5, 1.5]))
        with pytest.raises(ValueError, match="first: not finite"):
            disattenuated_correlation(np.full((1, 3, 4), NAN), np.ones((1, 3, 4)))


def test_without_the_type_checks_of_these_tests_the_same_is_refused() -> None:
    """In a process of its own: the tests' annotations are checked by jaxtyping, which would be first."""
    calls = {
        "statistics.ratio_of_medians(VALUES, VALUES[:2])": "got shapes (3,), (2,)",
        "statistics.percent_effect(ROWS, VALUES[:1])": "got shapes (2, 3) and (1,)",
        "statistics.effect_sizes(VALUES, VALUES)": "got shapes (3,) and (3,)",
        "statistics.rank_correlation(VALUES, VALUES[:2])": "got 3 and 2 values",
        "Thresholds(part=None)": "Thresholds.part is None, expected a number",
        "Thresholds(sink='0.5')": "Thresholds.sink is '0.5', expected a number",
        "Thresholds(follow=True)": "Thresholds.follow is True, expected a number",
        "Recipe(steps='3')": "Recipe.steps is '3', expected a whole number",
        "Recipe(steps=3, learning_rate='1e-3')": "Recipe.learning_rate is '1e-3', expected a number",
        "Recipe(steps=3, schedule=3)": "Recipe.schedule is 3, expected text",
        "attention_maps(ChirpRegressor.tiny(layers=1, heads=1), torch.zeros(1, 3, 224, 224), 'CLS')": "query is 'CLS'",
    }
    code = (
        "import sys, numpy as np, torch\nfrom vitmech_utils import statistics\n"
        "from vitmech_utils.heads.attention import attention_maps\n"
        "from vitmech_utils.heads.semantics import Thresholds\n"
        "from vitmech_utils.model.finetune import Recipe\n"
        "from vitmech_utils.model.regressor import ChirpRegressor\n"
        "VALUES, ROWS = np.array([1.0, 2.0, 4.0]), np.ones((2, 3))\n"
        "for call in sys.argv[1:]:\n"
        "    try: print('accepted', eval(call))\n"
        "    except ValueError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *calls], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert len(told) == len(calls)
    assert all(part in line for part, line in zip(calls.values(), told, strict=True)), told


class TestTables:
    SWEEP = pd.DataFrame(
        {
            "layer": [0, 0, 1] * 2,
            "head": [0, 1, 0] * 2,
            "mode": ["zero"] * 3 + ["mean"] * 3,
            "effect": np.arange(6.0),
        }
    )

    def test_agreement_of_modes(self) -> None:
        assert agreement(self.SWEEP, bootstrap=5)["correlation"].tolist() == [1.0]
        for changed, told in (
            (self.SWEEP.rename(columns={"effect": "efect"}), "table lacks effect"),
            (
                pd.concat([self.SWEEP, self.SWEEP.head(1)]),
                "layer 0, head 0, mode zero stands there more than once",
            ),
            (self.SWEEP.assign(effect=NAN), "effect is nan"),
        ):
            with pytest.raises(ValueError, match=told):
                agreement(changed, bootstrap=5)

    def test_timings(self) -> None:
        timings = pd.DataFrame(
            {
                "model": ["a", "b"] * 2,
                "batch": 1,
                "compiled": False,
                "repeat": [0, 0, 1, 1],
                "seconds": [1.0, 2, 1, 2],
            }
        )
        assert summary(timings, "b", draws=5).set_index("model")["speedup"].to_dict() == {"a": 2.0, "b": 1.0}
        for changed, told in (
            (timings.assign(seconds=[1.0, NAN, 1, 1]), "seconds is nan at model b, batch 1"),
            (timings.assign(repeat=0), "stands there more than once"),
            (timings.drop(columns="batch"), "timings lacks batch"),
        ):
            with pytest.raises(ValueError, match=told):
                summary(changed, "b")

    def test_tables_and_grids_of_pages(self) -> None:
        with pytest.raises(ValueError, match=r"table lacks the column\(s\) \['efect'\]"):
            to_grid(self.SWEEP.head(3), "efect")
        with pytest.raises(ValueError, match="frame_table: table lacks efect"):
            tables.frame_table(self.SWEEP, {"efect": ("effect", ".2f")})
        with pytest.raises(ValueError, match="groups: table lacks kind"):
            groups(self.SWEEP, "kind")


def test_a_page_shows_a_function_without_the_check_of_its_arguments() -> None:
    shown_code = tables.source(statistics.median_interval, tables.heading).data
    assert "checked_arguments" not in shown_code
    assert shown_code.startswith("def median_interval(")
    assert [node.name for node in ast.parse(shown_code).body] == ["median_interval", "heading"]
