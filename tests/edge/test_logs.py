"""Logs: the same frames come out of every format, bad lines are counted with the first of them, nothing is dropped."""

from __future__ import annotations

import gzip
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logged import GOOD, Frame, frames_of, read

from edge.logs import FORMATS, open_log
from firmware_bridge import python_can
from firmware_bridge.frames import EXTENDED, FD_LENGTHS, REMOTE
from shared.errors import ConfigError

# What some formats hold that others do not, in lines as their writers write them.
TEXTS: dict[str, tuple[str, str, list[Frame]]] = {
    "candump, FD, remote, error": (
        "candump",
        "(1.000000) can0 123#0A1B\n(1.5) vcan1 0000012A##1" + "00" * 12 + "\n(2.000001) can0 7FF#R4\n"
        "(2.1) can0 20000004#0000000000000000\n(3.000000000) can0 100#\n(3.1) can0 100#11.22 R\n",
        [
            ("1.000000", "can0", 0x123, b"\x0a\x1b"),
            ("1.5", "vcan1", 0x12A | EXTENDED, bytes(12)),
            ("2.000001", "can0", 0x7FF | REMOTE, bytes(4)),
            ("3.000000000", "can0", 0x100, b""),
            ("3.1", "can0", 0x100, b"\x11\x22"),
        ],
    ),
    "candump as shown on a terminal": (
        "candump",
        " (1436509053.249713)  vcan0  044   [8]  2A 36 6C 2E BA 00 00 00\n"
        " (1.0)  vcan0  12345678   [0]  remote request\n",
        [
            ("1436509053.249713", "vcan0", 0x44, bytes.fromhex("2a366c2eba000000")),
            ("1.0", "vcan0", 0x12345678 | EXTENDED | REMOTE, b""),
        ],
    ),
    "ASC, hex, FD, events": (
        "Vector ASC",
        "date Mit Sep 30 15:06:13.191 2017\nbase hex  timestamps absolute\ninternal events logged\n"
        "// version 9.0.0\nBegin Triggerblock Wed Sep 30 15:06:13.191 2017\n   0.000000 Start of measurement\n"
        "   0.015991 1  C4FEBE1x       Rx   d 8 00 08 C0 0A 20 00 00 0F  Length = 240000 BitCount = 124\n"
        "   0.015992 CAN 1 Status:chip status error active\n"
        "   0.5 2  7E   Tx   r 4\n   0.6 1  ErrorFrame\n   0.7 1  Statistic: D 0 R 0 XD 0\n"
        "   1.2 CANFD   1 Rx         1a2                                  1 0 a 16 " + "11 " * 16 + " 0 0 3000\n"
        "   1.3 CANFD   1 Rx         1a2  EngineData   1 0 8  8 " + "22 " * 8 + " 0 0 3000\nEnd TriggerBlock\n",
        [
            ("0.015991", "1", 0xC4FEBE1 | EXTENDED, bytes.fromhex("0008C00A2000000F")),
            ("0.5", "2", 0x7E | REMOTE, bytes(4)),
            ("1.2", "1", 0x1A2, b"\x11" * 16),
            ("1.3", "1", 0x1A2, b"\x22" * 8),
        ],
    ),
    "ASC, decimal and relative times": (
        "Vector ASC",
        "date Sam Feb 1 10:00:00 am 2020\nbase dec  timestamps relative\n"
        "0.5 1 291 Rx d 2 10 255\n0.25 1 4660x Rx d 0\n",
        [("0.500000", "1", 291, b"\x0a\xff"), ("0.750000", "1", 4660 | EXTENDED, b"")],
    ),
    "TRC 1.0": (
        "PEAK TRC",
        ";###\n;   C:\\a.trc\n;-\n     1)      1841  0001  8  00 01 02 03 04 05 06 07\n"
        "     2)     12842  00000777  2  RTR\n",
        [("1.841000", "", 1, bytes(range(8))), ("12.842000", "", 0x777 | EXTENDED | REMOTE, bytes(2))],
    ),
    "TRC 1.1": (
        "PEAK TRC",
        ";$FILEVERSION=1.1\n;$STARTTIME=37704.5364870833\n     1)      1059.9  Rx         0300  3  00 0A 0b\n"
        "     2)      1283.2  Warng  FFFFFFFF  4  00 00 00 08  BUSLIGHT\n"
        "     3)      1284.2  Error      0008  4  00 19 08 08\n",
        [("1.059900", "", 0x300, b"\x00\x0a\x0b")],
    ),
    "TRC 1.3": (
        "PEAK TRC",
        ";$FILEVERSION=1.3\n;$STARTTIME=40878.6\n     1)        17.535 1  Rx        0202 -  1    7F\n",
        [("0.017535", "1", 0x202, b"\x7f")],
    ),
    "TRC 2.1": (
        "PEAK TRC",
        ";$FILEVERSION=2.1\n;$STARTTIME=41240.6\n;$COLUMNS=N,O,T,B,I,d,R,L,D\n"
        "      1      1059.900 DT 1      0300 Rx -  2    0A 0B\n      2      1060.000 FB 2  18EFC034 Tx -  9    "
        + "01 " * 12
        + "\n      3      1061.000 ST 1         - Rx -  5    0 0 0 0 0\n      4   1062.000 RR 1  0301 Rx -  3\n",
        [
            ("1.059900", "1", 0x300, b"\x0a\x0b"),
            ("1.060000", "2", 0x18EFC034 | EXTENDED, b"\x01" * 12),
            ("1.062000", "1", 0x301 | REMOTE, bytes(3)),
        ],
    ),
    "GVRET without Dir": (
        "GVRET CSV",
        "Time Stamp,ID,Extended,Bus,LEN,D1,D2,D3,D4,D5,D6,D7,D8\n1953613500,00000109,false,1,2,00,01,\n"
        "7,18FF0102,true,0,0,,,,,,,,\n",
        [("1953.613500", "1", 0x109, b"\x00\x01"), ("0.000007", "0", 0x18FF0102 | EXTENDED, b"")],
    ),
    "GVRET with Dir": (
        "GVRET CSV",
        "Time Stamp,ID,Extended,Dir,Bus,LEN,D1,D2,D3,D4,D5,D6,D7,D8\n22213513,00000111,false,Rx,0,1,AF,\n",
        [("22.213513", "0", 0x111, b"\xaf")],
    ),
    "CRTD with buses and comments": (
        "CRTD",
        "1.5 CXX a comment\n1.500000 R11 0000021A FE 36\n2.000000 2T29 18FF0102 00\n2.1 CEV an event\n",
        [("1.500000", "", 0x21A, b"\xfe\x36"), ("2.000000", "2", 0x18FF0102 | EXTENDED, b"\x00")],
    ),
    "generic": (
        "SavvyCAN generic CSV",
        "ID,Data Bytes\n0000021A,FE 36 \n18FF0102,\n",
        [("", "", 0x21A, b"\xfe\x36"), ("", "", 0x18FF0102 | EXTENDED, b"")],
    ),
    "BUSMASTER": (
        "BUSMASTER",
        "***BUSMASTER Ver 2.4.0***\n***START DATE AND TIME 23:9:2015 23:59:58:928***\n***HEX***\n***SYSTEM MODE***\n"
        "22:20:14:9920 Rx 1 0x21A s 2 FE 36 \n22:20:15:0010 Tx 2 0x18FF0102 x 1 00 \n22:20:15:0020 Rx 1 0x100 sr 3\n",
        [
            ("80414.9920", "1", 0x21A, b"\xfe\x36"),
            ("80415.0010", "2", 0x18FF0102 | EXTENDED, b"\x00"),
            ("80415.0020", "1", 0x100 | REMOTE, bytes(3)),
        ],
    ),
    "Microchip": (
        "Microchip CAN BUS Analyzer",
        "//---\nMicrochip Technology Inc.\nCAN BUS Analyzer\n//---\n"
        "166064;RX;0x0000021A;2;0xFE;0x36;\n5;TX;0x18FF0102;0;\n",
        [("166.064", "", 0x21A, b"\xfe\x36"), ("0.005", "", 0x18FF0102 | EXTENDED, b"")],
    ),
}


