import logging

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import xarray as xr
from anndata import AnnData
from builders import Region, as_transformation, draw_marks, grid, make_sdata, similarity
from spatialdata.models import Image2DModel
from spatialdata.transformations import Identity, Scale, get_transformation, set_transformation
from xarray import DataArray, DataTree

from sthisto._images.patches import PatchSpec
from sthisto._sdata.elements import _brightness
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.sections import read_sections
from sthisto._sdata.slots import KEY, UM_PER_UNIT

TURNS = {
    "identity": (similarity(), similarity()),
    "scale and shift": (similarity(scale=0.35, shift=(500, -70)), similarity(scale=12.5, shift=(3, 4))),
    "rotation": (similarity(angle=33, scale=0.35, shift=(90, 10)), similarity(angle=-120)),
    "flip": (similarity(flip=True, shift=(1000, 0)), similarity(scale=3)),
    "flip and rotation of both": (
        similarity(angle=77, scale=2.1, flip=True),
        similarity(angle=10, flip=True, scale=0.1),
    ),
}
WIDTH, HEIGHT, SPACING = 901, 703, 150


def off_center(patches):
    """Return how far, in px, the darkest mark of the middle half of each patch lies from its center."""
    size = patches.shape[1]
    middle = slice(size // 4, size - size // 4)
    dark = 240.0 - patches[:, middle, middle].mean(axis=-1)
    dark = np.clip(dark - 20, 0, None)
    assert (dark.max(axis=(1, 2)) > 40).all()
    place = np.arange(size)[middle] + 0.5
    x, y = (dark.sum(axis=axis) @ place / dark.sum(axis=(1, 2)) for axis in (1, 2))
    return np.hypot(x - size / 2, y - size / 2)


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("scale_factors", [None, (2, 2, 2)], ids=["single", "multiscale"])
@pytest.mark.parametrize("kind", ["circles", "polygons"])
def test_the_mark_of_each_spot_is_in_the_center_of_its_patch(turn, scale_factors, kind):
    image_to_system, spots_to_system = TURNS[turn]
    region = Region(
        width=WIDTH,
        height=HEIGHT,
        centers=grid(WIDTH, HEIGHT, SPACING, margin=130),
        image_to_system=image_to_system,
        spots_to_system=spots_to_system,
        scale_factors=scale_factors,
        kind=kind,
    )
    (section,) = read_sections(make_sdata(region), ElementKeys(um_per_px=0.25))
    assert len(section) == len(region.centers)
    assert section.diameter == pytest.approx(10 if kind == "circles" else 20 / np.sqrt(np.pi))
    levels = set()
    for um_per_px in (0.125, 0.25, 0.34, 0.5, 1.0, 1.37, 2.0):
        (source,) = section.patches(PatchSpec(64, um_per_px=um_per_px))
        levels.add(round(source.level.downsample))
        assert off_center(source.read()).max() <= 1
    assert levels == ({1} if scale_factors is None else {1, 2, 4, 8})


def test_each_patch_stands_in_the_order_of_the_rows():
    region = Region(
        width=WIDTH, height=HEIGHT, centers=grid(WIDTH, HEIGHT, SPACING, margin=130), image_to_system=TURNS["flip"][0]
    )
    data = make_sdata(region)
    (section,) = read_sections(data)
    instances = data.tables["counts"].obs["instance"].to_numpy()[section.rows]
    np.testing.assert_allclose(section.centers, region.centers[instances - 100])
    assert not np.array_equal(instances, np.sort(instances))


def test_the_patch_is_the_image_as_it_is_stored_whatever_the_transformation():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 240, 320), dtype=np.uint8)
    for image_to_system, spots_to_system in TURNS.values():
        region = Region(image=pixels, image_to_system=image_to_system, spots_to_system=spots_to_system)
        (section,) = read_sections(make_sdata(region, shuffled=False))
        (source,) = section.patches(PatchSpec(30))
        x, y = np.floor(region.centers - 15 + 0.5).astype(int).T
        expected = np.stack([np.moveaxis(pixels[:, b : b + 30, a : a + 30], 0, -1) for a, b in zip(x, y, strict=True)])
        np.testing.assert_array_equal(source.read(), expected)


@pytest.mark.parametrize("kind", ["circles", "polygons", "labels"])
def test_centers_agree_with_spatialdata(kind):
    turn = similarity(angle=20, scale=0.3, flip=True, shift=(50, 60))
    region = Region(kind=kind, image_to_system=turn, spots_to_system=turn if kind == "labels" else similarity(scale=7))
    data = make_sdata(region, shuffled=False)
    (section,) = read_sections(data)
    in_system = sd.get_centroids(data["spots"], coordinate_system="slide").compute()
    mapped = sd.transform(in_system_points(in_system), to_coordinate_system="pixels").compute()
    instances = data.tables["counts"].obs["instance"].to_numpy()[section.rows]
    np.testing.assert_allclose(section.centers, mapped.loc[instances, ["x", "y"]].to_numpy(), atol=1e-6)


