"""What the checks of the book's prose look for: numbers without an artefact, and words that have a better one."""

import ast
import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vitmech_utils.data import chirps, regions
from vitmech_utils.data.reference import IMAGE_SIZE
from vitmech_utils.heads.semantics import Thresholds

# What is no prose: code, formulas, addresses, versions, marks that the build fills, markup, and solutions of exercises.
NOT_PROSE = (
    r"^( *)(`{3,}|:{3,})\{dropdown\} Solution$.*?^\1\2$",
    r"^( *)(`{3,}|~{3,})(?!\{(?:admonition|figure|glossary|note|tip|warning)).*?^\1\2$",
    r"^ *[`~:]{3,}(?:\{[\w-]+\})?",
    r"^ *:(?!alt)[a-z]+:.*?$",
    r"\$\$.*?\$\$",
    r"\$[^$\n]+\$",
    r"\{\{.*?\}\}",
    r"`[^`]*`",
    r"(?<=\])\([^)\n]*\)",
    r"https?://\S+",
    r"\b\d+\.\d+\.\d+\b|Apache-2\.0",  # versions
    r"<[^>\n]+>",
)
NUMBER = r"[-+±−]?\d[\d,]*(?:\.\d+)?"
RESULT = re.compile(
    rf"{NUMBER}\s*%|{NUMBER}\s+percent\b|{NUMBER}[- ]fold|{NUMBER}\s+times\b|[rpR]²?\s*[=<>]\s*{NUMBER}"
    rf"|{NUMBER}\s*(?:ms|seconds?|minutes?|hours?|s|Hz|hertz|MiB|GiB|MB|GB|kB|nats|images|heads)\b|[-+±−]?\d+\.\d+",
)
# A figure of the study or of its code is cited where it stands; the sentence must say whose it is.
THEIRS = (
    r"(?:recipe|code|package|heatmap|overlays?|generator|figure|procedure|title|loop|loading step|baseline)"
)
CITED = re.compile(rf"\{{cite\}}|\bstudy\b|\b(?:published|documented) {THEIRS}\b", re.IGNORECASE)
MEASURED = re.compile(r"[rpR]²?\s*[=<>]")  # a statistic is never a constant


def constants() -> set[str]:
    """The recipe's and the method's own constants, read from the package; the prose may say them as they are."""
    recipe = [
        *(chirps.BINS, chirps.DURATION, chirps.MAX_FREQUENCY, chirps.LATEST_START, *chirps.DURATIONS),
        *(chirps.MAX_BAND, *chirps.NOISE_LEVELS, IMAGE_SIZE, regions.CHIRP, regions.INK, regions.AREA),
        *vars(Thresholds()).values(),
    ]
    rounding = chirps.DURATION / chirps.BINS, chirps.MAX_FREQUENCY / chirps.BINS
    ends = (0, *(f"{value:.2f}" for value in rounding))
    levels = (95, 5)  # intervals and false discoveries, in percent
    return {f"{value:g}" for value in recipe} | {str(value) for value in (*ends, *levels)}


# Figures that are neither: each with the reason why it may stand in prose, and used somewhere.
ALLOWED = {
    "minutes to read": "a reading time, held against the number of words by test_chapters_teach",
    "6 MB": "the limit of a page, held by test_what_a_page_loads_lies_beside_it",
    "error of 0.1 s": "asked in an exercise",
    "add 0.1 to every pixel": "asked in an exercise",
    "by more than 0.8": "asked in an exercise",
    "lift of at least 2": "asked in an exercise",
    "an MSE of 1": "by construction",
    "80 % of bootstrap replicates": "the limit of class_grid, which draws the figure",
}


def prose(markdown: str) -> str:
    """A page's prose: what is no prose is blanked, lines stay where they are."""
    for pattern in NOT_PROSE:
        flags = re.DOTALL | re.MULTILINE
        markdown = re.sub(pattern, lambda found: re.sub(r"[^\n]", " ", found.group()), markdown, flags=flags)
    return markdown


def numbers_without_artefact(markdown: str, known: set[str] = frozenset()) -> list[str]:
    """Figures in prose that look like results, with their sentence; cited ones, constants and `known` ones are "
    "none."""
    plain = {f"{float(value):g}" for value in constants() | set(known)}
    cites = re.sub(r"\{cite\}`[^`]*`", "{cite}", markdown)
    found = []
    for sentence in sentences(prose(cites)):
        if CITED.search(sentence) or any(phrase in sentence for phrase in ALLOWED):
            continue
        for match in RESULT.finditer(sentence):
            if MEASURED.match(match.group()) or not _figures(match.group()) <= plain:
                found.append(f"{match.group().strip()} in: {sentence[:100]}")
    return found


def sentences(text: str) -> list[str]:
    """Split prose at blank lines, list items, table rows and full stops that end a sentence."""
    parts = re.split(r"\n\s*\n|\n(?=\s*(?:[-*|:]|\d+\.)\s)|(?<=[.!?:])\s+(?=[A-Z*])", text)
    return [" ".join(part.split()) for part in parts if part.strip()]


