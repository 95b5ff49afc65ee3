"""The dashboard of one pack."""

from __future__ import annotations

from typing import Final

from panels import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    STATUS,
    YELLOW,
    Json,
    bars,
    dashboard,
    fixed,
    gauge,
    heatmap,
    link,
    override,
    row,
    sql,
    stat,
    states,
    steps,
    table,
    timeseries,
    variable,
    xy,
)  # fmt: skip
from queries import PACK, PACK_IDS, readings, sampled, trend

NO_MODEL: Final = "no model yet"
NO_ANSWER: Final = f"{NO_MODEL}, or no answer: see Prediction"
NOW: Final = "FROM pack_now WHERE pack_id = ${pack:sqlstring}"
SOC_BANDS: Final = steps((None, RED), (20, ORANGE), (50, GREEN))
SOH_BANDS: Final = steps((None, RED), (75, ORANGE), (85, GREEN))
TEMPERATURE_BANDS: Final = steps((None, BLUE), (20, GREEN), (40, ORANGE), (60, RED))
RUL_BANDS: Final = steps((None, RED), (100, ORANGE), (500, GREEN))
FAILURE_BANDS: Final = steps((None, GREEN), (30, ORANGE), (60, RED))


def board() -> Json:
    """One pack: now, its readings over time, its cells, its health and what the model says, and its alerts."""
    return dashboard(
        "packtwin-pack",
        "Pack",
        "One pack: now, over time, cell by cell, its health, what the model says of it, and its alerts.",
        [
            *_now(), row("Prediction"), *_prediction(), row("Health"), *_health(), row("Over time"), *_over_time(),
            row("Cells"), *_cells(), row("Alerts"), *_alerts(),
        ],
        since="now-1h",
        refresh="10s",
        variables=[variable("pack", "Pack", PACK_IDS)],
        links=[link("Fleet", "packtwin-fleet"), link("Battery health", "packtwin-health", pack=True)],
    )  # fmt: skip


def _now() -> list[Json]:
    def one(title: str, description: str, value: str, **more: object) -> Json:
        return stat(title, description, sql(f'SELECT {value} AS "{title}" {NOW}'), size=(3, 4), **more)

    return [
        one("Status", "The worst band of all readings.", "(ARRAY['good', 'warning', 'critical'])[1 + band]",
            texts=True, mappings=STATUS, noValue="no sample yet"),
        one("SoC", "State of charge as the BMS claims.", "100 * soc_bms", unit="percent", decimals=1,
            thresholds=SOC_BANDS),
        one("SoH", "State of health: the BMS's, else the model's.", "100 * soh", unit="percent", decimals=1,
            thresholds=SOH_BANDS),
        one("Voltage", "Pack voltage.", "pack_v", unit="volt", decimals=1, thresholds=steps((None, BLUE))),
        one("Current", "Pack current, > 0 charges.", "current_a", unit="amp", decimals=1,
            thresholds=steps((None, BLUE))),
        one("Power now", "Voltage times current, > 0 charges.", "pack_v * current_a", unit="watt", decimals=1,
            thresholds=steps((None, BLUE))),
        one("Hottest", "The hottest battery sensor.", "temp_max_c", unit="celsius", decimals=1,
            thresholds=TEMPERATURE_BANDS),
        one("Seen", "When the newest sample was taken.", "t", unit="dateTimeFromNow", texts=True,
            noValue="no sample yet", thresholds=steps((None, BLUE))),
    ]  # fmt: skip


