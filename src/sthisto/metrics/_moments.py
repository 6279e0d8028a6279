"""Per-gene sums of two matrices in one pass, compiled: five accumulators, four spots at a time."""

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
