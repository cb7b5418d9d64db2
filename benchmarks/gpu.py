"""What one GPU does here: drawing beside it, training steps, sweeps, mixed precision, and whether it agrees with a CPU.

    python benchmarks/gpu.py                                # in full, minutes, into benchmarks/gpu.json
    python benchmarks/gpu.py --quick --json results/gpu.json   # small sizes, on any machine
    python benchmarks/gpu.py --parts training sweeps --random  # random weights: needs no backbone, measures time alone

Needs the package, the default backbone and published/ alone; no network and no Jupyter. The record is written anew
after every part, and a part that fails is recorded as failed. Operations are those that torch's counter finds; they
are held against what a large matrix product reaches on the same card.
"""

import argparse
import json
import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import torch
from exact import EXACT
from measuring import ADAPTER, as_line, device, ratios, row, seconds, take_turns, wall_clock
from safetensors.numpy import load_file
from torch.utils.flop_counter import FlopCounterMode

from vitmech_utils.artefacts import write_json
from vitmech_utils.data.dataset import ChirpDataset, stack
from vitmech_utils.data.kept import KeptImages
from vitmech_utils.devices import cores
from vitmech_utils.heads.ablation import HeadPredictions, effects, predict_without_heads
from vitmech_utils.heads.linearized import predict_linearized
from vitmech_utils.model.backbones import load_backbone
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.pipeline.benchmarks import Benchmark, Record, Row
from vitmech_utils.runs.manifests import code_version, machine, package_versions
from vitmech_utils.statistics import rank_correlation
from vitmech_utils.studies.ablation import judge
from vitmech_utils.studies.ablation import measure as by_layer

ROOT = Path(__file__).resolve().parents[1]
TERA = 1e12
SIZES = {  # in full, and with --quick
    "drawn": (512, 8),
    "batch": (64, 2),
    "large_batch": (256, 3),
    "steps": (10, 1),
    "swept": (112, 2),
    "hooked": (16, 1),
    "linearized": (512, 2),
    "precise": (96, 2),
    "matrix": (8192, 256),
    "turns": (3, 1),
}


def drawing(options: argparse.Namespace) -> list[Row]:
    """Images drawn per second, by one process and by one on every core."""
    rows = []
    for style in ("published", "bare"):
        for processes in (1, cores()):
            with multiprocessing.get_context("fork").Pool(processes) as pool:
                parts = [(style, options.drawn, part) for part in range(processes)]
                pool.map(draw_some, parts)  # what all figures share
                draw = partial(pool.map, draw_some, parts)
                taken = [seconds(draw, wall_clock) for _ in range(options.turns)]
            rates = [processes * options.drawn / time for time in taken]
            how = f"{processes} process{'es' if processes > 1 else ''}"
            rows.append(row(f"Images drawn, {style}", rates, "images per second", how=how))
    return rows


def draw_some(part: tuple[str, int, int]) -> None:
    """Draw the images of one process."""
    style, count, number = part
    images = ChirpDataset(10**6, seed=number, style=style)
    for index in range(count):
        images[index]


