from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from tissue import GENES, PATCHES, encoder, make_section

from sthisto.models import METHODS, TrainingSection, load
from sthisto.models.training.harmony import fit_harmony


def sections_with_batches() -> list[TrainingSection]:
    """Three sections, each with a shift of its own in every gene."""
    rng = np.random.default_rng(0)
    plain = [make_section(name, seed=seed) for seed, name in enumerate("ABC")]
    shifts = rng.normal(0, 0.3, (3, len(GENES))).astype(np.float32)
    return [replace(one, expression=one.expression + shift) for one, shift in zip(plain, shifts, strict=True)]


def between_sections(expression) -> float:
    """Variance of the sections' means, as a share of all variance."""
    means = np.array([values.mean(axis=0) for values in expression])
    return float(means.var(axis=0).sum() / np.concatenate(expression).var(axis=0).sum())


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "harmonypy", None)
    with pytest.raises(ImportError, match="pip install harmonypy"):
        fit_harmony(sections_with_batches(), seed=0)


def test_correction_takes_out_what_tells_sections_apart():
    pytest.importorskip("harmonypy")
    sections = sections_with_batches()
    correction = fit_harmony(sections, seed=0)
    measured = [section.expression for section in sections]
    corrected = [correction(values) for values in measured]
    assert between_sections(corrected) < 0.5 * between_sections(measured)


def test_expression_of_other_spots_is_left_as_it_is():
    pytest.importorskip("harmonypy")
    correction = fit_harmony(sections_with_batches(), seed=0)
    other = make_section("D", seed=9).expression
    np.testing.assert_array_equal(correction(other), other)


def test_one_section_is_refused():
    pytest.importorskip("harmonypy")
    with pytest.raises(ValueError, match="there is one"):
        fit_harmony(sections_with_batches()[:1], seed=0)


@pytest.mark.parametrize("method", ["danet", "bleep"])
def test_only_the_gene_side_is_corrected_and_saving_keeps_it(method, tmp_path):
    pytest.importorskip("harmonypy")
    sections = sections_with_batches()
    cls = METHODS[method]
    models = []
    for correction in (None, "harmony"):
        options = cls.make_options({"k": 5, "max_epochs": 2, "batch_correction": correction})
        models.append(cls(GENES, patch=PATCHES, options=options, encoder=encoder()))
        models[-1].fit(sections, seed=0)
    plain, corrected = models
    expression = sections[0].expression
    assert not np.allclose(plain.embed_genes(expression), corrected.embed_genes(expression))
    np.testing.assert_array_equal(plain.bank_state()["expression"], corrected.bank_state()["expression"])
    corrected.save(tmp_path / "model")
    again = load(tmp_path / "model", image_encoder=encoder())
    np.testing.assert_allclose(corrected.embed_genes(expression), again.embed_genes(expression), rtol=1e-5, atol=1e-5)
