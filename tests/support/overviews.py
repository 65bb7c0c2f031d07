"""What a gathering of parts finds, made up: as many symbols as a test wants, each as it wants them."""

from __future__ import annotations

from typing import Any

from mexc_pipeline.health import Health, HealthFault, Kind


def symbol(symbol_id: str, name: str, *faults: HealthFault, frames: int = 100, **said: Any) -> dict[str, Any]:
    """One symbol that records by Tor, with these faults; ``said`` overrides what its collector says."""
    state = faults[0].kind.value if faults else "live"
    return {
        "id": symbol_id,
        "symbol": name,
        "health": Health(state, faults).to_json(),
        "collector": {
            "state": "live",
            "rows": {"t": frames, "d": 0, "dp": 0, "ev": 3},
            "delay_ms": {"p50": 12.5, "p99": 60.25},
            "durable_ms": {"p50": 5.0, "p99": 9.0},
            "market": {"age_s": 0.4, "waited_s": 0.4, "limit_s": 30.0},
            "egress": {"mode": "tor", "exit": "192.0.2.7", "peer": "127.0.0.1"},
            "reconnects": 2,
            "last_seq": 1234,
            "last_rx_ns": 5_000_000_000,
            "channels": {"push.deal": {"age_s": 0.4}, "push.ticker": {"given_up_s": 90.0}},
            "warnings": [],
            **said,
        },
        "store": {"backlog": 7, "loaded_rx_ns": 2_000_000_000, "differing": 0},
        "last_export": {"file": f"{symbol_id}2026112120.parquet", "bytes": 1_234_567, "age_s": 600.0},
    }


def silent(seconds: float) -> HealthFault:
    """The fault of a symbol of which nothing has come for so long."""
    return HealthFault(Kind.SILENT, f"no market frame for {seconds:.0f} s", seconds)


def overview_of(*symbols: dict[str, Any], store: Health | None = None) -> dict[str, Any]:
    """What :func:`mexc_pipeline.overview.gather` gives, of these symbols."""
    of_store = store or Health("live")
    return {
        "ok": of_store.ok and all(one["health"]["ok"] for one in symbols),
        "recorded": True,
        "store": {"engine": "server", "reachable": of_store.ok, "health": of_store.to_json()},
        "export": {"health": Health("ok").to_json()},
        "symbols": list(symbols),
    }
