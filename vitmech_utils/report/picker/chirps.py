"""Answers to chirps: from what `head_answers` kept, in standard deviations, to seconds and hertz over the picture."""

from collections.abc import Mapping

import numpy as np

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.chirps import DURATION, LABEL_MEAN, LABEL_STD, LABEL_UNITS, MAX_FREQUENCY
from vitmech_utils.data.dataset import ChirpDataset
from vitmech_utils.data.style import HEIGHT, PLOT, WIDTH
from vitmech_utils.report.picker.answer import Answer, Tracks

NAMES = ("start time", "start frequency", "end frequency")


@checked_arguments()
def chirp_answer(
    kept: Mapping[str, object], images: int, mode: str = "mean", prefix: str = "answer_"
) -> Answer | None:
    """The `Answer` to the first `images` held-out figures; None where nothing was kept of it, or of fewer figures.

    `kept` holds what `head_answers` returns, each name with `prefix`: of the figures, or [twin, ...] of them and their
    twins, which share chirps. Truth, durations and sweeps are those that the figures were drawn from.
    """
    if f"{prefix}whole" not in kept:
        return None
    found = {
        name: np.asarray(kept[f"{prefix}{name}"], dtype=float)
        for name in ("whole", "without", "slopes", "without_sets")
    }
    if found["whole"].shape[-2] < images:
        return None
    found["whole"], found["without_sets"] = (
        found[name][..., :images, :] for name in ("whole", "without_sets")
    )
    found["without"], found["slopes"] = (found[name][..., :images, :, :, :] for name in ("without", "slopes"))
    chirps = [ChirpDataset(images, seed=0, split="held-out").chirp(index) for index in range(images)]
    left, bottom, width, height = PLOT
    return Answer(
        whole=found["whole"] * LABEL_STD + LABEL_MEAN,
        without=found["without"] * LABEL_STD + LABEL_MEAN,
        slopes=found["slopes"] * LABEL_STD,
        without_sets=found["without_sets"] * LABEL_STD + LABEL_MEAN,
        sets=np.asarray(kept[f"{prefix}sets"], dtype=bool),
        outputs=NAMES,
        units=LABEL_UNITS,
        truth=np.stack([chirp.labels for chirp in chirps]),
        scale=LABEL_STD,
        mode=mode,
        tracks=Tracks(
            box=(left / WIDTH, 1 - (bottom + height) / HEIGHT, (left + width) / WIDTH, 1 - bottom / HEIGHT),
            duration=[chirp.duration for chirp in chirps],
            exponential=np.array([chirp.sweep == "exponential" for chirp in chirps]),
            time=(0.0, DURATION),
            frequency=(0.0, MAX_FREQUENCY),
        ),
    )
