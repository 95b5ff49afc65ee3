"""The server that DB_HOST names when the tests begin: they make databases `packtwin_test_*` there, and touch no other.

The variables are taken out of the environment at once, so that nothing a test starts finds them by accident.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Final

PREFIX: Final = "packtwin_test_"
_HANDED_ON: Final = "PACKTWIN_TEST_SERVER"  # to the workers of `-n`
_NAMES: Final = ("DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASSWORD")


@dataclass(frozen=True)
class ExternalServer:
    """How its superuser gets in; the database `postgres` is only connected to."""

    host: str
    port: int
    user: str
    password: str


def take() -> None:
    """Takes DB_* out of the environment, once."""
    found = {name: os.environ.pop(name, "") for name in _NAMES}
    if found["DB_HOST"]:
        os.environ[_HANDED_ON] = json.dumps(found)


def told() -> ExternalServer | None:
    """The server; None = the tests bring their own."""
    text = os.environ.get(_HANDED_ON)
    if not text:
        return None
    found = json.loads(text)
    port = int(found["DB_PORT"] or 5432)
    return ExternalServer(found["DB_HOST"], port, found["DB_USER"] or "twin", found["DB_PASSWORD"])
