-- Which of the numbered files have been applied here. Applied at every start; everything else once.
CREATE TABLE IF NOT EXISTS schema_versions (
  version UInt32,
  file    String,
  at      DateTime('UTC')
) ENGINE = MergeTree PARTITION BY toYYYYMM(at) ORDER BY version;
