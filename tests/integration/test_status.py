# SPDX-License-Identifier: Apache-2.0
"""Goal: the status tells the truth, in the form that others' scripts read: every field, a lag that
grows while the store stands still and is never too small, recent percentiles; and an idle server
asks nothing of its store and next to nothing of the processor.

Method: a MinIO of this test's own behind a TCP relay that counts and delays, and SIGSTOP of MinIO.
Nothing asserts a duration: an idle server's wakeups are counted, not its processor time.
"""

import http.client
import json
import re
import sqlite3 as sqlite
import subprocess
import time

import pytest

from harness import oracle
from harness.archive import BucketArchive
from harness.env import is_slow_build
from harness.foreign import sqlite3
from harness.load import Ledger
from harness.wait import holds_for, until

NUMBER = (int, float)


def check_fields(status, archive):
    """The JSON of the contract: names and types."""
    assert isinstance(status["rows"], int)
    assert status["role"] in ("leader", "follower", "restoring", "waiting", "waiting for a restore",
                              "starting", "stopped")
    assert isinstance(status["ready"], bool)
    assert status["reason"] is None or isinstance(status["reason"], str)
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", status["version"])
    assert isinstance(status["uptime_s"], NUMBER)
    assert re.fullmatch(r"\d{8}-[0-9a-f]{16}", status["generation"])
    for name in ("local", "archived"):
        assert isinstance(status[name]["wal_no"], int) and isinstance(status[name]["frame_no"], int)
    assert abs(status["archived"]["unix_ms"] / 1000 - time.time()) < 3600
    lag = status["lag"]
    assert all(isinstance(lag[name], int) for name in ("frames", "bytes", "ms")), lag
    recent = lag["recent_ms"]
    assert recent["seconds"] > 0
    assert 0 <= recent["p50"] <= recent["p99"] <= recent["max"], recent
    spool = status["spool"]
    assert all(isinstance(spool[name], int) for name in ("segments", "bytes", "max_bytes")), spool
    assert spool["max_bytes"] == 1 << 30
    store = status["store"]
    assert store["url"] == archive.url and store["state"] in ("ok", "retrying", "down", "off")
    assert store["error"] is None or isinstance(store["error"], str)
    assert isinstance(store["put_ms"]["p50"], NUMBER) and isinstance(store["put_ms"]["p99"], NUMBER)
    assert 0 <= store["put_ms"]["p50"] <= store["put_ms"]["p99"]
    snapshot = status["snapshot"]
    assert isinstance(snapshot["wal_no"], int) and isinstance(snapshot["frame_no"], int)
    assert snapshot["age_s"] >= 0
    assert re.fullmatch(r"\d+\.\d+\.\d+", status["sqlite"]["version"])
    assert status["sqlite"]["synchronous"] == "FULL"


def test_status__fields_of_the_json(scene, archive):
    server = scene.server(archive).start_ready()
    scene.rows(server, 30)
    server.wait_snapshot()
    status = server.wait_archived()
    check_fields(status, archive)
    assert status["role"] == "leader" and status["ready"] and status["reason"] is None
    assert status["rows"] == rows_in_text(server)
    by_header = server.request("GET", "/status", headers={"Accept": "application/json"})
    assert json.loads(by_header.body)["generation"] == status["generation"]
    assert "json" in by_header.headers["Content-Type"]
    server.stop_clean()


def rows_in_text(server):
    text = server.request("GET", "/status")
    match = re.match(r"Total rows: (\d+)\r?\n", text.body)
    assert match, f"first line: {text.body[:80]!r}"
    return int(match[1])


def test_status__text_for_people(scene):
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    scene.rows(server, 10)
    status = server.wait_archived()
    text = server.request("GET", "/status")
    assert text.code == 200 and text.headers["Content-Type"].startswith("text/plain")
    assert rows_in_text(server) == status["rows"]
    for word in ("leader", status["generation"], "lag", archive.url, "full"):
        assert word in text.body.lower(), f"{word} is not in\n{text.body}"
    server.stop_clean()


