import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import spatialdata as sd
from builders import make_sdata

from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.sections import read_sections
from sthisto._sdata.tables import gene_names, gene_positions, layer_names, read_matrix, read_rows
from sthisto._sdata.write import Update, apply, layer_updates, obs_updates, obsm_updates, uns_updates, var_updates

GENES = ["gene7", "gene0", "gene3"]


def instances(section):
    return section.table.obs["instance"].to_numpy()[section.rows].astype(np.float32)


def all_updates(sections, key="result"):
    """Results of every kind, each value made of the instance that it belongs to."""
    by_instance = [instances(section) for section in sections]
    return [
        *obsm_updates(sections, f"X_{key}", [i[:, None] * [1, 2] for i in by_instance]),
        *obs_updates(sections, f"{key}_confidence", by_instance),
        *obs_updates(sections, f"{key}_split", [np.where(i < 110, "train", "test") for i in by_instance]),
        *layer_updates(sections, f"{key}_pred", [i[:, None] + [0, 0.25, 0.5] for i in by_instance], genes=GENES),
        *var_updates(sections, f"{key}_gene", np.ones(3, dtype=bool), genes=GENES),
        *var_updates(sections, f"{key}_pcc", np.array([0.1, 0.2, 0.3]), genes=GENES),
        *uns_updates(
            sections,
            key,
            {
                "version": "0.1.0",
                "epochs": 3,
                "seed": None,
                "history": pd.DataFrame({"loss": [2.0, 1.0]}, index=["0", "1"]),
                "parameters": {"genes": GENES, "normalized": True, "weights": [0.5, 1.5], "none": []},
            },
        ),
    ]


def check_written(table, section_rows, key="result"):
    """Compare every slot with the instances of the rows, and NaN in all other rows."""
    rows = np.zeros(table.n_obs, dtype=bool)
    rows[section_rows] = True
    instance = table.obs["instance"].to_numpy().astype(np.float32)
    np.testing.assert_array_equal(table.obsm[f"X_{key}"][rows], instance[rows, None] * np.array([1, 2]))
    np.testing.assert_array_equal(table.obs[f"{key}_confidence"][rows], instance[rows])
    assert table.obs[f"{key}_split"][rows].tolist() == np.where(instance[rows] < 110, "train", "test").tolist()
    layer = table.layers[f"{key}_pred"]
    assert layer.dtype == np.float32
    for gene, added in zip(GENES, (0, 0.25, 0.5), strict=True):
        column = table.var_names.get_loc(gene)
        np.testing.assert_array_equal(layer[rows, column], instance[rows] + added)
    others = ~table.var_names.isin(GENES)
    assert np.isnan(layer[:, others]).all()
    assert np.isnan(layer[~rows]).all()
    assert np.isnan(table.obsm[f"X_{key}"][~rows]).all()
    assert table.obs.loc[~rows, [f"{key}_confidence", f"{key}_split"]].isna().all(axis=None)
    assert table.var[f"{key}_gene"].to_numpy().tolist() == (~others).tolist()
    assert table.var[f"{key}_pcc"].loc[GENES].tolist() == [0.1, 0.2, 0.3]
    assert table.var[f"{key}_pcc"][others].isna().all()
    record = table.uns[key]
    assert (record["version"], record["epochs"], record["seed"]) == ("0.1.0", 3, None)
    assert record["history"]["loss"].tolist() == [2.0, 1.0]
    assert list(record["parameters"]["genes"]) == GENES
    assert list(record["parameters"]["weights"]) == [0.5, 1.5]
    assert len(record["parameters"]["none"]) == 0
    assert record["parameters"]["normalized"]


def test_results_reach_the_rows_of_their_spots_and_nan_the_others(two_regions):
    table = two_regions.tables["counts"]
    sections = read_sections(two_regions, ElementKeys(shapes_key="B"))
    apply(all_updates(sections))
    check_written(table, sections[0].rows)
    assert np.isnan(table.layers["result_pred"]).all(axis=1).sum() == (table.obs["region"] == "A").sum()


def test_results_of_several_regions_share_the_slots_of_their_table(two_regions):
    sections = read_sections(two_regions)
    apply(all_updates(sections))
    table = two_regions.tables["counts"]
    check_written(table, np.arange(table.n_obs))


