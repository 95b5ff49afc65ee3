"""Cars on the diagnostic port against what cars sent: Kona, Ioniq 5, EV6, Leaf, Bolt."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from bms_vectors import on_bus, pictures, value, vectors

from edge.logs import open_log
from firmware_bridge.__main__ import main
from firmware_bridge.isotp_send import flow_control, segments
from firmware_bridge.protocol import LineError, Part, Said
from firmware_bridge.protocols.uds_ev import UDS_EV, VEHICLES, UdsDecoder
from firmware_bridge.protocols.vehicles.virtual import VirtualVehicle
from firmware_bridge.uds import is_reading_frame, request

CARS: Final = {"Kona": "kona", "IONIQ-5": "ioniq5", "EV6": "ev6", "Bolt": "bolt"}
WORDS: Final[list[tuple[str, str, float]]] = [
    (r"CMU(\d+)_VOLT", "cell_v", 1),
    (r"HVBAT_SOC(?:_RAW)?", "soc_bms", 0.01),
    (r"HVBAT_SOC_DISP(?:LAY)?", "extra.soc_display", 0.01),
    (r"HVBAT_SOH", "soh_bms", 0.01),
    (r"HVBAT_VDC|BATTERY_DC_VOLTAGE", "pack_v", 1),
    (r"HVBAT_CURR|BATTERY_CURRENT", "current_a", -1),  # + discharges on this wire
    (r"HVBAT_MOD(\d+)_T|BATTERY_PACK_B(\d+)", "temp_c", 1),
    (r"HVBAT_TEMP", "temp_c[0]", 1),
    (r"HVBAT_INLET_T|BATTERY_INLET_T", "coolant_in_c", 1),
    (r"HVBAT_T_MAX|BATTERY_MAX_T", "extra.temp_max_c", 1),
    (r"HVBAT_T_MIN|BATTERY_MIN_T", "extra.temp_min_c", 1),
    (r"HVBAT_WH", "extra.remaining_kwh", 1),
    (r"ISO_R|ISOLATION_RESISTANCE", "insulation_kohm", 1),
    (r"HVBAT_CHRG_TOT_C", "extra.charged_ah", 1),
    (r"HVBAT_DSCH_TOT_C", "extra.discharged_ah", 1),
    (r"HVBAT_CHRG_TOT_E", "extra.charged_kwh", 1),
    (r"HVBAT_DSCH_TOT_E", "extra.discharged_kwh", 1),
    (r"NORMAL_CHARGING_COUNT", "extra.ac_charges", 1),
    (r"QUICK_CHARGING_ENERGY_TOT", "extra.dc_charged_kwh", 1),
    (r"C_V_MAX|MAXIMUM_CELL_VOLTAGE", "extra.cell_max_v", 1),
    (r"VPWR|AUXILLARY_BATTERY_VOLTAGE", "extra.aux_v", 1),
]
"""What OBDb calls it -> our name, times; an array's position is the number in the name, from 1."""
COUNTED: Final = ("pack_v", "current_a", "soc_bms", "soh_bms", "cell_v", "temp_c")
STEPS: Final = {"pack_v": 0.1, "current_a": 0.1, "soc_bms": 0.005, "soh_bms": 0.001, "cell_v": 0.02, "temp_c": 1.0}
BOLT_STEPS: Final = {"soc_bms": 1 / 0xFFFF, "cell_v": 5 / 0xFFFF}
CLAMPED: Final = {(688, "pack_v"), (688, "insulation_kohm")}
"""OBDb cuts the Ioniq 5's 748.6 V off at 403.2 V, and 3000 kohm at 1000: what its tests expect is wrong."""


def frames_of(texts: list[str]) -> list[tuple[int, bytes]]:
    """`7EC1027620102FFFFFF` as (id, payload); the request that one of them begins with is left out."""
    packed = [text.replace(" ", "") for text in texts]
    return [(int(text[:3], 16), bytes.fromhex(text[3:])) for text in packed if len(text) % 2]


def answer(can_id: int, message: bytes, fill: int = 0xAA) -> list[tuple[int, bytes]]:
    return [(can_id, frame) for frame in segments(message, fill)]


def decoder(vehicle: str) -> UdsDecoder:
    return UdsDecoder(VEHICLES[vehicle])


