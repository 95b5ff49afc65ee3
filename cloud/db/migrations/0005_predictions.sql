-- What is known of each pack right now, with its newest prediction.

-- A prediction answers for the samples around it; one that is older than this beside the newest sample answers no more.
CREATE FUNCTION prediction_holds() RETURNS interval IMMUTABLE PARALLEL SAFE
    RETURN interval '5 minutes';

-- 0 good, 1 warning, 2 critical: the worst of five readings in percent, degC and cycles; null = none of them is known.
CREATE FUNCTION worst_band(soc float8, soh float8, temperature float8, rul float8, failure float8) RETURNS int
    STABLE PARALLEL SAFE
    RETURN (SELECT max(CASE WHEN b.rising THEN (v.value >= b.warning)::int + (v.value > b.critical)::int
                            ELSE (v.value <= b.warning)::int + (v.value < b.critical)::int END)
            FROM band b
            JOIN (VALUES ('soc', soc), ('soh', soh), ('temperature', temperature), ('rul', rul), ('failure', failure))
                 AS v (reading, value) ON v.reading = b.reading
            WHERE v.value IS NOT NULL);

-- Every pack with its newest readings (t null = no sample yet) and its newest estimate as the device told it (e_t null =
-- none yet), in the records' units. rul and failure are the prediction while it holds; `reason` = why there is no rul.
CREATE VIEW pack_now AS
SELECT p.pack_key, p.pack_id, l.t, l.pack_v, l.current_a, l.soc_bms, coalesce(l.soh_bms, e.soh_capacity) AS soh,
       l.cycles, l.cell_max_v - l.cell_min_v AS spread_v, l.temp_max_c, l.state,
       e.t AS e_t, e.t_ns AS e_t_ns, e.rul_cycles, e.rul_cycles_lo, e.rul_cycles_hi, e.p_eol_100,
       e.failure_probability, e.in_domain, e.model_id, e.model_sha256, e.reason AS e_reason, now.stale, now.rul,
       now.failure,
       CASE WHEN now.stale THEN 'stale' WHEN now.rul IS NULL THEN coalesce(e.reason, 'no_model') END AS reason,
       worst_band(l.soc_bms * 100, coalesce(l.soh_bms, e.soh_capacity) * 100, l.temp_max_c, now.rul,
                  now.failure * 100) AS band
FROM pack p
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
