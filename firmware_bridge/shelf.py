"""The shelf: every language of a BMS by its name. A file is imported when its language is asked for."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Final

from firmware_bridge.protocol import Protocol
from shared.errors import ConfigError

NAMES: Final = (
    "jbd",
    "jk02",
    "jk_uart",
    "daly_uart",
    "daly_modbus",
    "daly_can",
    "jk_can",
    "pylontech_can",
    "pylontech_hv_can",
    "seplos_v2",
    "seplos_v3",
    "foxbms_can",
    "uds_ev",
)


def protocol(name: str) -> Protocol:
    """The language of that name. ConfigError if there is none."""
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, 1)
        hint = f", perhaps {near[0]}" if near else ""
        raise ConfigError(f'protocol "{name}" is not one of {", ".join(NAMES)}{hint}')
    found: Protocol = getattr(import_module(f"firmware_bridge.protocols.{name}"), name.upper())
    return found
