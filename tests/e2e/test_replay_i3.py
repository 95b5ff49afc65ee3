"""The trips of a real BMW i3 through agent, uplink and database: every row once, in order, every value equal."""

from __future__ import annotations

import csv
import gzip
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.stack import ROOT, Stack

pytestmark = pytest.mark.e2e

ROWS = 49_645
EPOCH_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00Z
DAY_S = 86_400
EXTRAS = ("elev_m", "throttle_pct", "torque_Nm", "acc_ms2", "soc_disp_pct", "heat_kW", "aircon_kW", "Tcabin_C")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("i3")
    folder.chmod(0o755)
    with Stack(folder) as stack:
        stack.start("database", "api")
        yield stack


def replay(stack: Stack, trips: Path) -> None:
    command = [sys.executable, str(ROOT / "deploy" / "local" / "replay_i3.py"), str(trips), "--url", stack.api]
    done = subprocess.run(command, env=stack.environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_row_of_every_trip_once_in_order_and_equal_also_when_sent_twice(stack: Stack, shared_dir: Path) -> None:
    trips = shared_dir / "data" / "bmw_i3_trips"
    replay(stack, trips)
    replay(stack, trips)
    assert stack.query("SELECT count(*) FROM samples") == [(ROWS,)]
    seen = 0
    for index, path in enumerate(sorted(trips.glob("Trip*.csv.gz"))):
        pack_id = f"I3_{path.name.removesuffix('.csv.gz')}"
        stored = stack.query(
            "SELECT seq, t_ns, pack_v, current_a, soc_bms, temp_c, speed_kmh, ambient_c, extra, quality, pack_v_min, "
            "pack_v_max, current_a_min, current_a_max FROM samples WHERE pack_id = %s ORDER BY t_ns",
            pack_id,
        )
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(stored) == len(rows)
        for seq, (row, got) in enumerate(zip(rows, stored, strict=True)):
            assert got == expected(seq, index, row), f"{path.name} row {seq}"
            seen += 1
    assert seen == ROWS


def expected(seq: int, trip: int, row: dict[str, str]) -> tuple[Any, ...]:
    """The row as the database has it."""
    value = {name: float(text) if text else None for name, text in row.items()}
    t_s, soc_pct = value["t_s"], value["soc_pct"]
    assert t_s is not None
    quality = {} if soc_pct is not None else {"soc_bms": "absent"}
    if value["soc_disp_pct"] is None:
        quality["extra.soc_disp_pct"] = "absent"
    volts, amps = value["Vpack_V"], value["I_A"]
    return (
        seq,
        EPOCH_NS + int((trip * DAY_S + t_s) * 1e9),
        volts,
        amps,
        None if soc_pct is None else round(soc_pct / 100, 4),
        [value["Tbat_C"], value["Tbat_max_C"]],
        value["v_kmh"],
        value["Tamb_C"],
        {name: value[name] for name in EXTRAS},
        quality,
        volts,
        volts,
        amps,
        amps,
    )
