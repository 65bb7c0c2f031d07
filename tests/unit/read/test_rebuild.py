"""Books put together again equal the simulator's own book, whatever was lost, repaired, late or spelled oddly."""

from __future__ import annotations

import json
import random
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexc_pipeline.exchange.depth import span
from mexc_pipeline.read.rebuild import AHEAD, BESIDE_NS, GapError, History, RebuiltBook, Stored
from mexc_pipeline.simulator.book import Levels
from mexc_pipeline.simulator.frames import Style, SymbolFeed
from mexc_pipeline.simulator.market import MarketSettings, contract
from mexc_pipeline.simulator.numbers import to_decimal
from mexc_pipeline.simulator.rest import best_first
from mexc_pipeline.simulator.wire import begin_end, version_back
from support.examples import examples
from support.spools import event

MS = 1_789_498_320_000


class Tape:
    """Rows of a made-up recording, a millisecond apart, and the market they tell of."""

    def __init__(self, seed: int, stream: str = "depth") -> None:
        market = MarketSettings(rate=100, commit_rate=60, levels=30)
        self.feed = SymbolFeed(contract("SOL_USDT"), seed, market, Style(respelled=1.0), MS)
        self.stream = stream
        self.rows: list[Stored] = []
        self.lost: list[tuple[int, int]] = []

    def put(self, mt: str, m: bytes) -> Stored:
        seq = len(self.rows) + 1
        row = Stored(seq, MS * 10**6 + seq * 10**6, MS + seq, mt, m)
        self.rows.append(row)
        return row

    def frames(self, count: int = 1) -> list[bytes]:
        """The exchange's next frames."""
        found: list[bytes] = []
        while len(found) < count:
            found += [p.payload for p in self.feed.tick(0.01, MS, [self.stream])]
        return found[:count] if self.stream == "depth" else found

    def live(self, count: int = 1) -> None:
        for m in self.frames(count):
            self.put("dp", m)

    def lose(self, count: int = 1) -> None:
        for m in self.frames(count):
            covered = span(m)
            assert covered is not None
            self.lost.append((covered.first, covered.last))

    def repair(self, first: int, last: int) -> None:
        for commit in reversed(list(self.feed.market.book.commits())):
            if first <= commit.version <= last:
                self.put("r", self.feed.renderer.commit_data(commit).encode())

    def snapshot(self, lag: int = 0) -> None:
        book = self.feed.market.book
        levels = book.at(max(book.version - lag, book.oldest()))
        asks, bids = (self.feed.renderer.levels(side) for side in best_first(levels, 1500))
        whole = f'{{"cts":null,"asks":[{asks}],"bids":[{bids}],"version":{levels.version},"timestamp":{MS}}}'
        data = json.loads(event("snapshot", channel="push.depth", version=levels.version))
        m = json.dumps(data, separators=(",", ":"))[:-1] + f',"book":{whole}}}'
        self.put("ev", m.encode())

    def book(self, at: Stored | None = None, *, across_gaps: bool = False) -> RebuiltBook | None:
        last = (at or self.rows[-1]).seq
        return History(last).add(self.rows).book(across_gaps=across_gaps)

    def check(self, at: Stored | None = None) -> RebuiltBook:
        """Assert that the book at a row is the market's own at that version."""
        book = self.book(at)
        assert book is not None
        assert shape(book) == truth(self.feed.market.book.at(book.version))
        return book


def truth(levels: Levels) -> tuple[dict[Decimal, tuple[int, int]], ...]:
    scale = contract("SOL_USDT").scale
    return tuple(
        {to_decimal(tick, scale): level for tick, level in side.items()} for side in (levels.asks, levels.bids)
    )


def shape(book: RebuiltBook) -> tuple[dict[Decimal, tuple[int, int]], ...]:
    return tuple(
        {price: (int(volume), int(orders or 0)) for price, (volume, orders) in side.items()}
        for side in (book.asks, book.bids)
    )


