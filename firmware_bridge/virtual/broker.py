"""A broker to which a virtual gateway publishes what its BMS says."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import unquote, urlsplit

from firmware_bridge.protocol import Part, Protocol, Values
from firmware_bridge.virtual.gateways import Messages
from firmware_bridge.virtual.lies import Lies
from firmware_bridge.virtual.pace import due_after
from firmware_bridge.virtual.pack import VirtualPack
from firmware_bridge.virtual.stammer import Stammer
from firmware_bridge.virtual.voice import said_of
from shared.errors import ConfigError

_CONNECT_S: Final = 5.0
_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


class Gateway:
    """What a gateway publishes of its packs: it has read them in their language. Pure."""

    def __init__(
        self,
        spoken: Protocol,
        packs: Sequence[VirtualPack],
        vehicle: str | None,
        shape: Callable[[str, Values], Messages],
        lies: Lies,
        stammer: Stammer,
        rng: random.Random,
    ) -> None:
        self._spoken, self._packs, self._vehicle, self._shape = spoken, packs, vehicle, shape
        self._lies, self._stammer, self._rng = lies, stammer, rng

    def messages(self) -> Messages:
        """Topic -> payload of all packs now."""
        out: Messages = {}
        for pack in self._packs:
            t_s, device = pack.car.t_s, pack.pack_id.lower()
            values = {
                name: value
                for it in said_of(self._spoken, pack.values, pack.address, self._vehicle)
                if isinstance(it, Part)
                for name, value in it.values.items()
                if not self._lies.hushes(name, t_s)
            }
            if t_s >= self._stammer.after_s and self._stammer.is_silent:
                continue
            if self._stammer.takes_another(t_s, self._rng):
                device += "_other"
            for topic, payload in self._shape(device, values).items():
                out[topic] = self._spoilt(payload, t_s)
        return out

    def _spoilt(self, payload: str, t_s: float) -> str:
        if t_s >= self._stammer.after_s:
            if self._rng.random() < self._stammer.junk:
                return "unavailable"
            if self._rng.random() < self._stammer.truncate:
                return payload[: len(payload) // 2]
        return payload


class BrokerLine:
    """A connection to a broker, made again when it is lost. period_s: between two rounds, on the wall clock."""

    wants_to_write = False

    def __init__(self, url: str, gateway: Gateway, period_s: float) -> None:
        try:
            from paho.mqtt.client import Client
            from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
        except ImportError as error:
            raise ConfigError("virtual: MQTT needs paho-mqtt: install packtwin[edge]") from error
        address = urlsplit(url)
        try:
            port = address.port or _PORTS.get(address.scheme)
        except ValueError:
            port = None
        if port is None or not address.hostname or address.scheme not in _PORTS:
            raise ConfigError(f"virtual: --mqtt {url}: a broker is given as mqtt://HOST[:PORT] or mqtts://HOST[:PORT]")
        self.where = f"{address.scheme}://{address.hostname}:{port}"
        self.dropped = 0
        self._gateway, self._period_s, self._next_s = gateway, period_s, 0.0
        self._ok = MQTTErrorCode.MQTT_ERR_SUCCESS
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.connect_timeout = _CONNECT_S
        if address.username:
            self._client.username_pw_set(unquote(address.username), unquote(address.password or ""))
        if address.scheme == "mqtts":
            self._client.tls_set()
        try:
            self._client.connect(address.hostname, port)
        except (OSError, ValueError) as error:
            raise ConfigError(f"virtual: no broker at {self.where} ({error}): start one, or name another") from error
        self._client.loop_start()

    def fileno(self) -> None:
        """Nothing to watch."""

    def serve(self) -> None:
        """Nothing to answer."""

    def tick(self, now_s: float) -> None:
        """Publishes what is due, by QoS 1."""
        if now_s < self._next_s:
            return
        self._next_s = due_after(self._next_s, now_s, self._period_s)
        for topic, payload in self._gateway.messages().items():
            if self._client.publish(topic, payload, qos=1).rc != self._ok:
                self.dropped += 1

    def close(self) -> None:
        """Says goodbye."""
        self._client.disconnect()
        self._client.loop_stop()
