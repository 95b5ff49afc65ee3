"""The agent: one process that reads every bus, puts a Sample per pack into the outbox, and sends what is there.

Tasks: one per source (read tick 0.1 s), one that measures, one that flushes. The uplink, the updates and the estimates
block while they wait for an answer, so each has a thread of its own that nothing else waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge.clock import Clock, kernel_boot_id
from edge.config import Config
from edge.dbc import Dbc
from edge.lane import Lane
from edge.mapping import Mapping, load_mapping
from edge.metrics import serve_metrics
from edge.models import Models
from edge.outbox import Measured, Outbox, OutboxError
from edge.packs import Packs
from edge.page.server import serve_page
from edge.sources.can import SourceError, source_of
from edge.status import RUNNING_FILE, agent_status
from edge.transport import transport_of
from edge.uplink import Uplink, UplinkSettings
from edge.watchdog import Pulse, Systemd, keep_told
from shared.errors import ConfigError

if TYPE_CHECKING:
    from edge.readable import Readable

log = logging.getLogger(__name__)

TICK_S: Final = 0.1
_FLUSH_CHECK_S: Final = 1.0
_FIRST_RETRY_S: Final = 0.5
_LONGEST_RETRY_S: Final = 2.0
_STOP_S: Final = 3.0
_SILENT_S: Final = {"flush": 90.0, "uplink": 120.0}  # a slow disk or network takes its time, but not for ever
_SOURCE_SILENT_S: Final = 60.0
_MEASURE_SILENT_S: Final = 60.0  # beside sample_s
_WAIT_SLICE_S: Final = 10.0
_MS_NS: Final = 1_000_000
_SECOND_NS: Final = 1_000_000_000


class Agent:
    """Everything that runs. Building it opens the outbox and checks every file it is told of (ConfigError)."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.lanes = build_lanes(config)
        self.clock = Clock(config.clock)
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
            self.packs = Packs(config, self.lanes, self.outbox)
            opened.callback(self.packs.store.close)
            self.models = Models(config, self.lanes, self.clock, self.outbox)
            opened.callback(self.models.close)
            self._opened = opened.pop_all()
        settings = UplinkSettings(mode=config.uplink.mode)
        self.uplink = Uplink(self.outbox, transport, self.clock, settings) if transport else None
        self.readable = _readable(config, self.lanes)
        self.started_ns = self.clock.mono_ns()
        self.pulse = Pulse(self._patience_s(), self.started_ns)
        self.store_problem: str | None = None

    def close(self) -> None:
        """Writes what is pending to flash and lets go of all files."""
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
            tasks.append(group.create_task(_in_daemon("estimates", self.models.estimate), name="estimates"))
            tasks.append(group.create_task(_in_daemon("updates", self._update), name="updates"))
            if self.uplink is not None:
                tasks.append(group.create_task(_in_daemon("uplink", self._send), name="uplink"))
            if self.readable is not None:
                tasks.append(group.create_task(_in_daemon("readable", self._mirror), name="readable"))
            await stop.wait()
            self.models.stop()
            for task in tasks:
                task.cancel()

    async def _follow(self, lane: Lane) -> None:
        """Keeps one source open and reads it each tick; a bus that is gone is tried again and disturbs no other."""
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                await asyncio.to_thread(lane.source.open)
                while True:
                    await _next_tick()
                    lane.tick(self.clock.mono_ns())
                    self._beat(_source_part(lane))
                    if lane.problem is not None:
                        log.info("reading %s from %s", lane.config.pack_id, lane.config.channel)
                        lane.problem = None
                        retry_s = _FIRST_RETRY_S
            except SourceError as error:
                lane.source.close()
                self._beat(_source_part(lane))
                if lane.problem != str(error):
                    log.warning("no frames of %s: %s; trying again", lane.config.pack_id, error)
                lane.problem = str(error)
                lane.retries += 1
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, _LONGEST_RETRY_S)

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
            await self._store(partial(self._keep, samples, mono_ns, t_ns))
            self._beat("measure")

    def _keep(self, samples: list[Measured], mono_ns: int, t_ns: int | None) -> None:
        """Measures and stores the Samples; now and then also leaves the questions for the model."""
        try:
            self.packs.keep(samples)
        finally:
            if self.models.estimator.due(mono_ns):
                self.models.estimator.offer(self.packs.questions(mono_ns, t_ns))

    async def _flush(self) -> None:
        """Lets the outbox and the packs' history write to flash what has waited too long."""
        while True:
            await asyncio.sleep(_FLUSH_CHECK_S)
            await self._store(lambda: self.outbox.flush(self.clock.mono_ns()))
            await asyncio.to_thread(self.packs.store.flush, self.clock.mono_ns())
            self._beat("flush")

    async def _store(self, work: Callable[[], object]) -> None:
        """Runs work on the outbox in a thread; what it cannot store it has counted, here it is said once."""
        try:
            await asyncio.to_thread(work)
        except OutboxError as error:
            if self.store_problem is None:
                log.error("the outbox cannot store: %s", error)
            self.store_problem = str(error)
        else:
            if self.store_problem is not None:
                log.info("the outbox stores again")
            self.store_problem = None

    def _send(self, stopping: threading.Event) -> None:
        assert self.uplink is not None
        wait_s = 0.0
        while not stopping.wait(min(wait_s, _WAIT_SLICE_S)):
            self._beat("uplink")
            wait_s = max(wait_s - _WAIT_SLICE_S, 0.0) or self.uplink.step(self.clock.mono_ns()).wait_s

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


