"""The Events that this device raises itself, and the file by which a restart knows what stands."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from shared.alerts import BANDS, Band, Watch
from shared.records import Estimate, Event

log = logging.getLogger(__name__)

FILE: Final = "events.json"


class Events:
    """Watches the bands of Estimates. One thread."""

    def __init__(self, folder: Path, boot: int, bands: Mapping[str, Band] = BANDS) -> None:
        """folder: on flash. What cannot be read there is forgotten with one line in the log."""
        self._path = folder / FILE
        self._watch = Watch(boot, bands=bands)
        try:
            self._watch = Watch(boot, json.loads(self._path.read_text("utf-8")), bands)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s cannot be read, standing events are forgotten: %s", self._path, error)
        self._kept = not self._watch.untold

    def look(self, estimates: Iterable[Estimate]) -> list[Event]:
        """The Events to store with these Estimates; they come again until `stored` is called."""
        changed = False
        for each in estimates:
            for code, value in (("rul_band", each.rul_cycles), ("failure_probability_band", each.failure_probability)):
                changed |= self._watch.look(each.pack_id, code, value, each.mono_ns, each.t_ns)
        if changed:
            self._kept = False
            self._keep()
        return self._watch.untold

    def stored(self) -> None:
        """The Events of the last `look` are in the outbox."""
        if self._watch.untold or not self._kept:
            self._watch.told()
            self._kept = self._keep()

    def severity(self, pack_id: str, code: str) -> str | None:
        """What stands for a pack; None = good."""
        return self._watch.severity(pack_id, code)

    def _keep(self) -> bool:
        """Writes the state so that a kill or a power cut leaves the old or the new one; False when it cannot."""
        new = self._path.with_suffix(".new")
        try:
            with new.open("w", encoding="utf-8") as file:
                json.dump(self._watch.state, file)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            log.warning("%s cannot be written: %s", self._path, error)
            return False
        return True
