"""Shift, alignment, effect, broken and mended readings: known answers, the split of every loss, tables, errors."""

import numpy as np
import pytest
import torch
from heads_zoo import HEADS, LAYERS, TARGETS, pictures, zoo

from vitmech_utils import tasks
from vitmech_utils.heads.ablation import HeadPredictions, effects, predict_without_heads
from vitmech_utils.heads.changes import ALL, BREAKING, baseline_loss, changes, effect_table
from vitmech_utils.heads.linearized import linearized_sets, predict_linearized
from vitmech_utils.intervals import divided
from vitmech_utils.statistics import Interval
from vitmech_utils.tasks import binary_cross_entropy, cross_entropy, margin_cross_entropy, squared_error

NAMES = ("one", "two", "three")
SQUARED, BINARY, CATEGORICAL, MARGIN = (
    squared_error(), binary_cross_entropy(), cross_entropy(), margin_cross_entropy(),
)  # fmt: skip


def of(baseline, ablated) -> HeadPredictions:
    """Predictions without the heads 0, 1, ... of layer 2."""
    ablated = torch.tensor(ablated, dtype=torch.float64)
    tests = len(ablated)
    return HeadPredictions(
        torch.tensor(baseline, dtype=torch.float64),
        ablated,
        np.full(tests, 2),
        np.arange(tests),
        "zero",
        "hook",
    )


def test_the_parts_of_a_squared_error_are_those_of_the_formula():
    # One target, three images: truth 0, 1, 0; answers 0.5, 1, 0; without the head 0.2, 1.5, 0.
    found = changes(
        of([[0.5], [1.0], [0.0]], [[[0.2], [1.5], [0.0]]]),
        torch.tensor([[0.0], [1.0], [0.0]]),
        squared_error(["one"]),
    )
    np.testing.assert_allclose(found.shift[0, :, 0], [0.09, 0.25, 0.0])
    np.testing.assert_allclose(found.alignment[0, :, 0], [2 * 0.5 * -0.3, 0.0, 0.0])
    np.testing.assert_allclose(found.effect[0, :, 0], [0.04 - 0.25, 0.25, 0.0], atol=1e-15)
    np.testing.assert_allclose(found.baseline[:, 0], [0.25, 0.0, 0.0])
    assert found.sets == (frozenset({(2, 0)}),)
    assert found.images == 3
    np.testing.assert_array_equal(found.broken(0.1), [[False, True, False]])
    np.testing.assert_array_equal(found.mended(0.1), [[True, False, False]])
    np.testing.assert_array_equal(found.whole(0.1), [[False, False, True]])
    np.testing.assert_allclose(found.on(slice(1, 3)).shift[0, :, 0], [0.25, 0.0])
    np.testing.assert_allclose(found.on(np.array([True, False, False])).effect[0, :, 0], [-0.21])


def labels_for(loss, images: int, targets: int, generator) -> torch.Tensor:
    if loss is SQUARED:
        return torch.randn(images, targets, generator=generator, dtype=torch.float64)
    if loss is CATEGORICAL:
        return torch.randint(targets, (images,), generator=generator)
    return torch.randint(2, (images, targets), generator=generator).double()


@pytest.mark.parametrize("loss", [SQUARED, BINARY, CATEGORICAL, MARGIN])
def test_every_loss_grows_by_shift_and_alignment_and_no_shift_is_negative(loss):
    generator = torch.Generator().manual_seed(0)
    tests, images, targets = 5, 11, 1 if loss is MARGIN else 3
    before = torch.randn(images, targets, generator=generator, dtype=torch.float64)
    after = torch.randn(tests, images, targets, generator=generator, dtype=torch.float64)
    labels = labels_for(loss, images, targets, generator)
    found = changes(of(before.tolist(), after.tolist()), labels, loss)
    value = loss.loss(after, labels) - loss.loss(before, labels)
    np.testing.assert_allclose(found.effect, value)
    assert (found.shift > 0).all()
    # The alignment is the old answer's error times the move; the error is the slope of the loss.
    with torch.enable_grad():
        leaf = before.clone().requires_grad_()
        (error,) = torch.autograd.grad(loss.loss(leaf, labels).sum(), leaf)
    by_hand = error * (after - before)
    by_hand = by_hand.sum(-1, keepdim=True) if loss is CATEGORICAL else by_hand
    np.testing.assert_allclose(found.alignment, by_hand, atol=1e-12)
    still = changes(of(before.tolist(), [before.tolist()]), labels, loss)
    np.testing.assert_allclose(still.shift, 0, atol=1e-15)


