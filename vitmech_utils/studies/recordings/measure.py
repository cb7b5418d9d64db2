"""Whether heads keep to the chirp on real signals: six kinds of image, lifts and classes on each, and controls.

Heads are pairs of layer and head, both 0-based.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.chirps import BINS, LABEL_NAMES, LABEL_UNITS
from vitmech_utils.data.dataset import unstandardize
from vitmech_utils.data.figures import Drawing
from vitmech_utils.data.recordings import Recording, RecordingFolder, window_grid
from vitmech_utils.data.recordings.boxes import Box, write_raven
from vitmech_utils.data.recordings.spectrograms import Axes
from vitmech_utils.data.regions import REGIONS
from vitmech_utils.heads.attention import (
    AttentionStatistics,
    ByImage,
    attention_statistics,
    by_image,
    image_shares,
    lift_over_blocks,
    reading_by_image,
)
from vitmech_utils.heads.hooks import Head
from vitmech_utils.heads.semantics import classify
from vitmech_utils.heads.sinks import Sinks
from vitmech_utils.statistics import SURE, Count, rank_correlation
from vitmech_utils.studies.recordings.matched import (
    STRAIN_BAND,
    TRUSTED,
    Picture,
    apart,
    call_pictures,
    strain_pictures,
)
from vitmech_utils.studies.recordings.sources import Call

ORDER = (
    "recipe",
    "strain, painted",
    "strain, put in",
    "strain, noise alone",
    "calls, painted",
    "calls, recorded",
)
"""The kinds of image."""
PAIRS = {"strain": ("strain, painted", "strain, put in"), "calls": ("calls, painted", "calls, recorded")}
"""Kinds that differ in one thing: painted, and real."""
COMPARED = {
    "other numbers at the ticks": ("recipe", "strain, painted"),
    "other chirps": ("recipe", "calls, painted"),
    "real noise": PAIRS["strain"],
    "real recording": PAIRS["calls"],
    "no chirp (control)": ("strain, put in", "strain, noise alone"),
}
"""What changes between two kinds."""
SOLAR = 4.925e-6  # seconds: the sun's mass times G / c^3

Pictures = Mapping[str, Sequence[Picture]]
Sets = Mapping[str, Mapping[str, Tensor]]


# From a recording to a figure


@checked_arguments()
def through_files(
    samples: Float[ndarray, " sample"], rate: int, box: Box, kinds: Sequence[str]
) -> tuple[int, list[Drawing]]:
    """Write a sound with a box around it to files of some kinds; how many windows of 0.1 s, and the third one drawn."""
    drawings = []
    for kind in kinds:
        with tempfile.TemporaryDirectory() as scratch:
            soundfile.write(Path(scratch, f"tone.{kind}"), (samples * 32767).astype(np.int16), rate)
            write_raven([box], Path(scratch, "tone.selections.txt"))
            folder = RecordingFolder(scratch, length=0.1, frequencies=(0, 8000))
            drawings.append(folder.drawing(2))
    return len(folder), drawings


@checked_arguments()
def chirp_share(drawing: Drawing) -> float:
    """The chirp's share of the plot."""
    inside = drawing.regions == REGIONS.index("chirp")
    return float(inside.sum() / (inside | (drawing.regions == REGIONS.index("plot background"))).sum())


@checked_arguments()
def overview(white: Mapping[str, Recording]) -> dict[str, tuple[Float[ndarray, "128 128"], Axes]]:
    """The spectrogram of each detector's whitened second, and its axes."""
    whole = Axes(*TRUSTED, 0.0, STRAIN_BAND[1])
    return {name: (window_grid(recording, whole), whole) for name, recording in white.items()}


@checked_arguments()
def newtonian(chirp_mass: float, before: float) -> float:
    """Frequency (Hz) of an inspiral so many seconds before its end; the chirp mass is in solar masses."""
    return float((5 / (256 * before)) ** 0.375 * (chirp_mass * SOLAR) ** -0.625 / np.pi)


@checked_arguments()
def strain_facts(recording: Recording, bursts: pd.DataFrame) -> dict[str, float]:
    """What the second of strain holds, and where the injected signal was then, as an artefact has it."""
    last = float(bursts.loc[bursts["snr"].idxmax(), "time"])
    return {
        "strongest_burst_s": last,
        "first_sample_gps": recording.origin,
        "seconds": recording.duration,
        "samples_per_second": recording.rate,
        "highest_frequency_of_the_injection_hz": newtonian(0.5, last - 1.0),
        "lowest_frequency_shown_hz": STRAIN_BAND[0],
    }


# Six kinds of image


