"""The dashboard of the models: how right they were, what was published, and what became of it on the devices."""

from __future__ import annotations

from typing import Final

from panels import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    YELLOW,
    Json,
    bars,
    dashboard,
    fixed,
    link,
    override,
    prom,
    row,
    sql,
    stat,
    steps,
    table,
    timeseries,
    xy,
)  # fmt: skip

JUDGED: Final = """
    SELECT e.pack_key, s.cycles, told.value - s.cycles AS true_left, e.rul_cycles, e.rul_cycles_lo, e.rul_cycles_hi,
           e.failure_probability, e.model_id, e.in_domain
    FROM (SELECT DISTINCT ON (pack_key) pack_key, value FROM event_now
          WHERE code = 'end_of_life' AND value > 0 ORDER BY pack_key, t_ns DESC NULLS LAST) AS told
    JOIN session s ON s.pack_key = told.pack_key AND s.cycles < told.value AND $__timeFilter(s.t)
    CROSS JOIN LATERAL (
        SELECT * FROM estimate e
        WHERE e.pack_key = s.pack_key AND e.t >= s.t AND e.t < s.t + interval '1 day' AND e.rul_cycles IS NOT NULL
        ORDER BY e.t LIMIT 1
    ) AS e"""
"""Packs whose end is known: after each Session what the model said first, and what was true."""
LAST_REPORT: Final = """
    SELECT DISTINCT ON (device) device, model_id, counter, step, reason, t FROM reports
    ORDER BY device, t DESC NULLS LAST, seq DESC"""
STEPS: Final = ("proven", "activated", "probed", "verified", "fetched", "seen", "refused", "rolled_back")


def board() -> Json:
    """Models: accuracy where the truth is known, what predictions do while it is not, releases, devices."""
    return dashboard(
        "packtwin-models",
        "Models",
        "How right the models were where the end of a pack is known, what was trained and published, and what became "
        "of it on the devices.",
        [*_accuracy(), row("Predictions"), *_predictions(), row("Retraining and releases"), *_releases()],
        since="now-1y",
        refresh="1m",
        links=[link("Fleet", "packtwin-fleet"), link("Pipeline", "packtwin-pipeline")],
    )


def _accuracy() -> list[Json]:
    numbers = sql(f"""
        SELECT count(DISTINCT pack_key) AS "Packs whose end is known",
               avg(abs(rul_cycles - true_left)) AS "Mean error",
               avg(rul_cycles - true_left) AS "Bias",
               avg((true_left BETWEEN rul_cycles_lo AND rul_cycles_hi)::int) AS "In the interval"
        FROM ({JUDGED}) AS judged
        """)
    points = sql(f"""
        SELECT true_left AS "true cycles left", rul_cycles AS "predicted" FROM ({JUDGED}) AS judged
        ORDER BY 1 LIMIT 5000
        """)
    ideal = sql(f"""
        SELECT x AS "true cycles left", x AS "right"
        FROM (SELECT max(true_left) AS most FROM ({JUDGED}) AS judged) AS m, unnest(ARRAY[0, most]) AS x
        WHERE most IS NOT NULL
        """)
    by_model = sql(f"""
        SELECT model_id AS model, count(*) AS answers, count(DISTINCT pack_key) AS packs,
               avg(abs(rul_cycles - true_left)) AS "mean error", avg(rul_cycles - true_left) AS bias,
               avg((true_left BETWEEN rul_cycles_lo AND rul_cycles_hi)::int) AS "in the interval",
               avg(power(failure_probability - (true_left <= 100)::int, 2)) AS "Brier score",
               avg(in_domain::int) AS "in its domain"
        FROM ({JUDGED}) AS judged GROUP BY model_id ORDER BY model_id
        """)
    by_life = sql(f"""
        SELECT bin * 200 || '-' || bin * 200 + 200 AS "true cycles left",
               avg(abs(rul_cycles - true_left)) AS "mean error"
        FROM (SELECT *, floor(true_left / 200)::int AS bin FROM ({JUDGED}) AS judged) AS binned
        GROUP BY bin ORDER BY bin
        """)
    return [
        stat("Accuracy", "All answers after a session of packs whose end is known. The interval is meant to hold 0.9.",
             numbers, size=(24, 4), decimals=0, thresholds=steps((None, BLUE)), noValue="no end is known yet",
             overrides=[override("Mean error", unit="suffix: cycles"), override("Bias", unit="suffix: cycles"),
                        override("In the interval", unit="percentunit", decimals=1)]),
        xy("Predicted and true life", "One point for each session of a pack whose end is known; on the line is right.",
           points, ideal, unit="short", show="points", noValue="no end is known yet",
           overrides=[override("right", color={"mode": "fixed", "fixedColor": GREEN}, custom__show="lines"),
                      fixed("predicted", BLUE)]),
        bars("Error by how far the end is", "Mean error of the answers, by the cycles that were truly left.", by_life,
             x="true cycles left", unit="suffix: cycles", size=(12, 9), decimals=0, noValue="no end is known yet"),
        table("By model", "Each model's answers where the truth is known. Brier score: 0 is best, 0.25 says nothing.",
              by_model, size=(24, 6), decimals=1, noValue="no end is known yet",
              overrides=[override("in the interval", unit="percentunit"),
                         override("in its domain", unit="percentunit"), override("Brier score", decimals=3)]),
    ]  # fmt: skip


