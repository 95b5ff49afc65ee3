"""CPU and memory of the whole agent: one simulated car, decoding, outbox, page, metrics, uplink to a cloud beside it.

Row 12: RSS <= 128 MB; the CPU is printed. `python tests/benchmarks/bench_agent.py [SECONDS]`
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from fakes.cloud import FakeCloud, served  # noqa: E402

WARM_UP_S = 8.0
SECONDS = 30.0
LIMIT_MB = 128.0


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mb(pid: int) -> float:
    """The most memory it ever held."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("no VmHWM")


def frames(folder: Path) -> int:
    """Frames that the agent has read, as its page says."""
    page = json.loads((folder / "hot" / "running.json").read_text())["page"]
    with urllib.request.urlopen(f"{page}/status.json", timeout=5) as answer:
        return int(json.load(answer)["packs"][0]["source"]["frames"])


def measure(folder: Path, mode: str, seconds: float) -> tuple[float, float, float]:
    """(share of one core, peak RSS in MB, frames per s) of an agent in an uplink mode."""
    environment = {**os.environ, "PACKTWIN_RUN": str(folder / "run"), "PYTHONPATH": str(ROOT)}
    with served(FakeCloud(time.time_ns)) as url:
        (folder / "edge.toml").write_text(
            f'device = "bench"\nclock = "system"\nhot_dir = "hot"\n[uplink]\nurl = "{url}"\nmode = "{mode}"\n'
            "[page]\nport = 0\n[metrics]\nport = 0\n"
            '[[source]]\npack_id = "BATTERY_001"\nchannel = "can/BATTERY_001"\nmapping = "mapping.toml"\n'
        )
        car = ["firmware_bridge", "sim", "--cars", "1", "--channel", str(folder / "can")]
        children = []
        try:
            for command in (car, ["edge", "run", "--config", str(folder / "edge.toml")]):
                children.append(
                    subprocess.Popen(
                        [sys.executable, "-m", *command],
                        cwd=ROOT,
                        env=environment,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                    )
                )
            time.sleep(WARM_UP_S)
            agent = children[1].pid
            before, frames_before, since = cpu_s(agent), frames(folder), time.monotonic()
            time.sleep(seconds)
            elapsed = time.monotonic() - since
            return (
                (cpu_s(agent) - before) / elapsed,
                peak_mb(agent),
                (frames(folder) - frames_before) / elapsed,
            )
        finally:
            for child in children:
                child.terminate()
                child.wait(15)


def main(arguments: list[str]) -> int:
    """Prints one line per uplink mode; 1 when the memory is over its limit."""
    seconds = float(arguments[0]) if arguments else SECONDS
    worst_mb = 0.0
    for mode in ("live", "normal"):
        with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as name:
            share, rss_mb, rate = measure(Path(name), mode, seconds)
        worst_mb = max(worst_mb, rss_mb)
        us = share / rate * 1e6
        print(f"1 car, {mode:6}: {share:6.2%} of a core, {us:.1f} us/frame at {rate:,.0f} frames/s, {rss_mb:.0f} MB")
    print(
        f"row 12: peak RSS {worst_mb:.0f} MB, limit {LIMIT_MB:.0f} MB: {'ok' if worst_mb <= LIMIT_MB else 'TOO MUCH'}"
    )
    return int(worst_mb > LIMIT_MB)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
