"""Our slcan parser against python-can's, on the same bytes through the same kind of pty, in the same run.

`python tests/benchmarks/bench_slcan.py` prints CPU microseconds a frame and the ratio.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
import tty
import warnings

from can.interfaces.slcan import slcanBus

from firmware_bridge.frames import FrameBatch
from firmware_bridge.pack.car import Car
from firmware_bridge.pack.signals import NAMES, values
from firmware_bridge.packer import TICK_NS, Packer, packtwin_dbc
from firmware_bridge.slcan import SlcanParser, encode

ROUNDS = 5
TICKS = 20


def recorded() -> FrameBatch:
    """Two seconds of a simulated car's bus."""
    packer, car = Packer(packtwin_dbc(), NAMES), Car(seed=1, number=0)
    batches = []
    for tick in range(TICKS):
        car.step()
        batches.append(packer.frames("can0", tick, values(car), tick * TICK_NS))
    return FrameBatch.concat("can0", batches)


def python_can_us(text: bytes, frames: int) -> float:
    """CPU microseconds of this thread a frame for `slcanBus.recv`, fed by another thread."""
    master, slave = os.openpty()
    tty.setraw(slave)
    bus = slcanBus(os.ttyname(slave), sleep_after_open=0)
    os.read(master, 100)
    feeder = threading.Thread(target=_feed, args=(master, text))
    feeder.start()
    began_s = time.thread_time()
    for _ in range(frames):
        if bus.recv(5.0) is None:
            raise RuntimeError("python-can lost frames")
    spent_s = time.thread_time() - began_s
    feeder.join()
    bus.shutdown()
    os.close(master)
    os.close(slave)
    return spent_s / frames * 1e6


def ours_us(text: bytes, frames: int) -> float:
    """CPU microseconds of this thread a frame for read and `SlcanParser.feed`, fed by another thread."""
    master, slave = os.openpty()
    tty.setraw(slave)
    feeder = threading.Thread(target=_feed, args=(master, text))
    feeder.start()
    parser, got = SlcanParser("can0"), 0
    began_s = time.thread_time()
    while got < frames:
        got += len(parser.feed(os.read(slave, 65536), 0))
    spent_s = time.thread_time() - began_s
    feeder.join()
    os.close(master)
    os.close(slave)
    return spent_s / frames * 1e6


def _feed(master: int, text: bytes) -> None:
    while text:
        text = text[os.write(master, text) :]


def main() -> None:
    """Prints the medians of interleaved rounds."""
    warnings.simplefilter("ignore")
    batch = recorded()
    text, frames = encode(batch), len(batch)
    theirs, ours = [], []
    for _ in range(ROUNDS):
        theirs.append(python_can_us(text, frames))
        ours.append(ours_us(text, frames))
    theirs_us, our_us = statistics.median(theirs), statistics.median(ours)
    print(f"slcan through a pty, {frames} frames, medians of {ROUNDS} interleaved rounds, CPU of the reading thread")
    print(f"python-can {theirs_us:8.2f} us/frame")
    print(f"packtwin   {our_us:8.2f} us/frame   {theirs_us / our_us:.0f} x cheaper")


if __name__ == "__main__":
    main()
