import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import sthisto as sth

TABLE = pd.DataFrame(
    {
        "by": "spots",
        "size": [0.25, 0.5, 1, 2],
        "pcc_residual": [0.05, 0.07, 0.08, np.nan],
        "low": [0.04, 0.06, 0.07, np.nan],
        "high": [0.06, 0.08, 0.09, np.nan],
        "fitted": [0.05, 0.07, 0.081, 0.086],
        "extrapolated": [False, False, False, True],
    }
)


def test_scores_intervals_law_and_what_lies_beyond_are_drawn():
    ax = sth.pl.learning_curve(TABLE)
    points, law, beyond = ax.lines[0], ax.lines[-2], ax.lines[-1]
    np.testing.assert_allclose(points.get_ydata(), [0.05, 0.07, 0.08])
    np.testing.assert_allclose(law.get_ydata(), TABLE["fitted"])
    np.testing.assert_allclose(beyond.get_xydata(), [[2, 0.086]])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1/4", "1/2", "1", "2"]
    assert ax.get_xlabel() == "Share of the training spots"


def test_without_a_law_only_scores_are_drawn():
    ax = sth.pl.learning_curve(TABLE.iloc[:3].assign(fitted=np.nan))
    assert ax.get_legend() is None


def test_another_table_is_refused():
    with pytest.raises(ValueError, match=r"no column.*sth\.tl\.learning_curve"):
        sth.pl.learning_curve(TABLE[["size"]])


def test_a_call_that_fails_leaves_no_figure():
    plt.close("all")
    with pytest.raises(ValueError, match="high"):
        sth.pl.learning_curve(TABLE.assign(pcc_residual="high"))
    assert not plt.get_fignums()
