"""What `edge doctor` says of a box: on made-up /sys, on a real pty and a real loopback, and as a command."""

from __future__ import annotations

import json
import os
import socket
import tty
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes.loopback_bus import LoopbackBus
from waiting import arrived

from edge.__main__ import main
from edge.config_sources import CanPollConfig, SourceConfig
from edge.doctor import command as doctor
from edge.doctor.buses import CanInterface, can_interfaces, serial_ports
from edge.doctor.checks import (
    Check,
    Disk,
    Port,
    buffer_check,
    bus_check,
    clock_check,
    disk_check,
    exit_code,
    interface_check,
    port_check,
    python_can_check,
    uplink_check,
)
from edge.doctor.listen import Listened, listen
from edge.sources import socketcan
from edge.sources.can import SlcanSource
from edge.sources.source import SourceError
from firmware_bridge.frames import FrameBatch
from firmware_bridge.slcan import encode

SOURCE = SourceConfig(
    pack_id="P",
    interface="socketcan",
    channel="can0",
    bitrate=500_000,
    tty_baudrate=115_200,
    listen_only=False,
    mapping_path=Path("mapping.toml"),
)
IP_CAN0: dict[str, Any] = {
    "ifname": "can0",
    "linkinfo": {
        "info_kind": "can",
        "info_data": {
            "state": "ERROR-ACTIVE",
            "restart_ms": 100,
            "bittiming": {"bitrate": 250_000},
            "berr_counter": {"tx": 0, "rx": 3},
        },
        "info_xstats": {"bus_off": 2},
    },
}


def _net(sysfs: Path, name: str, kind: str, flags: str) -> None:
    folder = sysfs / "class" / "net" / name
    folder.mkdir(parents=True)
    (folder / "type").write_text(f"{kind}\n")
    (folder / "flags").write_text(f"{flags}\n")


def test_can_interfaces_are_those_of_type_280(tmp_path: Path) -> None:
    _net(tmp_path, "eth0", "1", "0x1003")
    _net(tmp_path, "can0", "280", "0x10081")
    _net(tmp_path, "can1", "280", "0x10080")
    found = can_interfaces(tmp_path, {"can0": IP_CAN0})
    assert [(one.name, one.is_up, one.bitrate) for one in found] == [("can0", True, 250_000), ("can1", False, None)]
    assert (found[0].state, found[0].rx_errors, found[0].bus_offs) == ("ERROR-ACTIVE", 3, 2)


def test_adapters_go_by_the_name_that_stays_theirs(tmp_path: Path) -> None:
    for port in ("ttyACM0", "ttyACM1", "ttyS0"):
        (tmp_path / port).touch()
    by_id = tmp_path / "serial" / "by-id"
    by_id.mkdir(parents=True)
    (by_id / "usb-canable-if00").symlink_to(tmp_path / "ttyACM0")
    assert serial_ports(tmp_path) == [str(by_id / "usb-canable-if00"), str(tmp_path / "ttyACM1")]


UP = CanInterface(name="can0", is_up=True, kind="can", state="ERROR-ACTIVE", bitrate=500_000, restart_ms=100)


@pytest.mark.parametrize(
    ("one", "source", "status", "says"),
    [
        (UP, SOURCE, "ok", "500000 bit/s"),
        (replace(UP, is_up=False), SOURCE, "fail", "ip link set can0 up type can bitrate 500000"),
        (replace(UP, is_up=False), None, "warn", "ip link set can0 up"),
        (replace(UP, bitrate=250_000), SOURCE, "warn", "edge.toml says 500000"),
        (replace(UP, state="BUS-OFF"), SOURCE, "fail", "restart-ms 100"),
        (replace(UP, state="ERROR-PASSIVE", rx_errors=130), SOURCE, "warn", "termination"),
        (replace(UP, restart_ms=0), SOURCE, "warn", "stays silent"),
        (CanInterface(name="vcan0", is_up=True, kind="vcan"), None, "ok", "vcan"),
    ],
)
def test_an_interface_is_told_with_what_to_do(
    one: CanInterface, source: SourceConfig | None, status: str, says: str
) -> None:
    check = interface_check(one, source)
    assert check.status == status and says in check.text


