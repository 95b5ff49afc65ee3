-- Sessions: what a stretch of use of one pack showed. They are a pack's whole life, so they stay for ever.

CREATE TABLE session (
    device_key      int NOT NULL REFERENCES device,
    boot            bigint NOT NULL,
    seq             bigint NOT NULL,
    mono_ns         bigint NOT NULL,
    t_ns            bigint,
    t               timestamptz,
    pack_key        int NOT NULL REFERENCES pack,
    duration_s      float8 NOT NULL,
    cycles          float8,
    throughput_ah   float8,
    soh_bms         float8,
    age_days        float8,
    moved_ah        float8,
    r_step_mohm     float8,
    r_step_max_mohm float8,
    cell_dev_mv     float8,
    temp_mean_c     float8,
    temp_spread_c   float8,
    hot_h           float8,
    window_ah       float8,
    simulated       bool NOT NULL,
    reasons         jsonb NOT NULL
);
CREATE INDEX session_of_pack ON session (pack_key, t_ns);
CREATE INDEX event_by_code ON event (code, pack_key);

-- A device that was killed between storing a Session and noting that sends it again under another seq: here it is once.
CREATE VIEW sessions AS
SELECT DISTINCT ON (s.pack_key, s.t_ns, s.mono_ns, s.duration_s)
       d.device, boot_hex(s.boot) AS boot, s.seq, s.t, p.pack_id, s.mono_ns, s.t_ns, s.duration_s, s.cycles,
       s.throughput_ah, s.soh_bms, s.age_days, s.moved_ah, s.r_step_mohm, s.r_step_max_mohm, s.cell_dev_mv,
       s.temp_mean_c, s.temp_spread_c, s.hot_h, s.window_ah, s.simulated, s.reasons
FROM session s JOIN device d USING (device_key) JOIN pack p USING (pack_key)
ORDER BY s.pack_key, s.t_ns, s.mono_ns, s.duration_s, s.seq;