def test_results_of_a_cohort_reach_each_table():
    first, second = make_sdata(), make_sdata(seed=5)
    apply(all_updates(read_sections([first, second])))
    for one in (first, second):
        check_written(one.tables["counts"], np.arange(35))
    first.tables["counts"].uns["result"]["history"].loc["0", "loss"] = 7.0
    assert second.tables["counts"].uns["result"]["history"]["loss"].tolist() == [2.0, 1.0]


def test_nothing_else_of_the_table_changes(sdata):
    table = sdata.tables["counts"]
    before = table.copy()
    apply(all_updates(read_sections(sdata)))
    np.testing.assert_array_equal(table.X.toarray(), before.X.toarray())
    pd.testing.assert_frame_equal(table.obs[before.obs.columns], before.obs)
    pd.testing.assert_frame_equal(table.var[before.var.columns], before.var)
    assert table.uns["spatialdata_attrs"] == before.uns["spatialdata_attrs"]


def test_what_was_written_survives_disk(two_regions, tmp_path):
    sections = read_sections(two_regions)
    apply(all_updates(sections))
    before = two_regions.tables["counts"]
    two_regions.write(tmp_path / "a.zarr")
    after = sd.read_zarr(tmp_path / "a.zarr").tables["counts"]
    check_written(after, np.arange(after.n_obs))
    np.testing.assert_array_equal(after.layers["result_pred"], before.layers["result_pred"])
    pd.testing.assert_series_equal(after.obs["result_split"], before.obs["result_split"])
    assert layer_names(after) == ["result_pred"]


@pytest.mark.parametrize("delete_first", [False, True], ids=["new element", "element replaced"])
def test_what_was_written_to_a_backed_spatialdata_survives_disk(sdata, tmp_path, delete_first):
    sdata.write(tmp_path / "a.zarr")
    backed = sd.read_zarr(tmp_path / "a.zarr")
    assert backed.is_backed()
    (section,) = read_sections(backed)
    pixels = section.image.levels[0].read(0, 10, 0, 10)
    apply(all_updates([section]))
    name = "counts"
    if delete_first:
        backed.delete_element_from_disk("counts")
    else:
        name = "results"
        backed.tables[name] = backed.tables["counts"].copy()
    backed.write_element(name)
    again = sd.read_zarr(tmp_path / "a.zarr")
    check_written(again.tables[name], np.arange(35))
    (section,) = read_sections(again, ElementKeys(table_key=name))
    np.testing.assert_array_equal(section.image.levels[0].read(0, 10, 0, 10), pixels)


def test_writing_again_replaces_what_was_written(sdata):
    sections = read_sections(sdata)
    apply(all_updates(sections))
    apply(obs_updates(sections, "result_split", [np.array(["test"] * 35)]))
    assert set(sdata.tables["counts"].obs["result_split"]) == {"test"}


def test_a_failure_leaves_the_table_as_it_was(sdata):
    table = sdata.tables["counts"]
    sections = read_sections(sdata)
    apply(all_updates(sections))
    before = table.copy()
    wrong = [
        *obs_updates(sections, "result_confidence", [np.zeros(35)]),
        *obs_updates(sections, "new_confidence", [np.zeros(35)]),
        *layer_updates(sections, "new_pred", [np.zeros((35, 3))], genes=GENES),
        *uns_updates(sections, "result", {"epochs": 9}),
        Update(table, "obsm", "X_new", np.zeros((4, 2))),
    ]
    with pytest.raises(ValueError, match="X_new"):
        apply(wrong)
    check_written(table, np.arange(35))
    pd.testing.assert_frame_equal(table.obs, before.obs)
    assert layer_names(table) == layer_names(before)
    assert list(table.obsm) == list(before.obsm)
    assert set(table.uns) == set(before.uns)


def test_a_table_that_is_a_view_is_written_and_its_parent_is_not(sdata):
    parent = sdata.tables["counts"]
    sdata.tables["counts"] = parent[parent.obs["instance"] < 120]
    sections = read_sections(sdata)
    apply(all_updates(sections))
    check_written(sdata.tables["counts"], np.arange(20))
    assert "result_confidence" not in parent.obs
    with pytest.raises(ValueError, match="X_new"):
        apply([*obs_updates(sections, "new", [np.zeros(20)]), Update(sections[0].table, "obsm", "X_new", np.zeros(3))])
    assert "new" not in sdata.tables["counts"].obs


