"""Damage and forgery: a saved model that was changed is refused, or the change has no effect."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tissue import GENES, PATCHES, Pool, encoder, make_section

from sthisto.models import METHODS, ExpressionModel, load, load_encoder
from sthisto.models.data import Prediction
from sthisto.models.manifest import add_files, write_manifest

SMALL = {"k": 5, "max_epochs": 1, "batch_size": 16, "embedding_dim": 8, "bottleneck": 4}
OPTIONS = {
    "danet": SMALL,
    "bleep": {"k": 5, "max_epochs": 1, "batch_size": 16, "embedding_dim": 8},
    "stnet": {"max_epochs": 1, "batch_size": 16},
    "histogene": {"max_epochs": 1, "width": 16, "n_heads": 2, "n_blocks": 1, "n_positions": 16},
    "ridge": {"n_components": 4, "within_sections": True},
    "knn": {"k": 5},
    "hybrid": SMALL | {"n_models": 2, "n_components": 4},
    "color": {},
    "mean": {},
}
TENSORS = ("model.safetensors", "bank.safetensors")
FILES = ("config.json", *TENSORS, "manifest.json")
OLD = Path(__file__).parents[1] / "data" / "models_by_0_1.tar.xz"


def fit(method, image_encoder=None, **options):
    cls = METHODS[method]
    model = cls(
        GENES,
        patch=PATCHES,
        options=cls.make_options(OPTIONS.get(method, {}) | options),
        encoder=(image_encoder or encoder()) if cls.uses_encoder else None,
        normalization={"target": "log1p", "layer": "X", "target_sum": 1e4},
    )
    sections = [make_section("A", validation=6), make_section("B", seed=1)]
    if cls.uses_residuals:
        sections = [replace(section, residuals=section.expression) for section in sections]
    model.fit(sections)
    return model


def read(path, **arguments):
    uses_encoder = json.loads((path / "config.json").read_text()).get("encoder") is not None
    return load(path, image_encoder=Pool() if uses_encoder else None, **arguments)


def predicted(model):
    return model.predict(make_section(seed=3).inputs).expression


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a function that copies the saved model of a method into a folder."""
    folder, made = tmp_path_factory.mktemp("saved"), set()

    def copy(method, target):
        if method not in made:
            fit(method).save(folder / method)
            made.add(method)
        return Path(shutil.copytree(folder / method, target / method))

    return copy


def change_config(path, change, *, manifest=True):
    config = json.loads((path / "config.json").read_text())
    change(config)
    (path / "config.json").write_text(json.dumps(config))
    if manifest:
        write_manifest(path)


def change_tensors(file, change):
    with safe_open(file, framework="pt") as stored:
        metadata = stored.metadata()
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    change(tensors)
    save_file(tensors, file, metadata=metadata)
    write_manifest(file.parent)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("method", ["knn", "mean"])
