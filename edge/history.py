"""The measurements of each pack over its life, kept so that killing the agent loses none of them.

Each step is written to tmpfs before the Sample goes to the outbox, and to flash every `flush_s`: SIGKILL costs nothing,
a power cut at most `flush_s`. What cannot be read is begun anew, and said.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from edge.history_file import Kept, read, write
from edge.record_files import file_sha256, records
from shared.errors import ConfigError
from shared.features import Features, FeatureStateError, History, Meter, PackFacts, Reading
from shared.records import Session

log = logging.getLogger(__name__)

FLUSH_S: Final = 600.0
MOST_PENDING: Final = 16
"""How many Sessions wait for the outbox to take them; older ones are dropped, and said."""
MOST_PASTS: Final = 16
_FOLDER: Final = "features"
_SECOND_NS: Final = 1_000_000_000
_DAY_S: Final = 86_400.0


class FeatureStore:
    """Meter and History of each pack. `step`, `delivered`, `vector`, `import_past`: one thread; `flush`: any other."""

    def __init__(self, hot_dir: Path | None, cold_dir: Path, *, flush_s: float = FLUSH_S) -> None:
        """hot_dir None = there is no tmpfs: each step goes to cold_dir, without a sync. ConfigError if not writable."""
        self._cold = cold_dir / _FOLDER
        self._hot = (hot_dir or cold_dir) / _FOLDER
        self._flush_ns = int(flush_s * _SECOND_NS)
        self._packs: dict[str, _Pack] = {}
        self._lock = threading.Lock()
        self._flushed_ns: int | None = None
        self.problem: str | None = None
        """Why nothing can be kept now; None = all is well."""
        try:
            for folder in {self._cold, self._hot}:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{error.filename} cannot be made for the packs' history: {error.strerror}") from None

    def open(self, pack: PackFacts) -> None:
        """Begins with what is kept of the pack, if anything: the newer of the two files that can be read."""
        found = []
        for path in (self._hot_path(pack.pack_id), self._cold_path(pack.pack_id)):
            try:
                kept = read(path)
            except FeatureStateError as error:
                log.warning("the history of %s begins anew: %s %s", pack.pack_id, path, error)
            except OSError as error:
                log.warning("the history of %s begins anew: %s: %s", pack.pack_id, path, error.strerror)
            else:
                found += [kept] if kept else []
        self._packs[pack.pack_id] = _Pack(pack, max(found, key=lambda kept: kept.steps, default=Kept()))

    def step(self, pack_id: str, reading: Reading) -> tuple[Session, ...]:
        """Takes in the next Reading and keeps what follows from it.

        Returned are Sessions for the outbox, together with the Sample; call `delivered` when it has taken them. Until
        then they are returned again, after a restart too: so none is lost, and now and then one goes up twice.
        """
        pack = self._packs[pack_id]
        pack.feed(reading)
        self._keep(pack)
        return tuple(pack.kept.pending)

    def delivered(self, pack_id: str) -> None:
        """The outbox has the Sessions that `step` returned."""
        self._packs[pack_id].delivered()

    def vector(self, pack_id: str) -> Features:
        """The pack's features as they are now."""
        return self._packs[pack_id].vector()

    def meter(self, pack_id: str) -> Meter:
        """What measures the pack now."""
        return self._packs[pack_id].meter

    def history(self, pack_id: str) -> History:
        """The pack's Sessions so far."""
        return self._packs[pack_id].history

    def import_past(self, pack_id: str, path: Path) -> int:
        """Begins the pack's History with the Sessions of a file of records; how many, 0 = this file was taken before.

        The file is all that is known of the pack until now: another file later takes its place. Nothing of it is sent.
        ConfigError if it cannot be read or tells of another pack.
        """
        pack, digest = self._packs[pack_id], file_sha256(path)
        if digest in pack.kept.pasts:
            return 0
        history = History()
        for session in _sessions(path, pack_id):
            history.add(session)
        if not history.sessions:
            raise ConfigError(f"{path} holds no session of {pack_id}")
        if pack.history.sessions:
            log.warning("the history of %s begins anew with %s", pack_id, path)
        pack.begin_with(history, digest)
        self._keep(pack)
        self._keep_cold(pack)
        return history.sessions

    def flush(self, now_ns: int) -> None:
        """Writes to flash what has changed, every `flush_s`; `now_ns` is on the host's monotonic clock."""
        if self._flushed_ns is None:
            self._flushed_ns = now_ns
        if now_ns - self._flushed_ns >= self._flush_ns:
            self._flushed_ns = now_ns
            self._flush_all()

    def close(self) -> None:
        """Writes all to flash."""
        self._flush_all()

    def _flush_all(self) -> None:
        for pack in list(self._packs.values()):
            self._keep_cold(pack)

    def _keep(self, pack: _Pack) -> None:
        pack.body = pack.to_bytes()
        self._write(self._hot_path(pack.facts.pack_id), pack.body, durable=False)

    def _keep_cold(self, pack: _Pack) -> None:
        with self._lock:
            body = pack.body
            if body is not pack.on_flash and self._write(self._cold_path(pack.facts.pack_id), body, durable=True):
                pack.on_flash = body

    def _write(self, path: Path, body: bytes, *, durable: bool) -> bool:
        """Whether it is written. Measuring goes on without: what could not be kept is kept with the next step."""
        try:
            write(path, body, durable=durable)
        except OSError as error:
            if self.problem is None:
                log.error("the packs' history cannot be kept: %s: %s", path, error.strerror)
            self.problem = f"{path}: {error.strerror}"
            return False
        if self.problem is not None and path.name in self.problem:
            log.info("the packs' history is kept again")
            self.problem = None
        return True

    def _hot_path(self, pack_id: str) -> Path:
        return self._hot / f"{pack_id}.now"

    def _cold_path(self, pack_id: str) -> Path:
        return self._cold / f"{pack_id}.kept"


