import numpy as np
import pytest
import scipy.sparse as sp
import spatialdata
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from spatialdata.transformations import get_transformation

from sthisto import metrics
from sthisto.datasets import synthetic


@pytest.fixture(scope="module")
def sdata():
    return synthetic(n_sections=3, n_patients=2, n_spots=90, seed=0)


def pixel_centers(sdata, section, matrix):
    shapes = sdata[f"{section}_spots"]
    homogeneous = np.column_stack([shapes.geometry.x, shapes.geometry.y, np.ones(len(shapes))])
    to_um = matrix(shapes, section)
    to_px = np.linalg.inv(matrix(sdata[f"{section}_image"], section)) @ to_um
    return (homogeneous @ to_um.T)[:, :2], (homogeneous @ to_px.T)[:, :2]


def rows_of(sdata, section):
    """Rows of the table in the order of the shapes."""
    table = sdata["expression"]
    return table[table.obs["section"] == section].obs.sort_values("spot_id").index


def patches(sdata, section, matrix, size=112):
    image = sdata[f"{section}_image"]["scale0"]["image"].values
    image = np.pad(image, ((0, 0), (size, size), (size, size)), mode="reflect").astype(float)
    corners = np.round(pixel_centers(sdata, section, matrix)[1]).astype(int) + size - size // 2
    return np.stack([image[:, y : y + size, x : x + size] for x, y in corners])


def color(sdata, section, matrix):
    """Means, deviations and deciles of the channels, (n_spots, 12)."""
    flat = patches(sdata, section, matrix).reshape(90, 3, -1)
    return np.hstack([flat.mean(axis=2), flat.std(axis=2), *np.quantile(flat, [0.1, 0.9], axis=2)])


def counts_of(sdata, section):
    return sdata["expression"][rows_of(sdata, section)].X.toarray()


def test_each_section_has_a_coordinate_system_of_its_own_and_none_is_global(sdata):
    assert sorted(sdata.coordinate_systems) == ["S1", "S2", "S3"]
    assert sdata.attrs["sthisto"]["um_per_unit"] == {"S1": 1.0, "S2": 1.0, "S3": 1.0}
    for name, element in {**sdata.images, **sdata.shapes}.items():
        assert list(get_transformation(element, get_all=True)) == [name[:2]]


