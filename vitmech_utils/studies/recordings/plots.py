"""Figures and texts on real recordings: what they hold, pictures in pairs, and how far heads keep to the chirp."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.chirps import LABEL_NAMES
from vitmech_utils.data.recordings.spectrograms import Axes
from vitmech_utils.data.regions import REGIONS
from vitmech_utils.figures.marks import head_names, name_largest, plain_log
from vitmech_utils.figures.plots import ATTENTION, REGION_COLOURS, WIDE, WIDTH, overlay
from vitmech_utils.figures.tables import BRACKETS, bullets, counted, named, plain, rule_text, three_sentences
from vitmech_utils.heads.hooks import Head
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.recordings.judge import specialization_holds_on_real_ones
from vitmech_utils.studies.recordings.matched import LENGTH, Picture
from vitmech_utils.studies.recordings.measure import PAIRS, Pictures, newtonian
from vitmech_utils.studies.verdicts import HALF, MOST, Count, Judgement

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Plot
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

    from vitmech_utils.profiles import Profile

CHIRP_HEAD, OTHER_HEAD = REGION_COLOURS["chirp"], "#888888"
KINDS: dict[str, str] = {"painted": "#0072B2", "real": "#D55E00"}


# What the chapter shows, in its order


@checked_arguments()
def opening(profile: "Profile") -> str:
    """What this page was made with."""
    plan = profile.recordings
    return (
        f"This page was made with profile **{profile.name}**: the seizures of at most "
        f"{plan.seizures:,} recordings, {plan.windows:,} windows of each detector's strain, up "
        f"to {plan.images:,} windows of a bird's calls, and up to {plan.images:,} synthetic images of each kind to "
        "hold them against."
    )


@checked_arguments()
def strain(grids: Mapping[str, tuple[np.ndarray, Axes]], bursts: pd.DataFrame) -> "Figure":
    """The second of strain of each detector, and what a search saw around it."""
    figure, panels = recording_panels(grids)
    ax, last = panels[-1], bursts.loc[bursts["snr"].idxmax(), "time"]
    loudest = bursts.groupby((bursts["time"] * 8).astype(int))["snr"].max()
    ax.bar((loudest.index + 0.5) / 8, loudest, width=0.11, color="#0072B2")
    ax.axvspan(0, 1, color="#E69F00", alpha=0.4, label="the second that the package carries")
    ax.set(xlabel="seconds since the first sample", ylabel="strongest burst (SNR)", xlim=(-0.2, 10))
    ax.set_title(f"H1: the search saw its strongest burst {last:.1f} s after the second begins")
    ax.legend(loc="upper center", bbox_to_anchor=(0.36, 1.0))
    return figure


@checked_arguments()
def strain_text(facts: Mapping[str, float]) -> str:
    """Why the injected chirp is not in this second."""
    before = facts["strongest_burst_s"] - 1
    light, heavy = (newtonian(mass, before) for mass in (0.5, 30.0))
    return (
        f"**The chirp is not in it.** The strongest burst, taken for the injected signal's end, comes {before:.1f} s "
        f"after the second is over; weaker ones are what noise does by itself. The frequency of an inspiral "
        f"{before:.1f} s before its end follows from its chirp mass {{cite}}`abbott2017basic`: for half a solar mass "
        f"it is {light:.0f} Hz, for thirty {heavy:.0f} Hz, and what lies below "
        f"{facts['lowest_frequency_shown_hz']:.0f} Hz drowns in one second of strain. So this second gives what no "
        "recipe gives, real noise of three detectors, and the chirp has to be put in: as the collaboration did, but "
        "in "
        "the computer."
    )


@checked_arguments()
def samples_table(samples: pd.DataFrame) -> "Styler":
    """How many images of each kind there are, and how clear their chirps are."""
    words = {
        "number": "windows",
        "apart": "of them without overlap",
        "sources": "detectors or calls",
        "snr_low": "least SNR",
        "snr": "median SNR",
        "snr_high": "largest SNR",
    }
    return samples.rename(columns=words).style.format(precision=1, na_rep="").hide(axis="index")


@checked_arguments()
def samples_text(samples: pd.DataFrame) -> str:
    """How little independent there is."""
    size = samples.set_index("images")
    strain, calls = size.loc["strain, put in"], size.loc["calls, recorded"]
    return (
        f"**These are small samples.** The strain is one second of {strain['sources']:.0f} detectors; its "
        f"{strain['number']:,.0f} windows of {LENGTH:g} s overlap, and {strain['apart']:,.0f} of them could be "
        f"chosen "
        f"that don't. The calls are {calls['sources']:.0f} calls, all from one recording of a few seconds; "
        f"{calls['apart']:,.0f} of their windows of {LENGTH:g} s don't overlap. Intervals over windows are too "
        f"narrow "
        "for what follows from other recordings, so the chapter also gives intervals over whole detectors and calls."
    )


@checked_arguments()
def lifts(both: pd.DataFrame) -> "Figure":
    """Lifts on the chirp, real against painted images, one panel for each pair."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDE, 4.6), sharex=True, sharey=True)
    for ax, (name, table) in zip(axes, both.groupby("kind", sort=False), strict=True):
        table = table.reset_index(drop=True)
        lift_scatter(ax, table, name)
        part = table[table["chirp_head"]]
        above = int((part["low_real"] > 1).sum())
        ax.set_title(f"{name}: {above} of {len(part)} chirp heads have a lift clearly above one", fontsize=9)
    values = both[[f"{end}_{kind}" for end in ("low", "high") for kind in ("painted", "real")]].to_numpy()
    ends = float(np.nanmin(values[values > 0])) / 1.3, float(np.nanmax(values)) * 1.5
    axes[0].set(xlim=ends, ylim=ends, ylabel="lift on the chirp, real images")
    plain_log(axes[0], "xy")
    for ax in axes:
        ax.plot(ends, ends, color="#444444", linewidth=0.8, linestyle="--", zorder=1)
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=2, loc="outside lower center")
    return figure


