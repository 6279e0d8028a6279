import numpy as np
import pytest
import torch
from tissue import GENES, PATCHES, encoder, make_section

from sthisto.models import DANet
from sthisto.nn import contrastive_loss

SMALL = {"k": 5, "max_epochs": 2, "batch_size": 32, "embedding_dim": 16, "bottleneck": 4}


def danet(**options):
    return DANet(GENES, patch=PATCHES, options=DANet.make_options(SMALL | options), encoder=encoder())


def towers(n_features=1024, n_genes=1000, **options):
    return DANet([f"g{i}" for i in range(n_genes)], patch=PATCHES, options=DANet.make_options(options)).towers(
        n_features, None
    )


def n_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_sizes_are_those_of_the_paper():
    """DenseNet's 1024 features and 1000 genes to 256 dimensions, KAN between 64 and 64."""
    module = towers()
    kan = 64 * 64 * (1 + 1 + 8)  # base, scale of the spline, 5 + 3 spline coefficients
    residual = (256 * 64 + 64) + kan + (64 * 256 + 256) + 2 * 256
    assert n_parameters(module.image_head) == 1024 * 256 + 256 + residual
    assert n_parameters(module.gene_head) == 1000 * 256 + 256 + residual
    image, gene = module(torch.rand(3, 1024), torch.rand(3, 1000))
    assert image.shape == gene.shape == (3, 256)


def test_gene_encoder_has_the_same_size_for_any_number_of_genes():
    assert n_parameters(towers(n_genes=50).gene_encoder) == n_parameters(towers(n_genes=1000).gene_encoder) < 200


@pytest.mark.parametrize("options", [{}, {"projection": "mlp"}, {"gene_encoder": "identity"}, {"objective": "clip"}])
def test_gradient_reaches_every_parameter(options):
    torch.manual_seed(0)
    module = towers(n_features=24, n_genes=12, **options).train()
    image, gene = module(torch.randn(16, 24), torch.rand(16, 12) * 4)
    contrastive_loss(image, gene, smoothed=options.get("objective") != "clip").backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_expression_that_follows_from_the_image_is_learned():
    """Far over what the same model does without training, on a section that it has never seen."""
    training = [make_section("A", side=12, validation=24), make_section("B", side=12, seed=1)]
    new = make_section("C", side=12, seed=2)

    def score(**options):
        model = danet(k=20, batch_size=64, embedding_dim=64, bottleneck=16, **options)
        model.fit(training)
        predicted = model.predict(new.inputs).expression
        return np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(predicted.T[:8], new.expression.T[:8], strict=True)])

    untrained, trained = score(max_epochs=1, learning_rate=1e-9), score(max_epochs=40)
    assert trained > 0.7
    assert trained > untrained + 0.3


@pytest.mark.parametrize(
    "options",
    [
        {"gene_encoder": "identity"},
        {"projection": "mlp"},
        {"objective": "clip"},
        {"temperature": 4.0},
        {"aggregation": "weighted"},
        {"aggregation": "simple"},
        {"batch_by": "section"},
        {"dropout": 0.0},
    ],
    ids=lambda options: next(f"{name}={value}" for name, value in options.items()),
)
def test_ablations_differ_from_the_published_method(options):
    training = [make_section("A", validation=6), make_section("B", seed=1)]
    new = make_section("C", seed=2).inputs
    published, ablated = danet(), danet(**options)
    for model in (published, ablated):
        model.fit(training)
    found = ablated.predict(new).expression
    assert np.isfinite(found).all()
    assert not np.array_equal(found, published.predict(new).expression)


def test_bank_holds_the_gene_embeddings_of_the_kept_weights():
    section = make_section("A", validation=6)
    model = danet()
    model.fit([section])
    np.testing.assert_allclose(model.bank_state()["embedding"], model.embed_genes(section.expression), atol=1e-6)


def test_weights_are_those_of_the_epoch_with_the_lowest_validation_loss():
    """Trained for exactly so many epochs, the model is the same."""
    training = [make_section("A", side=10, validation=20)]
    steep = {"objective": "clip", "learning_rate": 0.03}
    long = danet(max_epochs=3, **steep)
    long.fit(training)
    best = int(long.history["val_loss"].argmin())
    assert best < 2
    short = danet(max_epochs=best + 1, **steep)
    short.fit(training)
    for name, value in short.state().items():
        assert torch.equal(value, long.state()[name]), name


@pytest.mark.parametrize(
    "options",
    [
        {"gene_encoder": "lstm"},
        {"projection": "kan"},
        {"objective": "mse"},
        {"aggregation": "max"},
        {"k": 0},
        {"temperature": -1},
    ],
)
def test_impossible_options_are_refused_by_name(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        DANet.make_options(options)
