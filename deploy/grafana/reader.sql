-- A role that reads what the dashboards show and can change nothing. May run at any time, and again:
--   PGOPTIONS="-c packtwin.reader_password=SECRET" psql -f deploy/grafana/reader.sql
-- packtwin.reader_name: its name (grafana). packtwin.reader_password: left out = the password stays.
-- Run by the owner of the tables; to create the role, or to change it, that must be a superuser or have CREATEROLE.
DO $$
DECLARE
    reader text := coalesce(nullif(current_setting('packtwin.reader_name', true), ''), 'grafana');
    secret text := nullif(current_setting('packtwin.reader_password', true), '');
    may bool := (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user);
    thing text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = reader) THEN
        EXECUTE format('CREATE ROLE %I', reader);
    END IF;
    IF may THEN
        EXECUTE format('ALTER ROLE %I LOGIN', reader);
        EXECUTE format('ALTER ROLE %I SET default_transaction_read_only = on', reader);
        EXECUTE format('ALTER ROLE %I SET statement_timeout = %L', reader, '15s');
        IF secret IS NOT NULL THEN
            EXECUTE format('ALTER ROLE %I PASSWORD %L', reader, secret);
        END IF;
    END IF;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), reader);
    EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', reader);
    -- Named one by one, so that a table of secrets (device_token) is never among them.
    FOREACH thing IN ARRAY ARRAY[
        'device', 'pack', 'received', 'reject', 'sample', 'latest', 'estimate', 'event_now', 'session', 'assignment',
        'rollup_todo', 'samples_1m', 'samples_1h', 'samples_1d', 'samples', 'estimates', 'events', 'events_now',
        'open_events', 'sessions', 'reports', 'rejects', 'gaps', 'bands', 'pack_now', 'latest_battery_status'
    ] LOOP
        EXECUTE format('GRANT SELECT ON %I TO %I', thing, reader);
    END LOOP;
END $$;
