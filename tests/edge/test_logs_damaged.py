"""Logs that somebody's tool wrote differently, cut off or damaged: what can be read is read, the rest is said."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import pytest
from logged import GOOD, frames_of, read

from edge.__main__ import main
from edge.logs import open_log
from shared.errors import ConfigError

BOM = b"\xef\xbb\xbf"
LINE = "({}.000000) can0 123#0A1B\n"


def blf_object(kind: int, body: bytes, t_ns: int) -> bytes:
    head = struct.pack("<4sHHLLLHHQ", b"LOBJ", 32, 1, 32 + len(body), kind, 2, 0, 0, t_ns)
    return head + body + bytes(len(body) % 4)


def fd_64(valid: int, data: bytes, end: int = 0) -> bytes:
    """The body of a CAN_FD_MESSAGE_64: 40 bytes, then what is stored of the data."""
    return struct.pack("<BBBBL24xHBBL", 1, 15, valid, 0, 0x123, 0, 0, end, 0) + data


def blf(*objects: bytes) -> bytes:
    return struct.pack("<4sL136x", b"LOGG", 144) + b"".join(objects)


def test_a_blf_object_ends_where_it_says(tmp_path: Path) -> None:
    """A frame that claims more bytes than its object holds was given those of the next object, "LOBJ" for one."""
    whole = bytes(range(64))
    log, found = read(
        tmp_path,
        blf(
            blf_object(101, fd_64(64, b"\xaa" * 8), 1000),
            blf_object(101, fd_64(64, whole), 2000),
            blf_object(101, fd_64(12, whole[:12] + b"\xee" * 8, 32 + 40 + 12), 3000),
            blf_object(1, struct.pack("<HBBL8s", 1, 0, 8, 0x100, b"ABCDEFGH"), 4000),
            blf_object(1, struct.pack("<HBBL4s", 1, 0, 8, 0x101, b"ABCD"), 5000),
        ),
    )
    assert [payload for *_, payload in found] == [b"\xaa" * 8, whole, whole[:12], b"ABCDEFGH", b"ABCD"]
    assert not log.notes.bad


@pytest.mark.parametrize("flags", [1, 2])
def test_a_blf_time_beyond_all_measure_is_counted(tmp_path: Path, flags: int) -> None:
    good = struct.pack("<HBBL8s", 1, 0, 8, 0x100, bytes(8))
    late = bytearray(blf_object(1, good, 2**63 + 5))
    late[16] = flags  # the unit of its time
    log, found = read(tmp_path, blf(bytes(late), blf_object(1, good, 7000)))
    assert len(found) == 1 and {why: bad.count for why, bad in log.notes.bad.items()} == {"a time that is none": 1}


def test_a_blf_that_ends_within_its_header_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.blf").write_bytes(blf()[:100])
    with pytest.raises(ConfigError, match="ends within its header"):
        frames_of(open_log(tmp_path / "x.blf"))


def test_a_blf_that_is_cut_off_is_counted_once(tmp_path: Path) -> None:
    good = blf_object(1, struct.pack("<HBBL8s", 1, 0, 8, 0x100, bytes(8)), 7000)
    log, found = read(tmp_path, blf(good, good[:30]))
    assert len(found) == 1 and [bad.count for bad in log.notes.bad.values()] == [1]


@pytest.mark.parametrize(
    "format_", ["GVRET CSV", "CRTD", "SavvyCAN generic CSV", "Vector ASC", "PEAK TRC", "BUSMASTER"]
)
def test_a_negative_id_is_a_bad_line_and_no_more(tmp_path: Path, format_: str) -> None:
    """It went through as a number and ended the reading of the whole log."""
    *head, line = GOOD[format_].splitlines()
    bad = line.replace("00000123", "-0000123") if "00000123" in line else line.replace("123", "-23", 1)
    assert bad != line
    log, found = read(tmp_path, "\n".join([*head, line, bad, line, ""]))
    assert log.format == format_ and len(found) == 2 and log.notes.bad_lines == 1


@pytest.mark.parametrize("format_", GOOD)
def test_a_byte_order_mark_costs_no_frame(tmp_path: Path, format_: str) -> None:
    log, found = read(tmp_path, BOM + GOOD[format_].encode())
    assert log.format == format_ and len(found) == 1 and not log.notes.bad


@pytest.mark.parametrize("how", ["cut off", "damaged"])
def test_what_can_be_unpacked_of_a_gzip_file_is_read(
    tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged one was a traceback, of one that was cut off the counts and the last stretch were lost."""
    text = "".join(LINE.format(n) for n in range(1, 60_000))
    packed = bytearray(gzip.compress(text.encode(), 6))
    if how == "cut off":
        packed = packed[: len(packed) * 2 // 3]
    else:
        packed[len(packed) // 2 : len(packed) // 2 + 64] = b"\xff" * 64
    path = tmp_path / "some.log.gz"
    path.write_bytes(packed)
    unpacker, whole = zlib.decompressobj(31), b""
    try:
        for at in range(0, len(packed), 256):
            whole += unpacker.decompress(packed[at : at + 256])
    except zlib.error:
        pass
    log = open_log(path)
    found = frames_of(log)
    assert len(found) > 0.6 * whole.count(b"\n") and "gzip file is damaged" in log.notes.fault
    (tmp_path / "x.dbc").write_text('VERSION ""\nBU_:\nBO_ 291 M: 2 X\n SG_ A : 0|8@1+ (1,0) [0|0] "" X\n')
    out = tmp_path / "out.csv"
    assert main(["decode", "--dbc", str(tmp_path / "x.dbc"), str(path), "-o", str(out)]) == 0
    said = capsys.readouterr().err
    assert "gzip file is damaged" in said and f"{len(found):,} frames" in said
    assert len(found) - out.read_text().count("\n") + 1 in (0, 1)  # the last line may have lost its data


def test_an_asc_begins_when_it_was_measured_not_when_it_was_written(tmp_path: Path) -> None:
    log, _ = read(
        tmp_path,
        "date Thu Nov 26 01:02:03.000 2026\nbase hex  timestamps absolute\n"
        "Begin Triggerblock Tue Nov 14 22:13:20.000 2023\n   1.000000 1  123  Rx   d 2 0A 1B\n",
    )
    assert log.notes.start_ns == 1_700_000_000_000_000_000


def test_a_trc_event_has_fewer_columns_and_is_no_bad_line(tmp_path: Path) -> None:
    head = ";$FILEVERSION=2.1\n;$STARTTIME=43474.5\n;$COLUMNS=N,O,T,B,I,d,R,L,D\n"
    log, found = read(tmp_path, head + "1 1.0 DT 1 0123 Rx - 2 0A 1B\n2 2.0 EV User-defined event\n")
    assert len(found) == 1 and not log.notes.bad
