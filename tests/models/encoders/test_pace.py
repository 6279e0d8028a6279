from __future__ import annotations

import itertools

import pytest
from tissue import encoder, make_section

from sthisto import settings
from sthisto.models.encoders import pace
from sthisto.models.encoders.features import extract
from sthisto.models.encoders.pace import Pace


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the clock shows."""
    seconds = [0.0]
    monkeypatch.setattr(pace, "monotonic", lambda: seconds[0])
    return seconds


def test_long_encoding_is_told_once_with_the_time_that_is_left(clock, caplog):
    slow = Pace(100_000, "A")
    for n_done in (500, 1000, 1500):
        clock[0] += 50
        slow.at(n_done)
    (record,) = caplog.records
    assert "takes about 3 hours more" in record.message
    assert "10 spots per second" in record.message


@pytest.mark.parametrize(("seconds", "n_done"), [(19.0, 1), (50.0, 0), (50.0, 5000), (50.0, 100_000)])
def test_too_early_or_short_encoding_is_not_told(clock, caplog, seconds, n_done):
    fast = Pace(60_000, "A")
    clock[0] = seconds
    fast.at(n_done)
    assert not caplog.records


def test_encoding_a_section_tells_its_pace(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(settings, "cache_dir", tmp_path)
    ticks = itertools.count(0.0, 10_000.0)
    monkeypatch.setattr(pace, "monotonic", lambda: next(ticks))
    extract(make_section("A", side=17).inputs, encoder())
    assert "Encoding the 289 spots of section 'A' takes about 21 minutes more" in caplog.text
