"""`edge model status|rollback`, with an agent that holds the folder and without one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fakes.updates import T_NS, World, world

from edge import model_command
from edge.__main__ import main
from edge.ota.store import Folder

CONFIG = """
device = "car-1"
clock = "system"
data_dir = "."
hot_dir = ""
[[source]]
pack_id = "P1"
channel = "nowhere"
mapping = "evpack.toml"
"""


@pytest.fixture
def w(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("os.fsync", lambda handle: None)
    (tmp_path / "edge.toml").write_text(CONFIG)
    mapping = next((Path(model_command.__file__).parent / "samples").glob("*.toml"))
    text = CONFIG.replace("evpack.toml", next(m.name for m in mapping.parent.glob("*.toml") if m.name != "edge.toml"))
    (tmp_path / "edge.toml").write_text(text)
    with world(tmp_path) as made:
        yield made


def run(w: World, *arguments: str) -> int:
    return main(["model", *arguments, "--config", str(w.folder / "edge.toml")])


@contextmanager
def stepping(w: World, desired: str | None) -> Iterator[None]:
    """An agent at work."""
    done = threading.Event()

    def loop() -> None:
        wait_s = 0.0
        while not done.wait(wait_s):
            wait_s = w.updates.step(desired)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_the_status_of_a_device_without_models(w: World, capsys: pytest.CaptureFixture[str]) -> None:
    w.updates.close()
    Folder(w.folder / "models").path.rename(w.folder / "gone")
    assert run(w, "status", "--json") == 0
    none = {"active": None, "previous": None, "candidate": None, "floor": 0, "last": None}
    assert json.loads(capsys.readouterr().out) == none
    assert run(w, "status") == 0
    assert "none: no model has been installed here" in capsys.readouterr().out
    assert run(w, "rollback") == 1
    assert capsys.readouterr().err == "no model runs and there is none before it to go back to\n"
    assert not (w.folder / "models").exists(), "looking makes nothing"


def test_the_status_with_and_without_an_agent_is_the_same(w: World, capsys: pytest.CaptureFixture[str]) -> None:
    w.install(1)
    w.install(2)
    w.server.away = True
    w.run(w.publish(3), 5)
    assert run(w, "status", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == w.updates.status()
    assert set(told) == {"active", "previous", "candidate", "floor", "last"}
    assert told["candidate"] == {"model_id": "rul-3", "counter": 3, "sha256": None}
    assert told["last"] == {"step": "seen", "reason": None, "t_ns": T_NS}
    assert set(told["active"]) == {"model_id", "counter", "sha256"} and told["floor"] == 2
    w.updates.close()
    assert run(w, "status", "--json") == 0
    assert json.loads(capsys.readouterr().out) == told
    assert run(w, "status") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("active     rul-2") and lines[0].endswith("proven")
    assert [line.split()[0] for line in lines] == ["active", "previous", "candidate", "last", "floor"]


def test_rollback_without_an_agent_is_told_by_the_next_one(w: World, capsys: pytest.CaptureFixture[str]) -> None:
    w.install(1)
    w.install(2)
    w.updates.close()
    w.told.clear()
    assert run(w, "rollback") == 0
    assert capsys.readouterr().out == "rul-2 -> rul-1\n"
    assert w.told == []
    w.updates = w.start()
    assert w.active == "rul-1"
    w.run("rul-2", 3600)
    assert w.steps == ["rul-2 rolled_back operator"] and w.active == "rul-1"
    w.install(3)


@pytest.mark.e2e
def test_a_running_agent_takes_a_rollback_within_a_second(w: World, capsys: pytest.CaptureFixture[str]) -> None:
    w.install(1)
    w.install(2)
    with stepping(w, "rul-2"):
        begun = time.monotonic()
        assert run(w, "rollback") == 0
        took_s = time.monotonic() - begun
    assert capsys.readouterr().out == "rul-2 -> rul-1\n"
    assert took_s < 1.5 and w.active == "rul-1" and w.steps[-1] == "rul-2 rolled_back operator"
    assert run(w, "rollback") == 1
    assert "rul-1 runs and there is none before it" in capsys.readouterr().err


@pytest.mark.e2e
def test_a_rollback_during_a_download_does_not_wait_for_it(w: World) -> None:
    w.install(1)
    w.install(2)
    desired = w.publish(3, size=100_000)
    w.server.on_request = lambda path: setattr(w.server, "drip_s", 0.001 if ".rul-3" in path else None)
    with stepping(w, desired):
        while not any(".rul-3" in path for path in w.server.requests):
            time.sleep(0.01)  # a poll with the test's own deadline, not a synchronisation
        begun = time.monotonic()
        assert run(w, "rollback") == 0
        assert time.monotonic() - begun < 2
        assert w.active == "rul-1"
        w.updates.stop()


def test_an_agent_that_does_not_answer_is_said_to_and_nothing_is_changed(
    w: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    w.install(1)
    w.install(2)
    monkeypatch.setattr(model_command, "_ANSWER_S", 0.2)
    assert run(w, "rollback") == 1
    assert "did not answer" in capsys.readouterr().err
    w.run("rul-2", 5)
    assert w.active == "rul-2"


def test_a_request_that_outlived_its_agent_is_taken_once(w: World) -> None:
    """Killed after it went back and before it could say so: the next start must not go back once more."""
    w.install(1)
    active = w.install(2) and w.updates.active
    assert active
    Folder(w.folder / "models").request(active.sha256)
    assert w.updates.rollback()
    w.install(3)
    w.run("rul-3", 5)
    assert w.active == "rul-3"
    assert Folder(w.folder / "models").requested() is None


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["status", "--nonsense"]])
def test_bad_usage_is_one_sentence(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", *arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