class _Pack:
    """One pack: what measures it, and what is kept of that."""

    def __init__(self, facts: PackFacts, kept: Kept) -> None:
        self.facts, self.kept = facts, kept
        self.history = History()
        self.meter = Meter(facts)
        self.body = self.on_flash = b""
        self._latest: Reading | None = None
        try:
            if kept.history:
                self.history = History.from_bytes(kept.history)
            if kept.meter:
                self.meter = Meter(facts, kept.meter)
        except (FeatureStateError, ValueError) as error:
            log.warning("the measurements of %s begin anew: %s", facts.pack_id, error)
        if not self.history.sessions:
            kept.pasts = []  # they are not in it: they may be taken again
        self._note()
        if kept.steps:  # what only tmpfs kept goes to flash, also when the pack says nothing more
            self.body = self.to_bytes()

    def feed(self, reading: Reading) -> None:
        self._latest = reading
        session = self.meter.feed(reading)
        if session is None:
            return
        session = self._aged(session)
        self.history.add(session)
        self.kept.pending.append(session)
        if len(self.kept.pending) > MOST_PENDING:
            log.warning("the outbox takes nothing: a session of %s is dropped", self.facts.pack_id)
            del self.kept.pending[0]
        self._note()

    def delivered(self) -> None:
        if self.kept.pending:
            self.kept.pending.clear()
            self.kept.note()

    def begin_with(self, history: History, digest: str) -> None:
        """Another record of the pack's life until now."""
        self.history = history
        self.kept.pasts = [*self.kept.pasts, digest][-MOST_PASTS:]
        self._note()

    def vector(self) -> Features:
        """With what the BMS says now, and the age now where it can be told."""
        latest, aged_days = self._latest, self.history.age_days
        if latest is None:
            return self.history.vector()
        if aged_days is not None:
            aged_days += self.meter.elapsed_s / _DAY_S
        if self.facts.commissioned_t_ns is not None and latest.t_ns is not None:
            aged_days = max(latest.t_ns - self.facts.commissioned_t_ns, 0) / (_DAY_S * _SECOND_NS)
        cycles = latest.cycles
        if cycles is None and latest.throughput_ah is not None:
            cycles = latest.throughput_ah / 2 / self.facts.nominal_ah
        return self.history.vector(cycles=cycles, soh_bms=latest.soh_bms, age_days=aged_days)

    def to_bytes(self) -> bytes:
        self.kept.steps += 1
        self.kept.meter = self.meter.to_bytes()
        return self.kept.to_bytes()

    def _aged(self, session: Session) -> Session:
        """Without a day of commissioning the age goes on from what the past said."""
        before = self.history.age_days
        if session.age_days is not None or before is None:
            return session
        reasons = {name: reason for name, reason in session.reasons.items() if name != "age_days"}
        return replace(session, age_days=before + session.duration_s / _DAY_S, reasons=reasons)

    def _note(self) -> None:
        self.kept.history = self.history.to_bytes()
        self.kept.note()


def _sessions(path: Path, pack_id: str) -> Iterator[Session]:
    """The Sessions of a file; its other records are passed over."""
    for record in records(path):
        if record.pack_id != pack_id:
            raise ConfigError(f"{path} tells of {record.pack_id}, it should tell of {pack_id}")
        if isinstance(record, Session):
            yield record
