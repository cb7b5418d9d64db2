"""The picker's answers, checked, and how far sums of single heads' shifts were off where sets were removed exactly."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitmech_utils.arguments import shown
from vitmech_utils.report.picker.answer import Answer, Tracks
from vitmech_utils.report.picker.checks import as_array, checked, checked_names
from vitmech_utils.report.picker.measures import rounded

MOST_OUTPUTS = 33  # those that can be linearized, and one for the rest of many classes


@dataclass(frozen=True)
class Checked:
    """An answer whose parts fit: `spec` for the page, and all numbers with their axis of twins.

    `whole` [twin, image, output], `without` and `slopes` [twin, image, layer, head, output], `sets` [set, layer, head],
    `without_sets` [set, twin, image, output], float32.
    """

    spec: dict
    whole: np.ndarray
    without: np.ndarray
    slopes: np.ndarray
    sets: np.ndarray
    without_sets: np.ndarray

    def raw(self) -> bytes:
        """All numbers, little-endian float32: whole, without, slopes, without_sets."""
        parts = (self.whole, self.without, self.slopes, self.without_sets)
        return b"".join(np.ascontiguousarray(part).astype("<f4").tobytes() for part in parts)


def checked_answer(answer: object, twins: int, images: int, layers: int, heads: int) -> Checked:
    """Check an `Answer` against the picker's maps. Raises ValueError that names the field as `answer.field`."""
    if not isinstance(answer, Answer):
        raise ValueError(f"answer: expected an Answer, got {shown(answer)}")
    count = len(answer.outputs) if isinstance(answer.outputs, Sequence | np.ndarray) else 0
    outputs = checked_names("answer.outputs", answer.outputs, count, "output")
    if not 1 <= count <= MOST_OUTPUTS:
        raise ValueError(f"answer.outputs: expected 1 to {MOST_OUTPUTS} names, got {count}")
    if answer.kind not in ("numbers", "classes"):
        raise ValueError(f"answer.kind: expected 'numbers' or 'classes', got {shown(answer.kind)}")
    given = [""] * count if answer.units is None else answer.units
    units = checked_names("answer.units", given, count, "output")
    [mode] = checked_names("answer.mode", [answer.mode], 1, "answer")
    whole = _twinned("whole", answer.whole, "image, output", (images, count), twins)
    size = (images, layers, heads, count)
    axes = "image, layer, head, output"
    without = _twinned("without", answer.without, axes, size, len(whole), allow_nan=True)
    slopes = np.full_like(without, np.nan)
    if answer.slopes is not None:
        slopes = _twinned("slopes", answer.slopes, axes, size, len(whole), allow_nan=True)
    sets, without_sets = _checked_sets(answer, len(whole), images, (layers, heads), count)
    spec = {
        "outputs": outputs, "units": units, "kind": answer.kind, "mode": mode, "twins": len(whole),
        "sets": [np.flatnonzero(row).tolist() for row in sets.reshape(len(sets), -1)],
    }  # fmt: skip
    if answer.truth is not None:
        spec["truth"] = _checked_truth(answer, images, count)
    scale = np.ones(count)
    if answer.scale is not None:
        scale = checked("answer.scale", answer.scale, "output", (count,), minimum=0)
        if not (scale > 0).all():
            raise ValueError("answer.scale: expected numbers above 0, got 0: errors are divided by them")
    spec["scale"] = [float(value) for value in scale]
    if answer.tracks is not None:
        spec["tracks"] = _checked_tracks(answer.tracks, images, count)
    found = Checked(spec, whole, without, slopes, sets, without_sets)
    spec["tests"] = trials(found)
    return found


def trials(answer: Checked) -> list[dict]:
    """How far sums of single heads' shifts were off on the sets that were removed exactly, by kind of set.

    A row per kind ("a whole layer", or numbers of heads) and way of summing: `how` is "shifts" (exact ones of single
    heads) or "slopes" (the linearized ones); `heads` is the mean size of its sets, `sets` and `answers` count them and
    what was compared; per output, `off` is the root mean square of estimate - exact, `worst` the largest, `moved` the
    root mean square of the exact shift.
    """
    singles = {
        "shifts": answer.without.astype(float) - answer.whole.astype(float)[:, :, None, None],
        "slopes": answer.slopes.astype(float),
    }
    rows = []
    for (kind, heads), places in _kinds(answer.sets).items():
        exact = answer.without_sets[places].astype(float) - answer.whole.astype(float)
        for how, terms in singles.items():
            if how == "shifts" and heads == 1:
                continue  # the sum of one exact shift is exact
            # Heads that the model lacks have no term; a set that needs an unknown one has no estimate.
            member = answer.sets[places]
            needed = np.einsum("slh,tilho->stilho", member, np.ones_like(terms)) > 0
            sums = np.where(needed, terms, 0.0).sum((3, 4))
            known = np.isfinite(sums).all(-1) & np.isfinite(exact).all(-1)
            if not known.any():
                continue
            off, moved = (sums - exact)[known], exact[known]
            rows.append(
                {
                    "kind": kind, "how": how, "heads": heads, "sets": int(known.any((1, 2)).sum()),
                    "answers": int(known.sum()),
                    "off": [rounded(value) for value in np.sqrt((off**2).mean(0))],
                    "worst": [rounded(value) for value in np.abs(off).max(0)],
                    "moved": [rounded(value) for value in np.sqrt((moved**2).mean(0))],
                }
            )  # fmt: skip
    return rows


