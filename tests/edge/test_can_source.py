"""slcan over a real pty: the adapter is opened as it should be, every frame arrives, a lost line is found again."""

from __future__ import annotations

import os
import select
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import arrived

from edge.config_sources import CanPollConfig, SourceConfig
from edge.sources import usb
from edge.sources.can import PythonCanSource, SlcanSource, SourceError, source_of
from firmware_bridge.frames import FrameBatch
from firmware_bridge.slcan import encode
from shared.errors import ConfigError


class Adapter:
    """The other end of a pty, behind a name that survives the adapter."""

    def __init__(self, link: Path) -> None:
        self.link = link
        self.fd = -1
        self.plug_in()

    def plug_in(self) -> None:
        self.fd, line = os.openpty()
        tty.setraw(line)
        self.link.unlink(missing_ok=True)
        self.link.symlink_to(os.ttyname(line))
        os.close(line)

    def heard(self) -> bytes:
        return os.read(self.fd, 4096) if select.select([self.fd], [], [], 5)[0] else b""

    def pull_out(self) -> None:
        os.close(self.fd)


@pytest.fixture
def adapter(tmp_path: Path) -> Iterator[Adapter]:
    adapter = Adapter(tmp_path / "can")
    yield adapter
    adapter.pull_out()


def config(channel: str, **changes: object) -> SourceConfig:
    values: dict[str, object] = {
        "pack_id": "A",
        "interface": "slcan",
        "channel": channel,
        "bitrate": 500_000,
        "tty_baudrate": 115_200,
        "listen_only": True,
        "mapping_path": Path("m"),
    }
    return SourceConfig(**(values | changes))  # type: ignore[arg-type]


def frames(count: int) -> FrameBatch:
    return FrameBatch.of("c", [(0, i % 0x800, i.to_bytes(8, "big")) for i in range(count)])


def read_all(source: SlcanSource, count: int) -> list[tuple[int, bytes]]:
    """Reads until `count` frames have come; the pty passes them on in its own time."""
    got: list[tuple[int, bytes]] = []
    while len(got) < count:
        got += [(can_id, data) for _, can_id, data in source.read(7).rows()]
    return got


def test_the_adapter_is_closed_set_and_started_listening_only(adapter: Adapter) -> None:
    source = SlcanSource(config(str(adapter.link)))
    source.open()
    assert adapter.heard() == b"C\rS6\rL\r"
    source.close()


def test_listen_only_can_be_left(adapter: Adapter) -> None:
    source = SlcanSource(config(str(adapter.link), listen_only=False, bitrate=250_000))
    source.open()
    assert adapter.heard() == b"C\rS5\rO\r"
    source.close()


def test_every_frame_arrives_once_whatever_the_pieces(adapter: Adapter) -> None:
    source = SlcanSource(config(str(adapter.link)))
    source.open()
    adapter.heard()
    sent = frames(300)
    text = b"\r\rz\r" + encode(sent) + b"junk!\r"
    got = []
    for at in range(0, len(text), 997):
        os.write(adapter.fd, text[at : at + 997])
        arrived(source._port.fileno())
        got += [(can_id, data) for _, can_id, data in source.read(7).rows()]
    got += read_all(source, 300 - len(got))
    assert got == [(can_id, data) for _, can_id, data in sent.rows()]
    assert len(source.read(7)) == 0  # silence is no error
    assert source.bad_lines == 1
    source.close()


def test_a_line_that_goes_is_told_and_opens_again_when_it_is_back(adapter: Adapter) -> None:
    source = SlcanSource(config(str(adapter.link)))
    source.open()
    adapter.heard()
    adapter.pull_out()
    with pytest.raises(SourceError, match="has gone"):
        source.read(7)
    source.close()
    adapter.plug_in()
    source.open()
    adapter.heard()
    os.write(adapter.fd, encode(frames(3)))
    assert len(read_all(source, 3)) == 3
    source.close()


def test_an_adapter_that_comes_back_under_another_name_is_followed_by_its_link(adapter: Adapter) -> None:
    """Its old port may live on, silent: what was /dev/ttyACM0 is /dev/ttyACM1 now, and by-id points there."""
    source = SlcanSource(config(str(adapter.link)))
    source.open()
    adapter.heard()
    assert len(source.read(1_000_000_000)) == 0
    old = adapter.fd
    adapter.plug_in()
    with pytest.raises(SourceError, match="has gone"):
        for second in range(2, 5):
            source.read(second * 1_000_000_000)
    source.close()
    source.open()
    adapter.heard()
    os.write(adapter.fd, encode(frames(3)))
    assert len(read_all(source, 3)) == 3
    source.close()
    os.close(old)


