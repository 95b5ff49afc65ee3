"""A DBC of a battery under other names, and a log of its bus in which the numbers hang together as in a real pack."""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass
from pathlib import Path

import cantools

CELLS, TEMPS = 96, 16

PACK_V = (
    "PackVoltage HVBattVolt U_Batt Batteriespannung V_HV TotalVoltage Gesamtspannung BattPackV UBat HV_Voltage VPack"
)
PACK_V += (
    " BatteryVolts PackU StackVoltage BMS_Voltage AkkuSpannung TractionBatteryVoltage vbat TotVolt HVB_Spannung UGes"
)
CURRENT = (
    "PackCurrent I_Batt Batteriestrom HV_Current BattAmps IPack PackI Strom TotalCurrent Gesamtstrom BMS_Current Ibat"
)
CURRENT += " BatCurr HVStrom PackAmp Akkustrom HVB_Strom TRACTION_BATTERY_CURRENT packamps"
SOC = "SOC StateOfCharge Ladezustand ChargeLevel BattSoc SoC_Pct State_of_Charge RSOC BMS_SOC FuelGauge"
SOC += " SOC_Real Ladestand BatterySOC STATEOFCHARGE usable_soc Batterieladezustand HVB_Ladezustand"
SOH = "SOH StateOfHealth Health BattHealth Gesundheitszustand SoH_Pct State_of_Health BMS_SOH"
SOH += " HealthState Alterungszustand"
CELL = "Cell{n}_V CellVolt{n:03d} BMS_CellVoltage_{n:02d} VCELL{n} C{n}U Zelle{n}_Spannung U_Zelle_{n}"
CELL += " Brick{n}V Ucell_{n0} Cell_{n0}_Voltage CV{n} ZellSpg{n0:02d} Module{m}_Cell{k}_V"
CELL += " Mod{m:02d}C{k:02d}U v_cell_{n0:03d} M{m}_Z{k}_Spg"
TEMP = (
    "Temp{n} CellTemp{n:02d} T_Zelle_{n} NTC{n} Temperatur_{n0} BattTemp_{n} T{n} ModTemp{n} Therm_{n0:02d} ZellTemp{n}"
)
STATE = "State BmsState OpMode Betriebszustand BMS_Mode VehicleStatus Zustand"
UNITS = {"V": ("V", "Volt", "volts", "Unit_Volt"), "A": ("A", "Amp", "Ampere"), "%": ("%", "pct", "Prozent")}
UNITS["degC"] = ("degC", "C", "Celsius", "°C", "deg C")
MESSAGES = {
    "CellVoltages": ("Msg200", "Zellspannungen", "BMS_Cells", "CellData", "HVB_02"),
    "CellTemps": ("Msg210", "Zelltemperaturen", "BMS_Temp", "CellData2", "HVB_03"),
    "PackStatus": ("Msg100", "Batteriestatus", "BMS_Main", "PackData", "HVB_01"),
}


@dataclass(frozen=True)
class Renamed:
    """The file, and what is what in it: `Message.Signal` by field, in the order of the pack for the arrays."""

    path: Path
    pack_v: str
    current_a: str
    soc_bms: str
    soh_bms: str
    state: str
    cell_v: list[str]
    temp_c: list[str]


def renamed(source: Path, folder: Path, seed: int) -> Renamed:
    """evpack.dbc with each name of its battery replaced by a synonym, at random by `seed`, and other units."""
    rng = random.Random(seed)
    pick = {name: rng.choice(line.split()) for name, line in {
        "PackVoltage": PACK_V, "PackCurrent": CURRENT, "SOC": SOC, "SOH": SOH, "State": STATE,
    }.items()}  # fmt: skip
    cell, temp = rng.choice(CELL.split()), rng.choice(TEMP.split())
    per_module = rng.choice((6, 8, 12))
    messages = {name: rng.choice(others) for name, others in MESSAGES.items()}

    def numbered(template: str, n: int) -> str:
        return template.format(n=n, n0=n - 1, m=(n - 1) // per_module + 1, k=(n - 1) % per_module + 1)

    for n in range(1, CELLS + 1):
        pick[f"Cell{n:02d}_V"] = numbered(cell, n)
    for n in range(1, TEMPS + 1):
        pick[f"Temp{n:02d}"] = numbered(temp, n)
    text = source.read_text()
    text = re.sub(r"(?m)^(\s*SG_ )(\w+)", lambda found: found[1] + pick.get(found[2], found[2]), text)
    text = re.sub(r"(?m)^(BO_ \d+ )(\w+)", lambda found: found[1] + messages.get(found[2], found[2]), text)
    text = re.sub(r"VAL_ 256 State", f"VAL_ 256 {pick['State']}", text)
    spelt = {unit: rng.choice(others) for unit, others in UNITS.items()}
    text = re.sub(r'"(V|A|%|degC)"', lambda found: f'"{spelt[found[1]]}"', text)
    path = folder / f"renamed-{seed}.dbc"
    path.write_text(text)

    def at(message: str, name: str) -> str:
        return f"{messages[message]}.{pick[name]}"

    return Renamed(
        path,
        *(at("PackStatus", name) for name in ("PackVoltage", "PackCurrent", "SOC", "SOH", "State")),
        [at("CellVoltages", f"Cell{n:02d}_V") for n in range(1, CELLS + 1)],
        [at("CellTemps", f"Temp{n:02d}") for n in range(1, TEMPS + 1)],
    )


def log_of(source: Path, out: Path, *, seconds: int = 60, seed: int = 1, sign: float = 1.0) -> Path:
    """A candump log of evpack.dbc's battery: a current that comes and goes, and the voltage that follows it.

    sign: 1 = the bus says > 0 while charging.
    """
    rng = random.Random(seed)
    database = cantools.database.load_file(source)
    by_id = {one.frame_id: one for one in database.messages}
    lines, soc = [], 62.0

    def frame(t_s: float, can_id: int, data: bytes) -> None:
        lines.append(f"({1_700_000_000 + t_s:.6f}) can0 {can_id:03X}#{data.hex().upper()}")

    for tick in range(10 * seconds):
        t_s = tick / 10
        current = 60 * math.sin(t_s / 5) + (40 if tick // 70 % 2 else -30)  # A, > 0 charges
        soc += current / 36_000 * 0.7
        cell = 3.4 + soc / 250 + 0.0008 * current
        told = {"PackVoltage": round(CELLS * cell, 1), "PackCurrent": round(sign * current, 1), "SOC": round(soc, 1)}
        frame(t_s, 256, _encoded(by_id[256], {**told, "SOH": 93.5, "State": 3, "Alive": tick % 16}))
        group = tick % 32
        cells = {f"Cell{3 * group + i + 1:02d}_V": round(cell + rng.gauss(0, 0.003), 4) for i in range(3)}
        frame(t_s + 0.01, 512, _encoded(by_id[512], {"CellMux": group, **cells}))
        group = tick % 4
        temps = {f"Temp{4 * group + i + 1:02d}": round(23 + rng.gauss(0, 0.5), 1) for i in range(4)}
        frame(t_s + 0.02, 528, _encoded(by_id[528], {"TempMux": group, **temps}))
        frame(t_s + 0.03, 272, bytes(rng.randrange(256) for _ in range(8)))
    out.write_text("\n".join(lines) + "\n")
    return out


def _encoded(message: object, values: dict[str, float]) -> bytes:
    data: bytes = message.encode(values, strict=False)  # type: ignore[attr-defined]
    return data
