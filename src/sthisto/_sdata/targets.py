"""What a model predicts in place of genes: means over sets of genes, or proportions of cell types."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from sthisto._sdata.expression import Normalization, Target
from sthisto._sdata.measured import read_proportions
from sthisto._sdata.sections import Section
from sthisto._sdata.tables import gene_names
from sthisto._sdata.training import is_known, resolve_normalization
from sthisto._utils.logging import logger
from sthisto._utils.targets import OBSM, SET_MEANS, is_proportions
from sthisto._utils.validate import check_key, listed

_MOST_OFF_ONE: Final = 1e-3
"""How far the sum of a row may be from one before it is said that rows are scaled."""

TargetSets = Mapping[str, Sequence[str]] | str | os.PathLike[str]


def resolve_scale(
    sections: Sequence[Section],
    roles: Sequence[np.ndarray],
    *,
    layer: str | None,
    target: Target | str | None,
    target_sets: TargetSets | None,
    gene_symbols: str | None,
) -> Normalization:
    """Return the scale to fit on: of genes, of sets of genes, or of proportions.

    Parameters
    ----------
    sections, roles
        Sections with training spots, and the (n_spots,) roles of their spots.
    layer, target, target_sets, gene_symbols
        Arguments of `tl.fit`.

    Raises
    ------
    KeyError
        No gene of a set is in the tables, or the slot of ``obsm`` is missing.
    ValueError
        Arguments exclude each other, or values are not what they should be.
    """
    if target_sets is not None:
        if target not in (None, "pearson_residuals"):
            msg = f"target_sets=… are means of Pearson residuals, so target={target!r} can't be. Leave one of them out."
            raise ValueError(msg)
        counts = resolve_normalization(sections, roles, layer=layer, target="pearson_residuals")
        if counts.target != "pearson_residuals":
            msg = "target_sets=… needs raw counts. Pass layer=…"
            raise ValueError(msg)
        return replace(counts, target=SET_MEANS, targets=_measured_sets(sections, read_sets(target_sets), gene_symbols))
    if target is None or not is_proportions(target):
        return resolve_normalization(sections, roles, layer=layer, target=target)  # type: ignore[arg-type]
    names = [proportion_names(section, target.removeprefix(OBSM)) for section in sections]
    if different := [section.name for section, own in zip(sections, names, strict=True) if set(own) != set(names[0])]:
        msg = f"{target!r} has other columns in {listed(different)} than in {sections[0].name!r}."
        raise ValueError(msg)
    scale = Normalization(target, layer, targets=tuple((name,) for name in names[0]))
    for section, role in zip(sections, roles, strict=True):
        _check_proportions(section, scale, np.flatnonzero(is_known(role)))
    return scale


def read_sets(target_sets: TargetSets) -> dict[str, tuple[str, ...]]:
    """Return set -> its genes, of a mapping or of a GMT file.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is no GMT, a name repeats, or a set is empty.
    """
    if not isinstance(target_sets, Mapping):
        return _read_gmt(Path(target_sets).expanduser())
    if not target_sets:
        msg = "target_sets=… has no set of genes. Leave it out to model genes."
        raise ValueError(msg)
    if text := [name for name, genes in target_sets.items() if isinstance(genes, str)]:
        msg = f"The set {text[0]!r} of target_sets is the text {target_sets[text[0]]!r}; expected a list of genes."
        raise ValueError(msg)
    lists = {name: sorted(genes) if isinstance(genes, Set) else genes for name, genes in target_sets.items()}
    sets = {str(name): tuple(dict.fromkeys(str(gene) for gene in genes)) for name, genes in lists.items()}
    for name, genes in sets.items():
        if not genes or any("\t" in text or "\n" in text for text in (name, *genes)):
            msg = f"The set {name!r} of target_sets is empty, or a name in it holds a tab or a line break."
            raise ValueError(msg)
    return sets


def _read_gmt(path: Path) -> dict[str, tuple[str, ...]]:
    if not path.is_file():
        msg = f"There is no file {path}. Pass a GMT file, or a mapping from set to genes, as target_sets=…"
        raise FileNotFoundError(msg)
    sets: dict[str, tuple[str, ...]] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        msg = f"{path} is no text in UTF-8: {error}. Save it as such, and without compression."
        raise ValueError(msg) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, *rest = (part.strip() for part in line.split("\t"))
        genes = tuple(dict.fromkeys(gene for gene in rest[1:] if gene))
        if name in sets:
            msg = f"Line {number} of {path} is the second set named {name!r}. Rename or remove one."
            raise ValueError(msg)
        if not name or not genes:
            msg = (
                f"Line {number} of {path} is no set of genes: expected a name, a description and genes, separated "
                "by tabs."
            )
            raise ValueError(msg)
        sets[name] = genes
    if not sets:
        msg = f"{path} holds no set of genes."
        raise ValueError(msg)
    return sets


def _measured_sets(
    sections: Sequence[Section], sets: Mapping[str, Sequence[str]], gene_symbols: str | None
) -> tuple[tuple[str, ...], ...]:
    """Return (set, *genes) with the genes that all tables have; a warning says which are left out."""
    tables = {id(section.table): section.table for section in sections}.values()
    known = [set(gene_names(table, gene_symbols)) for table in tables]
    found = {name: [gene for gene in genes if all(gene in one for one in known)] for name, genes in sets.items()}
    if empty := [name for name, genes in found.items() if not genes]:
        msg = (
            f"No gene of {listed(empty)} of target_sets is in the table; the first are {listed(sets[empty[0]], 5)}. "
            "Pass gene_symbols=… if a column of var names them, or leave these sets out."
        )
        raise KeyError(msg)
    if short := [
        f"{name} ({len(own)} of {len(sets[name])})" for name, own in found.items() if len(own) < len(sets[name])
    ]:
        logger.warning("Genes of target_sets that are not in the table are left out: %s.", listed(short, 5))
    return tuple((name, *genes) for name, genes in found.items())


def proportion_names(section: Section, key: str) -> list[str]:
    """Return the names of the columns of a slot of ``obsm``; without any, the key and a number."""
    check_key(key, section.table.obsm, name="target", where="the slots of obsm")
    names = [str(name) for name in read_proportions(section, key).columns]
    if len(set(names)) < len(names) or any("\t" in name or "\n" in name for name in names):
        msg = f"The columns of obsm[{key!r}] need names of their own, without tabs and line breaks: {listed(names)}."
        raise ValueError(msg)
    return names


def _check_proportions(section: Section, scale: Normalization, spots: np.ndarray) -> None:
    key = scale.target.removeprefix(OBSM)
    values = read_proportions(section, key).to_numpy()[section.rows[spots]]
    known = values[np.isfinite(values).all(axis=1)]
    if values.shape[1] < 2 or not len(known) or known.min() < 0:
        msg = (
            f"obsm[{key!r}] of section {section.name!r} holds no proportions: expected at least two columns, none "
            f"negative; found {values.shape[1]} columns, {len(known)} finite rows and the least value "
            f"{known.min() if known.size else float('nan'):.3g}."
        )
        raise ValueError(msg)
    if np.abs(known.sum(axis=1) - 1).max() > _MOST_OFF_ONE:
        logger.warning("Rows of obsm[%r] of section %r do not add up to one: each is scaled.", key, section.name)
