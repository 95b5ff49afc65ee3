"""The dashboard of all packs."""

from __future__ import annotations

from panels import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    STATUS,
    Json,
    bars,
    dashboard,
    fixed,
    link,
    override,
    row,
    sql,
    stat,
    steps,
    table,
    timeseries,
)  # fmt: skip
from queries import FLEET_MINUTES_UP_TO, MINUTES_UP_TO, SPAN, STEP

PACK_LINK = {
    "title": "Open the pack",
    "url": "/d/packtwin-pack?var-pack=${__value.text}",
}


def board() -> Json:
    """Fleet: how many packs are how, which need a look, and the fleet over time."""
    return dashboard(
        "packtwin-fleet",
        "Fleet",
        "All packs: how they are now, which need a look, and how the fleet was over time.",
        [
            *_counts(),
            _packs(),
            row("Over time"),
            *_over_time(),
            row("How the packs are spread"),
            *_spread(),
            *_events(),
        ],
        since="now-24h",
        links=[link("Models", "packtwin-models"), link("Pipeline", "packtwin-pipeline")],
    )


def _counts() -> list[Json]:
    def count(title: str, description: str, where: str, color: str) -> Json:
        query = sql(f'SELECT count(*) AS "packs" FROM latest_battery_status WHERE {where}')
        return stat(title, description, query, unit="short", thresholds=steps((None, GREEN), (1, color)))

    known = sql("""SELECT count(*) AS "packs" FROM pack""")
    heard = sql("""SELECT count(*) AS "packs" FROM latest_battery_status
        WHERE "timestamp" > now() - interval '5 minutes'""")
    standing = sql("""SELECT count(*) AS "events" FROM open_events""")
    return [
        stat("Packs", "Packs that the database knows.", known, unit="short", thresholds=steps((None, BLUE))),
        stat("Heard", "Packs with a sample in the last five minutes.", heard, unit="short",
             thresholds=steps((None, BLUE))),
        count("Good", "Packs whose readings are all in the good band.", "status = 'good'", GREEN),
        count("Warning", "Packs with a reading in the warning band, none critical.", "status = 'warning'", ORANGE),
        count("Critical", "Packs with a reading in the critical band.", "status = 'critical'", RED),
        stat("Open events", "Events that nobody has cleared.", standing, unit="short",
             thresholds=steps((None, GREEN), (1, ORANGE))),
    ]  # fmt: skip


def _packs() -> Json:
    query = sql("""
        SELECT s.battery_id, s.status, s.soc, s.soh, s.voltage, s.current, s.temperature,
               s.power_consumption AS power, s.charge_cycles AS cycles, s.rul_prediction AS "cycles left",
               s.failure_probability AS failure,
               CASE s.prediction_reason WHEN 'no_model' THEN 'no model yet'
                    ELSE replace(s.prediction_reason, '_', ' ') END AS "no prediction because",
               p.fleet, p.vehicle, s."timestamp" AS seen
        FROM latest_battery_status s JOIN pack p ON p.pack_id = s.battery_id
        ORDER BY array_position(ARRAY['critical', 'warning', 'good'], s.status), s.battery_id
        LIMIT 1000
        """)
    return table(
        "All packs",
        "Every pack as it is now, the worst first (at most 1000). Current > 0 discharges. A click opens the pack.",
        query,
        size=(24, 10),
        overrides=[
            override("battery_id", displayName="pack", links=[PACK_LINK]),
            override("status", mappings=STATUS, custom__cellOptions={"type": "color-text"}),
            override("soc", unit="percent", decimals=1),
            override("soh", unit="percent", decimals=1),
            override("voltage", unit="volt", decimals=1),
            override("current", unit="amp", decimals=1),
            override("temperature", unit="celsius", decimals=1),
            override("power", unit="watt", decimals=1),
            override("cycles", decimals=1),
            override("cycles left", decimals=0),
            override("failure", unit="percentunit", decimals=1),
            override("seen", unit="dateTimeFromNow"),
        ],
    )


def _fleet_series(columns: str) -> Json:
    """Rollups of all packs, summed or averaged over the packs of each minute or hour."""
    fine, coarse = f"{SPAN} <= {FLEET_MINUTES_UP_TO}", f"{SPAN} > {FLEET_MINUTES_UP_TO}"
    return sql(
        f"""SELECT bucket AS time, {columns}
        FROM (SELECT * FROM samples_1m WHERE $__timeFilter(bucket) AND {fine}
              UNION ALL
              SELECT * FROM samples_1h WHERE $__timeFilter(bucket) AND {coarse} AND {SPAN} <= {MINUTES_UP_TO}
              UNION ALL
              SELECT * FROM samples_1d WHERE $__timeFilter(bucket) AND {SPAN} > {MINUTES_UP_TO}) AS rolled
        GROUP BY 1 ORDER BY 1""",
        series=True,
    )


