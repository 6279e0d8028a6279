"""Intervals and calibration spots, from the split to the slots."""

import numpy as np
import pytest
from tissue import GENES, PATCH, Pool, make_tissue, rows_of

import sthisto as sth

NAMES = [f"S{i}" for i in range(14)]
QUICK = {"patch_size": PATCH, "genes": GENES[:6]}


@pytest.fixture(scope="module")
def cohort():
    sdata = make_tissue(NAMES, side=5)
    sth.pp.split(
        sdata, by="patient", patient_key="patient", test=NAMES[:3], calibration=NAMES[3:12], validation=0, margin=0
    )
    return sdata


@pytest.fixture(scope="module")
def model(cohort):
    return sth.tl.fit(cohort, method="color", **QUICK)


def layer(sdata, name):
    return sdata["counts"].layers[f"sthisto_{name}"][:, :6]


def test_intervals_of_nine_patients_hold_for_new_patients(cohort, model):
    sth.tl.predict(cohort, model, interval=0.9)
    low, prediction, high = (layer(cohort, name) for name in ("low", "pred", "high"))
    assert low.dtype == high.dtype == np.float32
    assert (low <= prediction).all()
    assert (prediction <= high).all()
    assert (low >= 0).all()
    assert np.isnan(cohort["counts"].layers["sthisto_low"][:, 6:]).all()
    record = cohort["counts"].uns["sthisto"]
    assert record["interval"] == 0.9
    assert record["interval_holds_for"] == "new patients"
    counts = cohort["counts"].X.toarray()
    measured = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)[:, :6]
    test = np.concatenate([rows_of(cohort, name) for name in NAMES[:3]])
    inside = ((low <= measured) & (measured <= high))[test]
    assert 0.8 < inside.mean() < 0.99


def test_calibration_spots_are_not_trained_on(cohort, model):
    assert set(model.training_sections) == {"S12", "S13"}
    obs = cohort["counts"].obs
    sth.tl.predict(cohort, model)
    assert not obs.loc[obs["sthisto_split"] == "calibration", "sthisto_seen"].any()
    assert "sthisto_low" not in cohort["counts"].layers
    assert "interval" not in cohort["counts"].uns["sthisto"]


def test_saved_model_gives_the_same_intervals(cohort, model, tmp_path):
    model.save(tmp_path / "model")
    loaded = sth.models.load(tmp_path / "model")
    for name in ("patient", "block", "least_spread"):
        np.testing.assert_array_equal(getattr(loaded.calibration, name), getattr(model.calibration, name))
    sth.tl.predict(cohort, model, interval=0.8)
    expected = layer(cohort, "high").copy()
    sth.tl.predict(cohort, loaded, interval=0.8)
    np.testing.assert_array_equal(layer(cohort, "high"), expected)


def test_too_few_patients_fall_back_to_blocks_with_a_label(caplog):
    sdata = make_tissue("ABC", side=10)
    sth.pp.split(sdata, by="patient", patient_key="patient", test=["C"], calibration=0.25, validation=0, margin=0)
    assert "fewer than the 9 that intervals at 90 % for new patients need" in caplog.text
    assert {"train", "calibration"} == set(sdata["counts"].obs["sthisto_split"].iloc[rows_of(sdata, "A")])
    fitted = sth.tl.fit(sdata, method="knn", image_encoder=Pool(), k=5, **QUICK)
    sth.tl.predict(sdata, fitted, interval=0.9)
    assert sdata["counts"].uns["sthisto"]["interval_holds_for"] == "same patients"
    assert "not for new ones" in caplog.text
    sth.tl.predict(sdata, fitted, interval=0.9, new_table_key="new")
    np.testing.assert_array_equal(sdata["new"].layers["sthisto_low"] <= sdata["new"].X, True)
    with pytest.raises(ValueError, match=r"interval=0\.99 needs at least 99"):
        sth.tl.predict(sdata, fitted, interval=0.99, table_key="counts")


def test_interval_without_calibration_spots_is_refused_before_anything_is_written():
    sdata = make_tissue("A")
    fitted = sth.tl.fit(sdata, method="color", **QUICK)
    with pytest.raises(ValueError, match=r"sth\.pp\.split\(sdata, calibration=…\) before sth\.tl\.fit"):
        sth.tl.predict(sdata, fitted, interval=0.9)
    assert "sthisto_pred" not in sdata["counts"].layers


def test_interval_of_smoothed_predictions_is_refused(cohort, model):
    with pytest.raises(ValueError, match=r"smooth=0\.5"):
        sth.tl.predict(cohort, model, interval=0.9, smooth=0.5)


@pytest.mark.parametrize("level", [0, 1, 1.5, "much"])
def test_wrong_levels_are_refused(cohort, model, level):
    with pytest.raises((TypeError, ValueError), match="interval"):
        sth.tl.predict(cohort, model, interval=level)


def test_share_of_patients_to_calibrate_on_is_drawn_where_it_makes_nine():
    sdata = make_tissue(NAMES, side=3)
    sth.pp.split(sdata, by="patient", patient_key="patient", test=NAMES[:2], calibration=0.75, validation=0)
    obs = sdata["counts"].obs
    assert obs.loc[obs["sthisto_split"] == "calibration", "patient"].nunique() == 9
    assert obs.groupby("patient")["sthisto_split"].nunique().max() == 1
    assert sdata["counts"].uns["sthisto_split"]["patient_key"] == "patient"


def test_patients_that_are_tested_cannot_be_calibrated_on():
    sdata = make_tissue("ABC")
    with pytest.raises(KeyError, match="calibration"):
        sth.pp.split(sdata, by="patient", patient_key="patient", test=["C"], calibration=["C"])


def test_confidence_is_by_patient_where_the_split_knows_the_patients():
    sdata = make_tissue("ABCD", patients={"A": "p", "B": "p", "C": "q", "D": "r"})
    sdata["counts"].obs = sdata["counts"].obs.rename(columns={"patient": "donor"})
    sth.pp.split(sdata, by="patient", patient_key="donor", test=["r"], validation=0)
    assert sth.tl.fit(sdata, method="color", **QUICK).familiarity.groups == "patient"
    assert sdata["counts"].uns["sthisto"]["confidence_groups"] == "patient"
    del sdata["counts"].uns["sthisto_split"]
    assert sth.tl.fit(sdata, method="color", **QUICK).familiarity.groups == "section"
    assert sth.tl.fit(sdata, method="color", patient_key="donor", **QUICK).familiarity.groups == "patient"


def test_predict_warns_of_a_slide_unlike_the_training_sections(caplog):
    sdata = make_tissue("ABC")
    fitted = sth.tl.fit(sdata, method="color", **QUICK)
    sth.tl.predict(sdata, fitted)
    assert "look unlike" not in caplog.text
    sdata.images["C_image"].data[:] = 255 - sdata.images["C_image"].data
    sth.tl.predict(sdata, fitted)
    assert "100 % of the spots of section 'C' look unlike what the model was trained on" in caplog.text
    assert "'A' look" not in caplog.text
