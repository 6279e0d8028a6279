"""The command `sthisto demo`: fit, predict and evaluate on synthetic sections."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sthisto._sdata.stores import atomic_store
from sthisto._utils.atomic import atomic_file, is_staged
from sthisto.cli.options import add_command
from sthisto.cli.output import print_table

if TYPE_CHECKING:
    import pandas as pd
    from spatialdata import SpatialData

GENES_SHOWN = ("EPCAM", "COL1A1", "CD3E")
METHODS = ("danet", "ridge", "mean")
_MODEL, _SCORES, _SECTIONS = "danet.sthisto", "scores.csv", "sections.zarr"
_FIGURES = ("gene_compare.png", "mean_variance.png", "scores.png")


def add(commands: Any) -> None:
    """Add `demo` to the commands."""
    parser = add_command(
        commands,
        "demo",
        run,
        "Fit on synthetic sections of two patients, predict a third, and compare with baselines.",
        "sthisto demo --out sthisto-demo",
    )
    parser.add_argument("--out", type=Path, default=Path("sthisto-demo"), help="output folder")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sections and of the model")


def run(options: argparse.Namespace) -> None:
    """Run the demo, print its scores and where the files are."""
    table = run_demo(options.out, seed=options.seed)
    print_table(table, options)
    if not (options.json or options.quiet):
        print("\nNaN: a constant, as the mean is, has no correlation, and depth predicts no expression.")
        print(f"Figures, the SpatialData and the model are in {options.out}.")


def run_demo(out: Path, *, seed: int = 0) -> pd.DataFrame:
    """Fit on two patients, predict the third, and compare DANet with mean, depth and ridge.

    Parameters
    ----------
    out
        Folder that is written: `danet.sthisto`, `scores.csv`, figures and, last, `sections.zarr`. One that a killed
        demo left is written again.
    seed
        Seed of the sections and of the models.

    Returns
    -------
    One row per method: pcc_residual, pcc and the residual score of sibling genes, means over the genes of the test
    section, and rmse on log1p counts. "depth" is the score of the spots' total counts.

    Raises
    ------
    FileExistsError
        `out` holds something already.
    """
    import sthisto as sth

    if out.exists() and not _is_part(out):
        msg = f"{out} is not empty. Pass another --out."
        raise FileExistsError(msg)
    out.mkdir(parents=True, exist_ok=True)
    sdata = sth.datasets.synthetic(n_sections=3, n_patients=3, seed=seed)
    sth.pp.split(sdata, by="patient", patient_key="patient", seed=seed)
    summaries = {}
    for method in METHODS:
        model = sth.tl.fit(sdata, method=method, image_encoder="efficientnet_lite0", seed=seed, key_added=method)
        sth.tl.predict(sdata, model, key_added=method)
        sth.tl.evaluate(sdata, key_added=method)
        summaries[method] = _overall(sdata, method)
        if method == "danet":
            model.save(out / _MODEL, overwrite=True)
    table = _table(summaries)
    with atomic_file(out / _SCORES) as staged:
        table.to_csv(staged, index=False)
    _draw(sdata, out)
    with atomic_store(out / _SECTIONS, overwrite=False) as staged:
        sdata.write(staged)
    return table


def _is_part(out: Path) -> bool:
    """Return whether a folder is empty, or holds what a demo that was killed had written."""
    return out.is_dir() and all(
        entry.name in (_MODEL, _SCORES, *_FIGURES) or is_staged(entry) for entry in out.iterdir()
    )


def _overall(sdata: SpatialData, method: str) -> pd.Series:
    import sthisto as sth
    from sthisto._sdata.slots import ALL_GENES

    scores = sth.get.scores(sdata, key_added=method, by="section")
    return scores[(scores["section"] == "all") & (scores["genes"] == ALL_GENES)].iloc[0]


def _table(summaries: dict[str, pd.Series]) -> pd.DataFrame:
    import pandas as pd

    rows = [{"method": name, **summary[["pcc_residual", "pcc", "rmse"]]} for name, summary in summaries.items()]
    any_summary = next(iter(summaries.values()))
    rows.append({"method": "depth", "pcc_residual": any_summary["depth_pcc_residual"], "pcc": any_summary["depth_pcc"]})
    table = pd.DataFrame(rows)
    table["sibling"] = any_summary["sibling"]
    return table.sort_values("pcc_residual", ascending=False, na_position="last", ignore_index=True)


def _draw(sdata: SpatialData, out: Path) -> None:
    import matplotlib.pyplot as plt

    import sthisto as sth

    tested = sth.get.scores(sdata, key_added="danet", by="section")["section"].iloc[0]
    figures = (
        sth.pl.gene_compare(sdata, list(GENES_SHOWN), key_added="danet", sections=[tested]),
        sth.pl.mean_variance(sdata, key_added="danet"),
        sth.pl.scores(sdata, key_added=["danet", "ridge"]),
    )
    for name, figure in zip(_FIGURES, figures, strict=True):
        with atomic_file(out / name) as staged:
            figure.savefig(staged, dpi=150, bbox_inches="tight")
        plt.close(figure)
