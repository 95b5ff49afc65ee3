"""`python -m cloud ingest` (or another command of the cloud) as a process of a test's own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from free_ports import free_port
from kafka_server import processes
from waiting import until

from cloud.config import Config

ROOT = Path(__file__).parents[1]


def environment(config: Config, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The settings as a process of ours reads them, and nothing else."""
    database, kafka = config.database, config.kafka
    return {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "DB_HOST": database.host,
        "DB_PORT": str(database.port),
        "DB_NAME": database.name,
        "DB_USER": database.user,
        "DB_PASSWORD": database.password,
        "BUS": config.bus,
        "KAFKA_BOOTSTRAP": kafka.bootstrap,
        "KAFKA_REPLICATION": str(kafka.replication),
        **(more or {}),
    }


def command(config: Config, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m cloud WORDS` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "cloud", *words],
        env=environment(config),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@dataclass
class IngestProcess:
    """A context manager; it may be killed and started again."""

    config: Config
    folder: Path
    words: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def __enter__(self) -> IngestProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind is not None:
            print("\n".join(self.log.read_text(errors="replace").splitlines()[-40:]))

    @property
    def log(self) -> Path:
        return self.folder / "ingest.log"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Starts it and waits until it answers, be it well or not."""
        self.process = processes.spawn(
            [sys.executable, "-m", "cloud", "ingest", *self.words],
            environment=environment(self.config, {"INGEST_METRICS_PORT": str(self.port)}),
            cwd=self.folder,
            log=self.log,
            death_signal=signal.SIGKILL,
        )
        until("the ingest answers", lambda: self.health()[0] > 0)

    def kill(self) -> None:
        """SIGKILL, and gone when this returns."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """SIGTERM; AssertionError when it does not end well."""
        if self.process is not None:
            self.process.terminate()
            code = self.process.wait(20)
            self.process = None
            assert code == 0, f"the ingest ended with {code}"

    def health(self) -> tuple[int, dict[str, Any]]:
        """(status, body) of /health; (0, {}) when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as answer:
            return answer.code, json.load(answer)
        except OSError:
            return 0, {}

    def metrics(self) -> dict[str, float]:
        """Name (with its labels) -> value."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}
