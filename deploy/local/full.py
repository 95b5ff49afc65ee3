"""What STACK=full adds to the small stack: the servers that other software expects, as far as this machine has them.

`plan` decides once, before anything starts: what runs, at which port, what is missing and how to get it. Where Kafka
is missing the bus stays `direct`, where Mosquitto is missing the agent sends by HTTP.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import beside
import kafka
import mosquitto
import ports
import postgres
import stack
from services import Service, answers, left_out
from settings import FULL_PORTS, ROOT, Settings

from cloud import config as cloud_config
from cloud.access import door_of
from shared.errors import ConfigError, PacktwinError

KAFKA_PORT, CONTROLLER_PORT, BROKERS = 9092, 19092, 3
TOLD = ("BUS", "KAFKA_BOOTSTRAP", "KAFKA_REPLICATION", "MQTT_HOST", "MQTT_PORT", "MLFLOW_TRACKING_URI")
# A command beside the stack must not want the ports of the processes that run.
ANY_PORT = {"INGEST_METRICS_PORT": "0", "GATEWAY_METRICS_PORT": "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The services beside the small stack's, in the order of their start, and what our processes are told of them."""

    servers: Sequence[Service]  # before the API
    ours: Sequence[Service]  # after it
    watchers: Sequence[Service]  # last; nothing of ours waits for them
    settings: Settings

    @property
    def missing(self) -> Sequence[Service]:
        return [each for each in (*self.servers, *self.ours, *self.watchers) if each.missing]


def nothing(settings: Settings) -> Plan:
    """Returns the plan of the small stack."""
    return Plan(servers=[], ours=[], watchers=[], settings=settings)


def for_commands(settings: Settings) -> dict[str, str]:
    """Returns what a command on the running stack (make cloud ARGS=...) is told of it; nothing secret."""
    if not settings.full:
        return {}
    return {**{name: settings.environment[name] for name in TOLD if name in settings.environment}, **ANY_PORT}


def plan(settings: Settings, at: postgres.Login, paths: stack.Paths, tell: Callable[[str], None]) -> Plan:
    """Returns the plan. ConfigError: a port that was asked for is busy, or a server of the user's does not answer."""
    at_port = _claim(settings)
    told: dict[str, str] = {name: str(at_port[name]) for name in ("INGEST_METRICS_PORT", "GATEWAY_METRICS_PORT")}
    brokers = _kafka(settings, at_port, paths, tell, told)
    broker = _mqtt(settings, at_port, paths, told)
    store = beside.store(settings, at_port, paths)
    trackings = beside.mlflow(settings, at_port, paths, store, told)
    ours = _told(settings, at_port, told)
    alarms = beside.alarms(at_port, paths)
    return Plan(
        servers=[*brokers, broker],
        ours=[_ingest(ours, at), _gateway(ours, at, broker)],
        watchers=[
            store,
            trackings,
            beside.metrics(ours, at_port, paths, alarms),
            alarms,
            beside.dashboards(ours, at, at_port, paths),
        ],
        settings=ours,
    )


def _claim(settings: Settings) -> Mapping[str, int]:
    """A port for everything that STACK=full listens on; nobody's default is taken by one that had to move."""
    wanted: dict[str, tuple[int | None, int]] = {
        name: (settings.ports.get(name), default) for name, default in FULL_PORTS.items()
    }
    wanted["EDGE_PORT"] = (settings.edge_port, stack.EDGE_PORT)
    wanted["METRICS_PORT"] = (settings.metrics_port, stack.METRICS_PORT)
    if settings.environment.get("MQTT_HOST"):
        del wanted["MQTT_PORT"]  # it is the port of a server of the user's
    for node in range(_brokers_wanted(settings)):
        wanted[f"KAFKA_BOOTSTRAP {node + 1}"] = (None, KAFKA_PORT if node == 0 else CONTROLLER_PORT + 10 * node + 1)
        wanted[f"Kafka's controller {node + 1}"] = (None, CONTROLLER_PORT + 10 * node)
    return ports.claim_all(wanted, taken=frozenset({settings.cloud.api_port}))


def _brokers_wanted(settings: Settings) -> int:
    """One broker, or as many as the replication that is asked for; 0 where none of ours runs."""
    if settings.environment.get("KAFKA_BOOTSTRAP") or settings.environment.get("BUS") == "direct":
        return 0
    replication = settings.cloud.kafka.replication
    if replication not in (1, BROKERS):
        raise ConfigError(
            f"KAFKA_REPLICATION={replication}: make run starts one Kafka broker or {BROKERS}; set it to 1 or "
            f"{BROKERS}, or KAFKA_BOOTSTRAP to a Kafka of yours"
        )
    return replication


def _told(settings: Settings, at_port: Mapping[str, int], told: Mapping[str, str]) -> Settings:
    """The settings as our own processes get them."""
    environment = {**settings.environment, **told}
    return replace(
        settings,
        environment=environment,
        cloud=cloud_config.load(environment),
        edge_port=at_port["EDGE_PORT"],
        metrics_port=at_port["METRICS_PORT"],
    )


def yours(name: str, setting: str, host: str, port: int) -> Service:
    """Returns a server of the user's; ConfigError when nobody listens there."""
    try:
        socket.create_connection((host, port), timeout=3).close()
    except OSError as error:
        raise ConfigError(
            f"{setting}: nobody answers at {host}:{port} ({error.strerror or error}); start it, or leave it unset"
        ) from error
    address = f"{host}:{port}"
    return Service(name=name, address=f"{address} (yours)", command=[], ready=lambda: True, health=f"tcp://{address}")


