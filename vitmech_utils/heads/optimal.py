"""The constants that a head is missed least by: mean ablation's, moved where the loss without the head is lowest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitmech_utils import tasks
from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.constants import HeadConstants, mean_constants
from vitmech_utils.heads.effects import check_labels
from vitmech_utils.heads.linearized import blocks_in, frozen, head_gradients, single
from vitmech_utils.heads.replacements import check_model, check_shape, evaluating, verify
from vitmech_utils.model.anatomy import Anatomy
from vitmech_utils.tasks import Loss, Task

PENALTIES = (1e-3, 1e-2, 0.1, 1.0, 10.0)
STEPS = 60


@checked_arguments(least={"batch": 1})
def optimal_constants(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    labels: Tensor,
    task: Task | str | Loss | None = None,
    *,
    penalties: Sequence[float] = PENALTIES,
    dtype: torch.dtype | None = None,
    batch: int = 16,
) -> HeadConstants:
    """Fit, for every head by itself, the constant output that the loss on these images is lowest with.

    A head's constant is its mean at each token, moved by one vector that all tokens share. The vector minimizes the
    true loss of the outputs linearized about the model's own, plus a ridge: `penalties` times its squared length in
    units of the head's own variance, times the loss that mean ablation leaves. Each half of the images is fitted with
    each penalty and judged on the other half; the best penalty fits all of them. A head that no penalty helps keeps
    its mean. Ablate on other images than these. `dtype` as in `predict_linearized`.

    Returns the constants, for `reference` of mode `optimal`. Raises `ValueError` for fewer than four images, labels of
    another number of images, penalties that are not positive, and a task without labels; else as `predict_linearized`.
    Source of the idea: Li and Janson 2024.
    """
    check_shape(pixel_values)
    check_labels(labels, len(pixel_values))
    if len(pixel_values) < 4:
        raise ValueError(f"there are {len(pixel_values)} images to fit constants on, expected at least 4")
    if not penalties or not all(penalty > 0 for penalty in penalties):
        raise ValueError(f"penalties are {list(penalties)}, expected positive numbers, one or more")
    judge = tasks.find(task, model, labels)
    if judge.own_answer:
        raise ValueError(f"the task {judge.name!r} has no labels that constants could be fitted to")
    anatomy = check_model(model)
    verify(model, pixel_values)
    with evaluating(model):
        means = mean_constants(model, pixel_values, batch)
        bases, pulls, variance = _collect(model, anatomy, pixel_values, means, dtype, batch)
    fit = _Fit(judge, bases, pulls, labels, variance)
    half = torch.arange(len(pixel_values)) % 2 == 0
    unmoved = pulls.new_zeros(len(pulls), pulls.shape[2])
    judged = [fit.losses(unmoved, half) + fit.losses(unmoved, ~half)]
    for penalty in penalties:
        judged.append(
            fit.losses(fit.moved(penalty, half), ~half) + fit.losses(fit.moved(penalty, ~half), half)
        )
    best = torch.stack(judged).argmin(0)
    chosen = unmoved.clone()
    for place, penalty in enumerate(penalties, start=1):
        if (best == place).any():
            chosen = torch.where((best == place)[:, None], fit.moved(penalty, torch.ones_like(half)), chosen)
    vectors = means.outputs[0].new_zeros(anatomy.layers, anatomy.heads, anatomy.head_size)
    layer, head = (torch.tensor(column) for column in zip(*anatomy.pairs, strict=True))
    vectors[layer, head] = chosen.to(vectors)
    moved = tuple(mean + vector for mean, vector in zip(means.outputs, vectors, strict=True))
    return HeadConstants(moved, len(pixel_values))


def _collect(
    model: nn.Module,
    anatomy: Anatomy,
    pixel_values: Tensor,
    means: HeadConstants,
    dtype: torch.dtype | None,
    batch: int,
) -> tuple[
    Float[Tensor, "test image output"], Float[Tensor, "test image size output"], Float[Tensor, " test"]
]:
    """Linearized outputs under mean ablation, their slopes in a shift of all tokens, each head's mean variance."""
    layer, head = (torch.tensor(column) for column in zip(*anatomy.pairs, strict=True))
    bases, pulls, squares = [], [], torch.zeros(anatomy.layers, anatomy.heads, dtype=torch.float64)
    weight = next(model.parameters())
    with frozen(model), blocks_in(dtype, anatomy), torch.no_grad():
        for start in range(0, len(pixel_values), batch):
            images = pixel_values[start : start + batch].to(weight)
            outputs, own, gradients = head_gradients(model, images, sorted(set(layer.tolist())))
            differences = {at: single(means.outputs[at] - heads.detach()) for at, heads in own.items()}
            for at, difference in differences.items():
                squares[at] += difference.square().mean((1, 3)).sum(0).cpu().double()
            shape = anatomy.layers, len(images), anatomy.heads
            slope = single(outputs).new_zeros(*shape, outputs.shape[1])
            pull = single(outputs).new_zeros(*shape, anatomy.head_size, outputs.shape[1])
            for output, by_layer in enumerate(gradients):
                for at, gradient in by_layer.items():
                    gradient = single(gradient)
                    slope[at, ..., output] = (differences[at] * gradient).sum((1, 3))
                    pull[at, ..., output] = gradient.sum(1)
            base = outputs.detach()[None, :, None] + slope
            bases.append(base[layer, :, head].cpu().double())
            pulls.append(pull[layer, :, head].cpu().double())
    return torch.cat(bases, 1), torch.cat(pulls, 1), squares[layer, head] / len(pixel_values)


class _Fit:
    """Losses of linearized outputs as functions of the heads' vectors, [test, size] in units of `scale`."""

    def __init__(
        self, judge: Task, bases: Tensor, pulls: Tensor, labels: Tensor, variance: Float[Tensor, " test"]
    ) -> None:
        self.judge = judge.fitted(bases[0], labels)
        self.bases, self.pulls, self.labels = bases, pulls, labels
        self.scale = variance.clamp_min(1e-12).sqrt()[:, None]
        everything = torch.ones(bases.shape[1], dtype=torch.bool)
        self.unit = self.losses(torch.zeros_like(pulls[:, 0, :, 0]), everything).abs().clamp_min(1e-12)

    def losses(self, vectors: Float[Tensor, "test size"], chosen: Tensor) -> Float[Tensor, " test"]:
        """The mean loss of each test on the chosen images, with these vectors added."""
        outputs = self.bases[:, chosen] + torch.einsum("niso,ns->nio", self.pulls[:, chosen], vectors)
        return self.judge(outputs, self.labels[chosen]).mean((1, 2))

    def moved(self, penalty: float, chosen: Tensor) -> Float[Tensor, "test size"]:
        """The vectors that minimize loss and ridge on the chosen images, all tests at once."""
        units = torch.zeros_like(self.pulls[:, 0, :, 0], requires_grad=True)
        search = torch.optim.LBFGS(
            [units], max_iter=STEPS, line_search_fn="strong_wolfe", tolerance_grad=1e-9
        )

        def objective() -> Tensor:
            search.zero_grad()
            ridge = penalty * units.square().mean(1)
            value = (self.losses(units * self.scale, chosen) / self.unit + ridge).sum()
            value.backward()
            return value

        with torch.enable_grad():
            search.step(objective)
        return units.detach() * self.scale
