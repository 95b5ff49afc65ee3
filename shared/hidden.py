"""Keeps heavy libraries out that others import only because they find them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hidden(*names: str) -> Iterator[None]:
    """While it lasts, an import of these modules fails, unless they have been imported before."""
    absent = [name for name in names if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]  # how Python is told that there is none
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
