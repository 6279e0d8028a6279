"""Tables of scores by section, of data that have one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pandas as pd

ALL: Final = "all"
"""What the column "section" holds in the rows of the mean over sections."""


def without_only_section(scores: pd.DataFrame) -> pd.DataFrame:
    """Return scores for people to read: of a single section, which is its own mean, the rows "all" alone."""
    if "section" not in scores or not (scores["section"] == ALL).any() or scores["section"].nunique() > 2:
        return scores
    return scores[scores["section"] == ALL]
