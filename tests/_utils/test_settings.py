import logging
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
