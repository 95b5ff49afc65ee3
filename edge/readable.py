"""Readable live values for other software: each pack's newest Sample as retained topics on a broker of the user's.

It is a mirror, not a road: nothing is kept for a broker that is away, and nothing of it holds anything else up.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

from edge.assemble import readable
from edge.config import ReadableConfig
from edge.lane import Lane
from edge.mqtt import Broker, Link, Will
from edge.readable_values import EARLIER_TOPIC, discovery, earlier, topic, values
from edge.transport import Forbidden, Unavailable

log = logging.getLogger(__name__)

_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 60.0


class Readable:
    """Call `step` again and again from one thread; it blocks only while it connects."""

    def __init__(self, config: ReadableConfig, device: str, lanes: Sequence[Lane]) -> None:
        self._config, self._device, self._lanes = config, device, lanes
        self._broker = Broker(
            host=config.host,
            port=config.port,
            tls=config.tls,
            ca_file=str(config.ca_file) if config.ca_file else None,
            user=config.user,
            password=config.password,
            table="readable.",
        )
        self._status_topic = f"packtwin/live-status/{device}"
        self._link: Link | None = None
        self._last: dict[str, bytes] = {}  # topic -> what it holds, as far as this connection knows
        self._shown_ns: dict[str, int] = {}
        self._failures = 0
        self.problem: str | None = "not connected yet"

    def step(self) -> float:
        """Publishes what has changed; seconds until it makes sense to call again."""
        try:
            link = self._connected()
            for lane in self._lanes:
                self._show(link, lane)
        except (Unavailable, Forbidden) as error:
            return self._back_off(error)
        return min(1.0, self._config.interval_s)

    def close(self) -> None:
        """Tells that nothing more comes."""
        if self._link is not None:
            self._link.close()

    def _connected(self) -> Link:
        if self._link is not None:
            if self._link.ended is None:
                return self._link
            why, self._link = self._link.ended, None
            raise why
        will = Will(self._status_topic, b"online", b"offline")
        link = Link(self._broker, f"packtwin-live-{self._device}", will=will, on_message=lambda message: None)
        link.open()
        log.info("live values go to %s:%d", self._broker.host, self._broker.port)
        self._link, self.problem, self._failures = link, None, 0
        self._last.clear()
        self._shown_ns.clear()
        return link

    def _show(self, link: Link, lane: Lane) -> None:
        latest, estimate, pack_id = lane.latest, lane.estimate, lane.config.pack_id
        if latest is None:
            return
        sample = readable(latest)
        told = values(sample, estimate)
        for field, value in told.items():
            self._keep(link, lane, field, value)
        if self._config.earlier and self._shown_ns.get(pack_id) != latest.mono_ns:
            link.publish(EARLIER_TOPIC, _json(earlier(sample, estimate, self._config.bands)), qos=0)
        self._shown_ns[pack_id] = latest.mono_ns

    def _keep(self, link: Link, lane: Lane, field: str, value: Any) -> None:
        where, body = topic(lane.config.pack_id, field), _json(value)
        known = self._last.get(where)
        if known == body or (known is None and value is None):  # what this pack never tells needs no topic
            return
        if known is None and self._config.discovery:
            found = discovery(lane.config.pack_id, field, _about(lane), self._config.discovery, self._status_topic)
            if found is not None:
                link.publish(found[0], _json(found[1]), qos=1, retain=True)
        link.publish(where, body, qos=0, retain=True)
        self._last[where] = body

    def _back_off(self, error: Unavailable | Forbidden) -> float:
        if self.problem != str(error):
            log.warning("no live values for other software: %s", error)
        self.problem = str(error)
        self._failures += 1
        return random.uniform(_FIRST_WAIT_S, min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(self._failures, 10)))


def _about(lane: Lane) -> Mapping[str, Any]:
    """The pack as a device of Home Assistant's."""
    pack, pack_id = lane.mapping.pack, lane.config.pack_id
    words = [pack.chemistry and pack.chemistry.upper(), pack.series and f"{pack.series}s"]
    model = " ".join(word for word in words if word)
    return {"identifiers": [f"packtwin_{pack_id}"], "name": pack_id, "manufacturer": "packtwin"} | (
        {"model": model} if model else {}
    )


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
