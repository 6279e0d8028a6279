"""A call that fails leaves no figure behind."""

import matplotlib.pyplot as plt
import pytest
from matplotlib.axes import Axes
from tissue import encoder, make_tissue

import sthisto as sth

CALLS = {
    "clusters": lambda sdata: sth.pl.clusters(sdata, "annotation"),
    "gene_compare": lambda sdata: sth.pl.gene_compare(sdata, "FN1"),
    "gene_correlation": sth.pl.gene_correlation,
    "history": sth.pl.history,
    "mean_variance": sth.pl.mean_variance,
    "scores": sth.pl.scores,
    "uncertainty": sth.pl.uncertainty,
}


class BrokenError(Exception):
    pass


def fail(*_args, **_kwargs):
    raise BrokenError


@pytest.fixture
def scored(sdata):
    sdata["spots"].obs["annotation"] = sdata["spots"].obs["annotation"].astype("category")
    sth.tl.evaluate(sdata, n_boot=0, n_splits=2)
    return sdata


@pytest.fixture(scope="module")
def retrieving():
    tissue = make_tissue("AB")
    model = sth.tl.fit(tissue, method="knn", image_encoder=encoder(), patch_size=16, k=5)
    return tissue, model


def test_every_picture_is_tried():
    # are tried where their results are made
    own = {"intervals", "learning_curve", "neighbors", "passport", "risk_coverage"}
    assert set(CALLS) | own == set(sth.pl.__all__)


@pytest.mark.parametrize("name", CALLS)
def test_a_failed_call_closes_its_figure_and_no_other(scored, monkeypatch, name):
    plt.figure(99)
    monkeypatch.setattr(Axes, "set_title", fail)
    with pytest.raises(BrokenError):
        CALLS[name](scored)
    assert plt.get_fignums() == [99]


def test_a_failed_call_of_neighbors_closes_its_figure(retrieving, monkeypatch):
    tissue, model = retrieving
    monkeypatch.setattr(Axes, "set_title", fail)
    with pytest.raises(BrokenError):
        sth.pl.neighbors(tissue, model, tissue["counts"].obs_names[0])
    assert plt.get_fignums() == []


def test_the_users_axes_stay_open(scored, monkeypatch):
    _, axes = plt.subplots(1, 3)
    monkeypatch.setattr(Axes, "set_title", fail)
    with pytest.raises(BrokenError):
        sth.pl.gene_compare(scored, "FN1", sections="left", ax=axes)
    assert len(plt.get_fignums()) == 1


def test_a_call_that_works_leaves_its_figure_open(scored):
    sth.pl.gene_compare(scored, "FN1")
    assert len(plt.get_fignums()) == 1
