"""For tests that feed bad inputs: what a call gives, or what it says where it refuses."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from vitmech_utils.data.recordings.boxes import Box


def outcome(call: Callable[[], Any], *refusals: type[Exception]) -> tuple[Any, str | None]:
    """A call's value, or the words of the documented error that it raises; any other error goes through."""
    try:
        return call(), None
    except refusals as error:
        return None, str(error)


def write_audacity(boxes: Iterable[Box], path: Path) -> Path:
    """Write boxes as Audacity exports labels: a second line holds the band of those that have one."""
    rows = []
    for box in boxes:
        rows.append(f"{box.start!r}\t{box.end!r}\t{box.label}")
        if math.isfinite(box.high):
            rows.append(f"\\\t{box.low!r}\t{box.high!r}")
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path
