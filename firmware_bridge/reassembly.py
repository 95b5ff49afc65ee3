"""What the transport protocols of CAN have in common: many frames become one message, and each loss has a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

MAX_SESSIONS: Final = 256
"""Messages that may be half received at a time: what is begun and never ended must not fill the memory."""


@dataclass(frozen=True, slots=True)
class Assembled:
    """One whole message. t_ns: of its last frame. can_id: whose message it is, with EXTENDED (see frames.py)."""

    t_ns: int
    can_id: int
    payload: bytes


class Session(Protocol):
    """A message that is not whole yet. `last_ns`: its newest frame. None in a book = the rest of a message is lost."""

    last_ns: int
    __dataclass_fields__: ClassVar[dict[str, Any]]


S = TypeVar("S", bound=Session)
K = TypeVar("K")


class Sessions(Generic[K, S]):
    """The messages under way, by key. `lost` counts those that came to nothing, by reason, each message once.

    A key whose message was lost is remembered as broken, so that the frames that still come for it are not
    counted as further losses.
    """

    def __init__(self, most: int = MAX_SESSIONS) -> None:
        self._most = most
        self._open: dict[K, S] = {}
        self._broken: dict[K, None] = {}
        self.lost: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def get(self, key: K) -> S | None:
        """The message under way for `key`."""
        return self._open.get(key)

    def begin(self, key: K, session: S) -> None:
        """Starts a message; one that was under way for the same key is lost (`interrupted`)."""
        self.interrupt(key)
        if len(self._open) >= self._most:
            del self._open[next(iter(self._open))]
            self.lost["too_many"] += 1
        self._open[key] = session

    def interrupt(self, key: K) -> None:
        """Something new begins for `key`: what was under way is lost, what was broken is over."""
        self._broken.pop(key, None)
        if self._open.pop(key, None) is not None:
            self.lost["interrupted"] += 1

    def end(self, key: K) -> None:
        """The message of `key` is whole."""
        del self._open[key]

    def lose(self, key: K, reason: str) -> None:
        """The message of `key` is lost; what still comes of it is not counted again."""
        self._open.pop(key, None)
        self.lost[reason] += 1
        if len(self._broken) >= self._most:
            del self._broken[next(iter(self._broken))]
        self._broken[key] = None

    def stray(self, key: K) -> None:
        """A frame in the middle of a message whose beginning nobody saw."""
        if key not in self._broken:
            self.lose(key, "no_first_frame")

    def snapshot(self) -> dict[str, list[Any]]:
        """What is under way, as a copy that JSON can hold."""
        told = {
            key: {f.name: _plain(getattr(session, f.name)) for f in fields(session)}
            for key, session in self._open.items()
        }
        return {"open": [[key, session] for key, session in told.items()], "broken": list(self._broken)}

    def restore(self, state: Mapping[str, Any], key: Callable[[Any], K], session: Callable[..., S]) -> None:
        """Goes on from a `snapshot`, also one that has been JSON. KeyError, TypeError, ValueError: it is none."""
        self._open = {key(one): session(**told) for one, told in state["open"]}
        self._broken = dict.fromkeys(map(key, state["broken"]))

    def close(self) -> None:
        """No more frames will come: what is under way is lost (`cut_off`)."""
        self.lost["cut_off"] += len(self._open)
        self.lost += Counter()  # drops the zero
        self._open.clear()


def _plain(value: Any) -> Any:
    if isinstance(value, bytearray):
        return value.hex()
    return sorted(value) if isinstance(value, set) else value
