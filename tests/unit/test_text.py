"""Other people's text on our lines: nothing of it moves a cursor, ends a line or hides."""

from __future__ import annotations

import ast
import json
import logging
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rich.console import Console

import mexc_pipeline
from mexc_pipeline import logs, text
from mexc_pipeline.cli import printing
from mexc_pipeline.cli.app import invoke
from mexc_pipeline.doctor import Check
from mexc_pipeline.run.account import Closing, Line
from mexc_pipeline.run.display import Display, live_table, plain_line
from mexc_pipeline.run.table import closing_text
from mexc_pipeline.run.watch import Overview, View
from mexc_pipeline.text import ago, clean, clean_lines, counted, duration, json_line
from mexc_pipeline.verify.report import Finding, Report
from support.examples import examples

HOSTILE = st.text(st.characters(categories=["Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs", "Mn", "Lo", "Ll"]))


def shows_all(line: str) -> bool:
    """Whether a terminal can do nothing with it but show it, judged by Unicode's categories alone."""
    return all(char == " " or unicodedata.category(char)[0] not in "CZ" for char in line)


@given(HOSTILE | st.binary() | st.integers(), st.integers(1, 80))
@example("\x1b[2J\nFAIL\r\x9b31m\u202e\u200b\ud800\u2028\x7f\x00", 80)
@example(b"\xff\xfe\x1b]0;\x07", 80)
@example("\ufe0f\u3164\U000e0100\u034f", 80)
def test_what_is_cleaned_is_one_bounded_line_and_stays_as_it_is(text: object, most: int) -> None:
    line = clean(text, most)
    assert shows_all(line)
    assert len(line) <= most
    assert clean(line, most) == line
    line.encode()  # no lone surrogate is left


@given(st.text(st.characters(categories=["L", "N", "P", "Sm", "Sc"], max_codepoint=0x7E)))
def test_plain_text_stays(text: str) -> None:
    assert clean(text) == text


def test_the_escapes_tell_what_was_there() -> None:
    assert clean("a\nb\x1b[31m\u202e中文 é\ud800") == r"a\nb\x1b[31m\u202e中文 é\ud800"
    assert clean(b"\xffok") == r"\xffok"
    assert clean("x" * 600) == "x" * 499 + "…"


def test_a_huge_text_is_cut_before_it_is_looked_at() -> None:
    assert len(clean("\x00" * (64 << 20), 100)) == 100
    assert len(clean(b"\xff" * (64 << 20), 100)) == 100


@given(HOSTILE)
def test_lines_of_a_traceback_are_moved_in(text: str) -> None:
    assert all(line.startswith("  ") and shows_all(line) for line in clean_lines(text, "  ").split("\n"))


def is_surrogate(char: str) -> bool:
    return unicodedata.category(char) == "Cs"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | HOSTILE.filter(lambda text: not any(map(is_surrogate, text))),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)


@given(JSON)
def test_json_means_the_same_and_shows_all(value: object) -> None:
    line = json_line(value)
    assert json.loads(line) == value
    assert shows_all(line)
    line.encode()


PRINTERS = {"cli/printing.py", "run/display.py", "run/table.py", "export/newest.py", "handover.py"}
"""The modules that may write to a terminal: each passes through ``clean`` what it writes."""
PIPES = "store/answering.py"
"""Its outputs are pipes of the store's, which shows nothing of them but what whoever asks for it cleans."""


def _writes(tree: ast.AST) -> list[int]:
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Name(id="print") | ast.Attribute(attr="echo", value=ast.Name(id="click")):
                found.append(node.lineno)
            case ast.Attribute(attr="write", value=ast.Attribute(attr="stderr" | "stdout")):
                found.append(node.lineno)
            case ast.Attribute(attr="print", value=ast.Name() | ast.Attribute()):
                found.append(node.lineno)
    return found


@pytest.mark.parametrize("module", sorted(Path(mexc_pipeline.__file__).parent.rglob("*.py")), ids=lambda p: p.stem)
def test_only_the_printers_print(module: Path) -> None:
    name = str(module.relative_to(Path(mexc_pipeline.__file__).parent))
    if name in PRINTERS | {PIPES} or name.startswith("simulator/"):
        return
    assert not _writes(ast.parse(module.read_text())), "print by cli.printing, which cleans what others wrote"


def shown_by(capsys: pytest.CaptureFixture[str], show: Callable[[], object]) -> list[str]:
    show()
    captured = capsys.readouterr()
    return (captured.out + captured.err).split("\n")


def a_view(text: str) -> View:
    return View("btc", text, text, {"t": 1}, segment=text, faults=(text,), warnings=(text,))


def a_closing(text: str) -> Closing:
    line = Line(text, text, text, None, {}, 1, 1, 1, 1, 1, 1, 1.0, text, text, text)
    return Closing([line], [text])


