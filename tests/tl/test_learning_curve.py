import logging

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t
from tissue import GENES, make_tissue

import sthisto as sth
from sthisto._scoring.power_law import PowerLaw, fit_power_law
from sthisto._sdata.sections import read_sections

PATCH = {"patch_size": 16, "method": "color"}
PATIENTS = {"A": "P1", "B": "P2", "C": "P3", "D": "P4"}


@pytest.fixture
def tissue():
    return make_tissue("ABCD", patients=PATIENTS)


def test_all_spots_score_as_in_cross_validation(tissue):
    found = sth.tl.learning_curve(tissue, by="spots", sizes=[0.2, 1], repeats=2, genes=GENES, **PATCH)
    sth.tl.cross_validate(tissue, "color", seeds=1, genes=GENES, patch_size=16)
    overall = sth.get.scores(tissue, key_added="sthisto_cv", by="section").query("section == 'all'").iloc[0]
    assert found["pcc_residual"].iloc[1] == pytest.approx(overall["pcc_residual"])
    assert found["pcc"].iloc[1] == pytest.approx(overall["pcc"])
    assert found["n_spots"].tolist() == [3 * 10, 3 * 49]
    assert found["n_runs"].tolist() == [8, 8]
    assert found["gain"].iloc[1] == pytest.approx(found["pcc_residual"].diff().iloc[1])


def test_sections_and_patients_are_drawn_whole(tissue):
    for by in ("sections", "patients"):
        found = sth.tl.learning_curve(tissue, by=by, repeats=1, genes=GENES, **PATCH)
        assert found["size"].tolist()[:3] == [1, 2, 3]
        assert found["n_spots"].tolist()[:3] == [49, 98, 147]
        assert found["n_sections"].tolist()[:3] == [1, 2, 3]


def test_less_depth_scores_less_and_leaves_the_counts_as_they_are(tissue):
    before = tissue["counts"].X.copy()
    found = sth.tl.learning_curve(tissue, by="depth", sizes=[0.002, 1], repeats=2, genes=GENES, **PATCH)
    assert found["pcc_residual"].iloc[0] < found["pcc_residual"].iloc[1] - 0.05
    assert found["n_spots"].tolist() == [147, 147]
    assert abs(tissue["counts"].X - before).sum() == 0
    assert not any(name.startswith("sthisto") for name in [*tissue["counts"].obs, *tissue["counts"].var])


def test_interval_is_students_over_the_folds(tissue, tmp_path):
    arguments = {"by": "spots", "sizes": [0.5, 1], "repeats": 1, "genes": GENES, "out": tmp_path, **PATCH}
    found = sth.tl.learning_curve(tissue, **arguments)
    whole = []
    for held_out in "ABCD":
        alone = make_tissue("ABCD", patients=PATIENTS)
        model = sth.tl.fit(alone, genes=GENES, shapes_key=[name for name in "ABCD" if name != held_out], **PATCH)
        sth.tl.predict(alone, model, shapes_key=held_out)
        sth.tl.evaluate(alone, shapes_key=held_out, n_boot=0)
        whole.append(sth.get.scores(alone, by="section")["pcc_residual"].iloc[0])
    low, high = t.interval(0.95, 3, np.mean(whole), np.std(whole, ddof=1) / 2)
    assert found[["low", "high"]].iloc[1].tolist() == pytest.approx([low, high])


def test_finished_runs_are_kept(tissue, tmp_path, monkeypatch):
    arguments = {"by": "depth", "sizes": [0.5, 1], "repeats": 1, "genes": GENES, "out": tmp_path, **PATCH}
    first = sth.tl.learning_curve(tissue, **arguments)
    assert len(list(tmp_path.glob("*.parquet"))) == 8
    monkeypatch.setattr("sthisto.tl._fold_run.fit", None)
    pd.testing.assert_frame_equal(sth.tl.learning_curve(tissue, **arguments), first)


def test_genes_are_chosen_once_for_each_fold_on_its_training_spots(tissue, monkeypatch):
    seen = []
    chosen = sth.tl._learning_curve.genes_to_model

    def spy(sections, genes, **arguments):
        seen.append([section.name for section in sections])
        return chosen(sections, genes, **arguments)

    monkeypatch.setattr("sthisto.tl._learning_curve.genes_to_model", spy)
    sth.tl.learning_curve(tissue, by="spots", sizes=[0.5, 1], repeats=1, n_top_genes=4, **PATCH)
    assert seen == [[name for name in "ABCD" if name != held_out] for held_out in "ABCD"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"by": "reads"}, ValueError, "by"),
        ({"sizes": [0.5]}, ValueError, "at least two sizes"),
        ({"sizes": [0, 1]}, ValueError, "shares of all training spots between 0 and 1"),
        ({"by": "sections", "sizes": [1, 9]}, ValueError, "numbers of training sections from 1 to 3"),
        ({"by": "patients", "groups": "section"}, ValueError, "patient_key"),
        ({"method": "nothing"}, ValueError, "nothing"),
        ({"repeats": 0}, ValueError, "repeats"),
        ({"options": {"seed": 1}}, TypeError, "seed"),
        ({"seed": 1}, TypeError, "seed"),
    ],
)
def test_what_cannot_be_a_curve_is_refused(tissue, arguments, error, message):
    with pytest.raises(error, match=message):
        sth.tl.learning_curve(tissue, **{**PATCH, **arguments})


def test_depth_needs_counts(tissue):
    tissue["counts"].X = np.log1p(tissue["counts"].X.toarray())
    with pytest.raises(ValueError, match="cannot be thinned"):
        sth.tl.learning_curve(tissue, by="depth", genes=GENES, **PATCH)


def test_a_power_law_is_found_again():
    size = np.array([50.0, 100, 200, 400, 800])
    law = fit_power_law(size, PowerLaw(0.2, 1.5, 0.5)(size))
    assert (law.limit, law.scale, law.exponent) == pytest.approx((0.2, 1.5, 0.5), rel=1e-2)


def test_a_power_law_that_does_not_hold_is_not_used(tissue, caplog):
    size = np.array([1.0, 2, 4, 8])
    assert fit_power_law(size, np.array([0.1, 0.3, 0.05, 0.2])) is None
    assert fit_power_law(size, np.array([0.4, 0.3, 0.2, 0.1])) is None
    assert fit_power_law(size[:3], np.array([0.1, 0.2, 0.25])) is None
    with caplog.at_level(logging.INFO, logger="sthisto"):
        found = sth.tl.learning_curve(tissue, by="sections", repeats=1, genes=GENES, **PATCH)
    assert not found["extrapolated"].any()
    assert found["fitted"].isna().all()


def test_one_fold_has_no_interval():
    from sthisto.tl._learning_curve import _intervals

    assert np.isnan(list(_intervals(pd.DataFrame({"P1": [0.1]})))).all()


def test_sections_of_the_subset_are_those_of_the_cohort(tissue):
    names = {section.name for section in read_sections(tissue)}
    found = sth.tl.learning_curve(tissue, by="sections", sizes=[1, 3], repeats=1, genes=GENES, **PATCH)
    assert len(names) == 4
    assert found["n_sections"].tolist() == [1, 3]
