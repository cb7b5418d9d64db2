"""What heads do together: sets that mean something, pairs of heads, and the sets that are kept.

Heads are pairs of layer and head, both 0-based.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.dataset import ChirpDataset, stack, training_figures
from vitmech_utils.heads.changes import baseline_loss, mean_changes
from vitmech_utils.heads.constants import HeadConstants
from vitmech_utils.heads.effects import Losses
from vitmech_utils.heads.estimates import Estimate, estimate, fast_dtype
from vitmech_utils.heads.hooks import Head, change_heads
from vitmech_utils.heads.interactions import KEYS
from vitmech_utils.heads.rank_agreement import SharedOrder, disattenuated_correlation
from vitmech_utils.heads.replacements import averaged_references
from vitmech_utils.heads.sets import SetPredictions, groups, predict_without_sets, set_effects, singles
from vitmech_utils.intervals import effect_intervals
from vitmech_utils.profile_sections import Together, Trainings
from vitmech_utils.statistics import FALSE_DISCOVERIES, Interval, percent_effect, rank_correlation
from vitmech_utils.studies.trainings.measure import of_each as of_each

SEED = 9
"""The chapter's own stream of held-out figures."""
RANDOM = "random"
"""The kind of sets that are drawn at random."""
RANDOM_KEPT = 12
"""The most random sets of each size that are kept: each costs a forward pass an image."""
IN_PERCENT = ("interaction", "estimate", "effect", "low", "high")
"""How the names of columns in percent begin."""
Groups = Mapping[str, Mapping[str, Iterable[Head]]]
"""Kind of set, name of the set, its heads."""
KEPT_PARTS = (1 / 12, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 5 / 6, 11 / 12)
"""Parts of all heads that are kept while the rest is ablated."""
RANKINGS = {"single effect": "single", "Shapley value": "shapley"}
"""How heads are ranked before the last of them go, and the column of their values."""


# Sets of heads


@checked_arguments()
def heads_of(table: pd.DataFrame) -> list[Head]:
    """All heads of a table, in order."""
    return sorted(zip(table["layer"].astype(int), table["head"].astype(int), strict=True))


@checked_arguments()
def named_groups(classes: pd.DataFrame) -> dict[str, dict[str, list[Head]]]:
    """The heads of each layer, of each class, and about each region; a head about two regions is in both sets."""
    layers: dict[str, list[Head]] = {}
    for layer, head in heads_of(classes):
        layers.setdefault(f"layer {layer + 1}", []).append((layer, head))
    by_class, by_region = groups(classes, "class"), groups(classes, "regions")
    return {
        "layer": layers,
        "class": {f"class: {name}": sorted(heads) for name, heads in by_class.items()},
        "region": {f"about: {name}": sorted(heads) for name, heads in by_region.items()},
    }


@checked_arguments()
def random_groups(classes: pd.DataFrame, draws: int, rng: np.random.Generator) -> dict[str, list[Head]]:
    """Sets of as many heads as a layer has, drawn at random over all layers."""
    heads, size = heads_of(classes), int(classes["head"].max()) + 1
    return {
        f"random {draw + 1}": [heads[place] for place in rng.choice(len(heads), size, replace=False)]
        for draw in range(draws)
    }


@checked_arguments()
def members(kinds: Groups) -> list[Iterable[Head]]:
    """The sets of all kinds in a row, as `group_effects` expects their predictions."""
    return [heads for sets in kinds.values() for heads in sets.values()]


@checked_arguments()
def group_effects(
    kinds: Groups,
    joint: SetPredictions | Losses,
    single: SetPredictions | Losses,
    labels: Float[Tensor, "image target"] | None,
    bootstrap: int,
) -> pd.DataFrame:
    """One row per set, as `sets.set_effects` has it, with its kind; q-values adjust for the sets of a kind.

    `joint` are predictions or losses without each of `members(kinds)`, `single` without each head alone, on the same
    images; losses need no labels. rank_p is the rank test of sets of as many heads as the random ones have: the share
    of these, the set itself counted among them, whose excess is at least as far from nothing.
    """
    tables, start = [], 0
    for kind, sets in kinds.items():
        part = joint[start : start + len(sets)]
        tables.append(set_effects(part, labels, single, list(sets), bootstrap).assign(kind=kind))
        start += len(sets)
    table = pd.concat(tables, ignore_index=True)
    drawn = table[table["kind"] == RANDOM]
    random = drawn["excess"].abs().to_numpy()
    further = (random[None] >= table["excess"].abs().to_numpy()[:, None]).sum(1)
    ranks = pd.Series((1 + further) / (1 + len(random)), index=table.index)
    return table.assign(rank_p=ranks.where(table["heads"].isin(drawn["heads"])))


