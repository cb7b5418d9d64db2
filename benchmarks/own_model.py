"""A whole study of a model of one's own, as `vitmech study` makes it: minutes, where they go, and memory.

    python benchmarks/own_model.py [--threads 2] [--images 256] [--layers 12]

The model has the shape of a ViT-B/16 (768 wide, 12 heads a layer, 224 pixels, 197 tokens) and random weights; images
are noise in folders of ten classes, each with a mask of one box. Neither changes what the study computes, or how often.
The command runs in a process of its own, from its start to the written page.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measuring import row, start
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification

from vitmech_utils.pipeline.benchmarks import Row

WIDTH, HEADS, SIDE, CLASSES = 768, 12, 224, 10


def write_model(folder: Path, layers: int) -> None:
    """A classifier of random weights, as `save_pretrained` writes it, and how its images are prepared."""
    torch.manual_seed(0)
    names = {number: f"class {number}" for number in range(CLASSES)}
    config = ViTConfig(
        hidden_size=WIDTH, num_hidden_layers=layers, num_attention_heads=HEADS, intermediate_size=4 * WIDTH,
        image_size=SIDE, patch_size=16, id2label=names, label2id={name: number for number, name in names.items()},
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    recipe = {"do_resize": True, "size": {"height": SIDE, "width": SIDE}, "resample": 2, "do_rescale": True,
              "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(recipe))


def write_images(folder: Path, count: int) -> None:
    """Noise by class in `val`, and a mask of each in `masks`."""
    rng = np.random.default_rng(0)
    for number in range(count):
        kind = f"class {number % CLASSES}"
        mask = np.zeros((SIDE, SIDE), np.uint8)
        top, left = rng.integers(0, SIDE - 64, 2)
        mask[top : top + 64, left : left + 64] = 1
        for name, picture in (("val", rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)), ("masks", mask)):
            place = folder / name / kind
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(place / f"{number:04}.png")


def studied(layers: int, images: int, threads: int) -> tuple[float, float, dict[str, float], float]:
    """Seconds of the command by the clock and of processor time, of each of its parts, and its memory in GiB."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_model(root / "model", layers)
        write_images(root, images)
        command = [
            sys.executable, "-m", "vitmech_utils.cli", "study", root / "model", root / "val", "--labels", "folders",
            "--task", "cross-entropy", "--masks", root / "masks", "--regions", "1=box", "--limit", images,
            "--device", "cpu", "--out", root / "study",
        ]  # fmt: skip
        threading = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        begun = time.perf_counter()
        subprocess.run([*map(str, command)], check=True, env={**os.environ, **threading}, stdout=sys.stderr)
        took = time.perf_counter() - begun
        parts = json.loads((root / "study" / "study.json").read_text())["seconds"]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    memory = used.ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    return took, used.ru_utime + used.ru_stime, parts, memory


def measure(options: argparse.Namespace) -> list[Row]:
    """The whole command, its parts and its memory."""
    took, processor, parts, memory = studied(options.layers, options.images, options.threads)
    how = (
        f"{options.layers} layers of {HEADS} heads, {WIDTH} wide, {options.images} images of {SIDE} pixels with masks, "
        f"float32, {options.threads} thread(s), once"
    )
    named = parts | {"reading, checking and all else": took - sum(parts.values())}
    return [
        row("A whole study of a ViT-B-shaped model", [took / 60], "minutes", how=how),
        row("Processor time of it", [processor / 60], "minutes"),
        *(row(f"Of it: {name}", [seconds / 60], "minutes") for name, seconds in named.items()),
        row("Largest memory of a whole study", [memory], "GiB"),
    ]


if __name__ == "__main__":
    start(
        __doc__, "A study of an own model", measure,
        full={"threads": 2, "layers": 12, "images": 256},
        quick={"threads": 2, "layers": 2, "images": 72},
    )  # fmt: skip
