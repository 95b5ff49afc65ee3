"""DBC files: which signals there are, and the values in a frame. The one file of `edge` that imports cantools."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cantools
import cantools.errors

from firmware_bridge.frames import EXTENDED
from shared.errors import ConfigError, PacktwinError


class FrameError(PacktwinError):
    """A frame that says nothing. `reason` is what its counter is called."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal of a DBC. lo, hi: outside is no measurement (infinite when the DBC does not say)."""

    name: str  # Message.Signal
    unit: str
    lo: float
    hi: float


class Message:
    """One message of a DBC, ready to decode its frames."""

    def __init__(self, message: Any) -> None:
        self._message = message
        self.name: str = message.name
        self.length: int = message.length
        self.can_id: int = message.frame_id | (EXTENDED if message.is_extended_frame else 0)
        self._groups = {s.name: (s.multiplexer_signal, frozenset(s.multiplexer_ids or ())) for s in message.signals}

    def decode(self, payload: bytes) -> Mapping[str, float]:
        """The values in a frame by signal name; those that a short frame does not reach are left out.

        FrameError `empty`, or `group` for a multiplexor that the DBC does not know.
        """
        if not payload:
            raise FrameError("empty")
        try:
            values: dict[str, float] = self._message.decode(payload, decode_choices=False, allow_truncated=True)
        except cantools.database.errors.DecodeError:
            raise FrameError("group") from None
        return values

    def is_missing(self, signal: str, values: Mapping[str, float]) -> bool:
        """Whether `signal` belongs in the (short) frame that gave `values`, but was cut off."""
        if signal in values:
            return False
        switch, groups = self._groups[signal]
        return switch is None or values.get(switch) in groups


class Dbc:
    """A DBC file. `signals` by `Message.Signal`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            database: Any = cantools.database.load_file(path, database_format="dbc", cache_dir=None)
        except FileNotFoundError:
            raise ConfigError(f"{path} does not exist: give the path of a DBC file as dbc in the mapping") from None
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
        except (cantools.errors.Error, UnicodeDecodeError, ValueError, KeyError) as error:
            first_line = str(error).partition("\n")[0]
            raise ConfigError(f"{path} is not a DBC that can be read: {first_line}") from None
        self._messages = {message.name: message for message in database.messages}
        self.signals = {
            f"{message.name}.{signal.name}": _signal(message.name, signal)
            for message in database.messages
            for signal in message.signals
        }

    def messages(self, names: Collection[str]) -> list[Message]:
        """The messages of these names."""
        return [Message(self._messages[name]) for name in names]


def _signal(message: str, signal: Any) -> Signal:
    lo = -math.inf if signal.minimum is None else float(signal.minimum)
    hi = math.inf if signal.maximum is None else float(signal.maximum)
    if lo >= hi:  # [0|0] is how a DBC says that it does not know
        lo, hi = -math.inf, math.inf
    # What the DBC prints as its limits is rounded: half a step beyond is still within.
    slack = abs(float(signal.scale)) / 2
    return Signal(f"{message}.{signal.name}", signal.unit or "", lo - slack, hi + slack)
