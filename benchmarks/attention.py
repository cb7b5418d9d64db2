"""Cost of region statistics of all heads against a plain forward pass, and memory against the number of images.

    python benchmarks/attention.py [--backbone dinov2-small] [--images 32] [--repeats 3] [--threads 1]

Prints the ratio of times (wall, and processor time, which other programs disturb less) for the same images in the same
process, plain and measured passes taking turns, and the peak memory of fresh processes that stream ever more images.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import torch

from vitmech_utils.data.regions import REGIONS
from vitmech_utils.heads.attention import attention_statistics
from vitmech_utils.heads.attention_weights import evaluating
from vitmech_utils.model.backbones import load_backbone

BATCH = 16


def stream(images: int) -> Iterator[dict[str, torch.Tensor]]:
    """Random images and region maps, batch by batch; nothing is kept."""
    generator = torch.Generator().manual_seed(0)
    for start in range(0, images, BATCH):
        size = min(BATCH, images - start)
        yield {
            "pixel_values": torch.rand(size, 3, 224, 224, generator=generator),
            "regions": torch.randint(
                0, len(REGIONS), (size, 224, 224), generator=generator, dtype=torch.uint8
            ),
        }


def plain(model: torch.nn.Module, batches: list[dict[str, torch.Tensor]], device: torch.device) -> None:
    """The forward pass alone."""
    with evaluating(model):
        for batch in batches:
            model(batch["pixel_values"].to(device))
    if device.type == "cuda":
        torch.cuda.synchronize()


def clocked(call, *arguments) -> tuple[float, float]:
    """Wall and processor seconds of a call."""
    wall, processor = time.perf_counter(), time.process_time()
    call(*arguments)
    return time.perf_counter() - wall, time.process_time() - processor


def compare(backbone: str, images: int, repeats: int) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_backbone(backbone).to(device)
    batches = list(stream(images))
    plain(model, batches[:1], device)
    attention_statistics(model, batches[:1])
    pairs = [
        (clocked(plain, model, batches, device), clocked(attention_statistics, model, batches))
        for _ in range(repeats)
    ]
    for index, name in enumerate(("wall", "processor")):
        one, all_heads = (statistics.median(pair[which][index] for pair in pairs) for which in (0, 1))
        ratio = statistics.median(pair[1][index] / pair[0][index] for pair in pairs)
        seconds = f"plain forward {one:7.2f} s, region statistics {all_heads:7.2f} s"
        print(f"{name:>9} time: {seconds}, ratio {ratio:.2f} (target <= 1.5)")
    print(
        f"  ({backbone}, {images} images, {device.type}, {torch.get_num_threads()} threads, median of {repeats})"
    )


def memory(backbone: str, counts: list[int], threads: int) -> None:
    for count in counts:
        command = [
            sys.executable,
            __file__,
            "--backbone",
            backbone,
            "--peak-of",
            str(count),
            "--threads",
            str(threads),
        ]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="", flush=True)


def peak(backbone: str, images: int) -> None:
    attention_statistics(load_backbone(backbone), stream(images))
    mebibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"   memory: {images:5d} images, peak {mebibytes:7.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="dinov2-small")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak_of:
        peak(options.backbone, options.peak_of)
        return
    compare(options.backbone, options.images, options.repeats)
    memory(options.backbone, [options.images, 2 * options.images, 4 * options.images], options.threads)


if __name__ == "__main__":
    main()
