# SPDX-License-Identifier: Apache-2.0
"""Goal: a stop ends what was begun and ships what there is; with a dead store it ends within its
time-out, says what stays in the spool, and the next start ships it; SIGSTOP and SIGCONT cost
nothing.

Method: signals to the real process, under load and idle, with the store there, gone and frozen.
"""

import signal
import time
from pathlib import Path

from harness import oracle
from harness.archive import BucketArchive
from harness.load import Ledger
from harness.scripted import ScriptedArchive, faults
from harness.wait import holds_for, until

ALWAYS = 10**9


def test_stop__under_load_answers_everybody(scene, archive):
    """Requests in flight are answered: 200, or 503 while draining; afterwards connections are
    refused. What was acknowledged is archived."""
    server = scene.server(archive).start_ready()
    server.wait_snapshot()
    ledger = Ledger()
    load = scene.load(server, ledger, clients=8, pause_s=0.0).start()
    load.wait_acks(200)
    server.stop_clean()
    load.stop()
    dropped = [error for _, error in ledger.errors
               if not error.startswith("503") and "Connection" not in error
               and "RemoteDisconnected" not in error]
    assert not dropped, dropped[:5]
    assert oracle.compare(scene.restored_rows(archive), scene.source(), ledger,
                          time.monotonic()).lost == 0


def test_stop__a_request_in_flight_is_not_dropped(scene):
    """Each client sends one request at the moment of the stop on a connection that was accepted
    before: a proper answer, never a reset."""
    server = scene.server(scene.archive("dir")).start_ready()
    for _ in range(5):
        connections = [server.connection() for _ in range(8)]
        for connection in connections:
            connection.request("GET", "/livez")
            connection.getresponse().read()
        for number, connection in enumerate(connections):
            connection.request("POST", "/", body=f"in flight {number}")
        server.signal(signal.SIGTERM)
        for connection in connections:
            answer = connection.getresponse()
            assert answer.status in (200, 503), answer.status
            answer.read()
            connection.close()
        assert server.wait() == 0
        server.start_ready()
    server.stop_clean()


def test_stop__idle_and_at_once_after_the_start(scene, archive):
    """A stop at any moment of the start: exit 0, and the next start goes on. Before the program takes
    signals, and has done or said anything, SIGTERM ends it as it ends any other."""
    for _ in range(8):
        server = scene.server(archive).start()
        time.sleep(scene.random.uniform(0, 0.15))  # the random moment itself
        server.signal(signal.SIGTERM)
        code = server.wait()
        before_it_took_signals = code == -signal.SIGTERM and "listening" not in server.log()
        assert code == 0 or before_it_took_signals, (code, server.log())
    server = scene.server(archive).start_ready()
    scene.rows(server, 10)
    server.wait_archived()
    server.wait_snapshot()
    server.stop_clean()
    scene.restore_aside(archive).expect(0)


def test_stop__ships_what_waits(scene, archive):
    """Rows that wait for their interval are in the archive when the server has ended."""
    server = scene.server(archive).start_ready()
    server.wait_snapshot()  # which may itself have to wait for a segment's interval
    server.stop_clean()
    server = scene.server(archive, SHIP_INTERVAL_MS=60000).start_ready()
    scene.rows(server, 20)
    server.stop_clean()
    rows = scene.source()
    assert len(rows) >= 20 and scene.restored_rows(archive) == rows


def test_stop__waits_for_a_store_that_answers_late(scene):
    """The store stands still when the stop comes, all lanes wait for it, more is queued behind them; it goes on
    within the stop's time: all is shipped, and nothing is said to stay."""
    minio = scene.minio()
    archive = BucketArchive(minio)
    server = scene.server(archive, SHIP_INTERVAL_MS=0, STOP_TIMEOUT_MS=600000).start_ready()
    server.wait_snapshot()
    server.wait_archived()
    minio.freeze()
    scene.rows(server, 200, clients=1)
    server.signal(signal.SIGTERM)
    until(lambda: server.readyz() is None, "the server to close its port")
    holds_for(server.is_alive, 2, "it waits for the store")
    minio.thaw()
    assert server.wait() == 0 and "stay in the spool" not in server.log(), server.log()[-3000:]
    source = scene.source()
    assert len(source) >= 200 and scene.restored_rows(archive) == source


def test_stop__all_siblings_at_once(scene, archive):
    """`docker stop` of all: whoever is the last one ships what nobody has captured."""
    servers = [scene.server(archive) for _ in range(3)]
    for _ in range(8):
        servers[0].start_ready().wait_leader()
        for server in servers[1:]:
            server.start_ready()
        load = scene.load(servers, clients=6, pause_s=0).start()
        load.wait_acks(50)
        for server in scene.random.sample(servers, 3):
            time.sleep(scene.random.choice([0, 0, 0.005, 0.03]))  # the random moments themselves
            server.signal(signal.SIGTERM)
        for server in servers:
            assert server.wait() == 0, server.log()[-3000:]
        load.stop()
        source = scene.source()
        restored = scene.restored_rows(archive)
        assert len(restored) == len(source) and restored == source


