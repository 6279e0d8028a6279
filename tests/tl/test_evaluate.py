import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import pearsonr
from tissue import GENES, PATCH, make_tissue, mark_split, rows_of

import sthisto as sth
from sthisto._scoring.summary import summarize
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.sections import read_sections
from sthisto.metrics import reproducibility

ROLES = {"A": "train", "B": "train", "C": "test", "D": "test"}
SCORES = ["pcc", "pcc_residual", "reproducibility", "sibling", "ceiling"]


@pytest.fixture
def tissue():
    tissue = make_tissue("ABCD")
    mark_split(tissue, ROLES)
    return tissue


def predict(tissue, **arguments):
    model = sth.tl.fit(tissue, method="color", patch_size=PATCH, genes=GENES[:8], **arguments)
    sth.tl.predict(tissue, model)
    return tissue["counts"]


def correlations(truth, prediction):
    return [pearsonr(a, b)[0] for a, b in zip(truth.T, prediction.T, strict=True)]


def by_hand(counts, prediction):
    """Raw and residual PCC of the first eight genes, from the formulas alone."""
    totals = counts.sum(axis=1, keepdims=True)
    mu = totals * counts.sum(axis=0) / counts.sum()
    residuals = (counts - mu) / np.sqrt(mu + mu**2 / 100)
    bound = np.sqrt(len(counts))
    residuals = np.clip(residuals, -bound, bound)
    return correlations(np.log1p(counts / totals * 1e4)[:, :8], prediction), correlations(residuals[:, :8], prediction)


