"""Proves every exported file again: from the file alone, from file to file, and against the spool while it has it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise
from pathlib import Path

from mexc_pipeline import memory
from mexc_pipeline.config import Config
from mexc_pipeline.errors import UserError
from mexc_pipeline.events import Started
from mexc_pipeline.events import read as event_of
from mexc_pipeline.exchange.channels import ROW_TYPES
from mexc_pipeline.exchange.times import sentence
from mexc_pipeline.export.files import wrong_place
from mexc_pipeline.export.minutes import MINUTES
from mexc_pipeline.export.parquet import Content, metadata, metadata_in_schema, read_content
from mexc_pipeline.ledger.account import OPTIONAL, WrongTimes
from mexc_pipeline.ledger.acknowledged import Acknowledged, acknowledgement
from mexc_pipeline.ledger.coverage import Coverage, Piece
from mexc_pipeline.ledger.digest import COLUMNS, combine, differing
from mexc_pipeline.ledger.order import by_seq
from mexc_pipeline.ledger.repeats import Given
from mexc_pipeline.paths import not_allowed
from mexc_pipeline.periods import PINNED_NS, SECOND_NS, Period
from mexc_pipeline.read.files import newest
from mexc_pipeline.rows import FIRST_TYPES, MT_NAMES
from mexc_pipeline.spool.names import FileName
from mexc_pipeline.spool.pending import FILE, LEFT_NS, damaged, left_since_ns
from mexc_pipeline.spool.segment import SegmentError, SegmentInfo, SegmentReader, ended_ns
from mexc_pipeline.spool.walk import InOrder, apart, by_symbol, exported_files, lost_logs
from mexc_pipeline.text import clean
from mexc_pipeline.verify import deadletters, minutes, repeats
from mexc_pipeline.verify.acknowledge import FILE as ACKNOWLEDGED
from mexc_pipeline.verify.acknowledge import acknowledged
from mexc_pipeline.verify.newest import newest_lines
from mexc_pipeline.verify.report import Finding, Report

EXPORT_DUE_NS = 600 * SECOND_NS
"""A segment whose period ended longer ago than this and that is not closed, or has no file, is a failure."""

STALLED_NS = 30 * SECOND_NS
"""A channel that stalled shorter ago than this may have been about to go on."""

NEWEST = 3
PROVING = 1 << 30
"""Bytes of memory that proving one file may take; 200 MiB are usual, a frame of 64 MiB takes more."""


@dataclass(slots=True)
class FileProof:
    """One file: what it says, what it holds, and what is wrong with it (text and the columns concerned)."""

    name: FileName
    path: Path
    said: dict[str, str] = field(default_factory=dict)
    content: Content = field(default_factory=Content)
    wrong: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    is_damaged: bool = False
    """Whether it has to be put right from elsewhere, for what is wrong with it."""

    @property
    def finding(self) -> Finding:
        """What verification says of the file."""
        if self.wrong:
            return Finding(self.name.id, self.path.name, False, "; ".join(self.wrong), tuple(self.columns))
        c = self.content
        text = f"{c.rows:,} rows, seq {c.first_seq} to {c.last_seq}, digest {c.digest[:12]}"
        return Finding(self.name.id, self.path.name, True, text)


def exports(
    config: Config, ids: Iterable[str] | None = None, *, newest: int = NEWEST, now_ns: int | None = None
) -> Report:
    """Re-prove the files of the symbols (none: all that ``export_dir`` or the spool has).

    Notes warn of files of which too much is dead letters or whose frames had wrong times, of channels that stay
    away at the end of the newest file, and hold the ``newest`` rows per type and symbol. Never raises for what is wrong
    with a file.
    """
    report = Report("exports")
    now = time.time_ns() if now_ns is None else now_ns
    accepted, troubles = acknowledged(config)
    report.findings += [Finding("", ACKNOWLEDGED, False, trouble) for trouble in troubles]
    # Segments first: a file stands before its segment says so, so an export at this very moment leaves none missing.
    spooled: dict[str, InOrder] = {}
    for folder, there in by_symbol(config.spool_dir):
        if folder == config.spool_dir:
            report.findings += unread("", there)
        else:
            spooled[folder.name] = there
    files = exported_files(config.export_dir)
    by_id = {symbol: list(group) for symbol, group in groupby(files, key=lambda item: item[0].id)}
    wanted = list(ids) if ids is not None else sorted({*by_id, *spooled})
    for symbol in wanted:
        proofs = by_rows(still_there(prove(name, path) for name, path in by_id.get(symbol, [])))
        there = spooled.get(symbol, InOrder([], []))
        held = there.readable
        report.findings += advised(proofs, held)
        report.findings += unread(symbol, there)
        report.findings += set_apart(config.spool_dir / symbol)
        report.findings += lost(config.spool_dir / symbol)
        report.findings += left(config.spool_dir / symbol, now)
        report.findings += one_label(symbol, proofs, held)
        report.findings += continuity(proofs, accepted)
        report.findings += untold(symbol, proofs, held, config.spool_dir / symbol, accepted)
        report.findings += repeats.findings([*given(proofs), *repeats.of_segments(held)])
        report.findings += against_spool(proofs, held, now)
        report.findings += in_the_future(symbol, proofs, held, now)
        told, lines = minutes.check(symbol, proofs)
        report.findings += told
        report.notes += [*unfinished(config.spool_dir / symbol), *notes(symbol, proofs, newest), *lines]
    if wrong := wrong_place(config):
        report.findings.append(Finding("", str(config.export_dir), False, wrong))
    elif not report.findings:
        report.notes.append(f"no files in {config.export_dir} and nothing closed in the spool")
    return report


def advised(proofs: Iterable[FileProof], spooled: Iterable[SegmentInfo]) -> Iterator[Finding]:
    """What is found of each file, and of damaged ones what to do."""
    held = {segment.file for segment in spooled if segment.rows and segment.state != "open"}
    for proof in proofs:
        todo = _IN_SPOOL if proof.path.name in held else _IN_BACKUP
        yield replace(proof.finding, text=f"{proof.finding.text}; {todo}") if proof.is_damaged else proof.finding


def still_there(proofs: Iterable[FileProof]) -> Iterator[FileProof]:
    """The proofs but for those of files that somebody deleted after they were listed, as ``prune`` does: what is
    missing then is told by those that are left."""
    return (proof for proof in proofs if not proof.wrong or os.path.lexists(proof.path))


def notes(symbol: str, proofs: Iterable[FileProof], rows: int) -> list[str]:
    """Warnings of files of which too much is dead letters and of what else is not as it should be, and the newest
    ``rows``. The files are opened once more for them, and may be gone by now: they have been proven, and a line
    says so."""
    found: list[str] = []
    sound = [proof for proof in proofs if not proof.wrong]
    try:
        for proof in sound:
            found += [f"warn {symbol} {proof.path.name}: {line}" for line in mistimed([proof])]
            said = proof.said.get("symbol", "")
            if line := deadletters.warning(symbol, said, proof.path, proof.content.counts):
                found.append(line)
        found += [f"warn {symbol} {sound[-1].path.name}: {line}" for line in away(sound)]
        if rows and sound:
            found += newest_lines(symbol, [proof.path for proof in sound], rows)
    except (UserError, OSError) as error:
        found.append(f"warn {symbol}: newest rows and dead letters not shown: {error}")
    return found


def mistimed(proofs: Iterable[FileProof]) -> list[str]:
    """A sentence for each channel whose frames had wrong times, as the events in these files of a symbol say: the
    recorder knew by how much its own clock could be trusted. It is no failure of a file: what it holds is what was
    received."""
    said: dict[str, WrongTimes] = {}
    for proof in proofs:
        if proof.content.account is not None:
            said |= proof.content.account.mistimed
    return [clean(sentence(channel, what.why, what.late_ms)) for channel, what in said.items()]


_IN_SPOOL = "move the file away, and mexc-pipeline export --missing makes it again from the spool, which has its rows"
_IN_BACKUP = "put back a copy from your backup or archive: the spool does not have its rows any more"


def away(proofs: Sequence[FileProof]) -> list[str]:
    """A sentence for each channel that was given up and is not back, or went silent and has no frame since, as the
    events in these sound files of a symbol say, in the order of their rows: what was received is all there, and nothing
    of that channel was. FileError where a file cannot be read any more."""
    known = [(p.content, p.content.account) for p in proofs if p.content.account is not None]
    coverage = Coverage.of(Piece(content.first_seq, content.last_seq, account) for content, account in known)
    said = [
        f"{channel}: given up since {_at(at_ns)} at least, and not back" for channel, at_ns in coverage.given_up.items()
    ]
    for channel, at_ns in coverage.stalled.items():
        later = [proof for proof in proofs if proof.content.last_rx >= at_ns]
        silent_ns = later[-1].content.last_rx - at_ns if later else 0
        if silent_ns >= STALLED_NS and not _has_after(later, MT_NAMES[ROW_TYPES[channel]], at_ns):
            said.append(f"{channel}: silent too long at {_at(at_ns)}, and no frame since")
    return [clean(line) for line in said]


def _has_after(proofs: Sequence[FileProof], mt: str, at_ns: int) -> bool:
    tables = newest([proof.path for proof in proofs], mt, 1)
    return any(len(one) and one.column("rx").cast("int64")[-1].as_py() > at_ns for one in tables)


def _at(ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(ns // SECOND_NS))


_GONE = "the file is gone; put it back, set export_dir to where it is, or run export --missing"


def one_label(symbol: str, proofs: list[FileProof], spooled: list[SegmentInfo]) -> list[Finding]:
    """Judge that an id is one symbol's: a collector refuses to start otherwise, and earlier versions did not."""
    labels = dict.fromkeys([*(p.said.get("symbol", "") for p in proofs), *(s.symbol for s in spooled)])
    labels.pop("", None)
    if len(labels) < 2:
        return []
    text = f"what this id holds is of {' and '.join(labels)}: move the files of all but one to a folder of their own"
    return [Finding(symbol, "label", False, text)]


