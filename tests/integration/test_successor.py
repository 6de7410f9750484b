# SPDX-License-Identifier: Apache-2.0
"""Goal: what a leader leaves behind, wherever it ended, the next one takes over: no promise is made
that the archive does not keep, no start is refused, and no generation begins that need not.

Method: servers of the flavour "hooks" die or stand still exactly at a step (base/failpoint.c); siblings
that stand still (SIGSTOP) leave the lead to the one that is meant. What the status says is held against
the ages of the rows; the archive is restored and compared with the volume.
"""

import hashlib
import json
import sqlite3 as sqlite3_module
import struct
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import env
from harness.foreign import sqlite3
from harness.wait import holds_for, until

pytestmark = pytest.mark.skipif(env.is_slow_build(), reason="the hooks flavour is a build of its own")


def hooked(scene, archive, step, stands_still=False, **settings):
    """A server that dies when it reaches the step (name:n), or stands still there."""
    binary = env.hooks_program("server")
    if stands_still:
        settings["TEST_FAILPOINT_STOPS"] = 1
    return scene.server(archive, binary=binary, TEST_FAILPOINT=step, **settings)


def stands_still(server):
    def look():
        server.check_alive()
        return set(server.thread_states()) == {"T"}
    until(look, f"{server.name} to reach its step; its log ends:\n{server.log()[-2000:]}")


def dies(server):
    assert server.wait() == -9, server.log()[-3000:]


def record(scene):
    """The record of the state file, as the newest of its two slots has it."""
    data = (Path(f"{scene.database}-harvey") / "state").read_bytes()
    best = (0, None)
    for at in (0, 4096):
        slot = data[at:at + 4096]
        count, sequence = struct.unpack(">IQ", slot[12:24])
        if hashlib.sha256(slot[:-32]).digest() == slot[-32:]:
            best = max(best, (sequence, slot[24:24 + count]))
    return json.loads(best[1])


def large_pages(scene):
    """A commit is 64 KiB in the WAL: a freeze after 256 of them."""
    sqlite3(scene.database, "PRAGMA page_size=65536;", "PRAGMA journal_mode=WAL;",
            "CREATE TABLE other(x);")


def until_reset(scene, server, ledger=None):
    """Rows until the WAL has begun anew once more."""
    before = server.status()["counters"]["wal_resets"]
    load = scene.load(server, ledger, clients=4, pause_s=0).start()
    server.wait_status(lambda s: s["counters"]["wal_resets"] > before, "a WAL reset")
    load.stop()


def goes_on(scene, server, archive, generation):
    """Ready, in the same generation; everything is archived and restored."""
    server.wait_ready()
    server.wait_leader()
    server.insert("the next one")
    status = server.wait_archived()
    assert status["generation"] == generation, server.log(whole=True)[-4000:]
    assert len(archive.generations()) == 1
    server.stop_clean()
    assert scene.restored_rows(archive) == scene.source()


# ---- the lag ----
def never_promised(server, acknowledged):
    """The lag is never smaller than the age of a row that is in no archive."""
    asked = time.monotonic()
    lag_ms = server.status()["lag"]["ms"]
    age_ms = (asked - acknowledged) * 1000
    assert lag_ms >= age_ms - 1, f"a row {age_ms:.0f} ms old is in no archive, lag.ms says {lag_ms}"
    return True


