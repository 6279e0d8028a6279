import gzip
import io
import shutil

import numpy as np
import pandas as pd
import pytest
import requests
import scipy.sparse as sp
from scipy.io import mmwrite
from tifffile import imwrite

import sthisto as sth
from sthisto import settings
from sthisto._sdata.sections import read_sections

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


def write_geo(root, number, name, folder=""):
    """The same files under GEO's names, packed."""
    written = write_section(root / "bleep", number, name)
    sample = f"GSM{7697867 + number}"
    own = root / folder
    own.mkdir(parents=True, exist_ok=True)
    names = {
        f"filtered_expression_matrices/{number}/matrix.mtx": f"{sample}_C73{name}_matrix.mtx",
        f"filtered_expression_matrices/{number}/barcodes.tsv": f"{sample}_C73{name}_barcodes.tsv",
        f"filtered_expression_matrices/{number}/features.tsv": f"{sample}_C73{name}_features.tsv",
        f"tissue_pos_matrices/tissue_positions_list_{number}.csv": f"{sample}_C73{name}_tissue_positions_list.csv",
    }
    for source, target in names.items():
        (own / f"{target}.gz").write_bytes(gzip.compress((root / "bleep" / "data" / source).read_bytes()))
    image = root / "bleep" / "image" / f"GEX_C73_{name}_Merged.tiff"
    (own / f"{sample}_GEX_C73_{name}_Merged.tiff.gz").write_bytes(gzip.compress(image.read_bytes()))
    shutil.rmtree(root / "bleep")
    return written


@pytest.fixture
def geo(tmp_path, monkeypatch):
    """GEO's server, with sections A1 and C1; the cache is empty."""
    monkeypatch.setattr(settings, "cache_dir", tmp_path / "cache")
    monkeypatch.setattr(settings, "progress", False)
    server = Server(tmp_path / "remote")
    server.written = {name: write_geo(server.root, i, name) for i, name in ((1, "A1"), (3, "C1"))}
    monkeypatch.setattr(requests, "get", server.get)
    return server


class Server:
    """Answers as GEO's file server does, from one folder for all samples."""

    def __init__(self, root):
        self.root, self.asked, self.cut = root, [], None

    def get(self, url, **_):
        self.asked.append(url)
        response = requests.Response()
        start, sample, suppl, name = url.rsplit("/", 3)
        path = self.root / name
        known = start == "https://ftp.ncbi.nlm.nih.gov/geo/samples/GSM7697nnn" and suppl == "suppl"
        response.status_code = 200 if known and name.startswith(sample) and path.is_file() else 404
        content = path.read_bytes() if response.ok else b""
        response.raw = io.BytesIO(content[:-9] if self.cut and self.cut in name else content)
        return response


def test_spots_counts_and_pixels_belong_together(tmp_path):
    written = {name: write_section(tmp_path, i, name) for i, name in ((1, "A1"), (3, "C1"))}
    sdata = sth.datasets.liver(tmp_path)
    table = sdata["counts"]
    for section in read_sections(sdata):
        name = section.region.removesuffix("_spots")
        spots, pixels = written[name]
        spots = spots.set_index("barcode")
        own = [barcode.removeprefix(f"{name}_") for barcode in table.obs_names[section.rows]]
        np.testing.assert_array_equal(section.centers, spots.loc[own, ["x", "y"]])
        expected = np.stack(spots.loc[own, "counts"])
        found = table[section.rows, ["HAL", "CYP3A4", "VWF"]].X.toarray()
        np.testing.assert_array_equal(found, np.column_stack([expected[:, 0] + expected[:, 3], expected[:, 1:3]]))
        assert section.um_per_px == pytest.approx(100 / PITCH, rel=0.03)
        assert section.diameter == pytest.approx(55 / section.um_per_px, rel=1e-6)
        np.testing.assert_array_equal(sdata[f"{name}_image"].to_numpy(), pixels.transpose(2, 0, 1))
    assert set(table.obs["patient"]) == {"C73"}
    assert (np.asarray(table.X.sum(axis=1)).ravel() == 0).sum() == 2


