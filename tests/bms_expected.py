"""The vectors of `vectors/bms.json`: what goes over the line in each, and what a correct decoder says of it.

What is expected stands there in the words and signs of seven projects; here it becomes Sample's. What they derived
(power, runtime, means, SoC from Ah) is left out. Share-alike and GPL entries are read from there only, never copied.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from firmware_bridge.checksums import negated_sum16, sum8, sum16
from firmware_bridge.isotp_send import segments
from firmware_bridge.modbus import reply_frame
from firmware_bridge.shelf import protocol

OURS: Final[Mapping[str, str]] = {
    "jbd": "jbd",
    "jbd_bms": "jbd",
    "jbd_bms_ble": "jbd",
    "jbd_bms_up": "jbd",
    "jk_ble_jk02": "jk02",
    "jk": "jk02",
    "jk_bms_ble": "jk02",
    "jk_uart_4e57": "jk_uart",
    "jk_bms": "jk_uart",
    "daly_uart": "daly_uart",
    "daly": "daly_uart",
    "daly_d2_modbus": "daly_modbus",
    "daly2": "daly_modbus",
    "daly_bms_ble": "daly_modbus",
    "pylontech_can": "pylontech_can",
    "victron_can_bms": "pylontech_can",
    "seplos_v2": "seplos_v2",
    "seplos_bms": "seplos_v2",
    "seplos_bms_ble": "seplos_v2",
    "seplos_v3_modbus": "seplos_v3",
    "seplos_bms_v3_ble": "seplos_v3",
    "seplos_bms_v3_ble_pack": "seplos_v3",
    "uds_isotp_obd": "uds_ev",
    "uds_isotp_raw": "uds_ev",
}
"""The file's names of languages -> ours; of others there are no decoders here (JK04, Pylontech RT)."""
NO_JK02: Final = frozenset({437})  # JK04
ZEROED: Final = frozenset({441, 455, 456})
"""Called positive, but their check is zero: a decoder must refuse them."""
GOOD_WITHIN: Final = frozenset({163, 164, 165, 167})
"""Called negative, because a login fails; the frame that they wrap is good."""
VEHICLES: Final = {"IONIQ-5": "ioniq5", "EV6": "ev6", "Kona": "kona", "Bolt": "bolt", "Leaf": "leaf"}


@dataclass(frozen=True)
class Line:
    """What goes over the line, as a file for `decode --file`: `> HEX` is a request."""

    protocol: str
    vehicle: str | None
    lines: tuple[str, ...]

    @property
    def arguments(self) -> list[str]:
        return ["--protocol", self.protocol, *(["--vehicle", self.vehicle] if self.vehicle else [])]

    @property
    def unasked(self) -> Line:
        """The same, heard by somebody who does not know the requests."""
        return Line(self.protocol, self.vehicle, tuple(it for it in self.lines if not it.startswith(">")))


@dataclass(frozen=True)
class Vector:
    """An entry of the file."""

    entry: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.id}-{self.entry['protocol']}-{re.sub(r'[^A-Za-z0-9]+', '_', self.entry['variant'])[:40]}"

    @property
    def id(self) -> int:
        return int(self.entry["id"])

    @property
    def protocol(self) -> str:
        return OURS[self.entry["protocol"]]

    def line(self) -> Line:
        """What goes over the line; payloads alone are put into frames."""
        vehicle = None
        if self.protocol == "uds_ev":
            where = f"{self.entry['source_repo']} {self.entry['variant']}"
            vehicle = next(ours for theirs, ours in VEHICLES.items() if theirs in where)
        return Line(self.protocol, vehicle, tuple(_lines(self.entry)))

    def expected(self) -> dict[str, Any]:
        """Sample's names (arrays as lists, places that are not told of None) -> what must be told. {} = nothing counts.

        `@3.pack_v` is the pack_v of the pack at address 3.
        """
        return _EXPECTED[_family(self.entry)](self.entry["expected"], self.entry)


def vectors(folder: Path) -> list[Vector]:
    """All entries of languages that are ours."""
    entries = json.loads((folder / "vectors" / "bms.json").read_text())
    return [Vector(it) for it in entries if it["protocol"] in OURS and it["id"] not in NO_JK02]


# what goes over the line


