-- What other software may read, the same on every kind of PostgreSQL. Units and names are those of the records.

CREATE FUNCTION boot_hex(boot bigint) RETURNS text IMMUTABLE PARALLEL SAFE STRICT
    RETURN lpad(to_hex(boot), 16, '0');

CREATE FUNCTION state_name(state smallint) RETURNS text IMMUTABLE PARALLEL SAFE STRICT
    RETURN (ARRAY['off', 'park', 'drive', 'charge_ac', 'charge_dc', 'fault'])[state + 1];

-- An array as it was measured: small integers with the step 1 / per_unit, or the fine values, or none.
CREATE FUNCTION measured(small smallint[], per_unit float8, fine float8[]) RETURNS float8[] IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN small IS NULL THEN coalesce(fine, '{}')
                ELSE (SELECT array_agg(e.value / per_unit ORDER BY e.position)
                      FROM unnest(small) WITH ORDINALITY AS e (value, position)) END;

CREATE FUNCTION extra_object(layout int, value float8[]) RETURNS jsonb STABLE PARALLEL SAFE
    RETURN coalesce((SELECT jsonb_object_agg(e.name, e.value)
                     FROM extra_layout l, unnest(l.names, value) AS e (name, value)
                     WHERE l.layout_key = layout), '{}');

CREATE VIEW samples AS
WITH row AS (
    SELECT s.*, NULL::timestamptz AS not_before, NULL::timestamptz AS not_after FROM sample s
    UNION ALL
    SELECT * FROM sample_undated
)
SELECT d.device, boot_hex(row.boot) AS boot, row.seq, row.t, p.pack_id, row.mono_ns, row.t_ns,
       row.pack_v, row.current_a, row.soc_bms, row.soh_bms, row.charge_limit_a, row.discharge_limit_a,
       row.insulation_kohm, row.ambient_c, row.coolant_in_c, row.coolant_out_c, row.speed_kmh, row.odometer_km,
       row.throughput_ah, row.energy_kwh, row.cycles, state_name(row.state) AS state,
       row.contactor_main, row.contactor_precharge, row.charge_mos, row.discharge_mos,
       row.pack_v_min, row.pack_v_max, row.current_a_min, row.current_a_max,
       measured(row.cell_mv, 1000, row.cell_v) AS cell_v, measured(row.temp_dc, 10, row.temp_c) AS temp_c, row.balancing,
       coalesce(row.alarms, '{}') AS alarms, coalesce(row.quality, '{}') AS quality,
       extra_object(row.extra_layout, row.extra) AS extra, row.not_before, row.not_after
FROM row JOIN device d USING (device_key) JOIN pack p USING (pack_key);

CREATE VIEW estimates AS
SELECT d.device, boot_hex(e.boot) AS boot, e.seq, e.t, p.pack_id, e.mono_ns, e.t_ns, e.soc, e.soc_lo, e.soc_hi,
       e.soh_capacity, e.soh_capacity_lo, e.soh_capacity_hi, e.soh_resistance, e.power_limit_charge_2s_w,
       e.power_limit_charge_10s_w, e.power_limit_discharge_2s_w, e.power_limit_discharge_10s_w, e.usable_kwh,
       e.rul_cycles, e.rul_cycles_lo, e.rul_cycles_hi, e.p_eol_100, e.failure_probability, e.in_domain, e.model_id,
       e.model_sha256, e.reason, e.r0_mohm, e.cell_soc
FROM estimate e JOIN device d USING (device_key) JOIN pack p USING (pack_key);

CREATE VIEW events AS
SELECT d.device, boot_hex(e.boot) AS boot, e.seq, e.t, p.pack_id, e.mono_ns, e.t_ns, e.id, e.code, e.severity, e.cell,
       e.value, e.threshold, e.reference, e.since_t_ns, e.cleared_t_ns, e.confidence
FROM event e JOIN device d ON d.device_key = e.device_key JOIN pack p USING (pack_key);