@pytest.mark.parametrize(("format_", "text", "frames"), TEXTS.values(), ids=TEXTS.keys())
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_each_format_is_known_by_its_content_and_read(
    tmp_path: Path, format_: str, text: str, frames: list[Frame], ending: str
) -> None:
    log, found = read(tmp_path, text.replace("\n", ending), "anything.bin")
    assert log.format == format_
    assert found == frames
    assert not log.notes.bad, list(log.notes.told())
    assert read(tmp_path, gzip.compress(text.encode()), "packed")[1] == found


def test_midnight_is_no_step_back_in_time(tmp_path: Path) -> None:
    text = TEXTS["BUSMASTER"][1].replace("22:20:14:", "23:59:59:").replace("22:20:15:", "00:00:00:")
    (tmp_path / "night.log").write_text(text)
    log = open_log(tmp_path / "night.log")
    block = next(iter(log.blocks()))
    assert block.t_text.tolist() == [b"86399.9920", b"0.0010", b"0.0020"]
    assert np.diff(block.frames.t_ns).tolist() == [9_000_000, 1_000_000]
    assert log.notes.start_ns == 1_442_966_400_000_000_000


def frames_to_write(seed: int, count: int, *, fd: bool) -> list[Frame]:
    chance = random.Random(seed)
    lengths = FD_LENGTHS if fd else FD_LENGTHS[:9]
    found = []
    for i in range(count):
        can_id = chance.randrange(1 << 29) | EXTENDED if chance.random() < 0.5 else chance.randrange(1 << 11)
        t_us = 1_700_000_000_000_000 + i * 1_000 + chance.randrange(900)
        found.append(
            (
                f"{t_us // 10**6}.{t_us % 10**6:06d}",
                str(chance.randrange(2)),
                can_id,
                chance.randbytes(chance.choice(lengths)),
            )
        )
    return found


