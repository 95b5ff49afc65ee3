"""STACK=full decides before it starts: what is here, what is missing and how to get it, which port everything has."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import board
import full
import kafka
import ports
import postgres
import programs
import pytest
import s3
import settings
import stack
import state
import supervisor
from conftest import ROOT
from free_ports import free_port
from processes import identify
from services import Service, left_out

from shared.errors import ConfigError

AT = postgres.Login("127.0.0.1", 5432, "twin_data", "twin", "secret")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any of the servers; programs put into the returned folder are found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(programs, "MORE_PLACES", ())
    monkeypatch.setattr(s3, "BINARIES", tmp_path / "none")
    return folder


def planned(tmp_path: Path, **environment: str) -> full.Plan:
    """The plan of a checkout whose ports are all moved to free ones."""
    free = {name: str(free_port()) for name in (*settings.FULL_PORTS, "EDGE_PORT", "METRICS_PORT", "API_PORT")}
    if "MQTT_HOST" in environment:
        del free["MQTT_PORT"]
    told = settings.read_settings({"STACK": "full", **free, **environment}, tmp_path / ".env")
    return full.plan(told, AT, stack.Paths(tmp_path / ".local"), lambda _: None)


def names(services: object) -> list[str]:
    return [service.name for service in services]  # type: ignore[attr-defined]


def executable(folder: Path, name: str, text: str = "#!/bin/sh\n") -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_a_bare_machine_runs_what_it_can_and_says_how_to_get_the_rest(bare: Path, tmp_path: Path) -> None:
    plan = planned(tmp_path)
    missing = {each.name: each.missing for each in plan.missing}
    assert missing == {
        "kafka": "Kafka needs Java 17 or newer (apt-get install default-jre-headless)",
        "mosquitto": "MQTT needs Mosquitto (apt-get install mosquitto)",
        "ingest": "without Kafka the API itself writes to the database",
        "gateway": "without an MQTT broker there is nothing to read from",
        "s3": "an S3 store needs versitygw (https://github.com/versity/versitygw/releases, or Go: https://go.dev/dl)",
        "prometheus": "metrics need Prometheus (apt-get install prometheus)",
        "alertmanager": "alerts need Alertmanager (apt-get install prometheus-alertmanager)",
        "grafana": "dashboards need Grafana (https://grafana.com/grafana/download; Debian has no package)",
    }
    assert names(plan.watchers) == ["s3", "mlflow", "prometheus", "alertmanager", "grafana"]
    assert plan.settings.cloud.bus == "direct"
    assert stack.uplink(plan.settings, stack.Paths(tmp_path)) == ["[uplink]", f'url = "{stack.api_url(plan.settings)}"']


def test_with_a_broker_the_agent_sends_by_mqtt_and_fetches_models_by_http(bare: Path, tmp_path: Path) -> None:
    executable(bare, "mosquitto")
    plan = planned(tmp_path)
    port = plan.settings.cloud.mqtt.port
    assert names(plan.missing)[:2] == ["kafka", "ingest"]
    assert stack.uplink(plan.settings, stack.Paths(tmp_path)) == [
        "[uplink]",
        f'url = "mqtt://127.0.0.1:{port}"',
        f'models_url = "{stack.api_url(plan.settings)}"',
        "[readable]",
        f'url = "mqtt://127.0.0.1:{port}"',
    ]


def test_a_java_that_is_too_old_is_named(bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "java-11"
    (home / "bin").mkdir(parents=True)
    java = executable(home / "bin", "java")
    (home / "release").write_text('JAVA_VERSION="11.0.2"\n')
    monkeypatch.setenv("JAVA_HOME", str(home))
    with pytest.raises(ConfigError, match=re.escape(f"Kafka needs Java 17 or newer, {java} is 11 (apt-get")):
        kafka.java()
    (home / "release").write_text('JAVA_VERSION="1.8.0_402"\n')
    with pytest.raises(ConfigError, match="is 8 "):
        kafka.java()
    (home / "release").write_text('JAVA_VERSION="21.0.2"\n')
    assert kafka.java() == java
    assert kafka.problem(tmp_path / "libs") == "Kafka's jars need Maven to be fetched (apt-get install maven)"


@pytest.fixture
def with_kafka(monkeypatch: pytest.MonkeyPatch, bare: Path) -> None:
    """A machine that has all that Kafka needs; nothing of it starts."""
    java = executable(bare, "java")
    for name, answer in (("problem", None), ("resolved", True), ("fetch", bare), ("java", java)):
        monkeypatch.setattr(kafka, name, lambda answer=answer: answer)


@pytest.mark.usefixtures("with_kafka")
def test_the_replication_that_is_asked_for_says_how_many_brokers_start(tmp_path: Path) -> None:
    alone = planned(tmp_path)
    assert names(alone.servers) == ["kafka", "mosquitto"] and alone.settings.cloud.kafka.replication == 1
    three = planned(tmp_path, KAFKA_REPLICATION="3")
    brokers = three.servers[:3]
    assert names(brokers) == ["kafka-1", "kafka-2", "kafka-3"]
    assert [each.address for each in brokers] == three.settings.cloud.kafka.bootstrap.split(",")
    assert len({each.address for each in brokers}) == 3 and len({str(each.command) for each in brokers}) == 3
    assert (three.settings.cloud.bus, three.settings.cloud.kafka.replication) == ("kafka", 3)
    assert [each.ready() for each in brokers] == [True, True, False], "only the last is waited for, with the others"


@pytest.mark.usefixtures("with_kafka")
@pytest.mark.parametrize("asked", ["2", "5"])
def test_a_replication_that_make_run_cannot_give_is_one_sentence(tmp_path: Path, asked: str) -> None:
    """It was lowered in silence to what one broker, or three, can do."""
    with pytest.raises(ConfigError, match=f"KAFKA_REPLICATION={asked}: make run starts one Kafka broker or 3; set it"):
        planned(tmp_path, KAFKA_REPLICATION=asked)
    assert planned(tmp_path, KAFKA_REPLICATION=asked, BUS="direct").settings.cloud.bus == "direct"


@pytest.mark.usefixtures("with_kafka")
def test_a_kafka_is_not_started_with_other_brokers_than_it_was_made_with(tmp_path: Path) -> None:
    """One broker of three takes nothing: the topics want two copies. Three of one keep no copies."""
    made = tmp_path / ".local" / "kafka" / "brokers"
    for node in ("1", "2", "3"):
        (made / node).mkdir(parents=True)
        (made / node / "server.properties").touch()
    with pytest.raises(ConfigError, match=f"KAFKA_REPLICATION=1 is not what the Kafka in {made} was .* set it to 3"):
        planned(tmp_path)
    assert len(planned(tmp_path, KAFKA_REPLICATION="3").servers) == 4


def test_a_server_of_the_users_takes_the_place_of_ours(bare: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        port = theirs.getsockname()[1]
        plan = planned(
            tmp_path, KAFKA_BOOTSTRAP=f"127.0.0.1:{port}", MQTT_HOST="127.0.0.1", MQTT_PORT=str(port), MQTT_USER="me"
        )
    assert [each.address for each in plan.servers] == [f"127.0.0.1:{port} (yours)"] * 2
    assert plan.settings.cloud.bus == "kafka" and names(plan.ours) == ["ingest", "gateway"]
    assert not {"ingest", "gateway"} & set(names(plan.missing))
    assert "mqtt" not in "".join(stack.uplink(plan.settings, stack.Paths(tmp_path))), (
        "the agent has no right on a broker that asks who it is"
    )


def test_a_server_of_the_users_that_is_away_is_one_sentence(bare: Path, tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(ConfigError, match=f"KAFKA_BOOTSTRAP=127.0.0.1:{port}: nobody answers at .*Connection refused"):
        planned(tmp_path, KAFKA_BOOTSTRAP=f"127.0.0.1:{port}")


def test_an_explicit_bus_or_store_is_left_as_it_is(bare: Path, tmp_path: Path) -> None:
    plan = planned(tmp_path, BUS="direct", MLFLOW_TRACKING_URI="off")
    missing = {each.name: each.missing for each in plan.missing}
    assert missing["kafka"] == "BUS=direct is set" and missing["mlflow"] == "MLFLOW_TRACKING_URI=off is set"
    assert plan.settings.environment["MLFLOW_TRACKING_URI"] == "off"


def test_a_stack_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="STACK='fat' is not one of small, full; correct the setting"):
        settings.read_settings({"STACK": "fat"}, tmp_path / ".env")


def test_a_port_that_moves_does_not_take_anothers_default() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        found = ports.claim_all({"A_PORT": (None, port), "B_PORT": (None, port + 1), "C_PORT": (None, port)})
        assert found["B_PORT"] == port + 1 or not ports.is_free(port + 1)
        assert len(set(found.values())) == 3 and port not in found.values()
        with pytest.raises(ConfigError, match=f"port {port} is in use by .*; stop it or set A_PORT"):
            ports.claim_all({"A_PORT": (port, 1)})


def test_a_command_beside_the_stack_is_told_of_it_but_wants_no_port_of_its(bare: Path, tmp_path: Path) -> None:
    executable(bare, "mosquitto")
    told = full.for_commands(planned(tmp_path, MQTT_PASSWORD="hush").settings)
    assert told["MQTT_HOST"] == "127.0.0.1" and told["INGEST_METRICS_PORT"] == "0"
    assert "hush" not in str(told)
    assert full.for_commands(settings.read_settings({}, tmp_path / ".env")) == {}


# --- the supervisor with services that may be missing ------------------------------------------------------------


class Heard:
    """What a supervisor said and published last."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.rows: tuple[state.Running, ...] = ()

    def publish(self, rows: object) -> None:
        self.rows = tuple(rows)  # type: ignore[arg-type]


