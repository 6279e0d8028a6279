import numpy as np
import pytest

from sthisto._scoring.scale import CENTERED, COUNTS, LINEAR, UNIT, doubt, other_scale, refusal

N_SPOTS, N_GENES = 150, 60


@pytest.fixture(scope="module")
def measured():
    """Counts of genes whose means differ widely, and totals of which they are a third."""
    rng = np.random.default_rng(0)
    mean = np.geomspace(0.1, 40, N_GENES)
    state = np.exp(0.5 * rng.normal(size=(N_SPOTS, 1)) * rng.normal(size=(1, N_GENES)))
    depth = rng.uniform(0.5, 2, (N_SPOTS, 1))
    counts = rng.poisson(mean * state * depth).astype(float)
    return counts, 3 * counts.sum(axis=1)


def logged(counts, totals, size=1e4):
    return np.log1p(size * counts / totals[:, None])


def smooth(values, seed=0):
    """What a timid model would predict: the means, and a third of the deviations of some other spot."""
    other = np.random.default_rng(seed).permutation(len(values))
    return values.mean(axis=0) + (values[other] - values.mean(axis=0)) / 3


@pytest.mark.parametrize("change", [lambda v: v, smooth, lambda v: v + 0.3, lambda v: np.maximum(v - 0.3, 0)])
def test_log1p_is_accepted_however_well_it_predicts(measured, change):
    assert other_scale(change(logged(*measured)), *measured) is None


def test_the_mean_profile_of_other_tissue_is_accepted(measured):
    counts, totals = measured
    profile = logged(counts, totals).mean(axis=0)
    rng = np.random.default_rng(1)
    shifted = profile * np.exp(rng.normal(scale=0.4, size=N_GENES)) + 0.05 * rng.random((N_SPOTS, 1))
    assert other_scale(shifted, counts, totals) is None


@pytest.mark.parametrize("n_genes", [1, 2, 5, 12])
def test_a_panel_of_few_genes_at_other_levels_is_accepted(measured, n_genes):
    counts, totals = measured
    rng = np.random.default_rng(2)
    for _ in range(30):
        genes = rng.choice(N_GENES, n_genes, replace=False)
        other_patient = logged(counts, totals)[:, genes] * rng.uniform(0.6, 1.8, n_genes)
        found = other_scale(np.minimum(other_patient, 9), counts[:, genes], totals)
        assert found is None, genes


SCALES = [
    (lambda c, t: c, COUNTS),
    (lambda c, t: smooth(c) + 1e-3, COUNTS),
    (lambda c, t: 1e4 * c / t[:, None], LINEAR),
    (lambda c, t: smooth(c / t[:, None]), LINEAR),
    (lambda c, t: (logged(c, t) - logged(c, t).mean(0)) / logged(c, t).std(0), CENTERED),
    (lambda c, t: (logged(c, t) - logged(c, t).min(0)) / np.ptp(logged(c, t), axis=0), UNIT),
    (lambda c, t: smooth(logged(c, t, 1e6)), "counts per million"),
    (lambda c, t: logged(c, t, 1e3), "another library size"),
    (lambda c, t: logged(c, t, float(np.median(t))), "another library size"),
    (lambda c, t: np.log1p(c), r"raw counts|library size"),
    (lambda c, t: np.log2(1 + 1e4 * c / t[:, None]), "log2"),
    (lambda c, t: np.sqrt(1e4 * c / t[:, None]), "the square root of normalized counts"),
    (lambda c, t: smooth(np.sqrt(c / t[:, None] + 1e-5)), "the square root of normalized counts"),
    (lambda c, t: logged(c, t) / np.log(10), "log10"),
    (lambda c, t: 1000 + 37 * logged(c, t), "without the logarithm"),
    (lambda c, t: 0 * c, "unknown scale"),
]


@pytest.mark.parametrize(("transform", "name"), SCALES)
def test_another_scale_is_told_apart_and_named_with_what_to_do(measured, transform, name):
    import re

    found = other_scale(transform(*measured), *measured)
    assert found is not None
    assert re.search(name.replace("(", r"\(") if name in (COUNTS, LINEAR, CENTERED, UNIT) else name, found)
    assert found in refusal(found)
    assert "target='log1p'" in refusal(found)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda v: v, ""),
        (smooth, ""),
        (lambda v: np.full_like(v, np.square(v.mean(0)).mean() / v.mean()), ""),  # constant: no order to compare
        (lambda v: np.roll(v, N_GENES // 2, axis=1), "rank correlation"),  # names of other genes
        (lambda v: np.maximum((v - v.mean(0)) / v.std(0), 0), "rank correlation"),
        (lambda v: 0.45 * smooth(v), "0.45 times the measured"),
    ],
)
def test_genes_out_of_order_and_an_odd_level_are_doubted(measured, change, found):
    said = doubt(change(logged(*measured)), *measured)
    assert found in said
    assert bool(found) == bool(said)


def test_few_genes_are_not_ranked(measured):
    counts, totals = measured
    shifted = np.roll(logged(counts, totals)[:, :49], 20, axis=1)
    assert "rank" not in doubt(shifted, counts[:, :49], totals)
