# SPDX-License-Identifier: Apache-2.0
"""Goal: HTTP as docs/configuration.md says it, and no request that hangs: every request, however
wrong, slow or half-sent, gets a proper answer or a close; a 200 means a row, and the connection of
a good client stays open.

Method: raw bytes over sockets to the real server, most of it without an archive (HTTP does not
depend on one). Several tests pin traits of libmicrohttpd that the server is built on or around
(server/http.h); they are named where they are.
"""

import concurrent.futures
import http.client
import json
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness import oracle
from harness.env import is_slow_build, program
from harness.raw import Raw, chunked, get, once, post
from harness.wait import until

PATIENCE_S = 30  # for what takes milliseconds: only a hang reaches it
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@pytest.fixture
def server(scene):
    """A server without an archive, stopped at the end; its rows are what it acknowledged."""
    server = scene.server(None).start_ready()
    yield server
    if server.is_alive():
        server.stop_clean()


def rows_of(server):
    return server.status()["rows"]


# ---- the table ----

def test_http__insert_answers_and_stores(scene, server):
    status, headers, body = once(server, get())
    assert (status, body, headers["harvey-row"]) == (200, "inserted", "1")
    assert "close" not in headers.get("connection", "").lower()
    for number, text in enumerate(["mine", "grüße, ελληνικά, 🂡", " ", "x" * 1024, "12 monkeys"], 2):
        status, headers, body = once(server, post(text))
        assert (status, headers["harvey-row"]) == (200, str(number)), (text, body)
    assert once(server, post(""))[0] == 200
    assert rows_of(server) == 7
    server.stop_clean()
    values = [value for _, value in oracle.read_rows(scene.source_copy())]
    assert UUID.fullmatch(values[0]) and UUID.fullmatch(values[6]) and values[0] != values[6]
    assert values[1:6] == ["mine", "grüße, ελληνικά, 🂡", " ", "x" * 1024, "12 monkeys"]


@pytest.mark.parametrize("method,path,status,allow", [
    ("PUT", "/", 405, "GET, POST"), ("DELETE", "/", 405, "GET, POST"),
    ("HEAD", "/", 405, "GET, POST"), ("OPTIONS", "/", 405, "GET, POST"),
    ("BREW", "/", 405, "GET, POST"), ("POST", "/status", 405, "GET, HEAD"),
    ("DELETE", "/livez", 405, "GET, HEAD"), ("PATCH", "/readyz", 405, "GET, HEAD"),
    ("GET", "/nothing", 404, None), ("GET", "//", 404, None), ("GET", "/%2f", 404, None),
    ("GET", "/%00", 404, None), ("GET", "/status/", 404, None), ("GET", "/Status", 404, None),
    ("GET", "/metrics", 404, None), ("POST", "/nothing", 404, None),
    ("GET", "/livez", 200, None), ("GET", "/readyz", 200, None), ("GET", "/status", 200, None),
    ("HEAD", "/livez", 200, None), ("HEAD", "/readyz", 200, None), ("HEAD", "/status", 200, None),
    ("GET", "http://harvey/livez", 200, None), ("GET", "/livez?x=y&z", 200, None)])
def test_http__table(server, method, path, status, allow):
    """The answer, and that the connection is kept: the next request on it is served."""
    with Raw(server) as raw:
        head = method == "HEAD"
        answer = raw.send(get(path, method=method)).answer(head)
        assert answer[0] == status, answer
        assert answer[1].get("allow") == allow
        assert raw.send(get("/livez")).answer()[0] == 200
    assert rows_of(server) == 0


def test_http__status_forms(server):
    text = once(server, get("/status"))
    assert text[2].startswith("Total rows: 0\n") and text[1]["content-type"].startswith("text/plain")
    for request in (get("/status?format=json"), get("/status", "Accept: application/json"),
                    get("/status", "accept: text/html, Application/JSON;q=0.9")):
        answer = once(server, request)
        assert answer[1]["content-type"] == "application/json"
        assert json.loads(answer[2])["rows"] == 0
    assert not once(server, get("/status?format=text", "Accept: application/json"))[2].startswith("{")


