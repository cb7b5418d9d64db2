"""What a model answers, and would answer without some of its heads: what the picker shows of it, and how sure it is."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Tracks:
    """How an answer of three numbers is drawn over its image as a sweep: start time, start and end frequency.

    `box` is where the axes lie in the image: left, top, right, bottom as fractions of its width and height.
    `duration` [image] is in the unit of time and not part of the answer, `exponential` [image] says which sweeps are
    no straight lines. `time` and `frequency` are the ends of the axes.
    """

    box: tuple[float, float, float, float]
    duration: object
    exponential: object
    time: tuple[float, float] = (0.0, 60.0)
    frequency: tuple[float, float] = (0.0, 100.0)


@dataclass(frozen=True, eq=False)
class Answer:
    """A model's answers to the picker's images: whole, without each head, and without the sets that were tried.

    N images, L layers, H heads, O outputs; with a leading axis of 2 for images and their twins, else of images alone:

    - `whole` [(twin,) image, output], in `units`, of the first variant
    - `without` [(twin,) image, layer, head, output]: exact answers without each head; NaN where none was computed
    - `outputs`: O names; `units`: O units
    - `truth` [image, output], or class numbers [image] where `kind` is "classes"; then answers are logits
    - `slopes` as `without`: how far each head's removal moves the answer by the linearized model; they add up
    - `scale` [output]: what errors are divided by in the squared error (the labels' standard deviations)
    - `mode`: what takes the place of a removed head
    - `sets` [set, layer, head], `without_sets` [set, (twin,) image, output]: sets that were removed exactly
    - `tracks`: how the answer is drawn over the image
    """

    whole: object
    without: object
    outputs: Sequence[str]
    units: Sequence[str] | None = None
    truth: object | None = None
    slopes: object | None = None
    scale: object | None = None
    kind: str = "numbers"
    mode: str = "mean"
    sets: object | None = None
    without_sets: object | None = None
    tracks: Tracks | None = None
