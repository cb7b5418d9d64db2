"""Count how often nominal 95 % intervals hold the truth, for every quantity that a verdict rests on.

    python benchmarks/coverage.py [--population 1000] [--repeats 200] [--table coverage.json]

The 5,000 published held-out readings, and the linearized changes of the first of them, stand for all images that there
are. Of these, images are drawn again and again, as many as a chapter has, and each method's interval is held against
the population's own value. A row tells of the method that the library takes, by the table that lies in the package;
--table makes that table. The linearized changes are computed once, under results/, and taken from there afterwards;
in bfloat16, as the chapters do, where the processor multiplies in it. With --quick, the exact changes of 96 images that
`exact` keeps take their place.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from exact import EXACT
from measuring import ADAPTER, not_measured, row, start
from numpy import ndarray
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file

from vitmech_utils.artefacts import write_json
from vitmech_utils.data.dataset import ChirpDataset, stack
from vitmech_utils.heads.ablation import HeadPredictions
from vitmech_utils.heads.attention import ByImage, image_shares
from vitmech_utils.heads.attention import by_image as maps_by_image
from vitmech_utils.heads.changes import ALL, BREAKING, changes
from vitmech_utils.heads.control_variates import corrected_values, image_sizes, select_images
from vitmech_utils.heads.estimates import fast_dtype
from vitmech_utils.heads.linearized import predict_linearized
from vitmech_utils.intervals import JOINT_METHODS, METHODS, joint_interval, ratio_intervals, share_intervals
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.pipeline.benchmarks import Row
from vitmech_utils.statistics import spearman
from vitmech_utils.studies.ablation.measure import EARLY, LATE
from vitmech_utils.studies.coverage import method_for

ROOT = Path(__file__).resolve().parents[1]
SCORE = ROOT / "published" / "02_lora_fine_tuning" / "predictions.safetensors"
CACHE = ROOT / "results" / "coverage"
COUNTS = (20, 24, 96, 192, 500, 1000, 2000)
MOST = 5000
"""Images that what a claim says in one number is measured on, too, where the population allows for all counts."""
ENOUGH = 93.0
"""Percent of intervals that must hold the truth for a nominal 95 % to be believed."""
HEADS, REFERENCE, PART = 6, 24, 50
DRAWS = 400


@dataclass(frozen=True)
class Mean:
    """Rows of values whose means, over the mean of `below` where given, are to be covered."""

    name: str
    above: ndarray
    below: ndarray | None = None

    def truth(self) -> ndarray:
        return self.above.mean(1) / (1 if self.below is None else self.below.mean(1))

    def bounds(self, images: ndarray, seed: int) -> Iterator[tuple[str, ndarray, ndarray]]:
        above = self.above[:, images]
        below = np.ones(images.size) if self.below is None else self.below[:, images]
        for method in METHODS:
            yield method, *ratio_intervals(above, below, method, DRAWS, seed=seed)


@dataclass(frozen=True)
class Share:
    """Rows of yes and no whose share is to be covered."""

    name: str
    found: ndarray

    def truth(self) -> ndarray:
        return self.found.mean(1)

    def bounds(self, images: ndarray, seed: int) -> Iterator[tuple[str, ndarray, ndarray]]:
        yield "binomial", *share_intervals(self.found[:, images])
        yield (
            "percentile",
            *ratio_intervals(
                self.found[:, images].astype(float), np.ones(images.size), "percentile", DRAWS, seed=seed
            ),
        )


@dataclass(frozen=True)
class Joint:
    """One number of all rows' means."""

    name: str
    values: ndarray
    statistic: Callable[[ndarray], ndarray]

    def truth(self) -> ndarray:
        return self.statistic(self.values.mean(1)[None])

    def bounds(self, images: ndarray, seed: int) -> Iterator[tuple[str, ndarray, ndarray]]:
        for method in JOINT_METHODS:
            found = joint_interval(self.values[:, images], self.statistic, method, DRAWS, seed=seed)
            yield method, np.array([found.low]), np.array([found.high])


@dataclass(frozen=True)
class Corrected:
    """Cheap values of ten times as many images, put right by exact ones of as many as are drawn."""

    name: str
    cheap: ndarray
    exact: ndarray
    by_size: bool
    fitted: bool

    def truth(self) -> ndarray:
        return self.exact.mean(1)

    def bounds(self, images: ndarray, seed: int) -> Iterator[tuple[str, ndarray, ndarray]]:
        many = np.random.default_rng([seed, 1]).integers(self.exact.shape[1], size=10 * images.size)
        cheap = self.cheap[:, many]
        sizes = image_sizes(cheap) if self.by_size else np.ones(many.size)
        selection = select_images(sizes, images.size, seed=seed)
        values = corrected_values(
            cheap, self.exact[:, many[selection.images]], selection, fitted=self.fitted, seed=seed
        )
        for method in ("t", "transformed-t", "lengthened-t", "padded-t"):
            yield method, *ratio_intervals(values, np.ones(many.size), method)


