"""What heads cost: parameters, floating-point operations, seconds, and how much removing them can save at most."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from vitmech_utils.arguments import check_table, checked_arguments
from vitmech_utils.heads.check import check_heads
from vitmech_utils.heads.replacements import evaluating
from vitmech_utils.heads.replay import predict
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.statistics import Interval, median_interval, ratio_of_medians


@dataclass(frozen=True)
class Costs:
    """Of one model: parameters, and FLOPs for one image (a multiplication and an addition count as two).

    The `attention_` fields are the part of the attention blocks: their projections, and, in FLOPs, the products of
    queries with keys and of weights with values.
    """

    parameters: int
    attention_parameters: int
    flops: int
    attention_flops: int

    @property
    def attention_share(self) -> float:
        """The attention's share of all FLOPs, in [0, 1]."""
        return self.attention_flops / self.flops


@checked_arguments()
def costs(model: nn.Module, image_size: int) -> Costs:
    """Count parameters, and FLOPs for one square image of `image_size` pixels.

    With n tokens, hidden width h and a layer of k heads of size d, w = k d: the projections take 2 n h 3w + 2 n w h,
    the two products of attention 2 n^2 w each. Each linear layer [in, out] of a block takes 2 n in out, outside the
    blocks (it reads CLS alone) 2 in out, and the patch embedding 2 (patches) (kernel elements) h. Norms, softmax,
    activations and biases are left out, as `torch.utils.flop_counter` leaves them out; a layer without heads takes
    nothing. What is saved by heads is thus linear in k. Merge LoRA adapters first.
    """
    anatomy = check_heads(model).anatomy  # its tokens; the blocks may be those of another copy
    blocks = find_blocks(model).blocks
    patches = anatomy.grid(image_size) ** 2
    tokens = patches + anatomy.prefix
    inside = {id(m): block for block in blocks for m in block.block.modules()}
    of_attention = {id(m) for block in blocks for m in block.attention.modules()}
    attention, rest = 0, 0
    for block in blocks:
        width, hidden = block.numbers.width, block.output.weight.shape[0]
        attention += 2 * tokens * hidden * 4 * width + 2 * 2 * tokens**2 * width
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            rest += 2 * patches * module.weight.numel()
        elif isinstance(module, nn.Linear) and id(module) not in of_attention:
            rest += 2 * module.weight.numel() * (tokens if id(module) in inside else 1)
    return Costs(
        parameters=sum(weight.numel() for weight in model.parameters()),
        attention_parameters=sum(w.numel() for block in blocks for w in block.attention.parameters()),
        flops=attention + rest,
        attention_flops=attention,
    )


@checked_arguments()
def ceiling(share: float, removed: float = 1.0) -> float:
    """The largest speed-up (a factor) from removing a part `removed` of what takes a `share` of the work.

    1 / (1 - share * removed) (Amdahl 1967): with all else standing, an attention that takes a third of the work
    cannot make a model more than 1.5 times as fast, however many heads go.
    """
    if not (0 <= share < 1 and 0 <= removed <= 1):
        raise ValueError(
            f"share is {share} and removed {removed}, expected a share in [0, 1) and a part in [0, 1]"
        )
    return 1 / (1 - share * removed)


@checked_arguments(finite=("pixel_values",), least={"repeats": 1})
def attention_time_share(model: nn.Module, pixel_values: Tensor, repeats: int = 10) -> Interval:
    """The attention blocks' share of a forward pass's wall time, in [0, 1]: median over passes and its 95 % interval.

    This, and not the share of FLOPs, is what the ceiling of a measured speed-up follows from; softmax and memory
    count here.
    """
    anatomy, started, spent = find_blocks(model), [0.0], [0.0]

    def before(_module, _inputs) -> None:
        started[0] = _now(pixel_values)

    def after(_module, _inputs, _output) -> None:
        spent[0] += _now(pixel_values) - started[0]

    handles = []
    try:
        for block in anatomy.blocks:
            handles.append(block.attention.register_forward_pre_hook(before))
            handles.append(block.attention.register_forward_hook(after))
        shares = []
        with evaluating(model), torch.inference_mode():
            predict(model, pixel_values)
            for _ in range(repeats):
                spent[0] = 0.0
                start = _now(pixel_values)
                predict(model, pixel_values)
                shares.append(spent[0] / (_now(pixel_values) - start))
    finally:
        for handle in handles:
            handle.remove()
    return median_interval(np.array(shares))


