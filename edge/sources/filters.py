"""Which frames of a bus a mapping asks for, as the kernel's filters: what nobody wants is not even copied."""

from __future__ import annotations

from typing import Final

from edge.dbc.model import Database
from edge.decode import mapped_messages
from edge.long_messages import takes_tp
from edge.mapping import Mapping
from edge.sources.socketcan import Filter
from firmware_bridge.frames import EXTENDED, LARGEST_11_BIT, LARGEST_29_BIT, REMOTE
from firmware_bridge.j1939_tp import TRANSPORT_IDS, TRANSPORT_MASK

_GROUP: Final = 0x03FF_FF00
_GROUP_TO_ONE: Final = 0x03FF_0000  # the second byte is whom it is meant for


def filters_of(mapping: Mapping, dbc: Database) -> tuple[Filter, ...]:
    """One filter per message that a signal of the mapping lies in. Signals that the DBC does not have are left out.

    Where one of them may come by J1939's transport, that may pass too.
    """
    messages = mapped_messages(mapping, dbc)
    own = [(m.can_id, from_anybody(m.can_id) if m.is_j1939 else exactly(m.can_id)) for m in messages]
    transport = [(can_id, TRANSPORT_MASK | REMOTE) for can_id in TRANSPORT_IDS] if takes_tp(messages) else []
    return (*own, *transport)


def exactly(can_id: int) -> int:
    """The mask that lets only this id pass, with data."""
    return (LARGEST_29_BIT if can_id & EXTENDED else LARGEST_11_BIT) | EXTENDED | REMOTE


def from_anybody(can_id: int) -> int:
    """The mask that lets the same J1939 parameter group pass, whoever sent it."""
    group = _GROUP if can_id >> 16 & 0xFF >= 240 else _GROUP_TO_ONE
    return group | EXTENDED | REMOTE
