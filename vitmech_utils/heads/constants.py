"""What heads write in place of their own outputs, whatever the image: constants, and noise around them."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.hooks import capture_heads
from vitmech_utils.heads.replay import predict
from vitmech_utils.tasks import to_float64


@dataclass(frozen=True, eq=False)
class HeadConstants:
    """One output per layer, token and head, [1, token, head, size] each: what every image gets.

    `images` is how many it was computed from.
    """

    outputs: tuple[Float[Tensor, "1 token head size"], ...]
    images: int

    def like(self, model: nn.Module) -> list[Tensor]:
        """The outputs in the model's precision, on its device."""
        weight = next(model.parameters())
        return [output.to(weight) for output in self.outputs]


@dataclass(frozen=True, eq=False)
class HeadNoise:
    """Gaussian noise as heads write it: their mean at each token, their features' covariance about it.

    `factors` are square roots of the covariances, [head, size, size] a layer, pooled over tokens. The noise of an image
    is drawn by its content and `seed`, so that it stays the same whatever batch or set the image stands in.
    """

    means: HeadConstants
    factors: tuple[Float[Tensor, "head size size"], ...]
    seed: int = 0

    def draw(self, pixel_values: Float[Tensor, "image ..."]) -> list[Float[Tensor, "image token head size"]]:
        """One output per layer for each of these images."""
        generators = [torch.Generator().manual_seed(self._number(image)) for image in pixel_values]
        found = []
        for mean, factor in zip(self.means.outputs, self.factors, strict=True):
            normal = torch.stack(
                [torch.randn(mean.shape[1:], generator=generator) for generator in generators]
            )
            spread = torch.einsum("ithd,hde->ithe", normal.to(factor), factor)
            found.append((mean.to(factor) + spread).to(pixel_values))
        return found

    def _number(self, image: Tensor) -> int:
        content = image.detach().float().cpu().contiguous().numpy()
        return crc32(content.tobytes(), self.seed & 0xFFFFFFFF)


Reference = Tensor | HeadConstants | HeadNoise
"""What stand-ins are made from: images, or what was computed from some before."""


@torch.inference_mode()
def head_outputs(model: nn.Module, pixel_values: Tensor) -> list[Float[Tensor, "image token head size"]]:
    """Every head's output on `pixel_values`, one array per layer."""
    with capture_heads(model) as heads:
        predict(model, pixel_values.to(next(model.parameters())))
    return [heads[layer] for layer in sorted(heads)]


@checked_arguments(least={"batch": 1})
def mean_constants(
    model: nn.Module, pixel_values: Float[Tensor, "image ..."], batch: int = 32
) -> HeadConstants:
    """Every head's mean output over images, per token position; sums in float64 if there is."""
    sums: list[Tensor] = []
    for start in range(0, len(pixel_values), batch):
        outputs = head_outputs(model, pixel_values[start : start + batch])
        added = [to_float64(output).sum(0, keepdim=True) for output in outputs]
        sums = [a + b for a, b in zip(sums, added, strict=True)] if sums else added
    weight = next(model.parameters())
    means = tuple((total / len(pixel_values)).to(weight) for total in sums)
    return HeadConstants(means, len(pixel_values))


@checked_arguments(least={"batch": 1})
def matched_noise(
    model: nn.Module, pixel_values: Float[Tensor, "image ..."], batch: int = 32, seed: int = 0
) -> HeadNoise:
    """Fit the noise that has the mean and the covariance of what heads write on these images.

    Raises `ValueError` for fewer than two images, of which there is no covariance.
    """
    if len(pixel_values) < 2:
        raise ValueError("mode 'noise' needs two reference images or more: one has no spread")
    sums: list[Tensor] = []
    squares: list[Tensor] = []
    for start in range(0, len(pixel_values), batch):
        outputs = [to_float64(output) for output in head_outputs(model, pixel_values[start : start + batch])]
        added = [output.sum(0, keepdim=True) for output in outputs]
        products = [torch.einsum("ithd,ithe->hde", output, output) for output in outputs]
        sums = [a + b for a, b in zip(sums, added, strict=True)] if sums else added
        squares = [a + b for a, b in zip(squares, products, strict=True)] if squares else products
    count = len(pixel_values)
    means = [total / count for total in sums]
    factors = []
    for mean, square in zip(means, squares, strict=True):
        explained = count * torch.einsum("ithd,ithe->hde", mean, mean)
        values, vectors = torch.linalg.eigh((square - explained) / (mean.shape[1] * (count - 1)))
        factors.append(values.clamp_min(0).sqrt()[:, :, None] * vectors.mT)
    weight = next(model.parameters())
    constants = HeadConstants(tuple(mean.to(weight) for mean in means), count)
    return HeadNoise(constants, tuple(factor.to(weight) for factor in factors), seed)
