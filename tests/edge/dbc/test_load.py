"""A DBC that is not quite right: what can be repaired is, what cannot is left out with its line, and the rest loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cantools
import pytest

from edge.dbc import load as loader
from edge.dbc.load import load
from edge.dbc.model import Database
from firmware_bridge.frames import EXTENDED
from shared.errors import ConfigError

REFUSED = {
    "kona-ev-dbc/bcan.dbc": 7,
    "kona-ev-dbc/ccan.dbc": 2,
    "kona-ev-dbc/pcan.dbc": 107,
    "opendbc/_vw_meb_common.dbc": 126,
    "opendbc/chrysler_pacifica_2017_hybrid.dbc": 29,
    "opendbc/hyundai_can.dbc": 146,
    "opendbc/tesla_can.dbc": 44,
    "opendbc/vw_mqbevo.dbc": 136,
}


def read(folder: Path, text: str | bytes) -> Database:
    path = folder / "t.dbc"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(path)


def told(database: Database) -> list[tuple[int, str]]:
    return [(note.line, note.reason) for note in database.notes]


@pytest.mark.parametrize(("name", "messages"), REFUSED.items())
def test_the_recorded_dbcs_that_cantools_refuses(shared_dir: Path, name: str, messages: int) -> None:
    database = load(shared_dir / "can" / name)
    assert len(database.messages) == messages
    assert database.notes or name.startswith("kona")  # those lack a header, of which nothing is lost


def test_a_header_that_is_missing_costs_nothing(shared_dir: Path) -> None:
    folder = shared_dir / "can" / "kona-ev-dbc"
    assert load(folder / "pcan.dbc").messages == load(folder / "pcan_header_patched.dbc").messages


@pytest.mark.slow
def test_the_other_recorded_dbcs_load_as_cantools_has_them(shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by the way of the repairs, as if cantools had refused them: these lose nothing of what was right."""
    files = 0
    real = loader._read
    for path in sorted((shared_dir / "can").rglob("*.dbc")):
        try:
            judge: Any = cantools.database.load_file(path, strict=False, cache_dir=None)
        except cantools.database.UnsupportedDatabaseFormatError:
            continue
        files += 1
        database = load(path)
        assert [
            (m.name, m.can_id & ~EXTENDED, bool(m.can_id & EXTENDED), m.length, [s.name for s in m.signals])
            for m in database.messages
        ] == [(m.name, m.frame_id, m.is_extended_frame, m.length, [s.name for s in m.signals]) for m in judge.messages]
        if not database.messages:
            continue
        calls: list[str] = []

        def refuse_once(text: str, calls: list[str] = calls) -> Any:
            calls.append(text)
            if len(calls) == 1:
                raise ValueError("as if")
            return real(text)

        monkeypatch.setattr(loader, "_read", refuse_once)
        assert load(path) == database
        monkeypatch.setattr(loader, "_read", real)
    assert files == 45


BROKEN = """VERSION "x
NS_ :
 CM_
BU_: A-B C
BO_ 0x100 3Phase: 8
 SG_ 1st : 0|8@1+ (.25,-.5) [.1|1e3] "a"b" X Y
 SG_ Bad-Name m0 : 8|8@1+ (1,0) [0|0] "V"
 SG_ M1 M : 16|8@1+ (1,0) "V" A,B
 SG_ nofactor : 24|8@1+ [0|0] "" X
 SG_ zero : 24|0@1+ (1,0) [0|0] "" X
 SG_ fl : 32|32@1- (1,0) [nan|inf] "" X
BO_ 257 Two: 8 X SG_ S : 0|8@1+ (1,0) [0|255] "" X // hello "
 SG_ T : 8|8@1+ (1,0) [0|255] "" X
BO_ 99999999999 Big: 8 X
 SG_ S : 0|8@1+ (1,0) [0|255] "" X
BO_ 300000 Ext: 8 X
 SG_ S : 0|8@1+ (1,0) [0|255] "" X
VAL_ 256 1st 0 "a" 1 "b" ; VAL_ 300000 S 0x1 "x" 2.0 "y"
VAL_ 1 No 0 "a";
VAL_ 256 Bad-Name 1.5 "a";
CM_ SG_ 257 S "multi
BO_ 1 line
BA_ text \\" done";
CM_ SG_ 257 T "never closed;
SIG_VALTYPE_ 256 fl 1;
SIG_VALTYPE_ 257 S : 1;
SIG_VALTYPE_ 257 Nope : 1;
BA_ "GenMsgCycleTime" BO_ 257 100;
BA_DEF_ BO_ "GenMsgCycleTime" INT 0 1000;
BA_ "Undefined" BO_ 257 100;
BA_ "GenMsgCycleTime" BO_ 256 "abc";
SG_MUL_VAL_ 256 Bad-Name M1 0 - 5, 7-4294967295;
FOO BAR
"""


