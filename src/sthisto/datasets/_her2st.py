"""HER2-positive breast tumors on legacy Spatial Transcriptomics arrays, with H&E."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix, csr_matrix, vstack

from sthisto._sdata.slots import KEY, UM_PER_UNIT
from sthisto._utils.arguments import checked
from sthisto._utils.checks import Check
from sthisto._utils.logging import logger
from sthisto._utils.settings import settings
from sthisto._utils.validate import check_key
from sthisto.datasets._download import Repository
from sthisto.datasets._her2st_files import SectionFiles, find_sections

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

_REPOSITORY = "almaan/her2st"
_VARIABLE = "STHISTO_HER2ST"
_SPOT_DIAMETER_UM = 100.0
_LAYOUT = (
    "data/ST-cnts/A1.tsv.gz, data/ST-spotfiles/A1_selection.tsv, data/ST-imgs/A/A1/<any name>.jpg and, where there are "
    "labels, data/ST-pat/lbl/A1_labeled_coordinates.tsv"
)
_COMMIT = Check(
    "the id of a commit, 40 hexadecimal digits",
    lambda value: isinstance(value, str),
    lambda value: re.fullmatch("[0-9a-f]{40}", value) is not None,
)


@checked(revision=_COMMIT)
def her2st(
    path: str | os.PathLike[str] | None = None,
    *,
    sections: Sequence[str] | None = None,
    revision: str | None = None,
) -> SpatialData:
    """Read sections of HER2-positive breast tumors: 36 of 8 patients, A to H, with counts and H&E.

    Parameters
    ----------
    path
        Folder with the layout of the public repository: its root, or the folder ``data`` in it. None takes the folder
        that the environment variable STHISTO_HER2ST names; where it is not set, the files are downloaded to
        ``settings.cache_dir / "her2st"``. An interrupted download is resumed with the next file. Each file is checked
        against its git object id, when it arrives and whenever it is read; the list of ids is trusted when it is first
        fetched, since the authors published no checksums.
    sections
        Names such as ``["C2", "C3"]``. None reads all available sections.
    revision
        Commit of the repository to download, 40 hexadecimal digits, for work that must be repeated on the same files;
        it is kept in a folder of its own. None downloads the commit that is current at the first download, and stays
        with it; the log names it. A folder that is read from disk has no commit that could be checked.

    Returns
    -------
    For section ``"C2"``, all in the coordinate system ``"C2"``, in µm (there is no "global"):

    - ``images["C2_image"]``: uint8 RGB, three levels, decoded when it is used. Its µm per px come from the array, whose
      spots are 200 µm apart.
    - ``shapes["C2_spots"]``: circles of 100 µm, in pixels of the image.

    ``tables["counts"]`` annotates all sections: ``X`` (n_spots, n_genes) raw counts, CSR; ``obs`` has "section",
    "patient", "array_col" and "array_row" (x and y of the array), "in_tissue" and "annotation", the
    pathologist's label, or NaN: one section of each patient has labels. Genes differ by section, since a
    table lists only what was counted there; the union is used, and a gene that is not listed is 0.
    ``var["n_sections"]`` says how many of the sections list it. Counts of duplicated symbols within a table are summed.
    Spots that are in only one of the table of counts and the spot file are dropped, with a message.

    ``attrs["sthisto"]["um_per_unit"]`` is 1 for each coordinate system.

    Raises
    ------
    FileNotFoundError
        The folder or one of a section's files is missing.
    KeyError
        A section does not exist.
    OSError
        The download failed; the message lists the files that are needed.
    ValueError
        A downloaded file is damaged, `revision` is no commit's id, or the files are read from a folder.

    References
    ----------
    Andersson et al., Nature Communications 12:6012 (2021), doi:10.1038/s41467-021-26271-2. Data:
    https://github.com/almaan/her2st, and encrypted at doi:10.5281/zenodo.4751624. The repository states no license.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.her2st("her2st", sections=["C2"])  # doctest: +SKIP
    """
    from spatialdata import SpatialData

    files = find_sections(_folder(path, sections, revision))
    chosen = list(files) if sections is None else list(dict.fromkeys(sections))
    for section in chosen:
        check_key(section, files, name="sections", where="the folder")
    images, shapes, counts, obs = {}, {}, [], []
    for section in chosen:
        spots, expression = files[section].read()
        um_per_px = files[section].um_per_px()
        images[f"{section}_image"] = _image(files[section], um_per_px)
        shapes[f"{section}_spots"] = _circles(spots, section, um_per_px)
        counts.append(expression)
        obs.append(_observations(spots, section))
    sdata = SpatialData(images=images, shapes=shapes, tables={"counts": _table(counts, obs)})
    sdata.attrs[KEY] = {UM_PER_UNIT: dict.fromkeys(chosen, 1.0)}
    return sdata


def _folder(path: str | os.PathLike[str] | None, sections: Sequence[str] | None, revision: str | None) -> Path:
    configured = path if path is not None else os.environ.get(_VARIABLE)
    if configured is None:
        name = "her2st" if revision is None else f"her2st-{revision}"
        return _download(Repository(_REPOSITORY, settings.cache_dir / name, revision), sections)
    if revision is not None:
        origin = "`path`" if path is not None else f"the environment variable {_VARIABLE}"
        msg = f"`revision` chooses what is downloaded, but {origin} names the folder {configured}. Give one of the two."
        raise ValueError(msg)
    root = Path(configured).expanduser()
    for folder in (root / "data", root):
        if (folder / "ST-cnts").is_dir():
            return folder
    msg = f"{root} does not hold the her2st data: neither data/ST-cnts nor ST-cnts is there. Expected are {_LAYOUT}."
    raise FileNotFoundError(msg)


def _download(repository: Repository, sections: Sequence[str] | None) -> Path:
    root = repository.folder
    try:
        listed = repository.files()
        counts = [Path(file).name.split(".")[0] for file in listed if file.startswith("data/ST-cnts/")]
        names = [name for name in counts if name]
        for section in sections or ():
            check_key(section, names, name="sections", where=f"the repository {_REPOSITORY}")
        wanted = tuple(start for section in sections or names for start in _starts(section))
        for file, object_id in listed.items():
            if file.startswith(wanted):
                repository.fetch(file, object_id)
        logger.info("her2st: the files of commit %s of %s.", repository.revision(), _REPOSITORY)
    except OSError as error:
        msg = (
            f"{error} To work without network, put the files of https://github.com/{_REPOSITORY} into {root} or into "
            f"any folder that `path` or the environment variable {_VARIABLE} names: {_LAYOUT}."
        )
        raise OSError(msg) from error
    return root / "data"


def _starts(section: str) -> tuple[str, ...]:
    return (
        f"data/ST-cnts/{section}.",
        f"data/ST-spotfiles/{section}_",
        f"data/ST-imgs/{section[0]}/{section}/",
        f"data/ST-pat/lbl/{section}_",
    )


def _image(files: SectionFiles, um_per_px: float) -> object:
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Scale

    return Image2DModel.parse(
        files.lazy_image(),
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"],
        scale_factors=[2, 2],
        chunks=(3, 2048, 2048),
        transformations={files.section: Scale([um_per_px, um_per_px], axes=("x", "y"))},
    )


def _circles(spots: pd.DataFrame, section: str, um_per_px: float) -> object:
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import Scale

    return ShapesModel.parse(
        spots[["pixel_x", "pixel_y"]].to_numpy(),
        geometry=0,
        radius=_SPOT_DIAMETER_UM / 2 / um_per_px,
        index=pd.Index(np.arange(len(spots)), name="spot_id"),
        transformations={section: Scale([um_per_px, um_per_px], axes=("x", "y"))},
    )


def _observations(spots: pd.DataFrame, section: str) -> pd.DataFrame:
    columns = {
        "section": section,
        "patient": section[0],
        "annotation": spots["label"].to_numpy(),
        "in_tissue": spots["selected"].to_numpy(),
        "array_row": spots["array_y"].to_numpy(),
        "array_col": spots["array_x"].to_numpy(),
        "region": f"{section}_spots",
        "spot_id": np.arange(len(spots)),
    }
    return pd.DataFrame(columns, index=[f"{section}_{spot}" for spot in spots.index])


def _table(counts: list[pd.DataFrame], obs: list[pd.DataFrame]) -> AnnData:
    from anndata import AnnData
    from spatialdata.models import TableModel

    listed = pd.Series(np.concatenate([c.columns for c in counts])).value_counts(sort=False)
    genes = pd.Index(listed.index.astype(str))
    united = vstack([_widen(c, genes) for c in counts], format="csr")
    rows = pd.concat(obs).astype(dict.fromkeys(("section", "patient", "annotation", "region"), "category"))
    table = AnnData(X=united, obs=rows, var=pd.DataFrame({"n_sections": listed.to_numpy()}, index=genes))
    regions = list(rows["region"].cat.categories)
    return TableModel.parse(table, region=regions, region_key="region", instance_key="spot_id")


def _widen(counts: pd.DataFrame, genes: pd.Index) -> csr_matrix:
    """Give the counts of one section a column for every gene of all, (n_spots, n_genes)."""
    own = csr_matrix(counts.to_numpy(np.float32)).tocoo()
    columns = genes.get_indexer(counts.columns)
    return coo_matrix((own.data, (own.row, columns[own.col])), shape=(len(counts), len(genes))).tocsr()
