"""The ear on a serial line: what is said there, and by which of the packs on it. Pure; a replay uses the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from firmware_bridge.protocol import ByteDecoder, LineError, Poll, Protocol, Said


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """A pack on a line and what it is to be asked, each poll_s. address None = the usual one of its language.

    polls (): it is only listened to.
    """

    address: int | None
    polls: tuple[Poll, ...]
    poll_s: float

    @classmethod
    def of(
        cls, protocol: Protocol, vehicle: str | None, address: int | None, poll_s: float | None, *, polls: bool = True
    ) -> Asking:
        """What a language asks of the pack at an address. polls: whether it is to be asked at all."""
        return cls(
            address=address,
            polls=tuple(protocol.polls(address, vehicle)) if polls else (),
            poll_s=protocol.period_s if poll_s is None else poll_s,
        )


Told = tuple[int, Said]
"""Who of the packs said it, or was asked when it went wrong; and what."""


class Ear:
    """Decodes one line for the packs on it. Between `sent` and the next, or `end`, one of them has the word.

    A pack without an address, alone on the line, is one all the same: the first that answers, or speaks where nobody
    is asked.
    """

    def __init__(self, decoder: ByteDecoder, packs: Sequence[Asking]) -> None:
        self._decoder = decoder
        self._addresses = [pack.address for pack in packs]
        self._requests = {poll.request: at for at, pack in enumerate(packs) for poll in pack.polls}
        self._asked: bytes | None = None
        self._is_over = True
        self.bound: int | None = None
        """The address of a pack that was given none, as soon as it is known."""
        self.other: int | None = None
        """Likewise, that of another one which spoke after it."""

    @property
    def has_begun(self) -> bool:
        """Whether bytes wait for the rest of their frame."""
        return bool(self._decoder.pending)

    def sent(self, request: bytes) -> None:
        """A request was put on the line."""
        self._asked, self._is_over = request, False
        self._decoder.sent(request)

    def feed(self, data: bytes) -> list[Told]:
        """What the bytes that came complete."""
        return self._owned(self._decoder.feed(data))

    def end(self) -> list[Told]:
        """The line has fallen silent: nobody has the word any more."""
        told = self._owned(self._decoder.end())
        self._is_over = True
        return told

    def _owned(self, said: Sequence[Said]) -> list[Told]:
        asked = None if self._is_over or self._asked is None else self._requests.get(self._asked)
        told: list[Told] = []
        for one in said:
            if isinstance(one, LineError):
                told.append((asked or 0, one))
            elif (owner := self._owner(one.address, asked)) is not None:
                told.append((owner, one))
            else:
                whose = "nobody that was asked" if one.address is None else f"{one.address}, which is no pack here"
                told.append((asked or 0, LineError("address", 0, f"{one.kind} of {whose}")))
        return told

    def _owner(self, address: int | None, asked: int | None) -> int | None:
        """Whose a Part is: by its own address, else the pack's that has the word. None = nobody can say."""
        if address is None:
            return 0 if len(self._addresses) == 1 else asked
        if self._addresses == [None]:
            return 0 if self._is_bound_to(address, asked) else None
        return self._addresses.index(address) if address in self._addresses else None

    def _is_bound_to(self, address: int, asked: int | None) -> bool:
        if self.bound is None and (asked is not None or not self._requests):
            self.bound = address
        if self.bound not in (None, address):
            self.other = address
        return self.bound == address

    def snapshot(self) -> dict[str, Any]:
        """Enough for another ear on the line to go on from here, as JSON can hold it."""
        return {
            "asked": None if self._asked is None else self._asked.hex(),
            "over": self._is_over,
            "pending": self._decoder.pending.hex(),
            "bound": self.bound,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `snapshot`; for an ear that has heard nothing. KeyError, TypeError, ValueError: it is none."""
        if state["asked"] is not None:
            self.sent(bytes.fromhex(state["asked"]))
        if state["over"]:
            self.end()
        self._decoder.feed(bytes.fromhex(state["pending"]))
        self.bound = None if state["bound"] is None else int(state["bound"])