def test_stop__a_balancer_is_told_first(scene):
    """HARVEY_DRAIN_DELAY_MS: /readyz says no, and whoever still comes is served as ever."""
    server = scene.server(None, DRAIN_DELAY_MS=60000).start_ready()
    server.signal(signal.SIGTERM)
    server.wait_not_ready("stopping")
    reply = server.request("POST", "/", body="still welcome")
    assert reply.code == 200 and "close" not in (reply.headers.get("Connection") or "")
    server.signal(signal.SIGTERM)  # the second one skips the delay
    assert server.wait() == 0
    assert len(scene.source()) == 1


def test_stop__while_waiting_for_a_restore(scene):
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    scene.rows(server, 5)
    server.wait_snapshot()
    server.wait_archived()
    server.stop_clean()
    scene.wipe()
    server.start()
    server.wait_not_ready("restore")
    server.stop_clean()


def dead_store(scene):
    """A server with rows that its store (gone) never got. Server, ledger, archive, generation."""
    archive = scene.archive("dir")
    server = scene.server(archive, STOP_TIMEOUT_MS=1500).start_ready()
    ledger = scene.rows(server, 20)
    server.wait_snapshot()
    generation = server.wait_archived()["generation"]
    archive.break_off()
    scene.rows(server, 40, ledger)
    server.wait_status(lambda s: s["lag"]["frames"] > 0 and s["store"]["state"] != "ok",
                       "the outage")
    return server, ledger, archive, generation


def shipped_by_the_next(scene, archive, ledger, generation):
    archive.mend()
    server = scene.server(archive).start_ready()
    server.wait_leader()
    assert server.wait_archived()["generation"] == generation
    server.stop_clean()
    assert oracle.compare(scene.restored_rows(archive), scene.source(), ledger,
                          time.monotonic()).lost == 0


def test_stop__with_a_dead_store(scene):
    server, ledger, archive, generation = dead_store(scene)
    server.signal(signal.SIGTERM)
    code = server.wait()  # a hang is far beyond its 1.5 s
    assert code in (0, 6), (code, server.log())
    assert "spool" in server.log().lower(), server.log()
    shipped_by_the_next(scene, archive, ledger, generation)


def test_stop__a_second_sigterm_skips_the_shipping(scene):
    """HARVEY_STOP_TIMEOUT_MS is long: only the second signal can end it."""
    archive = scene.archive("dir")
    server = scene.server(archive, STOP_TIMEOUT_MS=60000).start_ready()
    ledger = scene.rows(server, 20)
    server.wait_snapshot()
    generation = server.wait_archived()["generation"]
    archive.break_off()
    scene.rows(server, 40, ledger)
    server.wait_status(lambda s: s["lag"]["frames"] > 0 and s["store"]["state"] != "ok",
                       "the outage")
    server.signal(signal.SIGTERM)
    def is_not_ready():
        answer = server.readyz()  # asked once: the port closes at some moment
        return answer is None or answer.code == 503
    until(is_not_ready, "not ready")
    pause_s = 1.0
    time.sleep(pause_s)  # it goes on trying to ship
    assert server.is_alive(), server.log()
    server.signal(signal.SIGTERM)
    server.wait()
    assert "spool" in server.log().lower(), server.log()
    shipped_by_the_next(scene, archive, ledger, generation)


def test_stop__with_a_frozen_store(scene):
    """MinIO hangs (SIGSTOP) with uploads under way: the stop ends, the next start ships."""
    minio = scene.minio()
    archive = BucketArchive(minio)
    server = scene.server(archive, STOP_TIMEOUT_MS=1500).start_ready()
    ledger = scene.rows(server, 20)
    server.wait_snapshot()
    generation = server.wait_archived()["generation"]
    minio.freeze()
    scene.rows(server, 40, ledger)
    server.signal(signal.SIGTERM)
    server.wait()
    minio.thaw()
    server = scene.server(archive).start_ready()
    server.wait_leader()
    assert server.wait_archived()["generation"] == generation
    server.stop_clean()
    assert oracle.compare(scene.restored_rows(archive), scene.source(), ledger,
                          time.monotonic()).lost == 0


def test_stop__store_frozen_for_a_while_under_load(scene):
    """MinIO hangs and comes back: no upload is lost or doubled into another history."""
    minio = scene.minio()
    archive = BucketArchive(minio)
    server = scene.server(archive).start_ready()
    server.wait_snapshot()
    ledger = Ledger()
    load = scene.load(server, ledger, clients=3).start()
    for _ in range(3):
        load.wait_acks(20)
        minio.freeze()
        load.wait_acks(100)
        minio.thaw()
        load.wait_acks(20)
    load.stop()
    server.wait_archived()
    server.stop_clean()
    assert oracle.compare(scene.restored_rows(archive), scene.source(), ledger,
                          time.monotonic()).lost == 0
    assert len(archive.generation_ids()) == 1


