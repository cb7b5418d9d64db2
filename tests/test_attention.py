"""Attention maps and region statistics: planted heads, hand-computed shares, streaming against batch, bad input."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from heads_zoo import LAYERS, zoo
from heads_zoo import pictures as random_pictures
from transformers import Dinov2Config, Dinov2Model

from vitmech_utils.data.regions import REGIONS
from vitmech_utils.data.regions import region_coverage as coverage_of_one
from vitmech_utils.heads import attention
from vitmech_utils.heads.attention import (
    attention_maps,
    patch_query_maps,
    rollout,
    unit_scale,
)
from vitmech_utils.heads.attention_shares import patch_coverage
from vitmech_utils.heads.attention_sums import RunningSums
from vitmech_utils.heads.check import watch_projections
from vitmech_utils.heads.projections import output_gram, value_norms
from vitmech_utils.heads.pruning import prune_heads
from vitmech_utils.heads.sinks import find_sinks, token_norms
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.model.backbones import tiny
from vitmech_utils.studies.attention import plots
from vitmech_utils.studies.attention.measure import layer_lifts, rows_of

PATCH, SIDE = 32, 7
attention_statistics = partial(attention.attention_statistics, regions=REGIONS)
region_shares = partial(attention.region_shares, regions=REGIONS)
CHIRP, TITLE = REGIONS.index("chirp"), REGIONS.index("title")


def dinov2(attention: str = "sdpa") -> Dinov2Model:
    torch.manual_seed(3)
    config = Dinov2Config(
        hidden_size=30,
        num_hidden_layers=3,
        num_attention_heads=5,
        image_size=112,
        patch_size=16,
        initializer_range=0.3,
    )
    config._attn_implementation = attention
    return Dinov2Model(config).eval()


def planted(patch: int | None = None, head: int = 1):
    """A ViT whose layer 0, head `head` attends to one patch, or (None) to bright patches; others look everywhere."""
    model = tiny(layers=2, heads=3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.zero_()
        embeddings = model.embeddings
        if patch is None:
            embeddings.patch_embeddings.projection.weight[0] = 1.0
        else:
            embeddings.position_embeddings[0, 1 + patch, 0] = 1.0
        block = find_blocks(model).blocks[0]
        row = head * 4
        block.key.weight[row, 0] = 1.0
        block.query.bias[row] = 30.0
    return model


def pictures(places: list[tuple[int, int]], region: int = CHIRP) -> dict[str, torch.Tensor]:
    """Dark images with one bright patch each, which is the region; the rest is plot background."""
    pixels = torch.zeros(len(places), 3, 224, 224)
    regions = torch.full((len(places), 224, 224), REGIONS.index("plot background"), dtype=torch.uint8)
    for image, (row, column) in enumerate(places):
        at = np.s_[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
        pixels[(image, slice(None), *at)] = 1.0
        regions[(image, *at)] = region
    return {"pixel_values": pixels, "regions": regions}


def random_images(count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "pixel_values": torch.rand(count, 3, 224, 224, generator=generator),
        "regions": torch.randint(0, len(REGIONS), (count, 224, 224), generator=generator, dtype=torch.uint8),
    }


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_maps_equal_transformers_eager_attentions(attention: str) -> None:
    pixels = torch.rand(3, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = torch.stack(dinov2("eager")(pixels, output_attentions=True).attentions, dim=1)
    model = dinov2(attention)
    for query, rows in (
        ("cls", expected[..., 0, 1:]),
        ("patches", expected[..., 1:, 1:].mean(-2)),
        (4, expected[..., 5, 1:]),
    ):
        maps = attention_maps(model, pixels, query, batch=2)
        assert maps.shape == (3, 3, 5, 7, 7)
        torch.testing.assert_close(maps.flatten(-2), rows, rtol=1e-4, atol=1e-6)


def test_patch_query_maps_are_the_maps_of_single_queries() -> None:
    model, pixels = dinov2(), torch.rand(1, 3, 112, 112)
    maps = patch_query_maps(model, pixels, stride=3)
    assert maps.shape == (3, 5, 3, 3, 7, 7)
    torch.testing.assert_close(
        maps[:, :, 1, 2], attention_maps(model, pixels, 3 * 7 + 6)[0], rtol=1e-4, atol=1e-6
    )


def test_planted_head_attends_to_its_patch_and_the_others_everywhere() -> None:
    maps = attention_maps(planted(patch=17), torch.rand(2, 3, 224, 224))
    assert torch.all(maps[:, 0, 1, 17 // SIDE, 17 % SIDE] > 0.999)
    torch.testing.assert_close(maps[:, 0, 0], torch.full((2, SIDE, SIDE), 1 / 50))


def test_share_lift_and_focus_of_a_planted_chirp_head() -> None:
    images = pictures([(1, 2), (5, 5), (3, 0), (6, 1), (2, 4)])
    table = region_shares(planted(), images, shuffles=2)
    cell = table.query(
        "layer == 0 and head == 1 and query == 'cls' and weighting == 'raw' and region == 'chirp'"
    ).iloc[0]
    assert cell.attention_share > 0.999
    assert cell.area_share == pytest.approx(1 / 49)
    assert cell.lift == pytest.approx(49, rel=1e-3)
    assert cell.focus == pytest.approx(1, abs=1e-3)
    assert cell.shuffled_share < 1e-3
    assert cell.q_value < 1e-3
    other = table.query(
        "layer == 0 and head == 0 and query == 'cls' and weighting == 'raw' and region == 'chirp'"
    ).iloc[0]
    assert other.lift == pytest.approx(1, abs=1e-4)
    assert other.p_value == 1


def test_hand_computed_shares_entropy_and_shuffle() -> None:
    # One layer, one head, CLS and two patches; the same weights serve all four variants.
    weights = torch.tensor([[0.5, 0.4, 0.1], [0.2, 0.2, 0.6]]).view(2, 1, 1, 1, 3).expand(2, 4, 1, 1, 3)
    coverage = torch.tensor([[[1.0, 0.5], [0.0, 0.5]], [[0.0, 1.0], [1.0, 0.0]]])
    sums = RunningSums(torch.ones(1, 1, 1, 2, dtype=torch.bool), regions=2, replicates=0, shuffles=1, seed=0)
    sums.add(weights, torch.ones(2, 2, 1, 1), coverage, prefix=1)
    sums.close()
    share, shuffled, area = (sums.mean(name)[0, 0, 0, 0, 0] for name in ("share", "shuffled", "area"))
    np.testing.assert_allclose(share, [(0.8 + 0.2 * 0.5 + 0.75) / 2, (0.2 * 0.5 + 0.25) / 2], rtol=1e-6)
    np.testing.assert_allclose(shuffled, [(0.2 + (0.25 + 0.75 * 0.5)) / 2, (0.8 + 0.75 * 0.5) / 2], rtol=1e-6)
    np.testing.assert_allclose(area, [(0.75 + 0.5) / 2, (0.25 + 0.5) / 2], rtol=1e-6)
    np.testing.assert_allclose(sums.mean("prefix_share")[0, 0, 0, 0, 0], [0.35], rtol=1e-6)
    bits = [-(p * np.log(p) + (1 - p) * np.log(1 - p)) / np.log(2) for p in (0.8, 0.75)]
    np.testing.assert_allclose(sums.mean("map_entropy")[0, 0, 0, 0, 0], [np.mean(bits)], rtol=1e-6)
    # Region 0 of image 1: attention 0.8 and 0.2 * 0.5 on its two patches; of image 2: all on one patch, undefined.
    first = np.array([0.8, 0.1]) / 0.9
    np.testing.assert_allclose(
        sums.mean("entropy")[0, 0, 0, 0, 0, 0], -(first * np.log(first)).sum() / np.log(2), rtol=1e-5
    )


def test_a_layers_lift_is_the_mean_share_of_its_heads_over_the_area_with_an_interval() -> None:
    statistics = attention_statistics(tiny(layers=2, heads=3), random_images(6), replicates=30)
    found = layer_lifts(statistics)
    rows = rows_of(statistics.regions, region="chirp").groupby("layer")
    expected = rows["attention_share"].mean() / rows["area_share"].mean()
    chirp = found[found["region"] == "chirp"].set_index("layer")
    np.testing.assert_allclose(chirp["lift"], expected, rtol=1e-6)
    assert (chirp["low"] < chirp["lift"]).all()
    assert (chirp["lift"] < chirp["high"]).all()
    assert set(found["images"]) == {6}


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_result_does_not_depend_on_batching(batch: int) -> None:
    model, images = tiny(layers=2, heads=3), random_images(11)
    expected = attention_statistics(model, images, batch=11, replicates=20)
    loader = ({name: part[i : i + 5] for name, part in images.items()} for i in range(0, 11, 5))
    found = attention_statistics(model, loader, batch=batch, replicates=20)
    stored = [
        {name: part[:6] for name, part in images.items()},
        {name: part[6:] for name, part in images.items()},
    ]
    pd.testing.assert_frame_equal(
        region_shares(model, stored, replicates=20), expected.regions, rtol=1e-4, atol=1e-5
    )
    for one, other in ((expected.regions, found.regions), (expected.heads, found.heads)):
        pd.testing.assert_frame_equal(one, other, rtol=1e-4, atol=1e-5)


def test_streaming_equals_all_images_at_once() -> None:
    model, images = tiny(layers=2, heads=3), random_images(7)
    table = region_shares(model, images, batch=3, shuffles=2)
    maps = attention_maps(model, images["pixel_values"]).flatten(-2)
    unit = maps / maps.sum(-1, keepdim=True)
    coverage = patch_coverage(images["regions"], PATCH).flatten(2)
    shares = torch.einsum("ilhp,irp->ilhr", unit, coverage)
    found = (
        table.query("query == 'cls' and weighting == 'raw'")["attention_share"].to_numpy().reshape(2, 3, -1)
    )
    np.testing.assert_allclose(found, shares.mean(0), rtol=1e-5)
    others = (coverage.roll(1, 0) + coverage.roll(2, 0)) / 2
    shuffled = torch.einsum("ilhp,irp->ilhr", unit, others).mean(0)
    found = (
        table.query("query == 'cls' and weighting == 'raw'")["shuffled_share"].to_numpy().reshape(2, 3, -1)
    )
    np.testing.assert_allclose(found, shuffled, rtol=1e-5)


def test_running_sums_do_not_grow_with_images() -> None:
    model = tiny(layers=2, heads=3)

    def size(images: int) -> int:
        result = attention_statistics(model, random_images(images), replicates=10)
        return sum(array.nbytes for array in result.replicates.values()) + result.mean_weights.nbytes

    assert size(5) == size(15)


def test_value_norms_equal_the_moved_vectors() -> None:
    model = dinov2()
    with torch.no_grad():
        model.encoder.layer[1].layer_scale1.lambda1.copy_(torch.rand(30))
    anatomy, seen = find_blocks(model), {}
    with torch.no_grad(), watch_projections(model, lambda p: seen.update({p.layer: p})):
        model(torch.rand(2, 3, 112, 112))
    block = anatomy.blocks[1]
    norms = value_norms(seen[1], output_gram(block))
    weight = block.output.weight.unflatten(1, (5, 6))
    moved = (
        torch.einsum("ihtd,ohd->ihto", seen[1].value, weight) * model.encoder.layer[1].layer_scale1.lambda1
    )
    torch.testing.assert_close(norms, moved.norm(dim=-1), rtol=1e-4, atol=1e-6)


def test_patch_coverage_agrees_with_the_data_package() -> None:
    regions = random_images(2)["regions"]
    np.testing.assert_allclose(
        patch_coverage(regions, 14)[1], coverage_of_one(regions[1].numpy(), 14), atol=1e-6
    )


def test_rollout_of_one_layer_is_half_the_mean_attention() -> None:
    model, pixels = dinov2(), torch.rand(2, 3, 112, 112)
    torch.testing.assert_close(rollout(model, pixels)[:, 0], attention_maps(model, pixels)[:, 0].mean(1) / 2)


def test_unit_scale_hides_magnitude_and_survives_constant_maps() -> None:
    maps = torch.stack(
        [torch.arange(6.0).view(2, 3), 100 * torch.arange(6.0).view(2, 3), torch.full((2, 3), 5.0)]
    )
    scaled = unit_scale(maps)
    torch.testing.assert_close(scaled[0], scaled[1])
    assert torch.equal(scaled[2], torch.zeros(2, 3))
    assert attention_maps(planted(), torch.rand(1, 3, 224, 224), normalize="unit").max() <= 1


def test_hooks_and_modes_are_restored_even_after_an_error() -> None:
    model = tiny(layers=2, heads=3).train()
    before = {id(m): len(m._forward_hooks) for m in model.modules()}
    region_shares(model, random_images(3))
    with pytest.raises(ValueError, match="no patch of this image"):
        attention_maps(model, torch.rand(1, 3, 224, 224), query=49)
    assert model.training
    assert {id(m): len(m._forward_hooks) for m in model.modules()} == before


def test_every_nan_has_its_reason() -> None:
    images = pictures([(1, 2), (5, 5), (3, 0)])  # seven regions occur in no image
    for count in (1, 2, 3):
        part = {name: tensor[:count] for name, tensor in images.items()}
        for replicates, shuffles in ((0, 0), (20, 2)):
            result = attention_statistics(planted(), part, replicates=replicates, shuffles=shuffles)
            for table in (result.regions, result.heads):
                has_nan = table.drop(columns="reason").isna().any(axis=1)
                assert (table.loc[has_nan, "reason"] != "").all()


def test_images_without_a_chirp_are_counted_and_leave_the_ratio_defined() -> None:
    images = pictures([(1, 2), (5, 5), (3, 0)])
    images["regions"][1] = REGIONS.index("plot background")
    images["pixel_values"][1] = 0
    cell = (
        region_shares(planted(), images)
        .query("layer == 0 and head == 1 and query == 'cls' and weighting == 'raw' and region == 'chirp'")
        .iloc[0]
    )
    assert cell.images == 2
    assert cell.lift == pytest.approx(49, rel=1e-3)


def test_head_without_attention_on_patches_is_nan_with_reason() -> None:
    weights = torch.zeros(4, 4, 1, 2, 3)
    weights[..., 0] = 1.0  # head 0: all on CLS
    weights[:, :, :, 1] = 1 / 3
    sums = RunningSums(torch.ones(1, 1, 2, 2, dtype=torch.bool), regions=9, replicates=5, shuffles=1, seed=0)
    coverage = torch.full((4, 9, 2), 1 / 9)
    sums.add(weights, torch.zeros(4, 2, 1, 2), coverage, prefix=1)
    sums.close()
    from vitmech_utils.heads.attention_shares import VARIANTS
    from vitmech_utils.heads.attention_tables import head_table, region_table

    table = region_table(sums, VARIANTS, REGIONS)
    assert (table.query("head == 0")["reason"] == "no attention on patches").all()
    assert table.query("head == 0")["lift"].isna().all()
    heads = head_table(sums, VARIANTS).query("head == 0")
    assert (heads["prefix_share"] == 1).all()
    assert (heads["reason"] == "no attention on patches").all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.pop("regions"), "expected 'pixel_values' and 'regions'"),
        (lambda b: b.update(regions=b["regions"][:, ::2, ::2]), "region maps have shape"),
        (lambda b: b.update(regions=b["regions"] + 200), "expected integers from 0 to 8"),
        (lambda b: b.update(regions=b["regions"].float()), "expected integers"),
        (lambda b: b.update(pixel_values=b["pixel_values"][:0], regions=b["regions"][:0]), "no images"),
    ],
)
def test_bad_region_maps_are_refused(change, message: str) -> None:
    images = random_images(2)
    change(images)
    with pytest.raises(ValueError, match=message):
        region_shares(tiny(layers=1, heads=2), images)


@pytest.mark.parametrize("query", ["patch", -1, 49, True, None])
def test_unknown_query_is_refused(query) -> None:
    with pytest.raises((ValueError, TypeError)):
        attention_maps(tiny(layers=1, heads=2), torch.rand(1, 3, 224, 224), query)


def test_planted_sink_is_found_and_removed() -> None:
    model, images = planted(patch=17), random_images(4)
    sinks = find_sinks(model, {"random": images["pixel_values"], "dark": torch.zeros(2, 3, 224, 224)})
    assert sinks.mask.nonzero().tolist() == [[0, 1, 17]]
    assert sinks.patch_share[0, 1] > 0.999
    bright = find_sinks(
        planted(), {"a": pictures([(1, 2)])["pixel_values"], "b": pictures([(3, 4)])["pixel_values"]}
    )
    assert not bright.mask.any()
    table = region_shares(model, images, sinks=sinks.mask)
    silent = table.query("layer == 0 and head == 1 and query == 'cls' and weighting == 'raw'")
    assert (silent.query("sinks == 'kept'")["reason"] == "").all()
    # All of its attention went to the sink: nothing is left to share out, and the table says so.
    assert (silent.query("sinks == 'removed'")["reason"] == "no attention on patches").all()
    others = table.query("layer == 0 and head == 0 and query == 'cls' and weighting == 'raw'")
    np.testing.assert_allclose(others["lift"], 1, atol=1e-3)
    with pytest.raises(ValueError, match="at least two"):
        find_sinks(model, {"one": images["pixel_values"]})


def test_token_norms_find_a_planted_outlier() -> None:
    model = planted(patch=17)
    with torch.no_grad():
        model.embeddings.position_embeddings[0, 1:] = 1.0
        model.embeddings.position_embeddings[0, 1 + 17] = 10.0
    table = token_norms(model, torch.zeros(2, 3, 224, 224))
    assert table["high_norm_share"].tolist() == pytest.approx([1 / 49] * 2)
    assert table["same_place"].tolist() == [1, 1]


def test_false_discoveries_are_rare_on_random_regions() -> None:
    table = region_shares(tiny(layers=3, heads=5), random_images(24, seed=5))
    assert (table["q_value"] < 0.05).mean() < 0.01


def test_token_norms_of_a_pruned_model_are_its_own() -> None:
    model, (pixels, _) = zoo("vit"), random_pictures()
    pruned = prune_heads(model, {(0, 1), (2, 0)})
    norms = token_norms(pruned, pixels)
    again = token_norms(pruned, pixels, batch=2)
    assert list(norms["layer"]) == list(range(LAYERS))
    np.testing.assert_allclose(norms["cls_over_median"], again["cls_over_median"])


def test_a_head_that_clearly_avoids_its_own_image_s_chirp_does_not_follow_it() -> None:
    table = pd.DataFrame({"q_value": [0.01, 0.01, 0.5], "excess": [0.1, -0.1, 0.1]})
    assert plots.follows(table).tolist() == [True, False, False]
