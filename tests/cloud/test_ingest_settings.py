"""Settings are read once, with one sentence for each mistake; the bands are the same in Python and in SQL."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cloud import db
from cloud.config import Config, Retention, load, read_env_file
from cloud.db.telemetry import keep_bands
from shared.bands import Band, Bands, worst
from shared.errors import ConfigError


def test_nothing_set_gives_the_contracts_defaults() -> None:
    config = load({})
    assert (config.api_host, config.api_port, config.auto_register) == ("127.0.0.1", 5001, True)
    assert (config.database.name, config.database.user, config.database.port) == ("twin_data", "twin", 5432)
    assert config.retention == Retention(400, 800, 0, 0)
    assert config == Config()


def test_the_environment_beats_the_file_and_an_empty_value_counts_as_not_set(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(
        "# comment\nexport DB_HOST='db.local'\nDB_PORT=5433 # there\nAPI_PORT=\nOTHER_TOOL=x\nDB_PASSWORD=\"a#b\"\n"
    )
    config = load({"DB_PORT": " 6000 ", "AUTO_REGISTER": "Off", "BUS": " kafka "}, file)
    assert (config.database.host, config.database.port, config.database.password) == ("db.local", 6000, "a#b")
    assert (config.api_port, config.auto_register, config.bus) == (5001, False, "kafka")
    assert "a#b" not in repr(config)


@pytest.mark.parametrize(("setting", "value", "sentence"), [
    ("DB_PORT", "abc", "DB_PORT='abc' is not a whole number from 1 to 65535"),
    ("API_PORT", "70000", "API_PORT='70000' is not a whole number"),
    ("AUTO_REGISTER", "maybe", "AUTO_REGISTER='maybe' is not true or false"),
    ("RETENTION_RAW_DAYS", "0", "RETENTION_RAW_DAYS='0' is not a whole number from 1"),
    ("RETENTION_1M_DAYS", "30", "RETENTION_1M_DAYS=30 is shorter than RETENTION_RAW_DAYS=400"),
    ("RETENTION_1D_DAYS", "900", "RETENTION_1D_DAYS=900 is shorter than RETENTION_1H_DAYS=0"),
    ("BAND_SOC_WARNING", "nan", "BAND_SOC_WARNING='nan' is not a number"),
    ("BAND_SOC_WARNING", "10", "BAND_SOC_WARNING=10 is worse than BAND_SOC_CRITICAL=20"),
    ("BAND_TEMPERATURE_WARNING", "61", "BAND_TEMPERATURE_WARNING=61 is worse than BAND_TEMPERATURE_CRITICAL=60"),
    ("UPLINK_MODE", "fast", "UPLINK_MODE='fast' is not one of live, normal, economy"),
])  # fmt: skip
def test_a_bad_value_is_one_sentence_that_names_it(setting: str, value: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        load({setting: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "sentence"), [
    ("DB_PASWORD=x", "line 1: DB_PASWORD is not a setting"),
    ("\njust words", "line 2 is not NAME=value"),
])  # fmt: skip
def test_a_mistake_in_the_file_names_its_line(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / ".env"
    file.write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        read_env_file(file)


def test_a_missing_file_is_no_mistake(tmp_path: Path) -> None:
    assert read_env_file(tmp_path / ".env") == {}


@pytest.mark.parametrize(("band", "value", "status"), [
    (Bands().soc, 50.1, "good"), (Bands().soc, 50.0, "warning"), (Bands().soc, 20.0, "warning"),
    (Bands().soc, 19.9, "critical"), (Bands().temperature, 39.9, "good"), (Bands().temperature, 60.0, "warning"),
    (Bands().temperature, 60.1, "critical"), (Bands().failure, 30.0, "warning"), (Bands().soh, None, None),
])  # fmt: skip
def test_a_band_says_the_same_in_python_and_in_sql(
    conn: db.Connection, band: Band, value: float | None, status: str | None
) -> None:
    assert band.status(value) == status
    keep_bands(conn, replace(Bands(), soc=band))
    row = conn.execute("SELECT (ARRAY['good', 'warning', 'critical'])[1 + band_of('soc', %s)]", (value,)).fetchone()
    assert row == (status,)


def test_the_worst_status_counts_and_what_is_unknown_does_not() -> None:
    assert worst("good", None, "warning") == "warning"
    assert worst("critical", "good") == "critical"
    assert worst(None) is None
