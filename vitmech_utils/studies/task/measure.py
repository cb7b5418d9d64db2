"""Another task: what titles say to two classifiers, which heads read them, and where importance sits in three networks.

Networks are the `leak` and the `clean` classifier and, later, the regressor. Heads are pairs of layer and head, both
0-based.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor, nn
from torch.utils.data import Subset

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.dataset import ChirpDataset, stack
from vitmech_utils.data.regions import REGIONS
from vitmech_utils.data.sweep_labels import TARGETS, TITLES, SweepDataset, bend, sweep_labels
from vitmech_utils.heads.attention import ByImage, image_shares
from vitmech_utils.heads.attention_shares import AttentionStatistics
from vitmech_utils.heads.choices import heads_looking_at, other_heads
from vitmech_utils.heads.effects import ALL, Losses
from vitmech_utils.heads.estimates import estimate, fast_dtype
from vitmech_utils.heads.hooks import Head
from vitmech_utils.heads.rank_agreement import disattenuated_correlation, permutation_null
from vitmech_utils.heads.sets import HeadPredictions, SetPredictions
from vitmech_utils.intervals import mean_interval
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.model.classifier import SweepClassifier
from vitmech_utils.model.finetune import Training
from vitmech_utils.model.scores import (
    cross_entropies,
    predict_dataset,
    score_classes,
    told_right,
    wilson,
)
from vitmech_utils.profile_sections import Task
from vitmech_utils.profiles import Profile
from vitmech_utils.statistics import Interval, rank_correlation

FIRST = 100
"""The first held-out figure of this chapter: from here on the number in a title has three digits or more, as in nearly
all figures of the training; under numbers of one digit the classifiers are at a loss."""
FIGURES = {"leak": "published", "clean": "none"}
"""Classifier: the title on the figures that it is fine-tuned on."""
KINDS = ("lookers", "carriers")
"""Heads that may read the title: by attention, and by cause."""
BENDS = {"below 1": (0, 1), "1 to 3": (1, 3), "3 and more": (3, np.inf)}
"""Rows of the grid between the two types' paths, from and below."""
LIE = "the title's lie"
LIE_BEYOND_DIRECTION = "the lie, beyond the direction's loss"
LIE_BEYOND_CLEAN = "the lie, beyond the clean model's loss"
TASKS, QUESTIONS, TRAININGS, SHORTCUT = (
    "other task: regressor and clean model",
    "other question: type and direction, clean model",
    "other training: direction, leak and clean model",
    "shortcut: type, leak and clean model",
)
COMPARED = {
    TASKS: (("regressor", ALL), ("clean", ALL)),
    QUESTIONS: (("clean", "type"), ("clean", "direction")),
    TRAININGS: (("leak", "direction"), ("clean", "direction")),
    SHORTCUT: (("leak", "type"), ("clean", "type")),
}
"""Orders of heads that are compared: a network and what it is asked, twice."""
UNTUNED = {
    "before fine-tuning: regressor and untuned backbone": ["regressor", "untuned"],
    "before fine-tuning: clean model and untuned backbone": ["clean", "untuned"],
}
"""Orders of heads by attention that tell what two networks share by having the same pre-trained weights."""
ASKED = [(name, target) for target in TARGETS for name in FIGURES] + [("regressor", ALL)]
"""Each network with each of its questions."""
TYPE, DIRECTION = TARGETS.index("type"), TARGETS.index("direction")

Logits = Mapping[tuple[str, str], Float[ndarray, "image target"]]
"""Answers by classifier and title."""
Right = Mapping[tuple[str, str], Float[ndarray, "image target"]]
"""1 for a right answer, by classifier and title."""
Labels = Float[ndarray, "image target"]
ByKind = dict[str, Float[ndarray, "image *target"]]
Shifts = Float[ndarray, "head image"]
"""How far answers move without each head, image by image."""
Read = Mapping[str, Callable[[], ByImage]]
"""What each network sees and says of its own figures, read when first asked for."""