def test_flipped_bytes_are_refused_or_without_effect(saved, tmp_path, method, file):
    path = saved(method, tmp_path)
    content, expected = (path / file).read_bytes(), predicted(read(path))
    positions = range(0, len(content), max(1, len(content) // 60))
    refused = 0
    for number, position in enumerate(positions):
        changed = bytearray(content)
        changed[position] ^= 1 << (number % 8)
        (path / file).write_bytes(changed)
        try:
            model = read(path)
        except (ValueError, FileNotFoundError):
            refused += 1
        else:
            np.testing.assert_array_equal(predicted(model), expected)
    assert refused == len(positions) or (file == "manifest.json" and refused > 0.8 * len(positions))


@pytest.mark.parametrize("file", ["config.json", *TENSORS])
@pytest.mark.parametrize("method", ["danet", "ridge"])
def test_without_digests_flipped_bytes_end_in_an_error_of_ours_or_a_model_that_predicts(saved, tmp_path, method, file):
    path = saved(method, tmp_path)
    content, messages = (path / file).read_bytes(), []
    for number, position in enumerate(range(3, len(content), max(1, len(content) // 60))):
        changed = bytearray(content)
        changed[position] ^= 1 << (number % 8)
        (path / file).write_bytes(changed)
        try:
            assert predicted(load(path, image_encoder=Pool(), verify=False)).shape == (49, 12)
        except (ValueError, FileNotFoundError) as error:
            messages.append(str(error))
    assert all(str(path) in message or "NaN or infinite" in message for message in messages)


@pytest.mark.parametrize("file", FILES)
def test_files_cut_short_are_refused(saved, tmp_path, file):
    path = saved("knn", tmp_path)
    content = (path / file).read_bytes()
    for length in (0, 1, 7, 8, 9, len(content) // 2, len(content) - 1):
        (path / file).write_bytes(content[:length])
        with pytest.raises(ValueError, match=file.replace(".", r"\.")):
            read(path) if file != "config.json" else load(path, image_encoder=Pool())


@pytest.mark.parametrize("method", OPTIONS)
def test_a_narrower_or_longer_tensor_is_refused_even_with_a_new_manifest(saved, tmp_path, method):
    original = saved(method, tmp_path / "original")
    for file in TENSORS:
        with safe_open(original / file, framework="pt") as stored:
            names = list(stored.keys())
        for name in names[:: 5 if method == "hybrid" else 1]:  # its members are those of danet and ridge
            for change in (_broadcasting, _longer, _other_type, _not_finite, _missing):
                path = Path(shutil.copytree(original, tmp_path / "changed"))
                was = {}
                change_tensors(
                    path / file, lambda tensors, name=name, was=was, change=change: change(tensors, name, was)
                )
                if was:
                    with pytest.raises(ValueError, match=str(path)):
                        read(path)
                shutil.rmtree(path)


def _broadcasting(tensors, name, was):
    if max(tensors[name].shape, default=1) > 1:
        was[name] = tensors[name] = tensors[name].flatten()[:1].clone()


def _longer(tensors, name, was):
    was[name] = tensors[name] = torch.cat([tensors[name].reshape(-1), tensors[name].reshape(-1)])


def _other_type(tensors, name, was):
    kind = torch.int32 if tensors[name].is_floating_point() else torch.float32
    was[name] = tensors[name] = tensors[name].to(kind)


def _not_finite(tensors, name, was):
    if tensors[name].is_floating_point() and tensors[name].numel():
        was[name] = tensors[name] = torch.full_like(tensors[name], torch.nan)


def _missing(tensors, name, was):
    if name != "training.siblings":
        was[name] = tensors.pop(name)


def test_an_unknown_tensor_is_refused(saved, tmp_path):
    path = saved("mean", tmp_path)
    change_tensors(path / "model.safetensors", lambda tensors: tensors.update(other=torch.ones(2)))
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged.*'other'"):
        read(path)


@pytest.mark.parametrize("verify", [True, False])
def test_zeroed_fingerprints_are_refused(saved, tmp_path, verify):
    path = saved("knn", tmp_path)
    change_tensors(path / "model.safetensors", lambda tensors: tensors["training.fingerprint"].zero_())
    with pytest.raises(ValueError, match="0 training spots would be recognized"):
        read(path, verify=verify)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["training_sections"].pop(),
        lambda config: config["training_sections"].append("C"),
        lambda config: config.pop("training_spots"),
        lambda config: config.pop("n_recognized"),
        lambda config: config["training_spots"].reverse() or config["training_spots"].append(3),
    ],
)
def test_other_training_sections_are_refused(saved, tmp_path, change):
    path = saved("knn", tmp_path)
    change_config(path, change)
    with pytest.raises(ValueError, match=str(path)):
        read(path)


@pytest.mark.parametrize("file", FILES[1:3])
def test_part_of_another_fit_is_refused(saved, tmp_path, file):
    path = saved("knn", tmp_path)
    model = fit("knn")
    model._center += 1
    model.save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / file, path / file)
    with pytest.raises(ValueError, match="SHA-256"):
        read(path)
    with pytest.raises(ValueError, match=f"{file} belongs to another fit"):
        read(path, verify=False)
    write_manifest(path)
    with pytest.raises(ValueError, match=f"{file} belongs to another fit"):
        read(path)


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("kernel", lambda config: config["options"].update(kernel="linear")),
        ("kernel", lambda config: config["options"].update(alphas=[0.5])),
        ("ridge", lambda config: config["normalization"].update(target="pearson_residuals")),
        ("ridge", lambda config: config["normalization"].update(target_sum=1e6)),
        ("ridge", lambda config: config["patch"].update(um_per_px=3.25)),
        ("ridge", lambda config: config["training_sections"].reverse()),
        ("danet", lambda config: config["options"].update(k=1)),
        ("ridge", lambda config: config.pop("confidence_groups")),
        ("danet", lambda config: config["depth_knots"].append(2.5)),
    ],
)
def test_settings_that_were_changed_are_refused_even_with_a_new_manifest(saved, tmp_path, method, change):
    path = saved(method, tmp_path)
    before = (path / "config.json").read_text()
    change_config(path, change)
    assert json.loads((path / "config.json").read_text()) != json.loads(before)
    with pytest.raises(ValueError, match=f"{path} was changed: the settings in config.json and the tensors"):
        read(path)
    read(path, verify=False)
    (path / "config.json").write_text(json.dumps(json.loads(before), indent=7))
    write_manifest(path)
    read(path)


@pytest.mark.parametrize(("method", "file"), [("danet", FILES[1]), ("danet", FILES[2]), ("kernel", FILES[1])])
def test_values_that_were_changed_are_refused_even_with_a_new_manifest(saved, tmp_path, method, file):
    path = saved(method, tmp_path)

    def change(tensors):
        name = max(tensors, key=lambda one: tensors[one].numel() * tensors[one].is_floating_point())
        tensors[name].view(-1)[0] += 1

    change_tensors(path / file, change)
    with pytest.raises(ValueError, match=f"{path} was changed: the settings in config.json and the tensors"):
        read(path)
    read(path, verify=False)


WRONG = {
    "no json": b"{",
    "deep": b"[" * 100_000,
    "deep object": b'{"a":' * 50_000,
    "huge int": b'{"format": ' + b"9" * 5000 + b"}",
    "infinite": b'{"format": 1e999}',
    "NaN": b'{"format": NaN}',
    "list": b"[]",
    "null": b"null",
    "not text": b"\xff\xfe\x00",
    "twice": b'{"format": 2, "format": 1}',
    "empty": b"",
    "surrogate": b'{"version": "\\ud800"}',
}


@pytest.mark.parametrize("file", ["config.json", "manifest.json"])
@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_damaged_json_is_refused_with_its_path(saved, tmp_path, content, file):
    path = saved("mean", tmp_path)
    (path / file).write_bytes(content)
    if file == "config.json":
        write_manifest(path)
    with pytest.raises(ValueError, match=str(path / file)):
        load(path)


def test_json_that_is_too_large_is_refused(saved, tmp_path):
    path = saved("mean", tmp_path)
    with (path / "config.json").open("ab") as stream:
        stream.truncate(2**30)
    with pytest.raises(ValueError, match=r"config\.json is damaged: it has 1073741824 bytes"):
        load(path, verify=False)


VALUES = [None, True, -1, 0, 10**18, 10**400, 0.5, "", "x", [], [1], ["a", "a"], {}, {"a": 1}, [[]], "\0"]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_any_entry_of_another_form_is_refused_or_without_effect(saved, tmp_path, value):
    path = saved("knn", tmp_path)
    original, expected, messages = json.loads((path / "config.json").read_text()), predicted(read(path)), {}
    places = [(name,) for name in original]
    places += [(outer, name) for outer in ("patch", "encoder", "normalization") for name in original[outer]]
    for place in places:
        config = json.loads(json.dumps(original))
        inner = config if len(place) == 1 else config[place[0]]
        inner[place[-1]] = value
        (path / "config.json").write_text(json.dumps(config))
        write_manifest(path)
        try:
            assert predicted(load(path, image_encoder=Pool())).shape == expected.shape, place
        except (ValueError, FileNotFoundError) as error:
            messages[place] = str(error)
    assert all(str(path) in message for message in messages.values()), messages


@pytest.mark.parametrize("file", FILES)
def test_links_out_of_the_folder_are_refused(saved, tmp_path, file):
    path = saved("mean", tmp_path)
    outside = tmp_path / "outside"
    (path / file).rename(outside)
    (path / file).symlink_to(outside)
    with pytest.raises(ValueError, match=f"{file} leads out of the model's folder"):
        load(path)


def test_a_model_that_is_itself_a_link_is_loaded(saved, tmp_path):
    path = saved("mean", tmp_path)
    (tmp_path / "link").symlink_to(path)
    assert load(tmp_path / "link").genes == tuple(GENES)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/b", "..", "", "manifest.json"])
def test_a_manifest_with_a_path_is_refused(saved, tmp_path, name):
    path = saved("mean", tmp_path)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][name] = "0" * 64
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        load(path)


