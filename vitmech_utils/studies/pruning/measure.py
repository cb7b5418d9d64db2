"""Models that lost heads, held against the one that did not: which heads go, error on the same images, and time."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor, nn
from torch.utils.data import Dataset

from vitmech_utils import tasks
from vitmech_utils.arguments import checked_arguments
from vitmech_utils.artefacts import digest
from vitmech_utils.data.dataset import ChirpDataset
from vitmech_utils.heads.ablation import first_order
from vitmech_utils.heads.costs import Costs, attention_time_share, ceiling, costs, latency, summary
from vitmech_utils.heads.estimates import estimate, fast_dtype
from vitmech_utils.heads.hooks import Head, change_heads
from vitmech_utils.heads.pruning import (
    load_pruned,
    mean_writings,
    prune_heads,
    prune_keeping_means,
    recovering,
    save_pruned,
)
from vitmech_utils.heads.recoveries import belongs, load_recovery, read_recovery
from vitmech_utils.intervals import effect_intervals, mean_interval
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.model.finetune import Recipe, Training, fine_tune
from vitmech_utils.model.regressor import IMAGE_SIZE, ChirpRegressor
from vitmech_utils.model.scores import predict_dataset, read_held_out
from vitmech_utils.profiles import Profile
from vitmech_utils.runs.run_folders import kept_recoveries
from vitmech_utils.statistics import Interval, correlation, effect_sizes
from vitmech_utils.studies.pruning.choices import at_random, in_rounds, least_effect
from vitmech_utils.tasks import Loss, Task

COMPILED_FROM = 10
"""Repeats from which on compiled models are timed too: compiling takes longer than a few passes ever save."""
STANDARDIZED = tasks.squared_error(chance=1.0)
"""Squared error on standardized labels, of which a model that always predicts the mean has an MSE of 1."""

MEANS_SETS = 20
"""Random sets at most that keep their means: as many again as without would take as long again."""

OTHER_REPEATS = 20
"""Repeats at most where a device is not the run's own."""

Images = Mapping[str, Tensor]


@checked_arguments()
def as_dataset(images: Images) -> list[dict[str, Tensor]]:
    """Stacked images as a data set again, item by item."""
    items = zip(images["pixel_values"], images["labels"], strict=True)
    return [{"pixel_values": pixels, "labels": labels} for pixels, labels in items]


@checked_arguments()
def predicted(model: ChirpRegressor, images: Images) -> Float[ndarray, "image target"]:
    """A model's standardized predictions of stacked images."""
    return predict_dataset(model, as_dataset(images))[0]


# Removed, not muted


@checked_arguments()
def removed_by_hand(gone: Collection[Head], layers: int = 3, heads: int = 4) -> dict[str, object]:
    """Remove heads, among them one whole layer, from a small random model, and count by hand what that saves.

    Says whether it predicts what the muted model predicts, and the FLOPs and parameters saved by hand and as counted.
    """
    small = ChirpRegressor.tiny(seed=0, layers=layers, heads=heads).double()
    smaller = prune_heads(small, gone)
    picture = torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0)).double()
    with torch.inference_mode(), change_heads(small, dict.fromkeys(gone, 0.0)):
        same = torch.allclose(smaller(picture).logits, small(picture).logits, rtol=0, atol=1e-6)
    parts = find_blocks(small)
    n, w, d = parts.grid(IMAGE_SIZE) ** 2 + parts.prefix, parts.heads * parts.head_size, parts.head_size
    before, after = costs(small, IMAGE_SIZE), costs(smaller, IMAGE_SIZE)
    return {
        "same": same,
        "flops": (len(gone) * (8 * n * w * d + 4 * n**2 * d), before.flops - after.flops),
        "parameters": (len(gone) * (4 * w * d + 3 * d) + 2 * w, before.parameters - after.parameters),
    }


