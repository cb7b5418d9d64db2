"""Images per second beside the published generator, and how far our pictures are from matplotlib's.

    python benchmarks/images.py [--generator chirp_spectrogram_generator-0.1.6-py3-none-any.whl] [--json images.json]

The published generator is run as its source says, `SpectrogramGenerator(...).generate_dataset(n)`, from a wheel or
folder given by --generator or from an installed package; get the wheel by
`pip download --no-deps chirp-spectrogram-generator==0.1.6`. All ways take turns in one process, one thread each.
Times are seconds of processor time, which other programs on the machine disturb less than the clock.
"""

import argparse
import contextlib
import importlib.util
import io
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from measuring import not_measured, ratios, row, seconds, start, take_turns
from PIL import Image

from vitmech_utils.artefacts import write_json
from vitmech_utils.data.dataset import ChirpDataset
from vitmech_utils.data.differences import compare, summarize
from vitmech_utils.data.figures import draw_with_matplotlib
from vitmech_utils.pipeline.benchmarks import Row

# A way makes images `first` to `first + count` of its own; each round asks for the next `count`.
Way = tuple[Callable[[int, int], None], int]
GENERATOR = "the published generator"
COLD = "draw, first 200 images"
# What is compared with what, and the target (design: 40 times the published generator's speed per core).
COMPARISONS = (
    ("Making an image in memory, ready to train on", "draw", "published, PNG",
     f"{GENERATOR}, whose only way is to draw the figure and write it as a PNG file", 40),
    ("Making an image and writing it as a PNG file", "draw, PNG", "published, PNG", f"{GENERATOR}, likewise", None),
    ("Making an image in memory", "draw", "published, no PNG",
     f"{GENERATOR} kept from encoding and writing its PNG file", None),
    ("The first images of a fresh process, in memory", COLD, "published, PNG", GENERATOR, None),
    ("Making an image in memory", "draw", "draw_with_matplotlib", "our own reference through matplotlib", None),
)  # fmt: skip


def measure(options: argparse.Namespace) -> list[Row]:
    """Speeds in turns, then the difference to matplotlib; the record for chapter 1 where --json asks for it."""
    if options.generator:
        sys.path.insert(0, str(Path(options.generator).resolve()))
    here = importlib.util.find_spec("chirp_spectrogram_generator") is not None
    speed = measure_speed(options.rounds, options.warm, options.first, here)
    differences = compare(ChirpDataset(options.images, seed=11, split="held-out"), options.images)
    summary = summarize(differences)
    print(difference_table(summary))
    if options.json and here:
        write_json(options.json, {"speed": _medians(speed), "differences": summary})
    return [*speed_rows(speed, here), _difference_row(summary)]


def measure_speed(rounds: int, warm: int, first: int, published: bool) -> dict[str, list[float]]:
    """Seconds of processor time per image of each way, round by round."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ways = {**(_published_ways(folder) if published else {}), **_our_ways(folder, warm)}
        made = dict.fromkeys(ways, 0)

        def next_images(name: str) -> float:
            way, count = ways[name]
            begin, made[name] = made[name], made[name] + count
            return seconds(lambda: way(begin, count)) / count

        turns = {name: lambda name=name: next_images(name) for name in ways}
        return take_turns({**turns, COLD: lambda: first_images(first)}, rounds)


def published_generator(folder: Path) -> object:
    """The published generator writing to a folder."""
    from chirp_spectrogram_generator.generator import SpectrogramGenerator

    return SpectrogramGenerator(output_dir=str(folder))


def _published_ways(folder: Path) -> dict[str, Way]:
    with_png, without_png = published_generator(folder / "a"), published_generator(folder / "b")

    def generate(first: int, count: int) -> None:
        # It goes on after the files that are there: one from the warm-up, `first` from earlier rounds.
        with contextlib.redirect_stdout(io.StringIO()):
            with_png.generate_dataset(1 + first + count)

    def generate_unwritten(_first: int, count: int) -> None:
        # Draws every figure, but neither encodes nor writes it; its own count of files then stays at zero.
        def only_draw(_path: str) -> None:
            plt.gcf().canvas.draw()

        with contextlib.redirect_stdout(io.StringIO()), mock.patch.object(plt, "savefig", only_draw):
            without_png.generate_dataset(count)

    generate(0, 0)
    return {"published, PNG": (generate, 4), "published, no PNG": (generate_unwritten, 4)}


def _our_ways(folder: Path, warm: int) -> dict[str, Way]:
    images = ChirpDataset(100_000, seed=1)
    for index in range(warm):  # a long run's caches; the cold way shows a short run's
        images.drawing(index)

    def draw_images(first: int, count: int) -> None:
        for index in range(first, first + count):
            images.drawing(index)

    def export_images(first: int, count: int) -> None:
        for index in range(first, first + count):
            Image.fromarray(images.drawing(index).image).save(folder / f"spectrogram_{index + 1}.png")

    def through_matplotlib(first: int, count: int) -> None:
        for index in range(first, first + count):
            draw_with_matplotlib(images.grid(index), images.chirp(index), "published", images.title(index))

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


def speed_rows(speed: dict[str, list[float]], published: bool) -> list[Row]:
    """How many times as fast ours is, and what an image costs."""
    rows = []
    for what, ours, theirs, against, target in COMPARISONS:
        if theirs.startswith("published") and not published:
            reason = "chirp-spectrogram-generator is not installed"
            rows.append(not_measured(what, "times as fast", reason, against=against, at_least=target))
        else:
            values = ratios(speed[theirs], speed[ours])
            rows.append(row(what, values, "times as fast", against=against, at_least=target))
    return [*rows, row("Processor time of an image in memory", [1e3 * x for x in speed["draw"]], "ms")]


def _difference_row(summary: dict) -> Row:
    return row(
        "Mean difference of a pixel's colour values to a true matplotlib drawing", [summary["mean"]],
        "of 255", at_most=1, how=f"{summary['images']} images, largest {summary['largest']} of 255",
    )  # fmt: skip


def _medians(speed: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    return {
        name: {"seconds": statistics.median(times), "fastest": min(times), "slowest": max(times)}
        for name, times in speed.items()
    }


def difference_table(summary: dict) -> str:
    """Where and by how much draw() and matplotlib differ, in units of 1/255."""
    lines = [
        f"{summary['images']} images: mean |difference| {summary['mean']:.4f} of 255, "
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


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--generator", help="wheel or folder of chirp-spectrogram-generator; else the installed one"
    )
    parser.add_argument("--json", type=Path, help="file to keep the figures in, as chapter 1 reads them")


if __name__ == "__main__":
    start(
        __doc__, "Making images", measure,
        full={"rounds": 6, "images": 200, "warm": 1500, "first": 200},
        quick={"rounds": 2, "images": 4, "warm": 10, "first": 4},
        extend=add_options,
    )  # fmt: skip
