import numpy as np
import pytest
from scipy.stats import pearsonr
from scored import make_measured
from sklearn.metrics import adjusted_rand_score, root_mean_squared_error
from tissue import GENES, PATCH, make_tissue, mark_split

import sthisto as sth
from sthisto._scoring import score
from sthisto._scoring.score import Score, ScoreOptions, score_clusters, score_genes, varies


@pytest.fixture
def measured():
    return make_measured()


def test_scores_agree_with_scipy_and_scikit_learn(measured):
    table = score_genes(measured, "good", ScoreOptions())
    good, depth = measured.predictions["good"], np.log(measured.totals)
    for i in (0, 31, 59):
        assert table["pcc"][i] == pytest.approx(pearsonr(measured.truth[:, i], good[:, i])[0])
        assert table["pcc_residual"][i] == pytest.approx(pearsonr(measured.residuals[:, i], good[:, i])[0])
        assert table["rmse"][i] == pytest.approx(root_mean_squared_error(measured.truth[:, i], good[:, i]))
        assert table["depth_pcc"][i] == pytest.approx(pearsonr(measured.truth[:, i], depth)[0])
    assert table["pcc_residual"].mean() > 0.3
    assert abs(score_genes(measured, "noise", ScoreOptions())["pcc_residual"].mean()) < 0.05
    assert table["pcc_partial_depth"].isna().all()  # no knots
    assert set(table["n_spots"]) == {80}


def test_references_that_are_not_asked_for_are_not_computed(measured, monkeypatch):
    monkeypatch.setitem(score.REFERENCES, "reproducibility", lambda one, options: pytest.fail("computed"))
    table = score_genes(measured, "good", ScoreOptions(), references=["depth"])
    assert "depth_pcc" in table
    assert "reliability" not in table


def test_a_registered_score_and_reference_are_columns_of_the_tables_and_summaries(monkeypatch):
    """What a further score needs is one function and one line."""
    monkeypatch.setitem(score.SCORES, "mae", Score(lambda m, p, o: sth.metrics.mae(m.truth, p), is_correlation=False))
    monkeypatch.setitem(score.REFERENCES, "counts", lambda m, o: {"mean_count": m.counts.mean(axis=0)})
    tissue = make_tissue("ABC")
    mark_split(tissue, {"A": "train", "B": "train", "C": "test"})
    sth.tl.predict(tissue, sth.tl.fit(tissue, method="color", patch_size=PATCH, genes=GENES[:8]))
    sth.tl.evaluate(tissue, n_boot=0)
    by_gene, by_section = (sth.get.scores(tissue, by=by) for by in ("gene", "section"))
    for name in ("mae", "mean_count"):
        np.testing.assert_allclose(by_section[name], by_gene[name].mean())
    assert (by_gene["mae"] > 0).all()
    sth.tl.cross_validate(tissue, "color", seeds=1, patch_size=PATCH)
    assert {"mae", "mean_count"} <= set(sth.get.scores(tissue, key_added="sthisto_cv", by="section"))


def test_constant_predictions_do_not_vary(measured):
    assert [varies(values) for values in measured.predictions.values()] == [True, True, False]
    assert not varies(np.empty((0, 3)))


def test_clusters_are_compared_with_the_labels_or_those_of_leiden():
    one = make_measured()
    assert score_clusters(one, one.truth, leiden=False, seed=0) is None
    against, found = score_clusters(one, one.truth, leiden=True, seed=0)
    assert against == "leiden of measured"
    assert found > 0.5
    labels = np.where(one.predictions["good"][:, 0] > 0, "high", "low").astype(object)
    labeled = type(one)(**{**vars(one), "labels": labels})
    against, found = score_clusters(labeled, one.predictions["good"], leiden=True, seed=0)
    assert against == "labels"
    expected = sth.metrics.cluster(one.predictions["good"], 2, seed=0)
    assert found == pytest.approx(adjusted_rand_score(labels, expected))
