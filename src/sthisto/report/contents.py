"""A report, part by part."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

from sthisto._sdata.keys import ElementKeys
from sthisto.report.cautions import cautions
from sthisto.report.intervals import intervals_block
from sthisto.report.maps import choose_genes, confidence_block, genes_block, n_pictures, quality_block
from sthisto.report.page import Block, Page, Table
from sthisto.report.pictures import share_of
from sthisto.report.scoring import headline, scores_block
from sthisto.report.subject import read_subject
from sthisto.report.training import method_block, passport_block

if TYPE_CHECKING:
    import pandas as pd
    from spatialdata import SpatialData

_PACKAGES = ("sthisto", "spatialdata", "anndata", "numpy", "scipy", "pandas", "scikit-learn", "torch", "timm")


def write_report(
    sdata: SpatialData | Sequence[SpatialData],
    path: Path,
    *,
    keys: ElementKeys,
    key: str,
    command: str,
    genes: Sequence[str] | None = None,
    alignment: pd.DataFrame | None = None,
) -> None:
    """Write a report of the prediction under a key.

    Parameters
    ----------
    keys
        The elements to use.
    command
        What repeats the report.
    genes
        Genes to draw. None: those of the highest, a middle and the lowest score.
    alignment
        What `tl.check_alignment` returned. None: not checked.
    """
    subject = read_subject(sdata, keys, key)
    drawn = choose_genes(subject, genes)
    most_bytes = share_of(n_pictures(subject))
    with mpl.rc_context({"text.parse_math": False}):
        blocks = [
            Block("Beware", items=cautions(subject)),
            method_block(subject),
            passport_block(subject),
            scores_block(subject, most_bytes),
            genes_block(subject, drawn, chosen=genes is not None, most_bytes=most_bytes),
            confidence_block(subject, most_bytes),
            intervals_block(subject, most_bytes),
            None if alignment is None else alignment_block(alignment),
            quality_block(subject),
            repeat_block(command),
        ]
    shown = [one for one in blocks if one is not None and (one.title != "Beware" or one.items)]
    names = ", ".join(section.name for section in subject.sections[:5])
    more = f" and {len(subject.sections) - 5} more" if len(subject.sections) > 5 else ""
    Page(f"{subject.label}: predicted expression of {names}{more}", headline(subject), shown).write(path)


def alignment_block(alignment: pd.DataFrame) -> Block:
    """Return what `tl.check_alignment` found."""
    text = ["Whether the spots lie where the image shows their tissue, from color and texture against expression."]
    return Block("Alignment", text, tables=[Table.of(alignment, "Alignment of spots and image")])


def repeat_block(command: str) -> Block:
    """Return versions, and what repeats the report."""
    found: list[list[Any]] = [["Python", platform.python_version()]]
    for name in _PACKAGES:
        try:
            found.append([name, metadata.version(name)])
        except metadata.PackageNotFoundError:
            continue
    return Block(
        "Versions and how to repeat it", tables=[Table("Versions", ["package", "version"], found)], code=command
    )
