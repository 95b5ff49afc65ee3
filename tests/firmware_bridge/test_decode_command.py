"""`firmware_bridge decode` as a command: what it reads, and how it ends."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator

import pytest

from firmware_bridge.__main__ import main

CELLS = "dd0400080d660d610d680d59fe3c77"


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_bytes_on_stdin_that_are_no_letters_are_one_sentence(
    errors: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under PYTHONIOENCODING=utf-8:strict a byte that is not UTF-8 was a traceback."""
    raw = io.BytesIO(CELLS.encode() + b"\n\xff\xfe\xdd\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(raw, encoding="utf-8", errors=errors))
    assert main(["decode", "--protocol", "jbd", "--file", "-"]) == 2
    told = capsys.readouterr()
    assert "stdin line 2" in told.err and len(told.err.splitlines()) == 1


def test_what_comes_is_told_before_more_comes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of stdin was read before a byte of it was decoded: a pipe that never ends said nothing."""
    told: list[str] = []

    def lines() -> Iterator[str]:
        for _ in range(3):
            yield CELLS
            told.append(capsys.readouterr().out)

    monkeypatch.setattr(sys, "stdin", lines())
    assert main(["decode", "--protocol", "jbd", "--file", "-"]) == 0
    assert [len(it.splitlines()) for it in told] == [0, 1, 1]


@pytest.mark.parametrize("frame", ["356#8814C4FFD200", "0x356#8814C4FFD200", "0x356 # 0x88 0x14 C4FFD200"])
def test_the_id_of_a_frame_may_have_its_0x(frame: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It was bad usage, though bytes may be written so."""
    assert main(["decode", "--protocol", "pylontech_can", "--can", frame]) == 0
    assert json.loads(capsys.readouterr().out)["pack_v"] == 52.56


def test_lines_come_from_stdin_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(CELLS.encode()), encoding="utf-8"))
    assert main(["decode", "--protocol", "jbd", "--file", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["cell_v"] == [3.43, 3.425, 3.432, 3.417]