def written(path: Path, frames: list[Frame], writer: Callable[..., Any]) -> list[Any]:
    can = python_can.load()
    messages = [
        can.Message(
            timestamp=float(t_s),
            arbitration_id=can_id & 0x1FFF_FFFF,
            is_extended_id=bool(can_id & EXTENDED),
            data=payload,
            is_fd=len(payload) > 8,
            channel=int(channel),
        )
        for t_s, channel, can_id, payload in frames
    ]
    with writer(path) as out:
        for message in messages:
            out.on_message_received(message)
    return messages


@pytest.mark.parametrize(
    ("suffix", "format_", "fd"),
    [
        (".blf", "Vector BLF", True),
        (".asc", "Vector ASC", True),
        (".trc", "PEAK TRC", False),
        (".log", "candump", True),
    ],
)
def test_what_python_can_writes_comes_back(tmp_path: Path, suffix: str, format_: str, fd: bool) -> None:
    can = python_can.load()
    frames = frames_to_write(7, 3000, fd=fd)
    writers = {".blf": can.BLFWriter, ".asc": can.ASCWriter, ".trc": can.TRCWriter, ".log": can.CanutilsLogWriter}
    path = tmp_path / f"x{suffix}"
    written(path, frames, writers[suffix])
    log = open_log(path)
    found = frames_of(log)
    assert log.format == format_ and not log.notes.bad
    assert [frame[2:] for frame in found] == [frame[2:] for frame in frames]
    # python-can counts channels from 0 and writes them from 1 where the format does; candump has can0 and can1.
    assert [frame[1] for frame in found] == [f"can{f}" if suffix == ".log" else str(int(f) + 1) for _, f, *_ in frames]
    t_s = np.array([float(frame[0]) for frame in found]) + (0 if suffix in (".blf", ".log") else float(frames[0][0]))
    assert np.abs(t_s - [float(frame[0]) for frame in frames]).max() < 2e-6


def test_a_blf_is_read_whatever_the_size_of_its_containers(tmp_path: Path) -> None:
    can = python_can.load()
    frames = frames_to_write(3, 500, fd=True)

    class Small(can.BLFWriter):  # type: ignore[misc, name-defined]
        max_container_size = 300

    written(tmp_path / "small.blf", frames, Small)
    assert [frame[2:] for frame in frames_of(open_log(tmp_path / "small.blf"))] == [frame[2:] for frame in frames]


MF4_WRITER = """
import sys, json, can
frames = json.load(open(sys.argv[1]))
with can.MF4Writer(sys.argv[2]) as out:
    for t, channel, can_id, extended, data in frames:
        data = bytes.fromhex(data)
        out.on_message_received(can.Message(timestamp=t, arbitration_id=can_id, is_extended_id=extended, data=data,
                                            is_fd=len(data) > 8, channel=channel))
"""


