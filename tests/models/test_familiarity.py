"""Confidence: 0.5 for a held-out group, less for what was never trained on, the same meaning for every method."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from tissue import GENES, PATCHES, Pool, encoder, make_section

from sthisto._images.patches import PatchSource
from sthisto._images.pyramid import Level
from sthisto.models import METHODS, load
from sthisto.models.data import SectionInput
from sthisto.models.familiarity import fit_familiarity

TINY = {
    "danet": {"gene_encoder": "identity", "projection": "mlp"},
    "hybrid": {"gene_encoder": "identity", "projection": "mlp", "n_models": 2},
    "histogene": {"width": 16, "n_blocks": 1, "n_heads": 2},
    "ensemble": {"member": "bleep", "n_models": 2, "options": {"k": 5, "max_epochs": 1}},
    "recommended": {"texture_context": (1.0, 2.0)},
    "kernel": {"texture_context": (1.0, 2.0)},
    "mlp": {"texture_context": (1.0, 2.0), "max_epochs": 2},
}
RATED = sorted(name for name in METHODS if name != "mean" and METHODS[name].__module__.startswith("sthisto."))


def fit(name, sections, **more):
    cls = METHODS[name]
    options = {key: value for key, value in {"k": 5, "max_epochs": 1}.items() if key in cls.option_names()}
    options |= TINY.get(name, {}) | more
    model = cls(
        GENES, patch=PATCHES, options=cls.make_options(options), encoder=encoder() if cls.uses_encoder else None
    )
    model.fit(sections)
    return model


@pytest.fixture(scope="module")
def training():
    return [make_section("A"), make_section("B", seed=1), make_section("C", seed=2)]


def altered(change, seed=5):
    """Return a held-out section whose image was changed."""
    source = make_section("D", seed=seed).inputs.patches[0]
    image = np.moveaxis(np.asarray(source.level.array), 0, -1).astype(float)
    changed = np.moveaxis(change(image).clip(0, 255).astype(np.uint8), -1, 0)
    return SectionInput(
        "D",
        (PatchSource(Level(changed, np.eye(3)), source.centers, extent=source.extent, size=source.size),),
        source.centers,
    )


CHANGES = {
    "blurred": lambda image: ndimage.gaussian_filter(image, (4, 4, 0)),
    "recolored": lambda image: image[..., [1, 2, 0]],
    "restained": lambda image: 255 * (image / 255) ** 1.8,
    "noise": lambda image: np.random.default_rng(0).integers(0, 2, image.shape) * 255,
}


@pytest.mark.parametrize("name", RATED)
def test_what_was_never_trained_on_has_less_confidence_than_a_held_out_section(name, training, tmp_path):
    model = fit(name, training)
    held_out = model.predict(altered(lambda image: image)).confidence
    assert held_out.dtype == np.float32
    assert ((held_out >= 0) & (held_out <= 1)).all()
    assert 0.3 < np.median(held_out) < 0.7
    for change in CHANGES.values():
        assert np.median(model.predict(altered(change)).confidence) < 0.1
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model", image_encoder=Pool() if model.has_encoder else None)
    np.testing.assert_array_equal(loaded.predict(altered(lambda image: image)).confidence, held_out)
    assert loaded.familiarity.groups == model.familiarity.groups == "section"


def test_a_method_that_looks_at_nothing_has_no_confidence(training):
    assert METHODS["mean"].rates_confidence is False
    assert fit("mean", training).predict(training[0].inputs).confidence is None


def groups_of(n_groups, rng, *, n=80, apart=1.0, shift=0.0):
    """Return features (n_groups n, 12) of groups whose centers differ, and the number of each spot's group."""
    group = np.repeat(np.arange(n_groups), n)
    centers = rng.normal(0, apart, (n_groups, 12)) + shift
    return centers[group] + rng.normal(0, 1, (len(group), 12)), group


def familiarity(values, section, patients=None):
    patients = patients or [f"patient {i}" for i in range(section.max() + 1)]
    positions = np.random.default_rng(0).uniform(0, 1, (len(values), 2))
    return fit_familiarity([values], section=section, patients=patients, positions=positions)


def test_median_of_a_held_out_patient_is_one_half_on_average():
    medians = []
    for seed in range(30):
        values, group = groups_of(9, np.random.default_rng(seed))
        known = group < 8
        found = familiarity(values[known], group[known])
        medians.append(np.median(found.confidence([values[~known]])))
    assert found.groups == "patient"
    assert np.mean(medians) == pytest.approx(0.5, abs=0.06)


def test_confidence_falls_with_the_distance_and_never_leaves_0_to_1():
    values, group = groups_of(4, np.random.default_rng(0))
    found = familiarity(values, group)
    away = values.mean(axis=0) + np.arange(0, 60, 3)[:, None] * np.ones(12)
    confidence = found.confidence([away])
    assert (np.diff(confidence[3:]) < 0).all()
    assert ((confidence >= 0) & (confidence <= 1)).all()
    assert confidence[-1] < 0.001


def test_patients_are_held_out_where_there_are_several_else_sections_else_blocks():
    values, section = groups_of(4, np.random.default_rng(0), apart=3.0)
    by_patient = familiarity(values, section, ["a", "a", "b", "b"])
    by_section = familiarity(values, section, ["a"] * 4)
    assert (by_patient.groups, by_section.groups) == ("patient", "section")
    assert familiarity(values, section, ["", "a", "b", "b"]).groups == "section"
    assert familiarity(values[section == 0], section[section == 0], ["a"]).groups == "block"


def test_sections_of_one_patient_do_not_count_as_new_patients():
    """Serial sections are nearly copies: held out one by one, they would make every new patient look foreign."""
    rng = np.random.default_rng(1)
    values, _ = groups_of(4, rng, n=80, apart=3.0)
    section = np.repeat(np.arange(8), 40)
    names = [f"p{i // 2}" for i in range(8)]
    new, _ = groups_of(1, rng, apart=3.0)
    with_patients, without = familiarity(values, section, names), familiarity(values, section, [""] * 8)
    assert np.median(with_patients.confidence([new])) > 0.1 > 0.01 > np.median(without.confidence([new]))


def test_features_that_are_not_finite_give_nan():
    values, group = groups_of(3, np.random.default_rng(0))
    found = familiarity(values, group)
    new = values[:4].copy()
    new[1, 3] = np.nan
    assert np.isnan(found.confidence([new])).tolist() == [False, True, False, False]


def test_what_is_unlike_in_one_block_alone_has_little_confidence():
    rng = np.random.default_rng(0)
    wide, group = rng.normal(size=(200, 400)), np.repeat([0, 1], 100)
    narrow = rng.normal(size=(200, 3))
    found = fit_familiarity([wide, narrow], section=group, patients=["a", "b"], positions=rng.uniform(size=(200, 2)))
    far = [wide[:20], narrow[:20] + 8]
    assert found.confidence(far).max() < 0.05
    assert np.median(found.confidence([wide[:20], narrow[:20]])) > 0.3


def test_reference_spots_are_bounded_and_taken_from_all_sections():
    rng = np.random.default_rng(0)
    section = np.repeat([0, 1, 2], [6000, 500, 1200])
    found = familiarity(rng.normal(size=(len(section), 4)).astype(np.float32), section)
    assert len(found.blocks[0].reference) == 3000
    assert np.bincount(found.fold.astype(int)).min() == 500


def test_single_training_spot_tells_nothing(training):
    lone = replace(training[1], train=training[1].train[:1])
    model = fit("knn", [lone], k=1)
    assert model.familiarity is None
    assert np.isnan(model.predict(training[2].inputs).confidence).all()