def in_system_points(frame):
    """Return points of the slide that know the way to the image's pixels, of `test_centers_agree_with_spatialdata`."""
    turn = similarity(angle=20, scale=0.3, flip=True, shift=(50, 60))
    transformations = {"slide": Identity(), "pixels": as_transformation(np.linalg.inv(turn))}
    return sd.models.PointsModel.parse(frame, transformations=transformations)


def test_labels_read_block_by_block_have_the_area_and_diameter_of_their_pixels():
    region = Region(kind="labels", radius=6)
    (section,) = read_sections(make_sdata(region))
    assert section.diameter == pytest.approx(2 * np.sqrt(144 / np.pi), rel=0.1)
    assert (
        np.abs(section.centers - region.centers[section.table.obs["instance"].to_numpy()[section.rows] - 100]).max()
        <= 1
    )


def test_multiscale_labels_are_read_at_their_full_resolution():
    region = Region(kind="labels")
    data = make_sdata(region)
    expected = read_sections(data)[0].centers
    pixels = data.labels["spots"].data
    del data.labels["spots"]
    data.labels["spots"] = sd.models.Labels2DModel.parse(
        pixels, dims=("y", "x"), scale_factors=[2], transformations={"slide": Identity()}
    )
    np.testing.assert_allclose(read_sections(data)[0].centers, expected)


# Which elements belong together


def test_without_choices_nothing_has_to_be_named(sdata):
    (section,) = read_sections(sdata)
    assert (section.name, section.image_key, section.coordinate_system, section.table_key) == (
        "spots",
        "image",
        "slide",
        "counts",
    )


def test_each_region_of_a_table_gets_the_image_that_shares_its_coordinate_system(two_regions):
    sections = read_sections(two_regions)
    assert [(s.name, s.image_key) for s in sections] == [("A", "A_image"), ("B", "B_image")]
    rows = np.concatenate([s.rows for s in sections])
    assert sorted(rows) == list(range(two_regions.tables["counts"].n_obs))


@pytest.mark.parametrize("shapes_key", ["B", ["B"]])
def test_one_region_can_be_chosen(two_regions, shapes_key):
    assert [s.name for s in read_sections(two_regions, ElementKeys(shapes_key=shapes_key))] == ["B"]


def test_an_unknown_region_is_refused_with_those_that_exist(two_regions):
    with pytest.raises(KeyError, match=r"`shapes_key`='C'.*'A', 'B'"):
        read_sections(two_regions, ElementKeys(shapes_key="C"))


def test_several_tables_have_to_be_chosen_from(two_regions):
    two_regions.tables["other"] = two_regions.tables["counts"].copy()
    with pytest.raises(ValueError, match=r"`table_key` is ambiguous.*'counts', 'other'"):
        read_sections(two_regions)
    assert len(read_sections(two_regions, ElementKeys(table_key="other"))) == 2


def test_a_table_that_annotates_nothing_is_no_candidate(sdata):
    plain = sdata.tables["counts"].copy()
    del plain.uns["spatialdata_attrs"]
    sdata.tables["plain"] = plain
    assert read_sections(sdata)[0].table_key == "counts"
    with pytest.raises(KeyError, match="plain"):
        read_sections(sdata, ElementKeys(table_key="plain"))


def test_a_spatialdata_without_a_table_is_refused(sdata):
    del sdata.tables["counts"]
    with pytest.raises(KeyError, match="no candidate for `table_key`"):
        read_sections(sdata)


def visium():
    """Elements, names and transformations as spatialdata_io.visium makes them."""
    centers = grid(800, 600, 100)
    region = Region("C2", "C2_full_image", "C2", centers, width=800, height=600, scale_factors=(2, 2))
    data = make_sdata(region, table_key="table")
    for name, factor in (("hires", 0.25), ("lowres", 0.1)):
        to_small = Scale([factor, factor], axes=("y", "x"))
        small = draw_marks(int(800 * factor), int(600 * factor), centers * factor, sigma=2)
        systems = {f"C2_downscaled_{name}": Identity(), "C2": to_small.inverse()}
        data.images[f"C2_{name}_image"] = Image2DModel.parse(small, dims=("c", "y", "x"), transformations=systems)
        set_transformation(data["C2"], to_small, f"C2_downscaled_{name}")
    return data


def test_of_several_resolutions_of_one_image_the_finest_is_used(caplog):
    with caplog.at_level(logging.INFO, "sthisto"):
        (section,) = read_sections(visium())
    assert section.image_key == "C2_full_image"
    assert "'C2_full_image', 'C2_hires_image', 'C2_lowres_image' of region 'C2'" in caplog.text


@pytest.mark.parametrize("shift", [0, 300])
def test_several_images_of_one_resolution_or_of_other_places_are_listed(sdata, shift):
    twin = Image2DModel.parse(
        sdata["image"].data,
        dims=("c", "y", "x"),
        transformations={"slide": as_transformation(similarity(scale=4 if shift else 1, shift=(shift, 0)))},
    )
    sdata.images["twin"] = twin
    with pytest.raises(ValueError, match=r"ambiguous for region 'spots': 'image', 'twin'.*image_key"):
        read_sections(sdata)


