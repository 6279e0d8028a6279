"""Misplaced spots and swapped images, planted: how often `tl.check_alignment` finds them, and how often it is wrong.

Prints false alarms on true sections, what becomes of sections without signal (expression permuted over the spots),
and the share of planted shifts, turns, mirrors and swaps that are found with the right answer: synthetic sections of
several sizes, and those of her2st where the environment variable STHISTO_HER2ST names them.
Run: python benchmarks/alignment.py [--sections 40]
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import spatialdata as sd
from spatialdata.models import ShapesModel
from spatialdata.transformations import get_transformation

import sthisto as sth
from sthisto._scoring.image_features import pitch_of
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.sections import read_sections

Move = Callable[[np.ndarray, float], np.ndarray]


def shifted(pitches: float, degrees: float) -> Move:
    """Return the move by some pitches in a direction."""
    angle = np.deg2rad(degrees)
    return lambda xy, pitch: xy + pitches * pitch * np.array([np.cos(angle), np.sin(angle)])


def turned(degrees: int, *, mirrored: bool = False) -> Move:
    """Return the move that mirrors spots and turns them about the middle of their bounding box."""
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).round()
    matrix = matrix @ np.diag([-1.0 if mirrored else 1.0, 1.0])

    def move(xy: np.ndarray, _: float) -> np.ndarray:
        middle = (xy.min(axis=0) + xy.max(axis=0)) / 2
        return np.asarray((xy - middle) @ matrix.T + middle)

    return move


PLANTED: dict[str, Move] = {
    "shift of 1 pitch": shifted(1, 0),
    "shift of 1 pitch, up": shifted(1, 270),
    "shift of 2 pitches, slanted": shifted(2, 35),
    "half turn": turned(180),
    "quarter turn": turned(90),
    "mirror": turned(0, mirrored=True),
    "mirror and quarter turn": turned(90, mirrored=True),
}


def planted(sdata: sd.SpatialData, moves: dict[str, Move], images: dict[str, str] | None = None) -> sd.SpatialData:
    """Return the data with the spots of some regions moved, and lying on other images where `images` says so."""
    sections = {section.region: section for section in read_sections(sdata)}
    shapes = {}
    for region, section in sections.items():
        image = (images or {}).get(region, section.image_key)
        move = moves.get(region, lambda xy, _: xy)
        shapes[region] = ShapesModel.parse(
            move(section.centers, pitch_of(section)),
            geometry=0,
            radius=section.diameter / 2,
            transformations=get_transformation(sdata[image], get_all=True),
        )
        instance = sdata[section.table_key].uns["spatialdata_attrs"]["instance_key"]
        shapes[region].index = sdata[section.table_key].obs[instance].to_numpy()[section.rows]
    tables = {name: table.copy() for name, table in sdata.tables.items()}
    return sd.SpatialData(images=dict(sdata.images), shapes=shapes, tables=tables, attrs=dict(sdata.attrs))


def answers(sdata: sd.SpatialData) -> Iterator[dict[str, object]]:
    """Yield the rows of `tl.check_alignment`; spots beyond the image are left out."""
    sdata.attrs["sthisto"] = {**sdata.attrs["sthisto"], "allow_outside": True}
    yield from sth.tl.check_alignment(sdata).to_dict("records")


def is_right(row: dict[str, object], true: np.ndarray, at: np.ndarray, pitch: float) -> bool:
    """Return whether the placement that was found brings spots back to within 0.8 pitches of the truth."""
    if row["verdict"] != "misaligned":
        return False
    from sthisto._scoring.placements import Placement

    middle = (at.min(axis=0) + at.max(axis=0)) / 2
    shift = np.array([row["shift_x_px"], row["shift_y_px"]], dtype=float)
    back = Placement(int(row["turn"]), bool(row["mirrored"]), middle, shift)(at)
    return bool(np.median(np.linalg.norm(back - true, axis=1)) < 0.8 * pitch)


def report(sdata: sd.SpatialData, counts: dict[str, Counter[str]]) -> None:
    """Add the verdicts on a data set as it is, without signal, and with everything planted."""
    for row in answers(planted(sdata, {})):
        counts["true"][str(row["verdict"])] += 1
    noise = planted(sdata, {})
    (table,) = noise.tables.values()
    table.X = table.X[np.random.default_rng(0).permutation(table.n_obs)]
    for row in answers(noise):
        counts["no signal"][str(row["verdict"])] += 1
    for what, move in PLANTED.items():
        for section in read_sections(sdata):
            one = planted(sdata, {section.region: move})
            keys = ElementKeys(shapes_key=section.region)
            one.attrs["sthisto"] = {**one.attrs["sthisto"], "allow_outside": True}
            (moved,) = read_sections(one, keys)
            (row,) = sth.tl.check_alignment(one, shapes_key=section.region).to_dict("records")
            place = {row_number: i for i, row_number in enumerate(section.rows)}
            true = section.centers[[place[row_number] for row_number in moved.rows]]
            right = is_right(row, true, moved.centers, pitch_of(section))
            counts[what]["found" if right else f"{row['verdict']} (wrong)"] += 1


def swaps(sdata: sd.SpatialData, cycle: list[str], counts: Counter[str]) -> None:
    """Add the verdicts on sections that lie on each other's images, in a cycle."""
    image = {section.region: section.image_key for section in read_sections(sdata)}
    onto = dict(zip(cycle, cycle[1:] + cycle[:1], strict=True))
    back = {other: region for region, other in onto.items()}
    one = planted(sdata, {}, {region: image[onto[region]] for region in cycle})
    for row in answers(one):
        region = str(row["section"])
        if region in cycle:
            right = row["verdict"] == "swapped" and row["image_of"] == back[region]
        else:
            right = row["verdict"] == "aligned"
        counts["right" if right else f"{region}: {row['verdict']} {row['image_of']}"] += 1