@pytest.mark.parametrize("end", ["killed", "stopped"])
def test_successor__the_lag_outlives_the_leader(scene, end):
    """The store is away and rows wait in the spool; the leader ends; the next one stands still as it
    begins, and a commit arrives that nobody has captured. The sibling's lag stays that of the oldest."""
    archive = scene.archive("dir")
    leader = scene.server(archive).start_ready()
    leader.wait_leader()
    leader.insert("before")
    leader.wait_snapshot()
    generation = leader.wait_archived()["generation"]
    successor = hooked(scene, archive, "start_shipper_ready:1", stands_still=True).start_ready()
    sibling = scene.server(archive).start_ready()
    archive.break_off()
    leader.insert("the oldest that waits")
    oldest = time.monotonic()
    leader.wait_status(lambda s: s["spool"]["segments"] > 0 and s["lag"]["ms"] > 500, "the outage")
    leader.insert("a younger one")
    sibling.freeze()
    leader.kill() if end == "killed" else leader.stop()
    stands_still(successor)
    sibling.thaw()
    sibling.insert("nobody captures this one yet")
    holds_for(lambda: never_promised(sibling, oldest), 0.5, "the lag, while a leader begins")
    successor.thaw()
    successor.wait_leader()
    holds_for(lambda: never_promised(sibling, oldest) and never_promised(successor, oldest), 0.3,
              "the lag, under the new leader")
    archive.mend()
    sibling.wait_archived()
    sibling.stop_clean()
    goes_on(scene, successor, archive, generation)


def test_successor__the_lag_counts_all_that_was_left(scene):
    """A dozen segments were left; the next leader stands still when some of them are archived: those
    behind still count."""
    archive = scene.archive("dir")
    leader = scene.server(archive, STOP_TIMEOUT_MS=100).start_ready()
    leader.wait_leader()
    leader.insert("before")
    leader.wait_snapshot()
    generation = leader.wait_archived()["generation"]
    archive.break_off()
    leader.insert("the oldest that waits")
    leader.wait_status(lambda s: s["spool"]["segments"] > 0, "the outage")
    sqlite3(scene.database, "CREATE TABLE large(x);",  # twelve segments' worth in one transaction
            "INSERT INTO large WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n "
            "WHERE i < 48) SELECT randomblob(1000000) FROM n;")
    leader.insert("the youngest")
    youngest = time.monotonic()
    leader.stop()  # all of it is in the spool now
    archive.mend()
    # of the eleventh upload to begin, in a window of eight, at least the first three are confirmed
    successor = hooked(scene, archive, "upload_before_put:11", stands_still=True).start()
    stands_still(successor)
    watcher = scene.server(archive).start()
    watcher.wait_status(lambda s: s["role"] == "starting" or s["ready"], "an answer")
    holds_for(lambda: never_promised(watcher, youngest), 0.3, "the lag")
    successor.thaw()
    watcher.wait_ready()
    watcher.stop_clean()
    goes_on(scene, successor, archive, generation)


# ---- a WAL that has just begun ----
def test_successor__killed_twice_after_a_reset(scene):
    """One dies when the WAL has begun anew, the next one just after it noted its lead: the note that a
    reset follows was in the record of the first, and must outlive the second."""
    archive = scene.archive("dir")
    large_pages(scene)
    server = scene.server(archive).start_ready()
    server.wait_snapshot()
    generation = server.wait_archived()["generation"]
    server.stop_clean()
    server = hooked(scene, archive, "freeze_reset_done:1").start_ready()
    load = scene.load(server, clients=4, pause_s=0).start()
    dies(server)
    load.stop()
    dies(hooked(scene, archive, "claim_noted:1").start())
    goes_on(scene, scene.server(archive).start(), archive, generation)


@pytest.mark.parametrize("store", ["there", "away"])
def test_successor__killed_before_the_new_wal_has_a_segment(scene, store):
    """The store is away, so what is captured of the WAL that has just begun waits in memory; the record
    is written meanwhile for other reasons. Then the server dies."""
    archive = scene.archive("dir")
    large_pages(scene)
    server = scene.server(archive).start_ready()
    server.wait_snapshot()
    generation = server.wait_archived()["generation"]
    archive.break_off()
    until_reset(scene, server)
    until(lambda: not record(scene)["reset_follows"], "the record to be written again")
    server.kill()
    if store == "there":
        archive.mend()
    server = scene.server(archive).start_ready()
    if store == "away":
        archive.mend()
    goes_on(scene, server, archive, generation)