@checked_arguments()
def lifts_text(both: pd.DataFrame) -> str:
    """How much of their lift the chirp heads keep on real images."""
    lines = []
    for name, table in both.groupby("kind", sort=False):
        part = table[table["chirp_head"]]
        if part.empty:
            lines.append(f"**{name}**: no head is for sure about the chirp on these painted images.")
            continue
        ratio = part["lift_real"] / part["lift_painted"]
        lines.append(
            f"**{name}**: {len(part)} heads are for sure about the chirp on painted images; their lift on real ones "
            f"is "
            f"{ratio.median():.2f} times as large (median; from {ratio.min():.2f} to {ratio.max():.2f}). "
            f"{int((part['low_real'] > 1).sum())} have an interval above an even look, "
            f"{int((part['high_real'] < 1).sum())} one below."
        )
    return bullets(lines)


@checked_arguments()
def sources(table: pd.DataFrame) -> "Figure":
    """The chirp heads' lift by detector and by call."""
    parts = dict(list(table.groupby("pair", sort=False)))
    heights = [part["source"].nunique() for part in parts.values()]
    figure, axes = plt.subplots(2, 1, figsize=(WIDTH, 6.0), sharex=True, height_ratios=heights)
    for ax, (name, part) in zip(axes, parts.items(), strict=True):
        source_dots(ax, part)
        own = part[part["low"].isna()].pivot(index="source", columns="kind", values="lift").dropna()
        less = int((own["real"] < own["painted"]).sum())
        ax.set_title(f"{name}: less on real than on painted images in {less} of {len(own)}", fontsize=9)
    axes[0].set_xlabel("")
    axes[1].legend().remove()
    return figure


@checked_arguments()
def kept_table(table: pd.DataFrame) -> "Styler":
    """How many heads keep their class and their regions, and how many keep to the chirp, by change."""
    words = {
        "same_class": "same class",
        "same_regions": "same class and regions",
        "chirp_heads": "chirp heads before",
        "kept": "about the chirp after",
        "kept_low": "for sure",
        "kept_high": "at most",
    }
    return table.rename(columns=words).style.hide(axis="index")


