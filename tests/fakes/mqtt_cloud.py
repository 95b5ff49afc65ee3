"""A FakeCloud behind a broker, as the gateway would be: it takes batches, answers, and can be told to misbehave."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from fakes.cloud import FakeCloud
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from shared.records import Receipt
from shared.wire import decode_batch, encode_receipt


class MqttCloud:
    """Starts at once; `deaf` = it commits, but no answer goes out; `refuse`: an answer in JSON instead."""

    def __init__(self, port: int, cloud: FakeCloud, now_ns: Callable[[], int] = lambda: 1) -> None:
        self.cloud, self._now_ns = cloud, now_ns
        self.deaf = False
        self.refuse: dict[str, Any] | None = None
        self.asked = 0
        self.statuses: list[tuple[str, bytes]] = []
        self._client = client = Client(CallbackAPIVersion.VERSION2, "fake-gateway", protocol=MQTTProtocolVersion.MQTTv5)
        client.on_message = self._message
        client.on_connect = lambda *_: client.subscribe([("packtwin/v1/+/up", 1), ("packtwin/v1/+/status", 1)])
        listening = threading.Event()
        client.on_subscribe = lambda *_: listening.set()
        client.connect("127.0.0.1", port)
        client.loop_start()
        assert listening.wait(10), "the broker does not answer"

    def wish(self, device: str, mode: str, bundle: str | None = None) -> None:
        """Keeps a wish at the broker."""
        body = json.dumps({"mode": mode, "bundle": bundle})
        self._client.publish(f"packtwin/v1/{device}/desired", body, 1, retain=True).wait_for_publish(5)

    def close(self) -> None:
        """Lets go."""
        self._client.disconnect()
        self._client.loop_stop()

    def _message(self, client: Client, userdata: Any, message: MQTTMessage) -> None:
        device, kind = message.topic.split("/")[2:]
        if kind == "status":
            self.statuses.append((device, message.payload))
            return
        properties = Properties(PacketTypes.PUBLISH)
        properties.CorrelationData = getattr(message.properties, "CorrelationData", b"")
        if not message.payload:
            self.asked += 1
            answer = encode_receipt(Receipt(accepted=(), t_ns=self._now_ns()))
        elif self.refuse is not None:
            properties.ContentType = "application/json"
            answer = json.dumps(self.refuse).encode()
        else:
            answer = encode_receipt(self.cloud.receive(decode_batch(message.payload)))
        if not self.deaf:
            client.publish(f"packtwin/v1/{device}/receipt", answer, 1, properties=properties)
