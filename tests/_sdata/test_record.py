import dataclasses

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from tissue import GENES, PATCH, encoder, make_tissue

import sthisto as sth
from sthisto._images.patches import PatchSpec
from sthisto._sdata.expression import Normalization
from sthisto._sdata.record import FitRecord, method_label, read_normalization, read_part, read_record
from sthisto._sdata.sections import read_sections
from sthisto._sdata.write import apply
from sthisto.models import METHODS


@pytest.fixture
def tissue():
    return make_tissue()


def full_record():
    return FitRecord(
        method="knn",
        version="0.2.0",
        parameters={"k": 5, "weighted": True},
        image_encoder="densenet121",
        patch=PatchSpec(224, 0.5, (1.0, 2.0)),
        normalization=Normalization("log1p", "counts", 5e3),
        genes_rule="given",
        depth_knots=(3.0, 4.5),
        gene_symbols="symbol",
        training_sections=("A", "B"),
        history=pd.DataFrame({"epoch": [0, 1], "train_loss": [2.0, 1.0], "val_loss": [2.5, 1.5]}),
        scores=pd.DataFrame({"gene": ["g"], "pcc": [0.5]}),
        summary=pd.DataFrame({"section": ["A"], "pcc": [0.5]}),
        more={"smooth": 0.25, "excluded": "section"},
    )


def assert_same(found, expected):
    for field in dataclasses.fields(FitRecord):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(other, pd.DataFrame):
            pd.testing.assert_frame_equal(one.reset_index(drop=True), other, check_dtype=False)
        else:
            assert one == other, field.name


def test_a_record_is_read_as_it_was_written_also_from_disk(tissue, tmp_path):
    apply(full_record().updates(read_sections(tissue), "knn"))
    assert_same(read_record(tissue["counts"], "knn"), full_record())
    tissue.write(tmp_path / "tissue.zarr")
    assert_same(read_record(sd.read_zarr(tmp_path / "tissue.zarr")["counts"], "knn"), full_record())


def test_what_is_unknown_is_written_as_values_that_disks_hold(tissue, tmp_path):
    record = FitRecord("mean", patch=PatchSpec(16))
    apply(record.updates(read_sections(tissue), "mean"))
    tissue.write(tmp_path / "tissue.zarr")
    found = read_record(sd.read_zarr(tmp_path / "tissue.zarr")["counts"], "mean")
    assert (found.patch, found.gene_symbols, found.depth_knots) == (PatchSpec(16), None, ())
    assert found.history is None


def test_the_record_of_a_fit_says_what_was_fitted(tissue):
    model = sth.tl.fit(tissue, method="knn", image_encoder=encoder(), patch_size=PATCH, genes=GENES[:4], k=5)
    found = read_record(tissue["counts"], "sthisto")
    assert (found.method, found.parameters["k"], found.image_encoder) == ("knn", 5, "module:Pool")
    assert found.patch == model.patch
    assert found.normalization == Normalization("log1p")
    assert found.depth_knots == pytest.approx(model.depth_knots)
    assert found.training_sections == ("A", "B")
    assert (found.genes_rule, found.version) == ("given", sth.__version__)


def test_scoring_again_keeps_what_prediction_wrote(tissue):
    sth.tl.predict(tissue, sth.tl.fit(make_tissue("CD", seed=5), method="color", patch_size=PATCH), smooth=0.5)
    before = read_record(tissue["counts"], "sthisto")
    assert before.more["smooth"] == 0.5
    sth.tl.evaluate(tissue, n_boot=0)
    after = read_record(tissue["counts"], "sthisto")
    assert {name: after.more[name] for name in before.more} == before.more
    assert before.scores is None
    assert len(after.scores) == 2 * 12


def test_a_record_of_0_1_is_read_with_a_warning(tissue):
    stored = full_record().to_uns()
    stored["normalisation"] = stored.pop("normalization")
    stored["method"] = "colour"
    tissue["counts"].uns["old"] = stored
    with pytest.warns(FutureWarning, match="The key 'normalisation' of uns.'old'. is called 'normalization'"):
        found = read_record(tissue["counts"], "old")
    assert (found.method, found.normalization) == ("color", Normalization("log1p", "counts", 5e3))


def test_what_is_missing_is_named(tissue):
    table = tissue["counts"]
    apply(FitRecord("mean").updates(read_sections(tissue), "mean"))
    with pytest.raises(KeyError, match=r"Nothing was predicted under key_added='x'.*'mean'.*key_added='x'"):
        read_record(table, "x")
    with pytest.raises(KeyError, match=r"holds no 'scores'. Call sth.tl.evaluate first"):
        read_part(table, "mean", "scores", call="sth.tl.evaluate")
    with pytest.raises(KeyError, match=r"uns\['mean'\] names no scale"):
        read_normalization(table, "mean")


def test_every_method_has_a_name_for_tables_and_figures():
    assert [method_label(cls.method) for cls in METHODS.values()] != list(METHODS)
    assert (method_label("danet"), method_label("of somebody else")) == ("DANet", "of somebody else")


def test_um_per_px_that_are_unknown_stay_unknown(tissue):
    values = FitRecord("mean", patch=PatchSpec(16)).to_uns()
    assert np.isnan(values["patch"]["um_per_px"])
    assert FitRecord.from_uns(values).patch.um_per_px is None