def coverage(quantity, counts: tuple[int, ...], repeats: int) -> pd.DataFrame:
    """How often each method's bounds hold the truth.

    Returns quantity, images, method, covered (percent of repeats, median over the rows), least (the worst row),
    enough (percent of rows with at least 93 %), too_low, too_high (percent of intervals that end below the truth, or
    begin above it) and half_width (median, in units of the truth).
    """
    truth, population = quantity.truth(), _population(quantity)
    records = []
    for count in counts:
        found: dict[str, list[tuple[ndarray, ndarray]]] = {}
        for repeat in range(repeats):
            images = np.random.default_rng([repeat, count]).integers(population, size=count)
            for method, low, high in quantity.bounds(images, repeat):
                found.setdefault(method, []).append((low, high))
        for method, bounds in found.items():
            low, high = (np.stack(side) for side in zip(*bounds, strict=True))
            held = 100 * ((low <= truth) & (truth <= high)).mean(0)
            with np.errstate(divide="ignore", invalid="ignore"):
                width = np.nanmedian((high - low) / 2 / np.abs(truth))
            records.append(
                {
                    "quantity": quantity.name, "images": count, "method": method, "covered": np.median(held),
                    "least": held.min(), "enough": 100 * (held >= ENOUGH).mean(),
                    "too_low": 100 * (high < truth).mean(), "too_high": 100 * (low > truth).mean(),
                    "half_width": width,
                }
            )  # fmt: skip
    return pd.DataFrame(records)


def quantities(
    linear: HeadPredictions,
    labels: torch.Tensor,
    exact: HeadPredictions,
    exact_labels: torch.Tensor,
    seen: tuple[ByImage, torch.Tensor],
) -> list[Mean | Share | Joint | Corrected]:
    """All that a verdict rests on, of the published readings and of `linear`; `exact` has some of its images.

    `seen` are maps of every head and image, and the images' regions.
    """
    score = load_file(SCORE)
    errors = ((score["predictions"].astype(float) - score["labels"]) ** 2).mean(1)
    one = changes(linear, labels).of(ALL)
    shift, effect, limit = (
        one.shift[..., 0],
        one.effect[..., 0],
        BREAKING * ChirpRegressor.task.guess(labels),
    )
    whole, broken = one.whole(limit).astype(float), one.broken(limit)
    layers = np.unique(linear.layers)
    early, late = (np.isin(linear.layers, group) for group in (EARLY, LATE))
    baseline = errors.mean()
    order = changes(*kept_exactly("zero")).of(ALL)
    some = slice(None, None, 3)
    found = [
        Mean("loss of the whole model", errors[None]),
        Mean("shift of a head", shift[some]),
        Mean("effect of a head", effect[some]),
        Mean("shift of a head, readings that stay whole", (shift * whole)[some], whole[some]),
        Mean("effect of a head, readings that stay whole", (effect * whole)[some], whole[some]),
        Mean("mean shift of a layer", np.stack([shift[linear.layers == layer].mean(0) for layer in layers])),
        Mean(
            "mean effect of a layer", np.stack([effect[linear.layers == layer].mean(0) for layer in layers])
        ),
        Mean("C1: mean effect of layers 1-3", effect[early].mean(0)[None]),
        Mean("C2: layer 6 over layers 1-3, shift", shift[late].mean(0)[None], shift[early].mean(0)[None]),
        Mean("C2: layer 6 over layers 1-3, effect", effect[late].mean(0)[None], effect[early].mean(0)[None]),
        Share("share of readings that break", broken[broken.any(1)]),
        Joint(
            "heads with a shift above 5 %",
            shift,
            lambda means: (means > 0.05 * baseline).sum(1).astype(float),
        ),
        Joint(
            "heads with an effect above 5 %",
            effect,
            lambda means: (means > 0.05 * baseline).sum(1).astype(float),
        ),
    ]
    # An order of the heads that does not change from draw to draw: that of another ablation mode. On z scale.
    for name, values, fixed in (("shift", shift, order.shift), ("effect", effect, order.effect)):
        name = f"rank correlation of the heads' {name}s with another mode's"
        found.append(Joint(name, values, _agreement(fixed[..., 0].mean(1))))
    found += [
        Mean(
            f"attention share of a head on the {region}",
            image_shares(*seen, region)[0].reshape(len(seen[1]), -1).T,
        )
        for region in ("chirp", "title")
    ]
    known = changes(exact, exact_labels).of(ALL)
    shared = min(len(exact_labels), len(labels))
    cheap, right = one.on(slice(shared)), known.on(slice(shared))
    if linear is not exact:
        for by_size, fitted, how in (
            (False, False, "equal chances"), (True, False, "by size"), (True, True, "by size, fitted"),
        ):  # fmt: skip
            found.append(
                Corrected(
                    f"effect of a head by control variate, {how}",
                    cheap.effect[..., 0], right.effect[..., 0], by_size, fitted,
                )
            )  # fmt: skip
    return found


