"""`Chapter.keep` and `Chapter.lazy`: what comes back is what was saved, in the same types."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from vitmech_utils.heads.ablation import HeadPredictions
from vitmech_utils.heads.attention_shares import AttentionStatistics
from vitmech_utils.heads.sets import SetPredictions
from vitmech_utils.runs import Chapter, kept, open_chapter
from vitmech_utils.runs.manifests import RunError
from vitmech_utils.statistics import Interval


@pytest.fixture
def chapter(small: Path) -> Chapter:
    return open_chapter("01_first", root=small)


def predictions() -> SetPredictions:
    return SetPredictions(
        baseline=torch.rand(3, 2),
        ablated=torch.rand(2, 3, 2).transpose(0, 1).contiguous().transpose(0, 1),
        sets=(frozenset({(0, 1), (3, 2)}), frozenset()),
        mode="mean",
        method="replay",
    )


def test_a_table_comes_back_from_parquet(chapter: Chapter) -> None:
    frame = pd.DataFrame({"layer": [0, 1], "effect": [0.1, float("nan")], "mode": ["mean", "zero"]})
    found = chapter.keep("effects", lambda: frame.iloc[[1, 0]])
    pd.testing.assert_frame_equal(found, frame.iloc[[1, 0]].reset_index(drop=True))
    assert (chapter.folder / "effects.parquet").is_file()


def test_arrays_and_tensors_keep_type_precision_shape_and_order(chapter: Chapter) -> None:
    given = {
        "z": np.array(0.1),
        "double": torch.rand(2, 3, dtype=torch.float64).T,
        "half": torch.rand(2).to(torch.bfloat16),
        "whole": np.arange(6).reshape(2, 3)[:, ::-1],
        "flags": np.array([True, False]),
        "none": np.empty((0, 2), dtype=np.float32),
    }
    found = chapter.keep("maps", lambda: given)
    assert list(found) == list(given)
    for key, value in given.items():
        assert type(found[key]) is type(value), key
        assert found[key].dtype == value.dtype, key
        assert found[key].shape == value.shape, key
        assert (found[key] == value).all(), key
    assert set(load_file(chapter.folder / "maps.safetensors")) == set(given)


def test_a_model_s_outputs_come_back_without_their_graph(chapter: Chapter) -> None:
    weights = torch.rand(3, requires_grad=True)
    found = chapter.keep("weights", lambda: {"twice": weights * 2})
    assert not found["twice"].requires_grad


def test_numpy_alone_comes_back_as_numpy(chapter: Chapter) -> None:
    found = chapter.keep("maps", lambda: [np.ones((2, 2)), np.arange(3)])
    assert [type(part) for part in found] == [np.ndarray, np.ndarray]
    assert isinstance(chapter.keep("one", lambda: np.ones(2)), np.ndarray)


def test_dataclasses_come_back_whole(chapter: Chapter) -> None:
    given = predictions()
    found = chapter.keep("without_sets", lambda: given)
    assert isinstance(found, SetPredictions)
    assert torch.equal(found.ablated, given.ablated)
    assert (found.sets, found.mode, found.method) == (given.sets, given.mode, given.method)
    by_mode = {
        "mean": HeadPredictions(torch.rand(2, 1), torch.rand(3, 2, 1), *[np.arange(3)] * 2, "mean", "hook")
    }
    assert chapter.keep("by_mode", lambda: by_mode)["mean"].layers.tolist() == [0, 1, 2]
    assert chapter.keep("interval", lambda: Interval(0.5, float("nan"), 1.0)).value == 0.5


def test_a_dataclass_may_hold_tables_and_dicts(chapter: Chapter) -> None:
    table = pd.DataFrame({"region": ["chirp"], "share": [0.25]}, index=pd.Index([7], name="row"))
    given = AttentionStatistics(
        regions=table, heads=table, mean_weights=np.ones(2), replicates={"share": np.zeros((1, 2))},
        images=3, prefix=1, grid=(16, 16), profiles=np.ones((2, 2)), names=("chirp", "title"),
    )  # fmt: skip
    found = chapter.keep("statistics", lambda: given)
    pd.testing.assert_frame_equal(found.regions, table)
    assert found.grid == (16, 16)
    assert found.names == given.names
    assert found.replicates["share"].shape == (1, 2)


@pytest.mark.parametrize("value", [{"r": 0.5, "n": [1, 2]}, "text", 3, [], {}, None])
def test_plain_values_are_json(chapter: Chapter, value: Any) -> None:
    assert chapter.keep("plain", lambda: value) == value
    assert json.loads((chapter.folder / "plain.json").read_text()) == value


def test_numbers_beside_plain_values_are_json_too(chapter: Chapter) -> None:
    found = chapter.keep(
        "scores", lambda: {"r": np.float32(0.5), "gap": float("nan"), "n": torch.tensor([1, 2])}
    )
    assert found == {"r": 0.5, "gap": None, "n": [1, 2]}


def test_the_same_values_are_the_same_bytes(chapter: Chapter) -> None:
    given = {**{str(number): np.ones(number) for number in range(9)}, "tensor": torch.ones(2)}
    first = kept.save(chapter.folder, "first", given).read_bytes()
    assert kept.save(chapter.folder, "second", given).read_bytes() == first


def test_a_name_serves_once(chapter: Chapter) -> None:
    chapter.keep("effects", lambda: 1)
    with pytest.raises(RunError, match="keeps 'effects' already"):
        chapter.keep("effects", lambda: 2)
    with pytest.raises(RunError, match="keeps 'effects' already"):
        chapter.save_table(pd.DataFrame({"a": [1]}), "effects")
    chapter.save_json(1, "numbers")
    with pytest.raises(RunError, match=r"saved numbers\.json already"):
        chapter.keep("numbers", lambda: pytest.fail("computed although its name is taken"))


def test_a_cell_that_is_run_again_may_keep_its_name(
    chapter: Chapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = iter([("a", 1), ("a", 1), ("a", 2), ("b", 3)])
    monkeypatch.setattr("vitmech_utils.runs._cell", lambda: next(cells))
    chapter.keep("effects", lambda: 1)
    with pytest.raises(RunError, match="already"):  # twice in one cell
        chapter.keep("effects", lambda: 2)
    assert chapter.keep("effects", lambda: {"maps": np.ones(1)})["maps"] == 1
    assert not (chapter.folder / "effects.json").exists()
    with pytest.raises(RunError, match="already"):
        chapter.keep("effects", lambda: 4)


def test_a_failed_computation_takes_no_name(chapter: Chapter) -> None:
    with pytest.raises(ZeroDivisionError):
        chapter.keep("effects", lambda: 1 / 0)
    assert chapter.keep("effects", lambda: 1) == 1


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (np.array(["a"]), "array of <U1"),
        (np.array([object()]), "array of object"),
        ({"maps": predictions(), "call": [np.ones(1), "x"], "f": print}, "builtin_function_or_method"),
        ({1, 2}, "set"),
        (print, "builtin_function_or_method"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_leaves_nothing(chapter: Chapter, value: Any, error: str) -> None:
    with pytest.raises(TypeError, match=error):
        chapter.keep("odd", lambda: value)
    assert list(chapter.folder.iterdir()) == []


@pytest.mark.parametrize("name", ["", "../out", "a/b", ".hidden"])
def test_a_name_is_a_plain_file_name(chapter: Chapter, name: str) -> None:
    with pytest.raises(ValueError, match="expected letters"):
        chapter.keep(name, lambda: 1)


def test_an_index_that_would_be_lost_is_refused(chapter: Chapter) -> None:
    with pytest.raises(ValueError, match="reset_index"):
        chapter.keep("counts", lambda: pd.DataFrame({"a": [1]}, index=["x"]))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"class": "os.path.Popen", "fields": {}}, "no class of vitmech_utils"),
        ({"class": "vitmech_utils.runs.kept.json", "fields": {}}, "no dataclass"),
        ({"class": "vitmech_utils.statistics.Nothing", "fields": {}}, "Nothing"),
        ({"class": "vitmech_utils.statistics.Interval", "fields": {"value": 1.0}}, "has the fields"),
        (
            {"class": "vitmech_utils.statistics.Interval", "fields": {"value": 1.0, "low": "0", "high": 2.0}},
            r"Interval\.low is a str",
        ),
        ({"tensor": "nowhere"}, "nowhere"),
        ({"a": 1, "b": 2}, "unpack"),
        ([], "not as it was kept"),
    ],
)
def test_a_file_that_was_not_kept_here_is_not_believed(chapter: Chapter, tree: Any, message: str) -> None:
    path = chapter.folder / "odd.safetensors"
    metadata = {"vitmech": json.dumps(tree)} if tree != [] else {}
    save_file({"x": torch.ones(1)}, path, metadata=metadata)
    with pytest.raises(RunError, match=message):
        kept.load(path)


def test_lazy_computes_once_and_not_before_it_is_asked(chapter: Chapter) -> None:
    calls = []
    model = chapter.lazy(lambda: calls.append(1) or "model")
    assert calls == []
    assert model() == model() == "model"
    assert calls == [1]
