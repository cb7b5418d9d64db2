"""The card of an adapter folder: what it is, how it was trained, how it scores, its limits; `python -m` writes it anew.

    python -m vitmech_utils.model.cards published/adapters

writes `README.md` into every adapter folder at or under those named, from the records in them; recoveries have none.
"""

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitmech_utils.artefacts import write_atomically
from vitmech_utils.model.adapter_files import (
    ADAPTER,
    CARD,
    HEAD,
    SETTINGS,
    TRAINING,
    read_object,
    read_settings,
)
from vitmech_utils.model.adapter_files import LARGEST_TRAINING as LARGEST
from vitmech_utils.model.lora import AdapterError

ANSWERS = {
    "regression": "the start time, start frequency and end frequency of the chirp in a spectrogram figure",
    "classification": "whether the chirp in a spectrogram figure rises or falls, and how its sweep bends",
}
COLUMNS = ("r", "accuracy", "low", "high", "mse", "rmse", "cross_entropy", "unit", "images")
STYLES = {
    "published": "with title, axes, labels and colour bar, as in the study",
    "bare": "without any decoration",
    "recordings": "spectrograms of seizures, decorated as in the study",
}


def card(settings: Mapping[str, Any], training: Mapping[str, Any] | None) -> str:
    """Write the card, as Markdown, from an adapter folder's settings and the record of its training, if any."""
    labels = ", ".join(f"`{_plain(label)}`" for label in settings["labels"])
    backbone, lora = _plain(settings["backbone"]), settings["lora"]
    parts = [
        f"---\nlibrary_name: peft\nlicense: mit\n{_base_model(backbone)}tags: [lora, vision-transformer, vitmech]\n---",
        f"# A LoRA adapter for {_plain(settings['task'])}",
        f"On the backbone `{backbone}` it reads {ANSWERS.get(settings['task'], 'its labels')} ({labels}). It belongs "
        "to the executable book *What attention heads do*, whose chapters take its heads apart.",
        "## Use",
        _use(backbone),
        "## Training",
        _training(settings, training),
        "## Scores",
        _scores(training),
        "## Limits",
        "\n".join(f"- {limit}" for limit in _limits(settings, training)),
        "## Licence",
        "The adapter: MIT, as the book's code. The backbone keeps its own licence (DINOv2: Apache-2.0); none of its "
        f"weights lie here. LoRA: r = {_number(lora['r'])}, alpha = {_number(lora['alpha'])}, on query and value.",
    ]
    return "\n\n".join(parts) + "\n"


def write_card(folder: Path) -> Path:
    """Write the card of an adapter folder from its records; raises `AdapterError` where these are damaged."""
    record = folder / TRAINING
    training = read_object(record, LARGEST, unknown=True) if record.is_file() else None
    text = card(read_settings(folder), training)
    return write_atomically(folder / CARD, lambda path: path.write_text(text, encoding="utf-8"))


def _base_model(backbone: str) -> str:
    return f"base_model: {backbone}\n" if re.fullmatch(r"[\w.-]+/[\w.-]+", backbone) else ""


def _use(backbone: str) -> str:
    return f"""With peft alone; `images` are [image, 3, 224, 224], in [0, 1], and `folder` is this one:

```python
import torch
from peft import PeftModel
from safetensors.torch import load_file
from vitmech_utils.model.backbones import load_backbone

model = PeftModel.from_pretrained(load_backbone("{backbone}"), folder).eval()
head = load_file(f"{{folder}}/{HEAD}")
with torch.no_grad():
    answers = model(pixel_values=images).last_hidden_state[:, 0]
    for layer in (0, 2, 4):
        answers = torch.nn.functional.linear(answers, head[f"{{layer}}.weight"], head[f"{{layer}}.bias"])
        answers = answers.relu() if layer < 4 else answers
```

`ChirpRegressor.load` (or `SweepClassifier.load`) of `vitmech_utils` does the same, and refuses another backbone than
that with the fingerprint in `{SETTINGS}`."""


def _training(settings: Mapping[str, Any], training: Mapping[str, Any] | None) -> str:
    if not training:
        return "No record of it was kept."
    steps, batch = training.get("steps"), training.get("batch_size")
    visited = steps * batch if isinstance(steps, int) and isinstance(batch, int) else None
    rows = {
        "figures": _figures(training),
        "steps": steps,
        "images a step": batch,
        "images visited": training.get("images_visited", visited),
        "distinct images": training.get("distinct_images"),
        "share of hard images": training.get("hard_share"),
        "seed": training.get("seed"),
        "precision": training.get("precision"),
        "device": training.get("hardware") or training.get("device"),
        "seconds": training.get("wall_seconds"),
        "profile": training.get("profile"),
        "finished": training.get("finished"),
        "fingerprint of the backbone": settings["backbone_fingerprint"][:12],
    }
    told = [f"| {name} | {_shown(value)} |" for name, value in rows.items() if value not in (None, "")]
    return "\n".join(["| | |", "|---|---|", *told])


