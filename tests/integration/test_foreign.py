# SPDX-License-Identifier: Apache-2.0
"""Goal: a stock `sqlite3` program that checkpoints, writes or vacuums while we lead takes nothing
away; a database file replaced, renamed or deleted under the server is noticed at once.

Method: `sqlite3` processes in a loop beside the load; then everything archived, restored aside, and
compared with the source row by row and page by page. docs/concurrency.md says what holds it. A storm
hardly ever meets SQLite's WAL-reset bug, so checkpoint_racer.c stops a checkpoint at the two places.
"""

import os
import shlex
import signal
import sqlite3 as sqlite
import subprocess
import time

import pytest

from harness import env, oracle
from harness.foreign import CHECKPOINTS, ForeignLoop, sqlite3
from harness.load import Ledger
from harness.wait import LIMIT_S, holds_for, until

SECONDS = float(os.environ.get("HARVEY_FOREIGN_SECONDS", "8"))


def restored_equals_source(scene, server, archive, ledger):
    """Clean stop, then: nothing lost, restored and source equal page for page."""
    server.wait_archived()
    server.stop_clean()
    source = scene.source_copy()
    rows = oracle.read_rows(source)
    result = scene.restore_aside(archive).expect(0)
    restored = oracle.read_rows(result.target)
    oracle.compare(restored, rows, ledger, time.monotonic())
    assert len(restored) == len(rows)
    oracle.compare_databases(result.target, source)


def checkpoint_storm(scene, server, archive, seconds, kill=True):
    """Load, and sqlite3 checkpointing in every mode without a pause; kills of the server between.
    Gives the ledger; raises where a row is lost."""
    server.start_ready()
    server.wait_leader()
    ledger = Ledger()
    loops = [ForeignLoop(scene.database, scene.random.sample(CHECKPOINTS, 4), busy_ms=busy_ms)
             for busy_ms in (0, 50)]
    # resets are where it hurts: a foreign writer makes the WAL reach its limit again and again
    sqlite3(scene.database, ".timeout 5000", "CREATE TABLE churn(x);")
    loops.append(ForeignLoop(scene.database, [
        "INSERT INTO churn VALUES(randomblob(3000000)); DELETE FROM churn;"], pause_s=0.02))
    for loop in loops:
        scene.also_end(loop.start())
    load = scene.load(server, ledger, clients=6, pause_s=0.0).start()
    load.wait_acks(100)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pause_s = scene.random.uniform(0.3, 1.5)
        time.sleep(pause_s)  # the random moment itself
        if kill and scene.random.random() < 0.3:
            server.kill()
            server.start_ready()
            server.wait_leader()
    load.stop()
    for loop in loops:
        loop.stop()
    wals = len({(match["generation"], match["wal"]) for match in archive.segments()})
    print(f"{len(ledger.acks)} rows, {sum(loop.rounds for loop in loops[:2])} foreign checkpoints, "
          f"{loops[2].rounds} large foreign transactions, {wals} WALs, "
          f"{len(archive.generation_ids())} generations")
    assert wals > 2, "hardly a WAL reset: the storm showed nothing"
    restored_equals_source(scene, server, archive, ledger)
    return ledger


def test_foreign__checkpoints_in_every_mode_lose_nothing(scene, archive):
    """While we lead: no row lost, no generation begun."""
    server = scene.server(archive)
    checkpoint_storm(scene, server, archive, SECONDS, kill=False)
    assert len(archive.generation_ids()) == 1, server.log(whole=True)[-4000:]


def test_foreign__checkpoints_and_kills_lose_nothing(scene):
    """The same with kill -9 of the server in between: a foreign checkpoint may come while nobody
    leads, and cost a generation; never a row."""
    archive = scene.archive("dir")
    checkpoint_storm(scene, scene.server(archive), archive, SECONDS)


# ---- the checkpoint lock: a foreign checkpoint that is stopped at the worst place ----
@pytest.fixture(scope="session")
def racer(tmp_path_factory):
    path = tmp_path_factory.mktemp("racer") / "checkpoint_racer"
    subprocess.run([*shlex.split(os.environ.get("CC", "gcc")), "-std=gnu17", "-O1", "-g",
                    "-D_GNU_SOURCE", "-o", path,
                    env.ROOT / "tests" / "integration" / "checkpoint_racer.c", "-lsqlite3"],
                   check=True, timeout=120)
    return path


