"""`edge doctor --port P`: what BMS is there, and with `--write-config` the files with which the agent reads it."""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import sys
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edge.config import load_config
from edge.doctor.checks import FAIL, OK, WARN, Check, exit_code, port_check
from edge.doctor.found import Found, Pack
from edge.doctor.ports import is_busy, lasting_name, port_of, user_name
from edge.doctor.probe import Probe, serial_languages
from edge.lanes import build_lanes
from edge.propose.serial import Here, open_questions, propose_serial
from edge.sources import usb
from edge.sources.source import SourceError
from firmware_bridge.protocol import ALARM, Value
from firmware_bridge.rows import standing
from shared.errors import ConfigError, PacktwinError
from shared.fields import ID

_PAGE_PORTS: Final = range(5002, 5032)
_METRICS_PORTS: Final = (9100, *range(9103, 9133))  # 9101 and 9102 are the cloud's
_ASK_S: Final = 2.0
_LISTEN_S: Final = 4.0
"""At each bit rate: inverters and displays that ask a BMS do it more often."""
_RATES: Final = (300, 4_000_000)


def doctor_port(args: argparse.Namespace) -> int:
    """Runs the command; 1 when no BMS was found."""
    out = Path(args.out or ".")
    lo, hi = _RATES
    if args.baudrate is not None and not lo <= args.baudrate <= hi:
        raise ConfigError(f"--baudrate {args.baudrate} must lie between {lo} and {hi}: give the bit/s of the BMS")
    if args.write_config and not args.force:
        for path in (out / "mapping.toml", out / "edge.toml"):
            if path.exists():
                raise ConfigError(f"{path} is there already: give another folder with -o, or --force to write over it")
    checks: list[Check] = []
    packs: list[Pack] = []
    for check, found in _checks(args):
        checks.append(check)
        packs += found
        if not args.json:
            print(f"{check.status:4}  {check.name}: {check.text}", flush=True)
    if args.json:
        print(json.dumps([{"check": c.name, "status": c.status, "text": c.text} for c in checks], indent=1))
    if args.write_config:
        if not packs:
            raise PacktwinError(f"no BMS was found on {args.port}, so nothing was written")
        _write(packs, args.port, out)
    return exit_code(checks)


def _checks(args: argparse.Namespace) -> Iterator[tuple[Check, list[Pack]]]:
    """Each finding, with the packs that it is about."""
    port = port_of(usb.name_of(args.port, "tty") or args.port)
    check = port_check(port, user_name())
    yield check, []
    if check.status == FAIL:
        return
    languages = serial_languages()
    if args.baudrate:
        languages = [replace(one, rate=args.baudrate) for one in languages]

    def say(text: str) -> None:
        print(f"      {text} ...", file=sys.stderr, flush=True)

    try:
        found = Probe(args.port, languages, listen_s=args.seconds or _LISTEN_S, say=say).run()
    except SourceError as error:
        mend = ": another program may be reading it (the agent?), so end that first" if is_busy(error) else ""
        yield Check(f"line {args.port}", FAIL, f"{error}{mend}"), []
        return
    yield _line_check(args.port, found), []
    for pack in found.packs:
        yield Check(f"bms {_called(pack)}", OK, _described(pack)), [pack]
        for question in open_questions(pack):
            yield Check(f"bms {_called(pack)}", WARN, question), []


