"""`features` of `tl.fit`: kinds of features reach the method, by whatever way they are named."""

from __future__ import annotations

import inspect

import pytest
from tissue import PATCH, Pool, make_tissue

import sthisto as sth
from sthisto.benchmark import MethodSpec
from sthisto.models import METHODS
from sthisto.tl._fit import check_fit

QUICK = {"image_encoder": Pool(), "patch_size": PATCH, "context": (1,)}
EPOCH = {"danet": {"max_epochs": 1, "k": 5}}


@pytest.mark.parametrize("kinds", [("texture",), ("border",), ("encoder", "border")])
@pytest.mark.parametrize("method", ["kernel", "mlp", "recommended", "danet"])
def test_kinds_of_features_reach_the_method(method, kinds):
    tissue, own = make_tissue(), EPOCH.get(method, {})
    by_name = sth.tl.fit(tissue, method=method, features=kinds, **QUICK, **own)
    by_object = sth.tl.fit(
        tissue, method=method, options=METHODS[method].make_options({"features": kinds, **own}), **QUICK
    )
    for model in (by_name, by_object):
        assert model.options.features == kinds
        assert model.has_encoder == ("encoder" in kinds)


def test_kinds_of_features_change_the_prediction():
    tissue = make_tissue()
    for kinds in (("texture",), ("border",)):
        model = sth.tl.fit(tissue, method="kernel", features=kinds, patch_size=PATCH)
        sth.tl.predict(tissue, model, key_added=kinds[0])
    table = tissue["counts"]
    assert abs(table.layers["texture_pred"] - table.layers["border_pred"]).max() > 0.1


def test_kinds_of_features_are_checked_before_a_benchmark_or_a_fold():
    assert check_fit("kernel", MethodSpec("texture", "kernel", {"features": ("texture",)}).options)[1].features == (
        "texture",
    )
    with pytest.raises(ValueError, match="features"):
        MethodSpec("none", "kernel", {"features": ("colour",)})
    with pytest.raises(ValueError, match="features"):
        sth.tl.cross_validate(make_tissue(), "kernel", groups="section", features=("colour",))


def test_no_other_option_has_the_name_of_an_argument_of_fit():
    arguments = set(inspect.signature(sth.tl.fit).parameters)
    shared = {name for cls in METHODS.values() for name in cls.option_names()} & arguments
    assert shared == {"features", "options"}  # which `check_fit` hands on; any other would be dropped without a word
