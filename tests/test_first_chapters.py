"""What chapters 01 to 04 measure: known answers on made-up grids, tables and small models."""

import numpy as np
import pandas as pd
import pytest
import torch
from heads_zoo import pictures, zoo

from vitmech_utils.data.dataset import ChirpDataset, held_out
from vitmech_utils.data.regions import CHIRP, REGIONS
from vitmech_utils.heads.ablation import effects, predict_without_heads
from vitmech_utils.heads.attention import attention_maps
from vitmech_utils.heads.first_order import first_order
from vitmech_utils.heads.hooks import change_heads
from vitmech_utils.model.finetune import Training
from vitmech_utils.model.regressor import ChirpRegressor, read_training
from vitmech_utils.model.scores import kept_reading
from vitmech_utils.profiles import load_profile
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.ablation import measure as ablation
from vitmech_utils.studies.ablation import plots as ablation_plots
from vitmech_utils.studies.attention import measure as attention
from vitmech_utils.studies.fine_tuning import measure as fine_tuning
from vitmech_utils.studies.fine_tuning import plots as training_plots
from vitmech_utils.studies.images import measure as images
from vitmech_utils.studies.images import plots as image_plots
from vitmech_utils.studies.trainings import measure as trainings


class TestImages:
    def test_the_inside_of_the_plot_keeps_its_distance(self) -> None:
        regions = np.full((9, 11), REGIONS.index("margin"), dtype=np.uint8)
        regions[1:8, 1:10] = REGIONS.index("plot background")
        regions[4, 4] = REGIONS.index("chirp")
        for margin, pixels in ((0, 63), (1, 35), (2, 15)):
            assert images.inside_plot(regions, margin).sum() == pixels

    def test_area_shares_add_up_and_lie_between_their_bounds(self) -> None:
        table = images.area_shares(ChirpDataset(3, seed=0, split="held-out"), 3)
        assert table["region"].tolist() == list(REGIONS)
        assert table["area share"].sum() == pytest.approx(1)
        assert (table["least"] <= table["area share"]).all()
        assert (table["area share"] <= table["most"]).all()

    def test_clipped_end_frequencies_are_counted(self) -> None:
        labels = np.array([[1.0, 2.0, 0.0], [1.0, 2.0, 50.0], [1.0, 2.0, 100.0], [1.0, 2.0, 99.9]])
        assert images.clipped(labels) == 0.5

    def test_the_longer_title_has_more_ink(self) -> None:
        dataset = ChirpDataset(300, seed=0, split="held-out")
        kinds = {dataset.chirp(index).sweep: index for index in range(99, 140)}
        linear, exponential = images.title_lengths(dataset, [kinds["linear"], kinds["exponential"]])
        assert linear < exponential

    def test_the_threshold_lies_between_noise_and_ridge(self) -> None:
        check = images.threshold_check(CHIRP)
        assert check.noise < CHIRP < check.peak
        assert check.rows == 5

    def test_without_a_benchmark_the_page_says_how_to_make_one(self, tmp_path) -> None:
        recorded = images.recorded_speed(tmp_path)
        assert recorded == {}
        assert "benchmarks/images.py" in image_plots.recorded_speeds(recorded)
        seconds = {"published, PNG": 0.4, "draw": 0.002, "published, no PNG": 0.1}
        told = image_plots.recorded_speeds({name: {"seconds": value} for name, value in seconds.items()})
        assert "a factor of **200**" in told
        assert told.endswith("it is 50.")


