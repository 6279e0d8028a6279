"""Malformed arguments of every public function: errors of our own that say what was expected; nothing changes."""

from __future__ import annotations

import inspect

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from builders import with_own_tables
from spatialdata.models import TableModel
from spatialdata.transformations import Affine, Identity, set_transformation
from tissue import PATCH, Pool, make_tissue, mark_split

import sthisto as sth
from sthisto import benchmark

NAN, INF = float("nan"), float("inf")
QUICK = {"patch_size": PATCH, "n_top_genes": 8}
POSITIVE, WHOLE, FLAG = "must be positive: a finite number", "must be positive: a whole number", "must be True or False"
TEXT, SHARE = r"must be text \(a name\)", "a finite number of at least 0 and of at most 1"
NAMES, CHOICE, NEW = "a list of names", "it must be one of", "must be of letters, digits"
SEED = "a whole number of at least 0 and at most 4294967295"

TL = [
    ("fit", {"method": "nope"}, CHOICE),
    ("fit", {"method": None}, TEXT),
    ("fit", {"method": 3}, TEXT),
    ("fit", {"seed": -1}, SEED),
    ("fit", {"seed": 1.5}, SEED),
    ("fit", {"seed": None}, SEED),
    ("fit", {"seed": "0"}, r"pass seed=0 without quotation marks"),
    ("fit", {"seed": 2**40}, SEED),
    ("fit", {"patch_size": 0}, WHOLE),
    ("fit", {"patch_size": "16"}, "pass patch_size=16 without quotation marks"),
    ("fit", {"patch_size": 16.5}, WHOLE),
    ("fit", {"patch_size": True}, WHOLE),
    ("fit", {"patch_um": -3}, POSITIVE),
    ("fit", {"patch_um": NAN}, POSITIVE),
    ("fit", {"context": []}, "`context` is empty"),
    ("fit", {"context": (1, "2")}, "a list of positive numbers"),
    ("fit", {"context": 2}, "a list of positive numbers"),
    ("fit", {"context": (1, INF)}, "a list of positive numbers"),
    ("fit", {"genes": []}, "at least one gene"),
    ("fit", {"genes": 5}, "a list of at least one gene"),
    ("fit", {"genes": [None]}, "a list of at least one gene"),
    ("fit", {"genes": ["nope"]}, "not in the table: 'nope'"),
    ("fit", {"n_top_genes": -2}, WHOLE),
    ("fit", {"n_top_genes": NAN}, WHOLE),
    ("fit", {"layer": 0}, TEXT),
    ("fit", {"layer": "nope"}, "the layers of the table"),
    ("fit", {"target": "log2"}, CHOICE),
    ("fit", {"gene_flavor": "best"}, CHOICE),
    ("fit", {"key_added": "a b"}, NEW),
    ("fit", {"key_added": ""}, NEW),
    ("fit", {"key_added": None}, TEXT),
    ("fit", {"target": np.eye(2)}, CHOICE),
    ("fit", {"key_added": "a/b"}, NEW),
    ("fit", {"key_added": "x" * 300}, "more than a file name holds"),
    ("fit", {"image_key": 1}, TEXT),
    ("fit", {"image_key": ["A_image"]}, TEXT),
    ("fit", {"image_key": "nope"}, "nope"),
    ("fit", {"image_key": {"A": 1}}, "a mapping from region to name"),
    ("fit", {"image_key": {"Z": "A_image"}}, "the regions"),
    ("fit", {"shapes_key": []}, "`shapes_key` is empty"),
    ("fit", {"shapes_key": ["A", None]}, NAMES),
    ("fit", {"shapes_key": "Z"}, "the regions that the table annotates"),
    ("fit", {"table_key": b"counts"}, TEXT),
    ("fit", {"table_key": "nope"}, "the tables that annotate a region"),
    ("fit", {"coordinate_system": 4}, TEXT),
    ("fit", {"coordinate_system": "nope"}, "nope"),
    ("fit", {"um_per_px": 0}, POSITIVE),
    ("predict", {"um_per_px": 1e-300}, "from 0.001 to 100000"),
    ("fit", {"patch_um": 1e300}, "from 0.01 to 10000000"),
    ("fit", {"checkpoint": "é" * 300}, "a path"),
    ("fit", {"um_per_px": "0.5"}, "pass um_per_px=0.5 without quotation marks"),
    ("fit", {"um_per_px": {"A": -1}}, "a mapping from region to a positive number"),
    ("fit", {"um_per_px": [0.5]}, POSITIVE),
    ("fit", {"gene_symbols": 7}, TEXT),
    ("fit", {"gene_symbols": "nope"}, "the columns of var"),
    ("fit", {"checkpoint": 7}, "a path"),
    ("fit", {"checkpoint": ""}, "a path"),
    ("fit", {"image_encoder": Pool}, "the name of an image encoder, or a torch module"),
    ("fit", {"input_size": -3}, "'patch'"),
    ("fit", {"input_size": "whole"}, "'patch'"),
    ("fit", {"encoder_weights": 3}, "a path"),
    ("fit", {"encoder_layer": 2.5}, "the name or number of a layer"),
    ("fit", {"k": 2}, "Method 'color' has no option 'k'"),
    ("predict", {"model": None}, "must be a fitted model or the path of a saved one"),
    ("predict", {"model": 3}, "must be a fitted model or the path of a saved one"),
    ("predict", {"model": "nope.sthisto"}, "is no saved model"),
    ("predict", {"smooth": 1.5}, SHARE),
    ("predict", {"smooth": NAN}, SHARE),
    ("predict", {"smooth": "0.5"}, "without quotation marks"),
    ("predict", {"exclude": "sections"}, CHOICE),
    ("predict", {"exclude": 1}, CHOICE),
    ("predict", {"new_table_key": "a b"}, NEW),
    ("predict", {"new_table_key": "counts"}, "There is a table 'counts' already"),
    ("predict", {"new_table_key": "a_IMAGE"}, "There is an element 'A_image' already"),
    ("predict", {"new_table_key": 3}, TEXT),
    ("predict", {"key_added": "spatialdata_attrs"}, NEW),
    ("predict", {"genes": 3}, "a list of at least one gene"),
    ("predict", {"genes": ["nope"]}, "the model's genes"),
    ("predict", {"genes": "use"}, "Call sth.tl.assess"),
    ("predict", {"min_score": 2}, "of at most 1"),
    ("predict", {"min_score": 0.1}, "Call sth.tl.assess"),
    ("assess", {"model": None}, "must be a fitted model or the path of a saved one"),
    ("assess", {"groups": None}, TEXT),
    ("assess", {"groups": "nope"}, "the columns of obs"),
    ("assess", {"seeds": 0}, WHOLE),
    ("assess", {"n_folds": 1}, "a whole number of at least 2"),
    ("assess", {"n_boot": -1}, "a whole number of at least 0"),
    ("assess", {"out": 3}, "a path"),
    ("assess", {"counts_layer": "nope"}, "the layers of the table"),
    ("assess", {"shapes_key": "B"}, "trained on 'A', and `sdata` holds 'B'"),
    ("embed", {"genes": "yes"}, FLAG),
    ("embed", {"genes": None}, FLAG),
    ("embed", {}, "Method 'color' has no embedding"),
    ("predict_between", {"factor": 2.5}, WHOLE),
    ("predict_between", {"factor": 0}, WHOLE),
    ("predict_between", {}, "does not predict between spots"),
    ("predict_between", {"new_table_key": None}, TEXT),
    ("evaluate", {"n_boot": -1}, "a whole number of at least 0"),
    ("evaluate", {"n_splits": 0}, WHOLE),
    ("evaluate", {"seed": "a"}, SEED),
    ("evaluate", {"counts_layer": 3}, TEXT),
    ("evaluate", {"key_added": "nope"}, "Call sth.tl.predict"),
    ("evaluate", {"prediction": 3}, "an AnnData of the predicted spots"),
    ("evaluate", {"prediction": "theirs.h5ad"}, "'layer:NAME', 'table:NAME' or an AnnData"),
    ("evaluate", {"prediction": "layer:nope"}, "in the layers"),
    ("evaluate", {"prediction": "layer:sthisto_pred", "target": "log2"}, CHOICE),
    ("cluster", {"key_added": "region"}, "links the spots to their region"),
    ("cluster", {"key_added": "instance"}, "links the spots to their shapes"),
    ("cluster", {"key_added": "Region"}, "upper and lower case alone"),
    ("cluster", {"key_added": "in_tissue"}, "says where the spots lie"),
    ("cluster", {"method": "louvain"}, CHOICE),
    ("cluster", {"method": None}, CHOICE),
    ("cluster", {"n_clusters": 2.5}, WHOLE),
    ("cluster", {"n_clusters": -1}, WHOLE),
    ("cluster", {"seed": True}, SEED),
    ("cross_validate", {"methods": []}, "`methods` is empty"),
    ("cross_validate", {"methods": "nope"}, CHOICE),
    ("cross_validate", {"methods": ["mean", 3]}, NAMES),
    ("cross_validate", {"seeds": 0}, WHOLE),
    ("cross_validate", {"seeds": 1.5}, WHOLE),
    ("cross_validate", {"n_folds": 1}, "a whole number of at least 2"),
    ("cross_validate", {"groups": None}, TEXT),
    ("cross_validate", {"groups": "nope"}, "the columns of obs"),
    ("cross_validate", {"options": {"mean": 3}}, "a mapping from method to a mapping of its options"),
    ("cross_validate", {"options": [("mean", {})]}, "a mapping from method to a mapping of its options"),
    ("cross_validate", {"methods": ["mean", "color"], "options": {"color": {"kk": 1}}}, "has no option 'kk'"),
    ("cross_validate", {"methods": ["mean", "danet"], "options": {"danet": {"max_epochs": 0}}}, WHOLE),
    ("cross_validate", {"patch_size": -1}, WHOLE),
    ("cross_validate", {"seed": 3}, "`seed` is no argument here"),
    ("cross_validate", {"out": 3}, "a path"),
    ("learning_curve", {"by": "cells"}, CHOICE),
    ("learning_curve", {"sizes": "half"}, "a list of numbers"),
    ("learning_curve", {"repeats": 0}, WHOLE),
    ("learning_curve", {"options": 3}, "a mapping of options"),
]
PP = [
    ("split", {"by": "slide"}, CHOICE),
    ("split", {"by": None}, CHOICE),
    ("split", {"test": 1.5}, "a share between 0 and 1"),
    ("split", {"test": NAN}, "a share between 0 and 1"),
    ("split", {"test": None}, "a share between 0 and 1"),
    ("split", {"calibration": INF}, "a share from 0 to below 1"),
    ("split", {"test": ["Z"]}, "the sections"),
    ("split", {"validation": 1}, "below 1"),
    ("split", {"validation": -0.1}, "of at least 0"),
    ("split", {"by": "block", "margin": NAN}, "a finite number of at least 0"),
    ("split", {"by": "block", "margin": INF}, "a finite number of at least 0"),
    ("split", {"margin": 5}, "for by='block' alone"),
    ("split", {"patient_key": "nope"}, "the columns of obs"),
    ("split", {"seed": -1}, SEED),
    ("normalize", {"target": "log"}, CHOICE),
    ("normalize", {"target_sum": INF}, POSITIVE),
    ("normalize", {"target_sum": 0}, POSITIVE),
    ("normalize", {"target_sum": "1e4"}, "pass target_sum=1e4 without quotation marks"),
    ("normalize", {"key_added": "a/b"}, NEW),
    ("normalize", {"key_added": 3}, TEXT),
    ("normalize", {"layer": "nope"}, "the layers of the table"),
    ("select_genes", {"n_top_genes": 0}, WHOLE),
    ("select_genes", {"n_top_genes": "many"}, WHOLE),
    ("select_genes", {"flavor": None}, CHOICE),
    ("select_genes", {"genes": {"gene0": 1}}, "a list of at least one gene"),
    ("nuclei", {"method": "unet"}, CHOICE),
    ("nuclei", {"um_per_px": 0}, POSITIVE),
    ("nuclei", {"image_key": "nope", "um_per_px": 1}, "the images of the SpatialData"),
    ("quality", {"min_quality": 2}, SHARE),
    ("quality", {"width_um": 0}, "a finite number above 0 and of at most 10000"),
    ("quality", {"width_um": "100"}, "pass width_um=100 without quotation marks"),
    ("tissue_grid", {"pitch_um": -1}, POSITIVE),
    ("tissue_grid", {"min_quality": -1}, SHARE),
    ("tissue_grid", {"diameter_um": "55"}, "pass diameter_um=55 without quotation marks"),
    ("tissue_grid", {"least_tissue": 2}, SHARE),
    ("tissue_grid", {"um_per_px": {"A": 1}}, POSITIVE),
    ("tissue_grid", {"image_key": "nope", "um_per_px": 1}, "the images of the SpatialData"),
    ("tissue_grid", {"image_key": "A_image", "um_per_px": 1, "key_added": "counts"}, "There is an element 'counts'"),
]
READ = [
    (benchmark.leaderboard, {"predictions": {"a": np.zeros((2, 2))}}, "'layer:NAME', 'table:NAME' or an AnnData"),
    (sth.get.scores, {"by": "spot"}, CHOICE),
    (sth.get.scores, {"key_added": []}, "`key_added` is empty"),
    (sth.get.scores, {"key_added": 3}, NAMES),
    (sth.get.scores, {"key_added": "nope"}, "Nothing was predicted under key_added='nope'"),
    (sth.get.predictions, {"genes": 3}, "a list of at least one gene"),
    (sth.get.predictions, {"genes": "nope"}, "not in the table: 'nope'"),
    (sth.get.predictions, {"gene_symbols": 3}, TEXT),
    (sth.get.neighbors, {"model": None}, "must be a fitted model or the path of a saved one"),
    (sth.get.neighbors, {"exclude": "sections"}, CHOICE),
    (sth.pl.gene_compare, {"genes": []}, "`genes` is empty"),
    (sth.pl.gene_compare, {"genes": None}, "a list of at least one gene"),
    (sth.pl.gene_compare, {"genes": "gene1", "vmin": NAN}, "a finite number"),
    (sth.pl.gene_compare, {"genes": "gene1", "cmap": "nope"}, "a color map of matplotlib"),
    (sth.pl.gene_compare, {"genes": "gene1", "figsize": 3}, "width and height in inches"),
    (sth.pl.gene_compare, {"genes": "gene1", "figsize": (3, -1)}, "width and height in inches"),
    (sth.pl.gene_compare, {"genes": "gene1", "dpi": 0}, POSITIVE),
    (sth.pl.gene_compare, {"genes": "gene1", "ax": 3}, "axes of matplotlib"),
    (sth.pl.gene_compare, {"genes": "gene1", "difference": "no"}, FLAG),
    (sth.pl.gene_compare, {"genes": "gene1", "layers": 3}, NAMES),
    (sth.pl.gene_compare, {"genes": "gene1", "image_alpha": 3}, SHARE),
    (sth.pl.clusters, {"columns": 3}, NAMES),
    (sth.pl.clusters, {"columns": "nope"}, "obs has no column 'nope'"),
    (sth.pl.clusters, {"show_image": None}, FLAG),
    (sth.pl.scores, {"metric": "rmse"}, CHOICE),
    (sth.pl.history, {"ax": [1]}, "the axes of matplotlib to draw into"),
    (sth.pl.mean_variance, {"sections": 3}, NAMES),
    (sth.pl.gene_correlation, {"genes": [1, 2]}, "a list of at least one gene"),
    (sth.pl.uncertainty, {"key_added": None}, NAMES),
    (sth.pl.neighbors, {"spot": 3, "model": None}, TEXT),
    (sth.pl.neighbors, {"spot": "spot0", "model": None, "n_neighbors": 0}, WHOLE),
    (sth.pl.neighbors, {"spot": "spot0", "model": {}}, "must be a fitted model"),
]
X = np.arange(12.0).reshape(4, 3) ** 1.5
M = sth.metrics
METRICS = [
    (M.pearson, {"truth": None, "prediction": X}, r"`truth` must have the shape \(n_spots, n_genes\)"),
    (M.pearson, {"truth": [[1], [1, 2]], "prediction": X}, "`truth` is not rectangular"),
    (M.pearson, {"truth": X, "prediction": X[:2]}, "must have the same spots and genes"),
    (M.pearson, {"truth": X, "prediction": X.astype(str)}, "`prediction` must hold real numbers"),
    (M.rmse, {"truth": X, "prediction": "x"}, "`prediction` must have the shape"),
    (M.auc, {"truth": X, "prediction": X, "threshold": NAN}, "a finite number"),
    (M.mutual_information, {"truth": X, "prediction": X, "n_bins": 2.5}, "a whole number of at least 2"),
    (M.pearson_residuals, {"counts": -X}, "must be raw counts"),
    (M.pearson_residuals, {"counts": X, "theta": "100"}, "pass theta=100 without quotation marks"),
    (M.pearson_residuals, {"counts": X, "clip": -1}, POSITIVE),
    (M.pearson_residuals, {"counts": X, "totals": [1]}, "one value for each of the 4 spots"),
    (M.reproducibility, {"counts": X, "n_splits": 0}, WHOLE),
    (M.reproducibility, {"counts": X, "interval": 1}, "above 0 and below 1"),
    (M.cluster, {"prediction": X, "n_clusters": "two"}, WHOLE),
    (M.cluster, {"prediction": X, "n_clusters": 2, "method": "ward"}, CHOICE),
    (M.cluster, {"prediction": X, "n_clusters": 2, "resolution": 0}, POSITIVE),
    (M.spatial_graph, {"coordinates": X}, r"\(n_spots, 2\)"),
    (M.spatial_graph, {"coordinates": X[:, :2].astype(str)}, "`coordinates` must hold real numbers"),
    (M.spatial_graph, {"coordinates": X[:, :2], "n_neighbors": 0}, WHOLE),
    (M.spatial_blocks, {"coordinates": X[:, :2], "size": INF}, POSITIVE),
    (M.morans_i, {"values": X, "graph": None}, "`graph` must have the shape"),
    (M.ssim, {"truth": X, "prediction": X, "graph": np.eye(3)}, "`graph` must have the shape"),
    (M.bootstrap_pearson, {"truth": X, "predictions": X, "blocks": [0, 0, 1, 1]}, "a mapping from method"),
    (M.bootstrap_pearson, {"truth": X, "predictions": {"a": X}, "blocks": [0, 0, 1, 1], "n_boot": 0}, WHOLE),
    (
        M.paired_difference,
        {"truth": X, "predictions": {"a": X}, "blocks": [0, 0, 1, 1], "reference": "a", "level": 2},
        "below 1",
    ),
    (M.per_section, {"metric": M.pearson, "truth": X, "prediction": X, "section": [1, 2]}, "one value for each"),
    (
        M.per_section,
        {"metric": M.pearson, "truth": X, "prediction": X, "section": list("aabb"), "spotwise": 3},
        "a mapping from argument",
    ),
]
OTHERS = [
    (sth.datasets.synthetic, {"n_spots": "many"}, WHOLE),
    (sth.datasets.synthetic, {"n_sections": 0}, WHOLE),
    (sth.datasets.synthetic, {"n_sections": 1, "n_patients": 2}, "Give every patient a section"),
    (sth.datasets.synthetic, {"um_per_px": 10**30}, "of at most 100"),
    (sth.datasets.synthetic, {"seed": None}, SEED),
    (sth.datasets.her2st, {"path": 3}, "a path"),
    (sth.datasets.her2st, {"sections": 3}, NAMES),
    (sth.datasets.hest, {"path": None}, "a path"),
    (sth.datasets.liver, {"path": []}, "a path"),
    (sth.models.load, {"path": 3}, "a path"),
    (sth.models.load, {"path": "nope"}, "is no saved model"),
    (sth.models.load_encoder, {"image_encoder": 3}, "the name of an image encoder, or a torch module"),
    (sth.models.load_encoder, {"image_encoder": "no-such-net"}, "has no image encoder 'no-such-net'"),
    (sth.models.load_encoder, {"image_encoder": Pool(), "input_size": 0}, "'patch'"),
    (sth.io.from_anndata, {"adata": ad.AnnData(X), "table_key": "a b"}, NEW),
    (sth.io.from_anndata, {"adata": ad.AnnData(X), "spot_diameter": -1}, POSITIVE),
    (sth.io.from_anndata, {"adata": ad.AnnData(X), "check_image": "no"}, FLAG),
    (sth.io.from_anndata, {"adata": ad.AnnData(X), "library_id": {}}, NAMES),
    (benchmark.Protocol, {"dataset": "nope", "methods": ("mean",)}, CHOICE),
    (benchmark.Protocol, {"dataset": "her2st", "methods": "mean"}, "a list"),
    (benchmark.Protocol, {"dataset": "her2st", "methods": ("danet:k=2.5",)}, WHOLE),
    (benchmark.Protocol, {"dataset": "her2st", "methods": ("ridge:colors=maybe",)}, FLAG),
    (benchmark.Protocol, {"dataset": "her2st", "methods": ("mean",), "seeds": 0}, "must be positive"),
    (benchmark.comparison_table, {"scores": pd.DataFrame()}, "has no columns 'genes', 'method', 'metric'"),
    (benchmark.comparison_table, {"scores": [1]}, "has no columns"),
    (sth.pp.tissue_grid, {"sdata": NAN}, "must be a SpatialData"),
    (benchmark.run, {"sdata": None, "protocol": "her2st", "out": "x"}, "a sthisto.benchmark.Protocol"),
    (benchmark.compare, {"sdata": None, "protocols": ["x"], "out": "x"}, "a list of sthisto.benchmark.Protocol"),
]
OPTIONS = [
    ("danet", {"max_epochs": 0}, WHOLE),
    ("danet", {"max_epochs": "5"}, "pass max_epochs=5 without quotation marks"),
    ("danet", {"learning_rate": 0}, POSITIVE),
    ("danet", {"learning_rate": NAN}, POSITIVE),
    ("danet", {"weight_decay": -1}, "a finite number of at least 0"),
    ("danet", {"precision": "foo"}, CHOICE),
    ("danet", {"precision": None}, CHOICE),
    ("danet", {"k": 2.5}, WHOLE),
    ("danet", {"k": None}, WHOLE),
    ("danet", {"dropout": 1}, "below 1"),
    ("danet", {"temperature": INF}, POSITIVE),
    ("danet", {"finetune": "False"}, "pass finetune=False without quotation marks"),
    ("danet", {"augment": 1}, FLAG),
    ("danet", {"stain_jitter": -0.1}, "must be a finite number and not be negative"),
    ("danet", {"objective": "mse"}, CHOICE),
    ("danet", {"batch_correction": "combat"}, CHOICE),
    ("danet", {"batch_by": ["section"]}, CHOICE),
    ("danet", {"devices": 99}, "pass devices=[0-9]+ or fewer|Pass devices="),
    ("danet", {"devices": 0}, "a number of devices"),
    ("danet", {"devices": "some"}, "a number of devices or 'auto'"),
    ("danet", {"strategy": "foo"}, CHOICE),
    ("danet", {"n_models": 1}, "at least 2"),
    ("danet", {"n_models": 2.5}, WHOLE),
    ("bleep", {"bottleneck": 3}, "Method 'bleep' has no option 'bottleneck'"),
    ("bleep", {"patience": -1}, WHOLE),
    ("stnet", {"symmetries": "yes"}, FLAG),
    ("histogene", {"width": 0}, WHOLE),
    ("ridge", {"colors": "False"}, "pass colors=False without quotation marks"),
    ("ridge", {"n_components": NAN}, WHOLE),
    ("knn", {"aggregation": "median"}, CHOICE),
    ("hybrid", {"ridge_weight": 1}, "between 0 and 1"),
    ("hybrid", {"residuals": None}, FLAG),
    ("mean", {"k": 3}, "has no option 'k'"),
]
N_MALFORMED = sum(map(len, (TL, PP, READ, METRICS, OTHERS, OPTIONS)))


