"""Playing a bundle again: what moves on, what stays, and that versions and ids never come twice."""

from __future__ import annotations

import gzip
import json
import os
import tempfile
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mexc_pipeline.errors import ConfigError
from mexc_pipeline.probe.bundle import MOST_BYTES as WRITTEN
from mexc_pipeline.probe.bundle import PER_LINE, BundleWriter, as_line
from mexc_pipeline.probe.records import Answered, Closed, Opened, Received, Record, Refused, Sent
from mexc_pipeline.simulator import bundle, like, wire
from mexc_pipeline.simulator.bundle import Counting, RecordedFrame, Shift, Track, advanced, read_bundle
from mexc_pipeline.simulator.samples import frames


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"ts":1788335242156', b'"ts":1788335243156'),
        (b'"ts":1788335242156417', b'"ts":1788335243156417'),
        (b'"ts":1788335242156417093', b'"ts":1788335243156417093'),
        (b'"ts":1788335242', b'"ts":1788335243'),
        (b'"ts":"1788335242156"', b'"ts":"1788335243156"'),
        (b'"ts":1788335242156.5', b'"ts":1788335243156.5'),
        (b'"ts":0', b'"ts":0'),
        (b'"ts":null', b'"ts":null'),
        (b'"version":7,"end":null,"begin":0', b'"version":12,"end":null,"begin":0'),
        (b'"i":"16005949540","p":77525.90', b'"i":"16005949543","p":77525.90'),
        (b'"version":"8"', b'"version":"13"'),
    ],
)
def test_what_moves_on_keeps_its_unit_and_spelling(before: bytes, after: bytes) -> None:
    assert advanced(before, Shift(1_000, 5, 3)) == after


@given(st.sampled_from(frames()))
def test_without_a_shift_nothing_changes(frame: bytes) -> None:
    assert advanced(frame, Shift(0)) == frame