def supervised(folder: Path, *services: Service) -> tuple[supervisor.Supervisor, Heard]:
    heard = Heard()
    return supervisor.Supervisor(services, folder / "logs", heard.said.append, heard.publish), heard


def optional(name: str, script: str, ready: Callable[[], bool]) -> Service:
    return Service(name=name, address="here", command=["/bin/sh", "-c", script], ready=ready, optional=True)


def test_an_optional_service_that_cannot_run_is_left_out_and_the_rest_goes_on(tmp_path: Path) -> None:
    watcher, heard = supervised(
        tmp_path,
        left_out("grafana", "needs Grafana"),
        optional("s3", "echo 'packtwin: no Go here' >&2; exit 2", lambda: False),
        optional("mlflow", "exec sleep 60", lambda: True),
    )
    try:
        watcher.start()
    finally:
        watcher.stop()
    assert "s3 is left out: no Go here" in heard.said and "mlflow       here" in heard.said
    assert {row.name: row.problem for row in heard.rows} == {
        "grafana": "needs Grafana",
        "s3": "no Go here",
        "mlflow": "",
    }


def test_the_start_does_not_wait_long_for_an_optional_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PATIENCE_S", 0.2)
    watcher, heard = supervised(tmp_path, optional("mlflow", "exec sleep 60", lambda: False))
    try:
        watcher.start()
        assert heard.rows[0].process is not None
        log = tmp_path / "logs" / "mlflow.log"
        assert heard.said == [f"mlflow is not ready yet and will say when it is; see {log}"]
    finally:
        watcher.stop()


