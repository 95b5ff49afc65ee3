"""A life goes up as it was written down, once; a file that cannot be sent whole is one sentence and sends nothing."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.cloud import FakeCloud, served
from fakes.sessions import life

from edge.__main__ import main
from shared.record_lines import to_line
from shared.records import Event, Session

COUNT = 1300
RECORDS: list[Session | Event] = [
    *life(COUNT - 1, 3),
    Event(pack_id="P", seq=9, mono_ns=9, t_ns=9, id="eol", code="end_of_life", severity="critical", value=1500.0),
]


@pytest.fixture
def cloud() -> FakeCloud:
    return FakeCloud()


def written(folder: Path, records: list[Session | Event], name: str = "LIFE.jsonl.gz") -> Path:
    body = "".join(f"{to_line(record)}\n" for record in records).encode()
    path = folder / name
    path.write_bytes(gzip.compress(body) if name.endswith(".gz") else body)
    return path


def replay(file: Path, url: str, *more: str) -> int:
    source = '[[source]]\npack_id = "A"\nchannel = "c"\nmapping = "mapping.toml"\n'
    config = file.parent / "edge.toml"
    config.write_text(f'device = "d"\n[uplink]\nurl = "{url}"\n{source}')
    return main(["replay", str(file), "--config", str(config), *more])


@pytest.mark.parametrize("name", ["LIFE.jsonl.gz", "LIFE.jsonl"])
def test_every_record_arrives_and_a_second_time_adds_nothing(tmp_path: Path, cloud: FakeCloud, name: str) -> None:
    file = written(tmp_path, RECORDS, name)
    with served(cloud) as url:
        assert replay(file, url) == 0
        assert replay(file, url) == 0
    ((_, told),) = cloud.others.items()
    assert [told[seq] for seq in range(COUNT)] == [replace(r, seq=k) for k, r in enumerate(RECORDS)]
    assert not cloud.rows


def test_what_the_cloud_refuses_is_exit_1_with_its_reason(
    tmp_path: Path, cloud: FakeCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.refuse = lambda _, seq: "bad_time" if seq == 700 else None
    with served(cloud) as url:
        assert replay(written(tmp_path, RECORDS), url) == 1
    assert f"refused 1 of {COUNT} records (bad_time)" in capsys.readouterr().err


BAD: dict[str, bytes | None] = {
    "cannot be read: No such file": None,
    "holds no record": gzip.compress(b"\n\n"),
    "is no whole gzip file": gzip.compress(b"{}" * 9999)[:-9],
    "line 2 is not JSON": gzip.compress(to_line(RECORDS[0]).encode() + b"\n{"),
    "line 1 has no kind": gzip.compress(b"{}\n"),
    "record 1 has no t_ns": gzip.compress(to_line(replace(life(1)[0], t_ns=None)).encode()),
}


@pytest.mark.parametrize("said", BAD)
def test_a_bad_file_is_one_sentence_and_sends_nothing(
    tmp_path: Path, cloud: FakeCloud, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, content = tmp_path / "LIFE.jsonl.gz", BAD[said]
    if content is not None:
        file.write_bytes(content)
    with served(cloud) as url:
        assert replay(file, url) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not cloud.batches


@pytest.mark.parametrize("more", [("-o", "x"), ("--speed", "2"), ("--pack", "B"), ("--mapping", "m.toml")])
def test_what_makes_no_sense_for_records_is_said(
    tmp_path: Path, more: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay(written(tmp_path, RECORDS[:1]), "http://127.0.0.1:9", *more) == 2
    assert "with --config alone" in capsys.readouterr().err
