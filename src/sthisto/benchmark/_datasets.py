"""The public data sets of the benchmark: one entry holds all that a protocol, a paper's table or the command needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from spatialdata import SpatialData


@dataclass(frozen=True)
class Published:
    """What the DANet paper did on a data set.

    Attributes
    ----------
    name
        What its tables call the data set.
    test
        Sections that it tests, each by a model of all others.
    options
        Its settings of DANet, as options of `tl.fit`.
    methods
        The methods that its tables compare, and the rows of its ablations.
    best_genes_table
        Number of its table of the five best genes of each method.
    """

    name: str
    test: tuple[str, ...]
    options: Mapping[str, Any]
    methods: tuple[str, ...]
    best_genes_table: int


@dataclass(frozen=True)
class DataSet:
    """A public data set.

    Attributes
    ----------
    read
        Function of its folder, None to download it, and of the sections to read, None for all.
    patch
        `patch_size` and `patch_um` of `tl.fit`.
    published
        What the DANet paper did on it; None where the paper has no table of it.
    markers
        Genes that the paper shows.
    leiden
        Where there are no labels of the tissue, clusters of the measured expression take their place.
    """

    read: Callable[[Path | None, Sequence[str] | None], SpatialData]
    patch: Mapping[str, Any]
    published: Published | None = None
    markers: tuple[str, ...] = field(default=())
    leiden: bool = False


def _her2st(folder: Path | None, sections: Sequence[str] | None) -> SpatialData:
    """Read the named sections alone, where sections and not patients are named."""
    from sthisto.datasets import her2st

    named = sections if sections and all(re.fullmatch(r"[A-H]\d", name) for name in sections) else None
    return her2st(folder, sections=named)


def _liver(folder: Path | None, sections: Sequence[str] | None) -> SpatialData:
    from sthisto.datasets import liver

    return liver(folder)


def _hest(folder: Path | None, sections: Sequence[str] | None) -> SpatialData:
    from sthisto.datasets import hest

    if folder is None:
        msg = "hest needs --data, the folder that holds it."
        raise ValueError(msg)
    return hest(folder)


_METHODS = ("danet", "bleep", "stnet", "histogene")
_ABLATIONS = ("danet:image_encoder=resnet50", "danet:gene_encoder=identity", "danet:projection=mlp")
_TRAINED: Final = {"finetune": True, "max_epochs": 25}

DATASETS: Final[dict[str, DataSet]] = {
    "her2st": DataSet(
        _her2st,
        {"patch_size": 112, "patch_um": 77.0},  # 112 px of the finest images; others are coarser
        Published(
            "HER2+",
            test=("A1", "B1", "C1", "D1", "E1", "F1", "G2", "H1"),
            options=_TRAINED | {"learning_rate": 2e-4, "batch_by": "section"},
            methods=(*_METHODS, *_ABLATIONS),
            best_genes_table=5,
        ),
    ),
    "liver": DataSet(
        _liver,
        {"patch_size": 224},  # sections of one resolution: Visium's patches are in px
        Published(
            "GSE240429",
            test=("C1",),
            options=_TRAINED | {"learning_rate": 1e-3, "batch_size": 256},
            methods=(
                *(*_METHODS, *_ABLATIONS, "danet:objective=clip", "danet:aggregation=weighted"),
                *("danet:k=1,aggregation=simple", "danet:k=50", "danet:k=50,aggregation=weighted"),
            ),
            best_genes_table=2,
        ),
        markers=("HAL", "CYP3A4", "VWF", "SOX9", "KRT7", "ANXA4", "ACTA2", "DCN"),
        leiden=True,
    ),
    "hest": DataSet(_hest, {"patch_size": 224, "patch_um": 112.0}),  # HEST-Bench: 224 px of 0.5 µm
}
"""Name of a data set -> the data set."""
