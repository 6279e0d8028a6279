"""What the shell offers when a command line is completed, by argcomplete."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import sthisto as sth
from sthisto.cli.completion import method_names


def complete(line, folder):
    """Do what the function that `register-python-argcomplete sthisto` defines in bash does."""
    out = folder / "offered"
    own = {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9", "_ARGCOMPLETE": "1"}
    own |= {"_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_SHELL": "bash", "_ARGCOMPLETE_STDOUT_FILENAME": str(out)}
    done = subprocess.run(
        [sys.executable, "-m", "sthisto"], env=os.environ | own, cwd=folder, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return out.read_text().split()


def test_commands_options_and_names_are_completed(tmp_path):
    pytest.importorskip("argcomplete")
    (tmp_path / "sections.zarr").mkdir()
    assert complete("sthisto pre", tmp_path) == ["predict"]
    assert {"--model", "--out", "--genes"} <= set(complete("sthisto predict --", tmp_path))
    assert complete("sthisto fit sections.zarr --method r", tmp_path) == ["recommended", "ridge"]
    assert complete("sthisto fit sections.zarr --image-encoder te", tmp_path) == ["texture"]
    assert complete("sthisto split sections.zarr --by p", tmp_path) == ["patient"]
    assert complete("sthisto evaluate sec", tmp_path) == ["sections.zarr/"]


def test_methods_that_are_completed_are_those_that_can_be_fitted():
    assert set(method_names()) == set(sth.models.available()) - {"ensemble"}
