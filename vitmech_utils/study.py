"""A whole study of a model of one's own: checked, measured, kept, and told on one page.

study = Study("tuned/", images="val/", labels="folders", task="cross-entropy", folder="study/")
study.report()
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy import ndarray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from vitmech_utils import tasks
from vitmech_utils.artefacts import digest, write_atomically, write_json
from vitmech_utils.data.own_images import OwnImages, Recipe, read_images, read_recipe
from vitmech_utils.data.own_masks import Regions, read_masks
from vitmech_utils.heads.ablation import losses_without_heads
from vitmech_utils.heads.attention import AttentionStatistics, attention_maps, attention_statistics
from vitmech_utils.heads.check import HeadCheck, check_heads, image_size
from vitmech_utils.heads.constants import HeadConstants, mean_constants
from vitmech_utils.heads.control_variates import corrected_values, image_sizes, select_images
from vitmech_utils.heads.effects import Losses
from vitmech_utils.heads.hooks import Head
from vitmech_utils.heads.linearized import MOST_OUTPUTS, margin, predict_linearized
from vitmech_utils.heads.pruning import prune_heads
from vitmech_utils.heads.replacements import another_image
from vitmech_utils.heads.replay import predict
from vitmech_utils.heads.semantics import classify
from vitmech_utils.heads.sets import losses_without_sets
from vitmech_utils.model.lora import weights_fingerprint
from vitmech_utils.model.own_models import class_names, load_own_model
from vitmech_utils.model.told_heads import Heads, tell_heads
from vitmech_utils.studies.origin.measure import transitions
from vitmech_utils.tasks import Loss, Task

MODES = ("zero", "mean", "resample")
FEW = 32
"""Images on which every head is ablated exactly where more are linearized."""
SHOWN = 6
"""Images that the picker shows."""
TRIED = 2
"""Of these, on how many the picker knows what exact sets of heads do."""
SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
"""Parts of all heads that the pruning curve removes."""


class StudyError(ValueError):
    """A study that cannot be made as it was asked for; the message says what is missing."""


class Study:
    """One model, its images, and what is asked of its heads; every result is kept in `folder` and read from there.

    `model` is a module, a hub id or folder, or (base, adapter folder). `images` and `labels` are as in
    `data.own_images.read_images`, `masks` and `regions` as in `data.own_masks.read_masks`. `task` is a `Task`, a
    preset's name or a function of outputs and labels; without labels the divergence from the model's own answer.
    `output` makes the answer of what the model returns. `base` is the model before fine-tuning, for what is inherited.
    `heads` tells where heads are (`Heads`), `processor` is a folder with `preprocessor_config.json`. `device` is
    `auto`, `cpu` or `cuda`; `limit` the number of images that are drawn by `seed`; `mode` what takes a head's place.

    Raises `StudyError`, `ImagesError`, `BackboneError`, `AdapterError` or `AnatomyError` before any work is done.
    """

    few, tried = FEW, TRIED

    def __init__(
        self,
        model: nn.Module | str | Path | tuple,
        images: object,
        labels: object = None,
        task: Task | str | Loss | None = None,
        *,
        output: Callable[[object], Tensor] | None = None,
        masks: object = None,
        regions: Mapping[int, str] | None = None,
        base: nn.Module | str | Path | None = None,
        heads: Heads | None = None,
        processor: str | Path | None = None,
        device: str = "auto",
        seed: int = 0,
        folder: str | Path = "study",
        mode: str = "mean",
        limit: int | None = 256,
        batch: int = 16,
        progress: bool = True,
    ) -> None:
        if mode not in MODES:
            raise StudyError(f"mode is {mode!r}, expected one of {', '.join(MODES)}")
        for name, number in (("batch", batch), ("limit", 1 if limit is None else limit)):
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise StudyError(f"{name} is {number!r}, expected a whole number from 1")
        self.asked = {
            "model": _told(model), "images": _told(images), "labels": _told(labels), "task": _told(task),
            "masks": _told(masks), "regions": None if regions is None else dict(regions), "base": _told(base),
            "mode": mode, "limit": limit, "seed": seed,
        }  # fmt: skip
        self.seed, self.mode, self.batch, self.progress = seed, mode, batch, progress
        self.device = _device(device)
        self.folder = Path(folder).expanduser()
        self.model = _prepared(model, heads, output, self.device)
        self.base = None if base is None else _prepared(base, heads, output, self.device)
        where = processor if processor is not None else model[0] if isinstance(model, tuple) else model
        self.recipe = self._recipe(where, images)
        self.images: OwnImages = read_images(
            images, self.recipe, labels, class_names(self.model), limit, seed
        )
        self.regions = self._regions(masks, regions)
        self.labels = self.images.labels
        self.task = self._task(task)
        self.timings: dict[str, float] = {}
        self._running: list[_Clock] = []
        self.unsaid: list[str] = []

    def check(self) -> HeadCheck:
        """What of the model can be analysed; the same object as `check_heads` gives. Raises `AnatomyError`."""
        return check_heads(self.model, self.images.pixels)

    def estimate(self) -> dict[str, float]:
        """How many seconds each part will take on this machine, from one timed pass; `total` is their sum."""
        self.check()
        pixels = self.images.pixels[: self.batch].to(self.device)
        with torch.inference_mode():
            self.model(pixels[:1])
            started = time.perf_counter()
            self.model(pixels)
            _wait(self.device)
        one = (time.perf_counter() - started) / len(pixels)
        count, pairs = len(self.images), len(self.check().anatomy.pairs)
        layers = self.check().anatomy.layers
        exact = FEW if self._linearizes() else count
        backward = count * (1 + 2.0 * (1 if self._reading() else self._outputs())) if exact < count else 0
        means = count * (self.mode == "mean")
        # A head's replay runs the layers from its own to the last: half of them, on average.
        parts = {
            "effects": one * (means + backward + exact * (layers + pairs / 2)),
            "score": one * count,
            "picker": one * min(count, SHOWN) * (4 + pairs / 2) + one * TRIED * 2 * layers,
            "regions": one * 1.5 * count * (self.regions is not None) * (1 + (self.base is not None)),
            "base": one * 1.5 * 2 * min(count, 2 * FEW) * (self.base is not None),
            "pruning": one * min(count, FEW) * len(SHARES) * 1.5,
        }
        return parts | {"total": sum(parts.values())}

    def maps(self, query: str | int = "read", images: int = SHOWN) -> ndarray:
        """Attention maps of the first `images`, [image, layer, head, row, column], float32."""
        found = attention_maps(self.model, self.images.pixels[:images], query, batch=self.batch)
        return found.numpy()

    def ablate(self, mode: str | None = None) -> pd.DataFrame:
        """The effect of every head on the task's loss, with 95 % intervals: columns as in `sweep`.

        Up to 64 images, every head is ablated exactly on each. Of more, all are linearized and 32 ablated exactly,
        which put the others right (`control_variates`): the mean is that of exact values. They are kept layer by layer,
        and a study that was killed goes on with the next one.
        """
        mode = mode or self.mode
        key = f"effects-{mode}"
        if key not in self._kept:
            self._kept[key] = self.losses(mode).table(seed=self.seed)
        return self._kept[key].copy()

    def losses(self, mode: str | None = None) -> Losses:
        """The losses behind `ablate`, one value per head, image and target."""
        mode = mode or self.mode
        if mode not in MODES:
            raise StudyError(f"mode is {mode!r}, expected one of {', '.join(MODES)}")
        key = f"losses-{mode}"
        if key not in self._kept:
            self._kept[key] = self._losses(mode)
        return self._kept[key]

    def statistics(self, base: bool = False) -> AttentionStatistics:
        """Where attention goes, by region; of the base model with `base`. `StudyError` without masks."""
        regions = self._need_regions()
        known = np.flatnonzero(regions.known)
        at = torch.from_numpy(known)
        stacked = {"pixel_values": self.images.pixels[at], "regions": regions.maps[at]}
        key = f"statistics-{base}"
        if key not in self._kept:
            with self._timed("regions" if not base else "base regions"):
                self._kept[key] = attention_statistics(
                    self._base() if base else self.model, stacked, regions=regions.names, batch=self.batch,
                    seed=self.seed,
                )  # fmt: skip
        return self._kept[key]

    def classes(self, base: bool = False) -> pd.DataFrame:
        """What each head is about, by `classify`; of the base model with `base`. `StudyError` without masks."""
        return classify(self.statistics(base))

    def origin(self) -> pd.DataFrame:
        """Each head's class before and after fine-tuning, and how alike its maps are. `StudyError` without a base.

        `map_correlation` is Pearson's, of a head's maps before and after, averaged over images. Without masks there are
        no classes, and it stands alone.
        """
        first = self._base()
        pixels, _ = self._part(2 * FEW)
        one, other = (
            attention_maps(model, pixels, batch=self.batch).flatten(3).double()
            for model in (first, self.model)
        )
        if one.shape != other.shape:
            raise StudyError(
                f"the base has maps {tuple(one.shape[1:])}, the model {tuple(other.shape[1:])}: not its base"
            )
        one, other = (part - part.mean(-1, keepdim=True) for part in (one, other))
        alike = torch.cosine_similarity(one, other, dim=-1).mean(0)
        layer, head = np.indices(alike.shape)
        table = pd.DataFrame(
            {"layer": layer.ravel(), "head": head.ravel(), "map_correlation": alike.flatten().numpy()}
        )
        if self.regions is None:
            return table
        groups = {name: (name,) for name in self.regions.names}
        return transitions(self.classes(base=True), self.classes(), groups=groups).merge(
            table, on=["layer", "head"]
        )

    def prune(self, loss: float = 0.02) -> tuple[nn.Module, pd.DataFrame]:
        """The model without the heads that cost least, and the curve: how the loss grows as more of them go.

        `loss` is the largest growth of the mean loss that is allowed, as a part of it. Heads go in the order of their
        effects; the curve is ablation to zero on up to 32 images, evenly apart, which pruning equals. Returns the
        pruned model (the model itself where no step is within the limit) and a table: heads removed, share, loss,
        growth (a part of the loss of the whole model) and milliseconds per image where the model can be pruned. Raises
        `PruningError` where it cannot.
        """
        curve = self.pruning_curve()
        fits = curve[(curve["growth"] <= loss) & (curve["removed"] > 0)]
        if fits.empty:
            return self.model, curve
        return prune_heads(
            self.model, self._cheapest(int(fits["removed"].max())), pixel_values=self.images.pixels
        ), curve

    def pruning_curve(self) -> pd.DataFrame:
        """How the loss grows as the heads with the least effects go: the table of `prune`."""
        if "curve" in self._kept:
            return self._kept["curve"]
        pairs = len(self.check().anatomy.pairs)
        counts = sorted(
            {0, *(max(1, round(share * pairs)) for share in SHARES if round(share * pairs) < pairs)}
        )
        pixels, labels = self._part(FEW)
        with self._timed("pruning"):
            found = losses_without_sets(
                self.model, pixels, labels, [self._cheapest(count) for count in counts], "zero", task=self.task,
                batch=self.batch, seed=self.seed,
            )  # fmt: skip
            without = found.without.mean((1, 2))
            speed = self._speed(counts, pixels)
        curve = pd.DataFrame(
            {
                "removed": counts,
                "share": [count / pairs for count in counts],
                "loss": without,
                "growth": without / without[0] - 1 if without[0] else np.full(len(counts), np.nan),
                "milliseconds": speed,
            }
        )
        self._kept["curve"] = curve
        return curve

    def score(self) -> dict[str, float]:
        """The unchanged model: its mean loss, and the share of right answers where labels are class numbers."""
        losses = self.losses()
        found = {f"mean loss ({self.task.name}, {self.task.unit})": float(losses.baseline.mean())}
        labels = self.labels
        if self.task.name == "cross-entropy" and labels is not None:
            with torch.inference_mode():
                told = torch.cat(
                    [
                        predict(self.model, part.to(self.device)).argmax(1).cpu()
                        for part in self.images.pixels.split(self.batch)
                    ]
                )
            found["accuracy"] = float((told == labels).double().mean())
        return found

    def picker(self, images: int = SHOWN):
        """A `HeadPicker` of `images` of them, evenly apart, with effects, classes and shares as far as known."""
        from vitmech_utils.report.study_page import picker_of

        return picker_of(self, images)

    def report(self, path: str | Path | None = None) -> Path:
        """Everything, on one page that works from disk: written to `path` (default: report.html in the folder).

        Tables lie beside it as CSV, in `tables`.
        """
        from vitmech_utils.report.study_page import write_report

        target = self.folder / "report.html" if path is None else Path(path)
        written = write_report(self, target)
        note_settings(self)
        return written

    def spread(self, images: int) -> list[int]:
        """Numbers of so many images, evenly apart: of images in order of their classes, some of each."""
        count = len(self.images)
        return sorted({int(place) for place in np.linspace(0, count - 1, min(count, images)).round()})

    @cached_property
    def _kept(self) -> dict[str, object]:
        return {}

    @cached_property
    def key(self) -> str:
        """What results belong to: the model's weights, the images, labels and task."""
        told = {
            "model": weights_fingerprint(self.model),
            "images": _fingerprint(self.images.pixels),
            "labels": None if self.labels is None else _fingerprint(self.labels),
            "task": [self.task.name, list(self.task.targets)],
            "heads": [
                [block.name, block.numbers.of, list(block.numbers.kept)]
                for block in self.check().anatomy.blocks
            ],
            "seed": self.seed,
        }
        return digest(told)[:16]

    def _losses(self, mode: str) -> Losses:
        anatomy = self.check().anatomy
        self.check().require_ablation()
        count = len(self.images)
        cheap = self._cheap(mode) if self._linearizes() else None
        few = count if cheap is None else FEW
        sizes = np.ones(count) if cheap is None else image_sizes(cheap.of())
        selection = select_images(sizes, few, seed=self.seed)
        at = torch.from_numpy(selection.images)
        parts: list[Losses] = []
        bar = tqdm(range(anatomy.layers), desc=f"{mode}: layers, exactly", disable=not self.progress)
        for layer in bar:
            parts.append(self._layer(mode, layer, at))
        exact = replace(
            parts[0],
            without=np.concatenate([part.without for part in parts]),
            sets=tuple(heads for part in parts for heads in part.sets),
        )
        if cheap is None:
            return exact
        rows = np.stack(
            [
                corrected_values(cheap.changes[..., target], exact.changes[..., target], selection)
                for target in range(exact.without.shape[2])
            ],
            axis=-1,
        )
        return replace(exact, without=cheap.baseline + rows, baseline=cheap.baseline)

    def _layer(self, mode: str, layer: int, at: Tensor) -> Losses:
        """The exact losses of one layer's heads on the images numbered `at`, as they were kept or else computed."""
        heads = self.check().anatomy.blocks[layer].numbers.kept
        if not heads:
            raise StudyError(f"layer {layer} has no heads left: study a model that has some in each layer")
        pixels, labels = self.images.pixels, self.labels
        path, first = self._part_file(mode, f"{layer:03}", at), self._first(int(at[0]))
        held = first.read(path, (len(heads), len(at)))
        if held is None:
            given: dict[str, object] = {"reference": self.reference()} if mode == "mean" else {}
            if mode == "resample":
                given = {"donors": pixels[another_image(len(pixels), self.seed)][at]}
            with self._timed("exact effects"):
                found = losses_without_heads(
                    self.model, pixels[at], None if labels is None else labels[at], mode, self.task, layers=[layer],
                    batch=2 * self.batch, seed=self.seed, **given,
                )  # fmt: skip
            held = first.keep(path, found)
        return first.losses(held, [(layer, head) for head in heads], mode)

    def _cheap(self, mode: str) -> Losses:
        """The linearized losses of all heads on all images, as they were kept or else computed."""
        pairs = self.check().anatomy.pairs
        path, first = self._part_file(mode, "linearized", torch.arange(len(self.images))), self._first(0)
        held = first.read(path, (len(pairs), len(self.images)))
        if held is None:
            if mode == "mean":
                self.reference()
            with self._timed("linearized effects"):
                held = first.keep(path, self._linearized(mode, self._reading()))
        return first.losses(held, pairs, mode)

    def _first(self, image: int) -> _First:
        """What the model answers to one image now, and its loss: what is read from disk must agree with it."""
        key = f"first-{image}"
        if key not in self._kept:
            labels = None if self.labels is None else self.labels[image : image + 1]
            with torch.inference_mode():
                answer = predict(self.model, self.images.pixels[image : image + 1].to(self.device)).cpu()
            task = self.task.fitted(answer, labels)
            loss = task(answer, answer if task.own_answer else labels)
            self._kept[key] = _First(task, _few(answer), loss.detach().cpu().numpy())
        return self._kept[key]

    def _part_file(self, mode: str, name: str, at: Tensor) -> Path:
        own = digest([self.key, at.tolist()])[:16]
        return self.folder / "parts" / f"{own}-{mode}-{name}.safetensors"

    def reference(self) -> HeadConstants:
        """Every head's mean output over the study's images, per token: what mode `mean` puts in its place."""
        if "reference" not in self._kept:
            with self._timed("mean outputs"):
                self._kept["reference"] = mean_constants(self.model, self.images.pixels, self.batch)
        return self._kept["reference"]

    def _speed(self, counts: list[int], pixels: Tensor) -> list[float]:
        """Milliseconds per image without so many heads; NaN where the model cannot be pruned. One copy at a time."""
        few = pixels[: min(4, len(pixels))].to(self.device)
        found = []
        for count in counts:
            try:
                model = (
                    prune_heads(self.model, self._cheapest(count), pixel_values=pixels)
                    if count
                    else self.model
                )
            except ValueError as error:
                self._note(f"pruning is refused, the curve is one of ablation: {error}")
                return [np.nan] * len(counts)
            found.append(_milliseconds(model, few))
        return found

    def _linearized(self, mode: str, reading: Callable | None) -> Losses:
        pixels = self.images.pixels
        donors = pixels[another_image(len(pixels), self.seed)] if mode == "resample" else None
        found = predict_linearized(
            self.model, pixels, mode, reference=self.reference() if mode == "mean" else None, donors=donors,
            reading=reading, batch=self.batch, seed=self.seed,
        )  # fmt: skip
        if reading is None:
            return found.losses(self.labels, self.task)
        return found.losses(torch.zeros(len(self.images), 1), tasks.margin_cross_entropy())

    def _linearizes(self) -> bool:
        """Whether heads are linearized on all images and ablated exactly on `FEW` of them."""
        cheap = self._reading() is not None or self._outputs() <= MOST_OUTPUTS
        return cheap and len(self.images) > 2 * FEW

    def _reading(self) -> Callable | None:
        """What is linearized in place of the outputs: the margin of the right class, where the loss is one of it."""
        return margin(self.labels) if self.task.name == "cross-entropy" and self._outputs() > 4 else None

    def _outputs(self) -> int:
        if "outputs" not in self._kept:
            with torch.inference_mode():
                self._kept["outputs"] = predict(self.model, self.images.pixels[:1].to(self.device))[0].numel()
        return self._kept["outputs"]

    def _cheapest(self, count: int) -> list[tuple[int, int]]:
        table = self.ablate().sort_values("effect", kind="stable").head(count)
        return list(zip(table["layer"].tolist(), table["head"].tolist(), strict=True))

    def _part(self, count: int) -> tuple[Tensor, Tensor | None]:
        at = self.spread(count)
        return self.images.pixels[at], None if self.labels is None else self.labels[at]

    def _base(self) -> nn.Module:
        if self.base is None:
            raise StudyError("what is inherited needs the model before fine-tuning: pass base=")
        return self.base

    def _need_regions(self) -> Regions:
        if self.regions is None:
            raise StudyError("what heads are about needs masks: pass masks= and regions=")
        return self.regions

    def _recipe(self, source: object, images: object) -> Recipe:
        folder = Path(source).expanduser() if isinstance(source, str | Path) else None
        folder = folder if folder is not None and folder.is_dir() else None
        first = next((m for m in self.model.modules() if isinstance(m, nn.Conv2d)), None)
        channels = 1 if first is not None and first.in_channels == 1 else 3
        known = image_size(self.model)
        if isinstance(images, Tensor) and images.ndim == 4:
            known = tuple(images.shape[-2:])
        return read_recipe(folder, known or (224, 224), channels)

    def _regions(self, masks: object, regions: Mapping[int, str] | None) -> Regions | None:
        given = self.images.masks if masks is None else masks
        if given is None:
            return None
        return read_masks(given, self.images, self.recipe, regions)

    def _task(self, task: Task | str | Loss | None) -> Task:
        if task is None and self.labels is None and not isinstance(getattr(self.model, "task", None), Task):
            task = "divergence"
        found = tasks.find(task, self.model, self.labels)
        pixels, labels = self._part(min(2, len(self.images)))
        with torch.inference_mode():
            found.fitted(predict(self.model, pixels.to(self.device)), labels)
        return found

    def _timed(self, name: str):
        return _Clock(self.timings, self._running, name)

    def _note(self, text: str) -> None:
        if text not in self.unsaid:
            self.unsaid.append(text)