@given(st.sampled_from(frames()), st.integers(0, 10**9), st.integers(0, 10**6), st.integers(0, 10**6))
def test_only_digits_change_and_it_can_be_undone(frame: bytes, ms: int, versions: int, ids: int) -> None:
    moved = advanced(frame, Shift(ms // 1000 * 1000, versions, ids))
    assert advanced(moved, Shift(-(ms // 1000 * 1000), -versions, -ids)) == frame
    json.loads(moved)


def track(versions: Sequence[int]) -> Track:
    made = Track("BTC_USDT", "depth.full", 1, 0.0)
    made.frames = [RecordedFrame(0.0, 1, b'{"version":%d}' % version, "") for version in versions]
    return made


@given(
    st.lists(st.integers(1, 20), min_size=2, max_size=6),
    st.integers(1, 10**9),
    st.lists(st.booleans(), min_size=1, max_size=10),
)
def test_versions_rise_over_any_course_of_rounds_and_connections(sizes: list[int], at: int, again: list[bool]) -> None:
    """Tracks follow each other as the exchange sent them; each connection plays its own any number of times."""
    tracks = []
    for size in sizes:
        tracks.append(track(range(at, at + size)))
        at += size + 3  # what nobody heard between two connections
    counting, playing, last = Counting(tracks, versions=True), 0, 0
    for same in again:
        shift = counting.begin(playing)
        for frame in tracks[playing].frames:
            version = json.loads(frame.inside)["version"] + shift
            assert version > last
            last = version
        playing = playing if same else (playing + 1) % len(tracks)


def test_a_round_begins_where_the_one_before_ended() -> None:
    counting = Counting([track([7, 8, 9])], versions=True)
    assert [counting.begin(0) for _ in range(3)] == [0, 3, 6]


def test_versions_that_began_lower_do_so_again() -> None:
    counting = Counting([track([7000, 7001]), track([3, 4])], versions=True)
    assert [counting.begin(n) for n in (0, 1, 0, 1)] == [0, 0, 0, 0]


def test_a_bundle_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MOST_BYTES", 1000)
    path = tmp_path / "bundle.gz"
    path.write_bytes(gzip.compress(b"x" * 100_000))
    with pytest.raises(ConfigError, match="longer than"):
        read_bundle(path)


HEAD = b'{"bundle":1,"program":"x","symbols":["BTC_USDT"],"seconds":1.0}\n'
OPENED = b'{"at":0,"conn":1,"opened":"BTC_USDT","spare":false}\n'


@pytest.mark.parametrize("packed", [False, True])
def test_what_no_probe_can_have_written_takes_no_memory(tmp_path: Path, packed: bool) -> None:
    text = HEAD + OPENED + b"[" + b"[]," * (20 << 20) + b"[]]\n"
    path = tmp_path / "bundle"
    path.write_bytes(gzip.compress(text, 1) if packed else text)
    size = len(text)
    del text
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match=f"^{path}: line 3 is no record of a bundle: "):
            read_bundle(path)
        assert tracemalloc.get_traced_memory()[1] < 5 * size
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("what", ["FIFO", "/dev/zero", "too long", "too many lines", "nothing"])
def test_whatever_stands_in_a_bundles_place_is_one_line(tmp_path: Path, what: str) -> None:
    path = tmp_path / "bundle"
    match what:
        case "FIFO":
            os.mkfifo(path)
        case "/dev/zero":
            path.symlink_to(what)
        case "too long":
            path.touch()
            os.truncate(path, 1 << 40)
        case "too many lines":
            path.write_bytes(HEAD + OPENED + b"\n" * 700_000)
    with pytest.raises(ConfigError, match=f"{path}") as said:
        read_bundle(path)
    assert "\n" not in str(said.value)


def test_all_members_of_a_gzip_file_are_read(tmp_path: Path) -> None:
    frames = [as_line(Received(1.0 + n, 1, 1, b'{"n":%d}' % n)) + b"\n" for n in range(300)]
    sent = as_line(Sent(0.5, 1, '{"method":"sub.deal"}')) + b"\n"
    path = tmp_path / "bundle.gz"
    path.write_bytes(b"".join(map(gzip.compress, [HEAD, OPENED, sent, *frames])))
    (track,) = read_bundle(path).tracks["BTC_USDT", "deal"]
    assert [frame.inside for frame in track.frames] == [b'{"n":%d}' % n for n in range(300)]


def test_of_a_probe_that_was_killed_what_came_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bundle.gz"
    whole = gzip.compress(HEAD + OPENED + b"\n" * 1000)
    path.write_bytes(whole[:-9])
    assert read_bundle(path).handshakes == [None]


@pytest.mark.parametrize(
    "line",
    [
        '{"at":NaN,"conn":1,"text":"x"}',
        '{"at":1e999,"conn":1,"text":"x"}',
        '{"at":-1,"conn":1,"text":"x"}',
        '{"at":"1","conn":1,"text":"x"}',
        '{"at":1,"conn":1}',
        '{"at":1,"conn":2,"text":"x"}',
        '{"at":1,"conn":1,"closed":65536,"reason":"","ours":false}',
        '{"at":1,"conn":1,"closed":1006,"reason":"","ours":false,"breach":"x"}',
        '{"at":1,"rest":"/x","status":200,"headers":{"a":1},"text":""}',
        '{"at":1,"rest":"/x","status":0,"headers":{},"text":""}',
        '{"at":1,"rest":"/x","status":200,"headers":{"a":"' + "x" * (1 << 20) + '"},"text":""}',
        '{"at":1,"conn":1,"base64":"*","opcode":2}',
        '{"at":1,"conn":1,"text":"x","packed":"rar"}',
        '{"at":1,"conn":1,"sent":"[]"}',
        "[" * 100_000,
        "7" * 5_000,
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "bundle"
    path.write_bytes(HEAD + OPENED + line.encode() + b"\n")
    with pytest.raises(ConfigError, match=f"^{path}: line 3 is no record of a bundle: ") as said:
        read_bundle(path)
    assert "\n" not in str(said.value)
    assert len(str(said.value)) < 600


@pytest.mark.parametrize("symbols", ['"BTC_USDT"', "[]", "[1]", "null"])
def test_symbols_are_a_list_of_names(tmp_path: Path, symbols: str) -> None:
    path = tmp_path / "bundle"
    path.write_bytes(HEAD.replace(b'["BTC_USDT"]', symbols.encode()) + OPENED)
    with pytest.raises(ConfigError, match="is not a bundle"):
        read_bundle(path)


def test_what_a_probe_can_write_fits() -> None:
    line = len(as_line(Received(0.0, 1, 1, b"")))
    assert WRITTEN // (line + PER_LINE) + 3 < bundle.MOST_LINES
    assert WRITTEN + bundle.MOST_HEAD + bundle.MOST_LINES < bundle.MOST_BYTES


TEXTS = st.text(st.characters(codec="utf-8"), max_size=40) | st.just("x" * 200) | st.just("ä" * 123)
VERSION = b'{"channel":"push.depth","data":{"version":%b,"t":%b},"ts":%b}'
DIGITS = st.integers(1, 5000).map(lambda n: VERSION % (b"9" * n, b"1" * n, b"2" * n))
TRADE = b'{"channel":"push.deal","data":{"i":%d,"t":%d,"begin":%d}}'
NUMBERED = st.integers(1, 10**30).map(lambda n: TRADE % (n, n, n))
PAYLOADS = st.binary(max_size=60) | DIGITS | NUMBERED | st.sampled_from([*frames()[:20], b"[" * 100_000])
HEADERS = st.dictionaries(
    st.sampled_from(["content-type", "content-encoding", "retry-after", "location", "server"]),
    st.text(st.characters(codec="latin-1"), max_size=20) | st.sampled_from(["gzip", "GZIP", "br", "a\r\n b"]),
)
STATUS = st.integers(1, 999)
RECORDS = st.one_of(
    st.builds(Received, st.just(3.0), st.just(1), st.integers(0, 15), PAYLOADS),
    st.builds(Refused, st.just(3.0), st.just(2), st.just("BTC_USDT"), STATUS, HEADERS, TEXTS.map(str.encode)),
    st.builds(Answered, st.just(3.0), st.just("/api/v1/contract/ping"), STATUS, HEADERS, PAYLOADS, st.just(1.0)),
    st.builds(Closed, st.just(9.0), st.just(1), st.integers(0, 65535), TEXTS, st.just(False)),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(RECORDS, max_size=8), st.sampled_from(["deal", "depth", "depth.full"]))
def test_whatever_a_probe_keeps_can_be_played(records: list[Record], topic: str) -> None:
    sent = json.dumps({"method": f"sub.{topic}", "param": {"symbol": "BTC_USDT"}})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bundle.gz")
        with BundleWriter(path, ["BTC_USDT"], 60.0) as writer:
            for record in (Opened(0.0, 1, "BTC_USDT"), Sent(1.0, 1, sent), Sent(1.0, 1, '{"method":"ping"}'), *records):
                writer.keep(record)
        assert writer.trouble is None
        found = read_bundle(path)
    (track,) = found.tracks["BTC_USDT", topic]
    counting = [Counting([track], versions) for versions in (True, False)]
    for _ in range(3):
        versions, ids = (one.begin(0) for one in counting)
        for frame in track.frames:
            wire.encode(frame.opcode, frame._replace(inside=advanced(frame.inside, Shift(1000, versions, ids))).bytes())
    if track.end is not None:
        assert len(wire.close(track.end.code, track.end.reason)) <= 127
    answers = [answer for answers in found.answers.values() for answer in answers]
    answers += [bundle.RecordedAnswer(*refusal) for refusal in found.handshakes if refusal is not None]
    for answer in answers:
        like._time_of(answer.body)
        response = like._response(answer, answer.body)
        head = response.serialize().partition(b"\r\n\r\n")[0].split(b"\r\n")
        assert all(b": " in line and not set(line) & {10, 13} for line in head[1:])


@pytest.mark.parametrize("text", ["[" * 500_000, "7" * 5_000, b"\xff", "{"])
def test_what_a_client_sends_that_cannot_be_read_is_nothing(text: str | bytes) -> None:
    assert wire.parsed(text) is None
    assert like._request_of(text) is None
