import numpy as np
import pytest
import scipy.sparse as sp
from references import read_reference
from sklearn.neighbors import NearestNeighbors

from sthisto.models.retrieval import exact
from sthisto.models.retrieval.bank import Bank

AGGREGATIONS = ["average", "weighted", "simple"]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def small(rng):
    """A bank of 300 spots in 4 sections, and 40 queries."""
    bank = Bank(rng.normal(size=(300, 8)), rng.random((300, 5)), section=np.arange(300) % 4)
    return bank, rng.normal(size=(40, 8))


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(exact, "KEYS", 37)
    monkeypatch.setattr(exact, "QUERIES", 11)


def nearest(bank, queries, k, allowed=None):
    """Rows and cosines by sorting all of them in float64."""
    unit = bank.embedding / np.linalg.norm(bank.embedding.astype(float), axis=1, keepdims=True)
    cosine = queries.astype(np.float32) / np.linalg.norm(queries, axis=1, keepdims=True) @ unit.T
    if allowed is not None:
        cosine = np.where(allowed, cosine, -np.inf)
    rows = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(cosine, rows, 1)


@pytest.mark.parametrize("file", ["retrieval_2_queries.npz", "retrieval.npz"])
@pytest.mark.parametrize("index", ["exact", "faiss"])
def test_retrieval_reproduces_the_original(index, file):
    if index == "faiss":
        pytest.importorskip("faiss")
    expected = read_reference(file)
    bank = Bank(expected["key"], expected["expression"], index=index)
    k = int(expected["k"])
    np.testing.assert_array_equal(bank.search(expected["query"], k)[0], expected["neighbours"])
    for aggregation in AGGREGATIONS:
        found = bank.query(expected["query"], k, aggregation)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected[aggregation], rtol=0, atol=1e-5)


@pytest.mark.parametrize("k", [1, 7, 300])
def test_search_is_that_of_scikit_learn(small, small_blocks, k):
    bank, queries = small
    indices, cosine = bank.search(queries, k)
    distance, expected = NearestNeighbors(n_neighbors=k, metric="cosine").fit(bank.embedding).kneighbors(queries)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(cosine, 1 - distance, atol=1e-6)
    assert (indices.dtype, cosine.dtype) == (np.int64, np.float32)


def test_equal_cosines_come_by_lowest_row(small_blocks):
    embedding = np.tile(np.eye(2), (60, 1)) * np.arange(1, 121)[:, None]
    indices, cosine = Bank(embedding, np.zeros((120, 1))).search(np.array([[2.0, 0.0]]), 70)
    expected = np.concatenate([np.arange(0, 120, 2), np.arange(1, 21, 2)])
    np.testing.assert_array_equal(indices[0], expected)
    np.testing.assert_allclose(cosine[0], expected % 2 == 0)


