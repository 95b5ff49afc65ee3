"""A battery is found in a DBC whatever its signals are called; what the data cannot prove is asked."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fakes.renamed_dbc import CELLS, TEMPS, Renamed, log_of, renamed

from edge.__main__ import main
from edge.config import load_config
from edge.dbc.load import load
from edge.mapping import Mapping, load_mapping
from edge.propose.fields import Proposal
from edge.propose.pack import propose
from edge.propose.words import meanings, unit_of

KONA = "230112-7-2019-pcan-ccan-power-off-on-ready-off.csv"


@pytest.fixture(scope="session")
def evpack(shared_dir: Path) -> Path:
    return shared_dir / "can" / "evpack.dbc"


@pytest.fixture(scope="session")
def evpack_log(evpack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bus says > 0 while discharging."""
    return log_of(evpack, tmp_path_factory.mktemp("log") / "pack.log", seconds=40, sign=-1.0)


def _chosen(proposal: Proposal, name: str) -> str | list[str] | None:
    choice = proposal.field(name)
    if choice is None:
        return None
    return list(choice.signals) if choice.is_array else choice.signals[0]


def _mapped(mapping: Mapping, name: str) -> str | list[str]:
    many = [target.signal for target in mapping.targets if target.name.startswith(f"{name}[")]
    return many or next(target.signal for target in mapping.targets if target.name == name)


@pytest.mark.parametrize("seed", range(12))
def test_a_pack_is_found_under_other_names(evpack: Path, tmp_path: Path, seed: int) -> None:
    """Neither the file's senders nor a log help here."""
    want = renamed(evpack, tmp_path, seed)
    got = propose(load(want.path), {})
    for name in ("pack_v", "current_a", "soc_bms", "soh_bms", "state", "cell_v", "temp_c"):
        assert _chosen(got, name) == getattr(want, name), name
    assert any(name == "current_a" and "> 0" in asked for name, asked in got.questions)


@pytest.mark.parametrize("seed", range(100, 103))
def test_the_written_config_replays_a_log_of_a_renamed_pack(
    evpack: Path, evpack_log: Path, tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    want = renamed(evpack, tmp_path, seed)
    out = tmp_path / "out"
    assert main(["doctor", "--write-config", "--dbc", str(want.path), "--log", str(evpack_log), "-o", str(out)]) == 0
    told = capsys.readouterr().out
    assert re.search(r"QUESTION  current_a: does > 0 discharge here\?.*falls when it rises", told)
    mapping = load_mapping(out / "mapping.toml")
    for name in ("pack_v", "current_a", "soc_bms", "soh_bms", "state", "cell_v", "temp_c"):
        assert _mapped(mapping, name) == getattr(want, name), name
    assert load_config(out / "edge.toml", {}).sources[0].mapping_path == out / "mapping.toml"
    samples = tmp_path / "samples.jsonl"
    assert main(["replay", str(evpack_log), "--mapping", str(mapping.path), "--pack", "P", "-o", str(samples)]) == 0
    last = json.loads(samples.read_text().splitlines()[-1])
    assert len(last["cell_v"]) == CELLS and len(last["temp_c"]) == TEMPS
    assert last["pack_v"] == pytest.approx(sum(last["cell_v"]), rel=0.02)
    assert 0.5 < last["soc_bms"] < 0.7 and last["soh_bms"] == pytest.approx(0.935)
    assert last["state"] == "drive" and last["quality"] == {}


def test_what_the_log_says_of_the_sign_is_the_default_and_still_asked(
    evpack: Path, evpack_log: Path, tmp_path: Path
) -> None:
    _write(evpack, tmp_path, log=evpack_log)
    text = (tmp_path / "mapping.toml").read_text()
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("current_a"))
    assert "scale = -1.0" in lines[at]
    assert any(line.startswith("# QUESTION: does > 0 discharge") for line in lines[at - 4 : at])
    _write(evpack, tmp_path / "without")
    assert "# QUESTION: which way is > 0?" in (tmp_path / "without" / "mapping.toml").read_text()