@checked_arguments()
def maps(
    kinds: Pictures,
    clearest: Mapping[str, int],
    attention: Mapping[str, np.ndarray],
    heads: Sequence[Head],
) -> "Figure":
    """The clearest picture of each kind that `clearest` names, and maps of some heads over it."""
    shown = {name: np.float32(kinds[name][at].drawing().image) / 255 for name, at in clearest.items()}
    return map_panels(shown, attention, heads)


@checked_arguments()
def predictions_table(table: pd.DataFrame, kinds: Pictures) -> "Styler":
    """What the model says of each kind of image: rank correlation and error, by target.

    Beside it stands the error of a constant guess: always the mean of these images' own labels.
    """
    spread = {
        name: np.stack([picture.labels for picture in kind]).std(axis=0) for name, kind in kinds.items()
    }
    rows = [
        (
            row.images,
            plain(row.target),
            f"{Interval(row.correlation, row.low, row.high):.2f}"
            if np.isfinite(row.correlation)
            else "does not vary",
            f"{row.rmse:.1f} {row.unit}",
            f"{spread[row.images][LABEL_NAMES.index(row.target)]:.1f} {row.unit}",
        )
        for row in table.itertuples()
    ]
    columns = ["images", "target", "rank correlation", "error", "error of the mean"]
    return pd.DataFrame(rows, columns=columns).style.hide(axis="index")


@checked_arguments()
def controls_table(table: pd.DataFrame) -> "Styler":
    """What the same heads do where no chirp is, elsewhere, and before fine-tuning."""
    words = {
        "asked": "what was asked",
        "attention_share": "attention share",
        "area_share": "area share",
        "low": "95 % from",
        "high": "to",
        "over_plot": "even over the plot",
    }
    formats = dict.fromkeys(("attention share", "area share"), "{:.1%}")
    formats |= dict.fromkeys(("lift", "95 % from", "to", "even over the plot"), "{:.2f}")
    return table.rename(columns=words).style.hide(axis="index").format(formats)


@checked_arguments()
def controls_text(table: pd.DataFrame) -> str:
    """What the controls say."""
    asked = table.set_index(["pair", "asked"])

    def lift(name: str, which: str) -> str:
        return f"{Interval(*asked.loc[(name, which), ['lift', 'low', 'high']]):.1f}"

    by_itself = "; ".join(
        f"{name}: {lift(name, 'pre-trained')} before fine-tuning, {lift(name, 'real images')} after it"
        for name in PAIRS
    )
    found, there = asked.loc[("strain", "noise alone")], asked.loc[("strain", "real images"), "lift"]
    return (
        f"Mean lift of these heads on the chirp of real images: {by_itself}. A chirp draws attention in the "
        f"pre-trained network already. These heads were selected by what they look at after fine-tuning, which favours "
        f"what comes after. On noise alone the lift is {found['lift']:.1f} "
        f"[{found['low']:.1f}, {found['high']:.1f}], where an even look over the plot would give "
        f"{found['over_plot']:.1f}, and {there:.1f} when the chirp is there."
    )


def rule() -> str:
    """The rule in its own words."""
    return (
        f"{rule_text(specialization_holds_on_real_ones, 1)}\n\n*Most* is at least {MOST:.0%}, *half* more than "
        f"{HALF:.0%}; [](../book/scoreboard.md) says why. A head is about the chirp where its class says so; on "
        "spectrograms with boxes, where its lift on them is above one and above that on boxes of other recordings."
    )


