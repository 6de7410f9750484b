# SPDX-License-Identifier: Apache-2.0
"""Goal: a restart, a second process, a lost life and an outage of the store cost neither rows nor,
where nothing was lost, a new snapshot: the generation goes on.

Method: the real server is stopped, killed, doubled and cut off from its store under load; after
each the archive is restored aside and compared with the volume and with the ledger outside.
"""

import time
from pathlib import Path

from harness import oracle
from harness.archive import BucketArchive
from harness.load import Ledger
from harness.server import position_of


def settle_and_compare(scene, server, archive, ledger):
    """Everything archived, restored aside: every acknowledged row is there."""
    server.wait_archived()
    rows = scene.restored_rows(archive)
    verdict = oracle.compare(rows, None, ledger, time.monotonic())
    assert verdict.lost == 0
    assert server.status()["rows"] == len(rows)
    return rows


def test_restart__goes_on_in_the_same_generation(scene, archive):
    """Stops and kills in turn, idle and under load: one generation, one snapshot in the end."""
    ledger = Ledger()
    server = scene.server(archive)
    generation = None
    for number in range(10):
        server.start_ready()
        status = server.wait_leader()
        generation = generation or status["generation"]
        load = scene.load(server, ledger, clients=4).start()
        load.wait_acks(scene.random.randint(1, 60))
        if number == 0:
            server.wait_snapshot()
        under_load = scene.random.random() < 0.6
        if not under_load:
            load.stop()
        if scene.random.random() < 0.5:
            server.stop_clean()
        else:
            server.kill()
        load.stop()
    server.start_ready()
    rows = settle_and_compare(scene, server, archive, ledger)
    server.stop_clean()
    births = archive.generations()
    assert len(births) == 1 and archive.generation_ids() == [generation], (
        f"{len(births)} generations after 10 restarts\n{server.log(whole=True)[-4000:]}")
    assert len(archive.complete_snapshots()) == 1
    assert scene.source() == rows


def test_restart__idle_restart_writes_nothing_but_a_claim(scene, archive):
    """A restart without a new row adds no segment and no snapshot."""
    server = scene.server(archive).start_ready()
    scene.rows(server, 20)
    server.wait_archived()
    server.wait_snapshot()
    server.stop_clean()
    before = set(archive.keys())
    server.start_ready()
    server.wait_leader()
    status = server.wait_archived()
    assert status["lag"]["ms"] == 0
    server.stop_clean()
    more = set(archive.keys()) - before
    assert all("/leads/" in key for key in more), more


def test_restart__second_process_takes_over(scene, archive):
    """Two processes on one directory, both write; ten times the leader is killed, the other goes on
    in the same generation, a new one joins. Restored = every acknowledged row."""
    ledger = Ledger()
    first = scene.server(archive, name="process-a").start_ready()
    generation = first.wait_leader()["generation"]
    second = scene.server(archive, name="process-b").start_ready()
    second.wait_status(lambda s: s["role"] == "follower", "the second to follow")
    assert second.status()["generation"] == generation
    leader, follower = first, second
    for number in range(10):
        load = scene.load([leader, follower], ledger, clients=4).start()
        load.wait_acks(40)
        pause_s = scene.random.uniform(0, 0.3)
        time.sleep(pause_s)  # the random moment itself
        leader.kill()
        status = follower.wait_leader()
        load.wait_acks(10)  # the one that is left serves
        load.stop()
        assert status["generation"] == generation, f"round {number}: {follower.log()[-3000:]}"
        leader, follower = follower, leader
        follower.start_ready()
        follower.wait_status(lambda s: s["role"] == "follower", "the new one to follow")
    rows = settle_and_compare(scene, leader, archive, ledger)
    assert follower.status()["rows"] == len(rows)
    follower.stop_clean()
    leader.stop_clean()
    assert scene.source() == rows
    assert archive.generation_ids() == [generation]


def test_restart__leader_stops_clean_beside_a_sibling(scene, archive):
    """SIGTERM of the leader, as a release does: the sibling leads, nothing is lost."""
    ledger = Ledger()
    servers = [scene.server(archive, name=f"process-{name}") for name in "ab"]
    for server in servers:
        server.start_ready()
    leader, follower = servers
    generation = leader.wait_leader()["generation"]
    for _ in range(4):
        load = scene.load([leader, follower], ledger, clients=4).start()
        load.wait_acks(30)
        leader.stop_clean()
        assert follower.wait_leader()["generation"] == generation
        load.wait_acks(10)
        load.stop()
        leader, follower = follower, leader
        follower.start_ready()
    settle_and_compare(scene, leader, archive, ledger)
    follower.stop_clean()
    leader.stop_clean()
    assert archive.generation_ids() == [generation]


