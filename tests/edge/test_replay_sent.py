"""Replays over real HTTP: exit 0 only when all is acknowledged, and what is sent twice is the same records."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.cloud import FakeCloud, served

from edge.__main__ import main

MAPPING = '[csv]\ntime = "t"\nstart = 2026-01-01T00:00:00Z\n[fields]\npack_v = { from = "V" }\n'
ROWS = 2500


@pytest.fixture
def cloud() -> FakeCloud:
    return FakeCloud()


def replay(folder: Path, url: str, speed: str = "max", rows: int = ROWS) -> int:
    (folder / "m.toml").write_text(MAPPING)
    (folder / "trip.csv").write_text("t,V\n" + "".join(f"{n},{n % 400}\n" for n in range(rows)))
    source = '[[source]]\npack_id = "A"\nchannel = "c"\nmapping = "mapping.toml"\n'
    (folder / "edge.toml").write_text(f'device = "d"\n[uplink]\nurl = "{url}"\n{source}')
    arguments = ["--mapping", str(folder / "m.toml"), "--config", str(folder / "edge.toml"), "--speed", speed]
    return main(["replay", str(folder / "trip.csv"), *arguments])


def test_every_row_arrives_and_a_second_time_adds_nothing(tmp_path: Path, cloud: FakeCloud) -> None:
    with served(cloud) as url:
        assert replay(tmp_path, url) == 0
        assert replay(tmp_path, url) == 0
    ((_, rows),) = cloud.rows.items()
    assert sorted(rows) == list(range(ROWS))
    assert [rows[seq][2] for seq in (0, ROWS - 1)] == [1_767_225_600_000_000_000, 1_767_228_099_000_000_000]
    assert not cloud.others and not cloud.twice


def test_what_the_cloud_refuses_is_exit_1_with_its_reason(
    tmp_path: Path, cloud: FakeCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.refuse = lambda _, seq: "too_old" if seq in (3, 1700) else None
    with served(cloud) as url:
        assert replay(tmp_path, url) == 1
    said = capsys.readouterr().err
    assert "refused 2 of 2500" in said and "too_old" in said


def test_plain_http_beyond_this_machine_is_refused_before_anything_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay(tmp_path, "http://cloud.example") == 2
    assert "https://" in capsys.readouterr().err


def test_a_paced_replay_goes_up_while_it_runs(tmp_path: Path, cloud: FakeCloud) -> None:
    """Nothing went up before 4000 rows waited: a trip at its own speed was not seen for an hour."""
    with served(cloud) as url:
        assert replay(tmp_path, url, "20", rows=11) == 0
    assert len(cloud.batches) >= 5
