"""The short form of the script that breaks the package on purpose."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "break_it.py"


@pytest.mark.skipif(not hasattr(os, "fork") or not SCRIPT.is_file(), reason="needs fork, and a checkout")
@pytest.mark.parametrize("part", ["kills", "tamperings", "fuzz"])
def test_nothing_falls(part, tmp_path):
    env = os.environ | {"OMP_NUM_THREADS": "1", "STHISTO_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-W", "ignore", str(SCRIPT), "--short", "--only", part]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert " 0 fell" in done.stdout
