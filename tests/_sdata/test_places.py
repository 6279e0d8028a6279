"""Every row stands at its own place, whatever the table and the element lack, repeat or reorder."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from anndata import AnnData
from builders import as_transformation, similarity
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel, ShapesModel, TableModel

from sthisto._sdata.elements import read_spots
from sthisto._sdata.sections import read_sections

SIZE = 400


def drawn(seed: int):
    """Return a SpatialData with random faults, and the true place of each row that has one, NaN elsewhere."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(5, 60))
    ids = rng.permutation(np.arange(10 * n))[:n]
    if rng.random() < 0.3:
        ids = np.array([f"cell-{i}" for i in ids], dtype=object)
    truth = dict(zip(ids, rng.uniform(20, SIZE - 20, (n, 2)), strict=True))
    to_slide = similarity(
        angle=rng.uniform(0, 360), scale=rng.uniform(0.3, 3), shift=(50, -20), flip=rng.random() < 0.5
    )
    element, lost = _element(truth, to_slide, rng)
    absent = ["none-1", "none-2"] if isinstance(ids[0], str) else [10**7, 10**7 + 1]
    kept = rng.permutation(ids)[: max(2, int(n * rng.uniform(0.5, 1)))]
    rows = rng.permutation(np.concatenate([kept, kept[: n // 4], np.array(absent, dtype=kept.dtype)]))
    in_tissue = rng.random(len(rows)) < 0.8
    in_tissue[np.isin(rows, kept)] |= rng.random() < 0.5
    obs = pd.DataFrame({"region": "cells", "cell": np.arange(len(rows)), "in_tissue": in_tissue.astype(int)})
    obs.index = [f"row{i}" for i in range(len(obs))]
    obs["region"] = pd.Categorical(obs["region"])
    table = TableModel.parse(
        AnnData(np.ones((len(obs), 2), dtype=np.float32), obs=obs),
        region="cells",
        region_key="region",
        instance_key="cell",
    )
    image = Image2DModel.parse(
        np.full((3, SIZE, SIZE), 200, dtype=np.uint8),
        dims=("c", "y", "x"),
        transformations={"slide": as_transformation(to_slide)},
    )
    sdata = SpatialData(images={"he": image}, shapes={"cells": element}, tables={"table": table})
    kind = rng.choice([str, object, "category"]) if isinstance(ids[0], str) else rng.choice([str, float, "Int64"])
    table.obs["cell"] = pd.Series(rows, index=table.obs_names).astype(kind)  # as a table is after concat and subset
    places = [
        truth[i] if i in truth and i not in lost and on else np.full(2, np.nan)
        for i, on in zip(rows, in_tissue, strict=True)
    ]
    return sdata, np.array(places)


def _element(truth, to_slide, rng):
    """Return polygons or circles in another order, some without a place, and the ids of these."""
    order = rng.permutation(len(truth))
    ids = np.array(list(truth), dtype=object)[order]
    inside = np.array(list(truth.values()))[order]
    xy = inside @ to_slide[:2, :2].T + to_slide[:2, 2]
    lost = rng.random(len(ids)) < 0.2
    lost[0] = False
    index = pd.Index(ids.tolist(), name="cell")
    identity = {"slide": as_transformation(np.eye(3))}
    if rng.random() < 0.5:
        shapes = np.array([shapely.Point(*p).buffer(4) for p in xy], dtype=object)
        shapes[lost] = [rng.choice([shapely.Polygon(), shapely.MultiPolygon()]) for _ in range(lost.sum())]
        return ShapesModel.parse(gpd.GeoDataFrame(geometry=shapes, index=index), transformations=identity), set(
            ids[lost]
        )
    element = ShapesModel.parse(xy, geometry=0, radius=4.0, index=index, transformations=identity)
    points = element.geometry.to_numpy().copy()
    points[lost] = [rng.choice([None, shapely.Point(), shapely.Point(np.nan, 3.0)]) for _ in range(lost.sum())]
    element["geometry"] = gpd.GeoSeries(points, index=index)
    return element, set(ids[lost])


@pytest.mark.parametrize("seed", range(40))
def test_each_row_stands_at_its_own_place_or_is_left_out(seed):
    sdata, places = drawn(seed)
    has_place = np.flatnonzero(np.isfinite(places[:, 0]))
    if not len(has_place):
        pytest.skip("nothing was drawn on tissue")
    (section,) = read_sections(sdata)
    np.testing.assert_array_equal(np.sort(section.rows), has_place)
    np.testing.assert_allclose(section.centers, places[section.rows], atol=1e-6)
    assert section.diameter > 0


def test_an_instance_that_repeats_is_refused_only_where_a_row_refers_to_it(sdata):
    spots = sdata["spots"]
    spots.index = pd.Index([7, 7, *spots.index[2:]])
    (section,) = read_sections(sdata)
    assert set(section.table.obs["instance"].iloc[section.rows]) == set(spots.index[2:])
    spots.index = pd.Index([102, *spots.index[1:]])
    with pytest.raises(ValueError, match="'spots' has repeated instances, such as 102"):
        read_sections(sdata)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("largest", [40, 2**31 - 1])
def test_labels_have_the_centers_and_areas_of_their_pixels(seed, largest):
    rng = np.random.default_rng(seed)
    ids = rng.choice(largest, 6, replace=False) + 1
    pixels = rng.choice(np.concatenate([[0], ids]), (37, 53)).astype(np.int64)
    labels = Labels2DModel.parse(pixels, dims=("y", "x"), chunks=(10, 17))
    spots = read_spots(labels, "labels", "global")
    assert list(spots.instances) == sorted(set(np.unique(pixels)) - {0})
    for i, xy, area in zip(spots.instances, spots.xy, spots.areas, strict=True):
        y, x = np.nonzero(pixels == i)
        np.testing.assert_allclose(xy, [x.mean() + 0.5, y.mean() + 0.5])
        assert area == len(x)


def test_labels_are_read_once_for_an_element():
    reads = []

    def count(block):
        reads.append(block.shape)
        return block

    labels = Labels2DModel.parse(np.arange(48, dtype=np.int32).reshape(6, 8), dims=("y", "x"), chunks=(3, 8))
    labels.data = labels.data.map_blocks(count, dtype=np.int32, meta=np.empty((0, 0), np.int32))
    first = read_spots(labels, "labels", "global")
    again = read_spots(labels, "labels", "global")
    assert len(reads) == 2
    np.testing.assert_array_equal(first.xy, again.xy)
    labels.data = labels.data + 1
    assert list(read_spots(labels, "labels", "global").instances) == list(range(1, 49))
