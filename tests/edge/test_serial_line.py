"""BMSs on serial lines over real ptys: what they say comes to the right pack by the mapping; nothing else is sent."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.bms_port import JBD_VALUES, BmsPort
from fakes.toy_language import TOY, message
from waiting import arrived

from edge.assemble import readable
from edge.config_sources import SerialConfig, SourceConfig
from edge.doctor.probe import serial_languages
from edge.intake_parts import PartIntake
from edge.lane import Lane
from edge.mapping import Mapping, load_mapping
from edge.sources.ear import Asking
from edge.sources.serial_line import Line
from edge.sources.source import SourceError
from firmware_bridge.protocol import Protocol
from firmware_bridge.protocols.jbd import JBD, reply
from firmware_bridge.protocols.jk_uart import JK_UART
from shared.errors import ConfigError

MS = 1_000_000
S = 1000 * MS
MAPPING = """protocol = "jbd"
[fields]
pack_v = { from = "pack_v", resolution = 0.01 }
current_a = { from = "current_a", resolution = 0.01 }
soc_bms = { from = "soc_bms" }
cell_v = { from = "cell_v[{}]", count = 4 }
temp_c = { from = "temp_c[{}]", count = 2 }
balancing = { from = "balancing" }
charge_mos = { from = "charge_mos" }
"extra.remaining_ah" = { from = "extra.remaining_ah" }
[alarms]
short_circuit = "alarm.short_circuit"
"""


class Rig:
    """Lanes on one line whose other end is a BmsPort; time is the test's."""

    def __init__(
        self, port: BmsPort, mapping: Mapping, addresses: tuple[int | None, ...], *, polls: bool = True
    ) -> None:
        self.port, self.now = port, 10 * S
        assert mapping.spoken is not None
        spoken = mapping.spoken.protocol
        packs = [Asking.of(spoken, None, address, 0.5, polls=polls) for address in addresses]
        self.line = Line(str(port.link), spoken, None, packs)
        self.lanes = [
            Lane(_source(f"P-{seat.asking.address}", port.link), PartIntake(seat, mapping), mapping, 1.0)
            for seat in self.line.seats
        ]
        self._write = self.line._port.write
        self.line._port.write = self._put  # type: ignore[method-assign]

    def _put(self, data: bytes) -> None:
        self._write(data)
        arrived(self.port.fd)

    def open(self) -> None:
        for lane in self.lanes:
            lane.intake.open()

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds * 50)):
            self.now += 20 * MS
            for lane in self.lanes:
                lane.tick(self.now)
            if self.port.serve() and self.line._port.is_open:
                arrived(self.line._port.fileno())

    def until(self, check: Callable[[], object]) -> None:
        deadline_s = time.monotonic() + 20
        while not check():
            assert time.monotonic() < deadline_s
            self.run(0.02)

    def sample(self, at: int = 0) -> dict[str, object]:
        measured = self.lanes[at].sample(self.now, None)
        assert measured is not None
        return dict(readable(measured))

    def told(self, at: int) -> tuple[object, object]:
        """(pack_v, soc_bms) of the next Sample; None before the pack has said anything."""
        measured = self.lanes[at].sample(self.now, None)
        sample = {} if measured is None else readable(measured)
        return sample.get("pack_v"), sample.get("soc_bms")


def _source(pack_id: str, link: Path) -> SourceConfig:
    return SourceConfig(
        pack_id=pack_id, interface="serial", channel=str(link), bitrate=0, tty_baudrate=0, listen_only=False,
        mapping_path=Path("m"), serial=SerialConfig(),
    )  # fmt: skip


@pytest.fixture
def mapping(tmp_path: Path) -> Mapping:
    (tmp_path / "m.toml").write_text(MAPPING)
    return load_mapping(tmp_path / "m.toml")


