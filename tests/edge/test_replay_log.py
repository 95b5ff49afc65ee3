"""`edge replay` over logs: what the bus said does not depend on who wrote it down, and each replay says the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.__main__ import main
from edge.config_sources import SAMPLES
from edge.logs import open_log
from firmware_bridge import python_can
from firmware_bridge.__main__ import main as bridge
from firmware_bridge.frames import EXTENDED, FrameBatch

Row = tuple[int, int, bytes]
START_NS = 1_767_225_600_000_000_000


def replayed(folder: Path, log: Path, *more: str) -> list[dict[str, Any]]:
    out = folder / "out.jsonl"
    arguments = ["replay", str(log), "--mapping", str(SAMPLES / "mapping.toml"), "--pack", "A", "-o", str(out)]
    assert main([*arguments, *more]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.fixture(scope="module")
def candump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven seconds of a simulated car."""
    path = tmp_path_factory.mktemp("log") / "drive.log"
    assert bridge(["sim", "--cars", "1", "--seed", "7", "--seconds", "7", "--log", str(path)]) == 0
    return path


def hexed(payload: bytes, separator: str) -> str:
    return payload.hex(separator).upper()


def name(can_id: int, width: int) -> str:
    return f"{can_id & 0x1FFF_FFFF:0{width}X}"


def gvret(rows: list[Row]) -> str:
    lines = ["Time Stamp,ID,Extended,Dir,Bus,LEN,D1,D2,D3,D4,D5,D6,D7,D8"]
    for t_ns, can_id, data in rows:
        extended = str(bool(can_id & EXTENDED)).lower()
        lines.append(f"{t_ns // 1000},{name(can_id, 8)},{extended},Rx,0,{len(data)},{hexed(data, ',')},")
    return "\n".join(lines)


def crtd(rows: list[Row]) -> str:
    kind = {True: "R29", False: "R11"}
    lines = []
    for t_ns, can_id, data in rows:
        time = f"{t_ns // 10**9}.{t_ns // 1000 % 10**6:06d}"
        lines.append(f"{time} {kind[bool(can_id & EXTENDED)]} {name(can_id, 8)} {hexed(data, ' ')}")
    return "\n".join(lines)


def asc(rows: list[Row]) -> str:
    lines = ["date Thu Jan 1 12:00:00.000 am 2026", "base hex  timestamps absolute"]
    for t_ns, can_id, data in rows:
        us, mark = (t_ns - START_NS) // 1000, "x" if can_id & EXTENDED else ""
        time = f"{us // 10**6}.{us % 10**6:06d}"
        lines.append(f"   {time} 1  {name(can_id, 1)}{mark}       Rx   d {len(data)} {hexed(data, ' ')}")
    return "\n".join(lines)


def trc(rows: list[Row]) -> str:
    lines = [";$FILEVERSION=2.1", ";$STARTTIME=46023", ";$COLUMNS=N,O,T,B,I,d,R,L,D"]
    for i, (t_ns, can_id, data) in enumerate(rows):
        us = (t_ns - START_NS) // 1000
        ident = name(can_id, 8 if can_id & EXTENDED else 4)
        lines.append(f"{i:7} {us // 1000}.{us % 1000:03d} DT 1 {ident} Rx - {len(data)} {hexed(data, ' ')}")
    return "\n".join(lines)


@pytest.mark.parametrize("writer", [gvret, crtd, asc, trc])
def test_the_samples_do_not_depend_on_the_format(
    tmp_path: Path, candump: Path, writer: Callable[[list[Row]], str]
) -> None:
    rows = [row for batch in open_log(candump).batches() for row in batch.rows()]
    other = tmp_path / "other"
    other.write_text(writer(rows))
    assert open_log(other).format.split()[-1] in ("CSV", "CRTD", "ASC", "TRC")
    want = replayed(tmp_path, candump)
    assert len(want) >= 7 and want[-1]["cell_v"][0] is not None
    assert replayed(tmp_path, other) == want


