"""The models of this device: which one runs, what it says of the packs, and what the cloud hears of both."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from edge.clock import Clock
from edge.config import Config
from edge.estimate import Estimator
from edge.events import Events
from edge.inference import probe
from edge.lane import Lane
from edge.model_command import models_folder
from edge.ota.fetch import Origin
from edge.ota.state import Told
from edge.ota.updates import Updates
from edge.outbox.box import Outbox
from edge.outbox.records import OutboxError
from shared.alerts import bands_of
from shared.bundle import HARDWARE
from shared.errors import ConfigError
from shared.features import schema_id
from shared.records import Estimate, Report

log = logging.getLogger(__name__)

_LOOK_S: Final = 0.5
_AFTER_BUG_S: Final = 30.0


class Models:
    """Two loops for threads of their own, `estimate` and `update`; a bug in either ends no measuring.

    Raises ConfigError where trust_root is no root metadata, StoreError where the models' folder cannot be used.
    """

    def __init__(self, config: Config, lanes: Sequence[Lane], clock: Clock, outbox: Outbox) -> None:
        self._clock, self._outbox = clock, outbox
        self._lanes: Mapping[str, Lane] = {lane.config.pack_id: lane for lane in lanes}
        self.updates = Updates(
            models_folder(config),
            root=_root(config),
            origin=_origin(config),
            now_t_ns=clock.t_ns,
            feature_schema=schema_id(),
            hardware=HARDWARE,
            probe=probe,
            report=self._report,
            chemistry={chemistry for lane in lanes if (chemistry := lane.mapping.pack.chemistry) is not None},
            mono_ns=clock.mono_ns,
        )
        self.estimator = Estimator(
            self.updates, feature_schema=schema_id(), interval_s=config.prediction_s, now=clock.mono_ns
        )
        self._events = Events(config.outbox.cold_dir, outbox.boot, bands_of(config.bands))
        self.dropped = 0
        """Estimates that the outbox could not store."""

    def estimate(self, stopping: threading.Event) -> None:
        """Asks the model until `stopping`."""
        try:
            while not stopping.is_set():
                try:
                    self._say(self.estimator.step(_LOOK_S))
                except Exception:
                    log.exception("no estimates for %.0f s", _AFTER_BUG_S)
                    stopping.wait(_AFTER_BUG_S)
        finally:
            self.estimator.close()

    def update(self, stopping: threading.Event, desired: Callable[[], str | None]) -> None:
        """Follows what the cloud desires until `stopping`."""
        wait_s = 0.0
        while not stopping.wait(wait_s):
            try:
                wait_s = self.updates.step(desired())
            except Exception:
                log.exception("no updates of models for %.0f s", _AFTER_BUG_S)
                wait_s = _AFTER_BUG_S

    def stop(self) -> None:
        """Ends a download that is under way."""
        self.updates.stop()

    def close(self) -> None:
        """Lets go of the folder. The process ends with the thread of `estimate`."""
        self.updates.close()

    def status(self) -> dict[str, Any]:
        """What `edge model status` shows, why nothing moves, and how the process of the active model does."""
        inference = {**self.estimator.status, "dropped": self.dropped}
        return {**self.updates.status(), "problem": self.updates.problem, "inference": inference}

    def _say(self, estimates: list[Estimate]) -> None:
        """Shows and stores the Estimates and what they give reason to tell."""
        if not estimates:
            return
        for estimate in estimates:
            self._lanes[estimate.pack_id].say(estimate)
        events = self._events.look(estimates)
        try:
            self._outbox.put([*estimates, *events])
        except OutboxError:  # who measures has said why; the Events come again
            self.dropped += len(estimates)
        else:
            self._events.stored()
            for event in events:
                track = self._lanes[event.pack_id].track
                if track is not None and event.severity == "critical" and event.cleared_t_ns is None:
                    track.critical(event.code, event.mono_ns)

    def _report(self, told: Told) -> None:
        self._outbox.put(
            [
                Report(
                    seq=0,
                    mono_ns=self._clock.mono_ns(),
                    t_ns=told.t_ns,
                    model_id=told.model_id,
                    counter=told.counter,
                    step=told.step,
                    reason=told.reason,
                    numbers=dict(told.numbers),
                )
            ]
        )


def _root(config: Config) -> bytes | None:
    try:
        return config.trust_root.read_bytes() if config.trust_root else None
    except OSError as error:
        raise ConfigError(f"{config.trust_root} cannot be read: {error.strerror}") from None


def _origin(config: Config) -> Origin | None:
    uplink = config.uplink
    url = uplink.models_url or uplink.url
    over_mqtt = url.startswith("mqtt")
    if not uplink.url or (over_mqtt and config.trust_root is None):
        return None
    if over_mqtt:
        raise ConfigError(
            f"{config.path}: models do not come through a broker: set [uplink] models_url to the cloud's https "
            "address, or leave out trust_root"
        )
    ca_file = str(uplink.ca_file) if uplink.ca_file else None
    return Origin(url=url, token=uplink.token, plaintext_hosts=uplink.plaintext_hosts, ca_file=ca_file)
