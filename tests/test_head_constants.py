"""Noise with the moments of a head's outputs, and the constants that a head is missed least by: known answers."""

import numpy as np
import pytest
import torch
from heads_zoo import HEADS, LAYERS, TARGETS, pictures, zoo
from test_heads_linearized import straight

from vitmech_utils.heads.ablation import losses_without_heads, predict_without_heads
from vitmech_utils.heads.constants import HeadConstants, head_outputs, matched_noise, mean_constants
from vitmech_utils.heads.estimates import estimate
from vitmech_utils.heads.linearized import predict_linearized, predict_linearized_modes
from vitmech_utils.heads.optimal import optimal_constants
from vitmech_utils.model.anatomy import find_blocks
from vitmech_utils.tasks import squared_error

TASK = squared_error([f"t{number}" for number in range(TARGETS)])
PIXELS, LABELS = pictures(40, seed=2)
OTHERS, _ = pictures(60, seed=3)


def test_noise_has_the_mean_and_covariance_of_what_heads_write():
    model = zoo("vit")
    noise = matched_noise(model, OTHERS, batch=7)
    drawn = [noise.draw(pictures(400, seed=seed)[0]) for seed in (10, 11, 12)]
    for layer, own in enumerate(head_outputs(model, OTHERS)):
        residual = own - own.mean(0)
        expected = torch.einsum("ithd,ithe->hde", residual, residual) / (own.shape[1] * (len(own) - 1))
        found = torch.cat([part[layer] for part in drawn])
        centred = found - own.mean(0)
        covariance = torch.einsum("ithd,ithe->hde", centred, centred) / (len(found) * own.shape[1])
        scale = expected.diagonal(dim1=1, dim2=2).mean()
        assert (covariance - expected).abs().max() < 0.1 * scale
        assert centred.mean((0, 1)).abs().max() < 0.06 * scale.sqrt()


def test_the_noise_of_an_image_is_its_own_wherever_it_stands():
    noise = matched_noise(zoo("vit"), OTHERS)
    whole, part = noise.draw(PIXELS[:6]), noise.draw(PIXELS[4:5])
    for every, one in zip(whole, part, strict=True):
        torch.testing.assert_close(every[4:5], one, rtol=0, atol=1e-12)
    again = matched_noise(zoo("vit"), OTHERS, seed=1).draw(PIXELS[:6])
    assert not torch.allclose(whole[0], again[0])


@pytest.mark.parametrize("mode", ["noise", "optimal"])
@pytest.mark.parametrize("family", ["vit", "dinov2"])
def test_replay_equals_plain_hooks_and_linearizing_is_exact_for_a_linear_model(family, mode):
    model = straight(family)
    made = {
        "noise": matched_noise(model, OTHERS),
        "optimal": optimal_constants(model, OTHERS, pictures(60, seed=3)[1], TASK),
    }[mode]
    fast, slow = (
        predict_without_heads(model, PIXELS[:5], mode, reference=made, replay=replay)
        for replay in (True, False)
    )
    torch.testing.assert_close(fast.ablated, slow.ablated, rtol=0, atol=1e-10)
    linear = predict_linearized(model, PIXELS[:5], mode, reference=made, batch=2)
    torch.testing.assert_close(linear.ablated, fast.ablated, rtol=0, atol=1e-9)
    assert (fast.ablated - fast.baseline).abs().max() > 1e-3


def least_squares(model, pixels, labels, means, layer, head, ridge):
    """The best shift of a head of a model that is linear in its gates, in closed form."""
    size = find_blocks(model).head_size

    def answers(vector):
        outputs = [mean.clone() for mean in means.outputs]
        outputs[layer][0, :, head] += vector
        moved = HeadConstants(tuple(outputs), means.images)
        return (
            predict_without_heads(model, pixels, "optimal", reference=moved, layers=[layer], heads=[head])
            .ablated[0]
            .numpy()
        )

    base = answers(torch.zeros(size, dtype=torch.float64))
    design = np.stack([answers(unit) - base for unit in torch.eye(size, dtype=torch.float64)], -1)
    wanted = labels.numpy() - base
    rows, target = design.reshape(-1, size), wanted.reshape(-1)
    count = len(target)
    return np.linalg.solve(rows.T @ rows / count + ridge * np.eye(size), rows.T @ target / count)


