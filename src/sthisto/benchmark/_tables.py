"""Tables of a benchmark to read: Markdown, with the published values beside ours."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from typing import Final

import pandas as pd

from sthisto.benchmark._protocol import LEAKS, Protocol

SOURCE: Final = (
    "Wu et al., DANet, Briefings in Bioinformatics 2025, tables 1 to 4 and 6 as printed; table 5 was not legible to "
    "us. Spread: largest deviation of three replicates (tables 1 and 3), standard deviation (table 4)."
)
_SHOWN = (
    ("pcc_residual", "pearson_residuals"),
    ("share_of_ceiling", "pearson_residuals"),
    ("pcc", "log1p"),
    ("pcc", "log1p in panel"),
    ("pcc_partial_depth", "log1p"),
    ("rmse", "log1p"),
    ("ari", "labels"),
    ("ari", "leiden of measured"),
)
_PAPER_NAME = {"her2st": "HER2+", "liver": "GSE240429"}
_METHOD = {"danet": "DANet", "bleep": "BLEEP", "stnet": "ST-Net", "histogene": "HisToGene"}
_SETS = {"markers": "MG", "50 most expressed": "HEG", "50 most variable": "HVG"}
_VARIANTS = {
    "danet:k=1,aggregation=simple": "smoothed k=1 simple",
    "danet:k=50": "smoothed k=50 average",
    "danet:k=50,aggregation=weighted": "smoothed k=50 weighted",
    "danet": "smoothed k=100 average",
    "danet:aggregation=weighted": "smoothed k=100 weighted",
    "danet:objective=clip": "clip k=100 average",
    "danet:gene_encoder=identity": "without Mamba",
    "danet:projection=mlp": "without RKAN",
}


def paper_values() -> pd.DataFrame:
    """Return what the paper prints: table, dataset, method, variant, column, value, spread."""
    text = files("sthisto.benchmark").joinpath("paper_tables.csv")
    with text.open(encoding="utf-8") as stream:
        return pd.read_csv(stream, keep_default_na=False, na_values={"value": [""], "spread": [""]})


def markdown(scores: pd.DataFrame, protocol: Protocol) -> str:
    """Return one table a test and set of genes: mean ± standard deviation over seeds, [interval] of a single seed."""
    parts = [f"# {protocol.dataset}, split by {protocol.split}", _notes(scores, protocol)]
    for (train, test, genes), part in scores.groupby(["train", "test", "genes"], sort=False):
        parts += [f"## {train} → {test}, {genes}", _scores_table(part), _differences(part)]
    if protocol.split == "danet_paper":
        parts += ["## Beside the paper", paper_table(scores, protocol), SOURCE, "## How this protocol leaks", _leaks()]
    return "\n\n".join(part for part in parts if part) + "\n"


def paper_table(scores: pd.DataFrame, protocol: Protocol) -> str:
    """Return the paper's value beside ours for all of its tables that have the method, section and genes."""
    ours = _our_cells(scores)
    rows = []
    paper = paper_values()
    for row in paper[paper["dataset"] == _PAPER_NAME[protocol.dataset]].itertuples():
        found = ours.get((row.method, _variant(row), row.column))
        if found is not None:
            printed = f"{row.value:.3f}" + ("" if pd.isna(row.spread) else f" ± {row.spread:.3f}")
            rows.append([str(row.table), row.method, row.variant, row.column, printed, found])
    if not rows:
        return "None of the paper's values is of these methods and sections."
    return as_markdown(["table", "method", "variant", "column", "paper", "ours"], rows)


def _variant(row: object) -> str:
    """Bring the names of variants, which differ between tables, to one."""
    table, variant = row.table, row.variant  # type: ignore[attr-defined]
    if table == 1:
        return "smoothed k=100 average"
    if table == 6 and variant == "PCC all":
        return "PCC smoothed k=100 average"
    if table == 6 and variant == "ARI all":
        return "ARI smoothed k=100 average"
    return f"{variant} smoothed k=100 average" if table == 4 else str(variant)


def _our_cells(scores: pd.DataFrame) -> dict[tuple[str, str, str], str]:
    cells = {}
    for (label, test, genes, metric, scale), part in scores.groupby(
        ["method", "test", "genes", "metric", "normalisation"], sort=False
    ):
        base, variant = (
            label.split(":")[0],
            _VARIANTS.get(label, "smoothed k=100 average" if ":" not in label else None),
        )
        chosen = genes.split(" (")[0]
        if base not in _METHOD or variant is None:
            continue
        if (metric, scale) == ("pcc", "log1p in panel") and chosen in _SETS:
            cells[_METHOD[base], variant, _SETS[chosen]] = _cell(part["value"])
        if (metric, scale) == ("pcc", "log1p in panel") and chosen == "panel":
            cells[_METHOD[base], f"PCC {variant}", test] = _cell(part["value"])
        if metric == "ari" and scale == "labels":
            cells[_METHOD[base], f"ARI {variant}", test] = _cell(part["value"])
    return cells


def _scores_table(part: pd.DataFrame) -> str:
    shown = [key for key in _SHOWN if ((part["metric"] == key[0]) & (part["normalisation"] == key[1])).any()]
    rows = []
    for method, mine in part.groupby("method", sort=False):
        cells = []
        for metric, scale in shown:
            found = mine[(mine["metric"] == metric) & (mine["normalisation"] == scale)]
            cells.append(_with_interval(found))
        seconds = mine["seconds_fit"].mean()
        rows.append([str(method), *cells, "" if pd.isna(seconds) else f"{seconds:.0f}"])
    return as_markdown(["method", *(f"{m} ({s})" for m, s in shown), "s to fit"], rows)


def _differences(part: pd.DataFrame) -> str:
    found = part[part["metric"].str.startswith("pcc_residual less")]
    if found.empty:
        return ""
    rows = [[str(method), _with_interval(mine)] for method, mine in found.groupby("method", sort=False)]
    return as_markdown(["method", found["metric"].iloc[0]], rows)


def _with_interval(found: pd.DataFrame) -> str:
    if found.empty or found["value"].isna().all():
        return ""
    interval = found[["low", "high"]].mean()
    shown = "" if interval.isna().any() else f" [{interval['low']:.3f}, {interval['high']:.3f}]"
    return _cell(found["value"]) + shown


def _cell(values: pd.Series) -> str:
    return f"{values.mean():.3f}" + (f" ± {values.std():.3f}" if len(values) > 1 else "")


def _notes(scores: pd.DataFrame, protocol: Protocol) -> str:
    return (
        f"Encoder {protocol.encoder_name}; {scores['seed'].nunique()} seeds: mean ± standard deviation over them, "
        "[95 % interval from spatial blocks, mean over seeds]. depth: the spots' total count alone. ceiling: what "
        "noise allows. measured: clusters of the measured expression. A constant prediction has no correlation."
    )


def _leaks() -> str:
    return as_markdown(["in the published protocol", "here"], [list(leak) for leak in LEAKS])


def as_markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    names = list(header)
    lines = [names, ["---"] * len(names), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
