"""MQTT v5 on the wire: what we write a library reads, what a library writes we read, and nonsense is named."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.client import Client, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from cloud import mqtt_packets as packets
from cloud.config import Mqtt
from cloud.mqtt import Link

SIZES = st.sampled_from([0, 1, 127, 128, 300, 16_383, 16_384, 70_000])


def by_paho(topic: str, payload: bytes, qos: int, properties: Properties) -> bytes:
    """The bytes of a PUBLISH as paho writes them."""
    client = Client(CallbackAPIVersion.VERSION2, "x", protocol=MQTTProtocolVersion.MQTTv5)
    written: list[bytes] = []
    client._packet_queue = lambda command, packet, *rest: written.append(bytes(packet))  # type: ignore[assignment,method-assign,func-returns-value]
    client._sock = object()  # type: ignore[assignment]
    client._send_publish(7, topic.encode(), payload, qos, False, False, MQTTMessageInfo(7), properties)
    client._sock = None
    return written[0]


def read(data: bytes, most_bytes: int = 1 << 20) -> list[tuple[int, int, bytes]]:
    return list(packets.Stream(most_bytes).feed(data))


@settings(deadline=None)
@given(SIZES, st.binary(max_size=20), st.sampled_from(["", "application/json"]), st.sampled_from([0, 60]))
def test_a_message_of_ours_reads_back(size: int, correlation: bytes, content_type: str, expiry_s: int) -> None:
    payload = bytes(size)
    data = packets.publish(
        "a/ü", payload, 513, retain=True, correlation=correlation, content_type=content_type, expiry_s=expiry_s
    )
    ((kind, flags, body),) = read(data)
    assert (kind, flags) == (packets.PUBLISH, 0b0011)
    came = packets.read_publish(flags, body)
    assert (came.topic, came.payload, came.number) == ("a/ü", payload, 513)
    assert came.properties.get(packets.CORRELATION, b"") == correlation
    assert came.properties.get(packets.CONTENT_TYPE, b"") == content_type.encode()


@pytest.mark.parametrize("qos", [0, 1])
def test_a_message_of_a_library_is_understood_with_all_that_it_may_carry(qos: int) -> None:
    told = Properties(PacketTypes.PUBLISH)
    told.CorrelationData, told.ContentType, told.ResponseTopic = b"\x00\x01", "text/plain", "where"
    told.UserProperty = [("a", "b"), ("c", "d")]
    told.MessageExpiryInterval, told.PayloadFormatIndicator = 60, 1
    ((kind, flags, body),) = read(by_paho("packtwin/v1/x/up", b"body", qos, told))
    came = packets.read_publish(flags, body)
    assert kind == packets.PUBLISH
    assert (came.topic, came.payload, came.number) == ("packtwin/v1/x/up", b"body", 7 if qos else 0)
    assert came.properties[packets.CORRELATION] == b"\x00\x01"
    assert came.properties[packets.CONTENT_TYPE] == b"text/plain"


@settings(deadline=None)
@given(st.lists(SIZES, max_size=6), st.integers(1, 4000))
def test_packets_come_whole_however_the_bytes_are_cut(sizes: list[int], cut: int) -> None:
    data = b"".join(
        packets.publish("t", bytes(size), n + 1, retain=False, correlation=b"", content_type="", expiry_s=0)
        for n, size in enumerate(sizes)
    )
    stream = packets.Stream(1 << 20)
    found = [packet for at in range(0, len(data), cut) for packet in stream.feed(data[at : at + cut])]
    assert [packets.read_publish(flags, body).number for _, flags, body in found] == [n + 1 for n in range(len(sizes))]


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_nonsense_is_a_protocol_error_and_nothing_else(data: bytes) -> None:
    for reader in (lambda: packets.read_publish(2, data), lambda: packets.read_connack(data)):
        with contextlib.suppress(packets.ProtocolError):
            reader()
    with contextlib.suppress(packets.ProtocolError):
        packets.read_suback(data)
        read(data)


def test_a_packet_longer_than_agreed_is_not_waited_for() -> None:
    with pytest.raises(packets.ProtocolError, match="70000 bytes"):
        read(b"\x30" + bytes([0xF0, 0xA2, 0x04]), most_bytes=69_999)


def test_no_more_is_sent_than_the_broker_takes_unacknowledged() -> None:
    """RECEIVE_MAXIMUM of the broker's CONNACK; a broker ends the connection of who sends more."""

    async def run() -> list[int]:
        numbers: list[int] = []
        waiting = asyncio.Event()

        async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            stream = packets.Stream(1 << 20)
            seen = 0
            while data := await reader.read(65_536):
                for kind, flags, body in stream.feed(data):
                    if kind == 1:
                        writer.write(b"\x20\x06\x00\x00\x03\x21\x00\x03")
                    elif kind == 8:
                        writer.write(b"\x90\x04" + body[:2] + b"\x00\x01")
                    elif kind == packets.PUBLISH:
                        numbers.append(packets.read_publish(flags, body).number)
                        seen += 1
                        if seen == 3:
                            waiting.set()
                        if seen > 3:
                            writer.write(packets.puback(numbers[-1]))

        server = await asyncio.start_server(broker, "127.0.0.1", 0)
        link = Link(Mqtt(port=server.sockets[0].getsockname()[1]), "x", lambda message: None)
        await link.open(["a"])
        for _ in range(5):
            link.publish("t", b"")
        await waiting.wait()
        await asyncio.sleep(0)
        first = list(numbers)
        link.data_received(packets.puback(first[0]))
        while len(numbers) < 5:
            await asyncio.sleep(0.001)  # a poll; the test's own time limit ends it
        await link.close()
        server.close()
        return first

    assert len(asyncio.run(asyncio.wait_for(run(), 20))) == 3
