"""Where heads come from: one network's heads held against another's, head by head, on the same images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.stats import t as student
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.data.dataset import ChirpDataset, held_out, stack, training_figures
from vitmech_utils.heads.attention import attention_maps
from vitmech_utils.heads.attention_shares import AttentionStatistics, attention_statistics, patch_coverage
from vitmech_utils.heads.attention_tables import SINKS
from vitmech_utils.heads.estimates import estimate, fast_dtype
from vitmech_utils.heads.semantics import classify
from vitmech_utils.heads.sinks import Sinks
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.model.classifier import with_readout
from vitmech_utils.model.finetune import fine_tune_profile, recipe_settings
from vitmech_utils.model.lora import update_norms
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.model.scores import ANSWERS, held_out_losses, kept_reading, predict_dataset, score
from vitmech_utils.profile_sections import Ablation, Origin
from vitmech_utils.profiles import Profile
from vitmech_utils.statistics import SURE, Interval, adjust, percentile_bounds, rank_correlation
from vitmech_utils.studies.trainings.measure import class_agreement

TEXTS = ("title", "axis label", "tick label", "colour-bar label")
Groups = Mapping[str, tuple[str, ...]]
GROUPS: Groups = {
    "chirp": ("chirp",),
    "text": TEXTS,
    "edge": ("frame",),
    "colour bar": ("colour bar",),
    "background": ("plot background", "margin"),
}
"""What a head can be about, in the words of the study's claims, and the regions that count as it."""
SUBJECTS = (*GROUPS, "several things", "nothing")
TRAINED = ("pre-trained", "fine-tuned", "bare")
PAIRS = (("pre-trained", "fine-tuned"), ("pre-trained", "bare"), ("bare", "fine-tuned"))
"""Networks that are compared, before and after."""
COMPARED = ("chirp", "title", "axis label", "tick label", "frame", "colour bar")
"""The regions whose lifts are compared one by one."""
HEAD = ["layer", "head"]


# The networks


@checked_arguments()
def train_bare(
    profile: Profile,
    seed: int,
    checkpoints: Path,
    device: torch.device,
    folder: Path,
    test: ChirpDataset,
) -> Path:
    """Fine-tune on bare figures as chapter 02 does on decorated ones, and save the adapter with its record."""
    training = fine_tune_profile(profile, seed, checkpoints, device, figures="bare")
    scores = score(*predict_dataset(training.regressor, test)).to_dict("records")
    record = training.record(profile, seed, figures="bare", score=scores, **recipe_settings(profile))
    return training.regressor.save(folder, training=record)


@checked_arguments()
def four_networks(
    fine_tuned: ChirpRegressor, bare: ChirpRegressor, readout_images: int
) -> dict[str, ChirpRegressor]:
    """The networks that the chapter compares, of one architecture, all on the device of `fine_tuned`.

    The untrained and the pre-trained one have no head for chirps: they get the best linear readout of their CLS token,
    fitted on as many training images as `readout_images`.
    """
    images = ChirpDataset(readout_images, seed=0, split="train")
    return {
        "untrained": with_readout(fine_tuned.untrained_twin(), images),
        "pre-trained": with_readout(fine_tuned.without_adapter().to(fine_tuned.device), images),
        "fine-tuned": fine_tuned,
        "bare": bare,
    }


@checked_arguments()
def in_brief(record: Mapping) -> dict[str, object]:
    """What two trainings must share to be matched, and their precision, from a record kept beside an adapter."""
    return {
        "steps": record["steps"],
        "images per step": record["batch_size"],
        "restart at step": record.get("restart", 0),
        "distinct images": record["distinct_images"],
        "seed": record["seed"],
        "largest learning rate": max(
            row["learning_rate"] for row in record["history"] if row["learning_rate"] is not None
        ),
        "precision": record.get("precision", "not recorded"),
    }


@checked_arguments()
def recipe_table(trainings: Mapping[str, Mapping[str, object]]) -> pd.DataFrame:
    """The settings of both trainings side by side, by name; the precision, which is no setting, is left out."""
    names = (
        "steps",
        "images per step",
        "restart at step",
        "distinct images",
        "seed",
        "largest learning rate",
    )
    return pd.DataFrame(
        {name: {what: trainings[name][what] for what in names} for name in ("fine-tuned", "bare")}
    )


