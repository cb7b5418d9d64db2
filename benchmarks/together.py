"""Sets and pairs of heads: the replay against plain hooks, orders, and second derivatives against exact pairs.

    python benchmarks/together.py [--sets 48] [--images 2] [--rounds 3] [--threads 1]

Both ways predict the same sets on the same images and take turns in one process; processor time is compared, on a GPU
wall time.
"""

import argparse
import itertools
import time

import numpy as np
import torch
from measuring import ADAPTER, device, ratios, row, seconds, start, take_turns, wall_clock

from vitmech_utils.heads.interactions import second_order
from vitmech_utils.heads.sets import predict_without_sets
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.pipeline.benchmarks import Row


def measure(options: argparse.Namespace) -> list[Row]:
    """Pairs of heads by both ways, then the derivatives of one head with all others."""
    torch.set_num_threads(options.threads)
    clock = time.process_time if device().type == "cpu" else wall_clock
    model = ChirpRegressor.load(ADAPTER).merged().eval().to(device())
    every = list(itertools.combinations(find_blocks(model).pairs, 2))
    chosen = np.random.default_rng(0).choice(len(every), min(options.sets, len(every)), replace=False)
    pairs = [every[place] for place in chosen]
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(options.images, 3, 224, 224, generator=generator).to(device())
    labels = torch.zeros(options.images, 3, dtype=torch.float64)
    few = predict_without_sets(model, images, pairs[:4], "zero")
    slow = predict_without_sets(model, images, pairs[:4], "zero", replay=False)
    apart = (few.ablated - slow.ablated).abs().max().item()
    heads = find_blocks(model).pairs
    head = heads[len(heads) // 2]
    mixed = np.random.default_rng(1).permutation(len(heads))[: options.sets]
    order = [[heads[place] for place in mixed[:gone]] for gone in range(1, len(mixed) + 1)]
    taken = take_turns(
        {
            "replay": lambda: seconds(lambda: predict_without_sets(model, images, pairs, "zero"), clock),
            "hooks": lambda: seconds(
                lambda: predict_without_sets(model, images, pairs, "zero", replay=False), clock
            ),
            "order": lambda: seconds(lambda: predict_without_sets(model, images, order, "zero"), clock),
            "order by hooks": lambda: seconds(
                lambda: predict_without_sets(model, images, order, "zero", replay=False), clock
            ),
            "derivatives": lambda: seconds(
                lambda: second_order(model, images, labels, "zero", heads=[head], bootstrap=10), clock
            ),
        },
        options.rounds,
    )
    how = f"{len(pairs)} random pairs, {options.images} images, {options.threads} thread(s), {device().type}"
    partners = len(heads) - 1
    one_by_one = [found / len(pairs) * partners for found in taken["replay"]]
    return [
        row(
            "Pairs of heads, exactly", ratios(taken["hooks"], taken["replay"]), "times as fast",
            against="one plain hook per head and a full pass", how=f"{how}; predictions differ by {apart:.1g}",
        ),
        row(
            "Heads taken away one after the other, exactly", ratios(taken["order by hooks"], taken["order"]),
            "times as fast", against="plain hooks and a full pass for each set",
            how=f"{len(order)} heads in random order, {options.images} images, {options.threads} thread(s), "
            f"{device().type}",
        ),
        row(
            "One head's pairs with all others, to second order", ratios(one_by_one, taken["derivatives"]),
            "times as fast", against="the same pairs, exactly", how=how,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    start(
        __doc__, "Several heads at once", measure,
        full={"sets": 48, "images": 2, "rounds": 3, "threads": 1},
        quick={"sets": 4, "images": 1, "rounds": 1, "threads": 1},
    )  # fmt: skip