@pytest.fixture
def toy(mapping: Mapping, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Mapping:
    """A mapping of the language that tells whose a reply is."""
    monkeypatch.setattr("edge.mapping_protocol.protocol", lambda name: TOY)
    (tmp_path / "t.toml").write_text(
        'protocol = "toy"\n[fields]\npack_v = { from = "pack_v" }\ncurrent_a = { from = "current_a" }\n'
    )
    return load_mapping(tmp_path / "t.toml")


@pytest.fixture
def bms(tmp_path: Path) -> Iterator[BmsPort]:
    port = BmsPort(tmp_path / "bms", JBD, {None: JBD_VALUES})
    yield port
    port.pull_out()


def test_what_the_bms_says_is_a_sample_by_the_mapping(bms: BmsPort, mapping: Mapping) -> None:
    rig = Rig(bms, mapping, (None,))
    rig.open()
    rig.until(lambda: rig.lanes[0].intake.frames >= 3)
    sample = rig.sample()
    assert sample["pack_v"] == 13.28 and sample["current_a"] == -2.5 and sample["soc_bms"] == 0.87
    assert sample["cell_v"] == [3.321, 3.32, 3.319, 3.32] and sample["temp_c"] == [21.4, 0.0]
    assert (sample["balancing"], sample["charge_mos"]) == (4, True)
    assert sample["extra"] == {"remaining_ah": 87.0} and sample["quality"] == {} and sample["alarms"] == []
    bms.packs[None]["alarm.short_circuit"] = True
    bms.packs[None]["current_a"] = 31.0
    rig.until(lambda: rig.sample()["alarms"] == ["short_circuit"])
    assert rig.sample()["current_a_max"] == 31.0


def test_nothing_but_the_read_requests_of_its_language_is_ever_written(bms: BmsPort, mapping: Mapping) -> None:
    rig = Rig(bms, mapping, (None,))
    rig.open()
    rig.run(4)
    rig.until(lambda: len(bms.asked) > 8)
    assert set(bms.asked) <= {poll.request for poll in JBD.polls(None, None)}
    assert all(request[1] == 0xA5 for request in bms.asked)  # DD 5A would be a write


def test_an_adapter_that_goes_is_told_and_one_that_comes_back_under_another_name_is_read_on(
    bms: BmsPort, mapping: Mapping
) -> None:
    rig = Rig(bms, mapping, (None,))
    rig.open()
    rig.until(lambda: rig.lanes[0].intake.frames >= 2)
    name = os.readlink(bms.link)
    bms.pull_out()
    with pytest.raises(SourceError, match="gone"):
        rig.run(1)
    rig.lanes[0].intake.close()
    held, _ = os.openpty()  # somebody else has the old name now
    bms.plug_in()
    assert os.readlink(bms.link) != name
    rig.open()
    before = rig.lanes[0].intake.frames
    rig.until(lambda: rig.lanes[0].intake.frames >= before + 3)
    os.close(held)


def test_a_port_with_nobody_behind_it_says_what_to_look_at(tmp_path: Path, mapping: Mapping) -> None:
    port = BmsPort(tmp_path / "dead", JBD, {None: {}})
    rig = Rig(port, mapping, (None,))
    rig.open()
    port.serve = lambda: None  # type: ignore[method-assign]
    rig.run(25)
    (note,) = rig.lanes[0].intake.notes
    assert "does not answer in jbd at 9600 bit/s" in note and "edge doctor --port" in note
    assert rig.lanes[0].intake.errors["timeout"] >= 3 and rig.lanes[0].sample(rig.now, None) is None
    port.pull_out()


def test_a_port_on_which_something_talks_all_the_time_is_told(tmp_path: Path, mapping: Mapping) -> None:
    port = BmsPort(tmp_path / "noisy", JBD, {None: {}})
    rig = Rig(port, mapping, (None,))
    rig.open()

    def talk() -> None:
        os.write(port.fd, b"\xdd\x03\x00\x1b\xff")
        arrived(rig.line._port.fileno())

    port.serve = talk  # type: ignore[method-assign]
    rig.run(12)
    (note,) = rig.lanes[0].intake.notes
    assert "all the time" in note and "noise" in note and "poll = false" in note
    port.pull_out()


def test_nothing_in_the_status_is_from_the_future(tmp_path: Path, mapping: Mapping) -> None:
    """Who asks takes the time first: what came until the answer was made had a negative age."""
    rig = Rig(BmsPort(tmp_path / "live", JBD, {None: JBD_VALUES}), mapping, (None,))
    rig.open()
    asked_ns = rig.now
    rig.until(lambda: rig.lanes[0].intake.frames)
    rig.sample()
    told = rig.lanes[0].status(asked_ns)
    assert told["age_s"] == told["source"]["silent_s"] == 0.0
    rig.lanes[0].intake.close()
    rig.port.pull_out()


def test_several_packs_on_one_port_each_have_their_own_values(tmp_path: Path, toy: Mapping) -> None:
    values = {address: {"pack_v": 40 + address, "current_a": address, "extra.model": 1} for address in (1, 2, 7)}
    port = BmsPort(tmp_path / "rs485", TOY, values)
    rig = Rig(port, toy, (1, 2, 7))
    rig.open()
    rig.until(lambda: all(lane.intake.frames >= 4 for lane in rig.lanes))
    assert [rig.sample(at)["pack_v"] for at in range(3)] == [41.0, 42.0, 47.0]
    # One of them loses its adapter for a moment, as its lane sees it: the others go on.
    rig.lanes[1].intake.close()
    rig.run(0.5)
    rig.lanes[1].intake.open()
    rig.lanes[0].intake.close()
    rig.lanes[2].intake.close()
    rig.run(0.2)
    rig.lanes[1].intake.close()
    with pytest.raises(SourceError, match="not open"):
        rig.run(0.1)
    port.pull_out()


def test_packs_that_an_address_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    packs = [Asking.of(JK_UART, None, address, None) for address in (1, 2)]
    with pytest.raises(ConfigError, match="several packs of jk_uart on one line cannot be told apart"):
        Line(str(tmp_path / "x"), JK_UART, None, packs)


def test_a_line_that_is_flooded_with_junk_is_still_read(bms: BmsPort, mapping: Mapping) -> None:
    rig = Rig(bms, mapping, (None,))
    rig.open()
    rig.until(lambda: rig.lanes[0].intake.frames >= 2)
    for _ in range(20):
        os.write(bms.fd, b"AT\r\n" + os.urandom(16))
        rig.run(0.1)
    before = rig.lanes[0].intake.frames
    rig.run(1)
    rig.until(lambda: rig.lanes[0].intake.frames >= before + 4)
    assert rig.sample()["pack_v"] == 13.28 and rig.lanes[0].intake.errors["noise"] > 0


def test_a_line_that_is_only_listened_to_is_never_written_to(bms: BmsPort, mapping: Mapping) -> None:
    rig = Rig(bms, mapping, (None,), polls=False)
    rig.open()
    for _ in range(20):
        os.write(bms.fd, reply(0x03, JBD_VALUES) + reply(0x04, JBD_VALUES))
        rig.run(0.3)
    rig.until(lambda: rig.lanes[0].intake.frames >= 20)
    assert rig.sample()["pack_v"] == 13.28 and rig.sample()["cell_v"] == [3.321, 3.32, 3.319, 3.32]
    assert bms.asked == [] and not select.select([bms.fd], [], [], 0)[0]


def test_of_two_packs_on_a_line_one_source_without_an_address_reads_one_and_names_both(
    tmp_path: Path, toy: Mapping
) -> None:
    port = BmsPort(tmp_path / "rs485", TOY, {None: {}})
    rig = Rig(port, toy, (None,), polls=False)
    rig.open()
    assert rig.lanes[0].intake.notes == ()
    for _ in range(5):
        os.write(port.fd, message(2, 0x81, 52) + message(1, 0x81, 51))
        rig.until(lambda: rig.lanes[0].sample(rig.now, None))
        assert rig.sample()["pack_v"] == 52.0
    rig.until(lambda: rig.lanes[0].intake.errors.get("address") == 5)
    (note,) = rig.lanes[0].intake.notes
    assert "addresses 2 and 1 both speak" in note and "2 is taken for this pack" in note
    port.pull_out()


def test_one_port_under_two_names_is_told(tmp_path: Path, bms: BmsPort, mapping: Mapping) -> None:
    """The second said that a resource is temporarily unavailable, for ever, and not which."""
    rig = Rig(bms, mapping, (None,))
    rig.open()
    (tmp_path / "by-id").symlink_to(os.readlink(bms.link))
    other = Line(str(tmp_path / "by-id"), JBD, None, [Asking.of(JBD, None, 1, None)])
    with pytest.raises(SourceError, match=rf"by-id cannot be opened: it is the port of {bms.link}, which is read"):
        other.open()
    rig.lanes[0].intake.close()
    other.open()
    other.close()


SERIAL = [language for language in serial_languages() if language.answer is not None]


@pytest.mark.parametrize("language", SERIAL, ids=lambda language: language.name)
def test_every_language_is_read_from_a_line_and_packs_at_two_addresses_stay_apart(
    tmp_path: Path, language: Protocol
) -> None:
    has_addresses = tuple(language.polls(1, None)) != tuple(language.polls(2, None))
    addresses: tuple[int | None, ...] = (1, 2) if has_addresses else (None,)
    packs = {at: {**JBD_VALUES, "pack_v": 13.0 + (at or 0), "soc_bms": 0.5 + (at or 0) / 10} for at in addresses}
    port = BmsPort(tmp_path / "port", language, packs)
    (tmp_path / "m.toml").write_text(
        f'protocol = "{language.name}"\n[fields]\nsoc_bms = {{ from = "soc_bms" }}\npack_v = {{ from = "pack_v" }}\n'
    )
    rig = Rig(port, load_mapping(tmp_path / "m.toml"), addresses)
    rig.open()
    for at, address in enumerate(addresses):
        wanted = (packs[address]["pack_v"], pytest.approx(packs[address]["soc_bms"]))
        rig.until(lambda at=at, wanted=wanted: rig.told(at) == wanted)  # type: ignore[misc]
    for _ in range(20):
        rig.run(0.2)
        for at, address in enumerate(addresses):
            assert rig.told(at) == (packs[address]["pack_v"], pytest.approx(packs[address]["soc_bms"]))
    allowed = {poll.request for address in addresses for poll in language.polls(address, None)}
    assert set(port.asked) <= allowed
    port.pull_out()
