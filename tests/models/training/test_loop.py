from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from tissue import GENES, PATCHES, encoder, make_section
from torch import nn

from sthisto import settings
from sthisto.models import METHODS
from sthisto.models.training.loop import Interrupted, Training, train
from sthisto.models.training.patch_store import read_patches

ONCE = Training(max_epochs=1, batch_size=8, learning_rate=1e-3, weight_decay=0)


def fit_line(training, loss=None, n_spots=20, validation=None):
    module = nn.Linear(3, 1)
    x = torch.randn(n_spots, 3, generator=torch.Generator().manual_seed(0))

    def squared(module, batch, gather):
        return (gather(module(batch[0])) - gather(batch[1])).square().mean()

    history = train(
        module,
        (x, x.sum(1, keepdim=True)),
        loss=loss or squared,
        validation=validation,
        groups=np.arange(n_spots) % 2,
        training=training,
        description="",
    )
    return module, history


def model(method="danet", **options):
    cls = METHODS[method]
    options = cls.make_options({"k": 5, "max_epochs": 2} | options)
    return cls(GENES, patch=PATCHES, options=options, encoder=encoder())


def with_expression(section, change):
    expression = section.expression.copy()
    change(expression)
    return replace(section, expression=expression)


def test_training_keeps_the_best_epoch_and_stops_when_nothing_improves(caplog):
    caplog.set_level("INFO", logger="sthisto")
    x = torch.randn(10, 3, generator=torch.Generator().manual_seed(1))
    training = replace(ONCE, max_epochs=50, patience=2, learning_rate=0.1)
    module, history = fit_line(training, validation=(x, -x.sum(1, keepdim=True)))  # gets worse with every epoch
    best = history["val_loss"].idxmin()
    assert len(history) == best + 3
    assert f"{len(history)} epochs, the weights of epoch {best} (counted from 0) kept" in caplog.text
    with torch.no_grad():
        kept = (module(x) + x.sum(1, keepdim=True)).square().mean()
    assert float(kept) == pytest.approx(history["val_loss"][best], rel=1e-5)


def test_a_fit_that_was_cut_off_while_the_loss_fell_is_said(caplog):
    x = torch.randn(10, 3, generator=torch.Generator().manual_seed(1))
    validation = (x, x.sum(1, keepdim=True))  # what is learned
    fit_line(replace(ONCE, max_epochs=3, learning_rate=0.01), validation=validation)
    assert "still falling after max_epochs=3" in caplog.text
    caplog.clear()
    fit_line(replace(ONCE, max_epochs=50, patience=2, learning_rate=0.1), validation=(x, -x.sum(1, keepdim=True)))
    assert "still falling" not in caplog.text


def test_validation_in_batches_weighs_every_spot_alike():
    x = torch.arange(21.0)[:, None].repeat(1, 3)

    def mean(module, batch, gather):
        return batch[0].mean() + 0 * module(batch[0]).sum()

    _, history = fit_line(ONCE, loss=mean, validation=(x, x))
    assert history["val_loss"][0] == pytest.approx(10.0)


def test_every_spot_is_seen_once_an_epoch():
    seen = []

    def note(module, batch, gather):
        seen.extend(batch[1].flatten().tolist())
        return module(batch[0]).square().mean()

    fit_line(ONCE, loss=note, n_spots=21)
    assert len(seen) == len(set(seen)) == 21


def test_a_batch_by_section_is_that_section():
    sizes = []

    def note(module, batch, gather):
        sizes.append(len(batch[0]))
        return module(batch[0]).square().mean()

    fit_line(replace(ONCE, batch_by="section"), loss=note, n_spots=21)
    assert sorted(sizes) == [10, 11]


def test_a_loss_that_is_not_finite_stops_with_what_to_change():
    with pytest.raises(FloatingPointError, match="Lower learning_rate"):
        fit_line(ONCE, loss=lambda module, batch, gather: module(batch[0]).sum() * float("nan"))


def test_a_validation_loss_that_is_never_finite_stops_the_fit():
    x = torch.full((4, 3), float("inf"))
    with pytest.raises(FloatingPointError, match="validation loss was never finite"):
        fit_line(ONCE, validation=(x, x.sum(1, keepdim=True)))


def test_out_of_memory_in_training_stops_with_what_to_change():
    def runs_out(module, batch, gather):
        msg = "CUDA out of memory."
        raise torch.OutOfMemoryError(msg)

    with pytest.raises(torch.OutOfMemoryError, match=r"batch_size=8.*smaller batch_size, precision='bf16'"):
        fit_line(ONCE, loss=runs_out)


def test_interruption_hands_over_the_epochs_that_were_done():
    calls = []

    def stops(module, batch, gather):
        calls.append(1)
        if len(calls) > 5:
            raise KeyboardInterrupt
        return module(batch[0]).square().mean()

    with pytest.raises(Interrupted) as stop:
        fit_line(replace(ONCE, max_epochs=9), loss=stops)
    assert len(stop.value.history) == 2