def test_scores_equal_those_computed_by_hand_on_the_test_spots(tissue):
    table = predict(tissue)
    sth.tl.evaluate(tissue)
    scores = table.uns["sthisto"]["scores"]
    assert list(scores["section"].unique()) == ["C", "D"]
    for region, part in scores.groupby("section"):
        rows = rows_of(tissue, region)
        counts = table.X[rows].toarray().astype(float)
        pcc, residual = by_hand(counts, table.layers["sthisto_pred"][rows][:, :8].astype(float))
        np.testing.assert_allclose(part["pcc"], pcc, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(part["pcc_residual"], residual, rtol=1e-4, atol=1e-6)
        depth = np.repeat(np.log(counts.sum(axis=1, keepdims=True)), 8, axis=1)
        np.testing.assert_allclose(part["depth_pcc"], by_hand(counts, depth)[0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(part["depth_pcc_residual"], by_hand(counts, depth)[1], rtol=1e-4, atol=1e-6)
        found = reproducibility(counts[:, :8], totals=counts.sum(axis=1), n_splits=10, seed=0)
        np.testing.assert_array_equal(part["reproducibility"], found.reproducibility)
        assert set(part["n_spots"]) == {49}
    assert scores["pcc_residual"].iloc[:4].mean() > 0.5


def test_columns_of_var_are_the_means_over_sections(tissue):
    table = predict(tissue)
    sth.tl.evaluate(tissue)
    scores = table.uns["sthisto"]["scores"]
    for metric in ("pcc", "pcc_residual"):
        per_section = [part.set_index("gene")[metric] for _, part in scores.groupby("section")]
        mean = np.nanmean([one.loc[GENES[:8]] for one in per_section], axis=0)
        np.testing.assert_allclose(table.var[f"sthisto_{metric}"].iloc[:8], mean)
        assert table.var[f"sthisto_{metric}"].iloc[8:].isna().all()


def test_summary_holds_each_section_and_their_mean(tissue):
    table = predict(tissue)
    sth.tl.evaluate(tissue)
    summary, scores = table.uns["sthisto"]["summary"].set_index("section"), table.uns["sthisto"]["scores"]
    assert list(summary.index) == ["C", "D", "all"]
    for region in "CD":
        assert summary.loc[region, "pcc"] == pytest.approx(scores.loc[scores["section"] == region, "pcc"].mean())
        reliability = scores.loc[scores["section"] == region, "reliability"].mean()
        assert summary.loc[region, "reproducibility"] == pytest.approx(np.sqrt(reliability))
    assert summary.loc["all", "pcc"] == pytest.approx(summary.loc[["C", "D"], "pcc"].mean())
    assert summary.loc["all", "n_spots"] == 98
    assert set(summary["n_genes"]) == {8}


def test_fifty_most_expressed_genes_of_each_section_are_summarized_apart():
    rng = np.random.default_rng(0)
    scores = pd.DataFrame(
        rng.random((120, 7)),
        columns=["pcc", "pcc_residual", "rmse", "reproducibility", "reliability", "depth_pcc", "depth_pcc_residual"],
    ).assign(pcc_partial_depth=0.5)
    scores = scores.assign(section=["A"] * 60 + ["B"] * 60, n_spots=9, mean_expression=rng.permutation(120))
    summary = summarize(scores).set_index(["section", "genes"])
    highest = scores[scores["section"] == "B"].sort_values("mean_expression").tail(50)
    assert summary.loc[("B", "top 50"), "pcc"] == pytest.approx(highest["pcc"].mean())
    assert summary.loc[("all", "all modeled"), "n_genes"] == 60


def test_a_table_of_the_prediction_alone_has_nothing_to_score(tissue):
    mark_split(tissue, ROLES)
    model = sth.tl.fit(tissue, method="color", patch_size=PATCH)
    sth.tl.predict(tissue, model, new_table_key="alone")
    with pytest.raises(ValueError, match="X of table 'alone' is the prediction itself, so nothing was measured there"):
        sth.tl.evaluate(tissue, table_key="alone")
    sth.tl.predict(tissue, model, table_key="counts")
    sth.tl.evaluate(tissue, table_key="counts", n_boot=0)


def test_spots_the_model_was_trained_on_are_refused(tissue):
    table = predict(tissue)
    mark_split(tissue, {**ROLES, "A": "test"})
    with pytest.raises(ValueError, match=r"trained on 49 of the spots to score in section 'A'.*sth\.pp\.split"):
        sth.tl.evaluate(tissue)
    del table.obs["sthisto_split"]
    with pytest.raises(ValueError, match="trained on"):
        sth.tl.evaluate(tissue)
    assert "sthisto_pcc" not in table.var
    sth.tl.evaluate(tissue, shapes_key=["C", "D"])
    assert set(table.uns["sthisto"]["scores"]["split"]) == {"none"}


def test_validation_spots_are_refused_too(tissue):
    table = tissue["counts"]
    table.obs.loc[table.obs_names[rows_of(tissue, "B")], "sthisto_split"] = "val"
    predict(tissue)
    mark_split(tissue, {**ROLES, "B": "test"})
    with pytest.raises(ValueError, match="trained on 49"):
        sth.tl.evaluate(tissue)


def test_sections_without_test_spots_are_not_scored(tissue):
    predict(tissue)
    with pytest.raises(ValueError, match="No spot can be scored"):
        sth.tl.evaluate(tissue, shapes_key=["A", "B"])


def test_only_spots_with_a_prediction_are_scored(tissue):
    table = predict(tissue)
    table.layers["sthisto_pred"][rows_of(tissue, "C")[:9]] = np.nan
    sth.tl.evaluate(tissue)
    scores = table.uns["sthisto"]["scores"]
    assert scores.groupby("section")["n_spots"].first().to_dict() == {"C": 40, "D": 49}


def test_spots_without_counts_are_not_scored(tissue):
    table = tissue["counts"]
    counts = table.X.toarray()
    counts[rows_of(tissue, "C")[:4]] = 0
    table.X = sp.csr_matrix(counts)
    predict(tissue)
    sth.tl.evaluate(tissue)
    part = table.uns["sthisto"]["scores"].query("section == 'C'")
    rows = rows_of(tissue, "C")[4:]
    np.testing.assert_allclose(
        part["pcc"], by_hand(counts[rows].astype(float), table.layers["sthisto_pred"][rows][:, :8])[0], rtol=1e-5
    )
    assert set(part["n_spots"]) == {45}


def test_counts_of_a_layer_are_scored_where_the_model_was_fitted_on_other_values(tissue):
    table = tissue["counts"]
    sth.pp.normalize(tissue)
    table.layers["raw"] = table.X.copy()
    table.X = table.layers["log1p"]
    predict(tissue)
    with pytest.raises(ValueError, match=r"X holds no raw counts.*counts_layer="):
        sth.tl.evaluate(tissue)
    sth.tl.evaluate(tissue, counts_layer="raw")
    rows = rows_of(tissue, "C")
    expected = by_hand(table.layers["raw"][rows].toarray().astype(float), table.layers["sthisto_pred"][rows][:, :8])
    part = table.uns["sthisto"]["scores"].query("section == 'C'")
    np.testing.assert_allclose(part["pcc"], expected[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(part["pcc_residual"], expected[1], rtol=1e-4, atol=1e-6)


def test_a_cohort_is_scored_together_and_each_keeps_its_record():
    train, first, second = make_tissue("AB"), make_tissue(["C"], seed=2), make_tissue(["D"], seed=3)
    color = sth.tl.fit(train, method="color", patch_size=PATCH, genes=GENES)
    mean = sth.tl.fit(train, method="mean", patch_size=PATCH, genes=GENES)
    sth.tl.predict(first, color)
    sth.tl.predict(second, mean)
    sth.tl.evaluate([first, second])
    assert first["counts"].uns["sthisto"]["method"] == "color"
    assert second["counts"].uns["sthisto"]["method"] == "mean"
    assert first["counts"].uns["sthisto"]["scores"].equals(second["counts"].uns["sthisto"]["scores"])


def test_constant_prediction_has_no_correlation(tissue):
    sth.tl.predict(tissue, sth.tl.fit(tissue, method="mean", genes=GENES[:8]))
    sth.tl.evaluate(tissue)
    assert tissue["counts"].var["sthisto_pcc"].isna().all()


def test_missing_prediction_names_the_call(tissue):
    with pytest.raises(KeyError, match=r"sth\.tl\.predict\(sdata, model, key_added='sthisto'\)"):
        sth.tl.evaluate(tissue)
    sth.tl.fit(tissue, method="mean")
    with pytest.raises(KeyError, match=r"sth\.tl\.predict\(sdata, model\)"):
        sth.tl.evaluate(tissue)


def test_siblings_are_scored_by_components_of_the_training_spots(tissue):
    table = predict(tissue)
    sth.tl.evaluate(tissue)

    def residuals(region):
        counts = table.X[rows_of(tissue, region)].toarray()
        return sth.metrics.pearson_residuals(counts[:, :8], totals=counts.sum(axis=1))

    scores = table.uns["sthisto"]["scores"]
    for region in "CD":
        expected = sth.metrics.sibling_score(residuals(region), [residuals("A"), residuals("B")])
        np.testing.assert_allclose(scores.loc[scores["section"] == region, "sibling"], expected, atol=1e-5)
    assert table.var["sthisto_sibling"].iloc[8:].isna().all()


def test_siblings_are_those_of_the_model_also_once_saved(tissue, tmp_path):
    predict(tissue)
    sth.tl.evaluate(tissue)
    before = sth.get.scores(tissue)["sibling"]
    model = sth.tl.fit(tissue, method="color", patch_size=PATCH, genes=GENES[:8])
    model.save(tmp_path / "model")
    sth.tl.predict(tissue, sth.models.load(tmp_path / "model"), key_added="loaded")
    sth.tl.evaluate(tissue, key_added="loaded")
    np.testing.assert_array_equal(sth.get.scores(tissue, key_added="loaded")["sibling"], before)


def test_the_old_name_of_reproducibility_is_still_written(tissue):
    table = predict(tissue)
    sth.tl.evaluate(tissue)
    np.testing.assert_array_equal(table.var["sthisto_ceiling"], table.var["sthisto_reproducibility"])
    found = sth.get.scores(tissue)
    np.testing.assert_array_equal(found["ceiling"], found["reproducibility"])


def test_the_rule_by_which_genes_were_chosen_stays_with_the_score(tissue, tmp_path):
    table = predict(tissue)
    sth.tl.evaluate(tissue)
    assert table.uns["sthisto"]["genes_rule"] == "given"
    model = sth.tl.fit(tissue, method="color", patch_size=PATCH)
    model.save(tmp_path / "model")
    sth.tl.predict(tissue, sth.models.load(tmp_path / "model"))
    sth.tl.evaluate(tissue)
    assert table.uns["sthisto"]["genes_rule"] == "highly variable on training spots"
    sth.pp.select_genes(tissue, GENES[:5])
    sth.tl.predict(tissue, sth.tl.fit(tissue, method="color", patch_size=PATCH))
    assert table.uns["sthisto"]["genes_rule"] == "given"
    sth.pp.select_genes(tissue, n_top_genes=5)
    sth.tl.predict(tissue, sth.tl.fit(tissue, method="color", patch_size=PATCH))
    assert table.uns["sthisto"]["genes_rule"] == "highly variable on training spots"


def test_genes_that_a_method_says_nothing_of_score_zero_and_do_not_leave_the_mean(tissue):
    table = predict(tissue)
    sth.tl.evaluate(tissue)
    whole = table.uns["sthisto"]["scores"].copy()
    table.layers["sthisto_pred"][:, 4:8] = 1.0
    sth.tl.evaluate(tissue)
    scores = table.uns["sthisto"]["scores"]
    assert scores.loc[scores["gene"].isin(GENES[4:8]), ["pcc", "pcc_residual"]].isna().all(axis=None)
    summary = table.uns["sthisto"]["summary"].set_index("section")
    for name, part in whole.groupby("section"):
        kept = part.loc[part["gene"].isin(GENES[:4]), "pcc_residual"]
        assert summary.loc[name, "pcc_residual"] == pytest.approx(kept.sum() / 8)


def test_correlation_beyond_depth_takes_its_knots_from_the_training_spots(tissue):
    table = predict(tissue)
    sth.tl.evaluate(tissue)
    totals = np.asarray(table.X.sum(axis=1)).ravel()
    train = np.concatenate([rows_of(tissue, "A"), rows_of(tissue, "B")])
    spline = sth.metrics.DepthSpline.fit(np.log(totals[train]))
    np.testing.assert_allclose(table.uns["sthisto"]["depth_knots"], spline.knots)
    rows = rows_of(tissue, "C")
    truth = np.log1p(table.X[rows].toarray() / totals[rows, None] * 1e4)[:, :8]
    expected = sth.metrics.partial_pearson(
        truth, table.layers["sthisto_pred"][rows][:, :8], spline.transform(np.log(totals[rows]))
    )
    scores = table.uns["sthisto"]["scores"]
    np.testing.assert_allclose(scores.loc[scores["section"] == "C", "pcc_partial_depth"], expected, rtol=1e-4)


def test_reproducibility_over_sections_is_the_root_of_the_mean_reliability(tissue):
    table = predict(tissue)
    sth.tl.evaluate(tissue)
    scores, summary = table.uns["sthisto"]["scores"], table.uns["sthisto"]["summary"].set_index("section")
    reliability = scores.groupby("section")["reliability"].mean().clip(lower=0)
    assert summary.loc["all", "reproducibility"] == pytest.approx(np.sqrt(reliability.mean()))
    by_gene = scores.groupby("gene")["reliability"].mean()
    known = table.var["sthisto_reproducibility"].dropna()
    np.testing.assert_allclose(known, np.sqrt(by_gene[known.index]))


def test_mean_residual_score_has_an_interval_from_spatial_blocks(tissue):
    table = predict(tissue)
    sth.tl.evaluate(tissue, seed=3)
    summary = table.uns["sthisto"]["summary"].set_index("section")
    low, high = summary["pcc_residual_low"], summary["pcc_residual_high"]
    for name in "CD":
        rows = rows_of(tissue, name)
        counts = table.X[rows].toarray()
        residuals = sth.metrics.pearson_residuals(counts[:, :8], totals=counts.sum(axis=1))
        (section,) = read_sections(tissue, ElementKeys(shapes_key=name))
        np.testing.assert_array_equal(section.rows, rows)
        of_each = sth.metrics.spatial_blocks(section.centers, np.ptp(section.centers, axis=0).max() / 4.999)
        assert len(np.unique(of_each)) == 25
        predicted = {"color": table.layers["sthisto_pred"][rows][:, :8]}
        expected = sth.metrics.bootstrap_pearson(residuals, predicted, of_each, seed=3)["color"]
        assert expected.value == pytest.approx(summary.loc[name, "pcc_residual"], rel=1e-6)
        assert (low[name], high[name]) == pytest.approx((expected.low, expected.high), rel=1e-6)
    half = (high - low) / 2
    assert half["all"] == pytest.approx(np.hypot(half["C"], half["D"]) / 2)
    assert (low["all"] + high["all"]) / 2 == pytest.approx(summary.loc["all", "pcc_residual"])


def test_interval_is_left_out_when_unasked_for_and_where_there_is_no_score(tissue):
    table = predict(tissue)
    sth.tl.evaluate(tissue, n_boot=0)
    assert table.uns["sthisto"]["summary"]["pcc_residual_low"].isna().all()
    table.layers["sthisto_pred"][rows_of(tissue, "C")] = 1.0
    sth.tl.evaluate(tissue)
    found = table.uns["sthisto"]["summary"].set_index("section")
    assert np.isnan(found.loc["C", ["pcc_residual", "pcc_residual_high"]].astype(float)).all()
    assert found.loc["D", "pcc_residual_low"] < found.loc["D", "pcc_residual"]


@pytest.mark.parametrize("n_spots", [1, 2])
def test_sections_of_fewer_than_three_spots_are_no_part_of_the_mean(tissue, caplog, n_spots):
    """Two spots correlate perfectly, and would weigh as much as a section."""
    table = predict(tissue)
    roles = table.obs["sthisto_split"].astype(object)
    roles.iloc[rows_of(tissue, "C")[n_spots:]] = None
    table.obs["sthisto_split"] = roles
    sth.tl.evaluate(tissue, n_boot=0)
    assert f"Only {n_spots} spots of 'C' can be scored" in caplog.text
    assert set(table.uns["sthisto"]["scores"]["section"]) == {"D"}
    roles.iloc[rows_of(tissue, "D")] = None
    table.obs["sthisto_split"] = roles
    with pytest.raises(ValueError, match=f"Only {n_spots} spots can be scored"):
        sth.tl.evaluate(tissue)


def test_reproducibility_of_all_sections_is_that_of_the_mean_reliability():
    """Noise around zero cancels between sections, before the root."""
    scores = pd.DataFrame({"section": ["a", "b"], "gene": "g", "n_spots": 5, "mean_expression": 1.0})
    for name in ("pcc", "pcc_residual", "pcc_partial_depth", "rmse", "depth_pcc", "depth_pcc_residual"):
        scores[name] = 0.1
    table = summarize(scores.assign(reliability=[0.2, -0.2])).set_index("section")
    assert table["reproducibility"].tolist() == pytest.approx([np.sqrt(0.2), 0, 0])
    table = summarize(scores.assign(reliability=[0.2, -0.1])).set_index("section")
    assert table.loc["all", "reproducibility"] == pytest.approx(np.sqrt(0.05))


def test_a_section_whose_test_spots_have_no_counts_is_left_out(tissue, caplog):
    table = predict(tissue)
    counts = table.X.toarray()
    counts[(table.obs["region"] == "D").to_numpy()] = 0
    table.X = type(table.X)(counts)
    sth.tl.evaluate(tissue)
    assert "No spot to score in section 'D' has any count" in caplog.text
    assert set(sth.get.scores(tissue, by="section")["section"]) == {"C", "all"}