@pytest.mark.parametrize("value,status", [("local", 200), ("LOCAL", 200), ("archive", 501),
                                          ("maybe", 400), ("", 400)])
def test_http__ack_header(server, value, status):
    answer = once(server, get("/", f"Harvey-Ack: {value}"))
    assert answer[0] == status and (status == 200 or "Harvey-Ack" in answer[2])
    assert rows_of(server) == (1 if status == 200 else 0)


# ---- bodies ----

def test_http__bodies(scene, server):
    head = get("/", "Transfer-Encoding: chunked", method="POST")
    with Raw(server) as raw:
        assert raw.send(head + chunked("in ", "three ", "pieces")).answer()[0] == 200
        assert raw.send(post("slow"[:0]) + post("x" * 1024)).answer()[0] == 200
        assert raw.answer()[0] == 200
        raw.send(post("byte by byte")[:-12])
        for letter in "byte by byte":
            raw.send(letter)
        assert raw.answer()[0] == 200
        assert raw.send(head + chunked("x" * 1000, "y" * 24)).answer()[0] == 200
    assert rows_of(server) == 5
    server.stop_clean()
    values = [value for _, value in oracle.read_rows(scene.source_copy())]
    assert values[0] == "in three pieces" and values[3] == "byte by byte"
    assert values[4] == "x" * 1000 + "y" * 24


def test_http__bodies_refused(server):
    assert once(server, post("x" * 1025))[0] == 413
    assert once(server, get("/", "Content-Length: 99999999999999", method="POST"))[0] == 413
    head = get("/", "Transfer-Encoding: chunked", method="POST")
    assert once(server, head + chunked("x" * 1024, "y"))[0] == 413
    assert once(server, head + chunked(*["x" * 1000] * 60))[0] == 413
    for body in (b"\xff\xfe", b"zero \x00 zero", b"\xed\xa0\x80", b"\xc0\xaf", b"cut \xe2\x82"):
        head = get("/", f"Content-Length: {len(body)}", method="POST").encode()
        answer = once(server, head + body)
        assert answer[0] == 400 and "UTF-8" in answer[2], body
    assert once(server, post("x" * 1025, path="/nothing"))[0] == 413
    assert once(server, post("x" * 9, path="/nothing"))[0] == 404
    assert rows_of(server) == 0


def test_http__a_refused_body_does_not_lose_the_answer(server):
    """The client is still sending megabytes when it is refused: it gets the 413, not a reset."""
    for size in (2_000, 200_000, 4_000_000):
        connection = server.connection(PATIENCE_S)
        connection.request("POST", "/", body=b"x" * size)
        assert connection.getresponse().status == 413
        connection.close()
    connection = server.connection(PATIENCE_S)
    connection.request("GET", "/", headers={"X-Long": "a" * 1_000_000})
    assert connection.getresponse().status == 431
    connection.close()
    assert rows_of(server) == 0


def test_http__an_endless_chunked_body_is_cut(server):
    """Nothing says how long it is: past a bound it is answered and cut off."""
    with Raw(server) as raw:
        raw.send(get("/", "Transfer-Encoding: chunked", method="POST"))
        piece = f"{1000:x}\r\n{'x' * 1000}\r\n"
        deadline = time.monotonic() + PATIENCE_S
        try:
            while time.monotonic() < deadline:
                raw.send(piece)
        except ConnectionError:
            pass
        else:
            pytest.fail("it is still taken")
    assert server.request("GET", "/livez").code == 200 and rows_of(server) == 0


def test_http__expect_continue(server):
    with Raw(server) as raw:
        raw.send(get("/", "Content-Length: 4", "Expect: 100-continue", method="POST"))
        assert raw.answer()[0] == 100
        assert raw.send("body").answer()[0] == 200
        raw.send(get("/", "Content-Length: 4000", "Expect: 100-continue", method="POST"))
        assert raw.answer()[0] == 413
    assert rows_of(server) == 1


