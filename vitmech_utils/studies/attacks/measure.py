"""What an attack goes through: changed figures, attacked regions, the heads that look there, and what closes it.

Losses are those of the model's own task. Effects are in percent of the held-out set's loss (`Clean.loss`), or in the
unit of the loss where the task says so. Heads are pairs of layer and head, both 0-based.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int, Integer
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils import tasks
from vitmech_utils.arguments import checked_arguments
from vitmech_utils.artefacts import digest
from vitmech_utils.data.dataset import ChirpDataset, stack
from vitmech_utils.heads.attacks import Attack, attack, random_noise
from vitmech_utils.heads.attention_shares import attention_statistics
from vitmech_utils.heads.changes import baseline_loss
from vitmech_utils.heads.changes import mean_changes as mean_effects
from vitmech_utils.heads.choices import heads_looking_at, other_heads
from vitmech_utils.heads.estimates import estimate, fast_dtype
from vitmech_utils.heads.hooks import Head
from vitmech_utils.heads.linearized import linearized_sets, predict_linearized
from vitmech_utils.heads.patching import patch_heads
from vitmech_utils.heads.pruning import recovering
from vitmech_utils.heads.replacements import evaluating
from vitmech_utils.heads.replay import predict
from vitmech_utils.intervals import effect_intervals
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.model.finetune import Recipe, fine_tune
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.model.scores import held_out_losses
from vitmech_utils.profiles import Profile
from vitmech_utils.statistics import Interval, effect_sizes, rank_correlation
from vitmech_utils.studies.attacks.figure_changes import (
    DECORATIONS,
    NATURAL,
    TARGETS,
    choose_pixels,
    occlude,
    region_mask,
)
from vitmech_utils.tasks import Task

ATTACK, NOISE, WORST = "attack", "noise, one draw", "noise, worst draw"
OWN, RANDOM, SAME_LAYERS = "its heads", "random heads", "random heads of the same layers"
CONTROLS = {
    "without its heads": "without random heads",
    "trained on randomized layouts": "trained on published layouts",
}
"""Each defence, and what it is held against."""
ENDS = ("effect", "low", "high")
RIM = 2
"""Pixels by which the plot's edges may differ without its having moved: a figure without a frame has them elsewhere."""
Errors = Float[ndarray, "image target"]
Drawn = Callable[[str], Mapping[str, Tensor]]
"""The same chirps in a style: pixel_values, labels, regions."""


# Unchanged and naturally changed figures


@dataclass(frozen=True)
class Clean:
    """What the model says of the unchanged figures, the truth, and the preset of `tasks` that judges both.

    `held_out` are its losses on the whole held-out set, whose mean effects are in percent of; without any, percentages
    are of the loss of these figures.
    """

    predictions: Float[Tensor, "image ..."]
    labels: Tensor
    preset: str = "squared error"
    targets: tuple[str, ...] = ()
    held_out: Float[ndarray, "held_out target"] = field(default_factory=lambda: np.zeros((0, 0)))

    @property
    def task(self) -> Task:
        """The preset, fitted to these predictions and labels."""
        if (found := tasks.named(self.preset, self.targets)) is None:
            raise ValueError(f"{self.preset!r} is no preset, expected one of {', '.join(tasks.PRESETS)}")
        return found.fitted(self.predictions, self.labels)

    @property
    def errors(self) -> Errors:
        """The losses per image and target."""
        return self.losses(self.predictions)

    @property
    def loss(self) -> float:
        """What percentages are of: the mean loss of the held-out set, or of these figures."""
        return float((self.held_out if len(self.held_out) else self.errors).mean())

    def effects(
        self,
        changed: Float[ndarray, "test image target"],
        place: slice | list[int],
        draws: int,
        seed: int = 0,
    ) -> tuple[Float[ndarray, " test"], Float[ndarray, " test"], Float[ndarray, " test"]]:
        """Effects of other losses on the targets at `place`, with their bounds over images: see `loss`."""
        relative, before = self.task.relative, self.errors[:, place].mean(1)
        after = changed[..., place].mean(2)
        if len(self.held_out) and relative:
            return mean_effects(
                after - before, baseline_loss(self.held_out[:, place]), draws=draws, seed=seed
            )
        bounds = effect_intervals(after, before, draws, seed=seed, relative=relative)
        return effect_sizes(after, before, relative), *bounds

    def losses(self, predictions: Float[Tensor, "*draw image ..."]) -> Float[ndarray, "*draw image target"]:
        """The losses of other predictions of the same images, float64, on the CPU."""
        return self.task(predictions.cpu(), self.labels.cpu()).numpy()


