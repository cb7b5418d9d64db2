"""Time the sweep of all heads against a plain hook per head, nnsight, and the published procedure.

    python benchmarks/ablation.py [--images 2] [--adapter published/adapters/seed-0]
    python benchmarks/ablation.py --methods sweep,nnsight      # in an environment that has nnsight
    python benchmarks/ablation.py --grow                       # cost against images, heads and layers

Every method runs on the same model and images in a process of its own, turn by turn. CPU seconds are compared, the
least of all turns, so that other work on the machine disturbs little; peak memory is the process's own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time

import numpy as np
import torch

from vitmech_utils.data.dataset import ChirpDataset, stack
from vitmech_utils.heads.ablation import HeadPredictions, predict_without_heads
from vitmech_utils.heads.first_order import first_order
from vitmech_utils.heads.layers import squared_errors
from vitmech_utils.heads.published_code import literal_procedure
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.model.regressor import ChirpRegressor


def build(settings: dict) -> ChirpRegressor:
    """The model under test: an adapter folder, or a random DINOv2 of given layers, heads, head size and patch."""
    if "adapter" in settings:
        return ChirpRegressor.load(settings["adapter"]).merged()
    if "backbone" in settings:
        return ChirpRegressor.build(settings["backbone"], lora=None)
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=settings["heads"] * settings["size"], num_hidden_layers=settings["layers"],
        num_attention_heads=settings["heads"], image_size=224, patch_size=settings["patch"],
    )  # fmt: skip
    return ChirpRegressor.build(Dinov2Model(config), lora=None)


def sweep(model, pixels) -> np.ndarray:
    """Ours: the prefix once, heads batched, the suffix alone."""
    return predict_without_heads(model, pixels, "zero", batch=12).ablated.numpy()


def hook(model, pixels) -> np.ndarray:
    """One full forward pass per head through a plain hook."""
    return predict_without_heads(model, pixels, "zero", batch=10**6, replay=False).ablated.numpy()


def published(model, pixels) -> np.ndarray:
    """The published package's loop: one full forward pass per scenario, weights zeroed between passes."""
    with torch.inference_mode():
        return literal_procedure(model, pixels, batch=len(pixels))[1].flatten(0, 1).numpy()


def slope(model, pixels) -> np.ndarray:
    """The first-order estimate of all heads."""
    return first_order(model, pixels, torch.zeros(len(pixels), 3).double(), bootstrap=1)["effect"].to_numpy()


def forward(model, pixels) -> np.ndarray:
    """One plain forward pass."""
    with torch.inference_mode():
        return model(pixels).logits.numpy()


def nnsight(model, pixels) -> np.ndarray:
    """nnsight: one trace per head, the head's columns of the output projection's input set to zero."""
    from nnsight import NNsight

    anatomy, wrapped, found = find_blocks(model), NNsight(model), []
    for layer in range(anatomy.layers):
        for head in range(anatomy.heads):
            columns = anatomy.columns(head)
            with torch.inference_mode(), wrapped.trace(pixels):
                wrapped.backbone.encoder.layer[layer].attention.o_proj.input[:, :, columns] = 0
                logits = wrapped.head.output.save()
            found.append(logits.numpy())
    return np.stack(found)


METHODS = {f.__name__: f for f in (sweep, hook, published, nnsight, slope, forward)}


