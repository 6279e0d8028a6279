"""A fit that dies goes on where it stood, with the same bits."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tissue import PATCH, Pool, make_tissue

import sthisto as sth
from sthisto.models.training import checkpoint as kept
from sthisto.models.training import loop

SMALL = {"patch_size": PATCH, "max_epochs": 4, "image_encoder": Pool()}
RETRIEVAL = SMALL | {"k": 5, "batch_size": 16, "embedding_dim": 8}
METHODS = {
    "danet": RETRIEVAL | {"bottleneck": 4},
    "bleep": RETRIEVAL,
    "stnet": SMALL | {"batch_size": 16, "symmetries": False},
    "histogene": SMALL | {"width": 8, "n_blocks": 1, "n_heads": 2},
    "ridge": {"patch_size": PATCH, "image_encoder": Pool()},
}


@pytest.fixture
def tissue():
    return make_tissue()


def learned(model):
    return model.state() | {f"bank.{name}": value for name, value in model.bank_state().items()}


def same(first, second):
    a, b = learned(first), learned(second)
    is_same = a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    return is_same and first.history.equals(second.history)


def interrupt(monkeypatch, *, in_call):
    """Press Ctrl-C in an epoch, counted over all networks of a fit."""
    calls, epoch = iter(range(1000)), loop._epoch

    def interrupted(*args):
        if next(calls) == in_call:
            raise KeyboardInterrupt
        return epoch(*args)

    monkeypatch.setattr(loop, "_epoch", interrupted)


def interrupted_fit(tissue, monkeypatch, folder, in_call, **arguments):
    with monkeypatch.context() as patch:
        interrupt(patch, in_call=in_call)
        with pytest.raises(KeyboardInterrupt):
            sth.tl.fit(tissue, checkpoint=folder, **arguments)


@pytest.mark.parametrize("method", ["danet", "bleep", "stnet", "histogene"])
@pytest.mark.parametrize("in_call", [0, 2])
def test_the_same_call_goes_on_with_the_same_bits(tissue, monkeypatch, tmp_path, caplog, method, in_call):
    arguments = METHODS[method] | {"method": method}
    whole = sth.tl.fit(tissue, **arguments)
    interrupted_fit(tissue, monkeypatch, tmp_path / "kept", in_call, **arguments)
    assert "the same call goes on" in caplog.text
    caplog.clear()
    assert same(sth.tl.fit(tissue, checkpoint=tmp_path / "kept", **arguments), whole)
    assert ("going on from epoch 2" in caplog.text) == (in_call == 2)


def test_an_ensemble_does_not_train_its_finished_members_again(tissue, monkeypatch, tmp_path):
    arguments = METHODS["danet"] | {"n_models": 2}
    whole = sth.tl.fit(tissue, **arguments)
    interrupted_fit(tissue, monkeypatch, tmp_path / "kept", 6, **arguments)
    trained, epoch = [], loop._epoch
    monkeypatch.setattr(loop, "_epoch", lambda *args: (trained.append(1), epoch(*args))[1])
    assert same(sth.tl.fit(tissue, checkpoint=tmp_path / "kept", **arguments), whole)
    assert len(trained) == 2


def test_a_fit_interrupted_while_its_bank_is_filled_trains_no_epoch_again(tissue, monkeypatch, tmp_path):
    arguments = METHODS["danet"]
    whole = sth.tl.fit(tissue, **arguments)
    with monkeypatch.context() as patch:
        patch.setattr(sth.models.DANet, "embed_genes", _ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            sth.tl.fit(tissue, checkpoint=tmp_path / "kept", **arguments)
    monkeypatch.setattr(loop, "_epoch", _ctrl_c)
    assert same(sth.tl.fit(tissue, checkpoint=tmp_path / "kept", **arguments), whole)


def _ctrl_c(*args):
    raise KeyboardInterrupt


def test_without_a_checkpoint_an_interrupt_says_that_nothing_is_kept(tissue, monkeypatch, caplog):
    interrupt(monkeypatch, in_call=2)
    with pytest.raises(KeyboardInterrupt):
        sth.tl.fit(tissue, **METHODS["danet"])
    assert "nothing of it is kept. Pass checkpoint=" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)])
def test_a_signal_that_ends_the_process_interrupts_the_fit(tissue, monkeypatch, tmp_path, caplog, number):
    epoch, before = loop._epoch, signal.signal(number, signal.SIG_DFL)  # nohup has SIGHUP ignored

    def signaled(*args):
        os.kill(os.getpid(), number)
        return epoch(*args)

    monkeypatch.setattr(loop, "_epoch", signaled)
    try:
        with pytest.raises(KeyboardInterrupt):
            sth.tl.fit(tissue, checkpoint=tmp_path / "kept", **METHODS["danet"])
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert signal.Signals(number).name in caplog.text


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, r"seed \(0 there, 1 here\)"),
        ({"k": 6}, r"options k \(5 there, 6 here\)"),
        ({"method": "bleep", "bottleneck": None}, "method"),
        ({"genes": ["G0", "G1"]}, "genes"),
        ({"target": "pearson_residuals"}, "normalization target"),
    ],
)
def test_a_checkpoint_of_another_fit_is_refused(tissue, monkeypatch, tmp_path, change, named):
    arguments = METHODS["danet"]
    interrupted_fit(tissue, monkeypatch, tmp_path / "kept", 2, **arguments)
    other = {name: value for name, value in (arguments | change).items() if value is not None}
    if "genes" in other:
        other["genes"] = list(tissue["counts"].var_names[:2])
    with pytest.raises(ValueError, match=f"holds another fit, which differs in .*{named}.*Delete the folder"):
        sth.tl.fit(tissue, checkpoint=tmp_path / "kept", **other)


def test_a_checkpoint_of_other_counts_is_refused(tissue, monkeypatch, tmp_path):
    interrupted_fit(tissue, monkeypatch, tmp_path / "kept", 2, **METHODS["danet"])
    tissue["counts"].X = tissue["counts"].X.toarray() + np.eye(*tissue["counts"].shape, dtype=np.float32)
    with pytest.raises(ValueError, match="expression and spots"):
        sth.tl.fit(tissue, checkpoint=tmp_path / "kept", **METHODS["danet"])


def test_a_checkpoint_of_other_pixels_is_refused(tissue, monkeypatch, tmp_path):
    interrupted_fit(tissue, monkeypatch, tmp_path / "kept", 2, **METHODS["danet"])
    for name in list(tissue.images):
        element = tissue.images[name]
        tissue.images[name] = element.copy(data=255 - element.data) if hasattr(element, "data") else element
    with pytest.raises(ValueError, match=r"of another fit: its .*training data.* differ"):
        sth.tl.fit(tissue, checkpoint=tmp_path / "kept", **METHODS["danet"])


def test_a_damaged_network_is_trained_from_the_start(tissue, monkeypatch, tmp_path, caplog):
    whole = sth.tl.fit(tissue, **METHODS["danet"])
    interrupted_fit(tissue, monkeypatch, tmp_path / "kept", 2, **METHODS["danet"])
    file = tmp_path / "kept" / "network-1.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    assert same(sth.tl.fit(tissue, checkpoint=tmp_path / "kept", **METHODS["danet"]), whole)
    assert "is damaged" in caplog.text


def test_folders_that_are_no_checkpoint_are_left_alone(tissue, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"no checkpoint: it holds .thesis\.txt"):
        sth.tl.fit(tissue, checkpoint=tmp_path, method="mean")
    with pytest.raises(FileExistsError, match="is a file"):
        sth.tl.fit(tissue, checkpoint=tmp_path / "thesis.txt", method="mean")
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_an_unwritable_folder_is_found_before_anything_is_trained(tissue, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sth.models.Mean, "fit", _ctrl_c)
    with pytest.raises(OSError, match=r"checkpoint=.* cannot be written"):
        sth.tl.fit(tissue, checkpoint=tmp_path / "file" / "kept", method="mean")


def test_a_checkpoint_that_cannot_be_written_later_does_not_stop_the_fit(tissue, monkeypatch, tmp_path, caplog):
    whole, replace = sth.tl.fit(tissue, **METHODS["danet"]), kept._replace

    def full(path, content):
        if path.suffix == ".safetensors":
            raise OSError(28, "No space left on device")
        replace(path, content)

    monkeypatch.setattr(kept, "_replace", full)
    assert same(sth.tl.fit(tissue, checkpoint=tmp_path / "kept", **METHODS["danet"]), whole)
    assert caplog.text.count("could not be written") == 1


def test_a_checkpoint_is_removed_without_other_files(tissue, tmp_path):
    sth.tl.fit(tissue, checkpoint=tmp_path / "kept", **METHODS["danet"])
    (tmp_path / "kept" / "notes.txt").write_text("mine")
    kept.remove_checkpoint(tmp_path / "kept")
    assert [entry.name for entry in (tmp_path / "kept").iterdir()] == ["notes.txt"]


LONG = {"patch_size": PATCH, "k": 5, "batch_size": 4, "max_epochs": 20, "patience": 20} | {
    "embedding_dim": 8, "bottleneck": 4
}  # fmt: skip
SCRIPT = """
import sys, time
sys.path.insert(0, {tests!r})
import sthisto as sth
from sthisto.models.training import loop
from tissue import Pool, make_tissue
epoch = loop._epoch
loop._epoch = lambda *arguments: (time.sleep(0.05), epoch(*arguments))[1]  # so that it is killed long before its end
sth.settings.progress = False
sth.settings.cache_features = False
sth.tl.fit(make_tissue(), checkpoint=sys.argv[1], image_encoder=Pool(), **{arguments!r})
"""


def kill_a_fit(folder: Path, after: int):
    """Fit in a process of its own, and kill it once that many epochs are kept."""
    script = SCRIPT.format(tests=str(Path(__file__).parents[1]), arguments=LONG)
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", script, str(folder)], stderr=subprocess.PIPE)
    file = kept.TrainingFile(folder / "network-1.safetensors")
    while process.poll() is None:
        found = file.read()
        if found is not None and len(found[1]["rows"]) >= after:
            process.kill()
        time.sleep(0.002)
    _, error = process.communicate()
    assert process.returncode == -signal.SIGKILL, error.decode()


def test_a_killed_fit_ends_with_the_bits_of_an_undisturbed_one(tissue, monkeypatch, tmp_path, caplog):
    arguments = LONG | {"image_encoder": Pool()}
    whole = sth.tl.fit(tissue, **arguments)
    assert len(whole.history) == 20
    kill_a_fit(tmp_path / "kept", after=3)
    assert json.loads((tmp_path / "kept" / kept.ABOUT).read_text())["seed"] == 0
    interrupted_fit(tissue, monkeypatch, tmp_path / "kept", 2, **arguments)
    assert re.search(r"going on from epoch ([3-9]|1\d)", caplog.text)
    caplog.clear()
    assert same(sth.tl.fit(tissue, checkpoint=tmp_path / "kept", **arguments), whole)
    assert re.search(r"going on from epoch ([5-9]|1\d|20)", caplog.text)
