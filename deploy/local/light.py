"""How light the agent is in a venv that has the edge extra alone: memory, time to its page, what it imports."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Final, NamedTuple

MOST_BYTES: Final = 64_000_000
"""Resident, without a model, some seconds after the start."""
READY_S: Final = 1.0
STARTS: Final = 5
UNWANTED: Final = ("pandas", "pyarrow", "asammdf")
_SETTLED_S: Final = 3.0
_PATIENCE_S: Final = 30.0
_SETTINGS: Final = """\
device = "light"
clock = "system"
hot_dir = "hot"
[page]
port = 0
[metrics]
port = 0
[[source]]
pack_id = "A"
interface = "socketcan"
channel = "can0"
mapping = "mapping.toml"
"""


def checked(python: Path, folder: Path) -> str:
    """One line of numbers. Ends with a sentence when the agent is too heavy or too slow."""
    starts = [_start(python, folder / f"light-{n}", imports=n == 0) for n in range(STARTS)]
    # The first one compiles and tells its imports; of the others, the one that was disturbed least.
    ready_s = min(start.ready_s for start in starts[1:])
    rss = max(start.rss for start in starts[1:])
    if rss > MOST_BYTES:
        raise SystemExit(
            f"packtwin: the agent holds {rss / 1e6:.0f} MB without a model, at most {MOST_BYTES / 1e6:.0f}"
        )
    if ready_s > READY_S:
        raise SystemExit(f"packtwin: the agent's page answers {ready_s:.2f} s after the start, at most {READY_S:.0f} s")
    return f"the agent: {rss / 1e6:.0f} MB without a model, ready in {ready_s:.2f} s, none of {', '.join(UNWANTED)}"


class _Start(NamedTuple):
    """One start: seconds until the page answers, resident bytes some seconds later.

    What it waited for a processor that others had does not count: a busy machine makes no agent slow.
    """

    ready_s: float
    rss: int


def _start(python: Path, folder: Path, *, imports: bool) -> _Start:
    """Starts it and ends it; imports: also checks what it imports."""
    folder.mkdir()
    (folder / "edge.toml").write_text(_SETTINGS)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    command = [str(python), *(["-X", "importtime"] if imports else []), "-m", "edge", "run", "--config", "edge.toml"]
    said = folder / "said"
    with said.open("w") as log:
        began_s = time.monotonic()
        agent = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        while not _answers(folder):
            if agent.poll() is not None or time.monotonic() - began_s > _PATIENCE_S:
                raise SystemExit(f"packtwin: the agent does not start: {said.read_text()[-2000:]}")
            time.sleep(0.01)
        ready_s = time.monotonic() - began_s - _waited_s(agent.pid)
        time.sleep(_SETTLED_S)
        status = Path(f"/proc/{agent.pid}/status").read_text()
    finally:
        agent.terminate()
        agent.wait(20)
    if imports:
        names = {
            line.rsplit("|", 1)[1].strip().partition(".")[0] for line in said.read_text().splitlines() if "|" in line
        }
        found = sorted(names.intersection(UNWANTED))
        if found:
            raise SystemExit(f"packtwin: the agent imports {', '.join(found)}; a small board cannot carry that")
    return _Start(ready_s, int(status.partition("VmRSS:")[2].split()[0]) * 1024)


def _waited_s(pid: int) -> float:
    """How long the main thread of a process could have run and had no processor; 0 where the kernel does not say."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def _answers(folder: Path) -> bool:
    try:
        page = json.loads((folder / "hot" / "running.json").read_text("utf-8"))["page"]
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{page}/status.json", timeout=5) as answer:
            return bool(json.load(answer)["running"])
    except (OSError, ValueError, KeyError):
        return False
