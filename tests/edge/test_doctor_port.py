"""`edge doctor --port`: listens before it asks, sends nothing but read requests, names what is there, writes files."""

from __future__ import annotations

import json
import os
import select
import threading
from pathlib import Path

import pytest
from fakes.bms_port import JBD_VALUES, BmsPort, Hurry, Quick, served
from fakes.toy_language import TOY
from waiting import arrived

from edge.__main__ import main
from edge.config import load_config
from edge.doctor import port as port_command
from edge.doctor.found import Pack
from edge.doctor.probe import Probe, serial_languages
from edge.lanes import build_lanes
from edge.mapping import load_mapping
from edge.propose.serial import Here, propose_serial
from edge.sources.port import SerialPort
from edge.sources.source import SourceError
from firmware_bridge.protocol import Part
from firmware_bridge.protocols.jbd import JBD, reply

TOYS = {address: {"pack_v": 40 + address, "current_a": address, "extra.model": 1} for address in (1, 2, 7)}


@pytest.fixture
def no_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_command, "_cloud_here", lambda: "")


def test_a_jbd_is_named_and_its_files_need_no_edit(
    tmp_path: Path, no_cloud: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(BmsPort(tmp_path / "port", JBD, {None: JBD_VALUES})) as bms:
        arguments = [
            "doctor",
            "--port",
            str(bms.link),
            "--seconds",
            "0.1",
            "--write-config",
            "-o",
            str(tmp_path / "box"),
        ]
        assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "ok    bms jbd: JBD" in out and "13.28 V, -2.50 A, SoC 87 %, 4 cells 3.319 to 3.321 V" in out
    assert "QUESTION  mapping.toml chemistry: nmc, lfp" in out and "at 3.320 V now" in out
    config = load_config(tmp_path / "box" / "edge.toml", {})
    (lane,) = build_lanes(config)
    assert (lane.config.interface, lane.config.channel) == ("serial", str(tmp_path / "port"))
    pack = lane.mapping.pack
    assert (pack.series, pack.nominal_ah, pack.chemistry) == (4, 100.0, None)
    names = {target.name for target in lane.mapping.targets}
    assert {"pack_v", "current_a", "soc_bms", "cell_v[3]", "temp_c[1]", "balancing", "charge_mos"} <= names
    assert {"alarm.short_circuit", "extra.remaining_ah"} <= names and "extra.hw_version" not in names


def test_nothing_is_written_but_read_requests_of_the_languages(tmp_path: Path) -> None:
    """Nobody answers, so everything is tried: all of it must be a poll of some language, at whatever address."""
    allowed = {
        poll.request
        for language in serial_languages()
        for address in (None, *range(16))
        for poll in language.polls(address, None)
    }
    heard = b""
    port = BmsPort(tmp_path / "port", JBD, {None: {}})

    one_at_a_time = threading.Lock()

    def hear() -> None:
        nonlocal heard
        with one_at_a_time:
            if select.select([port.fd], [], [], 0.01)[0]:
                heard += os.read(port.fd, 4096)

    clock = Hurry()
    with served(port, hear):
        found = Probe(str(port.link), serial_languages(), listen_s=0.3, mono_ns=clock.mono_ns, sleep=clock.sleep).run()
        while select.select([port.fd], [], [], 0.2)[0]:
            hear()
    assert not found.packs and set(found.asked) == {language.name for language in serial_languages()}
    rest = heard
    while rest:
        request = next((one for one in allowed if rest.startswith(one)), None)
        assert request is not None, rest[:40].hex()
        rest = rest[len(request) :]
    assert len(heard) > 500


def test_what_was_answered_while_the_doctor_was_held_up_is_heard(tmp_path: Path) -> None:
    """It looked at the time first, and let what lay there be."""
    port, clock = BmsPort(tmp_path / "port", JBD, {None: JBD_VALUES}), Hurry()

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if port.serve():
            arrived(port._line)
            clock.sleep(60)

    found = Probe(str(port.link), [JBD], listen_s=0.1, mono_ns=clock.mono_ns, sleep=sleep).run()
    port.pull_out()
    assert [(pack.protocol.name, pack.values["pack_v"]) for pack in found.packs] == [("jbd", 13.28)]


def test_where_another_one_asks_nothing_is_sent_and_what_it_is_answered_is_understood(tmp_path: Path) -> None:
    port = BmsPort(tmp_path / "port", JBD, {None: JBD_VALUES})
    sent: list[bytes] = []

    def talk() -> None:
        os.write(port.fd, reply(0x03, JBD_VALUES) + reply(0x04, JBD_VALUES))
        if select.select([port.fd], [], [], 0.05)[0]:
            sent.append(os.read(port.fd, 4096))

    clock = Quick()
    with served(port, talk):
        found = Probe(str(port.link), serial_languages(), listen_s=1.5, mono_ns=clock.mono_ns, sleep=clock.sleep).run()
    (pack,) = found.packs
    assert pack.protocol is JBD and not pack.was_asked and pack.values["pack_v"] == 13.28 and sent == []
    text = propose_serial([pack], HERE).files["edge.toml"]
    assert "poll = false" in text and "QUESTION" in text


def test_where_somebody_talks_in_no_known_language_nothing_is_sent(
    tmp_path: Path, no_cloud: None, capsys: pytest.CaptureFixture[str]
) -> None:
    port = BmsPort(tmp_path / "port", JBD, {None: {}})

    def talk() -> None:
        os.write(port.fd, b"$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9\r\n")
        if select.select([port.fd], [], [], 0.05)[0]:
            raise AssertionError(os.read(port.fd, 4096))

    with served(port, talk):
        assert main(["doctor", "--port", str(port.link), "--seconds", "0.6", "--json"]) == 1
    checks = json.loads(capsys.readouterr().out)
    assert checks[-1]["status"] == "fail" and "nothing was sent" in checks[-1]["text"]


def test_all_packs_of_a_line_are_found_with_their_addresses(tmp_path: Path) -> None:
    with served(BmsPort(tmp_path / "port", TOY, TOYS)) as bms:
        found = Probe(str(bms.link), [TOY], listen_s=0.1).run()
    assert [(pack.address, pack.values["pack_v"]) for pack in found.packs] == [(1, 41.0), (2, 42.0), (7, 47.0)]
    text = propose_serial(found.packs, HERE).files
    assert text["edge.toml"].count("[[source]]") == 3 and "address = 7" in text["edge.toml"]
    assert set(text) == {"edge.toml", "mapping.toml"}


def test_a_pack_that_answers_to_every_address_is_one_pack(tmp_path: Path) -> None:
    values = {address: {"pack_v": 50, "current_a": 3, "extra.model": 1} for address in range(16)}
    with served(BmsPort(tmp_path / "port", TOY, values)) as bms:
        found = Probe(str(bms.link), [TOY], listen_s=0.1).run()
    assert [pack.address for pack in found.packs] == [None]


HERE = Here(device="box", port="/dev/ttyUSB0", url="", page_port=5002, metrics_port=9100)


def found_pack(address: int | None = None, **values: object) -> Pack:
    pack = Pack(JBD, 9600, address, was_asked=True)
    told = {**JBD_VALUES, **values}
    quality = {name: "absent" for name, value in told.items() if value is None}
    pack.take(Part(kind="status", values=told, quality=quality))  # type: ignore[arg-type]
    return pack


def test_a_sensor_at_the_end_that_is_not_there_is_not_mapped_and_one_between_is(tmp_path: Path) -> None:
    pack = found_pack(**{"temp_c[1]": None, "temp_c[2]": 20.0, "temp_c[3]": None})
    proposal = propose_serial([pack], HERE)
    (tmp_path / "m.toml").write_text(proposal.files["mapping.toml"])
    mapping = load_mapping(tmp_path / "m.toml")
    assert mapping.layout.temps == 3


def test_packs_that_differ_have_a_mapping_each_and_ids_that_no_other_box_has(tmp_path: Path) -> None:
    small, large = found_pack(1), found_pack(2, **{"cell_v[4]": 3.3})
    proposal = propose_serial([small, large, found_pack(3)], HERE)
    assert set(proposal.files) == {"mapping.toml", "mapping-2.toml", "edge.toml"}
    edge = proposal.files["edge.toml"]
    assert [edge.count(f'pack_id = "box-jbd-{at}"') for at in (1, 2, 3)] == [1, 1, 1]
    assert edge.count('mapping = "mapping.toml"') == 2 and edge.count('mapping = "mapping-2.toml"') == 1


def test_a_capacity_that_the_bms_does_not_tell_is_asked_for() -> None:
    pack = found_pack(**{"extra.nominal_ah": 0.0})
    proposal = propose_serial([pack], HERE)
    assert ("mapping.toml nominal_ah", "how many Ah did the pack have when new? The BMS does not say.") in (
        proposal.questions
    )


WRONG = {
    "no such port": (["--port", "/dev/no-such"], 1, "is not there"),
    "a bus as well": (["--port", "/dev/x", "--channel", "can0"], 2, "--channel has no meaning with --port"),
    "out without writing": (["--port", "/dev/x", "-o", "d"], 2, "need --write-config"),
    "no rate at all": (["--port", "/dev/x", "--baudrate", "-5"], 2, "--baudrate -5 must lie between 300 and 4000000"),
    "a rate of nobody": (["--port", "/dev/x", "--baudrate", "99999999999"], 2, "must lie between 300 and 4000000"),
    "a rate of nothing": (["--port", "/dev/x", "--baudrate", "0"], 2, "--baudrate 0 must lie between"),
    "no port at all": (["--port", "/dev/null"], 1, "port /dev/null: is no serial port"),
    "a folder": (["--port", "/tmp"], 1, "port /tmp: is no serial port"),
    "a rate without a port": (["--baudrate", "9600"], 2, "name it with --port"),
    "nothing to write from": (["--write-config"], 2, "--port P"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_done_is_one_sentence(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, code, sentence = WRONG[case]
    assert main(["doctor", *arguments]) == code
    told = capsys.readouterr()
    assert sentence in told.out + told.err and "another program" not in told.out + told.err


def test_a_port_that_another_program_has_is_said_to_be_in_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = BmsPort(tmp_path / "port", JBD, {None: {}})
    holder = SerialPort(str(port.link), 9600)
    holder.open()
    assert main(["doctor", "--port", str(port.link), "--seconds", "0.1"]) == 1
    assert "another program may be reading it" in capsys.readouterr().out
    holder.close()
    port.pull_out()


def test_files_that_are_there_are_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "edge.toml").write_text("mine")
    assert main(["doctor", "--port", "/dev/no-such", "--write-config", "-o", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err and (tmp_path / "edge.toml").read_text() == "mine"


def test_a_port_that_goes_while_it_is_asked_is_told(tmp_path: Path) -> None:
    port = BmsPort(tmp_path / "port", JBD, {None: {}})
    port.pull_out()
    with pytest.raises(SourceError):
        Probe(str(port.link), serial_languages(), listen_s=0.1).run()


def test_the_checks_of_a_box_never_open_the_serial_port_of_a_bms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = BmsPort(tmp_path / "port", JBD, {None: {}})
    (tmp_path / "m.toml").write_text('protocol = "jbd"\n[fields]\npack_v = { from = "pack_v" }\n')
    (tmp_path / "edge.toml").write_text(
        f'device = "b"\n[[source]]\npack_id = "A"\ntype = "serial"\nchannel = "{port.link}"\nmapping = "m.toml"\n'
    )
    main(["doctor", "--config", str(tmp_path / "edge.toml"), "--seconds", "0.2"])
    out = capsys.readouterr().out
    assert "m.toml: 1 names of jbd" in out and f"ok    port {port.link}" in out
    assert not select.select([port.fd], [], [], 0.1)[0]
    port.pull_out()