@checked_arguments()
def clean_figures(
    model: nn.Module,
    images: Mapping[str, Tensor],
    reading: Mapping[str, Float[ndarray, "held_out target"]] | None = None,
) -> Clean:
    """Predict unchanged figures; they are judged by the model's own task, which has to be a preset of `tasks`.

    `reading` holds the model's `predictions` of the whole held-out set, and the `labels` (chapter 02's).
    """
    said, labels = predictions(model, images["pixel_values"]), images["labels"]
    labels = labels.double() if labels.is_floating_point() else labels
    task = tasks.find(None, model, labels).fitted(said, labels)
    whole = {"held_out": held_out_losses(reading)} if reading else {}
    return Clean(said, labels, task.name, task.targets, **whole)


@checked_arguments()
def natural_changes(model: nn.Module, drawn: Drawn, clean: Clean, bootstrap: int) -> pd.DataFrame:
    """Effects of drawing the same chirps in another way, as `attack_effects` has them, and whether the plot moves.

    Every style of `NATURAL`, and every decoration painted white.
    """
    images = drawn("published")
    place, changed, moves = plot_edges(images["regions"]), {}, {}
    for name, style in NATURAL.items():
        twins = drawn(style)
        changed[name] = clean.losses(predictions(model, twins["pixel_values"]))
        moves[name] = bool((plot_edges(twins["regions"]) - place).abs().max() > RIM)
    for target in DECORATIONS:
        name = f"{target} painted white"
        changed[name] = clean.losses(predictions(model, occlude(images, target)))
        moves[name] = False
    table = attack_effects(changed, clean, bootstrap)
    table["moves"] = table["name"].map(moves)
    return table.sort_values(["moves", "effect"], kind="stable", ignore_index=True)


@checked_arguments()
def plot_edges(regions: Integer[Tensor, "image row column"]) -> Int[Tensor, " 4"]:
    """The first and the last row, the first and the last column of the plot, in pixels, over all images."""
    plot = (region_mask(regions, "chirp") | region_mask(regions, "plot background")).any(0)
    return torch.cat([plot.any(axis).nonzero()[[0, -1], 0] for axis in (1, 0)])


@checked_arguments()
def worst_style(natural: pd.DataFrame) -> str:
    """The style of `NATURAL` that raised the error most."""
    return natural[natural["name"].isin(NATURAL)].set_index("name")["effect"].idxmax()


# Attacks on regions


@dataclass(frozen=True)
class Tried:
    """Attacks by target and budget, and losses by target, budget and kind (`ATTACK`, `NOISE`, `WORST`)."""

    attacks: dict[tuple[str, float], Attack]
    errors: dict[tuple[str, float, str], Errors]

    def largest(self) -> dict[str, Tensor]:
        """Predictions and images of every target at the largest budget, as an artefact names them."""
        top = max(budget for _, budget in self.attacks)
        found = {target: self.attacks[target, top] for target in TARGETS}
        said = {f"{target}_predictions": one.predictions for target, one in found.items()}
        return said | {f"{target}_images": one.pixel_values for target, one in found.items()}


@checked_arguments()
def target_masks(regions: Tensor, pixels: int, seed: int) -> dict[str, Bool[Tensor, "image height width"]]:
    """For every target the pixels that may be changed, at most so many of an image."""
    return {target: choose_pixels(regions, target, pixels, seed=seed) for target in TARGETS}


