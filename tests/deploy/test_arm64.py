"""The agent as a 64-bit Pi runs it: installed by deploy/edge/install.sh into a Debian for arm64, with a cloud outside.

qemu runs every arm64 instruction, so times are some ten times those of a Pi 4; memory counts qemu's own, too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from arm64_root import Arm64Root
from conftest import ROOT
from e2e.stack import Stack, fetch
from free_ports import free_port
from waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.root]

EDGE = ROOT / "deploy" / "edge"
VENV = "/opt/packtwin/current"
COMMAND = "/usr/local/bin/packtwin-edge"
MOST_MIB = 220
SAMPLES = 600
INSTALL = ("sh", "/packtwin/deploy/edge/install.sh", "--wheels", "/wheels", "--device", "pi")
PROBE = """
from pathlib import Path
import cloud
from edge.inference import probe
from shared.bundle import read
(path,) = (Path(cloud.__path__[0]) / "champion").glob("*.bundle")
probe(path, read(path.read_bytes()), memory_mb=16_000, limit_s=300)  # qemu takes its time, and addresses
print(path.stem)
"""
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")


@dataclass
class Pi:
    """The installed system, and the cloud outside it."""

    system: Arm64Root
    cloud: Stack

    def settings(self, name: str, **changes: str) -> str:
        """Writes /etc/packtwin/NAME.toml: what the installer wrote, with lines `key = ...` replaced; its path."""
        text = self.system.path("/etc/packtwin/edge.toml").read_text()
        for key, value in {"url": self.cloud.api, "clock": "system", **changes}.items():
            text, count = re.subn(rf"^{key} = .*$", f'{key} = "{value}"', text, flags=re.MULTILINE)
            assert count == 1, key
        self.system.path(f"/etc/packtwin/{name}.toml").write_text(text)
        return f"/etc/packtwin/{name}.toml"

    def agent(self, *words: str) -> str:
        """Runs a command of the agent to its end, as the service's user."""
        return self.system.run(COMMAND, *words, account="packtwin")


@pytest.fixture
def pi(tmp_path: Path) -> Iterator[Pi]:
    tmp_path.chmod(0o755)
    (tmp_path / "cloud").mkdir()
    fetch_wheels(tmp_path / "wheels")
    with Arm64Root(tmp_path) as system, Stack(tmp_path / "cloud", cars=1) as cloud:
        shutil.copytree(EDGE, system.path("/packtwin/deploy/edge"))
        system.show(tmp_path / "wheels", "/wheels")
        yield Pi(system, cloud)


