"""MEXC's futures protocol as pure functions: what to send, and what a received frame is."""
