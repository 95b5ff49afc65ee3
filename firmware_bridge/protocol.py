"""What every language of a BMS is: bytes in, Parts out, and the other way round. Pure: no port, no clock.

A Part is what one frame said of one pack, by the names of a Sample. What is wrong with a line is a LineError, never an
exception. A `Protocol` is what the shelf (`shelf.py`) knows of a language; each has a file in `protocols/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from typing import Protocol as Shape

Value = float | bool | str | None
Values = Mapping[str, Value]

ERRORS: Final = ("checksum", "length", "address", "function", "response", "echo", "noise")
"""What can be wrong: bad check; cut off or of an impossible length; a reply that nobody of us asked for; a function or
command that the protocol does not have; the BMS says no; a request that came back; bytes that belong to no frame."""

ALARM: Final = "alarm."
EXTRA: Final = "extra."
EXTRAS: Final[Mapping[str, tuple[str | None, float]]] = {
    "mos_temp_c": ("degC", 0.1),
    "remaining_ah": ("Ah", 0.001),
    "full_ah": ("Ah", 0.001),
    "nominal_ah": ("Ah", 0.001),
    "cell_min_v": ("V", 0.001),
    "cell_max_v": ("V", 0.001),
    "charge_v_limit": ("V", 0.1),
    "discharge_v_limit": ("V", 0.1),
    "balance_a": ("A", 0.001),
    "alarm_raw": ("", 1.0),
    "sw_version": (None, 0.0),
    "hw_version": (None, 0.0),
    "model": (None, 0.0),
}
"""The unit and the step of each extra that protocols have in common; unit None = it is a text, which no Sample holds.
A protocol's own extras stand in its `Protocol.extras`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one frame said. kind: which message it was. address: whose, None = the protocol or the frame has none.

    values: by name: a column of a Sample (`pack_v`, `cell_v[3]`), `balancing` (bits), `alarm.CODE[:warning]` (bool),
    `extra.NAME`; None = nothing is measured, and `quality[name]` says why. current_a > 0 charges.
    sizes: by array (`cell_v`): how many places the pack has, where the message says so.
    """

    kind: str
    address: int | None = None
    values: Values
    quality: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LineError:
    """What was wrong. error: one of ERRORS. offset: bytes (on CAN: frames) since the decoder began."""

    error: str
    offset: int
    detail: str


Said = Part | LineError


class ByteDecoder(Shape):
    """Bytes of a line, in any pieces -> what they say. Holds at most a frame's worth of them."""

    def sent(self, request: bytes) -> None:
        """A request was put on the line, by us or by another master: replies are judged by it."""

    def feed(self, data: bytes) -> list[Said]:
        """What the bytes that came complete."""

    def end(self) -> list[Said]:
        """The line has fallen silent: what is not whole will not become whole, and what was asked is over."""

    @property
    def pending(self) -> bytes:
        """The bytes that wait for the rest of their frame; fed to a new decoder they bring it to the same point."""


class FrameDecoder(Shape):
    """Frames of a CAN bus -> what they say."""

    def sent(self, can_id: int, payload: bytes) -> None:
        """A request was put on the bus by us."""

    def frame(self, t_ns: int, can_id: int, payload: bytes) -> list[Said]:
        """What the frame completes. can_id with EXTENDED (frames.py); t_ns: when it came, for time-outs."""

    def end(self) -> list[Said]:
        """No more frames will come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """A read request. kind: of the Part that answers it. request: the bytes; on CAN the payload, sent as `can_id`.

    replies: how many frames answer it at most; 0 = as many as come until the line is silent. every: only in each n-th
    round of polls. answer_id: on ISO-TP the id of the answer, whose long messages wait for a flow control.
    """

    kind: str
    request: bytes
    can_id: int | None = None
    answer_id: int | None = None
    replies: int = 1
    every: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """A language. medium: `serial` or `can`. rate: bit/s as it is delivered. verified: real captures prove the decoder.

    bytes_decoder / frames_decoder: the one that fits the medium; its argument is the vehicle, None = none is needed.
    polls: what to ask a pack at an address (None = the usual one), in order; () = it talks without being asked.
    answer: what a pack with these values replies to a request (serial). frames: what a pack with these values sends,
    all of it once (CAN: (can_id, payload) each; serial: replies to all of `polls`).
    fields: all names that its Parts can hold, arrays as `cell_v[]`; vehicle_fields: those of each vehicle.
    vehicle_titles: what each vehicle is, and what of its table no capture has proved.
    counter: the extra that moves while the BMS lives; moves_always: it is known to, in every firmware.
    silence_s: after so long a silence a reply is over. gap_s: what the BMS needs between a reply and the next request.
    """

    name: str
    title: str
    medium: str
    rate: int
    verified: bool
    fields: tuple[str, ...]
    bytes_decoder: Callable[[], ByteDecoder] | None = None
    frames_decoder: Callable[[str | None], FrameDecoder] | None = None
    polls: Callable[[int | None, str | None], Sequence[Poll]] = lambda address, vehicle: ()
    answer: Callable[[bytes, Values, int | None], Sequence[bytes]] | None = None
    frames: Callable[[Values, int | None, str | None], Sequence[tuple[int, bytes]]] | None = None
    extras: Mapping[str, tuple[str | None, float]] = field(default_factory=dict)
    vehicles: tuple[str, ...] = ()
    vehicle_fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    vehicle_titles: Mapping[str, str] = field(default_factory=dict)
    counter: str | None = None
    moves_always: bool = True
    period_s: float = 1.0
    silence_s: float = 0.3
    gap_s: float = 0.02


class Asked:
    """The requests on a line that may still be answered, oldest first."""

    _MOST: Final = 64

    def __init__(self) -> None:
        self._requests: list[bytes] = []
        self._answered: list[bytes] = []
        self.any = False
        """Whether a request was ever seen: from then on a reply must answer one."""

    def __contains__(self, request: bytes) -> bool:
        return request in self._requests or request in self._answered

    def __iter__(self) -> Iterator[bytes]:
        """Those without an answer, then those that had one."""
        yield from self._requests
        yield from self._answered

    def sent(self, request: bytes) -> None:
        """A request was put on the line. What was answered before it is over."""
        self.any = True
        self._answered.clear()
        self._requests.append(request)
        del self._requests[: -self._MOST]

    def answered(self, fits: Callable[[bytes], bool]) -> bytes | None:
        """The oldest request that a reply fits, one that has none yet before one that has; None = there is none."""
        for request in self._requests:
            if fits(request):
                self._requests.remove(request)
                self._answered.append(request)
                return request
        return next((request for request in self._answered if fits(request)), None)

    def forget(self) -> None:
        """Nothing that was asked will be answered any more."""
        self._requests.clear()
        self._answered.clear()


class Twice:
    """Two kinds of messages that tell of the same: what the better one told is left out of the poorer ones behind it.

    Who keeps what is newest would otherwise see the two by turns.
    """

    _PATIENCE: Final = 3  # so many poorer ones in a row: the better one has fallen silent

    def __init__(self) -> None:
        self._told: frozenset[str] = frozenset()
        self._alone = 0

    def better(self, values: Values) -> None:
        """The better one came."""
        self._told, self._alone = frozenset(values), 0

    def poorer(self, values: Values) -> dict[str, Value]:
        """What remains of a poorer one; of a second one in a row also what it raises: an alarm does not wait."""
        self._alone += 1
        if self._alone > self._PATIENCE:
            self._told = frozenset()
        is_second = self._alone > 1
        return {
            name: value for name, value in values.items() if name not in self._told or (is_second and value is True)
        }
