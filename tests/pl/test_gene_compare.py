from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import EllipseCollection

import sthisto as sth


def panels(figure):
    return [ax for ax in figure.axes if ax.get_title()]


def titles(figure):
    return [ax.get_title() for ax in panels(figure)]


def spots(ax):
    return next(child for child in ax.get_children() if isinstance(child, EllipseCollection))


def texts(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def log1p_cp10k(table, gene):
    counts = table.X.toarray()
    return np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)[:, table.var_names.get_loc(gene)]


def test_one_gene_is_measured_predicted_and_image(sdata):
    figure = sth.pl.gene_compare(sdata, "FN1", sections="left")
    table = sdata["spots"][sdata["spots"].obs["region"] == "left"]
    truth, guess = log1p_cp10k(table, "FN1"), np.asarray(table[:, "FN1"].layers["sthisto_pred"]).ravel()
    score = np.corrcoef(truth, guess)[0, 1]
    assert titles(figure) == ["Measured", f"DANet, PCC {score:.2f}", "H&E"]
    measured, predicted, _ = panels(figure)
    np.testing.assert_allclose(np.sort(spots(measured).get_array()), np.sort(truth), rtol=1e-5)
    np.testing.assert_array_equal(np.sort(spots(predicted).get_array()), np.sort(guess))


@pytest.mark.parametrize("target", ["log1p", "as_is"])
def test_prediction_without_measurement_is_drawn_alone_and_has_no_score(sdata, target):
    table = sdata["spots"]
    table.X = table.layers["sthisto_pred"].copy()
    table.uns["sthisto"] |= {"holds_measurement": False}
    table.uns["sthisto"]["normalization"] = {"target": target, "layer": "X", "target_sum": 1e4}
    del table.uns["bleep"]
    assert titles(sth.pl.gene_compare(sdata, "FN1", sections="left", show_measured=False)) == ["DANet", "H&E"]
    for arguments in ({}, {"show_measured": False, "difference": True}):
        with pytest.raises(ValueError, match=r"nothing was measured there.*show_measured=False"):
            sth.pl.gene_compare(sdata, "FN1", **arguments)
    with pytest.raises(ValueError, match="nothing was measured there"):
        sth.pl.mean_variance(sdata)


def test_each_value_lies_on_its_own_spot_in_image_pixels(sdata):
    figure = sth.pl.gene_compare(sdata, "FN1", sections="right")
    drawn = spots(panels(figure)[0])
    table = sdata["spots"][sdata["spots"].obs["region"] == "right"]
    circles = sdata["right"].loc[table.obs["instance"]]
    expected = np.c_[circles.geometry.x, circles.geometry.y, log1p_cp10k(table, "FN1")]
    found = np.c_[drawn.get_offsets(), drawn.get_array()]
    np.testing.assert_allclose(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)], rtol=1e-4)


def test_y_points_down_and_nothing_is_mirrored(sdata):
    for ax in panels(sth.pl.gene_compare(sdata, "FN1")):
        left, right = ax.get_xlim()
        bottom, top = ax.get_ylim()
        assert left < right
        assert top < bottom
        x0, x1, y1, y0 = ax.images[0].get_extent()
        assert x0 < x1
        assert y0 < y1


def test_image_under_a_spot_is_the_tissue_at_its_center(sdata):
    ax = panels(sth.pl.gene_compare(sdata, "FN1", sections="left"))[-1]
    picture = ax.images[0]
    left, right, bottom, top = picture.get_extent()
    pixels = picture.get_array()
    table = sdata["spots"][sdata["spots"].obs["region"] == "left"]
    for instance, annotation in zip(table.obs["instance"], table.obs["annotation"], strict=True):
        point = sdata["left"].geometry[instance]
        row = int((point.y - top) / (bottom - top) * pixels.shape[0])
        column = int((point.x - left) / (right - left) * pixels.shape[1])
        assert (pixels[row, column, 0] < 180) == (annotation == "tumor")