def _heard(*ids: int, errors: dict[str, int] | None = None, junk: int = 0) -> Listened:
    batch = FrameBatch.of("can0", [(0, one, b"\0") for one in ids])
    return Listened(2.0, [batch] if ids else [], errors or {}, junk)


@pytest.mark.parametrize(
    ("heard", "mapped", "status", "says"),
    [
        (_heard(256, 256, 512), {256, 512}, "ok", "2 frames/s of 2 ids, all 2 mapped ones among them"),
        (_heard(), set(), "fail", "silent for 2 s"),
        (_heard(errors={"form": 40}), set(), "fail", "the bit rate 500000 is wrong"),
        (_heard(junk=9), set(), "fail", "9 junk lines"),
        (_heard(256, errors={"stuff": 7}), set(), "warn", "error frames (stuff 7)"),
        (_heard(256), {256, 512}, "warn", "1 of 2 mapped ids did not come: 200"),
        (_heard(1, 2), {256, 512}, "fail", "none of which the mapping knows"),
    ],
)
def test_a_bus_is_told_by_what_came(heard: Listened, mapped: set[int], status: str, says: str) -> None:
    check = bus_check(SOURCE, heard, mapped)
    assert check.status == status and says in check.text


DISK = Disk(path="data", free=2 << 30, total=8 << 30, is_writable=True, device="mmcblk0p2")


@pytest.mark.parametrize(
    ("check", "status", "says"),
    [
        (
            port_check(Port(path="/dev/ttyACM0", exists=True, may_use=False, group="dialout"), "pi"),
            "fail",
            "-aG dialout pi",
        ),
        (port_check(Port(path="/dev/ttyACM0", exists=False, may_use=False), "pi"), "fail", "is not there"),
        (port_check(Port(path="/dev/ttyACM0", exists=True, may_use=True), "pi"), "ok", ""),
        (clock_check(True, "trusted", False), "ok", "synchronised"),
        (clock_check(False, "trusted", True), "ok", "the cloud's answers"),
        (clock_check(False, "trusted", False), "warn", "timedatectl set-ntp true"),
        (clock_check(False, "system", False), "warn", "timedatectl"),
        (buffer_check(212_992, 4_608_000, False, True), "warn", "sysctl -w net.core.rmem_max=4608000"),
        (buffer_check(212_992, 4_608_000, True, True), "ok", "as root"),
        (buffer_check(8_000_000, 4_608_000, False, True), "ok", "1.7 s"),
        (buffer_check(None, 4_608_000, False, True), "warn", "cannot be read"),
        (buffer_check(212_992, 4_608_000, False, False), "ok", "no SocketCAN"),
        (disk_check(DISK, 512 << 20, 10.0), "ok", "an SD card"),
        (disk_check(DISK, 512 << 20, 1.0), "warn", "flush_s"),
        (disk_check(replace(DISK, free=200 << 20), 512 << 20, 10.0), "warn", "max_mib"),
        (disk_check(replace(DISK, free=9 << 20), 512 << 20, 10.0), "fail", "make room"),
        (disk_check(replace(DISK, is_writable=False), 0, 10.0), "fail", "not writable"),
        (disk_check(replace(DISK, is_read_only=True), 0, 10.0), "fail", "read-only"),
        (python_can_check("No module named 'can'", True), "fail", "pip install python-can"),
        (python_can_check("No module named 'can'", False), "warn", "pip install"),
        (uplink_check("", None), "ok", "none is set"),
        (uplink_check("http://x", None), "ok", "answers"),
        (uplink_check("http://x", "refused"), "fail", "refused"),
    ],
)
def test_each_finding_says_what_to_do(check: Check, status: str, says: str) -> None:
    assert check.status == status and says in check.text


