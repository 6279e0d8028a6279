"""What each room may import, read and name: data moves one way, and SpatialData is read and written in one place."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import sthisto

SOURCE = Path(sthisto.__file__).parent
DOCS = Path(__file__).parents[1] / "docs"
MAY_READ_ELEMENTS = ("_sdata", "io", "datasets")
"""`io` and `datasets` build SpatialData of what is none; the results of computations go through `_sdata`."""
ARRAYS_ALONE = ("_images", "models", "metrics", "nn")
SCVERSE = ("spatialdata", "anndata", "scanpy", "squidpy")
LAYERS = (
    ("_utils",),
    ("_images", "metrics", "nn"),
    ("models",),
    ("_sdata",),
    ("_splits", "_scoring"),
    ("pp", "get", "io"),
    ("pl", "datasets"),
    ("report",),
    ("tl",),
    ("benchmark", "cohort"),
    ("cli",),
)
"""A room imports from rooms of the layers before its own."""
SLOT_PARTS = (
    "X_",
    "_pred",
    "_pred_sd",
    "_confidence",
    "_seen",
    "_cells",
    "_gene",
    "_pcc",
    "_pcc_residual",
    "_low",
    "_high",
)


def modules(node):
    """Return the modules and names that an import statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


@cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path, *, for_types=False):
    """Return what a file imports, inside functions too; `for_types` adds what is imported for annotations alone."""
    tree = tree_of(path)
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    return [name for node in ast.walk(tree) if for_types or id(node) not in typing_only for name in modules(node)]


def room_of(path):
    return path.relative_to(SOURCE).parts[0]


def files(*rooms):
    return [path for room in rooms for path in (SOURCE / room).rglob("*.py")]


def everywhere():
    return list(SOURCE.rglob("*.py"))


def outside():
    return [path for path in everywhere() if room_of(path) not in MAY_READ_ELEMENTS]


def faults(check, paths):
    """Return what a check finds in each file, leaving out the files where it finds nothing."""
    assert len(paths) > 50
    return {str(path.relative_to(SOURCE)): found for path in paths if (found := check(path))}


def elements_touched(tree):
    """Return the lines that reach into a SpatialData: `sdata.tables[…]` and the like."""
    kinds = ("tables", "shapes", "images", "labels", "points")
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in kinds
        and id(node) not in called
        and re.search(r"sdata|^one$", ast.unparse(node.value))
    ]


def test_elements_are_read_and_tables_written_by_sdata_alone():
    assert not faults(elements_imported, outside())
    assert not faults(slots_written, outside())
    # `one` is a measured section in `_scoring`, whose `labels` are an array
    assert not faults(lambda path: elements_touched(tree_of(path)), [p for p in outside() if room_of(p) != "_scoring"])


def elements_imported(path):
    elements = ("spatialdata.models", "spatialdata.transformations", "spatialdata.SpatialData")
    return [name for name in imported(path) if name.startswith(elements)]


def slots_written(path):
    """Return the lines that assign to a slot of a table."""
    slots = ("obs", "var", "obsm", "varm", "layers", "uns", "attrs", "tables", "shapes", "images", "labels")
    return [
        node.lineno
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del)
        for holder in [node.value if isinstance(node, ast.Subscript) else node]
        if isinstance(holder, ast.Attribute) and holder.attr in slots and ast.unparse(holder.value) != "self"
    ]


def test_rooms_of_arrays_know_nothing_of_the_scverse_not_even_for_annotations():
    def scverse(path):
        return [name for name in imported(path, for_types=True) if name.partition(".")[0] in SCVERSE]

    assert not faults(scverse, files(*ARRAYS_ALONE))


def test_every_room_has_its_layer():
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert rooms <= {room for layer in LAYERS for room in layer}


def test_no_import_runs_upward():
    def upward(path):
        room = room_of(path)
        (depth,) = [i for i, layer in enumerate(LAYERS) if room in layer]
        below = {"__version__", room, *(name for layer in LAYERS[:depth] for name in layer)}
        return {name.split(".")[1] for name in imported(path) if name.startswith("sthisto.")} - below

    assert not faults(upward, files(*(room for layer in LAYERS for room in layer)))


def test_names_of_slots_stand_in_one_file():
    def slot_names(path):
        nodes = list(ast.walk(tree_of(path)))
        constants = [node.value for node in nodes if isinstance(node, ast.Constant)]
        formatted = [part for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values]
        return [text for text in constants if isinstance(text, str) and text.startswith("sthisto_")] + [
            part.lineno for part in formatted if isinstance(part, ast.Constant) and part.value in SLOT_PARTS
        ]

    assert not faults(slot_names, outside())


def test_every_name_of_a_slot_is_found_by_that_test():
    text = (SOURCE / "_sdata" / "slots.py").read_text()
    suffixes = re.findall(r'return f"(?:X_)?\{key\}(_[a-z_]+)"', text)
    assert len(suffixes) >= 5
    assert set(suffixes) <= set(SLOT_PARTS)


@pytest.mark.skipif(not DOCS.is_dir(), reason="the pages of the docs are not part of an sdist")
def test_docs_and_tutorials_use_no_private_name():
    private = re.compile(r"sthisto(?:\.\w+)*\.(_[a-z]\w*)|\b(?:def|self\.|import) ?(_[a-z]\w*)|\b\w+\.(_[a-z]\w*)")
    pages = [DOCS / "contributing.md", *sorted((DOCS.parent / "tutorials").glob("*.ipynb"))]
    assert len(pages) > 5
    used = {page.name: [match[0] for match in private.finditer(code_of(page))] for page in pages}
    assert not {page: names for page, names in used.items() if names}


def code_of(page):
    """Return the code on a page of Markdown, or in a notebook, and what its text sets in code."""
    text = page.read_text()
    if page.suffix == ".ipynb":
        import json

        return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    paths = re.compile(r"`(?:src|tests|docs)/[^`]*`")  # of files to edit, which are no names to import
    return paths.sub("", text)


def test_what_a_method_can_do_is_declared_and_not_found_out():
    from sthisto import models

    methods = {cls.__name__ for cls in models.METHODS.values()} | {"CombinedModel", "RetrievalModel"}
    assert not faults(lambda path: found_out(path, methods), everywhere())
    assert not faults(private_parts, everywhere())


def found_out(path, methods):
    """Return the looks at what a model or its options have, or at the class of a method."""
    calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    looks = [node for node in calls if node.func.id in ("hasattr", "getattr", "isinstance", "issubclass") and node.args]
    return [
        ast.unparse(node)
        for node in looks
        if (
            room_of(path) != "cli"  # whose `options` are those of the command line
            and node.func.id in ("hasattr", "getattr")
            and re.search(r"\b(model|member|options|Options|method)$", ast.unparse(node.args[0]))
        )
        or {inner.id for inner in ast.walk(node.args[-1]) if isinstance(inner, ast.Name)} & methods
    ]


def private_parts(path):
    """Return the private attributes of models, members, sections, sources and encoders that are used."""
    poked = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute) and node.attr.startswith("_")]
    names = ("model", "member", "section", "source", "encoder")
    return [
        ast.unparse(node)
        for node in poked
        if isinstance(node.value, ast.Name) and node.value.id in names and not node.attr.startswith("__")
    ]


def test_no_frozen_dataclass_holds_a_cache():
    def caches(path):
        frozen = [
            node
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.ClassDef) and any("frozen=True" in ast.unparse(one) for one in node.decorator_list)
        ]
        text = "\n".join(ast.unparse(node) for node in frozen)
        return re.findall(r"init=False|cached_property|object\.__setattr__", text)

    assert not faults(caches, everywhere())
