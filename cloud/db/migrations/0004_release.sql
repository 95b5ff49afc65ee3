-- Which bundle devices are told to run: the newest row of a device, else the newest row of the fleet (device_key null).
CREATE TABLE assignment (
    assignment_key int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_key     int REFERENCES device,
    bundle         text NOT NULL, -- NAME-COUNTER
    counter        int NOT NULL CHECK (counter > 0),
    sha256         text NOT NULL, -- of the whole bundle
    revives        int REFERENCES assignment, -- the earlier assignment whose model this is under a new counter
    assigned_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX assignment_of_device ON assignment (device_key, assignment_key);