def _prediction() -> list[Json]:
    life = sql(f"""
        SELECT rul_cycles_lo AS "at least", rul_cycles AS "expected", rul_cycles_hi AS "at most"
        {NOW} AND NOT stale AND rul_cycles IS NOT NULL
        UNION ALL
        SELECT NULL, NULL, NULL {NOW} AND (stale OR rul_cycles IS NULL)
        """)
    failure = sql(f'SELECT 100 * failure AS "within 100 cycles" {NOW}')
    words = sql(f"""
        SELECT CASE reason WHEN 'no_model' THEN '{NO_MODEL}'
                           WHEN 'no_features' THEN 'no use of the pack has been seen to its end yet'
                           WHEN 'stale' THEN 'the last answer is too old'
                           ELSE coalesce(replace(reason, '_', ' '),
                                         CASE WHEN in_domain THEN 'as trained for'
                                              ELSE 'outside what it was trained on: take it with care' END) END
                   AS "Prediction",
               coalesce(model_id, '{NO_MODEL}') AS "Model"
        {NOW}
        """)
    told = sql(
        sampled("estimate", 'rul_cycles AS "expected", rul_cycles_lo AS "at least", rul_cycles_hi AS "at most"', 200),
        series=True,
    )
    return [
        gauge("Cycles left", "Equivalent full cycles until the end of life, and the interval that holds 9 of 10 packs.",
              life, size=(9, 7), unit="short", decimals=0, min=0, max=3000, thresholds=RUL_BANDS, noValue=NO_ANSWER),
        gauge("Failure probability", "Probability that the end of life comes within 100 equivalent full cycles.",
              failure, size=(4, 7), unit="percent", decimals=1, min=0, max=100, thresholds=FAILURE_BANDS,
              noValue=NO_ANSWER),
        stat("Prediction", "Which model answers, and why there is no answer where there is none.", words, size=(4, 7),
             texts=True, thresholds=steps((None, BLUE))),
        timeseries("Cycles left over time", "What the model said, with its interval.", told, unit="short",
                   size=(7, 7), min=0, noValue=NO_MODEL,
                   overrides=[
                       fixed("expected", BLUE),
                       override("at least", color={"mode": "fixed", "fixedColor": ORANGE},
                                custom__lineStyle={"fill": "dash", "dash": [6, 6]}),
                       override("at most", color={"mode": "fixed", "fixedColor": GREEN},
                                custom__lineStyle={"fill": "dash", "dash": [6, 6]}),
                   ]),
    ]  # fmt: skip


def _health() -> list[Json]:
    actual = sql(trend({"BMS": "100 * avg(soh)"}, "soh"), series=True)
    model = sql(
        sampled(
            "estimate",
            '100 * soh_capacity AS "model", 100 * soh_capacity_lo AS "model, at least", '
            '100 * soh_capacity_hi AS "model, at most"',
            200,
        ),
        series=True,
    )
    measured = sql(f"""
        SELECT cycles_max AS cycles, 100 * soh_bms_avg AS "actual" FROM samples_1d
        WHERE pack_key = {PACK} AND cycles_max IS NOT NULL AND soh_bms_avg IS NOT NULL ORDER BY bucket
        """)

    def path(column: str, name: str) -> Json:
        return sql(f"""
            SELECT cycles + step * life AS cycles, 100 * soh - step * (100 * soh - 80) AS "{name}"
            FROM (SELECT cycles, soh, {column} AS life {NOW} AND NOT stale AND {column} IS NOT NULL AND soh >= 0.8) n,
                 generate_series(0, 1) AS step
            """)

    return [
        timeseries("State of health: actual and predicted",
                   "The BMS's claim, and the capacity that the model estimates with its interval.", actual, model,
                   unit="percent", decimals=1, thresholds=SOH_BANDS, noValue=NO_MODEL,
                   overrides=[fixed("BMS", GREEN), fixed("model", BLUE), fixed("model, at least", ORANGE),
                              fixed("model, at most", YELLOW)]),
        xy("State of health to its end",
           "Actual by day, and a straight line to 80 % after the cycles that the model gives the pack.",
           measured, path("rul_cycles", "predicted"), path("rul_cycles_lo", "at the earliest"),
           path("rul_cycles_hi", "at the latest"), unit="percent", size=(12, 8), show="points+lines",
           noValue=NO_MODEL,
           overrides=[override("cycles", unit="short", displayName="equivalent full cycles"), fixed("actual", GREEN),
                      fixed("predicted", BLUE), fixed("at the earliest", ORANGE), fixed("at the latest", YELLOW)]),
    ]  # fmt: skip