def fetch_wheels(target: Path) -> None:
    """packtwin's wheel, and for arm64 those of the agent's list, each by its hash."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "download", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp", *platforms]
    command += ["--require-hashes", "-r", str(EDGE / "requirements.txt"), "-d", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"a package of the agent has no wheel for arm64: {done.stderr[-2000:]}"


@pytest.mark.timeout(1800)  # minutes where the machine has nothing else to do
def test_a_64_bit_pi_installs_starts_sends_and_lets_go(pi: Pi, capsys: pytest.CaptureFixture[str]) -> None:
    """One test, since each step stands on the one before; what was measured is printed also when all is well."""
    figures = [installs(pi), installs_again(pi)]
    pi.cloud.start("database", "api", "sim")
    figures += [acknowledges_600(pi), runs(pi), predicts(pi)]
    uninstalls(pi)
    with capsys.disabled():
        print("\narm64 (qemu): " + "; ".join(figures))


def installs(pi: Pi) -> str:
    began_s = time.monotonic()
    said = pi.system.run(*INSTALL)
    took_s = time.monotonic() - began_s
    assert "is installed" in said and "systemd does not run here" in said
    assert pi.system.run(f"{VENV}/bin/python", "-c", "import platform; print(platform.machine())") == "aarch64\n"
    mib = int(pi.system.run("du", "-sm", f"{VENV}/").split()[0])
    assert mib <= MOST_MIB
    return f"installed in {took_s:.0f} s, du {mib} MiB (<= {MOST_MIB})"


def installs_again(pi: Pi) -> str:
    """Nothing is built anew, and what a person changed stays."""
    folder, written = pi.system.path("/opt/packtwin"), pi.system.path("/etc/packtwin/edge.toml")
    before = sorted(each.name for each in folder.iterdir())
    assert 'device = "pi"' in written.read_text()
    written.write_text(written.read_text() + "# mine\n")
    began_s = time.monotonic()
    assert "is up to date" in pi.system.run(*INSTALL)
    assert sorted(each.name for each in folder.iterdir()) == before
    assert written.read_text().endswith("# mine\n")
    for unit in ("packtwin-edge.service", "packtwin-can@.service"):
        assert pi.system.path(f"/etc/systemd/system/{unit}").read_text() == (EDGE / unit).read_text()
    return f"again in {time.monotonic() - began_s:.0f} s"


def acknowledges_600(pi: Pi) -> str:
    pi.system.path("/etc/packtwin/csv.toml").write_text(
        '[csv]\ntime = "t_s"\nstart = 2026-01-01T00:00:00Z\npack_id = "PI_REPLAY"\n[pack]\nseries = 2\n'
        '[fields]\npack_v = { from = "v" }\ncurrent_a = { from = "i" }\ncell_v = { from = ["c0", "c1"] }\n'
    )
    rows = [f"{t},{7.2 + t % 5 / 10:.1f},{-(t % 40)},3.6{t % 10},3.7{t % 10}" for t in range(SAMPLES)]
    pi.system.path("/etc/packtwin/drive.csv").write_text("t_s,v,i,c0,c1\n" + "\n".join(rows) + "\n")
    config = pi.settings("replay", pack_id="PI_REPLAY")
    began_s = time.monotonic()
    replay = ("replay", "/etc/packtwin/drive.csv", "--mapping", "/etc/packtwin/csv.toml", "--config", config)
    pi.agent(*replay)
    took_s = time.monotonic() - began_s
    pi.agent(*replay)  # the cloud has them all already
    assert in_the_cloud(pi, "PI_REPLAY") == (SAMPLES, SAMPLES)
    return f"{SAMPLES} Samples acknowledged in {took_s:.1f} s"


def runs(pi: Pi) -> str:
    """As the unit starts it: same user, same folders. The simulated car and the cloud are outside."""
    bus = pi.cloud.folder / "can"
    bus.chmod(0o755)  # as a serial port that the service's user may use
    (bus / "BATTERY_001").resolve().chmod(0o666)
    pi.system.show(bus, "/can")
    pi.system.run("install", "-d", "-o", "packtwin", "-g", "packtwin", "/run/packtwin")
    config = pi.settings("agent", pack_id="BATTERY_001", interface="slcan", channel="/can/BATTERY_001")
    page = free_port()
    told = {"EDGE_PORT": str(page), "METRICS_PORT": str(free_port()), "TELEMETRY_INTERVAL": "0.5"}
    log = pi.cloud.logs / "agent-arm64.log"
    command = pi.system.command(COMMAND, "run", "--config", config, account="packtwin", environment=told)
    began_s = time.monotonic()
    with log.open("wb") as out:
        agent = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        status = f"http://127.0.0.1:{page}/status.json"
        until("the agent answers", lambda: agent.poll() is not None or fetch(status), 120)
        start_s = time.monotonic() - began_s
        until(
            "60 acknowledged samples", lambda: ((fetch(status) or {}).get("samples") or {}).get("acked", 0) >= 60, 180
        )
        rss = rss_mib(agent.pid)
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(60) == 0
    finally:
        agent.kill()
        agent.wait()
    counts = json.loads(pi.agent("status", "--json", "--config", config))["samples"]
    assert counts["acquired"] == counts["stored"] + counts["filtered"] + counts["rejected"]
    assert counts["stored"] == sum(counts[part] for part in ("acked", "refused", "pending", "evicted", "lost"))
    assert counts["lost"] == counts["refused"] == counts["evicted"] == 0
    rows, distinct = in_the_cloud(pi, "BATTERY_001")
    assert rows == distinct and counts["acked"] <= rows <= counts["stored"]
    return f"starts in {start_s:.1f} s, RSS {rss:.0f} MiB with qemu's own"


def predicts(pi: Pi) -> str:
    """The model that ships answers its golden rows on this architecture as where it was made."""
    began_s = time.monotonic()
    assert pi.system.run(f"{VENV}/bin/python", "-c", PROBE, account="packtwin") == "rul-1\n"
    return f"model probed in {time.monotonic() - began_s:.1f} s"


def uninstalls(pi: Pi) -> None:
    """Settings, and what was not sent, stay."""
    data = pi.system.path("/var/lib/packtwin")
    before = sorted(each.name for each in data.iterdir())
    assert before
    assert "are still here" in pi.system.run("sh", "/packtwin/deploy/edge/install.sh", "--uninstall")
    for gone in ("/opt/packtwin", COMMAND, "/etc/systemd/system/packtwin-edge.service"):
        assert not os.path.lexists(pi.system.path(gone)), gone
    assert sorted(each.name for each in data.iterdir()) == before
    assert pi.system.path("/etc/packtwin/edge.toml").exists()


def in_the_cloud(pi: Pi, pack: str) -> tuple[int, int]:
    """(rows, different ones) of a pack."""
    sql = "SELECT count(*), count(DISTINCT (device, boot, seq)) FROM samples WHERE pack_id = %s"
    ((rows, distinct),) = pi.cloud.query(sql, pack)
    return rows, distinct


def rss_mib(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found.group(1)) / 1024
