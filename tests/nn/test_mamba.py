import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sthisto.nn import GeneEncoder, Mamba, scan_backend
from sthisto.nn._kernels.scan import selective_scan

BACKENDS = ["numba", "torch"]


def step_by_step(block, x):
    """The block in float64, one position, one channel and one state after the other, from the formulas."""
    p = {name: value.detach().double().numpy() for name, value in block.named_parameters()}
    x = x.detach().double().numpy()
    width, rank, n = block.conv1d.kernel_size[0], block.dt_rank, block.d_state
    y = np.zeros_like(x)
    for b in range(len(x)):
        xz = x[b] @ p["in_proj.weight"].T
        inner, gate = xz[:, : block.d_inner], xz[:, block.d_inner :]
        h = np.zeros((block.d_inner, n))
        for t in range(len(inner)):
            u = p["conv1d.bias"].copy()
            for k in range(width):
                if t - k >= 0:
                    u += p["conv1d.weight"][:, 0, width - 1 - k] * inner[t - k]
            u = u / (1 + np.exp(-u))
            projected = p["x_proj.weight"] @ u
            delta = np.log1p(np.exp(p["dt_proj.weight"] @ projected[:rank] + p["dt_proj.bias"]))
            for d in range(block.d_inner):
                for s in range(n):
                    decay = np.exp(-np.exp(p["A_log"][d, s]) * delta[d])
                    h[d, s] = decay * h[d, s] + delta[d] * projected[rank + s] * u[d]
            out = h @ projected[rank + n :] + p["D"] * u
            y[b, t] = p["out_proj.weight"] @ (out * gate[t] / (1 + np.exp(-gate[t])))
    return torch.from_numpy(y)


def run(block, x, grad):
    block.zero_grad()
    x = x.clone().requires_grad_()
    y = block(x)
    y.backward(grad)
    return y.detach(), {"x": x.grad, **{name: p.grad.clone() for name, p in block.named_parameters()}}


def assert_close(expected, found, relative):
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=0, atol=relative * float(value.abs().max()), msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("length", [785, 3467])
def test_block_reproduces_the_original(reference, assert_gradients, backend, length):
    expected = reference(f"mamba_{length}.npz")
    block = Mamba(1, backend=backend)
    block.load_state_dict(expected.part("param."))
    x = expected["x"].requires_grad_()
    y = block(x)
    y.backward(expected["grad_y"])
    assert (y - expected["y"]).abs().max() < 1e-5
    assert_gradients(expected.part("grad."), dict(block.named_parameters()))
    assert (x.grad - expected["grad_x"]).abs().max() < 1e-4 * expected["grad_x"].abs().max()


def test_gene_encoder_reproduces_the_original(reference):
    expected = reference("danet_heads.npz")
    encoder = GeneEncoder()
    encoder.mamba.load_state_dict(expected.part("gene_encoder."))
    assert (encoder(expected["expression"]) - expected["gene_features"]).abs().max() < 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("sizes", "length"),
    [((1, 16, 4, 2), 130), ((1, 16, 4, 2), 1), ((3, 5, 2, 3), 70), ((20, 4, 7, 1), 66), ((1, 1, 1, 1), 64)],
)
def test_forward_is_the_step_by_step_recurrence(backend, sizes, length):
    torch.manual_seed(0)
    block = Mamba(*sizes, backend=backend)
    x = torch.randn(2, length, sizes[0])
    assert_close({"y": step_by_step(block, x)}, {"y": block(x).double()}, 1e-5)


@pytest.mark.parametrize(
    ("sizes", "length"), [((1, 16, 4, 2), 2200), ((3, 5, 2, 3), 129), ((20, 4, 7, 1), 66), ((1, 3, 40, 2), 65)]
)
def test_fused_gradients_are_those_of_the_blocked_scan_in_float64(sizes, length):
    torch.manual_seed(1)
    block = Mamba(*sizes, backend="auto")
    x, grad = torch.randn(3, length, sizes[0]), torch.randn(3, length, sizes[0])
    y, grads = run(block, x, grad)
    y64, grads64 = run(block.double(), x.double(), grad.double())
    assert_close({"y": y64, **grads64}, {"y": y.double(), **{n: g.double() for n, g in grads.items()}}, 2e-5)


