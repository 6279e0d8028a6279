from dataclasses import replace

import numpy as np
import pytest
from skimage.color import rgb2hed
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge as ReferenceRidge
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from tissue import GENES, PATCHES, encoder, make_section

from sthisto._images.patches import PatchSource
from sthisto.models import Color, Mean, Ridge
from sthisto.models.linear import ALPHAS, fit_ridge
from sthisto.models.methods.color import patch_colors
from sthisto.models.methods.ridge import RidgeOptions


@pytest.fixture
def problem():
    """Four groups of 40; targets follow three of twenty features."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(160, 20)) * np.linspace(3, 0.3, 20)
    y = x[:, :3] @ rng.normal(size=(3, 5)) + rng.normal(scale=25, size=(160, 5)) + 7
    return x, y, np.repeat(np.arange(4), 40)


@pytest.mark.parametrize("n_components", [None, 6])
def test_ridge_equals_a_grid_search_of_scikit_learn(problem, n_components):
    x, y, groups = problem
    found = fit_ridge(x, y, groups=groups, n_components=n_components)
    steps = [] if n_components is None else [PCA(n_components, random_state=0)]
    search = GridSearchCV(
        make_pipeline(*steps, ReferenceRidge()),
        {"ridge__alpha": ALPHAS},
        cv=GroupKFold(4),
        scoring="neg_mean_squared_error",
    ).fit(x, y, groups=groups)
    assert found.alpha == pytest.approx(search.best_params_["ridge__alpha"])
    assert ALPHAS[0] < found.alpha < ALPHAS[-1]
    np.testing.assert_allclose(found(x), search.predict(x), rtol=1e-4)


def test_strength_is_chosen_across_sections():
    """A feature that only names the section predicts within sections and not across: it is shrunk."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(4), 30)
    batch = rng.normal(size=(4, 6))[groups]
    x, y = np.hstack([batch, rng.normal(size=(120, 1)) * 0.3]), rng.normal(size=(4, 3))[groups]
    across = fit_ridge(x, y, groups=groups).alpha
    within = fit_ridge(x, y, groups=np.zeros(120, dtype=int)).alpha
    assert across > 100 * within


def test_within_groups_equals_ridge_on_what_is_left_of_each_group_s_mean(problem):
    x, y, groups = problem
    batch = np.random.default_rng(2).normal(scale=20, size=(4, 25))[groups]
    x, y = x + batch[:, :20], y + batch[:, 20:]  # what sets groups apart
    found = fit_ridge(x, y, groups=groups, within_groups=True)
    inside = [part - np.stack([part[groups == g].mean(axis=0) for g in range(4)])[groups] for part in (x, y)]
    reference = ReferenceRidge(alpha=found.alpha).fit(*inside)
    np.testing.assert_allclose(found(x), reference.predict(x - x.mean(axis=0)) + y.mean(axis=0), rtol=1e-4)
    across = fit_ridge(x, y, groups=groups)
    slopes = ReferenceRidge(alpha=1.0).fit(problem[0], problem[1]).coef_.T[:3]
    assert np.corrcoef(found.weight[:3].ravel(), slopes.ravel())[0, 1] > 0.9
    assert np.corrcoef(across.weight[:3].ravel(), slopes.ravel())[0, 1] < 0.9


def test_single_section_and_single_gene_are_fitted(problem):
    x, y, _ = problem
    found = fit_ridge(x, y[:, :1], groups=np.zeros(160, dtype=int))
    assert found(x).shape == (160, 1)
    assert np.corrcoef(found(x)[:, 0], y[:, 0])[0, 1] > 0.2


def test_single_spot_predicts_itself():
    found = fit_ridge(np.ones((1, 3)), np.array([[2.0, 5.0]]), groups=np.zeros(1), n_components=2)
    np.testing.assert_allclose(found(np.zeros((2, 3))), [[2, 5], [2, 5]], atol=1e-6)


def test_ridge_predicts_a_new_section():
    model = Ridge(GENES, patch=PATCHES, encoder=encoder())
    model.fit([make_section("A"), make_section("B", seed=1)])
    new = make_section("C", seed=2)
    found = model.predict(new.inputs)
    pcc = [np.corrcoef(a, b)[0, 1] for a, b in zip(found.expression.T[:8], new.expression.T[:8], strict=True)]
    assert np.mean(pcc) > 0.7
    assert found.sd is None
    assert 0.25 < np.median(found.confidence) < 0.75


