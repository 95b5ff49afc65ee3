"""The gateway's side of the broker: MQTT v5 on the event loop, messages acknowledged by hand. Imports paho, alone here.

The broker keeps the session: what came for us while we were away, and what we have not acknowledged, comes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

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
_TICK_S: Final = 1.0
_BACKOFF_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
_OVERHEAD_BYTES: Final = 1024
_FAILURE: Final = 0x80


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
    qos: int
    link: Link


class Link:
    """One connection. Everything but the opening happens on the event loop."""

    def __init__(self, mqtt: Mqtt, client_id: str, on_message: Callable[[Message], None]) -> None:
        self._mqtt, self._on_message = mqtt, on_message
        self._loop = asyncio.get_running_loop()
        self._connack: asyncio.Future[tuple[int, str]] = self._loop.create_future()
        self._suback: asyncio.Future[list[int]] = self._loop.create_future()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        """Why the connection is over, once it is."""
        self._client = client = Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = _CONNECT_S
        client.on_connect, client.on_disconnect = self._connected, self._disconnected
        client.on_subscribe, client.on_message = self._subscribed, self._message
        if mqtt.user:
            client.username_pw_set(mqtt.user, mqtt.password)
        if uses_tls(mqtt):
            client.tls_set(ca_certs=str(mqtt.ca_file) if mqtt.ca_file else None, cert_reqs=ssl.CERT_REQUIRED)

    async def open(self, topics: Sequence[str]) -> None:
        """Connects and subscribes with QoS 1. Raises BrokerAway."""
        try:
            await asyncio.to_thread(self._dial)
        except (OSError, ValueError) as error:
            raise BrokerAway(str(error)) from None
        self._attend()
        async with asyncio.timeout(_CONNECT_S):
            code, words = await self._first(self._connack)
            if code >= _FAILURE:
                raise BrokerAway(f"the broker answers {words.lower()}: check MQTT_USER and MQTT_PASSWORD")
            self._client.subscribe([(topic, 1) for topic in topics])
            if max(await self._first(self._suback)) >= _FAILURE:
                raise BrokerAway(
                    f"the broker does not let us listen to {topics[0]}: check MQTT_USER and the broker's ACL"
                )

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
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if correlation:
            properties.CorrelationData = correlation
        if content_type:
            properties.ContentType = content_type
        if expiry_s:
            properties.MessageExpiryInterval = expiry_s
        if not self.ended.done():
            self._client.publish(topic, payload, 1, retain, properties)

    def acknowledge(self, message: Message) -> None:
        """Lets the broker forget the message; does nothing once the connection is over: it comes again."""
        if not self.ended.done():
            self._client.ack(message.number, message.qos)

    async def close(self) -> None:
        """Says goodbye; what is not acknowledged stays with the broker."""
        self._client.disconnect()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TICK_S):
                await asyncio.shield(self.ended)
        self._let_go()

    async def _first(self, answer: asyncio.Future[Any]) -> Any:
        """The answer; BrokerAway when the connection ends before it comes."""
        await asyncio.wait((answer, self.ended), return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        raise BrokerAway(self.ended.result())

    def _dial(self) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = _SESSION_S
        properties.ReceiveMaximum = IN_FLIGHT
        properties.MaximumPacketSize = MAX_BODY_BYTES + _OVERHEAD_BYTES
        mqtt = self._mqtt
        self._client.connect(mqtt.host, mqtt.port, _KEEPALIVE_S, clean_start=False, properties=properties)

    def _attend(self) -> None:
        """Lets the event loop serve the socket that is open now."""
        self._client.on_socket_close = self._forget
        self._client.on_socket_register_write = self._write_soon
        self._client.on_socket_unregister_write = self._written
        sock = self._client.socket()
        if sock is None:
            self._over("the connection ended while it was opened")
            return
        if isinstance(sock, socket.socket):  # else an answer waits 40 ms for the broker's word on what went before it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop.add_reader(sock.fileno(), self._read)
        if self._client.want_write():
            self._loop.add_writer(sock.fileno(), self._client.loop_write)
        self._loop.call_later(_TICK_S, self._tick)

    def _forget(self, client: Client, userdata: Any, sock: Any) -> None:
        for remove in (self._loop.remove_reader, self._loop.remove_writer):
            with contextlib.suppress(ValueError):
                remove(sock)

    def _write_soon(self, client: Client, userdata: Any, sock: Any) -> None:
        self._loop.add_writer(sock, client.loop_write)

    def _written(self, client: Client, userdata: Any, sock: Any) -> None:
        self._loop.remove_writer(sock)

    def _read(self) -> None:
        while self._client.loop_read() == MQTTErrorCode.MQTT_ERR_SUCCESS:
            sock = self._client.socket()
            if not isinstance(sock, ssl.SSLSocket) or not sock.pending():  # no event tells of what TLS holds already
                return

    def _tick(self) -> None:
        if not self.ended.done():
            self._client.loop_misc()
            self._loop.call_later(_TICK_S, self._tick)

    def _let_go(self) -> None:
        self._over("closed")
        sock = self._client.socket()
        if sock is not None:
            self._forget(self._client, None, sock)
            sock.close()

    def _over(self, why: str) -> None:
        if not self.ended.done():
            self.ended.set_result(why)

    def _connected(
        self, client: Client, userdata: Any, flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if not self._connack.done():
            self._connack.set_result((reason.value, str(reason)))

    def _subscribed(
        self, client: Client, userdata: Any, mid: int, reasons: list[ReasonCode], properties: Properties | None
    ) -> None:
        if not self._suback.done():
            self._suback.set_result([reason.value for reason in reasons])

    def _message(self, client: Client, userdata: Any, message: MQTTMessage) -> None:
        told = message.properties
        correlation, kind = getattr(told, "CorrelationData", b""), getattr(told, "ContentType", "")
        self._on_message(
            Message(message.topic, bytes(message.payload), correlation, kind, message.mid, message.qos, self)
        )

    def _disconnected(
        self, client: Client, userdata: Any, flags: DisconnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self._over(str(reason).lower())


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
                self._away(await link.ended)
            except TimeoutError:
                self._away("the broker does not answer")
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
    if mqtt.ca_file is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(mqtt.ca_file)
    except (ssl.SSLError, OSError):
        raise ConfigError(f"MQTT_CA_FILE={mqtt.ca_file} holds no certificate; copy the broker's CA there") from None
