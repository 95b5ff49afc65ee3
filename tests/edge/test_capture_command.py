"""`edge capture`: what is kept is listed and exported, a running agent is asked, and every refusal is one sentence."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.flight import Flight

from edge.__main__ import main
from edge.config import Listen, RecorderConfig, load_config
from edge.page.server import serve_page
from edge.page.wishes import KEY_HEADER, Wishes
from edge.status import note_running, running
from shared.errors import ConfigError

ANY = Listen(host="127.0.0.1", port=0, variable="EDGE_PORT")
TOML = 'device = "box"\ndata_dir = "cold"\nhot_dir = "hot"\n[[source]]\npack_id = "P-1"\ninterface = "socketcan"\n' \
    'channel = "can0"\nmapping = "m.toml"\n'  # fmt: skip
KEY = "5" * 32


@pytest.fixture
def flight(tmp_path: Path) -> Flight:
    (tmp_path / "edge.toml").write_text(TOML)
    return Flight(tmp_path, RecorderConfig(before_s=3, after_s=1))


@pytest.fixture
def address(flight: Flight) -> Iterator[str]:
    """The page of an agent with this recorder."""
    with serve_page(ANY, lambda: {"device": "box"}, Wishes(flight.recorder, KEY)) as url:
        (flight.folder / "hot").mkdir(exist_ok=True)
        note_running(flight.folder / "hot" / "running.json", {"pid": 1, "page": url, "key": KEY})
        yield url.removeprefix("http://")


def command(flight: Flight, *words: str) -> int:
    return main(["capture", *words, "--config", str(flight.folder / "edge.toml")])


def wish(address: str, body: bytes, key: str | None = KEY, method: str = "POST") -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, timeout=5)
    connection.request(method, "/capture", body, {KEY_HEADER: key} if key else {})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_a_trigger_is_heard_listed_exported_and_replayed(
    flight: Flight, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flight.drive(6)
    assert command(flight, "trigger", "--pack", "P-1", "--note", "it smells") == 0
    (id_, pack, *rest) = capsys.readouterr().out.split()
    assert (pack, rest) == ("P-1", ["kept", "in", "1", "s"])
    flight.drive(3)
    assert command(flight, "list") == 0
    out = capsys.readouterr().out
    assert id_ in out and "it smells" in out and "trigger" in out and "0 of 2 parts sent" in out
    assert command(flight, "list", "--json") == 0
    (listed,) = json.loads(capsys.readouterr().out)["captures"]
    assert (listed["id"], listed["note"], listed["parts"], listed["sent"]) == (id_, "it smells", 2, 0)
    log = flight.folder / "F.log"
    (flight.folder / "F.serial.jsonl").write_text("of another capture")
    assert command(flight, "export", id_[:4], "-o", str(log)) == 0
    assert sorted(path.name for path in flight.folder.glob("F.*")) == ["F.log", "F.state.json"]
    assert len(log.read_text().splitlines()) == listed["frames"]
    assert f"{listed['frames']} frames of P-1" in capsys.readouterr().err
    out_file = flight.folder / "out.jsonl"
    assert main(["replay", str(log), "--config", str(flight.folder / "edge.toml"), "-o", str(out_file)]) == 0
    replayed = [json.loads(line) for line in out_file.read_text().splitlines()]
    given = flight.given_within(replayed)
    assert [one | {"seq": 0} for one in replayed] == json.loads(json.dumps(given))
    assert len(replayed) == listed["samples"]
    capsys.readouterr()
    assert command(flight, "export", id_, "-o", "-") == 0
    assert capsys.readouterr().out == log.read_text()


def test_another_mapping_is_said_to_be_one(flight: Flight, capsys: pytest.CaptureFixture[str]) -> None:
    flight.drive(4)
    flight.recorder.trigger(None, None)
    flight.drive(3)
    log = flight.exported(flight.kept()[0])
    (flight.folder / "m.toml").write_text((flight.folder / "m.toml").read_text() + "# changed\n[pack]\nseries = 4\n")
    assert main(["replay", str(log), "--config", str(flight.folder / "edge.toml"), "-o", str(log) + ".jsonl"]) == 0
    assert "is not what this was captured with" in capsys.readouterr().err


def test_only_who_can_read_the_agents_folder_may_trigger(flight: Flight, address: str) -> None:
    body = b'{"pack_id": null, "note": null}'
    for key in (None, "", KEY[:-1], KEY + "5", "ä"):
        status, text = wish(address, body, key) if key != "ä" else wish(address, body, "\xe4")
        assert status == 403 and text.count("\n") == 1
    assert not flight.recorder.status()["waiting"]
    assert wish(address, body, method="GET")[0] == 404
    assert wish(address, body, method="PUT")[0] == 405
    status, text = wish(address, body)
    assert status == 200 and json.loads(text)["captures"][0]["pack_id"] == "P-1"
    assert (flight.folder / "hot" / "running.json").stat().st_mode & 0o777 == 0o600
    assert running(load_config(flight.folder / "edge.toml"))["key"] == KEY


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b'"x"', b'{"pack_id": 5, "note": null}', b'{"pack_id": null, "note": "a\\nb"}',
     b'{"pack_id": null, "note": "' + b"x" * 257 + b'"}', b'{"pack_id": null, "note": "' + b"x" * 5000 + b'"}'],
)  # fmt: skip
def test_what_is_no_wish_is_refused_in_a_sentence(address: str, body: bytes) -> None:
    status, text = wish(address, body)
    assert status == 400 and text == "not a wish for a capture\n"


def test_bad_usage_is_one_sentence_and_exit_2(flight: Flight, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (("trigger", "--pack", "P-9"), "no pack P-9: it has P-1"),
        (("trigger", "--note", "two\nlines"), "one line"),
        (("export", "nope", "-o", "x.log"), "no capture nope"),
        (("export", "nope"), "-o"),
        ((), "ACTION"),
    ):
        assert main(["capture", *words, *(["--config", str(flight.folder / "edge.toml")] if words else [])]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1


def test_a_place_that_cannot_be_written_to_is_exit_1_as_elsewhere(
    flight: Flight, capsys: pytest.CaptureFixture[str]
) -> None:
    flight.drive(2)
    flight.recorder.trigger(None, None)
    flight.drive(3)
    assert command(flight, "export", flight.kept()[0].id, "-o", "/nowhere/F.log") == 1
    assert "cannot be written" in capsys.readouterr().err


def test_without_an_agent_or_with_the_recorder_off_it_is_said(
    flight: Flight, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(flight, "trigger") == 1
    assert "no agent of box answers" in capsys.readouterr().err
    assert command(flight, "list") == 0 and "no capture" in capsys.readouterr().out
    with serve_page(ANY, dict, Wishes(None, KEY)) as url:
        (flight.folder / "hot").mkdir(exist_ok=True)
        note_running(flight.folder / "hot" / "running.json", {"pid": 1, "page": url, "key": KEY})
        assert command(flight, "trigger") == 1
        assert "recorder is off" in capsys.readouterr().err


def test_the_settings_are_checked_at_the_start(flight: Flight) -> None:
    path = flight.folder / "edge.toml"
    assert load_config(path).recorder == RecorderConfig()
    path.write_text(TOML + "[recorder]\nmax_bytes = 0\nbefore_s = 5\nafter_s = 2.5\nkeep = 3\nkeep_bytes = 2000000\n")
    assert load_config(path).recorder == RecorderConfig(
        max_bytes=0, before_s=5, after_s=2.5, keep=3, keep_bytes=2_000_000
    )
    for line, said in (
        ("max_bytes = 5", "must be 0 (off) or at least"),
        ("max_bytes = -1", "must lie between"),
        ("keep = 0", "must lie between"),
        ("before_s = 0", "must lie between"),
        ("size = 3", "not a setting"),
    ):
        path.write_text(f"{TOML}[recorder]\n{line}\n")
        with pytest.raises(ConfigError, match=said.replace("(", r"\(").replace(")", r"\)")):
            load_config(path)
