"""What the studies of chapters 09 to 12 make of measured values: known answers on made-up tables."""

import numpy as np
import pandas as pd
import pytest
import torch
from heads_zoo import pictures
from test_heads_linearized import straight

from vitmech_utils.data.recordings.spectrograms import Axes
from vitmech_utils.data.sweep_labels import TARGETS, TITLES
from vitmech_utils.heads.ablation import predict_without_heads
from vitmech_utils.heads.patching import patch_heads
from vitmech_utils.heads.sets import SetPredictions
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.attacks import figure_changes
from vitmech_utils.studies.attacks import measure as attacks
from vitmech_utils.studies.recordings import measure as recordings
from vitmech_utils.studies.recordings.matched import Picture
from vitmech_utils.studies.task import measure as task
from vitmech_utils.studies.together import measure as together
from vitmech_utils.studies.together import plots as together_plots

LAYERS, HEADS = 3, 2


@pytest.fixture
def classes() -> pd.DataFrame:
    """Three layers of two heads; the last head is about two regions."""
    layer, head = (axis.ravel() for axis in np.indices((LAYERS, HEADS)))
    regions = ["chirp", "", "title", "", "chirp", "chirp + title"]
    kinds = ["monosemantic", "diffuse", "monosemantic", "sink", "monosemantic", "polysemantic"]
    return pd.DataFrame({"layer": layer, "head": head, "class": kinds, "regions": regions, "confidence": 1.0})


def without(sets: list, ablated: list[float], images: int = 4) -> SetPredictions:
    """Predictions whose squared errors, for a truth of 0, are 1 with all heads and 1 + `ablated` without each set."""
    baseline = torch.ones(images, 1, dtype=torch.float64)
    errors = 1 + torch.tensor(ablated, dtype=torch.float64)
    return SetPredictions(
        baseline,
        errors.sqrt()[:, None, None].expand(-1, images, 1),
        tuple(frozenset(heads) for heads in sets),
        "mean",
        "hook",
        "squared error",
    )