def by_rows(proofs: Iterable[FileProof]) -> list[FileProof]:
    """The proofs in the order of their files' rows, which is not that of their names."""
    return by_seq(list(proofs), of=lambda p: p.name.id, name=lambda p: p.path.name, seq=lambda p: p.content.first_seq)


def prove(name: FileName, path: Path) -> FileProof:
    """Judge one file by nothing but itself."""
    proof = FileProof(name, path)
    try:
        with memory.at_most(PROVING):
            proof.said = metadata(path)
            copy = metadata_in_schema(path)
            proof.content = read_content(path)
    except MemoryError:
        proof.wrong.append(f"reading it takes more than {PROVING >> 20} MiB of memory: no file of ours does")
        proof.is_damaged = True
        return proof
    except (UserError, OSError) as error:
        proof.wrong.append(str(error))
        proof.is_damaged = not not_allowed(path)
        return proof
    said, held = proof.said, proof.content
    if "imported" in said:
        proof.wrong.append("an imported file among the recorded ones; imported files belong in imported/")
        return proof
    for column, why in held.damaged.items():
        proof.wrong.append(f"column {column} cannot be read ({why})")
        proof.columns.append(column)
    columns = [c for c in COLUMNS if said.get(f"digest_{c}") != held.digests.get(c) and c not in proof.columns]
    if columns:
        proof.wrong.append(f"content differs from its digest in column {', '.join(columns)}")
        proof.columns += columns
    promised = {c: said.get(f"digest_{c}", "") for c in COLUMNS}
    if not all(promised.values()) or said.get("digest") != _combined(promised):
        proof.wrong.append("its metadata contradicts itself: digest is not that of the six column digests")
    copied = (said.keys() | copy.keys()) - {MINUTES}  # known only once the rows are written
    twice = sorted(key for key in copied if said.get(key) != copy.get(key))
    if twice:
        proof.wrong.append(f"the two copies of its metadata differ in {', '.join(twice)}")
    proof.wrong += held.contradicted
    proof.wrong += _metadata_against_rows(name, said, held)
    if not held.damaged:
        proof.wrong += _order(name, said, held)
    proof.is_damaged = bool(proof.wrong)
    return proof


