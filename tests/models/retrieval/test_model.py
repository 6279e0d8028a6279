import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors
from tissue import GENES, PATCHES, encoder, make_section

from sthisto.models import Knn


@pytest.fixture(scope="module")
def sections():
    return [make_section("A", validation=6), make_section("B", seed=1), make_section("C", seed=2)]


def fit(sections, k=7, **options):
    model = Knn(GENES, patch=PATCHES, options=Knn.make_options({"k": k, **options}), encoder=encoder())
    model.fit(sections)
    return model


def features(section):
    import torch

    return encoder()(torch.from_numpy(section.inputs.patches[0].read())).numpy()


@pytest.mark.parametrize("aggregation", ["average", "simple"])
def test_prediction_equals_scikit_learns_cosine_neighbors(sections, aggregation):
    model = fit(sections[:2], aggregation=aggregation)
    center = np.concatenate([features(one)[one.used] for one in sections[:2]]).mean(axis=0)
    bank = np.concatenate([features(one)[one.used] for one in sections[:2]]) - center
    expression = np.concatenate([one.expression[one.used] for one in sections[:2]])
    search = NearestNeighbors(n_neighbors=7, metric="cosine").fit(bank)
    distance, index = search.kneighbors(features(sections[2]) - center)
    found = model.predict(sections[2].inputs)
    n_used = 7 if aggregation == "average" else 1
    np.testing.assert_allclose(found.expression, expression[index[:, :n_used]].mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(found.sd, expression[index[:, :n_used]].std(axis=1), atol=1e-5)
    neighbors = model.neighbors(sections[2].inputs)
    np.testing.assert_allclose(neighbors["cosine"].to_numpy().reshape(-1, 7), 1 - distance, atol=1e-5)


def test_neighbors_name_section_and_spot_of_each_rank(sections):
    model = fit(sections)
    found = model.neighbors(sections[0].inputs)
    assert list(found.columns) == ["spot", "rank", "section", "training_spot", "cosine"]
    assert found["spot"].tolist() == np.repeat(np.arange(49), 7).tolist()
    assert found["rank"].tolist() == list(range(7)) * 49
    assert set(found["section"]) == {"B", "C"}
    by_name = {one.name: one for one in sections}
    expression = [by_name[row.section].expression[row.training_spot] for row in found.itertuples()]
    average = np.reshape(expression, (49, 7, 12)).mean(axis=1)
    np.testing.assert_allclose(average, model.predict(sections[0].inputs).expression, rtol=1e-5)
    assert (found.groupby("spot")["cosine"].diff().dropna() <= 0).all()


def test_more_neighbors_than_training_spots_are_refused_before_anything_is_computed(sections, monkeypatch):
    monkeypatch.setattr("sthisto.models.methods.knn.extract", None)
    with pytest.raises(ValueError, match="k=99 neighbors are wanted, but there are 98 training spots"):
        fit(sections[:2], k=99)


def test_bank_holds_training_and_validation_spots_alone(sections):
    from dataclasses import replace

    part = replace(sections[0], train=np.array([4, 2, 9]), validation=np.array([30]))
    expression = np.full_like(part.expression, np.nan)
    expression[part.used] = part.expression[part.used]
    model = fit([replace(part, expression=expression), sections[1]], k=3)
    state = model.bank_state()
    assert state["row"][:4].tolist() == [4, 2, 9, 30]
    np.testing.assert_array_equal(state["expression"][:4], part.expression[[4, 2, 9, 30]])
