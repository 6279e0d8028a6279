import pytest

import sthisto as sth
from sthisto.models.registry import options_by_name

MODULES = ("benchmark", "cohort", "datasets", "get", "io", "metrics", "models", "nn", "pl", "pp", "tl")


@pytest.mark.parametrize("name", MODULES)
def test_dir_lists_what_is_public(name):
    module = getattr(sth, name)
    assert sorted(dir(module)) == sorted(module.__all__)
    assert not [one for one in dir(module) if one.startswith("_")]


@pytest.mark.parametrize("method", sth.models.available())
def test_the_options_of_every_method_are_public(method):
    options = sth.models.METHODS[method].Options
    if options.__name__ != "NoOptions":
        assert getattr(sth.models, options.__name__) is options


@pytest.fixture(scope="module")
def sdata():
    return sth.datasets.synthetic(n_sections=2, n_patients=2, n_spots=40)


def test_options_as_an_object_are_those_by_name(sdata):
    wanted = {"method": "knn", "image_encoder": "texture"}
    typed = sth.tl.fit(sdata, **wanted, options=sth.models.KnnOptions(k=7))
    named = sth.tl.fit(sdata, **wanted, k=7)
    assert typed.options == named.options
    assert typed.options.k == 7


def test_an_ensemble_is_named_beside_the_options_of_its_members(sdata):
    options = sth.models.STNetOptions(max_epochs=1)
    model = sth.tl.fit(sdata, method="stnet", image_encoder="texture", options=options, n_models=2)
    assert model.parameters["n_models"] == 2


def test_options_of_another_method_are_refused(sdata):
    with pytest.raises(TypeError, match="must be an instance of KnnOptions for method='knn', found DANetOptions"):
        sth.tl.fit(sdata, method="knn", options=sth.models.DANetOptions())


def test_an_option_in_both_places_is_refused(sdata):
    with pytest.raises(TypeError, match="'k' stand in `options` and beside it"):
        sth.tl.fit(sdata, method="knn", options=sth.models.KnnOptions(k=7), k=5)


@pytest.mark.parametrize("wrong", [{"k": 5}, "k=5", sth.models.KnnOptions])
def test_what_is_no_object_of_options_is_refused(sdata, wrong):
    with pytest.raises(TypeError, match="instance of"):
        sth.tl.fit(sdata, method="knn", options=wrong)


def test_a_mapping_is_for_the_members_of_an_ensemble():
    assert options_by_name("ensemble", {"k": 5}, {}) == {"options": {"k": 5}}
    assert options_by_name("knn", None, {"k": 5}) == {}
