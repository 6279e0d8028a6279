"""The predicted spots of sections as they leave for other tools: genes, values, places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.utils import make_index_unique

from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.predictions import has_spread, predicted_names, predicted_values
from sthisto._sdata.record import check_predicted, symbols_of
from sthisto._sdata.sections import Section, read_sections
from sthisto._sdata.slots import SPATIAL, confidence, prediction, prediction_sd, seen
from sthisto._utils.validate import check_key, listed

if TYPE_CHECKING:
    from spatialdata import SpatialData

_OVERVIEW_PX = 2000
LIBRARY = "library_id"
"""``obs`` column of an exported AnnData that names the section of each spot."""


@dataclass(frozen=True)
class PredictedSection:
    """The spots of a section that have a prediction.

    Attributes
    ----------
    section
        The section, its rows and centers those with a prediction.
    genes
        Names of the genes, or of what was predicted in place of genes.
    key
        Key that they were predicted under.
    gene_symbols
        Column of ``var`` with the names of the genes; None is ``var_names``.
    """

    section: Section
    genes: Sequence[str]
    key: str
    gene_symbols: str | None = None

    @property
    def values(self) -> np.ndarray:
        """(n_spots, n_genes) prediction, float32."""
        return self.layer(prediction(self.key))

    def layer(self, name: str) -> np.ndarray:
        """Return (n_spots, n_genes) values of the prediction or of its spread, float32."""
        section = self.section
        return predicted_values(
            section.table, self.key, name, self.genes, rows=section.rows, gene_symbols=self.gene_symbols
        )

    @property
    def names(self) -> pd.Index:
        """Names of the spots."""
        return self.section.table.obs_names[self.section.rows]

    def column(self, name: str) -> np.ndarray | None:
        """Return (n_spots,) values of a column of ``obs``, None where there is none."""
        obs = self.section.table.obs
        return obs[name].to_numpy()[self.section.rows] if name in obs else None

    @property
    def confidence(self) -> np.ndarray | None:
        """(n_spots,) confidence, None for methods without one."""
        return self.column(confidence(self.key))


def read_predicted(
    sdata: SpatialData | Sequence[SpatialData],
    keys: ElementKeys,
    key: str,
    genes: str | Sequence[str] | None = None,
) -> list[PredictedSection]:
    """Return the sections that have a prediction under a key.

    Parameters
    ----------
    genes
        Gene or genes to keep. None: all that are modeled.

    Raises
    ------
    KeyError
        There is no prediction, or a gene is none of those that are modeled.
    ValueError
        An element is ambiguous, or no spot has a prediction.
    """
    found = []
    for section in read_sections(sdata, keys, check_image=False):
        check_predicted(section.table, key)
        symbols = symbols_of(section.table, key)
        modeled = predicted_names(section.table, key, symbols)
        chosen = [genes] if isinstance(genes, str) else list(modeled if genes is None else genes)
        for gene in chosen:
            check_key(gene, modeled, name="genes", where="the genes that are modeled")
        one = PredictedSection(section, chosen, key, symbols)
        known = np.isfinite(one.values).all(axis=1)
        if known.any():
            kept = replace(section, rows=section.rows[known], centers=section.centers[known])
            found.append(replace(one, section=kept))
    if not found:
        msg = f"No spot has a prediction under key_added={key!r}. Call sth.tl.predict(sdata, model) first."
        raise ValueError(msg)
    return found


def only_section(found: Sequence[PredictedSection], section: str | None) -> PredictedSection:
    """Return the section of a name, or the only one.

    Raises
    ------
    KeyError
        There is no section of that name.
    ValueError
        There are several.
    """
    by_name = {one.section.name: one for one in found}
    if section is not None:
        check_key(section, by_name, name="section", where="the sections with a prediction")
        return by_name[section]
    if len(by_name) > 1:
        msg = f"Several sections have a prediction: {listed(by_name)}. Pass section=…, and write a file for each."
        raise ValueError(msg)
    return found[0]


def predicted_anndata(found: Sequence[PredictedSection]) -> AnnData:
    """Return one AnnData of sections that were predicted with the same genes, as scanpy and squidpy expect it.

    Raises
    ------
    ValueError
        Sections have other genes than the first.
    """
    genes = list(found[0].genes)
    if any(list(one.genes) != genes for one in found):
        msg = "The sections were predicted for different genes. Pass genes=… that all of them have."
        raise ValueError(msg)
    layers = {}
    if all(has_spread(one.section.table, one.key) for one in found):
        layers["sd"] = np.concatenate([one.layer(prediction_sd(one.key)) for one in found])
    obs = _united([_observations(one) for one in found])
    obs.index = make_index_unique(obs.index)  # sections share the barcodes of their slides
    return AnnData(
        np.concatenate([one.values for one in found]),
        obs=obs,
        var=pd.DataFrame(index=pd.Index(genes, dtype=str)),
        layers=layers,
        obsm={SPATIAL: np.concatenate([one.section.centers for one in found])},
        uns={SPATIAL: {one.section.name: _library(one.section) for one in found}},
    )


def _united(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of all frames; columns of categories stay such, though each frame has other ones."""
    united = pd.concat(frames)
    for name in frames[0].select_dtypes("category"):
        united[name] = united[name].astype("category")
    return united


def _observations(one: PredictedSection) -> pd.DataFrame:
    """Return the columns of the spots that are not empty, and the name of their section."""
    obs = one.section.table.obs.iloc[one.section.rows].copy()
    obs = obs.drop(columns=[name for name in obs if obs[name].isna().all()])
    renamed = {confidence(one.key): "confidence", seen(one.key): "seen"}
    obs = obs.rename(columns={old: new for old, new in renamed.items() if new not in obs})
    for name in obs.select_dtypes("category"):
        obs[name] = obs[name].cat.remove_unused_categories()
    obs[LIBRARY] = pd.Categorical([one.section.name] * len(obs))
    return obs


def _library(section: Section) -> Mapping[str, Any]:
    """Return an entry of ``uns["spatial"]``: an overview of the image, and its px per px of the full resolution."""
    picture, _ = section.image.overview(max_size=_OVERVIEW_PX)
    factor = picture.shape[1] / section.image.width
    scalefactors: dict[str, float] = {"tissue_hires_scalef": factor, "spot_diameter_fullres": section.diameter}
    if section.um_per_px is not None:
        scalefactors["microns_per_pixel"] = section.um_per_px
    return {"images": {"hires": picture}, "scalefactors": scalefactors, "metadata": {}}