@dataclass(frozen=True)
class _First:
    """One image's answer and loss, by which it is told whether kept losses are of this model, answer and task."""

    task: Task
    answer: ndarray
    loss: ndarray

    def read(self, path: Path, shape: tuple[int, int]) -> dict[str, ndarray] | None:
        """Losses [set, image, target] and [image, target] that an earlier call kept of this image and others.

        None where there are none. A file that is cut short, or of another answer or task, is removed.
        """
        if not path.is_file():
            return None
        try:
            held = load_file(path)
            fits = held["without"].shape[:2] == shape and held["baseline"].shape[:1] == shape[1:]
            pairs = (held["answer"], self.answer), (held["baseline"][:1], self.loss)
            if fits and all(one.shape == other.shape and _alike(one, other) for one, other in pairs):
                return held
        except (SafetensorError, KeyError, OSError):
            pass
        path.unlink(missing_ok=True)
        return None

    def keep(self, path: Path, losses: Losses) -> dict[str, ndarray]:
        """Write losses, whole or not at all, and give what `read` will."""
        path.parent.mkdir(parents=True, exist_ok=True)
        held = {name: np.ascontiguousarray(getattr(losses, name)) for name in ("without", "baseline")}
        held["answer"] = self.answer
        write_atomically(path, lambda temporary: save_file(held, temporary))
        return held

    def losses(self, held: dict[str, ndarray], pairs: Iterable[Head], mode: str) -> Losses:
        """What was read or kept, as losses of single heads."""
        sets = tuple(frozenset({pair}) for pair in pairs)
        task = self.task
        return Losses(held["without"], held["baseline"], sets, task.targets, mode, task.unit, task.relative)


