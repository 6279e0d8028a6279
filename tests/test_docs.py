"""What the documentation promises: every public name is on the API page, and its docstring tells what a call needs."""

from __future__ import annotations

import ast
import doctest
import functools
import importlib
import inspect
import re
import textwrap
from pathlib import Path

import pytest
from builders import with_own_tables

import sthisto

ROOMS = sorted(sthisto._SUBMODULES)
WITH_EXAMPLES = ("datasets", "get", "io", "metrics", "pp", "tl")
API_PAGE = Path(__file__).parents[1] / "docs" / "api.md"
SECTION = re.compile(r"^(\S[^\n]*)\n-{3,}$", flags=re.MULTILINE)
pytestmark = pytest.mark.skipif(not API_PAGE.is_file(), reason="the pages of the docs are not part of an sdist")
SECTIONS = {
    "Parameters", "Returns", "Yields", "Attributes", "Raises", "See Also", "Notes", "References", "Examples"
}  # fmt: skip


def public_names(*rooms: str) -> list[tuple[str, object]]:
    modules = {room: importlib.import_module(f"sthisto.{room}") for room in rooms or ROOMS}
    return [(f"{room}.{name}", getattr(module, name)) for room, module in modules.items() for name in module.__all__]


def functions(*rooms: str) -> dict[str, object]:
    return {name: value for name, value in public_names(*rooms) if inspect.isfunction(value)}


def classes() -> dict[str, object]:
    return {name: value for name, value in public_names() if inspect.isclass(value)}


@functools.cache
def sections(documented: object) -> dict[str, str]:
    """Return the text of each section of a docstring; what stands before the first is the section ""."""
    parts = SECTION.split(inspect.getdoc(documented) or "")
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def documented_parameters(documented: object) -> list[str]:
    lines = [line for line in sections(documented).get("Parameters", "").splitlines() if line and not line[0].isspace()]
    return [name.strip() for line in lines for name in line.split(" : ")[0].split(",")]


def parameters(function: object) -> list[str]:
    marks = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [marks.get(p.kind, "") + p.name for p in inspect.signature(function).parameters.values()]


def raises(function: object) -> bool:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return any(isinstance(node, ast.Raise) and node.exc is not None for node in ast.walk(tree))


def test_api_page_lists_every_public_name_once():
    listed = re.findall(rf"^   ((?:{'|'.join(ROOMS)})\.\w+)$", API_PAGE.read_text(), flags=re.MULTILINE)
    assert sorted(listed) == sorted(name for name, _ in public_names()), "bring docs/api.md in step with __all__"


def test_api_page_lists_the_options_of_every_method():
    from sthisto.models import METHODS

    page = API_PAGE.read_text()
    options = {method.Options for method in METHODS.values() if method.Options.__name__ != "NoOptions"}
    missing = [
        f"{one.__module__}.{one.__name__}" for one in options if f"{one.__module__}.{one.__name__}\n" not in page
    ]
    assert not missing


def test_docstrings_name_the_parameters_of_the_signature():
    found = {name: (documented_parameters(one), parameters(one)) for name, one in functions().items()}
    assert len(found) > 90
    assert not {name: both for name, both in found.items() if sorted(both[0]) != sorted(both[1])}


def test_docstrings_of_classes_name_parameters_that_they_take():
    assert not [name for name, cls in classes().items() if not sections(cls)[""].strip()]
    unknown = {name: set(documented_parameters(cls)) - set(parameters(cls)) for name, cls in classes().items()}
    assert len(unknown) > 50
    assert not {name: names for name, names in unknown.items() if names}


def test_docstrings_say_what_is_returned():
    def returns(function):
        writes_to_sdata = function.__module__.startswith(("sthisto.pp", "sthisto.tl"))
        return writes_to_sdata or inspect.signature(function).return_annotation not in (None, "None")

    returning = {name: one for name, one in functions().items() if returns(one)}
    assert len(returning) > 80
    assert not [name for name, one in returning.items() if not sections(one).get("Returns", "").strip()]


def test_docstrings_say_what_is_raised():
    raising = {name: one for name, one in functions().items() if raises(one)}
    assert len(raising) > 30
    assert not [name for name, one in raising.items() if not sections(one).get("Raises", "").strip()]


def test_docstrings_have_an_example():
    examples = {name: sections(one).get("Examples", "") for name, one in functions(*WITH_EXAMPLES).items()}
    assert len(examples) > 60
    assert not [name for name, text in examples.items() if ">>>" not in text]


