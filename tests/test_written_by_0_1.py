"""Names of 0.1 that go on working: functions, arguments, methods, and what stands in a store that 0.1 wrote."""

import shutil
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import spatialdata as sd
from tissue import encoder, make_section, make_tissue

import sthisto as sth
from sthisto.benchmark import MethodSpec
from sthisto.benchmark._results import Results

pytestmark = pytest.mark.filterwarnings("ignore:.*since sthisto 0.2:FutureWarning")

STORE = Path(__file__).parent / "data" / "written_by_0_1.tar.xz"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("0_1")
    shutil.unpack_archive(STORE, folder, filter="data")
    return folder / "written_by_0_1.zarr"


@pytest.fixture
def old(store):
    sdata = sd.read_zarr(store)
    assert "normalisation" in sdata["counts"].uns["sthisto"]
    return sdata


@pytest.fixture(scope="module")
def model():
    return sth.tl.fit(make_tissue("AB"), method="knn", image_encoder=encoder(), patch_size=16, k=5)


@pytest.mark.parametrize("room", [sth.get, sth.pl])
def test_neighbours_is_neighbors_with_a_warning(room):
    with pytest.warns(FutureWarning, match=f"{room.__name__}.neighbours is called {room.__name__}.neighbors"):
        assert room.neighbours is room.neighbors
    assert "neighbours" not in room.__all__
    with pytest.raises(AttributeError, match="no attribute 'nieghbors'"):
        _ = room.nieghbors


def test_n_neighbours_is_n_neighbors_with_a_warning(model):
    tissue = make_tissue("AB")
    spot = tissue["counts"].obs_names[0]
    with pytest.warns(FutureWarning, match="`n_neighbours` of neighbors.. is called `n_neighbors`"):
        old = sth.pl.neighbors(tissue, model, spot, n_neighbours=2)
    new = sth.pl.neighbors(tissue, model, spot, n_neighbors=2)
    titles = [[ax.get_title() for ax in figure.axes if ax.get_visible()] for figure in (old, new)]
    assert titles[0] == titles[1]
    assert len(titles[0]) == 3
    plt.close("all")


def test_scores_of_0_1_are_read_by_the_names_of_today(old):
    with pytest.warns(FutureWarning, match="'all modelled' in the column 'genes' is called 'all modeled'"):
        by_section = sth.get.scores(old, by="section")
    assert set(by_section["genes"]) == {"all modeled"}
    assert set(by_section["method"]) == {"Color"}
    np.testing.assert_array_equal(
        by_section["pcc_residual"], old["counts"].uns["sthisto"]["summary"]["pcc_residual"].to_numpy()
    )


def test_cross_validation_of_0_1_is_read_by_the_names_of_today(old):
    with pytest.warns(FutureWarning, match="'colour' in the column 'method' is called 'color'"):
        by_gene = sth.get.scores(old, key_added="sthisto_cv")
    assert set(by_gene["method"]) == {"color", "mean"}


def test_predictions_of_0_1_are_read_and_drawn(old):
    assert sth.get.predictions(old).shape == (98, 12)
    figures = [
        sth.pl.gene_compare(old, "gene0", key_added=["sthisto", "knn"]),
        sth.pl.scores(old, key_added=["sthisto", "knn"]),
        sth.pl.gene_correlation(old),
        sth.pl.mean_variance(old),
        sth.pl.uncertainty(old, key_added="knn"),
        sth.pl.clusters(old, ["sthisto_cluster", "predicted_cluster"]),
    ]
    assert all(figure.axes for figure in figures)
    plt.close("all")


def test_drawing_a_record_of_0_1_warns(old):
    with pytest.warns(FutureWarning, match="The key 'normalisation' of uns.'sthisto'. is called 'normalization'"):
        sth.pl.gene_compare(old, "gene0")
    plt.close("all")