@checked_arguments()
def random_of(kind: str) -> str:
    """The name of a kind's control."""
    return f"random heads of the {kind}' layers"


# Figures and trainings


@dataclass(frozen=True)
class Chirps:
    """Labels of chirps, each 0 or 1, and how far in rows of the grid their path lies from the other type's."""

    labels: Labels
    bends: Float[ndarray, " image"]


@checked_arguments()
def held_out_chirps(count: int) -> Chirps:
    """The held-out chirps from number `FIRST` on, without their figures."""
    drawn = SweepDataset(FIRST + count, "none", seed=0, split="held-out")
    chirps = [drawn.chirp(index) for index in range(FIRST, FIRST + count)]
    return Chirps(
        np.stack([sweep_labels(chirp) for chirp in chirps]), np.array([bend(chirp) for chirp in chirps])
    )


@checked_arguments()
def bends(count: int) -> pd.DataFrame:
    """The bend of many held-out chirps."""
    return pd.DataFrame({"bend": held_out_chirps(count).bends})


@checked_arguments()
def titled(count: int, title: str, split: str = "held-out") -> dict[str, Tensor]:
    """The figures of a split from number `FIRST` on, under a title, as one batch."""
    return titled_figures(FIRST + np.arange(count), title, split)


@checked_arguments()
def titled_figures(numbers: Int[ndarray, " image"], title: str, split: str = "held-out") -> dict[str, Tensor]:
    """The figures of a split with these numbers, under a title, as one batch."""
    return stack(SweepDataset(int(numbers.max()) + 1, title, seed=0, split=split), numbers.tolist())


@checked_arguments()
def decorated(count: int, split: str = "held-out") -> dict[str, Tensor]:
    """The chapter's first `count` figures as the regressor knows them."""
    return stack(ChirpDataset(FIRST + count, split=split), range(FIRST, FIRST + count))


@checked_arguments()
def three_chirps(
    bends: Float[ndarray, " image"], population: Float[ndarray, " chirp"]
) -> tuple[int, int, int]:
    """The flattest of the chirps, one that is typical of a population, and the most curved, by their number."""
    order = np.argsort(bends)
    typical = np.searchsorted(bends[order], np.median(population)).clip(1, len(order) - 2)
    return int(order[0]), int(order[typical]), int(order[-1])


@checked_arguments()
def records(trained: Mapping[str, Training], profile: Profile, recipe: Profile, seed: int) -> dict[str, dict]:
    """What is kept of how each classifier was trained; `recipe` is the profile, or its rehearsal."""
    return {
        name: done.record(
            profile,
            seed,
            title=FIGURES[name],
            batch_size=profile.task.batch_size,
            distinct_images=recipe.task.steps * profile.task.batch_size,
        )
        for name, done in trained.items()
    }


@checked_arguments()
def save_classifiers(
    trained: Mapping[str, Training],
    records: Mapping[str, dict],
    scores: pd.DataFrame,
    folder: Path,
    seed: int,
) -> list[str]:
    """Save this run's classifiers, each with the record of its training and its scores; their folders' names."""
    names = []
    for name, kind in (("leak", "titled"), ("clean", "untitled")):
        score = scores[scores["model"] == name].drop(columns="model").to_dict("records")
        names.append(f"classifier-{kind}-seed-{seed}")
        trained[name].regressor.save(folder / names[-1], training=records[name] | {"score": score})
    return names


@checked_arguments()
def answers(
    models: Mapping[str, Callable[[], SweepClassifier]],
    read: Read,
    images: int,
    batch: int,
    titles: Sequence[str] = TITLES,
) -> dict[tuple[str, str], Float[ndarray, "image target"]]:
    """Each classifier's answers under each of `titles`; those under its own are read off already."""
    found = {(name, title): read[name]().predictions for name, title in FIGURES.items()}
    for name in FIGURES:
        for title in titles:
            if (name, title) not in found:
                every = SweepDataset(FIRST + images, title, seed=0, split="held-out")
                figures = Subset(every, range(FIRST, FIRST + images))
                found[name, title] = predict_dataset(models[name](), figures, batch)[0]
    return found


