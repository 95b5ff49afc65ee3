"""The two framings of Seplos V2, told apart by the byte behind `7E`, and what their frames say beside their data.

Letters, on RS485: `~` version address CID1 CID2|RTN length info checksum CR, all but the ends in hex letters; the
length has a check of its own. Bytes, over Bluetooth: `7E version address function RTN length data CRC-16/XMODEM 0D`,
a request `7E 10 address 46 command length data CRC 0D`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from firmware_bridge.checksums import crc16_xmodem, negated_sum16

CID1: Final = 0x46
"""What a lithium battery's messages belong to."""
HOST: Final = 0x10
"""The version of requests in bytes; replies have another."""
MOST: Final = 512
"""Bytes, or letters, that data are believed to have."""
_PACK: Final = 0x14
_LETTERS_VERSION: Final = 0x20
_START: Final = 0x7E
_END: Final = 0x0D
_HEX: Final = b"0123456789ABCDEFabcdef"
_BYTES_BESIDE: Final = 10
_LETTERS_BESIDE: Final = 18
_LETTERS_HEAD: Final = 13
_COMMANDS: Final = range(0x40, 0x70)


class Framing:
    """See stream.Framing."""

    def start(self, data: bytes, at: int) -> int:
        """See stream.Framing."""
        found = data.find(_START, at)
        return len(data) if found < 0 else found

    def length(self, data: bytes, at: int) -> int | None:
        """See stream.Framing."""
        if at + 1 >= len(data):
            return None
        if data[at + 1] in _HEX:
            return _letters_length(data[at : at + _LETTERS_BESIDE + MOST])
        if data[at + 1] >= _HEX[0]:
            return 0
        if at + 7 > len(data):
            return None
        size = int.from_bytes(data[at + 5 : at + 7], "big")
        return _BYTES_BESIDE + size if size <= MOST else 0

    def fault(self, frame: bytes) -> tuple[str, str] | None:
        """See stream.Framing."""
        if frame[1] in _HEX:
            return _letters_fault(frame)
        if frame[-1] != _END:
            return "length", f"the byte at the end is {frame[-1]:02X} instead of {_END:02X}"
        return _differ(int.from_bytes(frame[-3:-1], "big"), crc16_xmodem(frame[1:-3]))


def _letters_length(data: bytes) -> int | None:
    """The end is where the length says, or before it where a frame ends or another one begins.

    A beginning within a frame that ends where it says is a letter that was hit.
    """
    if any(letter not in _HEX for letter in data[1:_LETTERS_HEAD]):
        return 0
    if len(data) < _LETTERS_HEAD:
        return None
    told = _info_letters(data)
    if told is not None and told > MOST:
        return 0
    whole = _LETTERS_BESIDE + (MOST if told is None else told)
    next_one, end = data.find(_START, 1, whole), data.find(_END, 0, whole) + 1
    if told is not None and (end == whole or (not end and len(data) < whole)):
        return whole
    ends = [at for at in (next_one, end) if at > 0]
    if ends:
        return min(ends)
    return whole if told is not None else None if len(data) < whole else 0


def _info_letters(frame: bytes) -> int | None:
    """How many letters of info a frame's head tells; None = its length contradicts its check."""
    told = int(frame[9:_LETTERS_HEAD], 16)
    return told & 0xFFF if _length_word(told & 0xFFF) == told else None


def _length_word(size: int) -> int:
    """A number of letters with the check of its three digits in front."""
    return (-(size + (size >> 4) + (size >> 8)) & 0xF) << 12 | size


def _letters_fault(frame: bytes) -> tuple[str, str] | None:
    told = _info_letters(frame)
    if told is None:
        return "length", f"the length {frame[9:_LETTERS_HEAD].decode()} contradicts its check"
    if len(frame) != _LETTERS_BESIDE + told or frame[-1] != _END or told % 2:
        return "length", f"{len(frame)} letters came of a frame that says it has {_LETTERS_BESIDE + told}"
    if any(letter not in _HEX for letter in frame[1:-1]):
        return "checksum", "there are letters that are no hex"
    return _differ(int(frame[-5:-1], 16), negated_sum16(frame[1:-5]))


def _differ(sent: int, found: int) -> tuple[str, str] | None:
    return None if sent == found else ("checksum", f"{sent:04X} came, {found:04X} it is")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a good frame says. command: that it asks for or answers; None = a reply in letters, which does not tell.

    code: of a reply, 0 = all is well.
    """

    is_letters: bool
    version: int
    address: int
    family: int
    is_request: bool
    command: int | None
    code: int
    data: bytes


def message(frame: bytes) -> Message:
    """What a frame without a fault says."""
    is_letters = frame[1] in _HEX
    version, address, third, fourth = bytes.fromhex(frame[1:9].decode()) if is_letters else frame[1:5]
    is_request = fourth in _COMMANDS if is_letters else third == CID1
    return Message(
        is_letters=is_letters,
        version=version,
        address=address,
        family=third if is_letters else CID1,
        is_request=is_request,
        command=fourth if is_request else None if is_letters else third,
        code=0 if is_request else fourth,
        data=bytes.fromhex(frame[_LETTERS_HEAD:-5].decode()) if is_letters else frame[7:-3],
    )


def request_of(frame: bytes) -> Message | None:
    """The request that these bytes are; None = they are no whole, good request."""
    framing = Framing()
    if len(frame) < _BYTES_BESIDE or frame[0] != _START or framing.length(frame, 0) != len(frame):
        return None
    said = None if framing.fault(frame) else message(frame)
    return said if said is not None and said.is_request and said.family == CID1 else None


def request_frame(command: int, address: int, data: bytes, *, is_letters: bool) -> bytes:
    """A request. Only commands that read have one here."""
    if is_letters:
        return _letters(bytes([_LETTERS_VERSION, address, CID1, command]), data)
    return _bytes(bytes([HOST, address, CID1, command]), data)


def reply_frame(command: int, address: int, data: bytes, *, is_letters: bool) -> bytes:
    """A reply that all is well."""
    if is_letters:
        return _letters(bytes([_LETTERS_VERSION, address, CID1, 0]), data)
    return _bytes(bytes([_PACK, address, command, 0]), data)


def _letters(head: bytes, data: bytes) -> bytes:
    body = f"{head.hex()}{_length_word(2 * len(data)):04X}{data.hex()}".upper().encode()
    return b"~%s%04X\r" % (body, negated_sum16(body))


def _bytes(head: bytes, data: bytes) -> bytes:
    body = head + len(data).to_bytes(2, "big") + data
    return bytes([_START]) + body + crc16_xmodem(body).to_bytes(2, "big") + bytes([_END])
