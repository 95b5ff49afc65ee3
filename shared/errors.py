"""Errors that cross a package border. The message is one sentence for a person: what, where, what to do."""

from __future__ import annotations


class PacktwinError(Exception):
    """Base of all errors that packtwin raises on purpose."""


class ConfigError(PacktwinError):
    """A setting, a file or an argument is wrong; commands print it and exit with 2."""


class WireError(PacktwinError):
    """A Batch or Receipt cannot be read. `reason` is one of `shared.records.REJECT_REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
