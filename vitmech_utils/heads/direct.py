"""Direct effects: what a head's ablation does to the answer if no later part of the model may react to it."""

from __future__ import annotations

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.constants import Reference
from vitmech_utils.heads.effects import Answers
from vitmech_utils.heads.replacements import (
    HOOK_MODES,
    check_mode,
    check_model,
    evaluating,
    replacement,
)
from vitmech_utils.heads.replay import TOLERANCE, Replay, ReplayError
from vitmech_utils.heads.sets import SetPredictions, singles, task_of
from vitmech_utils.intervals import effect_intervals
from vitmech_utils.model.anatomy import Anatomy
from vitmech_utils.statistics import effect_sizes
from vitmech_utils.tasks import Loss, Task


@checked_arguments(least={"batch": 1})
def predict_directly(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    mode: str = "mean",
    *,
    task: Task | str | Loss | None = None,
    reference: Reference | None = None,
    donors: Tensor | None = None,
    batch: int = 16,
    seed: int = 0,
) -> SetPredictions:
    """Predict as if each head's change went straight into the CLS token's last hidden state, past all that follows.

    The head's own MLP and every later layer keep what they wrote on the unchanged image; only the final norm and the
    regression head see the change. The total effect of `sweep` minus this direct one is what later parts add: they
    lose what they needed (more harm), or stand in for the head (less: self-repair).

    Returns predictions as `predict_without_sets` does, one set per head. Cost: one pass of the model and one of its
    regression head per head. Raises `ReplayError` for a model whose answer reads more than the CLS token, or whose
    blocks do more to an attention's outcome than add it, scaled; else as `sweep`.
    Source: McGrath et al. 2023 (the hydra effect); Elhage et al. 2021 (direct paths).
    """
    anatomy = check_model(model)
    if mode not in HOOK_MODES:
        raise ValueError(f"mode is {mode!r}, expected one of {', '.join(HOOK_MODES)}")
    check_mode(mode, pixel_values, donors, reference)
    weight = next(model.parameters())
    baselines, parts = [], []
    with evaluating(model), torch.inference_mode():
        new = replacement(
            model, anatomy, pixel_values, mode, reference=reference, donors=donors, batch=batch, seed=seed
        )
        for start in range(0, len(pixel_values), batch):
            images = pixel_values[start : start + batch].to(weight)
            run = DirectReplay(model, anatomy, images)
            baselines.append(run.predictions.cpu().double())
            parts.append(run.without_each_head(new(start, start + len(images))).cpu().double())
    return SetPredictions(
        torch.cat(baselines), torch.cat(parts, 1), tuple(singles(anatomy.pairs)), mode, "direct",
        **task_of(model, task),
    )  # fmt: skip


@checked_arguments()
def direct_effects(
    total: Answers,
    direct: Answers,
    labels: Tensor | None,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    *,
    task: Task | str | Loss | None = None,
) -> pd.DataFrame:
    """Tabulate total and direct effects of the same heads on the same images, and what later layers make of them.

    Returns one row per head: layer, head (0-based), mode, images, and for each T of total, direct and later (total
    minus direct): effect_T in percent of the baseline's loss or in the task's unit, low_T, high_T (paired bootstrap
    over images). A negative `later` where `direct` is positive is self-repair. `task` as in `Answers.losses`. Raises
    `ValueError` where the two do not belong together, or labels do not fit.
    """
    if (
        total.sets != direct.sets
        or total.mode != direct.mode
        or total.baseline.shape != direct.baseline.shape
    ):
        raise ValueError(
            "the total and the direct predictions are of other heads, images or modes, expected the same ones: "
            "predict both with the same arguments, the sets of the total one being single heads in order"
        )
    losses = total.losses(labels, task)
    without, baseline = losses.mean()
    straight, _ = direct.losses(labels, task).mean()
    columns: dict[str, object] = {
        "layer": losses.layers,
        "head": losses.heads,
        "mode": total.mode,
        "images": baseline.size,
    }
    for name, changed in (
        ("total", without),
        ("direct", straight),
        ("later", baseline + without - straight),
    ):
        low, high = effect_intervals(changed, baseline, bootstrap, confidence, seed, losses.relative)
        columns |= {
            f"effect_{name}": effect_sizes(changed, baseline, losses.relative),
            f"low_{name}": low,
            f"high_{name}": high,
        }
    return pd.DataFrame(columns)


class DirectReplay(Replay):
    """A replay that knows how each block scales its attention's outcome, and the last hidden state of the CLS token."""

    def __init__(self, model: nn.Module, anatomy: Anatomy, pixel_values: Tensor) -> None:
        super().__init__(model, anatomy, pixel_values)
        if not self._cls_tail:
            raise ReplayError(
                "the answer reads more than the CLS token, so that no single path is the direct one"
            )
        # A layer that lost all its heads has no attention left, and no norm before or after one.
        self._scales = {
            layer: self._scale(layer) for layer in range(anatomy.layers) if anatomy.blocks[layer].numbers.kept
        }
        if self._cls_attention_known:
            self._cls = self._last_block_for_cls(self._inputs[-1])
        else:
            self._cls = self._run(self._last, self._inputs[-1])[:, :1]

    def without_each_head(self, new: list[Tensor]) -> Float[Tensor, "head image ..."]:
        """Predictions with each head's change written straight into the last hidden state."""
        found = []
        for layer, block in enumerate(self.anatomy.blocks):
            difference = new[layer][:, :1] - self.heads[layer][:, :1]
            for head in block.numbers.kept:
                alone = torch.zeros_like(difference)
                alone[:, :, head] = difference[:, :, head]
                written = nn.functional.linear(block.numbers.pick(alone, 2).flatten(2), block.output.weight)
                found.append(self._tail(self._cls + self._scales[layer] * written))
        return torch.stack(found)

    def _scale(self, layer: int) -> Float[Tensor, " hidden"]:
        """What the block multiplies its attention's outcome by before adding it, measured at the norm after it."""
        first = self._inputs[layer][:1]
        block = self.anatomy.blocks[layer]
        own = block.output(block.numbers.pick(self.heads[layer][:1], 2).flatten(2))
        nothing, ones, there = (
            self._after_attention(layer, first, written)
            for written in (torch.zeros_like(own), torch.ones_like(own), own)
        )
        scale = (ones - nothing)[0, 0]
        if not (self._agrees(nothing, first) and self._agrees(nothing + scale * own, there)):
            raise ReplayError(
                f"{block.name}: it does more to its attention's outcome than scale it and add it to its input "
                f"(to within {TOLERANCE[first.dtype]:g} of the largest value)"
            )
        return scale

    def _after_attention(self, layer: int, hidden: Tensor, written: Tensor) -> Tensor:
        """The block's input plus its attention branch: what the norm after the attention reads."""
        block, seen = self.anatomy.blocks[layer].block, []
        norms = [child for child in block.children() if type(child).__name__.endswith("Norm")]
        handles = [
            norm.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0])) for norm in norms
        ]
        try:
            self._run(layer, hidden, written)
        finally:
            for handle in handles:
                handle.remove()
        if len(seen) < 2:
            raise ReplayError(f"{self.anatomy.blocks[layer].name}: no norm follows its attention")
        return seen[-1]
