"""An API beyond loopback, real, with TLS of its own CA: nobody gets in without a token, nobody further than theirs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import websockets.exceptions
from api_server import PROTOBUF, Api, json_batch, running_api
from fake_batches import batch, block
from starlette.datastructures import Headers
from websockets.sync.client import connect

from cloud import db, devices
from cloud.api.gate import COOKIE, OPEN_PATHS, Gate, Refusal
from cloud.api.reader import Reader
from cloud.config import Access, Config, Database, Mqtt
from cloud.tls import Authority
from edge.__main__ import main as edge
from edge.transport import Forbidden, HttpTransport, Unavailable
from shared.wire import decode_receipt, encode_batch

API_TOKEN = "the-token-of-these-tests"
UPLOAD = "/device/v1/batches"


@pytest.fixture
def config(database: Database, tmp_path: Path) -> Config:
    access = Access(api_token=API_TOKEN, tls_dir=tmp_path / "tls")
    return Config(database=database, api_host="0.0.0.0", access=access, release_dir=tmp_path / "release")


@pytest.fixture
def api(config: Config) -> Iterator[Api]:
    with running_api(config) as running:
        running.until_healthy()
        yield running


@pytest.fixture
def token(database: Database) -> str:
    with db.connect(database) as conn:
        return devices.add(conn, "car-1", Mqtt())


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def upload(device: str = "car-1") -> dict[str, object]:
    return json_batch([{"pack_id": f"P-{device}", "t_ns": time.time_ns(), "pack_v": 300.0}], device)


def rows(database: Database) -> int:
    with db.connect(database) as conn:
        row = conn.execute("SELECT count(*) FROM samples").fetchone()
    assert row is not None
    return int(row[0])


def test_every_endpoint_asks_for_a_token_and_each_token_opens_its_own(api: Api, config: Config, token: str) -> None:
    with db.connect(config.database) as conn:
        revoked = devices.add(conn, "car-9", Mqtt())
        devices.revoke(conn, "car-9")
    paths = api.client.get("/openapi.json", headers=bearer(API_TOKEN)).json()["paths"]
    asked = 0
    for path, ways in paths.items():
        if path in OPEN_PATHS or path == "/api/v1/live":
            continue
        place = re.sub(r"\{.*?\}", "x", path)
        for method in ways:
            asked += 1
            for headers in ({}, bearer("wrong"), bearer(revoked), {"authorization": f"Basic {API_TOKEN}"},
                            {"authorization": "Bearer"}, {"cookie": f"{COOKIE}={API_TOKEN}"},
                            bearer(token + "x"), bearer(API_TOKEN + "x")):  # fmt: skip
                answer = api.client.request(method, place, headers=headers)
                assert answer.status_code == 401, (method, path, headers)
                assert answer.headers["www-authenticate"].startswith("Bearer")
                assert "\n" not in answer.json()["detail"]
            ours = place.startswith("/device/v1/")
            assert (api.client.request(method, place, headers=bearer(token)).status_code == 403) is not ours
            person = api.client.request(method, place, headers=bearer(API_TOKEN)).status_code
            assert (person == 403) is (ours and method == "post"), (method, path, person)
    assert asked > 15
    for place in (
        "/",
        "/docs",
        "/nope",
        "/assets/x.js",
        "/docs.css",
        "/openapi.json",
        "/metrics",
        "/device",
        "//health",
    ):
        assert api.client.get(place).status_code == 401, place
    assert api.client.get("/api/v1/live").status_code == 401


def test_health_is_open_and_says_nothing_but_that(api: Api) -> None:
    answer = api.client.get("/health")
    assert answer.status_code == 200
    assert set(answer.json()) == {"status", "database", "bus", "models", "timestamp"}


def test_metrics_are_for_whoever_has_the_api_token(api: Api) -> None:
    answer = api.client.get("/metrics", headers=bearer(API_TOKEN))
    assert answer.status_code == 200 and "packtwin_http_request_seconds" in answer.text


def test_a_device_sends_its_own_records_and_no_others(api: Api, database: Database, token: str) -> None:
    assert api.client.post(UPLOAD, json=upload(), headers=bearer(token)).status_code == 200
    refused = api.client.post(UPLOAD, json=upload("car-2"), headers=bearer(token))
    assert (refused.status_code, refused.json()["reason"]) == (403, "not_yours")
    body = encode_batch(batch("car-2", block("P", 3)))
    assert api.client.post(UPLOAD, content=body, headers={**PROTOBUF, **bearer(token)}).status_code == 403
    assert rows(database) == 1
    with db.connect(database) as conn:
        assert conn.execute("SELECT device FROM device").fetchall() == [("car-1",)]


def test_a_device_hears_its_own_wishes_only(api: Api, database: Database, token: str) -> None:
    with db.connect(database) as conn:
        conn.execute("UPDATE device SET mode = 'economy' WHERE device = 'car-1'")
    for place in ("/device/v1/desired", "/device/v1/desired?device=car-1"):
        assert api.client.get(place, headers=bearer(token)).json()["mode"] == "economy"
    assert api.client.get("/device/v1/desired?device=car-2", headers=bearer(token)).status_code == 403
    assert api.client.get("/device/v1/desired?device=car-2", headers=bearer(API_TOKEN)).status_code == 200


def test_a_revoked_token_is_refused_within_seconds(config: Config, token: str) -> None:
    with running_api(config) as api:
        api.until_healthy()
        assert api.client.get("/device/v1/desired", headers=bearer(token)).status_code == 200
        with db.connect(config.database) as conn:
            devices.revoke(conn, "car-1")
        deadline = time.monotonic() + 8
        while api.client.get("/device/v1/desired", headers=bearer(token)).status_code == 200:
            assert time.monotonic() < deadline
            threading.Event().wait(0.1)
        assert api.client.post(UPLOAD, json=upload(), headers=bearer(token)).status_code == 401


def test_a_token_that_was_good_stays_so_while_the_database_is_away(database: Database, token: str) -> None:
    """Then nobody can revoke it; and with another bus its records need no database now."""
    now = [1000.0]
    away = False

    def open_connection() -> db.Connection:
        return db.connect(replace(database, port=1) if away else database)

    async def ask(gate: Gate, given: str) -> object:
        return await gate.admit("POST", UPLOAD, Headers(bearer(given)))

    reader = Reader(open_connection)
    gate = Gate(API_TOKEN, reader, lambda: now[0])
    assert asyncio.run(ask(gate, token)).device == "car-1"  # type: ignore[attr-defined]
    reader.close()  # its connections, too
    away = True
    now[0] += 60
    assert asyncio.run(ask(gate, token)).device == "car-1"  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="database is down") as raised:
        asyncio.run(ask(gate, devices.PREFIX + "unknown"))
    assert getattr(raised.value, "status", None) == 503, "not refused for good: the agent keeps its records and waits"
    now[0] += 3600
    with pytest.raises(Exception, match="database is down"):
        asyncio.run(ask(gate, token))
    away = False
    assert asyncio.run(ask(gate, token)).device == "car-1"  # type: ignore[attr-defined]
    with pytest.raises(Refusal, match="wrong, or it was revoked"):
        asyncio.run(ask(gate, devices.PREFIX + "unknown"))


# --- people ---


def test_a_browser_gets_the_login_form_as_a_401_and_a_cookie_for_the_token(api: Api) -> None:
    html = {"accept": "text/html,*/*"}
    for place in ("/", "/docs"):
        page = api.client.get(place, headers=html)
        assert page.status_code == 401 and "<form method=post action=login>" in page.text
        assert f"value='{place}'" in page.text
        assert "form-action 'self'" in page.headers["content-security-policy"]
        assert page.headers["referrer-policy"] == "same-origin", "else the form's origin is hidden and it is refused"
    assert api.client.get("/login.css").status_code == api.client.get("/login").status_code == 200

    origin = {"origin": f"https://127.0.0.1:{api.port}"}
    wrong = api.client.post("/login", data={"token": "guess", "to": "/docs"}, headers=origin)
    assert wrong.status_code == 401 and "not the API token" in wrong.text and "set-cookie" not in wrong.headers
    right = api.client.post("/login", data={"token": API_TOKEN, "to": "/docs"}, headers=origin)
    assert (right.status_code, right.headers["location"]) == (303, "/docs")
    cookie = right.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("httponly", "secure", "samesite=lax", "path=/", "max-age=1209600"))
    assert API_TOKEN not in cookie
    assert api.client.get("/docs", headers=html).status_code == 200, "the client keeps cookies, as a browser does"
    assert api.client.get("/api/v1/packs").status_code == 200
    assert api.client.get("/api/v1/packs", headers=bearer("wrong")).status_code == 401, "a token that is given counts"
    assert api.client.post("/logout", headers=origin).status_code == 303
    assert api.client.get("/api/v1/packs").status_code == 401


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1"])
def test_a_page_from_elsewhere_cannot_log_anyone_in(api: Api, origin: str) -> None:
    answer = api.client.post("/login", data={"token": API_TOKEN}, headers={"origin": origin})
    assert answer.status_code == 403 and "set-cookie" not in answer.headers


@pytest.mark.parametrize("to", ["https://evil.example", "//evil.example", "/\\evil.example", "/a\r\nset-cookie: x=y"])
def test_a_login_leads_nowhere_else(api: Api, to: str) -> None:
    answer = api.client.post("/login", data={"token": API_TOKEN, "to": to})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_a_form_of_any_size_or_kind_is_no_crash(api: Api) -> None:
    assert api.client.post("/login", content=b"x" * 5000).status_code == 413
    for body in (b"\xff\xfe", b"token=%ff%00", b"&".join(b"a=1" for _ in range(500)), b""):
        assert api.client.post("/login", content=body).status_code == 401


def test_a_websocket_without_a_token_is_a_401_and_with_one_it_opens(api: Api, config: Config, token: str) -> None:
    trust = ssl.create_default_context(cafile=str(config.access.tls_dir / "ca.pem"))
    place = f"wss://127.0.0.1:{api.port}/api/v1/ws"
    for headers, status in (({}, 401), (bearer("wrong"), 401), (bearer(token), 403)):
        with (
            pytest.raises(websockets.exceptions.InvalidStatus) as raised,
            connect(place, ssl=trust, additional_headers=headers),
        ):
            pass
        assert raised.value.response.status_code == status
    with connect(place, ssl=trust, additional_headers=bearer(API_TOKEN)) as socket_:
        assert api.client.post(UPLOAD, json=upload(), headers=bearer(token)).status_code == 200
        assert json.loads(socket_.recv(20))["type"] in ("sample", "heartbeat")


# --- TLS ---


def test_nothing_falls_back_to_clear_text(api: Api) -> None:
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            answer = plain.recv(1000)
    assert b"HTTP" not in answer
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{api.port}/health", timeout=10)


def test_old_tls_is_refused(api: Api) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", api.port)) as link, pytest.raises(OSError):
        old.wrap_socket(link)


def test_the_ca_is_handed_out_and_is_the_one_that_signed(api: Api, config: Config) -> None:
    body = api.client.get("/ca.pem").content
    assert body == (config.access.tls_dir / "ca.pem").read_bytes()
    assert b"PRIVATE" not in body


def test_a_given_certificate_is_served_instead(config: Config, tmp_path: Path) -> None:
    public = Authority(tmp_path / "public")
    public.prepare(datetime.now(UTC))
    pair = public.pair("given", ["127.0.0.1"], datetime.now(UTC))
    access = replace(config.access, cert_file=pair.cert_file, key_file=pair.key_file, tls_dir=public.folder)
    with running_api(replace(config, access=access)) as api:
        api.until_healthy()
        assert api.client.get("/ca.pem").status_code == 404
    assert not (tmp_path / "tls").exists()


def test_a_private_network_goes_without_tls_but_not_without_tokens(config: Config, token: str) -> None:
    access = replace(config.access, plaintext_hosts=("0.0.0.0", "api"))
    with running_api(replace(config, access=access)) as api:
        api.until_healthy()
        assert api.client.get("/api/v1/packs").status_code == 401
        assert api.client.get("/api/v1/packs", headers=bearer(API_TOKEN)).status_code == 200
        inside = {"host": "api:5001", **bearer(token)}
        assert api.client.post(UPLOAD, json=upload(), headers=inside).status_code == 200
        outside = {"host": "192.168.1.5:5001", **bearer(token)}
        assert api.client.post(UPLOAD, json=upload(), headers=outside).status_code == 403
        answer = api.client.post("/login", data={"token": API_TOKEN})
        assert answer.status_code == 303 and "secure" not in answer.headers["set-cookie"].lower()
        assert not config.access.tls_dir.exists()


# --- the agent's own transport ---


def test_what_the_agents_transport_makes_of_each_refusal(api: Api, config: Config, token: str, tmp_path: Path) -> None:
    url, ca = f"https://127.0.0.1:{api.port}", str(config.access.tls_dir / "ca.pem")
    body = encode_batch(batch("car-1", block("P", 3, t_ns=time.time_ns() - 10**10)))
    with pytest.raises(Forbidden, match=r"401 \(This needs a token.*token_file"):
        HttpTransport(url, ca_file=ca).send(body)
    with pytest.raises(Forbidden, match=r"401 \(This token is wrong, or it was revoked.\).*token_file"):
        HttpTransport(url, ca_file=ca, token="wrong").send(body)
    with pytest.raises(Forbidden, match=r"403 \(This is car-1's token"):
        HttpTransport(url, ca_file=ca, token=token).send(encode_batch(batch("car-2", block("P", 3))))
    with pytest.raises(Unavailable, match=r"certificate is not trusted.*ca_file"):
        HttpTransport(url, token=token).send(body)
    other = Authority(tmp_path / "other")
    other.prepare(datetime.now(UTC))
    with pytest.raises(Unavailable, match="certificate is not trusted"):
        HttpTransport(url, ca_file=str(other.ca_file), token=token).send(body)
    with pytest.raises(Unavailable):
        HttpTransport(f"http://127.0.0.1:{api.port}", token=token).send(body)
    assert rows(config.database) == 0
    receipt = HttpTransport(url, ca_file=ca, token=token).send(body)
    assert receipt.accepted == ((0, 2),)
    assert decode_receipt(api.client.post(UPLOAD, content=body, headers={**PROTOBUF, **bearer(token)}).content)
    assert rows(config.database) == 3


def test_a_replay_that_is_refused_ends_soon_with_the_sentence(
    api: Api, config: Config, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """It tried for two minutes, as if the cloud were away."""
    monkeypatch.setattr("edge.replay._FORBIDDEN_S", 0.5)
    other = Authority(tmp_path / "other")
    other.prepare(datetime.now(UTC))
    (tmp_path / "m.toml").write_text(
        '[csv]\ntime = "t"\nstart = 2026-01-01T00:00:00Z\n[fields]\npack_v = { from = "V" }\n'
    )
    (tmp_path / "trip.csv").write_text("t,V\n" + "".join(f"{n},{300 + n}\n" for n in range(20)))
    ours = config.access.tls_dir / "ca.pem"

    def replay(sent: str, ca: Path) -> tuple[int, str]:
        (tmp_path / "token").write_text(sent)
        told = f'url = "https://127.0.0.1:{api.port}"\ntoken_file = "token"\nca_file = "{ca}"\n'
        source = '[[source]]\npack_id = "A"\nchannel = "c"\nmapping = "mapping.toml"\n'
        (tmp_path / "edge.toml").write_text(f'device = "car-1"\n[uplink]\n{told}{source}')
        words = ["replay", str(tmp_path / "trip.csv"), "--mapping", str(tmp_path / "m.toml")]
        return edge([*words, "--config", str(tmp_path / "edge.toml")]), capsys.readouterr().err

    code, said = replay("wrong", ours)
    assert code == 1 and "401 (This token is wrong, or it was revoked.)" in said
    code, said = replay(token, other.ca_file)
    assert code == 1 and "certificate is not trusted" in said
    assert rows(config.database) == 0
    code, said = replay(token, ours)
    assert code == 0, said
    assert rows(config.database) == 20
