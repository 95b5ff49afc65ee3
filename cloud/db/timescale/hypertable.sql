-- `sample` as a hypertable with chunks of one UTC day, in place of the day partitions; it holds no rows yet. Views of
-- it keep their definition: the name in it means the new table once the old one is called otherwise.
DO $$
DECLARE
    names text[];
    bodies text[];
BEGIN
    SELECT array_agg(v.oid::regclass::text), array_agg(pg_get_viewdef(v.oid)) INTO names, bodies
    FROM pg_class v
    WHERE v.relkind = 'v' AND EXISTS (
        SELECT FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
        WHERE r.ev_class = v.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid = 'sample'::regclass
    );
    ALTER TABLE sample RENAME TO sample_partitioned;
    CREATE TABLE sample (LIKE sample_partitioned);
    FOR i IN 1 .. coalesce(cardinality(names), 0) LOOP
        EXECUTE format('CREATE OR REPLACE VIEW %s AS %s', names[i], bodies[i]);
    END LOOP;
    DROP TABLE sample_partitioned;
END $$;

SELECT create_hypertable('sample', by_range('t', INTERVAL '1 day'));

CREATE INDEX sample_of_pack ON sample (pack_key, t);
