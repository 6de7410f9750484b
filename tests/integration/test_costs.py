# SPDX-License-Identifier: Apache-2.0
"""What a request costs, counted and not timed: system calls, instructions, allocations, bytes stored,
requests while idle. A guard against slow growth: each ceiling stands beside what was seen when it was
set, so that a rise is a decision. tests/bench measures; this only counts.

Rows are written one after the other on one connection, a transaction each: the same work every time,
and the dearest kind. Differences of two readings leave the start out.
"""

import http.client
import platform
import re
import signal
import struct
import subprocess

import pytest

from harness import env
from harness.wait import holds_for, until

ROWS = 1000
SEGMENTS = 40

# What was seen when these were set (Debian 12, x86-64, libmicrohttpd 0.9.75, SQLite 3.40.1), and a
# ceiling some 15 % above. Raising one is a decision: say why in the commit.
SYSCALLS_FIXED = 4.7            # 4.0: sendmsg, recvfrom, and two looks at epoll
SYSCALLS_INSERT = 22            # 19.4: 6 locks and 2 writes of SQLite, 2 futexes, 1 for the event fd
SYSCALLS_REPLICATED = 22.5      # 19.4 to 20: nothing per row
FUTEX_SEGMENT = 21              # 14.3: writer, leader and one lane wake and sleep; the polled /status
INSTRUCTIONS_FIXED = 22_500     # 19,977, each header's bytes looked at
INSTRUCTIONS_INSERT = 52_000    # 40,182 alone; 6,000 more where the loop goes round while the writer waits for a core
ALLOCATIONS_NOT_PER_REQUEST = 0.2  # 0.004: those of a connection, a status, a segment
ALLOCATIONS_MICROHTTPD = {None: 3, "dir": 6}  # three for each header that varies
ALLOCATIONS_SQLITE = 3          # 2.0 to 2.3
BYTES_PER_ROW = 75              # 48: a page image per row, compressed among others of the same page
OTHER_MACHINE = 2               # factor for instructions elsewhere than on x86-64

pytestmark = pytest.mark.skipif(env.is_slow_build(), reason="counts the release build alone")


