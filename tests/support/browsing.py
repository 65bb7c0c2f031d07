"""Debian's Chromium, driven by Playwright, and what a test asks of a page in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.machine import program

if TYPE_CHECKING:
    from playwright.sync_api import Browser, CDPSession, Page

RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
MIB = 1 << 20


@contextmanager
def browsing() -> Iterator[Browser]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    # Without a sandbox of its own, which root may not have; what is looked at is ours.
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program("chromium"), args=arguments)
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A page that is looked at, and what went wrong with it."""

    def __init__(self, browser: Browser, address: str, **settings: Any) -> None:
        self.context = browser.new_context(**settings)
        self.page: Page = self.context.new_page()
        self.errors: list[str] = []
        self.foreign: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.extend([message.text] if message.type == "error" else []))
        self.page.on("request", lambda request: self.foreign.extend(_others([request.url], address)))
        self.cdp: CDPSession = self.context.new_cdp_session(self.page)
        self.cdp.send("Performance.enable", {"timeDomain": "threadTicks"})
        self.answer = self.page.goto(address)

    def close(self) -> None:
        self.context.close()

    def table(self) -> list[list[str]]:
        """What is shown of each symbol, as text."""
        script = "[...document.querySelectorAll('#rows tr:not(.detail):not([hidden])')].map("
        found: list[list[str]] = self.page.evaluate(script + "tr => [...tr.children].map(c => c.textContent))")
        return found

    def facts(self) -> dict[str, str]:
        """What is told of the symbol whose details are open."""
        script = "Object.fromEntries([...document.querySelectorAll('#detail dt')].map("
        found: dict[str, str] = self.page.evaluate(script + "t => [t.textContent, t.nextSibling.textContent]))")
        return found

    def news(self) -> str:
        """What the page says of itself."""
        return self.page.inner_text("#link")

    def findings(self) -> list[tuple[str, str]]:
        """What axe finds wrong with the page: the rule, and the first place."""
        source = files("axe_playwright_python").joinpath("axe.min.js").read_text()
        self.page.evaluate(source)  # not by a script tag, which the page's own policy forbids
        found = self.page.evaluate(f"axe.run({{runOnly: {list(RULES)}}})")
        assert len(found["passes"]) > 20
        return [(one["id"], one["nodes"][0]["html"]) for one in [*found["violations"], *found["incomplete"]]]

    def spent_s(self) -> float:
        """Processor time of the page's main thread."""
        found = {one["name"]: one["value"] for one in self.cdp.send("Performance.getMetrics")["metrics"]}
        return float(found["TaskDuration"])

    def memory(self) -> int:
        """Bytes that the page's process has for itself alone, once what is garbage is gone."""
        self.cdp.send("HeapProfiler.collectGarbage")
        parents: dict[str, str] = {}
        sizes: dict[str, int] = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parents[folder.name] = (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
                if b"--type=renderer" in (folder / "cmdline").read_bytes():
                    lines = (folder / "smaps_rollup").read_text().splitlines()
                    own = [int(line.split()[1]) for line in lines if line.startswith("Private_")]
                    sizes[folder.name] = sum(own) << 10
            except OSError:
                continue  # ended meanwhile
        return max(size for pid, size in sizes.items() if _descends(pid, str(os.getpid()), parents))


def _others(urls: list[str], address: str) -> list[str]:
    return [url for url in urls if not url.startswith(address)]


def _descends(pid: str, ancestor: str, parents: dict[str, str]) -> bool:
    while pid in parents and pid != ancestor:
        pid = parents[pid]
    return pid == ancestor
