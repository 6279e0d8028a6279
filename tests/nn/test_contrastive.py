import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from sthisto.nn import contrastive_loss


def in_numpy(image, gene, temperature, *, smoothed):
    scores = gene @ image.T / temperature
    targets = softmax((image @ image.T + gene @ gene.T) / (2 * temperature), axis=1) if smoothed else np.eye(len(image))
    of_genes = -(targets * log_softmax(scores, axis=1)).sum(1)
    of_images = -(targets.T * log_softmax(scores.T, axis=1)).sum(1)
    return (of_genes + of_images).mean() / 2


@pytest.mark.parametrize("file", ["contrastive.npz", "contrastive_t07.npz"])
@pytest.mark.parametrize("kind", ["smoothed", "clip"])
def test_loss_and_gradients_reproduce_the_original(reference, file, kind):
    expected = reference(file)
    image, gene = expected["image_embedding"].requires_grad_(), expected["gene_embedding"].requires_grad_()
    loss = contrastive_loss(image, gene, temperature=expected["temperature"].item(), smoothed=kind == "smoothed")
    loss.backward()
    assert (loss - expected[kind]).abs() < 1e-5
    for found, name in ((image.grad, f"grad_image_{kind}"), (gene.grad, f"grad_gene_{kind}")):
        assert (found - expected[name]).abs().max() < 1e-4 * expected[name].abs().max()


@pytest.mark.parametrize("smoothed", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_loss_is_equation_three(smoothed, temperature):
    rng = np.random.default_rng(0)
    image, gene = rng.normal(size=(2, 7, 5))
    found = contrastive_loss(
        torch.from_numpy(image), torch.from_numpy(gene), temperature=temperature, smoothed=smoothed
    )
    assert found.item() == pytest.approx(in_numpy(image, gene, temperature, smoothed=smoothed), rel=1e-10)


@pytest.mark.parametrize("smoothed", [True, False])
def test_loss_passes_gradcheck_so_that_targets_carry_gradient(smoothed):
    torch.manual_seed(0)
    inputs = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda i, g: contrastive_loss(i, g, smoothed=smoothed), inputs)


@pytest.mark.parametrize("smoothed", [True, False])
@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e3, 1e8])
def test_loss_and_gradient_are_finite_for_any_batch(smoothed, scale):
    for n in (1, 2, 50):
        image = (scale * torch.randn(n, 256)).requires_grad_()
        loss = contrastive_loss(image, scale * torch.randn(n, 256), temperature=0.01, smoothed=smoothed)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(image.grad).all()


def test_one_spot_has_no_loss():
    assert contrastive_loss(torch.randn(1, 8), torch.randn(1, 8)).item() == pytest.approx(0)


def test_order_of_the_spots_does_not_matter():
    image, gene, order = torch.randn(9, 4), torch.randn(9, 4), torch.randperm(9)
    torch.testing.assert_close(contrastive_loss(image[order], gene[order]), contrastive_loss(image, gene))


def test_half_precision_is_computed_in_float32():
    image, gene = torch.randn(20, 256).bfloat16(), torch.randn(20, 256).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = contrastive_loss(image, gene)
    assert torch.equal(loss, contrastive_loss(image.float(), gene.float()))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(2, 4\)"):
        contrastive_loss(torch.zeros(3, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="at least one spot"):
        contrastive_loss(torch.zeros(0, 4), torch.zeros(0, 4))
    with pytest.raises(ValueError, match="`temperature` must be positive"):
        contrastive_loss(torch.zeros(3, 4), torch.zeros(3, 4), temperature=0)
