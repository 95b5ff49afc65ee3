"""Rows of the database as the JSON records of the API: Sample's names and units, times ISO 8601 UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from cloud.api.fleet import stale_after_s
from cloud.api.texts import event_text
from cloud.db.queries_packs import Row
from cloud.live import iso
from shared.wire_json import plain

_PREDICTION: Final = (
    "rul_cycles", "rul_cycles_lo", "rul_cycles_hi", "p_eol_100", "failure_probability", "in_domain", "model_id",
    "model_sha256",
)  # fmt: skip


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


def pack_record(row: Row, default_mode: str) -> dict[str, Any]:
    """A pack from a row of `queries_packs.packs`; default_mode: of devices without an uplink mode of their own."""
    sample, mode = row.pop("sample"), row.pop("mode")
    latest = sample_record(sample) if sample else None
    estimate, model = estimate_record(row), model_record(row)
    return row | {
        "commissioned": row["commissioned"].isoformat() if row["commissioned"] else None,
        "t": latest["t"] if latest else None,
        "stale_after_s": stale_after_s(mode, default_mode),
        "latest": latest,
        "estimate": estimate,
        "model": model,
    }


def estimate_record(row: Row) -> dict[str, Any] | None:
    """Takes a pack's newest prediction out of its row, as the device told it; None = none yet.

    `stale`: samples have gone on for so long without a newer one that it is no answer any more.
    """
    values = {name: row.pop(name) for name in _PREDICTION}
    t, reason, stale = iso(row.pop("e_t_ns")), row.pop("e_reason"), row.pop("stale")
    return None if t is None else {"t": t, **values, "reason": reason, "stale": stale}


def model_record(row: Row) -> dict[str, Any] | None:
    """Takes a device's last report on a model out of a row; None = nothing reported yet."""
    model_id, t = row.pop("m_model_id"), iso(row.pop("m_t_ns"))
    told = {name: row.pop(name) for name in ("counter", "step", "reason")}
    return None if model_id is None else {"model_id": model_id, **told, "t": t}


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
    return {
        "device": row["device"],
        "packs": row["packs"],
        "mode": row["mode"],
        "registered": when(row["registered_at"]),
        "last_seen": when(row["last_seen"]),
        "model": model_record(row),
        "desired": row["desired"],
    }