@pytest.mark.parametrize("folder", ["", "GSE240429/GSM7697870_C73C1"])
def test_files_under_the_names_of_geo_are_read(tmp_path, folder):
    spots, pixels = write_geo(tmp_path, 3, "C1", folder=folder)
    packed = next(tmp_path.rglob("*.tiff.gz"))
    with pytest.raises(FileNotFoundError, match=rf"found 0\. Unpack {packed}"):
        sth.datasets.liver(tmp_path)
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    sdata = sth.datasets.liver(tmp_path)
    np.testing.assert_array_equal(sdata["C1_image"].to_numpy(), pixels.transpose(2, 0, 1))
    expected = dict(zip("C1_" + spots["barcode"], spots["counts"].map(np.sum), strict=True))
    totals = np.asarray(sdata["counts"].X.sum(axis=1)).ravel()
    assert dict(zip(sdata["counts"].obs_names, totals, strict=True)) == expected


def test_what_is_missing_is_downloaded_once(geo):
    sdata = sth.datasets.liver(sections=["C1"])
    assert set(sdata["counts"].obs["section"]) == {"C1"}
    np.testing.assert_array_equal(sdata["C1_image"].to_numpy(), geo.written["C1"][1].transpose(2, 0, 1))
    assert len(geo.asked) == 5
    assert not list((settings.cache_dir / "liver").rglob("*.gz*"))
    sth.datasets.liver(sections=["C1"])
    assert len(geo.asked) == 5
    sth.datasets.liver(sections=["A1"])
    assert len(geo.asked) == 10


@pytest.mark.parametrize("file", ["matrix.mtx", "Merged.tiff"])
def test_a_download_that_broke_off_is_refused_and_the_next_try_goes_on(geo, file):
    geo.cut = file
    with pytest.raises(ValueError, match=rf"{file}\.gz arrived damaged"):
        sth.datasets.liver(sections=["C1"])
    there = list((settings.cache_dir / "liver").iterdir())
    assert not any(file in path.name or "gz" in path.name or "tmp" in path.name for path in there)
    n_asked, geo.cut = len(geo.asked), None
    assert len(sth.datasets.liver(sections=["C1"])["counts"]) == 20
    assert len(geo.asked) == n_asked + 5 - len(there)


@pytest.mark.parametrize("file", ["matrix.mtx", "Merged.tiff"])
def test_what_was_damaged_on_disk_is_downloaded_again(geo, file, caplog):
    sth.datasets.liver(sections=["C1"])
    (path,) = (settings.cache_dir / "liver").glob(f"*{file}")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    sth.datasets.liver(sections=["C1"])
    assert path.read_bytes() == whole
    assert f"{path} is damaged" in caplog.text
    assert len(geo.asked) == 6


def test_the_login_page_of_a_proxy_is_not_kept(geo, monkeypatch):
    for file in geo.root.iterdir():
        file.write_bytes(b"<html>Log in</html>")
    with pytest.raises(ValueError, match="it is a web page, perhaps the login page of a proxy"):
        sth.datasets.liver(sections=["C1"])
    assert not list((settings.cache_dir / "liver").iterdir())


def test_without_a_server_the_error_says_what_to_put_where(geo):
    with pytest.raises(OSError, match=r"(?s)GSM7697869_C73B1_matrix\.mtx\.gz could not be fetched.*cache/liver.*C73A1"):
        sth.datasets.liver(sections=["B1"])
    with pytest.raises(KeyError, match=r"'Z1'.*'A1', 'B1', 'C1', 'D1'"):
        sth.datasets.liver(sections=["Z1"])
    assert len(geo.asked) == 1


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
    model = sth.tl.fit(sdata, method="color", patch_size=16)
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
    with pytest.raises(FileNotFoundError, match=r"one image \*GEX_C73_C1_Merged\.tif .*/GSM7697870/suppl"):
        sth.datasets.liver(tmp_path)
    (tmp_path / "other.tiff").rename(image)
    barcodes_file = next(tmp_path.rglob("barcodes.tsv"))
    barcodes_file.write_text("ACGT-1\n" + "\n".join(barcodes_file.read_text().split()[1:]) + "\n")
    with pytest.raises(ValueError, match=r"1 of 20 spots of section C1 have no position, such as 'ACGT-1'"):
        sth.datasets.liver(tmp_path)
    barcodes_file.unlink()
    with pytest.raises(FileNotFoundError, match=r"no barcodes\.tsv"):
        sth.datasets.liver(tmp_path)
