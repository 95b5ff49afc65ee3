"""The gateway's connection at a real Mosquitto; and at a broker that misbehaves, which Mosquitto does not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from broker import TestBroker, missing_part, running_broker
from conftest import missing
from waiting import until

from cloud.config import Mqtt
from cloud.mqtt import BrokerAway, Link, Message, Session, client_id
from edge.mqtt import Broker
from edge.mqtt import Link as Device
from shared.batch import MAX_BODY_BYTES

TOPIC = "packtwin/v1/car-1/up"
LIMIT_S = 20.0
TAKEN_OVER = "the broker says goodbye: another gateway came with the same client id"
CONNACK, SUBACK = b"\x20\x03\x00\x00\x00", b"\x90\x04\x00\x01\x00\x01"


@pytest.fixture(scope="module")
def broker() -> Iterator[TestBroker]:
    need_mosquitto()
    with running_broker() as running:
        yield running


def need_mosquitto() -> None:
    what = missing_part()
    if what:
        missing(what)


@contextlib.contextmanager
def device(broker: TestBroker, *topics: str) -> Iterator[tuple[Device, list[bytes]]]:
    """Another client, by the edge's library, and what it hears."""
    heard: list[bytes] = []
    at = Broker(host="127.0.0.1", port=broker.port, tls=False)
    link = Device(at, "device", will=None, on_message=lambda message: heard.append(message.payload))
    link.open(*topics)
    yield link, heard
    link.close()


@contextlib.asynccontextmanager
async def opened(mqtt: Mqtt, *topics: str) -> AsyncIterator[tuple[Link, list[Message]]]:
    came: list[Message] = []
    link = Link(mqtt, came.append)
    try:
        await link.open(topics or (TOPIC,))
        yield link, came
    finally:
        await link.close()


async def eventually(check: Callable[[], object]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not check():
            await asyncio.sleep(0.005)  # a poll with a deadline, not a synchronisation


async def acknowledge(link: Link, messages: list[Message]) -> None:
    """And waits until the broker knows: a Mosquitto forgets to read the last ones of who goes at once."""
    for message in messages:
        link.acknowledge(message)
    await eventually(lambda: not link._held & {message.settled for message in messages})
    await asyncio.sleep(0)
    link.publish("all/acknowledged", b"")
    await eventually(lambda: not link._unacknowledged.count)


@contextlib.asynccontextmanager
async def bad_broker(*answers: bytes, then_close: bool = False) -> AsyncIterator[Mqtt]:
    """Answers what comes first, second, ... with these bytes, and later with nothing."""
    ends: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.append(writer)
        for answer in answers:
            await reader.read(65_536)
            writer.write(answer)
        if then_close:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield Mqtt(port=server.sockets[0].getsockname()[1])
    for end in ends:
        end.close()
    server.close()


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_more_is_sent_than_the_broker_takes_unacknowledged(most: int) -> None:
    """Mosquitto may end the connection of who sends more; gmqtt alone raises then."""
    need_mosquitto()

    async def run(broker: TestBroker, heard: list[bytes]) -> str | None:
        async with opened(Mqtt(port=broker.port)) as (link, _):
            for n in range(200):
                link.publish("packtwin/v1/car-1/receipt", b"%d" % n)
            await eventually(lambda: len(heard) == 200 or link.ended.done())
            return link.ended.result() if link.ended.done() else None

    with running_broker(f"max_inflight_messages {most}\n") as broker:
        with device(broker, "packtwin/v1/car-1/receipt") as (_, heard):
            assert asyncio.run(run(broker, heard)) is None
        assert heard == [b"%d" % n for n in range(200)]
        words = broker.broker.folder / "log"
        until("it has said goodbye", lambda: "Client packtwin-gateway disconnected." in words.read_text())


def test_what_is_not_acknowledged_comes_again_and_nothing_else(broker: TestBroker) -> None:
    async def run(sender: Device) -> tuple[list[bytes], list[bytes]]:
        mqtt = Mqtt(port=broker.port)
        async with opened(mqtt) as (link, came):
            for n in range(400):  # more than the broker gives us at a time
                await asyncio.to_thread(sender.publish, TOPIC, b"%d" % n)
            await eventually(lambda: len(came) == 256)
            await acknowledge(link, came[10:])
            await eventually(lambda: len(came) == 400)
        left = [message.payload for message in came[:10] + came[256:]]
        for message in came:  # too late
            link.acknowledge(message)
        async with opened(mqtt) as (link, again):
            await eventually(lambda: len(again) == len(left))
            await acknowledge(link, again)
        async with opened(mqtt) as (link, nothing):
            await asyncio.to_thread(sender.publish, TOPIC, b"last")
            await eventually(lambda: nothing)
            await acknowledge(link, nothing)
        assert [message.payload for message in nothing] == [b"last"]
        return left, [message.payload for message in again]

    with device(broker) as (sender, _):
        left, again = asyncio.run(run(sender))
    assert again == left


def test_the_largest_message_arrives_whole(broker: TestBroker) -> None:
    body = bytes(range(256)) * (MAX_BODY_BYTES // 256)

    async def run(sender: Device) -> bytes:
        async with opened(Mqtt(port=broker.port)) as (link, came):
            await asyncio.to_thread(sender.publish, TOPIC, body)
            await eventually(lambda: came)
            await acknowledge(link, came)
            return came[0].payload

    with device(broker) as (sender, _):
        assert asyncio.run(run(sender)) == body


def test_a_second_gateway_throws_the_first_one_out(broker: TestBroker) -> None:
    """Mosquitto 2.0 does not say why; newer ones do."""

    async def run() -> str:
        mqtt = Mqtt(port=broker.port)
        async with opened(mqtt) as (first, _), opened(mqtt):
            return await asyncio.wait_for(first.ended, LIMIT_S)

    assert asyncio.run(run()) in (TAKEN_OVER, "the broker closed the connection")


def test_who_may_not_come_in_is_told_what_to_check() -> None:
    need_mosquitto()

    async def run(mqtt: Mqtt) -> None:
        async with opened(mqtt):
            pass

    with running_broker(ask=True) as broker, pytest.raises(BrokerAway, match=r"check MQTT_USER(,| and) MQTT_PASSWORD"):
        asyncio.run(run(Mqtt(port=broker.port, user="gateway", password="wrong")))


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ((b"",), "closed the connection"),
        ((b"\x20\x03\x00\x86\x00",), "refuses: bad user name or password: check MQTT_USER and MQTT_PASSWORD"),
        ((b"\x20\x03\x00\x87\x00",), "refuses: not authorized: check"),
        ((b"\x20\x03\x00\x88\x00",), "refuses: reason code 0x88"),
        ((b"\x20\x05\x00\x00\x02\x7f\x00",), "no MQTT v5"),
        ((CONNACK, b"\x90\x04\x00\x01\x00\x87"), f"does not let us listen to {TOPIC}: not authorized"),
        ((CONNACK, b"\xe0\x01\x8b"), "says goodbye: it is shutting down"),
    ],
)
def test_why_there_is_no_connection_is_said_in_words(answers: tuple[bytes, ...], words: str) -> None:
    async def run() -> str:
        async with bad_broker(*answers, then_close=True) as mqtt:
            with pytest.raises(BrokerAway) as caught:
                async with opened(mqtt):
                    pass
            return str(caught.value)

    assert words in asyncio.run(asyncio.wait_for(run(), 4.0))


