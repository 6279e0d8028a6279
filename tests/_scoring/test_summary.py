import numpy as np
import pandas as pd
import pytest
from scored import make_measured

from sthisto._scoring.score import ScoreOptions, score_genes
from sthisto._scoring.summary import gene_means, gene_sets, mean_over_genes, overall_means, section_means, summarize


def test_sets_of_genes_are_of_the_section_and_have_one_name_each():
    mean, variance = np.random.default_rng(0).random((2, 70))
    sets = gene_sets(mean, variance=variance, is_marker=np.arange(70) == 69)
    assert {name: len(at) for name, at in sets.items()} == {
        "all modeled": 70,
        "top 50": 50,
        "50 most variable": 50,
        "markers": 1,
    }
    assert set(sets["top 50"]) == set(np.argsort(mean)[20:])
    assert set(sets["50 most variable"]) == set(np.argsort(variance)[20:])
    assert sets["markers"] == [69]


@pytest.mark.parametrize("n_genes", [1, 50])
def test_so_few_genes_are_one_set(n_genes):
    assert list(gene_sets(np.ones(n_genes), variance=np.ones(n_genes), is_marker=np.zeros(n_genes, bool))) == [
        "all modeled"
    ]


def test_genes_of_equal_expression_are_taken_in_their_order():
    np.testing.assert_array_equal(gene_sets(np.ones(60))["top 50"], np.arange(50))


def test_a_gene_that_varies_and_is_predicted_constant_counts_as_zero():
    scores, varying = pd.Series([0.4, np.nan, np.nan]), pd.Series([True, True, False])
    assert mean_over_genes(scores, varying) == pytest.approx(0.2)
    assert np.isnan(mean_over_genes(scores.iloc[1:], varying.iloc[1:]))


def test_means_hold_all_scores_and_references_over_the_same_genes():
    one = make_measured()
    scores = score_genes(one, "good", ScoreOptions((4.0, 6.0, 8.0)))
    found = summarize(scores).set_index(["section", "genes"])
    highest = scores.nlargest(50, "mean_expression")
    for name in ("pcc", "pcc_residual", "pcc_partial_depth", "rmse", "depth_pcc", "depth_pcc_residual"):
        assert found.loc[("A", "top 50"), name] == pytest.approx(highest[name].mean())
        assert found.loc[("A", "all modeled"), name] == pytest.approx(scores[name].mean())
    assert found.loc[("A", "top 50"), "reproducibility"] == pytest.approx(np.sqrt(highest["reliability"].mean()))
    assert list(found)[-1] == "reproducibility"


def test_sections_count_alike_and_spots_are_summed():
    scores = [score_genes(make_measured(n, k, seed=k), "good", ScoreOptions()) for n, k in (("A", 30), ("B", 90))]
    by_section = section_means(pd.concat(scores))
    overall = overall_means(by_section, ["genes"]).set_index("genes").loc["all modeled"]
    assert overall["n_spots"] == 120
    assert overall["pcc"] == pytest.approx(np.mean([one["pcc"].mean() for one in scores]))


def test_a_gene_has_a_reproducibility_where_any_section_has_one():
    scores = pd.DataFrame(
        {
            "gene": ["a", "b", "a", "b"],
            "pcc": [0.1, 0.2, 0.3, np.nan],
            "reproducibility": [0.5, np.nan, np.nan, np.nan],
            "reliability": [0.25, 0.1, 0.15, 0.1],
        }
    )
    found = gene_means(scores, ["pcc", "reproducibility"])
    assert found["pcc"].tolist() == pytest.approx([0.2, 0.2])
    assert found.loc["a", "reproducibility"] == pytest.approx(np.sqrt(0.2))
    assert np.isnan(found.loc["b", "reproducibility"])
