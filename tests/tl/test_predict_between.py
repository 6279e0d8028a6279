import numpy as np
import pytest
import spatialdata as sd
from spatialdata.transformations import get_transformation
from tissue import SPACING, encoder, make_tissue, rows_of

import sthisto as sth
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.sections import read_sections

SMALL = {"width": 16, "n_blocks": 1, "n_heads": 2, "max_epochs": 2}


@pytest.fixture(scope="module")
def model():
    return sth.tl.fit(make_tissue("AB"), method="histogene", image_encoder=encoder(), patch_size=16, **SMALL)


@pytest.fixture
def tissue():
    return make_tissue("AC", seed=3)


def test_four_points_lie_around_each_spot_and_hold_what_is_predicted_there(tissue, model):
    sth.tl.predict_between(tissue, model)
    table = tissue["between"]
    assert table.n_obs == 4 * len(tissue["counts"])
    fine = {section.region: section for section in read_sections(tissue, ElementKeys(table_key="between"))}
    for section in read_sections(tissue, ElementKeys(table_key="counts")):
        name = f"{section.region}_between"
        points = fine[name]
        names = table.obs["spot"].to_numpy()[points.rows]
        place = {spot: i for i, spot in enumerate(tissue["counts"].obs_names[section.rows])}
        offset = points.centers - section.centers[[place[spot] for spot in names]]
        np.testing.assert_allclose(np.abs(offset), SPACING / 4, atol=1e-6)
        assert points.diameter == pytest.approx(section.diameter / 2)
        assert set(get_transformation(tissue[name], get_all=True)) == {f"{section.region}_slide"}
    np.testing.assert_array_equal(table.layers["sthisto_pred"], table.X)
    assert np.isfinite(table.X).all()
    assert np.asarray(table.X).std(axis=0).max() > 0


def test_nothing_else_changes_and_it_survives_disk(tissue, model, tmp_path):
    before = tissue["counts"].copy()
    sth.tl.predict_between(tissue, model, shapes_key="C", factor=1, key_added="fine")
    assert list(tissue["counts"].layers) == list(before.layers)
    assert list(tissue["counts"].obs) == list(before.obs)
    assert set(tissue.shapes) == {"A", "C", "C_between"}
    tissue.write(tmp_path / "fine.zarr")
    again = sd.read_zarr(tmp_path / "fine.zarr")["between"]
    np.testing.assert_array_equal(again.X, tissue["between"].X)
    sth.tl.predict(tissue, model, table_key="counts", key_added="fine")
    rows = rows_of(tissue, "C")
    columns = tissue["counts"].var_names.get_indexer(again.var_names)
    names = tissue["counts"].obs_names.get_indexer(again.obs["spot"])
    assert set(names) == set(rows)
    np.testing.assert_allclose(again.X, tissue["counts"].layers["fine_pred"][names][:, columns], rtol=1e-4, atol=1e-5)


def test_it_is_drawn_without_measurement(tissue, model):
    sth.tl.predict_between(tissue, model, shapes_key="C")
    figure = sth.pl.gene_compare(tissue, "gene0", table_key="between", show_measured=False)
    assert [ax.get_title() for ax in figure.axes if ax.get_title()] == ["HisToGene", "H&E"]


def test_refusals(tissue, model):
    color = sth.tl.fit(tissue, method="color", patch_size=16)
    with pytest.raises(TypeError, match="'color' does not predict between spots; method='histogene' does"):
        sth.tl.predict_between(tissue, color)
    with pytest.raises(ValueError, match="factor"):
        sth.tl.predict_between(tissue, model, factor=0)
    assert "between" not in tissue.tables
    sth.tl.predict_between(tissue, model, shapes_key="C")
    with pytest.raises(ValueError, match="There is a table 'between' already"):
        sth.tl.predict_between(tissue, model, table_key="counts")
    del tissue.tables["between"]
    with pytest.raises(ValueError, match="an element 'C_between' already"):
        sth.tl.predict_between(tissue, model)
