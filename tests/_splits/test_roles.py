import pandas as pd
import pytest
from tissue import make_tissue

from sthisto._sdata.sections import read_sections
from sthisto._splits.folds import make_folds
from sthisto._splits.roles import read_patients


def test_patients_are_read_as_text_whatever_holds_them():
    tissue = make_tissue("AB", patients={"A": 1.0, "B": 2.0})
    assert read_patients(read_sections(tissue), "patient") == ["1", "2"]


@pytest.mark.parametrize("names", [["P1", "P2"], [None, None]])
def test_a_section_has_one_patient(names):
    tissue = make_tissue("A")
    tissue["counts"].obs["patient"] = pd.Series((names * 25)[:49], index=tissue["counts"].obs_names, dtype=object)
    with pytest.raises(ValueError, match="must belong to one patient"):
        read_patients(read_sections(tissue), "patient")


def test_bands_put_every_patient_on_both_sides_and_groups_of_whole_patients_none(caplog):
    tissue = make_tissue("ABCD", patients={"A": "P", "B": "P", "C": "Q", "D": "R"})
    sections = read_sections(tissue)
    make_folds(sections, "block", 2, "patient", [16.0] * 4)
    assert "'P', 'Q', 'R' stand on both sides of the folds" in caplog.text
    caplog.clear()
    slides = {"A": "x", "B": "x", "C": "y", "D": "y"}
    tissue["counts"].obs["slide"] = [slides[str(region)] for region in tissue["counts"].obs["region"]]
    make_folds(sections, "slide", None, "patient", [16.0] * 4)
    assert not caplog.records
    make_folds(sections, "section", None, "patient", [16.0] * 4)
    assert "'P' stand on both sides of the folds" in caplog.text
