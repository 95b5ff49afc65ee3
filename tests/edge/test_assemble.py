"""Frames -> Fields -> Samples: what is carried, what is None, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from edge.assemble import Assembler, readable
from edge.dbc.load import load
from edge.decode import Decoder
from edge.mapping import load_mapping
from firmware_bridge.frames import EXTENDED, FrameBatch

S = 1_000_000_000

DBC = """VERSION ""
NS_ :
BS_:
BU_: ECU
BO_ 256 Pack: 8 ECU
 SG_ V : 0|16@1+ (0.1,0) [0|600] "V" ECU
 SG_ I : 16|16@1- (0.1,0) [-3000|3000] "A" ECU
 SG_ State : 32|8@1+ (1,0) [0|0] "" ECU
 SG_ Main : 40|8@1+ (1,0) [0|0] "" ECU
 SG_ Alarm : 48|1@1+ (1,0) [0|1] "" ECU
BO_ 257 Cells: 5 ECU
 SG_ Group M : 0|8@1+ (1,0) [0|1] "" ECU
 SG_ C1 m0 : 8|16@1+ (0.001,0) [0|5] "V" ECU
 SG_ C2 m0 : 24|16@1+ (0.001,0) [0|5] "V" ECU
 SG_ C3 m1 : 8|16@1+ (0.001,0) [0|5] "V" ECU
 SG_ C4 m1 : 24|16@1+ (0.001,0) [0|5] "V" ECU
BO_ 2147483906 Float: 4 ECU
 SG_ F : 0|32@1- (1,0) [0|0] "rpm" ECU
BO_ 259 Balance: 1 ECU
 SG_ B1 : 0|1@1+ (1,0) [0|1] "" ECU
 SG_ B2 : 1|1@1+ (1,0) [0|1] "" ECU