def test_the_samples_of_a_binary_log_are_the_same(tmp_path: Path, candump: Path) -> None:
    can = python_can.load()
    with can.BLFWriter(tmp_path / "x.blf") as out:
        for batch in open_log(candump).batches():
            for t_ns, can_id, payload in batch.rows():
                # Half a us more: python-can cuts what a float does not hold.
                out.on_message_received(
                    can.Message(
                        timestamp=t_ns / 1e9 + 5e-7,
                        arbitration_id=can_id & 0x1FFF_FFFF,
                        is_extended_id=bool(can_id & EXTENDED),
                        data=payload,
                        channel=0,
                    )
                )
    want, found = replayed(tmp_path, candump), replayed(tmp_path, tmp_path / "x.blf")
    assert [{**row, "mono_ns": 0} for row in found] == [{**row, "mono_ns": 0} for row in want]


def test_a_replay_says_the_same_each_time_and_at_any_speed(tmp_path: Path, candump: Path) -> None:
    want = replayed(tmp_path, candump, "--speed", "max")
    assert replayed(tmp_path, candump, "--speed", "max") == want
    assert replayed(tmp_path, candump, "--speed", "100") == want


def test_another_channel_and_what_was_wrong_with_the_log_is_told(
    tmp_path: Path, candump: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = candump.read_text().splitlines()
    woven = [line for one in lines for line in (one.replace(" can0 ", " can1 "), one)]
    (tmp_path / "two.log").write_text("\n".join([*woven[:9], "(1.0) can0 what?", *woven[9:]]))
    want = replayed(tmp_path, candump)
    assert replayed(tmp_path, tmp_path / "two.log", "--channel", "can0") == want
    said = capsys.readouterr().err
    assert "left out: can1" in said and "1 line of the log is no frame" in said and "line 10" in said
    assert replayed(tmp_path, tmp_path / "two.log") == want
    assert "left out: can0" in capsys.readouterr().err


def test_a_log_without_times_cannot_be_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "g.csv").write_text("ID,Data Bytes\n00000100,9C 40 00 00 00 00 00 00\n")
    assert main(["replay", str(tmp_path / "g.csv"), "--mapping", str(SAMPLES / "mapping.toml"), "-o", "-"]) == 1
    assert "has no times" in capsys.readouterr().err


def test_a_log_of_a_bms_that_speaks_a_language_is_replayed_by_the_names_of_that_language(tmp_path: Path) -> None:
    from firmware_bridge.protocols.pylontech_can import PYLONTECH_CAN

    assert PYLONTECH_CAN.frames is not None
    values = {"pack_v": 52.1, "current_a": -3.4, "soc_bms": 0.71, "soh_bms": 0.98, "temp_c[0]": 21.5}
    rows = [
        (START_NS + second * 10**9, can_id, payload)
        for second in range(5)
        for can_id, payload in PYLONTECH_CAN.frames(values, None, None)
    ]
    log = tmp_path / "bank.log"
    log.write_text("".join(f"{line}\n" for line in FrameBatch.of("can0", rows).candump()))
    (tmp_path / "m.toml").write_text(
        'protocol = "pylontech_can"\n[fields]\npack_v = { from = "pack_v" }\ncurrent_a = { from = "current_a" }\n'
        'soc_bms = { from = "soc_bms" }\n'
    )
    samples = replayed(tmp_path, log, "--mapping", str(tmp_path / "m.toml"))
    assert len(samples) == 5
    assert {(one["pack_v"], one["current_a"], one["soc_bms"]) for one in samples} == {(52.1, -3.4, 0.71)}


def test_a_mapping_of_a_serial_line_is_not_for_logs_and_says_so(
    tmp_path: Path, candump: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.toml").write_text('protocol = "jbd"\n[fields]\npack_v = { from = "pack_v" }\n')
    assert main(["replay", str(candump), "--mapping", str(tmp_path / "m.toml"), "--pack", "A", "-o", "-"]) == 2
    assert "is not for frames of a bus" in capsys.readouterr().err