def one_picture(vehicle: str, frames: list[tuple[int, bytes]]) -> dict[str, Any]:
    found, wrong = pictures(on_bus(decoder(vehicle), frames))
    assert not wrong, wrong
    assert len(found) == 1, found
    return found[0]


def errors(said: list[Said]) -> list[str]:
    assert all(isinstance(it, LineError) for it in said), said
    return [it.error for it in said if isinstance(it, LineError)]


def our_name(theirs: str) -> tuple[str, float] | None:
    for pattern, name, times in WORDS:
        if match := re.fullmatch(rf"\w+?_(?:HVBAT_)?(?:{pattern})", theirs):
            place = next((group for group in match.groups() if group), None)
            return (f"{name}[{int(place) - 1}]" if place else name), times
    return None


# what cars sent


def test_every_value_of_every_recording_is_right_to_a_step_of_the_wire(shared_dir: Path) -> None:
    """Row 1: at least 99 % of the values; what is wrong is what OBDb's own limits cut off."""
    recorded = vectors(shared_dir, "uds_isotp_obd")
    assert len(recorded) >= 69
    right: Counter[str] = Counter()
    wrong: list[tuple[int, str, float, Any]] = []
    for one in recorded:
        vehicle = next(car for word, car in CARS.items() if word in one["variant"])
        picture = one_picture(vehicle, frames_of(one["frame_hex"]))
        for theirs, expected in one["expected"].items():
            if (ours := our_name(theirs)) is None:
                continue
            name, times = ours
            array = name.partition("[")[0]
            step = (BOLT_STEPS if vehicle == "bolt" else {}).get(array, STEPS.get(array, 0.1))
            found = value(picture, name)
            if found is not None and abs(found - expected * times) <= step:
                right[array] += 1
            else:
                wrong.append((one["id"], name, expected, found))
    assert {(number, name) for number, name, _, _ in wrong} == CLAMPED
    counted = sum(right[name] for name in COUNTED)
    missed = sum(name.partition("[")[0] in COUNTED for _, name, _, _ in wrong)
    assert all(right[name] for name in COUNTED)
    assert counted >= 550
    assert counted >= 0.99 * (counted + missed), (counted, wrong)


def test_a_kona_and_a_leaf_tell_what_their_logs_hold(shared_dir: Path) -> None:
    kona, group_1, group_4 = (bytes.fromhex(one["frame_hex"][0]) for one in vectors(shared_dir, "uds_isotp_raw"))
    picture = one_picture("kona", answer(0x7EC, kona))
    assert picture["soc_bms"] == 0.5
    assert picture["pack_v"] == 357.2
    assert picture["current_a"] == -0.3
    assert picture["temp_c"] == [9, 9, 9, 10]
    assert picture["contactor_main"] is True
    assert value(picture, "extra.cell_max_v") == 3.64
    assert (value(picture, "extra.cell_max_number"), value(picture, "extra.cell_min_number")) == (35, 50)
    assert value(picture, "extra.aux_v") == 14.6
    picture = one_picture("leaf", answer(0x7BB, group_1, fill=0xFF) + answer(0x7BB, group_4, fill=0xFF))
    assert picture["soc_bms"] == pytest.approx(0.892286, abs=1e-7)
    assert picture["pack_v"] == 390.3
    assert value(picture, "extra.full_ah") == pytest.approx(109.2985)
    assert picture["temp_c"] == [2, 1, None, 0]
    assert picture["quality"] == {"temp_c[2]": "absent"}


def test_that_there_are_no_faults_is_not_the_same_as_not_to_know(shared_dir: Path) -> None:
    """A Leaf that told no faults, and one that refused to tell."""
    (one,) = vectors(shared_dir, "uds_isotp_frames")
    none, refused = (bytes.fromhex(frame) for frame in one["frame_hex"])
    (said,) = decoder("leaf").frame(0, 0x7BB, none)
    assert isinstance(said, Part)
    assert said.values == {"extra.dtc_count": 0.0}
    assert errors(decoder("leaf").frame(0, 0x7BB, refused)) == ["response"]