# ---- sizes of headers ----

def test_http__no_header_size_leaves_a_request_without_an_answer(server):
    """MHD takes request and response headers from one pool: near its end a request would be handled
    and never answered (0.9.75). Every size up to far beyond it gets an answer, and 200s are rows."""
    acknowledged = 0
    sizes = [*range(6000, 8400, 13), 9000, 20000, 100000]
    for size in sizes:
        answer = once(server, get("/", "X-Long: " + "a" * size))
        assert answer and answer[0] in (200, 431), (size, answer)
        acknowledged += answer[0] == 200
    assert 0 < acknowledged < len(sizes)
    assert rows_of(server) == acknowledged


def test_http__many_small_headers(server):
    acknowledged = 0
    for count in [10, 30, *range(50, 120), 150, 500, 2000]:
        answer = once(server, get("/", *[f"X-{number}: y" for number in range(count)]))
        assert answer and answer[0] in (200, 431), (count, answer)
        acknowledged += answer[0] == 200
    assert acknowledged > 0 and rows_of(server) == acknowledged


def test_http__long_targets(server):
    assert once(server, get("/" + "a" * 2000))[0] == 404
    assert once(server, get("/" + "a" * 2048))[0] == 414
    assert once(server, get("/" + "a" * 60000))[0] in (414, 431)
    assert once(server, get("/?" + "a=b&" * 20000))[0] in (414, 431)
    assert rows_of(server) == 0


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
                                  "chunks twice", "no host", "version 9.9"])
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
    with Raw(hasty) as silent, Raw(hasty) as used:
        assert used.send(get()).answer()[0] == 200
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


# ---- connections ----

def test_http__keep_alive_for_many_inserts(server):
    """Pins two traits of MHD: an answer not given in the handler's first call keeps the connection;
    a handler that returns without an answer is called again until it has one (gc-retry)."""
    with Raw(server) as raw:
        for number in range(1, 501):
            answer = raw.send(get() if number % 2 else post(f"row {number}")).answer()
            assert answer[0] == 200 and answer[1]["harvey-row"] == str(number)
        assert raw.send(get("/nothing")).answer()[0] == 404
        assert raw.send(get()).answer()[1]["harvey-row"] == "501"
    assert rows_of(server) == 501


def test_http__pipelined_requests(server):
    """Hundreds of requests in one write, of every kind: each its answer, in order."""
    kinds = [(get(), 200), (get("/nothing"), 404), (post("text"), 200), (get("/livez"), 200),
             (get("/status"), 200), (get("/", method="DELETE"), 405)]
    count = 300
    with Raw(server) as raw:
        raw.send("".join(kinds[number % len(kinds)][0] for number in range(count)))
        for number in range(count):
            answer = raw.answer()
            assert answer[0] == kinds[number % len(kinds)][1], (number, answer)
    assert rows_of(server) == count // 3


def test_http__pipelined_beside_others(server):
    """The same while other connections keep the writer busy."""
    stop = threading.Event()

    def load():
        with Raw(server) as raw:
            while not stop.is_set():
                assert raw.send(get()).answer()[0] == 200
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(load) for _ in range(4)]
        for _ in range(5):
            with Raw(server) as raw:
                raw.send(get("/livez") * 40 + get() * 40 + get("/nothing") * 40)
                codes = [raw.answer()[0] for _ in range(120)]
                assert codes == [200] * 80 + [404] * 40
        stop.set()
        for done in loads:
            done.result()


def test_http__http_1_0(server):
    with Raw(server) as raw:
        answer = raw.send("GET / HTTP/1.0\r\n\r\n").answer()
        assert answer[0] == 200 and raw.is_closed()
    with Raw(server) as raw:
        assert raw.send(get("/", "Connection: close")).answer()[0] == 200
        assert raw.is_closed()
    assert rows_of(server) == 2


