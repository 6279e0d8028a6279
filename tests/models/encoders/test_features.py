from __future__ import annotations

import logging
import multiprocessing
import os
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import torch
from tissue import encoder, make_section

from sthisto import settings
from sthisto._images.patches import PatchSource
from sthisto._images.pyramid import Level
from sthisto._utils.atomic import staging_name
from sthisto.models import Encoder, SectionInput, clear_cache
from sthisto.models.encoders import cache
from sthisto.models.encoders.features import extract


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "cache_dir", tmp_path)


class Counting(torch.nn.Module):
    """Says how many patches it encoded."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(weight))
        self.n_patches = 0

    def forward(self, pixels):
        self.n_patches += len(pixels)
        return pixels.mean((2, 3)) * self.weight


def section(seed: int = 0):
    return make_section("A", seed=seed).inputs


def files() -> list[Path]:
    return sorted(settings.cache_dir.rglob("*.features"))


def n_encoded(module: Counting, inputs=None) -> int:
    before = module.n_patches
    extract(inputs or section(), Encoder(module, name="counting"))
    return module.n_patches - before


def test_features_are_computed_once():
    module = Counting()
    first = extract(section(), Encoder(module, name="counting"))
    assert n_encoded(module) == 0
    again = extract(section(), Encoder(module, name="counting"))
    assert np.array_equal(first.values, again.values)
    assert np.array_equal(first.fingerprint, again.fingerprint)


def test_other_weights_normalization_size_or_pixels_are_other_features():
    n_spots = len(section())
    for module, arguments, inputs in (
        (Counting(), {}, section()),
        (Counting(2.0), {}, section()),
        (Counting(), {"mean": (0.5, 0.5, 0.5)}, section()),
        (Counting(), {"input_size": 8}, section()),
        (Counting(), {}, section(seed=1)),
    ):
        extract(inputs, Encoder(module, name="counting", **arguments))
        assert module.n_patches == n_spots


def test_other_precision_is_other_features(monkeypatch):
    any_encoder = Encoder(Counting(1.1), name="counting")
    exact = extract(section(), any_encoder).values
    monkeypatch.setattr(settings, "precision", "bf16")
    rough = extract(section(), any_encoder).values
    assert not np.array_equal(rough, exact)
    np.testing.assert_allclose(rough, exact, rtol=0.1, atol=0.05)
    monkeypatch.setattr(settings, "precision", "32")
    assert np.array_equal(extract(section(), any_encoder).values, exact)


def test_precision_that_there_is_not_is_an_error():
    with pytest.raises(ValueError, match="'32' or 'bf16'"):
        settings.precision = "fp8"


def test_patches_of_one_color_are_told_apart():
    blank, no_fingerprint = np.zeros((2, 8, 8, 3), np.uint8), np.zeros(2, np.uint64)
    assert cache.batch_key(blank, no_fingerprint) != cache.batch_key(blank + 1, no_fingerprint)
    assert cache.batch_key(blank, no_fingerprint) != cache.batch_key(blank[:, :4, :4], no_fingerprint)


@pytest.mark.parametrize("damage", [lambda content: content[:-9], lambda content: b"", lambda content: b"x" + content])
def test_damaged_features_are_computed_again_and_that_is_said(damage, caplog):
    module = Counting()
    expected = extract(section(), Encoder(module, name="counting")).values
    (file,) = files()
    file.write_bytes(damage(file.read_bytes()))
    with caplog.at_level(logging.WARNING, "sthisto"):
        assert n_encoded(module) == len(section())
    assert "damaged: they are computed again" in caplog.text
    assert n_encoded(module) == 0
    assert np.array_equal(extract(section(), Encoder(module, name="counting")).values, expected)


def test_cache_stays_within_its_size_and_loses_what_was_not_used_for_longest(monkeypatch):
    one = np.zeros((1, 1000), np.float32)
    cache.write("encoder", "probe", one)
    (file,) = files()
    os.utime(file, (0, 0))
    monkeypatch.setattr(settings, "cache_size", 3.5 * file.stat().st_size / 2**30)
    for age, key in enumerate(("a", "b", "c")):
        cache.write("encoder", key, one)
        os.utime(file.with_name(f"{key}.features"), (1e9 + age, 1e9 + age))
    assert cache.read("encoder", "a") is not None  # used now
    cache.write("encoder", "d", one)
    assert {file.stem for file in files()} == {"a", "c", "d"}


def test_clearing_the_cache_leaves_nothing():
    module = Counting()
    n_encoded(module)
    (files()[0].parent / "left-by-a-killed-process.tmp").touch()
    clear_cache()
    assert not [file for file in settings.cache_dir.rglob("*") if file.is_file()]
    assert n_encoded(module) == len(section())


def test_nothing_is_kept_where_the_user_does_not_want_it(monkeypatch):
    monkeypatch.setattr(settings, "cache_features", False)
    module = Counting()
    assert n_encoded(module) == n_encoded(module) == len(section())
    assert not files()


def test_a_disk_that_refuses_is_said_and_does_not_stop_the_work(monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(settings, "cache_dir", tmp_path / "file")
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING, "sthisto"):
        assert n_encoded(Counting()) == len(section())
    assert "could not be kept" in caplog.text


def test_no_spot_gives_no_row():
    inputs = section()
    empty = type(inputs)("A", [inputs.patches[0].subset(np.arange(0))], inputs.positions[:0])
    assert extract(empty, encoder()).values.shape == (0, 24)


def keep_and_read(folder: Path, started, problems) -> None:
    settings.cache_dir = folder
    started.wait(60)
    for turn in range(60):
        expected = np.full((50, 40), turn, np.float32)
        cache.write("encoder", f"{turn}", expected)
        found = cache.read("encoder", f"{turn}")
        if found is None or not np.array_equal(found, expected):
            problems.put(turn)


def test_two_processes_may_keep_the_same_features_at_once(tmp_path):
    context = multiprocessing.get_context("fork" if os.name == "posix" else "spawn")
    started, problems = context.Barrier(2), context.Queue()
    both = [context.Process(target=keep_and_read, args=(tmp_path, started, problems)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    assert problems.empty()
    assert len(files()) == 60
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_cache_that_cannot_be_written_is_warned_of_once(monkeypatch, caplog, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(settings, "cache_dir", tmp_path / "file")
    for key in "abc":
        cache.write("encoder", key, np.zeros((1, 2), np.float32))
        assert cache.read("encoder", key) is None
    assert caplog.text.count("could not be kept") == 1


def test_a_folder_named_like_a_file_is_gone_around(caplog):
    module = Counting()
    expected = extract(section(), Encoder(module, name="counting")).values
    (file,) = files()
    file.unlink()
    file.mkdir()
    for _ in range(2):
        assert np.array_equal(extract(section(), Encoder(module, name="counting")).values, expected)
    assert caplog.text.count("cannot be read") == caplog.text.count("could not be kept") == 1
    clear_cache()
    assert file.is_dir()


def test_files_of_another_user_are_read_and_left(monkeypatch, caplog):
    one = np.ones((1, 1000), np.float32)
    cache.write("encoder", "theirs", one)

    def denied(*args, **kwargs):
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(os, "utime", denied)
        patch.setattr(Path, "unlink", denied)
        assert np.array_equal(cache.read("encoder", "theirs"), one)
        patch.setattr(settings, "cache_size", 1e-9)
        cache._shrink(1.0)
        clear_cache()
        patch.setattr(Path, "read_bytes", denied)
        assert cache.read("encoder", "theirs") is None
    assert caplog.text.count("cannot be deleted") == caplog.text.count("cannot be read") == 1
    assert len(files()) == 1


@pytest.mark.skipif(os.name != "posix", reason="rights of files")
@pytest.mark.parametrize(
    ("folder", "file", "inner"), [(0o2770, 0o660, 0o2770), (0o755, 0o644, 0o755), (0o700, 0o600, 0o700)]
)
def test_files_may_be_read_by_whom_the_folder_may(tmp_path, monkeypatch, folder, file, inner):
    monkeypatch.setattr(settings, "cache_dir", tmp_path / "shared")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(folder)
    before = os.umask(0o077)
    try:
        cache.write("encoder", "a", np.zeros((1, 2), np.float32))
    finally:
        os.umask(before)
    (written,) = files()
    assert written.stat().st_mode & 0o7777 == file
    assert written.parent.stat().st_mode & 0o7777 == inner


def test_a_link_named_like_a_file_is_replaced_and_not_followed(tmp_path):
    one = np.ones((1, 2), np.float32)
    cache.write("encoder", "a", one)
    (file,) = files()
    (tmp_path / "thesis").write_text("mine")
    file.unlink()
    file.symlink_to(tmp_path / "thesis")
    cache.write("encoder", "a", one)
    assert (tmp_path / "thesis").read_text() == "mine"
    assert np.array_equal(cache.read("encoder", "a"), one)


def test_what_killed_writers_left_is_counted_and_removed(monkeypatch, caplog):
    one = np.zeros((1, 1000), np.float32)
    cache.write("encoder", "a", one)
    (file,) = files()
    killed, theirs, old = (
        file.with_name(name)
        for name in (staging_name(Path("b.features")), ".c.00000000-1-00000000.part.features", "tmpxyz.tmp")
    )
    for left in (killed, theirs, old):
        left.write_bytes(bytes(5000))
    os.utime(old, (0, 0))
    with caplog.at_level(logging.INFO, "sthisto"):
        assert cache._shrink(1e9) == file.stat().st_size + 5000
    assert {entry.name for entry in file.parent.iterdir()} == {file.name, theirs.name}
    assert "2 files that killed processes left" in caplog.text


def test_files_are_not_looked_at_on_every_write(monkeypatch):
    looks, look = [], cache._look
    monkeypatch.setattr(cache, "_look", lambda: (looks.append(1), look())[1])
    for turn in range(50):
        cache.write("encoder", f"{turn}", np.zeros((1, 2), np.float32))
    assert len(looks) == 1


def test_a_file_that_holds_something_else_under_its_digest_is_damaged(caplog):
    cache.write("encoder", "a", np.zeros((1, 2), np.float32))
    (file,) = files()
    for content in (b"", b"no array", b"\x93NUMPY\x01\x00"):
        file.write_bytes(cache._digest(content) + content)
        assert cache.read("encoder", "a") is None
    assert caplog.text.count("are damaged") == 3


def test_features_of_an_image_in_memory_are_found_without_cutting_a_patch(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)

    def lazy(pixels: np.ndarray) -> SectionInput:
        centers = np.array([[20.0, 20.0], [40.0, 30.0]])
        level = Level(da.from_array(pixels, chunks=(3, 32, 32)), np.eye(3))
        return SectionInput("A", [PatchSource(level, centers, extent=16, size=16)], centers)

    module = Counting()
    first = extract(lazy(pixels), Encoder(module, name="counting"))
    pixels[:, 60:] = 0  # where no patch lies
    assert n_encoded(module, lazy(pixels)) == 0
    monkeypatch.setattr(PatchSource, "batches", None)
    again = extract(lazy(pixels), Encoder(module, name="counting"))
    assert np.array_equal(first.values, again.values)
    assert np.array_equal(first.fingerprint, again.fingerprint)
    with pytest.raises(TypeError):
        extract(lazy(pixels[:, ::-1]), Encoder(module, name="counting"))
