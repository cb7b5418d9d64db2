"""The head picker's Python side: what it accepts, what it refuses, and what it writes."""

import base64
import dataclasses
import io
import json
import re
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import traitlets
from bad_inputs import outcome
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vitmech_utils.data.chirps import LABEL_MEAN, LABEL_STD
from vitmech_utils.data.dataset import REGIONS, ChirpDataset, held_out, standardize
from vitmech_utils.report.picker import (
    Answer,
    HeadPicker,
    PickerData,
    Tracks,
    chirp_answer,
    example_arrays,
    head_facts,
    save_page,
    share_notebook_data,
)
from vitmech_utils.report.picker.measures import unmixed_shares
from vitmech_utils.report.picker.payload import quantize

# Distinct primes, so that a transposed axis cannot pass: 2 variants, 3 images, 5 layers, 7 heads, 11 x 13 patches.
VARIANTS, IMAGES, LAYERS, HEADS, ROWS, COLUMNS = 2, 3, 5, 7, 11, 13


def small(**changes) -> dict:
    arrays = example_arrays(LAYERS, HEADS, (ROWS, COLUMNS), IMAGES, size=32, queries=3)
    return arrays | changes


@pytest.fixture(scope="module")
def picker() -> HeadPicker:
    return HeadPicker(**small())


def chunk(picker: HeadPicker, name: str) -> bytes:
    entry = picker._spec["chunks"][name]
    data = picker._chunks[entry["id"]]
    return zlib.decompress(data) if entry["codec"] == "deflate" else data


def test_every_map_survives_within_half_a_level_of_its_own_maximum(picker):
    arrays = small()
    for twin, maps in enumerate((arrays["maps"], arrays["twin_maps"])):
        for variant in range(VARIANTS):
            raw = chunk(picker, f"maps:{twin}:{variant}")
            count = IMAGES * LAYERS * HEADS
            peaks = np.frombuffer(raw, "<f4", count).reshape(IMAGES, LAYERS, HEADS, 1, 1)
            steps = np.frombuffer(raw, np.uint8, offset=count * 4).reshape(
                IMAGES, LAYERS, HEADS, ROWS, COLUMNS
            )
            np.testing.assert_allclose(
                steps / 255 * peaks, maps[variant], atol=float(peaks.max()) / 510 + 1e-7
            )


def test_quantize_keeps_hand_computed_levels():
    raw = quantize(np.array([[0.0, 0.1, 0.2], [0.0, 0.0, 0.0]], np.float32), 256)
    assert np.frombuffer(raw, "<f4", 2).tolist() == pytest.approx([0.2, 0.0])
    assert list(raw[8:]) == [0, 128, 255, 0, 0, 0]


def test_images_are_kept_in_order(picker):
    blob, expected = chunk(picker, "images"), small()
    for twin, stack in enumerate((expected["images"], expected["twin_images"])):
        for image, (start, end) in enumerate(picker._spec["images"][twin]):
            shown = np.asarray(Image.open(io.BytesIO(blob[start:end])).convert("RGB"), dtype=float)
            assert np.abs(shown - stack[image]).mean() < 8


def test_lift_follows_from_the_shares(picker):
    arrays = small()
    expected = arrays["shares"][0].mean(axis=0) / arrays["area_shares"].mean(axis=0)
    for region in range(len(arrays["regions"])):
        measure = next(m for m in picker._spec["measures"] if m["key"] == f"lift:{region}")
        np.testing.assert_allclose(
            np.reshape(measure["values"], (LAYERS, HEADS)), expected[..., region], rtol=1e-3
        )


def test_it_starts_at_the_head_with_the_greatest_effect():
    effect = np.zeros((LAYERS, HEADS))
    effect[3, 4] = 9
    picker = HeadPicker(**small(effect=effect, effect_low=None, effect_high=None))
    assert (picker.layer, picker.head, picker.measure) == (3, 4, "effect")