def test_spots_have_their_true_width(sdata):
    figure = sth.pl.gene_compare(sdata, "FN1", sections="left")
    figure.canvas.draw()
    ax = panels(figure)[0]
    drawn = (spots(ax).get_transform().get_matrix() @ spots(ax).get_transforms()[0])[0, 0]  # of a circle of radius 1
    px_per_unit = ax.transData.transform((1, 0))[0] - ax.transData.transform((0, 0))[0]
    assert drawn == pytest.approx(12 * px_per_unit)


def test_a_gene_has_one_robust_scale_over_keys_and_sections(sdata):
    figure = sth.pl.gene_compare(sdata, ["FN1", "SCD"], key_added=["sthisto", "bleep"])
    by_gene = [[spots(ax) for ax in panels(figure)[start : start + 8] if ax.get_title() != "H&E"] for start in (0, 8)]
    limits = [{collection.get_clim() for collection in gene} for gene in by_gene]
    assert [len(one) for one in limits] == [1, 1]
    assert limits[0] != limits[1]
    drawn = np.concatenate([np.asarray(collection.get_array()) for collection in by_gene[0]])
    np.testing.assert_allclose(next(iter(limits[0])), np.quantile(drawn, [0.01, 0.99]), rtol=1e-5)


def test_given_limits_and_color_map_are_used(sdata):
    figure = sth.pl.gene_compare(sdata, "FN1", sections="left", vmin=1, vmax=9, cmap="magma", dpi=77, figsize=(9, 3))
    assert spots(panels(figure)[0]).get_clim() == (1, 9)
    assert spots(panels(figure)[0]).get_cmap().name == "magma"
    assert figure.dpi == 77
    np.testing.assert_allclose(figure.get_size_inches(), (9, 3))


def test_difference_and_spread_are_drawn_for_each_key(sdata):
    figure = sth.pl.gene_compare(
        sdata, "FN1", sections="left", key_added=["sthisto", "bleep"], difference=True, uncertainty=True
    )
    by_title = {ax.get_title().replace("\n", " ").split(", PCC")[0]: spots(ax) for ax in panels(figure)[:-1]}
    assert list(by_title) == [
        "Measured",
        "DANet",
        "BLEEP",
        "DANet minus measured",
        "BLEEP minus measured",
        "DANet, spread",
        "BLEEP, spread",
    ]
    difference = by_title["DANet minus measured"]
    np.testing.assert_allclose(difference.get_array(), by_title["DANet"].get_array() - by_title["Measured"].get_array())
    low, high = difference.get_clim()
    assert low == -high
    assert by_title["DANet, spread"].get_clim()[0] == 0


def test_further_layers_stand_beside_the_predictions(sdata):
    sdata["spots"].layers["other"] = sdata["spots"].layers["bleep_pred"]
    figure = sth.pl.gene_compare(sdata, "FN1", sections="left", layers={"other": "Tangram"})
    assert [title.split(",")[0] for title in titles(figure)] == ["Measured", "DANet", "Tangram", "H&E"]


def test_scale_bar_has_a_round_length_in_um(sdata):
    ax = panels(sth.pl.gene_compare(sdata, "FN1", sections="left"))[-1]
    (bar,) = (
        artist for artist in ax.get_children() if artist.get_gid() == "scale bar" and hasattr(artist, "get_xdata")
    )
    left, right = ax.get_xlim()
    assert np.ptp(bar.get_xdata()) * (right - left) * 2.0 == pytest.approx(200)  # 2 µm per px
    assert "200 µm" in [text.get_text() for text in ax.texts]


def test_scale_bar_is_in_pixels_where_um_are_unknown(sdata):
    del sdata.attrs["sthisto"]
    assert "100 px" in texts(sth.pl.gene_compare(sdata, "FN1", sections="left"))


