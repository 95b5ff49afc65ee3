"""What may be asked of a car, and what its answers are: the reading services of UDS, KWP2000 and OBD. Pure.

A request is told apart by its first bytes: 22 and two bytes of an identifier (UDS ReadDataByIdentifier, ISO 14229), 21
and one (KWP2000, Nissan's groups), 01 and one (OBD mode 1, SAE J1979). Nothing else is ever built or let through.
"""

from __future__ import annotations

from typing import Final

from firmware_bridge.isotp_send import FLOW_CONTROL, single

OBD: Final = 0x01
GROUP: Final = 0x21
IDENTIFIER: Final = 0x22
READS: Final = {OBD: 1, GROUP: 1, IDENTIFIER: 2}
"""The services that only read, and how many bytes behind each say what."""
DTCS: Final = bytes.fromhex("1902")
"""ReportDTCByStatusMask: never asked, but understood when another tester asks it."""
NEGATIVE: Final = 0x7F
PENDING: Final = 0x78
ANSWER: Final = 0x40
"""What an answer adds to the number of its service."""
REASONS: Final = {
    0x10: "general reject",
    0x11: "service not supported",
    0x12: "sub-function not supported",
    0x13: "wrong length or format",
    0x21: "busy, ask again",
    0x22: "conditions not correct",
    0x31: "request out of range",
    0x33: "security access denied",
    0x7E: "sub-function not supported in this session",
    0x7F: "service not supported in this session",
}
"""Why an ECU refuses, by its code."""


def request(read: bytes) -> bytes:
    """The CAN payload that asks for `read`, such as 22 01 01. ValueError: it is no reading request."""
    if not is_read(read):
        raise ValueError(f"{read.hex(' ')} is no request of a reading service")
    return single(read)


def is_read(message: bytes) -> bool:
    """Whether a message is one reading request, and nothing beside."""
    return bool(message) and len(message) == 1 + READS.get(message[0], -1)


def is_reading_frame(payload: bytes) -> bool:
    """Whether a CAN payload is the single frame of a reading request."""
    size = payload[0] if payload else 0
    return 0 < size < len(payload) <= 8 and is_read(payload[1 : 1 + size])


def is_flow_control(payload: bytes) -> bool:
    """Whether a CAN payload lets an answer go on."""
    return 3 <= len(payload) <= 8 and payload[0] == FLOW_CONTROL