def test_a_file_that_the_manifest_does_not_list_is_not_read(saved, tmp_path):
    path = saved("mean", tmp_path)
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["files"]["bank.safetensors"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"bank\.safetensors is not in manifest\.json"):
        load(path)


def test_files_are_added_with_a_new_manifest(saved, tmp_path):
    path = saved("mean", tmp_path)
    add_files(path, {"card.json": b"{}"})
    assert load(path).genes == tuple(GENES)
    (path / "card.json").write_bytes(b"[]")
    with pytest.raises(ValueError, match=r"card\.json is damaged or was changed"):
        add_files(path, {"other.json": b"{}"})


@pytest.mark.parametrize("version", ["new", "old"])
@pytest.mark.parametrize(
    "name",
    [
        "local-dir:.",
        "local_dir:/tmp/x",
        "hf-hub:../../evil",
        "hf-hub:owner/model/../../x",
        "hf-hub:a/b@../x",
        "file:///etc/passwd",
        "https://example.org/model",
        "/etc/passwd",
        "./encoder",
        "..",
        "C:\\encoder",
        "resnet18.no_such_weights",
        "unknown_model",
        "hf-hub:someone/anything",
        "hf_hub:someone/anything@main",
        "hf-hub:mahmoodlab/uni/..",
        "local-dir:hf-hub:mahmoodlab/uni",
        " resnet18",
        "resnet18\n",
    ],
)
def test_strings_of_a_model_lead_nowhere_else(saved, tmp_path, monkeypatch, version, name):
    path = saved("knn", tmp_path)
    _name_encoder(path, name, version)
    monkeypatch.setattr("sthisto.models.bundle_encoder.load_encoder", _never)
    with pytest.raises(ValueError, match="names the image encoder"):
        _load(path, version)