def _lines(entry: Mapping[str, Any]) -> Iterator[str]:
    name, given = entry["protocol"], entry.get("frame_hex") or ""
    if entry.get("can_frames"):
        yield from (f"{it['id'].removeprefix('0x')}#{it['data']}" for it in entry["can_frames"])
    elif name == "uds_isotp_obd":
        yield from _elm(entry)
    elif name == "uds_isotp_raw":
        answer = 0x7EC if "Kona" in entry["variant"] else 0x7BB
        yield from (
            f"{answer:03X}#{frame.hex()}"
            for frame in segments(bytes.fromhex(given if isinstance(given, str) else given[0]))
        )
    elif (frame := _wrapped(entry)) is not None:
        yield frame.hex()
    elif entry["kind"] == "positive" and entry.get("rx_fragments_hex"):
        requests = entry.get("request_hex") or [None] * len(given)
        for request, fragments in zip(requests, entry["rx_fragments_hex"], strict=True):
            if request:
                yield f"> {request}"
            yield from (it for it in fragments if it)
    else:
        yield from (it for it in (given if isinstance(given, list) else [given]) if it)


def _elm(entry: Mapping[str, Any]) -> Iterator[str]:
    """The answers as an ELM327 prints them, and the request that the name of the entry tells."""
    asked = re.search(r" ([0-9A-F]{3})\.[0-9A-F]{3}\.([0-9A-F]+)", entry["variant"])
    assert asked is not None, entry["variant"]
    yield f"> {asked[1]}#{len(asked[2]) // 2:02X}{asked[2]}"
    for text in entry["frame_hex"]:
        packed = text.replace(" ", "")
        if packed != asked[2]:
            yield f"{packed[:3]}#{packed[3:]}"


def _wrapped(entry: Mapping[str, Any]) -> bytes | None:
    """The frame around a fixture that is a payload alone; None = it is a frame."""
    name = entry["protocol"]
    if name not in _WRAP:
        return None
    given = entry["frame_hex"]
    return _WRAP[name](bytes.fromhex(given[0] if isinstance(given, list) else given), entry)


def _jbd(payload: bytes, entry: Mapping[str, Any]) -> bytes | None:
    if payload[:1] == b"\xdd":
        return None
    command = 0x05 if "HWVER" in entry["variant"] else 0x03
    body = bytes([0, len(payload)]) + payload
    return bytes([0xDD, command]) + body + negated_sum16(body).to_bytes(2, "big") + b"\x77"


def _jk_uart(payload: bytes, entry: Mapping[str, Any]) -> bytes:
    """The tags of a status in a reply to a read of all."""
    body = bytes(4) + b"\x06\x00\x01" + payload + bytes(4) + b"\x68"
    frame = b"NW" + (len(body) + 6).to_bytes(2, "big") + body
    return frame + bytes(2) + sum16(frame).to_bytes(2, "big")


def _daly(payload: bytes, entry: Mapping[str, Any]) -> bytes:
    body = bytes([0xA5, 0x01, 0x93 if "STATUS" in entry["variant"] else 0x90, 8]) + payload
    return body + bytes([sum8(body)])


def _seplos_letters(payload: bytes, entry: Mapping[str, Any]) -> bytes:
    letters = payload.hex().upper().encode()
    return b"~" + letters + b"%04X" % negated_sum16(letters) + b"\r"


def _seplos_v3(payload: bytes, entry: Mapping[str, Any]) -> bytes:
    return reply_frame(0, 1 if "EIC" in entry["variant"] else 4, payload)


_WRAP: Final[Mapping[str, Callable[[bytes, Mapping[str, Any]], bytes | None]]] = {
    "jbd_bms": _jbd,
    "jbd_bms_ble": _jbd,
    "jk_bms": _jk_uart,
    "daly": _daly,
    "seplos_bms": _seplos_letters,
    "seplos_bms_v3_ble": _seplos_v3,
}


# what must be told


def _family(entry: Mapping[str, Any]) -> str:
    repo = entry["source_repo"]
    if entry["protocol"] in ("pylontech_can", "victron_can_bms", "uds_isotp_raw", "jk_uart_4e57"):
        return "document"
    if entry["protocol"] == "daly_d2_modbus" and "syssi" in repo:
        return "document"
    return next(family for part, family in _REPOS.items() if part in repo)