@pytest.mark.parametrize("stream", ["depth", "depth.each"])
def test_every_version_after_a_snapshot(stream: str) -> None:
    tape = Tape(1, stream)
    tape.live(3)
    tape.snapshot(lag=7)
    tape.live(40)
    for row in [r for r in tape.rows if r.mt == "dp" and r.seq > 5]:
        book = tape.check(row)
        covered = span(row.m)
        assert covered is not None
        assert (book.version, book.row) == (covered.last, row)


@pytest.mark.parametrize("lag", [0, 1, 7])
def test_the_newest_row_in_a_book_is_never_after_the_instant(lag: int) -> None:
    """Also where a snapshot that came later is of the very version of the instant."""
    tape = Tape(3, "depth.each")
    tape.live(20)
    at = tape.rows[-1]
    tape.snapshot(lag)
    tape.live(3)
    assert tape.check(at).row == at


def test_a_snapshot_that_came_later_but_is_older_serves_too() -> None:
    tape = Tape(2)
    tape.live(10)
    early = tape.rows[-1]
    tape.live(1)
    tape.snapshot(lag=30)
    assert tape.check(early).base < tape.check(early).version


def test_a_gap_is_refused_until_it_is_repaired() -> None:
    tape = Tape(3)
    tape.snapshot()
    tape.live(5)
    tape.lose(2)
    tape.live(5)
    (first, _), (_, last) = tape.lost
    with pytest.raises(GapError, match=f"versions {first} to {last} of the book are in no file"):
        tape.book()
    crossed = tape.book(across_gaps=True)
    assert crossed is not None
    assert crossed.gaps == [(first, last)]
    broken = tape.rows[-1]
    tape.repair(first, last - 1)
    tape.put("r", b'{"p":1,"v":1,"T":1,"t":%d,"i":"%d"}' % (MS, last))  # a trade, whatever its id
    with pytest.raises(GapError, match=f"versions {last} to {last} "):
        tape.book(broken)
    tape.repair(last, last)
    assert tape.check(broken).gaps == []


def test_after_an_unrepaired_gap_a_new_snapshot_is_built_on() -> None:
    tape = Tape(4)
    tape.snapshot()
    tape.live(3)
    tape.lose(1)
    tape.live(1)
    tape.snapshot()
    tape.live(4)
    tape.check()


@pytest.mark.parametrize("how", ["missing", "null", "zero"])
def test_frames_without_begin_and_end(how: str) -> None:
    tape = Tape(5)
    tape.snapshot()
    for _ in range(5):
        (frame,) = tape.frames()
        covered = span(frame)
        assert covered is not None
        tape.put("dp", begin_end(frame, how))
        tape.live(1)
        tape.repair(covered.first, covered.last - 1)
    tape.check()


def test_what_went_back_or_came_twice_changes_nothing() -> None:
    tape = Tape(6)
    tape.snapshot()
    tape.live(5)
    tape.put("dp", tape.rows[-2].m)
    (wrong,) = tape.frames()
    covered = span(wrong)
    assert covered is not None
    tape.put("dp", version_back(wrong))
    tape.live(2)
    tape.repair(covered.first, covered.last)
    tape.check()


def test_an_exchange_that_counts_anew_begins_a_new_book() -> None:
    tape, other = Tape(7), Tape(8)
    other.feed.market.book.version, other.feed.market._begin = 1000, 1001
    tape.snapshot()
    tape.live(3)
    before = tape.rows[-1]
    tape.put("ev", event("regressed", **{"channel": "push.depth", "from": 5_000_000_000, "to": 1000, "anew": True}))
    assert tape.book() is None
    for row in _tape_of(other):
        tape.put(row.mt, row.m)
    book = tape.book()
    assert book is not None
    assert shape(book) == truth(other.feed.market.book.at(book.version))
    tape.check(before)


def _tape_of(other: Tape) -> list[Stored]:
    other.snapshot()
    other.live(3)
    return other.rows