def test_blocks_do_not_change_the_result(small, monkeypatch):
    bank, queries = small
    whole = bank.search(queries, 20)
    monkeypatch.setattr(exact, "KEYS", 16)
    monkeypatch.setattr(exact, "QUERIES", 3)
    for found, expected in zip(bank.search(queries, 20), whole, strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(bank.search(queries[5:6], 20)[1], whole[1][5:6])


@pytest.mark.parametrize("index", ["exact", "faiss"])
def test_no_query_retrieves_itself_or_its_section(small, small_blocks, index):
    if index == "faiss":
        pytest.importorskip("faiss")
    bank, queries = small
    bank = Bank(bank.embedding, bank.expression, bank.section, index=index)
    own, row = np.arange(40) % 5, np.arange(40)  # section 4 is not in the bank
    allowed = (bank.section != own[:, None]) & (np.arange(300) != row[:, None])
    indices, _ = bank.search(queries, 50, exclude=row, exclude_sections=own)
    np.testing.assert_array_equal(indices, nearest(bank, queries, 50, allowed)[0])


@pytest.mark.parametrize("sections", [2, {2}, np.int64(2), {2, 3}])
def test_sections_can_be_excluded_for_all_queries(small, sections):
    bank, queries = small
    allowed = ~np.isin(bank.section, list(sections) if isinstance(sections, set) else [sections])
    indices, _ = bank.search(queries, 30, exclude_sections=sections)
    np.testing.assert_array_equal(indices, nearest(bank, queries, 30, allowed[None])[0])


def test_row_minus_one_excludes_nothing(small):
    bank, queries = small
    np.testing.assert_array_equal(bank.search(queries, 5, exclude=np.full(40, -1))[0], bank.search(queries, 5)[0])


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("sparse", [False, True])
def test_expression_and_spread_are_those_of_the_neighbors(small, aggregation, sparse):
    bank, queries = small
    expression = np.where(bank.expression > 0.5, bank.expression, 0)
    stored = sp.csr_matrix(expression) if sparse else expression
    bank = Bank(bank.embedding, stored, bank.section)
    assert sp.issparse(bank.expression) == sparse
    rows, _ = nearest(bank, queries, 6)
    retrieved = bank.retrieve(queries, 6, aggregation)
    mean, sd = bank.average(retrieved), bank.spread(retrieved)
    for query, neighbors, mean_, sd_ in zip(queries, rows, mean, sd, strict=True):
        squared = ((bank.embedding[neighbors] - query) ** 2).sum(1)
        weights = {
            "average": np.ones(6),
            "weighted": np.exp(-(squared - squared[0] + 1)),
            "simple": np.eye(6)[0],
        }[aggregation]
        expected = np.average(expression[neighbors], axis=0, weights=weights)
        variance = np.average((expression[neighbors] - expected) ** 2, axis=0, weights=weights)
        np.testing.assert_allclose(mean_, expected, atol=1e-5)
        np.testing.assert_allclose(sd_, np.sqrt(variance), atol=1e-5)
    assert mean.dtype == sd.dtype == np.float32


def test_one_search_serves_expression_and_confidence(small):
    bank, queries = small
    retrieved = bank.retrieve(queries, 6, "weighted", exclude_sections=1)
    np.testing.assert_array_equal(bank.average(retrieved), bank.query(queries, 6, "weighted", exclude_sections=1))
    np.testing.assert_allclose(retrieved.weights.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(retrieved.mean_cosine, retrieved.cosine.mean(1))


def test_weights_are_finite_however_far_the_neighbors(small):
    bank, queries = small
    far = Bank(bank.embedding * 1e4, bank.expression)
    assert np.isfinite(far.query(queries, 50, "weighted")).all()


def test_vector_of_zeros_has_cosine_zero(small):
    bank, _ = small
    _, cosine = bank.search(np.zeros((1, 8)), 3)
    np.testing.assert_array_equal(cosine, 0)


def test_no_queries_give_no_rows(small):
    bank, _ = small
    assert bank.query(np.zeros((0, 8)), 5).shape == (0, 5)
    assert bank.spread(bank.retrieve(np.zeros((0, 8)), 5)).shape == (0, 5)
    assert Bank(bank.embedding, sp.csr_matrix(bank.expression)).query(np.zeros((0, 8)), 5).shape == (0, 5)


def test_faiss_takes_over_above_the_size_in_settings(small, monkeypatch):
    pytest.importorskip("faiss")
    bank, _ = small
    assert bank.is_exact
    monkeypatch.setattr("sthisto.models.retrieval.bank.settings.faiss_above", 299)
    assert not bank.is_exact
    monkeypatch.setattr("sthisto.models.retrieval.bank._faiss_installed", lambda: False)
    assert bank.is_exact


def test_query_whose_lists_are_short_is_searched_exactly(small, monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr("sthisto.models.retrieval.faiss.LEAST_PROBED", 1)
    bank, queries = small
    approximate = Bank(bank.embedding, bank.expression, index="faiss")
    np.testing.assert_array_equal(approximate.search(queries, 290)[0], bank.search(queries, 290)[0])


def test_missing_faiss_names_its_install_line(small, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    bank, queries = small
    with pytest.raises(ImportError, match=r"pip install faiss-cpu"):
        Bank(bank.embedding, bank.expression, index="faiss").search(queries, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "`k` must be at least 1"),
        ({"k": 301}, "only 300 of the bank's 300"),
        ({"k": 226, "exclude_sections": 0}, "only 225"),
        ({"k": 225, "exclude_sections": np.zeros(40, int), "exclude": np.full(40, 1)}, "only 224"),
        ({"k": 1, "exclude_sections": {0, 1, 2, 3}}, "none of the bank's 300"),
        ({"exclude": np.full(40, 300)}, "rows of the bank"),
        ({"exclude": np.arange(3)}, "`exclude` must be 40 integers"),
        ({"exclude_sections": np.arange(3)}, "`exclude_sections` must be 40 integers"),
        ({"aggregation": "median"}, "`aggregation` is 'median'"),
    ],
)
def test_impossible_queries_are_refused(small, change, message):
    bank, queries = small
    with pytest.raises(ValueError, match=message):
        bank.query(queries, **{"k": 5, **change})


def test_k_up_to_what_each_query_may_retrieve_is_allowed(small):
    bank, queries = small
    assert bank.search(queries, 225, exclude_sections=np.arange(40) % 4)[0].shape == (40, 225)
    assert bank.search(queries, 224, exclude_sections=0, exclude=np.full(40, 1))[0].shape == (40, 224)
    assert bank.search(queries, 225, exclude_sections=0, exclude=np.full(40, 4))[0].shape == (40, 225)


def test_bad_embeddings_are_refused(small):
    bank, queries = small
    queries[3, 1] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite values in 1 of 40 rows, the first is row 3"):
        bank.query(queries, 5)
    with pytest.raises(ValueError, match="8 dimensions, the queries 7"):
        bank.query(np.zeros((2, 7)), 5)
    with pytest.raises(ValueError, match=r"\(n_spots, n_dimensions\)"):
        bank.query(np.zeros(8), 5)
    with pytest.raises(ValueError, match="needs the section"):
        Bank(bank.embedding, bank.expression).query(np.zeros((2, 8)), 5, exclude_sections=1)


def test_bad_banks_are_refused():
    with pytest.raises(ValueError, match="3 embeddings and 4 rows"):
        Bank(np.zeros((3, 2)), np.zeros((4, 2)))
    with pytest.raises(ValueError, match="no spots"):
        Bank(np.zeros((0, 2)), np.zeros((0, 2)))
    with pytest.raises(ValueError, match="`expression` has NaN"):
        Bank(np.zeros((1, 2)), np.full((1, 2), np.nan))
    with pytest.raises(ValueError, match="`expression` has NaN"):
        Bank(np.zeros((1, 2)), sp.csr_matrix(np.full((1, 2), np.inf)))
    with pytest.raises(ValueError, match="`section` must be 2 integers"):
        Bank(np.zeros((2, 2)), np.zeros((2, 2)), section=np.array(["a", "b"]))
    with pytest.raises(ValueError, match="`index` is 'fast'"):
        Bank(np.zeros((2, 2)), np.zeros((2, 2)), index="fast")
