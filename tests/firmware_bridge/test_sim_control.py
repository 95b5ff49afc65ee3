"""Faults from outside: the socket on which a running simulator takes them."""

from __future__ import annotations

import json
import os
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware_bridge.pack.faults import Faults, Target
from firmware_bridge.sim.control import Control, ask
from shared.errors import ConfigError, PacktwinError


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, dict[str, Faults]]]:
    """A control socket that is served by a thread."""
    faults = {"BATTERY_001": Faults(), "BATTERY_002": Faults()}
    folder = tmp_path / ("deep" * 30)  # longer than a socket's address may be
    folder.mkdir()
    control, stop = Control(folder, faults), threading.Event()

    def serve() -> None:
        while not stop.is_set():
            if select.select([control], [], [], 0.01)[0]:
                control.serve()

    thread = threading.Thread(target=serve)
    thread.start()
    yield folder, faults
    stop.set()
    thread.join()
    control.close()
    assert list(folder.iterdir()) == []


def test_a_fault_reaches_the_pack_that_was_named(served: tuple[Path, dict[str, Faults]]) -> None:
    folder, faults = served
    target = Target.parse("cell_v[17]")
    assert ask(folder, "BATTERY_002", "put", target, 0.05) == {"cell_v[17]": 0.05}
    assert faults["BATTERY_002"].cell_v[17] == 0.05
    assert faults["BATTERY_001"].standing() == {}
    assert ask(folder, "BATTERY_002", "show", None) == {"cell_v[17]": 0.05}
    assert ask(folder, "BATTERY_002", "clear", target) == {}


def test_the_simulator_refuses_what_it_does_not_understand(served: tuple[Path, dict[str, Faults]]) -> None:
    folder, faults = served
    with pytest.raises(PacktwinError, match="out of reason"):
        ask(folder, "BATTERY_001", "put", Target.parse("cell_v[17]"), 99.0)
    path = next(folder.glob("sim-*.sock"))
    for line in (b"\n", b"[]\n", b"{}\n", b'{"do":"put","pack":"x","target":null}\n', b"\xff\n"):
        with socket.socket(socket.AF_UNIX) as connection:
            handle = os.open(folder, os.O_PATH)
            connection.connect(f"/proc/self/fd/{handle}/{path.name}")
            os.close(handle)
            connection.sendall(line)
            assert "refused" in json.loads(connection.recv(4096))
    assert faults["BATTERY_001"].standing() == {}


def test_unknown_packs_dead_sockets_and_no_simulator_are_told_apart(served: tuple[Path, dict[str, Faults]]) -> None:
    folder, _ = served
    with pytest.raises(ConfigError, match="BATTERY_009: there are BATTERY_001, BATTERY_002"):
        ask(folder, "BATTERY_009", "show", None)
    with pytest.raises(ConfigError, match="no simulator runs"):
        ask(folder.parent, "BATTERY_001", "show", None)
    (folder.parent / "sim-1-dead.sock").touch()
    with pytest.raises(ConfigError, match="no simulator runs"):
        ask(folder.parent, "BATTERY_001", "show", None)


def test_two_simulators_with_the_same_pack_are_not_guessed_between(served: tuple[Path, dict[str, Faults]]) -> None:
    folder, _ = served
    other = Control(folder, {"BATTERY_001": Faults()})
    thread = threading.Thread(target=lambda: select.select([other], [], [], 5) and other.serve())
    thread.start()
    with pytest.raises(ConfigError, match="2 running simulators have a pack BATTERY_001"):
        ask(folder, "BATTERY_001", "show", None)
    thread.join()
    other.close()