def test_per_pixel_losses_grow_by_shift_and_alignment_over_the_pixels_that_count():
    generator = torch.Generator().manual_seed(0)
    tests, images, classes, rows, columns = 2, 3, 5, 7, 11
    before = torch.randn(images, classes, rows, columns, generator=generator, dtype=torch.float64)
    after = torch.randn(tests, images, classes, rows, columns, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (images, rows, columns), generator=generator)
    labels[:, :3] = -100
    labels[1, 3:, :4] = -100
    found = changes(of(before.tolist(), after.tolist()), labels, tasks.pixel_cross_entropy())
    p, q = (maps.softmax(-3).numpy() for maps in (before, after))
    for test, image in np.ndindex(tests, images):
        counted, by_hand, aligned = labels[image] != -100, 0.0, 0.0
        for row, column in counted.nonzero().tolist():
            old, new = p[image, :, row, column], q[test, image, :, row, column]
            by_hand += (old * np.log(old / new)).sum() / counted.sum().item()
            error = old - np.eye(classes)[labels[image, row, column]]
            move = (after[test, image] - before[image])[:, row, column].numpy()
            aligned += (error * move).sum() / counted.sum().item()
        assert found.shift[test, image, 0] == pytest.approx(by_hand, abs=1e-12)
        assert found.alignment[test, image, 0] == pytest.approx(aligned, abs=1e-12)


def test_the_least_per_pixel_loss_of_one_answer_is_the_entropy_of_the_mean_shares():
    labels = torch.tensor([[[0, 0], [0, -100]], [[0, 1], [2, 1]]])
    shares = (
        np.array([1 + 1 / 4, 2 / 4, 1 / 4]) / 2
    )  # each image counts alike, however many pixels of it count
    expected = -(shares * np.log(shares)).sum()
    assert tasks.pixel_cross_entropy().guess(labels) == pytest.approx(expected, abs=1e-12)


def test_the_cross_entropies_are_torch_s():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    ones, classes = labels_for(BINARY, 7, 5, generator), labels_for(CATEGORICAL, 7, 5, generator)
    functional = torch.nn.functional
    torch.testing.assert_close(
        BINARY.loss(logits, ones),
        functional.binary_cross_entropy_with_logits(logits, ones, reduction="none"),
    )
    torch.testing.assert_close(
        CATEGORICAL.loss(logits, classes)[:, 0], functional.cross_entropy(logits, classes, reduction="none")
    )


def test_the_loss_of_a_guess_is_the_least_of_any_one_answer():
    labels = torch.tensor([[0.0, 4.0], [2.0, 4.0]])
    assert SQUARED.guess(labels) == pytest.approx(0.5)
    assert BINARY.guess(torch.tensor([[0.0], [1.0], [1.0], [1.0]])) == pytest.approx(0.5623351)
    assert CATEGORICAL.guess(torch.tensor([0, 1, 2, 3])) == pytest.approx(np.log(4))
    assert CATEGORICAL.guess(torch.tensor([2, 2])) == 0
    assert MARGIN.guess is None


@pytest.fixture(scope="module")
def swept():
    model, (pixels, labels) = zoo("vit"), pictures(31)
    return predict_without_heads(model, pixels, "zero"), predict_linearized(model, pixels, "zero"), labels


def test_the_table_says_what_the_arrays_say(swept):
    exact, _, labels = swept
    found = changes(exact, labels, squared_error(NAMES))
    held_out = np.random.default_rng(0).gamma(2, size=(997, TARGETS))
    limit = BREAKING * SQUARED.guess(labels) * 10
    table = effect_table(found, held_out, limit, draws=100)
    assert list(table["target"].unique()) == [ALL, *NAMES]
    assert len(table) == 4 * LAYERS * HEADS
    everything = table[table["target"] == ALL]
    np.testing.assert_allclose(everything["baseline_loss"], held_out.mean())
    np.testing.assert_allclose(everything["effect"], 100 * found.effect.mean((1, 2)) / held_out.mean())
    np.testing.assert_allclose(everything["shift"] + everything["alignment"], everything["effect"])
    plain = effects(exact, labels, bootstrap=20)
    np.testing.assert_allclose(
        everything["effect"] * held_out.mean(), plain["effect"] * plain["baseline_mse"]
    )
    np.testing.assert_array_equal(everything["layer"], plain["layer"])
    whole = found.whole(limit)
    row = int(np.flatnonzero(whole.any(1) & ~whole.all(1))[0])
    stay = found.effect[row].mean(1)[whole[row]].mean()
    assert everything["effect_whole"].iloc[row] == pytest.approx(100 * stay / held_out.mean())
    assert everything["broken"].iloc[row] == pytest.approx(found.broken(limit)[row].mean())
    second = table[table["target"] == "two"]
    np.testing.assert_allclose(second["shift"], 100 * found.shift[..., 1].mean(1) / held_out[:, 1].mean())
    calm = found.shift[row].mean(1)[whole[row]].mean()
    assert everything["shift_whole"].iloc[row] == pytest.approx(100 * calm / held_out.mean())
    for name in ("shift", "alignment", "effect", "broken", "mended"):
        assert (table[f"low_{name}"] <= table[name]).all()
        assert (table[name] <= table[f"high_{name}"]).all()


