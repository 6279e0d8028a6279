"""The command `sthisto leaderboard`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sthisto._sdata.stores import is_store
from sthisto.cli.options import add_command, image_key
from sthisto.cli.stores import read_store

if TYPE_CHECKING:
    import pandas as pd


def add(commands: Any) -> None:
    """Add `leaderboard` to the commands."""
    parser = add_command(
        commands,
        "leaderboard",
        run,
        "Score a folder of prediction files (h5ad, csv, parquet) anew against measured expression, and compare them.",
        "sthisto leaderboard predictions/ --data sections.zarr --out leaderboard",
    )
    parser.add_argument("folder", type=Path, help="folder with one prediction per file")
    parser.add_argument("--data", type=Path, help="SpatialData store with the counts; default: the only one in FOLDER")
    parser.add_argument("--out", type=Path, help="output folder; default: FOLDER/leaderboard")
    parser.add_argument(
        "--reference", help="file, without its ending, that differences are taken from; default: the best"
    )
    parser.add_argument(
        "--baselines", nargs="*", default=[], help="methods to fit on the training spots beside them: color ridge"
    )
    parser.add_argument("--counts-layer", help="layer of raw counts; default: X")
    parser.add_argument("--image", action="append", help="H&E image, if there are several; REGION=IMAGE for one region")
    parser.add_argument("--shapes", action="append", help="region with the spots (shapes_key); may be repeated")
    parser.add_argument("--table", help="table of the measured spots, if there are several")
    parser.add_argument("--coordinate-system", help="coordinate system of image and spots, if they share several")
    parser.add_argument("--n-boot", type=int, default=1000, help="resamples of spatial blocks for the intervals")
    parser.add_argument("--seed", type=int, default=0, help="seed of the resamples")


def run(options: argparse.Namespace) -> None:
    """Score all files, print the table, and write it as CSV, Markdown and HTML."""
    files = _files(options.folder)
    sdata = read_store(options.data or _only_store(options.folder))

    import sthisto as sth

    predictions, unread = {}, {}
    for path in files:
        name = path.name.split(".")[0] if path.name.endswith(".gz") else path.stem
        name = path.name if name in predictions else name
        try:
            predictions[name] = sth.io.read_prediction(path)
        except ValueError as error:
            unread[name] = str(error)
    scores = sth.benchmark.leaderboard(
        sdata,
        predictions,
        reference=options.reference,
        baselines=options.baselines,
        counts_layer=options.counts_layer,
        n_boot=options.n_boot,
        seed=options.seed,
        image_key=image_key(options.image),
        shapes_key=options.shapes,
        table_key=options.table,
        coordinate_system=options.coordinate_system,
    )
    scores = _with_unread(scores, unread)
    out = options.out or options.folder / "leaderboard"
    text = _write(scores, out, _command(options))
    print(scores.to_json(orient="records") if options.json else text)


def _files(folder: Path) -> list[Path]:
    from sthisto.io._read_prediction import is_prediction_file

    if not folder.is_dir():
        msg = f"There is no folder {folder}."
        raise FileNotFoundError(msg)
    files = sorted(path for path in folder.iterdir() if is_prediction_file(path) and not path.name.startswith("."))
    if not files:
        msg = f"{folder} has no prediction: put .h5ad, .csv, .tsv or .parquet files there, one for each tool."
        raise ValueError(msg)
    return files


def _only_store(folder: Path) -> Path:
    stores = sorted(path for path in folder.iterdir() if path.is_dir() and is_store(path))
    if len(stores) != 1:
        found = ", ".join(path.name for path in stores) or "none"
        msg = f"Pass --data, the SpatialData store with the measured counts; in {folder} there are: {found}."
        raise ValueError(msg)
    return stores[0]


def _with_unread(scores: pd.DataFrame, unread: dict[str, str]) -> pd.DataFrame:
    import pandas as pd

    rows = pd.DataFrame([{"method": name, "section": "all", "note": note} for name, note in unread.items()])
    return pd.concat([scores, rows], ignore_index=True).reindex(columns=scores.columns) if unread else scores


def _command(options: argparse.Namespace) -> str:
    data = "" if options.data is None else f" --data {options.data}"
    baselines = f" --baselines {' '.join(options.baselines)}" if options.baselines else ""
    return f"sthisto leaderboard {options.folder}{data}{baselines}"


def _write(scores: pd.DataFrame, out: Path, command: str) -> str:
    """Write scores.csv, scores.md and scores.html, and return the Markdown."""
    from sthisto._utils.atomic import atomic_file
    from sthisto.benchmark._leaderboard_page import as_text, page

    text = as_text(scores)
    with atomic_file(out / "leaderboard.csv") as staged:
        scores.to_csv(staged, index=False)
    with atomic_file(out / "leaderboard.md") as staged:
        staged.write_text(text, encoding="utf-8")
    page(scores, command).write(out / "leaderboard.html")
    return text
