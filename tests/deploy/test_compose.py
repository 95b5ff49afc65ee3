"""The containers, checked without Docker: the files against the compose specification, and every name in them against
what it names: files, settings, ports, users, topics, images' stages, metrics."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import composed
import pytest
import yaml
from composed import FOLDER, Composed, mounts
from conftest import ROOT, missing
from programs import program

from cloud import config as cloud_config
from edge.config import load_config

SCHEMA = ROOT / "tests" / "data" / "compose-spec" / "compose-spec.json"
ONCE = {"prepare", "migrate", "grafana-reader", "champion", "s3-bucket", "train", "demo-token"}
OURS = {"prepare", "migrate", "champion", "api", "ingest", "gateway", "train", "demo-token", "demo"}
CLOUD = {"migrate", "champion", "api", "ingest", "gateway", "train"}
SECRETS = {
    *("DB_PASSWORD", "GRAFANA_DB_PASSWORD", "GRAFANA_PASSWORD", "API_TOKEN", "MQTT_PASSWORD"),
    *("S3_ACCESS_KEY", "S3_SECRET_KEY"),
}
FROM_ELSEWHERE = {"api": 5001, "mosquitto": 8883}
PORTS = {  # the earlier system's, and the contract's
    "timescaledb": {5432: 5432},
    "kafka": {9092: 19092},
    "redpanda": {9092: 19092},
    "mosquitto": {1883: 1883, 8883: 8883},
    "s3": {9000: 9000, 9001: 9001},
    "mlflow": {5000: 5000},
    "prometheus": {9090: 9090},
    "alertmanager": {9093: 9093},
    "grafana": {3000: 3000},
    "api": {5001: 5001},
    "ingest": {9101: 9101},
    "gateway": {9102: 9102},
    "demo": {5002: 5002},
}


def test_the_file_meets_the_compose_specification(stack: Composed) -> None:
    import jsonschema

    schema = json.loads(SCHEMA.read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    for model in (stack.raw, stack.model):
        assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(model)] == []
    broken = {**stack.model, "services": {"x": {"image": "x", "portz": []}}}
    assert list(validator.iter_errors(broken)), "the schema checks nothing"


def test_every_setting_is_in_the_example_and_every_one_of_the_example_is_used(stack: Composed) -> None:
    example = composed.env_file(FOLDER / ".env.example")
    used = composed.references(None)
    assert set(used) == set(example) - {"COMPOSE_PROFILES"}
    assert not [name for name, how in used.items() if how == ":-"], "the example is the one place of defaults"


def test_secrets_have_no_default_and_are_made_new_each_time(stack: Composed, tmp_path: Path) -> None:
    example = composed.env_file(FOLDER / ".env.example")
    assert {name for name, value in example.items() if not value} == SECRETS
    used = composed.references(None)
    assert {name for name, how in used.items() if how == ":?"} == SECRETS
    other = composed.read(tmp_path)
    for name in SECRETS:
        assert re.fullmatch(r"[A-Za-z0-9]{32}", stack.settings[name])
        assert stack.settings[name] != other.settings[name]
    assert len({stack.settings[name] for name in SECRETS}) == len(SECRETS)
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    with pytest.raises(KeyError):
        composed.filled(stack.raw, example)


def test_up_prints_what_it_made_once_keeps_it_and_adds_what_is_new(tmp_path: Path) -> None:
    for name in ("up", ".env.example"):
        shutil.copy(FOLDER / name, tmp_path / name)

    def up(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        return subprocess.run(
            [str(tmp_path / "up"), *arguments], capture_output=True, text=True, check=False, env=environment
        )

    first = up("--init")
    made = dict(re.findall(r"^  (\w+)=(\S+)$", first.stdout, re.MULTILINE))
    assert set(made) == SECRETS and made.items() <= composed.env_file(tmp_path / ".env").items()
    written = (tmp_path / ".env").read_text()
    assert up("--init").stdout == "" and (tmp_path / ".env").read_text() == written
    with (tmp_path / ".env.example").open("a") as example:
        example.write("NEW_ONE=7    # of a later release\n")
    assert up("--init").stdout == "" and (tmp_path / ".env").read_text() == written + "NEW_ONE=7\n"


def test_every_file_that_is_mounted_is_there_and_every_volume_is_declared_and_used(stack: Composed) -> None:
    named = set()
    for name, service in stack.services.items():
        for what, where in mounts(service):
            assert where.startswith("/"), f"{name}: {where}"
            if what.startswith("."):
                assert (FOLDER / what).exists(), f"{name} mounts {what}"
                assert f"{what}:{where}:ro" in service["volumes"], f"{name} may write {what}"
            else:
                named.add(what)
    assert named == set(stack.model["volumes"])


def test_ports_are_the_known_ones_and_only_two_can_be_reached_from_elsewhere(stack: Composed) -> None:
    found: dict[str, dict[int, int]] = {}
    for name, service in stack.services.items():
        for port in service.get("ports", []):
            host, outside, inside = port.split(":")
            found.setdefault(name, {})[int(outside)] = int(inside)
            if host != "127.0.0.1":
                assert FROM_ELSEWHERE[name] == int(inside), f"{name} shows {inside} to other machines"
    assert found == PORTS


def test_images_are_pinned_and_ours_are_built_from_stages_that_exist(stack: Composed) -> None:
    stages = {}
    for name in ("Dockerfile", "mlflow.Dockerfile"):
        text = (ROOT / "deploy" / "docker" / name).read_text()
        stages[f"deploy/docker/{name}"] = set(re.findall(r"^FROM .* AS (\S+)$", text, re.MULTILINE))
    for name, service in stack.services.items():
        tag = service["image"].partition(":")[2]
        assert re.search(r"\d", tag) and "latest" not in tag, f"{name}: {service['image']}"
        build = service.get("build")
        assert (build is not None) == service["image"].startswith("packtwin/"), name
        if build:
            assert (FOLDER / build["context"]).resolve() == ROOT
            assert build["dockerfile"] in stages
            assert build.get("target") is None or build["target"] in stages[build["dockerfile"]]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert stack.settings["PACKTWIN_VERSION"] == version


def test_who_stays_up_is_checked_limited_and_restarted_and_who_runs_once_is_not_restarted(stack: Composed) -> None:
    for name, service in stack.services.items():
        limits = service["deploy"]["resources"]["limits"]
        assert {"cpus", "memory", "pids"} <= set(limits), name
        assert service["logging"]["options"]["max-size"], name
        if name in ONCE:
            assert service["restart"] == "no" and "healthcheck" not in service, name
        else:
            assert service["restart"] == "unless-stopped", name
            assert {"test", "interval", "timeout", "retries", "start_period"} <= set(service["healthcheck"]), name


def test_ours_are_nobody_on_a_read_only_root(stack: Composed) -> None:
    for name in OURS | {"mlflow", "s3-bucket", "mosquitto"}:
        service = stack.services[name]
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["user"] == ("0:0" if name == "prepare" else "10001:10001"), name
    assert stack.services["prepare"]["network_mode"] == "none", "the one that is root speaks to nobody"
    for name, service in stack.services.items():
        assert "privileged" not in service and "/var/run/docker.sock" not in str(service), name


def test_who_waits_for_whom_makes_sense(stack: Composed) -> None:
    for name, service in stack.services.items():
        for other, how in service.get("depends_on", {}).items():
            waited = stack.services[other]
            if how["condition"] == "service_healthy":
                assert "healthcheck" in waited, f"{name} waits for {other}"
            if how["condition"] == "service_completed_successfully":
                assert other in ONCE, f"{name} waits for {other}"
            optional = set(waited.get("profiles", [])) - set(service.get("profiles", []))
            assert not optional or how.get("required") is False, f"{name} needs {other}, which may be left out"
    profiles = {each for service in stack.services.values() for each in service.get("profiles", [])}
    assert set(stack.settings["COMPOSE_PROFILES"].split(",")) <= profiles
    assert {"kafka", "redpanda", "demo", "train"} <= profiles


@pytest.mark.parametrize("name", sorted(CLOUD))
def test_what_our_services_are_told_are_settings_that_they_take(stack: Composed, name: str, tmp_path: Path) -> None:
    told = stack.environment(name)
    known = cloud_config.SETTINGS | {"MLFLOW_TRACKING_URI", "HOME", "MPLCONFIGDIR"}
    assert set(told) <= known
    config = cloud_config.load(told)
    database = stack.environment("timescaledb")
    assert config.database.host in stack.services
    assert (config.database.name, config.database.user) == (database["POSTGRES_DB"], database["POSTGRES_USER"])
    assert config.database.password == database["POSTGRES_PASSWORD"]
    if name in ("api", "ingest", "gateway"):
        assert config.bus == "kafka"
        assert f"INTERNAL://{config.kafka.bootstrap}" in stack.environment("kafka")["KAFKA_ADVERTISED_LISTENERS"]
        assert f"INTERNAL://{config.kafka.bootstrap}" in str(stack.services["redpanda"]["command"])
        (command,) = stack.services[name]["command"]
        assert command in (ROOT / "cloud" / "__main__.py").read_text()
    places = {where for _, where in mounts(stack.services[name])}
    if name in ("api", "champion", "train"):
        for place in (config.release_dir, config.keys_dir):
            assert str(place) in places, f"{place} of {name} would be gone with the container"


def test_the_gateway_and_the_broker_mean_the_same(stack: Composed) -> None:
    config = cloud_config.load(stack.environment("gateway"))
    listeners = (FOLDER / "mosquitto-listeners.conf").read_text()
    assert config.mqtt.host == "mosquitto" and re.search(rf"^listener {config.mqtt.port}$", listeners, re.MULTILINE)
    acl = (ROOT / "deploy" / "mosquitto" / "acl").read_text()
    assert f"user {config.mqtt.user}\n" in acl
    access = dict(mounts(stack.services["mosquitto"]))
    mine = dict(mounts(stack.services["gateway"]))
    assert config.mqtt.password_file is not None
    assert str(config.mqtt.password_file) == f"{mine['mqtt-access']}/passwords"
    assert f"password_file {access['mqtt-access']}/passwords\n" in listeners
    assert f"acl_file {access['mqtt-access']}/acl\n" in listeners
    assert f"certfile {access['mqtt-tls']}/mqtt.pem\n" in listeners
    assert f"persistence_location {access['mosquitto-data']}/\n" in listeners
    assert listeners.count("allow_anonymous false") == listeners.count("\nlistener ") == 2
    for topic in ("up", "receipt", "desired", "status"):
        assert f"packtwin/v1/%u/{topic}" in acl


def test_an_api_beyond_loopback_has_tls_and_a_token(stack: Composed) -> None:
    from cloud.access import door_of

    door = door_of(cloud_config.load(stack.environment("api")))
    assert door.tls and door.asks
    assert stack.environment("api")["API_TOKEN"] == stack.settings["API_TOKEN"]


def test_prometheus_asks_services_that_are_there_on_ports_that_they_have(stack: Composed, tmp_path: Path) -> None:
    text = (FOLDER / "prometheus.yml").read_text()
    config = yaml.safe_load(text)
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert set(jobs) == {"api", "ingest", "gateway", "agent"}, "the rules know these"
    for name in ("api", "ingest", "gateway"):
        ((target,),) = [static["targets"] for static in jobs[name]["static_configs"]]
        host, port = target.split(":")
        assert (host, int(port)) == (name, next(iter(PORTS[name].values())))
    (found,) = jobs["agent"]["dns_sd_configs"]
    assert (found["names"], found["port"]) == (["demo"], load_config(demo_file(tmp_path), {}).metrics.port)
    there = dict(mounts(stack.services["prometheus"]))
    assert there["prometheus-access"] == "/etc/prometheus/access" and there["../prometheus/rules"].endswith("/rules")
    prepared = (FOLDER / "prepare.sh").read_text()
    for name in ("ca.pem", "api-token"):
        assert f"$v/prometheus-access/{name}" in prepared and f"access/{name}" in text
    ((alarms,),) = [each["static_configs"][0]["targets"] for each in config["alerting"]["alertmanagers"]]
    assert alarms == "alertmanager:9093"


def test_prometheus_takes_its_configuration_with_our_rules(tmp_path: Path) -> None:
    promtool = program("promtool") or missing("needs promtool (apt-get install prometheus)")
    shutil.copy(FOLDER / "prometheus.yml", tmp_path)
    shutil.copytree(ROOT / "deploy" / "prometheus" / "rules", tmp_path / "rules")
    (tmp_path / "access").mkdir()
    for name in ("ca.pem", "api-token"):
        (tmp_path / "access" / name).touch()
    command = [str(promtool), "check", "config", str(tmp_path / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rules found" in done.stdout


def test_grafana_reads_as_the_role_that_was_made_for_it(stack: Composed) -> None:
    told = stack.environment("grafana")
    sources = (ROOT / "deploy" / "grafana" / "provisioning" / "datasources" / "packtwin.yaml").read_text()
    wanted = set(re.findall(r"\$(\w+)", yaml.safe_dump(yaml.safe_load(sources))))
    dashboards = (ROOT / "deploy" / "grafana" / "provisioning" / "dashboards" / "packtwin.yaml").read_text()
    wanted |= set(re.findall(r"\$(\w+)", yaml.safe_dump(yaml.safe_load(dashboards))))
    assert wanted <= set(told)
    assert told["GRAFANA_DASHBOARDS"] in {where for _, where in mounts(stack.services["grafana"])}
    reader = stack.environment("grafana-reader")["PGOPTIONS"]
    assert reader == f"-c packtwin.reader_password={told['GRAFANA_DB_PASSWORD']}"
    sql = (ROOT / "deploy" / "grafana" / "reader.sql").read_text()
    assert "packtwin.reader_password" in sql and f"'{told['GRAFANA_DB_USER']}'" in sql
    host, port = told["GRAFANA_DB_HOST"].split(":")
    assert host in stack.services and int(port) == 5432


def test_mlflow_and_the_bucket_use_the_same_store(stack: Composed) -> None:
    command = stack.services["mlflow"]["command"]
    (bucket,) = stack.services["s3-bucket"]["entrypoint"][2:]
    assert f"--artifacts-destination=s3://{bucket}" in command
    for name in ("mlflow", "s3-bucket"):
        told = stack.environment(name)
        assert told["AWS_ACCESS_KEY_ID"] == stack.environment("s3")["RUSTFS_ACCESS_KEY"]
        assert told["AWS_SECRET_ACCESS_KEY"] == stack.environment("s3")["RUSTFS_SECRET_KEY"]
        assert told["MLFLOW_S3_ENDPOINT_URL"] == "http://s3:9000"
    assert stack.environment("train")["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"


def demo_file(folder: Path) -> Path:
    """demo.toml with its places below `folder`, the files that it names made."""
    text = (FOLDER / "demo.toml").read_text()
    for place in ("/demo", "/releases", "/mqtt-tls", "/tmp"):
        text = text.replace(f'"{place}/', f'"{folder}{place}/')
    names = [Path(name) for name in re.findall(rf'"({re.escape(str(folder))}[^"]*)"', text)]
    for name in names:
        name.parent.mkdir(parents=True, exist_ok=True)
        if name.suffix or name.name == "token":
            name.touch()
    (folder / "demo.toml").write_text(text)
    return folder / "demo.toml"


def test_the_demo_is_an_agent_that_finds_everything(stack: Composed, tmp_path: Path) -> None:
    config = load_config(demo_file(tmp_path), {})
    assert config.device == "demo" and len(config.sources) == 3
    assert "packtwin-cloud device add demo -o /demo/token" in stack.services["demo-token"]["entrypoint"][-1]
    host = config.uplink.url.removeprefix("mqtts://").split(":")
    assert host == ["mosquitto", "8883"] and "mosquitto" in stack.environment("api")["TLS_NAMES"].split(",")
    places = {where for _, where in mounts(stack.services["demo"])}
    for place in ("/demo", "/releases", "/mqtt-tls", "/demo.toml", "/demo.sh"):
        assert place in places
    assert config.page.port in PORTS["demo"] and config.metrics.port == 9100
