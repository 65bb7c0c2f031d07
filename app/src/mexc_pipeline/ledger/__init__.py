"""Proof: content digests and the conservation of rows from spool to file. Pure; no input or output."""
