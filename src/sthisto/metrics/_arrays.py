"""Matrices of spots and genes: checked, and handed out in blocks that fit a processor's cache or a little memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import scipy.sparse as sp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

    Matrix: TypeAlias = ArrayLike | sp.spmatrix | sp.sparray

_BLOCK_VALUES = 2**19


def as_array(values: Any, *, name: str) -> Any:
    """Return values as a numpy array; raise ValueError for lists of different lengths."""
    try:
        return np.asarray(values)
    except ValueError as error:
        msg = f"`{name}` is not rectangular: its rows have different lengths ({error}). Pass an array."
        raise ValueError(msg) from error


def check_matrix(x: Matrix, *, name: str) -> Any:
    """Return `x` as a numeric (n_spots, n_genes) array, or as a CSR matrix without repeated entries."""
    if sp.issparse(x):
        matrix: Any = x
        check_numeric(matrix.dtype, name=name)
        matrix = sp.csr_array(matrix)
        if not matrix.has_canonical_format:
            matrix = matrix.copy()
            matrix.sum_duplicates()
    else:
        matrix = as_array(x, name=name)
    if matrix.ndim != 2:
        msg = f"`{name}` must have the shape (n_spots, n_genes), found {matrix.shape}."
        raise ValueError(msg)
    check_numeric(matrix.dtype, name=name)
    return matrix.astype(np.float32) if matrix.dtype == np.float16 else matrix


def check_numeric(dtype: np.dtype[Any], *, name: str) -> None:
    """Raise TypeError where a type is none of real numbers."""
    if dtype.kind not in "fiub":
        msg = f"`{name}` must hold real numbers, found the type {dtype}."
        raise TypeError(msg)


def check_pair(truth: Matrix, prediction: Matrix) -> tuple[Any, Any]:
    """Return both matrices after checking that they have the same spots and genes, (n_spots, n_genes)."""
    truth, prediction = check_matrix(truth, name="truth"), check_matrix(prediction, name="prediction")
    if truth.shape != prediction.shape:
        msg = f"`truth` {truth.shape} and `prediction` {prediction.shape} must have the same spots and genes."
        raise ValueError(msg)
    return truth, prediction


def check_spotwise(values: ArrayLike, n_spots: int, *, name: str) -> NDArray[Any]:
    """Return `values` after checking that there is one for each spot, (n_spots,)."""
    array = as_array(values, name=name)
    if array.shape != (n_spots,):
        msg = f"`{name}` must have one value for each of the {n_spots} spots, found the shape {array.shape}."
        raise ValueError(msg)
    return array


def check_amounts(values: ArrayLike, n_spots: int, *, name: str) -> NDArray[np.float64]:
    """Return a number for each spot, (n_spots,) float64."""
    array = check_spotwise(values, n_spots, name=name)
    check_numeric(array.dtype, name=name)
    return array.astype(np.float64)


def check_groups(values: ArrayLike, n_spots: int, *, name: str) -> NDArray[Any]:
    """Return each spot's group, (n_spots,), after checking that none is missing and that all are of one kind."""
    array = check_spotwise(values, n_spots, name=name)
    if n_missing := int(pd.isna(array).sum()):
        msg = f"`{name}` is missing (NaN or None) for {n_missing} of {n_spots} spots. Give each spot a value."
        raise ValueError(msg)
    try:
        np.unique(array)
    except TypeError as error:
        kinds = sorted({type(value).__name__ for value in array})
        msg = f"`{name}` must hold values of one kind, found {', '.join(kinds)}. Pass text, or numbers."
        raise TypeError(msg) from error
    return array


def dense(block: Any) -> NDArray[np.floating]:
    """Return a block of genes, (n_spots, n_block), dense or sparse, as a C-ordered array of float32 or float64."""
    array = block.toarray() if sp.issparse(block) else block
    dtype = array.dtype if array.dtype in (np.float32, np.float64) else np.float64
    return np.ascontiguousarray(array, dtype=dtype)


def gene_blocks(*matrices: Any) -> Iterator[tuple[Any, ...]]:
    """Yield a slice of genes and those columns of every matrix as new float64 arrays, (n_spots, n_block)."""
    n_spots, n_genes = matrices[0].shape
    by_column = [m.tocsc() if sp.issparse(m) else m for m in matrices]
    step = max(16, 4 * _BLOCK_VALUES // max(n_spots, 1))
    for start in range(0, n_genes, step):
        genes = slice(start, min(start + step, n_genes))
        yield genes, *(np.array(dense(m[:, genes]), dtype=np.float64) for m in by_column)


def paired_blocks(truth: Any, prediction: Any) -> Iterator[tuple[slice, NDArray[np.float64], NDArray[np.float64]]]:
    """Yield blocks of genes, (n_spots, n_block), in which a value that is NaN in one matrix is NaN in both."""
    for genes, t, p in gene_blocks(truth, prediction):
        missing = np.isnan(t) | np.isnan(p)
        t[missing] = p[missing] = np.nan
        yield genes, t, p


def predicted_part(x: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which spots, (n_spots,) bool, and genes, (n_genes,) bool, form the part of `x` without NaN.

    Genes that are NaN everywhere were not predicted and are left out; of the rest, spots with any NaN are left out.
    """
    missing = np.isnan(x)
    genes = ~missing.all(axis=0)
    return ~missing[:, genes].any(axis=1), genes
