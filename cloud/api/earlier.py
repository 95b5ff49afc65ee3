"""The earlier system's endpoints, with its names, percent and its sign: current > 0 discharges here."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from cloud.api.answers import ApiProblem, Json, Problem
from cloud.api.records import event_record, when
from cloud.api.state import State, state_of
from cloud.api.texts import band_text, words
from cloud.db import queries_earlier, queries_packs, queries_trend
from cloud.db.queries_packs import Row
from cloud.live import iso
from shared.bands import Band, Bands, worst
from shared.fields import STATES

router = APIRouter(tags=["earlier system"], default_response_class=Json)

MAX_HOURS: Final = 8760.0
POINTS: Final = 1000
MINUTE_NS: Final = 60 * 10**9
_IN_PERCENT: Final = ("soc_band", "soh_band")
"""Events whose value (0..1) these endpoints tell as they tell the reading."""
_ALWAYS: Final = 2**62
"""A width that holds all time in one step."""
_WRONG: Final[dict[int | str, dict[str, Any]]] = {404: {"model": Problem}, 422: {"model": Problem}}
BatteryId = Annotated[str | None, Query(description="Left out: the first pack by id.")]
Hours = Annotated[str, Query(description="0 < hours <= 8760")]


@router.get("/health", tags=["system"], responses={503: {"description": "The database is down."}})
async def health(request: Request) -> Response:
    """Whether uploads can be taken and questions answered; `models`: ids of the models whose answers hold now."""
    state = state_of(request)
    models: list[str] = []
    direct = state.config.bus == "direct"  # then the bus is a connection to the database
    database, reason = True, None
    try:
        models = await asyncio.to_thread(state.reader.ask, queries_packs.models_in_use)
        if direct and not state.bus.healthy:
            database, reason = False, "The ingest has no database connection yet."
    except ApiProblem as problem:
        database, reason = False, str(problem)
    bus = database if direct else state.bus.healthy
    if reason is None and not bus:
        reason = "Kafka is away; uploads wait at the devices."
    body: dict[str, Any] = {
        "status": "ok" if database and bus else "degraded",
        "database": "ok" if database else "down",
        "bus": "ok" if bus else "down",
        "models": models,
        "timestamp": when(datetime.now(UTC)),
    }
    return Json(body | ({"detail": reason} if reason else {}), 200 if database and bus else 503)


@router.get("/api/batteries/list")
def batteries(request: Request) -> Json:
    """All ids, ascending."""
    return Json(state_of(request).reader.ask(queries_earlier.pack_ids))


@router.get("/api/battery/latest", responses=_WRONG)
def latest(request: Request, battery_id: BatteryId = None) -> Json:
    """The newest readings of a pack."""
    state = state_of(request)
    pack_id = _pack(state, battery_id)["pack_id"]
    found = state.reader.ask(queries_earlier.statuses, pack_id)
    if not found:
        raise ApiProblem(404, f"Pack {pack_id} has sent no dated sample yet.")
    return Json(found[0] | {"timestamp": when(found[0]["timestamp"])})


@router.get("/api/battery/history", responses=_WRONG)
def history(request: Request, battery_id: BatteryId = None, hours: Hours = "1") -> Json:
    """The last hours as at most 1000 points, each as `latest`: every sample if there are so few, else means."""
    state = state_of(request)
    span = read_hours(hours)
    key = _pack(state, battery_id)
    since, until = _window(span)
    few = state.reader.ask(queries_trend.count_up_to, key["pack_key"], since, until, POINTS + 1) <= POINTS
    width_ns = 1 if few else step_ns(span)
    rollups = width_ns >= MINUTE_NS
    trend = state.reader.ask(queries_trend.fold, key["pack_key"], since, until, width_ns, rollups=rollups)
    told = state.reader.ask(queries_trend.predictions, key["pack_key"], [row["t_ns"] for row in trend], width_ns)
    pairs = zip(trend, told, strict=True)
    return Json([_point(key["pack_id"], *pair, state.config.bands) for pair in pairs][-POINTS:])


@router.get("/api/battery/predictions", responses=_WRONG)
def predictions(request: Request, battery_id: BatteryId = None) -> Json:
    """The newest prediction of a pack, with the model that made it; null with a reason when it tells none.

    `stale`: samples go on, but the newest prediction (made at `timestamp`) is too old to be one of the pack's state.
    """
    state = state_of(request)
    now = state.reader.ask(queries_packs.now, _pack(state, battery_id)["pack_id"])[0]
    body = {
        "battery_id": now["pack_id"],
        "rul_prediction": now["rul"],
        "rul_lo": None if now["stale"] else now["rul_cycles_lo"],
        "rul_hi": None if now["stale"] else now["rul_cycles_hi"],
        "failure_probability": now["failure"],
        "in_domain": None if now["stale"] else now["in_domain"],
        "model": now["model_id"],
        "model_sha256": now["model_sha256"],
        "timestamp": iso(now["e_t_ns"]),
        "reason": now["reason"],
    }
    return Json(body)


@router.get("/api/battery/stats", responses=_WRONG)
def stats(request: Request, battery_id: BatteryId = None, hours: Hours = "24") -> Json:
    """How many samples the last hours have, and the mean, least and most of their readings."""
    state = state_of(request)
    span = read_hours(hours)
    key = _pack(state, battery_id)
    since, until = _window(span)
    rollups = span > timedelta(hours=1)
    rows = state.reader.ask(queries_trend.fold, key["pack_key"], since, until, _ALWAYS, rollups=rollups)
    row = rows[0] if rows else {"n": 0}
    figures = {
        "soc": _figures(row, "soc_bms", 100),
        "soh": _figures(row, "soh_bms", 100),
        "voltage": _figures(row, "pack_v", 1),
        "current": _figures(row, "current_a", -1),
        "temperature": _figures(row, "temp_max_c", 1),
    }
    return Json({"battery_id": key["pack_id"], "count": row["n"]} | figures)


@router.get("/api/alerts")
def alerts(
    request: Request, lang: Annotated[str, Query(description="Language of `text`; English is there.")] = "en"
) -> Response:
    """What stands now: readings in a warning or critical band, open events, alarms of the BMS itself; worst first.

    A device that watches a band itself has judged it with more knowledge: its open event stands for the band's alert.
    """
    state = state_of(request)
    told = list(map(_event_alert, state.reader.ask(queries_earlier.open_events)))
    watched = {(alert["battery_id"], alert["code"]) for alert in told}
    bands = _band_alerts(state.reader.ask(queries_earlier.statuses), state.config.bands)
    found = [
        *(alert for alert in bands if (alert["battery_id"], alert["code"]) not in watched),
        *told,
        *(alert for row in state.reader.ask(queries_earlier.standing_alarms) for alert in _alarm_alerts(row)),
    ]
    rank = {"critical": 0, "warning": 1}
    found.sort(key=lambda alert: (rank.get(alert["severity"], 2), alert["battery_id"], alert["code"]))
    return Json(found, headers={"content-language": "en"})


def read_hours(text: str) -> timedelta:
    """0 < hours <= 8760; ApiProblem 422 otherwise."""
    try:
        hours = float(text)
    except ValueError:
        hours = math.nan
    if not 0 < hours <= MAX_HOURS:
        raise ApiProblem(422, f"hours: {text[:80]!r} is not a number > 0 and <= {MAX_HOURS:g}.")
    return timedelta(hours=hours)


def step_ns(span: timedelta) -> int:
    """The width of a step, whole seconds and from one minute on whole minutes, so that at most POINTS fill the span."""
    width_s = max(1, math.ceil(span.total_seconds() / (POINTS - 1)))
    return (width_s if width_s < 60 else 60 * math.ceil(width_s / 60)) * 10**9


def _point(pack_id: str, row: Row, prediction: Row, bands: Bands) -> dict[str, Any]:
    soc, soh = _scaled(row["soc_bms_avg"], 100), _scaled(row["soh_bms_avg"], 100)
    hottest_c, current_a = _scaled(row["temp_max_c_avg"], 1), row["current_a_avg"]
    rul, failure = prediction["rul"], prediction["failure"]
    statuses = (
        bands.soc.status(soc),
        bands.soh.status(soh),
        bands.temperature.status(hottest_c),
        bands.rul.status(rul),
        bands.failure.status(_scaled(failure, 100)),
    )
    return {
        "battery_id": pack_id,
        "timestamp": iso(row["t_ns"]),
        "soc": soc,
        "soh": soh,
        "voltage": _scaled(row["pack_v_avg"], 1),
        "current": _scaled(current_a, -1),
        "temperature": hottest_c,
        "charge_cycles": _scaled(row["cycles_avg"], 1),
        "power_consumption": _scaled(row["power_w_avg"], -1),
        "is_charging": _is_charging(row["state"], current_a),
        "status": worst(*statuses),
        "rul_prediction": rul,
        "failure_probability": failure,
        "prediction_reason": prediction["reason"],
    }


def _is_charging(state: int | None, current_a: float | None) -> bool | None:
    """By the pack's state where it tells one (regeneration is not charging), else by the sign of the current."""
    if state is not None:
        return STATES[state].startswith("charge")
    return None if current_a is None else current_a > 0


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else round(value * factor, 4) + 0.0  # + 0.0: no minus zero