def _figures(training: Mapping[str, Any]) -> str:
    if "title" in training:
        return f"decorated, title: {_plain(training['title'])}"
    style = training.get("figures", "published")
    return f"{_plain(style)}, {STYLES.get(style, 'a style of its own')}"


def _scores(training: Mapping[str, Any] | None) -> str:
    rows = (training or {}).get("score")
    if not (isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)):
        return "None was recorded."
    columns = [name for name in COLUMNS if name in rows[0]]
    lines = [f"| target | {' | '.join(columns)} |", f"|{'---|' * (len(columns) + 1)}"]
    lines += [
        f"| {_plain(row.get('target', ''))} | {' | '.join(_shown(row.get(column, '')) for column in columns)} |"
        for row in rows
    ]
    what = "the correlation with the truth" if "r" in columns else "the share of right answers"
    drawn = (
        "recordings that were not trained on"
        if training.get("figures") == "recordings"
        else "drawn as in training"
    )
    text = f"On held-out images, {drawn}; `low` and `high` enclose 95 % for {what}."
    if "score_precision" in training:
        text += f" Computed in {_plain(training['score_precision'])}."
    unread = training.get("unread")
    if isinstance(unread, dict):
        text += f" Share of images that it does not read at all: {_shown(unread.get('value', ''))}."
    return "\n".join([text, "", *lines])


def _limits(settings: Mapping[str, Any], training: Mapping[str, Any] | None) -> list[str]:
    size = _number(settings["image_size"])
    if (training or {}).get("figures") == "recordings":
        return [
            f"Its images are figures of {size} x {size} pixels of real seizures, one fold's few recordings; "
            "frequencies are places on an axis from 1 to 60 Hz, given as hertz of the recipe at the same place.",
            "Labels are those of the first box that was drawn by hand, its lower and its upper frequency.",
            "Scores are of this fold's recordings, which it never saw; pictures of one recording are not independent, "
            "so the intervals are too narrow. The book's chapter on real spectrograms draws whole recordings.",
            "It was trained to be taken apart: use it for no decision about a signal, least of all a clinical one.",
            f"Answers are standardized by the means and deviations in `{SETTINGS}`; `seconds_and_hertz` converts them.",
        ]
    limits = [
        f"Its images are synthetic figures of {size} x {size} pixels, one chirp each. Scores say nothing of other "
        "styles of figure, of several chirps, or of recordings; the book's chapter on real spectrograms tries those.",
        "The intervals are of the held-out images of this one training; another seed is another adapter.",
        "It was trained to be taken apart, not to measure: use it for no decision about a signal.",
    ]
    if settings["task"] == "regression":
        limits.append(
            f"Answers are standardized by the means and deviations in `{SETTINGS}`; `seconds_and_hertz` converts them."
        )
    else:
        limits.append("Answers are logits, one per label, each against its opposite.")
    if (training or {}).get("title") == "published":
        limits.append(
            "The title names the sweep's type, and the classifier may read it there: that is what it is for."
        )
    return limits


def _shown(value: Any) -> str:
    return _number(value) if isinstance(value, int | float) and not isinstance(value, bool) else _plain(value)


def _number(value: int | float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _plain(value: Any) -> str:
    """A value from a file as text that neither Markdown, HTML nor YAML takes for more."""
    return re.sub(r"[^\w .,:/+-]", "", str(value))[:120]


def main(arguments: list[str] | None = None) -> int:
    """Write the cards; the exit status is 1 where a folder holds no adapter or a damaged record."""
    parser = argparse.ArgumentParser(prog="vitmech_utils.model.cards", description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    try:
        for given in parser.parse_args(arguments).folders:
            found = sorted(
                path.parent for path in given.rglob(ADAPTER) if not _goes_on_a_pruned_model(path.parent)
            )
            if not found:
                raise AdapterError(f"{given}: no adapter folder at or under it (none has {ADAPTER})")
            for folder in found:
                print(write_card(folder))
    except AdapterError as error:
        print(f"vitmech_utils.model.cards: {error}", file=sys.stderr)
        return 1
    return 0


def _goes_on_a_pruned_model(folder: Path) -> bool:
    """Tell a kept recovery (`heads.recoveries`), which peft alone cannot load onto the backbone."""
    return (folder / "recovery.json").is_file()


if __name__ == "__main__":
    sys.exit(main())
