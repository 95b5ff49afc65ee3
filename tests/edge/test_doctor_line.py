"""`edge doctor --port` on a line on which another one asks: nothing is sent, and what was not heard is told."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.bms_port import JBD_VALUES, BmsPort, Hurry, served
from waiting import arrived

from edge.__main__ import main
from edge.doctor import port as port_command
from edge.doctor.found import Found, Pack
from edge.doctor.overhear import LEAST_S, MOST_S, Overheard, Strangers
from edge.doctor.port import _line_check
from edge.doctor.probe import Probe, serial_languages
from edge.mapping import load_mapping
from edge.propose.serial import Here, propose_serial
from edge.sources.port import SerialPort
from firmware_bridge.protocol import Part, Protocol
from firmware_bridge.protocols.jbd import JBD, reply
from firmware_bridge.protocols.jk_uart import JK_UART
from firmware_bridge.protocols.seplos_v3 import SEPLOS_V3

S = 1_000_000_000
STATUS, CELLS = (poll.request for poll in JBD.polls(None, None) if poll.every == 1)
VALUES = {**JBD_VALUES, **{f"cell_v[{i}]": 3.3 for i in range(4)}, "temp_c[1]": 20.0, "soh_bms": 1.0}
Exchange = tuple[bytes, Sequence[bytes]]

HERE = Here(device="box", port="/dev/ttyUSB0", url="", page_port=5002, metrics_port=9100)


def exchanges(language: Protocol, *addresses: int | None) -> list[Exchange]:
    """What a master that asks for everything says in a round, and what it is answered."""
    assert language.answer is not None
    return [
        (poll.request, language.answer(poll.request, VALUES, address))
        for address in addresses
        for poll in language.polls(address, None)
        if poll.every == 1
    ]


def listen(heard: Overheard, round_: Sequence[Exchange], period_s: float, *, requests: bool = True) -> float:
    """Lets a master ask until it is enough; how long that took [s]."""
    now_ns, at = 0, 0
    while not heard.is_enough(now_ns) and now_ns < 100 * S:
        if now_ns >= at * period_s * S:
            request, replies = round_[at % len(round_)]
            at += 1
            for data in (request, *replies) if requests else replies:
                now_ns += S // 50
                heard.feed(now_ns, data)
        now_ns += S // 50
        heard.feed(now_ns, b"")
    return now_ns / S


def languages_at(rate: int) -> list[Protocol]:
    return [one for one in serial_languages() if one.rate == rate]


@pytest.mark.parametrize("language", serial_languages(), ids=lambda one: one.name)
def test_one_request_or_one_reply_of_any_language_means_that_the_line_is_taken(language: Protocol) -> None:
    """Two whole replies were needed: one of a master that asks each three seconds was taken for nobody."""
    assert language.answer is not None
    request, replies = exchanges(language, None)[0]
    for pieces in ([request], [request[:5], request[5:]], [request, *replies]):
        heard = Overheard(languages_at(language.rate), 0)
        for at, data in enumerate(pieces):
            heard.feed(at * S // 20, data)
        assert heard.is_taken and heard.requests == [language.name]


def test_noise_takes_no_line() -> None:
    heard = Overheard(languages_at(9600), 0)
    for at in range(200):
        heard.feed(at * S // 10, bytes((at * 37 + i * 101) % 256 for i in range(40)))
    assert not heard.is_taken and heard.bytes == 8000


@pytest.mark.parametrize(("language", "addresses", "period_s"), [(JBD, (None,), 3.0), (SEPLOS_V3, (1, 2), 0.4)])
def test_it_is_listened_until_every_kind_of_message_has_come_twice(
    language: Protocol, addresses: tuple[int | None, ...], period_s: float
) -> None:
    """It was listened for a second, and half a mapping was written: without cells, or without the second pack."""
    heard = Overheard(languages_at(language.rate), 0)
    took_s = listen(heard, exchanges(language, *addresses), period_s)
    assert LEAST_S <= took_s < 15 and [pack.address for pack in heard.packs] == list(addresses)
    for pack in heard.packs:
        assert len(pack.cells) >= 4 and pack.unheard == [] and not pack.was_asked


def test_replies_alone_are_enough_where_they_say_what_they_are() -> None:
    heard = Overheard(languages_at(9600), 0)
    listen(heard, exchanges(JBD, None), 1.0, requests=False)
    assert heard.packs[0].unheard == [] and heard.requests == []


def test_what_nobody_asks_for_is_waited_for_and_then_a_question(tmp_path: Path) -> None:
    heard = Overheard(languages_at(9600), 0)
    assert listen(heard, exchanges(JBD, None)[:1], 1.0) == pytest.approx(MOST_S, abs=0.5)
    (pack,) = heard.packs
    assert pack.cells == [] and pack.unheard == ["cells"]
    proposal = propose_serial(heard.packs, HERE)
    told = dict(proposal.questions)
    assert "no cell voltages were told" in told["mapping.toml cell_v"]
    assert "not heard: cells" in told["mapping.toml messages"]
    text = proposal.files["mapping.toml"]
    assert text.count("QUESTION: no cell voltages") == 1 and "QUESTION: not heard: cells" in text
    (tmp_path / "m.toml").write_text(text)
    assert load_mapping(tmp_path / "m.toml").layout.cells == 0


def test_a_pack_that_was_asked_and_has_no_cells_is_a_question() -> None:
    pack = Pack(JBD, 9600, None, was_asked=True)
    pack.take(Part(kind="status", values={"pack_v": 13.2}))
    assert [of for of, _ in propose_serial([pack], HERE).questions if of.endswith("cell_v")]


def test_a_number_that_is_no_address_is_not_written() -> None:
    """Terminals of JK have numbers of four bytes, which edge.toml refuses as an address."""
    heard = Overheard([JK_UART], 0)
    assert JK_UART.answer is not None
    (request, (frame,)) = exchanges(JK_UART, None)[0]
    body = frame[:4] + (7).to_bytes(4, "big") + frame[8:-4]
    heard.feed(0, request + body + bytes(2) + (sum(body) & 0xFFFF).to_bytes(2, "big"))
    (pack,) = heard.packs
    assert pack.address is None


def test_a_master_that_nobody_answers_is_told() -> None:
    check = _line_check("P", Found(listened_s=30.0, is_taken=True, requests=["jbd"], heard_bytes={9600: 70}))
    assert check.status == "fail" and "another one asks there in jbd, so nothing was sent" in check.text
    assert "nobody was heard to answer it in 30 s" in check.text


# --- whether another one asks, while we do ---


def test_our_own_requests_that_come_back_are_no_stranger() -> None:
    strangers = Strangers([JBD])
    for at in range(20):
        strangers.ask([STATUS, CELLS])
        strangers.now(at * S)
        strangers.heard(STATUS + CELLS)
    strangers.ask([])
    strangers.now(20 * S)
    strangers.heard(CELLS)
    assert strangers.asked is None


def test_what_we_did_not_ask_is_a_strangers() -> None:
    strangers = Strangers([JBD, JK_UART])
    strangers.ask([STATUS])
    strangers.now(0)
    strangers.heard(b"\0" + CELLS[:3])
    assert strangers.asked is None
    strangers.heard(CELLS[3:])
    assert strangers.asked == "jbd"


@pytest.fixture
def port(tmp_path: Path) -> Iterator[BmsPort]:
    yield BmsPort(tmp_path / "port", JBD, {None: {}})


def test_a_master_that_asks_seldom_ends_our_asking(port: BmsPort, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was heard by nobody while we asked, and we went on asking through its talk."""
    answers = {STATUS: reply(0x03, JBD_VALUES), CELLS: reply(0x04, JBD_VALUES)}
    clock, ours, at = Hurry(), bytearray(), 0
    begun_ns, write = clock.now_ns, SerialPort.write

    def noted(self: SerialPort, data: bytes) -> None:
        ours.extend(data)
        write(self, data)

    def sleep(seconds: float) -> None:
        nonlocal at
        clock.sleep(seconds)
        if clock.now_ns - begun_ns > (5 + 3 * at) * S:
            request = (STATUS, CELLS)[at % 2]
            at += 1
            os.write(port.fd, request + answers[request])
            arrived(port._line)
            ours.append(ord("|"))

    monkeypatch.setattr(SerialPort, "write", noted)
    found = Probe(
        str(port.link), [replace(JK_UART, rate=9600), JBD], listen_s=0.2, mono_ns=clock.mono_ns, sleep=sleep
    ).run()
    assert found.is_taken and found.asked and found.requests == ["jbd"]
    (pack,) = found.packs
    assert not pack.was_asked and len(pack.cells) == 4
    told = bytes(ours).split(b"|")
    assert told[0] and not any(told[2:]), "after a stranger's second message at most nothing of ours"
    check = _line_check("P", found)
    assert check.status == "warn" and "so asking was ended" in check.text


def test_a_master_without_a_bms_fails_the_command(
    port: BmsPort, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("edge.doctor.overhear.MOST_S", 1.0)
    monkeypatch.setattr(port_command, "_cloud_here", lambda: "")

    def talk() -> None:
        os.write(port.fd, STATUS)
        if select.select([port.fd], [], [], 0.1)[0]:
            raise AssertionError(os.read(port.fd, 4096))

    out = tmp_path / "box"
    with served(port, talk):
        assert main(["doctor", "--port", str(port.link), "--seconds", "0.5", "--write-config", "-o", str(out)]) == 1
    told = capsys.readouterr()
    assert "another one asks there in jbd, so nothing was sent" in told.out and "nothing was written" in told.err
    assert not out.exists()


def test_packs_that_were_heard_from_another_point_on_share_a_mapping() -> None:
    """The order in which messages came made two files of one."""
    heard = Overheard(languages_at(19200), 0)
    round_ = exchanges(SEPLOS_V3, 1, 2)
    listen(heard, round_[4:] + round_[:4], 0.4)
    assert len(heard.packs) == 2 and set(propose_serial(heard.packs, HERE).files) == {"mapping.toml", "edge.toml"}