@pytest.mark.parametrize("step", ["claim_noted:1", "freeze_reset_noted:1"])
def test_successor__the_wal_was_truncated_where_a_reset_follows(scene, step):
    """The leader dies where a reset follows; a foreign TRUNCATE is first, so the WAL is empty and has
    other salts; the next leader dies there too, while a third process keeps the wal-index alive."""
    archive = scene.archive("dir")
    large_pages(scene)
    first = hooked(scene, archive, "freeze_reset_noted:2").start_ready()
    second = hooked(scene, archive, step)
    third = scene.server(archive)
    first.wait_leader()
    first.wait_snapshot()
    generation = first.wait_archived()["generation"]
    for server in (second, third):
        server.start_ready()
        server.freeze()
    load = scene.load(first, clients=4, pause_s=0).start()
    dies(first)
    load.stop()
    sqlite3(scene.database, "PRAGMA wal_checkpoint(TRUNCATE);")
    assert Path(f"{scene.database}-wal").stat().st_size == 0
    second.thaw()
    dies(second)
    third.thaw()
    goes_on(scene, third, archive, generation)


def test_successor__a_reset_while_the_spool_was_full(scene):
    """Nothing is captured when the spool is full, and the WAL is reset all the same: that the last
    captured frame is gone from the -wal is no loss, and the next start begins a generation."""
    archive = scene.archive("dir")
    large_pages(scene)
    server = scene.server(archive, SPOOL_MAX_BYTES=1 << 20, STOP_TIMEOUT_MS=100).start_ready()
    server.wait_snapshot()
    first = server.wait_archived()["generation"]
    archive.break_off()
    sqlite3(scene.database, "INSERT INTO other WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 "
            "FROM n WHERE i < 6) SELECT randomblob(1000000) FROM n;")
    server.wait_status(lambda s: s["reason"] and "spool is full" in s["reason"], "the full spool")
    until_reset(scene, server)
    server.stop()
    archive.mend()
    server = scene.server(archive).start_ready()
    server.wait_leader()
    server.wait_snapshot()
    assert server.wait_archived()["generation"] != first
    server.stop_clean()
    assert scene.restored_rows(archive) == scene.source()


@pytest.mark.parametrize("stale", ["refuse", "restore"])
def test_successor__an_idle_wal_checkpointed_whole(scene, stale):
    """A foreign checkpoint of a database that nobody writes copies the whole WAL, and the leader notes
    it; it dies, and the next commit resets the WAL before anybody leads. The record says that all was in
    the file: no frames are lost, nothing is refused and nothing moved aside."""
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    server.wait_leader()
    scene.rows(server, 10)
    server.wait_snapshot()
    first = server.wait_archived()["generation"]
    log, done = sqlite3(scene.database, "PRAGMA wal_checkpoint(FULL);").split("|")[1:]
    assert int(log) == int(done) > 0
    until(lambda: record(scene)["backfilled"] == int(log), "the checkpoint to be noted")
    with foreign_writer(scene.database) as connection:  # open before: the wal-index outlives the leader
        connection.execute("SELECT * FROM test").fetchall()
        server.kill()
        connection.execute(insert("while nobody leads"))
        server = scene.server(archive, ON_STALE=stale).start()
        server.wait_leader()
    assert "not proven" not in server.log() and "while nobody leads" in str(scene.source())
    begins_anew(scene, server, archive, first)
    assert not list(scene.volume.glob("*before-restore*"))


# ---- a generation that was noted, and never born ----
def generations(archive):
    return [json.loads(archive.get(key)) for key in archive.generations()]


def begins_anew(scene, server, archive, first):
    """Ready, in another generation than the first, which is its parent; all is archived and restored."""
    server.wait_ready()
    server.wait_leader()
    server.insert("the next one")
    server.wait_snapshot()
    status = server.wait_archived()
    assert status["generation"] != first
    newest = generations(archive)[-1]
    assert newest["generation"] == status["generation"] and newest["parent"], newest
    server.stop_clean()
    assert scene.restored_rows(archive) == scene.source()


def lived(scene, archive):
    server = scene.server(archive).start_ready()
    server.wait_leader()
    scene.rows(server, 30)
    server.wait_snapshot()
    generation = server.wait_archived()["generation"]
    server.stop_clean()
    return generation


