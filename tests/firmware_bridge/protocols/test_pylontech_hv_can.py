"""Pylontech's high-voltage language. No recording of a real battery is known: bytes here are worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from bms_vectors import on_bus, pictures

from firmware_bridge.frames import EXTENDED
from firmware_bridge.protocol import LineError, Part
from firmware_bridge.protocols.pylontech_hv_can import PYLONTECH_HV_CAN, PylontechHvCanDecoder

ASK: tuple[int, bytes] = (EXTENDED | 0x4200, bytes(8))
WHO: tuple[int, bytes] = (EXTENDED | 0x4200, bytes([2, *bytes(7)]))


def frame(base: int, data: str, address: int = 0) -> tuple[int, bytes]:
    return EXTENDED | base | address, bytes.fromhex(data)


def decoded(*frames: tuple[int, bytes]) -> dict[str, Any]:
    found, wrong = pictures(on_bus(PylontechHvCanDecoder(), frames))
    assert not wrong
    assert len(found) == 1
    return found[0]


# what the bytes mean


def test_a_battery_of_384_volts_that_discharges_with_12_amperes() -> None:
    """3840, 30000 - 123, 1000 + 235, 87 %, 99 %."""
    pack = decoded(frame(0x4210, "000f" + "b574" + "d304" + "57" + "63", 3))
    assert pack["address"] == 3
    assert (pack["pack_v"], pack["current_a"], pack["soc_bms"], pack["soh_bms"]) == (384.0, -12.3, 0.87, 0.99)
    assert pack["extra"] == {"bms_temp_c": 23.5}


@pytest.mark.parametrize("discharge_raw", [30000 - 1000, 30000 + 1000])
def test_a_limit_is_an_amount_whichever_sign_it_has(discharge_raw: int) -> None:
    currents = (30000 + 250).to_bytes(2, "little") + discharge_raw.to_bytes(2, "little")
    pack = decoded(frame(0x4220, "a010" + "e40c" + currents.hex()))
    assert (pack["charge_limit_a"], pack["discharge_limit_a"]) == (25.0, 100.0)
    assert pack["extra"] == {"charge_v_limit": 425.6, "discharge_v_limit": 330.0}


def test_extremes_with_their_places() -> None:
    pack = decoded(frame(0x4230, "040d" + "fa0c" + "1100" + "0200"), frame(0x4240, "e203" + "ca03" + "0500" + "0100"))
    assert pack["extra"] == {
        "cell_max_v": 3.332,
        "cell_min_v": 3.322,
        "cell_max_at": 17,
        "cell_min_at": 2,
        "temp_max_c": -0.6,
        "temp_min_c": -3.0,
        "temp_max_at": 5,
        "temp_min_at": 1,
    }


def test_faults_warnings_and_alarms() -> None:
    pack = decoded(frame(0x4250, "02" + "7b00" + "20" + "0101" + "0200"))
    assert pack["cycles"] == 123
    assert pack["alarms"] == [
        "contactor_fault",
        "cell_under_voltage:warning",
        "charge_over_current:warning",
        "cell_over_voltage",
    ]


def test_what_is_forbidden() -> None:
    assert decoded(frame(0x4280, "aa00000000000000"))["charge_mos"] is False
    pack = decoded(frame(0x4280, "00aa"))
    assert (pack["charge_mos"], pack["discharge_mos"]) == (True, False)
    odd = decoded(frame(0x4280, "1300"))
    assert (odd["charge_mos"], odd["quality"]) == (None, {"charge_mos": "invalid"})


def test_what_is_not_measured_is_no_number_and_zero_is_one() -> None:
    absent = decoded(frame(0x4210, "ff" * 8))
    names = ("pack_v", "current_a", "soc_bms", "soh_bms")
    assert [absent[name] for name in names] == [None] * 4
    assert set(absent["quality"].values()) == {"absent"}
    zero = decoded(frame(0x4210, "0000" + "3075" + "e803" + "0000"))
    assert [zero[name] for name in names] == [0] * 4
    assert zero["extra"] == {"bms_temp_c": 0}


# whose it is


def test_two_batteries_on_one_bus_are_two() -> None:
    frames = [frame(0x4210, f"000{n}307500045050", n) for n in (1, 2)] + [frame(0x4280, "0000", n) for n in (1, 2)]
    found, _ = pictures(on_bus(PylontechHvCanDecoder(), frames))
    assert [(pack["address"], pack["pack_v"], pack["charge_mos"]) for pack in found] == [
        (1, 25.6, True),
        (2, 51.2, True),
    ]


def test_what_nobody_asked_for_is_refused_once_something_was_asked() -> None:
    bus = PylontechHvCanDecoder()
    bus.sent(*WHO)
    [wrong] = bus.frame(0, *frame(0x4210, "000f307500045050"))
    assert isinstance(wrong, LineError)
    assert wrong.error == "address"
    bus.sent(*ASK)
    for said in on_bus(bus, [frame(base, "0000307500045050", 1) for base in (0x4210, 0x4220, 0x4250, 0x4210)]):
        assert isinstance(said, Part)


def test_what_another_host_asked_for_is_good() -> None:
    bus = PylontechHvCanDecoder()
    bus.sent(*WHO)
    said = on_bus(bus, [ASK, frame(0x4210, "000f307500045050")])
    assert [it.kind for it in said if isinstance(it, Part)] == ["measured"]


@pytest.mark.parametrize("data", ["", "00", "000f3075000450"])
def test_a_short_frame_is_one_error(data: str) -> None:
    [said] = PylontechHvCanDecoder().frame(0, *frame(0x4210, data))
    assert isinstance(said, LineError)
    assert said.error == "length"


def test_other_ids_are_not_its_business() -> None:
    others = [(0x4210 & 0x7FF, bytes(8)), (EXTENDED | 0x14210, bytes(8)), (0x351, bytes(8)), (EXTENDED | 0x4310, b"")]
    assert on_bus(PylontechHvCanDecoder(), others) == []


# the other way round


def test_it_asks_by_the_documented_requests_only() -> None:
    assert [(poll.can_id, poll.request) for poll in PYLONTECH_HV_CAN.polls(None, None)] == [ASK, WHO]


def test_what_a_battery_says_is_written_as_it_is_read() -> None:
    values = {"pack_v": 384.0, "current_a": -12.3, "soc_bms": 0.87, "soh_bms": 0.99, "extra.bms_temp_c": 23.5}
    assert PYLONTECH_HV_CAN.frames is not None
    [sent] = PYLONTECH_HV_CAN.frames(values, 3, None)
    assert sent == frame(0x4210, "000fb574d3045763", 3)
