"""Daly over CAN. No capture of it is known: payloads are captured ones of Daly's A5, ids the maker's."""

from __future__ import annotations

from typing import Final

import pytest
from bms_vectors import on_bus, pictures

from firmware_bridge.frames import EXTENDED
from firmware_bridge.protocol import LineError, Part, Said
from firmware_bridge.protocols.daly_can import DALY_CAN, DalyCanDecoder
from firmware_bridge.protocols.daly_uart import DALY_UART

SOC: Final = bytes.fromhex("0214000075450378")
ASK_SOC: Final = EXTENDED | 0x18900140
SOC_ID: Final = EXTENDED | 0x18904001
CELLS_ID: Final = EXTENDED | 0x18954001
CELLS: Final = [bytes.fromhex(it) for it in ("010cfd0cfe0cfe40", "020cfe0cfe0cfe40", "030cfe0cfe0cfe40")]


def heard(*frames: tuple[int, bytes], sent: tuple[int, ...] = ()) -> list[Said]:
    bus = DalyCanDecoder()
    for can_id in sent:
        bus.sent(can_id, bytes(8))
    return on_bus(bus, frames)


def test_payloads_mean_what_they_mean_over_uart() -> None:
    (part,) = heard((SOC_ID, SOC))
    assert isinstance(part, Part)
    assert (part.values["pack_v"], part.values["current_a"], part.values["soc_bms"]) == (53.2, -2.1, 0.888)
    assert part.address == 1
    assert DALY_CAN.fields == DALY_UART.fields


def test_all_sentences_of_the_cells_have_one_id_and_none_is_lost() -> None:
    found, wrong = pictures(heard(*((CELLS_ID, cells) for cells in CELLS), sent=(EXTENDED | 0x18950140,)))
    assert not wrong
    assert found[0]["cell_v"] == [3.325] + [3.326] * 8


def test_two_packs_on_a_bus_stay_apart() -> None:
    second = EXTENDED | 0x18954002
    found, _ = pictures(heard((CELLS_ID, CELLS[0]), (second, CELLS[0]), (CELLS_ID, CELLS[1]), (SOC_ID, SOC)))
    assert {it["address"]: len(it["cell_v"]) for it in found} == {1: 6, 2: 3}


def test_requests_are_the_makers_and_only_read() -> None:
    polls = DALY_CAN.polls(None, None)
    assert polls[0].can_id == ASK_SOC
    assert {poll.can_id for poll in DALY_CAN.polls(2, None)} >= {EXTENDED | 0x18900240}
    for poll in polls:
        assert poll.can_id is not None
        assert 0x50 <= (poll.can_id >> 16 & 0xFF) <= 0x98, "commands from 0xD9 on, and 0x21, write"
        assert poll.request == bytes(8)


@pytest.mark.parametrize(
    "can_id",
    [
        ASK_SOC,  # another tester asks
        0x190,
        SOC_ID & ~EXTENDED & 0x7FF,
        EXTENDED | 0x0C904001,
        EXTENDED | 0x18D94001,
        EXTENDED | 0x18FF40E5,
        EXTENDED | 0x1890F901,
    ],
)
def test_frames_of_others_are_nobodys_mistake(can_id: int) -> None:
    assert heard((can_id, SOC)) == []


def test_a_reply_that_is_cut_off_or_that_nobody_asked_for_is_one_error() -> None:
    for said, error in (
        (heard((SOC_ID, SOC[:7])), "length"),
        (heard((SOC_ID, SOC), sent=(EXTENDED | 0x18930140,)), "address"),
        (heard((SOC_ID + 1, SOC), sent=(ASK_SOC,)), "address"),
    ):
        assert [it.error for it in said if isinstance(it, LineError)] == [error] and len(said) == 1


def test_a_virtual_pack_says_all_of_it_once() -> None:
    assert DALY_CAN.frames is not None
    values = {"pack_v": 53.2, "current_a": -2.1, "soc_bms": 0.888} | {
        f"cell_v[{i}]": (3300 + i) / 1000 for i in range(7)
    }
    frames = DALY_CAN.frames(values, None, None)
    assert (SOC_ID, SOC) in frames
    assert sum(can_id == CELLS_ID for can_id, _ in frames) == 3
    found, wrong = pictures(heard(*frames))
    assert not wrong
    assert {name: found[0][name] for name in ("pack_v", "current_a", "soc_bms")} == {
        name: values[name] for name in ("pack_v", "current_a", "soc_bms")
    }
    assert found[0]["cell_v"] == [values[f"cell_v[{i}]"] for i in range(7)]
