"""What heads are about: everything that a class needs of a network, twin images included, and importance and focus.

Twin images differ in one thing, taken away or put elsewhere: does attention follow the thing?
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.chirps import LATEST_START, ridge, smooth
from vitmech_utils.data.dataset import ChirpDataset, held_out
from vitmech_utils.data.figures import draw
from vitmech_utils.data.style import Style
from vitmech_utils.heads.attention import attention_maps
from vitmech_utils.heads.attention_shares import (
    AttentionStatistics,
    attention_statistics,
    names_of_regions,
    patch_coverage,
)
from vitmech_utils.heads.check import check_heads, watch_projections
from vitmech_utils.heads.hooks import capture_heads
from vitmech_utils.heads.projections import mean_of_queries, without_gradients
from vitmech_utils.heads.semantics import CLASSES, Thresholds, classes_over_thresholds, classify, unmix
from vitmech_utils.heads.sinks import Sinks, find_sinks
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.model.lora import update_norms as update_norms
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.statistics import Interval, percentile_bounds, rank_correlation

BAR_ALONE = Style(ticks=False, axis_labels=False)
LABELS_ALONE = Style(title="none", colour_bar="none")


@dataclass(frozen=True)
class Change:
    """One intervention: the regions that it is about, how ("removed" or "moved"), and the styles before and after.

    A style changes on both sides where the thing needs room to move to.
    """

    regions: tuple[str, ...]
    kind: str
    after: Style = Style.published
    before: Style = Style.published


CHANGES: dict[str, Change] = {
    "chirp removed": Change(("chirp",), "removed"),
    "chirp moved": Change(("chirp",), "moved"),
    "title removed": Change(("title",), "removed", Style(title="none")),
    "title moved": Change(
        ("title",), "moved", Style(title_side="bottom", axis_labels=False), Style(axis_labels=False)
    ),
    "colour bar removed": Change(("colour bar", "colour-bar label"), "removed", Style(colour_bar="none")),
    "colour bar moved": Change(("colour bar",), "moved", replace(BAR_ALONE, colour_bar="left"), BAR_ALONE),
    "axis labels removed": Change(("axis label",), "removed", Style(axis_labels=False)),
    "axis labels moved": Change(
        ("axis label", "tick label"),
        "moved",
        replace(LABELS_ALONE, time_side="top", frequency_side="right"),
        LABELS_ALONE,
    ),
    "figure moved": Change(("frame",), "moved", Style(shift=(45, 0))),
}
"""What is done to each image. Moving the axis labels moves the ticks with them; the figure moves 16 of 224 pixels."""

FOLLOWED = 2.0
"""The lift on a region from which on it is worth asking whether a head's attention goes along with it."""

