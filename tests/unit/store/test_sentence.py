"""Of what the engine says of a statement a user sees the sentence, not what stands around it."""

from __future__ import annotations

import pytest

from mexc_pipeline.store.engine import EngineError, sentence

UNKNOWN = "Unknown table expression identifier 'nope' in scope SELECT * FROM nope"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"Streaming query failed: Code: 60. DB::Exception: {UNKNOWN}. (UNKNOWN_TABLE)", UNKNOWN),
        (f"Code: 60.\nDB::Exception: {UNKNOWN}. Stack trace:\n\n0. x", UNKNOWN),
        (
            "Code: 47. DB::Exception: Received from h:9000. DB::Exception: Missing (x). (UNKNOWN_IDENTIFIER) "
            "(version 26.1.2.3 (official build))",
            "Received from h:9000. DB::Exception: Missing (x)",
        ),
        (
            "Code: 62. DB::Exception: Syntax error: failed at 1 ('x') (line 1)",
            "Syntax error: failed at 1 ('x') (line 1)",
        ),
        ("not connected", "not connected"),
    ],
)
def test_the_sentence_alone_is_left(said: str, shown: str) -> None:
    assert sentence(EngineError(said)) == shown