# What the titles say


@checked_arguments()
def scores(logits: Logits, labels: Labels) -> pd.DataFrame:
    """How well each classifier answers under its own title, as `score_classes` has it, with the `model`."""
    return pd.concat(
        [score_classes(logits[name, title], labels).assign(model=name) for name, title in FIGURES.items()]
    )


@checked_arguments()
def by_title(logits: Logits, labels: Labels) -> pd.DataFrame:
    """How well each classifier answers under every title, with `model` and `title`."""
    return pd.concat(
        [
            score_classes(found, labels).assign(model=name, title=title)
            for (name, title), found in logits.items()
        ],
        ignore_index=True,
    )


@checked_arguments()
def right_answers(logits: Logits, labels: Labels) -> dict[tuple[str, str], Float[ndarray, "image target"]]:
    """1 for every right answer, else 0."""
    return {key: told_right(found, labels).astype(float) for key, found in logits.items()}


@checked_arguments()
def follows_the_lie(right: Right) -> dict[str, Interval]:
    """How often each classifier's answer on the type follows a lying title."""
    return {name: wilson(right[name, "swapped"][:, TYPE] == 0) for name in FIGURES}


@checked_arguments()
def falls(right: Right, bootstrap: int) -> dict[str, Interval]:
    """What the lie takes from the share of right answers: on the type, and beyond what else it takes."""

    def lost(name: str, target: int) -> Float[ndarray, " image"]:
        return right[name, "published"][:, target] - right[name, "swapped"][:, target]

    lie = lost("leak", TYPE)
    return {
        LIE: mean_interval(lie, bootstrap),
        LIE_BEYOND_DIRECTION: mean_interval(lie - lost("leak", DIRECTION), bootstrap),
        LIE_BEYOND_CLEAN: mean_interval(lie - lost("clean", TYPE), bootstrap),
    }


@checked_arguments()
def by_bend(right: Right, bends: Float[ndarray, " image"]) -> pd.DataFrame:
    """Accuracy on the type, each classifier under its own title, by bend: model, bin, images, accuracy, low, high."""
    rows = []
    for name, title in FIGURES.items():
        for bin_name, (low, high) in BENDS.items():
            inside = (bends >= low) & (bends < high)
            if inside.any():
                found = wilson(right[name, title][inside, TYPE] == 1)
                row = {"model": name, "bin": bin_name, "images": int(inside.sum())}
                rows.append(row | {"accuracy": found.value, "low": found.low, "high": found.high})
    return pd.DataFrame(rows)


# The heads that read the title