def test_docstrings_have_known_sections_alone():
    unknown = {name: set(sections(one)) - {""} - SECTIONS for name, one in (functions() | classes()).items()}
    assert not {name: titles for name, titles in unknown.items() if titles}


@pytest.fixture
def small_synthetic(monkeypatch):
    """Examples draw fewer spots than the default, and the same sections once, to be quick."""
    draw = functools.cache(sthisto.datasets.synthetic)

    @functools.wraps(sthisto.datasets.synthetic)
    def small(**arguments):
        return with_own_tables(draw(**{"n_spots": 30, **arguments}))

    monkeypatch.setattr(sthisto.datasets, "synthetic", small)


@pytest.mark.parametrize("room", ROOMS)
def test_examples_run(room, small_synthetic, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sthisto.settings, "progress", False)
    monkeypatch.setattr(sthisto.settings, "cache_dir", tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    finder = doctest.DocTestFinder(recurse=False)
    for name, value in public_names(room):
        for example in finder.find(value, name, globs={}):
            runner.run(example)
    assert runner.summarize(verbose=False).failed == 0


def test_every_key_of_an_element_is_described_by_itself():
    keys = {"image_key", "shapes_key", "table_key", "coordinate_system", "um_per_px", "gene_symbols"}
    for name, function in functions("pp", "tl", "get", "pl").items():
        text = sections(function).get("Parameters", "")
        for key in keys & set(parameters(function)):
            described = re.search(rf"^{key}\n((?: +.*\n?)+)", text, flags=re.MULTILINE)
            assert described, f"{name}: `{key}` shares its description with another parameter."
            assert "None: " in described[1], f"{name}: `{key}` does not say what None means."


ARCHITECTURE = API_PAGE.parent / "architecture.md"
SOURCE = Path(sthisto.__file__).parent


def test_files_named_by_the_architecture_page_exist():
    table = ARCHITECTURE.read_text(encoding="utf-8").split("## Data flow")[0]
    named = re.findall(r"`([\w/]+\.py)`", table)
    assert len(named) > 30
    assert not [name for name in named if not (SOURCE / name).is_file()]


def test_scripts_and_tests_named_by_the_docs_exist():
    root = API_PAGE.parents[1]
    pages = [*root.glob("*.md"), *API_PAGE.parent.rglob("*.md")]
    named = {name for page in pages for name in re.findall(r"(?:tests|benchmarks)/[\w/]+\.py", page.read_text("utf-8"))}
    assert len(named) > 10
    assert [name for name in sorted(named) if not (root / name).is_file()] == []


MESSAGES_OF_OTHERS = {"zarr v3 autosharding will be the default", "Variable names are not unique"}


def texts_of(package: Path) -> str:
    """Return every string of a package's code, one a line, with "…" in place of what is put into it."""

    def text(node: ast.expr) -> str:
        return str(node.value) if isinstance(node, ast.Constant) else "…"

    found = []
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(map(text, node.values)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%[-.\d]*[a-z]", "…", node.value))
    return "\n".join(" ".join(one.split()) for one in found)


def test_messages_quoted_on_the_troubleshooting_page_are_those_of_the_code():
    page = (API_PAGE.parent / "troubleshooting.md").read_text(encoding="utf-8")
    headings = re.findall(r"^\*\*(.+?)\*\*", page, flags=re.MULTILINE | re.DOTALL)
    quoted = {" ".join(text.split()) for heading in headings for text in re.findall(r'"([^"]+)"', heading)}
    assert len(quoted) > 8
    texts = texts_of(SOURCE)
    own = sorted(quoted - MESSAGES_OF_OTHERS)
    # a name in the page, such as `table_key`, may be put into the message
    patterns = [re.sub(r"`\w+`", lambda name: f"(?:{name[0]}|`…`)", re.escape(one)) for one in own]
    assert [one for one, pattern in zip(own, patterns, strict=True) if not re.search(pattern, texts)] == []
    assert quoted >= MESSAGES_OF_OTHERS


def test_every_folder_is_described_on_the_architecture_page():
    tree = ARCHITECTURE.read_text(encoding="utf-8").split("## What each folder is for")[1].split("## Import rules")[0]
    folders = {path.parent for path in SOURCE.rglob("__init__.py")} - {SOURCE}
    assert not [folder.name for folder in folders if f"{folder.name}/" not in tree]


def test_command_line_page_shows_every_command():
    from sthisto.cli.main import build_parser

    (commands,) = [action.choices for action in build_parser()._actions if isinstance(action.choices, dict)]
    shown = re.findall(r'^show\("([\w-]+)"\)$', (API_PAGE.parent / "cli.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(shown) == sorted(commands)