def build_lanes(config: Config) -> list[Lane]:
    """One lane per [[source]]; each mapping and each DBC is read once."""
    mappings: dict[Path, Mapping] = {}
    databases: dict[Path, Dbc] = {}
    lanes = []
    for source in config.sources:
        if source.mapping_path not in mappings:
            mappings[source.mapping_path] = load_mapping(source.mapping_path)
        mapping = mappings[source.mapping_path]
        if mapping.dbc is None:
            raise ConfigError(f'{mapping.path}: [csv] is for replay, a CAN bus needs dbc = "FILE"')
        if mapping.dbc not in databases:
            databases[mapping.dbc] = Dbc(mapping.dbc)
        lanes.append(Lane(source, source_of(source), mapping, databases[mapping.dbc], config.sample_s))
    return lanes


def run_agent(config: Config) -> int:
    """Runs the agent until SIGTERM or SIGINT; 0 when it ended as asked."""
    agent = Agent(config)
    running = (config.outbox.hot_dir or config.outbox.cold_dir) / RUNNING_FILE
    try:
        with serve_page(config.page, agent.status) as page, serve_metrics(config.metrics, agent.status):
            with contextlib.suppress(OSError):  # a full disk: `edge status` then reads the files instead
                running.write_text(json.dumps({"pid": os.getpid(), "page": page}))
            log.info("agent of %s runs: page %s, boot %016x", config.device, page, agent.outbox.boot)
            asyncio.run(_until_signal(agent))
    finally:
        running.unlink(missing_ok=True)
        agent.close()
    log.info("stopped; what is not acknowledged stays in the outbox")
    return 0


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


async def _next_tick() -> None:
    """Sleeps to the next tick; all sources wake at once, which costs the CPU one wake-up."""
    await asyncio.sleep(TICK_S - asyncio.get_running_loop().time() % TICK_S)


async def _in_daemon(name: str, work: Callable[[threading.Event], None]) -> None:
    """Runs blocking `work` in a daemon thread until cancelled; then its event is set and it has `_STOP_S` to end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    stopping = threading.Event()

    def finish(error: BaseException | None) -> None:
        if not done.done():
            done.set_result(None) if error is None else done.set_exception(error)

    def body() -> None:
        error: BaseException | None = None
        try:
            work(stopping)
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(finish, error)

    threading.Thread(target=body, name=name, daemon=True).start()
    try:
        await asyncio.shield(done)
    except asyncio.CancelledError:
        stopping.set()
        await asyncio.wait([done], timeout=_STOP_S)
        raise
