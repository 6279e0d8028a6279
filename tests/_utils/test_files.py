import numpy as np
import pandas as pd
import pytest

from sthisto._utils.files import load_arrays, load_table, save_arrays, save_table

ARRAYS = {"genes": np.array(["a", "b"]), "x": np.arange(6, dtype=np.float32).reshape(2, 3)}
TABLE = pd.DataFrame({"gene": ["a", "é"], "pcc": [0.1, np.nan], "n": [1, 2], "used": [True, False]})


def test_tables_and_arrays_come_back_as_they_were(tmp_path):
    save_table(tmp_path / "new" / "scores.parquet", TABLE)
    pd.testing.assert_frame_equal(load_table(tmp_path / "new" / "scores.parquet"), TABLE)
    save_arrays(tmp_path / "run.npz", ARRAYS)
    found = load_arrays(tmp_path / "run.npz")
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


@pytest.mark.parametrize(("load", "name"), [(load_table, "x.parquet"), (load_arrays, "x.npz")])
def test_what_is_not_there_is_none_and_what_is_damaged_is_named(tmp_path, load, name):
    assert load(tmp_path / name) is None
    save_table(tmp_path / "x.parquet", TABLE)
    save_arrays(tmp_path / "x.npz", ARRAYS)
    whole = (tmp_path / name).read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"something else"):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{name} is damaged.*Delete it"):
            load(tmp_path / name)


@pytest.mark.parametrize("there_before", [True, False])
def test_an_interrupted_write_leaves_the_file_as_it_was(tmp_path, monkeypatch, there_before):
    path = tmp_path / "scores.parquet"
    if there_before:
        save_table(path, TABLE)

    def interrupted(self, target, **options):
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pd.DataFrame, "to_parquet", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_table(path, TABLE.iloc[:1])
    assert [one.name for one in tmp_path.iterdir()] == (["scores.parquet"] if there_before else [])
    if there_before:
        pd.testing.assert_frame_equal(load_table(path), TABLE)