def test_a_silent_bus_on_which_the_agent_asks_is_well() -> None:
    """A car that is asked says nothing before, and was called broken."""
    asked = replace(SOURCE, can=CanPollConfig(poll=True))
    check = bus_check(asked, _heard(), set())
    assert check.status == "ok" and "which is normal" in check.text
    assert bus_check(asked, _heard(errors={"ack": 3}), set()).status == "fail"


def test_only_what_fails_makes_the_exit_code() -> None:
    assert exit_code([Check("a", "ok", ""), Check("b", "warn", "")]) == 0
    assert exit_code([Check("a", "ok", ""), Check("b", "fail", "")]) == 1


def test_listening_to_an_adapter_opens_it_for_listening_only(tmp_path: Path) -> None:
    """listen_only is false in the source; the doctor says `L` all the same, and nothing but the set-up."""
    ours, line = os.openpty()
    tty.setraw(line)
    path = os.ttyname(line)
    sent = b"".join(encode(FrameBatch.of("c", [(0, 0x100 + i, b"\1\2")])) for i in range(5))
    now = iter(range(0, 10**12, 20_000_000))

    def pause(_: float) -> None:
        nonlocal sent
        if sent:
            os.write(ours, sent)
            sent = b""
            arrived(line)

    try:
        source = replace(SOURCE, interface="slcan", channel=path)
        heard = listen(source, 0.5, mono_ns=lambda: next(now), sleep=pause)
        assert heard.frames == 5 and heard.ids == set(range(0x100, 0x105))
        assert os.read(ours, 100) == b"C\rS6\rL\r"
        os.set_blocking(ours, False)
        with pytest.raises(BlockingIOError):
            os.read(ours, 100)
    finally:
        os.close(ours)
        os.close(line)


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackBus]:
    bus = LoopbackBus()
    monkeypatch.setattr(socketcan, "open_bus", bus)
    yield bus
    bus.close()


def test_listening_to_an_interface_counts_frames_and_errors(loopback: LoopbackBus) -> None:
    todo = [lambda: loopback.send(0x100, b"\1"), lambda: loopback.send(0x2000_0008, bytes(8))]

    def pause(_: float) -> None:
        if todo:
            todo.pop()()

    now = iter(range(0, 10**12, 20_000_000))
    heard = listen(SOURCE, 0.4, mono_ns=lambda: next(now), sleep=pause)
    assert heard.frames == 1 and heard.ids == {0x100} and sum(heard.errors.values()) == 1


def test_an_interface_that_is_not_there_is_an_error_of_the_source() -> None:
    with pytest.raises(SourceError, match="cannot be opened"):
        listen(replace(SOURCE, channel="nocan9"), 0.1)


def test_an_adapter_that_the_agent_reads_is_no_failure() -> None:
    ours, line = os.openpty()
    tty.setraw(line)
    try:
        source = replace(SOURCE, interface="slcan", channel=os.ttyname(line))
        agent = SlcanSource(source)
        agent.open()
        check = doctor._bus(source, 0.1, set())
        assert check.status == "warn" and "the agent may be reading it" in check.text
        agent.close()
    finally:
        os.close(ours)
        os.close(line)


EDGE = """device = "box"
data_dir = "data"
hot_dir = ""
[uplink]
url = "{url}"
[[source]]
pack_id = "P"
interface = "{interface}"
channel = "{channel}"
mapping = "mapping.toml"
"""


def _doctor(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, tuple[str, str]]]:
    code = main(["doctor", "--json", "--seconds", "0.2", *arguments])
    told = json.loads(capsys.readouterr().out)
    return code, {one["check"]: (one["status"], one["text"]) for one in told}


def test_the_command_reports_what_edge_toml_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An adapter that is not plugged in and a cloud that is not there fail; the mapping is right."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = taken.getsockname()[1]
    config = tmp_path / "edge.toml"
    port = tmp_path / "no-adapter"
    config.write_text(EDGE.format(url=f"http://127.0.0.1:{closed}", interface="slcan", channel=port))
    code, told = _doctor(capsys, "--config", str(config))
    assert code == 1
    assert told["config"][0] == "ok" and told["mapping P"][0] == "ok"
    assert told[f"port {port}"][0] == "fail" and told[f"bus {port}"][0] == "fail"
    assert told["uplink"][0] == "fail" and "refused" in told["uplink"][1]
    assert told["disk"][0] in ("ok", "warn")
    assert not (tmp_path / "data").exists()


