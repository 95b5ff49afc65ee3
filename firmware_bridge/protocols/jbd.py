"""JBD (Xiaoxiang, Overkill, LLT): `DD command status length payload checksum 77`, over UART, RS485 and Bluetooth alike.

The checksum is a sum: it cannot see bytes that were swapped, nor zeros that were lost, so the length decides. Packs
that have an address are UP16S, which speak otherwise on the same line (jbd_up16s.py). Over Bluetooth there may be a
login (`FF AA`), which is of no concern here. Layout: https://github.com/syssi/esphome-jbd-bms, checked on captures; the
coarse steps of large packs: https://github.com/patman15/aiobmsble, no capture has them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from firmware_bridge.checksums import negated_sum16, sum8
from firmware_bridge.protocol import Asked, LineError, Part, Poll, Protocol, Said, Twice, Values
from firmware_bridge.protocols import jbd_up16s
from firmware_bridge.rows import (
    BitSet,
    Count,
    Flags,
    Number,
    Numbers,
    Read,
    Table,
    Text,
    names_of,
    read,
    size_of,
    written,
)
from firmware_bridge.stream import Found, Stream

_START: Final = 0xDD
_END: Final = 0x77
_READ: Final = 0xA5
_WRITE: Final = 0x5A
_BESIDE_BYTES: Final = 7  # of a frame, beside its payload
_STATUS_BYTES: Final = 23  # of the status, without its sensors
_REFUSED: Final = 0x80
_MOST_CELL_V: Final = 5.0
_LOGIN: Final = b"\xff\xaa"
_LOGIN_BESIDE_BYTES: Final = 5
_MOST_LOGIN_BYTES: Final = 16
_LOGINS: Final = (0x15, 0x17, 0x18, 0x1D)
_ASKS_RANDOM: Final = 0x17
_BEGIN: Final = re.compile(rb"\xdd|\xff\xaa|[\x00-\x3f](?:[\x78\x79][\x00-\x3f]|\x45\x00)")
_BEGIN_CUT: Final = re.compile(rb"\xff|[\x00-\x3f][\x78\x79\x45]?")
_ALARMS: Final = {
    0: "alarm.cell_over_voltage",
    1: "alarm.cell_under_voltage",
    2: "alarm.pack_over_voltage",
    3: "alarm.pack_under_voltage",
    4: "alarm.charge_over_temp",
    5: "alarm.charge_under_temp",
    6: "alarm.discharge_over_temp",
    7: "alarm.discharge_under_temp",
    8: "alarm.charge_over_current",
    9: "alarm.discharge_over_current",
    10: "alarm.short_circuit",
    11: "alarm.front_end_fault",
    12: "alarm.lockout",  # the switches are locked by software
    13: "alarm.other",  # charged for too long
    14: "alarm.other",
    15: "alarm.other",
}


@dataclass(frozen=True, slots=True)
class _Version:
    """A version in the halves of a byte: 0x21 is 2.1."""

    at: int

    @property
    def names(self) -> tuple[str, ...]:
        return ("extra.sw_version",)

    def read(self, data: bytes, into: Read) -> None:
        if self.at < len(data):
            into.put(self.names[0], f"{data[self.at] >> 4}.{data[self.at] & 0xF}")

    def write(self, data: bytearray, values: Values) -> None:
        if isinstance(version := values.get(self.names[0]), str):
            major, _, minor = version.partition(".")
            data[self.at] = int(major) << 4 | int(minor)


_SENSOR: Final = Number("temp_c", _STATUS_BYTES, ">H", per=10, zero=2731, absent=(0, 0xFFFF), lo=-100, hi=300)


def _status(per: int) -> Table:
    """The status of a pack that counts so many steps in 1 A and in 1 Ah."""
    return (
        Number("pack_v", 0, ">H", per=100),
        Number("current_a", 2, ">h", per=per),
        Number("extra.remaining_ah", 4, ">H", per=per),
        Number("extra.nominal_ah", 6, ">H", per=per),
        Number("cycles", 8, ">H"),
        BitSet("balancing", 12, ">H", words=2),
        Flags(16, ">H", _ALARMS, "extra.alarm_raw"),
        _Version(18),
        Number("soc_bms", 19, ">B", per=100, hi=2),
        Flags(20, ">B", {0: "charge_mos", 1: "discharge_mos"}),
        Count("cell_v", 21),
        Numbers(_SENSOR, count_at=22),
    )


_STATUS: Final = _status(100)
_STATUS_OF_LARGE: Final = _status(10)
"""A pack of more than 327 A or 655 Ah says so in the byte behind its sensors."""
_IS_LARGE: Final = 0x80
_CELLS: Final[Table] = (Numbers(Number("cell_v", 0, ">H", per=1000, hi=_MOST_CELL_V)),)
_HARDWARE: Final[Table] = (Text("extra.hw_version", 0),)
_COUNTS: Final = (
    "short_circuit",
    "charge_over_current",
    "discharge_over_current",
    "cell_over_voltage",
    "cell_under_voltage",
    "charge_over_temp",
    "charge_under_temp",
    "discharge_over_temp",
    "discharge_under_temp",
    "pack_over_voltage",
    "pack_under_voltage",
)
_ERRORS: Final[Table] = tuple(Number(f"extra.count_{name}", 2 * i, ">H") for i, name in enumerate(_COUNTS))
_ERRORS_BYTES: Final = 24  # the last two mean nothing that is known
_TABLES: Final = {
    0x03: ("status", _STATUS),
    0x04: ("cells", _CELLS),
    0x05: ("hardware", _HARDWARE),
    0xAA: ("errors", _ERRORS),
}
_LEAST: Final = {0x03: _STATUS_BYTES, 0x04: 2, 0x05: 1, 0xAA: 2}
"""By command: bytes of payload that say anything."""


class _Framing:
    """Frames begin with DD and end with 77 where their length says; beside them, logins and frames of UP16S."""

    def __init__(self) -> None:
        self._up16s = jbd_up16s.Lengths()

    def start(self, data: bytes, at: int) -> int:
        match = _BEGIN.search(data, at)
        found = match.start() if match else len(data)
        for begin in range(max(at, len(data) - 2), found):
            if _BEGIN_CUT.fullmatch(data, begin):
                return begin
        return found

    def length(self, data: bytes, at: int) -> int | None:
        if not _BEGIN.match(data, at):
            return None
        if data[at] < _START:
            return self._up16s.length(data, at)
        if at + 3 >= len(data):
            return None
        size = data[at + 3]
        if data[at] == _START:
            return _BESIDE_BYTES + size
        return _LOGIN_BESIDE_BYTES + size if size <= _MOST_LOGIN_BYTES else 0

    def fault(self, frame: bytes) -> tuple[str, str] | None:
        if frame[0] < _START:
            return self._up16s.fault(frame)
        if frame[0] > _START:
            sent, found = frame[-1], sum8(frame[2:-1])
        elif frame[-1] != _END:
            return "length", f"the byte at the end is {frame[-1]:02X} instead of {_END:02X}"
        else:
            sent, found = int.from_bytes(frame[-3:-1], "big"), negated_sum16(frame[2:-3])
        return None if sent == found else ("checksum", f"{sent:04X} came, {found:04X} it is")


class JbdDecoder:
    """Reads replies; requests are only known again."""

    def __init__(self) -> None:
        self._stream = Stream(_Framing(), filler=b"\0", is_loose=True)
        self._asked = Asked()
        self._twice: defaultdict[int, Twice] = defaultdict(Twice)  # of each address

    @property
    def pending(self) -> bytes:
        """See ByteDecoder."""
        return self._stream.pending

    def sent(self, request: bytes) -> None:
        """See ByteDecoder."""
        self._asked.sent(request)

    def feed(self, data: bytes) -> list[Said]:
        """See ByteDecoder."""
        return self._all_said(self._stream.feed(data))

    def end(self) -> list[Said]:
        """See ByteDecoder."""
        said = self._all_said(self._stream.end())
        self._asked.forget()
        return said

    def _all_said(self, found: list[Found | LineError]) -> list[Said]:
        return [said for it in found if (said := self._said(it)) is not None]

    def _said(self, found: Found | LineError) -> Said | None:
        if isinstance(found, LineError):
            return found
        frame, at = found.frame, found.offset
        if frame[0] < _START:
            return jbd_up16s.said(frame, at, self._asked, self._twice[frame[0]])
        if frame[0] > _START:
            return _login(frame, at)
        command, status, payload = frame[1], frame[2], frame[4:-3]
        if command in (_READ, _WRITE):
            return LineError("echo", at, f"a request: {frame.hex()}")
        if self._asked.any and self._asked.answered(lambda request: request[2:3] == bytes([command])) is None:
            return LineError("address", at, f"nobody asked for {command:02X}")
        if status == _REFUSED:
            return LineError("response", at, f"the BMS refuses command {command:02X}")
        if command not in _TABLES:
            return LineError("function", at, f"command {command:02X} is not known")
        kind, table = _TABLES[command]
        if len(payload) < _LEAST[command] or (table is _CELLS and len(payload) % 2):
            return LineError("length", at, f"{kind} in {len(payload)} bytes")
        if table in (_CELLS, _HARDWARE) and any(payload) and _is_text(payload) is not (table is _HARDWARE):
            return LineError("function", at, f"what came as {kind} is something else")
        if table is _STATUS and _is_large(payload):
            table = _STATUS_OF_LARGE
        told = read(table, payload)
        return Part(kind=kind, values=told.values, quality=told.quality)


def _is_text(payload: bytes) -> bool:
    """Whether letters stand where cells have their upper bytes, which are none.

    The sum does not cover the command: one wrong bit in it, and text comes as cells, or cells come as text.
    """
    uppers = payload.rstrip(b"\0\xff")[::2]
    return 2 * sum(0x20 <= byte < 0x7F for byte in uppers) > len(uppers)


def _is_large(status: bytes) -> bool:
    """Whether the byte behind the sensors, if there is one, says that 1 A and 1 Ah are 10 steps instead of 100."""
    at = _STATUS_BYTES + 2 * status[_STATUS_BYTES - 1]
    return at < len(status) and bool(status[at] & _IS_LARGE)


def _login(frame: bytes, at: int) -> LineError | None:
    """What is wrong with a frame of a login; it says nothing of the pack."""
    command, size = frame[2], frame[3]
    if command not in _LOGINS:
        return LineError("function", at, f"a login by {command:02X} is not known")
    if size > 1:
        return LineError("echo", at, f"a login: {command:02X}")  # without the password that is in it
    if command != _ASKS_RANDOM and frame[4:-1] not in (b"", b"\0"):
        return LineError("response", at, f"the BMS refuses the login by {command:02X}")
    return None


def request(command: int) -> bytes:
    """The read request of a command."""
    body = bytes([command, 0])
    return bytes([_START, _READ]) + body + negated_sum16(body).to_bytes(2, "big") + bytes([_END])


def reply(command: int, values: Values) -> bytes:
    """What a pack with these values replies to a command that is known."""
    cells, sensors = size_of("cell_v", values), size_of("temp_c", values)
    version = str(values.get("extra.hw_version") or "")
    size = {0x03: _STATUS_BYTES + 2 * sensors, 0x04: 2 * cells, 0x05: len(version), 0xAA: _ERRORS_BYTES}[command]
    body = bytes([0, size]) + written(_TABLES[command][1], values, size)
    return bytes([_START, command]) + body + negated_sum16(body).to_bytes(2, "big") + bytes([_END])


def _answer(asked: bytes, values: Values, address: int | None) -> Sequence[bytes]:
    command = asked[2] if len(asked) == _BESIDE_BYTES and asked == request(asked[2]) else None
    if command is None:
        return jbd_up16s.answer(asked, values, address)
    frame = reply(command, values) if command in _TABLES else b""
    return [frame] if command in _TABLES and len(frame) >= _BESIDE_BYTES + _LEAST[command] else []


def _polls(address: int | None, vehicle: str | None) -> Sequence[Poll]:
    if address is not None:
        return jbd_up16s.polls(address)
    return (
        Poll(kind="status", request=request(0x03)),
        Poll(kind="cells", request=request(0x04)),
        Poll(kind="errors", request=request(0xAA), every=60),
        Poll(kind="hardware", request=request(0x05), every=600),
    )


JBD: Final = Protocol(
    name="jbd",
    title="JBD, Xiaoxiang, Overkill Solar, LLT; with an address: UP16S (temperatures unverified on hardware)",
    medium="serial",
    rate=9600,
    verified=True,
    fields=tuple(dict.fromkeys((*names_of(*(table for _, table in _TABLES.values())), *jbd_up16s.FIELDS))),
    extras={**jbd_up16s.EXTRAS, **{f"count_{name}": ("", 1.0) for name in _COUNTS}},
    bytes_decoder=JbdDecoder,
    polls=_polls,
    answer=_answer,
)
