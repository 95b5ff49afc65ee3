"""Publishing, going back, and who is told what: in the database and in the repository."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fakes.bundles import make_bundle

from cloud import db, release
from cloud.config import Config, Database
from cloud.db import queries_release
from cloud.release import Release, Renewal, next_counter, publish, revert
from cloud.tuf_repository import ReleaseError
from shared import bundle as bundles
from shared.errors import ConfigError

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.fixture
def config(database: Database, tmp_path: Path) -> Config:
    return Config(
        database=database,
        release_dir=tmp_path / "release",
        keys_dir=tmp_path / "keys",
        models_dir=tmp_path / "models",
    )


@pytest.fixture
def give(conn: db.Connection, config: Config) -> Callable[..., Release]:
    """Publishes fake-COUNTER; each counter is another model."""
    for device in ("car-1", "car-2"):
        conn.execute("INSERT INTO device (device) VALUES (%s)", (device,))

    def given(counter: int, to: str = "fleet") -> Release:
        return publish(conn, config, make_bundle(counter, rul_cycles=500.0 + counter), to, NOW)

    return given


def told(conn: db.Connection, device: str | None = None) -> str | None:
    return queries_release.desired(conn, device)[1]


def test_nobody_is_told_anything_at_first(conn: db.Connection) -> None:
    assert [told(conn, device) for device in (None, "car-1", "stranger")] == [None] * 3


def test_a_device_has_its_own_bundle_before_the_fleets(conn: db.Connection, give: Callable[..., Release]) -> None:
    give(1)
    give(2, "car-2")
    assert [told(conn, device) for device in (None, "car-1", "stranger", "car-2")] == ["fake-1"] * 3 + ["fake-2"]
    done = give(3)
    assert [told(conn, device) for device in (None, "car-1", "car-2")] == ["fake-3", "fake-3", "fake-2"]
    assert any("car-2 keeps fake-2" in note for note in done.notes)


def test_publishing_the_same_again_changes_nothing(conn: db.Connection, give: Callable[..., Release]) -> None:
    first = give(1)
    again = give(1)
    assert (first.signed, first.told, again.signed, again.told) == (True, True, False, False)
    assert conn.execute("SELECT count(*) FROM assignment").fetchone() == (1,)


def test_other_bytes_under_a_published_counter_are_refused(
    conn: db.Connection, config: Config, give: Callable[..., Release]
) -> None:
    give(1)
    for body in (make_bundle(1, rul_cycles=1.0), make_bundle(1, "other")):
        with pytest.raises(ReleaseError, match="give the model a new counter"):
            publish(conn, config, body, "fleet", NOW)
    assert told(conn) == "fake-1"


def test_an_unknown_device_is_one_sentence_and_nothing_is_signed(
    conn: db.Connection, config: Config, give: Callable[..., Release]
) -> None:
    with pytest.raises(ConfigError, match="device nobody is not known"):
        give(1, "nobody")
    assert release.repository(config).targets() == {}


def test_a_bundle_that_agents_of_this_version_refuse_is_published_with_a_note(
    conn: db.Connection, config: Config
) -> None:
    for defect, words in (("feature_schema", "other features"), ("hardware", "it is made for abacus")):
        body = make_bundle(len(words), defect=defect)
        assert words in " ".join(publish(conn, config, body, "fleet", NOW).notes)
    done = publish(conn, config, make_bundle(1), "fleet", NOW)
    assert "never goes back" in " ".join(done.notes), "an older counter than the one before"


def test_signed_facts_repeat_the_manifest(conn: db.Connection, config: Config) -> None:
    body = make_bundle(7, chemistry=("lfp", "nmc"))
    publish(conn, config, body, "fleet", NOW)
    manifest = bundles.read(body).manifest
    custom = release.repository(config).targets()["fake-7.bundle"].custom
    assert custom == {
        "model_id": "fake-7",
        "counter": 7,
        "feature_schema": manifest.feature_schema,
        "chemistry": ["lfp", "nmc"],
        "hardware": manifest.hardware,
    }


def model_of(config: Config, model_id: str) -> bytes:
    """What makes a bundle the model it is, whatever its counter."""
    return bundles.read(release.repository(config).read(f"{model_id}.bundle")).files["rul_cycles.onnx"]


def test_revert_publishes_the_model_before_under_a_new_counter(
    conn: db.Connection, config: Config, give: Callable[..., Release]
) -> None:
    for counter in (1, 2, 3):
        give(counter)
    done = revert(conn, config, "fleet", NOW)
    assert (done.model_id, told(conn)) == ("fake-4", "fake-4")
    assert model_of(config, "fake-4") == model_of(config, "fake-2")


def test_each_revert_goes_further_back_and_a_new_model_begins_anew(
    conn: db.Connection, config: Config, give: Callable[..., Release]
) -> None:
    for counter in (1, 2, 3):
        give(counter)
    assert [revert(conn, config, "fleet", NOW).model_id for _ in range(2)] == ["fake-4", "fake-5"]
    assert model_of(config, "fake-5") == model_of(config, "fake-1")
    with pytest.raises(ReleaseError, match="fleet was told to run fake-5 and nothing before it"):
        revert(conn, config, "fleet", NOW)
    give(6)
    assert revert(conn, config, "fleet", NOW).model_id == "fake-7"
    assert model_of(config, "fake-7") == model_of(config, "fake-1"), "what ran before 6"


def test_revert_of_one_device_leaves_the_others(
    conn: db.Connection, config: Config, give: Callable[..., Release]
) -> None:
    give(1)
    give(2, "car-1")
    give(3, "car-1")
    revert(conn, config, "car-1", NOW)
    assert (told(conn, "car-1"), told(conn, "car-2")) == ("fake-4", "fake-1")
    with pytest.raises(ReleaseError, match="car-2 was told to run nothing yet"):
        revert(conn, config, "car-2", NOW)


def test_the_next_counter_is_above_models_and_repository(
    conn: db.Connection, config: Config, give: Callable[..., Release]
) -> None:
    assert next_counter(config.models_dir, config.release_dir) == 1
    give(4)
    assert next_counter(config.models_dir, config.release_dir) == 5
    config.models_dir.mkdir()
    for name in ("rul-sim-11.bundle", "rul-99.card.json", "rul-0.bundle", "notes.txt", "rul-x.bundle"):
        (config.models_dir / name).write_bytes(b"")
    assert next_counter(config.models_dir, config.release_dir) == 12
    give(5)
    give(6)
    assert revert(conn, config, "fleet", NOW).model_id == "fake-12"
    (config.models_dir.parent / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be read"):
        next_counter(config.models_dir.parent / "file", config.release_dir)


def test_a_lost_bundle_cannot_be_gone_back_to(
    conn: db.Connection, config: Config, give: Callable[..., Release]
) -> None:
    give(1)
    give(2)
    for path in (config.release_dir / "targets").glob("*.fake-1.bundle"):
        path.unlink()
    with pytest.raises(ReleaseError, match="damaged or missing"):
        revert(conn, config, "fleet", NOW)
    assert told(conn) == "fake-2"


def test_the_api_renews_at_its_start_and_long_before_the_end(config: Config, give: Callable[..., Release]) -> None:
    renewal = Renewal(config)
    assert not renewal.look(NOW, at_start=True), "nothing is published yet"
    give(1)
    assert renewal.look(NOW, at_start=True)
    assert not renewal.look(NOW + timedelta(hours=5))
    assert renewal.look(NOW + timedelta(hours=7))
    assert renewal.look(NOW - timedelta(days=3)), "a clock that was set back: devices refuse what holds too long"
    assert renewal.look(NOW + timedelta(days=400)), "expired long ago"
    assert release.repository(config).expires() == NOW + timedelta(days=401)


def test_a_release_that_cannot_be_renewed_is_one_line_in_the_log(
    config: Config, give: Callable[..., Release], caplog: pytest.LogCaptureFixture
) -> None:
    give(1)
    (config.keys_dir / "snapshot.pem").chmod(0o644)
    renewal = Renewal(config)
    with caplog.at_level(logging.WARNING):
        renewal.start()
        renewal.stop()
    (line,) = [record.getMessage() for record in caplog.records if record.name == "cloud.release"]
    assert line.endswith(f"run: chmod 600 {config.keys_dir / 'snapshot.pem'}")


def test_a_file_that_is_no_bundle_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.bundle cannot be read: No such file"):
        release.read_bundle(tmp_path / "none.bundle")
    (tmp_path / "bad.bundle").write_bytes(b"no zip")
    with pytest.raises(ConfigError, match=r"bad\.bundle: the file is no bundle"):
        release.read_bundle(tmp_path / "bad.bundle")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        release.read_bundle(tmp_path)
