# SPDX-License-Identifier: Apache-2.0
"""A stop under load, and sockets that come from elsewhere (goal and method: test_http.py)."""

import concurrent.futures
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time

import pytest

from harness import oracle
from harness.env import hooks_program, is_slow_build, program
from harness.raw import PATIENCE_S, Raw, chunked, get, once, post, rows_of
from harness.wait import until


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


def test_http__stop_tells_whose_request_has_not_arrived(scene):
    """At the drain's end they hear that it comes too late, and nobody waits for the shipping, which goes on."""
    archive = scene.archive("dir")
    server = scene.server(archive, STOP_TIMEOUT_MS=600000).start_ready()
    server.wait_snapshot()
    server.wait_archived()
    archive.break_off()
    server.insert("is not archived")
    with Raw(server) as idle, Raw(server) as new, Raw(server) as chunks, Raw(server) as header, \
            Raw(server) as second, Raw(server) as body:
        assert idle.send(get()).answer()[0] == 200
        assert chunks.send(get("/", "Transfer-Encoding: chunked", method="POST") +
                           chunked("in ", "chunks")).answer()[0] == 200
        assert second.send(get()).answer()[0] == 200
        second.send("GET / HTT")
        header.send("GET / HTT")
        body.send(post("is to have more bytes")[:-5])
        until(lambda: server.status()["connections"] == 7, "them to be taken in")
        server.signal(signal.SIGTERM)
        for client in (header, second, body):
            answer = client.answer()
            assert answer and answer[0] == 503 and "retry-after" in answer[1], answer
            assert answer[1]["connection"] == "close" and client.is_closed()
        for client in (idle, new, chunks):
            assert client.answer() is None
        assert server.is_alive(), server.log()[-2000:]
    server.signal(signal.SIGTERM)  # skips the shipping
    assert server.wait() == 0


@pytest.mark.skipif(is_slow_build(), reason="the hooks flavour is a build of its own")
def test_http__stop_waits_for_a_half_sent_request(scene):
    """Its client goes on well after the last moment in which a drain without it would be over."""
    binary = hooks_program("server")
    server = scene.server(None, binary=binary, TEST_LEAVE_FOR_EVER=1).start_ready()
    with Raw(server) as slow:
        request = post("sent in two pieces")
        slow.send(request[:-7])
        until(lambda: server.status()["connections"] == 2, "it to be taken in")
        server.signal(signal.SIGTERM)
        until(lambda: "draining" in server.log(), "the drain")
        time.sleep(0.8)
        slow.send(request[-7:])
        answer = slow.answer()
        assert answer and answer[0] == 200, answer
    assert server.wait() == 0
    assert oracle.read_rows(scene.source_copy())[-1][1] == "sent in two pieces"


def test_http__told_twice_to_stop_while_an_insert_waits(scene):
    """The second signal cuts all short but what the writer has: its job lives in the connection's record."""
    server = scene.server(None).start_ready()
    foreign = sqlite3.connect(scene.database, isolation_level=None)
    try:
        foreign.execute("BEGIN IMMEDIATE")
        with Raw(server) as held:
            held.send(get())
            until(lambda: server.status()["connections"] == 2, "it to be taken in")
            server.signal(signal.SIGTERM)
            until(lambda: "draining" in server.log(), "the drain")
            server.signal(signal.SIGTERM)
            time.sleep(0.3)
            foreign.execute("ROLLBACK")
            answer = held.answer()
            assert answer and answer[0] in (200, 503), answer
        assert server.wait() == 0
        rows = len(oracle.read_rows(scene.source_copy()))
        assert rows == (answer[0] == 200)
    finally:
        foreign.close()


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
os.environ.setdefault("LISTEN_PID", str(os.getpid()))
os.environ.setdefault("LISTEN_FDS", "1")
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize("kind,words", [("file", "no listening stream socket"),
                                        ("datagram", "no listening stream socket"),
                                        ("connected", "no listening stream socket"),
                                        ("two", "one socket can be served")])
def test_http__another_thing_from_systemd_is_refused(scene, kind, words):
    """Whoever connected to it would wait for ever: exit 2, and it says what it wants."""
    made = {"file": lambda: open("/dev/null", "rb"),
            "datagram": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
            "connected": lambda: socket.socketpair()[0],
            "two": lambda: socket.create_server(("127.0.0.1", 0))}[kind]()
    with made:
        server = scene.server(None)
        server.argv = [sys.executable, "-c", AS_SYSTEMD, str(made.fileno()), program("server")]
        made_inheritable(made)
        start_with(server, made.fileno(), **({"LISTEN_FDS": "2"} if kind == "two" else {}))
        assert server.wait() == 2
        assert words in server.log()


@pytest.mark.parametrize("variables", [{"LISTEN_PID": "1"}, {"LISTEN_FDS": "0"}, {"LISTEN_FDS": "-1"},
                                       {"LISTEN_FDS": "many"}, {"LISTEN_PID": ""}],
                         ids=["another's", "none", "negative", "text", "empty"])
def test_http__variables_of_systemd_that_do_not_mean_us(scene, variables):
    """Then HARVEY_LISTEN counts."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = scene.server(None)
        server.argv = [sys.executable, "-c", AS_SYSTEMD, str(listening.fileno()), program("server")]
        made_inheritable(listening)
        start_with(server, listening.fileno(), **variables)
        server.wait_ready()
        assert once(server, get())[0] == 200
        server.stop_clean()


def made_inheritable(made):
    os.set_inheritable(made.fileno(), True)


def start_with(server, *fds, **variables):
    """Spawns it with further descriptors open, and further variables."""
    server.env = {**server.environment(), **variables}
    with open(server.log_path, "ab") as log:
        server.child = subprocess.Popen(server.argv, env=server.env, cwd=server.cwd, stdout=log,
                                        stderr=log, stdin=subprocess.DEVNULL, pass_fds=fds)


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_http__tells_systemd(scene, kind):
    """NOTIFY_SOCKET: READY=1 when it listens, STOPPING=1 when it stops."""
    path = str(scene.dir / "notify.sock") if kind == "path" else f"@harvey-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(path.replace("@", "\0", 1) if kind == "abstract" else path)
        notify.settimeout(PATIENCE_S)
        server = scene.server(None)
        server.env = {**server.environment(), "NOTIFY_SOCKET": path}
        server.spawn()
        assert notify.recv(100) == b"READY=1"
        server.wait_ready()
        server.signal(signal.SIGTERM)
        assert notify.recv(100) == b"STOPPING=1"
        assert server.wait() == 0


@pytest.mark.parametrize("path", ["", "relative", "/nowhere/notify.sock", "@nobody-listens", "/" + "x" * 200])
def test_http__nobody_to_tell(scene, path):
    """A NOTIFY_SOCKET that is none is no reason not to serve."""
    server = scene.server(None)
    server.env = {**server.environment(), "NOTIFY_SOCKET": path}
    server.spawn()
    server.wait_ready()
    server.stop_clean()