def test_score_is_over_test_spots_and_training_spots_are_named(sdata):
    table = sdata["spots"]
    split = table.obs["sthisto_split"].astype(str).to_numpy()
    half = np.flatnonzero(split == "test")[::2]
    split[half] = "train"
    table.obs["sthisto_split"] = split
    tested = table[split == "test"]
    score = np.corrcoef(log1p_cp10k(tested, "FN1"), tested[:, "FN1"].layers["sthisto_pred"].ravel())[0, 1]
    left, right = titles(sth.pl.gene_compare(sdata, "FN1"))[1::3]
    assert left == f"DANet, PCC {score:.2f}"
    assert right.replace("\n", " ").endswith("(trained on)")


def test_a_section_outside_the_split_is_not_said_to_be_trained_on(sdata):
    """Its model has not seen it, but no spot of it was set aside as a test either."""
    table = sdata["spots"]
    table.obs["sthisto_split"] = np.where(table.obs["region"].astype(str) == "left", "test", "")
    assert table.obs.loc[table.obs["region"] == "right", "sthisto_seen"].all()
    _, right = titles(sth.pl.gene_compare(sdata, "FN1"))[1::3]
    assert right.replace("\n", " ").endswith("(trained on)")
    table.obs["sthisto_seen"] = 0.0
    left, right = titles(sth.pl.gene_compare(sdata, "FN1"))[1::3]
    assert "(" not in left
    assert right.replace("\n", " ").endswith("(no test spots)")


def test_constant_prediction_has_no_score(sdata):
    sdata["spots"].layers["sthisto_pred"][:] = 1
    assert titles(sth.pl.gene_compare(sdata, "FN1", sections="left"))[1] == "DANet, PCC undefined"


def test_sections_without_prediction_are_left_out(sdata):
    sdata["spots"].layers["sthisto_pred"][sdata["spots"].obs["region"] == "right"] = np.nan
    assert len(panels(sth.pl.gene_compare(sdata, "FN1"))) == 3
    with pytest.raises(ValueError, match=r"No spot of 'right'.*sth\.tl\.predict"):
        sth.pl.gene_compare(sdata, "FN1", sections=["left", "right"])


def test_spots_without_prediction_are_not_drawn(sdata):
    rows = np.flatnonzero(sdata["spots"].obs["region"] == "left")[:10]
    sdata["spots"].layers["sthisto_pred"][rows] = np.nan
    figure = sth.pl.gene_compare(sdata, "FN1", sections="left")
    n_measured, n_predicted = (len(spots(ax).get_offsets()) for ax in panels(figure)[:2])
    assert n_measured - n_predicted == 10


def test_many_genes_stand_side_by_side_with_the_image_once(sdata):
    figure = sth.pl.gene_compare(sdata, list(sdata["spots"].var_names), sections="left")
    assert titles(figure).count("H&E") == 1
    assert titles(figure).count("Measured") == 8
    width, height = figure.get_size_inches()
    assert 0.5 < height / width < 2.5


def test_panels_and_their_texts_do_not_overlap(sdata):
    figure = sth.pl.gene_compare(sdata, ["FN1", "GNAS"], key_added=["sthisto", "bleep"], difference=True)
    renderer = figure.canvas.get_renderer()
    figure.canvas.draw()
    boxes = [ax.get_tightbbox(renderer).padded(-1) for ax in panels(figure)]
    overlapping = [(i, j) for i, a in enumerate(boxes) for j, b in enumerate(boxes[:i]) if a.overlaps(b)]
    assert not overlapping
    assert all(figure.bbox.padded(1).contains(*corner) for box in boxes for corner in (box.min, box.max))


def test_draws_into_given_axes(sdata):
    figure, axes = plt.subplots(1, 3)
    assert sth.pl.gene_compare(sdata, "FN1", sections="left", ax=axes) is figure
    assert [ax.get_title().split(",")[0] for ax in axes] == ["Measured", "DANet", "H&E"]
    _, single = plt.subplots()
    sth.pl.gene_compare(sdata, "FN1", sections="left", ax=single, show_measured=False, show_image=False)
    assert single.get_title().startswith("DANet")
    with pytest.raises(ValueError, match="1 axes for 1 x 3 panels"):
        sth.pl.gene_compare(sdata, "FN1", sections="left", ax=single)


