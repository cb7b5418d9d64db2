"""Sinks: tokens that draw attention whatever the image shows, and tokens of abnormally large norm."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vitmech_utils.arguments import check_finite, checked_arguments
from vitmech_utils.heads.check import check_heads, watch_projections
from vitmech_utils.heads.projections import mean_of_queries, patch_queries, without_gradients
from vitmech_utils.model.anatomy import find_blocks


@dataclass(frozen=True)
class Sinks:
    """What draws attention in every look: patches per head, and the share of CLS and registers.

    `mask` [layer, head, patch] marks sink patches; `prefix_share` [layer, head] is the CLS query's attention on
    prefix tokens, `patch_share` its attention on sink patches (both of all tokens, lowest over the looks).
    `table` names each sink patch.
    """

    mask: Bool[Tensor, "layer head patch"]
    prefix_share: Float[np.ndarray, "layer head"]
    patch_share: Float[np.ndarray, "layer head"]
    table: pd.DataFrame

    @property
    def share(self) -> Float[np.ndarray, "layer head"]:
        """The CLS query's attention on sinks of either kind, in [0, 1]."""
        return self.prefix_share + self.patch_share


@checked_arguments(least={"batch": 1})
def find_sinks(
    model: nn.Module,
    looks: Mapping[str, Float[Tensor, "image ..."]],
    ratio: float = 8.0,
    batch: int = 8,
) -> Sinks:
    """Find patches that draw at least `ratio` times an even share of patch attention in every look.

    `looks` are sets of images that have as little in common as possible: decorated, bare, moved, plain noise. A
    patch that is attended to in all of them is attended to for its place, not for what it shows. Both the CLS
    query and the mean over patch queries are asked; either makes a sink of a patch. Layers, heads, rows and
    columns in the table are 0-based. Raises ValueError for fewer than two looks.
    """
    if len(looks) < 2:
        raise ValueError(
            f"got {len(looks)} set(s) of images: a sink draws attention whatever the image shows, "
            "so pass at least two that differ, say decorated images and noise"
        )
    for name, pixels in looks.items():
        check_finite(f"looks[{name!r}]", pixels, axis="image")
    anatomy = check_heads(model, next(iter(looks.values()))).anatomy
    means = {name: _mean_attention(model, pixels, batch) for name, pixels in looks.items()}
    # [look, query, layer, head, token]
    stacked = torch.stack(list(means.values()))
    patches = stacked[..., anatomy.prefix :]
    relative = patches / patches.sum(-1, keepdim=True).clamp_min(1e-12) * patches.shape[-1]
    lowest = relative.amin(0)
    mask = (lowest >= ratio).any(0)
    cls = stacked[:, 0]
    on_sinks = (cls[..., anatomy.prefix :] * mask).sum(-1).amin(0)
    columns = next(iter(looks.values())).shape[-1] // anatomy.patch
    layer, head, patch = mask.nonzero(as_tuple=True)
    table = pd.DataFrame(
        {
            "layer": layer.numpy(),
            "head": head.numpy(),
            "row": (patch // columns).numpy(),
            "column": (patch % columns).numpy(),
            "times_even_cls": lowest[0][mask].numpy(),
            "times_even_patches": lowest[1][mask].numpy(),
        }
    )
    return Sinks(mask, cls[..., : anatomy.prefix].sum(-1).amin(0).numpy(), on_sinks.numpy(), table)


@checked_arguments(finite=("pixel_values",), least={"batch": 1})
def token_norms(
    model: nn.Module,
    pixel_values: Float[Tensor, "image ..."],
    ratio: float = 3.0,
    batch: int = 8,
) -> pd.DataFrame:
    """Norms of the residual stream after each layer: outlier patches, as Darcet et al. 2023 found them.

    One row per layer (0-based): the CLS token's norm and the largest patch norm over the median patch norm, the
    share of patches above `ratio` times the median of their image, and `same_place`, how often the most frequent
    position of such a patch recurs over images (0 where there is none).
    """
    check = check_heads(model, pixel_values)
    check.require_maps()
    anatomy = check.anatomy
    norms: dict[int, list[Tensor]] = {}

    def watch(layer: int):
        def hook(_block: nn.Module, _inputs: tuple, output: Tensor | tuple) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            found = hidden.float().norm(dim=-1).cpu()
            norms.setdefault(layer, []).append(found if check.order is None else found[:, check.order])

        return hook

    handles = [block.block.register_forward_hook(watch(block.index)) for block in find_blocks(model).blocks]
    try:
        with without_gradients(model):
            device = next(model.parameters()).device
            for part in pixel_values.split(batch):
                model(part.to(device))
    finally:
        for handle in handles:
            handle.remove()
    rows = []
    for layer in sorted(norms):
        tokens = torch.cat(norms[layer])
        patches = tokens[:, anatomy.prefix :]
        median = patches.median(dim=1, keepdim=True).values
        high = patches > ratio * median
        rows.append(
            {
                "layer": layer,
                "median_norm": float(median.mean()),
                "cls_over_median": float((tokens[:, :1] / median).mean()) if anatomy.prefix else float("nan"),
                "largest_over_median": float((patches.amax(1, keepdim=True) / median).mean()),
                "high_norm_share": float(high.float().mean()),
                "same_place": float(high.float().mean(0).max()),
            }
        )
    return pd.DataFrame(rows)


def _mean_attention(
    model: nn.Module, pixels: Float[Tensor, "image ..."], batch: int
) -> Float[Tensor, "query layer head token"]:
    total: dict[int, Tensor] = {}

    def receive(projections) -> None:
        cls = mean_of_queries(projections, found.query).sum(0)
        patches = patch_queries(projections, found.anatomy.prefix)[0].sum(0)
        both = torch.stack([cls, patches]).cpu()
        total[projections.layer] = total.get(projections.layer, 0) + both

    with without_gradients(model), watch_projections(model, receive, pixels) as found:
        device = next(model.parameters()).device
        for part in pixels.split(batch):
            model(part.to(device))
    return torch.stack([total[layer] for layer in sorted(total)], dim=1) / len(pixels)