def test_training_leaves_the_callers_threads_and_random_state_alone():
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    model().fit([make_section("A", seed=0), make_section("B", seed=1)])
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("setting", "value"), [("max_epochs", 0), ("batch_size", -1), ("batch_by", "slide")])
def test_impossible_training_is_an_error(setting, value):
    with pytest.raises(ValueError, match=setting):
        replace(ONCE, **{setting: value})


def test_a_device_that_is_not_there_is_an_error_before_training(monkeypatch):
    monkeypatch.setattr(settings, "device", "cuda:63")
    with pytest.raises(RuntimeError, match="which this machine does not have"):
        fit_line(ONCE)


def test_more_neighbors_than_spots_is_an_error():
    with pytest.raises(ValueError, match="k=1000 neighbors are wanted, but there are 98"):
        model(k=1000).fit([make_section("A", seed=0), make_section("B", seed=1)])


@pytest.mark.parametrize(("n_spots", "batch_size"), [(1, 8), (30, 1)])
def test_a_batch_of_one_spot_has_nothing_to_be_contrasted_with(n_spots, batch_size):
    section = make_section("A", seed=0)
    section = replace(section, train=section.train[:n_spots])
    with pytest.raises(ValueError, match="at least two"):
        model(k=1, batch_size=batch_size).fit([section])


def test_no_training_spot_is_an_error():
    section = make_section("A", seed=0)
    with pytest.raises(ValueError, match=r"(no|0) training spot"):
        model().fit([replace(section, train=section.train[:0], validation=section.validation[:0])])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_expression_that_is_not_finite_is_an_error_that_names_the_section(value):
    def spoil(expression):
        expression[3, 2] = value

    with pytest.raises(ValueError, match="'B' is not finite"):
        model().fit([make_section("A", seed=0), with_expression(make_section("B", seed=1), spoil)])


def test_one_gene_is_enough():
    sections = [make_section(name, seed=seed) for seed, name in enumerate("AB")]
    one = [replace(section, expression=section.expression[:, :1].copy()) for section in sections]
    cls = METHODS["danet"]
    fitted = cls(GENES[:1], patch=PATCHES, options=cls.make_options({"k": 5, "max_epochs": 2}), encoder=encoder())
    fitted.fit(one)
    assert fitted.predict(make_section("C", seed=2).inputs).expression.shape[1] == 1


@pytest.mark.parametrize("method", ["danet", "ridge", "color"])
def test_a_constant_gene_is_predicted_as_that_constant(method):
    def level(expression):
        expression[:, 0] = 2.0

    sections = [with_expression(make_section(name, seed=seed), level) for seed, name in enumerate("AB")]
    cls = METHODS[method]
    options = cls.make_options({"k": 5, "max_epochs": 2} if method == "danet" else {})
    fitted = cls(GENES, patch=PATCHES, options=options, encoder=encoder() if cls.uses_encoder else None)
    fitted.fit(sections)
    prediction = fitted.predict(make_section("C", seed=2).inputs).expression
    np.testing.assert_allclose(prediction[:, 0], 2.0, rtol=1e-4)


def test_a_section_without_spots_is_predicted_as_such():
    fitted = model()
    fitted.fit([make_section("A", seed=0), make_section("B", seed=1)])
    inputs = make_section("C", seed=2).inputs
    empty = type(inputs)("C", [source.subset(np.arange(0)) for source in inputs.patches], inputs.positions[:0])
    assert fitted.predict(empty).expression.shape == (0, len(GENES))


def test_patches_to_train_on_move_to_a_file_above_the_cap(monkeypatch, caplog):
    sources = [make_section(name, seed=seed).inputs.patches[0] for seed, name in enumerate("AB")]
    in_memory = read_patches(sources)
    assert np.array_equal(in_memory, np.concatenate([source.read() for source in sources]))
    assert not isinstance(in_memory, np.memmap)
    monkeypatch.setattr(settings, "image_memory", in_memory.nbytes / 2**31)
    with caplog.at_level(logging.INFO, "sthisto"):
        on_disk = read_patches(sources)
    assert isinstance(on_disk, np.memmap)
    assert "kept in a file" in caplog.text
    assert np.array_equal(on_disk, in_memory)


def test_finetuning_from_a_file_gives_what_it_gives_from_memory(monkeypatch):
    torch.manual_seed(0)
    conv = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    cls = METHODS["danet"]
    options = cls.make_options({"k": 5, "max_epochs": 1, "finetune": True})
    histories = []
    for gib in (4.0, 1e-6):
        from sthisto.models import load_encoder

        monkeypatch.setattr(settings, "image_memory", gib)
        fitted = cls(GENES, patch=PATCHES, options=options, encoder=load_encoder(conv))
        fitted.fit([make_section("A", seed=0, validation=8), make_section("B", seed=1)])
        histories.append(fitted.history)
    assert histories[0].equals(histories[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_trains_to_the_loss_of_the_cpu(monkeypatch):
    losses = []
    for device in ("cuda", "cpu"):
        monkeypatch.setattr(settings, "device", device)
        fitted = model(dropout=0.0)
        fitted.fit([make_section("A", seed=0), make_section("B", seed=1)])
        losses.append(fitted.history["train_loss"].to_numpy())
    np.testing.assert_allclose(*losses, rtol=1e-3)
