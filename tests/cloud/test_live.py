"""The hub: bounded queues, order, who watches what. Pure but for its one thread."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from fake_batches import NOW_NS, T0_NS, block

from cloud.ingest import Outcome
from cloud.live import QUEUE_MESSAGES, Hub, Message, Subscriber, iso
from shared.block import NO_TIME, SampleBlock
from shared.records import Estimate, Event, Receipt, Session

SECOND_NS = 10**9


def outcome(
    *blocks: SampleBlock,
    device: str = "dev",
    estimates: tuple[Estimate, ...] = (),
    events: tuple[Event, ...] = (),
    sessions: tuple[Session, ...] = (),
) -> Outcome:
    written = sum(map(len, blocks)) + len(estimates) + len(events) + len(sessions)
    return Outcome(device, 7, Receipt(accepted=(), t_ns=0), blocks, estimates, events, sessions, written, 0, 0)


def with_hub(use: Callable[[Hub], Awaitable[None]]) -> None:
    async def run() -> None:
        hub = Hub(lambda: NOW_NS)
        hub.start()
        try:
            async with asyncio.timeout(10):
                await use(hub)
        finally:
            hub.close()

    asyncio.run(run())


async def received(subscriber: Subscriber) -> list[dict[str, Any]]:
    _, messages = await subscriber.take(5)
    return [json.loads(message.body) for message in messages]


def test_a_reader_gets_the_rows_of_its_pack_as_records() -> None:
    async def use(hub: Hub) -> None:
        one, every = hub.subscribe("A"), hub.subscribe(None)
        sent = block("A", 2)
        hub.publish([outcome(sent, block("B", 1))])
        found = await received(one)
        assert [row["t_ns"] for row in found] == [T0_NS, T0_NS + SECOND_NS]
        assert found[0]["t"] == iso(T0_NS)
        assert (found[0]["device"], found[0]["boot"], found[0]["seq"]) == ("dev", f"{7:016x}", 0)
        expected = next(sent.dicts())
        assert {name: found[0][name] for name in ("pack_v", "cell_v", "state")} == {
            name: expected[name] for name in ("pack_v", "cell_v", "state")
        }
        assert [row["pack_id"] for row in await received(every)] == ["A", "A", "B"]

    with_hub(use)


def test_late_rows_and_undated_rows_never_reach_the_stream() -> None:
    async def use(hub: Hub) -> None:
        reader = hub.subscribe("A")
        hub.publish([outcome(block("A", 3, t_ns=T0_NS + 10 * SECOND_NS))])
        hub.publish([outcome(block("A", 5, t_ns=T0_NS))])
        hub.publish([outcome(block("A", 5, t_ns=None))])
        hub.publish([outcome(block("A", 3, t_ns=T0_NS + 11 * SECOND_NS))])
        times: list[int] = []
        while len(times) < 4:
            times += [(row["t_ns"] - T0_NS) // SECOND_NS for row in await received(reader)]
        assert times == [10, 11, 12, 13]

    with_hub(use)


def test_what_a_model_said_during_an_outage_does_not_undo_what_it_says_now() -> None:
    def said(seconds: int | None) -> Outcome:
        t_ns = None if seconds is None else T0_NS + seconds * SECOND_NS
        return outcome(estimates=(Estimate(pack_id="A", seq=1, t_ns=t_ns, mono_ns=1, reason="no model"),))

    async def use(hub: Hub) -> None:
        reader = hub.subscribe("A")
        hub.publish([outcome(block("A", 1, t_ns=T0_NS + 60 * SECOND_NS))])
        for seconds in (40, 49, 55, 52, None, 55, 61):
            hub.publish([said(seconds)])
        times: list[int] = []
        while len(times) < 3:
            times += [(row["t_ns"] - T0_NS) // SECOND_NS for row in await received(reader)]
        assert times == [60, 55, 61]

    with_hub(use)


def test_a_stream_begins_after_what_is_stored_already() -> None:
    async def use(hub: Hub) -> None:
        hub.seed("A", "dev", T0_NS + SECOND_NS)
        reader = hub.subscribe("A")
        hub.publish([outcome(block("A", 3))])
        assert [row["t_ns"] for row in await received(reader)] == [T0_NS + 2 * SECOND_NS]

    with_hub(use)


def test_a_clock_that_ran_ahead_does_not_silence_the_pack() -> None:
    async def use(hub: Hub) -> None:
        reader = hub.subscribe("A")
        hub.publish([outcome(block("A", 1, t_ns=NOW_NS + 1800 * SECOND_NS))])
        hub.publish([outcome(block("A", 1, t_ns=NOW_NS + SECOND_NS))])
        rows: list[dict[str, Any]] = []
        while len(rows) < 2:
            rows += await received(reader)
        assert rows[1]["t_ns"] == NOW_NS + SECOND_NS

    with_hub(use)


def test_a_stored_row_from_the_future_does_not_silence_the_pack() -> None:
    async def use(hub: Hub) -> None:
        hub.seed("A", "dev", NOW_NS + 1800 * SECOND_NS)
        reader = hub.subscribe("A")
        hub.publish([outcome(block("A", 1, t_ns=NOW_NS + SECOND_NS))])
        assert [row["t_ns"] for row in await received(reader)] == [NOW_NS + SECOND_NS]

    with_hub(use)


def test_rows_whose_clock_was_set_back_within_a_block_are_left_out() -> None:
    async def use(hub: Hub) -> None:
        hub.seed("A", "dev", T0_NS)
        reader = hub.subscribe("A")
        sent = block("A", 3)
        sent.t_ns[:] = (T0_NS + SECOND_NS, T0_NS - SECOND_NS, NO_TIME)
        hub.publish([outcome(sent)])
        assert [row["t_ns"] for row in await received(reader)] == [T0_NS + SECOND_NS]

    with_hub(use)


def test_a_slow_reader_loses_the_oldest_and_is_told_how_many() -> None:
    async def use(_: Hub) -> None:
        reader = Subscriber("A")
        reader.offer(Message("A", "sample", str(i).encode()) for i in range(QUEUE_MESSAGES + 5))
        dropped, messages = await reader.take(1)
        assert (dropped, len(messages), messages[0].body) == (5, QUEUE_MESSAGES, b"5")
        reader.offer([Message("A", "sample", b"next")])
        assert (await reader.take(1))[0] == 0

    with_hub(use)


def test_a_reader_of_all_packs_never_loses_the_newest_of_any_pack_or_kind() -> None:
    """One transaction of more packs than the queue was long once left the fleet's page with the last 256 only."""

    async def use(hub: Hub) -> None:
        every = hub.subscribe(None)
        packs = {f"P{i}" for i in range(2 * QUEUE_MESSAGES)}
        hub.publish([outcome(*(block(pack, 2) for pack in packs))])
        _, messages = await every.take(5)
        newest = {message.pack_id: json.loads(message.body)["t_ns"] for message in messages}
        assert newest == dict.fromkeys(packs, T0_NS + SECOND_NS)

    with_hub(use)


