"""The local page and the metrics: served to this machine, complete without a network, never a stack trace."""

from __future__ import annotations

import http.client
import json
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import edge.page.server as page
from edge.config import Listen
from edge.metrics import serve_metrics
from edge.outbox.records import OutboxError
from edge.page.server import serve_page
from shared.errors import ConfigError

ANY = Listen(host="127.0.0.1", port=0, variable="EDGE_PORT")
STATUS: dict[str, Any] = {
    "samples": dict.fromkeys(
        ("acquired", "filtered", "rejected", "stored", "acked", "refused", "pending", "evicted", "lost"), 3
    ),
    "outbox": {"hot_bytes": 10, "cold_bytes": 20, "oldest_age_s": None},
    "uplink": None,
    "clock": {"trusted": True},
    "model": {"active": None, "inference": {"state": "running", "restarts": 2, "dropped": 1}},
    "recorder": {"bytes": 4096, "kept": 2, "given_up": 1, "passed_over": 0},
    "packs": [
        {
            "pack_id": "A",
            "source": {
                "state": "live",
                "frames": 7,
                "frames_skipped": 1,
                "errors": {"short_frame": 2},
                "drops": 4,
                "error_frames": {"bus_off": 1},
                "buffer_bytes": 425_984,
            },
            "sample": {"soc_bms": 0.5, "soh_bms": None, "temp_c": [20.0, None, 25.5]},
            "estimate": {"rul_cycles": 812.5, "failure_probability": 0.04},
            "predictions": 9,
        },
        {
            "pack_id": "B",
            "source": {
                "state": "down",
                "frames": 0,
                "frames_skipped": 0,
                "errors": {},
                "drops": None,
                "error_frames": {},
                "buffer_bytes": None,
            },
            "sample": None,
            "estimate": {"rul_cycles": None, "failure_probability": None, "reason": "no_features"},
            "predictions": 0,
        },
    ],
}


@pytest.fixture
def address() -> Iterator[str]:
    with serve_page(ANY, lambda: STATUS) as url:
        yield url.removeprefix("http://")


def get(address: str, path: str, host: str | None = None, method: str = "GET") -> tuple[int, bytes, str]:
    connection = http.client.HTTPConnection(address, timeout=5)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    return answer.status, answer.read(), answer.headers.get("Content-Type", "")


def test_the_page_needs_nothing_from_elsewhere(address: str) -> None:
    status, body, kind = get(address, "/")
    assert status == 200 and kind.startswith("text/html")
    for linked in re.findall(r'(?:src|href)="([^"]+)"', body.decode()):
        assert get(address, f"/{linked}")[0] == 200
    folder = Path(page.__file__).parent
    for path in folder.glob("*.[jch]*"):
        text = path.read_text()
        assert "://" not in text
        for imported in re.findall(r'^import .* from "\./([^"]+)"', text, re.MULTILINE):
            assert get(address, f"/{imported}") == (
                200,
                (folder / imported).read_bytes(),
                "text/javascript; charset=utf-8",
            )


def test_the_status_is_json(address: str) -> None:
    status, body, kind = get(address, "/status.json")
    assert (status, kind, json.loads(body)) == (200, "application/json", STATUS)


def test_other_names_other_paths_and_other_methods_are_refused(address: str) -> None:
    assert get(address, "/", host="evil.example")[0] == 403
    assert get(address, "/", host="127.0.0.1.evil.example:5002")[0] == 403
    assert get(address, "/", host="localhost:1")[0] == get(address, "/", host="[::1]:5002")[0] == 200
    assert get(address, "/../server.py")[0] == get(address, "/server.py")[0] == 404
    assert get(address, "/", method="POST")[0] == 405


def test_a_port_that_is_taken_is_one_sentence_with_the_way_out() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = Listen(host="127.0.0.1", port=taken.getsockname()[1], variable="EDGE_PORT")
        with pytest.raises(ConfigError, match=r"in use.*EDGE_PORT"), serve_page(listen, lambda: STATUS):
            pass


def test_metrics_have_the_agreed_names_and_leave_out_what_is_not_known() -> None:
    with serve_metrics(ANY, lambda: STATUS) as url:
        text = get(url.removeprefix("http://"), "/metrics")[1].decode()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    for name in STATUS["samples"]:
        assert values[f"packtwin_samples_{name}"] == "3.0"
    assert values['battery_soc_percent{battery_id="A"}'] == "50.0"
    assert values['battery_temperature_celsius{battery_id="A"}'] == "25.5"
    assert values['battery_predictions_total{battery_id="A"}'] == "9.0"
    assert values['battery_predictions_total{battery_id="B"}'] == "0.0"
    assert values['battery_rul_cycles{battery_id="A"}'] == "812.5"
    assert values['battery_failure_probability{battery_id="A"}'] == "0.04"
    assert values["packtwin_inference_up"] == "1.0" and values["packtwin_inference_restarts_total"] == "2.0"
    assert values['packtwin_decode_errors_total{battery_id="A",reason="short_frame"}'] == "2.0"
    assert values['packtwin_frames_dropped_total{battery_id="A"}'] == "4.0"
    assert values['packtwin_error_frames_total{battery_id="A",kind="bus_off"}'] == "1.0"
    assert values['packtwin_receive_buffer_bytes{battery_id="A"}'] == "425984.0"
    assert 'packtwin_frames_dropped_total{battery_id="B"}' not in text  # that bus cannot tell
    assert "battery_soh_percent{" not in text and 'battery_rul_cycles{battery_id="B"}' not in text


def test_a_head_has_no_body_and_a_host_that_is_none_is_refused(address: str) -> None:
    assert get(address, "/", method="HEAD")[:2] == (200, b"")
    with socket.create_connection(address.split(":"), timeout=5) as peer:
        peer.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
        assert not peer.makefile("rb").read().partition(b"\r\n\r\n")[2]
    assert get(address, "/", host="[")[0] == 403


def test_a_status_that_cannot_be_had_is_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    def status() -> dict[str, Any]:
        raise OutboxError("outbox.sqlite is damaged")

    with serve_page(ANY, status) as page_url, serve_metrics(ANY, status) as metrics_url:
        for url, path in ((page_url, "/status.json"), (metrics_url, "/metrics")):
            code, body, _ = get(url.removeprefix("http://"), path)
            assert (code, body) == (503, b"outbox.sqlite is damaged\n")
    assert not capfd.readouterr().err


def test_a_peer_that_goes_away_or_says_nothing_leaves_no_stack_trace(
    address: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser opens connections in advance; each one that it did not use put a traceback into the agent's log."""
    monkeypatch.setattr(page._Handler, "timeout", 0.05)
    with socket.create_connection(address.split(":"), timeout=5) as silent:
        assert silent.recv(1) == b"", "the server hangs up"
    with socket.create_connection(address.split(":"), timeout=5) as rude:
        rude.sendall(b"GE")
        rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert get(address, "/health")[0] == 200
    assert not capfd.readouterr().err
