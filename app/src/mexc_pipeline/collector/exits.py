"""Keeps a symbol's data socket on an exit that no other symbol uses, and changes it on request."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from mexc_pipeline import config, control
from mexc_pipeline.egress.partition import owner
from mexc_pipeline.egress.tor import Tor
from mexc_pipeline.egress.uses import Use, local, logged
from mexc_pipeline.errors import UserError
from mexc_pipeline.events import Collision, Reassigned, Rotated
from mexc_pipeline.feed.feed import Feed
from mexc_pipeline.feed.state import FeedState

log = logging.getLogger("mexc_pipeline.collector")

LOOK_S = 15.0
ROTATE_S = 50.0
LOG_S = 90 * 86400
"""How far back the newest connection of another symbol is looked for."""


class Exits:
    """Keeps one symbol, in mode tor, on an exit that no other uses. ``watch`` runs in a thread of its own, ``rotate``
    in a control client's."""

    def __init__(self, settings: config.Config, symbol: config.Symbol, feed: Feed, tor: Tor) -> None:
        self._settings = settings
        self._symbol = symbol
        self._feed = feed
        self._tor = tor
        self._unknown = ""
        """Why it cannot be told which exits other hosts use."""
        self._left: object | None = None
        """The connection that was to end because its exit is another's by the present list."""

    def watch(self, stop: threading.Event) -> None:
        """Look every 15 s whether somebody else uses our exit, until told to stop."""
        while not stop.wait(LOOK_S):
            self.look()

    def look(self) -> bool:
        """Give our exit up where another symbol had it first; returns whether that was so.

        It cannot happen while all hosts share the exits out by the same list of symbols; it does while they do not, or
        where two relays leave by one address.
        """
        state = self._feed.state
        ours = self._use(state)
        if ours is None:
            return False
        for other in self._others():
            if other.outside == ours.outside and (other.begin, other.symbol) < (ours.begin, ours.symbol):
                log.error(
                    "exit used by another symbol",
                    extra={"fields": {"symbol": ours.symbol, "exit": ours.exit, "other": other.symbol}},
                )
                self._tor.drop(ours.exit)
                reason = f"exit {ours.outside} is used by {other.symbol} too"
                self._feed.leave(
                    state.connection, reason, Collision(exit=ours.exit, seen=ours.outside, other=other.symbol)
                )
                return True
        return False

    def repartition(self) -> config.Config | None:
        """Read the configuration's list of symbols again, and leave an exit that is another's by it; returns the
        configuration that was read.

        It serves a deployment that gets a symbol while the others go on recording. What does not fit is logged, and the
        list of before is kept; None is returned then.
        """
        try:
            settings = config.load(self._settings.path)
            deployment = settings.symbol(self._symbol.id).egress.deployment
            self._tor.share_with(deployment)
        except (UserError, ValueError) as error:
            log.error(
                "list of symbols not read again", extra={"fields": {"symbol": self._symbol.id, "why": str(error)}}
            )
            return None
        self._settings = settings
        log.info("exits repartitioned", extra={"fields": {"symbol": self._symbol.id, "among": list(deployment)}})
        state = self._feed.state
        ours = self._use(state)
        if ours is not None and (other := owner(ours.exit, deployment)) != self._symbol.id:
            reason = f"exit {ours.exit} belongs to {other} now"
            self._left = state.connection
            self._feed.leave(state.connection, reason, Reassigned(exit=ours.exit, other=other))
        return settings

    @property
    def is_leaving(self) -> bool:
        """Whether a connection by an exit that became another's has not ended yet."""
        return self._left is not None and self._feed.state.connection is self._left

    def rotate(self, _: dict[str, Any]) -> dict[str, Any]:
        """The control command: connect anew by another exit; answers with the one before and the one now. UserError
        where there is no connection, no other exit, or no new connection within 50 s."""
        state = self._feed.state
        before = self._use(state)
        if before is None:
            raise UserError(f"{self._symbol.id} is not connected; its next connection chooses among all its exits")
        target = urlsplit(state.egress["url"])
        if not self._tor.others(target.port or (443 if target.scheme == "wss" else 80)):
            raise UserError(f"{self._symbol.id} has no other exit at this moment; {before.exit} is kept")
        self._feed.leave(state.connection, "another exit was asked for", Rotated(exit=before.exit))
        until = time.monotonic() + ROTATE_S
        while time.monotonic() < until:
            new = self._feed.state
            now = self._use(new)
            if now is not None and new.connected_since_ns != state.connected_since_ns:
                return {"before": before.exit, "now": now.exit, "seen": now.outside}
            time.sleep(0.1)
        raise UserError(
            f"{self._symbol.id} left exit {before.exit} and is not connected again within {ROTATE_S:g} s; see its log"
        )

    def _use(self, state: FeedState) -> Use | None:
        egress, since = state.egress, state.connected_since_ns
        if since is None or "exit" not in egress:
            return None
        return Use(self._symbol.id, egress["exit"], egress.get("seen") or egress["exit"], since // 10**9, None)

    def _others(self) -> list[Use]:
        """The present uses of other symbols: this host's from their collectors, the rest from ``egress_log``, which
        also tells of those whose collector runs and does not answer."""
        told = {self._symbol.id}
        found: list[Use] = []
        for other in {s.id for s in self._settings.symbols if s.egress.mode == "tor"} - told:
            try:
                use = local(self._settings.control_dir, other)
            except control.NotRunningError:
                use = None
            except control.ControlError as error:
                log.debug("not asked for its exit", extra={"fields": {"other": other, "why": str(error)}})
                continue
            told.add(other)
            if use is not None:
                found.append(use)
        try:
            elsewhere = logged(self._settings.control_dir, int(time.time()) - LOG_S, newest_only=True)
        except control.ControlError as error:
            self._say(str(error))
            return found
        self._say("")
        return found + [use for use in elsewhere if use.end is None and use.symbol not in told]

    def _say(self, unknown: str) -> None:
        """Log when it begins and when it ends that other hosts' exits cannot be asked for: a collision with one of them
        is not noticed meanwhile."""
        if bool(unknown) == bool(self._unknown):
            return
        self._unknown = unknown
        fields = {"symbol": self._symbol.id, "why": unknown}
        if unknown:
            log.warning("exits of other hosts not known", extra={"fields": fields})
        else:
            log.info("exits of other hosts known again", extra={"fields": {"symbol": self._symbol.id}})