def test_evaluating_again_writes_the_record_by_the_names_of_today(old):
    before = old["counts"].var["sthisto_pcc"].to_numpy()
    with pytest.warns(FutureWarning, match="normalisation"):
        sth.tl.evaluate(old, n_boot=50)
    record = old["counts"].uns["sthisto"]
    assert "normalization" in record
    assert "normalisation" not in record
    np.testing.assert_allclose(old["counts"].var["sthisto_pcc"], before, atol=1e-6)
    with warnings.catch_warnings(action="error"):
        sth.get.scores(old, by="section")
        sth.pl.gene_compare(old, "gene0")
    plt.close("all")


def warns_of_colour():
    return pytest.warns(FutureWarning, match="The method 'colour' is called 'color' since sthisto 0.2")


def test_method_colour_is_color_with_a_warning():
    tissue = make_tissue("AB")
    with warns_of_colour():
        model = sth.tl.fit(tissue, method="colour", patch_size=16)
    assert type(model) is sth.models.Color
    assert tissue["counts"].uns["sthisto"]["method"] == "color"
    options = {"colour": {"context": (1, 2)}}
    with warns_of_colour():
        sth.tl.cross_validate(tissue, ["colour", "mean"], seeds=1, patch_size=16, options=options)
    assert set(sth.get.scores(tissue, key_added="sthisto_cv")["method"]) == {"color", "mean"}
    with warns_of_colour():
        assert MethodSpec.parse("colour", {}) == MethodSpec("color", "color")


def test_class_colour_is_color_with_a_warning():
    with pytest.warns(FutureWarning, match="sthisto.models.Colour is called sthisto.models.Color"):
        assert sth.models.Colour is sth.models.Color
    with warns_of_colour():
        assert sth.models.METHODS["colour"] is sth.models.Color
    assert "Colour" not in sth.models.__all__
    assert "colour" not in sth.models.available()


@pytest.mark.parametrize("method", ["ridge", "hybrid"])
def test_option_colours_is_colors_with_a_warning(method):
    cls = sth.models.METHODS[method]
    with pytest.warns(FutureWarning, match=f"The option `colours` of '{method}' is called `colors`"):
        options = cls.make_options({"colours": not cls.Options().colors})
    assert options == cls.Options(colors=not cls.Options().colors)
    with pytest.raises(TypeError, match="takes `colors`, of which `colours` is the old name"):
        cls.make_options({"colours": True, "colors": True})


def test_option_colours_of_a_fit_is_colors_with_a_warning():
    with pytest.warns(FutureWarning, match="The option `colours`"):
        model = sth.tl.fit(make_tissue("A"), method="ridge", colours=True, image_encoder=encoder(), patch_size=16)
    assert model.parameters["colors"] is True


def test_another_method_has_no_option_colours():
    with pytest.raises(TypeError, match="'knn' has no option 'colours'"):
        sth.models.Knn.make_options({"colours": True})


def test_neighbours_of_a_model_is_neighbors_with_a_warning(model):
    section = make_section().inputs
    with pytest.warns(FutureWarning, match="model.neighbours is called model.neighbors"):
        old = model.neighbours(section, exclude="none")
    assert old.equals(model.neighbors(section, exclude="none"))


def test_centres_of_a_patch_source_is_centers_with_a_warning():
    level = make_section().inputs.patches[0].level
    with pytest.warns(FutureWarning, match="The argument `centres` of PatchSource.. is called `centers`"):
        old = sth.models.PatchSource(level, centres=np.array([[30.0, 30.0]]), extent=16, size=16)
    new = sth.models.PatchSource(level, np.array([[30.0, 30.0]]), extent=16, size=16)
    np.testing.assert_array_equal(old.read(), new.read())


def test_normalisation_of_a_benchmark_s_results_is_normalization_with_a_warning():
    results = Results({"normalization": ["log1p", "residuals"], "value": [0.1, 0.2]})
    with pytest.warns(FutureWarning, match="The column 'normalisation' of a benchmark's results is called"):
        assert results[results["normalisation"] == "log1p"]["value"].tolist() == [0.1]
    with pytest.warns(FutureWarning, match="normalisation"):
        assert list(results[["normalisation", "value"]]) == ["normalization", "value"]
    with warnings.catch_warnings(action="error"):
        assert results["value"].tolist() == [0.1, 0.2]
        with pytest.raises(KeyError, match="normalised"):
            results["normalised"]
