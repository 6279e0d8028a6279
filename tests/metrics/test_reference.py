import numpy as np
import pytest

from sthisto import metrics


def test_pearson_reproduces_the_stored_values(evaluation):
    score = metrics.pearson(evaluation["truth"], evaluation["prediction"])
    np.testing.assert_allclose(score, evaluation["pcc"], atol=1e-6)


def test_cluster_ari_reproduces_the_stored_value(evaluation):
    assert metrics.cluster_ari(evaluation["prediction"], evaluation["label"]) == pytest.approx(float(evaluation["ari"]))


@pytest.mark.parametrize("kind", ["truth", "prediction"])
def test_proportions_reproduce_the_stored_values_in_gene_order(evaluation, kind):
    for name in ("mean", "sd"):
        shares = getattr(metrics, f"{name}_proportions")(evaluation[kind])
        np.testing.assert_allclose(shares[evaluation[f"{name}_order"]], evaluation[f"{name}_{kind}"], atol=1e-6)


def test_components_equal_scanpys(evaluation):
    import anndata as ad
    import scanpy as sc

    from sthisto.metrics.clustering import _principal_components

    table = ad.AnnData(evaluation["prediction"])
    sc.pp.pca(table, svd_solver="arpack")
    np.testing.assert_allclose(_principal_components(evaluation["prediction"], 50, 0), table.obsm["X_pca"], atol=1e-5)