CREATE VIEW reports AS
SELECT d.device, boot_hex(r.boot) AS boot, r.seq, r.t, r.mono_ns, r.t_ns, r.model_id, r.counter, r.step, r.reason,
       r.numbers
FROM report r JOIN device d USING (device_key);

CREATE VIEW rejects AS
SELECT d.device, boot_hex(r.boot) AS boot, r.first_seq, r.last_seq, r.reason, r.detail, r.received_at
FROM reject r JOIN device d USING (device_key);

-- A gap is what the device cannot send: its range, without what it kept and what had reached us, in one row per hole.
-- `ahead` counts from the last number that either side knows of.
CREATE VIEW gaps AS
SELECT d.device, boot_hex(g.of_boot) AS boot, lower(hole) AS first_seq, upper(hole) - 1 AS last_seq, g.cause
FROM gap g
JOIN device d USING (device_key)
LEFT JOIN received r ON r.device_key = g.device_key AND r.boot = g.of_boot
CROSS JOIN LATERAL (
    SELECT greatest(g.last_seq, upper(g.stored) - 1, CASE WHEN g.ahead > 0 THEN upper(r.ranges) - 1 END) AS seq
) known
CROSS JOIN LATERAL (
    SELECT greatest(CASE WHEN g.ahead > 0 THEN known.seq ELSE g.last_seq END + g.ahead + 1, g.first_seq) AS after_last
) range
CROSS JOIN LATERAL unnest(
    int8multirange(int8range(g.first_seq, range.after_last)) - g.stored - coalesce(r.ranges, '{}')
) AS hole;

-- The events that nobody has cleared: the newest record of each id.
CREATE VIEW open_events AS
SELECT * FROM (
    SELECT DISTINCT ON (device, id) * FROM events
    ORDER BY device, id, (cleared_t_ns IS NULL), t_ns DESC NULLS LAST, seq DESC
) newest
WHERE cleared_t_ns IS NULL;

CREATE FUNCTION band_of(which text, value float8) RETURNS int STABLE PARALLEL SAFE
    RETURN (SELECT CASE WHEN b.rising THEN (value >= b.warning)::int + (value > b.critical)::int
                        ELSE (value <= b.warning)::int + (value < b.critical)::int END
            FROM band b WHERE b.reading = which);

-- As GET /api/battery/latest: percent, current > 0 discharges.
CREATE VIEW latest_battery_status AS
SELECT p.pack_id AS battery_id,
       l.t AS "timestamp",
       round((l.soc_bms * 100)::numeric, 4)::float8 AS soc,
       round((coalesce(l.soh_bms, e.soh_capacity) * 100)::numeric, 4)::float8 AS soh,
       l.pack_v AS voltage,
       0 - l.current_a AS current,
       l.temp_max_c AS temperature,
       l.cycles AS charge_cycles,
       0 - l.current_a * l.pack_v AS power_consumption,
       CASE WHEN l.state IN (3, 4) THEN true WHEN l.state IS NULL THEN l.current_a > 0 ELSE false END AS is_charging,
       (ARRAY['good', 'warning', 'critical'])[1 + greatest(
           band_of('soc', l.soc_bms * 100), band_of('soh', coalesce(l.soh_bms, e.soh_capacity) * 100),
           band_of('temperature', l.temp_max_c), band_of('rul', e.rul_cycles),
           band_of('failure', e.failure_probability * 100))] AS status,
       e.rul_cycles AS rul_prediction,
       e.failure_probability,
       CASE WHEN e.rul_cycles IS NULL THEN coalesce(e.reason, 'no_model') END AS prediction_reason
FROM latest l
JOIN pack p USING (pack_key)
LEFT JOIN LATERAL (
    SELECT * FROM estimate e WHERE e.pack_key = l.pack_key AND e.t IS NOT NULL ORDER BY e.t DESC LIMIT 1
) e ON true;
