from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

import sthisto as sth
from sthisto.metrics import gene_correlation_agreement


def log1p_cp10k(table):
    counts = table.X.toarray()
    return np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)


def heatmaps(figure):
    return [ax for ax in figure.axes if ax.get_title()]


def test_heatmaps_are_the_correlations_in_one_order(sdata):
    measured, predicted = heatmaps(sth.pl.gene_correlation(sdata))
    genes = [label.get_text() for label in measured.get_xticklabels()]
    assert genes == [label.get_text() for label in predicted.get_xticklabels()]
    tested = sdata["spots"][sdata["spots"].obs["region"] == "left", genes]
    full = log1p_cp10k(sdata["spots"][tested.obs_names])[:, sdata["spots"].var_names.get_indexer(genes)]
    np.testing.assert_allclose(measured.images[0].get_array(), np.corrcoef(full.T), atol=1e-5)
    np.testing.assert_allclose(predicted.images[0].get_array(), np.corrcoef(tested.layers["sthisto_pred"].T), atol=1e-5)
    agreement = gene_correlation_agreement(full, tested.layers["sthisto_pred"])
    assert predicted.get_title() == f"DANet, agreement {agreement:.2f}"
    for ax in (measured, predicted):
        matrix = np.asarray(ax.images[0].get_array())
        limit = np.quantile(np.abs(matrix[~np.eye(len(matrix), dtype=bool)]), 0.99)
        np.testing.assert_allclose(ax.images[0].get_clim(), (-limit, limit))


def test_genes_that_go_together_stand_together(sdata):
    rng = np.random.default_rng(0)
    program = rng.gamma(2, 1, (sdata["spots"].n_obs, 2)).repeat(4, axis=1)
    order = rng.permutation(8)
    sdata["spots"].X = rng.poisson(20 * program[:, order]).astype(np.float32)
    ax = heatmaps(sth.pl.gene_correlation(sdata))[0]
    genes = [label.get_text() for label in ax.get_xticklabels()]
    group = {gene: column // 4 for gene, column in zip(sdata["spots"].var_names, order, strict=True)}
    assert len({group[gene] for gene in genes[:4]}) == 1


def test_differences_between_sections_are_no_correlation(sdata):
    sdata["spots"].obs["sthisto_split"] = "test"
    sdata["spots"].obs["sthisto_seen"] = 0.0
    before = heatmaps(sth.pl.gene_correlation(sdata))[1].images[0].get_array().copy()
    sdata["spots"].layers["sthisto_pred"][sdata["spots"].obs["region"] == "right"] += 100
    after = heatmaps(sth.pl.gene_correlation(sdata))[1].images[0].get_array()
    np.testing.assert_allclose(before, after, atol=1e-3)


def test_a_constant_gene_is_left_white(sdata):
    sdata["spots"].layers["sthisto_pred"][:, 0] = 1
    predicted = heatmaps(sth.pl.gene_correlation(sdata))[1].images[0].get_array()
    assert np.ma.masked_invalid(predicted).mask.any(axis=0).sum() == 8
    assert np.isnan(np.ma.getdata(predicted)).all(axis=0).sum() == 1


def test_few_genes_and_wrong_axes_are_refused(sdata):
    with pytest.raises(ValueError, match="at least three"):
        sth.pl.gene_correlation(sdata, ["FN1", "SCD"])
    with pytest.raises(ValueError, match="1 axes for 1 x 2"):
        sth.pl.gene_correlation(sdata, ax=plt.subplots()[1])