def test_an_adapter_whose_link_is_gone_has_gone(adapter: Adapter) -> None:
    source = SlcanSource(config(str(adapter.link)))
    source.open()
    adapter.link.unlink()
    with pytest.raises(SourceError, match="has gone"):
        source.read(10_000_000_000)
    source.close()


@pytest.mark.parametrize(("kind", "name"), [("tty", "/dev/ttyACM1"), ("net", "can1")])
def test_an_adapter_is_found_by_its_serial_number(tmp_path: Path, kind: str, name: str) -> None:
    for number, port in (("AA", "1-1"), ("BB", "1-2")):
        device = tmp_path / "devices" / "pci0" / "usb1" / port
        (device / "1-2:1.0").mkdir(parents=True)
        (device / "serial").write_text(f"{number}\n")
    for at, port in ((0, "1-1"), (1, "1-2")):
        entry = tmp_path / "class" / kind / f"{'ttyACM' if kind == 'tty' else 'can'}{at}"
        entry.mkdir(parents=True)
        (entry / "device").symlink_to(tmp_path / "devices" / "pci0" / "usb1" / port / "1-2:1.0")
    (tmp_path / "class" / kind / "lo").mkdir()
    assert usb.name_of("usb:BB", kind, tmp_path) == name
    assert usb.name_of("usb:CC", kind, tmp_path) is None
    assert usb.name_of("can0", kind, tmp_path) == "can0"


@pytest.mark.parametrize("interface", ["slcan", "socketcan"])
def test_an_adapter_that_is_not_plugged_in_is_one_sentence(interface: str) -> None:
    with pytest.raises(SourceError, match="usb:nothing-like-that cannot be opened: no such adapter is plugged in"):
        source_of(config("usb:nothing-like-that", interface=interface)).open()


def test_a_line_has_one_reader(adapter: Adapter) -> None:
    first, second = SlcanSource(config(str(adapter.link))), SlcanSource(config(str(adapter.link)))
    first.open()
    with pytest.raises(SourceError, match="cannot be opened"):
        second.open()
    first.close()


def test_what_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be opened: no such file or directory"):
        SlcanSource(config(str(tmp_path / "none"))).open()


def test_a_bitrate_that_slcan_has_not_and_an_unknown_interface_are_configuration_errors() -> None:
    with pytest.raises(ConfigError, match="500000"):
        source_of(config("/dev/null", bitrate=123_456))
    with pytest.raises(ConfigError, match="socketcan"):
        source_of(config("can0", interface="nonsense"))


def test_other_interfaces_go_through_python_can() -> None:
    import can

    source = PythonCanSource(config("packtwin-test", interface="virtual"))
    source.open()
    with can.Bus(interface="virtual", channel="packtwin-test") as sender:
        sender.send(can.Message(arbitration_id=0x123, data=b"\x01\x02", is_extended_id=False))
        sender.send(can.Message(arbitration_id=0x18FF50E5, data=b"", is_extended_id=True))
    assert [(can_id, data) for _, can_id, data in source.read(5).rows()] == [
        (0x123, b"\x01\x02"),
        (0x98FF50E5, b""),
    ]
    source.close()
    with pytest.raises(SourceError, match="not open"):
        source.read(6)


def test_whatever_a_vendors_code_raises_is_told_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Kvaser's driver it is a NameError, which ended the agent, and with it every other pack."""
    import can

    class Vendor:
        socket = None

        def fail(self, *_: object, **__: object) -> None:
            raise NameError("name 'canRead' is not defined")

        recv = send = shutdown = fail

    source = PythonCanSource(config("0", interface="kvaser", listen_only=False, can=CanPollConfig(poll=True)))
    monkeypatch.setattr(can, "Bus", Vendor().fail)
    with pytest.raises(SourceError, match="kvaser 0 cannot be opened: name 'canRead' is not defined"):
        source.open()
    monkeypatch.setattr(can, "Bus", lambda **_: Vendor())
    source.open()
    with pytest.raises(SourceError, match="0 has gone"):
        source.read(1)
    with pytest.raises(SourceError, match="0 has gone"):
        source.send(0x123, b"")
    source.close()