def test_plain_maps_and_grey_images_are_enough():
    picker = HeadPicker(np.ones((2, 3, 4, 5, 6)), np.zeros((2, 8, 9), np.uint8))
    assert picker._spec["measures"] == []
    assert "3 layers x 4 heads, 5 x 6 patches, 2 images" in repr(picker)
    assert "data-vm-host" in picker.html()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"maps": np.ones((2, 3, 4))}, r"maps: expected shape .* got \(2, 3, 4\)"),
        ({"maps": -np.ones((3, 5, 7, 11, 13))}, r"maps: expected values >= 0, got -1"),
        ({"maps": np.full((3, 5, 7, 11, 13), np.nan)}, r"maps: expected finite numbers"),
        ({"maps": "attention"}, r"maps: expected numbers with axes"),
        ({"images": np.zeros((3, 32, 32, 3), np.float32)}, r"images: expected uint8 pixels in 0..255, got float32"),
        ({"images": np.zeros((4, 32, 32, 3), np.uint8)}, r"images: expected shape \(3, .*got \(4, 32, 32, 3\)"),
        ({"twin_images": None}, r"twin_maps and twin_images: expected both or neither"),
        ({"twin_maps": np.ones((2, 3, 5, 7, 13, 11))}, r"twin_maps: expected shape .*got \(2, 3, 5, 7, 13, 11\)"),
        ({"variants": ["one"]}, r"variants: expected 2 names, one per variant, got 1"),
        ({"variants": "ab"}, r"variants: expected a list of 2 names"),
        ({"image_labels": ["a"]}, r"image_labels: expected 3 names, one per image, got 1"),
        ({"effect": np.ones((7, 5))}, r"effect: expected shape \(5, 7\) \(\[layer, head\]\), got \(7, 5\)"),
        ({"effect": None}, r"effect: expected an array \[layer, head\] beside effect_low and effect_high"),
        ({"head_class": [["a"] * 5] * 7}, r"head_class: expected shape \(5, 7\)"),
        ({"regions": ()}, r"regions: expected the names of the regions"),
        ({"shares": np.full((5, 7, 7), 30.0)}, r"shares: expected fractions in \[0, 1\], got 30"),
        ({"area_shares": np.ones((2, 7))}, r"area_shares: expected shape \(7\) or \(3, 7\)"),
        ({"lift": np.ones((5, 7, 2))}, r"lift: expected shape \(5, 7, 7\)"),
        ({"query_image": 3}, r"query_image: expected an index \(0-based\) in 0..2, got 3"),
        ({"query_heads": [(5, 0)]}, r"query_heads: expected \(layer, head\) pairs in 0..4 and 0..6"),
        ({"query_maps": np.ones((35, 3, 3, 12, 13))}, r"query_maps: expected at most 11 in axis 'row'"),
        ({"name": "a b"}, r"name: expected letters, digits"),
        ({"map_levels": 1}, r"map_levels: expected a number of grey levels in 2..256, got 1"),
        ({"page_limit": 100_000}, r"the picker's page would have about .* MB, expected at most 0.1 MB .*map_levels"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_expected_and_actual(changes, message):
    with pytest.raises(ValueError, match=message):
        HeadPicker(**small(**changes))


@pytest.mark.parametrize(
    ("trait", "value"),
    [("layer", LAYERS), ("head", -1), ("image", IMAGES), ("query", ROWS * COLUMNS), ("query", -2),
     ("variant", VARIANTS), ("measure", "magic"), ("scale", "log"), ("opacity", 1.5)],
)  # fmt: skip
def test_traits_refuse_what_is_out_of_range(trait, value):
    picker = HeadPicker(**small())
    before = getattr(picker, trait)
    with pytest.raises(traitlets.TraitError):
        setattr(picker, trait, value)
    assert getattr(picker, trait) == before


def test_state_is_kept_in_the_html():
    picker = HeadPicker(**small(), image=2, variant=-1, query=5)
    picker.layer, picker.head, picker.measure = 4, 6, "entropy"
    found = re.search(r"data-vm-state>(.*?)</script>", picker.html(), re.DOTALL)
    state = json.loads(found[1])
    expected = {"layer": 4, "head": 6, "image": 2, "variant": -1, "query": 5, "measure": "entropy"}
    assert expected.items() <= state.items()


def test_hostile_texts_cannot_leave_their_place():
    evil = "</script><img src=x onerror=alert(1)>\"'&"
    texts = np.full((LAYERS, HEADS), evil, dtype=object)
    page = HeadPicker(
        **small(
            title=evil, variants=[evil, "b"], image_labels=[evil, "b", "c"], evidence=texts, head_class=texts
        )
        | {"regions": [evil, *"bcdefg"], "twins": [evil, "b"], "effect_label": evil}
    ).html()
    assert "<img src=x" not in page
    assert page.count("</script>") == page.count("<script")


def test_unknown_values_become_unknown_not_nan():
    effect = np.full((LAYERS, HEADS), np.nan)
    picker = HeadPicker(**small(effect=effect, effect_low=None, effect_high=None))
    # Base64 data may spell the three letters by chance; a value would stand by itself. The script may speak of them.
    page = picker.html().partition('<script type="module">')[0]
    assert not re.search(r"(?<![A-Za-z0-9+/])NaN(?![A-Za-z0-9+/=])", page)


def test_the_bundle_speaks_to_every_viewer(picker):
    data, _ = picker._repr_mimebundle_()
    assert set(data) == {"text/plain", "text/html", "image/png", "application/vnd.jupyter.widget-view+json"}
    with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as image:
        assert image.size == (1200, 430)
    table = re.search(r"<table>.*?</table>", data["text/html"], re.DOTALL)[0]
    assert table.count("<tr>") == LAYERS * HEADS + 1


def test_a_page_stores_shared_data_once(picker, tmp_path):
    other = HeadPicker(**small(), name="other")
    save_page(tmp_path / "two.html", [picker, other], "Two")
    page = (tmp_path / "two.html").read_text()
    keys = re.findall(r'data-vm-chunk="(\w+)">', page)
    assert len(keys) == len(set(keys)) == len(picker._chunks)
    assert page.count("data-vm-host>") == 2


def test_notebooks_are_made_ready_for_static_pages(picker):
    cells = []
    for _ in range(2):
        data, _ = picker._repr_mimebundle_()
        data["text/html"] = data["text/html"].splitlines(keepends=True)
        cells.append({"cell_type": "code", "outputs": [{"output_type": "display_data", "data": data}]})
    cells.append({"cell_type": "markdown", "source": ""})
    states = {"state": {picker.model_id: {"state": {}}, "other": {}}}
    notebook = {
        "cells": cells,
        "metadata": {"widgets": {"application/vnd.jupyter.widget-state+json": states}},
    }
    assert share_notebook_data(notebook) > 0
    first, second = ("".join(cell["outputs"][0]["data"]["text/html"]) for cell in cells[:2])
    assert first.count('<script type="text/plain" data-vm-chunk') == len(picker._chunks)
    assert second.count('<script type="text/plain" data-vm-chunk') == 0
    assert "application/vnd.jupyter.widget-view+json" not in cells[0]["outputs"][0]["data"]
    assert list(states["state"]) == ["other"]


def test_tables_of_heads_become_the_pickers_arrays() -> None:
    heads = [(layer, head) for layer in range(2) for head in range(3)]
    classes = pd.DataFrame(heads, columns=["layer", "head"]).assign(
        map_entropy=np.arange(6) / 7, evidence=[f"seen {place}" for place in range(6)]
    )
    classes["class"] = ["sink", "diffuse", "sink", "monosemantic", "diffuse", "positional"]
    effects = pd.DataFrame({"layer": [1, 0], "head": [2, 1], "effect": [5.0, 3.0], "low": 1.0, "high": 7.0})
    facts = head_facts(classes.sample(frac=1, random_state=0), effects)
    assert facts["effect"][1, 2] == 5.0
    assert facts["effect"][0, 1] == 3.0
    assert np.isnan(facts["effect"]).sum() == 4
    assert facts["entropy"][1, 0] == 3 / 7
    assert facts["head_class"] == [["sink", "diffuse", "sink"], ["monosemantic", "diffuse", "positional"]]
    assert facts["evidence"][1][2] == "seen 5"


def test_picker_data_and_its_fields_as_arguments_make_the_same_picker():
    arrays = small()
    data = PickerData(**arrays)
    made, plain = HeadPicker(data, image=1), HeadPicker(**arrays, image=1)
    assert made._spec == plain._spec
    assert made._chunks == plain._chunks
    assert made.state() == plain.state()
    renamed = HeadPicker(data, title="Another title", twin_maps=None, twin_images=None)
    assert renamed._spec["title"] == "Another title"
    assert renamed._spec["twins"] == [""]
    assert data.title == arrays["title"]  # the data stay as they were


@pytest.mark.parametrize(
    ("name", "meant"), [("efect", "effect"), ("page_limits", "page_limit"), ("layr", "layer")]
)
def test_a_misspelt_argument_is_refused_with_the_one_that_was_meant(name, meant):
    with pytest.raises(
        ValueError, match=f"{name}: no argument or trait of a HeadPicker; did you mean '{meant}'"
    ):
        HeadPicker(np.ones((2, 3, 4, 5, 6)), np.zeros((2, 8, 9), np.uint8), **{name: 1})


def test_maps_without_images_are_refused():
    with pytest.raises(ValueError, match="images: expected"):
        HeadPicker(np.ones((2, 3, 4, 5, 6)))


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 300), st.floats(), st.text("ab\ud800<", max_size=3),
    st.binary(max_size=3),
    st.lists(st.one_of(st.text("ab", max_size=2), st.integers(0, 9), st.none()), max_size=8),
    st.builds(
        lambda shape, kind, value: np.full(shape, value).astype(kind),
        st.lists(st.integers(0, 8), max_size=6), st.sampled_from(["f4", "f8", "u1", "i8", "?", "S2", "U2", "O", "c8"]),
        st.sampled_from([0, 1, 255, 0.5]),
    ),
    st.builds(
        lambda name, at, value: spoilt(small()[name], at, value),
        st.sampled_from(["maps", "effect", "shares", "twin_maps", "effect_low"]), st.integers(0, 10**6),
        st.sampled_from([np.nan, np.inf, -np.inf, -1.0, 1e300]),
    ),
    st.just({"a": 1}), st.just(object()), st.just(len),
)  # fmt: skip