@pytest.mark.slow
def test_what_asammdf_writes_comes_back(tmp_path: Path) -> None:
    """In a process of its own: here python-can is loaded without asammdf, as the agent has it."""
    import json
    import time

    frames = frames_to_write(11, 200, fd=True)
    begun_s = time.time() + 10  # python-can writes times since its own start
    rows = [
        (begun_s + i / 1000, int(channel), can_id & 0x1FFF_FFFF, bool(can_id & EXTENDED), payload.hex())
        for i, (_, channel, can_id, payload) in enumerate(frames)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    script = [sys.executable, "-c", MF4_WRITER, str(tmp_path / "rows.json"), str(tmp_path / "x.mf4")]
    subprocess.run(script, check=True, capture_output=True, env={"TZ": "UTC"})
    log = open_log(tmp_path / "x.mf4")
    found = frames_of(log)
    assert log.format == "MF4" and [frame[1:] for frame in found] == [frame[1:] for frame in frames]
    assert np.abs(np.array([float(f[0]) for f in found]) - [row[0] for row in rows]).max() < 2e-6


NOISE = [
    "nonsense",
    "1;2;3;4",
    "(x) can0 1#2",
    "1.0 R11 Rx",
    "\x00\xff\xfe",
    ",,,,,,,",
    "9" * 400,
    "1.0 1 zz Rx d 8 00",
    "1) 2 3 4",
]


@pytest.mark.parametrize("format_", GOOD)
def test_bad_lines_are_counted_with_the_first_of_them_and_the_frames_around_them_are_kept(
    tmp_path: Path, format_: str
) -> None:
    text = GOOD[format_]
    last = text.splitlines()[-1] + "\n"
    lines = text.count("\n")
    log, found = read(tmp_path, text + "".join(f"{noise}\n{last}" for noise in NOISE) + "\n")
    assert log.format == format_ and len({frame[1:] for frame in found}) == 1
    assert len(found) + log.notes.bad_lines == 1 + 2 * len(NOISE)
    assert len(found) == 1 + len(NOISE) and log.notes.bad_lines == len(NOISE)
    assert min(bad.first_line for bad in log.notes.bad.values()) == lines + 1


@pytest.mark.parametrize("format_", GOOD)
@pytest.mark.parametrize("seed", range(3))
def test_no_damage_to_a_log_raises(tmp_path: Path, format_: str, seed: int) -> None:
    chance = random.Random(seed)
    text = bytearray((GOOD[format_] + "\n".join([GOOD[format_].splitlines()[-1]] * 200)).encode())
    for _ in range(150):
        text[chance.randrange(200, len(text))] = chance.randrange(256)
    log, found = read(tmp_path, bytes(text))
    assert found and log.notes.bad_lines


@pytest.mark.parametrize("seed", range(5))
def test_no_damage_to_a_binary_log_raises(tmp_path: Path, seed: int) -> None:
    can = python_can.load()
    path = tmp_path / "x.blf"
    written(path, frames_to_write(seed, 400, fd=True), can.BLFWriter)
    whole, chance = path.read_bytes(), random.Random(seed)
    path.write_bytes(whole[: chance.randrange(300, len(whole))])
    log = open_log(path)
    frames_of(log)
    assert log.notes.bad_lines
    damaged = bytearray(whole)
    for _ in range(20):
        damaged[chance.randrange(144, len(whole))] ^= 1 << chance.randrange(8)
    path.write_bytes(damaged)
    list(open_log(path).blocks())


def test_a_long_candump_is_read_the_same_in_pieces_and_line_by_line(tmp_path: Path) -> None:
    """The lines of one shape are read together; what they say must not depend on it."""
    chance = random.Random(5)
    lines, frames = [], []
    for t_s, channel, can_id, payload in frames_to_write(5, 30_000, fd=True):
        name = f"can{channel}"
        width = 8 if can_id & EXTENDED else 3
        case = str.upper if chance.random() < 0.7 else str.lower
        mark = "##1" if len(payload) > 8 else "#"
        lines.append(f"({t_s}) {name} {case(f'{can_id & 0x1FFFFFFF:0{width}x}')}{mark}{case(payload.hex())}")
        frames.append((t_s, name, can_id, payload))
    log, found = read(tmp_path, "\n".join(lines))
    assert found == frames and set(log.channels) == {"can0", "can1"} and not log.notes.bad


def _gvret(path: Path, frames: list[Frame]) -> None:
    lines = ["Time Stamp,ID,Extended,Dir,Bus,LEN,D1,D2,D3,D4,D5,D6,D7,D8"]
    for t_s, channel, can_id, payload in frames:
        extended = "true" if can_id & EXTENDED else "false"
        data = payload.hex(",") + ",00" * (8 - len(payload))
        lines.append(f"{t_s.replace('.', '')},{can_id & 0x1FFFFFFF:08X},{extended},Rx,{channel},{len(payload)},{data},")
    path.write_text("\n".join(lines))


@pytest.mark.parametrize("format_", ["Vector ASC", "PEAK TRC", "GVRET CSV"])
def test_other_long_logs_are_read_the_same_in_pieces_and_line_by_line(tmp_path: Path, format_: str) -> None:
    """Of a log of several pieces all but the first are read by shape; bad lines among them are found all the same."""
    can = python_can.load()
    frames, path = frames_to_write(9, 15_000, fd=False), tmp_path / "x.log"
    if format_ == "GVRET CSV":
        _gvret(path, frames)
    else:
        writer = can.ASCWriter if format_ == "Vector ASC" else can.TRCWriter
        written(tmp_path / ("x.asc" if format_ == "Vector ASC" else "x.trc"), frames, writer).clear()
        path = tmp_path / ("x.asc" if format_ == "Vector ASC" else "x.trc")
    lines = path.read_bytes().splitlines()
    header = len(lines) - len(frames) - (format_ == "Vector ASC")
    bad = [i + header for i in range(9_000, 15_000) if len(frames[i][3]) == 8][:300:100]
    for at in bad:
        lines[at] = lines[at].rstrip()[:-10]
    path.write_bytes(b"\n".join(lines))
    log = open_log(path)
    assert log.format == format_ and path.stat().st_size > 600_000
    want = [frame for i, frame in enumerate(frames) if i + header not in bad]
    assert [frame[2:] for frame in frames_of(log)] == [frame[2:] for frame in want]
    assert log.notes.bad_lines == 3 and min(b.first_line for b in log.notes.bad.values()) == bad[0] + 1


def test_an_unknown_format_is_one_sentence(tmp_path: Path) -> None:
    for text in ("hello\n", "", "\x00" * 100, "PK\x03\x04"):
        with pytest.raises(ConfigError, match="give one of") as told:
            read(tmp_path, text)
        assert all(name in str(told.value) for name in FORMATS)
    with pytest.raises(ConfigError, match="does not exist"):
        open_log(tmp_path / "none")
    with pytest.raises(ConfigError, match="gzip file is damaged"):
        read(tmp_path, gzip.compress(b"(1.0) can0 123#00\n")[:12])
    with pytest.raises(ConfigError, match="version 3"):
        read(tmp_path, ";$FILEVERSION=3.0\n")


def test_reading_a_log_brings_no_heavy_library(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("(1.0) can0 123#0A1B\n")
    script = (
        "import sys, edge.sources.replay_log, edge.decode_command, edge.sources.can; from pathlib import Path;"
        "from edge.logs import open_log; from firmware_bridge import python_can; python_can.load();"
        f"list(open_log(Path({str(tmp_path / 'a.log')!r})).blocks());"
        "print([n for n in ('asammdf', 'pandas', 'pyarrow', 'scipy') if n in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_one_capture_in_six_formats_is_the_same(shared_dir: Path) -> None:
    folder = shared_dir / "can" / "savvycan"
    names = [
        "GVRET_Log.csv",
        "CRTD_Log.txt",
        "candump.log",
        "BusMasterLog.log",
        "MicrochipLog.log",
        "GenericID_Log.csv",
    ]
    logs = {name: frames_of(open_log(folder / name)) for name in names}
    assert {len(frames) for frames in logs.values()} == {12_974}
    assert len({tuple(frame[2:] for frame in frames) for frames in logs.values()}) == 1
    assert [frame[0] for frame in logs["GVRET_Log.csv"]] == [frame[0] for frame in logs["CRTD_Log.txt"]]
    with pytest.raises(ConfigError, match="no format of a log that is known"):
        open_log(folder / "CarBusAnalyzer.trc")


def test_logs_of_a_real_car(shared_dir: Path) -> None:
    folder = shared_dir / "can" / "kona-ev-can-logs"
    for path in sorted([*folder.glob("*.csv"), *(folder / "bms_diagnostics").glob("*.asc")]):
        log = open_log(path)
        lines = path.read_bytes().splitlines()
        extra = 1 if path.suffix == ".csv" else sum(not line.lstrip()[:1].isdigit() for line in lines)
        assert len(frames_of(log)) == len(lines) - extra and not log.notes.bad


def test_a_damaged_mf4_is_one_sentence_and_nothing_else(tmp_path: Path) -> None:
    """asammdf's half made object said a traceback when it went."""
    (tmp_path / "x.mf4").write_bytes(b"MDF     4.10    " + bytes(200))
    (tmp_path / "x.dbc").write_text('VERSION ""\nBU_:\n')
    command = [sys.executable, "-m", "edge", "decode", "--dbc", str(tmp_path / "x.dbc"), str(tmp_path / "x.mf4")]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 2 and told.stderr.count("\n") == 1 and "damaged MF4" in told.stderr
