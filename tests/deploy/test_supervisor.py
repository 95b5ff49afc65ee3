"""The supervisor with small stand-in commands: order, restarts, last words, what a killed one leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import processes
import pytest
import state
import supervisor
import tail
from services import Child, Service
from supervisor import Supervisor
from waiting import until

from shared.errors import PacktwinError


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def stand_in(name: str, journal: Path, *, code: str = "signal.pause()") -> Service:
    """A service that writes `+name` when it is up and `-name` when it is asked to end."""
    write = f"open({str(journal)!r}, 'a').write"
    script = (
        "import signal, sys\n"
        f"signal.signal(signal.SIGTERM, lambda *_: ({write}('-{name} '), sys.exit(0)))\n"
        f"{write}('+{name} ')\n{code}\n"
    )
    return Service(
        name=name,
        address="here",
        command=python(script),
        ready=lambda: journal.exists() and f"+{name} " in journal.read_text(),
    )


class Board:
    """What a supervisor said and published last."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.rows: Sequence[state.Running] = ()

    def publish(self, rows: Sequence[state.Running]) -> None:
        self.rows = rows


def supervise(services: Sequence[Service], folder: Path) -> tuple[Supervisor, Board]:
    board = Board()
    return Supervisor(services, folder / "logs", board.said.append, board.publish), board


def test_services_come_up_in_order_and_go_down_in_reverse(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    some, board = supervise([stand_in(name, journal) for name in "abc"], tmp_path)
    some.start()
    assert [running.process is not None and running.name for running in board.rows] == ["a", "b", "c"]
    some.stop()
    assert journal.read_text().split() == ["+a", "+b", "+c", "-c", "-b", "-a"]


def test_a_service_that_cannot_start_ends_the_start_with_its_own_last_words(tmp_path: Path) -> None:
    broken = Service(
        name="broken",
        address="",
        command=python("print('the fuse is blown'); raise SystemExit(2)"),
        ready=lambda: False,
    )
    some, _ = supervise([stand_in("a", tmp_path / "journal"), broken], tmp_path)
    with pytest.raises(PacktwinError, match=r"broken did not start \(exit code 2\): the fuse is blown"):
        some.start()
    some.stop()
    assert (tmp_path / "journal").read_text().split() == ["+a", "-a"]


def test_a_service_that_never_answers_is_one_sentence(tmp_path: Path) -> None:
    mute = Service(name="mute", address="", command=python("input()"), ready=lambda: False, start_s=0.0)
    mute = Service(
        name="mute", address="", command=python("import signal; signal.pause()"), ready=lambda: False, start_s=0.1
    )
    some, _ = supervise([mute], tmp_path)
    with pytest.raises(PacktwinError, match="mute does not answer after 0 s; see "):
        some.start()
    some.stop()


def test_a_dead_child_is_started_again_after_a_pause_that_grows(tmp_path: Path) -> None:
    child = Child(
        Service(name="a", address="", command=python("raise SystemExit(3)"), ready=lambda: True), tmp_path / "a.log"
    )
    now_s, pauses = 1000.0, []
    child.start(now_s)
    for _ in range(4):
        until("the stand-in ends by itself", lambda: child.exit_code() is not None)
        said = child.step(now_s)
        assert said is not None and "exit code 3" in said
        before_s = now_s
        while child.step(now_s) is None:
            now_s += 0.25
        pauses.append(now_s - before_s)
    assert pauses == [0.5, 1.0, 2.0, 4.0]
    assert child.restarts == 4
    child.stop()


def test_a_child_that_ignores_the_polite_signal_is_killed_with_its_group(tmp_path: Path) -> None:
    note = tmp_path / "grandchild"
    script = (
        "import signal, subprocess, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "grandchild = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
        f"open({str(note)!r}, 'w').write(f'{{grandchild.pid}}.')\n"
        "signal.pause()\n"
    )
    child = processes.spawn(python(script), environment={}, cwd=tmp_path, log=tmp_path / "log")
    until("the grandchild starts", lambda: note.exists() and note.read_text().endswith("."))
    grandchild, head = processes.identify(int(note.read_text()[:-1])), processes.identify(child.pid)
    assert grandchild is not None and head is not None
    processes.end(head, grace_s=0.1)
    child.poll()
    until("the grandchild goes too", lambda: not processes.is_alive(grandchild))


def test_leftovers_of_a_killed_supervisor_are_ended_and_strangers_are_not(tmp_path: Path) -> None:
    left = subprocess.Popen(python("import signal; signal.pause()"), start_new_session=True)
    stranger = subprocess.Popen(python("import signal; signal.pause()"), start_new_session=True)
    ours, theirs = processes.identify(left.pid), processes.identify(stranger.pid)
    assert ours is not None and theirs is not None
    reused = processes.Identity(theirs.pid, theirs.start_ticks - 1)
    rows = [
        state.Running(name=name, address="", process=process, health="", restarts=0)
        for name, process in (("a", ours), ("b", reused), ("yours", None))
    ]
    file = tmp_path / "state.json"
    state.write(
        file, state.State(supervisor=processes.Identity(2**22, 1), api_url="", database={}, services=tuple(rows))
    )
    assert state.read(file) is not None
    supervisor.end_leftovers(file)
    assert left.poll() is not None or not processes.is_alive(ours)
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
    left.wait()
    assert not file.exists()


def test_a_state_file_that_was_torn_counts_as_none(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    for torn in ("", "{", '{"supervisor": 1}', "[]"):
        file.write_text(torn)
        assert state.read(file) is None


def test_the_lock_has_one_holder_and_a_kill_frees_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = f"import sys; sys.path[:0] = {sys.path!r}\nimport pathlib, signal, state\n"
    code += f"lock = state.Lock(pathlib.Path({str(path)!r}))\nprint(lock.acquire(), flush=True)\nsignal.pause()"
    holder = subprocess.Popen(python(code), stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "True\n"
    with state.Lock(path) as lock:
        assert not lock.acquire()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
        assert lock.acquire()


def test_a_log_stays_bounded_while_its_writer_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.LOG_BYTES", 1000)
    log = tmp_path / "a.log"
    child = Child(Service(name="a", address="", command=[], ready=lambda: True), log)
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 2000)
        child.bound_log()
        writer.write(b"new")
    assert log.read_bytes() == b"new"
    assert (tmp_path / "a.log.1").stat().st_size == 2000


def test_logs_are_printed_with_the_name_of_their_service(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "api.log").write_text("one\ntwo\nthree\n")
    (tmp_path / "agent.log").write_bytes(b"\xff\n")
    tail.follow(tmp_path, 2, for_ever=False)
    assert capsys.readouterr().out.splitlines() == ["agent        \ufffd", "api          two", "api          three"]
