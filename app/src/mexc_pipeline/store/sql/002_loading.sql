-- What the store must know of its own row tables across restarts.

-- Which segment a row table holds: the newest row of a name counts. Written before the table gets its first row.
CREATE TABLE IF NOT EXISTS holdings (
  at        DateTime('UTC'),
  n         UInt64,             -- grows with every row, whatever the clock does
  name      String,
  id        String,
  spool_id  String,
  period    String,
  part      UInt32
) ENGINE = MergeTree PARTITION BY toYYYYMM(at) ORDER BY (id, name, n);

-- Rows the engine refused for good; they are in the spool and in the file, not in a row table.
CREATE TABLE IF NOT EXISTS refused_rows (
  at        DateTime('UTC'),
  id        String,
  spool_id  String,
  period    String,
  part      UInt32,
  seq       UInt64,
  error     String
) ENGINE = MergeTree PARTITION BY toYYYYMM(at) ORDER BY (id, seq);