def test_http__half_closed_clients_are_answered(server):
    for number in range(1, 21):
        with Raw(server) as raw:
            raw.send(post(f"half closed {number}"))
            raw.socket.shutdown(socket.SHUT_WR)
            answer = raw.answer()
            assert answer and answer[0] == 200 and answer[1]["harvey-row"] == str(number)


def test_http__clients_that_vanish(server):
    """Gone with a reset while their insert is at the writer: its record outlives the connection."""
    for _ in range(20):
        clients = [Raw(server) for _ in range(20)]
        for client in clients:
            client.send(post("vanishes"))
        for client in clients:
            client.reset()
    assert once(server, get())[0] == 200
    until(lambda: server.status()["connections"] <= 1, "the connections to be gone")
    assert 1 <= rows_of(server) <= 401


def test_http__group_commit(server):
    """Concurrent inserts share transactions; every one has a row of its own."""
    def client(_):
        with Raw(server) as raw:
            return [int(raw.send(get()).answer()[1]["harvey-row"]) for _ in range(100)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        rows = [row for part in pool.map(client, range(16)) for row in part]
    assert sorted(rows) == list(range(1, 1601))
    counters = server.status()["counters"]
    assert counters["inserted_rows"] == 1600 and counters["batches"] < 1600
    assert rows_of(server) == 1600


def test_http__thousands_of_idle_connections(scene):
    """They cost memory that is bounded, and others are served meanwhile."""
    count = 500 if is_slow_build() else 3000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count + 500)), hard))
    server = scene.server(None).start_ready()
    before = server.rss_bytes()
    idle = [Raw(server) for _ in range(count)]
    try:
        until(lambda: server.status()["connections"] > count, "all to be taken")
        for client in idle[::100]:
            assert client.send(get()).answer()[0] == 200
        assert once(server, get())[0] == 200
        if not is_slow_build():
            assert server.rss_bytes() - before < count * 16384 + (16 << 20)
    finally:
        for client in idle:
            client.close()
    until(lambda: server.status()["connections"] == 1, "all to be gone")
    server.stop_clean()


def test_http__too_many_connections_are_told(scene):
    """Beyond the limit: 503 with Retry-After, not silence; and room again when others leave."""
    server = scene.server(None, CONNECTIONS_MAX=20).start_ready()
    until(lambda: server.status()["connections"] == 1, "the start's connections to be gone")
    held = [Raw(server) for _ in range(20)]
    for client in held:
        assert client.send(get()).answer()[0] == 200
    with Raw(server) as surplus:
        answer = surplus.send(get()).answer()
        assert answer[0] == 503 and answer[1]["retry-after"]
        assert surplus.is_closed()
    for client in held[:10]:
        client.close()
    until(lambda: once(server, get())[0] == 200, "room")
    for client in held[10:]:
        assert client.send(get()).answer()[0] == 200
        client.close()
    server.stop_clean()


def test_http__no_descriptor_left(scene, server):
    """accept fails: who waits goes on waiting, the server sleeps meanwhile, and serves them after."""
    def sleeps():
        threads = Path(f"/proc/{server.pid}/task").glob("*/status")
        texts = [text for text in (path.read_text() for path in threads) if "Name:\thttp\n" in text]
        return int(re.search(r"\nvoluntary_ctxt_switches:\s*(\d+)", texts[0])[1])
    limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    in_use = len(list(Path(f"/proc/{server.pid}/fd").iterdir()))
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (in_use, limits[1]))
    waiting = [Raw(server) for _ in range(8)]
    for client in waiting:
        client.send(get())
    until(lambda: "accept fails" in server.log(), "an accept to fail")
    sleeps_before = sleeps()  # first, and last again below: what is between is counted for the server
    fails_before = server.log().count("accept fails")
    until(lambda: server.log().count("accept fails") >= fails_before + 5, "more of them")
    fails = server.log().count("accept fails") - fails_before
    assert sleeps() - sleeps_before >= fails, "it tries again without sleeping"
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
    for client in waiting:
        assert client.answer()[0] == 200
        client.close()


