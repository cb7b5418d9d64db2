"""The sections of a profile: what each chapter needs to know, with the range of every number."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

AblationMode = Literal["zero", "mean", "resample", "noise", "optimal", "qkv-weights", "published-code"]


def no_bool(value: Any) -> Any:
    """Refuse true and false where a number is expected; pydantic would read them as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("expected a number, not true or false")
    return value


Count = Annotated[int, BeforeValidator(no_bool), Field(ge=1, le=10_000_000)]


class Section(BaseModel):
    """A part of a profile: frozen; unknown keys, and values of another kind ("3" for 3), are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def _among(self, few: str, many: str) -> None:
        """Refuse more of some images than there are of those that they are taken from."""
        if getattr(self, few) > getattr(self, many):
            raise ValueError(
                f"{few} is {getattr(self, few)}, expected at most {many}, {getattr(self, many)}: they are among these"
            )


class Train(Section):
    """Fine-tuning: `images` distinct training images, `steps` optimizer steps of `batch_size` images.

    Every `every` steps the model is judged on held-out images and a checkpoint is kept; `patience` judgements
    without gain end the training. After step `restart`, if it comes to that, the learning rate starts again at its
    largest; no image is seen twice then. Precision `auto` is bfloat16 where the processor computes in it, else float32.

    `hard_share` of the training images, never of held-out ones, are short chirps in much noise, for the classifiers
    too; 0 is the study's distribution. `validation_images` held-out ones, not those of any score, choose the best
    checkpoint.
    """

    images: Count
    batch_size: Annotated[Count, Field(le=4096)]
    steps: Count
    restart: Count | None = None
    learning_rate: Annotated[float, BeforeValidator(no_bool), Field(gt=0, le=1)]
    eval_images: Annotated[Count, Field(ge=2)]
    patience: Count
    every: Count = 100
    schedule: Literal["cosine", "constant", "reduce_lr_on_plateau"] = "cosine"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    hard_share: Annotated[float, BeforeValidator(no_bool), Field(ge=0, le=1)] = 0.0
    validation_images: Annotated[Count, Field(ge=2)] = 160

    @model_validator(mode="after")
    def _restart_has_images(self) -> "Train":
        if self.has_restart and self.images < self.steps * self.batch_size:
            raise ValueError(
                f"images is {self.images}, expected at least steps x batch_size = {self.steps * self.batch_size}: "
                "a training with a restart sees no image twice"
            )
        return self

    @property
    def has_restart(self) -> bool:
        """Whether the training is long enough to come to its restart."""
        return self.restart is not None and self.restart < self.steps


class Images(Section):
    """A section that only says how many held-out images a chapter looks at."""

    images: Count


class Gallery(Images):
    """What is shown, not measured: images of the gallery, and of the picker.

    The picker shows `picker_images` and their undecorated twins. What the model answers without each head is computed
    exactly for `exact_images` of these pictures (decorated ones first), without some sets for one at least, and
    linearized for all.
    """

    picker_images: Annotated[Count, Field(le=24)]
    exact_images: Annotated[int, BeforeValidator(no_bool), Field(ge=0, le=48)]


class Ablation(Section):
    """Head ablation: images, modes, pairs of head and image per batch, bootstrap draws.

    By every mode heads are ablated to first order on `images`; exactly on `exact_images` of them by `modes`, by the
    other modes on `other_exact_images`. `modes` take all heads, the others those of every `other_sweep_every`-th layer,
    the last one among them. Controls that have no first-order form take `control_images`. Heads' means and their noise
    are those of `reference_images` training images, and the constants of mode `optimal` are fitted on `optimal_images`
    others.
    """

    images: Annotated[Count, Field(ge=2)]
    exact_images: Annotated[Count, Field(ge=2)]
    other_exact_images: Annotated[Count, Field(ge=2)]
    other_sweep_every: Count = 1
    control_images: Annotated[Count, Field(ge=2)]
    reference_images: Annotated[Count, Field(ge=2)] = 24
    optimal_images: Annotated[Count, Field(ge=4)]
    modes: Annotated[list[AblationMode], Field(min_length=1)]
    batch: Count
    bootstrap: Annotated[Count, Field(ge=100)]

    @model_validator(mode="after")
    def _exact_ones_are_among_them(self) -> "Ablation":
        self._among("exact_images", "images")
        self._among("other_exact_images", "images")
        return self


class Audit(Section):
    """The published procedure: held-out images of its metrics, and of the whole procedure in three orders."""

    images: Count
    procedure_images: Count


class Semantics(Section):
    """Mono- or polysemantic: images, images of each twin pair, and draws of permutations and bootstraps."""

    images: Annotated[Count, Field(ge=2)]
    twins: Annotated[Count, Field(ge=2)]
    permutations: Annotated[Count, Field(ge=10)]


class Origin(Section):
    """Inherited or emergent: images for maps and classes, of each twin pair, and to fit readouts on.

    Effects are estimated to first order on `effect_images` and measured exactly on `exact_images` of them, of the heads
    of every `sweep_every`-th layer, the last one among them.
    """

    images: Annotated[Count, Field(ge=2)]
    twins: Annotated[Count, Field(ge=2)]
    effect_images: Annotated[Count, Field(ge=2)]
    exact_images: Annotated[Count, Field(ge=2)]
    sweep_every: Count = 1
    readout_images: Annotated[Count, Field(ge=2)]

    @model_validator(mode="after")
    def _fits(self) -> "Origin":
        self._among("exact_images", "effect_images")
        return self


class Pruning(Section):
    """Heads removed for good: test images, images to choose heads by, random sets of each size, timings, recovery.

    Effects that choose heads are measured on `choice_images`; `recovery_steps` optimizer steps of `recovery_batch`
    fresh images follow a removal; every model is timed `repeats` times, on one image and on `throughput_batch` at once.
    `long_recovery_steps` are those of the recovery that `vitmech_utils.recoveries` trains in the background.
    """

    images: Annotated[Count, Field(ge=2)]
    choice_images: Annotated[Count, Field(ge=2)]
    random_sets: Count
    rounds: Count
    repeats: Annotated[Count, Field(ge=2)]
    recovery_steps: Count
    recovery_batch: Count
    long_recovery_steps: Count = 2000
    throughput_batch: Annotated[Count, Field(ge=2)]


class Attacks(Section):
    """Attacks: attacked images, gradient steps, restarts, budgets (largest change of a pixel, in 1/255), pixels.

    A region is attacked on `pixels` of its pixels, so that regions of different size can be compared; `defence_steps`
    optimizer steps of `defence_batch` fresh images follow, on randomized and on published layouts. The heads that look
    at a region are ranked among `random_sets` sets of as many heads by what they carry of an attack.
    """

    images: Annotated[Count, Field(ge=2)]
    steps: Count
    restarts: Count
    budgets: Annotated[
        list[Annotated[float, BeforeValidator(no_bool), Field(gt=0, le=255)]], Field(min_length=1)
    ]
    pixels: Count
    random_sets: Count
    defence_steps: Count
    defence_batch: Count


class Together(Section):
    """Heads together: images of groups, images of pairs, heads whose pairs are estimated, pairs measured exactly.

    Groups are ablated to first order on `images` and exactly on `exact_images` of them; sets that are kept, and direct
    effects, exactly on as many.
    Shapley values take `permutations` orders of all heads, each on an image of its own; `random_sets` sets are drawn
    for every size that a chosen set is compared at.
    """

    images: Annotated[Count, Field(ge=2)]
    exact_images: Annotated[Count, Field(ge=2)]
    pair_images: Annotated[Count, Field(ge=2)]
    pair_heads: Annotated[Count, Field(ge=2)]
    exact_pairs: Annotated[Count, Field(ge=3)]
    permutations: Annotated[Count, Field(ge=2)]
    random_sets: Annotated[Count, Field(ge=2)]

    @model_validator(mode="after")
    def _exact_ones_are_among_them(self) -> "Together":
        self._among("exact_images", "images")
        return self


class Trainings(Section):
    """Further trainings beside that of the first seed: their `seeds`, and the `chapters` that ask them too.

    A seed that the profile does not train itself is that of a published adapter. Heads are ablated by `modes` to first
    order on `images`, exactly on `exact_images` of them; chapters 05 and 07 class heads by `attention_images`, and
    `twins` of each pair of twin images.
    """

    seeds: list[Annotated[int, BeforeValidator(no_bool), Field(ge=0, lt=2**31)]]
    chapters: list[Literal["04", "05", "07", "09", "12"]]
    images: Annotated[Count, Field(ge=2)]
    exact_images: Annotated[Count, Field(ge=2)]
    modes: Annotated[list[Literal["mean", "zero", "resample", "qkv-weights"]], Field(min_length=1)]
    attention_images: Annotated[Count, Field(ge=2)]
    twins: Annotated[Count, Field(ge=2)]

    @model_validator(mode="after")
    def _fits(self) -> "Trainings":
        self._among("exact_images", "images")
        if len({*self.seeds}) < len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}, expected each once")
        return self


class Recordings(Section):
    """Real spectrograms: windows of each detector's recording, and synthetic images to hold them against.

    Of the seizures that boxes were drawn in, `seizures` recordings are looked at (all, where there are fewer); the
    heads of `folds` of the five fine-tuned models are ablated, on `effect_images` of their pictures in all.
    """

    windows: Annotated[Count, Field(ge=2)]
    images: Annotated[Count, Field(ge=2)]
    seizures: Annotated[Count, Field(ge=5)]
    folds: Annotated[Count, Field(le=5)]
    effect_images: Annotated[Count, Field(ge=2)]


class Task(Section):
    """Another task: training of the classifiers, held-out images, images of the sweeps, random sets of heads.

    Heads are ablated to first order on `effect_images`, and exactly on `exact_images` of them; the search for the heads
    that carry the lie takes `sweep_images`.

    Each classifier takes `steps` optimizer steps of `batch_size` fresh images and is judged every `every` steps. The
    sweeps ablate the heads of every `sweep_every`-th layer, the last one among them.
    """

    steps: Count
    batch_size: Annotated[Count, Field(le=4096)]
    learning_rate: Annotated[float, BeforeValidator(no_bool), Field(gt=0, le=1)]
    every: Count
    images: Annotated[Count, Field(ge=2)]
    sweep_images: Annotated[Count, Field(ge=2)]
    effect_images: Annotated[Count, Field(ge=2)]
    exact_images: Annotated[Count, Field(ge=2)]
    sweep_every: Count = 1
    random_sets: Annotated[Count, Field(ge=2)]

    @model_validator(mode="after")
    def _exact_ones_are_among_them(self) -> "Task":
        self._among("exact_images", "effect_images")
        return self


class Mechanism(Section):
    """How one head works: images to choose it by, to fit an account of it and to judge it by (`images` each).

    Paths through the model are followed on the first `path_images` of those to judge by, what is linearly readable is
    fitted on `probe_images` and judged on as many. `further` are the seeds of more trainings that are asked the same.
    """

    choice_images: Annotated[Count, Field(ge=2)]
    images: Annotated[Count, Field(ge=4)]
    path_images: Annotated[Count, Field(ge=2)]
    probe_images: Annotated[Count, Field(ge=4)]
    further: list[Annotated[int, BeforeValidator(no_bool), Field(ge=0, lt=2**31)]] = []

    @model_validator(mode="after")
    def _path_images_are_among_them(self) -> "Mechanism":
        if self.path_images > self.images:
            raise ValueError(
                f"path_images is {self.path_images}, expected at most images, {self.images}: they are among these"
            )
        return self