def _line_check(port: str, found: Found) -> Check:
    """What was heard, and whether anybody answered."""
    name = f"line {port}"
    heard = ", ".join(f"{count} bytes at {rate} bit/s" for rate, count in found.heard_bytes.items() if count)
    if found.is_taken:
        who = f"another one asks there in {' and '.join(found.requests)}" if found.requests else "somebody talks there"
        sent = "so asking was ended" if found.asked else "so nothing was sent"
        if found.packs:
            listened = f"listened for {found.listened_s:.0f} s: {heard} came without our asking"
            return Check(name, WARN, f"{who}, {sent}; {listened}")
        mend = "is the BMS awake, and wired to that line? Or unplug whatever asks there, and try again"
        return Check(name, FAIL, f"{who}, {sent}; nobody was heard to answer it in {found.listened_s:.0f} s: {mend}")
    silent = f"{heard or 'nothing'} came in {found.listened_s:.1f} s without our asking"
    if found.packs:
        return Check(name, OK, f"{silent}; asked in {', '.join(found.asked)}")
    if not found.asked:
        mend = "unplug whatever else asks there (an inverter, a display, another program), or give its --baudrate"
        return Check(
            name, FAIL, f"{heard} came without our asking, in no language known here; nothing was sent: {mend}"
        )
    mend = "check the wires (swap RX and TX, or A and B), wake the BMS (charge it, press its button), mind its address"
    return Check(name, FAIL, f"{silent}, and nobody answers in {', '.join(found.asked)}: {mend}")


def _called(pack: Pack) -> str:
    return pack.protocol.name if pack.address is None else f"{pack.protocol.name} {pack.address}"


def _described(pack: Pack) -> str:
    """What the pack said, for a person."""
    parts = [f"{pack.protocol.title} at {pack.baudrate} bit/s"]
    for name, text in (("pack_v", "{:.2f} V"), ("current_a", "{:.2f} A")):
        if (value := _number(pack.values.get(name))) is not None:
            parts.append(text.format(value))
    if (soc := _number(pack.values.get("soc_bms"))) is not None:
        parts.append(f"SoC {100 * soc:.0f} %")
    for array, noun, unit, digits in (("cell_v[", "cells", "V", 3), ("temp_c[", "sensors", "degC", 1)):
        numbers = list(_numbers(pack.values[name] for name in pack.values if name.startswith(array)))
        if numbers:
            parts.append(f"{len(numbers)} {noun} {min(numbers):.{digits}f} to {max(numbers):.{digits}f} {unit}")
    alarms = standing(pack.values)
    parts += [f"alarms: {' '.join(alarms)}"] if alarms else []
    parts += [] if any(name.startswith(ALARM) for name in pack.values) else ["no alarms told"]
    return ", ".join(parts)


def _numbers(values: Iterable[Value]) -> Iterator[float]:
    yield from (number for value in values if (number := _number(value)) is not None)


def _number(value: Value) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _write(packs: list[Pack], port: str, out: Path) -> None:
    """Writes the files, reads them as the agent will, and tells what is open."""
    proposal = propose_serial(packs, _here(port))
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in proposal.files.items():
            (out / name).write_text(text, "utf-8")
    except OSError as error:
        raise PacktwinError(f"{out} cannot be written: {error.strerror}") from None
    edge_path = out / "edge.toml"
    build_lanes(load_config(edge_path, {}))
    for of, question in proposal.questions:
        print(f"QUESTION  {of}: {question}")
    written = [str(out / name) for name in proposal.files]
    config = "" if out.resolve() == Path.cwd() else f" --config {edge_path}"
    print(f"wrote {' and '.join(written)}: look at each QUESTION in them", file=sys.stderr)
    print(f"start it: python -m edge run{config}", file=sys.stderr)


def _here(port: str) -> Here:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", socket.gethostname()).strip("._-")[:40]
    return Here(
        device=plain if ID.fullmatch(plain) else "my-box",
        port=lasting_name(port),
        url=_cloud_here(),
        page_port=_first_free(_PAGE_PORTS),
        metrics_port=_first_free(_METRICS_PORTS),
    )


def _cloud_here() -> str:
    """The address of packtwin's cloud on this machine (as `make run` starts it); "" = none answers."""
    try:
        url = f"http://127.0.0.1:{int(os.environ.get('API_PORT') or 5001)}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{url}/health", timeout=_ASK_S) as answer:
            told: dict[str, Any] = json.load(answer)
    except (OSError, ValueError):
        return ""
    return url if isinstance(told, dict) and {"status", "database"} <= told.keys() else ""


def _first_free(ports: Iterable[int]) -> int:
    """The first port of the loopback that nobody has; the first of all when all are taken."""
    tried = list(ports)
    for port in tried:
        with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    return tried[0]
