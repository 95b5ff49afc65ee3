"""`edge replay`: a CSV or a log becomes the same Samples each time; only a file wholly acknowledged is a success."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.__main__ import main
from edge.config_sources import SAMPLES
from edge.mapping import load_mapping
from edge.sources.replay import content_boot

MAPPING = """[csv]
time = "t"
start = 2026-01-01T00:00:00Z
[fields]
pack_v = { from = "V", resolution = 0.01 }
soc_bms = { from = "soc", scale = 0.01, resolution = 0.0001 }
temp_c = { from = ["T1", "T2"] }
"extra.note" = { from = "n" }
"""
CSV = "t,V,soc,T1,T2,n,other\n0,391.4,86.94,21.0,,1e-3,x\n1.5,,nan,21.5,22,hot,y\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m.toml").write_text(MAPPING)
    (tmp_path / "trip.csv").write_text(CSV)
    return tmp_path


def replayed(folder: Path, file: str = "trip.csv", *more: str) -> list[dict[str, Any]]:
    out = folder / "out.jsonl"
    arguments = ["replay", str(folder / file), "--mapping", str(folder / "m.toml"), "-o", str(out), *more]
    assert main(arguments) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_each_row_is_a_sample_and_a_blank_is_none_and_absent(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = replayed(folder)
    assert (first["pack_id"], first["seq"], second["seq"]) == ("trip", 0, 1)
    assert (first["t_ns"], second["t_ns"]) == (1_767_225_600_000_000_000, 1_767_225_601_500_000_000)
    assert (first["pack_v"], first["pack_v_min"], first["pack_v_max"], first["soc_bms"]) == (
        391.4,
        391.4,
        391.4,
        0.8694,
    )
    assert first["temp_c"] == [21.0, None] and first["quality"] == {"temp_c[1]": "absent"}
    assert second["pack_v"] is second["pack_v_min"] is second["soc_bms"] is None
    assert second["quality"] == {"pack_v": "absent", "soc_bms": "absent", "extra.note": "invalid"}
    assert first["extra"]["note"] == pytest.approx(1e-3, rel=1e-7)  # no resolution declared: float32
    assert "columns that are not mapped: other" in capsys.readouterr().err


def test_a_gz_is_read_as_it_is_and_the_pack_can_be_named(folder: Path) -> None:
    (folder / "trip.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    plain = replayed(folder, "trip.csv", "--pack", "P-1")
    assert replayed(folder, "trip.csv.gz", "--pack", "P-1") == plain
    assert plain[0]["pack_id"] == "P-1"


def test_the_boot_follows_from_what_is_sent(folder: Path) -> None:
    mapping = load_mapping(folder / "m.toml")
    path = folder / "trip.csv"
    boot = content_boot(path, mapping, "A")
    assert 0 < boot < 2**63 and boot == content_boot(path, mapping, "A")
    (folder / "trip.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    assert content_boot(folder / "trip.csv.gz", mapping, "A") == boot
    path.write_text(CSV + "2,1,1,1,1,1,1\n")
    (folder / "m.toml").write_text(MAPPING.replace("0.01,", "0.02,"))
    others = {
        content_boot(path, mapping, "A"),
        content_boot(path, mapping, "B"),
        content_boot(path, load_mapping(folder / "m.toml"), "A"),
    }
    assert len(others | {boot}) == 4


def test_a_candump_log_is_decoded_and_assembled_as_it_would_be_live(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "drive.log"
    lines = [f"(1767225600.{n:06d}) can0 00000100#0000000000000000" for n in range(3)]  # 29 bits: not the DBC's id
    lines += [f"(1767225600.5) can0 100#9C40{n:02X}0000000000" for n in range(2)]
    lines += ["(1767225600.6) can1 100#0000000000000000", "# a remark", "(1767225601.2) can0 100#9C41000000000000"]
    log.write_text("\n".join(lines) + "\n")
    out = tmp_path / "out.jsonl"
    arguments = ["replay", str(log), "--mapping", str(SAMPLES / "mapping.toml"), "--pack", "A", "-o", str(out)]
    assert main(arguments) == 0
    first, second = (json.loads(line) for line in out.read_text().splitlines())
    assert (first["pack_v"], second["pack_v"]) == (400.0, 400.01)
    assert (first["t_ns"], second["t_ns"]) == (1_767_225_601_000_000_000, 1_767_225_602_000_000_000)
    said = capsys.readouterr().err
    assert "left out: can1" in said and "remark" not in said


def test_a_jump_in_the_time_of_a_log_is_a_pause_and_not_a_year_of_samples(tmp_path: Path) -> None:
    log = tmp_path / "drive.log"
    log.write_text("(1.0) can0 100#9C40000000000000\n(1767225600.0) can0 100#9C41000000000000\n")
    out = tmp_path / "out.jsonl"
    assert main(["replay", str(log), "--mapping", str(SAMPLES / "mapping.toml"), "-o", str(out)]) == 0
    first, second = (json.loads(line) for line in out.read_text().splitlines())
    assert (first["t_ns"], second["t_ns"]) == (2_000_000_000, 1_767_225_601_000_000_000)


WRONG = {
    "no such file": ("none.csv", CSV, 2, "does not exist"),
    "a mapped column is missing": ("trip.csv", CSV.replace("soc", "SoC_pct"), 2, '"soc" is not in'),
    "a column stands twice": ("trip.csv", CSV.replace("other", "V"), 2, "stands twice"),
    "a row is too short": ("trip.csv", CSV + "3,4\n", 1, "line 4: 2 cells, the header has 7"),
    "a time is none": ("trip.csv", CSV.replace("1.5", "soon"), 1, 'line 3: "soon" in t is no time'),
    "no header": ("trip.csv", "", 2, "is not in"),
}


@pytest.mark.parametrize(("file", "text", "code", "words"), WRONG.values(), ids=WRONG.keys())
def test_a_bad_file_is_one_sentence(
    folder: Path, file: str, text: str, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "trip.csv").write_text(text)
    arguments = ["replay", str(folder / file), "--mapping", str(folder / "m.toml"), "-o", str(folder / "o")]
    assert main(arguments) == code
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said


def test_a_torn_gz_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "trip.csv.gz").write_bytes(gzip.compress(CSV.encode() * 100)[:-20])
    assert main(["replay", str(folder / "trip.csv.gz"), "--mapping", str(folder / "m.toml"), "-o", "-"]) == 1
    assert "whole gzip" in capsys.readouterr().err


def test_without_an_uplink_or_an_output_it_says_what_to_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = '[[source]]\npack_id = "A"\nchannel = "c"\nmapping = "mapping.toml"\n'
    (folder / "edge.toml").write_text(f'device = "d"\n{source}')
    arguments = ["replay", str(folder / "trip.csv"), "--mapping", str(folder / "m.toml")]
    assert main([*arguments, "--config", str(folder / "edge.toml")]) == 2
    assert "-o" in capsys.readouterr().err


@pytest.mark.parametrize("time", ["1e15", "-1e15", "1e300", "9e9", "inf", "nan", "noon"])
def test_a_time_that_cannot_be_is_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str], time: str) -> None:
    """A time of a million years was more than an int64 holds: a stack trace."""
    (folder / "trip.csv").write_text(f"t,V,soc,T1,T2,n\n{time},1,1,1,1,1\n")
    assert main(["replay", str(folder / "trip.csv"), "--mapping", str(folder / "m.toml"), "-o", "-"]) == 1
    assert "line 2" in capsys.readouterr().err


def test_a_start_beyond_all_time_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "m.toml").write_text(MAPPING.replace("2026-01-01", "9999-01-01"))
    assert main(["replay", str(folder / "trip.csv"), "--mapping", str(folder / "m.toml"), "-o", "-"]) == 2
    assert "2043" in capsys.readouterr().err


def test_numbers_that_no_field_can_hold_are_none_with_a_reason(folder: Path) -> None:
    """A 1e308 scaled to its resolution was infinite and ended the replay, or the agent."""
    (folder / "m.toml").write_text(MAPPING + 'balancing = { from = "B" }\n')
    (folder / "trip.csv").write_text("t,V,soc,T1,T2,n,B\n0,1e308,1e308,-1e308,1,1e308,-1\n1,1,1,1,1,1,1e300\n")
    first, second = replayed(folder)
    assert first["quality"] == dict.fromkeys(
        ("pack_v", "soc_bms", "temp_c[0]", "extra.note", "balancing"), "out_of_range"
    )
    assert first["pack_v"] is first["balancing"] is second["balancing"] is None
    assert second["quality"] == {"balancing": "out_of_range"}


WITHOUT = [
    ("trip.csv", "t,V,soc,T1,T2,n\n", 1),
    ("drive.log", "(1.0) can0 7FF#00\n", 1),
    ("drive.log", "not a frame\n", 2),
    ("drive.csv", "ID,Data Bytes\n00000100,9C 40\n", 1),
]


@pytest.mark.parametrize(("file", "text", "code"), WITHOUT)
def test_a_file_without_a_sample_is_no_success(
    folder: Path, capsys: pytest.CaptureFixture[str], file: str, text: str, code: int
) -> None:
    (folder / file).write_text(text)
    mapping = folder / "m.toml" if file == "trip.csv" else SAMPLES / "mapping.toml"
    assert main(["replay", str(folder / file), "--mapping", str(mapping), "-o", "-"]) == code
    assert file in capsys.readouterr().err


def test_another_interval_or_dbc_makes_other_records_of_a_log(folder: Path) -> None:
    """The cloud took the samples of a second channel or interval for those that it already had, and dropped them."""
    (folder / "drive.log").write_text("(1.0) can0 123#00\n")
    (folder / "own.dbc").write_text("one")
    mapping = replace(load_mapping(SAMPLES / "mapping.toml"), dbc=folder / "own.dbc")
    boots = {content_boot(folder / "drive.log", mapping, "A", told) for told in ("1.0 None", "0.5 None", "1.0 can1")}
    (folder / "own.dbc").write_text("two")
    assert len(boots | {content_boot(folder / "drive.log", mapping, "A", "1.0 None")}) == 4
