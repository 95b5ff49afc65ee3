"""One MQTT v5 connection, blocking: it is opened, used from any thread, and when it ends it has ended.

Nothing here connects again by itself: who uses a Link knows when it makes sense to open another one.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.transport import Forbidden, Unavailable, unreachable

CONNECT_S: Final = 5.0
KEEPALIVE_S: Final = 60
PORT: Final = 1883
TLS_PORT: Final = 8883
_OVERHEAD_BYTES: Final = 512
"""What a PUBLISH may take beside its payload: topic, properties, lengths."""
_GOODBYE_S: Final = 1.0
_UNBOUNDED_BYTES: Final = 1 << 28
_NO_SUBSCRIBERS: Final = 0x10
_FAILURE: Final = 0x80
_NOT_WELCOME: Final = (0x86, 0x87, 0x8A, 0x8C)  # bad user name or password, not authorized, banned, bad method
_TAKEN_OVER: Final = 0x8E
_TOO_LARGE: Final = 0x95

_QOS: Final = 1
"""With which we subscribe, so messages come with it or with 0, which nobody acknowledges."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """Where a broker is and who we are there; user "" = nobody asks. ca_file None = the system's CAs.

    table: what stands before the names of these settings, `uplink.` where they are of that table.
    """

    host: str
    port: int
    tls: bool
    ca_file: str | None = None
    user: str = ""
    password: str = field(default="", repr=False)
    table: str = ""

    @property
    def where(self) -> str:
        """The broker, for a sentence."""
        return f"the broker at {self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Will:
    """What is told, and kept, of the coming and going of a connection."""

    topic: str
    online: bytes
    offline: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """One message from the broker. correlation: b"" = none; content_type: "" = not told.

    number: what `Link.acknowledge` wants, where qos is 1. qos: with which it came. is_kept: it stood there before we
    listened. is_again: the broker has sent it before.
    """

    topic: str
    payload: bytes
    correlation: bytes = b""
    content_type: str = ""
    number: int = 0
    qos: int = 0
    is_kept: bool = False
    is_again: bool = False


@dataclass(frozen=True, slots=True)
class Session:
    """A session that outlives its connection: what comes meanwhile waits at the broker, `expiry_s` at most.

    Nothing in it counts as received before it was acknowledged by hand; `at_once`: so many may wait for that.
    """

    expiry_s: int
    at_once: int


class Link:
    """One connection. `on_message` runs on its own thread and must be quick."""

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        *,
        will: Will | None,
        on_message: Callable[[Message], None],
        session: Session | None = None,
    ) -> None:
        self._broker, self._will, self._on_message, self._session = broker, will, on_message, session
        self._changed = threading.Condition()
        self._outcomes: dict[int, int] = {}
        self._connack: tuple[int, str, Mapping[str, Any]] | None = None
        self._suback: list[int] | None = None
        self.ended: Unavailable | Forbidden | None = None
        """Why nothing more comes or goes; None = the connection stands."""
        self.has_begun = False
        """Whether the broker may know of this connection."""
        self.max_payload_bytes = _UNBOUNDED_BYTES
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=session is not None,
        )
        client.connect_timeout = CONNECT_S
        client.on_connect, client.on_disconnect = self._connected, self._disconnected
        client.on_subscribe, client.on_publish = self._subscribed, self._published
        client.on_message = self._message
        if broker.user:
            client.username_pw_set(broker.user, broker.password)
        if broker.tls:
            client.tls_set(ca_certs=broker.ca_file, cert_reqs=ssl.CERT_REQUIRED)
        if will is not None:
            client.will_set(will.topic, will.offline, qos=1, retain=True)
        self._client = client

    def open(self, *topics: str) -> None:
        """Connects, subscribes to `topics` with QoS 1 and tells that we are here. Raises Unavailable or Forbidden."""
        try:
            self._open(topics)
        except BaseException:
            self._drop()
            raise

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        correlation: bytes = b"",
        expiry_s: int = 0,
    ) -> int:
        """Hands a message to the connection; the number by which `outcome` knows it. Raises Unavailable."""
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if correlation:
            properties.CorrelationData = correlation
        if expiry_s:
            properties.MessageExpiryInterval = expiry_s
        # Not under our lock: paho holds locks of its own while it calls back.
        info = self._client.publish(topic, payload, qos, retain, properties)
        self.raise_if_ended()
        return info.mid

    def acknowledge(self, number: int) -> None:
        """Tells the broker that a message that came over this connection need not come again."""
        if self.ended is None:
            self._client.ack(number, _QOS)

    def outcome(self, number: int) -> int | None:
        """The broker's reason code for a message with QoS 1; None = it has not said anything yet."""
        return self._outcomes.get(number)

    def forget(self, number: int) -> None:
        """Its outcome is of no more interest."""
        self._outcomes.pop(number, None)

    def wait(self, check: Callable[[], T | None], timeout_s: float) -> T | None:
        """The first true answer of `check`; None after `timeout_s` or when the connection has ended."""
        with self._changed:
            self._changed.wait_for(lambda: check() or self.ended, timeout_s)
            return check()

    def raise_if_ended(self) -> None:
        """Raises why nothing goes any more, if so."""
        if self.ended is not None:
            raise self.ended

    def close(self, timeout_s: float = 1.0) -> None:
        """Says goodbye, if there is someone to say it to, and lets go."""
        if self.ended is None and self._will is not None:
            with contextlib.suppress(Unavailable, Forbidden):
                number = self.publish(self._will.topic, self._will.offline, retain=True)
                self.wait(lambda: self.outcome(number) is not None, timeout_s)
        self._drop()

    def end(self, why: Unavailable | Forbidden) -> None:
        """Ends the connection as if the broker had, for a reason that we know better."""
        with self._changed:
            self.ended = self.ended or why
            self._changed.notify_all()
        self._drop()

    def _open(self, topics: tuple[str, ...]) -> None:
        broker = self._broker
        try:
            self._client.connect(
                broker.host,
                broker.port,
                KEEPALIVE_S,
                clean_start=self._session is None,
                properties=_session_properties(self._session),
            )
        except (OSError, ValueError) as error:
            raise unreachable(error, broker.where, broker.table) from None
        self.has_begun = True
        sock = self._client.socket()
        if isinstance(sock, socket.socket):  # else a batch waits 40 ms for the broker's word on what went before it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client.loop_start()
        connack = self.wait(lambda: self._connack, CONNECT_S)
        if connack is None:
            self.raise_if_ended()
            raise Unavailable(f"{broker.where} does not answer")
        code, words, told = connack
        if code >= _FAILURE:
            raise _refusal(code, words, broker)
        self.max_payload_bytes = int(told.get("MaximumPacketSize", _UNBOUNDED_BYTES)) - _OVERHEAD_BYTES
        if topics:
            self._client.subscribe([(topic, _QOS) for topic in topics])
            codes = self.wait(lambda: self._suback, CONNECT_S)
            self.raise_if_ended()
            if codes is None:
                raise Unavailable(f"{broker.where} does not answer")
            if max(codes) >= _FAILURE:
                raise Forbidden(f"{broker.where} does not let this device listen to {' and '.join(topics)}")
        if self._will is not None:
            self.publish(self._will.topic, self._will.online, retain=True)

    def _drop(self) -> None:
        self._client.disconnect()
        if self._client.socket() is not None:
            self.wait(lambda: None, _GOODBYE_S)  # until the goodbye is out, which ends the connection
        sock = self._client.socket()
        if isinstance(sock, socket.socket):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # else paho's thread waits for what cannot be sent
        self._client.loop_stop()
        with self._changed:
            self.ended = self.ended or Unavailable(f"the connection to {self._broker.where} is closed")
            self._changed.notify_all()

    # --- the connection's own thread ---

    def _connected(
        self, client: Client, userdata: Any, flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        with self._changed:
            self._connack = (reason.value, str(reason), vars(properties) if properties else {})
            self._changed.notify_all()

    def _subscribed(
        self, client: Client, userdata: Any, mid: int, reasons: list[ReasonCode], properties: Properties | None
    ) -> None:
        with self._changed:
            self._suback = [reason.value for reason in reasons]
            self._changed.notify_all()

    def _published(
        self, client: Client, userdata: Any, mid: int, reason: ReasonCode, properties: Properties | None
    ) -> None:
        with self._changed:
            self._outcomes[mid] = reason.value
            self._changed.notify_all()

    def _message(self, client: Client, userdata: Any, message: MQTTMessage) -> None:
        told = message.properties
        correlation = getattr(told, "CorrelationData", b"")
        content_type = getattr(told, "ContentType", "")
        self._on_message(
            Message(
                message.topic,
                bytes(message.payload),
                correlation,
                content_type,
                message.mid,
                message.qos,
                message.retain,
                message.dup,
            )
        )
        with self._changed:
            self._changed.notify_all()

    def _disconnected(
        self, client: Client, userdata: Any, flags: DisconnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        with self._changed:
            told = (reason.value, str(reason)) if flags.is_disconnect_packet_from_server else (0, "it closed")
            self.ended = self.ended or _ending(*told, self._broker)
            self._changed.notify_all()


def _session_properties(session: Session | None) -> Properties | None:
    if session is None:
        return None
    told = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    told.SessionExpiryInterval = session.expiry_s
    told.ReceiveMaximum = session.at_once
    return told


def refused_publish(code: int) -> Unavailable | Forbidden | None:
    """What the broker's reason code for a message means; None = it has taken it."""
    if code == _NO_SUBSCRIBERS:
        return Unavailable("the broker works, but nobody takes batches from it: start the gateway (cloud gateway)")
    if code < _FAILURE:
        return None
    return _refused(code, ReasonCode(PacketTypes.PUBACK, identifier=code).getName(), "the broker", _OF_DEVICES)


_OF_DEVICES: Final = "uplink.token_file and that this device is registered"


def _refusal(code: int, words: str, broker: Broker) -> Unavailable | Forbidden:
    settings = _OF_DEVICES if broker.table == "uplink." else f"{broker.table}user and {broker.table}password_file"
    return _refused(code, words, broker.where, settings)


def _refused(code: int, words: str, who: str, settings: str) -> Unavailable | Forbidden:
    said = f"{who} answered {words.lower()}"
    return Forbidden(f"{said}: check {settings}") if code in _NOT_WELCOME else Unavailable(said)


def _ending(code: int, words: str, broker: Broker) -> Unavailable | Forbidden:
    if code == _TAKEN_OVER:
        return Unavailable(f"{broker.where} closed the connection: somebody else came with the same client id")
    if code == _TOO_LARGE:
        return Unavailable(f"{broker.where} closed the connection: a message was too large for it")
    if code in _NOT_WELCOME:
        return _refusal(code, words, broker)
    return Unavailable(f"the connection to {broker.where} has ended ({words.lower()})")