def test_ridge_with_colors_is_ridge_on_both_where_they_vary_alike():
    sections = [make_section("A"), make_section("B", seed=1)]
    model = Ridge(GENES, patch=PATCHES, encoder=encoder(), options=RidgeOptions(n_components=20, colors=True))
    model.fit(sections)
    plain = Ridge(GENES, patch=PATCHES, encoder=encoder())
    encoded = np.concatenate([plain.embed(section.inputs) for section in sections])
    colors = np.concatenate([patch_colors(section.inputs).values for section in sections])
    colors = colors / colors.std(axis=0) * np.sqrt(encoded.var(axis=0).sum() / 9)
    assert colors.var(axis=0).sum() == pytest.approx(encoded.var(axis=0).sum(), rel=1e-4)
    x, y = np.hstack([encoded, colors]), np.concatenate([section.expression for section in sections])
    expected = fit_ridge(x, y, groups=np.repeat([0, 1], 49), n_components=20)
    found = np.concatenate([model.predict(section.inputs).expression for section in sections])
    np.testing.assert_allclose(found, expected(x), rtol=1e-3, atol=1e-3)


def test_ridge_within_sections_does_not_learn_what_sets_sections_apart():
    first, second = make_section("A"), make_section("B", seed=1)
    batch = np.random.default_rng(0).normal(size=len(GENES)).astype(np.float32)
    shifted = replace(second, expression=second.expression + 3 * batch)
    brighter = np.minimum(second.inputs.patches[0].level.array, 225).astype(np.uint8) + 30
    second.inputs.patches[0].level.array[:] = brighter  # a batch effect in the image and in the expression
    new = make_section("C", seed=2)
    scores = {}
    for within in (False, True):
        model = Ridge(GENES, patch=PATCHES, encoder=encoder(), options=RidgeOptions(within_sections=within))
        model.fit([first, shifted])
        found = model.predict(new.inputs).expression
        pcc = [np.corrcoef(a, b)[0, 1] for a, b in zip(found.T[:8], new.expression.T[:8], strict=True)]
        scores[within] = np.mean(pcc)
    assert scores[True] > 0.7
    assert scores[True] > scores[False] + 0.05


def test_colors_of_several_widths_stand_side_by_side():
    inputs = make_section().inputs
    (source,) = inputs.patches
    wide = PatchSource(source.level, inputs.positions, extent=2 * source.extent, size=source.size)
    both = replace(inputs, patches=(source, wide))
    found = patch_colors(both).values
    np.testing.assert_array_equal(found[:, :9], patch_colors(inputs).values)
    np.testing.assert_array_equal(found[:, 9:], patch_colors(replace(inputs, patches=(wide,))).values)


def test_colors_are_means_and_spreads_and_scikit_images_stains():
    section = make_section()
    patches = section.inputs.patches[0].read()
    stains = rgb2hed(patches)
    rgb = patches / 255
    expected = [rgb.mean(axis=(1, 2)), rgb.std(axis=(1, 2)), stains.mean(axis=(1, 2)) * -np.log(1e-6)]
    found = patch_colors(section.inputs).values
    np.testing.assert_allclose(found[:, :6], np.hstack(expected[:2]), rtol=1e-4)
    # scikit-image clips negative amounts of a stain, so only spots without any are compared.
    unclipped = (stains > 0).all(axis=(1, 2))
    np.testing.assert_allclose(found[:, 6:][unclipped], expected[2][unclipped], rtol=1e-3)
    assert unclipped[:, :2].any(axis=0).all()


def test_color_predicts_what_the_stain_shows():
    model = Color(GENES, patch=PATCHES)
    model.fit([make_section("A"), make_section("B", seed=1)])
    new = make_section("C", seed=2)
    found = model.predict(new.inputs).expression
    pcc = [np.corrcoef(a, b)[0, 1] for a, b in zip(found.T, new.expression.T, strict=True)]
    assert np.mean(pcc[:8]) > 0.7
    assert np.abs(pcc[8:]).mean() < 0.4


def test_mean_is_that_of_all_spots_that_may_be_learned_from_and_of_no_others():
    first, second = make_section("A", validation=9), make_section("B", seed=1)
    second = replace(second, train=second.train[:10])
    model = Mean(GENES, patch=PATCHES)
    model.fit([first, second])
    trained = np.concatenate([first.expression[first.used], second.expression[:10]])
    found = model.predict(make_section("C", seed=2).inputs)
    np.testing.assert_allclose(found.expression, np.tile(trained.mean(axis=0), (49, 1)), rtol=1e-5)
    np.testing.assert_allclose(found.sd, np.tile(trained.std(axis=0), (49, 1)), rtol=1e-4)
