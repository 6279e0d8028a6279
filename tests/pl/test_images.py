"""Whole pictures against stored ones, without their text: fonts differ between machines.

STHISTO_NEW_BASELINE=1 stores new ones; look at them before they are committed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text

import sthisto as sth

BASELINE = Path(__file__).parent / "baseline"
TOLERANCE = 6


def draw_gene_compare(sdata):
    return sth.pl.gene_compare(sdata, ["FN1", "CD74"], key_added=["sthisto", "bleep"], sections="left", difference=True)


def draw_mean_variance(sdata):
    return sth.pl.mean_variance(sdata, key_added=["sthisto", "bleep"])


def draw_clusters(sdata):
    obs = sdata["spots"].obs
    obs["annotation"] = pd.Categorical(obs["annotation"])
    obs["sthisto_cluster"] = pd.Categorical((obs["annotation"] == "tumor").map({True: "1", False: "0"}))
    return sth.pl.clusters(sdata, ["annotation", "sthisto_cluster"], sections="left")


@pytest.mark.parametrize("draw", [draw_gene_compare, draw_mean_variance, draw_clusters])
def test_picture_is_the_stored_one(sdata, tmp_path, draw):
    with mpl.rc_context(mpl.rcParamsDefault | {"backend": "agg"}):
        figure = draw(sdata)
        figure.set_layout_engine("none")
        for text in figure.findobj(Text):
            text.set_visible(False)
        name = f"{draw.__name__.removeprefix('draw_')}.png"
        figure.savefig(tmp_path / name, dpi=60)
    if os.environ.get("STHISTO_NEW_BASELINE"):
        shutil.copy(tmp_path / name, BASELINE / name)
    assert compare_images(BASELINE / name, tmp_path / name, tol=TOLERANCE) is None
