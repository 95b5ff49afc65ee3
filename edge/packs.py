"""What becomes of the Samples of one step: they are measured, Sessions end, all of it goes into the outbox.

Called by one thread at a time, never the one that reads the buses. Nothing that goes wrong with features costs a
Sample.
"""

from __future__ import annotations

import gzip
import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

from edge.config import Config
from edge.config_sources import SourceConfig
from edge.estimate import Question
from edge.history import FeatureStore
from edge.lane import Lane
from edge.mapping import Mapping
from edge.outbox.box import Outbox
from edge.outbox.records import Measured
from shared.features import PackFacts
from shared.reading import Reader
from shared.records import Session

log = logging.getLogger(__name__)

NO_FEATURES: Final = "no_features"
"""Why there is no Estimate: no Session of the pack has ended yet."""
NO_FACTS: Final = "pack_facts"
"""Why there is none: the mapping does not say chemistry, series and nominal_ah."""
BROKEN: Final = "feature_error"
"""Why there is none: a bug, see the log."""


class Packs:
    """Features and outbox of all packs of this device. Raises ConfigError for a past that cannot be read."""

    def __init__(self, config: Config, lanes: Sequence[Lane], outbox: Outbox) -> None:
        self._outbox = outbox
        self.store = FeatureStore(config.outbox.hot_dir, config.outbox.cold_dir)
        self._chemistry = {lane.config.pack_id: lane.mapping.pack.chemistry for lane in lanes}
        self._readers: dict[str, Reader] = {}
        self._without: dict[str, str] = {}
        self.simulated: set[str] = set()
        """Packs whose past was made up: what follows from it must be labelled."""
        for lane in lanes:
            self._open(lane.config, lane.mapping)

    def _open(self, source: SourceConfig, mapping: Mapping) -> None:
        pack, pack_id = mapping.pack, source.pack_id
        if pack.chemistry is None or pack.series is None or pack.nominal_ah is None:
            log.warning("no features of %s: [pack] of %s lacks chemistry, series or nominal_ah", pack_id, mapping.path)
            self._without[pack_id] = NO_FACTS
            return
        self.store.open(
            PackFacts(
                pack_id=pack_id,
                chemistry=pack.chemistry,
                series=pack.series,
                nominal_ah=pack.nominal_ah,
                commissioned_t_ns=source.commissioned_t_ns,
            )
        )
        self._readers[pack_id] = Reader(mapping.layout)
        if source.past is not None:
            self._import(pack_id, source.past)

    def _import(self, pack_id: str, past: Path) -> None:
        count = self.store.import_past(pack_id, past)
        if count:
            log.info("%d sessions of %s from %s", count, pack_id, past)
        if _is_simulated(past):
            self.simulated.add(pack_id)

    def keep(self, samples: Sequence[Measured], lossy: Collection[str] = ()) -> None:
        """Measures the Samples of one step, keeps what follows from them, then stores them with the ended Sessions.

        lossy: packs of which frames were lost.
        Raises OutboxError: the Samples are not stored; the Sessions come again with the next ones.
        """
        ended: dict[str, tuple[Session, ...]] = {}
        for sample in samples:
            sessions = self._measured(sample)
            if sessions:
                ended[sample.pack_id] = sessions
        if samples:
            self._outbox.put([*(each for sessions in ended.values() for each in sessions), *samples], lossy)
        for pack_id in ended:
            self.store.delivered(pack_id)

    def _measured(self, sample: Measured) -> tuple[Session, ...]:
        reader = self._readers.get(sample.pack_id)
        if reader is None:
            return ()
        try:
            return self.store.step(sample.pack_id, reader.read(sample.row, sample.mono_ns, sample.t_ns))
        except Exception:  # a bug in there must not cost the Sample
            self._give_up(sample.pack_id)
            return ()

    def questions(self, mono_ns: int, t_ns: int | None) -> list[Question]:
        """What the model is to be asked of each pack now."""
        return [self._question(pack_id, mono_ns, t_ns) for pack_id in self._chemistry]

    def _question(self, pack_id: str, mono_ns: int, t_ns: int | None) -> Question:
        about: dict[str, Any] = {
            "pack_id": pack_id,
            "chemistry": self._chemistry[pack_id],
            "mono_ns": mono_ns,
            "t_ns": t_ns,
        }
        if pack_id not in self._without and not self.store.history(pack_id).sessions:
            return Question(**about, features=None, reason=NO_FEATURES)
        if pack_id not in self._without:
            try:
                return Question(**about, features=self.store.vector(pack_id).values)
            except Exception:
                self._give_up(pack_id)
        return Question(**about, features=None, reason=self._without[pack_id])

    def _give_up(self, pack_id: str) -> None:
        """From here on this pack is read and stored, not measured; a restart tries again."""
        log.exception("no more features of %s until the agent starts anew", pack_id)
        self._readers.pop(pack_id, None)
        self._without[pack_id] = BROKEN


def _is_simulated(past: Path) -> bool:
    """Whether any Session of the file says that it was not measured."""
    with gzip.open(past) if past.suffix == ".gz" else past.open("rb") as file:
        return any(b'"simulated":true' in line.replace(b" ", b"") for line in file)