def test_the_table_tells_state_and_reason(tmp_path: Path) -> None:
    me = identify(os.getpid())
    assert me is not None
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        port = theirs.getsockname()[1]
        rows = (
            state.Running(
                name="kafka", address=f"h:{port} (yours)", process=None, health=f"tcp://127.0.0.1:{port}", restarts=0
            ),
            state.Running(name="cars", address="BATTERY_001", process=me, health="", restarts=2),
            state.Running(name="grafana", address="-", process=None, health="", restarts=0, problem="needs Grafana"),
        )
        found = state.State(supervisor=me, api_url="", database={}, services=rows, environment={"BUS": "kafka"})
        path = tmp_path / "state.json"
        state.write(path, found)
        again = state.read(path)
        assert again == found
        text, well = board.show(again, AT)
    assert well
    assert [re.split(r"\s{2,}", line) for line in text.splitlines()] == [
        ["SERVICE", "STATE", "PID", "RESTARTS", "ADDRESS"],
        ["kafka", "ready", "-", "0", f"h:{port} (yours)"],
        ["cars", "ready", str(me.pid), "2", "BATTERY_001"],
        ["grafana", "left out", "-", "0", "needs Grafana"],
    ]
    assert not board.show(found, AT)[1], "the user's Kafka is away now"


def test_mlflows_server_has_the_version_that_writes_the_notes() -> None:
    """Both open the same tables; another version would migrate them under the other's feet."""
    lock = (ROOT / "requirements.lock").read_text()
    server = (ROOT / "deploy" / "mlflow" / "requirements.lock").read_text()
    version = re.search(r"^mlflow-skinny==(\S+)", lock, re.MULTILINE)
    assert version is not None
    assert f"\nmlflow=={version[1]} " in server
    assert f"mlflow=={version[1]}\n" in (ROOT / "deploy" / "mlflow" / "requirements.in").read_text()
