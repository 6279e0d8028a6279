import sys
import textwrap
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tissue import GENES, PATCHES, make_section, make_tissue

import sthisto as sth
from sthisto._sdata.record import method_label
from sthisto.models import METHODS, ExpressionModel, Mean, Prediction, available, register


@pytest.fixture
def names(monkeypatch):
    """Forget what a test registers."""
    monkeypatch.setattr(METHODS, "_classes", dict(METHODS._classes))
    monkeypatch.setattr(METHODS, "_refused", {})


@pytest.fixture
def install(tmp_path, monkeypatch, names):
    """Return a function that installs a package with a module and entry points, as pip lays them out."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(package, code, **methods):
        (tmp_path / f"{package}.py").write_text(textwrap.dedent(code))
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {package}:{attribute}" for name, attribute in methods.items()]
        (info / "entry_points.txt").write_text("\n".join(["[sthisto.methods]", *lines]))
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / package)])  # entry points are read once for a path
        monkeypatch.delitem(sys.modules, package, raising=False)

    yield install
    for module in [name for name in sys.modules if name.startswith("sthisto_test_")]:
        del sys.modules[module]


WORKING = """
    from sthisto.models import Mean


    class Theirs(Mean):
        method = "theirs"
        label = "Theirs"
"""


@dataclass(frozen=True)
class ScaledOptions:
    factor: float = 2.0


class Scaled(ExpressionModel):
    method = "scaled"
    Options = ScaledOptions
    uses_encoder = False

    def fit_sections(self, sections, seed):
        self.mean = np.concatenate([s.expression[s.train] for s in sections]).mean(axis=0)

    def predict_section(self, section, exclude):
        expression = np.tile(self.options.factor * self.mean, (len(section), 1)).astype(np.float32)
        return Prediction(expression=expression, seen=self.seen(section.fingerprint()))

    def state(self):
        return {"mean": torch.from_numpy(self.mean)}

    def load_state(self, state):
        self.mean = state["mean"].numpy()


def test_a_registered_method_is_fitted_predicts_is_scored_saved_and_cross_validated(names, tmp_path):
    assert register(Scaled) is Scaled
    assert "scaled" in available()
    tissue = make_tissue("AB")
    model = sth.tl.fit(tissue, method="scaled", factor=3.0)
    sth.tl.predict(tissue, model)
    np.testing.assert_allclose(sth.get.predictions(tissue).to_numpy()[0], 3 * model.mean, rtol=1e-6)
    model.save(tmp_path / "model")
    again = sth.models.load(tmp_path / "model")
    section = make_section().inputs
    np.testing.assert_array_equal(again.predict(section).expression, model.predict(section).expression)
    sth.tl.cross_validate(tissue, ["scaled", "mean"], seeds=1, options={"scaled": {"factor": 4.0}})
    assert set(sth.get.scores(tissue, key_added="sthisto_cv")["method"]) == {"scaled", "mean"}


def test_label_is_what_tables_call_a_method_and_its_name_where_it_has_none(names):
    register(Scaled)

    class Labeled(Scaled):
        method, label = "labeled", "A label"

    register(Labeled)
    assert [method_label(name) for name in ("scaled", "labeled", "of somebody else")] == [
        "scaled",
        "A label",
        "of somebody else",
    ]


def test_a_taken_name_is_refused_and_the_method_that_has_it_stays(names):
    class Other(Mean):
        method = "ridge"

    with pytest.raises(ValueError, match=r"'ridge' of Other is taken by sthisto.models.methods.ridge.Ridge"):
        register(Other)
    assert METHODS["ridge"] is sth.models.Ridge

    class Colour(Mean):
        method = "colour"

    with pytest.raises(ValueError, match="'colour' is an old name of sthisto's method 'color'"):
        register(Colour)


def test_a_cell_that_is_run_again_takes_its_own_place(names):
    def cell():
        class Mine(Mean):
            method = "mine"

        return register(Mine)

    first, second = cell(), cell()
    assert METHODS["mine"] is second is not first


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "`method` of Bad must be its name, .*found None"),
        ({"method": "a:b"}, "`method` of Bad must be its name, of letters"),
        ({"method": "bad", "Options": dict}, "`Options` of Bad must be a dataclass"),
    ],
)
def test_an_incomplete_method_is_refused(names, attributes, message):
    inherited = {name: getattr(Scaled, name) for name in ("fit_sections", "predict_section", "state", "load_state")}
    bad = type("Bad", (ExpressionModel,), inherited | attributes)
    with pytest.raises(TypeError, match=message):
        register(bad)


def test_what_a_method_lacks_is_named(names):
    class Half(ExpressionModel):
        method = "half"

        def fit_sections(self, sections, seed): ...

    with pytest.raises(TypeError, match="Half lacks 'load_state', 'predict_section', 'state'"):
        register(Half)
    with pytest.raises(TypeError, match="is no subclass of sthisto"):
        register(dict)


def test_hooks_of_0_1_work_with_a_warning():
    with pytest.warns(FutureWarning, match=r"of Old is called (fit|predict)_section") as caught:

        class Old(ExpressionModel):
            method = "old"
            uses_encoder = False
            _fit = Scaled.fit_sections

            def _predict(self, section, exclude):
                return Prediction(np.tile(self.mean, (len(section), 1)), self.seen(section.fingerprint()))

            def state(self):
                return {}

            def load_state(self, state): ...

    assert {str(one.message).split(" since")[0] for one in caught} == {
        "The method _fit of Old is called fit_sections",
        "The method _predict of Old is called predict_section",
    }
    section = make_section()
    model = Old(GENES, patch=PATCHES)
    model.fit([section])
    assert model.predict(section.inputs).seen[section.train].all()


def test_an_installed_package_adds_a_method_that_is_imported_when_it_is_wanted(install):
    install("sthisto_test_good", WORKING, theirs="Theirs")
    assert METHODS["danet"] is sth.models.DANet
    assert "sthisto_test_good" not in sys.modules
    assert METHODS["theirs"].__module__ == "sthisto_test_good"
    assert "theirs" in available()
    assert method_label("theirs") == "Theirs"


BROKEN = {
    "raise RuntimeError('no such GPU')": "RuntimeError: no such GPU",
    "import a_module_that_is_missing": "ModuleNotFoundError: No module named 'a_module_that_is_missing'",
    "this is no python": "SyntaxError",
    "Theirs = 5": "TypeError: 5 is no subclass of",
    "other = 5": "AttributeError",
    "from sthisto.models import Mean\nclass Theirs(Mean):\n    method = 'something'": "`method` of Theirs .*'theirs'",
}


@pytest.mark.parametrize(("code", "reason"), BROKEN.items())
def test_a_broken_package_is_named_and_everything_else_works(install, code, reason):
    install("sthisto_test_bad", code, theirs="Theirs")
    with pytest.warns(RuntimeWarning, match=f"'theirs' of the package 'sthisto_test_bad' .*cannot be used.*{reason}"):
        assert "theirs" not in available()
    with warnings.catch_warnings(action="error"):
        assert available() == list(METHODS._classes)
        sth.tl.fit(make_tissue("A"), method="mean")
        with pytest.raises(ValueError, match="`method`: The method 'theirs' of the package 'sthisto_test_bad'"):
            sth.tl.fit(make_tissue("A"), method="theirs")


def test_a_package_does_not_take_a_name_of_sthisto(install):
    install("sthisto_test_rude", WORKING.replace("theirs", "ridge"), ridge="Theirs")
    with pytest.warns(RuntimeWarning, match="'sthisto_test_rude' .* offers a method 'ridge', a name that is taken"):
        assert METHODS["ridge"] is sth.models.Ridge
    assert "sthisto_test_rude" not in sys.modules


def test_two_packages_of_one_name_are_both_named_and_neither_is_used(install):
    install("sthisto_test_one", WORKING, theirs="Theirs")
    install("sthisto_test_two", WORKING, theirs="Theirs")
    with pytest.warns(
        RuntimeWarning, match=r"sthisto_test_\w+.* and .*sthisto_test_\w+.* each offer a method 'theirs'"
    ):
        assert "theirs" not in METHODS


def test_register_refuses_the_name_of_an_installed_package(install):
    install("sthisto_test_good", WORKING, theirs="Theirs")

    class Mine(Mean):
        method = "theirs"

    with pytest.raises(ValueError, match="is taken by the package 'sthisto_test_good'"):
        register(Mine)


def test_a_package_may_register_its_method_too(install):
    code = WORKING.replace("import Mean", "import Mean, register").replace("    class", "    @register\n    class")
    install("sthisto_test_good", code, theirs="Theirs")
    assert METHODS["theirs"].__module__ == "sthisto_test_good"
    assert available().count("theirs") == 1
