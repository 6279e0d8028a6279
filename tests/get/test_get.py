from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from builders import make_sdata

import sthisto as sth
from sthisto._sdata.sections import resolve_table


def table_of(sdata):
    return sdata.tables[resolve_table(sdata, None)]


def write(sdata, key="sthisto", method="danet", symbols=""):
    """Write what `tl.predict` and `tl.evaluate` write of the first two genes and all spots but one."""
    table = table_of(sdata)
    values = np.full(table.shape, np.nan, dtype=np.float32)
    values[:-1, :2] = np.arange(2 * (table.n_obs - 1)).reshape(-1, 2)
    table.layers[f"{key}_pred"] = values
    table.var[f"{key}_gene"] = np.arange(table.n_vars) < 2
    scores = pd.DataFrame({"section": "one", "gene": table.var_names[:2], "pcc_residual": [0.1, 0.3]})
    summary = pd.DataFrame({"section": ["one", "all"], "genes": "all modeled", "pcc_residual": [0.2, 0.2]})
    table.uns[key] = {"method": method, "gene_symbols": symbols, "scores": scores, "summary": summary}


def test_predictions_are_of_predicted_spots_and_genes(sdata):
    write(sdata)
    table = table_of(sdata)
    found = sth.get.predictions(sdata)
    assert list(found.columns) == list(table.var_names[:2])
    assert list(found.index) == list(table.obs_names[:-1])
    np.testing.assert_array_equal(found, table.layers["sthisto_pred"][:-1, :2])
    assert found.to_numpy().dtype == np.float32


def test_predictions_of_one_gene_by_symbol(sdata):
    table_of(sdata).var["symbol"] = [f"S{i}" for i in range(table_of(sdata).n_vars)]
    write(sdata, symbols="symbol")
    assert list(sth.get.predictions(sdata, "S1").columns) == ["S1"]


def test_cohort_follows_one_another():
    cohort = [make_sdata(), make_sdata()]
    for one in cohort:
        write(one)
    assert len(sth.get.predictions(cohort)) == sum(table_of(one).n_obs - 1 for one in cohort)


def test_scores_of_several_methods_stand_in_one_table(sdata):
    write(sdata)
    write(sdata, "mine", "ridge")
    found = sth.get.scores(sdata, key_added=["sthisto", "mine"])
    assert list(found["key"]) == ["sthisto", "sthisto", "mine", "mine"]
    assert list(found["method"]) == ["DANet", "DANet", "Ridge", "Ridge"]
    assert list(sth.get.scores(sdata, by="section")["section"]) == ["one", "all"]


def test_method_that_repeats_is_told_apart_by_its_key(sdata):
    write(sdata)
    write(sdata, "mine")
    assert set(sth.get.scores(sdata, key_added=["sthisto", "mine"])["method"]) == {"DANet (sthisto)", "DANet (mine)"}


def test_scores_that_every_table_of_a_cohort_holds_are_given_once():
    cohort = [make_sdata(), make_sdata()]
    for one in cohort:
        write(one)
    assert len(sth.get.scores(cohort)) == 2


def test_missing_results_name_the_call(sdata):
    with pytest.raises(KeyError, match=r"sth\.tl\.predict\(sdata, model, key_added='sthisto'\)"):
        sth.get.predictions(sdata)
    write(sdata)
    del table_of(sdata).uns["sthisto"]["scores"]
    with pytest.raises(KeyError, match=r"sth\.tl\.evaluate\(sdata, key_added='sthisto'\)"):
        sth.get.scores(sdata)
    with pytest.raises(KeyError, match="keys with predictions: 'sthisto'"):
        sth.get.scores(sdata, key_added="other")
    with pytest.raises(ValueError, match="'gene', 'section'"):
        sth.get.scores(sdata, by="spot")


def test_returned_tables_are_copies(sdata):
    write(sdata)
    scores, predictions = sth.get.scores(sdata), sth.get.predictions(sdata)
    scores["pcc_residual"] = 0
    predictions.iloc[:] = 0
    assert table_of(sdata).uns["sthisto"]["scores"]["pcc_residual"].max() == 0.3
    assert np.nanmax(table_of(sdata).layers["sthisto_pred"]) > 0


def test_slides_are_summed_up_over_their_predicted_spots(tmp_path):
    cohort = [make_sdata(), make_sdata(seed=3)]
    for i, one in enumerate(cohort):
        write(one)
        table_of(one).obs["patient"] = f"P{i}"
        one.write(tmp_path / f"slide{i}.zarr")
    found = sth.get.slides(tmp_path, how=("mean", "q90", "sd"))
    values = table_of(cohort[1]).layers["sthisto_pred"][:-1, :2]
    assert found.obs_names.tolist() == ["slide0", "slide1"]
    assert found.obs["patient"].tolist() == ["P0", "P1"]
    assert found.obs["n_spots"].tolist() == [table_of(one).n_obs - 1 for one in cohort]
    assert found.var_names.tolist() == list(table_of(cohort[0]).var_names[:2])
    np.testing.assert_allclose(found.X[1], values.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.layers["q90"][1], np.quantile(values, 0.9, axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.layers["sd"][1], values.std(axis=0), rtol=1e-6)
    stores = [tmp_path / "slide1.zarr", str(tmp_path / "slide0.zarr")]
    assert sth.get.slides(stores, how="median").obs_names.tolist() == ["slide1", "slide0"]
    assert sth.get.slides(tmp_path / "slide1.zarr", how="mean").n_obs == 1


def test_slides_in_memory_are_the_regions(two_regions):
    write(two_regions)
    found = sth.get.slides(two_regions)
    assert sorted(found.obs_names) == ["A", "B"]
    assert set(found.layers) - {None} == {"mean", "q90"}  # None is X in anndata 0.13
    table_of(two_regions).layers["sthisto_pred"][:] = np.nan
    with pytest.raises(ValueError, match="No slide has a predicted spot"):
        sth.get.slides(two_regions)


def test_slides_that_cannot_stand_in_one_table_are_refused(sdata, tmp_path):
    with pytest.raises(KeyError, match="No table has a prediction"):
        sth.get.slides(sdata)
    write(sdata)
    with pytest.raises(ValueError, match="Several slides are called 'spots'"):
        sth.get.slides([sdata, sdata])
    other = make_sdata(n_genes=5)
    write(other)
    table_of(other).var["sthisto_gene"] = True
    table_of(other).layers["sthisto_pred"][:] = 1
    with pytest.raises(ValueError, match="other genes"):
        sth.get.slides([sdata, other])
    for how in ("q", "q101", "maximum", "qx"):
        with pytest.raises(ValueError, match="quantile at 90 %"):
            sth.get.slides(sdata, how=how)
    with pytest.raises(FileNotFoundError, match="no SpatialData store"):
        sth.get.slides(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing at"):
        sth.get.slides([tmp_path / "missing.zarr"])
