"""Every method through the same mill: fit, embed, predict, save, load, on sections with a signal that it must find."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tissue import GENES, PATCH, PATCHES, Pool, encoder, make_section
from torch import nn

from sthisto.metrics import pearson
from sthisto.models import METHODS, Encoder, ExpressionModel, load

FAST = {"k": 10, "max_epochs": 40}
OPTIONS = {
    "danet": FAST,
    "bleep": FAST,
    "stnet": {"max_epochs": 60, "learning_rate": 1e-2},
    "histogene": {"max_epochs": 60, "learning_rate": 1e-3, "width": 32, "n_blocks": 1, "n_heads": 2},
    "ridge": {},
    "knn": {"k": 10},
    "color": {},
    "kernel": {},
    "mlp": {},
    "recommended": {},
    "hybrid": FAST | {"n_models": 2},
    "ensemble": {"member": "bleep", "n_models": 2, "options": FAST},
}
WIDTHS = {"danet": 256, "bleep": 256, "hybrid": 256, "ensemble": 256, "stnet": 24, "ridge": 24}
GENE_EMBEDDERS = ("danet", "bleep", "hybrid", "ensemble")
FOLLOWING = slice(0, 8)
"""Genes that follow the tissue; the others follow nothing."""
TRAINING = [make_section(name, seed=seed, validation=8) for seed, name in enumerate("AB")]
TEST = make_section("C", seed=7)

every_method = pytest.mark.parametrize("method", list(OPTIONS))


def make(method: str, image_encoder: Encoder | None = None, **options) -> ExpressionModel:
    cls = METHODS[method]
    image_encoder = (image_encoder or encoder()) if cls.uses_encoder else None
    return cls(GENES, patch=PATCHES, options=cls.make_options(OPTIONS.get(method, {}) | options), encoder=image_encoder)


@pytest.fixture(scope="module")
def fitted():
    models: dict[str, ExpressionModel] = {}

    def get(method: str) -> ExpressionModel:
        if method not in models:
            models[method] = make(method)
            models[method].fit(TRAINING, seed=0)
        return models[method]

    return get


def score(model: ExpressionModel) -> float:
    return float(np.nanmean(pearson(TEST.expression, model.predict(TEST.inputs).expression)[FOLLOWING]))


def squared_error(model: ExpressionModel) -> float:
    return float(np.square(TEST.expression - model.predict(TEST.inputs).expression)[:, FOLLOWING].mean())


def test_every_method_is_tried_here():
    assert set(OPTIONS) == set(METHODS) - {"mean"}


@every_method
def test_method_beats_the_mean_by_a_wide_margin(method, fitted):
    model = fitted(method)
    assert score(model) > 0.5
    assert squared_error(model) < 0.8 * squared_error(fitted("mean"))


@every_method
def test_prediction_has_a_finite_value_for_every_spot_and_gene(method, fitted):
    prediction = fitted(method).predict(TEST.inputs)
    assert prediction.expression.shape == TEST.expression.shape
    assert prediction.expression.dtype == np.float32
    assert np.isfinite(prediction.expression).all()
    assert not prediction.seen.any()


@every_method
def test_training_spots_are_recognized(method, fitted):
    assert fitted(method).predict(TRAINING[0].inputs).seen.all()


@every_method
def test_embeddings_are_as_wide_as_documented(method, fitted):
    model = fitted(method)
    assert model.has_embedding == (method in WIDTHS)
    assert model.has_gene_embedding == (method in GENE_EMBEDDERS)
    if model.has_embedding:
        assert model.embed(TEST.inputs).shape == (len(TEST.inputs), WIDTHS[method])
    if model.has_gene_embedding:
        assert model.embed_genes(TEST.expression).shape == (len(TEST.inputs), WIDTHS[method])


@every_method
def test_saved_model_predicts_the_same(method, fitted, tmp_path):
    model = fitted(method)
    model.save(tmp_path / "model")
    again = load(tmp_path / "model", image_encoder=encoder() if model.uses_encoder else None)
    assert again.parameters == model.parameters
    ours, theirs = model.predict(TEST.inputs), again.predict(TEST.inputs)
    np.testing.assert_array_equal(ours.expression, theirs.expression)
    np.testing.assert_array_equal(again.predict(TRAINING[0].inputs).seen, True)
    assert (ours.sd is None) == (theirs.sd is None)


@pytest.mark.parametrize("method", ["bleep", "stnet", "histogene", "hybrid"])
def test_seed_decides_the_model(method):
    short = {"max_epochs": 2}
    predictions = []
    for seed in (1, 1, 2):
        model = make(method, **short)
        model.fit(TRAINING, seed=seed)
        predictions.append(model.predict(TEST.inputs).expression)
    np.testing.assert_array_equal(predictions[0], predictions[1])
    assert not np.array_equal(predictions[0], predictions[2])


class Distracted(Pool):
    """Features of an encoder that nobody trained: what matters is small, what does not is large."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.mix = nn.Linear(3 * PATCHES.size**2, 10, bias=False)

    def forward(self, pixels):
        noise = torch.relu(self.mix((7 * pixels).sin().flatten(1)))
        return torch.cat([super().forward(pixels) / 2, 10 * noise], dim=1)


