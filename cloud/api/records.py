"""Rows of the database as the JSON records of the API: Sample's names and units, times ISO 8601 UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from cloud.api.texts import event_text
from cloud.db.queries_packs import Row
from cloud.live import iso
from shared.wire_json import plain


def when(t: datetime | None) -> str | None:
    """A database time as ISO 8601 UTC with microseconds."""
    return None if t is None else f"{t.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


def bits(text: str | None) -> int | str | None:
    """A varbit (leftmost = position 0) as the bit set of a Sample."""
    return None if text is None else plain({"balancing": int(text[::-1] or "0", 2)})["balancing"]


def sample_record(row: Row) -> dict[str, Any]:
    """A Sample from a row of `queries_packs.packs`."""
    names, values = row.pop("extra_names"), row.pop("extra")
    return row | {
        "t": iso(row["t_ns"]),
        "cell_v": row["cell_v"] or [],
        "temp_c": row["temp_c"] or [],
        "balancing": bits(row["balancing"]),
        "alarms": row["alarms"] or [],
        "quality": row["quality"] or {},
        "extra": dict(zip(names or (), values or (), strict=True)),
    }


def pack_record(row: Row) -> dict[str, Any]:
    """A pack from a row of `queries_packs.packs`."""
    sample = row.pop("sample")
    latest = sample_record(sample) if sample else None
    return row | {
        "commissioned": row["commissioned"].isoformat() if row["commissioned"] else None,
        "t": latest["t"] if latest else None,
        "latest": latest,
    }


def event_record(row: Row) -> dict[str, Any]:
    """An Event from a row of the view `events`, with its sentence."""
    return row | {
        "t": iso(row["t_ns"]),
        "since": iso(row["since_t_ns"] if row["since_t_ns"] is not None else row["t_ns"]),
        "cleared": iso(row["cleared_t_ns"]),
        "text": event_text(row["code"], row["cell"], row["value"], row["threshold"]),
    }


def device_record(row: Row) -> dict[str, Any]:
    """A device from a row of `queries_packs.devices`."""
    model = {name: row.pop(name) for name in ("model_id", "counter", "step", "reason")} | {"t": iso(row.pop("t_ns"))}
    return {
        "device": row["device"],
        "packs": row["packs"],
        "mode": row["mode"],
        "registered": when(row["registered_at"]),
        "last_seen": when(row["last_seen"]),
        "model": model if model["model_id"] is not None else None,
    }
