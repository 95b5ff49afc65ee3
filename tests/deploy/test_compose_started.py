"""What the containers do at their start, done for real without Docker: the volumes' preparation, and the broker."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import processes
import pytest
from broker import lets_in
from composed import FOLDER, Composed, mounts
from conftest import ROOT, missing
from free_ports import free_port
from programs import program
from waiting import until

from cloud import config as cloud_config
from cloud.tls import Authority


@pytest.mark.root
def test_prepare_gives_every_volume_to_its_writer_and_the_broker_a_key_that_is_not_the_cas(
    stack: Composed, tmp_path: Path
) -> None:
    """The script itself, on a folder in place of the volumes."""
    folder = tmp_path / "v"
    folder.mkdir()
    (folder / "acl").write_text((ROOT / "deploy" / "mosquitto" / "acl").read_text())
    environment = {
        **stack.environment("prepare"),
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
    }

    def prepare() -> str:
        command = ["/bin/sh", str(FOLDER / "prepare.sh"), str(folder)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = prepare()
    assert re.search(r"ca\.pem +SHA-256 ([0-9A-F]{2}:){31}", said), "the fingerprint is printed"
    key = (folder / "mqtt-tls" / "mqtt.key").read_bytes()
    assert key == (folder / "tls" / "mqtt.key").read_bytes() != (folder / "tls" / "ca.key").read_bytes()
    assert sorted(each.name for each in (folder / "mqtt-tls").iterdir()) == ["ca.pem", "mqtt.key", "mqtt.pem"]
    token = folder / "prometheus-access" / "api-token"
    assert token.read_text() == stack.settings["API_TOKEN"] and token.stat().st_uid == 65534
    prepared = {what for what, _ in mounts(stack.services["prepare"]) if what[0] != "."}
    for name in prepared - {"prometheus-access"}:
        for each in (folder / name, *(folder / name).rglob("*")):
            assert each.stat().st_uid == 10001, each
    (folder / "mqtt-access" / "passwords").write_text("van-17:$7$...\n")
    prepare()
    assert (folder / "mqtt-tls" / "mqtt.key").read_bytes() == key, "a second start makes nothing anew"
    assert (folder / "mqtt-access" / "passwords").read_text() == "van-17:$7$...\n"


@pytest.fixture
def broker(stack: Composed, tmp_path: Path) -> Iterator[dict[int, int]]:
    """A real Mosquitto with the containers' configuration; {port in the container: port here}."""
    binary = program("mosquitto") or missing("needs mosquitto (apt-get install mosquitto)")
    service, here = stack.services["mosquitto"], tmp_path / "mosquitto"
    for what, where in mounts(service):
        place = tmp_path / where.lstrip("/")
        (place.parent if what.startswith(".") else place).mkdir(parents=True, exist_ok=True)
        if what.startswith("."):
            shutil.copy(FOLDER / what, place)
    now = datetime.now(UTC)
    authority = Authority(here / "tls")
    authority.prepare(now)
    authority.pair("mqtt", ["localhost", "mosquitto"], now)
    shutil.copy(ROOT / "deploy" / "mosquitto" / "acl", here / "access" / "acl")
    (here / "access" / "passwords").touch()
    ports = {1883: free_port(), 8883: free_port()}
    for file in (here / "config").rglob("*.conf"):
        text = re.sub(r"(?<= )/mosquitto/", f"{here}/", file.read_text())
        for inside, outside in ports.items():
            text = text.replace(f"listener {inside}\n", f"listener {outside} 127.0.0.1\n")
        file.write_text(text + ("\nuser root\n" if "common" in file.name and os.getuid() == 0 else ""))
    words = [*service["entrypoint"], *service["command"]]
    command = [re.sub("^/mosquitto/", f"{here}/", word) for word in words]
    command[command.index("/usr/sbin/mosquitto")] = str(binary)
    child = processes.spawn(
        command,
        environment={"PATH": "/usr/sbin:/usr/bin:/bin"},
        cwd=tmp_path,
        log=tmp_path / "mosquitto.log",
        death_signal=signal.SIGKILL,
    )
    yield ports
    child.kill()
    child.wait()
    print((tmp_path / "mosquitto.log").read_text()[-2000:])


def test_the_broker_lets_in_the_gateway_and_devices_with_a_token_and_nobody_else(
    stack: Composed, broker: dict[int, int], tmp_path: Path
) -> None:
    """Both listeners, with the very files of the containers."""
    from cloud.devices import mqtt_hash
    from cloud.gateway_wishes import keep_passwords

    config = cloud_config.load(stack.environment("gateway")).mqtt
    here = tmp_path / "mosquitto"
    keep_passwords(config, here / "access" / "passwords", f"van-17:{mqtt_hash('ptd_token')}\n")

    for port, ca_file in ((broker[1883], None), (broker[8883], here / "tls" / "ca.pem")):
        admitted = partial(lets_in, port, ca_file=ca_file)
        until("the list is read", partial(admitted, "gateway", stack.settings["MQTT_PASSWORD"]))
        assert admitted("van-17", "ptd_token") is True
        assert admitted("van-17", "ptd_other") is False
        assert admitted("", "") is False, "the earlier system's broker was open"
