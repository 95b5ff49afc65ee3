"""`edge decode`: columns, values that read back exactly, transports, and what is said of all that has no value."""

from __future__ import annotations

import csv
import json
import math
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import cantools
import numpy as np
import pytest
from conftest import missing

from edge.__main__ import main

HEADER = "t_s,channel,id,message,signal,value,unit,quality"
DBC = """VERSION ""
BU_:
BO_ 256 Pack: 8 X
 SG_ Volt : 0|16@1+ (0.1,0) [0|600] "V" X
 SG_ Amp : 16|16@1- (0.05,-10) [0|0] "A, \\"" X
 SG_ State : 32|8@1+ (1,0) [0|3] "" X
BO_ 257 Big: 8 X
 SG_ All : 0|64@1+ (1,0) [0|0] "" X
BO_ 258 Real: 8 X
 SG_ F : 0|32@1- (1,0) [0|0] "" X
 SG_ G : 32|32@1- (1,0) [0|0] "" X
BO_ 259 Mux: 8 X
 SG_ M M : 0|8@1+ (1,0) [0|0] "" X
 SG_ A m0 : 8|8@1+ (1,0) [0|0] "" X
 SG_ B m1 : 8|8@1+ (0.000001,0) [0|0] "" X
BO_ 2566848512 Wide: 8 X
 SG_ W : 7|32@0- (1,0) [0|0] "" X
SIG_VALTYPE_ 258 F : 1;
SIG_VALTYPE_ 258 G : 1;
VAL_ 256 State 0 "off" 1 "on";
"""
LOG = """(10.000000) can0 100#880F2C0101
(10.000250) can1 101#FFFFFFFFFFFFFFFF
(10.1) can0 100#880F
(10.200000) can0 18FF0000#FFFFFFFE
(10.3) can0 7E8#00
(10.300001) can0 102#0000C03F0000C07F
(9.000000) can0 103#0104
(11.000000) can0 103#0705
(11.1) can0 100#FFFF00000900
"""


def decoded(folder: Path, *arguments: str | Path, code: int = 0) -> list[dict[str, str]]:
    out = folder / "out.csv"
    assert main(["decode", *map(str, arguments), "-o", str(out)]) == code
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "x.dbc").write_text(DBC)
    (tmp_path / "x.log").write_text(LOG)
    return tmp_path


def test_a_row_per_frame_and_signal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["decode", "--dbc", str(folder / "x.dbc"), str(folder / "x.log"), "-o", str(folder / "out.csv")]) == 0
    assert (folder / "out.csv").read_text().splitlines() == [
        HEADER,
        "10.000000,can0,100,Pack,Volt,397.6,V,",
        '10.000000,can0,100,Pack,Amp,5.0,"A, """,',
        "10.000000,can0,100,Pack,State,1,,",
        "10.000250,can1,101,Big,All,18446744073709551615,,",
        "10.1,can0,100,Pack,Volt,397.6,V,",
        '10.1,can0,100,Pack,Amp,,"A, """,short_frame',
        "10.1,can0,100,Pack,State,,,short_frame",
        "10.200000,can0,18FF0000,Wide,W,-2,,",
        "10.300001,can0,102,Real,F,1.5,,",
        "10.300001,can0,102,Real,G,nan,,invalid",
        "9.000000,can0,103,Mux,M,1,,",
        "9.000000,can0,103,Mux,B,0.000004,,",
        "11.000000,can0,103,Mux,M,7,,group",
        "11.1,can0,100,Pack,Volt,6553.5,V,out_of_range",
        '11.1,can0,100,Pack,Amp,-10.0,"A, """,',
        "11.1,can0,100,Pack,State,9,,out_of_range",
    ]
    said = capsys.readouterr().err
    assert "frames without a definition: 1 of 1 ids\n  7E8 1\n" in said
    assert "multiplexor has a number that the DBC does not know: 1" in said


def test_relative_times_count_from_the_first_frame_of_the_log(folder: Path) -> None:
    rows = decoded(folder, "--relative", "--dbc", folder / "x.dbc", folder / "x.log")
    times = ["0.000000", "0.000250", "0.100000", "0.200000", "0.300001", "-1.000000", "1.000000", "1.100000"]
    assert list(dict.fromkeys(row["t_s"] for row in rows)) == times


