"""Programs of the system: where they are, and where they are not, how to get them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

# Debian keeps servers out of an ordinary user's PATH.
MORE_PLACES = ("/usr/local/sbin", "/usr/sbin", "/usr/local/bin", "/usr/bin")


def program(name: str) -> Path | None:
    """Returns the path of an installed program; None when there is none."""
    places = os.pathsep.join((os.environ.get("PATH", ""), *MORE_PLACES))
    found = shutil.which(name, path=places)
    return Path(found) if found else None
