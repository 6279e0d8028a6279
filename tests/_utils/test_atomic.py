"""Files and folders that are written beside their place and moved there."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sthisto._utils import atomic
from sthisto._utils.atomic import atomic_file, atomic_folder, recover, remove_leftovers, staging_name

STUCK = """
import sys, time
from pathlib import Path
from sthisto._utils.atomic import atomic_file, atomic_folder
kind, path = sys.argv[1], Path(sys.argv[2])
with (atomic_file(path) if kind == "file" else atomic_folder(path, overwrite=True)) as staged:
    (staged if kind == "file" else staged / "part").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def killed_writer(kind, path):
    process = subprocess.Popen([sys.executable, "-c", STUCK, kind, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def write(path, text):
    with atomic_folder(path, overwrite=True) as folder:
        (folder / "content").write_text(text)


def test_file_is_replaced_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "table.csv"
    for text in ("first", "second"):
        with atomic_file(path) as staged:
            staged.write_text(text)
            assert staged.suffix == ".csv"
            assert path.read_text() == "first" if text == "second" else not path.exists()
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_failed_block_leaves_the_former_file(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("former")

    def interrupted():
        with atomic_file(path) as staged:
            staged.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]


def test_file_keeps_the_rights_that_the_folder_gives(tmp_path):
    (tmp_path / "plain").write_text("x")
    with atomic_file(tmp_path / "atomic") as staged:
        staged.write_text("x")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "target").write_text("former")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with atomic_file(tmp_path / "link") as staged:
        staged.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path, kind):
    path = tmp_path / "out.csv"
    killed_writer(kind, path)
    assert not path.exists()
    assert len(list(tmp_path.iterdir())) == 1
    if kind == "file":
        with atomic_file(path) as staged:
            staged.write_text("whole")
    else:
        write(path, "whole")
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_running_writer_stages_is_left_alone(tmp_path):
    path = tmp_path / "out.csv"
    process = subprocess.Popen([sys.executable, "-c", STUCK, "file", str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    assert remove_leftovers(path) == 0
    assert len(list(tmp_path.iterdir())) == 1
    process.kill()
    process.wait()
    process.stdout.close()
    assert remove_leftovers(path) == 1


def test_what_another_machine_staged_is_removed_after_a_day(tmp_path):
    path = tmp_path / "out.csv"
    other = tmp_path / ".out.csv.00000000-1-00000000.part.csv"
    other.write_text("half")
    assert remove_leftovers(path) == 0
    long_ago = time.time() - 2 * 24 * 3600
    os.utime(other, (long_ago, long_ago))
    assert remove_leftovers(path) == 1


def test_hidden_files_of_others_are_left_alone(tmp_path):
    for name in (".out.csv.swp", ".out.csv", ".out.csv.part", "out.csv.part", ".out.csv.notes.part"):
        (tmp_path / name).write_text("mine")
    assert remove_leftovers(tmp_path / "out.csv") == 0
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("can_exchange", [True, False])
def test_folder_is_replaced(tmp_path, monkeypatch, can_exchange):
    if not can_exchange:
        monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)
    for text in ("first", "second"):
        write(tmp_path / "model", text)
        assert (tmp_path / "model" / "content").read_text() == text
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]
    with pytest.raises(FileExistsError, match="overwrite=True"), atomic_folder(tmp_path / "model", overwrite=False):
        pass
    assert (tmp_path / "model" / "content").read_text() == "second"


def test_folder_that_was_moved_aside_by_a_killed_process_is_put_back(tmp_path):
    path = tmp_path / "model"
    write(path, "former")
    path.rename(tmp_path / staging_name(path, "aside"))
    recover(path)
    assert (path / "content").read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("can_exchange", [True, False])
def test_of_several_writers_of_one_folder_the_last_one_wins(tmp_path, monkeypatch, can_exchange):
    if not can_exchange:
        monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)
    errors, path = [], tmp_path / "model"

    def work(number):
        try:
            for i in range(20):
                write(path, f"{number} {i}")
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert (path / "content").read_text().endswith("19")
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_running_process_has_moved_aside_is_left_to_it(tmp_path, monkeypatch):
    path = tmp_path / "model"
    with atomic._staged(path, "aside") as aside:
        aside.mkdir()
        recover(path)
        assert not path.exists()
    killed = tmp_path / staging_name(path, "aside")
    killed.mkdir()
    monkeypatch.setattr(atomic, "_changed", lambda entry: 0.0)
    recover(path)
    assert path.exists()


def test_names_that_are_long_or_have_signs_of_glob(tmp_path):
    for name in ("a" * 250, "[x]*?", "é" * 100):
        write(tmp_path / name, "whole")
        killed = tmp_path / staging_name(tmp_path / name)
        killed.mkdir()
        write(tmp_path / name, "again")
        assert (tmp_path / name / "content").read_text() == "again"
        assert not killed.exists()


def test_staged_files_are_synced_before_they_are_moved(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append("sync"), fsync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda self, target: (done.append("move"), replace(self, target))[1])
    with atomic_file(tmp_path / "a") as staged:
        staged.write_text("x")
    assert done == ["sync", "move", "sync"]


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder"), atomic_file(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