def test_without_a_whole_book_there_is_none() -> None:
    tape = Tape(9)
    tape.live(3)
    assert tape.book() is None
    tape.put("dp", b'{"channel":"push.depth","data":{}}')
    with pytest.raises(GapError, match="seq 4 cannot be read: data has no version"):
        tape.book()
    assert tape.book(across_gaps=True) is None
    tape.snapshot()
    tape.live(2)
    tape.check()


def test_a_frame_whose_levels_cannot_be_read_is_a_gap() -> None:
    tape = Tape(10)
    tape.snapshot()
    version = tape.feed.market.book.version + 1
    for levels in ('[["x",1,1]]', "[[1]]", "[null]", "7"):
        tape.put("dp", b'{"channel":"push.depth","data":{"asks":%s,"version":%d}}' % (levels.encode(), version))
        with pytest.raises(GapError, match=f"versions {version} to {version}"):
            tape.book()
        tape.rows.pop()


@given(st.integers(0, 2**32), st.lists(st.sampled_from("llllxxsSr"), min_size=5, max_size=60))
@settings(max_examples=examples(60), deadline=None)
def test_a_rebuilt_book_is_right_or_refused(seed: int, script: list[str]) -> None:
    """At any row of any recording: the market's own book, or a refusal; never a wrong book."""
    tape = Tape(seed)
    rng = random.Random(seed)
    for step in script:
        match step:
            case "l":
                tape.live()
            case "x":
                tape.lose()
            case "s":
                tape.snapshot()
            case "S":
                tape.snapshot(lag=rng.randrange(60))
            case "r" if tape.lost:
                tape.repair(*tape.lost.pop(rng.randrange(len(tape.lost))))
    for row in tape.rows:
        try:
            if tape.book(row) is not None:
                tape.check(row)
        except GapError:
            assert "x" in script, "nothing was lost"


FULL_ONLY = ("depth.full.20",)


class Both(Tape):
    """A recording of full and of incremental depth."""

    def live(self, count: int = 1, *only: str) -> None:
        """Both kinds as they come until there are so many incremental frames; or so many of one kind alone."""
        streams = only or ("depth", *FULL_ONLY)
        while count > 0:
            for push in self.feed.tick(0.01, MS, streams):
                count -= push.stream == streams[0]
                self.put("dp", push.payload)

    def check_full(self, at: Stored | None = None, *, across_gaps: bool = False) -> RebuiltBook:
        """Assert that the book at a row is the newest full-depth frame, and the best of the market's own."""
        last = at or self.rows[-1]
        book = self.book(last, across_gaps=across_gaps)
        assert book is not None
        frames = [row for row in self.rows[: last.seq] if b"push.depth.full" in row.m]
        assert (book.channel, book.row) == ("push.depth.full", frames[-1])
        asks, bids = truth(self.feed.market.book.at(book.version))
        best = ({p: asks[p] for p in sorted(asks)[:20]}, {p: bids[p] for p in sorted(bids, reverse=True)[:20]})
        assert shape(book) == best
        return book


def test_of_both_kinds_the_rebuilt_book_is_given_at_every_row() -> None:
    tape = Both(20)
    tape.put("ev", CONNECTED)
    tape.live(3)
    tape.snapshot()
    begun = len(tape.rows)
    tape.live(30)
    books = [tape.check(row) for row in tape.rows[begun + 2 :]]
    assert {book.channel for book in books} == {"push.depth"}
    assert len(books) > 40, "there are full-depth frames among them"
    assert max(len(book.asks) for book in books) > 20


def test_a_gap_is_bridged_by_full_depth_until_it_is_repaired() -> None:
    tape = Both(21)
    tape.snapshot()
    tape.live(5)
    tape.lose(1)
    tape.live(5)
    broken = tape.rows[-1]
    tape.check_full(broken)
    assert tape.check_full(broken, across_gaps=True).gaps == [], "nothing is missing in it"
    (span_,) = tape.lost
    tape.repair(*span_)
    assert tape.check(broken).channel == "push.depth"


