"""The gateway's side of the broker: MQTT v5 on the event loop, messages acknowledged by hand.

The broker keeps the session: what came for us while we were away, and what we have not acknowledged, comes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cloud import mqtt_packets as packets
from cloud.config import Mqtt
from shared.batch import MAX_BODY_BYTES
from shared.errors import ConfigError, PacktwinError
from shared.hosts import plain_is_allowed

log = logging.getLogger(__name__)

TLS_PORT: Final = 8883
IN_FLIGHT: Final = 256
"""How many messages the broker gives us before it has our acknowledgement of one of them."""
_KEEPALIVE_S: Final = 15
_SESSION_S: Final = 14 * 86_400
"""How long the broker keeps what comes for us while we are away."""
_CONNECT_S: Final = 5.0
_BACKOFF_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
_MOST_BYTES: Final = MAX_BODY_BYTES + 1024
_MOST_NUMBER: Final = 65_535
_SUBSCRIBE_NUMBER: Final = 1
_WORDS: Final = {
    0x86: "bad user name or password: check MQTT_USER and MQTT_PASSWORD",
    0x87: "not authorized: check MQTT_USER, MQTT_PASSWORD and the broker's ACL",
    0x8B: "it is shutting down",
    0x8E: "another gateway came with the same client id",
}


class BrokerAway(PacktwinError):
    """There is no connection to the broker; why, in words."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a device. correlation: b"" = none; content_type: "" = not told. link: by which it came."""

    topic: str
    payload: bytes
    correlation: bytes
    content_type: str
    number: int
    link: Link