def _combined(columns: dict[str, str]) -> str:
    """The digest of the six, empty where one of them is no hexadecimal number any more."""
    try:
        return combine(columns)
    except ValueError:
        return ""


def _metadata_against_rows(name: FileName, said: dict[str, str], held: Content) -> list[str]:
    expected = {
        "id": name.id,
        "period": name.period,
        "part": str(name.part),
        "rows": str(held.rows),
        "first_seq": str(held.first_seq),
        "last_seq": str(held.last_seq),
        "raw_bytes": str(held.raw_bytes),
        **{f"rows_{t}": str(held.counts[t]) for t in MT_NAMES.values()},
    }
    said = {**{f"rows_{t}": "0" for t in MT_NAMES.values() if t not in FIRST_TYPES}, **said}
    if held.damaged:
        expected = {key: expected[key] for key in ("id", "period", "part", "rows")}
    wrong = [
        f"metadata says {key} {said.get(key, 'nothing')}, the file has {value}"
        for key, value in expected.items()
        if said.get(key) != value
    ]
    size = said.get("contract_size", held.contract_size)  # files may be of before it was said
    if size != held.contract_size and not held.damaged:
        wrong.append(f"metadata says contract_size {size}, its rows {held.contract_size or 'nothing of it'}")
    wrong += _account_against_rows(said, held)
    if name.plain and said.get("final") != "true":
        wrong.append("a plain file whose metadata does not say final")
    return wrong