def test_blocked_scan_passes_gradcheck_across_segments(monkeypatch):
    monkeypatch.setattr("sthisto.nn._kernels.scan.BLOCK", 3)  # segments of 9 steps
    torch.manual_seed(0)
    u, delta = torch.randn(2, 20, 2, dtype=torch.float64), torch.rand(2, 20, 2, dtype=torch.float64)
    a, weight = -torch.rand(2, 3, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(selective_scan, [x.requires_grad_() for x in (u, delta, a, weight)])


def test_whole_block_passes_gradcheck_in_float64():
    torch.manual_seed(0)
    block = Mamba(1, d_state=2).double()
    names, values = zip(*block.named_parameters(), strict=True)

    def call(x, *parameters):
        return torch.func.functional_call(block, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (torch.randn(2, 7, 1, dtype=torch.float64, requires_grad=True), *values))


@pytest.mark.parametrize("backend", BACKENDS)
def test_strong_decays_neither_overflow_nor_vanish_into_nan(backend):
    block = Mamba(1, backend=backend)
    with torch.no_grad():
        block.dt_proj.bias.fill_(200.0)
    y, grads = run(block, torch.randn(2, 200, 1), torch.ones(2, 200, 1))
    assert torch.isfinite(y).all()
    assert all(torch.isfinite(g).all() for g in grads.values())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_spoils_its_spot_from_there_on_and_no_other(backend, bad):
    x = torch.randn(2, 200, 1)
    x[1, 100] = bad
    y = Mamba(1, backend=backend)(x)
    assert torch.isfinite(y[0]).all()
    assert torch.isfinite(y[1, :100]).all()
    assert torch.isnan(y[1, 100:]).any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_position_sees_none_after_it(backend):
    block = Mamba(2, backend=backend)
    x = torch.randn(1, 100, 2)
    changed = x.clone()
    changed[:, 60:] += 1
    torch.testing.assert_close(block(x)[:, :60], block(changed)[:, :60])
    assert not torch.allclose(block(x)[:, 60:], block(changed)[:, 60:])


def test_result_depends_on_neither_threads_nor_the_rest_of_the_batch():
    torch.manual_seed(0)
    block, x, grad = Mamba(1), torch.randn(5, 150, 1), torch.randn(5, 150, 1)
    n_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        y, grads = run(block, x, grad)
        torch.set_num_threads(3)
        y3, grads3 = run(block, x, grad)
    finally:
        torch.set_num_threads(n_threads)
    assert torch.equal(y, y3)
    assert all(torch.equal(grads[name], grads3[name]) for name in grads)
    torch.testing.assert_close(block(x[2:3]), y[2:3], rtol=0, atol=1e-6)


def test_empty_batch_gives_an_empty_result():
    for backend in BACKENDS:
        assert Mamba(1, backend=backend)(torch.zeros(0, 10, 1)).shape == (0, 10, 1)


def test_second_derivative_says_that_there_is_none():
    for backend in BACKENDS:
        x = torch.randn(1, 5, 1, requires_grad=True)
        (grad,) = torch.autograd.grad(Mamba(1, backend=backend)(x).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            grad.sum().backward()


def test_autocast_leaves_the_block_in_the_type_of_its_parameters():
    block, x = Mamba(1), torch.randn(2, 50, 1)
    with torch.autocast("cpu", torch.bfloat16):
        y = block(x.bfloat16())
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, block(x.bfloat16().float()))


def test_half_precision_parameters_are_scanned_in_float32():
    block = Mamba(1).bfloat16()
    assert block.scan_backend == "torch"
    assert block(torch.randn(2, 50, 1)).dtype == torch.bfloat16


def test_parameters_have_the_names_of_mamba_ssm():
    shapes = {name: tuple(p.shape) for name, p in Mamba(3, d_state=4, d_conv=5, expand=2).state_dict().items()}
    assert shapes == {
        "A_log": (6, 4),
        "D": (6,),
        "in_proj.weight": (12, 3),
        "conv1d.weight": (6, 1, 5),
        "conv1d.bias": (6,),
        "x_proj.weight": (9, 6),
        "dt_proj.weight": (6, 1),
        "dt_proj.bias": (6,),
        "out_proj.weight": (3, 6),
    }


def test_initial_step_sizes_lie_between_a_thousandth_and_a_tenth():
    steps = F.softplus(Mamba(200).dt_proj.bias)
    assert steps.min() > 0.99e-3
    assert steps.max() < 1.01e-1


def test_choice_of_scan_is_reported():
    assert Mamba(1).scan_backend == "numba"
    assert Mamba(1, backend="torch").scan_backend == "torch"
    assert Mamba(1).double().scan_backend == "torch"


def test_forced_scan_that_cannot_serve_is_an_error():
    with pytest.raises(ValueError, match="float32 on the CPU"):
        Mamba(1, backend="numba").double()(torch.randn(1, 5, 1))
    with pytest.raises(ValueError, match="CUDA"):
        scan_backend(torch.zeros(1), "cuda")
    with pytest.raises(ValueError, match="must be one of"):
        Mamba(1, backend="fast")


@pytest.mark.parametrize("sizes", [{"d_model": 0}, {"d_model": 1, "d_state": 0}, {"d_model": 1, "d_conv": 65}])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="must be"):
        Mamba(**sizes)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(batch, length, 1\)"):
        Mamba(1)(torch.zeros(4, 5))
    with pytest.raises(ValueError, match=r"\(batch, n_genes\)"):
        GeneEncoder()(torch.zeros(4, 5, 1))


def _forward_in_child(queue, block, x):
    queue.put(block(x).detach().numpy())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_block_works_in_a_forked_worker():
    block, x = Mamba(1), torch.randn(3, 20, 1)
    n_threads = torch.get_num_threads()
    context = multiprocessing.get_context("fork")
    try:
        torch.set_num_threads(1)  # torch's own threads are what does not survive a fork
        expected = block(x).detach().numpy()
        queue = context.Queue()
        child = context.Process(target=_forward_in_child, args=(queue, block, x))
        child.start()
        found = queue.get(timeout=30)
        child.join()
    finally:
        torch.set_num_threads(n_threads)
    np.testing.assert_array_equal(found, expected)


def test_importing_the_layers_compiles_nothing():
    code = "import sys, sthisto.nn; assert 'numba' not in sys.modules; assert 'spatialdata' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("backend", ["torch", "cuda"])
def test_gpu_agrees_with_the_cpu(backend):
    if backend == "cuda":
        pytest.importorskip("mamba_ssm")
    torch.manual_seed(0)
    block, x, grad = Mamba(1), torch.randn(4, 785, 1), torch.randn(4, 785, 1)
    y, grads = run(block, x, grad)
    on_gpu = Mamba(1, backend=backend).cuda()
    on_gpu.load_state_dict(block.state_dict())
    assert on_gpu.scan_backend == backend
    y_gpu, grads_gpu = run(on_gpu, x.cuda(), grad.cuda())
    assert_close({"y": y, **grads}, {"y": y_gpu.cpu(), **{n: g.cpu() for n, g in grads_gpu.items()}}, 1e-4)