@checked_arguments()
def verdict(
    judgement: Judgement, kept: Mapping[str, Count], pieces: Mapping[str, int], recordings: int
) -> str:
    """What the rule says of this run."""
    return (
        f"Of the heads that are for sure about the chirp on painted images, these are on real ones ({BRACKETS}): "
        f"{named(kept, '', '; ', ': ')}. Pieces of recording without overlap: {named(pieces)}, "
        f"from {recordings} recordings, each detector's second counted as one.\n\n"
        f"- **Q2**, the specialization holds on real, not synthetic, spectrograms: "
        f"**{judgement.words}**. Reason: {judgement.reason}."
    )


@checked_arguments()
def what_you_know(
    judgement: Judgement,
    kept: Mapping[str, Count],
    by_source: pd.DataFrame,
    pieces: Mapping[str, int],
    recordings: int,
) -> str:
    """The chapter in three sentences, from what chirp heads keep and their lifts by detector and call."""
    rows = by_source.dropna(subset="low").set_index(["pair", "kind"])

    def lift(pair: str, kind: str) -> Interval:
        return Interval(*rows.loc[(pair, kind), ["lift", "low", "high"]])

    single = by_source[by_source["low"].isna()]
    detectors = counted(single.loc[single["pair"] == "strain", "source"].nunique(), "detector")

    return three_sentences(
        f"Of the heads that are for sure about the chirp on painted images, {kept['seizures']} look at the boxes that "
        f"were drawn in seizures (other heads, too, may pass that test: above), "
        f"{kept['strain']} at chirps in detectors' noise and {kept['calls']} at recorded calls "
        f"({BRACKETS}).",
        f"Their lift on the chirp is {lift('strain', 'real'):.0f} in detectors' noise, where painted noise has "
        f"{lift('strain', 'painted'):.0f}, and {lift('calls', 'real'):.1f} on recorded calls, where the same tracks "
        f"painted have {lift('calls', 'painted'):.1f}; 1 is an even look (brackets: over whole detectors or calls; "
        f"with {detectors} they span little more than what these have).",
        f"Verdict on Q2, the specialization holds on real spectrograms: {judgement.words}, with "
        f"{named(pieces, join=': ')} pieces without overlap from {counted(recordings, 'recording')}.",
    )


# The marks


@checked_arguments()
def recording_panels(grids: Mapping[str, tuple[np.ndarray, Axes]]) -> "tuple[Figure, list[Plot]]":
    """One spectrogram per recording side by side, and an empty panel below.

    Their colours have one scale, which ends at the largest of their 99.9 % quantiles.
    """
    figure = plt.figure(figsize=(WIDE, 5.2))
    rows = figure.add_gridspec(2, len(grids), height_ratios=(1.35, 1))
    panels: list[Plot] = []
    brightest = max(float(np.quantile(grid, 0.999)) for grid, _ in grids.values())
    for number, (name, (grid, axes)) in enumerate(grids.items()):
        ax = figure.add_subplot(rows[0, number], sharey=panels[0] if panels else None)
        image = ax.imshow(
            grid,
            aspect="auto",
            origin="lower",
            extent=axes.extent,
            cmap=ATTENTION,
            vmin=0,
            vmax=brightest,
        )
        ax.set(title=f"detector {name}", xlabel="time (s)", ylabel="frequency (Hz)" if not panels else "")
        ax.tick_params(labelleft=not panels)
        panels.append(ax)
    figure.colorbar(image, ax=panels, label="times the median", pad=0.01)
    panels.append(figure.add_subplot(rows[1, :]))
    return figure, panels


@checked_arguments()
def picture_rows(kinds: Mapping[str, Sequence[Picture]], count: int = 4) -> "Figure":
    """The first figures of each kind as the model sees them, one kind in each row; the region *chirp* is outlined."""
    rows = {name: pictures[:count] for name, pictures in kinds.items()}
    columns = max(len(pictures) for pictures in rows.values())
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(WIDE, WIDE / columns * 0.86 * len(rows)), squeeze=False
    )
    for row, (name, pictures) in zip(axes, rows.items(), strict=True):
        for ax in row:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        for ax, picture in zip(row, pictures, strict=False):
            image, regions = picture.drawing()
            ax.imshow(image)
            ax.contour(regions == REGIONS.index("chirp"), [0.5], colors="#FF3333", linewidths=0.7)
        row[0].set_ylabel(name, fontsize=9)
    return figure


