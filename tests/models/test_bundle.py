import json

import numpy as np
import pandas as pd
import pytest
import torch
from tissue import GENES, PATCHES, Pool, encoder, make_section
from torch import nn

from sthisto.models import DANet, Knn, Mean, load, load_encoder

SMALL = {"k": 5, "max_epochs": 2, "batch_size": 16, "embedding_dim": 8, "bottleneck": 4}


def fit(cls=Mean, *, genes=GENES, image_encoder=None, **options):
    chosen = image_encoder or (encoder() if cls.uses_encoder else None)
    normalization = {"target": "log1p", "layer": "X", "target_sum": 1e4}
    model = cls(genes, patch=PATCHES, options=cls.make_options(options), encoder=chosen, normalization=normalization)
    model.fit([make_section("A", validation=6), make_section("B", seed=1)])
    return model


def assert_same_prediction(first, second, section=None):
    section = (section or make_section(seed=3)).inputs
    a, b = first.predict(section), second.predict(section)
    np.testing.assert_array_equal(a.expression, b.expression)
    np.testing.assert_array_equal(a.seen, b.seen)
    for x, y in ((a.sd, b.sd), (a.confidence, b.confidence)):
        assert (x is None) == (y is None)
        assert x is None or np.array_equal(x, y)


@pytest.mark.parametrize(
    ("cls", "options"),
    [(Mean, {}), (Knn, {"k": 5}), (DANet, SMALL), (DANet, SMALL | {"projection": "mlp", "gene_encoder": "identity"})],
)
def test_loaded_model_is_the_saved_one(tmp_path, cls, options):
    model = fit(cls, **options)
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model", image_encoder=Pool() if cls.uses_encoder else None)
    assert_same_prediction(model, loaded)
    assert_same_prediction(model, loaded, make_section("A"))
    assert loaded.genes == model.genes
    assert loaded.patch == model.patch
    assert loaded.options == model.options
    assert loaded.normalization == model.normalization
    assert loaded.training_sections == ("A", "B")
    pd.testing.assert_frame_equal(loaded.history, model.history)


def test_fine_tuned_encoder_is_part_of_the_model(tmp_path):
    class Tiny(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 8, 8)

        def forward(self, pixels):
            return self.conv(pixels).flatten(1)

    model = fit(DANet, image_encoder=load_encoder(Tiny()), finetune=True, **SMALL)
    model.save(tmp_path / "model")
    assert_same_prediction(model, load(tmp_path / "model", image_encoder=Tiny()))


def test_fine_tuned_named_encoder_is_loaded_without_its_pretrained_weights(tmp_path):
    model = fit(
        DANet, image_encoder=load_encoder("test_vit", weights="random"), finetune=True, **SMALL | {"max_epochs": 1}
    )
    model.save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["encoder"]["weights"] == "random"
    assert_same_prediction(model, load(tmp_path / "model"))


def test_bundle_is_safetensors_json_and_a_model_card_alone(tmp_path):
    fit(Knn, k=5).save(tmp_path / "model")
    assert {file.name for file in (tmp_path / "model").iterdir()} == {
        "config.json",
        "model.safetensors",
        "bank.safetensors",
        "manifest.json",
        "README.md",
    }
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    fit(Knn, k=5).save(tmp_path / "model")
    monkeypatch.setattr(torch, "load", None)
    monkeypatch.setattr("pickle.loads", None)
    monkeypatch.setattr("pickle.load", None)
    load(tmp_path / "model", image_encoder=Pool())


def test_model_is_replaced_only_when_asked_to(tmp_path):
    first, second = fit(), fit(genes=[f"other{i}" for i in range(12)])
    first.save(tmp_path / "model")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        second.save(tmp_path / "model")
    assert load(tmp_path / "model").genes == first.genes
    second.save(tmp_path / "model", overwrite=True)
    assert load(tmp_path / "model").genes == second.genes
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_no_model_is_never_replaced(tmp_path, kind):
    path = tmp_path / "results"
    if kind == "folder":
        path.mkdir()
        (path / "thesis.txt").write_text("mine")
    else:
        path.write_text("mine")
    with pytest.raises(FileExistsError, match="no saved model"):
        fit().save(path, overwrite=True)
    assert (path / "thesis.txt" if kind == "folder" else path).read_text() == "mine"


@pytest.mark.parametrize("step", ["bundle.save_file", "bundle.write_manifest", "manifest.sha256"])
def test_interrupted_save_leaves_the_old_model_whole(tmp_path, monkeypatch, step):
    model = fit()
    model.save(tmp_path / "model")

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"sthisto.models.{step}", stop)
        save_interrupted(tmp_path / "model")
    assert_same_prediction(model, load(tmp_path / "model"))
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


def save_interrupted(path):
    with pytest.raises(KeyboardInterrupt):
        fit().save(path, overwrite=True)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "bank.safetensors", "manifest.json"])
def test_missing_part_is_named(tmp_path, file):
    fit().save(tmp_path / "model")
    (tmp_path / "model" / file).unlink()
    with pytest.raises(FileNotFoundError, match=file):
        load(tmp_path / "model")


def test_damaged_part_is_named(tmp_path):
    fit().save(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        load(tmp_path / "model")
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        load(tmp_path / "model", verify=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"format": 3, "version": "9.9"}, r"sthisto 9\.9, which is newer"), ({"method": "magic"}, "'magic'.*'danet'")],
)
def test_model_of_a_newer_version_is_refused(tmp_path, change, message):
    fit().save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "model", verify=False)


def test_encoder_of_ones_own_must_be_given_and_be_the_same(tmp_path):
    torch.manual_seed(0)
    own = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(12, 4))
    model = fit(Knn, image_encoder=load_encoder(own), k=5)
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"encoder of your own.*image_encoder="):
        load(tmp_path / "model")
    other = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(12, 4))
    with pytest.raises(ValueError, match="not those that the model was fitted with"):
        load(tmp_path / "model", image_encoder=other)
    assert_same_prediction(model, load(tmp_path / "model", image_encoder=own))


def test_named_encoder_with_other_weights_is_refused(tmp_path):
    fit(Knn, image_encoder=load_encoder("test_vit", weights="random", seed=1), k=5).save(tmp_path / "model")
    with pytest.raises(ValueError, match="weights of the image encoder 'test_vit' are not those"):
        load(tmp_path / "model")


def test_model_with_local_weights_takes_them_from_the_user(tmp_path):
    weights = tmp_path / "weights.pt"
    torch.save(load_encoder("test_vit", weights="random", seed=1).module.state_dict(), weights)
    model = fit(Knn, image_encoder=load_encoder("test_vit", weights=weights), k=5)
    model.save(tmp_path / "model")
    assert str(tmp_path) not in (tmp_path / "model" / "config.json").read_text()
    with pytest.raises(ValueError, match="opens no file outside its folder"):
        load(tmp_path / "model")
    own = load_encoder("test_vit", weights=weights)
    assert_same_prediction(model, load(tmp_path / "model", image_encoder=own))


def test_what_is_not_finite_is_not_saved(tmp_path):
    model = fit()
    model._mean[3] = np.nan
    with pytest.raises(ValueError, match="'mean' has values that are not finite"):
        model.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_loading_leaves_the_global_random_state(tmp_path):
    fit(DANet, **SMALL).save(tmp_path / "model")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    load(tmp_path / "model", image_encoder=Pool())
    assert torch.equal(torch.get_rng_state(), before)
