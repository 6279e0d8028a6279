"""Torch's state of the process neither changes a fit nor is changed by it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tissue import PATCH, Pool, make_tissue

import sthisto as sth
from sthisto.models import torch_state

ARGUMENTS = {
    "image_encoder": Pool(),
    "patch_size": PATCH,
    "k": 5,
    "max_epochs": 3,
    "batch_size": 16,
    "embedding_dim": 8,
    "bottleneck": 4,
}


def weights(model):
    return torch.cat([value.double().flatten() for _, value in sorted(model.state().items())])


def fit(seed=0, **more):
    sdata = make_tissue()
    model = sth.tl.fit(sdata, seed=seed, **ARGUMENTS | more)
    sth.tl.predict(sdata, model)
    return weights(model), sdata["counts"].layers["sthisto_pred"]


@pytest.fixture(scope="module")
def alone():
    return fit()


def test_fits_in_threads_give_the_weights_of_each_alone(alone):
    before = torch.get_rng_state()
    seeds = [0, 1, 0, 2]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(fit, seeds))
    assert torch.equal(found[0][0], alone[0])
    assert torch.equal(found[2][0], alone[0])
    assert torch.equal(found[1][0], fit(seed=1)[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_the_callers_random_state_is_put_back():
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002  the global state is what is looked at
    before, of_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    fit()
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], of_numpy)  # noqa: NPY002


def test_a_thread_waits_for_the_one_that_draws():
    inside, numbers = threading.Event(), []

    def draw():
        inside.wait()
        with torch_state.seeded(1):
            numbers.append(torch.rand(1))

    other = threading.Thread(target=draw)
    other.start()
    with torch_state.seeded(0):
        first = torch.rand(1)
        inside.set()
        other.join(timeout=0.2)
        assert not numbers
        second = torch.rand(1)
    other.join()
    with torch_state.seeded(0):
        assert torch.equal(torch.cat([first, second]), torch.cat([torch.rand(1), torch.rand(1)]))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("method", ["danet", "stnet"])
def test_a_context_without_gradients_changes_nothing(context, method):
    more = {} if method == "danet" else {"method": method}
    for name in ("k", "embedding_dim", "bottleneck") if method == "stnet" else ():
        more[name] = ARGUMENTS[name]
    arguments = {name: value for name, value in ARGUMENTS.items() if name not in more} | {"method": method}

    def fitted():
        sdata = make_tissue()
        model = sth.tl.fit(sdata, **arguments)
        sth.tl.predict(sdata, model)
        return weights(model), sdata["counts"].layers["sthisto_pred"]

    expected = fitted()
    with context():
        found = fitted()
        assert torch.is_inference_mode_enabled() == (context is torch.inference_mode)
        assert not torch.is_grad_enabled()
    assert torch.equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_another_default_dtype_changes_nothing(alone):
    torch.set_default_dtype(torch.float64)
    try:
        found = fit()
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found[0], alone[0])
    np.testing.assert_array_equal(found[1], alone[1])
