"""The control port client against a scripted Tor, friendly, hostile and slow."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mexc_pipeline.egress.control_port import Circuit, ControlPort, ControlPortError, Stream
from support.scripted_tor import COOKIE, Answer, ScriptedTor

Start = Callable[..., ScriptedTor]


@pytest.fixture
def tor(tmp_path: Path) -> Iterator[Start]:
    started: list[ScriptedTor] = []

    def start(answer: Answer = lambda _: b"250 OK\r\n", **options: object) -> ScriptedTor:
        started.append(ScriptedTor(tmp_path, answer, **options))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_the_cookie_itself_is_never_sent(tor: Start) -> None:
    scripted = tor()
    with ControlPort(scripted.path):
        pass
    assert [line.split()[0] for line in scripted.heard] == ["PROTOCOLINFO", "AUTHCHALLENGE", "AUTHENTICATE"]
    assert not any(COOKIE.hex() in line.lower() for line in scripted.heard)


def test_somebody_who_does_not_know_the_cookie_gets_no_answer_to_his_challenge(tor: Start) -> None:
    scripted = tor(lies=True)
    with pytest.raises(ControlPortError, match="does not know Tor's cookie"):
        ControlPort(scripted.path)
    assert not any(line.startswith("AUTHENTICATE") for line in scripted.heard)


def test_a_tor_without_cookie_authentication_is_refused(tor: Start) -> None:
    scripted = tor()
    scripted.methods = "HASHEDPASSWORD"
    with pytest.raises(ControlPortError, match="CookieAuthentication 1"):
        ControlPort(scripted.path)


@pytest.mark.parametrize("cookie", [b"", b"short", b"x" * 33])
def test_a_file_that_is_no_cookie_is_not_used(tor: Start, cookie: bytes) -> None:
    scripted = tor(cookie=cookie)
    with pytest.raises(ControlPortError, match="not 32 bytes"):
        ControlPort(scripted.path)


def test_a_fifo_in_the_cookies_place_is_not_waited_for(tor: Start) -> None:
    scripted = tor()
    scripted.cookie_file.unlink()
    os.mkfifo(scripted.cookie_file)
    with pytest.raises(ControlPortError, match="is a FIFO"):
        ControlPort(scripted.path)


def test_no_tor_at_all(tmp_path: Path) -> None:
    with pytest.raises(ControlPortError, match=r"control socket .*/nobody: No such file"):
        ControlPort(str(tmp_path / "nobody"))


def test_values_on_one_line_in_blocks_and_with_doubled_dots(tor: Start) -> None:
    answers = {
        "GETINFO version": b"250-version=0.4.9.11\r\n250 OK\r\n",
        "GETINFO ns/all": b"250+ns/all=\r\nr one\r\n..dotted\r\ns Exit\r\n.\r\n250 OK\r\n",
        "GETINFO circuit-status": b"250+circuit-status=\r\n.\r\n250 OK\r\n",
    }
    with ControlPort(tor(answers.__getitem__).path) as control:
        assert control.getinfo("version") == "0.4.9.11"
        assert control.getinfo("ns/all") == "r one\n.dotted\ns Exit"
        assert control.circuits() == []


def test_events_between_answers_are_passed_over(tor: Start) -> None:
    noise = b"650 CIRC 4 BUILT\r\n650+NEWCONSENSUS\r\nr x\r\n.\r\n650 OK\r\n"
    with ControlPort(tor(lambda _: noise + b"250-version=1\r\n250 OK\r\n").path) as control:
        assert control.getinfo("version") == "1"


def test_unknown_keys_are_left_out_of_many(tor: Start) -> None:
    def answer(command: str) -> bytes:
        key = command.split()[1]
        if int(key) % 2:
            return f'552 Unrecognized key "{key}"\r\n'.encode()
        return f"250+{key}=\r\nvalue {key}\r\n.\r\n250 OK\r\n".encode()

    with ControlPort(tor(answer).path) as control:
        known = control.getinfo_known(str(number) for number in range(200))
    assert known == {str(number): f"value {number}" for number in range(0, 200, 2)}


def test_options_are_quoted_and_read_back(tor: Start) -> None:
    scripted = tor(lambda c: b"250 OK\r\n" if c.startswith("SETCONF") else b"250 ExitNodes=$AA,$BB\r\n")
    with ControlPort(scripted.path) as control:
        control.setconf({"ExitNodes": '$AA,"\\', "StrictNodes": "1"})
        assert control.getconf("ExitNodes") == "$AA,$BB"
    assert 'SETCONF ExitNodes="$AA,\\"\\\\" StrictNodes="1"' in scripted.heard


def test_circuits_and_streams_are_read(tor: Start) -> None:
    first, last = "A" * 40, "B" * 40
    circuits = (
        f'7 BUILT ${first}~one,${last}=two BUILD_FLAGS=NEED_CAPACITY PURPOSE=GENERAL SOCKS_USERNAME="a \\"b" '
        'SOCKS_PASSWORD="-"'
    )
    answers = {
        "GETINFO circuit-status": f"250+circuit-status=\r\n{circuits}\r\n8 LAUNCHED PURPOSE=GENERAL\r\n.\r\n250 OK\r\n",
        "GETINFO stream-status": "250-stream-status=3 SUCCEEDED 7 198.51.100.10:443\r\n250 OK\r\n",
    }
    with ControlPort(tor(lambda command: answers[command].encode()).path) as control:
        assert control.circuits() == [Circuit("7", "BUILT", (first, last), 'a "b'), Circuit("8", "LAUNCHED", (), "")]
        assert control.streams() == [Stream("3", "SUCCEEDED", "7", "198.51.100.10:443")]


def test_a_refusal_says_what_was_refused(tor: Start) -> None:
    refusal = b"513 Unacceptable option value: Invalid router list.\r\n"
    with ControlPort(tor(lambda _: refusal).path) as control, pytest.raises(ControlPortError, match=r"SETCONF.*513 U"):
        control.setconf({"ExitNodes": "nonsense"})


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda _: b"", "did not answer GETINFO version within 0.4 s"),
        (lambda _: b"250-version=0", "did not answer GETINFO version within 0.4 s"),
        (lambda _: b"650 X\r\n", "did not answer GETINFO version within 0.4 s"),
        (lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak the control protocol"),
        (lambda _: os.urandom(64).replace(b"2", b"") + b"\r\n", "does not speak the control protocol"),
        (lambda _: b"250-config-file=/etc\r\n250 OK\r\n", "with something else"),
    ],
    ids=["silent", "half a line", "only events", "http", "noise", "another key"],
)
def test_a_strange_or_silent_tor_is_left_within_the_deadline(tor: Start, answer: Answer, message: str) -> None:
    began = time.monotonic()
    with ControlPort(tor(answer).path, answer_s=0.4) as control, pytest.raises(ControlPortError, match=message):
        control.getinfo("version")
    assert time.monotonic() - began < 2


def test_an_endless_answer_is_given_up(tor: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mexc_pipeline.egress.control_port.MAX_ANSWER", 1 << 20)
    endless = b"250+ns/all=\r\n" + b"r relay\r\n" * 400_000
    with ControlPort(tor(lambda _: endless).path) as control, pytest.raises(ControlPortError, match="more than"):
        control.getinfo("ns/all")


def test_an_endless_line_is_given_up(tor: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mexc_pipeline.egress.control_port.MAX_ANSWER", 1 << 20)
    with (
        ControlPort(tor(lambda _: b"2" * (3 << 20)).path) as control,
        pytest.raises(ControlPortError, match="more than"),
    ):
        control.getinfo("ns/all")


def test_a_tor_that_goes_away(tor: Start) -> None:
    def vanish(_: str) -> bytes:
        raise OSError

    with ControlPort(tor(vanish).path) as control, pytest.raises(ControlPortError, match=r"closed|reset"):
        control.getinfo("version")


def test_a_line_end_cut_in_two_is_still_one() -> None:
    control, tor = _pair()
    with control, tor:
        thread = threading.Thread(target=_in_pieces, args=(tor, b"250-version=1\r\n250 OK\r\n", 0.002))
        thread.start()
        assert control.getinfo("version") == "1"
        thread.join(5)


def test_an_answer_that_trickles_for_ever_is_left_at_the_deadline() -> None:
    control, tor = _pair(answer_s=0.5)
    with control, tor:
        thread = threading.Thread(target=_in_pieces, args=(tor, b"650 CIRC\r\n" * 40, 0.02))
        thread.start()
        with pytest.raises(ControlPortError, match=r"did not answer GETINFO version within 0\.5 s"):
            control.getinfo("version")
        control.close()
        thread.join(5)


def _pair(answer_s: float = 2.0) -> tuple[ControlPort, socket.socket]:
    """A client past its authentication, and the other end."""
    ours, theirs = socket.socketpair()
    control = ControlPort.__new__(ControlPort)
    control._path, control._answer_s, control._held, control._socket = "pair", answer_s, b"", ours
    return control, theirs


def _in_pieces(sock: socket.socket, data: bytes, pause_s: float) -> None:
    sock.recv(100)
    try:
        for position in range(len(data)):
            sock.sendall(data[position : position + 1])
            time.sleep(pause_s)
    except OSError:
        return  # the client has seen enough