Pair = tuple[dict[str, Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class Examined:
    """What `examine` finds in a network: sinks, attention statistics, the effects of twins, and every head's class."""

    sinks: Sinks
    statistics: AttentionStatistics
    effects: pd.DataFrame | None
    classes: pd.DataFrame


@checked_arguments()
def sizes_of(model: nn.Module) -> dict[str, int]:
    """How many layers a model has, how many heads in each, and how large they are."""
    return find_blocks(model).sizes


@checked_arguments()
def examine(
    model: nn.Module,
    images: Mapping[str, Tensor],
    twins: "Mapping[str, Pair] | None" = None,
    seed: int = 0,
    regions: Sequence[str] | None = None,
) -> Examined:
    """Look at one network on stacked images as `stack` gives them, and class its heads.

    Networks that are to be compared get the same `images`, `twins` and `seed`. Without `twins` no head is asked
    whether it follows what is moved. `regions` name the numbers in region maps, as in `attention_statistics`.
    """
    sinks = find_sinks(model, sink_looks(images["pixel_values"]))
    statistics = attention_statistics(model, images, sinks=sinks.mask, seed=seed, regions=regions)
    effects = None if twins is None else twin_effects(model, twins, seed=seed, regions=statistics.names)
    return Examined(sinks, statistics, effects, classify(statistics, effects, sinks))


@checked_arguments()
def examine_again(
    model: nn.Module,
    images: Mapping[str, Tensor],
    twins: "Mapping[str, Pair]",
    count: int,
    pairs: int,
    seed: int = 0,
) -> Examined:
    """`examine` another training on the last `count` of the images and the first `pairs` of each pair of twins."""
    few = {name: tensor[-count:] for name, tensor in images.items()}
    fewer = {
        change: tuple({name: tensor[:pairs] for name, tensor in side.items()} for side in both)
        for change, both in twins.items()
    }
    return examine(model, few, fewer, seed)


@checked_arguments()
def classed_halves(
    model: nn.Module, images: Mapping[str, Tensor], found: Examined, seed: int = 0
) -> pd.DataFrame:
    """The classes from either half of the images, sinks and twins as `found` has them: column half, 0 and 1."""
    middle = len(images["pixel_values"]) // 2
    tables = []
    for half, part in enumerate((slice(middle), slice(middle, None))):
        few = {name: tensor[part] for name, tensor in images.items()}
        statistics = attention_statistics(model, few, sinks=found.sinks.mask, seed=seed)
        tables.append(classify(statistics, found.effects, found.sinks).assign(half=half))
    return pd.concat(tables, ignore_index=True)


@checked_arguments()
def chirp_focus(found: Examined) -> pd.DataFrame:
    """How much of each head's unmixed attention the chirp has: layer, head (0-based), chirp_weight in [0, 1]."""
    weights = unmixed(found.statistics)[..., found.statistics.names.index("chirp")]
    layer, head = (axis.ravel() for axis in np.indices(weights.shape))
    return pd.DataFrame({"layer": layer, "head": head, "chirp_weight": weights.ravel()})


@checked_arguments()
def sink_looks(
    pixel_values: Float[Tensor, "image channel height width"], count: int = 4
) -> dict[str, Tensor]:
    """Up to `count` images, other figures with everything moved, and plain noise: looks for `find_sinks`."""
    few = min(count, len(pixel_values))
    noise = torch.rand(few, *pixel_values.shape[1:], generator=torch.Generator().manual_seed(0))
    return {
        "published": pixel_values[:few],
        "moved": held_out(few, "moved", seed=1)["pixel_values"],
        "noise": noise,
    }


@checked_arguments()
def untrained_classes(model: ChirpRegressor, images: Mapping[str, Tensor], seed: int = 0) -> pd.DataFrame:
    """The classes of `model`'s untrained twin, from half of the images and their attention alone."""
    half = {name: tensor[: max(2, len(tensor) // 2)] for name, tensor in images.items()}
    return classify(attention_statistics(model.untrained_twin(), half, seed=seed))


@checked_arguments()
def example_maps(
    model: nn.Module, pixel_values: Float[Tensor, "image 3 height width"]
) -> dict[str, Float[Tensor, "..."]]:
    """The first image [row, column, 3] and every head's map over it [layer, head, row, column]."""
    return {
        "image": pixel_values[0].permute(1, 2, 0),
        "maps": attention_maps(model, pixel_values[:2])[0],
    }


@checked_arguments()
def lifts(statistics: AttentionStatistics) -> Float[ndarray, "layer head region"]:
    """Every head's lift on every region, of CLS queries by raw weights with sinks kept; NaN where no image has it."""
    share, area = (statistics.replicates[name][0, 0, 0] for name in ("share", "area"))
    return share / np.where(area > 0, area, np.nan)


@checked_arguments()
def unmixed(statistics: AttentionStatistics) -> Float[ndarray, "layer head region"]:
    """Every head's unmixed attention on every region, of CLS queries by raw weights with sinks kept."""
    return unmix(statistics.replicates["share"][0, 0, 0], statistics.profiles[0])


@checked_arguments()
def classes_by_layer(classes: pd.DataFrame) -> pd.DataFrame:
    """Count heads per class, layer by layer: a column layer (from 1) and one per class."""
    counts = pd.crosstab(classes["layer"] + 1, classes["class"]).reindex(columns=list(CLASSES), fill_value=0)
    counts.columns.name = None
    return counts.reset_index()


@checked_arguments()
def surest_and_doubtful(classes: pd.DataFrame, count: int = 3) -> pd.DataFrame:
    """The heads that are surest to be about something, and those whose class is least sure, named and with a kind."""
    order = ["confidence", "information"]
    about = classes[classes["class"].isin(["monosemantic", "polysemantic"])]
    surest = about.sort_values(order, ascending=False).head(count).assign(kind="strongest")
    doubtful = classes.sort_values(order).head(count).assign(kind="most doubtful")
    listed = pd.concat([surest, doubtful])
    return listed.assign(head_name=[f"L{row.layer + 1}H{row.head + 1}" for row in listed.itertuples()])


@checked_arguments()
def early_text_or_edge(classes: pd.DataFrame) -> pd.DataFrame:
    """The heads of layers 1-4 that are about a text or a line of the figure, alone or among others."""
    about = classes["regions"].str.contains("title|label|frame", regex=True)
    return classes[about & (classes["layer"] < 4)]


@checked_arguments()
def importance_and_focus(
    focus: pd.DataFrame, sweep: pd.DataFrame, permutations: int, seed: int = 0
) -> pd.DataFrame:
    """Rank correlation of effect and attention on the chirp, per ablation mode, over all heads and within layers.

    `focus` has layer, head and chirp_weight; `sweep` is a table of effects of one or more modes. Within layers both
    are less their layer's mean, so that depth cannot make the correlation. The interval is a bootstrap over heads, the
    p-value two-sided by permuting heads, with `permutations` draws each (500 at most for the p-value).
    """
    rng = np.random.default_rng(seed)
    rows = []
    for mode in modes_of(sweep):
        joined = focus.merge(sweep[sweep["mode"] == mode], on=["layer", "head"])
        columns = joined[["chirp_weight", "effect"]]
        within = columns - columns.groupby(joined["layer"]).transform("mean")
        for heads, pair in {"all heads": columns, "within layers": within}.items():
            one, other = pair.to_numpy().T
            found = rank_correlation(one, other, permutations)
            null = [
                rank_correlation(one, rng.permutation(other), 1).value for _ in range(min(permutations, 500))
            ]
            p_value = (1 + np.sum(np.abs(null) >= abs(found.value))) / (1 + len(null))
            rows.append((mode, heads, found.value, found.low, found.high, p_value))
    return pd.DataFrame(rows, columns=["mode", "heads", "correlation", "low", "high", "p_value"])


@checked_arguments()
def correlations(table: pd.DataFrame) -> tuple[Interval, Interval]:
    """The correlations of the first mode of `importance_and_focus`: over all heads, and within layers."""
    found = table[table["mode"] == table["mode"].iloc[0]].set_index("heads")[["correlation", "low", "high"]]
    return Interval(*found.loc["all heads"]), Interval(*found.loc["within layers"])


@checked_arguments()
def modes_of(sweep: pd.DataFrame) -> list[str]:
    """The ablation modes of a table of effects, mean ablation first where it is there."""
    return sorted(sweep["mode"].unique(), key=lambda mode: (mode != "mean", mode))


@checked_arguments()
def update_against_lift(updates: pd.DataFrame, growth: Float[ndarray, "layer head"], draws: int) -> Interval:
    """Rank correlation of the size of each head's update with the change of its lift, in doublings either way."""
    sizes = updates.groupby(["layer", "head"])["relative"].sum().to_numpy()
    return rank_correlation(sizes, np.abs(np.log2(growth)).ravel(), draws)


@checked_arguments()
def counterparts(classes: pd.DataFrame, on_chirp: Float[ndarray, "layer head"]) -> dict[str, tuple[int, int]]:
    """The study's two examples, where they exist, and their nearest counterparts: a name and (layer, head) each."""
    layers, heads = on_chirp.shape
    six, last = min(5, layers - 1), layers - 1
    spread = classes.query("layer == @last")["map_entropy"].to_numpy()
    wanted = {
        "layer 6, head 4": (six, min(3, heads - 1)),
        "layer 6, most on the chirp": (six, int(on_chirp[six].argmax())),
        "last layer, most spread out": (last, int(spread.argmax())),
    }
    return wanted | ({"layer 12, head 12": (last, 11)} if heads >= 12 else {})


@checked_arguments()
def classified_otherwise(found: Examined) -> pd.DataFrame:
    """Every head's class by a stricter `part`, and by the queries of patches instead of CLS; column `rule`."""
    stricter = classify(found.statistics, found.effects, found.sinks, Thresholds(part=0.5))
    tables = {"part 0.5": stricter, "patch queries": classified_by_patches(found)}
    return pd.concat([table.assign(rule=rule) for rule, table in tables.items()], ignore_index=True)


@checked_arguments()
def classified_over_thresholds(found: Examined) -> pd.DataFrame:
    """An examined network's classes at either end of every threshold, as `semantics.classes_over_thresholds`."""
    return classes_over_thresholds(found.statistics, found.effects, found.sinks)


@checked_arguments()
def classified_by_patches(found: Examined) -> pd.DataFrame:
    """Every head's class by the queries of patches instead of CLS."""
    return classify(found.statistics, found.effects, found.sinks, query="patches")


@checked_arguments()
def make_twins(count: int, seed: int = 0, changes: Mapping[str, Change] = CHANGES) -> dict[str, Pair]:
    """Draw the first `count` held-out images before and after each change; chirp and noise stay the same.

    Returns (before, after) per change, each with `pixel_values` float32 [image, 3, 224, 224] in [0, 1] and `regions`
    [image, 224, 224]. A removed chirp leaves its noise; a moved one starts half the range later, modulo the range.
    """
    untouched = {
        style: _stack(count, seed, style) for style in dict.fromkeys(c.before for c in changes.values())
    }
    return {
        name: (
            untouched[change.before],
            _stack(count, seed, change.after, change if "chirp" in change.regions else None),
        )
        for name, change in changes.items()
    }


def _stack(count: int, seed: int, style: Style, chirp_change: Change | None = None) -> dict[str, Tensor]:
    dataset = ChirpDataset(count, seed, style, "held-out")
    drawings = []
    for index in range(count):
        chirp, grid = dataset.chirp(index), dataset.grid(index)
        if chirp_change is not None:
            # Smoothing is linear: taking the smoothed ridge away leaves exactly the smoothed noise.
            grid = grid - smooth(ridge(chirp))
            if chirp_change.kind == "moved":
                chirp = replace(chirp, start_time=(chirp.start_time + LATEST_START / 2) % LATEST_START)
                grid = grid + smooth(ridge(chirp))
        drawings.append(draw(grid, chirp, style, dataset.title(index)))
    images = np.stack([drawing.image for drawing in drawings])
    return {
        "pixel_values": torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255,
        "regions": torch.from_numpy(np.stack([drawing.regions for drawing in drawings])),
    }


@checked_arguments()
def twin_effects(
    model: nn.Module,
    twins: Mapping[str, Pair],
    changes: Mapping[str, Change] = CHANGES,
    draws: int = 1000,
    seed: int = 0,
    regions: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Measure how each head's CLS attention and output change between twin images.

    `changes` say what each pair of `twins` is about, `regions` name the numbers in region maps, as in
    `attention_statistics`.

    One row per change, region, layer and head (0-based). `lift_before`: on the region before;
    `lift_stays`: on its old place after; for moved regions also `lift_after` on the new place after, and
    `lift_already` on that place before. `follow` = 1 - (already + stays) / (before + after), divided
    by what attention in proportion to coverage would reach (less than 1 where old and new place overlap): 1 when all
    attention moves with the thing, 0 when it does not notice, with a 95 % bootstrap interval over images.
    `output_change` is the length of the change of the head's output at CLS over that output's length (mean over
    images). For removals `follow` is the part of the lift that goes with the thing, 1 - stays / before. Lifts are
    ratios of means over images; a removal leaves `lift_after` and `lift_already` NaN, as `reason` says.
    """
    anatomy, names = check_heads(model).anatomy, names_of_regions(regions, model=model)
    if unknown := {region for change in changes.values() for region in change.regions} - set(names):
        raise ValueError(
            f"unknown region {sorted(unknown)[0]!r} in changes, expected one of {', '.join(names)}"
        )
    known = {}
    rng = np.random.default_rng(seed)
    images = len(next(iter(twins.values()))[0]["pixel_values"])
    draw_weights = np.vstack(
        [np.ones(images), rng.multinomial(images, np.full(images, 1 / images), size=draws)]
    )
    tables = []
    for name, change in changes.items():
        reads = []
        for images_of in twins[name]:
            pixels = images_of["pixel_values"]
            if id(pixels) not in known:  # changes share the images before them
                known[id(pixels)] = read_cls(model, pixels)
            reads.append(
                (
                    *known[id(pixels)],
                    patch_coverage(images_of["regions"], anatomy.patch, len(names)).flatten(2),
                )
            )
        (before, outputs, here), (after, changed, there) = reads
        moved = ((changed - outputs).norm(dim=-1) / outputs.norm(dim=-1).clamp_min(1e-12)).mean(0)
        for region in change.regions:
            place, new_place = here[:, names.index(region)], there[:, names.index(region)]
            pairs = {"lift_before": (before, place), "lift_stays": (after, place)}
            if change.kind == "moved":
                pairs |= {"lift_after": (after, new_place), "lift_already": (before, new_place)}
            ideal = _overlap_bound(place, new_place) if change.kind == "moved" else 1.0
            lifts = {key: _lifts(maps, cover, draw_weights) for key, (maps, cover) in pairs.items()}
            tables.append(_effect_table(name, region, change.kind, lifts, moved.numpy(), ideal))
    table = pd.concat(tables, ignore_index=True)
    return table if not anatomy.pruned else table[anatomy.present[table["layer"], table["head"]]]


@checked_arguments()
def read_cls(
    model: nn.Module, pixel_values: Float[Tensor, "image channel height width"], batch: int = 8
) -> tuple[Float[Tensor, "image layer head patch"], Float[Tensor, "image layer head size"]]:
    """Attention of what the answer reads (CLS) over patches, each map summing to 1, and every head's output there."""
    maps: dict[int, list[Tensor]] = {}
    outputs: dict[int, list[Tensor]] = {}

    def receive(projections) -> None:
        weights = mean_of_queries(projections, found.query)[..., found.anatomy.prefix :].cpu()
        maps.setdefault(projections.layer, []).append(
            weights / weights.sum(-1, keepdim=True).clamp_min(1e-12)
        )

    with (
        without_gradients(model),
        watch_projections(model, receive, pixel_values) as found,
        capture_heads(model) as captured,
    ):
        device = next(model.parameters()).device
        tokens = (
            torch.arange(sum(found.token_counts))[found.query]
            if isinstance(found.query, slice)
            else found.query
        )
        read = [int(token if found.order is None else found.order[token]) for token in tokens]
        for part in pixel_values.split(batch):
            model(part.to(device))
            for layer, heads in captured.items():
                outputs.setdefault(layer, []).append(heads[:, read].mean(1).float().cpu())
    return tuple(
        torch.stack([torch.cat(parts[layer]) for layer in sorted(parts)], dim=1) for parts in (maps, outputs)
    )


def _lifts(
    maps: Float[Tensor, "image layer head patch"],
    coverage: Float[Tensor, "image patch"],
    draw_weights: Float[np.ndarray, "draw image"],
) -> Float[np.ndarray, "draw layer head"]:
    shares = torch.einsum("ilhp,ip->ilh", maps, coverage).double().numpy()
    areas = coverage.double().mean(-1).numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.einsum("di,ilh->dlh", draw_weights, shares) / (draw_weights @ areas)[:, None, None]


def _overlap_bound(old: Float[Tensor, "image patch"], new: Float[Tensor, "image patch"]) -> float:
    """`follow` of attention in proportion to coverage; NaN where old and new place are nearly the same."""
    bound = float(1 - 2 * (old * new).sum() / ((old**2).sum() + (new**2).sum()).clamp_min(1e-12))
    return bound if bound > 0.2 else float("nan")


def _effect_table(
    change: str, region: str, kind: str, lifts: dict[str, np.ndarray], output_change: np.ndarray, ideal: float
) -> pd.DataFrame:
    with np.errstate(invalid="ignore", divide="ignore"):
        if kind == "moved":
            wrong = lifts["lift_already"] + lifts["lift_stays"]
            follow = (1 - wrong / (lifts["lift_before"] + lifts["lift_after"])) / ideal
        else:
            follow = 1 - lifts["lift_stays"] / lifts["lift_before"]
    absent = ~np.isfinite(follow[0])
    low, high = np.full(absent.shape, np.nan), np.full(absent.shape, np.nan)
    if not absent.all():
        low[~absent], high[~absent] = percentile_bounds(follow[1:, ~absent])
    layer, head = (index.ravel() for index in np.indices(absent.shape))
    none = np.full(absent.shape, np.nan)
    return pd.DataFrame(
        {
            "change": change,
            "region": region,
            "layer": layer,
            "head": head,
            **{
                key: lifts[key][0].ravel() if key in lifts else none.ravel()
                for key in ("lift_before", "lift_stays", "lift_after", "lift_already")
            },
            "follow": follow[0].ravel(),
            "low": low.ravel(),
            "high": high.ravel(),
            "output_change": output_change.ravel(),
            "reason": np.where(
                absent.ravel(),
                "region in no image, or no attention on it: no follow",
                "" if kind == "moved" else "removed: it has no new place",
            ),
        }
    )
