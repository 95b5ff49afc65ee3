"""The table of foxBMS 2 against its own DBC file, read by cantools. No recording of a real one is known."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from bms_vectors import on_bus, pictures

from firmware_bridge.protocol import LineError, Part
from firmware_bridge.protocols.foxbms_can import FOXBMS_CAN, FoxbmsCanDecoder

NAMES: Final[dict[int, dict[str, tuple[str, float]]]] = {
    0x220: {
        "BmsState": ("extra.bms_state", 1),
        "CoolingState": ("extra.cooling", 1),
        "HeaterState": ("extra.heating", 1),
        "InsulationResistance": ("extra.insulation_coarse_kohm", 1),
    },
    0x230: {
        "MinimumCellTemperature": ("extra.temp_min_c", 1),
        "MaximumCellTemperature": ("extra.temp_max_c", 1),
    },
    0x231: {
        "MaximumCellVoltage": ("extra.cell_max_v", 1000),
        "MinimumCellVoltage": ("extra.cell_min_v", 1000),
    },
    0x232: {
        "MaximumDischargeCurrent": ("discharge_limit_a", 1),
        "MaximumChargeCurrent": ("charge_limit_a", 1),
        "MaximumDischargePower": ("extra.discharge_limit_kw", 1),
        "MaximumChargePower": ("extra.charge_limit_kw", 1),
        "MaximumBatteryVoltage": ("extra.charge_v_limit", 1),
        "MinimumBatteryVoltage": ("extra.discharge_v_limit", 1),
    },
    0x233: {
        "BatteryVoltage": ("pack_v", 1),
        "BusVoltage": ("extra.bus_v", 1),
        "Power": ("extra.power_kw", -1),
        "Current": ("current_a", -1),
    },
    0x234: {"InsulationResistance": ("insulation_kohm", 1)},
    0x235: {
        "MinimumSoc": ("soc_bms", 100),
        "MaximumSoc": ("extra.soc_max", 100),
        "MinimumSoe": ("extra.soe_min", 100),
        "MaximumSoe": ("extra.soe_max", 100),
        "Soh": ("soh_bms", 100),
        "Energy": ("extra.remaining_kwh", 1),
    },
    0x241: {
        "MaximumCellTemperature": ("extra.string0_temp_max_c", 1),
        "MinimumCellTemperature": ("extra.string0_temp_min_c", 1),
    },
    0x242: {
        "MaximumCellVoltage": ("extra.string0_cell_max_v", 1000),
        "MinimumCellVoltage": ("extra.string0_cell_min_v", 1000),
    },
    0x243: {
        "Voltage": ("extra.string0_v", 1),
        "Current": ("extra.string0_current_a", -1),
        "Power": ("extra.string0_power_kw", -1),
    },
    0x244: {"EnergyCounter": ("extra.string0_energy_wh", 1)},
    0x245: {
        "MinimumSoc": ("extra.string0_soc_min", 100),
        "MaximumSoc": ("extra.string0_soc_max", 100),
        "Soh": ("extra.string0_soh", 100),
        "Energy": ("extra.string0_remaining_kwh", 1),
    },
}
"""By id: the DBC's signal -> (our name, how many of the DBC's units are one of ours; < 0: the other way round)."""
OF_PACK: Final = {
    "GeneralError": "bms_fault",
    "SystemMonitoringError": "bms_fault",
    "EmergencyShutoff": "bms_fault",
    "GeneralWarning": "bms_fault:warning",
    "InsulationError": "insulation",
    "InterlockState": "lockout",
    "MainFuseBlown": "contactor_fault:warning",
    "BmsMasterPcbUndertemperatureErro": "ambient_under_temp",
    "BmsMasterPcbOvertemperatureError": "ambient_over_temp",
    "McuDieTemperatureError": "bms_fault",
    "PrechargeCurrentError": "precharge_fault",
    "PrechargeVoltageError": "precharge_fault",
    "Clamp30cError": "bms_fault",
    "NvramCrcError": "bms_fault",
    "AlertFlag": "bms_fault",
    "CanTimingError": "bms_fault",
}
OF_STRING: Final = {
    "DeepDischargeError": "cell_under_voltage",
    "IsStringFuseBlown": "other",
    "UndervoltageMslError": "cell_under_voltage",
    "OvervoltageMslError": "cell_over_voltage",
    "CellOvercurrentDischargeMslError": "discharge_over_current",
    "CellOvercurrentChargeMslError": "charge_over_current",
    "UndertemperatureDischargeMslErro": "discharge_under_temp",
    "OvertemperatureDischargeMslError": "discharge_over_temp",
    "UndertemperatureChargeMslError": "charge_under_temp",
    "OvertemperatureChargeMslError": "charge_over_temp",
    "UndervoltageMolWarning": "cell_under_voltage:warning",
    "OvervoltageRslWarning": "cell_over_voltage:warning",
    "CellOvercurrentChargeMolWarning": "charge_over_current:warning",
    "UndertemperatureChargeRslWarning": "charge_under_temp:warning",
    "DaisyChainBaseVoltMeasOorError": "voltage_sensor_fault",
    "DaisyChainBaseCrcError": "communication_fault",
    "DaisyChainBaseCommunicationError": "communication_fault",
    "SlaveHardwareError": "front_end_fault",
    "NegativeContactorError": "contactor_fault",
    "PositiveContactorError": "contactor_fault",
    "FusedStringVoltageMeasurementErr": "voltage_sensor_fault",
    "StringVoltageMeasurementError": "voltage_sensor_fault",
    "EnergyCountingMeasurementError": "current_sensor_fault",
    "CoulombCountingMeasurementError": "current_sensor_fault",
    "StringCurrentMeasurementError": "current_sensor_fault",
    "DaisyChainBaseTempMeasOorError": "temp_sensor_fault",
    "VoltageSpreadPlausibilityError": "cell_imbalance",
    "TemperatureSpreadPlausibilityErr": "temp_imbalance",
    "StringVoltagePlausibilityError": "voltage_sensor_fault",
    "CellVoltagePlausibilityError": "voltage_sensor_fault",
    "CellTemperaturePlausibilityError": "temp_sensor_fault",
    "OpenWireError": "voltage_sensor_fault",
    "PackVoltageMeasurementError": "voltage_sensor_fault",
    "StringOvercurrentError": "discharge_over_current",
}
GROUPS: Final = {0x250: ("cell_v", 1000), 0x260: ("temp_c", 1), 0x270: ("cell_v", 1000), 0x280: ("temp_c", 1)}


@pytest.fixture(scope="module")
def dbc(shared_dir: Path) -> Any:
    from cantools.database import load_file

    return load_file(shared_dir / "can" / "foxbms-2" / "foxbms.dbc", strict=False)


def payloads(message: Any, rng: random.Random, count: int = 200) -> Iterator[bytes]:
    """Random payloads of a message; a multiplexer has a value that the DBC knows."""
    muxes = [signal for signal in message.signals if signal.is_multiplexer]
    for _ in range(count):
        data = rng.randbytes(message.length)
        for mux in muxes:
            known = sorted({value for signal in message.signals for value in signal.multiplexer_ids or ()})
            shift = 64 - (8 * (mux.start // 8) + 7 - mux.start % 8) - mux.length
            word = int.from_bytes(data, "big") & ~((1 << mux.length) - 1 << shift)
            data = (word | rng.choice(known) << shift).to_bytes(8, "big")
        yield data


def told(can_id: int, payload: bytes) -> Part:
    [said] = FoxbmsCanDecoder().frame(0, can_id, payload)
    assert isinstance(said, Part)
    return said


# against the DBC


@pytest.mark.parametrize("can_id", NAMES, ids=hex)
def test_each_number_is_what_cantools_reads_by_the_dbc(dbc: Any, can_id: int) -> None:
    message = dbc.get_message_by_frame_id(can_id)
    for payload in payloads(message, random.Random(can_id)):
        by_dbc = message.decode(payload, decode_choices=False)
        ours = told(can_id, payload).values
        for signal, (name, per) in NAMES[can_id].items():
            value = ours[name]
            assert isinstance(value, float)
            assert math.isclose(value * per, by_dbc[signal], abs_tol=1e-9), (signal, payload.hex())


def test_the_pack_is_connected_when_any_string_is(dbc: Any) -> None:
    message = dbc.get_message_by_frame_id(0x220)
    for payload in payloads(message, random.Random(1)):
        connected = message.decode(payload, decode_choices=False)["NumberOfConnectedStrings"]
        assert told(0x220, payload).values["contactor_main"] is (connected > 0)


@pytest.mark.parametrize(("can_id", "names"), [(0x220, OF_PACK), (0x240, OF_STRING)], ids=["pack", "string"])
def test_each_flag_is_the_alarm_that_it_is_by_the_dbc(dbc: Any, can_id: int, names: dict[str, str]) -> None:
    message = dbc.get_message_by_frame_id(can_id)
    quiet = {signal.name: 0 for signal in message.signals}
    for signal, code in names.items():
        payload = message.encode(quiet | {signal: 1}, strict=False)
        standing = {name for name, value in told(can_id, payload).values.items() if name.startswith("alarm.") and value}
        assert standing == {f"alarm.{code}"}, signal


def test_no_flag_of_a_string_is_forgotten(dbc: Any) -> None:
    message = dbc.get_message_by_frame_id(0x240)
    quiet = {signal.name: 0 for signal in message.signals}
    silent = set()
    for signal in message.signals:
        if signal.length == 1:
            values = told(0x240, message.encode(quiet | {signal.name: 1}, strict=False)).values
            if not any(values.values()):
                silent.add(signal.name)
    assert silent == {"IsStringConnected"}


@pytest.mark.parametrize("can_id", GROUPS, ids=hex)
def test_every_cell_and_sensor_is_what_cantools_reads_by_the_dbc(dbc: Any, can_id: int) -> None:
    name, per = GROUPS[can_id]
    signal = {"cell_v": "CellVoltage", "temp_c": "CellTemperature"}[name]
    message = dbc.get_message_by_frame_id(can_id)
    groups = sorted({value for one in message.signals for value in one.multiplexer_ids or ()})
    rng, seen = random.Random(can_id), set()
    for group in groups * 5:
        payload = bytes([group]) + rng.randbytes(7)
        by_dbc = message.decode(payload, decode_choices=False)
        part = told(can_id, payload)
        for place, value in part.values.items():
            number = int(place.removeprefix(f"{name}[").removesuffix("]"))
            seen.add(number)
            if by_dbc[f"{signal}_{number:03}_invalidFlag"]:
                assert value is not None
                assert round(float(value) * per) == by_dbc[f"{signal}_{number:03}"]
            else:
                assert value is None
                assert part.quality[place] == "invalid"
    assert len(seen) == sum(one.name.endswith("_invalidFlag") for one in message.signals)


def test_the_dbc_says_that_an_invalid_flag_of_one_is_valid(dbc: Any) -> None:
    signal = dbc.get_message_by_frame_id(0x250).get_signal_by_name("CellVoltage_000_invalidFlag")
    assert {raw: str(word) for raw, word in signal.choices.items()} == {0: "Invalid", 1: "Valid"}


def test_cantools_reads_what_the_virtual_pack_sends(dbc: Any) -> None:
    values: dict[str, Any] = {"pack_v": 395.4, "current_a": -12.34, "soc_bms": 0.815, "soh_bms": 0.995}
    values |= {f"cell_v[{i}]": 3.6 + i / 1000 for i in range(10)} | {"cell_v[3]": None, "temp_c[0]": -4.0}
    values |= {"insulation_kohm": 7007.0, "charge_limit_a": 100.25, "contactor_main": True}
    assert FOXBMS_CAN.frames is not None
    read: dict[str, Any] = {}
    for can_id, payload in FOXBMS_CAN.frames(values, None, None):
        read |= dbc.get_message_by_frame_id(can_id).decode(payload, decode_choices=False)
    assert (read["BatteryVoltage"], read["Current"]) == pytest.approx((395.4, 12.34))
    assert (read["MinimumSoc"], read["Soh"], read["MaximumChargeCurrent"]) == pytest.approx((81.5, 99.5, 100.25))
    assert [read[f"CellVoltage_00{i}_invalidFlag"] for i in range(4)] == [1, 1, 1, 0]
    assert (read["CellVoltage_009"], read["CellVoltage_009_invalidFlag"]) == (3609, 1)
    assert (read["CellVoltage_010_invalidFlag"], read["CellTemperature_000"]) == (0, -4)
    assert (read["NumberOfConnectedStrings"], read["InsulationResistance"]) == (1, 7007)


# traps


def test_a_current_that_foxbms_calls_positive_discharges() -> None:
    assert told(0x233, bytes.fromhex("0000000000000001")).values["current_a"] == -0.01


def test_a_cell_that_is_not_valid_is_no_number_and_zero_degrees_is_one() -> None:
    cells = told(0x250, bytes.fromhex("01a0ffffffffffff"))
    assert [cells.values[f"cell_v[{i}]"] for i in range(4, 8)] == [None, 8.191, None, 8.191]
    sensors = told(0x260, bytes.fromhex("0001000000000000"))
    assert (sensors.values["temp_c[0]"], sensors.values["temp_c[1]"]) == (0, None)


def test_what_a_front_end_says_does_not_count_twice() -> None:
    """Both ids carry the same cells; whichever came first, a scan fell into two pictures."""
    own, front = (0x250, bytes.fromhex("00f0708070807080")), (0x270, bytes.fromhex("00f0708070807080"))
    said = on_bus(FoxbmsCanDecoder(), [own, front, (0x233, bytes(8))])
    assert [it.kind for it in said if isinstance(it, Part)] == ["cells", "values"]
    for order in ([own, front], [front, own]):
        assert len(pictures(on_bus(FoxbmsCanDecoder(), order * 3))[0]) == 3
    assert told(*front).values == told(*own).values


QUIET: Final = (0x240, bytes(8))
OVER_VOLTAGE: Final = (0x240, bytes([1, 0x40, *bytes(6)]))
OVER_CURRENT: Final = (0x220, bytes([0x20, 0, 0, 0x04, *bytes(4)]))


@pytest.mark.parametrize(
    ("scan", "alarms"),
    [
        ([OVER_CURRENT], {"discharge_over_current"}),
        ([OVER_VOLTAGE], {"cell_over_voltage"}),
        ([QUIET, OVER_VOLTAGE], {"cell_over_voltage"}),
        ([OVER_VOLTAGE, QUIET], {"cell_over_voltage"}),
        ([OVER_CURRENT, QUIET, OVER_VOLTAGE], {"cell_over_voltage", "discharge_over_current"}),
        ([QUIET, OVER_VOLTAGE, OVER_CURRENT], {"cell_over_voltage", "discharge_over_current"}),
        ([QUIET, (0x240, bytes([2, *bytes(7)])), (0x220, bytes(8))], set()),
    ],
)
def test_an_alarm_is_told_in_the_scan_in_which_it_came(scan: list[tuple[int, bytes]], alarms: set[str]) -> None:
    """Flags waited for the next frame of string 0: those of the pack alone, or of string 1 behind it, were lost."""
    found = pictures(on_bus(FoxbmsCanDecoder(), scan * 3))[0]
    assert [set(picture["alarms"]) for picture in found] == [alarms] * 3


def test_an_alarm_that_is_over_goes_with_the_frame_that_says_so() -> None:
    quiet_again = [QUIET, (0x240, bytes([1, *bytes(7)]))]
    found = pictures(on_bus(FoxbmsCanDecoder(), [QUIET, OVER_VOLTAGE, *quiet_again]))[0]
    assert [picture["alarms"] for picture in found] == [["cell_over_voltage"], []]


def test_each_string_has_names_of_its_own() -> None:
    bus = FoxbmsCanDecoder()
    said = on_bus(bus, [(0x243, bytes([n << 5, *bytes(6), 1])) for n in (0, 1, 3, 7)])
    assert [next(iter(it.values)) for it in said if isinstance(it, Part)] == [f"extra.string{n}_v" for n in (0, 1, 3)]


@pytest.mark.parametrize("size", [0, 1, 7])
def test_a_short_frame_is_one_error(size: int) -> None:
    [said] = FoxbmsCanDecoder().frame(0, 0x233, bytes(size))
    assert isinstance(said, LineError)
    assert said.error == "length"


def test_other_ids_are_not_its_business_and_it_never_asks() -> None:
    assert on_bus(FoxbmsCanDecoder(), [(0x210, bytes(8)), (0x521, bytes(6)), (0x7FF, b"")]) == []
    assert list(FOXBMS_CAN.polls(None, None)) == []
