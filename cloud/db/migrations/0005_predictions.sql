-- What is known of each pack right now, with its newest prediction.

-- A prediction answers for the samples around it; one that is older than this beside the newest sample answers no more.
CREATE FUNCTION prediction_holds() RETURNS interval IMMUTABLE PARALLEL SAFE
    RETURN interval '5 minutes';

-- 0 good, 1 warning, 2 critical; null for null. Simple enough to be part of the query that uses it: `band_of` reads the
-- table `band` for every value, which for thousands of packs takes longer than all the rest.
CREATE FUNCTION low_level(value float8, warning float8, critical float8) RETURNS int IMMUTABLE PARALLEL SAFE
    RETURN (value <= warning)::int + (value < critical)::int;
CREATE FUNCTION high_level(value float8, warning float8, critical float8) RETURNS int IMMUTABLE PARALLEL SAFE
    RETURN (value >= warning)::int + (value > critical)::int;

-- The bands of all readings in one row.
CREATE VIEW bands AS
SELECT max(warning) FILTER (WHERE reading = 'soc') AS soc_warning,
       max(critical) FILTER (WHERE reading = 'soc') AS soc_critical,
       max(warning) FILTER (WHERE reading = 'soh') AS soh_warning,
       max(critical) FILTER (WHERE reading = 'soh') AS soh_critical,
       max(warning) FILTER (WHERE reading = 'temperature') AS temperature_warning,
       max(critical) FILTER (WHERE reading = 'temperature') AS temperature_critical,
       max(warning) FILTER (WHERE reading = 'rul') AS rul_warning,
       max(critical) FILTER (WHERE reading = 'rul') AS rul_critical,
       max(warning) FILTER (WHERE reading = 'failure') AS failure_warning,
       max(critical) FILTER (WHERE reading = 'failure') AS failure_critical
FROM band;

-- Every pack with its newest readings (t null = no sample yet) and its newest estimate as the device told it (e_t null =
-- none yet), in the records' units. rul and failure are the prediction while it holds; `reason` = why there is no rul.
CREATE VIEW pack_now AS
SELECT p.pack_key, p.pack_id, l.t, l.pack_v, l.current_a, l.soc_bms, coalesce(l.soh_bms, e.soh_capacity) AS soh,
       l.cycles, l.cell_max_v - l.cell_min_v AS spread_v, l.temp_max_c, l.state,
       e.t AS e_t, e.t_ns AS e_t_ns, e.rul_cycles, e.rul_cycles_lo, e.rul_cycles_hi, e.p_eol_100,
       e.failure_probability, e.in_domain, e.model_id, e.model_sha256, e.reason AS e_reason, now.stale, now.rul,
       now.failure,
       CASE WHEN now.stale THEN 'stale' WHEN now.rul IS NULL THEN coalesce(e.reason, 'no_model') END AS reason,
       greatest(low_level(l.soc_bms * 100, b.soc_warning, b.soc_critical),
                low_level(coalesce(l.soh_bms, e.soh_capacity) * 100, b.soh_warning, b.soh_critical),
                high_level(l.temp_max_c, b.temperature_warning, b.temperature_critical),
                low_level(now.rul, b.rul_warning, b.rul_critical),
                high_level(now.failure * 100, b.failure_warning, b.failure_critical)) AS band
FROM bands b
CROSS JOIN pack p
LEFT JOIN latest l USING (pack_key)
LEFT JOIN LATERAL (
    SELECT * FROM estimate WHERE estimate.pack_key = p.pack_key AND estimate.t IS NOT NULL
    ORDER BY estimate.t DESC LIMIT 1
) e ON true
CROSS JOIN LATERAL (SELECT coalesce(e.t < l.t - prediction_holds(), false) AS stale) told
CROSS JOIN LATERAL (
    SELECT told.stale, CASE WHEN NOT told.stale THEN e.rul_cycles END AS rul,
           CASE WHEN NOT told.stale THEN e.failure_probability END AS failure
) now;

-- As GET /api/battery/latest: percent, current > 0 discharges.
CREATE OR REPLACE VIEW latest_battery_status AS
SELECT pack_id AS battery_id,
       t AS "timestamp",
       round((soc_bms * 100)::numeric, 4)::float8 AS soc,
       round((soh * 100)::numeric, 4)::float8 AS soh,
       pack_v AS voltage,
       0 - current_a AS current,
       temp_max_c AS temperature,
       cycles AS charge_cycles,
       0 - current_a * pack_v AS power_consumption,
       CASE WHEN state IN (3, 4) THEN true WHEN state IS NULL THEN current_a > 0 ELSE false END AS is_charging,
       (ARRAY['good', 'warning', 'critical'])[1 + band] AS status,
       rul AS rul_prediction,
       failure AS failure_probability,
       reason AS prediction_reason
FROM pack_now
WHERE t IS NOT NULL;

-- Each event once, as it stands now, whatever the order in which its records come: a cleared one beats an open one, else
-- the later one counts. Kept by a trigger, so that nobody who lists events has to go through all that ever were.
CREATE TABLE event_now (LIKE event, PRIMARY KEY (device_key, id));
CREATE INDEX event_now_of_pack ON event_now (pack_key, coalesce(since_t_ns, t_ns, -1) DESC);
CREATE INDEX event_now_by_time ON event_now (coalesce(since_t_ns, t_ns, -1) DESC);
CREATE INDEX event_now_open ON event_now (pack_key) WHERE cleared_t_ns IS NULL;

CREATE FUNCTION keep_event_now() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO event_now SELECT new.*
    ON CONFLICT (device_key, id) DO UPDATE SET
        (boot, seq, mono_ns, t_ns, t, pack_key, code, severity, cell, value, threshold, reference, since_t_ns,
         cleared_t_ns, confidence) =
        (excluded.boot, excluded.seq, excluded.mono_ns, excluded.t_ns, excluded.t, excluded.pack_key, excluded.code,
         excluded.severity, excluded.cell, excluded.value, excluded.threshold, excluded.reference,
         excluded.since_t_ns, excluded.cleared_t_ns, excluded.confidence)
    WHERE (excluded.cleared_t_ns IS NOT NULL, coalesce(excluded.t_ns, -1), excluded.seq)
          > (event_now.cleared_t_ns IS NOT NULL, coalesce(event_now.t_ns, -1), event_now.seq);
    RETURN NULL;
END $$;
CREATE TRIGGER event_now AFTER INSERT ON event FOR EACH ROW EXECUTE FUNCTION keep_event_now();
INSERT INTO event_now
SELECT DISTINCT ON (device_key, id) * FROM event
ORDER BY device_key, id, (cleared_t_ns IS NULL), t_ns DESC NULLS LAST, seq DESC;

CREATE VIEW events_now AS
SELECT d.device, boot_hex(e.boot) AS boot, e.seq, e.t, p.pack_id, e.mono_ns, e.t_ns, e.id, e.code, e.severity, e.cell,
       e.value, e.threshold, e.reference, e.since_t_ns, e.cleared_t_ns, e.confidence,
       coalesce(e.since_t_ns, e.t_ns, -1) AS order_ns
FROM event_now e JOIN device d ON d.device_key = e.device_key JOIN pack p ON p.pack_key = e.pack_key;

CREATE OR REPLACE VIEW open_events AS
SELECT device, boot, seq, t, pack_id, mono_ns, t_ns, id, code, severity, cell, value, threshold, reference, since_t_ns,
       cleared_t_ns, confidence
FROM events_now WHERE cleared_t_ns IS NULL;
