-- Days that are a week old are stored by column, each pack's rows together; late rows may still come into them.
ALTER TABLE sample SET (
    timescaledb.enable_columnstore = true, timescaledb.segmentby = 'pack_key', timescaledb.orderby = 't'
);

CALL add_columnstore_policy(
    'sample', after => INTERVAL '7 days', if_not_exists => true, initial_start => now() + INTERVAL '1 hour'
);
