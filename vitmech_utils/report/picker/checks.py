"""Shape and value checks of what a head picker is given, with errors that quote what was expected and what came."""

import math
from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np

from vitmech_utils.arguments import shown
from vitmech_utils.artefacts import to_numpy


def checked(
    name: str,
    values: object,
    axes: str,
    *expected: Sequence[int | None],
    minimum: int | float | None = None,
    allow_nan: bool = False,
) -> np.ndarray:
    """Return `values` as float32 after checking its shape against any of `expected` (None = any size).

    `axes` names the axes in the error, `minimum` bounds the values, NaN and None pass only with `allow_nan` (no value
    known). Raises ValueError naming the argument, the expected axes and sizes, and the actual shape or value; also for
    text and complex numbers, which NumPy would turn into numbers in silence.
    """
    array = as_array(name, values, axes)
    if array.dtype.kind == "O":
        known = (
            isinstance(value, Real | np.bool_) or (allow_nan and value is None) for value in array.ravel()
        )
        array = array.astype(np.float64) if all(known) else array
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: expected numbers with axes [{axes}], got {shown(values)}")
    with np.errstate(over="ignore"):  # too large for float32: infinite, and refused below
        array = array.astype(np.float32)
    if not any(_fits(array.shape, shape) for shape in expected):
        wanted = " or ".join(_spell(shape) for shape in expected)
        raise ValueError(f"{name}: expected shape {wanted} ([{axes}]), got {tuple(array.shape)}")
    known = array[~np.isnan(array)] if allow_nan else array
    if not np.isfinite(known).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity; check the arrays' source")
    if minimum is not None and known.size and known.min() < minimum:
        raise ValueError(f"{name}: expected values >= {minimum:g}, got {known.min():g}")
    return array


def checked_images(name: str, images: object, count: int) -> np.ndarray:
    """Return uint8 images [image, height, width, 3]; grey ones [image, height, width] get three equal channels."""
    array = as_array(name, images, "image, height, width, channel (optional)")
    if array.dtype != np.uint8:
        raise ValueError(
            f"{name}: expected uint8 pixels in 0..255, got {array.dtype}; for floats in [0, 1] pass "
            "(255 * images).round().astype(np.uint8)"
        )
    if array.ndim == 3:
        array = np.repeat(array[..., None], 3, axis=-1)
    if array.ndim != 4 or array.shape[-1] != 3 or len(array) != count or 0 in array.shape:
        raise ValueError(
            f"{name}: expected shape ({count}, height, width, 3) ([image, height, width, channel]), got {array.shape}"
        )
    return array


def checked_names(name: str, values: object, count: int, what: str) -> list[str]:
    """Return `count` strings, one per `what`."""
    listed = isinstance(values, Sequence | np.ndarray) and not isinstance(values, str | bytes)
    if not listed or getattr(values, "ndim", 1) == 0:
        raise ValueError(f"{name}: expected a list of {count} names, one per {what}, got {shown(values)}")
    names = [checked_text(name, value) for value in values]
    if len(names) != count:
        raise ValueError(f"{name}: expected {count} names, one per {what}, got {len(names)}: {shown(names)}")
    return names


def checked_texts(name: str, values: object, layers: int, heads: int) -> list[str]:
    """Return `layers * heads` strings, layer by layer, from nested lists or an array [layer, head]; None becomes ''."""
    try:
        array = np.asarray(values, dtype=object)
    except ValueError as error:
        raise ValueError(f"{name}: expected texts [layer, head], got {shown(values)}: {error}") from None
    if array.shape != (layers, heads):
        raise ValueError(f"{name}: expected shape ({layers}, {heads}) ([layer, head]), got {array.shape}")
    texts = []
    for value in array.ravel():
        unknown = value is None or (isinstance(value, float) and math.isnan(value))
        texts.append("" if unknown else checked_text(name, value))
    return texts


def checked_text(name: str, value: object) -> str:
    """Return a string that can stand in a page as it is."""
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected text, got {shown(value)}")
    if any("\ud800" <= sign <= "\udfff" for sign in value):
        raise ValueError(f"{name}: expected text, got {shown(value)}, which holds half a character")
    return str(value)


def checked_number(name: str, value: object, low: int, high: int, what: str) -> int:
    """Return a whole number between two."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= value <= high:
        raise ValueError(f"{name}: expected {what} in {low}..{high}, got {shown(value)}")
    return int(value)


def as_array(name: str, values: object, axes: str) -> np.ndarray:
    """Return values as an array: NumPy's, a tensor's, or nested lists'."""
    try:
        return to_numpy(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name}: expected numbers with axes [{axes}], got {shown(values)}: {error}"
        ) from None


def _fits(shape: tuple[int, ...], expected: Sequence[int | None]) -> bool:
    if len(shape) != len(expected) or 0 in shape:
        return False
    return all(wanted is None or size == wanted for size, wanted in zip(shape, expected, strict=True))


def _spell(shape: Sequence[int | None]) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