class TestTogether:
    def test_a_head_about_two_regions_is_in_both_sets(self, classes):
        kinds = together.named_groups(classes)
        assert kinds["layer"] == {f"layer {n + 1}": [(n, 0), (n, 1)] for n in range(LAYERS)}
        assert kinds["region"] == {
            "about: chirp": [(0, 0), (2, 0), (2, 1)],
            "about: title": [(1, 0), (2, 1)],
        }
        assert kinds["class"]["class: polysemantic"] == [(2, 1)]

    def test_random_sets_are_as_large_as_a_layer(self, classes):
        drawn = together.random_groups(classes, 5, np.random.default_rng(0))
        assert list(drawn) == [f"random {n + 1}" for n in range(5)]
        assert all(len(set(heads)) == HEADS for heads in drawn.values())

    def test_the_excess_is_joint_less_the_sum_by_kind(self, classes):
        heads = together.heads_of(classes)
        kinds = {"layer": {"one": heads[:2]}, "random": {"two": heads[1:3]}}
        single = without([[head] for head in heads], [0.1, 0.2, 0.4, 0, 0, 0])
        joint = without(together.members(kinds), [1.0, 0.6])
        table = together.group_effects(kinds, joint, single, torch.zeros(4, 1), 100)
        assert list(table["kind"]) == ["layer", "random"]
        assert list(table["effect"]) == pytest.approx([100, 60])
        assert list(table["excess"]) == pytest.approx([70, 0], abs=1e-9)
        assert not together.differs(table).any()  # four images leave no small q-value
        sure = table.assign(q_value=0.01)
        assert together.differs(sure).iloc[0]
        assert not together.differs(sure.assign(low_excess=-1.0)).any()
        assert table["rank_p"].tolist() == [0.5, 1.0]  # no random set is as far, and the random set is itself

    def test_losses_serve_as_well_as_predictions(self, classes):
        heads = together.heads_of(classes)
        kinds = {"layer": {"one": heads[:2]}}
        single = without([[head] for head in heads], [0.1, 0.2, 0.4, 0, 0, 0])
        joint = without(together.members(kinds), [1.0])
        truth = torch.zeros(4, 1)
        ours = together.group_effects(kinds, joint.losses(truth), single.losses(truth), None, 100)
        pd.testing.assert_frame_equal(ours, together.group_effects(kinds, joint, single, truth, 100))
        assert np.isnan(ours["rank_p"]).all()  # without random sets there is no test

    def test_shapley_values_and_single_effects_are_of_the_held_out_loss(self, classes):
        heads = [[head] for head in together.heads_of(classes)]
        effects = [0.1, 0.2, 0.4, 0, 0, 0.3]
        charged, single = (
            without(heads, [scale * one for one in effects]).losses(torch.zeros(4, 1)) for scale in (2, 1)
        )
        table = together.shapley_table(charged, single, np.full((9, 1), 4.0), 50)
        np.testing.assert_allclose(table["shapley"], [5, 10, 20, 0, 0, 15], atol=1e-9)
        np.testing.assert_allclose(table["single"], [2.5, 5, 10, 0, 0, 7.5], atol=1e-9)
        np.testing.assert_allclose(table["more"], table["shapley"] - table["single"], atol=1e-9)
        assert (table["low_more"] <= table["more"]).all()
        said = together_plots.shapley_text(table.assign(low_more=[1, 1, 1, -1, -1, 1]))
        assert (
            "clearly underrates 4 heads (95 % intervals would name about 0 of 6 by chance), most L2" in said
        )
        assert "underrates no head" in together_plots.shapley_text(table.assign(low_more=-1.0))

    def test_only_sets_of_as_many_heads_as_the_random_ones_are_ranked_among_them(self, classes):
        heads = together.heads_of(classes)
        kinds = {
            "class": {"three": heads[:3], "two": heads[:2]},
            "random": {"a": heads[1:3], "b": heads[2:4], "c": heads[4:6]},
        }
        single = without([[head] for head in heads], [0.0] * 6)
        table = together.group_effects(
            kinds, without(together.members(kinds), [9, 1, 0, 0, 2]), single, torch.zeros(4, 1), 50
        )
        assert np.isnan(table["rank_p"][0])
        assert table["rank_p"].tolist()[1:] == [0.5, 1.0, 1.0, 0.5]
        assert "| 3 |" in together_plots.groups_table(table[:2])
        assert "nan" not in together_plots.groups_table(table[:2])

    def test_percentages_of_few_images_become_those_of_the_held_out_loss(self):
        model = ChirpRegressor.tiny(seed=0, layers=LAYERS, heads=HEADS).eval()
        pixels, labels = torch.rand(2, 3, 224, 224), torch.rand(2, 3)
        with torch.no_grad():
            own = float((model(pixels).logits.double() - labels.double()).square().mean())
        table = pd.DataFrame({"layer": [1], "effect_total": [10.0], "low_total": [-4.0], "high": [20.0]})
        found = together.of_held_out(table, model, pixels, labels, np.full((7, 3), own / 2))
        np.testing.assert_allclose(found.to_numpy(), [[1, 20, -8, 40]], rtol=1e-5)

    @pytest.mark.parametrize(
        ("images", "told"), [(4, "below 0.125, so"), (64, "1 of 2 pairs interact for sure")]
    )
    def test_a_sign_flip_test_of_few_images_is_no_test(self, images, told):
        compared = pd.DataFrame(
            {
                "layer_a": 0, "head_a": [0, 1], "layer_b": 1, "head_b": 0, "interaction": [5.0, 1.0],
                "low": [4.0, -1.0], "high": [6.0, 3.0], "q_value": [0.01, 0.5], "estimate": [4.0, 2.0],
                "images": images,
            }
        )  # fmt: skip
        assert told in together_plots.pairs_table(compared, compared, {"all": Interval(0.5, 0.1, 0.9)})

    def test_half_of_the_sampled_pairs_are_the_largest(self):
        estimated = pd.DataFrame({"estimate": [0.1, -9.0, 0.2, 8.0, 0.3, 7.0]})
        sample = together.sample_pairs(estimated, 4, np.random.default_rng(0))
        assert set(sample.index[~sample["drawn"]]) == {1, 3}
        assert len(sample) == len(set(sample.index)) == 4

    def test_few_heads_are_enough_where_the_error_stays_below_the_limit(self, classes):
        heads = together.heads_of(classes)
        values = classes[["layer", "head"]].assign(single=range(6), shapley=range(6, 0, -1))
        kept = together.kept_sets(values, heads, 2, np.random.default_rng(0))
        assert kept["single effect", 1] == {(2, 1)}
        assert kept["Shapley value", 1] == {(0, 0)}
        assert {key[1] for key in kept if key[0] == "random"} == set(together.sizes_to_keep(6)[1::2])
        effects = [0.5 if key[0] == "single effect" and key[1] >= 3 else 9.0 for key in kept]
        rest = without([set(heads) - some for some in kept.values()], effects)
        curves = together.kept_effects(kept, rest, torch.zeros(4, 1), np.ones((5, 1)))
        assert together.fewest_enough(curves, 100.0, 6) == {"single effect": 3, "Shapley value": 6}

    def test_the_largest_factor_is_the_first_surprise(self):
        values = pd.DataFrame({"shapley": [200.0, 100.0], "single": [50.0, 50.0], "images": 4})
        columns = {"kind": "layer", "q_value": 0.01, "low_effect": 0.0, "high_effect": 0.0}
        groups = pd.DataFrame(
            {"set": ["layer 1", "layer 2"], "effect": [900.0, 10.0], "sum_of_single": [0.0, 10.0]}
        ).assign(low_excess=[1.0, -1.0], high_excess=[2.0, 1.0], **columns)
        found = together_plots.surprises(values, groups)
        assert list(found.values()) == pytest.approx([np.log(10), np.log(2)])
        assert next(iter(found)).startswith("the heads of layer 1")


