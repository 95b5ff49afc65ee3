-- The outbox: the same tables in the file on tmpfs (hot) and in the file on flash (cold). Never edited: a change is a
-- new numbered file.

-- One start of the agent. `no` counts starts, the same in both files: ascending = older first.
CREATE TABLE boot (
  no INTEGER PRIMARY KEY,
  boot TEXT NOT NULL UNIQUE,            -- 16 hex digits
  kernel TEXT NOT NULL,                 -- the kernel boot in which it ran: mono_ns counts within that
  replay INTEGER NOT NULL DEFAULT 0,    -- 1 = its records can be made again from a file, none is ever lost
  open INTEGER NOT NULL DEFAULT 1,      -- 0 = its end is known and told
  offset_ns INTEGER,                    -- t_ns - mono_ns of its records that were stored without t_ns
  safe_seq INTEGER NOT NULL DEFAULT 0,  -- all below are settled or in a block
  next_seq INTEGER NOT NULL DEFAULT 0,  -- the first one not given away, as far as this file knows
  ahead INTEGER NOT NULL DEFAULT 0      -- how many more there may have been at most
);

CREATE TABLE layout (id INTEGER PRIMARY KEY, body BLOB NOT NULL UNIQUE);

-- Records as they arrived. layout NULL = not a Sample: body is a Batch of one record.
CREATE TABLE row (
  boot_no INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  pack_id TEXT NOT NULL,
  layout INTEGER,
  mono_ns INTEGER NOT NULL,
  t_ns INTEGER,
  quality TEXT,
  alarms TEXT,
  body BLOB NOT NULL,
  priority INTEGER NOT NULL,
  put_ns INTEGER NOT NULL,
  PRIMARY KEY (boot_no, seq)
) WITHOUT ROWID;

-- Records that waited too long: many in one encoded Batch. id ascends with age.
CREATE TABLE block (
  id INTEGER PRIMARY KEY,
  boot_no INTEGER NOT NULL,
  first_seq INTEGER NOT NULL,
  last_seq INTEGER NOT NULL,
  records INTEGER NOT NULL,
  samples INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  undated INTEGER NOT NULL,
  put_ns INTEGER NOT NULL,
  crc INTEGER NOT NULL,
  body BLOB NOT NULL
);

-- What the cloud refused for good. body = a Batch; NULL = too large to keep.
CREATE TABLE reject (
  id INTEGER PRIMARY KEY,
  boot_no INTEGER NOT NULL,
  first_seq INTEGER NOT NULL,
  last_seq INTEGER NOT NULL,
  records INTEGER NOT NULL,
  reason TEXT NOT NULL,
  body BLOB,
  UNIQUE (boot_no, first_seq, last_seq, reason)
);

-- Samples that came into or left this file for good; one row.
CREATE TABLE tally (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  acquired INTEGER NOT NULL DEFAULT 0,
  filtered INTEGER NOT NULL DEFAULT 0,
  rejected INTEGER NOT NULL DEFAULT 0,
  stored INTEGER NOT NULL DEFAULT 0,
  acked INTEGER NOT NULL DEFAULT 0,
  refused INTEGER NOT NULL DEFAULT 0,
  evicted INTEGER NOT NULL DEFAULT 0,
  lost INTEGER NOT NULL DEFAULT 0
);
INSERT INTO tally (id) VALUES (1);
