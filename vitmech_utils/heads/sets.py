"""Predict without whole sets of heads, each set on the images that are asked for, and tabulate their effects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils.heads.hooks import Head, change_heads
from vitmech_utils.heads.replacements import HOOK_MODES, check_mode, check_model, evaluating, replacement
from vitmech_utils.heads.replay import Replay, can_replay, predict
from vitmech_utils.model.anatomy import Anatomy
from vitmech_utils.statistics import adjust, effect_intervals, paired_p_values, percent_effect

Heads = frozenset[Head]


@dataclass(frozen=True)
class SetPredictions:
    """Predictions with every head in place, and without each set of heads, on the same images.

    `ablated[i]` belongs to `sets[i]`, pairs of layer and head (0-based). `method` is `replay` (what comes before the
    first ablated layer is run once), `hook` (one full pass for every set and image) or `linearized`.
    """

    baseline: Float[Tensor, "image target"]
    ablated: Float[Tensor, "set image target"]
    sets: tuple[Heads, ...]
    mode: str
    method: str

    def __getitem__(self, part: slice) -> SetPredictions:
        """A range of the sets, on the same images."""
        return SetPredictions(self.baseline, self.ablated[part], self.sets[part], self.mode, self.method)

    def on(self, images: slice) -> SetPredictions:
        """The same sets on a range of the images."""
        return SetPredictions(
            self.baseline[images], self.ablated[:, images], self.sets, self.mode, self.method
        )

    def errors(
        self, labels: Float[Tensor, "image target"]
    ) -> tuple[Float[ndarray, "set image"], Float[ndarray, " image"]]:
        """Squared errors without each set, and with all heads, averaged over the targets; standardized labels."""
        truth = labels.cpu().double()
        without, baseline = (
            (found - truth).square().mean(-1).numpy() for found in (self.ablated, self.baseline)
        )
        return without, baseline


def predict_without_sets(
    model: nn.Module,
    pixel_values: Float[Tensor, "image 3 height width"],
    sets: Sequence[Iterable[Head]],
    mode: str = "mean",
    *,
    reference: Tensor | None = None,
    donors: Tensor | None = None,
    batch: int = 32,
    seed: int = 0,
    replay: bool = True,
) -> SetPredictions:
    """Predict every image without each of the sets of heads, all of a set ablated together.

    A set holds pairs of layer and head, 0-based; the empty set gives the baseline. Modes and their arguments are
    those of `sweep`, without `published-code`. `batch` bounds the (set, image) pairs held at once. `replay=False`
    runs one full pass for each through plain hooks: the slow reference.

    Raises `ValueError` (mode, images, unmerged adapter, a set that names a head twice), `IndexError` for a head that
    the model does not have, `AnatomyError`.
    """
    chosen = tuple(checked_set(pairs) for pairs in sets)
    images = len(pixel_values)
    tests = [(image, place) for place in range(len(chosen)) for image in range(images)]
    baseline, found, method = predict_tests(
        model, pixel_values, [(image, chosen[place]) for image, place in tests], mode,
        reference=reference, donors=donors, batch=batch, seed=seed, replay=replay,
    )  # fmt: skip
    ablated = found.reshape(len(chosen), images, baseline.shape[1])
    return SetPredictions(baseline, ablated, chosen, mode, method)


def predict_tests(
    model: nn.Module,
    pixel_values: Float[Tensor, "image 3 height width"],
    tests: Sequence[tuple[int, Heads]],
    mode: str = "mean",
    *,
    reference: Tensor | None = None,
    donors: Tensor | None = None,
    batch: int = 32,
    seed: int = 0,
    replay: bool = True,
) -> tuple[Float[Tensor, "image target"], Float[Tensor, "test target"], str]:
    """Predict single images without single sets: `tests` pairs the number of an image with a set of heads.

    Returns the baseline of all images, the outcome of each test in order, float64 on the CPU, and the method.
    Arguments and errors as in `predict_without_sets`.
    """
    anatomy = check_model(model)
    if mode not in HOOK_MODES:
        raise ValueError(f"mode is {mode!r}, expected one of {', '.join(HOOK_MODES)}")
    check_mode(mode, pixel_values, donors, reference)
    if batch < 1:
        raise ValueError(f"batch is {batch}, expected at least 1 (set, image) pair")
    for layer, head in sorted(set().union(*(heads for _, heads in tests))):
        if not 0 <= layer < anatomy.layers:
            raise IndexError(f"layer {layer} does not exist: this model has layers 0 to {anatomy.layers - 1}")
        anatomy.columns(head, layer)
    weight = next(model.parameters())
    baselines: list[Tensor] = []
    outcome: Tensor | None = None
    with evaluating(model), torch.inference_mode():
        new = replacement(
            model, anatomy, pixel_values, mode, reference=reference, donors=donors, batch=batch, seed=seed
        )
        replay = replay and can_replay(model, anatomy, pixel_values[:1].to(weight))
        size = min(batch, 16)
        for start in range(0, len(pixel_values), size):
            images = pixel_values[start : start + size].to(weight)
            stop = start + len(images)
            members = [
                (i, image - start, heads) for i, (image, heads) in enumerate(tests) if start <= image < stop
            ]
            run = _replayed if replay else _hooked
            baseline, rows = run(model, anatomy, images, new(start, stop), [m[1:] for m in members], batch)
            baselines.append(baseline)
            if outcome is None:
                outcome = torch.empty(len(tests), baseline.shape[1], dtype=torch.float64)
            outcome[[m[0] for m in members]] = rows
    return torch.cat(baselines), outcome, "replay" if replay else "hook"


def set_effects(
    predictions: SetPredictions,
    labels: Float[Tensor, "image target"],
    single: SetPredictions,
    names: Sequence[str],
    bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare what sets of heads do together with the sum of what their heads do one at a time.

    `single` holds the same images without each head by itself (sets of one head). Returns one row per set, named by
    `names`: set, heads, images, effect (percent of the baseline's MSE, all of the set ablated), sum_of_single,
    excess (effect minus that sum, in percentage points of the baseline), low_T, high_T of each quantity T (paired
    bootstrap over images), p_value (sign flips of the excess) and q_value (Benjamini-Hochberg over the rows). A
    positive excess means that heads stand in for each other, a negative one that they work in series or each
    undo the other's harm. Raises `ValueError` where a head of a set has no single row.
    """
    joint, baseline = predictions.errors(labels)
    alone, _ = single.errors(labels)
    places = {next(iter(heads)): place for place, heads in enumerate(single.sets) if len(heads) == 1}
    missing = sorted(set().union(*predictions.sets) - set(places))
    if missing:
        raise ValueError(
            f"no single effect of {missing[:3]} (layer, head): predict without each of the sets' heads first"
        )
    deltas = alone - baseline
    added = np.stack(
        [deltas[[places[head] for head in heads]].sum(0) if heads else np.zeros(baseline.size)
         for heads in predictions.sets]
    )  # fmt: skip
    columns: dict[str, object] = {
        "set": list(names),
        "heads": [len(heads) for heads in predictions.sets],
        "images": baseline.size,
    }
    excess = joint - baseline - added
    for name, changed in (
        ("effect", joint),
        ("sum_of_single", baseline + added),
        ("excess", baseline + excess),
    ):
        low, high = effect_intervals(changed, baseline, bootstrap, confidence, seed)
        columns |= {name: percent_effect(changed, baseline), f"low_{name}": low, f"high_{name}": high}
    p_values = paired_p_values(excess, bootstrap, seed)
    return pd.DataFrame(columns | {"p_value": p_values, "q_value": adjust(p_values)})


