"""Exponential, logistic function and softplus in float32, without branches, so that loops over them vectorize."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

__all__ = ["exp_of_negative", "logistic", "softplus"]

_LOG2_E = np.float32(1.4426950408889634)
_ROUND = np.float32(12582912.0)
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(-2.12194440e-4)
_LOWEST = np.float32(-87.0)
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_P0, _P1, _P2, _P3, _P4, _P5 = (
    np.float32(c)
    for c in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
)
_MANTISSA = np.int32(23)
_EXPONENT_OF_ONE = np.int32(127 << 23)


@numba.njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def exp_of_negative(x: Any) -> Any:
    """Exponential of ``x <= 0``, to one unit in the last place; NaN stays NaN, below -87 it is exp(-87).

    Cephes' ``expf`` (Moshier 1989): x = k ln 2 + r, a polynomial in r, and k put into the exponent's bits. Adding and
    subtracting ``_ROUND`` rounds to an integer, which reordering would undo: hence no "reassoc" here.
    """
    x = _LOWEST if x < _LOWEST else x
    shifted = np.float32(x * _LOG2_E + _ROUND)
    k = shifted - _ROUND
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    p = ((((_P0 * r + _P1) * r + _P2) * r + _P3) * r + _P4) * r + _P5
    power = np.int32((shifted.view(np.int32) << _MANTISSA) + _EXPONENT_OF_ONE).view(np.float32)
    return (p * (r * r) + r + _ONE) * power


@numba.njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def logistic(x: Any) -> Any:
    """``1 / (1 + exp(-x))``."""
    decayed = exp_of_negative(-x if x > _ZERO else x)
    share = _ONE / (_ONE + decayed)
    return decayed * share if x < _ZERO else share


@numba.njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def softplus(x: Any) -> Any:
    """``log(1 + exp(x))``."""
    return (x if x > _ZERO else _ZERO) + np.log1p(exp_of_negative(-x if x > _ZERO else x))
