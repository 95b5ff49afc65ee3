"""An address that no pack of a language can have is refused at start, in one sentence."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edge.__main__ import main
from edge.addresses import check_address
from edge.agent import Agent
from edge.config import load_config
from edge.lanes import build_lanes
from edge.sources.can_voice import NotAllowed
from edge.sources.ear import Asking, Ear
from edge.sources.source import SourceError
from firmware_bridge.protocol import Part
from firmware_bridge.shelf import NAMES, protocol
from shared.errors import ConfigError

WRONG = {
    "daly_can 17": ("daly_can", 'interface = "slcan"\npoll = true', 17, "packs of daly_can can be asked at 1 to 16"),
    "daly_can 0": ("daly_can", 'interface = "slcan"\npoll = true', 0, "calls itself 1: give that"),
    "daly_can 255": ("daly_can", 'interface = "slcan"\npoll = true', 255, "can be asked at 1 to 16"),
    "jk_can 16": ("jk_can", 'interface = "slcan"', 16, "packs of jk_can are heard at 0 to 15"),
    "daly_uart 200": ("daly_uart", 'type = "serial"', 200, "packs of daly_uart can be asked at 1 to"),
    "daly_uart 255": ("daly_uart", 'type = "serial"', 255, "packs of daly_uart can be asked at 1 to"),
    "daly_modbus 1, heard": (
        "daly_modbus",
        'type = "serial"\npoll = false',
        1,
        "packs of daly_modbus are heard at 81 to 96 and 210",
    ),
    "seplos_v3 17, heard": (
        "seplos_v3",
        'type = "serial"\npoll = false',
        17,
        "packs of seplos_v3 are heard at 0 to 16 and 224",
    ),
    "jk_uart 1": ("jk_uart", 'type = "serial"', 1, "jk_uart has no addresses, leave it out"),
}


def config_of(folder: Path, language: str, kind: str, address: int) -> Path:
    (folder / "m.toml").write_text(f'protocol = "{language}"\n[fields]\npack_v = {{ from = "pack_v" }}\n')
    config = folder / "edge.toml"
    config.write_text(
        f'device = "b"\n[page]\nport = 0\n[metrics]\nport = 0\n[[source]]\npack_id = "A"\n{kind}\n'
        f'channel = "no-port"\naddress = {address}\nmapping = "m.toml"\n'
    )
    return config


@pytest.mark.parametrize("case", WRONG)
def test_an_address_that_no_pack_can_have_is_one_sentence(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """daly_can at 17 ended the whole agent with a traceback as soon as it was asked, daly_uart at 200 at start."""
    language, kind, address, sentence = WRONG[case]
    assert main(["run", "--config", str(config_of(tmp_path, language, kind, address))]) == 2
    told = capsys.readouterr().err
    assert sentence in told and f"A: address = {address}" in told and "Traceback" not in told


def test_a_car_has_no_address(tmp_path: Path) -> None:
    """It was taken, and meant nothing."""
    config = config_of(tmp_path, "uds_ev", 'interface = "slcan"\npoll = true', 5)
    mapping = tmp_path / "m.toml"
    mapping.write_text(mapping.read_text().replace('"uds_ev"\n', '"uds_ev"\nvehicle = "leaf"\n'))
    with pytest.raises(ConfigError, match="address = 5 has no meaning: uds_ev has no addresses"):
        build_lanes(load_config(config, {}))


def test_the_addresses_that_packs_are_built_with_are_taken() -> None:
    usual = dict.fromkeys(("jbd", "jk02", "daly_uart", "daly_can", "seplos_v2", "seplos_v3", "jk_can"), 1)
    for name, address in {**usual, "daly_modbus": 0xD2, "pylontech_hv_can": 3}.items():
        for at in (None, address):
            check_address("A", protocol(name), None, at, polls=True)


SERIAL = [name for name in NAMES if protocol(name).bytes_decoder is not None]


@pytest.mark.parametrize("name", SERIAL)
def test_who_only_listens_hears_a_pack_at_every_address_that_is_taken(name: str) -> None:
    """Daly's and Seplos V3's packs are known at a few addresses where nobody here asks: others were silent for ever."""
    spoken = protocol(name)
    assert spoken.bytes_decoder is not None and spoken.answer is not None
    for address in (0, 1, 2, 16, 17, 81, 96, 97, 210, 224, 255):
        try:
            check_address("A", spoken, None, address, polls=False)
        except ConfigError:
            continue
        ear = Ear(spoken.bytes_decoder(), [Asking.of(spoken, None, address, None, polls=False)])
        parts = 0
        for poll in spoken.polls(address, None):
            for frame in (poll.request, *spoken.answer(poll.request, {"pack_v": 50.0, "cell_v[0]": 3.3}, address)):
                parts += sum(isinstance(said, Part) for _, said in ear.feed(frame))
            ear.end()
        assert parts, address


@pytest.mark.parametrize("name", NAMES)
def test_every_address_of_every_language_is_taken_or_refused_in_a_sentence(name: str) -> None:
    spoken = protocol(name)
    vehicle = spoken.vehicles[0] if spoken.vehicles else None
    for address in (0, 1, 17, 129, 255):
        for polls in (True, False):
            try:
                check_address("A", spoken, vehicle, address, polls=polls)
            except ConfigError as error:
                assert str(error).startswith(f"A: address = {address}")


def test_what_may_not_be_sent_is_trouble_of_its_source_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It ended all tasks of the agent."""
    assert issubclass(NotAllowed, SourceError)
    agent = Agent(load_config(config_of(tmp_path, "daly_can", 'interface = "slcan"\npoll = true', 1), {}))
    (lane,) = agent.lanes

    async def lives() -> None:
        stop = asyncio.Event()

        def refused() -> None:
            asyncio.get_running_loop().call_later(0.05, stop.set) if lane.retries else None
            raise NotAllowed("1#00 is no reading request: it was not sent")

        monkeypatch.setattr(lane.intake, "open", lambda: None)
        monkeypatch.setattr(lane.intake, "tick", lambda mono_ns: refused())
        await agent.run(stop)

    try:
        asyncio.run(asyncio.wait_for(lives(), 20))
    finally:
        agent.close()
    assert lane.retries >= 2 and lane.problem is not None and "no reading request" in lane.problem
