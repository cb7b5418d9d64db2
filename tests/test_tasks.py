"""Tasks: every preset against float64 by hand, through every estimate of heads; what does not fit is refused first."""

import math

import numpy as np
import pytest
import torch
from heads_zoo import HEADS, LAYERS, PIXELS, WIDTH, Reader, pictures, zoo
from torch import Tensor, nn

from vitmech_utils import tasks
from vitmech_utils.heads import sets as set_module
from vitmech_utils.heads.ablation import effects, losses_without_heads, predict_without_heads, sweep
from vitmech_utils.heads.attacks import attack, gradient_error
from vitmech_utils.heads.check import check_heads
from vitmech_utils.heads.direct import direct_effects, predict_directly
from vitmech_utils.heads.effects import loss_changes
from vitmech_utils.heads.first_order import first_order
from vitmech_utils.heads.hooks import change_heads
from vitmech_utils.heads.interactions import exact_interactions, second_order, shapley_values
from vitmech_utils.heads.patching import patch_heads, patched_losses
from vitmech_utils.heads.sets import losses_without_sets, predict_without_sets, set_effects, singles
from vitmech_utils.heads.stopping import sweep_until
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.model.classifier import SweepClassifier
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.tasks import Task

SETS, IMAGES, OUTPUTS, HEIGHT, BREADTH = 2, 5, 7, 11, 13  # a prime for every axis


class Mapper(Reader):
    """A model with dense outputs [image, class, height, breadth], read off the patches."""

    def __init__(self, backbone: nn.Module, classes: int = OUTPUTS):
        super().__init__(backbone, WIDTH, classes)

    def forward(self, pixel_values: Tensor) -> Tensor:
        patches = self.backbone(pixel_values).last_hidden_state[:, 1:]
        side = int(patches.shape[1] ** 0.5)
        return self.head(patches).unflatten(1, (side, side)).permute(0, 3, 1, 2).repeat(1, 1, 3, 2)


def reader(outputs: int, family: str = "vit") -> Reader:
    torch.manual_seed(outputs)
    model = zoo(family)
    model.head = nn.Linear(WIDTH, outputs).double()
    return model.eval()


def mapper() -> Mapper:
    torch.manual_seed(4)
    return Mapper(zoo("vit").backbone).double().eval()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classes(*shape: int, seed: int = 0, count: int = OUTPUTS) -> Tensor:
    return torch.randint(count, shape, generator=torch.Generator().manual_seed(seed))


def by_hand(name: str, said: np.ndarray, truth: np.ndarray) -> list[float]:
    """The loss of one image per target, in plain numbers."""
    if name == "squared error":
        return [(a - b) ** 2 for a, b in zip(said, truth, strict=True)]
    if name == "binary cross-entropy":
        return [-math.log(1 / (1 + math.exp(-a if b else a))) for a, b in zip(said, truth, strict=True)]
    if name == "cross-entropy":
        return [math.log(sum(math.exp(a) for a in said)) - said[truth]]
    if name == "logit difference":
        return [max(a for place, a in enumerate(said) if place != truth) - said[truth]]
    if name == "divergence":
        p, q = (np.exp(x) / np.exp(x).sum() for x in (truth, said))
        return [sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))]
    assert name == "per-pixel cross-entropy"
    pixels = [
        math.log(np.exp(said[:, row, column]).sum()) - said[truth[row, column], row, column]
        for row, column in np.ndindex(truth.shape)
    ]
    return [sum(pixels) / len(pixels)]


LABELS = {
    "squared error": random(IMAGES, OUTPUTS, seed=1),
    "binary cross-entropy": classes(IMAGES, OUTPUTS, count=2),
    "cross-entropy": classes(IMAGES),
    "logit difference": classes(IMAGES),
    "divergence": random(IMAGES, OUTPUTS, seed=2),
    "per-pixel cross-entropy": classes(IMAGES, HEIGHT, BREADTH),
}


def outputs_for(name: str, *before: int) -> Tensor:
    dense = (HEIGHT, BREADTH) if name == "per-pixel cross-entropy" else ()
    return random(*before, IMAGES, OUTPUTS, *dense, seed=3)


