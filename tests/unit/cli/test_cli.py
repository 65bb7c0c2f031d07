"""The command line: help everywhere, one line per error, exit statuses, nothing heavy for a collector."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from mexc_pipeline import config
from mexc_pipeline.cli import app
from mexc_pipeline.cli.app import cli, invoke
from mexc_pipeline.cli.reports import rest_in_use
from mexc_pipeline.control import ControlServer
from mexc_pipeline.errors import ConfigError, UserError
from mexc_pipeline.overview import far_end
from mexc_pipeline.simulator.bundle import FORMAT
from support.repository import ROOT

COMMANDS = [
    "run", "demo", "collect", "store", "export", "verify", "status", "ledger", "query", "doctor", "simulate", "import",
    "completion", "probe", "metrics", "dashboard",
]  # fmt: skip


def _walk(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None, name
            yield from _walk(below, f"{path} {name}")


@pytest.mark.parametrize(
    ("command", "text", "status", "said"),
    [
        (["collect", "btc"], '[exchange]\nca_file = "{}/none"', 2, "exchange.ca_file: {}/none: No such file"),
        (["collect", "btc"], '[egress]\nmode = "socks5h://h:1"\ncredentials_file = "{}/none"', 2,
         "egress.credentials_file: {}/none: No such file"),
        (["store"], '[clickhouse]\nmode = "server"\npassword_file = "{}/none"', 2,
         "clickhouse.password_file: {}/none: No such file"),
        (["store"], '[clickhouse]\nmode = "server"\nca_file = "{}/settings.toml"', 2,
         "clickhouse.ca_file: {}/settings.toml: no certificate (PEM) in it"),
        (["run"], '[exchange]\nca_file = "{}/none"', 1, "exchange.ca_file: {}/none: No such file"),
        *((command, "", 1, "require_mount: nothing is mounted at {}")
          for command in (["collect", "btc"], ["store"], ["export"], ["run"], ["import", "old.parquet"])),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str], text: str, status: int, said: str
) -> None:
    path = tmp_path / "settings.toml"
    mount = f'require_mount = ["{tmp_path}"]\n' if "mount" in said else ""
    folders = f'symbols = ["BTC_USDT"]\ndata_dir = "{tmp_path}/data"\nexport_dir = "{tmp_path}/exports"\n'
    path.write_text(f"{folders}{mount}{text.format(tmp_path)}\n")
    done = subprocess.run(
        [sys.executable, "-m", "mexc_pipeline", "--config", str(path), *command], capture_output=True, text=True
    )
    assert done.returncode == status
    assert said.format(tmp_path) in done.stderr.splitlines()[-1]
    assert "()" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "exports").exists()


@pytest.mark.parametrize("command", [["collect", "btc"], ["status"], ["export"]])
def test_a_configuration_that_is_no_file_is_not_waited_for(tmp_path: Path, command: list[str]) -> None:
    """A FIFO without a writer once held every command for ever."""
    path = tmp_path / "settings.toml"
    os.mkfifo(path)
    done = subprocess.run(
        [sys.executable, "-m", "mexc_pipeline", "--config", str(path), *command],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert done.stderr == f"mexc-pipeline: cannot read configuration {path}: is a FIFO\n"


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text(f'symbols = ["BTC_USDT"]\ndata_dir = "{tmp_path}/data"\nexport_dir = "{tmp_path}/exports"\n')
    return path


def _one_error_line(capsys: pytest.CaptureFixture[str]) -> str:
    err = capsys.readouterr().err
    assert err.strip().count("\n") == 0, err
    assert "Traceback" not in err
    assert err.strip().startswith("mexc-pipeline: ")
    return err


def test_the_contracts_commands_are_there() -> None:
    assert set(COMMANDS) <= set(cli.list_commands(click.Context(cli)))


def test_every_path_of_every_command_may_begin_with_a_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    seen = 0
    for path, command in _walk(cli, "mexc-pipeline"):
        for param in command.params:
            if isinstance(param.type, click.Path):
                name = "file" if param.type.file_okay else "folder"
                assert param.type.convert(f"~/{name}", param, None) == tmp_path / name, (path, param.name)
                with pytest.raises(click.BadParameter, match="no such home folder"):
                    param.type.convert("~nobody-of-this-name/x", param, None)
                seen += 1
    assert seen > 15


@pytest.mark.parametrize(
    ("egress", "shown"),
    [
        ({"mode": "direct"}, None),
        ({"peer": "192.0.2.1:443"}, "192.0.2.1:443"),
        ({"peer": "192.0.2.1:443", "url": "wss://b.example/edge"}, "b.example (192.0.2.1:443)"),
        ({"peer": "192.0.2.1:443", "url": "wss://192.0.2.1/edge"}, "192.0.2.1:443"),
        ({"peer": "unix:/s", "exit": "192.0.2.9", "url": "wss://b.example"}, "b.example (exit 192.0.2.9)"),
    ],
)
def test_status_says_which_host_is_in_use(egress: dict[str, str], shown: str | None) -> None:
    assert far_end(egress) == shown


def test_status_says_which_rest_address_is_in_use_where_there_are_several() -> None:
    def of(symbol: str, url: str, of: int, answered: bool = True) -> dict[str, Any]:
        return {"id": symbol, "collector": {"rest": {"url": url, "of": of, "answered": answered}}}

    away = {"id": "sol", "collector": {"problem": "no answer"}}
    assert rest_in_use([of("btc", "https://a", 1), away]) == []
    assert rest_in_use(
        [of("btc", "https://b", 2), of("eth", "https://b", 2), of("x", "https://a", 2, False), away]
    ) == [
        "REST in use by btc, eth: https://b",
        "REST in use by x: https://a, which has not answered yet",
    ]


def test_every_command_and_every_option_has_help() -> None:
    seen = 0
    for path, command in _walk(cli, "mexc-pipeline"):
        assert command.help, path
        for param in command.params:
            if isinstance(param, click.Option):
                assert param.help, f"{path} {param.opts}"
                seen += 1
    assert seen > 20


def test_every_command_takes_config_after_its_name() -> None:
    for path, command in _walk(cli, "mexc-pipeline"):
        assert "--config" in {opt for param in command.params for opt in param.opts}, path


@pytest.mark.parametrize("name", COMMANDS)
def test_help_exits_0(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke([name, "--help"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Usage: mexc-pipeline ")
    assert err == ""


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["nonsense"], "nonsense"),
        (["run", "--bogus"], "--bogus"),
        (["run", "--duration", "soon"], "soon"),
        (["collect"], "ID"),
        (["verify", "everything"], "everything"),
        (["export", "--once", "--copy-to", "x"], "--copy-to"),
        (["simulate", "--port", "99999"], "99999"),
        (["simulate", "--port", "0", "--tls-cert", __file__], "--tls-key"),
        (["query", " "], "empty"),
        (["completion", "powershell"], "powershell"),
        (["store", "--parent-fd", "987654"], "987654"),
    ],
)
def test_wrong_usage_exits_2_in_one_line(args: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(args) == 2
    assert named in _one_error_line(capsys)


def test_every_number_says_how_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    seen = 0
    for path, command in _walk(cli, "mexc-pipeline"):
        words = path.split()[1:]
        for param in command.params:
            if not isinstance(param.type, type(click.INT) | type(click.FLOAT)):
                continue
            given = [param.opts[0], "x"] if isinstance(param, click.Option) else ["btc", "x", "x", "--reason", "r"]
            assert invoke([*words, *given]) == 2
            assert re.search(r"'x' is not a (whole )?number.*, such as \d", _one_error_line(capsys)), param
            seen += 1
    assert seen > 8


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["acknowledge", "btc", "0", "3", "--reason", "r"], "0 is not a whole number of at least 1, such as 1"),
        (["query", "x", "--max-rows", "0"], "0 is not a whole number from 1 to 1000000, such as 10000"),
        (["simulate", "--rate", "0"], "0.0 is not a number above 0, such as"),
        (["demo", "--rate", "much"], "'much' is not a number of at least 0.1, such as 60"),
    ],
)
def test_a_number_that_does_not_fit_is_told_its_bounds(
    args: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(args) == 2
    assert said in _one_error_line(capsys)


def test_a_fault_of_a_symbol_that_is_not_listed_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    fault = "kind=retired symbol=XXX channel=deal"
    assert invoke(["simulate", "--symbols", "BTC_USDT,ETH_USDT", "--fault", fault]) == 2
    assert "fault retired: symbol 'XXX' is not listed here; BTC_USDT, ETH_USDT are" in _one_error_line(capsys)


def test_no_command_shows_help_and_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke([]) == 2
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [["run"], ["store"], ["collect", "btc"], ["export"], ["status"], ["doctor"], ["query", "x"]]
)
@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('symbols = ["btc"]', "'btc'"),
        ("spool_keeep = 1", "spool_keeep"),
        ("[channels]\ndepth = 'full7'", "full20"),
        ("symbols = ]", "line 1"),
    ],
)
def test_a_wrong_configuration_exits_2_before_anything_starts(
    tmp_path: Path, command: list[str], text: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    assert invoke([*command, "--config", str(path)]) == 2
    error = _one_error_line(capsys)
    assert named in error
    assert str(path) in error
    assert list(tmp_path.iterdir()) == [path]


def test_an_unknown_symbol_exits_2_and_names_the_choices(settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["collect", "doge", "--config", str(settings)]) == 2
    assert "choose one of: btc" in _one_error_line(capsys)


def test_config_before_after_and_by_variable(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.toml"
    other.write_text(settings.read_text().replace("BTC_USDT", "DOGE_USDT"))

    def symbol(args: list[str]) -> str:
        invoke(args)
        found: str = json.loads(capsys.readouterr().out)["symbols"][0]["id"]
        return found

    assert symbol(["--config", str(settings), "status", "--json"]) == "btc"
    assert symbol(["status", "--json", "--config", str(settings)]) == "btc"
    assert symbol(["--config", str(other), "status", "--json", "--config", str(settings)]) == "btc"
    monkeypatch.setenv("MEXC_PIPELINE_CONFIG", str(other))
    assert symbol(["status", "--json"]) == "doge"
    assert symbol(["--config", str(settings), "status", "--json"]) == "btc"
    assert symbol(["status", "--json", "--config", str(settings)]) == "btc"


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("the disk is full"), 1, "the disk is full"),
        (ConfigError("no such key"), 2, "no such key"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (RuntimeError("a\nb"), 1, "unexpected RuntimeError: a b"),
        (MemoryError(), 1, "mexc-pipeline: Cannot allocate memory: let it have more (ulimit -v)"),
    ],
)
def test_errors_become_one_line_and_a_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, status: int, said: str
) -> None:
    def fail(_path: Path | None) -> config.Config:
        raise error

    monkeypatch.setattr(config, "load", fail)
    assert invoke(["status"]) == status
    assert said in _one_error_line(capsys)


def _of_system(number: int, path: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), path) if path else OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            _of_system(errno.EACCES, "data/spool"),
            "{cwd}/data/spool: Permission denied: give this user the right",
        ),
        (_of_system(errno.ENOSPC, "/x/y"), "/x/y: No space left on device: make room there"),
        (_of_system(errno.EROFS, "exports"), "{cwd}/exports: Read-only file system: choose another place"),
        (_of_system(errno.ENOTDIR, "data"), "{cwd}/data: Not a directory: move what stands in a folder's place away"),
        (_of_system(errno.EMFILE), "Too many open files: let this user open more files"),
        (_of_system(errno.ENOENT, "/x"), "unexpected FileNotFoundError: [Errno 2] No such file or directory: '/x'"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_refusal_of_the_system_says_which_file_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    error: OSError,
    said: str,
    wrapped: bool,
) -> None:
    """Also where a part has passed its bare words on; without a configuration, also why it is about that folder."""

    def fail(_path: Path | None) -> config.Config:
        if wrapped:
            raise UserError(str(error)) from error
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEXC_PIPELINE_CONFIG", raising=False)
    monkeypatch.setattr(config, "load", fail)
    hint = "; no configuration was given (--config), so its folders are those of where it is run"
    assert invoke(["status"]) == 1
    line = _one_error_line(capsys).strip()
    assert said.format(cwd=tmp_path).removeprefix("unexpected FileNotFoundError: " if wrapped else "") in line
    assert line.endswith(hint) == ("{cwd}" in said)
    assert invoke(["status", "--config", "x.toml"]) == 1
    assert hint not in _one_error_line(capsys)


def test_status_before_any_recording_says_how_to_begin(
    settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["status", "--config", str(settings)]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert out == f"nothing was recorded yet in {tmp_path}/data; start it with: mexc-pipeline run"
    assert invoke(["status", "--json", "--config", str(settings)]) == 1
    assert json.loads(capsys.readouterr().out)["recorded"] is False
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / "btc2026112120.parquet").write_bytes(b"")
    assert invoke(["status", "--config", str(settings)]) == 1
    assert "not running" in capsys.readouterr().out, "there are files: something was recorded"


def test_what_cannot_be_acknowledged_is_named(settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--reason", "x", "--config", str(settings)]
    assert invoke(["acknowledge", "nope", "1", "2", *given]) == 2
    assert "'nope' is not a configured symbol; choose one of: btc" in _one_error_line(capsys)
    assert invoke(["acknowledge", "btc", "5", "2", *given]) == 2
    assert "seq 5 to 2 runs backwards" in _one_error_line(capsys)
    assert invoke(["acknowledge", "BTC_USDT", "2", "5", *given]) == 1
    assert "btc has no hole of seq 2 to 5" in _one_error_line(capsys)


@pytest.mark.parametrize("like", [False, True])
@pytest.mark.parametrize(
    ("host", "advice"),
    [
        ("192.0.2.1", "cannot listen on 192.0.2.1: no address of this machine; choose another --host"),
        ("no-such-host.invalid", "cannot listen on no-such-host.invalid: "),
        ("127.0.0.1", "Address already in use; choose another --port"),
    ],
)
def test_where_the_simulator_cannot_listen_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str, advice: str, like: bool
) -> None:
    bundle = tmp_path / "bundle.ndjson"
    refused = {"conn": 1, "at": 0, "refused": "BTC_USDT", "status": 503, "headers": {}, "body": ""}
    bundle.write_text(json.dumps({"bundle": FORMAT, "symbols": ["BTC_USDT"]}) + "\n" + json.dumps(refused) + "\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        args = ["simulate", "--host", host, "--port", port, *(["--like", str(bundle)] if like else [])]
        assert invoke(args) == 1
    said = _one_error_line(capsys)
    assert advice in said
    assert ("--port" in said) == (host == "127.0.0.1")


def test_status_says_what_does_not_run_and_exits_1(settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (settings.parent / "data" / "spool").mkdir(parents=True)
    assert invoke(["status", "--config", str(settings)]) == 1
    out = capsys.readouterr().out
    assert "store is not running" in out
    assert "btc is not running" in out


def test_status_shows_channels_backlog_and_the_exchanges_words(
    settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {
        "id": "btc", "symbol": "BTC_USDT", "state": "live", "last_seq": 42, "rows": {"t": 2, "d": 40}, "reconnects": 1,
        "channels": {"push.ticker": {"confirmed": "ack", "age_s": 0.25}}, "exchange_said": "Contract not exists",
        "egress": {"mode": "direct", "peer": "203.0.113.9:443", "local": ""}, "warnings": ["inbox is long"],
    }  # fmt: skip
    stored = {"engine": "chDB 26", "reachable": True, "error": None, "symbols": {"btc": {"backlog": 7}}}
    control = tmp_path / "data" / "control"
    collector = ControlServer(control / "btc.sock", {"status": lambda _: dict(said)})
    store = ControlServer(control / "store.sock", {"status": lambda _: dict(stored)})
    try:
        assert invoke(["status", "--config", str(settings)]) == 0
        out = capsys.readouterr().out
        for word in (
            "live",
            "42",
            "push.ticker",
            "0.2 s ago",
            "Contract not exists",
            "inbox is long",
            "203.0.113.9:443",
        ):
            assert word in out, word
        assert invoke(["status", "--json", "--config", str(settings)]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["symbols"][0]["store"]["backlog"] == 7
    finally:
        collector.close()
        store.close()


def test_query_asks_the_running_store(settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[dict[str, object]] = []

    def answer(request: dict[str, object]) -> dict[str, object]:
        asked.append(request)
        return {"columns": ["n"], "types": ["UInt64"], "rows": [[18446744073709551615]], "truncated": True}

    store = ControlServer(tmp_path / "data" / "control" / "store.sock", {"query": answer})
    try:
        args = ["query", "SELECT 1", "--max-rows", "1", "--config", str(settings)]
        assert invoke(args) == 0
        out, err = capsys.readouterr()
        assert "18446744073709551615" in out
        assert "only the first 1 row;" in err
        assert invoke([*args, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["rows"] == [[18446744073709551615]]
    finally:
        store.close()
    assert [(a["sql"], a["max_rows"]) for a in asked] == [("SELECT 1", 1)] * 2


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (ConfigError("query: only reading is allowed, not DROP"), 2),
        (UserError("query: Unknown table expression identifier 'nope'"), 1),
    ],
)
def test_what_the_running_store_refuses_of_a_query_is_its_sentence(
    settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], refusal: UserError, status: int
) -> None:
    def refuse(_: dict[str, object]) -> dict[str, object]:
        raise refusal

    store = ControlServer(tmp_path / "data" / "control" / "store.sock", {"query": refuse})
    try:
        assert invoke(["query", "DROP TABLE nope", "--config", str(settings)]) == status
    finally:
        store.close()
    assert _one_error_line(capsys) == f"mexc-pipeline: {refusal}\n"


@pytest.mark.engine
def test_doctor_exits_1_only_on_a_hard_fault(
    settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with settings.open("a") as file:
        file.write('[exchange]\nrest = "http://127.0.0.1:1"\n')
    assert invoke(["doctor", "--json", "--config", str(settings)]) == 0
    assert json.loads(capsys.readouterr().out)["ok"]
    (tmp_path / "exports").write_text("in the way")
    assert invoke(["doctor", "--config", str(settings)]) == 1
    assert "FAIL export_dir writable" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["completion", shell]) == 0
    assert "_MEXC_PIPELINE_COMPLETE" in capsys.readouterr().out


def test_completion_knows_the_configured_symbols(settings: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", "import sys; from mexc_pipeline.cli import main; sys.argv[0] = 'mexc-pipeline'; main()"],
        env={
            "MEXC_PIPELINE_CONFIG": str(settings),
            "_MEXC_PIPELINE_COMPLETE": "bash_complete",
            "COMP_WORDS": "mexc-pipeline collect ",
            "COMP_CWORD": "2",
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert found.stdout.split() == ["plain,btc"], found.stderr


def test_a_collectors_command_line_loads_nothing_heavy() -> None:
    heavy = ["rich", "pandas", "numpy", "pyarrow", "chdb", "clickhouse_driver", "websockets"]
    code = (
        "import sys, json; from mexc_pipeline.cli.app import cli; import click;"
        "cli.get_command(click.Context(cli), 'collect'); import mexc_pipeline.collector;"
        f"print(json.dumps([m for m in {heavy!r} if m in sys.modules]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(found.stdout) == []


def test_a_reader_that_leaves_early_causes_no_noise() -> None:
    done = subprocess.run(
        f"{sys.executable} -m mexc_pipeline completion bash | true; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr == ""


def test_debug_logs_the_traceback_of_an_unexpected_error(
    settings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mexc_pipeline.cli import reports

    def fail(*_: object) -> dict[str, object]:
        raise RuntimeError("broken")

    monkeypatch.setattr(reports, "answer_query", fail)
    assert invoke(["query", "SELECT 1", "--config", str(settings)]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert invoke(["query", "SELECT 1", "--debug", "--config", str(settings)]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert app.PROGRAM == "mexc-pipeline"


def test_the_user_guides_table_has_every_command_and_no_other() -> None:
    guide = (ROOT / "docs" / "user-guide.md").read_text()
    section = guide.partition("\n## Commands\n")[2].partition("\n## ")[0]
    first_cells = [row.split(" | ")[0] for row in section.splitlines() if row.startswith("| `")]
    shown = {
        text.removeprefix("mexc-pipeline ").split()[0]
        for cell in first_cells
        for text in re.findall(r"`([^`]+)`", cell)
    }
    assert shown == set(cli.list_commands(click.Context(cli)))


@pytest.mark.parametrize(
    "args",
    [
        ["simulate", "--rate", "nan"],
        ["simulate", "--rate", "inf"],
        ["demo", "--rate", "nan"],
        ["demo", "--duration", "0s"],
        ["run", "--duration", "0s"],
        ["probe", "--seconds", "nan"],
    ],
)
def test_what_is_no_amount_is_refused_in_one_line(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(args) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert args[1] in line
