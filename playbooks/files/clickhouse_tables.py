"""Saves, loads or drops ClickHouse tables on the server: ``save|load|drop|retire FOLDER DATABASE [ID…]``.

Only the logs are saved (export_log and the like): a table of rows is a copy that the recorder makes anew from its
spool. ``drop`` drops these, ``retire`` only those of which every row is in a verified file: of the ids named, and with
``retire - DATABASE ID… but ID…`` also of every other id but those, once nobody has recorded it for a while.
Runs as root with the operating system's Python, and reads with the client settings that the role gave root. Writing
takes the store's user, whose password goes to the client in a file that only root can read.
"""

# ruff: noqa: T201 - what it prints is its answer
from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

CREDENTIALS = Path("/etc/clickhouse-server/credentials")
CLIENT = Path("/root/.clickhouse-client/config.xml")
_ROWS = re.compile(
    r"([a-z](?:[a-z0-9]{0,18}[a-z])?)_"
    r"(?:current|next|reload|probe|(?:\d{10}|\d{14})(?:_part\d+)?|(orphan|altered)_\d{14}(?:_\d+)?)"
)
"""A table of rows, by what follows the symbol's id: a log whose name begins like an id is none."""
QUIET_S = 600
"""Seconds without statistics after which a symbol that no inventory names counts as recorded by nobody."""
LOGS = ("export_log", "egress_log", "collector_stats", "refused_rows")


class UserError(Exception):
    """Something outside of this program is not as it must be; the message says what, and what to do."""


class Client:
    """``clickhouse-client`` as the store's user."""

    def __init__(self, database: str, folder: Path) -> None:
        self._database = database
        password = _written_by_the_role(CREDENTIALS / "mexc_store").strip()
        text = re.sub(r"<user>.*?</user>", "<user>mexc_store</user>", _written_by_the_role(CLIENT))
        text = re.sub(r"<password>.*?</password>", lambda _: f"<password>{password}</password>", text)
        self._config = folder / "client.xml"
        self._config.touch(0o600)
        self._config.write_text(text)

    def run(self, sql: str, *, source: Path | None = None, target: Path | None = None) -> str:
        """One statement; its input from and its output to a file where one is named."""
        command = [
            "clickhouse-client",
            "--config-file",
            str(self._config),
            "--database",
            self._database,
            "--query",
            sql,
        ]
        with ExitStack() as files:
            stdin = files.enter_context(source.open("rb")) if source else subprocess.DEVNULL
            stdout = files.enter_context(target.open("wb")) if target else subprocess.PIPE
            try:
                done = subprocess.run(command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, check=False)
            except OSError as error:
                raise UserError(
                    f"clickhouse-client cannot be run: {error.strerror}; PATH is {os.environ.get('PATH')}"
                ) from error
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip() or f"clickhouse-client ended with {done.returncode}"
            raise UserError(f"{sql[:80]}: {said}; see that clickhouse-server runs, then run the playbook again")
        try:
            return (done.stdout or b"").decode()
        except UnicodeDecodeError as error:
            raise UserError(f"{sql[:80]}: what ClickHouse answers is no text: {error}") from error

    def tables(self) -> list[str]:
        return self.run("SHOW TABLES").split()


