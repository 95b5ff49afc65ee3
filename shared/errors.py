"""Errors that cross a package border. The message is one sentence for a person: what, where, what to do."""

from __future__ import annotations

from typing import Final

_DETAIL_CHARS: Final = 240


class PacktwinError(Exception):
    """Base of all errors that packtwin raises on purpose."""


class ConfigError(PacktwinError):
    """A setting, a file or an argument is wrong; commands print it and exit with 2."""


class WireError(PacktwinError):
    """A Batch or Receipt cannot be read. `reason` is one of `shared.records.REJECT_REASONS`.

    The detail quotes what came in, so it is cut where a person stops reading.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail if len(detail) <= _DETAIL_CHARS else detail[: _DETAIL_CHARS - 1] + "…")
        self.reason = reason