def test_a_dbc_may_be_for_one_channel(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "other.dbc").write_text(DBC.replace("Pack", "Akku"))
    rows = decoded(folder, "--dbc", f"can1={folder / 'x.dbc'}", folder / "x.log")
    assert {row["channel"] for row in rows} == {"can1"}
    both = ["--dbc", f"can0={folder / 'other.dbc'}", "--dbc", folder / "x.dbc"]
    names = {(row["channel"], row["message"]) for row in decoded(folder, *both, folder / "x.log")}
    assert ("can0", "Akku") in names and ("can1", "Big") in names and ("can0", "Pack") not in names
    decoded(folder, "--dbc", f"can7={folder / 'x.dbc'}", folder / "x.log")
    assert "no frame of channel can7 is in the log, whose channels are: can0, can1" in capsys.readouterr().err
    decoded(folder, "--dbc", folder / "x.dbc", "--dbc", folder / "other.dbc", folder / "x.log")
    assert f"100 is in {folder / 'x.dbc'} and in {folder / 'other.dbc'}" in capsys.readouterr().err


def test_stdout_and_a_reader_that_has_had_enough(folder: Path) -> None:
    (folder / "long.log").write_text(LOG * 5000)
    command = [sys.executable, "-m", "edge", "decode", "--dbc", str(folder / "x.dbc"), str(folder / "long.log")]
    told = subprocess.run([*command, "-o", "-"], capture_output=True, check=True)
    assert told.stdout.count(b"\n") == 1 + 16 * 5000 and b"Traceback" not in told.stderr
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None and running.stderr is not None
        assert running.stdout.readline().decode().strip() == HEADER
        running.stdout.close()
        assert b"Traceback" not in running.stderr.read() and running.wait(60) == 0


WRONG = {
    "no such log": (["--dbc", "x.dbc", "none.log"], "does not exist"),
    "no such dbc": (["--dbc", "none.dbc", "x.log"], "none.dbc does not exist"),
    "no dbc at all": (["x.log"], "--dbc"),
    "no log at all": (["--dbc", "x.dbc"], "LOG"),
    "a log that is none": (["--dbc", "x.dbc", "x.dbc"], "no format of a log that is known"),
    "an id that is none": (["--dbc", "x.dbc", "--isotp", "7E8,XYZ", "x.log"], '"XYZ" is not an id'),
    "an id that is too large": (["--dbc", "x.dbc", "--isotp", "20000000", "x.log"], "is not an id"),
    "an output of another kind": (["--dbc", "x.dbc", "x.log", "-o", "x.xlsx"], "must end in .csv or .parquet"),
    "the log itself": (["--dbc", "x.dbc", "x.csv", "-o", "x.csv"], "is the log itself"),
}


