"""Predict without sets of heads, each set on the images that are asked for; a single head is a set of one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils import tasks
from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.constants import Reference
from vitmech_utils.heads.effects import Answers, Losses, losses_of
from vitmech_utils.heads.hooks import Head, HeadSet, change_heads, check_layer
from vitmech_utils.heads.replacements import (
    HOOK_MODES,
    check_images,
    check_mode,
    check_model,
    check_shape,
    evaluating,
    replacement,
    verify,
)
from vitmech_utils.heads.replay import Replay, ReplayError, predict
from vitmech_utils.intervals import effect_intervals
from vitmech_utils.model.anatomy import Anatomy
from vitmech_utils.statistics import adjust, effect_sizes, paired_p_values
from vitmech_utils.tasks import Loss, Task

MOST_KEPT = 2**28
"""Numbers of predictions that are kept at most (2 GiB); a loss needs none of them to be kept."""
_IMAGES_AT_ONCE = 16


@dataclass(frozen=True)
class HeadPredictions(Answers):
    """Predictions with every head in place and with each one ablated, on the same images.

    `ablated[i]` belongs to layer `layers[i]` and head `heads[i]` (0-based). `method` says how they were
    computed: `replay` (prefix once, suffix alone), `hook` (full passes), `published-code` or `linearized`. `task` and
    `targets` are those of the model, as far as it names any.
    """

    baseline: Float[Tensor, "image ..."]
    ablated: Float[Tensor, "test image ..."]
    layers: Int[ndarray, " test"]
    heads: Int[ndarray, " test"]
    mode: str
    method: str
    task: str = ""
    targets: tuple[str, ...] = ()

    @property
    def sets(self) -> tuple[HeadSet, ...]:
        """Each head as a set of its own."""
        return tuple(singles(zip(self.layers.tolist(), self.heads.tolist(), strict=True)))


@dataclass(frozen=True)
class SetPredictions(Answers):
    """Predictions with every head in place, and without each set of heads, on the same images.

    `ablated[i]` belongs to `sets[i]`, pairs of layer and head (0-based). `method`, `task` and `targets` are as in
    `HeadPredictions`.
    """

    baseline: Float[Tensor, "image ..."]
    ablated: Float[Tensor, "set image ..."]
    sets: tuple[HeadSet, ...]
    mode: str
    method: str
    task: str = ""
    targets: tuple[str, ...] = ()

    def __getitem__(self, part: slice) -> SetPredictions:
        """A range of the sets, on the same images."""
        return replace(self, ablated=self.ablated[part], sets=self.sets[part])


@checked_arguments(least={"batch": 1})
def predict_without_sets(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    sets: Sequence[Iterable[Head]],
    mode: str = "mean",
    *,
    task: Task | str | Loss | None = None,
    reference: Reference | None = None,
    donors: Tensor | None = None,
    batch: int = 32,
    seed: int = 0,
    replay: bool = True,
) -> SetPredictions:
    """Predict every image without each of the sets of heads, all of a set ablated together.

    A set holds pairs of layer and head, 0-based; the empty set gives the baseline. Modes and their arguments are
    those of `sweep`, without `published-code`. `batch` bounds the (set, image) pairs held at once. `replay=False`
    runs full passes through plain hooks: the slow reference. `task`, by default the model's own, is what
    `SetPredictions.losses` judges them by.

    Raises `ValueError` (mode, images, unmerged adapter, a set that names a head twice, outputs too large to keep:
    `losses_without_sets` keeps none), `IndexError` for a head that the model does not have, `AnatomyError`.
    """
    chosen = tuple(checked_set(pairs) for pairs in sets)
    baseline, found, method = predict_tests(
        model, pixel_values, every_test(chosen, len(pixel_values)), mode,
        reference=reference, donors=donors, batch=batch, seed=seed, replay=replay,
    )  # fmt: skip
    ablated = found.unflatten(0, (len(chosen), len(pixel_values)))
    return SetPredictions(baseline, ablated, chosen, mode, method, **task_of(model, task))


@checked_arguments(least={"batch": 1})
def losses_without_sets(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    labels: Tensor | None,
    sets: Sequence[Iterable[Head]],
    mode: str = "mean",
    *,
    task: Task | str | Loss | None = None,
    reference: Reference | None = None,
    donors: Tensor | None = None,
    batch: int = 32,
    seed: int = 0,
    replay: bool = True,
) -> Losses:
    """The loss of every image without each of the sets of heads, computed batch by batch: no outputs are kept.

    `labels` and `task` as in `sweep`, all else as in `predict_without_sets`. Outputs and labels that do not fit the
    task are refused (`ValueError`) after a pass of one image.
    """
    chosen = tuple(checked_set(pairs) for pairs in sets)
    keep = losses_for(model, pixel_values, labels, task)
    baseline, found, _ = predict_tests(
        model, pixel_values, every_test(chosen, len(pixel_values)), mode,
        reference=reference, donors=donors, batch=batch, seed=seed, replay=replay, keep=keep,
    )  # fmt: skip
    without = found.unflatten(0, (len(chosen), len(pixel_values)))
    return losses_of(keep.task, without, baseline, chosen, mode)


class Outputs:
    """Keep the outputs themselves, of which there must not be too many."""

    def begin(self, first: Tensor, rows: int) -> None:
        """Look at the outputs of one image, of which `rows` will follow."""
        if (numbers := rows * first.numel()) > MOST_KEPT:
            raise ValueError(
                f"the outputs are {tuple(first.shape[1:])} per image, {numbers * 8 / 2**30:.0f} GiB of them in all, "
                "expected few numbers to keep: use sweep or losses_without_sets, which keep losses alone"
            )

    def __call__(self, outputs: Tensor, _own: Tensor, _images: Tensor) -> Tensor:
        return outputs


class LossesFor:
    """Keep each image's loss, from outputs that are let go of at once."""

    def __init__(self, task: Task, labels: Tensor | None) -> None:
        self.task, self.labels = task, labels

    def begin(self, first: Tensor, _rows: int) -> None:
        """Refuse outputs and labels that do not fit, by the outputs of the first image."""
        self.task = self.task.fitted(first, self.labels)

    def __call__(self, outputs: Tensor, own: Tensor, images: Tensor) -> Tensor:
        return self.task(outputs, own if self.task.own_answer else self.labels[images])


