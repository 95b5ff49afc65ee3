"""Captured bytes of seven projects through `decode`, as an outside judge would give them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from bms_expected import GOOD_WITHIN, ZEROED, Line, Vector, lsb, vectors
from conftest import ROOT, missing

from firmware_bridge.__main__ import main

SHARED: Final = Path(os.environ.get("PACKTWIN_SHARED") or ROOT.parent / "shared")
ALL: Final = vectors(SHARED) if SHARED.is_dir() else []
POSITIVE: Final = [it for it in ALL if it.entry["kind"] == "positive" and it.id not in ZEROED and it.expected()]
NEGATIVE: Final = [it for it in ALL if it.entry["kind"] == "negative" or it.id in ZEROED]
SHARE: Final = 0.99

EXPLAINED: Final = {
    (688, "pack_v"): "the bytes say 1D3E = 748.6 V, as 192 cells of 3.9 V have; OBDb stops at 403.2 V",
}
"""(id, field) -> why upstream's value is not what the bytes say. They count as wrong all the same."""

KINDS: Final = {
    72: "checksum",
    169: "length",  # no end where its length says
    189: "checksum",
    190: "checksum",  # of a type that is not known besides
    314: "length",  # a good CRC around 32 bytes, which no block has
    320: "function",  # the version of a request
    321: "response",
    325: "address",  # a good frame, of a system that nobody asked and of which nobody has heard
    441: "length",
    455: "checksum",
    456: "checksum",
    574: "noise",
}
"""Negative entry -> the error that it must be."""


class Told:
    """What `decode` printed: reports on stdout, errors on stderr."""

    def __init__(self, line: Line, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = folder / "line.txt"
        file.write_text("\n".join(line.lines) + "\n")
        self.code = main(["decode", *line.arguments, "--file", str(file)])
        said = capsys.readouterr()
        self.reports: list[dict[str, Any]] = [json.loads(text) for text in said.out.splitlines()]
        self.errors: list[dict[str, Any]] = [json.loads(text) for text in said.err.splitlines()]

    def value(self, name: str) -> Any:
        """The last that was told of a field (`@3.pack_v`: by address 3); None = nothing was."""
        found = None
        reports = self.reports
        if name.startswith("@"):
            address, _, name = name[1:].partition(".")
            reports = [it for it in reports if it["address"] == int(address)]
        for report in reports:
            where, key = (report["extra"], name[6:]) if name.startswith("extra.") else (report, name)
            if where.get(key) is not None:
                found = where[key]
        return found


def pairs(vector: Vector, told: Told) -> Iterator[tuple[str, Any, Any]]:
    """(field, what must be told, what was told) of each value that counts."""
    for name, wanted in vector.expected().items():
        found = told.value(name)
        if not isinstance(wanted, list):
            yield name, wanted, found
            continue
        places = list(found or [])
        if None not in wanted:
            places = [it for it in places if it is not None] if name.endswith("temp_c") else places
        for i, value in enumerate(wanted):
            if value is not None:
                yield f"{name}[{i}]", value, places[i] if i < len(places) else None


def is_right(line: Line, name: str, wanted: Any, found: Any) -> bool:
    if isinstance(wanted, bool) or found is None:
        return found is not None and bool(found) == wanted
    return abs(found - wanted) <= lsb(line, name) * (1 + 1e-9)


@pytest.mark.parametrize("is_asked", [True, False], ids=["asked", "overheard"])
def test_99_of_100_values_of_all_vectors_are_within_a_step_of_the_wire(
    is_asked: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not ALL:
        missing(f"needs the recorded vectors in {SHARED}")
    good: Counter[str] = Counter()
    total: Counter[str] = Counter()
    wrong: dict[tuple[int, str], str] = {}
    for vector in POSITIVE:
        line = vector.line() if is_asked else vector.line().unasked
        told = Told(line, tmp_path, capsys)
        for name, wanted, found in pairs(vector, told):
            total[line.protocol] += 1
            if is_right(line, name, wanted, found):
                good[line.protocol] += 1
            else:
                wrong[vector.id, name] = f"{vector}: {name} is to be {wanted} and is {found}"
    print(
        f"{len(POSITIVE)} vectors, {good.total()} of {total.total()} values right",
        dict(total),
        *wrong.values(),
        sep="\n",
    )
    assert total.keys() == {it.protocol for it in ALL}
    assert wrong.keys() == EXPLAINED.keys()
    assert good.total() >= SHARE * total.total()


@pytest.mark.parametrize("vector", NEGATIVE, ids=str)
def test_a_bad_frame_is_one_error_and_no_report(
    vector: Vector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = Told(vector.line(), tmp_path, capsys)
    if vector.id in GOOD_WITHIN:
        assert told.code == 0 and len(told.reports) == 1
        return
    assert told.reports == [] and told.code == 1
    assert [it["error"] for it in told.errors] == [KINDS[vector.id]]
