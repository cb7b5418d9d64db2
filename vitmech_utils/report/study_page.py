"""The page of a study: one HTML file with everything in it, which works from disk without a network."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from vitmech_utils.artefacts import write_atomically
from vitmech_utils.figures.plots import ATTENTION, DIVERGING
from vitmech_utils.heads.attention import attention_maps
from vitmech_utils.report.picker import HeadPicker
from vitmech_utils.report.study_answers import study_answer
from vitmech_utils.report.templating import render

STRONGEST = 6
COUNTED = ("layer", "head")
REPLACED = {
    "zero": "nothing",
    "mean": "its mean over these images",
    "resample": "its output on another image",
}
MOST_ROWS = 24


@dataclass
class Section:
    """A heading and what stands under it, HTML already."""

    title: str
    parts: list[Markup] = field(default_factory=list)

    def text(self, words: str) -> None:
        """Add a paragraph; the words are escaped."""
        self.parts.append(Markup("<p>{}</p>").format(words))


def picker_of(study: Any, images: int) -> HeadPicker:
    """A picker of a study's first images, with effects, classes and shares as far as they are known."""
    found: dict = {"title": "Attention heads", "name": "study"}
    anatomy = study.check().anatomy
    table = study.ablate()
    first = study.losses()
    for name, column in (("effect", "effect"), ("effect_low", "low"), ("effect_high", "high")):
        found[name] = grid_of(table, column, anatomy.shape)
    found["effect_label"] = f"effect on the loss ({study.task.name})"
    found["effect_unit"] = "%" if first.relative else first.unit
    if study.regions is not None:
        classes = study.classes()
        for name, column in (("head_class", "class"), ("evidence", "evidence")):
            texts = [["" for _ in range(anatomy.heads)] for _ in range(anatomy.layers)]
            for row in classes.itertuples():
                texts[row.layer][row.head] = _plain(classes.at[row.Index, column])
            found[name] = texts
        rows = study.statistics().regions
        rows = rows[(rows["query"] == study.statistics().variants[0][0]) & (rows["weighting"] == "raw")]
        lift = np.full((*anatomy.shape, len(study.regions.names)), np.nan)
        for row in rows.itertuples():
            lift[row.layer, row.head, study.regions.names.index(row.region)] = row.lift
        found |= {"lift": lift, "regions": study.regions.names}
    shown = study.spread(images)
    answer, exact = study_answer(study, shown)
    maps = attention_maps(study.model, study.images.pixels[shown], batch=study.batch).numpy()
    return HeadPicker(
        maps, study.images.shown[shown], image_labels=[study.images.names[number][-40:] for number in shown],
        answer=answer, exact=exact, **found,
    )  # fmt: skip


def write_report(study: Any, path: Path) -> Path:
    """Write the page to `path`, and its tables as CSV beside it in `tables`; whole or not at all."""
    tables = path.parent / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    sections = _sections(study, tables)
    page = str(render("study.html", title=f"Attention heads of {study.asked['model']}", sections=sections))
    return write_atomically(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))


def grid_of(table: pd.DataFrame, column: str, shape: tuple[int, int]) -> np.ndarray:
    """A table's column as [layer, head], NaN where there is no row."""
    grid = np.full(shape, np.nan)
    grid[table["layer"], table["head"]] = table[column]
    return grid


