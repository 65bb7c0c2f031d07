"""The spool: one folder per symbol, one SQLite file per period; the record of truth until the file is proven."""
