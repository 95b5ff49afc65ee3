"""What the tests inside the vcan kernel share: a raw sender, a paced one in a process of its own, and the source."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

from edge.config_sources import SourceConfig

PACE_S = 0.01
"""A sender wakes this often and sends what is due."""


def config(channel: str = "vcan0", **changes: object) -> SourceConfig:
    values: dict[str, object] = {
        "pack_id": "A",
        "interface": "socketcan",
        "channel": channel,
        "bitrate": 500_000,
        "tty_baudrate": 115_200,
        "listen_only": True,
        "mapping_path": Path("m"),
    }
    return SourceConfig(**(values | changes))  # type: ignore[arg-type]


class Sender:
    """Frames onto an interface, those of errors too."""

    def __init__(self, channel: str = "vcan0") -> None:
        self._socket = socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
        self._socket.setsockopt(socket.SOL_CAN_RAW, socket.CAN_RAW_FD_FRAMES, 1)
        self._socket.setsockopt(socket.SOL_CAN_RAW, socket.CAN_RAW_FILTER, b"")  # it reads nothing
        self._socket.bind((channel,))

    def send(self, can_id: int, payload: bytes = bytes(8)) -> None:
        width = 8 if len(payload) <= 8 else 64
        self._socket.send(struct.pack("=IB3x", can_id, len(payload)) + payload.ljust(width, b"\0"))

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start_sender(rate_hz: int, seconds: float, channel: str = "vcan0") -> subprocess.Popen[str]:
    """A process that has begun to send `rate_hz * seconds` frames at that pace; `sent` tells how it went."""
    sender = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv[1]); from vcan.bus import pace; pace()",
         str(Path(__file__).parents[1]), channel, str(rate_hz), str(seconds)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert sender.stdout is not None and sender.stdout.readline() == "go\n"
    return sender


def pace() -> None:
    """The process of `start_sender`: prints `go` when it begins, then frames sent and seconds taken."""
    channel, rate_hz, seconds = sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    frames = [struct.pack("=IB3x", i & 0x7FF, 8) + i.to_bytes(8, "little") for i in range(2048)]
    total, sent = int(rate_hz * seconds), 0
    with Sender(channel) as sender:
        send = sender._socket.send
        print("go", flush=True)
        began_s = time.monotonic()
        while sent < total:
            due = int((time.monotonic() - began_s + PACE_S) * rate_hz)
            # After a stall of the whole machine it catches up little by little: a bus does not burst either.
            due = min(total, due, sent + int(2 * PACE_S * rate_hz))
            for i in range(sent, due):
                send(frames[i & 2047])
            sent = due
            time.sleep(max(PACE_S / 4, began_s + sent / rate_hz - time.monotonic()))
    print(sent, time.monotonic() - began_s, flush=True)


def sent(sender: subprocess.Popen[str]) -> tuple[int, float]:
    """(frames, seconds) of a sender that has come to its end."""
    assert sender.stdout is not None
    frames, took_s = sender.stdout.readline().split()
    assert sender.wait(30) == 0
    return int(frames), float(took_s)


def repeat() -> None:
    """A process that plays a candump log for ever onto an interface, whenever that is there: `repeat(channel, log)`."""
    channel, log = sys.argv[2], Path(sys.argv[3])
    frames = []
    for line in log.read_text().splitlines():
        t_text, _, frame = line.split()
        name, _, payload = frame.partition("#")
        extended = 0x8000_0000 if len(name) == 8 else 0
        frames.append((float(t_text.strip("()")), int(name, 16) | extended, bytes.fromhex(payload)))
    first_s, length_s = frames[0][0], frames[-1][0] - frames[0][0] + 0.01
    sender: Sender | None = None
    print("go", flush=True)
    began_s = time.monotonic()
    round_, at = 0, 0
    while True:
        time.sleep(0.01)
        due_s = time.monotonic() - began_s
        try:
            sender = sender or Sender(channel)
        except OSError:
            sender = None
        while round_ * length_s + frames[at][0] - first_s <= due_s:
            if sender is not None:
                try:
                    sender.send(*frames[at][1:])
                except OSError:
                    sender.close()
                    sender = None
            at += 1
            if at == len(frames):
                round_, at = round_ + 1, 0
