import pytest
from tissue import make_tissue

import sthisto as sth
from sthisto._sdata.keys import ELEMENT_KEYS, ElementKeys


def test_mappings_are_read_by_region_and_values_hold_for_all():
    keys = ElementKeys(image_key={"A": "H&E"}, um_per_px=0.5)
    assert (keys.image_of("A"), keys.image_of("B")) == ("H&E", None)
    assert keys.um_per_px_of("A") == keys.um_per_px_of("B") == 0.5


def test_keys_of_some_regions_name_no_other():
    keys = ElementKeys({"A": "a", "B": "b"}, ["A", "B"], "counts", "slide", {"B": 0.5})
    assert keys.for_regions(["A"]) == ElementKeys({"A": "a"}, None, "counts", "slide", {})


@pytest.mark.parametrize("name", ["image_key", "um_per_px"])
def test_a_mapping_of_an_unknown_region_is_named(name):
    with pytest.raises(KeyError, match=f"`{name}`='C' is not in the regions. Available: 'A', 'B'"):
        ElementKeys(**{name: {"C": "x"}}).check_regions(["A", "B"])


def test_they_are_arguments_of_fit_and_predict(tmp_path):
    tissue = make_tissue("AB")
    keys = ElementKeys(image_key={"A": "A_image", "B": "B_image"}, table_key="counts")
    assert tuple(keys.arguments()) == ELEMENT_KEYS
    model = sth.tl.fit(tissue, method="color", patch_size=16, **keys.arguments())
    sth.tl.predict(tissue, model, **keys.arguments())
    assert sth.get.predictions(tissue).shape == (98, 12)
