import inspect

import pandas as pd
import pytest

from sthisto._utils.deprecate import renamed_arguments, renamed_attribute, renamed_keys, renamed_values, warn_renamed


@renamed_arguments(colour="color")
def paint(what, *, color="red"):
    return f"{color} {what}"


def test_an_old_argument_is_taken_for_the_new_one_with_a_warning_at_the_callers_line():
    with pytest.warns(FutureWarning, match="The argument `colour` of paint.. is called `color` since") as caught:
        assert paint("door", colour="blue") == "blue door"
    assert caught[0].filename == __file__
    assert paint("door", color="blue") == "blue door"


def test_both_names_of_an_argument_are_refused():
    with pytest.raises(TypeError, match="`colour` is the old name: pass one of them"):
        paint("door", colour="blue", color="red")


def test_the_signature_shows_new_names_alone():
    assert list(inspect.signature(paint).parameters) == ["what", "color"]


def test_an_old_attribute_of_a_module_is_found_with_a_warning():
    with pytest.warns(FutureWarning, match="colours is called here.colors since"):
        assert renamed_attribute("here", "colours", {"colours": "colors"}, {"colors": 3}) == 3
    with pytest.raises(AttributeError, match="module 'here' has no attribute 'other'"):
        renamed_attribute("here", "other", {"colours": "colors"}, {"colors": 3})


def test_keys_and_values_that_were_kept_are_renamed():
    with pytest.warns(FutureWarning, match="The key 'grey' of uns is called 'gray' .* Write it again."):
        assert renamed_keys({"grey": 1, "x": 2}, {"grey": "gray"}, where="uns", remedy="Write it again.") == {
            "gray": 1,
            "x": 2,
        }
    table = pd.DataFrame({"name": ["grey", "x"], "value": [1, 2]})
    with pytest.warns(FutureWarning, match="'grey' in the column 'name' is called 'gray'"):
        renamed = renamed_values(table, {"name": {"grey": "gray"}, "absent": {}}, remedy="")
    assert renamed["name"].tolist() == ["gray", "x"]
    assert table["name"].tolist() == ["grey", "x"]


def test_names_of_today_warn_of_nothing():
    assert renamed_keys({"gray": 1}, {"grey": "gray"}, where="uns", remedy="") == {"gray": 1}
    renamed_values(pd.DataFrame({"name": ["gray"]}), {"name": {"grey": "gray"}}, remedy="")


def test_the_release_that_drops_the_names_is_named():
    with pytest.warns(FutureWarning, match="since sthisto 0.2; 0.1's name works until 0.3"):
        warn_renamed("a", "b")
