"""Heads for any task (Q9): orders with known answers, probes that are linear, and every outcome of the rule."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from vitmech_utils.heads.probes import fit_ridge, ridge_probe
from vitmech_utils.model.classifier import SweepClassifier
from vitmech_utils.model.regressor import ChirpRegressor
from vitmech_utils.profiles import load_profile, repository_root
from vitmech_utils.statistics import Interval
from vitmech_utils.studies.task import again
from vitmech_utils.studies.task import measure as task_measure
from vitmech_utils.studies.task.agnostic import judge, measure, plots
from vitmech_utils.studies.task.agnostic.judge import Shared, heads_serve_any_task
from vitmech_utils.studies.verdicts import FAILS, HOLDS, IN_PART, UNKNOWN

LAYERS, HEADS, IMAGES, TINY_HEADS = 12, 6, 40, 12
ALIKE, SOME, WIDE, UNLIKE = (0.95, 0.85, 1.05), (0.7, 0.6, 0.78), (0.5, 0.2, 0.8), (0.2, 0.0, 0.4)
PAIRS = "first and second", "first and third", "second and third"


def shared(share: tuple, depth: float = 0.2, ceiling: tuple = (0.9, 0.8, 0.95)) -> Shared:
    between = Interval(*(part * ceiling[0] for part in share))
    return Shared(between, Interval(*ceiling), Interval(*share), depth)


def judged(*shares: tuple, before: tuple = SOME, **how):
    tuned = dict(zip(PAIRS, (shared(share, **how) for share in shares), strict=True))
    return heads_serve_any_task(tuned, {pair: shared(before) for pair in PAIRS})


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [
        ((ALIKE, ALIKE, ALIKE), HOLDS),
        ((ALIKE, SOME, SOME), IN_PART),
        ((ALIKE, UNLIKE, UNLIKE), IN_PART),
        ((SOME, SOME, SOME), IN_PART),
        ((SOME, SOME, WIDE), UNKNOWN),
        ((WIDE, WIDE, WIDE), UNKNOWN),
        ((SOME, UNLIKE, UNLIKE), UNKNOWN),
        ((UNLIKE, UNLIKE, UNLIKE), FAILS),
    ],
)
def test_every_outcome(shares, verdict) -> None:
    assert judged(*shares).verdict == verdict


def test_what_depth_alone_gives_counts_for_nothing() -> None:
    found = judged(ALIKE, ALIKE, ALIKE, depth=0.9)
    assert (found.verdict, found.lacks) == (UNKNOWN, "heads")
    assert "by depth alone by 0.90" in found.reason
    assert "by depth alone" not in judged(SOME, SOME, WIDE, depth=0.0).reason


def test_nothing_is_told_where_a_model_keeps_no_order() -> None:
    found = judged(ALIKE, ALIKE, ALIKE, ceiling=(0.2, 0.05, 0.3))
    assert (found.verdict, found.lacks) == (UNKNOWN, "images")
    assert heads_serve_any_task({}, {}).verdict == UNKNOWN


def test_the_untuned_backbone_says_who_made_it_so() -> None:
    assert "brings the tasks' heads together" in judged(ALIKE, ALIKE, ALIKE, before=UNLIKE).reason
    assert "parts the tasks' heads" in judged(UNLIKE, UNLIKE, UNLIKE, before=ALIKE).reason
    assert "before any fine-tuning" in judged(ALIKE, ALIKE, ALIKE, before=ALIKE).reason
    assert "under linear probes shares" in judged(ALIKE, UNLIKE, UNLIKE, before=UNLIKE).reason


def test_orders_that_are_the_same_share_all_and_others_nothing() -> None:
    rng = np.random.default_rng(0)
    own, other = rng.lognormal(size=(2, LAYERS * HEADS, 1))
    noise = rng.lognormal(sigma=0.1, size=(2, 3, LAYERS * HEADS, IMAGES))
    found = {
        measure.TUNED: dict(zip("abc", own * noise[0], strict=True)),
        measure.UNTUNED: dict(zip("abc", other * noise[1], strict=True)),
    }
    table = measure.shared_orders(found, HEADS, 200)
    assert tuple(table.columns.sort_values()) == tuple(sorted(judge.COLUMNS))
    by_kind = table.groupby("kind")["share"]
    assert by_kind.min()[measure.TUNED] == pytest.approx(1, abs=0.02)
    assert by_kind.min()[measure.UNTUNED] == pytest.approx(1, abs=0.02)
    assert by_kind.max()[measure.KEPT] < 0.4
    assert len(table) == 9
    assert judge.by_table(table).verdict == HOLDS
    row = judge.row(table, "12_another_task")
    assert (row.verdict, row.images) == (HOLDS, IMAGES)
    assert "fine-tuned for both" in plots.orders_table(table)
    figure = plots.three_tasks(table)
    assert figure.axes[0].get_xlabel().startswith("share of the order")
    plt.close(figure)


def test_a_probe_s_weights_answer_as_the_probe_does() -> None:
    rng = np.random.default_rng(1)
    features, new, targets = rng.normal(size=(30, 5)), rng.normal(size=(4, 5)), rng.normal(size=(30, 2))
    features[:, 3] = new[:, 3] = 7.0
    weights, bias = fit_ridge(features, targets)
    assert (weights[3] == 0).all()
    np.testing.assert_allclose(bias + new @ weights, ridge_probe(features, targets, new))
    with pytest.raises(ValueError, match="three or more"):
        fit_ridge(features[:2], targets[:2])


def test_shifts_of_a_model_under_a_probe_and_of_another_head() -> None:
    regressor = ChirpRegressor.build("tiny", seed=0).merged().eval()
    figures = measure.decorated(6, "train")
    before = regressor.head
    probed = measure.under_probe(regressor.without_adapter(), figures)
    assert regressor.head is before
    read = probed.backbone(pixel_values=figures["pixel_values"]).last_hidden_state[:, 0]
    weights, bias = fit_ridge(read.double().numpy(), figures["labels"].double().numpy())
    said = probed(figures["pixel_values"]).logits.numpy()
    np.testing.assert_allclose(said, read.double().numpy() @ weights + bias, atol=1e-3)
    torch.manual_seed(0)
    probed.head = torch.nn.Linear(*weights.shape).requires_grad_(False)
    moved = measure.shifts(probed, figures["pixel_values"])
    assert moved.shape == (LAYERS * TINY_HEADS, 6)
    assert (moved >= 0).all()
    probed.head.weight.mul_(3)
    probed.head.bias.add_(1)  # answers are divided by their own spread
    np.testing.assert_allclose(measure.shifts(probed, figures["pixel_values"]), moved, rtol=0.1, atol=0.01)


def test_the_backbone_before_fine_tuning_is_the_same_whichever_training_is_asked() -> None:
    real = {name: np.ones((LAYERS * TINY_HEADS, 4)) for name in ("tuned", "probed")}
    one = ChirpRegressor.build("tiny", seed=0)
    with torch.no_grad():
        for name, weight in one.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.02)
    other = ChirpRegressor.build("tiny", seed=0).merged().eval()
    one = one.merged().eval()
    figures = measure.decorated(4)["pixel_values"]
    assert not np.allclose(measure.shifts(one, figures), measure.shifts(other, figures))
    first, second = (again.untuned_shifts(each, real, 6) for each in (one, other))
    for task in (measure.PAINTED, measure.SWEEPS):
        np.testing.assert_array_equal(first[task], second[task])
        assert first[task].shape == (LAYERS * TINY_HEADS, 4)


def without_heads(model, every: int):
    title = "none" if isinstance(model, SweepClassifier) else None
    drawn = measure.decorated(2, "train") if title is None else measure.titled(2, title, "train")
    plan = load_profile("quick", root=repository_root()).task
    plan = plan.model_copy(update={"effect_images": 5, "exact_images": 2})
    where = task_measure.swept(model, every)
    return task_measure.without_heads(model, title, plan, drawn["pixel_values"], 16, where)


def test_shifts_come_from_the_pass_that_the_losses_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (task_measure, measure):  # bfloat16 rounds a batch of another size otherwise
        monkeypatch.setattr(module, "fast_dtype", lambda _: None)
    model = ChirpRegressor.build("tiny", seed=0).merged().eval()
    found = without_heads(model, every=6)
    figures = measure.decorated(5)["pixel_values"]
    own = measure.shifts(model, figures, measure.decorated(2, "train")["pixel_values"])
    rows = found.losses.layers * TINY_HEADS + found.losses.heads
    assert len(rows) == 2 * TINY_HEADS
    np.testing.assert_allclose(found.shifts, own[rows], rtol=1e-3, atol=1e-6)


def test_of_some_layers_the_tasks_compare_the_same_heads() -> None:
    model = ChirpRegressor.build("tiny", seed=0).merged().eval()
    found = dict.fromkeys(("regressor", "clean"), without_heads(model, every=6))
    real = {name: np.arange(LAYERS * TINY_HEADS * 4.0).reshape(-1, 4) for name in ("tuned", "probed")}
    by_kind = measure.by_task(found, real, {measure.PAINTED: real["tuned"]}, TINY_HEADS)
    swept = [layer * TINY_HEADS + head for layer in (5, 11) for head in range(TINY_HEADS)]
    for kind in (measure.TUNED, measure.UNTUNED):
        np.testing.assert_array_equal(by_kind[kind][measure.REAL], real["tuned"][swept])


def test_three_tasks_of_a_training() -> None:
    rng = np.random.default_rng(2)
    real = {name: rng.random((LAYERS * TINY_HEADS, 4)) for name in ("tuned", "probed")}
    load = {
        "clean": lambda: SweepClassifier.build("tiny", seed=1).merged().eval(),
        "regressor": lambda: ChirpRegressor.build("tiny", seed=0).merged().eval(),
    }
    before = again.untuned_shifts(load["regressor"](), real, 6)
    found = {name: without_heads(one(), every=1) for name, one in load.items()}
    table = again.three_tasks(found, real, before, TINY_HEADS, 50)
    assert len(table) == 9
    assert (table["heads"] == LAYERS * TINY_HEADS).all()
    assert (table["images"] == 4).all()  # as many as there are of real chirps
    assert not table["between"].isna().any()
    rows = table[table["kind"] == measure.KEPT]
    assert (
        rows["first"].tolist() == rows["second"].tolist() == [measure.PAINTED, measure.SWEEPS, measure.REAL]
    )
