"""The form of a manifest: what must be in it, and what its values may be. A seal alone makes no text trustworthy."""

from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def _stays_inside(text: str) -> str:
    path = PurePosixPath(text)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in text or "\0" in text:
        raise ValueError("expected a path inside the folder")
    return text


def _is_time(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("expected a time with its zone")
    return text


Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Inside = Annotated[str, AfterValidator(_stays_inside)]
Hashes = dict[Inside, Hash]
Line = Annotated[str, Field(max_length=300, pattern=r"^[^\n\r]*$")]
Seconds = Annotated[float, Field(ge=0, le=1e9)]
Time = Annotated[str, AfterValidator(_is_time)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Values(_Part):
    """The profile that a chapter was run on."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    hash: Hash
    values: dict[str, Any]


class Version(_Part):
    """A version of the code: of the package, and of the clone."""

    version: Line
    commit: Line | None
    modified: bool | None


class Notebook(_Part):
    """A notebook's hashes: of what computes in it, of what saves tables and numbers, too, and of its page."""

    computes: Hash
    saves: Hash
    shows: Hash


class Modules(_Part):
    """Modules with their hashes: those that what is kept depends on, what else is saved, and the page."""

    computes: Hashes
    saves: Hashes
    shows: Hashes


class Code(Version):
    """The code that a chapter ran."""

    notebook: Notebook | None
    modules: Modules


class Device(_Part):
    """What a chapter ran on."""

    type: Line
    name: Line
    system: Line
    cores: Annotated[int, Field(ge=1, le=100_000)]


class Adapter(_Part):
    """An adapter that a chapter read from the clone."""

    path: Inside
    digest: Hash


class Files(_Part):
    """What a chapter read of another one; `computes` where what it keeps depends on it."""

    files: Hashes
    computes: bool


class Executed(_Part):
    """The executed notebook."""

    file: Annotated[str, Field(pattern=r"^[\w-]+\.ipynb$")]
    sha256: Hash


class Took(_Part):
    """How long one kept value took to compute, in seconds by the clock and of the processor."""

    wall: Seconds
    cpu: Seconds


class Drawn(_Part):
    """When and by what a page was drawn again from what an earlier run kept."""

    started: Time
    wall_seconds: Seconds
    code: Version
    packages: dict[Line, Line]
    device: Device


class Form(_Part):
    """A manifest without its seal."""

    format: Literal[2]
    chapter: Annotated[str, Field(pattern=r"^[\w-]+$")]
    profile: Values
    code: Code
    packages: dict[Line, Line]
    device: Device
    seeds: list[int]
    started: Time
    wall_seconds: Seconds
    cpu_seconds: Seconds | None = None
    trace: dict[Inside, Took] = {}
    peak_memory_mib: Annotated[int, Field(ge=0, le=10**9)]
    inputs: dict[str, Files | Adapter]
    outputs: Hashes
    computed: list[Inside]
    executed: Executed | None = None
    drawn: Drawn | None = None
    only_in_page: Hashes = {}
    too_large: Hashes = {}
    migrated: Line | None = None

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "Form":
        if self.chapter in self.inputs:
            raise ValueError("inputs: the chapter names itself")
        known = {*self.outputs, *self.only_in_page, *self.too_large}
        if lost := sorted({*self.computed} - known):
            raise ValueError(f"computed: {lost[0]} is not among the outputs")
        return self
