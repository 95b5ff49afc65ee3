"""The one way to python-can that stays light. Call `load` before anything that imports `can` by itself (cantools does).

python-can imports asammdf where it finds it, and with it pandas: 90 MB more for a reader of MF4 that we do not use
(edge/logs/mf4.py asks asammdf itself).
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, Final

from shared.hidden import hidden

_TESTER: Final = "cantools.tester"


def load() -> Any:
    """The module `can`. ImportError where python-can is not installed."""
    with hidden("asammdf"):
        import can
    return can


def load_cantools() -> Any:
    """The module `cantools` without its tester, which nobody here needs and which imports all of python-can (14 MB)."""
    if "cantools" in sys.modules:
        return sys.modules["cantools"]
    sys.modules[_TESTER] = ModuleType(_TESTER)
    try:
        import cantools
    finally:
        del sys.modules[_TESTER]
    del cantools.tester  # who asks for it later gets the real one
    return cantools