@checked_arguments()
def losses_for(
    model: nn.Module, pixel_values: Tensor, labels: Tensor | None, task: Task | str | Loss | None
) -> LossesFor:
    """What `predict_tests` is to keep for a task; images and labels are checked as far as no pass is needed."""
    check_images(pixel_values, labels)
    return LossesFor(tasks.find(task, model, labels), labels)


@checked_arguments(least={"batch": 1})
def predict_tests(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    tests: Sequence[tuple[int, HeadSet]],
    mode: str = "mean",
    *,
    reference: Reference | None = None,
    donors: Tensor | None = None,
    batch: int = 32,
    seed: int = 0,
    replay: bool = True,
    keep: Outputs | LossesFor | None = None,
    anatomy: Anatomy | None = None,
) -> tuple[Float[Tensor, "image ..."], Float[Tensor, " test *kept"], str]:
    """Predict single images without single sets: `tests` pairs the number of an image with a set of heads.

    Returns what `keep` makes (default: the outputs) of the baseline of all images and of each test in order, float64 on
    the CPU, and the method. `anatomy` is `check_model(model)`, where it is known. Arguments and errors as in
    `predict_without_sets`.
    """
    keep, anatomy = keep or Outputs(), anatomy or check_model(model)
    if mode not in HOOK_MODES:
        raise ValueError(f"mode is {mode!r}, expected one of {', '.join(HOOK_MODES)}")
    check_shape(pixel_values)
    check_mode(mode, pixel_values, donors, reference)
    if batch < 1:
        raise ValueError(f"batch is {batch}, expected at least 1 (set, image) pair")
    for layer, head in sorted(set().union(*{heads for _, heads in tests})):
        anatomy.columns(head, check_layer(anatomy, layer))
    of_image: list[list[int]] = [[] for _ in range(len(pixel_values))]
    for place, (image, _) in enumerate(tests):
        of_image[image].append(place)
    weight = next(model.parameters())
    baselines: list[Tensor] = []
    outcome: Tensor | None = None
    verify(model, pixel_values)
    with evaluating(model), torch.inference_mode():
        first, replayed = _first_outputs(model, anatomy, pixel_values[:1].to(weight), replay)
        keep.begin(first, len(tests))
        new = replacement(
            model, anatomy, pixel_values, mode, reference=reference, donors=donors, batch=batch, seed=seed
        )
        size = _images_at_once(tests, batch)
        for start in range(0, len(pixel_values), size):
            images = pixel_values[start : start + size].to(weight)
            stop = start + len(images)
            places = sorted(place for image in of_image[start:stop] for place in image)
            part = _Part(model, anatomy, images, start, new(start, stop), [tests[place] for place in places])
            baseline, rows, replayed = part.run(batch, keep, replayed)
            baselines.append(baseline)
            if outcome is None:
                outcome = torch.empty(len(tests), *baseline.shape[1:], dtype=torch.float64)
            outcome[places] = rows
    return torch.cat(baselines), outcome, "replay" if replayed else "hook"


