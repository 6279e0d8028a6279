from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from tissue import GENES, PATCHES, encoder, make_section

from sthisto import settings
from sthisto.models import METHODS
from sthisto.models.parallel import map_over_devices
from sthisto.models.training.devices import on_device, torch_device, torch_devices

CPUS = [torch.device("cpu"), torch.device("cpu")]


@pytest.fixture(scope="module")
def model():
    cls = METHODS["bleep"]
    model = cls(GENES, patch=PATCHES, options=cls.make_options({"k": 5, "max_epochs": 2}), encoder=encoder())
    model.fit([make_section("A", seed=0), make_section("B", seed=1)])
    return model


def test_several_devices_give_the_predictions_of_one_in_the_order_of_the_sections(model):
    sections = [make_section(name, seed=seed).inputs for seed, name in enumerate("CDEF", start=5)]
    alone = [model.predict(section).expression for section in sections]
    together = map_over_devices(model, sections, lambda own, section: own.predict(section).expression, devices=CPUS)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5)


def test_each_section_is_done_once_by_a_model_of_the_devices_own(model):
    meet = threading.Barrier(2, timeout=30)
    done = []

    def task(own, number):
        if number < 2:
            meet.wait()  # two sections are in work at the same time
        done.append((number, id(own._module)))
        assert own._bank is model._bank
        return number

    assert map_over_devices(model, range(7), task, devices=CPUS) == list(range(7))
    assert sorted(number for number, _ in done) == list(range(7))
    assert len({module for _, module in done} - {id(model._module)}) == 2


def test_an_error_on_one_device_stops_the_others_and_is_raised(model):
    done = []

    def task(own, number):
        done.append(number)
        msg = "broken slide"
        raise OSError(msg)

    with pytest.raises(OSError, match="broken slide"):
        map_over_devices(model, range(100), task, devices=CPUS)
    assert len(done) <= 2


def test_no_section_gives_no_result(model):
    assert map_over_devices(model, [], lambda own, item: item, devices=CPUS) == []


def test_a_threads_device_is_its_own():
    with on_device(torch.device("meta")):
        assert torch_device() == torch.device("meta")
        seen = []
        thread = threading.Thread(target=lambda: seen.append(torch_device()))
        thread.start()
        thread.join()
    assert seen == [torch_device()] != [torch.device("meta")]


@pytest.mark.parametrize("device", ["cuda:63", "mps"])
def test_a_device_that_is_not_there_is_an_error_that_lists_what_is(monkeypatch, device):
    monkeypatch.setattr(settings, "device", device)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match=r"does not have\. Available: cpu"):
        torch_device()


@pytest.mark.parametrize("device", ["tpu", "cuda:first"])
def test_a_device_that_means_nothing_is_an_error(monkeypatch, device):
    monkeypatch.setattr(settings, "device", device)
    with pytest.raises(ValueError, match=r"settings\.device"):
        torch_device()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_gpu_takes_part_and_predicts_what_the_cpu_does(model, monkeypatch):
    assert len(torch_devices()) == torch.cuda.device_count()
    sections = [make_section(name, seed=seed).inputs for seed, name in enumerate("CDEF", start=5)]
    on_gpu = map_over_devices(model, sections, lambda own, section: own.embed(section))
    monkeypatch.setattr(settings, "device", "cpu")
    monkeypatch.setattr(settings, "cache_features", False)
    again = [make_section(name, seed=seed).inputs for seed, name in enumerate("CDEF", start=5)]
    for one, other in zip(on_gpu, map_over_devices(model, again, lambda own, section: own.embed(section)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