def test_a_dbc_with_everything_wrong_at_once(tmp_path: Path) -> None:
    database = read(tmp_path, BROKEN)
    names = [(m.name, m.can_id, [s.name for s in m.signals]) for m in database.messages]
    assert names == [
        ("_3Phase", 0x100, ["_1st", "Bad_Name", "M1", "fl"]),
        ("Two", 257, ["S", "T"]),
        ("Ext", 300000 | EXTENDED, ["S"]),
    ]
    first, gated, _, number = database.messages[0].signals
    assert (first.scale, first.offset, first.unit, first.values) == (0.25, -0.5, 'a"b', {0: "a", 1: "b"})
    assert gated.switch == "M1" and gated.groups == frozenset(range(256)) - {6}
    assert number.is_float
    two, ext = database.messages[1:]
    assert two.signals[0].comment == 'multi\nBO_ 1 line\nBA_ text " done' and two.cycle_s == 0.1
    assert ext.signals[0].values == {1: "x", 2: "y"}
    left_out = {line for line, reason in told(database) if reason.startswith("left out")}
    assert left_out == {9, 10, 14, 19, 20, 24, 26, 27, 30, 31, 33}
    assert (5, '"3Phase" is no name: called _3Phase') in told(database)
    assert (6, ".25 read as 0.25") in told(database)
    assert (16, "300000 has more than 11 bits and not the mark of 29: taken as a 29-bit id") in told(database)


def test_statements_on_one_line_and_no_header_at_all(tmp_path: Path) -> None:
    signal = '0|8@1+ (.5,0) [0|0] "" X'
    database = read(tmp_path, f"BO_ 1 A: 1 X SG_ S : {signal} BO_ 2 B: 1 X SG_ T : {signal}")
    assert sorted(database.signals) == ["A.S", "B.T"]


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("°C".encode("cp1252"), "°C"),
        ("°C".encode(), "°C"),
        (b"\xef\xbb\xbf", ""),
    ],
)
def test_units_in_either_encoding(tmp_path: Path, text: bytes, unit: str) -> None:
    mark, text = (text, b"") if text.startswith(b"\xef") else (b"", text)
    database = read(tmp_path, mark + b'BO_ 1 A: 1 X\n SG_ S : 0|8@1+ (1,0) [0|0] "' + text + b'" X\n')
    assert database.signals["A.S"].unit == unit


def test_utf_16(tmp_path: Path) -> None:
    database = read(tmp_path, 'BO_ 1 A: 1 X\n SG_ S : 0|8@1+ (1,0) [0|0] "Ω" X\n'.encode("utf-16"))
    assert database.signals["A.S"].unit == "Ω"


