"""Profiles: the numbers of a run (how many images, steps, seeds), validated once, at the edge."""

import difflib
import hashlib
import json
import os
import re
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from vitmech_utils.profile_sections import (
    Ablation,
    Attacks,
    Audit,
    Gallery,
    Images,
    Mechanism,
    Origin,
    Pruning,
    Recordings,
    Section,
    Semantics,
    Task,
    Together,
    Train,
    Trainings,
    no_bool,
)
from vitmech_utils.strict_text import LARGEST_YAML, parse_yaml

REHEARSAL = 2
"""The most steps that a training takes where published adapters are shown."""
SHOWN = 20  # problems that an error lists
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(?:/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
LOCAL_PREFIXES = ("/", "./", "../", "~")


class ProfileError(ValueError):
    """A profile, or a value given on the command line, that cannot be used."""


class Profile(Section):
    """All numbers of one run. Frozen; unknown keys and out-of-range values are refused."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    backbone: Annotated[str, Field(min_length=1)]
    adapter: Literal["train", "published"]
    bare_adapter: Literal["train", "published"]
    classifiers: Literal["train", "published"]
    seeds: Annotated[
        list[Annotated[int, BeforeValidator(no_bool), Field(ge=0, lt=2**31)]], Field(min_length=1)
    ]
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]
    train: Train
    gallery: Gallery
    attention: Images
    ablation: Ablation
    semantics: Semantics
    audit: Audit
    origin: Origin
    pruning: Pruning
    attacks: Attacks
    together: Together
    trainings: Trainings
    recordings: Recordings
    task: Task
    mechanism: Mechanism

    @model_validator(mode="after")
    def _backbone_is_a_folder_or_an_id(self) -> "Profile":
        if self.backbone.startswith(LOCAL_PREFIXES) or Path(self.backbone).is_absolute():
            try:
                there = Path(self.backbone).expanduser().is_dir()
            except (OSError, RuntimeError):  # a name too long, a home of nobody
                there = False
            if not there:
                raise ValueError(f"backbone: the folder {_short(self.backbone)} does not exist")
        elif not _HUB_ID.fullmatch(self.backbone):
            raise ValueError(
                f"backbone is {_short(self.backbone)}, expected dinov2-small, a hub id such as "
                "google/vit-base-patch16-224, or a folder, written with ./ or / before it"
            )
        return self

    @model_validator(mode="after")
    def _further_trainings_are_others(self) -> "Profile":
        if self.seeds[0] in self.trainings.seeds:
            raise ValueError(
                f"trainings: seeds is {self.trainings.seeds}, expected others than the first of seeds, {self.seeds[0]}"
            )
        return self

    def further_seeds(self, chapter: str) -> list[int]:
        """The seeds of the further trainings that a chapter, named by its two digits, asks too."""
        return self.trainings.seeds if chapter in self.trainings.chapters else []

    def rehearsal(self) -> "Profile":
        """The same run with trainings of at most `REHEARSAL` steps, to show that training runs.

        For chapters that then go on with published adapters.
        """
        steps = min(self.train.steps, REHEARSAL)
        train = {
            "steps": steps,
            "every": min(self.train.every, steps),
            "images": min(self.train.images, steps * self.train.batch_size),
        }
        steps = min(self.task.steps, REHEARSAL)
        task = {"steps": steps, "every": min(self.task.every, steps)}
        sections = {
            "train": self.train.model_copy(update=train),
            "task": self.task.model_copy(update=task),
        }
        return self.model_copy(update=sections)

    @property
    def hash(self) -> str:
        """SHA-256 over all values, hex: two runs belong together only if it is the same."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def repository_root(start: Path | None = None) -> Path:
    """Find the clone: the nearest folder with `profiles/` and `notebooks/`, from `start` upwards.

    `start` defaults to `$VITMECH_ROOT`, else the working folder; the package's own parent is tried last.
    Raises `ProfileError` when there is none.
    """
    first = start or Path(os.environ.get("VITMECH_ROOT") or Path.cwd())
    own = Path(__file__).resolve().parents[1]
    for folder in (first.resolve(), *first.resolve().parents, own):
        if (folder / "profiles").is_dir() and (folder / "notebooks").is_dir():
            return folder
    raise ProfileError(
        f"no clone of the book found from {first} upwards (expected a folder with profiles/ and notebooks/): "
        "work inside the clone, or set VITMECH_ROOT to it"
    )


def load_profile(
    name_or_path: str | Path, overrides: dict[str, Any] | None = None, root: Path | None = None
) -> Profile:
    """Read a profile by name (`quick`) or path (`mine.yaml`), with dotted overrides (`{"train.steps": 3}`).

    Another backbone than the file's leaves out `trainings.seeds` that the profile does not train itself, unless these
    are given, too: published adapters are of the file's backbone, and their heads are not this one's.

    Raises `ProfileError` naming the file, the key, the value and what was expected.
    """
    path = _profile_path(name_or_path, root)
    try:
        if (size := path.stat().st_size) > 4 * LARGEST_YAML:
            raise ValueError(f"it has {size:,} bytes, expected at most {4 * LARGEST_YAML:,}")
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ProfileError(f"{path}: not readable as YAML: {error}") from error
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read ({error.strerror})") from error
    if not isinstance(values, dict):
        raise ProfileError(
            f"{path}: expected keys and values at the top level, found {type(values).__name__}"
        )
    if not isinstance(overrides, Mapping | None):
        raise ProfileError(
            f"overrides is {_short(overrides)}, expected keys and values, as in {{'train.steps': 3}}"
        )
    meant = values.get("backbone")
    for key, value in (overrides or {}).items():
        _set_dotted(values, key, value)
    if values.get("backbone") != meant and "trainings.seeds" not in (overrides or {}):
        _keep_own_trainings(values)
    try:
        return Profile.model_validate(values)
    except ValidationError as error:
        raise ProfileError(_explain(path, error)) from None


def parse_overrides(texts: Iterable[str]) -> dict[str, Any]:
    """Read several texts of `parse_override`; raises `ProfileError` for a key that is given twice, too."""
    found: dict[str, Any] = {}
    for text in texts:
        key, value = parse_override(text)
        if key in found:
            raise ProfileError(f"-p {_short(text)}: {key} is given more than once, expected one value")
        found[key] = value
    return found


def parse_override(text: str) -> tuple[str, Any]:
    """Split `train.steps=3` into a known dotted key and a YAML value; raises `ProfileError`."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ProfileError(f"-p {_short(text)}: expected KEY=VALUE, as in -p train.steps=3")
    _check_key(key.strip())
    try:
        return key.strip(), parse_yaml(value)
    except ValueError as error:
        raise ProfileError(f"-p {_short(text)}: the value is not readable as YAML: {error}") from error


def dotted_keys(model: type[BaseModel] = Profile) -> list[str]:
    """List every key that can be overridden, sections flattened with dots."""
    keys = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += [f"{name}.{inner}" for inner in dotted_keys(field.annotation)]
        else:
            keys.append(name)
    return keys


def _profile_path(name_or_path: str | Path, root: Path | None) -> Path:
    if not isinstance(name_or_path, str | Path):
        raise ProfileError(f"profile is {_short(name_or_path)}, expected a name, as 'quick', or a path")
    text = str(name_or_path)
    if "\0" in text or len(text) > 1000:
        raise ProfileError(f"profile is {_short(text)}, expected a name, as 'quick', or a path")
    if text.endswith((".yaml", ".yml")) or "/" in text:
        try:
            given = Path(text).expanduser()
            found = [path for path in (given, (root or repository_root()) / given) if path.is_file()]
        except (OSError, RuntimeError) as error:  # a name too long, a home of nobody
            raise ProfileError(f"profile file {_short(text)} cannot be looked for ({error})") from error
        if found:
            return found[0]
        raise ProfileError(f"profile file {text!r} does not exist (looked in {Path.cwd()} and in the clone)")
    folder = (root or repository_root()) / "profiles"
    path = folder / f"{text[:200]}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in folder.glob("[!.]*.yaml"))
        raise ProfileError(
            f"unknown profile {_short(text)}{_suggest(text, known)}: expected one of {', '.join(known)}, or a path"
        )
    return path


def _set_dotted(values: dict[str, Any], key: str, value: Any) -> None:
    _check_key(key)
    *sections, last = key.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            return  # the file itself is wrong here; validation names it
        values = inner
    values[last] = value


def _keep_own_trainings(values: dict[str, Any]) -> None:
    """Leave out the further trainings that are published: they are of the backbone that the file names."""
    trainings, own = values.get("trainings"), values.get("seeds")
    if isinstance(trainings, dict) and isinstance(trainings.get("seeds"), list) and isinstance(own, list):
        trainings["seeds"] = [seed for seed in trainings["seeds"] if seed in own]


def _check_key(key: str) -> None:
    known = dotted_keys()
    if key not in known:
        raise ProfileError(
            f"unknown parameter {_short(key)}{_suggest(key, known)}: expected one of {', '.join(known)}"
        )


def _short(value: Any) -> str:
    """A value as it is written in code, of a length that a message can hold."""
    shown = reprlib.Repr()
    shown.maxstring = shown.maxother = 80
    return shown.repr(value)


def _suggest(word: Any, known: list[str]) -> str:
    close = difflib.get_close_matches(word[:80], known, n=1) if isinstance(word, str) else []
    return f" (did you mean {close[0]!r}?)" if close else ""


def _explain(path: Path, error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part)[:80] for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key{_suggest(key, dotted_keys())}")
        elif problem["type"] == "missing":
            lines.append(f"{key}: missing")
        elif isinstance(problem["input"], dict):  # a rule between values
            lines.append(f"{key}: {message}".removeprefix(": "))
        else:
            lines.append(f"{key} is {_short(problem['input'])}: {message}")
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return f"{path}: " + "; ".join([*lines[:SHOWN], *more])