class TestAttacks:
    @pytest.fixture
    def clean(self) -> attacks.Clean:
        return attacks.Clean(torch.ones(3, 2, dtype=torch.float64), torch.zeros(3, 2, dtype=torch.float64))

    def test_noise_is_taken_off_an_attack(self, clean):
        errors = {}
        for place, target in enumerate(figure_changes.TARGETS):
            errors[target, 4.0, attacks.ATTACK] = np.full((3, 2), 9.0)
            errors[target, 16.0, attacks.ATTACK] = np.full((3, 2), 3.0 + place)
            errors[target, 16.0, attacks.WORST] = np.full((3, 2), 2.0)
        excess = attacks.beyond_noise(errors, clean, 20)
        assert [found.value for found in excess.values()] == pytest.approx([100 * (n + 1) for n in range(7)])
        assert attacks.most_open(excess)[0] == "frame"

    def test_targets_without_heads_stay_empty(self):
        table = pd.DataFrame({"layer": [0, 2], "head": [1, 0], "target": ["title", "title"]})
        heads = attacks.by_target(table)
        assert heads.pop("title") == [(0, 1), (2, 0)]
        assert not any(heads.values())
        assert set(heads) == set(figure_changes.TARGETS) - {"title"}

    def test_what_heads_carry_is_the_harm_that_goes(self, clean):
        harmed = {"title": np.full((3, 2), 5.0)}
        patched = {
            ("title", attacks.OWN): np.full((3, 2), 2.0),
            ("title", attacks.RANDOM): np.full((3, 2), 4.0),
        }
        table = attacks.carried_table(harmed, patched, {"title": [(0, 0)]}, clean, 20)
        assert list(table["effect"]) == pytest.approx([300, 100])
        assert attacks.carried_beyond(patched, attacks.RANDOM, clean, 20)["title"].value == pytest.approx(200)

    def test_heads_are_ranked_by_what_they_carry(self):
        model, (pixels, labels) = straight("vit"), pictures(5)
        attacked = {"title": pixels + 0.3, "labels": pixels - 0.2}
        heads = {"title": [(0, 0)], "labels": [(1, 0)]}  # single ones: sets of several layers do not add up
        said = predict_without_heads(model, pixels, "zero", layers=[0], heads=[0]).baseline
        clean = attacks.Clean(said, labels, "squared error", ("a", "b", "c"))
        ranks = attacks.carried_ranks(model, pixels, attacked, heads, clean, sets=9, seed=3)
        assert ranks.groupby("kind").size().to_dict() == {attacks.RANDOM: 2, attacks.SAME_LAYERS: 2}
        assert (ranks["sets"] == 9).all()
        for row in ranks[
            ranks["kind"] == attacks.RANDOM
        ].itertuples():  # a linear model: the estimate is exact
            sets = attacks.control_sets(model, heads, 9, 3)[row.kind][row.target]
            rest = patch_heads(model, attacked[row.target], pixels, [[], heads[row.target], *sets])
            harm = ((rest - labels) ** 2).mean((1, 2)).numpy()
            own, *random = 100 * (harm[0] - harm[1:]) / clean.errors.mean()
            assert row.carries == pytest.approx(own, rel=1e-6)
            assert row.median == pytest.approx(np.median(random), rel=1e-6)
            assert row.p_value == pytest.approx((1 + sum(it >= own for it in random)) / 10)
        found = attacks.p_values(ranks)
        assert set(found) == {"title", "labels"}
        assert found["title"].low == found["title"].value == found["title"].high

    def test_a_defence_is_held_against_its_control_and_all_heads(self, clean):
        models = {"all heads": 4.0, "without its heads": 1.0, "without random heads": 3.0}
        harms = {
            ("title", name): np.stack([np.ones((3, 2)), np.full((3, 2), 1 + added)])
            for name, added in models.items()
        }
        added = attacks.defence_table(harms, clean, 20)
        assert list(added["effect"]) == pytest.approx([400, 100, 300])
        assert list(added["effect_clean"]) == pytest.approx([0, 0, 0])
        closed = attacks.closed_table(harms, clean, 20)
        assert list(closed["less_than"]) == ["without random heads", "all heads"]
        assert list(closed["value"]) == pytest.approx([200, 300])