def test_danet_beats_nearest_neighbors_of_untrained_features():
    untrained = Encoder(Distracted(), name="module:Distracted")
    training = [make_section(name, side=11, seed=seed, validation=12) for seed, name in enumerate("AB")]
    danet = make("danet", untrained, batch_size=16, max_epochs=60, patience=60)
    knn = make("knn", untrained)
    for model in (danet, knn):
        model.fit(training, seed=0)
    assert score(danet) > score(knn) + 0.1


@pytest.mark.parametrize("method", ["bleep", "stnet"])
def test_finetuning_changes_the_encoder_and_survives_saving(method, tmp_path):
    class Small(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())

    torch.manual_seed(0)
    start = Encoder(Small(), name="module:Small")
    model = make(method, start, finetune=True, max_epochs=2)
    model.fit(TRAINING, seed=0)
    assert model.encoder.digest() != start.digest()
    model.save(tmp_path / "model")
    again = load(tmp_path / "model", image_encoder=Encoder(Small(), name="module:Small"))
    np.testing.assert_allclose(
        model.predict(TEST.inputs).expression, again.predict(TEST.inputs).expression, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("method", ["danet", "bleep", "stnet"])
def test_patches_are_augmented_while_the_encoder_is_trained_and_not_at_prediction(method):
    class Recorder(nn.Module):
        """Sums each pixel with weights of its own, so that a turned patch is another one; keeps what it saw."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.linspace(0, 1, 3 * PATCH * PATCH).view(3, PATCH, PATCH))
            self.seen = {True: [], False: []}

        def forward(self, pixels):
            self.seen[self.training].append(pixels.detach())
            return (pixels * self.weight).flatten(2).sum(-1)

    def shown(augment):
        torch.manual_seed(0)
        model = make(method, Encoder(Recorder(), name="module:Recorder"), finetune=True, augment=augment, max_epochs=1)
        model.fit(TRAINING, seed=0)
        model.predict(TEST.inputs)
        seen = model.encoder.module.seen
        return [{patch.numpy().tobytes() for batch in seen[training] for patch in batch} for training in (True, False)]

    plain, augmented = shown(False), shown(True)
    assert augmented[0] - plain[0]
    assert plain[0] - augmented[0]
    assert augmented[1] == plain[1]


@pytest.mark.parametrize("method", ["danet", "bleep", "stnet"])
@pytest.mark.parametrize("options", [{}, {"finetune": True, "augment": False}])
def test_stain_jitter_needs_an_encoder_that_is_trained_under_augmentation(method, options):
    with pytest.raises(ValueError, match="finetune=True and augment=True"):
        METHODS[method].make_options({"stain_jitter": 0.1, **options})