def _write(dbc: Path, out: Path, *, log: Path | None = None, more: tuple[str, ...] = ()) -> int:
    heard = () if log is None else ("--log", str(log))
    return main(["doctor", "--write-config", "--dbc", str(dbc), *heard, "-o", str(out), *more])


def test_the_kona_is_found_in_its_dbc_and_its_log(
    shared_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its DBC is one that cantools does not load, its log has two buses, and it tells no cells."""
    log = shared_dir / "can" / "kona-ev-can-logs" / KONA
    assert _write(shared_dir / "can" / "kona-ev-dbc" / "pcan.dbc", tmp_path, log=log) == 0
    told = capsys.readouterr().out
    mapping = load_mapping(tmp_path / "mapping.toml")
    assert _mapped(mapping, "pack_v") == "Batt_HV_Status.VBatt"
    assert _mapped(mapping, "current_a") == "Batt_HV_Status.IBatt"
    assert _mapped(mapping, "soc_bms") in ("BatteryLimits.SoC_Maybe", "BMS_542.SocDisp")
    assert _mapped(mapping, "temp_c") == ["BatteryCharging.uwe596_6_TAkkuL", "BatteryCharging.uwe596_7_TAkkuH"]
    assert _mapped(mapping, "contactor_main") == "BMS_5A3.ContactorClosed"
    assert _mapped(mapping, "contactor_precharge") == "Batt_HV_Status.PrechargeRelay"
    assert "QUESTION  current_a" in told and "cell_v               nothing looks like it" in told
    assert "QUESTION  soc_bms: is it BatteryLimits.SoC_Maybe, or rather BMS_542.SocDisp?" in told
    samples = tmp_path / "samples.jsonl"
    assert main(["replay", str(log), "--mapping", str(mapping.path), "--pack", "KONA", "-o", str(samples)]) == 0
    last = json.loads(samples.read_text().splitlines()[-1])
    assert last["pack_v"] == pytest.approx(355.1) and last["soc_bms"] == pytest.approx(0.355)


@pytest.mark.parametrize(
    ("file", "field", "first", "last", "count"),
    [
        ("opendbc/gm_global_a_high_voltage_management.dbc", "cell_v", "Voltage_1_0_A", "Voltage_4_7_C", 96),
        ("model3dbc/Model3CAN.dbc", "cell_v", "Cell0", "Cell107", 108),
        ("foxbms-2/foxbms.dbc", "cell_v", "CellVoltage_000", "CellVoltage_215", 216),
        ("opendbc/gm_global_a_high_voltage_management.dbc", "temp_c", "Temp_A", "Temp_I", 9),
        ("savvycan/bms.dbc", "temp_c", "TEMP1", "TEMP4", 4),
    ],
)
def test_cells_and_temperatures_are_in_order(
    shared_dir: Path, file: str, field: str, first: str, last: str, count: int
) -> None:
    chosen = _chosen(propose(load(shared_dir / "can" / file), {}), field)
    assert isinstance(chosen, list) and len(chosen) == count
    assert chosen[0].endswith(f".{first}") and chosen[-1].endswith(f".{last}")


def test_names_that_come_again_in_each_message_are_in_the_order_of_the_messages(tmp_path: Path) -> None:
    """V1 to V4 in messages 1, 2, 10: ten comes after two. A value table says which number is closed."""
    cells = "\n".join(
        f"BO_ {256 + n} SlaveCells_{n}: 8 BMS\n"
        + "\n".join(f' SG_ V{i} : {16 * (i - 1)}|16@1+ (1,0) [0|5000] "mV" X' for i in range(1, 5))
        for n in (10, 2, 1)
    )
    text = f"""VERSION ""
NS_ :
BS_:
BU_: BMS
{cells}
BO_ 100 Relays: 8 BMS
 SG_ MainContactorState : 0|2@1+ (1,0) [0|3] "" X
VAL_ 100 MainContactorState 0 "Closed" 1 "Open" 3 "Unknown" ;
"""
    dbc = tmp_path / "made-up.dbc"
    dbc.write_text(text)
    assert _write(dbc, tmp_path / "out") == 0
    mapping = load_mapping(tmp_path / "out" / "mapping.toml")
    assert _mapped(mapping, "cell_v") == [f"SlaveCells_{n}.V{i}" for n in (1, 2, 10) for i in range(1, 5)]
    assert next(t.scale for t in mapping.targets if t.name == "cell_v[0]") == 0.001
    assert next(t.values for t in mapping.targets if t.name == "contactor_main") == {0.0: 1.0, 1.0: 0.0}


def test_two_tables_of_the_same_cells_are_a_question(shared_dir: Path) -> None:
    got = propose(load(shared_dir / "can" / "foxbms-2" / "foxbms.dbc"), {})
    assert any(name == "cell_v" and "f_CellVoltages.CellVoltage_000" in asked for name, asked in got.questions)
    assert got.field("cell_v").scale == 0.001  # type: ignore[union-attr]


def test_names_that_say_nothing_leave_units_and_places(evpack: Path, tmp_path: Path) -> None:
    """Signals a1, a2 .. in messages m1 ..: what is found is asked for."""
    text = evpack.read_text()
    for n, name in enumerate(("PackVoltage", "PackCurrent", "SOC", "SOH", "State", "Alive")):
        text = text.replace(f"SG_ {name} ", f"SG_ p{n} ").replace(f"VAL_ 256 {name}", f"VAL_ 256 p{n}")
    text = re.sub(r"SG_ Cell(\d+)_V", r"SG_ x\1", text)
    text = re.sub(r"SG_ Temp(\d+)", r"SG_ y\1", text)
    for name, other in (("CellVoltages", "m1"), ("CellTemps", "m2"), ("PackStatus", "m3")):
        text = text.replace(f" {name}:", f" {other}:")
    dbc = tmp_path / "names.dbc"
    dbc.write_text(text)
    got = propose(load(dbc), {})
    assert [_chosen(got, name) for name in ("pack_v", "current_a", "soc_bms")] == ["m3.p0", "m3.p1", "m3.p2"]
    assert len(_chosen(got, "cell_v") or ()) == CELLS and len(_chosen(got, "temp_c") or ()) == TEMPS
    asked = {name for name, _ in got.questions}
    assert {"pack_v", "current_a", "soc_bms", "soh_bms"} <= asked


def test_cells_that_the_log_does_not_have_are_left_out(evpack: Path, tmp_path: Path) -> None:
    """A DBC for 96 cells beside a pack of 48."""
    log = log_of(evpack, tmp_path / "all.log", seconds=20)
    short = [
        line for line in log.read_text().splitlines() if " 200#" not in line or int(line.split("#")[1][:2], 16) < 16
    ]
    log.write_text("\n".join(short))
    assert _write(evpack, tmp_path / "out", log=log) == 0
    mapping = load_mapping(tmp_path / "out" / "mapping.toml")
    assert mapping.layout.cells == 48 and mapping.pack.series == 48


def test_the_sum_of_the_cells_tells_two_voltages_apart(evpack: Path, evpack_log: Path, tmp_path: Path) -> None:
    """By its name alone M00_S0 of the other message would be as good a pack voltage."""
    dbc = tmp_path / "two.dbc"
    text = evpack.read_text().replace("SG_ PackVoltage ", "SG_ BattVoltage1 ")
    dbc.write_text(text.replace('M00_S0 : 7|16@0+ (1,0) [0|0] "u"', 'BattVoltage2 : 7|16@0+ (0.01,0) [0|1000] "V"'))
    assert _write(dbc, tmp_path / "out", log=evpack_log) == 0
    assert _mapped(load_mapping(tmp_path / "out" / "mapping.toml"), "pack_v") == "PackStatus.BattVoltage1"
    assert "cells add up to" in (tmp_path / "out" / "mapping.toml").read_text()


def test_what_never_came_in_the_log_is_proposed_and_asked(evpack: Path, tmp_path: Path) -> None:
    """A log taken while the cells were not sent is no reason to leave them out."""
    log = log_of(evpack, tmp_path / "all.log", seconds=10)
    log.write_text("\n".join(line for line in log.read_text().splitlines() if " 200#" not in line))
    assert _write(evpack, tmp_path / "out", log=log) == 0
    assert load_mapping(tmp_path / "out" / "mapping.toml").layout.cells == CELLS
    text = (tmp_path / "out" / "mapping.toml").read_text()
    assert "# QUESTION: is it sent at all? It never came in the log.\ncell_v" in text


@pytest.mark.parametrize("file", ["cantools-tests/vehicle.dbc", "kona-ev-dbc/ccan.dbc", "opendbc/tesla_can.dbc"])
def test_a_dbc_without_a_battery_is_one_sentence(
    shared_dir: Path, tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _write(shared_dir / "can" / file, tmp_path / "out") == 1
    told = capsys.readouterr()
    assert "has no battery" in told.err and told.err.count("\n") == 1 and told.out == ""
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(evpack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mapping.toml").write_text("mine")
    assert _write(evpack, tmp_path) == 2
    assert "--force" in capsys.readouterr().err
    assert (tmp_path / "mapping.toml").read_text() == "mine"
    assert _write(evpack, tmp_path, more=("--force",)) == 0
    assert load_mapping(tmp_path / "mapping.toml").layout.cells == CELLS


def test_a_log_of_another_bus_is_one_sentence(
    shared_dir: Path, evpack_log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _write(shared_dir / "can" / "savvycan" / "bms.dbc", tmp_path, log=evpack_log) == 1
    assert "it is another bus" in capsys.readouterr().err
    assert _write(shared_dir / "can" / "evpack.dbc", tmp_path, log=evpack_log, more=("--channel", "can7")) == 2
    assert "no channel can7: it has can0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("PACKVOLTS", {"pack", "volt"}),
        ("VBatt", {"volt", "pack"}),
        ("STATEOFCHARGE", {"soc"}),
        ("State_of_Charge", {"soc"}),
        ("SoC", {"soc"}),
        ("BMS_IstSpannung_HV", {"bms", "volt", "pack"}),
        ("uwe596_6_TAkkuL", {"temp", "pack"}),
        ("Hauptschütz_Plus", {"main", "contactor", "plus"}),
        ("MaxDischargeCurrent", {"max", "discharge", "current"}),
        ("Voltage_12V", {"aux", "volt"}),
    ],
)
def test_names_are_taken_apart(name: str, words: set[str]) -> None:
    assert words <= set(meanings(name))


@pytest.mark.parametrize("name", ["socket", "motorsocks", "civil", "isochronous", "M00_S1"])
def test_letters_within_other_words_mean_nothing(name: str) -> None:
    assert not {"soc", "volt", "current", "insulation"} & set(meanings(name))


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("mV", ("V", 1e-3, 0.0)),
        ("Unit_Volt", ("V", 1.0, 0.0)),
        ("Â°C", ("degC", 1.0, 0.0)),
        ("K", ("degC", 1.0, -273.15)),
        ("Unit_PerCent", ("%", 1.0, 0.0)),
        ("kΩ", ("kohm", 1.0, 0.0)),
        ("", ("", 1.0, 0.0)),
        ("rpm", None),
    ],
)
def test_units_are_understood(text: str, unit: tuple[str, float, float] | None) -> None:
    assert unit_of(text) == unit


def test_a_renamed_pack_is_another_file(evpack: Path, tmp_path: Path) -> None:
    """The helper itself: the same seed, the same file; nothing of the battery keeps its name."""
    one = renamed(evpack, tmp_path, 5)
    assert isinstance(one, Renamed)
    again = one.path.read_text()
    assert renamed(evpack, tmp_path, 5).path.read_text() == again
    assert "Cell01_V" not in again and "SG_ PackVoltage" not in again
