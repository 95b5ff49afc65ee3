"""A CAN bus of python-can on which virtual BMSs talk and answer."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Final

from firmware_bridge import python_can
from firmware_bridge.frames import EXTENDED
from firmware_bridge.virtual.bus_voice import BusVoice, Frame
from firmware_bridge.virtual.pace import due_after
from shared.errors import ConfigError

_MOST_A_TURN: Final = 200


class CanLine:
    """A bus by python-can's names. period_s: of what is sent without being asked, on the wall clock."""

    wants_to_write = False

    def __init__(self, interface: str, channel: str, voice: BusVoice, period_s: float) -> None:
        try:
            can = python_can.load()
        except ImportError as error:
            raise ConfigError("virtual: CAN needs python-can: install packtwin[edge]") from error
        logging.getLogger("can").setLevel(logging.CRITICAL)  # what goes wrong is said below, once
        self.where = f"{interface}:{channel}"
        self.dropped = 0
        self._can, self._voice = can, voice
        self._period_s, self._next_s = period_s, 0.0
        self._later: deque[tuple[float, Frame]] = deque()
        try:
            self._bus = can.Bus(channel=channel, interface=interface)
        except (can.CanError, OSError, ValueError, ImportError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(
                f"cannot open channel {channel} of {interface} ({reason}): check --interface and --channel"
            ) from error

    def fileno(self) -> int | None:
        """What to watch for `serve`, where the interface has it."""
        try:
            number = int(self._bus.fileno())
        except (NotImplementedError, OSError, TypeError, ValueError):
            return None
        return number if number >= 0 else None

    def serve(self) -> None:
        """Answers what was asked since the last time."""
        for _ in range(_MOST_A_TURN):
            try:
                message = self._bus.recv(timeout=0)
            except (self._can.CanError, OSError):
                return
            if message is None:
                return
            if not message.is_error_frame and not message.is_remote_frame:
                can_id = message.arbitration_id | (EXTENDED if message.is_extended_id else 0)
                self._say(self._voice.heard(can_id, bytes(message.data)))

    def tick(self, now_s: float) -> None:
        """Sends what is due."""
        if self._voice.talks and now_s >= self._next_s:
            self._next_s = due_after(self._next_s, now_s, self._period_s)
            self._send(self._voice.by_itself())
        while self._later and self._later[0][0] <= now_s:
            self._send([self._later.popleft()[1]])

    def close(self) -> None:
        """Shuts python-can's bus down."""
        self._bus.shutdown()

    def _say(self, frames: list[Frame]) -> None:
        """Sends an answer, its frames as far apart as who asked wants them."""
        apart_s = self._voice.separation_s
        if not apart_s:
            self._send(frames)
            return
        now_s = time.monotonic()
        self._later.extend((now_s + number * apart_s, frame) for number, frame in enumerate(frames))
        self.tick(now_s)

    def _send(self, frames: list[Frame]) -> None:
        for can_id, payload in frames:
            message = self._can.Message(
                arbitration_id=can_id & 0x1FFF_FFFF, is_extended_id=bool(can_id & EXTENDED), data=payload
            )
            try:
                self._bus.send(message)
            except (self._can.CanError, OSError):
                self.dropped += 1
