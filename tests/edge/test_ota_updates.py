"""The agent's own way of a bundle, over a real server: every reason of the closed list, and the old model runs on."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.updates import DAY_NS, T_NS, World, plain_bundle, plain_manifest, world

from edge.ota.store import Folder, StoreError
from edge.ota.updates import checked_root
from shared.bundle import Bundle
from shared.errors import ConfigError


@pytest.fixture
def w(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("os.fsync", lambda handle: None)  # these tests' flash may forget; test_ota_killed's may not
    with world(tmp_path) as made:
        yield made


def test_a_bundle_becomes_what_runs_and_every_step_is_told(w: World) -> None:
    assert w.active is None and w.updates.status()["active"] is None
    name = w.publish(1)
    w.run(name)
    assert w.active == name
    assert w.steps == [f"{name} {step}" for step in ("seen", "fetched", "verified", "probed", "activated")]
    for _ in range(2):
        w.updates.good_answer()
    assert w.steps[-1] == f"{name} activated"
    w.updates.good_answer()
    assert w.steps[-1] == f"{name} proven"
    fetched = w.told[1].numbers
    assert fetched["requests"] == 1 and fetched["received_bytes"] == fetched["bytes"] > 1000
    assert {told.t_ns for told in w.told} == {T_NS}
    status = w.updates.status()
    assert status["floor"] == 1 and status["candidate"] is None
    assert status["last"] == {"step": "proven", "reason": None, "t_ns": T_NS}
    assert w.server.tokens == {"Bearer secret"}
    requests = len(w.server.requests)
    w.run(name, 3600)
    w.run(None, 3600)
    assert len(w.server.requests) == requests, "what runs costs nothing to keep"


def test_null_keeps_what_runs(w: World) -> None:
    w.install(1)
    w.run(None, 100)
    assert w.active == "rul-1" and len(w.steps) == 6


def test_the_one_before_is_kept_and_nothing_older(w: World) -> None:
    for counter in (1, 2, 3):
        w.install(counter)
    status = w.updates.status()
    assert (status["active"]["counter"], status["previous"]["counter"]) == (3, 2)
    w.run(w.publish(4), 0)
    held = {path.stem for path in (w.folder / "models" / "bundles").iterdir()}
    assert held == {w.updates.status()[which]["sha256"] for which in ("active", "previous")} | {
        hashlib.sha256(plain_bundle(plain_manifest("rul", 2))).hexdigest()
    }
    assert list((w.folder / "models" / "staging").iterdir()) == []


# Clock


@pytest.mark.parametrize("years", [-10, 10])
def test_a_clock_that_is_ten_years_off_stops_nothing_but_updates(w: World, years: int) -> None:
    w.install(1)
    desired = w.publish(2)
    w.t_ns = T_NS + years * 365 * DAY_NS
    w.restart()
    w.run(desired, 600)
    assert w.active == "rul-1" and w.steps[-1] == f"rul-2 refused {'expired' if years > 0 else 'clock'}"
    w.t_ns = T_NS
    w.run(desired, 600)
    assert w.active == "rul-2", "and as soon as it is right again, on it goes"


@pytest.mark.parametrize("years", [-10, 10])
def test_the_very_first_clock_may_be_ten_years_off_too(w: World, years: int) -> None:
    w.t_ns = T_NS + years * 365 * DAY_NS
    desired = w.publish(1)
    w.run(desired, 60)
    assert w.active is None
    w.t_ns = T_NS
    w.run(desired, 600)
    assert w.active == desired


def test_without_a_trusted_clock_nothing_is_installed(w: World) -> None:
    desired = w.publish(1)
    w.t_ns = None
    w.run(desired, 600)
    assert w.active is None and w.steps == ["rul-1 seen"] and w.server.requests == []
    assert "clock is not trusted" in str(w.updates.problem)
    w.t_ns = T_NS
    w.run(desired, 10)
    assert w.active == desired and w.updates.problem is None


def test_a_clock_that_goes_back_between_the_check_and_the_install_is_seen_at_the_next_check(w: World) -> None:
    w.install(1)
    desired = w.publish(2)
    w.server.on_request = lambda path: setattr(w, "t_ns", None) if ".rul-2" in path else None
    w.run(desired, 60)
    assert w.active == "rul-1", "no clock, no install, also half way"
    w.server.on_request = lambda path: None
    w.t_ns = T_NS
    w.run(desired, 60)
    assert w.active == "rul-2"


def test_older_signed_metadata_is_refused_and_the_newer_is_taken_again(w: World) -> None:
    w.install(1)
    old = w.repo.save()
    w.install(2)
    desired = w.publish(3)
    new = w.repo.save()
    w.repo.restore(old)
    w.run(desired, 60)
    assert w.steps[-1] == "rul-3 refused counter" and w.active == "rul-2"
    w.repo.restore(new)
    w.run(desired, 600)
    assert w.active == "rul-3"


def test_wiping_tufs_folder_does_not_lower_the_floor(w: World) -> None:
    w.install(1)
    old = w.repo.save()
    w.install(5)
    w.repo.restore(old)
    shutil.rmtree(w.folder / "models" / "tuf")
    w.restart()
    w.run("rul-1", 60)
    assert w.active == "rul-5" and w.steps[-1] == "rul-1 refused counter"


def test_the_root_key_is_changed_by_a_signed_rotation(w: World) -> None:
    w.install(1)
    for _ in range(2):
        w.repo.rotate_root()
    assert w.active == "rul-1"
    w.install(2)
    w.repo.rotate_root(signed_by_old=False)
    w.run(w.publish(3), 60)
    assert w.active == "rul-2" and w.steps[-1] == "rul-3 refused signature"


# The network


def test_four_megabytes_arrive_over_a_link_that_is_cut_every_64_kib(w: World) -> None:
    w.install(1)
    desired = w.publish(2, size=1_000_000)
    w.server.target_bytes, w.server.cut_bytes = 0, 64 << 10
    w.run(desired, 60)
    assert w.active == desired
    numbers = next(told.numbers for told in w.told if told.step == "fetched" and told.counter == 2)
    assert numbers["bytes"] > 4_000_000
    assert w.server.target_bytes <= 1.05 * numbers["bytes"]
    assert numbers["received_bytes"] <= 1.05 * numbers["bytes"]


def test_a_network_that_is_gone_is_waited_for(w: World) -> None:
    w.install(1)
    desired = w.publish(2)
    w.server.away = True
    w.run(desired, 3600)
    assert w.active == "rul-1" and w.steps[-1] == "rul-2 seen"
    assert len(w.server.requests) < 100
    assert "503" in str(w.updates.problem)
    w.server.away = False
    w.run(desired, 120)
    assert w.active == "rul-2" and w.updates.problem is None


def test_a_cut_at_every_request_of_an_update_costs_only_time(w: World) -> None:
    w.install(1)
    desired = w.publish(2, size=40_000)
    seen: set[str] = set()

    def cut_once(path: str) -> None:
        w.server.away = path not in seen
        seen.add(path)

    w.server.on_request = cut_once
    w.run(desired, 600)
    assert w.active == desired and len(seen) >= 4


def test_a_redirect_to_another_origin_is_not_followed(w: World, tmp_path: Path) -> None:
    from fakes.image_server import ImageServer, serving

    w.install(1)
    desired = w.publish(2)
    other = ImageServer(w.server.folder)
    with serving(other) as elsewhere:
        w.server.redirect = elsewhere
        w.run(desired, 60)
    assert other.requests == [] and w.active == "rul-1"


def test_a_part_that_a_power_cut_spoiled_is_fetched_anew(w: World) -> None:
    w.install(1)
    desired = w.publish(2, size=40_000)
    body = w.repo.stored(f"{desired}.bundle").read_bytes()
    part = Folder(w.folder / "models").part(hashlib.sha256(body).hexdigest())
    part.write_bytes(body[:50_000] + b"\0" * 50_000)
    w.run(desired, 60)
    assert w.active == desired


def test_a_desire_that_changes_half_way_is_followed(w: World) -> None:
    w.install(1)
    first, second = w.publish(2, size=40_000), w.publish(3)
    w.server.cut_bytes = 20_000
    w.server.on_request = lambda path: setattr(w.server, "away", w.server.target_bytes > 60_000)
    w.run(first, 5)
    w.server.on_request, w.server.away, w.server.cut_bytes = lambda path: None, False, None
    assert w.updates.status()["candidate"]["model_id"] == first
    w.run(None, 60)
    assert w.updates.status()["candidate"]["model_id"] == first, "null says nothing against it"
    w.run(second, 60)
    assert w.active == second


def test_what_is_no_name_of_a_bundle_is_not_asked_for(w: World) -> None:
    for desired in ("../../etc/passwd", "rul", "rul-1/../x-2", "", "x" * 300 + "-1"):
        w.run(desired, 10)
        assert "no name of a bundle" in str(w.updates.problem)
    assert w.server.requests == [] and w.told == []


def test_a_stop_ends_a_step_that_hangs(w: World) -> None:
    desired = w.publish(1)
    w.server.drip_s = 0.01
    stepping = threading.Thread(target=lambda: w.run(desired, 0))
    stepping.start()
    while not w.server.requests:
        time.sleep(0.01)  # a poll with the test's own deadline, not a synchronisation
    begun = time.monotonic()
    w.updates.close()
    stepping.join(5)
    assert not stepping.is_alive() and time.monotonic() - begun < 3
    w.server.drip_s = None
    w.updates = w.start()
    w.run(desired, 120)
    assert w.active == desired


# Trial and the way back


@pytest.mark.parametrize("reason", ["not_finite", "out_of_range"])
@pytest.mark.parametrize("proven", [True, False])
def test_a_model_that_answers_nonsense_goes_and_the_one_before_is_back(w: World, reason: str, proven: bool) -> None:
    w.install(1)
    desired = w.install(2, proven=proven)
    w.updates.bad(reason)
    assert w.active == "rul-1" and w.steps[-1] == f"rul-2 rolled_back {reason}"
    w.run(desired, 3600)
    w.restart()
    w.run(desired, 3600)
    assert w.active == "rul-1" and w.steps[-1] == f"rul-2 rolled_back {reason}", "and it is not tried again"
    assert w.updates.status()["floor"] == (2 if proven else 1)


def test_two_crashes_are_one_too_many_also_across_a_restart(w: World) -> None:
    w.install(1)
    w.install(2, proven=False)
    w.updates.bad("crash")
    assert w.active == "rul-2"
    w.restart()
    w.updates.bad("crash")
    assert w.active == "rul-1" and w.steps[-1] == "rul-2 rolled_back crash"


def test_after_a_rollback_by_hand_only_a_higher_counter_is_taken(w: World) -> None:
    assert not w.updates.rollback()
    w.install(1)
    assert not w.updates.rollback(), "there is none before it"
    w.install(2)
    assert w.updates.rollback()
    assert w.active == "rul-1" and w.steps[-1] == "rul-2 rolled_back operator"
    w.run("rul-2", 3600)
    w.publish(2, size=1999)
    w.run("rul-2", 7200)
    assert w.active == "rul-1"
    w.install(3)


def test_what_another_model_did_is_not_held_against_this_one_nor_for_it(w: World) -> None:
    """The process of the old model may answer, or die, just after the new one was activated."""
    w.install(1)
    old = w.updates.active
    w.install(2, proven=False)
    assert old is not None
    for _ in range(5):
        w.updates.bad("not_finite", old.sha256)
        w.updates.good_answer(old.sha256)
    assert w.active == "rul-2" and w.steps[-1] == "rul-2 activated"
    new = w.updates.active
    assert new is not None
    w.updates.bad("not_finite", new.sha256)
    assert w.active == "rul-1"


def test_a_file_that_cannot_be_read_is_looked_at_before_it_is_blamed(w: World) -> None:
    w.install(1)
    w.install(2)
    for _ in range(3):
        w.updates.bad("target_hash")
    active = w.updates.active
    assert active is not None and active.counter == 2, "the file is whole: something else was wrong"
    active.path.write_bytes(b"")
    w.updates.bad("target_hash")
    assert w.active == "rul-1" and w.steps[-1] == "rul-2 rolled_back target_hash"
    w.run("rul-2", 60)
    assert w.active == "rul-2"


def test_a_proven_model_writes_nothing_when_it_answers(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    w.install(1)
    monkeypatch.setattr(Folder, "save", lambda *_: pytest.fail("a write per answer would wear out the flash"))
    for _ in range(100):
        w.updates.good_answer()


# Disk, outbox, restarts


def test_what_the_outbox_cannot_take_is_told_later_also_after_a_restart(w: World) -> None:
    w.outbox_is_full = True
    name = w.install(1)
    assert w.told == []
    w.restart()
    w.outbox_is_full = False
    w.run(name, 5)
    assert w.steps == [f"{name} {s}" for s in ("seen", "fetched", "verified", "probed", "activated", "proven")]
    w.restart()
    w.run(name, 5)
    assert len(w.told) == 6, "and told once"


def test_a_disk_that_is_full_delays_and_breaks_nothing(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    w.install(1)
    w.install(2)
    desired = w.publish(3)
    whole = Folder.save

    def full(*_: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(Folder, "save", full)
    w.run(desired, 60)
    w.updates.bad("not_finite")
    assert w.active == "rul-1", "what must stop stops at once"
    assert "full" in str(w.updates.problem)
    monkeypatch.setattr(Folder, "save", whole)
    w.run(desired, 120)
    assert w.active == "rul-3"
    assert "rul-2 rolled_back not_finite" in w.steps


def test_a_probe_that_cannot_be_made_here_is_made_later(w: World) -> None:
    def no_memory(path: Path, bundle: Bundle) -> None:
        raise OSError(12, "Cannot allocate memory")

    w.probe = no_memory
    desired = w.publish(1)
    w.run(desired, 3600)
    assert w.active is None and "Cannot allocate memory" in str(w.updates.problem)
    w.probe = lambda path, bundle: None
    w.run(desired, 120)
    assert w.active == desired


def test_a_bundle_that_the_disk_lost_gives_way_and_comes_again(w: World) -> None:
    w.install(1)
    w.install(2)
    for damage in (b"", b"\0" * 9000, None):
        active = w.updates.active
        assert active is not None and active.counter == 2
        w.updates.close()
        active.path.unlink() if damage is None else active.path.write_bytes(damage)
        w.updates = w.start()
        assert w.active == "rul-1" and w.steps[-1] == "rul-2 rolled_back target_hash"
        w.run("rul-2", 60)
        assert w.active == "rul-2", "the very one that was proven may come again"


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"format": 1}', b"\xff\xfe"])
def test_a_state_that_the_disk_lost_costs_neither_the_model_nor_the_floor(w: World, content: bytes | None) -> None:
    w.install(3)
    w.updates.close()
    state = w.folder / "models" / "state.json"
    state.unlink() if content is None else state.write_bytes(content)
    w.updates = w.start()
    assert w.active == "rul-3" and w.updates.status()["floor"] == 3
    w.run(w.publish(2), 30)
    assert w.steps[-1] == "rul-2 refused counter"
    w.install(4)


@pytest.mark.parametrize("content", [None, b"", b"\0\0"])
def test_a_floor_that_the_disk_lost_is_written_again(w: World, content: bytes | None) -> None:
    w.install(3)
    w.updates.close()
    floor = w.folder / "models" / "floor.json"
    floor.unlink() if content is None else floor.write_bytes(content)
    w.updates = w.start()
    assert w.updates.status()["floor"] == 3
    w.install(4)
    assert json.loads(floor.read_text())["counter"] == 4


def test_one_agent_holds_the_folder(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.ota.keeper._LOCK_TRIES", 2)
    with pytest.raises(StoreError, match="in use by another agent"):
        w.start()


def test_without_a_trust_root_nothing_is_believed(w: World) -> None:
    w.root = None
    w.restart()
    w.run(w.publish(1), 600)
    assert w.active is None and w.steps == ["rul-1 seen", "rul-1 refused signature"]
    assert "trust_root" in str(w.updates.problem) and w.server.requests == []


@pytest.mark.parametrize("root", [b"", b"{}", b"[1]", b'{"signed": {"_type": "targets"}}', b"[" * 10**5])
def test_what_is_no_root_is_said_at_the_start(root: bytes) -> None:
    with pytest.raises(ConfigError, match="trust_root"):
        checked_root(root)
