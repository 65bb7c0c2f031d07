"""Which trades the socket did not bring: when REST is asked for the newest ones, and what its answers decide.

A state machine: doubts, the exchange's words and the passing of time go in, requests and rows come out. Pure; times are
monotonic seconds unless they are named ms (Unix, the exchange's). Whoever drives it lets one thread in at a time; what
the socket brings is followed by :class:`~mexc_pipeline.exchange.depth.Deals`, without a word to this one.

A trade that REST shows is missing once the socket has passed it: it brought one of a higher id, or its connection is
over, or the trade is older than the connection's subscription and nothing came for a while. That takes ids that both
number alike, which is found out anew in each doubt: at least one trade that the socket brought is shown under its id,
with the same time, price, volume and side, and none contradicts. Trades without such an id are missing only where their
time lies strictly between those of the last one before a connection ended and the first one after the next began.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec

from mexc_pipeline import events
from mexc_pipeline.exchange.channels import DEAL
from mexc_pipeline.exchange.depth import Deals, Doubt
from mexc_pipeline.exchange.holes import MOST_TRIES, Row
from mexc_pipeline.exchange.rest import MOST_DEALS
from mexc_pipeline.exchange.trades import Alike, Trade, readable, trades_in
from mexc_pipeline.rows import Mt

LOOK_S = 0.25
"""How often what is waited for is looked at."""
IDLE_S = 1.0
"""The same while all that is waited for is the first trade after a doubt."""
SETTLES_S = 1.0
"""Trades of about the same time as the first one after a doubt have come so long after it."""
PATIENCE_S = 10.0
"""A trade from before the subscription that did not come for so long will not."""
MARGIN_MS = 1000
"""By how much a trade is older than the subscription: not all of the exchange's clocks agree."""
PASSED_MS = 5000
"""The socket has passed a trade that is so much older than its newest one, whatever their ids."""
NEAR = 16
"""Frames on each side of a doubt whose times are looked at: they are not always in order."""
MOST_WAITING = 1000
"""Trades that are waited for at a time."""

ORDER_MS = 20
"""By how much the time of a trade may lie before that of one of a lower id: those of one order have several."""


class TradePlace(NamedTuple):
    """A place in the stream of trades; ``early_ms``: what comes behind it is not older."""

    number: int | None
    time_ms: int
    early_ms: int

    def passed(self, trade: Trade) -> bool:
        """Whether the socket, which has come so far, brings that trade no more."""
        later = self.number is not None and trade.number is not None and self.number > trade.number
        return (later and self.time_ms >= trade.time_ms - ORDER_MS) or self.time_ms > trade.time_ms + PASSED_MS


class Filling(NamedTuple):
    """What is known of fills, for status: trades kept and stretches given up since the start, ``why`` the last of them
    was, whether one is open, why REST has not helped with it so far (``trouble``), and whether deals share their ids
    with others."""

    filled: int
    unfilled: int
    why: str | None
    open: bool
    trouble: str | None
    ids_shared: bool


