"""`firmware_bridge decode` and `list`: captured bytes in, what they say out."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from itertools import chain
from typing import Any, Final, TextIO

from firmware_bridge.frames import EXTENDED
from firmware_bridge.merge import Merger
from firmware_bridge.protocol import LineError, Protocol, Said
from firmware_bridge.shelf import NAMES, protocol
from shared.errors import ConfigError

_FRAME: Final = re.compile(r"([0-9A-Fa-f]{1,8})#([0-9A-Fa-f]{0,128})")
_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2})+")
_HELP: Final = """examples:
  python -m firmware_bridge decode --protocol jbd --hex 'DD 04 00 08 0D 66 0D 61 0D 68 0D 59 FE 3C 77'
  python -m firmware_bridge decode --protocol daly_uart --file line.txt     one chunk a line, "> HEX" for a sent one
  python -m firmware_bridge decode --protocol pylontech_can --can 356#0213000000 --can 355#1A006400

A pack a line as JSON on stdout, by the names of a Sample (current_a > 0 charges); what was wrong, a line each, on
stderr. exit: 0 something was decoded, 1 nothing was, 2 bad usage."""


def add_decode(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds `decode` to the command line."""
    parser = commands.add_parser(
        "decode",
        help="captured bytes of a BMS -> what they say",
        description="Decodes captured bytes of a BMS in any of the languages of `firmware_bridge list`.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--protocol", required=True, metavar="NAME", help=f"one of {', '.join(NAMES)}")
    parser.add_argument("--vehicle", metavar="NAME", help="whose identifiers they are, for a protocol of vehicles")
    parser.add_argument("--sent", action="append", default=[], metavar="HEX", help="a request that was on the line")
    parser.add_argument("--hex", action="append", default=[], metavar="HEX", help="a chunk that was received")
    parser.add_argument("--can", action="append", default=[], metavar="ID#HEX", help="a CAN frame that was received")
    parser.add_argument("--file", metavar="F", help="chunks or frames, one a line; - is stdin")
    parser.set_defaults(run=run_decode)


def run_decode(args: argparse.Namespace) -> int:
    """Runs `decode`. 1 when nothing could be decoded."""
    spoken = protocol(args.protocol)
    _check(args, spoken)
    merger, count = Merger(), 0
    for said in _said(spoken, args):
        if isinstance(said, LineError):
            told = {"error": said.error, "offset": said.offset, "detail": said.detail}
            print(json.dumps(told), file=sys.stderr)
        elif (report := merger.add(said)) is not None:
            count += 1
            print(json.dumps(report), flush=True)  # a pipe may go on for ever
    for report in merger.end():
        count += 1
        print(json.dumps(report))
    return 0 if count else 1


def _check(args: argparse.Namespace, spoken: Protocol) -> None:
    if not (args.hex or args.can or args.file):
        raise ConfigError("decode: nothing to decode: give --hex, --can or --file")
    if args.vehicle and args.vehicle not in spoken.vehicles:
        known = f"one of {', '.join(spoken.vehicles)}" if spoken.vehicles else "not asked for"
        raise ConfigError(f"decode: --vehicle {args.vehicle}: a vehicle of {spoken.name} is {known}")
    if spoken.vehicles and not args.vehicle:
        raise ConfigError(f"decode: {spoken.name} needs --vehicle, one of {', '.join(spoken.vehicles)}")
    if args.can and spoken.medium != "can":
        raise ConfigError(f"decode: {spoken.name} is spoken on a serial line: give its bytes by --hex instead of --can")


def _said(spoken: Protocol, args: argparse.Namespace) -> Iterator[Said]:
    """All that was said, in order; `--sent` first."""
    lines = [(True, text, "--sent") for text in args.sent]
    lines += [(False, text, "--hex") for text in args.hex] + [(False, text, "--can") for text in args.can]
    told = chain(lines, _file_lines(args.file) if args.file else ())
    if spoken.bytes_decoder is not None:
        line = spoken.bytes_decoder()
        for is_sent, text, where in told:
            if is_sent:
                line.sent(_bytes(text, where))
            else:
                yield from line.feed(_bytes(text, where))
        yield from line.end()
    elif spoken.frames_decoder is not None:
        bus = spoken.frames_decoder(args.vehicle)
        for number, (is_sent, text, where) in enumerate(told):
            if is_sent:
                bus.sent(*_sent_frame(spoken, args.vehicle, text, where))
            else:
                yield from bus.frame(number, *_frame(text, where))
        yield from bus.end()


def _file_lines(name: str) -> Iterator[tuple[bool, str, str]]:
    """(whether it was sent, the text, where it stands) of each line of a file that says something."""
    if name == "-":
        if isinstance(sys.stdin, TextIOWrapper):
            sys.stdin.reconfigure(encoding="ascii", errors="replace")  # as files are read
        yield from _lines(sys.stdin, "stdin")
        return
    try:
        with open(name, encoding="ascii", errors="replace") as file:
            yield from _lines(file, name)
    except OSError as error:
        raise ConfigError(f"decode: {name} cannot be read ({error.strerror}): name another file") from None


def _lines(file: TextIO | Iterable[str], name: str) -> Iterator[tuple[bool, str, str]]:
    for number, line in enumerate(file, 1):
        text = line.strip()
        if text and not text.startswith("//"):
            is_sent = text.startswith(">")
            yield is_sent, text.lstrip("> \t"), f"{name} line {number}"


def _bytes(text: str, where: str) -> bytes:
    packed = re.sub(r"[\s:]|0x", "", text)
    if not _HEX.fullmatch(packed):
        raise ConfigError(f"decode: {where}: {text[:40]!r} is not hex, such as DD040008 or 'DD 04 00 08'")
    return bytes.fromhex(packed)


def _sent_frame(spoken: Protocol, vehicle: str | None, text: str, where: str) -> tuple[int, bytes]:
    """A request on a bus. Without its id, such as `220101`, it is that of the poll that asks the same."""
    if "#" in text:
        return _frame(text, where)
    payload = _bytes(text, where)
    for poll in spoken.polls(None, vehicle):
        # What is asked may stand bare, or as the frame that carries it.
        if poll.can_id is not None and payload in (poll.request, poll.request[1 : 1 + poll.request[0]]):
            return poll.can_id, payload
    raise ConfigError(f"decode: {where}: {text[:40]!r} is no request of {spoken.name}: give it with its id, as ID#HEX")


def _frame(text: str, where: str) -> tuple[int, bytes]:
    match = _FRAME.fullmatch(re.sub(r"\s|\b0x", "", text))
    if match is None or len(match[2]) % 2 or len(match[2]) > 128:
        raise ConfigError(f"decode: {where}: {text[:40]!r} is not a CAN frame, such as 356#0213000000")
    can_id = int(match[1], 16)
    if can_id > 0x1FFF_FFFF:
        raise ConfigError(f"decode: {where}: {match[1]} is no CAN id, at most 1FFFFFFF")
    return can_id | (EXTENDED if len(match[1]) > 3 else 0), bytes.fromhex(match[2])
