import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from tissue import GENES, make_tissue

from sthisto._scoring.measure import measure, section_blocks
from sthisto._sdata.expression import Normalization
from sthisto._sdata.sections import read_sections


@pytest.fixture
def section():
    return read_sections(make_tissue("A"))[0]


def counts_of(section):
    return section.table.X.toarray()[section.rows]


def test_what_was_measured_is_that_of_the_asked_spots_and_genes(section):
    spots, genes = np.array([5, 3, 40]), ["gene7", "gene2"]
    prediction = np.arange(6.0).reshape(3, 2)
    found = measure(section, genes, {"m": prediction}, spots=spots)
    counts = counts_of(section)[spots]
    np.testing.assert_array_equal(found.counts, counts[:, [7, 2]])
    np.testing.assert_array_equal(found.totals, counts.sum(axis=1))
    np.testing.assert_array_equal(found.predictions["m"], prediction)
    expected = ad.AnnData(counts)
    sc.pp.normalize_total(expected, target_sum=1e4)
    sc.pp.log1p(expected)
    np.testing.assert_allclose(found.truth, expected.X[:, [7, 2]], rtol=1e-5)
    assert (found.name, found.genes, len(found)) == ("A", genes, 3)


def test_spots_without_counts_are_left_out_of_everything(section):
    counts = section.table.X.toarray()
    counts[section.rows[[0, 9]]] = 0
    section.table.X = sp.csr_matrix(counts)
    prediction = np.arange(49.0)[:, None]
    labels = np.array([None] * 48 + ["tumor"], dtype=object)
    found = measure(section, GENES[:1], {"m": prediction}, labels=labels, blocks=np.arange(49))
    kept = np.setdiff1d(np.arange(49), [0, 9])
    for values in (found.predictions["m"][:, 0], found.blocks):
        np.testing.assert_array_equal(values, kept)
    assert len(found.truth) == len(found.residuals) == len(found.labels) == 47
    assert np.isfinite(found.residuals).all()


def test_a_section_without_any_counts_has_no_spots(section):
    section.table.X = sp.csr_matrix(section.table.shape, dtype=np.float32)
    assert len(measure(section, GENES, {"m": np.ones((49, 12))})) == 0


def test_labels_that_say_nothing_are_none(section):
    labels = np.array([None, "undetermined", np.nan] + [None] * 46, dtype=object)
    assert measure(section, GENES, {}, labels=labels).labels is None


def test_values_used_as_they_are_need_a_layer_of_counts(section):
    section.table.layers["counts"] = section.table.X.copy()
    section.table.X = np.log1p(section.table.X.toarray())
    scale = Normalization("as_is")
    with pytest.raises(ValueError, match=r"X holds no raw counts.*counts_layer=.*'counts'"):
        measure(section, GENES, {}, normalization=scale)
    found = measure(section, GENES, {}, normalization=scale, counts_layer="counts")
    np.testing.assert_array_equal(found.truth, section.table.X[section.rows])
    np.testing.assert_array_equal(found.counts, section.table.layers["counts"].toarray()[section.rows])


def test_normalization_in_the_panel_leaves_other_genes_out(section):
    found = measure(section, GENES[:4], {})
    counts = counts_of(section)[:, :4]
    np.testing.assert_allclose(found.in_panel(), np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4), rtol=1e-5)


def test_depth_is_a_prediction_beside_the_others(section):
    found = measure(section, GENES, {"m": np.ones((49, 12))}).with_depth("depth")
    assert list(found.predictions) == ["m", "depth"]
    np.testing.assert_allclose(found.predictions["depth"][:, 3], np.log(found.totals))


@pytest.mark.parametrize("width", [1.0, 7.3, 1e5])
def test_blocks_are_a_fifth_of_the_longer_side_wide(width):
    grid = np.stack(np.meshgrid(np.linspace(0, width, 21), np.linspace(0, width / 2, 11)), -1).reshape(-1, 2)
    blocks = section_blocks(grid)
    columns = np.unique(np.column_stack([blocks, np.floor(grid[:, 0] / width * 4.9999999)]), axis=0)
    assert len(np.unique(blocks)) == len(columns) == 15


@pytest.mark.parametrize("centers", [np.zeros((0, 2)), np.zeros((1, 2)), np.full((3, 2), 7.0)])
def test_spots_at_one_place_are_one_block(centers):
    np.testing.assert_array_equal(section_blocks(centers), np.zeros(len(centers)))
