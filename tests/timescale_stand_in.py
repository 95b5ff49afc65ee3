"""TimescaleDB's part in our SQL, played by plain PostgreSQL: where no TimescaleDB is, its flavour is tested on this.

Ours is the SQL of cloud/db/timescale, all of it but the words that only the extension's parser knows; and what a
continuous aggregate does that matters to its readers. What is materialised stays as it was until a refresh of whole
buckets, outside a transaction; what lies behind it is computed when it is read; `drop_chunks` takes whole chunks.
"""

from __future__ import annotations

import re
from typing import Final
from unittest import mock

from cloud import db
from cloud.db import flavour

VERSION: Final = "2.28.3"
_STUBS: Final = """
CREATE FUNCTION time_bucket(width interval, t timestamptz) RETURNS timestamptz IMMUTABLE PARALLEL SAFE
    RETURN date_bin(width, t, '2000-01-03 00:00+00');
CREATE FUNCTION by_range(column_name name, partition_interval interval) RETURNS name IMMUTABLE RETURN column_name;
CREATE FUNCTION create_hypertable(relation regclass, dimension name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE INDEX %I ON %s (%I DESC)', relation || '_t_idx', relation, dimension);
END $$;
CREATE PROCEDURE add_columnstore_policy(hypertable regclass, after interval, if_not_exists bool,
    initial_start timestamptz) LANGUAGE plpgsql AS $$
BEGIN
    ASSERT initial_start > now(), 'a job would run beside the tests';
END $$;

CREATE TABLE stand_in_aggregate (name text PRIMARY KEY, width interval NOT NULL, watermark timestamptz NOT NULL);

CREATE PROCEDURE refresh_continuous_aggregate(aggregate regclass, first timestamptz, until timestamptz)
    LANGUAGE plpgsql AS $$
DECLARE
    width interval;
BEGIN
    COMMIT; -- an error inside a transaction, as the real one is
    SELECT a.width INTO STRICT width FROM stand_in_aggregate a WHERE a.name = aggregate::text;
    ASSERT time_bucket(width, first) = first AND time_bucket(width, until) = until AND first < until, 'whole buckets';
    EXECUTE format('DELETE FROM %I WHERE bucket >= $1 AND bucket < $2', aggregate || '_stored') USING first, until;
    EXECUTE format('INSERT INTO %I SELECT * FROM %I WHERE bucket >= $1 AND bucket < $2',
                   aggregate || '_stored', aggregate || '_direct') USING first, until;
    EXECUTE format('UPDATE stand_in_aggregate
                    SET watermark = greatest(watermark, (SELECT max(bucket) FROM %I) + width) WHERE name = $1',
                   aggregate || '_stored') USING aggregate::text;
END $$;

CREATE FUNCTION drop_chunks(relation regclass, older_than timestamptz) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    is_aggregate bool := EXISTS (SELECT FROM stand_in_aggregate WHERE name = relation::text);
    stored text := CASE WHEN is_aggregate THEN relation || '_stored' ELSE relation::text END;
    t text := CASE WHEN is_aggregate THEN 'bucket' ELSE 't' END;
    width interval := CASE WHEN is_aggregate THEN interval '10 days' ELSE interval '1 day' END;
BEGIN
    RETURN QUERY EXECUTE format(
        'WITH gone AS (DELETE FROM %I WHERE date_bin($1, %I, ''epoch'') + $1 <= $2 RETURNING %I)
         SELECT DISTINCT date_bin($1, %I, ''epoch'')::text FROM gone', stored, t, t, t) USING width, older_than;
END $$;
"""
_AGGREGATE: Final = re.compile(
    r"CREATE MATERIALIZED VIEW (\w+) WITH \(timescaledb\.continuous, timescaledb\.materialized_only = false\) AS\n"
    r"(SELECT time_bucket\((INTERVAL '[^']+'), .*?)\nWITH NO DATA;",
    re.DOTALL,
)
_COLUMNSTORE: Final = re.compile(
    r"ALTER TABLE sample SET \(\s*timescaledb\.enable_columnstore = true, timescaledb\.segmentby = 'pack_key',"
    r" timescaledb\.orderby = 't'\s*\);"
)
_AS_STORED: Final = r"""
CREATE VIEW \1_direct AS \2;
CREATE TABLE \1_stored AS SELECT * FROM \1_direct WITH NO DATA;
CREATE INDEX ON \1_stored (pack_key, bucket DESC);
CREATE VIEW \1 AS
SELECT * FROM \1_stored WHERE bucket < (SELECT watermark FROM stand_in_aggregate WHERE name = '\1')
UNION ALL
SELECT * FROM \1_direct WHERE bucket >= (SELECT watermark FROM stand_in_aggregate WHERE name = '\1');
INSERT INTO stand_in_aggregate VALUES ('\1', \3, '-infinity');
"""


def install(conn: db.Connection) -> None:
    """Makes a migrated database of ours the stand-in's, if it is empty."""
    conn.execute(_STUBS.encode())
    original = flavour.text
    with mock.patch.object(flavour, "text", lambda step: translated(original(step))), conn.transaction():
        flavour.adopt(conn, VERSION)


def translated(text: str) -> str:
    """The SQL as plain PostgreSQL understands it; whatever else of TimescaleDB is in it is an error there."""
    return _COLUMNSTORE.sub("", _AGGREGATE.sub(_AS_STORED, text))
