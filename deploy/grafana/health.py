"""The dashboard of a battery's health over mileage, cycles and use."""

from __future__ import annotations

from panels import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    YELLOW,
    Json,
    dashboard,
    fixed,
    link,
    override,
    row,
    sql,
    stat,
    steps,
    table,
    variable,
    xy,
)  # fmt: skip
from queries import PACK, PACK_IDS


def board() -> Json:
    """Health of one pack, and of all beside each other."""
    return dashboard(
        "packtwin-health",
        "Battery health",
        "How the chosen pack ages over mileage, cycles and use, and how all packs stand beside each other.",
        [*_ageing(), row("What its use showed"), *_use(), row("All packs"), *_all()],
        since="now-2y",
        refresh="5m",
        variables=[variable("pack", "Pack", PACK_IDS)],
        links=[link("Fleet", "packtwin-fleet"), link("Pack", "packtwin-pack", pack=True)],
    )


def _over(x: str, title: str) -> list[Json]:
    """Targets: the BMS's state of health by day over the rollup's `x`, and the model's capacity over the same."""
    bms = sql(f"""
        SELECT {x} AS "{title}", 100 * soh_bms_avg AS "BMS" FROM samples_1d
        WHERE pack_key = {PACK} AND $__timeFilter(bucket) AND {x} IS NOT NULL AND soh_bms_avg IS NOT NULL
        ORDER BY bucket
        """)
    model = sql(f"""
        SELECT {x} AS "{title}", 100 * soh_capacity AS "model", 100 * soh_capacity_lo AS "at least",
               100 * soh_capacity_hi AS "at most"
        FROM samples_1d d CROSS JOIN LATERAL (
            SELECT soh_capacity, soh_capacity_lo, soh_capacity_hi FROM estimate e
            WHERE e.pack_key = d.pack_key AND e.t >= d.bucket AND e.t < d.bucket + interval '1 day'
            ORDER BY e.t DESC LIMIT 1
        ) AS told
        WHERE pack_key = {PACK} AND $__timeFilter(bucket) AND {x} IS NOT NULL AND soh_capacity IS NOT NULL
        ORDER BY bucket
        """)
    return [bms, model]


def _ageing() -> list[Json]:
    colors = [fixed("BMS", GREEN), fixed("model", BLUE), fixed("at least", ORANGE), fixed("at most", YELLOW)]
    span = sql(f"""
        SELECT max(odometer_km_max) AS "Mileage", max(cycles_max) AS "Cycles",
               100 * (array_agg(soh_bms_avg ORDER BY bucket) FILTER (WHERE soh_bms_avg IS NOT NULL))[1] AS "SoH, first",
               100 * (array_agg(soh_bms_avg ORDER BY bucket DESC) FILTER (WHERE soh_bms_avg IS NOT NULL))[1]
                   AS "SoH, last",
               1000 * (max(100 * soh_bms_avg) - min(100 * soh_bms_avg))
                   / nullif(max(odometer_km_max) - min(odometer_km_min), 0) AS "Loss per 1000 km",
               100 * (max(100 * soh_bms_avg) - min(100 * soh_bms_avg))
                   / nullif(max(cycles_max) - min(cycles_min), 0) AS "Loss per 100 cycles"
        FROM samples_1d WHERE pack_key = {PACK} AND $__timeFilter(bucket)
        """)
    return [
        stat("Ageing", "Over the time range, by days: where the pack stands, and the points of SoH that it lost.", span,
             size=(24, 4), decimals=1, unit="percent", thresholds=steps((None, BLUE)), noValue="not enough data yet",
             overrides=[override("Mileage", unit="lengthkm", decimals=0), override("Cycles", unit="short", decimals=0),
                        override("Loss per 1000 km", decimals=2), override("Loss per 100 cycles", decimals=2)]),
        xy("State of health over mileage", "By day. The BMS's claim, and the capacity that the model estimates.",
           *_over("odometer_km_max", "mileage"), unit="percent",
           overrides=[override("mileage", unit="lengthkm"), *colors]),
        xy("State of health over cycles", "By day, over equivalent full cycles.", *_over("cycles_max", "cycles"),
           unit="percent", overrides=[override("cycles", unit="short"), *colors]),
    ]  # fmt: skip


def _use() -> list[Json]:
    def over_cycles(title: str, description: str, columns: str, unit: str, color: str, name: str) -> Json:
        query = sql(f"""
            SELECT cycles, {columns} FROM session
            WHERE pack_key = {PACK} AND $__timeFilter(t) AND cycles IS NOT NULL ORDER BY t
            """)
        return xy(title, description, query, unit=unit, size=(8, 8),
                  overrides=[override("cycles", unit="short"), fixed(name, color)])  # fmt: skip

    sessions = sql("""
        SELECT t AS "until", duration_s AS lasted, cycles, 100 * soh_bms AS soh, window_ah AS "charge in the window",
               r_step_mohm AS resistance, r_step_max_mohm AS "worst cell's", cell_dev_mv AS "cells apart",
               temp_mean_c AS temperature, hot_h AS "hot for", simulated
        FROM sessions WHERE pack_id = ${pack:sqlstring} AND $__timeFilter(t)
        ORDER BY t DESC LIMIT 200
        """)
    return [
        over_cycles("Resistance", "To a step of current within 1 s, at 25 degC: mean of the cells and the worst cell.",
                    'r_step_mohm AS "mean", r_step_max_mohm AS "worst cell"', "suffix: mΩ", BLUE, "mean"),
        over_cycles("Charge in the window", "Charge taken between the chemistry's two fixed cell voltages.",
                    'window_ah AS "charge"', "suffix: Ah", GREEN, "charge"),
        over_cycles("Cells apart", "How far the worst cell is from the median of the pack, at rest.",
                    'cell_dev_mv AS "deviation"', "mvolt", ORANGE, "deviation"),
        table("Sessions", "The last 200 stretches of use in the time range; each ends with a charge.", sessions,
              size=(24, 8), decimals=1,
              overrides=[override("lasted", unit="s"), override("soh", unit="percent"),
                         override("charge in the window", unit="suffix: Ah"),
                         override("resistance", unit="suffix: mΩ", decimals=3),
                         override("worst cell's", unit="suffix: mΩ", decimals=3),
                         override("cells apart", unit="mvolt"), override("temperature", unit="celsius"),
                         override("hot for", unit="h")]),
    ]  # fmt: skip


def _all() -> list[Json]:
    last_day = """FROM pack_now n CROSS JOIN LATERAL (
                SELECT odometer_km_max, cycles_max FROM samples_1d d WHERE d.pack_key = n.pack_key
                ORDER BY bucket DESC LIMIT 1) AS day"""
    mileage = sql(f"""
        SELECT odometer_km_max AS mileage, 100 * soh AS "SoH" {last_day}
        WHERE odometer_km_max IS NOT NULL AND soh IS NOT NULL ORDER BY 1
        """)
    cycles = sql(f"""
        SELECT cycles_max AS cycles, 100 * soh AS "SoH" {last_day}
        WHERE cycles_max IS NOT NULL AND soh IS NOT NULL ORDER BY 1
        """)
    return [
        xy("All packs over mileage", "One point a pack: its state of health now.", mileage, unit="percent",
           overrides=[override("mileage", unit="lengthkm"), fixed("SoH", RED)]),
        xy("All packs over cycles", "One point a pack: its state of health now.", cycles, unit="percent",
           overrides=[override("cycles", unit="short"), fixed("SoH", RED)]),
    ]  # fmt: skip
