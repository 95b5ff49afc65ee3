"""What STACK=full starts beside the records' road: S3, MLflow, Prometheus, Alertmanager, Grafana; all optional."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import door
import grafana
import postgres
import prometheus
import s3
import stack
import state
import tracking
from services import Service, answers, left_out
from settings import Settings

BUCKET = "packtwin-mlflow"
SYSTEM = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}


def store(settings: Settings, at_port: Mapping[str, int], paths: stack.Paths) -> Service:
    problem = s3.problem()
    if problem is not None:
        return left_out("s3", problem)
    port, folder = at_port["S3_PORT"], paths.local / "s3"
    url = f"http://{s3.HOST}:{port}"
    key, secret = s3_keys(paths.secrets)
    return Service(
        name="s3",
        address=f"{url}  keys in {paths.secrets.name}",
        command=[sys.executable, str(Path(s3.__file__)), str(port), str(folder)],
        environment=stack.for_process(settings, {"ROOT_ACCESS_KEY": key, "ROOT_SECRET_KEY": secret}),
        prepare=lambda: s3.buckets(folder, BUCKET),
        ready=lambda: answers(url + s3.HEALTH),
        health=url + s3.HEALTH,
        optional=True,
    )


def s3_keys(file: Path) -> tuple[str, str]:
    """Returns the store's access key and secret key, made once."""
    return (
        state.secret(file, "S3_ACCESS_KEY", secrets.token_hex(10)),
        state.secret(file, "S3_SECRET_KEY", secrets.token_urlsafe(30)),
    )


def mlflow(
    settings: Settings, at_port: Mapping[str, int], paths: stack.Paths, store: Service, told: dict[str, str]
) -> Service:
    uri = settings.environment.get("MLFLOW_TRACKING_URI")
    if uri:
        return left_out("mlflow", f"MLFLOW_TRACKING_URI={uri} is set")
    url = f"http://{tracking.HOST}:{at_port['MLFLOW_PORT']}"
    told["MLFLOW_TRACKING_URI"] = url
    reach: Mapping[str, str] = {}
    arguments = [str(at_port["MLFLOW_PORT"]), str(paths.local / "mlflow")]
    if not store.missing:
        reach = s3.environment(at_port["S3_PORT"], *s3_keys(paths.secrets))
        arguments.append(f"s3://{BUCKET}")
    return Service(
        name="mlflow",
        address=url,
        command=[sys.executable, str(Path(tracking.__file__)), *arguments],
        environment=stack.for_process(settings, reach),
        ready=lambda: answers(f"{url}/health"),
        health=f"{url}/health",
        optional=True,
    )


def metrics(settings: Settings, at_port: Mapping[str, int], paths: stack.Paths, alarms: Service) -> Service:
    problem = prometheus.problem()
    if problem is not None:
        return left_out("prometheus", problem)
    way = door.of(settings.cloud)
    targets = {} if way.access else {"api": way.url.split("//")[1]}
    targets["agent"] = f"127.0.0.1:{at_port['METRICS_PORT']}"
    if settings.cloud.bus == "kafka":
        targets["ingest"] = f"127.0.0.1:{at_port['INGEST_METRICS_PORT']}"
    if settings.environment.get("MQTT_HOST"):
        targets["gateway"] = f"127.0.0.1:{at_port['GATEWAY_METRICS_PORT']}"
    server = prometheus.Server(
        paths.local / "prometheus",
        at_port["PROMETHEUS_PORT"],
        targets,
        None if alarms.missing else f"127.0.0.1:{at_port['ALERTMANAGER_PORT']}",
        way if way.access else None,
    )
    return _watcher("prometheus", server.url, server.command(), server.prepare, server.ready_url)


def alarms(at_port: Mapping[str, int], paths: stack.Paths) -> Service:
    problem = prometheus.problem("alertmanager")
    if problem is not None:
        return left_out("alertmanager", problem)
    server = prometheus.Alertmanager(paths.local / "alertmanager", at_port["ALERTMANAGER_PORT"])
    return _watcher("alertmanager", server.url, server.command(), server.prepare, server.ready_url)


def dashboards(settings: Settings, at: postgres.Login, at_port: Mapping[str, int], paths: stack.Paths) -> Service:
    problem = grafana.problem()
    if problem is not None:
        return left_out("grafana", problem)
    server = grafana.Server(
        paths.local / "grafana",
        at_port["GRAFANA_PORT"],
        at,
        prometheus_url=f"http://127.0.0.1:{at_port['PROMETHEUS_PORT']}",
        admin_password=state.secret(paths.secrets, "GRAFANA_ADMIN_PASSWORD", secrets.token_urlsafe(12)),
        reader_password=state.secret(paths.secrets, "GRAFANA_DB_PASSWORD", secrets.token_urlsafe(24)),
    )
    address = f"{server.url}  user admin, password in {paths.secrets.name}"
    return _watcher("grafana", address, server.command(), server.prepare, server.ready_url, server.environment())


def _watcher(
    name: str,
    address: str,
    command: Sequence[str],
    prepare: Callable[[], None],
    url: str,
    environment: Mapping[str, str] = SYSTEM,
) -> Service:
    return Service(
        name=name,
        address=address,
        command=command,
        environment=environment,
        prepare=prepare,
        ready=lambda: answers(url),
        health=url,
        optional=True,
    )
