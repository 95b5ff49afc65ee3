"""The dashboard of the road that records take: agent, broker, ingest, database, API."""

from __future__ import annotations

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
)  # fmt: skip

UP_OR_DOWN = [
    {
        "type": "value",
        "options": {"0": {"text": "down", "color": RED, "index": 0}, "1": {"text": "up", "color": GREEN, "index": 1}},
    }
]


def board() -> Json:
    """Pipeline: what runs, what flows, what waits, what was refused."""
    return dashboard(
        "packtwin-pipeline",
        "Pipeline",
        "The road of the records: what runs, how much flows, what waits, what was refused, lost or late.",
        [
            *_state(), row("Into the database"), *_ingest(), row("API"), *_api(), row("Gateway"), *_gateway(),
            row("Devices"), *_agents(), row("What the database says"), *_database(),
        ],
        since="now-1h",
        refresh="10s",
        links=[link("Fleet", "packtwin-fleet"), link("Models", "packtwin-models")],
    )  # fmt: skip


def _state() -> list[Json]:
    firing = prom('count by (alertname, severity) (ALERTS{alertstate="firing"}) or vector(0)', instant=True)
    return [
        stat("Services", "Whether Prometheus could ask each process a moment ago.",
             prom('up{job=~"api|ingest|gateway|agent"}', "{{job}} {{instance}}"), size=(12, 5),
             mappings=UP_OR_DOWN, thresholds=steps((None, RED), (1, GREEN))),
        table("Firing alerts", "Alerts of deploy/prometheus/rules that fire now; a lone 0 = none.", firing,
              size=(12, 5)),
    ]  # fmt: skip


def _ingest() -> list[Json]:
    return [
        timeseries("Records a second", "Records answered by the API, by what became of them.",
                   prom("sum by (outcome) (rate(packtwin_ingest_records_total[1m]))", "{{outcome}}"),
                   unit="cps", min=0),
        timeseries("Rows committed a second", "By the ingest process: new rows, duplicates that changed nothing, and "
                   "what was rejected.",
                   prom("sum(packtwin:ingest_rows:rate1m)", "new"),
                   prom("sum(rate(packtwin_ingest_duplicates_total[1m]))", "duplicates"),
                   prom("sum(rate(packtwin_ingest_rejected_total[1m]))", "rejected"),
                   unit="cps", min=0,
                   overrides=[fixed("new", GREEN), fixed("duplicates", BLUE), fixed("rejected", RED)]),
        timeseries("Lag", "How old the oldest message is that waits in Kafka for the ingest.",
                   prom("max(packtwin_ingest_lag_seconds)", "seconds"), unit="s", min=0, size=(8, 7)),
        timeseries("Messages that wait", "Messages in Kafka that the ingest has not committed.",
                   prom("sum(packtwin_ingest_lag_messages)", "messages"), unit="short", min=0, size=(8, 7)),
        timeseries("Time of a transaction", "Mean over the last minute; many Batches share one.",
                   prom("packtwin:ingest_transaction_seconds:mean1m", "{{job}}"), unit="s", min=0, size=(8, 7)),
        stat("Database", "Whether the ingest reaches the database.",
             prom("min(packtwin_ingest_database_up)", "database"), size=(8, 5), mappings=UP_OR_DOWN,
             thresholds=steps((None, RED), (1, GREEN))),
        timeseries("Batches and transactions a second", "Batches taken, and the commits of the ingest process.",
                   prom("sum by (job) (rate(packtwin_ingest_batches_total[1m]))", "batches, {{job}}"),
                   prom("sum by (job) (rate(packtwin_ingest_transactions_total[1m]))", "transactions, {{job}}"),
                   unit="cps", min=0, size=(8, 5)),
        stat("Dead letters", "Messages that could not be understood, since the ingest started: see `cloud deadletter`.",
             prom("sum(packtwin_dead_letters_total)", "dead letters"), size=(8, 5), unit="short",
             thresholds=steps((None, GREEN), (1, RED))),
    ]  # fmt: skip


def _api() -> list[Json]:
    return [
        timeseries("Time until an answer begins", "Median, 95 and 99 of 100 requests, over five minutes.",
                   *(prom(f"packtwin:http_request_seconds:p{q}_5m", f"p{q}") for q in (50, 95, 99)), unit="s", min=0),
        timeseries("Requests a second", "By status.",
                   prom("sum by (status) (rate(packtwin_http_request_seconds_count[1m]))", "{{status}}"),
                   unit="reqps", min=0),
        timeseries("Uploads refused", "Uploads that were not taken as a whole, a minute, by reason.",
                   prom("sum by (reason) (increase(packtwin_uploads_refused_total[1m]))", "{{reason}}"),
                   unit="short", min=0),
        timeseries("Live readers", "Open live streams of the page.", prom("sum(packtwin_live_readers)", "readers"),
                   unit="short", min=0),
    ]  # fmt: skip


def _gateway() -> list[Json]:
    return [
        stat("MQTT broker", "Whether the gateway is connected to the broker.",
             prom("min(packtwin_gateway_connected)", "connected"), size=(4, 7), mappings=UP_OR_DOWN,
             thresholds=steps((None, RED), (1, GREEN))),
        timeseries("Messages a second", "Messages from devices, Receipts sent back, messages refused.",
                   prom("sum(rate(packtwin_gateway_messages_total[1m]))", "messages"),
                   prom("sum(rate(packtwin_gateway_receipts_total[1m]))", "receipts"),
                   prom("sum(rate(packtwin_gateway_refused_total[1m]))", "refused"), unit="cps", min=0, size=(12, 7),
                   overrides=[fixed("messages", GREEN), fixed("receipts", BLUE), fixed("refused", RED)]),
        timeseries("In flight", "Messages taken from the broker that the bus has not acknowledged yet.",
                   prom("sum(packtwin_gateway_inflight)", "in flight"), unit="short", min=0, size=(8, 7)),
    ]  # fmt: skip