def logged(formatter: logging.Formatter, text: str) -> str:
    error = ValueError(text)
    record = logging.LogRecord("mexc_pipeline.x", 20, "", 1, text, (), (type(error), error, None))
    record.fields = {"said": text, "bytes": text.encode(errors="replace"), "list": [text]}
    return formatter.format(record)


SHOWN: dict[str, Callable[[str], object]] = {
    "line": printing.line,
    "table": lambda text: printing.table([text], [[text]]),
    "json": lambda text: printing.as_json({text: [text]}),
    "finding": lambda text: printing.result(Report("x", [Finding(text, text, False, text)], [text]), False),
    "check": lambda text: printing.line(Check(text, False, True, text, text).line()),
    "error": lambda text: invoke(["--config", "/nowhere" + text.replace("\0", ""), "status"]),
    "display": lambda text: Display().say(text),
    "live table": lambda text: Console(width=500).print(live_table(Overview((a_view(text),), text), {}, text, 500)),
    "plain line": lambda text: sys.stdout.write(plain_line(a_view(text), 1)),
    "closing": lambda text: sys.stdout.write(closing_text(a_closing(text))),
    "text log": lambda text: sys.stdout.write(logged(logs.TextFormatter(), text)),
    "json log": lambda text: sys.stdout.write(logged(logs.JsonFormatter(), text)),
}


@pytest.mark.parametrize("printer", SHOWN)
@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=HOSTILE | st.just("\x1b[2J\nFAIL\r\x9b31m\u202e\u200b\ud800\u2028[red]x[/red][/]"))
def test_no_printer_lets_a_control_character_through(
    capsys: pytest.CaptureFixture[str], printer: str, text: str
) -> None:
    assert all(shows_all(line) for line in shown_by(capsys, lambda: SHOWN[printer](text)))


def test_a_log_line_cannot_be_forged() -> None:
    shown = logged(logs.TextFormatter(), "x\n12:00:00 INFO    store     all is well")
    assert [line for line in shown.split("\n")[1:] if not line.startswith("  ")] == []


def test_a_tables_first_line_is_its_headers(capsys: pytest.CaptureFixture[str]) -> None:
    """``… | head -1`` shows them: nothing blank comes before, between or after its lines."""
    printing.table(["symbol", "rows"], [["BTC_USDT", 5], ["ETH_USDT", 50_000]], right=["rows"])
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == "symbol      rows"
    assert all(line.strip() for line in printed.splitlines())
    of_a_run = closing_text(Closing([], [])).splitlines()
    assert of_a_run[0].startswith("symbol")
    assert all(line.strip() for line in of_a_run)


@pytest.mark.parametrize(("n", "said"), [(0, "0 files"), (1, "1 file"), (2, "2 files"), (1234, "1,234 files")])
def test_one_of_a_thing_is_singular(n: int, said: str) -> None:
    assert counted(n, "file") == said


SECRETS = st.text(st.characters(codec="utf-8"), min_size=4, max_size=30)


@given(st.lists(SECRETS, min_size=1, max_size=3), st.text(max_size=60), st.integers(1, 200), st.data())
def test_a_known_secret_is_in_nothing_that_is_shown(
    secrets: list[str], around: str, most: int, data: st.DataObject
) -> None:
    secret = data.draw(st.sampled_from(secrets))
    said = around + secret + around + secret
    text._secrets = ()
    text.keep_secret(*secrets)
    try:
        once = text.without_secrets(said)
        assert all(one not in once or one in "***" for one in secrets)
        for shown in (clean(said, most), clean(said.encode(errors="surrogatepass"), most)):
            assert len(shown) <= most
            assert secret not in shown or secret in "***"
        assert secret not in json.loads(json_line({"why": said}))["why"] or secret in "***"
    finally:
        text._secrets = ()


@pytest.mark.parametrize("cut", range(4, 20))
def test_what_is_left_of_a_secret_that_was_cut_is_masked_too(cut: int) -> None:
    text.keep_secret("open sesame of the cave")
    assert "open" not in clean("it said: " + "open sesame of the cave"[:cut])


@given(st.floats(-1e9, 1e9), st.integers(0, 1))
def test_no_age_and_no_duration_is_negative(seconds: float, decimals: int) -> None:
    """A file's time lies ahead of a clock that was set back since."""
    assert "-" not in ago(seconds, decimals) + duration(seconds)
    assert ago(seconds, decimals).endswith(" in the future" if seconds <= -1 else " ago")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-7200, "2.0 h in the future"), (-44, "44 s in the future"), (-0.2, "0.0 s ago"), (1.26, "1.3 s ago"),
     (70, "70 s ago"), (600, "10 min ago"), (200_000, "2.3 days ago")],
)  # fmt: skip
def test_an_age_in_words(seconds: float, said: str) -> None:
    assert ago(seconds, 1) == said
