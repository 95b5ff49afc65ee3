"""Vector's BLF, as far as CAN and CAN FD frames go: containers of objects, unpacked one container at a time.

The layout is known from the open readers (Vector BLF by Toby Lorenz, python-can). python-can's own makes an object of
each frame; here the frames of a container are gathered in numpy. Times: UTC of the header + ns of the object.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import IO, Final

import numpy as np
import numpy.typing as npt

from edge.logs.digits import seconds_column
from edge.logs.frames import LATEST_NS, Block, Notes
from firmware_bridge.frames import CLASSIC_BYTES, EXTENDED, FD_LENGTHS, LARGEST_11_BIT, REMOTE, FrameBatch
from shared.errors import ConfigError

NAME: Final = "Vector BLF"
MAGIC: Final = b"LOGG"
_HEADER: Final = struct.Struct("<4sL32x8H")
_OBJECT: Final = struct.Struct("<4sHHLL")  # LOBJ, bytes of its header, version, bytes in all, type
_CONTAINER: Final = struct.Struct("<H6xL4x")
_OBJECT_NAME: Final = b"LOBJ"
_LEAST_HEADER: Final = 32
_LOG_CONTAINER: Final = 10
_ERRORS: Final = {2, 73, 104}
_STORED, _DEFLATED = 0, 2
_TEN_US: Final = 1
_PAD: Final = bytes(256)
_ID_29_BITS: Final = 0x8000_0000
_FIRST: Final = {"size": ("<u4", 8), "flags": ("<u4", 16), "t": ("<u8", 24)}
_DLC_BYTES: Final = np.array([*FD_LENGTHS, *[64] * 240], np.uint8)


def _record(body: dict[str, tuple[str, int]], header: int, data_at: int, width: int) -> np.dtype[np.void]:
    """An object's fields that matter, from its very beginning."""
    fields = {**_FIRST, **{name: (kind, header + at) for name, (kind, at) in body.items()}}
    kinds = [kind for kind, _ in fields.values()]
    return np.dtype(
        {
            "names": [*fields, "data"],
            "formats": [*kinds, (np.uint8, (width,))],
            "offsets": [*(at for _, at in fields.values()), header + data_at],
            "itemsize": header + data_at + width,
        }
    )


_CLASSIC: Final = ({"channel": ("<u2", 0), "how": ("u1", 2), "dlc": ("u1", 3), "id": ("<u4", 4)}, 8, 8)
_FD: Final = (
    {"channel": ("<u2", 0), "how": ("u1", 2), "dlc": ("u1", 3), "id": ("<u4", 4), "valid": ("u1", 14)},
    20,
    64,
)
_FD_64: Final = (
    {
        "channel": ("u1", 0),
        "dlc": ("u1", 1),
        "valid": ("u1", 2),
        "id": ("<u4", 4),
        "how": ("<u4", 12),
        "end": ("u1", 35),
    },
    40,
    64,
)
_FRAMES: Final = {1: (_CLASSIC, 0x80), 86: (_CLASSIC, 0x80), 100: (_FD, 0x80), 101: (_FD_64, 0x10)}
"""Type of object -> where its fields are, and the bit that says that it is a remote frame."""


def is_one(head: bytes) -> bool:
    """Whether a file that begins like this is one."""
    return head.startswith(MAGIC)


def blocks(file: IO[bytes], notes: Notes) -> Iterator[Block]:
    """The frames of a file, a container at a time."""
    notes.unit = "object"
    head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise ConfigError("it ends within its header")
    _, header_bytes, *start = _HEADER.unpack(head)
    more = max(header_bytes - _HEADER.size, 0)
    if len(file.read(more)) < more:
        raise ConfigError("it ends within its header")
    stream = _Stream(notes, _utc_ns(start))
    while raw := file.read(_OBJECT.size):
        if len(raw) < _OBJECT.size:
            notes.spoiled("the file is cut off", stream.objects + 1)
            break
        name, _, _, size, kind = _OBJECT.unpack(raw)
        if name != _OBJECT_NAME or size < _OBJECT.size:
            notes.spoiled("the file is damaged from here on", stream.objects + 1)
            break
        body = file.read(size - _OBJECT.size)
        file.read(size % 4)
        stream.is_cut = len(body) < size - _OBJECT.size
        data = _unpacked(body, notes, stream.objects + 1) if kind == _LOG_CONTAINER else raw + body
        yield from stream.feed(data)
    stream.end()


def _unpacked(body: bytes, notes: Notes, at: int) -> bytes:
    """What is in a container; as much of it as can be had."""
    if len(body) < _CONTAINER.size:
        return b""
    method, _ = _CONTAINER.unpack_from(body)
    packed = body[_CONTAINER.size :]
    if method == _STORED:
        return packed
    if method != _DEFLATED:
        notes.spoiled(f"a container packed by an unknown method ({method})", at)
        return b""
    try:
        return zlib.decompressobj().decompress(packed)
    except zlib.error:
        notes.spoiled("a container that cannot be unpacked", at)
        return b""


