from pathlib import Path

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
