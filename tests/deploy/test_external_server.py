"""DB_HOST of whoever starts the tests names a server for them, and nothing that they start."""

from __future__ import annotations

import os

import external_server
import pytest

FOUND = {"DB_HOST": "db.far", "DB_PORT": "6000", "DB_NAME": "mine", "DB_USER": "root", "DB_PASSWORD": "s"}


def test_the_variables_are_taken_out_of_the_environment_and_handed_to_the_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PACKTWIN_TEST_SERVER", "")  # as it was comes back after the test
    for name, value in FOUND.items():
        monkeypatch.setenv(name, value)
    external_server.take()
    assert not FOUND.keys() & os.environ.keys()
    assert external_server.told() == external_server.ExternalServer("db.far", 6000, "root", "s")
    external_server.take()  # in a worker, which finds them no more
    assert external_server.told() is not None


def test_a_name_without_a_server_is_no_server_but_goes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACKTWIN_TEST_SERVER", "")  # as it was comes back after the test
    monkeypatch.setenv("DB_NAME", "mine")
    external_server.take()
    assert external_server.told() is None
    assert "DB_NAME" not in os.environ


def test_no_test_finds_a_database_by_accident() -> None:
    assert not {name for name in os.environ if name.startswith("DB_")}