def test_restart__three_lives_in_a_row(scene, archive):
    """Write, lose the volume, restore, go on: three times; every life is a generation whose parent
    is the one before, and all rows of all lives are there in the end."""
    known, generations = [], []
    for life in range(3):
        server = scene.server(archive).start_ready()
        assert server.status()["rows"] == len(known)
        ledger = scene.rows(server, 80)
        status = server.wait_archived()
        server.wait_snapshot()
        generations.append(status["generation"])
        server.kill()
        source = scene.source()
        scene.wipe()
        scene.restore(archive).expect(0)
        rows = oracle.read_rows(scene.database)
        oracle.compare(rows, source, ledger, time.monotonic(), f"life {life}")
        assert rows[:len(known)] == known and len(rows) >= len(known) + 80
        known = rows
    assert len(set(generations)) == 3 and generations == sorted(generations)
    listing = scene.restore(archive, "--list", target=scene.dir / "unused").expect(0)
    for generation in generations:
        assert generation in listing.text
        result = scene.restore_aside(archive, "--to-latest", "--generation", generation).expect(0)
        rows = oracle.read_rows(result.target)
        assert rows == known[:len(rows)]


def test_restart__store_down_for_a_while(scene):
    """MinIO killed under load and started again, twice, once with a kill -9 of the server in
    between: rows are taken all the time, the lag tells the outage's age and returns to 0, nothing
    is lost, the generation goes on."""
    outage_story(scene, BucketArchive(scene.minio()))


def test_restart__directory_archive_away_for_a_while(scene):
    """The same with a directory: its path cannot be used for a while."""
    outage_story(scene, scene.archive("dir"))


def outage_story(scene, archive):
    server = scene.server(archive).start_ready()
    ledger = Ledger()
    load = scene.load(server, ledger, clients=4).start()
    load.wait_acks(50)
    status = server.wait_snapshot()
    generation = status["generation"]
    for number in range(2):
        asked = time.monotonic()
        lag_ms = server.status()["lag"]["ms"]  # the oldest row that waits, at the latest
        archive.break_off()
        status = server.wait_status(lambda s: s["store"]["state"] in ("retrying", "down"),
                                    "the store's failure to show")
        assert status["store"]["error"], status["store"]
        count = len(ledger.acks)
        status = server.wait_status(lambda s: s["lag"]["ms"] >= 1500, "the lag to grow")
        assert status["lag"]["ms"] <= (time.monotonic() - asked) * 1000 + lag_ms + 50, "what was lost?"
        assert status["lag"]["frames"] > 0 and status["spool"]["segments"] > 0
        assert len(ledger.acks) > count, "an outage of the store must not stop the writers"
        assert server.readyz().code == 200
        if number == 1:
            load.stop()
            server.kill()
            server.start_ready()  # row 11: serves and captures without its store
            load = scene.load(server, ledger, clients=4).start()
            load.wait_acks(30)
        archive.mend()
        server.wait_status(lambda s: s["store"]["state"] == "ok" and s["lag"]["ms"] < 1500,
                           "the catch-up")
    load.stop()
    settle_and_compare(scene, server, archive, ledger)
    assert server.status()["generation"] == generation, server.log(whole=True)[-4000:]
    server.stop_clean()
    assert archive.generation_ids() == [generation]
    assert not [error for _, error in ledger.errors if error.startswith("5")], ledger.errors[:5]


def test_restart__directory_moved_away_is_not_made_anew(scene):
    """The backup disk is unmounted for a while: its path is gone. A new, empty archive must not be
    begun there behind the user's back; when the path is back, all goes on and nothing is lost."""
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    ledger = scene.rows(server, 50)
    server.wait_archived()
    generation = server.wait_snapshot()["generation"]
    away = archive.path.with_name("unmounted")
    archive.path.rename(away)
    scene.rows(server, 50, ledger)
    server.wait_status(lambda s: s["store"]["state"] in ("retrying", "down"), "the outage to show")
    assert not archive.path.exists(), sorted(archive.path.rglob("*"))[:5]
    away.rename(archive.path)
    scene.rows(server, 20, ledger)
    settle_and_compare(scene, server, archive, ledger)
    assert server.status()["generation"] == generation
    server.stop_clean()


def test_restart__position_goes_on(scene, archive):
    """The position only grows across restarts, and a clean stop leaves it where it was."""
    server = scene.server(archive).start_ready()
    last = None
    for _ in range(3):
        scene.rows(server, 15, clients=2)
        status = server.wait_archived()
        assert last is None or position_of(status) > last
        last = position_of(status)
        server.stop_clean()
        server.start_ready()
        server.wait_leader()
        assert position_of(server.wait_archived()) == last
    server.stop_clean()


def test_restart__the_spool_is_deleted_under_the_running_server(scene):
    """While the store is away somebody clears the folder that looks like a cache. The frames are still
    in the -wal: nothing may be missing afterwards, and nobody has to restart anything."""
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    ledger = scene.rows(server, 30)
    server.wait_snapshot()
    server.wait_archived()
    archive.break_off()
    scene.rows(server, 60, ledger)
    server.wait_status(lambda s: s["spool"]["segments"] > 0 and s["store"]["state"] != "ok",
                       "segments in the spool")
    lost = [path for path in (Path(f"{scene.database}-harvey") / "spool").rglob("*.wal.zst")]
    assert lost
    for path in lost:
        path.unlink()
    archive.mend()
    scene.rows(server, 80, ledger)
    server.wait_archived()
    rows = server.status()["rows"]
    server.stop_clean()
    assert len(scene.restored_rows(archive)) == rows
