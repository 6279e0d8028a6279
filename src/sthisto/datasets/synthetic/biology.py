"""The fixed biology of the synthetic sections: which cell type expresses which genes, and how they are counted."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from sthisto.datasets.synthetic.tissue import CELL_TYPES

_EPITHELIUM = ("tumor", "tumor_high_grade", "luminal", "basal")
_LYMPHOID = ("t_cell", "b_cell")

PROGRAMS: dict[str, tuple[tuple[str, ...], str]] = {
    "epithelium": (_EPITHELIUM, "EPCAM KRT8 KRT18 KRT19 KRT7 CDH1 CLDN3 CLDN4 CLDN7 ELF3 SPINT2 TACSTD2 CD24 ESRP1"),
    "tumor": (
        ("tumor", "tumor_high_grade"),
        "ERBB2 GRB7 PGAP3 MIEN1 STARD3 CDK12 S100A14 TMEM45B FASN GNAS XBP1 KRT81 CEACAM6 TFF3 AGR2 SPDEF FOXA1",
    ),
    "low grade": (("tumor",), "ESR1 PGR GATA3 TFF1 CA12 SLC39A6 AREG BCL2 NAT1 STC2 GREB1 ABAT"),
    "proliferation": (
        ("tumor_high_grade",),
        "MKI67 TOP2A CCNB1 CDK1 BIRC5 TYMS PCNA MCM2 UBE2C STMN1 TUBA1B HMGB2 TK1 CENPF VEGFA CA9 LDHA SLC2A1",
    ),
    "gland": (("luminal",), "MUC1 PIP SCGB2A2 SCGB1D2 LTF AZGP1 PIGR SLPI CSN3 MGP ANKRD30A WFDC2"),
    "myoepithelium": (("basal",), "KRT5 KRT14 KRT17 OXTR TP63 MYLK ACTG2 CNN1 TAGLN"),
    "matrix": (
        ("fibroblast", "activated_fibroblast"),
        "COL1A1 COL1A2 COL3A1 COL5A1 COL6A1 COL6A3 DCN LUM FN1 SPARC FBLN1 TIMP2 BGN MMP2 PCOLCE SERPINF1 VCAN",
    ),
    "resting stroma": (("fibroblast",), "CFD PI16 SFRP1 OGN DPT GSN IGFBP6 FBLN5 APOD C7 CCDC80"),
    "activated stroma": (
        ("activated_fibroblast",),
        "ACTA2 POSTN FAP THBS2 COL10A1 COL11A1 MMP11 SULF1 CTHRC1 INHBA LRRC15 COMP",
    ),
    "vessels": (("endothelial",), "PECAM1 VWF CDH5 ENG PLVAP CLDN5 ESAM RGS5 HBB HBA1"),
    "immune": (_LYMPHOID, "PTPRC CD52 CORO1A LCK RAC2 ARHGDIB CD37 LAPTM5 CXCR4 HCST"),
    "t cells": (("t_cell",), "CD3E CD3D CD2 CD4 CD8A TRBC1 TRBC2 IL7R CCL5 GZMA GZMK NKG7 CXCL12 CD69"),
    "b cells": (("b_cell",), "CD79A CD79B MS4A1 CD19 IGKC IGHG1 IGHG3 IGHM IGLC2 JCHAIN MZB1 CXCL13 CR2 LTB"),
    "fat": (("adipocyte",), "ADIPOQ PLIN1 PLIN4 SCD FABP4 LPL LEP CIDEC ADH1B GPD1 G0S2 LIPE"),
    "housekeeping": ((), "ACTB GAPDH B2M TMSB4X EEF1A1 RPLP0 RPL13 RPS18 RPS27A UBC PPIA TPT1 FTL FTH1 YWHAZ HPRT1"),
}
"""Program -> (cell types that carry it, its genes). Housekeeping genes have no spatial pattern."""

_RNA_CONTENT = {"tumor": 1.3, "tumor_high_grade": 1.8, "luminal": 1.2, "basal": 0.8, "adipocyte": 5.0, "b_cell": 0.6}
_RNA_CONTENT |= {"t_cell": 0.45, "fibroblast": 1.3, "activated_fibroblast": 1.4, "endothelial": 1.2}
_REACH_UM = 27.5
_BLEED_UM = 18.0
_DISPERSION = 0.08
_MEDIAN_COUNTS = 1800.0
_BIOLOGY_SEED = 2021


def gene_programs() -> dict[str, str]:
    """Gene -> program, in the order of the table's genes."""
    return {gene: name for name, (_, genes) in PROGRAMS.items() for gene in genes.split()}