def spoilt(values, at, value):
    """A copy with one number replaced."""
    copy = np.array(values, dtype=float)
    copy.flat[at % copy.size] = value
    return copy


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(small())), ODD)
def try_argument(name, value):
    made, told = outcome(lambda: HeadPicker(**small(**{name: value})), ValueError, traitlets.TraitError)
    if told is None:
        assert "data-vm-host" in made.html()
    else:
        assert any(argument in told for argument in small()), told  # the one, or what it does not go with
        assert len(told) < 1500


def test_any_argument_makes_a_picker_or_is_refused_by_its_name():
    """In a process of its own: here jaxtyping checks the annotations, and would be the first to refuse."""
    code = "import test_picker_payload; test_picker_payload.try_argument()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def numbers(picker: HeadPicker) -> dict[str, np.ndarray]:
    """The parts of the answers' chunk."""
    twins, size = picker._spec["answer"]["twins"], (IMAGES, 3)
    grid, sets = (IMAGES, LAYERS, HEADS, 3), len(picker._spec["answer"]["sets"])
    shapes = {
        "whole": (twins, *size),
        "without": (twins, *grid),
        "slopes": (twins, *grid),
        "tried": (sets, twins, *size),
    }
    flat, found = np.frombuffer(chunk(picker, "answer"), "<f4"), {}
    for name, shape in shapes.items():
        found[name], flat = flat[: np.prod(shape)].reshape(shape), flat[np.prod(shape) :]
    assert not len(flat)
    return found