def test_a_fluorescence_image_beside_the_he_is_no_candidate(sdata):
    pixels = np.zeros((3, 480, 640), dtype=np.uint8)
    half = {"slide": Scale([0.5, 0.5], axes=("x", "y"))}
    for n, names in ((1, ["DAPI"]), (3, ["DAPI", "CD45", "PanCK"])):
        stain = Image2DModel.parse(pixels[:n], dims=("c", "y", "x"), c_coords=names, transformations=half)
        sdata.images[f"stain{n}"] = stain
    assert read_sections(sdata)[0].image_key == "image"


@pytest.mark.parametrize(
    ("image_key", "factor"), [("C2_full_image", 1), ("C2_hires_image", 0.25), ("C2_lowres_image", 0.1)]
)
@pytest.mark.parametrize("mapping", [False, True])
def test_an_image_can_be_chosen_by_name_or_by_region(image_key, factor, mapping):
    (section,) = read_sections(visium(), ElementKeys(image_key={"C2": image_key} if mapping else image_key))
    assert section.image_key == image_key
    assert section.diameter == pytest.approx(10 * factor)
    assert off_center(section.patches(PatchSpec(int(80 * factor)))[0].read()).max() <= 1


@pytest.mark.parametrize("argument", [{"image_key": {"c2": "C2_full_image"}}, {"um_per_px": {"c2": 1.0}}])
def test_a_mapping_that_names_no_region_is_refused(argument):
    with pytest.raises(KeyError, match=r"'c2' is not in the regions. Available: 'C2'"):
        read_sections(visium(), ElementKeys(**argument))


def test_a_missing_image_is_refused_with_those_that_exist(sdata):
    with pytest.raises(KeyError, match=r"`image_key`='HE'.*Available: 'image'"):
        read_sections(sdata, ElementKeys(image_key="HE"))


def test_no_image_in_the_coordinate_system_is_an_error(two_regions):
    with pytest.raises(KeyError, match=r"'B_image' shares no coordinate system with region 'A', which lies in"):
        read_sections(two_regions, ElementKeys(image_key="B_image"))


def test_no_image_at_all_in_the_coordinate_system_lists_the_images(two_regions):
    del two_regions.images["A_image"]
    with pytest.raises(KeyError, match=r"No image shares.*'A', which lies in 'A_slide'. Images: 'B_image'"):
        read_sections(two_regions)


def test_coordinate_systems_that_disagree_have_to_be_chosen_from(sdata):
    set_transformation(sdata["spots"], as_transformation(similarity(shift=(30, 0))), "moved")
    set_transformation(sdata["image"], Identity(), "moved")
    with pytest.raises(
        ValueError, match=r"'moved', 'slide', which place the spots differently. Pass coordinate_system"
    ):
        read_sections(sdata)
    there = read_sections(sdata, ElementKeys(coordinate_system="moved"))[0]
    here = read_sections(sdata, ElementKeys(coordinate_system="slide"))[0]
    assert there.centers[:, 0].max() == pytest.approx(here.centers[:, 0].max() + 30, abs=11)
    with pytest.raises(KeyError, match="'moved', 'slide'"):
        read_sections(sdata, ElementKeys(coordinate_system="global"))


def test_a_region_that_is_not_there_is_refused(sdata):
    del sdata.shapes["spots"]
    with pytest.raises(KeyError, match=r"annotates 'spots', which is not among the elements"):
        read_sections(sdata)


def test_a_list_is_a_cohort_and_repeated_names_are_numbered(two_regions):
    other = make_sdata(Region(name="A"), Region(name="C", image_key="C_image", system="C"), table_key="T")
    sections = read_sections([two_regions, other])
    assert [s.name for s in sections] == ["0:A", "B", "1:A", "C"]
    assert [s.region for s in sections] == ["A", "B", "A", "C"]
    assert sections[2].table is other.tables["T"]
    chosen = read_sections([two_regions, other], ElementKeys(shapes_key=["A", "C"]))
    assert [s.name for s in chosen] == ["0:A", "1:A", "C"]


@pytest.mark.parametrize(("wrong", "error"), [([], ValueError), ([1], TypeError), (["same", "same"], ValueError)])
def test_a_cohort_of_nothing_or_of_something_else_or_twice_the_same_is_refused(sdata, wrong, error):
    with pytest.raises(error):
        read_sections([sdata if one == "same" else one for one in wrong])


@pytest.mark.parametrize("wrong", [None, 3, "store.zarr", b"store", AnnData()])
def test_what_is_no_spatialdata_is_refused_with_what_to_do(wrong):
    with pytest.raises(TypeError, match=r"must be a SpatialData or a sequence of them, found .*read_zarr"):
        read_sections(wrong)


