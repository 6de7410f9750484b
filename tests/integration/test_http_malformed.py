# SPDX-License-Identifier: Apache-2.0
"""Requests that are no HTTP, half sent or sent too slowly (goal and method: test_http.py)."""

import socket
import time

import pytest

from harness.raw import PATIENCE_S, Raw, get, once, post, rows_of


# ---- malformed ----

MALFORMED = {
    "garbage": b"\x00\x01\x02\x03\xff\xfe\r\n\r\n",
    "tls hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x7f" * 300,
    "no version": b"GET /\r\n\r\n",
    "http 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "version 9.9": b"GET / HTTP/9.9\r\nHost: h\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "header without a colon": b"GET / HTTP/1.1\r\nHost: h\r\nnonsense\r\n\r\n",
    "space in the target": b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
    "only line ends": b"\r\n" * 5000,
    "content length text": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: many\r\n\r\nabc",
    "content length negative": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\nabc",
    "content length plus": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +3\r\n\r\nabc",
    "content length huge": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999999"
                           b"\r\n\r\nabc",
    "content length list": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3, 3\r\n\r\nabc",
    "two content lengths": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n"
                           b"Content-Length: 30\r\n\r\nabc",
    "length and chunks": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n"
                         b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "chunks twice": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"
                    b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "gzip": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    "gzip, chunked": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\nabc",
    "space before a colon": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length : 3\r\n\r\nabc",
    "chunks with a space": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n"
                           b"3\r\nabc\r\n0\r\n\r\n",
    "chunks in 1.0": b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"
                     b"3\r\nabc\r\n0\r\n\r\n",
    "carriage return in a value": b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rContent-Length: 5\r\n\r\n",
    "folded before any header": b"GET / HTTP/1.1\r\n Host: h\r\nHost: h\r\n\r\n",
    "zero byte in a name": b"GET / HTTP/1.1\r\nHost: h\r\nX\0Y: a\r\n\r\n",
    "zero byte in the target": b"GET /li\0vez HTTP/1.1\r\nHost: h\r\n\r\n",
    "zero byte in the method": b"G\0T / HTTP/1.1\r\nHost: h\r\n\r\n",
    "chunk size negative": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                           b"-3\r\nabc\r\n0\r\n\r\n",
    "chunk size with 0x": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                          b"0x3\r\nabc\r\n0\r\n\r\n",
    "chunk size text": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "chunk size huge": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                       b"fffffffffffffffffff\r\n",
    "chunk without an end": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                            b"3\r\nabcdef\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_http__malformed_is_answered_or_closed(server, name):
    """An error or a close, at once and not at a time-out; no row; and the server goes on."""
    with Raw(server) as raw:
        try:
            raw.send(MALFORMED[name])
            raw.socket.shutdown(socket.SHUT_WR)
            answer = raw.answer()
        except ConnectionError:
            answer = None
        assert answer is None or answer[0] >= 300, answer  # a space: MHD 1.0 redirects (301)
    assert rows_of(server) == 0


@pytest.mark.parametrize("name", ["length and chunks", "two content lengths", "gzip",
                                  "chunks twice", "no host", "version 9.9",
                                  "space before a colon", "chunks with a space", "chunks in 1.0",
                                  "carriage return in a value"])
def test_http__malformed_and_waiting_is_closed_by_the_server(server, name):
    """The client does not close: the answer comes all the same, and then the server's close."""
    with Raw(server) as raw:
        answer = raw.send(MALFORMED[name]).answer()
        assert answer[0] in (400, 501, 505), answer
        assert raw.is_closed()
    assert rows_of(server) == 0


def test_http__every_prefix_of_a_request(server):
    """Half-sent at every byte, then closed by the client: nothing is stored, nothing hangs."""
    request = post("body").encode()
    for cut in range(1, len(request)):
        with Raw(server) as raw:
            raw.send(request[:cut])
            raw.socket.shutdown(socket.SHUT_WR)
            raw.answer()
    assert rows_of(server) == 0
    assert once(server, request)[0] == 200


# ---- slow ----

@pytest.fixture
def hasty(scene):
    server = scene.server(None, IDLE_TIMEOUT_S=1, REQUEST_TIMEOUT_S=1).start_ready()
    yield server
    server.stop_clean()


def test_http__idle_connections_are_closed(hasty):
    with Raw(hasty) as silent, Raw(hasty).send(get()) as used:
        assert used.answer()[0] == 200
        assert silent.is_closed() and used.is_closed()


@pytest.mark.parametrize("start,piece", [
    ("GET / HTTP/1.1\r\nHost: h\r\nX-Slow: ", "a"),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n", "b"),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nc\r\n")],
    ids=["headers", "body", "chunks"])
def test_http__a_byte_now_and_then_is_not_for_ever(hasty, start, piece):
    """MHD's own time-out starts anew with every byte: the server's deadline does not. 408."""
    with Raw(hasty) as raw:
        raw.send(start)
        deadline = time.monotonic() + PATIENCE_S
        received = b""
        raw.socket.settimeout(0.1)
        while time.monotonic() < deadline:
            try:
                raw.send(piece)
                received = raw.socket.recv(4096)
                break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            pytest.fail("still taken")
        assert received == b"" or received.startswith(b"HTTP/1.1 408 "), received
    assert rows_of(hasty) == 0


def test_http__half_a_request_is_closed(hasty):
    for start in ("GET / HT", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc"):
        with Raw(hasty) as raw:
            answer = raw.send(start).answer()
            assert answer is None or answer[0] == 408, answer
    assert rows_of(hasty) == 0
