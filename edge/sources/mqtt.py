"""A gateway of somebody else that publishes a pack on a broker: messages in, Fields out, nothing is ever published.

The session outlives the connection and this process: what comes meanwhile waits at the broker. A message is
acknowledged only when the Sample that holds it is stored, so whatever is killed in between, it comes again.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from edge.capture.recorder import Track
from edge.config_sources import SourceConfig
from edge.decode import Fields
from edge.decode_messages import Heard, MessageDecoder
from edge.mapping import Mapping as FieldMapping
from edge.mapping_mqtt import topics
from edge.mqtt import Broker, Link, Message, Session
from edge.sources.mqtt_debts import Debts
from edge.sources.mqtt_names import NamesFile
from edge.sources.source import READ_TICK_S, SourceError
from edge.transport import Forbidden, Unavailable
from shared.fields import SPANNED

Spans = dict[str, tuple[float, float]]

_AT_ONCE: Final = 2000
"""Messages that may wait for being stored: a second of gateways that publish each cell on a topic of its own."""
_MOST_WAITING: Final = 10_000


class MqttIntake:
    """See Intake. `offset_ns`: UTC - mono_ns by the agent's clock, None = not known."""

    buffer_bytes: int | None = None
    tick_s = READ_TICK_S

    def __init__(
        self,
        config: SourceConfig,
        mapping: FieldMapping,
        device: str,
        offset_ns: Callable[[], int | None],
        names_file: NamesFile,
    ) -> None:
        mqtt, published = config.mqtt, mapping.published
        assert mqtt is not None and published is not None
        self.track: Track | None = None
        self.pace_s = published.period_s
        self._broker = Broker(
            host=mqtt.host,
            port=mqtt.port,
            tls=mqtt.tls,
            ca_file=str(mqtt.ca_file) if mqtt.ca_file else None,
            user=mqtt.user,
            password=mqtt.password,
        )
        self._client_id = mqtt.client_id or f"packtwin-{device}-{config.pack_id}"
        self._session = Session(expiry_s=mqtt.session_s, at_once=_AT_ONCE)
        self._topics = topics(published, [target.signal for target in mapping.targets])
        self._decoder = MessageDecoder(mapping)
        self._names_file = names_file
        self._knows_names = self._decoder.names.are_complete  # where there is no + there is no file
        self._offset_ns = offset_ns
        self._link: Link | None = None
        self._lock = threading.Lock()
        self._inbox: deque[Message] = deque()  # filled by the connection's own thread
        self._dropped = 0
        self._waiting: list[Heard] = []  # read, not yet decoded
        self._debts = Debts()
        # Least and greatest values, so that each message is in a Sample that is stored; newest has the assembler.
        self._again: Spans = {}  # of Samples that could not be stored, for the next one
        self._taken: Spans = {}  # decoded, in no Sample yet
        self._sampled: Spans = {}  # in a Sample that is being stored
        self.error_frames: dict[str, int] = {}

    # --- what a lane asks ---

    @property
    def frames(self) -> int:
        """See Intake."""
        return self._decoder.messages

    @property
    def skipped(self) -> int:
        """See Intake."""
        return self._decoder.skipped

    @property
    def errors(self) -> Mapping[str, int]:
        """See Intake."""
        return dict(+self._decoder.errors)

    @property
    def notes(self) -> tuple[str, ...]:
        """See Intake."""
        return tuple(f"{note}, or delete {self._names_file.path}" for note in self._decoder.names.notes)

    @property
    def is_full(self) -> bool:
        """See Intake."""
        return len(self._waiting) >= _AT_ONCE

    def open(self) -> None:
        """See Intake."""
        if not self._knows_names:
            self._decoder.names.restore(self._names_file.load())
            self._knows_names = True
        link = Link(self._broker, self._client_id, will=None, on_message=self._came, session=self._session)
        self._link = link
        try:
            link.open(*self._topics)
        except Forbidden:
            raise SourceError(
                f"{self._broker.where} refuses us: check user and password_file of this source, and that it may "
                f"listen to {', '.join(self._topics[:3])}"
            ) from None
        except Unavailable as error:
            raise SourceError(str(error)) from None

    def tick(self, mono_ns: int) -> bool:
        """See Intake."""
        has_come = self._read(mono_ns)
        link = self._link
        if link is None or link.ended is not None:
            raise SourceError(str(link.ended) if link is not None else f"{self._broker.where} is not connected")
        return has_come

    def take_in(self) -> Fields | None:
        """See Intake."""
        waiting, self._waiting = self._waiting, []
        again, self._again = self._again, {}
        fields = self._decoder.decode(waiting)
        if again:
            fields = fields or Fields(heard=False)
            _widen(fields.spans, again)
        if fields is not None:
            _widen(self._taken, fields.spans)
        return fields

    def snapshot(self) -> Any:
        """See Intake."""
        return self._decoder.names.state

    def sampled(self) -> None:
        """See Intake."""
        self._sampled, self._taken = self._taken, {}
        self._debts.sampled()

    def settle(self, *, is_stored: bool) -> None:
        """See Intake."""
        if not is_stored:  # but for a counter, which no Sample tells: one that it had then would pass for moving now
            self._again = {name: span for name, span in self._sampled.items() if name in SPANNED}
        link = self._link if self._link is not None and self._link.ended is None else None
        for number in self._debts.settle(link, is_stored=is_stored):
            if link is not None:
                link.acknowledge(number)

    @property
    def drops(self) -> int | None:
        """See Intake."""
        return self._dropped

    def count_drops(self) -> int | None:
        """See Intake."""
        return self._dropped

    def close(self) -> None:
        """See Intake."""
        link, self._link = self._link, None
        if link is not None:
            link.close()
            with self._lock:  # what was not read comes again, if it has to be acknowledged at all
                self._inbox = deque(message for message in self._inbox if not message.qos)
            if link.has_begun:
                self._debts.ended(link)

    # --- messages ---

    def _came(self, message: Message) -> None:
        """On the connection's thread, which may wait for flash: no other pack waits for it."""
        link = self._link
        if link is None or not self._is_named(link, message):
            return
        with self._lock:
            if not message.qos and len(self._inbox) >= _MOST_WAITING:  # of the others _AT_ONCE come at most
                self._dropped += 1
                return
            self._inbox.append(message)

    def _is_named(self, link: Link, message: Message) -> bool:
        """Whether a message may be read: if it gives a + its name, not before that is on flash."""
        names = self._decoder.names
        before = names.state
        if message.is_kept or not self._decoder.gives_a_name(message.topic):
            return True
        try:
            self._names_file.save(names.state)
        except SourceError as error:
            names.restore(before)
            link.end(Unavailable(str(error)))
            return False
        return True

    def _read(self, mono_ns: int) -> bool:
        """Takes what came, but for what came before over another connection."""
        with self._lock:
            came = list(self._inbox)
            self._inbox.clear()
        has_come = False
        offset_ns = self._offset_ns()
        for message in came:
            if message.qos and not self._debts.read(self._link, message):
                continue
            heard = Heard(message.topic, message.payload, mono_ns, message.is_kept, offset_ns)
            if self.track is not None:
                self.track.chunk(mono_ns, as_chunk(heard), sent=False)
            self._waiting.append(heard)
            has_come = True
        return has_come


def _widen(spans: Spans, more: Spans) -> None:
    for name, (lo, hi) in more.items():
        least, greatest = spans.get(name, (lo, hi))
        spans[name] = (min(least, lo), max(greatest, hi))


def as_chunk(heard: Heard) -> bytes:
    """A message as the flight recorder keeps it."""
    told = {"topic": heard.topic, "kept": heard.is_kept, "offset_ns": heard.offset_ns}
    return json.dumps(told).encode() + b"\n" + heard.payload


def of_chunk(data: bytes, mono_ns: int) -> Heard:
    """The message again. ValueError, KeyError, TypeError: it is none."""
    head, _, payload = data.partition(b"\n")
    told = json.loads(head)
    offset_ns = told["offset_ns"]
    return Heard(
        str(told["topic"]), payload, mono_ns, bool(told["kept"]), None if offset_ns is None else int(offset_ns)
    )