class Fills:
    """Follows what one symbol lacks of trades; ``deals``: what the socket brings."""

    def __init__(self, deals: Deals) -> None:
        self._deals = deals
        self._stretch: _Stretch | None = None
        self._confirmed: float | None = None
        self._subscribed_ms: int | None = None
        self._filled = self._unfilled = 0
        self._why: str | None = None
        self._trouble: str | None = None

    # -- what happens

    def connected(self) -> None:
        """The next frame is the first of a connection."""
        self._confirmed = self._subscribed_ms = None
        self._deals.in_doubt(connection=True)
        self._take_up()

    def subscribed(self, now: float, ts_ms: int | None = None) -> None:
        """The exchange delivers deals over this connection, or says that it will; ``ts_ms``: when it said so."""
        if self._confirmed is None:
            self._confirmed, self._subscribed_ms = now, ts_ms

    def in_doubt(self) -> None:
        """Deals may be missing within the connection."""
        self._deals.in_doubt()
        self._take_up()

    def disconnected(self) -> list[Row]:
        """The connection is over, and all that came over it was taken; returns rows to be kept."""
        self._confirmed = None
        stretch = self._stretch
        if stretch is None:
            return []
        return self._keep_of(stretch, self._missing(stretch.waiting.values())) + self._close(stretch)

    def look(self, now: float) -> list[Row]:
        """What has been decided by what the socket brought, and by time: rows to be kept."""
        stretch = self._stretch
        if stretch is None:
            return []
        stretch.look(now)
        rows = self._keep_of(stretch, self._passed(stretch, now))
        if stretch.by_time and stretch.covered and now >= stretch.first_at + SETTLES_S:
            rows += self._settle_by_time(stretch)
        return rows + self._close(stretch)

    # -- what is asked

    @property
    def wait_s(self) -> float | None:
        """Seconds until something may have to be done; None: nothing is in doubt."""
        stretch = self._stretch
        if stretch is None:
            return None
        return IDLE_S if stretch.first is None and not (stretch.waiting or stretch.unsorted) else LOOK_S

    def wants(self, now: float) -> bool:
        """Whether the newest trades are to be asked for now."""
        stretch = self._stretch
        if stretch is None or self._confirmed is None or stretch.covered:
            return False
        if stretch.first is None:
            return not stretch.asked
        # Where ids may still agree soon, or the answer has left the first trade behind.
        may_agree = stretch.alike is None and bool(stretch.unsorted)
        return not stretch.by_time or may_agree or now >= stretch.first_at + SETTLES_S

    def answered(self, trades: Sequence[Trade], now: float) -> tuple[list[Row], bool]:
        """Take an answer; returns rows to be kept, and whether the same is to be asked for once more because the answer
        lags behind the socket."""
        stretch = self._stretch
        if stretch is None or stretch.covered:
            return [], False
        self._trouble = None
        stretch.asked, stretch.answered_at = True, now
        stretch.look(now)
        if not trades:
            return self._in_vain(stretch, "REST shows no trade"), True
        self._compare(stretch, trades)
        by_id = stretch.alike is True and stretch.after.number is not None and all(t.number is not None for t in trades)
        stretch.by_time = not (by_id and (stretch.first is None or stretch.first.number is not None))
        rows = self._reach(stretch, trades)
        stretch.show(trades)
        if stretch.by_time:
            stretch.unsorted |= stretch.waiting
            stretch.waiting.clear()
        else:
            rows += self._wait_for(stretch, stretch.unsorted.values())
            stretch.unsorted.clear()
        stretch.reach_to(trades)
        if stretch.first is not None and not stretch.covered:
            return rows + self._in_vain(stretch, "REST lags behind the socket"), True
        return rows + self.look(now), False

    def failed(self, reason: str) -> list[Row]:
        """There was no answer of use; returns rows to be kept."""
        stretch = self._stretch
        if stretch is None:
            return []
        stretch.asked = stretch.asked or stretch.tries + 1 >= MOST_TRIES  # once more when the socket has brought one
        self._trouble = reason
        return self._in_vain(stretch, reason)

    @property
    def status(self) -> Filling:
        """What is known of fills."""
        is_open, shared = self._stretch is not None, not self._deals.unique
        return Filling(self._filled, self._unfilled, self._why, is_open, self._trouble, shared)

    # -- what that decides

    def _take_up(self) -> None:
        doubt, stretch = self._deals.doubt, self._stretch
        if doubt is None:
            return
        if stretch is None:
            after = _last(doubt.before)
            if after is None:
                self._deals.settled()  # none of its frames can be read: nothing says what would be missing
                return
            self._stretch = _Stretch(doubt, after)
        else:
            stretch.again()

    def _compare(self, stretch: _Stretch, trades: Sequence[Trade]) -> None:
        """Find out whether REST numbers its trades as the socket does: where it does, an answer has all that came
        within its time, each under its id."""
        shown = {trade.number: trade for trade in trades if trade.number is not None}
        if stretch.alike is False or not shown:
            return
        agreed = 0
        for trade in shown.values():
            assert trade.key is not None
            came = self._deals.alike(trade.key)
            if came is not None and came != trade.alike:
                stretch.alike = False
            agreed += came is not None
        held = self._held(stretch)
        times = [trade.time_ms for trade in trades]
        within = range(min(times) + ORDER_MS + 1, max(times) - ORDER_MS)
        if any(trade.time_ms in within and trade.number not in shown for trade in held):
            stretch.alike = False
        if not self._deals.unique or len(shown) < len(trades) or not _rise([*trades, *held]):
            stretch.alike = False
        if agreed and stretch.alike is None:
            stretch.alike = True

    def _held(self, stretch: _Stretch) -> list[Trade]:
        """What the socket brought near the doubt, and last."""
        doubt = stretch.doubt
        frames = [*doubt.before, *doubt.between, *doubt.first.copy(), *self._deals.newest.copy()]
        return [trade for frame in frames for trade in trades_in(frame)]

    def _reach(self, stretch: _Stretch, trades: Sequence[Trade]) -> list[Row]:
        """What the answer does not reach back to."""
        oldest = min(trades, key=stretch.place)
        if stretch.reached(oldest, whole=len(trades) < MOST_DEALS):
            return []
        until_ms = oldest.time_ms if stretch.first is None else min(oldest.time_ms, stretch.first.time_ms)
        times = [trade.time_ms for trade in trades if trade.time_ms <= until_ms + ORDER_MS]
        return self._give_up(stretch, max(times, default=until_ms), f"at most {MOST_DEALS} trades could be asked for")

    def _in_vain(self, stretch: _Stretch, reason: str) -> list[Row]:
        stretch.tries += 1
        if stretch.tries < MOST_TRIES or stretch.first is None:
            return []
        stretch.covered = True
        until_ms = stretch.first.time_ms
        times = [time_ms for time_ms in _times(stretch.doubt.first[:NEAR]) if time_ms <= until_ms + ORDER_MS]
        said = self._give_up(stretch, max(times, default=until_ms), reason)
        return said + (self._settle_by_time(stretch) if stretch.by_time else []) + self._close(stretch)

    def _give_up(self, stretch: _Stretch, until_ms: int, reason: str) -> list[Row]:
        self._unfilled += 1
        self._why = reason
        since_ms = stretch.after.early_ms
        said = events.Unfilled(channel=DEAL, first=since_ms, last=max(since_ms, until_ms), reason=reason)
        return [(Mt.EVENT, said.m)]

    def _wait_for(self, stretch: _Stretch, trades: Iterable[Trade]) -> list[Row]:
        """Those of an answer that did not come are waited for."""
        oldest = min((number for key in self._deals.keys if (number := _number(key)) is not None), default=None)
        if oldest is None:
            return []
        too_many: list[Trade] = []
        for trade in trades:
            assert trade.number is not None
            if self._deals.knows(b"%d" % trade.number) or trade.number in stretch.waiting:
                continue
            if trade.number in stretch.dismissed:
                continue
            if stretch.is_old(trade) if stretch.anew else trade.number < oldest:
                continue  # of before the recording, or of a former count and perhaps of before it
            if len(stretch.waiting) >= MOST_WAITING:
                too_many.append(trade)
            else:
                stretch.waiting[trade.number] = trade
        return self._not_kept(too_many, f"more than {MOST_WAITING:,} at a time")

    def _missing(self, waiting: Iterable[Trade]) -> list[Trade]:
        return [trade for trade in waiting if trade.key is not None and not self._deals.knows(trade.key)]

    def _passed(self, stretch: _Stretch, now: float) -> list[Trade]:
        """Of the trades that are waited for those that the socket has passed; those that came are forgotten."""
        if not stretch.waiting:
            return []
        newest = _last(self._deals.newest.copy())  # before it is looked which ones came: they stood before it
        rested = self._confirmed is not None and now >= max(self._confirmed, stretch.answered_at) + PATIENCE_S
        came = {number for number in stretch.waiting if self._deals.knows(b"%d" % number)}
        stretch.waiting = {number: trade for number, trade in stretch.waiting.items() if number not in came}
        passed: list[Trade] = []
        for trade in stretch.waiting.values():
            earlier = self._subscribed_ms is not None and trade.time_ms < self._subscribed_ms - MARGIN_MS
            if (newest is not None and newest.passed(trade)) or (rested and earlier):
                passed.append(trade)
        return passed

    def _keep_of(self, stretch: _Stretch, trades: Iterable[Trade]) -> list[Row]:
        """Keep those of the missing trades of which REST shows more than came: of several that nothing but the id tells
        apart, one must not be kept for another that came."""
        missing = list(trades)
        if not missing:
            return []
        came: dict[Alike, set[int]] = {}
        for trade in self._held(stretch):
            if trade.number is not None:
                came.setdefault(trade.alike, set()).add(trade.number)
        kept: list[Trade] = []
        unsure: list[Trade] = []
        room: dict[Alike, int] = {}
        for trade in missing:
            alike = trade.alike
            if alike not in room:
                shown = stretch.numbers.get(alike, set())
                known = {number for number in shown if self._deals.knows(b"%d" % number)}
                room[alike] = len(shown) - len(known | came.get(alike, set()))
            room[alike] -= 1
            (kept if room[alike] >= 0 else unsure).append(trade)
        for trade in unsure:
            assert trade.number is not None
            stretch.waiting.pop(trade.number, None)
            stretch.dismissed.add(trade.number)
        return self._keep(stretch, kept) + self._not_kept(unsure, "REST does not show more of its like than came")

    def _keep(self, stretch: _Stretch, trades: Iterable[Trade]) -> list[Row]:
        rows: list[Row] = []
        for trade in sorted(trades, key=lambda trade: (trade.number or 0, trade.time_ms)):
            self._deals.fetch(trade.key, trade.m)
            stretch.waiting.pop(-1 if trade.number is None else trade.number, None)
            rows.append((Mt.REPAIRED, trade.m))
        stretch.kept += len(rows)
        self._filled += len(rows)
        return rows

    def _close(self, stretch: _Stretch) -> list[Row]:
        """Say how a stretch ended, once nothing of it is open."""
        if not stretch.covered or stretch.waiting or stretch.first is None or stretch.by_time > stretch.settled:
            return []
        self._stretch = self._trouble = None
        self._deals.settled()
        first, last = sorted((stretch.since.time_ms, stretch.first.time_ms))
        said = events.Filled(channel=DEAL, first=first, last=last, count=stretch.kept)
        return [(Mt.EVENT, said.m)]

    def _not_kept(self, trades: Sequence[Trade], reason: str) -> list[Row]:
        if not trades:
            return []
        self._unfilled += 1
        self._why = reason
        times = [trade.time_ms for trade in trades]
        said = events.Unfilled(channel=DEAL, first=min(times), last=max(times), count=len(trades), reason=reason)
        return [(Mt.EVENT, said.m)]

    def _settle_by_time(self, stretch: _Stretch) -> list[Row]:
        """Without ids: keep what lies strictly between the connections, and say what else did not come as far as can be
        told."""
        if stretch.settled:
            return []
        stretch.settled = True
        doubt = stretch.doubt
        first = doubt.first.copy()
        frames = [*doubt.before, *doubt.between, *first]
        came = Counter(trade.alike for frame in frames for trade in trades_in(frame))
        came.update(trade.alike for trade in readable([msgspec.Raw(m) for m in self._deals.fetched]))
        since_ms = max(_times(doubt.before[-NEAR:]), default=stretch.since.time_ms)
        until_ms = min(_times(first[:NEAR]), default=0)
        surely = doubt.apart and all(map(trades_in, [*doubt.before[-NEAR:], *doubt.between, *first[:NEAR]]))
        held = _times(frames) if b"" not in frames else [since_ms]
        kept: list[Trade] = []
        unsure: list[Trade] = []
        for alike, shown in stretch.shown.items():
            said: set[int | None] = set()
            for n, trade in enumerate(shown):
                again = trade.number is not None and trade.number in said  # one trade, or two that share an id
                said.add(trade.number)
                if n < came[alike]:
                    continue
                if surely and since_ms < trade.time_ms < until_ms and not again:
                    kept.append(trade)
                elif since_ms <= trade.time_ms <= until_ms or min(held) < trade.time_ms < max(held):
                    unsure.append(trade)  # all that came between the two, or from one to the other, is held
        rows = self._keep(stretch, kept)
        return rows + self._not_kept(unsure, f"{self._why_by_time(stretch)} it is not certain that they did not come")

    def _why_by_time(self, stretch: _Stretch) -> str:
        if not self._deals.unique:
            return "as ids are not unique"
        return "without ids" if stretch.alike is None else "as REST has other ids than the socket"


