"""Recorded bytes of BMSs and what their sources say of them (`vectors/bms.json` of the recorded data)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from firmware_bridge.merge import Merger
from firmware_bridge.protocol import FrameDecoder, LineError, Said

Vector = dict[str, Any]


@cache
def _all(file: Path) -> dict[int, Vector]:
    return {vector["id"]: vector for vector in json.loads(file.read_text())}


def vector(shared_dir: Path, number: int) -> Vector:
    """The recording of that number."""
    return _all(shared_dir / "vectors" / "bms.json")[number]


def vectors(shared_dir: Path, *protocols: str, kind: str = "positive") -> list[Vector]:
    """The recordings of that kind under any of these names of the file."""
    found = _all(shared_dir / "vectors" / "bms.json").values()
    return [one for one in found if one["protocol"] in protocols and one["kind"] == kind]


def frames(recorded: Vector) -> list[bytes]:
    """The whole frames of a recording on a serial line."""
    return [bytes.fromhex(frame) for frame in recorded["frame_hex"]]


def can_frames(recorded: Vector) -> list[tuple[int, bytes]]:
    """(id, payload) of each frame of a recording on CAN."""
    return [(int(frame["id"], 16), bytes.fromhex(frame["data"])) for frame in recorded["can_frames"]]


def on_bus(bus: FrameDecoder, sent: Iterable[tuple[int, bytes]]) -> list[Said]:
    """What a decoder makes of these frames, a millisecond apart."""
    said = [it for n, (can_id, payload) in enumerate(sent) for it in bus.frame(n * 1_000_000, can_id, payload)]
    return said + bus.end()


def pictures(said: Sequence[Said]) -> tuple[list[dict[str, Any]], list[LineError]]:
    """(the pictures of packs as `decode` prints them, what was wrong)."""
    merger, found, wrong = Merger(), [], []
    for it in said:
        if isinstance(it, LineError):
            wrong.append(it)
        elif (picture := merger.add(it)) is not None:
            found.append(picture)
    return [*found, *merger.end()], wrong


def value(picture: dict[str, Any], name: str) -> Any:
    """What a picture says by a name such as `extra.mos_temp_c` or `cell_v[3]`; LookupError if nothing."""
    array, _, place = name.removesuffix("]").partition("[")
    if array.startswith("extra."):
        return picture["extra"][array.removeprefix("extra.")]
    return picture[array][int(place)] if place else picture[array]