def singles(model_heads: Iterable[Head]) -> list[Heads]:
    """Each head as a set of its own."""
    return [frozenset({pair}) for pair in model_heads]


def groups(table: pd.DataFrame, column: str) -> Mapping[str, Heads]:
    """The heads of a table (layer, head, both 0-based), put into sets by what `column` says of them.

    A cell may name several things, joined by " + " (regions): the head is then in the set of each. Empty: in none.
    """
    found: dict[str, set[Head]] = {}
    for layer, head, text in zip(table["layer"], table["head"], table[column], strict=True):
        for name in str(text).split(" + "):
            if name:
                found.setdefault(name, set()).add((int(layer), int(head)))
    return {name: frozenset(heads) for name, heads in sorted(found.items())}


def checked_set(pairs: Iterable[Head]) -> Heads:
    """Pairs of layer and head as a set; `ValueError` where one is named twice."""
    listed = [(int(layer), int(head)) for layer, head in pairs]
    if len(set(listed)) < len(listed):
        twice = next(pair for pair in listed if listed.count(pair) > 1)
        raise ValueError(f"the set names layer {twice[0]}, head {twice[1]} twice, expected each head once")
    return frozenset(listed)


def _masks(anatomy: Anatomy, rows: Sequence[Heads], device: torch.device) -> dict[int, Tensor]:
    """For every layer that loses heads in some row: which ones, [row, 1, head, 1]."""
    found: dict[int, Tensor] = {}
    for row, heads in enumerate(rows):
        for layer, head in heads:
            mask = found.setdefault(
                layer, torch.zeros(len(rows), 1, anatomy.heads, 1, dtype=torch.bool, device=device)
            )
            mask[row, 0, head, 0] = True
    return found