def race(scene, server, racer, tries, seconds=LIMIT_S):
    """A freeze after the other under load, and the racer in each. (refused, missed, through, ledger);
    a few foreign transactions and rows came after a try that went through."""
    sqlite3(scene.database, "PRAGMA journal_mode=WAL;", "CREATE TABLE other(x);",
            "INSERT INTO other VALUES(randomblob(300000));", "CREATE TABLE churn(x);")
    server.start_ready()
    server.wait_leader()
    ledger = Ledger()
    churn = ForeignLoop(scene.database, [[
        "PRAGMA wal_autocheckpoint=0;",
        "INSERT INTO churn VALUES(randomblob(3000000)); DELETE FROM churn;"]], pause_s=0.02)
    scene.also_end(churn.start())
    load = scene.load(server, ledger, clients=4, pause_s=0.0).start()
    load.wait_acks(50)
    done = subprocess.run([racer, scene.database, str(tries), str(int(seconds))],
                          capture_output=True, text=True, timeout=11 * LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    enough, failed = len(ledger.acks) + 50, len(ledger.errors)
    until(lambda: len(ledger.acks) >= enough or len(ledger.errors) > failed, "rows, or errors")
    load.stop()
    churn.stop()
    print(f"{done.stdout.strip()}, {churn.rounds} large foreign transactions, "
          f"{len(ledger.acks)} rows")
    refused, missed, through = (int(word) for word in done.stdout.split()[1::2])
    return refused, missed, through, ledger


def test_foreign__checkpoint_lock_keeps_out_the_wal_reset_bug(scene, racer):
    """The worst foreign checkpoint, in freeze after freeze: each is refused, and nothing is lost."""
    archive = scene.archive("dir")
    server = scene.server(archive)
    refused, missed, through, ledger = race(scene, server, racer, 10)
    assert refused == 10 and not missed and not through, (refused, missed, through)
    assert not ledger.errors, ledger.errors[:3]
    assert len(archive.generation_ids()) == 1
    restored_equals_source(scene, server, archive, ledger)


def test_foreign__without_the_checkpoint_lock_rows_are_lost(scene, racer):
    """The negative: with the leader's checkpoint lock taken out (flavour "hooks") the same checkpoint
    goes through and takes acknowledged rows, else the test above proves nothing."""
    binary = env.hooks_program("server")
    if not wal_reset_bug(sqlite_version()):
        pytest.skip("this SQLite library has the WAL-reset bug mended")
    for _ in range(8):  # a try can miss its moment
        scene.wipe()
        server = scene.server(scene.archive("dir"), binary=binary, TEST_NO_CKPT_LOCK=1)
        ledger = race(scene, server, racer, 10**6, seconds=4)[3]
        damage = damage_of(scene, server, ledger)
        if damage:
            print(f"as it must be: without the checkpoint lock: {damage[:500]}")
            return
    pytest.fail("checkpoints ran across resets and did no harm")


def damage_of(scene, server, ledger):
    """What is wrong with the source; None: nothing."""
    server.kill()
    try:
        rows = scene.source()
        oracle.compare(rows, rows, ledger, time.monotonic(), "source")
    except (AssertionError, sqlite.DatabaseError) as error:
        return repr(error)
    return None


def sqlite_version():
    return tuple(int(part) for part in sqlite.sqlite_version.split("."))


def wal_reset_bug(version):
    """Mended in 3.51.3 and in the branches 3.50.7 and 3.44.6."""
    return version < (3, 51, 3) and not ((3, 50, 7) <= version < (3, 51)) \
        and not ((3, 44, 6) <= version < (3, 45))


def test_foreign__writes_are_shipped(scene, archive):
    """Rows that a sqlite3 program inserts, and a table it makes, are archived like ours."""
    server = scene.server(archive).start_ready()
    ledger = Ledger()
    load = scene.load(server, ledger, clients=3).start()
    load.wait_acks(20)
    sqlite3(scene.database, ".timeout 5000", "CREATE TABLE other(a, b);",
            "CREATE INDEX other_a ON other(a);")
    for number in range(10):
        sqlite3(scene.database, ".timeout 5000",
                f"INSERT INTO other VALUES({number}, randomblob(5000));",
                f"INSERT INTO test(value) VALUES('foreign {number}');")
    load.stop()
    assert server.status()["rows"] == len(ledger.acks) + 10, "the row count must see foreign rows"
    result_rows = until(lambda: foreign_rows(scene, server, archive), "the foreign rows")
    assert result_rows == 10
    restored_equals_source(scene, server, archive, ledger)


def foreign_rows(scene, server, archive):
    server.wait_archived()
    result = scene.restore_aside(archive).expect(0)
    return sum(1 for row in oracle.read_rows(result.target) if str(row[1]).startswith("foreign"))


def test_foreign__write_on_an_idle_server_is_seen(scene, archive):
    """No row of ours wakes the leader: the foreign commit is noticed all the same."""
    server = scene.server(archive).start_ready()
    server.insert("one")
    before = server.wait_archived()
    sqlite3(scene.database, ".timeout 5000", "INSERT INTO test(value) VALUES('foreign');")
    status = server.wait_status(lambda s: s["local"] != before["local"], "the foreign commit")
    server.wait_archived()
    assert status["rows"] == 2
    assert [value for _, value in scene.restored_rows(archive)] == ["one", "foreign"]


def spoil_last_frame(wal):
    """Flips a byte in the unused middle of the last frame's page: as SQLite's spill bug would leave it."""
    data = bytearray(wal.read_bytes())
    page_size = int.from_bytes(data[8:12], "big")
    frames = [32 + i * (24 + page_size) for i in range((len(data) - 32) // (24 + page_size))]
    last = max(at for at in frames if data[at + 8:at + 16] == data[16:24])
    at = data.index(bytes(64), last + 24 + 100) + 32
    assert at < last + 24 + page_size - 64
    with open(wal, "r+b") as file:
        file.seek(at)
        file.write(b"\x01")


def test_foreign__a_bad_frame_is_not_shipped(scene, archive):
    """A frame whose bytes do not fit its checksum is never shipped: the generation ends before it, the
    next begins at a fresh WAL, and the restore has every row."""
    server = scene.server(archive).start_ready()
    ledger = scene.rows(server, 20)
    server.wait_snapshot()
    first = server.wait_archived()["generation"]
    server.freeze()
    sqlite3(scene.database, "CREATE TABLE other(a);", "INSERT INTO other VALUES('foreign');")
    spoil_last_frame(scene.database.with_name("state.db-wal"))
    server.thaw()
    server.wait_status(lambda s: s["generation"] > first and s["snapshot"] and not s["alarm"],
                       "a generation without the bad frame")
    assert "bad frame" in server.log()
    scene.rows(server, 10, ledger)
    restored_equals_source(scene, server, archive, ledger)
    assert len(archive.generation_ids()) == 2


def bad_frame(scene):
    """A foreign transaction whose last frame is a bad one. Nobody may lead meanwhile."""
    sqlite3(scene.database, "CREATE TABLE other(a);", "INSERT INTO other VALUES('foreign');")
    spoil_last_frame(scene.database.with_name("state.db-wal"))


def test_foreign__a_bad_frame_outlives_its_leader(scene, archive):
    """The leader dies before it could let the WAL begin anew: its sibling begins with the bad frame in front
    of it, and does the same."""
    server = scene.server(archive).start_ready()
    sibling = scene.server(archive).start_ready()
    ledger = scene.rows(server, 20)
    server.wait_snapshot()
    first = server.wait_archived()["generation"]
    server.freeze()
    bad_frame(scene)
    scene.rows(sibling, 10, ledger)
    server.kill()
    sibling.wait_status(lambda s: s["generation"] > first and s["snapshot"] and not s["alarm"],
                        "a generation without the bad frame")
    assert "could not lead" not in sibling.log(whole=True)
    scene.rows(sibling, 10, ledger)
    restored_equals_source(scene, sibling, archive, ledger)
    assert len(archive.generation_ids()) == 2


def test_foreign__a_bad_frame_and_a_stop(scene):
    """A reader holds the WAL, and the server is told to stop: it waits for the reader's end and lets the WAL
    begin anew. SQLite's recovery would drop the bad frame at the next start, and all rows behind it."""
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    ledger = scene.rows(server, 20)
    server.wait_snapshot()
    server.wait_archived()
    reader = sqlite.connect(scene.database, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM test").fetchall()
    server.freeze()
    bad_frame(scene)
    server.thaw()
    until(lambda: "a bad frame" in server.log(), "the bad frame to be met")
    scene.rows(server, 10, ledger)
    server.signal(signal.SIGTERM)
    holds_for(server.is_alive, 0.5, "it waits for the reader")
    reader.execute("COMMIT")
    assert server.wait() == 0, server.log()
    reader.close()
    rows = scene.restored_rows(archive)
    assert oracle.compare(rows, scene.source(), ledger, time.monotonic()).lost == 0
    assert len(archive.generation_ids()) == 2


def test_foreign__vacuum_under_load(scene, archive):
    """VACUUM, growth and shrink by a foreign program under load: one generation, pages equal."""
    server = scene.server(archive).start_ready()
    ledger = Ledger()
    load = scene.load(server, ledger, clients=4).start()
    load.wait_acks(50)
    wait = ".timeout 20000"
    sqlite3(scene.database, wait, "CREATE TABLE bulk(x);")
    for _ in range(3):
        sqlite3(scene.database, wait,
                "INSERT INTO bulk WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n "
                "WHERE i < 500) SELECT randomblob(3000) FROM n;")
        sqlite3(scene.database, wait, "DELETE FROM bulk WHERE rowid % 3 > 0;")
        sqlite3(scene.database, wait, "VACUUM;")
        load.wait_acks(20)
    load.stop()
    restored_equals_source(scene, server, archive, ledger)
    assert len(archive.generation_ids()) == 1


def test_foreign__journal_mode_cannot_be_changed_while_we_run(scene):
    """Another program cannot take WAL mode away under us."""
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    ledger = scene.rows(server, 10)
    for command in ("PRAGMA journal_mode=DELETE;",
                    "PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE; ROLLBACK;",
                    "PRAGMA page_size=8192; VACUUM;"):
        sqlite3(scene.database, ".timeout 300", command, check=False)
    scene.rows(server, 10, ledger)
    restored_equals_source(scene, server, archive, ledger)


def replace(scene):
    other = scene.path("other")
    sqlite3(other, "PRAGMA journal_mode=WAL;",
            "CREATE TABLE test(id INTEGER PRIMARY KEY, value INT);",
            "INSERT INTO test(value) VALUES('from elsewhere');")
    os.rename(other, scene.database)


def move(scene):
    os.rename(scene.database, scene.volume / "moved.db")


def delete(scene):
    os.unlink(scene.database)


@pytest.mark.parametrize("what", [replace, move, delete], ids=lambda what: what.__name__)
def test_foreign__database_file_taken_away_under_the_server(scene, what):
    """Replaced, renamed or deleted: not ready at once, the reason told, and no row acknowledged
    into a file that has no name any more. What was archived before is still restorable."""
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    before = scene.rows(server, 30)
    server.wait_archived()
    server.wait_snapshot()
    what(scene)
    done = time.monotonic()
    late = Ledger()
    load = scene.load(server, late, clients=3).start()
    until(lambda: len(late.errors) >= 6 or late.acks, "answers")
    server.wait_not_ready()
    load.stop()
    wrong = [ack for ack in late.acks if ack.acknowledged > done]
    assert not wrong, f"{len(wrong)} rows acknowledged into a file without a name: {wrong[0]}"
    assert all(error.startswith("503") for _, error in late.errors), late.errors[:3]
    status = server.try_status()
    assert status and not status["ready"] and status["reason"], status
    assert "state.db" in status["reason"], status["reason"]
    server.wait_status(lambda s: s["role"] not in ("leader", "follower"), "the lead to end")
    rows = scene.restored_rows(archive)
    assert oracle.compare(rows, None, before, done).lost == 0
    server.stop()
