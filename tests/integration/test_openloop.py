# SPDX-License-Identifier: Apache-2.0
"""The open-loop client, black box, against a server in a thread of this process that treats each
request as a script says. Checked is what the client counts, and that it never sends a request
twice. No time is asserted. Ports come from the kernel."""

import json
import socket
import struct
import subprocess
import threading
import time
import xml.dom.minidom

import pytest

from harness.env import program

LIMIT_S = 180
PATIENCE = ["--timeout-ms", 60000]  # the server is a thread of this process: a busy machine makes it slow

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
OK_CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
BROKEN = b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n"
MISSING = b"HTTP/1.1 404 Missing\r\nContent-Length: 0\r\n\r\n"
HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"
NONSENSE = b"220 mail.example ESMTP\r\n"
EOF, RESET, SILENCE, SLOW = "eof", "reset", "silence", "slow"


class Server:
    """Request n is treated as script[n % len(script)] says; rows count what was answered 200."""

    def __init__(self, script, rows_lie=0):
        self.script = script
        self.rows_lie = rows_lie
        self.requests = []
        self.rows = 0
        self.lock = threading.Lock()
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                conn, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(conn,), daemon=True).start()

    def serve(self, conn):
        try:
            with conn, conn.makefile("rb") as stream:
                while self.serve_one(conn, stream):
                    pass
        except OSError:
            pass

    def serve_one(self, conn, stream):
        """False when the connection is to be closed."""
        head = []
        while (line := stream.readline()) != b"\r\n":
            if not line:
                return False
            head.append(line)
        length = [int(line.split(b":")[1]) for line in head if line.startswith(b"Content-Length:")]
        body = stream.read(length[0]) if length else b""
        with self.lock:
            if head[0].startswith(b"GET /status "):
                text = b"Total rows: %d\nrole: leader\n" % (self.rows + self.rows_lie * bool(self.rows))
                conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
                return True
            answer = self.script[len(self.requests) % len(self.script)]
            self.requests.append((head[0], body))
            self.rows += answer in (OK, OK_CLOSE, SLOW)
        if answer == RESET:
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if answer == SILENCE:
            return bool(stream.read(1))
        if answer == EOF:
            return False
        if answer == SLOW:
            time.sleep(0.05)
            answer = OK
        conn.sendall(answer)
        return answer not in (OK_CLOSE, HALF) and b"Connection: close\r\n" not in head

    def close(self):
        self.socket.close()


@pytest.fixture
def serve():
    servers = []

    def start(*script, **more):
        servers.append(Server(script, **more))
        return servers[-1]
    yield start
    for server in servers:
        server.close()


def openloop(*options, code=0):
    run = subprocess.run([program("openloop"), "--json", *map(str, PATIENCE), *map(str, options)],
                         capture_output=True, text=True, timeout=LIMIT_S)
    assert run.returncode == code, run.stderr + run.stdout
    return json.loads(run.stdout)


def failures(report):
    return {kind: count for kind, count in report["failed_by"].items() if count}


@pytest.mark.parametrize("mode, connections", [("busy", 8), ("idle", 50), ("fresh", 100)])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_all_modes_and_methods(serve, mode, connections, method):
    server = serve(OK)
    body = ["--body", "text"] if method == "POST" else []
    report = openloop("--port", server.port, "--rate", 500, "--requests", 200, "--mode", mode,
                      "--connections", connections, "--method", method, "--rows-from-status", *body)
    assert (report["sent"], report["ok"], report["failed"]) == (200, 200, 0)
    assert report["rows"]["minus_200s"] == 0 and report["clean"]
    assert report["reconnects"] == 0
    opened = {"idle": 50, "fresh": 200}.get(mode)
    assert report["opened"] == opened if opened else report["opened"] <= 8
    line = b"%s / HTTP/1.1\r\n" % method.encode()
    assert server.requests == [(line, b"text" if body else b"")] * 200


def test_announced_close_is_a_reconnect_and_no_failure(serve):
    server = serve(OK, OK, OK_CLOSE)
    report = openloop("--port", server.port, "--rate", 500, "--requests", 300, "--connections", 4)
    assert report["failed"] == 0
    assert report["reconnects_by"]["announced"] == report["reconnects"] == 100