class TestFineTuning:
    def test_parameters_are_counted_by_what_trains(self) -> None:
        counts = fine_tuning.parameter_counts(ChirpRegressor.tiny(layers=2, heads=2))
        assert counts["LoRA adapters"] == 0
        assert counts["regression head"] == sum(
            p.numel() for p in ChirpRegressor.tiny(layers=2, heads=2).head.parameters()
        )

    @pytest.mark.parametrize(
        ("low", "high", "says"),
        [(0.9841, 0.99, "reaches"), (0.9, 0.984, "stays below"), (0.98, 0.99, "cannot be distinguished")],
    )
    def test_the_start_time_is_held_against_the_study(self, low: float, high: float, says: str) -> None:
        assert fine_tuning.against_study({"r": 0.985, "low": low, "high": high}).startswith(says)

    def test_trainings_are_saved_by_seed_unless_they_are_a_rehearsal(self, tmp_path, monkeypatch) -> None:
        monkeypatch.setattr(ChirpRegressor, "save", _save_record)
        model = ChirpRegressor.tiny(layers=1, heads=1)
        trained = {
            seed: (
                Training(model, pd.DataFrame({"step": [1]}), 1.0),
                {"seed": seed},
                np.full((2, 2, 3), float(seed)),
            )
            for seed in (3, 5)
        }
        assert fine_tuning.save_trainings(trained, None) == [{"seed": 3}, {"seed": 5}]
        assert not list(tmp_path.iterdir())
        fine_tuning.save_trainings(trained, tmp_path)
        assert read_training(tmp_path / "adapter") == {"seed": 3}
        assert read_training(tmp_path / "adapter-seed-5") == {"seed": 5}
        assert (kept_reading(tmp_path / "adapter-seed-5")["predictions"] == 5).all()

    def test_a_constant_shifts_every_patch_alike(self) -> None:
        pixels = held_out(1)["pixel_values"]
        model = ChirpRegressor.tiny(layers=1, heads=1)
        assert fine_tuning.shifts_alike(model, pixels)

    def test_a_rehearsal_is_told_from_the_training_that_is_shown(self) -> None:
        run = {"steps": 4, "batch_size": 8, "wall_seconds": 30.0, "device": "cpu", "profile": "quick"}
        assert training_plots.trained(run) == "4 steps of 8 images took 30 s on CPU."
        shown = {**run, "profile": "laptop", "steps": 640, "restart": 400, "wall_seconds": 120.0}
        told = training_plots.trained(run, shown)
        assert "a restart after 400 of them, in 2 minutes." in told
        assert "restart" not in training_plots.trained(run, {**shown, "restart": 0})

    def test_the_layer_moved_most_is_named_for_each_projection(self) -> None:
        moved = {
            ("query", 0): (0.3, 0.3),
            ("query", 1): (0.1, 0.1),
            ("value", 0): (0.1, 0.1),
            ("value", 1): (0.1, 0.5),
        }
        norms = pd.DataFrame(
            [
                (layer, head, name, value)
                for (name, layer), row in moved.items()
                for head, value in enumerate(row)
            ],
            columns=["layer", "head", "projection", "relative"],
        )
        told = training_plots.moved_most(norms)
        assert "the query weights were moved most in layer 1 (30.0%)" in told
        assert "the value weights were moved most in layer 2 (30.0%)" in told
        assert "layer 2, head 2, whose value weights moved by 50.0%" in told
        assert "moved by 10.0% instead of 30.0%" in told


def _save_record(model, folder, training=None):
    folder.mkdir()
    (folder / "training.json").write_text(pd.io.json.ujson_dumps(training))


