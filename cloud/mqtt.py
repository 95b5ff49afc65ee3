"""The gateway's side of the broker: one connection after the other, messages acknowledged once they are done.

The broker keeps the session: what came for us while we were away, and what we have not acknowledged, comes again.
gmqtt speaks MQTT v5; when to connect again, and how much to have unacknowledged, is decided here.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import gmqtt
from gmqtt.storage import PersistentStorage

from cloud.config import Mqtt
from shared.batch import MAX_BODY_BYTES
from shared.errors import ConfigError, PacktwinError
from shared.hosts import plain_is_allowed

T = TypeVar("T")
log = logging.getLogger(__name__)
logging.getLogger("gmqtt").setLevel(logging.CRITICAL)  # it tells of every step; we tell once why there is no connection

TLS_PORT: Final = 8883
IN_FLIGHT: Final = 256
"""How many messages the broker gives us before it has our acknowledgement of one of them."""
_KEEPALIVE_S: Final = 10
"""gmqtt gives a silent broker up after twice that."""
_SESSION_S: Final = 14 * 86_400
"""How long the broker keeps what comes for us while we are away."""
_ANSWER_S: Final = 5.0
_BACKOFF_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
_MOST_BYTES: Final = MAX_BODY_BYTES + 1024
_NEVER: Final = -2  # as gmqtt's number of reconnects: -1 = without end, 0 = one
_FAILURE: Final = 0x80  # a reason code from here on says no
_WORDS: Final = {
    0x0A: "its answer is no MQTT v5",
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
    link: Link
    settled: asyncio.Future[None]


class Link:
    """One connection, with a client of its own: its PUBACKs never reach another one.

    Of gmqtt's protected members it needs four: what the CONNACK said, the number of a refusal, where bytes are
    written, and the transport, to end it at once. `tests/cloud/test_mqtt.py` asks for each.
    """

    def __init__(self, mqtt: Mqtt, on_message: Callable[[Message], None]) -> None:
        self._mqtt, self._on_message = mqtt, on_message
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        """Why the connection is over, once it is."""
        self._suback: asyncio.Future[Sequence[int]] = self._loop.create_future()
        self._held: set[asyncio.Future[None]] = set()  # one of each message that is not acknowledged
        self._queue: deque[Callable[[], None]] = deque()  # goes out when the broker has acknowledged earlier ones
        self._unacknowledged = _Unacknowledged(self._send)
        self._most_unacknowledged = 0  # none before the connection stands
        self._out: list[bytes] = []
        ear = logging.Logger("gmqtt", logging.WARNING)
        ear.addFilter(self._hear)
        self._client = gmqtt.Client(
            client_id(mqtt),
            clean_session=False,
            optimistic_acknowledgement=False,  # a PUBACK goes out when _come returns
            persistent_storage=self._unacknowledged,
            logger=ear,
            session_expiry_interval=_SESSION_S,
            receive_maximum=IN_FLIGHT,
            maximum_packet_size=_MOST_BYTES,
        )
        self._client.reconnect_retries = _NEVER
        self._client.on_message = self._come
        self._client.on_subscribe = lambda client, number, codes, told: self._suback.set_result(codes)
        self._client.on_disconnect = lambda client, packet: self._over(_goodbye(packet))
        if mqtt.user:
            self._client.set_auth_credentials(mqtt.user, mqtt.password)

    async def open(self, topics: Sequence[str]) -> None:
        """Connects and subscribes with QoS 1. Raises BrokerAway."""
        client, mqtt = self._client, self._mqtt
        try:
            await self._answer(client.connect(mqtt.host, mqtt.port, _tls(mqtt) or False, _KEEPALIVE_S))
        except gmqtt.MQTTConnectError as error:
            raise BrokerAway(f"the broker refuses: {_words(error._code)}") from None
        except OSError as error:
            raise BrokerAway(str(error)) from None
        protocol = client._connection._protocol
        self._write_now, protocol.write_data = protocol.write_data, self._write
        client.subscribe([gmqtt.Subscription(topic, qos=1) for topic in topics])
        for topic, code in zip(topics, await self._answer(self._suback), strict=False):
            if code >= _FAILURE:
                raise BrokerAway(f"the broker does not let us listen to {topic}: {_words(code)}")
        told = client._package_handler._connack_properties  # on_connect is told ours, where both told it
        self._most_unacknowledged = max(1, told.get("receive_maximum", [65_535])[0] - 1)  # gmqtt keeps one back
        self._send()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, **properties: bytes | str | int) -> None:
        """Sends with QoS 1 and properties by their names in MQTT v5; does nothing once the connection is over."""
        told: dict[str, Any] = {name: value for name, value in properties.items() if value}
        self._queue.append(partial(self._client.publish, topic, payload, qos=1, retain=retain, **told))
        self._send()

    def acknowledge(self, message: Message) -> None:
        """Lets the broker forget the message; does nothing once the connection is over: it comes again."""
        if not message.settled.done():
            message.settled.set_result(None)

    async def close(self) -> None:
        """Says goodbye; what is not acknowledged stays with the broker."""
        try:
            for _ in range(2):  # what was acknowledged just now becomes PUBACKs
                await asyncio.sleep(0)
            self._over("closed")
            with contextlib.suppress(OSError):  # a TimeoutError is one
                async with asyncio.timeout(1.0):
                    await self._client.disconnect()
        finally:
            self._over("closed")
            if self._client._connection is not None:
                self._client._connection._transport.abort()
            for settled in self._held:  # the PUBACK for it goes nowhere now
                if not settled.done():
                    settled.set_result(None)

    async def _come(self, client: Any, topic: str, payload: bytes, qos: int, told: dict[str, Any]) -> int:
        """One message, until it may be acknowledged; the reason code for that."""
        if client.is_connected:
            settled = self._loop.create_future()
            self._held.add(settled)
            correlation, content_type = told.get("correlation_data", (b"",)), told.get("content_type", ("",))
            self._on_message(Message(topic, payload, correlation[0], content_type[0], self, settled))
            await settled
            self._held.discard(settled)
        return 0

    def _send(self) -> None:
        while self._queue and self._unacknowledged.count < self._most_unacknowledged and not self.ended.done():
            self._queue.popleft()()

    def _write(self, data: bytes) -> None:
        """Not at once: what is written in one turn of the loop goes out together; a send takes 35 us."""
        self._out.append(data)
        if self.ended.done():
            self._flush()
        elif len(self._out) == 1:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._out:
            self._write_now(b"".join(self._out))
            self._out.clear()

    async def _answer(self, coming: Awaitable[T]) -> T:
        """What comes; BrokerAway when it does not, or the connection ends before."""
        work = asyncio.ensure_future(coming)
        await asyncio.wait((work, self.ended), timeout=_ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait((work,), timeout=0.1)  # a refusal with the end right behind it
        if work.cancel():
            raise BrokerAway(self.ended.result() if self.ended.done() else "the broker does not answer")
        return work.result()

    def _hear(self, record: logging.LogRecord) -> bool:
        """What gmqtt says in its log only, some of it without an end of the connection."""
        if record.exc_info or record.levelno >= logging.CRITICAL:
            self._over("the broker sent what is no MQTT v5")
        elif "LOST HEARTBEAT" in record.msg:
            self._over("the broker has been silent for too long")
        return False

    def _over(self, why: str) -> None:
        if not self.ended.done():
            self.ended.set_result(why)


class _Unacknowledged(PersistentStorage):  # type: ignore[misc]
    """What the broker has not acknowledged. fewer: called when it has."""

    def __init__(self, fewer: Callable[[], None]) -> None:
        super().__init__()
        self._fewer = fewer

    @property
    def count(self) -> int:
        return len(self._messages)

    def remove_message_by_mid(self, mid: int) -> None:
        super().remove_message_by_mid(mid)
        self._fewer()


class Session:
    """Keeps a connection to the broker, whatever happens to it."""

    def __init__(
        self, mqtt: Mqtt, topics: Sequence[str], on_message: Callable[[Message], None], on_link: Callable[[], None]
    ) -> None:
        """on_link: called when a new connection stands."""
        self._mqtt, self._topics, self._on_message, self._on_link = mqtt, topics, on_message, on_link
        self.link: Link | None = None
        """The connection that stands; None = there is none now."""
        self.problem: str | None = "not connected yet"

    async def run(self) -> None:
        """Connects again and again, until it is cancelled."""
        failures = 0
        while True:
            link = Link(self._mqtt, self._on_message)
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


def client_id(mqtt: Mqtt) -> str:
    """Not to be guessed where there is a password: a device that came with it would throw the gateway out."""
    name = "packtwin-gateway"
    return f"{name}-{hashlib.sha256(mqtt.password.encode()).hexdigest()[:16]}" if mqtt.password else name


def check(mqtt: Mqtt, plaintext_hosts: Sequence[str]) -> None:
    """ConfigError where the broker must not be spoken to like that."""
    if not _uses_tls(mqtt) and not plain_is_allowed(mqtt.host, plaintext_hosts):
        raise ConfigError(
            f"MQTT_HOST={mqtt.host} would be spoken to in clear text: use MQTT_PORT={TLS_PORT} or MQTT_CA_FILE, "
            "or name it in ALLOW_PLAINTEXT_HOSTS if the network between is your own"
        )
    try:
        _tls(mqtt)
    except (ssl.SSLError, OSError):
        raise ConfigError(f"MQTT_CA_FILE={mqtt.ca_file} holds no certificate; copy the broker's CA there") from None


def _uses_tls(mqtt: Mqtt) -> bool:
    return mqtt.ca_file is not None or mqtt.port == TLS_PORT


def _tls(mqtt: Mqtt) -> ssl.SSLContext | None:
    return ssl.create_default_context(cafile=mqtt.ca_file) if _uses_tls(mqtt) else None


def _goodbye(packet: Any) -> str:
    if isinstance(packet, bytes) and packet:  # empty where the connection just ended
        return f"the broker says goodbye: {_words(packet[0])}"
    return "the broker closed the connection"


def _words(code: int) -> str:
    return _WORDS.get(code, f"reason code 0x{code:02x}")
