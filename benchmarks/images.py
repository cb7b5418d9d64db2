"""Images per second beside the published generator, and how far our pictures are from matplotlib's.

    python benchmarks/images.py [--generator chirp_spectrogram_generator-0.1.6-py3-none-any.whl] [--json images.json]

The published generator is run as its source says, `SpectrogramGenerator(...).generate_dataset(n)`, from a wheel or
folder given by --generator or from an installed package; get the wheel by
`pip download --no-deps chirp-spectrogram-generator==0.1.6`. Both sides take turns in one process, one thread each.
Times are seconds of processor time, which other programs on the machine disturb less than the clock.
"""

import argparse
import contextlib
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from vitmech_utils.data.dataset import ChirpDataset
from vitmech_utils.data.differences import compare, summarize
from vitmech_utils.data.figures import draw_with_matplotlib


def main() -> None:
    """Measure, print the two tables, and keep them as JSON where asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--generator", help="wheel or folder of chirp-spectrogram-generator; else the installed one"
    )
    parser.add_argument("--rounds", type=int, default=8, help="turns that each side takes")
    parser.add_argument("--images", type=int, default=200, help="images compared with matplotlib's")
    parser.add_argument("--json", type=Path, help="file to keep the figures in")
    arguments = parser.parse_args()
    if arguments.generator:
        sys.path.insert(0, str(Path(arguments.generator).resolve()))
    speed = measure_speed(arguments.rounds)
    print(speed_table(speed))
    differences = compare(ChirpDataset(arguments.images, seed=11, split="held-out"), arguments.images)
    summary = summarize(differences)
    print(difference_table(summary))
    if arguments.json:
        arguments.json.write_text(json.dumps({"speed": speed, "differences": summary}, indent=2) + "\n")


def published_generator(folder: Path) -> object:
    """The published generator writing to a folder. Raises SystemExit where it is not installed."""
    try:
        from chirp_spectrogram_generator.generator import SpectrogramGenerator
    except ImportError as error:
        raise SystemExit(f"{error}: name its wheel by --generator, see --help") from error
    return SpectrogramGenerator(output_dir=str(folder))


def measure_speed(rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of processor time per image, median over rounds, each way taking its turn in every round."""
    with tempfile.TemporaryDirectory() as temporary:
        ways = {**_published_ways(Path(temporary)), **_our_ways(Path(temporary))}
        samples: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(rounds):
            for name, (way, count) in ways.items():
                start = time.process_time()
                way(turn * count, count)
                samples[name].append((time.process_time() - start) / count)
    samples["draw, first 200 images"] = [first_images(200)]
    return {
        name: {"seconds": statistics.median(times), "fastest": min(times), "slowest": max(times)}
        for name, times in samples.items()
    }


Way = tuple[Callable[[int, int], None], int]


def _published_ways(folder: Path) -> dict[str, Way]:
    with_png, without_png = published_generator(folder / "a"), published_generator(folder / "b")

    def generate(first: int, count: int) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            with_png.generate_dataset(first + count)

    def generate_unwritten(first: int, count: int) -> None:
        # Draws every figure, but neither encodes nor writes it; its own count of files then stays at zero.
        def only_draw(_path: str) -> None:
            plt.gcf().canvas.draw()

        with contextlib.redirect_stdout(io.StringIO()), mock.patch.object(plt, "savefig", only_draw):
            without_png.generate_dataset(count)

    with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
        generate(0, 1)
    return {"published, PNG": (generate, 4), "published, no PNG": (generate_unwritten, 4)}


def _our_ways(folder: Path) -> dict[str, Way]:
    warm = ChirpDataset(100_000, seed=1)
    for index in range(1500):  # a long run's caches; the cold way shows a short run's
        warm.drawing(index)

    def draw_images(first: int, count: int) -> None:
        for index in range(first, first + count):
            warm.drawing(index)

    def export_images(first: int, count: int) -> None:
        for index in range(first, first + count):
            Image.fromarray(warm.drawing(index).image).save(folder / f"spectrogram_{index + 1}.png")

    def through_matplotlib(first: int, count: int) -> None:
        for index in range(first, first + count):
            draw_with_matplotlib(warm.grid(index), warm.chirp(index), "published", warm.title(index))

    return {
        "draw_with_matplotlib": (through_matplotlib, 4),
        "draw, PNG": (export_images, 50),
        "draw": (draw_images, 50),
    }


def first_images(count: int) -> float:
    """Seconds of processor time per image of the first `count` in a fresh process, its preparations included."""
    code = (
        "import time\n"
        "from vitmech_utils.data.dataset import ChirpDataset\n"
        "start = time.process_time()\n"
        f"for index in range({count}): ChirpDataset({count}, seed=5).drawing(index)\n"
        "print(time.process_time() - start)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout) / count


def speed_table(speed: dict[str, dict[str, float]]) -> str:
    """Milliseconds per image and ratios to the published generator with and without its PNG files."""
    reference, unwritten = speed["published, PNG"]["seconds"], speed["published, no PNG"]["seconds"]
    lines = [f"{'way':<28}{'ms/image':>10}{'fastest':>10}{'x published':>13}{'x without PNG':>15}"]
    for name, times in speed.items():
        seconds = times["seconds"]
        lines.append(
            f"{name:<28}{1e3 * seconds:>10.2f}{1e3 * times['fastest']:>10.2f}"
            f"{reference / seconds:>13.1f}{unwritten / seconds:>15.1f}"
        )
    return "\n".join(lines)


def difference_table(summary: dict) -> str:
    """Where and by how much draw() and matplotlib differ, in units of 1/255."""
    lines = [
        f"\n{summary['images']} images: mean |difference| {summary['mean']:.4f} of 255, "
        f"{summary['equal']:.1%} of values equal, largest {summary['largest']}",
        f"{'region':<20}{'mean':>8}{'largest':>9}",
    ]
    lines += [f"{name:<20}{row['mean']:>8.4f}{row['largest']:>9}" for name, row in summary["regions"].items()]
    lines += ["largest differences (image, row, column, region, of 255):"]
    lines += [
        f"  {at['image']:>5}{at['row']:>5}{at['column']:>5}  {at['region']:<18}{at['difference']}"
        for at in summary["worst"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