def test_a_statement_that_nobody_foresaw_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the repairs do not know of and cantools refuses is found by halves."""
    good = 'BO_ 1 A: 2 X\n SG_ S : 0|8@1+ (1,0) [0|0] "" X\n SG_ T : 8|8@1+ (1,0) [0|0] "" X\nBO_ 2 B: 1 X\n'
    real = loader._read

    def dislikes(text: str) -> Any:
        if " T " in text or 'CM_ BO_ 2 "no"' in text:
            raise KeyError("a thing")
        return real(text)

    monkeypatch.setattr(loader, "_read", dislikes)
    database = read(tmp_path, good + 'CM_ BO_ 1 "yes";\nCM_ BO_ 2 "no";\n')
    assert [[s.name for s in m.signals] for m in database.messages] == [["S"], []]
    assert [m.comment for m in database.messages] == ["yes", ""]
    assert told(database) == [(3, "left out: 'a thing'"), (6, "left out: 'a thing'")]


HUGE = [
    'SG_ S : 0|999999999@1+ (1,0) [0|0] "" X',
    'SG_ S : 999999999|8@1+ (1,0) [0|0] "" X',
    'SG_ S : 0|8@1+ (1,0) [0|1e99999] "" X',
    f'SG_ S : 0|8@1+ (1,0) [0|{"9" * 5000}] "" X',
    "BO_ 2 B: 999999999 X",
    'BA_DEF_ BO_ "GenMsgCycleTime" INT 0 1e400475487;',
    "SG_MUL_VAL_ 1 T M 0-3, 5-99999999999;",
]


@pytest.mark.parametrize("statement", HUGE)
def test_numbers_beyond_all_measure_take_neither_time_nor_memory(tmp_path: Path, statement: str) -> None:
    """cantools writes out each bit, each number of a range and each digit: such a file once took minutes."""
    good = 'BO_ 1 A: 8 X\n SG_ M M : 56|8@1+ (1,0) [0|0] "" X\n SG_ T m1 : 8|8@1+ (1,0) [0|0] "" X\n'
    database = read(tmp_path, good + statement + "\n")
    assert database.messages[0].name == "A" and "A.T" in database.signals
    assert statement.startswith("SG_MUL") or database.notes


def test_an_attribute_that_is_no_time_is_no_period(tmp_path: Path) -> None:
    text = 'BO_ 1 A: 1 X\nBA_DEF_ BO_ "GenMsgCycleTime" STRING ;\nBA_ "GenMsgCycleTime" BO_ 1 "fast";\n'
    assert read(tmp_path, text).messages[0].cycle_s is None


def test_a_file_that_imports_another_says_so(tmp_path: Path) -> None:
    database = read(tmp_path, 'CM_ "IMPORT common.dbc";\nBO_ 1 A: 1 X\n')
    assert told(database) == [(1, "common.dbc is another file: it is not read")]


def test_signals_that_overlap_or_go_beyond_and_ids_twice_are_told(tmp_path: Path) -> None:
    database = read(
        tmp_path,
        'BO_ 1 A: 1 X\n SG_ S : 0|8@1+ (1,0) [0|0] "" X\n SG_ T : 4|4@1+ (1,0) [0|0] "" X\n'
        'BO_ 2 B: 1 X\n SG_ U : 4|8@1+ (1,0) [0|0] "" X\nBO_ 2 C: 1 X\n',
    )
    assert told(database) == [
        (1, "signal T overlaps another or goes beyond the message"),
        (4, "signal U overlaps another or goes beyond the message"),
        (4, "has the id of C, which is the one that counts"),
    ]
    with pytest.raises(ConfigError, match=r"t\.dbc:1: A: signal T overlaps"):
        load(tmp_path / "t.dbc", strict=True)


NO_DBC = [b"", b"this is no DBC {", b"a,b\n1,2\n", b"\x7fELF\0\1", b'{"a": 1}', b"BO_ nonsense\n"]


@pytest.mark.parametrize("raw", NO_DBC)
def test_a_file_that_is_no_dbc_is_one_sentence(tmp_path: Path, raw: bytes) -> None:
    with pytest.raises(ConfigError, match="is not a DBC") as raised:
        read(tmp_path, raw)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_or_a_folder(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.dbc", "does not exist"), (tmp_path, "cannot be read")):
        with pytest.raises(ConfigError, match=reason):
            load(path)


@pytest.mark.parametrize(
    ("signal", "inside", "beyond"),
    [
        ("SG_ S : 0|8@1+ (0.4,0) [0|100]", [0.0, 100.0], [-0.4, 100.4]),
        ("SG_ S : 0|8@1+ (10,0) [0|95]", [90.0], [100.0]),
        ("SG_ S : 0|8@1+ (0.00392157,0) [0|0.996]", [254 * 0.00392157], [255 * 0.00392157]),
    ],
)
def test_limits_allow_for_what_a_dbc_rounds_off_and_no_more(
    tmp_path: Path, signal: str, inside: list[float], beyond: list[float]
) -> None:
    path = tmp_path / "x.dbc"
    path.write_text(f'VERSION ""\nBU_:\nBO_ 256 M: 8 X\n {signal} "" X\n')
    lo, hi = load(path).messages[0].signals[0].limits
    assert all(lo <= value <= hi for value in inside) and not any(lo <= value <= hi for value in beyond)


def test_the_limits_of_a_float_are_as_they_are_printed(tmp_path: Path) -> None:
    path = tmp_path / "x.dbc"
    path.write_text('VERSION ""\nBU_:\nBO_ 256 M: 8 X\n SG_ S : 0|32@1- (1,0) [0|1] "" X\nSIG_VALTYPE_ 256 S : 1;\n')
    signal = load(path).messages[0].signals[0]
    assert signal.is_float and signal.limits == (0.0, 1.0)


def test_a_range_of_numbers_on_a_long_message_is_left_out_instead_of_taking_minutes(tmp_path: Path) -> None:
    path = tmp_path / "x.dbc"
    path.write_text(
        'VERSION ""\nBU_:\nBO_ 2028 U: 4095 X\n SG_ Pid M : 23|16@0+ (1,0) [0|0] "" X\n'
        ' SG_ Soc m1 : 64|8@1+ (0.5,0) [0|0] "%" X\nSG_MUL_VAL_ 2028 Soc Pid 257-4294967295;\n'
    )
    database = load(path)
    assert any("numbers of one multiplexor" in str(note) for note in database.notes)