def arithmetic_limit(model: ChirpRegressor) -> float:
    """Multiplications of a full pass per head over those that no exact sweep can avoid.

    Unavoidable, per head and image: the ablated layer's MLP (what goes into it has changed), every layer after it,
    and of the last layer one CLS row, which is neglected here.
    """
    anatomy = find_blocks(model)
    block, width = anatomy.blocks[0], anatomy.heads * anatomy.head_size
    tokens = (224 // anatomy.patch) ** 2 + anatomy.prefix
    weights, attention = (
        sum(m.weight.numel() for m in part.modules() if isinstance(m, torch.nn.Linear))
        for part in (block.block, block.attention)
    )
    full = tokens * weights + 2 * tokens**2 * width
    embedding = tokens * 3 * anatomy.patch**2 * width
    plain = anatomy.layers * (anatomy.layers * full + embedding)
    needed = sum(
        tokens * (weights - attention) + (anatomy.layers - 2 - i) * full for i in range(anatomy.layers - 1)
    )
    return plain / needed


def work(name: str, settings: dict, images: int, threads: int, queue) -> None:
    """Run one method once, after a warm-up on one forward pass; report CPU and wall seconds and peak memory."""
    torch.set_num_threads(threads)
    model = build(settings)
    pixels = stack(ChirpDataset(images, split="held-out"), images)["pixel_values"]
    forward(model, pixels)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu, wall = time.process_time(), time.perf_counter()
    outcome = METHODS[name](model, pixels)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    queue.put(
        {"cpu": cpu, "wall": wall, "peak": peak / 1024, "more": (peak - held) / 1024, "outcome": outcome}
    )


def measure(methods: list[str], settings: dict, images: int, turns: int, threads: int) -> dict[str, dict]:
    """The best turn of each method."""
    context, best = multiprocessing.get_context("spawn"), {}
    for _ in range(turns):
        for name in methods:
            queue = context.Queue()
            process = context.Process(target=work, args=(name, settings, images, threads, queue))
            process.start()
            found = queue.get()
            process.join()
            if name not in best or found["cpu"] < best[name]["cpu"]:
                best[name] = found
    return best


def images_saved(model: ChirpRegressor, images: int) -> tuple[float, float]:
    """How many times fewer images a paired interval needs than an unpaired one of the same width; median and least.

    The published procedure reports one loss per scenario beside one baseline loss, so its reader can only treat the
    two as separate samples. Keeping each image's error with and without the head gives the paired interval.
    """
    data = stack(ChirpDataset(images, split="held-out"), images)
    found: HeadPredictions = predict_without_heads(model, data["pixel_values"], "zero", batch=12)
    changed, baseline = squared_errors(found, data["labels"].double())
    unpaired, paired = changed.var(1) + baseline.var(), (changed - baseline).var(1)
    return float(np.median(unpaired / paired)), float((unpaired / paired).min())


def report(settings: dict, methods: list[str], images: int, turns: int, threads: int) -> dict[str, dict]:
    """Print one table."""
    model = build(settings)
    anatomy, limit = find_blocks(model), arithmetic_limit(model)
    tests = anatomy.layers * anatomy.heads * images
    best = measure(methods, settings, images, turns, threads)
    print(f"\n{anatomy.layers} layers x {anatomy.heads} heads, {images} images, {threads} thread(s)")
    print(
        "| method | CPU s | images x heads / CPU s | peak MiB | above the model's | x plain hook | difference |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, found in best.items():
        if name in ("slope", "forward"):
            continue
        speed = best["hook"]["cpu"] / found["cpu"] if "hook" in best else float("nan")
        same = (
            np.abs(found["outcome"] - best["sweep"]["outcome"]).max() if name != "published" else float("nan")
        )
        print(
            f"| {name} | {found['cpu']:.2f} | {tests / found['cpu']:.1f} | {found['peak']:.0f} | {found['more']:.0f} "
            f"| {speed:.2f} | {same:.1e} |"
        )
    if "hook" in best:
        ratio = best["hook"]["cpu"] / best["sweep"]["cpu"]
        print(f"arithmetic limit {limit:.2f}x; the sweep reaches {ratio / limit:.0%} of it")
    if "slope" in best and "forward" in best:
        print(f"first-order estimate: {best['slope']['cpu'] / best['forward']['cpu']:.2f} forward passes")
    return best


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapter", help="adapter folder; default: the embedded backbone with a fresh head")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--methods", default="forward,slope,sweep,hook,published")
    parser.add_argument("--grow", action="store_true")
    parser.add_argument(
        "--paired", type=int, metavar="IMAGES", help="also: images saved by pairing, on so many images"
    )
    args = parser.parse_args()
    if args.paired and not {"sweep", "published"} <= set(args.methods.split(",")):
        parser.error(f"--paired compares sweep with published, but --methods is {args.methods}: name both")
    settings = {"adapter": args.adapter} if args.adapter else {"backbone": "dinov2-small"}
    if args.grow:
        base = {"layers": 6, "heads": 3, "size": 32, "patch": 28}
        for change in ({}, {"heads": 6, "size": 16}, {"layers": 12}, {"images": 8}):
            shape = {**base, **{k: v for k, v in change.items() if k != "images"}}
            report(shape, ["sweep", "hook"], change.get("images", 4), args.turns, args.threads)
        return
    best = report(settings, args.methods.split(","), args.images, args.turns, args.threads)
    if args.paired:
        median, least = images_saved(build(settings), args.paired)
        speed = best["published"]["cpu"] / best["sweep"]["cpu"]
        print(
            f"for the same interval width the published procedure needs {median:.0f}x the images (median; at least "
            f"{least:.1f}x), so {speed * median:.0f}x the time (at least {speed * least:.1f}x)"
        )


if __name__ == "__main__":
    main()