def _name(value):
    return None if isinstance(value, str | dict) else getattr(value, "__name__", None)


@pytest.fixture(scope="module")
def whole():
    """Two sections with a prediction, scores and clusters, and the model."""
    sdata = make_tissue()
    mark_split(sdata, {"A": "train", "B": "test"})
    model = sth.tl.fit(sdata, method="color", **QUICK)
    sth.tl.predict(sdata, model)
    sth.tl.evaluate(sdata, n_splits=2, n_boot=10)
    sth.tl.cluster(sdata, method="kmeans", n_clusters=2)
    return sdata, model


@pytest.fixture
def scored(whole):
    """The same, with a table of its own."""
    sdata, model = whole
    return with_own_tables(sdata), model


def state(sdata):
    """Everything that a call could change."""
    table = sdata["counts"]
    parts = {name: set(getattr(table, name)) for name in ("uns", "obsm", "layers")}
    frames = pd.concat([table.obs.astype(str).reset_index(), table.var.astype(str).reset_index()], axis=1)
    return parts, frames.to_csv(), sorted(name for _, name, _ in sdata.gen_elements()), repr(sdata.attrs)


def refused(function, arguments, phrase):
    with pytest.raises((TypeError, ValueError, KeyError, FileNotFoundError), match=phrase) as caught:
        function(**arguments)
    assert "/site-packages/" not in str(caught.traceback[-1].path)


