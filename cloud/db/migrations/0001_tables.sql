-- Devices, packs, and what they send. Times: t is UTC at microseconds, t_ns is exact; boot is the 64-bit id, two's complement.

CREATE TABLE device (
    device_key    int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device        text NOT NULL UNIQUE,
    registered_at timestamptz NOT NULL DEFAULT now(),
    mode          text CHECK (mode IN ('live', 'normal', 'economy')) -- the uplink mode wished for; null = the setting's
);

CREATE TABLE pack (
    pack_key      int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pack_id       text NOT NULL UNIQUE,
    device_key    int REFERENCES device, -- whose records are taken; null = of the first device that sends some
    vehicle       text,
    fleet         text,
    chemistry     text CHECK (chemistry IN ('nmc', 'lfp', 'nca', 'lmo', 'lto')),
    series        int CHECK (series > 0),
    parallel      int CHECK (parallel > 0),
    nominal_ah    float8 CHECK (nominal_ah > 0),
    nominal_v     float8 CHECK (nominal_v > 0),
    layout_file   text,
    limits        jsonb NOT NULL DEFAULT '{}',
    commissioned  date,
    tags          jsonb NOT NULL DEFAULT '{}',
    registered_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX pack_of_device ON pack (device_key);

-- Which seq of a boot are durable here (accepted or rejected). Dedupes everything else, so no other table needs a unique
-- index over time. `repeated` = what the last claim had claimed before already (see claim_ranges).
CREATE TABLE received (
    device_key        int NOT NULL REFERENCES device,
    boot              bigint NOT NULL,
    ranges            int8multirange NOT NULL,
    repeated          int8multirange NOT NULL DEFAULT '{}',
    first_received_at timestamptz NOT NULL DEFAULT now(),
    last_received_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (device_key, boot)
) WITH (fillfactor = 60);

CREATE TABLE reject (
    device_key  int NOT NULL REFERENCES device,
    boot        bigint NOT NULL,
    first_seq   bigint NOT NULL,
    last_seq    bigint NOT NULL,
    reason      text NOT NULL,
    detail      text,
    received_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX reject_of_boot ON reject (device_key, boot, first_seq);
CREATE INDEX reject_by_time ON reject (received_at);

-- Names and units of the elements of `extra`, interned.
CREATE TABLE extra_layout (
    layout_key int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest     bytea NOT NULL UNIQUE, -- sha256 of names and units
    names      text[] NOT NULL,
    units      text[] NOT NULL
);

-- One pack at one instant; partitions of one UTC day are made when needed (cloud/db/partitions.py).
CREATE TABLE sample (
    t                    timestamptz NOT NULL,
    t_ns                 bigint NOT NULL,
    mono_ns              bigint NOT NULL,
    boot                 bigint NOT NULL,
    seq                  bigint NOT NULL,
    pack_v               float8,
    current_a            float8,
    soc_bms              float8,
    soh_bms              float8,
    charge_limit_a       float8,
    discharge_limit_a    float8,
    insulation_kohm      float8,
    ambient_c            float8,
    coolant_in_c         float8,
    coolant_out_c        float8,
    speed_kmh            float8,
    odometer_km          float8,
    throughput_ah        float8,
    energy_kwh           float8,
    cycles               float8,
    pack_v_min           float8,
    pack_v_max           float8,
    current_a_min        float8,
    current_a_max        float8,
    cell_min_v           float8, -- lowest and highest of cell_v and temp_c, so that charts need not open arrays
    cell_max_v           float8,
    temp_min_c           float8,
    temp_max_c           float8,
    pack_key             int NOT NULL,
    device_key           int NOT NULL,
    extra_layout         int,    -- extra_layout.layout_key; null = no extras
    state                smallint, -- off park drive charge_ac charge_dc fault
    contactor_main       bool,
    contactor_precharge  bool,
    charge_mos           bool,
    discharge_mos        bool,
    balancing            varbit, -- get_bit(balancing, i) = the cell at position i is being balanced
    cell_mv              smallint[], -- cells in mV where they are measured no finer than that, else
    cell_v               float8[],   -- in V; both null = the source gives no cells
    temp_dc              smallint[], -- temperatures in 0.1 degC, or finer ones
    temp_c               float8[],   -- in degC
    extra                float8[],
    alarms               text[], -- null = none
    quality              jsonb   -- null = nothing to say
) PARTITION BY RANGE (t);
CREATE INDEX sample_of_pack ON sample (pack_key, t);

-- Samples of a boot whose clock was never trusted: somewhere between the two bounds; no chart shows them.
CREATE TABLE sample_undated (LIKE sample);
ALTER TABLE sample_undated
    ALTER COLUMN t DROP NOT NULL, ALTER COLUMN t_ns DROP NOT NULL,
    ADD COLUMN not_before timestamptz NOT NULL, ADD COLUMN not_after timestamptz NOT NULL;
CREATE INDEX sample_undated_of_pack ON sample_undated (pack_key, not_after);

-- The newest dated sample of a pack: where it is, and the readings that lists of packs show.
CREATE TABLE latest (
    pack_key   int PRIMARY KEY REFERENCES pack,
    device_key int NOT NULL REFERENCES device,
    boot       bigint NOT NULL,
    seq        bigint NOT NULL,
    t_ns       bigint NOT NULL,
    t          timestamptz NOT NULL,
    pack_v     float8,
    current_a  float8,
    soc_bms    float8,
    soh_bms    float8,
    cycles     float8,
    cell_min_v float8,
    cell_max_v float8,
    temp_min_c float8,
    temp_max_c float8,
    speed_kmh  float8,
    state      smallint
) WITH (fillfactor = 50);

CREATE TABLE estimate (
    device_key                 int NOT NULL REFERENCES device,
    boot                       bigint NOT NULL,
    seq                        bigint NOT NULL,
    mono_ns                    bigint NOT NULL,
    t_ns                       bigint,
    t                          timestamptz,
    pack_key                   int NOT NULL REFERENCES pack,
    soc                        float8,
    soc_lo                     float8,
    soc_hi                     float8,
    soh_capacity               float8,
    soh_capacity_lo            float8,
    soh_capacity_hi            float8,
    soh_resistance             float8,
    power_limit_charge_2s_w    float8,
    power_limit_charge_10s_w   float8,
    power_limit_discharge_2s_w float8,
    power_limit_discharge_10s_w float8,
    usable_kwh                 float8,
    rul_cycles                 float8,
    rul_cycles_lo              float8,
    rul_cycles_hi              float8,
    p_eol_100                  float8,
    failure_probability        float8,
    in_domain                  bool,
    model_id                   text,
    model_sha256               text,
    reason                     text,
    r0_mohm                    float8[],
    cell_soc                   float8[]
);
CREATE INDEX estimate_of_pack ON estimate (pack_key, t);
CREATE INDEX estimate_by_time ON estimate (t);

-- One row per record: an event that was raised and cleared has two with the same id.
CREATE TABLE event (
    device_key   int NOT NULL REFERENCES device,
    boot         bigint NOT NULL,
    seq          bigint NOT NULL,
    mono_ns      bigint NOT NULL,
    t_ns         bigint,
    t            timestamptz,
    pack_key     int NOT NULL REFERENCES pack,
    id           text NOT NULL,
    code         text NOT NULL,
    severity     text NOT NULL,
    cell         bigint,
    value        float8,
    threshold    float8,
    reference    float8,
    since_t_ns   bigint,
    cleared_t_ns bigint,
    confidence   float8
);
CREATE INDEX event_of_pack ON event (pack_key, t);
CREATE INDEX event_by_id ON event (device_key, id);

CREATE TABLE report (
    device_key int NOT NULL REFERENCES device,
    boot       bigint NOT NULL,
    seq        bigint NOT NULL,
    mono_ns    bigint NOT NULL,
    t_ns       bigint,
    t          timestamptz,
    model_id   text NOT NULL,
    counter    bigint NOT NULL,
    step       text NOT NULL,
    reason     text,
    numbers    jsonb NOT NULL
);
CREATE INDEX report_of_device ON report (device_key, t);

-- What a device says will never come; what was really lost is computed by the view `gaps`.
CREATE TABLE gap (
    device_key int NOT NULL REFERENCES device,
    boot       bigint NOT NULL,
    seq        bigint NOT NULL,
    mono_ns    bigint NOT NULL,
    t_ns       bigint,
    t          timestamptz,
    of_boot    bigint NOT NULL,
    first_seq  bigint NOT NULL,
    last_seq   bigint NOT NULL,
    cause      text NOT NULL,
    stored     int8multirange NOT NULL,
    ahead      bigint NOT NULL
);
CREATE INDEX gap_of_boot ON gap (device_key, of_boot);

-- Which minutes of which packs got rows since the rollups were made; minutes since 1970.
CREATE TABLE rollup_todo (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pack_keys  int[] NOT NULL,
    minutes    int[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- <name>_n counts the samples that had a value; averages of averages are weighted with it.
CREATE TABLE samples_1m (
    bucket            timestamptz NOT NULL,
    pack_key          int NOT NULL,
    n                 int NOT NULL,
    pack_v_n          int NOT NULL, pack_v_avg float8, pack_v_min float8, pack_v_max float8,
    current_a_n       int NOT NULL, current_a_avg float8, current_a_min float8, current_a_max float8,
    soc_bms_n         int NOT NULL, soc_bms_avg float8, soc_bms_min float8, soc_bms_max float8,
    soh_bms_n         int NOT NULL, soh_bms_avg float8, soh_bms_min float8, soh_bms_max float8,
    temp_max_c_n      int NOT NULL, temp_max_c_avg float8, temp_max_c_min float8, temp_max_c_max float8,
    temp_min_c_n      int NOT NULL, temp_min_c_avg float8, temp_min_c_min float8, temp_min_c_max float8,
    cell_max_v_n      int NOT NULL, cell_max_v_avg float8, cell_max_v_min float8, cell_max_v_max float8,
    cell_min_v_n      int NOT NULL, cell_min_v_avg float8, cell_min_v_min float8, cell_min_v_max float8,
    cell_spread_v_n   int NOT NULL, cell_spread_v_avg float8, cell_spread_v_min float8, cell_spread_v_max float8,
    power_w_n         int NOT NULL, power_w_avg float8, power_w_min float8, power_w_max float8, -- > 0 charges
    power_in_w_n      int NOT NULL, power_in_w_avg float8, power_in_w_min float8, power_in_w_max float8,
    power_out_w_n     int NOT NULL, power_out_w_avg float8, power_out_w_min float8, power_out_w_max float8,
    speed_kmh_n       int NOT NULL, speed_kmh_avg float8, speed_kmh_min float8, speed_kmh_max float8,
    ambient_c_n       int NOT NULL, ambient_c_avg float8, ambient_c_min float8, ambient_c_max float8,
    odometer_km_n     int NOT NULL, odometer_km_avg float8, odometer_km_min float8, odometer_km_max float8,
    cycles_n          int NOT NULL, cycles_avg float8, cycles_min float8, cycles_max float8,
    PRIMARY KEY (pack_key, bucket)
) WITH (fillfactor = 80);
CREATE INDEX samples_1m_by_time ON samples_1m USING brin (bucket);
CREATE TABLE samples_1h (LIKE samples_1m INCLUDING ALL);
CREATE TABLE samples_1d (LIKE samples_1m INCLUDING ALL);

-- The bands of the settings, for the views; the ingest keeps them equal to the environment's.
CREATE TABLE band (
    reading  text PRIMARY KEY,
    warning  float8 NOT NULL,
    critical float8 NOT NULL,
    rising   bool NOT NULL
);