def test_without_a_snapshot_full_depth_is_given_and_it_is_said_that_one_would_do() -> None:
    tape = Both(22)
    tape.live(5)
    history = History(len(tape.rows)).add(tape.rows)
    book = history.book()
    assert book is not None
    assert (book.channel, history.without_snapshot) == ("push.depth.full", True)
    tape.check_full()


def test_incremental_depth_that_has_stopped_is_not_built_on() -> None:
    tape = Both(23)
    tape.snapshot()
    tape.live(5)
    tape.live(AHEAD - 6, *FULL_ONLY)
    assert tape.check().channel == "push.depth"
    tape.live(6, *FULL_ONLY)
    tape.check_full()
    tape.snapshot()
    tape.live(1)
    assert tape.check().channel == "push.depth", "it is there again"


def test_a_connection_without_one_kind_ends_what_was_known_of_it() -> None:
    tape = Both(24)
    tape.snapshot()
    tape.live(5)
    tape.put("ev", CONNECTED)
    assert tape.check().channel == "push.depth"
    tape.live(1, *FULL_ONLY)
    tape.check_full()
    tape.put("ev", CONNECTED)
    tape.lose(1)
    tape.live(2, "depth")
    with pytest.raises(GapError, match="of the book are in no file"):
        tape.book()


def test_full_depth_of_long_before_is_no_book() -> None:
    tape = Both(25)
    tape.snapshot()
    tape.live(5)
    tape.lose(1)
    tape.live(1, "depth")
    tape.check_full()
    last = tape.rows[-1]
    tape.rows[-1] = last._replace(rx=last.rx + BESIDE_NS)
    with pytest.raises(GapError, match="of the book are in no file"):
        tape.book()


def incremental(first: int, last: int, asks: str = "[]", bids: str = "[]") -> bytes:
    text = f'{{"channel":"push.depth","data":{{"asks":{asks},"bids":{bids},"begin":{first},"end":{last}}}}}'
    return text.encode()


def whole(version: int, sides: str) -> bytes:
    return f'{{"event":"snapshot","channel":"push.depth","version":{version},"book":{{{sides}}}}}'.encode()


def rows(*given: tuple[str, bytes]) -> list[Stored]:
    return [Stored(n, n, n, mt, m, "x.parquet") for n, (mt, m) in enumerate(given, 1)]


@pytest.mark.parametrize("none", ['"asks":null,', "", '"asks":[],'])
def test_a_side_that_is_null_or_absent_is_empty(none: str) -> None:
    """In a snapshot, in an incremental frame, in a repaired change and in a full-depth frame."""
    bids = '"bids":[[5,1,1]]'
    taken = rows(
        ("ev", whole(10, f"{none}{bids}")),
        ("dp", f'{{"channel":"push.depth","data":{{{none}"bids":[[6,2,1]],"version":11}}}}'.encode()),
        ("r", f'{{{none}"bids":[[7,3,1]],"version":12}}'.encode()),
        ("dp", incremental(13, 13)),
    )
    book = History(9).add(taken).book()
    assert book is not None
    assert (book.version, list(book.asks), sorted(map(int, book.bids))) == (13, [], [5, 6, 7])
    full = f'{{"channel":"push.depth.full","data":{{{none}{bids},"version":14}}}}'.encode()
    book = History(9).add(rows(("dp", full))).book()
    assert book is not None
    assert (book.version, list(book.asks), list(map(int, book.bids))) == (14, [], [5])


def test_changes_that_lack_a_side_are_counted() -> None:
    one = b'{"channel":"push.depth","data":{"asks":[],"version":%d}}'
    other = b'{"channel":"push.depth","data":{"asks":[],"bids":null,"version":%d}}'
    taken = rows(("ev", whole(10, '"asks":[[9,1,1]]')), *(("dp", one % n) for n in (11, 12)), ("dp", other % 13))
    book = History(9).add(taken).book()
    assert book is not None
    assert (book.updates, book.absent) == (3, {"bids": 2}), "the snapshot itself is none, and null is an empty side"