def test_status__http_table(scene):
    """The requests of the contract's HTTP table."""
    server = scene.server(scene.archive("dir")).start_ready()
    inserted = server.request("GET", "/")
    assert inserted.code == 200 and inserted.body.strip() == "inserted"
    assert inserted.headers["Harvey-Row"] == "1"
    assert re.fullmatch(r"\d{8}-[0-9a-f]{16}/\d+/\d+", inserted.headers["Harvey-Position"])
    server.insert("mine")
    assert server.request("GET", "/livez").code == 200
    assert server.request("GET", "/readyz").code == 200
    assert server.request("GET", "/nothing").code == 404
    wrong = server.request("DELETE", "/")
    assert wrong.code == 405 and "POST" in wrong.headers["Allow"], wrong
    assert server.request("POST", "/status", body="x").code == 405
    assert server.request("POST", "/", body="x" * 1024).code == 200
    assert server.request("POST", "/", body="x" * 1025).code == 413
    assert server.request("GET", "/" + "a" * 60000).code in (414, 431)
    assert server.request("GET", "/", headers={"X-Long": "a" * 60000}).code == 431
    rows = rows_in_text(server)
    server.stop_clean()
    values = oracle.read_rows(scene.source_copy())
    assert len(values) == rows == 3
    assert values[1] == (2, "mine")
    assert re.fullmatch(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", values[0][1]), values[0]


def test_status__readiness_does_not_depend_on_the_store(scene):
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    scene.rows(server, 5)
    server.wait_archived()
    archive.break_off()
    ledger = scene.rows(server, 5)
    server.wait_status(lambda s: s["store"]["state"] != "ok", "the outage")
    holds_for(lambda: server.readyz().code == 200, 1.0, "ready through an outage of the store")
    assert server.request("GET", "/livez").code == 200 and ledger.acks
    archive.mend()
    server.wait_archived()
    server.stop_clean()


def test_status__lag_while_the_store_stands_still(scene):
    """MinIO is stopped in its tracks (SIGSTOP): the lag is at least the age of the oldest row that
    it has not confirmed, and grows; after SIGCONT it returns to 0 and the recent maximum tells."""
    minio = scene.minio()
    archive = BucketArchive(minio)
    server = scene.server(archive).start_ready()
    scene.rows(server, 20)
    server.wait_snapshot()
    server.wait_archived()
    minio.freeze()
    server.insert("the oldest that waits")
    since = time.monotonic()
    seen = []

    def grown():
        asked = time.monotonic()
        status = server.status()
        age_ms = (asked - since) * 1000
        assert status["lag"]["ms"] >= age_ms - 60, f"lag {status['lag']['ms']}, age {age_ms:.0f} ms"
        if not seen or status["lag"]["ms"] != seen[-1]:
            seen.append(status["lag"]["ms"])
        return status if status["lag"]["ms"] > 3000 else None
    deadline = time.monotonic() + 60
    status = None
    while status is None:
        assert time.monotonic() < deadline, seen[-3:]
        status = grown()
        server.insert("one more")
        time.sleep(0.05)
    assert seen == sorted(seen), "the lag may not shrink while nothing is confirmed"
    assert status["lag"]["frames"] > 0 and status["lag"]["bytes"] > 0
    assert server.readyz().code == 200
    minio.thaw()
    status = server.wait_archived()
    assert status["lag"]["ms"] == 0 and status["lag"]["frames"] == 0 and status["lag"]["bytes"] == 0
    server.wait_status(lambda s: s["lag"]["recent_ms"]["max"] >= seen[-1] - 1000,
                       "the recent maximum to tell")
    assert len(scene.restored_rows(archive)) == status["rows"]
    server.stop_clean()


def test_status__lag_of_a_foreign_commit(scene):
    """A sqlite3 program commits on an idle server during an outage: no writer of ours has stamped that,
    and its age counts all the same."""
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    server.insert("ours")
    server.wait_snapshot()
    server.wait_archived()
    archive.break_off()
    sqlite3(scene.database, ".timeout 5000", "INSERT INTO test(value) VALUES('foreign');")
    since = server.wait_status(lambda s: s["lag"]["frames"] > 0, "the foreign frames")["lag"]["ms"]
    server.wait_status(lambda s: s["lag"]["ms"] > since + 300, "the lag to grow")
    archive.mend()
    server.wait_archived()
    server.stop_clean()


def test_status__lag_with_a_slow_store(scene):
    """Every request to the store is held back 300 ms: recent percentiles and PUT times show it, and
    rows are still taken at once."""
    minio = scene.minio()
    archive = BucketArchive(minio)
    proxy = scene.proxy(minio.port.number)
    archive.endpoint_port = proxy.port
    server = scene.server(archive).start_ready()
    server.insert("first")
    server.wait_snapshot()
    server.wait_archived()
    proxy.delay_s = 0.3
    ledger = Ledger()
    load = scene.load(server, ledger, clients=2, pause_s=0.01).start()
    status = server.wait_status(lambda s: s["store"]["put_ms"]["p50"] >= 250, "slow PUTs to show")
    status = server.wait_status(lambda s: s["lag"]["recent_ms"]["p50"] >= 250, "the lag to show it")
    assert status["store"]["state"] == "ok"
    load.stop()
    proxy.delay_s = 0.0
    server.wait_archived()
    server.stop_clean()


@pytest.mark.parametrize("what", ["spool", "leader.lock"])
def test_status__nobody_can_lead(scene, what):
    """A server that serves on while no lead can begin archives nothing: it is red, says why, and is no more once
    one leads."""
    archive = scene.archive("dir")
    leader = scene.server(archive).start_ready()
    leader.wait_leader()
    sibling = scene.server(archive).start_ready()
    leader.wait_snapshot()
    sibling.freeze()
    leader.kill()
    path = scene.volume / "state.db-harvey" / what
    path.rename(scene.dir / what)
    path.write_text("no folder") if what == "spool" else path.mkdir()
    sibling.thaw()
    sibling.insert("taken all the same")
    sibling.wait_status(lambda s: s["alarm"] and what in (s["reason"] or ""), "the alarm")
    assert sibling.readyz().code == 200
    path.unlink() if what == "spool" else path.rmdir()
    (scene.dir / what).rename(path)
    sibling.wait_leader()
    sibling.wait_status(lambda s: not s["alarm"] and s["lag"]["ms"] == 0, "the alarm to end")
    sibling.stop_clean()
    assert scene.restored_rows(archive) == scene.source()


def test_status__a_wrong_lag_would_be_noticed(scene, archive):
    """While rows come in, every status is checked against what the archive really holds: rows
    acknowledged before (asked - lag) are in a restore made right after."""
    server = scene.server(archive, SHIP_INTERVAL_MS=100).start_ready()
    server.wait_snapshot()
    ledger = Ledger()
    load = scene.load(server, ledger, clients=4).start()
    for _ in range(6):
        load.wait_acks(scene.random.randint(5, 80))
        asked = time.monotonic()
        status = server.status()
        promised = asked - status["lag"]["ms"] / 1000
        rows = scene.restored_rows(archive)
        oracle.compare(rows, None, ledger, promised, str(status["lag"]))
    load.stop()
    server.wait_archived()
    server.stop_clean()


def test_status__a_follower_tells_the_same(scene):
    archive = scene.archive("dir")
    leader = scene.server(archive).start_ready()
    leader.wait_leader()
    scene.rows(leader, 20)
    follower = scene.server(archive).start_ready()
    follower.wait_status(lambda s: s["role"] == "follower", "the follower")
    scene.rows(follower, 20)
    status = leader.wait_archived()
    twin = follower.wait_archived()
    for name in ("rows", "generation", "local"):
        assert twin[name] == status[name], name
    assert twin["archived"]["frame_no"] == status["archived"]["frame_no"]
    archive.break_off()
    follower.insert("waits")
    twin = follower.wait_status(lambda s: s["lag"]["ms"] > 1000, "the follower's lag to grow")
    assert twin["lag"]["frames"] > 0
    archive.mend()
    follower.wait_archived()
    follower.stop_clean()
    leader.stop_clean()


@pytest.mark.parametrize("seconds", [10, pytest.param(60, marks=pytest.mark.slow)])
def test_status__an_idle_server_asks_nothing(scene, seconds):
    minio = scene.minio()
    archive = BucketArchive(minio)
    proxy = scene.proxy(minio.port.number)
    archive.endpoint_port = proxy.port
    server = scene.server(archive).start_ready()
    scene.rows(server, 30)
    server.wait_snapshot()
    server.wait_archived()
    until(lambda: quiet(proxy), "the store's last request")
    requests, sent, woken = len(proxy.requests), proxy.bytes_up, server.wakeups()
    objects = BucketArchive(minio, archive.bucket, archive.prefix).list()
    connections = proxy.connections
    time.sleep(seconds)  # the idle time itself
    woken = server.wakeups() - woken
    assert proxy.requests[requests:] == [] and proxy.bytes_up == sent
    assert proxy.connections == connections
    assert BucketArchive(minio, archive.bucket, archive.prefix).list() == objects
    print(f"woken {woken / seconds:.1f} times per second")
    if not is_slow_build():
        assert woken <= 25 * seconds  # counted, not timed: what it does each time is microseconds
    server.stop_clean()


def quiet(proxy):
    before = proxy.bytes_up
    time.sleep(0.5)  # a window without traffic
    return proxy.bytes_up == before


def test_status__health_asks_the_running_server(scene):
    """`server --health` over the private socket: no shell, no curl, no port."""
    archive = scene.archive("dir")
    server = scene.server(archive).start()

    def health():
        return subprocess.run([*server.argv, "--health"], env=server.env, cwd=server.cwd,
                              capture_output=True, text=True, timeout=30, check=False)
    server.wait_ready()
    assert health().returncode == 0
    server.stop_clean()
    assert health().returncode != 0


def test_status__connection_is_answered_and_kept(scene):
    """Many requests over one connection, and each gets its own answer."""
    server = scene.server(scene.archive("dir")).start_ready()
    connection = http.client.HTTPConnection("127.0.0.1", server.port.number, timeout=10)
    for number in range(1, 51):
        connection.request("POST", "/", body=f"row {number}")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200 and answer.headers["Harvey-Row"] == str(number)
    connection.close()
    server.stop_clean()


def test_status__a_cause_is_logged_once(scene):
    """The lead cannot begin, and is tried again and again: log and status say why, once."""
    server = scene.server(scene.archive("dir")).start_ready()
    server.insert("kept")
    server.wait_archived()
    server.stop_clean()
    with sqlite.connect(scene.database) as other:  # so that there is no -wal, and no -shm
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other.close()
    in_the_way = scene.database.with_name(scene.database.name + "-shm")
    in_the_way.mkdir()
    server.start(LOG_LEVEL="debug")
    until(lambda: server.log().count("again: could not lead") >= 4, "four tries to fail")
    lines = [line for line in server.log().splitlines() if " debug " not in line]
    for said in ("could not lead: ", "start  row=", "comparing with the archive"):
        about = [line for line in lines if said in line]
        assert len(about) <= 3, about  # of the leader; the server's view of it
    in_the_way.rmdir()
    server.wait_ready()
    assert server.status()["rows"] == 1
    server.stop_clean()
