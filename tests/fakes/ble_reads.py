"""Run by Python 3.12 or newer with aiobmsble: reads a BMS behind a fake Bleak client, and says as JSON what came of it.

Frames of a JBD as it sent them: tests of github.com/patman15/aiobmsble (Apache-2.0), in the pieces in which they came.
Argument: a folder with edge.toml and its mapping.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import aiobmsble.basebms
import bleak
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import BleakError

from edge.assemble import readable
from edge.config import load_config
from edge.intake_parts import PartIntake
from edge.lane import Lane
from edge.mapping import load_mapping
from edge.sources.ble import BleSpeaker
from edge.sources.source import SourceError

S = 1_000_000_000
ADDRESS = "AA:C2:37:00:00:01"
SERVICE = "0000ff00-0000-1000-8000-00805f9b34fb"
STATUS = ("dd03001d0618fee101f201f4002a2c7c00000000", "000080640304030b8b0b8a0b84f88477")
CELLS = ("dd0400080d660d610d680d59fe3c77",)
REPLIES = {"dda50300fffd77": STATUS, "dda50400fffc77": CELLS}


class FakeClient:
    """As much of a BleakClient as aiobmsble uses; behind it a JBD that answers what it is asked to read."""

    written: ClassVar[list[str]] = []
    connections = 0
    is_broken = False

    def __init__(self, device: Any, *_: Any, **__: Any) -> None:
        self.address = ADDRESS
        characteristic = SimpleNamespace(properties=["write-without-response", "notify"])
        self.services = SimpleNamespace(get_characteristic=lambda _: characteristic)
        self.is_connected = False
        self._notify: Callable[[Any, bytearray], None] | None = None

    async def connect(self) -> None:
        self.is_connected = True
        FakeClient.connections += 1

    async def disconnect(self) -> None:
        self.is_connected = False

    async def start_notify(self, _: Any, handler: Callable[[Any, bytearray], None]) -> None:
        self._notify = handler

    async def write_gatt_char(self, _: Any, data: bytes, response: bool | None = None) -> None:
        FakeClient.written.append(bytes(data).hex())
        if FakeClient.is_broken or self._notify is None:
            self.is_connected = False
            raise BleakError("the link is gone")
        for piece in REPLIES[bytes(data).hex()]:
            self._notify(None, bytearray.fromhex(piece))


async def establish(*, device: Any, **_: Any) -> FakeClient:
    """What bleak_retry_connector does."""
    client = FakeClient(device)
    await client.connect()
    return client


def heard(is_there: bool) -> Callable[..., Any]:
    """A BleakScanner.find_device_by_filter that hears another device, and the BMS if it is there."""

    async def find(match: Callable[[Any, Any], bool], timeout: float = 10.0) -> Any:
        for address, name, services in (("00:11:22:33:44:55", "TV", []), (ADDRESS, "JBD-SP04", [SERVICE])):
            if not is_there and address == ADDRESS:
                continue
            device = BLEDevice(address, name, {})
            if match(device, AdvertisementData(name, {}, {}, services, None, -60, ())):
                return device
        return None

    return find


def lane_of(folder: Path, more: str = "", address: str = ADDRESS) -> Lane:
    """A lane as the agent has it, without what it needs for other kinds of sources."""
    (folder / "edge.toml").write_text(
        f'device = "box"\n[[source]]\npack_id = "P"\ntype = "ble"\naddress = "{address}"\nmapping = "m.toml"\n'
        f"poll_s = 1\n{more}"
    )
    (source,) = load_config(folder / "edge.toml", {}).sources
    mapping = load_mapping(source.mapping_path)
    return Lane(source, PartIntake(BleSpeaker(source), mapping), mapping, 1.0)


def problem_of(work: Callable[[], Any], timeout_s: float = 20.0) -> str:
    """The sentence of the SourceError that comes of it, at some time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            work()
        except SourceError as error:
            return str(error)
        time.sleep(0.02)  # a poll with a deadline, not a synchronisation
    raise AssertionError("nothing went wrong")


def main(folder: Path) -> None:
    aiobmsble.basebms.BleakClient = FakeClient
    aiobmsble.basebms.establish_connection = establish
    bleak.BleakScanner.find_device_by_filter = heard(True)
    told: dict[str, Any] = {"samples": []}
    for more, address in (("", ADDRESS), ('bms = "jbd_bms"\n', "jbd-sp04")):
        lane = lane_of(folder, more, address)
        lane.intake.open()
        lane.tick(10 * S)
        told["samples"].append(dict(readable(lane.sample(11 * S, None))))
        lane.intake.close()
    told["written"] = sorted(set(FakeClient.written))
    lane = lane_of(folder)
    lane.intake.open()
    before = FakeClient.connections
    FakeClient.is_broken = True
    told["broken"] = problem_of(lambda: lane.tick(12 * S))
    lane.intake.close()
    FakeClient.is_broken = False
    lane.intake.open()
    lane.tick(13 * S)
    told["again"] = readable(lane.sample(14 * S, None))["pack_v"]
    told["connected again"] = FakeClient.connections > before
    lane.intake.close()
    bleak.BleakScanner.find_device_by_filter = heard(False)
    told["away"] = problem_of(lane_of(folder).intake.open)
    bleak.BleakScanner.find_device_by_filter = heard(True)
    told["unknown"] = problem_of(lane_of(folder, 'bms = "none_bms"\n').intake.open)
    told["stranger"] = problem_of(lane_of(folder, address="TV").intake.open)
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
