"""Ridge regression of many genes on features, its strength chosen inside the training spots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, KFold
from torch import Tensor

ALPHAS = tuple(10.0 ** np.arange(-2, 6.5, 0.5))
_MOST_FOLDS = 5


@dataclass(frozen=True)
class LinearMap:
    """`x @ weight + bias`: centering, PCA and ridge in one.

    Attributes
    ----------
    weight
        (n_features, n_targets).
    bias
        (n_targets,).
    alpha
        The strength of ridge that was chosen.
    """

    weight: np.ndarray
    bias: np.ndarray
    alpha: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Map (n, n_features) to (n, n_targets) float32."""
        return np.asarray(x @ self.weight + self.bias, dtype=np.float32)


def fit_ridge(
    x: np.ndarray,
    y: np.ndarray,
    *,
    groups: np.ndarray,
    n_components: int | None = None,
    within_groups: bool = False,
    alphas: tuple[float, ...] = ALPHAS,
    seed: int = 0,
) -> LinearMap:
    """Fit ridge with the strength of the least squared error in cross-validation that holds out whole groups.

    Parameters
    ----------
    x, y
        (n, n_features) and (n, n_targets).
    groups
        (n,) section of each spot; with a single one, folds are random fifths of its spots.
    n_components
        Principal components that are kept before the regression; None keeps the features.
    within_groups
        Center features and targets by group first: learn from differences within groups alone, as regression with
        fixed effects does. The map's offset is that of the mean over all spots.
    alphas
        Strengths to choose among.
    seed
        Seed of PCA's randomized solver and of random folds.
    """
    x_mean, y_mean = x.mean(axis=0, dtype=np.float64), y.mean(axis=0, dtype=np.float64)
    if within_groups:
        x, y = _centered(x, groups), _centered(y, groups)
    n_groups = len(np.unique(groups))
    if n_groups > 1:
        folds = list(GroupKFold(min(n_groups, _MOST_FOLDS)).split(x, groups=groups))
    elif len(x) > 1:
        folds = list(KFold(min(len(x), _MOST_FOLDS), shuffle=True, random_state=seed).split(x))
    else:
        folds = []
    error = np.zeros(len(alphas))
    for train, held_out in folds:
        pca = _pca(x[train], n_components, seed)
        inner, outer = _project(pca, x[train]), _project(pca, x[held_out])
        for i, alpha in enumerate(alphas):
            predicted = Ridge(alpha=alpha).fit(inner, y[train]).predict(outer).reshape(y[held_out].shape)
            error[i] += np.square(predicted - y[held_out]).sum()
    alpha = float(alphas[int(np.argmin(error))])
    pca = _pca(x, n_components, seed)
    ridge = Ridge(alpha=alpha).fit(_project(pca, x), y)
    coefficients = np.atleast_2d(ridge.coef_).T
    weight = coefficients if pca is None else pca.components_.T @ coefficients
    return LinearMap(weight, y_mean - x_mean @ weight, alpha)


def _centered(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return (n, n_columns) less the mean of each row's group."""
    names, group = np.unique(groups, return_inverse=True)
    means = np.stack([values[group == i].mean(axis=0) for i in range(len(names))])
    return np.asarray(values - means[group])


def _pca(x: np.ndarray, n_components: int | None, seed: int) -> PCA | None:
    if n_components is None or min(x.shape) <= 1:
        return None
    return PCA(min(n_components, *x.shape), random_state=seed).fit(x)


def _project(pca: PCA | None, x: np.ndarray) -> np.ndarray:
    return x if pca is None else pca.transform(x)


def map_state(linear: LinearMap) -> dict[str, Tensor]:
    """Return a linear map as tensors."""
    return {
        "weight": torch.from_numpy(np.ascontiguousarray(linear.weight)),
        "bias": torch.from_numpy(np.ascontiguousarray(linear.bias)),
        "alpha": torch.tensor(linear.alpha, dtype=torch.float64),
    }


def map_axes(n_features: int) -> dict[str, tuple[int | str, ...]]:
    """Return the axes of the tensors of `map_state`."""
    return {"weight": (n_features, "genes"), "bias": ("genes",), "alpha": ()}


def map_from_state(state: Mapping[str, Tensor]) -> LinearMap:
    """Return the linear map of `map_state`."""
    return LinearMap(state["weight"].numpy(), state["bias"].numpy(), float(state["alpha"]))