def test_there_are_at_least_150_malformed_inputs():
    assert N_MALFORMED >= 150


@pytest.mark.parametrize(("name", "arguments", "phrase"), TL)
def test_tools_refuse_and_leave_the_data_alone(scored, tmp_path, monkeypatch, name, arguments, phrase):
    monkeypatch.chdir(tmp_path)
    sdata, model = scored
    usual = {
        "fit": {"method": "color", **QUICK},
        "predict": {"model": model},
        "assess": {"model": model},
        "embed": {"model": model},
        "predict_between": {"model": model},
        "cluster": {"method": "kmeans", "n_clusters": 2},
        "cross_validate": {"methods": "mean", "groups": "section", "seeds": 1, **QUICK},
        "learning_curve": {"method": "mean", "groups": "section", **QUICK},
    }.get(name, {})
    before = state(sdata)
    refused(getattr(sth.tl, name), {"sdata": sdata, **usual, **arguments}, phrase)
    assert state(sdata) == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "arguments", "phrase"), PP)
def test_preprocessing_refuses_and_leaves_the_data_alone(scored, name, arguments, phrase):
    sdata, _ = scored
    usual = {"by": "section", "test": 0.5} if name == "split" else {}
    before = state(sdata)
    refused(getattr(sth.pp, name), {"sdata": sdata, **usual, **arguments}, phrase)
    assert state(sdata) == before


