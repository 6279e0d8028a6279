import gzip

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.io import mmwrite
from tifffile import imwrite

import sthisto as sth
from sthisto._sections import read_sections

GENES = ["HAL", "CYP3A4", "VWF", "HAL"]
PITCH = 20.0


def barcodes(n, seed):
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list("ACGT"), 16)) + "-1" for _ in range(n)]


def write_section(root, number, name, *, zipped=False, header=False, image="image/GEX_C73_{}_Merged.tiff"):
    """Files of one section as GEO and BLEEP's repository have them: positions cover the whole array, in no order."""
    rng = np.random.default_rng(number)
    row, half = np.divmod(np.arange(24), 4)
    spots = pd.DataFrame({"barcode": barcodes(24, number), "in_tissue": 1, "row": row, "col": 2 * half + row % 2})
    spots["y"] = (30 + spots["row"] * PITCH * np.sqrt(3) / 2).round().astype(int)
    spots["x"] = (30 + spots["col"] * PITCH / 2).round().astype(int)
    spots.loc[20:, "in_tissue"] = 0
    folder = root / "data" / "filtered_expression_matrices" / str(number)
    positions = root / "data" / "tissue_pos_matrices"
    folder.mkdir(parents=True)
    positions.mkdir(parents=True, exist_ok=True)
    columns = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
    shuffled = spots.sample(frac=1, random_state=number).set_axis([*columns], axis=1)
    shuffled.to_csv(positions / f"tissue_positions_list_{number}.csv", index=False, header=header)
    counted = spots.iloc[:20].sort_values("barcode")
    counts = rng.poisson(3, (len(GENES), 20))
    counts[:, 0] = 0
    mmwrite(folder / "matrix.mtx", sp.coo_matrix(counts), field="integer")
    (folder / "barcodes.tsv").write_text("\n".join(counted["barcode"]) + "\n")
    features = [f"ENSG{i:011d}\t{gene}\tGene Expression" for i, gene in enumerate(GENES)]
    (folder / "features.tsv").write_text("\n".join(features) + "\n")
    if zipped:
        for file in list(folder.iterdir()):
            file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    pixels = rng.integers(0, 255, (160, 150, 3), dtype=np.uint8)
    path = root / image.format(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    imwrite(path, pixels)
    return counted.assign(counts=list(counts.T)), pixels


def test_spots_counts_and_pixels_belong_together(tmp_path):
    written = {name: write_section(tmp_path, i, name) for i, name in ((1, "A1"), (3, "C1"))}
    sdata = sth.datasets.liver(tmp_path)
    table = sdata["counts"]
    for section in read_sections(sdata):
        name = section.region.removesuffix("_spots")
        spots, pixels = written[name]
        spots = spots.set_index("barcode")
        own = [barcode.removeprefix(f"{name}_") for barcode in table.obs_names[section.rows]]
        np.testing.assert_array_equal(section.centres, spots.loc[own, ["x", "y"]])
        expected = np.stack(spots.loc[own, "counts"])
        found = table[section.rows, ["HAL", "CYP3A4", "VWF"]].X.toarray()
        np.testing.assert_array_equal(found, np.column_stack([expected[:, 0] + expected[:, 3], expected[:, 1:3]]))
        assert section.um_per_px == pytest.approx(100 / PITCH, rel=0.03)
        assert section.diameter == pytest.approx(55 / section.um_per_px, rel=1e-6)
        np.testing.assert_array_equal(sdata[f"{name}_image"].to_numpy(), pixels.transpose(2, 0, 1))
    assert set(table.obs["patient"]) == {"C73"}
    assert (np.asarray(table.X.sum(axis=1)).ravel() == 0).sum() == 2


@pytest.mark.parametrize(
    "layout",
    [
        {"zipped": True},
        {"header": True},
        {"image": "images/GSM7697870_GEX_C73_{}_Merged.tif"},
    ],
)
def test_other_spellings_of_the_layout_are_read(tmp_path, layout):
    write_section(tmp_path / "GSE240429_data", 3, "C1", **layout)
    sdata = sth.datasets.liver(tmp_path / "GSE240429_data", sections=["C1"])
    assert len(sdata["counts"]) == 20


def test_a_method_can_be_fitted_on_them(tmp_path):
    for i, name in ((1, "A1"), (3, "C1")):
        write_section(tmp_path, i, name)
    sdata = sth.datasets.liver(tmp_path)
    sth.pp.split(sdata, by="section", test=["C1_spots"], patient_key="patient")
    model = sth.tl.fit(sdata, method="colour", patch_size=16)
    sth.tl.predict(sdata, model)
    sth.tl.evaluate(sdata)
    assert set(sth.get.scores(sdata)["n_spots"]) == {19}


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"GSE240429 from GEO.*tissue_positions_list_1\.csv"):
        sth.datasets.liver(tmp_path)
    write_section(tmp_path, 3, "C1")
    with pytest.raises(KeyError, match=r"'A1'.*Available: 'C1'"):
        sth.datasets.liver(tmp_path, sections=["A1"])
    image = next(tmp_path.rglob("*.tiff"))
    image.rename(tmp_path / "other.tiff")
    with pytest.raises(FileNotFoundError, match=r"needs one image C1_Merged\.tif.*acc=GSM7697870"):
        sth.datasets.liver(tmp_path)
    (tmp_path / "other.tiff").rename(image)
    barcodes_file = next(tmp_path.rglob("barcodes.tsv"))
    barcodes_file.write_text("ACGT-1\n" + "\n".join(barcodes_file.read_text().split()[1:]) + "\n")
    with pytest.raises(ValueError, match=r"1 of 20 spots of section C1 have no position, such as 'ACGT-1'"):
        sth.datasets.liver(tmp_path)
    barcodes_file.unlink()
    with pytest.raises(FileNotFoundError, match=r"no barcodes\.tsv"):
        sth.datasets.liver(tmp_path)