class TestRecordings:
    def test_lifts_of_a_pair_stand_side_by_side(self, classes):
        kinds = [name for pair in recordings.PAIRS.values() for name in pair]
        lifts = pd.concat(
            [
                classes[["layer", "head"]].assign(lift=place + 1.0, lift_low=0.5, lift_high=9.0, images=name)
                for place, name in enumerate(kinds)
            ]
        )
        table = pd.concat([classes.assign(images=name) for name in kinds])
        table.loc[(table["images"] == "calls, painted") & (table["layer"] > 0), "confidence"] = 0.5
        both = recordings.paired_lifts(lifts, table)
        assert list(both["lift_painted"].unique()) == [1, 3]
        assert list(both["lift_real"].unique()) == [2, 4]
        assert recordings.chirp_heads(both) == {"strain": [(0, 0), (2, 0), (2, 1)], "calls": [(0, 0)]}
        assert recordings.first_on_chirp(both) == [(0, 0), (2, 0), (2, 1)]

    def test_kept_classes_and_regions_are_counted(self, classes):
        moved = classes.copy()
        moved.loc[0, "regions"] = "title"
        moved.loc[1, "class"] = "sink"
        moved.loc[5, "regions"] = "title + chirp"
        found = dict.fromkeys(recordings.ORDER, classes) | {"strain, put in": moved}
        table = recordings.kept_table(
            pd.concat([part.assign(images=name) for name, part in found.items()])
        ).set_index("change")
        assert list(table.loc["other chirps", ["same_class", "same_regions", "kept"]]) == [6, 6, 3]
        assert list(table.loc["real noise", ["same_class", "same_regions", "kept"]]) == [5, 4, 2]

    def test_the_real_picture_of_a_pair_has_the_painted_one_s_number(self):
        nothing = np.zeros((128, 128)), np.zeros((128, 128)), Axes(0.0, 1.0, 0.0, 1.0), np.zeros(3)
        kinds = {
            name: [Picture(*nothing, "", "", snr) for snr in (1.0, 3.0, 2.0)] for name in recordings.ORDER
        }
        kinds["strain, put in"] = [Picture(*nothing, "", "", 9.0)] * 3
        assert recordings.clearest(kinds) == {name: 1 for pair in recordings.PAIRS.values() for name in pair}


