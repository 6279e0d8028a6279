import random

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from builders import Region, make_sdata
from sklearn.metrics import adjusted_rand_score
from tissue import make_tissue, rows_of

import sthisto as sth


@pytest.fixture
def halves():
    """Two sections in which half of the spots express other genes than the rest."""
    tissue = make_tissue(side=8)
    table = tissue["counts"]
    group = table.obs["instance"].to_numpy() % 2
    rate = np.where(group[:, None] == np.arange(table.n_vars) % 2, 60.0, 5.0)
    table.X = sp.csr_matrix(np.random.default_rng(0).poisson(rate).astype(np.float32))
    return tissue, group


@pytest.mark.parametrize(("method", "n_clusters"), [("kmeans", 2), ("leiden", 2)])
def test_clusters_of_each_section_are_the_groups_that_were_drawn(halves, method, n_clusters):
    tissue, group = halves
    sth.tl.cluster(tissue, method=method, n_clusters=n_clusters)
    found = tissue["counts"].obs["sthisto_cluster"]
    assert found.dtype == "category"
    for region in ("A", "B"):
        rows = rows_of(tissue, region)
        assert adjusted_rand_score(group[rows], found.iloc[rows]) == 1


def test_leiden_chooses_a_number_of_its_own(halves):
    sth.tl.cluster(halves[0], key_added="mine")
    assert halves[0]["counts"].obs["mine"].nunique() >= 2


def test_sections_are_clustered_each_by_itself(halves):
    """What another section holds changes nothing."""
    tissue, _ = halves
    sth.tl.cluster(tissue, method="kmeans", n_clusters=2, shapes_key="A")
    alone = tissue["counts"].obs["sthisto_cluster"].copy()
    assert alone.iloc[rows_of(tissue, "B")].isna().all()
    sth.tl.cluster(tissue, method="kmeans", n_clusters=2)
    rows = rows_of(tissue, "A")
    assert alone.iloc[rows].tolist() == tissue["counts"].obs["sthisto_cluster"].iloc[rows].tolist()


def test_depth_is_taken_out_of_counts(halves):
    tissue, group = halves
    table = tissue["counts"]
    depth = np.random.default_rng(1).integers(1, 40, table.n_obs)
    table.X = sp.csr_matrix(table.X.toarray() * depth[:, None])
    sth.tl.cluster(tissue, method="kmeans", n_clusters=2)
    rows = rows_of(tissue, "A")
    assert adjusted_rand_score(group[rows], table.obs["sthisto_cluster"].iloc[rows]) == 1


def test_prediction_is_clustered_over_the_genes_and_spots_that_were_predicted(halves):
    tissue, group = halves
    table = tissue["counts"]
    layer = np.full(table.shape, np.nan, dtype=np.float32)
    layer[:, :6] = np.log1p(table.X.toarray()[:, :6])
    missing = rows_of(tissue, "B")[:5]
    layer[missing] = np.nan
    table.layers["sthisto_pred"] = layer
    sth.tl.cluster(tissue, layer="sthisto_pred", method="kmeans", n_clusters=2)
    found = table.obs["sthisto_cluster"]
    np.testing.assert_array_equal(np.flatnonzero(found.isna()), np.sort(missing))
    rows = rows_of(tissue, "A")
    assert adjusted_rand_score(group[rows], found.iloc[rows]) == 1


def test_spots_without_counts_have_no_cluster(halves):
    tissue, _ = halves
    counts = tissue["counts"].X.toarray()
    counts[7] = 0
    tissue["counts"].X = sp.csr_matrix(counts)
    sth.tl.cluster(tissue, method="kmeans", n_clusters=2)
    assert np.flatnonzero(tissue["counts"].obs["sthisto_cluster"].isna()).tolist() == [7]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "kmeans"}, ValueError, "Section 'spots'.*by X.*n_clusters"),
        ({"method": "louvain"}, ValueError, "'leiden', 'kmeans'"),
        ({"layer": "missing"}, KeyError, "'missing' is not in the layers"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        sth.tl.cluster(make_sdata(), **arguments)


def test_section_without_expression_is_refused_and_nothing_written():
    sdata = make_sdata(Region(), Region(name="other", image_key="other_image", system="other"))
    counts = sdata["counts"].X.toarray()
    counts[rows_of(sdata, "other")] = 0
    sdata["counts"].X = sp.csr_matrix(counts)
    with pytest.raises(ValueError, match="Section 'other'"):
        sth.tl.cluster(sdata, method="kmeans", n_clusters=2)
    assert "sthisto_cluster" not in sdata["counts"].obs


@pytest.mark.parametrize("n_spots", [2, 3, 5])
def test_leiden_clusters_the_smallest_sections(n_spots):
    region = Region(centers=np.arange(2.0 * n_spots).reshape(n_spots, 2) * 10 + 100)
    sdata = make_sdata(region)
    sth.tl.cluster(sdata)
    assert sdata["counts"].obs["sthisto_cluster"].notna().all()


def test_leiden_leaves_random_states_and_threads_as_they_were(halves):
    state, of_numpy, threads = random.getstate(), np.random.get_state()[1].copy(), torch.get_num_threads()  # noqa: NPY002
    sth.tl.cluster(halves[0])
    first = halves[0]["counts"].obs["sthisto_cluster"].copy()
    assert random.getstate() == state
    np.testing.assert_array_equal(np.random.get_state()[1], of_numpy)  # noqa: NPY002
    assert torch.get_num_threads() == threads
    sth.tl.cluster(halves[0])
    assert first.equals(halves[0]["counts"].obs["sthisto_cluster"])