def _predictions() -> list[Json]:
    now = sql("""
        SELECT CASE WHEN rul IS NOT NULL THEN model_id WHEN reason = 'no_model' THEN 'no model yet'
                    ELSE replace(reason, '_', ' ') END AS answer, count(*) AS packs
        FROM pack_now GROUP BY 1 ORDER BY 2 DESC, 1
        """)
    total = sql(
        """
        SELECT at AS time,
               percentile_cont(0.1) WITHIN GROUP (ORDER BY told.rul_cycles + d.cycles_max) AS "1 of 10 below",
               percentile_cont(0.5) WITHIN GROUP (ORDER BY told.rul_cycles + d.cycles_max) AS "median",
               percentile_cont(0.9) WITHIN GROUP (ORDER BY told.rul_cycles + d.cycles_max) AS "1 of 10 above"
        FROM (
            SELECT at, p.pack_key, e.t, e.rul_cycles
            FROM generate_series($__timeFrom()::timestamptz, $__timeTo()::timestamptz,
                                 ($__timeTo()::timestamptz - $__timeFrom()::timestamptz) / 12) AS at
            CROSS JOIN (SELECT pack_key FROM pack ORDER BY pack_key LIMIT 500) AS p
            CROSS JOIN LATERAL (SELECT t, rul_cycles FROM estimate e WHERE e.pack_key = p.pack_key AND e.t <= at
                                ORDER BY e.t DESC LIMIT 1) AS e
        ) AS told
        JOIN samples_1d d ON d.pack_key = told.pack_key AND d.bucket = date_bin('1 day', told.t, to_timestamp(0))
        WHERE told.rul_cycles + d.cycles_max IS NOT NULL
        GROUP BY at ORDER BY 1
        """,
        series=True,
    )
    rate = prom('sum by (battery_id) (increase(battery_predictions_total{job!="agent"}[1h]))', "{{battery_id}}")
    return [
        bars("Who answers now", "Packs by the model whose answer holds, or by why there is none.", now, x="answer",
             unit="short", size=(8, 8)),
        timeseries("Predicted whole life", "Cycles driven plus cycles predicted, over the first 500 packs: a model "
                   "that is right keeps this level while the packs age.", total, unit="suffix: cycles", size=(8, 8),
                   noValue="no model yet",
                   overrides=[fixed("median", BLUE), fixed("1 of 10 below", ORANGE), fixed("1 of 10 above", GREEN)]),
        timeseries("Predictions an hour", "New predictions that reached the database, by pack.", rate, unit="short",
                   size=(8, 8), min=0),
    ]  # fmt: skip


def _releases() -> list[Json]:
    published = sql("""
        SELECT a.assigned_at AS published, a.bundle, a.counter, coalesce(d.device, 'fleet') AS "for",
               r.bundle AS "again as", left(a.sha256, 12) AS sha256
        FROM assignment a LEFT JOIN device d USING (device_key) LEFT JOIN assignment r ON r.assignment_key = a.revives
        ORDER BY a.assignment_key DESC LIMIT 100
        """)
    on_devices = sql(f"SELECT step, count(*) AS devices FROM ({LAST_REPORT}) AS last GROUP BY step ORDER BY step")
    devices = sql(f"""
        SELECT device, model_id AS model, step, reason, t AS at FROM ({LAST_REPORT}) AS last
        ORDER BY array_position(ARRAY['refused', 'rolled_back'], step) NULLS LAST, device LIMIT 500
        """)
    counts = ", ".join(f"count(*) FILTER (WHERE step = '{step}') AS {step}" for step in STEPS)
    over_time = sql(
        f"""
        SELECT date_bin('1 day', t, to_timestamp(0)) AS time, {counts}
        FROM reports WHERE $__timeFilter(t)
        GROUP BY 1 ORDER BY 1
        """,
        series=True,
    )
    refusals = sql("""
        SELECT t AS at, device, model_id AS model, counter, step, reason FROM reports
        WHERE step IN ('refused', 'rolled_back') AND $__timeFilter(t)
        ORDER BY t DESC LIMIT 100
        """)
    costs = sql("""
        SELECT model_id AS model, step, count(*) AS reports, avg((numbers->>'seconds')::float8) AS "seconds",
               avg((numbers->>'bytes')::float8) AS "size", avg((numbers->>'received_bytes')::float8) AS "received",
               avg((numbers->>'requests')::float8) AS "requests"
        FROM reports WHERE $__timeFilter(t) AND step IN ('fetched', 'probed')
        GROUP BY model_id, step ORDER BY model_id, step
        """)
    return [
        table("Published models", "What the fleet, or a device, was told to run, newest first; each retraining that "
              "was good enough is one.", published, overrides=[override("published", unit="dateTimeFromNow")]),
        bars("Where the devices stand", "Devices by the last step that they reported.", on_devices, x="step",
             unit="short"),
        timeseries("Steps over time", "Reports of the devices by day and step.", over_time, unit="short", min=0,
                   custom={"drawStyle": "bars", "fillOpacity": 60, "stacking": {"mode": "normal", "group": "A"}},
                   overrides=[fixed("proven", GREEN), fixed("refused", RED), fixed("rolled_back", ORANGE),
                              fixed("activated", YELLOW)]),
        table("Devices", "Each device's last report, trouble first (at most 500).", devices,
              overrides=[override("at", unit="dateTimeFromNow")]),
        table("Refused and rolled back", "The last 100 in the time range, with the reason.", refusals, noValue="none"),
        table("Cost of an update", "Means over the reports of fetching and probing.", costs,
              overrides=[override("seconds", unit="s", decimals=2), override("size", unit="bytes"),
                         override("received", unit="bytes"), override("requests", decimals=1)]),
    ]  # fmt: skip