# The vocabulary of the book: what not to write, and the word for it.
WORDS = {
    r"colors?": "colour",
    r"colou?rbars?|colour-bars?(?! label)": "colour bar",
    r"colour bar('s)? labels?(?! and)": "colour-bar label",
    r"(?:tick|axis)-labels?": "tick label, axis label",
    r"(?:saliency|attention) (?:fraction|ratio|proportion|mass)|saliency share": "attention share",
    r"area (?:fraction|ratio|proportion)": "area share",
    r"enrichment": "lift",
    r"(?:zero|mean|resample)-ablat\w+": "zero (mean, resample) ablation",
    r"ablation (?:type|kind|method|strategy)s?|knock-?outs?|lesion\w*": "ablation mode",
    r"(?:class|\[CLS\]) token|CLS-token|CLS token's query": "CLS token, CLS query",
    r"(?:result|run|output)s? director(?:y|ies)|results? folders?": "run folder",
    r"fine ?tun\w+": "fine-tune",
    r"pretrain\w*": "pre-trained",
    r"layer 0|head 0": "layers and heads count from 1 in prose",
    r"normali[sz]ed labels?": "standardized labels",
    r"mono-semantic|poly-semantic": "monosemantic, polysemantic",
    r"data-?set generator config|config(?:uration)? files?": "profile",
}
# Phrases that are not the field's English, and what to write.
PHRASES = {
    r"cannot be told": "undecided",
    r"whether anybody misses": "whether predictions worsen",
    r"(?:model|network) misses (?:the|a) head": "predictions worsen without the head",
    r"interval (?:leaves|that leaves|leaving)(?: out)?": "excludes, or extends beyond",
    r"as fast as \S+ times": "1.15 times as fast",
    r"heads about the (?:edge|frame)": "frame heads",
    r"could be (?:told|distinguished) from noise": "no clear speed-up",
    r"which number suffers": "effect on each target",
    r"public doors": "public API",
    r"the rooms": "directory layout",
    r"keeps the pages quiet": "no network requests",
    r"sought is": "we seek",
    r"takes ways": "calls follow tracks",
    r"be trusted\?": "does our renderer match matplotlib?",
    r"(?:others|layers) make of (?:it|its)": "direct and downstream effects",
    r"gates' ways": "over both gates from 0 to 1",
    r"brackets say how many": "brackets: the heads that are sure, each in 95 % of resamples, and all that may be",
    r"so for sure,? and (?:heads|how many)": "the heads that are sure, each in 95 % of resamples, and all that may be",
    r"\b1 are both": "1 is both",
    r"hugs the mean": "predicts the mean",
    r"means harm": "an attacker",
    r"must be told apart": "we distinguish",
    r"put(?:s)? the others right": "correct the rest",
}
PATTERNS = {
    re.compile(rf"(?<![\w-])(?:{wrong})(?![\w-])", re.IGNORECASE): right
    for wrong, right in (WORDS | PHRASES).items()
}


def wrong_words(markdown: str) -> list[str]:
    """Words of prose for which the book has another one, with that one."""
    text = " ".join(prose(markdown).split())
    return [
        f"{found.group()!r}: write {right}"
        for wrong, right in PATTERNS.items()
        for found in wrong.finditer(text)
    ]


def wrong_phrases(text: str) -> list[str]:
    """The phrases of `PHRASES` alone, in any text."""
    found = {
        re.search(wrong, " ".join(text.split()), re.IGNORECASE): right for wrong, right in PHRASES.items()
    }
    return [f"{hit.group()!r}: write {right}" for hit, right in found.items() if hit]


class Text(NamedTuple):
    """A piece of the book's text, and the figures of the code that it tells about."""

    place: str
    markdown: str
    known: set[str]


def texts(root: Path) -> list[Text]:
    """The book's own text: prose pages, and the chapters' markdown, captions and alt texts."""
    pages = sorted((root / "book").glob("*.md"))
    found = [Text(path.name, path.read_text(encoding="utf-8"), set()) for path in pages]
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        found += _cells(path)
    return found


def spoken(module: Path) -> list[Text]:
    """The strings that a module of a study shows: constants, docstrings among them, and f-strings with 0 for their "
    "values."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "0" for part in node.values]
            found.append(
                Text(
                    f"{module.parent.name}/{module.name} line {node.lineno}", "".join(map(str, parts)), set()
                )
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            found.append(Text(f"{module.parent.name}/{module.name} line {node.lineno}", node.value, set()))
    return found


def reading_minutes(notebook: Path) -> float:
    """Time to read a chapter: 200 words a minute, half a minute for each figure and each piece of open code."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    words = sum(len("".join(cell["source"]).split()) for cell in cells if cell["cell_type"] == "markdown")
    code = [cell["metadata"] for cell in cells if cell["cell_type"] == "code"]
    shown = sum(not {"hide-input", "remove-cell"} & set(cell.get("tags", [])) for cell in code)
    figures = sum("figure" in cell.get("mystnb", {}) for cell in code)
    return float(np.sum([words / 200, shown / 2, figures / 2]))


def _figures(text: str) -> set[str]:
    return {f"{float(found.replace(',', '')):g}" for found in re.findall(r"\d[\d,]*(?:\.\d+)?", text)}


def _cells(notebook: Path) -> list[Text]:
    found = []
    for number, cell in enumerate(json.loads(notebook.read_text(encoding="utf-8"))["cells"]):
        place, source = f"{notebook.stem} cell {number}", "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            found.append(Text(place, source, set()))
        elif shown := cell["metadata"].get("mystnb"):
            words = shown.get("figure", {}).get("caption", ""), shown.get("image", {}).get("alt", "")
            found.append(Text(place, "\n\n".join(words), _figures(source)))
    return found