@pytest.mark.parametrize(("function", "arguments", "phrase"), READ, ids=_name)
def test_readers_and_plots_refuse_and_close_their_figure(scored, function, arguments, phrase):
    sdata, _ = scored
    before, figures = state(sdata), plt.get_fignums()
    refused(function, {"sdata": sdata, **arguments}, phrase)
    assert state(sdata) == before
    assert plt.get_fignums() == figures


@pytest.mark.parametrize(("function", "arguments", "phrase"), METRICS + OTHERS, ids=_name)
def test_functions_without_data_refuse(function, arguments, phrase):
    refused(function, arguments, phrase)


@pytest.mark.parametrize(("method", "options", "phrase"), OPTIONS)
def test_options_are_checked_before_any_pixel_is_read(scored, monkeypatch, method, options, phrase):
    sdata, _ = scored
    monkeypatch.setattr("sthisto._images.patches.PatchSource.batches", lambda *_: pytest.fail("a pixel was read"))
    refused(sth.tl.fit, {"sdata": sdata, "method": method, "image_encoder": Pool(), **QUICK, **options}, phrase)


@pytest.mark.parametrize(
    "sdata", [None, "sections.zarr", 3, [], [None], ad.AnnData(X), np.zeros(3), {"a": 1}, pd.DataFrame()], ids=repr
)
@pytest.mark.parametrize("function", [sth.tl.evaluate, sth.pp.normalize, sth.get.scores, sth.pl.scores, sth.tl.cluster])
def test_what_is_no_spatialdata_is_refused(function, sdata):
    refused(function, {"sdata": sdata}, "SpatialData")


