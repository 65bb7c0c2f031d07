"""What a user's statement may be, judged in the engine's own words."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mexc_pipeline.errors import UserError
from mexc_pipeline.store import readonly


@pytest.mark.parametrize(
    "understood",
    [
        "SELECT 1",
        "SELECT count() FROM btc_current WHERE m LIKE '%;%'",
        "WITH 1 AS x SELECT x",
        "(SELECT 1) UNION ALL (SELECT 2)",
        "SHOW TABLES",
        "DESCRIBE TABLE btc_current",
        "EXISTS TABLE btc_current",
        "EXPLAIN SELECT 1",
        "SELECT 'INTO OUTFILE', 'file(', `format`, format FROM t AS format",
        "SELECT `a b`, 'it\\'s', `it\\`s` FROM t",
        "SELECT * FROM numbers(3)",
        "SELECT file, rows FROM export_log WHERE file LIKE 'btc%' ORDER BY file ASC",
        "SELECT max(export_log.file) FROM export_log",
        "SELECT id IN (SELECT file FROM export_log) FROM t",
        "SELECT [file, file] FROM export_log",
    ],
)
def test_reading_is_let_through(understood: str) -> None:
    assert readonly.check(understood) == understood


@pytest.mark.parametrize(
    "understood",
    [
        "",
        "INSERT INTO t VALUES (1)",
        "DROP TABLE btc_current",
        "KILL QUERY WHERE 1",
        "SET readonly = 0",
        "SET ROLE loader",
        "SYSTEM SHUTDOWN",
        "USE other",
        "SELECT 1 PARALLEL WITH DROP TABLE t",
        "SELECT 1 INTO OUTFILE '/tmp/x' TRUNCATE",
        "EXPLAIN SELECT 1 INTO OUTFILE '/tmp/x'",
        "SELECT 1 FORMAT CSV",
        "SELECT 1 FORMAT CSV SETTINGS max_threads = 1",
        "SELECT file('/etc/passwd')",
        "SELECT `file`('/etc/passwd')",
        "SELECT arrayMap(x -> file(x), ['/etc/passwd'])",
        "SELECT arrayMap(file, ['/etc/passwd'])",
        "SELECT f(arrayMap(`file`, ['/etc/passwd']))",
        "SELECT * APPLY file FROM t",
        "SELECT COLUMNS('.*') APPLY (x -> file(x)) FROM t",
        "SELECT * FROM Python('x')",
        "SELECT hasColumnInTable('192.0.2.1:9000', 'default', '', 'a', 'b', 'c')",
        "SELECT `hasColumnInTable`('a', 'b', 'c')",
        "SELECT arrayMap(hasColumnInTable, ['a'], ['b'], ['c'])",
        "SELECT aiGenerate('x')",
        "SELECT AIClassify('x', ['a'])",
        "SELECT arrayMap(aiEmbed, ['x'])",
        "SELECT * FROM eval('SELECT 1')",
        "SELECT * FROM arrowstream('x')",
        "SELECT 'unfinished",
    ],
)
def test_anything_else_is_refused(understood: str) -> None:
    with pytest.raises(UserError, match=r"^query: "):
        readonly.check(understood)


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


@given(st.text())
def test_judging_never_fails_otherwise(understood: str) -> None:
    with suppress(UserError):
        assert readonly.check(understood) == understood


JUDGED = """
azureblobstorage azureblobstoragecluster bigquery cluster clusterallreplicas cosn deltalake deltalakeazure
deltalakeazurecluster deltalakecluster deltalakelocal deltalakes3 deltalakes3cluster dictionary executable
filecluster filesystem format fuzzjson fuzzquery gcs generate_series generaterandom generateseries hdfs
hdfscluster hudi hudicluster iceberg icebergazure icebergazurecluster icebergcluster iceberghdfs
iceberghdfscluster iceberglocal iceberglocalcluster icebergs3 icebergs3cluster input jdbc loop merge
mergetreeanalyzeindexes mergetreeanalyzeindexesuuid mergetreecodecblockcounts mergetreeindex mergetreeprojection
mergetreetextindex mongodb mysql null numbers numbers_mt odbc oss paimon paimonazure paimonazurecluster
paimoncluster paimonhdfs paimonhdfscluster paimonlocal paimons3 paimons3cluster postgresql primes
prometheusquery prometheusqueryrange redis remote remotesecure s3 s3cluster sqlite sqlstandardvalues
timeseriesdata timeseriesmetricfamilies timeseriesmetrics timeseriessamples timeseriesselector timeseriestags
url urlcluster values view viewexplain viewifpermitted ytsaurus zeros zeros_mt
"""
"""Table functions of the engine that read nothing but the database, or that the reading role has no right to."""
CATEGORIES = [
    "AI",
    "Arithmetic",
    "Arrays",
    "Bit",
    "Bitmap",
    "Comparison",
    "Conditional",
    "Dates and Times",
    "Dictionary",
    "Distance",
    "Embedded Dictionary",
    "Encoding",
    "Encryption",
    "Financial",
    "Geo",
    "Geo Polygon",
    "Hash",
    "IP Address",
    "Internal",
    "Introspection",
    "JSON",
    "Logical",
    "Machine Learning",
    "Map",
    "Mathematical",
    "Null",
    "NumericIndexedVector",
    "Other",
    "QBit",
    "Random Number",
    "Rounding",
    "String",
    "String Replacement",
    "String Search",
    "String Splitting",
    "Time Series",
    "Time Window",
    "Tuple",
    "Type Conversion",
    "URL",
    "UUID",
]


@pytest.mark.engine
def test_every_function_of_the_engine_has_been_judged() -> None:
    """A new table function, or a new kind of function, is to be looked at: what can it reach?"""
    query = pytest.importorskip("chdb").query

    def column(sql: str) -> set[str]:
        return set(query(sql, "TSV").bytes().decode().splitlines()) - {""}

    assert column("SELECT lower(name) FROM system.table_functions") - readonly._REACHING == set(JUDGED.split())
    asking = column("SELECT lower(name) FROM system.functions WHERE categories = 'AI' OR name ILIKE 'ai%'")
    assert asking
    assert asking <= readonly._REACHING
    assert column("SELECT categories FROM system.functions WHERE NOT is_aggregate") == set(CATEGORIES)
