"""JK BMS over its UART (GPS port, RS485): `4E 57 length ... 68 sum`, big endian, values behind tags of one byte.

A tag that is not known ends the reading, for nothing says how long it is. Layout: JK's "BMS communication protocol",
https://github.com/syssi/esphome-jk-bms, https://github.com/ArminJo/JK-BMSToPylontechCAN; checked on captures. Not
settled on hardware: below 0 degC decoders disagree by 1 K; here 101 is -1 degC, as the document has it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from firmware_bridge.checksums import sum16
from firmware_bridge.protocol import ALARM, EXTRA, Asked, LineError, Part, Poll, Protocol, Said, Value, Values
from firmware_bridge.rows import Flags, Number, Read, Row, Text, names_of, size_of
from firmware_bridge.stream import Found, Stream

_HEAD: Final = b"\x4e\x57"
_TAGS_AT: Final = 11
_BESIDE_BYTES: Final = 20  # of a frame, beside its tags
_MOST_BYTES: Final = 640
_END: Final = 0x68
_READ_ALL: Final = 0x06
_READS: Final = (0x03, _READ_ALL)
_FROM_BMS: Final = 1
_CELLS: Final = 0x79
_CURRENT: Final = 0x84
_SENSORS: Final = 0x86
_VERSION: Final = 0xC0
_SIGNED_CURRENT: Final = 1  # the version of the protocol that has the direction in the highest bit
_CHARGES: Final = 0x8000
_COLDEST: Final = 140
_NO_SENSOR: Final = 0xFFFF
_ALARMS: Final = {
    0: "alarm.low_soc",
    1: "alarm.mos_over_temp",
    2: "alarm.pack_over_voltage",
    3: "alarm.pack_under_voltage",
    4: "alarm.discharge_over_temp",
    5: "alarm.charge_over_current",
    6: "alarm.discharge_over_current",
    7: "alarm.cell_imbalance",
    8: "alarm.ambient_over_temp",  # of the box
    9: "alarm.charge_under_temp",
    10: "alarm.cell_over_voltage",
    11: "alarm.cell_under_voltage",
    12: "alarm.other",
    13: "alarm.other",
}


@dataclass(frozen=True, slots=True)
class _Temperature:
    """Whole degrees; what is above 100 stands for -1 and less, down to -40."""

    name: str

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def read(self, data: bytes, into: Read) -> None:
        raw = int.from_bytes(data, "big")
        reason = "absent" if raw == _NO_SENSOR else "invalid" if raw > _COLDEST else None
        into.put(self.name, float(raw if raw <= 100 else 100 - raw), reason)

    def write(self, data: bytearray, values: Values) -> None:
        value = values.get(self.name)
        if value is not None:
            degrees = min(max(round(float(value)), -40), 100)
            struct.pack_into(">H", data, 0, degrees if degrees >= 0 else 100 - degrees)
        elif self.name in values:
            struct.pack_into(">H", data, 0, _NO_SENSOR)


def _u16(name: str, per: float = 1) -> Number:
    return Number(name, 0, ">H", per=per)


_TABLE: Final[Mapping[int, tuple[int, Sequence[Row]]]] = {
    0x80: (2, (_Temperature("extra.mos_temp_c"),)),
    0x81: (2, (_Temperature("temp_c[0]"),)),
    0x82: (2, (_Temperature("temp_c[1]"),)),
    0x83: (2, (_u16("pack_v", 100),)),
    _CURRENT: (2, ()),  # means what the protocol's version says
    0x85: (1, (Number("soc_bms", 0, ">B", per=100, hi=2),)),
    _SENSORS: (1, ()),
    0x87: (2, (_u16("cycles"),)),
    0x89: (4, (Number("throughput_ah", 0, ">I"),)),
    0x8A: (2, (_u16("extra.cell_count"),)),
    0x8B: (2, (Flags(0, ">H", _ALARMS, "extra.alarm_raw"),)),
    0x8C: (
        2,
        (
            Flags(0, ">H", {0: "charge_mos", 1: "discharge_mos"}),
            Number("extra.balance_on", 0, ">H", shift=2, bits=1),
        ),
    ),
    0x8E: (2, (_u16("extra.pack_ov_v", 100),)),
    0x8F: (2, (_u16("extra.pack_uv_v", 100),)),
    0x90: (2, (_u16("extra.cell_ov_v", 1000),)),
    **dict.fromkeys((0x91, 0x92), (2, ())),
    0x93: (2, (_u16("extra.cell_uv_v", 1000),)),
    **dict.fromkeys((0x94, 0x95, 0x96), (2, ())),
    0x97: (2, (_u16("extra.discharge_a_max"),)),
    0x98: (2, ()),
    0x99: (2, (_u16("extra.charge_a_max"),)),
    **dict.fromkeys((0x9A, 0x9B, 0x9C), (2, ())),
    0x9D: (1, ()),
    **dict.fromkeys(range(0x9E, 0xA9), (2, ())),
    0xA9: (1, ()),
    0xAA: (4, (Number("extra.nominal_ah", 0, ">I"),)),
    **dict.fromkeys((0xAB, 0xAC), (1, ())),
    0xAD: (2, ()),
    **dict.fromkeys((0xAE, 0xAF), (1, ())),
    0xB0: (2, ()),
    0xB1: (1, ()),
    0xB2: (10, ()),  # a password
    0xB3: (1, ()),
    0xB4: (8, (Text("extra.name", 0, 8),)),
    0xB5: (4, ()),
    0xB6: (4, (Number("extra.runtime_s", 0, ">I", times=60),)),
    0xB7: (15, (Text("extra.sw_version", 0, 15),)),
    0xB8: (1, ()),
    0xB9: (4, (Number("extra.full_ah", 0, ">I", absent=(0,)),)),
    0xBA: (24, ()),  # the maker's number, or two texts that are anything
    _VERSION: (1, ()),
}
"""By tag, as they stand in line: how long it is, and what it says. The cells (79) say themselves how long they are."""
_NAMES: Final = tuple(name for name in names_of(*(rows for _, rows in _TABLE.values())) if "[" not in name)
_COLUMNS: Final = ("current_a", *(name for name in _NAMES if not name.startswith((ALARM, EXTRA))))


class _Framing:
    """Frames begin with 4E 57 and say how long they are."""

    def start(self, data: bytes, at: int) -> int:
        found = data.find(_HEAD, at)
        return found if found >= 0 else max(at, len(data) - data.endswith(_HEAD[:1]))

    def length(self, data: bytes, at: int) -> int | None:
        if at + 3 >= len(data):
            return None
        size = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        return size if _BESIDE_BYTES <= size <= _MOST_BYTES else 4

    def fault(self, frame: bytes) -> tuple[str, str] | None:
        if len(frame) < _BESIDE_BYTES:
            return "length", f"{int.from_bytes(frame[2:4], 'big')} bytes is no length of a frame"
        # Of the four bytes of the check two are a CRC that no BMS fills.
        sent, found = int.from_bytes(frame[-4:], "big"), sum16(frame[:-4])
        if sent != found:
            return "checksum", f"{sent:08X} came, {found:08X} it is"
        return (
            None if frame[-5] == _END else ("length", f"the byte at the end is {frame[-5]:02X} instead of {_END:02X}")
        )


class JkUartDecoder:
    """Reads replies; requests are only known again."""

    def __init__(self) -> None:
        self._stream = Stream(_Framing())
        self._asked = Asked()

    @property
    def pending(self) -> bytes:
        """See ByteDecoder."""
        return self._stream.pending

    def sent(self, request: bytes) -> None:
        """See ByteDecoder."""
        self._asked.sent(request)

    def feed(self, data: bytes) -> list[Said]:
        """See ByteDecoder."""
        return [self._said(found) for found in self._stream.feed(data)]

    def end(self) -> list[Said]:
        """See ByteDecoder."""
        said = [self._said(found) for found in self._stream.end()]
        self._asked.forget()
        return said

    def _said(self, found: Found | LineError) -> Said:
        if isinstance(found, LineError):
            return found
        frame, at = found.frame, found.offset
        number, command = frame[4:8], frame[8]
        if frame[10] != _FROM_BMS:
            return LineError("echo", at, f"a request: {frame.hex()}")

        def fits(request: bytes) -> bool:
            return request[8:9] == bytes([command]) and request[4:8] in (number, bytes(4))

        if self._asked.any and self._asked.answered(fits) is None:
            return LineError("address", at, f"nobody asked {number.hex()} by command {command:02X}")
        if command not in _READS:
            return LineError("function", at, f"command {command:02X} is none that is read with")
        told = _read(frame[_TAGS_AT:-9])
        if told is None:
            return LineError("length", at, f"no tag that is known stands whole in {len(frame)} bytes")
        address = int.from_bytes(number, "big") or None
        return Part(kind="all", address=address, values=told.values, quality=told.quality)


def _read(tags: bytes) -> Read | None:
    """What is behind the tags, up to the first that is not known; None = there is none before."""
    told, at = Read(), 0
    raw: dict[int, bytes] = {}
    while at < len(tags):
        tag = tags[at]
        size = 1 + tags[at + 1] if tag == _CELLS and at + 1 < len(tags) else _TABLE.get(tag, (0,))[0]
        value = tags[at + 1 : at + 1 + size]
        if not size or len(value) < size:
            break
        raw[tag] = value
        at += 1 + size
    if not raw:
        return None
    cells = raw.get(_CELLS, b"")[1:]
    for i, mv in struct.iter_unpack(">BH", cells[: len(cells) // 3 * 3]):
        if i:
            told.put(f"cell_v[{i - 1}]", mv / 1000)
    for tag, value in raw.items():
        for row in _TABLE[tag][1] if tag in _TABLE else ():
            row.read(value, told)
    sensors = raw.get(_SENSORS, b"\2")[0]
    for i in range(2):
        if i >= sensors and told.values.get(f"temp_c[{i}]") == 0:
            told.put(f"temp_c[{i}]", None, "absent")
    if told.quality.get("extra.full_ah") and told.values.get("extra.nominal_ah"):
        told.put("extra.full_ah", told.values["extra.nominal_ah"])  # it has learned none: it goes by what is set
        del told.quality["extra.full_ah"]
    if _CURRENT in raw:
        # The version stands at the very end, so it is found even where the reading broke off.
        has_version = tags[-2:-1] == bytes([_VERSION])
        version = raw.get(_VERSION, tags[-1:] if has_version else b"\0")[0]
        told.put("current_a", _current_a(int.from_bytes(raw[_CURRENT], "big"), version))
    for name in _COLUMNS if at < len(tags) else ():  # what may stand behind the tag that ended the reading
        if name not in told.values:
            told.put(name, None, "short_frame")
    return told


def _current_a(raw: int, version: int) -> float:
    if version != _SIGNED_CURRENT:
        return (10000 - raw) / 100
    amperes = (raw & ~_CHARGES) / 100
    return amperes if raw & _CHARGES else -amperes if amperes else 0.0


def _written(values: Values) -> bytes:
    """All tags of a pack with these values."""
    cells = [(i + 1, values[f"cell_v[{i}]"]) for i in range(min(size_of("cell_v", values), 85))]
    known = [(i, v) for i, v in cells if v is not None]
    records = b"".join(struct.pack(">BH", i, min(max(round(float(v) * 1000), 0), 0xFFFF)) for i, v in known)
    out = bytearray([_CELLS, len(records)]) + records
    values = {**values, "extra.cell_count": values.get("extra.cell_count", float(len(cells)))}
    for tag, (size, rows) in _TABLE.items():
        data = bytearray(size)
        for row in rows:
            row.write(data, values)
        if tag == _CURRENT:
            data[:] = _current_raw(values.get("current_a")).to_bytes(2, "big")
        elif tag == _SENSORS:
            data[0] = sum(values.get(f"temp_c[{i}]") is not None for i in range(2))
        elif tag == _VERSION:
            data[0] = _SIGNED_CURRENT
        out += bytes([tag]) + data
    return bytes(out)


def _current_raw(current_a: Value) -> int:
    value = round(float(current_a or 0) * 100)
    return min(abs(value), _CHARGES - 1) | (_CHARGES if value > 0 else 0)


def _frame(command: int, source: int, transport: int, tags: bytes) -> bytes:
    size = _BESIDE_BYTES + len(tags) - len(_HEAD)
    head = _HEAD + size.to_bytes(2, "big") + bytes([0, 0, 0, 0, command, source, transport])
    body = head + tags + bytes([0, 0, 0, 0, _END])
    return body + sum16(body).to_bytes(4, "big")


def request() -> bytes:
    """The request to read everything."""
    return _frame(_READ_ALL, 3, 0, b"\0")


def reply(values: Values) -> bytes:
    """What a pack with these values replies to it."""
    return _frame(_READ_ALL, 0, _FROM_BMS, _written(values))


def _answer(asked: bytes, values: Values, address: int | None) -> Sequence[bytes]:
    return [reply(values)] if asked == request() else []


JK_UART: Final = Protocol(
    name="jk_uart",
    title="JK BMS (UART, GPS port)",
    medium="serial",
    rate=115200,
    verified=True,
    fields=("cell_v[]", "current_a", "temp_c[]", *_NAMES),
    extras={
        "balance_on": ("1", 1.0),
        "runtime_s": ("s", 60.0),
        "cell_count": ("", 1.0),
        "pack_ov_v": ("V", 0.01),
        "pack_uv_v": ("V", 0.01),
        "cell_ov_v": ("V", 0.001),
        "cell_uv_v": ("V", 0.001),
        "charge_a_max": ("A", 1.0),
        "discharge_a_max": ("A", 1.0),
        "name": (None, 0.0),
    },
    bytes_decoder=JkUartDecoder,
    polls=lambda address, vehicle: (Poll(kind="all", request=request()),),
    answer=_answer,
)
