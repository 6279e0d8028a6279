"""The sibling score on simulations whose structure is known, and against a plain formula."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression

from sthisto import metrics


def section(rng, n_spots=300, n_genes=200, *, structure=0.0, dispersion=0.0):
    """Residuals of counts: programs that genes share, and overdispersion that each gene has for itself."""
    share = rng.dirichlet(np.full(n_genes, 2.0))
    depth = rng.lognormal(7.5, 0.4, n_spots)
    state = rng.normal(size=(n_spots, 3)) @ np.random.default_rng(1).normal(size=(3, n_genes)) * structure
    alone = rng.normal(size=(n_spots, n_genes)) * dispersion
    counts = rng.poisson(depth[:, None] * share * np.exp(state + alone))
    rest = rng.poisson(depth * 3)
    return counts, counts.sum(axis=1) + rest


def residuals(counts, totals):
    return metrics.pearson_residuals(counts, totals=totals)


def test_without_structure_the_score_is_zero_within_its_error(rng):
    train, test = section(rng), section(rng)
    scores = metrics.sibling_score(residuals(*test), [residuals(*train)])
    assert abs(scores.mean()) < 3 / np.sqrt(300 * 200) + 0.01


def test_dispersion_without_structure_raises_reproducibility_but_not_the_sibling_score(rng):
    train, test = (section(rng, dispersion=0.5) for _ in range(2))
    assert metrics.reproducibility(test[0], totals=test[1]).overall > 0.4
    scores = metrics.sibling_score(residuals(*test), [residuals(*train)])
    assert abs(scores.mean()) < 3 / np.sqrt(300 * 200) + 0.01


def test_strong_structure_is_found_with_as_many_components_as_there_are_programs(rng):
    train = [residuals(*section(rng, structure=0.3)) for _ in range(2)]
    reference = metrics.SiblingReference.fit(train)
    assert 3 <= reference.components.shape[1] <= 8  # expression is exponential in the programs
    test = section(rng, structure=0.3)
    scores = metrics.sibling_score(residuals(*test), reference)
    found = metrics.reproducibility(test[0], totals=test[1])
    assert 0.5 < scores.mean() < found.overall + 0.02


def test_a_gene_is_predicted_by_least_squares_from_other_genes_alone(rng):
    train, test = residuals(*section(rng, structure=0.3)), residuals(*section(rng, structure=0.3))
    reference = metrics.SiblingReference.fit([train], n_components=3)
    components = PCA(3, svd_solver="full").fit(train).components_.T
    np.testing.assert_allclose(np.abs(reference.components), np.abs(components), atol=1e-6)
    predicted = reference.predict(test, n_folds=200)
    gene, centered = 7, test - test.mean(axis=0)
    others = np.arange(200) != gene
    fitted = LinearRegression(fit_intercept=False).fit(components[others], centered[:, others].T)
    np.testing.assert_allclose(predicted[:, gene], fitted.coef_ @ components[gene], atol=1e-6)
    changed = test.copy()
    changed[:, gene] = rng.normal(size=len(test))
    np.testing.assert_allclose(reference.predict(changed, n_folds=200)[:, gene], predicted[:, gene])


def test_spots_with_nan_are_left_out_and_stay_nan(rng):
    train, test = residuals(*section(rng, structure=0.3)), residuals(*section(rng, structure=0.3))
    holes = np.vstack([test, np.full((2, 200), np.nan)])
    reference = metrics.SiblingReference.fit([np.vstack([train, np.full((1, 200), np.nan)])], n_components=3)
    np.testing.assert_allclose(reference.components, metrics.SiblingReference.fit([train], n_components=3).components)
    predicted = reference.predict(holes)
    assert np.isnan(predicted[-2:]).all()
    np.testing.assert_allclose(predicted[:-2], reference.predict(test))


@pytest.mark.parametrize("shape", [(1, 5), (2, 1), (3, 2)])
def test_tiny_sections_give_numbers_or_nan_but_no_error(rng, shape):
    scores = metrics.sibling_score(rng.normal(size=shape), [rng.normal(size=shape)])
    assert scores.shape == (shape[1],)


def test_other_genes_than_the_reference_has_are_refused(rng):
    with pytest.raises(ValueError, match="has 6 genes, the reference 5"):
        metrics.sibling_score(rng.normal(size=(9, 6)), [rng.normal(size=(9, 5))])
    with pytest.raises(ValueError, match="same genes"):
        metrics.SiblingReference.fit([np.zeros((4, 3)), np.zeros((4, 2))])
    with pytest.raises(ValueError, match="is empty"):
        metrics.SiblingReference.fit([])


def test_reference_on_real_sections_of_another_patient_is_far_below_the_reproducibility(her2st_residuals):
    train = [her2st_residuals(name) for name in ("C2", "C3", "C4")]
    scores = [metrics.sibling_score(her2st_residuals(name), train).mean() for name in ("A1", "A2")]
    assert np.mean(scores) == pytest.approx(0.097, abs=0.005)
