"""Cells and tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd


def as_markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    names = list(header)
    lines = [names, ["---"] * len(names), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def mean_and_sd(values: pd.Series) -> str:
    """Return the mean of values, one a seed, with their standard deviation where there are several."""
    return f"{values.mean():.3f}" + (f" ± {values.std():.3f}" if len(values) > 1 else "")


def mean_and_deviation(values: pd.Series) -> str:
    """Return the mean of values, one a seed, with the largest deviation from it where there are several."""
    largest = (values - values.mean()).abs().max()
    return f"{values.mean():.3f}" + (f" ± {largest:.3f}" if len(values) > 1 else "")


def genes_and_mean(genes: Iterable[str], values: Iterable[float]) -> str:
    """Return genes with a value each, and the mean of these; "" without any."""
    found = dict(zip(genes, values, strict=True))
    if not found:
        return ""
    mean = sum(found.values()) / len(found)
    return ", ".join(f"{gene} {value:.3f}" for gene, value in found.items()) + f"; mean {mean:.3f}"