@checked_arguments()
def halves(images: int, sweep_images: int) -> tuple[slice, slice, slice]:
    """The images that heads are tested on, and those on which carriers and lookers are sought.

    Heads are sought on one half and tested on the other, unless there are too few images for two.
    """
    half = max(2, images // 2)
    if half >= images:
        return slice(0, half), slice(0, half), slice(0, images)
    return slice(0, half), slice(half, min(images, half + sweep_images)), slice(half, images)


@checked_arguments()
def swept(model: nn.Module, every: int) -> list[int]:
    """The layers whose heads are swept."""
    return find_blocks(model).every(every)


@checked_arguments()
def towards_the_lie(labels: Labels) -> Float[ndarray, " image"]:
    """Where the lie pulls the logit of the type: up (1) for a linear sweep, down (-1) for an exponential one."""
    return 1 - 2 * labels[:, TYPE]


@checked_arguments()
def pulled(logits: Logits, labels: Labels) -> Float[ndarray, " image"]:
    """How far the lie moves the leak model's logit of the type its own way."""
    moved = (logits["leak", "swapped"] - logits["leak", "published"])[:, TYPE]
    return moved * towards_the_lie(labels)


@checked_arguments()
def carried_alone(alone: HeadPredictions, labels: Labels, pull: Float[ndarray, " image"]) -> pd.DataFrame:
    """The part of the lie's `way` that each head moves the logit alone: layer, head, way, images.

    In `alone` each head writes what it writes under the lying title, all else what it writes under the published one.
    """
    moved = (alone.ablated - alone.baseline)[..., TYPE].numpy() * towards_the_lie(labels)
    ways = {"layer": alone.layers, "head": alone.heads, "way": moved.mean(1) / pull.mean()}
    return pd.DataFrame(ways).assign(images=len(labels))


@checked_arguments()
def lookers(statistics: AttentionStatistics) -> pd.DataFrame:
    """The heads that clearly look at the title, as `heads_looking_at` has them, at most as many as a layer has."""
    return heads_looking_at(statistics, ["title"], statistics.mean_weights.shape[2])


@checked_arguments()
def looking_and_carrying(
    carried: pd.DataFrame, statistics: AttentionStatistics, looking: pd.DataFrame
) -> pd.DataFrame:
    """Each head's way and lift on the title, and its kind: lookers, carriers, both, or other heads.

    `looking` names the lookers; carriers are the heads that move the logit farthest the lie's way, at most as many as a
    layer has.
    """
    cell = "query == 'cls' and weighting == 'raw' and sinks == 'kept' and region == 'title'"
    lifts = statistics.regions.query(cell)[["layer", "head", "lift"]]
    table = carried.drop(columns="images").merge(lifts, on=["layer", "head"])
    farthest = table.nlargest(statistics.mean_weights.shape[2], "way").query("way > 0")
    chosen = {"lookers": heads_of(looking), "carriers": heads_of(farthest)}
    kinds = [
        " and ".join(kind for kind, heads in chosen.items() if pair in heads) or "other heads"
        for pair in heads_of(table)
    ]
    return table.assign(kind=kinds, images=carried["images"].iloc[0])


@checked_arguments()
def carriers(table: pd.DataFrame) -> pd.DataFrame:
    """The carriers among the heads of a table of `looking_and_carrying`, those that move the logit farthest first."""
    found = table[table["kind"].str.contains("carriers")]
    return found.nlargest(len(found), "way").reset_index(drop=True)


@checked_arguments()
def heads_of(table: pd.DataFrame) -> list[Head]:
    """A table's heads, in its order."""
    return list(zip(table["layer"].astype(int), table["head"].astype(int), strict=True))


@dataclass(frozen=True)
class ReadingSets:
    """Sets of heads in a row: of each kind the chosen ones, then random ones of the same layers."""

    sets: list[list[Head]]
    draws: int
    kinds: tuple[str, ...]

    @classmethod
    def drawn(
        cls, model: nn.Module, chosen: Mapping[str, pd.DataFrame], draws: int, rng: np.random.Generator
    ) -> ReadingSets:
        """The chosen heads of each kind, and `draws` random sets for each."""
        heads = {kind: heads_of(table) for kind, table in chosen.items()}
        others = {
            kind: other_heads(model, some, draws, rng, same_layers=True) for kind, some in heads.items()
        }
        return cls([one for kind in heads for one in (heads[kind], *others[kind])], draws, tuple(heads))

    def by_kind(self, found: Float[ndarray, "set image *target"]) -> ByKind:
        """Split what was found for every set into the chosen heads and the mean over their random sets."""
        result, size = {}, 1 + self.draws
        for start, kind in zip(range(0, size * len(self.kinds), size), self.kinds, strict=True):
            result[kind] = found[start]
            result[random_of(kind)] = found[start + 1 : start + size].mean(0)
        return result


@checked_arguments()
def rises(found: SetPredictions, labels: Tensor, sets: ReadingSets) -> ByKind:
    """By kind, image and target: by how many nats the cross-entropy grows without the heads."""
    without, baseline = (cross_entropies(said, labels) for said in (found.ablated, found.baseline))
    return sets.by_kind(without - baseline)


@checked_arguments()
def set_table(rise: Mapping[str, ByKind], bootstrap: int) -> pd.DataFrame:
    """The mean rise by model, target and kind: images, effect, low, high (nats)."""
    rows = []
    for name, found in rise.items():
        for place, target in enumerate(TARGETS):
            for kind, change in found.items():
                effect = mean_interval(change[:, place], bootstrap)
                row = {"model": name, "target": target, "kind": kind, "images": len(change)}
                rows.append(row | {"effect": effect.value, "low": effect.low, "high": effect.high})
    return pd.DataFrame(rows)


@checked_arguments()
def beyond_random(rise: Mapping[str, ByKind], bootstrap: int) -> dict[tuple[str, str, str], Interval]:
    """How much more the loss rises without the chosen heads than without random ones, by kind, model and target."""
    return {
        (kind, name, target): mean_interval(
            found[kind][:, place] - found[random_of(kind)][:, place], bootstrap
        )
        for name, found in rise.items()
        for place, target in enumerate(TARGETS)
        for kind in KINDS
        if kind in found
    }


@checked_arguments()
def wrong_when_patched(patched: Tensor, labels: Labels, sets: ReadingSets) -> ByKind:
    """By kind: the share of answers on the type that follow the lie while these heads alone see it."""
    return sets.by_kind((~told_right(patched.numpy(), labels)[..., TYPE]).astype(float))


@checked_arguments()
def part_of_the_way(
    patched: Tensor,
    logits: Float[ndarray, "image target"],
    labels: Labels,
    pull: Float[ndarray, " image"],
    sets: ReadingSets,
    draws: Int[ndarray, "draw image"],
) -> pd.DataFrame:
    """How much of the way that the lie moves the logit it moves it through each kind of heads: kind, value, low, high.

    1 is all the way. `logits` are the answers when nothing is swapped, `draws` numbers of images drawn at random.
    """
    moved = sets.by_kind((patched[..., TYPE].numpy() - logits[:, TYPE]) * towards_the_lie(labels))
    rows = []
    for kind, found in moved.items():
        drawn = found[draws].mean(1) / pull[draws].mean(1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        rows.append({"kind": kind, "value": float(found.mean() / pull.mean()), "low": low, "high": high})
    return pd.DataFrame(rows)


@checked_arguments()
def patching_table(wrong: ByKind, right: Right, tested: slice, bootstrap: int) -> pd.DataFrame:
    """The share of answers that follow the lie, by which heads see it: what, share, low, high, images, patched."""
    shares = {
        "nothing is swapped": right["leak", "published"][tested, TYPE] == 0,
        **wrong,
        "the whole model": right["leak", "swapped"][tested, TYPE] == 0,
    }
    averaged, rows = [random_of(kind) for kind in KINDS], []
    for what, follow in shares.items():
        # Random sets are averaged per image, so that an image counts once; single answers get Wilson's interval.
        found = mean_interval(follow, bootstrap) if what in averaged else wilson(follow == 1)
        row = {"what": what, "share": found.value, "low": found.low, "high": found.high}
        rows.append(row | {"images": len(follow), "patched": what in KINDS})
    return pd.DataFrame(rows)


@checked_arguments()
def more_than_random(wrong: ByKind, bootstrap: int) -> dict[str, Interval]:
    """How many more of the answers follow the lie through the chosen heads than through random ones."""
    return {kind: mean_interval(wrong[kind] - wrong[random_of(kind)], bootstrap) for kind in KINDS}


# Where importance sits


@checked_arguments()
def asked_of(table: pd.DataFrame, name: str, target: str) -> pd.DataFrame:
    """One network's and target's rows of a table with `model` and `target`."""
    rows = table[(table["model"] == name) & (table["target"] == target)]
    return rows.drop(columns="model").reset_index(drop=True)


@checked_arguments()
def joined(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Tables of several networks in one, with the `model`."""
    return pd.concat([found.assign(model=name) for name, found in tables.items()])


@checked_arguments()
def harm_by(against: pd.DataFrame, effects: pd.DataFrame) -> dict[str, dict[str, float]]:
    """The part of all positive effects on the type that lookers or carriers have, in each classifier."""
    found: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
    for kind in KINDS:
        for name in FIGURES:
            harmful = asked_of(effects, name, "type")["effect"].clip(lower=0)
            found[kind][name] = float(harmful[against["kind"].str.contains(kind)].sum() / harmful.sum())
    return found


@checked_arguments()
def effect_ranks_with(against: pd.DataFrame, bootstrap: int) -> dict[str, Interval]:
    """Rank correlations of a head's single effect with its lift on the title and with the way it carries."""
    return {
        value: rank_correlation(against[value].to_numpy(), against["effect"].to_numpy(), bootstrap)
        for value in ("lift", "way")
    }


# Orders of heads


@dataclass(frozen=True)
class WithoutHeads:
    """A network without each of its heads in turn, by mean ablation: its losses, and how far its answers move."""

    losses: Losses
    shifts: Shifts


@checked_arguments()
def relative_shifts(found: HeadPredictions) -> Shifts:
    """How far answers move: squared, over the variance of each answer, averaged over answers."""
    spread = found.baseline.numpy().std(0).clip(1e-12)
    return (((found.ablated - found.baseline).numpy() / spread) ** 2).mean(-1)


@checked_arguments()
def without_heads(
    model: nn.Module, title: str | None, plan: Task, reference: Tensor, batch: int, layers: Sequence[int]
) -> WithoutHeads:
    """Ablate each head of some layers: how its losses grow, per image and target, and how far its answers move.

    Losses are to first order on the plan's `effect_images` from number `FIRST` on, exact on `exact_images` of them
    (`estimates.estimate`), shifts to first order (`relative_shifts`). `title` is that of the classifier's figures, None
    for the regressor's.
    """

    def draw(numbers: Int[ndarray, " image"]) -> tuple[Tensor, Tensor]:
        numbers = FIRST + numbers
        if title is not None:
            data = titled_figures(numbers, title)
        else:
            data = stack(ChirpDataset(int(numbers.max()) + 1, split="held-out"), numbers.tolist())
        return data["pixel_values"], data["labels"].double()

    how = {"reference": reference, "layers": layers, "exact_batch": batch, "task": model.task}
    shifts: list[Shifts] = []
    how |= {"dtype": fast_dtype(model), "look": lambda _, linear: shifts.append(relative_shifts(linear))}
    found = estimate(model, draw, plan.effect_images, plan.exact_images, "mean", **how)
    return WithoutHeads(replace(found.losses(), relative=False), shifts[0])


@checked_arguments()
def attention_order(read: ByImage, regions: Tensor, changes: Losses) -> Float[ndarray, "region head image"]:
    """Attention shares of the swept heads on the regions that figures have with and without a title."""
    common = [region for region in REGIONS if region != "title"]
    shares = [image_shares(read, regions, region)[0] for region in common]
    return np.stack([found[:, changes.layers, changes.heads].T for found in shares])


@checked_arguments()
def order_table(
    changes: Mapping[str, Losses],
    looks: Mapping[str, Float[ndarray, "region head image"]],
    bootstrap: int,
) -> pd.DataFrame:
    """How much of their order of heads two networks or questions share, as `SharedOrder` has it.

    Columns: what, quantity, images, heads, share, low, high, and between and ceiling with their bounds. By effect for
    all of `COMPARED`, by attention where there are two networks, and for `UNTUNED`, the control of both tasks.
    """
    found = {}
    for what, pair in COMPARED.items():
        effects = [changes[name].of(target)[None] for name, target in pair]
        found["effect", what] = disattenuated_correlation(*effects, bootstrap)
    seen = {what: [name for name, _ in COMPARED[what]] for what in (TASKS, TRAININGS)} | UNTUNED
    for what, names in seen.items():
        pair = [looks[name] for name in names]
        found["attention", what] = disattenuated_correlation(*pair, bootstrap)
    heads, rows = len(changes["clean"].layers), []
    for (quantity, what), order in found.items():
        row = {"what": what, "quantity": quantity, "images": 2 * order.images, "heads": heads}
        row |= {"share": order.share.value, "low": order.share.low, "high": order.share.high}
        for name, value in (("between", order.between), ("ceiling", order.ceiling)):
            row |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
        rows.append(row)
    return pd.DataFrame(rows)


@checked_arguments()
def permuted_table(
    changes: Mapping[str, Losses],
    looks: Mapping[str, Float[ndarray, "region head image"]],
    bootstrap: int,
) -> pd.DataFrame:
    """What is left of the tasks' rank correlation when heads change places: quantity, moved, value, low, high."""
    effects = [changes[name].of(target).mean(1)[None] for name, target in COMPARED[TASKS]]
    shares = [looks[name].mean(2) for name, _ in COMPARED[TASKS]]
    rows = []
    for quantity, pair in (("effect", effects), ("attention", shares)):
        for moved, layers in (("within layers", changes["clean"].layers), ("among all", None)):
            found = permutation_null(*pair, layers, bootstrap)
            rows.append({"quantity": quantity, "moved": moved, **vars(found)})
    return pd.DataFrame(rows)


@checked_arguments()
def as_they_are(changes: Mapping[str, Losses], bootstrap: int) -> Interval:
    """The rank correlation of both tasks' effects with all images."""
    effects = [changes[name].of(target).mean(1) for name, target in COMPARED[TASKS]]
    return rank_correlation(*effects, bootstrap)


@checked_arguments()
def bounds(table: pd.DataFrame, by: str, value: str = "value", ends: str = "") -> dict[str, Interval]:
    """The intervals of a table by what one of its columns says; `ends` stands before low and high."""
    return {
        str(row[by]): Interval(float(row[value]), float(row[f"{ends}low"]), float(row[f"{ends}high"]))
        for _, row in table.iterrows()
    }


# What the rule judges


@dataclass(frozen=True)
class Judged:
    """What the rule reads: the planted shortcut's effects, and how much of their order of heads networks share."""

    control: dict[str, Interval]
    shared: dict[str, Interval]
    ceilings: dict[str, Interval]
    trainings: dict[str, Interval]
    untuned: dict[str, Interval]

    @classmethod
    def of(cls, lie: Mapping[str, Interval], ablated: Interval, orders: pd.DataFrame) -> Judged:
        """From the effects of the lie, that of ablating the carriers, and the table of orders."""
        tasks, trainings = (orders[orders["what"] == what] for what in (TASKS, TRAININGS))
        untuned = orders[orders["what"].isin(UNTUNED)]
        return cls(
            {**lie, "ablated carriers, beyond random heads": ablated},
            bounds(tasks, "quantity", "share"),
            bounds(tasks, "quantity", "ceiling", "ceiling_"),
            bounds(trainings, "quantity", "share"),
            bounds(untuned, "what", "share"),
        )

    def table(self, permuted: pd.DataFrame) -> pd.DataFrame:
        """One row per kind and quantity, with its unit; controls, orders, and what permuted heads leave."""
        left = {
            f"heads permuted{words}": bounds(permuted[permuted["moved"] == moved], "quantity")
            for moved, words in (("within layers", " within layers"), ("among all", ""))
        }
        shares, ranks = {"shared": self.shared}, {"ceiling": self.ceilings}
        rows = [
            ("control", name, found, "nats" if "heads" in name else "share")
            for name, found in self.control.items()
        ]
        for unit, kinds in (
            ("share", shares),
            ("rank correlation", ranks),
            ("share", {"another training": self.trainings}),
            ("share", {"attention before fine-tuning": self.untuned}),
            ("rank correlation", left),
        ):
            rows += [
                (kind, name, found, unit)
                for kind, by_name in kinds.items()
                for name, found in by_name.items()
            ]
        return pd.DataFrame(
            [
                {"kind": kind, "quantity": name, **vars(found), "unit": unit}
                for kind, name, found, unit in rows
            ]
        )


@checked_arguments()
def first_heads(effects: pd.DataFrame, name: str, target: str, count: int) -> set[int]:
    """The rows of the heads with the largest effects."""
    return set(asked_of(effects, name, target).nlargest(count, "effect").index)
