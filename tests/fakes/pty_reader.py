"""The other end of a simulated adapter: a program that opens the link as it would a serial port."""

from __future__ import annotations

import os
import select
import tty
from pathlib import Path

from firmware_bridge.sim.buses import SlcanPty


class Reader:
    """What an agent does at the other end of the link."""

    def __init__(self, link: Path) -> None:
        self.fd = os.open(link, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self.fd)

    def say(self, bus: SlcanPty, commands: bytes) -> bytes:
        os.write(self.fd, commands)
        select.select([bus.fileno()], [], [], 2)
        bus.serve()
        return self.read()

    def read(self) -> bytes:
        text = b""
        while select.select([self.fd], [], [], 0.1)[0]:
            text += os.read(self.fd, 65536)
        return text