class TestTask:
    @pytest.fixture
    def right(self) -> dict[tuple[str, str], np.ndarray]:
        """The leak model follows the title on the type, everything else is right."""
        found = {(name, title): np.ones((8, 2)) for name in task.FIGURES for title in TITLES}
        found["leak", "swapped"] = np.array([[0.0, 1.0]] * 8)
        return found

    def test_a_lie_that_is_followed_takes_all(self, right):
        assert [found.value for found in task.falls(right, 50).values()] == [1, 1, 1]
        follows = task.follows_the_lie(right)
        assert (follows["leak"].value, follows["clean"].value) == (1, 0)

    def test_every_bend_is_in_one_bin(self, right):
        bends = np.array([0, 0.9, 1, 2, 2.9, 3, 9, 30])
        table = task.by_bend(right, bends)
        assert list(table[table["model"] == "leak"]["images"]) == [2, 3, 3]
        assert list(task.by_bend(right, np.zeros(8))["bin"]) == ["below 1"] * 2

    def test_random_sets_are_averaged_by_kind(self):
        sets = task.ReadingSets([[(0, 0)]] * 6, draws=2, kinds=task.KINDS)
        found = sets.by_kind(np.arange(6.0)[:, None])
        assert {kind: value.item() for kind, value in found.items()} == {
            "lookers": 0,
            task.random_of("lookers"): 1.5,
            "carriers": 3,
            task.random_of("carriers"): 4.5,
        }

    def test_random_sets_leave_the_chosen_heads_out(self):
        model = ChirpRegressor.tiny(seed=0, layers=3, heads=4)
        looking, carrying = (pd.DataFrame({"layer": [0, 2], "head": [head, 1]}) for head in (1, 3))
        chosen = {"lookers": looking, "carriers": carrying}
        drawn = task.ReadingSets.drawn(model, chosen, 3, np.random.default_rng(0))
        assert drawn.sets[0] == [(0, 1), (2, 1)]
        assert drawn.sets[4] == [(0, 3), (2, 1)]
        for start, own in ((0, drawn.sets[0]), (4, drawn.sets[4])):
            for heads in drawn.sets[start + 1 : start + 4]:
                assert not set(heads) & set(own)
                assert [layer for layer, _ in heads] == [0, 2]

    def test_half_of_the_way_is_a_half(self):
        sets = task.ReadingSets([[(0, 0)]] * 4, draws=1, kinds=task.KINDS)
        labels = np.array([[0, 0], [1, 0], [0, 1]], dtype=float)
        pull = np.array([2.0, 4.0, 6.0])
        moved = torch.zeros(4, 3, 2, dtype=torch.float64)
        moved[0, :, 0] = torch.tensor([1.0, -2.0, 3.0])  # down for the exponential one: the lie's way
        draws = np.array([[0, 1, 2], [2, 2, 2]])
        table = task.part_of_the_way(moved, np.zeros((3, 2)), labels, pull, sets, draws).set_index("kind")
        assert list(table.loc["lookers", ["value", "low", "high"]]) == pytest.approx([0.5, 0.5, 0.5])
        assert table.loc["carriers", "value"] == 0

    def test_heads_are_sought_and_tested_on_other_images_where_there_are_enough(self):
        tested, searched, looked = (range(100)[part] for part in task.halves(100, 20))
        assert (len(tested), len(searched), len(looked)) == (50, 20, 50)
        assert not set(tested) & {*searched, *looked}
        assert task.halves(2, 20) == (slice(0, 2), slice(0, 2), slice(0, 2))

    def test_the_claim_names_the_unit_of_each_quantity(self):
        some = Interval(0.5, 0.4, 0.6)
        orders = pd.DataFrame(
            [
                {"what": what, "quantity": quantity, "share": 0.5, "low": 0.4, "high": 0.6}
                for what in (task.TASKS, task.TRAININGS)
                for quantity in ("effect", "attention")
            ]
        ).assign(ceiling=0.9, ceiling_low=0.8, ceiling_high=1.0)
        permuted = pd.DataFrame(
            [
                {"quantity": quantity, "moved": moved, "value": 0.1, "low": 0.0, "high": 0.2}
                for quantity in ("effect", "attention")
                for moved in ("within layers", "among all")
            ]
        )
        judged = task.Judged.of({task.LIE: some}, some, orders)
        table = judged.table(permuted)
        assert list(table["unit"][:2]) == ["share", "nats"]
        units = table.groupby("kind")["unit"].unique().map(list).to_dict()
        assert units["ceiling"] == units["heads permuted"] == ["rank correlation"]
        assert units["shared"] == units["another training"] == ["share"]
        assert table[table["kind"] == "ceiling"]["value"].tolist() == [0.9, 0.9]

    def test_harm_is_shared_out_among_the_kinds(self):
        effects = pd.DataFrame(
            [
                {"model": name, "target": target, "layer": 0, "head": head, "effect": effect}
                for name in task.FIGURES
                for target in TARGETS
                for head, effect in enumerate((3.0, 1.0, -2.0))
            ]
        )
        against = pd.DataFrame({"kind": ["lookers and carriers", "other heads", "carriers"]})
        assert task.harm_by(against, effects)["carriers"] == {"leak": 0.75, "clean": 0.75}