@checked_arguments()
def set_effects(
    predictions: Answers | Losses,
    labels: Tensor | None,
    single: Answers | Losses,
    names: Sequence[str],
    bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    *,
    task: Task | str | Loss | None = None,
) -> pd.DataFrame:
    """Compare what sets of heads do together with the sum of what their heads do one at a time.

    `single` holds the same images without each head by itself (sets of one head). Returns one row per set, named by
    `names`: set, heads, images, effect (all of the set ablated; percent of the baseline's loss, or in the task's unit),
    sum_of_single, excess (effect minus that sum), low_T, high_T of each quantity T (paired bootstrap over images),
    p_value (sign flips of the excess) and q_value (Benjamini-Hochberg over the rows). A positive excess means that
    heads stand in for each other, a negative one that they work in series or each undo the other's harm. Both may be
    predictions, judged by `task` as in `Answers.losses`, or losses. Raises `ValueError` where a head of a set has no
    single row.
    """
    joined, alone = (
        found if isinstance(found, Losses) else found.losses(labels, task) for found in (predictions, single)
    )
    together, baseline = joined.mean()
    places = {next(iter(heads)): place for place, heads in enumerate(alone.sets) if len(heads) == 1}
    missing = sorted(set().union(*joined.sets) - set(places))
    if missing:
        raise ValueError(
            f"no single effect of {missing[:3]} (layer, head): predict without each of the sets' heads first"
        )
    deltas = alone.of()
    added = np.stack(
        [deltas[[places[head] for head in heads]].sum(0) if heads else np.zeros(baseline.size)
         for heads in joined.sets]
    )  # fmt: skip
    columns: dict[str, object] = {
        "set": list(names),
        "heads": [len(heads) for heads in joined.sets],
        "images": baseline.size,
    }
    excess = together - baseline - added
    for name, changed in (
        ("effect", together),
        ("sum_of_single", baseline + added),
        ("excess", baseline + excess),
    ):
        low, high = effect_intervals(changed, baseline, bootstrap, confidence, seed, joined.relative)
        size = effect_sizes(changed, baseline, joined.relative)
        columns |= {name: size, f"low_{name}": low, f"high_{name}": high}
    p_values = paired_p_values(excess, bootstrap, seed)
    return pd.DataFrame(columns | {"p_value": p_values, "q_value": adjust(p_values)})


@checked_arguments()
def singles(model_heads: Iterable[Head]) -> list[HeadSet]:
    """Each head as a set of its own."""
    return [frozenset({pair}) for pair in model_heads]


@checked_arguments()
def groups(table: pd.DataFrame, column: str) -> Mapping[str, HeadSet]:
    """The heads of a table (layer, head, both 0-based), put into sets by what `column` says of them.

    A cell may name several things, joined by " + " (regions): the head is then in the set of each. Empty: in none.
    """
    found: dict[str, set[Head]] = {}
    for layer, head, text in zip(table["layer"], table["head"], table[column], strict=True):
        for name in str(text).split(" + "):
            if name:
                found.setdefault(name, set()).add((int(layer), int(head)))
    return {name: frozenset(heads) for name, heads in sorted(found.items())}


@checked_arguments()
def every_test(sets: Sequence[HeadSet], images: int) -> list[tuple[int, HeadSet]]:
    """Each set on each image, set by set."""
    return [(image, heads) for heads in sets for image in range(images)]


@checked_arguments()
def checked_set(pairs: Iterable[Head]) -> HeadSet:
    """Pairs of layer and head as a set; `ValueError` where one is named twice."""
    listed = [(int(layer), int(head)) for layer, head in pairs]
    if len(set(listed)) < len(listed):
        twice = next(pair for pair in listed if listed.count(pair) > 1)
        raise ValueError(f"the set names layer {twice[0]}, head {twice[1]} twice, expected each head once")
    return frozenset(listed)


@checked_arguments()
def task_of(model: nn.Module, task: Task | str | Loss | None = None) -> dict[str, object]:
    """A task's name and targets, as predictions carry them; the model's own by default, empty where it names none."""
    if task is None and not isinstance(getattr(model, "task", None), Task):
        return {"task": "", "targets": ()}
    found = tasks.find(task, model)
    return {"task": found.name, "targets": found.targets}