class Link(asyncio.Protocol):
    """One connection."""

    def __init__(self, mqtt: Mqtt, client_id: str, on_message: Callable[[Message], None]) -> None:
        self._mqtt, self._client_id, self._on_message = mqtt, client_id, on_message
        self._loop = asyncio.get_running_loop()
        self._stream = packets.Stream(_MOST_BYTES)
        self._transport: asyncio.Transport | None = None
        self._connack: asyncio.Future[tuple[int, packets.Properties]] = self._loop.create_future()
        self._suback: asyncio.Future[bytes] = self._loop.create_future()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        """Why the connection is over, once it is."""
        self._out: list[bytes] = []
        self._queue: deque[Callable[[int], bytes]] = deque()  # waits until the broker has acknowledged earlier ones
        self._unacknowledged: set[int] = set()
        self._most_unacknowledged = _MOST_NUMBER
        self._number = _SUBSCRIBE_NUMBER
        self._keepalive_s = _KEEPALIVE_S
        self._heard_s = 0.0

    async def open(self, topics: Sequence[str]) -> None:
        """Connects and subscribes with QoS 1. Raises BrokerAway."""
        mqtt = self._mqtt
        try:
            async with asyncio.timeout(_CONNECT_S):
                await self._loop.create_connection(lambda: self, mqtt.host, mqtt.port, ssl=_tls(mqtt))
                hello = packets.connect(
                    self._client_id,
                    keepalive_s=_KEEPALIVE_S,
                    session_s=_SESSION_S,
                    receive_maximum=IN_FLIGHT,
                    maximum_packet=_MOST_BYTES,
                    user=mqtt.user,
                    password=mqtt.password,
                )
                self._write(hello)
                await self._answered(self._connack)
                code, told = self._connack.result()
                if code >= packets.FAILURE:
                    raise BrokerAway(f"the broker refuses: {_words(code)}")
                self._most_unacknowledged = _whole(told, packets.RECEIVE_MAXIMUM, _MOST_NUMBER)
                self._keepalive_s = _whole(told, packets.SERVER_KEEPALIVE, _KEEPALIVE_S)
                self._write(packets.subscribe(_SUBSCRIBE_NUMBER, topics))
                await self._answered(self._suback)
        except TimeoutError:
            raise BrokerAway("the broker does not answer") from None
        except OSError as error:
            raise BrokerAway(str(error)) from None
        for topic, code in zip(topics, self._suback.result(), strict=False):
            if code >= packets.FAILURE:
                raise BrokerAway(f"the broker does not let us listen to {topic}: {_words(code)}")
        self._heard_s = self._loop.time()
        self._tick()

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        correlation: bytes = b"",
        content_type: str = "",
        expiry_s: int = 0,
    ) -> None:
        """Sends with QoS 1; does nothing once the connection is over."""

        def packet(number: int) -> bytes:
            return packets.publish(
                topic,
                payload,
                number,
                retain=retain,
                correlation=correlation,
                content_type=content_type,
                expiry_s=expiry_s,
            )

        if self.ended.done():
            return
        if len(self._unacknowledged) < self._most_unacknowledged:
            self._send(packet)
        else:
            self._queue.append(packet)

    def acknowledge(self, message: Message) -> None:
        """Lets the broker forget the message; does nothing once the connection is over: it comes again."""
        if message.number:
            self._write(packets.puback(message.number))

    async def close(self) -> None:
        """Says goodbye; what is not acknowledged stays with the broker."""
        if self._transport is not None and not self.ended.done():
            self._write(packets.GOODBYE)
            self._flush()
            self._transport.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await asyncio.shield(self.ended)
        self._over("closed")

    # --- what the event loop calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._heard_s = self._loop.time()
        try:
            for kind, flags, body in self._stream.feed(data):
                self._take(kind, flags, body)
        except packets.ProtocolError as error:
            self._over(f"the broker sent {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._over(str(exc) if exc else "the broker closed the connection")

    def _take(self, kind: int, flags: int, body: bytes) -> None:
        if kind == packets.PUBLISH:
            came = packets.read_publish(flags, body)
            correlation = came.properties.get(packets.CORRELATION, b"")
            content_type = came.properties.get(packets.CONTENT_TYPE, b"")
            assert isinstance(correlation, bytes)
            assert isinstance(content_type, bytes)
            kind_text = content_type.decode(errors="replace")
            self._on_message(Message(came.topic, came.payload, correlation, kind_text, came.number, self))
        elif kind == packets.PUBACK:
            self._unacknowledged.discard(int.from_bytes(body[:2]))
            if self._queue and len(self._unacknowledged) < self._most_unacknowledged:
                self._send(self._queue.popleft())
        elif kind == packets.CONNACK and not self._connack.done():
            self._connack.set_result(packets.read_connack(body))
        elif kind == packets.SUBACK and not self._suback.done():
            self._suback.set_result(packets.read_suback(body))
        elif kind == packets.DISCONNECT:
            self._over(f"the broker says goodbye: {_words(body[0] if body else 0)}")

    # --- writing ---

    def _send(self, packet: Callable[[int], bytes]) -> None:
        number = self._number
        while number in self._unacknowledged:
            number = number % _MOST_NUMBER + 1
        self._unacknowledged.add(number)
        self._number = number % _MOST_NUMBER + 1
        self._write(packet(number))

    def _write(self, data: bytes) -> None:
        """Not at once: what is written in one turn of the loop goes out together."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        if self._out and self._transport is not None and not self.ended.done():
            self._transport.write(b"".join(self._out))
        self._out.clear()

    async def _answered(self, answer: asyncio.Future[Any]) -> None:
        """Returns once it is answered; BrokerAway when the connection ends before."""
        await asyncio.wait((answer, self.ended), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise BrokerAway(self.ended.result())

    def _tick(self) -> None:
        """Keeps the connection alive, and notices when it is not."""
        if self.ended.done():
            return
        silent_s = self._loop.time() - self._heard_s
        if silent_s > 1.5 * self._keepalive_s:
            self._over(f"the broker has been silent for {silent_s:.0f} s")
            return
        self._write(packets.PING)
        self._loop.call_later(self._keepalive_s / 2, self._tick)

    def _over(self, why: str) -> None:
        if not self.ended.done():
            self.ended.set_result(why)
        if self._transport is not None:
            self._transport.abort()


class Session:
    """Keeps a connection to the broker, whatever happens to it."""

    def __init__(
        self,
        mqtt: Mqtt,
        client_id: str,
        topics: Sequence[str],
        on_message: Callable[[Message], None],
        on_link: Callable[[], None],
    ) -> None:
        """on_link: called when a new connection stands."""
        self._mqtt, self._client_id, self._topics = mqtt, client_id, topics
        self._on_message, self._on_link = on_message, on_link
        self.link: Link | None = None
        """The connection that stands; None = there is none now."""
        self.problem: str | None = "not connected yet"

    async def run(self) -> None:
        """Connects again and again, until it is cancelled."""
        failures = 0
        while True:
            link = Link(self._mqtt, self._client_id, self._on_message)
            try:
                await link.open(self._topics)
                self.link, self.problem, failures = link, None, 0
                log.info("connected to the broker at %s:%d", self._mqtt.host, self._mqtt.port)
                self._on_link()
                self._away(await asyncio.shield(link.ended))
            except BrokerAway as error:
                self._away(str(error))
            finally:
                self.link = None
                await link.close()
            pause_s = _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]
            failures += 1
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))

    def _away(self, why: str) -> None:
        if why != self.problem:
            log.warning("no connection to the broker at %s:%d: %s", self._mqtt.host, self._mqtt.port, why)
        self.problem = why


def uses_tls(mqtt: Mqtt) -> bool:
    """Whether the connection is encrypted."""
    return mqtt.ca_file is not None or mqtt.port == TLS_PORT


def check(mqtt: Mqtt, plaintext_hosts: Sequence[str]) -> None:
    """ConfigError where the broker must not be spoken to like that."""
    if not uses_tls(mqtt) and not plain_is_allowed(mqtt.host, plaintext_hosts):
        raise ConfigError(
            f"MQTT_HOST={mqtt.host} would be spoken to in clear text: use MQTT_PORT={TLS_PORT} or MQTT_CA_FILE, "
            "or name it in ALLOW_PLAINTEXT_HOSTS if the network between is your own"
        )
    try:
        _tls(mqtt)
    except (ssl.SSLError, OSError):
        raise ConfigError(f"MQTT_CA_FILE={mqtt.ca_file} holds no certificate; copy the broker's CA there") from None


def _tls(mqtt: Mqtt) -> ssl.SSLContext | None:
    if not uses_tls(mqtt):
        return None
    return ssl.create_default_context(cafile=str(mqtt.ca_file) if mqtt.ca_file else None)


def _whole(told: packets.Properties, key: int, default: int) -> int:
    value = told.get(key, default)
    return value if isinstance(value, int) else default


def _words(code: int) -> str:
    return _WORDS.get(code, f"reason code 0x{code:02x}")
