"""`list`: a table that is made from the languages themselves, and the page that is made from it."""

from __future__ import annotations

from typing import Final

import pytest
from conftest import ROOT

from firmware_bridge.__main__ import main
from firmware_bridge.list_command import sign_on_the_wire
from firmware_bridge.shelf import NAMES, protocol

PAGE: Final = ROOT / "docs" / "reference" / "protocols.md"
UNVERIFIED: Final = {"foxbms_can", "daly_can", "jk_can", "pylontech_hv_can"}


def test_the_page_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--markdown"]) == 0
    assert capsys.readouterr().out == PAGE.read_text(), "python -m firmware_bridge list --markdown > " + str(PAGE)


def test_every_language_has_its_line_and_what_no_capture_proves_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    head = capsys.readouterr().out.split("\n\n")[0].splitlines()
    names = [line.split()[1] for line in head]
    assert list(dict.fromkeys(names)) == list(NAMES)
    assert {line.split()[1] for line in head if "unverified on hardware  " in line} == UNVERIFIED
    assert {name for name in NAMES if not protocol(name).verified} == UNVERIFIED


def test_a_field_is_marked_where_a_language_tells_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    columns = {line.split()[1]: at for at, line in enumerate(out.splitlines()) if line.split()[1:2] == ["jbd"]}
    line = next(line for line in out.splitlines() if line.startswith("cell_v[]"))
    assert line.split()[1:][columns["jbd"]] == "x"
    assert line.split()[1:][list(NAMES).index("pylontech_can")] == "."


@pytest.mark.parametrize(
    ("name", "vehicle", "sign"),
    [
        ("jbd", None, 1),
        ("jk02", None, 1),
        ("jk_uart", None, 1),
        ("daly_uart", None, -1),
        ("daly_modbus", None, 1),
        ("daly_can", None, -1),
        ("jk_can", None, 1),
        ("pylontech_can", None, 1),
        ("seplos_v2", None, 1),
        ("seplos_v3", None, 1),
        ("foxbms_can", None, -1),
        ("uds_ev", "kona", -1),
        ("uds_ev", "leaf", 1),
    ],
)
def test_the_sign_on_the_wire_is_the_one_that_captures_have(name: str, vehicle: str | None, sign: int) -> None:
    """Daly's UART and its Modbus contradict each other; captures of both prove it."""
    assert sign_on_the_wire(protocol(name), vehicle) == sign
