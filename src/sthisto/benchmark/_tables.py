"""Tables of a benchmark to read: Markdown, each score beside baselines and references."""

from __future__ import annotations

import pandas as pd

from sthisto._sdata.slots import ALL_GENES
from sthisto._utils.validate import listed
from sthisto.benchmark._markdown import as_markdown, genes_and_mean, mean_and_sd
from sthisto.benchmark._paper import SOURCE, best_genes_table, paper_table
from sthisto.benchmark._protocol import LEAKS, Protocol
from sthisto.benchmark._rows import (
    DEPTH,
    DIFFERENCE,
    IN_PANEL,
    LABELS,
    LEIDEN,
    LOG1P,
    OF_GENE,
    REPRODUCIBILITY,
    RESIDUALS,
    SIBLINGS,
)

_SHOWN = (
    ("pcc_residual", RESIDUALS),
    ("pcc", LOG1P),
    ("pcc", IN_PANEL),
    ("pcc_partial_depth", LOG1P),
    ("rmse", LOG1P),
    ("ari", LABELS),
    ("ari", LEIDEN),
)

_NAMES = {"pcc_residual": "residual PCC", "pcc": "PCC"}
_SECONDS = {"seconds_fit": "s to fit", "seconds_predict": "s to predict"}
_ROWS = {
    DEPTH: "depth of the spot alone",
    SIBLINGS: "other genes of the spot",
    REPRODUCIBILITY: "second sequencing of the spots",
}


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


def comparison_table(scores: pd.DataFrame) -> str:
    """Show what `compare` found as a Markdown table.

    Parameters
    ----------
    scores
        What `compare` returned.

    Returns
    -------
    The table, one row per method: mean ± standard deviation over seeds, seconds, and differences with their intervals.

    Raises
    ------
    ValueError
        `scores` is no such table.
    """
    missing = {"method", "metric", "genes"} - set(getattr(scores, "columns", ()))
    if missing:
        msg = f"`scores` has no columns {listed(sorted(missing))}. Pass what sthisto.benchmark.compare returned."
        raise ValueError(msg)
    sets = list(scores["genes"].dropna().unique())
    shown = [(metric, genes) for genes in sets for metric in _NAMES]
    named = [f"{_NAMES[metric]}{'' if genes == ALL_GENES else f', {genes}'}" for metric, genes in shown]
    differences = [name for name in scores["metric"].unique() if name.startswith(DIFFERENCE)]
    rows = []
    for method, mine in scores.groupby("method", sort=False):
        values = mine.set_index(["metric", "genes"])
        cells = [_cell(values.loc[[key]]) if key in values.index else "" for key in shown]
        seconds = mine.set_index("metric")["value"]
        cells += [f"{seconds[name]:.1f}" if name in seconds else "" for name in _SECONDS]
        cells += [_difference(mine[mine["metric"] == name]) for name in differences]
        rows.append([_ROWS.get(str(method), str(method)), *cells])
    less = [f"Δ vs {name.removeprefix(DIFFERENCE)}" for name in differences]
    return as_markdown(["method", *named, *_SECONDS.values(), *less], rows)


def _cell(found: pd.DataFrame) -> str:
    value, sd = found["value"].item(), found["sd"].item()
    return f"{value:.3f}" + ("" if pd.isna(sd) else f" ± {sd:.3f}")


def _difference(found: pd.DataFrame) -> str:
    return "".join(f"{one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]" for one in found.itertuples())


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
    found = part[part["metric"].str.startswith(DIFFERENCE)]
    if found.empty:
        return ""
    rows = [[str(method), _with_interval(mine)] for method, mine in found.groupby("method", sort=False)]
    return as_markdown(["method", found["metric"].iloc[0]], rows)


def _best_genes(scores: pd.DataFrame) -> str:
    """Return the genes that each method predicts best, on log1p counts, with the first seed."""
    best = scores[(scores["metric"] == OF_GENE) & (scores["normalization"] == LOG1P) & (scores["seed"] == 0)]
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
        "[95 % interval from spatial blocks, mean over seeds]. depth: the spots' total count alone. siblings: "
        "prediction from the other genes measured in the same spot. reproducibility: a second sequencing of the same "
        "spots, no target for an image. measured: clusters of the measured expression. A constant prediction has no "
        "correlation."
    )


def _leaks() -> str:
    return as_markdown(["in the published protocol", "here"], [list(leak) for leak in LEAKS])