def _changes(masks: dict[int, Tensor], new: list[Tensor], image: Tensor) -> dict:
    def change(layer: int):
        own = new[layer] if len(new[layer]) == 1 else new[layer][image]
        return lambda present: torch.where(masks[layer], own[:, : present.shape[1]], present)

    return {layer: change(layer) for layer in masks}


def _replayed(
    model: nn.Module, anatomy: Anatomy, images: Tensor, new: list[Tensor], tests: list, batch: int
) -> tuple[Tensor, Tensor]:
    run = Replay(model, anatomy, images)
    outcome = torch.empty(len(tests), run.predictions.shape[1], dtype=torch.float64)
    by_layer: dict[int, list[int]] = {}
    for place, (image, heads) in enumerate(tests):
        if heads:
            by_layer.setdefault(min(heads)[0], []).append(place)
        else:
            outcome[place] = run.predictions[image].cpu().double()
    for layer, places in by_layer.items():
        difference, block = new[layer] - run.heads[layer], anatomy.blocks[layer]
        for start in range(0, len(places), batch):
            part = places[start : start + batch]
            image = torch.tensor([tests[place][0] for place in part], device=images.device)
            masks = _masks(anatomy, [tests[place][1] for place in part], images.device)
            lost = block.numbers.pick(difference[image] * masks.pop(layer), 2).flatten(2)
            change = nn.functional.linear(lost, block.output.weight)
            with change_heads(model, _changes(masks, new, image)):
                outcome[part] = run.resume(layer, image, change).cpu().double()
    return run.predictions.cpu().double(), outcome


def _hooked(
    model: nn.Module, anatomy: Anatomy, images: Tensor, new: list[Tensor], tests: list, batch: int
) -> tuple[Tensor, Tensor]:
    baseline = predict(model, images).cpu().double()
    outcome = torch.empty(len(tests), baseline.shape[1], dtype=torch.float64)
    for start in range(0, len(tests), batch):
        part = tests[start : start + batch]
        image = torch.tensor([number for number, _ in part], device=images.device)
        masks = _masks(anatomy, [heads for _, heads in part], images.device)
        with change_heads(model, _changes(masks, new, image)):
            outcome[start : start + len(part)] = predict(model, images[image]).cpu().double()
    return baseline, outcome
