"""Events of the bands: stored once, and known again after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.config import load_config
from edge.config_sources import SAMPLES
from edge.events import FILE, Events
from shared.alerts import bands_of
from shared.errors import ConfigError
from shared.records import Estimate

T_NS = 1_770_000_000_000_000_000


def said(rul: float | None, chance: float | None = 0.01, mono_ns: int = 1) -> list[Estimate]:
    return [
        Estimate(pack_id="P", seq=0, mono_ns=mono_ns, t_ns=T_NS + mono_ns, rul_cycles=rul, failure_probability=chance)
    ]


def test_a_band_is_told_until_it_is_stored_and_then_no_more(tmp_path: Path) -> None:
    events = Events(tmp_path, boot=1)
    assert events.look(said(800.0)) == []
    (raised,) = events.look(said(480.0))
    assert (raised.code, raised.severity, raised.value) == ("rul_band", "warning", 480.0)
    assert events.look(said(470.0)) == [raised]  # the outbox did not take it
    events.stored()
    assert events.look(said(470.0)) == []
    assert events.severity("P", "rul_band") == "warning"


def test_both_bands_and_no_answer(tmp_path: Path) -> None:
    events = Events(tmp_path, boot=1)
    assert {event.code for event in events.look(said(90.0, 0.7))} == {"rul_band", "failure_probability_band"}
    events.stored()
    assert events.look(said(None, None)) == []
    assert {event.cleared_t_ns for event in events.look(said(900.0, 0.1, 5))} == {T_NS + 5}


def test_after_a_restart_what_stands_is_known_and_what_was_not_stored_comes_again(tmp_path: Path) -> None:
    events = Events(tmp_path, boot=1)
    (raised,) = events.look(said(480.0))
    again = Events(tmp_path, boot=2)  # killed before `stored`
    assert again.look([]) == [raised]
    again.stored()
    third = Events(tmp_path, boot=3)
    assert third.look(said(470.0)) == []
    (cleared,) = third.look(said(900.0, mono_ns=9))
    assert (cleared.id, cleared.cleared_t_ns) == (raised.id, T_NS + 9)


def test_a_torn_file_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"standing": {')
    assert Events(tmp_path, boot=1).look(said(800.0)) == []
    (tmp_path / FILE).write_text('{"standing": {"P/rul_band": 1}, "untold": []}')
    assert Events(tmp_path, boot=1).look(said(480.0))


def test_a_full_disk_costs_only_the_memory_of_it(tmp_path: Path) -> None:
    events = Events(tmp_path / "none", boot=1)
    assert len(events.look(said(480.0))) == 1
    events.stored()
    assert events.look(said(470.0)) == []


def test_the_bands_are_those_of_the_settings(tmp_path: Path) -> None:
    mapping = SAMPLES / "mapping.toml"
    config = tmp_path / "edge.toml"
    config.write_text(f'device = "d"\n[[source]]\npack_id = "P"\nchannel = "x"\nmapping = "{mapping}"\n')
    told = {"BAND_RUL_WARNING": "900", "BAND_FAILURE_WARNING": "5"}
    events = Events(tmp_path, 1, bands_of(load_config(config, told).bands))
    raised = events.look(said(880.0, chance=0.06))
    assert [(event.code, event.threshold) for event in raised] == [
        ("rul_band", 900.0),
        ("failure_probability_band", 0.05),
    ]
    with pytest.raises(ConfigError, match="BAND_RUL_WARNING=50 is worse than BAND_RUL_CRITICAL=100"):
        load_config(config, {"BAND_RUL_WARNING": "50"})
    with pytest.raises(ConfigError, match="BAND_RUL_WARNING='many' is not a number"):
        load_config(config, {"BAND_RUL_WARNING": "many"})
