import numpy as np
import pandas as pd
import pytest

import sthisto as sth


def frame(**columns):
    return pd.DataFrame({**columns, "G1": [0.5, 1.5, 2.0], "G2": [1, 2, 3]})


@pytest.mark.parametrize("name", ["barcode", "spot", "", "my spots"])
def test_the_column_of_names_is_found(tmp_path, name):
    frame(**{name: ["a", "b", "c"]}).to_csv(tmp_path / "x.csv", index=False)
    read = sth.io.read_prediction(tmp_path / "x.csv")
    assert list(read.obs_names) == ["a", "b", "c"]
    assert list(read.var_names) == ["G1", "G2"]
    np.testing.assert_allclose(read.X, [[0.5, 1], [1.5, 2], [2, 3]])
    assert read.uns["sthisto_prediction"] == "x"


@pytest.mark.parametrize("places", [("x", "y"), ("X_px", "Y_px"), ("pxl_col_in_fullres", "pxl_row_in_fullres")])
def test_places_and_sections_are_found(tmp_path, places):
    table = frame(**{places[0]: [1.0, 2, 3], places[1]: [4.0, 5, 6], "sample": ["s1", "s1", "s2"]})
    table.to_parquet(tmp_path / "x.parquet", index=False)
    read = sth.io.read_prediction(tmp_path / "x.parquet")
    np.testing.assert_allclose(read.obsm["spatial"], [[1, 4], [2, 5], [3, 6]])
    assert list(read.obs["section"]) == ["s1", "s1", "s2"]
    assert list(read.obs_names) == ["0", "1", "2"]
    assert list(read.var_names) == ["G1", "G2"]


def test_numbers_as_names_stay_text(tmp_path):
    frame(spot=["007", "008", "009"]).to_csv(tmp_path / "x.tsv", sep="\t", index=False)
    assert list(sth.io.read_prediction(tmp_path / "x.tsv").obs_names) == ["007", "008", "009"]


def test_a_first_column_of_a_gene_is_a_gene(tmp_path):
    frame(x=[1, 2, 3], y=[1, 2, 3])[["G1", "G2", "x", "y"]].to_csv(tmp_path / "x.csv", index=False)
    assert list(sth.io.read_prediction(tmp_path / "x.csv").var_names) == ["G1", "G2"]


@pytest.mark.parametrize("other", ["", "index", "cell_id"])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_of_several_columns_of_names_the_numbers_of_rows_are_none(tmp_path, other, ending):
    table = frame(**{other: [4, 5, 6], "barcode": ["a", "b", "c"]})
    path = tmp_path / f"x.{ending}"
    table.to_csv(path, index=False) if ending == "csv" else table.to_parquet(path)
    read = sth.io.read_prediction(path)
    assert list(read.obs_names) == ["a", "b", "c"]
    assert list(read.var_names) == ["G1", "G2"]


@pytest.mark.parametrize("levels", [["spot"], ["section", "barcode"], [None]])
def test_the_index_of_a_parquet_file_names_spots_and_sections(tmp_path, levels):
    table = frame(section=["s1", "s1", "s2"], barcode=["a", "b", "c"], spot=["a", "b", "c"])
    index = pd.MultiIndex.from_frame(table[["section", "barcode"]]) if len(levels) == 2 else pd.Index([5, 7, 9])
    table.set_index(index.set_names(levels)).to_parquet(tmp_path / "x.parquet")
    read = sth.io.read_prediction(tmp_path / "x.parquet")
    assert list(read.obs_names) == ["a", "b", "c"]
    assert list(read.obs["section"]) == ["s1", "s1", "s2"]
    assert list(read.var_names) == ["G1", "G2"]


@pytest.mark.parametrize(("ending", "mark"), [("tsv", "\t"), ("csv", ",")])
def test_rows_that_r_named_are_read_though_the_header_is_one_short(tmp_path, ending, mark):
    rows = [["G1", "G2"], ["a", "0.5", "1"], ["b", "1.5", "2"]]
    (tmp_path / f"x.{ending}").write_text("\n".join(mark.join(row) for row in rows))
    read = sth.io.read_prediction(tmp_path / f"x.{ending}")
    assert list(read.obs_names) == ["a", "b"]
    np.testing.assert_allclose(read.X, [[0.5, 1], [1.5, 2]])


def test_spaces_around_names_do_not_count(tmp_path):
    (tmp_path / "x.csv").write_text("spot,G1\n a ,1\nb ,2\n")
    assert list(sth.io.read_prediction(tmp_path / "x.csv").obs_names) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("x.npy", "", "must end with"),
        ("x.h5ad", "no hdf5", "can't be read as an AnnData"),
        ("x.parquet", "no parquet", "is no parquet file"),
        ("x.csv", "", "is no table"),
        ("x.csv", "spot,G1\na,high\n", "something else: 'G1'|hold something else"),
        ("x.csv", "spot\na\n", "there is none"),
        ("x.csv", "spot,G1\n", "it has no row"),
        ("x.tsv", "spot\tG1\na\t0,5\n", "'G1' hold something else, such as '0,5'"),
        ("x.csv.gz", "no gzip", "is no table"),
        ("x.csv", "spot;G1;G2\na;1;2\n", "not separated by commas but by semicolons"),
        ("x.csv", "spot\tG1\na\t1\n", "not separated by commas but by tabs"),
        ("x.tsv", "spot,G1\na,1\n", "not separated by tabs but by commas"),
        ("x.csv", "spot,G1,G2,G1\na,1,2,3\n", "several columns named 'G1'"),
        ("x.txt", "G1 G2\na 1 2\n", "not separated by tabs but by spaces"),
        ("x.csv", "spot,G1,G2\na,1,2,\nb,3,4,\n", "have 4 values each, its header names 3 columns"),
        ("x.csv", ",G1,G2\na,1,2,\nb,3,4,\n", "have 4 values each, its header names 3 columns"),
        ("x.csv", "# version 1\nspot,G1,G2\na,1,2\n", "have 3 values each, its header names 1 columns"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, match):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=match):
        sth.io.read_prediction(tmp_path / name)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_text_of_another_encoding_is_told(tmp_path, encoding):
    (tmp_path / "x.csv").write_text("spot,Gène\na,1\n", encoding=encoding)
    with pytest.raises(ValueError, match=r"is no text in UTF-8.*Save it in UTF-8"):
        sth.io.read_prediction(tmp_path / "x.csv")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        sth.io.read_prediction(tmp_path / "x.csv")