def _over_time() -> list[Json]:
    return [
        timeseries(
            "State of charge", "Mean over the packs, and the lowest and highest pack. Newest bucket: still filling.",
            _fleet_series('100 * avg(soc_bms_avg) AS "mean", 100 * min(soc_bms_min) AS "lowest", '
                          '100 * max(soc_bms_max) AS "highest"'),
            unit="percent", min=0, max=100,
            overrides=[fixed("mean", BLUE), fixed("lowest", ORANGE), fixed("highest", GREEN)],
        ),
        timeseries(
            "Power", "Sum over the packs of each one's mean: charging up, discharging down.",
            _fleet_series('sum(power_in_w_avg) AS "charging", -sum(power_out_w_avg) AS "discharging"'),
            unit="watt", overrides=[fixed("charging", GREEN), fixed("discharging", ORANGE)],
        ),
        timeseries(
            "Temperature", "The hottest and the coldest sensor of any pack.",
            _fleet_series('max(temp_max_c_max) AS "hottest", min(temp_min_c_min) AS "coldest"'),
            unit="celsius", thresholds=steps((None, BLUE), (20, GREEN), (40, ORANGE), (60, RED)),
            custom={"thresholdsStyle": {"mode": "area"}},
            overrides=[fixed("hottest", RED), fixed("coldest", BLUE)],
        ),
        timeseries(
            "Packs that sent", "Packs with at least one sample in each minute, hour or day of the chart.",
            _fleet_series('count(*) AS "packs"'), unit="short", min=0,
        ),
    ]  # fmt: skip


def _spread() -> list[Json]:
    health = sql("""
        SELECT bin * 5 || '-' || bin * 5 + 5 || ' %' AS health, count(*) AS packs
        FROM (SELECT least(floor(soh / 5), 19)::int AS bin FROM latest_battery_status WHERE soh IS NOT NULL) AS binned
        GROUP BY bin ORDER BY bin
        """)
    life = sql("""
        SELECT band AS "cycles left", count(*) AS packs
        FROM (SELECT CASE WHEN rul_prediction IS NULL THEN 'no prediction' WHEN rul_prediction < 100 THEN 'below 100'
                          WHEN rul_prediction <= 500 THEN '100 to 500' WHEN rul_prediction <= 1500 THEN '500 to 1500'
                          ELSE 'above 1500' END AS band,
                     coalesce(rul_prediction, 1e9) AS cycles
              FROM latest_battery_status) AS banded
        GROUP BY band ORDER BY min(cycles)
        """)
    return [
        bars("Packs by state of health", "How many packs have which state of health, in steps of 5 %.", health,
             x="health", unit="short"),
        bars("Packs by cycles left", "How many packs are predicted to have how many cycles left.", life,
             x="cycles left", unit="short"),
    ]  # fmt: skip


def _events() -> list[Json]:
    query = sql("""
        SELECT to_timestamp(coalesce(since_t_ns, t_ns) / 1e9) AS since, pack_id AS pack, severity,
               replace(code, '_', ' ') AS event, cell, value, threshold
        FROM open_events
        ORDER BY array_position(ARRAY['critical', 'warning', 'info'], severity), since DESC NULLS LAST
        LIMIT 200
        """)
    raised = sql(
        f"""SELECT date_bin(greatest({STEP}, interval '1 hour'), t, to_timestamp(0)) AS time,
               count(*) FILTER (WHERE severity = 'critical') AS "critical",
               count(*) FILTER (WHERE severity = 'warning') AS "warning",
               count(*) FILTER (WHERE severity = 'info') AS "info"
        FROM events_now WHERE $__timeFilter(t)
        GROUP BY 1 ORDER BY 1""",
        series=True,
    )
    return [
        table(
            "Events that are open", "What nobody has cleared, the worst first (at most 200), values as recorded.",
            query, size=(16, 8),
            overrides=[
                override("severity", mappings=STATUS, custom__cellOptions={"type": "color-text"}),
                override("pack", links=[PACK_LINK]),
            ],
        ),
        timeseries(
            "Events", "Events by the time of their last change, per hour or more.", raised, unit="short", min=0,
            size=(8, 8), custom={"drawStyle": "bars", "fillOpacity": 60},
            overrides=[fixed("critical", RED), fixed("warning", ORANGE), fixed("info", BLUE)],
        ),
    ]  # fmt: skip
