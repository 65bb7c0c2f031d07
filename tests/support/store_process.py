"""The store as a process of its own, for tests that ask it, kill it or measure it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from mexc_pipeline import control

MAIN = """
import sys
from pathlib import Path
from mexc_pipeline import logs, store
from mexc_pipeline.config import load
from mexc_pipeline.errors import UserError
logs.setup()
try:
    sys.exit(store.main(load(Path(sys.argv[1]))))
except UserError as error:
    print(error, file=sys.stderr)
    sys.exit(1)
"""


class Process:
    """``store.main`` in a process of its own."""

    def __init__(self, folder: Path, port: int = 0, symbols: str = '"BTC_USDT"') -> None:
        self.root = folder
        self.data = folder / "data"
        self.log = folder / "store.log"
        folder.mkdir(parents=True, exist_ok=True)
        clickhouse = f'[clickhouse]\nmode = "server"\nport = {port}\n' if port else ""
        self.file = folder / "config.toml"
        self.file.write_text(f'symbols = [{symbols}]\ndata_dir = "{self.data}"\n{clickhouse}')
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.data / "control" / "store.sock"

    def start(self) -> None:
        with self.log.open("ab") as out:
            self._process = subprocess.Popen([sys.executable, "-c", MAIN, str(self.file)], stdout=out, stderr=out)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def ask(self, cmd: str, **fields: Any) -> dict[str, Any]:
        return control.ask(self.socket, cmd, 20, **fields)

    def is_up(self) -> bool:
        with contextlib.suppress(control.ControlError):
            return bool(self.ask("status"))
        return False

    def loaded(self, symbol_id: str = "btc") -> int:
        return int(self.ask("status")["symbols"][symbol_id]["loaded_seq"])

    def end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        status = self._process.wait(10)
        self._process = None
        return status

    def ended(self, within_s: float) -> int:
        """The exit status of one that ends by itself."""
        assert self._process is not None
        return self._process.wait(within_s)

    def text(self) -> str:
        return self.log.read_text()

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
