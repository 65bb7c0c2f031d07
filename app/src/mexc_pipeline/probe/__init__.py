"""What the exchange really sends, beside what this version expects: `mexc-pipeline probe`.

`session` connects and listens, `observe` gathers what came, `judge` compares it with `exchange/shapes.py`, `bundle`
keeps it for whoever cannot reach the exchange. Writes nothing to the recording, and may run beside it.
"""