@checked_arguments()
def pictures(
    white: Mapping[str, Recording], calls: Mapping[str, Call], windows: int, images: int
) -> dict[str, list[Picture]]:
    """The pictures of every kind of `ORDER`: `windows` of each detector put in, at most `images` of any other kind."""
    found = {f"strain, {name}": kind for name, kind in strain_pictures(white, windows).items()}
    found |= {f"calls, {name}": kind for name, kind in call_pictures(calls, images).items()}
    found["recipe"] = found.pop("strain, recipe")
    whole = ("strain, put in", "calls, painted", "calls, recorded")
    return {name: found[name] if name in whole else found[name][:images] for name in ORDER}


@checked_arguments()
def samples(kinds: Pictures) -> pd.DataFrame:
    """One row per kind: images, number, apart (without overlap), sources, snr_low, snr (median), snr_high."""
    rows = []
    for name, kind in kinds.items():
        ratios = [picture.snr for picture in kind]
        rows.append(
            {
                "images": name,
                "number": len(kind),
                "apart": apart(kind) if name != "recipe" else len(kind),
                "sources": len({picture.source for picture in kind}),
                "snr_low": min(ratios),
                "snr": float(np.median(ratios)),
                "snr_high": max(ratios),
            }
        )
    return pd.DataFrame(rows)


@checked_arguments()
def unlike(sets: Sets, count: int = 2) -> dict[str, Float[Tensor, "image 3 height width"]]:
    """Images of three kinds that have little in common, to find sinks by."""
    looks = {name: sets[name]["pixel_values"][:count] for name in ("recipe", "strain, put in")}
    shape = len(looks["recipe"]), *looks["recipe"].shape[1:]
    return looks | {"noise": torch.rand(shape, generator=torch.Generator().manual_seed(0))}


# Lifts and classes


@dataclass(frozen=True)
class Looks:
    """What heads look at on every kind of image: statistics over the images, and every image by itself."""

    statistics: dict[str, AttentionStatistics]
    by_image: dict[str, ByImage]
    sinks: Sinks

    def classes(self) -> pd.DataFrame:
        """The class of every head on every kind, as `semantics.classify` has it, with the kind as `images`."""
        found = {name: classify(one, sinks=self.sinks) for name, one in self.statistics.items()}
        return pd.concat([table.assign(images=name) for name, table in found.items()], ignore_index=True)

    def lifts(self) -> pd.DataFrame:
        """The lift of every head on the chirp, with its interval over windows, on every kind (`images`)."""
        wanted = "query == 'cls' and weighting == 'raw' and sinks == 'kept' and region == 'chirp'"
        columns = [
            "layer",
            "head",
            "attention_share",
            "area_share",
            "lift",
            "lift_low",
            "lift_high",
            "images",
        ]
        parts = [
            one.regions.query(wanted)[columns].rename(columns={"images": "windows"}).assign(images=name)
            for name, one in self.statistics.items()
        ]
        return pd.concat(parts, ignore_index=True)


@checked_arguments()
def look(model: nn.Module, sets: Sets, sinks: Sinks, seed: int) -> Looks:
    """Read the model over every kind of image, each image once."""
    statistics, read = {}, {}
    for name, images in sets.items():
        with reading_by_image(model) as seen:
            statistics[name] = attention_statistics(model, images, sinks=sinks.mask, seed=seed)
            read[name] = seen()
    return Looks(statistics, read, sinks)


