"""Ridge probes: the leave-one-out error by brute force, planted directions, and states against the model's own."""

import numpy as np
import pytest
import torch
from heads_zoo import FAMILIES, IMAGES, LAYERS, WIDTH, pictures, zoo
from test_heads_hooks import hooks_left

from vitmech_utils.heads.probes import PENALTIES, explained_variance, ridge_probe, token_states


def brute(features, targets, new):
    """Every penalty tried by leaving out each image in turn, the mean fitted without it; scaling as on all images."""
    images, middle, spread = len(features), features.mean(0), features.std(0)
    scaled, other = (features - middle) / spread, (new - middle) / spread

    def fit(rows, target, penalty):
        design = np.c_[np.ones(rows.sum()), scaled[rows]]
        punished = penalty * images * np.diag([0.0] + [1.0] * features.shape[1])
        return np.linalg.solve(design.T @ design + punished, design.T @ targets[rows, target])

    found = []
    for target in range(targets.shape[1]):
        errors = []
        for penalty in PENALTIES:
            left = []
            for image in range(images):
                weights = fit(np.arange(images) != image, target, penalty)
                left.append((targets[image, target] - weights @ np.r_[1.0, scaled[image]]) ** 2)
            errors.append(np.mean(left))
        weights = fit(np.ones(images, bool), target, PENALTIES[int(np.argmin(errors))])
        found.append(np.c_[np.ones(len(other)), other] @ weights)
    return np.stack(found, 1)


def test_it_is_ridge_with_the_penalty_that_leaving_out_one_image_at_a_time_prefers():
    rng = np.random.default_rng(0)
    features, new = rng.normal(size=(13, 5)) * 3 + 1, rng.normal(size=(4, 5))
    targets = np.stack([features[:, 0] + rng.normal(size=13), rng.normal(size=13)], 1)
    np.testing.assert_allclose(
        ridge_probe(features, targets, new), brute(features, targets, new), rtol=1e-9, atol=1e-9
    )


def test_a_planted_direction_is_found_among_more_features_than_images_and_shuffled_labels_are_not():
    rng = np.random.default_rng(1)
    direction = rng.normal(size=(3, 97))
    latent = rng.normal(size=(120, 3))
    features = latent @ direction + 0.1 * rng.normal(size=(120, 97))
    targets = latent[:, :1] * 5 + 2
    fit, test = slice(0, 60), slice(60, 120)
    found = explained_variance(targets[test], ridge_probe(features[fit], targets[fit], features[test]))
    assert found[0] > 0.98
    shuffled = targets[fit][rng.permutation(60)]
    assert explained_variance(targets[test], ridge_probe(features[fit], shuffled, features[test]))[0] < 0.1


def test_a_constant_feature_is_left_out():
    rng = np.random.default_rng(2)
    features, new = rng.normal(size=(9, 2)), rng.normal(size=(3, 2))
    targets = features[:, :1]
    constant = [np.c_[part, np.full(len(part), 7.0)] for part in (features, new)]
    np.testing.assert_allclose(
        ridge_probe(constant[0], targets, constant[1]), ridge_probe(features, targets, new)
    )


def test_explained_variance_of_the_mean_is_nothing():
    truth = np.array([[1.0], [2.0], [4.0]])
    assert explained_variance(truth, np.full((3, 1), truth.mean()))[0] == pytest.approx(0)
    assert explained_variance(truth, truth)[0] == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_the_models_own(family):
    model, (pixels, _) = zoo(family), pictures()
    states = token_states(model, pixels, batch=2)
    assert not hooks_left(model)
    assert states["CLS"].shape == states["patches"].shape == (IMAGES, LAYERS + 1, WIDTH)
    if family in ("vit", "dinov2"):
        with torch.no_grad():
            hidden = model.backbone(pixels, output_hidden_states=True).hidden_states
        for depth in range(LAYERS):
            torch.testing.assert_close(states["CLS"][:, depth], hidden[depth][:, 0].float())
            torch.testing.assert_close(states["patches"][:, depth], hidden[depth][:, 1:].mean(1).float())


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="three or more"):
        ridge_probe(np.zeros((2, 3)), np.zeros((2, 1)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="the same features"):
        ridge_probe(np.zeros((4, 3)), np.zeros((4, 1)), np.zeros((2, 2)))
