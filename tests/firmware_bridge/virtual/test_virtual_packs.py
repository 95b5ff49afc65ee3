"""What a virtual BMS says, in every language: the pack's own values, and the lies and stammers that it is told to."""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Callable
from typing import Final

import pytest
from bms_cases import Case, cases

from firmware_bridge.frames import EXTENDED
from firmware_bridge.pack.car import Car
from firmware_bridge.pack.cells import SERIES
from firmware_bridge.pack.faults import Target
from firmware_bridge.pack.part_values import part_values
from firmware_bridge.protocol import EXTRA, LineError, Part, Said, Value
from firmware_bridge.uds import is_reading_frame
from firmware_bridge.virtual.broker import Gateway
from firmware_bridge.virtual.bus_voice import BusVoice
from firmware_bridge.virtual.commands import drawn
from firmware_bridge.virtual.gateways import GATEWAYS, batmon, battery_emulator, esphome
from firmware_bridge.virtual.lies import Lies
from firmware_bridge.virtual.pack import VirtualPack
from firmware_bridge.virtual.responder import Responder
from firmware_bridge.virtual.stammer import Stammer, cut

EVERY: Final = [case for case in cases() if case.address is None and not case.is_bluetooth]
SERIAL: Final = [case for case in EVERY if case.spoken.medium == "serial"]
CAN: Final = [case for case in EVERY if case.spoken.medium == "can"]
HONEST, CLEAR = Lies(), Stammer()
FLOW: Final = bytes([0x30, 0, 0, 0, 0, 0, 0, 0])


