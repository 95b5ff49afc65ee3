"""Makes `shared/dictionary.py`: the zstd dictionary of wire schema 1, trained on simulated packs of several sizes.

Run once per wire schema: the bytes are part of the wire, so an existing dictionary is never trained again.
"""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import zstandard

from firmware_bridge.pack.car import Car
from shared import planes, wire
from shared.batch import Batch
from shared.block import Extra, block_of, layout_of, pack_row
from shared.fields import resolution
from shared.records import Sample

SIZE_BYTES = 1024
TARGET = Path(__file__).parents[2] / "shared" / "dictionary.py"
SHAPES = ((96, 16), (96, 4), (16, 4), (108, 12), (14, 2))  # cells, temperatures
EXTRAS = (Extra("a", "", resolution(1.0)), Extra("b", "", resolution(0.1)), Extra("c"))


def a_drive(seed: int, seconds: int, cells: int, temps: int) -> Iterator[Sample]:
    car = Car(seed, seed % 3)
    order = np.random.default_rng(seed).permutation(96)
    for k in range(seconds):
        for _ in range(10):
            car.step()
        bms = car.bms
        volts, degrees = bms.cell_v[order[np.arange(cells) % 96]], bms.temp_c[np.arange(temps) % 16]
        yield Sample(
            pack_id="P",
            seq=k,
            mono_ns=(5000 + k) * 10**9,
            t_ns=(1_700_000_000 + k) * 10**9,
            pack_v=float(bms.pack_v),
            current_a=float(bms.current_a),
            pack_v_min=float(bms.pack_v) - 0.2,
            pack_v_max=float(bms.pack_v) + 0.1,
            current_a_min=float(bms.current_a) - 1.5,
            current_a_max=float(bms.current_a) + 1.0,
            soc_bms=float(bms.soc),
            soh_bms=float(bms.soh),
            charge_limit_a=float(bms.charge_limit_a),
            discharge_limit_a=float(bms.discharge_limit_a),
            insulation_kohm=float(bms.insulation_kohm),
            ambient_c=car.ambient_c,
            coolant_in_c=float(car.cooling.coolant_in_c),
            coolant_out_c=float(car.cooling.coolant_out_c),
            speed_kmh=car.demand.speed_mps * 3.6,
            odometer_km=car.odometer_km,
            throughput_ah=float(bms.throughput_ah),
            state=car.demand.state,
            contactor_main=bool(bms.contactors.main),
            cell_v=tuple(volts.tolist()),
            temp_c=tuple(degrees.tolist()),
            extra={"a": car.demand.speed_mps * 400, "b": car.hvac_w / 100, "c": car.cabin_c},
        )


def payloads() -> list[bytes]:
    """The bytes that `planes.encode` hands to zstd, for many batches."""
    seen: list[bytes] = []
    planes.compress = lambda data: (seen.append(data), b"")[1]  # type: ignore[assignment]
    for seed, (cells, temps) in enumerate(SHAPES * 2):
        samples = list(a_drive(seed, 1200, cells, temps))
        layout = layout_of(samples[0], {}, EXTRAS)
        bodies = [pack_row(sample, layout)[0].tobytes() for sample in samples]
        for rows in (1, 5, 5, 5, 15, 60):
            for at in range(0, len(samples) - rows, max(rows, 11)):
                part = samples[at : at + rows]
                block = block_of(
                    "P",
                    layout,
                    [s.seq for s in part],
                    [s.mono_ns for s in part],
                    [s.t_ns for s in part],
                    b"".join(bodies[at : at + rows]),
                    [None] * rows,
                    [()] * rows,
                )
                wire.encode_batch(Batch(device="d", boot=1, blocks=(block,)))
    return seen


def main() -> None:
    if TARGET.exists():
        raise SystemExit(f"{TARGET.name} is part of wire schema 1 and stays as it is; a new schema gets a new file")
    trained = zstandard.train_dictionary(SIZE_BYTES, payloads(), level=1).as_bytes()
    text = "\n".join(f'    b"{line}"' for line in textwrap.wrap(base64.b64encode(trained).decode(), 100))
    TARGET.write_text(
        '"""The zstd dictionary of wire schema 1 (made by tests/benchmarks/train_dictionary.py). Never changes."""\n\n'
        f"from __future__ import annotations\n\nimport base64\nfrom typing import Final\n\n"
        f"DICTIONARY: Final = base64.b64decode(\n{text}\n)\n"
    )


if __name__ == "__main__":
    main()
