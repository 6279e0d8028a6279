"""The command `sthisto benchmark`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sthisto._utils.atomic import atomic_file
from sthisto._utils.defaults import IMAGE_ENCODER
from sthisto.benchmark._datasets import DATASETS

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sthisto.benchmark._protocol import Protocol

_METHODS = "danet,ridge,knn,color,mean"


def add_command(commands: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `benchmark` to the commands of the command line."""
    parser = add(
        commands,
        "benchmark",
        _benchmark,
        "Score methods and baselines on a public data set. An interrupted run is resumed.",
        "sthisto benchmark her2st --data her2st --split section --train C3,C4 --test C2 --out c2",
    )
    parser.add_argument("dataset", choices=list(DATASETS), help="data set")
    parser.add_argument("--data", type=Path, help="folder of the data set; if omitted, her2st and liver are downloaded")
    parser.add_argument(
        "--methods",
        help=f"comma-separated names, or NAME:OPTION=VALUE; default: {_METHODS}; danet_paper: those of the paper",
    )
    parser.add_argument("--method", action="append", default=[], help="one more method, with comma-separated options")
    parser.add_argument(
        "--split", choices=["patient", "section", "danet_paper"], default="patient", help="what is held out"
    )
    parser.add_argument("--train", default="", help="comma-separated sections or patients; default: all others")
    parser.add_argument("--test", default="", help="comma-separated sections or patients; default: each in turn")
    parser.add_argument("--encoder", default=IMAGE_ENCODER, help="image encoder")
    parser.add_argument("--genes", type=Path, help="file with one gene per line; default: highly variable genes")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each method")
    parser.add_argument("--jobs", type=int, default=1, help="processes that fit at the same time; -1: one a core")
    parser.add_argument("--reference", default="ridge", help="reference method of the paired differences")
    parser.add_argument("--out", type=Path, required=True, help="output folder: scores.csv, scores.md, figures")


def _benchmark(options: argparse.Namespace) -> None:
    from sthisto.benchmark import _figures, _tables
    from sthisto.benchmark._run import run

    protocol, sdata = _protocol(options), _read(options)
    if protocol.genes is not None:
        protocol = _with_known_genes(protocol, sdata)
    scores = run(sdata, protocol, out=options.out, n_jobs=options.jobs)
    with atomic_file(options.out / "scores.csv") as staged:
        scores.to_csv(staged, index=False)
    text = _tables.markdown(scores, protocol)
    with atomic_file(options.out / "scores.md") as staged:
        staged.write_text(text, encoding="utf-8")
    with atomic_file(options.out / "scores.png") as staged:
        _figures.figure(scores).savefig(staged, dpi=150)
    sys.stdout.write((scores.to_json(orient="records") if options.json else text) + "\n")


def _protocol(options: argparse.Namespace) -> Protocol:
    from sthisto.benchmark._protocol import Protocol

    return Protocol(
        dataset=options.dataset,
        methods=_methods(options),
        split=options.split,
        train=_names(options.train),
        test=_names(options.test),
        encoder=options.encoder,
        genes=None if options.genes is None else tuple(options.genes.read_text(encoding="utf-8").split()),
        seeds=options.seeds,
        reference=options.reference,
    )


def _methods(options: argparse.Namespace) -> tuple[str, ...]:
    published = DATASETS[options.dataset].published
    if options.methods is None and not options.method and options.split == "danet_paper" and published is not None:
        return published.methods
    named = options.methods if options.methods is not None else "" if options.method else _METHODS
    return (*_names(named), *options.method)


def _with_known_genes(protocol: Protocol, sdata: SpatialData) -> Protocol:
    """Drop the genes of a panel that these sections do not list, with a warning."""
    from dataclasses import replace

    from sthisto._sdata.sections import read_tables
    from sthisto._utils.logging import logger
    from sthisto._utils.validate import listed

    known = set(read_tables(sdata)[0].var_names)
    missing = [gene for gene in protocol.genes or () if gene not in known]
    if missing:
        logger.warning("%d genes of the panel are in none of the sections: %s.", len(missing), listed(missing))
    return replace(protocol, genes=tuple(gene for gene in protocol.genes or () if gene in known))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _read(options: argparse.Namespace) -> SpatialData:
    """Read the data set, where training sections are named only those that are used."""
    named = [*_names(options.train), *_names(options.test)] if options.train else None
    return DATASETS[options.dataset].read(options.data, named)