class _Stream:
    """The objects within the containers; one may begin in a container and end in the next."""

    def __init__(self, notes: Notes, start_ns: int) -> None:
        self._notes, self._start_ns = notes, start_ns
        self._tail = b""
        self.objects = 0
        self.is_cut = False
        """Whether the file ends within the container that was fed last."""

    def feed(self, data: bytes) -> Iterator[Block]:
        """The frames that end in `data`."""
        data = self._tail + data
        found: dict[tuple[int, int], list[int]] = {}
        at, end = 0, len(data)
        while at + _OBJECT.size <= end:
            name, header, _, size, kind = _OBJECT.unpack_from(data, at)
            if name != _OBJECT_NAME or size < _OBJECT.size:
                following = data.find(_OBJECT_NAME, at + 1)
                if following - at > 8 or following < 0 or name == _OBJECT_NAME:  # else it is only padding
                    self._notes.spoiled("damaged objects", self.objects + 1)
                at = following if following >= 0 else end
                continue
            if at + size > end:
                break
            self.objects += 1
            if kind in _ERRORS:
                self._notes.error_frames += 1
            elif kind in _FRAMES:
                if header < _LEAST_HEADER or size < header + CLASSIC_BYTES:
                    self._notes.spoiled("damaged objects", self.objects)
                else:
                    found.setdefault((kind, header), []).append(at)
            at += size
        self._tail = data[at:]
        if found:
            yield self._block(data, found)

    def end(self) -> None:
        """No more containers come."""
        if self.is_cut or self._tail.strip(b"\0"):
            self._notes.spoiled("the file is cut off", self.objects + 1)

    def _block(self, data: bytes, found: dict[tuple[int, int], list[int]]) -> Block:
        text = np.frombuffer(data + _PAD, np.uint8)
        parts = [_gathered(text, np.array(at, np.intp), kind, header) for (kind, header), at in found.items()]
        order = np.argsort(np.concatenate([np.array(at, np.intp) for at in found.values()]), kind="stable")
        width = max(part[4].shape[1] for part in parts)
        payloads = [np.pad(part[4], ((0, 0), (0, width - part[4].shape[1]))) for part in parts]
        since_ns = np.concatenate([part[0] for part in parts])[order]
        t_ns = since_ns.astype(np.int64) + self._start_ns
        number = np.concatenate([part[1] for part in parts])[order]
        can_id = np.concatenate([part[2] for part in parts])[order]
        length = np.concatenate([part[3] for part in parts])[order]
        payload = np.concatenate(payloads)[order]
        payload[np.arange(width) >= length[:, None]] = 0
        has_bits = can_id & np.uint32(~(EXTENDED | REMOTE) & 0xFFFF_FFFF) > LARGEST_11_BIT
        has_bits &= can_id & np.uint32(EXTENDED) == 0
        is_late = since_ns >= LATEST_NS
        for is_bad, why in ((has_bits, "an id with too many bits"), (is_late & ~has_bits, "a time that is none")):
            if is_bad.any():
                self._notes.spoiled(why, self.objects, int(is_bad.sum()))
        if (has_bits | is_late).any():
            keep = ~(has_bits | is_late)
            t_ns, number, can_id = t_ns[keep], number[keep], can_id[keep]
            length, payload = length[keep], payload[keep]
        names, channel = np.unique(number, return_inverse=True)
        index = np.array([self._notes.channel(str(name)) for name in names.tolist()], np.intp)
        self._notes.frames += len(t_ns)
        return Block(FrameBatch("", t_ns, can_id, length, payload), index[channel], seconds_column(t_ns))


def _gathered(
    text: npt.NDArray[np.uint8], at: npt.NDArray[np.intp], kind: int, header: int
) -> tuple[
    npt.NDArray[np.uint64], npt.NDArray[np.intp], npt.NDArray[np.uint32], npt.NDArray[np.uint8], npt.NDArray[np.uint8]
]:
    """(t_ns since the start, channel, can_id, length, data) of the objects of one kind."""
    (body, data_at, width), remote_bit = _FRAMES[kind]
    record = _record(body, header, data_at, width)
    windows = np.lib.stride_tricks.sliding_window_view(text, record.itemsize)
    rows = np.ascontiguousarray(windows[np.minimum(at, len(windows) - 1)]).view(record)[:, 0]
    unit_ns = np.where(rows["flags"] == _TEN_US, np.uint64(10_000), np.uint64(1))
    t_ns = np.where(rows["t"] < LATEST_NS // unit_ns, rows["t"] * unit_ns, np.uint64(LATEST_NS))
    is_remote = rows["how"] & remote_bit != 0
    length = rows["valid"] if "valid" in body else np.minimum(rows["dlc"], CLASSIC_BYTES)
    length = np.minimum(length, width).astype(np.uint8)
    if is_remote.any():
        length[is_remote] = np.minimum(_DLC_BYTES[rows["dlc"][is_remote]], CLASSIC_BYTES)
    # What lies behind the object's own end is the next one's.
    end = rows["size"].astype(np.int64)
    if "end" in body:
        end = np.where(rows["end"], np.minimum(rows["end"], end), end)
    stored = np.clip(end - header - data_at, 0, width)
    length = np.where(is_remote, length, np.minimum(length, stored)).astype(np.uint8)
    data = rows["data"].copy()
    data[is_remote] = 0
    is_extended = rows["id"] & np.uint32(_ID_29_BITS) != 0
    can_id = rows["id"] & np.uint32(0x1FFF_FFFF) | np.where(is_extended, np.uint32(EXTENDED), np.uint32(0))
    can_id |= np.where(is_remote, np.uint32(REMOTE), np.uint32(0))
    return t_ns, rows["channel"].astype(np.intp), can_id, length, data


def _utc_ns(time: list[int]) -> int:
    """Windows' SYSTEMTIME -> UTC ns, 0 when it is none."""
    year, month, _, day, hour, minute, second, ms = time
    try:
        start = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return 0
    return int(start.timestamp()) * 1_000_000_000 + ms * 1_000_000
