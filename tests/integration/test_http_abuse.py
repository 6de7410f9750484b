# SPDX-License-Identifier: Apache-2.0
"""What clients do on purpose: every limit met and passed, connections by the thousand, requests and answers
by the byte, resets. Goal and method: test_http.py; and a witness, a good client on one connection, whose
every insert must be answered 200 throughout.
"""

import contextlib
import resource
import socket
import sqlite3 as sqlite
import threading

import pytest

from harness.env import is_slow_build
from harness.raw import Raw, chunked, get, once, post, rows_of
from harness.wait import until


class Witness:
    def __init__(self, server):
        self.raw = Raw(server)
        self.served = 0
        self.trouble = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._stop.is_set():
            try:
                answer = self.raw.send(post("witness")).answer()
            except (AssertionError, OSError) as error:
                self.trouble = error
                return
            if not answer or answer[0] != 200:
                self.trouble = answer
                return
            self.served += 1
            self._stop.wait(0.002)

    def end(self):
        """How many inserts it had answered."""
        served = self.served
        until(lambda: self.trouble or self.served > served, "the witness to be served once more")
        self._stop.set()
        self._thread.join()
        self.raw.close()
        assert self.trouble is None, self.trouble
        return self.served


@pytest.fixture
def witness(server):
    witness = Witness(server)
    yield witness
    served = witness.end()
    others = server.rows_of_others
    assert rows_of(server) == served + (others() if callable(others) else others)


@pytest.fixture(autouse=True)
def no_rows_of_others(request):
    if "server" in request.fixturenames:
        request.getfixturevalue("server").rows_of_others = 0


HEAD = get("/", "Transfer-Encoding: chunked", method="POST")


@pytest.mark.parametrize("request_bytes,status", [
    (post("x" * 1023), 200), (post("x" * 1024), 200), (post("x" * 1025), 413), (post("x" * 1000000), 413),
    (HEAD + chunked("x" * 1024), 200), (HEAD + chunked("x" * 1025), 413),
    (HEAD + chunked(*"x" * 1024), 200), (HEAD + chunked(*"x" * 1025), 413),
    (HEAD + "400;name=value\r\n" + "x" * 1024 + "\r\n0\r\n\r\n", 200),
    (HEAD + "1\r\nx\r\n0\r\nTrailer: y\r\n\r\n", 200),
    (get("/" + "a" * 2047), 404), (get("/" + "a" * 2048), 414),
    (get("/?" + "a" * 4000), 200), (get("/", "X: " + "y" * 4000), 200), (get("/", "X: " + "y" * 9000), 431)],
    ids=lambda value: value if isinstance(value, int) else "")
def test_http_abuse__each_limit_from_both_sides(server, witness, request_bytes, status):
    answer = once(server, request_bytes)
    assert answer and answer[0] == status, answer
    server.rows_of_others = int(status == 200)


@pytest.mark.parametrize("request_bytes,status,kept", [
    ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200, True),
    ("GET / HTTP/1.0\r\n\r\n", 200, False),
    ("GET / HTTP/1.1\nHost: h\n\n", 200, True),  # RFC 9112, 2.2: a single LF may end a line
    ("\r\n\r\n" + get(), 200, True),
    (get("http://else.where:99/"), 200, True), (get("http://else.where"), 200, True),
    (get("/", method="OPTIONS"), 405, True), (get("*", method="OPTIONS"), 404, True),
    (get("harvey:80", method="CONNECT"), 404, True), (get("/", method="TRACE"), 405, True),
    (get("/", method="B" * 1000), 405, True),
    (get("/", "Connection: Upgrade", "Upgrade: websocket"), 200, True),
    (get("/", "Expect: something-else", "Content-Length: 1", method="POST") + "x", 200, True),
    (get("/", "Content-Length: 3") + "abc", 200, True)])
def test_http_abuse__unusual_but_right(server, witness, request_bytes, status, kept):
    with Raw(server) as raw:
        answer = raw.send(request_bytes).answer()
        assert answer and answer[0] == status, answer
        if kept:
            assert raw.send(get("/livez")).answer()[0] == 200
        else:
            assert raw.is_closed()
    server.rows_of_others = int(status == 200)


def test_http_abuse__byte_by_byte(server, witness):
    """Every request in writes of one byte, each its own packet."""
    requests = [(get(), 200), (post("bürste"), 200), (HEAD + chunked("in ", "parts"), 200),
                (get("/nothing"), 404), (get("/", "Content-Length: 2000", method="POST"), 413)]
    for text, status in requests:
        with Raw(server) as raw:
            for byte in text.encode():
                raw.send(bytes([byte]))
            assert raw.answer()[0] == status
    server.rows_of_others = 3