def test_stop__server_frozen_and_thawed(scene, archive):
    """SIGSTOP and SIGCONT of the server under load, several times: it goes on, nothing is lost."""
    server = scene.server(archive).start_ready()
    server.wait_snapshot()
    ledger = Ledger()
    load = scene.load(server, ledger, clients=4).start()
    for _ in range(4):
        load.wait_acks(scene.random.randint(10, 60))
        server.freeze()
        pause_s = scene.random.uniform(0.1, 0.8)
        time.sleep(pause_s)  # frozen that long
        server.thaw()
    load.wait_acks(20)
    load.stop()
    server.wait_archived()
    server.stop_clean()
    assert oracle.compare(scene.restored_rows(archive), scene.source(), ledger,
                          time.monotonic()).lost == 0
    assert len(archive.generation_ids()) == 1


def test_stop__leader_frozen_beside_a_sibling(scene):
    """The leader stands still (SIGSTOP): the sibling goes on serving; after SIGCONT all is archived
    and nothing was taken twice or lost."""
    archive = scene.archive("dir")
    leader = scene.server(archive, name="leader").start_ready()
    generation = leader.wait_leader()["generation"]
    leader.wait_snapshot()
    sibling = scene.server(archive, name="sibling").start_ready()
    sibling.wait_status(lambda s: s["role"] == "follower", "the follower")
    ledger = scene.rows([leader, sibling], 60)
    leader.wait_archived()
    leader.freeze()
    try:
        scene.rows(sibling, 40, ledger, clients=2)
        status = sibling.wait_status(lambda s: s["lag"]["ms"] > 1500, "the sibling to see the lag")
        assert status["lag"]["ms"] > 0
        sibling.wait_status(lambda s: s["alarm"] and "stood still" in (s["reason"] or ""),
                            "the sibling to say who stands still")
    finally:
        leader.thaw()
    scene.rows([leader, sibling], 40, ledger)
    assert leader.wait_archived()["generation"] == generation
    sibling.stop_clean()
    leader.stop_clean()
    assert oracle.compare(scene.restored_rows(archive), scene.source(), ledger,
                          time.monotonic()).lost == 0


def silent_listing(archive):
    """From here on the store takes a question what it holds, and does not answer it. Returns once it was asked."""
    struck = archive.s3.played()
    archive.s3.on("LIST", faults.silence(600), times=ALWAYS)
    return lambda: archive.s3.played() > struck


def ends_without_the_answer(server):
    """The store's own time-out is half a minute, and says so: here the call is ended before it."""
    server.signal(signal.SIGTERM)
    assert server.wait() == 0, server.log()[-3000:]
    assert "Operation too slow" not in server.log(), server.log()[-3000:]


def test_stop__while_a_start_waits_for_the_stores_answer(scene):
    """There is nothing of its own to ship, and a store that is asked what it holds and says nothing."""
    archive = scene.also_end(ScriptedArchive())
    was_asked = silent_listing(archive)
    server = scene.server(archive, STOP_TIMEOUT_MS=1000).start()
    until(was_asked, "the question")
    ends_without_the_answer(server)


def test_stop__while_a_lead_that_ended_waits_for_the_stores_answer(scene):
    """It serves on, and its rows are in the -wal alone: the stop spools them and says so, the next start ships
    them."""
    archive = scene.also_end(ScriptedArchive())
    server = scene.server(archive, STOP_TIMEOUT_MS=1000).start_ready()
    ledger = scene.rows(server, 20)
    server.wait_snapshot()
    generation = server.wait_archived()["generation"]
    archive.s3.on("PUT", faults.status(500), times=ALWAYS)
    scene.rows(server, 20, ledger)
    server.wait_status(lambda s: s["spool"]["segments"] > 0 and s["store"]["state"] != "ok", "the outage")
    was_asked = silent_listing(archive)
    for path in (Path(f"{scene.database}-harvey") / "spool").rglob("*.wal.zst"):
        path.unlink()  # so the lead ends, and compares with the archive
    until(lambda: "starting over" in server.log() and was_asked(), "the question")
    scene.rows(server, 20, ledger)
    ends_without_the_answer(server)
    assert "not everything is archived" in server.log(), server.log()[-3000:]
    archive.s3.heal()
    server = scene.server(archive).start_ready()
    server.wait_leader()
    assert server.wait_archived()["generation"] == generation
    server.stop_clean()
    source = scene.source()
    assert len(source) >= 60 and scene.restored_rows(archive) == source
