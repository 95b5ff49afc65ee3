"""What goes wrong on a line between a BMS and who asks it: junk, cut replies, echoes, replies of another pack. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_JUNK_BYTES: Final = 64
_BRIDGE: Final = b"AT\r\n"  # what makers' Bluetooth bridges put between
_OTHER_IDS: Final = 0x700


@dataclass(frozen=True, slots=True, kw_only=True)
class Stammer:
    """Shares (0..1) of the replies that go wrong; after_s: from when on, in the pack's own time.

    junk: bytes (on CAN: a frame) of nobody come before. truncate: bytes of the reply are lost. echo: the request comes
    back before the reply. wrong_address: another pack's reply, or one that nobody asked for, comes instead.
    is_silent: nothing is said at all.
    """

    after_s: float = 10.0
    junk: float = 0.0
    truncate: float = 0.0
    echo: float = 0.0
    wrong_address: float = 0.0
    is_silent: bool = False

    def takes_another(self, t_s: float, rng: random.Random) -> bool:
        """Whether another pack answers now."""
        return t_s >= self.after_s and rng.random() < self.wrong_address

    def spoilt(self, request: bytes, replies: Sequence[bytes], t_s: float, rng: random.Random) -> list[bytes]:
        """What comes over the line for a request and its replies."""
        if t_s < self.after_s:
            return list(replies)
        if self.is_silent:
            return []
        out = [request] if rng.random() < self.echo else []
        for reply in replies:
            if rng.random() < self.junk:
                out.append(rng.choice((_BRIDGE, rng.randbytes(rng.randrange(1, _JUNK_BYTES + 1)))))
            out.append(cut(reply, rng) if rng.random() < self.truncate else reply)
        return out

    def spoilt_frames(
        self, frames: Sequence[tuple[int, bytes]], t_s: float, rng: random.Random
    ) -> list[tuple[int, bytes]]:
        """The same of frames on CAN, where nothing is echoed."""
        if t_s < self.after_s:
            return list(frames)
        if self.is_silent:
            return []
        out: list[tuple[int, bytes]] = []
        for can_id, payload in frames:
            if rng.random() < self.junk:
                out.append((_OTHER_IDS + rng.randrange(0x80), rng.randbytes(8)))
            out.append((can_id, payload[: rng.randrange(len(payload))] if rng.random() < self.truncate else payload))
        return out


def cut(reply: bytes, rng: random.Random) -> bytes:
    """A reply of which 1 to 4 bytes, or all behind a place, were lost."""
    if len(reply) < 2:
        return b""
    at = rng.randrange(1, len(reply))
    return reply[:at] if rng.random() < 0.5 else reply[:at] + reply[at + rng.randrange(1, 5) :]
