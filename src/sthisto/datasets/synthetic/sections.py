"""Synthetic sections of the public interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.sparse import vstack

from sthisto._sdata.slots import KEY, SPATIAL, UM_PER_UNIT
from sthisto._utils.arguments import checked
from sthisto._utils.checks import number
from sthisto.datasets.synthetic import biology
from sthisto.datasets.synthetic.brushes import prepare_brushes
from sthisto.datasets.synthetic.image import draw_section, draw_stain, nuclei_of
from sthisto.datasets.synthetic.tissue import CELL_TYPES, Tissue, grow_tissue

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix
    from spatialdata import SpatialData

_SPOT_DIAMETER_UM = 55.0
_SCANNER_UM_PER_PX = 0.25
_PATIENTS = 3


@checked(um_per_px=number(above=0, most=100))
def synthetic(
    *,
    n_sections: int = 3,
    n_patients: int | None = None,
    n_spots: int = 300,
    um_per_px: float = 0.8,
    nuclei: bool = False,
    cell_types: bool = False,
    seed: int = 0,
) -> SpatialData:
    """Draw sections that look like H&E and count the genes of the cells that were drawn.

    The sections hold tumor of two grades, collagen, glands, vessels, lymphocytes and fat. Each patient has a stain
    and a batch effect of its own. Genes and biology are the same for every seed, which only draws the sections, so a
    model that was trained on one seed predicts another: ridge regression on frozen efficientnet_lite0 features (224 px)
    of two patients reaches a mean `pcc_residual` of 0.55 on the third patient and of 0.59 on another seed, where a
    spot's depth scores -0.01; their `pcc` is 0.48 and 0.50, that of depth 0.08 and 0.10
    (``python benchmarks/synthetic_ridge.py``).

    Parameters
    ----------
    n_sections
        Sections; they are dealt to the patients in turn.
    n_patients
        Patients, at most `n_sections`. None is three, or as many as there are sections where these are fewer.
    n_spots
        Spots of each section, all on tissue, on a hexagonal array (pitch 100 µm, diameter 55 µm). The tissue grows
        with it.
    um_per_px
        Resolution of the images in µm per pixel. A patch of 112 px is 90 µm at the default, one of 224 px 179 µm.
    nuclei
        Whether to add where each nucleus was drawn, and of which cell type.
    cell_types
        Whether to add the share of each cell type in the cells that a spot catches.
    seed
        Draws layout, stain, batch and counts.

    Returns
    -------
    A SpatialData without conventional names, as in real data. For section ``"S1"``:

    - ``images["S1_image"]``: uint8, channels r, g, b, three levels.
    - ``shapes["S1_spots"]``: circles in the pixels of an imagined scanner, not those of the image.
    - With `nuclei`, ``points["S1_nuclei"]``: x and y of the middle of each nucleus in px of the image, and "cell_type".
    - All are aligned in the coordinate system ``"S1"``, in µm, the only one that they share. There is no "global".

    ``tables["expression"]`` annotates all sections, in shuffled order. ``X`` are raw counts (n_sections * n_spots,
    n_genes), CSR; ``obs`` has "section", "patient", "in_tissue", "array_row", "array_col" and "annotation" (the region
    that was drawn: "tumor", "stroma", "immune", "gland" or "fat"); with `cell_types`, ``obsm["cell_types"]`` is a
    DataFrame with the shares, which add up to one; ``var["program"]`` says what a gene stands for, "housekeeping" genes
    have no spatial pattern. ``attrs["sthisto"]["um_per_unit"]`` is 1 for each coordinate system.

    Raises
    ------
    ValueError
        A number is not positive, there are more patients than sections, or fewer than 20 spots a section.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic(n_sections=2, n_patients=2, n_spots=60)
    >>> sdata["expression"].shape[0]
    120
    """
    from spatialdata import SpatialData

    n_patients = min(_PATIENTS, n_sections) if n_patients is None else n_patients
    _check(n_sections, n_patients, n_spots)
    rng = np.random.default_rng(seed)
    brushes = prepare_brushes(um_per_px, rng)
    patients = [(draw_stain(rng), biology.batch_shift(rng)) for _ in range(n_patients)]
    images, shapes, points, counts, obs, centers, shares = {}, {}, {}, [], [], [], []
    for i in range(n_sections):
        section, patient = f"S{i + 1}", i % n_patients
        stain, shift = patients[patient]
        tissue = grow_tissue(n_spots, rng)
        pixels = draw_section(tissue, stain, brushes, rng)
        pose = _pose(rng)
        images[f"{section}_image"] = _image(pixels, section, pose @ np.diag([um_per_px, um_per_px, 1.0]))
        shapes[f"{section}_spots"] = _spots(tissue, section, pose)
        if nuclei:
            points[f"{section}_nuclei"] = _nuclei(tissue, um_per_px, images[f"{section}_image"])
        abundance = biology.abundances(tissue.spots, tissue.cells, tissue.types)
        counts.append(biology.sample_counts(abundance, shift, rng))
        obs.append(_observations(tissue, section, f"P{patient + 1}"))
        centers.append(tissue.spots / um_per_px)
        if cell_types:
            shares.append(biology.proportions(tissue.spots, tissue.cells, tissue.types))
    table = _table(counts, obs, centers, shares, rng)
    sdata = SpatialData(images=images, shapes=shapes, points=points, tables={"expression": table})
    sdata.attrs[KEY] = {UM_PER_UNIT: {f"S{i + 1}": 1.0 for i in range(n_sections)}}
    return sdata


def _check(n_sections: int, n_patients: int, n_spots: int) -> None:
    if n_patients > n_sections:
        msg = f"`n_patients`={n_patients} is more than `n_sections`={n_sections}. Give every patient a section."
        raise ValueError(msg)
    if n_spots < 20:
        msg = f"`n_spots`={n_spots} is too small for a tissue with regions; use at least 20."
        raise ValueError(msg)


def _pose(rng: np.random.Generator) -> np.ndarray:
    """How the section lies on the slide, (3, 3): µm of the drawing to µm of the coordinate system."""
    angle = rng.uniform(-np.pi / 10, np.pi / 10)
    shift = rng.uniform(200, 2000, 2)
    return np.array([[np.cos(angle), -np.sin(angle), shift[0]], [np.sin(angle), np.cos(angle), shift[1]], [0, 0, 1]])


def _image(pixels: np.ndarray, section: str, to_um: np.ndarray) -> object:
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Affine, Scale, Sequence

    um_per_px = float(np.hypot(*to_um[:2, 0]))
    rigid = to_um @ np.diag([1 / um_per_px, 1 / um_per_px, 1])
    axes = ("x", "y")
    transformation = Sequence([Scale([um_per_px, um_per_px], axes=axes), Affine(rigid, axes, axes)])
    return Image2DModel.parse(
        pixels,
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"],
        scale_factors=[2, 2],
        transformations={section: transformation},
    )


def _spots(tissue: Tissue, section: str, pose: np.ndarray) -> object:
    """Circles in a scanner's frame, which `pose`, (3, 3), places: 0.25 µm per px, turned by 90 degrees, y upwards."""
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import Affine

    to_drawing = np.array([[0, _SCANNER_UM_PER_PX, 0], [_SCANNER_UM_PER_PX, 0, 0], [0, 0, 1.0]])
    homogeneous = np.column_stack([tissue.spots, np.ones(len(tissue.spots))])
    intrinsic = np.linalg.solve(to_drawing, homogeneous.T).T[:, :2]
    return ShapesModel.parse(
        intrinsic,
        geometry=0,
        radius=_SPOT_DIAMETER_UM / 2 / _SCANNER_UM_PER_PX,
        index=pd.Index(np.arange(len(intrinsic)), name="spot_id"),
        transformations={section: Affine(pose @ to_drawing, ("x", "y"), ("x", "y"))},
    )