class _Part:
    """Some images, each without some sets of heads: `tests` pairs the number of an image with a set."""

    def __init__(
        self,
        model: nn.Module,
        anatomy: Anatomy,
        images: Tensor,
        start: int,
        new: list[Tensor],
        tests: list[tuple[int, HeadSet]],
    ) -> None:
        self.model, self.anatomy, self.images, self.start, self.new = model, anatomy, images, start, new
        self.tests = [(image - start, heads) for image, heads in tests]
        self._lost = [_by_layer(heads) for _, heads in tests]

    def run(self, batch: int, keep: Outputs | LossesFor, replay: bool) -> tuple[Tensor, Tensor, bool]:
        """What is kept of the baseline and of each test, and whether they were replayed: hooks are taken if need be."""
        if replay:
            try:
                run = Replay(self.model, self.anatomy, self.images)
            except ReplayError:
                replay = False
        own = run.predictions if replay else predict(self.model, self.images)
        _check_finite(own, self.start)
        numbers = torch.arange(self.start, self.start + len(self.images))
        self._own, self._keep = (
            own,
            lambda outputs, at: keep(outputs, own[at], numbers[at.cpu()]).cpu().double(),
        )
        baseline = self._keep(own, torch.arange(len(own), device=own.device))
        self._outcome = torch.empty(len(self.tests), *baseline.shape[1:], dtype=torch.float64)
        if replay:
            self._replayed(run, batch)
        else:
            self._hooked(batch)
        return baseline, self._outcome, replay

    def _replayed(self, run: Replay, batch: int) -> None:
        by_layer: dict[tuple[int, bool], list[int]] = {}
        for place, (_, heads) in enumerate(self.tests):
            key = (min(heads)[0], len(heads) == 1) if heads else (-1, True)
            by_layer.setdefault(key, []).append(place)
        for (layer, single), places in by_layer.items():
            if layer < 0:  # without no head: the baseline
                at = self._images_of(places)
                self._outcome[places] = self._keep(self._own[at], at)
                continue
            difference = self.new[layer] - run.heads[layer]
            if not single:
                self._together(run, layer, difference, places, batch)
                continue
            change = self._one_each(difference, layer)
            for start in range(0, len(places), batch):
                part = places[start : start + batch]
                at = self._images_of(part)
                self._outcome[part] = self._keep(run.resume(layer, at, change(part, at)), at)

    def _one_each(self, difference: Tensor, layer: int) -> Callable:
        """What single heads write less, by products with their own columns of the output projection alone."""
        block, numbers = self.anatomy.blocks[layer], self.anatomy.blocks[layer].numbers
        columns = block.output.weight.T.unflatten(0, (len(numbers.kept), numbers.size))
        columns = numbers.spread(columns, 0)  # [head, size, hidden]

        def change(part: list[int], at: Tensor) -> Tensor:
            heads = [next(iter(self.tests[place][1]))[1] for place in part]
            head = torch.tensor(heads, device=self.images.device)
            return torch.bmm(difference[at, :, head], columns[head])

        return change

    def _together(self, run: Replay, layer: int, difference: Tensor, places: list[int], batch: int) -> None:
        """Sets whose first layer is `layer`: those of an image run as one for as long as they lose the same heads."""
        block = self.anatomy.blocks[layer]
        of_image: dict[int, list[int]] = {}
        for place in places:
            of_image.setdefault(self.tests[place][0], []).append(place)
        images = torch.tensor(list(of_image), device=self.images.device)
        for rows, lost, shared in self._apart(list(of_image.values()), layer, batch):
            at = images[rows]
            missing = block.numbers.pick(difference[at] * self._mask(lost), 2).flatten(2)
            left = run.start(layer, at, nn.functional.linear(missing, block.output.weight))
            self._onwards(run, layer, left, at, shared, batch)

    def _onwards(
        self, run: Replay, layer: int, left: Tensor, at: Tensor, shared: list[list[int]], batch: int
    ) -> None:
        """From what left `layer` on: one row of `left` for all the tests that a list of `shared` names."""
        after, last = layer + 1, self.anatomy.layers - 1
        if after > last:
            self._note(run.finish(left, layer), at, shared)
            return
        for rows, lost, tests in self._apart(shared, after, batch):
            entering, own = left[rows], at[rows]
            changes = self._changes({after: self._mask(lost)}, own) if any(lost) else {}
            with change_heads(self.model, changes) if changes else nullcontext():
                found = run.finish(entering, layer) if after == last else run.advance(after, entering)
            if after == last:
                self._note(found, own, tests)
            else:
                self._onwards(run, after, found, own, tests, batch)

    def _apart(
        self, shared: list[list[int]], layer: int, batch: int
    ) -> Iterator[tuple[list[int], list[HeadSet], list[list[int]]]]:
        """Tests that shared a row until `layer`, parted by the heads that they lose there, in batches of even size.

        Yields the row that each came from, what it loses in `layer`, and its tests.
        """
        parted: list[tuple[int, HeadSet, list[int]]] = []
        for row, tests in enumerate(shared):
            found: dict[HeadSet, list[int]] = {}
            for place in tests:
                found.setdefault(self._lost[place].get(layer, frozenset()), []).append(place)
            parted += [(row, lost, own) for lost, own in found.items()]
        size = math.ceil(len(parted) / math.ceil(len(parted) / batch))
        for start in range(0, len(parted), size):
            rows, lost, tests = zip(*parted[start : start + size], strict=True)
            yield list(rows), list(lost), list(tests)

    def _note(self, outputs: Tensor, at: Tensor, shared: list[list[int]]) -> None:
        kept = self._keep(outputs, at)
        rows = [row for row, tests in enumerate(shared) for _ in tests]
        self._outcome[[place for tests in shared for place in tests]] = kept[rows]

    def _mask(self, lost: Sequence[HeadSet]) -> Tensor:
        """Which heads of one layer each row loses, [row, 1, head, 1]."""
        mask = torch.zeros(len(lost), 1, self.anatomy.heads, 1, dtype=torch.bool)
        for row, heads in enumerate(lost):
            for _, head in heads:
                mask[row, 0, head] = True
        return mask.to(self.images.device)

    def _hooked(self, batch: int) -> None:
        for start in range(0, len(self.tests), batch):
            part = list(range(start, min(start + batch, len(self.tests))))
            at, sets = self._images_of(part), {self.tests[place][1] for place in part}
            if len(sets) == 1:
                (heads,) = sets
                changes = {
                    (layer, head): self._written(layer, at)[:, :, head] for layer, head in sorted(heads)
                }
            else:
                changes = self._changes(self._masks(part), at)
            with change_heads(self.model, changes):
                self._outcome[part] = self._keep(predict(self.model, self.images[at]), at)

    def _images_of(self, places: list[int]) -> Tensor:
        return torch.tensor([self.tests[place][0] for place in places], device=self.images.device)

    def _written(self, layer: int, at: Tensor) -> Tensor:
        return self.new[layer] if len(self.new[layer]) == 1 else self.new[layer][at]

    def _masks(self, part: list[int]) -> dict[int, Tensor]:
        """For every layer that loses heads in some row: which ones, [row, 1, head, 1]."""
        layers = sorted(set().union(*(self._lost[place] for place in part)))
        return {
            layer: self._mask([self._lost[place].get(layer, frozenset()) for place in part])
            for layer in layers
        }

    def _changes(self, masks: dict[int, Tensor], at: Tensor) -> dict:
        def change(layer: int) -> Callable[[Tensor], Tensor]:
            own = self._written(layer, at)
            return lambda present: torch.where(masks[layer], own[:, : present.shape[1]], present)

        return {layer: change(layer) for layer in masks}