def _figures(row: Row, name: str, factor: float) -> dict[str, float | None]:
    mean, low, high = (_scaled(row.get(f"{name}_{part}"), factor) for part in ("avg", "min", "max"))
    return {"avg": mean, "min": low, "max": high} if factor > 0 else {"avg": mean, "min": high, "max": low}


def _band_alerts(statuses: list[Row], bands: Bands) -> list[dict[str, Any]]:
    readings: tuple[tuple[str, str, Band, float], ...] = (
        ("soc_band", "soc", bands.soc, 1),
        ("soh_band", "soh", bands.soh, 1),
        ("temperature_band", "temperature", bands.temperature, 1),
        ("rul_band", "rul_prediction", bands.rul, 1),
        ("failure_probability_band", "failure_probability", bands.failure, 100),
    )
    found = []
    for row in statuses:
        for code, column, band, factor in readings:
            value = _scaled(row[column], factor)
            severity = band.status(value)
            if value is None or severity in (None, "good"):
                continue
            limit = band.critical if severity == "critical" else band.warning
            text = band_text(code, value, limit, severity, rising=band.rising)
            found.append(_alert(row["battery_id"], severity, code, text, when(row["timestamp"]), row[column]))
    return found


def _event_alert(row: Row) -> dict[str, Any]:
    event = event_record(row)
    value = _scaled(row["value"], 100) if row["code"] in _IN_PERCENT else row["value"]
    return _alert(row["pack_id"], row["severity"], row["code"], event["text"], event["since"], value)


def _alarm_alerts(row: Row) -> list[dict[str, Any]]:
    found = []
    for alarm in row["alarms"]:
        code, _, mild = alarm.partition(":")
        severity = "warning" if mild else "critical"
        found.append(_alert(row["pack_id"], severity, code, f"{words(code)} (BMS)", when(row["t"]), None))
    return found


def _alert(
    battery_id: str, severity: str | None, code: str, text: str, since: str | None, value: float | None
) -> dict[str, Any]:
    return {
        "battery_id": battery_id,
        "severity": severity,
        "code": code,
        "text": text,
        "since": since,
        "value": value,
    }


def _window(span: timedelta) -> tuple[datetime, datetime]:
    """The last `span`; its end leaves room for devices whose clock is ahead, as far as the ingest takes them."""
    now = datetime.now(UTC)
    return now - span, now + timedelta(hours=1)


def _pack(state: State, battery_id: str | None) -> Row:
    found = state.reader.ask(queries_earlier.find_pack, battery_id)
    if found is None:
        name = "There is no pack yet" if battery_id is None else f"No pack is called {battery_id[:80]!r}"
        raise ApiProblem(404, f"{name}; see /api/batteries/list.")
    return found
