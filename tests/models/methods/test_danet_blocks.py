from __future__ import annotations

import numpy as np
import pytest
from tissue import GENES, PATCHES, encoder, make_section

from sthisto.models import METHODS, load

SMALL = {"k": 10, "max_epochs": 2, "embedding_dim": 16, "bottleneck": 8, "texture_context": (1.0, 2.0)}
TRAINING = [make_section(name, seed=seed) for seed, name in enumerate("AB")]
TEST = make_section("C", seed=7)


def make(**options):
    cls = METHODS["danet"]
    chosen = cls.make_options(SMALL | options)
    return cls(
        GENES,
        patch=PATCHES,
        options=chosen,
        encoder=encoder() if cls.needs_encoder(chosen) else None,
        normalization={"target": "log1p"},
    )


@pytest.fixture(scope="module")
def blocks():
    model = make(features=("texture", "encoder", "border"))
    model.fit(TRAINING, seed=0)
    return model


def test_image_side_sees_blocks_standardized_within_the_section(blocks):
    seen = blocks.image_features(TEST.inputs).values
    assert seen.shape == (len(TEST.inputs), 2 * 59 + 24 + 2)
    varying = seen.std(axis=0) > 0
    np.testing.assert_allclose(seen[:, varying].mean(axis=0), 0, atol=0.3)  # clipped at 4 standard deviations
    np.testing.assert_allclose(np.median(seen[:, varying].std(axis=0)), 1, atol=0.05)


def test_blocks_come_back_from_disk(blocks, tmp_path):
    blocks.save(tmp_path / "model")
    loaded = load(tmp_path / "model", image_encoder=encoder())
    expected, found = (model.predict(TEST.inputs) for model in (blocks, loaded))
    np.testing.assert_array_equal(found.expression, expected.expression)
    np.testing.assert_array_equal(found.confidence, expected.confidence)


def test_texture_needs_no_encoder():
    model = make(features=("texture",), gene_encoder="identity")
    assert not model.has_encoder
    model.fit(TRAINING, seed=0)
    assert np.isfinite(model.predict(TEST.inputs).expression).all()


def test_blocks_and_finetuning_exclude_each_other():
    with pytest.raises(ValueError, match=r"features=.*finetune=True"):
        make(features=("texture",), finetune=True)
    with pytest.raises(ValueError, match="features"):
        make(features=("colour",))