def said_in(log: Path, vehicle: str) -> list[tuple[float, Said]]:
    """(seconds since the log's first frame, what was said) of a whole log."""
    car, told, first_ns = decoder(vehicle), [], None
    for batch in open_log(log).batches():
        for t_ns, can_id, payload in batch.rows():
            first_ns = t_ns if first_ns is None else first_ns
            told += [((t_ns - first_ns) / 1e9, it) for it in car.frame(t_ns, can_id, payload)]
    return told + [(np.inf, it) for it in car.end()]


LOGS: Final = [("kona_uds_17BD1DB7_00000170.MF4", "kona"), ("hk_ev_uds_63BEF5CD.MF4", "ioniq5")]


@pytest.mark.parametrize(("name", "vehicle"), LOGS)
def test_the_log_of_a_car_says_what_a_dbc_makes_of_it(shared_dir: Path, name: str, vehicle: str) -> None:
    folder = shared_dir / "can" / "css-electronics"
    golden = json.loads((folder / "golden_decode_cantools.json").read_text())[name]["decoded"]
    said = said_in(folder / name, vehicle)
    # Both cars left some answers half sent, and the DBC's tool passes over those, too.
    assert {it.error for _, it in said if isinstance(it, LineError)} <= {"length"}
    told = {
        "M_SID_0x220101_StateOfChargeBMS": [(t, it.values["soc_bms"]) for t, it in said if is_kind(it, "220101")],
        "M_SID_0x220100_OutdoorTemp": [(t, it.values["ambient_c"]) for t, it in said if is_kind(it, "220100")],
    }
    for word, times in (("M_SID_0x220101_StateOfChargeBMS", 0.01), ("M_SID_0x220100_OutdoorTemp", 1.0)):
        expected = [(t, values[word] * times) for t, _, _, values in golden if word in values]
        if expected:
            np.testing.assert_allclose(since_first(told[word]), since_first(expected), atol=1.1e-3)


def since_first(points: list[tuple[float, float]]) -> np.ndarray:
    """The same with times that count from the first."""
    return np.array(points, float) - [points[0][0], 0.0]


def is_kind(said: Said, kind: str) -> bool:
    return isinstance(said, Part) and said.kind == kind


def test_a_driving_cars_voltage_falls_while_its_current_is_below_zero(shared_dir: Path) -> None:
    """The sign on the wire: + discharges. Over the log of a drive the pack gives way by about 0.1 ohm."""
    log = shared_dir / "can" / "css-electronics" / "hk_ev_uds_63BEF5CD.MF4"
    points = [
        (it.values["current_a"], it.values["pack_v"])
        for _, it in said_in(log, "ioniq5")
        if isinstance(it, Part) and it.kind == "220101"
    ]
    current_a, pack_v = np.array(points, float).T
    assert current_a.min() < -15
    assert current_a.max() > 10
    assert 0.05 < np.polyfit(current_a, pack_v, 1)[0] < 0.5
    assert np.corrcoef(current_a, pack_v)[0, 1] > 0.9


def test_what_other_testers_ask_is_told_apart_from_readings(shared_dir: Path) -> None:
    """A scan of a Kona's faults by a phone: none of the battery, one of the climate control, and some refusals."""
    log = shared_dir / "can" / "kona-ev-can-logs" / "221210-1-2021-dcan-car-scanner-elm327.csv"
    said = [it for _, it in said_in(log, "kona")]
    assert {it.error for it in said if isinstance(it, LineError)} <= {"function", "response"}
    assert any(isinstance(it, LineError) and it.error == "response" for it in said)
    parts = [it for it in said if isinstance(it, Part)]
    assert {it.kind for it in parts} == {"1902"}
    assert {it.values["extra.dtc_count"] for it in parts} == {0.0, 1.0}


# requests and answers

ASK: Final = 0x7E4
TELL: Final = 0x7EC
SOME: Final = {"pack_v": 357.2, "current_a": -0.3, "soc_bms": 0.5, **{f"cell_v[{i}]": 3.64 for i in range(98)}}


def kona_answers(identifier: str) -> list[tuple[int, bytes]]:
    reading = VEHICLES["kona"].by_answer[TELL, bytes.fromhex(identifier)]
    return answer(TELL, reading.answer(SOME))


def fed(car: UdsDecoder, frames: list[tuple[int, bytes]]) -> list[Said]:
    return [it for n, (can_id, payload) in enumerate(frames) for it in car.frame(n * 1_000_000, can_id, payload)]


