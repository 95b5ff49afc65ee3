"""Error frames of SocketCAN (linux/can/error.h): what a controller says of its bus, counted by kind. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np
import numpy.typing as npt

ERROR: Final = 0x2000_0000
"""Bit of `can_id`: no frame of the bus, but the controller speaking."""
ALL_KINDS: Final = 0x1FFF_FFFF
_BUS_OFF: Final = 0x40
_RESTARTED: Final = 0x100
_CONTROLLER: Final = 0x04
_KINDS: Final = {
    0x01: "tx_timeout",
    0x02: "lost_arbitration",
    0x04: "controller",
    0x08: "protocol",
    0x10: "transceiver",
    0x20: "no_ack",
    0x40: "bus_off",
    0x80: "bus_error",
    0x100: "restarted",
    0x200: "error_counter",
}
# What the controller's own byte adds: only an overflow means that frames of the bus are missing.
_RX_OVERFLOW: Final = 0x01
_PASSIVE: Final = 0x30


class BusErrors:
    """Counts error frames. `counts` by kind since the start; `is_off`: the controller has left the bus."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.is_off = False

    def take(self, can_id: npt.NDArray[np.uint32], data: npt.NDArray[np.uint8]) -> None:
        """Error frames in their order; one may tell several kinds. data uint8[n, >= 8]."""
        for said, detail in zip(can_id.tolist(), data[:, 1].tolist(), strict=True):
            kinds = [name for bit, name in _KINDS.items() if said & bit]
            if said & _CONTROLLER and detail & (_RX_OVERFLOW | _PASSIVE):
                kinds.remove("controller")
                kinds += ["rx_overflow"] if detail & _RX_OVERFLOW else []
                kinds += ["error_passive"] if detail & _PASSIVE else []
            self.counts.update(kinds or ["unknown"])
            if said & _BUS_OFF:
                self.is_off = True
            if said & _RESTARTED:
                self.is_off = False
