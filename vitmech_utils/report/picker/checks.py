"""Shape and value checks of what a head picker is given, with errors that quote what was expected and what came."""

from collections.abc import Sequence

import numpy as np


def checked(
    name: str,
    values: object,
    axes: str,
    *expected: Sequence[int | None],
    minimum: int | float | None = None,
    allow_nan: bool = False,
) -> np.ndarray:
    """Return `values` as float32 after checking its shape against any of `expected` (None = any size).

    `axes` names the axes in the error, `minimum` bounds the values, NaN passes only with `allow_nan` (no value known).
    Raises ValueError naming the argument, the expected axes and sizes, and the actual shape or value.
    """
    try:
        array = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name}: expected numbers with axes [{axes}], got {type(values).__name__}: {error}"
        ) from None
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
    array = np.asarray(images)
    if array.dtype != np.uint8:
        raise ValueError(
            f"{name}: expected uint8 pixels in 0..255, got {array.dtype}; for floats in [0, 1] pass "
            "(255 * images).round().astype(np.uint8)"
        )
    if array.ndim == 3:
        array = np.repeat(array[..., None], 3, axis=-1)
    if array.ndim != 4 or array.shape[-1] != 3 or len(array) != count:
        raise ValueError(
            f"{name}: expected shape ({count}, height, width, 3) ([image, height, width, channel]), got {array.shape}"
        )
    return array


def checked_names(name: str, values: object, count: int, what: str) -> list[str]:
    """Return `count` strings, one per `what`."""
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray):
        raise ValueError(f"{name}: expected a list of {count} names, one per {what}, got {values!r}")
    names = [str(value) for value in values]
    if len(names) != count:
        raise ValueError(f"{name}: expected {count} names, one per {what}, got {len(names)}: {names}")
    return names


def checked_texts(name: str, values: object, layers: int, heads: int) -> list[str]:
    """Return `layers * heads` strings, layer by layer, from nested lists or an array [layer, head]; None becomes ''."""
    array = np.asarray(values, dtype=object)
    if array.shape != (layers, heads):
        raise ValueError(f"{name}: expected shape ({layers}, {heads}) ([layer, head]), got {array.shape}")
    return ["" if value is None or value != value else str(value) for value in array.ravel()]


def _fits(shape: tuple[int, ...], expected: Sequence[int | None]) -> bool:
    if len(shape) != len(expected) or 0 in shape:
        return False
    return all(wanted is None or size == wanted for size, wanted in zip(shape, expected, strict=True))


def _spell(shape: Sequence[int | None]) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
