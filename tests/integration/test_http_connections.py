# SPDX-License-Identifier: Apache-2.0
"""Many connections, long-lived, pipelined, idle, too many (goal and method: test_http.py)."""

import concurrent.futures
import resource
import socket
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from harness.env import is_slow_build
from harness.raw import Raw, get, once, post, rows_of
from harness.wait import until


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


def test_http__each_insert_has_its_own_headers(scene):
    """A connection's inserts share one response object of libmicrohttpd: what varies is taken out of it
    and put in anew. Each answer has each header once, with its own row and its own position."""
    server = scene.server(scene.archive("dir")).start_ready()
    server.wait_leader()
    names, rows, positions = set(), [], []

    def look(raw):
        assert raw.answer()[0] == 200
        fields = [line.split(": ", 1) for line in raw.header_lines]
        headers = dict(fields)
        assert len(headers) == len(fields), fields
        names.add(tuple(sorted(headers)))
        rows.append(int(headers["Harvey-Row"]))
        positions.append(tuple(map(int, headers["Harvey-Position"].split("/")[1:])))
    with Raw(server) as one, Raw(server) as other:
        for _ in range(20):
            one.send(get() * 3)
            other.send(post("text"), get("/livez"), get())
            for _ in range(3):
                look(one)
            look(other)
            assert other.answer()[0] == 200 and "Harvey-Row" not in str(other.header_lines)
            look(other)
    assert len(names) == 1, names
    assert sorted(rows) == list(range(1, 101))
    told = dict(zip(rows, positions))
    assert [told[row] for row in sorted(told)] == sorted(told.values())
    assert len(set(positions)) > 40  # at least one transaction for each row of a connection
    server.stop_clean()


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


@pytest.mark.parametrize("sent, is_whole", [(get(), True), (post("text"), True),
                                            ("GET / HTTP/1.1\r\nHo", False),
                                            (post("x" * 90)[:-40], False)],
                         ids=["insert", "body", "half headers", "half a body"])
def test_http__clients_that_leave_in_the_same_breath(scene, sent, is_whole):
    """What they sent and their end are there before the server looks: MHD reads one and misses the other.
    The connection goes long before any time-out, and without an answer where the request is not whole."""
    server = scene.server(None, IDLE_TIMEOUT_S=3600, REQUEST_TIMEOUT_S=3600).start_ready()
    with Raw(server) as raw:
        until(lambda: server.status()["connections"] == 2, "it to be taken in")
        server.freeze()
        raw.send(sent)
        raw.socket.shutdown(socket.SHUT_WR)
        server.thaw()
        if is_whole:
            assert raw.answer()[0] == 200
        assert raw.answer() is None
    server.stop_clean()


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


def test_http__concurrent_inserts(server):
    """Concurrent inserts: every one has a row of its own."""
    def client(_):
        with Raw(server) as raw:
            return [int(raw.send(get()).answer()[1]["harvey-row"]) for _ in range(100)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        rows = [row for part in pool.map(client, range(16)) for row in part]
    assert sorted(rows) == list(range(1, 1601))
    assert rows_of(server) == 1600


def test_http__requests_that_wait_together_share_a_transaction(server):
    """All have arrived before the server looks: how fast anybody is does not matter."""
    clients = [Raw(server) for _ in range(100)]
    until(lambda: server.status()["connections"] > 100, "all to be taken in")
    batches = server.status()["counters"]["batches"]
    server.freeze()
    for client in clients:
        client.send(get())
    server.thaw()
    for client in clients:
        assert client.answer()[0] == 200
        client.close()
    counters = server.status()["counters"]
    assert counters["inserted_rows"] == 100 and counters["batches"] - batches < 50


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
    limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    in_use = len(list(Path(f"/proc/{server.pid}/fd").iterdir()))
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (in_use, limits[1]))
    waiting = [Raw(server) for _ in range(8)]
    for client in waiting:
        client.send(get())
    until(lambda: "accept fails" in server.log(), "an accept to fail")
    wakeups = server.wakeups("http")  # first, and last again below: what is between is counted for the server
    fails_before = server.log().count("accept fails")
    until(lambda: server.log().count("accept fails") >= fails_before + 5, "more of them")
    fails = server.log().count("accept fails") - fails_before
    assert server.wakeups("http") - wakeups >= fails, "it tries again without sleeping"
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
    for client in waiting:
        assert client.answer()[0] == 200
        client.close()


@pytest.mark.parametrize("idle_s", [1, 2, 3])
def test_http__inserts_that_take_longer_than_a_short_idle_timeout(scene, idle_s):
    """Whatever moment between two sweeps a request comes at: it is no idle connection, and is answered."""
    server = scene.server(None, IDLE_TIMEOUT_S=idle_s).start_ready()
    foreign = sqlite3.connect(scene.database, isolation_level=None)
    clients = []
    try:
        foreign.execute("BEGIN IMMEDIATE")
        for number in range(40):
            clients.append(Raw(server).send(post(f"waits {number}")))
            time.sleep(0.03)  # over more than one sweep's second
        time.sleep(idle_s + 1)  # until MHD would have closed the last one too
        foreign.execute("ROLLBACK")
        answers = [client.answer() for client in clients]
        assert [answer and answer[0] for answer in answers] == [200] * len(clients)
        assert rows_of(server) == len(clients)
        for client in clients:  # the time-out is in force again
            assert client.answer() is None
    finally:
        foreign.close()
        for client in clients:
            client.close()
    server.stop_clean()