def each(chosen: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", chosen, ids=str)


def a_pack(case: Case, lies: Lies = HONEST, ticks: int = 20) -> VirtualPack:
    pack = drawn(case.spoken, case.vehicle, None, None, 7)[0]
    pack.step(case.spoken, lies, ticks)
    return pack


def talk(
    case: Case, packs: list[VirtualPack], lies: Lies = HONEST, stammer: Stammer = CLEAR, seed: int = 1
) -> list[Said]:
    """A round of polls of each pack, as somebody on the line hears it."""
    spoken, rng = case.spoken, random.Random(seed)
    if spoken.bytes_decoder is not None:
        responder, line = Responder(spoken, packs, lies, stammer, rng), spoken.bytes_decoder()
        said: list[Said] = []
        for pack in packs:
            for poll in spoken.polls(pack.address, case.vehicle):
                line.sent(poll.request)
                for reply in responder.feed(poll.request):
                    said += line.feed(reply)
                said += line.end()
        return said
    assert spoken.frames_decoder is not None
    voice, bus = BusVoice(spoken, packs, case.vehicle, lies, stammer, rng), spoken.frames_decoder(case.vehicle)
    if voice.talks:
        return [it for frame in voice.by_itself() for it in bus.frame(0, *frame)] + bus.end()
    said = []
    for poll in spoken.polls(packs[0].address, case.vehicle):
        assert poll.can_id is not None
        bus.sent(poll.can_id, poll.request)
        frames = voice.heard(poll.can_id, poll.request)
        if case.vehicle is not None and frames and frames[0][1][0] >> 4 == 1:
            frames += voice.heard(poll.can_id, FLOW)
        said += [it for frame in frames for it in bus.frame(0, *frame)]
    return said + bus.end()


def values_of(said: list[Said]) -> dict[str, Value]:
    return {name: value for it in said if isinstance(it, Part) for name, value in it.values.items()}


def errors_of(said: list[Said]) -> list[str]:
    return [it.error for it in said if isinstance(it, LineError)]


def number(values: dict[str, Value], name: str) -> float:
    value = values[name]
    assert isinstance(value, int | float), (name, value)
    return float(value)


# honest packs


@each(EVERY)
def test_what_the_pack_measures_is_what_who_asks_is_told(case: Case) -> None:
    pack = a_pack(case)
    said = talk(case, [pack])
    assert errors_of(said) == []
    told = values_of(said)
    assert number(told, "pack_v") == pytest.approx(number(pack.values, "pack_v"), abs=1.01)
    assert number(told, "current_a") == pytest.approx(number(pack.values, "current_a"), abs=0.11)
    assert number(told, "soc_bms") == pytest.approx(pack.car.bms.soc, abs=0.006)
    cells = [number(told, name) for name in told if name.startswith("cell_v[")]
    if "cell_v[]" in case.fields:
        assert len(cells) == pack.cells
        assert sum(cells) == pytest.approx(number(told, "pack_v"), abs=0.011 * len(cells) + 0.06)
    if "temp_c[]" in case.fields:
        temps = [number(told, name) for name in told if name.startswith("temp_c[")]
        assert len(temps) == pack.temps > 0
        assert temps == pytest.approx([number(pack.values, f"temp_c[{i}]") for i in range(pack.temps)], abs=1.01)


@each(EVERY)
def test_a_fault_that_is_put_on_the_pack_is_told(case: Case) -> None:
    pack = a_pack(case)
    before = number(values_of(talk(case, [pack])), "pack_v")
    pack.car.faults.put(Target.parse("pack_v"), 5.0)
    pack.step(case.spoken, HONEST)
    assert number(values_of(talk(case, [pack])), "pack_v") == pytest.approx(before + 5.0, abs=2.2)


@each([case for case in EVERY if case.spoken.counter is not None])
def test_its_counter_moves_while_it_lives_and_stands_when_it_hangs(case: Case) -> None:
    name = EXTRA + str(case.spoken.counter).removeprefix(EXTRA)
    for lies, moves in ((HONEST, True), (Lies(after_s=0.0, frozen=True), False)):
        pack = a_pack(case, lies)
        seen = []
        for _ in range(3):
            pack.step(case.spoken, lies, 15)
            seen.append(values_of(talk(case, [pack], lies)))
        assert (len({it[name] for it in seen}) == 3) is moves
        assert (seen[0] == seen[2]) is not moves


def test_the_voltage_of_a_part_of_the_pack_is_that_of_its_cells_and_a_fault_of_it_stays_whole() -> None:
    car = Car(seed=3, number=0)
    car.step()
    whole, part = part_values(car, SERIES, 16), part_values(car, 16, 4)
    assert number(whole, "pack_v") == pytest.approx(car.bms.pack_v)
    assert number(part, "pack_v") == pytest.approx(sum(number(part, f"cell_v[{i}]") for i in range(16)), abs=0.05)
    car.faults.put(Target.parse("pack_v"), 1.5)
    car.bms.pack_v += 1.5  # as its next measurement would
    assert number(part_values(car, 16, 4), "pack_v") == pytest.approx(number(part, "pack_v") + 1.5)
    assert "cell_v[16]" not in part and "temp_c[4]" not in part


def test_two_packs_on_one_line_answer_for_themselves() -> None:
    case = Case("daly_uart")
    packs = drawn(case.spoken, None, [1, 2], None, 7)
    for pack in packs:
        pack.step(case.spoken, HONEST, 20)
    parts = [it for it in talk(case, packs) if isinstance(it, Part)]
    for pack in packs:
        own = values_of([it for it in parts if it.address == pack.address])
        assert number(own, "soc_bms") == pytest.approx(pack.car.bms.soc, abs=0.001)


# lies


@each([case for case in EVERY if case.name not in ("uds_ev",)])
def test_the_soc_jumps_as_far_as_the_wire_can_say(case: Case) -> None:
    lies = Lies(after_s=1.5, soc=1.74)
    pack = drawn(case.spoken, case.vehicle, None, None, 7)[0]
    pack.step(case.spoken, lies, 10)
    assert number(values_of(talk(case, [pack], lies)), "soc_bms") <= 1.0
    pack.step(case.spoken, lies, 10)
    assert number(values_of(talk(case, [pack], lies)), "soc_bms") > 1.02


@each([case for case in EVERY if "cell_v[]" in case.fields])
def test_the_cells_sum_is_off_and_the_pack_is_not(case: Case) -> None:
    lies = Lies(after_s=0.0, cell_sum_off=0.02)
    pack = a_pack(case, lies)
    told = values_of(talk(case, [pack], lies))
    cells = [number(told, name) for name in told if name.startswith("cell_v[")]
    assert statistics.fmean(cells) == pytest.approx(1.02 * number(told, "pack_v") / len(cells), abs=0.012)


@each(EVERY)
def test_a_silent_field_is_not_told_and_others_are(case: Case) -> None:
    field = next(it for it in ("cell_v", "temp_c", "soc_bms") if {it, f"{it}[]"} & set(case.fields))
    lies = Lies(after_s=0.0, silent_field=field)
    pack = a_pack(case, lies)
    told = values_of(talk(case, [pack], lies))
    assert not any(name.partition("[")[0] == field for name in told)
    everything = values_of(talk(case, [pack]))
    assert any(name.partition("[")[0] == field for name in everything)
    # JK says all that it says in one message.
    assert told or case.name in ("jk02", "jk_uart")


# stammers


@each(SERIAL)
def test_junk_before_replies_is_noise_and_costs_nothing(case: Case) -> None:
    pack = a_pack(case)
    stammer = Stammer(after_s=0.0, junk=1.0)
    said = [talk(case, [pack], HONEST, stammer, seed) for seed in range(5)]
    clean = values_of(talk(case, [pack]))
    assert all(values_of(it) == clean for it in said)


@each(SERIAL)
def test_a_cut_reply_is_an_error_and_never_another_value(case: Case) -> None:
    pack = a_pack(case)
    clean = values_of(talk(case, [pack]))
    errors = 0
    for seed in range(20):
        said = talk(case, [pack], HONEST, Stammer(after_s=0.0, truncate=0.5), seed)
        errors += len(errors_of(said))
        wrong = {name: it for name, it in values_of(said).items() if clean.get(name) != it}
        # A sum of one byte lets one cut reply of 256 through.
        assert not wrong or case.name in ("jbd", "jk_uart", "daly_uart"), wrong
    assert errors > 10


@each(SERIAL)
def test_an_echo_is_told_apart_from_a_reply(case: Case) -> None:
    pack = a_pack(case)
    said = talk(case, [pack], HONEST, Stammer(after_s=0.0, echo=1.0))
    assert values_of(said) == values_of(talk(case, [pack]))
    assert set(errors_of(said)) <= {"echo", "noise"}


@each(SERIAL)
def test_a_reply_of_somebody_else_is_taken_for_nobodys(case: Case) -> None:
    pack = a_pack(case)
    said = talk(case, [pack], HONEST, Stammer(after_s=0.0, wrong_address=1.0))
    assert values_of(said) == {}


@each(EVERY)
def test_a_silent_bms_says_nothing_from_its_moment_on(case: Case) -> None:
    stammer = Stammer(after_s=1.0, is_silent=True)
    pack = drawn(case.spoken, case.vehicle, None, None, 7)[0]
    pack.step(case.spoken, HONEST, 5)
    assert values_of(talk(case, [pack], HONEST, stammer))
    pack.step(case.spoken, HONEST, 6)
    assert talk(case, [pack], HONEST, stammer) == []


def test_a_cut_reply_is_always_shorter() -> None:
    rng = random.Random(1)
    assert all(len(cut(bytes(n), rng)) < n for n in range(1, 40) for _ in range(50))


# requests


@each(SERIAL)
def test_requests_in_any_pieces_and_behind_junk_are_answered(case: Case) -> None:
    pack, rng = a_pack(case), random.Random(2)
    for poll in case.polls:
        responder = Responder(case.spoken, [pack], HONEST, CLEAR, rng)
        whole = responder.feed(poll.request)
        assert whole
        assert [it for byte in poll.request for it in responder.feed(bytes([byte]))] == whole
        assert responder.feed(b"\xff\x00\xfe" + poll.request) == whole
        assert responder.feed(poll.request * 2) == whole * 2
        assert not responder.waits


@each(SERIAL)
def test_what_is_no_request_is_forgotten_when_the_line_is_quiet(case: Case) -> None:
    responder = Responder(case.spoken, [a_pack(case)], HONEST, CLEAR, random.Random(2))
    assert responder.feed(b"\x01\x02\x03") == [] and responder.waits
    assert responder.quiet() == [] and not responder.waits
    assert responder.feed(bytes(10_000)) == []
    assert responder.feed(case.polls[0].request)


def test_a_read_of_other_registers_than_ours_is_answered_too() -> None:
    """A pack answers every tool that may ask it, not only packtwin."""
    from firmware_bridge.modbus import ReadRequest

    case = Case("daly_modbus")
    responder = Responder(case.spoken, [a_pack(case)], HONEST, CLEAR, random.Random(2))
    assert responder.feed(ReadRequest(0xD2, 3, 0, 4).frame) == []
    replies = responder.quiet()
    assert len(replies) == 1 and len(replies[0]) == 5 + 8


@each([case for case in CAN if case.polls])
def test_a_pack_on_can_says_nothing_unless_it_is_asked(case: Case) -> None:
    voice = BusVoice(case.spoken, [a_pack(case)], case.vehicle, HONEST, CLEAR, random.Random(2))
    assert not voice.talks
    assert voice.heard(EXTENDED | 0x123, bytes(8)) == []
    assert voice.heard(0x7FF, b"") == []


@each([case for case in CAN if case.vehicle])
def test_a_car_waits_for_flow_control_and_refuses_what_it_has_not(case: Case) -> None:
    voice = BusVoice(case.spoken, [a_pack(case)], case.vehicle, HONEST, CLEAR, random.Random(2))
    long = 0
    for poll in case.polls:
        assert poll.can_id is not None and is_reading_frame(poll.request)
        first = voice.heard(poll.can_id, poll.request)
        assert len(first) == 1
        if first[0][1][0] >> 4 == 1:
            long += 1
            assert voice.heard(poll.can_id, FLOW)
        assert voice.heard(poll.can_id, FLOW) == []
    ask = case.polls[0].can_id
    assert ask is not None
    assert voice.heard(ask, bytes([3, 0x22, 0xFE, 0xFE, 0, 0, 0, 0]))[0][1][1] == 0x7F
    assert voice.heard(ask, bytes([4, 0x2E, 1, 1, 0, 0, 0, 0]))[0][1][1] == 0x7F
    assert long or case.vehicle == "bolt"


# gateways

SAID: Final[dict[str, Value]] = {
    "pack_v": 52.81,
    "current_a": -7.5,
    "soc_bms": 0.553,
    "soh_bms": 0.98,
    "cycles": 21.0,
    "charge_mos": True,
    "discharge_mos": False,
    "charge_limit_a": 100.0,
    "discharge_limit_a": 150.0,
    "cell_v[0]": 3.301,
    "cell_v[1]": None,
    "cell_v[2]": 3.299,
    "temp_c[0]": 0.0,
    "extra.mos_temp_c": 31.0,
    "extra.remaining_ah": 154.8,
    "extra.full_ah": 280.0,
}


def test_batmon_publishes_a_topic_a_value_and_its_current_discharges() -> None:
    said = batmon("dev", SAID)
    assert said["batmon/dev/soc/current"] == "7.5"
    assert said["batmon/dev/soc/total_voltage"] == "52.81"
    assert said["batmon/dev/soc/soc_percent"] == "55.3"
    assert said["batmon/dev/cell_voltages/1"] == "3.301"
    assert "batmon/dev/cell_voltages/2" not in said
    assert said["batmon/dev/temperatures/1"] == "0.0"
    assert said["batmon/dev/switch/discharge"] == "OFF"


def test_esphome_publishes_states_and_its_current_charges() -> None:
    said = esphome("node", SAID)
    assert said["node/sensor/current/state"] == "-7.5"
    assert said["node/sensor/state_of_charge/state"] == "55.3"
    assert said["node/sensor/cell_voltage_3/state"] == "3.299"
    assert said["node/binary_sensor/charging/state"] == "ON"


def test_battery_emulator_publishes_objects() -> None:
    said = battery_emulator("BE", SAID)
    info = json.loads(said["BE/info"])
    assert info["SOC"] == 55.3 and info["battery_current"] == -7.5 and info["bms_status"] == "ACTIVE"
    assert json.loads(said["BE/spec_data"]) == {"cell_voltages": [3.301, 3.299]}
    assert json.loads(battery_emulator("BE", {"alarm.other": True})["BE/info"])["bms_status"] == "FAULT"


@each(EVERY)
@pytest.mark.parametrize("shape", list(GATEWAYS.values()), ids=list(GATEWAYS))
def test_a_gateway_publishes_what_its_bms_says(case: Case, shape: Callable[..., dict[str, str]]) -> None:
    pack, lies = a_pack(case), Lies(after_s=0.0, silent_field="soc_bms")
    honest = Gateway(case.spoken, [pack], case.vehicle, shape, HONEST, CLEAR, random.Random(1)).messages()
    assert any("soc" in topic.lower() or "SOC" in text or "state_of_charge" in topic for topic, text in honest.items())
    hushed = Gateway(case.spoken, [pack], case.vehicle, shape, lies, CLEAR, random.Random(1)).messages()
    assert not any(
        "soc_percent" in topic or "SOC" in text or "state_of_charge" in topic for topic, text in hushed.items()
    )
    quiet = Gateway(
        case.spoken, [pack], case.vehicle, shape, HONEST, Stammer(after_s=0.0, is_silent=True), random.Random()
    )
    assert quiet.messages() == {}