def _kafka(
    settings: Settings,
    at_port: Mapping[str, int],
    paths: stack.Paths,
    tell: Callable[[str], None],
    told: dict[str, str],
) -> Sequence[Service]:
    if settings.environment.get("BUS") == "direct":
        return [left_out("kafka", "BUS=direct is set")]
    bootstrap = settings.environment.get("KAFKA_BOOTSTRAP")
    if bootstrap:
        host, _, port = bootstrap.split(",")[0].strip().rpartition(":")
        told["BUS"] = "kafka"
        return [yours("kafka", f"KAFKA_BOOTSTRAP={bootstrap}", host or kafka.HOST, int(port) if port.isdigit() else 0)]
    problem = kafka.problem()
    if problem is not None:
        return [left_out("kafka", problem)]
    if not kafka.resolved():
        tell("fetching Kafka (43 MB, once)")
    try:
        jars = kafka.fetch()
    except PacktwinError as error:
        return [left_out("kafka", str(error))]
    numbers = range(1, _brokers_wanted(settings) + 1)
    cluster = kafka.Cluster(
        jars,
        paths.local / "kafka" / "brokers",
        [kafka.Ports(at_port[f"KAFKA_BOOTSTRAP {n}"], at_port[f"Kafka's controller {n}"]) for n in numbers],
    )
    if cluster.made not in (0, len(cluster.ports)):  # a topic's copies would be where nobody is, or its brokers too few
        raise ConfigError(
            f"KAFKA_REPLICATION={cluster.replication} is not what the Kafka in {cluster.folder} was made with: set it "
            f"to {cluster.made}, or remove that folder and with it what the database has not read yet"
        )
    told |= {"BUS": "kafka", "KAFKA_BOOTSTRAP": cluster.bootstrap, "KAFKA_REPLICATION": str(cluster.replication)}
    return [_broker(cluster, broker) for broker in cluster.brokers]


def _broker(cluster: kafka.Cluster, broker: kafka.Broker) -> Service:
    only, last = len(cluster.ports) == 1, broker == cluster.brokers[-1]
    address = f"{kafka.HOST}:{broker.ports.client}"
    return Service(
        name="kafka" if only else f"kafka-{broker.node}",
        address=address,
        command=cluster.command(broker),
        environment=beside.SYSTEM,
        prepare=cluster.prepare,
        # Two of three must be there before any of them answers, so only the last is waited for.
        ready=lambda: not last or all(map(cluster.ready, cluster.brokers)),
        health=f"kafka://{address}",
    )


def _mqtt(settings: Settings, at_port: Mapping[str, int], paths: stack.Paths, told: dict[str, str]) -> Service:
    own = settings.cloud.mqtt
    if settings.environment.get("MQTT_HOST"):
        return yours("mosquitto", f"MQTT_HOST={own.host}", own.host, own.port)
    problem = mosquitto.problem()
    if problem is not None:
        return left_out("mosquitto", problem)
    tls = _tls(settings, at_port["BROKER_TLS_PORT"]) if door_of(settings.cloud).tls else None
    broker = mosquitto.Broker(paths.local / "mosquitto", at_port["MQTT_PORT"], tls)
    told |= {"MQTT_HOST": mosquitto.HOST, "MQTT_PORT": str(broker.port)}
    address = f"mqtt://{mosquitto.HOST}:{broker.port}"
    if tls is not None:
        told["MQTT_PASSWORD_FILE"] = str(broker.password_file)
        address += f"  mqtts://{tls.host}:{tls.port}"
    return Service(
        name="mosquitto",
        address=address,
        command=broker.command(),
        environment=beside.SYSTEM,
        prepare=broker.prepare,
        ready=broker.ready,
        health=f"mqtt://{mosquitto.HOST}:{broker.port}",
    )


def _tls(settings: Settings, port: int) -> mosquitto.Tls:
    """The listener for devices of other machines: where the API is served to them, and with a certificate like its."""
    access, host, now = settings.cloud.access, settings.cloud.api_host, datetime.now(UTC)
    if access.cert_file and access.key_file:
        return mosquitto.Tls(port, access.cert_file.absolute(), access.key_file.absolute(), host)
    from cloud.tls import Authority, names_of

    authority = Authority(ROOT / access.tls_dir)
    authority.prepare(now)
    pair = authority.pair("mqtt", names_of(host, access), now)
    return mosquitto.Tls(port, pair.cert_file, pair.key_file, host)


def _ingest(settings: Settings, at: postgres.Login) -> Service:
    if settings.cloud.bus != "kafka":
        return left_out("ingest", "without Kafka the API itself writes to the database")
    return _cloud("ingest", settings, at, settings.cloud.ingest_metrics_port)


def _gateway(settings: Settings, at: postgres.Login, broker: Service) -> Service:
    if broker.missing:
        return left_out("gateway", "without an MQTT broker there is nothing to read from")
    return _cloud("gateway", settings, at, settings.cloud.gateway_metrics_port)


def _cloud(name: str, settings: Settings, at: postgres.Login, port: int) -> Service:
    url = f"http://127.0.0.1:{port}"
    return Service(
        name=name,
        address=f"{url}/metrics",
        command=[sys.executable, "-m", "cloud", name],
        environment=stack.for_process(settings, at.environment()),
        cwd=ROOT,
        ready=lambda: answers(f"{url}/health"),
        health=f"{url}/health",
    )
