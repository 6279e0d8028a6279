"""Predictions of other tools, scored as our own are."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr
from spatialdata.models import TableModel
from tissue import GENES, PATCH, SPACING, make_tissue, mark_split, rows_of

import sthisto as sth
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.sections import read_sections

ROLES = {"A": "train", "B": "train", "C": "test", "D": "test"}
NUMBERS = ["pcc", "pcc_residual", "pcc_partial_depth", "rmse", "sibling", "reproducibility", "depth_pcc_residual"]


@pytest.fixture(scope="module")
def scored():
    """Four sections, of which two were predicted by a model of ours and scored."""
    tissue = make_tissue("ABCD")
    mark_split(tissue, ROLES)
    sth.tl.predict(tissue, sth.tl.fit(tissue, method="color", patch_size=PATCH, genes=GENES[:8]))
    sth.tl.evaluate(tissue)
    return tissue


@pytest.fixture
def tissue():
    """The same sections without a prediction."""
    tissue = make_tissue("ABCD")
    mark_split(tissue, ROLES)
    return tissue


@pytest.fixture(scope="module")
def theirs(scored):
    """The same prediction as another tool would send it: names, genes, sections and places."""
    sent = sth.get.anndata(scored)
    table = scored["counts"]
    sent = ad.AnnData(
        np.asarray(sent.X),
        obs=pd.DataFrame({"section": sent.obs["library_id"].astype(str)}, index=sent.obs_names),
        var=pd.DataFrame({"gene_ids": [f"ENSG{i:011}.7" for i in range(sent.n_vars)]}, index=sent.var_names),
        obsm={"spatial": np.asarray(sent.obsm["spatial"])},
    )
    return sent[sent.obs_names.isin(table.obs_names)][::-1].copy()


def scores(sdata, key="theirs", by="section"):
    return sth.get.scores(sdata, key_added=key, by=by)


def check_same(sdata, scored, key="theirs"):
    for by in ("section", "gene"):
        found, expected = scores(sdata, key, by), scores(scored, "sthisto", by)
        pd.testing.assert_frame_equal(found[NUMBERS], expected[NUMBERS])
        assert list(found["n_spots"]) == list(expected["n_spots"])
    limits = ["pcc_residual_low", "pcc_residual_high"]
    pd.testing.assert_frame_equal(scores(sdata, key)[limits], scores(scored, "sthisto")[limits])


def test_anndata_scores_as_the_model_that_made_it_on_every_score_reference_and_interval(tissue, scored, theirs):
    sth.tl.evaluate(tissue, prediction=theirs, key_added="theirs")
    check_same(tissue, scored)
    assert scores(tissue)["method"].unique().tolist() == ["prediction"]


def test_numbers_are_those_of_scipy(tissue, theirs):
    sth.tl.evaluate(tissue, prediction=theirs, key_added="theirs")
    table = tissue["counts"]
    for region in "CD":
        rows = rows_of(tissue, region)
        counts = table.X[rows].toarray().astype(float)
        totals = counts.sum(axis=1, keepdims=True)
        mu = totals * counts.sum(axis=0) / counts.sum()
        bound = np.sqrt(len(rows))
        residuals = np.clip((counts - mu) / np.sqrt(mu + mu**2 / 100), -bound, bound)
        logged = np.log1p(counts / totals * 1e4)
        sent = theirs[table.obs_names[rows]].to_df()
        part = scores(tissue, by="gene").query("section == @region").set_index("gene")
        for i, gene in enumerate(GENES[:8]):
            assert part.loc[gene, "pcc"] == pytest.approx(pearsonr(logged[:, i], sent[gene])[0], rel=1e-4)
            assert part.loc[gene, "pcc_residual"] == pytest.approx(pearsonr(residuals[:, i], sent[gene])[0], rel=1e-4)
            error = np.sqrt(np.mean((logged[:, i] - sent[gene]) ** 2))
            assert part.loc[gene, "rmse"] == pytest.approx(error, rel=1e-4)


def test_a_layer_scores_as_the_model_that_made_it(tissue, scored):
    tissue["counts"].layers["sent"] = scored["counts"].layers["sthisto_pred"].copy()
    sth.tl.evaluate(tissue, prediction="layer:sent", key_added="theirs")
    check_same(tissue, scored)
    assert scores(tissue)["method"].unique().tolist() == ["sent"]


def test_a_table_is_matched_by_instance(tissue, scored):
    table = scored["counts"]
    rows = np.concatenate([rows_of(scored, "D"), rows_of(scored, "C")])
    obs = table.obs.iloc[rows][["region", "instance"]].set_index(pd.Index([f"x{i}" for i in range(len(rows))]))
    obs["region"] = obs["region"].cat.remove_unused_categories()
    values = np.asarray(table.layers["sthisto_pred"][rows][:, :8])
    sent = ad.AnnData(values, obs=obs, var=pd.DataFrame(index=GENES[:8]))
    tissue["sent"] = TableModel.parse(sent, region=["C", "D"], region_key="region", instance_key="instance")
    sth.tl.evaluate(tissue, prediction="table:sent", key_added="theirs", table_key="counts")
    pd.testing.assert_frame_equal(
        sth.get.scores(tissue, key_added="theirs", by="section", table_key="counts")[NUMBERS],
        scores(scored, "sthisto")[NUMBERS],
    )


@pytest.mark.parametrize("name", ["theirs.h5ad", "theirs.csv", "theirs.csv.gz", "theirs.tsv", "theirs.parquet"])
@pytest.mark.parametrize("by", ["names", "places"])
def test_a_file_of_any_format_scores_as_the_model_that_made_it(tissue, scored, theirs, tmp_path, name, by):
    sent = theirs.copy()
    if by == "places":
        sent.obs_names = [str(i) for i in range(sent.n_obs)]
        sent.obsm["spatial"] = sent.obsm["spatial"] + SPACING * 0.45 * np.array([0.6, 0.8])
    if name.endswith("h5ad"):
        sent.write_h5ad(tmp_path / name)
    else:
        xy = pd.DataFrame(sent.obsm["spatial"], columns=["x", "y"], index=sent.obs_names)
        frame = pd.concat([sent.obs, xy, sent.to_df()], axis=1).rename_axis("barcode" if by == "names" else None)
        if name.endswith("parquet"):
            frame.to_parquet(tmp_path / name, index=by == "names")
        else:
            frame.to_csv(tmp_path / name, sep="\t" if "tsv" in name else ",", index=by == "names")
    read = sth.io.read_prediction(tmp_path / name)
    sth.tl.evaluate(tissue, prediction=read, key_added="theirs", n_boot=0, n_splits=1)
    for metric in ("pcc", "pcc_residual", "sibling"):
        np.testing.assert_allclose(scores(tissue)[metric], scores(scored, "sthisto")[metric], rtol=1e-5)
    assert scores(tissue)["method"].unique().tolist() == ["theirs"]


def test_genes_are_found_by_ensembl_id_whatever_its_version(tissue, scored, theirs):
    table = tissue["counts"]
    table.var["gene_ids"] = [f"ENSG{i:011}" for i in range(table.n_vars)]
    sent = theirs.copy()
    sent.var_names = sent.var["gene_ids"].to_list()
    sent.var = sent.var.drop(columns="gene_ids")
    sth.tl.evaluate(tissue, prediction=sent[:, ::-1].copy(), key_added="theirs")
    check_same(tissue, scored)
    by_column = theirs.copy()
    by_column.var_names = [f"feature{i}" for i in range(by_column.n_vars)]
    sth.tl.evaluate(tissue, prediction=by_column, key_added="theirs")
    check_same(tissue, scored)


def test_unknown_genes_and_missing_spots_are_left_out_with_a_warning(tissue, theirs, caplog):
    sent = theirs[9:].copy()
    sent.var_names = [*sent.var_names[:-2], "novel1", "novel2"]
    sth.tl.evaluate(tissue, prediction=sent, key_added="theirs")
    table = tissue["counts"]
    assert "2 of 8 predicted genes were not measured" in caplog.text
    assert table.var["theirs_gene"].sum() == 6
    unmatched = np.isnan(table.layers["theirs_pred"][:, :6]).all(axis=1)
    assert set(table.obs_names[~unmatched]) == set(sent.obs_names)
    assert "of 49 spots of section" in caplog.text
    assert scores(tissue).query("section == 'all'")["n_spots"].item() == 98 - 9


def test_places_beyond_half_a_pitch_are_no_match_and_the_distance_is_named(tissue, theirs):
    sent = theirs.copy()
    sent.obs_names = [f"other{i}" for i in range(sent.n_obs)]
    sent.obsm["spatial"] = sent.obsm["spatial"] * 3 + 1000
    with pytest.raises(ValueError, match=r"No predicted spot.*half a pitch is 10 px.*px of the full resolution"):
        sth.tl.evaluate(tissue, prediction=sent, key_added="theirs")
    assert "theirs" not in tissue["counts"].uns


def test_a_spot_out_of_place_stays_nan_and_the_others_are_scored(tissue, theirs):
    sent = theirs.copy()
    sent.obs_names = [f"other{i}" for i in range(sent.n_obs)]
    xy = np.asarray(sent.obsm["spatial"]).copy()
    xy[0] += 0.6 * SPACING
    xy[1:3] = np.nan
    sent.obsm["spatial"] = xy
    sth.tl.evaluate(tissue, prediction=sent, key_added="theirs")
    assert scores(tissue).query("section == 'all'")["n_spots"].item() == 98 - 3


def of_section(theirs, name, names):
    sent = theirs[(theirs.obs["section"] == name).to_numpy()].copy()
    sent.obs_names = names(sent.n_obs)
    return sent


def test_numbered_spots_are_found_by_place_even_where_other_numbers_name_the_measured_ones(tissue, scored, theirs):
    tissue["counts"].obs_names = [str(i) for i in range(tissue["counts"].n_obs)]
    sent = of_section(theirs, "C", lambda n: [str(i + 1) for i in range(n)])
    sth.tl.evaluate(tissue, prediction=sent, key_added="theirs", shapes_key="C", n_boot=0)
    expected = scores(scored, "sthisto").query("section == 'C'")["pcc_residual"].item()
    assert scores(tissue)["pcc_residual"].iloc[0] == pytest.approx(expected)


def test_numbers_of_other_spots_are_refused_where_there_are_no_places(theirs):
    one = make_tissue("C")
    one["counts"].obs_names = [str(i) for i in range(one["counts"].n_obs)]
    sent = of_section(theirs, "C", lambda n: [str(i + 1) for i in range(n)])
    del sent.obsm["spatial"]
    with pytest.raises(ValueError, match=r"numbered 1 to 49 and those of section 'C' 0 to 48"):
        sth.tl.evaluate(one, prediction=sent, key_added="theirs")


def test_spots_predicted_in_part_are_told_with_their_genes(tissue, theirs, caplog):
    sent = theirs.copy()
    sent.X[:40, 3] = np.nan
    sth.tl.evaluate(tissue, prediction=sent, key_added="theirs", n_boot=0)
    assert scores(tissue).query("section == 'all'")["n_spots"].item() == 98 - 40
    assert "40 of the 49 predicted spots of section 'D' lack a finite value of some gene ('gene3' in 40)" in caplog.text


def test_spots_and_genes_without_a_value_are_told(tissue, theirs, caplog):
    sent = theirs.copy()
    sent.X[::2] = np.nan
    sent.X[:, 2] = np.nan
    sth.tl.evaluate(tissue, prediction=sent, key_added="theirs", n_boot=0)
    assert "of the 49 predicted spots of section 'C' hold no finite value and are not scored" in caplog.text
    assert "1 of 8 predicted genes have no finite value in some section and are left out: 'gene2'" in caplog.text


@pytest.mark.parametrize("n_spots", [1, 2])
def test_sections_of_fewer_than_three_scored_spots_are_left_out(tissue, theirs, caplog, n_spots):
    first, second = ((theirs.obs["section"] == name).to_numpy().nonzero()[0] for name in "CD")
    sent = theirs[np.r_[first, second[:n_spots]]].copy()
    sth.tl.evaluate(tissue, prediction=sent, key_added="theirs", n_boot=0)
    assert f"Only {n_spots} spots of 'D' can be scored" in caplog.text
    assert scores(tissue)["section"].unique().tolist() == ["C", "all"]
    with pytest.raises(ValueError, match=f"Only {n_spots} spots can be scored.* at least 3 in a section"):
        sth.tl.evaluate(tissue, prediction=theirs[first[:n_spots]].copy(), key_added="few", n_boot=0)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda a: a.obsm.__setitem__("spatial", a.obsm["spatial"][:, :1]), r"shape \(n_spots, 2\).*px"),
        (lambda a: a.obsm.__setitem__("spatial", a.obs[["section"]].assign(y="b")), r"shape \(n_spots, 2\).*px"),
    ],
)
def test_places_of_another_form_are_refused(tissue, theirs, change, match):
    sent = theirs.copy()
    change(sent)
    with pytest.raises(ValueError, match=match):
        sth.tl.evaluate(tissue, prediction=sent, key_added="theirs", n_boot=0)


def test_places_of_several_sections_need_their_names(tissue, theirs):
    sent = theirs.copy()
    sent.obs_names = [str(i) for i in range(sent.n_obs)]
    del sent.obs["section"]
    with pytest.raises(ValueError, match=r"tells the predicted spots of 4 sections apart.*obs\['section'\]"):
        sth.tl.evaluate(tissue, prediction=sent, key_added="theirs")
    of_one = sent[(theirs.obs["section"] == "C").to_numpy()].copy()
    sth.tl.evaluate(tissue, prediction=of_one, key_added="theirs", shapes_key="C")
    assert scores(tissue)["section"].unique().tolist() == ["C", "all"]


@pytest.mark.filterwarnings("ignore:.*names are not unique:UserWarning")
@pytest.mark.parametrize("axis", ["genes", "spots", "places"])
def test_what_repeats_is_refused(tissue, theirs, axis):
    twice = np.r_[np.arange(theirs.n_obs), :3] if axis != "genes" else np.arange(theirs.n_obs)
    columns = np.r_[np.arange(theirs.n_vars), 0] if axis == "genes" else np.arange(theirs.n_vars)
    sent = ad.AnnData(
        theirs.X[np.ix_(twice, columns)],
        obs=theirs.obs.iloc[twice],
        var=theirs.var.iloc[columns],
        obsm={"spatial": theirs.obsm["spatial"][twice]},
    )
    match = {"genes": "several columns for 'gene0'", "spots": "several rows for the spots"}.get(axis)
    if axis == "places":
        sent.obs_names = [f"other{i}" for i in range(sent.n_obs)]
        match = "several rows at one place"
    with pytest.raises(ValueError, match=match):
        sth.tl.evaluate(tissue, prediction=sent, key_added="theirs")


def test_measured_spots_of_one_name_are_refused(tissue, theirs):
    table, rows = tissue["counts"], rows_of(tissue, "C")
    names = table.obs_names.to_numpy().astype(object)
    names[rows[1]] = names[rows[0]]
    table.obs_names = names
    with pytest.raises(ValueError, match=r"Several spots of section .* are named"):
        sth.tl.evaluate(tissue, prediction=theirs, key_added="theirs")
    assert "theirs_pcc" not in table.var


SCALES = [
    (np.expm1, "without the logarithm"),
    (lambda v: (v - v.mean(axis=0)) / v.std(axis=0), "z-scores"),
    (lambda v: np.log1p(100 * np.expm1(v)), "another library size"),
    (lambda v: np.round(np.expm1(v) / 20), "raw counts"),
]


@pytest.mark.parametrize(("transform", "name"), SCALES)
def test_another_scale_is_refused_by_name_and_nothing_is_written(tissue, theirs, transform, name):
    sent = theirs.copy()
    sent.X = transform(sent.X)
    with pytest.raises(ValueError, match=f"on another scale.*{name}"):
        sth.tl.evaluate(tissue, prediction=sent, key_added="theirs")
    table = tissue["counts"]
    assert "theirs" not in table.uns
    assert "theirs_pred" not in table.layers
    assert "theirs_seen" not in table.obs


def test_a_stated_scale_is_taken_at_its_word(tissue, theirs, scored):
    sent = theirs.copy()
    sent.X = sent.X - sent.X.mean()
    sth.tl.evaluate(tissue, prediction=sent, key_added="theirs", target="pearson_residuals")
    np.testing.assert_allclose(scores(tissue)["pcc_residual"], scores(scored, "sthisto")["pcc_residual"], rtol=1e-4)
    assert tissue["counts"].uns["theirs"]["normalization"]["target"] == "pearson_residuals"


def test_counts_in_a_layer_are_compared_where_x_is_normalized(tissue, theirs, scored):
    table = tissue["counts"]
    table.layers["raw"] = table.X.copy()
    table.X = np.log1p(table.X.toarray())
    with pytest.raises(ValueError, match=r"X holds no raw counts.*counts_layer="):
        sth.tl.evaluate(tissue, prediction=theirs, key_added="theirs")
    sth.tl.evaluate(tissue, prediction=theirs, key_added="theirs", counts_layer="raw")
    check_same(tissue, scored)
    sth.pl.gene_compare(tissue, "gene0", key_added="theirs")


def test_without_a_split_siblings_come_from_the_other_section(tissue, theirs):
    del tissue["counts"].obs["sthisto_split"]
    sth.tl.evaluate(tissue, prediction=theirs, key_added="theirs", shapes_key=["C", "D"])
    by_name = {one.name: one for one in read_sections(tissue, ElementKeys())}

    def residuals(name):
        counts = by_name[name].table.X[by_name[name].rows].toarray()
        return sth.metrics.pearson_residuals(counts[:, :8], totals=counts.sum(axis=1))

    part = scores(tissue, by="gene").query("section == 'C'")
    np.testing.assert_allclose(part["sibling"], sth.metrics.sibling_score(residuals("C"), [residuals("D")]), atol=1e-5)


def test_one_section_alone_has_no_sibling_reference_and_says_so(theirs, caplog):
    one = make_tissue(["C"], seed=5)
    counts = one["counts"].X.toarray()
    values = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    one["counts"].layers["sent"] = values + np.random.default_rng(0).normal(size=values.shape)
    sth.tl.evaluate(one, prediction="layer:sent")
    assert scores(one, "sthisto")["sibling"].isna().all()
    assert "what sibling genes predict stays NaN" in caplog.text


def test_get_and_pl_read_such_a_prediction_also_from_disk(tissue, theirs, tmp_path):
    sth.tl.evaluate(tissue, prediction=theirs, key_added="theirs")
    tissue.write(tmp_path / "scored.zarr")
    import spatialdata as sd

    read = sd.read_zarr(tmp_path / "scored.zarr")
    pd.testing.assert_frame_equal(scores(read), scores(tissue))
    assert sth.get.predictions(read, key_added="theirs").shape == (196, 8)
    sth.pl.scores(read, key_added="theirs")
    sth.pl.gene_compare(read, ["gene0"], key_added="theirs", sections="C")


def test_our_own_prediction_under_the_key_is_replaced_with_a_warning(scored, theirs, caplog):
    sth.tl.evaluate(scored, prediction=theirs, key_added="color", n_boot=0, n_splits=1)
    assert "is replaced" not in caplog.text
    fresh = make_tissue("ABCD")
    mark_split(fresh, ROLES)
    sth.tl.fit(fresh, method="mean", genes=GENES[:8])
    sth.tl.evaluate(fresh, prediction=theirs, n_boot=0, n_splits=1)
    assert "is replaced by the prediction 'prediction'" in caplog.text
    assert fresh["counts"].uns["sthisto"]["method"] == "prediction"


def test_spots_that_our_model_was_trained_on_are_refused_through_its_layer_too():
    sdata = make_tissue("AB")
    sth.tl.predict(sdata, sth.tl.fit(sdata, method="color", patch_size=PATCH, genes=GENES[:8]))
    with pytest.raises(ValueError, match="trained on"):
        sth.tl.evaluate(sdata, prediction="layer:sthisto_pred", key_added="again")


@pytest.mark.parametrize(
    ("prediction", "error", "match"),
    [
        ("layer:nope", KeyError, "in the layers"),
        ("table:nope", KeyError, "in the tables"),
        ("table:counts", ValueError, "the measured table itself"),
        ("sent.h5ad", ValueError, r"'layer:NAME', 'table:NAME' or an AnnData \(sth.io.read_prediction\)"),
        (3, TypeError, "an AnnData of the predicted spots"),
        (ad.AnnData(np.ones((3, 2)), var=pd.DataFrame(index=["x", "y"])), KeyError, "no gene that was measured"),
    ],
)
def test_what_is_no_prediction_is_refused(tissue, prediction, error, match):
    with pytest.raises(error, match=match):
        sth.tl.evaluate(tissue, prediction=prediction, key_added="theirs")
