"""What is acknowledged, over which connection, and what is known when it comes again."""

from __future__ import annotations

from dataclasses import replace

from edge.mqtt import Message
from edge.sources.mqtt_debts import Debts


def said(number: int, payload: bytes = b"5") -> Message:
    return Message("gate/soc", payload, number=number, qos=1)


def again(number: int, payload: bytes = b"5") -> Message:
    return replace(said(number, payload), is_again=True)


def test_what_is_stored_is_acknowledged_once_in_the_order_in_which_it_came() -> None:
    debts = Debts()
    for number in (7, 3, 5):
        assert debts.read("one", said(number))
    assert debts.settle("one", is_stored=True) == [], "it is in no Sample yet"
    debts.sampled()
    assert debts.read("one", said(9))
    assert debts.settle("one", is_stored=False) == []
    assert debts.settle("one", is_stored=True) == [], "the Sample that held it is gone"
    debts.sampled()
    assert debts.settle("one", is_stored=True) == [7, 3, 5, 9]
    assert debts.settle("one", is_stored=True) == []


def test_a_message_is_acknowledged_only_over_a_connection_that_brought_it() -> None:
    debts = Debts()
    debts.read("one", said(1))
    debts.sampled()
    debts.ended("one")
    assert debts.settle("two", is_stored=True) == [], "the broker has not sent it over this one"
    assert not debts.read("two", again(1))
    assert debts.settle("two", is_stored=False) == [1], "it is stored already, whatever becomes of the Samples of now"


def test_what_is_not_yet_in_a_sample_when_it_comes_again_is_not_read_twice() -> None:
    debts = Debts()
    debts.read("one", said(1))
    debts.ended("one")
    assert not debts.read("two", again(1))
    debts.sampled()
    assert debts.settle("two", is_stored=True) == [1]


def test_another_message_under_the_same_number_is_read() -> None:
    """It was acknowledged unread when it said the same as one of a session that had ended."""
    for other in (said(1), again(1, b"6")):
        debts = Debts()
        debts.read("one", said(1))
        debts.sampled()
        debts.ended("one")
        debts.settle(None, is_stored=True)
        assert debts.read("two", other)
        assert debts.settle("two", is_stored=True) == [], "nothing of it is stored"


def test_what_a_connection_did_not_bring_again_is_forgotten_when_it_ends() -> None:
    debts = Debts()
    for number in (1, 2):
        debts.read("one", said(number))
    debts.sampled()
    debts.ended("one")
    debts.settle(None, is_stored=True)
    debts.read("two", again(2))
    debts.ended("two")
    assert debts.read("three", again(1)), "a new one of the same text: it may have come over `two`, unread"
    assert not debts.read("three", again(2))


def test_what_is_remembered_is_what_two_connections_brought() -> None:
    debts = Debts()
    for link in range(50):
        for number in range(100):
            debts.read(link, said(100 * link + number, b"x" * 1000))
        debts.ended(link)
    assert len(debts._of) == 100
