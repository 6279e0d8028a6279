"""What newcomers run into: concatenated tables, counts in a layer, arguments in the wrong place."""

import logging

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import spatialdata as sd

import sthisto as sth
from sthisto._sdata.slots import modeled_gene, prediction


@pytest.fixture(scope="module")
def model():
    sdata = sth.datasets.synthetic(n_sections=2, n_patients=2, n_spots=40)
    return sth.tl.fit(sdata, method="color", genes=list(sdata["expression"].var_names[:12]))


@pytest.fixture(scope="module")
def parts(model):
    """Sections of two other patients, each predicted on its own."""
    sections = {name: sth.datasets.synthetic(n_sections=1, n_spots=40, seed=i) for i, name in enumerate("ab", 3)}
    for section in sections.values():
        sth.tl.predict(section, model)
    return sections


@pytest.fixture(scope="module")
def bare(parts):
    """The parts concatenated by default: ``var`` and ``uns`` are lost."""
    return sd.concatenate(parts, concatenate_tables=True)


@pytest.fixture(scope="module")
def merged(parts):
    return sd.concatenate(parts, concatenate_tables=True, merge="same", uns_merge="same")


def test_predictions_are_read_from_the_layer_of_a_concatenated_table(bare, parts, model):
    assert modeled_gene("sthisto") not in bare["expression"].var
    found = sth.get.predictions(bare)
    expected = np.concatenate([sth.get.predictions(one).to_numpy() for one in parts.values()])
    assert set(found.columns) == set(model.genes)
    np.testing.assert_array_equal(found.to_numpy(), expected)
    assert sth.get.anndata(bare).n_vars == len(model.genes)


@pytest.mark.parametrize(
    "read",
    [
        lambda sdata, gene: sth.pl.gene_compare(sdata, gene),
        lambda sdata, gene: sth.pl.mean_variance(sdata),
        lambda sdata, gene: sth.tl.evaluate(sdata),
        lambda sdata, gene: sth.get.scores(sdata),
    ],
    ids=["gene_compare", "mean_variance", "evaluate", "scores"],
)
def test_what_needs_the_lost_record_says_how_to_keep_it(bare, model, read):
    with pytest.raises(KeyError, match=r"sthisto_pred.*merge='same', uns_merge='same'"):
        read(bare, model.genes[0])


def test_a_merge_of_what_is_the_same_keeps_all(merged, model):
    sth.tl.evaluate(merged, n_boot=0)
    assert set(sth.get.scores(merged)["section"]) >= {"S1_spots-a", "S1_spots-b"}
    assert sth.pl.gene_compare(merged, model.genes[0]).axes


def test_anndata_of_concatenated_tables_is_read_too(parts, model):
    tables = [one["expression"] for one in parts.values()]
    joined = ad.concat(tables, index_unique="-", merge="same", uns_merge="same")
    assert joined.uns["sthisto"]["method"] == "color"
    assert joined.var[modeled_gene("sthisto")].sum() == len(model.genes)


def test_counts_that_evaluate_was_given_are_those_of_plots(model, monkeypatch):
    sdata = sth.datasets.synthetic(n_sections=1, n_spots=40, seed=5)
    plain = sth.datasets.synthetic(n_sections=1, n_spots=40, seed=5)
    table = sdata["expression"]
    table.layers["counts"] = table.X.copy()
    sc.pp.normalize_total(table)
    sc.pp.log1p(table)
    for one in (sdata, plain):
        sth.tl.predict(one, model)
    with pytest.raises(ValueError, match=r"evaluate\(sdata, counts_layer=…\).*'counts'"):
        sth.pl.gene_compare(sdata, model.genes[0])
    sth.tl.evaluate(sdata, counts_layer="counts", n_boot=0)
    sth.tl.evaluate(plain, n_boot=0)
    shown = [measured_colors(one, model.genes[0]) for one in (sdata, plain)]
    np.testing.assert_allclose(*shown)
    assert sth.pl.gene_correlation(sdata).axes
    sth.tl.predict(sdata, model)  # a new prediction is not evaluated yet
    assert not sdata["expression"].uns["sthisto"].get("counts_layer")


def measured_colors(sdata, gene):
    """Return the measured values that a figure draws."""
    axes = sth.pl.gene_compare(sdata, gene).axes[0]
    return next(np.asarray(one.get_array()) for one in axes.collections if one.get_array() is not None)


def test_patches_of_little_tissue_have_the_px_that_it_covers(caplog):
    sdata = sth.datasets.synthetic(n_sections=1, n_spots=40, um_per_px=0.5)
    with caplog.at_level(logging.WARNING, "sthisto"):
        narrow = sth.tl.fit(sdata, method="color", patch_um=40)
    assert (narrow.patch.size, narrow.patch.um_per_px) == (80, 0.5)
    assert "enlarged" not in caplog.text
    assert sth.tl.fit(sdata, method="color", patch_um=400).patch.size == 224
    assert sth.tl.fit(sdata, method="color", patch_um=5).patch.size == 32
    assert sth.tl.fit(sdata, method="color").patch.size == 224
    with caplog.at_level(logging.WARNING, "sthisto"):
        sth.tl.fit(sdata, method="color", patch_um=40, patch_size=224)
    assert "their 224 px show 80 px of image 'S1_image', of 0.5 µm each" in caplog.text
    assert "coarse" not in caplog.text


def test_swapped_arguments_are_named(parts, model):
    for call, first in ((sth.tl.predict, model), (sth.tl.predict, "m.sthisto"), (sth.pl.gene_compare, "EPCAM")):
        with pytest.raises(TypeError, match="The SpatialData comes first"):
            call(first, parts["a"])


def test_an_anndata_is_told_to_be_converted(parts):
    with pytest.raises(TypeError, match=r"found AnnData. .*sthisto\.io\.from_anndata"):
        sth.get.predictions(parts["a"]["expression"])


def test_a_path_is_told_to_be_read():
    with pytest.raises(TypeError, match=r"spatialdata\.read_zarr\('sections.zarr'\)"):
        sth.get.predictions("sections.zarr")


@pytest.mark.parametrize("read", [sth.get.predictions, sth.get.scores, sth.tl.evaluate, sth.pl.mean_variance])
def test_the_name_of_a_layer_is_told_from_a_key(parts, read):
    with pytest.raises(KeyError, match=r"is the name of a layer. Pass the key that it was predicted under: 'sthisto'"):
        read(parts["a"], key_added=prediction("sthisto"))


def test_layer_x_is_told_to_be_left_out(parts):
    with pytest.raises(KeyError, match="X is read without layer"):
        sth.tl.fit(parts["a"], method="color", layer="X")


def test_a_mapping_of_other_regions_lists_those_that_are_used(parts, model):
    with pytest.raises(KeyError, match=r"'liver' is not in the regions. Available: 'S1_spots'. Leave it out"):
        sth.tl.predict(parts["a"], model, um_per_px={"liver": 0.5})
