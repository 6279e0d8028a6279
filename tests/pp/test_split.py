import logging

import numpy as np
import pytest
from builders import Region, make_sdata
from tissue import make_tissue, rows_of

import sthisto as sth
from sthisto._sdata.sections import read_sections

PATIENTS = {"A": "P1", "B": "P1", "C": "P2", "D": "P3"}


@pytest.fixture
def tissue():
    return make_tissue("ABCD", patients=PATIENTS)


def sides(sdata, key="region"):
    """The roles that stand in each section or patient."""
    obs = sdata["counts"].obs
    return {str(name): set(part) for name, part in obs["sthisto_split"].groupby(obs[key].astype(str))}


@pytest.mark.parametrize("seed", range(5))
def test_a_patient_is_never_split(tissue, seed):
    sth.pp.split(tissue, by="patient", patient_key="patient", seed=seed)
    found = sides(tissue, "patient")
    assert all(roles in ({"test"}, {"train", "val"}) for roles in found.values())
    assert sum(roles == {"test"} for roles in found.values()) == 1


def test_seed_draws_other_patients(tissue):
    drawn = set()
    for seed in range(8):
        sth.pp.split(tissue, by="patient", patient_key="patient", seed=seed)
        drawn |= {name for name, roles in sides(tissue, "patient").items() if roles == {"test"}}
    assert drawn == {"P1", "P2", "P3"}


def test_named_patients_and_sections_are_tested(tissue):
    sth.pp.split(tissue, by="patient", patient_key="patient", test="P1")
    assert {name for name, roles in sides(tissue).items() if "test" in roles} == {"A", "B"}
    sth.pp.split(tissue, by="section", patient_key="patient", test=["B", "D"])
    assert {name for name, roles in sides(tissue).items() if "test" in roles} == {"B", "D"}


def test_spaces_around_names_of_patients_do_not_count():
    tissue = make_tissue("ABC", patients={"A": "P1", "B": "P1 ", "C": "P2"})
    sth.pp.split(tissue, by="patient", patient_key="patient", test="P1")
    assert {name for name, roles in sides(tissue).items() if "test" in roles} == {"A", "B"}


@pytest.mark.parametrize("other", ["p1", "P01", "P-1"])
def test_names_of_patients_that_are_nearly_alike_are_warned_of(caplog, other):
    first = "P_1" if other == "P-1" else "P1"
    tissue = make_tissue("ABC", patients={"A": first, "B": other, "C": "P10"})
    with caplog.at_level(logging.WARNING, "sthisto"):
        sth.pp.split(tissue, by="patient", patient_key="patient", test=first)
    assert f"Patients {', '.join(sorted([repr(first), repr(other)]))} differ by case, zeros or separators alone" in (
        caplog.text
    )
    assert "P10" not in caplog.text


@pytest.mark.parametrize("missing", ["nan", "NA", "<NA>"])
def test_text_that_says_that_a_patient_is_missing_is_none(missing):
    tissue = make_tissue("ABC", patients={"A": "P1", "B": missing, "C": "P2"})
    with pytest.raises(ValueError, match=r"must belong to one patient; obs\['patient'\] names none"):
        sth.pp.split(tissue, by="patient", patient_key="patient")


def test_share_is_of_patients_sections_or_spots(tissue):
    sth.pp.split(tissue, by="section", test=0.5)
    assert sum(roles == {"test"} for roles in sides(tissue).values()) == 2
    sth.pp.split(tissue, by="block", test=0.3, margin=0, validation=0)
    for region in PATIENTS:
        share = (tissue["counts"].obs["sthisto_split"].iloc[rows_of(tissue, region)] == "test").mean()
        assert share == pytest.approx(0.3, abs=0.1)


@pytest.mark.parametrize("role", ["test", "val"])
def test_blocks_are_whole(tissue, role):
    """Every cell of a section stands on one side."""
    sth.pp.split(tissue, by="block", test=0.3, margin=0, validation=0.2 if role == "val" else 0)
    for section in read_sections(tissue):
        roles = tissue["counts"].obs["sthisto_split"].iloc[section.rows].to_numpy()
        if role == "val":
            keep = roles != "test"
            roles, centers = roles[keep], section.centers[keep]
        else:
            centers = section.centers
        low, high = centers.min(axis=0), centers.max(axis=0)
        cell = np.minimum((centers - low) / (high - low) * 5, 4).astype(int)
        for one in np.unique(cell, axis=0):
            assert len({found == role for found in roles[(cell == one).all(axis=1)]}) == 1
        assert (roles == role).any()


def test_training_spots_whose_patch_shares_pixels_with_a_test_patch_are_left_out(tissue):
    sth.pp.split(tissue, by="block", test=0.2, margin=50)
    obs = tissue["counts"].obs
    for section in read_sections(tissue):
        roles = obs["sthisto_split"].iloc[section.rows].astype(object).to_numpy()
        tested, known = roles == "test", np.isin(roles, ["train", "val"])
        gap = np.abs(section.centers[:, None] - section.centers[None, tested]).max(axis=2).min(axis=1)
        assert gap[known].min() >= 50
        np.testing.assert_array_equal(known, ~tested & (gap >= 50))
        assert (~tested & ~known).any()


