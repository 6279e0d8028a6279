from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sthisto.models.training.gather import share_of

WORKER = Path(__file__).parent / "distributed_worker.py"


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What one process, and each of two processes, computed."""
    folder = tmp_path_factory.mktemp("distributed")
    command = [sys.executable, str(WORKER), str(folder), str(free_port())]
    started = subprocess.run(command, timeout=300, check=False)
    said = {file.name: file.read_text() for file in folder.glob("*.errors")}
    assert started.returncode == 0, said
    return [torch.load(folder / name, weights_only=True) for name in ("one", "rank0", "rank1")], said


def assert_same(values, expected):
    for name in expected:
        torch.testing.assert_close(values[name], expected[name], rtol=1e-5, atol=1e-5)


def test_two_processes_give_the_loss_and_gradients_of_one(runs):
    one, *two = runs[0]
    for rank in two:
        assert rank["world_size"] == 2
        torch.testing.assert_close(rank["loss"], one["loss"], rtol=1e-5, atol=0)
        assert_same(rank["gradients"], one["gradients"])


def test_two_processes_end_with_the_weights_and_history_of_one(runs):
    one, *two = runs[0]
    for rank in two:
        assert_same(rank["weights"], one["weights"])
        torch.testing.assert_close(rank["history"], one["history"], rtol=1e-5, atol=1e-5)


def test_two_processes_see_every_spot_of_an_epoch_though_batches_do_not_divide(runs):
    one, *two = runs[0]
    assert one["seen"] == sum(rank["seen"] for rank in two) == 3 * 23


def test_processes_agree_to_the_last_digit(runs):
    _, first, second = runs[0]
    for name, values in first["weights"].items():
        assert torch.equal(values, second["weights"][name])


def test_one_of_the_processes_writes_files(runs):
    assert [run["writes"] for run in runs[0]] == [True, True, False]


def test_training_announces_nothing_that_was_asked_for(runs):
    said = [line for line in runs[1]["one.errors"].splitlines() if "validation loss was still falling" not in line]
    assert said == []


def test_shares_are_the_batch_in_its_order():
    shares = [share_of(np.arange(10), rank, 4) for rank in range(4)]
    assert np.array_equal(np.concatenate(shares), np.arange(10))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