@checked_arguments()
def attack_targets(
    model: nn.Module,
    pixel_values: Float[Tensor, "image 3 height width"],
    masks: Mapping[str, Bool[Tensor, "image height width"]],
    clean: Clean,
    budgets: Sequence[float],
    *,
    steps: int,
    restarts: int,
    seed: int,
) -> Tried:
    """Attack every target at every budget, and its control: random noise of the same size on the same pixels.

    `restarts` begin at random at the largest budget, one below it. At the largest budget the worst of as many draws of
    noise is kept, too, as the attack had forward passes.
    """
    top, attacks, errors = max(budgets), {}, {}
    for target, mask in masks.items():
        for budget in budgets:
            starts = restarts if budget == top else 1
            found = attack(
                model, pixel_values, clean.labels, mask, budget,
                steps=steps, restarts=starts, seed=seed, clean=clean.predictions, dtype=fast_dtype(model),
            )  # fmt: skip
            draws = found.passes if budget == top else 1
            said = random_noise(model, pixel_values, clean.labels, mask, budget, draws=draws, seed=seed)
            noise = clean.losses(said)
            attacks[target, budget] = found
            errors[target, budget, ATTACK] = clean.losses(found.predictions)
            errors[target, budget, NOISE] = noise.mean(0)
            if budget == top:
                errors[target, budget, WORST] = worst_draw(noise, clean.errors)
    return Tried(attacks, errors)


@checked_arguments()
def attack_table(tried: Tried, clean: Clean, bootstrap: int) -> pd.DataFrame:
    """`attack_effects` of every attack and its noise, with target, budget, kind, and the mean number of pixels."""
    table = _keyed(tried.errors, ["target", "budget", "kind"], clean, bootstrap)
    table["pixels"] = [tried.attacks[target, budget].pixels.mean() for target, budget, _ in tried.errors]
    return table


@checked_arguments()
def beyond_noise(
    errors: Mapping[tuple[str, float, str], Errors], clean: Clean, bootstrap: int
) -> dict[str, Interval]:
    """By target, what the attack at the largest budget does beyond the worst random draw."""
    top = max(budget for _, budget, _ in errors)
    return {
        target: excess_effect(errors[target, top, ATTACK], errors[target, top, WORST], clean, bootstrap)
        for target in TARGETS
    }


@checked_arguments()
def intervals(table: pd.DataFrame, by: str = "target", value: str = "value") -> dict[str, Interval]:
    """The intervals of a table by what one of its columns says."""
    return {
        str(row[by]): Interval(float(row[value]), float(row["low"]), float(row["high"]))
        for _, row in table.iterrows()
    }


@checked_arguments()
def most_open(excess: Mapping[str, Interval]) -> list[str]:
    """The decorations, those through which attacks do most harm beyond noise first."""
    return sorted(DECORATIONS, key=lambda target: -excess[target].value)


# The heads that look at a region


@checked_arguments()
def heads_by_target(model: nn.Module, images: Mapping[str, Tensor]) -> pd.DataFrame:
    """The heads that clearly look at each target, as `heads_looking_at` has them, at most as many as a layer has."""
    statistics, most = attention_statistics(model, images), find_blocks(model).heads
    found = {target: heads_looking_at(statistics, regions, most) for target, regions in TARGETS.items()}
    return pd.concat([table.assign(target=target) for target, table in found.items()], ignore_index=True)


@checked_arguments()
def by_target(table: pd.DataFrame) -> dict[str, list[Head]]:
    """The heads of every target, none for a target at which no head looks."""
    found: dict[str, list[Head]] = {target: [] for target in TARGETS}
    for row in table.itertuples():
        found[row.target].append((int(row.layer), int(row.head)))
    return found


@checked_arguments()
def control_sets(
    model: nn.Module, heads: Mapping[str, Sequence[Head]], sets: int, seed: int
) -> dict[str, dict[str, list[list[Head]]]]:
    """By kind of control and target: random sets of as many other heads, from all layers and from the same ones."""
    rng = np.random.default_rng(seed)
    return {
        kind: {
            target: other_heads(model, own, sets, rng, same_layers=kind == SAME_LAYERS)
            for target, own in heads.items()
        }
        for kind in (RANDOM, SAME_LAYERS)
    }