def _over_time() -> list[Json]:
    def lines(title: str, description: str, columns: dict[str, str], *names: str, **more: object) -> Json:
        return timeseries(title, description, sql(trend(columns, *names), series=True), **more)  # type: ignore[arg-type]

    figures = {
        "State of charge": ("%", "100 * soc", "100 * soc_lo", "100 * soc_hi"),
        "State of health": ("%", "100 * soh", "100 * soh_lo", "100 * soh_hi"),
        "Voltage": ("V", "v", "v_lo", "v_hi"),
        "Current (> 0 charges)": ("A", "a", "a_lo", "a_hi"),
        "Hottest sensor": ("degC", "hot", "hot_lo", "hot_hi"),
        "Power (> 0 charges)": ("W", "w", "w_lo", "w_hi"),
    }
    folded = ", ".join(
        f"sum(({mean}) * n) / nullif(sum(n) FILTER (WHERE ({mean}) IS NOT NULL), 0) AS mean_{k}, "
        f"min({low}) AS least_{k}, max({high}) AS greatest_{k}"
        for k, (_, mean, low, high) in enumerate(figures.values())
    )
    told = ", ".join(
        f"({k}, '{name}', '{unit}', mean_{k}, least_{k}, greatest_{k}, (SELECT {mean} FROM newest))"
        for k, (name, (unit, mean, _, _)) in enumerate(figures.items())
    )
    statistics = sql(f"""
        WITH readings AS MATERIALIZED ({readings("soc", "soh", "v", "a", "hot", "w")}),
        newest AS MATERIALIZED (SELECT * FROM readings ORDER BY t DESC LIMIT 1),
        folded AS (SELECT {folded} FROM readings)
        SELECT reading, unit, mean, least, greatest, latest
        FROM folded, LATERAL (VALUES {told}) AS r (position, reading, unit, mean, least, greatest, latest)
        WHERE mean IS NOT NULL
        ORDER BY position
        """)
    return [
        lines("State of charge", "As the BMS claims.", {"SoC": "100 * avg(soc)"}, "soc", unit="percent", min=0, max=100,
              thresholds=SOC_BANDS, custom={"thresholdsStyle": {"mode": "line"}}),
        lines("Temperature", "Hottest and coldest sensor, over the bands cold, optimal, warning and critical.",
              {"hottest": "max(hot_hi)", "coldest": "min(cold_lo)", "ambient": "avg(ambient)"},
              "hot", "cold", "ambient", unit="celsius", thresholds=TEMPERATURE_BANDS,
              custom={"thresholdsStyle": {"mode": "area"}},
              overrides=[fixed("hottest", RED), fixed("coldest", BLUE), fixed("ambient", YELLOW)]),
        lines("Voltage and current", "Means of each step; current > 0 charges.",
              {"voltage": "avg(v)", "current": "avg(a)"}, "v", "a", unit="volt",
              overrides=[fixed("voltage", YELLOW),
                         override("current", unit="amp", custom__axisPlacement="right",
                                  color={"mode": "fixed", "fixedColor": BLUE})]),
        lines("Power", "Charging up, discharging down: means of each step.",
              {"charging": "avg(in_w)", "discharging": "-avg(out_w)"}, "in_w", "out_w", unit="watt",
              overrides=[fixed("charging", GREEN), fixed("discharging", ORANGE)]),
        table("Current statistics", "Mean, least, greatest and latest of the readings in the time range.", statistics,
              decimals=2),
        lines("Peaks of current", "Least and greatest current of each step, peaks within a sample included.",
              {"greatest": "max(a_hi)", "least": "min(a_lo)"}, "a", unit="amp",
              overrides=[fixed("greatest", GREEN), fixed("least", ORANGE)]),
        states("State", "What the vehicle was doing.",
               sql(sampled("sample", 'state_name(state) AS "state"', 200), series=False)),
    ]  # fmt: skip


