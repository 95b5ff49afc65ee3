"""What was measured of a pack outlives the agent: kept at each step, whole or begun anew, and a past is taken once."""

from __future__ import annotations

import gzip
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes.readings import PACK, SECOND_NS, reading

from edge.history import FLUSH_S, MOST_PENDING, FeatureStore
from edge.history_file import MAX_BYTES, Kept
from shared.errors import ConfigError
from shared.features import NAMES, History, Meter
from shared.record_lines import to_line
from shared.records import Event, Session

ID = PACK.pack_id


def opened(folder: Path, *, tmpfs: bool = True, flush_s: float = FLUSH_S) -> FeatureStore:
    store = FeatureStore(folder / "memory" if tmpfs else None, folder / "flash", flush_s=flush_s)
    store.open(PACK)
    return store


def run(store: FeatureStore, first: int, last: int) -> list[Session]:
    told = []
    for k in range(first, last):
        told += store.step(ID, reading(k))
        store.delivered(ID)
    return told


def past(count: int, pack_id: str = ID) -> list[Session]:
    return [
        Session(
            pack_id=pack_id, seq=k, mono_ns=k, t_ns=10**17 + k, duration_s=9e4, cycles=1.1 * k, age_days=1.5 * k,
            r_step_mohm=1.0 + k / 500, r_step_max_mohm=1.2 + k / 500, soh_bms=0.99, simulated=True,
        )
        for k in range(count)
    ]  # fmt: skip


def past_file(folder: Path, count: int = 300, name: str = "past.jsonl", **session: str) -> Path:
    lines = [to_line(one) for one in past(count, **session)]
    body = "".join(f"{line}\n" for line in lines).encode()
    path = folder / name
    path.write_bytes(gzip.compress(body, mtime=0) if name.endswith(".gz") else body)
    return path


@pytest.mark.parametrize("tmpfs", [True, False])
def test_a_store_that_was_just_left_goes_on_where_it_was(tmp_path: Path, tmpfs: bool) -> None:
    whole, meter, history = [], Meter(PACK), History()
    for first, last in ((0, 137), (137, 138), (138, 500), (500, 903)):
        whole += run(opened(tmp_path, tmpfs=tmpfs), first, last)
        meter = Meter(PACK, meter.to_bytes())  # a new start integrates nothing over the gap
        for k in range(first, last):
            if session := meter.feed(reading(k)):
                history.add(session)
    again = opened(tmp_path, tmpfs=tmpfs)
    assert again.meter(ID).to_bytes() == meter.to_bytes()
    assert again.history(ID).to_bytes() == history.to_bytes()
    assert len(whole) == history.sessions == 4


def test_sessions_are_told_until_they_are_delivered_also_after_a_restart(tmp_path: Path) -> None:
    store, told = opened(tmp_path), ()
    for k in range(400):
        told = store.step(ID, reading(k))
    assert [session.cycles for session in told] == [1.1, 2.2]
    store = opened(tmp_path)
    assert store.step(ID, reading(400)) == told
    store.delivered(ID)
    assert store.step(ID, reading(401)) == ()
    assert opened(tmp_path).step(ID, reading(402)) == ()


def test_an_outbox_that_takes_nothing_costs_no_more_than_the_oldest(tmp_path: Path) -> None:
    store = opened(tmp_path)
    told = [store.step(ID, reading(k)) for k in range(200 * (MOST_PENDING + 3))][-1]
    assert len(told) == MOST_PENDING
    assert told[-1].cycles == pytest.approx(1.1 * (MOST_PENDING + 3), abs=0.1)


def test_a_power_cut_costs_what_came_after_the_last_flush(tmp_path: Path) -> None:
    store = opened(tmp_path, flush_s=600.0)
    for k in range(100):
        store.step(ID, reading(k))
        store.flush(reading(k).mono_ns)
    for path in (tmp_path / "memory").rglob("*.now"):
        path.unlink()
    last_t_ns = opened(tmp_path).meter(ID).last_t_ns
    assert last_t_ns is not None
    assert 0 < reading(99).t_ns - last_t_ns <= 600 * SECOND_NS  # type: ignore[operator]


def test_stopping_keeps_all_on_flash(tmp_path: Path) -> None:
    store = opened(tmp_path)
    run(store, 0, 100)
    store.close()
    for path in (tmp_path / "memory").rglob("*.now"):
        path.unlink()
    assert opened(tmp_path).meter(ID).last_t_ns == reading(99).t_ns


def test_what_only_memory_kept_goes_to_flash_though_the_pack_says_nothing_more(tmp_path: Path) -> None:
    run(opened(tmp_path), 0, 10)
    store = opened(tmp_path, flush_s=0.0)
    store.flush(0)
    for path in (tmp_path / "memory").rglob("*.now"):
        path.unlink()
    assert opened(tmp_path).meter(ID).last_t_ns == reading(9).t_ns