def test_linearized_predictions_and_sets_of_heads_have_tables_too(swept):
    _, linearized, labels = swept
    sets = linearized_sets(linearized, [[(0, 0), (1, 1)], [(4, 2)]])
    found = changes(sets, labels, squared_error(NAMES))
    table = effect_table(found, np.ones((5, TARGETS)), 1.0, names=["pair", "single"], draws=20)
    assert list(table["set"].iloc[:2]) == ["pair", "single"]
    assert list(table["heads"].iloc[:2]) == [2, 1]
    assert (table["method"] == "linearized").all()
    single = changes(linearized, labels, squared_error(NAMES))
    np.testing.assert_allclose(found.effect[1], single.effect[4 * HEADS + 2])
    with pytest.raises(ValueError, match="expected a name for each"):
        effect_table(found, np.ones((5, TARGETS)), 1.0, draws=20)


def test_nats_are_not_turned_into_percent():
    before, labels = [[2.0], [-1.0], [0.5]], torch.tensor([[1.0], [0.0], [1.0]])
    found = changes(of(before, [[[1.0], [-1.0], [0.4]]]), labels, binary_cross_entropy(["rising"]))
    table = effect_table(found, found.baseline, 0.5, draws=20)
    np.testing.assert_allclose(table["effect"], found.effect.mean())
    np.testing.assert_allclose(table["broken"], 1 / 3)


def test_where_no_reading_stays_whole_there_is_no_effect_on_those():
    found = changes(of([[2.0], [3.0]], [[[2.0], [3.5]]]), torch.zeros(2, 1), squared_error(["one"]))
    table = effect_table(found, np.ones((7, 1)), 0.5, draws=20)
    assert table["effect_whole"].isna().all()
    assert (table["effect"] > 0).all()


def test_a_quotient_of_two_estimates_is_covered():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        above, below = rng.normal(-1, 2, size=67), rng.gamma(1, size=201)
        error_above, error_below = above.std() / 67**0.5, below.std() / 201**0.5
        low, high = divided(
            above.mean(keepdims=True),
            above.mean(keepdims=True) - 1.96 * error_above,
            above.mean(keepdims=True) + 1.96 * error_above,
            Interval(
                below.mean(),
                below.mean() * np.exp(-1.96 * error_below),
                below.mean() * np.exp(1.96 * error_below),
            ),
        )
        held += low[0] <= -1 <= high[0]
    assert 0.92 < held / 400 < 0.98


def test_the_baseline_has_an_interval_of_its_own():
    losses = np.random.default_rng(0).lognormal(size=(499, 3))
    found = baseline_loss(losses)
    assert found.value == pytest.approx(losses.mean())
    assert found.low < found.value < found.high
    assert baseline_loss(losses[:, 0]).value == pytest.approx(losses[:, 0].mean())


def test_what_does_not_fit_is_refused(swept):
    exact, _, labels = swept
    with pytest.raises(ValueError, match=r"labels has shape \(30, 3\), expected \(31, 3\)"):
        changes(exact, labels[:30], squared_error(NAMES))
    with pytest.raises(ValueError, match=r"predicts 3 target\(s\), expected 2 \(a, b\)"):
        changes(exact, labels, squared_error(["a", "b"]))
    found = changes(exact, labels, squared_error(NAMES))
    with pytest.raises(ValueError, match="target is 'four', expected all or one of one, two, three"):
        found.of("four")
    with pytest.raises(ValueError, match="has 2 targets, expected the 3"):
        effect_table(found, np.ones((7, 2)), 1.0)
    with pytest.raises(ValueError, match=r"limit is 0\.0"):
        effect_table(found, np.ones((7, 3)), 0.0)
