"""Another task, asked of other trainings: what the rule reads, from three networks and on fewer images."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from vitmech_utils.arguments import checked_arguments
from vitmech_utils.heads.ablation import predict_without_heads
from vitmech_utils.heads.attention import by_image
from vitmech_utils.heads.attention_shares import attention_statistics
from vitmech_utils.heads.sets import predict_without_sets
from vitmech_utils.profile_sections import Task, Trainings
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.task import measure
from vitmech_utils.studies.task.agnostic.measure import by_task, shared_orders
from vitmech_utils.studies.task.agnostic.measure import untuned_shifts as untuned_shifts
from vitmech_utils.studies.task.measure import Shifts, WithoutHeads
from vitmech_utils.studies.trainings.measure import of_each as of_each


@checked_arguments()
def asked_again(
    load: Mapping[str, Callable[[], nn.Module]],
    found: Mapping[str, WithoutHeads],
    plan: Task,
    more: Trainings,
    batch: int,
    bootstrap: int,
) -> pd.DataFrame:
    """What the rule reads, as `measure.Judged.table` has it, of the networks "leak", "clean" and "regressor".

    `found` are these networks `without_heads`. The first `attention_images` of the chapter's images serve for attention
    and for the shortcut. Columns images and sweep_images say how many serve for what.
    """
    count = min(plan.images, more.attention_images)
    networks = {name: one() for name, one in load.items()}
    own = {name: measure.titled(count, title) for name, title in measure.FIGURES.items()}
    own["regressor"] = own["untuned"] = measure.decorated(count)
    everyone = networks | {
        "untuned": networks["regressor"].without_adapter().to(_device(networks["regressor"]))
    }
    read = {name: by_image(network, own[name]) for name, network in everyone.items()}
    labels = measure.held_out_chirps(count).labels
    asked = {name: lambda name=name: networks[name] for name in measure.FIGURES}
    seen = {name: lambda name=name: read[name] for name in measure.FIGURES}
    logits = measure.answers(asked, seen, count, batch, ("published", "swapped"))
    ablated = _ablated(networks["leak"], own["leak"], logits, labels, plan, batch, bootstrap)
    changes = {name: one.losses for name, one in found.items()}
    looks = {
        name: measure.attention_order(found, own[name]["regions"], changes["regressor"])
        for name, found in read.items()
    }
    judged = measure.Judged.of(
        measure.falls(measure.right_answers(logits, labels), bootstrap),
        ablated,
        measure.order_table(changes, looks, bootstrap),
    )
    table = judged.table(measure.permuted_table(changes, looks, bootstrap))
    return table.assign(images=count, sweep_images=_fewer(plan, more).effect_images)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _ablated(
    model: nn.Module,
    figures: Mapping[str, Tensor],
    logits: measure.Logits,
    labels: measure.Labels,
    plan: Task,
    batch: int,
    bootstrap: int,
) -> Interval:
    """How much more the loss on the type rises without the lie's carriers than without random heads of their layers."""
    tested, searched, looked = measure.halves(len(labels), plan.sweep_images)
    donors = measure.titled(len(labels), "swapped")["pixel_values"][searched]
    statistics = attention_statistics(model, {key: found[looked] for key, found in figures.items()})
    looking, pull = measure.lookers(statistics), measure.pulled(logits, labels)
    alone = predict_without_heads(
        model, figures["pixel_values"][searched], "resample", donors=donors,
        layers=measure.swept(model, plan.sweep_every), batch=batch,
    )  # fmt: skip
    carried = measure.carried_alone(alone, labels[searched], pull[searched])
    carriers = measure.carriers(measure.looking_and_carrying(carried, statistics, looking))
    rng = np.random.default_rng(12)
    sets = measure.ReadingSets.drawn(model, {"carriers": carriers}, plan.random_sets, rng)
    reference = measure.titled(max(4, plan.sweep_images), "published", "train")["pixel_values"]
    found = predict_without_sets(
        model, figures["pixel_values"][tested], sets.sets, "mean", reference=reference, batch=batch
    )
    rise = {"leak": measure.rises(found, torch.from_numpy(labels[tested]), sets)}
    return measure.beyond_random(rise, bootstrap)["carriers", "leak", "type"]


@checked_arguments()
def without_heads(
    load: Mapping[str, Callable[[], nn.Module]], plan: Task, more: Trainings, batch: int
) -> dict[str, WithoutHeads]:
    """Each network without each of its heads, on figures of the kind that it was fine-tuned on.

    At most the trainings' `images` are linearized and at most their `exact_images` ablated exactly.
    """
    plan = _fewer(plan, more)
    others, found = max(4, plan.sweep_images), {}
    for name, one in load.items():
        network = one()
        title = measure.FIGURES.get(name)
        drawn = (
            measure.decorated(others, "train") if title is None else measure.titled(others, title, "train")
        )
        where = measure.swept(network, plan.sweep_every)
        found[name] = measure.without_heads(network, title, plan, drawn["pixel_values"], batch, where)
    return found


def _fewer(plan: Task, more: Trainings) -> Task:
    few = {
        "effect_images": min(plan.effect_images, more.images),
        "exact_images": min(plan.exact_images, more.exact_images),
    }
    return plan.model_copy(update=few)


@checked_arguments()
def three_tasks(
    found: Mapping[str, WithoutHeads],
    real: Mapping[str, Shifts],
    untuned: Mapping[str, Shifts],
    heads: int,
    draws: int,
) -> pd.DataFrame:
    """What three tasks share of their order of heads; see `agnostic.measure.by_task` and `shared_orders`."""
    return shared_orders(by_task(found, real, untuned, heads), heads, draws)
