"""Whether a process lives. One that only waits for its parent or init to notice its end does not."""

from __future__ import annotations

from pathlib import Path


def status(pid: int, key: str) -> str:
    """A line of /proc/PID/status."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return lines[key].strip()


def alive(pid: int) -> bool:
    """See above."""
    try:
        return status(pid, "State")[0] not in "ZX"
    except (OSError, KeyError):
        return False