def _account_against_rows(said: dict[str, str], held: Content) -> list[str]:
    """Files of versions before there was an account have none, and nothing is promised then."""
    if held.account is None:
        return []
    wrong = (
        []
        if said.get("gaps") == str(held.gaps)
        else [f"metadata says gaps {said.get('gaps')}, the file has {held.gaps}"]
    )
    if "account" not in said:
        return wrong
    rows = held.account.to_json()
    try:
        account = json.loads(said["account"])
        told = account.keys()
        judged = rows.keys() | told if OPTIONAL in told else rows.keys() - {OPTIONAL} | told
        fields = sorted(key for key in judged if rows.get(key) != account.get(key))
    except (ValueError, AttributeError, RecursionError):
        return [*wrong, "its account cannot be read"]
    return [*wrong, f"its account differs from its rows in {', '.join(fields)}"] if fields else wrong


def _order(name: FileName, said: dict[str, str], held: Content) -> list[str]:
    wrong: list[str] = []
    if not held.consecutive:
        wrong.append("seq does not go up by exactly one")
    if not held.rx_monotone:
        wrong.append("rx goes back")
    edge = said.get("edge_ns", "")
    if held.rows and held.first_rx < name.start_ns:
        wrong.append("a row before its period")
    if not (edge.isascii() and edge.isdigit() and len(edge) <= 19):
        wrong.append("metadata does not say where its period ends (edge_ns)")
    elif not _is_period(name, int(edge)):
        wrong.append(f"edge_ns {edge} ends no period of that name")
    elif held.rows and held.last_rx >= int(edge):
        wrong.append("a row after its period")
    return wrong


def _is_period(name: FileName, edge_ns: int) -> bool:
    """Whether a period of that name can end there; its own file is all that says how long it is."""
    try:
        period = Period(edge_ns - name.start_ns)
    except ValueError:
        return False
    return period.start(name.start_ns) == name.start_ns and period.name(name.start_ns) == name.period


def given(proofs: Iterable[FileProof]) -> Iterator[Given]:
    """What files hold, of those that can be read, and which spool they say gave it."""
    for p in proofs:
        if "seq" not in p.content.damaged and (spool_id := p.said.get("spool_id")):
            yield Given(p.name.id, spool_id, p.content.first_seq, p.content.last_seq, p.path.name)


def _in_no_other(_first_seq: int, _last_seq: int) -> bool:
    """Those that are judged are all the files there are."""
    return False


def continuity(
    proofs: list[FileProof],
    accepted: Sequence[Acknowledged] = (),
    in_others: Callable[[int, int], bool] = _in_no_other,
) -> list[Finding]:
    """Judge that seq and rx go on from file to file, given in the order of their rows. A hole that is among the
    ``accepted`` ones is shown, with who answers for it, and is no failure. ``in_others``: whether the symbol's files
    besides these have the rows from one seq to another."""
    known = [p for p in proofs if p.content.last_seq and "seq" not in p.content.damaged]
    findings = _beginning(known[0], accepted) if known and known[0] is proofs[0] else []
    if findings and in_others(known[0].content.first_seq - 1, known[0].content.first_seq - 1):
        findings = []
    furthest = known[0] if known else None
    for after in known[1:]:
        assert furthest is not None
        before = furthest
        furthest = max(before, after, key=lambda p: p.content.last_seq)
        want, got = before.content.last_seq + 1, after.content.first_seq
        if got > want and not _unread_between(proofs, before, after) and not in_others(want, got - 1):
            text = f"seq {want} to {got - 1} ({got - want} rows) are in no file between it and {after.path.name}"
            known_hole = acknowledgement(accepted, before.name.id, want, got - 1)
            text += f": {known_hole}" if known_hole else ""
            findings.append(Finding(before.name.id, before.path.name, known_hole is not None, text))
            parts_apart = after.name.period == before.name.period and after.name.part > before.name.part + 1
            if parts_apart and known_hole is None:
                text = f"part {before.name.part + 1} of period {before.name.period} is missing"
                findings.append(Finding(before.name.id, before.path.name, False, text))
        elif got < want:
            text = f"{after.path.name} starts at seq {got} but this file goes to {want - 1}: rows twice"
            findings.append(Finding(before.name.id, before.path.name, False, text))
        same_spool = before.said.get("spool_id") == after.said.get("spool_id")  # another host has a clock of its own
        if (
            got >= want
            and same_spool
            and after.content.first_rx < before.content.last_rx
            and not after.content.restarted
        ):
            back = (before.content.last_rx - after.content.first_rx) / 1e9
            text = f"rx goes back by {back:.3f} s in {after.path.name} without a clock event that says so"
            findings.append(Finding(before.name.id, before.path.name, False, text))
    if known and all(finding.ok for finding in findings):
        besides = "without a hole" if not findings else f"without a hole but {len(findings)} acknowledged"
        if (first := known[0].content.first_seq) > 1 and not findings:
            besides += f"; rows 1 to {first - 1} are in no file here"
        text = f"seq {known[0].content.first_seq} to {known[-1].content.last_seq} {besides} in {len(known)} files"
        findings.append(Finding(known[0].name.id, "continuity", True, text))
    return findings


