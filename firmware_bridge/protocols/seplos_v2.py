"""Seplos V2: one set of messages in two framings (`seplos_v2_frames.py`).

In bytes over Bluetooth, where a pack's address is its own affair: a request to address 0 is answered by whichever pack
is at the other end. In letters on RS485 (unverified on hardware), where a reply does not name its command: its length
and what was asked tell which one it is. Layout: https://github.com/syssi/esphome-seplos-bms, checked on captures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from firmware_bridge.protocol import Asked, LineError, Part, Poll, Protocol, Said, Values
from firmware_bridge.protocols import seplos_v2_frames as frames
from firmware_bridge.protocols.seplos_v2_frames import Message
from firmware_bridge.protocols.seplos_v2_tables import (
    BYTES_INFO,
    CELLS,
    COUNT_AT,
    CUSTOM,
    CUSTOM_BYTES,
    EXTRAS,
    FIELDS,
    INFO_BYTES,
    LETTERS_INFO,
    MAIN,
    STATES,
    SYSTEM,
    SYSTEM_BYTES,
    TAIL,
    TAIL_BYTES,
    TEMPS,
    WORDS,
)
from firmware_bridge.rows import Read, Table, size_of, written
from firmware_bridge.stream import Found, Stream

_TELEMETRY, _ALARMS, _INFO, _SINGLE, _SYSTEM = 0x42, 0x44, 0x51, 0x61, 0x62  # the last two in bytes only
_KINDS: Final = {
    _TELEMETRY: "telemetry",
    _ALARMS: "alarms",
    _INFO: "info",
    _SINGLE: "pack",
    _SYSTEM: "system",
}


def _cuts(data: bytes) -> tuple[int, int, int] | None:
    """Where the sensors, the measurements and what follows them begin; None = it is too short for them."""
    temps = 3 + 2 * data[2] if len(data) > 2 else len(data)
    main = temps + 1 + 2 * data[temps] if temps < len(data) else len(data)
    count = main + COUNT_AT
    if count >= len(data):
        return None
    words = data[count]
    if words < WORDS <= (len(data) - count - 1) // 2:
        words = WORDS  # of a recording that says 0 and has them
    end = count + 1 + 2 * words
    return (temps, main, end) if end <= len(data) else None


def _events_at(data: bytes) -> int | None:
    """Where the events begin in a message of alarms in letters; None = it is none."""
    temps = 3 + data[2] if len(data) > 2 else len(data)
    count = temps + 1 + data[temps] + 2 if temps < len(data) else len(data)
    if count >= len(data) or len(data) != count + 1 + data[count]:
        return None
    states = {*data[3:temps], *data[temps + 1 : count]}
    return count + 1 if states <= STATES else None


def _commands(message: Message) -> list[int]:
    """The commands that a reply may answer, by what it says it is and by its length; the likeliest first."""
    cuts, size = _cuts(message.data), len(message.data)
    if not message.is_letters:
        fits = {
            _SINGLE: cuts is not None,
            _SYSTEM: size >= SYSTEM_BYTES,
            _INFO: size >= INFO_BYTES[False],
        }
        return [command for command, is_so in fits.items() if is_so and command == message.command]
    fits = {
        _ALARMS: _events_at(message.data) is not None,
        _TELEMETRY: cuts is not None and cuts[2] == size,
        _INFO: size == INFO_BYTES[True],
    }
    return [command for command, is_so in fits.items() if is_so]


def _tables(command: int, message: Message) -> list[tuple[Table, bytes]]:
    """What reads a reply that `_commands` lets pass, and where in it."""
    data = message.data
    if command == _SYSTEM:
        return [(SYSTEM, data)]
    if command == _INFO:
        return [(LETTERS_INFO if message.is_letters else BYTES_INFO, data)]
    if command == _ALARMS:
        return [(CUSTOM, data[_events_at(data) :])]
    temps, main, end = _cuts(data) or (0, 0, 0)
    found: list[tuple[Table, bytes]] = [(CELLS, data[2:temps]), (TEMPS, data[temps:main]), (MAIN, data[main:end])]
    if command == _SINGLE:
        found.append((TAIL, data[end + data[2] + data[temps] + 2 :]))
    return found


class SeplosV2Decoder:
    """Reads replies of both framings; requests are only known again."""

    def __init__(self) -> None:
        self._stream = Stream(frames.Framing(), is_loose=True)
        self._asked = Asked()
        self._is_pack_heard = False
        self._refused_to = -1  # where the last frame that said nothing ended

    @property
    def pending(self) -> bytes:
        """See ByteDecoder."""
        return self._stream.pending

    def sent(self, request: bytes) -> None:
        """See ByteDecoder."""
        self._asked.sent(request)

    def feed(self, data: bytes) -> list[Said]:
        """See ByteDecoder."""
        return self._told(self._stream.feed(data))

    def end(self) -> list[Said]:
        """See ByteDecoder."""
        said = self._told(self._stream.end())
        self._asked.forget()
        return said

    def _told(self, all_found: list[Found | LineError]) -> list[Said]:
        """What was found, as it is said. Junk behind a frame that is refused belongs to that frame."""
        out: list[Said] = []
        for found in all_found:
            if isinstance(found, Found):
                out.append(self._said(found))
                is_refused = isinstance(out[-1], LineError)
                self._refused_to = found.offset + len(found.frame) if is_refused else -1
            elif found.error != "noise" or found.offset != self._refused_to:
                out.append(found)
        return out

    def _said(self, found: Found) -> Said:
        message, at = frames.message(found.frame), found.offset
        if message.is_request:
            return LineError("echo", at, f"a request: {found.frame.hex()}")
        if message.family != frames.CID1 or message.command not in (None, _SINGLE, _SYSTEM, _INFO):
            return LineError("function", at, f"{message.family:02X} {message.command or 0:02X} is not known")
        if message.version == frames.HOST and not message.is_letters:
            return LineError("function", at, f"version {message.version:02X} is that of a request")
        commands = [] if message.code else _commands(message)
        answered = self._answered(message, commands)
        if self._asked.any and answered is None:
            return LineError("address", at, f"nobody asked {message.address:02X} for this")
        if message.code:
            return LineError("response", at, f"{message.address:02X} says no: {message.code:02X}")
        if not commands:
            return LineError("length", at, f"{len(message.data)} bytes are no message that is known")
        command = answered or commands[0]
        if command == _SYSTEM and not (answered or self._is_pack_heard):
            return LineError("address", at, "nobody asked for the system, and no pack of it has been heard")
        self._is_pack_heard = True
        told = Read()
        for table, part in _tables(command, message):
            for row in table:
                row.read(part, told)
        return Part(kind=_KINDS[command], address=message.address, values=told.values, quality=told.quality)

    def _answered(self, message: Message, commands: Sequence[int]) -> int | None:
        """The command of the request that a reply answers, one of `commands` if there are any."""

        def fits(frame: bytes) -> bool:
            request = frames.request_of(frame)
            return (
                request is not None
                and request.is_letters == message.is_letters
                and (request.address == message.address or not (request.address or message.is_letters))
                and message.command in (None, request.command)
                and (not commands or request.command in commands)
            )

        asked = self._asked.answered(fits)
        request = None if asked is None else frames.request_of(asked)
        return None if request is None else request.command


def request(command: int, address: int = 0, *, is_letters: bool) -> bytes:
    """The read request of a command that is known, in letters or in bytes."""
    group = bytes([address]) if is_letters and command != _INFO else b""
    data = bytes(1) if command == _SINGLE else group
    return frames.request_frame(command, address, data, is_letters=is_letters)


def reply(command: int, address: int, values: Values, *, is_letters: bool) -> bytes:
    """What a pack with these values replies to a command that is known."""
    return frames.reply_frame(command, address, _payload(command, address, values, is_letters), is_letters=is_letters)


def _payload(command: int, address: int, values: Values, is_letters: bool) -> bytes:
    cells, temps = size_of("cell_v", values), size_of("temp_c", values) + 2
    if command == _SYSTEM:
        return bytes([0, 0, cells]) + written(SYSTEM, values, SYSTEM_BYTES)[3:]
    if command == _INFO:
        return written(LETTERS_INFO if is_letters else BYTES_INFO, values, INFO_BYTES[is_letters])
    head = bytes([0, address])
    if command == _ALARMS:
        beside = bytes([cells, *bytes(cells), temps, *bytes(temps + 2), CUSTOM_BYTES])
        return head + beside + written(CUSTOM, values, CUSTOM_BYTES)
    main = bytearray(written(MAIN, values, COUNT_AT + 1 + 2 * WORDS))
    main[COUNT_AT] = WORDS
    telemetry = head + written(CELLS, values, 1 + 2 * cells) + written(TEMPS, values, 1 + 2 * temps) + main
    if command == _TELEMETRY:
        return telemetry
    tail = bytearray(written(TAIL, values, TAIL_BYTES))
    tail[2] = 8  # bytes of events
    return telemetry + bytes(cells + temps + 2) + tail


def _answer(asked: bytes, values: Values, address: int | None) -> Sequence[bytes]:
    request = frames.request_of(asked)
    if request is None or request.command is None:
        return []
    known = (_TELEMETRY, _ALARMS, _INFO) if request.is_letters else (_SINGLE, _SYSTEM, _INFO)
    is_any = not (request.address or request.is_letters)
    if request.command not in known or not (is_any or address in (None, request.address)):
        return []
    return [reply(request.command, address or request.address, values, is_letters=request.is_letters)]


SEPLOS_V2: Final = Protocol(
    name="seplos_v2",
    title="Seplos V2: bytes over Bluetooth; letters on RS485 (unverified on hardware)",
    medium="serial",
    rate=19200,
    verified=True,
    fields=FIELDS,
    bytes_decoder=SeplosV2Decoder,
    polls=lambda address, vehicle: tuple(
        Poll(kind=_KINDS[command], request=request(command, address or 0, is_letters=True), every=every)
        for command, every in ((_TELEMETRY, 1), (_ALARMS, 1), (_INFO, 600))
    ),
    answer=_answer,
    extras=EXTRAS,
)
