"""How a synthetic device's Batch gets to the cloud: by HTTP, or by MQTT v5 over a few connections of many devices."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol
from urllib.parse import urlsplit

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from shared import wire
from shared.records import Receipt

CONNECTIONS = 4
HTTP_ANSWER_S = 30.0
ANSWER_S = 3.0
"""How long a Batch by MQTT waits for its Receipt before it is sent again; what comes later is not looked at."""


class Road(Protocol):
    """Delivers the encoded Batches of many devices."""

    async def send(self, device: str, body: bytes) -> Receipt | None:
        """The Receipt; None = not now, and whether it arrived is not known."""
        ...


@asynccontextmanager
async def road_to(url: str, devices: Sequence[str]) -> AsyncIterator[Road]:
    """The road that the URL's scheme names, for these devices."""
    if not url.startswith("mqtt:"):
        yield Http(url)
        return
    mqtt = Mqtt(url, devices)
    try:
        yield mqtt
    finally:
        await asyncio.to_thread(mqtt.close)


class Http:
    """POST /device/v1/batches, each device by a kept connection of its own. No client library: two hundred of its
    connections would take more of the machine than all that is tested."""

    def __init__(self, url: str) -> None:
        self._at = urlsplit(url)
        self._open: dict[str, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def send(self, device: str, body: bytes) -> Receipt | None:
        try:
            async with asyncio.timeout(HTTP_ANSWER_S):
                status, answer = await self._post(device, body)
        except (OSError, EOFError, TimeoutError):
            self._close(device)
            return None
        if status == 200:
            return wire.decode_receipt(answer)
        assert status == 503, f"{status} {answer!r}"
        return None

    async def _post(self, device: str, body: bytes) -> tuple[int, bytes]:
        host, port = self._at.hostname or "", self._at.port or 80
        if device not in self._open:
            self._open[device] = await asyncio.open_connection(host, port)
        reader, writer = self._open[device]
        head = f"POST /device/v1/batches HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/x-protobuf\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        answer = await reader.readexactly(int(headers["content-length"]))
        if headers.get("connection") == "close":
            self._close(device)
        return int(status.split()[1]), answer

    def _close(self, device: str) -> None:
        if device in self._open:
            self._open.pop(device)[1].close()


class Mqtt:
    """Each device publishes to `up` and listens to `receipt`, as an agent does; only the connections are shared."""

    def __init__(self, url: str, devices: Sequence[str]) -> None:
        self._at = urlsplit(url)
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[bytes, asyncio.Future[Receipt | None]] = {}
        self._numbers = itertools.count()
        self._client_of: dict[str, Client] = {}
        for group in (devices[i::CONNECTIONS] for i in range(min(CONNECTIONS, len(devices)))):
            self._client_of |= dict.fromkeys(group, self._connect(group))

    async def send(self, device: str, body: bytes) -> Receipt | None:
        correlation = next(self._numbers).to_bytes(8)
        answer: asyncio.Future[Receipt | None] = self._loop.create_future()
        self._waiting[correlation] = answer
        told = Properties(PacketTypes.PUBLISH)
        told.CorrelationData = correlation
        told.MessageExpiryInterval = 60
        try:
            self._client_of[device].publish(f"packtwin/v1/{device}/up", body, qos=1, properties=told)
            return await asyncio.wait_for(answer, ANSWER_S)
        except TimeoutError:
            return None
        finally:
            del self._waiting[correlation]

    def close(self) -> None:
        """Ends all connections."""
        for client in set(self._client_of.values()):
            client.disconnect()
            client.loop_stop()

    def _connect(self, devices: Sequence[str]) -> Client:
        def connected(client: Client, *_: Any) -> None:
            client.subscribe([(f"packtwin/v1/{device}/receipt", 1) for device in devices])

        client = Client(CallbackAPIVersion.VERSION2, f"load-{devices[0]}", protocol=MQTTProtocolVersion.MQTTv5)
        client.max_inflight_messages_set(0)
        client.reconnect_delay_set(1, 1)
        client.on_connect, client.on_message = connected, self._message
        client.connect_async(self._at.hostname or "", self._at.port or 1883)
        client.loop_start()
        return client

    def _message(self, client: Client, userdata: Any, message: MQTTMessage) -> None:
        """On a connection's own thread."""
        told = message.properties
        is_json = getattr(told, "ContentType", "") == "application/json"
        self._loop.call_soon_threadsafe(self._answer, getattr(told, "CorrelationData", b""), message.payload, is_json)

    def _answer(self, correlation: bytes, payload: bytes, is_json: bool) -> None:
        waiting = self._waiting.get(correlation)
        if waiting is None or waiting.done():
            return
        refusal = json.loads(payload) if is_json else {}
        if refusal.get("reason"):  # else it is a matter of time
            waiting.set_exception(AssertionError(str(refusal)))
        else:
            waiting.set_result(None if is_json else wire.decode_receipt(payload))
