"""Costs by formula against torch's own counter, ceilings by hand, and timings of known shape; no time is asserted."""

import numpy as np
import pandas as pd
import pytest
import torch
from heads_zoo import FAMILIES, GRID, HEADS, PIXELS, SIZE, pictures, zoo
from torch.utils.flop_counter import FlopCounterMode

from vitmech_utils.heads.costs import attention_time_share, ceiling, costs, latency, summary
from vitmech_utils.heads.pruning import prune_heads
from vitmech_utils.model.anatomy import find_blocks

SOME = {(0, head) for head in range(HEADS)} | {(2, 1), (4, 0)}


@pytest.mark.parametrize("heads", [set(), SOME], ids=["whole", "pruned"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_flops_are_those_that_torch_counts(family, heads):
    model, (pixels, _) = prune_heads(zoo(family, "eager"), heads), pictures(images=1)
    with FlopCounterMode(display=False) as counter:
        model(pixels)
    found = costs(model, PIXELS)
    assert found.flops == counter.get_total_flops()
    assert found.parameters == sum(weight.numel() for weight in model.parameters())


def test_a_head_costs_what_the_formula_says():
    model = zoo("vit")
    whole, pruned = costs(model, PIXELS), costs(prune_heads(model, {(1, 2)}), PIXELS)
    tokens, hidden = GRID**2 + find_blocks(model).prefix, HEADS * SIZE
    assert whole.flops - pruned.flops == 8 * tokens * hidden * SIZE + 4 * tokens**2 * SIZE
    assert whole.flops - pruned.flops == whole.attention_flops - pruned.attention_flops
    assert whole.attention_parameters - pruned.attention_parameters == 4 * hidden * SIZE + 3 * SIZE
    assert 0 < pruned.attention_share < whole.attention_share < 1


@pytest.mark.parametrize(
    ("share", "removed", "expected"), [(1 / 3, 1.0, 1.5), (0.5, 0.5, 4 / 3), (0.4, 0.0, 1.0), (0.0, 1.0, 1.0)]
)
def test_the_ceiling_is_amdahls(share, removed, expected):
    assert ceiling(share, removed) == pytest.approx(expected)


@pytest.mark.parametrize(("share", "removed"), [(1.0, 1.0), (-0.1, 1.0), (0.5, 1.1)])
def test_impossible_shares_are_refused(share, removed):
    with pytest.raises(ValueError, match="expected a share in"):
        ceiling(share, removed)


def test_timings_take_turns_and_are_summed_up():
    model, (pixels, _) = zoo("vit"), pictures()
    models = {"whole": model, "pruned": prune_heads(model, SOME)}
    table = latency(models, pixels, batches=(1, 3), repeats=4)
    assert len(table) == 2 * 2 * 4
    assert (table["seconds"] > 0).all()
    for _, part in table.groupby("batch"):
        turns = part["model"].to_numpy().reshape(4, 2)
        assert all(set(turn) == set(models) for turn in turns)
    rows = summary(table, "whole", draws=50)
    assert len(rows) == 4
    assert (rows.loc[rows["model"] == "whole", "speedup"] == 1).all()
    assert (rows["low"] <= rows["seconds"]).all()
    assert (rows["seconds"] <= rows["high"]).all()
    share = attention_time_share(model, pixels, repeats=3)
    assert 0 < share.low <= share.value <= share.high < 1
    assert not any(module._forward_hooks for module in model.modules())


def test_the_summary_of_known_timings():
    seconds = {"whole": [2.0, 4.0, 20.0], "half": [1.0, 2.0, 10.0]}
    table = pd.DataFrame(
        [(name, 8, False, i, s) for name, values in seconds.items() for i, s in enumerate(values)],
        columns=["model", "batch", "compiled", "repeat", "seconds"],
    )
    rows = summary(table, "whole").set_index("model")
    assert list(rows.loc["half", ["seconds", "low", "high", "throughput"]]) == [2.0, 1.0, 10.0, 4.0]
    np.testing.assert_allclose(
        rows.loc["half", ["speedup", "speedup_low", "speedup_high"]].astype(float), 2.0
    )
    with pytest.raises(ValueError, match="baseline 'third' was not timed"):
        summary(table, "third")


def test_bad_timing_settings_are_refused():
    model, (pixels, _) = zoo("vit"), pictures()
    with pytest.raises(ValueError, match="expected at least 1 of each"):
        latency({}, pixels)
    with pytest.raises(ValueError, match="expected between 1 and the 5 images"):
        latency({"whole": model}, pixels, batches=(1, 32))