def test_the_optimal_constant_is_the_least_squares_one_for_a_linear_model():
    model, (pixels, labels) = straight("vit"), pictures(30, seed=4)
    labels = labels + 3  # far from what it says, so that a shift helps
    means, penalty = mean_constants(model, pixels), 0.05
    found = optimal_constants(model, pixels, labels, TASK, penalties=[penalty])
    unit = losses_without_heads(model, pixels, labels, "mean", TASK, reference=pixels).mean()[0].mean(1)
    for layer, head in ((0, 0), (LAYERS - 1, HEADS - 1)):
        own = head_outputs(model, pixels)[layer][:, :, head]
        variance = float((own - own.mean(0)).square().mean())
        test = layer * HEADS + head
        ridge = penalty * float(unit[test]) / variance / own.shape[-1]
        expected = least_squares(model, pixels, labels, means, layer, head, ridge)
        shift = (found.outputs[layer] - means.outputs[layer])[0, :, head]
        np.testing.assert_allclose(
            shift.numpy(), np.broadcast_to(expected, shift.shape), rtol=1e-3, atol=1e-3
        )


def test_a_head_keeps_its_mean_where_no_shift_helps():
    model, (pixels, _) = straight("vit"), pictures(24, seed=5)
    without = predict_without_heads(model, pixels, "mean", reference=pixels)
    means = mean_constants(model, pixels, batch=16)  # as below: sums of other batches round otherwise
    for layer, head in ((0, 1), (LAYERS - 1, 0)):
        labels = without.ablated[layer * HEADS + head]  # what the model says with this mean is right
        found = optimal_constants(model, pixels, labels, TASK, batch=16)
        assert torch.equal(found.outputs[layer][:, :, head], means.outputs[layer][:, :, head])
        moved = optimal_constants(model, pixels, labels + 100, TASK, batch=16)
        assert not torch.allclose(moved.outputs[layer][:, :, head], means.outputs[layer][:, :, head])


def test_optimal_is_never_worse_than_mean_where_it_was_fitted():
    model, (pixels, labels) = straight("dinov2"), pictures(32, seed=6)
    constants = optimal_constants(model, pixels, labels, TASK)
    best, mean = (
        losses_without_heads(model, pixels, labels, mode, TASK, reference=reference).mean()[0].mean(1)
        for mode, reference in (("optimal", constants), ("mean", pixels))
    )
    assert (best <= mean + 1e-9).all()
    assert (best < mean - 1e-6).any()


def test_estimates_take_all_modes_at_once():
    model, (labels,) = zoo("vit"), (LABELS,)

    def draw(numbers):
        return PIXELS[numbers], labels[numbers]

    constants = optimal_constants(model, OTHERS, pictures(60, seed=3)[1], TASK)
    for mode, given in (("noise", {"reference": OTHERS}), ("optimal", {"constants": constants})):
        found = estimate(model, draw, 40, 40, mode, task=TASK, **given)
        made = given.get("reference", constants)
        exact = losses_without_heads(model, PIXELS, labels, mode, TASK, reference=made).mean()
        np.testing.assert_allclose(found.values().mean(1), (exact[0] - exact[1]).mean(1), atol=1e-8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: predict_without_heads(model, PIXELS, "optimal"), "optimal_constants"),
        (lambda model: predict_without_heads(model, PIXELS, "optimal", reference=OTHERS), "optimal_constants"),
        (
            lambda model: predict_without_heads(
                model, PIXELS, "noise", reference=mean_constants(model, OTHERS)
            ),
            "not for mode 'noise'",
        ),
        (
            lambda model: predict_without_heads(
                model, PIXELS, "mean", reference=matched_noise(model, OTHERS)
            ),
            "not for mode 'mean'",
        ),
        (
            lambda model: predict_without_heads(
                model, PIXELS, "mean", reference=HeadConstants((torch.zeros(1, 5, 3, 2),), 1)
            ),
            "compute them for this model",
        ),
        (lambda model: matched_noise(model, OTHERS[:1]), "two reference images"),
        (lambda model: optimal_constants(model, OTHERS[:3], LABELS[:3], TASK), "at least 4"),
        (lambda model: optimal_constants(model, OTHERS, LABELS[:3], TASK), "60"),
        (lambda model: optimal_constants(model, OTHERS[:40], LABELS, TASK, penalties=[0.0]), "positive"),
        (lambda model: predict_linearized_modes(model, iter([PIXELS]), ["noise"]), "needs reference"),
        (lambda model: predict_linearized_modes(model, PIXELS, ["optimal"]), "optimal_constants"),
        (
            lambda model: predict_linearized_modes(
                model, PIXELS, ["zero"], constants=mean_constants(model, OTHERS)
            ),
            "only mode 'optimal'",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(zoo("vit"))
