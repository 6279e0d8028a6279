"""From the files of Space Ranger to a prediction."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pytest
from PIL import Image
from visium import PITCH_PX

import sthisto as sth
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.sections import read_sections

MISSING = "spatialdata-io is not installed: pip install 'sthisto[io]'"
spatialdata_io = pytest.importorskip("spatialdata_io", reason=MISSING)


@pytest.fixture(scope="module")
def outs(visium, tmp_path_factory):
    return visium.write(tmp_path_factory.mktemp("run") / "outs")


@pytest.fixture
def sdata(outs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return spatialdata_io.visium(outs, dataset_id="liver", fullres_image_file="he.tif")


def test_spots_lie_on_their_marks_in_every_image(sdata, visium):
    for image, size in (("liver_full_image", 9), ("liver_hires_image", 3)):
        (section,) = read_sections(sdata, ElementKeys(image_key=image))
        (patches,) = section.patches(sth.models.PatchSpec(size=size, um_per_px=section.um_per_px))
        assert len(section) == len(visium.obs)
        assert (patches.read()[:, size // 2, size // 2].mean(axis=-1) < 200).all()


def test_um_per_px_come_from_the_array(sdata):
    (section,) = read_sections(sdata, ElementKeys(image_key="liver_full_image"))
    assert section.um_per_px == pytest.approx(100 / PITCH_PX, rel=0.01)
    assert section.diameter == pytest.approx(26)


def test_the_full_resolution_is_used_where_nothing_is_said(sdata, caplog):
    with caplog.at_level(logging.INFO, "sthisto"):
        (section,) = read_sections(sdata)
    assert section.image_key == "liver_full_image"
    assert "'liver_full_image', 'liver_hires_image', 'liver_lowres_image'" in caplog.text
    assert "image_key" in caplog.text


def test_an_image_that_is_not_that_of_the_run_is_refused(visium, tmp_path):
    outs = visium.write(tmp_path / "outs")
    Image.fromarray(visium.image[:, ::-1]).save(outs / "he.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata = spatialdata_io.visium(outs, dataset_id="liver", fullres_image_file="he.tif")
    with pytest.raises(ValueError, match="mirrored left to right"):
        read_sections(sdata)
    sdata.attrs["sthisto"] = {"check_image": False}
    assert len(read_sections(sdata)[0]) == len(visium.obs)


def test_hires_read_as_the_full_resolution_is_refused(visium, tmp_path):
    outs = visium.write(tmp_path / "outs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata = spatialdata_io.visium(outs, dataset_id="liver", fullres_image_file="spatial/tissue_hires_image.png")
    with pytest.raises(ValueError, match="another resolution"):
        read_sections(sdata)


def test_files_lead_to_a_scored_prediction(sdata):
    keys = {"image_key": "liver_full_image"}
    sth.pp.split(sdata, by="block", test=0.3, margin=24, **keys)
    model = sth.tl.fit(sdata, method="color", patch_um=60, patch_size=24, n_top_genes=20, **keys)
    sth.tl.predict(sdata, model, **keys)
    sth.tl.evaluate(sdata, **keys)
    table = sdata["table"]
    modeled = table.var["sthisto_gene"].to_numpy()
    assert np.isfinite(table.layers["sthisto_pred"][:, modeled]).all()
    assert table.var["sthisto_pcc"].max() > 0.3
