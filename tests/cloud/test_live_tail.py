"""What the API reads along on the bus: only what the database gives to its sender, and only for who watches."""

from __future__ import annotations

from bus_records import Message, message
from fake_batches import batch, block

from cloud.live_tail import News
from shared.records import Estimate, Event

OWNERS = {"A": "dev1", "B": "dev2"}


def event(seq: int, pack_id: str = "A") -> Event:
    return Event(seq=seq, mono_ns=1, id=f"e{seq}", code="low_soc", severity="warning", pack_id=pack_id)


def test_records_of_packs_that_are_not_the_senders_stay_away() -> None:
    mixed = batch(
        "dev1", block("A", 2), block("B", 2, seq=2), block("C", 2, seq=4),
        events=(event(6), event(7, "B")), estimates=(Estimate(pack_id="B", seq=8, mono_ns=1),),
    )  # fmt: skip
    (outcome,) = News(OWNERS).outcomes([message(mixed, 0)], {None})
    assert [one.pack_id for one in outcome.blocks] == ["A"]
    assert ([one.seq for one in outcome.events], outcome.estimates, outcome.written) == ([6], (), 3)


def test_messages_of_devices_that_nobody_watches_are_not_decoded() -> None:
    sent = [message(batch("dev1", block("A", 1)), 0), message(batch("dev2", block("B", 1)), 1)]
    assert [outcome.device for outcome in News(OWNERS).outcomes(sent, {"B"})] == ["dev2"]
    assert [outcome.device for outcome in News(OWNERS).outcomes(sent, {"unknown"})] == []
    assert len(News(OWNERS).outcomes(sent, {"B", None})) == 2


def test_an_event_that_comes_again_is_no_news() -> None:
    news = News(OWNERS)
    sent = message(batch("dev1", events=(event(1),)), 0)
    assert [len(news.outcomes([sent], {None})[0].events) for _ in range(2)] == [1, 0]


def test_what_is_no_batch_is_left_to_the_ingest() -> None:
    assert News(OWNERS).outcomes([Message(0, 0, b"dev1", b"x"), Message(0, 1, None, None)], {None}) == []