_REPOS: Final = {"aiobmsble": "aiobmsble", "batmon": "batmon", "mpp-solar": "mpp", "syssi": "esphome", "OBDb": "obdb"}


def _aiobmsble(said: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    names = {
        "voltage": ("pack_v", 1),
        "current": ("current_a", 1),
        "battery_level": ("soc_bms", 100),
        "battery_health": ("soh_bms", 100),
        "cycles": ("cycles", 1),
        "cycle_charge": ("extra.remaining_ah", 1),
        "chrg_mosfet": ("charge_mos", 1),
        "dischrg_mosfet": ("discharge_mos", 1),
    }
    system = "@0." if entry["protocol"] == "seplos_v3_modbus" else ""
    for theirs, (ours, per) in names.items():
        if theirs in said:
            out[system + ours] = said[theirs] if isinstance(said[theirs], bool) else said[theirs] / per
    if "design_capacity" in said:
        out["extra.full_ah" if entry["protocol"] == "jk_ble_jk02" else "extra.nominal_ah"] = said["design_capacity"]
    cells = said.get("cell_voltages")
    temps = [it["value"] for it in said.get("temp_values", ()) if it["type"] in ("GENERIC", "CELL")]
    if system:
        _packs(said, cells or [], temps, out)
    else:
        out |= {"cell_v": cells} if cells else {}
        out |= {"temp_c": temps} if temps else {}
    return out


def _packs(said: Mapping[str, Any], cells: list[float], temps: list[float], out: dict[str, Any]) -> None:
    """The packs of a Seplos V3 rack, whose values stand one behind the other."""
    count = said["pack_count"]
    for address in range(1, count + 1):
        at = address - 1
        out |= {
            f"@{address}.pack_v": said["pack_voltages"][at],
            f"@{address}.current_a": said["pack_currents"][at],
            f"@{address}.soc_bms": said["pack_battery_levels"][at] / 100,
            f"@{address}.soh_bms": said["pack_battery_health"][at] / 100,
            f"@{address}.cycles": said["pack_cycles"][at],
            f"@{address}.cell_v": cells[len(cells) // count * at : len(cells) // count * (at + 1)],
            f"@{address}.temp_c": temps[len(temps) // count * at : len(temps) // count * (at + 1)],
        }


def _esphome(said: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    arrays: dict[str, dict[int, Any]] = {}
    for theirs, value in said.items():
        found = value["value"] if isinstance(value, dict) else value
        place = re.fullmatch(r"(?:pack_)?(cell_voltage|temperature)\[(\d+)\]|temperature_sensor_(\d)", theirs)
        if place is not None:
            array = "cell_v" if place[1] == "cell_voltage" else "temp_c"
            arrays.setdefault(array, {})[int(place[2]) if place[2] else int(place[3]) - 1] = found
        elif theirs in _ESPHOME:
            ours, per = _ESPHOME[theirs]
            out[ours] = found if isinstance(found, bool) else found / per
    for array, places in arrays.items():
        out[array] = [places.get(i) for i in range(max(places) + 1)]
    if entry["protocol"] == "jk_bms":
        out.pop("extra.remaining_ah", None)  # the SoC of its capacity
        out["extra.nominal_ah"] = out.pop("extra.full_ah")
    if entry["protocol"].startswith("seplos"):
        out.pop("charge_mos", None)  # whether current flows
        out.pop("discharge_mos", None)
    if entry["protocol"] == "seplos_bms":
        del out["temp_c"][_SEPLOS_SENSORS:]  # of the air and of the MOS
    return out


_SEPLOS_SENSORS: Final = 4
_ESPHOME: Final[Mapping[str, tuple[str, float]]] = {
    "total_voltage": ("pack_v", 1),
    "pack_voltage": ("pack_v", 1),
    "current": ("current_a", 1),
    "pack_current": ("current_a", 1),
    "state_of_charge": ("soc_bms", 100),
    "state_of_health": ("soh_bms", 100),
    "charging_cycles": ("cycles", 1),
    "capacity_remaining": ("extra.remaining_ah", 1),
    "residual_capacity": ("extra.remaining_ah", 1),
    "full_charge_capacity": ("extra.full_ah", 1),
    "battery_capacity": ("extra.full_ah", 1),
    "total_capacity": ("extra.full_ah", 1),
    "nominal_capacity": ("extra.nominal_ah", 1),
    "rated_capacity": ("extra.nominal_ah", 1),
    "cycle_charge": ("extra.discharged_ah", 1),
    "charging": ("charge_mos", 1),
    "discharging": ("discharge_mos", 1),
}


def _batmon(said: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """batmon's current discharges, but of Daly's Modbus; its SoC of JK and JBD is Ah by Ah."""
    out: dict[str, Any] = {}
    name = entry["protocol"]
    if "current" in said:
        out["current_a"] = said["current"] * (1 if name == "daly2" else -1)
    if "soc" in said and name in ("daly", "daly_uart", "daly2"):
        out["soc_bms"] = said["soc"] / 100
    if "soh" in said:
        out["soh_bms"] = said["soh"] / 100
    for theirs, ours in (
        ("voltage", "pack_v"),
        ("charge", "extra.remaining_ah"),
        ("capacity_ah", "extra.remaining_ah"),
        ("num_cycles", "cycles"),
        ("temperatures", "temp_c"),
        ("charging_mosfet", "charge_mos"),
        ("discharging_mosfet", "discharge_mos"),
    ):
        if theirs in said:
            out[ours] = said[theirs]
    if "capacity" in said:
        out["extra.nominal_ah" if name == "jbd" or "aged_capacity" in said else "extra.full_ah"] = said["capacity"]
    if "aged_capacity" in said:
        out["extra.full_ah"] = said["aged_capacity"]
    for theirs in ("voltages_mv", "cell_voltages_mv", "cell_voltages"):
        if theirs in said:
            out["cell_v"] = [millivolts / 1000 for millivolts in said[theirs]]
    for switch in ("charge", "discharge"):
        if switch in said.get("switches", {}):
            out[f"{switch}_mos"] = said["switches"][switch]
    return out


def _mpp(said: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    cells = {int(place[1]): it[0] for name, it in said.items() if (place := re.fullmatch(r"Cell (\d+) Voltage", name))}
    # The reply has sentences for more cells than the pack has: what stands in their places is no cell.
    if cells:
        out["cell_v"] = [cells[i] for i in sorted(cells) if cells[i]]
    if "Charge/Discharge Cycles" in said:
        out["cycles"] = said["Charge/Discharge Cycles"][0]
    if "Residual Capacity" in said:
        out["extra.remaining_ah"] = said["Residual Capacity"][0]
        out["charge_mos"] = said["Charging MOS Tube Status"][0] == "01"
        out["discharge_mos"] = said["Discharging MOS Tube Status"][0] == "01"
    return out


def _document(said: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for theirs, (ours, per) in _DOCUMENT.items():
        if theirs in said:
            out[ours] = said[theirs] if isinstance(said[theirs], bool) else said[theirs] / per
    if "soc_highres_pct" in said:
        out["soc_bms"] = said["soc_highres_pct"] / 100
    if "cells_mV" in said:
        out["cell_v"] = [millivolts / 1000 for millivolts in said["cells_mV"]]
    if "cells_V" in said:
        out["cell_v"] = said["cells_V"]
    if "temps_C" in said:
        out["temp_c"] = said["temps_C"]
    if "temperature_C" in said:
        out["temp_c"] = [said["temperature_C"]]
    if "t1_C" in said:
        out["temp_c"] = [said["t1_C"], said["t2_C"]]
    if "BatPackTemp1" in said:
        out["temp_c"] = [said["BatPackTemp1"], said["BatPackTemp2"], None, said["BatPackTemp4"]]
    if "Kona" in entry["variant"]:
        out["current_a"] *= -1  # by Hyundai's table, which discharges
    return out


_DOCUMENT: Final[Mapping[str, tuple[str, float]]] = {
    "voltage_V": ("pack_v", 1),
    "current_A": ("current_a", 1),
    "soc_pct": ("soc_bms", 100),
    "soc_bms_pct": ("soc_bms", 100),
    "soh_pct": ("soh_bms", 100),
    "cycles": ("cycles", 1),
    "remaining_Ah": ("extra.remaining_ah", 1),
    "capacity_Ah": ("extra.full_ah", 1),
    "installed_capacity_Ah": ("extra.nominal_ah", 1),
    "charge_mos": ("charge_mos", 1),
    "discharge_mos": ("discharge_mos", 1),
}


def _obdb(said: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """OBDb's names begin with the car's; currents of Hyundai and Kia discharge."""
    out: dict[str, Any] = {}
    arrays: dict[str, dict[int, Any]] = {}
    for theirs, value in said.items():
        name = theirs.partition("_")[2]
        if place := re.fullmatch(r"HVBAT_CMU(\d+)_VOLT", name):
            arrays.setdefault("cell_v", {})[int(place[1]) - 1] = value
        elif place := re.fullmatch(r"BATTERY_PACK_B(\d+)|HVBAT_MOD(\d+)_T", name):
            arrays.setdefault("temp_c", {})[int(place[1] or place[2]) - 1] = value
        elif name == "HVBAT_TEMP":
            arrays.setdefault("temp_c", {})[0] = value
        elif name in ("BATTERY_CURRENT", "HVBAT_CURR"):
            out["current_a"] = -value
        elif name in ("BATTERY_DC_VOLTAGE", "HVBAT_VDC"):
            out["pack_v"] = value
        elif name in ("HVBAT_SOC", "HVBAT_SOC_RAW"):
            out["soc_bms"] = value / 100
        elif name == "HVBAT_SOH":
            out["soh_bms"] = value / 100
    for array, places in arrays.items():
        out[array] = [places.get(i) for i in range(max(places) + 1)]
    return out


_EXPECTED: Final[Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]]] = {
    "aiobmsble": _aiobmsble,
    "esphome": _esphome,
    "batmon": _batmon,
    "mpp": _mpp,
    "document": _document,
    "obdb": _obdb,
}

# steps of the wires

LSB: Final[Mapping[str, Mapping[str, float]]] = {
    "jbd": {"pack_v": 0.01, "current_a": 0.01, "soc_bms": 0.01, "temp_c": 0.1, "ah": 0.01},
    "jk02": {"pack_v": 0.001, "current_a": 0.001, "soc_bms": 0.01, "soh_bms": 0.01, "temp_c": 0.1, "ah": 0.001},
    "jk_uart": {"pack_v": 0.01, "current_a": 0.01, "soc_bms": 0.01, "temp_c": 1.0, "ah": 1.0},
    "daly_uart": {"pack_v": 0.1, "current_a": 0.1, "soc_bms": 0.001, "temp_c": 1.0, "ah": 0.001},
    "daly_modbus": {"pack_v": 0.1, "current_a": 0.1, "soc_bms": 0.001, "temp_c": 1.0, "ah": 0.1},
    "pylontech_can": {"pack_v": 0.01, "current_a": 0.1, "soc_bms": 0.01, "soh_bms": 0.01, "temp_c": 0.1, "ah": 1.0},
    "seplos_v2": {"pack_v": 0.01, "current_a": 0.01, "soc_bms": 0.001, "soh_bms": 0.001, "temp_c": 0.1, "ah": 0.01},
    "seplos_v3": {"pack_v": 0.01, "current_a": 0.01, "soc_bms": 0.001, "soh_bms": 0.001, "temp_c": 0.1, "ah": 0.01},
    "uds_ev": {"pack_v": 0.1, "current_a": 0.1, "soc_bms": 0.005, "soh_bms": 0.001, "temp_c": 1.0, "ah": 0.1},
}
CELL_LSB: Final = {"uds_ev": 0.02}
FINE_CELLS: Final = {"bolt": 5 / 65535}


def lsb(line: Line, name: str) -> float:
    """One step of the wire, in the unit of a Sample's field (`@3.pack_v`: of pack_v)."""
    field = name.rpartition("@")[2].partition(".")[2] if name.startswith("@") else name
    field = field.partition("[")[0]
    if field == "cell_v":
        return FINE_CELLS.get(line.vehicle or "", CELL_LSB.get(line.protocol, 0.001))
    if field == "cycles":
        return 1.0
    if field == "extra.discharged_ah" and line.protocol == "seplos_v3":
        return 10.0
    return LSB[line.protocol]["ah" if field.endswith("_ah") else field]


def is_known(line: Line, name: str) -> bool:
    """Whether our language has such a field at all."""
    return name in protocol(line.protocol).fields