@checked_arguments()
def differs(table: pd.DataFrame) -> pd.Series:
    """Whether each set clearly does something else than its heads' single effects add up to."""
    clear = (table["low_excess"] > 0) | (table["high_excess"] < 0)
    return clear & (table["q_value"] < FALSE_DISCOVERIES)


@checked_arguments()
def estimated(
    model: nn.Module,
    heads: Sequence[Head],
    kinds: Groups,
    plan: Together,
    reference: Float[Tensor, "other 3 height width"] | HeadConstants,
    batch: int,
) -> Estimate:
    """Losses without each head, then without each of `members(kinds)`: to first order on many images, exactly on few.

    The images are the chapter's own (`held_out_figures`), not those that chapter 05 classified heads by.
    """
    sets = [*singles(heads), *map(frozenset, members(kinds))]

    def draw(numbers: Int[ndarray, " image"]) -> tuple[Tensor, Tensor]:
        data = held_out_figures(numbers)
        return data["pixel_values"], data["labels"].double()

    found = estimate(
        model, draw, plan.images, plan.exact_images, "mean",
        sets=sets, reference=reference, exact_batch=batch, task=model.task, dtype=fast_dtype(model),
    )  # fmt: skip
    return found.single()


@checked_arguments()
def held_out_figures(numbers: Int[ndarray, " image"]) -> dict[str, Tensor]:
    """The chapter's own held-out figures, by their numbers."""
    return stack(ChirpDataset(int(numbers.max()) + 1, seed=SEED, split="held-out"), numbers.tolist())


@checked_arguments()
def mean_reference(model: nn.Module, batch: int, images: int = 24) -> HeadConstants:
    """Every head's mean over the first training images, which mode `mean` puts in its place."""
    figures = training_figures(images)["pixel_values"]
    return averaged_references(model, figures, ["mean"], batch)["mean"]


@checked_arguments()
def single_effects(single: Losses, bootstrap: int) -> pd.DataFrame:
    """One row per head: layer, head, effect, low, high, in percent of the baseline's MSE."""
    errors, baseline = single.mean()
    low, high = effect_intervals(errors, baseline, bootstrap)
    heads = [next(iter(one)) for one in single.sets]
    return pd.DataFrame(heads, columns=["layer", "head"]).assign(
        effect=percent_effect(errors, baseline), low=low, high=high
    )


@checked_arguments()
def strongest(single: pd.DataFrame, count: int) -> list[Head]:
    """The heads with the largest absolute effects, the largest first."""
    table = single.loc[single["effect"].abs().nlargest(min(count, len(single))).index]
    return list(zip(table["layer"].astype(int), table["head"].astype(int), strict=True))


@checked_arguments()
def of_held_out(
    table: pd.DataFrame,
    model: nn.Module,
    pixel_values: Float[Tensor, "image 3 height width"],
    labels: Float[Tensor, "image target"],
    held_out: Float[ndarray, "held_out target"],
) -> pd.DataFrame:
    """A table in percent of these images' own mean squared error, made one in percent of the `held_out` losses' mean.

    Columns: interaction, estimate, and all that begin with effect, low or high.
    """
    own = predict_without_sets(model, pixel_values, [()], "zero").losses(labels).baseline.mean()
    names = [name for name in table if name.partition("_")[0] in IN_PERCENT]
    return table.assign(**{name: table[name] * float(own / held_out.mean()) for name in names})


# Other trainings


