"""The flight recorder: bounded, never in the reader's way, and what it keeps gives the agent's own Samples again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from fakes.flight import OFFSET_NS, Flight, S, cells, pack
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.capture.exported import state_beside
from edge.capture.store import Meta
from edge.config import RecorderConfig
from edge.sources.source import SourceError
from firmware_bridge.frames import EXTENDED, FrameBatch
from shared.errors import ConfigError, PacktwinError

SHORT = RecorderConfig(before_s=6, after_s=3)
MIB = 1 << 20


@pytest.fixture
def flight(tmp_path: Path) -> Flight:
    return Flight(tmp_path, SHORT)


def test_the_window_around_an_alarm_is_kept_and_replayed_it_gives_the_samples_of_the_agent(flight: Flight) -> None:
    flight.drive(20)
    at_ns = flight.mono_ns
    flight.drive(2, alarm=1)
    flight.drive(6)
    (meta,) = flight.kept()
    assert (meta.pack_id, meta.cause, meta.note) == ("P-1", "mos_over_temp", None)
    assert meta.begin_t_ns is not None and meta.end_t_ns is not None
    begin_s, end_s = ((t - OFFSET_NS - at_ns) / S for t in (meta.begin_t_ns, meta.end_t_ns))
    assert -7.5 < begin_s <= -5 and 3.99 < end_s < 5  # the Sample that shows it comes 1 s after its first frame
    replayed = flight.replayed(meta)
    assert replayed == flight.given_within(replayed) and len(replayed) == meta.samples >= 9
    assert replayed[0]["cell_v"] == [3.8, 3.78, 3.8, 3.79]
    assert [one["alarms"] for one in replayed].count(["mos_over_temp"]) == 2


def test_cells_that_were_half_seen_when_the_window_begins_are_half_seen_in_the_replay(flight: Flight) -> None:
    """Absent until the other half is seen, or has been away for longer than its limit: that depends on earlier time."""
    flight.drive(12, cells_known=False)
    flight.tick(cells(flight.mono_ns, 1, 3.5, 3.6))
    flight.drive(2, cells_known=False)
    flight.recorder.trigger(None, "half")
    flight.drive(5)
    (meta,) = flight.kept()
    replayed = flight.replayed(meta)
    assert replayed == flight.given_within(replayed)
    assert replayed[0]["cell_v"] in ([3.8, 3.74, None, None], [None] * 4)
    assert replayed[0]["quality"]["cell_v[3]"] == "absent" and replayed[-1]["cell_v"][3] is not None


def test_two_windows_one_after_the_other_are_two_captures_and_both_are_exact(flight: Flight) -> None:
    flight.drive(3, cells_known=False)
    flight.recorder.trigger("P-1", "early")
    flight.drive(20)
    flight.drive(1, alarm=2)
    flight.drive(8)
    early, late = flight.kept()
    assert (early.cause, early.note, late.cause) == ("trigger", "early", "insulation:warning")
    for meta in (early, late):
        replayed = flight.replayed(meta)
        assert replayed and replayed == flight.given_within(replayed)
    assert flight.replayed(early)[0]["quality"]["cell_v[2]"] == "absent"


def test_a_sample_taken_before_the_time_was_known_is_dated_as_the_outbox_dates_it(flight: Flight) -> None:
    flight.tick(pack(flight.mono_ns))
    flight.measure(dated=False)
    flight.recorder.trigger(None, None)
    flight.drive(6)
    (meta,) = flight.kept()
    replayed = flight.replayed(meta)
    assert replayed[0]["t_ns"] == flight.given[0].mono_ns + OFFSET_NS
    assert replayed == flight.given_within(replayed)


def test_an_alarm_that_stands_asks_once_and_one_that_rises_meanwhile_makes_the_window_longer(flight: Flight) -> None:
    flight.drive(3, alarm=1)  # it stood when the agent began: nothing has risen
    assert flight.recorder.status()["waiting"] == []
    flight.drive(2, alarm=3)
    waiting = flight.recorder.status()["waiting"]
    flight.drive(1)
    flight.drive(1, alarm=3)
    assert flight.recorder.status()["waiting"] == waiting and len(waiting) == 1
    flight.drive(6, alarm=3)
    (meta,) = flight.kept()
    assert meta.id == waiting[0] and meta.cause == "insulation:warning mos_over_temp"
    flight.drive(9, alarm=3)
    assert len(flight.kept()) == 1


def test_all_that_rises_together_or_meanwhile_is_named_the_worst_first(flight: Flight) -> None:
    flight.drive(3)
    flight.drive(1, alarm=3)
    flight.recorder.trigger(None, "one")
    flight.recorder.trigger(None, "two")
    flight.drive(6, alarm=3)
    (meta,) = flight.kept()
    assert meta.cause == "mos_over_temp insulation:warning trigger" and meta.note == "one; two"


def test_alarms_that_never_rest_do_not_wear_the_flash_out(tmp_path: Path) -> None:
    flight = Flight(tmp_path, RecorderConfig(before_s=1, after_s=1, keep=100))
    flight.drive(1)
    for _ in range(40):
        flight.drive(1, alarm=1)
        flight.drive(3)
    status = flight.recorder.status()
    assert len(flight.kept()) == 12 and status["passed_over"] == 28
    assert flight.recorder.trigger(None, None)  # a person is always heard


def test_an_unreadable_alarm_has_not_gone(flight: Flight) -> None:
    flight.drive(2)
    flight.drive(2, alarm=1)
    flight.drive(6)
    assert len(flight.kept()) == 1
    flight.drive(1, alarm=1)
    flight.mono_ns += 10 * S
    flight.measure()  # stale: nobody knows
    flight.drive(1, alarm=1)
    flight.drive(9, alarm=1)
    assert len(flight.kept()) == 2


def test_the_ring_stays_within_its_bytes_whatever_comes_and_the_window_is_as_long_as_it_can_be(tmp_path: Path) -> None:
    flight = Flight(tmp_path, RecorderConfig(max_bytes=MIB, before_s=60, after_s=2))
    random = np.random.default_rng(4)
    for _ in range(600):
        flight.mono_ns += S // 10
        t_ns = np.full(500, flight.mono_ns)
        noise = random.integers(0, 255, (500, 8), np.uint8)  # no compression makes it small
        batch = FrameBatch("can0", t_ns, np.full(500, 0x700, np.uint32), np.full(500, 8, np.uint8), noise)
        assert flight.lane.track is not None
        flight.lane.track.frames(flight.mono_ns, batch)
        flight.recorder.step()
        on_tmpfs = sum(path.stat().st_size for path in (tmp_path / "hot").rglob("*.zst"))
        assert on_tmpfs <= MIB and flight.recorder.status()["bytes"] <= MIB
    assert flight.recorder.status()["dropped_segments"] == 0
    flight.recorder.trigger(None, None)
    flight.drive(3)
    (meta,) = flight.kept()
    assert meta.begin_t_ns is not None and meta.begin_t_ns > OFFSET_NS + flight.mono_ns - 40 * S
    assert meta.frames > 50_000


def test_without_tmpfs_the_ring_is_in_memory_and_nothing_touches_the_disk(tmp_path: Path) -> None:
    flight = Flight(tmp_path, SHORT, tmpfs=False)
    flight.drive(20)
    assert not list((tmp_path / "cold").rglob("*")) and not (tmp_path / "hot").exists()
    flight.recorder.trigger(None, None)
    flight.drive(4)
    (meta,) = flight.kept()
    replayed = flight.replayed(meta)
    assert replayed == flight.given_within(replayed)


def test_what_nobody_packs_is_dropped_counted_and_leaves_no_hole_within_a_window(tmp_path: Path) -> None:
    """The reader never waits: when the packing thread hangs, input is lost here, and a replay must not jump over it."""
    flight = Flight(tmp_path, RecorderConfig(max_bytes=MIB, before_s=6, after_s=1))
    flight.drive(3)
    assert flight.lane.track is not None
    for _ in range(600):
        flight.mono_ns += S // 100
        flight.lane.track.frames(flight.mono_ns, FrameBatch.of("", [(flight.mono_ns, 0x700, bytes(8))] * 100))
    assert flight.recorder.dropped > 0
    flight.drive(2)
    flight.recorder.trigger(None, None)
    flight.drive(3)
    (meta,) = flight.kept()
    replayed = flight.replayed(meta)
    assert replayed == flight.given_within(replayed)


def test_windows_that_are_not_over_are_kept_when_the_agent_ends(flight: Flight) -> None:
    flight.drive(8)
    flight.recorder.trigger(None, "before the end")
    flight.drive(1)
    flight.recorder.close()
    (meta,) = flight.kept()
    assert meta.note == "before the end" and meta.samples >= 6
    assert not (flight.folder / "hot" / "recorder").exists()


def last_us(flight: Flight, meta: Meta) -> int:
    """When the last frame of a capture came, on the agent's clock."""
    stamp = flight.exported(meta).read_text().splitlines()[-1].split()[0].strip("()")
    return int(stamp.replace(".", "")) - OFFSET_NS // 1000


