"""Scores, history and trust."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import sthisto as sth


@pytest.fixture
def scored(sdata):
    for key in ("sthisto", "bleep"):
        sth.tl.evaluate(sdata, key_added=key)
    return sdata


def test_scores_are_ranked_by_the_first_method(scored):
    ranked, _ = sth.pl.scores(scored, key_added=["sthisto", "bleep"]).axes
    by_label = {points.get_label(): np.asarray(points.get_offsets()) for points in ranked.collections}
    assert set(by_label) == {"Sibling genes", "Depth alone", "DANet", "BLEEP"}
    table = sth.get.scores(scored).set_index("gene").sort_values("pcc_residual", ascending=False)
    np.testing.assert_allclose(by_label["DANet"][:, 1], table["pcc_residual"])
    bleep = sth.get.scores(scored, key_added="bleep").set_index("gene").loc[table.index]
    np.testing.assert_allclose(by_label["BLEEP"][:, 1], bleep["pcc_residual"])
    np.testing.assert_allclose(by_label["Depth alone"][:, 1], table["depth_pcc_residual"])


def test_distributions_stand_by_section_with_siblings_and_depth(scored):
    _, ax = sth.pl.scores(scored, key_added=["sthisto", "bleep"]).axes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["left"]
    medians = sorted(
        line.get_ydata()[0] for line in ax.lines if line.get_color() == "black" and len(line.get_xdata()) == 2
    )
    expected = sth.get.scores(scored, key_added=["sthisto", "bleep"]).groupby("key")["pcc_residual"].median()
    assert all(np.isclose(medians, value).any() for value in expected)
    siblings = sth.get.scores(scored, by="section")["sibling"].iloc[0]
    levels = [segment[0, 1] for collection in ax.collections for segment in collection.get_segments()]
    assert np.isclose(levels, siblings).any()


def test_raw_score_has_no_siblings(scored):
    labels = [text.get_text() for text in sth.pl.scores(scored, metric="pcc").axes[0].get_legend().get_texts()]
    assert sorted(labels) == ["DANet", "Depth alone"]


def test_scores_on_other_genes_are_not_compared(scored):
    record = scored["spots"].uns["bleep"]
    record["scores"] = record["scores"].iloc[1:]
    with pytest.raises(ValueError, match="not scored on the same"):
        sth.pl.scores(scored, key_added=["sthisto", "bleep"])


def test_missing_scores_name_the_call(sdata):
    with pytest.raises(KeyError, match=r"sth\.tl\.evaluate\(sdata, key_added='sthisto'\)"):
        sth.pl.scores(sdata)


def test_history_shows_both_losses_and_the_lowest(sdata):
    _, given = plt.subplots()
    ax = sth.pl.history(sdata, ax=given)
    assert ax is given
    train, validation, best = ax.lines
    np.testing.assert_allclose(train.get_ydata(), [5, 4, 3, 2, 1])
    np.testing.assert_allclose(validation.get_ydata(), [5, 3, 2, 2.5, 3])
    assert (best.get_xdata()[0], best.get_ydata()[0]) == (2, 2)
    assert len(sth.pl.history(sdata, key_added=["sthisto", "bleep"]).lines) == 6


def test_history_of_a_method_without_epochs_is_refused(sdata):
    record = sdata["spots"].uns["sthisto"]
    record["history"] = record["history"].iloc[:0]
    with pytest.raises(ValueError, match="no epochs"):
        sth.pl.history(sdata)
    del record["history"]
    with pytest.raises(KeyError, match=r"sth\.tl\.fit"):
        sth.pl.history(sdata)


def test_spread_is_held_against_the_error(sdata):
    chart = sth.pl.uncertainty(sdata, sections="left").axes[0]
    _, binned = chart.lines
    tested = sdata["spots"][sdata["spots"].obs["region"] == "left"]
    counts = tested.X.toarray()
    truth = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    error, spread = (tested.layers["sthisto_pred"] - truth).ravel(), tested.layers["sthisto_pred_sd"].ravel()
    assert len(binned.get_xdata()) == 10
    assert np.sqrt(np.mean(np.square(binned.get_ydata()))) == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-2)
    assert np.sqrt(np.mean(np.square(binned.get_xdata()))) == pytest.approx(np.sqrt(np.mean(spread**2)), rel=1e-2)
    assert chart.get_xlim() == chart.get_ylim()


def test_confidence_is_mapped_for_each_section_from_0_to_1(sdata):
    figure = sth.pl.uncertainty(sdata, key_added=["sthisto", "bleep"])
    maps = [ax for ax in figure.axes if ax.get_title().endswith(", confidence")]
    assert [ax.get_title() for ax in maps] == ["left, confidence", "right, confidence"] * 2
    assert all(ax.collections[0].get_clim() == (0, 1) for ax in maps)


def test_uncertainty_draws_into_given_axes_and_at_a_given_size(sdata):
    assert tuple(sth.pl.uncertainty(sdata, figsize=(9, 4)).get_size_inches()) == (9, 4)
    given, axes = plt.subplots(1, 4, figsize=(12, 3))
    assert sth.pl.uncertainty(sdata, ax=axes) is given
    assert [ax.get_title() for ax in axes[2:]] == ["left, confidence", "right, confidence"]
    with pytest.raises(ValueError, match=r"`ax` has 3 axes for 1 x 4 panels"):
        sth.pl.uncertainty(sdata, ax=axes[:3])


def test_confidence_is_mapped_alone_where_nothing_was_measured(sdata):
    sdata["spots"].uns["sthisto"]["holds_measurement"] = False
    figure = sth.pl.uncertainty(sdata, key_added=["sthisto", "bleep"], sections="left")
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert len(titles) == 2
    assert all(title.endswith(", left, confidence") for title in titles)
    assert sth.pl.uncertainty(sdata, sections="left").axes[0].get_title() == "left, confidence"


def test_missing_confidence_names_the_call(sdata):
    del sdata["spots"].obs["sthisto_confidence"]
    with pytest.raises(KeyError, match=r"'sthisto_confidence'.*sth\.tl\.predict"):
        sth.pl.uncertainty(sdata)


def test_no_chart_changes_the_global_style_or_the_data(scored):
    style, before = mpl.rcParams.copy(), scored["spots"].copy()
    scored["spots"].obs["annotation"] = scored["spots"].obs["annotation"].astype("category")
    for draw in (sth.pl.scores, sth.pl.history, sth.pl.uncertainty, sth.pl.mean_variance, sth.pl.gene_correlation):
        draw(scored)
    sth.pl.clusters(scored, "annotation")
    assert dict(mpl.rcParams) == dict(style)
    assert set(scored["spots"].uns) == set(before.uns)
    assert list(scored["spots"].obs) == list(before.obs)
    np.testing.assert_array_equal(scored["spots"].layers["sthisto_pred"], before.layers["sthisto_pred"])


def test_scores_of_cross_validated_methods_are_means_over_seeds(sdata):
    table = sdata["spots"]
    sth.tl.evaluate(sdata)
    record = dict(table.uns["sthisto"])
    parts = [
        (method, seed, shift) for method, shift in (("danet", 0.0), ("ridge", -0.2), ("color", 0.1)) for seed in (0, 1)
    ]
    for name in ("scores", "summary"):
        record[name] = pd.concat(
            [record[name].assign(method=m, seed=s, fold="1", pcc=record[name]["pcc"] + d + s) for m, s, d in parts]
        )
    table.uns["cv"] = record | {"method": "cross_validate"}
    figure = sth.pl.scores(sdata, key_added="cv", metric="pcc")
    drawn = {c.get_label(): c.get_offsets()[:, 1] for c in figure.axes[0].collections}
    expected = table.uns["sthisto"]["scores"].set_index("gene")["pcc"] + 0.5
    np.testing.assert_allclose(np.sort(drawn["danet"]), np.sort(expected), rtol=1e-5)
    np.testing.assert_allclose(np.sort(drawn["ridge"]), np.sort(expected - 0.2), rtol=1e-5)
