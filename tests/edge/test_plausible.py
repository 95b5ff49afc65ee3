"""What a BMS says against what can be: the right reason within a field's max age, and never one without a fault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.said_day import Fault, Hearer, SmallPack, drive, live

from edge.assemble import Assembler
from edge.config import SAMPLES
from edge.dbc.load import load
from edge.decode import Decoder, Fields
from edge.mapping import Mapping, load_mapping
from edge.plausible.bounds import BOUNDS, table
from edge.plausible.charge import Charge
from edge.plausible.counter import Counter
from firmware_bridge.frames import FrameBatch
from firmware_bridge.pack import vehicle
from firmware_bridge.pack.car import Car
from firmware_bridge.pack.itinerary import Phase
from shared.errors import ConfigError

S = 1_000_000_000
MAX_AGE_S = 5.0
FAULT_S = 60
DOCS = Path(__file__).parents[2] / "docs" / "reference" / "plausibility.md"
SMALL = """dbc = "packtwin.dbc"
counter = "S.Counter"
[pack]
chemistry = "lfp"
nominal_ah = 100.0
series = 16
[fields]
pack_v = { from = "S.V", resolution = 0.01 }
current_a = { from = "S.I" }
soc_bms = { from = "S.Soc" }
cell_v = { from = "S.C{}", count = 16 }
"""


@pytest.fixture
def small(tmp_path: Path) -> Mapping:
    return mapped(tmp_path, SMALL)


@pytest.fixture
def car_mapping(tmp_path: Path) -> Mapping:
    text = (SAMPLES / "mapping.toml").read_text()
    return mapped(tmp_path, text.replace("[pack]", 'counter = { from = "BMS_PackElec.Counter" }\n\n[pack]', 1))


def mapped(folder: Path, text: str) -> Mapping:
    (folder / "m.toml").write_text(text)
    return load_mapping(folder / "m.toml")


# --- nothing is doubted without a fault ---


@pytest.mark.slow
def test_24_h_of_a_small_pack_without_a_false_doubt(small: Mapping) -> None:
    hearer = Hearer(small)
    told = SmallPack(1)
    full = [told.told_soc for _ in live(told, hearer, 86_400)]
    assert max(full) > 0.99 and min(full) < 0.3, "the day went up and down"
    assert not hearer.doubts


SITUATIONS = {
    "drive, nearly empty": ("drive", 0.12),
    "drive, full": ("drive", 0.98),
    "AC to full": ("charge_ac", 0.84),
    "DC from empty": ("charge_dc", 0.08),
    "asleep, then driven": ("park", 0.6),
    "as the car likes": (None, None),
}
"""What the car does first, and from which SoC."""
SITUATION_S = 600


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize(("kind", "soc"), SITUATIONS.values(), ids=SITUATIONS.keys())
@pytest.mark.slow
def test_no_situation_of_a_simulated_car_is_doubted(
    car_mapping: Mapping, kind: str | None, soc: float | None, number: int
) -> None:
    """Driving, charging fast and slowly, asleep, full, empty; cells and pack are never of one instant."""
    hearer, car = Hearer(car_mapping), Car(1, number)
    if soc is not None:
        put_at(car, soc)
    if kind is not None:
        car.itinerary.phase, car.itinerary._elapsed_s = {
            "drive": (Phase("drive", vehicle.duration_s("udds"), "udds"), 0.0),
            "park": (Phase("park", 200.0), 0.0),
        }.get(kind, (Phase(kind, float(SITUATION_S)), 0.0))
    states = {car.demand.state for _ in drive(car, hearer, SITUATION_S)}
    assert kind in {*states, None} and ("off" in states or kind != "park")
    assert not hearer.doubts


def put_at(car: Car, soc: float) -> None:
    """Its cells have that charge at rest, and the BMS knows it."""
    car.cells.soc += soc - car.cells.soc.mean()
    car.bms.soc = soc


def test_a_minute_of_each_car_and_an_hour_of_a_small_pack_without_a_false_doubt(
    car_mapping: Mapping, small: Mapping
) -> None:
    for number in range(3):
        hearer = Hearer(car_mapping)
        assert sum(1 for _ in drive(Car(2, number), hearer, 60)) == 60
        assert not hearer.doubts
    hearer = Hearer(small)
    assert sum(1 for _ in live(SmallPack(3), hearer, 3600, begin_s=10 * 3600)) == 3600
    assert not hearer.doubts


# --- a fault is told within the max age ---


def after_fault(mapping: Mapping, fault: Fault, seconds: int = 30) -> Iterator[tuple[float, dict[str, str]]]:
    """(s since the fault, qualities) of each Sample after it, of a small pack."""
    hearer = Hearer(mapping)

    def late(t_s: float, says: dict[str, float]) -> None:
        if t_s >= FAULT_S:
            fault(t_s, says)

    for t_s in live(SmallPack(5), hearer, FAULT_S + seconds, fault=late):
        if t_s >= FAULT_S:
            yield t_s + 1 - FAULT_S, hearer.last
        else:
            assert not hearer.doubts


def first(told: Iterator[tuple[float, dict[str, str]]], field: str, reason: str) -> float:
    """When the field has the reason for the first time; from then on it keeps it."""
    since: float | None = None
    for t_s, quality in told:
        if quality.get(field) == reason:
            since = t_s if since is None else since
        else:
            assert since is None, f"{field} is {quality.get(field)} again at {t_s} s"
    assert since is not None, f"{field} was never {reason}"
    return since


FAULTS: dict[str, tuple[str, float, str, str]] = {
    "SoC 55 -> 174 %": ("soc_bms", 1.74, "soc_bms", "implausible"),
    "SoC to 85 %": ("soc_bms", 0.85, "soc_bms", "implausible"),
    "SoC to 0": ("soc_bms", 0.0, "soc_bms", "implausible"),
}


@pytest.mark.parametrize(("said", "value", "field", "reason"), FAULTS.values(), ids=FAULTS.keys())
def test_a_jump_of_the_soc_is_told_at_once(small: Mapping, said: str, value: float, field: str, reason: str) -> None:
    def fault(_: float, says: dict[str, float]) -> None:
        if said in says:
            says[said] = value

    assert first(after_fault(small, fault), field, reason) <= 1.0


@pytest.mark.parametrize("factor", [1.02, 0.98])
def test_cells_that_are_all_off_by_2_percent_are_doubted_and_not_the_pack(small: Mapping, factor: float) -> None:
    def fault(_: float, says: dict[str, float]) -> None:
        says.update({name: value * factor for name, value in says.items() if name.startswith("cell_v")})

    told = list(after_fault(small, fault))
    for i in range(16):
        assert first(iter(told), f"cell_v[{i}]", "implausible") <= MAX_AGE_S
    assert not any("pack_v" in quality or "soc_bms" in quality for _, quality in told)


@pytest.mark.parametrize("factor", [1.02, 0.98, 10.0])
def test_a_pack_voltage_that_is_off_is_doubted_and_not_the_cells(small: Mapping, factor: float) -> None:
    def fault(_: float, says: dict[str, float]) -> None:
        if "pack_v" in says:
            says["pack_v"] *= factor

    told = list(after_fault(small, fault))
    assert first(iter(told), "pack_v", "implausible") <= MAX_AGE_S
    assert not any(name.startswith("cell_v") for _, quality in told for name in quality)


@pytest.mark.parametrize("volts", [19.2, 0.0])
def test_one_cell_that_explains_what_is_off_is_doubted_alone(small: Mapping, volts: float) -> None:
    """A cell shown above 19 V near full: dbus-serialbattery issue 155."""

    def fault(_: float, says: dict[str, float]) -> None:
        if "cell_v[7]" in says:
            says["cell_v[7]"] = volts

    told = list(after_fault(small, fault))
    assert first(iter(told), "cell_v[7]", "implausible") <= MAX_AGE_S
    assert {name for _, quality in told for name in quality} == {"cell_v[7]"}


def test_a_counter_that_stands_still_makes_everything_stuck_within_its_max_age(small: Mapping) -> None:
    def fault(_: float, says: dict[str, float]) -> None:
        if "counter" in says:
            says["counter"] = float((FAULT_S - 1) % 256)

    told = list(after_fault(small, fault))
    fields = ["pack_v", "current_a", "soc_bms", *(f"cell_v[{i}]" for i in range(16))]
    for field in fields:
        assert MAX_AGE_S - 1 < first(iter(told), field, "stuck") <= MAX_AGE_S + 1.0
    assert told[-1][1].keys() == set(fields)


def test_one_field_that_falls_silent_is_stale_and_alone(small: Mapping) -> None:
    def fault(_: float, says: dict[str, float]) -> None:
        says.pop("current_a", None)

    told = list(after_fault(small, fault))
    assert MAX_AGE_S - 1 < first(iter(told), "current_a", "stale") <= MAX_AGE_S + 1.0
    assert {name for _, quality in told for name in quality} == {"current_a"}


@pytest.mark.parametrize("number", [0, 1, 2])
def test_faults_of_a_car_that_drives_charges_or_is_parked_are_told(car_mapping: Mapping, number: int) -> None:
    """In a car that drives a scan may leave both open while the load changes; then it takes a few seconds more."""
    for names, factor in (("cell_v", 1.02), ("pack_v", 0.98)):
        hearer = Hearer(car_mapping)

        def fault(t_s: float, says: dict[str, float], names: str = names, factor: float = factor) -> None:
            if t_s >= 20:
                says.update({name: value * factor for name, value in says.items() if name.startswith(names)})

        list(drive(Car(4, number), hearer, 60, fault))
        begun = hearer.doubts[0][0] - hearer.begin_s - 20
        assert 0 < begun <= (30.0 if number == 0 else MAX_AGE_S)
        doubted = {name.partition("[")[0] for _, bad in hearer.doubts for name in bad}
        assert doubted == {names}


# --- and it is over when it is over ---


def test_what_is_doubted_comes_back_by_itself(small: Mapping) -> None:
    hearer = Hearer(small)

    def fault(t_s: float, says: dict[str, float]) -> None:
        if FAULT_S <= t_s < 2 * FAULT_S:
            says.update({name: value * 1.05 for name, value in says.items() if name.startswith("cell_v")})
            if "soc_bms" in says:
                says["soc_bms"] = 1.74
            if "counter" in says and t_s >= 100:
                says["counter"] = 7.0

    list(live(SmallPack(6), hearer, 3 * FAULT_S, fault=fault))
    assert hearer.doubts[0][0] <= FAULT_S + 1 and hearer.doubts[-1][0] <= 2 * FAULT_S + 2
    assert {why for _, bad in hearer.doubts for why in bad.values()} == {"implausible", "stuck"}


def test_a_gauge_that_has_set_itself_anew_is_believed_when_it_has_agreed_with_the_current_for_a_while() -> None:
    charge, doubted = Charge(), []
    for t_s in range(900):
        charge.flow(t_s * S, 20.0, 0.0, 100.0)
        true = 0.5 + 20 * t_s / 3600 / 100
        doubted.append(charge.is_doubted(t_s * S, true + (0.2 if t_s >= 100 else 0.0), t_s * S))
    assert doubted.index(True) == 100
    assert doubted[100:400] == [True] * 300 and not any(doubted[401:])


def test_a_gauge_that_jumps_about_is_never_believed() -> None:
    charge = Charge()
    charge.flow(0, 0.0, 0.0, 100.0)
    assert not charge.is_doubted(0, 0.5, 0)
    for t_s in range(1, 2000):
        charge.flow(t_s * S, 0.0, 0.0, 100.0)
        assert charge.is_doubted(t_s * S, 0.7 if t_s // 60 % 2 else 0.9, t_s * S)


def test_a_gauge_that_stands_still_while_the_pack_is_charged_is_doubted_but_not_one_that_is_full() -> None:
    for soc, is_fine in ((0.5, False), (1.0, True)):
        charge, doubted = Charge(), False
        for t_s in range(1800):
            charge.flow(t_s * S, 50.0, 0.0, 100.0)
            doubted = charge.is_doubted(t_s * S, soc, t_s * S)
        assert doubted is not is_fine


def test_without_a_current_or_a_capacity_only_what_no_pack_can_do_is_doubted() -> None:
    for current_a, capacity_ah in ((None, 100.0), (20.0, None)):
        charge = Charge()
        charge.flow(0, current_a, 0.0, capacity_ah)
        charge.is_doubted(0, 0.5, 0)
        charge.flow(S, current_a, 0.0, capacity_ah)
        assert charge.is_doubted(S, 0.7, S), "20 % within a second"
        charge.flow(600 * S, current_a, 0.0, capacity_ah)
        assert not charge.is_doubted(600 * S, 0.7, 600 * S), "20 % within ten minutes"


def test_a_silence_of_hours_says_nothing_of_what_flowed_in_it() -> None:
    charge = Charge()
    for t_s, soc in ((0, 0.8), (1, 0.8), (8 * 3600, 0.2), (8 * 3600 + 1, 0.2)):
        charge.flow(t_s * S, 0.0 if t_s < 3600 else None, 0.0, 100.0)
        assert not charge.is_doubted(t_s * S, soc, t_s * S)


# --- the cells: all of them, or nothing is said ---


def sum_doubts(text: str, tmp_path: Path, cells: int, factor: float = 1.0, ramp: float = 0.0) -> set[str]:
    """Fields that are doubted within 60 s where the cells that are told add up to `factor` of the pack."""
    hearer = Hearer(mapped(tmp_path, text))
    for t_s in range(60):
        volts = 3.3 + 0.01 * (t_s % 2) + ramp * t_s
        hearer.say(t_s + 0.1, {"pack_v": volts * 16})
        hearer.say(t_s + 0.2, {f"cell_v[{i}]": volts * 16 / cells * factor for i in range(cells)})
        hearer.sample(t_s + 1)
    return {name.partition("[")[0] for _, bad in hearer.doubts for name in bad}


def test_cells_that_are_not_all_of_the_pack_are_not_added_up(tmp_path: Path) -> None:
    half = SMALL.replace("count = 16", "count = 8")
    assert not sum_doubts(half, tmp_path, 8, 0.5)
    assert not sum_doubts(half.replace("series = 16\n", ""), tmp_path, 8, 0.5)
    assert sum_doubts(SMALL, tmp_path, 16, 1.03) == {"pack_v", "cell_v"}, "never agreed: either may be wrong"


def test_where_series_is_not_told_sums_that_agreed_prove_that_all_cells_are_there(tmp_path: Path) -> None:
    hearer = Hearer(mapped(tmp_path, SMALL.replace("series = 16\n", "")))

    def fault(t_s: float, says: dict[str, float]) -> None:
        if t_s >= FAULT_S and "pack_v" in says:
            says["pack_v"] *= 1.03

    list(live(SmallPack(7), hearer, 2 * FAULT_S, fault=fault))
    assert {name for _, bad in hearer.doubts for name in bad} == {"pack_v"}


def test_what_lies_behind_an_open_contactor_is_not_compared(tmp_path: Path) -> None:
    text = SMALL + 'contactor_main = { from = "S.Main" }\n'
    hearer = Hearer(mapped(tmp_path, text))
    for t_s in range(30):
        hearer.say(t_s + 0.1, {"pack_v": 1.0, "contactor_main": 0.0} | {f"cell_v[{i}]": 3.3 for i in range(16)})
        hearer.sample(t_s + 1)
    assert not hearer.doubts


def test_after_a_silence_no_cell_is_told_before_a_whole_scan(small: Mapping) -> None:
    hearer = Hearer(small)
    hearer.say(0.1, {f"cell_v[{i}]": 3.3 for i in range(16)})
    assert "cell_v[0]" not in hearer.sample(1.0)
    assert hearer.sample(10.0)["cell_v[0]"] == "stale"
    hearer.say(20.1, {f"cell_v[{i}]": 3.3 for i in range(8)})
    assert {hearer.sample(21.0)[f"cell_v[{i}]"] for i in range(16)} == {"stale"}
    hearer.say(21.1, {f"cell_v[{i}]": 3.3 for i in range(8, 16)})
    assert "cell_v[0]" not in hearer.sample(22.0)


# --- replays ---


def test_going_on_from_a_snapshot_comes_to_the_same_verdicts(small: Mapping) -> None:
    def fault(t_s: float, says: dict[str, float]) -> None:
        if 60 <= t_s % 120 < 90:
            says.update({name: value * 1.03 for name, value in says.items() if name.startswith("cell_v")})
        if t_s >= 200 and "soc_bms" in says:
            says["soc_bms"] = 0.9
        if 400 < t_s < 430 and "counter" in says:
            says["counter"] = 1.0

    whole, cut = Hearer(small), Hearer(small)
    list(live(SmallPack(8), whole, 700, fault=fault))
    for t_s in live(SmallPack(8), cut, 700, fault=fault):
        if t_s % 7 == 3:
            cut.restarted()
    assert whole.doubts == cut.doubts and len(whole.doubts) > 300


def test_a_counter_is_judged_alike_however_its_frames_were_read(small: Mapping) -> None:
    """A log is replayed read by read, live a second of them is decoded at once: 16 frames bring a nibble round."""

    def say(assembler: Assembler, t_ns: int, counts: list[int]) -> None:
        fields = Fields(newest={"counter": (float(counts[-1]), t_ns, None), "pack_v": (52.0, t_ns, None)})
        fields.spans["counter"] = (float(min(counts)), float(max(counts)))
        assembler.feed(fields)

    live_one, replayed = Assembler("P", small, 1.0), Assembler("P", small, 1.0)
    for second in range(40):
        counts = [n % 16 for n in range(16)] if second < 20 else [15] * 16
        if second == 19:
            counts = [*range(8), *[15] * 8]
        say(live_one, second * S, counts)
        for count in counts:
            say(replayed, second * S, [count])
        told = [one.sample((second + 1) * S, None).quality.get("pack_v") for one in (live_one, replayed)]
        assert told == (["stuck"] * 2 if second >= 24 else [None] * 2)


def test_a_nibble_on_a_bus_that_comes_round_within_a_second_moves_all_the_same(tmp_path: Path) -> None:
    """Sixteen frames a second: the newest value of each second is the same."""
    (tmp_path / "t.dbc").write_text(
        'VERSION ""\nNS_ :\nBS_:\nBU_: E\nBO_ 256 Pack: 3 E\n SG_ V : 0|16@1+ (0.1,0) [0|600] "V" E\n'
        ' SG_ Count : 16|4@1+ (1,0) [0|15] "" E\n'
    )
    mapping = mapped(tmp_path, 'dbc = "t.dbc"\ncounter = "Pack.Count"\n[fields]\npack_v = { from = "Pack.V" }\n')
    assert mapping.dbc is not None
    decoder, assembler = Decoder(mapping, load(mapping.dbc)), Assembler("P", mapping, 1.0)
    for second in range(40):
        frames = [
            (second * S + n, 256, (520).to_bytes(2, "little") + bytes([n if second < 20 else 15])) for n in range(16)
        ]
        assembler.feed(decoder.decode(FrameBatch.of("can0", frames)))
        assert assembler.sample((second + 1) * S, None).quality == ({} if second < 24 else {"pack_v": "stuck"})


def stuck_at(counts: list[int], *, is_proven: bool) -> list[int]:
    """The seconds at which a counter that is read each second is stuck."""
    counter, stuck = Counter(max_age_ns=5 * S, is_proven=is_proven), []
    for second, count in enumerate(counts):
        counter.feed(float(count), (float(count), float(count)))
        if counter.is_stuck(second * S, second * S):
            stuck.append(second)
    return stuck


def test_a_counter_that_nobody_has_seen_move_cannot_stand_still_unless_it_is_known_to_move() -> None:
    assert stuck_at([7] * 20, is_proven=False) == []
    assert stuck_at([7] * 20, is_proven=True) == list(range(6, 20))


def test_a_counter_of_unknown_pace_may_be_slow() -> None:
    slow = [second // 8 for second in range(80)]
    assert stuck_at(slow, is_proven=False) == []
    assert stuck_at([*slow, *[9] * 40], is_proven=False) == list(range(72 + 25, 120)), "three of its pauses"
    assert stuck_at([*range(20), *[19] * 20, *range(20, 40), *[39] * 10], is_proven=False) == [
        *range(25, 40), *range(65, 70)
    ], "to have stood still is no pace"  # fmt: skip


# --- settings and docs ---


def test_a_counter_in_the_mapping_may_have_its_own_max_age(tmp_path: Path) -> None:
    text = SMALL.replace('"S.Counter"', '{ from = "S.Counter", max_age_s = 90 }')
    target = next(t for t in mapped(tmp_path, text).targets if t.name == "counter")
    assert (target.signal, target.max_age_s) == ("S.Counter", 90.0)
    for wrong in ('{ from = "S.Counter", age = 1 }', "3", '{ from = "S.Counter", max_age_s = 0 }'):
        with pytest.raises(ConfigError, match="counter"):
            mapped(tmp_path, SMALL.replace('"S.Counter"', wrong))


def test_the_table_of_bounds_in_the_docs_is_that_of_the_code() -> None:
    told = DOCS.read_text("utf-8")
    for name, value, unit, why in table():
        assert f"| `{name}` | {value:g} {unit} | {why} |" in told
    assert BOUNDS.sum_off < 0.02