def test_answers_are_kept_as_they_were_given(picker):
    answer, kept = small()["answer"], numbers(picker)
    for name in ("whole", "without", "slopes"):
        np.testing.assert_allclose(kept[name], getattr(answer, name), rtol=1e-6)
    np.testing.assert_allclose(kept["tried"], answer.without_sets, rtol=1e-6)
    heads = [np.flatnonzero(member.ravel()).tolist() for member in answer.sets]
    assert picker._spec["answer"]["sets"] == heads


def test_how_far_estimates_were_off_follows_from_the_sets_one_by_one():
    rng = np.random.default_rng(3)
    whole, shifts = rng.normal(size=(IMAGES, 2)), rng.normal(size=(IMAGES, LAYERS, HEADS, 2))
    slopes = shifts * 0.5
    sets = np.zeros((5, LAYERS, HEADS), bool)
    sets[0, 2] = True  # a whole layer
    for row, heads in enumerate(([(0, 0), (4, 6)], [(1, 2), (3, 3)], [(0, 1), (1, 1), (2, 2)], [(4, 4)]), 1):
        for layer, head in heads:
            sets[row, layer, head] = True
    exact = whole + np.stack([shifts[:, member].sum(1) for member in sets]) + rng.normal(size=(5, IMAGES, 2))
    exact[3, 1] = np.nan  # not computed for one image
    answer = Answer(
        whole, whole[:, None, None] + shifts, ["a", "b"], slopes=slopes, sets=sets, without_sets=exact
    )
    bare = HeadPicker(
        np.ones((IMAGES, LAYERS, HEADS, 4, 4)), np.zeros((IMAGES, 8, 8), np.uint8), answer=answer
    )
    found = {(row["kind"], row["how"]): row for row in bare._spec["answer"]["tests"]}
    assert set(found) == {
        ("a whole layer", "shifts"), ("a whole layer", "slopes"), ("2 heads", "shifts"), ("2 heads", "slopes"),
        ("3 heads", "shifts"), ("3 heads", "slopes"), ("1 head", "slopes"),
    }  # fmt: skip
    for (kind, how), places in {
        ("a whole layer", "shifts"): [0], ("2 heads", "slopes"): [1, 2], ("3 heads", "shifts"): [3],
        ("1 head", "slopes"): [4],
    }.items():  # fmt: skip
        off, moved = [], []
        for place in places:
            for image in range(IMAGES):
                if np.isnan(exact[place, image]).any():
                    continue
                terms = shifts if how == "shifts" else slopes
                off.append(whole[image] + terms[image][sets[place]].sum(0) - exact[place, image])
                moved.append(exact[place, image] - whole[image])
        row = found[kind, how]
        assert row["answers"] == len(off)
        np.testing.assert_allclose(row["off"], np.sqrt(np.mean(np.square(off), 0)), rtol=1e-4)
        np.testing.assert_allclose(row["worst"], np.abs(off).max(0), rtol=1e-4)
        np.testing.assert_allclose(row["moved"], np.sqrt(np.mean(np.square(moved), 0)), rtol=1e-4)