SIG_VALTYPE_ 2147483906 F : 1;
"""
MAPPING = """dbc = "t.dbc"
[fields]
pack_v = { from = "Pack.V" }
current_a = { from = "Pack.I", scale = -1.0 }
state = { from = "Pack.State", values = { 1 = "park", 2 = "drive" } }
contactor_main = { from = "Pack.Main", values = { 3 = true, 4 = false } }
cell_v = { from = "Cells.C{}", count = 4 }
balancing = { from = ["Balance.B1", "Balance.B2"] }
"extra.rpm" = { from = "Float.F", max_age_s = 20 }
[alarms]
"insulation:warning" = "Pack.Alarm"
"""


class Bus:
    """A decoder and an assembler; `say` takes frames at a time in s, `at` gives the Sample by its names."""

    def __init__(self, folder: Path, dbc: str = DBC) -> None:
        (folder / "t.dbc").write_text(dbc)
        (folder / "m.toml").write_text(MAPPING)
        mapping = load_mapping(folder / "m.toml")
        assert mapping.dbc is not None
        self.decoder = Decoder(mapping, load(mapping.dbc))
        self.assembler = Assembler("A", mapping, 1.0)

    def say(self, t_s: float, *frames: tuple[int, bytes]) -> None:
        batch = FrameBatch.of("c", [(int(t_s * S), can_id, data) for can_id, data in frames])
        self.assembler.feed(self.decoder.decode(batch))

    def at(self, t_s: float) -> Mapping[str, Any]:
        return readable(self.assembler.sample(int(t_s * S), None))


@pytest.fixture
def bus(tmp_path: Path) -> Bus:
    return Bus(tmp_path)


def pack(v: float = 400.0, i: float = 0.0, state: int = 2, main: int = 3, alarm: int = 0) -> tuple[int, bytes]:
    data = round(v * 10).to_bytes(2, "little") + round(i * 10).to_bytes(2, "little", signed=True)
    return 256, data + bytes([state, main, alarm, 0])


def cells(group: int, first: int, second: int) -> tuple[int, bytes]:
    return 257, bytes([group]) + first.to_bytes(2, "little") + second.to_bytes(2, "little")


def test_newest_value_and_the_extremes_of_all_frames_within_the_sample(bus: Bus) -> None:
    bus.say(0.1, pack(400.0, 1.0), pack(390.0, -250.0), pack(401.5, 2.0))
    sample = bus.at(1.0)
    assert (sample["pack_v"], sample["pack_v_min"], sample["pack_v_max"]) == (401.5, 390.0, 401.5)
    assert (sample["current_a"], sample["current_a_min"], sample["current_a_max"]) == (-2.0, -2.0, 250.0)  # sign turned
    assert (sample["state"], sample["contactor_main"], sample["alarms"]) == ("drive", True, [])


def test_what_is_out_of_range_is_in_no_extreme(bus: Bus) -> None:
    bus.say(0.1, pack(v=400.0), pack(v=700.0), pack(v=390.0))
    sample = bus.at(1.0)
    assert (sample["pack_v"], sample["pack_v_min"], sample["pack_v_max"]) == (390.0, 390.0, 400.0)
    bus.say(1.1, pack(v=380.0))
    bus.say(1.2, pack(v=700.0))
    assert bus.at(2.0)["pack_v_min"] is None  # its last frame was bad


def test_a_message_that_comes_under_two_ids_is_one(tmp_path: Path) -> None:
    """Some DBCs say the same twice, for the buses where it has another id: the frame that came last counts."""
    twice = DBC.replace("BO_ 259", DBC[DBC.index("BO_ 256") : DBC.index("BO_ 257")].replace("256", "300") + "BO_ 259")
    bus = Bus(tmp_path, twice)
    for first, second in ((256, 300), (300, 256)):
        bus.say(0.1, (first, pack(v=400.0)[1]), (second, pack(v=401.0)[1]))
        assert bus.at(1.0)["pack_v"] == 401.0
    assert bus.decoder.skipped == 0


def test_extremes_start_anew_with_each_sample(bus: Bus) -> None:
    bus.say(0.1, pack(i=-250.0))
    bus.at(1.0)
    bus.say(1.1, pack(i=3.0))
    sample = bus.at(2.0)
    assert (sample["current_a_min"], sample["current_a_max"]) == (-3.0, -3.0)
    assert bus.at(3.0)["current_a_max"] == -3.0  # nothing new, not yet stale: the newest is all there is


def test_what_is_too_old_is_none_and_stale_and_never_the_last_value(bus: Bus) -> None:
    bus.say(0.0, pack(alarm=1), (258 | EXTENDED, b"\x00\x00\x80\x3f"))
    assert bus.at(5.0)["pack_v"] == 400.0
    sample = bus.at(5.1)
    assert sample["pack_v"] is sample["pack_v_min"] is sample["state"] is sample["contactor_main"] is None
    assert sample["quality"]["pack_v"] == sample["quality"]["state"] == sample["quality"]["alarms"] == "stale"
    assert sample["alarms"] == []
    assert sample["extra"]["rpm"] == 1.0  # its own max_age_s


def test_what_never_came_is_absent_and_zero_is_a_number(bus: Bus) -> None:
    bus.say(0.0, pack(v=0.0, i=0.0))
    sample = bus.at(1.0)
    assert sample["pack_v"] == 0.0 and "pack_v" not in sample["quality"]
    assert sample["cell_v"] == [None] * 4
    assert (
        sample["quality"]["cell_v[3]"] == sample["quality"]["extra.rpm"] == sample["quality"]["balancing"] == "absent"
    )


def test_no_cell_is_told_before_the_first_whole_scan(bus: Bus) -> None:
    bus.say(0.1, cells(0, 3700, 3701))
    sample = bus.at(1.0)
    assert sample["cell_v"] == [None] * 4 and sample["quality"]["cell_v[0]"] == "absent"
    bus.say(1.1, cells(1, 3702, 3703))
    assert bus.at(2.0)["cell_v"] == [3.7, 3.701, 3.702, 3.703]


def test_a_group_that_never_comes_does_not_hide_the_others_for_ever(bus: Bus) -> None:
    for t_s in range(8):
        bus.say(t_s, cells(0, 3700, 3701))
        sample = bus.at(t_s + 0.9)
    assert sample["cell_v"] == [3.7, 3.701, None, None]
    assert sample["quality"]["cell_v[2]"] == "absent"


def test_one_group_that_goes_away_makes_only_its_own_cells_stale(bus: Bus) -> None:
    bus.say(0.0, cells(0, 3700, 3701), cells(1, 3702, 3703))
    bus.say(6.0, cells(1, 3702, 3704))
    sample = bus.at(6.5)
    assert sample["cell_v"] == [None, None, 3.702, 3.704]
    assert sample["quality"]["cell_v[0]"] == "stale" and "cell_v[2]" not in sample["quality"]


Case = tuple[Callable[[], tuple[int, bytes]], str, str]
BAD: dict[str, Case] = {
    "beyond the DBC's range": (lambda: pack(v=700.0), "pack_v", "out_of_range"),
    "not in the value table": (lambda: pack(state=9), "state", "invalid"),
    "not in a switch's table": (lambda: pack(main=9), "contactor_main", "invalid"),
    "NaN": (lambda: (258 | EXTENDED, b"\x00\x00\xc0\x7f"), "extra.rpm", "invalid"),
    "a short frame": (lambda: (256, pack()[1][:4]), "state", "short_frame"),
}


@pytest.mark.parametrize(("frame", "field", "reason"), BAD.values(), ids=BAD.keys())
def test_a_bad_value_is_none_with_its_reason(
    bus: Bus, frame: Callable[[], tuple[int, bytes]], field: str, reason: str
) -> None:
    bus.say(0.0, pack(), (258 | EXTENDED, b"\x00\x00\x80\x3f"))
    bus.say(0.1, frame())
    assert bus.at(1.0)["quality"][field] == reason


def test_a_short_frame_keeps_what_it_reaches_and_names_only_its_own_group(bus: Bus) -> None:
    bus.say(0.0, cells(0, 3700, 3701), cells(1, 3702, 3703))
    bus.say(0.5, (257, cells(0, 3710, 0)[1][:3]))
    sample = bus.at(1.0)
    assert sample["cell_v"] == [3.71, None, 3.702, 3.703]
    assert sample["quality"]["cell_v[1]"] == "short_frame" and "cell_v[2]" not in sample["quality"]
    assert bus.decoder.errors == {"short_frame": 1}


def test_junk_is_counted_by_reason_and_unmapped_frames_are_skipped(bus: Bus) -> None:
    bus.say(0.0, (257, b"\x07\x00\x00\x00\x00"), (257, b""), (999, b"\x01"), (258, b"\x00" * 4))
    assert bus.decoder.errors == {"group": 1, "empty": 1}
    assert (bus.decoder.frames, bus.decoder.skipped) == (4, 2)  # 258 with 11 bits is not the DBC's 29-bit id
    assert not bus.assembler.heard


def test_alarms_and_balancing_bits(bus: Bus) -> None:
    bus.say(0.0, pack(alarm=1), (259, b"\x02"))
    sample = bus.at(1.0)
    assert sample["alarms"] == ["insulation:warning"]
    assert sample["balancing"] == 0b10
