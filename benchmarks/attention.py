"""Cost of region statistics of all heads against a plain forward pass, and memory against the number of images.

    python benchmarks/attention.py [--backbone dinov2-small] [--images 32] [--rounds 5] [--threads 1]

Plain and measured passes over the same images take turns in one process. On a processor, processor time is compared,
which other programs disturb less; on a GPU, wall time. Peak memory is that of fresh processes, which stream ever more
images through the processor.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import torch
from measuring import device, ratios, row, seconds, start, take_turns, wall_clock

from vitmech_utils.data.regions import REGIONS
from vitmech_utils.heads.attention import attention_statistics
from vitmech_utils.heads.projections import without_gradients
from vitmech_utils.model.backbones import load_backbone
from vitmech_utils.pipeline.benchmarks import Row

BATCH = 8
# How much the peak may grow by; kept maps of all images would take it many times higher.
SAME_MEMORY = 1.1


def stream(images: int) -> Iterator[dict[str, torch.Tensor]]:
    """Random images and region maps, batch by batch; nothing is kept."""
    generator = torch.Generator().manual_seed(0)
    for begin in range(0, images, BATCH):
        size = min(BATCH, images - begin)
        yield {
            "pixel_values": torch.rand(size, 3, 224, 224, generator=generator),
            "regions": torch.randint(
                0, len(REGIONS), (size, 224, 224), generator=generator, dtype=torch.uint8
            ),
        }


def plain(model: torch.nn.Module, batches: list[dict[str, torch.Tensor]]) -> None:
    """The forward pass alone."""
    with without_gradients(model):
        for batch in batches:
            model(batch["pixel_values"].to(device()))


def compare(backbone: str, images: int, rounds: int, how: str) -> Row:
    """The ratio of times for the same images."""
    clock = time.process_time if device().type == "cpu" else wall_clock
    model = load_backbone(backbone).to(device())
    batches = list(stream(images))
    plain(model, batches[:1])
    attention_statistics(model, batches[:1], regions=tuple(REGIONS))
    taken = take_turns(
        {
            "plain": lambda: seconds(lambda: plain(model, batches), clock),
            "statistics": lambda: seconds(
                lambda: attention_statistics(model, batches, regions=tuple(REGIONS)), clock
            ),
        },
        rounds,
    )
    values = ratios(taken["statistics"], taken["plain"])
    return row(
        "Region statistics of all heads", values, "forward passes",
        against="one plain forward pass", at_most=1.5, how=how,
    )  # fmt: skip


def peak_of(options: argparse.Namespace, images: int) -> float:
    """Peak memory of a fresh process that streams so many images, in MiB."""
    command = [sys.executable, __file__, "--backbone", options.backbone, "--peak-of", str(images)]
    command += ["--threads", str(options.threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[0])


def print_peak(backbone: str, images: int) -> None:
    """Stream the images through this process and print its peak memory in MiB."""
    attention_statistics(load_backbone(backbone), stream(images), regions=tuple(REGIONS))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def measure(options: argparse.Namespace) -> list[Row]:
    """Time, then memory."""
    torch.set_num_threads(options.threads)
    if options.peak_of:
        print_peak(options.backbone, options.peak_of)
        return []
    how = f"{options.backbone}, {options.images} images, {options.threads} thread(s), {device().type}"
    few, many = peak_of(options, options.images), peak_of(options, 4 * options.images)
    grown = row(
        "Peak memory with four times the images", [many / few], "times the peak", at_most=SAME_MEMORY,
        against=f"{options.images} images", how=f"{few:.0f} MiB and {many:.0f} MiB, model included",
    )  # fmt: skip
    return [compare(options.backbone, options.images, options.rounds, how), grown]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backbone", default="dinov2-small")
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)


if __name__ == "__main__":
    start(
        __doc__, "Reading every head's attention", measure,
        full={"images": 32, "rounds": 5, "threads": 1}, quick={"images": 8, "rounds": 1, "threads": 1},
        extend=add_options,
    )  # fmt: skip
