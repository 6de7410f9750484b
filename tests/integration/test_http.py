# SPDX-License-Identifier: Apache-2.0
"""Goal: HTTP as docs/configuration.md says it, and no request that hangs: every request, however
wrong, slow or half-sent, gets a proper answer or a close; a 200 means a row, and the connection of
a good client stays open.

Method: raw bytes over sockets to the real server, most of it without an archive (HTTP does not
depend on one). Several tests pin traits of libmicrohttpd that the server is built on or around
(server/http.h); they are named where they are. Here: requests and their answers; beside it
test_http_malformed.py, test_http_abuse.py, test_http_connections.py and test_http_stop.py.
"""

import concurrent.futures
import http.client
import json
import re
import select
import time

import pytest

from harness import oracle
from harness.raw import PATIENCE_S, Raw, chunked, get, once, post, rows_of
from harness.wait import until

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


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
    """Nothing says how long it is: past a bound it is answered, though its end never came, and who sends
    on is cut off. How much gets through until then is the machine's affair."""
    piece = f"{1000:x}\r\n{'x' * 1000}\r\n"
    with Raw(server) as raw:
        raw.send(get("/", "Transfer-Encoding: chunked", method="POST"))
        deadline = time.monotonic() + PATIENCE_S
        while not select.select([raw.socket], [], [], 0)[0]:
            assert time.monotonic() < deadline, "no answer to a body without an end"
            raw.send(piece)
        status, headers, _ = raw.answer()
        assert status == 413 and headers["connection"].lower() == "close"
        with pytest.raises(ConnectionError):
            while time.monotonic() < deadline:
                raw.send(piece)
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
