"""Which door an address makes, what logs people in, how long a login holds; tokens, and how Mosquitto keeps them."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from cloud import access, devices
from cloud.access import Door, door_of
from cloud.api.gate import cookie_of
from cloud.api.guard import refusal
from cloud.api.login import local_path
from cloud.config import Access, Config, Mqtt, load
from cloud.db import Connection
from shared.errors import ConfigError

MADE_BY_MOSQUITTO = (
    "$7$101$Br1KWBRJtkX7YKPH$rOxoq7mHWDlQcF1Xnt2ruHQwSMoOnQRal9hdq9mLcgglVUDfsZ8QzxQ5tDwAgyyEKZ16+wb76eCcaBnsplwzRA=="
)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "localhost", "::1", "LOCALHOST"])
def test_loopback_is_open(host: str) -> None:
    assert door_of(Config(api_host=host)) == Door()
    assert door_of(Config(api_host=host, access=Access(api_token="a-token-of-the-settings"))) == Door()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "api", "localhost.example", "127.0.0.1.example"])
def test_anything_else_has_tls_and_asks(host: str) -> None:
    assert door_of(Config(api_host=host)) == Door(tls=True, asks=True)
    others = Access(plaintext_hosts=("another", "10.0.0.1"))
    assert door_of(Config(api_host=host, access=others)).tls, "only the very address may be served without"


def test_a_private_network_may_go_without_tls_and_still_asks() -> None:
    allowed = Access(plaintext_hosts=("0.0.0.0", "API"))
    assert door_of(Config(api_host="0.0.0.0", access=allowed)) == Door(asks=True, plain_names=("0.0.0.0", "api"))


def test_without_tls_only_the_names_of_the_private_network_are_served() -> None:
    door = Door(asks=True, plain_names=("0.0.0.0", "api"))
    for host in ("api:5001", "API", "localhost:5001", "127.0.0.1"):
        assert refusal("GET", host, None, door) is None
    for host in ("192.168.1.5:5001", "twin.example", "api.example:5001", None, "api:5001@evil"):
        assert refusal("GET", host, None, door) is not None
    assert refusal("GET", "192.168.1.5:5001", None, Door(tls=True, asks=True)) is None, "with TLS it goes by any name"


def test_with_tls_a_plain_page_of_the_same_name_is_a_stranger() -> None:
    door = Door(tls=True, asks=True)
    assert refusal("POST", "twin:5001", "https://twin:5001", door) is None
    for origin in ("http://twin:5001", "https://evil.example", "null"):
        assert refusal("POST", "twin:5001", origin, door) is not None
        assert refusal("WEBSOCKET", "twin:5001", origin, door) is not None


def test_metrics_stay_on_this_machine_unless_the_network_is_private() -> None:
    assert load({"METRICS_HOST": "127.0.0.1"}).metrics_host == "127.0.0.1"
    with pytest.raises(ConfigError, match=r"METRICS_HOST=0\.0\.0\.0 .*ALLOW_PLAINTEXT_HOSTS"):
        load({"METRICS_HOST": "0.0.0.0"})
    told = {"METRICS_HOST": "0.0.0.0", "ALLOW_PLAINTEXT_HOSTS": "api, 0.0.0.0"}
    assert load(told).metrics_host == "0.0.0.0"


def test_half_a_certificate_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="go together"):
        load({"API_CERT_FILE": "cert.pem"})


def test_an_api_token_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    settings = Access(tls_dir=tmp_path / "tls")
    token, made = access.api_token(settings)
    assert made and len(token) > 30
    assert access.api_token(settings) == (token, False)
    file = tmp_path / "tls" / access.API_TOKEN_FILE
    assert file.stat().st_mode & 0o777 == 0o600
    assert access.api_token(Access(api_token="mine", tls_dir=tmp_path / "tls")) == ("mine", False)
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        access.api_token(settings)


def test_a_login_holds_for_its_time_and_for_its_token() -> None:
    session = access.new_session("token", 1000.0)
    assert access.session_holds("token", session, 1000.0 + access.SESSION_S - 1)
    assert not access.session_holds("token", session, 1001.0 + access.SESSION_S)
    assert not access.session_holds("another", session, 1001.0)
    until, seal = session.split(".")
    for forged in (f"{int(until) + 9}.{seal}", until, f"{until}.", f".{seal}", "", f"\u00b2.{seal}", "x" * 10_000):
        assert not access.session_holds("token", forged, 1001.0)


def test_no_token_in_the_settings_lets_nobody_in() -> None:
    assert not access.same("", "")


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("packtwin=1.ab", "1.ab"),
        ("a=b; packtwin=1.ab; c=d", "1.ab"),
        ("xpacktwin=1", ""),
        ("", ""),
        (";;=;packtwin", ""),
    ],
)
def test_the_cookie_is_found(header: str, value: str) -> None:
    assert cookie_of(header) == value


def test_a_login_leads_to_a_place_on_this_server_only() -> None:
    assert local_path("/docs?a=b") == "/docs?a=b"
    for elsewhere in ("https://evil.example", "//evil.example", "/\\evil.example", "javascript:1", "docs", "", "/a\nb"):
        assert local_path(elsewhere) == "/"


# --- tokens ---


def test_a_token_is_good_until_it_is_revoked(conn: Connection) -> None:
    token = devices.add(conn, "box-1", Mqtt())
    other = devices.add(conn, "box-2", Mqtt())
    assert token != other and token.startswith(devices.PREFIX) and len(token) > 40
    assert devices.device_of_token(conn, token) == "box-1"
    assert devices.device_of_token(conn, token[:-1]) is None
    assert devices.revoke(conn, "box-1")
    assert devices.device_of_token(conn, token) is None and devices.device_of_token(conn, other) == "box-2"
    assert not devices.revoke(conn, "box-1"), "twice changes nothing"
    again = devices.add(conn, "box-1", Mqtt())
    assert devices.device_of_token(conn, again) == "box-1" and devices.device_of_token(conn, token) is None


def test_the_database_does_not_know_a_token(conn: Connection) -> None:
    token = devices.add(conn, "box-1", Mqtt())
    stored = conn.execute("SELECT t::text FROM device_token t").fetchall()
    assert token not in str(stored) and token.removeprefix(devices.PREFIX) not in str(stored)


def test_a_device_has_one_token(conn: Connection) -> None:
    devices.add(conn, "box-1", Mqtt())
    with pytest.raises(ConfigError, match="has a token already; `cloud device revoke box-1` first"):
        devices.add(conn, "box-1", Mqtt())


def test_a_device_that_was_there_before_gets_a_token(conn: Connection) -> None:
    conn.execute("INSERT INTO device (device) VALUES ('old')")
    devices.add(conn, "old", Mqtt())
    assert conn.execute("SELECT count(*) FROM device").fetchone() == (1,)


@pytest.mark.parametrize("device", ["", "a b", "a/b", "+", "#", "-x", "a" * 65, "a\n", "a:b", "é"])
def test_an_id_that_is_none_is_refused(conn: Connection, device: str) -> None:
    for ask in (lambda: devices.add(conn, device, Mqtt()), lambda: devices.revoke(conn, device)):
        with pytest.raises(ConfigError, match="is no id"):
            ask()
    assert conn.execute("SELECT count(*) FROM device").fetchone() == (0,)


def test_no_device_takes_the_name_of_the_gateway(conn: Connection) -> None:
    """At the broker it would read and write what everybody sends."""
    for device in ("gateway", "our-gateway"):
        with pytest.raises(ConfigError, match="gateway's own user"):
            devices.add(conn, device, Mqtt(user="our-gateway"))


def test_only_good_tokens_are_in_the_brokers_password_file(conn: Connection) -> None:
    for device in ("b", "a", "c"):
        devices.add(conn, device, Mqtt())
    devices.revoke(conn, "c")
    lines = devices.password_lines(conn).splitlines()
    assert [line.split(":")[0] for line in lines] == ["a", "b"]
    assert all(line.split(":")[1].startswith("$7$101$") for line in lines)


def test_the_hash_is_the_one_of_mosquitto_passwd() -> None:
    """Made by mosquitto_passwd 2.0.11 for the password `secret`."""
    salt = base64.b64decode(MADE_BY_MOSQUITTO.split("$")[3])
    assert devices.mqtt_hash("secret", salt) == MADE_BY_MOSQUITTO
