"""A model that the book did not train, made in seconds: a small ViT that tells shapes beside a distractor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.model.backbones import without_progress_bars
from vitmech_utils.own_folders import write_folder

CLASSES = ("cross", "disk", "square")
COLOURS = ((120, 0, 0), (0, 120, 0), (0, 0, 120))
SIDES = ("bar left", "bar right")
REGIONS = {1: "shape", 2: "bar"}
SIDE, PATCH, RADIUS = 48, 8, 7
STEPS, BATCH, RATE = 160, 64, 2e-3
PER_CLASS = 32
MARK = "toy.txt"


@checked_arguments()
def settings(asked: Mapping[str, object], folder: Path, seed: int = 0) -> dict[str, object]:
    """What a `Study` is made of: what was asked for, or the toy in `folder` (made where it is not there yet)."""
    given = {name: value for name, value in asked.items() if value is not None}
    if "model" in given or "images" in given:
        return given
    made = toy(folder / "toy", seed)
    return {
        "model": made / "tuned", "images": made / "val", "labels": "folders", "task": "cross-entropy",
        "masks": made / "masks", "regions": REGIONS, "base": made / "base",
    }  # fmt: skip


@checked_arguments()
def toy(folder: Path, seed: int = 0) -> Path:
    """Write a base model, a model fine-tuned from it, images by class and their masks; whole or not at all.

    The base was trained to tell on which side of the image a bright bar stands, the tuned one which shape is shown,
    with the same bars as distractors.
    """
    if (folder / MARK).is_file():
        return folder
    rng = np.random.default_rng(seed)

    def fill(ready: Path) -> None:
        with torch.random.fork_rng(devices=[]), without_progress_bars():
            torch.manual_seed(seed)
            model = _train(_model(SIDES), rng, 2)
            model.save_pretrained(ready / "base")
            tuned = _model(CLASSES)
            tuned.vit.load_state_dict(model.vit.state_dict())
            _train(tuned, rng, 1).save_pretrained(ready / "tuned")
        for number, name in enumerate(CLASSES):
            for kind in ("val", "masks"):
                (ready / kind / name).mkdir(parents=True)
            for place in range(PER_CLASS):
                picture, mask, _ = _draw(rng, number)
                Image.fromarray(picture).save(ready / "val" / name / f"{place:02}.png")
                Image.fromarray(mask).save(ready / "masks" / name / f"{place:02}.png")
        (ready / MARK).write_text(f"shapes and bars, seed {seed}\n")

    return write_folder(folder, fill, ("base", "tuned", "val", "masks", MARK), (MARK,), ValueError)


@checked_arguments()
def sections(page: Path) -> list[str]:
    """The headings of a report, in order."""
    text = page.read_text(encoding="utf-8")
    return [part.split("</h2>")[0] for part in text.split("<h2>")[1:]]


@checked_arguments()
def scored(score: Mapping[str, float], labels: torch.Tensor | None) -> dict[str, float]:
    """The accuracy of a classifier beside that of a guess, and the guess's loss; of another model nothing.

    `score` is as `Study.score` gives it. The guess knows how frequent each class is, and nothing of the image: its
    cross-entropy is the entropy of the labels, its accuracy the share of the most frequent one.
    """
    if "accuracy" not in score or labels is None:
        return {}
    parts = torch.bincount(labels).double() / len(labels)
    loss = float(torch.special.entr(parts).sum())
    return {"accuracy": score["accuracy"], "guess_accuracy": float(parts.max()), "guess_loss": loss}


@checked_arguments()
def may_be_strongest(effects: pd.DataFrame) -> pd.DataFrame:
    """The heads whose effect's interval reaches that of the largest effect, which comes first."""
    ordered = effects.sort_values("effect", ascending=False)
    return ordered[ordered["high"] >= ordered["low"].iloc[0]]


def _draw(rng: np.random.Generator, shape: int) -> tuple[np.ndarray, np.ndarray, int]:
    """A picture, its mask (1 shape, 2 bar), and on which side the bar is."""
    y, x = np.mgrid[:SIDE, :SIDE]
    row, column = rng.integers(RADIUS + 2, SIDE - RADIUS - 2, 2)
    down, across = abs(y - row), abs(x - column)
    shapes = (
        ((down < 3) & (across < RADIUS)) | ((across < 3) & (down < RADIUS)),
        down**2 + across**2 < RADIUS**2,
        (down < RADIUS - 1) & (across < RADIUS - 1),
    )
    side = int(rng.integers(2))
    bar = (x < 4) if side == 0 else (x >= SIDE - 4)
    picture = rng.normal(60, 25, (SIDE, SIDE, 3))
    picture[bar] += (90, 90, 0)
    picture[shapes[shape]] += COLOURS[shape]
    mask = np.where(shapes[shape], 1, np.where(bar, 2, 0)).astype(np.uint8)
    return np.clip(picture, 0, 255).astype(np.uint8), mask, side


def _batches(rng: np.random.Generator, what: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Images and labels without end: the shape (1), or the side of the bar (2)."""
    while True:
        shapes = rng.integers(len(CLASSES), size=BATCH)
        drawn = [_draw(rng, int(shape)) for shape in shapes]
        pixels = torch.from_numpy(np.stack([picture for picture, _, _ in drawn])).permute(0, 3, 1, 2) / 255
        yield pixels, torch.from_numpy(shapes) if what == 1 else torch.tensor([side for _, _, side in drawn])


def _model(names: tuple[str, ...]) -> ViTForImageClassification:
    config = ViTConfig(
        hidden_size=48, num_hidden_layers=4, num_attention_heads=4, intermediate_size=96, image_size=SIDE,
        patch_size=PATCH, num_labels=len(names), id2label=dict(enumerate(names)), hidden_dropout_prob=0.0,
        label2id={name: number for number, name in enumerate(names)}, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return ViTForImageClassification(config)


def _train(
    model: ViTForImageClassification, rng: np.random.Generator, what: int
) -> ViTForImageClassification:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    for (pixels, labels), _step in zip(_batches(rng, what), range(STEPS), strict=False):
        # Smoothed, so that it is never sure without end: the effects of heads can then be seen.
        loss = nn.functional.cross_entropy(model(pixels).logits, labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()
