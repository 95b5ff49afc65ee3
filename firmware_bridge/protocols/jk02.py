"""JK BMS "JK02": 300-byte frames over Bluetooth, and over RS485 (JK-PB) behind a request that is worded as a write.

Over Bluetooth a frame stands alone. Over RS485 nothing in it says whose it is: the acknowledgement behind it does, and
it must be one that was asked. Who cannot be told apart is not guessed at. Between frames there may be `AT` lines and
acknowledgements of Bluetooth, zeros, and our own request as an echo. Sources: see jk02_tables.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from firmware_bridge.checksums import crc16_modbus, sum8
from firmware_bridge.protocol import Asked, LineError, Part, Poll, Protocol, Said, Values
from firmware_bridge.protocols.jk02_tables import (
    ABOUT,
    EXTRAS,
    FRAME_BYTES,
    HEAD,
    KINDS,
    NEWER_SENSORS,
    SETTINGS,
    STATUS,
    TABLES,
    frame_of,
    table_of,
)
from firmware_bridge.rows import names_of, read
from firmware_bridge.stream import Found, Stream

_AT: Final = b"AT\r\n"
_BLE: Final = b"\xaa\x55\x90\xeb"
_BLE_BYTES: Final = 20
_BLE_ACK: Final = 0xC8
_PUSHED: Final[Mapping[int, tuple[int, ...]]] = {0x96: (SETTINGS, STATUS), 0x97: (ABOUT,)}
"""What a Bluetooth command makes the BMS send, from then on for as long as it is connected."""
_REGISTERS: Final = {STATUS: 0x1620, SETTINGS: 0x161E, ABOUT: 0x161C}
_ASKED_FOR: Final = {register: kind for kind, register in _REGISTERS.items()}
_REQUEST_BYTES: Final = 11
_ACK_BYTES: Final = 8
_BUS_HEAD: Final = rb"[\s\S]\x10\x16[\x1c\x1e\x20]\x00\x01"
_BUS_HEAD_BYTES: Final = 6
_BEGIN: Final = re.compile(b"|".join((re.escape(HEAD), re.escape(_BLE), re.escape(_AT), _BUS_HEAD)))
_BUS_HEAD_CUT: Final = re.compile(rb"[\s\S](?:\x10(?:\x16(?:[\x1c\x1e\x20]\x00?)?)?)?")
_MOST_FILLER: Final = 4  # zeros between a frame and its acknowledgement
_USUAL_ADDRESS: Final = 1
_HAS_MORE_SENSORS: Final = 14  # firmware from here on


class _Framing:
    """Frames, and all that is known to stand between them."""

    def start(self, data: bytes, at: int) -> int:
        match = _BEGIN.search(data, at)
        found = match.start() if match else len(data)
        for begin in range(max(at, len(data) - _BUS_HEAD_BYTES + 1), found):
            tail = data[begin:]
            if any(head.startswith(tail) for head in (HEAD, _BLE, _AT)) or _BUS_HEAD_CUT.fullmatch(tail):
                return begin
        return found

    def length(self, data: bytes, at: int) -> int | None:
        head = data[at : at + _REQUEST_BYTES]
        if not _BEGIN.match(head):
            return None
        if head.startswith((HEAD, _BLE)):
            size = FRAME_BYTES if head.startswith(HEAD) else _BLE_BYTES
            # A frame within it means that it was cut off, whatever the sum of both may be.
            next_one = data.find(HEAD, at + 1, at + size)
            return size if next_one < 0 else next_one - at
        if head.startswith(_AT):
            return len(_AT)
        if len(head) < _ACK_BYTES:
            return None
        if crc16_modbus(head[:_ACK_BYTES]) == 0:
            return _ACK_BYTES
        size = _REQUEST_BYTES if head[6] == 2 else _ACK_BYTES
        # A frame that begins within it: an echo that was cut off.
        is_cut = len(head) >= size and any(HEAD.startswith(head[cut:size]) for cut in range(_BUS_HEAD_BYTES, size))
        return 0 if is_cut and crc16_modbus(head[:size]) else size

    def fault(self, frame: bytes) -> tuple[str, str] | None:
        if frame == _AT:
            return None
        size = FRAME_BYTES if frame.startswith(HEAD) else _BLE_BYTES if frame.startswith(_BLE) else len(frame)
        if len(frame) < size:
            return "length", f"cut off after {len(frame)} of {size} bytes"
        if frame.startswith((HEAD, _BLE)):
            sent, found = frame[-1], sum8(frame[:-1])
        else:
            sent, found = int.from_bytes(frame[-2:], "little"), crc16_modbus(frame[:-2])
        return None if sent == found else ("checksum", f"{sent:02X} came, {found:02X} it is")


@dataclass(frozen=True, slots=True)
class _Held:
    """A frame that waits for its acknowledgement. asked: the addresses that were asked for it, None = nobody was.

    rivals: the addresses that were asked for frames before it that wait for theirs, too, so that the next may be one of
    theirs; None = there is such a frame and nobody was asked.
    """

    offset: int
    frame: bytes
    asked: frozenset[int] | None
    rivals: frozenset[int] | None

    @property
    def kind(self) -> int:
        return self.frame[4]


class Jk02Decoder:
    """Reads frames. A frame is told of when its acknowledgement came, or when it is certain that none comes."""

    def __init__(self) -> None:
        self._stream = Stream(_Framing(), filler=b"\0", is_nothing=self._is_echo)
        self._asked = Asked()  # over RS485
        self._pushed: set[int] | None = None  # what was asked for over Bluetooth; None = nothing was
        self._addresses: set[int] = set()  # all that were asked or heard, ever
        self._is_bus = False  # somebody speaks as over RS485
        self._held: _Held | None = None
        self._echo: Found | None = None
        self._have_more_sensors: set[int | None] = set()  # the addresses of such packs

    @property
    def pending(self) -> bytes:
        """See ByteDecoder."""
        waits = (self._echo.frame if self._echo else b"") + (self._held.frame if self._held else b"")
        return waits + self._stream.pending

    def sent(self, request: bytes) -> None:
        """See ByteDecoder."""
        if request.startswith(_BLE):
            self._pushed = (self._pushed or set()) | set(_PUSHED.get(request[4] if len(request) > 4 else 0, ()))
            return
        self._asked.sent(request)
        if (asked := _request(request)) is not None:
            self._addresses.add(asked[0])

    def feed(self, data: bytes) -> list[Said]:
        """See ByteDecoder."""
        return [said for found in self._stream.feed(data) for said in self._taken(found)]

    def end(self) -> list[Said]:
        """See ByteDecoder."""
        said = [said for found in self._stream.end() for said in self._taken(found)]
        said += [*self._released(), *self._echoed()]
        self._asked.forget()
        return said

    def _taken(self, found: Found | LineError) -> list[Said]:
        if isinstance(found, LineError):
            said = self._released()
            # An acknowledgement that came damaged: then the frame is what was lost.
            is_told = any(isinstance(it, LineError) and _is_behind(found.offset, it.offset) for it in said)
            return said if is_told else [*said, found]
        frame = found.frame
        if len(frame) == FRAME_BYTES:
            return self._frame(found)
        if len(frame) == _ACK_BYTES:
            return self._acknowledged(found)
        if len(frame) == _REQUEST_BYTES or (frame != _AT and frame[4] != _BLE_ACK):
            said = [*self._released(), *self._echoed()]
            self._echo = found
            if (request := _request(frame)) is not None:
                self._is_bus = True
                self._addresses.add(request[0])
            return said
        return self._released()

    def _frame(self, found: Found) -> list[Said]:
        before = self._held
        said = self._released()
        kind, asked = found.frame[4], None
        if self._asked.any:
            requests = [_request(request) for request in self._asked]
            asked = frozenset(request[0] for request in requests if request is not None and request[1] == kind)
        rivals: frozenset[int] | None = frozenset()
        if before is not None:
            rivals = None if before.asked is None or before.rivals is None else before.asked | before.rivals
        self._echo = None
        self._held = _Held(found.offset, found.frame, asked, rivals)
        is_alone = self._pushed is not None and not self._asked.any and not self._is_bus
        return said + (self._released() if is_alone else [])

    def _acknowledged(self, found: Found) -> list[Said]:
        """What is behind a frame: whose it is. Alone it says nothing: its frame was bad, and was complained of."""
        address, kind = found.frame[0], _ASKED_FOR[int.from_bytes(found.frame[2:4], "big")]
        is_alone = self._addresses == {address}
        self._is_bus = True
        self._addresses.add(address)
        held = self._held
        if held is None or held.kind != kind or not _is_behind(found.offset, held.offset):
            return self._released()
        self._held = None
        if held.asked is not None and address not in held.asked:
            return [LineError("address", held.offset, f"nobody asked {address} for its {KINDS[kind]}")]
        if not is_alone and (held.rivals is None or address in held.rivals):
            return [LineError("address", held.offset, f"two frames came before the acknowledgement of {address}")]
        return [self._answered(held, address)]

    def _released(self) -> list[Said]:
        """The frame that was held, of which no acknowledgement says whose it is."""
        held, self._held = self._held, None
        if held is None:
            return []
        if self._pushed is not None and held.kind in self._pushed:
            return [self._told(held, None)]
        if held.asked is not None or self._is_bus:
            # One pack alone was ever asked or heard: then it can only be that one's.
            if held.asked is not None and len(self._addresses) == 1 and self._addresses <= held.asked:
                return [self._answered(held, *self._addresses)]
            why = "nobody asked for it" if held.asked == frozenset() else "nothing says whose it is"
            return [LineError("address", held.offset, f"a frame of kind {held.kind:02X}: {why}")]
        if self._pushed is not None:
            return [LineError("address", held.offset, f"a frame of kind {held.kind:02X}: nobody asked for it")]
        return [self._told(held, None)]

    def _answered(self, held: _Held, address: int) -> Said:
        self._asked.answered(lambda request: _request(request) == (address, held.kind))
        return self._told(held, address)

    def _told(self, held: _Held, address: int | None) -> Said:
        frame, kind = held.frame, held.kind
        if kind not in KINDS:
            return LineError("function", held.offset, f"a frame of kind {kind:02X} is not known")
        table = table_of(frame)
        if table is None:
            return LineError("function", held.offset, f"{KINDS[kind]} in the layout of another family (JK04)")
        told = read(table, frame)
        if kind == ABOUT:
            major = str(told.values["extra.sw_version"] or "").partition(".")[0]
            if major.isdigit() and int(major) >= _HAS_MORE_SENSORS:
                self._have_more_sensors.add(address)
        elif kind == STATUS:
            if any(frame[NEWER_SENSORS["temp_c[2]"]]):
                self._have_more_sensors.add(address)
            for name, where in NEWER_SENSORS.items():
                if address not in self._have_more_sensors and not any(frame[where]):
                    told.values.pop(name, None)
                    told.quality.pop(name, None)
        return Part(kind=KINDS[kind], address=address, values=told.values, quality=told.quality)

    def _is_echo(self, junk: bytes) -> bool:
        """Whether bytes are the beginning of a request that came back."""
        return any(request.startswith(junk) for request in self._asked)

    def _echoed(self) -> list[Said]:
        """The request that came back and nothing behind it."""
        echo, self._echo = self._echo, None
        return [] if echo is None else [LineError("echo", echo.offset, f"a request: {echo.frame.hex()}")]


def _is_behind(at: int, frame_at: int) -> bool:
    """Whether an acknowledgement that begins at an offset is that of a frame."""
    return at - frame_at - FRAME_BYTES <= _MOST_FILLER


def _request(frame: bytes) -> tuple[int, int] | None:
    """(address, kind of frame) that a request over RS485 asks for; None = it is none."""
    if len(frame) != _REQUEST_BYTES or frame[1] != 0x10 or frame[4:9] != b"\0\1\2\0\0" or crc16_modbus(frame):
        return None
    kind = _ASKED_FOR.get(int.from_bytes(frame[2:4], "big"))
    return None if kind is None else (frame[0], kind)


def _bus(address: int, kind: int, rest: bytes) -> bytes:
    body = bytes([address, 0x10]) + _REGISTERS[kind].to_bytes(2, "big") + b"\0\1" + rest
    return body + crc16_modbus(body).to_bytes(2, "little")


def request(address: int, kind: int) -> bytes:
    """The request over RS485 for a kind of frame. It has the form of a write, of a zero, and writes nothing."""
    return _bus(address, kind, b"\2\0\0")


def reply(address: int, kind: int, values: Values) -> bytes:
    """What a pack with these values replies over RS485: the frame, and whose it is."""
    return frame_of(kind, values) + b"\0" + _bus(address, kind, b"") + b"\0"


def _answer(asked: bytes, values: Values, address: int | None) -> Sequence[bytes]:
    if len(asked) == _BLE_BYTES and asked.startswith(_BLE) and sum8(asked[:-1]) == asked[-1]:
        return [frame_of(kind, values) for kind in _PUSHED.get(asked[4], ())]
    wanted = _request(asked)
    if wanted is None or address not in (None, wanted[0]):
        return []
    return [reply(*wanted, values)]


def _polls(address: int | None, vehicle: str | None) -> Sequence[Poll]:
    to = _USUAL_ADDRESS if address is None else address
    return (
        Poll(kind="status", request=request(to, STATUS)),
        Poll(kind="settings", request=request(to, SETTINGS), every=60),
        Poll(kind="about", request=request(to, ABOUT), every=600),
    )


JK02: Final = Protocol(
    name="jk02",
    title="JK BMS, JK-PB (Bluetooth frames, RS485)",
    medium="serial",
    rate=115200,
    verified=True,
    fields=names_of(*TABLES),
    extras=EXTRAS,
    bytes_decoder=Jk02Decoder,
    polls=_polls,
    answer=_answer,
    counter="runtime_s",
)
