"""Per-gene sums of two matrices in one pass, compiled: five accumulators, four spots at a time; one may be sparse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@numba.njit(nogil=True, fastmath={"contract", "reassoc"}, error_model="numpy")
def add_moments(
    x: NDArray[np.floating],
    y: NDArray[np.floating],
    x_shift: NDArray[np.float64],
    y_shift: NDArray[np.float64],
    sums: NDArray[np.float64],
) -> None:
    """Add the sums of a = x - x_shift and b = y - y_shift to `sums`, rows: a, b, a², b², ab, columns: genes."""
    n_spots, n_genes = x.shape
    whole = n_spots - n_spots % 4
    for i in range(0, whole, 4):
        for j in range(n_genes):
            s, t = x_shift[j], y_shift[j]
            a0, b0 = np.float64(x[i, j]) - s, np.float64(y[i, j]) - t
            a1, b1 = np.float64(x[i + 1, j]) - s, np.float64(y[i + 1, j]) - t
            a2, b2 = np.float64(x[i + 2, j]) - s, np.float64(y[i + 2, j]) - t
            a3, b3 = np.float64(x[i + 3, j]) - s, np.float64(y[i + 3, j]) - t
            sums[0, j] += (a0 + a1) + (a2 + a3)
            sums[1, j] += (b0 + b1) + (b2 + b3)
            sums[2, j] += a0 * a0 + a1 * a1 + a2 * a2 + a3 * a3
            sums[3, j] += b0 * b0 + b1 * b1 + b2 * b2 + b3 * b3
            sums[4, j] += a0 * b0 + a1 * b1 + a2 * b2 + a3 * b3
    for i in range(whole, n_spots):
        for j in range(n_genes):
            a, b = np.float64(x[i, j]) - x_shift[j], np.float64(y[i, j]) - y_shift[j]
            sums[0, j] += a
            sums[1, j] += b
            sums[2, j] += a * a
            sums[3, j] += b * b
            sums[4, j] += a * b


@numba.njit(nogil=True, fastmath={"contract", "reassoc"}, error_model="numpy")
def add_sparse_moments(
    pointers: NDArray[np.integer],
    genes: NDArray[np.integer],
    values: NDArray[np.number],
    spots: NDArray[np.integer],
    y: NDArray[np.floating],
    y_shift: NDArray[np.float64],
    of_x: NDArray[np.float64],
    of_y: NDArray[np.float64],
) -> None:
    """Add the sums of x, x² and xb to `of_x` (n_genes, 3), and those of b = y - y_shift and b² to `of_y` (2, n_genes).

    x are the rows `spots` of a CSR matrix, whose zeros add nothing, and y the same spots of a dense one.
    """
    n_spots, n_genes = y.shape
    for start in range(0, n_spots, 4):
        stop = min(start + 4, n_spots)
        if stop - start == 4:
            for j in range(n_genes):
                t = y_shift[j]
                b0, b1 = np.float64(y[start, j]) - t, np.float64(y[start + 1, j]) - t
                b2, b3 = np.float64(y[start + 2, j]) - t, np.float64(y[start + 3, j]) - t
                of_y[0, j] += (b0 + b1) + (b2 + b3)
                of_y[1, j] += b0 * b0 + b1 * b1 + b2 * b2 + b3 * b3
        else:
            for i in range(start, stop):
                for j in range(n_genes):
                    b = np.float64(y[i, j]) - y_shift[j]
                    of_y[0, j] += b
                    of_y[1, j] += b * b
        for i in range(start, stop):  # while these rows are in the cache
            for k in range(pointers[spots[i]], pointers[spots[i] + 1]):
                j = genes[k]
                x = np.float64(values[k])
                of_x[j, 0] += x
                of_x[j, 1] += x * x
                of_x[j, 2] += x * (np.float64(y[i, j]) - y_shift[j])