@checked_arguments()
def asked_again(
    model: nn.Module,
    whole: Float[ndarray, "held_out target"],
    classes: pd.DataFrame,
    plan: Together,
    more: Trainings,
    batch: int,
    bootstrap: int,
) -> pd.DataFrame:
    """What the rule reads, as `claim` has it, of another training on fewer of the same images; layers alone.

    `whole` are its losses on the held-out set, `classes` name its heads. No Shapley values: as many orders of all heads
    as the rule asks for cost as much as everything else in the chapter.
    """
    means = mean_reference(model, batch)
    few = {"images": min(plan.images, more.images), "exact_images": min(plan.exact_images, more.exact_images)}
    heads, kinds = heads_of(classes), {"layer": named_groups(classes)["layer"]}
    found = estimated(model, heads, kinds, plan.model_copy(update=few), means, batch).losses(whole)
    layers = group_effects(kinds, found[len(heads) :], found[: len(heads)], None, bootstrap)
    return claim(layers, layers[:0])


# Pairs


@checked_arguments()
def sample_pairs(estimated: pd.DataFrame, count: int, rng: np.random.Generator) -> pd.DataFrame:
    """About `count` of the estimated pairs: half those of the largest estimates, half drawn from the rest (`drawn`)."""
    half = max(2, min(count, len(estimated)) // 2)
    largest = estimated["estimate"].abs().nlargest(half).index
    rest = rng.choice(estimated.index.difference(largest), min(half, len(estimated) - half), replace=False)
    return pd.concat([estimated.loc[largest].assign(drawn=False), estimated.loc[rest].assign(drawn=True)])


@checked_arguments()
def pairs_of(table: pd.DataFrame) -> list[tuple[Head, Head]]:
    """The pairs of heads that a table's rows name."""
    return [((row.layer_a, row.head_a), (row.layer_b, row.head_b)) for row in table.itertuples()]


@checked_arguments()
def beside_estimates(exact: pd.DataFrame, sample: pd.DataFrame) -> pd.DataFrame:
    """Exact interactions with each pair's estimate, and whether it was drawn at random."""
    return exact.merge(sample[[*KEYS, "estimate", "drawn"]], on=KEYS)


@checked_arguments()
def estimates_fit(compared: pd.DataFrame, bootstrap: int) -> dict[str, Interval]:
    """Rank correlations of estimate and exact interaction: over all pairs, the largest, and those drawn at random."""
    parts = {
        "all pairs of the sample": compared,
        "largest estimates": compared[~compared["drawn"]],
        "drawn at random": compared[compared["drawn"]],
    }
    return {
        name: rank_correlation(part["estimate"].to_numpy(), part["interaction"].to_numpy(), bootstrap)
        for name, part in parts.items()
        if len(part) >= 3
    }


@checked_arguments()
def gate_surface(
    model: nn.Module,
    pixel_values: Float[Tensor, "image 3 height width"],
    labels: Float[Tensor, "image target"],
    pair: tuple[Head, Head],
    steps: int = 9,
) -> Float[ndarray, "gate gate"]:
    """The mean squared error while two heads' gates go from 0 (untouched) to 1 (their output is zero)."""
    gates = np.linspace(0, 1, steps)
    surface = np.empty((steps, steps))
    with torch.inference_mode():
        for row, column in np.ndindex(surface.shape):
            left = zip(pair, (1 - gates[row], 1 - gates[column]), strict=True)
            kept = {head: lambda output, part=float(part): part * output for head, part in left}
            with change_heads(model, kept):
                surface[row, column] = ((model(pixel_values).logits - labels) ** 2).mean().item()
    return surface


# Orders, and how few heads are enough


@checked_arguments()
def shapley_table(
    charged: Losses, single: Losses, held_out: Float[ndarray, "held_out target"], bootstrap: int
) -> pd.DataFrame:
    """Shapley values beside single effects on the same images, both in percent of the held-out loss.

    Columns: layer, head, images, shapley, low, high, single, single_low, single_high, and more with low_more and
    high_more: by how much the Shapley value lies above the single effect, image by image.
    """
    whole = baseline_loss(held_out)
    value, low, high = mean_changes(charged.of(), whole)
    table = pd.DataFrame(
        {
            "layer": charged.layers,
            "head": charged.heads,
            "images": charged.baseline.shape[0],
            "shapley": value,
        }
    )
    by_itself = dict(zip(("effect", "low", "high"), mean_changes(single.of(), whole), strict=True))
    more = zip(
        ("more", "low_more", "high_more"), mean_changes(charged.of() - single.of(), whole), strict=True
    )
    return beside_single(table.assign(low=low, high=high, **dict(more)), pd.DataFrame(by_itself))


@checked_arguments()
def shared_order(charged: Losses, single: Losses, bootstrap: int) -> SharedOrder:
    """How much of their order single effects and Shapley values share, beyond what few images blur in each."""
    return disattenuated_correlation(single.of()[None], charged.of()[None], bootstrap)


@checked_arguments()
def beside_single(values: pd.DataFrame, single: pd.DataFrame) -> pd.DataFrame:
    """Shapley values with each head's single effect on the same images."""
    return values.assign(single=single["effect"], single_low=single["low"], single_high=single["high"])


@checked_arguments()
def sizes_to_keep(total: int) -> list[int]:
    """How many of all heads are kept, from few to most."""
    return sorted({max(1, round(total * part)) for part in KEPT_PARTS})


@checked_arguments()
def kept_sets(
    values: pd.DataFrame, heads: Sequence[Head], draws: int, rng: np.random.Generator
) -> dict[tuple, set[Head]]:
    """The first heads of each ranking, of every size, and `draws` random sets of every second size (`RANDOM_KEPT`).

    Keys are (ranking, size), or ("random", size, draw).
    """
    sizes, sets = sizes_to_keep(len(heads)), {}
    for name, column in RANKINGS.items():
        table = values.sort_values(column, ascending=False)
        order = list(zip(table["layer"].astype(int), table["head"].astype(int), strict=True))
        sets |= {(name, size): set(order[:size]) for size in sizes}
    for size in sizes[1::2]:
        for draw in range(min(draws, RANDOM_KEPT)):
            chosen = rng.choice(len(heads), size, replace=False)
            sets["random", size, draw] = {heads[place] for place in chosen}
    return sets


@checked_arguments()
def kept_effects(
    kept: Mapping[tuple, set[Head]],
    without_rest: SetPredictions,
    labels: Float[Tensor, "image target"],
    held_out: Float[ndarray, "held_out target"],
) -> pd.DataFrame:
    """One row per kept set: ranking, kept, effect, low, high (percent of the held-out loss), images.

    `without_rest` ablates all other heads.
    """
    losses = without_rest.losses(labels)
    effect, low, high = mean_changes(losses.of(), baseline_loss(held_out))
    return pd.DataFrame([key[:2] for key in kept], columns=["ranking", "kept"]).assign(
        effect=effect, low=low, high=high, images=len(losses.baseline)
    )


@checked_arguments()
def fewest_enough(curves: pd.DataFrame, limit: float, total: int) -> dict[str, int]:
    """By ranking, the smallest tried number of heads with which the error grows by at most `limit` percent.

    All heads where no tried set is enough.
    """
    enough = curves[curves["effect"] <= limit].groupby("ranking")["kept"].min()
    return {name: int(enough.get(name, total)) for name in RANKINGS}


# What the rule judges


@checked_arguments()
def repaired(split: pd.DataFrame) -> pd.DataFrame:
    """The heads of `direct.direct_effects` whose direct harm later parts clearly undo in part."""
    return split[(split["low_direct"] > 0) & (split["high_later"] < 0)]


@checked_arguments()
def claim(
    layers: pd.DataFrame, random: pd.DataFrame, order: SharedOrder | None = None, orders: int = 0
) -> pd.DataFrame:
    """The quantities that the rule on single ablations reads, and their controls.

    Columns quantity, value, low, high, of, images; `order` and what else rests on `orders` orders of all heads only
    where it was measured.
    """
    images, nothing = int(layers["images"].iloc[0]), (np.nan, np.nan)
    heads = int(layers["heads"].sum())
    rows = [
        ("layers that differ from the sum", differs(layers).sum(), *nothing, len(layers), images),
        ("random sets that differ from the sum", differs(random).sum(), *nothing, len(random), images),
        ("layers beyond the random sets", (layers["rank_p"] < 0.05).sum(), *nothing, len(layers), images),
    ]
    if order is not None:
        named = {"rank correlation": order.share, "rank correlation between halves": order.between}
        named |= {"ceiling": order.ceiling}
        rows += [(name, *vars(found).values(), heads, orders) for name, found in named.items()]
    return pd.DataFrame(rows, columns=["quantity", "value", "low", "high", "of", "images"])
