import numpy as np
import pytest
from scipy.stats import pearsonr
from scored import make_measured

from sthisto import metrics
from sthisto._scoring.intervals import Scope, differences, intervals, reproducibility, scopes


@pytest.fixture
def pair():
    return [make_measured("A", 60, seed=1), make_measured("B", 90, seed=2)]


def of_genes(one, key, chosen):
    return np.mean([pearsonr(one.residuals[:, i], one.predictions[key][:, i])[0] for i in chosen])


def test_several_sections_are_scored_alone_as_a_mean_and_pooled(pair):
    assert [(scope.name, len(scope.sections), scope.pooled) for scope in scopes(pair)] == [
        ("A", 1, False),
        ("B", 1, False),
        ("mean of A+B", 2, False),
        ("pooled A+B", 2, True),
    ]
    assert [scope.name for scope in scopes(pair[:1])] == ["A"]


def test_score_is_over_the_genes_chosen_in_each_section(pair):
    chosen = [np.array([7, 3]), np.arange(20, 40)]
    alone = [intervals(Scope("one", [one]), [at], ["good"])["good"].value for one, at in zip(pair, chosen, strict=True)]
    assert alone == pytest.approx([of_genes(one, "good", at) for one, at in zip(pair, chosen, strict=True)])
    assert intervals(Scope("both", pair), chosen, ["good"])["good"].value == pytest.approx(np.mean(alone))


def test_pooled_spots_are_one_section(pair):
    chosen = [np.arange(60)] * 2
    found = intervals(Scope("pool", pair, pooled=True), chosen, ["good"])["good"].value
    truth = np.concatenate([one.residuals for one in pair])
    prediction = np.concatenate([one.predictions["good"] for one in pair])
    assert found == pytest.approx(np.mean([pearsonr(truth[:, i], prediction[:, i])[0] for i in range(60)]))


def test_a_prediction_that_does_not_vary_has_no_interval(pair):
    chosen = [np.arange(60)] * 2
    assert list(intervals(Scope("both", pair), chosen, ["good", "constant"])) == ["good"]
    assert list(differences(Scope("both", pair), chosen, ["good", "noise", "constant"], reference="noise")) == ["good"]
    assert differences(Scope("both", pair), chosen, ["good", "constant"], reference="constant") == {}
    assert differences(Scope("both", pair), chosen, ["good"], reference="ridge") == {}


def test_a_section_of_one_block_has_no_interval(pair):
    one = type(pair[0])(**{**vars(pair[0]), "blocks": np.zeros(60, dtype=int)})
    assert intervals(Scope("A", [one]), [np.arange(60)], ["good"]) == {}
    assert differences(Scope("A", [one]), [np.arange(60)], ["good", "noise"], reference="noise") == {}


def test_difference_is_that_of_the_scores_and_its_interval_is_narrower(pair):
    scope, chosen = Scope("both", pair), [np.arange(60)] * 2
    for one in pair:
        one.predictions["near"] = one.predictions["good"] + 0.05 * one.predictions["noise"]
    alone = intervals(scope, chosen, ["good", "near"])
    found = differences(scope, chosen, ["good", "near"], reference="good")["near"]
    assert found.value == pytest.approx(alone["near"].value - alone["good"].value)
    assert found.high - found.low < 0.5 * (alone["near"].high - alone["near"].low)


def test_blocks_of_different_sections_are_different_blocks(pair):
    blocks = Scope("both", pair).blocks()
    assert not set(blocks[:60]) & set(blocks[60:])
    assert len(np.unique(blocks)) == sum(len(np.unique(one.blocks)) for one in pair)


def test_reproducibility_does_not_depend_on_the_order_of_the_genes(pair):
    at = np.arange(20, 50)
    alone = [metrics.reproducibility(one.counts[:, at], totals=one.totals) for one in pair]
    found = reproducibility(pair[:1], [at[::-1]])
    assert (found.value, found.low, found.high) == (alone[0].overall, alone[0].overall_low, alone[0].overall_high)
    both = reproducibility(pair, [at, at])
    assert both.value == pytest.approx(np.sqrt(np.mean([one.mean_reliability for one in alone])))
    assert np.isnan(both.low)
