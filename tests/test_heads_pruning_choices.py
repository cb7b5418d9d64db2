"""Which heads go: known answers on planted models, reproducible draws, rounds that notice stand-ins."""

import numpy as np
import pandas as pd
import pytest
import torch
from heads_zoo import HEADS, LAYERS, pictures, zoo

from vitmech_utils.heads.ablation import sweep
from vitmech_utils.heads.first_order import first_order
from vitmech_utils.heads.pruning import prune_heads
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.studies.pruning.choices import at_random, in_rounds, least_effect

EVERY = {(layer, head) for layer in range(LAYERS) for head in range(HEADS)}


def planted(useful):
    """A model in which only the heads `useful` write anything, and labels that it predicts but for some noise."""
    model, (pixels, noise) = zoo("vit"), pictures(images=7)
    anatomy = find_blocks(model)
    with torch.no_grad():
        for layer, head in EVERY - set(useful):
            anatomy.blocks[layer].output.weight[:, anatomy.columns(head)] = 0
        return model, pixels, model(pixels) + 0.01 * noise


@pytest.mark.parametrize("rank", [sweep, first_order])
def test_planted_heads_stay_by_measured_and_by_estimated_effect(rank):
    useful = {(1, 2), (3, 0)}
    model, pixels, labels = planted(useful)
    table = rank(model, pixels, labels, "zero", bootstrap=20)
    assert least_effect(table, len(EVERY) - 2, magnitude=True) == EVERY - useful
    assert (
        in_rounds(model, 13, 3, lambda m: rank(m, pixels, labels, "zero", bootstrap=20), True)
        == EVERY - useful
    )


def test_the_order_is_by_signed_effect_or_magnitude_then_by_place():
    table = pd.DataFrame({"layer": [0, 0, 1, 1], "head": [0, 1, 0, 1], "effect": [0.5, -2.0, 0.5, 1.0]})
    assert least_effect(table, 2) == {(0, 1), (0, 0)}
    assert least_effect(table, 3, magnitude=True) == {(0, 0), (1, 0), (1, 1)}


def test_rounds_notice_heads_that_stand_in_for_each_other():
    """Two twins are useless one at a time; once one is gone the other is all that counts."""
    pairs = [(0, 0), (0, 1), (0, 2)]
    model = zoo("vit", layers=1)

    def rank(left):
        kept = find_blocks(left).pairs
        spare = {(0, 0), (0, 1)} <= set(kept)
        effects = {(0, 0): 0.0 if spare else 9.0, (0, 1): 0.0 if spare else 9.0, (0, 2): 1.0}
        return pd.DataFrame([(*pair, effects[pair]) for pair in kept], columns=["layer", "head", "effect"])

    assert find_blocks(model).pairs == pairs
    assert in_rounds(model, 2, 1, rank) == {(0, 0), (0, 1)}
    assert in_rounds(model, 2, 2, rank) == {(0, 0), (0, 2)}


def test_random_sets_are_reproducible_and_cover_the_heads():
    model = zoo("vit")
    draws = at_random(model, 4, 200, np.random.default_rng(3))
    assert draws == at_random(model, 4, 200, np.random.default_rng(3))
    assert all(len(heads) == 4 and heads <= EVERY for heads in draws)
    assert len({frozenset(heads) for heads in draws}) > 150
    counts = pd.Series([pair for heads in draws for pair in heads]).value_counts()
    assert set(counts.index) == EVERY
    assert counts.max() < 2 * counts.min()
    left = find_blocks(prune_heads(model, {(0, 0)})).pairs
    assert all(
        heads <= set(left)
        for heads in at_random(prune_heads(model, {(0, 0)}), 4, 20, np.random.default_rng(0))
    )


@pytest.mark.parametrize("count", [0, 15])
def test_counts_that_leave_nothing_or_take_nothing_are_refused(count):
    model = zoo("vit")
    table = pd.DataFrame([(*pair, 1.0) for pair in sorted(EVERY)], columns=["layer", "head", "effect"])
    for choose in (
        lambda: least_effect(table, count),
        lambda: at_random(model, count, 1, np.random.default_rng(0)),
        lambda: in_rounds(model, count, 1, lambda _model: table),
    ):
        with pytest.raises(ValueError, match="expected between 1 and 14"):
            choose()


def test_bad_tables_and_rounds_are_refused():
    table = pd.DataFrame([(*pair, 1.0) for pair in sorted(EVERY)], columns=["layer", "head", "effect"])
    with pytest.raises(ValueError, match="several rows"):
        least_effect(pd.concat([table, table]), 3)
    with pytest.raises(ValueError, match="not finite"):
        least_effect(table.assign(effect=np.nan), 3)
    with pytest.raises(ValueError, match="rounds is 4, expected between 1 and the 3 heads"):
        in_rounds(zoo("vit"), 3, 4, lambda _model: table)
