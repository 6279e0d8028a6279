from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import EllipseCollection
from matplotlib.colors import to_hex
from sklearn.metrics import adjusted_rand_score

import sthisto as sth


@pytest.fixture
def clustered(sdata):
    """Annotation and clusters of the same spots by other names, but for some of each section."""
    obs = sdata["spots"].obs
    obs["annotation"] = pd.Categorical(obs["annotation"])
    names = np.where(obs["annotation"] == "tumor", "0", "1")
    names[::7] = "2"
    obs["sthisto_cluster"] = pd.Categorical(names)
    return sdata


def drawn_colors(ax, section):
    """Return the color of each spot by its center."""
    discs = next(child for child in ax.get_children() if isinstance(child, EllipseCollection))
    colors = [to_hex(color) for color in discs.cmap(discs.norm(np.asarray(discs.get_array())))]
    return {tuple(np.round(xy)): color for xy, color in zip(discs.get_offsets(), colors, strict=True)}


def panels(figure):
    return [ax for ax in figure.axes if ax.get_title()]


def test_titles_and_scores(clustered):
    figure = sth.pl.clusters(clustered, {"annotation": "Annotated", "sthisto_cluster": "DANet"}, sections="left")
    obs = clustered["spots"].obs.query("region == 'left'")
    score = adjusted_rand_score(obs["annotation"], obs["sthisto_cluster"])
    assert [ax.get_title() for ax in panels(figure)] == ["H&E", "Annotated", f"DANet, ARI {score:.2f}"]


def test_clusters_take_the_color_of_the_region_they_overlap_with(clustered):
    figure = sth.pl.clusters(clustered, ["annotation", "sthisto_cluster"], sections="left")
    _, annotated, predicted = (drawn_colors(ax, "left") if ax.collections else None for ax in panels(figure))
    same = [annotated[xy] == predicted[xy] for xy in annotated]
    obs = clustered["spots"].obs.query("region == 'left'")
    assert sum(same) == (obs["sthisto_cluster"] != "2").sum()
    assert len(set(predicted.values())) == 3


def test_colors_of_uns_are_respected(clustered):
    clustered["spots"].uns["annotation_colors"] = ["#123456", "#abcdef"]
    figure = sth.pl.clusters(clustered, "annotation", sections="left")
    assert set(drawn_colors(panels(figure)[1], "left").values()) == {"#123456", "#abcdef"}
    labels = [text.get_text() for text in panels(figure)[1].get_legend().get_texts()]
    assert labels == ["stroma", "tumor"]


def test_excluded_labels_are_gray_and_do_not_count(clustered):
    obs = clustered["spots"].obs
    obs["annotation"] = obs["annotation"].cat.add_categories("undetermined")
    obs.loc[obs["sthisto_cluster"] == "2", "annotation"] = "undetermined"
    figure = sth.pl.clusters(clustered, ["annotation", "sthisto_cluster"], sections="left")
    assert panels(figure)[2].get_title() == "sthisto_cluster, ARI 1.00"
    assert "#d0d0d0" in drawn_colors(panels(figure)[1], "left").values()


def test_each_section_is_a_row_with_its_name(clustered):
    figure = sth.pl.clusters(clustered, "annotation")
    assert len(panels(figure)) == 4
    texts = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert {"left", "right"} <= set(texts)


def test_a_missing_column_names_the_call(clustered):
    with pytest.raises(KeyError, match=r"no column 'mine'.*'annotation'.*sth\.tl\.cluster\(sdata, key_added='mine'"):
        sth.pl.clusters(clustered, "mine")


def test_a_section_without_labels_is_refused(clustered):
    obs = clustered["spots"].obs
    obs.loc[obs["region"] == "right", "sthisto_cluster"] = np.nan
    with pytest.raises(ValueError, match="No spot of section 'right'"):
        sth.pl.clusters(clustered)
    assert len(panels(sth.pl.clusters(clustered, sections="left"))) == 2


def test_classes_of_very_many_spots_are_never_mixed(monkeypatch):
    from types import SimpleNamespace

    from matplotlib.figure import Figure

    from sthisto.pl import _spots

    rng = np.random.default_rng(0)
    centers = rng.uniform(0, 100, (5000, 2))
    view = _spots.View(SimpleNamespace(centers=centers), np.zeros((1, 1, 3)), (0, 100, 100, 0), (0, 0, 100, 100), 3.0)
    monkeypatch.setattr(_spots, "RASTER_FROM", 10)
    picture = view.draw_classes(Figure().subplots(), rng.choice([0, 2], 5000), ["r", "g", "b"]).get_array()
    assert set(np.unique(picture.compressed())) == {0.0, 2.0}