def test_spots_are_55_um_wide_and_100_um_apart(sdata, matrix):
    um, _ = pixel_centers(sdata, "S1", matrix)
    distance = np.linalg.norm(um[:, None] - um, axis=-1) + 1e6 * np.eye(len(um))
    np.testing.assert_allclose(np.sort(distance.min(axis=1))[: len(um) // 2], 100, atol=1e-6)
    scale = np.sqrt(abs(np.linalg.det(matrix(sdata["S1_spots"], "S1")[:2, :2])))
    np.testing.assert_allclose(sdata["S1_spots"]["radius"] * scale, 27.5)


def test_images_and_spots_have_different_frames(sdata, matrix):
    for section in ("S1", "S2"):
        image, shapes = matrix(sdata[f"{section}_image"], section), matrix(sdata[f"{section}_spots"], section)
        assert np.linalg.det(image[:2, :2]) == pytest.approx(0.8**2)
        assert np.linalg.det(shapes[:2, :2]) == pytest.approx(-(0.25**2))
        assert abs(image[0, 1]) > 1e-3


def test_every_spot_lies_on_tissue(sdata, matrix):
    for section in ("S1", "S2", "S3"):
        image = sdata[f"{section}_image"]["scale0"]["image"]
        _, px = pixel_centers(sdata, section, matrix)
        assert (px > 0).all()
        assert (px < image.shape[1]).all()
        annotation = sdata["expression"].obs.loc[rows_of(sdata, section), "annotation"].to_numpy()
        green = patches(sdata, section, matrix, size=68)[:, 1].mean(axis=(1, 2))
        assert (green[annotation != "fat"] < 200).all()


def test_nuclei_are_where_the_annotation_says(sdata, matrix):
    red = np.concatenate([patches(sdata, s, matrix)[:, 0].mean(axis=(1, 2)) for s in ("S1", "S2", "S3")])
    names = [sdata["expression"].obs.loc[rows_of(sdata, s), "annotation"] for s in ("S1", "S2", "S3")]
    annotation = np.concatenate(names)
    assert red[annotation == "tumor"].mean() < red[annotation == "stroma"].mean() < red[annotation == "fat"].mean()


def test_table_has_counts_of_unique_genes_in_shuffled_order(sdata):
    table = sdata["expression"]
    assert sp.isspmatrix_csr(table.X) or isinstance(table.X, sp.csr_array)
    assert (table.X.data == np.round(table.X.data)).all()
    assert table.X.data.min() > 0
    assert table.var_names.is_unique
    assert table.obs_names.is_unique
    assert not table.obs["region"].astype(str).is_monotonic_increasing
    assert not table.obs.loc[table.obs["section"] == "S1", "spot_id"].is_monotonic_increasing


def test_sections_are_dealt_to_the_patients_in_turn(sdata):
    pairs = sdata["expression"].obs[["section", "patient"]].astype(str).drop_duplicates()
    assert dict(pairs.to_numpy()) == {"S1": "P1", "S2": "P2", "S3": "P1"}


@pytest.mark.parametrize(("n_sections", "n_patients"), [(1, 1), (2, 2), (5, 3)])
def test_patients_follow_the_sections(n_sections, n_patients):
    obs = synthetic(n_sections=n_sections, n_spots=20)["expression"].obs
    assert obs["patient"].nunique() == n_patients
    assert obs["section"].nunique() == n_sections


def test_the_seed_draws_the_sections_and_leaves_the_biology():
    first, again, other = (synthetic(n_sections=1, n_patients=1, n_spots=20, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first["S1_image"]["scale0"]["image"], again["S1_image"]["scale0"]["image"])
    assert (first["expression"].X != again["expression"].X).nnz == 0
    assert first["expression"].obs.equals(again["expression"].obs)
    assert list(first["expression"].var_names) == list(other["expression"].var_names)
    assert (first["expression"].X != other["expression"].X).nnz > 0


def test_the_random_state_of_the_caller_is_left_alone():
    np.random.seed(7)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    synthetic(n_sections=1, n_patients=1, n_spots=20)
    assert np.random.random() == expected  # noqa: NPY002


@pytest.mark.parametrize(
    ("gene", "annotation"),
    [("ERBB2", "tumor"), ("COL1A1", "stroma"), ("CD3E", "immune"), ("PIP", "gland"), ("ADIPOQ", "fat")],
)
def test_marker_genes_peak_where_their_cells_are(sdata, gene, annotation):
    table = sdata["expression"]
    share = table[:, gene].X.toarray().ravel() / np.asarray(table.X.sum(axis=1)).ravel()
    means = table.obs.assign(share=share).groupby("annotation", observed=True)["share"].mean()
    assert means.idxmax() == annotation


def test_housekeeping_genes_have_no_spatial_pattern(sdata):
    table = sdata["expression"]
    constant = (table.var["program"] == "housekeeping").to_numpy()
    inside = (sdata["expression"].obs.loc[rows_of(sdata, "S1"), "annotation"] == "tumor").to_numpy()
    residuals = metrics.pearson_residuals(counts_of(sdata, "S1"))
    contrast = np.abs(residuals[inside].mean(axis=0) - residuals[~inside].mean(axis=0))
    assert contrast[constant].mean() < 0.35 * contrast[~constant].mean()


def test_depth_predicts_raw_expression_but_not_the_residuals(sdata):
    raw, residual = [], []
    for section in ("S1", "S2", "S3"):
        counts = counts_of(sdata, section)
        depth = np.repeat(np.log(counts.sum(axis=1, keepdims=True)), counts.shape[1], axis=1)
        normalized = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
        raw.append(np.nanmean(metrics.pearson(normalized, depth)))
        residual.append(np.nanmean(metrics.residual_pearson(counts, depth)))
    assert np.mean(raw) > 0.05
    assert abs(np.mean(residual)) < 0.04


def test_color_of_one_seed_predicts_another_seed(sdata, matrix):
    x = np.concatenate([color(sdata, s, matrix) for s in ("S1", "S2", "S3")])
    y = np.concatenate([metrics.pearson_residuals(counts_of(sdata, s)) for s in ("S1", "S2", "S3")])
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 4, 6))).fit(x, y)
    other = synthetic(n_sections=1, n_patients=1, n_spots=90, seed=11)
    score = metrics.residual_pearson(counts_of(other, "S1"), model.predict(color(other, "S1", matrix)))
    assert np.nanmean(score) > 0.3


def test_survives_writing_and_reading(sdata, tmp_path):
    sdata.write(tmp_path / "synthetic.zarr")
    back = spatialdata.read_zarr(tmp_path / "synthetic.zarr")
    assert sorted(back.coordinate_systems) == ["S1", "S2", "S3"]
    assert (back["expression"].X != sdata["expression"].X).nnz == 0
    assert back.attrs["sthisto"] == sdata.attrs["sthisto"]
    np.testing.assert_array_equal(back["S2_image"]["scale2"]["image"], sdata["S2_image"]["scale2"]["image"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_sections": 1, "n_patients": 2}, "more than `n_sections`=1"),
        ({"n_spots": 5}, "at least 20"),
        ({"um_per_px": 0}, "`um_per_px` must be"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        synthetic(**arguments)


def test_shares_of_cell_types_are_added_on_request():
    table = synthetic(n_sections=1, n_patients=1, n_spots=20, cell_types=True)["expression"]
    np.testing.assert_allclose(table.obsm["cell_types"].sum(axis=1), 1)
    assert "cell_types" not in synthetic(n_sections=1, n_patients=1, n_spots=20)["expression"].obsm
