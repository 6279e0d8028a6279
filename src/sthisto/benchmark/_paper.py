"""The tables that the DANet paper prints, beside what the same protocol gives here."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final

import pandas as pd

from sthisto._sdata.record import method_label
from sthisto._sdata.slots import ALL_GENES, MARKERS, MOST_EXPRESSED, MOST_VARIABLE
from sthisto.benchmark._markdown import as_markdown, genes_and_mean, mean_and_deviation, mean_and_sd
from sthisto.benchmark._protocol import MethodSpec, Protocol
from sthisto.benchmark._rows import IN_PANEL, LABELS, OF_GENE
from sthisto.models import METHODS

SOURCE: Final = (
    "Wu et al., DANet, Briefings in Bioinformatics 2025, tables 1 to 4 and 6 as printed; table 5 was not legible to "
    "us. Both columns: mean ± largest deviation of the replicates in tables 1 and 3, mean ± standard deviation in "
    "table 4; tables 2, 5 and 6 show one replicate, here that of seed 0. In 'without DenseNet', ResNet-50 takes its "
    "place here. The paper trains the encoder; rows of methods that were run with finetune=false stand here too."
)
_SETS = {"MG": MARKERS, "HEG": MOST_EXPRESSED, "HVG": MOST_VARIABLE}
_LABEL = {
    "": "danet",
    "all": "danet",
    "smoothed k=1 simple": "danet:k=1,aggregation=simple",
    "smoothed k=50 average": "danet:k=50",
    "smoothed k=50 weighted": "danet:k=50,aggregation=weighted",
    "smoothed k=100 average": "danet",
    "smoothed k=100 weighted": "danet:aggregation=weighted",
    "clip k=100 average": "danet:objective=clip",
    "without DenseNet": "danet:image_encoder=resnet50",
    "without Mamba": "danet:gene_encoder=identity",
    "without RKAN": "danet:projection=mlp",
}
_COSTS = ("finetune", "precision", "devices", "num_nodes", "strategy")
_AVERAGE = "Avg"
_BEST_GENES = 2
"""Number of the table of the best genes that we could read; table 5 is the other."""


def paper_values() -> pd.DataFrame:
    """Return what the DANet paper prints.

    Returns
    -------
    One row a printed value: table, dataset, method, variant, column (a section, a gene, a set of genes or "Avg"),
    value, spread (as the caption of the table says; NaN where it prints none).
    """
    text = files("sthisto.benchmark").joinpath("paper_tables.csv")
    with text.open(encoding="utf-8") as stream:
        return pd.read_csv(stream, keep_default_na=False, na_values={"value": [""], "spread": [""]})


def paper_table(scores: pd.DataFrame, protocol: Protocol) -> str:
    """Return the paper's value beside ours wherever the method, the section and the genes were run."""
    printed = _printed(protocol)
    printed = printed[printed["table"] != _BEST_GENES]
    rows = []
    for row in printed.to_dict("records"):
        ours = _ours(scores, row, protocol)
        if len(ours):
            rows.append([str(row["table"]), row["method"], row["variant"], row["column"], *_cells(row, ours)])
    if not rows:
        return "None of the paper's values is of these methods and sections."
    return as_markdown(["table", "method", "variant", "column", "paper", "ours"], rows)


def best_genes_table(scores: pd.DataFrame, protocol: Protocol) -> str:
    """Return the five best genes of each method, picked on the test section as the paper does, beside the paper's."""
    paper = _printed(protocol)
    paper = paper[paper["table"] == _BEST_GENES]
    ours = scores[(scores["metric"] == OF_GENE) & (scores["normalization"] == "log1p in panel")]
    ours = ours[ours["seed"] == 0]
    rows = []
    for (test, label), part in ours.groupby(["test", "method"], sort=False):
        name = next((method_label(mine) for mine in METHODS if _same(str(label), mine)), "")
        printed = paper[(paper["method"] == name) & (paper["column"] != _AVERAGE)]
        theirs = genes_and_mean(printed["column"], printed["value"])
        rows.append([str(test), str(label), theirs, genes_and_mean(part["genes"], part["value"])])
    if not rows:
        return ""
    return as_markdown(["test", "method", f"paper, table {protocol.published().best_genes_table}", "ours"], rows)


def _printed(protocol: Protocol) -> pd.DataFrame:
    """Return what the paper prints of the protocol's data set."""
    paper = paper_values()
    return paper[paper["dataset"] == protocol.published().name]


def _ours(scores: pd.DataFrame, row: dict[str, Any], protocol: Protocol) -> pd.Series:
    """Return our values of what a row of the paper's tables shows, one a seed."""
    metric, variant = "pcc", str(row["variant"])
    if row["table"] in (4, 6):
        metric, _, variant = variant.partition(" ")
    is_danet = row["method"] == method_label("danet")
    label = _LABEL.get(variant) if is_danet else next(name for name in METHODS if method_label(name) == row["method"])
    genes = _SETS.get(row["column"], ALL_GENES)
    same = [one for one in scores["method"].unique() if label is not None and _same(str(one), label)]
    mine = scores[scores["method"].isin(same[:1]) & (scores["metric"] == metric.lower())]
    mine = mine[mine["genes"].str.startswith(f"{genes} (")]
    mine = mine[mine["normalization"] == (LABELS if metric == "ARI" else IN_PANEL)]
    if row["column"] in _SETS:
        return mine.set_index("seed")["value"]
    tested = protocol.published().test
    if row["column"] != _AVERAGE:
        return mine[mine["test"] == row["column"]].set_index("seed")["value"]
    mine = mine[mine["test"].isin(tested)]
    if set(mine["test"]) != set(tested):
        return mine["value"].iloc[:0]
    return mine.groupby("seed")["value"].mean()


def _same(label: str, wanted: str) -> bool:
    """Return whether two labels name a method with the same options, but for those of what training costs."""
    if label.partition(":")[0] not in METHODS:
        return False
    one, other = (MethodSpec.parse(text, {}) for text in (label, wanted))
    own = {name: value for name, value in one.options.items() if name not in _COSTS}
    return one.method == other.method and own == dict(other.options)


def _cells(row: dict[str, Any], ours: pd.Series) -> tuple[str, str]:
    printed = f"{row['value']:.3f}" + ("" if pd.isna(row["spread"]) else f" ± {row['spread']:.3f}")
    if row["table"] in (1, 3):
        return printed, mean_and_deviation(ours)
    return printed, mean_and_sd(ours if row["table"] == 4 else ours[ours.index == 0])
