"""What a user's statement may be, judged by what the engine parses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from clickhouse_driver import errors
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.errors import UserError
from mexc_pipeline.store import readonly, server
from mexc_pipeline.store.engine import RefusedError

READING = """
SELECT 1
SELECT 1;
(SELECT 1) UNION ALL (SELECT 2)
/* why */ SELECT 1 -- here
SELECT count() FROM btc_current WHERE m LIKE '%;%'
SELECT 'INTO OUTFILE', 'file(', `format`, format FROM t AS format
SELECT `a b`, 'it\\'s', `it\\`s` FROM t
SELECT a, b FROM t GROUP BY a, b WITH ROLLUP HAVING count() > 0 ORDER BY a DESC LIMIT 1 BY a LIMIT 5 OFFSET 1
SELECT a FROM t GROUP BY GROUPING SETS ((a), ()) ORDER BY GROUPING(a)
SELECT x FROM t ORDER BY x WITH FILL FROM 1 TO 5 STEP 2 INTERPOLATE (y AS y + 1)
SELECT sum(a) OVER w, lag(a) OVER (ORDER BY b ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t WINDOW w AS (ORDER BY a)
SELECT uniqExact(a), quantiles(0.5, 0.9)(a), argMaxIf(a, b, a > 0), count(DISTINCT a), sumOrNullIf(a, b) FROM t
SELECT * EXCEPT (a) REPLACE (1 AS b), t.*, COLUMNS('a'), COLUMNS(a, b), t.COLUMNS('x'), t.COLUMNS(a) FROM t
SELECT a = 1 AND NOT (a < 2 OR a >= 3), a % 2, a || 'x', a NOT LIKE 'x', a NOT IN (1), a BETWEEN 1 AND 2, -a FROM t
SELECT CASE a WHEN 1 THEN 2 ELSE 3 END, a ? 1 : 2, a::String, [1, 2][1], (1, 2).1, EXISTS (SELECT 1), a IS NULL FROM t
SELECT DATE '2020-01-01' + INTERVAL 1 DAY, extract(year FROM now()), date_trunc('day', now()), trim(BOTH 'x' FROM a)
SELECT arrayMap((x, y) -> x + y, [1], [2]), arrayMap(lower, ['A']), arrayJoin([1, 2])
SELECT * FROM t AS a LEFT JOIN u USING (x) ARRAY JOIN z AS y PREWHERE 1 WHERE 1
WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT * FROM r
SELECT 1 INTERSECT SELECT 2 EXCEPT SELECT 3
SELECT * FROM numbers(3), values('a Int8', 1), (VALUES (1)), view(SELECT 1), t SAMPLE 1 / 2
FROM t SELECT a
SELECT file, rows FROM export_log WHERE file LIKE 'btc%' ORDER BY file ASC
SELECT max(export_log.file) FROM export_log
SELECT id IN (SELECT file FROM export_log) FROM t
SELECT [file, file] FROM export_log
SELECT arrayMap(x -> x, [export_log.file]) FROM export_log
SELECT count() FROM merge('ch_mexc', '^btc_(current|[0-9]+)')
EXPLAIN SELECT 1
EXPLAIN SYNTAX SELECT 1
EXPLAIN PIPELINE SELECT 1
SHOW TABLES
SHOW TABLES FROM system NOT LIKE 'it\\'s%' LIMIT 3
SHOW DATABASES
SHOW COLUMNS FROM t
SHOW CREATE TABLE `a b`.t
DESCRIBE t
DESC TABLE ch_mexc.t
DESCRIBE (SELECT 1)
DESCRIBE TABLE numbers(3)
EXISTS TABLE t
""".strip().splitlines()
OTHERWISE = """
INSERT INTO t VALUES (1)
DROP TABLE btc_current
KILL QUERY WHERE 1
SET readonly = 0
SET ROLE loader
SYSTEM SHUTDOWN
USE other
SELECT 1; SELECT 2
SELECT 1; SELECT 1 INTO OUTFILE '/tmp/x'
SELECT 1) ; SELECT 1 INTO OUTFILE '/tmp/x' ; SELECT (1
SELECT 1) INTO OUTFILE '/tmp/x' -- (
SELECT 1 PARALLEL WITH DROP TABLE t
SELECT 1 INTO OUTFILE '/tmp/x' TRUNCATE
(SELECT 1) UNION ALL (SELECT 2) INTO OUTFILE '/tmp/x'
EXPLAIN SELECT 1 INTO OUTFILE '/tmp/x'
EXPLAIN AST SELECT 1 INTO OUTFILE '/tmp/x'
SHOW TABLES INTO OUTFILE '/tmp/x'
SHOW CREATE TABLE t INTO OUTFILE '/tmp/x'
SHOW CREATE TABLE t FORMAT CSV
EXISTS TABLE t INTO OUTFILE '/tmp/x'
DESCRIBE TABLE t INTO OUTFILE '/tmp/x'
DESCRIBE TABLE t) INTO OUTFILE '/tmp/x' -- (
DESCRIBE file('/etc/passwd')
DESCRIBE (SELECT file('/etc/passwd'))
SELECT 1 FORMAT CSV
SELECT 1 SETTINGS max_threads = 1
SELECT 1 FORMAT CSV SETTINGS max_threads = 1
SELECT * FROM t SETTINGS additional_table_filters = {'t': '1'}
SELECT file('/etc/passwd')
SELECT `file`('/etc/passwd')
SELECT FILE('/etc/passwd')
SELECT "fi\\x6ce"('/etc/passwd')
SELECT arrayMap(x -> file(x), ['/etc/passwd'])
SELECT arrayMap(file, ['/etc/passwd'])
SELECT arrayMap(file AS lower, ['/etc/passwd'])
SELECT arrayFilter(`file`, ['/etc/passwd'])
SELECT length(arrayFold(file, ['/etc/passwd'], ''))
SELECT mapApply(file, map('a', 'b'))
SELECT * APPLY file FROM t
SELECT * APPLY(sum) FROM t
SELECT COLUMNS('.*') APPLY (x -> file(x)) FROM t
SELECT * REPLACE (file('x') AS a) FROM t
SELECT sum(a) OVER (ORDER BY a ROWS BETWEEN file('x') PRECEDING AND CURRENT ROW) FROM t
SELECT sum(a) OVER w FROM t WINDOW w AS (PARTITION BY file('x'))
SELECT a FROM t ORDER BY a WITH FILL FROM 1 TO 3 STALENESS file('x')
SELECT a FROM t ORDER BY a WITH FILL INTERPOLATE (b AS file('x'))
SELECT 1 FROM t LIMIT file('x') BY a
SELECT 1 FROM t LIMIT 1 OFFSET file('x')
SELECT quantile(file('x'))(a) FROM t
SELECT a IN file('x') FROM t
SELECT * FROM t ASOF JOIN u ON t.a >= file('x')
WITH file('x') AS lower SELECT lower
WITH (x -> file(x)) AS lower SELECT lower('x')
SELECT * FROM Python('x')
SELECT * FROM url('http://192.0.2.1', 'CSV')
SELECT * FROM remote('192.0.2.1', 'a', 'b')
SELECT * FROM cluster('c', 'a', 'b')
SELECT * FROM executable('x', 'CSV', 'a Int8')
SELECT * FROM view(SELECT file('x'))
SELECT * FROM viewExplain('EXPLAIN', '', (SELECT file('x')))
SELECT hasColumnInTable('192.0.2.1:9000', 'default', '', 'a', 'b', 'c')
SELECT arrayMap(hasColumnInTable, ['a'], ['b'], ['c'])
SELECT aiGenerate('x')
SELECT AIClassify('x', ['a'])
SELECT reverseDNSQuery('192.0.2.1')
SELECT addressToLine(1)
SELECT nobodyJudgedThis('x')
SELECT sumNobodyJudged(1)
SELECT * FROM eval('SELECT 1')
SELECT * FROM arrowstream('x')
SELECT a AS `x\\n y` FROM t
SELECT {a:String}
EXPLAIN SELECT file('x')
EXPLAIN AST SELECT file('x')
EXPLAIN TABLE OVERRIDE file('x') COLUMNS (a Int8)
EXPLAIN INSERT INTO t SELECT 1
SELECT 'unfinished
""".strip().splitlines()


@pytest.fixture(scope="module")
def ask() -> Iterator[Callable[[str], list[str]]]:
    """The embedded engine, without any folder."""
    chdb = pytest.importorskip("chdb")
    connection = chdb.connect(":memory:")

    def asking(sql: str) -> list[str]:
        try:
            said = connection.query(sql, "JSONCompactEachRow").bytes()
        except Exception as error:
            raise RefusedError(str(error), 62 if "SYNTAX_ERROR" in str(error) else 1) from error
        return [json.loads(line)[0] for line in said.splitlines()]

    yield asking
    connection.close()


@pytest.mark.engine
@pytest.mark.parametrize("sql", READING)
def test_reading_is_let_through(ask: Callable[[str], list[str]], sql: str) -> None:
    understood = readonly.judged(sql, ask)
    assert readonly.judged(understood, ask) == understood


@pytest.mark.engine
@pytest.mark.parametrize("sql", ["", "--", "#x", "/* SELECT", *OTHERWISE])
def test_anything_else_is_refused(ask: Callable[[str], list[str]], sql: str) -> None:
    with pytest.raises((UserError, RefusedError)):
        readonly.judged(sql, ask)


@pytest.mark.engine
def test_every_function_of_the_engine_has_been_judged(ask: Callable[[str], list[str]]) -> None:
    """What a new engine adds is refused until somebody has looked at what it can reach, and here it is said."""
    known = readonly.known_functions()
    assert set(ask("SELECT lower(name) FROM system.functions")) - known == set(REACHING.split())
    assert set(ask("SELECT lower(name) FROM system.table_functions")) & known == set(TABLES.split())
    suffixes = ask("SELECT lower(name) FROM system.aggregate_function_combinators")
    assert [name for name in suffixes if readonly._SUFFIXES.fullmatch(name)] == suffixes


@pytest.mark.engine
def test_the_functions_that_take_functions_are_known_by_their_names(ask: Callable[[str], list[str]]) -> None:
    judged = set(ask("SELECT name FROM system.functions WHERE NOT is_aggregate"))
    taking = set()
    for name in judged:
        with suppress(RefusedError):
            said = ask(f"EXPLAIN QUERY TREE SELECT {name}(toUInt8, [1])")
            taking |= {name.lower()} & readonly.known_functions() if any("LAMBDA" in line for line in said) else set()
    assert {"arraymap", "arrayfilter"} <= taking
    assert [name for name in taking if not readonly._TAKES_FUNCTIONS.match(name)] == []


REACHING = """
addresstoline addresstolinewithinlines addresstosymbol aiclassify aiembed aiextract aifilter aigenerate airedact
aisimilarity aitranslate file generateserialid hascolumnintable logtrace naivebayesclassifier
naivebayesclassifierwithallprobs naivebayesclassifierwithprob regionhierarchy regionin regiontoarea regiontocity
regiontocontinent regiontocountry regiontodistrict regiontoname regiontopopulation regiontotopcontinent showcertificate
"""
"""Functions of the engine that reach a file, a host or a log of its process, or may be told to."""
TABLES = """
format fuzzquery generate_series generaterandom generateseries loop merge null numbers numbers_mt primes
sqlstandardvalues values view viewexplain viewifpermitted zeros zeros_mt
"""
"""Table functions that read nothing but what they are given and the database."""
LINES = st.lists(
    st.sampled_from(["Function lower", "Function file (children 1)", "Identifier file", "Set", " Literal 1"])
)


@given(LINES, st.lists(st.text()), st.randoms())
def test_no_line_makes_another_go_away(tree: list[str], more: list[str], some: Any) -> None:
    """Names and texts of the statement stand in the lines, with line feeds as they are."""
    try:
        doubtful = readonly.check(tree)
    except UserError:
        doubtful = None
    both = [*tree, *more]
    some.shuffle(both)
    try:
        found = readonly.check(both)
    except UserError:
        return
    assert doubtful is not None
    assert doubtful <= found


@pytest.mark.parametrize("code", [62, 47])
def test_what_the_engine_does_not_understand_is_not_run(code: int) -> None:
    def ask(sql: str) -> list[str]:
        if sql.startswith("EXPLAIN AST"):
            raise RefusedError("no", code)
        return ["SELECT 1 FORMAT CSV"]

    with pytest.raises(UserError if code == 62 else RefusedError):
        readonly.judged("SELECT 1 FORMAT CSV", ask)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT hasColumnInTable('192.0.2.1:9000', 'default', '', 'a', 'b', 'c')",
        "SELECT `hasColumnInTable`('a', 'b', 'c')",
        "SELECT `has\\x43olumnInTable`('a', 'b', 'c')",
        "SELECT `has\\ColumnInTable`('a', 'b', 'c')",
        "SELECT 1 /* */, hasColumnInTable\n('a', 'b', 'c')",
        "DROP TABLE t",
        "SELECT 1\0",
        "SELECT \ud800",
    ],
)
def test_an_old_servers_statement_is_judged_by_its_words(sql: str) -> None:
    with pytest.raises(UserError, match=r"^query: "):
        readonly.judged_by_words(sql)


def test_an_old_server_gets_the_statement_as_it_is() -> None:
    assert readonly.judged_by_words(" SELECT count() FROM t WHERE m LIKE '\\_%' ; ") == (
        "SELECT count() FROM t WHERE m LIKE '\\_%' "
    )


@pytest.mark.parametrize(
    "sql", ["select 1", " (select 1)", "-- why\nSELECT 1", "/* x\n */ (/* y */ with 1 as x select x)"]
)
def test_the_first_word_is_one_of_reading(sql: str) -> None:
    readonly.opening(sql)


@pytest.mark.parametrize(
    "sql", ["", "--", "KILL QUERY WHERE 1", "/* /* */ select 1 */ KILL QUERY WHERE 1", "/* SELECT", "#x"]
)
def test_the_first_word_is_another(sql: str) -> None:
    with pytest.raises(UserError, match=r"^query: only reading"):
        readonly.opening(sql)


@given(st.text())
def test_a_statement_reaches_the_parser_as_one_value_or_not_at_all(sql: str) -> None:
    try:
        question = readonly.asked(sql)
    except UserError:
        return
    head, tail = "SELECT formatQuerySingleLine('", "')"
    assert question.startswith(head)
    assert question.endswith(tail)
    value = question[len(head) : -len(tail)]
    assert value.replace("\\\\", "").replace("\\'", "").find("'") == -1
    assert value.replace("\\'", "'").replace("\\\\", "\\") == sql or "\\" in sql


@given(st.lists(st.text()))
def test_judging_never_fails_otherwise(tree: list[str]) -> None:
    with suppress(UserError):
        readonly.check(tree)


class Newer:
    """A server from 23.1 on as its client sees it: it parses as the embedded engine does."""

    def __init__(self, ask: Callable[[str], list[str]]) -> None:
        self._ask = ask

    def execute(self, sql: str) -> list[tuple[bytes]]:
        try:
            return [(said.encode(),) for said in self._ask(sql)]
        except RefusedError as error:
            raise errors.ServerException(str(error), error.code) from error


class Older:
    """One that cannot say what it understands."""

    def execute(self, _sql: str) -> list[tuple[bytes]]:
        raise errors.ServerException("Unknown function formatQuerySingleLine", 46)


@pytest.mark.engine
def test_a_server_that_parses_for_us_is_asked_to(ask: Callable[[str], list[str]]) -> None:
    assert server._understood(Newer(ask), "select /* x */ 1;") == "SELECT 1"
    for sql in OTHERWISE:
        with pytest.raises((UserError, RefusedError)):
            server._understood(Newer(ask), sql)


def test_another_server_is_not() -> None:
    assert server._understood(Older(), "select /* x */ 1;") == "select /* x */ 1"
    with pytest.raises(UserError, match="only reading"):
        server._understood(Older(), "DROP TABLE t")


@pytest.mark.engine
def test_no_statement_makes_itself_be_judged_by_its_words(ask: Callable[[str], list[str]]) -> None:
    def asking(sql: str) -> list[str]:
        if "strange" in sql:
            raise RefusedError("Unknown function", 46)
        return ask(sql)

    with pytest.raises(RefusedError):
        server._understood(Newer(asking), "SELECT strange")