# ---- the database goes away ----

def test_http__not_ready_is_said(scene, server):
    """Renamed under the server: 503 with Retry-After and the reason; alive all the same; and ready
    again, without a restart, when it is back."""
    assert once(server, get())[0] == 200
    scene.database.rename(scene.volume / "away.db")
    answer = until(lambda: (got := once(server, get()))[0] == 503 and got, "a refusal")
    assert answer[1]["retry-after"]
    ready = until(lambda: (got := once(server, get("/readyz")))[0] == 503 and got, "not ready")
    assert "state.db" in ready[2]
    assert once(server, get("/livez"))[0] == 200
    status = server.status()
    assert status["ready"] is False and "state.db" in status["reason"] and status["rows"] is None
    assert once(server, get("/status"))[2].startswith("Total rows: unknown")
    (scene.volume / "away.db").rename(scene.database)
    until(lambda: once(server, get("/readyz"))[0] == 200, "ready again")
    assert once(server, get())[0] == 200


# ---- stop ----

def test_http__stop_under_load_keeps_every_promise(scene):
    """SIGTERM while clients insert as fast as they can: each request sent before the stop is answered,
    every 200 is a row, and every row was acknowledged."""
    for _ in range(3):
        server = scene.server(None).start_ready()
        before = rows_of(server)
        acknowledged, cut = [], []

        def client(_, server=server, acknowledged=acknowledged, cut=cut):
            sent = 0
            with Raw(server) as raw:
                while True:
                    try:
                        raw.send(get())
                        answer = raw.answer()
                    except ConnectionError:
                        cut.append(sent)
                        return
                    if answer is None:
                        cut.append(sent)
                        return
                    assert answer[0] == 200, answer
                    acknowledged.append(int(answer[1]["harvey-row"]))
                    sent += 1
                    if answer[1].get("connection", "").lower() == "close":
                        return
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            clients = [pool.submit(client, number) for number in range(12)]
            until(lambda: len(acknowledged) > 300, "load", pause_s=0.005)
            server.signal(signal.SIGTERM)
            for done in clients:
                done.result()
        assert server.wait() == 0
        assert not cut, f"{len(cut)} clients were cut off without a last answer"
        rows = oracle.read_rows(scene.source_copy())
        assert len(rows) == before + len(acknowledged)
        assert len(set(acknowledged)) == len(acknowledged)


def test_http__stop_while_new_clients_come(scene):
    """Fresh connections to the very end: exit 0, and every 200 is a row."""
    for _ in range(5):
        server = scene.server(None).start_ready()
        before = rows_of(server)
        acknowledged = []

        def client(_, server=server, acknowledged=acknowledged):
            while True:
                try:
                    answer = once(server, get())
                except ConnectionError:
                    return  # refused, or reset in the moment between the last accept and the close
                if answer and answer[0] == 200:
                    acknowledged.append(int(answer[1]["harvey-row"]))
                else:
                    assert answer is None or answer[0] == 503, answer
        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            clients = [pool.submit(client, number) for number in range(10)]
            until(lambda: len(acknowledged) > 100, "load", pause_s=0.005)
            server.signal(signal.SIGTERM)
            for done in clients:
                done.result()
        assert server.wait() == 0
        ids = {row for row, _ in oracle.read_rows(scene.source_copy())}
        assert ids.issuperset(acknowledged) and len(set(acknowledged)) == len(acknowledged)
        assert len(ids) <= before + len(acknowledged) + 10  # at most the one under way of each


