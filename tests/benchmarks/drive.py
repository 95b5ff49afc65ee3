"""`drive.csv.gz` of the shared data as Samples: one hour of a 96-cell pack, one row a second."""

from __future__ import annotations

import csv
import gzip
import os
from pathlib import Path
from typing import Any

from shared.block import Extra, Layout, layout_of, pack_row
from shared.fields import STATES, resolution
from shared.records import Sample

SNAPSHOTS = Path(os.environ.get("PACKTWIN_SHARED", Path(__file__).parents[3] / "shared")) / "data" / "snapshots"
CELLS, TEMPS = 96, 16
FIELDS = {  # column -> (field, factor); all other scalar columns become extras
    "pack_v": ("pack_v", 1.0),
    "pack_i": ("current_a", -1.0),  # there > 0 discharges
    "soc": ("soc_bms", 0.01),
    "soh": ("soh_bms", 0.01),
    "speed": ("speed_kmh", 1.0),
    "odo": ("odometer_km", 1.0),
    "coolant_in": ("coolant_in_c", 1.0),
    "coolant_out": ("coolant_out_c", 1.0),
    "ambient": ("ambient_c", 1.0),
    "hv_iso_kohm": ("insulation_kohm", 1.0),
    "charge_limit": ("charge_limit_a", 1.0),
    "discharge_limit": ("discharge_limit_a", 1.0),
    "state": ("state", 1.0),
    "cycle_kwh": ("energy_kwh", 1.0),
}


def samples(name: str = "drive") -> tuple[Layout, list[Sample], list[bytes]]:
    """(layout, the Samples, their rows as the outbox stores them)."""
    with (SNAPSHOTS / "scales.csv").open(encoding="utf-8") as file:
        scales = {row["column"]: float(row["resolution"]) for row in csv.DictReader(file)}
    with gzip.open(SNAPSHOTS / f"{name}.csv.gz", "rt", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    head, cells_at = rows[0], 21
    extras = [column for column in head[1:cells_at] if column not in FIELDS]
    steps = {
        field: resolution(round(scales[column] * abs(factor), 9))
        for column, (field, factor) in FIELDS.items()
        if field != "state"
    }
    made = [
        _sample(seq, dict(zip(head, map(float, row), strict=True)), row, extras) for seq, row in enumerate(rows[1:])
    ]
    layout = layout_of(made[0], steps, [Extra(column, "", resolution(scales[column])) for column in extras])
    return layout, made, [pack_row(sample, layout)[0].tobytes() for sample in made]


def _sample(seq: int, values: dict[str, float], row: list[str], extras: list[str]) -> Sample:
    known: dict[str, Any] = {field: values[column] * factor for column, (field, factor) in FIELDS.items()}
    known["state"] = STATES[int(values["state"])]
    t_ns = int(values["t_ms"]) * 1_000_000
    return Sample(
        pack_id="BATTERY_001",
        seq=seq,
        mono_ns=t_ns,
        t_ns=t_ns,
        pack_v_min=known["pack_v"],
        pack_v_max=known["pack_v"],
        current_a_min=known["current_a"],
        current_a_max=known["current_a"],
        cell_v=tuple(map(float, row[21 : 21 + CELLS])),
        temp_c=tuple(map(float, row[21 + CELLS :])),
        extra={column: values[column] for column in extras},
        **known,
    )


def plain(sample: Sample) -> dict[str, Any]:
    """The Sample as the contract's JSON has it."""
    fields = {name: getattr(sample, name) for name in Sample.__slots__}
    return {name: value for name, value in fields.items() if value not in (None, (), {})}