def _sections(study: Any, tables: Path) -> list[Section]:
    check = study.check()
    shape = check.anatomy.shape
    sections = [_model(study)]
    effects = study.ablate()
    losses = study.losses()
    unit = "%" if losses.relative else losses.unit
    score = Section("Score")
    with study._timed("score"):
        known = study.score()
    score.parts.append(_pairs({name: f"{value:.4g}" for name, value in known.items()}))
    sections.append(score)

    grid = Section("What each head does")
    way = f"exactly on each of {len(study.images)} images"
    if study._linearizes():
        way = (
            f"to first order on {len(study.images)} images and exactly on {study.few} of them, which put the mean "
            "right: it is that of exact effects"
        )
    grid.text(
        f"By how much the loss ({study.task.name}) grows, in {unit}, where a head's output is replaced by "
        f"{REPLACED[study.mode]}: {way}. Intervals of 95 %, over images."
    )
    sure = (effects["low"] > 0) | (effects["high"] < 0)
    grid.parts.append(_heatmap(effects, sure, shape, f"effect, {unit}"))
    grid.parts.append(_link(_saved(effects, tables / "effects.csv"), "effects.csv"))
    sections.append(grid)
    strong = effects.reindex(effects["effect"].abs().sort_values(ascending=False, kind="stable").index).head(
        STRONGEST
    )
    with study._timed("maps of the strongest heads"):
        sections.append(_strongest(study, strong, unit))

    layers = losses.by_layer(seed=study.seed)
    layers = layers[layers["target"] == "all"]
    section = Section("Layers")
    section.text("The mean effect of a layer's heads, and its share of all layers' effects.")
    section.parts += [
        _table(layers.drop(columns=["target", "images"])),
        _link(_saved(layers, tables / "layers.csv"), "layers.csv"),
    ]
    sections.append(section)

    try:
        check.require_maps()
        section = Section("Every head, to look at")
        with study._timed("picker"):
            section.parts.append(Markup(study.picker().html()))
        sections.append(section)
    except ValueError as error:
        study._note(f"no maps: {error}")
    if study.regions is None:
        study._note("regions, lift and classes: no masks were given")
    else:
        sections += _regions(study, tables)
    if study.base is None:
        study._note("what is inherited and what emerged: no base model was given")
    else:
        section = Section("Base against tuned")
        origin = study.origin()
        section.parts += [_table(origin), _link(_saved(origin, tables / "origin.csv"), "origin.csv")]
        sections.append(section)
    section = Section("Pruning")
    curve = study.pruning_curve()
    section.text(
        "Heads go in the order of their effects, the least one first, ablated to zero on "
        f"{min(study.few, len(study.images))} images, evenly apart. Milliseconds are those of an image in the fastest "
        "of some passes of the pruned model."
    )
    section.parts += [
        _curve(curve),
        _table(curve),
        _link(_saved(curve, tables / "pruning.csv"), "pruning.csv"),
    ]
    sections.append(section)
    return [*sections, _unsaid(study), _code(study)]


def _model(study: Any) -> Section:
    section = Section("The model, and what was checked")
    section.parts.append(_pairs(study.check().facts | dict(study.images.facts)))
    if study.regions is not None:
        section.parts.append(_pairs(dict(study.regions.facts)))
    section.parts.append(_table(study.check().table()))
    return section


def _strongest(study: Any, rows: pd.DataFrame, unit: str) -> Section:
    section = Section("The strongest heads")
    columns = [name for name in ("layer", "head", "effect", "low", "high", "q_value") if name in rows]
    section.parts.append(_table(rows[columns]))
    try:
        study.check().require_maps()
    except ValueError:
        return section
    losses = study.losses()
    places = {next(iter(heads)): place for place, heads in enumerate(losses.sets)}
    exact = losses.of()
    figures = []
    for row in rows.itertuples():
        changes = exact[places[row.layer, row.head]]
        image = int(np.abs(changes).argmax()) if changes.size == len(study.images) else 0
        found = attention_maps(study.model, study.images.pixels[image : image + 1])[0, row.layer, row.head]
        figure = Figure(figsize=(3, 3), layout="constrained", facecolor="white")
        axis = figure.subplots()
        axis.axis("off")
        axis.imshow(study.images.shown[image], extent=(0, 1, 0, 1))
        axis.imshow(found.numpy(), extent=(0, 1, 0, 1), cmap=ATTENTION, alpha=0.6)
        head = f"Layer {row.layer + 1}, head {row.head + 1}: {row.effect:+.3g} {unit}"
        figures.append(_figure(figure, f"{head}, on {study.images.names[image][-28:]}"))
    section.text(
        "Each on the image whose loss it changes most; the map is that of the default query, from dark to bright."
    )
    section.parts.append(Markup('<div class="row">{}</div>').format(Markup("").join(figures)))
    return section


def _regions(study: Any, tables: Path) -> list[Section]:
    statistics = study.statistics()
    rows = statistics.regions
    rows = rows[
        (rows["query"] == statistics.variants[0][0])
        & (rows["weighting"] == "raw")
        & (rows["sinks"] == "kept")
    ]
    columns = [
        "layer",
        "head",
        "region",
        "attention_share",
        "area_share",
        "lift",
        "lift_low",
        "lift_high",
        "q_value",
    ]
    strong = rows.sort_values("lift", ascending=False, kind="stable")[columns]
    lift = Section("Regions")
    lift.text(
        "Lift is a region's share of attention over its share of the area: 1 for a head that looks everywhere alike."
    )
    lift.parts += [_table(strong), _link(_saved(statistics.regions, tables / "regions.csv"), "regions.csv")]
    classes = study.classes()
    section = Section("Classes")
    section.parts.append(_table(classes["class"].value_counts().rename("heads").reset_index()))
    shown = classes[["layer", "head", "class", "regions", "confidence", "evidence"]]
    shown = shown.assign(evidence=[_plain(text) for text in shown["evidence"]])
    section.parts += [_table(shown), _link(_saved(classes, tables / "classes.csv"), "classes.csv")]
    return [lift, section]


def _unsaid(study: Any) -> Section:
    section = Section("What could not be said, and why")
    if not study.unsaid:
        section.text("Nothing that was asked for.")
        return section
    items = Markup("").join(Markup("<li>{}</li>").format(text) for text in study.unsaid)
    section.parts.append(Markup("<ul>{}</ul>").format(items))
    return section


