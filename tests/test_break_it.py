"""The short form of the script that breaks the package on purpose."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "break_it.py"


@pytest.mark.skipif(not hasattr(os, "fork") or not SCRIPT.is_file(), reason="needs fork, and a checkout")
def test_nothing_falls(tmp_path):
    env = os.environ | {"OMP_NUM_THREADS": "1", "STHISTO_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-W", "ignore", str(SCRIPT), "--short", "--only", "kills", "tamperings"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    rows = [line for line in done.stdout.splitlines() if " tried " in line]
    assert len(rows) > 5
    assert all(" 0 fell" in row for row in rows)