def _agreement(order: ndarray) -> Callable[[ndarray], ndarray]:
    return lambda means: np.arctanh(spearman(means, np.broadcast_to(order, means.shape)))


def linearized(images: int) -> tuple[HeadPredictions, torch.Tensor]:
    """Linearized predictions of the first held-out images by mean ablation, in parts that are kept under results/."""
    CACHE.mkdir(parents=True, exist_ok=True)
    model, reference = ChirpRegressor.load(ADAPTER).merged(), None
    dtype = fast_dtype(model)
    name = str(dtype or torch.float32).removeprefix("torch.")
    parts = []
    for begin in range(0, images, PART):
        kept = CACHE / f"linearized-mean-{name}-{begin:05d}.safetensors"
        if not kept.is_file():
            if reference is None:
                reference = stack(ChirpDataset(REFERENCE), REFERENCE)["pixel_values"]
            data = stack(ChirpDataset(begin + PART, split="held-out"), range(begin, begin + PART))
            found = predict_linearized(model, data["pixel_values"], "mean", reference=reference, dtype=dtype)
            arrays = {"baseline": found.baseline, "ablated": found.ablated, "labels": data["labels"].double()}
            scratch = kept.with_suffix(".part")
            save_file(arrays, scratch)
            scratch.replace(kept)
        parts.append(load_tensors(kept))
    baseline, labels = (torch.cat([part[name] for part in parts])[:images] for name in ("baseline", "labels"))
    ablated = torch.cat([part["ablated"] for part in parts], 1)[:, :images]
    return _predictions(baseline, ablated, "linearized"), labels


def looked_at(images: int) -> tuple[ByImage, torch.Tensor]:
    """Where every head's CLS token looks on the first held-out images, and the images' region maps."""
    data = stack(ChirpDataset(images, split="held-out"), images)
    return maps_by_image(ChirpRegressor.load(ADAPTER).merged(), data), data["regions"]


def kept_exactly(mode: str) -> tuple[HeadPredictions, torch.Tensor]:
    """Exact predictions of the first held-out images, and their labels."""
    stored = load_tensors(EXACT)
    baseline, ablated = stored[f"baseline_{mode}"], stored[f"ablated_{mode}"]
    labels = load_tensors(SCORE)["labels"][: len(baseline)].double()
    return _predictions(baseline, ablated, "replay"), labels


def _predictions(baseline: torch.Tensor, ablated: torch.Tensor, method: str) -> HeadPredictions:
    layer, head = np.divmod(np.arange(len(ablated)), HEADS)
    return HeadPredictions(baseline, ablated, layer, head, "mean", method)


def _population(quantity) -> int:
    return next(
        getattr(quantity, name).shape[1]
        for name in ("above", "found", "values", "exact")
        if hasattr(quantity, name)
    )


def measure(options: argparse.Namespace) -> list[Row]:
    """The table of all methods, printed and kept where --table asks for it; a row for each quantity and number."""
    exact, exact_labels = kept_exactly("mean")
    linear, labels = (exact, exact_labels) if options.quick else linearized(options.population)
    counts = COUNTS[:2] if options.quick else tuple(n for n in COUNTS if n <= options.population)
    table = pd.concat(
        [
            coverage(quantity, _counts(quantity, counts), options.repeats)
            for quantity in quantities(linear, labels, exact, exact_labels, looked_at(options.seen))
        ],
        ignore_index=True,
    )
    print(table.to_string(index=False, float_format="{:.2f}".format))
    if options.table:
        write_json(
            options.table,
            {
                "repeats": options.repeats,
                "population": len(labels),
                "rows": table.round(3).to_dict("records"),
            },
        )
    return [_row(*group) for group in table.groupby(["quantity", "images"], sort=False)]


def _counts(quantity, counts: tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(quantity, Corrected):
        return counts[:3]
    one = isinstance(quantity, Mean) and len(quantity.above) == 1 and counts == COUNTS
    return (*counts, MOST) if one else counts


def _row(key: tuple[str, int], methods: pd.DataFrame) -> Row:
    name, images = key
    ours = method_for(name, images)
    by_method = methods.set_index("method")
    what = f"95 % intervals that hold the truth: {name}, {images} images"
    covered = by_method["covered"][ours]
    if not np.isfinite(covered):
        return not_measured(what, "%", "the population has no such value", at_least=ENOUGH)
    plain = (
        f"percentile bootstrap ({by_method['covered']['percentile']:.0f} %)"
        if "percentile" in by_method.index
        else ""
    )
    return row(what, [covered], "%", against=plain, how=ours, at_least=ENOUGH)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--table", type=Path, help="file to keep the whole table in, as JSON")


if __name__ == "__main__":
    start(
        __doc__,
        "Intervals",
        measure,
        full={"population": 1000, "repeats": 200, "seen": 1000},
        quick={"population": 96, "repeats": 20, "seen": 24},
        extend=_options,
    )
