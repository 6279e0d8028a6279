import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sthisto._utils.logging import configure, logger
from sthisto._utils.settings import Settings


def test_home_is_expanded_in_the_cache_folder(monkeypatch):
    monkeypatch.setenv("STHISTO_CACHE", "~/features")
    assert Settings().cache_dir == Path.home() / "features"
    assert Settings(cache_dir="~/other").cache_dir == Path.home() / "other"


def test_user_without_a_home_has_a_cache_folder(monkeypatch):
    def no_home(path):
        if str(path).startswith("~"):
            msg = "Could not determine home directory."
            raise RuntimeError(msg)
        return path

    monkeypatch.delenv("STHISTO_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", no_home)
    assert Settings().cache_dir.is_absolute()
    assert "~" not in str(Settings().cache_dir)


@pytest.fixture
def bare_logging(monkeypatch):
    """Takes pytest's own handlers off the root logger; what a test configures is undone."""
    yield lambda: monkeypatch.setattr(logging.getLogger(), "handlers", [])
    configure(None, None)


def test_verbosity_shows_messages_and_none_leaves_them_to_the_caller(bare_logging, capsys):
    bare_logging()
    chosen = Settings()
    assert not logger.handlers
    chosen.verbosity = "info"
    logger.info("seen")
    chosen.verbosity = "error"
    logger.warning("unseen")
    assert capsys.readouterr().err == "seen\n"
    chosen.verbosity = None
    assert (logger.handlers, logger.level) == ([], logging.NOTSET)


def test_messages_are_not_shown_twice_where_the_caller_shows_them(bare_logging, capsys):
    bare_logging()
    logging.getLogger().addHandler(logging.StreamHandler())
    Settings().verbosity = "info"
    logger.info("once")
    assert capsys.readouterr().err == "once\n"


def test_a_log_file_keeps_what_is_not_shown(bare_logging, tmp_path, capsys):
    bare_logging()
    chosen = Settings(verbosity="error", log_file=tmp_path / "run" / "log.txt")
    logger.info("kept")
    chosen.log_file = None
    logger.error("shown")
    assert "INFO kept" in (tmp_path / "run" / "log.txt").read_text()
    assert "shown" not in (tmp_path / "run" / "log.txt").read_text()
    assert capsys.readouterr().err == "shown\n"


@pytest.mark.parametrize("wrong", ["loud", 3, "INFO"])
def test_an_unknown_verbosity_is_refused(wrong):
    with pytest.raises(ValueError, match=r"settings.verbosity must be one of 'error', 'warning', 'info', 'debug'"):
        Settings().verbosity = wrong


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """No HOME, no entry of the user, and a folder of temporary files."""

    def no_home(path):
        if str(path).startswith("~"):
            msg = "Could not determine home directory."
            raise RuntimeError(msg)
        return path

    monkeypatch.setattr(Path, "expanduser", no_home)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


def test_a_folder_among_temporary_files_belongs_to_the_user_alone(homeless):
    own = homeless / f"sthisto-{os.getuid()}"
    assert Settings(cache_dir="~/features").cache_dir == own / "features"
    assert own.stat().st_mode & 0o777 == 0o700
    assert Settings(cache_dir="~").cache_dir == own


@pytest.mark.parametrize("trap", ["link", "file", "writable", "other"])
def test_what_somebody_else_has_put_there_is_not_used(homeless, monkeypatch, caplog, trap):
    own = homeless / f"sthisto-{os.getuid()}"
    if trap == "link":
        (homeless / "elsewhere").mkdir(mode=0o700)
        own.symlink_to(homeless / "elsewhere")
    elif trap == "file":
        own.touch(mode=0o600)
    else:
        own.mkdir(mode=0o700)
        own.chmod(0o777 if trap == "writable" else 0o700)
    if trap == "other":
        stranger = os.getuid() + 1
        monkeypatch.setattr(os, "getuid", lambda: stranger)
        own.rename(homeless / f"sthisto-{stranger}")
    folder = Settings(cache_dir="~").cache_dir
    assert folder.parent == homeless
    assert folder.name.startswith(f"sthisto-{os.getuid()}-")
    assert "can be written by somebody else" in caplog.text


def test_the_home_of_an_unknown_user_is_an_error(homeless):
    with pytest.raises(ValueError, match="There is no home folder '~nobody-at-all'"):
        Settings(cache_dir="~nobody-at-all/features")


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs another user")
def test_a_user_without_home_and_entry_has_a_cache_folder(tmp_path):
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o777)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to(tempfile.gettempdir()) and str(folder) != tempfile.gettempdir():
            folder.chmod(0o755)
    script = (
        "import os, pathlib, pwd, tempfile; from sthisto._utils.settings import Settings; "
        "os.setgid(54321); os.setuid(54321); print(Settings().cache_dir)"
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    env = {"TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": path, "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == str(tmp_path / "tmp" / "sthisto-54321" / ".cache" / "sthisto")