@pytest.mark.parametrize(
    ("connack", "later", "words"),
    [
        (CONNACK, b"\x30\x02\xff\xff", "what is no MQTT v5"),
        (CONNACK, b"\x00\x00", "what is no MQTT v5"),
        (CONNACK, b"\xe0\x01\x8e", TAKEN_OVER),
        (b"\x20\x06\x00\x00\x03\x13\x00\x01", b"", "has been silent"),  # Server Keep Alive 1 s
    ],
)
def test_a_broker_that_makes_no_sense_or_is_silent_or_says_goodbye_is_left(
    connack: bytes, later: bytes, words: str
) -> None:
    async def run() -> str:
        async with bad_broker(connack, SUBACK + later) as mqtt, opened(mqtt) as (link, _):
            return await link.ended

    assert words in asyncio.run(asyncio.wait_for(run(), LIMIT_S))


def test_a_broker_that_starts_again_costs_one_sentence_per_change(caplog: pytest.LogCaptureFixture) -> None:
    need_mosquitto()
    caplog.set_level(logging.INFO)

    async def run(broker: TestBroker) -> None:
        stood: list[Link | None] = []
        session = Session(Mqtt(port=broker.port), (TOPIC,), lambda message: None, lambda: stood.append(session.link))
        running = asyncio.create_task(session.run())
        await eventually(lambda: len(stood) == 1)
        await asyncio.to_thread(broker.stop)
        await eventually(lambda: session.problem and "Connect call failed" in session.problem)
        await asyncio.to_thread(broker.start)
        await eventually(lambda: len(stood) == 2)
        running.cancel()
        await asyncio.wait((running,))

    with running_broker() as broker:
        asyncio.run(run(broker))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 4
    assert said[0] == said[3] == f"connected to the broker at 127.0.0.1:{broker.port}"
    assert all(f"no connection to the broker at 127.0.0.1:{broker.port}" in words for words in said[1:3])
    assert "Connect call failed" in said[2]


def test_the_client_id_is_not_to_be_guessed_where_the_broker_asks_for_a_password() -> None:
    assert client_id(Mqtt()) == "packtwin-gateway"
    ours = client_id(Mqtt(user="gateway", password="secret"))
    assert ours == "packtwin-gateway-2bb80d537b1da3e3"
    assert client_id(Mqtt(user="other", password="secret")) == ours
    assert client_id(Mqtt(user="gateway", password="secret2")) != ours
