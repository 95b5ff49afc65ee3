-- Which devices someone looks at right now, and until when that holds: the API says it, the MQTT gateway passes it on.
-- Lost in a crash, and said again a second later.
CREATE UNLOGGED TABLE watched (
    device_key int PRIMARY KEY REFERENCES device,
    until      timestamptz NOT NULL
);
