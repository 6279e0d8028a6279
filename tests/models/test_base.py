from dataclasses import replace

import numpy as np
import pytest
from tissue import GENES, PATCHES, encoder, make_section

from sthisto.models import METHODS, Color, Knn, Mean, PatchSpec, Ridge


def fitted(cls, *sections, options=None):
    model = cls(GENES, patch=PATCHES, options=options, encoder=encoder() if cls.uses_encoder else None)
    model.fit(sections or [make_section()])
    return model


def test_model_without_genes_is_refused():
    with pytest.raises(ValueError, match="at least one gene"):
        Mean([], patch=PATCHES)


def test_fit_without_training_spots_is_refused():
    section = replace(make_section(), train=np.empty(0, dtype=int))
    with pytest.raises(ValueError, match="no training spot"):
        fitted(Mean, section)


def test_training_value_that_is_not_finite_is_refused_and_others_may_be():
    section = make_section(validation=5)
    section.expression[3, 2] = np.nan
    with pytest.raises(ValueError, match="not finite in a training spot"):
        fitted(Mean, section)
    fitted(Mean, replace(section, train=np.setdiff1d(section.train, [3])))


def test_expression_of_other_genes_is_refused():
    section = make_section()
    with pytest.raises(ValueError, match=r"is \(49, 5\); expected \(49, 12\)"):
        fitted(Mean, replace(section, expression=section.expression[:, :5]))


def test_a_model_shows_what_it_is():
    assert repr(Mean(GENES, patch=PatchSpec(size=32))) == "<Mean: 12 genes, patches of 32 px, not fitted>"
    model = fitted(Mean, make_section(name="left"))
    model.patch = PatchSpec(size=112, um_per_px=0.69)
    assert repr(model) == "<Mean: 12 genes, patches of 112 px (77.28 µm), fitted on 'left'>"


def test_options_of_other_methods_are_refused_by_name():
    with pytest.raises(TypeError, match=r"'ridge' has no option 'k'\. It has: 'n_components'"):
        Ridge.make_options({"k": 4})


@pytest.mark.parametrize("cls", [Mean, Color, Ridge, Knn])
def test_spots_that_were_trained_on_are_recognized(cls):
    options = cls.make_options({"k": 5}) if cls is Knn else None
    section = make_section(validation=9)
    section = replace(section, train=section.train[:20])
    model = fitted(cls, section, options=options)
    expected = np.isin(np.arange(49), section.used)
    np.testing.assert_array_equal(model.predict(section.inputs).seen, expected)
    assert not model.predict(make_section(seed=7).inputs).seen.any()


def test_patches_of_one_color_are_no_ones():
    blank = make_section()
    blank.inputs.patches[0].level.array[:] = 240
    model = fitted(Mean, blank)
    assert not model.predict(blank.inputs).seen.any()


def test_sections_that_were_trained_on_are_recognized_by_any_spot():
    first, second = make_section("A"), make_section("B", seed=1)
    model = fitted(Mean, first, second)
    prints = np.array([model.training_spots.fingerprint[60], 5], dtype=np.uint64)
    assert model.training_spots.sections_of(prints).tolist() == [1]
    assert model.training_spots.sections_of(np.zeros(3, dtype=np.uint64)).tolist() == []


def test_predicting_or_saving_before_fitting_is_refused(tmp_path):
    model = Mean(GENES, patch=PATCHES)
    with pytest.raises(RuntimeError, match="not fitted"):
        model.predict(make_section().inputs)
    with pytest.raises(RuntimeError, match="not fitted"):
        model.save(tmp_path / "model")


def test_method_without_encoder_says_so():
    with pytest.raises(RuntimeError, match="'ridge' was made without an image encoder"):
        Ridge(GENES, patch=PATCHES).fit([make_section()])


def test_methods_are_found_by_their_own_name():
    assert all(cls.method == name for name, cls in METHODS.items() if name != "recommended")