SINGULAR = np.diag([1.0, 0.0, 1.0])


@pytest.mark.parametrize("matrix", [SINGULAR, np.diag([1, NAN, 1]), np.diag([INF, 1, 1])], ids=["flat", "nan", "inf"])
@pytest.mark.parametrize("element", ["A", "A_image"])
def test_a_transformation_without_inverse_is_named(scored, matrix, element):
    sdata, model = make_tissue(), scored[1]
    set_transformation(sdata[element], Affine(matrix, ("x", "y"), ("x", "y")), "A_slide")
    with pytest.raises(ValueError, match=rf"transformation of (image|region) '{element}' to 'A_slide'.*must be finite"):
        sth.tl.predict(sdata, model)


@pytest.mark.parametrize(
    ("attrs", "phrase"),
    [
        ({"sthisto": 3}, "must be a mapping, found 3"),
        ({"sthisto": {"um_per_unit": 0.5}}, "a mapping from coordinate system"),
        ({"sthisto": {"um_per_unit": {"A_slide": "half"}}}, "must be a positive number"),
        ({"sthisto": {"um_per_unit": {"A_slide": -1}}}, "must be positive"),
        ({"sthisto": {"allow_outside": "no"}}, FLAG),
        ({"sthisto": {"check_image": 2}}, FLAG),
    ],
)
def test_attributes_of_another_form_are_refused(attrs, phrase):
    sdata = make_tissue()
    sdata.attrs = attrs
    refused(sth.tl.cluster, {"sdata": sdata, "method": "kmeans", "n_clusters": 2}, phrase)


