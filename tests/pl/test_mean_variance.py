from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.stats import linregress

import sthisto as sth


def log1p_cp10k(table):
    counts = table.X.toarray()
    return np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)


def charts(figure):
    return [ax for ax in figure.axes if ax.get_xlabel()]


def test_shares_are_those_of_the_test_spots_in_the_measured_order(sdata):
    upper, lower = charts(sth.pl.mean_variance(sdata))
    tested = sdata["spots"][sdata["spots"].obs["region"] == "left"]
    truth, guess = log1p_cp10k(tested), tested.layers["sthisto_pred"].astype(float)
    for ax, statistic in ((upper, np.mean), (lower, np.std)):
        measured, predicted = (100 * statistic(x, axis=0) / statistic(x, axis=0).sum() for x in (truth, guess))
        order = np.argsort(-measured)
        np.testing.assert_allclose(ax.lines[0].get_ydata(), measured[order], rtol=1e-4)
        np.testing.assert_allclose(ax.collections[0].get_offsets()[:, 1], predicted[order], rtol=1e-4)
        line = linregress(measured, predicted)
        label = ax.get_legend_handles_labels()[1][0]
        assert label == f"DANet: slope {line.slope:.2f}, R² {line.rvalue**2:.2f}"


def test_methods_stand_side_by_side(sdata):
    axes = charts(sth.pl.mean_variance(sdata, key_added=["sthisto", "bleep"]))
    assert [ax.get_legend_handles_labels()[1][0].split(":")[0] for ax in axes] == ["DANet", "BLEEP"] * 2
    np.testing.assert_array_equal(axes[0].lines[0].get_ydata(), axes[1].lines[0].get_ydata())


def test_a_constant_prediction_has_no_share_of_the_spread(sdata):
    sdata["spots"].layers["sthisto_pred"][:] = 1.0
    _, lower = charts(sth.pl.mean_variance(sdata))
    assert (lower.collections[0].get_offsets()[:, 1] == 0).all()


def test_training_spots_are_named_where_nothing_else_is_left(sdata):
    ax = charts(sth.pl.mean_variance(sdata, sections="right"))[0]
    assert "(trained on)" in ax.get_legend_handles_labels()[1][0]


@pytest.mark.parametrize("shape", [lambda x: 1 / x, lambda x: 2 - x / 100, lambda x: np.full(len(x), 1.0)])
def test_inset_covers_no_point(shape):
    from sthisto.pl._inset import draw_zoom

    _, ax = plt.subplots()
    x = np.arange(1, 101)
    y = np.stack([shape(x), shape(x)])
    ax.plot(x, y[0])
    ax.set(xlim=(0, 101), ylim=(0, 1.08 * y.max()))
    inset = draw_zoom(ax, x, y, window=(0.45, 0.55), color="C0")
    ax.figure.canvas.draw()
    box = inset.get_window_extent()
    assert not any(box.contains(*point) for point in ax.transData.transform(np.c_[x, y[0]]))
    assert inset.get_xlim() == (np.quantile(x, 0.45), np.quantile(x, 0.55))
    assert inset.get_ylim()[0] < inset.get_ylim()[1]


def test_too_few_genes_are_refused(sdata):
    with pytest.raises(ValueError, match="at least three"):
        sth.pl.mean_variance(sdata, genes=["FN1", "SCD"])


def test_shares_of_residuals_are_refused(sdata):
    sdata["spots"].uns["sthisto"]["normalization"]["target"] = "pearson_residuals"
    with pytest.raises(ValueError, match="negative values"):
        sth.pl.mean_variance(sdata)


def test_draws_into_given_axes(sdata):
    figure, axes = plt.subplots(2)
    assert sth.pl.mean_variance(sdata, ax=axes) is figure
    assert len(axes[0].lines) >= 1