@checked_arguments()
def through_a_file(
    model: ChirpRegressor, gone: Collection[Head], pixel_values: Float[Tensor, "image 3 height width"]
) -> dict[str, float]:
    """Save `model` without some heads, read it back strictly, and hold it against `model` with these heads muted.

    Returns the file's size in megabytes, and the largest difference of the muted model's predictions from those of the
    model read back (`apart`), and from those of the whole model (`moved`).
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = save_pruned(prune_heads(model, gone), Path(scratch) / "pruned", origin=model)
        megabytes = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
        reloaded = load_pruned(folder).to(model.device)
    pixels = pixel_values.to(model.device)
    with torch.inference_mode():
        whole, read = model(pixels).logits, reloaded(pixels).logits
        with change_heads(model, dict.fromkeys(gone, 0.0)):
            muted = model(pixels).logits
    apart, moved = ((muted - other).abs().max().item() for other in (read, whole))
    return {"megabytes": megabytes, "apart": apart, "moved": moved}


@checked_arguments()
def costs_before_and_after(model: ChirpRegressor, gone: Collection[Head]) -> tuple[Costs, Costs]:
    """The costs of a model, and of the same model without some heads."""
    return costs(model, IMAGE_SIZE), costs(prune_heads(model, gone), IMAGE_SIZE)


@checked_arguments()
def time_shares(
    model: nn.Module,
    pixel_values: Float[Tensor, "image 3 height width"],
    batches: Sequence[int],
    repeats: int,
) -> dict[int, Interval]:
    """The attention's share of the time for so many images at once, which are repeated where there are too few."""
    images = _repeated(pixel_values, max(batches)).to(next(model.parameters()).device)
    return {batch: attention_time_share(model, images[:batch], repeats=min(repeats, 10)) for batch in batches}


@checked_arguments()
def costs_of(models: Mapping[str, nn.Module]) -> dict[str, Costs]:
    """The costs of models, by name."""
    return {name: costs(model, IMAGE_SIZE) for name, model in models.items()}


@checked_arguments()
def work_shares(whole: Costs, time_shares: Mapping[int, Interval]) -> dict[str, float]:
    """The attention's share of the work, by FLOPs and by time for so many images at once."""
    timed = {
        f"time, {batch} image{'s' if batch > 1 else ''} at once": share.value
        for batch, share in time_shares.items()
    }
    return {"FLOPs": whole.attention_share} | timed


@checked_arguments()
def ceilings(shares: Mapping[str, float], removed: float) -> pd.DataFrame:
    """How many times as fast a model can become: work, attention_share, ceiling (a part removed), ceiling_all_heads."""
    return pd.DataFrame(
        [(name, share, ceiling(share, removed), ceiling(share)) for name, share in shares.items()],
        columns=["work", "attention_share", "ceiling", "ceiling_all_heads"],
    )


# Which heads, and at what cost


@dataclass(frozen=True)
class ChoiceImages:
    """Stacked images that heads are chosen on, those that the whole model reads, what it says, and what is left out.

    `left_out` is the share of the squared error that lies on the others.
    """

    images: dict[str, Tensor]
    predictions: Float[ndarray, "image target"]
    left_out: float

    def first(self, count: int) -> dict[str, Tensor]:
        """The first `count` of these images, or all where there are fewer."""
        return {key: values[:count] for key, values in self.images.items()}


@checked_arguments()
def choice_images(model: ChirpRegressor, images: Images) -> ChoiceImages:
    """Of stacked images those that `model` reads (see `well_fitted`)."""
    labels = images["labels"].numpy()
    found = predicted(model, images)
    reads = well_fitted(found, labels)
    squared = ((found - labels) ** 2).mean(1)
    kept = {key: images[key][torch.from_numpy(reads)] for key in ("pixel_values", "labels")}
    return ChoiceImages(kept, found[reads], float(squared[~reads].sum() / squared.sum()))


@checked_arguments(least={"exact": 1, "batch": 1})
def single_effects(
    model: ChirpRegressor, images: Images, exact: int, batch: int, bootstrap: int
) -> pd.DataFrame:
    """What zero ablation of each head alone does to the loss of these images, in percent of it: a table as of `sweep`.

    Estimated to first order on all images, corrected by exact ablations of `exact` of them (of all, where there are no
    more), `batch` at a time.
    """
    count = len(images["labels"])

    def draw(numbers: Int[ndarray, " image"]) -> tuple[Tensor, Tensor]:
        chosen = torch.from_numpy(numbers)
        return images["pixel_values"][chosen], images["labels"][chosen].double()

    found = estimate(
        model, draw, count, min(exact, count), "zero",
        task=model.task, exact_batch=batch, dtype=fast_dtype(model),
    )  # fmt: skip
    return found.losses().table(bootstrap)