def test_http_abuse__reset_in_every_place(server, witness):
    """RST after each byte of a request, and before its answer is read: at most the whole one is a row."""
    request = post("reset").encode()
    for cut in range(len(request) + 1):
        Raw(server).send(request[:cut]).reset()
    until(lambda: server.status()["connections"] <= 2, "the connections to be gone")
    # counted when the witness has ended: the row may be on its way to the database still
    server.rows_of_others = lambda: rows_of_value(server, "reset", at_most=1)


def rows_of_value(server, value, at_most):
    with contextlib.closing(sqlite.connect(server.database)) as other:
        rows = other.execute("SELECT count(*) FROM test WHERE value = ?", (value,)).fetchone()[0]
    assert rows <= at_most
    return rows


def test_http_abuse__half_closed_at_every_byte(server, witness):
    """The client's side closed after each byte: an answer or a close, and no row of a part."""
    request = post("whole").encode()
    for cut in range(len(request) + 1):
        with Raw(server) as raw:
            raw.send(request[:cut]).socket.shutdown(socket.SHUT_WR)
            answer = raw.answer()
            assert (answer is not None and answer[0] == 200) if cut == len(request) else \
                (answer is None or answer[0] >= 400), (cut, answer)
    server.rows_of_others = 1


def small_client(server):
    """With a receive buffer as small as can be."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.connect(("127.0.0.1", server.port.number))
    client.setblocking(False)
    return client


def test_http_abuse__answers_that_nobody_reads(scene):
    """Requests by the thousand in one pipeline, and not one answer is read: the connection ends with its
    time-out, and others are served meanwhile."""
    server = scene.server(None, IDLE_TIMEOUT_S=1, REQUEST_TIMEOUT_S=1).start_ready()
    witness = Witness(server)
    before = server.rss_bytes()
    deaf = [small_client(server) for _ in range(5)]
    flood = get("/status").encode() * 500

    def all_are_cut():
        cut = 0
        for one in deaf:
            try:
                one.send(flood)
            except BlockingIOError:
                pass
            except OSError:
                cut += 1
        return cut == len(deaf)
    until(all_are_cut, "those who do not read to be cut off")
    until(lambda: server.status()["connections"] <= 2, "the connections to be gone")
    if not is_slow_build():
        assert server.rss_bytes() - before < 32 << 20
    witness.end()
    for one in deaf:
        one.close()
    server.stop_clean()


def test_http_abuse__answers_read_by_the_byte(scene):
    """An answer that is read a little, now and then, is not for ever: it ends with the request's time-out."""
    server = scene.server(None, IDLE_TIMEOUT_S=300, REQUEST_TIMEOUT_S=1).start_ready()
    slow = small_client(server)
    flood = get("/status").encode() * 500

    def is_cut():
        """Goes on asking, and reads one byte of each answer's hundreds."""
        try:
            slow.send(flood)
        except BlockingIOError:
            pass
        except OSError:
            return True
        try:
            return slow.recv(1) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
    until(is_cut, "it to be cut off", pause_s=0.05)
    slow.close()
    server.stop_clean()


@pytest.mark.parametrize("kind", ["nothing", "a part of a head", "a part of a body"])
def test_http_abuse__more_connections_than_descriptors(scene, kind):
    """As many as the limit of open files lets in, and more: nobody who is in notices, who is not waits or is
    told, and all is well when they have gone."""
    sent = {"nothing": b"", "a part of a head": b"GET / HT",
            "a part of a body": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc"}[kind]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 700 if is_slow_build() else 1500
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count + 500)), hard))
    server = scene.server(None)
    server.argv = ["prlimit", f"--nofile={count - 200}:{count - 200}", *server.argv]
    server.start_ready()
    assert "limit of open files is low" in server.log()
    witness = Witness(server)
    crowd = []
    for _ in range(count):
        client = socket.create_connection(("127.0.0.1", server.port.number))
        crowd.append(client)
        client.sendall(sent)
    served = witness.served
    until(lambda: witness.trouble or witness.served > served + 50, "the witness to be served")
    for client in crowd:
        client.close()
    until(lambda: once(server, get("/livez"))[0] == 200, "room for others")
    until(lambda: server.status()["connections"] <= 2, "all to be gone")
    witness.end()
    server.stop_clean()