@pytest.mark.parametrize("value", [None, np.nan, "NA"])
def test_a_region_without_any_flag_lies_on_tissue_with_a_warning(sdata, value, caplog):
    sdata["counts"].obs["in_tissue"] = value
    with caplog.at_level(logging.WARNING, "sthisto"):
        assert len(read_sections(sdata)[0]) == 35
    assert "No spot of 'spots' has a value of in_tissue" in caplog.text


# Rows and instances


def test_spots_off_tissue_are_left_out_and_said(caplog):
    in_tissue = np.ones(35)
    in_tissue[[3, 4]] = 0
    in_tissue[5] = np.nan
    with caplog.at_level(logging.WARNING, "sthisto"):
        (section,) = read_sections(make_sdata(Region(in_tissue=in_tissue)))
    kept = set(section.table.obs["instance"].to_numpy()[section.rows])
    assert kept == set(range(100, 135)) - {103, 104, 105}
    assert "2 of 35 spots of 'spots' lie off tissue" in caplog.text
    assert "1 of 35 spots of 'spots' have no value of in_tissue" in caplog.text


def test_spots_outside_the_image_are_left_out_and_said(caplog):
    centers = np.vstack([grid(320, 240, 40), [[-5, 10], [100, 240.5]]])
    with caplog.at_level(logging.WARNING, "sthisto"):
        (section,) = read_sections(make_sdata(Region(centers=centers, image=draw_marks(320, 240, centers[:-2]))))
    assert len(section) == len(centers) - 2
    assert "2 of 37 spots of 'spots' lie outside image 'image'" in caplog.text


def test_more_than_a_tenth_of_the_spots_outside_is_refused_unless_it_is_allowed(sdata, caplog):
    set_transformation(sdata["image"], as_transformation(similarity(shift=(40, 0))), "slide")
    with pytest.raises(
        ValueError, match=r"5 of 35 spots of 'spots' lie outside image 'image'.*'allow_outside'\] = True"
    ):
        read_sections(sdata)
    with caplog.at_level(logging.WARNING, "sthisto"):
        assert len(read_sections(sdata, allow_outside=True)[0]) == 30
    assert "5 of 35 spots of 'spots' lie outside image 'image'" in caplog.text
    sdata.attrs[KEY] = {"allow_outside": True}
    assert len(read_sections(sdata)[0]) == 30


def test_no_spot_inside_the_image_says_that_the_coordinate_systems_do_not_match():
    region = Region(spots_to_system=similarity())
    data = make_sdata(region)
    set_transformation(data["image"], as_transformation(similarity(shift=(10_000, 0))), "slide")
    with pytest.raises(
        ValueError, match=r"No spot of 'spots' lies in image 'image' of 320 x 240 px.*probably don't match"
    ):
        read_sections(data)


def test_rows_without_an_instance_are_left_out_and_said(sdata, caplog):
    sdata.tables["counts"].obs.iloc[:2, 1] = [7, 8]
    with caplog.at_level(logging.WARNING, "sthisto"):
        (section,) = read_sections(sdata)
    assert 0 not in section.rows
    assert len(section) == 33
    assert "2 of 35 spots" in caplog.text


@pytest.mark.parametrize("kind", [str, float, "string", "category", "Int64"])
def test_instances_are_matched_whatever_type_they_are_of(sdata, kind):
    expected = read_sections(sdata)[0]
    obs = sdata.tables["counts"].obs
    obs["instance"] = obs["instance"].astype(kind)
    (section,) = read_sections(sdata)
    np.testing.assert_array_equal(section.rows, expected.rows)
    np.testing.assert_array_equal(section.centers, expected.centers)


def test_instances_of_another_element_are_refused_with_both(sdata):
    obs = sdata.tables["counts"].obs
    obs["instance"] = obs["instance"].astype(str) + "x"
    with pytest.raises(ValueError, match=r"No row of the table matches.*'1\d\dx'.*the element 100, 101, 102"):
        read_sections(sdata)


def test_a_region_without_spots_is_left_out_and_said(two_regions, caplog):
    obs = two_regions.tables["counts"].obs
    obs["in_tissue"] = (obs["region"] == "A").astype(int)
    with caplog.at_level(logging.WARNING, "sthisto"):
        sections = read_sections(two_regions)
    assert [s.name for s in sections] == ["A"]
    assert "Region 'B' has no spot on tissue" in caplog.text
    obs["in_tissue"] = 0
    with pytest.raises(ValueError, match="No spot is left in any of the regions 'A', 'B'"):
        read_sections(two_regions)


@pytest.mark.parametrize("kind", ["all", "some"])
def test_instances_counted_from_another_first_number_are_refused(sdata, kind):
    table = sdata["counts"]
    table.obs["instance"] += 1
    if kind == "some":
        last = table.obs["instance"].max()
        kept = table[table.obs["instance"].isin([101, 105, 110, last])].copy()
        del sdata.tables["counts"]
        sdata.tables["counts"] = kept
    with pytest.raises(ValueError, match="counted from another first number"):
        read_sections(sdata)
    rows = sdata["counts"].obs["instance"] != sdata["counts"].obs["instance"].max()
    without = sdata["counts"][rows].copy()
    del sdata.tables["counts"]
    sdata.tables["counts"] = without
    assert len(read_sections(sdata)[0]) == rows.sum()


