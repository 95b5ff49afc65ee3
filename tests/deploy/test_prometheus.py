"""Rules as promtool judges them; and the whole stack under a real Prometheus and Alertmanager."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grafana_panels
import pytest
import yaml
from conftest import ROOT, missing
from e2e.agents import MAPPING, Agent
from e2e.stack import BARE, Part, Stack, fetch
from free_ports import free_port
from grafana_panels import LIMIT_S, Question, interval_ms, median_s, span
from waiting import until

PROMETHEUS = ROOT / "deploy" / "prometheus"
QUESTIONS = list(grafana_panels.questions("prometheus"))
METRIC = re.compile(r"\b((?:packtwin[_:]|battery_)[a-z0-9_:]+|up|ALERTS)\b(?=\s*[\[{),=<>+\-*/ ]|$)")
LABELS = re.compile(r"\{[^}]*\}|\b(?:by|on|without|group_left)\s*\([^)]*\)")
NOT_METRICS = {"battery_id"}


def tool(name: str, package: str, *arguments: str) -> str:
    """The words of a checking program; AssertionError when it finds fault."""
    from programs import program

    found = program(name)
    if found is None:
        missing(f"needs {name} (apt-get install {package})")
    done = subprocess.run([found, *arguments], capture_output=True, text=True, cwd=PROMETHEUS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    files = sorted((PROMETHEUS / "rules").glob("*.yml"))
    return [rule for file in files for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def metrics_in(expression: str) -> set[str]:
    return set(METRIC.findall(LABELS.sub("", expression))) - NOT_METRICS


def test_configuration_and_rules_are_sound() -> None:
    assert "2 rule files found" in tool("promtool", "prometheus", "check", "config", "prometheus.yml")
    tool("promtool", "prometheus", "check", "rules", *(str(path) for path in (PROMETHEUS / "rules").iterdir()))
    tool("amtool", "prometheus-alertmanager", "check-config", "alertmanager.yml")


def test_every_rule_is_tried_by_a_promtool_test() -> None:
    assert "SUCCESS" in tool("promtool", "prometheus", "test", "rules", "tests/alerts.yml")
    tried = yaml.safe_load((PROMETHEUS / "tests" / "alerts.yml").read_text())["tests"]
    named = {case["alertname"] for test in tried for case in test.get("alert_rule_test", ()) if "exp_alerts" in case}
    named |= {name for test in tried for case in test.get("promql_expr_test", ()) for name in metrics_in(case["expr"])}
    assert named == {rule.get("alert") or rule["record"] for rule in rules()}


def test_every_alert_says_what_is_wrong_and_how_bad_it_is() -> None:
    for rule in rules():
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("warning", "critical"), rule["alert"]
            assert {"summary", "description"} == rule["annotations"].keys(), rule["alert"]


def test_the_metrics_of_an_expression_are_found() -> None:
    """The check below rests on it."""
    assert metrics_in('sum by (outcome) (rate(packtwin_a_total{outcome!="b"}[1m])) / packtwin:c:rate5m > 0') == {
        "packtwin_a_total",
        "packtwin:c:rate5m",
    }
    assert metrics_in('battery_soc_percent{job="api"} < 20') == {"battery_soc_percent"}


# --- the real thing --------------------------------------------------------------------------------------------------


class Watched(Stack):
    """A whole stack with a car by HTTP and one by MQTT, watched by Prometheus and Alertmanager."""

    def __init__(self, folder: Path) -> None:
        near, far = (
            Agent(name="near", device="near", cars=range(1, 2)),
            Agent(name="far", device="far", cars=range(2, 3), road="mqtt"),
        )
        super().__init__(folder, cars=2, model=True, brokers=1, agents=[near, far])
        self.agent_ports = {agent.name: agent.metrics_port for agent in (near, far)}
        import prometheus

        for name in ("prometheus", "alertmanager"):
            if problem := prometheus.problem(name):
                missing(problem)
        self.alertmanager = prometheus.Alertmanager(folder / "alertmanager", free_port())
        targets = {"api": self.api_port, "ingest": self.ingest_port, "gateway": self.gateway_port}
        self.prometheus = prometheus.Server(
            folder / "prometheus",
            free_port(),
            {job: f"127.0.0.1:{port}" for job, port in targets.items()},
            f"127.0.0.1:{self.alertmanager.port}",
        )
        for part in ("alertmanager", "prometheus"):
            server = getattr(self, part)
            self.parts[part] = Part(server.command, lambda server=server: answers(server.ready_url), BARE)

    def watch(self) -> None:
        """Starts the two that watch, and waits until every process was asked."""
        self.alertmanager.prepare()
        self.prometheus.prepare()
        with (self.prometheus.folder / "targets" / "packtwin.yml").open("a") as targets:
            for port in self.agent_ports.values():
                targets.write(f'- targets: ["127.0.0.1:{port}"]\n  labels: {{job: agent}}\n')
        self.start("alertmanager", "prometheus")
        until("all five processes are scraped", lambda: len(self.ask("up == 1")) == 5, 60)

    def ask(self, query: str) -> list[dict[str, Any]]:
        """What Prometheus answers now."""
        return self._asked("query", query=query)

    def ask_range(self, query: str, width_s: float, step_s: float) -> list[dict[str, Any]]:
        """What Prometheus answers for the time up to now."""
        now = time.time()
        return self._asked("query_range", query=query, start=str(now - width_s), end=str(now), step=str(step_s))

    def _asked(self, way: str, **values: str) -> list[dict[str, Any]]:
        found = fetch(f"{self.prometheus.url}/api/v1/{way}?{urllib.parse.urlencode(values)}")
        if found is None:
            raise ConnectionError(f"Prometheus does not answer {values}")
        assert found["status"] == "success", values
        return list(found["data"]["result"])

    def alerts(self) -> set[str]:
        """Names of the alerts that Alertmanager has and that are not over."""
        told = fetch(f"{self.alertmanager.url}/api/v2/alerts") or []
        return {alert["labels"]["alertname"] for alert in told}

    def upload(self, body: bytes) -> int:
        """The status of an upload as JSON."""
        request = urllib.request.Request(
            f"{self.api}/device/v1/batches", body, {"content-type": "application/json"}
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def misread(self, agent: str) -> None:
        """Gives an agent a DBC that expects longer frames than the car sends, so that it counts decode errors."""
        sent, wished = "VCU_Odometer: 8 VCU\n", 'VCU_Odometer: 12 VCU\n SG_ More : 64|8@1+ (1,0) [0|255] "" GATEWAY\n'
        dbc = (ROOT / "firmware_bridge" / "packtwin.dbc").read_text()
        assert sent in dbc
        (self.folder / "longer.dbc").write_text(dbc.replace(sent, wished))
        mapping = MAPPING.read_text().replace('dbc = "packtwin.dbc"', 'dbc = "longer.dbc"')
        mapping = mapping.replace(
            "\n[fields]\n", '\n[fields]\n"extra.more" = { from = "VCU_Odometer.More", unit = "1" }\n'
        )
        (self.folder / "longer.toml").write_text(mapping)
        config = self.edge_config(agent)
        config.write_text(config.read_text().replace(str(MAPPING), str(self.folder / "longer.toml")))


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def sample(pack: str, seq: int, **values: object) -> bytes:
    """An upload of one sample."""
    now_ns = time.time_ns()
    one = {"pack_id": pack, "seq": seq, "mono_ns": seq, "t_ns": now_ns, **values}
    return json.dumps({"schema": 1, "device": f"of-{pack}", "boot": "0" * 15 + "7", "samples": [one]}).encode()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """The whole stack, everything up, watched; and each kind of refusal has happened once."""
    with Watched(tmp_path_factory.mktemp("watched")) as stack:
        stack.start("database", "kafka", "mosquitto")
        stack.start("ingest", "gateway", "api", "sim")
        stack.misread("far")
        stack.start("near", "far")
        stack.watch()
        hold_up(stack)
        provoke(stack)
        until("both cars have predictions", lambda: len(stack.ask('battery_rul_cycles{job="api"}')) >= 2, 90)
        yield stack


def provoke(stack: Watched) -> None:
    """Uploads and messages that are refused, and a pack that is far too hot and nearly empty. May be done again."""
    import paho.mqtt.publish

    seq = time.monotonic_ns()
    assert stack.upload(b"{") == 400
    assert stack.upload(sample("HOT", seq, soc_bms=0.1, temp_c=[65.0])) == 200
    assert stack.upload(sample("LATE", seq, t_ns=time.time_ns() + 7200 * 10**9)) == 200
    paho.mqtt.publish.single("packtwin/v1/far/up", b"no batch", qos=1, hostname="127.0.0.1", port=stack.mqtt_port)


def hold_up(stack: Watched) -> None:
    """Records wait on the agent that sends to the API, until Prometheus has seen that."""
    stack.stop("api")
    until("records wait", lambda: stack.ask("packtwin_outbox_oldest_age_seconds"), 60)
    stack.start("api")


@pytest.mark.e2e
@pytest.mark.slow
def test_every_metric_of_rules_and_panels_is_seen_in_a_real_scrape(watched: Watched) -> None:
    named = {name for rule in rules() for name in metrics_in(rule["expr"])}
    named |= {name for question in QUESTIONS for name in metrics_in(question.target["expr"])}
    assert len(named) > 40

    def unseen() -> set[str]:
        told = fetch(f"{watched.prometheus.url}/api/v1/label/__name__/values")
        return named - set(told["data"] if told else ())

    try:
        until("all is seen", lambda: not unseen(), 60)
    except TimeoutError:
        pytest.fail(f"never seen: {unseen()}")


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_a_panel_of_prometheus_shows_data_within_half_a_second(
    watched: Watched, question: Question, record_property: Any
) -> None:
    expression, width_s = question.target["expr"], span(question.since).total_seconds()
    step_s = max(5.0, interval_ms(span(question.since)) / 1000)

    def ask() -> list[dict[str, Any]]:
        if question.target.get("instant"):
            return watched.ask(expression)
        return watched.ask_range(expression, width_s, step_s)

    assert until("there are data", ask, 60)
    took_s = median_s(ask)
    record_property("took_s", took_s)
    assert took_s <= LIMIT_S


@pytest.mark.e2e
@pytest.mark.slow
def test_alerts_fire_for_real_reach_alertmanager_and_end(watched: Watched) -> None:
    provoke(watched)
    refused = {"UploadsRefused", "RowsRejected", "MessagesRefused"}
    hot = {"BatteryTemperatureCritical", "BatteryChargeCritical"}
    until("what was provoked is told", lambda: refused | hot <= watched.alerts(), 60)
    broken = {"database": "DatabaseDown", "gateway": "ServiceDown", "sim": "SourceDown"}
    assert not set(broken.values()) & watched.alerts()
    for part in broken:
        watched.kill(part)
    until("each broken part is told", lambda: set(broken.values()) <= watched.alerts(), 120)
    watched.start("database", "gateway", "sim")
    until("what was mended is told no more", lambda: not {"DatabaseDown", "ServiceDown"} & watched.alerts(), 120)
    watched.kill("mosquitto")
    until("the missing broker is told", lambda: "BrokerDisconnected" in watched.alerts(), 120)
    watched.start("mosquitto")
