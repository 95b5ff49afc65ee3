"""At which addresses a BMS of a language can be. Pure: it is tried with a made-up pack of that language.

So each language has the limits that its own requests and replies have, and no second list of them can go stale.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Final

from edge.sources.can_voice import READS
from firmware_bridge.protocol import Part, Protocol, Said, Values
from shared.errors import ConfigError

_EVERY: Final = range(256)
_TOLD: Final[Values] = {"pack_v": 50.0, "current_a": 0.0, "soc_bms": 0.5, "cell_v[0]": 3.3, "temp_c[0]": 20.0}
_PAUSE_NS: Final = 1_000_000


def check_address(where: str, protocol: Protocol, vehicle: str | None, address: int | None, *, polls: bool) -> None:
    """ConfigError: no pack of the language can be asked, or heard, at that address. polls: whether it is asked.

    where: what the sentence begins with. address None is never wrong.
    """
    if address is None or (told_as := _told_as(protocol, vehicle, address, polls=polls)) == {address}:
        return
    if told_as == {None} and _asks_each(protocol, vehicle):
        return  # its replies do not say whose they are, its requests do
    this, name = f"{where}: address = {address}", protocol.name
    known = [] if told_as == {None} else [at for at in _EVERY if _told_as(protocol, vehicle, at, polls=polls) == {at}]
    if not known:
        raise ConfigError(f"{this} has no meaning: {name} has no addresses, leave it out")
    if (another := next((at for at in known if {at} == told_as), None)) is not None:
        raise ConfigError(f"{this}: what {name} asks there calls itself {another}: give that")
    can = "can be asked" if polls else "are heard"
    raise ConfigError(f"{this}: packs of {name} {can} at {_ranges(known)}: give one of those")


def _told_as(protocol: Protocol, vehicle: str | None, address: int, *, polls: bool) -> set[int | None]:
    """The addresses that the messages of a pack at this one bear; empty = there can be no such pack."""
    try:
        if protocol.bytes_decoder is not None:
            said = _over_a_line(protocol, vehicle, address, polls=polls)
        else:
            said = _over_a_bus(protocol, vehicle, address)
        if polls and not _may_be_asked(protocol, vehicle, address):
            return set()
    except (ValueError, OverflowError):  # no byte holds it
        return set()
    return {one.address for one in said if isinstance(one, Part)}


def _may_be_asked(protocol: Protocol, vehicle: str | None, address: int) -> bool:
    """Over CAN: what is no reading request for a pack is never sent."""
    is_read = READS.get(protocol.name)
    return is_read is None or all(
        poll.can_id is None or is_read(poll.can_id, poll.request) for poll in protocol.polls(address, vehicle)
    )


def _over_a_line(protocol: Protocol, vehicle: str | None, address: int, *, polls: bool) -> list[Said]:
    assert protocol.bytes_decoder is not None and protocol.answer is not None
    said: list[Said] = []
    for poll in protocol.polls(address, vehicle):
        decoder = protocol.bytes_decoder()
        if polls:
            decoder.sent(poll.request)
        else:  # another one's, that is only heard
            said += decoder.feed(poll.request)
        for reply in protocol.answer(poll.request, _TOLD, address):
            said += decoder.feed(reply)
        said += decoder.end()
    return said


def _over_a_bus(protocol: Protocol, vehicle: str | None, address: int) -> list[Said]:
    assert protocol.frames_decoder is not None and protocol.frames is not None
    said: list[Said] = []
    decoder = protocol.frames_decoder(vehicle)
    for at, (can_id, payload) in enumerate(protocol.frames(_TOLD, address, vehicle)):
        said += decoder.frame(at * _PAUSE_NS, can_id, payload)
    return said + decoder.end()


def _asks_each(protocol: Protocol, vehicle: str | None) -> bool:
    """Whether a request says which pack it is for."""
    first, second = (tuple(protocol.polls(address, vehicle)) for address in (1, 2))
    return first != second


def _ranges(numbers: Iterable[int]) -> str:
    """`1 to 16 and 20`."""
    every = list(numbers)
    starts = [every[0], *(b for a, b in pairwise(every) if b != a + 1)]
    ends = [*(a for a, b in pairwise(every) if b != a + 1), every[-1]]
    return " and ".join(f"{a} to {b}" if a != b else str(a) for a, b in zip(starts, ends, strict=True))