def test_successor__maintenance_then_killed_before_the_birth(scene):
    """A foreign checkpoint ended continuity; the start that found it notes a generation and dies. The
    next start finds the file as that one noted it, and no -wal: that is no loss of frames."""
    archive = scene.archive("dir")
    generation = lived(scene, archive)
    sqlite3(scene.database, "PRAGMA wal_checkpoint(TRUNCATE);")
    dies(hooked(scene, archive, "start_generation_noted:1").start())
    begins_anew(scene, scene.server(archive).start(), archive, generation)


def test_successor__file_written_then_killed_before_the_birth(scene):
    """Row 16: somebody wrote the database file beside its -wal, so a generation is noted; that start
    dies. The next one must not go on in the old generation, whose pages are not those of the file."""
    archive = scene.archive("dir")
    sqlite3(scene.database, "PRAGMA page_size=65536;", "CREATE TABLE other(x);",
            "INSERT INTO other VALUES('a mark that is in the file');")
    generation = lived(scene, archive)
    data = scene.database.read_bytes()
    assert data.count(b"a mark that is in") == 1
    with open(scene.database, "r+b") as file:
        file.seek(data.index(b"a mark that is in"))
        file.write(b"A MARK")
    dies(hooked(scene, archive, "start_generation_noted:1").start())
    begins_anew(scene, scene.server(archive).start(), archive, generation)
    restored = scene.restore_aside(archive).expect(0).target
    assert "A MARK that is in the file" in sqlite3(restored, "SELECT x FROM other;")


def test_successor__the_birth_is_there_and_nobody_knows(scene):
    """The birth is in the archive, the reply was never seen, and the store is away at the next start:
    that one cannot ask. When the archive answers, the birth is known as ours."""
    archive = scene.archive("dir")
    first = lived(scene, archive)
    sqlite3(scene.database, "PRAGMA wal_checkpoint(TRUNCATE);")
    dies(hooked(scene, archive, "birth_put:1").start())
    assert len(archive.generations()) == 2
    archive.break_off()
    for _ in range(2):
        server = scene.server(archive, STOP_TIMEOUT_MS=100).start_ready()
        scene.rows(server, 10)
        server.stop()
    archive.mend()
    begins_anew(scene, scene.server(archive).start(), archive, first)


def test_successor__claimed_and_nobody_knows(scene, archive):
    """A claim is put, and its leader dies before the record knows; the next start finds it, notes its own
    claim, and dies before that is put. The claim in the archive is still known as ours."""
    generation = lived(scene, archive)
    dies(hooked(scene, archive, "claim_put:1").start())
    dies(hooked(scene, archive, "claim_noted:1").start())
    goes_on(scene, scene.server(archive).start(), archive, generation)


def test_successor__what_the_archive_holds_is_known_until_the_record_says_it(scene):
    """The archive confirmed a segment, the leader died before the record knew, and the next one dies as
    it begins. Then a foreign checkpoint takes the -wal: maintenance while down, not somebody else's frames."""
    archive = scene.archive("dir")
    first = hooked(scene, archive, "upload_after_put:2").start_ready()
    first.wait_leader()
    load = scene.load(first, clients=2, pause_s=0).start()
    dies(first)
    load.stop()
    dies(hooked(scene, archive, "start_locks_held:1").start())
    sqlite3(scene.database, "PRAGMA wal_checkpoint(TRUNCATE);")
    server = scene.server(archive).start()
    server.wait_ready()
    server.wait_leader()
    server.insert("the next one")
    server.wait_snapshot()
    server.wait_archived()
    server.stop_clean()
    assert scene.restored_rows(archive) == scene.source()


def test_successor__a_packed_snapshot_of_the_parent(scene):
    """The leader died with a snapshot packed, not complete; maintenance ends the generation. The packed
    one is not waited for: the new generation gets its own."""
    archive = scene.archive("dir")
    server = hooked(scene, archive, "snapshot_before_complete:1").start()
    dies(server)
    sqlite3(scene.database, "CREATE TABLE foreign_work(x);")
    server = scene.server(archive).start_ready()
    server.wait_leader()
    server.insert("the next one")
    server.wait_snapshot()
    server.wait_archived()
    server.stop_clean()
    assert scene.restored_rows(archive) == scene.source()


