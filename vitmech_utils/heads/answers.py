"""What a model answers without each of its heads, and without sets of them: exactly, and as sums of slopes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.ablation import predict_without_heads
from vitmech_utils.heads.constants import Reference
from vitmech_utils.heads.hooks import Head
from vitmech_utils.heads.linearized import MOST_OUTPUTS, predict_linearized
from vitmech_utils.heads.replacements import check_model
from vitmech_utils.heads.replay import predict
from vitmech_utils.heads.sets import predict_without_sets
from vitmech_utils.model.anatomy import Anatomy

Fold = Callable[[Tensor], Tensor]


@checked_arguments(least={"batch": 1, "exact": 0, "tried": 0})
def head_answers(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    mode: str = "mean",
    *,
    sets: Sequence[Sequence[Head]] = (),
    exact: int | None = None,
    tried: int | None = None,
    reference: Reference | None = None,
    fold: Fold | None = None,
    batch: int = 16,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Answer every image with all heads, without each one, and without some sets of them.

    The first `exact` images (default: all) are answered exactly without each head, the first `tried` (default: as
    many) without each set; all are linearized (`predict_linearized`) beside it.
    `reference` are the images of mode `mean`'s means (default: these), or its `HeadConstants`.
    `fold` turns outputs [image, ...] into the few numbers [image, output] that are kept. All else is as in `sweep`,
    where `mode` is one that has gates.

    Returns float64: `whole` [image, output], `without` and `slopes` [image, layer, head, output] (NaN: not computed,
    or no such head; a slope is the estimated change), `without_sets` [set, image, output] (NaN beyond `tried`); and
    `sets` [set, layer, head], bool. Raises what `sweep` does, and `ValueError` for outputs that are not
    [image, output] with at most `MOST_OUTPUTS` of them.
    """
    anatomy = check_model(model)
    count = len(pixel_values) if exact is None else min(exact, len(pixel_values))
    sure = count if tried is None else min(tried, len(pixel_values))
    settings = {"batch": batch, "seed": seed}
    if mode == "mean":
        settings["reference"] = pixel_values if reference is None else reference
    elif reference is not None:
        raise ValueError(f"reference was given for mode {mode!r}, but only mode 'mean' uses it")
    first = _folded(predict(model, pixel_values[:1]).detach(), fold)
    if first.ndim != 2 or first.shape[1] > MOST_OUTPUTS:
        raise ValueError(
            f"there are answers of shape {tuple(first.shape)}, expected [image, output] with at most {MOST_OUTPUTS} "
            "outputs: pass a fold that makes few numbers of them"
        )
    reading = None if fold is None else lambda outputs, _images: fold(outputs)
    found = predict_linearized(model, pixel_values, mode, reading=reading, **settings)
    whole = found.baseline
    shape = len(pixel_values), anatomy.layers, anatomy.heads, whole.shape[1]
    without, slopes = (torch.full(shape, torch.nan, dtype=torch.float64) for _ in range(2))
    slopes[:, found.layers, found.heads] = (found.ablated - whole).transpose(0, 1)
    without_sets = torch.full((len(sets), len(pixel_values), shape[-1]), torch.nan, dtype=torch.float64)
    if count:
        some = pixel_values[:count]
        single = predict_without_heads(model, some, mode, **settings)
        without[:count, single.layers, single.heads] = _folded(single.ablated, fold).double().transpose(0, 1)
        whole = torch.cat([_folded(single.baseline, fold).double(), whole[count:]])
    if sets and sure:
        together = predict_without_sets(model, pixel_values[:sure], sets, mode, **settings)
        without_sets[:, :sure] = _folded(together.ablated, fold).double()
    return {
        "whole": whole, "without": without, "slopes": slopes, "without_sets": without_sets,
        "sets": membership(anatomy, sets),
    }  # fmt: skip


@checked_arguments()
def membership(anatomy: Anatomy, sets: Sequence[Sequence[Head]]) -> Bool[Tensor, "set layer head"]:
    """Which heads each set holds."""
    member = torch.zeros(len(sets), anatomy.layers, anatomy.heads, dtype=torch.bool)
    for row, heads in enumerate(sets):
        for layer, head in heads:
            member[row, layer, head] = True
    return member


@checked_arguments(least={"draws": 0})
def sets_to_try(anatomy: Anatomy, draws: int = 4, seed: int = 0) -> list[list[Head]]:
    """Every whole layer, and random sets of 1, 2, 4, 8, ... heads up to half of all, `draws` of each size."""
    rng = np.random.default_rng(seed)
    pairs = sorted(anatomy.pairs)
    layers = [[pair for pair in pairs if pair[0] == layer] for layer in range(anatomy.layers)]
    found = [heads for heads in layers if len(heads) > 1]
    size = 1
    while size <= len(pairs) // 2:
        for _ in range(draws):
            chosen = rng.choice(len(pairs), size, replace=False)
            found.append([pairs[place] for place in sorted(chosen)])
        size *= 2
    return found


@checked_arguments()
def leading_classes(logits: Float[Tensor, "image class"], labels: Tensor | None, most: int = 8) -> list[int]:
    """The classes worth showing: the true ones of these images, then those with the largest logits; sorted."""
    order = [] if labels is None else list(dict.fromkeys(labels.tolist()))
    order += [place for place in logits.amax(0).argsort(descending=True).tolist() if place not in order]
    return sorted(order[: max(most, len(set(order) & set([] if labels is None else labels.tolist())))])


@checked_arguments()
def keep_classes(classes: Sequence[int], of: int) -> Fold:
    """Fold logits of `of` classes into those of some, and one of all others: the logarithm of their summed exps.

    Probabilities of the kept classes stay what they were.
    """
    rest = [number for number in range(of) if number not in set(classes)]

    def fold(logits: Tensor) -> Tensor:
        kept = logits[..., list(classes)]
        return torch.cat([kept, logits[..., rest].logsumexp(-1, keepdim=True)], -1) if rest else kept

    return fold


def _folded(outputs: Tensor, fold: Fold | None) -> Tensor:
    return outputs if fold is None else fold(outputs)