def profiles() -> np.ndarray:
    """Share of each cell type's RNA that each gene makes up, (n_cell_types, n_genes); the same for every seed."""
    rng = np.random.default_rng(_BIOLOGY_SEED)
    program = gene_programs()
    level = rng.lognormal(0, 0.8, len(program))
    fold = rng.uniform(8, 20, len(program))
    table = np.ones((len(CELL_TYPES), len(program)))
    for column, name in enumerate(program.values()):
        carriers = PROGRAMS[name][0]
        table[[CELL_TYPES.index(c) for c in carriers], column] = fold[column]
        level[column] *= 6 if name == "housekeeping" else 1
    table *= level
    ubiquitous = [name == "housekeeping" for name in program.values()]
    marked = table[:, np.logical_not(ubiquitous)]
    marked *= np.median(marked.sum(axis=1)) / marked.sum(axis=1, keepdims=True)
    table[:, np.logical_not(ubiquitous)] = marked
    return table / table.sum(axis=1, keepdims=True)


def abundances(spots: np.ndarray, cells: np.ndarray, types: np.ndarray) -> np.ndarray:
    """RNA that each cell type leaves on each spot, (n_spots, n_cell_types).

    A spot of 55 µm catches what lies on it and, by diffusion, some of what lies beside it.
    """
    content = np.array([_RNA_CONTENT[cell_type] for cell_type in CELL_TYPES])
    return _caught(spots, cells, types) * content + 1e-2


def proportions(spots: np.ndarray, cells: np.ndarray, types: np.ndarray) -> np.ndarray:
    """Share of each cell type in the cells that a spot catches, (n_spots, n_cell_types); rows add up to one."""
    caught = _caught(spots, cells, types) + 1e-6
    return np.asarray(caught / caught.sum(axis=1, keepdims=True))


def _caught(spots: np.ndarray, cells: np.ndarray, types: np.ndarray) -> np.ndarray:
    """Cells of each type that a spot catches, by their distance, (n_spots, n_cell_types)."""
    pairs = cKDTree(spots).sparse_distance_matrix(cKDTree(cells), _REACH_UM + 2.5 * _BLEED_UM, output_type="coo_matrix")
    beyond = np.clip(pairs.data - _REACH_UM, 0, None)
    weight = csr_matrix((np.exp(-0.5 * (beyond / _BLEED_UM) ** 2), (pairs.row, pairs.col)), shape=pairs.shape)
    return np.asarray(weight @ np.eye(len(CELL_TYPES))[types])


def batch_shift(rng: np.random.Generator) -> np.ndarray:
    """How one patient's RNA differs from the next one's, gene by gene, (n_genes,)."""
    return rng.lognormal(0, 0.25, len(gene_programs()))


def sample_counts(abundance: np.ndarray, shift: np.ndarray, rng: np.random.Generator) -> csr_matrix:
    """Draw counts (n_spots, n_genes): negative binomial about the mixture, with log-normal library sizes."""
    mixture = (abundance @ profiles()) * shift
    mixture /= mixture.sum(axis=1, keepdims=True)
    cellularity = abundance.sum(axis=1) / np.median(abundance.sum(axis=1))
    library = _MEDIAN_COUNTS * np.sqrt(np.clip(cellularity, 0.1, 10)) * rng.lognormal(0, 0.45, len(abundance))
    mean = mixture * library[:, None]
    rate = rng.gamma(1 / _DISPERSION, _DISPERSION * mean)
    return csr_matrix(rng.poisson(rate).astype(np.float32))
