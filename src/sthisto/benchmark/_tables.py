"""Tables of a benchmark to read: Markdown, each score beside baselines and ceiling."""

from __future__ import annotations

import pandas as pd

from sthisto.benchmark._markdown import as_markdown, genes_and_mean, mean_and_sd
from sthisto.benchmark._paper import SOURCE, best_genes_table, paper_table
from sthisto.benchmark._protocol import LEAKS, Protocol
from sthisto.benchmark._scores import OF_GENE

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


def markdown(scores: pd.DataFrame, protocol: Protocol) -> str:
    """Return one table a test and set of genes: mean ± standard deviation over seeds, [interval] of a single seed."""
    parts = [f"# {protocol.dataset}, split by {protocol.split}", _notes(scores, protocol)]
    of_sets = scores[scores["metric"] != OF_GENE]
    for (train, test, genes), part in of_sets.groupby(["train", "test", "genes"], sort=False):
        parts += [f"## {train} → {test}, {genes}", _scores_table(part), _differences(part)]
    if protocol.split == "danet_paper":
        parts += ["## Beside the paper", paper_table(scores, protocol), best_genes_table(scores, protocol), SOURCE]
        parts += ["## How this protocol leaks", _leaks()]
    else:
        parts += [_best_genes(scores)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _scores_table(part: pd.DataFrame) -> str:
    shown = [key for key in _SHOWN if ((part["metric"] == key[0]) & (part["normalization"] == key[1])).any()]
    rows = []
    for method, mine in part.groupby("method", sort=False):
        cells = []
        for metric, scale in shown:
            found = mine[(mine["metric"] == metric) & (mine["normalization"] == scale)]
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


def _best_genes(scores: pd.DataFrame) -> str:
    """Return the genes that each method predicts best, on log1p counts, with the first seed."""
    best = scores[(scores["metric"] == OF_GENE) & (scores["normalization"] == "log1p") & (scores["seed"] == 0)]
    if best.empty:
        return ""
    rows = [
        [str(test), str(method), genes_and_mean(part["genes"], part["value"])]
        for (test, method), part in best.groupby(["test", "method"], sort=False)
    ]
    table = as_markdown(["test", "method", "PCC (log1p) of the five best genes, seed 0"], rows)
    return f"## Best genes\n\nPicked on the test section itself, so higher than they would be elsewhere.\n\n{table}"


def _with_interval(found: pd.DataFrame) -> str:
    if found.empty or found["value"].isna().all():
        return ""
    interval = found[["low", "high"]].mean()
    shown = "" if interval.isna().any() else f" [{interval['low']:.3f}, {interval['high']:.3f}]"
    return mean_and_sd(found["value"]) + shown


def _notes(scores: pd.DataFrame, protocol: Protocol) -> str:
    return (
        f"Encoder {protocol.encoder_name}; {scores['seed'].nunique()} seeds: mean ± standard deviation over them, "
        "[95 % interval from spatial blocks, mean over seeds]. depth: the spots' total count alone. ceiling: what "
        "noise allows. measured: clusters of the measured expression. A constant prediction has no correlation."
    )


def _leaks() -> str:
    return as_markdown(["in the published protocol", "here"], [list(leak) for leak in LEAKS])