@pytest.mark.parametrize(("arguments", "words"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_one_sentence(
    folder: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "x.csv").write_text(LOG)
    monkeypatch.chdir(folder)
    assert main(["decode", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert (folder / "x.csv").read_text() == LOG


def test_an_output_that_cannot_be_written_is_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["decode", "--dbc", str(folder / "x.dbc"), str(folder / "x.log"), "-o", str(folder / "no" / "x.csv")]
    assert main(arguments) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_isotp_is_put_together_and_described_with_its_length(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "uds.dbc").write_text(
        'VERSION ""\nBU_:\nBO_ 2028 Answer: 12 X\n SG_ Length : 0|8@1+ (1,0) [0|0] "" X\n'
        ' SG_ Did : 23|16@0+ (1,0) [0|0] "" X\n SG_ Soc : 64|8@1+ (0.5,0) [0|0] "%" X\n'
    )
    (folder / "uds.log").write_text(
        "(1.0) can0 7EC#100A62010101020\n(1.0) can0 7EC#100A620101010203\n(1.1) can0 7E4#3000000000000000\n"
        "(1.2) can1 7EC#2104050607AAAAAA\n(1.3) can0 7EC#2104A0060700AAAA\n(2.0) can0 7EC#0362010100000000\n"
        "(3.0) can0 7E8#021A\n"
    )
    rows = decoded(folder, "--isotp", "7EC,7E8", "--dbc", folder / "uds.dbc", folder / "uds.log")
    assert [(r["t_s"], r["channel"], r["id"], r["signal"], r["value"], r["quality"]) for r in rows] == [
        ("1.3", "can0", "7EC", "Length", "10", ""),
        ("1.3", "can0", "7EC", "Did", "257", ""),
        ("1.3", "can0", "7EC", "Soc", "80.0", ""),
        ("2.0", "can0", "7EC", "Length", "3", ""),
        ("2.0", "can0", "7EC", "Did", "257", ""),
        ("2.0", "can0", "7EC", "Soc", "", "short_frame"),
    ]
    said = capsys.readouterr().err
    assert "1 line of the log is no frame" in said and "(first: line 1)" in said
    assert "ISO-TP messages lost (no_first_frame): 1" in said and "ISO-TP messages lost (short): 1" in said
    assert "frames without a definition: 1 of 1 ids\n  7E4 1\n" in said


def test_parquet_has_the_same_columns_and_values(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        from pyarrow import parquet
    except ImportError:
        missing("needs pyarrow, of packtwin[logs]")
    rows = decoded(folder, "--dbc", folder / "x.dbc", folder / "x.log")
    assert main(["decode", "--dbc", str(folder / "x.dbc"), str(folder / "x.log"), "-o", str(folder / "o.parquet")]) == 0
    table = parquet.read_table(folder / "o.parquet").to_pylist()
    assert list(table[0]) == HEADER.split(",") and len(table) == len(rows)
    for row, want in zip(table, rows, strict=True):
        assert {**row, "t_s": None, "value": None} == {**want, "t_s": None, "value": None}
        assert row["t_s"] == float(want["t_s"])
        assert row["value"] == (float(want["value"]) if want["value"] else None) or want["value"] == "nan"
    assert "1 whole numbers beyond 2^53 are rounded" in capsys.readouterr().err


def test_a_log_without_times_has_none_in_its_table(folder: Path) -> None:
    (folder / "g.csv").write_text("ID,Data Bytes\n00000100,88 0F 2C 01 01\n")
    for more in ([], ["--relative"]):
        assert {row["t_s"] for row in decoded(folder, *more, "--dbc", folder / "x.dbc", folder / "g.csv")} == {""}


def test_every_value_reads_back_as_cantools_gives_it(folder: Path) -> None:
    """Random bits through scales of all kinds: whole, decimal, binary, tiny, huge, and floats."""
    scales = ["1", "0.1", "0.05", "0.0001", "0.125", "1e-05", "1.5e-09", "0.3333333", "3", "100000", "1e+20", "-0.01"]
    offsets = ["0", "-40", "0.5", "1e-07", "-273.15", "1e+10", "1000"]
    text, count = 'VERSION ""\nBU_:\n', 0
    for i, scale in enumerate(scales):
        for j, offset in enumerate(offsets):
            sign = "+-"[(i + j) % 2]
            text += f"BO_ {256 + count} M{count}: 8 X\n"
            text += f' SG_ S16 : 0|16@1{sign} ({scale},{offset}) [0|0] "" X\n'
            text += f' SG_ S48 : 16|48@1{sign} ({scale},{offset}) [0|0] "" X\n'
            count += 1
    text += f'BO_ {256 + count} M{count}: 8 X\n SG_ D : 0|64@1- (1,0) [0|0] "" X\nSIG_VALTYPE_ {256 + count} D : 2;\n'
    (folder / "all.dbc").write_text(text)
    database = cantools.database.load_string(text, "dbc")
    chance = np.random.default_rng(1)
    lines, frames = [], []
    for n in range(6000):
        can_id, payload = 256 + n % (count + 1), chance.bytes(8)
        if n % 7 == 0:
            payload = struct.pack("<d", float(chance.choice([0.0, -0.0, 1e22, 1.5, 1e-7, 123456.789, 5e-324])))
        frames.append((can_id, payload))
        lines.append(f"({n}.000000) can0 {can_id:03X}#{payload.hex()}")
    (folder / "all.log").write_text("\n".join(lines))
    rows = iter(decoded(folder, "--dbc", folder / "all.dbc", folder / "all.log"))
    for can_id, payload in frames:
        for name, want in database.decode_message(can_id, payload).items():
            row = next(rows)
            got: Any = type(want)(row["value"])  # an int where cantools has one
            assert row["signal"] == name and (got == want or (math.isnan(got) and math.isnan(want))), (row, want)
            assert isinstance(want, int) or math.copysign(1, got) == math.copysign(1, want) or math.isnan(want)
    assert next(rows, None) is None


def test_uds_of_real_cars_as_the_golden_file_has_it(tmp_path: Path, shared_dir: Path) -> None:
    folder = shared_dir / "can" / "css-electronics"
    golden = json.loads((folder / "golden_decode_cantools.json").read_text())
    for name, want in golden.items():
        rows = decoded(tmp_path, "--isotp", "7BB,7EC", "--relative", "--dbc", folder / "tp_uds.dbc", folder / name)
        told = [(t_s, s, value) for t_s, _, _, signals in want["decoded"] for s, value in signals.items()]
        names = {signal for _, signal, _ in told}
        found = [(float(r["t_s"]), r["signal"], float(r["value"])) for r in rows if r["signal"] in names and r["value"]]
        assert [entry[1:] for entry in found if not entry[2] < 0] == [entry[1:] for entry in told]
        assert [entry[0] for entry in found] == pytest.approx([entry[0] for entry in told], abs=0.001)
        messages = Counter(r["id"] for r in rows if r["signal"] == "service")
        assert messages["7EC"] + messages["7BB"] * ("kona" in name) == want["isotp_messages"]


def test_parameter_groups_that_came_by_bam(tmp_path: Path, shared_dir: Path) -> None:
    folder = shared_dir / "can" / "css-electronics"
    rows = decoded(tmp_path, "--dbc", folder / "tp_j1939.dbc", folder / "j1939_tp_FCBF0606.MF4")
    assert [row["message"] for row in rows] == ["EC1"] * 13
    assert Counter(row["value"] for row in rows) == {"1566.5": 12, "1600.0": 1}
    assert float(rows[0]["t_s"]) == pytest.approx(1622547831.93565, abs=1e-6)  # UTC


def test_a_real_car_as_the_golden_file_has_it(tmp_path: Path, shared_dir: Path) -> None:
    """Counts, first, least, greatest and last of 24 signals in ten logs, and when precharge and contactor switched."""
    folder = shared_dir / "can" / "kona-ev-can-logs"
    dbc = shared_dir / "can" / "kona-ev-dbc" / "pcan.dbc"
    for name, want in json.loads((folder / "golden_decode_pcan.json").read_text())["logs"].items():
        file = name.removesuffix(" (bus 0 = PCAN)")
        rows = decoded(tmp_path, "--relative", "--dbc", f"0={dbc}", folder / file)
        found: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            if row["value"]:
                found.setdefault(f"0x{row['id']}.{row['signal']}", []).append((float(row["t_s"]), float(row["value"])))
        for signal, told in want["signals"].items():
            values = [value for _, value in found[signal]]
            said = {"n": len(values), "first": values[0], "min": min(values), "max": max(values), "last": values[-1]}
            assert said == pytest.approx(told), (file, signal)
        assert _events(found) == [pytest.approx(tuple(event), abs=0.01) for event in want["events"]]


def _events(found: dict[str, list[tuple[float, float]]]) -> list[tuple[float, Any, float]]:
    events = []
    for signal in ("PrechargeRelay", "ContactorClosed"):
        last = None
        for t_s, value in next(values for name, values in found.items() if name.endswith(f".{signal}")):
            if value != last:
                events.append((t_s, signal, value))
            last = value
    return sorted(events)


@pytest.mark.slow
def test_decoding_a_text_log_brings_no_heavy_library(folder: Path) -> None:
    script = (
        "import sys; from edge.__main__ import main;"
        "main(['decode', '--dbc', 'x.dbc', 'x.log', '-o', 'o.csv']);"
        "print([n for n in ('asammdf', 'pandas', 'pyarrow', 'scipy') if n in sys.modules])"
    )
    command = [sys.executable, "-c", script]
    told = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