@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "huge"])
def test_a_torn_file_is_said_once_and_the_flash_copy_is_used(
    tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(tmp_path)
    run(store, 0, 50)
    store.close()
    run(store, 50, 60)
    (path,) = (tmp_path / "memory").rglob("*.now")
    body = bytearray(path.read_bytes())
    if harm == "flip":
        body[len(body) // 2] ^= 1
    path.write_bytes({"cut": body[:-7], "flip": body, "empty": b"", "huge": body + bytes(MAX_BYTES)}[harm])
    with caplog.at_level(logging.WARNING):
        assert opened(tmp_path).meter(ID).last_t_ns == reading(49).t_ns
    (said,) = caplog.messages
    assert "is torn" in said


def test_another_table_of_features_begins_anew_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = opened(tmp_path)
    store.import_past(ID, past_file(tmp_path))
    for path in tmp_path.rglob("BATTERY_001.*"):
        kept = Kept.from_bytes(path.read_bytes())
        kept.notes = kept.notes.replace(b'"schema": "', b'"schema": "0')
        path.write_bytes(kept.to_bytes())
    with caplog.at_level(logging.WARNING):
        store = opened(tmp_path)
    assert store.history(ID).sessions == 0
    assert all("was made for the features 0" in said for said in caplog.messages)
    assert store.import_past(ID, past_file(tmp_path)) == 300, "its past may be taken again"


def test_a_disk_that_refuses_stops_no_measuring_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("edge.history_file.os.rename", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        run(store, 0, 50)
        assert "No space left" in (store.problem or "")
    run(store, 50, 51)
    assert store.problem is None
    assert [record.levelname for record in caplog.records if record.name == "edge.history"] == ["ERROR"]
    assert opened(tmp_path).meter(ID).last_t_ns == reading(50).t_ns


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "flash").write_text("a file")
    with pytest.raises(ConfigError, match="cannot be made"):
        opened(tmp_path)


@pytest.mark.parametrize("name", ["past.jsonl", "past.jsonl.gz"])
def test_a_past_is_taken_exactly_once_and_answers_from_then_on(tmp_path: Path, name: str) -> None:
    store, path = opened(tmp_path), past_file(tmp_path, name=name)
    assert store.import_past(ID, path) == 300
    assert (store.import_past(ID, path), opened(tmp_path).import_past(ID, path)) == (0, 0)
    history = History()
    for session in past(300):
        history.add(session)
    again = opened(tmp_path)
    assert again.history(ID).to_bytes() == history.to_bytes()
    assert np.array_equal(again.vector(ID).values, history.vector().values, equal_nan=True)
    assert again.vector(ID).values[NAMES.index("r_step_growth")] > 0.4
    run(again, 0, 200)
    assert again.history(ID).sessions == 301


def test_another_past_takes_the_place_of_the_first(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.import_past(ID, past_file(tmp_path))
    run(store, 0, 150)
    assert store.import_past(ID, past_file(tmp_path, 20, "other.jsonl")) == 20
    assert store.history(ID).sessions == 20
    assert store.meter(ID).elapsed_s > 0, "what is being measured goes on"


def test_events_in_a_past_are_passed_over(tmp_path: Path) -> None:
    event = Event(pack_id=ID, seq=0, mono_ns=0, id="e", code="end_of_life", severity="critical")
    (tmp_path / "p.jsonl").write_text(f"{to_line(past(1)[0])}\n\n{to_line(event)}\n")
    assert opened(tmp_path).import_past(ID, tmp_path / "p.jsonl") == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "p.jsonl.gz cannot be read: No such file"),
        (b"", "holds no session"),
        (gzip.compress(b"", mtime=0)[:-4], "is no whole gzip file"),
        (gzip.compress(b"{}\n", mtime=0), "p.jsonl.gz line 1 has no kind"),
        (gzip.compress(to_line(past(1, "OTHER")[0]).encode()), "tells of OTHER"),
        (gzip.compress(b"\n", mtime=0), "holds no session"),
        (b"no gzip", "is no whole gzip file"),
    ],
)
def test_a_bad_past_is_one_sentence_and_changes_nothing(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "p.jsonl.gz"
    if content is not None:
        path.write_bytes(content)
    store = opened(tmp_path)
    with pytest.raises(ConfigError, match=said):
        store.import_past(ID, path)
    assert store.history(ID).sessions == 0


def test_age_goes_on_from_the_past_where_nobody_knows_the_day_of_commissioning(tmp_path: Path) -> None:
    store = FeatureStore(None, tmp_path)
    store.open(replace(PACK, commissioned_t_ns=None))
    store.import_past(ID, past_file(tmp_path))
    (session,) = run(store, 0, 200)
    assert session.age_days == pytest.approx(1.5 * 299 + session.duration_s / 86400)
    assert "age_days" not in session.reasons
    run(store, 200, 210)
    age_days = store.vector(ID).values[NAMES.index("age_days")]
    assert age_days == pytest.approx(1.5 * 299 + (session.duration_s + store.meter(ID).elapsed_s) / 86400)


def test_a_pack_with_other_cells_is_measured_anew_and_keeps_its_past(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.import_past(ID, past_file(tmp_path))
    run(store, 0, 10)
    other = FeatureStore(tmp_path / "memory", tmp_path / "flash")
    other.open(replace(PACK, series=8))
    assert (other.history(ID).sessions, other.meter(ID).elapsed_s) == (300, 0.0)


def test_the_state_of_a_pack_is_small(tmp_path: Path) -> None:
    store = FeatureStore(None, tmp_path)
    store.open(replace(PACK, series=192))
    store.import_past(ID, past_file(tmp_path, 3000))
    store.close()
    sizes = [path.stat().st_size for path in (tmp_path / "features").iterdir()]
    assert max(sizes) <= 64 << 10