def _cells() -> list[Json]:
    deviations = sql(
        f"""SELECT time, lpad((cell - 1)::text, 3, '0') AS metric,
               1000 * (cell_v - avg(cell_v) OVER (PARTITION BY time)) AS "deviation"
        FROM ({sampled("sample", "measured(cell_mv, 1000, cell_v) AS cells", 60)}) AS at,
             unnest(cells) WITH ORDINALITY AS u (cell_v, cell)
        ORDER BY 1, 2""",
        series=True,
    )
    newest = sql(f"""
        SELECT (cell - 1)::text AS cell, v AS "voltage"
        FROM (SELECT measured(cell_mv, 1000, cell_v) AS cells FROM sample
              WHERE pack_key = {PACK} AND t = (SELECT t FROM latest WHERE pack_key = {PACK}) LIMIT 1) AS newest,
             unnest(cells) WITH ORDINALITY AS u (v, cell)
        ORDER BY u.cell
        """)
    spread = sql(trend({"spread": "1000 * max(spread_hi)"}, "spread"), series=True)
    ends = sql(trend({"highest cell": "max(cell_hi_hi)", "lowest cell": "min(cell_lo_lo)"}, "cell_hi", "cell_lo"),
               series=True)  # fmt: skip
    return [
        heatmap("Cells", "How far each cell is from the mean of the pack, up to 30 mV; red is below. One that stays "
                "apart is worth a look.",
                deviations, unit="mvolt"),
        bars("Cells now", "Voltage of every cell in the newest sample, by position.", newest, x="cell", unit="volt",
             size=(24, 7), decimals=3),
        timeseries("Spread of the cells", "Highest minus lowest cell: the greatest of each step.", spread, unit="mvolt",
                   min=0),
        timeseries("Highest and lowest cell", "Of each step.", ends, unit="volt", decimals=3,
                   overrides=[fixed("highest cell", GREEN), fixed("lowest cell", ORANGE)]),
    ]  # fmt: skip


def _alerts() -> list[Json]:
    level = "(ARRAY['good', 'warning', 'critical'])[1 + level]"
    standing = sql(f"""
        SELECT {level} AS severity, reading || ' band' AS alert, value, threshold, since
        FROM (SELECT * {NOW}) AS n CROSS JOIN bands b CROSS JOIN LATERAL (VALUES
            ('state of charge', 100 * n.soc_bms, low_level(n.soc_bms * 100, b.soc_warning, b.soc_critical),
             b.soc_warning, n.t),
            ('state of health', 100 * n.soh, low_level(n.soh * 100, b.soh_warning, b.soh_critical), b.soh_warning, n.t),
            ('temperature', n.temp_max_c, high_level(n.temp_max_c, b.temperature_warning, b.temperature_critical),
             b.temperature_warning, n.t),
            ('cycles left', n.rul, low_level(n.rul, b.rul_warning, b.rul_critical), b.rul_warning, n.e_t),
            ('failure probability', 100 * n.failure,
             high_level(n.failure * 100, b.failure_warning, b.failure_critical), b.failure_warning, n.e_t)
        ) AS r (reading, value, level, threshold, since)
        WHERE level > 0
        UNION ALL
        SELECT severity, replace(code, '_', ' ') || coalesce(' cell ' || cell, ''), value, threshold,
               to_timestamp(coalesce(since_t_ns, t_ns) / 1e9)
        FROM open_events WHERE pack_id = ${{pack:sqlstring}}
        UNION ALL
        SELECT CASE WHEN alarm LIKE '%:warning' THEN 'warning' ELSE 'critical' END,
               'BMS: ' || replace(split_part(alarm, ':', 1), '_', ' '), NULL, NULL, s.t
        FROM latest l JOIN sample s ON s.pack_key = l.pack_key AND s.t = l.t, unnest(s.alarms) AS alarm
        WHERE l.pack_key = {PACK}
        ORDER BY 5 DESC NULLS LAST
        """)
    past = sql("""
        SELECT to_timestamp(coalesce(since_t_ns, t_ns) / 1e9) AS since, to_timestamp(cleared_t_ns / 1e9) AS cleared,
               severity, replace(code, '_', ' ') AS event, cell, value, threshold, confidence
        FROM events_now WHERE pack_id = ${pack:sqlstring}
        ORDER BY order_ns DESC LIMIT 100
        """)
    severity = override("severity", mappings=STATUS, custom__cellOptions={"type": "color-text"})
    return [
        table("Alerts", "What is so now: readings in a bad band, events that nobody cleared, alarms of the BMS.",
              standing, noValue="none", overrides=[severity]),
        table("Events", "The last 100 events of this pack, cleared ones too.", past, noValue="none",
              overrides=[severity]),
    ]  # fmt: skip