@pytest.mark.parametrize("name", LABELS)
def test_each_preset_is_its_formula_with_and_without_sets(name: str) -> None:
    labels = LABELS[name]
    task = tasks.find(name).fitted(outputs_for(name), labels)
    found = task(outputs_for(name, SETS), labels)
    assert found.shape == (SETS, IMAGES, len(task.targets))
    assert found.dtype == torch.float64
    for place, image in np.ndindex(SETS, IMAGES):
        expected = by_hand(name, outputs_for(name, SETS)[place, image].numpy(), labels[image].numpy())
        assert found[place, image].tolist() == pytest.approx(expected, abs=1e-12)
    torch.testing.assert_close(task(outputs_for(name, SETS)[1], labels), found[1], rtol=0, atol=1e-12)
    torch.testing.assert_close(task.loss(outputs_for(name, SETS), labels), found, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", LABELS)
def test_each_preset_can_be_differentiated(name: str) -> None:
    labels, said = LABELS[name], outputs_for(name).requires_grad_()
    task = tasks.find(name)
    (slope,) = torch.autograd.grad(task(said, labels).sum(), said)
    along = random(*said.shape, seed=9)
    ends = [task(said.detach() + sign * 1e-6 * along, labels).sum().item() for sign in (1, -1)]
    assert (ends[0] - ends[1]) / 2e-6 == pytest.approx((slope * along).sum().item(), rel=1e-5)


def test_variants_of_the_presets() -> None:
    said, ids = random(IMAGES, OUTPUTS), classes(IMAGES, count=OUTPUTS - 1)
    rival = tasks.logit_difference(OUTPUTS - 1).fitted(said, ids)
    torch.testing.assert_close(rival(said, ids)[:, 0], said[:, -1] - said[torch.arange(IMAGES), ids])
    pairs = torch.stack([ids, (ids + 1) % OUTPUTS], 1)
    torch.testing.assert_close(
        tasks.logit_difference()(said, pairs)[:, 0],
        said[torch.arange(IMAGES), pairs[:, 1]] - said[torch.arange(IMAGES), ids],
    )
    labels = classes(IMAGES, HEIGHT, BREADTH)
    maps = outputs_for("per-pixel cross-entropy")
    labels[:, :5] = 255
    left = tasks.pixel_cross_entropy(255).fitted(maps, labels)(maps, labels)
    torch.testing.assert_close(left, tasks.pixel_cross_entropy()(maps[:, :, 5:], labels[:, 5:]))
    own, moved = random(IMAGES, OUTPUTS, seed=1), random(IMAGES, OUTPUTS, seed=2)
    p, q = own.sigmoid(), moved.sigmoid()
    torch.testing.assert_close(
        tasks.divergence("sigmoid")(moved, own), p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    )
    torch.testing.assert_close(tasks.divergence("numbers")(moved, own), (moved - own) ** 2)
    dense = tasks.divergence()(maps, outputs_for("per-pixel cross-entropy", 1)[0].flip(0))
    each = tasks.divergence()(
        maps.permute(0, 2, 3, 1).reshape(-1, OUTPUTS), maps.flip(0).permute(0, 2, 3, 1).reshape(-1, OUTPUTS)
    )
    torch.testing.assert_close(dense[:, 0], each.view(IMAGES, -1).mean(1))
    depth = random(IMAGES, HEIGHT, BREADTH)
    torch.testing.assert_close(tasks.squared_error()(depth + 2, depth), torch.full((IMAGES, 1), 4.0).double())
    field = random(IMAGES, OUTPUTS, HEIGHT, BREADTH)
    shifts = torch.arange(OUTPUTS).double()
    torch.testing.assert_close(
        tasks.squared_error()(field + shifts[:, None, None], field), (shifts**2).expand(IMAGES, -1)
    )


def huber(outputs: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.huber_loss(outputs, labels, reduction="none")


def test_any_function_is_a_task_with_one_loss_per_image_or_per_target() -> None:
    said, labels = random(SETS, IMAGES, OUTPUTS), random(IMAGES, OUTPUTS, seed=1)
    each = tasks.find(huber).fitted(said[0], labels)
    assert (each.name, each.targets[-1], each.unit, each.relative) == ("huber", "output_6", "loss", False)
    torch.testing.assert_close(each(said, labels), huber(said, labels.expand_as(said)))
    one = tasks.find(lambda a, b: huber(a, b).mean(1)).fitted(said[0], labels)
    assert one.targets == ("output_0",)
    torch.testing.assert_close(one(said, labels)[..., 0], huber(said, labels.expand_as(said)).mean(-1))
    module = tasks.find(nn.SmoothL1Loss(reduction="none")).fitted(said[0], labels)
    assert module.name == "SmoothL1Loss"
    with pytest.raises(ValueError, match=r"returned \(\) for 1 image.*reduction='none'"):
        tasks.find(nn.MSELoss()).fitted(said[0], labels)
    with pytest.raises(ValueError, match=r"gives no loss of outputs \(5, 7\) and labels \(5, 3\)"):
        tasks.find(huber).fitted(said[0], labels[:, :3])


def test_tasks_are_found_by_name_by_model_and_by_labels() -> None:
    assert tasks.find("Cross entropy").name == tasks.find("cross_entropy").name == "cross-entropy"
    own = tasks.squared_error(("a", "b"))
    assert tasks.find(own) is own
    assert tasks.find(None, ChirpRegressor).targets == ("start_time", "start_freq", "end_freq")
    assert ChirpRegressor.task.chance == 1
    assert ChirpRegressor.task.regions[1] == "plot background"
    classifier = tasks.find(None, SweepClassifier)
    assert (classifier.name, classifier.targets) == ("binary cross-entropy", ("type", "direction"))
    assert classifier.chance == pytest.approx(math.log(2))
    by_labels = {
        "squared error": random(IMAGES, 1),
        "cross-entropy": classes(IMAGES),
        "per-pixel cross-entropy": classes(IMAGES, HEIGHT, BREADTH),
    }
    for name, labels in by_labels.items():
        assert tasks.find(labels=labels).name == name
    for labels in (torch.eye(IMAGES), classes(IMAGES, 2, count=2), torch.ones(IMAGES) > 0, None):
        with pytest.raises(
            ValueError, match=r"the model names no task, .*squared error, cross-entropy, binary"
        ):
            tasks.find(labels=labels)
    with pytest.raises(ValueError, match="task is 'accuracy', expected one of squared error"):
        tasks.find("accuracy")
    for name in LABELS:
        assert tasks.named(name, ("x",)).targets == ("x",)
    assert tasks.named(tasks.logit_difference(3).name) is None


@pytest.mark.parametrize(
    ("task", "outputs", "labels", "message"),
    [
        ("squared error", random(5, 1), random(5, 3), r"labels has shape \(5, 3\), but .* expected labels \(5, 1\)"),
        ("squared error", random(5, 7), random(5), r"expected labels \(5, 7\)"),
        (tasks.squared_error(("a", "b")), random(5, 3), random(5, 3), r"predicts 3 target\(s\), expected 2 \(a, b\)"),
        ("squared error", random(5, 3), None, "needs labels; pass them, or task='divergence'"),
        ("cross-entropy", random(5, 3), torch.eye(5)[:, :3], r"one-hot labels pass labels.argmax\(1\)"),
        ("cross-entropy", random(5, 3), torch.arange(5), "from 0 to 4, expected integers from 0 to 2"),
        ("cross-entropy", random(5, 1), torch.zeros(5).long(), r"logits \[image, class\] of two or more"),
        ("cross-entropy", random(5, 3, 4, 4), torch.zeros(5).long(), r"outputs have shape \(5, 3, 4, 4\)"),
        ("binary cross-entropy", random(5, 3), random(5, 3), "expected 0 or 1 for each target"),
        ("binary cross-entropy", random(5, 3), torch.zeros(5, 2), r"expected labels \(5, 3\)"),
        ("per-pixel cross-entropy", random(5, 3, 4, 4), classes(5, 8, 8, count=3), "resize one to the other"),
        ("per-pixel cross-entropy", random(5, 3, 4, 4), classes(5, 4, 4) + 3, "expected integers from 0 to 2"),
        ("per-pixel cross-entropy", random(5, 3, 4, 4), torch.full((5, 4, 4), -100), r"image\(s\) \[0, 1, 2, 3, 4\]"),
        ("logit difference", random(5, 3), random(5), "expected one class number per image"),
        (tasks.logit_difference(2), random(5, 3), torch.tensor([0, 1, 2, 0, 1]), "the other class is 2"),
        ("divergence", random(5, 1), None, r"expected \[image, class, ...\] of two classes"),
        (tasks.divergence("sigmoid"), random(5, 2, 2), None, r"expected \[image, target\] for the divergence of sig"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(task, outputs: Tensor, labels: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tasks.find(task).fitted(outputs, labels)


def test_an_unknown_divergence_is_refused() -> None:
    with pytest.raises((ValueError, TypeError), match="angle"):
        tasks.divergence("angle")


MODELS = {
    "squared error": (lambda: reader(OUTPUTS), LABELS["squared error"]),
    "binary cross-entropy": (lambda: reader(OUTPUTS), LABELS["binary cross-entropy"]),
    "cross-entropy": (lambda: reader(OUTPUTS), LABELS["cross-entropy"]),
    "logit difference": (lambda: reader(OUTPUTS), LABELS["logit difference"]),
    "divergence": (lambda: reader(OUTPUTS), None),
    "per-pixel cross-entropy": (mapper, classes(IMAGES, 6, 4)),
}


def losses_by_hooks(model, pixels, labels, name: str, heads) -> np.ndarray:
    """[image, target] with these heads at zero, one image and one number at a time."""
    with torch.no_grad():
        own = model(pixels)
        with change_heads(model, dict.fromkeys(heads, 0.0)):
            said = model(pixels)
    truth = own if labels is None else labels
    return np.array([by_hand(name, a.numpy(), b.numpy()) for a, b in zip(said, truth, strict=True)])


@pytest.mark.parametrize("name", MODELS)
def test_the_sweep_is_the_task_s_loss_by_hooks(name: str) -> None:
    (build, labels), (pixels, _) = MODELS[name], pictures(IMAGES)
    model = build()
    before = losses_by_hooks(model, pixels, labels, name, [])
    table = sweep(model, pixels, labels, "zero", name, bootstrap=20, batch=7).set_index(["layer", "head"])
    losses = losses_without_heads(model, pixels, labels, "zero", name, batch=7)
    assert len(table) == LAYERS * HEADS
    column = "mse" if name == "squared error" else "loss"
    targets = tasks.find(name).targets or tuple(f"output_{number}" for number in range(OUTPUTS))
    for place, pair in enumerate(table.index):
        after = losses_by_hooks(model, pixels, labels, name, [pair])
        np.testing.assert_allclose(losses.without[place], after, atol=1e-10)
        assert table.loc[pair, column] == pytest.approx(after.mean(), abs=1e-10)
        change = after.mean() - before.mean()
        effect = 100 * change / before.mean() if name == "squared error" else change
        assert table.loc[pair, "effect"] == pytest.approx(effect, abs=1e-8)
        for number, target in enumerate(targets):
            assert table.loc[pair, f"{column}_{target}"] == pytest.approx(after[:, number].mean(), abs=1e-10)
    assert table[f"baseline_{column}"].iloc[0] == pytest.approx(before.mean(), abs=1e-10)
    assert ((table["low"] <= table["effect"] + 1e-12) & (table["effect"] <= table["high"] + 1e-12)).all()
    by_hook = losses_without_heads(model, pixels, labels, "zero", name, batch=7, replay=False)
    np.testing.assert_allclose(by_hook.without, losses.without, atol=1e-10)


@pytest.mark.parametrize("outputs", [1, OUTPUTS])
@pytest.mark.parametrize("flat", [True, False])
def test_one_target_and_seven_work_without_names(outputs: int, flat: bool) -> None:
    (pixels, _), model, labels = pictures(IMAGES), reader(outputs), random(IMAGES, outputs)
    if outputs == 1 and flat:
        labels = labels[:, 0]
    table = sweep(model, pixels, labels, "zero", bootstrap=20)
    found = [name for name in table if name.startswith("effect_")]
    assert found == [f"effect_output_{number}" for number in range(outputs)]
    if outputs == 1:
        np.testing.assert_allclose(table["effect"], table["effect_output_0"])


def test_a_model_of_one_number_per_image_is_one_of_one_column() -> None:
    model, (pixels, _), labels = reader(1), pictures(IMAGES), random(IMAGES)
    expected = sweep(model, pixels, labels, "zero", bootstrap=20)
    plain = model.forward
    model.forward = lambda pixel_values: plain(pixel_values)[:, 0]
    assert sweep(model, pixels, labels, "zero", bootstrap=20).equals(expected)


def test_the_model_s_own_task_names_the_columns_and_goes_with_predictions() -> None:
    model, (pixels, _) = reader(OUTPUTS), pictures(IMAGES)
    names = tuple("abcdefg")
    model.task = tasks.binary_cross_entropy(names)
    labels = LABELS["binary cross-entropy"]
    table = sweep(model, pixels, labels, "zero", bootstrap=20)
    assert [name for name in table if name.startswith("effect_")] == [f"effect_{name}" for name in names]
    predictions = predict_without_heads(model, pixels, "zero")
    assert (predictions.task, predictions.targets) == ("binary cross-entropy", names)
    assert effects(predictions, labels, bootstrap=20).equals(table)
    assert loss_changes(predictions, labels).targets == names
    grouped = predict_without_sets(model, pixels, [[(0, 1), (2, 2)]], "zero")
    np.testing.assert_allclose(
        grouped.losses(labels).without, losses_without_sets(model, pixels, labels, [[(0, 1), (2, 2)]], "zero").without
    )  # fmt: skip
    model.task = Task("home-made", names, huber)
    with pytest.raises(ValueError, match="task 'home-made' is no preset, pass it"):
        predict_without_heads(model, pixels, "zero").losses(labels.double())
    assert predict_without_heads(model, pixels, "zero").losses(labels.double(), huber).unit == "loss"


def test_percent_and_unit_are_the_same_numbers_in_other_words() -> None:
    model, (pixels, labels) = zoo("vit"), pictures(IMAGES)
    predictions = predict_without_heads(model, pixels, "mean")
    percent = predictions.losses(labels)
    unit = loss_changes(predictions, labels)
    tables = percent.by_target(50), unit.by_target(50)
    np.testing.assert_allclose(
        tables[0]["effect"] / 100 * tables[0]["baseline_loss"], tables[1]["effect"], atol=1e-12
    )
    np.testing.assert_allclose(tables[0]["p_value"], tables[1]["p_value"])
    shares = [found.by_layer(50)["share"] for found in (percent, unit)]
    np.testing.assert_allclose(*shares)
    wide, every = percent.table(50), tables[0].query("target == 'all'")
    for column in ("effect", "low", "high", "p_value", "q_value"):
        np.testing.assert_array_equal(wide[column], every[column])


def pass_counter(model: nn.Module) -> list[int]:
    counted: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: counted.append(len(inputs[0])))
    return counted


@pytest.mark.parametrize("mode", ["zero", "mean"])
def test_labels_that_do_not_fit_are_refused_after_one_image_at_most(mode: str) -> None:
    model, (pixels, _) = reader(OUTPUTS), pictures(IMAGES)
    check_heads(model, pixels[:1])  # runs one image with one patch changed at a time, once per model
    counted, wrong, pairs = pass_counter(model), random(IMAGES, 3), [((0, 0), (1, 1))]
    calls = [
        lambda: sweep(model, pixels, wrong, mode),
        lambda: losses_without_sets(model, pixels, wrong, [[(0, 0)]], mode),
        lambda: first_order(model, pixels, wrong, mode, batch=1),
        lambda: second_order(model, pixels, wrong, mode, batch=1),
        lambda: exact_interactions(model, pixels, wrong, pairs, mode),
        lambda: shapley_values(model, pixels, wrong, mode, permutations=1),
        lambda: patched_losses(model, pixels, pixels, [[(0, 0)]], wrong),
        lambda: sweep_until(model, [(pixels, wrong)], 1.0, mode),
        lambda: attack(model, pixels, wrong, torch.ones(IMAGES, PIXELS, PIXELS, dtype=torch.bool), 1.0, batch=1),
    ]  # fmt: skip
    for call in calls:
        counted.clear()
        with pytest.raises(
            ValueError, match=r"labels has shape \(5, 3\), but the model's outputs are \(7,\)"
        ):
            call()
        # A replay's checks of one image are a handful of passes of that image; nothing else is run.
        assert set(counted) == {1}
        assert len(counted) <= 6
    for bad in (random(IMAGES - 1, OUTPUTS), random(IMAGES, OUTPUTS).fill_(math.nan)):
        counted.clear()
        with pytest.raises(ValueError, match="labels"):
            sweep(model, pixels, bad, mode)
        assert counted == []


def test_dense_outputs_are_never_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most a batch of (head, image) pairs is ever held, and predictions that would be kept are refused."""
    model, (pixels, _) = mapper(), pictures(IMAGES)
    labels, seen = classes(IMAGES, 6, 4), []
    task = tasks.pixel_cross_entropy()

    def watched(outputs: Tensor, truth: Tensor) -> Tensor:
        seen.append(len(outputs))
        return task.loss(outputs, truth)[:, 0]

    sweep(model, pixels, labels, "zero", watched, bootstrap=20, batch=7)
    assert max(seen) <= 7
    assert sum(seen) == LAYERS * HEADS * IMAGES + IMAGES + 1
    monkeypatch.setattr(set_module, "MOST_KEPT", 1000)
    with pytest.raises(ValueError, match=r"outputs are \(7, 6, 4\) per image, .* keep losses alone"):
        predict_without_heads(model, pixels, "zero")
    assert len(sweep(model, pixels, labels, "zero", bootstrap=20)) == LAYERS * HEADS


def cross_entropies(model: nn.Module, pixels: Tensor, labels: Tensor, changes: dict) -> Tensor:
    with change_heads(model, changes):
        return nn.functional.cross_entropy(model(pixels), labels, reduction="none")


def test_estimates_by_gates_are_derivatives_of_the_task_s_loss() -> None:
    model, (pixels, _), labels = reader(OUTPUTS), pictures(IMAGES), classes(IMAGES)
    table = first_order(model, pixels, labels, "zero", "cross-entropy", bootstrap=20).set_index(
        ["layer", "head"]
    )
    step = 1e-5

    def loss(changes: dict) -> Tensor:
        with torch.no_grad():
            return cross_entropies(model, pixels, labels, changes)

    def scaled(by: float):
        return lambda present: (1 - by) * present

    for pair in ((0, 1), (3, 2)):
        slope = (loss({pair: scaled(step)}) - loss({pair: scaled(-step)})) / (2 * step)
        assert table.loc[pair, "effect"] == pytest.approx(slope.mean().item(), abs=1e-8)
    assert table["baseline_loss"].iloc[0] == pytest.approx(loss({}).mean().item())
    step = 1e-3
    second = second_order(model, pixels, labels, "zero", heads=[(1, 0)], bootstrap=20)
    row = second[(second["layer_b"] == 3) & (second["head_b"] == 2)].iloc[0]
    corners = [loss({(1, 0): scaled(a * step), (3, 2): scaled(b * step)}) for a in (1, -1) for b in (1, -1)]
    mixed = (corners[0] - corners[1] - corners[2] + corners[3]) / (4 * step**2)
    assert row["estimate"] == pytest.approx(mixed.mean().item(), abs=1e-6)
    with pytest.raises(ValueError, match="'divergence' is flat at the model's own answer"):
        first_order(model, pixels, None, "zero", "divergence")


def test_sets_interactions_shapley_and_direct_effects_are_of_the_task_s_loss() -> None:
    model, (pixels, _), labels = reader(OUTPUTS), pictures(IMAGES), classes(IMAGES)

    def loss(*heads) -> float:
        with torch.no_grad():
            return cross_entropies(model, pixels, labels, dict.fromkeys(heads, 0.0)).mean().item()

    one, other, whole = (0, 1), (3, 2), find_blocks(model).pairs
    found = exact_interactions(model, pixels, labels, [(one, other)], "zero", bootstrap=20)
    mixed = loss(one, other) - loss(one) - loss(other) + loss()
    assert found["interaction"].item() == pytest.approx(mixed, abs=1e-10)
    values = shapley_values(model, pixels, labels, "zero", permutations=IMAGES, bootstrap=20)
    assert values["shapley"].sum() == pytest.approx(loss(*whole) - loss(), abs=1e-10)
    joint = losses_without_sets(model, pixels, labels, [[one, other]], "zero")
    single = predict_without_sets(model, pixels, singles([one, other]), "zero")
    table = set_effects(joint, labels, single, ["both"], 20)
    assert table["effect"].item() == pytest.approx(loss(one, other) - loss(), abs=1e-10)
    assert table["excess"].item() == pytest.approx(mixed, abs=1e-10)
    straight = predict_directly(model, pixels, "zero")
    total = predict_without_heads(model, pixels, "zero")
    split = direct_effects(total, straight, labels, 20, task="cross-entropy").set_index(["layer", "head"])
    assert split.loc[one, "effect_total"] == pytest.approx(loss(one) - loss(), abs=1e-10)
    last = split.loc[LAYERS - 1]
    np.testing.assert_allclose(
        split["effect_later"], split["effect_total"] - split["effect_direct"], atol=1e-12
    )
    assert len(last) == HEADS


def test_without_labels_sets_are_held_against_the_model_s_own_answer() -> None:
    model, (pixels, _), whole = reader(OUTPUTS), pictures(IMAGES), [[(0, 1), (3, 2)], []]
    found = losses_without_sets(model, pixels, None, whole, "mean", task="divergence")
    assert found.baseline.max() == pytest.approx(0, abs=1e-12)
    assert found.without[1].max() == pytest.approx(0, abs=1e-12)
    assert found.without[0].min() > 1e-6
    kept = predict_without_sets(model, pixels, whole, "mean", task="divergence")
    np.testing.assert_allclose(kept.losses().without, found.without, atol=1e-12)


def test_patching_is_judged_by_the_task_batch_by_batch() -> None:
    model, (pixels, _), (donors, _) = reader(OUTPUTS), pictures(IMAGES), pictures(IMAGES, seed=5)
    heads, labels = [[(0, 1), (3, 2)], [(2, 0)]], classes(IMAGES)
    said = patch_heads(model, pixels, donors, heads)
    found = patched_losses(model, pixels, donors, heads, labels, batch=2)
    torch.testing.assert_close(found, tasks.cross_entropy()(said, labels))
    own = patched_losses(model, pixels, donors, heads, None, "divergence", batch=2)
    with torch.no_grad():
        torch.testing.assert_close(own, tasks.divergence()(said, model(pixels)))


def test_an_attack_raises_the_task_s_loss_and_climbs_its_gradient() -> None:
    model, (pixels, _), labels = reader(OUTPUTS), pictures(IMAGES), classes(IMAGES)
    mask = torch.ones(IMAGES, PIXELS, PIXELS, dtype=torch.bool)
    assert gradient_error(model, pixels, labels, directions=2) < 1e-5
    assert gradient_error(model, pixels, labels, "logit difference", directions=2) < 1e-5
    found = attack(model, pixels, labels, mask, 16.0, steps=3, batch=2)
    before, after = (tasks.cross_entropy()(said, labels) for said in (found.clean, found.predictions))
    assert (after > before).all()
    moved = attack(model, pixels, None, mask, 16.0, "divergence", steps=3, batch=2)
    assert (tasks.divergence()(moved.predictions, moved.clean) > 1e-8).all()


def test_a_sweep_goes_on_until_intervals_in_the_task_s_unit_are_narrow() -> None:
    model = reader(OUTPUTS)
    batches = [(pictures(8, seed=seed)[0], classes(8, seed=seed)) for seed in range(4)]
    table, history = sweep_until(model, batches, 1e9, layers=[0])
    assert history["images"].tolist() == [16]
    assert table["images"].iloc[0] == 16
    pixels, labels = (torch.cat(parts) for parts in zip(*batches[:2], strict=True))
    once = sweep(model, pixels, labels, "zero", layers=[0], bootstrap=1000)
    np.testing.assert_allclose(table["effect"], once["effect"], atol=1e-12)


def test_losses_of_the_unchanged_model_that_are_not_finite_are_refused() -> None:
    model, (pixels, _), labels = reader(OUTPUTS), pictures(IMAGES), random(IMAGES, OUTPUTS)

    def logarithm(outputs: Tensor, truth: Tensor) -> Tensor:
        return (outputs - truth).log().sum(1)

    with pytest.raises(ValueError, match=r"loss \(logarithm\) is not finite for image\(s\)"):
        sweep(model, pixels, labels, "zero", logarithm)
