"""Effects of all heads as narrow as is asked for: linearized on many images, exact on those that matter most."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import process_time

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils import tasks
from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.ablation import predict_without_heads
from vitmech_utils.heads.changes import ALL, Changes, changes, effect_table
from vitmech_utils.heads.constants import HeadConstants, Reference
from vitmech_utils.heads.control_variates import (
    Allocation,
    Selection,
    allocate,
    corrected_values,
    image_sizes,
    select_images,
)
from vitmech_utils.heads.effects import Losses
from vitmech_utils.heads.hooks import Head
from vitmech_utils.heads.linearized import linearized_sets, predict_linearized_modes
from vitmech_utils.heads.replacements import averaged_references
from vitmech_utils.heads.sets import predict_without_sets
from vitmech_utils.tasks import Loss, Task

Draw = Callable[[Int[ndarray, " image"]], tuple[Tensor, Tensor]]
"""Gives the pixel values and the labels of the images with these numbers."""


@dataclass(frozen=True)
class Estimate:
    """Changes of many images to first order, and the exact ones of those that `selection` names among them."""

    cheap: Changes
    exact: Changes
    selection: Selection
    fitted: bool = False
    cheap_seconds: float = 0.0
    """Processor seconds that all first-order changes took, the drawing of their images left out."""
    exact_seconds: float = 0.0
    """Processor seconds that all exact changes took."""

    @property
    def images(self) -> int:
        """How many images there are, exact or not."""
        return self.cheap.images

    def values(self, what: str = "effect", target: str = ALL) -> Float[ndarray, "test image"]:
        """One value per head and image with the mean of the exact `shift`, `alignment` or `effect` of a target.

        Layers, differences, orders and counts are made of these rows: see `intervals`.
        """
        cheap, exact = self.pair(what, target)
        return corrected_values(cheap, exact, self.selection, fitted=self.fitted)

    def pair(
        self, what: str = "effect", target: str = ALL
    ) -> tuple[Float[ndarray, "test image"], Float[ndarray, "test chosen"]]:
        """The first-order values of all images, and the exact ones of the selected: not yet put together."""
        cheap, exact = (getattr(changed.of(target), what)[..., 0] for changed in (self.cheap, self.exact))
        return cheap.astype(float), exact.astype(float)

    def single(self) -> Estimate:
        """The same in single precision: half the space, for what is kept in a file."""
        return replace(self, cheap=_single(self.cheap), exact=_single(self.exact))

    def losses(self, held_out: Float[ndarray, "held_out target"] | None = None) -> Losses:
        """The losses of all images with the means of the exact ones: what tables and orders of heads are made of.

        The losses of single images are estimates, and may be below zero. With `held_out`, the unchanged model's loss is
        the held-out set's mean on every image, so that percentages are of that, whatever these images' own may be.
        """
        baseline = self.cheap.baseline.astype(float)
        if held_out is not None:
            baseline = np.broadcast_to(held_out.mean(0), baseline.shape)
        return Losses(
            baseline + self._corrected(self.cheap.effect, self.exact.effect),
            baseline,
            self.cheap.sets,
            self.cheap.targets,
            self.cheap.mode,
            self.cheap.unit,
            self.cheap.relative,
        )

    def _corrected(
        self, cheap: Float[ndarray, "test image target"], exact: Float[ndarray, "test chosen target"]
    ) -> Float[ndarray, "test image target"]:
        """`corrected_values` of every target."""
        return np.stack(
            [
                corrected_values(
                    cheap[..., place].astype(float),
                    exact[..., place].astype(float),
                    self.selection,
                    fitted=self.fitted,
                )
                for place in range(cheap.shape[-1])
            ],
            axis=-1,
        )

    def table(self, held_out: Float[ndarray, "held_out target"], limit: float, **settings) -> pd.DataFrame:
        """The heads' changes with their intervals: columns and settings as in `effect_table`."""
        return effect_table(
            self.cheap, held_out, limit, exact=self.exact, selection=self.selection, fitted=self.fitted, **settings
        )  # fmt: skip