def test_unmixed_shares_take_off_what_neighbours_add():
    # Two regions in four patches; the last patch is half one, half the other.
    coverage = np.zeros((2, 2, 2))
    coverage[0] = [[1, 1], [0, 0.5]]
    coverage[1] = [[0, 0], [1, 0.5]]
    # A head that looks at the second region alone, in proportion to its area: 2/3 on its own patch, 1/3 on the shared.
    shares = np.zeros((1, 1, 1, 1, 2), np.float32)
    shares[...] = [1 / 6, 5 / 6]
    unmixed, most = unmixed_shares(shares, coverage[None])
    np.testing.assert_allclose(unmixed[0, 0, 0, 0], [0, 1], atol=1e-6)
    np.testing.assert_allclose(most, [[0.9, 5 / 6]], atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"whole": np.zeros((IMAGES, 2))}, r"answer.whole: expected shape .* got \(3, 2\)"),
        ({"without": np.zeros((2, IMAGES, HEADS, LAYERS, 3))}, r"answer.without: expected shape"),
        ({"whole": np.full((2, IMAGES, 3), np.nan)}, r"answer.whole: expected finite numbers"),
        ({"outputs": "abc"}, r"answer.outputs: expected a list of 3 names"),
        ({"units": ["s"]}, r"answer.units: expected 3 names"),
        ({"kind": "logits"}, r"answer.kind: expected 'numbers' or 'classes'"),
        ({"scale": (1.0, 0.0, 1.0)}, r"answer.scale: expected numbers above 0"),
        ({"sets": None}, r"answer.sets and answer.without_sets: expected both or neither"),
        ({"sets": np.zeros((12, LAYERS, HEADS))}, r"answer.sets: expected bool of shape"),
        ({"truth": np.zeros((IMAGES, 2))}, r"answer.truth: expected shape"),
        ({"kind": "classes", "tracks": None}, r"answer.truth: expected 3 class numbers in 0..2"),
        ({"tracks": Tracks((0.5, 0.0, 0.4, 1.0), np.ones(3), np.ones(3, bool))}, r"answer.tracks.box: expected left <"),
    ],
)  # fmt: skip
def test_answers_that_do_not_fit_are_refused(changes, message):
    arrays = small()
    with pytest.raises(ValueError, match=message):
        HeadPicker(**arrays | {"answer": dataclasses.replace(arrays["answer"], **changes)})