@pytest.mark.parametrize("answer, kind", [
    (EOF, "eof"), (HALF, "eof"), (RESET, "reset"), (BUSY, "503"), (BROKEN, "5xx"),
    (MISSING, "4xx"), (NONSENSE, "malformed"),
])
def test_failures_are_named_and_never_retried(serve, answer, kind):
    server = serve(OK, answer)
    report = openloop("--port", server.port, "--rate", 500, "--requests", 200, "--connections", 4,
                      "--rows-from-status", code=3)
    assert failures(report) == {kind: 100}
    assert report["ok"] == 100 and report["rows"]["minus_200s"] == 0
    assert len(server.requests) == 200  # each once
    assert len(report["first_failures"]) == 10
    assert {f["outcome"] for f in report["first_failures"]} == {kind}


def test_silence_is_a_timeout_and_holds_nobody_up(serve):
    server = serve(OK, OK, OK, OK, SILENCE)
    report = openloop("--port", server.port, "--rate", 200, "--requests", 100, "--connections", 40,
                      "--timeout-ms", 2000, code=3)
    assert failures(report) == {"timeout": 20}
    assert report["all_us"]["max"] >= 2000000


def test_without_free_connection_requests_stay_unsent(serve):
    server = serve(SLOW)  # 20 a second at most, on the one connection
    report = openloop("--port", server.port, "--rate", 200, "--requests", 100, "--connections", 1,
                      "--timeout-ms", 500, "--rows-from-status", code=3)
    assert report["due"] == 100
    assert report["failed_by"]["unsent"] > 50
    assert report["sent"] == 100 - report["failed_by"]["unsent"] == len(server.requests)
    # Late ones may be answered after their time: rows without a 200, never the other way.
    assert 0 <= report["rows"]["minus_200s"] <= report["failed_by"]["timeout"]


def test_closed_port_is_refused(serve):
    server = serve(OK)
    server.socket.shutdown(socket.SHUT_RDWR)  # close() alone would wait for the accept under way
    server.close()
    report = openloop("--port", server.port, "--rate", 500, "--requests", 50, code=3)
    assert failures(report) == {"refused": 50}
    assert report["gap_us"] > 0


def test_rows_that_do_not_match_are_unclean(serve):
    server = serve(OK, rows_lie=3)
    report = openloop("--port", server.port, "--rate", 500, "--requests", 50, "--rows-from-status",
                      code=3)
    assert report["failed"] == 0 and report["rows"]["minus_200s"] == 3 and not report["clean"]


def test_timeline_is_a_picture_with_marks(serve, tmp_path):
    server = serve(OK)
    marks = tmp_path / "marks"
    picture = tmp_path / "timeline.svg"
    marks.write_text("# releases\n\n1 long ago\n")
    report = openloop("--port", server.port, "--rate", 500, "--requests", 500,
                      "--svg", picture, "--marks", marks)
    assert "long ago" not in picture.read_text()
    # The same run cannot be had twice: draw one that has its mark in the middle.
    marks.write_text("".join(f"{report['start_unix_ms'] + ms} <a&b>\n" for ms in range(0, 60000, 500)))
    openloop("--port", server.port, "--rate", 500, "--requests", 500, "--svg", picture,
             "--marks", marks)
    drawn = xml.dom.minidom.parse(str(picture))
    texts = [node.firstChild.data for node in drawn.getElementsByTagName("text")]
    assert any(text.startswith("GET /, busy") for text in texts)
    assert "<a&b>" in texts


@pytest.mark.parametrize("options", [
    ["--host", "10.0.0.1"], ["--host", "0.0.0.0"], ["--host", "example.org"], ["--host", "::"],
    ["--url", "http://192.168.0.1:8080/"], ["--url", "http://127.0.0.1.example.org/"],
    ["--url", "http://[::ffff:10.0.0.1]/"], ["--url", "https://127.0.0.1/"],
])
def test_only_loopback(options):
    run = subprocess.run([program("openloop"), "--requests", "1", *options], capture_output=True,
                         text=True, timeout=LIMIT_S)
    assert run.returncode == 2
    assert "loopback only" in run.stderr or "https" in options[1]


@pytest.mark.parametrize("options", [
    ["--rate", "0"], ["--rate", "1e3"], ["--rate", "200001"], ["--seconds", "86401"],
    ["--seconds", "1", "--requests", "1"], ["--connections", "20001"], ["--mode", "lazy"],
    ["--method", "PUT"], ["--body", "x"], ["--marks", "x"], ["--timeout-ms", "0"],
    ["--path", "no-slash"], ["--path", "/a b"], ["--unknown"], ["surplus"],
    ["--rate", "200000", "--seconds", "86400"],
])
def test_options_out_of_range_are_refused(options):
    run = subprocess.run([program("openloop"), *options], capture_output=True, text=True,
                         timeout=LIMIT_S)
    assert run.returncode == 2 and run.stderr.startswith("openloop: ")