def _unread_between(proofs: Sequence[FileProof], before: FileProof, after: FileProof) -> bool:
    """Whether a file that could not be read lies between two others: what is said of it tells what is missing there."""
    lie_between = proofs[proofs.index(before) + 1 : proofs.index(after)]
    return any(proof.wrong and not proof.content.digests for proof in lie_between)


def _beginning(first: FileProof, accepted: Sequence[Acknowledged]) -> list[Finding]:
    """A finding where the rows before the first file's are of its own period: files are archived and removed by whole
    periods, so that theirs was never made, or is lost. Its first row tells when the row before it was recorded."""
    begin, name = first.content.first_seq, first.name
    said = event_of(first.content.first_event) or {}
    rx = said.get("last_rx")
    if begin == 1 or said.get("event") != Started.name() or said.get("last_seq") != begin - 1:
        return []
    if said.get("replaced") or not isinstance(rx, int) or rx < name.start_ns:
        return []
    text = f"begins at seq {begin}; rows 1 to {begin - 1} are in no file here, and the last of them is of this period"
    known_hole = acknowledgement(accepted, name.id, 1, begin - 1)
    text += f": {known_hole}" if known_hole else ""
    return [Finding(name.id, first.path.name, known_hole is not None, text)]


def untold(
    symbol: str,
    proofs: list[FileProof],
    spooled: list[SegmentInfo],
    folder: Path,
    accepted: Sequence[Acknowledged] = (),
) -> list[Finding]:
    """Segments that were set apart, as damaged or because newer rows were known, where no hole between files tells of
    their rows: before the first file, behind the last one, and wherever their seqs were given again, as nobody else
    knew of them. None where the segment was written again (it is there, or its file is), and none before the first file
    where rows there were acknowledged: then there were files before it."""
    known = [p for p in proofs if p.content.last_seq and not p.content.damaged]
    first = known[0] if known else None
    begun = first is not None and any(e.id == symbol and e.last_seq < first.content.first_seq for e in accepted)
    again = {(p.name.start_ns, p.name.part) for p in proofs} | {(s.name.start_ns, s.name.part) for s in spooled}
    try:
        there = apart(folder)
    except SegmentError:
        return []  # said by whoever lists the segments
    text = f"set apart, and no hole between files tells of what was in it: look at it, then move it out of {folder}"
    findings: list[Finding] = []
    for name, at_ns, path in there:
        is_before = first is None or name.start_ns < first.name.start_ns or at_ns <= first.content.first_rx
        is_told = any(
            after.content.first_seq > before.content.last_seq + 1
            and before.name.start_ns <= name.start_ns <= after.name.start_ns
            for before, after in pairwise(known)
        )
        if not is_told and not (is_before and begun) and (name.start_ns, name.part) not in again:
            findings.append(Finding(symbol, path.name, False, text))
    return findings