def show(counts: dict[str, Counter[str]]) -> None:
    """Print one line for each case."""
    for case, found in counts.items():
        n = sum(found.values())
        print(f"  {case:30s} {n:4d} " + ", ".join(f"{word} {count / n:.0%}" for word, count in found.most_common()))


def main() -> None:
    """Print the figures of synthetic sections, then of real ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sections", type=int, default=40, help="true synthetic sections")
    arguments = parser.parse_args()
    logging.getLogger("sthisto").setLevel(logging.ERROR)
    sth.settings.progress = False
    for n_spots in (60, 150, 300):
        counts = {case: Counter() for case in ("true", "no signal", *PLANTED)}
        for seed in range(max(1, arguments.sections // 12)):
            sdata = sth.datasets.synthetic(n_sections=4, n_spots=n_spots, seed=seed)
            report(sdata, counts)
            regions = ["S1_spots", "S2_spots", "S3_spots"]
            swaps(sdata, regions[:2], counts.setdefault("swap of two of four", Counter()))
            swaps(sdata, regions, counts.setdefault("swap of three of four", Counter()))
        print(f"synthetic, {n_spots} spots")
        show(counts)
    if os.environ.get("STHISTO_HER2ST"):
        names = ["A1", "A2", "C2", "C3", "C4"]
        sdata = sth.datasets.her2st(sections=names)
        counts = {case: Counter() for case in ("true", "no signal", *PLANTED)}
        start = time.perf_counter()
        print(sth.tl.check_alignment(sdata).round(2).to_string())
        print(f"her2st, {(time.perf_counter() - start) / len(names):.1f} s a section")
        report(sdata, counts)
        for cycle in (["C2", "C4"], ["C2", "C3"], ["C2", "C3", "C4"], ["A1", "A2"]):
            counts[f"swap of {' and '.join(cycle)}"] = Counter()
            swaps(sdata, [f"{name}_spots" for name in cycle], counts[f"swap of {' and '.join(cycle)}"])
        show(counts)


if __name__ == "__main__":
    main()