def test_a_region_may_be_called_as_a_number():
    sdata = make_sdata(Region("1.0", image_key="a", system="a"), Region("1", image_key="b", system="b"))
    sections = read_sections(sdata)
    assert [section.region for section in sections] == ["1.0", "1"]
    assert [len(section) for section in sections] == [len(Region().centers)] * 2


def test_a_region_that_no_row_names_is_said_with_what_the_column_holds(sdata, caplog):
    sdata["counts"].obs["region"] = pd.Categorical(["Spots"] * sdata["counts"].n_obs)
    with caplog.at_level(logging.WARNING, "sthisto"), pytest.raises(ValueError, match="No spot is left"):
        read_sections(sdata)
    assert "No row of the table belongs to region 'spots': obs['region'] holds 'Spots'" in caplog.text
    assert "in_tissue" not in caplog.text


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0)])
def test_levels_are_read_in_whatever_order_they_stand(order):
    expected = make_sdata(Region(scale_factors=(2, 2)))
    sdata = make_sdata(Region(scale_factors=(2, 2)))
    levels = [one.to_dataset() for one in expected["image"].values()]
    transformations = [get_transformation(one["image"], "slide") for one in levels]
    image = DataTree.from_dict({f"scale{i}": levels[place] for i, place in enumerate(order)})
    for i, place in enumerate(order):
        set_transformation(image[f"scale{i}"]["image"], transformations[place], "slide")
    del sdata.images["image"]
    sdata.images["image"] = image
    (section,), (wanted,) = read_sections(sdata), read_sections(expected)
    assert (section.image.width, section.image.height) == (wanted.image.width, wanted.image.height)
    np.testing.assert_allclose(section.centers, wanted.centers)
    spec = PatchSpec(size=24)
    np.testing.assert_array_equal(section.patches(spec)[0].read(), wanted.patches(spec)[0].read())


def test_each_level_has_the_brightness_of_its_own_number_format(sdata):
    region = Region(scale_factors=(2,))
    plain = make_sdata(region)
    levels = [one.to_dataset() for one in plain["image"].values()]
    with xr.set_options(keep_attrs=True):  # the transformations
        finest = levels[0].astype(np.float32) / 255
    mixed = DataTree.from_dict({"scale0": finest, "scale1": levels[1]})
    set_transformation(mixed, get_transformation(plain["image"], "slide"), "slide")
    del sdata.images["image"]
    sdata.images["image"] = mixed
    (section,), (wanted,) = read_sections(sdata), read_sections(plain)
    spec = PatchSpec(size=24)
    np.testing.assert_allclose(section.patches(spec)[0].read(), wanted.patches(spec)[0].read(), atol=1)


CHANGED_LEVELS = {
    "moved": lambda pixels: np.roll(pixels, 10, axis=2),
    "of another section": lambda pixels: draw_marks(*pixels.shape[:0:-1], grid(160, 120, 33)),
    "in other colors": lambda pixels: pixels // 2,
    "the same": lambda pixels: pixels,
}


@pytest.mark.parametrize("change", CHANGED_LEVELS)
def test_coarser_levels_that_show_something_else_are_refused(change, caplog):
    sdata = make_sdata(Region(scale_factors=(2,)))
    coarse = sdata["image"]["scale1"]["image"]
    changed = CHANGED_LEVELS[change](coarse.to_numpy())
    sdata["image"]["scale1"]["image"] = coarse.copy(data=da.from_array(changed, chunks=(3, 64, 64)))
    (section,) = read_sections(sdata, ElementKeys(um_per_px=0.5))
    section.patches(PatchSpec(size=40, um_per_px=0.5))
    wide = PatchSpec(size=40, um_per_px=1.0)
    if change in ("moved", "of another section"):
        with pytest.raises(ValueError, match=r"level of 160 x 120 px of image 'image'.*shows something else"):
            section.patches(wide)
    else:
        with caplog.at_level(logging.WARNING, "sthisto"):
            section.patches(wide)
        assert ("has other colors" in caplog.text) == (change == "in other colors")


def test_units_of_coordinate_systems_that_contradict_each_other_are_said(sdata, caplog):
    for element in (sdata["image"], sdata["spots"]):
        set_transformation(element, Scale([0.5, 0.5], axes=("x", "y")), "um")
    sdata.attrs["sthisto"] = {"um_per_unit": {"um": 1.0, "slide": 0.5}}
    with caplog.at_level(logging.WARNING, "sthisto"):
        assert read_sections(sdata)[0].um_per_px == pytest.approx(0.5)
        assert not caplog.records
        sdata.attrs["sthisto"]["um_per_unit"]["slide"] = 2.0
        read_sections(sdata)
    assert "image 'image' has 0.5 or 2 µm per px ('um', 'slide')" in caplog.text


