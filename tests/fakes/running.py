"""A real agent with real simulated cars in one folder, and the model that it runs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from edge.ota.state import Model, State
from edge.ota.store import Folder
from shared.bundle import read
from shared.record_lines import to_line
from shared.records import Session

ROOT = Path(__file__).parents[2]
T = TypeVar("T")


class Bench:
    """Cars and an agent in one folder; call `close` at the end."""

    def __init__(self, folder: Path, cars: int = 1) -> None:
        self.folder = folder
        self.packs = [f"BATTERY_{number:03}" for number in range(1, cars + 1)]
        self.children: list[subprocess.Popen[bytes]] = []
        self.environment = {**os.environ, "PACKTWIN_RUN": str(folder / "run"), "PYTHONPATH": str(ROOT)}
        for name in ("TELEMETRY_INTERVAL", "PREDICTION_INTERVAL"):
            self.environment.pop(name, None)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{arguments[0]}.log").open("ab")
        child = subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=ROOT, env=self.environment, stdout=log, stderr=log
        )
        self.children.append(child)
        return child

    def car(self) -> subprocess.Popen[bytes]:
        return self.start(
            "firmware_bridge", "sim", "--cars", str(len(self.packs)), "--channel", str(self.folder / "can")
        )

    def agent(
        self, url: str, settings: str = "", *, past: Path | None = None, sample_s: float = 0.2
    ) -> subprocess.Popen[bytes]:
        """settings: more lines for the top of edge.toml. past: of every pack (its lines must name it)."""
        sources = "".join(
            f'[[source]]\npack_id = "{pack}"\nchannel = "can/{pack}"\nmapping = "mapping.toml"\n'
            + (f'past = "{past / pack}.jsonl"\n' if past else "")
            for pack in self.packs
        )
        (self.folder / "edge.toml").write_text(
            f'device = "bench"\nclock = "system"\nhot_dir = "hot"\nsample_s = {sample_s}\n{settings}'
            f'[uplink]\nurl = "{url}"\nmode = "live"\n[page]\nport = 0\n[metrics]\nport = 0\n{sources}'
        )
        return self.start("edge", "run", "--config", str(self.folder / "edge.toml"))

    def status(self) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "edge", "status", "--json", "--config", str(self.folder / "edge.toml")],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            check=True,
        )
        return json.loads(done.stdout)  # type: ignore[no-any-return]

    def page(self) -> dict[str, Any] | None:
        """What the running agent's own page shows."""
        try:
            where = json.loads((self.folder / "hot" / "running.json").read_text())["page"]
            with urllib.request.urlopen(f"{where}/status.json", timeout=5) as answer:
                return json.load(answer)  # type: ignore[no-any-return]
        except (OSError, ValueError):
            return None

    def until(self, what: str, check: Callable[[dict[str, Any]], T]) -> T:
        """Asks the page until the check is true, 30 s at most."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            status = self.page()
            answer = check(status) if status else None
            if answer:
                return answer
            time.sleep(0.05)  # a poll with a deadline, not a synchronisation
        raise AssertionError(f"{what} did not happen: {(self.folder / 'edge.log').read_text()[-2000:]}")

    def close(self) -> None:
        """Ends all that was started."""
        for child in self.children:
            child.kill()
            child.wait()


def write_pasts(folder: Path, packs: list[str], sessions: int = 60) -> Path:
    """A past of each pack: so many Sessions, one cycle each. Returns their folder."""
    folder.mkdir(exist_ok=True)
    for pack in packs:
        lines = [
            Session(
                pack_id=pack, seq=0, mono_ns=0, t_ns=1_700_000_000_000_000_000 + k * 10**14, duration_s=9e4,
                cycles=1.1 * k, throughput_ah=396.0 * k, age_days=30.0 + 1.2 * k, soh_bms=0.99, moved_ah=396.0,
                r_step_mohm=0.8 + k / 1000, r_step_max_mohm=0.9 + k / 1000, cell_dev_mv=4.0, temp_mean_c=24.0,
                temp_spread_c=2.0, hot_h=0.0, window_ah=60.0, simulated=True,
            )
            for k in range(1, sessions + 1)
        ]  # fmt: skip
        (folder / f"{pack}.jsonl").write_text("".join(f"{to_line(line)}\n" for line in lines))
    return folder


def install(data_dir: Path, *bodies: bytes, proven: bool = True) -> str:
    """Puts bundles where the agent keeps them: the first is active, the second the one before. Its sha256."""
    folder = Folder(data_dir / "models")
    folder.prepare()
    models = []
    for body in bodies:
        sha256, manifest = hashlib.sha256(body).hexdigest(), read(body).manifest
        folder.bundle(sha256).write_bytes(body)
        models.append(Model(model_id=manifest.model_id, counter=manifest.counter, sha256=sha256, proven=proven))
    previous = models[1] if len(models) > 1 else None
    folder.save(State(active=models[0], previous=previous))
    return models[0].sha256