@checked_arguments(least={"first": 0, "many": 1, "exact": 1, "batch": 1})
def changes_without(
    model: nn.Module,
    heads: Mapping[str, Sequence[Head]],
    random: Mapping[str, Sequence[Sequence[Head]]],
    reference: Float[Tensor, "reference 3 height width"],
    *,
    first: int,
    many: int,
    exact: int,
    batch: int,
) -> dict[tuple[str, str], Float[ndarray, "image target"]]:
    """By how much the loss grows with the heads of a target at their means, and for decorations with random ones there.

    Clean held-out images are asked, `many` from number `first` on, which no attack has seen: whole sets to first order
    on all, together and exactly on `exact` of them, `batch` at a time. Values of single images are estimates with the
    mean of the exact ones (`Estimate.values`); those of random sets are averaged over the sets. Means are those of
    `reference`.
    """
    keys = [(target, OWN) for target, own in heads.items() if own]
    keys += [(target, RANDOM) for target, _ in keys if target in DECORATIONS]
    sets = [[heads[target]] if kind == OWN else random[target] for target, kind in keys]

    def draw(numbers: Int[ndarray, " image"]) -> tuple[Tensor, Tensor]:
        data = stack(ChirpDataset(first + many, split="held-out"), (first + numbers).tolist())
        return data["pixel_values"], data["labels"].double()

    found = estimate(
        model, draw, many, exact, "mean", sets=[each for group in sets for each in group],
        reference=reference, exact_batch=batch, dtype=fast_dtype(model),
    )  # fmt: skip
    by_target = [found.values("effect", target) for target in found.cheap.targets]
    grown, start, every = np.stack(by_target, axis=-1), 0, {}
    for key, group in zip(keys, sets, strict=True):
        every[key] = grown[start : start + len(group)].mean(0)
        start += len(group)
    return every


@checked_arguments()
def ablation_table(
    changes: Mapping[tuple[str, str], Float[ndarray, "image target"]],
    heads: Mapping[str, Sequence[Head]],
    clean: Clean,
    exact: int,
    bootstrap: int,
) -> pd.DataFrame:
    """What ablating heads together does, by target and kind of `changes_without`, which took `exact` images exactly.

    Columns: target, kind, heads (their number), images, exact_images, percent_of (`Clean.loss`), effect (percent of it,
    or in the task's unit), low, high, and effect_T, low_T, high_T of each target T of the task.
    """
    every, relative = np.stack(list(changes.values())), clean.task.relative
    columns: dict[str, object] = {
        "target": [target for target, _ in changes],
        "kind": [kind for _, kind in changes],
        "heads": [len(heads[target]) for target, _ in changes],
        "images": every.shape[1],
        "exact_images": exact,
        "percent_of": clean.loss,
    }
    parts = {"": slice(None)} | {f"_{name}": [place] for place, name in enumerate(clean.task.targets)}
    losses = clean.held_out if len(clean.held_out) else clean.errors
    for suffix, place in parts.items():
        whole = baseline_loss(losses[:, place])
        found = mean_effects(every[..., place].mean(2), whole, relative, draws=bootstrap)
        columns |= {f"{name}{suffix}": part for name, part in zip(ENDS, found, strict=True)}
    return pd.DataFrame(columns)


@checked_arguments()
def vulnerability(excess: Mapping[str, Interval], ablations: pd.DataFrame) -> pd.DataFrame:
    """By target, what the attack does beyond noise, and what ablating its heads does."""
    own = ablations[ablations["kind"] == OWN].set_index("target")
    rows = []
    for target, found in intervals(own.reset_index(), value="effect").items():
        row = {"target": target, "images": own.loc[target, "images"], "heads": own.loc[target, "heads"]}
        for name, one in (("attacked", excess[target]), ("ablated", found)):
            row |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
        rows.append(row)
    return pd.DataFrame(rows)


@checked_arguments()
def follows_ablation(table: pd.DataFrame, bootstrap: int) -> Interval:
    """The rank correlation of both columns of `vulnerability`, over targets; unknown for fewer than three."""
    if len(table) < 3:
        return Interval(np.nan, np.nan, np.nan)
    return rank_correlation(table["attacked"].to_numpy(), table["ablated"].to_numpy(), bootstrap)


@checked_arguments()
def carried_by_head(
    model: nn.Module,
    pixel_values: Float[Tensor, "image 3 height width"],
    attacked: Mapping[str, Float[Tensor, "image 3 height width"]],
    clean: Clean,
    bootstrap: int,
) -> pd.DataFrame:
    """By target and head, from linearized outputs: how much of an attack's harm the head carries.

    That is the fall of the loss, in percent of `Clean.loss` or in its unit, when the head alone writes what it writes
    on the clean image. Columns: layer, head, images, target, carries, low, high.
    """
    every, tables = slice(None), []
    for target, changed in attacked.items():
        patched = predict_linearized(model, changed, "resample", donors=pixel_values, batch=8)
        harmed, rest = clean.losses(patched.baseline[None]), clean.losses(patched.ablated)
        carries, low, high = clean.effects(clean.errors + harmed - rest, every, bootstrap)
        heads = {"layer": patched.layers, "head": patched.heads, "images": len(changed), "target": target}
        tables.append(pd.DataFrame({**heads, "carries": carries, "low": low, "high": high}))
    return pd.concat(tables, ignore_index=True)


