"""Every public function of arrays, called with nonsense for each argument in turn: computed, or refused by name."""

import inspect
import traceback
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import sthisto
from sthisto import metrics

SOURCE = str(Path(sthisto.__file__).parent)
NAN, INF = float("nan"), float("inf")
COUNTS = np.random.default_rng(0).poisson(3, (20, 6)).astype(float)
PREDICTION = COUNTS + np.random.default_rng(1).normal(size=COUNTS.shape)
CENTERS = np.random.default_rng(2).random((20, 2)) * 10
USUAL = {
    **dict.fromkeys(("truth", "x", "values", "target", "counts"), COUNTS),
    **dict.fromkeys(("prediction", "residuals"), PREDICTION),
    **dict.fromkeys(("totals", "covariates"), COUNTS.sum(axis=1)),
    "graph": metrics.spatial_graph(CENTERS),
    "coordinates": CENTERS,
    "size": 3.0,
    "reference": [COUNTS, PREDICTION],
    "labels": list("ab") * 10,
    "blocks": [0, 1] * 10,
    "section": [0] * 10 + [1] * 10,
    "predictions": {"a": PREDICTION, "b": COUNTS},
    "metric": metrics.pearson,
    "score": lambda t, p: (t - p).sum(0),
    "training": [COUNTS, PREDICTION],
}
OWN = {
    "cluster": {"n_clusters": 2},
    "paired_difference": {"reference": "a"},
    "partial_pearson": {"covariates": COUNTS[:, :1]},
}
SCALARS = [
    None,
    True,
    False,
    0,
    -1,
    2.5,
    NAN,
    INF,
    -INF,
    10**30,
    1e300,
    "",
    " ",
    "nope",
    "False",
    b"x",
    np.float32(3e38),
]
LISTS = [[], (), {}, [None], ["a"], [NAN], {"a": 1}, {"a": None}, [[1, 2], [3]], range(3), set(), [COUNTS], [[COUNTS]]]
ROWS = [np.arange(20), np.full(20, NAN), ["a"] * 20, [None] * 20, [1, "a"] * 10, -np.arange(20.0), np.zeros(20)]
ARRAYS = [
    *(np.zeros(shape) for shape in [(), 0, 3, (0, 6), (20, 0), (2, 2, 2), (20, 6)]),
    *(np.full((20, 6), value) for value in (NAN, INF, 1e308, -1e308)),
    *(COUNTS.astype(kind) for kind in (object, str, complex, bool, np.float16, np.uint8)),
    *(
        -COUNTS,
        COUNTS[:, :1],
        COUNTS[:1],
        COUNTS[:5],
        np.ma.array(COUNTS, mask=COUNTS > 2),
        np.tile(COUNTS[0], (20, 1)),
    ),
    *(sp.csr_matrix((20, 6)), sp.coo_array(COUNTS), sp.csr_matrix(COUNTS[:, :2]), sp.csr_array(COUNTS.astype(complex))),
    *(pd.DataFrame(COUNTS), pd.DataFrame(COUNTS.astype(str)), pd.DataFrame(), pd.Series(range(20))),
]
NONSENSE = [*SCALARS, *LISTS, *ROWS, *ARRAYS, object(), Path("x")]
FUNCTIONS = {name: value for name in metrics.__all__ if inspect.isfunction(value := getattr(metrics, name))}
FUNCTIONS["SiblingReference.fit"] = metrics.SiblingReference.fit
FUNCTIONS["SiblingReference.predict"] = metrics.SiblingReference.fit([COUNTS], n_components=2).predict
del FUNCTIONS["noise_ceiling"]  # reproducibility by its name in 0.1


def is_ours(error, argument):
    """Return whether an error was raised by the package, is of a plain type, and names what is wrong."""
    raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
    of_type = type(error) in (ValueError, TypeError, KeyError, ImportError)
    return of_type and raised_in.startswith(SOURCE) and ("`" in str(error) or argument in str(error))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_nonsense_is_computed_or_refused_by_name(name):
    function = FUNCTIONS[name]
    parameters = inspect.signature(function).parameters
    usual = {
        argument: USUAL[argument]
        for argument, one in parameters.items()
        if one.default is one.empty and argument in USUAL
    }
    usual |= OWN.get(name, {})
    function(**usual)
    others, n_refused = [], 0
    for argument, one in parameters.items():
        if one.kind is one.VAR_KEYWORD:
            continue
        for value in NONSENSE:
            try:
                function(**{**usual, argument: value})
            except Exception as error:  # noqa: BLE001  the type is what is tested
                n_refused += 1
                if not is_ours(error, argument):
                    others.append((argument, value, type(error).__name__, str(error)))
    assert not others
    assert n_refused >= 10
