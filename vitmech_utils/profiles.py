"""Profiles: the numbers of a run (how many images, steps, seeds), validated once, at the edge."""

import difflib
import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

AblationMode = Literal["zero", "mean", "resample", "qkv-weights", "published-code"]
LOCAL_PREFIXES = ("/", "./", "../", "~")


class ProfileError(ValueError):
    """A profile, or a value given on the command line, that cannot be used."""


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("expected a number, not true or false")
    return value


Count = Annotated[int, BeforeValidator(_no_bool), Field(ge=1, le=10_000_000)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Train(_Section):
    """Fine-tuning: `images` distinct training images, `steps` optimizer steps of `batch_size` images.

    Every `every` steps the model is judged on held-out images and a checkpoint is kept; `patience` judgements
    without gain end the training. Precision `auto` is bfloat16 where the processor computes in it, else float32.
    """

    images: Count
    batch_size: Annotated[Count, Field(le=4096)]
    steps: Count
    learning_rate: Annotated[float, BeforeValidator(_no_bool), Field(gt=0, le=1)]
    eval_images: Annotated[Count, Field(ge=2)]
    patience: Count
    every: Count = 100
    schedule: Literal["cosine", "constant", "reduce_lr_on_plateau"] = "cosine"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


class Images(_Section):
    """A section that only says how many held-out images a chapter looks at."""

    images: Count


class Ablation(_Section):
    """Head ablation: images for `modes`, for every other sweep, pairs of head and image per batch, bootstrap draws."""

    images: Annotated[Count, Field(ge=2)]
    other_images: Annotated[Count, Field(ge=2)] = 2
    modes: Annotated[list[AblationMode], Field(min_length=1)]
    batch: Count
    bootstrap: Annotated[Count, Field(ge=100)]


class Semantics(_Section):
    """Mono- or polysemantic: images, images of each twin pair, and draws of permutations and bootstraps."""

    images: Annotated[Count, Field(ge=2)]
    twins: Annotated[Count, Field(ge=2)]
    permutations: Annotated[Count, Field(ge=10)]


class Origin(_Section):
    """Inherited or emergent: images for maps and classes, of each twin pair, of the sweeps, and to fit readouts on."""

    images: Annotated[Count, Field(ge=2)]
    twins: Annotated[Count, Field(ge=2)]
    sweep_images: Annotated[Count, Field(ge=2)]
    readout_images: Annotated[Count, Field(ge=2)]


class Pruning(_Section):
    """Heads removed for good: test images, images to choose heads by, random sets of each size, timings, recovery.

    Effects that choose heads are measured on `choice_images`; `recovery_steps` optimizer steps of `recovery_batch`
    fresh images follow a removal; every model is timed `repeats` times.
    """

    images: Annotated[Count, Field(ge=2)]
    choice_images: Annotated[Count, Field(ge=2)]
    random_sets: Count
    rounds: Count
    repeats: Annotated[Count, Field(ge=2)]
    recovery_steps: Count
    recovery_batch: Count


class Attacks(_Section):
    """Attacks: attacked images, gradient steps, restarts, budgets (largest change of a pixel, in 1/255), pixels.

    A region is attacked on `pixels` of its pixels, so that regions of different size can be compared; `defence_steps`
    optimizer steps of `defence_batch` fresh images follow, on randomized and on published layouts.
    """

    images: Annotated[Count, Field(ge=2)]
    steps: Count
    restarts: Count
    budgets: Annotated[
        list[Annotated[float, BeforeValidator(_no_bool), Field(gt=0, le=255)]], Field(min_length=1)
    ]
    pixels: Count
    defence_steps: Count
    defence_batch: Count


class Together(_Section):
    """Heads together: images of groups, images of pairs, heads whose pairs are estimated, pairs measured exactly.

    Shapley values take `permutations` orders of all heads, each on an image of its own; `random_sets` sets are drawn
    for every size that a chosen set is compared at.
    """

    images: Annotated[Count, Field(ge=2)]
    pair_images: Annotated[Count, Field(ge=2)]
    pair_heads: Annotated[Count, Field(ge=2)]
    exact_pairs: Annotated[Count, Field(ge=3)]
    permutations: Annotated[Count, Field(ge=2)]
    random_sets: Annotated[Count, Field(ge=2)]


class Recordings(_Section):
    """Real spectrograms: windows of each detector's recording, and synthetic images to hold them against."""

    windows: Annotated[Count, Field(ge=2)]
    images: Annotated[Count, Field(ge=2)]


class Task(_Section):
    """Another task: training of the classifiers, held-out images, images of the sweeps, random sets of heads.

    Each classifier takes `steps` optimizer steps of `batch_size` fresh images and is judged every `every` steps.
    """

    steps: Count
    batch_size: Annotated[Count, Field(le=4096)]
    learning_rate: Annotated[float, BeforeValidator(_no_bool), Field(gt=0, le=1)]
    every: Count
    images: Annotated[Count, Field(ge=2)]
    sweep_images: Annotated[Count, Field(ge=2)]
    random_sets: Annotated[Count, Field(ge=2)]


class Profile(_Section):
    """All numbers of one run. Frozen; unknown keys and out-of-range values are refused."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    backbone: Annotated[str, Field(min_length=1)]
    adapter: Literal["train", "published"]
    bare_adapter: Literal["train", "published"]
    classifiers: Literal["train", "published"]
    seeds: Annotated[
        list[Annotated[int, BeforeValidator(_no_bool), Field(ge=0, lt=2**31)]], Field(min_length=1)
    ]
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]
    train: Train
    gallery: Images
    attention: Images
    ablation: Ablation
    semantics: Semantics
    audit: Images
    origin: Origin
    pruning: Pruning
    attacks: Attacks
    together: Together
    recordings: Recordings
    task: Task

    @model_validator(mode="after")
    def _local_backbone_exists(self) -> "Profile":
        if self.backbone.startswith(LOCAL_PREFIXES) and not Path(self.backbone).expanduser().is_dir():
            raise ValueError(f"backbone: the folder {self.backbone!r} does not exist")
        return self

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

    Raises `ProfileError` naming the file, the key, the value and what was expected.
    """
    path = _profile_path(name_or_path, root)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(values, dict):
        raise ProfileError(
            f"{path}: expected keys and values at the top level, found {type(values).__name__}"
        )
    for key, value in (overrides or {}).items():
        _set_dotted(values, key, value)
    try:
        return Profile.model_validate(values)
    except ValidationError as error:
        raise ProfileError(_explain(path, error)) from None


def parse_override(text: str) -> tuple[str, Any]:
    """Split `train.steps=3` into a known dotted key and a YAML value; raises `ProfileError`."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ProfileError(f"-p {text}: expected KEY=VALUE, as in -p train.steps=3")
    _check_key(key.strip())
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ProfileError(f"-p {text}: the value is not readable as YAML: {error}") from error


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
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")) or "/" in text:
        given = Path(text).expanduser()
        for path in (given, (root or repository_root()) / given):
            if path.is_file():
                return path
        raise ProfileError(f"profile file {text!r} does not exist (looked in {Path.cwd()} and in the clone)")
    folder = (root or repository_root()) / "profiles"
    path = folder / f"{text}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in folder.glob("*.yaml"))
        raise ProfileError(
            f"unknown profile {text!r}{_suggest(text, known)}: expected one of {', '.join(known)}, or a path"
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


def _check_key(key: str) -> None:
    known = dotted_keys()
    if key not in known:
        raise ProfileError(
            f"unknown parameter {key!r}{_suggest(key, known)}: expected one of {', '.join(known)}"
        )


def _suggest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _explain(path: Path, error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key{_suggest(key, dotted_keys())}")
        elif problem["type"] == "missing":
            lines.append(f"{key}: missing")
        elif not key:
            lines.append(problem["msg"].removeprefix("Value error, "))
        else:
            lines.append(f"{key} is {problem['input']!r}: {problem['msg'].removeprefix('Value error, ')}")
    return f"{path}: " + "; ".join(lines)
