"""Which room may import what: SpatialData is read and written in one place, and no import runs upward."""

import ast
from pathlib import Path

import pytest

import sthisto

SOURCE = Path(sthisto.__file__).parent
MAY_READ_ELEMENTS = ("_sdata", "io", "datasets")
"""`io` and `datasets` build SpatialData of what is none; the results of computations go through `_sdata`."""
BELOW = {
    "_splits": ("pp", "tl", "pl", "get", "_scoring", "benchmark", "models"),
    "_sdata": ("_splits", "_scoring", "pp", "tl", "pl", "get", "benchmark", "io", "datasets"),
    "_images": ("_sdata", "_splits", "_scoring", "models", "pp", "tl", "pl", "get", "benchmark", "io", "datasets"),
    "pp": ("tl", "pl", "get", "benchmark"),
    "get": ("pl", "pp", "tl", "benchmark"),
    "pl": ("pp", "tl", "benchmark", "models"),
}


def imported(path):
    """Return the modules that a file imports at run time, and those for its annotations alone."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names = []
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def files(*rooms):
    return [
        pytest.param(path, id=str(path.relative_to(SOURCE))) for room in rooms for path in (SOURCE / room).rglob("*.py")
    ]


def outside():
    return [
        pytest.param(path, id=str(path.relative_to(SOURCE)))
        for path in SOURCE.rglob("*.py")
        if path.relative_to(SOURCE).parts[0] not in MAY_READ_ELEMENTS
    ]


@pytest.mark.parametrize("path", outside())
def test_elements_are_read_and_tables_written_by_sdata_alone(path):
    elements = ("spatialdata.models", "spatialdata.transformations", "spatialdata.SpatialData")
    assert not [name for name in imported(path) if name.startswith(elements)]
    written = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Subscript)
        and isinstance(target.value, ast.Attribute)
        and target.value.attr in ("obs", "var", "obsm", "varm", "layers", "uns", "tables", "shapes", "images", "labels")
    ]
    assert not [node.lineno for node in written]


@pytest.mark.parametrize("path", files(*BELOW))
def test_no_import_runs_upward(path):
    room = path.relative_to(SOURCE).parts[0]
    upward = tuple(f"sthisto.{above}." for above in BELOW[room])
    assert not [name for name in imported(path) if f"{name}.".startswith(upward)]


@pytest.mark.parametrize("path", outside())
def test_names_of_slots_stand_in_one_file(path):
    constants = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    assert not [text for text in constants if isinstance(text, str) and text.startswith("sthisto_")]
