from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tissue import GENES, PATCHES, encoder, make_section

from sthisto.metrics import pearson
from sthisto.models import METHODS, load
from sthisto.models.blocks import BlockLayout, Standard
from sthisto.models.kernels import block_kernel, center_columns, fit_kernel
from sthisto.models.low_rank import centered_by, fit_components
from sthisto.models.perceptrons import PerceptronSettings, fit_perceptrons, predict_perceptrons

FOLLOWING = slice(0, 8)


def make(method: str = "kernel", **options):
    cls = METHODS[method]
    options = cls.make_options(options)
    return cls(
        GENES,
        patch=PATCHES,
        options=options,
        encoder=encoder() if cls.needs_encoder(options) else None,
        normalization={"target": "log1p"},
    )


def with_residuals(name: str, seed: int):
    section = make_section(name, seed=seed)
    return replace(section, residuals=section.expression - section.expression.mean(axis=0))


TRAINING = [with_residuals(name, seed) for seed, name in enumerate("AB")]
TEST = with_residuals("C", 7)


def test_left_out_scores_are_those_of_a_fit_without_the_fold():
    rng = np.random.default_rng(0)
    x, targets = rng.normal(size=(30, 4)), rng.normal(size=(30, 6))
    folds = np.repeat([0, 1, 2], 10)
    kernel = x @ x.T
    components = fit_components(targets, (3,))
    (fit,) = fit_kernel(kernel, [targets], [components], alphas=(0.1,), folds=folds)
    scores = targets @ components.vectors
    train, test = folds != 1, folds == 1
    regularized = kernel[np.ix_(train, train)] + 0.1 * np.trace(kernel) * np.eye(20)
    expected = kernel[np.ix_(test, train)] @ np.linalg.solve(regularized, scores[train])
    ratio = fit.scores[test] / expected
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-8)


def test_answer_lies_in_the_top_components():
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(40, 9))
    components = fit_components(targets, (2, 4))
    _, _, right = np.linalg.svd(targets, full_matrices=False)
    expected = (right[:2].T @ right[:2] + right[:4].T @ right[:4]) / 2
    np.testing.assert_allclose(components.projection, expected, atol=1e-8)


def test_rbf_kernel_is_the_mean_over_blocks():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(5, 5)), rng.normal(size=(7, 5))
    layout = BlockLayout((2, 3), (0.3, 0.7))
    expected = sum(
        weight * np.exp(-np.square(one[:, None, part] - other[None, :, part]).sum(axis=2) / 2)
        for weight, part in ((0.3, slice(0, 2)), (0.7, slice(2, 5)))
    )
    np.testing.assert_allclose(block_kernel(one, other, layout, "rbf"), expected, rtol=1e-10)


def test_centering_by_section_is_a_projection():
    group = np.array([0, 0, 1, 1, 1])
    kernel = np.random.default_rng(0).normal(size=(3, 5))
    center = np.eye(5) - np.stack([(group == g) / (group == g).sum() for g in group])
    np.testing.assert_allclose(center_columns(kernel.copy(), group), kernel @ center, atol=1e-12)
    np.testing.assert_allclose(centered_by(kernel.T, group), center @ kernel.T, atol=1e-12)


def test_constant_feature_is_zero():
    values = np.column_stack([np.full(30, 0.1), np.arange(30.0)]).astype(np.float32)
    standardized = Standard.of(values)(values, BlockLayout((2,), (1.0,)))
    assert (standardized[:, 0] == 0).all()
    np.testing.assert_allclose(standardized[:, 1].std(), 1 / np.sqrt(2), rtol=1e-5)


def test_perceptrons_learn_and_depend_on_the_seed_alone():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5)).astype(np.float32)
    target = np.tanh(x @ rng.normal(size=(5, 3)))
    one, _ = fit_perceptrons(x, [target], PerceptronSettings(), seed=1)
    two, _ = fit_perceptrons(x, [target], PerceptronSettings(), seed=1)
    (first,), (second,) = predict_perceptrons(one, x, 1), predict_perceptrons(two, x, 1)
    np.testing.assert_array_equal(first, second)
    assert np.nanmean(pearson(target, first)) > 0.9


@pytest.mark.parametrize("method", ["kernel", "mlp", "recommended"])
@pytest.mark.parametrize("features", [("texture",), ("encoder",), ("texture", "encoder", "border")])
def test_predicts_a_new_section_with_spread_and_confidence(method, features):
    model = make(method, features=features)
    model.fit(TRAINING, seed=0)
    prediction = model.predict(TEST.inputs)
    assert np.nanmean(pearson(TEST.expression, prediction.expression)[FOLLOWING]) > 0.3
    assert (prediction.expression >= 0).all()
    assert (prediction.sd > 0).all()
    assert ((prediction.confidence >= 0) & (prediction.confidence <= 1)).all()
    assert not prediction.seen.any()