@pytest.mark.parametrize("sampled", [True, False])
def test_a_window_is_kept_when_all_that_was_read_in_it_is_there(flight: Flight, sampled: bool) -> None:
    flight.drive(10)
    flight.recorder.trigger(None, None)
    flight.drive(2)
    for _ in range(10):  # to the end of the window, without a Sample
        flight.mono_ns += S // 10
        flight.tick(pack(flight.mono_ns))
    end_ns = flight.mono_ns
    for _ in range(5):
        flight.mono_ns += S // 10
        flight.recorder.step()
    assert not flight.kept()
    if sampled:
        flight.measure()
    for _ in range(15):
        flight.tick()
        flight.recorder.step()
        flight.mono_ns += S // 10
    (meta,) = flight.kept()
    assert last_us(flight, meta) == pytest.approx(end_ns // 1000, abs=2)


def test_what_was_read_last_is_kept_when_the_agent_ends(flight: Flight) -> None:
    flight.drive(8)
    flight.recorder.trigger(None, None)
    for _ in range(9):
        flight.mono_ns += S // 10
        flight.tick(pack(flight.mono_ns))
    flight.lane.close()
    flight.recorder.close()
    (meta,) = flight.kept()
    assert last_us(flight, meta) == pytest.approx(flight.mono_ns // 1000, abs=2)


def test_frames_are_taken_in_when_they_are_old_or_many_or_the_bus_goes(
    flight: Flight, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = flight.lane.intake
    flight.tick(pack(flight.mono_ns))
    for _ in range(11):
        flight.mono_ns += S // 10
        flight.tick()
    assert intake.frames == 0
    flight.mono_ns += S // 10
    flight.tick()
    assert intake.frames == 1
    flight.tick(*[pack(flight.mono_ns)] * 9_999)
    assert intake.frames == 1
    flight.tick(pack(flight.mono_ns))
    assert intake.frames == 10_001
    flight.tick(pack(flight.mono_ns))

    def gone(t_ns: int) -> FrameBatch:
        raise SourceError("can0 has gone")

    monkeypatch.setattr(flight.wire, "_received", gone)
    with pytest.raises(SourceError):
        flight.tick()
    assert intake.frames == 10_002


def test_a_pack_that_is_not_here_is_named(flight: Flight) -> None:
    with pytest.raises(ConfigError, match=r"no pack P-2: it has P-1"):
        flight.recorder.trigger("P-2", None)


def test_serial_chunks_lie_beside_the_log(flight: Flight) -> None:
    assert flight.lane.track is not None
    flight.drive(2)
    flight.lane.track.chunk(flight.mono_ns + 5, b"\xdd\x03", sent=True)
    flight.lane.track.chunk(flight.mono_ns + 6, b"\x00\x77", sent=False)
    flight.drive(2)
    flight.recorder.trigger(None, None)
    flight.drive(4)
    (meta,) = flight.kept()
    log = flight.exported(meta)
    lines = [json.loads(line) for line in log.with_name(f"{meta.id}.serial.jsonl").read_text().splitlines()]
    assert [(line["hex"], line["sent"]) for line in lines] == [("dd03", True), ("0077", False)]
    assert meta.chunks == 2 and lines[1]["t_ns"] - lines[1]["mono_ns"] == OFFSET_NS // 1000 * 1000
    replayed = flight.replayed(meta)
    assert replayed == flight.given_within(replayed)


def test_the_log_is_candump_in_us_and_one_that_was_cut_is_said_to_be(flight: Flight) -> None:
    flight.drive(10)
    flight.recorder.trigger(None, None)
    flight.drive(4)
    (meta,) = flight.kept()
    log = flight.exported(meta)
    lines = log.read_text().splitlines()
    assert len(lines) == meta.frames and lines[0].startswith("(17") and " can0 100#" in lines[0]
    assert len(lines[0].split()[0].partition(".")[2]) == len("123456)")
    state = state_beside(log)
    assert state is not None
    log.write_text("\n".join(lines[:-5]) + "\n")
    with pytest.raises(PacktwinError, match=rf"has {len(lines) - 5} frames, .* speaks of {len(lines)}"):
        flight.given_within(_samples(flight, log))
    log.write_text("\n".join([*lines, lines[-1]]) + "\n")
    with pytest.raises(PacktwinError, match="export the capture again"):
        _samples(flight, log)
    log.with_name(f"{meta.id}.state.json").write_text('{"format": 1}')
    with pytest.raises(ConfigError, match="not the state of a capture"):
        state_beside(log)


def _samples(flight: Flight, log: Path) -> list[dict[str, object]]:
    from fakes.flight import told

    from edge.capture.replay import capture_samples

    state = state_beside(log)
    assert state is not None
    return told(capture_samples(log, state, flight.mapping, "P-1"))


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("pack"), st.integers(0, 6500), st.integers(-300, 300), st.integers(0, 3), st.integers(0, 3)),
        st.tuples(st.just("cells"), st.integers(0, 2), st.integers(0, 6000), st.integers(0, 6000)),
        st.tuples(st.just("short"), st.integers(0, 4)),
        st.tuples(st.just("long"), st.sampled_from((12, 64))),
        st.tuples(st.just("wait"), st.integers(1, 6_000_000_000)),
        st.tuples(st.just("read")),
        st.tuples(st.just("sample"), st.booleans()),
        st.tuples(st.just("step")),
    ),
    max_size=120,
)