def test_an_answer_that_nobody_asked_for_is_nobodys() -> None:
    car = decoder("kona")
    car.sent(ASK, request(b"\x22\x01\x01"))
    assert errors(fed(car, kona_answers("220102"))) == ["address"]
    (said,) = fed(car, kona_answers("220101"))
    assert isinstance(said, Part)
    assert said.values["pack_v"] == 357.2


def test_without_any_request_all_that_is_understood_is_taken() -> None:
    said = fed(decoder("kona"), kona_answers("220102") + kona_answers("220101"))
    assert [it.kind for it in said if isinstance(it, Part)] == ["220102", "220101"]


def test_another_testers_answers_are_known_by_its_requests_on_the_bus() -> None:
    car = decoder("kona")
    car.sent(ASK, request(b"\x22\x01\x01"))
    assert fed(car, [(ASK, request(b"\x22\x01\x02"))]) == []
    assert [it.kind for it in fed(car, kona_answers("220102")) if isinstance(it, Part)] == ["220102"]


def test_an_ecus_answer_to_what_another_was_asked_is_nobodys() -> None:
    car = decoder("bolt")
    car.sent(0x7E4, request(b"\x22\x43\x4f"))
    assert errors(fed(car, answer(0x7EF, b"\x62\x41\x81\xc2\x4d"))) == ["address"]


def test_a_refusal_is_an_error_and_that_it_takes_longer_is_none() -> None:
    car = decoder("kona")
    car.sent(ASK, request(b"\x22\x01\x01"))
    assert fed(car, [(TELL, b"\x03\x7f\x22\x78\xaa\xaa\xaa\xaa")] * 3) == []
    assert [type(it) for it in fed(car, kona_answers("220101"))] == [Part]
    car.sent(ASK, request(b"\x22\x01\x05"))
    assert errors(fed(car, [(TELL, b"\x03\x7f\x22\x31\xaa\xaa\xaa\xaa")])) == ["response"]
    assert errors(fed(car, [(TELL, b"\x03\x7f\x2e\x31\xaa\xaa\xaa\xaa")])) == ["address"]


def test_what_is_wrong_with_a_message_is_one_error() -> None:
    whole = kona_answers("220101")
    cases = {
        "length": [
            whole[:3] + whole[4:],
            whole[:-1],
            [whole[0], *whole],
            answer(TELL, bytes.fromhex("620101fff7e7ff")),
            [(TELL, b"")],  # nothing was said of it
        ],
        "noise": [whole[1:], [(TELL, bytes.fromhex("4000000000000000"))]],
        "function": [answer(TELL, bytes.fromhex("62f19031")), answer(TELL, bytes.fromhex("6ef19031"))],
        "echo": [[(TELL, request(b"\x22\x01\x01"))]],
        "response": [answer(TELL, bytes.fromhex("7f2231"))],
    }
    for error, bad in cases.items():
        for frames in bad:
            car = decoder("kona")
            said = [it for it in fed(car, frames) + car.end() if isinstance(it, LineError)]
            assert [it.error for it in said] == [error], (error, frames)
            assert [type(it) for it in fed(car, whole)] == [Part], "the next message is lost, too"


@pytest.mark.parametrize("fill", [0x00, 0x55, 0xAA, 0xFF])
def test_what_fills_a_last_frame_says_nothing(fill: int) -> None:
    reading = VEHICLES["kona"].by_answer[TELL, b"\x22\x01\x02"]
    picture = one_picture("kona", answer(TELL, reading.answer(SOME), fill))
    assert picture["cell_v"] == [3.64] * 32


def test_places_behind_the_last_cell_are_absent_and_not_0_volts() -> None:
    few = {f"cell_v[{i}]": 3.64 for i in range(90)}
    picture = one_picture("kona", VirtualVehicle(VEHICLES["kona"], few).all_frames())
    assert picture["cell_v"] == [3.64] * 90 + [None] * 8
    assert all(picture["quality"][f"cell_v[{i}]"] == "absent" for i in range(90, 98))


