"""Rates of this machine: fine-tuning and the sweep of all heads, each from images to result.

    python benchmarks/throughput.py [--threads 2] [--steps 5]

Both use the default backbone. Rates are by the clock on the wall: they say how long a run takes here, and have no
rival and no target.
"""

import argparse
from contextlib import nullcontext

import torch
from measuring import ADAPTER, device, ratios, row, seconds, start, take_turns, wall_clock

from vitmech_utils.data.dataset import ChirpDataset, stack
from vitmech_utils.heads.ablation import sweep
from vitmech_utils.model.finetune import computes_in_bfloat16
from vitmech_utils.model.half_attention import keeping_weights
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.pipeline.benchmarks import Row


def fine_tuning(steps: int, batch: int) -> tuple[list[float], list[float], str]:
    """Seconds of a training step and of a forward pass, in turns, and the number format that training uses here.

    A step is what chapter 2 does with a batch: draw it, forward, backward, and one move of adapter and head.
    """
    regressor = ChirpRegressor.build("dinov2-small").to(device()).train()
    weights = [weight for weight in regressor.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4)
    half = computes_in_bfloat16(device())
    drawn = iter(range(0, (2 * steps + 2) * batch, batch))
    images = ChirpDataset((2 * steps + 2) * batch)

    def loss() -> torch.Tensor:
        first = next(drawn)
        items = [images[index] for index in range(first, first + batch)]
        pixels, labels = (torch.stack([item[key] for item in items]) for key in ("pixel_values", "labels"))
        with (
            torch.autocast(device().type, torch.bfloat16, enabled=half),
            keeping_weights() if half else nullcontext(),
        ):
            return regressor(pixels.to(device()), labels.to(device())).loss

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    def forward() -> None:
        with torch.no_grad():
            loss()

    step(), forward()  # what is prepared once
    taken = take_turns(
        {"step": lambda: seconds(step, wall_clock), "forward": lambda: seconds(forward, wall_clock)}, steps
    )
    return taken["step"], taken["forward"], "bfloat16" if half else "float32"


def sweeping(images: int, turns: int) -> list[float]:
    """Pairs of image and head per second, from pixels to the table with its intervals and p-values."""
    model = ChirpRegressor.load(ADAPTER).merged().to(device())
    data = stack(ChirpDataset(images, split="held-out"), images)
    found: list[int] = []

    def once() -> None:
        found.append(len(sweep(model, data["pixel_values"], data["labels"], "zero", batch=16)))

    return [images * found[-1] / taken for taken in (seconds(once, wall_clock) for _ in range(turns))]


def measure(options: argparse.Namespace) -> list[Row]:
    """Both rates."""
    torch.set_num_threads(options.threads)
    where = f"{options.threads} thread(s), {device().type}"
    step, forward, numbers = fine_tuning(options.steps, options.batch)
    how = f"batches of {options.batch}, {numbers}, {where}"
    return [
        row("Fine-tuning, drawing included", [options.batch / taken for taken in step], "images per second", how=how),
        row("A step of fine-tuning", ratios(step, forward), "times the time", how=how,
            against="drawing and the forward pass alone"),
        row("Sweeping all heads, to the table of effects", sweeping(options.images, options.turns),
            "pairs of image and head per second", how=f"{options.images} images, float32, {where}"),
    ]  # fmt: skip


if __name__ == "__main__":
    start(
        __doc__, "Rates of this machine", measure,
        full={"threads": 2, "steps": 5, "batch": 16, "images": 4, "turns": 3},
        quick={"threads": 2, "steps": 1, "batch": 2, "images": 2, "turns": 1},
    )  # fmt: skip
