import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from sthisto.nn import KANLinear
from sthisto.nn.kan import spline_bases


def scipy_bases(x, grid, order, derivative=0):
    """(n, features, n_bases) from scipy, zero outside the knots."""
    n_bases = grid.shape[1] - order - 1
    out = np.zeros((*x.shape, n_bases))
    for f, knots in enumerate(grid):
        for c in range(n_bases):
            element = BSpline.basis_element(knots[c : c + order + 2], extrapolate=False)
            values = element.derivative(derivative)(x[:, f]) if derivative else element(x[:, f])
            out[:, f, c] = np.nan_to_num(values)
    return out


def grids(order, *, even):
    if even:
        return np.tile(np.arange(-order, 6 + order) * 0.4 - 1, (3, 1))
    return np.sort(np.random.default_rng(0).uniform(-2, 2, (3, 6 + 2 * order)), axis=1)


def test_layer_reproduces_the_original(reference, assert_gradients):
    expected = reference("kan.npz")
    layer = KANLinear(64, 64)
    layer.load_state_dict(expected.part("param."))
    x = expected["x"].requires_grad_()
    y = layer(x)
    y.backward(expected["grad_y"])
    assert (y - expected["y"]).abs().max() < 1e-5
    assert_gradients(expected.part("grad."), dict(layer.named_parameters()))
    assert (x.grad - expected["grad_x"]).abs().max() < 1e-4 * expected["grad_x"].abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("order", [0, 1, 2, 3, 5])
def test_bases_and_slopes_are_those_of_scipy(dtype, even, order):
    grid = grids(order, even=even)
    x = np.random.default_rng(1).uniform(-3, 3, (400, 3)).astype(np.float32).astype(float)
    grid = grid.astype(np.float32).astype(float)
    tensor = torch.tensor(x, dtype=dtype, requires_grad=True)
    bases = spline_bases(tensor, torch.tensor(grid, dtype=dtype), order)
    tolerance = 2e-5 if dtype == torch.float32 else 1e-10
    np.testing.assert_allclose(bases.detach(), scipy_bases(x, grid, order), atol=tolerance)
    if order > 0:
        weight = torch.rand_like(bases)
        (bases * weight).sum().backward()
        expected = (scipy_bases(x, grid, order, derivative=1) * weight.double().numpy()).sum(-1)
        np.testing.assert_allclose(tensor.grad, expected, atol=tolerance * np.abs(expected).max(), rtol=1e-4)


def test_bases_at_a_knot_belong_to_the_interval_that_begins_there():
    grid = torch.tensor(grids(3, even=True))
    x = grid.T.clone()
    bases = spline_bases(x.float(), grid.float(), 3)
    np.testing.assert_allclose(bases, spline_bases(x.float().double(), grid.float().double(), 3), atol=1e-6)


def test_layer_passes_gradcheck_in_float64():
    torch.manual_seed(0)
    layer = KANLinear(3, 2).double()
    x = torch.empty(5, 3, dtype=torch.float64).uniform_(-1.5, 1.5).requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,))


def test_first_splines_are_small_and_pass_through_their_random_values():
    torch.manual_seed(0)
    layer = KANLinear(4, 3, scale_noise=0.1).double()
    knots = layer.grid[0, 3:-3]
    bases = torch.as_tensor(scipy_bases(knots[:-1, None].numpy(), layer.grid[:1].numpy(), 3)[:, 0])
    values = torch.einsum("kc,oic->koi", bases, layer.spline_weight)
    assert values.abs().max() <= 0.5 * 0.1 / 5 + 1e-6
    assert values.std() > 0.001


def test_seeds_make_different_layers_and_one_seed_the_same():
    layers = []
    for seed in (0, 1, 0):
        torch.manual_seed(seed)
        layers.append(KANLinear(8, 8).state_dict())
    for name in ("base_weight", "spline_weight", "spline_scaler"):
        assert not torch.equal(layers[0][name], layers[1][name])
        assert torch.equal(layers[0][name], layers[2][name])


def test_grid_that_is_loaded_is_used():
    layer, other = KANLinear(2, 2), KANLinear(2, 2)
    other.load_state_dict({**layer.state_dict(), "grid": layer.grid * 1.5})
    x = torch.rand(10, 2)
    assert not torch.allclose(layer(x), other(x))


def test_nan_stays_in_its_row():
    layer, x = KANLinear(4, 3), torch.rand(5, 4)
    x[2, 1] = float("nan")
    y = layer(x)
    assert torch.isnan(y[2]).all()
    assert torch.isfinite(y[[0, 1, 3, 4]]).all()


def test_leading_dimensions_are_kept():
    layer, x = KANLinear(4, 3), torch.rand(2, 5, 4)
    torch.testing.assert_close(layer(x)[1], layer(x[1]))
    assert layer(torch.zeros(0, 4)).shape == (0, 3)


def test_autocast_gives_nearly_the_same():
    layer, x = KANLinear(64, 64), torch.rand(5, 64)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    torch.testing.assert_close(y.float(), layer(x), rtol=0.05, atol=0.05)


def test_impossible_sizes_and_shapes_are_refused():
    with pytest.raises(ValueError, match="`grid_size` must be positive"):
        KANLinear(2, 2, grid_size=0)
    with pytest.raises(ValueError, match="`spline_order` must be zero or more"):
        KANLinear(2, 2, spline_order=-1)
    with pytest.raises(ValueError, match=r"\(\.\.\., 2\)"):
        KANLinear(2, 2)(torch.zeros(4, 3))
