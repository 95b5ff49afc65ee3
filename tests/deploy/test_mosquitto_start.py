"""deploy/mosquitto/start on a machine with much to do: no change of the password file is missed, and none ends it."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Final

import mosquitto
import processes
import pytest
from broker import lets_in
from conftest import missing
from e2e.stack import BARE
from free_ports import free_port
from waiting import until

from cloud.devices import mqtt_hash

LATE_S: Final = 2


def script(path: Path, *lines: str) -> Path:
    """A shell script that is late; the file `begun` beside it tells that it runs."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", f"touch {path.with_name('begun')}", f"sleep {LATE_S}", *lines, ""]))
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("late", ["ls", "mosquitto"])
def test_a_token_given_while_the_broker_starts_is_let_in(tmp_path: Path, late: str) -> None:
    """Late is the look at the file, after Mosquitto has read the old one; or Mosquitto, which knows no HUP yet."""
    if mosquitto.problem():
        missing("needs mosquitto (apt-get install mosquitto)")
    broker = mosquitto.Broker(tmp_path / "broker", free_port(), ask=True)
    broker.prepare()
    command, environment = broker.command(), dict(BARE)
    if late == "ls":
        ls = script(tmp_path / "late" / "ls", 'exec /bin/ls "$@"')
        environment["PATH"] = f"{ls.parent}:{BARE['PATH']}"
    else:
        place = command.index(str(mosquitto.binary()))
        command[place] = str(script(tmp_path / "late" / "mosquitto", f'exec {command[place]} "$@"'))
    child: subprocess.Popen[bytes] = processes.spawn(
        command, environment=environment, cwd=tmp_path, log=tmp_path / "log", death_signal=signal.SIGKILL
    )
    try:
        begun = tmp_path / "late" / "begun"
        until("it starts", broker.ready if late == "ls" else begun.exists)
        broker.password_file.write_text(f"van-17:{mqtt_hash('ptd_token')}\n")
        until("the broker answers", lambda: broker.ready() or child.poll() is not None)
        assert child.poll() is None, (tmp_path / "log").read_text()
        until("the token is let in", lambda: lets_in(broker.port, "van-17", "ptd_token"))
    finally:
        child.kill()
        child.wait()