def test_an_uplink_that_answers_gets_no_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        config = tmp_path / "edge.toml"
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        config.write_text(EDGE.format(url=url, interface="slcan", channel="none"))
        _, told = _doctor(capsys, "--config", str(config))
        assert told["uplink"] == ("ok", f"{url} answers")
        line, _ = server.accept()
        with line:
            assert line.recv(100) == b""


def test_it_says_whether_bluetooth_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.toml").write_text('protocol = "ble"\n[fields]\npack_v = { from = "pack_v" }\n')
    config = tmp_path / "edge.toml"
    config.write_text('device = "b"\n[[source]]\npack_id = "P"\ntype = "ble"\naddress = "X"\nmapping = "m.toml"\n')
    _, told = _doctor(capsys, "--config", str(config))
    assert told["mapping P"][0] == "ok"
    assert told["bluetooth X"][0] == "fail" and "Bluetooth needs" in told["bluetooth X"][1]


def test_a_signal_that_the_dbc_does_not_have_fails_the_mapping(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mapping.toml").write_text('dbc = "packtwin.dbc"\n[fields]\npack_v = { from = "No.Such" }\n')
    config = tmp_path / "edge.toml"
    config.write_text(EDGE.format(url="", interface="slcan", channel="none"))
    code, told = _doctor(capsys, "--config", str(config))
    assert code == 1 and told["mapping P"][0] == "fail" and "No.Such" in told["mapping P"][1]


def test_without_edge_toml_it_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "can_interfaces", list)
    monkeypatch.setattr(doctor, "serial_ports", list)
    monkeypatch.setattr(doctor, "find_config", _none)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "warn  config: no edge.toml" in out and "--write-config" in out and "warn  interfaces: no CAN" in out


def _none(_: str | None) -> Path:
    from shared.errors import ConfigError

    raise ConfigError("none")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--dbc", "x.dbc"], "--dbc needs --write-config"),
        (["--write-config"], "give --dbc F"),
        (["--write-config", "--dbc", "nowhere.dbc"], "nowhere.dbc does not exist"),
        (["--config", "nowhere.toml"], "nowhere.toml does not exist"),
        (["--seconds", "0"], "--seconds"),
        (["--write-config", "--dbc", "x.dbc", "--json"], "leave them out"),
    ],
)
def test_bad_usage_is_one_sentence(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *arguments]) == 2
    told = capsys.readouterr()
    assert says in told.err and told.err.count("\n") == 1 and told.out == ""


def test_a_config_that_is_wrong_is_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "edge.toml"
    config.write_text("device = 7\n")
    code, told = _doctor(capsys, "--config", str(config))
    assert code == 1 and told["config"][0] == "fail" and "device" in told["config"][1]


def test_a_proposal_from_a_live_bus(
    loopback: LoopbackBus,
    shared_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Heard on the interface itself; edge.toml then names it."""
    from edge.propose import command as propose

    def heard(config: SourceConfig, seconds_s: float) -> Listened:
        now = iter(range(0, 10**12, 10_000_000))
        return listen(config, seconds_s, mono_ns=lambda: next(now), sleep=lambda _: loopback.send(256, bytes(range(8))))

    monkeypatch.setattr(propose, "listen", heard)
    dbc = shared_dir / "can" / "evpack.dbc"
    arguments = ["--dbc", str(dbc), "--channel", "can3", "--seconds", "0.5", "-o", str(tmp_path)]
    assert main(["doctor", "--write-config", *arguments]) == 0
    assert "wrote" in capsys.readouterr().err
    assert 'channel = "can3"' in (tmp_path / "edge.toml").read_text()
    assert "heard on can3" in (tmp_path / "mapping.toml").read_text()