def _agents() -> list[Json]:
    return [
        timeseries("Samples that wait", "Samples in the outbox that the cloud has not acknowledged.",
                   prom("packtwin_samples_pending", "{{instance}}"), unit="short", min=0, size=(8, 7)),
        timeseries("Oldest record that waits", "Its age, by agent.",
                   prom("packtwin_outbox_oldest_age_seconds", "{{instance}}"), unit="s", min=0, size=(8, 7),
                   noValue="none waits"),
        timeseries("Samples acquired and acknowledged", "A second, over all agents that are scraped.",
                   prom("sum(packtwin:samples_acquired:rate1m)", "acquired"),
                   prom("sum(packtwin:samples_acked:rate1m)", "acknowledged"), unit="cps", min=0, size=(8, 7)),
        stat("Samples given up", "Evicted from a full outbox, lost to power cuts, refused by the cloud, rejected.",
             prom("sum(packtwin_samples_evicted)", "evicted"), prom("sum(packtwin_samples_lost)", "lost"),
             prom("sum(packtwin_samples_refused)", "refused"), prom("sum(packtwin_samples_rejected)", "rejected"),
             size=(12, 5), unit="short", thresholds=steps((None, GREEN), (1, ORANGE))),
        stat("Agents", "Uplinks that are connected, models that run, buses that can be read, clocks that are trusted.",
             prom("sum(packtwin_uplink_connected)", "uplinks"), prom("sum(packtwin_inference_up)", "models"),
             prom("sum(packtwin_source_up)", "buses"), prom("sum(packtwin_clock_trusted)", "clocks"), size=(12, 5),
             unit="short", thresholds=steps((None, RED), (1, GREEN))),
        timeseries("Uplink traffic", "Bytes of batches, by agent.",
                   prom("rate(packtwin_uplink_sent_bytes_total[1m])", "{{instance}}"), unit="Bps", min=0, size=(8, 7)),
        timeseries("Uplink latency", "From a request to its answer, by agent.",
                   prom("packtwin_uplink_latency_seconds", "{{instance}}"), unit="s", min=0, size=(8, 7)),
        timeseries("Uplink failures", "A minute, by agent.",
                   prom("increase(packtwin_uplink_failures_total[1m])", "{{instance}}"), unit="short", min=0,
                   size=(8, 7)),
        timeseries("Frames a second", "CAN frames read, by pack.",
                   prom("rate(packtwin_frames_total[1m])", "{{battery_id}}"), unit="cps", min=0, size=(8, 7)),
        timeseries("Frames not understood", "A minute, by pack and reason.",
                   prom("increase(packtwin_decode_errors_total[1m])", "{{battery_id}} {{reason}}"), unit="short", min=0,
                   size=(8, 7), noValue="none"),
        timeseries("Outbox", "Bytes, by agent and file.",
                   prom("packtwin_outbox_bytes", "{{instance}} {{file}}"), unit="bytes", min=0, size=(8, 7)),
    ]  # fmt: skip


def _database() -> list[Json]:
    devices = sql("""
        SELECT d.device, max(r.last_received_at) AS heard, count(*) AS starts,
               (SELECT count(*) FROM pack p WHERE p.device_key = d.device_key) AS packs, d.mode AS "wished mode"
        FROM device d LEFT JOIN received r USING (device_key)
        GROUP BY d.device_key, d.device, d.mode ORDER BY heard NULLS FIRST LIMIT 500
        """)
    samples = sql(
        """
        SELECT bucket AS time, sum(n) AS "samples" FROM samples_1h
        WHERE bucket >= $__timeTo()::timestamptz - interval '2 days' AND bucket <= $__timeTo()::timestamptz
        GROUP BY 1 ORDER BY 1
        """,
        series=True,
    )
    rejects = sql("""
        SELECT reason, sum(last_seq - first_seq + 1)::int8 AS records FROM reject
        WHERE received_at > $__timeTo()::timestamptz - interval '30 days' GROUP BY 1 ORDER BY 2 DESC
        """)
    gaps = sql("SELECT cause, sum(last_seq - first_seq + 1)::int8 AS records FROM gaps GROUP BY 1 ORDER BY 2 DESC")
    late = sql("""
        SELECT coalesce(extract(epoch FROM now() - (SELECT min(created_at) FROM rollup_todo)), 0) AS "rollups behind",
               pg_database_size(current_database()) AS "database"
        """)
    return [
        table("Devices by silence", "Every device, the one not heard for longest first (at most 500).", devices,
              overrides=[override("heard", unit="dateTimeFromNow")]),
        timeseries("Samples an hour", "Stored samples by the hour in which they were taken, the last two days.",
                   samples, unit="short", min=0, custom={"drawStyle": "bars", "fillOpacity": 60},
                   overrides=[fixed("samples", BLUE)]),
        bars("Records refused", "In the last 30 days, by reason.", rejects, x="reason", unit="short", size=(8, 7),
             overrides=[fixed("records", RED)], noValue="none"),
        bars("Records lost for good", "Gaps that the devices told, by cause, without what arrived after all.", gaps,
             x="cause", unit="short", size=(8, 7), overrides=[fixed("records", YELLOW)], noValue="none"),
        stat("Database size and rollups", "How far the rollups are behind, and how large the database is.", late,
             size=(8, 7),
             thresholds=steps((None, BLUE)),
             overrides=[override("rollups behind", unit="s", thresholds=steps((None, GREEN), (120, ORANGE))),
                        override("database", unit="bytes")]),
    ]  # fmt: skip
