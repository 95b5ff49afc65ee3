"""Lives of an agent's updates that end by SIGKILL before a given touch of the disk or the network.

`python -m fakes.doomed_updates` reads one JSON object a line, forks a life for it and answers with one: {"killed":
bool, "code": as of wait, "names": its touches in order}. It imports everything once, so that a life costs ms.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import edge.ota.tuf_client  # noqa: F401
from edge.ota import fetch
from edge.ota.fetch import Origin
from edge.ota.state import Told
from edge.ota.updates import Updates

TOUCHES = ("open", "write", "fsync", "replace", "unlink", "remove", "mkdir", "symlink")


class Points:
    """Counts touches and dies before number `kill_at` (from 1; None = never). torn: a write is half done then."""

    def __init__(self, kill_at: int | None) -> None:
        self.kill_at, self.names = kill_at, list[str]()
        os.fsync = lambda handle: None  # what a killed process wrote is there: test_ota_power cuts the power
        for name in TOUCHES:
            setattr(os, name, self._counted(name, getattr(os, name)))
        fetch._chunks = self._chunks(fetch._chunks)
        fetch.Web._new_connection = self._counted("connect", fetch.Web._new_connection)  # type: ignore[method-assign]

    def reach(self, name: str) -> bool:
        """One more; True = it is the last."""
        self.names.append(name)
        return len(self.names) == self.kill_at

    def _counted(self, name: str, real: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            if self.reach(
                f"{name} {Path(os.fsdecode(args[0])).name if isinstance(args[0], str | Path) else ''}".strip()
            ):
                if name == "write":
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                die()
            return real(*args, **more)

        return call

    def _chunks(self, real: Any) -> Any:
        def chunks(*args: Any) -> Any:
            for chunk in real(*args):
                if self.reach("chunk"):
                    die()
                yield chunk

        return chunks


def die() -> None:
    """As the kernel's OOM killer does it."""
    os.kill(os.getpid(), signal.SIGKILL)


def live(told: dict[str, Any]) -> Points:
    """One life: the agent starts, does as desired until there is nothing to do, hears three good answers."""
    reports = os.open(told["reports"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    put, points = os.write, Points(told["kill_at"])

    def report(step: Told) -> None:
        put(reports, f"{step.model_id} {step.step} {step.reason}\n".encode())
        if points.reach("reported"):
            die()

    def probe(path: Path, bundle: Any) -> None:
        if points.reach("probe"):
            die()

    updates = Updates(
        Path(told["folder"]),
        root=Path(told["root"]).read_bytes(),
        origin=Origin(url=told["url"]),
        now_t_ns=lambda: told["t_ns"],
        probe=probe,
        report=report,
        **told["settings"],
    )
    for _ in range(100):
        if updates.step(told["desired"]):
            break
    for _ in range(told.get("good", 3)):
        updates.good_answer()
    for reason in told.get("bad", ()):
        updates.bad(reason)
    if told.get("rollback"):
        updates.rollback()
    updates.step(told["desired"])
    return points


def main() -> None:
    """Forks a life for each line of stdin."""
    print("ready", flush=True)
    for line in sys.stdin:
        told = json.loads(line)
        out, into = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                points = live(told)
                os.close(out)
                with os.fdopen(into, "w") as pipe:
                    json.dump(points.names, pipe)
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        os.close(into)
        with os.fdopen(out) as pipe:
            names = pipe.read()
        _, status = os.waitpid(pid, 0)
        killed = os.WIFSIGNALED(status)
        print(json.dumps({"killed": killed, "code": status, "names": json.loads(names or "[]")}), flush=True)


if __name__ == "__main__":
    main()