@pytest.mark.parametrize("version", ["new", "old"])
@pytest.mark.parametrize("weights", ["/etc/passwd", "weights.pt", "local", "../x.safetensors"])
def test_weights_of_a_model_open_no_file(saved, tmp_path, monkeypatch, version, weights):
    path = saved("knn", tmp_path)
    _name_encoder(path, "test_vit", version, weights)
    monkeypatch.setattr("sthisto.models.bundle_encoder.load_encoder", _never)
    with pytest.raises(ValueError, match="opens no file outside its folder"):
        _load(path, version)


@pytest.mark.parametrize(("name", "allow"), [("hf-hub:someone/anything", True), ("hf-hub:MahmoodLab/UNI", False)])
def test_a_hub_is_asked_where_it_was_allowed_or_is_known(saved, tmp_path, monkeypatch, name, allow):
    path, asked = saved("knn", tmp_path), []
    _name_encoder(path, name, "new")
    monkeypatch.setattr("sthisto.models.bundle_encoder.load_encoder", lambda name, **_: asked.append(name) or encoder())
    load(path, allow_download=allow, verify=False)
    assert asked == [name]


@pytest.mark.parametrize("version", ["new", "old"])
def test_a_missing_digest_of_the_encoder_is_refused(saved, tmp_path, version):
    path = saved("knn", tmp_path)
    _name_encoder(path, "test_vit", version, "random", digest="")
    with pytest.raises(ValueError, match="digest of its image encoder"):
        _load(path, version)


def test_weights_of_another_encoder_are_refused(saved, tmp_path):
    path = saved("knn", tmp_path)
    _name_encoder(path, "test_vit", "new", "random")
    with pytest.raises(ValueError, match="are not those that the model was fitted with"):
        load(path)