def against_spool(proofs: list[FileProof], spooled: list[SegmentInfo], now_ns: int) -> list[Finding]:
    """Judge the files against the segments that are still there."""
    findings: list[Finding] = []
    by_file = {proof.path.name: proof for proof in proofs}
    for segment in spooled:
        ended = ended_ns(segment, now_ns)
        overdue = ended is not None and now_ns - ended > EXPORT_DUE_NS
        over = ended is not None and now_ns - ended >= LEFT_NS
        if segment.state == "open" and over and (segment.rows or segment.kept):
            rows = f"it is still open ({segment.rows:,} rows)"
            text = f"its period is over and {rows}: waits for export"
            if overdue:
                text = f"its period ended long ago and {rows}: run export, which says why"
            findings.append(Finding(segment.id, segment.path.name, not overdue, text))
        if segment.state == "open" or not segment.rows:
            continue
        proof = by_file.get(segment.file)
        if proof is None:
            due = segment.state == "exported" or overdue
            text = f"segment {segment.path.name} was exported but {_GONE}"
            if segment.state == "closed":
                text = f"segment {segment.path.name} ({segment.rows:,} rows) waits for export"
            findings.append(Finding(segment.id, segment.file, not due, text))
            continue
        if proof.wrong and not proof.content.digests:
            continue  # nothing of it was compared, and why is said
        columns = differing(proof.content.digests, segment.digests)
        wrong = [f"differs from segment {segment.path.name} in column {', '.join(columns)}"] if columns else []
        of = {"symbol": segment.symbol, "spool_id": segment.spool_id}
        if proof.said:
            wrong += [
                f"its segment's {k} is {v}, not {proof.said.get(k)}" for k, v in of.items() if proof.said.get(k) != v
            ]
        equal = f"has the {segment.rows:,} rows that segment {segment.path.name} says it received, by their digests"
        findings.append(Finding(segment.id, segment.file, not wrong, "; ".join(wrong) or equal, tuple(columns)))
    return findings


def set_apart(folder: Path) -> list[Finding]:
    """A finding for each file of pending rows that were damaged: no seq of theirs is missing, they had none."""
    text = (
        "rows that arrived and had no seq yet are damaged or gone, and in no file: look at what is left of them in "
        f"{folder}, then move it away"
    )
    try:
        return [Finding(folder.name, name, False, text) for name in damaged(folder)]
    except SegmentError:
        return []  # said by whoever lists the segments


def lost(folder: Path) -> list[Finding]:
    """A finding for each write-ahead log whose commits behind a damaged place are lost: their seqs were given again, so
    that no hole tells of them."""
    text = f"rows behind a damaged place of this log are in no file: look at it, then move it out of {folder}"
    return [Finding(folder.name, name, False, text) for name in _lost_logs(folder) if ".damaged-" in name]


def left(folder: Path, now_ns: int) -> list[Finding]:
    """A finding for rows that a process left without a seq; none while one commits there."""
    since = left_since_ns(folder)
    if since is None or now_ns - since < LEFT_NS:
        return []
    text = "rows that a process left have no seq yet and are in no file: run export, which numbers them"
    return [Finding(folder.name, FILE, now_ns - since <= EXPORT_DUE_NS, text)]


def unfinished(folder: Path) -> list[str]:
    """A warning for each write-ahead log with one commit behind the place to which it could be read."""
    text = (
        "its last commit was never finished (a power cut), or it is damaged there and those rows are in no file: "
        f"look at it, then move it out of {folder}"
    )
    return [f"warn {folder.name} {name}: {text}" for name in _lost_logs(folder) if ".damaged-" not in name]


def _lost_logs(folder: Path) -> list[str]:
    try:
        return lost_logs(folder)
    except SegmentError:
        return []  # said by whoever lists the segments


def in_the_future(symbol: str, proofs: list[FileProof], spooled: list[SegmentInfo], now_ns: int) -> list[Finding]:
    """A finding where the newest row of all lies further ahead than rx may stay when a clock is set back."""
    files = [p for p in proofs if p.content.last_seq and not p.content.damaged]
    last_seq, rx = max(((p.content.last_seq, p.content.last_rx) for p in files), default=(0, 0))
    for segment in spooled:
        if segment.last_seq > last_seq:
            try:
                with SegmentReader(segment.path) as reader:
                    newest = reader.read(segment.last_seq - 1, 1)
            except SegmentError as error:
                return [Finding(symbol, segment.path.name, False, str(error))]
            last_seq, rx = segment.last_seq, newest.rx[-1]
    if rx <= now_ns + PINNED_NS:
        return []
    text = f"the newest row (seq {last_seq}) is {(rx - now_ns) / 1e9:,.1f} s in the future of this host's clock"
    return [Finding(symbol, "clock", False, f"{text}: it is wrong, or was when that row was received")]


def unread(symbol: str, found: InOrder) -> list[Finding]:
    """A finding for each part of the spool that cannot be read."""
    return [Finding(symbol, path.name, False, str(error)) for path, error in found.unreadable]
