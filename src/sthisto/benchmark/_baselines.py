"""Baselines that stand beside predictions of other tools: fitted on the training spots, predicted on the test spots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.sections import as_cohort, read_sections
from sthisto._sdata.slots import FITTED, SPLIT
from sthisto._splits.folds import Fold
from sthisto.models import METHODS, load_encoder
from sthisto.models.registry import method_name
from sthisto.tl._fold_run import FoldContext, FoldRun
from sthisto.tl._to_score import is_test

if TYPE_CHECKING:
    from spatialdata import SpatialData

_ENCODER: Final = "texture"
"""Image encoder of the baselines that need one: it has no weights."""


def predict_baselines(
    sdata: SpatialData | Sequence[SpatialData],
    methods: Sequence[str],
    *,
    keys: ElementKeys,
    genes: Sequence[str],
    counts_layer: str | None,
    seed: int,
) -> dict[str, dict[str, np.ndarray]]:
    """Return what baselines predict, method -> name of a section -> (n_spots, n_genes) log1p; NaN but for test spots.

    Raises
    ------
    ValueError
        A method is unknown, or no spot is marked "train" or "val".
    """
    names = [method_name(method) for method in methods]
    sections = read_sections(sdata, replace(keys, shapes_key=None))
    train = [_is_fitted(section) for section in sections]
    if not any(spots.any() for spots in train):
        msg = (
            f"baselines=… are fitted on the spots that obs[{SPLIT!r}] marks 'train', and there are none. Call "
            "sth.pp.split first, or leave the baselines out."
        )
        raise ValueError(msg)
    test = [is_test(section) if SPLIT in section.table.obs else np.zeros(len(section), bool) for section in sections]
    fold = Fold("test", train, test)
    encoder = load_encoder(_ENCODER) if any(METHODS[name].uses_encoder for name in names) else None
    arguments: dict[str, Any] = keys.arguments() | {"shapes_key": None}
    arguments |= {"genes": list(genes), "layer": counts_layer, "target": "log1p"}
    by_name = {section.name: section for section in sections}
    found = {}
    for method, name in zip(methods, names, strict=True):
        needed = encoder if METHODS[name].uses_encoder else None
        own = FoldContext(as_cohort(sdata), sections, needed, arguments, counts_layer)
        arrays = own.predictions(FoldRun(fold, name, seed, {}))
        _, hidden = own.sides(fold)
        values = {}
        for i, section in enumerate(read_sections(hidden.sdata, own.keys(hidden))):
            of_name = by_name[hidden.names[i]]
            at = pd.Index(of_name.table.obs_names[of_name.rows]).get_indexer(section.table.obs_names[section.rows])
            columns = pd.Index(arrays["genes"]).get_indexer(list(genes))
            values[of_name.name] = np.full((len(of_name), len(genes)), np.nan, dtype=np.float32)
            values[of_name.name][at] = arrays[f"section {i}"][:, columns]
        found[method] = values
    return found


def _is_fitted(section: Any) -> np.ndarray:
    obs = section.table.obs.iloc[section.rows]
    return np.isin(obs[SPLIT].astype(str), FITTED) if SPLIT in obs else np.zeros(len(section), dtype=bool)