@pytest.mark.parametrize("value", [object(), [object()], {"inner": {1, 2}}, np.array([1 + 2j])])
def test_a_record_that_disk_cannot_hold_is_refused(sdata, value):
    with pytest.raises(TypeError, match=r"uns\['result'\]\['wrong'\].* is of .*, which a table cannot hold"):
        uns_updates(read_sections(sdata), "result", {"wrong": value})


def test_values_of_the_wrong_length_are_refused(sdata):
    with pytest.raises(ValueError, match=r"cannot reshape|could not broadcast|shape mismatch"):
        obsm_updates(read_sections(sdata), "X_new", [np.zeros((34, 2))])


# Genes


def test_repeated_gene_names_are_refused_with_the_remedy(sdata):
    table = sdata.tables["counts"]
    table.var_names = ["gene0", "gene0", *table.var_names[2:]]
    with pytest.raises(ValueError, match=r"repeat.*'gene0'.*table.var_names_make_unique\(\).*gene_symbols"):
        gene_names(table)
    assert gene_names(table, "symbol")[0] == "symbol0"
    table.var_names_make_unique()
    assert gene_names(table).is_unique


def test_repeated_symbols_are_refused_with_the_remedy(sdata):
    table = sdata.tables["counts"]
    table.var["twice"] = ["a", "a", *table.var_names[2:]]
    with pytest.raises(ValueError, match=r"repeat in 'twice': 'a'.*make_index_unique"):
        gene_names(table, "twice")


def test_an_unknown_column_of_symbols_is_refused(sdata):
    with pytest.raises(KeyError, match=r"`gene_symbols`='names'.*'symbol'"):
        gene_names(sdata.tables["counts"], "names")


def test_genes_are_found_by_name_or_by_symbol(sdata):
    table = sdata.tables["counts"]
    assert gene_positions(table, GENES).tolist() == [7, 0, 3]
    assert gene_positions(table, ["symbol2", "symbol11"], "symbol").tolist() == [2, 11]


def test_missing_genes_are_refused_with_those_that_exist(sdata):
    with pytest.raises(KeyError, match=r"1 of 2 genes are not in the table: 'FN1'.*12 genes: 'gene0'"):
        gene_positions(sdata.tables["counts"], ["gene0", "FN1"])


def test_results_can_be_matched_by_symbol(sdata):
    sections = read_sections(sdata)
    apply(layer_updates(sections, "p", [np.ones((35, 1))], genes=["symbol4"], gene_symbols="symbol"))
    assert np.flatnonzero(np.isfinite(sdata.tables["counts"].layers["p"]).all(axis=0)).tolist() == [4]


# Expression


@pytest.mark.parametrize("store", [sp.csr_matrix, sp.csc_matrix, sp.csr_array, np.asarray])
def test_the_expression_of_a_section_is_that_of_its_spots(two_regions, store):
    table = two_regions.tables["counts"]
    dense = table.X.toarray()
    table.layers["copy"] = store(dense)
    section = read_sections(two_regions)[1]
    matrix = read_rows(section, "copy")
    np.testing.assert_array_equal(matrix.toarray(), dense[section.rows])
    np.testing.assert_array_equal(matrix[:, [0]].toarray().ravel(), instances(section))


def test_a_missing_layer_or_x_is_refused_with_those_that_exist(sdata):
    table = sdata.tables["counts"]
    table.layers["raw"] = table.X.copy()
    with pytest.raises(KeyError, match=r"`layer`='counts'.*Available: 'raw'\."):
        read_matrix(table, "counts")
    table.X = None
    with pytest.raises(KeyError, match=r"no X. Pass layer=…; its layers: 'raw'"):
        read_matrix(table, None)


def test_none_is_no_layer():
    table = ad.AnnData(np.ones((2, 2), dtype=np.float32), layers={"raw": np.ones((2, 2))})
    assert layer_names(table) == ["raw"]