def test_http__stop_answers_who_waits_in_the_queue(scene):
    """Clients that the kernel has accepted for us while we stood still: the stop serves them."""
    for _ in range(3):
        server = scene.server(None).start_ready()
        before = rows_of(server)
        server.freeze()
        clients = [Raw(server).send(get()) for _ in range(60)]
        server.signal(signal.SIGTERM)
        server.thaw()
        for client in clients:
            answer = client.answer()
            assert answer and answer[0] == 200, answer
            # told, but where the answer left before the stop was seen; closed in any case
            assert answer[1].get("connection", "close").lower() == "close"
            assert client.is_closed()
            client.close()
        assert server.wait() == 0
        assert len(oracle.read_rows(scene.source_copy())) == before + 60


def test_http__stop_says_so_and_does_not_wait_for_the_idle(scene):
    """Idle and half-sent connections do not hold a stop up."""
    server = scene.server(None).start_ready()
    with Raw(server) as idle, Raw(server) as half, Raw(server) as slow:
        assert idle.send(get()).answer()[0] == 200
        half.send("GET / HTT")
        slow.send(get("/", "Content-Length: 100", method="POST") + "abc")
        server.signal(signal.SIGTERM)
        assert server.wait(PATIENCE_S) == 0


# ---- sockets from elsewhere ----

def test_http__takes_a_socket_from_systemd(scene):
    """LISTEN_FDS: the socket is inherited, and what waits in it at a stop is left to the next."""
    server = scene.server(None)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.getsockname()[1]
        server.port.close()
        server.port.number = number
        server.argv = [sys.executable, "-c", AS_SYSTEMD, str(listening.fileno()), program("server")]
        listening.set_inheritable(True)
        start_with(server, listening.fileno())
        server.wait_ready()
        assert once(server, get())[0] == 200
        server.freeze()
        waiting = Raw(server).send(get())
        server.signal(signal.SIGTERM)
        server.thaw()
        assert server.wait() == 0
        start_with(server, listening.fileno())
        answer = waiting.answer()
        assert answer and answer[0] in (200, 503), answer
        server.wait_ready()
        server.stop_clean()


AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


def start_with(server, *fds):
    """Spawns it with further descriptors open."""
    server.env = server.environment()
    with open(server.log_path, "ab") as log:
        server.child = subprocess.Popen(server.argv, env=server.env, cwd=server.cwd, stdout=log,
                                        stderr=log, stdin=subprocess.DEVNULL, pass_fds=fds)


def test_http__tells_systemd(scene):
    """NOTIFY_SOCKET: READY=1 when it listens, STOPPING=1 when it stops."""
    path = scene.dir / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(path))
        notify.settimeout(PATIENCE_S)
        server = scene.server(None)
        server.env = {**server.environment(), "NOTIFY_SOCKET": str(path)}
        server.spawn()
        assert notify.recv(100) == b"READY=1"
        server.wait_ready()
        server.signal(signal.SIGTERM)
        assert notify.recv(100) == b"STOPPING=1"
        assert server.wait() == 0


# ---- everything together ----

def test_http__rows_are_what_was_acknowledged(scene, archive):
    """Good and bad requests mixed, on a real archive: rows = 200s."""
    server = scene.server(archive).start_ready()
    bad = [get("/nothing"), post("x" * 2000), "GET / HTTP/1.1\r\n\r\n",
           get("/", "Content-Length: 3", "Transfer-Encoding: chunked", method="POST") + "abc"]

    def client(number):
        acknowledged = 0
        for step in range(40):
            if (step + number) % 4 == 0:
                once(server, bad[(step // 4) % len(bad)])
                continue
            answer = once(server, post(f"client {number} step {step}") if step % 2 else get())
            acknowledged += answer[0] == 200
        return acknowledged
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        acknowledged = sum(pool.map(client, range(8)))
    assert acknowledged == 240 and rows_of(server) == 240
    server.stop_clean()
    assert len(oracle.read_rows(scene.source_copy())) == 240


def test_http__library_client(server):
    """http.client, as somebody's script would use it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port.number, timeout=PATIENCE_S)
    for number in range(1, 11):
        connection.request("POST", "/", body=f"row {number}")
        answer = connection.getresponse()
        assert answer.status == 200 and answer.read() == b"inserted"
    connection.close()