@pytest.mark.parametrize("column", ["region", "instance"])
def test_a_table_without_its_columns_is_refused(column):
    sdata = make_tissue()
    del sdata["counts"].obs[column]
    refused(sth.pp.normalize, {"sdata": sdata}, rf"names obs\['{column}'\] as {column}_key, which is not there")


@pytest.mark.parametrize(
    "attrs", [None, {}, {"region": "A"}, {"region": 3, "region_key": "region", "instance_key": "x"}]
)
def test_a_table_that_annotates_in_another_form_is_refused(attrs):
    sdata = make_tissue()
    sdata["counts"].uns[TableModel.ATTRS_KEY] = attrs
    refused(sth.pp.normalize, {"sdata": sdata}, "uns.'spatialdata_attrs'. of table 'counts'|must be")


#: What methods are written with; their arguments are modules, tensors and classes.
FOR_METHODS = {"extract", "register", "train"}
#: Arguments that are checked inside: data, models and arrays.
INSIDE = {
    *("sdata", "model", "reference", "adata", "wsi", "image", "table", "scores", "score", "metric", "residuals"),
    *(
        "truth",
        "prediction",
        "target",
        "counts",
        "totals",
        "set_weights",
        "covariates",
        "labels",
        "blocks",
        "section",
        "x",
        "values",
    ),
    *("coordinates", "graph"),
}


