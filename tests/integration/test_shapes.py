# SPDX-License-Identifier: Apache-2.0
"""Goal: databases of every shape go through: page sizes, existing databases with indexes, blobs,
triggers and auto_vacuum, growth and shrink, transactions larger than an object, long readers; and
every commit of a run can be gone back to, by position and by time.

Method: the stock `sqlite3` makes the shape, the server ships it, the restored copy is compared
with the source page by page (or with the rows acknowledged up to a position).
"""

import datetime
import sqlite3 as sqlite
import time

import pytest

from harness import env, oracle
from harness.foreign import sqlite3
from harness.hold import Hold
from harness.host import Faults
from harness.load import Ledger
from harness.server import position_of
from harness.wait import until

PAGE_SIZES = (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)


def compare_all(scene, server, archive):
    """Clean stop; the restored copy equals the source."""
    server.wait_archived()
    server.stop_clean()
    source = scene.source_copy()
    result = scene.restore_aside(archive).expect(0)
    oracle.compare_databases(result.target, source)
    return result.target


def bulk(rows, size):
    return (f"INSERT INTO bulk(x) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n "
            f"WHERE i < {rows}) SELECT randomblob({size}) FROM n;")


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_shapes__page_sizes(scene, page_size):
    archive = scene.archive("dir")
    sqlite3(scene.database, f"PRAGMA page_size={page_size};", "CREATE TABLE bulk(x);",
            bulk(20, 700))
    server = scene.server(archive).start_ready()
    scene.rows(server, 40, clients=2)
    sqlite3(scene.database, ".timeout 5000", bulk(50, 3 * page_size // 2))
    scene.rows(server, 10, clients=2)
    target = compare_all(scene, server, archive)
    assert sqlite3(target, "PRAGMA page_size;") == str(page_size)


RICH = [
    "CREATE TABLE person(id INTEGER PRIMARY KEY, name TEXT NOT NULL, photo BLOB);",
    "CREATE UNIQUE INDEX person_name ON person(name);",
    "CREATE TABLE audit(what, at DEFAULT CURRENT_TIMESTAMP);",
    "CREATE TRIGGER person_added AFTER INSERT ON person BEGIN INSERT INTO audit(what) "
    "VALUES('added ' || new.name); END;",
    "CREATE VIEW names AS SELECT name FROM person;",
    "CREATE TABLE wide(k TEXT PRIMARY KEY, v) WITHOUT ROWID;",
    "CREATE VIRTUAL TABLE words USING fts5(body);",
    "INSERT INTO person(name, photo) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n "
    "WHERE i < 300) SELECT 'person ' || i, randomblob(i * 37 % 9000) FROM n;",
    "INSERT INTO wide SELECT hex(randomblob(8)), randomblob(50) FROM person;",
    "INSERT INTO words SELECT name FROM person;",
    "CREATE TABLE bulk(x);",
]


@pytest.mark.parametrize("mode", ["delete", "wal", "wal with a -wal left"])
@pytest.mark.parametrize("auto_vacuum", ["none", "full", "incremental"])
def test_shapes__adoption(scene, mode, auto_vacuum):
    """An existing database: the app's table is created beside what is there, all of it is archived,
    and stays right under growth and shrink."""
    archive = scene.archive("dir")
    setup = [f"PRAGMA auto_vacuum={auto_vacuum};", f"PRAGMA journal_mode={mode.split()[0]};", *RICH]
    if mode.endswith("left"):
        connection = sqlite.connect(scene.database)
        for line in setup:
            connection.execute(line)
            connection.commit()
        copy = scene.copy_volume()  # with a -wal that nobody has folded in
        connection.close()
        scene.wipe()
        scene.volume.rmdir()
        copy.rename(scene.volume)
        (scene.volume / "state.db-shm").unlink()
        assert (scene.volume / "state.db-wal").stat().st_size > 0
    else:
        sqlite3(scene.database, *setup)
    server = scene.server(archive).start_ready()
    assert server.status()["rows"] == 0
    scene.rows(server, 20, clients=2)
    wait = ".timeout 10000"
    sqlite3(scene.database, wait, bulk(400, 4000))
    sqlite3(scene.database, wait, "INSERT INTO person(name) VALUES('late');")
    sqlite3(scene.database, wait, "DELETE FROM bulk WHERE rowid % 2;")
    sqlite3(scene.database, wait, "PRAGMA incremental_vacuum(50);")
    scene.rows(server, 20, clients=2)
    target = compare_all(scene, server, archive)
    assert sqlite3(target, "SELECT count(*) FROM person; SELECT count(*) FROM audit;",
                   "SELECT count(*) FROM words WHERE words MATCH 'person';") == "301\n301\n300"


def test_shapes__an_app_table_that_is_there_already(scene):
    """The app's own table with rows, made by somebody else: counted, kept, continued."""
    archive = scene.archive("dir")
    sqlite3(scene.database, "CREATE TABLE test(id INTEGER PRIMARY KEY, value INT);",
            *[f"INSERT INTO test(value) VALUES({n});" for n in range(25)])
    server = scene.server(archive).start_ready()
    assert server.status()["rows"] == 25
    assert server.insert("next") == 26
    compare_all(scene, server, archive)


def test_shapes__growth_and_shrink(scene, archive):
    server = scene.server(archive).start_ready()
    wait = ".timeout 20000"
    sqlite3(scene.database, wait, "CREATE TABLE bulk(x);")
    load = scene.load(server, Ledger(), clients=2).start()
    for round_number in range(3):
        sqlite3(scene.database, wait, bulk(600, 5000))
        sqlite3(scene.database, wait, "DELETE FROM bulk;")
        if round_number == 1:
            sqlite3(scene.database, wait, "VACUUM;")
        load.wait_acks(5)
    sqlite3(scene.database, wait, "DROP TABLE bulk;")
    load.stop()
    compare_all(scene, server, archive)


def test_shapes__vacuum_under_load(scene):
    """VACUUM and incremental vacuum rewrite pages and cut the file off while rows are written."""
    archive = scene.archive("dir")
    sqlite3(scene.database, "PRAGMA auto_vacuum=incremental;", "PRAGMA journal_mode=WAL;",
            "CREATE TABLE bulk(x);")
    server = scene.server(archive, SHIP_INTERVAL_MS=0).start_ready()
    ledger = Ledger()
    load = scene.load(server, ledger, clients=2).start()
    wait = ".timeout 20000"
    sizes = []
    for statement in ("PRAGMA incremental_vacuum(100);", "PRAGMA incremental_vacuum;", "VACUUM;"):
        sqlite3(scene.database, wait, bulk(400, 5000))
        pages = int(sqlite3(scene.database, wait, "PRAGMA page_count;"))
        sqlite3(scene.database, wait, "DELETE FROM bulk WHERE rowid % 3;")
        load.wait_acks(5)
        sqlite3(scene.database, wait, statement)
        sizes.append((pages, int(sqlite3(scene.database, wait, "PRAGMA page_count;"))))
        load.wait_acks(5)
    load.stop()
    assert all(after < before - 50 for before, after in sizes), sizes
    rows = oracle.read_rows(compare_all(scene, server, archive))
    assert oracle.compare(rows, None, ledger, time.monotonic()).lost == 0
    assert len(archive.generation_ids()) == 1


def test_shapes__savepoints_rolled_back_after_a_spill(scene):
    """A foreign program's cache is too small: pages go into the -wal inside the transaction, then part of
    it is rolled back, and what follows writes over those frames. SQLite writes some of them with checksums
    that do not follow: either they are right, or the server says so and begins a new generation."""
    archive = scene.archive("dir")
    sqlite3(scene.database, "PRAGMA journal_mode=WAL;", "CREATE TABLE bulk(x);", bulk(100, 3000))
    server = scene.server(archive, SHIP_INTERVAL_MS=0).start_ready()
    server.wait_snapshot()
    ledger = Ledger()
    load = scene.load(server, ledger, clients=2).start()
    foreign = sqlite.connect(scene.database, isolation_level=None, timeout=20)
    foreign.execute("PRAGMA cache_size=10")
    wal = scene.database.with_name("state.db-wal")
    spilled = 0
    for number in range(12):
        foreign.execute("BEGIN IMMEDIATE")
        before = wal.stat().st_size
        foreign.execute("UPDATE bulk SET x = randomblob(3000) WHERE rowid % 2 = ?", (number % 2,))
        foreign.execute("SAVEPOINT inner")
        foreign.execute("UPDATE bulk SET x = randomblob(2000) WHERE rowid % 3 = 0")
        foreign.execute("INSERT INTO bulk SELECT randomblob(2500) FROM bulk LIMIT 60")
        spilled += wal.stat().st_size > before  # nobody else may write now
        foreign.execute("ROLLBACK TO inner")
        foreign.execute("UPDATE bulk SET x = randomblob(1000) WHERE rowid % 5 = 0")
        if number % 3 == 2:
            foreign.execute("ROLLBACK")
        else:
            foreign.execute("RELEASE inner")
            foreign.execute("COMMIT")
        load.wait_acks(2)
    foreign.close()
    load.stop()
    assert spilled >= 4, spilled  # what was rolled back leaves room for the next
    rows = oracle.read_rows(compare_all(scene, server, archive))
    assert oracle.compare(rows, None, ledger, time.monotonic()).lost == 0
    print(f"{len(archive.generation_ids())} generations")


@pytest.mark.parametrize("megabytes", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_shapes__a_large_transaction(scene, archive, megabytes):
    """Larger than an object may be: it is cut, and a reader applies only whole transactions."""
    server = scene.server(archive).start_ready()
    server.wait_snapshot()
    ledger = scene.rows(server, 10)
    server.wait_archived()
    sqlite3(scene.database, ".timeout 60000", "CREATE TABLE bulk(x);")
    sqlite3(scene.database, ".timeout 60000", bulk(megabytes * 20, 50000), limit_s=300)
    scene.rows(server, 10, ledger)
    server.wait_archived(limit_s=300)
    biggest = max(size for key, (size, _) in archive.list().items() if "/wal/" in key)
    assert biggest < megabytes * 1000000 / 2, f"not cut: an object of {biggest} bytes"
    target = compare_all(scene, server, archive)
    assert sqlite3(target, "SELECT count(*) FROM bulk;") == str(megabytes * 20)


def test_shapes__killed_inside_a_large_transaction(scene):
    """The server dies while a large foreign transaction is being written and after it: a restore
    holds all of it or nothing."""
    archive = scene.archive("dir")
    server = scene.server(archive, SHIP_INTERVAL_MS=0).start_ready()
    server.wait_snapshot()
    sqlite3(scene.database, ".timeout 20000", "CREATE TABLE bulk(x);")
    server.insert("after the table")
    server.wait_archived()
    for number in range(4):
        connection = sqlite.connect(scene.database, timeout=20)
        connection.execute("PRAGMA cache_size=50")  # spills into the -wal before its commit
        connection.execute("BEGIN IMMEDIATE")
        for _ in range(100):
            connection.execute("INSERT INTO bulk VALUES(randomblob(50000))")
        if number % 2:
            connection.commit()
            pause_s = scene.random.uniform(0, 0.2)
            time.sleep(pause_s)  # the random moment itself
        server.kill()
        if not number % 2:
            connection.rollback()
        connection.close()
        result = scene.restore_aside(archive).expect(0)
        count = int(sqlite3(result.target, "SELECT count(*) FROM bulk;"))
        assert count % 100 == 0, f"{count} rows: part of a transaction was restored"
        server.start_ready()
        server.wait_leader()
        server.insert(f"round {number}")
        server.wait_archived()
    compare_all(scene, server, archive)


@pytest.mark.parametrize("seconds", [6, pytest.param(120, marks=pytest.mark.slow)])
def test_shapes__a_long_reader(scene, seconds):
    """Somebody holds a read transaction: the WAL grows meanwhile, nothing stops, and afterwards it
    is brought back."""
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    ledger = scene.rows(server, 10)
    reader = sqlite.connect(scene.database, isolation_level=None)
    reader.execute("BEGIN")
    seen = reader.execute("SELECT count(*) FROM test").fetchone()[0]
    load = scene.load(server, ledger, clients=4, pause_s=0.0, payload_bytes=1000).start()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        load.wait_acks(50)
    assert reader.execute("SELECT count(*) FROM test").fetchone()[0] == seen
    reader.execute("ROLLBACK")
    reader.close()
    wal = scene.database.with_name("state.db-wal")
    size = wal.stat().st_size
    wal_no = server.status()["local"]["wal_no"]
    server.wait_status(lambda s: s["local"]["wal_no"] > wal_no, "a WAL reset after the reader",
                       limit_s=120)
    load.stop()
    print(f"{len(ledger.acks)} rows; the -wal had {size} bytes, has {wal.stat().st_size}")
    rows = oracle.read_rows(compare_all(scene, server, archive))
    assert oracle.compare(rows, None, ledger, time.monotonic()).lost == 0


def test_shapes__restart_with_a_long_reader(scene):
    """A reader of before the restart is still there at the start, in an old snapshot."""
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    ledger = scene.rows(server, 20)
    reader = sqlite.connect(scene.database, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM test").fetchone()
    scene.rows(server, 20, ledger)
    generation = server.wait_archived()["generation"]
    server.kill()
    server.start_ready()
    scene.rows(server, 20, ledger)
    assert server.wait_archived()["generation"] == generation
    reader.execute("ROLLBACK")
    reader.close()
    rows = oracle.read_rows(compare_all(scene, server, archive))
    assert oracle.compare(rows, None, ledger, time.monotonic()).lost == 0


def test_shapes__a_snapshot_while_the_database_grows(scene):
    """Snapshots every second under load: each is consistent, and the latest serves."""
    archive = scene.archive("dir")
    sqlite3(scene.database, "PRAGMA journal_mode=WAL;", "CREATE TABLE bulk(x);", bulk(800, 10000))
    server = scene.server(archive, SNAPSHOT_INTERVAL_S=1).start_ready()
    ledger = Ledger()
    load = scene.load(server, ledger, clients=3, payload_bytes=800).start()
    until(lambda: load.wait_acks(10) or len(archive.complete_snapshots()) >= 3, "three snapshots")
    load.stop()
    rows = oracle.read_rows(compare_all(scene, server, archive))
    assert oracle.compare(rows, None, ledger, time.monotonic()).lost == 0
    assert len(archive.generation_ids()) == 1


@pytest.mark.skipif(env.is_slow_build(), reason="the hooks flavour is a build of its own")
def test_shapes__a_later_snapshot_is_packed_in_the_background(scene):
    """The first is waited for. Of a later one the packing leaves the CPU to all others, and holds none up."""
    binary = env.hooks_program("server")
    hold = Hold(scene, "snapshot_part_made", begun=False)
    archive = scene.archive("dir")
    server = scene.server(archive, binary=binary, SNAPSHOT_INTERVAL_S=1, TEST_HOLD=hold.setting)
    first = position_of(server.start_ready().wait_snapshot(), "snapshot")
    hold.begin()
    ledger = scene.rows(server, 5)
    hold.wait()
    nices = server.thread_nices()
    others = {name: nice for name, nice in nices.items() if name != "packing"}
    usual = others["http"]
    assert nices["packing"] == min(19, usual + 10)
    assert {"http", "writer", "leader", "lane"} <= set(others) and set(others.values()) == {usual}, nices
    scene.rows(server, 20, ledger)
    server.wait_archived()
    hold.end()
    server.wait_status(lambda s: position_of(s, "snapshot") != first, "the later snapshot")
    rows = oracle.read_rows(compare_all(scene, server, archive))
    assert oracle.compare(rows, None, ledger, time.monotonic()).lost == 0


def test_shapes__to_every_position_of_a_run(scene, archive):
    """One client, every commit its own: --to-position of each gives a prefix that holds its row."""
    server = scene.server(archive, SHIP_INTERVAL_MS=scene.random.choice((0, 20))).start_ready()
    server.wait_snapshot()
    told = []
    for number in range(25):
        row, position = server.insert_position(f"row {number}")
        assert position, "no Harvey-Position while we lead"
        told.append((row, position))
        if number == 12:  # also across a restart
            server.stop_clean()
            server.start_ready()
            server.wait_leader()
    server.wait_archived()
    server.stop_clean()
    all_rows = scene.source()
    assert [position for _, position in told] == sorted(
        (position for _, position in told), key=lambda text: tuple(map(int, text.split("/")[1:])))
    for row, position in told:
        result = scene.restore_aside(archive, "--to-position", position).expect(0)
        rows = oracle.read_rows(result.target)
        assert rows == all_rows[:len(rows)] and len(rows) >= row, (row, position, len(rows))
        reached = result.positions()
        generation, wal_no, frame_no = position.split("/")
        assert (generation, int(wal_no), int(frame_no)) in reached, result.describe()


def test_shapes__to_positions_across_wal_resets(scene):
    """Pages of 64 KiB fill a WAL with some 250 commits: positions on both sides of each reset."""
    archive = scene.archive("dir")
    sqlite3(scene.database, "PRAGMA page_size=65536;", "PRAGMA journal_mode=WAL;")
    server = scene.server(archive, SYNCHRONOUS="NORMAL").start_ready()
    server.wait_snapshot()
    told = []
    until(lambda: told.append(server.insert_position("text" * 100)) or
          (told[-1][1] and int(told[-1][1].split("/")[1]) >= 4), "three WAL resets", pause_s=0)
    server.wait_archived()
    server.stop_clean()
    places = [tuple(map(int, position.split("/")[1:])) for _, position in told]
    assert places == sorted(places) and len(set(places)) == len(places)
    first = [i for i in range(1, len(places)) if places[i][0] != places[i - 1][0]]
    asked = {i + off for i in first for off in (-1, 0)} | set(scene.random.sample(range(len(told)), 4))
    for row, position in [told[i] for i in sorted(asked)]:
        result = scene.restore_aside(archive, "--to-position", position).expect(0)
        rows = oracle.read_rows(result.target)
        assert [number for number, _ in rows] == list(range(1, row + 1)), (position, len(rows))


def test_shapes__a_position_that_is_not_there(scene):
    archive = scene.archive("dir")
    server = scene.server(archive).start_ready()
    scene.rows(server, 10)
    status = server.wait_archived()
    server.wait_snapshot()
    server.stop_clean()
    generation = status["generation"]
    beyond = f"{generation}/{status['local']['wal_no']}/{status['local']['frame_no'] + 1000}"
    result = scene.restore_aside(archive, "--to-position", beyond).expect(4)
    assert result.positions() and not result.left_behind(), result.describe()
    scene.restore_aside(archive, "--to-position", "00000099-0123456789abcdef/1/1").expect(3)
    scene.restore_aside(archive, "--to-position", "nonsense").expect(2)
    scene.restore_aside(archive, "--to-position", f"{generation}/1").expect(2)


def rfc3339(unix_s):
    moment = datetime.datetime.fromtimestamp(unix_s, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def test_shapes__to_time(scene, archive):
    """A time between two rows gives the first and not the second."""
    server = scene.server(archive, SHIP_INTERVAL_MS=0).start_ready()
    server.wait_snapshot()
    moments = []
    for number in range(8):
        server.insert(f"row {number}")
        server.wait_archived()  # captured, so its time lies before the moment noted
        time.sleep(0.015)  # wall-clock milliseconds must differ on both sides
        moments.append((number + 1, time.time()))
        time.sleep(0.015)
    server.stop_clean()
    for count, moment in moments:
        result = scene.restore_aside(archive, "--to-time", rfc3339(moment)).expect(0)
        assert len(oracle.read_rows(result.target)) == count, result.describe()
    early = scene.restore_aside(archive, "--to-time", rfc3339(moments[0][1] - 86400))
    assert early.code in (3, 4) and not early.left_behind(), early.describe()
    late = scene.restore_aside(archive, "--to-time", rfc3339(moments[-1][1] + 86400)).expect(0)
    assert len(oracle.read_rows(late.target)) == len(moments)
    scene.restore_aside(archive, "--to-time", "yesterday").expect(2)


@pytest.mark.skipif(env.is_slow_build(), reason="LD_PRELOAD before a sanitizer's runtime")
def test_shapes__to_time_across_clock_steps(scene):
    """The clock steps back and forth, under the server and while it is down. Times in the archive never
    go back: a row's is the latest that the clock had shown. So the clock's steps tell, for any time, which
    rows a restore must hold and which it must not; and snapshots go on, whatever the clock says."""
    host = Faults(scene)
    server = host.on(scene.server(scene.archive("dir"), SHIP_INTERVAL_MS=0, SNAPSHOT_INTERVAL_S=1))
    server.start_ready().wait_snapshot()

    def now():
        return host.now_unix_s() * 1000
    earliest, latest, moments = [0], [0], []  # bounds of each row's time; ask for these
    shown = 0  # the latest that the clock has shown
    for number, hours in enumerate((0, -1, 1, -1, 2)):
        if number >= 3:
            server.stop_clean()
        shown = max(shown, now() + 2)
        host.step_clock(hours * 3600 - host.clock_shift_s(), [server] if server.is_alive() else [])
        if number >= 3:
            server.start_ready().wait_leader()
        for _ in range(3):
            earliest.append(max(earliest[-1], now() - 2))
            server.insert("text")
            status = server.wait_archived()
            shown = max(shown, now() + 2)
            latest.append(shown)
            time.sleep(0.01)  # wall-clock milliseconds must differ on both sides
            moments.append(now())
            time.sleep(0.01)
        at = (status["local"]["wal_no"], status["local"]["frame_no"])
        server.wait_status(lambda s: (s["snapshot"]["wal_no"], s["snapshot"]["frame_no"]) >= at,
                           f"a snapshot after a step of the clock to {hours} h")
    server.stop_clean()
    times = [int(segment["unix_ms"]) for segment in server.archive.segments()]
    assert len(times) > 10 and times == sorted(times)
    for moment in sorted(moments):
        least = sum(bound <= moment for bound in latest[1:])
        most = sum(bound <= moment for bound in earliest[1:])
        result = scene.restore_aside(server.archive, "--to-time", rfc3339(moment / 1000))
        if most == 0:
            assert result.code == 4, result.describe()
            continue
        rows = oracle.read_rows(result.expect(0).target)
        assert least <= len(rows) <= most, (moment, least, len(rows), most, result.describe())


def test_shapes__to_time_across_generations(scene):
    """Three lives: a time in each is restored from the generation that was live then."""
    archive = scene.archive("dir")
    moments = []
    for life in range(3):
        server = scene.server(archive, SHIP_INTERVAL_MS=0).start_ready()
        server.wait_snapshot()
        scene.rows(server, 15, clients=1)
        status = server.wait_archived()
        time.sleep(0.02)
        moments.append((status["rows"], time.time(), status["generation"]))
        time.sleep(0.02)
        server.stop_clean()
        scene.wipe()
        scene.restore(archive).expect(0)
    for rows, moment, generation in moments:
        result = scene.restore_aside(archive, "--to-time", rfc3339(moment)).expect(0)
        assert len(oracle.read_rows(result.target)) == rows, result.describe()
        assert generation in result.text


@pytest.mark.slow
def test_shapes__past_one_gigabyte(scene):
    """Across the lock page at 1 GiB, with 64 KiB pages to be quick about it."""
    archive = scene.archive("dir")
    sqlite3(scene.database, "PRAGMA page_size=65536;", "PRAGMA journal_mode=WAL;",
            "CREATE TABLE bulk(x);")
    server = scene.server(archive, SPOOL_MAX_BYTES=8 << 30).start_ready()
    wait = ".timeout 60000"
    for _ in range(6):
        sqlite3(scene.database, wait, bulk(200, 1000000), limit_s=600)
    scene.rows(server, 20)
    server.wait_archived(limit_s=900)
    target = compare_all(scene, server, archive)
    assert target.stat().st_size > 1 << 30
