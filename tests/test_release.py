"""What a release promises: one version everywhere, lowest versions in step, and metadata that the registries accept."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

jsonschema = pytest.importorskip("jsonschema")
yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not (ROOT / ".github").is_dir(), reason="these files are not part of an sdist")
OWNERS_ONLY = "TO BE SET"
INSTALLED_BY_CI = ("offline", "io", "faiss", "harmony", "test")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture
def project() -> dict:
    return tomllib.loads(read("pyproject.toml"))["project"]


@pytest.fixture
def entry() -> dict:
    return yaml.safe_load(read("docs/ecosystem/meta.yaml"))


@pytest.fixture
def schema() -> dict:
    return json.loads(read("tests/ecosystem/schema.json"))


def test_entry_of_the_registry_is_valid(entry, schema):
    jsonschema.validate(entry, schema)


@pytest.mark.parametrize("change", [{"contact": []}, {"tags": ["histology"]}, {"project_home": "here"}])
def test_entry_that_the_registry_refuses_is_noticed(entry, schema, change):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(entry | change, schema)


def test_version_is_the_same_everywhere(project, entry):
    citation = yaml.safe_load(read("CITATION.cff"))
    assert project["version"] == entry["version"] == citation["version"]
    assert f"## {project['version']}" in read("CHANGELOG.md")


def test_lowest_versions_are_those_declared(project):
    extras = project["optional-dependencies"]
    declared = [*project["dependencies"], *(one for extra in INSTALLED_BY_CI for one in extras[extra])]
    floors = {found[1]: found[2] for one in declared if (found := re.match(r"([\w.-]+)(?:\[\w+\])?>=([\w.]+)", one))}
    lines = [line for line in read("constraints-lowest.txt").splitlines() if line and not line.startswith("#")]
    assert dict(line.split("==") for line in lines) == floors


def test_installation_page_lists_every_extra(project):
    table = re.findall(r"^\| (`.*?`) \|", read("docs/installation.md"), flags=re.MULTILINE)
    listed = [name for row in table for name in re.findall(r"`([a-z]+)`", row)]
    assert sorted(listed) == sorted(project["optional-dependencies"])


def test_workflows_install_extras_that_exist(project):
    for path in (ROOT / ".github" / "workflows").glob("*.yaml"):
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        for job in workflow["jobs"].values():
            assert job["timeout-minutes"] <= 25
            commands = "\n".join(step.get("run", "") for step in job["steps"])
            for extras in re.findall(r"\"(?:\.|\$\{wheel\})\[([\w,]+)\]\"", commands):
                assert set(extras.split(",")) <= set(project["optional-dependencies"]), path.name
            for file in re.findall(r"-c (\S+)", commands):
                assert (ROOT / file).is_file(), path.name


def test_owners_find_every_field_to_fill_in_on_one_list():
    listed = read("MAINTAINERS.md")
    suffixes = {".toml", ".cff", ".yaml", ".yml", ".md"}
    paths = [path for path in ROOT.rglob("*") if path.suffix in suffixes and "." not in path.parts[len(ROOT.parts)][:1]]
    named = [str(path.relative_to(ROOT)) for path in paths if OWNERS_ONLY in path.read_text(encoding="utf-8")]
    assert named
    assert not [name for name in named if name not in listed and name != "MAINTAINERS.md"]
