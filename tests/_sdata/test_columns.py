"""Columns of obs, whatever type they are stored in."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sthisto._sdata.columns import as_text, read_flags, read_names, read_numbers

ON = np.array([True, False, True, True, False])
HOLES = np.array([False, False, True, False, True])


@pytest.mark.parametrize(
    "values",
    [
        ON,
        ON.astype(int),
        ON.astype(np.float32),
        np.where(ON, "1", "0"),
        np.where(ON, "1.0", "0.0"),
        np.where(ON, "TRUE", "FALSE"),
        np.where(ON, "Yes", "no"),
        np.where(ON, "in_tissue", "out"),
        pd.Categorical(np.where(ON, "True", "False")),
        pd.array(ON, dtype="boolean"),
        pd.array(ON.astype(int), dtype="Int64"),
        pd.array(np.where(ON, "yes", "no"), dtype="string"),
        np.array([b"1", b"0", b"1", b"1", b"0"]),
    ],
)
def test_flags_are_read_whatever_they_are_stored_as(values):
    flags, missing = read_flags(values, "in_tissue")
    np.testing.assert_array_equal(flags, ON)
    assert not missing.any()


@pytest.mark.parametrize(
    "values",
    [
        np.where(HOLES, np.nan, ON),
        np.where(HOLES, "NA", np.where(ON, "1", "0")),
        pd.Series(ON, dtype="boolean").mask(HOLES),
        pd.Series(np.where(ON, "1", "0")).mask(HOLES).astype("category"),
        pd.Series(np.where(HOLES, None, ON)),
    ],
)
def test_flags_that_are_missing_are_false_and_known_as_missing(values):
    flags, missing = read_flags(values, "in_tissue")
    np.testing.assert_array_equal(missing, HOLES)
    np.testing.assert_array_equal(flags, ON & ~HOLES)


def test_flags_that_are_none_are_refused_with_their_column():
    with pytest.raises(ValueError, match=r"obs\['in_tissue'\] holds 'tumor'; expected a flag"):
        read_flags(["1", "tumor"], "in_tissue")


@pytest.mark.parametrize(
    "values",
    [
        [3, 4, np.nan],
        ["3", "4", "NA"],
        pd.array([3, 4, None], dtype="Int64"),
        pd.Categorical(["3", "4", None]),
        [3, "4.0", "?"],
        pd.Series([3, 4, np.inf]),
        [b"3", b"4", b""],
    ],
)
def test_numbers_are_read_and_others_are_nan(values):
    np.testing.assert_array_equal(read_numbers(values), [3, 4, np.nan])


@pytest.mark.parametrize("value", [2, 2.0, "2", "2.0", np.int64(2), np.float32(2), b"2"])
def test_names_are_compared_as_text(value):
    assert as_text(value) == "2"


def test_names_of_a_column_keep_their_holes():
    assert list(read_names(pd.Categorical(["a", None, "肝"]))) == ["a", None, "肝"]
    assert list(read_names(np.array([1.0, np.nan]))) == ["1", None]