def test_a_leaf_of_24_kwh_has_the_same_two_bytes_earlier() -> None:
    """39 bytes: what newer packs have in the middle is missing."""
    reading = VEHICLES["leaf"].by_answer[0x7BB, b"\x21\x01"]
    long = reading.answer({"soc_bms": 0.5, "extra.full_ah": 60.0, "pack_v": 380.0})
    short = long[:28] + long[30:43]
    picture = one_picture("leaf", answer(0x7BB, short))
    assert len(short) == 41
    assert (picture["soc_bms"], picture["pack_v"], value(picture, "extra.full_ah")) == (0.5, 380.0, 60.0)


# the virtual car


def driven(car: VirtualVehicle, can_id: int, message: bytes, block: int = 0) -> list[tuple[int, bytes]]:
    """All frames that a tester gets who asks this, and sends flow control for each block."""
    got = car.take(can_id, request(message))
    while more := car.take(can_id, flow_control(block, 5)):
        got += more
    return got


@pytest.mark.parametrize("vehicle", list(VEHICLES))
@pytest.mark.parametrize("block", [0, 1, 4])
def test_a_virtual_car_answers_all_that_its_polls_ask(vehicle: str, block: int) -> None:
    values = SOME | {"temp_c[0]": 21.0, "soh_bms": 0.9}
    car, listener = VirtualVehicle(VEHICLES[vehicle], values), decoder(vehicle)
    for poll in UDS_EV.polls(None, vehicle):
        assert poll.can_id is not None
        assert is_reading_frame(poll.request)
        listener.sent(poll.can_id, poll.request)
        size = poll.request[0]
        (said,) = fed(listener, driven(car, poll.can_id, poll.request[1 : 1 + size], block))
        assert isinstance(said, Part)
        assert said.kind == poll.kind
    assert not car.refused


def test_a_virtual_car_waits_for_flow_control_and_keeps_to_it() -> None:
    car = VirtualVehicle(VEHICLES["kona"], SOME)
    first = car.take(ASK, request(b"\x22\x01\x01"))
    assert len(first) == 1
    assert car.take(ASK, bytes([0x31, 0, 0])) == []
    assert len(car.take(ASK, flow_control(block=2, separation_ms=20))) == 2
    assert car.separation_s == 0.02
    assert len(car.take(ASK, flow_control())) == 6
    assert car.take(ASK, flow_control()) == []


def test_a_virtual_car_refuses_what_is_no_reading() -> None:
    car = VirtualVehicle(VEHICLES["kona"], SOME)
    assert car.take(ASK, bytes.fromhex("042ef19000aaaaaa")) == [(TELL, bytes.fromhex("037f2e11aaaaaaaa"))]
    assert car.take(ASK, request(b"\x22\xf1\x90")) == [(TELL, bytes.fromhex("037f2231aaaaaaaa"))]
    assert car.refused == [(ASK, bytes.fromhex("2ef19000")), (ASK, bytes.fromhex("22f190"))]
    assert car.take(0x123, request(b"\x22\x01\x01")) == []


def test_no_request_is_built_that_does_not_read() -> None:
    for wrong in ("2ef190", "1003", "31010203", "2f0130", "14ffffff", "220101ff", "22", ""):
        with pytest.raises(ValueError, match="no request of a reading service"):
            request(bytes.fromhex(wrong))


# the command


def test_decode_takes_requests_with_their_id_and_bare(capsys: pytest.CaptureFixture[str]) -> None:
    frames = [f"{can_id:03X}#{payload.hex()}" for can_id, payload in kona_answers("220101")]
    cans = [arg for frame in frames for arg in ("--can", frame)]
    for sent in ("220101", "0322010100000000", "7E4#0322010100000000"):
        assert main(["decode", "--protocol", "uds_ev", "--vehicle", "kona", "--sent", sent, *cans]) == 0
        assert json.loads(capsys.readouterr().out)["pack_v"] == 357.2
    assert main(["decode", "--protocol", "uds_ev", "--vehicle", "kona", "--sent", "220102", *cans]) == 1
    told = capsys.readouterr()
    assert not told.out
    assert [json.loads(line)["error"] for line in told.err.splitlines()] == ["address"]
    assert main(["decode", "--protocol", "uds_ev", "--vehicle", "kona", "--sent", "22F190", *cans]) == 2
    assert "give it with its id" in capsys.readouterr().err
