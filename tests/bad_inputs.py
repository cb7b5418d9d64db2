"""For tests that feed bad inputs: what a call gives, or what it says where it refuses."""

from collections.abc import Callable
from typing import Any


def outcome(call: Callable[[], Any], *refusals: type[Exception]) -> tuple[Any, str | None]:
    """A call's value, or the words of the documented error that it raises; any other error goes through."""
    try:
        return call(), None
    except refusals as error:
        return None, str(error)