def _code(study: Any) -> Section:
    section = Section("The code that repeats it")
    given = {name: value for name, value in study.asked.items() if name != "model" and value is not None}
    arguments = "".join(f"    {name}={value!r},\n" for name, value in given.items())
    made = f"study = Study(\n    {study.asked['model']!r},\n{arguments})"
    code = f"from vitmech_utils import Study\n\n{made}\nstudy.report()\n"
    section.parts.append(Markup("<pre>{}</pre>").format(code))
    took = {name: f"{seconds:.1f} s" for name, seconds in study.timings.items()}
    section.parts.append(_pairs(took or {"time": "read from the study's folder"}))
    return section


def _plain(text: object) -> str:
    """A head's evidence without what is said of twin images, of which own images have none."""
    return str(text).replace("; not moved in any twin", "")


def _heatmap(effects: pd.DataFrame, sure: pd.Series, shape: tuple[int, int], label: str) -> Markup:
    layers, heads = shape
    figure = Figure(figsize=(min(9, 2.5 + 0.45 * heads), min(8, 1.5 + 0.35 * layers)), layout="constrained")
    axis = figure.subplots()
    grid = grid_of(effects, "effect", shape)
    most = float(np.nanmax(np.abs(grid))) or 1.0
    drawn = axis.imshow(grid, cmap=DIVERGING, vmin=-most, vmax=most, aspect="auto")
    axis.plot(effects["head"][sure], effects["layer"][sure], "k.", markersize=5)
    axis.set_xlabel("head")
    axis.set_ylabel("layer")
    axis.set_xticks(range(heads), [str(head + 1) for head in range(heads)])
    axis.set_yticks(range(layers), [str(layer + 1) for layer in range(layers)])
    figure.colorbar(drawn, label=label)
    return _figure(figure, "The grid of effects; a dot marks those whose interval excludes zero")


def _curve(curve: pd.DataFrame) -> Markup:
    figure = Figure(figsize=(5, 2.6), layout="constrained")
    axis = figure.subplots()
    axis.plot(100 * curve["share"], curve["loss"], "o-", markersize=4)
    axis.set_xlabel("heads removed, %")
    axis.set_ylabel("mean loss")
    return _figure(figure, "The loss as heads go")


def _figure(figure: Figure, caption: str) -> Markup:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, facecolor="white", metadata={"Software": None})
    data = base64.b64encode(stream.getvalue()).decode()
    return Markup(
        '<figure><img alt="{}" src="data:image/png;base64,{}"><figcaption>{}</figcaption></figure>'
    ).format(caption, data, caption)


def _pairs(facts: dict[str, str]) -> Markup:
    rows = Markup("").join(
        Markup("<tr><th>{}</th><td>{}</td></tr>").format(name, value) for name, value in facts.items()
    )
    return Markup('<div class="wide"><table>{}</table></div>').format(rows)


def _table(table: pd.DataFrame) -> Markup:
    """A table's first rows; numbers to four digits, layers and heads from 1 as in figures."""
    table = table.assign(**{name: table[name] + 1 for name in COUNTED if name in table})
    numbers = {
        name for name in table if pd.api.types.is_numeric_dtype(table[name]) and table[name].dtype != bool
    }

    def cell(kind: str, name: str, text: str) -> Markup:
        return Markup("<{}{}>{}</{}>").format(
            Markup(kind), Markup(' class="number"' if name in numbers else ""), text, Markup(kind)
        )

    head = Markup("").join(cell("th", name, name.replace("_", " ")) for name in table.columns)
    rows = [
        Markup("<tr>{}</tr>").format(
            Markup("").join(
                cell("td", name, _shown(value)) for name, value in zip(table.columns, row, strict=True)
            )
        )
        for row in table.head(MOST_ROWS).itertuples(index=False)
    ]
    more = len(table) - MOST_ROWS
    note = Markup("<p>and {} more rows in the CSV file</p>").format(more) if more > 0 else ""
    return Markup('<div class="wide"><table><tr>{}</tr>{}</table></div>{}').format(
        head, Markup("").join(rows), note
    )


def _shown(value: object) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | float | np.number):
        return "" if np.isnan(value) else f"{value:.4g}"
    return str(value)


def _saved(table: pd.DataFrame, path: Path) -> str:
    text = table.to_csv(index=False, lineterminator="\n")
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return text


def _link(text: str, name: str) -> Markup:
    data = base64.b64encode(text.encode()).decode()
    return Markup('<p><a download="{}" href="data:text/csv;base64,{}">{}</a>{}</p>').format(
        name, data, name, " (layers and heads from 0)" if "layer" in text.split("\n", 1)[0] else ""
    )