def test_points_as_a_region_are_refused(sdata):
    points = sd.models.PointsModel.parse(
        np.random.default_rng(0).uniform(0, 200, (35, 2)), transformations={"slide": Identity()}
    )
    del sdata.shapes["spots"]
    sdata.points["spots"] = points
    with pytest.raises(TypeError, match="expected shapes or labels"):
        read_sections(sdata)


# Images


def image_of(data, pixels, transformation=None):
    del data.images["image"]
    data.images["image"] = Image2DModel.parse(
        pixels, dims=("c", "y", "x"), transformations={"slide": transformation or Identity()}
    )
    return data


@pytest.mark.parametrize("linear", [np.diag([1, 1.1]), [[1, 0.2], [0, 1]]], ids=["anisotropic", "sheared"])
def test_stretched_images_are_refused(sdata, linear):
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    set_transformation(sdata["image"], as_transformation(matrix), "slide")
    with pytest.raises(ValueError, match="'image' is stretched or sheared"):
        read_sections(sdata)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_images_that_are_not_rgb_are_refused(sdata, channels):
    with pytest.raises(ValueError, match=rf"has {channels} channel\(s\); an H&E image in RGB has 3"):
        read_sections(image_of(sdata, np.zeros((channels, 240, 320), dtype=np.uint8)))


@pytest.mark.parametrize(("dtype", "value"), [("int32", 70_000), ("bool", 1), ("int16", -1)])
def test_other_number_formats_are_refused(sdata, dtype, value):
    with pytest.raises(ValueError, match=f"is of {dtype} and reaches.*expected values between 0 and 1 or 0 and 255"):
        read_sections(image_of(sdata, np.full((3, 240, 320), value).astype(dtype)))


@pytest.mark.parametrize(("bits", "dtype"), [(8, "uint16"), (12, "uint16"), (16, "uint16"), (16, "int32")])
def test_more_than_eight_bits_are_scaled_to_eight(sdata, bits, dtype):
    pixels = sdata["image"].data.compute()
    pixels[:, :2] = 255
    expected = read_sections(image_of(sdata, pixels))[0].patches(PatchSpec(16))[0].read()
    deep = np.rint(pixels / 255 * (2**bits - 1)).astype(dtype)
    (section,) = read_sections(image_of(sdata, deep))
    np.testing.assert_array_equal(section.patches(PatchSpec(16))[0].read(), expected)


def test_transparency_is_left_out_with_a_warning(sdata, caplog):
    pixels = np.concatenate([sdata["image"].data.compute(), np.full((1, 240, 320), 9, np.uint8)])
    expected = read_sections(sdata)[0].patches(PatchSpec(16))[0].read()
    with caplog.at_level(logging.WARNING, "sthisto"):
        (section,) = read_sections(image_of(sdata, pixels))
    assert "four channels" in caplog.text
    np.testing.assert_array_equal(section.patches(PatchSpec(16))[0].read(), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("scale_factors", [None, [2]])
def test_transparency_lies_over_white(sdata, dtype, named, scale_factors):
    white = {np.uint8: 255, np.uint16: 65_535, np.float32: 1}[dtype]
    alpha = np.full((240, 320), white, dtype=dtype)
    alpha[:100] = 0
    colors = sdata["image"].data.compute()
    stored = np.concatenate([(np.where(alpha > 0, colors, 0) / 255 * white).astype(dtype), alpha[None]])
    sdata.images["image"] = Image2DModel.parse(
        stored,
        dims=("c", "y", "x"),
        c_coords=list("rgba") if named else None,
        scale_factors=scale_factors,
        chunks=(1, 64, 64),
        transformations=get_transformation(sdata["image"], get_all=True),
    )
    (section,) = read_sections(sdata)
    expected = np.where(alpha > 0, colors, 255).transpose(1, 2, 0)
    np.testing.assert_allclose(section.image.levels[0].read(0, 240, 0, 320).astype(int), expected, atol=1)


def test_holes_of_a_warped_image_are_white_with_a_warning(sdata, caplog):
    pixels = (sdata["image"].data.compute() / 255).astype(np.float32)
    large = np.full((3, 2000, 2400), 240 / 255, dtype=np.float32)
    large[:, :240, :320] = pixels
    large[:, 300:350, 300:350] = np.nan
    level = read_sections(image_of(sdata, large))[0].image.levels[0]
    with caplog.at_level(logging.WARNING, "sthisto"):
        assert (level.read(300, 350, 300, 350) == 255).all()
        level.read(280, 350, 300, 350)
    assert caplog.text.count("pixels that are NaN: they are white") == 1
    with pytest.raises(ValueError, match="nothing but NaN"):
        read_sections(image_of(sdata, np.full((3, 240, 320), np.nan, dtype=np.float32)))


@pytest.mark.parametrize("brightest", [1.0, 255.0])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_read_as_the_uint8_they_stand_for(sdata, brightest, dtype):
    expected = read_sections(sdata)[0].patches(PatchSpec(16))[0].read()
    pixels = (sdata["image"].data.compute() * (brightest / 255)).astype(dtype)
    (section,) = read_sections(image_of(sdata, pixels))
    np.testing.assert_array_equal(section.patches(PatchSpec(16))[0].read(), expected)


@pytest.mark.parametrize("value", [-0.1, 256.0, np.inf])
def test_floats_outside_the_range_are_refused(sdata, value):
    pixels = np.full((3, 240, 320), 0.5, dtype=np.float32)
    pixels[1, 100, 100] = value
    with pytest.raises(ValueError, match="expected values between 0 and 1 or 0 and 255"):
        read_sections(image_of(sdata, pixels))


def test_coarse_levels_that_rounding_has_stretched_are_left_out():
    data = make_sdata(Region(centers=grid(320, 240, 60)))
    pixels = data["image"].data.compute()
    tree = Image2DModel.parse(pixels, dims=("c", "y", "x"), scale_factors=[2, 4], transformations={"slide": Identity()})
    stretched = tree["scale2"]["image"][:, :-1]
    tree["scale2"] = type(tree)(stretched.drop_vars("y").to_dataset(name="image"))
    del data.images["image"]
    data.images["image"] = tree
    set_transformation(data.images["image"], Identity(), "slide")
    (section,) = read_sections(data)
    assert [level.downsample for level in section.image.levels] == [1, 2]


def test_sections_are_found_without_reading_the_image():
    def refuse(block):
        msg = "read"
        raise AssertionError(msg)

    data = make_sdata()
    pixels = data["image"].data
    image_of(data, da.map_blocks(refuse, pixels, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)))
    assert len(read_sections(data)[0]) == 35