@checked_arguments(finite=("pixel_values",), least={"repeats": 1})
def latency(
    models: Mapping[str, nn.Module],
    pixel_values: Tensor,
    batches: Sequence[int] = (1, 32),
    repeats: int = 20,
    *,
    compiled: bool = False,
    warm_up: int = 2,
    seed: int = 0,
) -> pd.DataFrame:
    """Time forward passes of several models, in turns: each repeat runs every model once, in a random order.

    Taking turns lets a machine that slows down slow all models alike. `pixel_values` [image, 3, height, width], on
    the models' device, holds at least the largest batch. `compiled` times `torch.compile` of each model instead
    (compiling happens in the `warm_up` passes, which are not counted). On a GPU the clock waits for it.

    Returns one row per model, batch and repeat: model, batch, compiled, repeat, seconds (of one pass).
    """
    if not models or repeats < 1 or warm_up < 1:
        raise ValueError(
            f"{len(models)} models, {repeats} repeats and {warm_up} warm-up passes, expected at least 1 of each"
        )
    if not batches or not 1 <= min(batches) <= max(batches) <= len(pixel_values):
        raise ValueError(
            f"batches are {tuple(batches)}, expected between 1 and the {len(pixel_values)} images given"
        )
    rng = np.random.default_rng(seed)
    rows = []
    with torch.inference_mode():
        for batch in batches:
            images = pixel_values[:batch]
            passes = {name: _forward_pass(model, compiled) for name, model in models.items()}
            for run in passes.values():
                for _ in range(warm_up):
                    run(images)
            for repeat in range(repeats):
                for name in rng.permutation(list(passes)):
                    start = _now(images)
                    passes[name](images)
                    rows.append((str(name), batch, compiled, repeat, _now(images) - start))
    return pd.DataFrame(rows, columns=["model", "batch", "compiled", "repeat", "seconds"])


@checked_arguments()
def summary(
    timings: pd.DataFrame, baseline: str, draws: int = 2000, confidence: float = 0.95
) -> pd.DataFrame:
    """Median seconds, images per second, and speed-up over `baseline` for each model, with bootstrap intervals.

    One row per model, batch and compiled: seconds, low, high; throughput (images per second); speedup (the
    baseline's median over the model's), speedup_low, speedup_high. Repeats are drawn in pairs: a repeat in which the
    machine was slow is slow for both. Raises `ValueError` where the baseline was not timed.
    """
    columns = ("model", "batch", "compiled", "repeat")
    check_table("timings", timings, columns, key=columns, finite=("seconds",))
    if baseline not in set(timings["model"]):
        raise ValueError(
            f"baseline {baseline!r} was not timed, expected one of {sorted(set(timings['model']))}"
        )
    rows = []
    for (batch, compiled), part in timings.groupby(["batch", "compiled"], sort=False):
        wide = part.pivot(index="repeat", columns="model", values="seconds")
        for name in wide:
            own, reference = wide[name].to_numpy(), wide[baseline].to_numpy()
            median = median_interval(own, draws, confidence)
            ratio = ratio_of_medians(reference, own, draws, confidence)
            rows.append(
                (name, batch, compiled, median.value, median.low, median.high, batch / median.value,
                 ratio.value, ratio.low, ratio.high)
            )  # fmt: skip
    return pd.DataFrame(
        rows,
        columns=["model", "batch", "compiled", "seconds", "low", "high", "throughput",
                 "speedup", "speedup_low", "speedup_high"],
    )  # fmt: skip


def _forward_pass(model: nn.Module, compiled: bool) -> Callable[[Tensor], Tensor]:
    model = model.eval()
    return torch.compile(lambda images: predict(model, images)) if compiled else lambda x: predict(model, x)


def _now(images: Tensor) -> float:
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter()