@checked_arguments()
def scores_on(networks: Mapping[str, ChirpRegressor], figures: Mapping[str, ChirpDataset]) -> pd.DataFrame:
    """The table of `score` for every network on every kind of figures: columns network and figures besides."""
    return pd.concat(
        [
            score(*predict_dataset(network, images)).assign(network=name, figures=kind)
            for name, network in networks.items()
            for kind, images in figures.items()
        ],
        ignore_index=True,
    )


@checked_arguments()
def joined(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Tables of several networks as one, with a column network."""
    return pd.concat([table.assign(network=name) for name, table in tables.items()], ignore_index=True)


@checked_arguments()
def apart(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The networks' own tables again, in their order, from what `joined` made."""
    return {
        name: part.drop(columns="network").reset_index(drop=True)
        for name, part in table.groupby("network", sort=False)
    }


# Attention and classes


@checked_arguments()
def against_itself(model: nn.Module, images: Mapping[str, Tensor]) -> float:
    """The largest change of any lift between two looks at the same network on the same images, in doublings."""
    looks = [attention_statistics(model, images, replicates=20) for _ in range(2)]
    return float(lift_changes(*looks)["doublings"].abs().max())


@checked_arguments()
def lift_changes(
    before: AttentionStatistics, after: AttentionStatistics, confidence: float = 0.95
) -> pd.DataFrame:
    """How each head's lift on each region differs between two networks, with paired intervals over images.

    Both must come from `attention_statistics` on the same images with the same seed and number of replicates: each
    bootstrap replicate then redraws the same images for both. One row per layer, head (0-based) and region that the
    images have: lift_before, lift_after (dimensionless; 1 is an even look), doublings (log2 of after / before) with
    low and high, p_value (two-sided, Student's t with the replicates' spread) and q_value (Benjamini-Hochberg over
    all rows). Where the replicates do not vary, as with a single image, the p-value is 1. CLS queries, raw weights,
    sinks kept. Raises `ValueError` where the two do not belong together.
    """
    for what in ("names", "images", "grid"):
        if getattr(before, what) != getattr(after, what):
            raise ValueError(
                f"the two differ in {what} ({getattr(before, what)} and {getattr(after, what)}), expected statistics "
                "of the same images"
            )
    one, other = (_lifts(statistics) for statistics in (before, after))
    if one.shape != other.shape:
        raise ValueError(
            f"the two hold replicates x layers x heads x regions {one.shape} and {other.shape}, expected one shape"
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        doublings = np.log2(other / one)
    doublings[~np.isfinite(doublings)] = np.nan  # no attention on one side: no ratio
    told = np.isfinite(doublings[0]) & (np.isfinite(doublings[1:]).sum(0) > 1)
    spread, low, high = (np.full(told.shape, np.nan) for _ in range(3))
    spread[told] = np.nanstd(doublings[1:, told], axis=0, ddof=1)
    low[told], high[told] = percentile_bounds(doublings[1:, told], confidence)
    rows = []
    for layer, head, region in np.argwhere(np.isfinite(doublings[0])).tolist():
        place = (layer, head, region)
        rows.append(
            (layer, head, before.names[region], one[0][place], other[0][place], doublings[0][place],
             low[place], high[place], _p_value(doublings[0][place], spread[place], before.images))
        )  # fmt: skip
    columns = ["layer", "head", "region", "lift_before", "lift_after", "doublings", "low", "high", "p_value"]
    table = pd.DataFrame(rows, columns=columns)
    table["q_value"] = adjust(table["p_value"].to_numpy()) if len(table) else []
    return table


@checked_arguments()
def subjects(classes: pd.DataFrame, groups: Groups = GROUPS) -> pd.Series:
    """What each head of a table of `classify` is about, in the table's order; of `GROUPS`, one of `SUBJECTS`.

    A mono- or polysemantic head whose regions all lie in one of `groups` is about that group, with regions of several
    groups about "several things"; heads of every other class are about "nothing". A region that is in no group is a
    group of its own.
    """
    group_of = {region: name for name, regions in groups.items() for region in regions}

    def subject(kind: str, regions: str) -> str:
        if kind not in ("monosemantic", "polysemantic") or not regions:
            return "nothing"
        found = {group_of.get(region, region) for region in regions.split(" + ")}
        return found.pop() if len(found) == 1 else "several things"

    named = [
        subject(kind, regions) for kind, regions in zip(classes["class"], classes["regions"], strict=True)
    ]
    return pd.Series(named, index=classes.index, name="subject")


@checked_arguments()
def moves_over_thresholds(before: pd.DataFrame, after: pd.DataFrame, sure: float = SURE) -> pd.DataFrame:
    """`transitions` between two tables of `semantics.classes_over_thresholds`, threshold by threshold.

    The columns of `transitions` with threshold and value.
    """
    key = ["threshold", "value"]
    later = dict(list(after.groupby(key, dropna=False, sort=False)))
    parts = []
    for name, part in before.groupby(key, dropna=False, sort=False):
        same = next(found for other, found in later.items() if str(other) == str(name))
        moved = transitions(part.reset_index(drop=True), same.reset_index(drop=True), sure)
        parts.append(moved.assign(threshold=name[0], value=name[1]))
    return pd.concat(parts, ignore_index=True)


@checked_arguments()
def transitions(
    before: pd.DataFrame, after: pd.DataFrame, sure: float = SURE, groups: Groups = GROUPS
) -> pd.DataFrame:
    """Pair two tables of `classify`: one row per head with its subject (`subjects`) and class before and after.

    Columns: layer, head (0-based), class_before, class_after, regions_before, regions_after, subject_before,
    subject_after, sure (both classes keep in at least this share of redrawn sets of images).
    """
    columns = ["layer", "head", "class", "regions", "confidence"]
    named = [table[columns].assign(subject=subjects(table, groups)) for table in (before, after)]
    joined = named[0].merge(
        named[1], on=["layer", "head"], suffixes=("_before", "_after"), validate="one_to_one"
    )
    joined["sure"] = (joined["confidence_before"] >= sure) & (joined["confidence_after"] >= sure)
    return joined.drop(columns=["confidence_before", "confidence_after"])


@checked_arguments()
def origins(moves: pd.DataFrame) -> list[list[str]]:
    """Where what each head is about comes from, [layer][head], from a table of `transitions`.

    "inherited" where its subject is the same before and after, "emerged" and "lost" where it has one on one side alone,
    else "changed"; "nothing" where it has none on either.
    """
    words = {
        (True, True): "changed",
        (False, True): "emerged",
        (True, False): "lost",
        (False, False): "nothing",
    }
    shape = int(moves["layer"].max()) + 1, int(moves["head"].max()) + 1
    found = [["" for _ in range(shape[1])] for _ in range(shape[0])]
    for row in moves.itertuples():
        had, has = row.subject_before != "nothing", row.subject_after != "nothing"
        same = had and row.subject_before == row.subject_after
        found[row.layer][row.head] = "inherited" if same else words[had, has]
    return found


@checked_arguments()
def classified_again(
    model: nn.Module, images: Mapping[str, Tensor], effects: pd.DataFrame, sinks: Sinks, seed: int = 0
) -> pd.DataFrame:
    """The classes of a network from other images, its effects of twins and its sinks as they are."""
    statistics = attention_statistics(model, images, sinks=sinks.mask, seed=seed)
    return classify(statistics, effects, sinks)


@checked_arguments()
def class_agreements(classes: Mapping[str, Mapping[str, pd.DataFrame]]) -> pd.DataFrame:
    """In how many heads trainings have the same class, as `trainings.measure.class_agreement` has it, by training.

    First every two trainings on decorated figures, which differ in their seed alone; then each of them and the one on
    bare figures from the same seed. Only what goes beyond the first can be due to the decorations.
    """
    tuned = {name: tables["fine-tuned"] for name, tables in classes.items()}
    bare = [
        class_agreement({name: tables["fine-tuned"], f"{name}, bare figures": tables["bare"]}, None)
        for name, tables in classes.items()
    ]
    return pd.concat([class_agreement(tuned, None), *bare], ignore_index=True)


@checked_arguments()
def all_transitions(
    classes: Mapping[str, pd.DataFrame], sure: float = SURE
) -> dict[tuple[str, str], pd.DataFrame]:
    """The `transitions` of every pair of `PAIRS`."""
    return {(one, other): transitions(classes[one], classes[other], sure) for one, other in PAIRS}


@checked_arguments()
def about(regions: pd.Series, group: str, groups: Groups = GROUPS) -> pd.Series:
    """Whether each head's `regions`, as `classify` writes them, hold one of a group, or the region of that name."""
    wanted = set(groups.get(group, (group,)))
    return regions.map(lambda text: bool(wanted & set(text.split(" + "))))


@checked_arguments()
def fates(moves: pd.DataFrame, groups: Groups = GROUPS) -> pd.DataFrame:
    """Count, for each of `groups`, what became of the heads that are about it, from a table of `transitions`.

    Regions that are in no group come after them, each by itself. A head counts for every group that one of its regions
    belongs to, so a polysemantic head may count for several. Columns: subject, before, after, kept, appeared, vanished,
    and the same three for heads whose classes are sure both times (kept_sure, appeared_sure, vanished_sure). kept +
    vanished = before, kept + appeared = after.
    """
    rows = []
    named = {
        region
        for when in ("before", "after")
        for text in moves[f"regions_{when}"]
        for region in text.split(" + ")
    }
    alone = sorted(named - {""} - set().union(*groups.values()))
    for name in (*groups, *alone):
        was, is_now = (about(moves[f"regions_{when}"], name, groups) for when in ("before", "after"))
        parts = {"kept": was & is_now, "appeared": ~was & is_now, "vanished": was & ~is_now}
        counts = {key: int(part.sum()) for key, part in parts.items()}
        certain = {f"{key}_sure": int((part & moves["sure"]).sum()) for key, part in parts.items()}
        rows.append(
            {"subject": name, "before": int(was.sum()), "after": int(is_now.sum()), **counts, **certain}
        )
    return pd.DataFrame(rows)


@checked_arguments()
def total_change(changes: pd.DataFrame) -> pd.DataFrame:
    """One number for how much each head's attention changed: mean absolute doublings over the regions.

    From a table of `lift_changes`; columns layer, head, change. Regions to which a head gave nothing on either side
    (no finite number of doublings) are left out.
    """
    sizes = changes.assign(change=changes["doublings"].abs())
    return sizes.groupby(["layer", "head"], as_index=False)["change"].mean()


@checked_arguments()
def clear_changes(changes: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Count the heads whose lift on a region clearly changed, up or down: region, direction, a column per network.

    Clear is a q-value below 0.05 over all heads and regions of a network.
    """
    counted = {}
    for name, table in changes.items():
        clear = table[table["q_value"] < 0.05]
        direction = np.where(clear["doublings"] > 0, "more", "less")
        counted[name] = clear.assign(direction=direction).groupby(["region", "direction"]).size()
    rows = pd.MultiIndex.from_product([COMPARED, ("more", "less")], names=["region", "direction"])
    return pd.DataFrame(counted).reindex(rows).fillna(0).astype(int).reset_index()


@checked_arguments()
def agreement(changes: Mapping[str, pd.DataFrame]) -> Interval:
    """Rank correlation of two networks' changes of lift, over all heads and regions."""
    order = [*HEAD, "region"]
    return rank_correlation(
        *(table.sort_values(order)["doublings"].to_numpy() for table in changes.values()), draws=500
    )


# Updates and effects


@checked_arguments()
def held_out_losses_of(folders: Mapping[str, Path]) -> dict[str, Float[ndarray, "held_out target"]]:
    """The losses on the whole held-out set of the networks whose adapters keep their answers there."""
    return {
        name: held_out_losses(kept_reading(folder))
        for name, folder in folders.items()
        if (folder / ANSWERS).is_file()
    }


@checked_arguments()
def network_effects(
    networks: Mapping[str, ChirpRegressor],
    whole: Mapping[str, Float[ndarray, "held_out target"]],
    plan: Origin,
    settings: Ablation,
) -> dict[str, pd.DataFrame]:
    """Effects of mean ablation in every trained network on the same held-out images, as `sweep` tabulates them.

    To first order on the plan's `effect_images`, exactly on `exact_images` of them (`estimates.estimate`), means from
    the `reference_images` of the `settings`. Percentages are of the network's losses on the `whole` held-out set; of
    one that has none there, of these images.
    """

    def draw(numbers: Int[ndarray, " image"]) -> tuple[Tensor, Tensor]:
        data = stack(ChirpDataset(int(numbers.max()) + 1, split="held-out"), numbers.tolist())
        return data["pixel_values"], data["labels"].double()

    found, reference = {}, training_figures(settings.reference_images)["pixel_values"]
    for name in TRAINED:
        model = networks[name]
        one = estimate(
            model, draw, plan.effect_images, plan.exact_images, "mean", reference=reference, task=model.task,
            layers=find_blocks(model).every(plan.sweep_every), exact_batch=settings.batch,
            dtype=fast_dtype(model),
        )  # fmt: skip
        found[name] = one.losses(whole.get(name)).table(settings.bootstrap)
    return found


@checked_arguments()
def updates(
    networks: Mapping[str, ChirpRegressor],
    changes: Mapping[str, pd.DataFrame],
    effects: Mapping[str, pd.DataFrame],
) -> dict[str, pd.DataFrame]:
    """The size of every head's update beside what changed: its attention, and its effect (percentage points)."""
    plain, tables = networks["pre-trained"], {}
    for name, table in changes.items():
        norms = update_norms(networks[name], plain).groupby(HEAD, as_index=False)["relative"].mean()
        moved = (effects[name]["effect"] - effects["pre-trained"]["effect"]).abs().to_numpy()
        effect = effects[name][HEAD].assign(effect=moved)
        tables[name] = norms.merge(total_change(table), on=HEAD).merge(effect, on=HEAD)
    return tables


@checked_arguments()
def update_links(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Rank correlations of the sizes of updates with what changed: network, against, correlation, low, high."""
    rows = []
    for name, table in tables.items():
        for what in ("change", "effect"):
            found = rank_correlation(table["relative"].to_numpy(), table[what].to_numpy())
            rows.append((name, what, found.value, found.low, found.high))
    return pd.DataFrame(rows, columns=["network", "against", "correlation", "low", "high"])


@checked_arguments()
def shared_effects(effects: Mapping[str, pd.DataFrame]) -> dict[str, Interval]:
    """Rank correlation of the fine-tuned network's effects with those of each other one."""
    return {
        name: rank_correlation(effects[name]["effect"].to_numpy(), effects["fine-tuned"]["effect"].to_numpy())
        for name in ("pre-trained", "bare")
    }


@checked_arguments()
def picker_maps(networks: Mapping[str, ChirpRegressor], count: int) -> dict[str, Tensor]:
    """Maps of the fine-tuned, the pre-trained and the bare network over `count` images and their bare twins.

    Returns maps, twin_maps [network, image, layer, head, row, column] and shares [network, image, layer, head, region].
    """
    shown = [networks[name] for name in ("fine-tuned", "pre-trained", "bare")]
    decorated, bare = held_out(count), held_out(count, "bare")
    maps, twins = (
        torch.stack([attention_maps(model, part["pixel_values"].to(model.device)).cpu() for model in shown])
        for part in (decorated, bare)
    )
    coverage = patch_coverage(decorated["regions"], find_blocks(shown[0]).patch)
    patches = maps / maps.sum((-2, -1), keepdim=True)
    shares = torch.einsum("vilhrc,iprc->vilhp", patches, coverage.to(patches.dtype))
    return {"maps": maps, "twin_maps": twins, "shares": shares}


def _lifts(statistics: AttentionStatistics) -> np.ndarray:
    kept = SINKS.index("kept")
    share, area = (statistics.replicates[name][:, kept, 0] for name in ("share", "area"))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(area > 0, share / area, np.nan)


def _p_value(value: float, spread: float, images: int) -> float:
    if images < 2 or not spread > 0:  # nothing varies, or nothing is known of how it does: no evidence
        return 1.0
    widened = spread * np.sqrt(images / (images - 1))  # the bootstrap's spread is that of a sample of itself
    return float(2 * student.sf(abs(value) / widened, images - 1))
