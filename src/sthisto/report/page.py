"""A page of headings, text, tables and pictures, and the one HTML file that it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pandas as pd

from sthisto._utils.atomic import atomic_file

_DIGITS = 3
MINUS: Final = "\N{MINUS SIGN}"
MISSING: Final = "\N{EN DASH}"


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes
    ----------
    caption
        What it shows, in one sentence.
    columns
        Heads of the columns.
    rows
        Cells, as text.
    folded
        Whether it is hidden until it is clicked.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False

    @classmethod
    def of(cls, frame: pd.DataFrame, caption: str, *, folded: bool = False) -> Table:
        """Return a DataFrame as a table; numbers are rounded, missing ones are a dash."""
        rows = [[as_cell(value) for value in row] for row in frame.itertuples(index=False)]
        return cls(caption, [str(name) for name in frame.columns], rows, folded)


@dataclass(frozen=True)
class Picture:
    """A picture within the page.

    Attributes
    ----------
    source
        The encoded picture, as a data URI.
    alt
        What it shows, for those who do not see it.
    caption
        What stands below it.
    width
        Width in px at which it is drawn, at most.
    """

    source: str
    alt: str
    caption: str
    width: int


@dataclass(frozen=True)
class Block:
    """A part of the page under one heading.

    Attributes
    ----------
    title
        The heading.
    text
        Paragraphs.
    items
        A list below them.
    tables, pictures
        What follows, tables first.
    code
        Commands, shown as they are typed.
    """

    title: str
    text: Sequence[str] = ()
    items: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    code: str = ""


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes
    ----------
    title
        Its heading and the name of the browser's tab.
    lead
        One paragraph: what matters most.
    blocks
        Its parts, in order.
    """

    title: str
    lead: str
    blocks: Sequence[Block] = field(default_factory=list)

    def html(self) -> str:
        """Return the page as HTML that loads nothing; all text is escaped."""
        from jinja2 import Environment, PackageLoader, StrictUndefined

        environment = Environment(
            loader=PackageLoader("sthisto.report"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        return environment.get_template("page.html").render(page=self)

    def write(self, path: Path) -> None:
        """Write the page to a file, whole or not at all."""
        text = self.html()
        with atomic_file(path) as staged:
            staged.write_text(text, encoding="utf-8")


def as_cell(value: Any) -> str:
    """Return a value as the text of a cell."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return MISSING
    if isinstance(value, float):
        return f"{value:.{_DIGITS}f}".replace("-", MINUS)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def with_interval(value: float, low: float, high: float) -> str:
    """Return a number with its interval where it has one."""
    if pd.isna(low) or pd.isna(high):
        return as_cell(float(value))
    return f"{as_cell(float(value))} [{as_cell(float(low))}, {as_cell(float(high))}]"
