"""The agent: one process that reads every bus, puts a Sample per pack into the outbox, and sends what is there.

Tasks: one per source (read tick 0.1 s), one that measures, one that flushes. The uplink, the updates, the estimates and
a source that is being opened block while they wait for an answer, so each has a thread of its own that nothing else
waits for; what is stored has one, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import secrets
import signal
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from edge.capture.courier import Courier
from edge.clock import Clock, kernel_boot_id
from edge.config import Config
from edge.lane import Lane
from edge.lanes import build_lanes, build_recorder
from edge.metrics import serve_metrics
from edge.models import Models
from edge.outbox.box import Outbox
from edge.outbox.records import Measured
from edge.packs import Packs
from edge.page.server import serve_page
from edge.page.wishes import Wishes
from edge.sources.source import READ_TICK_S, SourceError
from edge.status import RUNNING_FILE, agent_status, note_running
from edge.threads import Storing, in_daemon
from edge.transport import transport_of
from edge.uplink import Uplink, UplinkSettings
from edge.watchdog import Pulse, Systemd, keep_told

if TYPE_CHECKING:
    from edge.readable import Readable

log = logging.getLogger(__name__)

_FLUSH_CHECK_S: Final = 1.0
_RECORD_S: Final = 1.0
_FIRST_RETRY_S: Final = 0.5
_LONGEST_RETRY_S: Final = 2.0
_LET_GO_S: Final = 0.2  # for a source that is being opened when the agent ends; then it is closed under it
_SILENT_S: Final = {"flush": 90.0, "uplink": 120.0}  # a slow disk or network takes its time, but not for ever
_SOURCE_SILENT_S: Final = 60.0
_OPEN_S: Final = 55.0  # then an `open` that has not returned is told; less than what counts as stuck
_MEASURE_SILENT_S: Final = 60.0  # beside sample_s
_WAIT_SLICE_S: Final = 10.0
_MS_NS: Final = 1_000_000
_SECOND_NS: Final = 1_000_000_000


class Agent:
    """Everything that runs. Building it opens the outbox and checks every file it is told of (ConfigError)."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.clock = Clock(config.clock)
        self.lanes = build_lanes(config, self.clock.offset_ns)
        transport = transport_of(config.uplink, config.device)
        with contextlib.ExitStack() as opened:
            if transport is not None:
                opened.callback(transport.close)
            self.outbox = Outbox(
                config.device,
                config.outbox.cold_dir,
                config.outbox.hot_dir,
                max_bytes=config.outbox.max_bytes,
                flush_s=config.outbox.flush_s,
                now=self.clock.mono_ns,
                kernel_boot_id=kernel_boot_id(),
            )
            opened.callback(self.outbox.close)
            self.storing = Storing()
            opened.callback(self.storing.close)
            self.packs = Packs(config, self.lanes, self.outbox)
            opened.callback(self.packs.store.close)
            self.models = Models(config, self.lanes, self.clock, self.outbox)
            opened.callback(self.models.close)
            self.recorder = build_recorder(config, self.lanes, self.clock, self.outbox)
            if self.recorder is not None:
                opened.callback(self.recorder.close)
            self._opened = opened.pop_all()
        settings = UplinkSettings(mode=config.uplink.mode)
        self.uplink = Uplink(self.outbox, transport, self.clock, settings) if transport else None
        self.courier = Courier(self.recorder.store, self.outbox, self.clock) if self.recorder and transport else None
        self.readable = _readable(config, self.lanes)
        self.started_ns = self.clock.mono_ns()
        self.pulse = Pulse(self._patience_s(), self.started_ns)

    def close(self) -> None:
        """Lets go of all sources, writes what is pending to flash and lets go of all files."""
        for lane in self.lanes:
            self._opened.callback(lane.close)  # before all else, and whatever becomes of it
        self._opened.close()

    def status(self) -> dict[str, Any]:
        """What the page, the metrics and `edge status` show."""
        return agent_status(self)

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set. A bug in any task ends all of them and is raised."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._follow(lane), name=f"source {lane.config.pack_id}") for lane in self.lanes]
            tasks.append(group.create_task(self._measure(), name="measure"))
            tasks.append(group.create_task(self._flush(), name="flush"))
            tasks.append(group.create_task(keep_told(self.pulse, Systemd(), self.clock.mono_ns), name="watchdog"))
            tasks.append(group.create_task(in_daemon("estimates", self.models.estimate), name="estimates"))
            tasks.append(group.create_task(in_daemon("updates", self._update), name="updates"))
            if self.uplink is not None:
                tasks.append(group.create_task(in_daemon("uplink", self._send), name="uplink"))
            if self.recorder is not None:
                tasks.append(group.create_task(in_daemon("recorder", self._record), name="recorder"))
            if self.readable is not None:
                tasks.append(group.create_task(in_daemon("readable", self._mirror), name="readable"))
            await stop.wait()
            self.models.stop()
            for task in tasks:
                task.cancel()

    async def _follow(self, lane: Lane) -> None:
        """Keeps one source open and reads it each tick; a bus that is gone is tried again and disturbs no other."""
        retry_s = _FIRST_RETRY_S
        part = _source_part(lane)
        told: tuple[str, ...] = ()
        while True:
            try:
                await self._open(lane)
                while True:
                    await _next_tick(lane.intake.tick_s)
                    lane.tick(self.clock.mono_ns())
                    told = _tell(lane, told)
                    self._beat(part)
                    if lane.problem is not None:
                        log.info("reading %s from %s", lane.config.pack_id, lane.config.channel)
                        lane.problem = None
                        retry_s = _FIRST_RETRY_S
            except SourceError as error:
                lane.intake.close()
                self._beat(part)
                _tell_problem(lane, str(error))
                lane.retries += 1
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, _LONGEST_RETRY_S)

    async def _open(self, lane: Lane) -> None:
        """Opens a source beside the loop. One that never returns is told and left to it: another would hang beside it.

        Nor is it a reason to start the agent anew, which would take the other packs with it.
        """

        def waits() -> None:
            self._beat(_source_part(lane))
            _tell_problem(lane, f"{lane.config.channel} does not open and says nothing: look after what is behind it")

        opening = f"open {lane.config.pack_id}"
        await in_daemon(opening, lambda _: lane.intake.open(), _LET_GO_S, each_s=_OPEN_S, waits=waits)

    async def _measure(self) -> None:
        """Takes one Sample of every pack each sample_s and puts them into the outbox, all or none."""
        interval_ns = int(self.config.sample_s * _SECOND_NS)
        due_ns = self.clock.mono_ns()
        while True:
            now_ns = self.clock.mono_ns()
            # After a stall or a suspend the times that have passed are skipped, not made up for.
            due_ns += interval_ns * max(1, -(-(now_ns - due_ns) // interval_ns))
            await asyncio.sleep((due_ns - now_ns) / _SECOND_NS)
            mono_ns, t_ns = self._now_ms()
            samples = [sample for lane in self.lanes if (sample := lane.sample(mono_ns, t_ns)) is not None]
            lossy = {lane.config.pack_id for lane in self.lanes if lane.is_lossy}
            is_stored = await self.storing.run(partial(self._keep, samples, lossy, mono_ns, t_ns))
            for lane in self.lanes:
                lane.intake.settle(is_stored=is_stored)
            self._beat("measure")

    def _keep(self, samples: list[Measured], lossy: set[str], mono_ns: int, t_ns: int | None) -> None:
        """Measures and stores the Samples; now and then also leaves the questions for the model."""
        try:
            self.packs.keep(samples, lossy)
        finally:
            if self.models.estimator.due(mono_ns):
                self.models.estimator.offer(self.packs.questions(mono_ns, t_ns))

    async def _flush(self) -> None:
        """Lets the outbox and the packs' history write to flash what has waited too long."""
        while True:
            await asyncio.sleep(_FLUSH_CHECK_S)
            await self.storing.run(self._flush_both)
            self._beat("flush")

    def _flush_both(self) -> None:
        now_ns = self.clock.mono_ns()
        try:
            self.outbox.flush(now_ns)
        finally:
            self.packs.store.flush(now_ns)

    def _send(self, stopping: threading.Event) -> None:
        assert self.uplink is not None
        wait_s = 0.0
        while not stopping.wait(min(wait_s, _WAIT_SLICE_S)):
            self._beat("uplink")
            wait_s = max(wait_s - _WAIT_SLICE_S, 0.0) or self.uplink.step(self.clock.mono_ns()).wait_s

    def _record(self, stopping: threading.Event) -> None:
        assert self.recorder is not None
        while not stopping.wait(_RECORD_S):
            self.recorder.step()
            if self.courier is not None and self.uplink is not None:
                self.courier.step(is_idle=self.uplink.state.connected and self.uplink.state.problem is None)

    def _mirror(self, stopping: threading.Event) -> None:
        assert self.readable is not None
        wait_s = 0.0
        while not stopping.wait(wait_s):
            wait_s = self.readable.step()
        self.readable.close()

    def _update(self, stopping: threading.Event) -> None:
        self.models.update(stopping, lambda: self.uplink.state.desired_bundle if self.uplink else None)

    def _beat(self, part: str) -> None:
        self.pulse.beat(part, self.clock.mono_ns())

    def _patience_s(self) -> dict[str, float]:
        """How long each part that there is may be silent before systemd should start the agent anew."""
        parts = {part: limit_s for part, limit_s in _SILENT_S.items() if part != "uplink" or self.uplink is not None}
        sources = {_source_part(lane): _SOURCE_SILENT_S for lane in self.lanes}
        return {"measure": self.config.sample_s + _MEASURE_SILENT_S, **parts, **sources}

    def _now_ms(self) -> tuple[int, int | None]:
        """(mono_ns, t_ns) of the same instant, in whole ms."""
        mono_ns = self.clock.mono_ns() // _MS_NS * _MS_NS
        offset_ns = self.clock.offset_ns()
        return mono_ns, None if offset_ns is None else round((mono_ns + offset_ns) / _MS_NS) * _MS_NS


def _source_part(lane: Lane) -> str:
    return f"source {lane.config.pack_id}"


def run_agent(config: Config) -> int:
    """Runs the agent until SIGTERM or SIGINT; 0 when it ended as asked."""
    agent = Agent(config)
    _give_back()
    running = (config.outbox.hot_dir or config.outbox.cold_dir) / RUNNING_FILE
    try:
        key = secrets.token_hex(16)
        page_server = serve_page(config.page, agent.status, Wishes(agent.recorder, key))
        with page_server as page, serve_metrics(config.metrics, agent.status):
            with contextlib.suppress(OSError):  # a full disk: `edge status` then reads the files instead
                note_running(running, {"pid": os.getpid(), "page": page, "key": key})
            log.info("agent of %s runs: page %s, boot %016x", config.device, page, agent.outbox.boot)
            asyncio.run(_until_signal(agent))
    finally:
        running.unlink(missing_ok=True)
        agent.close()
    log.info("stopped; what is not acknowledged stays in the outbox")
    return 0


def _give_back() -> None:
    """Lets the system have the memory that reading the files took, and the collector pass over what stays for good."""
    gc.collect()
    gc.freeze()
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


async def _until_signal(agent: Agent) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await agent.run(stop)


def _readable(config: Config, lanes: list[Lane]) -> Readable | None:
    if config.readable is None:
        return None
    from edge.readable import Readable  # and with it MQTT, which most do not need

    return Readable(config.readable, config.device, lanes)


def _tell_problem(lane: Lane, problem: str) -> None:
    """Why the source cannot be read now; in the log once."""
    if lane.problem != problem:
        log.warning("no frames of %s: %s; trying again", lane.config.pack_id, problem)
    lane.problem = problem


def _tell(lane: Lane, told: tuple[str, ...]) -> tuple[str, ...]:
    """Writes those of the source's notes to the log that are new since `told`; returns all that stand."""
    notes = lane.intake.notes
    for note in notes:
        if note not in told:
            log.warning("%s: %s", lane.config.pack_id, note)
    return notes


async def _next_tick(tick_s: float = READ_TICK_S) -> None:
    """Sleeps to the next tick; sources of one pace wake at once, which costs the CPU one wake-up."""
    await asyncio.sleep(tick_s - asyncio.get_running_loop().time() % tick_s)
