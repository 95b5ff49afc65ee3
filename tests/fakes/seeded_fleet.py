"""A fleet as dashboards would meet it, put into the database by the ingest alone: records only, no invented tables.

FULL has everything, PLAIN no model, and ENDED packs reached the end of their lives.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from cloud import db
from cloud.config import Config
from cloud.db import queries_release
from cloud.ingest import Ingest
from cloud.rollup import run_pass
from shared.batch import Batch
from shared.block import Layout, SampleBlock
from shared.fields import STATES, resolution
from shared.records import Estimate, Event, Gap, Report, Session

FULL, PLAIN = "BATTERY_001", "BATTERY_002"
ENDED: Final = tuple(f"ENDED_{n}" for n in range(1, 6))
OTHERS: Final = tuple(f"VAN_{n:03d}" for n in range(1, 41))
SECOND_NS, MINUTE_NS, HOUR_NS, DAY_NS = 10**9, 60 * 10**9, 3600 * 10**9, 86_400 * 10**9
MODEL: Final = {"model_id": "rul-1", "model_sha256": "ab" * 32, "in_domain": True}
_STEPS: Final = {
    "pack_v": 0.1, "current_a": 0.1, "soc_bms": 0.001, "soh_bms": 0.001, "ambient_c": 0.1, "speed_kmh": 0.01,
    "odometer_km": 0.001, "cycles": 0.1, "state": 1.0,
}  # fmt: skip
_LAYOUT: Final = Layout(scalars=tuple((name, resolution(step)) for name, step in _STEPS.items()), cells=96, temps=4)


class Writer:
    """Counts `seq` for one device and hands everything to the ingest."""

    def __init__(self, ingest: Ingest, device: str) -> None:
        self._ingest, self._device, self._seq = ingest, device, 0

    def samples(self, pack: str, times_ns: Sequence[int] | np.ndarray, age: float, **odd: Any) -> None:
        """Samples of a pack at these times; `age` 0..1 of its life at the last."""
        for part in np.array_split(np.asarray(times_ns, np.int64), math.ceil(len(times_ns) / 5000)):
            self._write(blocks=(_block(pack, part, self._take(len(part)), age, **odd),))

    def records(self, **records: Sequence[Mapping[str, Any]]) -> None:
        """Records by kind, without their seq and mono_ns."""
        kinds: dict[str, Any] = {
            "estimates": Estimate, "events": Event, "sessions": Session, "reports": Report, "gaps": Gap,
        }  # fmt: skip
        for name, items in records.items():
            for start in range(0, len(items), 2000):
                part = items[start : start + 2000]
                seqs = self._take(len(part))
                made = tuple(kinds[name](seq=seq, mono_ns=seq, **item) for seq, item in zip(seqs, part, strict=True))
                self._write(**{name: made})

    def _take(self, count: int) -> range:
        self._seq += count
        return range(self._seq - count, self._seq)

    def _write(self, **parts: Any) -> None:
        self._ingest.write([Batch(device=self._device, boot=7, **{"blocks": (), **parts})])


def _block(
    pack: str, t_ns: np.ndarray, seqs: range, age: float, low_soc: bool = False, hot: bool = False
) -> SampleBlock:
    n, phase = len(t_ns), 2 * np.pi * t_ns / DAY_NS * 4
    life = age - (t_ns[-1] - t_ns) / (3 * 365 * DAY_NS)  # it ages by a third a year
    current = 60 * np.sin(phase)
    values = {
        "pack_v": 390 + 0.1 * current, "current_a": current,
        "soc_bms": np.full(n, 0.12) if low_soc else 0.55 - 0.3 * np.cos(phase), "soh_bms": 1 - 0.2 * life,
        "ambient_c": 15 + 5 * np.sin(phase), "speed_kmh": np.maximum(-current, 0),
        "odometer_km": 150_000 * life, "cycles": 900 * life, "state": np.where(current > 0, 3, 2),
    }  # fmt: skip
    rows = np.zeros((_LAYOUT.width, n), np.int64)
    for i, column in enumerate(_LAYOUT.columns):
        scale = 10.0**column.step.exponent / column.step.mantissa
        if column.name.startswith("cell_v"):
            worse = 0.04 * (i % 96 == 17)
            value = values["pack_v"] / 96 + 0.002 * np.sin(i) - worse
        elif column.name.startswith("temp_c"):
            value = np.full(n, 65.0 if hot else 28.0) + 4 * np.sin(phase + i)
        else:
            value = values[column.name.removesuffix("_min").removesuffix("_max")]
        rows[i] = np.rint(value * scale)
    assert STATES[3] == "charge_ac"
    zeros = np.zeros(n, np.int64)
    alarms: tuple[tuple[str, ...], ...] = (("low_soc:warning", "insulation"),) if low_soc else ((),)
    return SampleBlock(pack, _LAYOUT, np.array(seqs), t_ns, t_ns, rows, zeros, zeros, alarms=alarms)


def seed(conn: db.Connection, now_ns: int) -> None:
    """Writes the whole fleet, and brings the rollups up to date."""
    ingest = Ingest(conn, Config(), lambda: now_ns)
    car = Writer(ingest, "car-1")
    hour = np.arange(now_ns - 6 * HOUR_NS, now_ns, SECOND_NS)
    month = np.arange(now_ns - 30 * DAY_NS, now_ns - 6 * HOUR_NS, 2 * MINUTE_NS)
    year = np.arange(now_ns - 390 * DAY_NS, now_ns - 30 * DAY_NS, 6 * HOUR_NS)
    for times in (year, month, hour):
        car.samples(FULL, times, 0.7)
    car.samples(PLAIN, np.arange(now_ns - HOUR_NS, now_ns, 10 * SECOND_NS), 0.9, low_soc=True, hot=True)
    car.records(estimates=list(_estimates(now_ns)), sessions=list(_sessions(FULL, now_ns, 300, 630.0)))
    car.records(events=list(_events(now_ns)), reports=list(_reports("rul-1", now_ns - 300 * DAY_NS, "proven")))
    car.records(reports=list(_reports("rul-2", now_ns - 2 * DAY_NS, "rolled_back")))
    car.records(gaps=[{"t_ns": now_ns, "of_boot": 9, "first_seq": 0, "last_seq": 41, "cause": "power_cut"}])
    car.samples(FULL, np.array([now_ns + 2 * HOUR_NS]), 0.7)  # bad_time: a reject
    for number, pack in enumerate(ENDED):
        _whole_life(Writer(ingest, f"old-{number}"), pack, now_ns, number)
    for number, pack in enumerate(OTHERS):
        van = Writer(ingest, f"van-{number}")
        van.samples(pack, np.arange(now_ns - DAY_NS, now_ns, 5 * MINUTE_NS), number / len(OTHERS))
        van.records(reports=list(_reports("rul-1", now_ns - 100 * DAY_NS, ("proven", "refused")[number % 20 == 0])))
    queries_release.assign(conn, None, "rul-1", 1, "ab" * 32)
    queries_release.assign(conn, None, "rul-2", 2, "cd" * 32)
    while run_pass(conn, datetime.fromtimestamp(now_ns / 1e9, UTC)):
        pass


def _estimates(now_ns: int) -> Iterator[dict[str, Any]]:
    for t_ns in (
        *range(now_ns - 390 * DAY_NS, now_ns - DAY_NS, DAY_NS),
        *range(now_ns - DAY_NS, now_ns, 30 * SECOND_NS),
    ):
        soh = 1 - 0.2 * (0.7 - (now_ns - t_ns) / (3 * 365 * DAY_NS))
        left = 1500 * (soh - 0.8)
        yield dict(
            pack_id=FULL,
            t_ns=t_ns,
            soh_capacity=soh,
            soh_capacity_lo=soh - 0.02,
            soh_capacity_hi=soh + 0.02,
            rul_cycles=left,
            rul_cycles_lo=0.7 * left,
            rul_cycles_hi=1.4 * left,
            p_eol_100=0.03,
            failure_probability=0.03,
            **MODEL,
        )


def _sessions(pack: str, now_ns: int, count: int, cycles: float) -> Iterator[dict[str, Any]]:
    for k in range(count):
        share = (k + 1) / count
        yield {
            "pack_id": pack,
            "t_ns": now_ns - int((1 - share) * 350 * DAY_NS),
            "duration_s": 9e4,
            "cycles": cycles * share,
            "throughput_ah": 360.0 * k,
            "soh_bms": 1 - 0.1 * share,
            "age_days": 400.0 * share,
            "moved_ah": 300.0,
            "r_step_mohm": 0.4 + 0.2 * share,
            "r_step_max_mohm": 0.5 + 0.3 * share,
            "cell_dev_mv": 3 + 4 * share,
            "temp_mean_c": 25.0,
            "temp_spread_c": 2.0,
            "hot_h": 0.5,
            "window_ah": 60 - 8 * share,
            "simulated": True,
        }


def _whole_life(old: Writer, pack: str, now_ns: int, number: int) -> None:
    """A pack that ended at `end` cycles: Sessions, an Estimate after each, the end itself."""
    end, sessions = 800.0 + 100 * number, list(_sessions(pack, now_ns, 120, 790.0 + 100 * number))
    told = [
        dict(
            pack_id=pack,
            t_ns=s["t_ns"] + 5 * SECOND_NS,
            rul_cycles=0.9 * (end - s["cycles"]),
            rul_cycles_lo=0.6 * (end - s["cycles"]),
            rul_cycles_hi=1.3 * (end - s["cycles"]),
            failure_probability=1.0 if end - s["cycles"] < 110 else 0.02,
            **MODEL,
        )
        for s in sessions
    ]
    old.samples(pack, [s["t_ns"] for s in sessions], 1.0)
    old.records(sessions=sessions, estimates=told)
    old.records(
        events=[
            {
                "pack_id": pack,
                "t_ns": now_ns,
                "id": f"{pack}-end",
                "code": "end_of_life",
                "severity": "critical",
                "value": end,
                "threshold": 0.8,
                "since_t_ns": now_ns,
            }
        ]
    )


def _events(now_ns: int) -> Iterator[dict[str, Any]]:
    for k, severity in enumerate(("warning", "critical", "info")):
        since_ns = now_ns - (k + 1) * HOUR_NS
        told = {
            "pack_id": FULL,
            "code": "rul_band",
            "severity": severity,
            "value": 210.0,
            "threshold": 500.0,
            "since_t_ns": since_ns,
        }
        yield dict(id=f"e{k}", t_ns=since_ns, **told)
        if severity == "info":
            yield dict(id=f"e{k}", t_ns=since_ns + MINUTE_NS, cleared_t_ns=since_ns + MINUTE_NS, **told)


def _reports(model_id: str, t_ns: int, last: str) -> Iterator[dict[str, Any]]:
    numbers = {
        "fetched": {"bytes": 1e6, "received_bytes": 1e6, "requests": 2.0, "seconds": 1.5},
        "probed": {"seconds": 0.8},
    }
    steps = ("seen", "refused") if last == "refused" else ("seen", "fetched", "verified", "probed", "activated", last)
    reasons = {"refused": "chemistry", "rolled_back": "crash"}
    for k, step in enumerate(steps):
        yield {
            "model_id": model_id,
            "counter": int(model_id[-1]),
            "step": step,
            "reason": reasons.get(step),
            "t_ns": t_ns + k * SECOND_NS,
            "numbers": numbers.get(step, {}),
        }