# µm


def test_um_come_from_the_coordinate_system_whose_unit_is_known(sdata):
    set_transformation(sdata["image"], Scale([0.5, 0.5], axes=("x", "y")), "slide")
    set_transformation(sdata["spots"], Scale([0.5, 0.5], axes=("x", "y")), "slide")
    assert read_sections(sdata)[0].um_per_px is None
    sdata.attrs[KEY] = {UM_PER_UNIT: {"slide": 0.8}}
    assert read_sections(sdata)[0].um_per_px == pytest.approx(0.4)
    assert read_sections(sdata, ElementKeys(um_per_px=0.3))[0].um_per_px == 0.3
    assert read_sections(sdata, ElementKeys(um_per_px={"spots": 0.2}))[0].um_per_px == 0.2
    with pytest.raises(ValueError, match="um_per_px"):
        read_sections(sdata, ElementKeys(um_per_px=0))


def test_brightness_of_a_float_image_is_that_of_its_tissue_wherever_that_is():
    pixels = np.zeros((3, 2000, 2000), dtype=np.float32)
    pixels[:, 500:700, 500:700] = 200
    assert _brightness(DataArray(pixels, dims=("c", "y", "x")), "image") == 1
    assert _brightness(DataArray(pixels / 255, dims=("c", "y", "x")), "image") == 255


def test_a_fluorescence_image_is_not_taken_for_he(sdata):
    old = sdata["image"]
    transformations = get_transformation(old, get_all=True)
    shape = old.shape if hasattr(old, "shape") else old["scale0"]["image"].shape
    names = ["DAPI", "ATP1A1/CD45/E-Cadherin", "18S", "AlphaSMA/Vimentin"]
    for n_channels in (4, 3):
        pixels = np.zeros((n_channels, *shape[1:]), dtype=np.uint8)
        sdata["image"] = Image2DModel.parse(
            pixels, dims=("c", "y", "x"), c_coords=names[:n_channels], transformations=transformations
        )
        with pytest.raises(ValueError, match=r"'DAPI'.*fluorescence"):
            read_sections(sdata)


def test_stated_um_that_contradict_the_data_are_said(sdata, caplog):
    sdata.attrs[KEY] = {UM_PER_UNIT: {read_sections(sdata)[0].coordinate_system: 0.5}}
    with caplog.at_level(logging.WARNING, "sthisto"):
        read_sections(sdata, ElementKeys(um_per_px=0.52))
        assert not caplog.text
        assert read_sections(sdata, ElementKeys(um_per_px=0.25))[0].um_per_px == 0.25
    assert "0.25 µm per px are stated for 'spots', whose array or coordinate system says 0.5" in caplog.text


@pytest.mark.parametrize("um_per_px", [0.25, 0.73])
def test_um_of_visium_come_from_the_distance_of_its_spots(um_per_px):
    row, column = np.mgrid[0:8, 0:16]
    on_lattice = (row + column) % 2 == 0
    row, column = row[on_lattice], column[on_lattice]
    centers = 100 + np.column_stack([column * 50, row * 50 * np.sqrt(3)]) / um_per_px
    width, height = (int(side) + 100 for side in centers.max(axis=0))
    noise = np.random.default_rng(0).normal(0, 0.5, centers.shape)
    turn = similarity(angle=30, flip=True)
    region = Region(centers=centers + noise, width=width, height=height, image_to_system=turn)
    data = make_sdata(region, shuffled=False)
    data.tables["counts"].obs[["array_row", "array_col"]] = np.column_stack([row, column])
    assert read_sections(data)[0].um_per_px == pytest.approx(um_per_px, rel=0.005)
    data.tables["counts"].obs["array_col"] //= 2
    assert read_sections(data)[0].um_per_px is None