@dataclass(frozen=True)
class Choices:
    """Sets of heads that go, by the way of choosing and their number; and all random draws."""

    sets: dict[tuple[str, int], set[Head]]
    draws: list[set[Head]]

    @property
    def named(self) -> dict[str, set[Head]]:
        """The sets by one name each, such as `least effect (18)`."""
        return {f"{name} ({size})": heads for (name, size), heads in self.sets.items()}

    def of_size(self, count: int) -> dict[str, set[Head]]:
        """The sets of `count` heads, by the way of choosing."""
        return {name: heads for (name, size), heads in self.sets.items() if size == count}


@checked_arguments()
def choose(
    model: ChirpRegressor,
    early: Collection[Head],
    single: pd.DataFrame,
    images: Images,
    *,
    random_sets: int,
    rounds: int,
    bootstrap: int,
    seed: int,
) -> Choices:
    """Choose as many heads as there are `early` ones in five ways, two of them at half and twice that number too.

    `single` has the effects of heads one at a time (`single_effects`); the slopes of the loss, at once and in rounds,
    are those of `images`: heads go first whose slope is least in size, on average over the images.
    """
    count, total = len(early), len(find_blocks(model).pairs)

    def estimated(pruned: nn.Module) -> pd.DataFrame:
        pixels, labels = images["pixel_values"], images["labels"].double()
        slopes = first_order(pruned, pixels, labels, "zero", bootstrap=bootstrap)
        return slopes.assign(effect=slopes["importance"])

    sizes = sorted({max(1, count // 2), count, min(2 * count, total - 1)})
    draws = at_random(model, count, random_sets, np.random.default_rng(seed))
    estimate = estimated(model)
    sets = {("layers 1-3", count): set(early)}
    sets |= {("least effect", size): least_effect(single, size, magnitude=True) for size in sizes}
    sets |= {("first order", count): least_effect(estimate, count)}
    for size in sizes[1:]:
        sets["in rounds", size] = in_rounds(model, size, min(rounds, size), estimated)
    return Choices(sets | {("random", count): draws[0]}, draws)


@checked_arguments()
def pruned_models(
    model: ChirpRegressor,
    named: Mapping[str, Collection[Head]],
    means_kept: str,
    early: Collection[Head],
    means: Sequence[Tensor],
) -> dict[str, ChirpRegressor]:
    """The whole model, one without each of the named sets, and `means_kept` without the early heads but their means.

    `means` are those of `kept_means`.
    """
    models = {"unpruned": model} | {name: prune_heads(model, heads) for name, heads in named.items()}
    return models | {means_kept: prune_keeping_means(model, early, means)}


@checked_arguments()
def kept_means(model: ChirpRegressor, images: ChoiceImages) -> list[Tensor]:
    """What every head writes on average on the images that heads are chosen on, layer by layer: [head, size]."""
    return mean_writings(model, images.images["pixel_values"])


@checked_arguments()
def random_trials(
    model: ChirpRegressor,
    draws: Sequence[set[Head]],
    images: Images,
    known: Mapping[str, Float[ndarray, "image target"]],
    bootstrap: int,
    means: Sequence[Tensor] | None = None,
) -> pd.DataFrame:
    """The `trials` of random sets: draw, the columns of `trials`, and the heads removed.

    `known` are the predictions of the whole model (`unpruned`) and, where it has been asked, of the first draw
    (`draw 1`), whose pruned model was held against zero ablation. With `means`, those of `kept_means`, the sets keep
    theirs in the biases.
    """

    def without(heads: set[Head]) -> ChirpRegressor:
        if means is not None:
            return prune_keeping_means(model, heads, means, hold=False)
        return prune_heads(model, heads, pixel_values=images["pixel_values"], hold=False)

    names = {f"draw {place}": heads for place, heads in enumerate(draws, start=1)}
    drawn = {**known}
    drawn |= {name: predicted(without(heads), images) for name, heads in names.items() if name not in known}
    table = trials(drawn, images["labels"].numpy(), "unpruned", bootstrap, task=ChirpRegressor.task).iloc[1:]
    removed = [" ".join(f"L{layer + 1}H{head + 1}" for layer, head in sorted(heads)) for heads in draws]
    return table.rename(columns={"name": "draw"}).assign(removed=removed)


@checked_arguments()
def recover(
    pruned: ChirpRegressor, gone: Iterable[Head], profile: Profile, checkpoints: Path
) -> ChirpRegressor:
    """The model after a short further fine-tuning, merged; resumed where a run was killed.

    Fresh LoRA adapters, the profile's recipe at a third of its learning rate, decorated images that neither the
    training nor the test has seen; the better of two checkpoints is taken. Checkpoints are kept by the heads that are
    gone and the recipe.
    """
    steps, batch = profile.pruning.recovery_steps, profile.pruning.recovery_batch
    recipe = Recipe(
        steps=steps,
        batch_size=batch,
        learning_rate=profile.train.learning_rate / 3,
        warmup_steps=min(10, max(1, steps // 4)),
        every=max(1, steps // 2),
    )
    key = digest([sorted(gone), asdict(recipe)])[:16]
    fresh = ChirpDataset(steps * batch, seed=8, split="train")
    watched = ChirpDataset(2 * batch, seed=9, split="held-out")
    training = fine_tune(recovering(pruned), fresh, watched, recipe, checkpoints / f"recovery-{key}")
    return training.regressor.merged()


@checked_arguments()
def long_recipe(profile: Profile) -> Recipe:
    """The longer recovery's recipe: `pruning.long_recovery_steps` at a third of the training's learning rate."""
    steps = profile.pruning.long_recovery_steps
    return Recipe(
        steps=steps,
        batch_size=profile.pruning.recovery_batch,
        learning_rate=profile.train.learning_rate / 3,
        warmup_steps=min(50, max(1, steps // 4)),
        every=max(1, steps // 10),
        patience=10,
    )


@checked_arguments()
def further_training(
    whole: ChirpRegressor, gone: Collection[Head], profile: Profile, recipe: Recipe, checkpoints: Path
) -> Training:
    """The longer recovery of a model without some heads, its adapter still on it; resumed where it was stopped.

    It sees images that neither the training nor the test has, as many hard ones as the profile's training, and the
    checkpoint is taken that does best on 256 others. `vitmech_utils.recoveries` runs it, and keeps what it learned.
    """
    fresh = ChirpDataset(
        recipe.steps * recipe.batch_size, seed=8, split="train", hard_share=profile.train.hard_share
    )
    watched = ChirpDataset(256, seed=9, split="held-out")
    begun = recovering(prune_heads(whole, gone) if gone else whole)
    return fine_tune(begun, fresh, watched, recipe, checkpoints)


@checked_arguments()
def recovery_folders(root: Path, seed: int) -> dict[str, Path]:
    """Where the longer recoveries of a seed's published adapter lie: the pruned model's, and the control's."""
    return {name: root / folder for name, folder in kept_recoveries(seed).items()}


@checked_arguments()
def recovery_trainings(folders: Mapping[str, Path]) -> list[dict]:
    """The records of their trainings: steps, images_visited, wall_seconds and more; none where one is missing."""
    if not all(folder.is_dir() for folder in folders.values()):
        return []
    return [read_recovery(folder)["training"] for folder in folders.values()]


@checked_arguments()
def long_recoveries(
    whole: ChirpRegressor, folders: Mapping[str, Path], images: Dataset
) -> dict[str, Float[ndarray, "image target"]]:
    """What kept recoveries of this model predict, by name; empty where one is missing or was made from another model.

    `folders` name where `vitmech_utils.recoveries` keeps them, and their answers (see `read_held_out`).
    """
    if not all(belongs(folder, whole) for folder in folders.values()):
        return {}
    return {
        name: read_held_out(load_recovery(folder, whole), images, folder)["predictions"]
        for name, folder in folders.items()
    }


@checked_arguments()
def trial_table(
    predictions: Mapping[str, Float[ndarray, "image target"]],
    recovered: Mapping[str, Float[ndarray, "image target"]],
    labels: Float[ndarray, "image target"],
    *,
    bases: Mapping[str, str],
    named: Mapping[str, Collection[Head]],
    counted: Mapping[str, Costs],
    control: str,
    bootstrap: int,
) -> pd.DataFrame:
    """The `trials` of all models, with where they come from and what they cost.

    `bases` names the model that each of the `recovered` ones was; `control` is the whole model given the same further
    training, against which recovered models stand in the columns effect_same_training, low_.. and high_.. . Besides:
    base, recovered, choice (the base's name without its size), heads (how many are gone), parameters, flops.
    """
    table = trials({**predictions, **recovered}, labels, "unpruned", bootstrap, task=ChirpRegressor.task)
    table["base"] = [bases.get(name, name) for name in table["name"]]
    table["recovered"] = table["name"] != table["base"]
    table["choice"] = table["base"].str.replace(r" \(.*", "", regex=True)
    table["heads"] = [len(named.get(base, ())) for base in table["base"]]
    table["parameters"] = [counted[base].parameters for base in table["base"]]
    table["flops"] = [counted[base].flops for base in table["base"]]
    fair = trials(recovered, labels, control, bootstrap, task=ChirpRegressor.task)[
        ["name", "effect", "low", "high"]
    ]
    fair.columns = ["name", "effect_same_training", "low_same_training", "high_same_training"]
    return table.merge(fair, on="name", how="left")


@checked_arguments()
def trials(
    predictions: Mapping[str, Float[ndarray, "image ..."]],
    labels: ndarray,
    baseline: str,
    bootstrap: int = 2000,
    seed: int = 0,
    task: Task | str | Loss | None = None,
) -> pd.DataFrame:
    """Tabulate models by their predictions of the same images.

    `task` as in `tasks.find`; without one, labels that are numbers mean squared error. Returns one row per model: name,
    mse (or loss), effect (its change from the model `baseline`, in percent or in the task's unit), low, high (paired
    bootstrap over images), for each target T its loss_T or, of squared errors, r_T, r_low_T, r_high_T (Pearson's r and
    its Fisher interval), and images. Raises `ValueError` where the baseline is missing, a model predicts other images,
    or predictions and labels do not fit.
    """
    if baseline not in predictions:
        raise ValueError(
            f"baseline {baseline!r} has no predictions, expected one of {sorted(predictions)}: predict with it too"
        )
    expected = predictions[baseline].shape
    other = [name for name, found in predictions.items() if found.shape != expected]
    if other or len(labels) != expected[0]:
        name = other[0] if other else baseline
        raise ValueError(
            f"{name!r} predicts an array of shape {predictions[name].shape}, expected "
            f"{(len(labels), *expected[1:])}: predict the same images with every model"
        )
    judge = _fitted(task, predictions[baseline], labels)
    losses = {name: _losses(judge, found, labels) for name, found in predictions.items()}
    every, whole = np.stack([found.mean(1) for found in losses.values()]), losses[baseline].mean(1)
    low, high = effect_intervals(every, whole, bootstrap, seed=seed, relative=judge.relative)
    effect = effect_sizes(every, whole, judge.relative)
    rows = []
    for place, (name, found) in enumerate(predictions.items()):
        row = {"name": name, judge.column: every[place].mean()}
        row |= {"effect": effect[place], "low": low[place], "high": high[place]}
        for number, target in enumerate(judge.targets):
            if judge.unit == "MSE" and found.ndim == 2:
                r = correlation(found[:, number], labels.reshape(len(labels), -1)[:, number])
                row |= {f"r_{target}": r.value, f"r_low_{target}": r.low, f"r_high_{target}": r.high}
            else:
                row[f"{judge.column}_{target}"] = losses[name][:, number].mean()
        rows.append(row | {"images": len(labels)})
    return pd.DataFrame(rows)


@checked_arguments()
def loss_change(
    predicted: Float[ndarray, "image ..."],
    baseline: Float[ndarray, "image ..."],
    labels: ndarray,
    bootstrap: int = 2000,
    seed: int = 0,
    task: Task | str | Loss | None = None,
) -> Interval:
    """By how much the loss of the same images grows from one model's predictions to another's, in its own unit.

    Other than a percentage it can be held against that of other images, on which the baseline's loss is another one.
    The interval is a paired bootstrap over images; `task` as in `trials`.
    """
    judge = _fitted(task, baseline, labels)
    change = _losses(judge, predicted, labels) - _losses(judge, baseline, labels)
    return mean_interval(change.mean(1), bootstrap, seed=seed)


@checked_arguments()
def well_fitted(
    predicted: Float[ndarray, "image ..."], labels: ndarray, task: Task | str | Loss = STANDARDIZED
) -> Bool[ndarray, " image"]:
    """The images that a model reads: its loss, over the targets, is below that of a guess (`task.chance`).

    The others hold most of the loss however few they are. Where they are no exception, but half of the images or more,
    no image is left out. Raises `ValueError` for a task without `chance`.
    """
    judge = _fitted(task, predicted, labels)
    if judge.chance is None:
        raise ValueError(
            f"the task {judge.name!r} does not give the loss of a guess, expected one with `chance`"
        )
    read = _losses(judge, predicted, labels).mean(1) < judge.chance
    return read if 2 * read.sum() > len(read) else np.ones_like(read)


def _fitted(task: Task | str | Loss | None, predicted: ndarray, labels: ndarray) -> Task:
    truth = torch.as_tensor(labels)
    return tasks.find(task, labels=truth).fitted(torch.as_tensor(predicted), truth)


def _losses(task: Task, predicted: ndarray, labels: ndarray) -> Float[ndarray, "image target"]:
    return task(torch.as_tensor(predicted), torch.as_tensor(labels)).numpy()


@checked_arguments()
def timings(
    models: Mapping[str, nn.Module],
    pixel_values: Float[Tensor, "image 3 height width"],
    repeats: int,
    *,
    large: Sequence[str],
    compiled: Sequence[str],
    batch: int = 32,
) -> tuple[pd.DataFrame, str]:
    """Time all models image by image, those named `large` in batches too, those named `compiled` once more compiled.

    The models go to the device of `pixel_values`, which are repeated where there are fewer than `batch` of them.
    Returns the rows of `latency` with a column device, and why no compiled model was timed ("" where some were):
    fewer than `COMPILED_FROM` repeats, or a machine that cannot compile.
    """
    images = _repeated(pixel_values, batch)
    placed = {name: model.to(images.device) for name, model in models.items()}
    parts = [
        latency(placed, images, (1,), repeats),
        latency({name: placed[name] for name in large}, images, (batch,), repeats, warm_up=1),
    ]
    missing = f"compiling takes longer than the {repeats} repeats of this profile could ever gain"
    if repeats >= COMPILED_FROM:
        rows, missing = _compiled({name: placed[name] for name in compiled}, images, (1, batch), repeats)
        parts += rows
    return pd.concat(parts, ignore_index=True).assign(device=images.device.type), missing


def _repeated(pixel_values: Tensor, count: int) -> Tensor:
    """`count` images: as many of these, from the first again where there are fewer."""
    return pixel_values.repeat(-(-count // len(pixel_values)), 1, 1, 1)[:count]


@checked_arguments()
def timed_on(
    devices: Sequence[torch.device],
    models: Mapping[str, nn.Module],
    muted: Collection[Head],
    pixel_values: Float[Tensor, "image 3 height width"],
    repeats: int,
    **settings: object,
) -> tuple[pd.DataFrame, str]:
    """The `timings` of models on several devices, and of the unpruned one with heads `muted` by a hook (`masked`).

    The last device is the run's own, where models stay; others take at most `OTHER_REPEATS` repeats. Returns the rows
    of all devices, and why no compiled model was timed on the last one.
    """
    masked = copy.deepcopy(models["unpruned"])
    tables, missing = [], ""
    with change_heads(masked, dict.fromkeys(muted, 0.0)):
        for device in devices:
            turns = repeats if device == devices[-1] else min(repeats, OTHER_REPEATS)
            table, missing = timings({**models, "masked": masked}, pixel_values.to(device), turns, **settings)
            tables.append(table)
    return pd.concat(tables, ignore_index=True), missing


@checked_arguments()
def summaries(table: pd.DataFrame, bootstrap: int) -> pd.DataFrame:
    """The `summary` of every device's timings, with a column device."""
    return pd.concat(
        [
            summary(part, "unpruned", bootstrap).assign(device=device)
            for device, part in table.groupby("device", sort=False)
        ],
        ignore_index=True,
    )


@checked_arguments()
def error_and_time(table: pd.DataFrame, times: pd.DataFrame) -> pd.DataFrame:
    """Join trials with eager times on one device: a row per model and batch, with milliseconds per image.

    `pareto_front` says which models no other one beats at that batch size.
    """
    eager = times.rename(columns={"model": "base", "low": "time_from", "high": "time_to"})
    plane = table.merge(eager, on="base")
    for name, column in (("milliseconds", "seconds"), ("time_low", "time_from"), ("time_high", "time_to")):
        plane[name] = 1e3 * plane[column] / plane["batch"]
    plane["pareto_front"] = False
    for _, part in plane.groupby("batch"):
        front = pareto_front(part["milliseconds"].to_numpy(), part["mse"].to_numpy())
        plane.loc[part.index, "pareto_front"] = front
    return plane[
        ["name", "base", "choice", "heads", "recovered", "images", "batch", "effect", "low", "high", "mse",
         "milliseconds", "time_low", "time_high", "speedup", "speedup_low", "speedup_high", "pareto_front"]
    ]  # fmt: skip


@checked_arguments()
def speedups(eager: pd.DataFrame, model: str) -> dict[int, Interval]:
    """How many times as fast a model is, by batch size."""
    rows = eager[eager["model"] == model].itertuples()
    return {row.batch: Interval(row.speedup, row.speedup_low, row.speedup_high) for row in rows}


@checked_arguments()
def effect_interval(row: pd.Series, suffix: str = "") -> Interval:
    """An effect with its interval, from a row of `trial_table`."""
    return Interval(*(float(row[f"{key}{suffix}"]) for key in ("effect", "low", "high")))


@checked_arguments()
def added_up(single: pd.DataFrame, heads: Collection[Head]) -> float:
    """The effects of some heads one at a time, added up (percent); `single` is a table of `sweep`."""
    wanted = [pair in heads for pair in zip(single["layer"], single["head"], strict=True)]
    return float(single.loc[wanted, "effect"].sum())


@checked_arguments()
def choice_control(
    sides: Mapping[str, tuple[Mapping[str, Float[ndarray, "image target"]], Float[ndarray, "image target"]]],
    layers: str,
    chosen: str,
) -> dict[str, dict[str, Interval]]:
    """Whether a choice looks better on the images that it was made on: changes of the MSE on several sets of images.

    `sides` has the predictions of `unpruned`, of the model without early `layers` and of the `chosen` one, and labels.
    """
    asked = {
        "heads of least effect": (chosen, "unpruned"),
        "layers 1-3": (layers, "unpruned"),
        "the first less the second": (chosen, layers),
    }
    return {
        what: {
            side: loss_change(found[of], found[against], labels) for side, (found, labels) in sides.items()
        }
        for what, (of, against) in asked.items()
    }


def _compiled(
    models: Mapping[str, nn.Module], images: Tensor, batches: Sequence[int], repeats: int
) -> tuple[list[pd.DataFrame], str]:
    """Timings batch by batch, or none and the reason. Torch forgets its work in between: it would keep only eight
    versions of one function, and run others uncompiled without a word."""
    rows = []
    try:
        for batch in batches:
            torch.compiler.reset()
            rows.append(latency(models, images, (batch,), repeats, compiled=True))
    except (RuntimeError, OSError) as error:  # what torch raises where there is no compiler, or an unfit one
        return [], f"this machine cannot compile them ({type(error).__name__}); a C++ compiler is needed"
    finally:
        torch.compiler.reset()
    return rows, ""


@checked_arguments()
def pareto_front(
    seconds: Float[ndarray, " model"], error: Float[ndarray, " model"]
) -> Bool[ndarray, " model"]:
    """Which models no other one beats: none is as fast and as exact as they are, and better in one of the two."""
    no_slower = seconds[:, None] <= seconds[None]
    no_worse = error[:, None] <= error[None]
    better = (seconds[:, None] < seconds[None]) | (error[:, None] < error[None])
    return ~(no_slower & no_worse & better).any(0)