def _by_layer(heads: HeadSet) -> dict[int, HeadSet]:
    return {
        layer: frozenset(head for head in heads if head[0] == layer) for layer in {pair[0] for pair in heads}
    }


def _first_outputs(
    model: nn.Module, anatomy: Anatomy, image: Float[Tensor, "1 ..."], replay: bool
) -> tuple[Tensor, bool]:
    """What the model says of one image, and whether it can be resumed at its blocks."""
    if replay:
        try:
            run = Replay(model, anatomy, image)
            run.check()
            return run.predictions, True
        except ReplayError:
            pass
    return predict(model, image), False


def _images_at_once(tests: Sequence[tuple[int, HeadSet]], batch: int) -> int:
    """Images whose unchanged pass is held: of single heads, as many as fill a batch at each layer."""
    if all(len(heads) == 1 for _, heads in tests):
        return max(1, batch // max(1, len({head for _, heads in tests for _, head in heads})))
    return min(batch, _IMAGES_AT_ONCE)


def _check_finite(baseline: Tensor, start: int) -> None:
    broken = (~torch.isfinite(baseline)).flatten(1).any(1).nonzero().flatten().tolist()
    if broken:
        raise ValueError(
            f"the unchanged model's predictions are not finite for image(s) {[start + i for i in broken][:5]}; "
            "check its weights, or run it in float32"
        )
