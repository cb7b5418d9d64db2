"""Fine-tuning on real chirps, five-fold by recording, against a linear probe on frozen features and the mean.

    python -m vitmech_utils.studies.recordings.folds --out published/adapters/recordings

trains what is missing of the five adapters that chapter 11 shows, on the decorated seizure spectrograms; a stopped
training goes on from its last checkpoint.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from vitmech_utils.arguments import checked_arguments, exit_status
from vitmech_utils.artefacts import write_atomically
from vitmech_utils.data.chirp_dataset import as_pixels, standardize
from vitmech_utils.data.chirps import MAX_FREQUENCY
from vitmech_utils.data.recordings import RecordingError
from vitmech_utils.data.recordings.seizures import (
    AXES,
    ColourScale,
    Seizures,
    check_folds,
    colour_scale,
    folds,
)
from vitmech_utils.model.adapter_files import LARGEST_TRAINING, TRAINING, read_object
from vitmech_utils.model.backbones import DEFAULT, BackboneError
from vitmech_utils.model.finetune import Recipe, Training, computes_in_bfloat16, fine_tune
from vitmech_utils.model.lora import AdapterError
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.model.scores import score
from vitmech_utils.profiles import repository_root
from vitmech_utils.runs.manifests import code_version, package_versions
from vitmech_utils.studies.recordings.sources import seizures

FOLDS = 5
HELD_BACK = 6  # one in so many of the training recordings chooses the checkpoint and the probe's penalty
ANSWERS = "answers.safetensors"
PUBLISHED = Recipe(steps=60, batch_size=16, learning_rate=5e-4, every=12, patience=2, seed=0)
HEAD_STEPS = 400
HEAD_RATE = 1e-3
PENALTIES = tuple(10.0**power for power in range(-2, 7))


@dataclass(frozen=True)
class RealImages:
    """Pictures of one kind as a batch: pixels, region maps, labels on the recipe's axes, and where each is from."""

    pixel_values: Float[Tensor, "image 3 height width"]
    regions: Tensor
    labels: Float[Tensor, "image target"]
    names: tuple[str, ...]
    recordings: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def at(self, chosen: Int[ndarray, " image"]) -> "RealImages":
        """Some of them, by place."""
        places = [int(place) for place in chosen]
        tensors = (values[places] for values in (self.pixel_values, self.regions, self.labels))
        names, recordings = (
            tuple(values[place] for place in places) for values in (self.names, self.recordings)
        )
        return RealImages(*tensors, names, recordings)

    def batch(self) -> dict[str, Tensor]:
        """As `attention_statistics` takes images."""
        return {"pixel_values": self.pixel_values, "regions": self.regions, "labels": self.labels}


@checked_arguments()
def real_images(found: Seizures, scale: ColourScale | None) -> RealImages:
    """All pictures, with a `scale` drawn as decorated figures, without one as they are.

    Labels are start time, lower and upper frequency of the first box, standardized as the recipe's are: where a time
    or frequency lies on its axis, the recipe's axis has the second or hertz that it stands for.
    """
    drawn = [picture.plain() if scale is None else picture.decorated(scale) for picture in found.pictures]
    labels = np.stack([on_recipe_axes(picture.axes_labels) for picture in found.pictures])
    return RealImages(
        torch.stack([as_pixels(drawing.image) for drawing in drawn]),
        torch.stack([torch.from_numpy(np.ascontiguousarray(drawing.regions)) for drawing in drawn]),
        torch.from_numpy(standardize(labels).astype(np.float32)),
        tuple(picture.name for picture in found.pictures),
        tuple(found.recordings),
    )


@checked_arguments()
def on_recipe_axes(labels: Float[ndarray, "*image 3"]) -> Float[ndarray, "*image 3"]:
    """Seconds and hertz of the seizures' axes as those of the recipe's at the same place (0 to 60 s, 0 to 100 Hz)."""
    time, low, high = np.moveaxis(labels, -1, 0)
    hertz = [(value - AXES.low) / (AXES.high - AXES.low) * MAX_FREQUENCY for value in (low, high)]
    return np.stack([time, *hertz], axis=-1)


@checked_arguments()
def on_own_axes(labels: Float[ndarray, "*image 3"]) -> Float[ndarray, "*image 3"]:
    """The inverse of `on_recipe_axes`."""
    time, low, high = np.moveaxis(labels, -1, 0)
    hertz = [AXES.low + value / MAX_FREQUENCY * (AXES.high - AXES.low) for value in (low, high)]
    return np.stack([time, *hertz], axis=-1)