@pytest.mark.parametrize("work", ["PRAGMA wal_checkpoint(TRUNCATE);", "VACUUM;"])
def test_successor__maintenance_while_a_start_looks(scene, work):
    """A sqlite3 program works on the database between the start's look at the file and that at its -wal:
    no frames are lost, so nothing is refused (HARVEY_ON_STALE=restore would move the database aside)."""
    archive = scene.archive("dir")
    generation = lived(scene, archive)
    server = hooked(scene, archive, "start_looked:1", stands_still=True, ON_STALE="restore").start()
    stands_still(server)
    sqlite3(scene.database, work)
    source = scene.source()
    server.thaw()
    begins_anew(scene, server, archive, generation)
    assert "not proven" not in server.log() and scene.source()[:len(source)] == source
    assert not list(scene.volume.glob("*before-restore*"))


@pytest.mark.parametrize("moment", ["running", "down"])
def test_successor__the_spool_is_deleted_after_a_reset(scene, moment):
    """The store is away, the WAL was reset, and somebody clears the spool. The archive lacks frames that no
    -wal has any more, and the database has every row: a new generation, and nothing is refused."""
    archive = scene.archive("dir")
    large_pages(scene)
    server = scene.server(archive).start_ready()
    server.wait_leader()
    server.insert("before")
    server.wait_snapshot()
    first = server.wait_archived()["generation"]
    archive.break_off()
    until_reset(scene, server)
    server.wait_status(lambda s: s["spool"]["segments"] > 0, "segments in the spool")
    until(lambda: record(scene)["confirmed"][1] > 0, "the record to say what is confirmed")
    if moment == "down":
        server.kill()
    files = list((Path(f"{scene.database}-harvey") / "spool").rglob("*.wal.zst"))
    assert files
    for path in files:
        path.unlink()
    source = scene.source()
    archive.mend()
    if moment == "down":
        server = scene.server(archive).start()
        begins_anew(scene, server, archive, first)
    else:
        server.wait_status(lambda s: s["generation"] != first, "another generation")
        begins_anew(scene, server, archive, first)
    assert "not proven" not in server.log() and scene.source()[:len(source)] == source


# ---- a commit at the last moment ----
@contextmanager
def foreign_writer(database):
    connection = sqlite3_module.connect(database, isolation_level=None)
    connection.execute("PRAGMA wal_autocheckpoint=0")
    try:
        yield connection
    finally:
        connection.close()


def insert(value):
    return f"INSERT INTO test(value) VALUES('{value}');"


@pytest.mark.parametrize("who", ["a sqlite3", "a sibling"])
def test_successor__a_commit_before_the_last_look(scene, archive, who):
    """A commit lands when a stop is about to look for the last time: that look ships it."""
    server = hooked(scene, archive, "stop_last_look:1", stands_still=True).start_ready()
    server.wait_leader()
    scene.rows(server, 20)
    server.wait_snapshot()
    sibling = scene.server(archive).start_ready() if who == "a sibling" else None
    server.signal(15)
    stands_still(server)
    if sibling:
        sibling.insert("the last one")
        sibling.kill()
    else:
        sqlite3(scene.database, insert("the last one"))
    server.thaw()
    assert server.wait() == 0, server.log()[-3000:]
    source = scene.source()
    assert source[-1][1] == "the last one" and scene.restored_rows(archive) == source


def test_successor__a_commit_after_the_last_look(scene, archive):
    """A sibling commits when the leader has looked for the last time, and is told to stop too: it ships
    its commit itself."""
    server = hooked(scene, archive, "stop_looked:1", stands_still=True).start_ready()
    server.wait_leader()
    scene.rows(server, 20)
    server.wait_snapshot()
    sibling = scene.server(archive).start_ready()
    server.signal(15)
    stands_still(server)
    sibling.insert("the last one")
    sibling.signal(15)
    until(lambda: sibling.readyz() is None, "the sibling to close its port")
    server.thaw()
    assert server.wait() == 0 and sibling.wait() == 0, sibling.log()[-3000:]
    source = scene.source()
    assert source[-1][1] == "the last one" and scene.restored_rows(archive) == source


