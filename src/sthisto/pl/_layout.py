"""Layout of panels in rows, beside and below each other, computed in inches so that nothing overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sthisto.pl._decorations import place
from sthisto.pl._figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PAGE_WIDTH = 7.2
_PANEL_WIDTH = (1.3, 2.4)
_GAP = 0.08
_BAR = 0.52
_LABEL_LINE = 0.17
_TITLE_LINE = 0.135
_SCALE_BAR = 0.26
_MARGIN = 0.06
_SHAPE = 1.25
_LEAD = 1.5


@dataclass(frozen=True)
class GridLayout:
    """The rows of a figure, each a line of panels of one section.

    Parameters
    ----------
    aspects
        Height over width of the panels of each row.
    n_panels
        Panels in a row.
    bars
        Positions of the panels that have a color bar.
    label_lines
        Vertical lines of text left of a row.
    title_lines
        Lines of text over a panel.
    right
        Width in inches that is left free at the right of a row.
    foot
        Height in inches that is left free under a row, for the scale bar.
    """

    aspects: Sequence[float]
    n_panels: int
    bars: Sequence[int] = ()
    label_lines: int = 1
    title_lines: int = 1
    right: float = 0.0
    foot: float = _SCALE_BAR

    def panel_width(self, across: int = 1) -> float:
        """Return the width of a panel in inches, so that the rows fill a page's width where they can."""
        free = _PAGE_WIDTH / across - self._fixed_width
        return float(np.clip(free / self.n_panels, *_PANEL_WIDTH))

    @property
    def _fixed_width(self) -> float:
        gaps = _GAP * (self.n_panels - 1) + _BAR * len(self.bars)
        return self.label_lines * _LABEL_LINE + gaps + 2 * _MARGIN + self.right

    @property
    def _fixed_height(self) -> float:
        return self.title_lines * _TITLE_LINE + self.foot + _MARGIN

    def across(self, multiple: int = 1) -> int:
        """Return how many rows stand side by side for a figure a little higher than wide."""
        n_rows = len(self.aspects)
        if n_rows <= max(5, multiple):
            return 1
        choices = [1, *range(multiple, n_rows + 1, multiple)]
        shapes = [self._shape(across) for across in choices]
        return choices[int(np.argmin(np.abs(np.log(np.array(shapes) / _SHAPE))))]

    def _shape(self, across: int) -> float:
        """Return height over width of the figure."""
        width = self.panel_width(across)
        n_lines = np.ceil(len(self.aspects) / across)
        height = n_lines * (self._fixed_height + width * float(np.mean(self.aspects)))
        return float(height / (across * (self._fixed_width + self.n_panels * width)))

    def draw(
        self,
        *,
        across: int = 1,
        leads: Sequence[float] = (),
        figsize: tuple[float, float] | None = None,
        dpi: float | None = None,
    ) -> tuple[Figure, list[Axes], list[list[Axes]]]:
        """Make the figure.

        Parameters
        ----------
        across
            Number of rows side by side.
        leads
            Height over width of larger panels in a line above all rows.
        figsize
            Width and height in inches; None follows from the panels.
        dpi
            Resolution of the figure.

        Returns
        -------
        The figure, the axes of the leads and those of each row.
        """
        lines = [self.aspects[i : i + across] for i in range(0, len(self.aspects), across)]
        heights = [*([_LEAD * max(leads)] if leads else []), *(max(line) for line in lines)]
        fixed = np.array([across * self._fixed_width, len(heights) * self._fixed_height + _MARGIN])
        panels = np.array([across * self.n_panels, sum(heights)])
        size = np.asarray(figsize) if figsize else fixed + panels * self.panel_width(across)
        width, unit = np.maximum((size - fixed) / panels, 0.1)
        figure = new_figure(float(size[0]), float(size[1]), dpi, constrained=False)
        top = _MARGIN + self.title_lines * _TITLE_LINE
        first = []
        for i in range(len(leads)):
            left = _MARGIN + self.label_lines * _LABEL_LINE + i * (_LEAD * width + _GAP)
            first.append(place(figure, left, top, _LEAD * width, unit * heights[0]))
        if leads:
            top += unit * heights[0] + self._fixed_height
        rows: list[list[Axes]] = []
        for line in lines:
            lefts = np.arange(len(line)) * size[0] / across
            rows += [self._row(figure, left, top, width, unit * max(line)) for left in lefts]
            top += unit * max(line) + self._fixed_height
        return figure, first, rows

    def _row(self, figure: Figure, left: float, top: float, width: float, height: float) -> list[Axes]:
        panels = []
        left += _MARGIN + self.label_lines * _LABEL_LINE
        for i in range(self.n_panels):
            panels.append(place(figure, left, top, width, height))
            left += width + _GAP + (_BAR if i in self.bars else 0)
        return panels


def given_axes(ax: Axes | Sequence[Axes], n_rows: int, n_panels: int) -> list[list[Axes]]:
    """Return the user's axes row by row; raise ValueError when they are not as many as the panels."""
    given = list(np.ravel(np.asarray(ax, dtype=object)))
    if len(given) != n_rows * n_panels:
        msg = f"`ax` has {len(given)} axes for {n_rows} x {n_panels} panels: one is needed for each, row by row."
        raise ValueError(msg)
    return [given[i : i + n_panels] for i in range(0, len(given), n_panels)]