def _few(answer: Tensor) -> ndarray:
    return answer.flatten()[:MOST_OUTPUTS].double().numpy()


def _alike(one: ndarray, other: ndarray) -> bool:
    """Whether two arrays are the same but for rounding, which differs from one number of threads to another."""
    return bool(np.allclose(one, other, rtol=1e-3, atol=1e-3 * max(1e-6, float(np.abs(other).max()))))


class _Clock:
    """Adds up the seconds that a part of a study takes, less those of other parts that it asks for."""

    def __init__(self, kept: dict[str, float], running: list[_Clock], name: str) -> None:
        self.kept, self.running, self.name, self.others = kept, running, name, 0.0

    def __enter__(self) -> None:
        self.running.append(self)
        self.started = time.perf_counter()

    def __exit__(self, *_error: object) -> None:
        took = time.perf_counter() - self.started
        self.running.pop()
        self.kept[self.name] = self.kept.get(self.name, 0.0) + took - self.others
        if self.running:
            self.running[-1].others += took


def note_settings(study: Study) -> Path:
    """Keep what was asked and read, and the seconds that each part took, in the study's folder, as JSON."""
    return write_json(
        study.folder / "study.json",
        json.loads(
            json.dumps(
                {
                    "asked": study.asked,
                    "key": study.key,
                    "facts": dict(study.images.facts),
                    "seconds": study.timings,
                },
                default=str,
            )
        ),
    )