def test_spots_in_the_margin_are_counted_in_the_log(tissue, caplog):
    caplog.set_level("INFO", logger="sthisto")
    sth.pp.split(tissue, by="block", test=0.2, margin=50)
    obs = tissue["counts"].obs
    section = read_sections(tissue)[0]
    left_out = int(obs["sthisto_split"].iloc[section.rows].isna().sum())
    assert f"{left_out} of {len(section)} spots of {section.name!r} lie in the margin" in caplog.text


def test_without_validation_none_is_marked(tissue):
    sth.pp.split(tissue, by="patient", patient_key="patient", validation=0)
    assert set(tissue["counts"].obs["sthisto_split"]) == {"train", "test"}


def test_patient_on_both_sides_is_said(tissue, caplog):
    with caplog.at_level(logging.WARNING, logger="sthisto"):
        sth.pp.split(tissue, by="section", patient_key="patient", test=["A"])
        assert "'P1' stand on both sides" in caplog.text
        caplog.clear()
        sth.pp.split(tissue, by="section", patient_key="patient", test=["A", "B"])
        sth.pp.split(tissue, by="patient", patient_key="patient")
        assert not caplog.records
        sth.pp.split(tissue, by="section", test=["A"])
        assert "not held out by patient" in caplog.text


def test_a_patient_of_two_spatialdata_is_one():
    cohort = [make_tissue(["A"], patients={"A": "P1"}), make_tissue(["A", "B"], patients={"A": "P1", "B": "P2"})]
    sth.pp.split(cohort, by="patient", patient_key="patient", test=["P1"])
    assert sides(cohort[0]) == {"A": {"test"}}
    assert sides(cohort[1]) == {"A": {"test"}, "B": {"train", "val"}}


def test_spots_left_out_have_no_role():
    in_tissue = np.ones(len(Region().centers), dtype=int)
    in_tissue[:5] = 0
    sdata = make_sdata(Region(in_tissue=in_tissue))
    sth.pp.split(sdata, by="block", margin=0)
    obs = sdata["counts"].obs
    np.testing.assert_array_equal(obs["sthisto_split"].isna(), obs["in_tissue"] == 0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"by": "patient"}, ValueError, "needs patient_key"),
        ({"by": "patient", "patient_key": "donor"}, KeyError, "'donor'.*Available.*'patient'"),
        ({"by": "patient", "patient_key": "patient", "test": ["P9"]}, KeyError, "'P9' is not in the patients"),
        ({"by": "patient", "patient_key": "patient", "test": 0.9}, ValueError, "be 'train'. Change `test`"),
        ({"by": "block", "margin": 900}, ValueError, "in the margin of 900 px.*sections or patients.*smaller `margin`"),
        ({"by": "patient", "patient_key": "patient", "test": 2}, ValueError, "share between 0 and 1"),
        ({"by": "patient", "patient_key": "patient", "validation": 1}, ValueError, "`validation`"),
        ({"by": "block", "test": ["A"]}, ValueError, "as a share of spots"),
        ({"by": "patient", "patient_key": "patient", "margin": 9}, ValueError, "for by='block' alone"),
        ({"by": "block", "margin": -1}, ValueError, "at least 0"),
        ({"by": "spot"}, ValueError, "'patient', 'section', 'block'"),
        ({"by": "patient", "patient_key": "instance"}, ValueError, "must belong to one patient"),
    ],
)
def test_impossible_splits_are_refused_and_nothing_is_written(tissue, arguments, error, message):
    with pytest.raises(error, match=message):
        sth.pp.split(tissue, **arguments)
    assert "sthisto_split" not in tissue["counts"].obs


def test_blocks_leave_the_default_patch_between_the_sides_unless_told_otherwise(tissue):
    with pytest.raises(ValueError, match=r"No spot would be 'train': \d+ of \d+ spots lie in the margin of 224 px"):
        sth.pp.split(tissue, by="block", test=0.2)
    sth.pp.split(tissue, by="block", test=0.2, margin=0)
    assert tissue["counts"].obs["sthisto_split"].notna().all()


def test_genes_that_were_chosen_before_the_split_are_removed_but_a_panel_is_kept(tissue, caplog):
    table = tissue["counts"]
    sth.pp.select_genes(tissue, n_top_genes=3)
    with caplog.at_level(logging.WARNING, logger="sthisto"):
        sth.pp.split(tissue, by="patient", patient_key="patient")
    assert "were chosen before this split" in caplog.text
    assert "sthisto_selected" not in table.var
    assert "sthisto_selected" not in table.uns
    sth.pp.select_genes(tissue, ["gene1", "gene5"])
    sth.pp.split(tissue, by="patient", patient_key="patient")
    assert list(table.var_names[table.var["sthisto_selected"]]) == ["gene1", "gene5"]


@pytest.mark.parametrize("kind", [int, float, str, "category"])
@pytest.mark.parametrize("name", [2, "2", np.int64(2), 2.0])
def test_names_of_patients_are_compared_as_text(kind, name):
    tissue = make_tissue("AB", patients={"A": "1", "B": "2"})
    tissue["counts"].obs["patient"] = tissue["counts"].obs["patient"].astype(str).astype(int).astype(kind)
    sth.pp.split(tissue, by="patient", patient_key="patient", test=[name])
    assert sides(tissue) == {"A": {"train", "val"}, "B": {"test"}}
