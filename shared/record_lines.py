"""Records as lines of JSON, the form of files: one Session or Event a line, named by its `kind`."""

from __future__ import annotations

import json
from typing import Any, Final

from shared.batch import require_possible
from shared.errors import WireError
from shared.records import Event, Session
from shared.wire_json import no_constant, record_dict, single_of

_KINDS: Final[dict[str, type[Session] | type[Event]]] = {"session": Session, "event": Event}
_HEAD: Final = {"seq": 0, "mono_ns": 0}
"""What a file may leave out: the outbox gives the seq, and a file has no host that was started."""


def to_line(record: Session | Event) -> str:
    """The record as one line without its end; what is None is left out."""
    known = {name: value for name, value in record_dict(record).items() if value is not None and value != {}}
    return json.dumps({"kind": type(record).__name__.lower(), **known}, allow_nan=False, separators=(",", ":"))


def from_line(line: str | bytes, where: str) -> Session | Event:
    """The record of a line; WireError that says `where` and what is wrong with it."""
    try:
        item: Any = json.loads(line, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise WireError("malformed", f"{where} is not JSON: {error}") from None
    if not isinstance(item, dict) or item.get("kind") not in _KINDS:
        raise WireError("malformed", f"{where} has no kind (session or event)")
    kind = _KINDS[item.pop("kind")]
    record = single_of(kind, _HEAD | item, where)
    try:
        require_possible(record)
    except WireError as error:
        raise WireError(error.reason, f"{where}: {error}") from None
    return record
