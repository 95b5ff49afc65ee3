"""A real Kafka of a test's own, to be stopped, killed and started again on the same ports; one broker or three."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "deploy" / "local"))

import kafka
import processes
from aiokafka.admin import AIOKafkaAdminClient
from free_ports import free_port

from cloud.config import Kafka
from cloud.kafka import BATCHES, DEAD, EARLIER

__all__ = ["KafkaServer", "problem", "processes", "served"]


@dataclass
class KafkaServer:
    """The brokers of one cluster. In real life a process is killed, not its machine: what it wrote stays."""

    cluster: kafka.Cluster
    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict, repr=False)

    @property
    def settings(self) -> Kafka:
        """As the cloud's settings say it."""
        return Kafka(self.cluster.bootstrap, self.cluster.replication)

    def start(self, *nodes: int) -> None:
        """Starts brokers (none named: all) and waits until each answers."""
        chosen = [broker for broker in self.cluster.brokers if broker.node in nodes or not nodes]
        for broker in chosen:
            self.running[broker.node] = processes.spawn(
                self.cluster.command(broker),
                environment={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
                cwd=broker.folder,
                log=self._log(broker),
                death_signal=signal.SIGKILL,
            )
        deadline = time.monotonic() + 90
        for broker in chosen:
            while not self.cluster.ready(broker):
                alive = self.running[broker.node].poll() is None
                assert alive and time.monotonic() < deadline, self._log(broker).read_text()[-2000:]
                time.sleep(0.05)  # a poll with a deadline, not a synchronisation

    def kill(self, node: int = 1) -> None:
        """SIGKILL, and gone when this returns."""
        process = self.running.pop(node)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """Ends all brokers."""
        for node in list(self.running):
            self.kill(node)

    def clear(self) -> None:
        """Forgets all topics of ours, so that the next test begins with none."""
        asyncio.run(self._clear())

    async def _clear(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.cluster.bootstrap)
        await admin.start()
        try:
            ours = {BATCHES, DEAD, EARLIER}
            async with asyncio.timeout(30):
                while there := ours & set(await admin.list_topics()):
                    await admin.delete_topics(sorted(there))
                    await asyncio.sleep(0.05)
        finally:
            await admin.close()

    def _log(self, broker: kafka.Broker) -> Path:
        return broker.folder / "log"


@contextmanager
def served(brokers: int = 1, heap_mb: int = 384) -> Iterator[KafkaServer]:
    """A running cluster, gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="packtwin-kafka-"))
    pairs = tuple(kafka.Ports(free_port(), free_port()) for _ in range(brokers))
    server = KafkaServer(kafka.Cluster(kafka.fetch(), folder, pairs, heap_mb))
    server.cluster.prepare()
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def problem() -> str | None:
    """What is missing for a Kafka here; None = nothing."""
    return kafka.problem()
