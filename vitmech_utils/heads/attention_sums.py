"""Running sums over images with Poisson bootstrap weights: the arithmetic behind the region statistics."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

PER_REGION = ("share", "shuffled", "area", "ceiling", "entropy", "has_attention", "present")
PER_HEAD = ("map_entropy", "prefix_share", "query_entropy", "valid", "count")
# Fields that are averaged over only those images where the second one is 1.
_OVER = {"entropy": "has_attention", "prefix_share": "count", "query_entropy": "count"}
_COUNTS = ("valid", "present", "has_attention", "count")
NO_ATTENTION = 1e-9
"""Attention on patches below this is none: shares of it would be ratios of rounding errors."""


class RunningSums:
    """Sums of every head's features over images, for the estimate and each bootstrap replicate at once.

    Axes are [replicate, sinks, variant, layer, head, feature]. Memory is set by the model, the regions and the
    replicates; `shuffles` images are held back because their predecessors in the circle come last.
    """

    def __init__(
        self,
        keep: Bool[Tensor, "sinks layer head patch"],
        regions: int,
        replicates: int,
        shuffles: int,
        seed: int,
    ) -> None:
        if replicates < 0 or shuffles < 0:
            raise ValueError(f"replicates is {replicates} and shuffles {shuffles}, expected 0 or more")
        self.keep = keep
        self.region_count = regions
        self.replicates = replicates
        self.shuffles = shuffles
        self.seed = seed
        self.images = 0
        self._sums: Tensor | None = None
        self._difference_squares: Tensor | None = None
        self._weights: Tensor | None = None
        self._overlap = torch.zeros(replicates + 1, regions, regions, dtype=torch.float64)
        self._first = self._second = None
        self._recent: list[Tensor] = []
        self._waiting: list[tuple[int, Tensor, Tensor, Tensor]] = []

    def add(
        self,
        weights: Float[Tensor, "image variant layer head token"],
        query_entropy: Float[Tensor, "image query layer head"],
        coverage: Float[Tensor, "image region patch"],
        prefix: int,
    ) -> None:
        """Take in one batch; results do not depend on how images are batched (up to float64 rounding)."""
        entropy = query_entropy.repeat_interleave(2, dim=1)
        total = weights.double().sum(0)
        self._weights = total if self._weights is None else self._weights + total
        ready: list[tuple[int, Tensor, Tensor, Tensor, Tensor | None]] = []
        for i in range(weights.shape[0]):
            index, own = self.images, (weights[i], entropy[i], coverage[i])
            if index < self.shuffles:
                self._waiting.append((index, *own))
            else:
                others = torch.stack(self._recent).mean(0) if self.shuffles else None
                ready.append((index, *own, others))
            self._recent = [*self._recent, coverage[i]][-self.shuffles :] if self.shuffles else []
            self.images += 1
        self._prefix = prefix
        if ready:
            self._accumulate(ready)

    def close(self) -> None:
        """Close the circle: give the first images the region maps of the last ones."""
        known = dict(zip(range(self.images - len(self._recent), self.images), self._recent, strict=True))
        known |= {index: coverage for index, _, _, coverage in self._waiting}
        ready = []
        partners = min(self.shuffles, self.images - 1)
        for index, weights, entropy, coverage in self._waiting:
            others = [known[(index - step) % self.images] for step in range(1, partners + 1)]
            ready.append((index, weights, entropy, coverage, torch.stack(others).mean(0) if others else None))
        self._waiting, self._recent = [], []
        if ready:
            self._accumulate(ready)

    def mean(self, field: str) -> np.ndarray:
        """Weighted mean of a field over images, float64 [replicate, sinks, variant, layer, head, region or 1].

        NaN where no image counts: `valid` is then 0.
        """
        if field in _COUNTS:
            return self._part(field)
        over = self._part(_OVER.get(field, "valid"))
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._part(field) / over

    def mean_weights(self) -> np.ndarray:
        """Attention weights averaged over images, [variant, layer, head, token], prefix tokens first."""
        return (self._weights / self.images).numpy()

    def profiles(self) -> np.ndarray:
        """Region shares of a head that attends in proportion to one region's coverage, [replicate, region, region].

        Row r is where attention lands when all of it goes to r: patches are coarse, so some falls on the neighbours.
        Rows of regions in no image are NaN.
        """
        overlap = self._overlap.numpy()
        with np.errstate(invalid="ignore", divide="ignore"):
            return overlap / overlap.sum(-1, keepdims=True)

    def position_share(self) -> np.ndarray:
        """Part of the maps' variance that position alone explains, in [0, 1], [sinks, variant, layer, head].

        One-way analysis of variance with patches as groups and images as repeats, corrected for the noise of the
        group means (omega squared); 0 for a map that is even in every image. NaN for a single image.
        """
        count = self._part("valid")[0, ..., 0]
        first, second = self._first.numpy(), self._second.numpy()
        with np.errstate(invalid="ignore", divide="ignore"):
            within = (second - first**2 / count[..., None]).sum(-1) / (count - 1) / first.shape[-1]
            between = (first / count[..., None]).var(-1) - within / count
            share = between.clip(0) / np.maximum(between.clip(0) + within, 1e-30)
        return np.where(count > 1, share, np.nan)

    def difference_variance(self) -> np.ndarray:
        """Variance over images of share minus shuffled share, [sinks, variant, layer, head, region]."""
        count = self._part("valid")[0]
        mean = self.mean("share")[0] - self.mean("shuffled")[0]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(
                count > 1, (self._difference_squares.numpy() - count * mean**2).clip(0) / (count - 1), np.nan
            )

    def _part(self, field: str) -> np.ndarray:
        if field in PER_REGION:
            start = PER_REGION.index(field) * self.region_count
            return self._sums[..., start : start + self.region_count].numpy()
        start = len(PER_REGION) * self.region_count + PER_HEAD.index(field)
        return self._sums[..., start : start + 1].numpy()

    def _accumulate(self, ready: list) -> None:
        indices = [item[0] for item in ready]
        weights, entropy, coverage = (torch.stack([item[k] for item in ready]) for k in (1, 2, 3))
        others = torch.stack([item[3] if item[4] is None else item[4] for item in ready])
        features, unit = self._features(weights, entropy, coverage, others)
        draws = torch.from_numpy(np.stack([self._poisson(index) for index in indices], axis=1))
        regions = self.region_count
        shared = torch.einsum("irp,isp->irs", coverage, coverage).double()
        self._overlap += torch.einsum("di,irs->drs", draws, shared)
        difference = features[..., :regions].double() - features[..., regions : 2 * regions].double()
        moments = ((difference**2).sum(0), unit.double().sum(0), (unit.double() ** 2).sum(0))
        if self._sums is None:
            self._sums = torch.zeros(self.replicates + 1, *features.shape[1:], dtype=torch.float64)
            self._difference_squares, self._first, self._second = (
                torch.zeros_like(moment) for moment in moments
            )
        self._sums.flatten(1).addmm_(draws, features.double().flatten(1))
        self._difference_squares += moments[0]
        self._first += moments[1]
        self._second += moments[2]

    def _poisson(self, index: int) -> np.ndarray:
        draws = np.random.default_rng((self.seed, index)).poisson(1.0, self.replicates)
        return np.concatenate([[1.0], draws])

    def _features(
        self,
        weights: Float[Tensor, "image variant layer head token"],
        query_entropy: Float[Tensor, "image variant layer head"],
        coverage: Float[Tensor, "image region patch"],
        others: Float[Tensor, "image region patch"],
    ) -> tuple[Float[Tensor, "image sinks variant layer head feature"], Tensor]:
        keep = self.keep.float()
        patches = weights[:, None, ..., self._prefix :] * keep[None, :, None]
        tiniest = torch.finfo(weights.dtype).tiny
        everything = weights.sum(-1).clamp_min(tiniest)
        on_patches = patches.sum(-1)
        valid = (on_patches > NO_ATTENTION * everything[:, None]).float()
        unit = patches / on_patches.clamp_min(tiniest)[..., None] * valid[..., None]
        prefix_share = weights[..., : self._prefix].sum(-1) / everything
        surprise = torch.special.entr(unit)

        share = torch.einsum("isvlhp,irp->isvlhr", unit, coverage)
        shuffled = torch.einsum("isvlhp,irp->isvlhr", unit, others)
        # Entropy of a * c / share within a region: (-sum c a log a - sum a c log c) / share + log share.
        inside = torch.einsum("isvlhp,irp->isvlhr", surprise, coverage)
        inside = inside + torch.einsum("isvlhp,irp->isvlhr", unit, torch.special.entr(coverage))
        touched = torch.einsum("slhp,irp->islhr", keep, (coverage > 0).float())[:, :, None]
        has = (share > NO_ATTENTION) & (touched > 1)
        tiny = share.clamp_min(NO_ATTENTION)
        entropy = (inside / tiny + tiny.log()) / touched.clamp_min(2).log() * has

        total = torch.einsum("slhp,irp->islhr", keep, coverage)[:, :, None]
        squares = torch.einsum("slhp,irp->islhr", keep, coverage**2)[:, :, None]
        area = total / keep.sum(-1).clamp_min(1)[None, :, None, :, :, None]
        ceiling = squares / total.clamp_min(1e-12)
        present = (total > 0).float()
        on = valid[..., None]
        per_region = [share, shuffled, area * on, ceiling * on, entropy, has.float(), present * on]
        spread = surprise.sum(-1) / keep.sum(-1).clamp_min(2).log()[None, :, None]
        per_head = [
            spread * on[..., 0],
            prefix_share[:, None],
            query_entropy[:, None],
            valid,
            torch.ones_like(valid),
        ]
        shape = (*unit.shape[:-1], self.region_count)
        stacked = torch.cat(
            [part.expand(shape) for part in per_region]
            + [part[..., None].expand(*shape[:-1], 1) for part in per_head],
            dim=-1,
        )
        return stacked, unit
