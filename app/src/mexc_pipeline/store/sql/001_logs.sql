-- The logs that operators and dashboards read. Only types that ClickHouse 18.16 has.

-- One row per exported file, once its rows have been compared with ClickHouse's copy. An index of the files' metadata.
CREATE TABLE IF NOT EXISTS export_log (
  at          DateTime('UTC'),  -- when the file was verified
  id          String,
  symbol      String,
  period      String,
  part        UInt32,           -- 0 for a plain file
  final       UInt8,
  first_seq   UInt64,
  last_seq    UInt64,
  rows        UInt64,           -- in the file as read back
  rows_t      UInt64,
  rows_d      UInt64,
  rows_dp     UInt64,
  rows_dl     UInt64,
  rows_ev     UInt64,
  rows_r      UInt64,
  received    UInt64,           -- in the spool's segment
  stored      UInt64,           -- in ClickHouse, as compared
  bytes       UInt64,           -- of the file
  raw_bytes   UInt64,           -- of the frames in it
  digest      String,
  file        String,
  gaps        UInt64,
  seconds     Float64,          -- what the export took
  spool_id    String,
  host        String,
  version     String,
  verdict     String            -- verified, or what is wrong
) ENGINE = MergeTree PARTITION BY toYYYYMM(at) ORDER BY (id, at);

-- One row per connection to the exchange, as its `connected` event says it left the host.
CREATE TABLE IF NOT EXISTS egress_log (
  at        DateTime('UTC'),
  id        String,
  spool_id  String,
  seq       UInt64,             -- of the `connected` row
  egress    String,
  peer      String,
  local     String,
  circuit   String,
  exit      String,
  event     String,             -- the row's whole JSON
  host      String
) ENGINE = MergeTree PARTITION BY toYYYYMM(at) ORDER BY (id, at);

-- One row per symbol every 15 s. Counters run since the collector's start; rates cover the time since the row before.
CREATE TABLE IF NOT EXISTS collector_stats (
  at              DateTime('UTC'),
  id              String,
  symbol          String,
  host            String,
  pid             UInt32,
  spool_id        String,
  version         String,
  state           String,
  last_seq        UInt64,
  rows_t          UInt64,
  rows_d          UInt64,
  rows_dp         UInt64,
  rows_dl         UInt64,
  rows_ev         UInt64,
  rows_r          UInt64,
  bytes_t         UInt64,
  bytes_d         UInt64,
  bytes_dp        UInt64,
  bytes_dl        UInt64,
  bytes_ev        UInt64,
  bytes_r         UInt64,
  rows_per_s      Float64,      -- frames of the market, and their bytes; nan where unknown
  bytes_per_s     Float64,
  reconnects      UInt64,
  backlog         UInt64,       -- rows in the spool that ClickHouse does not have yet
  delay_p50_ms    Float64,      -- exchange's ts to our rx; nan where unknown
  delay_p99_ms    Float64,
  durable_p50_ms  Float64,      -- rx to committed
  durable_p99_ms  Float64,
  egress          String,
  egress_address  String
) ENGINE = MergeTree PARTITION BY toYYYYMM(at) ORDER BY (id, at);