class _Stretch:
    """A doubt that is being settled. ``since``: the last trade before it; ``after``: that, or the newest of an answer
    that reaches back to it; ``first``: the first one after the doubt, which came at ``first_at``; ``anew``: ids begin
    below there; ``covered``: an answer shows it all; ``waiting``: trades by id that the socket may still bring;
    ``shown``: the most that one answer showed of trades that nothing but an id tells apart; ``numbers``: all of their
    ids that were shown; ``alike``: whether REST's ids were found to be the socket's, None before that; ``unsorted``:
    trades that were shown until then; ``dismissed``: those that may have come."""

    def __init__(self, doubt: Doubt, since: TradePlace) -> None:
        self.doubt = doubt
        self.since = self.after = since
        self.first: TradePlace | None = None
        self.first_at = self.answered_at = 0.0
        self.anew = self.by_time = self.asked = self.covered = self.settled = self.renewed = False
        self.tries = self.kept = 0
        self.waiting: dict[int, Trade] = {}
        self.shown: dict[Alike, list[Trade]] = {}
        self.numbers: dict[Alike, set[int]] = {}
        self.alike: bool | None = None
        self.unsorted: dict[int, Trade] = {}
        self.dismissed: set[int] = set()

    def look(self, now: float) -> None:
        """See whether the first trade after the doubt has come."""
        if self.first is not None or (first := _first(self.doubt)) is None:
            return
        self.first, self.first_at = first, now
        if not self.renewed:  # where sessions are too short for all tries, those of all of them count
            self.tries = 0
        numbers = first.number, self.since.number
        self.anew = numbers[0] is not None and numbers[1] is not None and numbers[0] < numbers[1]
        self.by_time = self.by_time or None in numbers

    def again(self) -> None:
        """There is a further doubt before this one is settled."""
        self.first, self.alike, self.renewed = None, None, True
        self.asked = self.covered = self.settled = False

    def is_old(self, trade: Trade) -> bool:
        """Whether a trade may be of before the doubt, also where ids begin anew within it."""
        number = self.since.number
        after = number is not None and trade.number is not None and trade.number > number
        return trade.time_ms <= self.since.time_ms and not after

    def place(self, trade: Trade) -> int:
        """Where a trade stands among others."""
        return trade.time_ms if self.by_time or self.anew or trade.number is None else trade.number

    def reached(self, oldest: Trade, *, whole: bool) -> bool:
        """Whether an answer whose oldest trade that is reaches back to what was known. One that is not ``whole`` may
        begin amid the trades of one time."""
        if self.by_time or self.anew or self.after.number is None or oldest.number is None:
            return oldest.time_ms < self.after.time_ms or (whole and oldest.time_ms == self.after.time_ms)
        return oldest.number <= self.after.number

    def show(self, trades: Sequence[Trade]) -> None:
        """Note trades that an answer shows."""
        alike: dict[Alike, list[Trade]] = {}
        for trade in trades:
            alike.setdefault(trade.alike, []).append(trade)
        for key, shown in alike.items():
            if len(shown) > len(self.shown.get(key, ())):
                self.shown[key] = shown
            self.numbers.setdefault(key, set()).update(t.number for t in shown if t.number is not None)
        for trade in trades:
            if trade.number is not None and len(self.unsorted) < 2 * MOST_WAITING:
                self.unsorted[trade.number] = trade

    def reach_to(self, trades: Sequence[Trade]) -> None:
        """An answer shows all up to its newest trade."""
        newest = max(trades, key=self.place)
        if self.place(newest) > (self.after.time_ms if self.by_time or self.anew else self.after.number or 0):
            early_ms = min(trade.time_ms for trade in trades if trade.time_ms >= newest.time_ms - ORDER_MS)
            number = newest.number if newest.number is not None else self.after.number
            self.after = TradePlace(number, newest.time_ms, early_ms)
        first = self.first
        if first is not None:
            by_id = not self.by_time and not self.anew and newest.number is not None and first.number is not None
            ahead = newest.number >= first.number if by_id else newest.time_ms >= first.time_ms  # type: ignore[operator]
            self.covered = ahead