def test_a_reader_that_never_reads_holds_a_bounded_number_of_messages() -> None:
    async def use(_: Hub) -> None:
        reader = Subscriber(None)
        reader.offer([Message("P0", "event", b"alarm")])
        for commit in range(100):
            reader.offer(Message(f"P{i}", "sample", str(commit).encode()) for i in range(300))
        dropped, messages = await reader.take(1)
        assert messages[0].body == b"alarm"
        assert {m.pack_id: m.body for m in messages if m.kind == "sample"} == {f"P{i}": b"99" for i in range(300)}
        assert len(messages) < 300 + 3 * QUEUE_MESSAGES
        assert dropped + len(messages) == 1 + 100 * 300

    with_hub(use)


def test_commits_that_nobody_can_keep_up_with_are_dropped_and_counted() -> None:
    async def use(hub: Hub) -> None:
        reader = hub.subscribe("A")
        for i in range(200):  # no await in between: the loop delivers nothing meanwhile
            hub.publish([outcome(block("A", 1, t_ns=T0_NS + i * SECOND_NS))])
        dropped, seen = 0, 0
        while dropped + seen < 200:
            lost, messages = await reader.take(5)
            dropped, seen = dropped + lost, seen + len(messages)
        assert dropped > 0 and seen > 0

    with_hub(use)


def test_events_carry_times_for_people() -> None:
    async def use(hub: Hub) -> None:
        reader = hub.subscribe("A")
        event = Event(pack_id="A", seq=1, mono_ns=1, t_ns=T0_NS, id="e", code="low_soc", severity="warning",
                      since_t_ns=T0_NS)  # fmt: skip
        hub.publish([outcome(events=(event,))])
        (found,) = await received(reader)
        assert (found["since"], found["cleared"], found["code"]) == (iso(T0_NS), None, "low_soc")

    with_hub(use)


def test_sessions_are_told_as_records() -> None:
    async def use(hub: Hub) -> None:
        reader = hub.subscribe("A")
        hub.publish([outcome(sessions=(Session(pack_id="A", seq=1, mono_ns=1, t_ns=T0_NS, duration_s=5.0),))])
        _, (message,) = await reader.take(5)
        assert message.kind == "session"
        assert json.loads(message.body)["duration_s"] == 5.0

    with_hub(use)


def test_only_a_reader_of_one_pack_makes_its_device_watched() -> None:
    async def use(hub: Hub) -> None:
        hub.seed("A", "dev", None)
        every = hub.subscribe(None)
        assert not hub.watches("dev")
        one = hub.subscribe("A")
        assert hub.watches("dev") and hub.watches(None) and not hub.watches("other")
        hub.unsubscribe(one)
        hub.unsubscribe(one)
        assert not hub.watches("dev")
        assert hub.readers == 1
        hub.unsubscribe(every)

    with_hub(use)


def test_close_ends_readers_of_today_and_of_later() -> None:
    async def use(hub: Hub) -> None:
        reader = hub.subscribe(None)
        hub.close()
        assert await reader.take(5) == (0, [])
        assert reader.ended and hub.subscribe("A").ended
        hub.publish([outcome(block("A", 1))])

    with_hub(use)
