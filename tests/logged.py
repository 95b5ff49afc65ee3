"""Logs for tests: a frame in each text format, and what comes out of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.logs import Log, open_log

Frame = tuple[str, str, int, bytes]  # t_s, channel, can_id, payload


def frames_of(log: Log) -> list[Frame]:
    """Every frame of it, in order."""
    found = []
    for block in log.blocks():
        names = [log.channels[i] for i in block.channel.tolist()]
        for name, text, (t_ns, can_id, payload) in zip(names, block.t_text.tolist(), block.frames.rows(), strict=True):
            assert not text or round(float(text) * 1e9) == pytest.approx(t_ns, abs=300)  # float(text) rounds itself
            found.append((text.decode(), name, can_id, payload))
    assert log.notes.frames == len(found)
    return found


def read(folder: Path, text: str | bytes, name: str = "some.log") -> tuple[Log, list[Frame]]:
    """A log with that content and its frames."""
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    log = open_log(path)
    return log, frames_of(log)


GOOD = {
    "candump": "(1.000000) can0 123#0A1B\n",
    "Vector ASC": "base hex  timestamps absolute\n   1.000000 1  123  Rx   d 2 0A 1B\n",
    "PEAK TRC": ";$FILEVERSION=1.1\n     1)      1000.0  Rx         0123  2  0A 1B\n",
    "GVRET CSV": "Time Stamp,ID,Extended,Bus,LEN,D1,D2\n1000000,00000123,false,0,2,0A,1B\n",
    "CRTD": "1.000000 R11 00000123 0A 1B\n",
    "SavvyCAN generic CSV": "ID,Data Bytes\n00000123,0A 1B\n",
    "BUSMASTER": "***BUSMASTER Ver 2.4.0***\n00:00:01:000 Rx 0 00000123 s 2 0A 1B\n",
    "Microchip CAN BUS Analyzer": "//\nMicrochip Technology Inc.\n//\n1000;RX;0x123;2;0x0A;0x1B;\n",
}