@checked_arguments()
def by_kind(classes: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The table of classes of every kind of image."""
    return {name: part.reset_index(drop=True) for name, part in classes.groupby("images", sort=False)}


@checked_arguments()
def about_chirp(classes: pd.DataFrame) -> pd.Series:
    """Whether each head of a table of `classify` has the chirp among its regions."""
    return classes["regions"].map(lambda regions: "chirp" in regions.split(" + "))


@checked_arguments()
def sure_heads(classes: pd.DataFrame) -> list[Head]:
    """The heads that are for sure about the chirp, by a table of `classify`."""
    found = classes[about_chirp(classes) & (classes["confidence"] >= SURE)]
    return [(int(row.layer), int(row.head)) for row in found.itertuples()]


@checked_arguments()
def heads_kept(synthetic: pd.DataFrame, real: pd.DataFrame) -> tuple[int, int, int, int]:
    """Count, of the heads that are about the chirp for sure on synthetic images, those that are on real ones too.

    Returns how many as classified, for sure at least, and at most, and of how many. Both are tables of `classify`
    (layer, head, regions, confidence) of one model. Raises `ValueError` where they name other heads.
    """
    columns = ["layer", "head", "regions", "confidence"]
    joined = synthetic[columns].merge(
        real[columns], on=["layer", "head"], suffixes=("_synthetic", "_real"), validate="one_to_one"
    )
    if not len(joined) == len(synthetic) == len(real):
        raise ValueError(
            f"the tables name {len(synthetic)} and {len(real)} heads and share {len(joined)}, expected the same ones"
        )
    wanted = about_chirp(joined.rename(columns={"regions_synthetic": "regions"}))
    chosen = joined[wanted & (joined["confidence_synthetic"] >= SURE)]
    kept = about_chirp(chosen.rename(columns={"regions_real": "regions"}))
    sure = chosen["confidence_real"] >= SURE
    return int(kept.sum()), int((kept & sure).sum()), int((kept | ~sure).sum()), len(chosen)


@checked_arguments()
def paired_lifts(lifts: pd.DataFrame, classes: pd.DataFrame) -> pd.DataFrame:
    """Lifts on painted and on real images side by side, by pair (`kind`) and head.

    `chirp_head` says whether the head is for sure about the chirp on the painted images.
    """
    tables = []
    for kind, names in PAIRS.items():
        sides = []
        for name, ending in zip(names, ("painted", "real"), strict=True):
            part = lifts[lifts["images"] == name].set_index(["layer", "head"])
            part = part[["lift", "lift_low", "lift_high"]].set_axis(["lift", "low", "high"], axis=1)
            sides.append(part.add_suffix(f"_{ending}"))
        told = classes[classes["images"] == names[0]].set_index(["layer", "head"])
        sure = about_chirp(told) & (told["confidence"] >= SURE)
        tables.append(sides[0].join(sides[1]).assign(chirp_head=sure).reset_index().assign(kind=kind))
    return pd.concat(tables, ignore_index=True)


@checked_arguments()
def chirp_heads(both: pd.DataFrame) -> dict[str, list[Head]]:
    """The heads that are for sure about the chirp on painted images, by pair."""
    found: dict[str, list[Head]] = {name: [] for name in PAIRS}
    for row in both[both["chirp_head"]].itertuples():
        found[row.kind].append((int(row.layer), int(row.head)))
    return found


@checked_arguments()
def by_source(
    read: Mapping[str, ByImage], sets: Sets, kinds: Pictures, heads: Mapping[str, Sequence[Head]]
) -> pd.DataFrame:
    """The chirp heads' mean lift for every detector and call, painted and real, and for all with an interval.

    Intervals draw whole detectors and calls; the rows of single ones have none.
    """
    rows = []
    for name, names in PAIRS.items():
        for kind, images in zip(("painted", "real"), names, strict=True):
            shares, areas = image_shares(read[images], sets[images]["regions"], "chirp")
            mean, sources = (
                _mean_share(shares, heads[name]),
                np.array([picture.source for picture in kinds[images]]),
            )
            interval = lift_over_blocks(mean, areas, list(sources))
            row = {"pair": name, "source": f"{name}, all", "kind": kind, "windows": len(mean)}
            rows.append(row | vars(interval))
            for source in sorted(set(sources), key=lambda name: (len(name), name)):
                at, what = sources == source, "detector" if name == "strain" else "call"
                row = {"pair": name, "source": f"{what} {source}", "kind": kind, "windows": int(at.sum())}
                rows.append(row | {"value": float(mean[at].mean() / areas[at].mean())})
    return pd.DataFrame(rows).rename(columns={"value": "lift"})


@checked_arguments()
def kept_table(classes: pd.DataFrame) -> pd.DataFrame:
    """For every change of `COMPARED`: how many heads keep their class, and their regions, and how many the chirp."""
    tables, rows = by_kind(classes), []
    for change, (before, after) in COMPARED.items():
        columns = ["layer", "head", "class", "regions"]
        moves = tables[before][columns].merge(
            tables[after][columns], on=["layer", "head"], validate="one_to_one"
        )
        same = moves["class_x"] == moves["class_y"]
        regions = [moves[f"regions_{side}"].str.split(" + ", regex=False).map(frozenset) for side in "xy"]
        kept, kept_low, kept_high, chirp_heads = heads_kept(tables[before], tables[after])
        rows.append(
            {
                "change": change,
                "before": before,
                "after": after,
                "heads": len(moves),
                "same_class": int(same.sum()),
                "same_regions": int((same & (regions[0] == regions[1])).sum()),
                "chirp_heads": chirp_heads,
                "kept": kept,
                "kept_low": kept_low,
                "kept_high": kept_high,
            }
        )
    return pd.DataFrame(rows)


@checked_arguments()
def clearest(kinds: Pictures) -> dict[str, int]:
    """Which painted picture of each pair has the clearest chirp; its real counterpart has the same number."""
    found = {}
    for painted, real in PAIRS.values():
        at = int(np.argmax([picture.snr for picture in kinds[painted]]))
        found |= {painted: at, real: at}
    return found


@checked_arguments()
def first_on_chirp(both: pd.DataFrame, count: int = 3) -> list[Head]:
    """The heads of largest lift on real images, of the pair with most chirp heads: chirp heads, if there are enough."""
    most = max(PAIRS, key=lambda name: int((both["chirp_head"] & (both["kind"] == name)).sum()))
    table = both[both["kind"] == most].sort_values("lift_real", ascending=False)
    sure = table[table["chirp_head"]]
    chosen = (sure if len(sure) >= count else table)[["layer", "head"]].to_numpy()[:count]
    return [(int(layer), int(head)) for layer, head in chosen]


# Predictions and controls


@checked_arguments()
def predictions(read: Mapping[str, ByImage], sets: Sets) -> pd.DataFrame:
    """What the model says of every kind with a known truth: rank correlation and error, by target."""
    rows = []
    for name, found in read.items():
        said, true = unstandardize(found.predictions), unstandardize(sets[name]["labels"].numpy())
        for number, target in enumerate(LABEL_NAMES if np.isfinite(true).all() else ()):
            rank = rank_correlation(said[:, number], true[:, number])
            error = float(np.sqrt(np.mean((said[:, number] - true[:, number]) ** 2)))
            row = {"images": name, "target": target, "windows": len(true), "correlation": rank.value}
            rows.append(
                row | {"low": rank.low, "high": rank.high, "rmse": error, "unit": LABEL_UNITS[number]}
            )
    return pd.DataFrame(rows)


@checked_arguments()
def controls(
    read: Mapping[str, ByImage],
    sets: Sets,
    kinds: Pictures,
    heads: Mapping[str, Sequence[Head]],
    pretrained: nn.Module,
    images: int,
) -> pd.DataFrame:
    """The chirp heads' lift on real images, elsewhere, before fine-tuning (on `images` of a kind), and on noise alone.

    Intervals draw whole detectors and calls. `over_plot` is the lift of a head that looks evenly about the plot. All
    heads are asked where none is about the chirp.
    """
    rows = []
    for name, (_, real) in PAIRS.items():
        part = {key: tensor[:images] for key, tensor in sets[real].items()}
        asked = {
            "real images": (read[real], sets[real]["regions"], kinds[real]),
            "elsewhere": (read[real], _elsewhere(kinds[real]), kinds[real]),
            "pre-trained": (by_image(pretrained, part), part["regions"], kinds[real][:images]),
        }
        if name == "strain":
            alone = "strain, noise alone"
            asked["noise alone"] = (read[alone], sets[alone]["regions"], kinds[alone])
        for what, (found, regions, kind) in asked.items():
            shares, areas = image_shares(found, regions, "chirp")
            mean = _mean_share(shares, heads[name])
            interval = lift_over_blocks(mean, areas, [picture.source for picture in kind])
            rows.append(
                {
                    "pair": name,
                    "asked": what,
                    "windows": len(mean),
                    "heads": len(heads[name]) or shares.shape[1] * shares.shape[2],
                    "attention_share": float(mean.mean()),
                    "area_share": float(areas.mean()),
                    "lift": interval.value,
                    "low": interval.low,
                    "high": interval.high,
                    "over_plot": float(1 / _plot_share(regions)),
                }
            )
    return pd.DataFrame(rows)


@checked_arguments()
def claim(
    kept: Mapping[str, Count], pieces: Mapping[str, int], windows: Mapping[str, int], recordings: int
) -> pd.DataFrame:
    """The quantities that the rule on real spectrograms reads, by source; `windows` are how many pictures it has."""
    rows = [
        {
            "kind": name,
            "kept": heads.value,
            "low": heads.low,
            "high": heads.high,
            "heads": heads.total,
            "pieces": pieces[name],
            "windows": windows[name],
            "recordings": recordings,
        }
        for name, heads in kept.items()
    ]
    return pd.DataFrame(rows)


def _mean_share(
    shares: Float[ndarray, "image layer head"], heads: Iterable[Head]
) -> Float[ndarray, " image"]:
    """The mean share of some heads, or of all where there are none."""
    chosen = list(heads)
    return (
        np.mean([shares[:, layer, head] for layer, head in chosen], axis=0) if chosen else shares.mean((1, 2))
    )


def _elsewhere(kind: Sequence[Picture]) -> Tensor:
    """The region maps of pictures with the outline half a frequency axis away."""
    moved = [replace(picture, painted=np.roll(picture.painted, BINS // 2, axis=0)) for picture in kind]
    return torch.stack([torch.from_numpy(picture.drawing().regions) for picture in moved])


def _plot_share(regions: Tensor) -> float:
    """The plot's share of the pictures, chirp included."""
    return np.isin(regions.numpy(), [REGIONS.index("chirp"), REGIONS.index("plot background")]).mean()