@checked_arguments()
def with_ablation(per_head: pd.DataFrame, sweep: pd.DataFrame) -> pd.DataFrame:
    """The table of `carried_by_head` with each head's effect by mean ablation, which chapter 04's `sweep` holds.

    Added columns: ablation, and ablation_images, on how many images it was estimated. Heads that the sweep does not
    have are left out.
    """
    alone = sweep.loc[sweep["mode"] == "mean", ["layer", "head", "effect", "images"]]
    alone = alone.rename(columns={"effect": "ablation", "images": "ablation_images"})
    return per_head.merge(alone, on=["layer", "head"], how="inner", validate="many_to_one")


@checked_arguments()
def patched_errors(
    model: nn.Module,
    pixel_values: Float[Tensor, "image 3 height width"],
    attacked: Mapping[str, Float[Tensor, "image 3 height width"]],
    heads: Mapping[str, Sequence[Head]],
    controls: Mapping[str, Mapping[str, Sequence[Sequence[Head]]]],
    clean: Clean,
) -> dict[tuple[str, str], Errors]:
    """Losses on attacked images while some heads write what they write on the clean ones, by target and kind.

    Those of random sets are averaged over the sets.
    """
    found = {}
    for target, changed in attacked.items():
        kinds = {OWN: [heads[target]], **{kind: drawn[target] for kind, drawn in controls.items()}}
        every = [chosen for sets in kinds.values() for chosen in sets]
        rest, start = clean.losses(patch_heads(model, changed, pixel_values, every)), 0
        for kind, sets in kinds.items():
            found[target, kind] = rest[start : start + len(sets)].mean(0)
            start += len(sets)
    return found


@checked_arguments()
def carried_table(
    attacked: Mapping[str, Errors],
    patched: Mapping[tuple[str, str], Errors],
    heads: Mapping[str, Sequence[Head]],
    clean: Clean,
    bootstrap: int,
) -> pd.DataFrame:
    """How much of an attack's harm some heads carry, by target and kind: effect, low, high."""
    rows = []
    for (target, kind), rest in patched.items():
        found = excess_effect(attacked[target], rest, clean, bootstrap)
        row = {"target": target, "kind": kind, "heads": len(heads[target]), "images": len(rest)}
        rows.append(row | {"effect": found.value, "low": found.low, "high": found.high})
    return pd.DataFrame(rows)


@checked_arguments()
def carried_beyond(
    patched: Mapping[tuple[str, str], Errors], control: str, clean: Clean, bootstrap: int
) -> dict[str, Interval]:
    """By target, how much more of the attack its heads carry than a control's do."""
    return {
        target: excess_effect(patched[target, control], rest, clean, bootstrap)
        for (target, kind), rest in patched.items()
        if kind == OWN
    }


