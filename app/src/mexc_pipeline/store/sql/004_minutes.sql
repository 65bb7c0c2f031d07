-- Trades checked against the exchange's candles of one minute. Rows logged before say nothing of it: 0 of each.

ALTER TABLE export_log ADD COLUMN minutes_agree UInt32 AFTER gaps;
ALTER TABLE export_log ADD COLUMN minutes_differ UInt32 AFTER minutes_agree;
ALTER TABLE export_log ADD COLUMN minutes_unknown UInt32 AFTER minutes_differ;
