"""Fine-tuning of the chirp regressor with transformers' Trainer, resumable."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset, Subset
from tqdm import tqdm
from transformers import EarlyStoppingCallback, SchedulerType, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME

from vitmech_utils.arguments import check_fields, checked_arguments
from vitmech_utils.artefacts import file_hash, folder_hashes, write_json
from vitmech_utils.data.dataset import ChirpDataset
from vitmech_utils.data.kept import KeptImages
from vitmech_utils.devices import drawing_workers
from vitmech_utils.model.half_attention import keeping_weights
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.model.scores import correlations
from vitmech_utils.own_folders import open_to_umask
from vitmech_utils.profiles import Profile, Train

ELAPSED = "elapsed.json"
SCHEDULES = tuple(schedule.value for schedule in SchedulerType)
PRECISIONS = ("auto", "float32", "bfloat16")
_CHECKPOINT = re.compile(r"checkpoint-[0-9]+")
WARM = 32
"""Images that a training draws before its workers start, which then inherit what all figures share."""


@dataclass(frozen=True)
class Recipe:
    """How to fine-tune; the study's published values are `Recipe.study()`.

    `steps` of `batch_size` images each; `schedule` is a transformers scheduler name (`cosine`, `constant`,
    `reduce_lr_on_plateau`); `precision` is `float32`, `bfloat16`, or `auto`: bfloat16 where the processor computes in
    it. Evaluation and checkpoints come every `every` steps; `patience` evaluations without gain end the training.
    Raises ValueError for numbers out of range, and for other schedules and precisions.
    """

    steps: int
    batch_size: int = 32
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup_steps: int = 10
    weight_decay: float = 0.01
    every: int = 100
    patience: int = 4
    precision: str = "auto"
    seed: int = 42

    def __post_init__(self) -> None:
        check_fields(self)
        for name, least in {
            "steps": 1, "batch_size": 1, "every": 1, "patience": 1, "warmup_steps": 0, "seed": 0, "weight_decay": 0,
        }.items():  # fmt: skip
            if not getattr(self, name) >= least:
                raise ValueError(f"Recipe.{name} is {getattr(self, name)!r}, expected at least {least}")
        if not 0 < self.learning_rate <= 1:
            raise ValueError(f"Recipe.learning_rate is {self.learning_rate!r}, expected a number in (0, 1]")
        for name, known in {"schedule": SCHEDULES, "precision": PRECISIONS}.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"Recipe.{name} is {getattr(self, name)!r}, expected one of {', '.join(known)}"
                )

    @classmethod
    @checked_arguments()
    def of(cls, train: Train, steps: int | None = None) -> Recipe:
        """The recipe that a profile's `train` section asks for; `steps` for one cycle of it alone."""
        steps = steps or train.steps
        return cls(
            steps=steps,
            batch_size=train.batch_size,
            learning_rate=train.learning_rate,
            schedule=train.schedule,
            warmup_steps=min(10, steps // 2),
            every=train.every,
            patience=train.patience,
            precision=train.precision,
        )

    @classmethod
    @checked_arguments()
    def study(cls, images: int = 80_000) -> Recipe:
        """arXiv 2503.22713: at most 100 epochs, learning rate 1e-4 reduced on plateaus, patience 4 epochs."""
        epoch = images // 32
        return cls(
            steps=100 * epoch, learning_rate=1e-4, schedule="reduce_lr_on_plateau", warmup_steps=0, every=epoch
        )  # fmt: skip


@dataclass(frozen=True)
class Training:
    """A finished training: the best regressor, its history, and its wall time over all its parts, in seconds.

    The history's columns are step, train_loss, held_out_loss, learning_rate and one per metric, as r_<target>.
    """

    regressor: ChirpRegressor
    history: pd.DataFrame
    seconds: float

    def record(self, profile: Profile, seed: int, **settings: object) -> dict:
        """What is kept beside an adapter of how it was made; `settings` are those of its recipe, and its scores."""
        return {
            "profile": profile.name,
            "seed": seed,
            "device": self.regressor.device.type,
            "steps": int(self.history["step"].max()),
            "wall_seconds": round(self.seconds, 1),
            "history": self.history.to_dict("records"),
            **settings,
        }


def recipe_settings(profile: Profile) -> dict:
    """The settings of `fine_tune_profile` that a training record holds: two trainings that share them are matched."""
    train = profile.train
    return {
        "batch_size": train.batch_size,
        "restart": train.restart if train.has_restart else 0,
        "distinct_images": train.images,
    }


class _Clock(TrainerCallback):
    """Wall time, kept in each checkpoint, so that a resumed training counts the parts before the interruption.

    It is the last file that a checkpoint gets, beside the hashes of the others, and so tells whole checkpoints from
    those that were cut short.
    """

    def __init__(self, resumed_from: Path | None):
        self.before = json.loads((resumed_from / ELAPSED).read_text())["seconds"] if resumed_from else 0.0
        self.start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.start

    def on_save(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
        (folder / TRAINING_ARGS_NAME).unlink(
            missing_ok=True
        )  # a pickle of any kind of object, which nobody reads
        open_to_umask(folder)
        write_json(folder / ELAPSED, {"seconds": self.seconds, "files": folder_hashes(folder)})


class _Progress(TrainerCallback):
    """A plain text bar, removed when the training ends."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc="fine-tuning",
            unit="step",
            leave=False,
            disable=not state.is_world_process_zero,
        )

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(state.global_step - self.bar.n)

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


@checked_arguments()
def fine_tune_profile(
    profile: Profile,
    seed: int,
    checkpoints: Path | str,
    device: torch.device | str,
    figures: str = "published",
    workers: int | None = None,
    kept: Path | str | None = None,
) -> Training:
    """Fine-tune the profile's backbone from one seed on fresh chirps, as chapter 02 and `vitmech_utils.train` do.

    `seed` sets the initial weights and the training images; every seed is judged on the same validation images.
    `figures` names their style: trainings that differ in it alone see the same chirps, noise included, in one order.

    With a `train.restart` before its end the training has two cycles, each with checkpoints in a folder of its own:
    after that many steps the schedule and the optimizer begin again from the best weights so far, on images not seen
    yet (a warm restart; Loshchilov & Hutter 2017).
    """
    train = profile.train
    regressor = ChirpRegressor.build(profile.backbone, seed=seed).to(device)
    images = ChirpDataset(train.images, seed=seed, style=figures, split="train", hard_share=train.hard_share)
    judged = min(train.eval_images, train.validation_images)
    validation = ChirpDataset(judged, seed=1, style=figures, split="held-out")
    if not train.has_restart:
        if kept is not None:
            images = KeptImages(images, kept)
        return fine_tune(regressor, images, validation, Recipe.of(train), checkpoints, workers=workers)
    cycles = []
    for first, last in ((0, train.restart), (train.restart, train.steps)):
        part = Subset(images, range(first * train.batch_size, last * train.batch_size))
        folder = Path(checkpoints, f"from-step-{first}")
        recipe = Recipe.of(train, last - first)
        cycles.append(fine_tune(regressor, part, validation, recipe, folder, workers=workers))
    first, second = cycles
    history = pd.concat(
        [first.history, second.history.assign(step=lambda rows: rows["step"] + train.restart)]
    )
    return Training(regressor, history.reset_index(drop=True), first.seconds + second.seconds)


@checked_arguments()
def fine_tune(
    regressor: ChirpRegressor,
    train: Dataset,
    held_out: Dataset,
    recipe: Recipe,
    checkpoints: Path | str,
    metrics: Callable[[np.ndarray, np.ndarray], dict[str, float]] | None = None,
    workers: int | None = None,
) -> Training:
    """Train the adapter and head in place and return the best checkpoint's weights, judged on `held_out`.

    With as many training images as `steps * batch_size`, every image is seen once. A call that finds checkpoints in
    the folder `checkpoints` goes on from the last one; the result is the uninterrupted one's. Weights are safetensors.
    The states of optimizer, schedule and random numbers are the trainer's own files, which `torch.save` pickles: they
    are read as tensors and plain values alone, and only where their hashes are those noted when they were written.
    `metrics` names what the
    history records of held-out predictions and labels; by default their `correlations`. `workers` processes draw images
    (see `drawing_workers`).

    It trains where the regressor is: on the processor, or on one GPU. Under `accelerate launch` each process takes
    its share of every batch, so `batch_size` keeps its meaning; it must be a multiple of the number of processes.
    """
    if regressor.is_merged:
        raise ValueError("this regressor is merged: there is no adapter to train; use ChirpRegressor.build")
    workers = drawing_workers(regressor.device) if workers is None else workers
    if workers:
        for index in range(min(WARM, len(train))):
            train[index]
    bfloat16 = recipe.precision == "bfloat16" or (
        recipe.precision == "auto" and computes_in_bfloat16(regressor.device)
    )
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup_steps,
        weight_decay=recipe.weight_decay,
        bf16=bfloat16,
        use_cpu=regressor.device.type == "cpu",
        eval_strategy="steps",
        save_strategy="steps",
        logging_strategy="steps",
        eval_steps=recipe.every,
        save_steps=recipe.every,
        logging_steps=max(1, recipe.every // 10),
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        label_names=["labels"],
        dataloader_num_workers=workers,
        report_to=[],
        disable_tqdm=True,
        log_level="error",
        seed=recipe.seed,
        data_seed=recipe.seed,
        ddp_find_unused_parameters=False,
    )
    arguments.per_device_train_batch_size = _share(recipe.batch_size, arguments.world_size)
    arguments._n_gpu = min(1, arguments.n_gpu)  # else Trainer would put a batch on every GPU it sees
    metrics = metrics or partial(correlations, targets=regressor.task.targets)
    last = _last_whole_checkpoint(Path(checkpoints), put_aside=arguments.process_index == 0)
    clock = _Clock(last)
    trainer = _ComposingTrainer(
        model=regressor,
        args=arguments,
        train_dataset=train,
        eval_dataset=held_out,
        compute_metrics=lambda output: metrics(output.predictions, output.label_ids),
        callbacks=[EarlyStoppingCallback(recipe.patience), _Progress(), clock],
    )
    trainer.pop_callback(
        next(type(c) for c in trainer.callback_handler.callbacks if "Printer" in type(c).__name__)
    )
    with keeping_weights() if bfloat16 else nullcontext():
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    return Training(_unwrapped(regressor).eval(), _history(trainer.state.log_history), clock.seconds)


def _unwrapped(regressor: ChirpRegressor) -> ChirpRegressor:
    """The regressor without what accelerate wraps around its `forward`: it and its copies would predict in bfloat16."""
    for name in ("forward", "_original_forward"):
        vars(regressor).pop(name, None)
    return regressor


class _ComposingTrainer(Trainer):
    """A Trainer that puts pictures together where they are trained on, if its images come in parts."""

    def _prepare_inputs(self, inputs):
        inputs = super()._prepare_inputs(inputs)
        if inputs["pixel_values"].dtype == torch.uint8:
            inputs["pixel_values"] = self.train_dataset.compose(inputs["pixel_values"])
        return inputs


def _last_whole_checkpoint(folder: Path, put_aside: bool) -> Path | None:
    """The newest checkpoint that is as it was written, and whose best one is.

    What else is called so was damaged, cut short by a kill, or is somebody else's, which the trainer would take for
    its own and delete in time: it is put aside under another name. A folder of another name is nobody's checkpoint.
    """
    found = [path for path in folder.glob("checkpoint-*") if _CHECKPOINT.fullmatch(path.name)]
    whole = [path for path in found if _is_whole(path) and _best_is_whole(path)]
    for path in sorted(set(found) - set(whole)) if put_aside else ():
        path.rename(_free_name(path.with_name(f"not-resumed-{path.name}")))
    return max(whole, key=_step, default=None)


def _free_name(path: Path) -> Path:
    places = (path.with_name(f"{path.name}-{number}") for number in range(1, 10_000))
    return next(place for place in (path, *places) if not place.exists())


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _is_whole(checkpoint: Path) -> bool:
    try:
        written = json.loads((checkpoint / ELAPSED).read_text(encoding="utf-8"))
        float(written["seconds"])
        return all(file_hash(checkpoint / name) == value for name, value in written["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _best_is_whole(checkpoint: Path) -> bool:
    """Whether the checkpoint that a training would end with is there; it may be an older one."""
    best = json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))["best_model_checkpoint"]
    return best is None or _is_whole(checkpoint.parent / Path(best).name)


def _share(batch_size: int, processes: int) -> int:
    if batch_size % processes:
        raise ValueError(
            f"batch_size is {batch_size}, expected a multiple of the {processes} processes; choose another number "
            "of processes, or -p train.batch_size=..."
        )
    return batch_size // processes


@checked_arguments()
def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 there: GPUs, and CPUs with AVX-512 BF16 or AMX instructions."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def _history(log: list[dict]) -> pd.DataFrame:
    rows: dict[int, dict] = {}
    for entry in log:
        row = rows.setdefault(entry["step"], {"step": entry["step"]})
        names = {"loss": "train_loss", "eval_loss": "held_out_loss", "learning_rate": "learning_rate"}
        names |= {
            key: key.removeprefix("eval_") for key in entry if key.startswith(("eval_r_", "eval_accuracy_"))
        }
        row.update({new: entry[old] for old, new in names.items() if old in entry})
    return pd.DataFrame(sorted(rows.values(), key=lambda row: row["step"]))