@checked_arguments()
def lift_scatter(ax: "Plot", table: pd.DataFrame, label: str, named: int = 1) -> None:
    """Each head's lift on the chirp on painted images (across) and on real ones (up), with intervals.

    `table` has layer, head (0-based), chirp_head (bool), and lift, low, high with the endings _painted and _real.
    """
    for chirp_head, colour in ((False, OTHER_HEAD), (True, CHIRP_HEAD)):
        part = table[table["chirp_head"] == chirp_head]
        errors = [
            np.abs(part[[f"low_{kind}", f"high_{kind}"]].to_numpy().T - part[f"lift_{kind}"].to_numpy())
            for kind in ("painted", "real")
        ]
        ax.errorbar(
            part["lift_painted"],
            part["lift_real"],
            xerr=errors[0],
            yerr=errors[1],
            fmt="o",
            markersize=3.5,
            linewidth=0.6,
            color=colour,
            label="about the chirp on painted ones" if chirp_head else "other heads",
        )
    among = table["lift_real"].where(table["chirp_head"])
    name_largest(ax, table["lift_painted"], table["lift_real"], head_names(table), among, named)
    ax.axhline(1, color="#444444", linewidth=0.6, linestyle=":")
    ax.axvline(1, color="#444444", linewidth=0.6, linestyle=":")
    ax.set(xscale="log", yscale="log", xlabel=f"lift on the chirp, painted images ({label})")


@checked_arguments()
def source_dots(ax: "Plot", table: pd.DataFrame) -> None:
    """The chirp heads' mean lift, painted and real, for each detector and each call, and for all of them.

    `table` has source, kind ("painted" or "real"), lift, and low and high that are NaN but for rows over all sources.
    """
    sources = list(dict.fromkeys(table["source"]))
    for kind, colour in KINDS.items():
        part = table[table["kind"] == kind].set_index("source").reindex(sources)
        places = np.arange(len(sources)) + (0.12 if kind == "real" else -0.12)
        spread = np.stack([part["lift"] - part["low"], part["high"] - part["lift"]])
        ax.errorbar(
            part["lift"],
            places,
            xerr=np.nan_to_num(spread),
            fmt="o",
            markersize=5,
            color=colour,
            label=kind,
            linewidth=1.4,
        )
    ax.axvline(1, color="#444444", linewidth=0.8, linestyle=":")
    ax.set_yticks(range(len(sources)), sources)
    ax.set_ylim(len(sources) - 0.5, -0.5)
    plain_log(ax, "x")
    ax.set_xlabel("mean lift of the chirp heads on the chirp")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


@checked_arguments()
def map_panels(
    pictures: Mapping[str, np.ndarray], maps: Mapping[str, np.ndarray], heads: Sequence[tuple[int, int]]
) -> "Figure":
    """A picture in each row, and beside it the maps of some heads (0-based pairs) over it, each scaled to [0, 1].

    `pictures` are [row, column, 3]; `maps` of the same names [layer, head, patch].
    """
    figure, axes = plt.subplots(
        len(pictures),
        len(heads) + 1,
        figsize=(WIDE, WIDE / (len(heads) + 1) * 1.02 * len(pictures)),
        squeeze=False,
    )
    for number, (row, (name, image)) in enumerate(zip(axes, pictures.items(), strict=True)):
        for ax in row:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        row[0].imshow(image)
        row[0].set_ylabel(name, fontsize=9)
        for ax, (layer, head) in zip(row[1:], heads, strict=True):
            values = maps[name][layer, head]
            side = round(len(values) ** 0.5)
            unit = (values - values.min()) / max(float(values.max() - values.min()), 1e-12)
            ax.imshow(overlay(image, unit.reshape(side, side)))
            if number == 0:
                ax.set_title(f"L{layer + 1}H{head + 1}")
    return figure