def _written_by_the_role(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UserError(
            f"{path} cannot be read: {why}; site.yml writes it (remove it first if it is damaged)"
        ) from error


def save(client: Client, folder: Path) -> None:
    """Each log as its CREATE statement and its rows in ClickHouse's own format."""
    folder.mkdir(parents=True, mode=0o700)
    for table in (name for name in LOGS if name in client.tables()):
        (folder / f"{table}.sql").write_text(client.run(f"SHOW CREATE TABLE {table} FORMAT TabSeparatedRaw"))
        client.run(f"SELECT * FROM {table} FORMAT Native", target=folder / f"{table}.native")
        print(f"{table}: {client.run(f'SELECT count() FROM {table}').strip()} rows saved")


def load(client: Client, folder: Path) -> None:
    """Logs that are missing or empty; what has rows is left alone."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not there; nothing was changed")
    present = client.tables()
    for path in (folder / f"{table}.native" for table in LOGS if (folder / f"{table}.native").exists()):
        table = path.stem
        if table not in present:
            client.run(_saved(path.with_suffix(".sql")))
        elif client.run(f"SELECT count() FROM {table}").strip() != "0":
            print(f"{table} has rows already, left alone")
            continue
        if path.stat().st_size:
            client.run(f"INSERT INTO {table} FORMAT Native", source=path)
        print(f"{table}: {client.run(f'SELECT count() FROM {table}').strip()} rows loaded")


def _saved(path: Path) -> str:
    try:
        return path.read_text()
    except UnicodeDecodeError:
        raise UserError(f"{path} is damaged: it is no text; take another backup") from None


def drop(client: Client, ids: list[str]) -> None:
    """Every table of rows of these symbols."""
    for table in client.tables():
        match = _ROWS.fullmatch(table)
        if match and match[1] in ids:
            client.run(f"DROP TABLE {table}")
            print(f"{table} dropped")


def retire(client: Client, words: list[str]) -> None:
    """What is left of symbols that nobody records any more. A table with a row that is in no verified file stays,
    and so does one that was set apart: it holds what no file has.

    Ids that an earlier run took down and could not finish with stand in no inventory any more. They are found by their
    tables: whatever is not among the ids after ``but``, and has written no statistics of late.
    """
    at = words.index("but") if "but" in words else len(words)
    ids, present = words[:at], words[at + 1 :]
    tables = client.tables()
    if present and "collector_stats" in tables:
        alive = client.run(f"SELECT DISTINCT id FROM collector_stats WHERE at > now() - {QUIET_S}").split()
        rows = {match[1] for table in tables if (match := _ROWS.fullmatch(table)) and f"{match[1]}_current" in tables}
        ids += sorted(rows - {*present, *alive, *ids})
    for table in tables:
        match = _ROWS.fullmatch(table)
        if match is None or match[1] not in ids or match[2]:
            continue
        rows, first, last = map(int, client.run(f"SELECT count(), min(seq), max(seq) FROM {table}").split())
        is_told = {"export_log", "holdings"} <= set(tables)
        proven = _proven(client, match[1], table) if rows and is_told else []
        if not rows or any(begin <= first and last <= end for begin, end in proven):
            client.run(f"DROP TABLE {table}")
            print(f"{table} dropped")
        else:
            print(f"{table} stays: it has rows that are in no verified file")


def _proven(client: Client, symbol_id: str, table: str) -> list[tuple[int, int]]:
    """First and last seq of each run of rows that verified files hold without a hole: of the spool that gave the rows
    of this table. Another one's may have the same seqs, and are other rows."""
    runs: list[tuple[int, int]] = []
    spool_id = f"SELECT argMax(spool_id, n) FROM holdings WHERE id = '{symbol_id}' AND name = '{table}'"
    where = f"id = '{symbol_id}' AND verdict = 'verified' AND spool_id IN ({spool_id})"
    for line in client.run(f"SELECT first_seq, last_seq FROM export_log WHERE {where} ORDER BY first_seq").splitlines():
        first, last = map(int, line.split())
        if runs and first <= runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], max(last, runs[-1][1]))
        else:
            runs.append((first, last))
    return runs


def main() -> int:
    """Run one of the four."""
    verb, folder, database, *ids = sys.argv[1:]
    with tempfile.TemporaryDirectory() as private:
        client = Client(database, Path(private))
        if verb == "save":
            save(client, Path(folder))
        elif verb == "load":
            load(client, Path(folder))
        elif verb == "retire":
            retire(client, ids)
        else:
            drop(client, ids)
    return 0


def end(main: Callable[[], int]) -> NoReturn:
    """End the process with ``main``'s status; what failed outside of this program is one line, and the status 1."""
    try:
        sys.exit(main())
    except (UserError, OSError) as error:
        is_of_file = isinstance(error, OSError) and error.filename is not None
        said = f"{error.filename}: {error.strerror}" if is_of_file else str(error)
        line = " ".join(said.split())
        sys.exit("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line))


if __name__ == "__main__":
    end(main)