@pytest.mark.parametrize("kind", ["circles", "polygons", "labels"])
def test_um_of_visium_hd_come_from_the_size_of_its_bins(kind):
    row, column = (axis.ravel() for axis in np.mgrid[0:10, 0:15])
    centers = np.column_stack([20 + 16.0 * column, 20 + 16.0 * row])
    region = Region("id_square_008um", centers=centers, kind=kind, radius=8)
    data = make_sdata(region, shuffled=False)
    data.tables["counts"].obs[["array_row", "array_col"]] = np.column_stack([row, column])
    assert read_sections(data)[0].um_per_px == pytest.approx(0.5, rel=1e-6)


def test_unknown_um_are_said_on_either_side(sdata, caplog):
    with caplog.at_level(logging.WARNING, "sthisto"):
        read_sections(sdata)[0].patches(PatchSpec(16, um_per_px=0.5))
    assert "µm per px of section 'spots' are unknown" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "sthisto"):
        read_sections(sdata, ElementKeys(um_per_px=0.5))[0].patches(PatchSpec(16))
    assert "µm per px of the patches are unknown" in caplog.text


def test_a_section_at_another_resolution_is_resampled_to_that_of_the_model(sdata):
    (section,) = read_sections(sdata, ElementKeys(um_per_px=0.25))
    narrow, wide = section.patches(PatchSpec(32, um_per_px=0.5, context=(1, 2)))
    assert (narrow.extent, wide.extent) == (64, 128)
    assert narrow.read().shape == wide.read().shape == (35, 32, 32, 3)


@pytest.mark.parametrize(
    ("names", "order"), [("rgb", "rgb"), ("bgr", "rgb"), (["a", "r", "g", "b"], "rgb"), ([0, 1, 2], None)]
)
def test_channels_are_taken_by_their_names(names, order):
    sdata = make_sdata()
    plain = np.asarray(next(iter(sdata.images.values())).data)
    stored = {"r": plain[0], "g": plain[1], "b": plain[2], "a": np.full_like(plain[0], 255)}
    pixels = plain if order is None else np.stack([stored[name] for name in names])
    sdata.images["image"] = Image2DModel.parse(
        pixels,
        dims=("c", "y", "x"),
        c_coords=list(names),
        transformations=get_transformation(sdata["image"], get_all=True),
    )
    (section,) = read_sections(sdata)
    np.testing.assert_array_equal(section.image.levels[0].read(0, 20, 0, 30), np.moveaxis(plain[:, :20, :30], 0, -1))


def test_a_region_named_twice_counts_once(two_regions):
    assert [section.name for section in read_sections(two_regions, ElementKeys(shapes_key=["A", "A"]))] == ["A"]


def test_an_image_too_coarse_for_the_patches_is_said(sdata, caplog):
    (section,) = read_sections(sdata, ElementKeys(um_per_px=2.0))
    with caplog.at_level(logging.WARNING, "sthisto"):
        section.patches(PatchSpec(size=32, um_per_px=1.0))
        assert not caplog.records
    with caplog.at_level(logging.INFO, "sthisto"):
        section.patches(PatchSpec(size=32, um_per_px=1.0))
    assert "Section 'spots': 35 spots, image 'image', µm per px: 2." in caplog.text
    with caplog.at_level(logging.WARNING, "sthisto"):
        section.patches(PatchSpec(size=32, um_per_px=0.5))
        section.patches(PatchSpec(size=32, um_per_px=0.5))
    assert caplog.text.count("are enlarged 4.0 times, because image 'image' is coarse: 2 µm per px") == 1
    assert "image_key" in caplog.text


@pytest.mark.parametrize(("um_per_px", "is_said"), [(2.4, False), (3.6, True)])
def test_an_image_too_coarse_to_see_cells_in_is_said_once(sdata, caplog, um_per_px, is_said):
    """As Space Ranger's hires image is, also where the patches are of few px."""
    (section,) = read_sections(sdata, ElementKeys(um_per_px=um_per_px))
    for _ in range(2):
        section.patches(PatchSpec(size=32, um_per_px=um_per_px))
    assert caplog.text.count("Image 'image' is coarse: 3.6 µm per px, too few px to see cells in") == int(is_said)


def test_a_patch_far_wider_than_the_image_is_refused(sdata):
    (section,) = read_sections(sdata, ElementKeys(um_per_px=0.001))
    with pytest.raises(
        ValueError, match=r"would be 77,000 px wide.* of 0\.001 µm each\. Correct um_per_px=… or patch_um"
    ):
        section.patches(PatchSpec(size=224, um_per_px=77 / 224))
    (section,) = read_sections(sdata, ElementKeys(um_per_px=0.1))
    assert section.patches(PatchSpec(size=224, um_per_px=77 / 224))[0].extent == pytest.approx(770)
