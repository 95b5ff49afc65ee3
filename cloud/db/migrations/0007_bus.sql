-- How far each partition of the Kafka bus is written. Moves in the same transaction as the rows, and only by the ingest
-- that knows where it stands: so no message is written twice or left out, whoever else reads the partition.
CREATE TABLE bus_offset (
    cluster     text NOT NULL, -- Kafka's id: a cluster that was made anew counts from 0 again
    topic       text NOT NULL,
    "partition" int NOT NULL,
    next_offset bigint NOT NULL,
    moved_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (cluster, topic, "partition")
) WITH (fillfactor = 50);

-- A message that is no Batch is rejected, too, but belongs to no seq, and perhaps to no device that we know.
-- origin = where it lies on the bus (cluster/topic/partition/offset); its bytes are in the dead letters.
ALTER TABLE reject
    ALTER COLUMN device_key DROP NOT NULL, ALTER COLUMN boot DROP NOT NULL,
    ALTER COLUMN first_seq DROP NOT NULL, ALTER COLUMN last_seq DROP NOT NULL,
    ADD COLUMN origin text;
CREATE INDEX reject_of_origin ON reject (origin) WHERE origin IS NOT NULL;

CREATE OR REPLACE VIEW rejects AS
SELECT d.device, boot_hex(r.boot) AS boot, r.first_seq, r.last_seq, r.reason, r.detail, r.received_at, r.origin
FROM reject r LEFT JOIN device d USING (device_key);