@dataclass(frozen=True)
class Split:
    """Places of the images that a fold is trained on, chosen by, and tested on; no recording is in two of them."""

    train: Int[ndarray, " trained"]
    chosen_by: Int[ndarray, " held_back"]
    test: Int[ndarray, " tested"]


@checked_arguments()
def split(recordings: Sequence[str], fold: int, count: int = FOLDS, seed: int = 0) -> Split:
    """The parts of one fold (0-based) of `count`. Raises ValueError for a fold that there is none of."""
    if not 0 <= fold < count:
        raise ValueError(f"fold is {fold}, expected 0 to {count - 1}")
    parts = folds(recordings, count, seed)
    rest = np.flatnonzero(parts != fold)
    own = np.unique(np.asarray(recordings)[rest])
    held_back = set(
        np.random.default_rng([seed, fold]).permutation(own)[: max(1, len(own) // HELD_BACK)].tolist()
    )
    back = np.array([recordings[place] in held_back for place in rest])
    found = Split(rest[~back], rest[back], np.flatnonzero(parts == fold))
    roles = np.zeros(len(recordings), dtype=np.int64)
    roles[found.chosen_by], roles[found.test] = 1, 2
    check_folds(recordings, roles)
    return found


class _Images(Dataset):
    """Images with labels in standard deviations of those that are trained on."""

    def __init__(self, images: RealImages, labels: Tensor):
        self.pixel_values, self.labels = images.pixel_values, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        return {"pixel_values": self.pixel_values[place], "labels": self.labels[place]}


@dataclass(frozen=True)
class Fold:
    """A fold's fine-tuned regressor, the record of its training, and its answers (standardized) on its test images."""

    regressor: ChirpRegressor
    training: Training
    answers: Float[ndarray, "image target"]
    parts: Split


@checked_arguments()
def train_fold(
    images: RealImages,
    fold: int,
    recipe: Recipe,
    checkpoints: Path,
    backbone: str | PreTrainedModel = DEFAULT,
    device: torch.device | str = "cpu",
    count: int = FOLDS,
    seed: int = 0,
) -> Fold:
    """Fine-tune a fresh adapter on the images of all folds but one, and read those of that one.

    The head is first fitted to frozen features, then adapter and head together (Kumar et al. 2022). The checkpoint is
    chosen by recordings that are held back of the training's own. While it is trained, labels are standardized by those
    it is trained on; the finished head gives the recipe's standardized labels.
    """
    parts = split(images.recordings, fold, count, seed)
    train, chosen_by, test = (images.at(part) for part in (parts.train, parts.chosen_by, parts.test))
    mean, spread = train.labels.mean(0), train.labels.std(0).clamp_min(1e-3)
    regressor = ChirpRegressor.build(backbone, seed=seed).to(device)
    scaled = [(part.labels - mean) / spread for part in (train, chosen_by)]
    fit_head(regressor, [features(regressor, part) for part in (train, chosen_by)], scaled, seed)
    training = fine_tune(
        regressor,
        _Images(train, scaled[0]),
        _Images(chosen_by, scaled[1]),
        recipe,
        checkpoints,
        workers=0,
    )
    last = regressor.head[-1]
    with torch.no_grad():
        last.weight.mul_(spread.to(last.weight)[:, None])
        last.bias.mul_(spread.to(last.bias)).add_(mean.to(last.bias))
    return Fold(regressor, training, read(regressor, test), parts)


@checked_arguments()
def read(regressor: nn.Module, images: RealImages, batch: int = 16) -> Float[ndarray, "image target"]:
    """A regressor's standardized answers."""
    device = next(regressor.parameters()).device
    with torch.inference_mode():
        found = [regressor(part.to(device)).logits.float().cpu() for part in images.pixel_values.split(batch)]
    return torch.cat(found).numpy()


@checked_arguments()
def features(
    regressor: ChirpRegressor, images: RealImages, batch: int = 16
) -> Float[Tensor, "image feature"]:
    """What the head reads: the CLS token of the last hidden state."""
    with torch.inference_mode():
        found = [
            regressor.backbone(pixel_values=part.to(regressor.device)).last_hidden_state[:, 0].float().cpu()
            for part in images.pixel_values.split(batch)
        ]
    return torch.cat(found)


@checked_arguments()
def fit_head(
    regressor: ChirpRegressor,
    found: Sequence[Tensor],
    labels: Sequence[Tensor],
    seed: int = 0,
) -> int:
    """Fit the head to features [image, feature] in place, and keep the step that reads the second set best.

    Returns that step. `found` and `labels` are those of the images trained on, and those chosen by.
    """
    head = regressor.head
    device = regressor.device
    (x, others), (y, truth) = ([part.clone().to(device) for part in pair] for pair in (found, labels))
    optimizer = torch.optim.AdamW(head.parameters(), lr=HEAD_RATE, weight_decay=0.1)
    best, kept, at = np.inf, {}, 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in range(HEAD_STEPS):
            with torch.no_grad():
                loss = float(nn.functional.mse_loss(head(others), truth))
            if loss < best:
                best, at = loss, step
                kept = {name: value.clone() for name, value in head.state_dict().items()}
            optimizer.zero_grad()
            nn.functional.mse_loss(head(x), y).backward()
            optimizer.step()
    head.load_state_dict(kept)
    optimizer.zero_grad(set_to_none=True)
    return at


@checked_arguments()
def probe(
    found: Float[ndarray, "image feature"], labels: Float[ndarray, "image target"], parts: Split
) -> tuple[Float[ndarray, "target feature"], Float[ndarray, " target"]]:
    """Weights and biases of a linear probe (ridge regression), its penalty chosen as a fold's checkpoint is."""
    x, y = found[parts.train].astype(np.float64), labels[parts.train].astype(np.float64)
    centre, mean = x.mean(0), y.mean(0)
    left, sizes, right = np.linalg.svd(x - centre, full_matrices=False)
    loads = left.T @ (y - mean)

    def weights(penalty: float) -> Float[ndarray, "target feature"]:
        return ((sizes / (sizes**2 + penalty))[:, None] * loads).T @ right

    spread = y.std(0).clip(1e-3)
    tried = {
        penalty: float(
            np.mean(
                (
                    ((found[parts.chosen_by] - centre) @ weights(penalty).T + mean - labels[parts.chosen_by])
                    / spread
                )
                ** 2
            )
        )
        for penalty in PENALTIES
    }
    best = weights(min(tried, key=tried.__getitem__))
    return best, mean - best @ centre


@checked_arguments()
def save_fold(
    folder: Path, fold: int, done: Fold, images: RealImages, recipe: Recipe, **more: object
) -> Path:
    """Write a fold's adapter with the record of its training and its answers beside it."""
    test = images.at(done.parts.test)
    device = done.regressor.device
    bfloat16 = recipe.precision == "bfloat16" or (recipe.precision == "auto" and computes_in_bfloat16(device))
    steps = int(done.training.history["step"].max())
    record = {
        "figures": "recordings",
        "fold": fold,
        "folds": FOLDS,
        "seed": recipe.seed,
        "device": device.type,
        "steps": steps,
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
        "images_visited": steps * recipe.batch_size,
        "distinct_images": len(done.parts.train),
        "wall_seconds": round(done.training.seconds, 1),
        "precision": "bfloat16" if bfloat16 else "float32",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "trained_on": sorted({images.recordings[place] for place in done.parts.train}),
        "chosen_by": sorted({images.recordings[place] for place in done.parts.chosen_by}),
        "tested": list(test.names),
        "history": done.training.history.to_dict("records"),
        "score": score(done.answers, test.labels.numpy()).to_dict("records"),
        **more,
    }
    done.regressor.save(folder, training=record)
    write_atomically(folder / ANSWERS, lambda path: save_file({"answers": done.answers}, path))
    return folder


@dataclass(frozen=True)
class KeptFold:
    """A published fold: where it lies, its answers (standardized) by picture, and the recordings it never saw."""

    folder: Path
    answers: dict[str, Float[ndarray, " target"]]
    trained_on: frozenset[str]
    chosen_by: frozenset[str]
    seconds: float
    steps: int

    def parts(self, images: RealImages) -> Split:
        """Places of some pictures by what they were in this fold; those it was trained on choose where no others do."""
        train, back = (
            np.array([at for at, name in enumerate(images.recordings) if name in group], dtype=np.int64)
            for group in (self.trained_on, self.chosen_by)
        )
        test = np.array([at for at, name in enumerate(images.names) if name in self.answers], dtype=np.int64)
        return Split(train, back if len(back) else train, test)

    def regressor(self) -> ChirpRegressor:
        """The fine-tuned model."""
        return ChirpRegressor.load(self.folder)


@checked_arguments(AdapterError)
def read_folds(folder: Path, recordings: dict[str, str], count: int = FOLDS) -> list[KeptFold]:
    """The published folds, in order; `recordings` names the recording of every picture.

    Raises AdapterError, which names the folder: where a fold is missing or its record damaged, where answers are
    missing, of another shape or not finite, where a picture was tested in two folds or in none, or where a recording
    that a fold was tested on is among those that it was trained on or chosen by.
    """
    found, tested = [], {}
    for number in range(count):
        place = folder / f"fold-{number}"
        if not (place / ANSWERS).is_file():
            raise AdapterError(
                f"{place}: no fold, it lacks {ANSWERS}; python -m {__name__} trains what is missing"
            )
        record = read_object(place / TRAINING, LARGEST_TRAINING, unknown=True)
        try:
            names = [str(name) for name in record["tested"]]
            trained_on, chosen_by = (frozenset(map(str, record[key])) for key in ("trained_on", "chosen_by"))
            answers = load_file(place / ANSWERS)["answers"]
            by_name = dict(zip(names, answers, strict=True))
            seconds, steps = float(record["wall_seconds"]), int(record["steps"])
        except (KeyError, TypeError, ValueError, OSError, SafetensorError) as error:
            raise AdapterError(f"{place}: damaged fold ({error!r}); restore it, or train it again") from error
        if answers.shape != (len(names), 3) or not np.isfinite(answers).all():
            raise AdapterError(
                f"{place}: {ANSWERS} has shape {answers.shape}, expected finite ({len(names)}, 3)"
            )
        if unknown := sorted(set(names) - set(recordings)):
            raise AdapterError(f"{place}: it was tested on {unknown[0]}, which is not among the pictures")
        if leaked := sorted({recordings[name] for name in names} & (trained_on | chosen_by)):
            raise AdapterError(
                f"{place}: recording {leaked[0]} is in its test and in its training, expected each in one"
            )
        for name in names:
            if name in tested:
                raise AdapterError(
                    f"{place}: {name} was tested in fold {tested[name]}, too, expected each once"
                )
            tested[name] = number
        found.append(KeptFold(place, by_name, trained_on, chosen_by, seconds, steps))
    try:
        check_folds([recordings[name] for name in tested], np.array(list(tested.values()), dtype=np.int64))
    except ValueError as error:
        raise AdapterError(f"{folder}: {error}") from error
    if missing := sorted(set(recordings) - set(tested)):
        raise AdapterError(f"{folder}: {missing[0]} was tested in no fold, expected every picture in one")
    return found


@checked_arguments()
def rehearse(
    images: RealImages, checkpoints: Path, backbone: str, device: torch.device | str
) -> dict[str, float]:
    """Two steps of a fold's training, to show that it runs: seconds, steps, images (trained on)."""
    recipe = dataclasses.replace(PUBLISHED, steps=2, batch_size=2, every=2, warmup_steps=0)
    done = train_fold(images, 0, recipe, checkpoints, backbone, device)
    return {"seconds": done.training.seconds, "steps": 2.0, "images": float(len(done.parts.train))}


def main(arguments: list[str] | None = None) -> int:
    """Train what is missing of the folds; the exit status is 0 when all are there."""
    parser = argparse.ArgumentParser(prog=f"python -m {__name__}", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder for the folds")
    parser.add_argument("--steps", type=int, default=PUBLISHED.steps, help="of each training")
    options = parser.parse_args(arguments)
    return exit_status(
        "folds", lambda: _made(options), (RecordingError, AdapterError, BackboneError, ValueError)
    )


def _made(options: argparse.Namespace) -> int:
    found = seizures()
    images = real_images(found, colour_scale(picture.image for picture in found.pictures))
    recipe = dataclasses.replace(PUBLISHED, steps=options.steps)
    for fold in range(FOLDS):
        folder = options.out / f"fold-{fold}"
        if (folder / ANSWERS).is_file():
            continue
        done = train_fold(images, fold, recipe, options.out / ".checkpoints" / folder.name)
        more = {"packages": package_versions(), "code": code_version(repository_root())}
        save_fold(folder, fold, done, images, recipe, **more)
        print(folder, done.training.history.iloc[-1].to_dict(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
