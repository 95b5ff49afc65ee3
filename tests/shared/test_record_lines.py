"""Lines of a file say what a record says, and a bad one is named."""

from __future__ import annotations

import pytest

from shared.errors import WireError
from shared.record_lines import from_line, to_line
from shared.records import Event, Session

RECORDS = (
    Session(pack_id="P", seq=3, mono_ns=5, t_ns=7, duration_s=9.5, cycles=0.1 + 0.2, reasons={"soh_bms": "absent"}),
    Session(pack_id="P", seq=0, mono_ns=0, duration_s=0.0, simulated=True),
    Event(pack_id="P", seq=1, mono_ns=2, id="eol", code="end_of_life", severity="critical", value=812.0),
)


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_comes_back_equal(record: Session | Event) -> None:
    assert from_line(to_line(record), "line 1") == record


def test_seq_and_mono_ns_may_be_left_out() -> None:
    assert from_line('{"kind": "session", "pack_id": "P", "duration_s": 1}', "x").seq == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "line 7 is not JSON"),
        ("[" * 100_000, "line 7 is not JSON"),
        ("[]", "line 7 has no kind"),
        ('{"kind": "gap"}', "line 7 has no kind"),
        ('{"kind": "session", "pack_id": "P"}', "line 7 has no duration_s"),
        ('{"kind": "session", "pack_id": "P", "duration_s": NaN}', "line 7 is not JSON"),
        ('{"kind": "session", "pack_id": "P", "duration_s": -1}', "line 7: .* impossible duration"),
        ('{"kind": "session", "pack_id": "a b", "duration_s": 1}', "line 7: .* not an id"),
        ('{"kind": "session", "pack_id": "P", "duration_s": 1, "volts": 2}', "line 7 has 'volts'"),
    ],
)
def test_a_bad_line_is_named(line: str, said: str) -> None:
    with pytest.raises(WireError, match=said):
        from_line(line, "line 7")
