-- Tokens of devices. No token is kept: its SHA-256 finds the device, mqtt_hash is what Mosquitto compares passwords with.
CREATE TABLE device_token (
    token_key    int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_key   int NOT NULL REFERENCES device,
    token_sha256 bytea NOT NULL UNIQUE,
    mqtt_hash    text NOT NULL,
    made_at      timestamptz NOT NULL DEFAULT now(),
    revoked_at   timestamptz
);
-- A device has one token at a time, as a broker knows one password of a user.
CREATE UNIQUE INDEX device_token_in_use ON device_token (device_key) WHERE revoked_at IS NULL;