def _prepared(
    source: nn.Module | str | Path | tuple, heads: Heads | None, output: Callable | None, device: torch.device
) -> nn.Module:
    model = load_own_model(source)
    if heads is not None:
        tell_heads(model, heads)
    return load_own_model(model, output).to(device)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.partition(":")[0] == "cuda" and not torch.cuda.is_available():
        raise StudyError(f"device is {name!r}, but torch sees no GPU here: pass device='cpu' or 'auto'")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise StudyError(f"device is {name!r}, expected auto, cpu or cuda") from error


def _milliseconds(model: nn.Module, pixels: Tensor, repeats: int = 7) -> float:
    """Of an image, in the fastest of some passes: whatever else the machine does makes passes slower, never faster."""
    found = []
    with torch.inference_mode():
        model(pixels)
        for _ in range(repeats):
            started = time.perf_counter()
            model(pixels)
            _wait(pixels.device)
            found.append((time.perf_counter() - started) / len(pixels) * 1000)
    return min(found)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _fingerprint(values: Tensor) -> str:
    return hashlib.sha256(values.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def _told(value: object) -> str | None:
    """A setting as the report repeats it: text as it was given, of objects their kind."""
    if value is None or isinstance(value, str | Path):
        return None if value is None else str(value)
    if isinstance(value, tuple):
        return str(
            tuple(str(part) if isinstance(part, str | Path) else type(part).__name__ for part in value)
        )
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    return getattr(value, "__name__", type(value).__name__)