@checked_arguments()
def fast_dtype(model: nn.Module) -> torch.dtype | None:
    """bfloat16 for a float32 model whose device multiplies it faster than float32, else None: the model's own.

    Processors with AVX-512 BF16 or AMX, and GPUs that have it. For estimates that exact ones correct and for constants
    that are fitted, never for exact predictions.
    """
    weights = next(model.parameters())
    if weights.dtype != torch.float32:
        return None
    if weights.device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    known = getattr(torch.cpu, "get_capabilities", dict)() if weights.device.type == "cpu" else {}
    return torch.bfloat16 if known.get("avx512_bf16") or known.get("amx_bf16") else None


@checked_arguments()
def estimate(
    model: nn.Module,
    draw: Draw,
    many: int,
    few: int,
    mode: str = "mean",
    **settings,
) -> Estimate:
    """Linearize the images numbered 0 to `many` - 1, and ablate each head exactly on `few` of them.

    The same as `estimate_modes` with a single mode; `settings` and errors are those.
    """
    return estimate_modes(model, draw, many, {mode: few}, **settings)[mode]


@checked_arguments(least={"batch": 1})
def estimate_modes(
    model: nn.Module,
    draw: Draw,
    many: int,
    few: Mapping[str, int],
    *,
    reference: Reference | None = None,
    donors: Callable[[Int[ndarray, " image"]], Tensor] | None = None,
    constants: HeadConstants | None = None,
    task: Task | str | Loss | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    sets: Sequence[Iterable[Head]] | None = None,
    dtype: torch.dtype | None = None,
    batch: int = 16,
    exact_batch: int = 32,
    even: float = 0.3,
    fitted: bool = False,
    seed: int = 0,
    look: Callable[[str, HeadPredictions | SetPredictions], object] | None = None,
) -> dict[str, Estimate]:
    """Linearize the images numbered 0 to `many` - 1 in every mode at once, and ablate exactly on some of them.

    `few` says by mode how many are ablated exactly; they are picked, mode by mode, by what linearizing says of the
    loss's growth (`select_images`, with its `even`). `draw` gives pixel values and labels of images by their numbers,
    `donors` those that mode `resample` takes from; images are drawn in batches and not kept. `batch` and `exact_batch`
    bound what is held at once, `dtype` is that of `predict_linearized`, `fitted` that of `corrected_values`; the rest
    is as in `sweep`, whose errors it raises. Modes `mean` and `noise` ask for `reference`: images, which are read once,
    or what `mean_constants` or, where `noise` is among the modes, `matched_noise` made of them. `resample` asks for
    `donors`, `optimal` for `constants`.

    With `sets`, pairs of layer and head (0-based) each, whole sets of heads go in place of each head of `layers` and
    `heads`: to first order by the sum of their slopes, exactly all together. Several modes share the time of
    linearizing: `cheap_seconds` of each is an equal part of it. `look` is shown every mode with its linearized
    predictions, for what a caller reads off the answers themselves: an `Estimate` keeps what became of the losses.
    """
    if reference is None and (averaged := [mode for mode in few if mode in ("mean", "noise")]):
        raise ValueError(
            f"mode {averaged[0]!r} needs reference images here: the images themselves are not kept"
        )
    if "resample" in few and donors is None:
        raise ValueError("mode 'resample' needs donors here: the images themselves are not kept")
    if sets is not None and (layers is not None or heads is not None or not len(sets)):
        raise ValueError(
            "sets were given beside layers or heads, or none at all; expected sets alone, one or more"
        )
    for mode, count in few.items():
        if not 1 <= count <= many:
            raise ValueError(
                f"few is {count} for mode {mode!r} and many is {many}, expected 1 <= few <= many"
            )
    labels: list[Tensor] = []
    drawing = 0.0

    def pictures(source: Callable) -> Iterator:
        nonlocal drawing
        for start in range(0, many, batch):
            began = process_time()
            found = source(np.arange(start, min(start + batch, many)))
            drawing += process_time() - began
            yield found

    def labelled() -> Iterator[Tensor]:
        for pixels, truth in pictures(draw):
            labels.append(truth)
            yield pixels

    began = process_time()
    averaged = averaged_references(model, reference, few, batch)
    if averaged:
        reference = averaged.get("noise", averaged.get("mean"))
    others = None if donors is None else pictures(donors)
    linear = predict_linearized_modes(
        model, labelled(), list(few), reference=reference, donors=others, constants=constants,
        layers=layers, heads=heads, dtype=dtype, batch=batch,
    )  # fmt: skip
    if sets is not None:
        linear = {mode: linearized_sets(found, sets) for mode, found in linear.items()}
    cheap_seconds = (process_time() - began - drawing) / len(few)
    truth = torch.cat(labels)
    judge = tasks.find(task, model, truth)
    estimates = {}
    for mode, count in few.items():
        if look is not None:
            look(mode, linear[mode])
        cheap = changes(linear[mode], truth, judge)
        selection = select_images(image_sizes(cheap.of(ALL).effect[..., 0]), count, even=even, seed=seed)
        pixels, own = draw(selection.images)
        used = averaged | {"optimal": constants}
        given = {"reference": used[mode]} if mode in used else {}
        if mode == "resample":
            given = {"donors": donors(selection.images)}
        began = process_time()
        if sets is None:
            ablated = predict_without_heads(
                model, pixels, mode, layers=layers, heads=heads, batch=exact_batch, **given
            )
        else:
            ablated = predict_without_sets(model, pixels, sets, mode, batch=exact_batch, **given)
        exact_seconds = process_time() - began
        estimates[mode] = Estimate(
            cheap, changes(ablated, own, judge), selection, fitted, cheap_seconds, exact_seconds
        )
    return estimates


