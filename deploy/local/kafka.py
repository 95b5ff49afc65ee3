"""A real Apache Kafka (KRaft, no ZooKeeper) on loopback: one broker or three, from the jars of deploy/kafka/pom.xml.

cluster = Cluster(fetch(), folder, (Ports(9092, 9093),))   # three Ports = three brokers, replication 3
cluster.prepare()
for broker in cluster.brokers: spawn(cluster.command(broker)), then wait for cluster.ready(broker)
"""

from __future__ import annotations

import base64
import fcntl
import os
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from programs import program
from settings import ROOT

from shared.errors import ConfigError, PacktwinError

POM = ROOT / "deploy" / "kafka" / "pom.xml"
LIBS = ROOT / ".local" / "kafka" / "libs"
HOST = "127.0.0.1"
JAVA_AT_LEAST = 17
MESSAGE_BYTES = 9 * 2**20  # a Batch has at most 8 MiB
GET_JAVA = "apt-get install default-jre-headless"
GET_MAVEN = "apt-get install maven"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where one broker listens: for clients, and for the other controllers."""

    client: int
    controller: int


@dataclass(frozen=True, slots=True)
class Broker:
    """One process of a cluster, broker and controller at once. node: 1, 2, 3."""

    node: int
    ports: Ports
    folder: Path

    @property
    def properties(self) -> Path:
        return self.folder / "server.properties"

    @property
    def data(self) -> Path:
        return self.folder / "data"


@dataclass(frozen=True, slots=True)
class Cluster:
    """One or more brokers below a folder. heap_mb: of each JVM; `more` goes into every server.properties."""

    libs: Path
    folder: Path
    ports: Sequence[Ports]
    heap_mb: int = 512
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def brokers(self) -> tuple[Broker, ...]:
        return tuple(Broker(node, each, self.folder / str(node)) for node, each in enumerate(self.ports, 1))

    @property
    def bootstrap(self) -> str:
        """What clients are told: host:port of every broker."""
        return ",".join(f"{HOST}:{each.client}" for each in self.ports)

    @property
    def replication(self) -> int:
        """How often a topic's data can be kept."""
        return min(3, len(self.ports))

    @property
    def made(self) -> int:
        """How many brokers an earlier start has made below the folder."""
        return len(list(self.folder.glob("*/server.properties")))

    def prepare(self) -> None:
        """Writes every broker's properties, and formats the data of those that have none yet (2 s each).

        The ports may differ from those of the start before. PacktwinError: Kafka's own complaint.
        """
        identity = self.folder / "cluster.id"
        for broker in self.brokers:
            broker.folder.mkdir(parents=True, exist_ok=True)
            broker.properties.write_text(
                "".join(f"{key}={value}\n" for key, value in self._properties(broker).items()), encoding="utf-8"
            )
        if not identity.exists():
            identity.write_text(_random_id())
        for broker in self.brokers:
            if not (broker.data / "meta.properties").exists():
                self._format(broker, identity.read_text())

    def command(self, broker: Broker) -> list[str]:
        """Returns the command of one broker in the foreground; it logs warnings to stderr."""
        heap = [f"-Xmx{self.heap_mb}m", f"-Xms{min(256, self.heap_mb)}m", "-XX:+ExitOnOutOfMemoryError"]
        return [*self._java(*heap), "kafka.Kafka", str(broker.properties)]

    def ready(self, broker: Broker) -> bool:
        """Returns whether the broker answers and has joined its cluster (its own metadata name it)."""
        return broker.node in _brokers_known_at(broker.ports.client)

    def _java(self, *options: str) -> list[str]:
        logging = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        return [str(java()), *options, logging, "-cp", str(self.libs / "*")]

    def _properties(self, broker: Broker) -> dict[str, str]:
        client, controller = f"{HOST}:{broker.ports.client}", f"{HOST}:{broker.ports.controller}"
        copies, in_sync = str(self.replication), str(max(1, self.replication - 1))
        return {
            "process.roles": "broker,controller",
            "node.id": str(broker.node),
            "listeners": f"PLAINTEXT://{client},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{client}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            # Named here and not in the data, so that a port may move from one start to the next.
            "controller.quorum.voters": ",".join(
                f"{node}@{HOST}:{each.controller}" for node, each in enumerate(self.ports, 1)
            ),
            "log.dirs": str(broker.data),
            "auto.create.topics.enable": "false",  # the cloud makes its topics as they must be
            "default.replication.factor": copies,
            "min.insync.replicas": in_sync,
            "offsets.topic.replication.factor": copies,
            "offsets.topic.num.partitions": "8",
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": in_sync,
            "transaction.state.log.num.partitions": "8",
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": in_sync,
            "share.coordinator.state.topic.num.partitions": "8",
            "group.initial.rebalance.delay.ms": "0",
            "message.max.bytes": str(MESSAGE_BYTES),
            "log.segment.bytes": str(64 * 2**20),  # what is past its retention goes in small pieces
            **self.more,
        }

    def _format(self, broker: Broker, cluster_id: str) -> None:
        shutil.rmtree(broker.data, ignore_errors=True)  # half formatted, if anything
        tool = ["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(broker.properties)]
        done = subprocess.run(
            [*self._java("-Xmx128m", "-XX:TieredStopAtLevel=1"), *tool], capture_output=True, text=True, check=False
        )
        if done.returncode:
            words = (done.stderr + done.stdout).strip().splitlines() or ["no message"]
            raise PacktwinError(f"Kafka could not prepare {broker.data}: {words[-1]}")


def problem(libs: Path = LIBS) -> str | None:
    """Returns what Kafka needs and this machine has not, with the way to get it; None when nothing is missing."""
    try:
        java()
    except ConfigError as error:
        return str(error)
    if not resolved(libs) and program("mvn") is None:
        return f"Kafka's jars need Maven to be fetched ({GET_MAVEN})"
    return None


def java() -> Path:
    """Returns a Java that Kafka runs on: that of JAVA_HOME, else the one on the PATH. ConfigError: none, or too old."""
    home = os.environ.get("JAVA_HOME")
    found = Path(home) / "bin" / "java" if home else program("java")
    if found is None or not found.exists():
        raise ConfigError(f"Kafka needs Java {JAVA_AT_LEAST} or newer ({GET_JAVA})")
    version = _java_version(found)
    if version < JAVA_AT_LEAST:
        raise ConfigError(f"Kafka needs Java {JAVA_AT_LEAST} or newer, {found} is {version} ({GET_JAVA})")
    return found


def _java_version(path: Path) -> int:
    """The major version, from the `release` file beside it where there is one: starting a JVM takes a while."""
    release = path.resolve().parent.parent / "release"
    try:
        said = release.read_text(encoding="utf-8", errors="replace")
    except OSError:
        said = subprocess.run([str(path), "-version"], capture_output=True, text=True, check=False).stderr
    match = re.search(r'"(?:1\.)?(\d+)', said)
    return int(match.group(1)) if match else 0


def resolved(libs: Path = LIBS) -> bool:
    """Returns whether the jars of the pom's version are there."""
    return (libs / f"kafka_2.13-{_version()}.jar").exists()


def _version() -> str:
    match = re.search(r"<artifactId>kafka_2\.13</artifactId>\s*<version>([^<]+)<", POM.read_text(encoding="utf-8"))
    assert match is not None, "the pom names Kafka's version"
    return match.group(1)


def fetch(libs: Path = LIBS) -> Path:
    """Returns the folder with Kafka's jars, fetched by Maven the first time (43 MB); safe to call from many processes.

    ConfigError: Maven is missing; PacktwinError: its own complaint.
    """
    if resolved(libs):
        return libs
    libs.parent.mkdir(parents=True, exist_ok=True)
    with (libs.parent / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not resolved(libs):
            _fetch(libs)
    return libs


def _fetch(libs: Path) -> None:
    maven = program("mvn")
    if maven is None:
        raise ConfigError(f"Kafka's jars need Maven to be fetched ({GET_MAVEN})")
    new = libs.with_name(libs.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={new}"]
    command = [str(maven), "-q", "-B", "-C", "-f", str(POM), *goal]  # -C: a wrong checksum is an error
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode or not resolved(new):
        errors = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line] or ["no message"]
        raise PacktwinError(f"Maven could not fetch Kafka: {errors[0]}")
    shutil.rmtree(libs, ignore_errors=True)
    new.rename(libs)


def _random_id() -> str:
    """A Kafka Uuid: 16 random bytes in base64url; none begins with a dash, which a command would take for an option."""
    while True:
        text = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def answers(port: int, host: str = HOST) -> bool:
    """Returns whether a Kafka answers there."""
    return bool(_brokers_known_at(port, host))


def _brokers_known_at(port: int, host: str = HOST) -> set[int]:
    """Returns the node ids that a broker's Metadata answer (v1, no topics) lists; empty when nobody answers in 3 s."""
    metadata, version, correlation, name = 3, 1, 1, b"packtwin"
    head = struct.pack(">hhih", metadata, version, correlation, len(name)) + name
    request = head + struct.pack(">i", 0)
    try:
        with socket.create_connection((host, port), timeout=3) as link, link.makefile("rb") as answer:
            link.sendall(struct.pack(">i", len(request)) + request)
            (size,) = struct.unpack(">i", answer.read(4))
            return _node_ids(answer.read(min(size, 2**20)))
    except (OSError, struct.error):
        return set()


def _node_ids(body: bytes) -> set[int]:
    """body: correlation id, then brokers as [node id, host, port, rack or null]."""
    _, count = struct.unpack_from(">ii", body)
    at, found = 8, set()
    for _ in range(count):
        node, host_size = struct.unpack_from(">ih", body, at)
        at += 6 + host_size + 4
        (rack_size,) = struct.unpack_from(">h", body, at)
        at += 2 + max(0, rack_size)
        found.add(node)
    return found
