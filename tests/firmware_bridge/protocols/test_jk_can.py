"""JK over CAN. No capture of it is known: frames here are made by hand after the layout that sources print."""

from __future__ import annotations

from typing import Any, Final

import pytest
from bms_vectors import on_bus, pictures

from firmware_bridge.frames import EXTENDED
from firmware_bridge.protocol import LineError, Said
from firmware_bridge.protocols.jk_can import JK_CAN, JkCanDecoder

STATE: Final = bytes.fromhex("02028c0f55000000")  # 0x0202 = 51.4 V, 0x0F8C = 3980: 2 A out, 85 %


def heard(*frames: tuple[int, bytes]) -> list[Said]:
    return on_bus(JkCanDecoder(), frames)


def picture(*frames: tuple[int, str]) -> dict[str, Any]:
    """The one picture of frames as (id, hex)."""
    found, wrong = pictures(heard(*((can_id, bytes.fromhex(payload)) for can_id, payload in frames)))
    assert not wrong
    assert len(found) == 1
    return found[0]


def test_what_flows_out_of_the_pack_is_negative() -> None:
    told = picture((0x2F4, STATE.hex()))
    assert (told["pack_v"], told["current_a"], told["soc_bms"]) == (51.4, -2.0, 0.85)
    assert picture((0x2F4, "0202a00f55"))["current_a"] == 0.0
    assert picture((0x2F4, "0202da1155"))["current_a"] == 57.0


def test_a_round_of_frames_is_one_picture() -> None:
    told = picture(
        (0x2F4, STATE.hex()),
        (0x4F4, "f20c0ce40c03"),
        (0x5F4, "4a024801"),
        (0x7F4, "00000000"),
        (EXTENDED | 0x18F128F4, "d007280a64002a00"),
        (EXTENDED | 0x18F228F4, "4a484d0032"),
        (EXTENDED | 0x18F528F4, "03"),
        (EXTENDED | 0x18E028F4, "e40ce50ce60ce70c"),
        (EXTENDED | 0x18E128F4, "e80ce90c00000000"),
        (EXTENDED | 0x18E228F4, "0000000000000000"),
    )
    assert told["cell_v"] == [3.3, 3.301, 3.302, 3.303, 3.304, 3.305]
    assert told["temp_c"] == [24.0, 22.0, None, 0.0]
    assert told["quality"] == {"temp_c[2]": "absent"}
    assert (told["charge_mos"], told["discharge_mos"], told["cycles"], told["alarms"]) == (True, True, 42, [])
    extra = told["extra"]
    assert (extra["remaining_ah"], extra["full_ah"], extra["mos_temp_c"]) == (200.0, 260.0, 27.0)
    assert (extra["cell_max_v"], extra["cell_max_number"], extra["cell_min_v"], extra["cell_min_number"]) == (
        3.314,
        12,
        3.3,
        3,
    )
    assert (extra["temp_max_c"], extra["temp_min_c"]) == (24.0, 22.0)


def test_the_number_of_a_pack_is_added_to_the_id() -> None:
    """dbus-serialbattery issue 288: packs beside the first were not heard."""
    frames = [(0x2F4 + n, STATE) for n in (0, 1, 15)] + [(EXTENDED | 0x18F12800 + 0xF4 + 15, bytes(8))]
    found, wrong = pictures(heard(*frames))
    assert not wrong
    assert [it["address"] for it in found] == [0, 1, 15]
    assert "cycles" in found[2] and "cycles" not in found[0]
    assert JK_CAN.frames is not None
    assert (0x2F4 + 3, STATE) in JK_CAN.frames({"pack_v": 51.4, "current_a": -2.0, "soc_bms": 0.85}, 3, None)


@pytest.mark.parametrize(
    "can_id",
    [0x2F3, 0x304, 0x351, 0x6F4, EXTENDED | 0x2F4, 0x18F128F4 & 0x7FF, EXTENDED | 0x18F12904, EXTENDED | 0x1806E5F4],
)
def test_frames_of_others_are_nobodys_mistake(can_id: int) -> None:
    assert heard((can_id, STATE)) == []


@pytest.mark.parametrize(("can_id", "size"), [(0x2F4, 4), (0x4F4, 5), (0x7F4, 3), (EXTENDED | 0x18F128F4, 7)])
def test_a_frame_that_is_cut_off_is_one_error(can_id: int, size: int) -> None:
    (said,) = heard((can_id, STATE[:size]))
    assert isinstance(said, LineError) and said.error == "length"


def test_two_bits_an_alarm_say_how_bad_it_is() -> None:
    told = picture((0x7F4, "21000300"))  # 1 at the first, 2 at the third, 3 at the ninth
    assert told["alarms"] == ["cell_over_voltage", "pack_over_voltage", "discharge_under_temp"]
    assert told["extra"]["alarm_raw"] == 0x0003_0021


def test_it_asks_for_nothing() -> None:
    assert list(JK_CAN.polls(None, None)) == []
    assert not JK_CAN.verified
