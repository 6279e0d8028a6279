import pytest
import torch
from torch import nn

from sthisto._utils import cpus
from sthisto.models.training.loop import Training, train
from sthisto.models.training.threads import threads_that_pay

CPU = torch.device("cpu")


@pytest.fixture
def three_threads(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr("sthisto.models.training.threads.usable_cpus", lambda: 2)
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_rows_of_features_take_one_thread_and_images_those_that_may_be_used(three_threads):
    with threads_that_pay(CPU, [torch.zeros(5, 8), torch.zeros(5)]):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3
    with threads_that_pay(CPU, [torch.zeros(5, 8, 8, 3), torch.zeros(5)]):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 3


def test_a_gpu_leaves_the_threads_alone(three_threads):
    with threads_that_pay(torch.device("cuda"), [torch.zeros(5, 8)]):
        assert torch.get_num_threads() == 3


def test_threads_are_never_raised(three_threads):
    torch.set_num_threads(1)
    with threads_that_pay(CPU, [torch.zeros(5, 8, 8, 3)]):
        assert torch.get_num_threads() == 1


def test_a_training_sets_the_threads_back_also_after_an_error(three_threads):
    seen = []

    def loss(module, batch, gather):
        seen.append(torch.get_num_threads())
        if len(seen) > 2:
            msg = "stop"
            raise RuntimeError(msg)
        return module(batch[0]).square().mean()

    with pytest.raises(RuntimeError, match="stop"):
        train(
            nn.Linear(4, 1),
            (torch.ones(8, 4),),
            loss=loss,
            validation=None,
            groups=torch.zeros(8).numpy(),
            training=Training(max_epochs=5, batch_size=4),
            description="Fitting",
        )
    assert set(seen) == {1}
    assert torch.get_num_threads() == 3


@pytest.fixture
def cgroup(monkeypatch, tmp_path):
    """A machine with eight processors, whose cgroups are files here."""
    monkeypatch.setattr(cpus, "_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(cpus, "_OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(cpus, "available_cpus", lambda: 8)
    (tmp_path / "cgroup" / "job" / "step").mkdir(parents=True)
    (tmp_path / "own").write_text("0::/job/step\n")
    return tmp_path / "cgroup"


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "350000 100000"}, 3),
        ({"cpu.max": "50000 100000"}, 1),
        ({"job/cpu.max": "200000 100000", "job/step/cpu.max": "max 100000"}, 2),
        ({"job/cpu.max": "400000 100000", "job/step/cpu.max": "100000 50000"}, 2),
        ({"cpu.max": "3200000 100000"}, 8),
    ],
)
def test_the_quota_of_a_cgroup_limits_the_processors(cgroup, limits, expected):
    for name, text in limits.items():
        (cgroup / name).write_text(f"{text}\n")
    assert cpus.usable_cpus() == expected


@pytest.mark.parametrize(("quota", "expected"), [("250000", 2), ("-1", 8)])
def test_cgroups_of_version_1_do_too(cgroup, quota, expected):
    (cgroup.parent / "own").write_text("12:cpuset:/\n4:cpu,cpuacct:/job\n")
    folder = cgroup / "cpu" / "job"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text(quota)
    (folder / "cpu.cfs_period_us").write_text("100000")
    assert cpus.usable_cpus() == expected


def test_affinity_limits_the_processors(monkeypatch):
    monkeypatch.setattr(cpus.os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    assert cpus.available_cpus() == 2