@checked_arguments()
def carried_ranks(
    model: nn.Module,
    pixel_values: Float[Tensor, "image 3 height width"],
    attacked: Mapping[str, Float[Tensor, "image 3 height width"]],
    heads: Mapping[str, Sequence[Head]],
    clean: Clean,
    sets: int,
    seed: int = 0,
) -> pd.DataFrame:
    """Where the heads of a target rank among `sets` random sets by what they carry of its attack, to first order.

    Outputs are linearized in the gates from what heads write on the attacked image (0) to what they write on the clean
    one (1), so that any number of sets costs as much as one. Returns one row per target and kind of control: target,
    kind, sets, heads, images, carries (of its own heads, percent of the clean loss, or in its unit), median and highest
    (of the random sets), and p_value, (1 + sets that carry as much or more) / (1 + sets).
    """
    drawn = control_sets(model, {target: heads[target] for target in attacked}, sets, seed)
    percent = 100 / clean.loss if clean.task.relative else 1.0
    rows = []
    for target, changed in attacked.items():
        slopes = predict_linearized(
            model, changed, "resample", donors=pixel_values, batch=8, dtype=fast_dtype(model)
        )
        harmed = clean.losses(slopes.baseline[None])[0].mean()
        for kind, by_target in drawn.items():
            rest = clean.losses(linearized_sets(slopes, [heads[target], *by_target[target]]).ablated)
            own, *random = percent * (harmed - rest.mean((1, 2)))
            rows.append(
                {
                    "target": target, "kind": kind, "sets": len(random), "heads": len(heads[target]),
                    "images": len(changed), "carries": own, "median": float(np.median(random)),
                    "highest": max(random), "p_value": (1 + sum(it >= own for it in random)) / (1 + len(random)),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


@checked_arguments()
def p_values(ranks: pd.DataFrame, kind: str = RANDOM) -> dict[str, Interval]:
    """By target, the p-value of a control's rank test; a rank has no interval, so both bounds are the value."""
    chosen = ranks[ranks["kind"] == kind]
    return {row.target: Interval(*[float(row.p_value)] * 3) for row in chosen.itertuples()}


# Defences


@checked_arguments()
def defence_recipe(profile: Profile) -> Recipe:
    """A short further training at a third of the profile's learning rate."""
    steps = profile.attacks.defence_steps
    return Recipe(
        steps=steps,
        batch_size=profile.attacks.defence_batch,
        learning_rate=profile.train.learning_rate / 3,
        warmup_steps=min(10, steps // 4),
        every=max(1, steps // 2),
    )


@checked_arguments()
def trained_on(style: str, model: ChirpRegressor, recipe: Recipe, checkpoints: Path) -> ChirpRegressor:
    """The model after further training on one style's figures, with fresh adapters, merged; resumed after a kill."""
    fresh = ChirpDataset(recipe.steps * recipe.batch_size, seed=10, style=style, split="train")
    watched = ChirpDataset(recipe.batch_size, seed=9, style=style, split="held-out")
    folder = checkpoints / f"{style}-{digest(asdict(recipe))[:16]}"
    return fine_tune(recovering(model), fresh, watched, recipe, folder).regressor.merged()


@checked_arguments()
def defence_table(
    harms: Mapping[tuple[str, str], Float[ndarray, "2 image target"]], clean: Clean, bootstrap: int
) -> pd.DataFrame:
    """What an attack adds to the error of each model, and how much more that model errs on clean images.

    `harms` holds the errors before and after, by target and model.
    """
    rows = []
    for (target, name), (before, after) in harms.items():
        row = {"target": target, "model": name, "images": len(before)}
        for suffix, pair in (("", (after, before)), ("_clean", (before, clean.errors))):
            found = excess_effect(*pair, clean, bootstrap)
            row |= {f"effect{suffix}": found.value, f"low{suffix}": found.low, f"high{suffix}": found.high}
        rows.append(row)
    return pd.DataFrame(rows)


@checked_arguments()
def closed_table(
    harms: Mapping[tuple[str, str], Float[ndarray, "2 image target"]], clean: Clean, bootstrap: int
) -> pd.DataFrame:
    """How much less an attack adds to a defended model than to its control, and than to the model with all heads."""
    added = {key: after - before for key, (before, after) in harms.items()}
    rows = []
    for target in dict.fromkeys(target for target, _ in harms):
        for name, control in CONTROLS.items():
            for other in (control, "all heads") if (target, name) in harms else ():
                found = excess_effect(added[target, other], added[target, name], clean, bootstrap)
                row = {"target": target, "defence": name, "less_than": other, "images": len(clean.labels)}
                rows.append(row | vars(found))
    return pd.DataFrame(rows)


@checked_arguments()
def natural_after_training(
    models: Mapping[str, nn.Module], images: Mapping[str, Tensor], clean: Clean, bootstrap: int
) -> pd.DataFrame:
    """Effects of a natural change on further trained models, as `attack_effects` has them."""
    pixels = images["pixel_values"]
    changed = {name: clean.losses(predictions(model, pixels)) for name, model in models.items()}
    return attack_effects(changed, clean, bootstrap)


# What the rules judge


@checked_arguments()
def beyond_ablation(excess: Mapping[str, Interval], ablations: pd.DataFrame) -> dict[str, Interval]:
    """By decoration, how much more the attack does beyond noise (`excess`) than ablating the heads that look there."""
    own = intervals(ablations[ablations["kind"] == OWN], value="effect")
    return {target: apart(excess[target], own[target]) for target in DECORATIONS if target in own}


@checked_arguments()
def apart(one: Interval, other: Interval) -> Interval:
    """One estimate less another from other images: squares of their bounds' distances add up (Zou and Donner 2008)."""
    value = one.value - other.value
    below = np.hypot(one.value - one.low, other.high - other.value)
    above = np.hypot(one.high - one.value, other.value - other.low)
    return Interval(value, float(value - below), float(value + above))


@checked_arguments()
def claims(
    measured: Mapping[str, Mapping[str, Interval]], heads: Mapping[str, Sequence[Head]], **sample: float
) -> pd.DataFrame:
    """One row per quantity and target: target, quantity, value, low, high, heads, and the `sample`'s columns."""
    rows = [
        {"target": target, "quantity": quantity, **vars(found), "heads": len(heads[target])}
        for quantity, by_name in measured.items()
        for target, found in by_name.items()
    ]
    return pd.DataFrame(rows).assign(**sample)


# Errors, and what they differ by


def _keyed(errors: Mapping[tuple, Errors], columns: list[str], clean: Clean, bootstrap: int) -> pd.DataFrame:
    table = attack_effects({str(key): found for key, found in errors.items()}, clean, bootstrap)
    table[columns] = list(errors)
    return table.drop(columns="name")


@checked_arguments()
def mean_changes(
    means: Sequence[Float[Tensor, "1 token head size"]], heads: Collection[Head]
) -> dict[Head, Tensor]:
    """Changes for `change_heads` that mean-ablate `heads`; `means` are those of `mean_outputs`, one per layer."""
    return {(layer, head): means[layer][:, :, head].clone() for layer, head in heads}


@checked_arguments()
@torch.no_grad()
def predictions(
    model: nn.Module, pixel_values: Float[Tensor, "image 3 height width"], batch: int = 8
) -> Float[Tensor, "image target"]:
    """Predictions in float64 on the CPU, dropout off; under `change_heads` those of the changed model."""
    weight = next(model.parameters())
    with evaluating(model):
        return torch.cat(
            [predict(model, part.to(weight)).cpu().double() for part in pixel_values.split(batch)]
        )


@checked_arguments()
def worst_draw(
    drawn: Float[ndarray, "draw image target"], clean: Float[ndarray, "image target"]
) -> Float[ndarray, "image target"]:
    """Per image the losses of the draw that sums up highest, the clean ones among them, as an attack keeps."""
    every = np.concatenate([clean[None], drawn])
    return every[every.sum(2).argmax(0), np.arange(len(clean))]


@checked_arguments()
def attack_effects(
    losses: Mapping[str, Float[ndarray, "changed target"]], clean: Clean, bootstrap: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Tabulate the losses of changed images against the clean ones', which every row shares.

    One row per name: name, images, mse, clean_mse (`loss`, `clean_loss` where the task's loss is no squared error),
    percent_of (`Clean.loss`),
    effect (percent of `Clean.loss`, or in the task's unit), low, high (paired over images), and effect_T, low_T, high_T
    of each target T. Raises `ValueError` for losses of other images.
    """
    unchanged, task = clean.errors, clean.task
    if other := [name for name, found in losses.items() if found.shape != unchanged.shape]:
        raise ValueError(
            f"{other[0]!r} has losses of shape {losses[other[0]].shape}, expected {unchanged.shape} (clean)"
        )
    every = np.stack(list(losses.values()))
    columns = {
        "name": list(losses),
        "images": len(unchanged),
        task.column: every.mean((1, 2)),
        f"clean_{task.column}": unchanged.mean(),
        "percent_of": clean.loss,
    }
    parts = {"": slice(None)} | {f"_{name}": [place] for place, name in enumerate(task.targets)}
    for suffix, place in parts.items():
        found = clean.effects(every, place, bootstrap, seed)
        columns |= {f"{name}{suffix}": part for name, part in zip(ENDS, found, strict=True)}
    return pd.DataFrame(columns)


@checked_arguments()
def excess_effect(more: Errors, less: Errors, clean: Clean, bootstrap: int = 2000, seed: int = 0) -> Interval:
    """By how much one loss exceeds another, in percent of `Clean.loss` or in its unit, paired by image."""
    found = clean.effects((clean.errors + more - less)[None], slice(None), bootstrap, seed)
    return Interval(*(float(part[0]) for part in found))