def _kinds(sets: np.ndarray) -> dict[tuple[str, float], list[int]]:
    """The numbers of the sets of each kind, and the mean size of these sets; sizes are taken together by octaves."""
    size, layers = sets.sum((1, 2)), sets.any(2)
    fullest = sets.sum(2).max(0, initial=0)
    whole = (layers.sum(1) == 1) & (size > 1) & (size == (layers * fullest).sum(1))
    octave = np.where(whole, -1, np.round(np.log2(np.maximum(size, 1))))
    found = {}
    for value in sorted(set(octave.tolist())):
        places = np.flatnonzero(octave == value)
        least, most = int(size[places].min()), int(size[places].max())
        name = (
            "a whole layer"
            if value < 0
            else f"{least} heads"
            if least == most
            else f"{least} to {most} heads"
        )
        found["1 head" if most == 1 else name, float(size[places].mean())] = places.tolist()
    return found


def _twinned(
    name: str, values: object, axes: str, shape: tuple[int, ...], twins: int, allow_nan: bool = False
) -> np.ndarray:
    expected = [shape, (1, *shape), (2, *shape)]
    array = checked(f"answer.{name}", values, f"twin (optional), {axes}", *expected, allow_nan=allow_nan)
    array = array if array.ndim > len(shape) else array[None]
    if name != "whole" and len(array) != twins:
        raise ValueError(
            f"answer.{name}: expected shape {(twins, *shape)} as whole has twins, got {array.shape}"
        )
    return array


def _checked_sets(
    answer: Answer, twins: int, images: int, grid: tuple[int, int], outputs: int
) -> tuple[np.ndarray, np.ndarray]:
    if (answer.sets is None) != (answer.without_sets is None):
        raise ValueError(
            "answer.sets and answer.without_sets: expected both or neither, got only one of them"
        )
    if answer.sets is None:
        return np.zeros((0, *grid), bool), np.zeros((0, twins, images, outputs), np.float32)
    sets = as_array("answer.sets", answer.sets, "set, layer, head")
    if sets.dtype != bool or sets.ndim != 3 or sets.shape[1:] != grid:
        raise ValueError(
            f"answer.sets: expected bool of shape (any, {grid[0]}, {grid[1]}) ([set, layer, head]), got {sets.dtype} "
            f"{sets.shape}"
        )
    size = (len(sets), images, outputs)
    if not len(sets):
        return sets, np.zeros((0, twins, images, outputs), np.float32)
    axes = "set, twin (optional), image, output"
    expected = [(len(sets), number, images, outputs) for number in range(twins, 3)]
    expected += [size] if twins == 1 else []
    without = checked("answer.without_sets", answer.without_sets, axes, *expected, allow_nan=True)
    return sets, without.reshape(len(sets), -1, images, outputs)[:, :twins]


def _checked_truth(answer: Answer, images: int, outputs: int) -> list:
    if answer.kind == "numbers":
        found = checked("answer.truth", answer.truth, "image, output", (images, outputs))
        return [[rounded(value) for value in row] for row in found]
    found = as_array("answer.truth", answer.truth, "image")
    if (
        found.shape != (images,)
        or found.dtype.kind not in "iu"
        or not ((found >= 0) & (found < outputs)).all()
    ):
        raise ValueError(
            f"answer.truth: expected {images} class numbers in 0..{outputs - 1} ([image]), got {shown(answer.truth)}"
        )
    return found.tolist()


def _checked_tracks(tracks: object, images: int, outputs: int) -> dict:
    if not isinstance(tracks, Tracks) or outputs != 3:
        raise ValueError(
            f"answer.tracks: expected Tracks for three outputs (start time, start and end frequency), got "
            f"{shown(tracks)} for {outputs}"
        )
    box = checked("answer.tracks.box", tracks.box, "left, top, right, bottom", (4,), minimum=0).tolist()
    if not (box[0] < box[2] <= 1 and box[1] < box[3] <= 1):
        raise ValueError(f"answer.tracks.box: expected left < right <= 1 and top < bottom <= 1, got {box}")
    ends = {}
    for name in ("time", "frequency"):
        low, high = checked(f"answer.tracks.{name}", getattr(tracks, name), "low, high", (2,)).tolist()
        if not low < high:
            raise ValueError(f"answer.tracks.{name}: expected low < high, got {low:g} and {high:g}")
        ends[name] = [low, high]
    duration = checked("answer.tracks.duration", tracks.duration, "image", (images,), minimum=0)
    curved = as_array("answer.tracks.exponential", tracks.exponential, "image")
    if curved.shape != (images,) or curved.dtype != bool:
        raise ValueError(
            f"answer.tracks.exponential: expected {images} of True and False, got {shown(curved)}"
        )
    return {"box": box, **ends, "duration": [rounded(v) for v in duration], "exponential": curved.tolist()}
