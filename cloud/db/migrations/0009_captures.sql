-- Captures: windows of raw input that devices kept around alarms. They arrive in parts, each a zstd frame; a file of a
-- capture (log, serial, state) is its parts unpacked, in order.

CREATE TABLE capture (
    capture_key int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_key  int NOT NULL REFERENCES device,
    pack_key    int NOT NULL REFERENCES pack,
    id          text NOT NULL,
    t           timestamptz, -- when the device kept it; null = it did not know the time
    t_ns        bigint,
    begin_t_ns  bigint,
    end_t_ns    bigint,
    cause       text NOT NULL, -- the alarms' codes, or trigger
    note        text,
    parts       int NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(), -- its first part
    UNIQUE (device_key, id)
);
CREATE INDEX capture_by_id ON capture (id);
CREATE INDEX capture_of_pack ON capture (pack_key, capture_key);

-- A device that was killed between sending a part and noting that sends it again under another seq: here it is once.
CREATE TABLE capture_chunk (
    capture_key int NOT NULL REFERENCES capture ON DELETE CASCADE,
    part        int NOT NULL,
    boot        bigint NOT NULL,
    seq         bigint NOT NULL,
    file        text NOT NULL,
    data        bytea NOT NULL,
    PRIMARY KEY (capture_key, part)
);
ALTER TABLE capture_chunk ALTER COLUMN data SET STORAGE EXTERNAL; -- it is packed already

CREATE VIEW captures AS
SELECT c.capture_key, c.id, d.device, p.pack_id, c.t, c.t_ns, c.begin_t_ns, c.end_t_ns, c.cause, c.note, c.parts,
       h.parts_here, h.bytes_here, h.parts_here = c.parts AS whole, c.received_at
FROM capture c
JOIN device d USING (device_key)
JOIN pack p USING (pack_key)
CROSS JOIN LATERAL (
    SELECT count(*)::int AS parts_here, coalesce(sum(octet_length(k.data)), 0)::bigint AS bytes_here
    FROM capture_chunk k WHERE k.capture_key = c.capture_key
) h;