def test_spots_are_rasterised_in_vector_output(sdata, tmp_path):
    figure = sth.pl.gene_compare(sdata, "FN1", sections="left")
    assert all(spots(ax).get_rasterized() for ax in panels(figure)[:2])
    figure.savefig(tmp_path / "figure.svg")
    assert (tmp_path / "figure.svg").read_text().count("<image") >= 4


def test_very_many_spots_become_one_picture(sdata, monkeypatch):
    plain = sth.pl.gene_compare(sdata, "FN1", sections="left")
    monkeypatch.setattr("sthisto.pl._spots.RASTER_FROM", 100)
    figure = sth.pl.gene_compare(sdata, "FN1", sections="left")
    discs, (_, picture) = spots(panels(plain)[1]), panels(figure)[1].images
    left, right, bottom, top = picture.get_extent()
    values = picture.get_array()
    for (x, y), value in zip(discs.get_offsets(), discs.get_array(), strict=True):
        row, column = (y - top) / (bottom - top) * values.shape[0], (x - left) / (right - left) * values.shape[1]
        assert values[int(row), int(column)] == pytest.approx(value)
    covered = np.mean(~np.ma.getmaskarray(values)) * (right - left) * (bottom - top)
    assert covered == pytest.approx(len(discs.get_array()) * np.pi * 12**2, rel=0.02)
    assert picture.get_clim() == discs.get_clim()


def test_global_style_and_data_stay_as_they_were(sdata):
    before, style = sdata["spots"].copy(), mpl.rcParams.copy()
    attributes = {name: dict(element.attrs) for _, name, element in sdata.gen_elements() if name in ("left", "right")}
    sth.pl.gene_compare(sdata, ["FN1", "SCD"], difference=True, uncertainty=True)
    after = sdata["spots"]
    assert dict(mpl.rcParams) == dict(style)
    assert (before.X != after.X).nnz == 0
    assert set(after.uns) == set(before.uns)
    assert list(after.obs) == list(before.obs)
    for layer, values in before.layers.items():
        if layer is not None:
            np.testing.assert_array_equal(after.layers[layer], values)
    assert {name: dict(sdata[name].attrs) for name in attributes} == attributes


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"genes": "NOPE"}, KeyError, "not in the table: 'NOPE'"),
        ({"genes": []}, ValueError, "`genes` is empty"),
        (
            {"genes": "FN1", "key_added": "mine"},
            KeyError,
            r"'sthisto', 'bleep'.*sth\.tl\.predict\(sdata, model, key_added='mine'\)",
        ),
        ({"genes": "FN1", "sections": "middle"}, KeyError, "Available: 'left', 'right'"),
        ({"genes": "FN1", "layers": "other"}, KeyError, "layers of the table"),
    ],
)
def test_errors_name_what_is_there_and_the_next_step(sdata, arguments, error, match):
    with pytest.raises(error, match=match):
        sth.pl.gene_compare(sdata, **arguments)


def test_genes_that_are_not_predicted_are_refused(sdata):
    sdata["spots"].layers["sthisto_pred"][:, 0] = np.nan
    with pytest.raises(KeyError, match=r"'FN1' not predicted under key_added='sthisto'"):
        sth.pl.gene_compare(sdata, "FN1")


def test_predictions_on_two_scales_share_no_picture(sdata):
    sdata["spots"].uns["bleep"]["normalization"]["target"] = "pearson_residuals"
    with pytest.raises(ValueError, match="different scales"):
        sth.pl.gene_compare(sdata, "FN1", key_added=["sthisto", "bleep"])


def test_missing_spread_names_the_call(sdata):
    del sdata["spots"].layers["sthisto_pred_sd"]
    with pytest.raises(KeyError, match=r"'sthisto_pred_sd'.*sth\.tl\.predict"):
        sth.pl.gene_compare(sdata, "FN1", uncertainty=True)
