import numpy as np
import pytest
import scipy.sparse as sp
from builders import make_sdata
from tissue import GENES, PATCH, Pool, make_tissue, rows_of

import sthisto as sth

SMALL = {"image_encoder": Pool(), "patch_size": PATCH, "genes": GENES, "k": 5, "max_epochs": 2, "embedding_dim": 8}


@pytest.fixture(scope="module")
def model():
    return sth.tl.fit(make_tissue(), **SMALL)


def test_embedding_of_training_spots_is_that_of_the_fit(model):
    tissue = make_tissue()
    fitted = sth.tl.fit(tissue, key_added="fit", **SMALL)
    sth.tl.embed(tissue, fitted)
    obsm = tissue["counts"].obsm
    np.testing.assert_array_equal(obsm["X_sthisto"], obsm["X_fit"])
    np.testing.assert_allclose(obsm["X_sthisto_gene"], obsm["X_fit_gene"], atol=1e-6)


def test_new_section_is_embedded_and_other_regions_stay_nan(model):
    tissue = make_tissue("CD", seed=4)
    sth.tl.embed(tissue, model, shapes_key="D")
    for slot in ("X_sthisto", "X_sthisto_gene"):
        values = tissue["counts"].obsm[slot]
        assert values.shape == (98, 8)
        assert values.dtype == np.float32
        assert np.isfinite(values[rows_of(tissue, "D")]).all()
        assert np.isnan(values[rows_of(tissue, "C")]).all()


def test_images_alone_need_no_genes(model):
    sdata = make_sdata(n_genes=2)
    with pytest.raises(KeyError, match="10 of 12 genes"):
        sth.tl.embed(sdata, model)
    sth.tl.embed(sdata, model, genes=False)
    assert set(sdata["counts"].obsm) == {"X_sthisto"}


def test_spots_without_counts_have_no_gene_embedding(model):
    tissue = make_tissue()
    counts = tissue["counts"].X.toarray()
    counts[5] = 0
    tissue["counts"].X = sp.csr_matrix(counts)
    sth.tl.embed(tissue, model)
    missing = np.isnan(tissue["counts"].obsm["X_sthisto_gene"]).all(axis=1)
    assert np.flatnonzero(missing).tolist() == [5]


def test_expression_on_another_scale_is_refused(model):
    tissue = make_tissue()
    sth.pp.normalize(tissue)
    tissue["counts"].X = tissue["counts"].layers["log1p"]
    with pytest.raises(ValueError, match=r"X of section 'A' holds no raw counts.*'log1p'"):
        sth.tl.embed(tissue, model)
    as_is = sth.tl.fit(tissue, **SMALL)
    with pytest.raises(ValueError, match="raw counts, but the model was fitted on values taken as they are"):
        sth.tl.embed(make_tissue(), as_is)


def test_features_of_ridge_are_its_embedding():
    tissue = make_tissue()
    model = sth.tl.fit(tissue, method="ridge", image_encoder=Pool(), patch_size=PATCH)
    assert tissue["counts"].obsm["X_sthisto"].shape == (98, 24)
    sth.tl.embed(tissue, model, key_added="again")
    np.testing.assert_array_equal(tissue["counts"].obsm["X_again"], tissue["counts"].obsm["X_sthisto"])


def test_method_without_embedding_is_refused():
    tissue = make_tissue()
    model = sth.tl.fit(tissue, method="mean")
    with pytest.raises(TypeError, match="'mean' has no embedding"):
        sth.tl.embed(tissue, model)