CONNECTED = b'{"event":"connected"}'
OLD = [("ev", whole(5000, '"asks":[[9,1,1]]')), ("dp", incremental(5001, 5001))]
REGRESSED = b'{"event":"regressed","channel":"push.depth","from":5001,"to":%d,"anew":true}'


@pytest.mark.parametrize("said", [True, False])
def test_a_new_count_after_a_connection_ends_the_old_book_at_once(said: bool) -> None:
    """Also in files of recorders that said so only a hundred frames later."""
    new = [("dp", incremental(n, n)) for n in range(11, 111)]
    event_ = [("ev", REGRESSED % 11)] if said else []
    late = [] if said else [("ev", REGRESSED % 111)]
    taken = rows(*OLD, ("ev", CONNECTED), *event_, *new, ("ev", whole(50, '"bids":[[3,1,1]]')), *late,
                 *(("dp", incremental(n, n)) for n in range(111, 116)))  # fmt: skip
    for at in range(1, len(taken) + 1):
        version = versions_at(taken, at)
        if at == 1:
            assert version == 5000
        elif at < 4:
            assert version == 5001, "the old book until then, and no book of the new count"
        else:
            assert version is None or version <= 115
    assert versions_at(taken, len(taken)) == 115, "said late, it does not end the book that is there"


def test_a_new_count_within_a_connection_ends_the_old_book_at_its_first_frame() -> None:
    """The recorder can say so only some frames later."""
    new = [("dp", incremental(n, n)) for n in range(11, 31)]
    said = ("ev", REGRESSED % 20)
    taken = rows(*OLD, *new[:9], said, *new[9:], ("ev", whole(19, '"bids":[[3,1,1]]')))
    found = [versions_at(taken, at) for at in range(1, len(taken) + 1)]
    assert found[:2] == [5000, 5001]
    assert not {5000, 5001} & set(found[2:]), "never the old book after that"
    assert found[-1] == 30


def test_a_frame_that_came_twice_ends_no_book() -> None:
    """Also where the exchange begins to count anew after the instant."""
    later = [("dp", incremental(n, n)) for n in (5002, 5003)]
    said = ("ev", b'{"event":"regressed","channel":"push.depth","from":5003,"to":12,"anew":true}')
    taken = rows(
        *OLD, ("dp", incremental(5001, 5001)), *later, *(("dp", incremental(n, n)) for n in range(3, 12)), said
    )
    assert versions_at(taken, 3) == 5001


def versions_at(taken: list[Stored], at: int) -> int | None:
    book = History(at).add(taken).book()
    return book.version if book is not None else None


def test_what_cannot_be_read_is_named_with_file_and_field() -> None:
    taken = rows(("ev", whole(1, '"asks":[]')), ("dp", incremental(2, 2, "[[1,1,1],[%s,1,1]]" % ("9" * 140))))
    with pytest.raises(GapError, match=r"seq 2 in x.parquet: asks\[1\]: 9999.*140 characters"):
        History(9).add(taken).book()
    book = History(9).add(taken).book(across_gaps=True)
    assert book is not None
    assert (book.gaps, book.asks) == ([(2, 2)], {})
    full = '{"channel":"push.depth.full","data":{"asks":[[%s,1,1]],"version":%d}}'
    taken = rows(("dp", (full % ("7", 1)).encode()), ("dp", (full % ('"seven"', 2)).encode()))
    with pytest.raises(GapError, match=r"seq 2 in x.parquet cannot be read: asks\[0\]: seven is no number"):
        History(9).add(taken).book()
    book = History(9).add(taken).book(across_gaps=True)
    assert book is not None
    assert book.version == 1