def test_heads_are_switched_off_and_pinned_by_layer_and_head():
    picker = HeadPicker(**small(), off=[(2, 3), (0, 1), (2, 3)])
    assert picker.off == [[0, 1], [2, 3]]
    picker.pins = [(4, 6), (1, 0)]
    assert picker.pins == [[4, 6], [1, 0]]
    for trait, value in (
        ("off", [(LAYERS, 0)]),
        ("off", [3]),
        ("pins", [(0, 0), (1, 1), (2, 2)]),
        ("off", [("a", 1)]),
    ):
        with pytest.raises(traitlets.TraitError):
            setattr(picker, trait, value)
    assert picker.state()["off"] == [[0, 1], [2, 3]]


def test_the_model_answers_exactly_when_the_page_asks():
    asked, sent = [], []

    def exact(heads):
        asked.append(heads)
        return np.arange(2 * IMAGES * 3).reshape(2, IMAGES, 3)

    picker = HeadPicker(**small(), exact=exact)
    picker.send = lambda content: sent.append(content)
    picker._answer_exactly(picker, {"kind": "exact", "off": [[2, 1], [0, 3]]}, [])
    assert asked == [[(0, 3), (2, 1)]]
    assert sent[0]["kind"] == "exact"
    assert sent[0]["off"] == [[0, 3], [2, 1]]
    np.testing.assert_array_equal(sent[0]["answers"], np.arange(2 * IMAGES * 3).reshape(2, IMAGES, 3))
    picker._answer_exactly(picker, {"kind": "exact", "off": [[99, 1]]}, [])
    assert sent[1]["kind"] == "failed"
    assert "expected pairs of layer and head" in sent[1]["error"]
    picker._answer_exactly(picker, "nonsense", [])
    assert len(sent) == 2
    with pytest.raises(ValueError, match="made without `exact`"):
        HeadPicker(**small()).exact_answers([(0, 0)])
    with pytest.raises(ValueError, match="exact: expected a function of heads beside an answer"):
        HeadPicker(**small(answer=None), exact=exact)
    wrong = HeadPicker(**small(), exact=lambda heads: np.zeros((IMAGES, 2)))
    with pytest.raises(ValueError, match="what exact returned: expected shape"):
        wrong.exact_answers([(0, 0)])


def test_answers_to_chirps_are_in_seconds_and_hertz_over_the_plot():
    count = 2
    chirps = [ChirpDataset(count, seed=0, split="held-out").chirp(index) for index in range(count)]
    standard = standardize(np.stack([chirp.labels for chirp in chirps]))
    kept = {
        "answer_whole": np.stack([standard] * 2), "answer_without": np.zeros((2, count, 1, 2, 3)),
        "answer_slopes": np.full((2, count, 1, 2, 3), 0.5), "answer_sets": np.ones((1, 1, 2), bool),
        "answer_without_sets": np.zeros((1, 2, count, 3)),
    }  # fmt: skip
    answer = chirp_answer(kept, count)
    np.testing.assert_allclose(answer.whole[0], answer.truth)
    np.testing.assert_allclose(answer.without[0, 0, 0, 0], LABEL_MEAN)
    np.testing.assert_allclose(answer.slopes[0, 0, 0, 0], LABEL_STD / 2)
    assert chirp_answer({}, count) is None
    assert chirp_answer(kept, count + 1) is None
    # The box is the plot: its pixels are those that the region map calls plot or chirp.
    regions = held_out(1)["regions"][0].numpy()
    inside = np.isin(regions, [REGIONS.index("plot background"), REGIONS.index("chirp")])
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    edges = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / 224
    np.testing.assert_allclose(answer.tracks.box, edges, atol=1.5 / 224)
