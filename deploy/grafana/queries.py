"""SQL that several panels share. Nothing of TimescaleDB's own: the same text answers on every kind of PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PACK: Final = "(SELECT pack_key FROM pack WHERE pack_id = ${pack:sqlstring})"
SPAN: Final = "($__timeTo()::timestamptz - $__timeFrom()::timestamptz)"
STEP: Final = "make_interval(secs => $__interval_ms / 1000.0)"
RAW_UP_TO: Final = "interval '6 hours'"
MINUTES_UP_TO: Final = "interval '14 days'"
FLEET_MINUTES_UP_TO: Final = "interval '2 hours'"  # a thousand packs within half a second
PACK_IDS: Final = "SELECT pack_id FROM pack ORDER BY pack_id"

RAW: Final = {
    "soc": ("soc_bms", "soc_bms", "soc_bms"),
    "soh": ("soh_bms", "soh_bms", "soh_bms"),
    "v": ("pack_v", "least(pack_v, pack_v_min)", "greatest(pack_v, pack_v_max)"),
    "a": ("current_a", "least(current_a, current_a_min)", "greatest(current_a, current_a_max)"),
    "hot": ("temp_max_c", "temp_max_c", "temp_max_c"),
    "cold": ("temp_min_c", "temp_min_c", "temp_min_c"),
    "w": ("pack_v * current_a",) * 3,
    "in_w": ("pack_v * greatest(current_a, 0)",) * 3,
    "out_w": ("pack_v * greatest(-current_a, 0)",) * 3,
    "spread": ("cell_max_v - cell_min_v",) * 3,
    "cell_hi": ("cell_max_v",) * 3,
    "cell_lo": ("cell_min_v",) * 3,
    "kmh": ("speed_kmh",) * 3,
    "ambient": ("ambient_c",) * 3,
}
"""Reading -> its mean, least and greatest in one row of `sample`."""
ROLLED: Final = {
    "soc": "soc_bms", "soh": "soh_bms", "v": "pack_v", "a": "current_a", "hot": "temp_max_c", "cold": "temp_min_c",
    "w": "power_w", "in_w": "power_in_w", "out_w": "power_out_w", "spread": "cell_spread_v",
    "cell_hi": "cell_max_v", "cell_lo": "cell_min_v", "kmh": "speed_kmh", "ambient": "ambient_c",
}  # fmt: skip
"""Reading -> its name in the rollups."""


def readings(*names: str) -> str:
    """Rows of the chosen pack in the time range: t, n, and <name>, <name>_lo, <name>_hi of each reading.

    From the samples for a few hours, else from minutes or hours; the planner drops the two that are not meant.
    """
    raw = [f"{RAW[n][0]} AS {n}, {RAW[n][1]} AS {n}_lo, {RAW[n][2]} AS {n}_hi" for n in names]
    rolled = [f"{ROLLED[n]}_avg, {ROLLED[n]}_min, {ROLLED[n]}_max" for n in names]
    return f"""SELECT t, 1 AS n, {", ".join(raw)} FROM sample
        WHERE pack_key = {PACK} AND $__timeFilter(t) AND {SPAN} <= {RAW_UP_TO}
        UNION ALL
        SELECT bucket, n, {", ".join(rolled)} FROM samples_1m
        WHERE pack_key = {PACK} AND $__timeFilter(bucket) AND {SPAN} > {RAW_UP_TO} AND {SPAN} <= {MINUTES_UP_TO}
        UNION ALL
        SELECT bucket, n, {", ".join(rolled)} FROM samples_1h
        WHERE pack_key = {PACK} AND $__timeFilter(bucket) AND {SPAN} > {MINUTES_UP_TO}"""


def trend(columns: Mapping[str, str], *names: str) -> str:
    """Steps of the panel's interval over `readings(*names)`: time, and each column by its expression of aggregates."""
    given = ", ".join(f'{expression} AS "{title}"' for title, expression in columns.items())
    return f"""SELECT date_bin({STEP}, t, to_timestamp(0)) AS time, {given}
        FROM ({readings(*names)}) AS readings
        GROUP BY 1 ORDER BY 1"""


def sampled(table: str, columns: str, steps: int) -> str:
    """The last row of the chosen pack in each of at most `steps` steps: time, columns. One look at the index a step."""
    return f"""SELECT step.until AS time, found.*
        FROM (SELECT at + width AS until, at AS since
              FROM (SELECT greatest({STEP}, {SPAN} / {steps}) AS width) AS w,
                   generate_series($__timeFrom()::timestamptz, $__timeTo()::timestamptz, width) AS at) AS step
        CROSS JOIN LATERAL (
            SELECT {columns} FROM {table}
            WHERE pack_key = {PACK} AND $__timeFilter(t) AND t > step.since AND t <= step.until ORDER BY t DESC LIMIT 1
        ) AS found
        ORDER BY 1"""