@pytest.mark.parametrize("room", ["tl", "pp", "pl", "get", "io", "metrics", "datasets", "models", "benchmark"])
def test_every_argument_of_every_public_function_is_checked(room):
    module = getattr(sth, room)
    unchecked = [
        f"{name}({argument.name})"
        for name in module.__all__
        if inspect.isfunction(function := getattr(module, name)) and name not in FOR_METHODS
        for argument in inspect.signature(function).parameters.values()
        if argument.kind is not argument.VAR_KEYWORD
        and argument.name not in getattr(function, "checks", {})
        and argument.name not in INSIDE
    ]
    assert not unchecked


def test_a_model_may_be_given_by_its_path(scored, tmp_path):
    sdata, model = scored
    model.save(tmp_path / "model.sthisto")
    expected = sdata["counts"].layers["sthisto_pred"].copy()
    sth.tl.predict(sdata, str(tmp_path / "model.sthisto"), key_added="again")
    np.testing.assert_array_equal(sdata["counts"].layers["again_pred"], expected)


def test_a_name_that_somebody_else_uses_in_uns_is_left_alone(scored):
    sdata, model = scored
    sdata["counts"].uns["neighbors"] = {"params": {"n_neighbors": 15}}
    refused(sth.tl.predict, {"sdata": sdata, "model": model, "key_added": "neighbors"}, "sthisto did not write")
    assert sdata["counts"].uns["neighbors"] == {"params": {"n_neighbors": 15}}


def test_a_layer_of_counts_is_not_overwritten(scored):
    sdata, _ = scored
    sdata["counts"].layers["umi"] = sdata["counts"].X.copy()
    refused(sth.pp.normalize, {"sdata": sdata, "key_added": "umi"}, "holds raw counts, which would be lost")


def test_an_identity_is_no_fault(scored):
    sdata, model = make_tissue(), scored[1]
    set_transformation(sdata["A"], Identity(), "other")
    sth.tl.predict(sdata, model)