@settings(max_examples=60, deadline=None)
@given(before=EVENTS, after=EVENTS)
def test_whatever_was_said_and_whenever_a_replay_of_the_window_gives_the_same(
    before: list[tuple[object, ...]], after: list[tuple[object, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    flight = Flight(tmp_path_factory.mktemp("flight"), RecorderConfig(before_s=2, after_s=2, keep=100))
    for events in (before, after):
        for event in events:
            _happen(flight, event)
        flight.tick(*flight.wire.said)
        flight.recorder.trigger(None, None)
    flight.tick(pack(flight.mono_ns))
    flight.measure()
    flight.mono_ns += 3 * S
    flight.measure()
    flight.recorder.step()
    flight.recorder.close()
    kept = flight.kept()
    assert kept
    for meta in kept:
        replayed = flight.replayed(meta)
        assert not replayed or replayed == flight.given_within(replayed)
    assert flight.replayed(kept[-1])


def _happen(flight: Flight, event: tuple[object, ...]) -> None:
    match event:
        case ("pack", int(volts), int(amps), int(state), int(alarm)):
            flight.wire.said.append(pack(flight.mono_ns - 999, volts / 10, amps / 10, state, alarm=alarm))
        case ("cells", int(group), int(one), int(two)):
            flight.wire.said.append(cells(flight.mono_ns - 1, group, one / 1000, two / 1000))
        case ("short", int(length)):
            flight.wire.said.append((flight.mono_ns, 257, bytes(length)))
        case ("long", int(length)):
            flight.wire.said.append((flight.mono_ns, 0x1ABCDEF0 | EXTENDED, bytes(range(length))))
        case ("wait", int(ns)):
            flight.mono_ns += ns
        case ("read",):
            flight.tick()
        case ("sample", bool(dated)):
            flight.measure(dated=dated)
        case ("step",):
            flight.recorder.step()


def test_handing_over_a_read_costs_the_reader_next_to_nothing(flight: Flight) -> None:
    """Counted, not timed: no packing and no file in the reading thread."""
    before = set(os.listdir(flight.folder))
    for _ in range(300):
        flight.mono_ns += S // 10
        flight.tick(pack(flight.mono_ns))
        flight.measure()
    assert set(os.listdir(flight.folder)) == before