def requests(server, count, path="/"):
    """One after the other on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port.number, timeout=60)
    for _ in range(count):
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
    connection.close()


def server_for_counts(scene, kind=None, interval_ms=1000):
    return scene.server(scene.archive(kind) if kind else None, SYNCHRONOUS="NORMAL",
                        SHIP_INTERVAL_MS=interval_ms, LOG_LEVEL="warn")


def wait_settled(server):
    if server.archive is not None:
        server.wait_snapshot()
        server.wait_archived()


# ---- system calls ----
def count_syscalls(scene, server, work):
    """{name: count} while work() runs, of all threads, by strace."""
    report = scene.path("strace")
    said = scene.path("strace-said")
    with open(said, "wb") as stderr:
        tracer = subprocess.Popen([env.tool("strace"), "-f", "-c", "-p", str(server.pid), "-o",
                                   str(report)], stderr=stderr, stdin=subprocess.DEVNULL)
    try:
        def attached():
            text = said.read_text()
            if tracer.poll() is not None:
                env.cannot_run(f"strace cannot attach here: {text}")
            return "attached" in text
        until(attached, "strace to attach")
        work()
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(60)
    text = report.read_text()
    print(text)
    rows = [line.split() for line in text.splitlines() if re.match(r"\s*\d+\.\d", line)]
    counts = {row[-1]: int(row[3]) for row in rows}
    assert counts.pop("total") == sum(counts.values()) > 0
    return counts


@pytest.mark.parametrize("kind, path, ceiling", [(None, "/livez", SYSCALLS_FIXED),
                                                 (None, "/", SYSCALLS_INSERT),
                                                 ("dir", "/", SYSCALLS_REPLICATED)])
def test_costs__syscalls_per_request(scene, kind, path, ceiling):
    server = server_for_counts(scene, kind).start_ready()
    requests(server, 50)
    wait_settled(server)
    counts = count_syscalls(scene, server, lambda: requests(server, ROWS, path))
    seen = sum(counts.values()) / ROWS
    print(f"{seen:.2f} system calls per request")
    assert seen <= ceiling


def test_costs__nobody_is_woken_for_nothing(scene):
    """Interval 0, a row at a time: each is a segment. One lane of three takes it and puts it, and the
    others sleep on: waking all of them costs 28 calls of futex for each."""
    server = server_for_counts(scene, "dir", interval_ms=0).start_ready()
    requests(server, 5)
    wait_settled(server)
    before = server.status()["counters"]["segments_made"]

    def rows():
        for _ in range(SEGMENTS):
            requests(server, 1)
            server.wait_archived()
    counts = count_syscalls(scene, server, rows)
    seen = counts["futex"] / (server.status()["counters"]["segments_made"] - before)
    print(f"{seen:.2f} calls of futex per segment")
    assert seen <= FUTEX_SEGMENT


# ---- instructions ----
def count_instructions(scene, path, count):
    """Of a whole run of the server with `count` requests."""
    server = server_for_counts(scene)
    server.argv = [env.tool("valgrind"), "--tool=callgrind", "--callgrind-out-file=/dev/null",
                   *server.argv]
    server.start_ready()
    requests(server, count, path)
    server.stop_clean()
    return int(re.search(r"Collected : (\d+)", server.log())[1])


@pytest.mark.parametrize("path, ceiling", [("/livez", INSTRUCTIONS_FIXED),
                                           ("/", INSTRUCTIONS_INSERT)])
def test_costs__instructions_per_request(scene, path, ceiling):
    few = count_instructions(scene, path, 100)
    many = count_instructions(scene, path, 100 + ROWS)
    seen = (many - few) / ROWS
    print(f"{seen:.0f} instructions per request")
    assert seen <= ceiling * (1 if platform.machine() == "x86_64" else OTHER_MACHINE)


# ---- allocations ----
ASKERS = ("program", "libmicrohttpd", "libsqlite3", "other")


class Allocations:
    """A server under tests/integration/alloc_count.c; counts by who asked."""

    def __init__(self, scene, kind):
        library = scene.path("alloc_count.so")
        subprocess.run(["gcc", "-std=gnu17", "-D_GNU_SOURCE", "-O2", "-shared", "-fPIC", "-o",
                        library, env.ROOT / "tests/integration/alloc_count.c"], check=True)
        self.counts = scene.path("counts")
        self.counts.write_bytes(bytes(8 * len(ASKERS)))
        self.server = server_for_counts(scene, kind)
        plain = self.server.environment
        self.server.environment = lambda: {**plain(), "LD_PRELOAD": str(library),
                                           "ALLOC_COUNT_FILE": str(self.counts)}
        self.server.start_ready()

    def now(self):
        return struct.unpack(f"{len(ASKERS)}Q", self.counts.read_bytes())

    def per_request(self, path):
        before = self.now()
        requests(self.server, ROWS, path)
        return {name: (b - a) / ROWS for name, a, b in zip(ASKERS, before, self.now())}


@pytest.mark.parametrize("kind", [None, "dir"])
def test_costs__allocations_per_request(scene, kind):
    allocations = Allocations(scene, kind)
    requests(allocations.server, 50)
    wait_settled(allocations.server)
    fixed = allocations.per_request("/livez")
    insert = allocations.per_request("/")
    print(f"allocations per /livez: {fixed}\nper insert: {insert}")
    for name in ("program", "other"):
        assert fixed[name] <= ALLOCATIONS_NOT_PER_REQUEST
        assert insert[name] <= ALLOCATIONS_NOT_PER_REQUEST
    assert fixed["libmicrohttpd"] <= ALLOCATIONS_NOT_PER_REQUEST
    assert insert["libmicrohttpd"] <= ALLOCATIONS_MICROHTTPD[kind] + ALLOCATIONS_NOT_PER_REQUEST
    assert insert["libsqlite3"] <= ALLOCATIONS_SQLITE


# ---- the archive ----
def segment_bytes(archive):
    return sum(size for key, (size, _) in archive.list().items() if key.endswith(".wal.zst"))


def test_costs__bytes_stored_per_row(scene):
    server = server_for_counts(scene, "dir").start_ready()
    wait_settled(server)
    before = segment_bytes(server.archive)
    requests(server, ROWS)
    server.wait_archived()
    seen = (segment_bytes(server.archive) - before) / ROWS
    print(f"{seen:.1f} bytes per row, a transaction each")
    assert seen <= BYTES_PER_ROW


def test_costs__no_request_while_idle(scene, archive):
    server = scene.server(archive, SHIP_INTERVAL_MS=0).start_ready()
    requests(server, 50)
    wait_settled(server)
    before = server.status()["counters"]["store_requests"]
    holds_for(lambda: server.status()["counters"]["store_requests"] == before, 5,
              "an idle server asked its store for something")