class TestAttention:
    def test_correlations_of_maps_know_their_extremes(self) -> None:
        maps = torch.rand(2, 3, 5, 4, 4, generator=torch.Generator().manual_seed(0))
        np.testing.assert_allclose(attention.map_correlation(maps, 2 * maps + 1), 1, rtol=1e-5)
        np.testing.assert_allclose(attention.map_correlation(maps, -maps), -1, rtol=1e-5)

    def test_the_library_s_own_attentions_are_told_from_others(self) -> None:
        model = ChirpRegressor.tiny(layers=2, heads=3)
        model.backbone.set_attn_implementation("eager")
        pixels = held_out(2)["pixel_values"]
        maps = attention_maps(model, pixels)
        assert attention.against_library(model, pixels, maps) == {"same": True, "sums": True}
        assert attention.against_library(model, pixels, maps.flip(-1)) == {"same": False, "sums": True}

    def test_other_queries_are_compared_layer_by_layer(self) -> None:
        model, pixels = ChirpRegressor.tiny(layers=2, heads=3), held_out(2)["pixel_values"]
        table = attention.query_agreement(model, pixels, bootstrap=100)
        assert table["layer"].tolist() == [0, 1, 0, 1]
        assert (table["images"] == 2).all()
        assert table[["low", "high"]].abs().max(axis=None) <= 1
        assert (table["low"] <= table["correlation"]).all()
        assert (table["correlation"] <= table["high"]).all()
        corner = attention_maps(model, pixels, 0)
        first = [
            np.corrcoef(attention_maps(model, pixels)[i, 0, h].flatten(), corner[i, 0, h].flatten())[0, 1]
            for i in range(2)
            for h in range(3)
        ]
        row = table[(table["query"] == "top-left corner patch") & (table["layer"] == 0)].iloc[0]
        assert row["correlation"] == pytest.approx(np.mean(first), rel=1e-4)

    def test_rows_are_those_of_the_cls_query_unless_asked_otherwise(self) -> None:
        rows = [
            {"query": q, "weighting": w, "sinks": s, "region": r}
            for q in ("cls", "patches")
            for w in ("raw", "value-norm")
            for s in ("kept", "removed")
            for r in ("chirp", "title")
        ]
        table = pd.DataFrame(rows)
        assert attention.rows_of(table, region="title").index.tolist() == [1]
        assert attention.rows_of(table, region="chirp", query="patches", sinks="removed").index.tolist() == [
            10
        ]

    def test_the_lift_of_an_even_map_is_one(self) -> None:
        coverage = torch.rand(4, 4, generator=torch.Generator().manual_seed(1))
        assert attention.rollout_lift(torch.full((4, 4), 0.3), coverage) == pytest.approx(1)
        aimed = (coverage == coverage.max()).float()
        assert attention.rollout_lift(aimed, coverage) == pytest.approx(
            float(coverage.max() / coverage.mean())
        )

    def test_the_picker_s_maps_have_twins_shares_and_queries(self) -> None:
        model = ChirpRegressor.tiny(layers=2, heads=3)
        kept = attention.picker_maps({"one": model, "two": model}, held_out(2), held_out(2, "bare"))
        grid = kept["maps"].shape[-2:]
        assert kept["maps"].shape == kept["twin_maps"].shape == (2, 2, 2, 3, *grid)
        assert kept["query_maps"].shape == (2, 3, (grid[0] + 1) // 2, (grid[1] + 1) // 2, *grid)
        np.testing.assert_allclose(kept["shares"].sum(-1), 1, atol=5e-3)


class TestAblation:
    @pytest.fixture
    def material(self) -> ablation.Material:
        pixels, labels = pictures(5)
        return ablation.Material(pixels, labels, pixels.flip(0), pixels[:3] + 0.1)

    def test_the_modes_asked_for_are_swept_on_all_images(self, material) -> None:
        assert ablation.main_modes(["mean"]) == (
            ["mean"], ["zero", "resample", "noise", "optimal", "qkv-weights"],
        )  # fmt: skip
        assert ablation.main_modes(["resample"])[0] == ["mean"]

    def test_with_every_image_exact_the_tables_are_those_of_plain_sweeps(self) -> None:
        model, count = ChirpRegressor.tiny(layers=6, heads=2), 5
        found = ablation.estimate_modes(model, count, {"zero": count})["zero"]
        data = held_out(count)
        swept = predict_without_heads(model, data["pixel_values"], "zero")
        labels, whole = data["labels"].double(), np.full((9, 3), 2.0)
        growth = ((swept.ablated - labels) ** 2 - (swept.baseline - labels) ** 2).numpy()
        moved = ((swept.ablated - swept.baseline) ** 2).numpy()
        table = ablation.sweep_table({"zero": found}, whole, limit=0.1)
        assert table["exact_images"].tolist() == [count] * 12
        np.testing.assert_allclose(table["effect"], 50 * growth.mean((1, 2)), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(table["shift"], 50 * moved.mean((1, 2)), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(
            table["effect_end_freq"], 50 * growth[..., 2].mean(1), rtol=1e-4, atol=1e-6
        )
        layers = ablation.layer_means({"zero": found}, whole)
        np.testing.assert_allclose(
            layers["shift"], 50 * moved.mean((1, 2)).reshape(6, 2).mean(1), rtol=1e-4, atol=1e-6
        )
        compared = ablation.intervals(ablation.layer_comparison({"zero": found}, whole))["zero"]
        early, late = moved[:6].mean(), moved[10:].mean()
        assert compared["early_shift"].value == pytest.approx(50 * early, rel=1e-4)
        assert compared["ratio_shift"].value == pytest.approx(late / early, rel=1e-4)
        assert compared["early_shift"].low < compared["early_shift"].value < compared["early_shift"].high

    def test_few_exact_images_put_many_right(self) -> None:
        model = ChirpRegressor.tiny(layers=2, heads=3)
        plan = load_profile("quick", {"ablation.exact_images": 3, "ablation.other_exact_images": 2}).ablation
        constants = ablation.fitted_constants(model, 4, reference=2)
        found = ablation.estimate_modes(model, 4, ablation.exact_images(plan), constants=constants)
        assert {mode: (one.images, one.exact.images) for mode, one in found.items()} == {
            "mean": (4, 3), "zero": (4, 2), "resample": (4, 2), "noise": (4, 2), "optimal": (4, 2),
            "qkv-weights": (4, 2),
        }  # fmt: skip
        agree = ablation.mode_agreement(found, draws=50)
        assert agree["quantity"].value_counts().to_dict() == {"effect": 15, "shift": 15}
        assert agree["images"].eq(4).all()
        costs = ablation.precision_and_cost(found, np.ones((9, 3)), hooks=1e3)
        assert (costs["cheaper_hooks"] / costs["cheaper"]).to_numpy() == pytest.approx(
            1e3 / costs["exact_seconds"].to_numpy()
        )
        assert (costs[["cheap_seconds", "exact_seconds", "half_width"]] > 0).all(axis=None)

    def test_modes_that_take_fewer_layers_keep_those_that_the_claims_compare(self) -> None:
        model = ChirpRegressor.tiny(layers=7, heads=2)
        found = ablation.estimate_modes(model, 4, {"mean": 2, "zero": 2}, every={"mean": 1, "zero": 3})
        assert list(found) == ["mean", "zero"]
        assert len(found["mean"].cheap.sets) == 14
        places = [layer * 2 + head for layer in (0, 3, 5, 6) for head in (0, 1)]
        assert found["zero"].cheap.sets == tuple(found["mean"].cheap.sets[place] for place in places)
        whole = ablation.estimate_modes(model, 4, {"zero": 2})["zero"]
        for what in ("effect", "shift"):
            np.testing.assert_allclose(
                getattr(found["zero"].cheap, what), getattr(whole.cheap, what)[places], rtol=1e-4, atol=1e-6
            )
        agree = ablation.mode_agreement(found, draws=50).set_index("quantity")
        means = [one.values("effect").mean(1) for one in (found["mean"], found["zero"])]
        ranks = pd.DataFrame({"mean": means[0][places], "zero": means[1]}).corr("spearman")
        assert agree.loc["effect", "correlation"] == pytest.approx(ranks.loc["mean", "zero"])
        early = ablation.intervals(ablation.layer_comparison(found, np.ones((9, 3))))["zero"]["early"]
        assert early.value == pytest.approx(100 * means[1][:2].mean(), rel=1e-4)
        table = ablation.approximations(model, {"zero": found["zero"]}, np.ones((9, 3)))
        assert list(zip(table["layer"], table["head"], strict=True)) == [divmod(place, 2) for place in places]

    def test_approximations_are_of_the_images_that_were_ablated_exactly(self) -> None:
        model = ChirpRegressor.tiny(layers=1, heads=3)
        found = ablation.estimate_modes(model, 6, {"zero": 4})["zero"]
        chosen = found.selection.images
        data = ablation.held_out_figures(chosen)
        held_out = np.full((9, 3), 5.0)
        table = ablation.approximations(model, {"zero": found}, held_out)
        exact = effects(predict_without_heads(model, data["pixel_values"], "zero"), data["labels"].double())
        slope = first_order(model, data["pixel_values"], data["labels"].double(), "zero")
        own = exact["baseline_mse"] / 5
        np.testing.assert_allclose(table["exact"], exact["effect"] * own, rtol=1e-4)
        np.testing.assert_allclose(table["slope"], slope["effect"] * own, rtol=1e-4)
        for row in table.itertuples():
            pair = (
                changed.of("all").effect[row.head, :, 0] for changed in (found.cheap.on(chosen), found.exact)
            )
            assert row.by_image == pytest.approx(np.corrcoef(*pair)[0, 1], rel=1e-5)
        ranks = ablation.approximation_ranks(table, draws=20)
        assert ranks["measure"].tolist() == ["linearized", "slope"]
        assert ranks["correlation"].between(-1, 1).all()

    def test_intervals_survive_their_table(self) -> None:
        rows = [
            ("mean", "early", 1.0, 0.5, 2.0),
            ("mean", "ratio", 3.0, 1.0, 4.0),
            ("zero", "early", 5.0, 4.0, 6.0),
        ]
        table = pd.DataFrame(rows, columns=["mode", "quantity", "value", "low", "high"])
        assert ablation.intervals(table) == {
            "mean": {"early": Interval(1.0, 0.5, 2.0), "ratio": Interval(3.0, 1.0, 4.0)},
            "zero": {"early": Interval(5.0, 4.0, 6.0)},
        }

    def test_joint_effects_are_those_of_hooks_by_hand(self, material) -> None:
        model = zoo("vit")
        rows = pd.DataFrame({"layer": [0, 2], "head": [1, 0], "effect": [3.0, 4.0]})
        held_out = np.full((9, 3), 5.0)
        found = ablation.joint_effects(model, material, {"both": rows, "first": rows[:1]}, held_out)
        with torch.no_grad():
            baseline = (model(material.pixels) - material.labels).square().mean()
            with change_heads(model, {(0, 1): 0.0, (2, 0): 0.0}):
                ablated = (model(material.pixels) - material.labels).square().mean()
        assert found["effect"][0] == pytest.approx(float(100 * (ablated - baseline) / 5))
        assert found["images"].eq(len(material.pixels)).all()
        assert found["sum_of_single"].tolist() == [7.0, 3.0]

    def test_a_tenth_of_the_heads_is_compared_with_random_ones(self) -> None:
        single = pd.DataFrame({"layer": np.arange(30) // 6, "head": np.arange(30) % 6})
        sets = ablation.compared_sets(single.assign(effect=np.arange(30.0)), draws=2)
        assert list(sets) == ["top 3", "bottom 3", "random 1", "random 2"]
        assert sets["top 3"]["effect"].tolist() == [29.0, 28.0, 27.0]
        assert ablation.heads_of(sets["bottom 3"]) == [(0, 2), (0, 1), (0, 0)]

    def test_another_training_of_the_same_weights_is_estimated_alike(self) -> None:
        model = ChirpRegressor.tiny(layers=2, heads=3)
        ours = ablation.estimate_modes(model, 4, {"zero": 4})
        plan = load_profile("quick").trainings.model_copy(
            update={"images": 4, "exact_images": 4, "modes": ["zero"]}
        )
        again = ablation.estimate_again({"seed 7": lambda: model}, plan)
        assert ablation.estimate_again({}, plan) == {}
        values = ablation.values_of({"seed 0": ours} | again, "zero")
        for what in ("effect", "shift"):
            np.testing.assert_allclose(values["seed 0"][what], values["seed 7"][what], rtol=1e-5)
        labels = np.arange(12.0).reshape(4, 3)
        reading = {"predictions": labels + ours["zero"].cheap.baseline ** 0.5, "labels": labels}
        swept = ablation.sweep_again(again["seed 7"], reading, draws=100)
        by_hand = 100 * values["seed 7"]["effect"].mean(1) / ours["zero"].cheap.baseline.mean()
        np.testing.assert_allclose(swept["effect"], by_hand, rtol=1e-4)
        assert trainings.joined({"seed 0": swept, "seed 7": swept})["training"].value_counts().tolist() == [
            6,
            6,
        ]

    def test_the_table_beside_the_study_has_two_rows_for_each_mode(self) -> None:
        names = [f"{name}{ends}" for ends in ("", "_shift") for name in ("early", "late", "ratio")]
        found = pd.DataFrame([("zero", name, 1.0, 0.5, 2.0, 1500, 7) for name in names])
        found.columns = ["mode", "quantity", "value", "low", "high", "images", "exact_images"]
        lines = ablation_plots.study_table(found).splitlines()
        assert lines[2] == "| study |  | +0.11 | +0.34 | 3.1 |"
        assert lines[3] == (
            "| zero, effect | 1,500, 7 exactly | +1.00 [+0.50, +2.00] | +1.00 [+0.50, +2.00] | 1.0 [0.5, 2.0] |"
        )
        assert lines[4].startswith("| zero, shift | 1,500, 7 exactly | 1.00 [0.50, 2.00]")
