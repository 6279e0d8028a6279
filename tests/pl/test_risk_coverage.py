"""The score of the most confident spots: its definition, and what is drawn."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from tissue import GENES, PATCH, make_tissue, mark_split

import sthisto as sth
from sthisto._scoring.measure import Measured
from sthisto._scoring.selective import SHARES, confidence_gain, risk_coverage, selective_scores


def measured(n=100, n_genes=3, *, noisy=0, seed=0):
    """Return a measurement whose prediction is right but for the last `noisy` spots, the least confident ones."""
    rng = np.random.default_rng(seed)
    residuals = rng.normal(size=(n, n_genes))
    prediction = residuals.copy()
    prediction[n - noisy :] = rng.normal(size=(noisy, n_genes))
    confidence = np.linspace(0.9, 0.1, n)
    one = Measured(
        name="A",
        genes=[f"g{i}" for i in range(n_genes)],
        truth=residuals,
        residuals=residuals,
        counts=np.ones((n, n_genes)),
        totals=np.ones(n),
        blocks=np.zeros(n, dtype=int),
        predictions={"key": prediction},
        confidence=confidence,
    )
    return one, prediction, confidence


def test_scores_are_those_of_the_most_confident_spots():
    one, prediction, confidence = measured(noisy=40)
    shuffled = np.random.default_rng(1).permutation(100)
    one = Measured(**{**vars(one), "residuals": one.residuals[shuffled]})
    found = selective_scores(one, prediction[shuffled], confidence[shuffled])
    for share, scores in zip(SHARES, found, strict=True):
        kept = slice(0, round(share * 100))
        residuals = measured(noisy=40)[0].residuals[kept]
        expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(residuals.T, prediction[kept].T, strict=True)]
        np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_gain_is_positive_where_wrong_spots_have_little_confidence_and_zero_where_nothing_is_wrong():
    one, prediction, confidence = measured(noisy=40)
    assert (confidence_gain(one, prediction, confidence) > 0.1).all()
    assert (confidence_gain(one, prediction, -confidence) < 0).all()
    right, prediction, confidence = measured(noisy=0)
    np.testing.assert_allclose(confidence_gain(right, prediction, confidence), 0, atol=1e-9)


def test_gain_without_confidence_or_with_few_spots_is_nan():
    one, prediction, _ = measured()
    assert np.isnan(confidence_gain(one, prediction, None)).all()
    assert np.isnan(confidence_gain(one, prediction, np.full(100, np.nan))).all()
    few, prediction, confidence = measured(n=19)
    assert np.isnan(confidence_gain(few, prediction, confidence)).all()
    assert len(risk_coverage(few, "key")) == 0


def test_spots_without_confidence_are_left_out_first():
    one, prediction, confidence = measured(noisy=10)
    confidence[90:] = np.nan
    np.testing.assert_allclose(selective_scores(one, prediction, confidence)[1], 1)


@pytest.fixture(scope="module")
def scored():
    sdata = make_tissue("ABC", side=8)
    mark_split(sdata, {"A": "train", "B": "train", "C": "test"})
    for method in ("color", "mean"):
        model = sth.tl.fit(sdata, method=method, patch_size=PATCH, genes=GENES[:6], key_added=method)
        sth.tl.predict(sdata, model, key_added=method)
        sth.tl.evaluate(sdata, key_added=method, n_boot=0, n_splits=1)
    return sdata


def test_evaluate_writes_the_gain_and_the_curve(scored, tmp_path):
    scores = sth.get.scores(scored, key_added="color")
    assert np.isfinite(scores["confidence_gain"]).all()
    curve = scored["counts"].uns["color"]["risk_coverage"]
    assert curve["share"].tolist() == [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4]  # of 64 spots, 0.3 are fewer than 20
    assert curve["n_spots"].tolist() == [round(share * 64) for share in curve["share"]]
    assert (curve["least_confidence"].diff().dropna() >= 0).all()
    mean = sth.get.scores(scored, key_added="color", by="section")
    assert curve["pcc_residual"].iloc[0] == pytest.approx(mean["pcc_residual"].iloc[0])
    gain = curve["pcc_residual"].iloc[1:].mean() - curve["pcc_residual"].iloc[0]
    assert mean["confidence_gain"].iloc[0] == pytest.approx(gain, abs=1e-6)
    scored.write(tmp_path / "scored.zarr")


def test_curve_is_drawn_with_the_gain(scored):
    ax = sth.pl.risk_coverage(scored, key_added="color")
    line = ax.get_lines()[-1]
    curve = scored["counts"].uns["color"]["risk_coverage"].sort_values("share")
    np.testing.assert_allclose(line.get_ydata(), curve["pcc_residual"])
    assert "gain" in ax.get_legend().get_texts()[0].get_text()
    plt.close("all")


def test_method_without_confidence_or_without_scores_is_named(scored):
    with pytest.raises(KeyError, match=r"uns\['mean'\] holds no 'risk_coverage'.*sth\.tl\.evaluate"):
        sth.pl.risk_coverage(scored, key_added="mean")
    with pytest.raises(KeyError, match="Nothing was predicted"):
        sth.pl.risk_coverage(scored, key_added="never")


def test_a_failed_call_closes_its_figure(scored, monkeypatch):
    def fail(*_args, **_kwargs):
        raise ZeroDivisionError

    plt.close("all")
    monkeypatch.setattr("matplotlib.axes.Axes.plot", fail)
    with pytest.raises(ZeroDivisionError):
        sth.pl.risk_coverage(scored, key_added="color")
    assert not plt.get_fignums()