@checked_arguments()
def estimate_until(
    model: nn.Module,
    draw: Draw,
    half_width: float,
    held_out: Float[ndarray, "held_out target"],
    mode: str = "mean",
    *,
    pilot: int = 64,
    most: int = 5000,
    **settings,
) -> tuple[Estimate, Allocation]:
    """As many images, and exact ones among them, as bring every head's interval to `half_width` at the least cost.

    `half_width` is in percent of the mean of `held_out` (see `effect_table`), or in the loss's unit. A pilot on images
    of its own, numbered 0 to `pilot` - 1, is predicted both ways and tells how many it takes (`allocate`); the
    estimate is made from the next images, at most `most`, so that choosing and judging share none. Costs are counted
    in forward passes. Returns the estimate and the allocation, whose half-width is the one that the pilot promises;
    what was reached stands in `Estimate.table`. `settings` and errors are those of `estimate`.
    """
    first = estimate(model, draw, pilot, pilot, mode, **settings)
    cheap, exact = (changed.of(ALL).effect[..., 0] for changed in (first.cheap, first.exact))
    goal = half_width * held_out.mean() / 100 if first.cheap.relative else half_width
    # Ablating exactly runs half the layers anew for each head, on average; linearizing, all of them per output.
    plan = allocate(
        cheap, exact, cost_cheap=1 + len(first.cheap.targets), cost_exact=1 + len(cheap) / 2, half_width=goal,
        even=settings.get("even", 0.3),
    )  # fmt: skip
    many = min(plan.cheap, most)
    few = min(many, max(2, round(plan.exact * many / plan.cheap)))
    donors = settings.pop("donors", None)
    if donors is not None:
        settings["donors"] = lambda numbers: donors(numbers + pilot)
    return estimate(model, lambda numbers: draw(numbers + pilot), many, few, mode, **settings), plan


def _single(found: Changes) -> Changes:
    arrays = {name: getattr(found, name).astype(np.float32) for name in ("shift", "effect", "baseline")}
    return replace(found, **arrays)