@pytest.mark.parametrize("n_spots", [1, 5, 50])
def test_few_training_spots_and_one_section_are_enough(n_spots):
    section = make_section("A", side=8)
    model = make("recommended")
    model.fit([replace(section, train=section.train[:n_spots])], seed=0)
    prediction = model.predict(TEST.inputs)
    assert np.isfinite(prediction.expression).all()
    assert (prediction.sd is None) == (n_spots == 1)
    assert n_spots == 1 or np.isfinite(prediction.sd).all()


@pytest.mark.parametrize("n_spots", [(2,), (1, 1), (2, 1), (3,), (5,)])
def test_spread_of_few_training_spots_is_not_zero(n_spots):
    sections = [make_section(name, seed=i) for i, name in enumerate("AB"[: len(n_spots)])]
    model = make("kernel", features=("encoder",))
    model.fit([replace(one, train=one.train[:n]) for one, n in zip(sections, n_spots, strict=True)], seed=0)
    trained = np.concatenate([one.expression[one.train[:n]] for one, n in zip(sections, n_spots, strict=True)])
    sd = model.predict(TEST.inputs).sd
    assert sd.mean() > 0.3 * trained.std(axis=0).mean()


def test_a_tiny_section_beside_another_leaves_the_scale_of_predictions():
    whole, tiny = make_section("A", side=9), make_section("B", seed=1)
    spreads = []
    for sections in ([whole], [whole, replace(tiny, train=tiny.train[:1])]):
        model = make("kernel", features=("encoder",))
        model.fit(sections, seed=0)
        spreads.append(model.predict(TEST.inputs).expression[:, FOLLOWING].std(axis=0).mean())
    assert spreads[1] == pytest.approx(spreads[0], rel=0.1)


def test_section_of_one_spot_is_predicted():
    model = make("kernel", features=("encoder",))
    model.fit(TRAINING, seed=0)
    spot = TEST.inputs.patches[0].subset(np.array([3]))
    prediction = model.predict(replace(TEST.inputs, patches=(spot,), positions=TEST.inputs.positions[[3]]))
    assert np.isfinite(prediction.expression).all()


def test_saved_model_predicts_the_same(tmp_path):
    model = make("recommended", features=("texture", "border"))
    model.fit(TRAINING, seed=0)
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    np.testing.assert_allclose(
        loaded.predict(TEST.inputs).expression, model.predict(TEST.inputs).expression, rtol=1e-5, atol=1e-6
    )


def test_no_projection_keeps_all_components():
    model = make("kernel", features=("encoder",), expression_components=None)
    model.fit(TRAINING, seed=0)
    assert model._components[0].vectors.shape[1] == len(GENES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": "texture"}, "expected some of"),
        ({"features": ("colour",)}, "features"),
        ({"alphas": ()}, "at least one"),
        ({"alphas": (0.0,)}, "alphas"),
        ({"expression_components": 0}, "expression_components"),
        ({"log1p_share": 1.5}, "log1p_share"),
        ({"kernel": "cosine"}, "kernel"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_widest_view_of_a_single_width_without_texture_is_that_width():
    cls = METHODS["kernel"]
    assert cls.widest(cls.make_options({"features": ("encoder",)}), (1.0,)) == 1
    assert cls.widest(cls.make_options({}), (1.0, 2.0, 4.0)) == 8


@pytest.mark.parametrize(
    ("part", "name", "change", "message"),
    [
        ("state", "sizes", lambda v: v + 1, "blocks of features"),
        ("state", "weights", lambda v: -v, "'weights' must be positive"),
        ("state", "weights", lambda v: 100 * v, "'weights'.*of the sum one"),
        ("state", "shares", lambda v: 2 * v, "'shares'.*of the sum one"),
        ("state", "total_sd", lambda v: 0 * v, "'total_sd'"),
        ("state", "power.kernel", lambda v: -v, "'power.kernel'"),
        ("state", "usual.sd", lambda v: -v, "'usual.sd'"),
        ("state", "gene_sd", lambda v: -v, "'gene_sd'"),
        ("state", "amplitude", lambda v: -v, "'amplitude'"),
        ("bank", "squared_error", lambda v: -v, "squared errors"),
    ],
)
def test_values_that_no_fit_gives_are_refused(part, name, change, message):
    model = make("kernel", features=("texture", "border"))
    model.fit(TRAINING, seed=0)
    state, bank = model.state(), model.bank_state()
    whole = state if part == "state" else bank
    whole[name] = change(whole[name])
    again = make("kernel", features=("texture", "border"))

    def take():
        again.load_state(state)
        again.load_bank_state(bank)

    with pytest.raises(ValueError, match=message):
        take()


def test_features_of_other_options_are_refused_on_load():
    model = make("kernel", features=("texture", "border"))
    model.fit(TRAINING, seed=0)
    with pytest.raises(ValueError, match="1 blocks of features were expected"):
        make("kernel", features=("border",)).load_state(model.state())