@pytest.mark.parametrize("what", ["nothing", "a commit", "a checkpoint", "both"])
def test_successor__before_a_freeze_takes_write(scene, what):
    """The freeze is decided; before it takes WRITE somebody commits, or checkpoints, or both."""
    archive = scene.archive("dir")
    large_pages(scene)
    server = hooked(scene, archive, "freeze_begins:1", stands_still=True).start_ready()
    server.wait_leader()
    server.wait_snapshot()
    generation = server.wait_archived()["generation"]
    resets = server.status()["counters"]["wal_resets"]
    server.insert("the table is there")
    with foreign_writer(scene.database) as connection:  # so nobody stands still inside a transaction
        def write():
            connection.execute("INSERT INTO test(value) VALUES('by another program')")
            return set(server.thread_states()) == {"T"}
        until(write, "a freeze to begin", pause_s=0.002)
    if what in ("a commit", "both"):
        sqlite3(scene.database, "PRAGMA wal_autocheckpoint=0;", insert("just before"))
    if what in ("a checkpoint", "both"):
        sqlite3(scene.database, "PRAGMA wal_checkpoint(PASSIVE);")
    server.thaw()
    server.wait_status(lambda s: s["counters"]["wal_resets"] > resets, "the WAL to begin anew")
    goes_on(scene, server, archive, generation)


def test_successor__a_stop_with_rows_that_nobody_captured(scene):
    """The spool was full, the store is back, and the stop comes before a generation could begin: what
    was written meanwhile is in no archive, and the log says so, or it is shipped."""
    archive = scene.archive("dir")
    sqlite3(scene.database, "PRAGMA journal_mode=WAL;", "CREATE TABLE other(x);")
    server = hooked(scene, archive, "stop_last_look:1", stands_still=True,
                    SPOOL_MAX_BYTES=1 << 20).start_ready()
    server.wait_leader()
    server.wait_snapshot()
    server.wait_archived()
    archive.break_off()
    sqlite3(scene.database, "INSERT INTO other WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 "
            "FROM n WHERE i < 6) SELECT randomblob(1000000) FROM n;")
    server.wait_status(lambda s: s["reason"] and "spool is full" in s["reason"], "the full spool")
    server.insert("captured by nobody")
    server.signal(15)
    stands_still(server)
    archive.mend()
    server.thaw()
    assert server.wait() == 0
    source = scene.source()
    if scene.restored_rows(archive) != source:
        assert "not everything is archived" in server.log(), server.log()[-3000:]
    server = scene.server(archive).start_ready()
    server.wait_leader()
    server.wait_archived()
    server.stop_clean()
    assert scene.restored_rows(archive) == source


def test_successor__stopped_while_it_begins(scene):
    """The store is away, segments wait, and a stop comes while the start waits for a foreign writer: the
    log says that something stays in the spool."""
    archive = scene.archive("dir")
    server = scene.server(archive, STOP_TIMEOUT_MS=100).start_ready()
    server.wait_leader()
    server.insert("the table is there")
    server.wait_snapshot()
    server.wait_archived()
    archive.break_off()
    scene.rows(server, 20)
    server.stop()
    sqlite3(scene.database, "PRAGMA wal_checkpoint(TRUNCATE);")  # so that it begins at mark 0
    server = hooked(scene, archive, "freeze_released:1", stands_still=True).start()
    stands_still(server)
    with foreign_writer(scene.database) as connection:
        connection.execute("BEGIN IMMEDIATE")
        server.thaw()
        server.signal(15)
        assert server.wait() == 0
        connection.execute("ROLLBACK")
    assert "not everything is archived" in server.log(), server.log()[-2000:]
    archive.mend()
    server = scene.server(archive).start_ready()
    server.wait_leader()
    server.wait_archived()
    server.stop_clean()
    assert scene.restored_rows(archive) == scene.source()
