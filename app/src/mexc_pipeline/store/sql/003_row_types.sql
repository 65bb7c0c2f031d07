-- Types of rows that came later. Rows logged before have none of them.

ALTER TABLE export_log ADD COLUMN rows_f UInt64 AFTER rows_r;
ALTER TABLE export_log ADD COLUMN rows_i UInt64 AFTER rows_f;
ALTER TABLE export_log ADD COLUMN rows_p UInt64 AFTER rows_i;
ALTER TABLE export_log ADD COLUMN rows_k UInt64 AFTER rows_p;
ALTER TABLE export_log ADD COLUMN rows_c UInt64 AFTER rows_k;
ALTER TABLE export_log ADD COLUMN rows_x UInt64 AFTER rows_c;
ALTER TABLE collector_stats ADD COLUMN rows_f UInt64 AFTER rows_r;
ALTER TABLE collector_stats ADD COLUMN rows_i UInt64 AFTER rows_f;
ALTER TABLE collector_stats ADD COLUMN rows_p UInt64 AFTER rows_i;
ALTER TABLE collector_stats ADD COLUMN rows_k UInt64 AFTER rows_p;
ALTER TABLE collector_stats ADD COLUMN rows_c UInt64 AFTER rows_k;
ALTER TABLE collector_stats ADD COLUMN rows_x UInt64 AFTER rows_c;
ALTER TABLE collector_stats ADD COLUMN bytes_f UInt64 AFTER bytes_r;
ALTER TABLE collector_stats ADD COLUMN bytes_i UInt64 AFTER bytes_f;
ALTER TABLE collector_stats ADD COLUMN bytes_p UInt64 AFTER bytes_i;
ALTER TABLE collector_stats ADD COLUMN bytes_k UInt64 AFTER bytes_p;
ALTER TABLE collector_stats ADD COLUMN bytes_c UInt64 AFTER bytes_k;
ALTER TABLE collector_stats ADD COLUMN bytes_x UInt64 AFTER bytes_c;