def _rise(trades: Iterable[Trade]) -> bool:
    """Whether ids rise with time, but for one time at most at which they begin anew."""
    in_time = sorted((trade.time_ms, trade.number) for trade in trades if trade.number is not None)
    falls = sum(b < a and late - early > ORDER_MS for (early, a), (late, b) in pairwise(in_time))
    return falls <= 1


def _times(frames: Iterable[bytes]) -> list[int]:
    return [trade.time_ms for frame in frames for trade in trades_in(frame)]


def _number(key: bytes) -> int | None:
    return int(key) if key.isdigit() and len(key) <= 19 else None


def _last(frames: Iterable[bytes]) -> TradePlace | None:
    """The newest of the frames' trades: the highest id of the last frame that can be read, and the latest time."""
    near = [trades for frame in list(frames)[-NEAR:] if (trades := trades_in(frame))]
    if not near:
        return None
    numbers = [trade.number for trade in near[-1] if trade.number is not None]
    times = [trade.time_ms for trades in near for trade in trades]
    early_ms = min(time_ms for time_ms in times if time_ms >= max(times) - ORDER_MS)
    return TradePlace(max(numbers) if len(numbers) == len(near[-1]) else None, max(times), early_ms)


def _first(doubt: Doubt) -> TradePlace | None:
    """The first trade after a doubt."""
    for frame in doubt.first[:NEAR]:
        if trades := trades_in(frame):
            numbers = [trade.number for trade in trades if trade.number is not None]
            number = min(numbers) if len(numbers) == len(trades) else None
            time_ms = min(trade.time_ms for trade in trades)
            return TradePlace(number, time_ms, time_ms)
    return None
