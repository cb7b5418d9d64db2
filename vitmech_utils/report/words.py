"""Words that agree with a count, for sentences that are written from numbers."""


def word(count: int, one: str, several: str) -> str:
    """The word that goes with a count: `one` for 1, else `several`."""
    return one if count == 1 else several


def counted(count: int, noun: str) -> str:
    """A count with its noun, in the plural unless there is one."""
    return f"{count:,} {word(count, noun, f'{noun}s')}"