def _nuclei(tissue: Tissue, um_per_px: float, image: object) -> object:
    """Points of all nuclei that lie in the image, in its pixels."""
    from spatialdata.models import PointsModel
    from spatialdata.transformations import get_transformation

    xy = nuclei_of(tissue)[0] / um_per_px
    inside = ((xy > 0) & (xy < tissue.side / um_per_px)).all(axis=1)
    names = pd.Categorical.from_codes(tissue.types, categories=list(CELL_TYPES))[inside]
    frame = pd.DataFrame({"x": xy[inside, 0], "y": xy[inside, 1], "cell_type": names})
    return PointsModel.parse(frame, transformations=get_transformation(image, get_all=True))


def _observations(tissue: Tissue, section: str, patient: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "section": section,
            "patient": patient,
            "annotation": tissue.annotate(),
            "in_tissue": 1,
            "array_row": tissue.array[:, 0],
            "array_col": tissue.array[:, 1],
            "region": f"{section}_spots",
            "spot_id": np.arange(len(tissue.spots)),
        },
        index=[f"{section}_{row}x{col}" for row, col in tissue.array],
    )


def _table(
    counts: list[csr_matrix],
    obs: list[pd.DataFrame],
    centers: list[np.ndarray],
    shares: list[np.ndarray],
    rng: np.random.Generator,
) -> AnnData:
    from anndata import AnnData
    from spatialdata.models import TableModel

    rows = pd.concat(obs)
    order = rng.permutation(len(rows))
    rows = rows.iloc[order].astype(dict.fromkeys(("section", "patient", "annotation", "region"), "category"))
    program = biology.gene_programs()
    genes = pd.DataFrame({"program": pd.Categorical(list(program.values()))}, index=list(program))
    obsm = {SPATIAL: np.concatenate(centers)[order]}
    if shares:
        obsm["cell_types"] = pd.DataFrame(np.concatenate(shares)[order], index=rows.index, columns=list(CELL_TYPES))
    table = AnnData(X=vstack(counts, format="csr")[order], obs=rows, var=genes, obsm=obsm)
    regions = list(rows["region"].cat.categories)
    return TableModel.parse(table, region=regions, region_key="region", instance_key="spot_id")
