"""What a study's model answers to the images that its picker shows: numbers, or the leading classes' logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from vitmech_utils.heads.answers import head_answers, keep_classes, leading_classes, sets_to_try
from vitmech_utils.heads.hooks import Head
from vitmech_utils.heads.linearized import MOST_OUTPUTS
from vitmech_utils.heads.replay import predict
from vitmech_utils.heads.sets import predict_without_sets
from vitmech_utils.model.own_models import class_names
from vitmech_utils.report.picker import Answer

Exact = Callable[[Sequence[Head]], np.ndarray]
REST = "all other classes"
MOST_NUMBERS = 12
SHOWN_CLASSES = 8
DRAWS = 2


def study_answer(study: Any, images: Sequence[int]) -> tuple[Answer | None, Exact | None]:
    """The answers to the images of these numbers, exact without each head, and a function that asks without a set.

    Sets are tried on the first images alone. None for answers that are no few numbers per image, such as maps, or
    that carry no gradient; the study notes why.
    """
    pixels = study.images.pixels[list(images)]
    labels = None if study.labels is None else study.labels[list(images)]
    with torch.inference_mode():
        outputs = predict(study.model, pixels.to(study.device)).cpu()
    classes = study.task.name in ("cross-entropy", "divergence")
    if outputs.ndim != 2 or (not classes and outputs.shape[1] > MOST_NUMBERS) or study.mode == "resample":
        study._note(
            "the answers without each head: they are not a few numbers per image, or heads are resampled"
        )
        return None, None
    count = outputs.shape[1]
    kept = list(range(count))
    if classes and count > SHOWN_CLASSES:
        own = labels if study.task.name == "cross-entropy" else None
        kept = leading_classes(outputs, own, SHOWN_CLASSES)[: MOST_OUTPUTS - 1]
    fold = keep_classes(kept, count) if len(kept) < count else None
    settings: dict[str, Any] = {"batch": study.batch, "seed": study.seed}
    if study.mode == "mean":
        settings["reference"] = study.reference()
    try:
        sets = sets_to_try(study.check().anatomy, DRAWS, study.seed)
        found = head_answers(
            study.model, pixels, study.mode, sets=sets, tried=study.tried, fold=fold, **settings
        )
    except ValueError as error:
        study._note(f"the answers without each head: {error}")
        return None, None

    def ask(heads: Sequence[Head]) -> np.ndarray:
        answers = predict_without_sets(study.model, pixels, [list(heads)], study.mode, **settings).ablated[0]
        return (answers if fold is None else fold(answers)).numpy()

    truth, scale = _truth(study, labels, kept, classes)
    answer = Answer(
        **{name: found[name].numpy() for name in ("whole", "without", "slopes", "sets", "without_sets")},
        outputs=_names(study, kept, classes) + ([REST] if fold else []),
        kind="classes" if classes else "numbers", truth=truth, scale=scale, mode=study.mode,
    )  # fmt: skip
    return answer, ask


def _truth(study: Any, labels: Any, kept: list[int], classes: bool) -> tuple[np.ndarray | None, Any]:
    if labels is None or study.task.name == "divergence":
        return None, None
    if classes:
        return np.array([kept.index(int(label)) for label in labels]), None
    truth = labels.double().numpy().reshape(len(labels), -1)
    return (truth if truth.shape[1] == len(kept) else None), None


def _names(study: Any, kept: list[int], classes: bool) -> list[str]:
    told = class_names(study.model)
    if classes and len(told) > max(kept):
        return [told[number] for number in kept]
    targets = study.task.targets
    if not classes and len(targets) == len(kept):
        return [str(name).replace("_", " ") for name in targets]
    return [f"{'class' if classes else 'output'} {number}" for number in kept]