def _name_encoder(path, name, version, weights="", **other):
    def change(config):
        config["encoder"] |= {"name": name, "weights": weights} | other
        if version == "old":
            config["format"] = 1
            del config["fit"]

    if version == "old":
        for file in TENSORS:
            with safe_open(path / file, framework="pt") as stored:
                genes = {"genes": stored.metadata()["genes"]}
                tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
            save_file(tensors, path / file, metadata=genes)
    change_config(path, change)
    if version == "old":
        (path / "manifest.json").unlink()


def _load(path, version):
    if version == "new":
        return load(path)
    with pytest.warns(FutureWarning, match="kept no checksums"):
        return load(path)


def _never(*args, **arguments):
    pytest.fail(f"load_encoder was called with {args} {arguments}")


def test_a_removed_manifest_is_noticed(saved, tmp_path):
    path = saved("mean", tmp_path)
    (path / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no manifest\.json"):
        load(path)
    change_config(path, lambda config: config.update(format=1), manifest=False)
    with pytest.warns(FutureWarning), pytest.raises(ValueError, match="belongs to another fit"):
        change_config(path, lambda config: config.pop("fit"), manifest=False) or load(path)


@pytest.fixture(scope="module")
def old_models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    shutil.unpack_archive(OLD, folder, filter="data")
    return folder / "models_by_0_1"


@pytest.mark.parametrize("method", [*sorted(set(OPTIONS) - {"color"}), "colour"])
def test_models_of_0_1_load_with_a_warning_and_predict_the_same(old_models, method):
    with pytest.warns(FutureWarning, match="saved by sthisto 0.1.0, which kept no checksums"):
        model = read(old_models / method)
    # 0.1 summed colors up in float32; now they are counted, and exact
    tolerance = {"rtol": 3e-5} if method in ("colour", "hybrid") else {"atol": 1e-5}
    np.testing.assert_allclose(predicted(model), np.load(old_models / f"{method}.npy"), **tolerance)


@pytest.mark.filterwarnings("ignore:.*kept no checksums:FutureWarning")
def test_a_model_of_0_1_saved_again_has_checksums(old_models, tmp_path):
    path = Path(shutil.copytree(old_models / "knn", tmp_path / "knn"))
    model = read(path)
    model.save(path, overwrite=True)
    assert (path / "manifest.json").is_file()
    np.testing.assert_array_equal(predicted(read(path)), predicted(model))


class Plain(ExpressionModel):
    """A method that states nothing but its tensors."""

    method = "plain"
    uses_encoder = False

    def fit_sections(self, sections, seed):
        self.value = np.concatenate([s.expression[s.used] for s in sections]).mean(axis=0)

    def predict_section(self, section, exclude):
        values = np.repeat(self.value[None], len(section), axis=0)
        return Prediction(expression=values, seen=np.zeros(len(section), dtype=bool))

    def state(self):
        return {"value": torch.from_numpy(self.value), "n": torch.tensor(3)}

    def load_state(self, state):
        self.value = state["value"].numpy()


def test_a_method_of_another_package_states_its_tensors_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "plain", Plain)
    model = Plain(GENES, patch=PATCHES)
    model.fit([make_section("A")])
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(predicted(load(tmp_path / "model")), predicted(model))
    change_tensors(tmp_path / "model" / "model.safetensors", lambda tensors: tensors["value"].fill_(torch.inf))
    with pytest.raises(ValueError, match="'value' has values that are not finite"):
        load(tmp_path / "model")


@pytest.mark.skipif(os.name == "nt", reason="needs a pipe in the file system")
def test_what_is_no_file_is_refused(saved, tmp_path):
    path = saved("mean", tmp_path)
    (path / "model.safetensors").unlink()
    os.mkfifo(path / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors is no file"):
        load(path)


def test_an_encoder_of_layers_is_saved_and_found_again(tmp_path):
    model = fit("knn", image_encoder=load_encoder("test_vit", weights="random", layer=0))
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(predicted(load(tmp_path / "model")), predicted(model))
    change_config(tmp_path / "model", lambda config: config["encoder"].update(layers=["no.such"]))
    with pytest.raises(ValueError, match=r"config\.json could not be loaded.*no\.such"):
        load(tmp_path / "model")
