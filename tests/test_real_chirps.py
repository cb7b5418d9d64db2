"""Real chirps: planted heads and exchanged boxes, known scores and orders, folds that leak refused."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save_file

from vitmech_utils.data.chirp_dataset import standardize, unstandardize
from vitmech_utils.data.regions import REGIONS
from vitmech_utils.heads.attention import ByImage
from vitmech_utils.model.backbones import tiny
from vitmech_utils.model.finetune import Recipe
from vitmech_utils.model.lora import AdapterError
from vitmech_utils.statistics import Count
from vitmech_utils.studies.recordings.boxed import (
    OutOfFold,
    RealShifts,
    box_looks,
    fold_scores,
    looks_at_boxes,
    orders,
    other_recordings,
    over_recordings,
    readings,
    shared_order,
)
from vitmech_utils.studies.recordings.folds import (
    ANSWERS,
    RealImages,
    Split,
    on_own_axes,
    on_recipe_axes,
    probe,
    read,
    read_folds,
    split,
    train_fold,
)

CHIRP, BACKGROUND = REGIONS.index("chirp"), REGIONS.index("plot background")
RNG = np.random.default_rng(0)


def images(recordings: int = 12, each: int = 2, size: int = 224) -> RealImages:
    """Pictures whose box is one patch of 14 pixels, another one in every recording."""
    count = recordings * each
    regions = torch.full((count, size, size), BACKGROUND, dtype=torch.uint8)
    for place in range(count):
        corner = 14 * (place // each)
        regions[place, corner : corner + 14, 28:42] = CHIRP
    truth = np.column_stack(
        [RNG.uniform(0, 45, count), RNG.uniform(1, 20, count), RNG.uniform(25, 60, count)]
    )
    labels = torch.from_numpy(standardize(on_recipe_axes(truth)).astype(np.float32))
    names = tuple(f"{place // each}_ch{place % each}" for place in range(count))
    return RealImages(
        torch.from_numpy(RNG.random((count, 3, size, size), dtype=np.float32)),
        regions,
        labels,
        names,
        tuple(str(place // each) for place in range(count)),
    )


class TestLooks:
    def test_recordings_change_places_as_wholes_and_none_keeps_its_own(self) -> None:
        names = np.array(["a", "a", "b", "c", "c", "c"])
        found = other_recordings(list(names), 50)
        assert (names[found] != names).all()
        for row in names[found]:
            assert all(len(set(row[names == one])) == 1 for one in "abc")
            assert len({row[0], row[2], row[3]}) == 3
        with pytest.raises(ValueError, match="all pictures are of recording a"):
            other_recordings(["a", "a"], 3)

    def test_a_head_on_the_boxes_a_head_on_one_place_and_an_even_look(self) -> None:
        some = images()
        patches = 256
        maps = np.full((len(some), 1, 3, patches), 1 / patches)
        for place in range(len(some)):
            maps[place, 0, 0] = 0
            maps[place, 0, 0, 16 * (place // 2) + 2] = 1  # the box's own patch
            maps[place, 0, 1] = 0
            maps[place, 0, 1, np.arange(12) * 16 + 2] = 1 / 12  # wherever boxes lie
        table = box_looks(ByImage(maps, np.zeros((len(some), 3)), REGIONS), some, draws=99).set_index("head")
        assert table["lift"].tolist() == pytest.approx([patches, patches / 12, 1])
        assert table["others"].tolist() == pytest.approx([0, patches / 12, 1])
        assert table["p"].tolist() == pytest.approx([0.01, 1, 1])
        assert table.loc[0, ["recordings", "pictures"]].tolist() == [12, 24]
        looked = looks_at_boxes(table.reset_index(), [(0, 0), (0, 1), (0, 2)])
        assert looked == Count(1, 1, 1, 3)
        assert looks_at_boxes(table.reset_index(), []) == Count(0, 0, 0, 0)

    def test_heads_that_may_look_at_the_boxes_are_counted_apart(self) -> None:
        table = pd.DataFrame(
            {
                "layer": 0,
                "head": range(4),
                "lift": [2.0, 1.2, 1.2, 0.5],
                "low": [1.5, 0.9, 0.9, 0.3],
                "high": [3.0, 1.5, 1.5, 0.8],
                "others": [1.0, 0.9, 1.1, 0.4],
                "p": [0.001, 0.04, 0.3, 0.01],
                "q": [0.004, 0.08, 0.3, 0.02],
            }
        )
        assert looks_at_boxes(table, [(0, head) for head in range(4)]) == Count(2, 1, 3, 4)


class TestReadings:
    def test_axes_are_those_of_the_recipe_at_the_same_place(self) -> None:
        own = np.array([[30.0, 1.0, 60.0], [10.0, 30.5, 30.5]])
        assert on_recipe_axes(own).tolist() == [[30.0, 0.0, 100.0], [10.0, 50.0, 50.0]]
        assert on_own_axes(on_recipe_axes(own)) == pytest.approx(own)

    def test_a_model_that_reads_places_and_one_that_reads_ticks(self) -> None:
        some = images()
        places = some.labels.numpy()
        falling = standardize(unstandardize(places)[:, [0, 2, 1]]).astype(
            np.float32
        )  # from the upper frequency
        truth = np.column_stack([RNG.uniform(0, 45, 24), np.full(24, 20.0), np.full(24, 40.0)])
        level = RealImages(
            some.pixel_values,
            some.regions,
            torch.from_numpy(standardize(on_recipe_axes(truth)).astype(np.float32)),
            some.names,
            some.recordings,
        )
        ticks = standardize(truth).astype(np.float32)
        start = readings({"places": places}, some)
        assert start["correlation"].tolist() == pytest.approx([1, 1, 1])
        assert start["rmse"].max() < 1e-4
        assert readings({"falling": falling}, some)["rmse"].max() < 1e-4
        found = readings({"ticks": ticks}, level).set_index("target")
        assert found.loc[["start_freq", "end_freq"], "rmse_ticks"].tolist() == pytest.approx([0, 0], abs=1e-4)
        assert found.loc["start_freq", "rmse"] == pytest.approx(20 - (1 + 0.59 * 20), abs=1e-3)

    def test_whole_recordings_are_drawn(self) -> None:
        names = ["a", "a", "b"]
        counts = over_recordings(lambda places: np.bincount(places, minlength=3).astype(float), names, 40)
        assert (counts[:, 0] == counts[:, 1]).all()
        assert (counts[:, 0] + counts[:, 2] == 2).all()


class TestFolds:
    def test_every_picture_is_tested_once_and_no_recording_twice_used(self) -> None:
        names = [str(number % 17) for number in range(60)]
        parts = [split(names, fold) for fold in range(5)]
        assert sorted(np.concatenate([part.test for part in parts]).tolist()) == list(range(60))
        for part in parts:
            groups = [{names[at] for at in places} for places in (part.train, part.chosen_by, part.test)]
            assert all(groups)
            assert not groups[0] & groups[1]
            assert not (groups[0] | groups[1]) & groups[2]
        with pytest.raises(ValueError, match="fold is 5"):
            split(names, 5)

    def test_the_probe_finds_what_is_linear(self) -> None:
        features = RNG.normal(size=(60, 4))
        weights = RNG.normal(size=(3, 4))
        labels = features @ weights.T + [1.0, 2.0, 3.0]
        parts = Split(np.arange(40), np.arange(40, 50), np.arange(50, 60))
        found, bias = probe(features, labels, parts)
        assert found == pytest.approx(weights, abs=1e-2)
        assert bias == pytest.approx([1.0, 2.0, 3.0], abs=1e-2)

    def test_gains_of_a_perfect_model_and_of_the_mean(self) -> None:
        some = images()
        truth = some.labels.numpy().astype(float)
        mean = np.broadcast_to(truth.mean(0), truth.shape).copy()
        table = fold_scores(OutOfFold(truth.copy(), mean.copy(), mean), some).set_index(["model", "target"])
        assert table.loc["fine-tuned", "gain"].tolist() == pytest.approx([1, 1, 1])
        assert table.loc["linear probe", "gain"].tolist() == pytest.approx([0, 0, 0])
        assert table.loc["fine-tuned less probe", "low"].tolist() == pytest.approx([1, 1, 1])
        assert table.loc["linear probe", "rmse"].iloc[0] == pytest.approx(truth[:, 0].std() * 12.99, rel=1e-2)

    def test_a_fold_answers_in_the_recipes_units(self, tmp_path: Path) -> None:
        some = images(recordings=6)
        recipe = Recipe(steps=1, batch_size=2, every=1, warmup_steps=0, precision="float32")
        done = train_fold(some, 0, recipe, tmp_path, tiny(0, 2, 2))
        assert done.answers == pytest.approx(read(done.regressor, some.at(done.parts.test)))
        train = some.at(done.parts.train).labels.numpy()
        assert np.abs(done.answers - train.mean(0)).max() < 4 * train.std(0).max()


class TestKeptFolds:
    def folds(self, place: Path, **changes: object) -> dict[str, str]:
        recordings = {f"{name}{channel}": name for name in "abcd" for channel in (1, 2)}
        for number, own in enumerate(("ab", "cd")):
            folder = place / f"fold-{number}"
            folder.mkdir(parents=True)
            tested = [name for name, one in recordings.items() if one in own]
            others = [one for one in "abcd" if one not in own]
            record = {
                "tested": tested,
                "trained_on": others[:1],
                "chosen_by": others[1:],
                "wall_seconds": 1.0,
                "steps": 2,
            }
            record |= {key: value for key, value in changes.items() if number == 1}
            (folder / "training.json").write_text(json.dumps(record))
            save_file({"answers": np.zeros((len(record["tested"]), 3), np.float32)}, folder / ANSWERS)
        return recordings

    def test_whole_ones_are_read(self, tmp_path: Path) -> None:
        found = read_folds(tmp_path, self.folds(tmp_path), 2)
        assert [sorted(fold.answers) for fold in found] == [
            ["a1", "a2", "b1", "b2"],
            ["c1", "c2", "d1", "d2"],
        ]
        assert found[0].trained_on == {"c"}

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"trained_on": ["c"]}, "fold-1: recording c is in its test and in its training"),
            (
                {"tested": ["b2", "c1", "c2", "d1", "d2"], "trained_on": ["a"], "chosen_by": []},
                "b2 was tested in fold 0",
            ),
            ({"tested": ["c1", "c2", "d1"]}, "d2 was tested in no fold"),
            ({"tested": ["c1", "c2", "d1", "e1"]}, "tested on e1, which is not among"),
            ({"tested": 3}, "damaged|TypeError|object of type"),
        ],
    )
    def test_folds_that_share_a_recording_or_leave_one_out_are_refused(
        self, tmp_path: Path, changes: dict, told: str
    ) -> None:
        if changes.get("tested") == 3:
            recordings = self.folds(tmp_path)
            path = tmp_path / "fold-1" / "training.json"
            path.write_text(path.read_text().replace('"wall_seconds": 1.0', '"wall_seconds": "long"'))
        else:
            recordings = self.folds(tmp_path, **changes)
        with pytest.raises(AdapterError, match=told):
            read_folds(tmp_path, recordings, 2)

    def test_a_recording_in_two_folds_is_refused_by_name(self, tmp_path: Path) -> None:
        recordings = self.folds(tmp_path) | {"b2": "c"}
        with pytest.raises(AdapterError, match=r"recording c is in its test|c in 0, 1"):
            read_folds(tmp_path, recordings, 2)

    def test_missing_and_damaged_ones_are_refused_by_name(self, tmp_path: Path) -> None:
        recordings = self.folds(tmp_path)
        with pytest.raises(AdapterError, match=r"fold-2: no fold, it lacks answers"):
            read_folds(tmp_path, recordings, 3)
        (tmp_path / "fold-1" / ANSWERS).write_bytes(b"")
        with pytest.raises(AdapterError, match="fold-1: damaged fold"):
            read_folds(tmp_path, recordings, 2)


class TestOrders:
    def test_the_same_order_is_shared_and_the_reverse_is_not(self) -> None:
        order = np.arange(12.0)[:, None] + RNG.normal(scale=0.01, size=(12, 20))
        fold = np.repeat(np.arange(5), 4)
        table = orders(RealShifts(order, -order, order.copy(), RNG.normal(size=(12, 20)), fold), heads=3)
        rows = table.set_index("compared")
        assert rows["between"].iloc[0] == pytest.approx(1)
        assert rows["folds"].iloc[0] == pytest.approx(1)
        assert rows.loc["painted chirps' model on real ones", "between"] == pytest.approx(-1)
        assert shared_order(table).value == pytest.approx(1)
        assert 0.8 < rows["depth"].iloc[0] < 1  # layers follow one another in this order
        assert rows["images"].tolist() == [20] * 3