def composing(options: argparse.Namespace) -> list[Row]:
    """Kept images: their parts drawn by one process, and put together where they are trained on."""
    images = KeptImages(ChirpDataset(10**6, seed=0), "nowhere")
    images[0]
    few = [images[index]["pixel_values"] for index in range(min(64, options.large_batch))]
    draw = partial(repeat, lambda: images[1], options.drawn // 4)
    taken = [seconds(draw, wall_clock) for _ in range(options.turns)]
    batch = torch.stack(few).to(device()).repeat(4, 1)
    images.compose(batch)
    put = partial(repeat, lambda: images.compose(batch), options.steps)
    composed = [seconds(put, wall_clock) for _ in range(options.turns)]
    return [
        row("Parts of images drawn", [options.drawn // 4 / time for time in taken],
            "images per second", how="1 process"),
        row("Images put together from parts", [options.steps * len(batch) / time for time in composed],
            "images per second", how=f"batch {len(batch)}; {peak_memory()}"),
    ]  # fmt: skip


def training(options: argparse.Namespace) -> list[Row]:
    """Steps of a training whose images are on the device: forward, backward, one move of adapter and head."""
    rows = []
    for batch in (options.batch, options.large_batch):
        for dtype in (torch.bfloat16, torch.float32):
            step, pixels = training_step(batch, dtype)
            step()
            flops = operations(step)
            clear_peak()
            several = partial(repeat, step, options.steps)
            taken = [seconds(several, wall_clock) / options.steps for _ in range(options.turns)]
            how = f"batch {batch}, {flops / batch / 1e9:.1f} GFLOP an image; {peak_memory()}"
            what = f"Training, {name_of(dtype)}, batch {batch}"
            rows.append(row(what, [batch / time for time in taken], "images per second", how=how))
            rows.append(share_row(what, flops, taken, dtype, options))
            del step, pixels
    return rows


def training_step(batch: int, dtype: torch.dtype) -> tuple[Callable[[], object], torch.Tensor]:
    """A training step as fine-tuning does it, on random pixels, and the pixels."""
    model = regressor(merged=False).train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-6, fused=device().type == "cuda")
    pixels = torch.rand(batch, 3, 224, 224, device=device())
    labels = torch.randn(batch, 3, device=device())

    def step() -> None:
        with torch.autocast(device().type, torch.bfloat16, enabled=dtype is torch.bfloat16):
            loss = model(pixels, labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step, pixels


def repeat(call: Callable[[], object], times: int) -> None:
    """Call several times."""
    for _ in range(times):
        call()


def sweeps(options: argparse.Namespace) -> list[Row]:
    """All heads of a few images: by plain hooks, exactly by replay, and linearized in float32 and bfloat16."""
    model = regressor()
    heads = sum(len(block.numbers.kept) for block in anatomy_of(model).blocks)
    pixels = torch.rand(max(options.swept, options.linearized), 3, 224, 224)
    ways = {
        "plain hooks": (
            options.hooked,
            lambda x: predict_without_heads(model, x, "zero", replay=False, batch=4096),
        ),
        "exact sweep": (options.swept, lambda x: predict_without_heads(model, x, "zero", batch=4096)),
        "linearized sweep": (options.linearized, lambda x: predict_linearized(model, x, "zero", batch=128)),
        "linearized sweep, bfloat16": (
            options.linearized,
            lambda x: predict_linearized(model, x, "zero", batch=128, dtype=torch.bfloat16),
        ),
    }
    rows, counted, memory = [], {}, {}
    for name, (count, way) in ways.items():
        way(pixels[:count])  # what is prepared once
        counted[name] = operations(partial(way, pixels[:count]))
        clear_peak()
        way(pixels[:count])
        memory[name] = peak_memory()
    timed = {
        name: (lambda count=count, way=way: seconds(partial(way, pixels[:count]), wall_clock) / count)
        for name, (count, way) in ways.items()
    }
    taken = take_turns(timed, options.turns)
    for name, (count, _) in ways.items():
        how = f"{heads} heads x {count} images, {counted[name] / count / 1e9:.0f} GFLOP an image; {memory[name]}"
        what = name[0].upper() + name[1:]
        rows.append(
            row(what, [heads / time for time in taken[name]], "pairs of head and image per second", how=how)
        )
        dtype = torch.bfloat16 if "bfloat16" in name else torch.float32
        rows.append(share_row(what, counted[name] / count, taken[name], dtype, options))
        if name != "plain hooks":
            faster = ratios(taken["plain hooks"], taken[name])
            rows.append(row(what, faster, "times as fast", against="plain hooks"))
    return rows


def precision(options: argparse.Namespace) -> list[Row]:
    """What TF32 and bfloat16 do to the effects of the published adapter's heads, by mean ablation."""
    model = regressor()
    data = stack(ChirpDataset(options.precise, seed=0, split="held-out"), options.precise)
    pixels, labels = data["pixel_values"], data["labels"].double()
    exact = predict_without_heads(model, pixels, "mean", batch=4096)
    with tf32():
        coarse = predict_without_heads(model, pixels, "mean", batch=4096)
    linear = predict_linearized(model, pixels, "mean", batch=64)
    half = predict_linearized(model, pixels, "mean", batch=64, dtype=torch.bfloat16)
    how = f"{options.precise} images"
    return [
        *compared("Exact sweep in TF32", coarse, "the same in float32", exact, labels, how),
        *compared("Linearized sweep in bfloat16", half, "the same in float32", linear, labels, how),
        *compared("Linearized sweep", linear, "the exact sweep", exact, labels, how),
    ]


def devices(options: argparse.Namespace) -> list[Row]:
    """Exact predictions that a CPU computed with the same adapter, images and settings, computed again here."""
    stored = load_file(options.stored)
    model = regressor()
    rows = []
    for mode in ("mean", "zero", "resample", "qkv-weights"):
        count = len(stored[f"baseline_{mode}"])
        few = len(stored["baseline_zero"])
        count = min(count, options.precise)
        data = stack(ChirpDataset(count, seed=0, split="held-out"), count)
        extra = {}
        if mode == "mean":
            extra = {"reference": pixels_of(ChirpDataset(max(16, few), seed=0, split="train"))}
        if mode == "resample":
            extra = {"donors": pixels_of(ChirpDataset(count, seed=0, style="bare", split="held-out"))}
        here = predict_without_heads(model, data["pixel_values"], mode, batch=4096, **extra)
        there = HeadPredictions(
            torch.tensor(stored[f"baseline_{mode}"][:count]),
            torch.tensor(stored[f"ablated_{mode}"][:, :count]),
            here.layers, here.heads, mode, "replay",
        )  # fmt: skip
        labels = data["labels"].double()
        rows += compared(
            f"Effects by {mode} ablation",
            here,
            "the published run on a CPU",
            there,
            labels,
            f"{count} images",
        )
        verdict = [verdicts_of(found, labels) for found in (here, there)]
        same = [one == other for one, other in zip(*verdict, strict=True)]
        said = ", ".join(f"{claim} {answer}" for claim, answer in zip(("C1", "C2"), verdict[0], strict=True))
        rows.append(
            row(
                f"Verdicts by {mode} ablation",
                [sum(same)],
                "of 2 the same",
                against="the published run on a CPU",
                how=said,
            )
        )
    return rows


def compared(
    what: str, one: HeadPredictions, against: str, other: HeadPredictions, labels: torch.Tensor, how: str
) -> list[Row]:
    """How far predictions and effects of two sweeps lie apart, and whether they rank the heads alike."""
    first, second = (effects(found, labels, bootstrap=100)["effect"].to_numpy() for found in (one, other))
    apart = float((one.ablated - other.ablated).abs().max())
    return [
        row(
            what,
            [apart],
            "standard deviations of a label, largest difference of a prediction",
            against=against,
            how=how,
        ),
        row(
            what,
            [float(np.abs(first - second).max())],
            "percentage points, largest difference of an effect",
            against=against,
        ),
        row(
            what,
            [rank_correlation(first, second, 100).value],
            "rank correlation of the heads' effects",
            against=against,
        ),
    ]


def verdicts_of(found: HeadPredictions, labels: torch.Tensor) -> list[str]:
    """Chapter 04's verdicts on C1 and C2, by one mode alone."""
    table = effects(found, labels, bootstrap=5000)
    layers = by_layer.compare_layers(found, labels, bootstrap=5000)
    images = len(labels)
    return [
        judge.early_heads_hardly_matter(
            {found.mode: layers["early"]}, judge.heads_beyond(table), images
        ).verdict,
        judge.deeper_heads_matter_more({found.mode: layers["ratio"]}, images).verdict,
    ]


# What the parts share

_random = False


def regressor(merged: bool = True) -> ChirpRegressor:
    """The published adapter on its backbone, merged, or a fresh one to train; or the same with random weights."""
    if not _random:
        model = ChirpRegressor.load(ADAPTER) if merged else ChirpRegressor.build(seed=0)
    else:
        from transformers import Dinov2Config, Dinov2Model

        size = {"hidden_size": 384, "num_attention_heads": 6, "image_size": 518, "patch_size": 14}
        torch.manual_seed(0)
        model = ChirpRegressor.build(Dinov2Model(Dinov2Config(**size, attn_implementation="sdpa")), seed=0)
    return (model.merged() if merged else model).to(device())


def anatomy_of(model: ChirpRegressor):
    """The blocks and heads of a model."""
    from vitmech_utils.model.anatomy import find_blocks

    return find_blocks(model)


def pixels_of(images: ChirpDataset) -> torch.Tensor:
    """All pictures of a small data set."""
    return stack(images, len(images))["pixel_values"]


def operations(call: Callable[[], object]) -> int:
    """The floating-point operations of a call, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


_peaks: dict[torch.dtype, float] = {}


def peak(dtype: torch.dtype, options: argparse.Namespace) -> float:
    """Operations per second of a large product of random matrices: the best of a few."""
    if dtype not in _peaks:
        one, two = (
            torch.randn(options.matrix, options.matrix, device=device(), dtype=dtype) for _ in range(2)
        )
        one @ two
        best = min(seconds(lambda: [one @ two for _ in range(5)], wall_clock) / 5 for _ in range(3))
        _peaks[dtype] = 2 * options.matrix**3 / best
    return _peaks[dtype]


def share_row(
    what: str, flops: float, taken: list[float], dtype: torch.dtype, options: argparse.Namespace
) -> Row:
    """The share of the card's own peak that was reached."""
    most = peak(dtype, options)
    shares = [100 * flops / time / most for time in taken]
    how = f"{flops / min(taken) / TERA:.1f} of {most / TERA:.1f} TFLOP/s"
    return row(what, shares, "percent of a large matrix product's rate", how=how)


def name_of(dtype: torch.dtype) -> str:
    """A number format's name."""
    return str(dtype).removeprefix("torch.")


def clear_peak() -> None:
    """Begin to note the most memory taken."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> str:
    """The most memory that tensors took on the GPU since then."""
    if not torch.cuda.is_available():
        return "memory not measured"
    return f"at most {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"


@contextmanager
def tf32() -> Iterator[None]:
    """Let float32 products and convolutions be done in TF32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


PARTS = {
    "drawing": ("Drawing images beside the GPU", drawing),
    "composing": ("Images kept as parts", composing),
    "training": ("Training steps", training),
    "sweeps": ("Sweeps of all heads", sweeps),
    "precision": ("Number formats", precision),
    "devices": ("The same heads on two machines", devices),
}


def main() -> int:
    """Measure part by part; 1 where one failed."""
    global _random
    options = _options()
    _random = options.random
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if not _random:
        load_backbone()
    started, clock, found = datetime.now(UTC), time.perf_counter(), []
    for name in options.parts:
        title, measure = PARTS[name]
        begun = time.perf_counter()
        try:
            rows, failed = tuple(measure(options)), ""
        except Exception as error:  # one part's failure is its row; the others go on
            traceback.print_exc()
            rows, failed = (), f"{type(error).__name__}: {error}"[:200]
        taken = round(time.perf_counter() - begun, 1)
        found.append(Benchmark(name=name, title=title, seconds=taken, rows=rows, failed=failed))
        print("\n".join([f"== {title}: {taken} s", *map(as_line, rows)]), flush=True)
        record = Record(
            sizes="quick" if options.quick else "full",
            started=started.isoformat(timespec="seconds"),
            wall_seconds=round(time.perf_counter() - clock, 1),
            code=code_version(ROOT),
            device=machine(str(device())),
            packages=package_versions(),
            benchmarks=tuple(found),
        )
        write_json(options.json, json.loads(record.model_dump_json()))
    return 1 if any(benchmark.failed for benchmark in found) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument(
        "--json", type=Path, default=ROOT / "benchmarks" / "gpu.json", help="where to keep the record"
    )
    parser.add_argument(
        "--stored", type=Path, default=EXACT, help="exact predictions from a CPU (see exact.py)"
    )
    parser.add_argument("--random", action="store_true", help="random weights instead of the backbone's")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes: shows that it works, measures little"
    )
    options = parser.parse_args()
    for name, (full, quick) in SIZES.items():
        setattr(options, name, quick if options.quick else full)
    return options


if __name__ == "__main__":
    raise SystemExit(main())
